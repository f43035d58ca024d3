//! The invariants of the protocol, checked at every zxid.
//!
//! | rule | what it says |
//! |---|---|
//! | `one-end` | a task ends once, or is outstanding: it goes with an outcome, or, dead, with its payload; its id is never used again |
//! | `commit` | an outcome is set once, by a registered worker, in the transaction that deletes its task |
//! | `holder` | a task is completed, and its attempt ended, by the worker that has it in its list, at its version; or the attempt by the leader, where a worker was lost with it and no other has it |
//! | `writer` | a task's znode is set by its worker and by the leader, a dead one by anybody to retry it; the leader alone releases jobs |
//! | `guard` | what a session writes as the leader or as a worker is headed by the check of its own znode |
//! | `one-leader` | assignments are written by the session that owns the lowest candidate, and by no other |
//! | `no-return` | no assignment by a candidate after the first one of its successor |
//! | `ephemeral` | candidates, workers, attending clients and what is seen of running tasks end with their sessions, and nothing else does |
//! | `foreign` | candidates, workers and attending clients go by their own sessions, or with their job; the roots never; what nobody sets is not set |
//! | `one-holder` | no task is in the lists of two live workers at once, at the version it has, nor twice in one |
//! | `misfit` | a worker is given only what it has the kind and the tags for |
//! | `too-soon` | nothing is assigned that is dead, in backoff or delayed, or whose job waits for another |
//! | `payload` | a payload comes and goes with its task, and nobody overwrites it |
//! | `record` | of a job's and a worker's record nothing changes but what may, and nothing that was said is taken back |
//! | `submitter` | before its job is sealed, a task is submitted, an outcome removed and the job closed by who opened or attends it |
//! | `sealed` | a sealed job gets no more tasks, and its record counts those that it got |
//! | `leftovers` | a job is closed with nothing left in it, and never opened again |
//! | `unmarked` | a task that ends without success marks its job; only a withdrawn job's tasks are aborted |
//! | `after` | a job is released from one before it only when that has ended, every task of it done |
//! | `key` | of the jobs with one key, one at most has not ended |
//! | `settled` | no task waits or runs at the end; only where that is demanded |
//!
//! | file | whose rules it holds |
//! |---|---|
//! | `author` | the leader's right, and every guard |
//! | `owners` | the table of the tree: what is ephemeral, whose it is |
//! | `assignments` | the workers' lists |
//! | `tasks` | tasks, payloads, outcomes |
//! | `jobs` | jobs' records and what they say of their tasks |
//!
//! Nothing is judged below a chroot where no herd was ever made: the four roots must have been created there.

mod assignments;
mod author;
mod jobs;
mod owners;
mod place;
mod tasks;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use tree::{Assignment, DATA, JobId, ROOTS, TaskId, TaskState};

use self::author::Author;
use self::jobs::Job;
use self::place::Place;
use self::tasks::Gone;
use super::Ending;
use super::log::{History, Record};
use super::replay::{Effect, Tree};
use super::timeline::Timeline;
use super::txn::{Body, NO_NODE, Op};
use super::verdict::{Figures, Verdict, Violation, judgement};

/// How many of the herds in a log are named, where the one asked for is not.
const HERDS_NAMED: usize = 20;

/// The state of an audit.
#[derive(Debug, Default)]
pub struct Rules {
    tree: Tree,
    chroot: String,
    figures: Figures,
    violations: Vec<Violation>,
    timeline: Timeline,
    /// Below which paths which roots were created, chroot or not.
    herds: BTreeMap<String, BTreeSet<&'static str>>,
    /// Ids that were used; none is used twice.
    tasks_seen: HashSet<TaskId>,
    /// Of these, those that have not ended, and which record submitted them.
    open: BTreeMap<TaskId, usize>,
    /// Jobs that were ever opened; none is opened twice.
    jobs: HashMap<JobId, Job>,
    /// The jobs that were opened under each key, and are there.
    keyed: HashMap<String, BTreeSet<JobId>>,
    /// Each live worker's list.
    lists: BTreeMap<String, BTreeSet<Assignment>>,
    holders: HashMap<Assignment, BTreeSet<String>>,
    /// What was in the list of a worker when that was lost, until it ends.
    lost: HashSet<Assignment>,
    fenced_ms: Vec<i64>,
    /// Candidates by number, each with its owner.
    candidates: BTreeSet<(u32, String, i64)>,
    /// Sessions that are or were candidates or workers.
    members: HashSet<i64>,
    /// Sessions that opened or attended a job.
    clients: HashSet<i64>,
    /// Candidates that have led, by the sessions that own or owned them.
    led: HashMap<i64, String>,
}

/// A transaction's author and effects, gathered before it is judged as a whole.
#[derive(Debug, Default)]
struct Step {
    author: Author,
    /// The workers whose lists it sets.
    lists_set: Vec<String>,
    /// The entries that are new in a list.
    assigned: Vec<Assignment>,
    tasks_created: BTreeSet<TaskId>,
    tasks_deleted: BTreeMap<TaskId, Gone>,
    payloads_created: BTreeSet<TaskId>,
    data_deleted: BTreeMap<TaskId, i32>,
    outcomes: BTreeMap<TaskId, (i32, Vec<u8>)>,
    /// What it does that only the leader may, who checks its candidate first.
    needs_candidate: Option<String>,
    /// What it does that only a worker may, which checks its own znode first.
    needs_worker: Option<String>,
}

