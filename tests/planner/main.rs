//! The ledger and the planner, without a server: what they decide, case by case; and `herd`, whatever happens to a herd.

mod health;
mod herd;

use std::collections::BTreeMap;
use std::time::Duration;

use herdsman::decide::assign::{Plan, plan, rebalance, take_back, tidy};
use herdsman::decide::ledger::Ledger;
use tree::{JobId, JobRecord, OutcomeStatus, Policy, TaskState, Withdrawn, WorkerId, WorkerRecord};

fn job(name: &str) -> JobId {
    name.parse().expect("a job's id")
}

fn worker(name: &str) -> WorkerId {
    name.parse().expect("a worker's id")
}

fn kind(kind: &str) -> JobRecord {
    JobRecord::new(kind, vec![], Policy::default())
}

fn runs(slots: u32, kinds: &[&str]) -> WorkerRecord {
    WorkerRecord::new(slots, kinds.iter().map(|k| (*k).to_owned()).collect())
}

/// A ledger with one job of kind `k` and tasks 0 to `tasks`.
fn backlog(tasks: u32) -> Ledger {
    let mut ledger = Ledger::default();
    ledger.job_is(&job("j"), 1, Some(&kind("k")));
    (0..tasks).for_each(|n| drop(ledger.task_is(&job("j").task(n), 0, &TaskState::default())));
    ledger
}

/// Plans, and the lists are written.
fn write(ledger: &mut Ledger) -> Plan {
    let next = plan(ledger);
    next.lists.iter().for_each(|(id, _)| ledger.list_written(id));
    next
}

/// The lists that a plan writes, as text.
fn lists(ledger: &mut Ledger) -> BTreeMap<String, Vec<String>> {
    write(ledger).lists.into_iter().map(|(id, record)| (id.to_string(), record.assigned)).collect()
}

#[test]
fn jobs_of_one_priority_share_the_slots_the_oldest_first_and_each_has_its_tasks_in_their_order() {
    let mut ledger = Ledger::default();
    ledger.job_is(&job("a-younger"), 20, Some(&kind("k")));
    ledger.job_is(&job("z-older"), 10, Some(&kind("k")));
    for id in ["a-younger", "z-older"] {
        for n in [2, 0, 1] {
            ledger.task_is(&job(id).task(n), 0, &TaskState::default());
        }
    }
    ledger.worker_is(&worker("w"), &runs(4, &["k"]));
    let want = ["z-older/0000000000", "a-younger/0000000000", "z-older/0000000001", "a-younger/0000000001"];
    assert_eq!(lists(&mut ledger)["w"], want);
}

#[test]
fn tasks_are_spread_over_idle_slots_before_any_worker_gets_more() {
    let mut ledger = backlog(6);
    for id in ["a", "b", "c"] {
        ledger.worker_is(&worker(id), &runs(4, &["k"]));
        ledger.set_window(&worker(id), 100);
    }
    let lengths: Vec<usize> = lists(&mut ledger).values().map(Vec::len).collect();
    assert_eq!(lengths, [2, 2, 2]);
}

#[test]
fn a_worker_whose_slots_are_busy_is_given_more_when_a_quarter_of_its_window_is_free() {
    let mut ledger = backlog(30);
    ledger.worker_is(&worker("w"), &runs(2, &["k"]));
    ledger.set_window(&worker("w"), 10);
    assert_eq!(plan(&mut ledger).assigned, 10);
    ledger.task_gone(&job("j").task(0));
    assert_eq!(plan(&mut ledger).assigned, 0, "one of eight");
    ledger.task_gone(&job("j").task(1));
    assert_eq!(plan(&mut ledger).assigned, 2, "two of eight, and the list is as long as the window again");
}

#[test]
fn nothing_is_assigned_beyond_the_slots_until_the_window_allows_it() {
    let mut ledger = backlog(10);
    ledger.worker_is(&worker("w"), &runs(2, &["k"]));
    assert_eq!(lists(&mut ledger)["w"].len(), 2);
    assert!(plan(&mut ledger).is_empty());
    ledger.set_window(&worker("w"), 5);
    assert_eq!(lists(&mut ledger)["w"].len(), 5);
}

#[test]
fn a_kind_that_no_worker_runs_and_a_record_that_nobody_understands_block_nobody_else() {
    let mut ledger = Ledger::default();
    ledger.job_is(&job("garbage"), 1, None);
    ledger.job_is(&job("exotic"), 2, Some(&kind("exotic")));
    ledger.job_is(&job("plain"), 3, Some(&kind("k")));
    for id in ["garbage", "exotic", "plain"] {
        ledger.task_is(&job(id).task(0), 0, &TaskState::default());
    }
    ledger.worker_is(&worker("w"), &runs(4, &["k"]));
    assert_eq!(lists(&mut ledger)["w"], ["plain/0000000000"]);
    ledger.worker_is(&worker("x"), &runs(4, &["exotic"]));
    assert_eq!(lists(&mut ledger)["x"], ["exotic/0000000000"]);
}

#[test]
fn a_completed_task_makes_room_and_leaves_the_list_with_the_next_write() {
    let mut ledger = backlog(3);
    ledger.worker_is(&worker("w"), &runs(2, &["k"]));
    write(&mut ledger);
    assert_eq!(ledger.task_gone(&job("j").task(0)), Some(worker("w")));
    assert_eq!(lists(&mut ledger)["w"], ["j/0000000001", "j/0000000002"]);
    ledger.task_gone(&job("j").task(1));
    assert!(plan(&mut ledger).is_empty(), "nothing new to say: that can wait");
    let tidied = tidy(&mut ledger);
    assert_eq!(tidied.lists[0].1.assigned, ["j/0000000002"]);
    assert!(tidy(&mut ledger).is_empty());
}

