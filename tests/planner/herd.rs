//! Whatever happens to a herd, in whatever order, also between a plan and its writing: what must always hold.
//!
//! Two masters keep a ledger each: one leads, one stands by. The tree is a model; each event changes it, and the masters
//! hear of that, or find out when a write is refused.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use herdsman::decide::assign::{Plan, plan, rebalance, take_back, tidy};
use herdsman::decide::ledger::{Counts, Ledger, Needs};
use proptest::prelude::*;
use tree::{Assignment, JobId, JobRecord, OutcomeStatus, Policy, TaskId, TaskState, Withdrawn, WorkerId, WorkerRecord};

type Checked = Result<(), TestCaseError>;

/// For how long nothing is assigned again after a mass loss, and the longest backoff.
const CALM_MS: i64 = 5;

/// What can happen, from the leader's point of view. Jobs, tasks and workers are named by small numbers; what names none that
/// there is does nothing.
#[derive(Debug, Clone)]
enum Event {
    /// A job, created in the transaction of the one before it or not.
    Job {
        j: u8,
        policy: Policy,
        with_the_last: bool,
        after: Option<u8>,
    },
    Submit(u8, u8),
    /// Completed, or cancelled.
    End(u8, u8),
    /// An attempt has failed; wait so long.
    Fail(u8, u8, i64),
    Retry(u8, u8),
    Release(u8),
    Withdraw(u8),
    CloseJob(u8),
    Join(u8, u32),
    /// It stops: hands back what it has, and whatever it is given.
    Stop(u8),
    /// It cannot begin what it has first: hands that back, and is to be given nothing for so long.
    Lack(u8, u64),
    /// It is lost, with many others or not; or it had stopped, and leaves.
    Leave(u8, bool),
    Window(u8, usize),
    Tick(i64),
    /// Everything is listed again, and nothing new is in it.
    Reconcile,
    /// The master that stands by reads the lists.
    Look,
    /// It leads from now on; and with the leader a worker may be lost.
    TakeOver(Option<u8>),
    /// A master leads that has seen nothing yet.
    Fresh,
}

/// What the leader learns of its write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Known,
    /// Nothing: it was applied, or not.
    Unknown {
        applied: bool,
    },
}

/// One event, what the leader does then, and what happens between its plan and its write.
#[derive(Debug, Clone)]
struct Step {
    event: Event,
    between: Vec<Event>,
    answer: Answer,
}

fn policy() -> impl Strategy<Value = Policy> {
    (0..4u32, -1..2i32, proptest::bool::weighted(0.2), proptest::option::weighted(0.1, 0..40i64)).prop_map(
        |(crash_limit, priority, tagged, not_before_ms)| Policy {
            crash_limit,
            priority,
            require: tagged.then(|| "t".to_owned()).into_iter().collect(),
            not_before_ms,
            ..Policy::default()
        },
    )
}

