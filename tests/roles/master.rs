use std::time::Duration;

use coordination::{Op, Session, SessionConfig};
use herdsman::client::{Finished, JobSpec, Results, open};
use lab::line::Line;
use serde_json::json;
use tree::{JobRecord, MasterRecord, Policy, WorkerRecord};

use crate::support::herd::{master, master_with_retention, worker};
use crate::support::{all, children, connect, eventually, fresh_config, next, node, through, until, zookeeper};

/// Submits `count` tasks of a kind and seals the job.
async fn submit(config: &SessionConfig, kind: &str, payload: &str, count: usize) -> Results {
    let (job, results) = open(config, JobSpec::new(kind), &mut rand::rng()).await.expect("opened");
    for _ in 0..count {
        job.submit(payload.as_bytes().to_vec()).await.expect("submitted");
    }
    job.seal().await.expect("sealed");
    results
}

/// All outcomes must be done; returns the attempts of each.
async fn collect(results: Results) -> Vec<u32> {
    let finished = all(results).await;
    assert!(finished.iter().all(Finished::is_done), "{finished:?}");
    finished.iter().map(|finished| finished.attempts).collect()
}

async fn leader(session: &Session) -> Option<String> {
    let mut names = children(session, "/master").await;
    names.sort_by_key(|name| znode::paths::sequence(name));
    let node = session.get(&format!("/master/{}", names.first()?)).await.expect("readable")?;
    MasterRecord::from_json(&node.data).ok().map(|record| record.name)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_runs_from_the_first_submit_to_an_empty_tree() {
    let config = fresh_config();
    let (m, w) = (master(&config, "m"), worker(&config, "w"));
    let session = connect(&config).await;
    until("the herd is there", async || children(&session, "/workers").await.len() == 1).await;
    assert_eq!(collect(submit(&config, "echo", "hi", 100).await).await, vec![1; 100]);
    assert_eq!(children(&session, "/").await, ["data", "master", "tasks", "workers"]);
    assert!(children(&session, "/tasks").await.is_empty());
    assert!(children(&session, "/data").await.is_empty());
    let only = children(&session, "/workers").await.pop().expect("one");
    until("the worker's list is tidied", async || {
        let data = node(&session, &format!("/workers/{only}")).await.data;
        WorkerRecord::from_json(&data).expect("valid").assigned.is_empty()
    })
    .await;
    w.stop().await;
    m.stop().await;
    assert!(children(&session, "/workers").await.is_empty() && children(&session, "/master").await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_resigns_is_followed_by_its_backup_and_running_tasks_run_on() {
    let config = fresh_config();
    let session = connect(&config).await;
    let first = master(&config, "first");
    until("the first leads", async || leader(&session).await.as_deref() == Some("first")).await;
    let _second = master(&config, "second");
    until("the second stands by", async || children(&session, "/master").await.len() == 2).await;
    let _w = worker(&config, "w");
    let results = submit(&config, "sleep", "0.5", 12).await; // three rounds on four slots
    first.stop().await;
    assert_eq!(leader(&session).await.as_deref(), Some("second"));
    assert_eq!(collect(results).await, vec![1; 12], "nothing was begun twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_cut_off_is_replaced_and_comes_back_as_a_backup() {
    let config = fresh_config();
    let session = connect(&config).await;
    let line = Line::to(zookeeper()).await.expect("a port");
    let _first = master(&through(&line, &config), "first");
    until("the first leads", async || leader(&session).await.as_deref() == Some("first")).await;
    let _second = master(&config, "second");
    let _w = worker(&config, "w");
    until("the herd is there", async || {
        children(&session, "/master").await.len() == 2 && children(&session, "/workers").await.len() == 1
    })
    .await;
    line.cut();
    let results = submit(&config, "echo", "x", 20).await;
    assert_eq!(collect(results).await.len(), 20, "done under the second");
    assert_eq!(leader(&session).await.as_deref(), Some("second"));
    line.mend();
    until("the first is back", async || children(&session, "/master").await.len() == 2).await;
    assert_eq!(leader(&session).await.as_deref(), Some("second"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_znode_was_deleted_by_hand_joins_again_and_goes_on() {
    let config = fresh_config();
    let session = connect(&config).await;
    let (_m, _w) = (master(&config, "m"), worker(&config, "w"));
    let znode = eventually("it leads", async || children(&session, "/master").await.pop()).await;
    session.write(Op::Delete { path: format!("/master/{znode}"), version: None }).await.expect("deleted");
    let again = eventually("it joins again", async || children(&session, "/master").await.pop()).await;
    assert_ne!(znode, again);
    assert_eq!(collect(submit(&config, "echo", "x", 10).await).await.len(), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tasks_of_a_worker_that_is_lost_are_done_by_another_as_second_attempts() {
    let config = fresh_config();
    let session = connect(&config).await;
    let _m = master(&config, "m");
    let line = Line::to(zookeeper()).await.expect("a port");
    let _lost = worker(&through(&line, &config), "lost");
    until("it is registered", async || children(&session, "/workers").await.len() == 1).await;
    let results = submit(&config, "sleep", "0.3", 4).await;
    let znode = children(&session, "/workers").await.pop().expect("one");
    until("all are assigned", async || {
        let data = node(&session, &format!("/workers/{znode}")).await.data;
        WorkerRecord::from_json(&data).expect("valid").assigned.len() == 4
    })
    .await;
    line.cut();
    let _other = worker(&config, "other");
    assert_eq!(collect(results).await, vec![2; 4]);
    line.mend();
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_znodes_of_others_stall_neither_the_master_nor_anybodys_task() {
    let config = fresh_config();
    let session = connect(&config).await;
    let m = master(&config, "m");
    until("it leads", async || leader(&session).await.is_some()).await;
    let garbage = [
        ("/master/foreign", "x"),
        ("/master/old-0badcafe-0000000000", r#"{"name":"old","host":"h","pid":1}"#), // before everybody, for ever
        ("/workers/foreign", "{\"slots\":\"many\"}"),
        ("/workers/empty", ""),
        ("/tasks/not json", ""),
        ("/tasks/foreign", "not json"),
        ("/tasks/foreign/0000000000", ""),
        ("/tasks/mixed", "{\"kind\":\"echo\"}"),
        ("/tasks/mixed/7", "not ten digits"),
        ("/tasks/mixed/0000000001", "[1,2"),
        ("/tasks/mixed/0000000002", ""),
        ("/tasks/mixed/0000000002/deeper", ""),
        ("/data/mixed", ""),
        ("/data/mixed/0000000003", "a payload without a task"),
    ];
    for (path, data) in garbage {
        let op = Op::Create { path: path.to_owned(), data: data.as_bytes().to_vec() };
        session.write(op).await.unwrap_or_else(|e| panic!("{path}: {e}"));
    }
    let _w = worker(&config, "w");
    assert_eq!(collect(submit(&config, "echo", "x", 10).await).await.len(), 10, "while it leads");
    m.stop().await;
    let _next = master(&config, "next");
    assert_eq!(collect(submit(&config, "echo", "x", 10).await).await.len(), 10, "and for one that starts among them");
    let dead = node(&session, "/tasks/mixed/0000000002").await;
    assert!(String::from_utf8_lossy(&dead.data).contains("\"dead\":true"), "without a payload it cannot be done");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_collects_is_swept_after_the_retention_and_what_is_outstanding_is_not() {
    let config = fresh_config();
    let session = connect(&config).await;
    let _m = master_with_retention(&config, "m", Duration::from_millis(300));
    let w = worker(&config, "w");
    until("the herd is there", async || children(&session, "/workers").await.len() == 1).await;
    let results = submit(&config, "echo", "x", 700).await; // more than one round
    results.leave().await.expect("left");
    // One whose client is gone without having submitted anything, and one whose client attends it.
    let empty_job = async || {
        let record = JobRecord::new("echo", vec![], Policy::default()).to_json();
        for (path, data) in [("/tasks/empty", record), ("/data/empty", Vec::new())] {
            session.write(Op::Create { path: path.to_owned(), data }).await.expect("created");
        }
    };
    empty_job().await;
    let (open_job, open_results) = open(&config, JobSpec::new("echo"), &mut rand::rng()).await.expect("opened");
    let attended = open_job.id().to_string();
    until("the outcomes, the job, and the empty one are gone", async || {
        children(&session, "/data").await == [attended.clone()] && children(&session, "/tasks").await.len() == 1
    })
    .await;
    open_job.submit(b"still open".to_vec()).await.expect("nobody sealed it");
    drop(open_job);
    assert_eq!(all(open_results).await.len(), 1);
    w.stop().await;
    let waiting = submit(&config, "echo", "x", 1).await;
    waiting.leave().await.expect("left");
    let job = children(&session, "/tasks").await.pop().expect("one");
    // What is swept is younger than what is outstanding, each time.
    for _ in 0..2 {
        empty_job().await;
        until("it is swept", async || session.get("/tasks/empty").await == Ok(None)).await;
        for root in ["/tasks", "/data"] {
            assert_eq!(children(&session, &format!("{root}/{job}")).await, ["0000000000"]);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hazard_14_the_roots_are_created_once_and_never_removed() {
    let config = fresh_config();
    let session = connect(&config).await;
    let m = master(&config, "m");
    until("it leads", async || leader(&session).await.is_some()).await;
    let created = node(&session, "/tasks").await.czxid;
    m.stop().await;
    let (_m, _w) = (master(&config, "m"), worker(&config, "w"));
    collect(submit(&config, "echo", "x", 1).await).await;
    assert_eq!(node(&session, "/tasks").await.czxid, created);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_that_was_deleted_by_hand_is_made_again_and_the_herd_goes_on() {
    let config = fresh_config();
    let session = connect(&config).await;
    let (_m, w) = (master(&config, "m"), worker(&config, "w"));
    until("the herd is there", async || children(&session, "/workers").await.len() == 1).await;
    assert_eq!(collect(submit(&config, "echo", "x", 10).await).await.len(), 10);
    for roots in [&["/tasks"][..], &["/data"], &["/tasks", "/data"]] {
        let before = node(&session, roots[0]).await.czxid;
        let deletions = roots.iter().map(|root| Op::Delete { path: (*root).to_owned(), version: None });
        session.multi(&deletions.collect::<Vec<_>>()).await.expect("nothing is in them");
        until("they are there again", async || {
            let made = futures::future::join_all(roots.iter().map(|root| session.get(root))).await;
            made.into_iter().all(|root| root.expect("readable").is_some_and(|root| root.czxid > before))
        })
        .await;
        assert_eq!(collect(submit(&config, "echo", "x", 10).await).await.len(), 10);
    }
    w.stop().await;
    session.write(Op::Delete { path: "/workers".to_owned(), version: None }).await.expect("nobody is in it");
    until("the master makes it again", async || session.get("/workers").await.is_ok_and(|root| root.is_some())).await;
    let _w = worker(&config, "w");
    assert_eq!(collect(submit(&config, "echo", "x", 10).await).await.len(), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_nobody_can_run_waits_and_holds_nobody_up() {
    let config = fresh_config();
    let (_m, _w) = (master(&config, "m"), worker(&config, "w"));
    let session = connect(&config).await;
    until("the herd is there", async || children(&session, "/workers").await.len() == 1).await;
    let exotic = submit(&config, "exotic", "x", 5).await;
    assert_eq!(collect(submit(&config, "echo", "x", 50).await).await.len(), 50);
    exotic.leave().await.expect("left");
    assert_eq!(children(&session, "/tasks").await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_fails_at_first_is_attempted_again() {
    let config = fresh_config();
    let (_m, _w) = (master(&config, "m"), worker(&config, "w"));
    let folder = tempfile::tempdir().expect("a folder");
    let script = format!("mkdir {0}/first 2>/dev/null && exit 1; echo again", folder.path().display());
    let spec = JobSpec {
        args: ["sh", "-c", &script].map(str::to_owned).to_vec(),
        policy: Policy { max_attempts: 3, ..Policy::default() },
        ..JobSpec::new("exec")
    };
    let session = connect(&config).await;
    until("the roots are there", async || session.get("/tasks").await.is_ok_and(|n| n.is_some())).await;
    let (job, mut results) = open(&config, spec, &mut rand::rng()).await.expect("opened");
    job.submit(Vec::new()).await.expect("submitted");
    let finished = next(&mut results).await.expect("an outcome");
    assert!(finished.is_done());
    assert_eq!((finished.attempts, &finished.result["stdout"]), (2, &json!("again\n")));
}

#[tokio::test(flavor = "multi_thread")]
async fn hazard_25_a_leader_reads_the_tree_before_its_first_plan() {
    let config = fresh_config();
    let session = connect(&config).await;
    // A worker's list and tasks from before: what is assigned stays where it is.
    let _w = worker(&config, "w");
    let znode = eventually("registered", async || children(&session, "/workers").await.pop()).await;
    let results = submit(&config, "sleep", "1", 4).await;
    let job = children(&session, "/tasks").await.pop().expect("one");
    let path = format!("/workers/{znode}");
    let mut record = WorkerRecord::from_json(&node(&session, &path).await.data).expect("valid");
    record.assigned = (0..4).map(|n| format!("{job}/{n:010}")).collect();
    session.write(Op::Set { path, data: record.to_json(), version: None }).await.expect("set");
    let _m = master(&config, "m");
    let _idle = worker(&config, "idle");
    assert_eq!(collect(results).await, vec![1; 4]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_task_parked_behind_a_long_one_moves_to_a_worker_that_is_idle() {
    let config = fresh_config();
    let session = connect(&config).await;
    let _m = master(&config, "m");
    let _busy = worker(&config, "busy");
    until("it is there", async || children(&session, "/workers").await.len() == 1).await;
    let (job, results) = open(&config, JobSpec::new("sleep"), &mut rand::rng()).await.expect("opened");
    // Many short ones open the window; the long ones behind them fill it.
    let short = (0..500).map(|_| job.submit(b"0".to_vec()));
    let long = (0..40).map(|_| job.submit(b"1".to_vec()));
    futures::future::join_all(short.chain(long)).await.into_iter().for_each(|task| drop(task.expect("submitted")));
    let _idle = worker(&config, "idle");
    job.seal().await.expect("sealed");
    let mut by_idle = 0;
    for finished in all(results).await {
        assert_eq!(finished.attempts, 1);
        by_idle += usize::from(finished.worker.is_some_and(|worker| worker.starts_with("idle-")));
    }
    assert!(by_idle >= 10, "{by_idle} of 40");
}
