//! What the mirror knows, kept so that the next assignments are found in O(assigned) and not in O(backlog).
//!
//! Pure: facts come in, [`plan`](crate::plan) takes assignments out. No clock, no I/O, no ZooKeeper. The tree is the
//! truth and the ledger its shadow; a leader that doubts its ledger reads the tree again and calls
//! [`Ledger::workers_are`] and [`Ledger::tasks_are`], which are also how a fresh start and a takeover begin.
//!
//! Jobs are ordered by the czxid of their record and tasks by their number, so first-in-first-out survives any
//! failover without being stored.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use crate::records::{Assignment, JobId, JobRecord, TaskId, TaskState, WorkerId, WorkerRecord};

/// Jobs in the order of their creation.
pub(crate) type JobKey = i64;
/// Entries of a worker's list in the order in which they are to be run.
pub(crate) type Place = u64;

/// A worker whose slots are busy is given more once this share of what may be under way to it is free: one in so many.
const REFILL_SHARE: usize = 4;

/// Everything that a master knows of tasks and workers.
#[derive(Debug, Default)]
pub struct Ledger {
    pub(crate) jobs: BTreeMap<JobKey, Job>,
    job_keys: HashMap<JobId, JobKey>,
    pub(crate) workers: HashMap<WorkerId, Worker>,
    /// Jobs with tasks that wait, and a record that says for whom.
    pub(crate) ready: BTreeSet<JobKey>,
    /// Workers that are being refilled, the one with the most idle slots first.
    pub(crate) open: BTreeSet<(i64, WorkerId)>,
    /// Workers whose list is longer than their window.
    pub(crate) over: BTreeSet<WorkerId>,
    /// Workers whose list in the tree holds entries that are over.
    pub(crate) stale: BTreeSet<WorkerId>,
    /// Tasks that a lost worker may have been running: their attempt is to be ended.
    pub(crate) interrupted: BTreeMap<TaskId, Interrupted>,
    next_place: Place,
}

/// A job and its outstanding tasks.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) id: JobId,
    /// `None` while the record cannot be understood; its tasks wait for ever.
    pub(crate) kind: Option<String>,
    pub(crate) waiting: BTreeSet<u32>,
    pub(crate) held: HashMap<u32, (WorkerId, Place)>,
    /// Tasks whose znode was set since its creation.
    pub(crate) attempted: HashMap<u32, Attempted>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attempted {
    pub(crate) version: i32,
    pub(crate) state: TaskState,
}

/// A task whose attempt ended with its worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interrupted {
    /// The version of its znode that was assigned.
    pub version: i32,
    /// What its znode is to be set to.
    pub state: TaskState,
}

/// A worker and its list.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) record: WorkerRecord,
    pub(crate) list: BTreeMap<Place, Entry>,
    /// The longest that the list may become: its slots and what is on its way there and back.
    pub(crate) window: usize,
    /// Whether it is given tasks: from when it has an idle slot, or room for a good part of what may be under way, until
    /// its list is as long as its window. A list is written and read whole, so many entries at a time make each cheap.
    refilling: bool,
    /// It said that it stops.
    pub(crate) stops: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) job: JobKey,
    pub(crate) n: u32,
    pub(crate) version: i32,
}

/// How many tasks are where.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Tasks that wait for a worker.
    pub waiting: usize,
    /// Tasks in a worker's list.
    pub assigned: usize,
}

impl Job {
    pub(crate) fn version(&self, n: u32) -> i32 {
        self.attempted.get(&n).map_or(0, |attempted| attempted.version)
    }
}

impl Worker {
    fn refill(&mut self) {
        let (length, slots) = (self.list.len(), self.record.slots as usize);
        let room = self.window.saturating_sub(length);
        if room == 0 {
            self.refilling = false;
        } else if length < slots || room * REFILL_SHARE >= self.window - slots {
            self.refilling = true;
        }
    }
}

impl Ledger {
    /// How many tasks are where.
    pub fn counts(&self) -> Counts {
        Counts {
            waiting: self.jobs.values().map(|job| job.waiting.len()).sum(),
            assigned: self.jobs.values().map(|job| job.held.len()).sum(),
        }
    }

    /// The live workers.
    pub fn workers(&self) -> impl Iterator<Item = &WorkerId> {
        self.workers.keys()
    }

    /// The jobs, oldest first.
    pub fn jobs(&self) -> impl Iterator<Item = &JobId> {
        self.jobs.values().map(|job| &job.id)
    }

    /// Whether a job has tasks that are waiting or assigned.
    pub fn has_outstanding(&self, job: &JobId) -> bool {
        let job = self.job_keys.get(job).and_then(|key| self.jobs.get(key));
        job.is_some_and(|job| !job.waiting.is_empty() || !job.held.is_empty())
    }

