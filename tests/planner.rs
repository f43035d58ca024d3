//! The ledger and the planner, without a server.

use std::collections::{BTreeMap, BTreeSet};

use herdsman::ledger::Ledger;
use herdsman::plan::{plan, rebalance, tidy};
use herdsman::records::{
    Assignment, JobId, JobRecord, OutcomeStatus, Policy, TaskId, TaskState, Withdrawn, WorkerId, WorkerRecord,
};
use proptest::prelude::*;

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

/// The lists that a plan writes, as text.
fn lists(ledger: &mut Ledger) -> BTreeMap<String, Vec<String>> {
    plan(ledger).lists.into_iter().map(|(id, record)| (id.to_string(), record.assigned)).collect()
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
    plan(&mut ledger);
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
    plan(&mut ledger);
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
    plan(&mut ledger);
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
    plan(&mut ledger);
    let back = TaskState { returned_by: Some("w".to_owned()), ..TaskState::default() };
    assert_eq!(ledger.task_is(&job("j").task(1), 1, &back), Some(worker("w")));
    assert!(plan(&mut ledger).is_empty());
    ledger.worker_is(&worker("x"), &runs(2, &["k"]));
    assert_eq!(lists(&mut ledger)["x"], ["j/0000000001@1"]);
}

#[test]
fn what_exceeds_a_window_moves_to_an_idle_worker_and_the_loser_is_written_first() {
    let mut ledger = backlog(6);
    ledger.worker_is(&worker("z"), &runs(2, &["k"]));
    ledger.set_window(&worker("z"), 6);
    plan(&mut ledger);
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
    assert_eq!(moved.lists[1].1.assigned, ["j/0000000005", "j/0000000004"]);
}

