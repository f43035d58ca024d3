//! `chaos`: a herd under a schedule of faults that a seed decides; see `scenarios/chaos`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use herdsman::cli::{self, Exit};
use herdsman::shutdown::Shutdown;
use herdsman_lab::chaos::{self, Chaos, Outcome};
use rand::RngExt;

/// Runs 3 masters, 5 workers, 7 clients and 3 ZooKeeper servers under faults, heals, and judges.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Args {
    /// The same seed is the same schedule  [default: a random one]
    #[arg(long)]
    seed: Option<u64>,

    /// For how long faults are injected
    #[arg(long, default_value_t = 3.0)]
    minutes: f64,

    /// The session timeout of every process
    #[arg(long, value_name = "DURATION", default_value = "4s", value_parser = cli::duration)]
    session_timeout: Duration,

    /// Print the schedule and do nothing
    #[arg(long)]
    schedule: bool,

    /// Keep logs and ZooKeeper's data here
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,

    /// libfaketime, with which some clocks are an hour off
    #[arg(long, value_name = "LIBRARY")]
    faketime: Option<PathBuf>,

    /// The folder of the scenarios
    #[arg(long, value_name = "DIR", default_value = "scenarios")]
    scenarios: PathBuf,
}

fn main() -> ExitCode {
    let args = Args::parse();
    cli::start_logging(cli::LogFormat::Text, "warn");
    let seed = args.seed.unwrap_or_else(|| rand::rng().random_range(0..1_000_000));
    let run = Duration::from_secs_f64(args.minutes.clamp(0.05, 24.0 * 60.0) * 60.0);
    println!("seed {seed}");
    if args.schedule {
        print!("{}", chaos::describe(seed, run, args.session_timeout));
        return ExitCode::SUCCESS;
    }
    cli::run(async {
        match perform(&args, seed, run).await {
            Ok(exit) => exit,
            Err(error) => cli::complain(&format!("{error:#}"), None, Exit::Failed),
        }
    })
}

async fn perform(args: &Args, seed: u64, run: Duration) -> anyhow::Result<Exit> {
    let shutdown = Shutdown::on_signals()?;
    let temporary = std::env::temp_dir().join(format!("herdsman-chaos.{}", std::process::id()));
    let work = args.keep.clone().unwrap_or_else(|| temporary.clone());
    std::fs::create_dir_all(&work)?;
    let chaos = Chaos {
        seed,
        run,
        timeout: args.session_timeout,
        bin: std::env::current_exe()?.parent().map(PathBuf::from).unwrap_or_default(),
        scenarios: args.scenarios.canonicalize()?,
        faketime: args.faketime.clone(),
        work: work.canonicalize()?,
        keep: args.keep.is_some(),
    };
    let outcome = chaos::run(&chaos, &shutdown).await;
    let exit = match &outcome {
        Ok(Some(outcome)) => report(outcome),
        Ok(None) => Exit::Interrupted,
        Err(_) => Exit::Failed,
    };
    if args.keep.is_none() {
        std::fs::remove_dir_all(&temporary)?;
    }
    outcome.map(|_| exit)
}

fn report(outcome: &Outcome) -> Exit {
    let figures = &outcome.verdict.figures;
    println!("faults        {} injected", outcome.faults.values().sum::<usize>());
    for (fault, count) in &outcome.faults {
        println!("              {count:4}  {fault}");
    }
    println!("              {} replies to writes were cut off", outcome.replies_cut);
    println!(
        "tasks         {} submitted, {} ended; {} executions witnessed",
        figures.submitted,
        figures.ended(),
        outcome.executions
    );
    println!(
        "              {} done, {} failed, {} cancelled or forgotten when dead, {} aborted",
        figures.done, figures.failed, figures.cancelled, figures.aborted
    );
    let takeovers: Vec<i64> = outcome.verdict.leaders.iter().filter_map(|leader| leader.takeover_ms).collect();
    let mut sorted = takeovers.clone();
    sorted.sort_unstable();
    match (sorted.get(sorted.len() / 2), sorted.last()) {
        (Some(median), Some(most)) => {
            println!("takeovers     {}, {median} ms at the median, {most} ms at most", sorted.len())
        }
        _ => println!("takeovers     none"),
    }
    println!("refused       {} transactions, {} of them by a guard", figures.refused, figures.fenced);
    println!("healed        everything had ended after {:.1} s", outcome.ended_after.as_secs_f64());
    println!("              {:.1} s at most without a commit", outcome.longest_stall.as_secs_f64());
    let tokens = match outcome.broken_tokens.len() {
        0 => String::new(),
        times => format!("; fencing tokens broke their promise {times} times"),
    };
    let planted = match outcome.planted {
        0 => String::new(),
        times => format!(", but for what the neighbour planted {times} times"),
    };
    println!("safe          {}{planted}{tokens}", outcome.verdict.verdict);
    if outcome.verdict.verdict != "valid" {
        print!("{}", outcome.verdict.text());
    }
    outcome.broken_tokens.iter().for_each(|broken| println!("  token: {broken}"));
    match &outcome.live {
        Ok(()) => println!("live          yes"),
        Err(reason) => println!("live          no: {reason}"),
    }
    if outcome.passed() { Exit::Done } else { Exit::Failed }
}
