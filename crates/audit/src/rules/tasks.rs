//! Tasks, their payloads and outcomes: the rules `one-end`, `commit`, `holder`, `writer`, `payload` and `submitter`.

use std::collections::BTreeSet;

use tree::{Assignment, Outcome, OutcomeStatus, TaskId, TaskState};

use super::{Rules, Step};
use crate::log::Record;
use crate::replay::{Effect, Znode};
use crate::verdict::SpanEnd;

/// What a task was when its znode went.
#[derive(Debug)]
pub(super) struct Gone {
    pub(super) entry: Assignment,
    pub(super) dead: bool,
    /// The live workers that had it in their lists.
    pub(super) holders: BTreeSet<String>,
}

impl Rules {
    pub(super) fn task_changed(&mut self, task: &TaskId, effect: &Effect, step: &mut Step, record: &Record) {
        match effect {
            Effect::Created(path) => {
                let with_state = self.tree.get(path).is_some_and(|node| !node.data.is_empty());
                self.submitted(task, with_state, step, record);
            }
            Effect::Set(path, before) => {
                let now = self.tree.get(path).map(|node| TaskState::from_json(&node.data));
                let was = TaskState::from_json(&before.data).unwrap_or_default();
                let attempted = matches!(&now, Some(Ok(now)) if now.attempt > was.attempt);
                self.figures.lost_attempts += usize::from(attempted);
                let entry = Assignment { task: task.clone(), version: before.version };
                if let Some(now) = now {
                    self.may_be_set(&entry, &was, now.ok().as_ref(), step, record);
                }
                self.lost.remove(&entry);
            }
            Effect::Deleted(_, node) => {
                self.open.remove(task);
                let gone = self.gone(task, node);
                for worker in &gone.holders {
                    let own = self.owner_of(worker) == Some(record.txn.session);
                    let end = if own { SpanEnd::Committed } else { SpanEnd::Withdrawn };
                    self.timeline.over(worker, &gone.entry, record.txn.time_ms, end);
                }
                self.lost.remove(&gone.entry);
                step.tasks_deleted.insert(task.clone(), gone);
            }
        }
    }

    fn gone(&self, task: &TaskId, node: &Znode) -> Gone {
        let entry = Assignment { task: task.clone(), version: node.version };
        let holders = self.holders.get(&entry).cloned().unwrap_or_default();
        Gone { entry, dead: TaskState::from_json(&node.data).is_ok_and(|state| state.dead), holders }
    }

    fn submitted(&mut self, task: &TaskId, with_state: bool, step: &mut Step, record: &Record) {
        self.figures.submitted += 1;
        step.tasks_created.insert(task.clone());
        self.open.insert(task.clone(), self.figures.transactions - 1);
        if let Some(job) = self.jobs.get_mut(&task.job) {
            job.tasks += 1;
            let (sealed, own) = (job.sealed, job.submitters.contains(&record.txn.session));
            if sealed {
                self.broken("sealed", format!("task {task} was submitted to a sealed job"), record);
            } else if !own {
                let what = format!("task {task} was submitted by a session that neither opened its job nor attends it");
                self.broken("submitter", what, record);
            }
        }
        if with_state {
            self.broken("writer", format!("task {task} was submitted with attempts behind it"), record);
        }
        if !self.tasks_seen.insert(task.clone()) {
            self.broken("one-end", format!("task {task} was submitted a second time"), record);
        }
    }

    /// `holder`, `writer`: an attempt is ended by the worker that has it, or, where that was lost, by the leader; anybody
    /// retries a dead task. `now` is `None` where the task holds no state any more.
    fn may_be_set(
        &mut self,
        entry: &Assignment,
        was: &TaskState,
        now: Option<&TaskState>,
        step: &mut Step,
        record: &Record,
    ) {
        let retried = |now: &TaskState| now.returned(None, None) == was.revived();
        if was.dead && now.is_some_and(retried) {
            return;
        }
        let holders = self.holders.get(entry).cloned().unwrap_or_default();
        if step.author.acts_as_leader() {
            step.needs_candidate.get_or_insert_with(|| format!("set task {entry}"));
            // The version alone goes up: the task is moved to another worker, and the one that has it cannot end it.
            if now == Some(was) {
                return;
            }
            if let Some(holder) = holders.first() {
                let what = format!("the leader ended the attempt of {entry}, which {holder} has, and that lives");
                self.broken("holder", what, record);
            } else if now.is_none_or(|now| now.attempt != was.attempt + 1) {
                self.broken("writer", format!("the leader set {entry}, and ended no attempt by it"), record);
            } else if !self.lost.contains(entry) {
                self.broken(
                    "holder",
                    format!("the leader ended the attempt of {entry}, which no lost worker had"),
                    record,
                );
            }
        } else if !step.author.workers.is_empty() {
            step.needs_worker.get_or_insert_with(|| format!("ended the attempt of {entry}"));
            self.has_it(entry, &holders, "its attempt was ended", step, record);
        } else {
            let what = if now.is_some_and(|now| now.dead) { "marked dead" } else { "set" };
            self.broken(
                "writer",
                format!("{entry} was {what} by a session that has neither a worker nor the lead"),
                record,
            );
        }
    }

