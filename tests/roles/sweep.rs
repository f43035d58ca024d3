//! What nobody came for is removed, however much of it there is.

use std::time::{Duration, Instant};

use coordination::{Op, Session, SessionConfig};
use herdsman::client::{JobSpec, open};
use tree::{JobRecord, Outcome, OutcomeStatus, Policy, TaskState, Withdrawn};

use crate::support::herd::{Member, master, master_with_retention, worker};
use crate::support::{all, children, connect, fresh_config, node, until};

/// A master that keeps nothing, and leads.
async fn sweeping(config: &SessionConfig) -> (Member, Session) {
    let m = master_with_retention(config, "m", Duration::ZERO);
    let session = connect(config).await;
    until("it leads", async || children(&session, "/master").await.len() == 1).await;
    (m, session)
}

fn create(path: String, data: Vec<u8>) -> Op {
    Op::Create { path, data }
}

async fn make(session: &Session, job: &str, children: Vec<Op>) {
    let record = JobRecord::new("echo", vec![], Policy::default()).to_json();
    let job = [create(format!("/tasks/{job}"), record), create(format!("/data/{job}"), Vec::new())];
    session.multi(&[job.to_vec(), children].concat()).await.expect("created");
}

/// Outcomes of so many tasks.
async fn store(session: &Session, job: &str, count: usize) {
    for some in (0..count).collect::<Vec<_>>().chunks(200) {
        let path = |n: &usize| format!("/data/{job}/{n:010}");
        let made = some.iter().map(|n| create(path(n), Vec::new()));
        let set = some.iter().map(|n| Op::Set { path: path(n), data: b"{}".to_vec(), version: Some(0) });
        session.multi(&made.chain(set).collect::<Vec<_>>()).await.expect("the job is there");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_jobs_that_nobody_attends_are_gone_in_seconds() {
    let config = fresh_config();
    let (_m, session) = sweeping(&config).await;
    let outcome = Outcome::withdrawn(&Withdrawn { status: OutcomeStatus::Cancelled, reason: "no more".to_owned() });
    for n in 0..100 {
        let stored = |t: usize| format!("/data/j-{n}/{t:010}");
        let made = (0..3).map(|t| create(stored(t), Vec::new()));
        let set = (0..3).map(|t| Op::Set { path: stored(t), data: outcome.to_json(), version: Some(0) });
        make(&session, &format!("j-{n}"), made.chain(set).collect()).await;
    }
    let began = Instant::now();
    until("all are swept", async || children(&session, "/data").await.is_empty()).await;
    assert!(children(&session, "/tasks").await.is_empty());
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_cannot_be_swept_keeps_no_other_from_it() {
    let config = fresh_config();
    let (_m, session) = sweeping(&config).await;
    let strays = (0..201).map(|n| create(format!("/data/stuck/stray-{n}"), b"not of the protocol".to_vec()));
    make(&session, "stuck", strays.collect()).await;
    until("it is looked at", async || {
        JobRecord::from_json(&node(&session, "/tasks/stuck").await.data).expect("valid").sealed
    })
    .await;
    make(&session, "large", Vec::new()).await;
    // Its outcomes are more than one round removes.
    store(&session, "large", 2_400).await;
    let dead = TaskState { dead: true, ..TaskState::default() }.to_json();
    let (task, data) = ("/tasks/other/0000000000".to_owned(), "/data/other/0000000000".to_owned());
    let set = Op::Set { path: task.clone(), data: dead, version: Some(0) };
    make(&session, "other", vec![create(task, Vec::new()), create(data, b"payload".to_vec()), set]).await;
    // Somebody's hand has deleted its task.
    make(&session, "lost", vec![create("/data/lost/0000000000".to_owned(), b"payload".to_vec())]).await;
    make(&session, "last", Vec::new()).await;
    until("the others are swept", async || children(&session, "/tasks").await == ["stuck"]).await;
    assert_eq!(children(&session, "/data").await, ["stuck"]);
    assert_eq!(children(&session, "/data/stuck").await.len(), 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_kept_for_a_job_in_its_spill_directory_is_swept_with_it() {
    let config = fresh_config();
    let (_m, session) = sweeping(&config).await;
    let _w = worker(&config, "w");
    let folder = tempfile::tempdir().expect("a folder");
    for attached in [false, true] {
        let policy = Policy { attached, ..Policy::default() };
        let spec = JobSpec { spill: Some(folder.path().to_owned()), policy, ..JobSpec::new("echo") };
        let (job, results) = open(&config, spec, &mut rand::rng()).await.expect("opened");
        job.submit(vec![b'x'; 300_000]).await.expect("submitted");
        assert_eq!(std::fs::read_dir(folder.path()).expect("readable").count(), 1, "its payload is there");
        drop(job);
        results.leave().await.expect("left");
        until("it is swept", async || children(&session, "/tasks").await.is_empty()).await;
        until("its files too", async || std::fs::read_dir(folder.path()).expect("readable").count() == 0).await;
    }
    // What a client collects, it removes itself.
    let spec = JobSpec { spill: Some(folder.path().to_owned()), ..JobSpec::new("echo") };
    let (job, results) = open(&config, spec, &mut rand::rng()).await.expect("opened");
    job.submit(vec![b'x'; 300_000]).await.expect("submitted");
    job.seal().await.expect("sealed");
    assert!(all(results).await[0].is_done());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_comes_while_the_leader_sweeps_finds_what_it_came_for() {
    let config = fresh_config();
    let first = master(&config, "first");
    let session = connect(&config).await;
    until("the roots are there", async || children(&session, "/master").await.len() == 1).await;
    first.stop().await;
    // One round is about all of these, and takes its time.
    for n in 0..20 {
        make(&session, &format!("j-{n}"), Vec::new()).await;
        store(&session, &format!("j-{n}"), 1_000).await;
    }
    make(&session, "wanted", Vec::new()).await;
    store(&session, "wanted", 3).await;
    let _m = master_with_retention(&config, "m", Duration::ZERO);
    until("it sweeps", async || JobRecord::from_json(&node(&session, "/tasks/j-0").await.data).expect("valid").sealed)
        .await;
    let (path, data) = ("/tasks/wanted/client-0badcafe".to_owned(), Vec::new());
    session.write(Op::CreateEphemeral { path: path.clone(), data, sequential: false }).await.expect("attended");
    until("the others are swept", async || children(&session, "/tasks").await == ["wanted"]).await;
    assert_eq!(children(&session, "/data/wanted").await.len(), 3);
    session.write(Op::Delete { path, version: None }).await.expect("it leaves");
    until("this one too", async || children(&session, "/tasks").await.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn payloads_without_a_task_stay_where_the_job_cannot_be_sealed_and_where_somebody_has_set_them() {
    let config = fresh_config();
    let (_m, session) = sweeping(&config).await;
    let set = |path: &str| Op::Set { path: path.to_owned(), data: b"{}".to_vec(), version: None };
    let twice = || set("/data/twice/0000000000");
    let made = create("/data/twice/0000000000".to_owned(), b"payload".to_vec());
    make(&session, "twice", vec![made, twice(), twice()]).await;
    let broken = [
        create("/tasks/broken".to_owned(), b"not JSON".to_vec()),
        create("/data/broken".to_owned(), Vec::new()),
        create("/data/broken/0000000000".to_owned(), b"payload".to_vec()),
        create("/data/broken/0000000001".to_owned(), b"payload".to_vec()),
        set("/data/broken/0000000001"),
    ];
    session.multi(&broken).await.expect("made");
    make(&session, "sealed", vec![create("/data/sealed/0000000000".to_owned(), b"payload".to_vec())]).await;
    until("outcomes and lost payloads are swept", async || {
        children(&session, "/data/broken").await.len() < 2 && children(&session, "/data").await == ["broken", "twice"]
    })
    .await;
    assert_eq!(children(&session, "/data/broken").await, ["0000000000"]);
    assert_eq!(children(&session, "/data/twice").await, ["0000000000"]);
}
