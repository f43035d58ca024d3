//! The client: submits jobs, waits for them, collects their outcomes, cleans up.
//!
//! | file | what it holds |
//! |---|---|
//! | [`submit`] | [`open`]: a job of one's own, from the first task to the last outcome |
//! | `submitter`, `requests` | the task behind it, and what that has under way |
//! | `ending` | what is left of a task whose znode is gone |
//! | [`admission`] | how many tasks the tree takes |
//! | [`attend`] | [`Client`]: a job known by its name: wait, results |
//! | `health` | whether the herd serves |
//! | [`info`] | a job looked at closely: info, explain |
//! | [`logs`] | what tasks print, while they run too |
//! | `manage` | cancel, retry, forget |
//! | [`select`] | which jobs and tasks a command means |
//! | [`view`] | what the herd looks like: status and tree |

pub mod admission;
pub mod attend;
mod ending;
mod health;
pub mod info;
pub mod logs;
mod manage;
mod requests;
pub mod select;
pub mod submit;
mod submitter;
pub mod view;

pub use admission::{Limit, WhenFull};
pub use attend::{Client, Tally};
pub use info::{JobInfo, TaskInfo};
pub use logs::LogLine;
pub use select::{Selected, Selector};
pub use submit::{Job, JobSpec, Results, open};
pub use view::{Herd, JobView, MasterView, WorkerView};

use std::fmt;
use std::time::Duration;
use tree::transitions;

use serde::Serialize;
use serde_json::Value;

use crate::closing;
use crate::run::{TRIES_MAX, gave_up};
use crate::spawn::blocking_even_here;
use crate::spill;
use coordination::{ConnectError, Failure, MultiFailure, Refusal, Session};
use tree::{DATA_BYTES_MAX, JobId, JobRecord, Outcome, OutcomeStatus, TaskId, TaskState};
use tree::{has_tasks, is_ephemeral};

/// How long the first session may take.
const CONNECT: Duration = Duration::from_secs(10);
/// How long a new session may take when one ended.
const RECONNECT: Duration = Duration::from_secs(60);

