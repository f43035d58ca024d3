//! A job known by its name: waiting for it, and collecting its outcomes. Any process can do this, at any time, whatever
//! became of the one that submitted it.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::future::join_all;
use tokio::time::sleep;

use super::manage::already_gone;
use super::{CONNECT, ClientError, Finished, RECONNECT, close, show};
use crate::coordination::{Change, Committer, Failure, Mirror, Op, Reader, Scope, Session, SessionConfig, paths};
use crate::records::tree::task_number;
use crate::records::{JobId, JobRecord, TaskId, TaskState};

/// How many znodes are read, delivered and removed at a time.
const CHUNK: usize = 250;
/// How often a job that has nothing outstanding is asked whether it was sealed by now.
const ASK_SEALED_EVERY: Duration = Duration::from_millis(500);

/// A client that looks at jobs and the herd.
#[derive(Debug)]
pub struct Client {
    config: SessionConfig,
    session: Session,
}

/// How far a job is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Tasks done.
    pub done: usize,
    /// Tasks that ended otherwise: failed, dead, cancelled, aborted.
    pub failed: usize,
    /// Tasks waiting or running.
    pub outstanding: usize,
    /// Whether all was submitted.
    pub sealed: bool,
}

impl Tally {
    /// Counts a task that has ended.
    pub fn count(&mut self, finished: &Finished) {
        if finished.is_done() { self.done += 1 } else { self.failed += 1 }
    }
}

impl Client {
    /// Connects within 10 s.
    pub async fn connect(config: &SessionConfig) -> Result<Self, ClientError> {
        Ok(Client { config: config.clone(), session: Session::connect(config, CONNECT).await? })
    }

    /// The session, for reading the tree.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// Ends the session.
    pub async fn close(self) {
        self.session.close().await;
    }

    pub(super) async fn record(&self, job: &JobId) -> Result<(JobRecord, i32), ClientError> {
        let node = self.session.get(&job.path()).await?.ok_or_else(|| ClientError::NotFound(job.clone()))?;
        let malformed = |error| ClientError::Malformed { path: job.path(), error };
        Ok((JobRecord::from_json(&node.data).map_err(malformed)?, node.version))
    }

    /// Watches until the job is sealed and nothing of it is outstanding; removes nothing and seals nothing. Survives
    /// the end of its session. `progress` hears of every change.
    ///
    /// Errors: no such job, or it was closed meanwhile.
    pub async fn wait(&mut self, job: &JobId, mut progress: impl FnMut(&Tally)) -> Result<Tally, ClientError> {
        loop {
            match self.wait_on_session(job, &mut progress).await {
                Err(ClientError::Failed(Failure::SessionOver(_))) => {
                    self.session.close().await;
                    self.session = Session::connect(&self.config, RECONNECT).await?;
                }
                done => return done,
            }
        }
    }

    async fn wait_on_session(&self, job: &JobId, progress: &mut impl FnMut(&Tally)) -> Result<Tally, ClientError> {
        let scope = Scope { levels: 1, read_created: |_| false, read_changed: |_| true, remember_leaves: false };
        let mut mirror = Mirror::start(self.session.clone(), &job.path(), scope);
        let mut outstanding: BTreeSet<u32> = BTreeSet::new();
        let (mut known, mut sealed) = (false, false);
        loop {
            if known {
                progress(&Tally { outstanding: outstanding.len(), sealed, ..Tally::default() });
                if outstanding.is_empty() && !sealed {
                    sealed = self.record(job).await?.0.sealed;
                }
                if outstanding.is_empty() && sealed {
                    return self.tally(job).await;
                }
            }
            tokio::select! {
                changes = mirror.next() => {
                    let over = || Failure::SessionOver("expired or closed".to_owned());
                    for change in changes.ok_or_else(over)? {
                        match change {
                            Change::RootGone => return Err(ClientError::NotFound(job.clone())),
                            Change::Snapshot { nodes, .. } => {
                                let dead = |data: &[u8]| TaskState::from_json(data).is_ok_and(|state| state.dead);
                                let alive = nodes.iter().filter(|(_, node)| !node.as_ref().is_some_and(|n| dead(&n.data)));
                                outstanding = alive.filter_map(|(name, _)| task_number(name).ok()).collect();
                                sealed = self.record(job).await?.0.sealed;
                                known = true;
                            }
                            Change::Created(name, _) => outstanding.extend(task_number(&name)),
                            Change::Changed(name, node) => {
                                let dead = node.is_some_and(|n| TaskState::from_json(&n.data).is_ok_and(|s| s.dead));
                                if let (Ok(n), true) = (task_number(&name), dead) {
                                    outstanding.remove(&n);
                                }
                            }
                            Change::Deleted(name) => if let Ok(n) = task_number(&name) {
                                outstanding.remove(&n);
                            },
                        }
                    }
                }
                () = sleep(ASK_SEALED_EVERY), if known && outstanding.is_empty() => {}
            }
        }
    }

