//! The workers, and their lists.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tree::{Assignment, TaskId, WorkerId, WorkerRecord};
use znode::REQUEST_BYTES_MAX;

use super::{Health, Interrupted, JobKey, Ledger, Needs};

/// Entries of a worker's list in the order in which they are to be run.
pub(crate) type Place = u64;

/// A worker whose slots are busy is given more once this share of what may be under way to it is free: one in so many.
const REFILL_SHARE: usize = 4;
/// How large a record may become by what is assigned: it must fit into one request with room to spare, whatever number of
/// slots somebody claims.
const RECORD_BYTES_MAX: usize = 500 * 1024;
/// A record larger than this is not written, since the request would be refused: it has become so by somebody else.
const WRITABLE_BYTES_MAX: usize = REQUEST_BYTES_MAX - 1024;
/// What an entry of a list takes up at most: a job's id of 64 bytes, a task's number, a version, quotes and a comma.
pub(crate) const ENTRY_BYTES: usize = 96;

/// The longest time for which a worker is given nothing because of what it says of itself, in milliseconds.
const REST_MS_MAX: i64 = 60_000;

/// A worker and its list.
#[derive(Debug)]
pub(crate) struct Worker {
    /// As it is in the tree, but without its list.
    pub(crate) record: WorkerRecord,
    /// What the record takes up without its list, and what with it.
    bare_bytes: usize,
    pub(crate) bytes: usize,
    pub(crate) list: BTreeMap<Place, Entry>,
    /// The entries before this place are in the tree: the write that put them there was acknowledged. The worker may have
    /// begun those, and none of the others.
    written: Place,
    /// How many entries are to be alone in the list: none or one.
    pub(crate) alone: usize,
    /// The longest that the list may become: its slots and what is on its way there and back.
    pub(crate) window: usize,
    /// Whether it is given tasks: from when it has an idle slot, or room for a good part of what may be under way, until
    /// its list is as long as its window. A list is written and read whole, so many entries at a time make each cheap.
    refilling: bool,
    /// It said that it stops.
    pub(crate) stops: bool,
    /// It is gone from the tree, and it is not settled yet what that means for the tasks that it had.
    pub(super) lost: bool,
    /// The tree does not take its list, and it rests.
    refused: bool,
    /// How it fares with tasks of which the last failed at once, by their needs.
    pub(super) health: HashMap<Arc<Needs>, Health>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) job: JobKey,
    pub(crate) n: u32,
    pub(crate) version: i32,
    /// Whether it is to be alone in the list, because one more lost worker ends the task: then it is known that it was it.
    pub(crate) alone: bool,
    /// When it was put into the list, on the clock of [`Ledger::passes`].
    pub(super) since: Duration,
}

impl Entry {
    pub(crate) fn new(job: JobKey, n: u32, version: i32, alone: bool) -> Self {
        Entry { job, n, version, alone, since: Duration::ZERO }
    }
}

/// Where an entry was before it was moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) worker: WorkerId,
    pub(crate) place: Place,
    pub(crate) entry: Entry,
}

impl Worker {
    fn refill(&mut self) {
        let (length, slots) = (self.list.len(), self.record.slots as usize);
        let room = self.window.saturating_sub(length);
        if room == 0 || self.is_full() {
            self.refilling = false;
        } else if self.bytes > RECORD_BYTES_MAX / REFILL_SHARE * (REFILL_SHARE - 1) {
            // It was as large as it may be, or is soon: a list is written whole, and not for each entry.
        } else if length < slots || room * REFILL_SHARE >= self.window - slots {
            self.refilling = true;
        }
    }

    /// Whether it can have begun anything, as far as is known.
    fn has_work(&self) -> bool {
        self.list.range(..self.written).next().is_some()
    }

    pub(crate) fn has_idle_slot(&self) -> bool {
        self.list.len() < self.record.slots as usize && self.alone == 0 && !self.is_full()
    }

    /// Whether its record is as large as it may become.
    fn is_full(&self) -> bool {
        self.bytes + ENTRY_BYTES > RECORD_BYTES_MAX
    }

    /// Whether its record is there, may be set, and fits into a request.
    pub(crate) fn is_writable(&self) -> bool {
        self.bytes <= WRITABLE_BYTES_MAX && !self.lost && !self.refused
    }
}

impl Ledger {
    /// The live workers.
    pub fn workers(&self) -> impl Iterator<Item = &WorkerId> {
        self.workers.iter().filter(|(_, worker)| !worker.lost).map(|(id, _)| id)
    }

    /// Whether a worker is known, and not lost.
    pub fn is_there(&self, id: &WorkerId) -> bool {
        self.workers.get(id).is_some_and(|worker| !worker.lost)
    }

