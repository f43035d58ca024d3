use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use coordination::{Failure, Op, SessionConfig};
use futures::future::join_all;
use herdsman::client::{Client, ClientError, Finished, FinishedStatus, JobSpec, Limit, Selected, WhenFull, open};
use lab::line::{Line, MULTI};
use tokio::runtime::Handle;
use tokio::task::block_in_place;
use tree::{DATA_BYTES_MAX, JobId, TaskId};

use crate::support::herd::{master, worker};
use crate::support::{all, children, connect, fresh_config, next, through, try_next, until, zookeeper};

/// A herd of one master and one worker, registered.
async fn herd(config: &SessionConfig) -> impl Sized {
    let members = (master(config, "m"), worker(config, "w"));
    let session = connect(config).await;
    until("the herd is there", async || {
        children(&session, "/workers").await.len() == 1 && children(&session, "/master").await.len() == 1
    })
    .await;
    members
}

#[tokio::test(flavor = "multi_thread")]
async fn submissions_whose_replies_are_lost_are_made_once_each() {
    let config = fresh_config();
    let _herd = herd(&config).await;
    let line = Line::to(zookeeper()).await.expect("a port");
    line.cut_reply_to(MULTI); // the open itself
    let (job, results) = open(&through(&line, &config), JobSpec::new("echo"), &mut rand::rng()).await.expect("opened");
    for round in 0..3 {
        line.cut_reply_to(MULTI);
        let submitted = join_all((0..100).map(|n| job.submit(format!("{round}-{n}").into_bytes()))).await;
        submitted.into_iter().for_each(|task| drop(task.expect("acknowledged")));
    }
    job.seal().await.expect("sealed");
    let mut seen = BTreeSet::new();
    for finished in all(results).await {
        assert!(seen.insert(finished.result.to_string()), "{finished:?} came twice");
    }
    assert_eq!(seen.len(), 300);
    assert_eq!(line.replies_cut(), 4);
    assert!(children(&connect(&config).await, "/tasks").await.is_empty(), "and the one job is closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_submitter_whose_session_ends_rejoins_and_loses_nothing() {
    let config = fresh_config();
    let _herd = herd(&config).await;
    let line = Line::to(zookeeper()).await.expect("a port");
    let (job, results) = open(&through(&line, &config), JobSpec::new("echo"), &mut rand::rng()).await.expect("opened");
    let first = join_all((0..50).map(|n| job.submit(format!("a{n}").into_bytes()))).await;
    assert!(first.iter().all(Result::is_ok));
    line.cut();
    let submit = join_all((0..50).map(|n| job.submit(format!("b{n}").into_bytes())));
    let observer = connect(&config).await;
    let outage = async {
        until("the server has expired the session", async || {
            children(&observer, &job.id().path()).await.iter().all(|name| name.parse::<u32>().is_ok())
        })
        .await;
        line.mend();
    };
    let (second, ()) = tokio::join!(submit, outage);
    assert!(second.iter().all(Result::is_ok));
    job.seal().await.expect("sealed");
    let mut seen = BTreeSet::new();
    for finished in all(results).await {
        assert!(finished.is_done());
        assert!(seen.insert(finished.result.to_string()), "{finished:?} came twice");
    }
    assert_eq!(seen.len(), 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_sealed_by_somebody_else_takes_no_more_and_delivers_what_it_has() {
    let config = fresh_config();
    let _herd = herd(&config).await;
    let (job, mut results) = open(&config, JobSpec::new("echo"), &mut rand::rng()).await.expect("opened");
    let id = job.id().clone();
    job.submit(b"mine".to_vec()).await.expect("submitted");
    let other = Client::connect(&config).await.expect("connected");
    let refused = other.results(job.id(), false, false, |_| Ok(())).await.expect_err("not sealed");
    assert!(matches!(refused, ClientError::NotSealed(_)));
    let peeked = other.results(job.id(), true, false, |_| Ok(())).await.expect("looking is free");
    assert!(!peeked.sealed);
    let mut taken = 0;
    until("the other takes it over and gets the outcome", async || {
        other
            .results(job.id(), false, true, |some| {
                taken += some.len();
                Ok(())
            })
            .await
            .is_ok()
            && taken == 1
    })
    .await;
    let refused = job.submit(b"late".to_vec()).await.expect_err("sealed or closed");
    assert!(
        matches!(
            refused,
            ClientError::Sealed(_) | ClientError::NotFound(_) | ClientError::Failed(Failure::SessionOver(_))
        ),
        "{refused:?}"
    );
    // Ours was shown the outcome too, before it was collected, or is told that the job is gone; it is never told that all is well.
    drop(job);
    let mut shown = 0;
    let ended = loop {
        match try_next(&mut results).await {
            Ok(Some(finished)) => {
                assert!(matches!(finished.status, FinishedStatus::Done | FinishedStatus::Gone), "{finished:?}");
                shown += 1;
            }
            ended => break ended,
        }
    };
    assert!(shown <= 1, "{shown} of one task");
    match ended {
        Ok(_) => assert_eq!(shown, 1),
        Err(error) => assert!(matches!(&error, ClientError::NotFound(job) if *job == id), "{error:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outcome_that_somebody_else_collected_meanwhile_is_told_of_and_not_passed_over() {
    let config = fresh_config();
    let _m = master(&config, "m");
    let session = connect(&config).await;
    until("the roots are there", async || session.get("/data").await.expect("readable").is_some()).await;
    let line = Line::to(zookeeper()).await.expect("a port");
    let (job, mut results) =
        open(&through(&line, &config), JobSpec::new("echo"), &mut rand::rng()).await.expect("opened");
    job.submit(b"mine".to_vec()).await.expect("submitted");
    line.cut();
    let _w = worker(&config, "w");
    let (other, mut taken) = (Client::connect(&config).await.expect("connected"), 0);
    until("the other takes it over and closes it", async || {
        let count = |some: &[Finished]| {
            taken += some.len();
            Ok(())
        };
        other.results(job.id(), false, true, count).await.is_ok() && taken == 1
    })
    .await;
    line.mend();
    match try_next(&mut results).await {
        Ok(told) => assert_eq!(told.map(|task| task.status), Some(FinishedStatus::Gone)),
        Err(told) => assert!(matches!(&told, ClientError::NotFound(gone) if gone == job.id()), "{told:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_oversized_payload_is_refused_and_its_neighbours_are_done() {
    let config = fresh_config();
    let _herd = herd(&config).await;
    let (job, results) = open(&config, JobSpec::new("echo"), &mut rand::rng()).await.expect("opened");
    let (small, large, largest) = tokio::join!(
        job.submit(b"small".to_vec()),
        job.submit(vec![b'x'; DATA_BYTES_MAX + 1]),
        job.submit(vec![b'x'; DATA_BYTES_MAX]),
    );
    assert!(small.is_ok() && largest.is_ok());
    let error = large.expect_err("too large").to_string();
    assert!(error.contains("524289") && error.contains("524288"), "{error}");
    job.seal().await.expect("sealed");
    let statuses: Vec<_> = all(results).await.into_iter().map(|finished| (finished.status, finished.error)).collect();
    assert_eq!(statuses.len(), 2);
    let failed = statuses.iter().find(|(status, _)| *status == FinishedStatus::Failed).expect("its echo is too large");
    assert!(failed.1.as_deref().is_some_and(|e| e.contains("the outcome has")), "{failed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_outlives_its_client_and_anybody_can_wait_for_it_and_collect_it_once() {
    let config = fresh_config();
    let _herd = herd(&config).await;
    let (job, results) = open(&config, JobSpec::new("sleep"), &mut rand::rng()).await.expect("opened");
    for _ in 0..8 {
        job.submit(b"0.2".to_vec()).await.expect("submitted");
    }
    let id = job.id().clone();
    drop(job); // which seals
    results.leave().await.expect("left");
    let mut client = Client::connect(&config).await.expect("connected");
    let mut most = 0;
    let tally = client.wait(&id, |tally| most = most.max(tally.outstanding)).await.expect("waited");
    assert_eq!((tally.done, tally.failed, tally.outstanding), (8, 0, 0));
    assert!(most > 0, "progress was shown");
    // Two at once, each of which has read everything before the other removes anything: both are shown all, and get through.
    let reached = Arc::new(AtomicUsize::new(0));
    let collect = |client: Client| {
        let (id, reached, mut shown) = (id.clone(), reached.clone(), 0);
        tokio::spawn(async move {
            let meet = |some: &[Finished]| {
                shown += some.len();
                reached.fetch_add(1, Ordering::SeqCst);
                block_in_place(|| {
                    Handle::current()
                        .block_on(until("both have read all", async || reached.load(Ordering::SeqCst) == 2))
                });
                Ok(())
            };
            let tally = client.results(&id, false, false, meet).await;
            (tally.expect("it gets through").done, shown)
        })
    };
    let other = Client::connect(&config).await.expect("connected");
    let (a, b) = tokio::join!(collect(client), collect(other));
    assert_eq!((a.expect("no panic"), b.expect("no panic")), ((8, 8), (8, 8)));
    let client = Client::connect(&config).await.expect("connected");
    let gone = client.results(&id, false, false, |_| Ok(())).await.expect_err("closed");
    assert!(matches!(gone, ClientError::NotFound(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_survives_the_end_of_its_session() {
    let config = fresh_config();
    let _herd = herd(&config).await;
    let (job, results) = open(&config, JobSpec::new("sleep"), &mut rand::rng()).await.expect("opened");
    job.submit(b"6".to_vec()).await.expect("submitted");
    let id = job.id().clone();
    drop(job);
    results.leave().await.expect("left");
    let line = Line::to(zookeeper()).await.expect("a port");
    let mut client = Client::connect(&through(&line, &config)).await.expect("connected");
    let mark = Op::CreateEphemeral { path: "/session".to_owned(), data: Vec::new(), sequential: false };
    client.session().write(mark).await.expect("created");
    let waiting = tokio::spawn(async move { client.wait(&id, |_| {}).await });
    line.cut();
    let observer = connect(&config).await;
    until("the server has expired the session", async || observer.get("/session").await == Ok(None)).await;
    line.mend();
    assert_eq!(waiting.await.expect("no panic").expect("waited").done, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_waits_waits_for_a_dead_task_that_is_retried_too() {
    let config = fresh_config();
    let _m = master(&config, "m");
    let session = connect(&config).await;
    until("the roots are there", async || session.get("/data").await.expect("readable").is_some()).await;
    let (job, results) = open(&config, JobSpec::new("nobody"), &mut rand::rng()).await.expect("opened");
    let (dead, long) =
        (job.submit(Vec::new()).await.expect("submitted"), job.submit(Vec::new()).await.expect("submitted"));
    let state = br#"{"attempt":1,"failures":1,"dead":true}"#.to_vec();
    session.write(Op::Set { path: dead.path(), data: state, version: None }).await.expect("set");
    drop(job);
    results.leave().await.expect("left");
    let client = Client::connect(&config).await.expect("connected");
    let one = |task: &TaskId| Selected { job: task.job.clone(), tasks: Some(task.n..=task.n) };
    let outstanding = Arc::new(AtomicUsize::new(0));
    let now = async |wanted: usize| {
        until("so many are waited for", async || outstanding.load(Ordering::SeqCst) == wanted).await;
    };
    let (mut waiter, seen, id) =
        (Client::connect(&config).await.expect("connected"), outstanding.clone(), dead.job.clone());
    let waiting =
        tokio::spawn(async move { waiter.wait(&id, |tally| seen.store(tally.outstanding, Ordering::SeqCst)).await });
    now(1).await;
    assert_eq!(client.retry(&one(&dead)).await.expect("retried"), 1);
    now(2).await;
    assert_eq!(client.cancel(&one(&long), "enough").await.expect("cancelled"), 1);
    now(1).await;
    assert!(!waiting.is_finished(), "the other one waits still");
    assert_eq!(client.cancel(&one(&dead), "enough").await.expect("cancelled"), 1);
    assert_eq!(waiting.await.expect("no panic").expect("waited").failed, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_cancelled_in_whatever_state_its_tasks_are_and_forgotten_with_all_that_is_in_it() {
    let config = fresh_config();
    let _herd = herd(&config).await;
    let (job, results) = open(&config, JobSpec::new("sleep"), &mut rand::rng()).await.expect("opened");
    for seconds in ["0", "0", "100", "100", "100", "100", "100", "100"] {
        job.submit(seconds.into()).await.expect("submitted");
    }
    let id = job.id().clone();
    drop(job);
    results.leave().await.expect("left");
    let session = connect(&config).await;
    until("two are done", async || children(&session, &id.path()).await.len() == 6).await;
    let client = Client::connect(&config).await.expect("connected");
    let whole = Selected { job: id.clone(), tasks: None };
    assert_eq!(client.cancel(&whole, "no longer wanted").await.expect("cancelled"), 6);
    let info = client.info(&whole).await.expect("it is there");
    assert_eq!(info.counts(), [("cancelled", 6), ("done", 2)].into());
    assert!(info.tasks[2..].iter().all(|task| task.error.as_deref() == Some("no longer wanted")));
    assert_eq!(client.cancel(&whole, "again").await.expect("nothing to do"), 0);
    assert_eq!(client.forget(&whole).await.expect("forgotten"), 8);
    assert!(children(&session, "/tasks").await.is_empty() && children(&session, "/data").await.is_empty());
    let missing = client.cancel(&whole, "").await.expect_err("gone");
    assert!(matches!(missing, ClientError::NotFound(_)));
    // The slots are free again.
    let (job, mut results) = open(&config, JobSpec::new("echo"), &mut rand::rng()).await.expect("opened");
    job.submit(b"next".to_vec()).await.expect("submitted");
    let next = tokio::time::timeout(Duration::from_secs(10), results.next()).await.expect("soon").expect("herd lives");
    assert!(next.expect("an outcome").is_done());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_does_not_exist_is_named() {
    let config = fresh_config();
    let _herd = herd(&config).await;
    let mut client = Client::connect(&config).await.expect("connected");
    let id = "nothing-0badcafe".parse().expect("an id");
    assert!(matches!(client.wait(&id, |_| {}).await, Err(ClientError::NotFound(_))));
    assert!(matches!(client.results(&id, true, false, |_| Ok(())).await, Err(ClientError::NotFound(_))));
}

fn at_most(tasks_max: usize, when_full: WhenFull) -> JobSpec {
    JobSpec { limit: Limit { tasks_max, when_full }, ..JobSpec::new("echo") }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_tree_refuses_a_task_and_takes_it_when_outcomes_were_collected() {
    let config = fresh_config();
    let roots = master(&config, "m");
    let session = connect(&config).await;
    until("the roots are there", async || session.get("/data").await.expect("readable").is_some()).await;
    roots.stop().await;
    let (job, mut results) = open(&config, at_most(5, WhenFull::Refuse), &mut rand::rng()).await.expect("opened");
    for n in 0..5 {
        job.submit(vec![n]).await.expect("there is room");
    }
    let refused = job.submit(vec![5]).await.expect_err("the tree is full");
    assert_eq!(refused.to_string(), "the tree holds 5 tasks, outstanding or not yet collected, and may hold 5");
    let _herd = herd(&config).await;
    for _ in 0..5 {
        next(&mut results).await.expect("an outcome");
    }
    until("there is room again", async || job.submit(vec![6]).await.is_ok()).await;
    job.seal().await.expect("sealed");
    assert!(next(&mut results).await.expect("an outcome").is_done());
    assert_eq!(next(&mut results).await, None, "closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_submitter_waits_for_room_and_the_tree_never_holds_more_than_it_may() {
    let config = fresh_config();
    let _herd = herd(&config).await;
    let (job, mut results) = open(&config, at_most(10, WhenFull::Wait), &mut rand::rng()).await.expect("opened");
    let id = job.id().clone();
    let session = connect(&config).await;
    let submitted = async {
        join_all((0..100).map(|n| job.submit(vec![n]))).await.into_iter().for_each(|task| drop(task.expect("in turn")));
        job.seal().await.expect("sealed");
    };
    let received = async {
        let mut count = 0;
        while next(&mut results).await.is_some() {
            count += 1;
            assert!(children(&session, &id.data_path()).await.len() <= 10);
        }
        count
    };
    let ((), count) = tokio::join!(submitted, received);
    assert_eq!(count, 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_would_fill_the_tree_by_itself_and_collects_nothing_is_refused_instead_of_waiting_for_ever() {
    let config = fresh_config();
    let _herd = herd(&config).await;
    let (job, results) = open(&config, at_most(10, WhenFull::Wait), &mut rand::rng()).await.expect("opened");
    let left = tokio::spawn(results.leave());
    let submitted = join_all((0..12).map(|n| job.submit(vec![n]))).await;
    let refused: Vec<_> = submitted.into_iter().filter_map(Result::err).collect();
    assert!(matches!(refused[..], [ClientError::Full { tasks_max: 10, .. }, _]), "{refused:?}");
    job.seal().await.expect("sealed");
    left.await.expect("no panic").expect("what was taken is in the tree");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_never_succeed_is_refused_and_what_is_half_there_is_removed_instead_of_being_tried_for_ever() {
    let config = fresh_config();
    let _herd = herd(&config).await;
    let session = connect(&config).await;
    let soon = Duration::from_secs(10);
    let (job, results) = open(&config, JobSpec::new("echo"), &mut rand::rng()).await.expect("opened");
    let twice = JobSpec { after: vec![job.id().clone(); 2], ..JobSpec::new("echo") };
    let later = tokio::time::timeout(soon, open(&config, twice, &mut rand::rng())).await.expect("soon");
    drop(later.expect("opened once after each"));
    let spelt = JobSpec { key: Some("a/b".to_owned()), ..JobSpec::new("echo") };
    let refused = tokio::time::timeout(soon, open(&config, spelt, &mut rand::rng())).await.expect("soon");
    assert!(refused.is_err_and(|error| error.to_string().contains("'a/b' is no key")));
    drop((job, results));
    // A job whose data somebody removed by hand.
    let client = Client::connect(&config).await.expect("connected");
    for command in ["results", "forget"] {
        let id: JobId = format!("half-{command}").parse().expect("an id");
        let sealed = br#"{"kind":"echo","sealed":true}"#.to_vec();
        session.write(Op::Create { path: id.path(), data: sealed }).await.expect("created");
        let whole = Selected { job: id.clone(), tasks: None };
        let done = tokio::time::timeout(soon, async {
            match command {
                "results" => client.results(&id, false, false, |_| Ok(())).await.map(drop),
                _ => client.forget(&whole).await.map(drop),
            }
        });
        done.await.expect("soon").expect("removed");
        assert_eq!(session.get(&id.path()).await, Ok(None));
    }
}
