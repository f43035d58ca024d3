//! What the leader does for jobs beside assigning, see [`duties`]: each write under its guard.

use futures::future::join_all;
use tracing::{debug, info};

use super::super::{closing, unsuccessful};
use super::{Setback, Standing};
use crate::coordination::{CommitError, Committer, Failure, MultiFailure, Op, Refusal, paths};
use crate::duties::{Duty, duties};
use crate::records::tree::has_tasks;
use crate::records::{JobId, JobRecord, Outcome, TaskId, Withdrawn};

impl Standing {
    /// One round of everything that there is to do.
    pub(super) async fn do_chores(&self, guard: &Op) -> Result<(), Setback> {
        for duty in duties(&self.ledger) {
            let done = match duty {
                Duty::Withdraw(job, withdrawn) => self.withdraw(guard, &job, withdrawn).await,
                Duty::End(tasks, withdrawn) => self.end(guard, &tasks, &withdrawn).await,
                Duty::Release { job, after } => self.release(guard, &job, &after).await,
                Duty::Remove(job) => self.remove(guard, &job).await,
            };
            self.done(done)?;
        }
        Ok(())
    }

    /// Whether the leader can go on after a chore. Where somebody else was faster, or the answer was lost, it can: the tree
    /// tells, and the next round is soon.
    pub(super) fn done(&self, chore: Result<(), MultiFailure>) -> Result<(), Setback> {
        match chore.map_err(|error| (error.at, error.failure)) {
            Ok(()) => Ok(()),
            Err((Some(0), Failure::Refused(_))) => Err(Setback::Deposed),
            Err((_, failure @ Failure::SessionOver(_))) => Err(Setback::SessionOver(failure)),
            Err((_, failure)) => {
                debug!(%failure, "a chore was not done");
                Ok(())
            }
        }
    }

    async fn record(&self, job: &JobId) -> Result<Option<(JobRecord, i32)>, Failure> {
        let node = self.session.get(&job.path()).await?;
        Ok(node.and_then(|node| Some((JobRecord::from_json(&node.data).ok()?, node.version))))
    }

    async fn withdraw(&self, guard: &Op, job: &JobId, withdrawn: Withdrawn) -> Result<(), MultiFailure> {
        let Some((record, version)) = self.record(job).await? else { return Ok(()) };
        if record.withdrawn.is_some() {
            return Ok(());
        }
        info!(%job, status = ?withdrawn.status, reason = withdrawn.reason, "withdrawing");
        let record = JobRecord { sealed: true, failed: true, withdrawn: Some(withdrawn), ..record };
        let set = Op::Set { path: job.path(), data: record.to_json(), version: Some(version) };
        self.session.multi(&[guard.clone(), set]).await?;
        Ok(())
    }

    /// Each task's znode is deleted together with the setting of its outcome, as when a worker completes it.
    async fn end(&self, guard: &Op, tasks: &[TaskId], withdrawn: &Withdrawn) -> Result<(), MultiFailure> {
        let outcome = Outcome::withdrawn(withdrawn);
        let committer = Committer::start(self.session.clone(), Some(guard.clone()));
        let end = |task: &TaskId| committer.commit(unsuccessful::end(task, &outcome));
        for (task, ended) in tasks.iter().zip(join_all(tasks.iter().map(end)).await) {
            match ended {
                Ok(()) => {}
                Err(CommitError::Guard(refusal)) => {
                    return Err(MultiFailure { at: Some(0), failure: Failure::Refused(refusal) });
                }
                Err(CommitError::SessionOver(cause)) => return Err(Failure::SessionOver(cause).into()),
                // A task without a payload can have no outcome.
                Err(CommitError::Refused { at: 1, refusal: Refusal::NoNode, .. }) => {
                    self.unless_gone(guard, vec![Op::Delete { path: task.path(), version: None }]).await?;
                }
                Err(CommitError::Refused { refusal, .. }) => debug!(%task, %refusal, "it has ended already"),
            }
        }
        Ok(())
    }

    async fn release(&self, guard: &Op, job: &JobId, after: &JobId) -> Result<(), MultiFailure> {
        let Some((mut record, version)) = self.record(job).await? else { return Ok(()) };
        if !record.after.contains(after) {
            return Ok(()); // done already: the mirror is behind
        }
        let mut ops = vec![guard.clone()];
        if record.withdrawn.is_none() {
            let Some(succeeded) = self.has_succeeded(after).await? else { return Ok(()) };
            ops.push(succeeded);
        }
        record.after.retain(|before| before != after);
        info!(%job, %after, left = record.after.len(), withdrawn = record.withdrawn.is_some(), "released");
        ops.push(Op::Set { path: job.path(), data: record.to_json(), version: Some(version) });
        ops.extend(closing::hold(&self.session, after, job).await?);
        self.session.multi(&ops).await?;
        // Its client may have left it open for this.
        match self.record(after).await? {
            Some((record, _)) if record.sealed => self.close(guard, after).await,
            _ => Ok(()),
        }
    }

    /// Looks into the tree whether a job has ended, every task of it done; the check that it is still so. The mirror does
    /// not tell: it may show a record that is younger than the tasks that it shows.
    async fn has_succeeded(&self, job: &JobId) -> Result<Option<Op>, Failure> {
        // Sealed first: then no task comes any more. Failed last: the mark comes with the end of the task.
        if !self.record(job).await?.is_some_and(|(record, _)| record.sealed) {
            return Ok(None);
        }
        let names = self.session.children(&job.path()).await?.unwrap_or_default();
        let left = has_tasks(&names);
        let succeeded = |(record, _): &(JobRecord, i32)| !left && !record.failed && record.withdrawn.is_none();
        let found = self.record(job).await?.filter(succeeded);
        Ok(found.map(|(_, version)| Op::Check { path: job.path(), version: Some(version) }))
    }

    async fn remove(&self, guard: &Op, job: &JobId) -> Result<(), MultiFailure> {
        let tasks = self.session.children(&job.path()).await?.unwrap_or_default();
        if has_tasks(&tasks) {
            return Ok(()); // the mirror is behind
        }
        let names = self.session.children(&job.data_path()).await?.unwrap_or_default();
        let committer = Committer::start(self.session.clone(), Some(guard.clone()));
        let delete = |name: &String| {
            committer.commit(vec![Op::Delete { path: paths::join(&job.data_path(), name), version: None }])
        };
        join_all(names.iter().map(delete)).await;
        self.close(guard, job).await
    }

    /// Closes a job, unless something is left in it; frees its key, and what is kept for it.
    pub(super) async fn close(&self, guard: &Op, job: &JobId) -> Result<(), MultiFailure> {
        let has_data = self.session.get(&job.data_path()).await?.is_some(); // somebody's hand may have removed it
        let paths = has_data.then(|| job.data_path()).into_iter().chain([job.path()]);
        let mut ops: Vec<Op> = paths.map(|path| Op::Delete { path, version: None }).collect();
        if let Some((record, _)) = self.record(job).await? {
            ops.extend(closing::ties(&self.session, job, &record).await?);
        }
        if self.unless_gone(guard, ops).await? {
            info!(%job, "closed, for its client");
        }
        Ok(())
    }

    /// Deletes, unless somebody else has, or something is left in it; whether it was done.
    async fn unless_gone(&self, guard: &Op, ops: Vec<Op>) -> Result<bool, MultiFailure> {
        match self.session.multi(&[vec![guard.clone()], ops].concat()).await {
            Ok(_) => Ok(true),
            Err(MultiFailure { at: Some(1..), failure: Failure::Refused(Refusal::NoNode | Refusal::NotEmpty) }) => {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}
