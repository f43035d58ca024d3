//! Cancelling, retrying and forgetting: by anybody, in whatever state a job and its tasks are.

use std::collections::{BTreeSet, HashSet};
use std::time::{Duration, Instant};

use coordination::{CommitError, Committer, Failure, Op, Reader, Refusal, read_all};
use futures::future::join_all;
use tokio::time::sleep;
use tree::{
    JobId, JobRecord, Outcome, OutcomeStatus, TaskId, TaskState, Withdrawn, later_job, task_number, transitions,
};
use znode::paths;

use super::health::somebody_leads;
use super::{Client, ClientError, Selected};
use crate::run::{TRIES_MAX, gave_up};
use crate::steps;

/// How many tasks are read or written at a time.
const CHUNK: usize = 1_000;
/// How often it is looked how far the leader is with the tasks of a withdrawn job.
const LOOK: Duration = Duration::from_millis(50);
/// From how many children on these are listed each time.
const FEW: i32 = 1_000;
/// How long the leader may end none of them before they are ended here.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long nothing of them may go away, though they are ended here, before that is given up.
const GIVE_UP: Duration = Duration::from_secs(30);

impl Client {
    /// Ends what is outstanding, each task with an outcome that gives the reason; running programs are stopped. A whole job
    /// is sealed and withdrawn, so that nothing comes after, and the leader ends its tasks. Returns how many were ended; what
    /// had ended already stays as it is.
    ///
    /// Errors: no such job; or some tasks cannot be ended.
    pub async fn cancel(&self, selected: &Selected, reason: &str) -> Result<usize, ClientError> {
        let withdrawn = Withdrawn { status: OutcomeStatus::Cancelled, reason: reason.to_owned() };
        if selected.tasks.is_some() {
            return self.end(self.tasks(selected).await?, &Outcome::withdrawn(&withdrawn)).await;
        }
        let mut outstanding: BTreeSet<TaskId> = self.tasks(selected).await?.into_iter().collect();
        let record = self.withdraw(&selected.job, &withdrawn).await?;
        outstanding.extend(self.tasks_left(&selected.job).await?); // submitted in between
        self.until_ended(&selected.job, &record).await?;
        let reader = Reader::start(self.session().clone());
        let mut cancelled = 0;
        for some in outstanding.into_iter().collect::<Vec<_>>().chunks(CHUNK) {
            for node in join_all(some.iter().map(|task| reader.read(task.data_path()))).await {
                // Whoever attends the job may have taken its outcome by now.
                let outcome = node?.and_then(|node| Outcome::from_json(&node.data).ok());
                cancelled += usize::from(outcome.is_none_or(|outcome| outcome.status == OutcomeStatus::Cancelled));
            }
        }
        Ok(cancelled)
    }

    /// Seals a job, and says that what is outstanding of it is not to be done.
    async fn withdraw(&self, job: &JobId, withdrawn: &Withdrawn) -> Result<JobRecord, ClientError> {
        let change = |record: &mut JobRecord| {
            (record.sealed, record.failed) = (true, true);
            record.withdrawn.get_or_insert_with(|| withdrawn.clone());
        };
        self.set_record(job, change).await
    }

    /// Waits until nothing is left of the tasks of a withdrawn job. The leader ends them; what it does not get on with, or
    /// where there is no master, is ended here.
    ///
    /// Errors: that does not help for so long either.
    async fn until_ended(&self, job: &JobId, record: &JobRecord) -> Result<(), ClientError> {
        let (mut left, mut since) = (i32::MAX, Instant::now());
        // The fewest that were left, and since when, and whether they were ended here since then.
        let (mut fewest, mut stuck_since, mut tried) = (i32::MAX, Instant::now(), false);
        loop {
            let Some(node) = self.session().get(&job.path()).await? else { return Ok(()) };
            if node.children < left {
                (left, since) = (node.children, Instant::now());
            }
            if node.children < fewest {
                (fewest, stuck_since, tried) = (node.children, Instant::now(), false);
            }
            let nobody_leads = !somebody_leads(self.session()).await?;
            // Those that attend the job are its children too, and few.
            if node.children < FEW || nobody_leads || since.elapsed() > PATIENCE {
                let tasks = self.tasks_left(job).await?;
                let Some(first) = tasks.first() else { return Ok(()) };
                if tried && stuck_since.elapsed() > GIVE_UP {
                    return Err(ClientError::NotEnded { task: first.clone(), more: tasks.len() - 1 });
                }
                if nobody_leads || since.elapsed() > PATIENCE {
                    let withdrawn = record.withdrawn.as_ref().expect("it was withdrawn");
                    self.end(tasks, &Outcome::withdrawn(withdrawn)).await?;
                    (left, since) = (i32::MAX, Instant::now());
                    tried = true;
                }
            }
            sleep(LOOK).await;
        }
    }

