//! Clients behind a line that loses replies.

use std::collections::BTreeSet;
use std::time::Duration;

use audit::{Ending, audit};
use coordination::SessionConfig;
use futures::future::join_all;
use herdsman::client::{Client, ClientError, JobSpec, Selected, open};
use herdsman::handlers::Handlers;
use lab::{cut_replies::CutReplies, line::Line};
use tree::Policy;

use crate::support::herd::{Member, master, worker_with};
use crate::support::{children, connect, fresh_config, next, server_folder, through, until, zookeeper};

async fn herd(config: &SessionConfig, slots: u32) -> (Member, Member) {
    let herd = (master(config, "m"), worker_with(config, "w", slots, Handlers::builtin(), Duration::from_secs(10)));
    let session = connect(config).await;
    until("the herd is there", async || {
        children(&session, "/workers").await.len() == 1 && children(&session, "/master").await.len() == 1
    })
    .await;
    herd
}

/// The tasks are all submitted at once, the reply to the batch that holds most of them is lost, and they end while that is
/// being settled. The auditor finds every rule kept, and each outcome comes soon and once.
async fn end_while_their_submission_is_settled(kind: &str, payload: &str, tasks: usize) {
    let config = fresh_config();
    let (m, w) = herd(&config, 32).await;
    let line = Line::to(zookeeper()).await.expect("a port");
    let (job, mut results) =
        open(&through(&line, &config), JobSpec::new(kind), &mut rand::rng()).await.expect("opened");
    // The first ones leave at once, and the others gather while they are under way.
    line.delay(Duration::from_millis(50));
    line.schedule(CutReplies::new([1], 20_000));
    let submissions = join_all((0..tasks).map(|_| job.submit(payload.into())));
    let submitted = async {
        submissions.await.into_iter().for_each(|task| drop(task.expect("acknowledged")));
        job.seal().await.expect("sealed");
    };
    let received = async {
        let mut seen = BTreeSet::new();
        while let Some(finished) = next(&mut results).await {
            assert!(finished.is_done(), "{finished:?}");
            assert!(seen.insert(finished.task.clone()), "{finished:?} came twice");
        }
        seen
    };
    let ((), seen) = tokio::join!(submitted, received);
    assert_eq!((seen.len(), line.replies_cut()), (tasks, 1));
    w.stop().await;
    m.stop().await;
    assert_valid(&config, tasks);
}

