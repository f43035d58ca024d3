//! What the leader does for jobs beside assigning, see [`duties`]: each write under its guard, and all of it beside the
//! planning, so that a job of 200,000 tasks that is cancelled delays nobody else's.

use coordination::{CommitError, Committer, Failure, MultiFailure, Op, Refusal, Session};
use futures::future::join_all;
use tokio::task::JoinHandle;
use tracing::{debug, info};
use tree::{JobId, JobRecord, Outcome, TaskId, Withdrawn, has_tasks, transitions};

use super::{Setback, Standing};
use crate::decide::upkeep::{Duty, duties};
use crate::spill;
use crate::steps;

/// Something that is done beside the planning, one at a time.
pub(super) struct Beside<T>(Option<JoinHandle<T>>);

impl<T> Default for Beside<T> {
    fn default() -> Self {
        Beside(None)
    }
}

impl<T: Send + 'static> Beside<T> {
    pub(super) fn is_under_way(&self) -> bool {
        self.0.is_some()
    }

    pub(super) fn begin(&mut self, work: impl Future<Output = T> + Send + 'static) {
        self.0 = Some(tokio::spawn(work));
    }

    /// What came of it, once it is done. Safe to cancel.
    pub(super) async fn done(&mut self) -> T {
        let Some(work) = &mut self.0 else { return std::future::pending().await };
        let done = work.await;
        self.0 = None;
        done.expect("it does not panic, and nobody aborts it")
    }
}

/// What a round of duties came to.
pub(super) struct Round {
    /// Tasks that are gone from the tree; the mirror may not have heard of it.
    gone: Vec<TaskId>,
    outcome: Result<(), Setback>,
}

impl Standing {
    /// Begins a round of what there is to do for jobs, unless one is under way.
    pub(super) fn begin_upkeep(&mut self, guard: &Op) {
        if self.upkeep.is_under_way() {
            return;
        }
        let (removals, duties): (Vec<Duty>, Vec<Duty>) =
            duties(&self.ledger).into_iter().partition(|duty| matches!(duty, Duty::Remove(_)));
        for removal in removals {
            if let Duty::Remove(job) = removal {
                self.sweeper.remove(job);
            }
        }
        if !duties.is_empty() {
            self.upkeep.begin(self.hand(guard).see_to(duties));
        }
    }

    /// Takes over what a round came to; whether there may be more to do at once.
    pub(super) fn upkeep_done(&mut self, round: Round) -> Result<bool, Setback> {
        for task in &round.gone {
            self.ledger.task_gone(task);
        }
        round.outcome.map(|()| !round.gone.is_empty())
    }

    pub(super) fn hand(&self, guard: &Op) -> Hand {
        Hand { session: self.session.clone(), guard: guard.clone() }
    }
}

/// What writes for the leader, each time under its guard, while the leader plans.
#[derive(Clone)]
pub(super) struct Hand {
    pub(super) session: Session,
    pub(super) guard: Op,
}

impl Hand {
    async fn see_to(self, duties: Vec<Duty>) -> Round {
        let mut gone = Vec::new();
        for duty in duties {
            let done = match duty {
                Duty::Withdraw { job, withdrawn, sealed } => self.withdraw(&job, withdrawn, sealed).await,
                Duty::End(tasks, withdrawn) => self.end(&tasks, &withdrawn, &mut gone).await,
                Duty::Release { job, after } => self.release(&job, &after).await,
                Duty::Remove(_) => Ok(()), // the sweeper's
            };
            if let Err(setback) = may_go_on(done) {
                return Round { gone, outcome: Err(setback) };
            }
        }
        Round { gone, outcome: Ok(()) }
    }

    async fn record(&self, job: &JobId) -> Result<Option<(JobRecord, i32)>, Failure> {
        let node = self.session.get(&job.path()).await?;
        Ok(node.and_then(|node| Some((JobRecord::from_json(&node.data).ok()?, node.version))))
    }

    /// Applies all of `ops`, if the guard holds.
    pub(super) async fn write(&self, ops: Vec<Op>) -> Result<(), MultiFailure> {
        self.session.multi(&[vec![self.guard.clone()], ops].concat()).await.map(drop)
    }

    pub(super) fn committer(&self) -> Committer {
        Committer::start(self.session.clone(), Some(self.guard.clone()))
    }

    async fn withdraw(&self, job: &JobId, withdrawn: Withdrawn, sealed: bool) -> Result<(), MultiFailure> {
        let Some((record, version)) = self.record(job).await? else { return Ok(()) };
        if record.withdrawn.is_some() || record.sealed != sealed {
            return Ok(());
        }
        info!(%job, status = ?withdrawn.status, reason = withdrawn.reason, "withdrawing");
        self.write(vec![transitions::withdraw(job, record, withdrawn, version)]).await
    }

