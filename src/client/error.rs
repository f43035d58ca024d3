//! Why a client cannot go on.

use coordination::{ConnectError, Failure};
use tree::{DATA_BYTES_MAX, JobId, JobRecord, TaskId};

/// Why a client cannot go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
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
    pub(super) fn closed(job: &JobId, record: &JobRecord) -> Self {
        match &record.withdrawn {
            Some(withdrawn) => ClientError::Withdrawn { job: job.clone(), reason: withdrawn.reason.clone() },
            None => ClientError::Sealed(job.clone()),
        }
    }
}
