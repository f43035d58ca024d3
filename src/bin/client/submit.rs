//! `client submit`.

use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use futures::stream::{self, TryStreamExt};
use herdsman::cli::report::{Output, Report};
use herdsman::cli::{self, ConnectArgs, Exit};
use herdsman::client::{self, Client, ClientError, FinishedStatus, Job, JobSpec, Limit, Results, Selected, WhenFull};
use herdsman::shutdown::Shutdown;
use tree::JobId;

use super::pace::Pace;
use super::policy::How;
use super::verdict;

/// How long nothing must happen before the client looks for a reason.
const EXPLAIN_AFTER: Duration = Duration::from_secs(3);
/// How long sealing what was submitted and closing the session may take in the end.
const LEAVE_WITHIN: Duration = Duration::from_secs(2);
/// Submissions under way at once.
const SUBMITTING_MAX: usize = 4096;

#[derive(Debug, Args)]
pub struct Submit {
    /// The beginning of the job's name; a random end is added  [default: the kind]
    #[arg(long, env = "HERDSMAN_JOB", value_name = "NAME", value_parser = cli::name)]
    job: Option<String>,

    /// What runs the tasks: sleep, echo, exec, or a kind of your own workers  [default: exec with PROGRAM, else echo]
    #[arg(long, env = "HERDSMAN_KIND", value_parser = cli::name)]
    kind: Option<String>,

    /// Submit so many tasks, all with the same payload
    #[arg(long, env = "HERDSMAN_COUNT", value_name = "N", default_value_t = 1, conflicts_with = "each_line")]
    count: u32,

    /// Submit a task for each line of this file, with the line as its payload ("-" is stdin)
    #[arg(long, env = "HERDSMAN_EACH_LINE", value_name = "FILE", conflicts_with = "data")]
    each_line: Option<PathBuf>,

    /// The payload: text, @FILE, or - for stdin; for sleep, the seconds
    #[arg(long, env = "HERDSMAN_DATA", value_name = "TEXT|@FILE|-", default_value = "", hide_default_value = true)]
    data: String,

    /// Submit no more than so many tasks a second
    #[arg(long, env = "HERDSMAN_RATE", value_name = "PER_SECOND", value_parser = rate)]
    rate: Option<f64>,

    /// How many tasks the tree may hold, of all jobs, outstanding or not yet collected
    #[arg(long, env = "HERDSMAN_TASKS_MAX", value_name = "N", default_value_t = Limit::default().tasks_max)]
    tasks_max: usize,

    /// Refuse to submit more when it holds as many, instead of waiting for room
    #[arg(long, env = "HERDSMAN_REFUSE_WHEN_FULL")]
    refuse_when_full: bool,

    #[command(flatten)]
    how: How,

    /// Submit nothing while a job with this key has not ended: print that one instead
    #[arg(long, env = "HERDSMAN_KEY", value_name = "KEY", value_parser = cli::name)]
    key: Option<String>,

    /// Begin only when these jobs have succeeded; if one does not, this one is aborted
    #[arg(long, env = "HERDSMAN_AFTER", value_name = "JOB", value_delimiter = ',')]
    after: Vec<JobId>,

    /// Keep payloads and results that are too large for ZooKeeper in this directory, which all machines share
    #[arg(long, env = "HERDSMAN_SPILL", value_name = "DIR", value_parser = directory)]
    spill: Option<PathBuf>,

    /// Wait for the outcomes, print and remove them
    #[arg(long, env = "HERDSMAN_WAIT")]
    wait: bool,

    /// What goes to stdout
    #[arg(short, long, env = "HERDSMAN_OUTPUT", value_enum, default_value_t = Output::Table)]
    output: Output,

    /// A program for kind exec, and its arguments; the payload is its stdin
    #[arg(last = true, value_name = "PROGRAM ARGS")]
    program: Vec<String>,
}

/// As every machine will name it.
fn directory(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text).canonicalize().map_err(|error| error.to_string())?;
    if path.is_dir() { Ok(path) } else { Err("it is no directory".to_owned()) }
}

fn rate(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|rate| (0.001..=1e6).contains(rate)).ok_or_else(|| "from 0.001 to 1000000".to_owned())
}

