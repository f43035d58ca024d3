//! `/workers/<worker>`: what a worker offers, and what it was given.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Assignment;

/// A worker. It creates the record; from then on only the leader writes it, and only `assigned`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerRecord {
    /// How many tasks it runs at once.
    pub slots: u32,
    /// Which kinds of tasks it runs.
    pub kinds: Vec<String>,
    /// What else it says of itself.
    #[serde(default)]
    pub tags: Vec<String>,
    /// The assignments, in the order in which they are to be run.
    #[serde(default)]
    pub assigned: Vec<String>,
    /// Fields of other versions.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl WorkerRecord {
    /// A worker that was given nothing yet.
    pub fn new(slots: u32, kinds: Vec<String>) -> Self {
        WorkerRecord { slots, kinds, tags: Vec::new(), assigned: Vec::new(), other: Map::new() }
    }

    /// The entries of `assigned` that are assignments, and those that are not.
    pub fn assignments(&self) -> (Vec<Assignment>, Vec<String>) {
        let (mut valid, mut errors) = (Vec::with_capacity(self.assigned.len()), Vec::new());
        for entry in &self.assigned {
            match entry.parse() {
                Ok(assignment) => valid.push(assignment),
                Err(error) => errors.push(error),
            }
        }
        (valid, errors)
    }

    /// As it is stored.
    pub fn to_json(&self) -> Vec<u8> {
        super::to_json(self)
    }

    /// A stored record, or why it is none.
    pub fn from_json(data: &[u8]) -> Result<Self, String> {
        super::from_json(data)
    }
}
