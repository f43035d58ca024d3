//! What the mirror knows, kept so that the next assignments are found in O(assigned) and not in O(backlog).
//!
//! Pure: facts come in, [`plan`](crate::decide::assign) takes assignments out. No I/O, no ZooKeeper, and no clock but the one that
//! [`Ledger::wake`] sets. The tree is the truth and the ledger its shadow; a leader that doubts its ledger reads the tree
//! again and calls [`Ledger::tasks_are`] and [`Ledger::workers_are`], which are also how a fresh start and a takeover
//! begin.
//!
//! | file | what it holds |
//! |---|---|
//! | here | the facts of jobs and tasks, and where each task is |
//! | `job` | one job and its tasks |
//! | `workers` | the facts of workers, and their lists |
//! | `health` | workers whose attempts fail at once, and which are held back |
//!
//! Jobs are ordered by the czxid of their record and tasks by their number, so first-in-first-out survives any
//! failover without being stored.
//!
//! A master that stands by keeps a ledger too, and learns from the lists that it reads ([`Ledger::list_is`]) what each
//! worker was given: where a worker vanishes together with its leader, the next one knows which attempts ended with it.

mod health;
mod job;
mod workers;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

pub use health::Quick;
pub(crate) use health::{Health, HeldBack};
pub use job::Needs;
pub(crate) use job::{Attempted, Job};
pub(crate) use workers::{ENTRY_BYTES, Entry, Origin, Worker};

use tree::{JobId, JobRecord, TaskId, TaskState, WorkerId};

/// Jobs in the order of their creation: the czxid, and a number of the ledger's own for those that one multi created.
pub(crate) type JobKey = (i64, u32);

/// A clock that is set back by less than this is waited for, in milliseconds.
const SET_BACK_MS: i64 = 1_000;

/// Everything that a master knows of tasks and workers.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Now, in milliseconds since 1970 by ZooKeeper's clock.
    pub(crate) clock_ms: i64,
    pub(crate) jobs: BTreeMap<JobKey, Job>,
    job_keys: HashMap<JobId, JobKey>,
    pub(crate) workers: HashMap<WorkerId, Worker>,
    /// Jobs with tasks that wait and may be assigned.
    pub(crate) ready: BTreeSet<JobKey>,
    /// Jobs that a leader has more to do for than to assign their tasks: see [`duties`](crate::decide::upkeep).
    pub(crate) special: BTreeSet<JobKey>,
    /// Tasks that are not to be assigned before a moment, by that moment.
    deferred: BTreeSet<(i64, JobKey, u32)>,
    /// Jobs that are not to be begun before a moment, by that moment.
    sleeping: BTreeSet<(i64, JobKey)>,
    /// Workers that are being refilled, the one with the most idle slots first.
    pub(crate) open: BTreeSet<(i64, WorkerId)>,
    /// The worker that is given nothing but suspects, while some wait.
    pub(crate) reserved: Option<WorkerId>,
    /// Workers that lack what it takes to begin tasks, and the moment until which they are given none.
    pub(crate) resting: HashMap<WorkerId, i64>,
    /// Workers whose list is longer than their window.
    pub(crate) over: BTreeSet<WorkerId>,
    /// Workers whose list in the tree holds entries that are over.
    pub(crate) stale: BTreeSet<WorkerId>,
    /// Jobs with interrupted tasks.
    pub(crate) interrupted: BTreeSet<JobKey>,
    /// Jobs that nobody attends and of which nothing is outstanding, by the moment since which that is so.
    idle: BTreeSet<(Duration, JobKey)>,
    /// How much time has passed.
    elapsed: Duration,
    /// Workers of which attempts failed at once since the last that did not.
    ailing: BTreeSet<WorkerId>,
    /// Workers that are not given what they could run.
    held_back: HashMap<WorkerId, HashMap<Arc<Needs>, HeldBack>>,
    next_place: workers::Place,
}

