//! `worker`: runs the tasks that the leader assigns to it.

#![warn(clippy::print_stdout, clippy::print_stderr)]

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use herdsman::cli::Zkbench;
use herdsman::cli::{self, ConnectArgs, Exit};
use herdsman::handlers::{Exec, Handlers, supervise_if_asked};
use herdsman::shutdown::Shutdown;
use herdsman::worker::Worker;

/// Runs the tasks that the leader assigns to it.
#[derive(Debug, Parser)]
#[command(version, after_help = cli::EXIT_CODES)]
struct Args {
    #[command(flatten)]
    connect: ConnectArgs,

    /// Shown to people; need not be unique
    #[arg(long, env = "HERDSMAN_NAME", default_value = "worker", value_parser = cli::name)]
    name: String,

    /// How many tasks to run at once
    #[arg(long, env = "HERDSMAN_SLOTS", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    slots: u32,

    /// What else jobs may require of a worker: a machine's features, its place
    #[arg(long, env = "HERDSMAN_TAGS", value_delimiter = ',', value_parser = cli::name)]
    tags: Vec<String>,

    /// What to run beside sleep, echo and zkbench; exec runs any program that a client names
    #[arg(long, env = "HERDSMAN_ALLOW", value_delimiter = ',')]
    allow: Vec<Allowed>,

    /// How long running tasks may go on after SIGTERM before they are handed back
    #[arg(long, env = "HERDSMAN_GRACE", value_name = "DURATION", default_value = "30s", value_parser = cli::duration)]
    grace: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Allowed {
    /// Programs
    Exec,
}

fn main() -> ExitCode {
    if let Some(exit) = supervise_if_asked() {
        return exit;
    }
    let args = Args::parse();
    cli::start_logging(args.connect.log_format, "info");
    let mut handlers = Handlers::builtin().with("zkbench", Zkbench::new(args.connect.session(false)));
    if args.allow.contains(&Allowed::Exec) {
        if let Err((error, hint)) = cli::make_room(args.slots) {
            return cli::complain(&error, Some(&hint), Exit::Usage).into();
        }
        handlers = handlers.with("exec", Exec::new());
    }
    cli::run(async {
        let shutdown = match Shutdown::on_signals() {
            Ok(shutdown) => shutdown,
            Err(error) => return cli::complain(&format!("cannot handle signals: {error}"), None, Exit::Failed),
        };
        let worker = Worker { name: args.name, slots: args.slots, tags: args.tags, handlers, grace: args.grace };
        match herdsman::run(worker, &args.connect.session(true), &shutdown).await {
            Ok(()) => Exit::Done,
            Err(error) => cli::cannot_connect(&error),
        }
    })
}
