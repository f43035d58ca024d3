//! A ZooKeeper session: how it is made, how it lives and ends, and the calls on it.
//!
//! A session outlives its connections. It is *connected* or *disconnected* any number of times, and then *over*, once:
//! expired by the server, or closed by us. Whoever used it starts again with a new one; nothing is patched over.
//!
//! Rules kept here: no call is sent while disconnected; at most 256 calls or 4 MiB are in flight; a request over
//! [`REQUEST_BYTES_MAX`] is refused before it can make the server drop the connection; only what the ZooKeeper leader
//! acknowledged renews the [`Lease`], and an idle session proves its life with a sync every T/5; [`Session::close`]
//! waits until the server has removed the ephemerals.

use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, RwLock, Weak};
use std::time::{Duration, Instant};

use rand::RngExt;
use tokio::sync::{Semaphore, SemaphorePermit, watch};
use tokio::time::{sleep, sleep_until, timeout, timeout_at};
use tracing::{debug, info, warn};
use zookeeper_client as zk;

use super::failure::{Failure, Refusal, classify};
use super::lease::Lease;
use super::watch::Budget;

/// The most bytes that one request may carry: ZooKeeper drops connections at 1 MiB and names no reason.
pub const REQUEST_BYTES_MAX: usize = 900_000;
/// The most operations in one multi.
pub const MULTI_OPS_MAX: usize = 500;
/// Permits for requests in flight; each stands for one request or 16 KiB of a larger one.
const IN_FLIGHT_MAX: u32 = 256;
const BYTES_PER_PERMIT: usize = 16 * 1024;
/// What an operation costs in a request beside its path and data: headers, ACL, lengths.
const OP_OVERHEAD_BYTES: usize = 64;

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

    /// What the client crate gets to dial.
    ///
    /// Its pause between two attempts doubles with each round over the list, without a cap: with one server it would
    /// come back 12 s after an outage of 6. Naming a lone server twenty times makes a round long and its pauses
    /// short (at most 1 s), for all the time that a session of 10 s can wait.
    fn dialled(&self) -> String {
        match &self.servers[..] {
            [lone] => vec![lone.as_str(); 20].join(","),
            several => several.join(","),
        }
    }

    /// Why the servers cannot be reached, found by dialling each without the client crate, which does not tell.
    async fn diagnose(&self) -> String {
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

/// How to connect.
#[derive(Debug, Clone)]
pub struct SessionConfig {
    /// Servers and chroot.
    pub zookeeper: ConnectString,
    /// T, the session timeout to ask for; the server may grant another.
    pub session_timeout: Duration,
    /// Whether to create the chroot where it is missing, instead of failing.
    pub create_chroot: bool,
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

/// A znode's data, and the parts of its Stat that herds use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// The data.
    pub data: Vec<u8>,
    /// How often the data was set since the znode's creation.
    pub version: i32,
    /// The transaction that created the znode: its identity, and its place in the order of creation.
    pub czxid: i64,
    /// The session that owns it, where it is ephemeral; else 0.
    pub owner: i64,
    /// When the data was last set, in milliseconds since 1970 on the server's clock.
    pub mtime_ms: i64,
    /// How many children it has.
    pub children: i32,
}

impl Node {
    pub(super) fn new(data: Vec<u8>, stat: &zk::Stat) -> Self {
        Node {
            data,
            version: stat.version,
            czxid: stat.czxid,
            owner: stat.ephemeral_owner,
            mtime_ms: stat.mtime,
            children: stat.num_children,
        }
    }
}

/// One operation of a multi. A version of `None` means any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Fails unless `path` exists, at `version`.
    Check {
        /// The znode.
        path: String,
        /// The version it must be at.
        version: Option<i32>,
    },
    /// Creates a persistent znode.
    Create {
        /// The znode.
        path: String,
        /// Its data.
        data: Vec<u8>,
    },
    /// Creates a znode that ends with the session; `sequential` appends a ten-digit number to its name.
    CreateEphemeral {
        /// The znode, or the beginning of its path.
        path: String,
        /// Its data.
        data: Vec<u8>,
        /// Whether ZooKeeper appends a number.
        sequential: bool,
    },
    /// Sets the data.
    Set {
        /// The znode.
        path: String,
        /// The new data.
        data: Vec<u8>,
        /// The version it must be at.
        version: Option<i32>,
    },
    /// Deletes the znode.
    Delete {
        /// The znode.
        path: String,
        /// The version it must be at.
        version: Option<i32>,
    },
}

