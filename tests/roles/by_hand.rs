//! Somebody deletes znodes of a job by hand: nobody waits for ever, and whoever asks is told.

use std::time::Duration;

use coordination::{Op, Session, SessionConfig};
use herdsman::client::{Client, Finished, FinishedStatus, Job, JobSpec, Results, Selected, open};
use tree::JobId;

use crate::support::herd::{Member, master, worker};
use crate::support::{all, children, connect, fresh_config, next, until};

const SOON: Duration = Duration::from_secs(10);

async fn herd(config: &SessionConfig) -> (Member, Member, Session) {
    let (m, w) = (master(config, "m"), worker(config, "w"));
    let session = connect(config).await;
    until("the herd is there", async || {
        children(&session, "/workers").await.len() == 1 && children(&session, "/master").await.len() == 1
    })
    .await;
    (m, w, session)
}

/// A sealed job of so many tasks.
async fn job(config: &SessionConfig, kind: &str, payload: &str, tasks: usize) -> (Job, Results) {
    let (job, results) = open(config, JobSpec::new(kind), &mut rand::rng()).await.expect("opened");
    for _ in 0..tasks {
        job.submit(payload.into()).await.expect("submitted");
    }
    job.seal().await.expect("sealed");
    (job, results)
}

async fn delete(session: &Session, path: &str) {
    session.write(Op::Delete { path: path.to_owned(), version: None }).await.expect("deleted");
}

/// `/data/<job>` with all that is in it.
async fn delete_data(session: &Session, job: &JobId) {
    until("it is gone", async || {
        let names = children(session, &job.data_path()).await;
        let mut paths: Vec<String> = names.iter().map(|name| format!("{}/{name}", job.data_path())).collect();
        paths.push(job.data_path());
        let ops: Vec<Op> = paths.into_iter().map(|path| Op::Delete { path, version: None }).collect();
        session.multi(&ops).await.is_ok() // else somebody has added or removed something
    })
    .await;
}

