//! Tasks that were queued before the first worker started: what each costs, whatever the length of the queue. And what
//! a queued task takes of a master's memory.

use std::time::Instant;

use super::Run;
use super::processes::{Meter, Process, client, micros_each, resident, until_status};

const QUEUED: [(u32, u32); 3] = [(1_000, 10), (10_000, 3), (100_000, 1)];

pub fn measure(run: &mut Run) {
    let title = "backlog: queued before the first worker starts; microseconds a task, memory in bytes a queued task";
    let columns = [
        "queued",
        "wall",
        "wall to 1k",
        "server CPU",
        "CPU to 1k",
        "leader CPU",
        "leader memory",
        "submitter's",
        "worker's",
    ];
    let mut table = run.report.table(title, &columns);
    let mut first = None;
    for (queued, rounds) in QUEUED {
        let mut sums = [0.0; 6];
        for _ in 0..rounds {
            let master = Process::master(run.address);
            until_status(run.address, "a leader", |status| status.contains("leader"));
            let empty = resident(master.pid());
            let job = format!("queued{queued}");
            let submitter = Process::submit(run.address, queued, &["--wait", "--job", &job]);
            until_status(run.address, "all queued", |status| status.contains(&format!("{queued} waiting")));
            let per_task = |bytes: f64| bytes / f64::from(queued);
            let memory = per_task(resident(master.pid()) - empty);
            let of_submitter = per_task(resident(submitter.pid()));
            let meters = [run.server, master.pid()].map(Meter::start);
            let began = Instant::now();
            let worker = Process::worker(run.address);
            submitter.succeeds();
            let wall = micros_each(began.elapsed(), queued);
            let [server, leader] = meters.map(|meter| meter.each_us(queued));
            let of_worker = per_task(resident(worker.pid()));
            for (sum, figure) in sums.iter_mut().zip([wall, server, leader, memory, of_submitter, of_worker]) {
                *sum += figure / f64::from(rounds);
            }
            drop((worker, master));
            assert!(!client(run.address, &["status"]).contains(&job), "the job was closed");
        }
        let [wall, server, leader, memory, submitter, worker] = sums;
        let (first_wall, first_server) = *first.get_or_insert((wall, server));
        let (wall_ratio, server_ratio) = (wall / first_wall, server / first_server);
        table.row(&[f64::from(queued), wall, wall_ratio, server, server_ratio, leader, memory, submitter, worker]);
    }
}
