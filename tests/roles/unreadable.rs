//! Znodes with an ACL of their own, which the herd may not read, or not write: each hurts only itself. And those that no
//! session owns, though one should.

use coordination::{Op, Session, SessionConfig};
use futures::future::join_all;
use herdsman::client::{self, Client, FinishedStatus, JobSpec, Selected, open};
use tree::{JobRecord, Policy, TaskState, WorkerRecord};

use crate::support::herd::{master, worker};
use crate::support::{all, children, connect, forbid, forbid_writing, fresh_config, next, node, refused_below, until};

async fn create(session: &Session, path: &str, data: Vec<u8>) {
    session.write(Op::Create { path: path.to_owned(), data }).await.unwrap_or_else(|e| panic!("{path}: {e}"));
}

async fn echoes(config: &SessionConfig, count: u32) {
    let (job, results) = open(config, JobSpec::new("echo"), &mut rand::rng()).await.expect("opened");
    let submitted = join_all((0..count).map(|n| job.submit(n.to_string().into_bytes()))).await;
    submitted.into_iter().for_each(|task| drop(task.expect("acknowledged")));
    job.seal().await.expect("sealed");
    let finished = all(results).await;
    assert_eq!(finished.iter().filter(|finished| finished.is_done()).count(), count as usize);
}

