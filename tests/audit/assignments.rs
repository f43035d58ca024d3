//! Workers' lists.

use crate::stage::*;

#[tokio::test(flavor = "multi_thread")]
async fn one_holder_a_task_is_not_in_the_lists_of_two_live_workers() {
    let (stage, leader, worker) = Stage::new("holders").await;
    register(&worker, "w-2").await;
    assign(&leader, "w-1", ENTRY).await;
    lead(&leader, &[set("/workers/w-1", &list("")), set("/workers/w-2", &list(ENTRY))]).await;
    stage.breaks("", "moved in one step");
    assign(&leader, "w-1", ENTRY).await;
    stage.breaks("one-holder", "is assigned to w-1 and w-2");
    stage.submit("j-1/0000000001").await;
    assign(&leader, "w-2", r#""j-1/0000000001","j-1/0000000001""#).await;
    stage.breaks("one-holder", "is in the list of w-2 twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn too_soon_what_is_dead_in_backoff_delayed_or_waits_for_another_job_is_not_assigned() {
    let (stage, leader, worker) = Stage::new("soon").await;
    let later = i64::MAX / 2;
    assign(&leader, "w-1", ENTRY).await;
    work(&worker, &[set(TASK, &format!(r#"{{"attempt":1,"failures":1,"not_before_ms":{later}}}"#))]).await;
    stage.breaks("", "failed");
    assign(&leader, "w-1", r#""j-1/0000000000@1""#).await;
    stage.breaks("too-soon", "a moment");
    work(&worker, &[set(TASK, DEAD)]).await;
    stage.breaks("", "dead");
    assign(&leader, "w-1", r#""j-1/0000000000@2""#).await;
    stage.breaks("too-soon", "it is dead");
    stage.all(&[set(TASK, RETRIED)]).await;
    assign(&leader, "w-1", r#""j-1/0000000000@3""#).await;
    stage.breaks("", "retried");
    stage.job("j-2", &format!(r#"{{"kind":"echo","policy":{{"not_before_ms":{later}}}}}"#)).await;
    assign(&leader, "w-1", r#""j-2/0000000000""#).await;
    stage.breaks("too-soon", "a moment");
    stage.job("j-3", r#"{"kind":"echo","after":["j-1"]}"#).await;
    assign(&leader, "w-1", r#""j-3/0000000000""#).await;
    stage.breaks("too-soon", "its job waits for j-1");
}

#[tokio::test(flavor = "multi_thread")]
async fn misfit_a_worker_is_not_given_what_it_cannot_run() {
    let (stage, leader, _worker) = Stage::new("misfit").await;
    stage.job("j-2", r#"{"kind":"exec"}"#).await;
    stage.job("j-3", r#"{"kind":"echo","policy":{"require":["gpu"]}}"#).await;
    assign(&leader, "w-1", r#""j-2/0000000000""#).await;
    stage.breaks("misfit", "was assigned to w-1, which does not run kind 'exec'");
    assign(&leader, "w-1", r#""j-3/0000000000""#).await;
    stage.breaks("misfit", "was assigned to w-1, which has no tag 'gpu'");
}
