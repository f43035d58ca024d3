//! What is left of a task whose znode is gone, and what that says of its end.

use coordination::{Failure, Node, Reader, Refusal};
use tree::TaskId;

use super::Finished;

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

/// How a task ended.
#[derive(Debug)]
pub(super) struct Ending {
    pub(super) finished: Finished,
    /// At which version what is left of it is to be removed, by whoever was told.
    pub(super) remains: Option<i32>,
}

impl Stored {
    /// How the task ended; `None` where it has not.
    pub(super) async fn ending(self, task: &TaskId) -> Option<Ending> {
        let (finished, remains) = match self {
            Stored::Outcome(node) => (Finished::with_outcome(task, &node.data).await, Some(1)),
            Stored::Lost => (Finished::lost(task), Some(0)),
            Stored::Nothing => (Finished::gone(task), None),
            // It stays, for somebody who may read it.
            Stored::Unreadable(refusal) => (Finished::without_outcome(task, refusal), None),
            Stored::NotEnded => return None,
        };
        Some(Ending { finished, remains })
    }
}

/// Reads how a task ended. Its submission must have been acknowledged, or seen, before.
///
/// Whoever ends a task deletes its znode and sets its data, or deletes both, in one step. So where the znode is gone, and the
/// payload is there *afterwards*, neither will ever change. The two are read in this order; a session's reads never go back in
/// time.
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