/// A task whose attempt ended with its worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interrupted {
    /// The version of its znode that was assigned.
    pub version: i32,
    /// What its znode is to be set to.
    pub state: TaskState,
}

/// How many tasks are where.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Tasks that wait for a worker, or for a moment.
    pub waiting: usize,
    /// Tasks in a worker's list.
    pub assigned: usize,
    /// Tasks that are not attempted any more.
    pub dead: usize,
}

impl Ledger {
    /// It is now so many milliseconds past 1970: what waited for that moment waits no more. Where the clock was set back by
    /// a second or more, what may not be begun yet by the new time waits again; by less, it stands still until then.
    pub fn wake(&mut self, now_ms: i64) {
        if now_ms < self.clock_ms.saturating_sub(SET_BACK_MS) {
            self.clock_ms = now_ms;
            self.delay_again();
            self.cap_rests();
        }
        let now_ms = now_ms.max(self.clock_ms);
        self.clock_ms = now_ms;
        while let Some((at, key, n)) = self.deferred.first().copied().filter(|(at, ..)| *at <= now_ms) {
            self.deferred.remove(&(at, key, n));
            if let Some(job) = self.jobs.get_mut(&key) {
                job.deferred.remove(&n);
                job.wait(n);
            }
            self.refresh_ready(key);
        }
        while let Some((at, key)) = self.sleeping.first().copied().filter(|(at, _)| *at <= now_ms) {
            self.sleeping.remove(&(at, key));
            self.refresh_ready(key);
        }
        self.end_rests();
    }

    /// Files what waits, and may not be begun by the time that it is now, under its moment.
    fn delay_again(&mut self) {
        for key in self.jobs.keys().copied().collect::<Vec<JobKey>>() {
            let Some(job) = self.jobs.get(&key) else { continue };
            if let Some(at) = job.record.as_ref().and_then(|record| record.policy.not_before_ms) {
                self.sleeping.insert((at, key));
            }
            let waits = |n: &u32| job.waiting.contains(n) || job.suspects.contains(n) || job.deferred.contains_key(n);
            let waiting = job.attempted.iter().filter(|(n, _)| waits(n));
            let due: Vec<_> = waiting.map(|(n, task)| (*n, job.due_ms(&task.state, self.clock_ms))).collect();
            for (n, due_ms) in due {
                self.unfile(key, n);
                self.wait_until(key, n, due_ms);
                if let Some(task) = self.jobs.get_mut(&key).and_then(|job| job.attempted.get_mut(&n)) {
                    task.due_ms = due_ms;
                }
            }
            self.refresh_ready(key);
        }
    }

    /// How many tasks are where.
    pub fn counts(&self) -> Counts {
        Counts {
            waiting: self.jobs.values().map(|job| job.waiting.len() + job.suspects.len() + job.deferred.len()).sum(),
            assigned: self.jobs.values().map(|job| job.held.len()).sum(),
            dead: self.jobs.values().map(|job| job.dead.len()).sum(),
        }
    }

    /// The jobs, oldest first.
    pub fn jobs(&self) -> impl Iterator<Item = &JobId> {
        self.jobs.values().map(|job| &job.id)
    }

    pub(crate) fn job(&self, id: &JobId) -> Option<&Job> {
        self.jobs.get(self.job_keys.get(id)?)
    }

    /// Whether a job has tasks that are waiting, assigned, or about to be either.
    pub fn has_outstanding(&self, job: &JobId) -> bool {
        self.job(job).is_some_and(Job::has_outstanding)
    }

    /// Whether a client attends a job: submits to it, or collects from it.
    pub fn is_attended(&self, job: &JobId) -> bool {
        self.job(job).is_some_and(|job| !job.clients.is_empty())
    }

    /// So much time has passed since some moment; it never goes back.
    pub fn passes(&mut self, elapsed: Duration) {
        self.elapsed = self.elapsed.max(elapsed);
    }

