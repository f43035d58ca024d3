//! The submission of one job and the collection of its outcomes, as a state machine: [`Submission`].
//!
//! What happens comes in as an [`Event`], and what is to be done next goes out as [`Operation`]s. The submitter in
//! `src/client/submitter.rs` holds the session and the user's channels: it turns answers, changes of the tree and requests
//! of the user into events, and carries the operations out in their order. The steps are *submit*, *rejoin*, *seal*, *collect*
//! and *close* of `docs/protocol.md`.
//!
//! A task goes through these states. Each arrow is an event; what comes unexpected, or twice, changes nothing.
//!
//! ```text
//!                     acknowledged                gone             read: it has ended              taken
//! (the user) -> Submitting ----------> Outstanding ---> Fetching --------------------> Delivered --------> Collecting -> over
//!                    | refused           |      ^ dead     |  ^                            | nothing is left
//!                    v                   v      |          |  | gone: it was cancelled     v
//!                  over                 Dead ---+          +--+                          over
//!                                          retried
//! ```
//!
//! What can go wrong, and what holds all the same (`model.rs` draws such cases at random):
//!
//! - *An answer is lost.* A task that may have been submitted keeps its number and its payload, and is submitted again only
//!   under that number, after a rejoin that has found it absent. Nothing of it is delivered or removed before that: a task
//!   whose outcome is removed would seem to be absent, and be made anew.
//! - *What is seen is out of date.* A snapshot may be older than an acknowledgement, and an event may come twice. So what is
//!   not in a snapshot has not ended for that: its outcome is read, and only what that read says counts.
//! - *An outcome is removed before somebody has it.* It is removed only once the user says that it was dealt with.
//! - *Somebody else seals the job.* Then only what is in the tree is acknowledged; the rest is refused.

mod events;
#[cfg(test)]
mod model;

pub use events::{Ended, Event, Operation, Refused, Seen};

use std::collections::BTreeMap;

/// One job, as its submitter knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submission<E> {
    /// Every task that is not over.
    tasks: BTreeMap<u32, Task<E>>,
    next: u32,
    seal: Seal,
    /// Whether the user wants to hear of no more outcomes.
    left: bool,
    acknowledged: u32,
    /// How many of `tasks` are [`Task::Submitting`].
    unacknowledged: usize,
    /// How many of `tasks` are [`Task::Dead`].
    dead: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Task<E> {
    /// Sent and not acknowledged. What is seen of it meanwhile is kept until it is.
    Submitting { payload: Vec<u8>, last: Last<E> },
    /// In the tree; waits or runs as far as is known.
    Outstanding,
    /// Its znode is gone, or was not in a snapshot: its outcome is being read. `gone_since`: the znode was deleted after the
    /// read was asked for, so that a read that found it is out of date.
    Fetching { gone_since: bool },
    /// The user was told how it ended; at which version something is left of it in the tree.
    Delivered { left_at: Option<i32> },
    /// What is left of it, at this version, is being removed.
    Collecting { left_at: i32 },
    /// The user was told that it is dead. It stays in the tree.
    Dead,
}

/// What was seen last of a task that is not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Last<E> {
    Nothing,
    Seen(Seen<E>),
    /// Its znode was deleted, or was not in a snapshot.
    Gone,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seal {
    Open,
    /// The user asked for it; it is done once every submission is acknowledged.
    Wanted,
    /// The record is being set.
    Sealing,
    Sealed,
}

impl<E> Submission<E> {
    /// A job that was just opened.
    pub fn new() -> Self {
        let tasks = BTreeMap::new();
        Submission { tasks, next: 0, seal: Seal::Open, left: false, acknowledged: 0, unacknowledged: 0, dead: 0 }
    }

    /// The number of the task that is submitted next.
    pub fn next(&self) -> u32 {
        self.next
    }

    /// How many tasks were acknowledged so far.
    pub fn acknowledged(&self) -> u32 {
        self.acknowledged
    }

    /// How many submissions are not acknowledged yet.
    pub fn unacknowledged(&self) -> usize {
        self.unacknowledged
    }

    /// Whether the user has [left](Event::Left).
    pub fn has_user_left(&self) -> bool {
        self.left
    }