    /// Ends tasks, each with this outcome, unless they have ended; how many it ended.
    async fn end(&self, tasks: Vec<TaskId>, outcome: &Outcome) -> Result<usize, ClientError> {
        let (committer, reader) =
            (Committer::start(self.session().clone(), None), Reader::start(self.session().clone()));
        let end = |task: TaskId| {
            let ops = transitions::cancel(&task, outcome);
            let (committer, reader) = (&committer, &reader);
            async move {
                let ended = steps::end_without_success(committer, reader, &task.job, ops).await;
                let ended = if steps::has_no_place(&ended) {
                    // Its outcome is whatever stands there.
                    steps::end_without_success(committer, reader, &task.job, vec![transitions::cancel_alone(&task)])
                        .await
                } else {
                    ended
                };
                match ended {
                    Ok(()) => Ok(true),
                    // It has ended meanwhile: by itself, or by somebody else who cancels.
                    Err(refused) => {
                        already_gone(refused)?;
                        let node = reader.read(task.data_path()).await?;
                        let outcome = node.and_then(|node| Outcome::from_json(&node.data).ok());
                        Ok(outcome.is_some_and(|outcome| outcome.status == OutcomeStatus::Cancelled))
                    }
                }
            }
        };
        let mut ended = 0;
        for some in tasks.chunks(CHUNK) {
            for done in join_all(some.iter().cloned().map(end)).await {
                ended += usize::from(done.map_err(|error: ClientError| error)?);
            }
        }
        Ok(ended)
    }

    /// Attempts dead tasks again, as if they never had been; their history stays. Returns how many.
    ///
    /// Errors: no such job; it was withdrawn.
    pub async fn retry(&self, selected: &Selected) -> Result<usize, ClientError> {
        let (record, _) = self.record(&selected.job).await?;
        if let Some(Withdrawn { reason, .. }) = record.withdrawn {
            return Err(ClientError::Withdrawn { job: selected.job.clone(), reason });
        }
        let committer = Committer::start(self.session().clone(), None);
        let sets = self
            .dead(selected)
            .await?
            .into_iter()
            .map(|(task, state, version)| committer.commit(vec![transitions::retry(&task, &state, version)]));
        let mut retried = 0;
        for set in join_all(sets).await {
            match set {
                // What happened to it since, if that was not our own retry, was somebody else's.
                Ok(()) | Err(CommitError::Refused { unanswered: true, .. }) => retried += 1,
                Err(refused) => already_gone(refused)?, // somebody was faster
            }
        }
        Ok(retried)
    }

    /// Removes what has ended, dead tasks too. Of a whole job it first cancels what is outstanding, and closes it. Returns
    /// how many tasks it removed.
    ///
    /// Errors: no such job; some tasks of a job that is not sealed; or some that cannot be ended.
    pub async fn forget(&self, selected: &Selected) -> Result<usize, ClientError> {
        let job = &selected.job;
        if selected.tasks.is_none() {
            let reason = "it is to be forgotten".to_owned();
            let record = self.withdraw(job, &Withdrawn { status: OutcomeStatus::Cancelled, reason }).await?;
            self.until_ended(job, &record).await?;
        } else if !self.record(job).await?.0.sealed {
            return Err(ClientError::NotSealed(job.clone()));
        }
        let dead: HashSet<u32> = self.dead(selected).await?.into_iter().map(|(task, ..)| task.n).collect();
        let outstanding: BTreeSet<u32> = self.tasks(selected).await?.into_iter().map(|task| task.n).collect();
        let names = self.session().children(&job.data_path()).await?.unwrap_or_default();
        let stored = names.iter().filter_map(|name| task_number(name).ok()).filter(|n| selected.contains(*n));
        let ended: Vec<u32> = stored.filter(|n| dead.contains(n) || !outstanding.contains(n)).collect();
        let committer = Committer::start(self.session().clone(), None);
        let mut forgotten = 0;
        for some in ended.chunks(CHUNK) {
            let removals = some.iter().map(|n| {
                let task = job.task(*n);
                committer.commit(match dead.contains(n) {
                    true => transitions::sweep_dead(&task, None),
                    false => vec![transitions::sweep(job, paths::name(&task.data_path()), None)],
                })
            });
            for removed in join_all(removals).await {
                match removed {
                    Ok(()) | Err(CommitError::Refused { refusal: Refusal::NoNode, unanswered: true, .. }) => {
                        forgotten += 1
                    }
                    Err(refused) => already_gone(refused)?,
                }
            }
        }
        if selected.tasks.is_none() {
            for name in names.iter().filter(|name| later_job(name).is_some()) {
                self.delete(paths::join(&job.data_path(), name)).await?; // that job will be aborted
            }
            steps::close(self.session(), job).await?;
        }
        Ok(forgotten)
    }

