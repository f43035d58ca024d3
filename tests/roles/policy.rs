//! What people expect of a task: retries, timeouts, cancel, order, keys, attached jobs, retention.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use coordination::{Session, SessionConfig};
use herdsman::client::{
    self, Client, ClientError, Finished, FinishedStatus, Job, JobSpec, LogLine, Results, Selected, open,
};
use herdsman::handlers::{Handler, Handlers, Task, TaskError};
use lab::line::{Line, MULTI};
use serde_json::Value;
use tree::{JobId, Policy};

use crate::support::herd::{Member, exec, master, master_with_retention, worker, worker_with};
use crate::support::{all, children, connect, fresh_config, is_gone, through, until, zookeeper};

pub async fn herd(config: &SessionConfig) -> (Member, Member, Session) {
    let members = (master(config, "m"), worker(config, "w"));
    let session = connect(config).await;
    until("the herd is there", async || {
        children(&session, "/workers").await.len() == 1 && children(&session, "/master").await.len() == 1
    })
    .await;
    (members.0, members.1, session)
}

pub fn shell(script: &str, policy: Policy) -> JobSpec {
    let args = ["sh", "-c", script].map(str::to_owned).to_vec();
    JobSpec { args, policy, ..JobSpec::new("exec") }
}

async fn opened(config: &SessionConfig, spec: JobSpec) -> (Job, Results) {
    open(config, spec, &mut rand::rng()).await.expect("opened")
}

/// Submits so many tasks without a payload, and seals the job.
pub async fn submitted(config: &SessionConfig, spec: JobSpec, tasks: u32) -> (JobId, Results) {
    let (job, results) = opened(config, spec).await;
    for _ in 0..tasks {
        job.submit(Vec::new()).await.expect("acknowledged");
    }
    job.seal().await.expect("sealed");
    (job.id().clone(), results)
}

pub fn whole(job: &JobId) -> Selected {
    Selected { job: job.clone(), tasks: None }
}

fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    i64::try_from(now.as_millis()).expect("in range")
}