#[tokio::test(flavor = "multi_thread")]
async fn znodes_that_may_not_be_read_stall_neither_the_leader_nor_its_successor() {
    let config = fresh_config();
    let session = connect(&config).await;
    let first = master(&config, "first");
    until("it leads", async || children(&session, "/master").await.len() == 1).await;
    let record = JobRecord::new("echo", vec![], Policy::default()).to_json();
    let secrets =
        ["/tasks/secret-0badcafe", "/tasks/mixed/0000000007", "/workers/secret-0badcafe", "/data/secret-0badcafe"];
    for path in ["/tasks/secret-0badcafe", "/tasks/mixed", "/data/mixed"] {
        create(&session, path, record.clone()).await;
    }
    for path in ["/tasks/mixed/0000000007", "/workers/secret-0badcafe", "/data/secret-0badcafe", "/master/secret"] {
        create(&session, path, Vec::new()).await;
    }
    for path in secrets.into_iter().chain(["/master/secret"]) {
        forbid(&config, path).await;
    }
    let _w = worker(&config, "w");
    echoes(&config, 10).await;
    first.stop().await;
    let _second = master(&config, "second");
    echoes(&config, 10).await;
    let herd = client::herd(&session).await.expect("it can be looked at");
    assert_eq!(herd.masters.len(), 1);
    assert_eq!(herd.workers.len(), 1);
    for path in ["/tasks/secret-0badcafe", "/workers/secret-0badcafe", "/master/secret"] {
        assert!(herd.malformed.iter().any(|malformed| malformed == path), "{path}: {:?}", herd.malformed);
    }
    let lines = client::tree(&session, 100).await.expect("it can be looked at");
    assert!(lines.iter().any(|line| line.name.contains("secret-0badcafe") && line.node.is_none()), "{lines:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_whose_payload_may_not_be_read_is_dead_and_its_neighbours_are_done() {
    let config = fresh_config();
    let session = connect(&config).await;
    let m = master(&config, "m");
    until("the roots are there", async || children(&session, "/master").await.len() == 1).await;
    let (job, mut results) = open(&config, JobSpec::new("echo"), &mut rand::rng()).await.expect("opened");
    let submitted = join_all((0..10).map(|n| job.submit(n.to_string().into_bytes()))).await;
    submitted.into_iter().for_each(|task| drop(task.expect("acknowledged")));
    job.seal().await.expect("sealed");
    forbid(&config, &job.id().task(3).data_path()).await;
    let _w = worker(&config, "w");
    for _ in 0..10 {
        let finished = next(&mut results).await.expect("an outcome");
        let of_three = finished.task.ends_with("/0000000003");
        assert_eq!(finished.status, if of_three { FinishedStatus::Dead } else { FinishedStatus::Done }, "{finished:?}");
        assert!(!of_three || finished.error.as_ref().is_some_and(|error| error.contains("cannot be read")));
    }
    let state = TaskState::from_json(&node(&session, &job.id().task(3).path()).await.data).expect("readable");
    assert!(state.dead);
    m.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outcome_that_may_not_be_read_keeps_nobody_from_the_others() {
    let config = fresh_config();
    let session = connect(&config).await;
    let _herd = (master(&config, "m"), worker(&config, "w"));
    until("the herd is there", async || children(&session, "/workers").await.len() == 1).await;
    let (job, results) = open(&config, JobSpec::new("echo"), &mut rand::rng()).await.expect("opened");
    let submitted = join_all((0..10).map(|n| job.submit(n.to_string().into_bytes()))).await;
    submitted.into_iter().for_each(|task| drop(task.expect("acknowledged")));
    job.seal().await.expect("sealed");
    let id = job.id().clone();
    results.leave().await.expect("left");
    until("all have ended", async || children(&session, &id.path()).await.is_empty()).await;
    forbid(&config, &id.task(3).data_path()).await;
    let client = Client::connect(&config).await.expect("ZooKeeper is up");
    let whole = Selected { job: id.clone(), tasks: None };
    assert_eq!(client.info(&whole).await.expect("it can be looked at").tasks.len(), 10);
    let mut logged = 0;
    client.logs(&whole, false, |_, _| logged += 1).await.expect("it can be looked at");
    assert_eq!(logged, 10, "each has ended");
    let mut delivered = Vec::new();
    let deliver = |finished: &[_]| {
        delivered.extend_from_slice(finished);
        Ok(())
    };
    let tally = client.results(&id, false, false, deliver).await.expect("delivered");
    assert_eq!((tally.done, tally.failed), (9, 1));
    assert_eq!(children(&session, &id.data_path()).await, ["0000000003"], "it stays");
}

/// Something of the leader's is refused for ever: it must not be tried again and again. What is there already (the roots) is
/// refused to each member once.
fn assert_calm(config: &SessionConfig) {
    let refused = refused_below(config);
    assert!(refused < 30, "{refused} transactions were refused");
}

/// A worker that does nothing, until its session ends.
async fn idler(config: &SessionConfig, name: &str) -> Session {
    let session = connect(config).await;
    let record = WorkerRecord::new(2, vec!["echo".to_owned()]);
    let create = Op::CreateEphemeral { path: format!("/workers/{name}"), data: record.to_json(), sequential: false };
    session.write(create).await.expect("created");
    session
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_whose_list_may_not_be_written_is_given_nothing_and_the_others_go_on() {
    let config = fresh_config();
    let session = connect(&config).await;
    let _m = master(&config, "m");
    until("it leads", async || children(&session, "/master").await.len() == 1).await;
    let _stuck = idler(&config, "stuck-0badcafe").await;
    forbid_writing(&config, "/workers/stuck-0badcafe").await;
    let (job, mut results) = open(&config, JobSpec::new("echo"), &mut rand::rng()).await.expect("opened");
    job.submit(b"alone".to_vec()).await.expect("acknowledged");
    // The only one there is.
    until("it was tried", async || refused_below(&config) > 0).await;
    let _w = worker(&config, "w");
    assert!(next(&mut results).await.expect("an outcome").is_done());
    for _ in 0..3 {
        echoes(&config, 20).await;
    }
    let stuck = WorkerRecord::from_json(&node(&session, "/workers/stuck-0badcafe").await.data).expect("readable");
    assert!(stuck.assigned.is_empty());
    assert_calm(&config);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_whose_end_may_not_be_written_stops_nobody() {
    let config = fresh_config();
    let session = connect(&config).await;
    let _m = master(&config, "m");
    until("it leads", async || children(&session, "/master").await.len() == 1).await;
    for (n, forbid_it) in [false, true].into_iter().enumerate() {
        let name = format!("gone-0badcaf{n}");
        let gone = idler(&config, &name).await;
        let (job, mut results) = open(&config, JobSpec::new("echo"), &mut rand::rng()).await.expect("opened");
        let tasks = [job.submit(b"0".to_vec()).await, job.submit(b"1".to_vec()).await].map(|task| task.expect("there"));
        job.seal().await.expect("sealed");
        until("both are assigned", async || {
            let record = WorkerRecord::from_json(&node(&session, &format!("/workers/{name}")).await.data);
            record.expect("readable").assigned.len() == 2
        })
        .await;
        if forbid_it {
            forbid(&config, &tasks[0].path()).await;
        } else {
            forbid_writing(&config, &tasks[0].path()).await;
        }
        gone.close().await;
        until("the other attempt has ended", async || node(&session, &tasks[1].path()).await.version == 1).await;
        let w = worker(&config, "w");
        let finished = next(&mut results).await.expect("an outcome");
        assert!(finished.is_done() && finished.task == tasks[1].to_string(), "{finished:?}");
        echoes(&config, 20).await;
        // It can be got rid of.
        let client = Client::connect(&config).await.expect("ZooKeeper is up");
        let rest = Selected { job: job.id().clone(), tasks: None };
        assert_eq!(client.cancel(&rest, "enough").await.expect("cancelled"), 1);
        // ZooKeeper tells nobody of the end of what he may not read.
        if !forbid_it {
            assert_eq!(next(&mut results).await.expect("an outcome").status, FinishedStatus::Cancelled);
        }
        w.stop().await;
    }
    assert_calm(&config);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_no_session_owns_is_given_nothing_and_is_shown_as_malformed() {
    let config = fresh_config();
    let session = connect(&config).await;
    let _m = master(&config, "m");
    until("it leads", async || children(&session, "/master").await.len() == 1).await;
    let path = "/workers/restored-0badcafe";
    create(&session, path, WorkerRecord::new(64, vec!["echo".to_owned()]).to_json()).await;
    let herd = client::herd(&session).await.expect("it can be looked at");
    assert!(herd.workers.is_empty() && herd.malformed == [path], "{herd:?}");
    let (job, mut results) = open(&config, JobSpec::new("echo"), &mut rand::rng()).await.expect("opened");
    job.submit(b"x".to_vec()).await.expect("acknowledged");
    job.seal().await.expect("sealed");
    let client = Client::connect(&config).await.expect("ZooKeeper is up");
    let reasons = client.explain(&Selected { job: job.id().clone(), tasks: None }).await.expect("it is there");
    assert!(reasons.iter().any(|reason| reason.contains("there is no worker")), "{reasons:?}");
    assert!(reasons.iter().any(|reason| reason.contains(path)), "{reasons:?}");
    let _w = worker(&config, "w");
    assert!(next(&mut results).await.expect("an outcome").is_done());
    echoes(&config, 20).await;
}