    /// What is to be done now that this has happened, in this order. The event that follows [`Operation::Rejoin`] is
    /// [`Event::Rejoined`] or [`Event::JobGone`], and none follows an operation that ends.
    pub fn step(&mut self, event: Event<E>) -> Vec<Operation<E>> {
        let mut todo = Vec::new();
        match event {
            Event::Submit(payload) => self.submit(payload, &mut todo),
            Event::Seal => match self.seal {
                Seal::Open => self.seal = Seal::Wanted,
                Seal::Wanted | Seal::Sealing => {}
                Seal::Sealed => todo.push(Operation::Sealed),
            },
            Event::Taken(n) => self.taken(n, &mut todo),
            Event::Left => self.left = true,
            Event::Acknowledged(n) => match self.acknowledge(n, &mut todo) {
                Some(Last::Seen(seen)) => self.seen(n, seen, &mut todo),
                Some(Last::Gone) => self.gone(n, &mut todo),
                Some(Last::Nothing) | None => {}
            },
            Event::Refused(n, refusal) => {
                if matches!(self.tasks.get(&n), Some(Task::Submitting { .. })) {
                    self.set(n, None);
                    todo.push(Operation::Refuse(n, Refused::By(refusal)));
                }
            }
            Event::GuardRefused => todo.push(Operation::Rejoin),
            Event::Read(n, ended) => self.read(n, ended, &mut todo),
            Event::Collected(n) => {
                if matches!(self.tasks.get(&n), Some(Task::Collecting { .. })) {
                    self.set(n, None);
                }
            }
            Event::SealAcknowledged => self.sealed(&mut todo),
            // By the very request that was not answered, or by somebody else; or the record was changed: it tells.
            Event::SealRefused => todo.push(Operation::Rejoin),
            Event::Seen(n, seen) => self.seen(n, seen, &mut todo),
            Event::Gone(n) => self.gone(n, &mut todo),
            Event::Snapshot(mut there) => {
                for n in self.tasks.keys().copied().collect::<Vec<_>>() {
                    match there.remove(&n) {
                        Some(seen) => self.seen(n, seen, &mut todo),
                        // Or submitted since the snapshot was read: what is stored will tell.
                        None => self.gone(n, &mut todo),
                    }
                }
            }
            Event::JobGone => {
                todo.push(if self.has_nothing_to_lose() { Operation::End } else { Operation::NoJob });
                return todo;
            }
            Event::Rejoined { sealed, stored } => self.rejoined(sealed, stored, &mut todo),
        }
        self.seal_or_end(&mut todo);
        todo
    }

    fn submit(&mut self, payload: Vec<u8>, todo: &mut Vec<Operation<E>>) {
        let n = self.next;
        if self.seal != Seal::Open {
            todo.push(Operation::Refuse(n, Refused::Sealed));
            return;
        }
        self.next += 1;
        todo.push(Operation::Submit(n, payload.clone()));
        self.set(n, Some(Task::Submitting { payload, last: Last::Nothing }));
    }

    /// The task is in the tree, or was. Returns what was seen of it before that was known.
    fn acknowledge(&mut self, n: u32, todo: &mut Vec<Operation<E>>) -> Option<Last<E>> {
        if !matches!(self.tasks.get(&n), Some(Task::Submitting { .. })) {
            return None;
        }
        let Some(Task::Submitting { last, .. }) = self.set(n, Some(Task::Outstanding)) else { return None };
        self.acknowledged += 1;
        todo.push(Operation::Acknowledge(n));
        Some(last)
    }

    fn seen(&mut self, n: u32, seen: Seen<E>, todo: &mut Vec<Operation<E>>) {
        match (self.tasks.get_mut(&n), seen) {
            (Some(Task::Submitting { last, .. }), seen) => *last = Last::Seen(seen),
            (Some(Task::Outstanding | Task::Fetching { .. }), Seen::Dead(told)) => {
                self.set(n, Some(Task::Dead));
                todo.push(Operation::TellDead(n, told));
            }
            (Some(Task::Dead), Seen::Alive) => drop(self.set(n, Some(Task::Outstanding))), // retried
            _ => {}
        }
    }

    /// The task's znode is not there: it has ended, or was submitted since.
    fn gone(&mut self, n: u32, todo: &mut Vec<Operation<E>>) {
        match self.tasks.get_mut(&n) {
            Some(Task::Submitting { last, .. }) => *last = Last::Gone,
            Some(Task::Fetching { gone_since }) => *gone_since = true,
            // A dead one has ended all the same: it was cancelled.
            Some(Task::Outstanding | Task::Dead) => {
                self.set(n, Some(Task::Fetching { gone_since: false }));
                todo.push(Operation::Fetch(n));
            }
            Some(Task::Delivered { .. } | Task::Collecting { .. }) | None => {}
        }
    }

