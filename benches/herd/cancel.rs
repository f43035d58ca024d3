//! How long another job's task takes while a whole job that waits is cancelled, runs out of time, or is forgotten: one task a
//! tenth of a second, from the start of its client to its end. Beyond a second it would be the herd that waits.

use std::thread::sleep;
use std::time::{Duration, Instant};

use super::Run;
use super::processes::{Process, client, until_herd};

const WAITING: [u32; 3] = [2_000, 20_000, 200_000];
/// So long nothing happens at first: each mirror has read everything anew once.
const RECONCILED: Duration = Duration::from_secs(32);
/// What is aimed at, in milliseconds.
const DELAY_MAX_MS: f64 = 1_000.0;

pub fn measure(run: &mut Run) {
    let columns = [
        "waiting",
        "nothing",
        "cancel",
        "it takes",
        "results",
        "it takes",
        "job-timeout",
        "forget",
        "it takes",
        "at most",
    ];
    let mut table =
        run.report.table("cancel: the slowest of another job's tasks meanwhile, and the whole, milliseconds", &columns);
    for waiting in WAITING {
        let address = run.address;
        let (_master, _worker) = (Process::master(address), Process::worker(address));
        until_herd(address, 1);
        let queue = |args: &[&str]| {
            let count = waiting.to_string();
            let submit = ["submit", "--kind", "nobody", "--data", "0", "-o", "quiet", "--count", &count];
            client(address, &[&submit, args].concat()).trim().to_owned()
        };
        let job = queue(&[]);
        let queued = Instant::now();
        let (nothing, _) = slowest(address, || queued.elapsed() < RECONCILED);
        let (cancel, cancel_takes) = during(address, &["cancel", &job]);
        let (results, results_take) = during(address, &["results", &job, "-o", "quiet"]);
        let timeout_s = format!("{}s", 3 + waiting / 4_000); // long enough to be queued
        let job = queue(&["--job-timeout", &timeout_s]);
        let (timeout, _) = during(address, &["wait", &job]);
        client(address, &["forget", &job]);
        let job = queue(&[]);
        let (forget, forget_takes) = during(address, &["forget", &job]);
        let figures = [cancel, cancel_takes, results, results_take, timeout, forget, forget_takes, DELAY_MAX_MS];
        table.row(&[&[f64::from(waiting), nothing][..], &figures].concat());
    }
}

/// The slowest task while a command runs, and how long that takes.
fn during(address: &str, command: &[&str]) -> (f64, f64) {
    let mut process = Process::start(env!("CARGO_BIN_EXE_client"), address, command);
    slowest(address, || process.runs())
}

/// The slowest task, and how long all of it took.
fn slowest(address: &str, mut meanwhile: impl FnMut() -> bool) -> (f64, f64) {
    let began = Instant::now();
    let (mut slowest, mut took) = (0_f64, None);
    while took.is_none() {
        let probe = Instant::now();
        Process::submit(address, 1, &["--wait"]).succeeds();
        slowest = slowest.max(probe.elapsed().as_secs_f64() * 1e3);
        if !meanwhile() {
            took = Some(began.elapsed().as_secs_f64() * 1e3);
        }
        sleep(Duration::from_millis(100).saturating_sub(probe.elapsed()));
    }
    (slowest, took.unwrap_or_default())
}