    /// Whether a worker said that it stops.
    pub fn stops(&self, id: &WorkerId) -> bool {
        self.workers.get(id).is_some_and(|worker| worker.stops)
    }

    /// Whether a worker is given nothing for a while.
    pub fn rests(&self, id: &WorkerId) -> bool {
        self.resting.contains_key(id)
    }

    /// A worker lacks what it takes to begin tasks: it is given none for so long from now on.
    pub(super) fn rest(&mut self, id: &WorkerId, for_ms: u64) {
        if !self.workers.contains_key(id) {
            return;
        }
        let until = self.clock_ms + i64::try_from(for_ms).map_or(REST_MS_MAX, |for_ms| for_ms.min(REST_MS_MAX));
        let rests = self.resting.entry(id.clone()).or_insert(until);
        *rests = until.max(*rests);
        self.reserved.take_if(|reserved| reserved == id);
    }

    /// The clock was set back: nobody rests longer for that.
    pub(super) fn cap_rests(&mut self) {
        let latest = self.clock_ms.saturating_add(REST_MS_MAX);
        self.resting.values_mut().for_each(|until| *until = latest.min(*until));
    }

    /// Whoever has rested long enough is given tasks again.
    pub(super) fn end_rests(&mut self) {
        let rested = self.resting.iter().filter(|(_, until)| **until <= self.clock_ms).map(|(id, _)| id.clone());
        for id in rested.collect::<Vec<_>>() {
            self.resting.remove(&id);
            if let Some(worker) = self.workers.get_mut(&id) {
                worker.refused = false;
            }
            self.refresh_load(&id);
        }
    }

    /// A worker exists. What it has is taken from its record when it is new; from then on the ledger knows better.
    pub fn worker_is(&mut self, id: &WorkerId, record: &WorkerRecord) {
        if self.workers.contains_key(id) {
            return;
        }
        let window = record.slots as usize;
        let bare = WorkerRecord { assigned: Vec::new(), ..record.clone() };
        let bare_bytes = bare.to_json().len();
        let worker = Worker {
            record: bare,
            bare_bytes,
            bytes: bare_bytes,
            list: BTreeMap::new(),
            written: 0,
            alone: 0,
            window,
            refilling: false,
            stops: false,
            lost: false,
            refused: false,
            health: HashMap::new(),
        };
        self.workers.insert(id.clone(), worker);
        self.adopt_all(id, record);
    }

    /// A worker's list holds this, for a master that stands by and reads what its leader writes. `false` where it names
    /// what the ledger does not know: over by now, or not heard of yet.
    pub fn list_is(&mut self, id: &WorkerId, record: &WorkerRecord) -> bool {
        let Some(worker) = self.workers.get_mut(id) else { return true };
        worker.alone = 0;
        worker.bytes = worker.bare_bytes;
        let list = std::mem::take(&mut worker.list);
        self.open.retain(|(_, other)| other != id);
        for entry in list.into_values() {
            let Some(job) = self.jobs.get_mut(&entry.job) else { continue };
            job.held.remove(&entry.n);
            job.wait(entry.n);
            self.refresh_ready(entry.job);
        }
        self.adopt_all(id, record)
    }

    /// Takes over what is in a worker's list in the tree; whether all of it is known and has not ended.
    fn adopt_all(&mut self, id: &WorkerId, record: &WorkerRecord) -> bool {
        let (assignments, errors) = record.assignments();
        let entries = assignments.len();
        let kept = assignments.into_iter().filter(|assignment| self.adopt(id, assignment)).count();
        if kept < entries || !errors.is_empty() {
            self.stale.insert(id.clone());
        }
        self.list_written(id);
        self.refresh_load(id);
        kept == entries
    }

    /// A worker's list is in the tree as it is in the ledger: the write was acknowledged.
    pub fn list_written(&mut self, id: &WorkerId) {
        if let Some(worker) = self.workers.get_mut(id) {
            worker.written = self.next_place;
        }
    }

    /// Whether a worker can have begun anything: tasks were written to its list, and have not ended.
    pub fn has_work(&self, id: &WorkerId) -> bool {
        self.workers.get(id).is_some_and(Worker::has_work)
    }

