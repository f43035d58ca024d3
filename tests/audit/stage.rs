//! A herd played by hand, one step after another, and the audit of what was done.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use audit::{Ending, Verdict, audit};
use coordination::{Op, Session};

use crate::support::{self, config_at, connect};

/// A herd below a chroot of its own, played by hand.
pub struct Stage {
    pub chroot: String,
    /// Opened the job `j-1`, and submits to it.
    pub session: Session,
    /// How many violations were seen so far.
    pub seen: AtomicUsize,
}

pub fn create(path: &str, data: &str) -> Op {
    Op::Create { path: path.to_owned(), data: data.as_bytes().to_vec() }
}

pub fn set(path: &str, data: &str) -> Op {
    Op::Set { path: path.to_owned(), data: data.as_bytes().to_vec(), version: None }
}

pub fn delete(path: &str) -> Op {
    Op::Delete { path: path.to_owned(), version: None }
}

pub fn check(path: &str) -> Op {
    Op::Check { path: path.to_owned(), version: None }
}

pub const TASK: &str = "/tasks/j-1/0000000000";
pub const DATA: &str = "/data/j-1/0000000000";
pub const SECOND: &str = "j-1/0000000001";
pub const OUTCOME: &str = r#"{"status":"done","worker":"w-1","attempts":1,"result":null}"#;

impl Stage {
    /// The roots, a leader `m-1` and a worker `w-1` of one session each, and a job with one task.
    pub async fn new(name: &str) -> (Stage, Session, Session) {
        let server = support::zookeeper_with(&[
            ("HERDSMAN_TICK_MS", "100"),
            // Small logs (the second number is in KB) and many snapshots, so that the files roll over all the time.
            ("ZOOKEEPER_JVMFLAGS", "-XX:TieredStopAtLevel=1 -Dzookeeper.snapCount=100 -Dzookeeper.preAllocSize=64"),
        ]);
        let chroot = format!("/{name}");
        let config = config_at(server, &chroot);
        let session = connect(&config).await;
        let stage = Stage { chroot, session, seen: AtomicUsize::new(0) };
        for root in ["/master", "/workers", "/tasks", "/data"] {
            stage.all(&[create(root, "")]).await;
        }
        let leader = stage.candidate().await;
        let worker = connect(&config).await;
        register(&worker, "w-1").await;
        stage.all(&[create("/tasks/j-1", r#"{"kind":"echo"}"#), create("/data/j-1", "")]).await;
        stage.all(&[create(DATA, "x"), create(TASK, "")]).await;
        (stage, leader, worker)
    }

    /// A session that is nothing yet.
    pub async fn stranger(&self) -> Session {
        connect(&config_at(support::zookeeper(), &self.chroot)).await
    }

    /// Another candidate, on a session of its own.
    pub async fn candidate(&self) -> Session {
        let session = self.stranger().await;
        let path = "/master/m-".to_owned();
        let enter = Op::CreateEphemeral { path, data: b"{}".to_vec(), sequential: true };
        session.write(enter).await.expect("entered");
        session
    }

    pub async fn all(&self, ops: &[Op]) {
        self.session.multi(ops).await.expect("applied");
    }

    pub fn audit(&self) -> Verdict {
        self.audit_at(Ending::Open)
    }

    pub fn audit_at(&self, ending: Ending) -> Verdict {
        audit(&[&data_folder()], &self.chroot, ending).expect("readable")
    }

    /// What was just done breaks this rule and no other, and is told with these words; without a rule, breaks none.
    pub fn breaks(&self, rule: &str, words: &str) {
        let verdict = self.audit();
        let new = &verdict.violations[self.seen.swap(verdict.violations.len(), Ordering::Relaxed)..];
        assert_eq!(new.is_empty(), rule.is_empty(), "{rule} {words}");
        for violation in new {
            assert_eq!(violation.rule, rule, "{}, not '{words}'", violation.what);
            assert!(violation.what.contains(words), "{}, not '{words}'", violation.what);
        }
    }

    /// A job that is opened with `record`, and has one task.
    pub async fn job(&self, id: &str, record: &str) {
        self.all(&[create(&format!("/tasks/{id}"), record), create(&format!("/data/{id}"), "")]).await;
        self.submit(&format!("{id}/0000000000")).await;
    }

    pub async fn submit(&self, task: &str) {
        self.all(&[create(&format!("/data/{task}"), "x"), create(&format!("/tasks/{task}"), "")]).await;
    }

    /// The rules that were broken, each once.
    pub fn broken(&self) -> Vec<&'static str> {
        let verdict = self.audit();
        let mut rules: Vec<&str> = verdict.violations.iter().map(|violation| violation.rule).collect();
        rules.dedup();
        assert_eq!(verdict.verdict == "invalid", !rules.is_empty(), "{}", verdict.text());
        for violation in &verdict.violations {
            assert!(violation.zxid.starts_with("0x") && violation.line.contains("log."), "{violation:?}");
        }
        rules
    }
}

pub fn data_folder() -> PathBuf {
    support::zookeeper();
    support::server_folder().join("1/data")
}

pub fn list(entries: &str) -> String {
    format!(r#"{{"slots":1,"kinds":["echo"],"assigned":[{entries}]}}"#)
}

pub async fn register(session: &Session, worker: &str) {
    ephemeral(session, &format!("/workers/{worker}"), &list("")).await;
}

pub async fn ephemeral(session: &Session, path: &str, data: &str) {
    let create = Op::CreateEphemeral { path: path.to_owned(), data: data.into(), sequential: false };
    session.write(create).await.expect("created");
}

/// The candidate that a session owns.
pub async fn own_path(session: &Session) -> String {
    for name in support::children(session, "/master").await {
        let path = format!("/master/{name}");
        if support::node(session, &path).await.owner == session.id() {
            return path;
        }
    }
    panic!("it stands for nothing");
}

/// The check of it.
pub async fn candidacy(session: &Session) -> Op {
    check(&own_path(session).await)
}

/// What a leader writes.
pub async fn lead(leader: &Session, ops: &[Op]) {
    let guard = candidacy(leader).await;
    leader.multi(&[&[guard], ops].concat()).await.expect("written");
}

pub async fn assign(leader: &Session, worker: &str, entries: &str) {
    lead(leader, &[set(&format!("/workers/{worker}"), &list(entries))]).await;
}

/// What worker `w-1` writes.
pub async fn work(worker: &Session, ops: &[Op]) {
    worker.multi(&[&[check("/workers/w-1")], ops].concat()).await.expect("written");
}

pub async fn complete(worker: &Session) {
    work(worker, &[delete(TASK), set(DATA, OUTCOME)]).await;
}

pub const ENTRY: &str = r#""j-1/0000000000""#;
pub const DEAD: &str = r#"{"attempt":1,"failures":1,"history":[{"worker":"w-1","error":"no"}],"dead":true}"#;
/// The same, retried.
pub const RETRIED: &str = r#"{"attempt":1,"history":[{"worker":"w-1","error":"no"}]}"#;
/// An attempt that ended; it waits again.
pub const LOST: &str = r#"{"attempt":1,"crashes":1,"history":[{"worker":"w-1","error":"lost"}]}"#;
