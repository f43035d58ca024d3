//! One attempt, on the threads of the handlers: the handler, its timeout, and what is to be stored of its result.

use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::future::FutureExt;
use serde_json::Value;
use tokio::task::JoinError;
use tokio::time::timeout;
use tracing::warn;
use tree::{Assignment, DATA_BYTES_MAX, Outcome, OutcomeStatus};

use super::CANCEL_GRACE;
use super::fetch::Fetched;
use crate::handlers::{Running, Signals, TaskError};
use crate::spawn::blocking_even_here;
use crate::spill;

/// An attempt that is over.
pub(super) struct Ended {
    pub(super) assignment: Assignment,
    pub(super) fetched: Arc<Fetched>,
    pub(super) end: End,
}

/// How it ended.
pub(super) enum End {
    /// With an outcome, as it is to be stored.
    Outcome(OutcomeStatus, Vec<u8>),
    /// Without: the task waits again, or is dead.
    Failed(String),
    /// It was never begun, for want of this.
    WorkerLacks(String),
}

/// What is to be run.
pub(super) struct Attempt {
    pub(super) worker: String,
    pub(super) assignment: Assignment,
    pub(super) fetched: Arc<Fetched>,
    /// `None` where this worker does not run tasks of that kind.
    pub(super) running: Option<Running>,
    pub(super) signals: Arc<Signals>,
}

impl Attempt {
    /// Runs a task, and makes of what it returns what is to be stored.
    pub(super) async fn run(mut self) -> Ended {
        let result = self.result().await;
        let (assignment, fetched) = (self.assignment.clone(), self.fetched.clone());
        let (status, result, error) = match result {
            Ok(result) => (OutcomeStatus::Done, result, None),
            Err(TaskError::WorkerLacks(what)) => return Ended { assignment, fetched, end: End::WorkerLacks(what) },
            Err(TaskError::Failed { error, .. }) if fetched.job.policy.retries() => {
                return Ended { assignment, fetched, end: End::Failed(error) };
            }
            Err(TaskError::Failed { error, result }) => (OutcomeStatus::Failed, result, Some(error)),
        };
        let attempts = fetched.state.attempt + 1;
        let outcome = Outcome { status, worker: Some(self.worker), attempts, result, spilled: None, error };
        let end = stored(kept_if_large(&assignment, &fetched, outcome).await);
        Ended { assignment, fetched, end }
    }

    /// What the handler returns; it is cancelled when the time is over that the job allows for an attempt.
    async fn result(&mut self) -> Result<Value, TaskError> {
        let Some(running) = self.running.take() else {
            let kind = &self.fetched.job.kind;
            return Err(TaskError::new(format!("this worker does not run tasks of kind '{kind}'")));
        };
        let mut caught = pin!(AssertUnwindSafe(running).catch_unwind());
        let ended = match self.fetched.job.policy.timeout_ms.map(Duration::from_millis) {
            None => caught.await,
            Some(limit) => match timeout(limit, &mut caught).await {
                Ok(ended) => ended,
                Err(_) => {
                    self.signals.cancel();
                    let _ = timeout(CANCEL_GRACE, caught).await;
                    return Err(TaskError::new(timed_out(limit)));
                }
            },
        };
        ended.unwrap_or_else(|panic| Err(TaskError::new(panicked(&*panic))))
    }
}

/// Why an attempt failed whose time was over.
pub(super) fn timed_out(limit: Duration) -> String {
    format!("timed out after {}", humantime::format_duration(limit))
}

/// Why an attempt failed that came to nothing.
pub(super) fn broken(error: JoinError) -> String {
    match error.try_into_panic() {
        Ok(panic) => panicked(&*panic),
        Err(error) => format!("the handler was dropped: {error}"),
    }
}

/// How an attempt ends that its handler did not end.
pub(super) fn failed(worker: &str, fetched: &Fetched, error: String) -> End {
    if fetched.job.policy.retries() {
        return End::Failed(error);
    }
    let (status, attempts, worker) = (OutcomeStatus::Failed, fetched.state.attempt + 1, Some(worker.to_owned()));
    stored(Outcome { status, worker, attempts, result: Value::Null, spilled: None, error: Some(error) })
}

/// An outcome as it is to be stored; one that is too large for that is a failed one.
fn stored(outcome: Outcome) -> End {
    let (status, data) = outcome.stored();
    End::Outcome(status, data)
}

/// An outcome whose result is kept in the job's directory, where it is too large for the tree and the job has one.
async fn kept_if_large(assignment: &Assignment, fetched: &Fetched, mut outcome: Outcome) -> Outcome {
    let (task, Some(directory)) = (assignment.task.clone(), fetched.job.spill.clone()) else { return outcome };
    let result = serde_json::to_vec(&outcome.result).unwrap_or_default();
    if result.len() > DATA_BYTES_MAX / 2 {
        let attempt = format!("{:010}.{}-{}", task.n, outcome.attempts, outcome.worker.as_deref().unwrap_or_default());
        let folder = directory.display().to_string();
        // Written and synced to what may be a slow disk far away.
        let kept = blocking_even_here(move || spill::keep_result(&directory, &task.job, &attempt, &result)).await;
        match kept.and_then(|kept| kept) {
            Ok(kept) => (outcome.result, outcome.spilled) = (Value::Null, Some(kept)),
            Err(error) => warn!(directory = folder, %error, "cannot keep a result there"),
        }
    }
    outcome
}

fn panicked(panic: &(dyn std::any::Any + Send)) -> String {
    let owned = panic.downcast_ref::<String>().map(String::as_str);
    let text = owned.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a message");
    format!("the handler panicked: {text}")
}