fn is_lost(finished: &Finished) -> bool {
    finished.status == FinishedStatus::Lost
        && finished.error.as_deref().is_some_and(|error| error.contains("by hand") && error.contains("/tasks/"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_whose_znode_is_deleted_is_lost_and_its_submitter_is_told() {
    let config = fresh_config();
    let (_m, _w, session) = herd(&config).await;
    let (job, mut results) = job(&config, "nobody", "x", 2).await;
    let lost = job.id().task(1);
    delete(&session, &lost.path()).await;
    let told = next(&mut results).await.expect("it has ended");
    assert!(is_lost(&told) && told.task == lost.to_string(), "{told:?}");
    let client = Client::connect(&config).await.expect("connected");
    let rest = Selected { job: job.id().clone(), tasks: None };
    assert_eq!(client.cancel(&rest, "enough").await.expect("cancelled"), 1);
    assert_eq!(next(&mut results).await.expect("an outcome").status, FinishedStatus::Cancelled);
    until("its payload is collected", async || session.get(&lost.data_path()).await == Ok(None)).await;
    assert_eq!(next(&mut results).await, None, "and the job closed");
    assert_eq!(session.get(&job.id().path()).await, Ok(None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_task_whose_znode_is_deleted_is_lost_too() {
    let config = fresh_config();
    let (_m, _w, session) = herd(&config).await;
    let (job, mut results) = job(&config, "sleep", "100", 1).await;
    let (client, whole) =
        (Client::connect(&config).await.expect("connected"), Selected { job: job.id().clone(), tasks: None });
    until("it runs", async || client.info(&whole).await.expect("it is there").counts() == [("assigned", 1)].into())
        .await;
    delete(&session, &job.id().task(0).path()).await;
    assert!(is_lost(&next(&mut results).await.expect("it has ended")));
    assert_eq!(next(&mut results).await, None, "closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_asks_for_a_job_that_has_lost_a_task_is_told_and_can_clear_it_away() {
    let config = fresh_config();
    let (_m, _w, session) = herd(&config).await;
    for command in ["results", "forget"] {
        let (job, results) = job(&config, "nobody", "x", 2).await;
        let (id, lost) = (job.id().clone(), job.id().task(0));
        results.leave().await.expect("left");
        delete(&session, &lost.path()).await;
        let mut client = Client::connect(&config).await.expect("connected");
        let whole = Selected { job: id.clone(), tasks: None };
        let info = client.info(&whole).await.expect("it is there");
        assert_eq!(info.counts(), [("lost", 1), ("waiting", 1)].into());
        let reasons = client.explain(&whole).await.expect("it is there");
        assert!(reasons.iter().any(|reason| reason.contains("task 0 was lost by hand")), "{reasons:?}");
        client.cancel(&Selected { job: id.clone(), tasks: Some(1..=1) }, "enough").await.expect("cancelled");
        let tally = tokio::time::timeout(SOON, client.wait(&id, |_| {})).await.expect("soon").expect("it is there");
        assert_eq!((tally.done, tally.failed, tally.lost), (0, 2, 1));
        if command == "forget" {
            assert_eq!(client.forget(&whole).await.expect("forgotten"), 2);
        } else {
            for keep in [true, false] {
                let mut seen = Vec::new();
                let take = |some: &[Finished]| {
                    seen.extend_from_slice(some);
                    Ok(())
                };
                let tally = client.results(&id, keep, false, take).await.expect("readable");
                assert_eq!((tally.failed, tally.lost), (2, 1));
                assert_eq!(seen.iter().filter(|finished| is_lost(finished)).count(), 1, "{seen:?}");
            }
        }
        assert_eq!(session.get(&id.path()).await, Ok(None), "{command}: it is closed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_whose_payloads_are_deleted_are_dead_and_nobody_waits_for_them() {
    let config = fresh_config();
    let (_m, _w, session) = herd(&config).await;
    for whole in [false, true] {
        // Four run, and as many wait.
        let (job, results) = job(&config, "sleep", "2", 8).await;
        let (id, client) = (job.id().clone(), Client::connect(&config).await.expect("connected"));
        let selected = Selected { job: id.clone(), tasks: None };
        until("four run", async || {
            client.info(&selected).await.expect("it is there").counts().get("assigned") == Some(&4)
        })
        .await;
        if whole {
            delete_data(&session, &id).await;
        } else {
            delete(&session, &id.task(7).data_path()).await;
        }
        let ended = tokio::time::timeout(SOON, all(results)).await.expect("nobody waits for ever");
        assert_eq!(ended.len(), 8, "{ended:?}");
        let dead = ended.iter().filter(|finished| finished.status == FinishedStatus::Dead).count();
        assert!(if whole { dead >= 4 } else { dead == 1 }, "{ended:?}");
        client.forget(&selected).await.expect("forgotten");
        assert_eq!(session.get(&id.path()).await, Ok(None));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_whose_data_somebody_has_set_can_be_cancelled_and_forgotten() {
    let config = fresh_config();
    let session = connect(&config).await;
    for led in [false, true] {
        // Without it the roots are there at least.
        let mut leader = Some(master(&config, "m"));
        until("it leads", async || children(&session, "/master").await.len() == 1).await;
        if let Some(leader) = leader.take_if(|_| !led) {
            leader.stop().await;
        }
        for command in ["cancel one", "cancel", "forget"] {
            let (job, results) = job(&config, "nobody", "x", 2).await;
            let id = job.id().clone();
            results.leave().await.expect("left");
            let data = b"not of the protocol".to_vec();
            session.write(Op::Set { path: id.task(0).data_path(), data, version: None }).await.expect("set");
            let client = Client::connect(&config).await.expect("connected");
            let whole = Selected { job: id.clone(), tasks: None };
            let done = async {
                match command {
                    "forget" => return client.forget(&whole).await,
                    "cancel one" => {
                        client.cancel(&Selected { job: id.clone(), tasks: Some(0..=0) }, "enough").await?;
                        assert_eq!(session.get(&id.task(0).path()).await, Ok(None), "led: {led}");
                    }
                    _ => {}
                }
                client.cancel(&whole, "enough").await
            };
            let done = tokio::time::timeout(SOON, done).await;
            done.unwrap_or_else(|_| panic!("led: {led}, {command} hangs")).expect("done");
            assert_eq!(children(&session, &id.path()).await, [""; 0], "led: {led}, {command}");
            if command == "forget" {
                assert_eq!(session.get(&id.path()).await, Ok(None), "led: {led}");
            } else {
                let node = session.get(&id.task(0).data_path()).await.expect("readable").expect("it is there");
                assert_eq!(node.data, b"not of the protocol", "it stays as it is");
            }
        }
        if let Some(leader) = leader {
            leader.stop().await;
        }
    }
}
