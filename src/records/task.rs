//! `/tasks/<job>/<n>`: what happened to an outstanding task so far. Empty until something did.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The attempts that have ended. The znode's version tells one attempt from the next; these fields say what happened.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskState {
    /// How many attempts have begun and ended without an outcome.
    #[serde(default)]
    pub attempt: u32,
    /// How many of them failed, rather than being lost with their worker.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub failures: u32,
    /// Why the last one ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Who had it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<String>,
    /// The worker that handed the task back unstarted, because it stops: it is to be given nothing more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub returned_by: Option<String>,
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
    /// As it is stored.
    pub fn to_json(&self) -> Vec<u8> {
        super::to_json(self)
    }

    /// A stored state, or why it is none. No data at all is a task to which nothing has happened.
    pub fn from_json(data: &[u8]) -> Result<Self, String> {
        if data.is_empty() { Ok(TaskState::default()) } else { super::from_json(data) }
    }
}
