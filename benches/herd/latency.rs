//! How long one task takes: at rest, in an open job, and at half the greatest throughput, when that sets in and later.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use coordination::SessionConfig;
use futures::stream::{FuturesUnordered, StreamExt};
use hdrhistogram::Histogram;
use herdsman::client::{JobSpec, open};
use zookeeper_client as zk;

use super::bare::serial_calls;
use super::processes::{Process, until_herd};
use super::{PAYLOAD, Run};

const ROUND_TRIPS: usize = 1_000;
/// For how long tasks are submitted at half the greatest throughput.
const LOADED: Duration = Duration::from_secs(10);
/// For how long the herd, at rest until then, may take to follow: windows grow with what workers complete.
const ONSET: Duration = Duration::from_secs(1);
const COLUMNS: [&str; 9] =
    ["tasks/s", "one write us", "one read us", "p50 us", "in writes", "p99 us", "in p50", "p99.9 us", "most us"];

pub fn measure(run: &mut Run) {
    let (_master, _worker) = (Process::master(run.address), Process::worker(run.address));
    until_herd(run.address, 1);
    let began = Instant::now();
    let warm = 50_000;
    Process::submit(run.address, warm, &["--wait"]).succeeds();
    let half = f64::from(warm) / began.elapsed().as_secs_f64() / 2.0;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let (rows, write, read) = runtime.block_on(async {
        let client = zk::Client::connect(run.address).await.expect("ZooKeeper is up");
        let config = SessionConfig::new(run.address.parse().expect("a connect string"));
        let before = serial_calls(&client, ROUND_TRIPS).await;
        let alone = alone(&config).await;
        let after = serial_calls(&client, ROUND_TRIPS).await;
        let (onset, loaded) = at_rate(&config, half).await;
        let middle = |times: &[Duration]| times[times.len() / 2].as_secs_f64() * 1e6;
        let both = |before: &[Duration], after: &[Duration]| f64::midpoint(middle(before), middle(after));
        ([(0.0, alone), (half, onset), (half, loaded)], both(&before.0, &after.0), both(&before.1, &after.1))
    });
    let title = "latency: from submit to outcome; at rest, at half the throughput from rest (first second), and then";
    let mut table = run.report.table(title, &COLUMNS);
    for (rate, times) in rows {
        let at = |quantile: f64| times.value_at_quantile(quantile) as f64;
        let (p50, p99) = (at(0.5), at(0.99));
        table.row(&[rate, write, read, p50, p50 / write, p99, p99 / p50, at(0.999), times.max() as f64]);
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// One task after another.
async fn alone(config: &SessionConfig) -> Histogram<u64> {
    let (job, mut results) = open(config, JobSpec::new("sleep"), &mut rand::rng()).await.expect("opened");
    let mut times = Histogram::new(3).expect("three digits");
    for round in 0..ROUND_TRIPS + 100 {
        let began = Instant::now();
        job.submit(PAYLOAD.into()).await.expect("submitted");
        results.next().await.expect("the herd lives").expect("an outcome");
        if round >= 100 {
            times.record(micros(began.elapsed())).expect("in range");
        }
    }
    job.seal().await.expect("sealed");
    results.next().await.expect("closed");
    times
}

/// So many tasks a second, each measured from when it was to be submitted, so that a stall counts for all that it delays.
/// Two histograms: of the tasks of the first second, and of the rest.
async fn at_rate(config: &SessionConfig, rate: f64) -> (Histogram<u64>, Histogram<u64>) {
    let (job, mut results) = open(config, JobSpec::new("sleep"), &mut rand::rng()).await.expect("opened");
    let mut onset = Histogram::new(3).expect("three digits");
    let mut times = onset.clone();
    let began = Instant::now();
    let due = |n: u32| began + Duration::from_secs_f64(f64::from(n) / rate);
    let last = (LOADED.as_secs_f64() * rate) as u32;
    let submitting = async {
        let mut under_way = FuturesUnordered::new();
        let mut due_now = VecDeque::new();
        let mut next = 0;
        while next < last {
            while next < last && due(next) <= Instant::now() {
                due_now.push_back(next);
                next += 1;
            }
            under_way.extend(due_now.drain(..).map(|_| job.submit(PAYLOAD.into())));
            tokio::select! {
                Some(submitted) = under_way.next() => drop(submitted.expect("submitted")),
                () = tokio::time::sleep_until(due(next).into()) => {}
            }
        }
        while let Some(submitted) = under_way.next().await {
            submitted.expect("submitted");
        }
        job.seal().await.expect("sealed");
    };
    let receiving = async {
        while let Some(finished) = results.next().await.expect("the herd lives") {
            let number = finished.task.rsplit('/').next().and_then(|n| n.parse().ok()).expect("a task's number");
            let of = if due(number) < began + ONSET { &mut onset } else { &mut times };
            of.record(micros(due(number).elapsed())).expect("in range");
        }
    };
    tokio::join!(submitting, receiving);
    (onset, times)
}