    /// Jobs of which nothing is outstanding, and that nobody attends, for so long: the longest first.
    pub fn idle_for(&self, long: Duration) -> impl Iterator<Item = &JobId> {
        let last = self.elapsed.checked_sub(long).map(|since| (since, (i64::MAX, u32::MAX)));
        self.idle
            .iter()
            .take_while(move |entry| last.is_some_and(|last| **entry <= last))
            .map(|(_, key)| &self.jobs[key].id)
    }

    /// Whether nothing of a job is outstanding, and nobody attends it.
    pub fn is_idle(&self, job: &JobId) -> bool {
        self.job(job).is_some_and(|job| job.idle_since.is_some())
    }

    /// An idle job was looked at: its time begins again.
    pub fn idle_again(&mut self, job: &JobId) {
        let Some(key) = self.job_keys.get(job).copied() else { return };
        if let Some(since) = self.jobs.get_mut(&key).and_then(|job| job.idle_since.as_mut()) {
            self.idle.remove(&(*since, key));
            *since = self.elapsed;
            self.idle.insert((self.elapsed, key));
        }
    }

    /// The time of all idle jobs begins again: what is known of it is of somebody who did not watch them.
    pub fn all_idle_again(&mut self) {
        let idle: Vec<JobId> = self.idle.iter().map(|(_, key)| self.jobs[key].id.clone()).collect();
        idle.iter().for_each(|job| self.idle_again(job));
    }

    /// The dead tasks of a job, with the versions of their znodes; without those that nobody understands.
    pub fn dead(&self, job: &JobId) -> HashMap<u32, i32> {
        let Some(job) = self.job(job) else { return HashMap::new() };
        job.dead.iter().filter_map(|n| Some((*n, job.attempted.get(n)?.version))).collect()
    }

    /// A job exists. `record` is `None` where it cannot be understood.
    pub fn job_is(&mut self, id: &JobId, czxid: i64, record: Option<&JobRecord>) {
        if self.job_keys.get(id).is_some_and(|key| key.0 != czxid) {
            self.job_gone(id); // deleted and created again by hand: another job
        }
        let key = self.job_keys.get(id).copied().unwrap_or_else(|| {
            let last = self.jobs.range((czxid, 0)..=(czxid, u32::MAX)).next_back();
            (czxid, last.map_or(0, |(key, _)| key.1 + 1))
        });
        self.job_keys.insert(id.clone(), key);
        let job = self.jobs.entry(key).or_insert_with(|| Job::new(id.clone()));
        if let Some(record) = record {
            job.record_is(record);
            if let Some(at) = record.policy.not_before_ms.filter(|at| *at > self.clock_ms) {
                self.sleeping.insert((at, key));
            }
        }
        self.refresh_special(key);
        self.refresh_ready(key);
    }

    /// A job was deleted, and with it its tasks.
    pub fn job_gone(&mut self, id: &JobId) {
        let Some(key) = self.job_keys.remove(id) else { return };
        let held: Vec<u32> = self.jobs.get(&key).map(|job| job.held.keys().copied().collect()).unwrap_or_default();
        for n in held {
            self.release(key, n);
        }
        if let Some(job) = self.jobs.remove(&key) {
            if let Some(since) = job.idle_since {
                self.idle.remove(&(since, key));
            }
            for (n, at) in job.deferred {
                self.deferred.remove(&(at, key, n));
            }
            if let Some(at) = job.record.and_then(|record| record.policy.not_before_ms) {
                self.sleeping.remove(&(at, key));
            }
        }
        self.ready.remove(&key);
        self.special.remove(&key);
        self.interrupted.remove(&key);
    }

    /// A client attends a job from now on, or not any more; `name` is its znode's.
    pub fn client_is(&mut self, job: &JobId, name: &str, attends: bool) {
        let Some(key) = self.job_keys.get(job).copied() else { return };
        let Some(job) = self.jobs.get_mut(&key) else { return };
        if attends {
            job.clients.insert(name.to_owned())
        } else {
            job.clients.remove(name)
        };
        self.refresh_special(key);
    }

