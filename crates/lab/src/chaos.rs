//! Chaos: a whole herd under a schedule of faults, and two verdicts. *Safe*: every rule was kept at every zxid of
//! ZooKeeper's own log, and no two executions of a task had the same fencing token. *Live*: once everything is healed,
//! all that was submitted is done, without a stall longer than the session timeout and 5 s.
//!
//! The supervisor (here), the faulty lines ([`line`](mod@super::line)), the schedule ([`schedule`](super::schedule)) and the
//! judge (`audit`) are separate parts. After FoundationDB's and TigerBeetle's simulators, but with real
//! processes and a real ZooKeeper, so that only the schedule is repeated by a seed, and not what comes of it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context;
use audit::{Ending, SpanEnd, Verdict, audit};
use coordination::{ConnectString, SessionConfig, clock::wall_ms};
use herdsman::client::{self, Client, ClientError, Selected};
use herdsman::shutdown::Shutdown;
use rustix::process::{Signal, kill_process};
use tree::JobId;

use super::herd::{Process, Servers, left_behind};
use super::neighbour::{Neighbour, is_planted};
use super::schedule::{Fault, Injection, Target, Targets, draw, draw_bulk};
use super::witness::{broken_tokens, executions};

const MASTERS: usize = 3;
const WORKERS: usize = 4;
/// Workers that lack what they need to run a program: here a temporary directory.
const LACKING: usize = 1;
/// Clients whose tasks go well, clients whose tasks do not, and clients that submit thousands at once.
const CLIENTS: usize = 3;
const MIXED: usize = 2;
const BULK: usize = 2;
const SERVERS: usize = 3;
const TARGETS: Targets =
    Targets { processes: MASTERS + WORKERS + LACKING + CLIENTS + MIXED + BULK, bulk: BULK, servers: SERVERS };
/// How often a client submits thousands where no fault has it begin: seldom, so that the log can be judged and two runs
/// fit on two cores.
const BULK_EVERY: Duration = Duration::from_secs(120);
/// How long everything may take to end after healing.
const END_WITHIN: Duration = Duration::from_secs(120);
/// How much longer than the session timeout nothing may be committed after healing.
const STALL: Duration = Duration::from_secs(5);
/// How long the hostile neighbour may take to undo what it did.
const UNDONE_WITHIN: Duration = Duration::from_secs(60);
/// How long what a task started may outlive its worker.
const CLEARED_WITHIN: Duration = Duration::from_secs(2);

/// Whose clock is how far off.
const WRONG_CLOCKS: [(&str, &str); 4] = [("m3", "+1h"), ("w3", "+1h"), ("w4", "-1h"), ("x2", "-1h")];

/// What to run.
#[derive(Debug, Clone)]
pub struct Chaos {
    /// Where the schedule comes from.
    pub seed: u64,
    /// How long faults are injected.
    pub run: Duration,
    /// T of every process.
    pub timeout: Duration,
    /// Where the programs are.
    pub bin: PathBuf,
    /// Where `scenarios/zookeeper` and `scenarios/witness` are.
    pub scenarios: PathBuf,
    /// The library that shifts a process's clock, where there is one: libfaketime.
    pub faketime: Option<PathBuf>,
    /// Where logs and ZooKeeper's data go.
    pub work: PathBuf,
    /// Whether they are kept.
    pub keep: bool,
}

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    /// The auditor's judgement, but for what the hostile neighbour planted.
    pub verdict: Verdict,
    /// How many violations of the neighbour's the auditor named.
    pub planted: usize,
    /// How many faults of each kind were injected.
    pub faults: BTreeMap<String, usize>,
    /// How often a task was begun, by the second witness, to which those report that do not come by the thousand.
    pub executions: usize,
    /// Where the fencing tokens that it was shown break their promise.
    pub broken_tokens: Vec<String>,
    /// How many replies were cut off.
    pub replies_cut: usize,
    /// Whether everything ended in time, nothing was left, and there was no stall.
    pub live: Result<(), String>,
    /// The longest time after healing without a commit.
    pub longest_stall: Duration,
    /// How long everything took to end after healing.
    pub ended_after: Duration,
}