fn assert_valid(config: &SessionConfig, tasks: usize) {
    let text = config.zookeeper.to_string();
    let chroot = &text[text.find('/').expect("a chroot")..];
    let verdict = audit(&[&server_folder().join("1/data")], chroot, Ending::Settled).expect("readable");
    assert_eq!((verdict.verdict, verdict.figures.submitted), ("valid", tasks), "{}", verdict.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_that_end_while_a_lost_reply_to_their_submission_is_settled_are_made_once() {
    end_while_their_submission_is_settled("sleep", "0.2", 240).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_that_have_ended_before_the_connection_is_back_are_delivered_at_once() {
    end_while_their_submission_is_settled("echo", "x", 240).await;
}

/// What a client does with a job that is not its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Command {
    Results,
    Cancel,
    Retry,
    Forget,
}

/// Every command, with the reply to its first write lost, to its second one, and so on, until it makes no more.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_succeeds_and_counts_right_whichever_of_its_replies_is_lost() {
    let config = fresh_config();
    let (_m, _w) = herd(&config, 4).await;
    let session = connect(&config).await;
    for command in [Command::Results, Command::Cancel, Command::Retry, Command::Forget] {
        for k in 1.. {
            let (kind, max_attempts) = match command {
                Command::Results | Command::Forget => ("echo", 1),
                Command::Cancel => ("nobody", 1),
                Command::Retry => ("sleep", 2),
            };
            let policy = Policy { max_attempts, ..Policy::default() };
            let (job, results) =
                open(&config, JobSpec { policy, ..JobSpec::new(kind) }, &mut rand::rng()).await.expect("opened");
            for _ in 0..3 {
                job.submit(b"soon".to_vec()).await.expect("submitted"); // which is no number of seconds
            }
            let whole = Selected { job: job.id().clone(), tasks: None };
            drop(job);
            results.leave().await.expect("left");
            let ours = Client::connect(&config).await.expect("connected");
            until("they have ended", async || match command {
                Command::Results | Command::Forget => children(&session, &whole.job.path()).await.is_empty(),
                Command::Retry => ours.dead(&whole).await.expect("readable").len() == 3,
                Command::Cancel => true,
            })
            .await;
            let line = Line::to(zookeeper()).await.expect("a port");
            let client = Client::connect(&through(&line, &config)).await.expect("connected");
            line.schedule(CutReplies::new([k], 0));
            let mut received = 0;
            let counted = match command {
                Command::Results => client
                    .results(&whole.job, false, false, |some| {
                        received += some.len();
                        Ok(())
                    })
                    .await
                    .map(|tally| tally.done),
                Command::Cancel => client.cancel(&whole, "no more").await,
                Command::Retry => client.retry(&whole).await,
                Command::Forget => client.forget(&whole).await,
            };
            assert_eq!(counted.ok(), Some(3), "{command:?}, reply {k}");
            match command {
                Command::Results => assert_eq!(received, 3),
                Command::Cancel => assert!(children(&session, &whole.job.path()).await.is_empty()),
                Command::Retry | Command::Forget => {}
            }
            if matches!(command, Command::Results | Command::Forget) {
                assert_eq!(session.get(&whole.job.path()).await, Ok(None), "{command:?}, reply {k}: it is closed");
            } else {
                ours.forget(&whole).await.expect("forgotten");
            }
            if line.replies_cut() == 0 {
                assert!(k > 1, "{command:?} writes something");
                break;
            }
        }
    }
}

/// A job from its opening to its close, with the reply to its first write lost, to its second one, and so on.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_submitted_delivered_and_closed_whichever_of_its_replies_is_lost() {
    let config = fresh_config();
    let (m, w) = herd(&config, 4).await;
    let line = Line::to(zookeeper()).await.expect("a port");
    let mut rounds = 0;
    loop {
        rounds += 1;
        line.schedule(CutReplies::new([rounds], 0));
        let before = line.replies_cut();
        let (job, mut results) =
            open(&through(&line, &config), JobSpec::new("echo"), &mut rand::rng()).await.expect("opened");
        for n in 0..3 {
            job.submit(vec![b'0' + n]).await.expect("acknowledged");
            assert_eq!(next(&mut results).await.map(|finished| finished.result), Some(n.to_string().into()));
        }
        job.seal().await.expect("sealed");
        assert_eq!(next(&mut results).await, None);
        if line.replies_cut() == before {
            break;
        }
    }
    assert!(rounds > 8, "open, three submissions, three removals, seal, close: {rounds}");
    w.stop().await;
    m.stop().await;
    assert_valid(&config, rounds * 3);
}

/// What was submitted, though its answer was lost and the job sealed by somebody else since, is acknowledged and delivered.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_is_in_the_tree_is_acknowledged_though_somebody_sealed_the_job_before_that_was_known() {
    let config = fresh_config();
    let (_m, _w) = herd(&config, 32).await;
    let line = Line::to(zookeeper()).await.expect("a port");
    let (job, mut results) =
        open(&through(&line, &config), JobSpec::new("sleep"), &mut rand::rng()).await.expect("opened");
    line.delay(Duration::from_millis(50)); // so that they gather
    line.schedule(CutReplies::new([1], 10_000));
    let submissions = join_all((0..120).map(|_| job.submit(b"1".to_vec())));
    let sealing = async {
        until("the reply is cut off", async || line.replies_cut() == 1).await;
        line.cut();
        let other = Client::connect(&config).await.expect("connected");
        other.results(job.id(), true, true, |_| Ok(())).await.expect("sealed");
        line.mend();
    };
    let (submitted, ()) = tokio::join!(submissions, sealing);
    let (acknowledged, refused): (Vec<_>, Vec<_>) = submitted.into_iter().partition(Result::is_ok);
    assert!(refused.iter().all(|error| matches!(error, Err(ClientError::Sealed(_)))), "{refused:?}");
    assert!(acknowledged.len() > 30, "the batch that was cut off had more: {}", acknowledged.len());
    let mut delivered = 0;
    while let Some(finished) = next(&mut results).await {
        assert!(finished.is_done(), "{finished:?}");
        delivered += 1;
    }
    assert_eq!(delivered, acknowledged.len());
    let session = connect(&config).await;
    assert_eq!(session.get(&job.id().path()).await, Ok(None), "nothing was left in it, so it is closed");
}
