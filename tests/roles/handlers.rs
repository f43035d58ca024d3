//! What handlers may do, and what their worker may lack, without harm to anybody else.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use coordination::SessionConfig;
use herdsman::cli::{self, Exit};
use herdsman::client::{Client, Finished, Job, JobSpec, Results, Selected, open};
use herdsman::handlers::{Handler, Handlers, Task, TaskError};
use herdsman::shutdown::{Shutdown, Stopper};
use herdsman::worker::Worker;
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tree::Policy;

use crate::support::herd::{master, worker_with};
use crate::support::{LIMIT, TIMEOUT, all, children, config_at, connect, fresh_config, until};

async fn opened(config: &SessionConfig, spec: JobSpec) -> (Job, Results) {
    let mut rng = StdRng::from_rng(&mut rand::rng());
    open(config, spec, &mut rng).await.expect("opened")
}

/// A job with these payloads, sealed, and all that becomes of it.
async fn done(config: &SessionConfig, spec: JobSpec, payloads: &[&str]) -> Vec<Finished> {
    let (job, results) = opened(config, spec).await;
    for payload in payloads {
        job.submit(payload.as_bytes().to_vec()).await.expect("acknowledged");
    }
    job.seal().await.expect("sealed");
    all(results).await
}

/// Runs a future as the programs do: on one thread that nothing else shares.
fn on_a_thread_of_its_own<T: Send + 'static>(
    future: impl Future<Output = T> + Send + 'static,
) -> tokio::sync::oneshot::Receiver<T> {
    let (ended, end) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let _ = ended.send(runtime.block_on(future));
    });
    end
}

/// Needs something of which its worker has so much; says by which worker it was run.
#[derive(Clone)]
struct Needy {
    worker: &'static str,
    has: Arc<Semaphore>,
    lacked: Arc<AtomicUsize>,
}

impl Needy {
    fn on(worker: &'static str, has: usize) -> Self {
        Needy { worker, has: Arc::new(Semaphore::new(has)), lacked: Arc::default() }
    }
}