/// Why a client cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No session could be had.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// Nobody has ever been here: the roots are missing.
    #[error("there is no herd here: no master or worker has started with this `--zookeeper`")]
    NoHerd,
    /// There is no such job: never opened, or closed by now.
    #[error("there is no job {0}")]
    NotFound(JobId),
    /// There is no job at all.
    #[error("there is no job")]
    NoJob,
    /// Somebody sealed the job: nothing more can be submitted. A task whose submission had no answer by then may have been
    /// submitted, and collected by whoever sealed it.
    #[error("job {0} was sealed by somebody else: nothing more can be submitted to it")]
    Sealed(JobId),
    /// Another job has the key, and has not ended.
    #[error("job {job} has the key '{key}' and has not ended: nothing was submitted")]
    KeyTaken {
        /// The key.
        key: String,
        /// Who has it.
        job: JobId,
    },
    /// The job was withdrawn: it was cancelled, ran out of time, or waited for one that did not succeed.
    #[error("job {job} was withdrawn: {reason}")]
    Withdrawn {
        /// Which.
        job: JobId,
        /// Why.
        reason: String,
    },
    /// The job is not sealed, so only its submitter may remove anything.
    #[error("job {0} is not sealed: its client may still be submitting")]
    NotSealed(JobId),
    /// Tasks of a withdrawn job do not go away, whoever ends them.
    #[error("{task} and {more} more tasks of its job cannot be ended: they do not go away, see {}", .task.path())]
    NotEnded {
        /// One of them.
        task: TaskId,
        /// How many others there are.
        more: usize,
    },
    /// A payload is over the limit.
    #[error("a payload has {0} bytes, more than the {DATA_BYTES_MAX} that fit into the tree")]
    TooLarge(usize),
    /// A large payload cannot be kept where the job says.
    #[error("cannot keep a payload in the spill directory: {0}")]
    Spill(#[from] std::io::Error),
    /// Whoever was to take the outcomes could not. What had not been taken is in the tree.
    #[error("not all outcomes of {job} were delivered: {error}")]
    Undelivered {
        /// Whose.
        job: JobId,
        /// Why not.
        error: std::io::Error,
        /// How many had been taken before, and were removed.
        removed: usize,
    },
    /// The tree holds as many tasks as it may.
    #[error("the tree holds {tasks} tasks, outstanding or not yet collected, and may hold {tasks_max}")]
    Full {
        /// How many there are.
        tasks: usize,
        /// How many there may be.
        tasks_max: usize,
    },
    /// ZooKeeper refused, or the session ended and nothing can be said.
    #[error("ZooKeeper: {0}")]
    Failed(#[from] Failure),
    /// What is stored under this path follows no protocol of ours.
    #[error("{path} is malformed: {error}")]
    Malformed {
        /// The znode.
        path: String,
        /// What is wrong with it.
        error: String,
    },
}

impl ClientError {
    /// Why nothing more can be submitted to a job that is sealed.
    fn closed(job: &JobId, record: &JobRecord) -> Self {
        match &record.withdrawn {
            Some(withdrawn) => ClientError::Withdrawn { job: job.clone(), reason: withdrawn.reason.clone() },
            None => ClientError::Sealed(job.clone()),
        }
    }
}

/// A task's end, as `-o json` shows it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Finished {
    /// The task.
    pub task: String,
    /// How it ended.
    pub status: FinishedStatus,
    /// Who ended it.
    pub worker: Option<String>,
    /// How many attempts it took.
    pub attempts: u32,
    /// What the handler returned.
    pub result: Value,
    /// Why it is not done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// How a task ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FinishedStatus {
    /// Its handler returned a result.
    Done,
    /// Its only attempt failed.
    Failed,
    /// It is out of attempts, and stays in the tree: it can be retried.
    Dead,
    /// It was cancelled.
    Cancelled,
    /// It was never to be done: a job before it did not succeed, or its client was gone.
    Aborted,
    /// It is gone without an outcome: swept, or collected by somebody else.
    Gone,
    /// Somebody deleted its znode by hand before it had ended: nobody will run it.
    Lost,
}

impl fmt::Display for FinishedStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            FinishedStatus::Done => "done",
            FinishedStatus::Failed => "failed",
            FinishedStatus::Dead => "dead",
            FinishedStatus::Cancelled => "cancelled",
            FinishedStatus::Aborted => "aborted",
            FinishedStatus::Gone => "gone",
            FinishedStatus::Lost => "lost",
        })
    }
}

impl Finished {
    /// A task whose outcome is stored as `data`, with its result, wherever that is kept.
    async fn with_outcome(task: &TaskId, data: &[u8]) -> Self {
        let outcome = match Outcome::from_json(data) {
            // It may be large, and far away: the thread of the session does not wait for it.
            Ok(outcome) if outcome.spilled.is_some() => {
                blocking_even_here(move || with_result(outcome)).await.unwrap_or_else(|error| Err(error.to_string()))
            }
            outcome => outcome,
        };
        Finished::of(task, outcome)
    }

    /// A task with this outcome; with none where that cannot be had.
    fn of(task: &TaskId, outcome: Result<Outcome, String>) -> Self {
        match outcome {
            Ok(outcome) => Finished {
                task: task.to_string(),
                status: match outcome.status {
                    OutcomeStatus::Done => FinishedStatus::Done,
                    OutcomeStatus::Failed => FinishedStatus::Failed,
                    OutcomeStatus::Cancelled => FinishedStatus::Cancelled,
                    OutcomeStatus::Aborted => FinishedStatus::Aborted,
                },
                worker: outcome.worker,
                attempts: outcome.attempts,
                result: outcome.result,
                error: outcome.error,
            },
            Err(error) => Finished::without_outcome(task, error),
        }
    }