impl Outcome {
    /// Whether both verdicts are good.
    pub fn passed(&self) -> bool {
        self.verdict.verdict == "valid" && self.broken_tokens.is_empty() && self.live.is_ok()
    }
}

/// Runs it; `None` where the shutdown was asked for.
///
/// Errors: where processes or servers cannot be started.
pub async fn run(chaos: &Chaos, shutdown: &Shutdown) -> anyhow::Result<Option<Outcome>> {
    let schedule = draw(chaos.seed, chaos.run, chaos.timeout, TARGETS);
    let servers = Servers::start(&chaos.scenarios, &chaos.work.join("zookeeper"), SERVERS).await?;
    let outcome = tokio::select! {
        outcome = run_on(chaos, &schedule, &servers) => outcome.map(Some),
        () = shutdown.requested() => Ok(None),
    };
    servers.stop(chaos.keep).await?;
    outcome
}

async fn run_on(chaos: &Chaos, schedule: &[Injection], servers: &Servers) -> anyhow::Result<Outcome> {
    let mut herd = herd(chaos, servers).await?;
    let mut neighbour = Neighbour::start(&chaos.scenarios, &chaos.work, &servers.addresses).await?;
    let mut faults = BTreeMap::new();
    let mut down = None;
    let began = Instant::now();
    let mut steps: Vec<(Duration, bool, &Injection)> = schedule
        .iter()
        .flat_map(|injection| [(injection.at, true, injection), (injection.at + injection.lasts, false, injection)])
        .collect();
    steps.sort_by_key(|(at, ..)| *at);
    for (at, begins, injection) in steps {
        while began.elapsed() < at {
            ensure(&mut herd, chaos.timeout)?;
            tokio::time::sleep((at - began.elapsed().min(at)).min(Duration::from_millis(50))).await;
        }
        match (injection.target, begins) {
            // One that joins still, on a slow machine: see the schedule for why no other one goes meanwhile.
            (Target::Server(_), true) if !servers.serve().await => continue,
            (Target::Server(number), true) => {
                servers.kill(number).await?;
                down = Some(number);
            }
            (Target::Server(number), false) => {
                if down.take_if(|down| *down == number).is_some() {
                    servers.revive(number).await?;
                }
            }
            (Target::Everybody, _) => {
                if let Fault::Neighbour(deed) = injection.fault {
                    neighbour.tell(deed, begins).await?;
                }
            }
            (Target::Process(index), true) => herd[index].inject(injection.fault),
            (Target::Process(index), false) => herd[index].heal(injection.fault),
        }
        if begins {
            *faults.entry(injection.fault.to_string()).or_default() += 1;
        }
    }
    // Everything has healed.
    ensure(&mut herd, chaos.timeout)?;
    neighbour.leave(UNDONE_WITHIN).await?;
    let (healed, healed_ms) = (Instant::now(), wall_ms(SystemTime::now()));
    let ended = end(chaos, &mut herd, servers).await;
    let ended_after = healed.elapsed();
    let folders = servers.data_folders();
    let folders: Vec<&Path> = folders.iter().map(PathBuf::as_path).collect();
    let mut verdict = audit(&folders, "", Ending::Open)?;
    let planted = verdict.excuse(is_planted);
    for server in servers.diverged() {
        verdict.doubt(format!(
            "ZooKeeper's server {server} has another tree than the others, by its own log: see digests"
        ));
    }
    let longest_stall = longest_stall(&verdict, healed_ms);
    let live = ended.and_then(|()| judge(&verdict, longest_stall, chaos.timeout));
    let witness = std::fs::read_to_string(chaos.work.join("witness")).unwrap_or_default();
    Ok(Outcome {
        verdict,
        planted,
        faults,
        executions: executions(&witness).count(),
        broken_tokens: broken_tokens(&witness),
        replies_cut: herd.iter().map(Process::replies_cut).sum(),
        live,
        longest_stall,
        ended_after,
    })
}

