//! The worker alone: the test plays the leader and writes its list.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use coordination::{Op, Session, SessionConfig};
use herdsman::handlers::{Handler, Handlers, Task, TaskError};
use lab::line::{Line, MULTI};
use serde_json::{Value, json};
use tokio::sync::Notify;
use tree::{JobRecord, Outcome, OutcomeStatus, Policy, TaskState, WorkerRecord};
use zookeeper_client as zk;

use crate::support::herd::{self, Member};
use crate::support::{LIMIT, children, connect, eventually, fresh_config, is_gone, node, through, until, zookeeper};

/// What a test does to a worker from outside.
struct Bench {
    session: Session,
    chroot: String,
}

impl Bench {
    async fn new(config: &SessionConfig) -> Self {
        let session = connect(config).await;
        let zookeeper = config.zookeeper.to_string();
        let chroot = zookeeper[zookeeper.find('/').expect("tests have a chroot")..].to_owned();
        for root in tree::ROOTS {
            let _ = session.write(Op::Create { path: root.to_owned(), data: Vec::new() }).await;
        }
        Bench { session, chroot }
    }

    async fn create(&self, path: &str, data: &[u8]) {
        self.session.write(Op::Create { path: path.to_owned(), data: data.to_vec() }).await.expect("created");
    }

    /// A znode with which everybody may do this, and nothing else.
    async fn create_for(&self, path: &str, data: &[u8], permission: zk::Permission) {
        let acl = [zk::Acl::new(permission, zk::AuthId::anyone())];
        let options = zk::CreateMode::Persistent.with_acls(zk::Acls::new(&acl));
        let client = zk::Client::connect(zookeeper()).await.expect("ZooKeeper is up");
        let client = client.chroot(self.chroot.clone()).expect("valid");
        client.create(path, data, &options).await.expect("created");
    }

    async fn delete(&self, path: &str) {
        self.session.write(Op::Delete { path: path.to_owned(), version: None }).await.expect("deleted");
    }

    /// A job `j` with one task for each payload.
    async fn job(&self, record: &JobRecord, payloads: &[&str]) {
        self.create("/tasks/j", &record.to_json()).await;
        self.create("/data/j", b"").await;
        for (n, payload) in payloads.iter().enumerate() {
            self.create(&format!("/data/j/{n:010}"), payload.as_bytes()).await;
            self.create(&format!("/tasks/j/{n:010}"), b"").await;
        }
    }

    async fn worker(&self) -> String {
        eventually("a worker registers", async || children(&self.session, "/workers").await.pop()).await
    }

    async fn assign(&self, worker: &str, entries: &[&str]) {
        let path = format!("/workers/{worker}");
        let mut record = WorkerRecord::from_json(&node(&self.session, &path).await.data).expect("valid");
        record.assigned = entries.iter().map(|e| (*e).to_owned()).collect();
        self.session.write(Op::Set { path, data: record.to_json(), version: None }).await.expect("set");
    }

    async fn outcome(&self, n: u32) -> Outcome {
        let path = format!("/data/j/{n:010}");
        let data = eventually("an outcome is committed", async || {
            self.session.get(&path).await.expect("readable").filter(|node| node.version == 1).map(|node| node.data)
        });
        Outcome::from_json(&data.await).expect("valid")
    }

    async fn state(&self, n: u32, version: i32) -> TaskState {
        let path = format!("/tasks/j/{n:010}");
        let data = eventually("the task is set", async || {
            self.session
                .get(&path)
                .await
                .expect("readable")
                .filter(|node| node.version == version)
                .map(|node| node.data)
        });
        TaskState::from_json(&data.await).expect("valid")
    }

    async fn is_outstanding(&self, n: u32) -> bool {
        self.session.get(&format!("/tasks/j/{n:010}")).await.expect("readable").is_some()
    }
}

fn kind(kind: &str) -> JobRecord {
    JobRecord::new(kind, vec![], Policy::default())
}