    /// A task exists at this version, and these attempts of it have ended. A task at another version than the one
    /// assigned is unassigned by that. Returns the worker that said, by this task, that it is to be given nothing, or nothing
    /// for a while.
    pub fn task_is(&mut self, task: &TaskId, version: i32, state: &TaskState) -> Option<WorkerId> {
        let key = *self.job_keys.get(&task.job)?;
        let job = self.jobs.get_mut(&key)?;
        if version < job.version(task.n) {
            return None; // an older read, overtaken
        }
        if job.refused.get(&task.n).is_some_and(|refused| *refused >= version) {
            return None; // an attempt of it has ended, and that cannot be written
        }
        let is_news = version > job.version(task.n);
        if job.interrupted.get(&task.n).is_some_and(|interrupted| interrupted.version != version) {
            self.not_interrupted(task); // somebody has ended that attempt
        }
        let job = self.jobs.get_mut(&key)?;
        let held = job.held.get(&task.n).map(|(worker, place)| (worker.clone(), &self.workers[worker].list[place]));
        if let Some((worker, entry)) = held
            && entry.version != version
        {
            let since = entry.since;
            if let (true, Some(needs)) = (state.failures > job.state(task.n).failures, job.needs.clone()) {
                self.attempt_was(&worker, &needs, since, true);
            }
            self.release(key, task.n);
        }
        self.unfile(key, task.n);
        let job = self.jobs.get_mut(&key)?;
        if version > 0 {
            let known = job.attempted.get(&task.n).filter(|known| known.version == version);
            let due_ms = known.map_or_else(|| job.due_ms(state, self.clock_ms), |known| known.due_ms);
            job.attempted.insert(task.n, Attempted { version, state: state.clone(), due_ms });
        }
        if state.dead {
            job.dead.insert(task.n);
        } else if !job.held.contains_key(&task.n) && !job.interrupted.contains_key(&task.n) {
            let due_ms = job.attempted.get(&task.n).and_then(|task| task.due_ms);
            self.wait_until(key, task.n, due_ms);
        }
        self.refresh_ready(key);
        let returned_by: WorkerId = state.returned_by.as_ref()?.parse().ok()?;
        match state.returned_for_ms {
            None => self.workers.get_mut(&returned_by)?.stops = true,
            // Read again later it would say the same of another time.
            Some(for_ms) if is_news => self.rest(&returned_by, for_ms),
            Some(_) => return None,
        }
        self.refresh_load(&returned_by);
        Some(returned_by)
    }

    /// A task's znode holds what nobody understands: it is left alone, and counts as dead.
    pub fn task_is_malformed(&mut self, task: &TaskId) {
        self.task_gone(task);
        if let Some(job) = self.job_keys.get(&task.job).and_then(|key| self.jobs.get_mut(key)) {
            job.dead.insert(task.n);
        }
    }

    /// The end of an attempt may not be written to a task's znode (an ACL, a quota): at this version it is left alone, and
    /// counts as dead.
    pub fn task_is_refused(&mut self, task: &TaskId, version: i32) {
        self.task_is_malformed(task);
        if let Some(job) = self.job_keys.get(&task.job).and_then(|key| self.jobs.get_mut(key)) {
            job.refused.insert(task.n, version);
        }
    }

    /// A task was deleted: completed, or cancelled. Returns the worker that had it.
    pub fn task_gone(&mut self, task: &TaskId) -> Option<WorkerId> {
        let key = *self.job_keys.get(&task.job)?;
        self.may_have_done(key, task.n);
        let worker = self.release(key, task.n);
        self.unfile(key, task.n);
        self.jobs.get_mut(&key)?.attempted.remove(&task.n);
        self.not_interrupted(task);
        self.refresh_ready(key);
        worker
    }

    /// A task is gone: where a worker had it that fails at times, and it cannot have failed, that is noted.
    fn may_have_done(&mut self, key: JobKey, n: u32) {
        let Some(job) = self.jobs.get(&key).filter(|job| !self.ailing.is_empty() && !job.may_have_failed()) else {
            return;
        };
        let Some((worker, place)) = job.held.get(&n).cloned() else { return };
        if let (true, Some(needs)) = (self.ailing.contains(&worker), job.needs.clone()) {
            let since = self.workers[&worker].list[&place].since;
            self.attempt_was(&worker, &needs, since, false);
        }
    }

