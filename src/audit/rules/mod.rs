//! The invariants of the protocol, checked at every zxid.
//!
//! | rule | what it says |
//! |---|---|
//! | `one-end` | a task ends once, or is outstanding: completed, or cancelled with its payload; its id is never used again |
//! | `commit` | an outcome is set once, by a registered worker, in the transaction that deletes its task |
//! | `one-leader` | assignments are written by the session that owns the lowest candidate, and by no other |
//! | `no-return` | no assignment by a candidate after the first one of its successor |
//! | `ephemeral` | a worker's znode, and so its assignments, ends with its session |
//! | `one-holder` | no task is in the lists of two live workers at once, at the version it has |
//! | `payload` | a payload comes and goes with its task, and nobody overwrites it |
//! | `sealed` | a sealed job gets no more tasks, and its record counts those that it got |
//! | `leftovers` | a job is closed with nothing left in it, and never opened again |
//! | `too-soon` | nothing is assigned that is dead, in backoff or delayed, or whose job waits for another |
//! | `unmarked` | a task that ends without success marks its job; only a withdrawn job's tasks are aborted |
//! | `after` | a job is released from one before it only when that has ended, every task of it done |
//! | `key` | of the jobs with one key, one at most has not ended |
//! | `settled` | no task waits or runs at the end; only where that is demanded |

mod policy;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use crate::audit::Ending;
use crate::audit::log::{History, Record};
use crate::audit::replay::{Effect, Tree};
use crate::audit::txn::{Body, NO_NODE, Op};
use crate::audit::verdict::{Figures, Leader, Life, Span, SpanEnd, Verdict, Violation};
use crate::coordination::paths;
use crate::records::tree::{BelowTasks, DATA, MASTER, TASKS, WORKERS, below_tasks};
use crate::records::{Assignment, JobId, Outcome, OutcomeStatus, TaskId, TaskState, WorkerRecord};

/// The state of an audit.
#[derive(Debug)]
pub struct Rules {
    tree: Tree,
    figures: Figures,
    violations: Vec<Violation>,
    /// Ids that were used; none is used twice.
    tasks_seen: HashSet<TaskId>,
    /// Of these, those that have not ended, and which record submitted them.
    open: BTreeMap<TaskId, usize>,
    /// Jobs that were ever opened; none is opened twice.
    jobs: HashMap<JobId, Submissions>,
    /// Each live worker's list.
    lists: BTreeMap<String, BTreeSet<Assignment>>,
    holders: HashMap<Assignment, BTreeSet<String>>,
    leaders: Vec<Leader>,
    /// When each entry of a live list came.
    assigned_ms: HashMap<(String, Assignment), i64>,
    spans: Vec<Span>,
    born_ms: HashMap<String, i64>,
    lives: Vec<Life>,
    fenced_ms: Vec<i64>,
    /// Sessions that are or were candidates or workers.
    members: HashSet<i64>,
    /// Candidates that have led, and the sessions that own or owned them.
    led: HashMap<i64, String>,
}

/// What was submitted to a job.
#[derive(Debug, Default)]
struct Submissions {
    tasks: u32,
    sealed: bool,
}

/// A transaction's effects on tasks, gathered before it is judged as a whole.
#[derive(Default)]
struct Step {
    tasks_created: BTreeSet<TaskId>,
    tasks_deleted: BTreeSet<TaskId>,
    payloads_created: BTreeSet<TaskId>,
    data_deleted: BTreeMap<TaskId, i32>,
    outcomes: BTreeMap<TaskId, (i32, Vec<u8>)>,
}

impl Rules {
    /// For a herd below `chroot`, a path or `""`.
    pub fn new(chroot: &str) -> Self {
        Rules {
            tree: Tree::new(chroot),
            figures: Figures::default(),
            violations: Vec::new(),
            tasks_seen: HashSet::new(),
            open: BTreeMap::new(),
            jobs: HashMap::new(),
            lists: BTreeMap::new(),
            holders: HashMap::new(),
            leaders: Vec::new(),
            assigned_ms: HashMap::new(),
            spans: Vec::new(),
            born_ms: HashMap::new(),
            lives: Vec::new(),
            fenced_ms: Vec::new(),
            members: HashSet::new(),
            led: HashMap::new(),
        }
    }