    /// A job exists. `record` is `None` where it cannot be understood.
    pub fn job_is(&mut self, id: &JobId, czxid: i64, record: Option<&JobRecord>) {
        if self.job_keys.get(id).is_some_and(|key| *key != czxid) {
            self.job_gone(id); // deleted and created again by hand: another job
        }
        self.job_keys.insert(id.clone(), czxid);
        let job = self.jobs.entry(czxid).or_insert_with(|| Job {
            id: id.clone(),
            kind: None,
            waiting: BTreeSet::new(),
            held: HashMap::new(),
            attempted: HashMap::new(),
        });
        if record.is_some() || job.kind.is_none() {
            job.kind = record.map(|record| record.kind.clone());
        }
        self.refresh_ready(czxid);
    }

    /// A job was deleted, and with it its tasks.
    pub fn job_gone(&mut self, id: &JobId) {
        let Some(key) = self.job_keys.get(id).copied() else { return };
        let held: Vec<u32> = self.jobs[&key].held.keys().copied().collect();
        for n in held {
            self.release(key, n);
        }
        self.jobs.remove(&key);
        self.job_keys.remove(id);
        self.ready.remove(&key);
    }

    /// A task exists at this version, and these attempts of it have ended. A task at another version than the one
    /// assigned is unassigned by that. Returns the worker that said, by this task, that it stops.
    pub fn task_is(&mut self, task: &TaskId, version: i32, state: &TaskState) -> Option<WorkerId> {
        let key = *self.job_keys.get(&task.job)?;
        let job = self.jobs.get_mut(&key)?;
        if version < job.version(task.n) {
            return None; // an older read, overtaken
        }
        self.interrupted.retain(|other, interrupted| other != task || interrupted.version == version);
        let held = job.held.get(&task.n).map(|(worker, place)| self.workers[worker].list[place].version);
        if held.is_some_and(|assigned| assigned != version) {
            self.release(key, task.n);
        }
        let job = self.jobs.get_mut(&key)?;
        if version > 0 {
            job.attempted.insert(task.n, Attempted { version, state: state.clone() });
        }
        if state.dead || self.interrupted.contains_key(task) {
            job.waiting.remove(&task.n);
        } else if !job.held.contains_key(&task.n) {
            job.waiting.insert(task.n);
        }
        self.refresh_ready(key);
        let stops: WorkerId = state.returned_by.as_ref()?.parse().ok()?;
        self.workers.get_mut(&stops)?.stops = true;
        self.refresh_load(&stops);
        Some(stops)
    }

    /// A task's znode holds what nobody understands: it is left alone.
    pub fn task_is_malformed(&mut self, task: &TaskId) {
        self.task_gone(task);
    }

    /// A task was deleted: completed, or cancelled. Returns the worker that had it.
    pub fn task_gone(&mut self, task: &TaskId) -> Option<WorkerId> {
        let key = *self.job_keys.get(&task.job)?;
        let worker = self.release(key, task.n);
        let job = self.jobs.get_mut(&key)?;
        job.waiting.remove(&task.n);
        job.attempted.remove(&task.n);
        self.interrupted.remove(task);
        self.refresh_ready(key);
        worker
    }

    /// A worker exists. What it has is taken from its record when it is new; from then on the ledger knows better.
    pub fn worker_is(&mut self, id: &WorkerId, record: &WorkerRecord) {
        if self.workers.contains_key(id) {
            return;
        }
        let window = record.slots as usize;
        let worker = Worker { record: record.clone(), list: BTreeMap::new(), window, refilling: false, stops: false };
        self.workers.insert(id.clone(), worker);
        let (assignments, errors) = record.assignments();
        let entries = assignments.len();
        let kept = assignments.into_iter().filter(|assignment| self.adopt(id, assignment)).count();
        if kept < entries || !errors.is_empty() {
            self.stale.insert(id.clone());
        }
        self.refresh_load(id);
    }

    /// Takes an assignment over from the tree; `false` where it is over.
    fn adopt(&mut self, id: &WorkerId, assignment: &Assignment) -> bool {
        let TaskId { job, n } = &assignment.task;
        let Some(key) = self.job_keys.get(job).copied() else { return false };
        let Some(job) = self.jobs.get_mut(&key) else { return false };
        if job.version(*n) != assignment.version || !job.waiting.remove(n) {
            return false;
        }
        self.hold(id, Entry { job: key, n: *n, version: assignment.version });
        self.refresh_ready(key);
        true
    }

    /// A worker is gone, and its assignments with it. What it may have been running (the first entries of its list, one
    /// for each slot) becomes an interrupted attempt; the rest waits again at once.
    pub fn worker_gone(&mut self, id: &WorkerId) {
        let Some(worker) = self.workers.remove(id) else { return };
        self.open.retain(|(_, other)| other != id);
        self.over.remove(id);
        self.stale.remove(id);
        let running = if worker.stops { 0 } else { worker.record.slots as usize };
        for (at, entry) in worker.list.values().enumerate() {
            let Some(job) = self.jobs.get_mut(&entry.job) else { continue };
            job.held.remove(&entry.n);
            if at < running {
                let mut state = job.attempted.get(&entry.n).map(|a| a.state.clone()).unwrap_or_default();
                state.attempt += 1;
                state.error = Some("its worker was lost".to_owned());
                state.worker = Some(id.to_string());
                state.returned_by = None;
                self.interrupted.insert(job.id.task(entry.n), Interrupted { version: entry.version, state });
            } else {
                job.waiting.insert(entry.n);
            }
            let key = entry.job;
            self.refresh_ready(key);
        }
    }