#[test]
fn a_takeover_moves_nothing_that_a_live_worker_has() {
    let mut ledger = backlog(5);
    ledger.worker_is(&worker("w"), &runs(2, &["k"]));
    let written = plan(&mut ledger).lists;
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
    plan(&mut ledger);
    ledger.worker_is(&worker("busy"), &runs(2, &["k"]));
    ledger.set_window(&worker("busy"), 3);
    plan(&mut ledger);
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
fn in_a_storm_of_lost_workers_no_task_is_charged_and_none_assigned_again_before_its_end() {
    let mut ledger = backlog(3);
    ledger.wake(1_000);
    ledger.worker_is(&worker("w"), &runs(2, &["k"]));
    ledger.set_window(&worker("w"), 3);
    plan(&mut ledger);
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

/// What can happen to a herd, from the leader's point of view.
#[derive(Debug, Clone)]
enum Event {
    Job(u8),
    Submit(u8, u8),
    Complete(u8, u8),
    Fail(u8, u8),
    Join(u8, u32),
    Leave(u8),
    Window(u8, usize),
    CloseJob(u8),
    Rebalance,
    Lead,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        1 => (0..4u8).prop_map(Event::Job),
        6 => (0..4u8, 0..20u8).prop_map(|(j, n)| Event::Submit(j, n)),
        4 => (0..4u8, 0..20u8).prop_map(|(j, n)| Event::Complete(j, n)),
        1 => (0..4u8, 0..20u8).prop_map(|(j, n)| Event::Fail(j, n)),
        2 => (0..5u8, 1..4u32).prop_map(|(w, slots)| Event::Join(w, slots)),
        1 => (0..5u8).prop_map(Event::Leave),
        1 => (0..5u8, 0..12usize).prop_map(|(w, window)| Event::Window(w, window)),
        1 => (0..4u8).prop_map(Event::CloseJob),
        1 => Just(Event::Rebalance),
        1 => Just(Event::Lead),
    ]
}

/// The tree, as far as a leader cares: the truth that the ledger shadows.
#[derive(Debug, Default)]
struct Tree {
    jobs: BTreeMap<JobId, (i64, JobRecord)>,
    tasks: BTreeMap<TaskId, i32>,
    workers: BTreeMap<WorkerId, WorkerRecord>,
    /// Ids that were used; none is used twice.
    used: BTreeSet<TaskId>,
    incarnations: i64,
}

impl Tree {
    fn read(&self) -> Ledger {
        let mut ledger = Ledger::default();
        let jobs: Vec<_> = self.jobs.iter().map(|(id, (czxid, r))| (id.clone(), *czxid, Some(r.clone()))).collect();
        let tasks: Vec<_> = self.tasks.iter().map(|(id, v)| (id.clone(), Some((*v, TaskState::default())))).collect();
        let workers: Vec<_> = self.workers.iter().map(|(id, r)| (id.clone(), r.clone())).collect();
        ledger.tasks_are(&jobs, &tasks, &[]);
        ledger.workers_are(&workers, true);
        ledger
    }
}

/// Carries out what the plan says, and tells the ledger what the tree would tell.
fn write(tree: &mut Tree, ledger: &mut Ledger) -> Result<(), TestCaseError> {
    loop {
        let next = plan(ledger);
        if next.is_empty() {
            break;
        }
        for (id, record) in &next.lists {
            tree.workers.insert(id.clone(), record.clone());
            prop_assert_eq!(ledger.load(id).map(|(_, length)| length), Some(record.assigned.len()));
        }
        for (task, ended) in &next.interrupted {
            prop_assert_eq!(tree.tasks.insert(task.clone(), ended.version + 1), Some(ended.version));
            ledger.task_is(task, ended.version + 1, &ended.state);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn no_task_is_in_two_lists_and_none_waits_while_a_worker_could_take_it(events in proptest::collection::vec(event(), 1..120)) {
        let (mut tree, mut ledger) = (Tree::default(), Ledger::default());
        let mut names: BTreeMap<u8, JobId> = BTreeMap::new();
        let mut workers: BTreeMap<u8, WorkerId> = BTreeMap::new();
        for event in events {
            match event {
                Event::Job(j) => {
                    tree.incarnations += 1;
                    let id = job(&format!("job{j}-{}", tree.incarnations));
                    if let std::collections::btree_map::Entry::Vacant(name) = names.entry(j) {
                        name.insert(id.clone());
                        let mut record = kind(if j == 3 { "rare" } else { "k" });
                        record.policy.crash_limit = 0; // no task is kept apart from others
                        ledger.job_is(&id, tree.incarnations, Some(&record));
                        tree.jobs.insert(id, (tree.incarnations, record));
                    }
                }
                Event::Submit(j, n) => if let Some(id) = names.get(&j) {
                    let task = id.task(u32::from(n));
                    if tree.used.insert(task.clone()) {
                        ledger.task_is(&task, 0, &TaskState::default());
                        tree.tasks.insert(task, 0);
                    }
                },
                Event::Complete(j, n) => if let Some(id) = names.get(&j) {
                    let task = id.task(u32::from(n));
                    if tree.tasks.remove(&task).is_some() {
                        ledger.task_gone(&task);
                        ledger.task_gone(&task); // events come twice
                    }
                },
                Event::Fail(j, n) => if let Some(id) = names.get(&j) {
                    let task = id.task(u32::from(n));
                    if let Some(version) = tree.tasks.get_mut(&task) {
                        *version += 1;
                        ledger.task_is(&task, *version, &TaskState::default());
                    }
                },
                Event::Join(w, slots) => {
                    tree.incarnations += 1;
                    let id = worker(&format!("worker{w}-{}", tree.incarnations));
                    if let std::collections::btree_map::Entry::Vacant(name) = workers.entry(w) {
                        name.insert(id.clone());
                        let record = if w == 4 { runs(slots, &["k", "rare"]) } else { runs(slots, &["k"]) };
                        ledger.worker_is(&id, &record);
                        tree.workers.insert(id, record);
                    }
                }
                Event::Leave(w) => if let Some(id) = workers.remove(&w) {
                    ledger.worker_gone(&id, None);
                    tree.workers.remove(&id);
                },
                Event::Window(w, window) => if let Some(id) = workers.get(&w) {
                    ledger.set_window(id, window);
                },
                Event::CloseJob(j) => if let Some(id) = names.remove(&j) {
                    ledger.job_gone(&id);
                    tree.jobs.remove(&id);
                    tree.tasks.retain(|task, _| task.job != id);
                },
                Event::Rebalance => {
                    let crowded: Vec<WorkerId> = ledger.crowded().cloned().collect();
                    for (id, record) in rebalance(&mut ledger, &crowded).lists {
                        tree.workers.insert(id, record);
                    }
                }
                Event::Lead => {
                    ledger = tree.read(); // another master takes over, with nothing but the tree
                }
            }
            write(&mut tree, &mut ledger)?;

            // In the tree: no live assignment twice, and none but to a worker that runs the kind.
            let mut held = BTreeMap::new();
            for (id, record) in &tree.workers {
                for entry in &record.assigned {
                    let assignment: Assignment = entry.parse().expect("we wrote it");
                    if tree.tasks.get(&assignment.task) != Some(&assignment.version) {
                        continue; // over; dropped with the next write
                    }
                    let kind = &tree.jobs[&assignment.task.job].1.kind;
                    prop_assert!(record.kinds.contains(kind));
                    prop_assert_eq!(held.insert(assignment.task, id.clone()), None);
                }
            }
            // The ledger agrees with the tree, and so would one that read it anew.
            let counts = ledger.counts();
            prop_assert_eq!(counts.assigned, held.len());
            prop_assert_eq!(counts.waiting + counts.assigned, tree.tasks.len());
            prop_assert_eq!(tree.read().counts(), counts);
            // Whoever waits, waits for a slot: no worker that runs the kind has one to spare.
            for task in tree.tasks.keys().filter(|task| !held.contains_key(*task)) {
                let kind = &tree.jobs[&task.job].1.kind;
                for (id, record) in &tree.workers {
                    let (slots, length) = ledger.load(id).expect("known");
                    prop_assert!(!record.kinds.contains(kind) || length >= slots, "{task} waits while {id} is idle");
                }
            }
        }
    }
}
