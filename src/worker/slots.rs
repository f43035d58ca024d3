//! The slots: which tasks begin, and what is stopped before it has ended by itself.
//!
//! A handler that blocks its thread cannot be dropped: it keeps its slot until it returns, though its task be given to others.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::{FutureExt, ready};
use tokio::task::JoinSet;
use tracing::{debug, warn};
use tree::Assignment;

use super::attempt::{self, Attempt, Ended};
use super::fetch::Fetched;
use super::list::{Entry, Stage};
use super::progress::InSlot;
use super::{CANCEL_GRACE, Shift};
use crate::handlers::{Cancelled, Signals, Sink, Task, Token};

/// How much later than its own clock does the worker ends an attempt that is out of time: only where it blocks its thread is
/// that clock not heard, and what dropping the handler says would be lost.
const DROP_GRACE: Duration = Duration::from_secs(1);

impl Shift {
    /// The task whose turn it is, and what it needs. It waits no more: whoever calls this says what it does instead.
    pub(super) fn next_waiting(&mut self) -> Option<(Assignment, Arc<Fetched>)> {
        while let Some(assignment) = self.queue.pop_front() {
            if let Some(Entry { stage: Stage::Waiting(fetched), .. }) = self.entries.get(&assignment) {
                let fetched = fetched.clone();
                return Some((assignment, fetched));
            }
        }
        None
    }

    /// Whether any entry of the list runs.
    pub(super) fn runs_any(&self) -> bool {
        self.entries.values().any(|entry| matches!(entry.stage, Stage::Running(_)))
    }

    /// Begins what waits, as far as there are slots.
    pub(super) fn fill_slots(&mut self) {
        while !self.paused {
            let full = self.running.len() >= self.worker.slots as usize;
            let blocked = if full { self.blocked() } else { 0 };
            if full && blocked == 0 {
                return;
            }
            let Some((assignment, fetched)) = self.next_waiting() else { return };
            if full {
                let lacking = format!("slots: {blocked} of its handlers block, were told to stop and have not");
                return self.cannot_begin(assignment, &fetched, &lacking);
            }
            // To hand a task to another thread and back costs more than the lightest ones.
            let light =
                fetched.payload.as_ref().is_ok_and(|payload| self.worker.handlers.is_light(&fetched.job.kind, payload));
            let threads = if light { None } else { Some(self.threads.handle().cloned()) };
            let threads = match threads.transpose() {
                Ok(threads) => threads,
                Err(lacking) => return self.cannot_begin(assignment, &fetched, &lacking),
            };
            let Some(entry) = self.entries.get_mut(&assignment) else { continue };
            entry.runs += 1;
            let (signals, attempt) = (Arc::new(Signals::default()), fetched.state.attempt + 1);
            let task = Task {
                id: assignment.task.clone(),
                attempt,
                token: Token { zxid: entry.zxid, run: entry.runs },
                args: fetched.job.args.clone(),
                payload: fetched.payload.clone().unwrap_or_default(),
                cancelled: Cancelled(signals.clone()),
                sink: Sink(signals.clone()),
            };
            debug!(task = %task.id, attempt = task.attempt, kind = fetched.job.kind, "running");
            let running = match &fetched.payload {
                Ok(_) => self.worker.handlers.run(&fetched.job.kind, task),
                Err(error) => Some(ready(Err(error.clone())).boxed()),
            };
            let attempt = Attempt {
                worker: self.id.clone(),
                assignment,
                fetched: fetched.clone(),
                running,
                signals: signals.clone(),
            };
            let abort = match threads {
                Some(threads) => self.running.spawn_on(attempt.run(), &threads),
                None => self.running.spawn(attempt.run()),
            };
            let slot = InSlot { fetched, signals, abort, since: Instant::now(), shown: false };
            entry.stage = Stage::Running(slot);
        }
    }

    /// How many should have stopped and have not: whatever they do they do not yield, and cannot be dropped.
    fn blocked(&mut self) -> usize {
        let now = Instant::now();
        self.told_to_stop.retain(|(_, abort)| !abort.is_finished());
        self.told_to_stop.iter().filter(|(by, _)| *by < now).count()
    }

    /// Ends attempts whose time is over, with what they may take to end by themselves: a handler that blocks its thread blocks
    /// also the clock of its attempt.
    pub(super) fn end_overdue(&mut self) {
        let now = Instant::now();
        let overdue = self.entries.iter().filter_map(|(assignment, entry)| {
            let Stage::Running(slot) = &entry.stage else { return None };
            let limit = slot.fetched.job.policy.timeout_ms.map(Duration::from_millis)?;
            let over = now.saturating_duration_since(slot.since) > limit.saturating_add(CANCEL_GRACE + DROP_GRACE);
            over.then(|| (assignment.clone(), slot.fetched.clone(), slot.abort.clone(), limit))
        });
        for (assignment, fetched, abort, limit) in overdue.collect::<Vec<_>>() {
            abort.abort();
            let run = abort.id();
            self.told_to_stop.push((now, abort));
            let end = attempt::failed(&self.id, &fetched, attempt::timed_out(limit));
            self.ended(run, Ended { assignment, fetched, end });
        }
    }

    /// The session may be over: others may be given what runs here. It is begun again if the session lives after all.
    pub(super) fn stop_running(&mut self) {
        warn!(running = self.running.len(), "stopping what runs: the session cannot be trusted");
        let mut entries = std::mem::take(&mut self.entries);
        for (assignment, entry) in &mut entries {
            if let Stage::Running(slot) = &entry.stage {
                self.hide(&assignment.task, slot);
                self.told_to_stop.push((Instant::now(), slot.abort.clone()));
                entry.stage = Stage::Interrupted;
            }
        }
        self.entries = entries;
        self.running.abort_all(); // what blocks stays in it until it has ended
    }

    /// The grace is over: what still runs is stopped and handed back.
    pub(super) fn end_running(&mut self) {
        self.running = JoinSet::new();
        let running = |(assignment, entry): (&Assignment, &Entry)| match &entry.stage {
            Stage::Running(slot) => {
                self.hide(&assignment.task, slot);
                Some((assignment.clone(), slot.fetched.clone()))
            }
            Stage::Interrupted | Stage::Fetching | Stage::Waiting(_) | Stage::Completing(_) | Stage::Over => None,
        };
        let stopped: Vec<_> = self.entries.iter().filter_map(running).collect();
        for (assignment, fetched) in stopped {
            let error =
                format!("its worker stopped, after a grace of {}", humantime::format_duration(self.worker.grace));
            self.hand_back(assignment, &fetched, Some(error));
        }
    }
}
