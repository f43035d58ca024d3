//! Many workers, a session each, and a hundred clients; and what many idle ones cost.

use std::collections::HashMap;
use std::process::Command;
use std::time::{Duration, Instant};

use coordination::SessionConfig;
use futures::future::join_all;
use herdsman::client::{JobSpec, open};
use herdsman::handlers::Handlers;
use herdsman::shutdown::Shutdown;
use herdsman::worker::Worker;

use super::processes::{Meter, Process, client, cpu, resident, until_herd, until_status};
use super::{PAYLOAD, Run};

/// Says to this program that it is to be so many workers, and nothing else.
const WORKERS: &str = "HERDSMAN_BENCH_WORKERS";
const CLIENTS: u32 = 100;
const TASKS: u32 = 20_000;
const IDLE: Duration = Duration::from_secs(10);

/// Whether this process is to be workers.
pub fn workers_wanted() -> Option<u32> {
    std::env::var(WORKERS).ok().map(|workers| workers.parse().expect("a number"))
}

fn config(address: &str) -> SessionConfig {
    SessionConfig::new(address.parse().expect("a connect string"))
}

/// So many workers in one process, until SIGTERM.
pub fn be_workers(count: u32) {
    let address = std::env::var("HERDSMAN_ZOOKEEPER").expect("it is set");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let shutdown = Shutdown::on_signals().expect("signals can be handled");
        let config = config(&address);
        let work = (0..count).map(|n| {
            let grace = Duration::from_secs(1);
            let worker = Worker { grace, ..Worker::new(&format!("w{n}"), Handlers::builtin()) };
            herdsman::run(worker, &config, &shutdown)
        });
        join_all(work).await;
    });
}

pub fn measure(run: &mut Run) {
    let title = format!("scale: {TASKS} no-op tasks of {CLIENTS} clients; CPU in microseconds a task, memory in MB");
    let columns = [
        "workers",
        "tasks/s",
        "of the ceiling",
        "leader CPU",
        "leader memory",
        "Jain, workers",
        "Jain, jobs",
        "idle server %",
    ];
    let ceiling = run.ceiling;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let mut table = run.report.table(&title, &columns);
    for count in [1, 10, 100, 1_000] {
        let master = Process::master(run.address);
        let herd = std::env::current_exe().expect("this program");
        let mut herd = Command::new(herd);
        let herd = Process::spawn(herd.env(WORKERS, count.to_string()).env("HERDSMAN_ZOOKEEPER", run.address));
        until_herd(run.address, count);
        std::thread::sleep(Duration::from_secs(2)); // what came with their coming is over
        let (before, began) = (cpu(run.server), Instant::now());
        std::thread::sleep(IDLE);
        let idle = (cpu(run.server) - before).as_secs_f64() / began.elapsed().as_secs_f64() * 100.0;
        let meter = Meter::start(master.pid());
        let (wall, by_worker, by_job) = runtime.block_on(all_jobs(run.address));
        let rate = f64::from(TASKS) / wall.as_secs_f64();
        let memory = resident(master.pid()) / 1e6;
        let mut by_worker: Vec<f64> = by_worker.values().map(|tasks| f64::from(*tasks)).collect();
        by_worker.resize(count as usize, 0.0);
        let fair = (jain(&by_worker), jain(&by_job));
        table.row(&[f64::from(count), rate, rate / ceiling, meter.each_us(TASKS), memory, fair.0, fair.1, idle]);
        drop((herd, master));
        until_status(run.address, "all workers gone", |status| status.contains("workers  none"));
    }
    assert!(client(run.address, &["status"]).contains("queue    0 jobs"), "every job was closed");
}

/// A hundred clients, a job each, all at once. How long all took, how many tasks each worker did, and each job's tasks a
/// second.
async fn all_jobs(address: &str) -> (Duration, HashMap<String, u32>, Vec<f64>) {
    let config = config(address);
    let began = Instant::now();
    let each = TASKS / CLIENTS;
    let one = async || {
        let (job, mut results) = open(&config, JobSpec::new("sleep"), &mut rand::rng()).await.expect("opened");
        let submitted = async {
            let all = join_all((0..each).map(|_| job.submit(PAYLOAD.into()))).await;
            all.into_iter().for_each(|submitted| drop(submitted.expect("submitted")));
            job.seal().await.expect("sealed");
        };
        let received = async {
            let mut workers = Vec::new();
            while let Some(finished) = results.next().await.expect("the herd lives") {
                workers.push(finished.worker.expect("done by somebody"));
            }
            workers
        };
        let ((), workers) = tokio::join!(submitted, received);
        (workers, f64::from(each) / began.elapsed().as_secs_f64())
    };
    let jobs = join_all((0..CLIENTS).map(|_| one())).await;
    let took = began.elapsed();
    let mut by_worker = HashMap::new();
    for worker in jobs.iter().flat_map(|(workers, _)| workers) {
        *by_worker.entry(worker.clone()).or_insert(0) += 1;
    }
    (took, by_worker, jobs.into_iter().map(|(_, rate)| rate).collect())
}

/// Jain's index of fairness: 1 where all have the same, 1/n where one has all.
fn jain(shares: &[f64]) -> f64 {
    let (sum, squares) = shares.iter().fold((0.0, 0.0), |(sum, squares), x| (sum + x, squares + x * x));
    sum * sum / (shares.len() as f64 * squares)
}
