//! One job and its tasks.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tree::{JobId, JobRecord, TaskState, WorkerId, WorkerRecord};

use super::Interrupted;
use super::workers::Place;

/// What a worker must have to run a job's tasks.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Needs {
    /// The kind, which the worker must run.
    pub kind: String,
    /// Tags, all of which it must have.
    pub tags: Vec<String>,
}

impl Needs {
    /// Of a job with this record.
    pub fn of(record: &JobRecord) -> Self {
        Needs { kind: record.kind.clone(), tags: record.policy.require.clone() }
    }

    /// Whether a worker has all of it.
    pub fn met_by(&self, worker: &WorkerRecord) -> bool {
        worker.kinds.contains(&self.kind) && self.tags.iter().all(|tag| worker.tags.contains(tag))
    }
}

/// A job and its tasks. A task that is not dead waits, is deferred, is held, or is interrupted.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) id: JobId,
    /// `None` while the record cannot be understood; the tasks wait for ever.
    pub(crate) record: Option<JobRecord>,
    pub(crate) needs: Option<Arc<Needs>>,
    pub(crate) waiting: BTreeSet<u32>,
    /// Tasks that wait, and under which a worker was lost before.
    pub(crate) suspects: BTreeSet<u32>,
    /// Tasks that wait for a moment, in milliseconds since 1970.
    pub(crate) deferred: HashMap<u32, i64>,
    pub(crate) held: HashMap<u32, (WorkerId, Place)>,
    /// Tasks that a lost worker may have been running: their attempt is to be ended.
    pub(crate) interrupted: BTreeMap<u32, Interrupted>,
    /// Tasks that are not attempted any more.
    pub(crate) dead: BTreeSet<u32>,
    /// Those of them whose znodes may not be set, though an attempt has ended, and the versions at which that was refused.
    pub(super) refused: HashMap<u32, i32>,
    /// Tasks whose znode was set since its creation.
    pub(crate) attempted: HashMap<u32, Attempted>,
    /// The clients that attend the job, by their znodes' names.
    pub(crate) clients: BTreeSet<String>,
    /// Since when nothing of it is outstanding and nobody attends it, on the clock of [`Ledger::passes`](super::Ledger::passes).
    pub(super) idle_since: Option<Duration>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attempted {
    pub(crate) version: i32,
    pub(crate) state: TaskState,
    /// The moment before which it is not assigned again, as it was reckoned when this version was seen first.
    pub(crate) due_ms: Option<i64>,
}

impl Job {
    pub(super) fn new(id: JobId) -> Self {
        Job {
            id,
            record: None,
            needs: None,
            waiting: BTreeSet::new(),
            suspects: BTreeSet::new(),
            deferred: HashMap::new(),
            held: HashMap::new(),
            interrupted: BTreeMap::new(),
            dead: BTreeSet::new(),
            refused: HashMap::new(),
            attempted: HashMap::new(),
            clients: BTreeSet::new(),
            idle_since: None,
        }
    }

    pub(super) fn record_is(&mut self, record: &JobRecord) {
        let needs = Needs::of(record);
        if self.needs.as_deref() != Some(&needs) {
            self.needs = Some(Arc::new(needs));
        }
        self.record = Some(record.clone());
    }

    pub(crate) fn version(&self, n: u32) -> i32 {
        self.attempted.get(&n).map_or(0, |attempted| attempted.version)
    }

    pub(crate) fn state(&self, n: u32) -> TaskState {
        self.attempted.get(&n).map(|attempted| attempted.state.clone()).unwrap_or_default()
    }

    /// The moment before which a task in this state, seen first at `now_ms`, is not assigned: whoever wrote it, by whatever
    /// clock, no later from now than the job makes anything wait that was attempted.
    pub(super) fn due_ms(&self, state: &TaskState, now_ms: i64) -> Option<i64> {
        let record = self.record.as_ref();
        let latest = record.map_or(i64::MAX, |record| now_ms.saturating_add(record.policy.longest_wait_ms()));
        state.not_before_ms.map(|at| at.min(latest))
    }

    /// Whether a worker was lost under the task, and that is counted.
    pub(crate) fn is_suspect(&self, n: u32) -> bool {
        self.crash_limit() > 0 && self.crashes(n) > 0
    }

    /// Whether one more lost worker ends the task.
    pub(crate) fn is_on_its_last_life(&self, n: u32) -> bool {
        self.is_suspect(n) && self.crashes(n) + 1 >= self.crash_limit()
    }

    pub(super) fn crash_limit(&self) -> u32 {
        self.record.as_ref().map_or(0, |record| record.policy.crash_limit)
    }

    fn crashes(&self, n: u32) -> u32 {
        self.attempted.get(&n).map_or(0, |attempted| attempted.state.crashes)
    }

    /// The task waits from now on.
    pub(super) fn wait(&mut self, n: u32) {
        if self.is_suspect(n) {
            self.suspects.insert(n)
        } else {
            self.waiting.insert(n)
        };
    }

    /// The task waits no more; whether it did.
    pub(crate) fn unwait(&mut self, n: u32) -> bool {
        self.waiting.remove(&n) || self.suspects.remove(&n)
    }

    /// Whether a task that is gone may have failed: one that is attempted once ends with its failure, and marks the job.
    pub(super) fn may_have_failed(&self) -> bool {
        self.record.as_ref().is_some_and(|record| record.failed && record.policy.max_attempts <= 1)
    }

    /// Every task that is known of, some twice.
    pub(crate) fn numbers(&self) -> impl Iterator<Item = u32> {
        let waiting = self.waiting.iter().chain(&self.suspects).chain(self.deferred.keys());
        let placed = self.held.keys().chain(self.interrupted.keys()).chain(&self.dead);
        waiting.chain(placed).chain(self.attempted.keys()).copied()
    }

    pub(crate) fn has_outstanding(&self) -> bool {
        let waits = !self.waiting.is_empty() || !self.suspects.is_empty() || !self.deferred.is_empty();
        waits || !self.held.is_empty() || !self.interrupted.is_empty()
    }

    pub(super) fn may_be_assigned(&self, now_ms: i64) -> bool {
        let waits = !self.waiting.is_empty() || !self.suspects.is_empty();
        let may_begin = |record: &JobRecord| {
            let due = record.policy.not_before_ms.is_none_or(|at| at <= now_ms);
            due && record.after.is_empty() && record.withdrawn.is_none()
        };
        waits && self.record.as_ref().is_some_and(may_begin)
    }

    /// Whether a worker has all that the tasks need.
    pub(crate) fn is_met_by(&self, worker: &WorkerRecord) -> bool {
        self.needs.as_ref().is_some_and(|needs| needs.met_by(worker))
    }

    pub(super) fn is_special(&self) -> bool {
        self.record.as_ref().is_some_and(|record| {
            let attached = record.policy.attached && self.clients.is_empty();
            attached || record.policy.deadline_ms.is_some() || !record.after.is_empty() || record.withdrawn.is_some()
        })
    }
}
