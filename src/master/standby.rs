//! What a master that stands by reads beside its mirrors: the lists that the leader writes.
//!
//! So it knows, where a worker vanishes together with its leader, which attempts ended with it. A worker's znode outlives the
//! worker by a session timeout, so a tenth of that is often enough to look, and a list that is written a hundred times
//! meanwhile is read once.

use std::collections::HashMap;

use coordination::{Failure, Node, Reader, Session};
use futures::future::join_all;
use tokio::task::JoinHandle;
use tree::{WorkerId, WorkerRecord};

use super::Standing;

/// How often a list is read that names what is not known: it is over, or is heard of in a moment.
const LOOKS_MAX: u8 = 2;

type Read = Vec<(WorkerId, u8, Result<Option<Node>, Failure>)>;

/// Lists to be read, and those that are being read.
#[derive(Default)]
pub(super) struct Lists {
    /// Which, and how often each was read since it was written.
    due: HashMap<WorkerId, u8>,
    reading: Option<JoinHandle<Read>>,
}

impl Lists {
    /// A list was written.
    pub(super) fn written(&mut self, worker: WorkerId) {
        self.due.insert(worker, 0);
    }

    /// Reads those that are due, unless some are being read.
    pub(super) fn look(&mut self, session: &Session) {
        if self.due.is_empty() || self.reading.is_some() {
            return;
        }
        let reader = Reader::start(session.clone());
        let read = self.due.drain().map(|(worker, looks)| {
            let read = reader.read(worker.path());
            async move { (worker, looks + 1, read.await) }
        });
        self.reading = Some(tokio::spawn(join_all(read.collect::<Vec<_>>())));
    }

    /// What was read. Safe to cancel.
    pub(super) async fn next(&mut self) -> Read {
        let Some(reading) = &mut self.reading else { return std::future::pending().await };
        let read = reading.await;
        self.reading = None;
        read.unwrap_or_default()
    }
}

impl Standing {
    /// Stands by from now on, whatever it did before. What was planned and not written is mended by reading.
    pub(super) fn stand_by(&mut self) {
        self.stands_by = true;
        self.refresh = super::Refresh::Done;
        self.upkeep = super::Beside::default(); // whatever is under way is refused by its guard
        self.sweeper = super::Sweeper::default();
        self.read_all_lists();
    }

    /// Leads from now on: the lists are its own, once everything was read anew.
    pub(super) fn stop_standing_by(&mut self) {
        self.stands_by = false;
        self.ledger.passes(self.began.elapsed());
        self.ledger.all_idle_again(); // the retention is to be sure
        self.lists = Lists::default();
    }

    pub(super) fn read_all_lists(&mut self) {
        self.ledger.workers().cloned().for_each(|worker| self.lists.written(worker));
    }

    pub(super) fn lists_are(&mut self, read: Read) {
        for (worker, looks, node) in read {
            // One that is gone is heard of; what could not be read is read when it is written again.
            let Ok(Some(node)) = node else { continue };
            let Ok(record) = WorkerRecord::from_json(&node.data) else { continue };
            if !self.ledger.list_is(&worker, &record) && looks < LOOKS_MAX {
                self.lists.due.entry(worker).or_insert(looks);
            }
        }
    }
}
