//! Cancelling, retrying and forgetting: by anybody, in whatever state a job and its tasks are.

use std::collections::{BTreeSet, HashSet};

use futures::future::join_all;

use super::{Client, ClientError, Selected, close};
use crate::coordination::{CommitError, Committer, Failure, Op, Reader, Refusal, paths};
use crate::records::tree::{later_job, task_number};
use crate::records::{JobId, JobRecord, Outcome, OutcomeStatus, TaskId, TaskState, Withdrawn};
use crate::roles::unsuccessful;

/// How many tasks are read or written at a time.
const CHUNK: usize = 1_000;

impl Client {
    /// Ends what is outstanding, each task with an outcome that gives the reason; running programs are stopped. A whole job
    /// is sealed and withdrawn first, so that nothing comes after. Returns how many tasks it ended; what had ended already
    /// stays as it is.
    ///
    /// Errors: no such job.
    pub async fn cancel(&self, selected: &Selected, reason: &str) -> Result<usize, ClientError> {
        let withdrawn = Withdrawn { status: OutcomeStatus::Cancelled, reason: reason.to_owned() };
        let job = &selected.job;
        let mut outstanding: BTreeSet<TaskId> = self.tasks(selected).await?.into_iter().collect();
        if selected.tasks.is_none() {
            self.set_record(job, |record| {
                (record.sealed, record.failed) = (true, true);
                record.withdrawn.get_or_insert_with(|| withdrawn.clone());
            })
            .await?;
            outstanding.extend(self.tasks(selected).await?); // submitted in between
        }
        let (committer, reader) =
            (Committer::start(self.session().clone(), None), Reader::start(self.session().clone()));
        let outcome = Outcome::withdrawn(&withdrawn);
        let end = |task: TaskId| {
            let ops = unsuccessful::end(&task, &outcome);
            let (committer, reader) = (&committer, &reader);
            async move {
                let ended = unsuccessful::commit(committer, reader, job, ops).await;
                let ended = match ended {
                    // A task without a payload can have no outcome.
                    Err(CommitError::Refused { at: 1, refusal: Refusal::NoNode, .. }) => {
                        committer.commit(vec![Op::Delete { path: task.path(), version: None }]).await
                    }
                    ended => ended,
                };
                match ended {
                    Ok(()) => Ok(true),
                    // It has ended meanwhile: by itself, or by the leader, which helps to cancel a job.
                    Err(refused) => {
                        already_gone(refused)?;
                        let node = reader.read(task.data_path()).await?;
                        let outcome = node.and_then(|node| Outcome::from_json(&node.data).ok());
                        Ok(outcome.is_some_and(|outcome| outcome.status == OutcomeStatus::Cancelled))
                    }
                }
            }
        };
        let mut cancelled = 0;
        for some in outstanding.into_iter().collect::<Vec<_>>().chunks(CHUNK) {
            for ended in join_all(some.iter().cloned().map(end)).await {
                cancelled += usize::from(ended.map_err(|error: ClientError| error)?);
            }
        }
        Ok(cancelled)
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
        let sets = self.dead(selected).await?.into_iter().map(|(task, state, version)| {
            let set = Op::Set { path: task.path(), data: state.revived().to_json(), version: Some(version) };
            committer.commit(vec![set])
        });
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
    /// Errors: no such job; some tasks of a job that is not sealed.
    pub async fn forget(&self, selected: &Selected) -> Result<usize, ClientError> {
        let job = &selected.job;
        if selected.tasks.is_none() {
            self.cancel(selected, "it is to be forgotten").await?;
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
                let delete = |path| Op::Delete { path, version: None };
                let task = dead.contains(n).then(|| delete(job.task(*n).path()));
                committer.commit(task.into_iter().chain([delete(job.task(*n).data_path())]).collect())
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
            close(self.session(), job).await?;
        }
        Ok(forgotten)
    }

    /// The dead tasks, with what happened to them and their versions.
    pub async fn dead(&self, selected: &Selected) -> Result<Vec<(TaskId, TaskState, i32)>, ClientError> {
        let mut dead = Vec::new();
        for some in self.tasks(selected).await?.chunks(500) {
            let paths: Vec<String> = some.iter().map(TaskId::path).collect();
            let nodes = self.session().get_many(&paths).await?;
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

    /// Changes a job's record, whoever else does meanwhile; the record as it is then.
    pub(super) async fn set_record(
        &self,
        job: &JobId,
        change: impl Fn(&mut JobRecord),
    ) -> Result<JobRecord, ClientError> {
        loop {
            let (before, version) = self.record(job).await?;
            let mut record = before.clone();
            change(&mut record);
            if record == before {
                return Ok(record);
            }
            let set = Op::Set { path: job.path(), data: record.to_json(), version: Some(version) };
            match self.session().write(set).await {
                Ok(_) => return Ok(record),
                Err(Failure::Refused(Refusal::BadVersion)) => {}
                Err(Failure::Unknown(_)) => self.session().settle().await?,
                Err(failure) => return Err(failure.into()),
            }
        }
    }

    pub(super) async fn delete(&self, path: String) -> Result<(), ClientError> {
        loop {
            match self.session().write(Op::Delete { path: path.clone(), version: None }).await {
                Ok(_) | Err(Failure::Refused(Refusal::NoNode)) => return Ok(()),
                Err(Failure::Unknown(_)) => self.session().settle().await?,
                Err(failure) => return Err(failure.into()),
            }
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