impl Op {
    /// What the operation adds to a request, in bytes.
    pub fn bytes(&self) -> usize {
        OP_OVERHEAD_BYTES
            + match self {
                Op::Check { path, .. } | Op::Delete { path, .. } => path.len(),
                Op::Create { path, data } | Op::CreateEphemeral { path, data, .. } | Op::Set { path, data, .. } => {
                    path.len() + data.len()
                }
            }
    }

    /// The znode that it is about.
    pub fn path(&self) -> &str {
        match self {
            Op::Check { path, .. }
            | Op::Delete { path, .. }
            | Op::Create { path, .. }
            | Op::CreateEphemeral { path, .. }
            | Op::Set { path, .. } => path,
        }
    }

    fn add_to(&self, multi: &mut zk::MultiWriter<'_>) -> Result<(), zk::Error> {
        let persistent = zk::CreateMode::Persistent.with_acls(zk::Acls::anyone_all());
        match self {
            // The crate takes any number here, and the server takes -1 for "any version".
            Op::Check { path, version } => multi.add_check_version(path, version.unwrap_or(-1)),
            Op::Create { path, data } => multi.add_create(path, data, &persistent),
            Op::CreateEphemeral { path, data, sequential } => {
                let mode = if *sequential { zk::CreateMode::EphemeralSequential } else { zk::CreateMode::Ephemeral };
                multi.add_create(path, data, &mode.with_acls(zk::Acls::anyone_all()))
            }
            Op::Set { path, data, version } => multi.add_set_data(path, data, *version),
            Op::Delete { path, version } => multi.add_delete(path, *version),
        }
    }
}

/// A multi that failed: nothing of it was applied, or nothing is known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{failure}{}", .at.map(|i| format!(" (operation {i})")).unwrap_or_default())]
pub struct MultiFailure {
    /// The operation that was refused, counted from 0, where one was.
    pub at: Option<usize>,
    /// What it means.
    pub failure: Failure,
}

impl From<Failure> for MultiFailure {
    fn from(failure: Failure) -> Self {
        MultiFailure { at: None, failure }
    }
}

/// Whether a session has a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// A server answers.
    Connected,
    /// The crate is looking for a server; the session may live or be expired by now.
    Disconnected,
    /// Expired or closed, for ever.
    Over,
}

/// The state, and how often it has changed: a fast failover shows as a higher `epoch` with the same state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// The state now.
    pub state: State,
    /// Goes up with every change that was seen.
    pub epoch: u64,
}

/// A session, shared by cloning. It ends by [`Session::close`], by expiry, or when the last clone is dropped.
#[derive(Clone)]
pub struct Session {
    inner: Arc<Inner>,
}

