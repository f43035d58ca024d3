//! `master`: stands for leader, and assigns tasks while it leads.

#![warn(clippy::print_stdout, clippy::print_stderr)]

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use herdsman::cli::{self, ConnectArgs, Exit};
use herdsman::master::Master;
use herdsman::shutdown::Shutdown;

/// Stands for leader, and assigns tasks to workers while it leads.
#[derive(Debug, Parser)]
#[command(version, after_help = cli::EXIT_CODES)]
struct Args {
    #[command(flatten)]
    connect: ConnectArgs,

    /// Shown to people; need not be unique
    #[arg(long, env = "HERDSMAN_NAME", default_value = "master", value_parser = cli::name)]
    name: String,

    /// How long outcomes that nobody collects are kept
    #[arg(long, env = "HERDSMAN_RETENTION", value_name = "DURATION", default_value = "24h", value_parser = cli::duration)]
    retention: Duration,
}

fn main() -> ExitCode {
    let args = Args::parse();
    cli::start_logging(args.connect.log_format, "info");
    cli::run(async {
        let shutdown = match Shutdown::on_signals() {
            Ok(shutdown) => shutdown,
            Err(error) => return cli::complain(&format!("cannot handle signals: {error}"), None, Exit::Failed),
        };
        let master = Master { name: args.name, retention: args.retention };
        match herdsman::run(master, &args.connect.session(true), &shutdown).await {
            Ok(()) => Exit::Done,
            Err(error) => cli::cannot_connect(&error),
        }
    })
}
