//! How long the herd is without a leader, with little and with much queued, by the clock of the one machine: from the
//! signal to the time that the next leader's log gives for its first assignment.

use std::io::{BufRead, BufReader};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::process::Signal;

use super::Run;
use super::processes::{Process, client, until_status};

/// T here, in milliseconds; the server's tick is 500.
const TIMEOUT_MS: f64 = 4_000.0;

pub fn measure(run: &mut Run) {
    let columns = ["queued", "SIGTERM ms", "SIGKILL ms", "beyond T ms", "cold start ms"];
    let mut table =
        run.report.table("takeover: from the signal to the next assignment; T is 4 s, the tick 500 ms", &columns);
    for queued in [100_u32, 100_000] {
        let address = run.address;
        let leader = Logged::master(address, "m0");
        leader.says("leading");
        // Four slots of 20 ms: an assignment is due every 5 ms, and as many tasks are submitted as are done.
        let worker = Process::worker(address);
        let count = queued.to_string();
        let submit = ["submit", "--kind", "sleep", "--data", "0.02", "-o", "quiet", "--count"];
        Process::start(env!("CARGO_BIN_EXE_client"), address, &[&submit[..], &[&count]].concat()).succeeds();
        let feed = [&submit[..], &["100000", "--rate", "195"]].concat();
        let feeder = Process::start(env!("CARGO_BIN_EXE_client"), address, &feed);
        leader.says("first assignment as leader");

        let backup = Logged::master(address, "m1");
        backup.says("standing for leader");
        std::thread::sleep(Duration::from_secs(2)); // its mirror is warm
        let at = now_ms();
        leader.process.signal(Signal::TERM);
        let terminated = backup.says("first assignment as leader") - at;

        let next = Logged::master(address, "m2");
        next.says("standing for leader");
        std::thread::sleep(Duration::from_secs(2));
        let at = now_ms();
        backup.process.signal(Signal::KILL);
        let killed = next.says("first assignment as leader") - at;
        drop((leader, backup));

        next.process.signal(Signal::TERM);
        next.process.ended();
        let began = now_ms();
        let cold = Logged::master(address, "m3");
        let cold_start = cold.says("first assignment as leader") - began;
        table.row(&[f64::from(queued), terminated, killed, killed - TIMEOUT_MS, cold_start]);

        drop(feeder);
        for job in client(address, &["status"]).lines().filter_map(|line| line.strip_prefix("job      ")) {
            client(address, &["cancel", job.split_whitespace().next().expect("its id")]);
        }
        drop((cold, worker));
        until_status(address, "nobody there", |status| status.contains("workers  none"));
    }
}

fn now_ms() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64() * 1e3
}

/// A master and what it logs.
struct Logged {
    process: Process,
    lines: Receiver<String>,
}

impl Logged {
    fn master(address: &str, name: &str) -> Logged {
        let args = ["--name", name, "--session-timeout", "4s", "--log-format", "json"];
        let (process, stderr) = Process::heard(env!("CARGO_BIN_EXE_master"), address, &args);
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            BufReader::new(stderr).lines().map_while(Result::ok).for_each(|line| drop(sender.send(line)));
        });
        Logged { process, lines }
    }

    /// Waits for a message; the time that it names, or 0.
    fn says(&self, message: &str) -> f64 {
        loop {
            let line = self.lines.recv_timeout(Duration::from_secs(60)).expect(message);
            let line: serde_json::Value = serde_json::from_str(&line).expect("JSON");
            if line["message"] == message {
                let at_ms = &line["at_ms"];
                return at_ms.as_f64().or_else(|| at_ms.as_str()?.parse().ok()).unwrap_or_default();
            }
        }
    }
}