struct Inner {
    /// Taken out by `close`; calls hold a clone only while they are in flight.
    client: RwLock<Option<zk::Client>>,
    id: i64,
    timeout: Duration,
    status: watch::Receiver<Status>,
    lease: Lease,
    in_flight: Semaphore,
    budget: Arc<Budget>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Session({:#x})", self.inner.id)
    }
}

impl Session {
    /// Connects within `within`, or says why not.
    ///
    /// Attempts follow one another with a random pause of up to 1 s, so that a herd that lost its servers does not
    /// come back in step.
    pub async fn connect(config: &SessionConfig, within: Duration) -> Result<Session, ConnectError> {
        let deadline = tokio::time::Instant::now() + within;
        let servers = config.zookeeper.servers.join(",");
        let dialled = config.zookeeper.dialled();
        let (client, sent_at) = loop {
            let sent_at = Instant::now();
            let connector = zk::Client::connector().with_session_timeout(config.session_timeout).with_fail_eagerly();
            match timeout_at(deadline, connector.connect(&dialled)).await {
                Ok(Ok(client)) => break (client, sent_at),
                Ok(Err(error)) => debug!(%servers, %error, "cannot connect"),
                Err(_) => {}
            }
            let pause = Duration::from_millis(rand::rng().random_range(50..1000));
            if tokio::time::Instant::now() + pause >= deadline {
                let cause = config.zookeeper.diagnose().await;
                return Err(ConnectError::Unreachable { servers, within, cause });
            }
            sleep(pause).await;
        };
        let failed = |error| ConnectError::Failed { servers: servers.clone(), failure: classify(error) };
        let client = match &config.zookeeper.chroot {
            None => client,
            Some(chroot) => {
                if client.check_stat(chroot).await.map_err(failed)?.is_none() {
                    if !config.create_chroot {
                        return Err(ConnectError::NoChroot { chroot: chroot.clone(), servers });
                    }
                    info!(%chroot, "the chroot is missing: creating it");
                    let persistent = zk::CreateMode::Persistent.with_acls(zk::Acls::anyone_all());
                    client.mkdir(chroot, &persistent).await.map_err(failed)?;
                }
                client.chroot(chroot.as_str()).map_err(|_| failed(zk::Error::BadArguments(&"chroot")))?
            }
        };
        let (granted, asked) = (client.session_timeout(), config.session_timeout);
        if granted != asked {
            warn!(?asked, ?granted, "the server grants another session timeout than the one asked for");
        }
        Ok(Session::start(client, sent_at))
    }

    fn start(client: zk::Client, connect_sent_at: Instant) -> Session {
        let (status_sender, status) = watch::channel(Status { state: State::Connected, epoch: 0 });
        let states = client.state_watcher();
        let inner = Arc::new(Inner {
            id: client.session_id().0,
            timeout: client.session_timeout(),
            lease: Lease::new(client.session_timeout(), connect_sent_at),
            client: RwLock::new(Some(client)),
            status,
            in_flight: Semaphore::new(IN_FLIGHT_MAX as usize),
            budget: Arc::default(),
        });
        tokio::spawn(observe(states, status_sender, inner.id));
        tokio::spawn(prove_life(Arc::downgrade(&inner)));
        Session { inner }
    }

    /// The id that ZooKeeper shows as `ephemeralOwner`.
    pub fn id(&self) -> i64 {
        self.inner.id
    }

    /// T, the session timeout that the server granted.
    pub fn timeout(&self) -> Duration {
        self.inner.timeout
    }

    /// How long the session may be trusted.
    pub fn lease(&self) -> &Lease {
        &self.inner.lease
    }

    /// Completes once the lease has ended.
    pub async fn lease_ended(&self) {
        while self.inner.lease.holds(Instant::now()) {
            sleep_until(self.inner.lease.ends().into()).await;
        }
    }

    /// Follows the session's state.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.inner.status.clone()
    }

    /// Waits until a server answers; fails once the session is over.
    pub async fn connected(&self) -> Result<(), Failure> {
        let mut status = self.status();
        let seen = status.wait_for(|s| s.state != State::Disconnected).await.map(|s| s.state);
        match seen {
            Ok(State::Connected) => Ok(()),
            Ok(State::Disconnected | State::Over) | Err(_) => Err(Failure::SessionOver("expired or closed".to_owned())),
        }
    }

    /// Completes once the session is over.
    pub async fn over(&self) {
        let _ = self.status().wait_for(|s| s.state == State::Over).await;
    }

    /// Waits until every earlier call of this session has been applied or never will be: connected again, and a sync
    /// acknowledged. What is read on this session afterwards settles each call whose answer was lost.
    ///
    /// Errors: session over, if it ends first.
    pub async fn settle(&self) -> Result<(), Failure> {
        loop {
            self.connected().await?;
            match self.sync().await {
                Err(Failure::Unknown(_)) => sleep(Duration::from_millis(20)).await,
                done => return done,
            }
        }
    }