    /// Forgets which attempts were interrupted: their tasks wait again as they are. For a backup, and for a leader
    /// that takes the ledger over: ending an attempt is the leader's to do, and best effort.
    pub fn forget_interrupted(&mut self) {
        for (task, _) in std::mem::take(&mut self.interrupted) {
            let Some(key) = self.job_keys.get(&task.job).copied() else { continue };
            let Some(job) = self.jobs.get_mut(&key) else { continue };
            job.waiting.insert(task.n);
            self.refresh_ready(key);
        }
    }

    /// Exactly these jobs and tasks exist, each task at this version and with these attempts, or as it was; keeps the
    /// assignments that still hold.
    pub fn tasks_are(
        &mut self,
        jobs: &[(JobId, i64, Option<JobRecord>)],
        tasks: &[(TaskId, Option<(i32, TaskState)>)],
    ) {
        let mut present: HashMap<&JobId, HashSet<u32>> = jobs.iter().map(|(id, ..)| (id, HashSet::new())).collect();
        for (task, _) in tasks {
            present.entry(&task.job).or_default().insert(task.n);
        }
        let gone: Vec<JobId> = self.job_keys.keys().filter(|id| !present.contains_key(id)).cloned().collect();
        gone.iter().for_each(|id| self.job_gone(id));
        for (id, czxid, record) in jobs {
            self.job_is(id, *czxid, record.as_ref());
        }
        let gone = self.jobs.values().flat_map(|job| {
            let numbers = job.waiting.iter().chain(job.held.keys()).chain(job.attempted.keys());
            numbers.filter(|n| !present[&job.id].contains(n)).map(|n| job.id.task(*n))
        });
        for task in gone.collect::<Vec<TaskId>>() {
            self.task_gone(&task);
        }
        for (task, now) in tasks {
            if let Some((version, state)) = now {
                self.task_is(task, *version, state);
            }
        }
    }

    /// Exactly these workers exist. With `anew`, what each has is taken from its record, for all of them: for a leader
    /// that begins, or does not know what became of its last write.
    pub fn workers_are(&mut self, workers: &[(WorkerId, WorkerRecord)], anew: bool) {
        let present: HashSet<&WorkerId> = workers.iter().map(|(id, _)| id).collect();
        let gone: Vec<WorkerId> = self.workers.keys().filter(|id| !present.contains(id)).cloned().collect();
        gone.iter().for_each(|id| self.worker_gone(id));
        if anew {
            for (id, _) in workers {
                let Some(worker) = self.workers.remove(id) else { continue };
                self.open.retain(|(_, other)| other != id);
                self.over.remove(id);
                self.stale.remove(id);
                for entry in worker.list.values() {
                    let Some(job) = self.jobs.get_mut(&entry.job) else { continue };
                    job.held.remove(&entry.n);
                    job.waiting.insert(entry.n);
                    self.refresh_ready(entry.job);
                }
            }
        }
        for (id, record) in workers {
            self.worker_is(id, record);
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

    /// Puts a task at the end of a worker's list; it must not be waiting any more.
    pub(crate) fn hold(&mut self, id: &WorkerId, entry: Entry) {
        let place = self.next_place;
        self.next_place += 1;
        if let Some(job) = self.jobs.get_mut(&entry.job) {
            job.held.insert(entry.n, (id.clone(), place));
        }
        if let Some(worker) = self.workers.get_mut(id) {
            worker.list.insert(place, entry);
        }
        self.refresh_load(id);
    }

    /// Takes a task out of the list that holds it.
    pub(crate) fn release(&mut self, job: JobKey, n: u32) -> Option<WorkerId> {
        let (id, place) = self.jobs.get_mut(&job)?.held.remove(&n)?;
        self.workers.get_mut(&id)?.list.remove(&place);
        self.stale.insert(id.clone());
        self.refresh_load(&id);
        Some(id)
    }

    pub(crate) fn refresh_ready(&mut self, key: JobKey) {
        let ready = self.jobs.get(&key).is_some_and(|job| job.kind.is_some() && !job.waiting.is_empty());
        if ready {
            self.ready.insert(key)
        } else {
            self.ready.remove(&key)
        };
    }

    /// Files a worker under its load: tasks in its list less its slots, so the most idle comes first.
    fn refresh_load(&mut self, id: &WorkerId) {
        let Some(worker) = self.workers.get_mut(id) else { return };
        worker.refill();
        let (length, slots) = (worker.list.len() as i64, i64::from(worker.record.slots));
        // The list changed by one entry at most since it was filed.
        for load in [length - slots - 1, length - slots, length - slots + 1] {
            self.open.remove(&(load, id.clone()));
        }
        if !worker.stops && worker.refilling {
            self.open.insert((length - slots, id.clone()));
        }
        if worker.list.len() > worker.window {
            self.over.insert(id.clone())
        } else {
            self.over.remove(id)
        };
    }
}
