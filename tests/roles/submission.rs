//! Submissions in large batches, through a line that loses replies.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::future::join_all;
use herdsman::audit::{Ending, audit};
use herdsman::coordination::SessionConfig;
use herdsman::faults::cut_replies::CutReplies;
use herdsman::faults::line::Line;
use herdsman::handlers::Handlers;
use herdsman::roles::client::{JobSpec, open};
use tokio::time::timeout;

use crate::support::herd::{Member, master, worker_with};
use crate::support::{children, connect, fresh_config, server_folder, through, until, zookeeper};

/// From one outcome to the next.
const SOON: Duration = Duration::from_secs(5);

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
        while let Some(finished) = timeout(SOON, results.next()).await.expect("soon").expect("the herd lives") {
            assert!(finished.is_done(), "{finished:?}");
            assert!(seen.insert(finished.task.clone()), "{finished:?} came twice");
        }
        seen
    };
    let ((), seen) = tokio::join!(submitted, received);
    assert_eq!((seen.len(), line.replies_cut()), (tasks, 1));
    w.stop().await;
    m.stop().await;
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
