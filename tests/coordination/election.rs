use std::pin::pin;

use coordination::{Candidacy, Failure, Leadership, MultiFailure, Op, Refusal, Session, State, election::Election};
use lab::line::{Line, MULTI};

use crate::support::{
    LIMIT, children, connect, forbid, fresh_config, node, through, until, zookeeper, zookeeper_version,
};

async fn root(session: &Session) {
    session.write(Op::Create { path: "/master".to_owned(), data: Vec::new() }).await.expect("created");
}

async fn enter(session: &Session, uid: &str) -> Candidacy {
    Candidacy::enter(session, "/master", "m", uid, b"{}").await.expect("entered")
}

async fn win(candidacy: Candidacy) -> Leadership {
    match candidacy.won().await.expect("the session lives") {
        Election::Won(leadership) => leadership,
        Election::Removed => panic!("removed"),
    }
}

/// That `waiting` goes on waiting though it has seen how things are. It asks on `session`, which answers in the order of the
/// requests: before each answer to one of ours came an answer to one of its, and it looks with fewer than these.
async fn still_waits(session: &Session, waiting: &mut (impl Future + Unpin)) {
    session.settle().await.expect("connected");
    let answers = async {
        for _ in 0..20 {
            session.get("/master").await.expect("connected");
        }
    };
    tokio::select! {
        biased;
        _ = waiting => panic!("it waits no longer"),
        () = answers => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lowest_number_leads_and_the_one_behind_it_follows() {
    let config = fresh_config();
    let sessions = [connect(&config).await, connect(&config).await, connect(&config).await];
    root(&sessions[0]).await;
    // Names sort against the order of entering: the numbers decide.
    let first = enter(&sessions[0], "zz").await;
    let second = enter(&sessions[1], "mm").await;
    let third = enter(&sessions[2], "aa").await;
    let leader = win(first).await;
    let (mut second, mut third) = (pin!(win(second)), pin!(win(third)));
    still_waits(&sessions[1], &mut second).await;
    still_waits(&sessions[2], &mut third).await;
    leader.resign().await;
    let leader = second.await;
    still_waits(&sessions[2], &mut third).await; // one resignation makes one leader
    leader.resign().await;
    third.await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_death_of_a_candidate_in_the_middle_makes_nobody_leader() {
    let config = fresh_config();
    let sessions = [connect(&config).await, connect(&config).await, connect(&config).await];
    root(&sessions[0]).await;
    let leader = win(enter(&sessions[0], "a").await).await;
    let _second = enter(&sessions[1], "b").await;
    let mut third = pin!(win(enter(&sessions[2], "c").await));
    still_waits(&sessions[2], &mut third).await; // it watches the second
    sessions[1].close().await;
    until("the second is gone", async || children(&sessions[0], "/master").await.len() == 2).await;
    still_waits(&sessions[2], &mut third).await; // its watch has fired, and it has looked again
    leader.resign().await;
    third.await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_candidate_whose_znode_is_gone_never_believes_that_it_is_first() {
    let config = fresh_config();
    let (session, other) = (connect(&config).await, connect(&config).await);
    root(&session).await;
    let _leader = win(enter(&session, "a").await).await;
    let candidacy = enter(&other, "b").await;
    session.write(Op::Delete { path: candidacy.path().to_owned(), version: None }).await.expect("deleted");
    assert!(matches!(candidacy.won().await, Ok(Election::Removed)));
}

#[tokio::test(flavor = "multi_thread")]
async fn hazard_24_a_candidacy_whose_reply_was_lost_leaves_one_znode_and_wins() {
    let config = fresh_config();
    let observer = connect(&config).await;
    root(&observer).await;
    let line = Line::to(zookeeper()).await.expect("a port");
    let session = connect(&through(&line, &config)).await;
    line.cut_reply_to(MULTI);
    let candidacy = enter(&session, "0badcafe").await;
    assert_eq!(line.replies_cut(), 1);
    assert_eq!(children(&observer, "/master").await.len(), 1);
    win(candidacy).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hazard_23_a_write_of_a_leader_that_lagged_past_its_session_is_refused() {
    let config = fresh_config();
    let line = Line::to(zookeeper()).await.expect("a port");
    let (old, new) = (connect(&through(&line, &config)).await, connect(&config).await);
    root(&new).await;
    let stale = win(enter(&old, "a").await).await;
    let guard = stale.guard();
    let backup = tokio::spawn(win(enter(&new, "b").await));
    line.cut(); // the leader is deaf and mute, as in a long garbage collection
    backup.await.expect("no panic");
    line.mend();
    let write = Op::Create { path: "/late".to_owned(), data: Vec::new() };
    let refused = old.multi(&[guard.clone(), write.clone()]).await.expect_err("its time is over");
    assert!(matches!(refused.failure, Failure::SessionOver(_)), "{refused}");
    // Nor from any other session of that process: the guard names a znode that never comes back.
    let refused = new.multi(&[guard, write]).await.expect_err("its time is over");
    assert_eq!(refused, MultiFailure { at: Some(0), failure: Failure::Refused(Refusal::NoNode) });
    assert_eq!(new.get("/late").await, Ok(None));
}

#[tokio::test(flavor = "multi_thread")]
async fn hazard_17_a_short_disconnect_does_not_end_a_leadership() {
    let config = fresh_config();
    let observer = connect(&config).await;
    root(&observer).await;
    let line = Line::to(zookeeper()).await.expect("a port");
    let session = connect(&through(&line, &config)).await;
    let leadership = win(enter(&session, "a").await).await;
    let mut lost = tokio::spawn(leadership.lost());
    still_waits(&session, &mut lost).await;
    line.cut();
    session.status().wait_for(|s| s.state == State::Disconnected).await.expect("noticed");
    line.mend();
    session.settle().await.expect("the session lives");
    session.multi(&[leadership.guard()]).await.expect("still the leader");
    still_waits(&session, &mut lost).await;
    observer.write(Op::Delete { path: leadership.path().to_owned(), version: None }).await.expect("deleted");
    tokio::time::timeout(LIMIT, lost).await.expect("it notices").expect("no panic");
}

#[tokio::test(flavor = "multi_thread")]
async fn resigning_deletes_the_znode_also_when_the_reply_is_lost() {
    let config = fresh_config();
    let observer = connect(&config).await;
    root(&observer).await;
    let line = Line::to(zookeeper()).await.expect("a port");
    let session = connect(&through(&line, &config)).await;
    let leadership = win(enter(&session, "a").await).await;
    node(&observer, leadership.path()).await;
    line.cut_reply_to(MULTI);
    leadership.resign().await;
    assert_eq!(line.replies_cut(), 1);
    assert!(children(&observer, "/master").await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_persistent_znode_with_the_lowest_number_ends_no_leadership() {
    let config = fresh_config();
    let sessions = [connect(&config).await, connect(&config).await, connect(&config).await];
    root(&sessions[0]).await;
    let slip = |name: &str| Op::Create { path: format!("/master/{name}"), data: b"{}".to_vec() };
    // Numbers are given by how many there were: 0 and 1 by hand, then 2, 3, and 4.
    for name in ["old-0badcafe-0000000000", "old-0badcafe-0000000001"] {
        sessions[0].write(slip(name)).await.expect("created");
    }
    let leader = win(enter(&sessions[0], "a").await).await;
    let second = enter(&sessions[1], "b").await;
    sessions[0].write(slip("old-0badcafe-0000000003x")).await.expect("created"); // no number
    let (mut second, mut third) = (pin!(win(second)), pin!(win(enter(&sessions[2], "c").await)));
    still_waits(&sessions[1], &mut second).await;
    still_waits(&sessions[2], &mut third).await;
    leader.resign().await;
    let leader = second.await;
    still_waits(&sessions[2], &mut third).await;
    leader.resign().await;
    third.await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_candidate_that_may_not_be_read_is_waited_for_where_it_has_an_owner() {
    let config = fresh_config();
    let sessions = [connect(&config).await, connect(&config).await];
    root(&sessions[0]).await;
    // From 3.9 on ZooKeeper does not even tell whether somebody owns it: then it is waited for until somebody deletes it.
    if zookeeper_version().starts_with("3.8") {
        let old = Op::Create { path: "/master/old-0000000000".to_owned(), data: Vec::new() };
        sessions[0].write(old).await.expect("created");
        forbid(&config, "/master/old-0000000000").await;
    }
    let leader = win(enter(&sessions[0], "a").await).await;
    forbid(&config, leader.path()).await;
    let mut second = pin!(win(enter(&sessions[1], "b").await));
    still_waits(&sessions[1], &mut second).await;
    // What it may not read itself passes its check no more: it steps down.
    let refused = sessions[0].multi(&[leader.guard()]).await.expect_err("not authorized");
    assert_eq!(refused.at, Some(0), "{refused}");
    leader.lost().await;
    leader.resign().await; // deleting is its parent's right
    second.await;
}
