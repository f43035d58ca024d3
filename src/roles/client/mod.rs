//! The client: submits jobs, waits for them, collects their outcomes, cleans up.
//!
//! | file | what it holds |
//! |---|---|
//! | [`submit`] | [`open`]: a job of one's own, from the first task to the last outcome |
//! | `submitter`, `calls` | the task behind it, and what that has under way |
//! | [`room`] | how many tasks the tree takes |
//! | [`attend`] | [`Client`]: a job known by its name: wait, results, cancel |
//! | [`view`] | what the herd looks like: status and tree |

pub mod attend;
mod calls;
pub mod room;
pub mod submit;
mod submitter;
pub mod view;

pub use attend::{Client, Tally};
pub use room::{Limit, WhenFull};
pub use submit::{Job, JobSpec, Results, open};
pub use view::{Herd, JobView, MasterView, WorkerView};

use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use crate::coordination::{ConnectError, Failure, MultiFailure, Op, Refusal, Session};
use crate::records::{DATA_BYTES_MAX, JobId, Outcome, OutcomeStatus, TaskId, TaskState};

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
    /// Somebody sealed the job: nothing more can be submitted.
    #[error("job {0} was sealed by somebody else: nothing more can be submitted to it")]
    Sealed(JobId),
    /// The job is not sealed, so only its submitter may remove anything.
    #[error("job {0} is not sealed: its client may still be submitting")]
    NotSealed(JobId),
    /// A payload is over the limit.
    #[error("a payload has {0} bytes, more than the {DATA_BYTES_MAX} that fit: split it, or pass where it is stored")]
    TooLarge(usize),
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
    /// Its last attempt failed.
    Failed,
    /// It stays in the tree and is not attempted any more.
    Dead,
    /// It is gone without an outcome: cancelled, swept, or collected by somebody else.
    Gone,
}

impl Finished {
    /// A task whose outcome is stored as `data`.
    fn with_outcome(task: &TaskId, data: &[u8]) -> Self {
        match Outcome::from_json(data) {
            Ok(outcome) => Finished {
                task: task.to_string(),
                status: match outcome.status {
                    OutcomeStatus::Done => FinishedStatus::Done,
                    OutcomeStatus::Failed => FinishedStatus::Failed,
                },
                worker: Some(outcome.worker),
                attempts: outcome.attempts,
                result: outcome.result,
                error: outcome.error,
            },
            Err(error) => Finished {
                task: task.to_string(),
                status: FinishedStatus::Failed,
                worker: None,
                attempts: 0,
                result: Value::Null,
                error: Some(format!("{} holds no outcome: {error}", task.data_path())),
            },
        }
    }

    fn dead(task: &TaskId, state: TaskState) -> Self {
        Finished {
            task: task.to_string(),
            status: FinishedStatus::Dead,
            worker: state.worker,
            attempts: state.attempt,
            result: Value::Null,
            error: state.error,
        }
    }

    fn gone(task: &TaskId) -> Self {
        Finished {
            task: task.to_string(),
            status: FinishedStatus::Gone,
            worker: None,
            attempts: 0,
            result: Value::Null,
            error: Some("it was cancelled, swept, or collected by somebody else".to_owned()),
        }
    }

    /// Whether the handler returned a result.
    pub fn is_done(&self) -> bool {
        self.status == FinishedStatus::Done
    }
}

/// The row *close*. Returns whether the job is gone; it stays where something is left in it.
async fn close(session: &Session, job: &JobId) -> Result<bool, Failure> {
    loop {
        let delete = |path| Op::Delete { path, version: None };
        match session.multi(&[delete(job.data_path()), delete(job.path())]).await {
            // Absent: closed by somebody else, or by this very call.
            Ok(_) | Err(MultiFailure { failure: Failure::Refused(Refusal::NoNode), .. }) => return Ok(true),
            Err(MultiFailure { failure: Failure::Refused(Refusal::NotEmpty), .. }) => return Ok(false),
            Err(MultiFailure { failure: Failure::Unknown(_), .. }) => session.settle().await?,
            Err(error) => return Err(error.failure),
        }
    }
}