    /// There is no attempt of this task to be ended any more; what became of it is told by other facts.
    pub fn not_interrupted(&mut self, task: &TaskId) {
        let Some(key) = self.job_keys.get(&task.job).copied() else { return };
        let Some(job) = self.jobs.get_mut(&key) else { return };
        job.interrupted.remove(&task.n);
        if job.interrupted.is_empty() {
            self.interrupted.remove(&key);
        }
        self.refresh_idle(key);
    }

    /// Exactly these jobs, tasks and attending clients exist, each task at this version and with these attempts, or as it
    /// was; keeps the assignments that still hold.
    pub fn tasks_are(
        &mut self,
        jobs: &[(JobId, i64, Option<JobRecord>)],
        tasks: &[(TaskId, Option<(i32, TaskState)>)],
        clients: &[(JobId, String)],
    ) {
        let mut present: HashMap<&JobId, HashSet<u32>> = jobs.iter().map(|(id, ..)| (id, HashSet::new())).collect();
        for (task, _) in tasks {
            present.entry(&task.job).or_default().insert(task.n);
        }
        let gone: Vec<JobId> = self.job_keys.keys().filter(|id| !present.contains_key(id)).cloned().collect();
        gone.iter().for_each(|id| self.job_gone(id));
        for job in self.jobs.values_mut() {
            job.clients.clear();
        }
        for (id, czxid, record) in jobs {
            self.job_is(id, *czxid, record.as_ref());
        }
        for (job, name) in clients {
            self.client_is(job, name, true);
        }
        let gone = self.jobs.values().flat_map(|job| {
            let absent = |n: &u32| !present[&job.id].contains(n);
            job.numbers().filter(absent).map(|n| job.id.task(n))
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

    /// A task waits, and is not to be assigned before that moment; it must be filed nowhere.
    fn wait_until(&mut self, key: JobKey, n: u32, due_ms: Option<i64>) {
        let Some(job) = self.jobs.get_mut(&key) else { return };
        match due_ms.filter(|at| *at > self.clock_ms) {
            Some(at) => {
                job.deferred.insert(n, at);
                self.deferred.insert((at, key, n));
            }
            None => job.wait(n),
        }
    }

    /// Takes a task out of what waits, for whatever, and out of what is dead.
    fn unfile(&mut self, key: JobKey, n: u32) {
        let Some(job) = self.jobs.get_mut(&key) else { return };
        job.unwait(n);
        job.dead.remove(&n);
        job.refused.remove(&n);
        if let Some(at) = job.deferred.remove(&n) {
            self.deferred.remove(&(at, key, n));
        }
    }

    pub(crate) fn refresh_ready(&mut self, key: JobKey) {
        let ready = self.jobs.get(&key).is_some_and(|job| job.may_be_assigned(self.clock_ms));
        if ready {
            self.ready.insert(key)
        } else {
            self.ready.remove(&key)
        };
        self.refresh_idle(key);
    }

    fn refresh_idle(&mut self, key: JobKey) {
        let Some(job) = self.jobs.get_mut(&key) else { return };
        let idle = !job.has_outstanding() && job.clients.is_empty();
        match job.idle_since {
            None if idle => {
                job.idle_since = Some(self.elapsed);
                self.idle.insert((self.elapsed, key));
            }
            Some(since) if !idle => {
                job.idle_since = None;
                self.idle.remove(&(since, key));
            }
            _ => {}
        }
    }

    fn refresh_special(&mut self, key: JobKey) {
        let special = self.jobs.get(&key).is_some_and(Job::is_special);
        if special {
            self.special.insert(key)
        } else {
            self.special.remove(&key)
        };
        self.refresh_idle(key);
    }
}
