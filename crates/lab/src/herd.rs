//! The processes of a chaos run: programs and ZooKeeper servers, started, hurt and healed by recorded pids.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, Command};

use super::cut_replies::CutReplies;
use super::line::{Line, MULTI};
use super::schedule::Fault;

/// The variable by which whatever a run has started is known, also what outlives all others.
const MARK: &str = "HERDSMAN_CHAOS";
/// What a server says whose tree differs from what its leader had after the same transaction.
const DIVERGED: &[u8] = b"Digests are not matching";
/// Writes of more than this are large: some dozens of tasks submitted, taken in, or collected.
const LARGE_BYTES: usize = 8 << 10;

/// One program, with a line of its own to each ZooKeeper server.
pub(super) struct Process {
    pub(super) name: String,
    program: PathBuf,
    args: Vec<String>,
    log: PathBuf,
    lines: Vec<Line>,
    child: Option<Child>,
    /// How long after a start the next one comes, at the soonest.
    pub(super) every: Duration,
    started: Option<Instant>,
    /// Whether it is to run: a fault has not ended it, and the run has not either.
    pub(super) wanted: bool,
    /// How often it was started.
    pub(super) starts: usize,
    /// Variables of its own.
    pub(super) env: Vec<(&'static str, String)>,
}

impl Process {
    /// A program that reaches `servers` through lines that can be cut.
    pub(super) async fn new(
        bin: &Path,
        work: &Path,
        program: &str,
        name: &str,
        args: &[String],
        servers: &[String],
    ) -> anyhow::Result<Self> {
        let mut lines = Vec::new();
        for server in servers {
            lines.push(Line::to(server).await.context("a loopback port for a line")?);
        }
        let addresses: Vec<String> = lines.iter().map(Line::address).collect();
        let mut all_args = vec!["--zookeeper".to_owned(), addresses.join(",")];
        all_args.extend_from_slice(args);
        Ok(Process {
            name: name.to_owned(),
            program: bin.join(program),
            args: all_args,
            log: work.join(format!("{name}.log")),
            lines,
            child: None,
            every: Duration::ZERO,
            started: None,
            wanted: true,
            starts: 0,
            env: Vec::new(),
        })
    }

    /// Starts it unless it runs or is not to. Its logs and output go to files.
    pub(super) fn ensure(&mut self, timeout: Duration) -> anyhow::Result<()> {
        if let Some(child) = &mut self.child
            && child.try_wait()?.is_some()
        {
            self.child = None;
        }
        let is_early = self.started.is_some_and(|started| started.elapsed() < self.every);
        if self.child.is_some() || !self.wanted || is_early {
            return Ok(());
        }
        let append = |path: &Path| File::options().create(true).append(true).open(path);
        let child = Command::new(&self.program)
            .args(self.args.iter().map(|arg| arg.replace("{starts}", &self.starts.to_string())))
            .env("HERDSMAN_SESSION_TIMEOUT", humantime::format_duration(timeout).to_string())
            .env(MARK, std::process::id().to_string())
            .envs(self.env.iter().map(|(name, value)| (*name, value)))
            .stdin(Stdio::null())
            .stdout(append(&self.log.with_extension("out"))?)
            .stderr(append(&self.log)?)
            .kill_on_drop(true)
            .process_group(0)
            .spawn()
            .with_context(|| format!("starting {}", self.program.display()))?;
        self.child = Some(child);
        self.started = Some(Instant::now());
        self.starts += 1;
        Ok(())
    }

    fn signal(&self, signal: Signal) {
        let pid = self.child.as_ref().and_then(Child::id).and_then(|id| Pid::from_raw(id.cast_signed()));
        if let Some(pid) = pid {
            // A client may be a script, and what that has started; any may have ended by itself.
            let _ = kill_process_group(pid, signal);
        }
    }

    /// How many replies its lines have cut off.
    pub(super) fn replies_cut(&self) -> usize {
        self.lines.iter().map(Line::replies_cut).sum()
    }

    /// Hurts it.
    pub(super) fn inject(&mut self, fault: Fault) {
        match fault {
            Fault::Term => {
                self.wanted = false;
                self.signal(Signal::TERM);
            }
            Fault::Kill => {
                self.wanted = false;
                self.signal(Signal::KILL);
            }
            Fault::Stop => self.signal(Signal::STOP),
            Fault::Cut => self.lines.iter().for_each(Line::cut),
            Fault::DropRequests => self.lines.iter().for_each(Line::drop_requests),
            Fault::DropReplies => self.lines.iter().for_each(Line::drop_replies),
            Fault::CutReply => self.lines.iter().for_each(|line| line.cut_reply_to(MULTI)),
            Fault::CutLarge(numbers) => {
                let replies = CutReplies::new(numbers, LARGE_BYTES);
                self.lines.iter().for_each(|line| line.schedule(replies.clone()));
                self.started = None; // its next round begins now, so that there are some
            }
            Fault::Delay => self.lines.iter().for_each(|line| line.delay(Duration::from_millis(50))),
            Fault::ServerKill | Fault::Neighbour(_) => {}
        }
    }

