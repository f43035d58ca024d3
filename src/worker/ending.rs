//! How an attempt is ended in the tree, and what the answer means.

use std::sync::Arc;
use std::time::Instant;

use coordination::{CommitError, Failure, Op, Refusal};
use futures::future::FutureExt;
use rand::RngExt;
use tokio::task;
use tracing::{debug, info, warn};
use tree::{Assignment, OutcomeStatus, TaskState, transitions, transitions::OUTCOME_AT};

use super::attempt::{self, End, Ended};
use super::fetch::Fetched;
use super::list::{Entry, Stage};
use super::{Shift, lost_registration};
use crate::unsuccessful;

impl Shift {
    /// A run has ended that says how. One that was withdrawn says nothing any more, though its task be given back to this worker
    /// and run again.
    pub(super) fn ended(&mut self, run: task::Id, Ended { assignment, fetched, end }: Ended) {
        let running = self.entries.get(&assignment).map(|entry| &entry.stage);
        let Some(Stage::Running(slot)) = running else { return };
        if slot.abort.id() != run {
            return;
        }
        self.hide(&assignment.task, slot);
        self.busy -= 1;
        if !matches!(end, End::WorkerLacks(_)) && self.shortage.ended(slot.since, Instant::now()) {
            info!(worker = self.id, "nothing is lacking any more: beginning tasks as before");
        }
        let (status, outcome) = match end {
            End::Outcome(status, outcome) => (status, outcome),
            End::Failed(error) => return self.failed(assignment, &fetched, &error),
            End::WorkerLacks(what) => return self.cannot_begin(assignment, &fetched, &what),
        };
        debug!(task = %assignment.task, ?status, "ran");
        let ops = transitions::complete(&assignment, outcome);
        if status == OutcomeStatus::Done {
            return self.commit(assignment, ops, Some(fetched));
        }
        let (committer, reader) = (self.committer.clone(), self.fetcher.reader.clone());
        self.stage(&assignment, Stage::Committing(Some(fetched)));
        let commit = async move {
            let committed = unsuccessful::commit(&committer, &reader, &assignment.task.job, ops).await;
            (assignment, committed)
        };
        self.committing.push(commit.boxed());
    }

    /// A run has ended without a word: it was aborted, and then it was withdrawn; or it panicked where no handler's poll was,
    /// as what a handler's future drops may.
    pub(super) fn broke(&mut self, error: task::JoinError) {
        let run = error.id();
        let of_run = |(assignment, entry): (&Assignment, &Entry)| match &entry.stage {
            Stage::Running(slot) if slot.abort.id() == run => Some((assignment.clone(), slot.fetched.clone())),
            _ => None,
        };
        let Some((assignment, fetched)) = self.entries.iter().find_map(of_run) else { return };
        let end = attempt::failed(&self.id, &fetched, attempt::broken(error));
        self.ended(run, Ended { assignment, fetched, end });
    }

    /// An attempt failed: the task waits again, or is dead where it was the last one.
    fn failed(&mut self, assignment: Assignment, fetched: &Fetched, error: &str) {
        let (policy, failures) = (&fetched.job.policy, fetched.state.failures + 1);
        info!(task = %assignment.task, attempt = fetched.state.attempt + 1, error, "the attempt failed");
        let mut state = TaskState { failures, ..fetched.state.attempted(&self.id, error) };
        if failures < policy.max_attempts {
            let backoff = policy.backoff(failures, rand::rng().random());
            state.not_before_ms = (!backoff.is_zero()).then(|| self.session.now_ms() + backoff.as_millis() as i64);
        } else {
            state.dead = true;
        }
        self.end_attempt(assignment, &state);
    }

    /// A task was not begun for want of something that is the worker's affair: it is handed back with all that waits here.
    pub(super) fn cannot_begin(&mut self, assignment: Assignment, fetched: &Fetched, what: &str) {
        if self.shortage.lacks(Instant::now()) {
            warn!(
                task = %assignment.task, lacks = what, slots = self.worker.slots,
                "cannot begin tasks: handing them back, and trying again after a pause; raise this worker's limits (ulimit -n \
                 and -u, memory, room in TMPDIR), or give it fewer --slots"
            );
        } else {
            debug!(task = %assignment.task, lacks = what, "cannot begin it");
        }
        self.hand_back(assignment, fetched, None);
        for (assignment, fetched) in std::mem::take(&mut self.queue) {
            self.hand_back(assignment, &fetched, None);
        }
    }