async fn herd(chaos: &Chaos, servers: &Servers) -> anyhow::Result<Vec<Process>> {
    let text = |args: &[&str]| args.iter().map(|arg| (*arg).to_owned()).collect::<Vec<_>>();
    let mut herd = Vec::new();
    let new = async |program: &str, name: &str, args: &[String]| {
        Process::new(&chaos.bin, &chaos.work, program, name, args, &servers.addresses).await
    };
    for n in 1..=MASTERS {
        let name = format!("m{n}");
        herd.push(new("master", &name, &text(&["--name", &name])).await?);
    }
    for n in 1..=WORKERS {
        let name = format!("w{n}");
        herd.push(new("worker", &name, &text(&["--name", &name, "--allow", "exec", "--grace", "1s"])).await?);
    }
    for n in WORKERS + 1..=WORKERS + LACKING {
        let name = format!("w{n}");
        let mut worker = new("worker", &name, &text(&["--name", &name, "--allow", "exec", "--grace", "1s"])).await?;
        worker.env.push(("TMPDIR", chaos.work.join("nowhere").display().to_string()));
        herd.push(worker);
    }
    let witness = chaos.scenarios.join("witness").display().to_string();
    let file = chaos.work.join("witness").display().to_string();
    for n in 1..=CLIENTS {
        let name = format!("c{n}");
        // Each start is a job of its own; short and long tasks, slow and fast submission.
        let (seconds, rate) = [("0.05", "8"), ("0.3", "4"), ("0.7", "2")][(n - 1) % 3];
        let job = format!("{name}-{{starts}}");
        let args =
            ["submit", "--job", &job, "--kind", "exec", "--count", "40", "--rate", rate, "--wait", "-o", "quiet"];
        herd.push(new("client", &name, &text(&[&args[..], &["--", &witness, seconds, &file]].concat())).await?);
    }
    for n in 1..=MIXED {
        let name = format!("x{n}");
        let script = chaos.scenarios.join("mixed").display().to_string();
        let bin = chaos.bin.display().to_string();
        herd.push(new(&script, &name, &text(&[&bin, &file, &name, "{starts}"])).await?);
    }
    for (n, count) in (1..=BULK).zip(draw_bulk(chaos.seed, BULK)) {
        let name = format!("b{n}");
        let (job, count) = (format!("{name}-{{starts}}"), count.to_string());
        let args = ["submit", "--job", &job, "--kind", "echo", "--count", &count, "--wait", "-o", "quiet"];
        let mut client = new("client", &name, &text(&args)).await?;
        client.every = BULK_EVERY;
        herd.push(client);
    }
    for (name, offset) in WRONG_CLOCKS {
        let clock = chaos.faketime.iter().flat_map(|library| {
            [
                ("LD_PRELOAD", library.display().to_string()),
                ("FAKETIME", offset.to_owned()),
                ("DONT_FAKE_MONOTONIC", "1".to_owned()), // which they do not share with anybody
            ]
        });
        herd.iter_mut().filter(|process| process.name == name).for_each(|process| process.env.extend(clock.clone()));
    }
    Ok(herd)
}

fn ensure(herd: &mut [Process], timeout: Duration) -> anyhow::Result<()> {
    herd.iter_mut().try_for_each(|process| process.ensure(timeout))
}

