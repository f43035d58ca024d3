//! The model of the tree: one job's record, its tasks and their data.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::{Checked, Told};
use crate::decide::submission::{Ended, Event, Seen};

/// A task's znode.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Znode {
    pub(super) deaths: u32,
    pub(super) dead: bool,
}

/// A write of the submitter, or a read.
#[derive(Debug, Clone)]
pub(super) enum Request {
    /// `version`: the guard's. `unanswered`: an answer to it was lost, so that the tree is read before it is sent again.
    Submit {
        n: u32,
        payload: Vec<u8>,
        version: Option<i32>,
        unanswered: bool,
    },
    Fetch(u32),
    Collect(u32, i32),
    Seal {
        tasks: u32,
        version: Option<i32>,
    },
}

#[derive(Debug, Default)]
pub(super) struct Tree {
    /// Whether somebody has closed the job.
    pub(super) closed: bool,
    /// The record's.
    pub(super) version: i32,
    pub(super) sealed: bool,
    /// How many tasks there are, as the record has it.
    pub(super) count: Option<u32>,
    pub(super) znodes: BTreeMap<u32, Znode>,
    /// The number of an outcome, or a payload.
    pub(super) data: BTreeMap<u32, Option<u32>>,
    /// The payload of every task that there ever was.
    pub(super) created: BTreeMap<u32, Vec<u8>>,
    /// The number of the outcome of every task that has ended.
    pub(super) outcomes: BTreeMap<u32, u32>,
    pub(super) collected_by_somebody: BTreeSet<u32>,
}

impl Tree {
    /// Applies a request, or refuses it; what the submitter is answered.
    pub(super) fn apply(&mut self, request: Request) -> Result<Event<Told>, TestCaseError> {
        let open_at = |version| !self.closed && version == Some(self.version);
        Ok(match request {
            Request::Submit { n, unanswered: true, .. } if self.data.contains_key(&n) => Event::Acknowledged(n),
            Request::Submit { version, .. } if !open_at(version) => Event::GuardRefused,
            Request::Submit { n, .. } if self.data.contains_key(&n) => Event::Acknowledged(n),
            Request::Submit { n, payload, .. } => {
                self.create(n, payload)?;
                Event::Acknowledged(n)
            }
            Request::Fetch(n) => Event::Read(
                n,
                match self.data.get(&n) {
                    Some(Some(outcome)) => Some(Ended { told: Told::Outcome(*outcome), left_at: Some(1) }),
                    Some(None) => None,
                    None => Some(Ended { told: Told::NothingLeft, left_at: None }),
                },
            ),
            Request::Collect(n, version) => {
                prop_assert_eq!(version, 1);
                prop_assert!(self.data.remove(&n) != Some(None), "a payload is removed");
                Event::Collected(n)
            }
            Request::Seal { version, .. } if !open_at(version) => Event::SealRefused,
            Request::Seal { tasks, .. } => {
                self.count = Some(tasks);
                self.seal();
                Event::SealAcknowledged
            }
        })
    }

    fn create(&mut self, n: u32, payload: Vec<u8>) -> Checked {
        prop_assert!(!self.created.contains_key(&n), "{} is made anew", n);
        prop_assert!(self.created.values().all(|other| *other != payload), "it has two numbers");
        self.created.insert(n, payload);
        self.znodes.insert(n, Znode::default());
        self.data.insert(n, None);
        Ok(())
    }

    pub(super) fn seal(&mut self) {
        (self.sealed, self.version) = (true, self.version + 1);
    }

    /// Ends a task, by whoever does.
    pub(super) fn end(&mut self, n: u32) {
        self.znodes.remove(&n);
        let outcome = u32::try_from(self.outcomes.len()).expect("few");
        self.outcomes.insert(n, outcome);
        self.data.insert(n, Some(outcome));
    }

    /// Somebody else removes an outcome, once he may.
    pub(super) fn collect_by_somebody(&mut self, n: u32) {
        if self.sealed && self.data[&n].is_some() {
            self.data.remove(&n);
            self.collected_by_somebody.insert(n);
        }
    }

    /// Closes the job, if that is possible; whether it was.
    pub(super) fn close(&mut self) -> bool {
        let closes = self.sealed && !self.closed && self.znodes.is_empty() && self.data.is_empty();
        self.closed |= closes;
        closes
    }

    pub(super) fn seen(&self, n: u32) -> Seen<Told> {
        let Znode { deaths, dead } = self.znodes[&n];
        if dead { Seen::Dead(Told::Dead(deaths)) } else { Seen::Alive }
    }
}
