//! Who may write: leaders, workers, and whose a znode is.

use coordination::Op;

use crate::stage::*;
use crate::support;

#[tokio::test(flavor = "multi_thread")]
async fn one_leader_an_assignment_by_a_backup_is_a_second_leaders() {
    let (stage, _leader, _worker) = Stage::new("backup").await;
    let backup = stage.candidate().await;
    assign(&backup, "w-1", ENTRY).await;
    assert_eq!(stage.broken(), ["one-leader"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_leader_a_worker_does_not_assign_to_itself() {
    let (stage, _leader, worker) = Stage::new("selfish").await;
    let path = "/workers/w-2".to_owned();
    ephemeral(&worker, &path, &list(ENTRY)).await;
    assert_eq!(stage.broken(), ["one-leader"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn ephemeral_a_worker_that_would_outlive_its_session_is_named() {
    let (stage, _leader, _worker) = Stage::new("persistent").await;
    stage.all(&[create("/workers/w-2", &list(""))]).await;
    assert_eq!(stage.broken(), ["ephemeral"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_return_a_former_leader_does_not_write_after_its_successor() {
    let (stage, leader, _worker) = Stage::new("return").await;
    let next = stage.candidate().await;
    assign(&leader, "w-1", ENTRY).await;
    let own = support::children(&stage.session, "/master").await[0].clone();
    leader.write(delete(&format!("/master/{own}"))).await.expect("resigned"); // its session lives on
    assign(&next, "w-1", "").await;
    leader.write(set("/workers/w-1", &list(ENTRY))).await.expect("set"); // without a guard
    assert_eq!(stage.broken(), ["one-leader", "no-return"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn guard_what_a_leader_writes_is_headed_by_the_check_of_its_own_znode() {
    let (stage, leader, worker) = Stage::new("guard").await;
    let backup = stage.candidate().await;
    let sealed = r#"{"kind":"echo","sealed":true,"failed":true,"withdrawn":{"status":"aborted","reason":"no"}}"#;
    stage.job("j-2", r#"{"kind":"echo","after":["j-1"]}"#).await;
    let (theirs, own) = (candidacy(&backup).await, candidacy(&leader).await);
    let unguarded = async |ops: &[Op], words: &str| {
        leader.multi(ops).await.expect("written");
        stage.breaks("guard", words);
    };
    let to = |entries: &str| set("/workers/w-1", &list(entries));
    unguarded(&[to(ENTRY)], "the leader assigned without the check").await;
    unguarded(&[theirs, to("")], "the leader assigned without").await;
    unguarded(&[to(ENTRY), own], "the leader assigned without").await;
    worker.close().await;
    unguarded(&[set(TASK, LOST)], "the leader set task j-1/0000000000 without").await;
    unguarded(&[set("/tasks/j-2", sealed)], "the leader released j-2 without").await;
    let aborted = r#"{"status":"aborted","error":"no"}"#;
    let (task, data) = ("/tasks/j-2/0000000000", "/data/j-2/0000000000");
    unguarded(&[delete(task), set(data, aborted)], "the leader changed /tasks/j-2/0000000000").await;
    unguarded(&[delete(data)], "the leader changed /data/j-2/0000000000").await;
    unguarded(&[delete("/data/j-2"), delete("/tasks/j-2")], "the leader changed /data/j-2").await;
    let path = own_path(&leader).await;
    leader.write(delete(&path)).await.expect("resigned");
    stage.breaks("", "resigned");
}

#[tokio::test(flavor = "multi_thread")]
async fn guard_what_a_worker_completes_and_ends_is_headed_by_the_check_of_its_own_znode() {
    let (stage, leader, worker) = Stage::new("workers-guard").await;
    let other = stage.stranger().await;
    register(&other, "w-2").await;
    assign(&leader, "w-1", ENTRY).await;
    worker.write(set(TASK, LOST)).await.expect("set");
    stage.breaks("guard", "a worker ended the attempt of j-1/0000000000 without the check");
    assign(&leader, "w-1", r#""j-1/0000000000@1""#).await;
    worker.multi(&[check("/workers/w-2"), delete(TASK), set(DATA, OUTCOME)]).await.expect("completed");
    stage.breaks("guard", "a worker completed j-1/0000000000 without the check");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_session_may_be_a_leader_a_worker_and_a_client() {
    let (stage, leader, _worker) = Stage::new("embedded").await;
    register(&leader, "w-2").await;
    ephemeral(&leader, "/tasks/j-1/client-1", "").await;
    assign(&leader, "w-2", ENTRY).await;
    leader.multi(&[check("/workers/w-2"), delete(TASK), set(DATA, OUTCOME)]).await.expect("completed");
    leader.multi(&[delete(DATA)]).await.expect("collected");
    let closing = ["/tasks/j-1/client-1", "/data/j-1", "/tasks/j-1"].map(delete);
    leader.multi(&closing).await.expect("closed");
    stage.breaks("", "each in its right");
    leader.write(set("/workers/w-1", &list(""))).await.expect("set");
    stage.breaks("guard", "the leader assigned without");
}

#[tokio::test(flavor = "multi_thread")]
async fn ephemeral_is_what_the_table_says_and_nothing_else() {
    let (stage, leader, worker) = Stage::new("kinds").await;
    let lowest = "/master/a-0badcafe-0000000000";
    let theirs = own_path(&leader).await;
    assert!(theirs.ends_with("0000000000"));
    stage.all(&[create(lowest, "{}")]).await;
    stage.breaks("ephemeral", "/master/a-0badcafe-0000000000 would outlive its session");
    assign(&leader, "w-1", ENTRY).await;
    stage.breaks("", "what outlives its session is no candidate, and does not lead");
    for name in ["/tasks/j-1/client-1", "/data/j-1/0000000000-live", "/data/j-1/0000000000-at", "/data/j-1/calls"] {
        stage.all(&[create(name, "0")]).await;
        stage.breaks("ephemeral", "would outlive its session");
        stage.all(&[delete(name)]).await;
        ephemeral(&worker, name, "0").await;
        stage.breaks("", name);
    }
    ephemeral(&stage.session, "/data/@k", "j-1").await;
    stage.breaks("ephemeral", "/data/@k would end with its session");
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_what_ends_with_a_session_is_not_deleted_by_another_one() {
    let (stage, leader, worker) = Stage::new("foreign").await;
    let backup = stage.candidate().await;
    let client = stage.stranger().await;
    for name in ["/tasks/j-1/client-1", "/tasks/j-1/client-2", "/data/j-1/calls"] {
        ephemeral(&client, name, "0").await;
    }
    for path in [own_path(&backup).await, own_path(&leader).await, "/workers/w-1".into(), "/tasks/j-1/client-1".into()]
    {
        stage.all(&[delete(&path)]).await;
        stage.breaks("foreign", &format!("{path} was deleted by another session than its own"));
    }
    stage.all(&[set("/tasks/j-1/client-2", "x")]).await;
    stage.breaks("foreign", "/tasks/j-1/client-2 was set, which nobody does");
    stage.all(&[set("/data/j-1/calls", "1")]).await;
    stage.breaks("foreign", "/data/j-1/calls was set by another session");
    let cancelled = r#"{"status":"cancelled","error":"by hand"}"#;
    let mark = set("/tasks/j-1", r#"{"kind":"echo","sealed":true,"failed":true}"#);
    stage.all(&[mark, delete(TASK), set(DATA, cancelled)]).await;
    let closing = [DATA, "/tasks/j-1/client-2", "/data/j-1/calls", "/data/j-1", "/tasks/j-1"].map(delete);
    stage.all(&closing).await;
    stage.breaks("", "closing takes away what others have in the job");
    client.close().await;
    worker.close().await;
    stage.breaks("", "sessions end");
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_a_root_is_never_deleted() {
    let (stage, _leader, worker) = Stage::new("roots").await;
    worker.close().await;
    stage.all(&[delete("/workers")]).await;
    stage.breaks("foreign", "the root /workers was deleted");
    stage.all(&[create("/workers", "")]).await;
    stage.breaks("", "anybody makes it again");
}
