//! What a task costs, as jobs grow: no-op tasks through one client, one leader and one worker, each a process of its
//! own, with a private ZooKeeper. Every cost is shown beside that of the smallest job of the same run.
//!
//!     cargo bench --bench flat_cost

#[path = "../tests/support/mod.rs"]
mod support;

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How many tasks a job has, and how many such jobs are run.
const JOBS: [(u32, u32); 4] = [(1_000, 10), (10_000, 3), (30_000, 1), (100_000, 1)];
/// Tasks before the first measurement: the server's compiler needs some.
const WARM_UP: u32 = 30_000;

fn main() {
    let address = support::zookeeper_with(&[]);
    let start = |program: &str, args: &[&str]| -> Child {
        let mut command = Command::new(program);
        command.args(args).env("HERDSMAN_ZOOKEEPER", address).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().expect("it was built")
    };
    let mut master = start(env!("CARGO_BIN_EXE_master"), &[]);
    let mut worker = start(env!("CARGO_BIN_EXE_worker"), &[]);
    let submit = |tasks: u32| {
        let tasks = tasks.to_string();
        let client = env!("CARGO_BIN_EXE_client");
        let mut client = start(client, &["submit", "--count", &tasks, "--data", "x", "--wait", "-o", "quiet"]);
        assert!(client.wait().expect("it runs").success(), "not every task was done");
    };
    while !start(env!("CARGO_BIN_EXE_client"), &["status"]).wait().expect("it runs").success() {
        std::thread::sleep(Duration::from_millis(50));
    }
    submit(WARM_UP);

    println!("one client, one leader, one worker; microseconds a task");
    println!(
        "{:>8} {:>10} {:>8} {:>12} {:>8} {:>8} {:>8}",
        "tasks", "tasks/s", "wall", "server CPU", "ratio", "leader", "worker"
    );
    let server = support::server_pid();
    let mut smallest = None;
    for (tasks, jobs) in JOBS {
        let pids = [server, master.id(), worker.id()];
        let (before, began) = (pids.map(cpu), Instant::now());
        (0..jobs).for_each(|_| submit(tasks));
        let wall = began.elapsed();
        let each = |time: Duration| time.as_secs_f64() * 1e6 / f64::from(tasks * jobs);
        let used: Vec<f64> = pids.iter().zip(before).map(|(pid, before)| each(cpu(*pid) - before)).collect();
        let ratio = used[0] / *smallest.get_or_insert(used[0]);
        println!(
            "{tasks:>8} {:>10.0} {:>8.0} {:>12.0} {ratio:>8.2} {:>8.0} {:>8.0}",
            1e6 / each(wall),
            each(wall),
            used[0],
            used[1],
            used[2]
        );
    }
    for process in [&mut master, &mut worker] {
        let _ = process.kill();
        let _ = process.wait();
    }
}

/// CPU time that a process has used so far; Linux counts it in hundredths of a second.
fn cpu(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let fields: Vec<&str> = stat.rsplit(')').next().expect("a name in parentheses").split_whitespace().collect();
    let ticks: u64 = [11, 12].iter().map(|at| fields[*at].parse::<u64>().expect("a number")).sum();
    Duration::from_millis(ticks * 10)
}