    async fn tally(&self, job: &JobId) -> Result<Tally, ClientError> {
        let mut tally = Tally { sealed: true, ..Tally::default() };
        let ended = self.all_ended(job, &mut |finished, _| tally.count(&finished)).await?;
        tally.outstanding = ended.outstanding;
        Ok(tally)
    }

    /// Reads what has ended, oldest task first, some at a time; hands each over with whether it left an outcome.
    async fn all_ended(
        &self,
        job: &JobId,
        each: &mut (impl FnMut(Finished, bool) + Send),
    ) -> Result<Ended, ClientError> {
        let reader = Reader::start(self.session.clone());
        let names = |names: Option<Vec<String>>| {
            let mut numbers: Vec<u32> = names.unwrap_or_default().iter().filter_map(|n| task_number(n).ok()).collect();
            numbers.sort_unstable();
            numbers
        };
        let (mut outcomes, mut ended) = (Vec::new(), Ended::default());
        for numbers in names(self.session.children(&job.data_path()).await?).chunks(CHUNK) {
            let tasks: Vec<TaskId> = numbers.iter().map(|n| job.task(*n)).collect();
            let nodes = join_all(tasks.iter().map(|task| reader.read(task.data_path()))).await;
            for (task, node) in tasks.into_iter().zip(nodes) {
                if let Some(node) = node?.filter(|node| node.version > 0) {
                    each(Finished::with_outcome(&task, &node.data), true);
                    outcomes.push(task);
                }
            }
        }
        for numbers in names(self.session.children(&job.path()).await?).chunks(CHUNK) {
            let tasks: Vec<TaskId> = numbers.iter().map(|n| job.task(*n)).collect();
            let nodes = join_all(tasks.iter().map(|task| reader.read(task.path()))).await;
            for (task, node) in tasks.into_iter().zip(nodes) {
                match node?.map(|node| TaskState::from_json(&node.data)) {
                    Some(Ok(state)) if state.dead => {
                        each(Finished::dead(&task, &state), false);
                        ended.dead += 1;
                    }
                    Some(_) => ended.outstanding += 1,
                    None => {}
                }
            }
        }
        ended.outcomes = outcomes;
        Ok(ended)
    }

    /// Delivers every outcome that is there, and then removes it, unless `keep`; closes the job once nothing is left. Dead
    /// tasks are delivered, and stay.
    /// With `seal`, seals the job first: its submitter, if it lives, can submit nothing more.
    ///
    /// Errors: no such job; not sealed, and neither `keep` nor `seal` given.
    pub async fn results(
        &self,
        job: &JobId,
        keep: bool,
        seal: bool,
        mut deliver: impl FnMut(&Finished) + Send,
    ) -> Result<Tally, ClientError> {
        let sealed = if seal {
            self.set_record(job, |record| record.sealed = true).await?.sealed
        } else {
            self.record(job).await?.0.sealed
        };
        if !sealed && !keep {
            return Err(ClientError::NotSealed(job.clone()));
        }
        let client = job.client_path(&paths::uid(&mut rand::rng()));
        if !keep {
            show(&self.session, &client).await?;
        }
        let mut tally = Tally { sealed, ..Tally::default() };
        let mut count = |finished: Finished, _| {
            tally.count(&finished);
            deliver(&finished);
        };
        let ended = self.all_ended(job, &mut count).await?;
        tally.outstanding = ended.outstanding;
        if !keep {
            let committer = Committer::start(self.session.clone(), None);
            let delete =
                |task: &TaskId| committer.commit(vec![Op::Delete { path: task.data_path(), version: Some(1) }]);
            for removed in join_all(ended.outcomes.iter().map(delete)).await {
                removed.or_else(already_gone)?;
            }
            if ended.outstanding > 0 || ended.dead > 0 || !close(&self.session, job).await? {
                self.delete(client).await?;
            }
        }
        Ok(tally)
    }
}

#[derive(Default)]
struct Ended {
    outcomes: Vec<TaskId>,
    dead: usize,
    outstanding: usize,
}
