//! Reading what a task needs, together with what other tasks need.

use std::sync::Arc;

use coordination::{Failure, Node, Reader};
use futures::future::{BoxFuture, FutureExt, Shared};
use tree::{Assignment, JobRecord, TaskState};

use super::Call;
use super::at_hand::AtHand;
use crate::handlers::TaskError;
use crate::spawn::blocking;
use crate::spill;

/// A job's record and its size in bytes, read once however many tasks ask for it.
type JobRead = Shared<BoxFuture<'static, Result<(Arc<JobRecord>, usize), FetchError>>>;

/// Reads jobs and payloads on one session.
pub(super) struct Fetcher {
    pub(super) reader: Reader,
    pub(super) jobs: AtHand<JobRead>,
}

/// What is needed to run a task.
#[derive(Debug, Clone)]
pub(super) struct Fetched {
    pub(super) job: Arc<JobRecord>,
    /// The size of the job's record, in bytes.
    pub(super) job_bytes: usize,
    pub(super) state: TaskState,
    /// The payload, or why it cannot be had from where it is kept.
    pub(super) payload: Result<Vec<u8>, TaskError>,
}

/// Why a task cannot be run.
#[derive(Debug, Clone)]
pub(super) enum FetchError {
    /// The assignment is over: completed, cancelled or withdrawn.
    Over,
    /// The tree holds something that no client of this protocol writes: the task is marked dead.
    Malformed(String),
    Failed(Failure),
}

impl Fetcher {
    pub(super) fn new(reader: Reader) -> Self {
        Fetcher { reader, jobs: AtHand::default() }
    }

    /// Reads what a task needs, together with what other tasks need.
    pub(super) fn fetch(&mut self, assignment: Assignment) -> Call<Result<Arc<Fetched>, FetchError>> {
        let reader = &self.reader;
        let job = self.jobs.get(&assignment.task.job, |job| {
            let (path, read) = (job.path(), read(reader, job.path()));
            let parse = async move {
                let node = read.await?.ok_or(FetchError::Over)?;
                let job = JobRecord::from_json(&node.data).map_err(|e| FetchError::Malformed(format!("{path}: {e}")));
                job.map(|job| (Arc::new(job), node.data.len()))
            };
            parse.boxed().shared()
        });
        let task = assignment.task.clone();
        let payload = read(reader, task.data_path());
        let state = (assignment.version > 0).then(|| read(reader, task.path()));
        let reader = reader.clone();
        async move {
            let fetched = async {
                let (job, job_bytes) = job.await?;
                let state = match state {
                    None => TaskState::default(),
                    Some(state) => {
                        let node = state.await?;
                        let node = node.filter(|node| node.version == assignment.version).ok_or(FetchError::Over)?;
                        TaskState::from_json(&node.data).map_err(FetchError::Malformed)?
                    }
                };
                match payload.await? {
                    Some(node) if node.version == 0 => {
                        let stored = node.data;
                        let payload = if job.spill.is_none() { Ok(stored) } else { unwrapped(stored).await };
                        return Ok(Arc::new(Fetched { job, job_bytes, state, payload }));
                    }
                    Some(_) | None => {}
                }
                // Completed or cancelled by now; or there never was a payload, and then the task is still there.
                match read(&reader, task.path()).await? {
                    Some(node) if node.version == assignment.version => {
                        let path = task.data_path();
                        Err(FetchError::Malformed(format!("{path} holds no payload at version 0")))
                    }
                    Some(_) | None => Err(FetchError::Over),
                }
            };
            let fetched = fetched.await;
            (assignment, fetched)
        }
        .boxed()
    }
}

/// The payload of a job with a spill directory.
async fn unwrapped(stored: Vec<u8>) -> Result<Vec<u8>, TaskError> {
    let unwrapped = if spill::is_kept(&stored) {
        let lacks = |error| TaskError::WorkerLacks(format!("cannot start a thread to read a payload: {error}"));
        blocking(move || spill::unwrap(&stored)).await.map_err(lacks)?
    } else {
        spill::unwrap(&stored)
    };
    unwrapped.map_err(TaskError::new)
}

/// Reads a znode. One that may not be read is malformed.
fn read(reader: &Reader, path: String) -> impl Future<Output = Result<Option<Node>, FetchError>> + Send + use<> {
    let read = reader.read(path.clone());
    async move {
        read.await.map_err(|failure| match failure {
            Failure::Refused(refusal) => FetchError::Malformed(format!("{path} cannot be read: {refusal}")),
            failure @ (Failure::Unknown(_) | Failure::SessionOver(_)) => FetchError::Failed(failure),
        })
    }
}
