//! `client`: submits tasks, waits for them, collects their outcomes, and shows the herd.

#![warn(clippy::print_stdout, clippy::print_stderr)]

mod pace;
mod policy;
mod stress;
mod submit;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use audit::Ending;
use clap::{Args, Parser, Subcommand};
use herdsman::cli::report::{self, Output, Report};
use herdsman::cli::{self, ConnectArgs, Exit};
use herdsman::client::{self, Client, ClientError, JobView, Selected, Selector, Tally};
use herdsman::shutdown::Shutdown;
use tree::{JobId, TaskId, TaskState};

/// How many lost tasks are named, where they are not to be listed.
const LOST_NAMED_MAX: usize = 10;

/// Submits tasks, waits for them, collects their outcomes, and shows the herd.
#[derive(Debug, Parser)]
#[command(version, after_help = cli::EXIT_CODES)]
struct Cli {
    #[command(flatten)]
    connect: ConnectArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Submit a job: one task, or many of one kind
    #[command(after_help = cli::EXIT_CODES)]
    Submit(Box<submit::Submit>),
    /// Wait until every task of a job has ended; removes nothing
    #[command(after_help = cli::EXIT_CODES)]
    Wait {
        /// The job that `submit` printed
        job: JobId,
        /// What goes to stdout
        #[arg(short, long, env = "HERDSMAN_OUTPUT", value_enum, default_value_t = Output::Table)]
        output: Output,
    },
    /// Print the outcomes of a job, then remove them
    #[command(after_help = cli::EXIT_CODES)]
    Results {
        /// The job that `submit` printed
        job: JobId,
        /// Leave the outcomes where they are
        #[arg(long, env = "HERDSMAN_KEEP")]
        keep: bool,
        /// Take over a job whose client died while it was submitting
        #[arg(long, env = "HERDSMAN_SEAL")]
        seal: bool,
        /// What goes to stdout
        #[arg(short, long, env = "HERDSMAN_OUTPUT", value_enum, default_value_t = Output::Table)]
        output: Output,
    },
    /// End what is outstanding, in whatever state it is; running programs are stopped
    #[command(after_help = cli::EXIT_CODES)]
    Cancel {
        #[command(flatten)]
        which: Which,
        /// Why; whoever waits is told
        #[arg(long, env = "HERDSMAN_REASON", default_value = "cancelled by hand")]
        reason: String,
    },
    /// Attempt dead tasks again
    #[command(after_help = cli::EXIT_CODES)]
    Retry(Which),
    /// Remove jobs and all that is in them, or the outcomes and dead tasks among some tasks
    #[command(after_help = cli::EXIT_CODES)]
    Forget(Which),
    /// List the jobs, or the dead tasks with each attempt's error
    #[command(after_help = cli::EXIT_CODES)]
    List {
        /// Whose tasks
        #[arg(value_name = "last | JOB | JOB/1-5 | all", default_value = "all")]
        which: Selector,
        /// List dead tasks, oldest job first
        #[arg(long, env = "HERDSMAN_DEAD")]
        dead: bool,
        /// What goes to stdout
        #[arg(short, long, env = "HERDSMAN_OUTPUT", value_enum, default_value_t = Output::Table)]
        output: Output,
    },
    /// Show a job closely: policy, and each task that is in the tree
    #[command(after_help = cli::EXIT_CODES)]
    Info {
        #[command(flatten)]
        which: Which,
        /// What goes to stdout
        #[arg(short, long, env = "HERDSMAN_OUTPUT", value_enum, default_value_t = Output::Table)]
        output: Output,
    },
    /// Print what tasks print: of running ones the end, of others what their outcomes kept
    #[command(after_help = cli::EXIT_CODES)]
    Logs {
        #[command(flatten)]
        which: Which,
        /// Go on until all have ended
        #[arg(short, long, env = "HERDSMAN_FOLLOW")]
        follow: bool,
    },
    /// Say why a job or a task is not done
    #[command(after_help = cli::EXIT_CODES)]
    Explain(Which),
    /// Measure a ZooKeeper service with simulated clients on all workers
    #[command(after_help = cli::EXIT_CODES)]
    Stress(Box<stress::Stress>),
    /// Show the leader, the backups, the workers with their load, and the queue
    #[command(after_help = cli::EXIT_CODES)]
    Status {
        /// Print what is missing and nothing else, and exit with 1, unless somebody leads and a worker is registered
        #[arg(long, env = "HERDSMAN_CHECK")]
        check: bool,
        /// What goes to stdout
        #[arg(short, long, env = "HERDSMAN_OUTPUT", value_enum, default_value_t = Output::Table)]
        output: Output,
    },
    /// Judge a herd by ZooKeeper's own transaction logs: exits with 0 if it kept every rule, 1 if not, 2 if that cannot be
    /// told
    Audit {
        /// The data folder of each ZooKeeper server (dataLogDir, where it has one)
        #[arg(long = "log", env = "HERDSMAN_LOG_DIRS", value_name = "DATA_DIR", required = true, num_args = 1.., value_delimiter = ',')]
        logs: Vec<PathBuf>,
        /// The znode below which the herd lives, where that is not the root
        #[arg(long, env = "HERDSMAN_CHROOT", value_name = "PATH", default_value = "", hide_default_value = true)]
        chroot: String,
        /// Demand that every task has ended: the herd had its time, so what still waits or runs was lost sight of
        #[arg(long, env = "HERDSMAN_SETTLED")]
        settled: bool,
        /// Show every case of each broken rule, not only the first three
        #[arg(long, env = "HERDSMAN_ALL")]
        all: bool,
        /// What goes to stdout
        #[arg(short, long, env = "HERDSMAN_OUTPUT", value_enum, default_value_t = Output::Table)]
        output: Output,
    },
    /// Show the znodes with their data
    #[command(after_help = cli::EXIT_CODES)]
    Tree {
        /// The most children shown of each znode
        #[arg(long, env = "HERDSMAN_LIMIT", default_value_t = 20)]
        limit: usize,
    },
}

