//! How a task ended, as users see it; and how many of a job did.

use std::fmt;

use serde::Serialize;
use serde_json::Value;
use tree::{Outcome, OutcomeStatus, TaskId, TaskState};

use crate::spawn::blocking_even_here;
use crate::spill;

/// A task's end, as `-o json` shows it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
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
    pub(super) async fn with_outcome(task: &TaskId, data: &[u8]) -> Self {
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
    pub(super) fn of(task: &TaskId, outcome: Result<Outcome, String>) -> Self {
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
    pub(super) fn without_outcome(task: &TaskId, why: impl fmt::Display) -> Self {
        Finished {
            task: task.to_string(),
            status: FinishedStatus::Failed,
            worker: None,
            attempts: 0,
            result: Value::Null,
            error: Some(format!("{} holds no outcome that can be had: {why}", task.data_path())),
        }
    }

    pub(super) fn dead(task: &TaskId, state: &TaskState) -> Self {
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

    pub(super) fn gone(task: &TaskId) -> Self {
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
    pub(super) fn lost(task: &TaskId) -> Self {
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

/// How far a job is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tally {
    /// Tasks done.
    pub done: usize,
    /// Tasks that ended otherwise: failed, dead, cancelled, aborted, lost.
    pub failed: usize,
    /// How many of these were lost: somebody deleted their znodes by hand.
    pub lost: usize,
    /// Tasks waiting or running.
    pub outstanding: usize,
    /// Whether all was submitted.
    pub sealed: bool,
}

impl Tally {
    /// Counts a task that has ended.
    pub fn count(&mut self, finished: &Finished) {
        if finished.is_done() {
            self.done += 1
        } else {
            self.failed += 1
        }
        self.lost += usize::from(finished.status == FinishedStatus::Lost);
    }
}