    /// Ends a fault.
    pub(super) fn heal(&mut self, fault: Fault) {
        match fault {
            Fault::Term | Fault::Kill => self.wanted = true,
            Fault::Stop => self.signal(Signal::CONT),
            Fault::CutReply => self.lines.iter().for_each(|line| line.cut_reply_to(0)),
            Fault::CutLarge(_) => self.lines.iter().for_each(|line| line.schedule(CutReplies::default())),
            Fault::Delay => self.lines.iter().for_each(|line| line.delay(Duration::ZERO)),
            Fault::Cut | Fault::DropRequests | Fault::DropReplies => self.lines.iter().for_each(Line::mend),
            Fault::ServerKill | Fault::Neighbour(_) => {}
        }
    }

    /// Waits for its end, at most so long; whether it came.
    pub(super) async fn ended(&mut self, limit: Duration) -> bool {
        self.wanted = false;
        match &mut self.child {
            Some(child) => tokio::time::timeout(limit, child.wait()).await.is_ok(),
            None => true,
        }
    }

    /// Asks it to stop.
    pub(super) fn stop(&mut self) {
        self.wanted = false;
        self.signal(Signal::TERM);
    }
}

/// What this run has started, directly or not, and still runs: what the processes' environment tells. None where there is
/// no `/proc`.
pub(super) fn left_behind() -> Vec<(Pid, String)> {
    let mark = format!("{MARK}={}", std::process::id());
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let marked = |process: std::fs::DirEntry| {
        let pid = Pid::from_raw(process.file_name().to_str()?.parse().ok()?)?;
        let environment = std::fs::read(process.path().join("environ")).ok()?;
        environment.split(|byte| *byte == 0).find(|variable| *variable == mark.as_bytes())?;
        let command = std::fs::read(process.path().join("cmdline")).ok()?;
        Some((pid, String::from_utf8_lossy(&command).replace('\0', " ").trim().to_owned()))
    };
    processes.filter_map(marked).collect()
}

/// Three ZooKeeper servers, run by `scenarios/zookeeper`.
pub(super) struct Servers {
    script: PathBuf,
    folder: PathBuf,
    pub(super) addresses: Vec<String>,
}

impl Servers {
    pub(super) async fn start(scenarios: &Path, folder: &Path, count: usize) -> anyhow::Result<Self> {
        let mut servers =
            Servers { script: scenarios.join("zookeeper"), folder: folder.to_owned(), addresses: Vec::new() };
        let connect = servers.run(&["start", "--port", "any", "--servers", &count.to_string()]).await?;
        servers.addresses = connect.trim().split(',').map(str::to_owned).collect();
        Ok(servers)
    }

    async fn run(&self, args: &[&str]) -> anyhow::Result<String> {
        let run = Command::new(&self.script).args(args).arg("--dir").arg(&self.folder).output().await?;
        if !run.status.success() {
            bail!("scenarios/zookeeper {}: {}", args.join(" "), String::from_utf8_lossy(&run.stderr));
        }
        Ok(String::from_utf8_lossy(&run.stdout).into_owned())
    }

    pub(super) async fn kill(&self, number: usize) -> anyhow::Result<()> {
        self.run(&["kill", &number.to_string()]).await.map(drop)
    }

    /// Whether every server serves.
    pub(super) async fn serve(&self) -> bool {
        self.run(&["serving"]).await.is_ok()
    }

    pub(super) async fn revive(&self, number: usize) -> anyhow::Result<()> {
        self.run(&["revive", &number.to_string()]).await.map(drop)
    }

    pub(super) async fn stop(&self, keep_data: bool) -> anyhow::Result<()> {
        let args: &[&str] = if keep_data { &["stop", "--keep-data"] } else { &["stop"] };
        self.run(args).await.map(drop)
    }

    /// Servers whose tree was found to be another than the others', by their own logs: what is read there never was.
    pub(super) fn diverged(&self) -> Vec<usize> {
        let says_so = |number: &usize| {
            let log = std::fs::read(self.folder.join(number.to_string()).join("log")).unwrap_or_default();
            log.windows(DIVERGED.len()).any(|text| text == DIVERGED)
        };
        (1..=self.addresses.len()).filter(says_so).collect()
    }

    /// The data folder of each server.
    pub(super) fn data_folders(&self) -> Vec<PathBuf> {
        (1..=self.addresses.len()).map(|number| self.folder.join(number.to_string()).join("data")).collect()
    }
}
