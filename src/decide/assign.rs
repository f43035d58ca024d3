//! What the leader writes next, given what it knows. The same call serves a fresh start, a takeover and a quiet day, so
//! recovery is not a special path.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use tree::{Assignment, TaskId, TaskState, WorkerId, WorkerRecord};
use znode::REQUEST_BYTES_MAX;

use crate::decide::ledger::{ENTRY_BYTES, Entry, Interrupted, Job, JobKey, Ledger, Needs, Origin, Worker};

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
    /// Tasks that go from one worker's list to another's. A plan that has any is to be written in one multi, or not at all:
    /// see [`take_back`].
    pub moved: Vec<Moved>,
    /// Workers to be set to a new list, those that lose an entry before those that gain one. Once that is acknowledged the
    /// ledger is to be told ([`Ledger::list_written`]).
    pub lists: Vec<(WorkerId, WorkerRecord)>,
    /// How many tasks are newly assigned.
    pub assigned: usize,
}

/// A task that goes to another worker: its znode is to be set as it is, at that version. The entry in the new list is for
/// the next version, so whatever the worker that had it still sends is refused.
#[derive(Debug, PartialEq, Eq)]
pub struct Moved {
    /// Which task.
    pub task: TaskId,
    /// The version of its znode that is replaced.
    pub version: i32,
    /// What its znode holds.
    pub state: TaskState,
    /// Where it was.
    origin: Origin,
}