/// Lets the clients finish, collects what killed ones left, and looks whether anything remains.
async fn end(chaos: &Chaos, herd: &mut [Process], servers: &Servers) -> Result<(), String> {
    let deadline = Instant::now() + END_WITHIN;
    let left = || deadline.saturating_duration_since(Instant::now());
    for client in herd.iter_mut().filter(|process| process.name.starts_with(['c', 'x', 'b'])) {
        if !client.ended(left()).await {
            return Err(format!("{} has not received its outcomes {END_WITHIN:?} after healing", client.name));
        }
    }
    let collected = tokio::time::timeout(left(), collect(chaos, servers)).await;
    match collected {
        Err(_) => return Err(format!("something was still outstanding {END_WITHIN:?} after healing")),
        Ok(Err(error)) => return Err(format!("collecting what was left: {error:#}")),
        Ok(Ok(())) => {}
    }
    herd.iter_mut().for_each(Process::stop);
    for process in herd.iter_mut() {
        if !process.ended(Duration::from_secs(10)).await {
            return Err(format!("{} does not stop", process.name));
        }
    }
    let deadline = Instant::now() + CLEARED_WITHIN;
    loop {
        let left = left_behind();
        match left.first() {
            None => return Ok(()),
            Some((_, command)) if Instant::now() >= deadline => {
                let processes = left.len();
                left.iter().for_each(|(pid, _)| {
                    let _ = kill_process(*pid, Signal::KILL); // it may have ended by itself
                });
                return Err(format!("{processes} processes outlived their tasks, the first: {command}"));
            }
            Some(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// Takes over every job in the tree, waits for it, collects its outcomes, closes it. One that nobody runs is cancelled: its
/// client was killed before it did so itself.
async fn collect(chaos: &Chaos, servers: &Servers) -> anyhow::Result<()> {
    let zookeeper: ConnectString = servers.addresses.join(",").parse().map_err(anyhow::Error::msg)?;
    let config = SessionConfig { session_timeout: chaos.timeout, ..SessionConfig::new(zookeeper) };
    let mut client = Client::connect(&config).await.context("connecting")?;
    loop {
        let herd = client::herd(client.session()).await?;
        if herd.jobs.is_empty() {
            client.close().await;
            return Ok(());
        }
        for job in herd.jobs {
            let id: JobId = job.id.parse().map_err(anyhow::Error::msg)?;
            let whole = Selected { job: id.clone(), tasks: None };
            if !herd.workers.iter().any(|worker| worker.kinds.contains(&job.kind)) {
                match client.cancel(&whole, "nobody runs it").await {
                    Ok(_) | Err(ClientError::NotFound(_)) => {}
                    Err(error) => return Err(error).with_context(|| format!("cancelling {id}")),
                }
            }
            // Sealing it first, so that waiting has an end.
            match client.results(&id, false, true, |_| Ok(())).await {
                Ok(_) | Err(ClientError::NotFound(_)) => {}
                Err(error) => return Err(error).with_context(|| format!("collecting {id}")),
            }
            let forgotten = match client.wait(&whole.job, |_| {}).await {
                Ok(_) => client.forget(&whole).await.map(drop), // dead tasks too
                Err(error) => Err(error),
            };
            match forgotten {
                Ok(()) | Err(ClientError::NotFound(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn longest_stall(verdict: &Verdict, healed_ms: i64) -> Duration {
    let committed = verdict.spans.iter().filter(|span| span.end == SpanEnd::Committed && span.to_ms > healed_ms);
    let mut before = healed_ms;
    let mut longest = 0;
    for span in committed {
        longest = longest.max(span.to_ms - before);
        before = span.to_ms;
    }
    Duration::from_millis(longest.unsigned_abs())
}

fn judge(verdict: &Verdict, longest_stall: Duration, timeout: Duration) -> Result<(), String> {
    let figures = &verdict.figures;
    let ended = figures.ended();
    if figures.outstanding > 0 || ended != figures.submitted {
        return Err(format!("{} tasks submitted, {ended} ended", figures.submitted));
    }
    if longest_stall > timeout + STALL {
        return Err(format!("nothing was committed for {longest_stall:?} after healing"));
    }
    Ok(())
}

/// The schedule as text, a line a fault.
pub fn describe(seed: u64, run: Duration, timeout: Duration) -> String {
    let names: Vec<String> = [('m', MASTERS), ('w', WORKERS), ('c', CLIENTS), ('x', MIXED), ('b', BULK)]
        .iter()
        .flat_map(|(letter, count)| (1..=*count).map(move |n| format!("{letter}{n}")))
        .collect();
    let line = |injection: &Injection| {
        let target = match injection.target {
            Target::Process(index) => names[index].clone(),
            Target::Server(number) => format!("server {number}"),
            Target::Everybody => "everybody".to_owned(),
        };
        let Injection { at, lasts, fault, .. } = injection;
        let fault: &Fault = fault;
        format!("{:8.2} s  {fault} of {target} for {:.2} s\n", at.as_secs_f64(), lasts.as_secs_f64())
    };
    draw(seed, run, timeout, TARGETS).iter().map(line).collect()
}
