//! The auditor must be able to fail: each rule is broken on purpose, on a real ZooKeeper, and its log audited.

mod support;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use herdsman::audit::replay::Tree;
use herdsman::audit::txn::{Body, Op as LogOp, Txn};
use herdsman::audit::{Ending, Verdict, audit};
use herdsman::coordination::{Op, Session};
use support::herd::{master, worker};
use support::{config_at, connect, until};

/// A herd below a chroot of its own, played by hand.
struct Stage {
    chroot: String,
    /// Opened the job `j-1`, and submits to it.
    session: Session,
    /// How many violations were seen so far.
    seen: AtomicUsize,
}

fn create(path: &str, data: &str) -> Op {
    Op::Create { path: path.to_owned(), data: data.as_bytes().to_vec() }
}

fn set(path: &str, data: &str) -> Op {
    Op::Set { path: path.to_owned(), data: data.as_bytes().to_vec(), version: None }
}

fn delete(path: &str) -> Op {
    Op::Delete { path: path.to_owned(), version: None }
}

fn check(path: &str) -> Op {
    Op::Check { path: path.to_owned(), version: None }
}

const TASK: &str = "/tasks/j-1/0000000000";
const DATA: &str = "/data/j-1/0000000000";
const SECOND: &str = "j-1/0000000001";
const OUTCOME: &str = r#"{"status":"done","worker":"w-1","attempts":1,"result":null}"#;