#[test]
fn the_running_tasks_of_a_lost_worker_are_ended_in_the_tree_before_they_are_assigned_again() {
    let mut ledger = backlog(3);
    ledger.worker_is(&worker("w"), &runs(1, &["k"]));
    ledger.set_window(&worker("w"), 2);
    write(&mut ledger);
    ledger.worker_gone(&worker("w"), None);
    ledger.worker_is(&worker("x"), &runs(4, &["k"]));
    let next = plan(&mut ledger);
    let attempts: Vec<_> = next.interrupted.iter().map(|(task, e)| (task.n, e.version, e.state.attempt)).collect();
    assert_eq!(attempts, [(0, 0, 1), (1, 0, 1)]);
    assert_eq!(next.lists[0].1.assigned, ["j/0000000002"], "what nobody had waits for nothing");
    next.interrupted.iter().for_each(|(task, ended)| drop(ledger.task_is(task, 1, &ended.state)));
    assert_eq!(lists(&mut ledger)["x"], ["j/0000000002", "j/0000000000@1", "j/0000000001@1"]);
}

#[test]
fn a_task_set_to_another_version_is_unassigned_and_assigned_anew() {
    let mut ledger = backlog(1);
    ledger.worker_is(&worker("w"), &runs(1, &["k"]));
    write(&mut ledger);
    ledger.task_is(&job("j").task(0), 1, &TaskState { attempt: 1, ..TaskState::default() });
    assert_eq!(lists(&mut ledger)["w"], ["j/0000000000@1"]);
    ledger.task_is(&job("j").task(0), 0, &TaskState::default());
    assert!(plan(&mut ledger).is_empty(), "an older read changes nothing");
}

#[test]
fn a_dead_task_is_not_assigned() {
    let mut ledger = backlog(1);
    ledger.task_is(&job("j").task(0), 1, &TaskState { dead: true, ..TaskState::default() });
    ledger.worker_is(&worker("w"), &runs(1, &["k"]));
    assert!(plan(&mut ledger).is_empty());
    ledger.task_is(&job("j").task(0), 2, &TaskState::default());
    assert_eq!(lists(&mut ledger)["w"], ["j/0000000000@2"], "until a retry sets it");
}

#[test]
fn a_worker_that_hands_a_task_back_is_given_nothing_more() {
    let mut ledger = backlog(2);
    ledger.worker_is(&worker("w"), &runs(2, &["k"]));
    write(&mut ledger);
    let back = TaskState { returned_by: Some("w".to_owned()), ..TaskState::default() };
    assert_eq!(ledger.task_is(&job("j").task(1), 1, &back), Some(worker("w")));
    assert!(plan(&mut ledger).is_empty());
    ledger.worker_is(&worker("x"), &runs(2, &["k"]));
    assert_eq!(lists(&mut ledger)["x"], ["j/0000000001@1"]);
}

#[test]
fn a_worker_that_lacks_something_is_given_nothing_for_as_long_as_it_says_and_then_again() {
    let mut ledger = backlog(3);
    ledger.wake(1_000);
    ledger.worker_is(&worker("w"), &runs(2, &["k"]));
    write(&mut ledger);
    let back = TaskState::default().returned(Some("w"), Some(Duration::from_millis(500)));
    assert_eq!(ledger.task_is(&job("j").task(0), 1, &back), Some(worker("w")));
    assert!(plan(&mut ledger).is_empty());
    ledger.wake(1_400);
    ledger.task_is(&job("j").task(0), 1, &back); // everything is read anew: no news
    let workers = [(worker("w"), WorkerRecord { assigned: vec!["j/0000000001".to_owned()], ..runs(2, &["k"]) })];
    ledger.workers_are(&workers, true);
    assert!(plan(&mut ledger).is_empty());
    ledger.wake(1_500);
    assert_eq!(lists(&mut ledger)["w"], ["j/0000000001", "j/0000000000@1"]);
    // It does not stop: what is lost with it is a crash like any other.
    let back = TaskState::default().returned(Some("w"), Some(Duration::MAX));
    ledger.task_is(&job("j").task(0), 2, &back);
    assert!(plan(&mut ledger).is_empty());
    assert_eq!(lose(&mut ledger, "w")["1"].crashes, 1);
    ledger.worker_is(&worker("x"), &runs(2, &["k"]));
    assert_eq!(lists(&mut ledger)["x"], ["j/0000000001@1", "j/0000000000@2"], "a suspect first");
    ledger.worker_is(&worker("w"), &runs(2, &["k"]));
    assert_eq!(lists(&mut ledger)["w"], ["j/0000000002"], "nothing is remembered of one that is gone");
}