/// Which jobs or tasks a command is about.
#[derive(Debug, Args)]
struct Which {
    /// The job opened last, one job, some of its tasks, or every job
    #[arg(value_name = "last | JOB | JOB/1-5 | all")]
    which: Selector,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    cli::start_logging(cli.connect.log_format, "warn");
    if let Command::Audit { logs, chroot, settled, all, output } = &cli.command {
        let ending = if *settled { Ending::Settled } else { Ending::Open };
        return cli::ended(audit(logs, chroot, ending, *all, *output)).into();
    }
    cli::run(async {
        let shutdown = match Shutdown::on_signals() {
            Ok(shutdown) => shutdown,
            Err(error) => return cli::complain(&format!("cannot handle signals: {error}"), None, Exit::Failed),
        };
        let Cli { connect, command } = cli;
        match command {
            Command::Submit(submit) => submit::submit(&connect, *submit, &shutdown).await,
            Command::Stress(stress) => stress::stress(&connect, *stress, &shutdown).await,
            command => tokio::select! {
                done = look(&connect, command) => done.unwrap_or_else(|error| cli::client_failed(&error)),
                () = shutdown.requested() => Exit::Interrupted,
            },
        }
    })
}

/// The commands that need no job of their own.
async fn look(connect: &ConnectArgs, command: Command) -> Result<Exit, ClientError> {
    let mut client = Client::connect(&connect.session(false)).await?;
    let exit = look_with(&mut client, command).await;
    client.close().await;
    exit
}

