//! What a job and its tasks are like, and why nothing happens.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use coordination::{Failure, Reader, read_all};
use futures::future::join_all;
use serde::Serialize;
use tree::{Attempt, JobId, JobRecord, Outcome, TaskId, TaskState, WORKERS, task_number};
use znode::paths;

use super::stored::{Stored, stored};
use super::view::{Herd, NOBODY_LEADS, herd, worker_record};
use super::{Client, ClientError, Finished, Selected};

/// How many tasks are named as reasons.
const TASKS_NAMED_MAX: usize = 10;

/// A job, looked at closely.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct JobInfo {
    /// Its id.
    pub id: String,
    /// Its record.
    pub record: JobRecord,
    /// Whether a client attends it.
    pub attended: bool,
    /// The tasks that were asked for and are in the tree, in their order.
    pub tasks: Vec<TaskInfo>,
}

/// A task, looked at closely.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct TaskInfo {
    /// Its number.
    pub n: u32,
    /// `waiting`, `backoff`, `assigned`, `dead`, or how it ended: `done`, `failed`, `cancelled`, `aborted`, `lost`.
    pub state: String,
    /// The worker that has it, or ended it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worker: Option<String>,
    /// How many attempts have ended.
    pub attempts: u32,
    /// How many of them because their worker was lost.
    pub crashes: u32,
    /// What became of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<Attempt>,
    /// The moment before which it is not attempted again, in milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_before_ms: Option<i64>,
    /// Why it is not done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl JobInfo {
    /// How many of the tasks are in each state.
    pub fn counts(&self) -> BTreeMap<&str, usize> {
        self.tasks.iter().fold(BTreeMap::new(), |mut counts, task| {
            *counts.entry(task.state.as_str()).or_default() += 1;
            counts
        })
    }
}

impl Client {
    /// A job, and those of its tasks that are in the tree: outstanding, dead, or to be collected.
    ///
    /// Errors: no such job.
    pub async fn info(&self, selected: &Selected) -> Result<JobInfo, ClientError> {
        let (job, session) = (&selected.job, self.session());
        session.refresh().await?;
        session.learn_time().await?;
        let (record, _) = self.record(job).await?;
        let holders = self.holders(job).await?;
        let below = session.children(&job.path()).await?.unwrap_or_default();
        let stored = session.children(&job.data_path()).await?.unwrap_or_default();
        let numbers = below.iter().chain(&stored).filter_map(|name| task_number(name).ok());
        let numbers: BTreeSet<u32> = numbers.filter(|n| selected.contains(*n)).collect();
        let (mut tasks, reader) = (Vec::new(), Reader::start(session.clone()));
        for some in numbers.into_iter().collect::<Vec<_>>().chunks(100) {
            let now_ms = session.now_ms();
            let looks = some.iter().map(|n| look(&reader, job.task(*n), holders.get(n), now_ms));
            for look in join_all(looks).await {
                tasks.extend(look?);
            }
        }
        let attended = below.iter().any(|name| task_number(name).is_err());
        Ok(JobInfo { id: job.to_string(), record, attended, tasks })
    }

    /// Which worker has which of a job's tasks.
    pub async fn holders(&self, job: &JobId) -> Result<HashMap<u32, String>, ClientError> {
        let names = self.session().children(WORKERS).await?.unwrap_or_default();
        let paths: Vec<String> = names.iter().map(|name| paths::join(WORKERS, name)).collect();
        let mut holders = HashMap::new();
        for (name, node) in names.iter().zip(read_all(self.session(), &paths).await?) {
            let record = node.ok().flatten().and_then(|node| worker_record(&node));
            let list = record.map(|record| record.assignments().0).unwrap_or_default();
            let own = list.into_iter().filter(|assignment| assignment.task.job == *job);
            holders.extend(own.map(|assignment| (assignment.task.n, name.clone())));
        }
        Ok(holders)
    }