    /// Takes the next record.
    pub fn apply(&mut self, record: &Record) {
        self.figures.transactions += 1;
        match &record.txn.body {
            Body::CreateSession(_) => self.figures.sessions += 1,
            Body::Refused(_) => self.figures.refused += 1,
            Body::RefusedMulti { at, code, before, ops } => {
                self.figures.refused += 1;
                // The guard of a master's or worker's write comes first, and fails where its znode is gone.
                let guarded = *at == 0 && before.is_empty() && *ops > 1 && self.members.contains(&record.txn.session);
                if guarded && *code == NO_NODE {
                    self.figures.fenced += 1;
                    self.fenced_ms.push(record.txn.time_ms);
                }
            }
            Body::CloseSession(_) | Body::Op(_) | Body::Multi(_) | Body::Other(_) => {}
        }
        self.assignments_are_the_leaders(record);
        let effects = self.tree.apply(&record.txn);
        let mut step = Step::default();
        for effect in &effects {
            self.note(effect, &mut step, record);
        }
        self.judge(&step, record);
        if effects.iter().any(|effect| path_of(effect).starts_with(MASTER)) {
            self.follow_leader(record);
        }
    }

    /// A rule was broken, unless ZooKeeper had lost transactions by then: of what follows nothing can be said.
    fn broken(&mut self, rule: &'static str, what: String, record: &Record) {
        if !self.tree.contradictions.is_empty() {
            return;
        }
        self.violations.push(Violation {
            rule,
            what,
            zxid: format!("{:#x}", record.txn.zxid),
            session: format!("{:#x}", record.txn.session),
            time_ms: record.txn.time_ms,
            line: format!("{} at byte {}", record.line.file.display(), record.line.offset),
        });
    }

    /// The lowest candidate and its owner.
    fn lowest(&self) -> Option<(String, i64)> {
        let numbered = self.tree.children(MASTER).filter_map(|(name, node)| Some((paths::sequence(name)?, name, node)));
        numbered.min_by_key(|(number, ..)| *number).map(|(_, name, node)| (name.to_owned(), node.owner))
    }

    /// Looks at the tree before the transaction: who may write assignments, and who does.
    fn assignments_are_the_leaders(&mut self, record: &Record) {
        if self.lists_set(record).is_empty() {
            return;
        }
        let session = record.txn.session;
        match self.lowest() {
            Some((candidate, owner)) if owner == session => {
                if let Some(leader) = self.leaders.last_mut().filter(|leader| leader.candidate == candidate) {
                    leader.writes += 1;
                    leader.first_write_ms.get_or_insert(record.txn.time_ms);
                }
                self.led.insert(session, candidate);
            }
            lowest => {
                let lowest = lowest.map_or("there is none".to_owned(), |(name, _)| format!("the lowest is {name}"));
                self.broken("one-leader", format!("an assignment by a session that does not lead; {lowest}"), record);
                if let Some(former) = self.led.get(&session).cloned()
                    && self.leaders.last().is_some_and(|now| now.candidate != former && now.writes > 0)
                {
                    self.broken("no-return", format!("{former} wrote after its successor"), record);
                }
            }
        }
    }

    /// The workers whose lists a transaction sets.
    fn lists_set(&self, record: &Record) -> Vec<String> {
        let set = record.txn.applied().iter().filter_map(|op| match op {
            Op::Set { path, .. } => self.tree.below(path),
            Op::Create { .. } | Op::Delete(_) | Op::Check(_) | Op::Other(_) => None,
        });
        set.filter_map(|path| Some(path.strip_prefix(WORKERS)?.strip_prefix('/')?.to_owned())).collect()
    }

    fn follow_leader(&mut self, record: &Record) {
        let lowest = self.lowest();
        let now = record.txn.time_ms;
        if let Some(leader) = self.leaders.last_mut()
            && leader.until_ms.is_none()
            && lowest.as_ref().is_none_or(|(name, _)| *name != leader.candidate)
        {
            leader.until_ms = Some(now);
        }
        if let Some((candidate, _)) = lowest
            && self.leaders.last().is_none_or(|leader| leader.candidate != candidate)
        {
            self.figures.elections += 1;
            let leader =
                Leader { candidate, from_ms: now, until_ms: None, first_write_ms: None, takeover_ms: None, writes: 0 };
            self.leaders.push(leader);
        }
    }

