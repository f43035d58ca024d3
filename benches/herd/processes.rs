//! Masters, workers and clients as processes of their own, and what they use.

use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::support::LIMIT;

/// A process; terminated when dropped, so that its znode goes at once and not after a session timeout.
pub struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            self.signal(Signal::TERM);
            let _ = self.0.wait();
        }
    }
}

impl Process {
    /// Starts a program of this crate against the server at `address`.
    pub fn start(program: &str, address: &str, args: &[&str]) -> Process {
        Process::spawn(Command::new(program).args(args).env("HERDSMAN_ZOOKEEPER", address))
    }

    /// Starts a command that is silent.
    pub fn spawn(command: &mut Command) -> Process {
        Process(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it was built"))
    }

    /// The same, with its log.
    pub fn heard(program: &str, address: &str, args: &[&str]) -> (Process, ChildStderr) {
        let mut command = Command::new(program);
        command.args(args).env("HERDSMAN_ZOOKEEPER", address).stdin(Stdio::null()).stdout(Stdio::null());
        let mut child = command.stderr(Stdio::piped()).spawn().expect("it was built");
        let stderr = child.stderr.take().expect("piped");
        (Process(child), stderr)
    }

    pub fn master(address: &str) -> Process {
        Process::start(env!("CARGO_BIN_EXE_master"), address, &[])
    }

    pub fn worker(address: &str) -> Process {
        Process::start(env!("CARGO_BIN_EXE_worker"), address, &[])
    }

    /// Submits so many no-op tasks; with `--wait`, until the last outcome was removed.
    pub fn submit(address: &str, tasks: u32, args: &[&str]) -> Process {
        let tasks = tasks.to_string();
        let submit = ["submit", "--kind", "sleep", "--data", super::PAYLOAD, "--count", &tasks, "-o", "quiet"];
        Process::start(env!("CARGO_BIN_EXE_client"), address, &[&submit, args].concat())
    }

    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Waits for its end, which must be a good one.
    pub fn succeeds(mut self) {
        let status = self.0.wait().expect("it runs");
        assert!(status.success(), "a client ended with {status}");
    }

    /// Whether it has not ended.
    pub fn runs(&mut self) -> bool {
        matches!(self.0.try_wait(), Ok(None))
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.pid()).expect("a pid")).expect("not 0");
        kill_process(pid, signal).expect("it was not waited for yet");
    }

    /// Waits until it has ended.
    pub fn ended(mut self) {
        let _ = self.0.wait();
    }
}

/// What `client ARGS` prints.
pub fn client(address: &str, args: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_client")).args(args).env("HERDSMAN_ZOOKEEPER", address).output();
    String::from_utf8(output.expect("it was built").stdout).expect("UTF-8")
}

/// Waits until `client status` shows what `holds` says.
pub fn until_status(address: &str, what: &str, holds: impl Fn(&str) -> bool) {
    let began = Instant::now();
    while !holds(&client(address, &["status"])) {
        assert!(began.elapsed() < LIMIT, "not within {LIMIT:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until there is a leader, and so many workers are registered.
pub fn until_herd(address: &str, workers: u32) {
    until_status(address, "a leader and all workers", |status| {
        status.contains("leader") && status.matches("\nworker ").count() == workers as usize
    });
}

/// CPU time that a process has used so far; Linux counts it in hundredths of a second.
pub fn cpu(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let fields: Vec<&str> = stat.rsplit(')').next().expect("a name in parentheses").split_whitespace().collect();
    let ticks: u64 = [11, 12].iter().map(|at| fields[*at].parse::<u64>().expect("a number")).sum();
    Duration::from_millis(ticks * 10)
}

/// Memory of a process that is resident now, in bytes.
pub fn resident(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("Linux says so");
    line.trim().trim_end_matches(" kB").parse::<f64>().expect("a number") * 1024.0
}

/// What a stretch of work took of a process, divided among so many tasks, in microseconds.
pub struct Meter {
    pid: u32,
    before: Duration,
}

impl Meter {
    pub fn start(pid: u32) -> Meter {
        Meter { pid, before: cpu(pid) }
    }

    pub fn each_us(&self, tasks: u32) -> f64 {
        micros_each(cpu(self.pid).saturating_sub(self.before), tasks)
    }
}

/// A time divided among so many tasks, in microseconds.
pub fn micros_each(time: Duration, tasks: u32) -> f64 {
    time.as_secs_f64() * 1e6 / f64::from(tasks)
}