    /// Waits until the server that answers us has seen every write acknowledged so far, to anybody. Renews the lease:
    /// the ZooKeeper leader itself checks the session on its way.
    pub async fn sync(&self) -> Result<(), Failure> {
        let (client, _permit) = self.begin(0).await?;
        let sent_at = Instant::now();
        client.sync("/").await.map_err(classify)?;
        self.inner.lease.renew(sent_at);
        Ok(())
    }

    /// Applies all operations in one step, or none. For each operation in order: the path created, where it creates.
    pub async fn multi(&self, ops: &[Op]) -> Result<Vec<Option<String>>, MultiFailure> {
        let bytes = ops.iter().map(Op::bytes).sum();
        if bytes > REQUEST_BYTES_MAX {
            let refusal = Refusal::TooLarge { bytes, limit: REQUEST_BYTES_MAX };
            return Err(Failure::Refused(refusal).into());
        }
        let (client, _permit) = self.begin(bytes).await?;
        let mut multi = client.new_multi_writer();
        for (at, op) in ops.iter().enumerate() {
            op.add_to(&mut multi).map_err(|error| MultiFailure { at: Some(at), failure: classify(error) })?;
        }
        let sent_at = Instant::now();
        let outcome = multi.commit().await;
        match outcome {
            Ok(results) => {
                self.inner.lease.renew(sent_at);
                let path = |result| match result {
                    zk::MultiWriteResult::Create { path, .. } => Some(path),
                    _ => None,
                };
                Ok(results.into_iter().map(path).collect())
            }
            Err(zk::MultiWriteError::OperationFailed { index, source }) => {
                self.inner.lease.renew(sent_at);
                Err(MultiFailure { at: Some(index), failure: classify(source) })
            }
            Err(zk::MultiWriteError::RequestFailed { source }) => Err(classify(source).into()),
        }
    }

    /// One operation, as a multi of its own.
    pub async fn write(&self, op: Op) -> Result<Option<String>, Failure> {
        let mut results = self.multi(std::slice::from_ref(&op)).await.map_err(|e| e.failure)?;
        Ok(results.pop().flatten())
    }

    /// The znode, or `None` where it is absent.
    pub async fn get(&self, path: &str) -> Result<Option<Node>, Failure> {
        let (client, _permit) = self.begin(path.len()).await?;
        match client.get_data(path).await {
            Ok((data, stat)) => Ok(Some(Node::new(data, &stat))),
            Err(zk::Error::NoNode) => Ok(None),
            Err(error) => Err(classify(error)),
        }
    }

    /// The names of the children in no order, or `None` where the znode is absent.
    pub async fn children(&self, path: &str) -> Result<Option<Vec<String>>, Failure> {
        let (client, _permit) = self.begin(path.len()).await?;
        match client.list_children(path).await {
            Ok(names) => Ok(Some(names)),
            Err(zk::Error::NoNode) => Ok(None),
            Err(error) => Err(classify(error)),
        }
    }

    /// Many znodes in one request: all at one moment, in the order asked for.
    pub async fn get_many(&self, paths: &[String]) -> Result<Vec<Option<Node>>, Failure> {
        let (client, _permit) = self.begin(paths.iter().map(String::len).sum()).await?;
        let mut multi = client.new_multi_reader();
        for path in paths {
            multi.add_get_data(path).map_err(classify)?;
        }
        let results = multi.commit().await.map_err(classify)?;
        let node = |result| match result {
            zk::MultiReadResult::Data { data, stat } => Ok(Some(Node::new(data, &stat))),
            zk::MultiReadResult::Error { err: zk::Error::NoNode } => Ok(None),
            zk::MultiReadResult::Error { err } => Err(classify(err)),
            other => Err(Failure::Unknown(format!("asked for data, got {other:?}"))),
        };
        results.into_iter().map(node).collect()
    }

