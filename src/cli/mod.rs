//! What the three programs share: flags, logs, exit codes, and how they speak to people.
//!
//! Results go to stdout, everything else to stderr. A flag wins over its environment variable, and that over the
//! default; `--help` shows all three.

mod descriptors;
mod print;
pub mod report;
pub mod stress;
mod zkbench;

use std::fmt;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

pub use descriptors::make_room;
pub use print::{ended, note, say, try_say};
pub use zkbench::Zkbench;

use crate::client::ClientError;
use coordination::{ConnectError, ConnectString, SessionConfig};
use znode::paths;

/// The end of each program's `--help`.
pub const EXIT_CODES: &str = "Exit codes:\n  0  done\n  1  a task failed, something is missing or \
                              malformed, or what was to be printed could not be\n  \
                              2  usage\n  3  not found\n  4  ZooKeeper lost or unreachable\n  130  interrupted";

/// How a program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// A task failed, something is missing or malformed, or what was to be printed could not be.
    Failed = 1,
    /// Wrong flags, or input that cannot be used.
    Usage = 2,
    /// There is no such job.
    NotFound = 3,
    /// ZooKeeper cannot be reached, or was lost.
    Lost = 4,
    /// Ended by a signal before it was done.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}

/// Where ZooKeeper is.
#[derive(Debug, Clone, Args)]
pub struct ConnectArgs {
    /// ZooKeeper's servers, and the znode below which the herd lives
    #[arg(
        long,
        global = true,
        env = "HERDSMAN_ZOOKEEPER",
        value_name = "HOST:PORT[,HOST:PORT...][/chroot]",
        default_value = "127.0.0.1:2181"
    )]
    pub zookeeper: ConnectString,

    /// After so long without a word ZooKeeper takes this process for dead
    #[arg(long, global = true, env = "HERDSMAN_SESSION_TIMEOUT", value_name = "DURATION", default_value = "10s", value_parser = timeout)]
    pub session_timeout: Duration,

    /// How log lines look
    #[arg(long, global = true, env = "HERDSMAN_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

impl ConnectArgs {
    /// How to connect. Masters and workers create a missing chroot; for a client it is an error.
    pub fn session(&self, create_chroot: bool) -> SessionConfig {
        let session_timeout = self.session_timeout;
        SessionConfig { session_timeout, create_chroot, ..SessionConfig::new(self.zookeeper.clone()) }
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

fn timeout(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        time if (Duration::from_millis(100)..=Duration::from_secs(3600)).contains(&time) => Ok(time),
        _ => Err("from 100ms to 1h".to_owned()),
    }
}

/// `10s`, `1m 30s`, `500ms`.
pub fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| format!("{error}; write 10s, 500ms, 1m"))
}

/// A name that can be part of a znode's name, with room for what is added to it.
pub fn name(text: &str) -> Result<String, String> {
    if paths::is_plain(text) && text.len() <= 40 {
        Ok(text.to_owned())
    } else {
        Err("1 to 40 of A-Z a-z 0-9 . _ -, beginning with a letter or digit".to_owned())
    }
}

/// Starts logging to stderr, at `default_level` unless `HERDSMAN_LOG` says otherwise (as in `debug` or
/// `herdsman=debug,info`).
pub fn start_logging(format: LogFormat, default_level: &str) {
    let directives = std::env::var("HERDSMAN_LOG").unwrap_or_else(|_| format!("{default_level},zookeeper_client=off"));
    let filter = EnvFilter::try_new(&directives).unwrap_or_else(|error| {
        note(format_args!("warning: HERDSMAN_LOG={directives} is ignored: {error}"));
        EnvFilter::new(default_level)
    });
    let logs = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .log_internal_errors(false) // it would panic where stderr takes nothing
        .with_env_filter(filter)
        .with_target(false)
        .with_span_events(FmtSpan::NONE)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()));
    match format {
        LogFormat::Text => logs.init(),
        LogFormat::Json => logs.json().flatten_event(true).init(),
    }
}

