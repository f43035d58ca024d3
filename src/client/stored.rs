//! What is stored of a task whose znode is gone, and what that says of its end.

use coordination::{Failure, Node, Reader, Refusal};
use tree::TaskId;

use super::Finished;
use crate::decide::submission::Ended;

/// What is stored of a task whose znode seemed to be gone.
#[derive(Debug)]
pub(super) enum Stored {
    /// Its outcome.
    Outcome(Node),
    /// Nothing: it was removed, swept, or collected by somebody else.
    Nothing,
    /// Its payload, and no task: somebody deleted that by hand, and nobody will run it. No step of the protocol does this.
    Lost,
    /// The task is there after all.
    NotEnded,
    /// Something that this client may not read.
    Unreadable(Refusal),
}

impl Stored {
    /// How the task ended; `None` where it has not.
    pub(super) async fn ended(self, task: &TaskId) -> Option<Ended<Finished>> {
        let (told, left_at) = match self {
            Stored::Outcome(node) => (Finished::with_outcome(task, &node.data).await, Some(1)),
            Stored::Lost => (Finished::lost(task), Some(0)),
            Stored::Nothing => (Finished::gone(task), None),
            // It stays, for somebody who may read it.
            Stored::Unreadable(refusal) => (Finished::without_outcome(task, refusal), None),
            Stored::NotEnded => return None,
        };
        Some(Ended { told, left_at })
    }
}

/// Reads what is stored of a task. Its submission must have been acknowledged, or seen, before.
///
/// Whoever ends a task deletes its znode and sets its data, or deletes both, in one step. So where the znode was found to be
/// gone, and the data is a payload when it is read *after that*, neither will ever change: the task is lost. The reads are made
/// in that order, on one session, whose reads never go back in time.
pub(super) async fn stored(reader: &Reader, task: &TaskId) -> Result<Stored, Failure> {
    match read(reader, task).await {
        Err(Failure::Refused(refusal)) => Ok(Stored::Unreadable(refusal)),
        read => read,
    }
}

async fn read(reader: &Reader, task: &TaskId) -> Result<Stored, Failure> {
    // The usual case costs one read.
    match reader.read(task.data_path()).await? {
        Some(node) if node.version == 0 => {}
        node => return Ok(node.map_or(Stored::Nothing, Stored::Outcome)),
    }
    if reader.read(task.path()).await?.is_some() {
        return Ok(Stored::NotEnded);
    }
    Ok(match reader.read(task.data_path()).await? {
        None => Stored::Nothing,
        Some(node) if node.version == 0 => Stored::Lost,
        Some(node) => Stored::Outcome(node),
    })
}
