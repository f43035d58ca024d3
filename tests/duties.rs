//! What a leader does for jobs beside assigning, without a server.

use herdsman::decide::ledger::Ledger;
use herdsman::decide::upkeep::{Duty, duties};
use tree::{JobId, JobRecord, OutcomeStatus, Policy, TaskState, Withdrawn, WorkerRecord};

fn job(name: &str) -> JobId {
    name.parse().expect("a job's id")
}

/// A ledger at 1,000 ms with a job `j` of two tasks, and what `change` makes of its record.
fn with(change: impl FnOnce(&mut JobRecord)) -> Ledger {
    let mut ledger = Ledger::default();
    ledger.wake(1_000);
    set(&mut ledger, "j", 2, change);
    (0..2).for_each(|n| drop(ledger.task_is(&job("j").task(n), 0, &TaskState::default())));
    ledger
}

fn set(ledger: &mut Ledger, name: &str, czxid: i64, change: impl FnOnce(&mut JobRecord)) {
    let mut record = JobRecord::new("k", vec![], Policy::default());
    record.sealed = true;
    change(&mut record);
    ledger.job_is(&job(name), czxid, Some(&record));
}

/// The one thing to do, which must be to withdraw the job: how, and why.
fn withdrawn(ledger: &Ledger) -> (OutcomeStatus, String) {
    match &duties(ledger)[..] {
        [Duty::Withdraw { job: id, withdrawn: Withdrawn { status, reason }, .. }] if *id == job("j") => {
            (*status, reason.clone())
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_ordinary_job_needs_nothing() {
    assert_eq!(duties(&with(|_| {})), []);
}

#[test]
fn a_job_past_its_deadline_is_cancelled_and_one_that_has_ended_by_then_is_not() {
    let mut ledger = with(|record| record.policy.deadline_ms = Some(1_500));
    assert_eq!(duties(&ledger), []);
    ledger.wake(1_500);
    assert_eq!(withdrawn(&ledger), (OutcomeStatus::Cancelled, "the job ran out of time".to_owned()));
    (0..2).for_each(|n| drop(ledger.task_gone(&job("j").task(n))));
    assert_eq!(duties(&ledger), []);
}

#[test]
fn a_job_past_its_deadline_whose_client_died_before_it_was_sealed_is_withdrawn_though_nothing_of_it_is_outstanding() {
    let mut ledger = with(|record| (record.sealed, record.policy.deadline_ms) = (false, Some(1_500)));
    (0..2).for_each(|n| drop(ledger.task_gone(&job("j").task(n))));
    assert_eq!(duties(&ledger), []);
    ledger.wake(1_500);
    assert_eq!(withdrawn(&ledger), (OutcomeStatus::Cancelled, "the job ran out of time".to_owned()));
}

#[test]
fn a_withdrawn_job_is_rid_of_every_task_waiting_deferred_or_dead() {
    let withdrawn = Withdrawn { status: OutcomeStatus::Cancelled, reason: "by hand".to_owned() };
    let mut ledger = with(|record| record.withdrawn = Some(withdrawn.clone()));
    ledger.task_is(&job("j").task(7), 1, &TaskState { dead: true, ..TaskState::default() });
    ledger.task_is(&job("j").task(8), 1, &TaskState { not_before_ms: Some(9_000), ..TaskState::default() });
    let [Duty::End(tasks, why)] = &duties(&ledger)[..] else { panic!("{:?}", duties(&ledger)) };
    let mut numbers: Vec<u32> = tasks.iter().map(|task| task.n).collect();
    numbers.sort_unstable();
    assert_eq!((numbers, why), (vec![0, 1, 7, 8], &withdrawn));
    tasks.iter().for_each(|task| drop(ledger.task_gone(task)));
    assert_eq!(duties(&ledger), []);
}

#[test]
fn of_many_withdrawn_jobs_some_of_each_is_ended_and_first_what_runs() {
    let withdrawn = Withdrawn { status: OutcomeStatus::Cancelled, reason: "by hand".to_owned() };
    let mut ledger = with(|_| {});
    for (czxid, name) in [(3, "large"), (4, "young")] {
        set(&mut ledger, name, czxid, |record| record.kind = name.to_owned());
        (0..3_000).for_each(|n| drop(ledger.task_is(&job(name).task(n), 0, &TaskState::default())));
    }
    let runs = WorkerRecord { assigned: vec![job("young").task(2_999).to_string()], ..WorkerRecord::new(1, vec![]) };
    ledger.worker_is(&"w".parse().expect("an id"), &runs);
    for (czxid, name) in [(2, "j"), (3, "large"), (4, "young")] {
        set(&mut ledger, name, czxid, |record| record.withdrawn = Some(withdrawn.clone()));
    }
    let ended: Vec<(usize, u32)> = duties(&ledger)
        .into_iter()
        .map(|duty| match duty {
            Duty::End(tasks, _) => (tasks.len(), tasks[0].n),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(ended, [(2, 0), (333, 0), (333, 2_999)]);
}

#[test]
fn an_attached_job_is_aborted_and_removed_when_its_client_is_gone() {
    let mut ledger = with(|record| record.policy.attached = true);
    ledger.client_is(&job("j"), "client-1", true);
    assert_eq!(duties(&ledger), []);
    ledger.client_is(&job("j"), "client-1", false);
    let (status, reason) = withdrawn(&ledger);
    assert_eq!(status, OutcomeStatus::Aborted);
    set(&mut ledger, "j", 2, |record| {
        record.policy.attached = true;
        record.withdrawn = Some(Withdrawn { status, reason });
    });
    assert!(matches!(&duties(&ledger)[..], [Duty::End(tasks, _)] if tasks.len() == 2));
    (0..2).for_each(|n| drop(ledger.task_gone(&job("j").task(n))));
    assert_eq!(duties(&ledger), [Duty::Remove(job("j"))]);
}

#[test]
fn a_withdrawn_job_is_released_from_what_it_waited_for() {
    let ledger = with(|record| {
        record.after = vec![job("before")];
        record.withdrawn = Some(Withdrawn { status: OutcomeStatus::Cancelled, reason: "by hand".to_owned() });
    });
    let release = Duty::Release { job: job("j"), after: job("before") };
    assert!(matches!(&duties(&ledger)[..], [Duty::End(..), last] if *last == release));
}

#[test]
fn a_job_is_released_when_the_one_before_it_has_succeeded_and_not_sooner() {
    let mut ledger = with(|record| record.after = vec![job("before")]);
    set(&mut ledger, "before", 1, |record| record.sealed = false);
    assert_eq!(duties(&ledger), [], "more may be submitted to it");
    set(&mut ledger, "before", 1, |_| {});
    ledger.task_is(&job("before").task(0), 0, &TaskState::default());
    assert_eq!(duties(&ledger), [], "a task of it is outstanding");
    ledger.task_gone(&job("before").task(0));
    assert_eq!(duties(&ledger), [Duty::Release { job: job("j"), after: job("before") }]);
}

#[test]
fn a_job_is_aborted_when_the_one_before_it_failed_is_dead_was_withdrawn_or_is_gone() {
    let later = || with(|record| record.after = vec![job("before")]);
    let gone = later();
    let mut failed = later();
    set(&mut failed, "before", 1, |record| record.failed = true);
    let mut dead = later();
    set(&mut dead, "before", 1, |_| {});
    dead.task_is(&job("before").task(0), 1, &TaskState { dead: true, ..TaskState::default() });
    let mut cancelled = later();
    let reason = Withdrawn { status: OutcomeStatus::Cancelled, reason: "by hand".to_owned() };
    set(&mut cancelled, "before", 1, |record| record.withdrawn = Some(reason));
    for ledger in [gone, failed, dead, cancelled] {
        let (status, reason) = withdrawn(&ledger);
        assert_eq!(status, OutcomeStatus::Aborted);
        assert!(reason.starts_with("job before "), "{reason}");
    }
}
