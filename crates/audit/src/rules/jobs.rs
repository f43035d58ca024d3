//! Jobs: the rules `record`, `sealed`, `submitter`, `leftovers`, `unmarked`, `after` and `key`.

use std::collections::HashSet;
use std::sync::Arc;

use serde_json::{Map, Value};
use tree::{JobId, JobRecord, OutcomeStatus, TaskId, has_tasks};

use super::{Rules, Step};
use crate::log::Record;
use crate::replay::Effect;

/// A job that is or was in the tree.
#[derive(Debug, Default)]
pub(super) struct Job {
    /// How many tasks were submitted.
    pub(super) tasks: u32,
    pub(super) sealed: bool,
    /// Its record, while it is there and is one.
    pub(super) record: Option<Arc<JobRecord>>,
    /// The sessions that opened it or showed that they attend it.
    pub(super) submitters: HashSet<i64>,
}

impl Rules {
    /// The record of a job that is there.
    pub(super) fn job_record(&self, job: &JobId) -> Option<Arc<JobRecord>> {
        self.jobs.get(job)?.record.clone()
    }

    pub(super) fn job_changed(&mut self, job: &JobId, effect: &Effect, step: &mut Step, record: &Record) {
        let node = self.tree.get(&job.path());
        let now = node.map(|node| JobRecord::from_json(&node.data).map(Arc::new));
        let parsed = now.as_ref().and_then(|now| now.as_ref().ok()).cloned();
        match effect {
            Effect::Created(_) => {
                self.figures.jobs += 1;
                let submitters = HashSet::from([record.txn.session]);
                let opened = Job { record: parsed.clone(), submitters, ..Job::default() };
                if self.jobs.insert(job.clone(), opened).is_some() {
                    self.broken("leftovers", format!("job {job} was opened a second time"), record);
                }
                self.look_whether_sealed(job, record);
                if let Some(key) = parsed.and_then(|parsed| parsed.key.clone()) {
                    self.has_the_key_alone(job, &key, record);
                }
            }
            Effect::Set(..) => {
                let Some(known) = self.jobs.get_mut(job) else { return };
                let was = std::mem::replace(&mut known.record, parsed);
                self.look_whether_sealed(job, record);
                let Some(was) = was else { return };
                match now {
                    Some(Ok(now)) => {
                        self.job_keeps_its_record(job, &was, &now, record);
                        self.is_released_rightly(job, &was, &now, step, record);
                    }
                    Some(Err(error)) => {
                        self.broken("record", format!("the record of job {job} is none any more: {error}"), record);
                    }
                    None => {}
                }
            }
            Effect::Deleted(..) => self.job_closed(job, record),
        }
    }

    fn job_closed(&mut self, job: &JobId, record: &Record) {
        if self.tree.get(&job.data_path()).is_some() {
            self.broken("leftovers", format!("job {job} was closed, but {} is left", job.data_path()), record);
        }
        let own = self.may_collect(job, record.txn.session);
        let Some(was) = self.jobs.get_mut(job).and_then(|known| known.record.take()) else { return };
        if !own {
            let what = format!("job {job} was closed before it was sealed, by a session that does not attend it");
            self.broken("submitter", what, record);
        }
        if let Some(jobs) = was.key.as_ref().and_then(|key| self.keyed.get_mut(key)) {
            jobs.remove(job);
        }
    }

    /// `submitter`: whether a session may collect from a job and close it: its own, or one that is sealed.
    pub(super) fn may_collect(&self, job: &JobId, session: i64) -> bool {
        // What nobody understands cannot be sealed, and is cleared away all the same.
        let Some(known) = self.jobs.get(job) else { return true };
        known.record.as_ref().is_none_or(|record| record.sealed) || known.submitters.contains(&session)
    }

    /// `record`: what never changes does not, and nothing that was said is taken back.
    fn job_keeps_its_record(&mut self, job: &JobId, was: &JobRecord, now: &JobRecord, record: &Record) {
        let sealing = !was.sealed && now.sealed;
        let rules = [
            (was.kind == now.kind, "its kind changed"),
            (was.args == now.args, "its arguments changed"),
            (was.policy == now.policy, "its policy changed"),
            (was.key == now.key, "its key changed"),
            (was.spill == now.spill, "its spill directory changed"),
            (!was.sealed || now.sealed, "its seal was taken back"),
            (!was.failed || now.failed, "its mark was taken back"),
            (was.withdrawn.is_none() || was.withdrawn == now.withdrawn, "its withdrawal was taken back or changed"),
            (now.withdrawn.is_none() || (now.sealed && now.failed), "it was withdrawn, but not sealed and marked"),
            (was.tasks == now.tasks || sealing, "its number of tasks changed"),
            (now.after.iter().all(|other| was.after.contains(other)), "it waits for a job more"),
            (keeps(&was.other, &now.other), "it lost a field that somebody else had written"),
        ];
        for (_, what) in rules.iter().filter(|(kept, _)| !kept) {
            self.broken("record", format!("job {job}: {what}"), record);
        }
    }

    /// `sealed`: the record counts the tasks that came.
    fn look_whether_sealed(&mut self, job: &JobId, record: &Record) {
        let Some(known) = self.jobs.get_mut(job) else { return };
        let Some(stored) = known.record.clone() else { return };
        let (before, submitted) = (std::mem::replace(&mut known.sealed, stored.sealed), known.tasks);
        if let (false, true, Some(claimed)) = (before, stored.sealed, stored.tasks)
            && claimed != submitted
        {
            let what = format!("the client of {job} submitted {claimed} tasks by its own count, and {submitted} came");
            self.broken("sealed", what, record);
        }
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
    fn has_the_key_alone(&mut self, job: &JobId, key: &str, record: &Record) {
        let others = self.keyed.entry(key.to_owned()).or_default();
        let before = others.clone();
        others.insert(job.clone());
        for other in before.iter().filter(|other| *other != job) {
            if !self.has_ended(other) {
                self.broken("key", format!("{job} was opened under the key '{key}', which {other} has"), record);
            }
        }
    }

    /// Sealed, and nothing left that waits, runs or could be retried.
    fn has_ended(&self, job: &JobId) -> bool {
        let sealed = self.job_record(job).is_some_and(|record| record.sealed);
        sealed && !has_tasks(self.tree.children(&job.path()).map(|(name, _)| name))
    }

    /// `after`: a job is released from one before it only when that has succeeded, and by the leader (`writer`).
    fn is_released_rightly(&mut self, job: &JobId, was: &JobRecord, now: &JobRecord, step: &mut Step, record: &Record) {
        let released: Vec<JobId> = was.after.iter().filter(|other| !now.after.contains(other)).cloned().collect();
        let Some(first) = released.first() else { return };
        if step.author.leads {
            step.needs_candidate.get_or_insert_with(|| format!("released {job}"));
        } else {
            self.broken("writer", format!("{job} was released from {first} by a session that does not lead"), record);
        }
        if now.withdrawn.is_some() {
            return; // it will not begin
        }
        for other in &released {
            let fine = self.job_record(other).is_some_and(|other| !other.failed && other.withdrawn.is_none());
            if !fine || !self.has_ended(other) {
                let what = format!("{job} was released from {other}, which has not ended with success");
                self.broken("after", what, record);
            }
        }
    }
}

/// Whoever sets a record again keeps the fields that it does not know.
pub(super) fn keeps(was: &Map<String, Value>, now: &Map<String, Value>) -> bool {
    was.iter().all(|(field, value)| now.get(field) == Some(value))
}