#[test]
fn what_exceeds_a_window_moves_to_an_idle_worker_and_the_loser_is_written_first() {
    let mut ledger = backlog(6);
    ledger.worker_is(&worker("z"), &runs(2, &["k"]));
    ledger.set_window(&worker("z"), 6);
    write(&mut ledger);
    ledger.worker_is(&worker("a"), &runs(2, &["k"]));
    assert!(rebalance(&mut ledger, &[worker("z")]).is_empty(), "within the window nothing moves");
    ledger.set_window(&worker("z"), 2);
    assert_eq!(ledger.crowded().collect::<Vec<_>>(), [&worker("z")]);
    assert!(plan(&mut ledger).is_empty(), "a plan moves nothing by itself");
    assert!(rebalance(&mut ledger, &[]).is_empty(), "nor from a worker that was not named");
    let moved = rebalance(&mut ledger, &[worker("z")]);
    let order: Vec<&str> = moved.lists.iter().map(|(id, _)| id.as_str()).collect();
    assert_eq!(order, ["z", "a"]);
    assert_eq!(moved.lists[0].1.assigned.len(), 4, "as many as the other has idle slots");
    assert_eq!(moved.lists[1].1.assigned, ["j/0000000005@1", "j/0000000004@1"], "whoever had them cannot end them");
    let set: Vec<_> = moved.moved.iter().map(|moved| (moved.task.n, moved.version, moved.data())).collect();
    assert_eq!(set, [(5, 0, vec![]), (4, 0, vec![])], "nothing but the version changes");
}

/// Six tasks with `z`, two of them beyond its window, and room for both with `a`.
fn crowded() -> Ledger {
    let mut ledger = backlog(4);
    ledger.worker_is(&worker("z"), &runs(2, &["k"]));
    ledger.set_window(&worker("z"), 4);
    write(&mut ledger);
    ledger.set_window(&worker("z"), 2);
    ledger.worker_is(&worker("a"), &runs(2, &["k"]));
    ledger
}

#[test]
fn what_was_not_moved_after_all_stays_where_it_was_in_its_order() {
    let mut ledger = crowded();
    let moved = rebalance(&mut ledger, &[worker("z")]).moved;
    assert_eq!(moved.len(), 2);
    take_back(&mut ledger, moved);
    let want = ["j/0000000000", "j/0000000001", "j/0000000002", "j/0000000003"];
    let tidied: BTreeMap<_, _> =
        tidy(&mut ledger).lists.into_iter().map(|(id, r)| (id.to_string(), r.assigned)).collect();
    assert_eq!((&tidied["z"][..], tidied["a"].len()), (&want.map(str::to_owned)[..], 0));
    ledger.worker_gone(&worker("z"), None);
    assert_eq!(plan(&mut ledger).interrupted.len(), 4, "and was there all the time");
}

#[test]
fn a_job_that_nobody_can_run_keeps_no_task_parked() {
    let mut ledger = crowded();
    submit(&mut ledger, "exotic", 2, &kind("exotic"), 3);
    assert_eq!(rebalance(&mut ledger, &[worker("z")]).moved.len(), 2);
    let mut ledger = crowded();
    submit(&mut ledger, "plain", 2, &kind("k"), 1);
    assert!(rebalance(&mut ledger, &[worker("z")]).is_empty(), "that one goes to the idle worker");
}

#[test]
fn what_was_never_written_to_a_list_was_never_attempted() {
    let mut ledger = backlog(3);
    ledger.worker_is(&worker("w"), &runs(1, &["k"]));
    write(&mut ledger);
    ledger.set_window(&worker("w"), 3);
    assert_eq!(plan(&mut ledger).assigned, 2);
    ledger.worker_gone(&worker("w"), None); // the write is refused
    assert_eq!(plan(&mut ledger).interrupted.keys().map(|task| task.n).collect::<Vec<_>>(), [0]);
    ledger.worker_is(&worker("x"), &runs(3, &["k"]));
    assert_eq!(lists(&mut ledger)["x"], ["j/0000000001", "j/0000000002"], "the others wait as they are");
}

#[test]
fn what_a_master_that_stands_by_reads_is_ended_when_worker_and_leader_are_lost() {
    let mut ledger = backlog(4);
    ledger.worker_is(&worker("w"), &runs(4, &["k"]));
    let list = |entries: &[&str]| WorkerRecord {
        assigned: entries.iter().map(|e| (*e).to_owned()).collect(),
        ..runs(4, &["k"])
    };
    assert!(ledger.list_is(&worker("w"), &list(&["j/0000000000", "j/0000000001"])));
    assert!(ledger.list_is(&worker("w"), &list(&["j/0000000001", "j/0000000002", "j/0000000003"])));
    assert!(
        !ledger.list_is(&worker("w"), &list(&["j/0000000001", "j/0000000002", "j/0000000003@1"])),
        "not heard of yet"
    );
    ledger.task_is(&job("j").task(3), 1, &TaskState::default());
    assert!(ledger.list_is(&worker("w"), &list(&["j/0000000001", "j/0000000002", "j/0000000003@1"])));
    ledger.worker_gone(&worker("w"), None);
    ledger.task_gone(&job("j").task(1)); // the worker had completed it
    ledger.task_is(&job("j").task(2), 1, &TaskState { crashes: 1, ..TaskState::default() }); // the leader had ended it
    // It wins, and reads the tree anew: what it saw is not forgotten.
    let tasks: Vec<_> = [0, 2, 3].map(|n| (job("j").task(n), None)).into();
    ledger.tasks_are(&[(job("j"), 1, Some(kind("k")))], &tasks, &[]);
    ledger.workers_are(&[(worker("x"), runs(4, &["k"]))], true);
    let next = write(&mut ledger);
    let ended: Vec<_> =
        next.interrupted.iter().map(|(task, ended)| (task.n, ended.version, ended.state.crashes)).collect();
    assert_eq!(ended, [(3, 1, 1)]);
    assert_eq!(next.lists[0].1.assigned, ["j/0000000002@1", "j/0000000000"], "and before it is assigned again");
}