/// Counts how many of its tasks run, and how often one began; runs until released or stopped, or fails or panics if
/// told so.
#[derive(Clone, Default)]
struct Probe {
    /// The numbers of the tasks that run.
    running: Arc<Mutex<Vec<u64>>>,
    begun: Arc<AtomicUsize>,
    tokens: Arc<Mutex<Vec<String>>>,
    release: Arc<Notify>,
}

struct Running(Arc<Mutex<Vec<u64>>>, u64);

impl Drop for Running {
    fn drop(&mut self) {
        let mut running = self.0.lock().expect("no panic holds this lock");
        if let Some(at) = running.iter().position(|n| *n == self.1) {
            running.swap_remove(at);
        }
    }
}

impl Handler for Probe {
    async fn run(&self, task: Task) -> Result<Value, TaskError> {
        self.tokens.lock().expect("no panic holds this lock").push(task.token.to_string());
        self.begun.fetch_add(1, Ordering::SeqCst);
        let n = u64::from(task.id.n);
        self.running.lock().expect("no panic holds this lock").push(n);
        let _running = Running(self.running.clone(), n);
        match task.payload.as_slice() {
            b"fail" => Err(TaskError::new("told to")),
            b"panic" => panic!("told to"),
            b"attempt" => Ok(json!(task.attempt)),
            b"lack" => Err(TaskError::WorkerLacks("file descriptors".to_owned())),
            _ => {
                self.release.notified().await;
                Ok(Value::Null)
            }
        }
    }
}

impl Probe {
    fn running(&self) -> usize {
        self.which_run().len()
    }

    fn which_run(&self) -> Vec<u64> {
        let mut running = self.running.lock().expect("no panic holds this lock").clone();
        running.sort_unstable();
        running
    }

    fn begun(&self) -> usize {
        self.begun.load(Ordering::SeqCst)
    }

    /// The fencing tokens of what was begun, in order; each must be greater than the one before it.
    fn tokens(&self) -> Vec<String> {
        let tokens = self.tokens.lock().expect("no panic holds this lock").clone();
        assert!(tokens.is_sorted_by(|a, b| a < b), "{tokens:?}");
        tokens
    }
}

