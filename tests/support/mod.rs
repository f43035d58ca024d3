//! What tests share: a private ZooKeeper for each test program, a chroot for each test, a line that can be cut, and
//! waiting for states.
#![allow(dead_code)] // each test program uses a part

pub mod herd;

use std::collections::HashSet;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use audit::{
    log::History,
    txn::{Body, Op as LoggedOp},
};
use coordination::{ConnectString, Node, Session, SessionConfig};
use herdsman::client::{ClientError, Finished, Results};
use lab::line::Line;
use zookeeper_client::{Acl, AuthId, Permission};

/// From which all times in tests derive: T, the session timeout.
pub const TIMEOUT: Duration = Duration::from_millis(2000);
/// How long any state may take to come.
pub const LIMIT: Duration = Duration::from_secs(20);
/// How long an outcome may take beyond its task: less than any period after which something is looked at anew, so that what
/// comes only then is a failure.
pub const NEXT_LIMIT: Duration = Duration::from_secs(5);

/// The server of this test program. It ends when its standard input does, that is, with this process.
struct Server {
    address: String,
    folder: tempfile::TempDir,
    _stdin: ChildStdin,
    _process: Child,
}

fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// A script of the repository.
pub fn script(path: &str) -> Command {
    let mut command = Command::new(repository().join(path));
    command.current_dir(repository());
    command
}

static SERVER: OnceLock<Server> = OnceLock::new();

/// Where the private ZooKeeper listens. A machine without ZooKeeper gets one, or this panics with what to do.
pub fn zookeeper() -> &'static str {
    zookeeper_with(&[("HERDSMAN_TICK_MS", "100"), ("ZOOKEEPER_JVMFLAGS", "-XX:TieredStopAtLevel=1")])
}

/// The same, started with these variables if it was not started before; none of them is how people run it.
pub fn zookeeper_with(variables: &[(&str, &str)]) -> &'static str {
    &SERVER.get_or_init(|| serve(variables)).address
}

/// The version of the private ZooKeeper, as "3.8.0".
pub fn zookeeper_version() -> String {
    let version = script("scenarios/zookeeper").arg("version").output().expect("scenarios/zookeeper can be run");
    String::from_utf8_lossy(&version.stdout).trim().to_owned()
}

/// The folder of the private ZooKeeper.
pub fn server_folder() -> &'static Path {
    SERVER.get().expect("it was started").folder.path()
}

/// The process of the private ZooKeeper.
pub fn server_pid() -> u32 {
    let pid = std::fs::read_to_string(server_folder().join("1/pid")).expect("scenarios/zookeeper records it");
    pid.trim().parse().expect("a number")
}