#[test]
fn an_attempt_is_not_ended_where_another_worker_holds_the_task_by_now() {
    let mut ledger = backlog(2);
    ledger.worker_is(&worker("w"), &runs(2, &["k"]));
    write(&mut ledger);
    ledger.worker_gone(&worker("w"), None);
    let record = WorkerRecord { assigned: vec!["j/0000000001".to_owned()], ..runs(2, &["k"]) };
    ledger.workers_are(&[(worker("x"), record)], true);
    assert_eq!(plan(&mut ledger).interrupted.keys().map(|task| task.n).collect::<Vec<_>>(), [0]);
    assert_eq!(ledger.counts().assigned, 1);
    ledger.job_gone(&job("j"));
    assert!(plan(&mut ledger).interrupted.is_empty(), "nor where the job is gone");
}

#[test]
fn jobs_that_one_multi_created_are_two() {
    let mut ledger = Ledger::default();
    submit(&mut ledger, "a", 5, &kind("k"), 1);
    submit(&mut ledger, "b", 5, &kind("k"), 1);
    submit(&mut ledger, "older", 4, &kind("k"), 1);
    ledger.worker_is(&worker("w"), &runs(3, &["k"]));
    assert_eq!(lists(&mut ledger)["w"], ["older/0000000000", "a/0000000000", "b/0000000000"]);
    ledger.job_gone(&job("a"));
    assert!(ledger.has_outstanding(&job("b")));
    ledger.job_gone(&job("b"));
    assert_eq!(ledger.counts().assigned, 1);
}

#[test]
fn a_takeover_moves_nothing_that_a_live_worker_has() {
    let mut ledger = backlog(5);
    ledger.worker_is(&worker("w"), &runs(2, &["k"]));
    let written = write(&mut ledger).lists;
    let mut successor = backlog(5);
    successor.workers_are(&written, true);
    assert!(plan(&mut successor).is_empty());
    assert_eq!(successor.counts(), ledger.counts());
}

#[test]
fn a_takeover_keeps_what_the_leader_before_assigned_by_a_clock_that_was_ahead() {
    let mut ledger = backlog(2); // its clock stands at 0
    let state = TaskState { not_before_ms: Some(5_000), ..TaskState::default().attempted("w", "exit code 3") };
    ledger.task_is(&job("j").task(0), 1, &state);
    let record = WorkerRecord { assigned: vec!["j/0000000000@1".to_owned()], ..runs(1, &["k"]) };
    ledger.workers_are(&[(worker("w"), record), (worker("idle"), runs(4, &["k"]))], true);
    ledger.wake(9_000);
    let lists = lists(&mut ledger);
    assert_eq!(lists["idle"], ["j/0000000001"], "and not the one that w has");
    assert!(!lists.contains_key("w"));
}

#[test]
fn an_assignment_that_is_over_or_that_two_workers_list_is_adopted_once() {
    let mut ledger = backlog(1);
    let mut record = runs(2, &["k"]);
    record.assigned =
        ["j/0000000000", "j/0000000009", "gone/0000000000", "j/0000000000@4", "nonsense"].map(str::to_owned).into();
    ledger.workers_are(&[(worker("a"), record.clone()), (worker("b"), record)], true);
    assert_eq!(ledger.counts().assigned, 1);
    let held: usize = tidy(&mut ledger).lists.iter().map(|(_, record)| record.assigned.len()).sum();
    assert_eq!(held, 1);
}

/// A job's record with what `change` makes of it.
fn record(change: impl FnOnce(&mut JobRecord)) -> JobRecord {
    let mut record = kind("k");
    change(&mut record);
    record
}

fn submit(ledger: &mut Ledger, name: &str, czxid: i64, record: &JobRecord, tasks: u32) {
    ledger.job_is(&job(name), czxid, Some(record));
    (0..tasks).for_each(|n| drop(ledger.task_is(&job(name).task(n), 0, &TaskState::default())));
}

#[test]
fn a_job_of_higher_priority_goes_first_however_young_it_is() {
    let mut ledger = Ledger::default();
    submit(&mut ledger, "old", 1, &kind("k"), 3);
    submit(&mut ledger, "low", 2, &record(|r| r.policy.priority = -1), 3);
    submit(&mut ledger, "urgent", 3, &record(|r| r.policy.priority = 7), 2);
    ledger.worker_is(&worker("w"), &runs(6, &["k"]));
    let order: Vec<String> = lists(&mut ledger)["w"].iter().map(|entry| entry.replace("/000000000", "")).collect();
    assert_eq!(order, ["urgent0", "urgent1", "old0", "old1", "old2", "low0"]);
}

#[test]
fn a_job_goes_only_to_workers_that_have_all_its_tags() {
    let mut ledger = Ledger::default();
    submit(&mut ledger, "picky", 1, &record(|r| r.policy.require = vec!["gpu".into(), "eu".into()]), 2);
    submit(&mut ledger, "any", 2, &kind("k"), 2);
    let tagged =
        |tags: &[&str]| WorkerRecord { tags: tags.iter().map(|t| (*t).to_owned()).collect(), ..runs(4, &["k"]) };
    ledger.worker_is(&worker("plain"), &tagged(&["gpu"]));
    assert_eq!(lists(&mut ledger)["plain"], ["any/0000000000", "any/0000000001"]);
    ledger.worker_is(&worker("both"), &tagged(&["eu", "ssd", "gpu"]));
    assert_eq!(lists(&mut ledger)["both"], ["picky/0000000000", "picky/0000000001"]);
}