    /// A task whose outcome is malformed, or may not be read.
    fn without_outcome(task: &TaskId, why: impl fmt::Display) -> Self {
        Finished {
            task: task.to_string(),
            status: FinishedStatus::Failed,
            worker: None,
            attempts: 0,
            result: Value::Null,
            error: Some(format!("{} holds no outcome that can be had: {why}", task.data_path())),
        }
    }

    fn dead(task: &TaskId, state: &TaskState) -> Self {
        let last = state.last();
        Finished {
            task: task.to_string(),
            status: FinishedStatus::Dead,
            worker: last.map(|last| last.worker.clone()),
            attempts: state.attempt,
            result: Value::Null,
            error: last.map(|last| last.error.clone()),
        }
    }

    fn gone(task: &TaskId) -> Self {
        Finished {
            task: task.to_string(),
            status: FinishedStatus::Gone,
            worker: None,
            attempts: 0,
            result: Value::Null,
            error: Some("it was removed, swept, or collected by somebody else".to_owned()),
        }
    }

    /// Somebody deleted the znode by hand.
    fn lost(task: &TaskId) -> Self {
        let error = format!("lost by hand: somebody deleted {}, so nobody will run it", task.path());
        Finished { status: FinishedStatus::Lost, error: Some(error), ..Finished::gone(task) }
    }

    /// Whether the handler returned a result.
    pub fn is_done(&self) -> bool {
        self.status == FinishedStatus::Done
    }
}

/// An outcome with its result, wherever that is kept.
fn with_result(mut outcome: Outcome) -> Result<Outcome, String> {
    if let Some(kept) = &outcome.spilled {
        outcome.result = serde_json::from_slice(&spill::load(kept)?).map_err(|error| error.to_string())?;
    }
    Ok(outcome)
}

/// Shows by an ephemeral znode that a client attends a job, so that nobody sweeps it meanwhile.
async fn show(session: &Session, client: &str) -> Result<(), Failure> {
    match session.insist(transitions::attend(client)).await {
        // No job any more: whoever looks for it next will see.
        Ok(_) | Err(Failure::Refused(Refusal::NodeExists | Refusal::NoNode)) => Ok(()),
        Err(failure) => Err(failure),
    }
}

/// The row *close*: the job goes, with the marks of whoever attends it, and its key is free. Returns whether the job is
/// gone; it stays where a task or an outcome is left in it.
async fn close(session: &Session, job: &JobId) -> Result<bool, Failure> {
    for _ in 0..TRIES_MAX {
        let Some(names) = session.children(&job.path()).await? else { return Ok(true) };
        let data = session.children(&job.data_path()).await?;
        if has_tasks(&names) || !data.iter().flatten().all(|name| is_ephemeral(name)) {
            return Ok(false);
        }
        // What is left are ephemerals: clients that attend it, and tasks that were cancelled and are being stopped.
        let record = session.get(&job.path()).await?.and_then(|node| JobRecord::from_json(&node.data).ok());
        let ties = match &record {
            Some(record) => closing::ties(session, job, record).await?,
            None => Vec::new(),
        };
        let ops = transitions::close(job, &names, data.as_deref(), ties); // somebody's hand may have removed its data
        match session.multi(&ops).await {
            Ok(_) => {
                if let Some(directory) = record.and_then(|record| record.spill) {
                    spill::remove_aside(directory, job.clone()).await;
                }
                return Ok(true);
            }
            Err(MultiFailure { failure: Failure::Refused(Refusal::NotEmpty), .. }) => return Ok(false),
            Err(MultiFailure { failure: Failure::Unknown(_), .. }) => session.settle().await?,
            Err(MultiFailure { failure: Failure::Refused(Refusal::NoNode | Refusal::BadVersion), .. }) => {
                // Closed by somebody else, or by this very call; or only the key has gone to another job.
                if session.get(&job.path()).await?.is_none() {
                    return Ok(true);
                }
            }
            Err(error) => return Err(error.failure),
        }
    }
    Err(Failure::Refused(gave_up(&job.path())))
}
