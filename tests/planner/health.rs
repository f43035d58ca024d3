//! Workers whose attempts fail at once, against those that could do the tasks.

use std::collections::BTreeMap;
use std::time::Duration;

use herdsman::decide::assign::plan;
use herdsman::decide::ledger::Ledger;
use tree::{Assignment, JobRecord, TaskState, WorkerId, WorkerRecord};

use super::{job, record, runs, submit, worker};

const STEP: Duration = Duration::from_millis(1);

/// A herd in which every step takes a millisecond.
struct Herd {
    ledger: Ledger,
    now: Duration,
    /// How long each worker takes for a task, and whether it fails.
    workers: BTreeMap<WorkerId, (Duration, bool)>,
    begun: BTreeMap<(WorkerId, String), Duration>,
    ended: BTreeMap<WorkerId, usize>,
}

impl Herd {
    fn new(record: &JobRecord, tasks: u32) -> Self {
        let mut ledger = Ledger::default();
        submit(&mut ledger, "j", 1, record, tasks);
        let (workers, begun, ended) = Default::default();
        Herd { ledger, now: Duration::ZERO, workers, begun, ended }
    }

    fn join(&mut self, name: &str, record: &WorkerRecord, takes_ms: u64, fails: bool) {
        self.ledger.worker_is(&worker(name), record);
        self.workers.insert(worker(name), (Duration::from_millis(takes_ms), fails));
    }

    /// One step; how many tasks have ended by now.
    fn step(&mut self) -> usize {
        self.now += STEP;
        self.ledger.passes(self.now);
        let ready = |begun: &Duration, takes: Duration| self.now >= *begun + takes;
        let over: Vec<_> = self
            .begun
            .iter()
            .filter(|((id, _), begun)| ready(begun, self.workers[id].0))
            .map(|(k, _)| k.clone())
            .collect();
        for (id, task) in over {
            self.begun.remove(&(id.clone(), task.clone()));
            let assignment: Assignment = task.parse().expect("an entry");
            let quick = self.ledger.quick(&assignment.task);
            self.ledger.task_gone(&assignment.task);
            if let Some(quick) = quick {
                self.ledger.quick_was(&quick, self.workers[&id].1);
            }
            *self.ended.entry(id).or_default() += 1;
        }
        for (id, record) in plan(&mut self.ledger).lists {
            self.ledger.list_written(&id);
            for task in record.assigned {
                self.begun.entry((id.clone(), task)).or_insert(self.now);
            }
        }
        self.ended.values().sum()
    }

    /// Until so many tasks have ended: how many milliseconds that takes.
    fn until(&mut self, tasks: usize) -> u128 {
        let began = self.now;
        while self.step() < tasks {
            assert!(self.now - began < Duration::from_secs(600), "only {:?}", self.ended);
        }
        (self.now - began).as_millis()
    }

    fn ended_by(&self, name: &str) -> usize {
        self.ended.get(&worker(name)).copied().unwrap_or_default()
    }
}

fn marked() -> JobRecord {
    record(|record| record.failed = true)
}

#[test]
fn one_whose_attempts_fail_at_once_draws_only_a_few_from_one_that_can_do_them() {
    let mut herd = Herd::new(&marked(), 200);
    herd.join("bad", &runs(4, &["k"]), 1, true);
    herd.join("good", &runs(4, &["k"]), 300, false);
    let took = herd.until(200);
    assert!(herd.ended_by("bad") <= 20, "{:?}", herd.ended);
    assert!(took < 15_500, "{took} ms, and the good one alone takes 15,000");
}

#[test]
fn a_bad_job_fails_as_fast_as_it_can_on_one_worker_and_on_many() {
    for workers in [1, 2, 5] {
        let mut herd = Herd::new(&marked(), 1_000);
        (0..workers).for_each(|n| herd.join(&format!("w{n}"), &runs(4, &["k"]), 1, true));
        // One that could not run it, or that stops, says nothing about it.
        herd.join("other", &runs(4, &["other"]), 1, false);
        let took = herd.until(1_000);
        assert!(took < 1_000 / (4 * workers) + 300, "{took} ms with {workers}");
    }
}

#[test]
fn one_that_is_mended_is_trusted_again_with_its_first_success_and_is_never_starved() {
    let mut herd = Herd::new(&marked(), 100_000);
    herd.join("bad", &runs(4, &["k"]), 1, true);
    herd.join("good", &runs(4, &["k"]), 10, false);
    let given = |herd: &mut Herd, seconds: u64| {
        let (before, until) = (herd.ended_by("bad"), herd.now + Duration::from_secs(seconds));
        while herd.now < until {
            herd.step();
        }
        herd.ended_by("bad") - before
    };
    given(&mut herd, 30);
    let tried = given(&mut herd, 60);
    assert!((3..=8).contains(&tried), "once in ten seconds at most: {tried}");
    herd.workers.insert(worker("bad"), (Duration::from_millis(10), false));
    given(&mut herd, 11);
    assert!(given(&mut herd, 1) > 300, "as many as the other");
}

#[test]
fn one_that_is_at_a_task_for_a_while_is_given_more() {
    let mut herd = Herd::new(&marked(), 40);
    herd.join("bad", &runs(4, &["k"]), 1, true);
    herd.join("good", &runs(4, &["k"]), 100_000, false);
    while herd.ended_by("bad") < 8 {
        herd.step();
    }
    herd.workers.insert(worker("bad"), (Duration::from_secs(100), false));
    let until = herd.now + Duration::from_secs(12);
    while herd.now < until {
        herd.step();
    }
    assert_eq!(herd.ledger.load(&worker("bad")), Some((4, 4)), "its slots are not kept idle while it runs");
}

#[test]
fn attempts_that_a_task_survives_are_counted_too_and_where_it_is_handed_back_they_are_not() {
    let mut ledger = Ledger::default();
    let retried = record(|record| record.policy.max_attempts = 1_000);
    submit(&mut ledger, "j", 1, &retried, 100);
    ledger.worker_is(&worker("bad"), &runs(1, &["k"]));
    ledger.worker_is(&worker("good"), &runs(1, &["k"]));
    let (mut given, mut version) = (0, BTreeMap::<u32, (i32, TaskState)>::new());
    for _ in 0..50 {
        let lists = plan(&mut ledger).lists;
        for (id, record) in lists.into_iter().filter(|(id, _)| *id == worker("bad")) {
            let entry: Assignment = record.assigned[0].parse().expect("an entry");
            let (at, state) = version.entry(entry.task.n).or_default();
            (*at, *state) = (*at + 1, state.attempted(id.as_str(), "no such program"));
            state.failures += 1;
            ledger.task_is(&entry.task, *at, state);
            given += 1;
        }
    }
    assert_eq!(given, 5, "in no time");
    ledger.passes(Duration::from_millis(150));
    assert!(plan(&mut ledger).lists.iter().any(|(id, _)| *id == worker("bad")), "one, after a pause");
    assert!(ledger.is_ailing(&worker("bad")) && !ledger.is_ailing(&worker("good")));
    // It stops, and says so by handing a task back: that is no failure.
    ledger.worker_is(&worker("tired"), &runs(1, &["k"]));
    let lists = plan(&mut ledger).lists;
    let (_, tired) = lists.iter().find(|(id, _)| *id == worker("tired")).expect("it is given one");
    let entry: Assignment = tired.assigned[0].parse().expect("an entry");
    let back = TaskState { returned_by: Some("tired".to_owned()), ..TaskState::default() };
    ledger.task_is(&job("j").task(entry.task.n), entry.version + 1, &back);
    assert!(!ledger.is_ailing(&worker("tired")));
}
