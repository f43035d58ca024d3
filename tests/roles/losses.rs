//! What becomes of a task when workers and leaders are lost around it: the test plays the worker.

use std::time::Duration;

use coordination::{MultiFailure, Op, Session, SessionConfig};
use herdsman::client::{JobSpec, Results, open};
use lab::line::Line;
use tree::{Assignment, JobId, Outcome, OutcomeStatus, Policy, TaskState, WorkerRecord};

use crate::support::herd::{Member, master, worker};
use crate::support::{TIMEOUT, children, connect, eventually, fresh_config, node, through, until, zookeeper};

/// A worker that does what the test says.
struct Played {
    session: Session,
    path: String,
}

impl Played {
    async fn join(config: &SessionConfig, name: &str, record: &WorkerRecord) -> Self {
        let session = connect(config).await;
        let path = format!("/workers/{name}-0badcafe");
        let create = Op::CreateEphemeral { path: path.clone(), data: record.to_json(), sequential: false };
        session.write(create).await.expect("created");
        Played { session, path }
    }

    async fn list(&self) -> Vec<Assignment> {
        let record = WorkerRecord::from_json(&node(&self.session, &self.path).await.data).expect("valid");
        record.assignments().0
    }

    /// Waits until the list has so many entries.
    async fn given(&self, count: usize) -> Vec<Assignment> {
        eventually("it is given tasks", async || Some(self.list().await).filter(|list| list.len() == count)).await
    }

    async fn complete(&self, assignment: &Assignment) -> Result<(), MultiFailure> {
        let outcome = Outcome {
            status: OutcomeStatus::Done,
            worker: None,
            attempts: 1,
            result: serde_json::Value::Null,
            spilled: None,
            error: None,
        };
        let ops = [
            Op::Check { path: self.path.clone(), version: None },
            Op::Delete { path: assignment.task.path(), version: Some(assignment.version) },
            Op::Set { path: assignment.task.data_path(), data: outcome.to_json(), version: Some(0) },
        ];
        self.session.multi(&ops).await.map(drop)
    }

    /// Its session ends: the worker is lost.
    async fn lose(self) {
        self.session.close().await;
    }
}

fn echo(slots: u32) -> WorkerRecord {
    WorkerRecord::new(slots, vec!["echo".to_owned()])
}

/// A sealed job of `count` tasks.
async fn submit(config: &SessionConfig, policy: Policy, count: usize) -> (JobId, Results) {
    let spec = JobSpec { policy, ..JobSpec::new("echo") };
    let (job, results) = open(config, spec, &mut rand::rng()).await.expect("opened");
    let id = job.id().clone();
    for _ in 0..count {
        job.submit(b"x".to_vec()).await.expect("submitted");
    }
    job.seal().await.expect("sealed");
    (id, results)
}

async fn lead(config: &SessionConfig, session: &Session, name: &str) -> Member {
    let member = master(config, name);
    until("it leads", async || children(session, "/master").await.len() == 1).await;
    member
}

