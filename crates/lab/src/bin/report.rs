//! `report`: writes a page and timelines from what scenarios left behind; see `scenarios/report`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use herdsman::cli::{self, Exit};
use herdsman_lab::{
    report::case::Case,
    report::text::{ChaosOutput, page},
    report::timeline::draw,
};

/// Writes report.md and timeline-*.svg from folders that `scenarios/run --keep` left behind.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Args {
    /// What `scenarios/run --keep` was given
    #[arg(long, value_name = "DIR")]
    kept: PathBuf,

    /// The folder of the scenarios
    #[arg(long, value_name = "DIR")]
    scenarios: PathBuf,

    /// Where to write
    #[arg(long, value_name = "DIR")]
    to: PathBuf,

    /// What `scenarios/chaos` printed, a file for each run
    #[arg(long, value_name = "FILE", num_args = 1..)]
    chaos: Vec<PathBuf>,

    /// When it was run
    #[arg(long)]
    when: String,

    /// On what
    #[arg(long)]
    machine: String,

    /// The scenarios, in the order of the page
    names: Vec<String>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match write(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => cli::complain(&format!("{error:#}"), None, Exit::Failed).into(),
    }
}

fn write(args: &Args) -> anyhow::Result<()> {
    let mut cases = Vec::new();
    for name in &args.names {
        cases.push(Case::read(&args.kept.join(name), name, &args.scenarios)?);
    }
    let chaos = args.chaos.iter().map(|file| std::fs::read_to_string(file).map(ChaosOutput));
    let chaos = chaos.collect::<Result<Vec<_>, _>>()?;
    std::fs::create_dir_all(&args.to)?;
    for case in &cases {
        draw(case, &args.to.join(format!("timeline-{}.svg", case.name)))?;
    }
    std::fs::write(args.to.join("report.md"), page(&cases, &chaos, &args.when, &args.machine))?;
    Ok(())
}