impl Moved {
    /// The data of its znode, unchanged.
    pub fn data(&self) -> Vec<u8> {
        if self.state == TaskState::default() { Vec::new() } else { self.state.to_json() }
    }
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
/// 4. A worker whose attempts fail at once, one after another, is given one at a time, and after a pause, where somebody else
///    could do such tasks.
///
/// Takes O(tasks assigned x log workers); the backlog does not matter.
pub fn plan(ledger: &mut Ledger) -> Plan {
    let mut written = BTreeSet::new();
    ledger.hold_back();
    let assigned = assign(ledger, &mut written);
    let lists = written.into_iter().map(|id| (id.clone(), list(ledger, &id))).collect();
    let jobs = ledger.interrupted.iter().filter_map(|key| ledger.jobs.get(key));
    let ends =
        |job: &Job| job.interrupted.iter().map(|(n, ended)| (job.id.task(*n), ended.clone())).collect::<Vec<_>>();
    Plan { interrupted: jobs.flat_map(ends).collect(), lists, assigned, moved: Vec::new() }
}

/// Moves what exceeds the windows of `crowded` workers from the end of their lists to workers with an idle slot, where
/// nothing waits that could fill it.
///
/// A task that has begun must not be moved, and only its worker knows whether it has. So the caller names workers that
/// have completed nothing for so long that the first entries of their lists, one for each slot, must be running still.
/// That may be wrong, which is why each task that is moved goes to its next version.
pub fn rebalance(ledger: &mut Ledger, crowded: &[WorkerId]) -> Plan {
    let (mut losers, mut gainers) = (BTreeSet::new(), BTreeSet::new());
    let moved = move_tasks(ledger, crowded, &mut losers, &mut gainers);
    gainers.retain(|id| !losers.contains(id));
    let lists = losers.into_iter().chain(gainers).map(|id| (id.clone(), list(ledger, &id))).collect();
    Plan { moved, lists, ..Plan::default() }
}

/// What was planned to be moved stays where it was: the plan was refused, or nobody knows.
pub fn take_back(ledger: &mut Ledger, moved: Vec<Moved>) {
    for moved in moved.into_iter().rev() {
        ledger.return_to(moved.origin);
    }
}

/// Lists from which nothing is to be added or moved, only what is over dropped. Written when there is nothing better to
/// do. A list that somebody else made too large to be written stays as it is until enough of it is over.
pub fn tidy(ledger: &mut Ledger) -> Plan {
    let stale: Vec<WorkerId> = ledger.stale.iter().filter(|id| ledger.workers[*id].is_writable()).cloned().collect();
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
    if ledger.reserved.as_ref().is_some_and(|id| !has_suspects_for(ledger, id)) {
        ledger.reserve(None);
    }
    while assigned < ASSIGNED_MAX
        && (!ledger.open.is_empty() || ledger.reserved.is_some())
        && let Some((priority, held, key)) = turns.pop_first()
    {
        let Some(needs) = ledger.jobs[&key].needs.clone() else { continue };
        // Who is kept for suspects is given those, though nobody has room for anything else.
        let suspect = next_suspect(ledger, key, &needs);
        let next = match suspect {
            None if nobody_meets.contains(&needs) => None,
            None => next_waiting(ledger, key, &needs),
            suspect => suspect,
        };
        let Some((n, worker)) = next else {
            if !ledger.jobs[&key].waiting.is_empty() {
                nobody_meets.insert(needs);
            }
            continue;
        };
        let job = ledger.jobs.get_mut(&key).expect("it has its turn");
        job.unwait(n);
        let entry = Entry::new(key, n, job.version(n), job.is_on_its_last_life(n));
        ledger.hold(&worker, entry);
        ledger.is_given_one(&worker, &needs);
        written.insert(worker);
        assigned += 1;
        ledger.refresh_ready(key);
        if ledger.ready.contains(&key) {
            turns.insert((priority, held + 1, key));
        }
    }
    assigned
}

/// Whether a suspect waits that this worker could run.
fn has_suspects_for(ledger: &Ledger, id: &WorkerId) -> bool {
    let Some(worker) = ledger.workers.get(id).filter(|worker| !worker.stops) else { return false };
    let for_it = |job: &Job| !job.suspects.is_empty() && job.is_met_by(&worker.record);
    ledger.ready.iter().filter_map(|key| ledger.jobs.get(key)).any(for_it)
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
            room && !worker.stops && needs.met_by(&worker.record) && !ledger.is_held_back(id, needs)
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
    let may = |id: &&WorkerId| {
        let worker = &ledger.workers[*id];
        needs.met_by(&worker.record) && suits(worker) && !ledger.is_held_back(id, needs)
    };
    ledger.open.iter().map(|(_, id)| id).find(may).cloned()
}

fn move_tasks(
    ledger: &mut Ledger,
    crowded: &[WorkerId],
    losers: &mut BTreeSet<WorkerId>,
    gainers: &mut BTreeSet<WorkerId>,
) -> Vec<Moved> {
    let mut moved = Vec::new();
    let mut bytes = 0;
    // A worker that something waits for is not filled with what is elsewhere already.
    let waiting: HashSet<Arc<Needs>> =
        ledger.ready.iter().filter_map(|key| ledger.jobs.get(key)?.needs.clone()).collect();
    for from in crowded.iter().filter(|id| ledger.over.contains(id)).cloned().collect::<Vec<_>>() {
        loop {
            let worker = &ledger.workers[&from];
            let Some((place, entry)) = worker.list.last_key_value() else { break };
            if worker.list.len() <= worker.window || moved.len() == MOVED_MAX {
                break;
            }
            let (place, entry) = (*place, entry.clone());
            let Some(job) = ledger.jobs.get(&entry.job) else { break };
            let Some(needs) = job.needs.clone() else { break };
            let free = |to: &Worker| !waiting.iter().any(|needs| needs.met_by(&to.record));
            let suits = |to: &Worker| to.has_idle_slot() && !entry.alone && free(to);
            let Some(to) = most_idle(ledger, &needs, suits) else { break };
            let (task, state, version) = (job.id.task(entry.n), job.state(entry.n), entry.version);
            let lists = added_bytes(ledger, &from, losers) + added_bytes(ledger, &to, gainers);
            let more = state.to_json().len() + task.path().len() + lists;
            if bytes + more > REQUEST_BYTES_MAX * 3 / 4 {
                break; // another worker's list may be shorter
            }
            bytes += more;
            ledger.release(entry.job, entry.n);
            ledger.hold(&to, Entry::new(entry.job, entry.n, version + 1, entry.alone));
            moved.push(Moved { task, version, state, origin: Origin { worker: from.clone(), place, entry } });
            losers.insert(from.clone());
            gainers.insert(to);
        }
    }
    moved
}

/// What a list adds to a multi that has those of `known` already, in bytes.
fn added_bytes(ledger: &Ledger, id: &WorkerId, known: &BTreeSet<WorkerId>) -> usize {
    let list = if known.contains(id) { 0 } else { ledger.workers[id].bytes };
    list + 2 * ENTRY_BYTES
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
