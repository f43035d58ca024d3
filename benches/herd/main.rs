//! How fast the herd is, each figure beside what ZooKeeper itself does in the same run.
//!
//!     cargo bench --bench herd                          everything
//!     cargo bench --bench herd -- throughput latency    some of it
//!
//! | section | what it measures |
//! |---|---|
//! | `ceiling` | a bare loop of ZooKeeper calls: single creates, one write at a time, and all that tasks need, in multis |
//! | `throughput` | no-op tasks, from the first submit to the last outcome removed, with 1 to 8 clients and workers |
//! | `latency` | one task at a time, and at half the greatest throughput |
//! | `backlog` | tasks that were queued before the first worker started |
//! | `scale` | 1 to 1,000 workers, 100 clients; idle workers |
//! | `cancel` | another job's task while a job of up to 200,000 is cancelled, collected, runs out of time, is forgotten |
//! | `takeover` | SIGTERM and SIGKILL of the leader with much and little queued |
//!
//! One private ZooKeeper serves the whole run, warmed up by the bare loop. Prints tables and writes target/tmp/herd.json.

#[path = "../../tests/support/mod.rs"]
mod support;

mod backlog;
mod bare;
mod cancel;
mod latency;
mod processes;
mod scale;
mod table;
mod takeover;
mod throughput;

use std::process::ExitCode;

use table::Report;

/// A payload of 64 bytes that `sleep` reads as no time.
pub const PAYLOAD: &str = "0.00000000000000000000000000000000000000000000000000000000000000";

/// What every section is given.
pub struct Run {
    /// The private server's address.
    pub address: &'static str,
    /// Its process.
    pub server: u32,
    /// What is made of the figures.
    pub report: Report,
    /// Tasks a second of the bare loop.
    pub ceiling: f64,
    /// The same, with the watches that tasks need.
    pub watched_ceiling: f64,
}

const SECTIONS: [&str; 7] = ["ceiling", "throughput", "latency", "backlog", "scale", "cancel", "takeover"];

fn main() -> ExitCode {
    if let Some(workers) = scale::workers_wanted() {
        scale::be_workers(workers);
        return ExitCode::SUCCESS;
    }
    let named: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    if let Some(unknown) = named.iter().find(|name| !SECTIONS.contains(&name.as_str())) {
        eprintln!("error: there is no section '{unknown}', only {}", SECTIONS.join(", "));
        return ExitCode::from(2);
    }
    let wanted = |section: &str| named.is_empty() || named.iter().any(|name| name == section);
    let address = support::zookeeper_with(&[]);
    let mut run =
        Run { address, server: support::server_pid(), report: Report::default(), ceiling: 0.0, watched_ceiling: 0.0 };
    bare::measure(&mut run); // the warm-up, and what everything is compared to
    for (section, measure) in [
        ("throughput", throughput::measure as fn(&mut Run)),
        ("latency", latency::measure),
        ("backlog", backlog::measure),
        ("scale", scale::measure),
        ("cancel", cancel::measure),
        ("takeover", takeover::measure),
    ] {
        if wanted(section) {
            measure(&mut run);
        }
    }
    run.report.save();
    ExitCode::SUCCESS
}
