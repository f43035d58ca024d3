//! How an attempt is ended in the tree, and what the answer means.

use std::sync::Arc;
use std::time::Instant;

use coordination::{CommitError, Failure, Op};
use futures::future::FutureExt;
use rand::RngExt;
use tokio::task;
use tracing::{debug, info, warn};
use tree::{Assignment, OutcomeStatus, Policy, TaskState};

use super::attempt::{self, End, Ended};
use super::fetch::Fetched;
use super::list::{Entry, Stage};
use super::{Shift, lost_registration};
use crate::decide::completion::{self, Context, Next};
use crate::steps;

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
        if !matches!(end, End::WorkerLacks(_)) && self.shortage.ended(slot.since, Instant::now()) {
            info!(worker = self.id, "nothing is lacking any more: beginning tasks as before");
        }
        let (status, outcome) = match end {
            End::Outcome(status, outcome) => (status, outcome),
            End::Failed(error) => return self.failed(assignment, &fetched, error),
            End::WorkerLacks(what) => return self.cannot_begin(assignment, &fetched, &what),
        };
        debug!(task = %assignment.task, ?status, "ran");
        let ops = self.ops(&assignment, &fetched.job.policy, &fetched.state, &completion::End::Outcome(outcome));
        if status == OutcomeStatus::Done {
            return self.commit(assignment, ops, Some(fetched));
        }
        let (committer, reader) = (self.committer.clone(), self.fetcher.reader.clone());
        self.stage(&assignment, Stage::Completing(Some(fetched)));
        let commit = async move {
            let committed = steps::end_without_success(&committer, &reader, &assignment.task.job, ops).await;
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

    /// The operations that end an attempt so.
    fn ops(&self, assignment: &Assignment, policy: &Policy, state: &TaskState, end: &completion::End) -> Vec<Op> {
        let (now_ms, jitter) = (self.session.now_ms(), rand::rng().random());
        completion::write(Context { worker: &self.id, assignment, policy, state, now_ms, jitter }, end)
    }

    /// An attempt failed: the task waits again, or is dead where it was the last one.
    fn failed(&mut self, assignment: Assignment, fetched: &Fetched, error: String) {
        info!(task = %assignment.task, attempt = fetched.state.attempt + 1, error, "the attempt failed");
        let ops = self.ops(&assignment, &fetched.job.policy, &fetched.state, &completion::End::Failed(error));
        self.commit(assignment, ops, None);
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
        self.hand_back_waiting();
    }

    /// Hands back all that waits for a slot.
    pub(super) fn hand_back_waiting(&mut self) {
        while let Some((assignment, fetched)) = self.next_waiting() {
            self.hand_back(assignment, &fetched, None);
        }
    }

    /// The tree holds something that no client of this protocol writes: the task can never be completed.
    pub(super) fn mark_dead(&mut self, assignment: Assignment, error: &str) {
        warn!(task = %assignment.task, error, "marking the task dead");
        let end = completion::End::Malformed(error.to_owned());
        let ops = self.ops(&assignment, &Policy::default(), &TaskState::default(), &end);
        self.commit(assignment, ops, None);
    }

    /// Hands a task back because this worker stops, or cannot begin it; `error` says why, where it had begun.
    pub(super) fn hand_back(&mut self, assignment: Assignment, fetched: &Fetched, error: Option<String>) {
        let begun = error.is_some();
        // Also where the pause has passed by now: without it this would say that the worker stops.
        let pause = self.shortage.pause(Instant::now()).unwrap_or_default();
        let lacking_for = if self.stopping.is_some() { None } else { Some(pause) };
        if lacking_for.is_none() {
            info!(task = %assignment.task, begun, "handing it back");
        }
        let end = completion::End::HandedBack { error, lacking_for };
        let ops = self.ops(&assignment, &fetched.job.policy, &fetched.state, &end);
        self.commit(assignment, ops, None);
    }

    /// `outcome_of`: what was run, where its outcome is in `ops`.
    fn commit(&mut self, assignment: Assignment, ops: Vec<Op>, outcome_of: Option<Arc<Fetched>>) {
        self.stage(&assignment, Stage::Completing(outcome_of));
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
            Err(CommitError::Refused { at, refusal, unanswered }) => {
                let outcome_of = match self.entries.get(&assignment).map(|entry| &entry.stage) {
                    Some(Stage::Completing(outcome_of)) => outcome_of.clone(),
                    _ => None,
                };
                match (completion::refused(&assignment, outcome_of.is_some(), at, &refusal), outcome_of) {
                    (Next::Write(completion::End::Failed(error)), Some(fetched)) => {
                        self.failed(assignment, &fetched, error);
                        return Ok(());
                    }
                    (Next::Write(completion::End::Malformed(error)), _) => {
                        self.mark_dead(assignment, &error);
                        return Ok(());
                    }
                    (Next::Unsayable(path), _) => {
                        if self.refused.insert(task.job.clone()) {
                            warn!(
                                %task, path, %refusal,
                                "cannot say how an attempt of this job ended: its tasks stay in this worker's list; give its znodes \
                                 an ACL that lets every member of the herd write, or cancel it"
                            );
                        }
                    }
                    (Next::Over | Next::Write(_), _) => debug!(%task, unanswered, "refused: the assignment is over"),
                }
            }
        }
        self.stage(&assignment, Stage::Over);
        Ok(())
    }
}