pub async fn submit(connect: &ConnectArgs, submit: Submit, shutdown: &Shutdown) -> Exit {
    let payloads = match payloads(&submit) {
        Ok(payloads) => payloads,
        Err(error) => return cli::complain(&error, None, Exit::Usage),
    };
    let default_kind = if submit.program.is_empty() { "echo" } else { "exec" };
    let kind = submit.kind.clone().unwrap_or_else(|| default_kind.to_owned());
    match (kind.as_str(), submit.program.is_empty()) {
        ("exec", true) => {
            let hint = "client submit --kind exec -- sh -c 'echo hi'";
            return cli::complain(&"exec needs a program", Some(hint), Exit::Usage);
        }
        ("exec", false) | (_, true) => {}
        (kind, false) => {
            let error = format!("tasks of kind '{kind}' run no program");
            return cli::complain(&error, Some("leave out --kind, or what comes after --"), Exit::Usage);
        }
    }
    let when_full = if submit.refuse_when_full { WhenFull::Refuse } else { WhenFull::Wait };
    let limit = Limit { tasks_max: submit.tasks_max.max(1), when_full };
    let name = submit.job.clone().unwrap_or_else(|| kind.clone());
    let (args, after) = (submit.program.clone(), submit.after.clone());
    let (key, spill) = (submit.key.clone(), submit.spill.clone());
    let (policy, delay, time_limit) = (submit.how.policy(), submit.how.delay, submit.how.job_timeout);
    let spec = JobSpec { name, kind, args, policy, delay, time_limit, after, key, spill, limit };
    let (config, mut rng) = (connect.session(false), rand::rng());
    let opened = tokio::select! {
        opened = client::open(&config, spec, &mut rng) => opened,
        () = shutdown.requested() => return Exit::Interrupted,
    };
    let (job, mut results) = match opened {
        Ok(opened) => opened,
        Err(ClientError::KeyTaken { key, job }) => {
            cli::note(format_args!("job {job} has the key '{key}' and has not ended: nothing was submitted"));
            cli::say(&format!("{job}\n"));
            return Exit::Done;
        }
        Err(error) => return cli::client_failed(&error),
    };
    let id = job.id().clone();
    if submit.wait && submit.output == Output::Table {
        cli::note(format_args!("job {id}"));
    }
    let submitted = async {
        if submit.wait {
            return attend(connect, &submit, &job, &mut results, payloads).await;
        }
        send(&job, payloads, submit.rate).await?;
        job.seal().await?;
        if !cli::try_say(&format!("{id}\n")) {
            cli::note(format_args!("job {id} was submitted"));
        }
        Ok(Exit::Done)
    };
    let ended = tokio::select! {
        submitted = submitted => submitted,
        () = shutdown.requested() => Ok(Exit::Interrupted),
    };
    let goes_on = matches!(ended, Ok(Exit::Interrupted) | Err(ClientError::Undelivered { .. }));
    let exit = ended.unwrap_or_else(|error| cli::client_failed(&error));
    // What was submitted is sealed, so that anybody can collect it, and the session closed.
    drop(job);
    let left = tokio::time::timeout(LEAVE_WITHIN, results.leave()).await;
    if exit == Exit::Interrupted {
        let collect = format!("collect it with `client results {id}`");
        cli::note(format_args!("interrupted: job {id} goes on without this client; {collect}"));
    }
    if goes_on && !matches!(left, Ok(Ok(()))) {
        cli::note("ZooKeeper did not answer in time: if the job is not sealed, add --seal");
    }
    exit
}

/// Submits and receives at the same time.
async fn attend(
    connect: &ConnectArgs,
    submit: &Submit,
    job: &Job,
    results: &mut Results,
    payloads: Vec<Vec<u8>>,
) -> Result<Exit, ClientError> {
    let mut report = Report::new(submit.output, Some(payloads.len() as u64));
    let id = job.id().clone();
    let rate = submit.rate;
    let submitting = async {
        send(job, payloads, rate).await?;
        job.seal().await
    };
    tokio::pin!(submitting);
    let (mut submitted, mut explained, mut removed) = (false, false, 0);
    loop {
        tokio::select! {
            sent = &mut submitting, if !submitted => {
                match sent {
                    // What was submitted has ended, or will: it is received all the same.
                    Err(error @ ClientError::Withdrawn { .. }) => cli::note(error),
                    sent => sent?,
                }
                submitted = true;
            }
            next = results.next() => match next? {
                Some(finished) => {
                    if let Err(error) = report.finished(std::slice::from_ref(&finished)) {
                        if !submitted {
                            cli::note("not all is submitted: the job stays as it is now");
                        }
                        return Err(ClientError::Undelivered { job: id, error, removed });
                    }
                    // Asking for the next removes it.
                    removed += usize::from(finished.status != FinishedStatus::Dead);
                }
                None => break,
            },
            () = tokio::time::sleep(EXPLAIN_AFTER), if !explained => {
                explained = true;
                explain(connect, &id).await;
            }
        }
    }
    if report.dead() > 0 {
        let dead = report.dead();
        cli::note(format_args!("{dead} tasks are dead and stay: `client retry {id}`, or `client forget {id}`"));
    }
    Ok(verdict(&report.end()))
}

/// Says why nothing happens, where a reason can be seen.
async fn explain(connect: &ConnectArgs, job: &JobId) {
    let Ok(client) = Client::connect(&connect.session(false)).await else { return };
    let selected = Selected { job: job.clone(), tasks: None };
    for reason in client.explain(&selected).await.unwrap_or_default() {
        cli::note(format_args!("still waiting: {reason}"));
    }
    client.close().await;
}

async fn send(job: &Job, payloads: Vec<Vec<u8>>, rate: Option<f64>) -> Result<(), ClientError> {
    // One takes its place after the other, and many are acknowledged at a time.
    let in_order = stream::unfold((payloads.into_iter(), rate.map(Pace::new)), |(mut payloads, mut pace)| async move {
        let payload = payloads.next()?;
        if let Some(pace) = &mut pace {
            pace.turn().await;
        }
        Some((job.enqueue(payload).await, (payloads, pace)))
    });
    in_order.try_buffered(SUBMITTING_MAX).try_for_each(|_| std::future::ready(Ok(()))).await
}

fn payloads(submit: &Submit) -> Result<Vec<Vec<u8>>, String> {
    let read = |path: &str| -> Result<Vec<u8>, String> {
        let mut bytes = Vec::new();
        let read = match path {
            "-" => std::io::stdin().read_to_end(&mut bytes).map(|_| bytes),
            path => std::fs::read(path),
        };
        read.map_err(|error| format!("cannot read {path}: {error}"))
    };
    if let Some(file) = &submit.each_line {
        let bytes = read(&file.to_string_lossy())?;
        let lines = bytes.strip_suffix(b"\n").unwrap_or(&bytes).split(|b| *b == b'\n');
        return Ok(if bytes.is_empty() { Vec::new() } else { lines.map(<[u8]>::to_vec).collect() });
    }
    let payload = match submit.data.strip_prefix('@') {
        Some(path) => read(path)?,
        None if submit.data == "-" => read("-")?,
        None => submit.data.clone().into_bytes(),
    };
    Ok(vec![payload; submit.count as usize])
}
