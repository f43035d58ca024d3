//! Moments are ZooKeeper's, whatever the clock of the machine says on which a role runs.

use std::time::{Duration, Instant, SystemTime};

use coordination::SessionConfig;
use herdsman::client::{Client, FinishedStatus, JobSpec, Selected, open};
use tree::Policy;

use crate::support::herd::{master, worker};
use crate::support::{all, connect, fresh_config, until};

const HOUR: Duration = Duration::from_secs(3600);

fn an_hour_ahead() -> SystemTime {
    SystemTime::now() + HOUR
}

fn an_hour_behind() -> SystemTime {
    SystemTime::now() - HOUR
}

/// How one task of such a job ended, and after how long.
async fn run(config: &SessionConfig, spec: JobSpec) -> (FinishedStatus, u32, Duration) {
    let began = Instant::now();
    let (job, results) = open(config, spec, &mut rand::rng()).await.expect("opened");
    job.submit(b"0.2".to_vec()).await.expect("acknowledged");
    job.seal().await.expect("sealed");
    let finished = all(results).await;
    (finished[0].status, finished[0].attempts, began.elapsed())
}

/// A herd in which the leader, the worker and the client have these clocks.
async fn moments_are_kept(who: &str, clocks: [fn() -> SystemTime; 3]) {
    let config = fresh_config();
    let [leader, of_worker, client] = clocks.map(|wall_clock| SessionConfig { wall_clock, ..config.clone() });
    let (_m, _w) = (master(&leader, "m"), worker(&of_worker, "w"));
    let session = connect(&config).await;
    until("the herd is there", async || {
        let members = [session.children("/workers").await, session.children("/master").await];
        members.iter().all(|names| names.as_ref().is_ok_and(|names| names.as_ref().is_some_and(|n| n.len() == 1)))
    })
    .await;
    let millis = Duration::from_millis;

    let delayed = JobSpec { delay: Some(millis(700)), ..JobSpec::new("echo") };
    let in_time = JobSpec { time_limit: Some(millis(60_000)), ..JobSpec::new("sleep") };
    let args = ["sh", "-c", "sleep 60"].map(str::to_owned).to_vec();
    let late = JobSpec { args, time_limit: Some(millis(700)), ..JobSpec::new("exec") };
    let policy = Policy { max_attempts: 2, backoff_ms: 400, backoff_max_ms: 400, ..Policy::default() };
    let args = ["sh", "-c", "exit 1"].map(str::to_owned).to_vec();
    let failing = JobSpec { args, policy, ..JobSpec::new("exec") };
    let (delayed, in_time, late, failing) =
        tokio::join!(run(&client, delayed), run(&client, in_time), run(&client, late), run(&client, failing));
    assert!(delayed.0 == FinishedStatus::Done && delayed.2 >= millis(690), "{who}: {delayed:?}");
    assert_eq!(in_time.0, FinishedStatus::Done, "{who}");
    assert!(late.0 == FinishedStatus::Cancelled && late.2 >= millis(690), "{who}: {late:?}");
    assert!(failing.0 == FinishedStatus::Dead && failing.1 == 2 && failing.2 >= millis(190), "{who}: {failing:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn delays_limits_and_backoffs_are_kept_whoevers_clock_is_an_hour_off() {
    let right: fn() -> SystemTime = SystemTime::now;
    tokio::join!(
        moments_are_kept("leader ahead", [an_hour_ahead, right, right]),
        moments_are_kept("leader behind", [an_hour_behind, right, right]),
        moments_are_kept("worker ahead", [right, an_hour_ahead, right]),
        moments_are_kept("worker behind", [right, an_hour_behind, right]),
        moments_are_kept("client ahead", [right, right, an_hour_ahead]),
        moments_are_kept("client behind", [right, right, an_hour_behind]),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn whether_a_moment_has_come_is_told_by_zookeepers_clock() {
    let config = fresh_config();
    let _m = master(&config, "m");
    let session = connect(&config).await;
    until("the herd is there", async || session.get("/data").await.is_ok_and(|node| node.is_some())).await;
    let spec = JobSpec { delay: Some(HOUR / 2), ..JobSpec::new("echo") };
    let (job, results) = open(&config, spec, &mut rand::rng()).await.expect("opened");
    job.submit(Vec::new()).await.expect("acknowledged");
    let ahead = SessionConfig { wall_clock: an_hour_ahead, ..config };
    let client = Client::connect(&ahead).await.expect("connected");
    let reasons = client.explain(&Selected { job: job.id().clone(), tasks: None }).await.expect("explained").concat();
    assert!(reasons.contains("it is not to begin before"), "{reasons}");
    drop((job, results));
}