    fn note(&mut self, effect: &Effect, step: &mut Step, record: &Record) {
        let path = path_of(effect);
        if path.matches('/').count() == 2 && !path.starts_with(DATA) {
            match effect {
                Effect::Created(_) => {
                    self.born_ms.insert(path.to_owned(), record.txn.time_ms);
                    if !path.starts_with(TASKS) {
                        self.members.insert(record.txn.session);
                    }
                }
                Effect::Deleted(..) => self.end_life(path, record.txn.time_ms),
                Effect::Set(..) => {}
            }
        }
        if let Some(name) = path.strip_prefix(WORKERS).and_then(|p| p.strip_prefix('/')) {
            self.worker_changed(name, effect, record);
        } else if let Some(below) = path.strip_prefix(TASKS).and_then(|p| p.strip_prefix('/')) {
            match below_tasks(below) {
                Ok(BelowTasks::Job(job)) => self.job_changed(&job, effect, record),
                Ok(BelowTasks::Task(task)) => self.task_changed(&task, effect, step, record),
                Ok(BelowTasks::Client(..)) | Err(_) => {} // that one's, or somebody else's
            }
        } else if let Some(below) = path.strip_prefix(DATA).and_then(|p| p.strip_prefix('/'))
            && let Ok(task) = below.parse::<TaskId>()
        {
            match effect {
                Effect::Created(_) => drop(step.payloads_created.insert(task)),
                Effect::Set(..) => {
                    let node = self.tree.get(path);
                    let (version, data) = node.map_or((0, Vec::new()), |node| (node.version, node.data.clone()));
                    step.outcomes.insert(task, (version, data));
                }
                Effect::Deleted(_, node) => drop(step.data_deleted.insert(task, node.version)),
            }
        }
    }

    fn worker_changed(&mut self, name: &str, effect: &Effect, record: &Record) {
        let node = self.tree.get(path_of(effect)).cloned();
        let outlives = matches!(effect, Effect::Created(_)) && node.as_ref().is_some_and(|node| node.owner == 0);
        let listed =
            node.and_then(|node| WorkerRecord::from_json(&node.data).ok()).map(|worker| worker.assignments().0);
        let list: BTreeSet<Assignment> = listed.unwrap_or_default().into_iter().collect();
        if matches!(effect, Effect::Created(_)) && !list.is_empty() {
            self.broken("one-leader", format!("{name} registered with assignments of its own"), record);
        }
        if outlives {
            self.broken("ephemeral", format!("{name} would outlive its session"), record);
        }
        let before = self.lists.remove(name).unwrap_or_default();
        let now = record.txn.time_ms;
        let end = if matches!(effect, Effect::Deleted(..)) { SpanEnd::Lost } else { SpanEnd::Withdrawn };
        for over in before.difference(&list) {
            self.end_span(name, over, now, end);
            if let Some(holders) = self.holders.get_mut(over) {
                holders.remove(name);
                if holders.is_empty() {
                    self.holders.remove(over);
                }
            }
        }
        for new in list.difference(&before) {
            self.figures.assignments += 1;
            self.holders.entry(new.clone()).or_default().insert(name.to_owned());
            self.assigned_ms.insert((name.to_owned(), new.clone()), now);
            self.may_be_assigned(new, record);
        }
        if !matches!(effect, Effect::Deleted(..)) {
            self.lists.insert(name.to_owned(), list);
        }
    }

    fn end_life(&mut self, path: &str, to_ms: i64) {
        if let Some(from_ms) = self.born_ms.remove(path) {
            self.lives.push(Life { path: path.to_owned(), from_ms, to_ms });
        }
    }

    fn end_span(&mut self, worker: &str, assignment: &Assignment, to_ms: i64, end: SpanEnd) {
        let key = (worker.to_owned(), assignment.clone());
        let Some(from_ms) = self.assigned_ms.remove(&key) else { return };
        let (worker, task) = (key.0, assignment.task.to_string());
        self.spans.push(Span { worker, task, from_ms, to_ms, end });
    }