impl Stage {
    /// The roots, a leader `m-1` and a worker `w-1` of one session each, and a job with one task.
    async fn new(name: &str) -> (Stage, Session, Session) {
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
    async fn stranger(&self) -> Session {
        connect(&config_at(support::zookeeper(), &self.chroot)).await
    }

    /// Another candidate, on a session of its own.
    async fn candidate(&self) -> Session {
        let session = self.stranger().await;
        let path = "/master/m-".to_owned();
        let enter = Op::CreateEphemeral { path, data: b"{}".to_vec(), sequential: true };
        session.write(enter).await.expect("entered");
        session
    }

    async fn all(&self, ops: &[Op]) {
        self.session.multi(ops).await.expect("applied");
    }

    fn audit(&self) -> Verdict {
        self.audit_at(Ending::Open)
    }

    fn audit_at(&self, ending: Ending) -> Verdict {
        audit(&[&data_folder()], &self.chroot, ending).expect("readable")
    }

    /// What was just done breaks this rule and no other, and is told with these words; without a rule, breaks none.
    fn breaks(&self, rule: &str, words: &str) {
        let verdict = self.audit();
        let new = &verdict.violations[self.seen.swap(verdict.violations.len(), Ordering::Relaxed)..];
        assert_eq!(new.is_empty(), rule.is_empty(), "{rule} {words}");
        for violation in new {
            assert_eq!(violation.rule, rule, "{}, not '{words}'", violation.what);
            assert!(violation.what.contains(words), "{}, not '{words}'", violation.what);
        }
    }

    /// A job that is opened with `record`, and has one task.
    async fn job(&self, id: &str, record: &str) {
        self.all(&[create(&format!("/tasks/{id}"), record), create(&format!("/data/{id}"), "")]).await;
        self.submit(&format!("{id}/0000000000")).await;
    }

    async fn submit(&self, task: &str) {
        self.all(&[create(&format!("/data/{task}"), "x"), create(&format!("/tasks/{task}"), "")]).await;
    }

    /// The rules that were broken, each once.
    fn broken(&self) -> Vec<&'static str> {
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

fn data_folder() -> PathBuf {
    support::zookeeper();
    support::server_folder().join("1/data")
}

fn list(entries: &str) -> String {
    format!(r#"{{"slots":1,"kinds":["echo"],"assigned":[{entries}]}}"#)
}

async fn register(session: &Session, worker: &str) {
    ephemeral(session, &format!("/workers/{worker}"), &list("")).await;
}

async fn ephemeral(session: &Session, path: &str, data: &str) {
    let create = Op::CreateEphemeral { path: path.to_owned(), data: data.into(), sequential: false };
    session.write(create).await.expect("created");
}

/// The candidate that a session owns.
async fn own_path(session: &Session) -> String {
    for name in support::children(session, "/master").await {
        let path = format!("/master/{name}");
        if support::node(session, &path).await.owner == session.id() {
            return path;
        }
    }
    panic!("it stands for nothing");
}

/// The check of it.
async fn candidacy(session: &Session) -> Op {
    check(&own_path(session).await)
}

/// What a leader writes.
async fn lead(leader: &Session, ops: &[Op]) {
    let guard = candidacy(leader).await;
    leader.multi(&[&[guard], ops].concat()).await.expect("written");
}

async fn assign(leader: &Session, worker: &str, entries: &str) {
    lead(leader, &[set(&format!("/workers/{worker}"), &list(entries))]).await;
}

/// What worker `w-1` writes.
async fn work(worker: &Session, ops: &[Op]) {
    worker.multi(&[&[check("/workers/w-1")], ops].concat()).await.expect("written");
}

async fn complete(worker: &Session) {
    work(worker, &[delete(TASK), set(DATA, OUTCOME)]).await;
}

const ENTRY: &str = r#""j-1/0000000000""#;
const DEAD: &str = r#"{"attempt":1,"failures":1,"history":[{"worker":"w-1","error":"no"}],"dead":true}"#;
/// The same, retried.
const RETRIED: &str = r#"{"attempt":1,"history":[{"worker":"w-1","error":"no"}]}"#;
/// An attempt that ended; it waits again.
const LOST: &str = r#"{"attempt":1,"crashes":1,"history":[{"worker":"w-1","error":"lost"}]}"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_keeps_the_protocol_is_valid_and_its_figures_are_right() {
    let (stage, leader, worker) = Stage::new("good").await;
    assign(&leader, "w-1", ENTRY).await;
    complete(&worker).await;
    assert_eq!(stage.broken(), [""; 0]);
    let figures = stage.audit().figures;
    assert_eq!((figures.submitted, figures.done, figures.outstanding, figures.assignments), (1, 1, 0, 1));
    let next = stage.candidate().await;
    leader.close().await;
    stage.all(&[delete(DATA)]).await;
    stage.all(&[delete("/data/j-1"), delete("/tasks/j-1")]).await;
    assign(&next, "w-1", "").await;
    let verdict = stage.audit();
    assert_eq!((verdict.verdict, verdict.figures.elections, verdict.leaders.len()), ("valid", 2, 2));
    assert!(verdict.leaders[1].takeover_ms.is_some_and(|ms| (0..20_000).contains(&ms)), "{:?}", verdict.leaders);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_behind_a_guard_that_is_gone_is_counted_as_fenced() {
    let (stage, leader, _worker) = Stage::new("fenced").await;
    let before = stage.audit().figures;
    leader.multi(&[check("/master/gone"), set("/workers/w-1", &list(""))]).await.expect_err("refused");
    let after = stage.audit().figures;
    assert_eq!((after.fenced - before.fenced, after.refused - before.refused), (1, 1));
    assert_eq!(stage.broken(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_end_a_task_deleted_without_an_outcome_is_lost() {
    let (stage, _leader, _worker) = Stage::new("lost").await;
    stage.all(&[delete(TASK)]).await;
    assert_eq!(stage.broken(), ["one-end"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_end_an_id_used_twice_lets_the_past_through() {
    let (stage, leader, worker) = Stage::new("twice").await;
    assign(&leader, "w-1", ENTRY).await;
    work(&worker, &[set(TASK, DEAD)]).await;
    stage.all(&[delete(TASK), delete(DATA)]).await;
    assert_eq!(stage.broken(), [""; 0], "forgotten");
    stage.all(&[create(DATA, "x"), create(TASK, "")]).await;
    assert_eq!(stage.broken(), ["one-end"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn commit_an_outcome_apart_from_its_task_is_no_commit() {
    let (stage, _leader, worker) = Stage::new("apart").await;
    worker.write(set(DATA, OUTCOME)).await.expect("set");
    assert_eq!(stage.broken(), ["commit"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn commit_a_second_outcome_is_no_commit() {
    let (stage, leader, worker) = Stage::new("second").await;
    assign(&leader, "w-1", ENTRY).await;
    complete(&worker).await;
    worker.write(set(DATA, OUTCOME)).await.expect("set");
    let what = &stage.audit().violations[1].what;
    assert_eq!(stage.broken(), ["commit"]);
    assert!(what.contains("version 2"), "{what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn commit_by_a_session_without_a_worker_is_a_zombies() {
    let (stage, _leader, worker) = Stage::new("zombie").await;
    worker.close().await;
    stage.all(&[delete(TASK), set(DATA, OUTCOME)]).await;
    assert_eq!(stage.broken(), ["commit"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn commit_of_something_that_is_no_outcome_is_named() {
    let (stage, _leader, worker) = Stage::new("garbage").await;
    worker.multi(&[delete(TASK), set(DATA, "done!")]).await.expect("set");
    assert_eq!(stage.broken(), ["commit"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_leader_an_assignment_by_a_backup_is_a_second_leaders() {
    let (stage, _leader, _worker) = Stage::new("backup").await;
    let backup = stage.candidate().await;
    assign(&backup, "w-1", ENTRY).await;
    assert_eq!(stage.broken(), ["one-leader"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_leader_a_worker_does_not_assign_to_itself() {
    let (stage, _leader, worker) = Stage::new("selfish").await;
    let path = "/workers/w-2".to_owned();
    ephemeral(&worker, &path, &list(ENTRY)).await;
    assert_eq!(stage.broken(), ["one-leader"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn ephemeral_a_worker_that_would_outlive_its_session_is_named() {
    let (stage, _leader, _worker) = Stage::new("persistent").await;
    stage.all(&[create("/workers/w-2", &list(""))]).await;
    assert_eq!(stage.broken(), ["ephemeral"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_return_a_former_leader_does_not_write_after_its_successor() {
    let (stage, leader, _worker) = Stage::new("return").await;
    let next = stage.candidate().await;
    assign(&leader, "w-1", ENTRY).await;
    let own = support::children(&stage.session, "/master").await[0].clone();
    leader.write(delete(&format!("/master/{own}"))).await.expect("resigned"); // its session lives on
    assign(&next, "w-1", "").await;
    leader.write(set("/workers/w-1", &list(ENTRY))).await.expect("set"); // without a guard
    assert_eq!(stage.broken(), ["one-leader", "no-return"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_holder_a_task_is_not_in_the_lists_of_two_live_workers() {
    let (stage, leader, worker) = Stage::new("holders").await;
    register(&worker, "w-2").await;
    assign(&leader, "w-1", ENTRY).await;
    lead(&leader, &[set("/workers/w-1", &list("")), set("/workers/w-2", &list(ENTRY))]).await;
    stage.breaks("", "moved in one step");
    assign(&leader, "w-1", ENTRY).await;
    stage.breaks("one-holder", "is assigned to w-1 and w-2");
    stage.submit("j-1/0000000001").await;
    assign(&leader, "w-2", r#""j-1/0000000001","j-1/0000000001""#).await;
    stage.breaks("one-holder", "is in the list of w-2 twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn payload_one_that_goes_without_its_task_is_named() {
    let (stage, _leader, _worker) = Stage::new("payload").await;
    stage.all(&[delete(DATA)]).await;
    assert_eq!(stage.broken(), ["payload"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn payload_a_task_that_comes_without_one_is_named() {
    let (stage, _leader, _worker) = Stage::new("bare").await;
    stage.all(&[create("/tasks/j-1/0000000001", "")]).await;
    assert_eq!(stage.broken(), ["payload"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn sealed_a_job_whose_client_counted_fewer_tasks_than_came_was_submitted_twice() {
    let (stage, _leader, _worker) = Stage::new("doubled").await;
    stage.all(&[create("/data/j-1/0000000001", "x"), create("/tasks/j-1/0000000001", "")]).await;
    stage.all(&[set("/tasks/j-1", r#"{"kind":"echo","sealed":true,"tasks":1}"#)]).await;
    assert_eq!(stage.broken(), ["sealed"]);
    let what = &stage.audit().violations[0].what;
    assert!(what.contains("submitted 1 tasks by its own count, and 2 came"), "{what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sealed_means_that_nothing_more_comes() {
    let (stage, _leader, _worker) = Stage::new("late").await;
    stage.all(&[set("/tasks/j-1", r#"{"kind":"echo","sealed":true,"tasks":1}"#)]).await;
    assert_eq!(stage.broken(), [""; 0]);
    stage.all(&[create("/data/j-1/0000000001", "x"), create("/tasks/j-1/0000000001", "")]).await;
    assert_eq!(stage.broken(), ["sealed"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn settled_what_waits_or_runs_at_the_end_was_lost_sight_of() {
    let (stage, leader, worker) = Stage::new("settled").await;
    assert_eq!(stage.broken(), [""; 0], "it may still be done");
    let one = |verdict: Verdict| (verdict.verdict, verdict.violations.iter().map(|v| v.what.clone()).next());
    let ended_not = "task j-1/0000000000, submitted here, has not ended: ";
    let (verdict, what) = one(stage.audit_at(Ending::Settled));
    assert_eq!((verdict, what), ("invalid", Some(format!("{ended_not}it is in nobody's list"))));
    assign(&leader, "w-1", ENTRY).await;
    let (verdict, what) = one(stage.audit_at(Ending::Settled));
    assert_eq!((verdict, what), ("invalid", Some(format!("{ended_not}it is in the list of w-1"))));
    work(&worker, &[set(TASK, DEAD)]).await;
    assert_eq!(one(stage.audit_at(Ending::Settled)), ("valid", None), "dead is an end");
    stage.all(&[delete(TASK), delete(DATA)]).await;
    assert_eq!(one(stage.audit_at(Ending::Settled)), ("valid", None));
}

#[tokio::test(flavor = "multi_thread")]
async fn too_soon_what_is_dead_in_backoff_delayed_or_waits_for_another_job_is_not_assigned() {
    let (stage, leader, worker) = Stage::new("soon").await;
    let later = i64::MAX / 2;
    assign(&leader, "w-1", ENTRY).await;
    work(&worker, &[set(TASK, &format!(r#"{{"attempt":1,"failures":1,"not_before_ms":{later}}}"#))]).await;
    stage.breaks("", "failed");
    assign(&leader, "w-1", r#""j-1/0000000000@1""#).await;
    stage.breaks("too-soon", "a moment");
    work(&worker, &[set(TASK, DEAD)]).await;
    stage.breaks("", "dead");
    assign(&leader, "w-1", r#""j-1/0000000000@2""#).await;
    stage.breaks("too-soon", "it is dead");
    stage.all(&[set(TASK, RETRIED)]).await;
    assign(&leader, "w-1", r#""j-1/0000000000@3""#).await;
    stage.breaks("", "retried");
    stage.job("j-2", &format!(r#"{{"kind":"echo","policy":{{"not_before_ms":{later}}}}}"#)).await;
    assign(&leader, "w-1", r#""j-2/0000000000""#).await;
    stage.breaks("too-soon", "a moment");
    stage.job("j-3", r#"{"kind":"echo","after":["j-1"]}"#).await;
    assign(&leader, "w-1", r#""j-3/0000000000""#).await;
    stage.breaks("too-soon", "its job waits for j-1");
}

#[tokio::test(flavor = "multi_thread")]
async fn unmarked_a_task_that_fails_marks_its_job_and_one_is_aborted_only_with_its_job() {
    let (stage, leader, worker) = Stage::new("unmarked").await;
    assign(&leader, "w-1", ENTRY).await;
    let failed = OUTCOME.replace("done", "failed");
    worker.multi(&[check("/workers/w-1"), delete(TASK), set(DATA, &failed)]).await.expect("completed");
    assert_eq!(stage.broken(), ["unmarked"]);

    let (stage, _leader, _worker) = Stage::new("marked").await;
    let cancelled = r#"{"status":"cancelled","error":"by hand"}"#;
    let mark = set("/tasks/j-1", r#"{"kind":"echo","failed":true}"#);
    stage.all(&[delete(TASK), set(DATA, cancelled), mark]).await;
    assert_eq!(stage.broken(), [""; 0], "anybody cancels, and says so");
    assert_eq!(stage.audit().figures.cancelled, 1);
    stage.all(&[create("/data/j-1/0000000001", "x"), create("/tasks/j-1/0000000001", "")]).await;
    let aborted = set("/data/j-1/0000000001", r#"{"status":"aborted","error":"no reason"}"#);
    stage.all(&[delete("/tasks/j-1/0000000001"), aborted]).await;
    assert_eq!(stage.broken(), ["unmarked"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_job_is_not_released_before_the_other_has_succeeded() {
    let (stage, leader, worker) = Stage::new("after").await;
    assign(&leader, "w-1", ENTRY).await;
    let waits = r#"{"kind":"echo","after":["j-1"]}"#;
    for later in ["j-2", "j-3"] {
        stage.all(&[create(&format!("/tasks/{later}"), waits), create(&format!("/data/{later}"), "")]).await;
    }
    complete(&worker).await;
    stage.all(&[set("/tasks/j-1", r#"{"kind":"echo","sealed":true}"#)]).await;
    lead(&leader, &[set("/tasks/j-2", r#"{"kind":"echo"}"#)]).await;
    stage.breaks("", "released");
    stage.all(&[set("/tasks/j-1", r#"{"kind":"echo","sealed":true,"failed":true}"#)]).await;
    lead(&leader, &[set("/tasks/j-3", r#"{"kind":"echo"}"#)]).await;
    stage.breaks("after", "j-3 was released from j-1");
}

#[tokio::test(flavor = "multi_thread")]
async fn key_two_jobs_that_have_not_ended_do_not_share_one() {
    let (stage, _leader, _worker) = Stage::new("key").await;
    let keyed = r#"{"kind":"echo","key":"k"}"#;
    stage.all(&[create("/tasks/j-2", keyed), create("/data/j-2", ""), create("/data/@k", "j-2")]).await;
    stage.all(&[set("/tasks/j-2", r#"{"kind":"echo","key":"k","sealed":true}"#)]).await;
    stage.all(&[create("/tasks/j-3", keyed), create("/data/j-3", ""), set("/data/@k", "j-3")]).await;
    assert_eq!(stage.broken(), [""; 0], "the first one has ended");
    stage.all(&[create("/tasks/j-4", keyed), create("/data/j-4", "")]).await;
    assert_eq!(stage.broken(), ["key"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn leftovers_of_a_closed_job_are_named_and_so_is_a_job_that_comes_back() {
    let (stage, leader, worker) = Stage::new("leftovers").await;
    assign(&leader, "w-1", ENTRY).await;
    complete(&worker).await;
    stage.all(&[delete("/tasks/j-1")]).await;
    assert_eq!(stage.broken(), ["leftovers"]);
    stage.all(&[create("/tasks/j-1", r#"{"kind":"echo"}"#)]).await;
    assert!(stage.audit().violations.iter().any(|v| v.what.contains("a second time")));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_end_a_task_goes_with_its_payload_only_when_it_is_dead() {
    let (stage, leader, worker) = Stage::new("alive").await;
    stage.all(&[delete(TASK), delete(DATA)]).await;
    stage.breaks("one-end", "and it was not dead");
    stage.submit(SECOND).await;
    assign(&leader, "w-1", &format!("\"{SECOND}\"")).await;
    work(&worker, &[set(&format!("/tasks/{SECOND}"), DEAD)]).await;
    stage.all(&[delete(&format!("/tasks/{SECOND}")), delete(&format!("/data/{SECOND}"))]).await;
    stage.breaks("", "forgotten");
}

#[tokio::test(flavor = "multi_thread")]
async fn holder_a_task_is_completed_and_its_attempt_ended_by_the_worker_that_has_it() {
    let (stage, leader, worker) = Stage::new("holder").await;
    let other = stage.stranger().await;
    register(&other, "w-2").await;
    let others = async |ops: &[Op]| {
        other.multi(&[&[check("/workers/w-2")], ops].concat()).await.expect("written");
    };
    assign(&leader, "w-1", ENTRY).await;
    others(&[set(TASK, LOST)]).await;
    stage.breaks("holder", "its attempt was ended by w-2, and w-1 has it");
    assign(&leader, "w-1", r#""j-1/0000000000@1""#).await;
    others(&[delete(TASK), set(DATA, OUTCOME)]).await;
    stage.breaks("holder", "it was completed by w-2, and w-1 has it");

    stage.submit(SECOND).await;
    let (task, data) = (format!("/tasks/{SECOND}"), format!("/data/{SECOND}"));
    assign(&leader, "w-1", &format!("\"{SECOND}\"")).await;
    let lists = [set("/workers/w-1", &list("")), set("/workers/w-2", &list(&format!("\"{SECOND}@1\"")))];
    lead(&leader, &[&[set(&task, "")], &lists[..]].concat()).await;
    stage.breaks("", "moved, and its version with it");
    work(&worker, &[delete(&task), set(&data, OUTCOME)]).await; // at any version
    stage.breaks("holder", "it was completed by w-1, and w-2 has it");
}

#[tokio::test(flavor = "multi_thread")]
async fn holder_the_leader_ends_an_attempt_only_where_a_worker_was_lost_with_it() {
    let (stage, leader, worker) = Stage::new("ended").await;
    let attempts = |n: u32| LOST.replace(r#""attempt":1"#, &format!(r#""attempt":{n}"#));
    lead(&leader, &[set(TASK, LOST)]).await;
    stage.breaks("holder", "which no lost worker had");
    assign(&leader, "w-1", r#""j-1/0000000000@1""#).await;
    lead(&leader, &[set("/workers/w-1", &list("")), set(TASK, &attempts(2))]).await;
    stage.breaks("holder", "which w-1 has, and that lives");
    assign(&leader, "w-1", r#""j-1/0000000000@2""#).await;
    worker.close().await;
    lead(&leader, &[set(TASK, &attempts(3))]).await;
    stage.breaks("", "lost with its worker");
}

#[tokio::test(flavor = "multi_thread")]
async fn writer_a_task_is_set_by_nobody_but_its_worker_and_the_leader_unless_it_is_retried() {
    let (stage, leader, worker) = Stage::new("writer").await;
    let stranger = stage.stranger().await;
    let strange = async |data: &str| {
        stranger.write(set(TASK, data)).await.expect("set");
    };
    strange(LOST).await;
    stage.breaks("writer", "j-1/0000000000 was set by a session that has neither a worker nor the lead");
    strange(DEAD).await;
    stage.breaks("writer", "was marked dead by a session");
    strange(RETRIED).await;
    stage.breaks("", "anybody retries what is dead");
    assign(&leader, "w-1", r#""j-1/0000000000@3""#).await;
    work(&worker, &[set(TASK, DEAD)]).await;
    strange(r#"{"attempt":1}"#).await;
    stage.breaks("writer", "was set by a session"); // its history is gone
    strange("so what").await;
    stage.breaks("writer", "was set by a session");
    lead(&leader, &[set(TASK, r#"{"attempt":7}"#)]).await;
    stage.breaks("writer", "ended no attempt by it");
    let (task, data) = (format!("/tasks/{SECOND}"), format!("/data/{SECOND}"));
    stage.all(&[create(&data, "x"), create(&task, DEAD)]).await;
    stage.breaks("writer", "was submitted with attempts behind it");
    let (waits, free) = (
        r#"{"kind":"echo","after":["j-1"]}"#,
        r#"{"kind":"echo","sealed":true,"failed":true,
        "withdrawn":{"status":"aborted","reason":"no"}}"#,
    );
    stage.job("j-2", waits).await;
    stage.all(&[set("/tasks/j-2", free)]).await;
    stage.breaks("writer", "j-2 was released from j-1 by a session that does not lead");
}

#[tokio::test(flavor = "multi_thread")]
async fn guard_what_a_leader_writes_is_headed_by_the_check_of_its_own_znode() {
    let (stage, leader, worker) = Stage::new("guard").await;
    let backup = stage.candidate().await;
    let sealed = r#"{"kind":"echo","sealed":true,"failed":true,"withdrawn":{"status":"aborted","reason":"no"}}"#;
    stage.job("j-2", r#"{"kind":"echo","after":["j-1"]}"#).await;
    let (theirs, own) = (candidacy(&backup).await, candidacy(&leader).await);
    let unguarded = async |ops: &[Op], words: &str| {
        leader.multi(ops).await.expect("written");
        stage.breaks("guard", words);
    };
    let to = |entries: &str| set("/workers/w-1", &list(entries));
    unguarded(&[to(ENTRY)], "the leader assigned without the check").await;
    unguarded(&[theirs, to("")], "the leader assigned without").await;
    unguarded(&[to(ENTRY), own], "the leader assigned without").await;
    worker.close().await;
    unguarded(&[set(TASK, LOST)], "the leader set task j-1/0000000000 without").await;
    unguarded(&[set("/tasks/j-2", sealed)], "the leader released j-2 without").await;
    let aborted = r#"{"status":"aborted","error":"no"}"#;
    let (task, data) = ("/tasks/j-2/0000000000", "/data/j-2/0000000000");
    unguarded(&[delete(task), set(data, aborted)], "the leader changed /tasks/j-2/0000000000").await;
    unguarded(&[delete(data)], "the leader changed /data/j-2/0000000000").await;
    unguarded(&[delete("/data/j-2"), delete("/tasks/j-2")], "the leader changed /data/j-2").await;
    let path = own_path(&leader).await;
    leader.write(delete(&path)).await.expect("resigned");
    stage.breaks("", "resigned");
}

#[tokio::test(flavor = "multi_thread")]
async fn guard_what_a_worker_completes_and_ends_is_headed_by_the_check_of_its_own_znode() {
    let (stage, leader, worker) = Stage::new("workers-guard").await;
    let other = stage.stranger().await;
    register(&other, "w-2").await;
    assign(&leader, "w-1", ENTRY).await;
    worker.write(set(TASK, LOST)).await.expect("set");
    stage.breaks("guard", "a worker ended the attempt of j-1/0000000000 without the check");
    assign(&leader, "w-1", r#""j-1/0000000000@1""#).await;
    worker.multi(&[check("/workers/w-2"), delete(TASK), set(DATA, OUTCOME)]).await.expect("completed");
    stage.breaks("guard", "a worker completed j-1/0000000000 without the check");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_session_may_be_a_leader_a_worker_and_a_client() {
    let (stage, leader, _worker) = Stage::new("embedded").await;
    register(&leader, "w-2").await;
    ephemeral(&leader, "/tasks/j-1/client-1", "").await;
    assign(&leader, "w-2", ENTRY).await;
    leader.multi(&[check("/workers/w-2"), delete(TASK), set(DATA, OUTCOME)]).await.expect("completed");
    leader.multi(&[delete(DATA)]).await.expect("collected");
    let closing = ["/tasks/j-1/client-1", "/data/j-1", "/tasks/j-1"].map(delete);
    leader.multi(&closing).await.expect("closed");
    stage.breaks("", "each in its right");
    leader.write(set("/workers/w-1", &list(""))).await.expect("set");
    stage.breaks("guard", "the leader assigned without");
}

#[tokio::test(flavor = "multi_thread")]
async fn misfit_a_worker_is_not_given_what_it_cannot_run() {
    let (stage, leader, _worker) = Stage::new("misfit").await;
    stage.job("j-2", r#"{"kind":"exec"}"#).await;
    stage.job("j-3", r#"{"kind":"echo","policy":{"require":["gpu"]}}"#).await;
    assign(&leader, "w-1", r#""j-2/0000000000""#).await;
    stage.breaks("misfit", "was assigned to w-1, which does not run kind 'exec'");
    assign(&leader, "w-1", r#""j-3/0000000000""#).await;
    stage.breaks("misfit", "was assigned to w-1, which has no tag 'gpu'");
}

#[tokio::test(flavor = "multi_thread")]
async fn ephemeral_is_what_the_table_says_and_nothing_else() {
    let (stage, leader, worker) = Stage::new("kinds").await;
    let lowest = "/master/a-0badcafe-0000000000";
    let theirs = own_path(&leader).await;
    assert!(theirs.ends_with("0000000000"));
    stage.all(&[create(lowest, "{}")]).await;
    stage.breaks("ephemeral", "/master/a-0badcafe-0000000000 would outlive its session");
    assign(&leader, "w-1", ENTRY).await;
    stage.breaks("", "what outlives its session is no candidate, and does not lead");
    for name in ["/tasks/j-1/client-1", "/data/j-1/0000000000-live", "/data/j-1/0000000000-at", "/data/j-1/calls"] {
        stage.all(&[create(name, "0")]).await;
        stage.breaks("ephemeral", "would outlive its session");
        stage.all(&[delete(name)]).await;
        ephemeral(&worker, name, "0").await;
        stage.breaks("", name);
    }
    ephemeral(&stage.session, "/data/@k", "j-1").await;
    stage.breaks("ephemeral", "/data/@k would end with its session");
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_what_ends_with_a_session_is_not_deleted_by_another_one() {
    let (stage, leader, worker) = Stage::new("foreign").await;
    let backup = stage.candidate().await;
    let client = stage.stranger().await;
    for name in ["/tasks/j-1/client-1", "/tasks/j-1/client-2", "/data/j-1/calls"] {
        ephemeral(&client, name, "0").await;
    }
    for path in [own_path(&backup).await, own_path(&leader).await, "/workers/w-1".into(), "/tasks/j-1/client-1".into()]
    {
        stage.all(&[delete(&path)]).await;
        stage.breaks("foreign", &format!("{path} was deleted by another session than its own"));
    }
    stage.all(&[set("/tasks/j-1/client-2", "x")]).await;
    stage.breaks("foreign", "/tasks/j-1/client-2 was set, which nobody does");
    stage.all(&[set("/data/j-1/calls", "1")]).await;
    stage.breaks("foreign", "/data/j-1/calls was set by another session");
    let cancelled = r#"{"status":"cancelled","error":"by hand"}"#;
    let mark = set("/tasks/j-1", r#"{"kind":"echo","sealed":true,"failed":true}"#);
    stage.all(&[mark, delete(TASK), set(DATA, cancelled)]).await;
    let closing = [DATA, "/tasks/j-1/client-2", "/data/j-1/calls", "/data/j-1", "/tasks/j-1"].map(delete);
    stage.all(&closing).await;
    stage.breaks("", "closing takes away what others have in the job");
    client.close().await;
    worker.close().await;
    stage.breaks("", "sessions end");
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_a_root_is_never_deleted() {
    let (stage, _leader, worker) = Stage::new("roots").await;
    worker.close().await;
    stage.all(&[delete("/workers")]).await;
    stage.breaks("foreign", "the root /workers was deleted");
    stage.all(&[create("/workers", "")]).await;
    stage.breaks("", "anybody makes it again");
}

#[tokio::test(flavor = "multi_thread")]
async fn record_nothing_of_a_job_changes_but_what_may_and_nothing_is_taken_back() {
    let (stage, _leader, _worker) = Stage::new("record").await;
    let before = r#"{"kind":"echo","args":["a"],"policy":{"max_attempts":2},"spill":"/s","color":"red"}"#;
    let ended = r#""sealed":true,"tasks":0,"failed":true,"withdrawn":{"status":"aborted","reason":"no"},"color""#;
    let after = before.replace(r#""color""#, ended);
    let mut n = 1;
    let mut changes = async |was: &str, now: &str| {
        n += 1;
        let job = format!("/tasks/j-{n}");
        stage.all(&[create(&job, was)]).await;
        stage.all(&[set(&job, now)]).await;
    };
    changes(before, &after).await;
    stage.breaks("", "sealed, counted, marked and withdrawn");
    let forbidden = [
        ("echo", "exec", "its kind changed"),
        (r#"["a"]"#, r#"["b"]"#, "its arguments changed"),
        (r#""max_attempts":2"#, r#""max_attempts":3"#, "its policy changed"),
        (r#""color""#, r#""key":"k","color""#, "its key changed"),
        ("/s", "/t", "its spill directory changed"),
        (r#","color":"red""#, "", "it lost a field"),
        (r#""color""#, r#""after":["j-1"],"color""#, "it waits for a job more"),
        (r#""color""#, r#""tasks":1,"color""#, "its number of tasks changed"),
        (r#""color""#, r#""withdrawn":{"status":"aborted","reason":"no"},"color""#, "but not sealed and marked"),
        ("kind", "kin", "is none any more"),
    ];
    for (was, now, words) in forbidden {
        changes(before, &before.replace(was, now)).await;
        stage.breaks("record", words);
    }
    let sealed = before.replace(r#""color""#, r#""sealed":true,"tasks":0,"failed":true,"color""#);
    let taken_back = [
        (&sealed, r#""sealed":true"#, r#""sealed":false"#, "its seal was taken back"),
        (&sealed, r#""failed":true"#, r#""failed":false"#, "its mark was taken back"),
        (&sealed, r#""tasks":0"#, r#""tasks":1"#, "its number of tasks changed"),
        (&after, r#""reason":"no""#, r#""reason":"yes""#, "its withdrawal was taken back or changed"),
    ];
    for (record, was, now, words) in taken_back {
        changes(record, &record.replace(was, now)).await;
        stage.breaks("record", words);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn record_a_worker_says_what_it_said_when_it_registered() {
    let (stage, leader, _worker) = Stage::new("slots").await;
    lead(&leader, &[set("/workers/w-1", r#"{"slots":2,"kinds":["echo"],"assigned":[]}"#)]).await;
    stage.breaks("record", "the record of worker w-1 says other slots, kinds or tags");
    lead(&leader, &[set("/workers/w-1", "garbage")]).await;
    stage.breaks("record", "the record of worker w-1 is none any more");
    stage.all(&[set("/workers/w-1", r#"{"slots":9,"kinds":["exec"]}"#)]).await;
    stage.breaks("one-leader", "by a session that does not lead");
}

#[tokio::test(flavor = "multi_thread")]
async fn submitter_what_is_not_sealed_is_its_submitters() {
    let (stage, leader, worker) = Stage::new("submitter").await;
    let stranger = stage.stranger().await;
    assign(&leader, "w-1", ENTRY).await;
    complete(&worker).await;
    stranger.write(delete(DATA)).await.expect("deleted");
    stage.breaks("submitter", "the outcome of j-1/0000000000 was removed by a session that does not attend its job");
    stranger.multi(&[delete("/data/j-1"), delete("/tasks/j-1")]).await.expect("deleted");
    stage.breaks("submitter", "job j-1 was closed before it was sealed");

    stage.job("j-2", r#"{"kind":"echo"}"#).await;
    let second = [create("/data/j-2/0000000001", "x"), create("/tasks/j-2/0000000001", "")];
    stranger.multi(&second).await.expect("submitted");
    stage.breaks("submitter", "was submitted by a session that neither opened its job nor attends it");
    assign(&leader, "w-1", r#""j-2/0000000000","j-2/0000000001""#).await;
    let done = |n: u32| [delete(&format!("/tasks/j-2/000000000{n}")), set(&format!("/data/j-2/000000000{n}"), OUTCOME)];
    work(&worker, &[done(0), done(1)].concat()).await;
    lead(&leader, &[delete("/data/j-2/0000000000")]).await;
    stage.breaks("submitter", "does not attend its job, which is not sealed");
    let rejoined = stage.stranger().await;
    ephemeral(&rejoined, "/tasks/j-2/client-2", "").await;
    rejoined.write(delete("/data/j-2/0000000001")).await.expect("collected");
    stage.breaks("", "a client that attends it, on a new session");
    stage.all(&[set("/tasks/j-2", r#"{"kind":"echo","sealed":true}"#)]).await;
    lead(&leader, &["/tasks/j-2/client-2", "/data/j-2", "/tasks/j-2"].map(delete)).await;
    stage.breaks("", "anybody closes what is sealed");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_hand_deletes_of_a_job_is_named_whatever_it_is() {
    let (stage, leader, worker) = Stage::new("hands").await;
    stage.all(&[create("/tasks/j-2", r#"{"kind":"echo"}"#), create("/data/j-2", "")]).await;
    stage.all(&[delete("/data/j-2")]).await;
    stage.breaks("leftovers", "/data/j-2 was deleted, but job j-2 is left");
    let stranger = stage.stranger().await;
    assign(&leader, "w-1", ENTRY).await;
    stranger.write(delete(TASK)).await.expect("deleted"); // while it runs
    stage.breaks("one-end", "was deleted without an outcome");
    worker.write(set(DATA, OUTCOME)).await.expect("set");
    stage.breaks("commit", "was set apart from its task");
    stranger.write(delete("/tasks/j-1")).await.expect("deleted");
    let rules: Vec<&str> = stage.audit().violations[3..].iter().map(|violation| violation.rule).collect();
    assert_eq!(
        rules,
        ["leftovers", "submitter", "leftovers"],
        "closed with its data left, which it still is at the end"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn where_no_herd_was_ever_made_nothing_is_known_and_the_herds_that_are_there_are_named() {
    let (stage, _leader, _worker) = Stage::new("somewhere").await;
    let audit_of = |chroot: &str| audit(&[&data_folder()], chroot, Ending::Open).expect("readable");
    for chroot in ["/nowhere", "somewhere", "/somewhere/else"] {
        let verdict = audit_of(chroot);
        assert_eq!((verdict.verdict, verdict.violations.len()), ("unknown", 0), "{}", verdict.text());
        assert!(verdict.doubts[0].starts_with(&format!("the log holds no herd at {chroot}; there are")), "{verdict:?}");
    }
    for chroot in ["/somewhere", "/somewhere/"] {
        assert_eq!(audit_of(chroot).verdict, "valid", "{chroot}");
    }
    // Another application's, which has roots that are called alike.
    let other = connect(&config_at(support::zookeeper(), "/shop")).await;
    for path in ["/tasks", "/data", "/tasks/shopping", "/tasks/shopping/0000000001"] {
        other.write(create(path, "milk")).await.expect("created");
    }
    other.write(delete("/tasks/shopping/0000000001")).await.expect("deleted");
    let verdict = audit_of("/shop");
    assert_eq!((verdict.verdict, verdict.violations.len()), ("unknown", 0), "{}", verdict.text());
    drop(stage);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_broken_rule_is_told_once_with_its_count_and_its_first_cases() {
    let (stage, leader, _worker) = Stage::new("page").await;
    for n in 1..=5 {
        stage.all(&[create(&format!("/tasks/j-1/000000000{n}"), "")]).await;
    }
    leader.write(set("/workers/w-1", &list(""))).await.expect("set");
    let verdict = stage.audit();
    let lines = |text: &str, words: &str| text.lines().filter(|line| line.contains(words)).count();
    let (page, full) = (verdict.text(), verdict.text_in_full());
    assert!(page.starts_with("invalid\n  payload: 5 times\n"), "{page}");
    assert_eq!((lines(&page, "created together"), lines(&full, "created together")), (3, 5), "{page}");
    assert_eq!((lines(&page, "and 2 more (client audit --all)"), lines(&full, " more (")), (1, 0), "{page}");
    assert!(page.contains("  guard: once\n"), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_herd_is_valid_while_it_runs_and_when_it_has_ended() {
    let (stage, leader, worker_session) = Stage::new("herd").await;
    assign(&leader, "w-1", ENTRY).await;
    complete(&worker_session).await;
    leader.close().await;
    worker_session.close().await;
    let config = config_at(support::zookeeper(), &stage.chroot);
    let (m, w) = (master(&config, "m"), worker(&config, "w"));
    let (job, results) =
        herdsman::roles::client::open(&config, herdsman::roles::client::JobSpec::new("echo"), &mut rand::rng())
            .await
            .expect("opened");
    for _ in 0..200 {
        job.submit(b"x".to_vec()).await.expect("submitted");
    }
    assert_eq!(stage.broken(), [""; 0]);
    job.seal().await.expect("sealed");
    assert_eq!(support::all(results).await.len(), 200);
    w.stop().await;
    m.stop().await;
    assert_eq!(stage.broken(), [""; 0]);
    assert_eq!(stage.audit().figures.done, 201);
}

/// The logs as they are now, in a folder that a test may damage.
fn copy_of_the_logs() -> tempfile::TempDir {
    let copy = tempfile::tempdir().expect("a folder");
    for entry in std::fs::read_dir(data_folder().join("version-2")).expect("readable") {
        let entry = entry.expect("readable");
        if entry.file_name().to_string_lossy().starts_with("log.") {
            std::fs::copy(entry.path(), copy.path().join(entry.file_name())).expect("copied");
        }
    }
    copy
}

fn logs(folder: &Path) -> Vec<PathBuf> {
    let paths = std::fs::read_dir(folder).expect("readable").map(|entry| entry.expect("readable").path());
    let mut files: Vec<PathBuf> = paths.filter(|path| path.to_string_lossy().contains("/log.")).collect();
    files.sort_by_key(|path| {
        let name = path.file_name().expect("named").to_string_lossy().into_owned();
        i64::from_str_radix(name.trim_start_matches("log."), 16).expect("a zxid")
    });
    files
}

#[test]
fn what_contradicts_the_history_before_it_shows_that_zookeeper_lost_some() {
    let mut tree = Tree::new("/lab");
    let mut apply = |zxid, op| {
        tree.apply(&Txn { session: 1, zxid, time_ms: 0, body: Body::Op(op) });
        tree.contradictions.len()
    };
    let create = |path: &str| LogOp::Create { path: path.to_owned(), data: Vec::new(), ephemeral: false };
    assert_eq!(apply(1, create("/lab/a")), 0);
    assert_eq!(apply(2, LogOp::Delete("/elsewhere".to_owned())), 0, "not ours");
    assert_eq!(apply(3, create("/lab/a")), 1);
    assert_eq!(apply(4, LogOp::Delete("/lab/b".to_owned())), 2);
    assert_eq!(apply(5, LogOp::Set { path: "/lab/b".to_owned(), data: Vec::new(), version: 1 }), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_torn_last_record_is_what_a_kill_leaves_and_damage_elsewhere_leaves_doubt() {
    let (stage, leader, worker) = Stage::new("torn").await;
    assign(&leader, "w-1", ENTRY).await;
    complete(&worker).await;
    until("the log has rolled over", async || {
        let _ = stage.session.write(create("/tick", "")).await;
        let _ = stage.session.write(delete("/tick")).await;
        logs(&data_folder().join("version-2")).len() >= 3
    })
    .await;
    let copy = copy_of_the_logs();
    assert_eq!(audit(&[copy.path()], &stage.chroot, Ending::Open).expect("readable").verdict, "valid");

    // The last record ends in zeroes, as if the process had been killed while it wrote.
    let last = logs(copy.path()).pop().expect("one");
    let whole = std::fs::read(&last).expect("readable");
    let end = whole.iter().rposition(|byte| *byte != 0).expect("something was written");
    let mut torn = whole.clone();
    torn[end - 5..=end].fill(0);
    std::fs::write(&last, &torn).expect("written");
    let verdict = audit(&[copy.path()], &stage.chroot, Ending::Open).expect("readable");
    assert_eq!((verdict.verdict, verdict.figures.torn), ("valid", 1), "{}", verdict.text());

    // A flipped bit in the middle.
    let first = logs(copy.path())[0].clone();
    let whole_first = std::fs::read(&first).expect("readable");
    let mut damaged = whole_first.clone();
    damaged[200] ^= 1;
    std::fs::write(&first, &damaged).expect("written");
    let verdict = audit(&[copy.path()], &stage.chroot, Ending::Open).expect("readable");
    assert_eq!(verdict.verdict, "unknown", "{}", verdict.text());

    std::fs::write(&first, &whole_first).expect("written");

    // The beginning was purged.
    std::fs::remove_file(&first).expect("removed");
    let verdict = audit(&[copy.path()], &stage.chroot, Ending::Open).expect("readable");
    assert_eq!(verdict.verdict, "unknown", "{}", verdict.text());
    assert!(verdict.doubts[0].contains("nothing is logged right before"), "{:?}", verdict.doubts);

    let empty = tempfile::tempdir().expect("a folder");
    assert!(audit(&[empty.path()], "", Ending::Open).is_err());
}