fn serve(variables: &[(&str, &str)]) -> Server {
    let folder = tempfile::tempdir().expect("a folder");
    let mut process = script("scenarios/zookeeper")
        .arg("serve")
        .arg("--dir")
        .arg(folder.path())
        .envs(variables.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("scenarios/zookeeper can be run");
    let mut address = String::new();
    BufReader::new(process.stdout.take().expect("piped")).read_line(&mut address).expect("it speaks UTF-8");
    assert!(!address.is_empty(), "scenarios/zookeeper did not start a server; it said why above");
    let stdin = process.stdin.take().expect("piped");
    Server { address: address.trim().to_owned(), folder, _stdin: stdin, _process: process }
}

/// How to reach a chroot that no other test uses.
pub fn fresh_config() -> SessionConfig {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let chroot = format!("/test-{}", NEXT.fetch_add(1, Ordering::Relaxed));
    config_at(zookeeper(), &chroot)
}

/// How to reach `chroot` of the server at `address`.
pub fn config_at(address: &str, chroot: &str) -> SessionConfig {
    let zookeeper: ConnectString = address.parse().expect("a connect string");
    let zookeeper = zookeeper.with_chroot(chroot);
    SessionConfig { session_timeout: TIMEOUT, create_chroot: true, ..SessionConfig::new(zookeeper) }
}

/// How to reach the same chroot through a line.
pub fn through(line: &Line, config: &SessionConfig) -> SessionConfig {
    let text = config.zookeeper.to_string();
    config_at(&line.address(), &text[text.find('/').expect("tests have a chroot")..])
}

/// Whether a process has ended. A killed one that nobody has reaped is a zombie: state Z.
pub fn is_gone(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.is_empty() || stat.contains(") Z ")
}

/// A session there.
pub async fn connect(config: &SessionConfig) -> Session {
    Session::connect(config, LIMIT).await.expect("ZooKeeper is up")
}

/// Waits for a state: until `look` returns something.
pub async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(seen) = look().await {
            return seen;
        }
        assert!(began.elapsed() < LIMIT, "not within {LIMIT:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Waits until `condition` holds.
pub async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    eventually(what, async || condition().await.then_some(())).await;
}

/// The next outcome of a job whose tasks take no time to speak of, or `None` once it is closed.
pub async fn next(results: &mut Results) -> Option<Finished> {
    try_next(results).await.expect("the herd lives")
}

/// The same, where the herd may not live.
pub async fn try_next(results: &mut Results) -> Result<Option<Finished>, ClientError> {
    let next = tokio::time::timeout(NEXT_LIMIT, results.next()).await;
    next.unwrap_or_else(|_| panic!("no outcome within {NEXT_LIMIT:?}"))
}

/// Every outcome of such a job, until it is closed.
pub async fn all(mut results: Results) -> Vec<Finished> {
    let mut all = Vec::new();
    while let Some(finished) = next(&mut results).await {
        all.push(finished);
    }
    all
}

/// A znode that must be there.
pub async fn node(session: &Session, path: &str) -> Node {
    let node = session.get(path).await.expect("readable");
    node.unwrap_or_else(|| panic!("{path} is absent"))
}

/// The children of a znode, sorted.
pub async fn children(session: &Session, path: &str) -> Vec<String> {
    let mut names = session.children(path).await.expect("readable").unwrap_or_default();
    names.sort_unstable();
    names
}

/// Gives a znode an ACL that lets nobody here read it: only a machine whose address nobody has.
pub async fn forbid(config: &SessionConfig, path: &str) {
    set_acl(config, path, Acl::new(Permission::ALL, AuthId::new("ip", "192.0.2.1"))).await;
}

/// Gives a znode an ACL that lets everybody read it, and nobody write.
pub async fn forbid_writing(config: &SessionConfig, path: &str) {
    set_acl(config, path, Acl::new(Permission::READ, AuthId::anyone())).await;
}

async fn set_acl(config: &SessionConfig, path: &str, acl: Acl) {
    let client = zookeeper_client::Client::connect(&config.zookeeper.to_string()).await.expect("ZooKeeper is up");
    let text = config.zookeeper.to_string();
    let client = client.chroot(&text[text.find('/').expect("tests have a chroot")..]).expect("a path");
    client.set_acl(path, &[acl], None).await.unwrap_or_else(|e| panic!("{path}: {e}"));
}

/// How many transactions ZooKeeper has refused to the sessions that wrote below this chroot; its log holds those too.
pub fn refused_below(config: &SessionConfig) -> usize {
    let text = config.zookeeper.to_string();
    let below = format!("{}/", &text[text.find('/').expect("a chroot")..]);
    let history = History::read(&[&server_folder().join("1/data")]).expect("readable");
    let of = |op: &LoggedOp| match op {
        LoggedOp::Create { path, .. } | LoggedOp::Delete(path) | LoggedOp::Set { path, .. } => path.starts_with(&below),
        LoggedOp::Check(_) | LoggedOp::Other(_) => false,
    };
    let wrote = |body: &Body| match body {
        Body::Op(op) => of(op),
        Body::Multi(ops) => ops.iter().any(of),
        _ => false,
    };
    let txns = || history.records.iter().map(|record| &record.txn);
    let sessions: HashSet<i64> = txns().filter(|txn| wrote(&txn.body)).map(|txn| txn.session).collect();
    let refused = |body: &Body| matches!(body, Body::RefusedMulti { .. } | Body::Refused(_));
    txns().filter(|txn| sessions.contains(&txn.session) && refused(&txn.body)).count()
}
