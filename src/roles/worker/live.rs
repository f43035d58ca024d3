//! Showing what runs while it runs.

use std::time::{Duration, Instant};

use super::Shift;
use crate::coordination::Op;
use crate::handlers::Sink;
use crate::records::{Assignment, TaskId};

/// How often what runs is shown, and how old it must be.
pub(super) const SHOW_EVERY: Duration = Duration::from_secs(1);
/// The most tasks that are shown at a time.
const SHOWN_MAX: usize = 100;

/// What a running task shows.
pub(super) struct Shown {
    sink: Sink,
    attempt: u32,
    since: Instant,
    /// Whether its znode was created.
    there: bool,
}

impl Shown {
    pub(super) fn new(sink: Sink, attempt: u32) -> Self {
        Shown { sink, attempt, since: Instant::now(), there: false }
    }
}

impl Shift {
    /// Writes what has changed. Nobody waits for it, and nothing depends on it.
    pub(super) fn show(&mut self) {
        let old = self.shown.iter_mut().filter(|(_, shown)| shown.since.elapsed() >= SHOW_EVERY);
        let changed = old.filter_map(|(assignment, shown)| {
            let live = shown.sink.take(&self.id, shown.attempt)?;
            Some((assignment.task.live_path(), live.to_json(), std::mem::replace(&mut shown.there, true)))
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

    /// The task does not run any more. What was shown goes before anything that is committed after this.
    pub(super) fn hide(&mut self, assignment: &Assignment) {
        if self.shown.remove(assignment).is_some_and(|shown| shown.there) {
            self.remove_shown(&assignment.task);
        }
    }

    /// Nothing runs any more.
    pub(super) fn hide_all(&mut self) {
        for (assignment, shown) in std::mem::take(&mut self.shown) {
            if shown.there {
                self.remove_shown(&assignment.task);
            }
        }
    }

    fn remove_shown(&self, task: &TaskId) {
        drop(self.committer.commit(vec![Op::Delete { path: task.live_path(), version: None }]));
    }
}
