//! What the mirrors tell, put into the ledger.

use std::collections::HashSet;
use std::time::Instant;

use coordination::{Change, Node};
use tracing::{debug, info, warn};
use tree::{self, BelowTasks, JobId, JobRecord, TASKS, TaskId, TaskState, WORKERS, WorkerId, WorkerRecord};
use znode::paths;

use super::window::Window;
use super::{Refresh, Standing};

impl Standing {
    pub(super) fn task_change(&mut self, change: Change) {
        match change {
            Change::Snapshot { nodes, answers } => {
                let (mut jobs, mut tasks, mut clients) = (Vec::new(), Vec::new(), Vec::new());
                for (path, node) in nodes {
                    match (tree::below_tasks(&path), node) {
                        (Ok(BelowTasks::Job(job)), Some(node)) => {
                            let record = self.job_record(&job, &node);
                            jobs.push((job, node.czxid, record));
                        }
                        (Ok(BelowTasks::Job(_)), None) => {} // every job is read
                        (Ok(BelowTasks::Client(job, name)), _) => clients.push((job, name)),
                        (Ok(BelowTasks::Task(task)), None) => tasks.push((task, None)),
                        (Ok(BelowTasks::Task(task)), Some(node)) => match TaskState::from_json(&node.data) {
                            Ok(state) => tasks.push((task, Some((node.version, state)))),
                            Err(error) => self.complain(&task.path(), error),
                        },
                        (Err(error), _) => self.complain(&paths::join(TASKS, &path), error),
                    }
                }
                self.ledger.tasks_are(&jobs, &tasks, &clients);
                if self.stands_by {
                    self.read_all_lists(); // some may name tasks that were not known when they were read
                }
                if let Refresh::Tasks(asked) = self.refresh
                    && answers >= asked
                {
                    self.refresh = Refresh::Workers(self.workers.refresh());
                }
            }
            Change::Created(path, node) | Change::Changed(path, node) => match (tree::below_tasks(&path), node) {
                (Ok(BelowTasks::Job(job)), Some(node)) => {
                    let record = self.job_record(&job, &node);
                    self.ledger.job_is(&job, node.czxid, record.as_ref());
                }
                (Ok(BelowTasks::Task(task)), node) => self.task_is(&task, node.as_ref()),
                (Ok(BelowTasks::Job(_)), None) => {}
                (Ok(BelowTasks::Client(job, name)), _) => self.ledger.client_is(&job, &name, true),
                (Err(error), _) => self.complain(&paths::join(TASKS, &path), error),
            },
            Change::Deleted(path) => match tree::below_tasks(&path) {
                Ok(BelowTasks::Job(job)) => self.ledger.job_gone(&job),
                Ok(BelowTasks::Client(job, name)) => self.ledger.client_is(&job, &name, false),
                Ok(BelowTasks::Task(task)) => {
                    let quick = self.ledger.quick(&task);
                    if let Some(worker) = self.ledger.task_gone(&task) {
                        let now = Instant::now();
                        let window = self.windows.entry(worker.clone()).or_insert_with(|| Window::new(now));
                        // Where it may have failed as those before it, it earns no more of them.
                        if quick.is_none() || !self.ledger.is_ailing(&worker) {
                            window.completed(now);
                        }
                        self.busy.insert(worker);
                    }
                    if let Some(quick) = quick.filter(|_| !self.stands_by) {
                        self.doubts.add(quick);
                    }
                }
                Err(_) => {}
            },
            Change::RootGone => {} // it is made again, see `life`
        }
    }

    /// A task was created (not read, at version 0) or changed.
    fn task_is(&mut self, task: &TaskId, node: Option<&Node>) {
        let (version, state) = match node.map(|node| (node.version, TaskState::from_json(&node.data))) {
            None => (0, TaskState::default()),
            Some((version, Ok(state))) => (version, state),
            Some((_, Err(error))) => {
                self.ledger.task_is_malformed(task);
                return self.complain(&task.path(), error);
            }
        };
        if let Some(worker) = self.ledger.task_is(task, version, &state) {
            debug!(%worker, %task, "handed back: the worker stops");
        }
    }

    /// Changes that came together.
    pub(super) fn worker_changes(&mut self, changes: Vec<Change>) {
        let mut gone = Vec::new();
        changes.into_iter().for_each(|change| self.worker_change(change, &mut gone));
        self.workers_gone(&gone);
    }