    /// The children of many znodes in one request, in the order asked for.
    pub async fn children_many(&self, paths: &[String]) -> Result<Vec<Option<Vec<String>>>, Failure> {
        let (client, _permit) = self.begin(paths.iter().map(String::len).sum()).await?;
        let mut multi = client.new_multi_reader();
        for path in paths {
            multi.add_get_children(path).map_err(classify)?;
        }
        let results = multi.commit().await.map_err(classify)?;
        let names = |result| match result {
            zk::MultiReadResult::Children { children } => Ok(Some(children)),
            zk::MultiReadResult::Error { err: zk::Error::NoNode } => Ok(None),
            zk::MultiReadResult::Error { err } => Err(classify(err)),
            other => Err(Failure::Unknown(format!("asked for children, got {other:?}"))),
        };
        results.into_iter().map(names).collect()
    }

    /// A client for one call of about `bytes`, once connected and within the limits of what may be in flight.
    pub(super) async fn begin(&self, bytes: usize) -> Result<(zk::Client, SemaphorePermit<'_>), Failure> {
        let permits = u32::try_from(bytes / BYTES_PER_PERMIT).unwrap_or(IN_FLIGHT_MAX) + 1;
        let closed = || Failure::SessionOver("closed".to_owned());
        let permit = self.inner.in_flight.acquire_many(permits.min(IN_FLIGHT_MAX)).await.map_err(|_| closed())?;
        self.connected().await?;
        let client = self.inner.client.read().expect("no panic holds this lock").clone();
        Ok((client.ok_or_else(closed)?, permit))
    }

    pub(super) fn budget(&self) -> &Arc<Budget> {
        &self.inner.budget
    }

    /// Ends the session now: its ephemerals go within milliseconds. Every later call of any clone fails.
    ///
    /// Waits for the server's answer for at most 2 s; without it the server still ends the session after T.
    pub async fn close(&self) {
        let client = self.inner.client.write().expect("no panic holds this lock").take();
        if client.is_none() {
            return;
        }
        drop(client);
        if timeout(Duration::from_secs(2), self.over()).await.is_err() {
            warn!(session = %format_args!("{:#x}", self.inner.id), "no answer to closing the session; it will time out");
        }
    }
}

/// Turns the crate's states into ours. The crate coalesces them, so each change counts, whatever it says.
async fn observe(mut states: zk::StateWatcher, status: watch::Sender<Status>, id: i64) {
    let session = format!("{id:#x}");
    info!(%session, "session begun");
    let mut epoch = 0;
    loop {
        let state = match states.changed().await {
            zk::SessionState::SyncConnected | zk::SessionState::ConnectedReadOnly => State::Connected,
            zk::SessionState::Disconnected => State::Disconnected,
            zk::SessionState::Expired | zk::SessionState::Closed | zk::SessionState::AuthFailed => State::Over,
        };
        epoch += 1;
        status.send_replace(Status { state, epoch });
        match state {
            State::Connected => info!(%session, "connected again"),
            State::Disconnected => warn!(%session, "connection lost"),
            State::Over => {
                info!(%session, "session over");
                return;
            }
        }
    }
}

/// Renews the lease of an idle session.
async fn prove_life(inner: Weak<Inner>) {
    loop {
        let Some(session) = inner.upgrade().map(|inner| Session { inner }) else { return };
        let (now, probe_at) = (Instant::now(), session.lease().probe_at());
        let pause = if now < probe_at {
            probe_at - now
        } else {
            match session.sync().await {
                Ok(()) => continue,
                Err(Failure::SessionOver(_)) => return,
                Err(Failure::Refused(_) | Failure::Unknown(_)) => session.timeout() / 20,
            }
        };
        drop(session);
        sleep(pause).await;
    }
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
    fn hazard_20_a_lone_server_is_dialled_often_enough() {
        let lone: ConnectString = "a:1".parse().expect("valid");
        assert_eq!(lone.dialled().split(',').count(), 20);
        let three: ConnectString = "a:1,b:1,c:1".parse().expect("valid");
        assert_eq!(three.dialled(), "a:1,b:1,c:1");
    }
}