    /// How many tasks of a job wait that are to be assigned before this one.
    async fn waiting_before(&self, job: &JobId, n: u32) -> Result<usize, ClientError> {
        let holders = self.holders(job).await?;
        let names = self.session().children(&job.path()).await?.unwrap_or_default();
        let numbers = names.iter().filter_map(|name| task_number(name).ok());
        Ok(numbers.filter(|before| *before < n && !holders.contains_key(before)).count())
    }

    /// Why a job, or a task of it, is not done, for people; empty where there is no reason to be seen.
    ///
    /// Errors: no such job.
    pub async fn explain(&self, selected: &Selected) -> Result<Vec<String>, ClientError> {
        let (herd, info) = (herd(self.session()).await?, self.info(selected).await?);
        let policy = &info.record.policy;
        let mut reasons: Vec<String> = Vec::new();
        let waiting = info.tasks.iter().filter(|task| matches!(task.state.as_str(), "waiting" | "backoff")).count();
        if waiting > 0 && herd.masters.is_empty() {
            reasons.push(NOBODY_LEADS.to_owned());
        }
        if let Some(withdrawn) = &info.record.withdrawn {
            reasons.push(format!("it was withdrawn: {}", withdrawn.reason));
            return Ok(reasons);
        }
        if waiting > 0 {
            nobody_there(&herd, &info.record, &mut reasons);
            for before in &info.record.after {
                let left =
                    self.tasks(&Selected { job: before.clone(), tasks: None }).await.map_or(0, |tasks| tasks.len());
                reasons.push(format!("it waits for job {before}, of which {left} tasks have not ended"));
            }
            if let Some(at) = policy.not_before_ms.filter(|at| *at > self.session().now_ms()) {
                reasons.push(format!("it is not to begin before {}", moment(at)));
            }
            let first = info.tasks.iter().find(|task| task.state == "waiting");
            if let Some(task) = first.filter(|_| reasons.is_empty()) {
                let own = self.waiting_before(&selected.job, task.n).await?;
                reasons.extend(slots_are_busy(&herd, &info, task.n, own));
            }
        }
        reasons
            .extend(info.tasks.iter().filter_map(|task| what_of(task, selected.tasks.is_some())).take(TASKS_NAMED_MAX));
        Ok(reasons)
    }
}

/// A task as it is in the tree: outstanding, ended, lost, or `None` where it is not there.
async fn look(
    reader: &Reader,
    task: TaskId,
    holder: Option<&String>,
    now_ms: i64,
) -> Result<Option<TaskInfo>, Failure> {
    let state = match reader.read(task.path()).await {
        // It was listed, so it had been submitted.
        Ok(None) => {
            let ended = match stored(reader, &task).await? {
                Stored::Outcome(node) => Finished::of(&task, Outcome::from_json(&node.data)),
                Stored::Lost => Finished::lost(&task),
                Stored::Unreadable(why) => Finished::without_outcome(&task, why),
                Stored::Nothing | Stored::NotEnded => return Ok(None),
            };
            return Ok(Some(has_ended(task.n, ended)));
        }
        Ok(Some(node)) => TaskState::from_json(&node.data),
        Err(Failure::Refused(refusal)) => Err(refusal.to_string()),
        Err(failure) => return Err(failure),
    };
    Ok(Some(outstanding(task.n, state, holder, now_ms)))
}

/// Why a task is not done, where it has a reason of its own; where it is `asked_for`, how it is in any case.
fn what_of(task: &TaskInfo, asked_for: bool) -> Option<String> {
    let of = format!("task {}", task.n);
    let last = task.history.last().map(|last| format!("{} (on {})", last.error, last.worker)).unwrap_or_default();
    match task.state.as_str() {
        "dead" => Some(format!("{of} is dead after {} attempts: {last}", task.attempts)),
        "backoff" => {
            let until = moment(task.not_before_ms.unwrap_or_default());
            Some(format!("{of} is in backoff until {until}, after {} attempts: {last}", task.attempts))
        }
        "lost" => Some(format!("{of} was {}", task.error.as_deref().unwrap_or("lost"))),
        "assigned" if asked_for => Some(format!("{of} is with {}", task.worker.as_deref().unwrap_or("a worker"))),
        "waiting" | "assigned" => None,
        ended => asked_for.then(|| format!("{of} has ended: {ended}")),
    }
}

