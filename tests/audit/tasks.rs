//! Tasks, their payloads and outcomes.

use audit::{Ending, Verdict};
use coordination::Op;

use crate::stage::*;

#[tokio::test(flavor = "multi_thread")]
async fn one_end_a_task_deleted_without_an_outcome_is_lost() {
    let (stage, _leader, _worker) = Stage::new("lost").await;
    stage.all(&[delete(TASK)]).await;
    assert_eq!(stage.broken(), ["one-end"]);
    stage.all(&[set("/tasks/j-1", r#"{"kind":"echo","sealed":true}"#), delete(DATA)]).await;
    assert_eq!(stage.broken(), ["one-end"], "a client that collects what is left of it breaks no rule");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_end_an_id_used_twice_lets_the_past_through() {
    let (stage, leader, worker) = Stage::new("twice").await;
    assign(&leader, "w-1", ENTRY).await;
    work(&worker, &[set(TASK, DEAD)]).await;
    stage.all(&[delete(TASK), delete(DATA)]).await;
    assert_eq!(stage.broken(), [""; 0], "forgotten");
    stage.all(&[create(DATA, "x"), create(TASK, "")]).await;
    assert_eq!(stage.broken(), ["one-end"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn commit_an_outcome_apart_from_its_task_is_no_commit() {
    let (stage, _leader, worker) = Stage::new("apart").await;
    worker.write(set(DATA, OUTCOME)).await.expect("set");
    assert_eq!(stage.broken(), ["commit"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn commit_a_second_outcome_is_no_commit() {
    let (stage, leader, worker) = Stage::new("second").await;
    assign(&leader, "w-1", ENTRY).await;
    complete(&worker).await;
    worker.write(set(DATA, OUTCOME)).await.expect("set");
    let what = &stage.audit().violations[1].what;
    assert_eq!(stage.broken(), ["commit"]);
    assert!(what.contains("version 2"), "{what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn commit_by_a_session_without_a_worker_is_a_zombies() {
    let (stage, _leader, worker) = Stage::new("zombie").await;
    worker.close().await;
    stage.all(&[delete(TASK), set(DATA, OUTCOME)]).await;
    assert_eq!(stage.broken(), ["commit"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn commit_of_something_that_is_no_outcome_is_named() {
    let (stage, _leader, worker) = Stage::new("garbage").await;
    worker.multi(&[delete(TASK), set(DATA, "done!")]).await.expect("set");
    assert_eq!(stage.broken(), ["commit"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn payload_one_that_goes_without_its_task_is_named() {
    let (stage, _leader, _worker) = Stage::new("payload").await;
    stage.all(&[delete(DATA)]).await;
    assert_eq!(stage.broken(), ["payload"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn payload_a_task_that_comes_without_one_is_named() {
    let (stage, _leader, _worker) = Stage::new("bare").await;
    stage.all(&[create("/tasks/j-1/0000000001", "")]).await;
    assert_eq!(stage.broken(), ["payload"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn settled_what_waits_or_runs_at_the_end_was_lost_sight_of() {
    let (stage, leader, worker) = Stage::new("settled").await;
    assert_eq!(stage.broken(), [""; 0], "it may still be done");
    let one = |verdict: Verdict| (verdict.verdict, verdict.violations.iter().map(|v| v.what.clone()).next());
    let ended_not = "task j-1/0000000000, submitted here, has not ended: ";
    let (verdict, what) = one(stage.audit_at(Ending::Settled));
    assert_eq!((verdict, what), ("invalid", Some(format!("{ended_not}it is in nobody's list"))));
    assign(&leader, "w-1", ENTRY).await;
    let (verdict, what) = one(stage.audit_at(Ending::Settled));
    assert_eq!((verdict, what), ("invalid", Some(format!("{ended_not}it is in the list of w-1"))));
    work(&worker, &[set(TASK, DEAD)]).await;
    assert_eq!(one(stage.audit_at(Ending::Settled)), ("valid", None), "dead is an end");
    stage.all(&[delete(TASK), delete(DATA)]).await;
    assert_eq!(one(stage.audit_at(Ending::Settled)), ("valid", None));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_end_a_task_goes_with_its_payload_only_when_it_is_dead() {
    let (stage, leader, worker) = Stage::new("alive").await;
    stage.all(&[delete(TASK), delete(DATA)]).await;
    stage.breaks("one-end", "and it was not dead");
    stage.submit(SECOND).await;
    assign(&leader, "w-1", &format!("\"{SECOND}\"")).await;
    work(&worker, &[set(&format!("/tasks/{SECOND}"), DEAD)]).await;
    stage.all(&[delete(&format!("/tasks/{SECOND}")), delete(&format!("/data/{SECOND}"))]).await;
    stage.breaks("", "forgotten");
}

#[tokio::test(flavor = "multi_thread")]
async fn holder_a_task_is_completed_and_its_attempt_ended_by_the_worker_that_has_it() {
    let (stage, leader, worker) = Stage::new("holder").await;
    let other = stage.stranger().await;
    register(&other, "w-2").await;
    let others = async |ops: &[Op]| {
        other.multi(&[&[check("/workers/w-2")], ops].concat()).await.expect("written");
    };
    assign(&leader, "w-1", ENTRY).await;
    others(&[set(TASK, LOST)]).await;
    stage.breaks("holder", "its attempt was ended by w-2, and w-1 has it");
    assign(&leader, "w-1", r#""j-1/0000000000@1""#).await;
    others(&[delete(TASK), set(DATA, OUTCOME)]).await;
    stage.breaks("holder", "it was completed by w-2, and w-1 has it");

    stage.submit(SECOND).await;
    let (task, data) = (format!("/tasks/{SECOND}"), format!("/data/{SECOND}"));
    assign(&leader, "w-1", &format!("\"{SECOND}\"")).await;
    let lists = [set("/workers/w-1", &list("")), set("/workers/w-2", &list(&format!("\"{SECOND}@1\"")))];
    lead(&leader, &[&[set(&task, "")], &lists[..]].concat()).await;
    stage.breaks("", "moved, and its version with it");
    work(&worker, &[delete(&task), set(&data, OUTCOME)]).await; // at any version
    stage.breaks("holder", "it was completed by w-1, and w-2 has it");
}

#[tokio::test(flavor = "multi_thread")]
async fn holder_the_leader_ends_an_attempt_only_where_a_worker_was_lost_with_it() {
    let (stage, leader, worker) = Stage::new("ended").await;
    let attempts = |n: u32| LOST.replace(r#""attempt":1"#, &format!(r#""attempt":{n}"#));
    lead(&leader, &[set(TASK, LOST)]).await;
    stage.breaks("holder", "which no lost worker had");
    assign(&leader, "w-1", r#""j-1/0000000000@1""#).await;
    lead(&leader, &[set("/workers/w-1", &list("")), set(TASK, &attempts(2))]).await;
    stage.breaks("holder", "which w-1 has, and that lives");
    assign(&leader, "w-1", r#""j-1/0000000000@2""#).await;
    worker.close().await;
    lead(&leader, &[set(TASK, &attempts(3))]).await;
    stage.breaks("", "lost with its worker");
}

#[tokio::test(flavor = "multi_thread")]
async fn writer_a_task_is_set_by_nobody_but_its_worker_and_the_leader_unless_it_is_retried() {
    let (stage, leader, worker) = Stage::new("writer").await;
    let stranger = stage.stranger().await;
    let strange = async |data: &str| {
        stranger.write(set(TASK, data)).await.expect("set");
    };
    strange(LOST).await;
    stage.breaks("writer", "j-1/0000000000 was set by a session that has neither a worker nor the lead");
    strange(DEAD).await;
    stage.breaks("writer", "was marked dead by a session");
    strange(RETRIED).await;
    stage.breaks("", "anybody retries what is dead");
    assign(&leader, "w-1", r#""j-1/0000000000@3""#).await;
    work(&worker, &[set(TASK, DEAD)]).await;
    strange(r#"{"attempt":1}"#).await;
    stage.breaks("writer", "was set by a session"); // its history is gone
    strange("so what").await;
    stage.breaks("writer", "was set by a session");
    lead(&leader, &[set(TASK, r#"{"attempt":7}"#)]).await;
    stage.breaks("writer", "ended no attempt by it");
    let (task, data) = (format!("/tasks/{SECOND}"), format!("/data/{SECOND}"));
    stage.all(&[create(&data, "x"), create(&task, DEAD)]).await;
    stage.breaks("writer", "was submitted with attempts behind it");
    let (waits, free) = (
        r#"{"kind":"echo","after":["j-1"]}"#,
        r#"{"kind":"echo","sealed":true,"failed":true,
        "withdrawn":{"status":"aborted","reason":"no"}}"#,
    );
    stage.job("j-2", waits).await;
    stage.all(&[set("/tasks/j-2", free)]).await;
    stage.breaks("writer", "j-2 was released from j-1 by a session that does not lead");
}