fn worker_with(config: &SessionConfig, probe: &Probe, slots: u32, grace: Duration) -> Member {
    herd::worker_with(config, "w", slots, Handlers::builtin().with("probe", probe.clone()), grace)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_runs_what_it_is_assigned_and_commits_each_outcome_with_the_task() {
    let config = fresh_config();
    let bench = Bench::new(&config).await;
    bench.job(&kind("echo"), &["zero", "one"]).await;
    let member = herd::worker(&config, "w");
    let worker = bench.worker().await;
    bench.assign(&worker, &["j/0000000000", "j/0000000001"]).await;
    for (n, text) in ["zero", "one"].into_iter().enumerate() {
        let outcome = bench.outcome(n as u32).await;
        assert_eq!(
            (outcome.status, outcome.worker.as_ref(), outcome.attempts),
            (OutcomeStatus::Done, Some(&worker), 1)
        );
        assert_eq!(outcome.result, json!(text));
        assert!(!bench.is_outstanding(n as u32).await, "in the same multi");
    }
    member.stop().await;
    assert!(children(&bench.session, "/workers").await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_run_at_once_than_there_are_slots_and_the_rest_wait_in_order() {
    // Nobody assigns anything anew here: the session has to outlive a pause of this machine.
    let config = SessionConfig { session_timeout: Duration::from_secs(10), ..fresh_config() };
    let (bench, probe) = (Bench::new(&config).await, Probe::default());
    bench.job(&kind("probe"), &["", "", ""]).await;
    let _member = worker_with(&config, &probe, 2, Duration::ZERO);
    let worker = bench.worker().await;
    bench.assign(&worker, &["j/0000000000", "j/0000000001", "j/0000000002"]).await;
    until("the first two run", async || probe.which_run() == [0, 1]).await;
    bench.assign(&worker, &["j/0000000001", "j/0000000002"]).await;
    // How many were begun is not asked: after a lost lease what runs is begun again.
    until("the withdrawn one stops and the third begins", async || probe.which_run() == [1, 2]).await;
    bench.assign(&worker, &[]).await;
    until("all stop", async || probe.running() == 0).await;
    assert!(bench.is_outstanding(0).await, "withdrawn is not completed");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_assignment_that_is_over_is_skipped() {
    let config = fresh_config();
    let bench = Bench::new(&config).await;
    bench.job(&kind("echo"), &["x", "y"]).await;
    let _member = herd::worker(&config, "w");
    let worker = bench.worker().await;
    // Never there; at another version; another job; and one that is to be done.
    let entries = ["j/0000000009", "j/0000000000@3", "gone/0000000000", "nonsense", "j/0000000001"];
    bench.assign(&worker, &entries).await;
    assert_eq!(bench.outcome(1).await.result, json!("y"));
    assert!(bench.is_outstanding(0).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_completion_of_an_older_attempt_is_refused() {
    let config = fresh_config();
    let bench = Bench::new(&config).await;
    bench.job(&kind("sleep"), &["0.3"]).await;
    let _member = herd::worker(&config, "w");
    let worker = bench.worker().await;
    bench.assign(&worker, &["j/0000000000"]).await;
    let bump = Op::Set { path: "/tasks/j/0000000000".to_owned(), data: br#"{"attempt":1}"#.to_vec(), version: Some(0) };
    bench.session.write(bump).await.expect("set");
    // Given again at the new version, while the first attempt still runs: the second one's outcome is the one kept.
    bench.assign(&worker, &["j/0000000000", "j/0000000000@1"]).await;
    let outcome = bench.outcome(0).await;
    assert_eq!(outcome.attempts, 2);
    assert!(!bench.is_outstanding(0).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_attempt_is_noted_and_after_the_last_one_the_task_is_dead() {
    let config = fresh_config();
    let (bench, probe) = (Bench::new(&config).await, Probe::default());
    let policy = Policy { max_attempts: 2, ..Policy::default() };
    bench.job(&JobRecord::new("probe", vec![], policy), &["fail"]).await;
    let _member = worker_with(&config, &probe, 1, Duration::ZERO);
    let worker = bench.worker().await;
    bench.assign(&worker, &["j/0000000000"]).await;
    let state = bench.state(0, 1).await;
    assert_eq!((state.attempt, state.failures, state.dead), (1, 1, false));
    let last = state.last().expect("an attempt");
    assert_eq!((last.error.as_str(), last.worker.as_str()), ("told to", worker.as_str()));
    bench.assign(&worker, &["j/0000000000@1"]).await;
    let state = bench.state(0, 2).await;
    assert_eq!((state.attempt, state.failures, state.dead), (2, 2, true));
    assert!(state.history.iter().all(|attempt| attempt.error == "told to" && attempt.worker == worker));
    assert_eq!(state.history.len(), 2, "each attempt is kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_panics_fails_its_task_and_not_the_worker() {
    let config = fresh_config();
    let (bench, probe) = (Bench::new(&config).await, Probe::default());
    bench.job(&kind("probe"), &["panic", "attempt"]).await;
    let _member = worker_with(&config, &probe, 1, Duration::ZERO);
    let worker = bench.worker().await;
    bench.assign(&worker, &["j/0000000000", "j/0000000001"]).await;
    let outcome = bench.outcome(0).await;
    assert_eq!(outcome.status, OutcomeStatus::Failed);
    assert!(outcome.error.expect("says why").contains("panicked: told to"));
    assert_eq!(bench.outcome(1).await.result, json!(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kind_that_the_worker_does_not_run_fails_with_a_clear_reason() {
    let config = fresh_config();
    let bench = Bench::new(&config).await;
    bench.job(&kind("exotic"), &["x"]).await;
    let _member = herd::worker(&config, "w");
    let worker = bench.worker().await;
    bench.assign(&worker, &["j/0000000000"]).await;
    assert!(bench.outcome(0).await.error.expect("says why").contains("'exotic'"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_without_a_payload_is_marked_dead_and_holds_nobody_up() {
    let config = fresh_config();
    let bench = Bench::new(&config).await;
    bench.job(&kind("echo"), &["x", "y"]).await;
    bench.delete("/data/j/0000000000").await;
    let _member = herd::worker_with(&config, "w", 1, Handlers::builtin(), Duration::ZERO);
    let worker = bench.worker().await;
    bench.assign(&worker, &["j/0000000000", "j/0000000001"]).await;
    let state = bench.state(0, 1).await;
    assert!(state.dead && state.last().expect("says why").error.contains("/data/j/0000000000"));
    assert_eq!(bench.outcome(1).await.result, json!("y"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_worker_hands_back_what_it_has_not_begun_at_once_and_finishes_the_rest() {
    let config = fresh_config();
    let (bench, probe) = (Bench::new(&config).await, Probe::default());
    bench.job(&kind("probe"), &["", "", ""]).await;
    let member = worker_with(&config, &probe, 1, Duration::from_secs(10));
    let worker = bench.worker().await;
    bench.assign(&worker, &["j/0000000000", "j/0000000001"]).await;
    until("the first runs", async || probe.running() == 1).await;
    let stopping = tokio::spawn(member.stop());
    let state = bench.state(1, 1).await;
    assert_eq!((state.attempt, state.returned_by.as_deref()), (0, Some(worker.as_str())));
    bench.assign(&worker, &["j/0000000000", "j/0000000002"]).await;
    assert_eq!(bench.state(2, 1).await.returned_by.as_deref(), Some(worker.as_str()), "nothing new is taken");
    assert!(bench.is_outstanding(0).await && !stopping.is_finished(), "the first has all its grace");
    probe.release.notify_one();
    assert_eq!(bench.outcome(0).await.status, OutcomeStatus::Done);
    stopping.await.expect("no panic");
    assert!(children(&bench.session, "/workers").await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_cannot_begin_a_task_hands_back_all_that_waits_uncounted_and_tries_again_after_a_pause() {
    let config = fresh_config();
    let (bench, probe) = (Bench::new(&config).await, Probe::default());
    bench.job(&kind("probe"), &["", "lack", "attempt", "attempt"]).await;
    let _member = worker_with(&config, &probe, 2, Duration::ZERO);
    let worker = bench.worker().await;
    bench.assign(&worker, &["j/0000000000", "j/0000000001", "j/0000000002"]).await;
    for n in [1, 2] {
        let state = bench.state(n, 1).await;
        assert_eq!((state.attempt, state.failures, state.history.len(), state.dead), (0, 0, 0, false));
        assert_eq!(state.returned_by.as_deref(), Some(worker.as_str()));
        assert!(state.returned_for_ms.is_some_and(|ms| (1..=500).contains(&ms)), "{state:?}");
    }
    // What comes within the pause is not begun; what runs goes on, and what comes later is begun.
    bench.assign(&worker, &["j/0000000000", "j/0000000003"]).await;
    assert!(bench.state(3, 1).await.returned_for_ms.is_some());
    assert_eq!((probe.begun(), probe.running()), (2, 1));
    let mut version = 1;
    let outcome = eventually("it is begun after the pause", async || {
        bench.assign(&worker, &["j/0000000000", &format!("j/0000000003@{version}")]).await;
        let task = bench.session.get("/tasks/j/0000000003").await.expect("readable");
        match task {
            Some(task) => version = task.version,
            None => return Some(bench.outcome(3).await),
        }
        None
    });
    assert_eq!(outcome.await.attempts, 1, "the first attempt");
    probe.release.notify_one();
    assert_eq!(bench.outcome(0).await.status, OutcomeStatus::Done);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_still_runs_after_the_grace_is_stopped_and_handed_back() {
    let config = fresh_config();
    let (bench, probe) = (Bench::new(&config).await, Probe::default());
    bench.job(&kind("probe"), &[""]).await;
    let member = worker_with(&config, &probe, 1, Duration::from_millis(100));
    let worker = bench.worker().await;
    bench.assign(&worker, &["j/0000000000"]).await;
    until("it runs", async || probe.running() == 1).await;
    member.stop().await;
    assert_eq!(probe.running(), 0);
    let state = bench.state(0, 1).await;
    assert_eq!((state.attempt, state.failures), (1, 0), "an attempt, but not a failed one");
    assert!(state.last().expect("says why").error.contains("100ms"));
}

#[tokio::test(flavor = "multi_thread")]
async fn hazard_18_a_worker_whose_znode_is_gone_begins_anew_under_another_id() {
    let config = fresh_config();
    let (bench, probe) = (Bench::new(&config).await, Probe::default());
    bench.job(&kind("probe"), &[""]).await;
    let _member = worker_with(&config, &probe, 1, Duration::ZERO);
    let first = bench.worker().await;
    bench.assign(&first, &["j/0000000000"]).await;
    until("it runs", async || probe.running() == 1).await;
    bench.delete(&format!("/workers/{first}")).await;
    until("what ran is stopped", async || probe.running() == 0).await;
    let second = bench.worker().await;
    assert_ne!(first, second);
    bench.assign(&second, &["j/0000000000"]).await;
    until("and runs again", async || probe.running() == 1).await;
    assert_eq!(probe.tokens().len(), 2, "at the same version, with a greater token");
}

#[tokio::test(flavor = "multi_thread")]
async fn hazard_16_a_worker_that_is_cut_off_stops_its_tasks_before_anybody_sees_it_gone() {
    let config = fresh_config();
    let (bench, probe) = (Bench::new(&config).await, Probe::default());
    bench.job(&kind("probe"), &[""]).await;
    let line = Line::to(zookeeper()).await.expect("a port");
    let through = through(&line, &config);
    let _member = worker_with(&through, &probe, 1, Duration::ZERO);
    let worker = bench.worker().await;
    bench.assign(&worker, &["j/0000000000"]).await;
    until("it runs", async || probe.running() == 1).await;
    line.drop_requests();
    until("its tasks are stopped", async || probe.running() == 0).await;
    let path = format!("/workers/{worker}");
    node(&bench.session, &path).await; // still there: nobody can have been given the task yet
    let began = Instant::now();
    until("it is gone", async || bench.session.get(&path).await.expect("readable").is_none()).await;
    assert!(began.elapsed() < LIMIT);
    line.mend();
    let anew = bench.worker().await;
    assert_ne!(anew, worker);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_back_before_its_session_ends_begins_its_tasks_again() {
    let config = fresh_config();
    let (bench, probe) = (Bench::new(&config).await, Probe::default());
    bench.job(&kind("probe"), &[""]).await;
    let line = Line::to(zookeeper()).await.expect("a port");
    let mut through = through(&line, &config);
    through.session_timeout = Duration::from_secs(6);
    let _member = worker_with(&through, &probe, 1, Duration::ZERO);
    let worker = bench.worker().await;
    bench.assign(&worker, &["j/0000000000"]).await;
    until("it runs", async || probe.running() == 1).await;
    line.cut();
    until("its task is stopped", async || probe.running() == 0).await;
    line.mend();
    until("it is begun again, or the worker is new", async || {
        probe.begun() == 2 || children(&bench.session, "/workers").await != [worker.clone()]
    })
    .await;
    if let [first, second] = &probe.tokens()[..] {
        let [(list, run), (list_again, run_again)] =
            [first, second].map(|token| token.split_once('-').expect("two parts"));
        assert_eq!((list, run, run_again), (list_again, "0000000001", "0000000002"), "the same entry, run again");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_written_a_moment_before_a_worker_leaves_is_handed_back_and_not_lost() {
    let config = fresh_config();
    let bench = Bench::new(&config).await;
    bench.job(&kind("echo"), &["x", "y"]).await;
    let line = Line::to(zookeeper()).await.expect("a port");
    let member = herd::worker(&through(&line, &config), "w");
    let worker = bench.worker().await;
    bench.assign(&worker, &["j/0000000000"]).await;
    bench.outcome(0).await; // so it has read its list
    line.delay(Duration::from_millis(300));
    bench.assign(&worker, &["j/0000000001"]).await;
    member.stop().await; // long before it hears of that
    let state = bench.state(1, 1).await;
    assert_eq!((state.attempt, state.crashes, state.returned_by.as_deref()), (0, 0, Some(worker.as_str())));
    assert!(children(&bench.session, "/workers").await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_whose_leave_is_not_answered_leaves_all_the_same() {
    let config = fresh_config();
    let bench = Bench::new(&config).await;
    let line = Line::to(zookeeper()).await.expect("a port");
    let member = herd::worker(&through(&line, &config), "w");
    bench.worker().await;
    line.cut_reply_to(MULTI);
    let began = Instant::now();
    member.stop().await;
    assert_eq!(line.replies_cut(), 1);
    assert!(began.elapsed() < LIMIT);
    assert!(children(&bench.session, "/workers").await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_completion_whose_reply_was_lost_is_committed_once() {
    let config = fresh_config();
    let bench = Bench::new(&config).await;
    bench.job(&kind("sleep"), &["0.3"]).await;
    let line = Line::to(zookeeper()).await.expect("a port");
    let _member = herd::worker(&through(&line, &config), "w");
    let worker = bench.worker().await;
    bench.assign(&worker, &["j/0000000000"]).await;
    line.cut_reply_to(MULTI);
    let outcome = bench.outcome(0).await;
    assert_eq!((outcome.status, outcome.attempts), (OutcomeStatus::Done, 1));
    assert_eq!(node(&bench.session, "/data/j/0000000000").await.version, 1);
    until("the reply was cut off", async || line.replies_cut() == 1).await;
    // And the worker goes on.
    bench.create("/data/j/0000000001", b"0").await;
    bench.create("/tasks/j/0000000001", b"").await;
    bench.assign(&worker, &["j/0000000001"]).await;
    assert_eq!(bench.outcome(1).await.worker, Some(worker));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_whose_outcome_may_not_be_written_has_failed_for_that_reason() {
    let config = fresh_config();
    let (bench, probe) = (Bench::new(&config).await, Probe::default());
    let policy = Policy { max_attempts: 2, ..Policy::default() };
    bench.job(&JobRecord::new("probe", vec![], policy), &["attempt", "attempt"]).await;
    // What the first would be written to can only be read, and of the second job's tasks none can be deleted.
    bench.delete("/data/j/0000000000").await;
    bench.create_for("/data/j/0000000000", b"attempt", zk::Permission::READ).await;
    let record = JobRecord::new("probe", vec![], Policy::default()).to_json();
    bench.create_for("/tasks/k", &record, zk::Permission::READ | zk::Permission::WRITE | zk::Permission::CREATE).await;
    bench.create("/data/k", b"").await;
    bench.create("/data/k/0000000000", b"attempt").await;
    bench.create("/tasks/k/0000000000", b"").await;
    let _member = worker_with(&config, &probe, 1, Duration::ZERO);
    let worker = bench.worker().await;
    bench.assign(&worker, &["j/0000000000", "k/0000000000", "j/0000000001"]).await;
    assert_eq!(bench.outcome(1).await.status, OutcomeStatus::Done, "it holds nobody up");
    let state = bench.state(0, 1).await;
    assert_eq!((state.attempt, state.failures, state.dead), (1, 1, false));
    let error = state.last().expect("an attempt").error.clone();
    assert!(error.contains("/data/j/0000000000") && error.contains("not authorized"), "{error}");
    bench.assign(&worker, &["j/0000000000@1", "k/0000000000"]).await;
    assert!(bench.state(0, 2).await.dead, "out of attempts");
    let state = eventually("the task of the other job is set", async || {
        let node = node(&bench.session, "/tasks/k/0000000000").await;
        (node.version == 1).then(|| TaskState::from_json(&node.data).expect("valid"))
    });
    assert!(state.await.dead, "no outcome can be written, and it had no other attempt");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_withdrawn_run_ends_with_is_not_the_end_of_the_next_at_the_same_version() {
    let config = fresh_config();
    let (bench, probe) = (Bench::new(&config).await, Probe::default());
    bench.job(&kind("probe"), &["", "attempt", "attempt"]).await;
    let _member = worker_with(&config, &probe, 3, Duration::ZERO);
    let worker = bench.worker().await;
    bench.assign(&worker, &["j/0000000000"]).await;
    until("it runs", async || probe.running() == 1).await;
    bench.assign(&worker, &["j/0000000001"]).await;
    bench.outcome(1).await; // so the withdrawal was seen
    bench.assign(&worker, &["j/0000000000"]).await;
    until("it runs again", async || probe.begun() == 3).await;
    probe.release.notify_one(); // the first, which has its grace
    until("one has ended", async || probe.running() == 1).await;
    bench.assign(&worker, &["j/0000000000", "j/0000000002"]).await;
    bench.outcome(2).await; // committed after whatever came before
    assert!(bench.is_outstanding(0).await, "the second run goes on");
    probe.release.notify_one();
    bench.outcome(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_gets_its_payload_and_what_it_prints_is_kept_up_to_a_limit() {
    let config = fresh_config();
    let bench = Bench::new(&config).await;
    let script = "cat; echo \"$HERDSMAN_TASK $HERDSMAN_ATTEMPT\" >&2; head -c 200000 /dev/zero | tr '\\0' x; exit 3";
    let args = ["sh", "-c", script].map(str::to_owned).to_vec();
    bench.job(&JobRecord::new("exec", args, Policy::default()), &["from stdin|"]).await;
    let _member = herd::worker(&config, "w");
    let worker = bench.worker().await;
    bench.assign(&worker, &["j/0000000000"]).await;
    let outcome = bench.outcome(0).await;
    assert_eq!((outcome.status, outcome.error.as_deref()), (OutcomeStatus::Failed, Some("exit code 3")));
    assert_eq!(outcome.result["exit"], 3);
    assert_eq!(outcome.result["stderr"], "j/0000000000 1\n");
    let stdout = outcome.result["stdout"].as_str().expect("text");
    assert!(stdout.starts_with("from stdin|xxx"));
    assert_eq!(stdout.len(), 96 * 1024);
    assert_eq!(outcome.result["stdout_dropped_bytes"], 200_000 + 11 - 96 * 1024);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_withdrawn_program_ends_with_everything_that_it_started() {
    let config = fresh_config();
    let bench = Bench::new(&config).await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("pids");
    let script = format!("sleep 100 & echo $! $$ > {0}.new; mv {0}.new {0}; wait", file.display());
    let args = ["sh", "-c", &script].map(str::to_owned).to_vec();
    bench.job(&JobRecord::new("exec", args, Policy::default()), &[""]).await;
    let _member = herd::worker(&config, "w");
    let worker = bench.worker().await;
    bench.assign(&worker, &["j/0000000000"]).await;
    let pids = eventually("the program runs", async || std::fs::read_to_string(&file).ok()).await;
    bench.assign(&worker, &[]).await;
    for pid in pids.split_whitespace() {
        until("it is gone", async || is_gone(pid)).await;
    }
}