/// Ends the process when the thread panics that calls this, on which the program lives: a herd copes with a dead process,
/// not with half of one. Other threads belong to handlers, or to what they started: that is a task's affair.
pub fn exit_on_panic() {
    let (report, own) = (std::panic::take_hook(), std::thread::current().id());
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        if std::thread::current().id() == own {
            std::process::exit(101);
        }
    }));
}

/// Runs a program on the one runtime of its process, and ends the process.
///
/// One thread: the programs wait and pass on, and what a worker executes has threads of its own. Handing each event from
/// thread to thread took a third of a worker's CPU time.
///
/// The runtime is not taken down first: its tasks would be dropped one by one, and one that still watches a session
/// whose task is gone already would panic. What had to be closed was closed by the program.
pub fn run(program: impl Future<Output = Exit>) -> ExitCode {
    exit_on_panic();
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => {
            let exit = runtime.block_on(program);
            std::process::exit(ended(exit) as i32)
        }
        Err(error) => complain(&format!("cannot start: {error}"), None, Exit::Failed).into(),
    }
}

/// Says what failed, and what to do about it.
pub fn complain(error: &dyn fmt::Display, hint: Option<&str>, exit: Exit) -> Exit {
    note(format_args!("error: {error}"));
    if let Some(hint) = hint {
        note(format_args!("hint: {hint}"));
    }
    exit
}

/// Says why there is no session.
pub fn cannot_connect(error: &ConnectError) -> Exit {
    let hint = match error {
        ConnectError::Unreachable { .. } => {
            "start a local one with `scenarios/zookeeper start`, or pass `--zookeeper HOST:PORT`"
        }
        ConnectError::NoChroot { .. } => "masters and workers create it: start one with the same `--zookeeper`",
        ConnectError::Failed { .. } => "see the server's log",
    };
    complain(error, Some(hint), Exit::Lost)
}

/// Says why a client cannot go on.
pub fn client_failed(error: &ClientError) -> Exit {
    match error {
        ClientError::Connect(error) => cannot_connect(error),
        ClientError::NoHerd => complain(error, Some("start a master and a worker first"), Exit::NotFound),
        ClientError::NoJob => complain(error, Some("submit one with `client submit`"), Exit::NotFound),
        ClientError::NotFound(_) => complain(
            error,
            Some("`client status` lists the jobs; one whose outcomes were all collected is gone"),
            Exit::NotFound,
        ),
        ClientError::NotSealed(_) => complain(
            error,
            Some("look without removing anything: --keep; or, if that client is dead, take the job over: --seal"),
            Exit::Usage,
        ),
        ClientError::TooLarge(_) => complain(
            error,
            Some("split it, pass where it is stored, or keep it in a directory that all machines share: --spill DIR"),
            Exit::Usage,
        ),
        ClientError::Spill(_) => complain(error, Some("--spill names a directory that can be written"), Exit::Usage),
        ClientError::Undelivered { job, removed, .. } => {
            let hint = format!("{removed} were written and removed; the rest is still there: `client results {job}`");
            complain(error, Some(&hint), Exit::Failed)
        }
        ClientError::Malformed { .. } => {
            complain(error, Some("delete or repair that znode; docs/protocol.md says what belongs there"), Exit::Failed)
        }
        ClientError::Full { .. } => complain(
            error,
            Some("collect outcomes with `client results JOB`, wait for room, or raise --tasks-max"),
            Exit::Failed,
        ),
        ClientError::NotEnded { .. } => complain(
            error,
            Some("somebody keeps its znodes there: delete them once that is mended, and try again"),
            Exit::Failed,
        ),
        ClientError::Sealed(_) | ClientError::Withdrawn { .. } => complain(error, None, Exit::Failed),
        ClientError::KeyTaken { .. } => complain(error, Some("wait for that job with `client wait JOB`"), Exit::Failed),
        ClientError::Failed(_) => complain(error, Some("is ZooKeeper up? `client status` tells"), Exit::Lost),
    }
}
