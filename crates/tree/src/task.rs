//! `/tasks/<job>/<n>`: what happened to an outstanding task so far. Empty until something did.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// How many attempts a task's history keeps.
const HISTORY_MAX: usize = 20;
/// How long the error of each may be, in bytes.
const ERROR_BYTES_MAX: usize = 1_000;

/// An attempt that ended without an outcome.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Who made it.
    pub worker: String,
    /// Why it ended.
    pub error: String,
}

/// The attempts that have ended. The znode's version tells one attempt from the next; these fields say what happened.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskState {
    /// How many attempts have begun and ended without an outcome.
    #[serde(default)]
    pub attempt: u32,
    /// How many of them failed. Attempts that were lost with their worker are not among these.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub failures: u32,
    /// How many of them were lost with their worker, in a way that the task may have caused.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub crashes: u32,
    /// What became of each, in order; only the last ones are kept.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<Attempt>,
    /// The moment before which it is not attempted again, in milliseconds since 1970 by ZooKeeper's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before_ms: Option<i64>,
    /// The worker that handed the task back. The leader assigns it nothing for `returned_for_ms`; without that the
    /// worker stops, and is assigned nothing more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub returned_by: Option<String>,
    /// How long that worker lacks what it takes to begin tasks, in milliseconds; absent if it stops.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub returned_for_ms: Option<u64>,
    /// Whether it will not be attempted again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dead: bool,
    /// Fields of other versions.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

fn is_zero(n: &u32) -> bool {
    *n == 0
}

impl TaskState {
    /// One more attempt has ended, for this reason.
    #[must_use]
    pub fn attempted(&self, worker: &str, error: &str) -> Self {
        let mut state = self.returned(None, None);
        state.attempt += 1;
        state.not_before_ms = None;
        let end = (0..=error.len().min(ERROR_BYTES_MAX)).rev().find(|at| error.is_char_boundary(*at)).unwrap_or(0);
        state.history.push(Attempt { worker: worker.to_owned(), error: error[..end].to_owned() });
        let over = state.history.len().saturating_sub(HISTORY_MAX);
        state.history.drain(..over);
        state
    }

    /// The same state, with who handed the task back: a worker that stops (no milliseconds), or that lacks something
    /// for this many milliseconds. `None` removes the mark.
    #[must_use]
    pub fn returned(&self, by: Option<&str>, lacking_for: Option<Duration>) -> Self {
        let for_ms = lacking_for.map(|pause| u64::try_from(pause.as_millis()).unwrap_or(u64::MAX));
        TaskState { returned_by: by.map(str::to_owned), returned_for_ms: for_ms, ..self.clone() }
    }

    /// The attempt that ended last.
    pub fn last(&self) -> Option<&Attempt> {
        self.history.last()
    }

    /// The state of a dead task that is to be attempted again: its counts begin anew, its history stays.
    #[must_use]
    pub fn revived(&self) -> Self {
        TaskState { failures: 0, crashes: 0, not_before_ms: None, dead: false, ..self.returned(None, None) }
    }

    /// As it is stored.
    pub fn to_json(&self) -> Vec<u8> {
        super::to_json(self)
    }

    /// A stored state, or why it is none. No data at all is a task to which nothing has happened.
    pub fn from_json(data: &[u8]) -> Result<Self, String> {
        if data.is_empty() { Ok(TaskState::default()) } else { super::from_json(data) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_keeps_the_last_attempts_and_the_beginning_of_each_error() {
        let long = "\u{e9}".repeat(ERROR_BYTES_MAX);
        let state = (0..30).fold(TaskState::default(), |state, n| state.attempted(&format!("w{n}"), &long));
        assert_eq!((state.attempt, state.history.len()), (30, HISTORY_MAX));
        assert_eq!(state.last().map(|last| (last.worker.as_str(), last.error.len())), Some(("w29", ERROR_BYTES_MAX)));
        assert_eq!(TaskState::from_json(&state.to_json()), Ok(state));
    }
}