#[test]
fn a_task_in_backoff_and_a_job_that_is_not_due_wait_for_their_moment_and_hold_nobody_up() {
    let mut ledger = Ledger::default();
    ledger.wake(1_000);
    submit(&mut ledger, "late", 1, &record(|r| r.policy.not_before_ms = Some(3_000)), 1);
    submit(&mut ledger, "now", 2, &kind("k"), 2);
    let state = TaskState { not_before_ms: Some(2_000), ..TaskState::default().attempted("w", "exit code 1") };
    ledger.task_is(&job("now").task(0), 1, &state);
    ledger.worker_is(&worker("w"), &runs(9, &["k"]));
    assert_eq!(lists(&mut ledger)["w"], ["now/0000000001"]);
    ledger.wake(1_999);
    assert!(lists(&mut ledger).is_empty());
    ledger.wake(2_000);
    assert_eq!(lists(&mut ledger)["w"], ["now/0000000001", "now/0000000000@1"]);
    ledger.wake(3_000);
    assert_eq!(lists(&mut ledger)["w"].last().map(String::as_str), Some("late/0000000000"));
    assert_eq!(ledger.counts().waiting, 0);
}

#[test]
fn no_wait_lasts_longer_than_the_backoff_that_its_job_allows_or_a_minute_from_when_it_was_first_seen() {
    let mut ledger = Ledger::default();
    ledger.wake(1_000);
    let backoff = |r: &mut JobRecord| (r.policy.backoff_ms, r.policy.backoff_max_ms) = (100_000, 100_000);
    submit(&mut ledger, "j", 1, &record(backoff), 1);
    submit(&mut ledger, "k", 2, &kind("k"), 1);
    let (failed, calm) = (job("j").task(0), job("k").task(0));
    let an_hour_ahead =
        TaskState { not_before_ms: Some(3_600_000), ..TaskState::default().attempted("w", "exit code 1") };
    let failed_once = TaskState { failures: 1, ..an_hour_ahead.clone() };
    ledger.task_is(&failed, 1, &failed_once);
    ledger.task_is(&calm, 1, &an_hour_ahead); // that one did not fail: its worker was lost with many others
    ledger.worker_is(&worker("w"), &runs(9, &["k"]));
    ledger.wake(60_999);
    assert!(lists(&mut ledger).is_empty());
    ledger.wake(61_000);
    assert_eq!(lists(&mut ledger)["w"], ["k/0000000000@1"]);
    ledger.wake(100_999);
    ledger.task_is(&failed, 1, &failed_once); // read again, which is not the first sight
    assert!(lists(&mut ledger).is_empty());
    ledger.wake(101_000);
    ledger.task_is(&failed, 1, &failed_once);
    assert_eq!(lists(&mut ledger)["w"].last().map(String::as_str), Some("j/0000000000@1"));
    ledger.task_is(&failed, 2, &TaskState { failures: 2, ..failed_once });
    ledger.wake(200_999);
    assert!(
        lists(&mut ledger).values().flatten().all(|entry| !entry.ends_with("@2")),
        "a failure seen for the first time"
    );
    ledger.wake(201_000);
    assert_eq!(lists(&mut ledger)["w"].last().map(String::as_str), Some("j/0000000000@2"));
}

#[test]
fn a_storm_gives_calm_also_to_a_task_that_failed_before_however_short_its_backoff() {
    let mut ledger = Ledger::default();
    ledger.wake(1_000);
    submit(&mut ledger, "j", 1, &record(|r| (r.policy.backoff_ms, r.policy.backoff_max_ms) = (200, 500)), 1);
    ledger.task_is(&job("j").task(0), 1, &TaskState { failures: 1, ..TaskState::default().attempted("w", "no") });
    ledger.worker_is(&worker("w"), &runs(1, &["k"]));
    write(&mut ledger);
    ledger.worker_gone(&worker("w"), Some(11_000));
    for (task, ended) in plan(&mut ledger).interrupted {
        ledger.task_is(&task, ended.version + 1, &ended.state);
    }
    ledger.worker_is(&worker("w2"), &runs(1, &["k"]));
    ledger.wake(10_999);
    assert!(lists(&mut ledger).is_empty());
    ledger.wake(11_000);
    assert_eq!(lists(&mut ledger)["w2"], ["j/0000000000@2"]);
}

#[test]
fn a_clock_that_is_set_back_keeps_neither_a_resting_worker_nor_what_a_storm_interrupted_for_longer_than_a_minute() {
    let mut ledger = backlog(2);
    ledger.wake(9_000_000);
    ledger.worker_is(&worker("w"), &runs(1, &["k"]));
    let returned = TaskState::default().returned(Some("w"), Some(Duration::from_millis(500)));
    ledger.task_is(&job("j").task(0), 1, &returned);
    let interrupted = TaskState { not_before_ms: Some(9_010_000), ..TaskState::default().attempted("v", "lost") };
    ledger.task_is(&job("j").task(1), 1, &interrupted);
    assert!(ledger.rests(&worker("w")));
    ledger.wake(5_000_000);
    assert!(lists(&mut ledger).is_empty());
    ledger.worker_is(&worker("w2"), &runs(2, &["k"]));
    ledger.wake(5_060_000);
    assert!(!ledger.rests(&worker("w")));
    assert_eq!(lists(&mut ledger).values().flatten().count(), 2);
}