    /// Takes an assignment over from the tree; `false` where it is over.
    fn adopt(&mut self, id: &WorkerId, assignment: &Assignment) -> bool {
        let TaskId { job, n } = &assignment.task;
        let Some(key) = self.job_keys.get(job).copied() else { return false };
        let Some(job) = self.jobs.get_mut(&key) else { return false };
        if job.version(*n) != assignment.version {
            return false;
        }
        // Whoever assigned a task that waits for its moment had a clock that was ahead of this one.
        match (job.unwait(*n), job.deferred.remove(n)) {
            (true, _) => {}
            (false, Some(at_ms)) => drop(self.deferred.remove(&(at_ms, key, *n))),
            // It was taken for lost with another worker; a leader has given it to this one since.
            (false, None) if job.interrupted.contains_key(n) => self.not_interrupted(&assignment.task),
            (false, None) if job.held.get(n).is_some_and(|(other, _)| self.workers[other].lost) => {
                self.release(key, *n);
            }
            (false, None) => return false,
        }
        let alone = self.jobs.get(&key).is_some_and(|job| job.is_on_its_last_life(*n));
        self.hold(id, Entry::new(key, *n, assignment.version, alone));
        self.refresh_ready(key);
        true
    }

    /// A worker is gone, and whether that is to be charged to its tasks is not known yet: [`Ledger::worker_gone`] says. Until
    /// then what it may have begun stays with it, and is told of by other facts alone. What was not written to its list waits
    /// again as it is.
    pub fn worker_lost(&mut self, id: &WorkerId) {
        let Some(worker) = self.workers.get_mut(id) else { return };
        worker.lost = true;
        if self.reserved.as_ref() == Some(id) {
            self.reserve(None);
        }
        self.take_back_unwritten(id);
    }

    /// A worker's list may not be set (an ACL, a quota): what was not written to it waits again, and the worker is given
    /// nothing for a while. What it has in the tree stays with it.
    pub fn list_refused(&mut self, id: &WorkerId) {
        let Some(worker) = self.workers.get_mut(id) else { return };
        worker.refused = true;
        self.rest(id, REST_MS_MAX.unsigned_abs());
        self.take_back_unwritten(id);
    }

    fn take_back_unwritten(&mut self, id: &WorkerId) {
        let Some(worker) = self.workers.get(id) else { return };
        let unwritten: Vec<Entry> = worker.list.range(worker.written..).map(|(_, entry)| entry.clone()).collect();
        for entry in unwritten {
            self.release(entry.job, entry.n);
            if let Some(job) = self.jobs.get_mut(&entry.job) {
                job.wait(entry.n);
            }
            self.refresh_ready(entry.job);
        }
        self.refresh_load(id);
    }

    /// A worker is gone, and its assignments with it. All that were written to its list become interrupted attempts: beyond
    /// its slots a list holds only what is done fast, and how far that had come nobody can tell. What was not written, and
    /// what one that stops had, waits again as it is.
    ///
    /// An interrupted attempt is charged to its task as a crash; it cannot be known which task it was, unless it ran alone.
    /// With `calm_until_ms` workers are lost for a reason of their own: nothing is
    /// charged, and nothing assigned again before that moment.
    pub fn worker_gone(&mut self, id: &WorkerId, calm_until_ms: Option<i64>) {
        let Some(worker) = self.workers.remove(id) else { return };
        self.ailing.remove(id);
        self.open.retain(|(_, other)| other != id);
        self.over.remove(id);
        self.stale.remove(id);
        self.resting.remove(id);
        self.reserved.take_if(|reserved| reserved == id);
        for (place, entry) in &worker.list {
            let Some(job) = self.jobs.get_mut(&entry.job) else { continue };
            job.held.remove(&entry.n);
            if worker.stops || *place >= worker.written {
                job.wait(entry.n);
                self.refresh_ready(entry.job);
                continue;
            }
            let mut state = job.state(entry.n).attempted(id.as_str(), "its worker was lost");
            state.not_before_ms = calm_until_ms;
            if calm_until_ms.is_none() {
                state.crashes += 1;
                state.dead = job.crash_limit() > 0 && state.crashes >= job.crash_limit();
            }
            job.interrupted.insert(entry.n, Interrupted { version: entry.version, state });
            self.interrupted.insert(entry.job);
            self.refresh_ready(entry.job);
        }
    }

    /// Exactly these workers exist. With `anew`, what each has is taken from its record, for all of them: for a leader
    /// that begins, or does not know what became of its last write.
    pub fn workers_are(&mut self, workers: &[(WorkerId, WorkerRecord)], anew: bool) {
        let present: HashSet<&WorkerId> = workers.iter().map(|(id, _)| id).collect();
        let gone: Vec<WorkerId> = self.workers().filter(|id| !present.contains(id)).cloned().collect();
        gone.iter().for_each(|id| self.worker_gone(id, None));
        let mut stopping = Vec::new(); // no record says so
        if anew {
            for (id, _) in workers {
                let Some(worker) = self.workers.remove(id) else { continue };
                stopping.extend(worker.stops.then_some(id));
                self.open.retain(|(_, other)| other != id);
                self.over.remove(id);
                self.stale.remove(id);
                for entry in worker.list.values() {
                    let Some(job) = self.jobs.get_mut(&entry.job) else { continue };
                    job.held.remove(&entry.n);
                    job.wait(entry.n);
                    self.refresh_ready(entry.job);
                }
            }
        }
        for (id, record) in workers {
            self.worker_is(id, record);
        }
        for id in stopping {
            if let Some(worker) = self.workers.get_mut(id) {
                worker.stops = true;
            }
            self.refresh_load(id);
        }
    }

