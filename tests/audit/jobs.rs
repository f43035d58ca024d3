//! Jobs and their records.

use crate::stage::*;

#[tokio::test(flavor = "multi_thread")]
async fn sealed_a_job_whose_client_counted_fewer_tasks_than_came_was_submitted_twice() {
    let (stage, _leader, _worker) = Stage::new("doubled").await;
    stage.all(&[create("/data/j-1/0000000001", "x"), create("/tasks/j-1/0000000001", "")]).await;
    stage.all(&[set("/tasks/j-1", r#"{"kind":"echo","sealed":true,"tasks":1}"#)]).await;
    assert_eq!(stage.broken(), ["sealed"]);
    let what = &stage.audit().violations[0].what;
    assert!(what.contains("submitted 1 tasks by its own count, and 2 came"), "{what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sealed_means_that_nothing_more_comes() {
    let (stage, _leader, _worker) = Stage::new("late").await;
    stage.all(&[set("/tasks/j-1", r#"{"kind":"echo","sealed":true,"tasks":1}"#)]).await;
    assert_eq!(stage.broken(), [""; 0]);
    stage.all(&[create("/data/j-1/0000000001", "x"), create("/tasks/j-1/0000000001", "")]).await;
    assert_eq!(stage.broken(), ["sealed"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn unmarked_a_task_that_fails_marks_its_job_and_one_is_aborted_only_with_its_job() {
    let (stage, leader, worker) = Stage::new("unmarked").await;
    assign(&leader, "w-1", ENTRY).await;
    let failed = OUTCOME.replace("done", "failed");
    worker.multi(&[check("/workers/w-1"), delete(TASK), set(DATA, &failed)]).await.expect("completed");
    assert_eq!(stage.broken(), ["unmarked"]);

    let (stage, _leader, _worker) = Stage::new("marked").await;
    let cancelled = r#"{"status":"cancelled","error":"by hand"}"#;
    let mark = set("/tasks/j-1", r#"{"kind":"echo","failed":true}"#);
    stage.all(&[delete(TASK), set(DATA, cancelled), mark]).await;
    assert_eq!(stage.broken(), [""; 0], "anybody cancels, and says so");
    assert_eq!(stage.audit().figures.cancelled, 1);
    stage.all(&[create("/data/j-1/0000000001", "x"), create("/tasks/j-1/0000000001", "")]).await;
    let aborted = set("/data/j-1/0000000001", r#"{"status":"aborted","error":"no reason"}"#);
    stage.all(&[delete("/tasks/j-1/0000000001"), aborted]).await;
    assert_eq!(stage.broken(), ["unmarked"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_job_is_not_released_before_the_other_has_succeeded() {
    let (stage, leader, worker) = Stage::new("after").await;
    assign(&leader, "w-1", ENTRY).await;
    let waits = r#"{"kind":"echo","after":["j-1"]}"#;
    for later in ["j-2", "j-3"] {
        stage.all(&[create(&format!("/tasks/{later}"), waits), create(&format!("/data/{later}"), "")]).await;
    }
    complete(&worker).await;
    stage.all(&[set("/tasks/j-1", r#"{"kind":"echo","sealed":true}"#)]).await;
    lead(&leader, &[set("/tasks/j-2", r#"{"kind":"echo"}"#)]).await;
    stage.breaks("", "released");
    stage.all(&[set("/tasks/j-1", r#"{"kind":"echo","sealed":true,"failed":true}"#)]).await;
    lead(&leader, &[set("/tasks/j-3", r#"{"kind":"echo"}"#)]).await;
    stage.breaks("after", "j-3 was released from j-1");
}

#[tokio::test(flavor = "multi_thread")]
async fn key_two_jobs_that_have_not_ended_do_not_share_one() {
    let (stage, _leader, _worker) = Stage::new("key").await;
    let keyed = r#"{"kind":"echo","key":"k"}"#;
    stage.all(&[create("/tasks/j-2", keyed), create("/data/j-2", ""), create("/data/@k", "j-2")]).await;
    stage.all(&[set("/tasks/j-2", r#"{"kind":"echo","key":"k","sealed":true}"#)]).await;
    stage.all(&[create("/tasks/j-3", keyed), create("/data/j-3", ""), set("/data/@k", "j-3")]).await;
    assert_eq!(stage.broken(), [""; 0], "the first one has ended");
    stage.all(&[create("/tasks/j-4", keyed), create("/data/j-4", "")]).await;
    assert_eq!(stage.broken(), ["key"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn leftovers_of_a_closed_job_are_named_and_so_is_a_job_that_comes_back() {
    let (stage, leader, worker) = Stage::new("leftovers").await;
    assign(&leader, "w-1", ENTRY).await;
    complete(&worker).await;
    stage.all(&[delete("/tasks/j-1")]).await;
    assert_eq!(stage.broken(), ["leftovers"]);
    stage.all(&[create("/tasks/j-1", r#"{"kind":"echo"}"#)]).await;
    assert!(stage.audit().violations.iter().any(|v| v.what.contains("a second time")));
}

#[tokio::test(flavor = "multi_thread")]
async fn record_nothing_of_a_job_changes_but_what_may_and_nothing_is_taken_back() {
    let (stage, _leader, _worker) = Stage::new("record").await;
    let before = r#"{"kind":"echo","args":["a"],"policy":{"max_attempts":2},"spill":"/s","color":"red"}"#;
    let ended = r#""sealed":true,"tasks":0,"failed":true,"withdrawn":{"status":"aborted","reason":"no"},"color""#;
    let after = before.replace(r#""color""#, ended);
    let mut n = 1;
    let mut changes = async |was: &str, now: &str| {
        n += 1;
        let job = format!("/tasks/j-{n}");
        stage.all(&[create(&job, was)]).await;
        stage.all(&[set(&job, now)]).await;
    };
    changes(before, &after).await;
    stage.breaks("", "sealed, counted, marked and withdrawn");
    let forbidden = [
        ("echo", "exec", "its kind changed"),
        (r#"["a"]"#, r#"["b"]"#, "its arguments changed"),
        (r#""max_attempts":2"#, r#""max_attempts":3"#, "its policy changed"),
        (r#""color""#, r#""key":"k","color""#, "its key changed"),
        ("/s", "/t", "its spill directory changed"),
        (r#","color":"red""#, "", "it lost a field"),
        (r#""color""#, r#""after":["j-1"],"color""#, "it waits for a job more"),
        (r#""color""#, r#""tasks":1,"color""#, "its number of tasks changed"),
        (r#""color""#, r#""withdrawn":{"status":"aborted","reason":"no"},"color""#, "but not sealed and marked"),
        ("kind", "kin", "is none any more"),
    ];
    for (was, now, words) in forbidden {
        changes(before, &before.replace(was, now)).await;
        stage.breaks("record", words);
    }
    let sealed = before.replace(r#""color""#, r#""sealed":true,"tasks":0,"failed":true,"color""#);
    let taken_back = [
        (&sealed, r#""sealed":true"#, r#""sealed":false"#, "its seal was taken back"),
        (&sealed, r#""failed":true"#, r#""failed":false"#, "its mark was taken back"),
        (&sealed, r#""tasks":0"#, r#""tasks":1"#, "its number of tasks changed"),
        (&after, r#""reason":"no""#, r#""reason":"yes""#, "its withdrawal was taken back or changed"),
    ];
    for (record, was, now, words) in taken_back {
        changes(record, &record.replace(was, now)).await;
        stage.breaks("record", words);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn record_a_worker_says_what_it_said_when_it_registered() {
    let (stage, leader, _worker) = Stage::new("slots").await;
    lead(&leader, &[set("/workers/w-1", r#"{"slots":2,"kinds":["echo"],"assigned":[]}"#)]).await;
    stage.breaks("record", "the record of worker w-1 says other slots, kinds or tags");
    lead(&leader, &[set("/workers/w-1", "garbage")]).await;
    stage.breaks("record", "the record of worker w-1 is none any more");
    stage.all(&[set("/workers/w-1", r#"{"slots":9,"kinds":["exec"]}"#)]).await;
    stage.breaks("one-leader", "by a session that does not lead");
}

#[tokio::test(flavor = "multi_thread")]
async fn submitter_what_is_not_sealed_is_its_submitters() {
    let (stage, leader, worker) = Stage::new("submitter").await;
    let stranger = stage.stranger().await;
    assign(&leader, "w-1", ENTRY).await;
    complete(&worker).await;
    stranger.write(delete(DATA)).await.expect("deleted");
    stage.breaks("submitter", "the outcome of j-1/0000000000 was removed by a session that does not attend its job");
    stranger.multi(&[delete("/data/j-1"), delete("/tasks/j-1")]).await.expect("deleted");
    stage.breaks("submitter", "job j-1 was closed before it was sealed");

    stage.job("j-2", r#"{"kind":"echo"}"#).await;
    let second = [create("/data/j-2/0000000001", "x"), create("/tasks/j-2/0000000001", "")];
    stranger.multi(&second).await.expect("submitted");
    stage.breaks("submitter", "was submitted by a session that neither opened its job nor attends it");
    assign(&leader, "w-1", r#""j-2/0000000000","j-2/0000000001""#).await;
    let done = |n: u32| [delete(&format!("/tasks/j-2/000000000{n}")), set(&format!("/data/j-2/000000000{n}"), OUTCOME)];
    work(&worker, &[done(0), done(1)].concat()).await;
    lead(&leader, &[delete("/data/j-2/0000000000")]).await;
    stage.breaks("submitter", "does not attend its job, which is not sealed");
    let rejoined = stage.stranger().await;
    ephemeral(&rejoined, "/tasks/j-2/client-2", "").await;
    rejoined.write(delete("/data/j-2/0000000001")).await.expect("collected");
    stage.breaks("", "a client that attends it, on a new session");
    stage.all(&[set("/tasks/j-2", r#"{"kind":"echo","sealed":true}"#)]).await;
    lead(&leader, &["/tasks/j-2/client-2", "/data/j-2", "/tasks/j-2"].map(delete)).await;
    stage.breaks("", "anybody closes what is sealed");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_hand_deletes_of_a_job_is_named_whatever_it_is() {
    let (stage, leader, worker) = Stage::new("hands").await;
    stage.all(&[create("/tasks/j-2", r#"{"kind":"echo"}"#), create("/data/j-2", "")]).await;
    stage.all(&[delete("/data/j-2")]).await;
    stage.breaks("leftovers", "/data/j-2 was deleted, but job j-2 is left");
    let stranger = stage.stranger().await;
    assign(&leader, "w-1", ENTRY).await;
    stranger.write(delete(TASK)).await.expect("deleted"); // while it runs
    stage.breaks("one-end", "was deleted without an outcome");
    worker.write(set(DATA, OUTCOME)).await.expect("set");
    stage.breaks("commit", "was set apart from its task");
    stranger.write(delete("/tasks/j-1")).await.expect("deleted");
    let rules: Vec<&str> = stage.audit().violations[3..].iter().map(|violation| violation.rule).collect();
    assert_eq!(
        rules,
        ["leftovers", "submitter", "leftovers"],
        "closed with its data left, which it still is at the end"
    );
}
