//! What is stored in the tree, and its JSON. A reader ignores fields that it does not know, and whoever sets a record
//! again keeps them.

mod job;
pub mod live;
mod master;
mod outcome;
mod paths;
mod policy;
mod task;
pub mod transitions;
mod worker;

pub use job::{JobRecord, Withdrawn};
pub use live::Live;
pub use master::MasterRecord;
pub use outcome::{Outcome, OutcomeStatus, Reference, bytes_to_json, json_to_bytes};
pub use paths::{
    Assignment, BelowTasks, DATA, JobId, MASTER, ROOTS, TASKS, TaskId, WORKERS, WorkerId, at_number, below_tasks,
    has_tasks, is_client, is_ephemeral, key_path, later_job, task_number,
};
pub use policy::Policy;
pub use task::{Attempt, TaskState};
pub use worker::WorkerRecord;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The most bytes of a payload or an outcome: 512 KiB, below ZooKeeper's 1 MB for a whole request.
pub const DATA_BYTES_MAX: usize = 512 * 1024;

/// A record as it is stored.
fn to_json(record: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(record).expect("records have string keys")
}

/// A stored record, or why it is none.
fn from_json<R: DeserializeOwned>(data: &[u8]) -> Result<R, String> {
    serde_json::from_slice(data).map_err(|error| error.to_string())
}