    /// `holder`: the worker that a session acts for has the entry in its list.
    fn has_it(&mut self, entry: &Assignment, holders: &BTreeSet<String>, what: &str, step: &Step, record: &Record) {
        if holders.iter().any(|holder| step.author.acts_for(holder)) {
            return;
        }
        let by = step.author.checked_worker.as_ref().or(step.author.workers.first()).cloned().unwrap_or_default();
        let has = holders.first().map_or("nobody has it".to_owned(), |holder| format!("{holder} has it"));
        self.broken("holder", format!("{entry}: {what} by {by}, and {has}"), record);
    }

    pub(super) fn judge_tasks(&mut self, step: &mut Step, record: &Record) {
        for (task, gone) in &step.tasks_deleted {
            match (step.outcomes.get(task), step.data_deleted.get(task)) {
                (Some(_), None) => {}
                (None, Some(0)) if gone.dead => self.figures.cancelled += 1,
                (None, Some(0)) => {
                    let what = format!("task {task} was deleted with its payload, and it was not dead");
                    self.broken("one-end", what, record);
                }
                (None, None) if self.tree.get(&task.data_path()).is_none() => self.figures.cancelled += 1,
                _ => self.broken("one-end", format!("task {task} was deleted without an outcome"), record),
            }
        }
        for (task, (version, data)) in std::mem::take(&mut step.outcomes) {
            self.judge_outcome(&task, version, &data, step, record);
        }
        for (task, version) in &step.data_deleted {
            if *version == 0 && self.tree.get(&task.path()).is_some() {
                self.broken("payload", format!("the payload of {task} was deleted without the task"), record);
            } else if !step.tasks_deleted.contains_key(task) && !self.may_collect(&task.job, record.txn.session) {
                // A task that was lost before left its payload.
                let left = if *version == 0 { "payload" } else { "outcome" };
                let what = format!("the {left} of {task} was removed by a session that does not attend its job");
                self.broken("submitter", format!("{what}, which is not sealed"), record);
            }
        }
        for task in step.tasks_created.symmetric_difference(&step.payloads_created) {
            // A payload that comes later, or a task without one, is somebody's who does not keep the protocol.
            self.broken("payload", format!("{task} and its payload were not created together"), record);
        }
    }

    /// `commit`; and `holder`, for a step that completes a task.
    fn judge_outcome(&mut self, task: &TaskId, version: i32, data: &[u8], step: &mut Step, record: &Record) {
        let gone = step.tasks_deleted.get(task).map(|gone| (gone.entry.clone(), gone.holders.clone()));
        if gone.is_none() {
            self.broken("commit", format!("an outcome for {task} was set apart from its task"), record);
        }
        if version != 1 {
            self.broken("commit", format!("{} was set to version {version}", task.data_path()), record);
        }
        let status = match Outcome::from_json(data) {
            Ok(outcome) => outcome.status,
            Err(error) => return self.broken("commit", format!("the outcome of {task} is none: {error}"), record),
        };
        let completed = matches!(status, OutcomeStatus::Done | OutcomeStatus::Failed);
        if completed && step.author.workers.is_empty() {
            self.broken("commit", format!("{task} was completed by a session without a worker"), record);
        } else if completed && let Some((entry, holders)) = gone {
            step.needs_worker.get_or_insert_with(|| format!("completed {task}"));
            self.has_it(&entry, &holders, "it was completed", step, record);
        }
        self.is_marked(task, status, record);
        match status {
            OutcomeStatus::Done => self.figures.done += 1,
            OutcomeStatus::Failed => self.figures.failed += 1,
            OutcomeStatus::Cancelled => self.figures.cancelled += 1,
            OutcomeStatus::Aborted => self.figures.aborted += 1,
        }
    }
}
