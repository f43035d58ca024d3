//! The list that the leader writes, and what became of each of its entries.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use coordination::Node;
use tracing::{info, warn};
use tree::{Assignment, WorkerRecord};

use super::fetch::Fetched;
use super::progress::InSlot;
use super::{CANCEL_GRACE, Shift};

/// An entry of the list.
pub(super) struct Entry {
    /// The transaction that wrote the list in which it was first seen.
    pub(super) zxid: i64,
    /// How often it was begun.
    pub(super) runs: u32,
    pub(super) stage: Stage,
}

/// How far a task is that this worker was assigned.
pub(super) enum Stage {
    /// To be fetched, once the session can be trusted.
    Interrupted,
    Fetching,
    /// For a slot, with what it needs; its turn is in the worker's queue.
    Waiting(Arc<Fetched>),
    Running(InSlot),
    /// With what was run, where its outcome is committed: if that is refused, the attempt has failed for it.
    Completing(Option<Arc<Fetched>>),
    Over,
}

impl Shift {
    pub(super) fn list_is(&mut self, node: &Node) {
        self.version = Some(node.version);
        let record = match WorkerRecord::from_json(&node.data) {
            Ok(record) => record,
            Err(error) => {
                return warn!(
                    worker = self.id,
                    error, "cannot read my own znode; waiting for the leader to write it anew"
                );
            }
        };
        let (list, errors) = record.assignments();
        for error in errors {
            warn!(worker = self.id, error, "ignoring an assignment");
        }
        self.list = list;
        self.take_list(node.mzxid);
    }

    /// Begins what is new in the list that was written by this transaction, and stops what is not in it any more.
    fn take_list(&mut self, zxid: i64) {
        let listed: HashSet<&Assignment> = self.list.iter().collect();
        let withdrawn: Vec<Assignment> = self.entries.keys().filter(|a| !listed.contains(a)).cloned().collect();
        for assignment in &withdrawn {
            match self.entries.remove(assignment).map(|entry| entry.stage) {
                Some(Stage::Running(slot)) => {
                    info!(task = %assignment.task, "withdrawn: stopping it");
                    self.hide(&assignment.task, &slot);
                    self.told_to_stop.push((Instant::now() + CANCEL_GRACE, slot.abort.clone()));
                    slot.stop_within(CANCEL_GRACE);
                }
                Some(Stage::Waiting(_)) => self.queue.retain(|waiting| waiting != assignment),
                Some(Stage::Interrupted | Stage::Fetching | Stage::Completing(_) | Stage::Over) | None => {}
            }
        }
        for assignment in &self.list {
            if !self.entries.contains_key(assignment) {
                self.fetcher.jobs.listed(&assignment.task.job);
                self.entries.insert(assignment.clone(), Entry { zxid, runs: 0, stage: Stage::Fetching });
                let load = self.fetcher.fetch(assignment.clone());
                self.loading.push_back(load);
            }
        }
        // After what is new: a job whose next task comes with the end of its last is not read again.
        withdrawn.iter().for_each(|assignment| self.fetcher.jobs.unlisted(&assignment.task.job));
    }

    /// Begins again what was stopped.
    pub(super) fn resume(&mut self) {
        for assignment in &self.list {
            if let Some(Entry { stage: stage @ Stage::Interrupted, .. }) = self.entries.get_mut(assignment) {
                *stage = Stage::Fetching;
                let load = self.fetcher.fetch(assignment.clone());
                self.loading.push_back(load);
            }
        }
    }

    /// What becomes of an entry, if it has not been withdrawn.
    pub(super) fn stage(&mut self, assignment: &Assignment, stage: Stage) {
        if let Some(entry) = self.entries.get_mut(assignment) {
            entry.stage = stage;
        }
    }
}
