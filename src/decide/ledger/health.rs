//! Workers whose attempts fail at once, one after another: one that lacks what the tasks need is always idle, and would draw
//! them all from those that could do them.
//!
//! Such a worker is held back from tasks with the same [`Needs`], as long as there is another that could do them: it is given
//! one at a time, after a pause that grows while these fail too, and is trusted again with the first that does not. Where the
//! others fail as well it is the tasks, and nobody is held back: a bad job fails as fast as it can.
//!
//! Source: failure accrual in Linkerd, outlier detection in Envoy.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tree::{TaskId, WorkerId};

use super::{Entry, Ledger, Needs, Worker};

/// So many failures in a row are a habit.
const FAILURES_MAX: u32 = 5;
/// An attempt that takes longer does not fail at once.
const AT_ONCE: Duration = Duration::from_secs(1);
/// The first pause, and the longest; each is twice as long as the one before.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// So many entries of a list tell what somebody is at.
const LOOKED_AT: usize = 64;
/// For so many kinds of needs it is kept how a worker fares; beyond, all is forgiven.
const NEEDS_MAX: usize = 64;

/// How a worker fares with tasks of some needs, since the last that did not fail at once.
#[derive(Debug, Default)]
pub(crate) struct Health {
    failures: u32,
    /// It is given none before that.
    until: Duration,
}

/// An attempt that has ended soon after it was assigned, of which only the outcome tells how.
#[derive(Debug, Clone)]
pub struct Quick {
    /// The task.
    pub task: TaskId,
    /// Who had it.
    pub worker: WorkerId,
    needs: Arc<Needs>,
    since: Duration,
}

/// What a worker that is held back may be given of tasks with some needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HeldBack {
    /// One, and then no more.
    One,
    /// None.
    None,
}

impl Ledger {
    /// The attempt of a task that is gone, where only its outcome tells whether it failed, and that matters. To be asked before
    /// [`Ledger::task_gone`].
    pub fn quick(&self, task: &TaskId) -> Option<Quick> {
        let job = self.job(&task.job)?;
        let (worker, place) = job.held.get(&task.n).filter(|_| job.may_have_failed())?;
        let since = self.workers.get(worker)?.list.get(place)?.since;
        let matters = self.workers.len() > 1 && self.is_at_once(since);
        let needs = job.needs.clone().filter(|_| matters)?;
        Some(Quick { task: task.clone(), worker: worker.clone(), needs, since })
    }

    /// It has failed, or not.
    pub fn quick_was(&mut self, quick: &Quick, failed: bool) {
        self.attempt_was(&quick.worker, &quick.needs, quick.since, failed);
    }

    /// Whether the last that was heard of a worker are attempts that failed at once.
    pub fn is_ailing(&self, id: &WorkerId) -> bool {
        self.ailing.contains(id)
    }

    fn is_at_once(&self, since: Duration) -> bool {
        self.elapsed.saturating_sub(since) < AT_ONCE
    }

    /// An attempt of a worker, assigned at that moment, has ended.
    pub(super) fn attempt_was(&mut self, id: &WorkerId, needs: &Arc<Needs>, since: Duration, failed: bool) {
        let (at_once, elapsed) = (self.is_at_once(since), self.elapsed);
        let Some(worker) = self.workers.get_mut(id) else { return };
        if failed && at_once && (worker.health.len() < NEEDS_MAX || worker.health.contains_key(needs)) {
            let health = worker.health.entry(needs.clone()).or_default();
            // What it was given before it was held back says nothing new.
            if health.failures < FAILURES_MAX || since >= health.until {
                health.failures = health.failures.saturating_add(1);
                let pause = health.failures.checked_sub(FAILURES_MAX).map(|beyond| PAUSE_MIN * (1 << beyond.min(10)));
                health.until = pause.map_or(Duration::ZERO, |pause| elapsed + pause.min(PAUSE_MAX));
            }
            self.ailing.insert(id.clone());
        } else {
            worker.health.remove(needs);
            if worker.health.is_empty() {
                self.ailing.remove(id);
            }
        }
    }

    /// Decides anew who is held back.
    pub(crate) fn hold_back(&mut self) {
        let mut held_back: HashMap<WorkerId, HashMap<Arc<Needs>, HeldBack>> = HashMap::new();
        for id in &self.ailing {
            for (needs, health) in self.workers.get(id).into_iter().flat_map(|worker| &worker.health) {
                if let Some(how) = self.how_held_back(id, needs, health) {
                    held_back.entry(id.clone()).or_default().insert(needs.clone(), how);
                }
            }
        }
        self.held_back = held_back;
    }

    fn how_held_back(&self, id: &WorkerId, needs: &Needs, health: &Health) -> Option<HeldBack> {
        let of_these = |entry: &&Entry| self.jobs.get(&entry.job).and_then(|job| job.needs.as_deref()) == Some(needs);
        let could_do_them = |(other, worker): &(&WorkerId, &Worker)| {
            let fares_well = worker.health.get(needs).is_none_or(|health| health.failures < FAILURES_MAX);
            let may = *other != id && !worker.stops && !worker.lost && fares_well && needs.met_by(&worker.record);
            may && (worker.has_idle_slot() || worker.list.values().take(LOOKED_AT).any(|entry| of_these(&entry)))
        };
        if health.failures < FAILURES_MAX || !self.workers.iter().any(|other| could_do_them(&other)) {
            return None;
        }
        match self.workers[id].list.values().filter(of_these).map(|entry| entry.since).min() {
            // What it is at for a while does not fail at once.
            Some(since) => self.is_at_once(since).then_some(HeldBack::None),
            None if self.elapsed < health.until => Some(HeldBack::None),
            None => Some(HeldBack::One),
        }
    }

    /// Whether a worker is given nothing with these needs now.
    pub(crate) fn is_held_back(&self, id: &WorkerId, needs: &Needs) -> bool {
        self.held_back.get(id).and_then(|held| held.get(needs)) == Some(&HeldBack::None)
    }

    /// A worker was given a task: where it may be given one at a time, that was it.
    pub(crate) fn is_given_one(&mut self, id: &WorkerId, needs: &Needs) {
        if let Some(how) = self.held_back.get_mut(id).and_then(|held| held.get_mut(needs)) {
            *how = HeldBack::None;
        }
    }
}