#[test]
fn a_worker_that_lacks_something_for_no_time_more_is_given_tasks_again_and_is_none_that_stops() {
    let mut ledger = backlog(1);
    ledger.worker_is(&worker("w"), &runs(1, &["k"]));
    write(&mut ledger);
    ledger.task_is(&job("j").task(0), 1, &TaskState::default().returned(Some("w"), Some(Duration::ZERO)));
    ledger.wake(1);
    assert!(!ledger.stops(&worker("w")));
    assert_eq!(lists(&mut ledger)["w"], ["j/0000000000@1"]);
}

#[test]
fn a_clock_that_is_set_back_strands_nothing_that_was_delayed_and_begins_nothing_too_soon() {
    let mut ledger = Ledger::default();
    ledger.wake(5_000_000);
    submit(&mut ledger, "late", 1, &record(|r| r.policy.not_before_ms = Some(9_000_000)), 1);
    submit(&mut ledger, "now", 2, &record(|r| r.policy.backoff_max_ms = 10_000_000), 1);
    let state = TaskState { failures: 1, not_before_ms: Some(9_000_000), ..TaskState::default().attempted("w", "no") };
    ledger.task_is(&job("now").task(0), 1, &state);
    ledger.wake(9_500_000); // both moments have come, and nobody is there
    ledger.wake(6_000_000);
    ledger.worker_is(&worker("w"), &runs(9, &["k"]));
    assert!(lists(&mut ledger).is_empty(), "it is too soon again");
    ledger.wake(8_999_999);
    assert!(lists(&mut ledger).is_empty());
    ledger.wake(9_000_000);
    assert_eq!(lists(&mut ledger)["w"], ["late/0000000000", "now/0000000000@1"]);
}

#[test]
fn a_withdrawn_job_and_one_that_comes_after_another_are_not_assigned() {
    let mut ledger = Ledger::default();
    let reason = Withdrawn { status: OutcomeStatus::Cancelled, reason: "by hand".to_owned() };
    submit(&mut ledger, "withdrawn", 1, &record(|r| r.withdrawn = Some(reason)), 1);
    submit(&mut ledger, "later", 2, &record(|r| r.after = vec![job("other")]), 1);
    ledger.worker_is(&worker("w"), &runs(4, &["k"]));
    assert!(plan(&mut ledger).is_empty());
    ledger.job_is(&job("later"), 2, Some(&kind("k"))); // released
    assert_eq!(lists(&mut ledger)["w"], ["later/0000000000"]);
}

/// Loses a worker, and does what the plan says: the states that it writes.
fn lose(ledger: &mut Ledger, name: &str) -> BTreeMap<String, TaskState> {
    ledger.worker_gone(&worker(name), None);
    let ended: Vec<_> = plan(ledger).interrupted.into_iter().collect();
    for (task, ended) in &ended {
        ledger.task_is(task, ended.version + 1, &ended.state);
    }
    ended.into_iter().map(|(task, ended)| (task.n.to_string(), ended.state)).collect()
}

#[test]
fn a_task_under_which_two_workers_were_lost_runs_alone_and_is_dead_with_the_third() {
    let mut ledger = backlog(6);
    for name in ["w1", "w2"] {
        ledger.worker_is(&worker(name), &runs(2, &["k"]));
        assert_eq!(lists(&mut ledger)[name].len(), 2);
        let states = lose(&mut ledger, name);
        assert_eq!(states.keys().collect::<Vec<_>>(), ["0", "1"], "those that ran, and no other, are charged");
    }
    ledger.worker_is(&worker("w3"), &runs(2, &["k"]));
    assert_eq!(lists(&mut ledger)["w3"], ["j/0000000000@2"], "alone");
    ledger.worker_is(&worker("w4"), &runs(2, &["k"]));
    assert_eq!(lists(&mut ledger)["w4"], ["j/0000000001@2"], "so is the other suspect");
    let states = lose(&mut ledger, "w3");
    let dead = &states["0"];
    assert_eq!((states.len(), dead.dead, dead.crashes, dead.history.len()), (1, true, 3, 3));
    ledger.task_gone(&job("j").task(1)); // its neighbour of old was innocent
    assert_eq!(lists(&mut ledger)["w4"].len(), 2, "and the others are not kept apart");
    assert_eq!(ledger.counts().dead, 1);
}

#[test]
fn where_no_slot_is_idle_one_worker_is_given_nothing_but_suspects_until_none_waits() {
    let mut ledger = backlog(9);
    ledger.worker_is(&worker("lost"), &runs(1, &["k"]));
    write(&mut ledger);
    ledger.worker_is(&worker("busy"), &runs(2, &["k"]));
    ledger.set_window(&worker("busy"), 3);
    write(&mut ledger);
    lose(&mut ledger, "lost");
    ledger.set_window(&worker("busy"), 9);
    assert!(lists(&mut ledger).is_empty(), "room in its window, and tasks that wait, but no idle slot");
    ledger.task_gone(&job("j").task(1));
    assert!(lists(&mut ledger).is_empty());
    ledger.task_gone(&job("j").task(2));
    assert_eq!(lists(&mut ledger)["busy"][..2], ["j/0000000003", "j/0000000000@1"]);
    assert!(lists(&mut ledger)["busy"].len() > 2, "and then as before");
}

