//! The auditor must be able to fail: each rule is broken on purpose, on a real ZooKeeper, and its log audited.

mod support;

use std::path::{Path, PathBuf};

use herdsman::audit::replay::Tree;
use herdsman::audit::txn::{Body, Op as LogOp, Txn};
use herdsman::audit::{Ending, Verdict, audit};
use herdsman::coordination::{Op, Session};
use support::herd::{master, worker};
use support::{config_at, connect, until};

/// A herd below a chroot of its own, played by hand.
struct Stage {
    chroot: String,
    session: Session,
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
const OUTCOME: &str = r#"{"status":"done","worker":"w-1","attempts":1,"result":null}"#;

impl Stage {
    /// The roots, a leader `m-1` and a worker `w-1` of one session each, and a job with one task.
    async fn new(name: &str) -> (Stage, Session, Session) {
        let server = support::zookeeper_with(&[
            ("HERDSMAN_TICK_MS", "100"),
            // Small logs and many snapshots, so that the files roll over all the time.
            ("ZOOKEEPER_JVMFLAGS", "-XX:TieredStopAtLevel=1 -Dzookeeper.snapCount=100"),
        ]);
        let chroot = format!("/{name}");
        let config = config_at(server, &chroot);
        let session = connect(&config).await;
        let stage = Stage { chroot, session };
        for root in ["/master", "/workers", "/tasks", "/data"] {
            stage.all(&[create(root, "")]).await;
        }
        let leader = stage.candidate().await;
        let worker = connect(&config).await;
        let record = r#"{"slots":1,"kinds":["echo"],"assigned":[]}"#;
        let path = "/workers/w-1".to_owned();
        let register = Op::CreateEphemeral { path, data: record.into(), sequential: false };
        worker.write(register).await.expect("registered");
        stage.all(&[create("/tasks/j-1", r#"{"kind":"echo"}"#), create("/data/j-1", "")]).await;
        stage.all(&[create(DATA, "x"), create(TASK, "")]).await;
        (stage, leader, worker)
    }

    /// Another candidate, on a session of its own.
    async fn candidate(&self) -> Session {
        let session = connect(&config_at(support::zookeeper(), &self.chroot)).await;
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

async fn assign(leader: &Session, worker: &str, entries: &str) {
    leader.write(set(&format!("/workers/{worker}"), &list(entries))).await.expect("assigned");
}

async fn complete(worker: &Session) {
    worker.multi(&[check("/workers/w-1"), delete(TASK), set(DATA, OUTCOME)]).await.expect("completed");
}

const ENTRY: &str = r#""j-1/0000000000""#;

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
    let (stage, _leader, _worker) = Stage::new("twice").await;
    stage.all(&[delete(TASK), delete(DATA)]).await;
    assert_eq!(stage.broken(), [""; 0], "cancelled");
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
    let (stage, _leader, worker) = Stage::new("second").await;
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
    let register = Op::CreateEphemeral { path, data: list(ENTRY).into_bytes(), sequential: false };
    worker.write(register).await.expect("registered");
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
    stage.all(&[delete(&format!("/master/{own}"))]).await; // its session lives on
    assign(&next, "w-1", "").await;
    assign(&leader, "w-1", ENTRY).await; // without a guard
    assert_eq!(stage.broken(), ["one-leader", "no-return"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_holder_a_task_is_not_in_the_lists_of_two_live_workers() {
    let (stage, leader, worker) = Stage::new("holders").await;
    let path = "/workers/w-2".to_owned();
    let register = Op::CreateEphemeral { path, data: list("").into_bytes(), sequential: false };
    worker.write(register).await.expect("registered");
    assign(&leader, "w-1", ENTRY).await;
    leader.multi(&[set("/workers/w-1", &list("")), set("/workers/w-2", &list(ENTRY))]).await.expect("moved");
    assert_eq!(stage.broken(), [""; 0], "moved in one step");
    assign(&leader, "w-1", ENTRY).await;
    assert_eq!(stage.broken(), ["one-holder"]);
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
    leader.write(set(TASK, r#"{"attempt":1,"dead":true}"#)).await.expect("set");
    assert_eq!(one(stage.audit_at(Ending::Settled)), ("valid", None), "dead is an end");
    complete(&worker).await;
    assert_eq!(one(stage.audit_at(Ending::Settled)), ("valid", None));
}

#[tokio::test(flavor = "multi_thread")]
async fn too_soon_what_is_dead_in_backoff_delayed_or_waits_for_another_job_is_not_assigned() {
    let (stage, leader, _worker) = Stage::new("soon").await;
    let later = i64::MAX / 2;
    let backoff = format!(r#"{{"attempt":1,"not_before_ms":{later}}}"#);
    let delayed = format!(r#"{{"kind":"echo","policy":{{"not_before_ms":{later}}}}}"#);
    let version = |n: u32| format!(r#""j-1/0000000000@{n}""#);
    let steps = [
        (TASK, backoff.as_str(), version(1), "a moment"),
        (TASK, r#"{"attempt":1,"dead":true}"#, version(2), "it is dead"),
        (TASK, "", version(3), ""),
        ("/tasks/j-1", delayed.as_str(), version(3), "a moment"),
        ("/tasks/j-1", r#"{"kind":"echo","after":["j-0"]}"#, version(3), "its job waits for j-0"),
    ];
    let mut broken = 0;
    for (path, data, entry, reason) in steps {
        stage.all(&[set(path, data)]).await;
        assign(&leader, "w-1", &entry).await;
        assign(&leader, "w-1", "").await;
        broken += usize::from(!reason.is_empty());
        let violations = stage.audit().violations;
        assert_eq!(violations.len(), broken, "{violations:?}");
        assert!(violations.iter().all(|violation| violation.rule == "too-soon"));
        assert!(violations.last().is_some_and(|v| v.what.contains(reason)), "{violations:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unmarked_a_task_that_fails_marks_its_job_and_one_is_aborted_only_with_its_job() {
    let (stage, _leader, worker) = Stage::new("unmarked").await;
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
    let (stage, _leader, worker) = Stage::new("after").await;
    let waits = r#"{"kind":"echo","after":["j-1"]}"#;
    for later in ["j-2", "j-3"] {
        stage.all(&[create(&format!("/tasks/{later}"), waits), create(&format!("/data/{later}"), "")]).await;
    }
    complete(&worker).await;
    stage.all(&[set("/tasks/j-1", r#"{"kind":"echo","sealed":true}"#)]).await;
    stage.all(&[set("/tasks/j-2", r#"{"kind":"echo"}"#)]).await;
    assert_eq!(stage.broken(), [""; 0]);
    stage.all(&[set("/tasks/j-1", r#"{"kind":"echo","sealed":true,"failed":true}"#)]).await;
    stage.all(&[set("/tasks/j-3", r#"{"kind":"echo"}"#)]).await;
    assert_eq!(stage.broken(), ["after"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn key_two_jobs_that_have_not_ended_do_not_share_one() {
    let (stage, _leader, worker) = Stage::new("key").await;
    let keyed = r#"{"kind":"echo","key":"k"}"#;
    stage.all(&[set("/tasks/j-1", r#"{"kind":"echo","key":"k","sealed":true}"#)]).await;
    complete(&worker).await;
    stage.all(&[create("/tasks/j-2", keyed), create("/data/j-2", ""), create("/data/@k", "j-2")]).await;
    assert_eq!(stage.broken(), [""; 0], "the first one has ended");
    stage.all(&[create("/tasks/j-3", keyed), create("/data/j-3", "")]).await;
    assert_eq!(stage.broken(), ["key"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn leftovers_of_a_closed_job_are_named_and_so_is_a_job_that_comes_back() {
    let (stage, _leader, worker) = Stage::new("leftovers").await;
    complete(&worker).await;
    stage.all(&[delete("/tasks/j-1")]).await;
    assert_eq!(stage.broken(), ["leftovers"]);
    stage.all(&[create("/tasks/j-1", r#"{"kind":"echo"}"#)]).await;
    assert!(stage.audit().violations.iter().any(|v| v.what.contains("a second time")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_herd_is_valid_while_it_runs_and_when_it_has_ended() {
    let (stage, leader, worker_session) = Stage::new("herd").await;
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
    let (stage, _leader, worker) = Stage::new("torn").await;
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
