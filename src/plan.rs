//! What the leader writes next, given what it knows. The same call serves a fresh start, a takeover and a quiet day, so
//! recovery is not a special path.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use crate::ledger::{Entry, Interrupted, JobKey, Ledger, Needs, Worker};
use crate::records::{Assignment, TaskId, WorkerId, WorkerRecord};

/// The most tasks that one plan assigns: what one multi carries comfortably.
pub const ASSIGNED_MAX: usize = 2000;
/// For how many suspects of a job a place is looked for at a time.
const SUSPECTS_TRIED: usize = 16;
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
/// 1. Waiting tasks go to the worker with the most idle slots that runs their kind and has their tags, then beyond the
///    slots up to each worker's window: the tasks on their way (Little's law), a good part of it at a time.
///    Jobs of the highest priority go first; of these the one with the fewest tasks assigned, then the oldest; and of a
///    job the task with the lowest number.
/// 2. A *suspect*, a task under which a worker was lost, goes to an idle slot and never beyond; one that the next lost
///    worker ends goes to an empty list, and is alone there. So it becomes known which task it was. Where there is no such
///    place, one worker is given nothing else until no suspect waits.
/// 3. Attempts that ended with their worker are ended in the tree.
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

/// A job's turn: its priority, how many of its tasks are assigned, and its age.
type Turn = (Reverse<i32>, usize, JobKey);

fn assign(ledger: &mut Ledger, written: &mut BTreeSet<WorkerId>) -> usize {
    let mut assigned = 0;
    let mut nobody_meets: HashSet<Arc<Needs>> = HashSet::new();
    let turn = |key: &JobKey| -> Turn {
        let job = &ledger.jobs[key];
        (Reverse(job.record.as_ref().map_or(0, |record| record.policy.priority)), job.held.len(), *key)
    };
    let mut turns: BTreeSet<Turn> = ledger.ready.iter().map(turn).collect();
    if ledger.reserved.is_some() && ledger.jobs.values().all(|job| job.suspects.is_empty()) {
        ledger.reserve(None);
    }
    while assigned < ASSIGNED_MAX
        && (!ledger.open.is_empty() || ledger.reserved.is_some())
        && let Some((priority, held, key)) = turns.pop_first()
    {
        let Some(needs) = ledger.jobs[&key].needs.clone().filter(|needs| !nobody_meets.contains(needs)) else {
            continue;
        };
        let Some((n, worker)) = next_suspect(ledger, key, &needs).or_else(|| next_waiting(ledger, key, &needs)) else {
            if !ledger.jobs[&key].waiting.is_empty() {
                nobody_meets.insert(needs);
            }
            continue;
        };
        let job = ledger.jobs.get_mut(&key).expect("it has its turn");
        job.unwait(n);
        let entry = Entry { job: key, n, version: job.version(n), alone: job.is_on_its_last_life(n) };
        ledger.hold(&worker, entry);
        written.insert(worker);
        assigned += 1;
        ledger.refresh_ready(key);
        if ledger.ready.contains(&key) {
            turns.insert((priority, held + 1, key));
        }
    }
    assigned
}

fn next_waiting(ledger: &Ledger, key: JobKey, needs: &Needs) -> Option<(u32, WorkerId)> {
    let n = ledger.jobs[&key].waiting.first()?;
    Some((*n, most_idle(ledger, needs, |_| true)?))
}

fn next_suspect(ledger: &mut Ledger, key: JobKey, needs: &Needs) -> Option<(u32, WorkerId)> {
    let job = &ledger.jobs[&key];
    let place = |n: u32| {
        let may = |id: &&WorkerId| {
            let worker = &ledger.workers[*id];
            let room = if job.is_on_its_last_life(n) { worker.list.is_empty() } else { worker.has_idle_slot() };
            room && !worker.stops && needs.met_by(&worker.record)
        };
        ledger.reserved.iter().chain(ledger.open.iter().map(|(_, id)| id)).find(may).cloned()
    };
    let found = job.suspects.iter().take(SUSPECTS_TRIED).find_map(|n| Some((*n, place(*n)?)));
    if found.is_none() && !job.suspects.is_empty() && ledger.reserved.is_none() {
        let emptiest = most_idle(ledger, needs, |_| true);
        ledger.reserve(emptiest);
    }
    found
}

fn most_idle(ledger: &Ledger, needs: &Needs, suits: impl Fn(&Worker) -> bool) -> Option<WorkerId> {
    let may = |id: &&WorkerId| needs.met_by(&ledger.workers[*id].record) && suits(&ledger.workers[*id]);
    ledger.open.iter().map(|(_, id)| id).find(may).cloned()
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
            let Some(needs) = ledger.jobs.get(&entry.job).and_then(|job| job.needs.clone()) else { break };
            let suits = |to: &Worker| to.has_idle_slot() && !entry.alone;
            let Some(to) = most_idle(ledger, &needs, suits) else { break };
            ledger.release(entry.job, entry.n);
            ledger.hold(&to, entry);
            losers.insert(from.clone());
            gainers.insert(to);
            moved += 1;
        }
    }
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