#[test]
fn a_worker_that_is_kept_for_suspects_is_given_them_though_a_job_before_theirs_finds_no_room() {
    let mut ledger = backlog(3);
    ledger.worker_is(&worker("lost"), &runs(1, &["k"]));
    write(&mut ledger);
    ledger.worker_is(&worker("busy"), &runs(1, &["k"]));
    write(&mut ledger);
    ledger.set_window(&worker("busy"), 3);
    lose(&mut ledger, "lost");
    write(&mut ledger);
    assert_eq!(ledger.reserved(), Some(&worker("busy")));
    submit(&mut ledger, "urgent", 2, &record(|r| r.policy.priority = 1), 9);
    [1, 2].iter().for_each(|n| drop(ledger.task_gone(&job("j").task(*n))));
    assert_eq!(lists(&mut ledger)["busy"][0], "j/0000000000@1");
}

#[test]
fn a_worker_is_not_kept_for_suspects_that_it_cannot_run() {
    let mut ledger = Ledger::default();
    submit(&mut ledger, "gpu", 1, &kind("gpu"), 1);
    submit(&mut ledger, "plain", 2, &kind("k"), 9);
    ledger.worker_is(&worker("gpu"), &runs(1, &["gpu"]));
    ledger.worker_is(&worker("lost"), &runs(1, &["k"]));
    write(&mut ledger);
    ledger.worker_is(&worker("busy"), &runs(1, &["k"]));
    ledger.set_window(&worker("busy"), 2);
    write(&mut ledger);
    lose(&mut ledger, "gpu"); // and nobody else runs that kind
    lose(&mut ledger, "lost");
    assert_eq!(lists(&mut ledger).len(), 0, "kept for the suspect of its own kind");
    for n in [1, 2, 0] {
        ledger.task_gone(&job("plain").task(n));
        write(&mut ledger);
    }
    assert_eq!(ledger.load(&worker("busy")), Some((1, 2)), "and given others once that has run");
}

#[test]
fn in_a_storm_of_lost_workers_no_task_is_charged_and_none_assigned_again_before_its_end() {
    let mut ledger = backlog(3);
    ledger.wake(1_000);
    ledger.worker_is(&worker("w"), &runs(2, &["k"]));
    ledger.set_window(&worker("w"), 3);
    write(&mut ledger);
    ledger.worker_gone(&worker("w"), Some(5_000));
    for (task, ended) in plan(&mut ledger).interrupted {
        assert_eq!((ended.state.crashes, ended.state.attempt, ended.state.not_before_ms), (0, 1, Some(5_000)));
        ledger.task_is(&task, ended.version + 1, &ended.state);
    }
    ledger.worker_is(&worker("w2"), &runs(4, &["k"]));
    assert!(plan(&mut ledger).is_empty());
    ledger.wake(5_000);
    assert_eq!(lists(&mut ledger)["w2"].len(), 3);
}

#[test]
fn what_a_lost_worker_had_stays_with_it_until_it_is_settled_what_its_loss_means() {
    let mut ledger = backlog(4);
    ledger.worker_is(&worker("w"), &runs(2, &["k"]));
    write(&mut ledger);
    ledger.set_window(&worker("w"), 3);
    assert_eq!(plan(&mut ledger).assigned, 1, "which is not written");
    ledger.worker_lost(&worker("w"));
    assert!(!ledger.is_there(&worker("w")) && ledger.workers().count() == 0);
    assert!(plan(&mut ledger).is_empty() && tidy(&mut ledger).is_empty());
    // What it may have begun is in nobody's list; one of it was done after all, another leader has given the other away.
    ledger.task_gone(&job("j").task(0));
    let taken_over = WorkerRecord { assigned: vec!["j/0000000001".to_owned()], ..runs(1, &["k"]) };
    ledger.worker_is(&worker("x"), &taken_over);
    ledger.workers_are(&[(worker("x"), taken_over)], false);
    ledger.worker_is(&worker("y"), &runs(4, &["k"]));
    assert_eq!(lists(&mut ledger)["y"], ["j/0000000002", "j/0000000003"], "as they are");
    ledger.worker_gone(&worker("w"), None);
    assert!(plan(&mut ledger).interrupted.is_empty(), "nothing is left of it");

    let mut ledger = backlog(2);
    ledger.worker_is(&worker("w"), &runs(2, &["k"]));
    write(&mut ledger);
    ledger.worker_lost(&worker("w"));
    ledger.worker_is(&worker("y"), &runs(4, &["k"]));
    assert!(plan(&mut ledger).is_empty());
    let states = lose(&mut ledger, "w");
    assert!(states.len() == 2 && states.values().all(|state| state.crashes == 1), "{states:?}");
}

