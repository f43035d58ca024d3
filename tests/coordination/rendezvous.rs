use std::time::Duration;

use coordination::{
    Failure, Session,
    rendezvous::{Conductor, Member, Missed},
};
use futures::future::join_all;
use lab::line::Line;

use crate::support::{connect, fresh_config, through, zookeeper};

const CALLS: &str = "/calls";

async fn join(session: &Session, name: &str) -> Member {
    Member::join(session, CALLS, name).await.expect("in time")
}

/// Whether it is still waiting after a while that is long enough for any notification.
async fn waits<T>(what: &mut (impl Future<Output = T> + Unpin)) -> bool {
    tokio::time::timeout(Duration::from_millis(300), what).await.is_err()
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_goes_before_all_are_there_and_nobody_is_called_twice() {
    let config = fresh_config();
    let sessions = [connect(&config).await, connect(&config).await, connect(&config).await];
    let mut conductor = Conductor::open(&sessions[0], CALLS).await.expect("opened");
    let members = ["/a".to_owned(), "/b".to_owned()];
    let mut gathered = Box::pin(conductor.all_reach(&members, 0));
    let a = join(&sessions[1], "/a").await;
    assert!(waits(&mut gathered).await, "b is not there");
    let b = join(&sessions[2], "/b").await;
    gathered.await.expect("both are");
    for point in 1..10 {
        let (mut a_called, mut b_called) = (Box::pin(a.called(point)), Box::pin(b.called(point)));
        if point == 1 {
            assert!(waits(&mut a_called).await && waits(&mut b_called).await, "point 1 was not called");
        }
        conductor.call(point).await.expect("called");
        a_called.await.expect("called");
        b_called.await.expect("called");
        a.reach(point).await.expect("reached");
        if point == 1 {
            assert!(waits(&mut Box::pin(conductor.all_reach(&members, point))).await, "b has not reached it");
        }
        b.reach(point).await.expect("reached");
        conductor.all_reach(&members, point).await.expect("all have");
    }
    b.called(3).await.expect("an earlier point was called too");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_dies_is_missed_whomever_the_conductor_waits_for() {
    let config = fresh_config();
    let sessions = [connect(&config).await, connect(&config).await, connect(&config).await];
    let mut conductor = Conductor::open(&sessions[0], CALLS).await.expect("opened");
    let members = ["/a".to_owned(), "/b".to_owned()];
    let (_a, b) = (join(&sessions[1], "/a").await, join(&sessions[2], "/b").await);
    conductor.all_reach(&members, 0).await.expect("both are there");
    conductor.call(1).await.expect("called");
    b.reach(1).await.expect("reached");
    let mut both = Box::pin(conductor.all_reach(&members, 2));
    assert!(waits(&mut both).await);
    sessions[2].close().await;
    assert_eq!(both.await, Err(Missed::Gone("/b".to_owned())));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conductor_has_more_members_than_a_session_may_have_watches() {
    let config = fresh_config();
    let sessions = [connect(&config).await, connect(&config).await];
    let mut conductor = Conductor::open(&sessions[0], CALLS).await.expect("opened");
    let paths: Vec<String> = (0..600).map(|n| format!("/member-{n:04}")).collect();
    let joined = join_all(paths.iter().map(|path| Member::join(&sessions[1], CALLS, path)));
    let (gathered, members) = tokio::join!(conductor.all_reach(&paths, 0), joined);
    gathered.expect("all came");
    let members: Vec<Member> = members.into_iter().map(|member| member.expect("in time")).collect();
    conductor.call(1).await.expect("called");
    let mut reached = Box::pin(conductor.all_reach(&paths, 1));
    let (last, others) = members.split_last().expect("600");
    join_all(others.iter().map(|member| member.reach(1))).await.into_iter().for_each(|set| set.expect("reached"));
    assert!(waits(&mut reached).await, "the last one has not reached it");
    last.reach(1).await.expect("reached");
    reached.await.expect("all have");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conductor_hears_of_what_came_while_its_connection_was_cut() {
    let config = fresh_config();
    let line = Line::to(zookeeper()).await.expect("a port");
    let sessions = [connect(&through(&line, &config)).await, connect(&config).await];
    let mut conductor = Conductor::open(&sessions[0], CALLS).await.expect("opened");
    let members = ["/a".to_owned(), "/b".to_owned()];
    let mut gathered = Box::pin(conductor.all_reach(&members, 0));
    let _a = join(&sessions[1], "/a").await;
    assert!(waits(&mut gathered).await, "b is not there");
    line.cut();
    line.mend();
    let _b = join(&sessions[1], "/b").await;
    gathered.await.expect("both are");
}

#[tokio::test(flavor = "multi_thread")]
async fn members_miss_a_conductor_that_dies() {
    let config = fresh_config();
    let sessions = [connect(&config).await, connect(&config).await];
    let _conductor = Conductor::open(&sessions[0], CALLS).await.expect("opened");
    let a = join(&sessions[1], "/a").await;
    let mut called = Box::pin(a.called(1));
    assert!(waits(&mut called).await);
    sessions[0].close().await;
    assert_eq!(called.await, Err(Missed::Gone(CALLS.to_owned())));
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_comes_after_the_first_call_or_without_a_conductor_is_told_so() {
    let config = fresh_config();
    let sessions = [connect(&config).await, connect(&config).await];
    let early = Member::join(&sessions[1], CALLS, "/a").await.map(drop);
    assert_eq!(early, Err(Missed::Gone(CALLS.to_owned())));
    let conductor = Conductor::open(&sessions[0], CALLS).await.expect("opened");
    conductor.call(4).await.expect("called");
    assert_eq!(Member::join(&sessions[1], CALLS, "/a").await.map(drop), Err(Missed::Late(4)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_place_that_is_taken_is_refused() {
    let config = fresh_config();
    let sessions = [connect(&config).await, connect(&config).await];
    let _conductor = Conductor::open(&sessions[0], CALLS).await.expect("opened");
    let second = Conductor::open(&sessions[1], CALLS).await.map(drop);
    assert!(matches!(second, Err(Failure::Refused(_))), "{second:?}");
    let _a = join(&sessions[0], "/a").await;
    let again = Member::join(&sessions[1], CALLS, "/a").await.map(drop);
    assert!(matches!(again, Err(Missed::Failed(Failure::Refused(_)))), "{again:?}");
}