fn lines(file: &Path) -> usize {
    std::fs::read_to_string(file).unwrap_or_default().lines().count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_fails_is_attempted_again_after_its_backoff() {
    let config = fresh_config();
    let (_m, _w, session) = herd(&config).await;
    let folder = tempfile::tempdir().expect("a folder");
    let log = folder.path().join("attempts");
    let script = format!("echo $HERDSMAN_TOKEN >> {0}; test $(wc -l < {0}) -ge 3", log.display());
    let policy = Policy { max_attempts: 5, backoff_ms: 400, backoff_max_ms: 10_000, ..Policy::default() };
    let began = Instant::now();
    let (_, results) = submitted(&config, shell(&script, policy), 1).await;
    let finished = all(results).await;
    assert_eq!((finished[0].status, finished[0].attempts), (FinishedStatus::Done, 3));
    // At least half of 400 ms, and then of 800 ms.
    assert!(began.elapsed() >= Duration::from_millis(600), "{:?}", began.elapsed());
    let tokens = std::fs::read_to_string(&log).expect("written");
    let tokens: Vec<&str> = tokens.lines().collect();
    assert!(tokens.is_sorted_by(|a, b| a < b), "{tokens:?}");
    assert!(
        tokens.iter().all(|token| token.ends_with("-0000000001")),
        "each attempt is another assignment: {tokens:?}"
    );
    assert!(children(&session, "/tasks").await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_out_of_attempts_is_kept_as_dead_with_each_error_until_it_is_retried() {
    let config = fresh_config();
    let (_m, _w, session) = herd(&config).await;
    let folder = tempfile::tempdir().expect("a folder");
    let script = format!("test -e {}/mended || exit 7", folder.path().display());
    let policy = Policy { max_attempts: 2, ..Policy::default() };
    let (job, results) = submitted(&config, shell(&script, policy), 1).await;
    let finished = all(results).await;
    assert_eq!((finished[0].status, finished[0].error.as_deref()), (FinishedStatus::Dead, Some("exit code 7")));
    let client = Client::connect(&config).await.expect("connected");
    let dead = client.dead(&whole(&job)).await.expect("readable");
    let errors: Vec<&str> = dead[0].1.history.iter().map(|attempt| attempt.error.as_str()).collect();
    assert_eq!(errors, ["exit code 7", "exit code 7"]);
    let why = client.explain(&whole(&job)).await.expect("explained").concat();
    assert!(why.contains("dead after 2 attempts: exit code 7"), "{why}");

    std::fs::write(folder.path().join("mended"), "").expect("writable");
    assert_eq!(client.retry(&whole(&job)).await.expect("retried"), 1);
    let mut client = client;
    assert_eq!(client.wait(&job, |_| {}).await.expect("waited").done, 1);
    let attempted = |finished: &[Finished]| {
        assert_eq!(finished.iter().map(|finished| finished.attempts).collect::<Vec<_>>(), [3]);
        Ok(())
    };
    client.results(&job, false, false, attempted).await.expect("collected");
    assert!(children(&session, "/tasks").await.is_empty() && children(&session, "/data").await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_that_takes_too_long_is_ended_with_its_program() {
    let config = fresh_config();
    let (_m, _w, _session) = herd(&config).await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("pids");
    let script = format!("sleep 100 & echo $! $$ > {0}.new; mv {0}.new {0}; wait", file.display());
    let policy = Policy { timeout_ms: Some(200), ..Policy::default() };
    let (_, results) = submitted(&config, shell(&script, policy), 1).await;
    let finished = all(results).await;
    let ended = (finished[0].status, finished[0].error.as_deref());
    assert_eq!(ended, (FinishedStatus::Failed, Some("timed out after 200ms")));
    let pids = std::fs::read_to_string(&file).expect("it ran");
    for pid in pids.split_whitespace() {
        until("it is gone", async || is_gone(pid)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_program_gets_sigterm_with_all_that_it_started_and_its_slot_is_free_soon() {
    let config = fresh_config();
    let _m = master(&config, "m");
    let handlers = Handlers::builtin().with("exec", exec());
    let _w = worker_with(&config, "w", 1, handlers, Duration::from_secs(1));
    let session = connect(&config).await;
    until("the herd is there", async || children(&session, "/workers").await.len() == 1).await;
    let folder = tempfile::tempdir().expect("a folder");
    let (begun, ended) = (folder.path().join("begun"), folder.path().join("ended"));
    // A program and its child: both hear of it; the child does not end by SIGTERM.
    let script = format!(
        "trap 'echo parent >> {1}; wait' TERM; \
         sh -c 'trap \"echo child >> {1}\" TERM; echo x >> {0}; while :; do sleep 0.05; done' & wait",
        begun.display(),
        ended.display()
    );
    let (job, results) = submitted(&config, shell(&script, Policy::default()), 1).await;
    until("it runs", async || lines(&begun) == 1).await;
    let client = Client::connect(&config).await.expect("connected");
    let first = Selected { job: job.clone(), tasks: Some(0..=0) };
    assert_eq!(client.cancel(&first, "wrong input").await.expect("cancelled"), 1);
    let finished = all(results).await;
    let ended_as = (finished[0].status, finished[0].error.as_deref());
    assert_eq!(ended_as, (FinishedStatus::Cancelled, Some("wrong input")));
    // The child does not end by itself, and the one slot is free all the same, when it was dropped.
    let (_, next) = submitted(&config, JobSpec::new("echo"), 1).await;
    assert_eq!(all(next).await.len(), 1);
    until("both heard of it", async || lines(&ended) == 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_outstanding_of_a_job_that_ran_out_of_time_is_cancelled() {
    let config = fresh_config();
    let (_m, _w, session) = herd(&config).await;
    let policy = Policy { deadline_ms: Some(now_ms() + 4_000), ..Policy::default() };
    let (job, results) = opened(&config, JobSpec { policy, ..JobSpec::new("sleep") }).await;
    for seconds in ["0", "100", "100", "100", "100", "100"] {
        job.submit(seconds.into()).await.expect("acknowledged");
    }
    job.seal().await.expect("sealed");
    let finished = all(results).await;
    let cancelled = finished.iter().filter(|finished| finished.status == FinishedStatus::Cancelled);
    assert_eq!(cancelled.filter(|f| f.error.as_deref() == Some("the job ran out of time")).count(), 5);
    assert!(children(&session, "/tasks").await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_after_another_begins_when_that_has_succeeded_and_is_aborted_when_it_has_not() {
    let config = fresh_config();
    let (_m, _w, session) = herd(&config).await;
    let folder = tempfile::tempdir().expect("a folder");
    let log = folder.path().join("order");
    let note = |word: &str, end: &str| format!("{end}; s=$?; echo {word} >> {}; exit $s", log.display());
    let after = |job: &JobId, spec: JobSpec| JobSpec { after: vec![job.clone()], ..spec };
    let (first, first_results) = submitted(&config, shell(&note("first", "sleep 0.5"), Policy::default()), 2).await;
    let second = after(&first, shell(&note("second", "true"), Policy::default()));
    let (second, second_results) = submitted(&config, second, 1).await;
    let client = Client::connect(&config).await.expect("connected");
    let why = client.explain(&whole(&second)).await.expect("explained").concat();
    assert!(why.contains(&format!("waits for job {first}")), "{why}");
    // Its client collects and closes it before anybody has looked how it ended.
    assert!(all(first_results).await.iter().all(Finished::is_done));
    assert!(all(second_results).await.iter().all(Finished::is_done));
    assert_eq!(std::fs::read_to_string(&log).expect("written"), "first\nfirst\nsecond\n");

    let (failing, failing_results) = submitted(&config, shell("sleep 0.2; exit 1", Policy::default()), 1).await;
    let (_, never) = submitted(&config, after(&failing, shell(&note("never", "true"), Policy::default())), 2).await;
    assert_eq!(all(failing_results).await[0].status, FinishedStatus::Failed);
    let never = all(never).await;
    assert!(never.iter().all(|finished| finished.status == FinishedStatus::Aborted), "{never:?}");
    assert_eq!(never[0].error, Some(format!("job {failing} did not succeed")));
    until("nothing is left", async || {
        children(&session, "/tasks").await.is_empty() && children(&session, "/data").await.is_empty()
    })
    .await;
    let missing = open(&config, after(&failing, JobSpec::new("echo")), &mut rand::rng()).await;
    assert!(matches!(missing, Err(ClientError::NotFound(job)) if job == failing));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_job_at_most_is_outstanding_under_a_key_also_when_the_reply_to_its_opening_is_lost() {
    let config = fresh_config();
    let (_m, _w, session) = herd(&config).await;
    let keyed = || JobSpec { key: Some("nightly".to_owned()), ..JobSpec::new("echo") };
    let line = Line::to(zookeeper()).await.expect("a port");
    line.cut_reply_to(MULTI);
    let (job, results) = opened(&through(&line, &config), keyed()).await;
    assert_eq!(line.replies_cut(), 1);
    for _ in 0..3 {
        match open(&config, keyed(), &mut rand::rng()).await {
            Err(ClientError::KeyTaken { job: holder, .. }) => assert_eq!(holder, *job.id()),
            other => panic!("{other:?}"),
        }
    }
    job.submit(b"x".to_vec()).await.expect("acknowledged");
    job.seal().await.expect("sealed");
    until("it has ended", async || children(&session, &job.id().path()).await.len() == 1).await; // its client's mark
    // It has ended, though nobody has collected it: the key is free.
    let (next, next_results) = submitted(&config, keyed(), 1).await;
    assert_ne!(next, *job.id());
    drop(job);
    assert_eq!(all(results).await.len(), 1);
    assert_eq!(all(next_results).await.len(), 1);
    assert!(children(&session, "/data").await.is_empty(), "the key is gone with its job");
    // Of many at once, one gets it.
    let rush = futures::future::join_all((0..8).map(async |_| open(&config, keyed(), &mut rand::rng()).await)).await;
    assert_eq!(rush.iter().filter(|opened| opened.is_ok()).count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attached_job_goes_with_its_client_and_a_detached_one_stays() {
    let config = fresh_config();
    let (_m, _w, session) = herd(&config).await;
    let line = Line::to(zookeeper()).await.expect("a port");
    let policy = Policy { attached: true, ..Policy::default() };
    let (job, results) = opened(&through(&line, &config), JobSpec { policy, ..JobSpec::new("sleep") }).await;
    for seconds in ["0", "100", "100", "100", "100", "100", "100"] {
        job.submit(seconds.into()).await.expect("acknowledged");
    }
    let (stays, left) = submitted(&config, JobSpec::new("exotic"), 1).await;
    left.leave().await.expect("left");
    line.cut(); // for longer than the session lasts
    until("the job, its tasks and its data are gone", async || {
        children(&session, "/tasks").await == [stays.to_string()] && children(&session, "/data").await.len() == 1
    })
    .await;
    line.mend();
    assert!(matches!(job.submit(Vec::new()).await, Err(ClientError::NotFound(_) | ClientError::Failed(_))));
    drop(results);
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_has_ended_is_swept_after_the_retention_and_as_many_znodes_are_left_as_before() {
    let config = fresh_config();
    let session = connect(&config).await;
    let _m = master_with_retention(&config, "m", Duration::from_millis(500));
    let _w = worker(&config, "w");
    until("the herd is there", async || children(&session, "/workers").await.len() == 1).await;
    let client = Client::connect(&config).await.expect("connected");
    let (done, results) = submitted(&config, JobSpec { key: Some("k".to_owned()), ..JobSpec::new("echo") }, 2).await;
    results.leave().await.expect("left");
    let (failed, results) = submitted(&config, shell("exit 1", Policy::default()), 2).await;
    results.leave().await.expect("left");
    let retries = Policy { max_attempts: 2, ..Policy::default() };
    let (dead, results) = submitted(&config, shell("exit 1", retries), 2).await;
    results.leave().await.expect("left");
    let (cancelled, results) = submitted(&config, JobSpec::new("exotic"), 2).await;
    results.leave().await.expect("left");
    let later = JobSpec { after: vec![cancelled.clone()], ..JobSpec::new("echo") };
    let (aborted, results) = submitted(&config, later, 2).await;
    results.leave().await.expect("left");
    assert_eq!(client.cancel(&whole(&cancelled), "by hand").await.expect("cancelled"), 2);
    until("everything is gone", async || {
        children(&session, "/tasks").await.is_empty() && children(&session, "/data").await.is_empty()
    })
    .await;
    for job in [done, failed, dead, cancelled, aborted] {
        assert!(matches!(client.info(&whole(&job)).await, Err(ClientError::NotFound(_))));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delayed_job_begins_no_sooner_and_holds_nobody_up() {
    let config = fresh_config();
    let (_m, _w, session) = herd(&config).await;
    let delayed = |ms: i64| JobSpec {
        policy: Policy { not_before_ms: Some(now_ms() + ms), ..Policy::default() },
        ..JobSpec::new("echo")
    };
    let (far, left) = submitted(&config, delayed(3_600_000), 3).await;
    left.leave().await.expect("left");
    let (_, others) = submitted(&config, JobSpec::new("echo"), 3).await;
    assert_eq!(all(others).await.len(), 3);
    assert_eq!(children(&session, &far.path()).await.len(), 3);
    let client = Client::connect(&config).await.expect("connected");
    let why = client.explain(&whole(&far)).await.expect("explained").concat();
    assert!(why.contains("it is not to begin before 2"), "{why}");
    let began = Instant::now();
    let (_, results) = submitted(&config, delayed(700), 3).await;
    assert_eq!(all(results).await.len(), 3);
    assert!(began.elapsed() >= Duration::from_millis(690), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_behind_busy_slots_is_told_how_many_are_ahead_of_it() {
    let config = fresh_config();
    let (_m, _w, session) = herd(&config).await;
    let policy = |priority| Policy { priority, ..Policy::default() };
    let (slow, left) = submitted(&config, shell("sleep 60", policy(0)), 50).await;
    left.leave().await.expect("left");
    let (urgent, left) = submitted(&config, shell("sleep 60", policy(5)), 10).await;
    left.leave().await.expect("left");
    let client = Client::connect(&config).await.expect("connected");
    let last = Selected { job: slow.clone(), tasks: Some(49..=49) };
    until("all that wait are counted, but for itself", async || {
        let reasons = client.explain(&last).await.expect("explained");
        let herd = client::herd(&session).await.expect("readable");
        let waiting: usize = herd.jobs.iter().map(|job| job.waiting).sum();
        let ahead = waiting.saturating_sub(1);
        reasons.contains(&format!("all 4 slots are busy; about {ahead} tasks are ahead of task 49"))
    })
    .await;
    for job in [slow, urgent] {
        client.cancel(&whole(&job), "enough").await.expect("cancelled");
    }
}

/// Notes the order in which tasks are begun.
#[derive(Clone, Default)]
struct Order(Arc<Mutex<Vec<u32>>>);

impl Handler for Order {
    async fn run(&self, task: Task) -> Result<Value, TaskError> {
        self.0.lock().expect("no panic").push(task.id.n);
        tokio::time::sleep(Duration::from_millis(5)).await;
        Ok(Value::Null)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_of_a_job_are_begun_in_their_order_also_across_failovers() {
    let config = fresh_config();
    let order = Order::default();
    let mut leader = master(&config, "m0");
    let _w = worker_with(&config, "w", 1, Handlers::none().with("order", order.clone()), Duration::from_secs(1));
    let session = connect(&config).await;
    until("the herd is there", async || children(&session, "/workers").await.len() == 1).await;
    let (_, results) = submitted(&config, JobSpec::new("order"), 150).await;
    let failovers = async {
        for n in 1..=3 {
            until("some more are begun", async || order.0.lock().expect("no panic").len() > n * 30).await;
            let next = master(&config, &format!("m{n}"));
            until("the backup is there", async || children(&session, "/master").await.len() == 2).await;
            std::mem::replace(&mut leader, next).stop().await;
        }
    };
    let (finished, ()) = tokio::join!(all(results), failovers);
    assert_eq!(finished.len(), 150);
    assert_eq!(*order.0.lock().expect("no panic"), (0..150).collect::<Vec<u32>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_program_shows_its_progress_and_what_it_prints_and_nothing_of_that_is_left() {
    let config = fresh_config();
    let (_m, _w, session) = herd(&config).await;
    let folder = tempfile::tempdir().expect("a folder");
    let script = format!(
        "echo begun; echo '0.25 a quarter' > $HERDSMAN_PROGRESS; \
         while [ ! -e {0}/go ]; do sleep 0.05; done; echo ended; echo oops >&2",
        folder.path().display()
    );
    let (job, results) = submitted(&config, shell(&script, Policy::default()), 1).await;
    let client = Client::connect(&config).await.expect("connected");
    let printed = Mutex::new(String::new());
    let selected = whole(&job);
    let note = |_: &_, line: LogLine| {
        printed.lock().expect("no panic").push_str(&match line {
            LogLine::Printed { stream, text, .. } => format!("{stream}: {text}"),
            LogLine::Progress(done, message) => format!("{done} {message}\n"),
            LogLine::Ended(finished) => format!("{}\n", finished.status),
        });
    };
    let go_on = async {
        until("it is seen to run", async || printed.lock().expect("no panic").ends_with("0.25 a quarter\n")).await;
        std::fs::write(folder.path().join("go"), "").expect("writable");
    };
    let (followed, ()) = tokio::join!(client.logs(&selected, true, note), go_on);
    followed.expect("followed to the end");
    let printed = printed.into_inner().expect("no panic");
    assert_eq!(printed, "stdout: begun\n0.25 a quarter\nstdout: ended\nstderr: oops\ndone\n");
    assert!(all(results).await[0].is_done());
    assert!(children(&session, "/data").await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payload_over_the_limit_is_refused_or_travels_by_reference_and_its_result_comes_back_checked() {
    let config = fresh_config();
    let (_m, _w, session) = herd(&config).await;
    let large = vec![b'x'; 3_000_000];
    let (job, results) = opened(&config, JobSpec::new("echo")).await;
    let refused = job.submit(large.clone()).await.expect_err("too large");
    assert!(refused.to_string().contains("3000000 bytes, more than the 524288 that fit"), "{refused}");
    drop(job);
    assert!(all(results).await.is_empty());

    let folder = tempfile::tempdir().expect("a folder");
    let spilling = || JobSpec { spill: Some(folder.path().to_owned()), ..JobSpec::new("echo") };
    let (job, results) = opened(&config, spilling()).await;
    for payload in [large.clone(), b"=small".to_vec()] {
        job.submit(payload).await.expect("acknowledged");
    }
    job.seal().await.expect("sealed");
    let mut lengths = Vec::new();
    for finished in all(results).await {
        assert!(finished.is_done(), "{:?}", finished.error);
        lengths.push(finished.result.as_str().expect("text").len());
    }
    lengths.sort_unstable();
    assert_eq!(lengths, [6, 3_000_000]);
    assert!(children(&session, "/data").await.is_empty());
    assert_eq!(std::fs::read_dir(folder.path()).expect("readable").count(), 0, "nothing is left there either");

    let policy = Policy { not_before_ms: Some(now_ms() + 500), ..Policy::default() };
    let (job, results) = opened(&config, JobSpec { policy, ..spilling() }).await;
    job.submit(large).await.expect("acknowledged");
    job.seal().await.expect("sealed");
    let kept = std::fs::read_dir(folder.path().join(job.id().as_str())).expect("readable");
    let kept = kept.map(|entry| entry.expect("readable").path()).next().expect("the payload");
    std::fs::write(kept, "something else").expect("writable");
    let finished = all(results).await;
    assert_eq!(finished[0].status, FinishedStatus::Failed);
    assert!(finished[0].error.as_ref().is_some_and(|error| error.contains("SHA-256")), "{finished:?}");
}
