//! Whole jobs that end without being done: cancelled, out of time, forgotten. Nobody else's task waits for that.

use std::time::{Duration, Instant};

use audit::{Ending, audit};
use coordination::SessionConfig;
use futures::future::join_all;
use herdsman::client::{Client, JobSpec, Selected, open};
use tree::{JobId, Policy};

use crate::support::herd::{Member, master, worker};
use crate::support::{all, children, connect, fresh_config, refused_below, server_folder, until};

/// How long another job's task may take meanwhile, on a machine that is busy with other tests; the bench measures it.
const DELAY_MAX: Duration = Duration::from_secs(3);
const TASKS: usize = 2_000;

async fn herd(config: &SessionConfig) -> (Member, Member) {
    let herd = (master(config, "m"), worker(config, "w"));
    let session = connect(config).await;
    until("the herd is there", async || {
        children(&session, "/workers").await.len() == 1 && children(&session, "/master").await.len() == 1
    })
    .await;
    herd
}

/// A job that nobody can run, without its client.
async fn waiting(config: &SessionConfig, policy: Policy) -> Selected {
    let (job, results) =
        open(config, JobSpec { policy, ..JobSpec::new("nobody") }, &mut rand::rng()).await.expect("opened");
    join_all((0..TASKS).map(|_| job.submit(b"0".to_vec()))).await.into_iter().for_each(|task| drop(task.expect("in")));
    job.seal().await.expect("sealed");
    results.leave().await.expect("left");
    Selected { job: job.id().clone(), tasks: None }
}

/// One task of another job, again and again while `meanwhile` holds: the longest that one took.
async fn slowest(config: &SessionConfig, mut meanwhile: impl AsyncFnMut() -> bool) -> Duration {
    let mut slowest = Duration::ZERO;
    loop {
        let began = Instant::now();
        let (job, results) = open(config, JobSpec::new("echo"), &mut rand::rng()).await.expect("opened");
        job.submit(b"hi".to_vec()).await.expect("submitted");
        job.seal().await.expect("sealed");
        assert_eq!(all(results).await.len(), 1);
        slowest = slowest.max(began.elapsed());
        if !meanwhile().await {
            return slowest;
        }
    }
}

async fn tasks_left(config: &SessionConfig, job: &JobId) -> bool {
    !children(&connect(config).await, &job.path()).await.is_empty()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_of_thousands_is_cancelled_by_one_of_client_and_leader_and_nobody_waits_for_it() {
    let config = fresh_config();
    let _herd = herd(&config).await;
    let whole = waiting(&config, Policy::default()).await;
    let client = Client::connect(&config).await.expect("connected");
    let before = refused_below(&config);
    let cancelling = async { client.cancel(&whole, "no more").await.expect("cancelled") };
    let (cancelled, slowest) =
        tokio::join!(cancelling, slowest(&config, async || tasks_left(&config, &whole.job).await));
    assert_eq!(cancelled, TASKS);
    assert!(slowest < DELAY_MAX, "{slowest:?}");
    let refused = refused_below(&config) - before;
    assert!(refused < 20, "{refused} transactions were refused");
    let text = config.zookeeper.to_string();
    let chroot = &text[text.find('/').expect("a chroot")..];
    let verdict = audit(&[&server_folder().join("1/data")], chroot, Ending::Settled).expect("readable");
    assert_eq!((verdict.verdict, verdict.figures.cancelled), ("valid", TASKS), "{}", verdict.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_of_thousands_that_runs_out_of_time_or_is_forgotten_holds_nobody_up() {
    let config = fresh_config();
    let _herd = herd(&config).await;
    let now_ms = std::time::UNIX_EPOCH.elapsed().expect("after 1970").as_millis() as i64;
    let policy = Policy { deadline_ms: Some(now_ms + 3_000), ..Policy::default() };
    let timed = waiting(&config, policy).await;
    let slow = slowest(&config, async || tasks_left(&config, &timed.job).await).await;
    assert!(slow < DELAY_MAX, "{slow:?}");
    let client = Client::connect(&config).await.expect("connected");
    let forgetting = async { client.forget(&timed).await.expect("forgotten") };
    let again = waiting(&config, Policy::default()).await;
    let both = async { (forgetting.await, client.forget(&again).await.expect("forgotten")) };
    let session = connect(&config).await;
    let until_gone = async || !children(&session, "/data").await.is_empty();
    let (forgotten, slow) = tokio::join!(both, slowest(&config, until_gone));
    assert_eq!(forgotten, (TASKS, TASKS));
    assert!(slow < DELAY_MAX, "{slow:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_cancelled_also_where_no_master_is() {
    let config = fresh_config();
    let (m, _w) = herd(&config).await;
    let whole = waiting(&config, Policy::default()).await;
    m.stop().await;
    let client = Client::connect(&config).await.expect("connected");
    assert_eq!(client.cancel(&whole, "no more").await.expect("cancelled"), TASKS);
    assert!(!tasks_left(&config, &whole.job).await);
}