async fn look_with(client: &mut Client, command: Command) -> Result<Exit, ClientError> {
    let exit = match command {
        Command::Submit(_) | Command::Stress(_) | Command::Audit { .. } => unreachable!("handled by the caller"),
        Command::Wait { job, output } => {
            let mut progress = Report::new(output, Some(2).filter(|_| output != Output::Quiet));
            let waited = client.wait(&job, |tally| progress.progress(tally.outstanding)).await;
            progress.end();
            let tally = waited?;
            match output {
                Output::Quiet => {}
                Output::Json => {
                    let line = serde_json::json!({ "job": job, "done": tally.done, "failed": tally.failed });
                    println(&line.to_string());
                }
                Output::Table => println(&format!("{job}: {} done, {} failed", tally.done, tally.failed)),
            }
            if tally.lost > 0 {
                // Whoever attends the job may have closed it by now, and was told.
                let _ = name_lost(client, job).await;
            }
            verdict(&tally)
        }
        Command::Results { job, keep, seal, output } => {
            let mut report = Report::new(output, None);
            let tally = client.results(&job, keep, seal, |finished| report.finished(finished)).await?;
            report.end();
            if tally.outstanding > 0 {
                cli::note(format_args!(
                    "{} tasks of {job} are outstanding; wait for them with `client wait {job}`",
                    tally.outstanding
                ));
            }
            verdict(&tally)
        }
        Command::Cancel { which: Which { which }, reason } => {
            each(client, &which, async |selected| {
                println(&format!("{selected}: {} tasks cancelled", client.cancel(selected, &reason).await?));
                Ok(())
            })
            .await?
        }
        Command::Retry(Which { which }) => {
            each(client, &which, async |selected| {
                println(&format!("{selected}: {} dead tasks are attempted again", client.retry(selected).await?));
                Ok(())
            })
            .await?
        }
        Command::Forget(Which { which }) => {
            each(client, &which, async |selected| {
                println(&format!("{selected}: {} tasks forgotten", client.forget(selected).await?));
                Ok(())
            })
            .await?
        }
        Command::List { which, dead: true, output } => {
            let mut dead = Vec::new();
            for selected in client.select(&which).await? {
                dead.extend(client.dead(&selected).await?);
            }
            let json = |(task, state, _): &(TaskId, TaskState, i32)| {
                serde_json::json!({ "task": task.to_string(), "state": state }).to_string()
            };
            match output {
                Output::Quiet => {}
                Output::Json => dead.iter().for_each(|task| println(&json(task))),
                Output::Table => cli::say(&report::dead(&dead)),
            }
            Exit::Done
        }
        Command::List { which, dead: false, output } => {
            let selected = client.select(&which).await?;
            let herd = client::herd(client.session()).await?;
            let listed = |job: &&JobView| selected.iter().any(|selected| selected.job.as_str() == job.id);
            for job in herd.jobs.iter().filter(listed) {
                match output {
                    Output::Quiet => {}
                    Output::Json => println(&serde_json::to_string(job).unwrap_or_default()),
                    Output::Table => println(&report::job_line(job)),
                }
            }
            Exit::Done
        }
        Command::Info { which: Which { which }, output } => {
            each(client, &which, async |selected| {
                let info = client.info(selected).await?;
                match output {
                    Output::Quiet => {}
                    Output::Json => println(&serde_json::to_string(&info).unwrap_or_default()),
                    Output::Table => cli::say(&report::job(&info)),
                }
                Ok(())
            })
            .await?
        }
        Command::Logs { which: Which { which }, follow } => {
            each(client, &which, async |selected| {
                client.logs(selected, follow, |task, line| report::log(task, &line)).await
            })
            .await?
        }
        Command::Explain(Which { which }) => {
            each(client, &which, async |selected| {
                let reasons = client.explain(selected).await?;
                if reasons.is_empty() {
                    println(&format!("{selected}: nothing is in its way"));
                }
                reasons.iter().for_each(|reason| println(&format!("{selected}: {reason}")));
                Ok(())
            })
            .await?
        }
        Command::Status { check: true, output } => {
            let lacks = client.lacks().await?;
            match output {
                Output::Quiet => {}
                Output::Json => println(&serde_json::json!({ "serves": lacks.is_empty(), "lacks": lacks }).to_string()),
                Output::Table => lacks.iter().for_each(|lack| println(lack)),
            }
            if lacks.is_empty() { Exit::Done } else { Exit::Failed }
        }
        Command::Status { check: false, output } => {
            let herd = client::herd(client.session()).await?;
            match output {
                Output::Quiet => {}
                Output::Json => cli::say(&format!("{}\n", serde_json::to_string(&herd).unwrap_or_default())),
                Output::Table => cli::say(&report::herd(&herd)),
            }
            Exit::Done
        }
        Command::Tree { limit } => {
            cli::say(&report::tree(&client::tree(client.session(), limit).await?));
            Exit::Done
        }
    };
    Ok(exit)
}

/// Does something with each job that is meant. What is malformed hides no other: it is named, and the exit code says so. One that
/// was closed since `all` were listed is passed over.
async fn each(
    client: &Client,
    which: &Selector,
    mut with: impl AsyncFnMut(&Selected) -> Result<(), ClientError>,
) -> Result<Exit, ClientError> {
    let mut exit = Exit::Done;
    for selected in client.select(which).await? {
        match with(&selected).await {
            Err(error @ ClientError::Malformed { .. }) => exit = cli::client_failed(&error),
            Err(ClientError::NotFound(_)) if *which == Selector::All => {}
            done => done?,
        }
    }
    Ok(exit)
}

/// Says which tasks of a job somebody deleted.
async fn name_lost(client: &Client, job: JobId) -> Result<(), ClientError> {
    let info = client.info(&Selected { job, tasks: None }).await?;
    for task in info.tasks.iter().filter(|task| task.state == "lost").take(LOST_NAMED_MAX) {
        cli::note(format_args!("task {}/{} was {}", info.id, task.n, task.error.as_deref().unwrap_or("lost")));
    }
    Ok(())
}

/// The auditor needs no ZooKeeper, only what it left behind.
fn audit(logs: &[PathBuf], chroot: &str, ending: Ending, all: bool, output: Output) -> Exit {
    let folders: Vec<&Path> = logs.iter().map(PathBuf::as_path).collect();
    let verdict = match audit::audit(&folders, chroot, ending) {
        Ok(verdict) => verdict,
        Err(error) => return cli::complain(&error, Some("name the server's dataDir"), Exit::Usage),
    };
    match output {
        Output::Quiet => {}
        Output::Json => cli::say(&format!("{}\n", serde_json::to_string(&verdict).unwrap_or_default())),
        Output::Table if all => cli::say(&verdict.text_in_full()),
        Output::Table => cli::say(&verdict.text()),
    }
    match verdict.verdict {
        "valid" => Exit::Done,
        "invalid" => Exit::Failed,
        _ => Exit::Usage,
    }
}

fn println(line: &str) {
    cli::say(&format!("{line}\n"));
}

fn verdict(tally: &Tally) -> Exit {
    if tally.failed == 0 { Exit::Done } else { Exit::Failed }
}
