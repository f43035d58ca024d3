//! What the leader writes next, given what it knows. The same call serves a fresh start, a takeover and a quiet day, so
//! recovery is not a special path.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use crate::ledger::{Entry, Interrupted, Ledger};
use crate::records::{Assignment, TaskId, WorkerId, WorkerRecord};

/// The most tasks that one plan assigns: what one multi carries comfortably.
pub const ASSIGNED_MAX: usize = 2000;
/// The most tasks that one plan moves.
const MOVED_MAX: usize = 64;

/// What to write, all of it under the leader's guard.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Attempts that ended with their worker: set each task's znode at that version. A task waits again once that is
    /// acknowledged.
    pub interrupted: BTreeMap<TaskId, Interrupted>,
    /// Workers to be set to a new list, those that lose an entry before those that gain one. A plan that moves tasks
    /// must be written in one multi, or in this order, each acknowledged before the next.
    pub lists: Vec<(WorkerId, WorkerRecord)>,
    /// How many tasks are newly assigned.
    pub assigned: usize,
}

impl Plan {
    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.interrupted.is_empty() && self.lists.is_empty()
    }
}

/// Decides, and books the decision in the ledger as done. Whoever cannot write the plan reads the tree anew.
///
/// 1. Waiting tasks, the oldest job's first, go to the worker with the most idle slots that runs their kind, then
///    beyond the slots up to each worker's window: the tasks on their way (Little's law), a good part of it at a time.
/// 2. Attempts that ended with their worker are ended in the tree.
///
/// Takes O(tasks assigned x log workers); the backlog does not matter.
pub fn plan(ledger: &mut Ledger) -> Plan {
    let mut written = BTreeSet::new();
    let assigned = assign(ledger, &mut written);
    let lists = written.into_iter().map(|id| (id.clone(), list(ledger, &id))).collect();
    Plan { interrupted: ledger.interrupted.clone(), lists, assigned }
}

/// Moves what exceeds the windows of `crowded` workers from the end of their lists to workers with an idle slot, where
/// nothing waits that could fill it.
///
/// A task that has begun must not be moved, and only its worker knows whether it has. So the caller names workers that
/// have completed nothing for so long that the first entries of their lists, one for each slot, must be running still.
pub fn rebalance(ledger: &mut Ledger, crowded: &[WorkerId]) -> Plan {
    if !ledger.ready.is_empty() {
        return Plan::default();
    }
    let (mut losers, mut gainers) = (BTreeSet::new(), BTreeSet::new());
    move_tasks(ledger, crowded, &mut losers, &mut gainers);
    gainers.retain(|id| !losers.contains(id));
    let lists = losers.into_iter().chain(gainers).map(|id| (id.clone(), list(ledger, &id))).collect();
    Plan { lists, ..Plan::default() }
}

/// Lists from which nothing is to be added or moved, only what is over dropped. Written when there is nothing better to
/// do.
pub fn tidy(ledger: &mut Ledger) -> Plan {
    let stale: Vec<WorkerId> = ledger.stale.iter().cloned().collect();
    Plan { lists: stale.into_iter().map(|id| (id.clone(), list(ledger, &id))).collect(), ..Plan::default() }
}

fn assign(ledger: &mut Ledger, written: &mut BTreeSet<WorkerId>) -> usize {
    let mut assigned = 0;
    let mut nobody_runs: HashSet<String> = HashSet::new();
    let ready: Vec<i64> = ledger.ready.iter().copied().collect();
    for key in ready {
        if ledger.open.is_empty() || assigned == ASSIGNED_MAX {
            break;
        }
        let Some(kind) = ledger.jobs.get(&key).and_then(|job| job.kind.clone()) else { continue };
        while assigned < ASSIGNED_MAX && !nobody_runs.contains(&kind) {
            let Some(n) = ledger.jobs.get(&key).and_then(|job| job.waiting.first().copied()) else { break };
            let Some(worker) = most_idle(ledger, &kind) else {
                nobody_runs.insert(kind.clone());
                break;
            };
            let job = ledger.jobs.get_mut(&key).expect("found above");
            job.waiting.remove(&n);
            let entry = Entry { job: key, n, version: job.version(n) };
            ledger.hold(&worker, entry);
            written.insert(worker);
            assigned += 1;
        }
        ledger.refresh_ready(key);
    }
    assigned
}

fn most_idle(ledger: &Ledger, kind: &str) -> Option<WorkerId> {
    let runs_it = |id: &&WorkerId| ledger.workers[*id].record.kinds.iter().any(|k| k == kind);
    ledger.open.iter().map(|(_, id)| id).find(runs_it).cloned()
}

fn move_tasks(
    ledger: &mut Ledger,
    crowded: &[WorkerId],
    losers: &mut BTreeSet<WorkerId>,
    gainers: &mut BTreeSet<WorkerId>,
) {
    let mut moved = 0;
    for from in crowded.iter().filter(|id| ledger.over.contains(id)).cloned().collect::<Vec<_>>() {
        loop {
            let worker = &ledger.workers[&from];
            let Some((_, entry)) = worker.list.last_key_value() else { break };
            if worker.list.len() <= worker.window || moved == MOVED_MAX {
                break;
            }
            let entry = entry.clone();
            let Some(kind) = ledger.jobs.get(&entry.job).and_then(|job| job.kind.clone()) else { break };
            let Some(to) = most_idle(ledger, &kind).filter(|to| has_idle_slot(ledger, to)) else { break };
            ledger.release(entry.job, entry.n);
            ledger.hold(&to, entry);
            losers.insert(from.clone());
            gainers.insert(to);
            moved += 1;
        }
    }
}

fn has_idle_slot(ledger: &Ledger, id: &WorkerId) -> bool {
    let worker = &ledger.workers[id];
    worker.list.len() < worker.record.slots as usize
}

/// The record to write for a worker; nothing in it is stale then.
fn list(ledger: &mut Ledger, id: &WorkerId) -> WorkerRecord {
    ledger.stale.remove(id);
    let worker = &ledger.workers[id];
    let entry = |entry: &Entry| {
        let task = ledger.jobs[&entry.job].id.task(entry.n);
        Assignment { task, version: entry.version }.to_string()
    };
    let mut record = worker.record.clone();
    record.assigned = worker.list.values().map(entry).collect();
    record
}