impl Rules {
    /// For a herd below `chroot`, a path or `""`.
    pub fn new(chroot: &str) -> Self {
        let chroot = chroot.trim_end_matches('/').to_owned();
        Rules { tree: Tree::new(&chroot), chroot, ..Rules::default() }
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
        self.look_for_herds(record);
        let mut step = Step { author: self.author(&record.txn), ..Step::default() };
        let effects = self.tree.apply(&record.txn).into_iter();
        let mut effects: Vec<(Place, Effect)> = effects.map(|effect| (Place::of(effect.path()), effect)).collect();
        // Lists last: who may end a task is who had it before the transaction.
        effects.sort_by_key(|(place, _)| matches!(place, Place::Worker(_)));
        for (place, effect) in &effects {
            self.note(place, effect, &mut step, record);
        }
        self.judge_tasks(&mut step, record);
        self.one_holder(&step, record);
        self.assignments_are_the_leaders(&mut step, record);
        self.is_guarded(&mut step, &effects, record);
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

    fn look_for_herds(&mut self, record: &Record) {
        for op in record.txn.applied() {
            if let Op::Create { path, .. } = op
                && let Some((root, chroot)) = ROOTS.iter().find_map(|root| Some((*root, path.strip_suffix(root)?)))
            {
                self.herds.entry(chroot.to_owned()).or_default().insert(root);
            }
        }
    }

    fn note(&mut self, place: &Place, effect: &Effect, step: &mut Step, record: &Record) {
        let (path, now, session) = (effect.path(), record.txn.time_ms, record.txn.session);
        if let Effect::Created(path) = effect {
            self.ends_as_it_should(place, path, record);
        }
        self.is_ones_own(place, effect, step, record);
        if let Place::Candidate | Place::Worker(_) | Place::Job(_) = place {
            match effect {
                Effect::Created(_) => self.timeline.born(path, now),
                Effect::Deleted(..) => self.timeline.gone(path, now),
                Effect::Set(..) => {}
            }
        }
        if let Effect::Created(_) = effect {
            match place {
                Place::Candidate | Place::Worker(_) => drop(self.members.insert(session)),
                Place::Job(_) | Place::Task(_) | Place::Client(_) => drop(self.clients.insert(session)),
                _ => {}
            }
        }
        match place {
            Place::Candidate => self.candidate_changed(effect, record),
            Place::Worker(name) => {
                if let Effect::Set(..) = effect {
                    step.lists_set.push(name.clone());
                }
                self.worker_changed(name, effect, step, record);
            }
            Place::Job(job) => self.job_changed(job, effect, step, record),
            Place::Task(task) => self.task_changed(task, effect, step, record),
            Place::Client(job) => {
                if let (Effect::Created(_), Some(job)) = (effect, self.jobs.get_mut(job)) {
                    job.submitters.insert(session);
                }
            }
            Place::Payload(task) => match effect {
                Effect::Created(_) => drop(step.payloads_created.insert(task.clone())),
                Effect::Set(..) => {
                    let node = self.tree.get(path);
                    let (version, data) = node.map_or((0, Vec::new()), |node| (node.version, node.data.clone()));
                    step.outcomes.insert(task.clone(), (version, data));
                }
                Effect::Deleted(_, node) => drop(step.data_deleted.insert(task.clone(), node.version)),
            },
            Place::Stored(job) => {
                if let (Effect::Deleted(..), Some(_)) = (effect, self.tree.get(&job.path())) {
                    self.broken("leftovers", format!("{path} was deleted, but job {job} is left"), record);
                }
            }
            Place::Root | Place::Live | Place::Point(_) | Place::Hold | Place::Key | Place::Other => {}
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
        self.judge_the_end(history, ending);
        self.timeline.end(history.records.last().map_or(0, |record| record.txn.time_ms));
        self.figures.elections = self.timeline.elections;
        self.figures.uncommitted = history.uncommitted;
        self.figures.torn = history.torn;
        let mut doubts = history.gaps.clone();
        if let Some(first) = self.tree.contradictions.first() {
            let count = self.tree.contradictions.len();
            doubts.push(format!(
                "ZooKeeper lost transactions that it had committed: {count} later ones contradict them, first {first}"
            ));
        }
        if let Some(doubt) = self.lacks_its_herd() {
            doubts.push(doubt);
            self.violations.clear();
        }
        Verdict {
            verdict: judgement(&self.violations, &doubts),
            violations: self.violations,
            doubts,
            figures: self.figures,
            leaders: self.timeline.leaders,
            spans: self.timeline.spans,
            lives: self.timeline.lives,
            fenced_ms: self.fenced_ms,
        }
    }

    /// Looks at what is left at the end of the log.
    fn judge_the_end(&mut self, history: &History, ending: Ending) {
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
    }

    /// Why nothing can be said at all: no herd was ever made there. Those that were are named.
    fn lacks_its_herd(&self) -> Option<String> {
        let herds = self.herds.iter().filter(|(_, roots)| roots.len() == ROOTS.len()).map(|(chroot, _)| chroot);
        let herds: Vec<&str> = herds.map(|chroot| if chroot.is_empty() { "/" } else { chroot }).collect();
        let asked = if self.chroot.is_empty() { "/" } else { &self.chroot };
        if herds.contains(&asked) {
            return None;
        }
        let more = herds.len().saturating_sub(HERDS_NAMED);
        let named = herds[..herds.len() - more].join(", ");
        Some(match (herds.len(), more) {
            (0, _) => format!("the log holds no herd, at {asked} or anywhere else"),
            (_, 0) => format!("the log holds no herd at {asked}; there are herds at {named}"),
            _ => format!("the log holds no herd at {asked}; there are herds at {named}, and {more} more"),
        })
    }
}
