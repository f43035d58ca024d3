//! The auditor must be able to fail: each rule is broken on purpose, on a real ZooKeeper, and its log audited.

#[path = "../support/mod.rs"]
mod support;

mod assignments;
mod jobs;
mod rights;
mod stage;
mod tasks;

use std::path::{Path, PathBuf};

use audit::{
    Ending, audit,
    replay::Tree,
    txn::{Body, Op as LogOp, Txn},
};
use stage::*;
use support::herd::{master, worker};
use support::{config_at, connect, until};

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
    let (job, results) = herdsman::client::open(&config, herdsman::client::JobSpec::new("echo"), &mut rand::rng())
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