    /// Sets how long a worker's list may become; never less than its slots.
    pub fn set_window(&mut self, id: &WorkerId, window: usize) {
        let Some(worker) = self.workers.get_mut(id) else { return };
        let window = window.max(worker.record.slots as usize);
        if worker.window != window {
            worker.window = window;
            self.refresh_load(id);
        }
    }

    /// Workers whose list is longer than their window: what their slots were thought to leave room for has not come.
    pub fn crowded(&self) -> impl Iterator<Item = &WorkerId> {
        self.over.iter()
    }

    /// How many slots a worker has, and how long its list is.
    pub fn load(&self, id: &WorkerId) -> Option<(usize, usize)> {
        self.workers.get(id).map(|worker| (worker.record.slots as usize, worker.list.len()))
    }

    /// The worker that is given nothing but suspects, while some wait.
    pub fn reserved(&self) -> Option<&WorkerId> {
        self.reserved.as_ref()
    }

    /// Gives a worker nothing but suspects. One worker at a time, or none.
    pub(crate) fn reserve(&mut self, id: Option<WorkerId>) {
        let before = std::mem::replace(&mut self.reserved, id);
        for id in before.into_iter().chain(self.reserved.clone()) {
            self.refresh_load(&id);
        }
    }

    /// Puts a task at the end of a worker's list; it must not be waiting any more.
    pub(crate) fn hold(&mut self, id: &WorkerId, entry: Entry) {
        self.hold_at(id, self.next_place, Entry { since: self.elapsed, ..entry });
        self.next_place += 1;
    }

    /// Puts a task into a worker's list, at a place where nothing is.
    pub(crate) fn hold_at(&mut self, id: &WorkerId, place: Place, entry: Entry) {
        let bytes = self.entry_bytes(&entry);
        if let Some(job) = self.jobs.get_mut(&entry.job) {
            job.held.insert(entry.n, (id.clone(), place));
        }
        if let Some(worker) = self.workers.get_mut(id) {
            worker.bytes += bytes;
            worker.alone += usize::from(entry.alone);
            worker.list.insert(place, entry);
        }
        self.refresh_load(id);
    }

    /// What an entry takes up in a record.
    fn entry_bytes(&self, entry: &Entry) -> usize {
        let version = if entry.version == 0 { 0 } else { 1 + entry.version.to_string().len() };
        self.jobs.get(&entry.job).map_or(0, |job| job.id.as_str().len()) + "\"/0000000000\",".len() + version
    }

    /// An entry that was moved is where it was.
    pub(crate) fn return_to(&mut self, origin: Origin) {
        self.release(origin.entry.job, origin.entry.n);
        self.stale.insert(origin.worker.clone()); // it was taken to be written
        self.hold_at(&origin.worker, origin.place, origin.entry);
    }

    /// Takes a task out of the list that holds it.
    pub(crate) fn release(&mut self, job: JobKey, n: u32) -> Option<WorkerId> {
        let (id, place) = self.jobs.get_mut(&job)?.held.remove(&n)?;
        let entry = self.workers.get_mut(&id)?.list.remove(&place);
        let bytes = entry.as_ref().map_or(0, |entry| self.entry_bytes(entry));
        let worker = self.workers.get_mut(&id)?;
        worker.bytes -= bytes;
        worker.alone -= usize::from(entry.is_some_and(|entry| entry.alone));
        self.stale.insert(id.clone());
        self.refresh_load(&id);
        Some(id)
    }

    /// Files a worker under its load: tasks in its list less its slots, so the most idle comes first.
    pub(super) fn refresh_load(&mut self, id: &WorkerId) {
        let Some(worker) = self.workers.get_mut(id) else { return };
        worker.refill();
        let (length, slots) = (worker.list.len() as i64, i64::from(worker.record.slots));
        // The list changed by one entry at most since it was filed.
        for load in [length - slots - 1, length - slots, length - slots + 1] {
            self.open.remove(&(load, id.clone()));
        }
        let reserved = self.reserved.as_ref() == Some(id);
        let given_nothing = worker.stops || worker.lost || self.resting.contains_key(id);
        if !given_nothing && worker.refilling && worker.alone == 0 && !reserved {
            self.open.insert((length - slots, id.clone()));
        }
        if worker.list.len() > worker.window && !worker.lost && !worker.refused {
            self.over.insert(id.clone())
        } else {
            self.over.remove(id)
        };
    }
}
