use herdsman::coordination::commit::CommitError;
use herdsman::coordination::{Committer, Op, Reader, Refusal};
use herdsman::faults::line::{Line, MULTI};

use crate::support::{children, connect, fresh_config, node, through, until, zookeeper};

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
            let refused = CommitError::Refused { at: 1, refusal: Refusal::NoNode, resent: false };
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

#[tokio::test(flavor = "multi_thread")]
async fn hazard_7_a_commit_whose_reply_was_lost_is_applied_once_and_says_that_it_was_sent_twice() {
    let config = fresh_config();
    let line = Line::to(zookeeper()).await.expect("a port");
    let session = connect(&through(&line, &config)).await;
    session.write(create("/counter".into())).await.expect("created");
    let committer = Committer::start(session.clone(), None);
    line.cut_reply_to(MULTI);
    let add_one = Op::Set { path: "/counter".to_owned(), data: b"1".to_vec(), version: Some(0) };
    let committed = committer.commit(vec![add_one]).await;
    assert_eq!(line.replies_cut(), 1);
    let refused = CommitError::Refused { at: 0, refusal: Refusal::BadVersion, resent: true };
    assert_eq!(committed, Err(refused), "applied the first time, refused the second");
    assert_eq!(node(&session, "/counter").await.version, 1);
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
