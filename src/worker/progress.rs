//! Showing what runs while it runs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use coordination::Op;
use tokio::task::AbortHandle;
use tokio::time::sleep;
use tree::TaskId;

use super::Shift;
use super::fetch::Fetched;
use super::list::Stage;
use crate::handlers::{Signals, Sink};

/// How often what runs is shown, and how old it must be.
pub(super) const SHOW_EVERY: Duration = Duration::from_secs(1);
/// The most tasks that are shown at a time.
const SHOWN_MAX: usize = 100;

/// A task that runs: how it is stopped, and what it shows.
pub(super) struct InSlot {
    pub(super) fetched: Arc<Fetched>,
    pub(super) signals: Arc<Signals>,
    pub(super) abort: AbortHandle,
    pub(super) since: Instant,
    /// Whether its znode was created.
    pub(super) shown: bool,
}

impl InSlot {
    /// Tells the handler, and drops it if it has not ended after `grace`.
    pub(super) fn stop_within(self, grace: Duration) {
        self.signals.cancel();
        tokio::spawn(async move {
            sleep(grace).await;
            self.abort.abort();
        });
    }
}

impl Shift {
    /// Writes what has changed. Nobody waits for it, and nothing depends on it.
    pub(super) fn show(&mut self) {
        let changed = self.entries.iter_mut().filter_map(|(assignment, entry)| {
            let Stage::Running(slot) = &mut entry.stage else { return None };
            if slot.since.elapsed() < SHOW_EVERY {
                return None;
            }
            let live = Sink(slot.signals.clone()).take(&self.id, slot.fetched.state.attempt + 1)?;
            Some((assignment.task.live_path(), live.to_json(), std::mem::replace(&mut slot.shown, true)))
        });
        for (path, data, there) in changed.take(SHOWN_MAX).collect::<Vec<_>>() {
            let op = if there {
                Op::Set { path, data, version: None }
            } else {
                Op::CreateEphemeral { path, data, sequential: false }
            };
            drop(self.committer.commit(vec![op]));
        }
    }

    /// A task does not run any more. What was shown goes before anything that is committed after this.
    pub(super) fn hide(&self, task: &TaskId, slot: &InSlot) {
        if slot.shown {
            drop(self.committer.commit(vec![Op::Delete { path: task.live_path(), version: None }]));
        }
    }
}
