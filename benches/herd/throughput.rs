//! No-op tasks, from the first submit to the last outcome fetched and removed.

use std::time::Instant;

use super::Run;
use super::processes::{Meter, Process, micros_each, until_herd};

const TASKS: u32 = 50_000;

pub fn measure(run: &mut Run) {
    let title = format!("throughput: {TASKS} no-op tasks; CPU in microseconds a task");
    let columns = [
        "clients",
        "workers",
        "tasks/s",
        "of the ceiling",
        "of the watched",
        "server CPU",
        "leader CPU",
        "a worker's CPU",
    ];
    let (ceiling, watched) = (run.ceiling, run.watched_ceiling);
    let mut table = run.report.table(&title, &columns);
    for each in [1, 2, 4, 8] {
        let master = Process::master(run.address);
        let workers: Vec<Process> = (0..each).map(|_| Process::worker(run.address)).collect();
        until_herd(run.address, each);
        Process::submit(run.address, TASKS / 5, &["--wait"]).succeeds(); // warms the herd up
        let meters = [run.server, master.pid(), workers[0].pid()].map(Meter::start);
        let began = Instant::now();
        let clients: Vec<Process> =
            (0..each).map(|_| Process::submit(run.address, TASKS / each, &["--wait"])).collect();
        clients.into_iter().for_each(Process::succeeds);
        let rate = 1e6 / micros_each(began.elapsed(), TASKS);
        let [server, leader, worker] = meters.map(|meter| meter.each_us(TASKS));
        let each = f64::from(each);
        table.row(&[each, each, rate, rate / ceiling, rate / watched, server, leader, worker * each]);
    }
}