    /// Each task's znode is deleted together with the setting of its outcome, as when a worker completes it.
    async fn end(&self, tasks: &[TaskId], withdrawn: &Withdrawn, gone: &mut Vec<TaskId>) -> Result<(), MultiFailure> {
        let outcome = Outcome::withdrawn(withdrawn);
        let committer = self.committer();
        let end = |task: &TaskId| committer.commit(transitions::cancel(task, &outcome));
        for (task, ended) in tasks.iter().zip(join_all(tasks.iter().map(end)).await) {
            match ended {
                Ok(()) => gone.push(task.clone()),
                Err(CommitError::Refused { at: 0, refusal: Refusal::NoNode, .. }) => gone.push(task.clone()),
                // Its outcome is whatever stands there.
                ended if steps::has_no_place(&ended) => {
                    self.unless_gone(vec![transitions::cancel_alone(task)]).await?;
                }
                Err(error) => refused(error).map(|refusal| debug!(%task, %refusal, "it cannot be ended"))?,
            }
        }
        Ok(())
    }

    async fn release(&self, job: &JobId, after: &JobId) -> Result<(), MultiFailure> {
        let Some((record, version)) = self.record(job).await? else { return Ok(()) };
        if !record.after.contains(after) {
            return Ok(()); // done already: the mirror is behind
        }
        let mut ops = Vec::new();
        if record.withdrawn.is_none() {
            let Some(succeeded) = self.has_succeeded(after).await? else { return Ok(()) };
            ops.push(succeeded);
        }
        info!(%job, %after, left = record.after.len() - 1, withdrawn = record.withdrawn.is_some(), "released");
        ops.push(transitions::release(job, record, after, version));
        ops.extend(steps::let_go(&self.session, after, job).await?);
        self.write(ops).await?;
        // Its client may have left it open for this.
        match self.record(after).await? {
            Some((record, _)) if record.sealed => self.close(after).await,
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
        Ok(found.map(|(_, version)| transitions::unchanged(job, version)))
    }

    /// Closes a job, unless something is left in it; frees its key, and what is kept for it.
    pub(super) async fn close(&self, job: &JobId) -> Result<(), MultiFailure> {
        let has_data = self.session.get(&job.data_path()).await?.is_some(); // somebody's hand may have removed it
        let record = self.record(job).await?.map(|(record, _)| record);
        let ties = match &record {
            Some(record) => steps::ties(&self.session, job, record).await?,
            None => Vec::new(),
        };
        let stored: Option<&[String]> = has_data.then_some(&[]);
        if self.unless_gone(transitions::close(job, &[], stored, ties)).await? {
            info!(%job, "closed, for its client");
            if let Some(directory) = record.and_then(|record| record.spill) {
                tokio::spawn(spill::remove_aside(directory, job.clone()));
            }
        }
        Ok(())
    }

    /// Deletes, unless somebody else has, or something is left in it; whether it was done.
    async fn unless_gone(&self, ops: Vec<Op>) -> Result<bool, MultiFailure> {
        match self.write(ops).await {
            Ok(()) => Ok(true),
            Err(MultiFailure { at: Some(1..), failure: Failure::Refused(Refusal::NoNode | Refusal::NotEmpty) }) => {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}

/// Whether the leader can go on after something that it did beside planning. Where somebody else was faster, or the answer
/// was lost, it can: the tree tells, and the next round is soon.
pub(super) fn may_go_on(done: Result<(), MultiFailure>) -> Result<(), Setback> {
    match done.map_err(|error| (error.at, error.failure)) {
        Ok(()) => Ok(()),
        Err((Some(0), Failure::Refused(_))) => Err(Setback::Deposed),
        Err((_, failure @ Failure::SessionOver(_))) => Err(Setback::SessionOver(failure)),
        Err((_, failure)) => {
            debug!(%failure, "something of the upkeep was not done");
            Ok(())
        }
    }
}

/// Why a transaction was refused; fails where the leader does not lead, or has no session.
pub(super) fn refused(error: CommitError) -> Result<Refusal, MultiFailure> {
    match error {
        CommitError::Refused { refusal, .. } => Ok(refusal),
        CommitError::Guard(refusal) => Err(MultiFailure { at: Some(0), failure: Failure::Refused(refusal) }),
        CommitError::SessionOver(cause) => Err(Failure::SessionOver(cause).into()),
    }
}
