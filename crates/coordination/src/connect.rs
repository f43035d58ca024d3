//! Where ZooKeeper is, and why it cannot be reached.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use tokio::time::timeout;
use znode::Failure;

/// `HOST:PORT[,HOST:PORT...][/chroot]`, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectString {
    servers: Vec<String>,
    chroot: Option<String>,
}

impl FromStr for ConnectString {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (servers, chroot) = match text.find('/') {
            Some(at) => (&text[..at], Some(text[at..].trim_end_matches('/'))),
            None => (text, None),
        };
        let servers: Vec<String> = servers.split(',').map(|s| s.trim().to_owned()).collect();
        for server in &servers {
            let (host, port) = server.rsplit_once(':').ok_or(format!("'{server}' lacks a port: HOST:PORT"))?;
            if host.is_empty() || host.contains(char::is_whitespace) {
                return Err(format!("'{server}' lacks a host: HOST:PORT"));
            }
            match port.parse::<u16>() {
                Ok(port) if port != 0 => {}
                _ => return Err(format!("'{port}' is no port: 1 to 65535")),
            }
        }
        let chroot = chroot.filter(|c| !c.is_empty()).map(str::to_owned);
        if let Some(chroot) = &chroot
            && chroot[1..].split('/').any(|part| part.is_empty() || part == "." || part == "..")
        {
            return Err(format!("'{chroot}' is no path of a znode"));
        }
        Ok(ConnectString { servers, chroot })
    }
}

impl fmt::Display for ConnectString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.servers.join(","), self.chroot.as_deref().unwrap_or_default())
    }
}

impl ConnectString {
    /// The same servers with another chroot, an absolute path.
    pub fn with_chroot(mut self, chroot: &str) -> Self {
        self.chroot = Some(chroot.to_owned());
        self
    }

    /// The servers, without the chroot.
    pub(super) fn servers(&self) -> String {
        self.servers.join(",")
    }

    pub(super) fn chroot(&self) -> Option<&str> {
        self.chroot.as_deref()
    }

    /// The servers one by one, begun with another one: so that many sessions spread over an ensemble.
    pub(super) fn beginning_at(&self, first: usize) -> impl Iterator<Item = &str> {
        let first = first % self.servers.len();
        self.servers[first..].iter().chain(&self.servers[..first]).map(String::as_str)
    }

    /// Whether every server is on this machine, by its name alone.
    pub fn is_loopback(&self) -> bool {
        let is_loopback = |server: &String| {
            let host = server.rsplit_once(':').map_or(server.as_str(), |(host, _)| host).trim_matches(['[', ']']);
            host == "localhost" || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
        };
        self.servers.iter().all(is_loopback)
    }

    /// Why the servers cannot be reached, found by dialling each without the client crate, which does not tell.
    pub(super) async fn diagnose(&self) -> String {
        let mut causes = Vec::new();
        for server in &self.servers {
            let cause = match timeout(Duration::from_secs(1), tokio::net::TcpStream::connect(server)).await {
                Ok(Ok(_)) => "accepts connections but answers no ZooKeeper request".to_owned(),
                Ok(Err(error)) => error.to_string(),
                Err(_) => "no answer".to_owned(),
            };
            causes.push(format!("{server}: {cause}"));
        }
        causes.join("; ")
    }
}

/// How to connect. Fields may be added: `SessionConfig { create_chroot: true, ..SessionConfig::new(zookeeper) }`.
#[derive(Debug, Clone)]
pub struct SessionConfig {
    /// Servers and chroot.
    pub zookeeper: ConnectString,
    /// T, the session timeout to ask for; the server may grant another.
    pub session_timeout: Duration,
    /// Whether to create the chroot where it is missing, instead of failing.
    pub create_chroot: bool,
    /// This machine's clock, `SystemTime::now` but in tests. It is compared with ZooKeeper's, and used until that is known.
    pub wall_clock: fn() -> SystemTime,
}

impl SessionConfig {
    /// To these servers, with a session timeout of 10 s; the chroot must exist.
    pub fn new(zookeeper: ConnectString) -> Self {
        let (session_timeout, wall_clock) = (Duration::from_secs(10), SystemTime::now);
        SessionConfig { zookeeper, session_timeout, create_chroot: false, wall_clock }
    }
}

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// No server answered in time.
    #[error("cannot reach ZooKeeper at {servers} within {} ({cause})", humantime::format_duration(*.within))]
    Unreachable {
        /// The servers tried.
        servers: String,
        /// For how long.
        within: Duration,
        /// What dialling each of them said.
        cause: String,
    },
    /// The chroot does not exist.
    #[error("the chroot {chroot} does not exist on ZooKeeper at {servers}")]
    NoChroot {
        /// The missing path.
        chroot: String,
        /// The servers asked.
        servers: String,
    },
    /// The server refused, or went away while we began.
    #[error("connected to ZooKeeper at {servers}, but {failure}")]
    Failed {
        /// The servers.
        servers: String,
        /// What failed.
        failure: Failure,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connect_string_is_checked_before_anything_is_dialled() {
        let parsed: ConnectString = "a:1,b:2181/lab3/".parse().expect("valid");
        assert_eq!(parsed.to_string(), "a:1,b:2181/lab3");
        for bad in ["", "a", "a:", "a:0", "a:99999", ":2181", "a:1,", "a:1//x", "a:1/x/../y", "a b:1"] {
            assert!(bad.parse::<ConnectString>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn only_what_is_on_this_machine_is_loopback() {
        for (text, want) in [
            ("127.0.0.1:1,localhost:2,[::1]:3/a", true),
            ("127.1.2.3:1", true),
            ("127.0.0.1:1,10.0.0.1:1", false),
            ("localhost.example.org:1", false),
            ("127.0.0.1.example.org:1", false),
        ] {
            assert_eq!(text.parse::<ConnectString>().expect("valid").is_loopback(), want, "{text}");
        }
    }

    #[test]
    fn sessions_spread_over_an_ensemble_by_beginning_with_another_server() {
        let three: ConnectString = "a:1,b:1,c:1/x".parse().expect("valid");
        let dialled = |first| three.beginning_at(first).collect::<Vec<_>>().join(" ");
        assert_eq!([0, 1, 5].map(dialled), ["a:1 b:1 c:1", "b:1 c:1 a:1", "c:1 a:1 b:1"]);
    }
}