    fn worker_change(&mut self, change: Change, gone: &mut Vec<WorkerId>) {
        match change {
            Change::Snapshot { nodes, answers } => {
                let workers: Vec<_> =
                    nodes.iter().filter_map(|(name, node)| self.worker_record(name, node.as_ref()?)).collect();
                self.workers_are(&workers, answers);
            }
            Change::Created(name, Some(node)) => {
                if let Some((id, record)) = self.worker_record(&name, &node) {
                    info!(worker = %id, slots = record.slots, kinds = ?record.kinds, "a worker joined");
                    self.ledger.worker_is(&id, &record);
                }
            }
            Change::Changed(name, _) if self.stands_by => {
                if let Ok(worker) = name.parse() {
                    self.lists.written(worker);
                }
            }
            Change::Created(_, None) | Change::Changed(..) => {}
            Change::Deleted(name) => {
                if let Ok(worker) = name.parse() {
                    info!(%worker, "a worker left");
                    gone.push(worker);
                }
            }
            Change::RootGone => {}
        }
    }

    /// Exactly these workers exist.
    fn workers_are(&mut self, workers: &[(WorkerId, WorkerRecord)], answers: u64) {
        let present: HashSet<&WorkerId> = workers.iter().map(|(id, _)| id).collect();
        let gone: Vec<WorkerId> = self.ledger.workers().filter(|id| !present.contains(id)).cloned().collect();
        self.workers_gone(&gone);
        if let Refresh::Workers(asked) = self.refresh
            && answers >= asked
        {
            return self.finish_refresh(workers);
        }
        self.ledger.workers_are(workers, false);
        if self.stands_by {
            for (id, record) in workers {
                if !self.ledger.list_is(id, record) {
                    self.lists.written(id.clone());
                }
            }
        }
    }

    pub(super) fn workers_gone(&mut self, gone: &[WorkerId]) {
        // One is heard of twice where a write to it was refused before.
        for worker in gone {
            if !self.ledger.is_there(worker) {
                continue;
            }
            let had_work = self.ledger.has_work(worker);
            if self.ledger.stops(worker) {
                self.ledger.worker_gone(worker, None); // it was to go
            } else {
                self.mass_loss.lost(worker, had_work, Instant::now());
                if had_work { self.ledger.worker_lost(worker) } else { self.ledger.worker_gone(worker, None) }
            }
            self.windows.remove(worker);
            self.busy.remove(worker);
        }
        self.settle_losses();
    }

    /// Books what the loss of workers means for their tasks, once that is known.
    pub(super) fn settle_losses(&mut self) {
        if !self.mass_loss.is_unsettled() {
            return;
        }
        let left = self.ledger.workers().count();
        let with_work = self.ledger.workers().filter(|id| self.ledger.has_work(id)).count();
        let Some(loss) = self.mass_loss.settle(left, with_work, Instant::now()) else { return };
        let calm_until_ms = loss.storm.then(|| self.session.now_ms() + self.session.timeout().as_millis() as i64);
        if loss.storm {
            warn!("more than half of the workers are gone: giving them a session timeout to come back");
        }
        for worker in &loss.workers {
            self.ledger.worker_gone(worker, calm_until_ms);
            self.windows.remove(worker);
            self.busy.remove(worker);
        }
    }

    fn job_record(&mut self, job: &JobId, node: &Node) -> Option<JobRecord> {
        JobRecord::from_json(&node.data).map_err(|error| self.complain(&job.path(), error)).ok()
    }

    fn worker_record(&mut self, name: &str, node: &Node) -> Option<(WorkerId, WorkerRecord)> {
        // It would take tasks for ever, and nobody would run them.
        let owned = if node.owner == 0 { Err("no session owns it, so it is no worker".to_owned()) } else { Ok(()) };
        let parsed = owned.and_then(|()| Ok((name.parse::<WorkerId>()?, WorkerRecord::from_json(&node.data)?)));
        parsed.map_err(|error| self.complain(&paths::join(WORKERS, name), error)).ok()
    }

    /// Names a malformed znode, once. It is left alone, and nothing else suffers from it.
    pub(super) fn complain(&mut self, path: &str, error: String) {
        if self.complaints.len() < 10_000 && self.complaints.insert(path.to_owned(), error.clone()).is_none() {
            warn!(path, error, "ignoring a znode that does not follow docs/protocol.md; delete it or repair it");
        }
    }
}