    fn job_changed(&mut self, job: &JobId, effect: &Effect, record: &Record) {
        match effect {
            Effect::Created(_) => {
                self.figures.jobs += 1;
                if self.jobs.insert(job.clone(), Submissions::default()).is_some() {
                    self.broken("leftovers", format!("job {job} was opened a second time"), record);
                }
                self.look_whether_sealed(job, record);
                self.has_the_key_alone(job, record);
            }
            Effect::Deleted(..) if self.tree.get(&job.data_path()).is_some() => {
                self.broken("leftovers", format!("job {job} was closed, but {} is left", job.data_path()), record);
            }
            Effect::Set(_, before) => {
                self.look_whether_sealed(job, record);
                self.is_released_rightly(job, before, record);
            }
            Effect::Deleted(..) => {}
        }
    }

    fn task_changed(&mut self, task: &TaskId, effect: &Effect, step: &mut Step, record: &Record) {
        match effect {
            Effect::Created(_) => {
                self.figures.submitted += 1;
                step.tasks_created.insert(task.clone());
                self.open.insert(task.clone(), self.figures.transactions - 1);
                if let Some(job) = self.jobs.get_mut(&task.job) {
                    job.tasks += 1;
                    if job.sealed {
                        self.broken("sealed", format!("task {task} was submitted to a sealed job"), record);
                    }
                }
                if !self.tasks_seen.insert(task.clone()) {
                    self.broken("one-end", format!("task {task} was submitted a second time"), record);
                }
            }
            Effect::Set(path, before) => {
                let state = |data: &[u8]| TaskState::from_json(data).unwrap_or_default();
                let now = self.tree.get(path).map(|node| state(&node.data)).unwrap_or_default();
                self.figures.lost_attempts += usize::from(now.attempt > state(before).attempt);
            }
            Effect::Deleted(_, node) => {
                step.tasks_deleted.insert(task.clone());
                self.open.remove(task);
                let assignment = Assignment { task: task.clone(), version: node.version };
                let holders = self.holders.get(&assignment).cloned().unwrap_or_default();
                for worker in holders {
                    let owner = self.tree.get(&paths::join(WORKERS, &worker)).map(|node| node.owner);
                    let end = if owner == Some(record.txn.session) { SpanEnd::Committed } else { SpanEnd::Withdrawn };
                    self.end_span(&worker, &assignment, record.txn.time_ms, end);
                }
            }
        }
    }

    fn judge(&mut self, step: &Step, record: &Record) {
        for task in &step.tasks_deleted {
            match (step.outcomes.get(task), step.data_deleted.get(task)) {
                (Some(_), None) => {}
                (None, Some(0)) => self.figures.cancelled += 1,
                (None, None) if self.tree.get(&task.data_path()).is_none() => self.figures.cancelled += 1,
                _ => self.broken("one-end", format!("task {task} was deleted without an outcome"), record),
            }
        }
        for (task, (version, data)) in &step.outcomes {
            if !step.tasks_deleted.contains(task) {
                self.broken("commit", format!("an outcome for {task} was set apart from its task"), record);
            }
            if *version != 1 {
                self.broken("commit", format!("{} was set to version {version}", task.data_path()), record);
            }
            let session = record.txn.session;
            let status = Outcome::from_json(data).map(|outcome| outcome.status);
            let by_worker = self.tree.children(WORKERS).any(|(_, node)| node.owner == session);
            if matches!(status, Ok(OutcomeStatus::Done | OutcomeStatus::Failed)) && !by_worker {
                self.broken("commit", format!("{task} was completed by a session without a worker"), record);
            }
            if let Ok(status) = status {
                self.is_marked(task, status, record);
            }
            match status {
                Ok(OutcomeStatus::Done) => self.figures.done += 1,
                Ok(OutcomeStatus::Failed) => self.figures.failed += 1,
                Ok(OutcomeStatus::Cancelled) => self.figures.cancelled += 1,
                Ok(OutcomeStatus::Aborted) => self.figures.aborted += 1,
                Err(error) => self.broken("commit", format!("the outcome of {task} is none: {error}"), record),
            }
        }
        for (task, version) in &step.data_deleted {
            if *version == 0 && !step.tasks_deleted.contains(task) {
                self.broken("payload", format!("the payload of {task} was deleted without the task"), record);
            }
        }
        for task in step.tasks_created.symmetric_difference(&step.payloads_created) {
            // A payload that comes later, or a task without one, is somebody's who does not keep the protocol.
            self.broken("payload", format!("{task} and its payload were not created together"), record);
        }
        self.one_holder(record);
    }