    fn read(&mut self, n: u32, ended: Option<Ended<E>>, todo: &mut Vec<Operation<E>>) {
        match (self.tasks.get(&n), ended) {
            // An end is an end, whatever was seen since this read was asked for.
            (Some(Task::Outstanding | Task::Fetching { .. } | Task::Dead), Some(Ended { told, left_at })) => {
                self.set(n, Some(Task::Delivered { left_at }));
                todo.push(Operation::Deliver(n, told));
            }
            (Some(Task::Fetching { gone_since }), None) => {
                let gone_since = *gone_since;
                self.set(n, Some(Task::Outstanding));
                if gone_since {
                    self.gone(n, todo);
                }
            }
            _ => {}
        }
    }

    fn taken(&mut self, n: u32, todo: &mut Vec<Operation<E>>) {
        match self.tasks.get(&n) {
            Some(Task::Delivered { left_at: None }) => drop(self.set(n, None)),
            Some(Task::Delivered { left_at: Some(left_at) }) => {
                let left_at = *left_at;
                self.set(n, Some(Task::Collecting { left_at }));
                todo.push(Operation::Collect(n, left_at));
            }
            _ => {}
        }
    }

    fn rejoined(&mut self, sealed: bool, stored: Vec<u32>, todo: &mut Vec<Operation<E>>) {
        for n in stored {
            self.acknowledge(n, todo); // how far it is the next snapshot will tell
        }
        if sealed {
            self.sealed(todo);
        } else if self.seal == Seal::Sealing {
            self.seal = Seal::Wanted;
        }
        for n in self.tasks.keys().copied().collect::<Vec<_>>() {
            match &self.tasks[&n] {
                Task::Submitting { .. } if sealed => {
                    self.set(n, None);
                    todo.push(Operation::Refuse(n, Refused::Sealed));
                }
                Task::Submitting { payload, .. } => todo.push(Operation::Submit(n, payload.clone())),
                Task::Collecting { left_at } => todo.push(Operation::Collect(n, *left_at)),
                // The read is forgotten; the next snapshot will ask for it again.
                Task::Fetching { .. } => drop(self.set(n, Some(Task::Outstanding))),
                Task::Outstanding | Task::Delivered { .. } | Task::Dead => {}
            }
        }
    }

    fn sealed(&mut self, todo: &mut Vec<Operation<E>>) {
        self.seal = Seal::Sealed;
        todo.push(Operation::Sealed);
    }

    fn seal_or_end(&mut self, todo: &mut Vec<Operation<E>>) {
        match self.seal {
            Seal::Wanted if self.unacknowledged == 0 => {
                self.seal = Seal::Sealing;
                todo.push(Operation::Seal(self.acknowledged));
            }
            Seal::Sealed if self.left => todo.push(Operation::End),
            Seal::Sealed if self.tasks.is_empty() => todo.push(Operation::Close),
            // Somebody may retry them, or forget them.
            Seal::Sealed if self.dead == self.tasks.len() => todo.push(Operation::End),
            Seal::Open | Seal::Wanted | Seal::Sealing | Seal::Sealed => {}
        }
    }

    /// Whether the user has had everything, so that whoever closed the job has taken nothing away. It may have been this
    /// client, in a request whose answer was lost with its session.
    fn has_nothing_to_lose(&self) -> bool {
        self.seal == Seal::Sealed && self.tasks.values().all(|task| matches!(task, Task::Collecting { .. }))
    }

    /// Sets the state of a task, or forgets it; returns its state until now.
    fn set(&mut self, n: u32, task: Option<Task<E>>) -> Option<Task<E>> {
        let count = |task: &Option<Task<E>>| {
            let is_submitting = matches!(task, Some(Task::Submitting { .. }));
            (usize::from(is_submitting), usize::from(matches!(task, Some(Task::Dead))))
        };
        let (submitting, dead) = count(&task);
        let before = match task {
            Some(task) => self.tasks.insert(n, task),
            None => self.tasks.remove(&n),
        };
        let (submitting_before, dead_before) = count(&before);
        self.unacknowledged = self.unacknowledged + submitting - submitting_before;
        self.dead = self.dead + dead - dead_before;
        before
    }
}
