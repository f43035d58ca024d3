//! Znodes with an ACL of their own, which the herd may not read: each hurts only itself.

use futures::future::join_all;
use herdsman::coordination::{Op, Session, SessionConfig};
use herdsman::records::{JobRecord, Policy, TaskState};
use herdsman::roles::client::{Client, FinishedStatus, JobSpec, Selected, open, view};

use crate::support::herd::{master, worker};
use crate::support::{all, children, connect, forbid, fresh_config, next, node, until};

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
    let herd = view::herd(&session).await.expect("it can be looked at");
    assert_eq!(herd.masters.len(), 1);
    assert_eq!(herd.workers.len(), 1);
    for path in ["/tasks/secret-0badcafe", "/workers/secret-0badcafe", "/master/secret"] {
        assert!(herd.malformed.iter().any(|malformed| malformed == path), "{path}: {:?}", herd.malformed);
    }
    let lines = view::tree(&session, 100).await.expect("it can be looked at");
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