    /// Looks at what two or more live workers have in their lists.
    fn one_holder(&mut self, record: &Record) {
        let mut twice = Vec::new();
        for assignment in self.lists_set(record).iter().filter_map(|name| self.lists.get(name)).flatten() {
            let holders = &self.holders[assignment];
            let holds = |node: &crate::audit::replay::Znode| node.version == assignment.version;
            if holders.len() > 1 && self.tree.get(&assignment.task.path()).is_some_and(holds) {
                twice.push(format!("{assignment} is assigned to {}", Vec::from_iter(holders.clone()).join(" and ")));
            }
        }
        twice.dedup();
        for what in twice {
            self.broken("one-holder", what, record);
        }
    }

    /// Where a task that has not ended is.
    fn place_of(&self, task: &TaskId, version: i32) -> String {
        let assignment = Assignment { task: task.clone(), version };
        match self.holders.get(&assignment).and_then(|holders| holders.first()) {
            Some(worker) => format!("it is in the list of {worker}"),
            None => "it is in nobody's list".to_owned(),
        }
    }

    /// Ends the audit.
    pub fn verdict(mut self, history: &History, ending: Ending) -> Verdict {
        let (mut vanished, mut unsettled) = (Vec::new(), Vec::new());
        for (task, at) in &self.open {
            self.figures.outstanding += 1;
            match self.tree.get(&task.path()) {
                Some(node) => {
                    if TaskState::from_json(&node.data).is_ok_and(|state| state.dead) {
                        self.figures.dead += 1;
                    } else if ending == Ending::Settled {
                        let place = self.place_of(task, node.version);
                        unsettled.push((*at, format!("task {task}, submitted here, has not ended: {place}")));
                    }
                }
                None => vanished.push(task.clone()),
            }
        }
        let jobs = self.tree.children(DATA).filter_map(|(name, _)| name.parse::<JobId>().ok());
        let forgotten: Vec<JobId> = jobs.filter(|job| self.tree.get(&job.path()).is_none()).collect();
        for (at, what) in unsettled {
            self.broken("settled", what, &history.records[at]);
        }
        if let Some(last) = history.records.last() {
            for task in vanished {
                self.broken("one-end", format!("task {task} is gone, and nothing in the log ended it"), last);
            }
            for job in forgotten {
                self.broken("leftovers", format!("{} is left without a job", job.data_path()), last);
            }
        }
        for at in 1..self.leaders.len() {
            let before = self.leaders[at - 1].until_ms;
            let leader = &mut self.leaders[at];
            leader.takeover_ms = leader.first_write_ms.zip(before).map(|(write, end)| write - end);
        }
        let last_ms = history.records.last().map_or(0, |record| record.txn.time_ms);
        for (worker, assignment) in self.assigned_ms.keys().cloned().collect::<Vec<_>>() {
            self.end_span(&worker, &assignment, last_ms, SpanEnd::Open);
        }
        for path in self.born_ms.keys().cloned().collect::<Vec<_>>() {
            self.end_life(&path, last_ms);
        }
        self.figures.uncommitted = history.uncommitted;
        self.figures.torn = history.torn;
        let mut doubts = history.gaps.clone();
        if let Some(first) = self.tree.contradictions.first() {
            let count = self.tree.contradictions.len();
            doubts.push(format!(
                "ZooKeeper lost transactions that it had committed: {count} later ones contradict them, first {first}"
            ));
        }
        let verdict = match (self.violations.is_empty(), doubts.is_empty()) {
            (false, _) => "invalid",
            (true, false) => "unknown",
            (true, true) => "valid",
        };
        Verdict {
            verdict,
            violations: self.violations,
            doubts,
            figures: self.figures,
            leaders: self.leaders,
            spans: self.spans,
            lives: self.lives,
            fenced_ms: self.fenced_ms,
        }
    }
}

fn path_of(effect: &Effect) -> &str {
    match effect {
        Effect::Created(path) | Effect::Set(path, _) | Effect::Deleted(path, _) => path,
    }
}
