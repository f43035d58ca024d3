//! The rules of how a job says that its tasks are to be treated.

use super::Rules;
use crate::audit::log::Record;
use crate::records::tree::{TASKS, has_tasks};
use crate::records::{Assignment, JobId, JobRecord, OutcomeStatus, TaskId, TaskState};

/// How far the clocks of a herd may be apart.
const CLOCKS_MS: i64 = 1_000;

impl Rules {
    fn job_record(&self, job: &JobId) -> Option<JobRecord> {
        JobRecord::from_json(&self.tree.get(&job.path())?.data).ok()
    }

    /// `sealed`: the record counts the tasks that came.
    pub(super) fn look_whether_sealed(&mut self, job: &JobId, record: &Record) {
        let stored = self.tree.get(&job.path()).and_then(|node| JobRecord::from_json(&node.data).ok());
        let Some((stored, job_so_far)) = stored.zip(self.jobs.get_mut(job)) else { return };
        let (before, submitted) = (std::mem::replace(&mut job_so_far.sealed, stored.sealed), job_so_far.tasks);
        if let (false, true, Some(claimed)) = (before, stored.sealed, stored.tasks)
            && claimed != submitted
        {
            let what = format!("the client of {job} submitted {claimed} tasks by its own count, and {submitted} came");
            self.broken("sealed", what, record);
        }
    }

    /// `too-soon`: what is assigned may be.
    pub(super) fn may_be_assigned(&mut self, assignment: &Assignment, record: &Record) {
        let Some(job) = self.job_record(&assignment.task.job) else { return };
        let node = self.tree.get(&assignment.task.path()).filter(|node| node.version == assignment.version);
        let state = node.and_then(|node| TaskState::from_json(&node.data).ok()).unwrap_or_default();
        let moment = job.policy.not_before_ms.max(state.not_before_ms);
        let reason = if let Some(after) = job.after.first() {
            format!("its job waits for {after}")
        } else if moment.is_some_and(|at| at > record.txn.time_ms + CLOCKS_MS) {
            "it was to wait for a moment that had not come".to_owned()
        } else if state.dead {
            "it is dead".to_owned()
        } else {
            return;
        };
        self.broken("too-soon", format!("{assignment} was assigned, but {reason}"), record);
    }

    /// `unmarked`: a task that ends without success leaves its mark on the job; only a withdrawn job's tasks are aborted.
    pub(super) fn is_marked(&mut self, task: &TaskId, status: OutcomeStatus, record: &Record) {
        let Some(job) = self.job_record(&task.job) else { return };
        if status != OutcomeStatus::Done && !job.failed && job.withdrawn.is_none() {
            self.broken("unmarked", format!("{task} ended as {status:?}, and its job does not say so"), record);
        }
        if status == OutcomeStatus::Aborted && job.withdrawn.is_none() {
            self.broken("unmarked", format!("{task} was aborted, but its job is not withdrawn"), record);
        }
    }

    /// `key`: a job that is opened under a key is the only one that has not ended under it.
    pub(super) fn has_the_key_alone(&mut self, job: &JobId, record: &Record) {
        let Some(key) = self.job_record(job).and_then(|job| job.key) else { return };
        let others: Vec<JobId> = self
            .tree
            .children(TASKS)
            .filter(|(name, node)| {
                *name != job.as_str()
                    && JobRecord::from_json(&node.data).is_ok_and(|other| other.key.as_deref() == Some(&key))
            })
            .filter_map(|(name, _)| name.parse().ok())
            .filter(|other| !self.has_ended(other))
            .collect();
        for other in others {
            self.broken("key", format!("{job} was opened under the key '{key}', which {other} has"), record);
        }
    }

    /// Sealed, and nothing left that waits, runs or could be retried.
    fn has_ended(&self, job: &JobId) -> bool {
        let sealed = self.job_record(job).is_some_and(|record| record.sealed);
        sealed && !has_tasks(self.tree.children(&job.path()).map(|(name, _)| name))
    }

    /// `after`: a job is released from one before it only when that has succeeded.
    pub(super) fn is_released_rightly(&mut self, job: &JobId, before: &[u8], record: &Record) {
        let Some((was, now)) = JobRecord::from_json(before).ok().zip(self.job_record(job)) else { return };
        if now.withdrawn.is_some() {
            return; // it will not begin
        }
        for other in was.after.iter().filter(|other| !now.after.contains(other)) {
            let fine = self.job_record(other).is_some_and(|other| !other.failed && other.withdrawn.is_none());
            if !fine || !self.has_ended(other) {
                let what = format!("{job} was released from {other}, which has not ended with success");
                self.broken("after", what, record);
            }
        }
    }
}