    /// Ends an attempt without an outcome: the assignment is over, and the task waits again or is dead.
    fn end_attempt(&mut self, assignment: Assignment, state: &TaskState) {
        let set = transitions::end_attempt(&assignment.task, state, assignment.version);
        self.commit(assignment, vec![set], None);
    }

    /// The tree holds something that no client of this protocol writes: the task can never be completed.
    pub(super) fn mark_dead(&mut self, assignment: Assignment, error: &str) {
        warn!(task = %assignment.task, error, "marking the task dead");
        let state = TaskState::default().attempted(&self.id, &format!("malformed: {error}"));
        self.end_attempt(assignment, &TaskState { dead: true, ..state });
    }

    /// Hands a task back because this worker stops, or cannot begin it; `error` says why, where it had begun.
    pub(super) fn hand_back(&mut self, assignment: Assignment, fetched: &Fetched, error: Option<String>) {
        let begun = error.is_some();
        let state = match error {
            Some(error) => fetched.state.attempted(&self.id, &error),
            None => fetched.state.clone(),
        };
        // Also where the pause has passed by now: without it this would say that the worker stops.
        let pause = self.shortage.pause(Instant::now()).unwrap_or_default();
        let lacking_for = if self.stopping.is_some() { None } else { Some(pause) };
        let state = state.returned(Some(&self.id), lacking_for);
        if lacking_for.is_none() {
            info!(task = %assignment.task, begun, "handing it back");
        }
        self.end_attempt(assignment, &state);
    }

    /// `outcome_of`: what was run, where its outcome is in `ops`.
    fn commit(&mut self, assignment: Assignment, ops: Vec<Op>, outcome_of: Option<Arc<Fetched>>) {
        self.stage(&assignment, Stage::Committing(outcome_of));
        let commit = self.committer.commit(ops);
        self.committing.push(async move { (assignment, commit.await) }.boxed());
    }

    pub(super) fn committed(
        &mut self,
        assignment: Assignment,
        committed: Result<(), CommitError>,
    ) -> Result<(), Failure> {
        let task = &assignment.task;
        match committed {
            Ok(()) => debug!(%task, "committed"),
            Err(CommitError::Guard(_)) => return Err(lost_registration()),
            Err(CommitError::SessionOver(cause)) => return Err(Failure::SessionOver(cause)),
            // The task itself was there to be deleted, but not its payload to be replaced.
            Err(CommitError::Refused {
                at: OUTCOME_AT,
                refusal: refusal @ (Refusal::NoNode | Refusal::BadVersion),
                ..
            }) => {
                let error = format!("{} cannot be set: {refusal}", task.data_path());
                self.mark_dead(assignment, &error);
                return Ok(());
            }
            Err(CommitError::Refused { refusal: Refusal::NoNode | Refusal::BadVersion, unanswered, .. }) => {
                // Committed the first time, or cancelled, or given to somebody else: it is over either way.
                debug!(%task, unanswered, "refused: the assignment is over");
            }
            // Access denied, a quota, too large: whoever waits for the outcome is to learn why there is none.
            Err(CommitError::Refused { at, refusal, .. }) => {
                let path = [task.path(), task.data_path(), task.job.path()].into_iter().nth(at).unwrap_or_default();
                if let Some(Entry { stage: Stage::Committing(Some(fetched)), .. }) = self.entries.get(&assignment) {
                    let (fetched, error) = (fetched.clone(), format!("its outcome was refused at {path}: {refusal}"));
                    self.failed(assignment, &fetched, &error);
                    return Ok(());
                }
                if self.refused.insert(task.job.clone()) {
                    warn!(
                        %task, path, %refusal,
                        "cannot say how an attempt of this job ended: its tasks stay in this worker's list; give its znodes an ACL \
                         that lets every member of the herd write, or cancel it"
                    );
                }
            }
        }
        self.stage(&assignment, Stage::Over);
        Ok(())
    }
}
