//! Attempts that ended soon after they were assigned, in a job of which some have failed: only their outcomes tell which, and
//! a few of each worker are read.

use coordination::{Reader, Session};
use futures::future::join_all;
use tree::{Outcome, OutcomeStatus};

use super::Beside;
use crate::decide::ledger::Quick;

/// How many are read at a time, in all and of one worker.
const AT_A_TIME: usize = 256;
const OF_ONE_WORKER: usize = 4;

#[derive(Default)]
pub(super) struct Doubts {
    due: Vec<Quick>,
    reading: Beside<Vec<(Quick, bool)>>,
}

impl Doubts {
    /// One more, unless enough wait to be read.
    pub(super) fn add(&mut self, quick: Quick) {
        let of_its_worker = self.due.iter().filter(|other| other.worker == quick.worker).count();
        if self.due.len() < AT_A_TIME && of_its_worker < OF_ONE_WORKER {
            self.due.push(quick);
        }
    }

    /// Reads those that are due, unless some are being read.
    pub(super) fn look(&mut self, session: &Session) {
        if self.due.is_empty() || self.reading.is_under_way() {
            return;
        }
        let reader = Reader::start(session.clone());
        let reads = std::mem::take(&mut self.due).into_iter().map(move |quick| {
            let read = reader.read(quick.task.data_path());
            async move {
                // Whoever attends the job may have taken it: then nothing is known.
                let node = read.await.ok().flatten()?;
                let outcome = Outcome::from_json(&node.data).ok()?;
                Some((quick, outcome.status == OutcomeStatus::Failed))
            }
        });
        let reads = join_all(reads);
        self.reading.begin(async move { reads.await.into_iter().flatten().collect() });
    }

    /// Which of them failed, and which did not. Safe to cancel.
    pub(super) async fn known(&mut self) -> Vec<(Quick, bool)> {
        self.reading.done().await
    }
}