impl Handler for Needy {
    async fn run(&self, _: Task) -> Result<Value, TaskError> {
        let Ok(_taken) = self.has.try_acquire() else {
            self.lacked.fetch_add(1, Ordering::SeqCst);
            return Err(TaskError::WorkerLacks("file descriptors".to_owned()));
        };
        sleep(Duration::from_millis(100)).await;
        Ok(json!(self.worker))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_lacks_something_fails_no_task_and_leaves_nearly_all_to_the_others() {
    let config = fresh_config();
    let _m = master(&config, "m");
    let (good, poor) = (Needy::on("good", 4), Needy::on("poor", 1));
    let grace = Duration::from_secs(1);
    let _good = worker_with(&config, "good", 4, Handlers::none().with("needy", good.clone()), grace);
    let _poor = worker_with(&config, "poor", 4, Handlers::none().with("needy", poor.clone()), grace);
    let session = connect(&config).await;
    until("the herd is there", async || children(&session, "/workers").await.len() == 2).await;
    let finished = done(&config, JobSpec::new("needy"), &[""; 100]).await;
    assert!(finished.iter().all(|finished| finished.is_done() && finished.attempts == 1), "{finished:?}");
    let by_good = finished.iter().filter(|finished| finished.result == json!("good")).count();
    assert!(by_good >= 85, "{by_good} of 100");
    let lacked = poor.lacked.load(Ordering::SeqCst);
    assert!((1..=30).contains(&lacked), "handed back {lacked} times");
    assert_eq!(good.lacked.load(Ordering::SeqCst), 0, "no more at once than it has slots");
}

/// Sleeps for so many milliseconds on no thread, then for so many on its own: `100`, or `0 4000`.
#[derive(Clone, Default)]
struct Sleeper {
    begun: Arc<AtomicUsize>,
}

impl Handler for Sleeper {
    async fn run(&self, task: Task) -> Result<Value, TaskError> {
        self.begun.fetch_add(1, Ordering::SeqCst);
        let text = String::from_utf8(task.payload)?;
        let (sleeps, blocks) = text.split_once(' ').unwrap_or((&text, "0"));
        sleep(Duration::from_millis(sleeps.parse()?)).await;
        std::thread::sleep(Duration::from_millis(blocks.parse()?));
        Ok(Value::Null)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn handlers_that_block_cost_no_session_and_delay_no_neighbour() {
    let config = fresh_config();
    let _m = master(&config, "m");
    let sleeper = Sleeper::default();
    let (stopper, shutdown) = Shutdown::new();
    let handlers = Handlers::none().with("sleeper", sleeper.clone());
    let worker = Worker { slots: 5, grace: LIMIT, ..Worker::new("w", handlers) };
    let of_worker = config.clone();
    let ended = on_a_thread_of_its_own(async move { herdsman::run(worker, &of_worker, &shutdown).await });
    let session = connect(&config).await;
    until("the herd is there", async || children(&session, "/workers").await.len() == 1).await;
    let registered = children(&session, "/workers").await;

    let length = TIMEOUT * 2;
    // The thread that blocks is the one that has just looked at the clock for all of them.
    let later = format!("300 {}", length.as_millis());
    let began = Instant::now();
    let blocking = tokio::spawn({
        let config = config.clone();
        async move { done(&config, JobSpec::new("sleeper"), &[later.as_str(); 4]).await }
    });
    until("those that block are begun", async || sleeper.begun.load(Ordering::SeqCst) == 4).await;
    for payloads in [&["500"][..], &["100"; 5]] {
        let neighbours = done(&config, JobSpec::new("sleeper"), payloads).await;
        assert!(neighbours.iter().all(|finished| finished.is_done() && finished.attempts == 1), "{neighbours:?}");
        assert!(began.elapsed() < length, "they waited for those that block: {:?}", began.elapsed());
    }
    let blocking = blocking.await.expect("no panic");
    assert!(blocking.iter().all(|finished| finished.is_done() && finished.attempts == 1), "{blocking:?}");
    assert_eq!(sleeper.begun.load(Ordering::SeqCst), 10, "each ran once");
    assert_eq!(children(&session, "/workers").await, registered, "on the session that it had");
    stopper.stop();
    ended.await.expect("no panic").expect("ZooKeeper is up");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_whose_cancelled_tasks_block_leaves_what_it_cannot_begin_to_the_others() {
    let config = fresh_config();
    let _m = master(&config, "m");
    let (rude, polite) = (Sleeper::default(), Sleeper::default());
    let _rude = worker_with(&config, "rude", 2, Handlers::none().with("sleeper", rude.clone()), LIMIT);
    let session = connect(&config).await;
    until("the first is there", async || children(&session, "/workers").await.len() == 1).await;
    let blocks = format!("0 {}", (LIMIT * 3).as_millis());
    let (job, _results) = opened(&config, JobSpec::new("sleeper")).await;
    for _ in 0..2 {
        job.submit(blocks.clone().into_bytes()).await.expect("acknowledged");
    }
    until("they block", async || rude.begun.load(Ordering::SeqCst) == 2).await;
    let client = Client::connect(&config).await.expect("ZooKeeper is up");
    let whole = Selected { job: job.id().clone(), tasks: None };
    assert_eq!(client.cancel(&whole, "enough").await.expect("cancelled"), 2);
    let _polite = worker_with(&config, "polite", 2, Handlers::none().with("sleeper", polite.clone()), LIMIT);
    until("both are there", async || children(&session, "/workers").await.len() == 2).await;
    let finished = timeout(LIMIT, done(&config, JobSpec::new("sleeper"), &["0"; 20])).await.expect("others run them");
    assert!(finished.iter().all(|finished| finished.is_done() && finished.attempts == 1), "{finished:?}");
    assert_eq!(polite.begun.load(Ordering::SeqCst), 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_time_of_an_attempt_is_over_also_where_its_handler_blocks() {
    let config = fresh_config();
    let _m = master(&config, "m");
    let _w = worker_with(&config, "w", 1, Handlers::none().with("sleeper", Sleeper::default()), LIMIT);
    let session = connect(&config).await;
    until("the herd is there", async || children(&session, "/workers").await.len() == 1).await;
    let blocks = format!("0 {}", (LIMIT * 3).as_millis());
    let policy = Policy { timeout_ms: Some(200), ..Policy::default() };
    let (spec, payloads) = (JobSpec { policy, ..JobSpec::new("sleeper") }, [blocks.as_str()]);
    let finished = timeout(LIMIT, done(&config, spec, &payloads)).await.expect("it does not wait for the handler");
    assert_eq!(finished[0].error.as_deref(), Some("timed out after 200ms"), "{finished:?}");
}

/// Panics when it is dropped, which is when its time is over.
struct Brittle;

impl Drop for Brittle {
    fn drop(&mut self) {
        panic!("in a destructor");
    }
}

struct BrittleTasks;

impl Handler for BrittleTasks {
    async fn run(&self, _: Task) -> Result<Value, TaskError> {
        let _brittle = Brittle;
        std::future::pending().await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_in_what_a_handler_drops_fails_its_attempt_and_frees_its_slot() {
    let config = fresh_config();
    let _m = master(&config, "m");
    let _w = worker_with(&config, "w", 1, Handlers::none().with("brittle", BrittleTasks), LIMIT);
    let session = connect(&config).await;
    until("the herd is there", async || children(&session, "/workers").await.len() == 1).await;
    let policy = Policy { timeout_ms: Some(200), ..Policy::default() };
    let spec = JobSpec { policy, ..JobSpec::new("brittle") };
    for finished in timeout(LIMIT, done(&config, spec, &[""; 2])).await.expect("they end") {
        assert_eq!(finished.error.as_deref(), Some("the handler panicked: in a destructor"), "{finished:?}");
    }
}

/// Starts what panics, and goes on.
struct Reckless(Stopper);

impl Handler for Reckless {
    async fn run(&self, task: Task) -> Result<Value, TaskError> {
        match task.payload.as_slice() {
            b"task" => tokio::spawn(async { panic!("in a task of a handler") }).await?,
            b"thread" => drop(std::thread::spawn(|| panic!("in a thread of a handler")).join()),
            b"blocking" => tokio::task::spawn_blocking(|| panic!("in a blocking task of a handler")).await?,
            _ => self.0.stop(),
        }
        Ok(Value::Null)
    }
}

/// Where a child of this test finds the herd.
const CHILD_OF: &str = "HERDSMAN_TEST_CHILD_OF";

#[test]
fn a_panic_in_what_a_handler_started_fails_that_task_at_most() {
    // The child is the worker, with all that a program does about panics.
    if let Ok(herd) = std::env::var(CHILD_OF) {
        let (address, chroot) = herd.split_once('/').expect("a chroot");
        let config = config_at(address, &format!("/{chroot}"));
        let _ = cli::run(async move {
            let (stopper, shutdown) = Shutdown::new();
            let handlers = Handlers::none().with("reckless", Reckless(stopper));
            let worker = Worker { slots: 1, grace: LIMIT, ..Worker::new("w", handlers) };
            herdsman::run(worker, &config, &shutdown).await.map_or(Exit::Lost, |()| Exit::Done)
        });
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let config = fresh_config();
        let _m = master(&config, "m");
        let session = connect(&config).await;
        until("the leader is there", async || children(&session, "/master").await.len() == 1).await;
        let myself = std::env::current_exe().expect("this test program");
        let mut child = Command::new(myself)
            .args(["--exact", "handlers::a_panic_in_what_a_handler_started_fails_that_task_at_most", "--nocapture"])
            .env(CHILD_OF, config.zookeeper.to_string())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("it can be run");
        let (job, results) = opened(&config, JobSpec::new("reckless")).await;
        for payload in ["task", "thread", "blocking", "stop"] {
            job.submit(payload.as_bytes().to_vec()).await.expect("acknowledged");
        }
        job.seal().await.expect("sealed");
        let status = tokio::task::spawn_blocking(move || child.wait()).await.expect("no panic").expect("it ends");
        assert_eq!(status.code(), Some(0), "the worker ends when it is told to, and not before");
        let mut finished = all(results).await;
        finished.sort_by(|a, b| a.task.cmp(&b.task));
        let failed: Vec<bool> = finished.iter().map(|finished| !finished.is_done()).collect();
        assert_eq!(failed, [true, false, true, false], "{finished:?}");
    });
}

/// Returns so many megabytes.
struct Generous;

impl Handler for Generous {
    async fn run(&self, task: Task) -> Result<Value, TaskError> {
        let megabytes: usize = String::from_utf8(task.payload)?.parse()?;
        Ok(Value::String("x".repeat(megabytes * 1_000_000)))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_result_is_kept_and_fetched_without_holding_up_the_session() {
    let config = fresh_config();
    let folder = tempfile::tempdir().expect("a folder");
    let spec = JobSpec { spill: Some(folder.path().to_owned()), ..JobSpec::new("generous") };
    let _m = master(&config, "m");
    let session = connect(&config).await;
    until("the leader is there", async || children(&session, "/master").await.len() == 1).await;
    // Worker and client live on this thread, as they do in their programs, and a clock that shows when it stands still.
    let (finished, stood_still) = on_a_thread_of_its_own(async move {
        let worker = worker_with(&config, "w", 1, Handlers::none().with("generous", Generous), LIMIT);
        let stood_still = Arc::new(AtomicUsize::new(0));
        let clock = tokio::spawn({
            let stood_still = stood_still.clone();
            async move {
                let (mut tick, mut before) = (interval(Duration::from_millis(10)), Instant::now());
                tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
                loop {
                    tick.tick().await;
                    stood_still.fetch_max(before.elapsed().as_millis() as usize, Ordering::SeqCst);
                    before = Instant::now();
                }
            }
        });
        let (job, mut results) = opened(&config, spec).await;
        job.submit(b"20".to_vec()).await.expect("acknowledged");
        job.seal().await.expect("sealed");
        let finished = results.next().await.expect("the herd lives").expect("an outcome");
        clock.abort();
        worker.stop().await;
        (finished, stood_still.load(Ordering::SeqCst))
    })
    .await
    .expect("no panic");
    assert!(finished.is_done(), "{:?}", finished.error);
    assert_eq!((finished.attempts, finished.result.as_str().map(str::len)), (1, Some(20_000_000)));
    assert!(stood_still < 500, "the thread of the sessions stood still for {stood_still} ms");
}
