use std::time::Duration;

use coordination::{Committer, Op, Reader, Refusal, SessionConfig, commit::CommitError};
use lab::{
    cut_replies::CutReplies,
    line::{Line, MULTI},
};
use tokio::time::timeout;

use crate::support::{LIMIT, children, connect, fresh_config, node, refused_below, through, until, zookeeper};

fn create(path: String) -> Op {
    Op::Create { path, data: Vec::new() }
}

#[tokio::test(flavor = "multi_thread")]
async fn hazard_12_a_refused_transaction_is_taken_out_and_its_neighbours_succeed() {
    let session = connect(&fresh_config()).await;
    let committer = Committer::start(session.clone(), None);
    let pairs = (0..200).map(|n| {
        // Every tenth one asks for what cannot be.
        let second = if n % 10 == 3 { format!("/absent/{n}") } else { format!("/b{n}") };
        committer.commit(vec![create(format!("/a{n}")), create(second)])
    });
    let results = futures::future::join_all(pairs).await;
    for (n, result) in results.into_iter().enumerate() {
        if n % 10 == 3 {
            let refused = CommitError::Refused { at: 1, refusal: Refusal::NoNode, unanswered: false };
            assert_eq!(result, Err(refused));
            assert_eq!(session.get(&format!("/a{n}")).await, Ok(None), "all of a transaction or nothing");
        } else {
            assert_eq!(result, Ok(()));
        }
    }
    assert_eq!(children(&session, "/").await.len(), 360);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_guard_voids_the_whole_batch() {
    let session = connect(&fresh_config()).await;
    let guard = Op::Check { path: "/place".to_owned(), version: None };
    let committer = Committer::start(session.clone(), Some(guard));
    assert_eq!(committer.commit(vec![create("/a".into())]).await, Err(CommitError::Guard(Refusal::NoNode)));
    session.write(create("/place".into())).await.expect("created");
    assert_eq!(committer.commit(vec![create("/a".into())]).await, Ok(()));
}

/// Commits all of `transactions` in one multi whose reply is lost; `meanwhile` happens between its being applied and the next
/// connection.
async fn unanswered<T>(
    config: &SessionConfig,
    guard: Option<Op>,
    transactions: Vec<Vec<Op>>,
    meanwhile: impl Future<Output = T>,
) -> Vec<Result<(), CommitError>> {
    let line = Line::to(zookeeper()).await.expect("a port");
    let session = connect(&through(&line, config)).await;
    let committer = Committer::start(session, guard);
    line.delay(Duration::from_millis(100)); // so that it is not back before `meanwhile`
    line.cut_reply_to(MULTI);
    // They gather: on one thread nothing is sent before something is waited for.
    let answers: Vec<_> = transactions.into_iter().map(|ops| committer.commit(ops)).collect();
    until("the reply is cut off", async || line.replies_cut() == 1).await;
    line.cut();
    meanwhile.await;
    line.mend();
    let answers = timeout(LIMIT, futures::future::join_all(answers)).await.expect("settled soon");
    assert_eq!(line.replies_cut(), 1);
    answers
}

fn delete(path: &str, version: i32) -> Op {
    Op::Delete { path: path.to_owned(), version: Some(version) }
}

fn set(path: &str, data: &str, version: i32) -> Op {
    Op::Set { path: path.to_owned(), data: data.into(), version: Some(version) }
}

#[tokio::test]
async fn hazard_31_what_an_unanswered_batch_made_and_somebody_consumed_is_not_made_again() {
    let config = fresh_config();
    let other = connect(&config).await;
    let batch = ["/a", "/b", "/c"].map(|path| vec![create(path.to_owned())]).to_vec();
    let answers = unanswered(&config, None, batch, async { other.write(delete("/b", 0)).await.expect("it is there") });
    assert_eq!(answers.await, [Ok(()), Ok(()), Ok(())], "a multi is one step, and /a tells of all of it");
    assert_eq!(other.get("/b").await, Ok(None));
    assert_eq!(node(&other, "/a").await.version, 0);
}

#[tokio::test]
async fn hazard_31_an_unanswered_batch_of_deletes_and_sets_is_answered_from_what_is_there() {
    let config = fresh_config();
    let other = connect(&config).await;
    for n in 0..5 {
        other.multi(&[create(format!("/t{n}")), create(format!("/d{n}"))]).await.expect("created");
    }
    let complete = |n: usize| vec![delete(&format!("/t{n}"), 0), set(&format!("/d{n}"), "done", 0)];
    let answers = unanswered(&config, None, (0..4).map(complete).collect(), async {
        other.write(delete("/d0", 1)).await.expect("collected");
    })
    .await;
    // Nothing is left that would tell a completion of ours from one by somebody else: it is over either way.
    let over = CommitError::Refused { at: 0, refusal: Refusal::NoNode, unanswered: true };
    assert_eq!(answers, vec![Err(over); 4]);
    assert_eq!(node(&other, "/d1").await.version, 1, "once");
    let answers =
        unanswered(&config, None, vec![vec![set("/t4", "again", 0)], complete(4)[1..].to_vec()], async {}).await;
    assert_eq!(answers, [Ok(()), Ok(())]);
    assert_eq!((node(&other, "/t4").await.version, node(&other, "/d4").await.version), (1, 1));
}

#[tokio::test]
async fn hazard_31_an_unanswered_batch_that_was_refused_is_sent_again_without_its_culprit() {
    let config = fresh_config();
    let other = connect(&config).await;
    let batch = vec![vec![create("/a".into())], vec![create("/b".into()), create("/absent/b".into())]];
    let answers = unanswered(&config, None, batch, async {}).await;
    let refused = CommitError::Refused { at: 1, refusal: Refusal::NoNode, unanswered: false };
    assert_eq!(answers, [Ok(()), Err(refused)]);
    assert_eq!(node(&other, "/a").await.version, 0);
}

#[tokio::test]
async fn hazard_31_an_unanswered_batch_whose_guard_is_gone_since_is_not_sent_again() {
    let config = fresh_config();
    let other = connect(&config).await;
    other.write(create("/place".into())).await.expect("created");
    let guard = Op::Check { path: "/place".to_owned(), version: Some(0) };
    let answers = unanswered(&config, Some(guard), vec![vec![create("/a".into())], vec![create("/b".into())]], async {
        other.multi(&[set("/place", "sealed", 0), delete("/a", 0), delete("/b", 0)]).await.expect("taken over");
    });
    assert_eq!(answers.await, vec![Err(CommitError::Guard(Refusal::BadVersion)); 2], "nothing can be said any more");
    assert_eq!((other.get("/a").await, other.get("/b").await), (Ok(None), Ok(None)));
}

#[tokio::test]
async fn hazard_31_an_ephemeral_that_an_unanswered_batch_made_and_removed_is_not_made_again() {
    let config = fresh_config();
    let other = connect(&config).await;
    other.multi(&[create("/place".into()), create("/t".into())]).await.expect("created");
    let live = Op::CreateEphemeral { path: "/live".to_owned(), data: Vec::new(), sequential: false };
    let guard = Op::Check { path: "/place".to_owned(), version: None };
    let batch = vec![vec![live], vec![delete("/live", 0)], vec![delete("/t", 0)]];
    let answers = unanswered(&config, Some(guard), batch, async {}).await;
    let over = CommitError::Refused { at: 0, refusal: Refusal::NoNode, unanswered: true };
    assert_eq!(answers, vec![Err(over); 3]);
    assert_eq!(other.get("/live").await, Ok(None));
}

#[tokio::test]
async fn hazard_7_a_commit_whose_reply_was_lost_is_applied_once() {
    let config = fresh_config();
    let line = Line::to(zookeeper()).await.expect("a port");
    let session = connect(&through(&line, &config)).await;
    session.write(create("/counter".into())).await.expect("created");
    let committer = Committer::start(session.clone(), None);
    line.cut_reply_to(MULTI);
    assert_eq!(committer.commit(vec![set("/counter", "1", 0)]).await, Ok(()));
    assert_eq!(line.replies_cut(), 1);
    assert_eq!(node(&session, "/counter").await.version, 1);
    // Somebody else has set it since: whether ours came first cannot be told.
    let other = connect(&config).await;
    let answers = unanswered(&config, None, vec![vec![set("/counter", "2", 1)]], async {
        other.write(set("/counter", "3", 2)).await.expect("ours was applied");
    });
    let refused = CommitError::Refused { at: 0, refusal: Refusal::BadVersion, unanswered: true };
    assert_eq!(answers.await, [Err(refused)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn hazard_7_a_commit_that_is_never_answered_is_not_sent_for_ever_and_ends_the_session() {
    let line = Line::to(zookeeper()).await.expect("a port");
    let session = connect(&through(&line, &fresh_config())).await;
    session.write(create("/z".into())).await.expect("created");
    let committer = Committer::start(session.clone(), None);
    // It does no harm twice, and tells nothing of whether it was applied.
    let again = Op::Set { path: "/z".to_owned(), data: vec![0; 1_000], version: None };
    line.schedule(CutReplies::new(1..=99, 500));
    let answer = timeout(LIMIT, committer.commit(vec![again])).await.expect("given up");
    assert!(matches!(answer, Err(CommitError::SessionOver(_))), "{answer:?}");
    assert_eq!(line.replies_cut(), 11);
}

#[tokio::test(flavor = "multi_thread")]
async fn hazard_9_dropping_the_future_of_a_commit_does_not_withdraw_it() {
    let session = connect(&fresh_config()).await;
    let committer = Committer::start(session.clone(), None);
    drop(committer.commit(vec![create("/a".into())]));
    until("it is applied all the same", async || session.get("/a").await.is_ok_and(|n| n.is_some())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_too_large_for_any_request_fails_alone() {
    let session = connect(&fresh_config()).await;
    let committer = Committer::start(session.clone(), None);
    let large = committer.commit(vec![Op::Create { path: "/large".to_owned(), data: vec![0; 1 << 20] }]);
    let half = |n| committer.commit(vec![Op::Create { path: format!("/half{n}"), data: vec![0; 500_000] }]);
    let (large, one, two) = tokio::join!(large, half(1), half(2));
    assert!(matches!(large, Err(CommitError::Refused { refusal: Refusal::TooLarge { .. }, .. })), "{large:?}");
    assert_eq!((one, two), (Ok(()), Ok(())));
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_come_back_in_order_whatever_their_size_and_survive_a_reconnect() {
    let config = fresh_config();
    let line = Line::to(zookeeper()).await.expect("a port");
    let session = connect(&through(&line, &config)).await;
    for n in 0..40 {
        let data = vec![n as u8; if n % 5 == 0 { 300_000 } else { 3 }];
        session.write(Op::Create { path: format!("/n{n}"), data }).await.expect("created");
    }
    let reader = Reader::start(session.clone());
    line.cut_reply_to(22); // a multi of reads
    let reads = (0..41).map(|n| reader.read(format!("/n{n}")));
    let nodes = futures::future::join_all(reads).await;
    assert_eq!(line.replies_cut(), 1);
    for (n, node) in nodes.into_iter().enumerate() {
        let node = node.expect("readable");
        assert_eq!(node.as_ref().and_then(|n| n.data.first().copied()), (n < 40).then_some(n as u8));
    }
}

#[tokio::test]
async fn what_many_others_have_done_already_is_answered_by_a_read_and_not_by_a_refusal_each() {
    let config = fresh_config();
    let session = connect(&config).await;
    for some in (0..400).collect::<Vec<_>>().chunks(200) {
        session.multi(&some.iter().map(|n| create(format!("/t{n}"))).collect::<Vec<_>>()).await.expect("created");
    }
    let gone = |n: usize| !n.is_multiple_of(4);
    let others = (0..400).filter(|n| gone(*n)).map(|n| delete(&format!("/t{n}"), 0)).collect::<Vec<_>>();
    session.multi(&others).await.expect("they were there");
    let committer = Committer::start(session.clone(), None);
    let answers =
        futures::future::join_all((0..400).map(|n| committer.commit(vec![delete(&format!("/t{n}"), 0)]))).await;
    for (n, answer) in answers.into_iter().enumerate() {
        let refused = CommitError::Refused { at: 0, refusal: Refusal::NoNode, unanswered: false };
        assert_eq!(answer, if gone(n) { Err(refused) } else { Ok(()) });
    }
    assert!(children(&session, "/").await.is_empty());
    let refused = refused_below(&config);
    assert!(refused <= 3, "{refused} transactions were refused");
}

#[tokio::test]
async fn transactions_that_one_before_them_makes_refused_are_told_so_at_once_and_only_if_that_was_applied() {
    let config = fresh_config();
    let session = connect(&config).await;
    let paths = (0..200).map(|n| create(format!("/t{n}"))).chain([create("/job".into())]);
    session.multi(&paths.collect::<Vec<_>>()).await.expect("created");
    session.write(delete("/t0", 0)).await.expect("it was there");
    let committer = Committer::start(session.clone(), None);
    // Each ends a task and marks the job, at the version that all have read: one of them can.
    let end = |n: usize| vec![delete(&format!("/t{n}"), 0), set("/job", "failed", 0)];
    let answers = futures::future::join_all((0..200).map(|n| committer.commit(end(n)))).await;
    let refused = |at, refusal| Err(CommitError::Refused { at, refusal, unanswered: false });
    assert_eq!(answers[0], refused(0, Refusal::NoNode), "its task is gone, so it marks nothing");
    assert_eq!(answers[1], Ok(()));
    assert_eq!(answers[2..], vec![refused(1, Refusal::BadVersion); 198]);
    assert_eq!((node(&session, "/job").await.version, children(&session, "/").await.len()), (1, 199));
    let refused = refused_below(&config);
    assert!(refused <= 3, "{refused} transactions were refused");
    // What depends on one before it is not judged without that.
    let pair = [vec![create("/x".into())], vec![delete("/t0", 0)], vec![set("/x", "1", 0)], vec![delete("/x", 1)]];
    let answers = futures::future::join_all(pair.map(|ops| committer.commit(ops))).await;
    let gone = Err(CommitError::Refused { at: 0, refusal: Refusal::NoNode, unanswered: false });
    assert_eq!(answers, [Ok(()), gone, Ok(()), Ok(())]);
}
