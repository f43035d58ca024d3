//! A job known by its name: waiting for it, and collecting its outcomes. Any process can do this, at any time, whatever
//! became of the one that submitted it.

use std::collections::{BTreeSet, HashSet};
use std::io;
use std::time::Duration;

use coordination::{Change, Committer, Failure, Mirror, Reader, Scope, Session, SessionConfig};
use futures::future::{join, join_all};
use tokio::time::sleep;
use tree::{JobId, JobRecord, TaskId, TaskState, task_number, transitions};
use znode::paths;

use super::ending::{Stored, stored};
use super::manage::already_gone;
use super::{CONNECT, ClientError, Finished, FinishedStatus, RECONNECT, close, show};

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
    /// Tasks that ended otherwise: failed, dead, cancelled, aborted, lost.
    pub failed: usize,
    /// How many of these were lost: somebody deleted their znodes by hand.
    pub lost: usize,
    /// Tasks waiting or running.
    pub outstanding: usize,
    /// Whether all was submitted.
    pub sealed: bool,
}

impl Tally {
    /// Counts a task that has ended.
    pub fn count(&mut self, finished: &Finished) {
        if finished.is_done() {
            self.done += 1
        } else {
            self.failed += 1
        }
        self.lost += usize::from(finished.status == FinishedStatus::Lost);
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
        let dead = |data: &[u8]| TaskState::from_json(data).is_ok_and(|state| state.dead);
        loop {
            if known {
                progress(&Tally { outstanding: outstanding.len(), sealed, ..Tally::default() });
                if outstanding.is_empty() && !sealed {
                    sealed = self.record(job).await?.0.sealed;
                }
                if outstanding.is_empty() && sealed {
                    let tally = self.tally(job).await?;
                    if tally.outstanding == 0 {
                        return Ok(tally);
                    } // else one was retried while they were counted
                }
            }
            tokio::select! {
                changes = mirror.next() => {
                    let over = || Failure::SessionOver("expired or closed".to_owned());
                    for change in changes.ok_or_else(over)? {
                        match change {
                            Change::RootGone => return Err(ClientError::NotFound(job.clone())),
                            Change::Snapshot { nodes, .. } => {
                                let alive = nodes.iter().filter(|(_, node)| !node.as_ref().is_some_and(|n| dead(&n.data)));
                                outstanding = alive.filter_map(|(name, _)| task_number(name).ok()).collect();
                                sealed = self.record(job).await?.0.sealed;
                                known = true;
                            }
                            Change::Created(name, _) => outstanding.extend(task_number(&name)),
                            Change::Changed(name, node) => {
                                // One that is gone by now is heard of next.
                                if let (Ok(n), Some(node)) = (task_number(&name), node) {
                                    if dead(&node.data) { outstanding.remove(&n) } else { outstanding.insert(n) };
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
        Ok(Tally { sealed: true, ..self.all_ended(job, None, &mut |_| Ok(())).await?.tally })
    }

    /// Reads what has ended, oldest task first, some at a time, and hands it over: outcomes and lost tasks, then dead ones. With
    /// a `remover` what was taken is removed, but for the dead ones, while the next are read.
    async fn all_ended(
        &self,
        job: &JobId,
        remover: Option<&Committer>,
        deliver: &mut (impl FnMut(&[Finished]) -> io::Result<()> + Send),
    ) -> Result<Ended, ClientError> {
        let reader = Reader::start(self.session.clone());
        let names = |names: Option<Vec<String>>| {
            let mut numbers: Vec<u32> = names.unwrap_or_default().iter().filter_map(|n| task_number(n).ok()).collect();
            numbers.sort_unstable();
            numbers
        };
        let remove = |tasks: Vec<(TaskId, i32)>| async move {
            let Some(remover) = remover else { return Ok(0) };
            let delete = |(task, version): &(TaskId, i32)| remover.commit(vec![transitions::collect(task, *version)]);
            for removed in join_all(tasks.iter().map(delete)).await {
                removed.or_else(already_gone)?;
            }
            Ok::<usize, ClientError>(tasks.len())
        };
        let (mut ended, mut taken, mut removed) = (Ended::default(), Vec::new(), 0);
        let mut delivered = HashSet::new();
        let mut hand_over = |finished: &[Finished], removed| {
            let delivered = if finished.is_empty() { Ok(()) } else { deliver(finished) };
            delivered.map_err(|error| ClientError::Undelivered { job: job.clone(), error, removed })
        };
        // Listed first: what ends meanwhile is in one of the two lists, or in both.
        let with_znode = names(self.session.children(&job.path()).await?);
        let had_znode: HashSet<u32> = with_znode.iter().copied().collect();
        for numbers in names(self.session.children(&job.data_path()).await?).chunks(CHUNK) {
            let tasks: Vec<TaskId> = numbers.iter().map(|n| job.task(*n)).collect();
            let reads = join_all(tasks.iter().map(|task| reader.read(task.data_path())));
            let (nodes, removal) = join(reads, remove(std::mem::take(&mut taken))).await;
            removed += removal?;
            let mut finished = Vec::new();
            for (task, node) in tasks.into_iter().zip(nodes) {
                let stored = match node {
                    Ok(Some(node)) if node.version > 0 => Stored::Outcome(node),
                    Ok(Some(_)) if !had_znode.contains(&task.n) => stored(&reader, &task).await?,
                    Ok(_) => continue,
                    Err(Failure::Refused(refusal)) => Stored::Unreadable(refusal),
                    Err(failure) => return Err(failure.into()),
                };
                // Submitted since the listing; or removed by somebody else.
                if matches!(stored, Stored::NotEnded | Stored::Nothing) {
                    continue;
                }
                let Some(ending) = stored.ending(&task).await else { continue };
                finished.push(ending.finished);
                if let Some(version) = ending.remains {
                    delivered.insert(task.n);
                    taken.push((task, version));
                }
            }
            hand_over(&finished, removed)?;
            finished.iter().for_each(|finished| ended.tally.count(finished));
        }
        removed += remove(taken).await?;
        for numbers in with_znode.chunks(CHUNK) {
            let tasks: Vec<TaskId> = numbers.iter().map(|n| job.task(*n)).collect();
            let nodes = join_all(tasks.iter().map(|task| reader.read(task.path()))).await;
            let mut finished = Vec::new();
            for (task, node) in tasks.into_iter().zip(nodes) {
                match node.map(|node| node.map(|node| TaskState::from_json(&node.data))) {
                    Ok(Some(Ok(state))) if state.dead => finished.push(Finished::dead(&task, &state)),
                    Ok(Some(_)) | Err(Failure::Refused(_)) => ended.tally.outstanding += 1,
                    Err(failure) => return Err(failure.into()),
                    Ok(None) if delivered.contains(&task.n) => {}
                    // It ended between the two reads: whoever asks again will find its outcome, unless somebody has taken it.
                    Ok(None) => {
                        let stored = self.session.get(&task.data_path()).await?;
                        ended.tally.outstanding += usize::from(stored.is_some());
                    }
                }
            }
            hand_over(&finished, removed)?;
            finished.iter().for_each(|finished| ended.tally.count(finished));
            ended.dead += finished.len();
        }
        Ok(ended)
    }

    /// Delivers every outcome that is there, some at a time, and removes those that were taken, unless `keep`; closes the job
    /// once nothing is left. Dead tasks are delivered, and stay.
    /// With `seal`, seals the job first: its submitter, if it lives, can submit nothing more.
    ///
    /// `deliver` may see an outcome again in a later call of this function: where it failed, what it was given stays, and so
    /// does all that comes after; and where this client ends between delivering and removing.
    ///
    /// Errors: no such job; not sealed, and neither `keep` nor `seal` given; or `deliver` failed.
    pub async fn results(
        &self,
        job: &JobId,
        keep: bool,
        seal: bool,
        mut deliver: impl FnMut(&[Finished]) -> io::Result<()> + Send,
    ) -> Result<Tally, ClientError> {
        let sealed = if seal {
            self.set_record(job, |record| record.sealed = true).await?.sealed
        } else {
            self.record(job).await?.0.sealed
        };
        if keep {
            return Ok(Tally { sealed, ..self.all_ended(job, None, &mut deliver).await?.tally });
        }
        if !sealed {
            return Err(ClientError::NotSealed(job.clone()));
        }
        let client = job.client_path(&paths::uid(&mut rand::rng()));
        show(&self.session, &client).await?;
        let committer = Committer::start(self.session.clone(), None);
        let ended = match self.all_ended(job, Some(&committer), &mut deliver).await {
            Err(error @ ClientError::Undelivered { .. }) => {
                self.delete(client).await?;
                return Err(error);
            }
            ended => ended?,
        };
        if ended.tally.outstanding > 0 || ended.dead > 0 || !close(&self.session, job).await? {
            self.delete(client).await?;
        }
        Ok(Tally { sealed, ..ended.tally })
    }
}

#[derive(Default)]
struct Ended {
    tally: Tally,
    dead: usize,
}