/// What became of a task once its znode is at this version.
async fn state(session: &Session, path: &str, version: i32) -> TaskState {
    let at = async || session.get(path).await.expect("readable").filter(|node| node.version >= version);
    let node = eventually("its attempt is ended", at).await;
    assert_eq!(node.version, version);
    TaskState::from_json(&node.data).expect("valid")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_whose_worker_left_before_its_list_was_written_was_never_attempted() {
    let config = fresh_config();
    let session = connect(&config).await;
    let line = Line::to(zookeeper()).await.expect("a port");
    let _m = lead(&through(&line, &config), &session, "m").await;
    let played = Played::join(&config, "played", &echo(4)).await;
    let spec = JobSpec { policy: Policy { crash_limit: 1, ..Policy::default() }, ..JobSpec::new("echo") };
    let (job, mut results) = open(&config, spec, &mut rand::rng()).await.expect("opened");
    job.submit(b"x".to_vec()).await.expect("submitted");
    played.complete(&played.given(1).await[0]).await.expect("it holds the task"); // so the leader knows both
    assert!(results.next().await.expect("the herd lives").is_some_and(|finished| finished.is_done()));
    line.delay(Duration::from_millis(300));
    job.submit(b"x".to_vec()).await.expect("submitted");
    // The leader hears of the task after 300 ms, or 600 behind another chunk, and the server of the list as much later.
    tokio::time::sleep(Duration::from_millis(450)).await;
    played.lose().await;
    let _other = worker(&config, "other");
    let finished = results.next().await.expect("the herd lives").expect("an outcome");
    assert!(finished.is_done() && finished.attempts == 1, "{finished:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_is_counted_though_the_leader_is_lost_together_with_the_worker() {
    let config = fresh_config();
    let session = connect(&config).await;
    let mut line = Line::to(zookeeper()).await.expect("a port");
    let mut leader = lead(&through(&line, &config), &session, "m0").await;
    let (job, _results) = submit(&config, Policy { crash_limit: 2, ..Policy::default() }, 1).await;
    let task = job.task(0).path();
    for round in 1..=2 {
        let played = Played::join(&config, &format!("w{round}"), &echo(1)).await;
        let backup_line = Line::to(zookeeper()).await.expect("a port");
        let backup = master(&through(&backup_line, &config), &format!("m{round}"));
        until("it stands by", async || children(&session, "/master").await.len() == 2).await;
        assert_eq!(played.given(1).await[0].version, round - 1);
        line.cut();
        // The leader is lost; the worker's session ends half a timeout later, the leader's at the end of its own.
        tokio::time::sleep(TIMEOUT / 2).await;
        played.lose().await;
        let state = state(&session, &task, round).await;
        assert_eq!((state.attempt, state.crashes, state.dead), (round as u32, round as u32, round == 2), "{state:?}");
        drop((leader, line));
        (leader, line) = (backup, backup_line);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_is_counted_though_the_worker_is_lost_while_the_leader_is_out_of_touch() {
    let config = fresh_config();
    let session = connect(&config).await;
    let line = Line::to(zookeeper()).await.expect("a port");
    let _m = lead(&through(&line, &config), &session, "m").await;
    let played = Played::join(&config, "played", &echo(2)).await;
    let (job, _results) = submit(&config, Policy::default(), 1).await;
    played.given(1).await;
    line.cut();
    played.lose().await;
    line.mend();
    let state = state(&session, &job.task(0).path(), 1).await;
    assert_eq!((state.attempt, state.crashes), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_worker_sends_for_a_task_that_was_moved_is_refused() {
    let config = fresh_config();
    let session = connect(&config).await;
    let m = lead(&config, &session, "m").await;
    let (job, _results) = submit(&config, Policy::default(), 3).await;
    m.stop().await;
    // More than its slots hold, from a leader before: what is parked there goes to whoever is idle.
    let mut record = echo(1);
    record.assigned = (0..3).map(|n| job.task(n).to_string()).collect();
    let silent = Played::join(&config, "silent", &record).await;
    let _m = lead(&config, &session, "m").await;
    let idle = Played::join(&config, "idle", &echo(2)).await;
    let moved = idle.given(2).await;
    assert_eq!(silent.list().await, [Assignment { task: job.task(0), version: 0 }]);
    let begun = Assignment { task: moved[0].task.clone(), version: 0 };
    assert!(silent.complete(&begun).await.is_err(), "it was moved");
    let unchanged = node(&session, &begun.task.path()).await;
    assert_eq!((unchanged.version, unchanged.data.len()), (1, 0), "no attempt has ended");
    idle.complete(&moved[0]).await.expect("it holds the task");
    silent.complete(&Assignment { task: job.task(0), version: 0 }).await.expect("this one was left with it");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_storm_the_first_losses_are_charged_to_no_task_either() {
    let config = fresh_config();
    let session = connect(&config).await;
    let _m = lead(&config, &session, "m").await;
    let (job, _results) = submit(&config, Policy::default(), 5).await;
    let mut herd = Vec::new();
    for n in 0..5 {
        let played = Played::join(&config, &format!("w{n}"), &echo(1)).await;
        played.given(1).await;
        herd.push(played);
    }
    // One after the other, though soon; one of five stays.
    let survivor = herd.pop();
    for played in herd {
        played.lose().await;
    }
    for n in 0..4 {
        let state = state(&session, &job.task(n).path(), 1).await;
        assert_eq!((state.attempt, state.crashes, state.not_before_ms.is_some()), (1, 0, true), "{state:?}");
    }
    drop(survivor);
}