fn has_ended(n: u32, Finished { status, worker, attempts, error, .. }: Finished) -> TaskInfo {
    let state = status.to_string();
    TaskInfo { n, state, worker, attempts, crashes: 0, history: vec![], not_before_ms: None, error }
}

fn outstanding(n: u32, state: Result<TaskState, String>, holder: Option<&String>, now_ms: i64) -> TaskInfo {
    let (state, error) = match state {
        Ok(state) => (state, None),
        Err(error) => (TaskState { dead: true, ..TaskState::default() }, Some(format!("malformed: {error}"))),
    };
    let word = match (state.dead, holder) {
        (true, _) => "dead",
        (false, Some(_)) => "assigned",
        (false, None) if state.not_before_ms.is_some_and(|at| at > now_ms) => "backoff",
        (false, None) => "waiting",
    };
    TaskInfo {
        n,
        state: word.to_owned(),
        worker: holder.cloned(),
        attempts: state.attempt,
        crashes: state.crashes,
        error: error.or_else(|| state.last().map(|last| last.error.clone())),
        not_before_ms: state.not_before_ms,
        history: state.history,
    }
}

fn nobody_there(herd: &Herd, record: &JobRecord, reasons: &mut Vec<String>) {
    let runs_it = |worker: &&super::WorkerView| worker.kinds.contains(&record.kind);
    if herd.workers.is_empty() {
        reasons.push("there is no worker; start one with `worker`".to_owned());
        let ignored =
            herd.malformed.iter().filter(|path| paths::below(WORKERS, path).is_some_and(|name| !name.is_empty()));
        reasons.extend(ignored.map(|path| format!("{path} is no worker: no session owns it, or it is malformed")));
    } else if !herd.workers.iter().any(|worker| runs_it(&worker)) {
        let kinds: BTreeSet<&str> = herd.workers.iter().flat_map(|w| &w.kinds).map(String::as_str).collect();
        let kinds = kinds.into_iter().collect::<Vec<_>>().join(", ");
        let remedy = if record.kind == "exec" { "; start one with `worker --allow exec`" } else { "" };
        reasons.push(format!("no worker runs tasks of kind '{}', only {kinds}{remedy}", record.kind));
    } else {
        let required = &record.policy.require;
        let has_all = |worker: &super::WorkerView| required.iter().all(|tag| worker.tags.contains(tag));
        if !herd.workers.iter().filter(runs_it).any(has_all) {
            let tags = required.join(",");
            reasons.push(format!(
                "no worker that runs '{}' has the tags {tags}; start one with --tags {tags}",
                record.kind
            ));
        }
    }
}

/// How long the queue is before a task that has `own` of its own job before it: all of greater priority, and as many of each
/// job of the same one, which take turns.
fn slots_are_busy(herd: &Herd, info: &JobInfo, n: u32, own: usize) -> Option<String> {
    let (slots, taken) = herd.workers.iter().fold((0, 0), |(slots, taken), worker| {
        (slots + worker.slots as usize, taken + worker.assigned.min(worker.slots as usize))
    });
    let priority = info.record.policy.priority;
    let others = herd.jobs.iter().filter(|job| job.id != info.id && job.withdrawn.is_none() && job.after.is_empty());
    let ahead = others.map(|job| match job.priority.cmp(&priority) {
        Ordering::Greater => job.waiting,
        Ordering::Equal => job.waiting.min(own + 1),
        Ordering::Less => 0,
    });
    let ahead = own + ahead.sum::<usize>();
    (taken >= slots).then(|| format!("all {slots} slots are busy; about {ahead} tasks are ahead of task {n}"))
}

/// A moment as people write it, in UTC.
fn moment(ms: i64) -> String {
    let at = std::time::UNIX_EPOCH + std::time::Duration::from_millis(ms.max(0).unsigned_abs());
    humantime::format_rfc3339_seconds(at).to_string()
}
