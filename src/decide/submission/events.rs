//! What a [`Submission`](super::Submission) hears of, and what it asks for.

use std::collections::HashMap;

use znode::Refusal;

/// What happened. `E` is what the user is told of a task's end; it is passed on, and never looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event<E> {
    /// The user submits a task with this payload; its number is [`Submission::next`](super::Submission::next).
    Submit(Vec<u8>),
    /// The user says that all is submitted.
    Seal,
    /// The user has dealt with the outcome of this task, and it may be removed.
    Taken(u32),
    /// The user wants to hear of no more outcomes; they stay in the tree.
    Left,

    /// The submission of this task was applied, now or before.
    Acknowledged(u32),
    /// It was refused, and not because of the guard.
    Refused(u32, Refusal),
    /// A submission was refused because of the guard: the job's record is at another version.
    GuardRefused,
    /// An answer to [`Operation::Fetch`]: how the task ended; `None` where it has not.
    Read(u32, Option<Ended<E>>),
    /// What was left of this task is removed, or cannot be.
    Collected(u32),
    /// The job was sealed.
    SealAcknowledged,
    /// It was not, or nobody knows.
    SealRefused,

    /// A task's znode is there, or was set.
    Seen(u32, Seen<E>),
    /// A task's znode was deleted.
    Gone(u32),
    /// All task znodes that are there.
    Snapshot(HashMap<u32, Seen<E>>),
    /// The job itself is not there any more.
    JobGone,

    /// The job's record was set anew or is sealed, so that what an earlier session still sends is refused; every request under
    /// way is forgotten.
    Rejoined {
        /// Whether the record is sealed.
        sealed: bool,
        /// The tasks in `/data/<job>`, listed after that.
        stored: Vec<u32>,
    },
}

/// The state of a task's znode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen<E> {
    /// It waits or runs.
    Alive,
    /// It is out of attempts, but may be retried.
    Dead(E),
}

/// How a task ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended<E> {
    /// What the user is told.
    pub told: E,
    /// At which version what is left of it is to be removed; `None` where nothing is, or it is to stay.
    pub left_at: Option<i32>,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation<E> {
    /// Submit this task, behind the guard.
    Submit(u32, Vec<u8>),
    /// Read how this task ended.
    Fetch(u32),
    /// Remove what is left of this task, at this version.
    Collect(u32, i32),
    /// Seal the job, with so many tasks.
    Seal(u32),
    /// Rejoin, on the same session.
    Rejoin,
    /// Close the job, and end.
    Close,
    /// End: nothing is left to be done, by this client.
    End,
    /// End with an error: the job is gone before its time.
    NoJob,

    /// Tell the user that this task is submitted.
    Acknowledge(u32),
    /// Tell the user that this task is not submitted, and why.
    Refuse(u32, Refused),
    /// Tell the user how this task ended, and expect [`Event::Taken`] for it.
    Deliver(u32, E),
    /// Tell the user that this task is dead. It stays in the tree, and there may be more to tell of it.
    TellDead(u32, E),
    /// Tell whoever has asked for it that the job is sealed.
    Sealed,
}

/// Why a task is not submitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// The job is sealed, or is to be.
    Sealed,
    /// ZooKeeper refused.
    By(Refusal),
}