    /// The dead tasks, with what happened to them and their versions.
    pub async fn dead(&self, selected: &Selected) -> Result<Vec<(TaskId, TaskState, i32)>, ClientError> {
        let mut dead = Vec::new();
        for some in self.tasks(selected).await?.chunks(500) {
            let paths: Vec<String> = some.iter().map(TaskId::path).collect();
            let nodes = read_all(self.session(), &paths).await?;
            let found = some.iter().zip(nodes).filter_map(|(task, node)| {
                let node = node.ok()??;
                let state = TaskState::from_json(&node.data).ok().filter(|state| state.dead)?;
                Some((task.clone(), state, node.version))
            });
            dead.extend(found);
        }
        Ok(dead)
    }

    /// The tasks that have a znode: outstanding or dead, in their order.
    pub(super) async fn tasks(&self, selected: &Selected) -> Result<Vec<TaskId>, ClientError> {
        let names = self.session().children(&selected.job.path()).await?;
        let names = names.ok_or_else(|| ClientError::NotFound(selected.job.clone()))?;
        let numbers = names.iter().filter_map(|name| task_number(name).ok()).filter(|n| selected.contains(*n));
        let mut tasks: Vec<TaskId> = numbers.map(|n| selected.job.task(n)).collect();
        tasks.sort_unstable();
        Ok(tasks)
    }

    /// The same of a whole job, which may be gone by now.
    async fn tasks_left(&self, job: &JobId) -> Result<Vec<TaskId>, ClientError> {
        match self.tasks(&Selected { job: job.clone(), tasks: None }).await {
            Err(ClientError::NotFound(_)) => Ok(Vec::new()),
            tasks => tasks,
        }
    }

    /// Changes a job's record, whoever else does meanwhile; the record as it is then.
    pub(super) async fn set_record(
        &self,
        job: &JobId,
        change: impl Fn(&mut JobRecord),
    ) -> Result<JobRecord, ClientError> {
        for _ in 0..TRIES_MAX {
            let (before, version) = self.record(job).await?;
            let mut record = before.clone();
            change(&mut record);
            if record == before {
                return Ok(record);
            }
            let set = transitions::set_record(job, &record, version);
            match self.session().write(set).await {
                Ok(_) => return Ok(record),
                Err(Failure::Refused(Refusal::BadVersion)) => {}
                Err(Failure::Unknown(_)) => self.session().settle().await?,
                Err(failure) => return Err(failure.into()),
            }
        }
        Err(Failure::Refused(gave_up(&job.path())).into())
    }

    pub(super) async fn delete(&self, path: String) -> Result<(), ClientError> {
        match self.session().insist(Op::Delete { path, version: None }).await {
            Ok(_) | Err(Failure::Refused(Refusal::NoNode)) => Ok(()),
            Err(failure) => Err(failure.into()),
        }
    }
}

/// Somebody else removed it at the same time.
pub(super) fn already_gone(error: CommitError) -> Result<(), ClientError> {
    match error {
        CommitError::Refused { refusal: Refusal::NoNode | Refusal::BadVersion, .. } => Ok(()),
        CommitError::Refused { refusal, .. } | CommitError::Guard(refusal) => Err(Failure::Refused(refusal).into()),
        CommitError::SessionOver(cause) => Err(Failure::SessionOver(cause).into()),
    }
}