#[test]
fn no_list_grows_beyond_what_one_write_carries_whatever_a_worker_claims() {
    let mut ledger = Ledger::default();
    let name = "a-job-with-a-name-that-is-as-long-as-the-name-of-a-job-may-be-40";
    submit(&mut ledger, name, 1, &record(|_| {}), 30_000);
    ledger.worker_is(&worker("claims"), &runs(u32::MAX, &["k"]));
    let mut longest: BTreeMap<String, usize> = BTreeMap::new();
    loop {
        let next = write(&mut ledger);
        if next.is_empty() {
            break;
        }
        for (id, record) in next.lists {
            longest.insert(id.to_string(), record.to_json().len());
        }
    }
    let bytes = longest["claims"];
    assert!((400 * 1024..512 * 1024).contains(&bytes), "{bytes}");
    // What is left goes to somebody else, and what has ended makes room.
    ledger.worker_is(&worker("modest"), &runs(3, &["k"]));
    assert_eq!(lists(&mut ledger)["modest"].len(), 3);
    (0..2_000).for_each(|n| drop(ledger.task_gone(&job(name).task(n))));
    assert!(plan(&mut ledger).lists.iter().any(|(id, _)| *id == worker("claims")));
}

#[test]
fn a_worker_whose_record_is_too_large_to_be_written_is_given_nothing_and_blocks_nobody() {
    let mut ledger = backlog(70_000);
    let all = (0..65_000).map(|n| format!("j/{n:010}")).collect();
    ledger.worker_is(&worker("full"), &WorkerRecord { assigned: all, ..runs(u32::MAX, &["k"]) });
    ledger.worker_is(&worker("fat"), &runs(10, &["k", &"x".repeat(950_000)]));
    ledger.worker_is(&worker("w"), &runs(5, &["k"]));
    let lists = lists(&mut ledger);
    assert_eq!(lists.keys().collect::<Vec<_>>(), ["w"]);
    ledger.task_gone(&job("j").task(0));
    let bytes = |(_, record): &(WorkerId, WorkerRecord)| record.to_json().len();
    assert!(tidy(&mut ledger).lists.iter().all(|list| bytes(list) < 900_000));
    (1..10_000).for_each(|n| drop(ledger.task_gone(&job("j").task(n))));
    assert_eq!(tidy(&mut ledger).lists.len(), 1, "now it can be written");
}

#[test]
fn idle_jobs_are_named_by_how_long_they_are_idle_and_one_that_was_looked_at_begins_again() {
    let idle = |ledger: &Ledger, seconds: u64| -> Vec<String> {
        ledger.idle_for(Duration::from_secs(seconds)).map(ToString::to_string).collect()
    };
    let mut ledger = Ledger::default();
    for (at, name) in [(1, "c"), (2, "b"), (3, "a")] {
        ledger.passes(Duration::from_secs(at));
        submit(&mut ledger, name, 10 - at as i64, &record(|_| {}), 1);
        assert!(!ledger.is_idle(&job(name)));
        ledger.task_gone(&job(name).task(0));
    }
    ledger.passes(Duration::from_secs(10));
    assert_eq!(
        (idle(&ledger, 8), idle(&ledger, 7)),
        (vec!["c".into(), "b".into()], vec!["c".into(), "b".into(), "a".into()])
    );
    ledger.client_is(&job("b"), "client-1", true);
    ledger.idle_again(&job("c"));
    assert_eq!(idle(&ledger, 1), ["a"]);
    ledger.passes(Duration::from_secs(12));
    ledger.client_is(&job("b"), "client-1", false);
    ledger.job_gone(&job("a"));
    assert_eq!((idle(&ledger, 2), idle(&ledger, 0)), (vec!["c".into()], vec!["c".into(), "b".into()]));
    ledger.passes(Duration::from_secs(5));
    assert_eq!(idle(&ledger, 2), ["c"], "time does not go back");
}

#[test]
fn a_worker_whose_list_was_refused_is_given_nothing_for_a_minute_and_what_it_was_to_have_waits_again() {
    let mut ledger = backlog(4);
    ledger.wake(0);
    ledger.worker_is(&worker("w"), &runs(2, &["k"]));
    assert_eq!(write(&mut ledger).assigned, 2);
    ledger.task_gone(&job("j").task(0));
    assert_eq!(plan(&mut ledger).assigned, 1);
    ledger.list_refused(&worker("w"));
    assert_eq!(ledger.counts().assigned, 1, "what is in the tree stays");
    ledger.task_gone(&job("j").task(1));
    assert!(plan(&mut ledger).is_empty() && tidy(&mut ledger).is_empty());
    ledger.wake(60_000);
    assert_eq!(lists(&mut ledger)["w"], ["j/0000000002", "j/0000000003"]);
}

#[test]
fn a_task_that_may_not_be_written_counts_as_dead_until_it_is_at_another_version() {
    let mut ledger = backlog(1);
    ledger.worker_is(&worker("w"), &runs(1, &["k"]));
    write(&mut ledger);
    ledger.worker_gone(&worker("w"), None);
    assert_eq!(plan(&mut ledger).interrupted.len(), 1);
    ledger.task_is_refused(&job("j").task(0), 0);
    ledger.worker_is(&worker("other"), &runs(1, &["k"]));
    let as_it_is = (job("j").task(0), Some((0, TaskState::default())));
    ledger.tasks_are(&[(job("j"), 1, Some(kind("k")))], &[as_it_is], &[]);
    assert!(plan(&mut ledger).is_empty());
    assert_eq!((ledger.counts().dead, ledger.has_outstanding(&job("j"))), (1, false));
    ledger.task_is(&job("j").task(0), 1, &TaskState::default());
    assert_eq!(lists(&mut ledger)["other"], ["j/0000000000@1"]);
}