fn event() -> impl Strategy<Value = Event> {
    let (j, n, w) = (0..4u8, 0..12u8, 0..5u8);
    prop_oneof![
        3 => (j.clone(), policy(), any::<bool>(), proptest::option::weighted(0.1, j.clone()))
            .prop_map(|(j, policy, with_the_last, after)| Event::Job { j, policy, with_the_last, after }),
        14 => (j.clone(), n.clone()).prop_map(|(j, n)| Event::Submit(j, n)),
        6 => (j.clone(), n.clone()).prop_map(|(j, n)| Event::End(j, n)),
        2 => (j.clone(), n.clone(), 0..CALM_MS).prop_map(|(j, n, wait)| Event::Fail(j, n, wait)),
        1 => (j.clone(), n.clone()).prop_map(|(j, n)| Event::Retry(j, n)),
        1 => j.clone().prop_map(Event::Release),
        1 => j.clone().prop_map(Event::Withdraw),
        1 => j.prop_map(Event::CloseJob),
        6 => (w.clone(), 1..4u32).prop_map(|(w, slots)| Event::Join(w, slots)),
        1 => w.clone().prop_map(Event::Stop),
        1 => (w.clone(), 0..2 * CALM_MS as u64).prop_map(|(w, ms)| Event::Lack(w, ms)),
        4 => (w.clone(), proptest::bool::weighted(0.2)).prop_map(|(w, storm)| Event::Leave(w, storm)),
        3 => (w.clone(), 0..9usize).prop_map(|(w, window)| Event::Window(w, window)),
        2 => (1..CALM_MS).prop_map(Event::Tick),
        1 => Just(Event::Reconcile),
        2 => Just(Event::Look),
        1 => proptest::option::of(w).prop_map(Event::TakeOver),
        1 => Just(Event::Fresh),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let answer = prop_oneof![
        8 => Just(Answer::Known),
        1 => any::<bool>().prop_map(|applied| Answer::Unknown { applied }),
    ];
    let between = prop_oneof![3 => Just(Vec::new()), 2 => proptest::collection::vec(event(), 1..3)];
    (event(), between, answer).prop_map(|(event, between, answer)| Step { event, between, answer })
}

/// Something that the masters are to hear of.
#[derive(Debug, Clone)]
enum News {
    Job(JobId),
    Task(TaskId),
    Worker(WorkerId),
}

#[derive(Debug, Default)]
struct Herd {
    now_ms: i64,
    zxid: i64,
    jobs: BTreeMap<JobId, (i64, JobRecord)>,
    tasks: BTreeMap<TaskId, (i32, TaskState)>,
    workers: BTreeMap<WorkerId, WorkerRecord>,
    job_names: BTreeMap<u8, JobId>,
    worker_names: BTreeMap<u8, WorkerId>,
    stopping: BTreeSet<WorkerId>,
    /// Workers that went together with many others.
    storms: BTreeSet<WorkerId>,
    /// Ids that were used; none is used twice.
    used: BTreeSet<TaskId>,
    /// Which worker has ever had what in its list.
    listed: BTreeSet<(WorkerId, Assignment)>,
    /// What the leader knows to be in a list, and what the other one has read.
    known: BTreeSet<Assignment>,
    looked: BTreeSet<Assignment>,
    /// What was in the list of a worker when it was lost, and its leader or the next one knew.
    lost: BTreeSet<Assignment>,
    news: Vec<News>,
    leader: Ledger,
    backup: Ledger,
}

impl Herd {
    fn task(&self, j: u8, n: u8) -> Option<TaskId> {
        Some(self.job_names.get(&j)?.task(u32::from(n)))
    }

    /// What is in a worker's list and has not ended.
    fn live(&self, id: &WorkerId) -> Vec<Assignment> {
        let all = self.workers.get(id).map(|record| record.assignments().0).unwrap_or_default();
        all.into_iter().filter(|entry| self.is_live(entry)).collect()
    }

    fn is_live(&self, entry: &Assignment) -> bool {
        self.tasks.get(&entry.task).is_some_and(|(version, _)| *version == entry.version)
    }

    fn set(&mut self, task: TaskId, change: impl FnOnce(&mut TaskState)) {
        if let Some((version, state)) = self.tasks.get_mut(&task) {
            *version += 1;
            change(state);
            self.news.push(News::Task(task));
        }
    }

    fn change_job(&mut self, j: u8, change: impl FnOnce(&mut JobRecord)) {
        let Some(id) = self.job_names.get(&j).cloned() else { return };
        if let Some((_, record)) = self.jobs.get_mut(&id) {
            change(record);
            self.news.push(News::Job(id));
        }
    }

    /// Something happens to the tree; nobody has heard of it yet.
    fn happen(&mut self, event: &Event) {
        match event {
            Event::Job { j, policy, with_the_last, after } => {
                if self.job_names.contains_key(j) {
                    return;
                }
                self.zxid += i64::from(!with_the_last);
                let id: JobId = format!("job{j}-{}", self.used.len() + self.jobs.len()).parse().expect("an id");
                if self.jobs.contains_key(&id) || self.used.iter().any(|task| task.job == id) {
                    return;
                }
                let mut record = JobRecord::new(if *j == 3 { "rare" } else { "k" }, vec![], policy.clone());
                record.after = after.iter().filter_map(|before| self.job_names.get(before).cloned()).collect();
                self.jobs.insert(id.clone(), (self.zxid, record));
                self.job_names.insert(*j, id.clone());
                self.news.push(News::Job(id));
            }
            Event::Submit(j, n) => {
                let Some(task) = self.task(*j, *n) else { return };
                if self.used.insert(task.clone()) {
                    self.tasks.insert(task.clone(), (0, TaskState::default()));
                    self.news.push(News::Task(task));
                }
            }
            Event::End(j, n) => {
                let Some(task) = self.task(*j, *n) else { return };
                if self.tasks.remove(&task).is_some() {
                    self.news.extend([News::Task(task.clone()), News::Task(task)]); // events come twice
                }
            }
            Event::Fail(j, n, wait) => {
                let Some(task) = self.task(*j, *n) else { return };
                let at = (*wait > 0).then_some(self.now_ms + wait);
                self.set(task, |state| *state = TaskState { not_before_ms: at, ..state.attempted("w", "failed") });
            }
            Event::Retry(j, n) => {
                let Some(task) = self.task(*j, *n) else { return };
                if self.tasks.get(&task).is_some_and(|(_, state)| state.dead) {
                    self.set(task, |state| *state = state.revived());
                }
            }
            Event::Release(j) => self.change_job(*j, |record| record.after.clear()),
            Event::Withdraw(j) => self.change_job(*j, |record| {
                record.withdrawn = Some(Withdrawn { status: OutcomeStatus::Aborted, reason: "told to".to_owned() });
            }),
            Event::CloseJob(j) => {
                let Some(id) = self.job_names.remove(j) else { return };
                self.jobs.remove(&id);
                self.tasks.retain(|task, _| task.job != id);
                self.news.push(News::Job(id));
            }
            Event::Join(w, slots) => {
                if self.worker_names.contains_key(w) {
                    return;
                }
                self.zxid += 1;
                let id: WorkerId = format!("w{w}-{}", self.zxid).parse().expect("an id");
                let kinds: &[&str] = if *w == 4 { &["k", "rare"] } else { &["k"] };
                let mut record = WorkerRecord::new(*slots, kinds.iter().map(|kind| (*kind).to_owned()).collect());
                record.tags = (*w >= 3).then(|| "t".to_owned()).into_iter().collect();
                self.workers.insert(id.clone(), record);
                self.worker_names.insert(*w, id.clone());
                self.news.push(News::Worker(id));
            }
            Event::Stop(w) => {
                if let Some(id) = self.worker_names.get(w).cloned() {
                    self.stopping.insert(id);
                    self.hand_back();
                }
            }
            Event::Lack(w, ms) => {
                let Some(id) = self.worker_names.get(w).cloned() else { return };
                if let Some(entry) = self.live(&id).into_iter().next() {
                    let pause = Duration::from_millis(*ms);
                    self.set(entry.task, |state| *state = state.returned(Some(id.as_str()), Some(pause)));
                }
            }
            Event::Leave(w, storm) => {
                self.hand_back();
                let Some(id) = self.worker_names.remove(w) else { return };
                let live = self.live(&id);
                self.lost.extend(live.into_iter().filter(|entry| self.known.contains(entry)));
                self.workers.remove(&id);
                if *storm {
                    self.storms.insert(id.clone());
                }
                self.news.push(News::Worker(id));
            }
            Event::Window(..) | Event::Tick(_) | Event::Reconcile | Event::Look => {}
            Event::TakeOver(_) | Event::Fresh => {}
        }
    }

    /// Workers that stop hand back whatever they have.
    fn hand_back(&mut self) {
        for id in self.stopping.clone() {
            for entry in self.live(&id) {
                self.set(entry.task, |state| *state = state.returned(Some(id.as_str()), None));
            }
        }
    }

    /// What happens to the masters.
    fn happen_to_masters(&mut self, event: &Event) {
        match event {
            Event::Window(w, window) => {
                if let Some(id) = self.worker_names.get(w) {
                    self.leader.set_window(id, *window);
                }
            }
            Event::Tick(ms) => {
                self.now_ms += ms;
                self.leader.wake(self.now_ms);
                self.backup.wake(self.now_ms);
            }
            Event::Reconcile => {
                let (jobs, tasks, workers) = self.everything();
                let known: Vec<_> = tasks.into_iter().map(|(task, _)| (task, None)).collect();
                for master in [&mut self.leader, &mut self.backup] {
                    master.tasks_are(&jobs, &known, &[]);
                    master.workers_are(&workers, false);
                }
            }
            Event::Look => {
                for (id, record) in &self.workers {
                    self.backup.list_is(id, record);
                }
                self.looked = self.workers.values().flat_map(|record| record.assignments().0).collect();
            }
            Event::TakeOver(w) => {
                self.known = std::mem::take(&mut self.looked);
                std::mem::swap(&mut self.leader, &mut self.backup);
                if let Some(w) = w {
                    self.happen(&Event::Leave(*w, false));
                    self.tell();
                }
                self.refresh();
            }
            Event::Fresh => {
                self.backup = std::mem::take(&mut self.leader);
                self.leader.wake(self.now_ms);
                self.looked.clear();
                self.refresh();
            }
            _ => {}
        }
    }

    /// The masters hear of what has happened.
    fn tell(&mut self) {
        for news in std::mem::take(&mut self.news) {
            for master in [&mut self.leader, &mut self.backup] {
                match &news {
                    News::Job(id) => match self.jobs.get(id) {
                        Some((czxid, record)) => master.job_is(id, *czxid, Some(record)),
                        None => master.job_gone(id),
                    },
                    News::Task(id) => match self.tasks.get(id) {
                        Some((version, state)) => drop(master.task_is(id, *version, state)),
                        None => drop(master.task_gone(id)),
                    },
                    News::Worker(id) => match self.workers.get(id) {
                        Some(record) => master.worker_is(id, record),
                        None => {
                            master.worker_gone(id, self.storms.contains(id).then_some(self.now_ms + CALM_MS));
                        }
                    },
                }
            }
        }
    }

    #[expect(clippy::type_complexity)]
    fn everything(
        &self,
    ) -> (Vec<(JobId, i64, Option<JobRecord>)>, Vec<(TaskId, Option<(i32, TaskState)>)>, Vec<(WorkerId, WorkerRecord)>)
    {
        let jobs = self.jobs.iter().map(|(id, (czxid, record))| (id.clone(), *czxid, Some(record.clone())));
        let tasks = self.tasks.iter().map(|(id, now)| (id.clone(), Some(now.clone())));
        let workers = self.workers.iter().map(|(id, record)| (id.clone(), record.clone()));
        (jobs.collect(), tasks.collect(), workers.collect())
    }

    /// The leader reads the tree anew.
    fn refresh(&mut self) {
        let (jobs, tasks, workers) = self.everything();
        self.leader.tasks_are(&jobs, &tasks, &[]);
        let gone: Vec<WorkerId> = self.leader.workers().filter(|id| !self.workers.contains_key(*id)).cloned().collect();
        for id in gone {
            self.leader.worker_gone(&id, self.storms.contains(&id).then_some(self.now_ms + CALM_MS));
        }
        self.leader.workers_are(&workers, true);
        self.known = self.workers.values().flat_map(|record| record.assignments().0).collect();
    }

    /// A list is in the tree.
    fn list_is(&mut self, id: &WorkerId, record: &WorkerRecord) {
        self.workers.insert(id.clone(), record.clone());
        self.listed.extend(record.assignments().0.into_iter().map(|entry| (id.clone(), entry)));
    }

    fn list_is_known(&mut self, id: &WorkerId, record: &WorkerRecord) {
        self.leader.list_written(id);
        self.known.extend(record.assignments().0);
    }

    /// One attempt is ended in the tree: it must have been in the list of the worker that is blamed.
    fn end_attempt(&mut self, task: &TaskId, version: i32, state: &TaskState) -> Checked {
        let blamed: WorkerId = state.last().expect("an attempt").worker.parse().expect("an id");
        let entry = Assignment { task: task.clone(), version };
        prop_assert!(self.listed.contains(&(blamed, entry)), "{task} was never in the list of who was lost: {state:?}");
        self.tasks.insert(task.clone(), (version + 1, state.clone()));
        Ok(())
    }

    /// Plans and writes; whether there was anything to do.
    fn act(&mut self, between: &[Event], answer: Answer) -> Result<bool, TestCaseError> {
        let mut next = plan(&mut self.leader);
        if next.is_empty() {
            let crowded: Vec<WorkerId> = self.leader.crowded().cloned().collect();
            next = rebalance(&mut self.leader, &crowded);
        }
        if next.is_empty() {
            next = tidy(&mut self.leader);
        }
        between.iter().for_each(|event| self.happen(event));
        let acted = !next.is_empty();
        let known = if next.moved.is_empty() { self.write(next, answer)? } else { self.write_moves(next, answer)? };
        self.one_holder()?;
        self.hand_back();
        self.tell();
        if !known {
            self.refresh();
        }
        Ok(acted)
    }

    /// As one multi after another; what is refused is taken out. Whether the leader knows what was applied.
    fn write(&mut self, next: Plan, answer: Answer) -> Result<bool, TestCaseError> {
        let apply = answer != Answer::Unknown { applied: false };
        let mut applied = Vec::new();
        for (task, ended) in &next.interrupted {
            if !self.is_live(&Assignment { task: task.clone(), version: ended.version }) {
                self.leader.not_interrupted(task);
            } else if apply {
                self.end_attempt(task, ended.version, &ended.state)?;
                applied.push((task, ended));
            }
        }
        for (id, record) in &next.lists {
            if !self.workers.contains_key(id) {
                self.leader.worker_gone(id, None);
            } else if apply {
                self.list_is(id, record);
            }
        }
        if answer != Answer::Known {
            return Ok(false);
        }
        for (id, record) in &next.lists {
            if self.workers.contains_key(id) {
                self.list_is_known(id, record);
            }
        }
        for (task, ended) in applied {
            self.leader.task_is(task, ended.version + 1, &ended.state);
            self.news.push(News::Task(task.clone()));
        }
        Ok(true)
    }

    /// As one multi, or not at all.
    fn write_moves(&mut self, next: Plan, answer: Answer) -> Result<bool, TestCaseError> {
        let ended = next
            .moved
            .iter()
            .any(|moved| !self.is_live(&Assignment { task: moved.task.clone(), version: moved.version }));
        let gone = next.lists.iter().map(|(id, _)| id).find(|id| !self.workers.contains_key(*id));
        if ended || gone.is_some() || answer == (Answer::Unknown { applied: false }) {
            take_back(&mut self.leader, next.moved);
            if let Some(id) = gone.filter(|_| !ended) {
                self.leader.worker_gone(id, None);
            }
            return Ok(answer == Answer::Known);
        }
        for moved in &next.moved {
            let (version, state) = self.tasks.get_mut(&moved.task).expect("live");
            prop_assert_eq!(&*state, &moved.state, "its data is unchanged");
            *version += 1;
            self.news.push(News::Task(moved.task.clone()));
        }
        for (id, record) in &next.lists {
            self.list_is(id, record);
        }
        if answer != Answer::Known {
            take_back(&mut self.leader, next.moved);
            return Ok(false);
        }
        for (id, record) in &next.lists {
            self.list_is_known(id, record);
        }
        for moved in next.moved {
            self.leader.task_is(&moved.task, moved.version + 1, &moved.state);
        }
        Ok(true)
    }

    /// No assignment that has not ended is in two lists, and none with a worker that may not have it; nor is one taken from
    /// a living worker that could still end it.
    fn one_holder(&self) -> Result<BTreeMap<TaskId, WorkerId>, TestCaseError> {
        let mut held = BTreeMap::new();
        for (id, record) in &self.workers {
            for entry in self.live(id) {
                let needs = Needs::of(&self.jobs[&entry.task.job].1);
                prop_assert!(needs.met_by(record), "{entry} is with {id}");
                let other = held.insert(entry.task.clone(), id.clone());
                prop_assert_eq!(other, None, "{} is in two lists, one of them of {}", entry, id);
            }
        }
        for (id, entry) in self.listed.iter().filter(|(id, entry)| self.workers.contains_key(id) && self.is_live(entry))
        {
            prop_assert_eq!(held.get(&entry.task), Some(id), "{} was taken from {}, which can still end it", entry, id);
        }
        Ok(held)
    }

    /// What holds when everybody has heard of everything and there is nothing left to write.
    fn check(&mut self) -> Checked {
        let held = self.one_holder()?;
        // The ledger agrees with the tree, and so would one that read it anew.
        let counts = self.leader.counts();
        let dead = self.tasks.values().filter(|(_, state)| state.dead).count();
        let want = Counts { waiting: self.tasks.len() - held.len() - dead, assigned: held.len(), dead };
        prop_assert_eq!(counts, want);
        let mut anew = Ledger::default();
        anew.wake(self.now_ms);
        let (jobs, tasks, workers) = self.everything();
        anew.tasks_are(&jobs, &tasks, &[]);
        anew.workers_are(&workers, true);
        prop_assert_eq!(anew.counts(), counts, "as read anew");
        // What was lost with a worker is not begun again as if it never had been.
        for entry in std::mem::take(&mut self.lost) {
            prop_assert!(!self.is_live(&entry), "{entry} was lost with its worker, and nobody has ended the attempt");
        }
        // Whoever waits, waits for a slot, a moment, or another job.
        let waiting: Vec<(&TaskId, &TaskState)> = self.tasks.iter().map(|(task, (_, state))| (task, state)).collect();
        let waiting =
            waiting.into_iter().filter(|(task, state)| !held.contains_key(*task) && self.is_ready(task, state));
        let waiting: Vec<(&TaskId, Life)> = waiting.map(|(task, state)| (task, self.life(task, state))).collect();
        for (id, record) in &self.workers {
            let stops = self.leader.stops(id) || self.leader.rests(id);
            let (slots, length) = self.leader.load(id).expect("known");
            prop_assert_eq!(length, self.live(id).len());
            let alone =
                self.live(id).iter().any(|entry| self.life(&entry.task, &self.tasks[&entry.task].1) == Life::Last);
            prop_assert!(!alone || length == 1, "{id} has a task on its last life, and others");
            if stops || alone || length >= slots {
                continue;
            }
            let could: Vec<_> =
                waiting.iter().filter(|(task, _)| Needs::of(&self.jobs[&task.job].1).met_by(record)).collect();
            let suspects = could.iter().any(|(_, life)| *life != Life::First);
            for (task, life) in &could {
                match life {
                    Life::First if self.leader.reserved() == Some(id) => {
                        prop_assert!(suspects, "{task} waits while {id} is idle, kept for suspects that do not wait");
                    }
                    Life::First | Life::Later => prop_assert!(false, "{task} waits while {id} is idle"),
                    Life::Last => prop_assert!(length > 0, "{task} waits while {id} has nothing at all"),
                }
            }
        }
        // Nothing is parked beyond a window that somebody idle could have, and to whom nothing else goes.
        for from in self.leader.crowded() {
            let Some(parked) = self.live(from).pop() else { continue };
            let (needs, (_, state)) = (Needs::of(&self.jobs[&parked.task.job].1), &self.tasks[&parked.task]);
            for (id, record) in self.workers.iter().filter(|(id, record)| *id != from && needs.met_by(record)) {
                let (slots, length) = self.leader.load(id).expect("known");
                let alone =
                    self.live(id).iter().any(|entry| self.life(&entry.task, &self.tasks[&entry.task].1) == Life::Last);
                let kept =
                    self.leader.stops(id) || self.leader.rests(id) || self.leader.reserved() == Some(id) || alone;
                let wanted = waiting.iter().any(|(task, _)| Needs::of(&self.jobs[&task.job].1).met_by(record));
                let stays = self.life(&parked.task, state) == Life::Last;
                prop_assert!(length >= slots || kept || wanted || stays, "{parked} is parked while {id} is idle");
            }
        }
        Ok(())
    }

    fn is_ready(&self, task: &TaskId, state: &TaskState) -> bool {
        let record = &self.jobs[&task.job].1;
        let due = state.not_before_ms.max(record.policy.not_before_ms).is_none_or(|at| at <= self.now_ms);
        due && !state.dead && record.after.is_empty() && record.withdrawn.is_none()
    }

    fn life(&self, task: &TaskId, state: &TaskState) -> Life {
        match self.jobs[&task.job].1.policy.crash_limit {
            limit if limit == 0 || state.crashes == 0 => Life::First,
            limit if state.crashes + 1 >= limit => Life::Last,
            _ => Life::Later,
        }
    }
}

/// Whether a worker was lost under a task, and whether the next one ends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    First,
    Later,
    Last,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_no_task_is_held_twice_or_blamed_wrongly_and_none_waits_for_nothing(
        steps in proptest::collection::vec(step(), 1..100)
    ) {
        let mut herd = Herd::default();
        for Step { event, between, answer } in steps {
            herd.happen(&event);
            herd.tell();
            herd.happen_to_masters(&event);
            herd.act(&between, answer)?;
            let mut rounds = 0;
            while herd.act(&[], Answer::Known)? {
                rounds += 1;
                prop_assert!(rounds < 50, "the leader comes to no end");
            }
            herd.check()?;
        }
    }
}
