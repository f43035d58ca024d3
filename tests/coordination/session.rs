use std::pin::pin;
use std::time::{Duration, Instant, SystemTime};

use coordination::{
    ConnectError, Failure, Op, Refusal, Registration, Session, SessionConfig, State, clock::wall_ms, watch::Event,
};
use futures::poll;
use lab::line::{Line, MULTI};
use znode::REQUEST_BYTES_MAX;

use crate::support::{LIMIT, TIMEOUT, children, config_at, connect, fresh_config, node, through, until, zookeeper};

fn create(path: &str) -> Op {
    Op::Create { path: path.to_owned(), data: Vec::new() }
}

fn ephemeral(path: &str) -> Op {
    Op::CreateEphemeral { path: path.to_owned(), data: Vec::new(), sequential: false }
}

/// Each time that it is made there is another.
fn numbered(prefix: &str) -> Op {
    Op::CreateEphemeral { path: prefix.to_owned(), data: Vec::new(), sequential: true }
}

#[tokio::test(flavor = "multi_thread")]
async fn hazard_21_closing_a_session_removes_its_ephemerals_at_once() {
    let config = fresh_config();
    let (leaver, observer) = (connect(&config).await, connect(&config).await);
    leaver.write(ephemeral("/e")).await.expect("created");
    let clone = leaver.clone(); // a forgotten clone must not keep the session alive
    let began = Instant::now();
    leaver.close().await;
    observer.refresh().await.expect("connected");
    assert_eq!(observer.get("/e").await, Ok(None));
    assert!(began.elapsed() < TIMEOUT / 2, "{:?}", began.elapsed());
    assert!(matches!(clone.get("/e").await, Err(Failure::SessionOver(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn hazard_29_a_missing_chroot_is_named_or_created() {
    let mut config = fresh_config();
    config.create_chroot = false;
    let error = Session::connect(&config, LIMIT).await.expect_err("no chroot");
    assert!(matches!(error, ConnectError::NoChroot { .. }), "{error}");
    config.create_chroot = true;
    connect(&config).await.write(create("/inside")).await.expect("created");
    config.create_chroot = false;
    connect(&config).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hazard_29_an_unreachable_server_is_named_with_the_cause() {
    let within = Duration::from_millis(500);
    let error = Session::connect(&config_at("127.0.0.1:1", "/x"), within).await.expect_err("nobody there");
    let text = error.to_string();
    assert!(text.contains("127.0.0.1:1") && text.contains("500ms") && text.contains("refused"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn hazard_11_an_oversized_request_is_refused_and_the_connection_survives() {
    let session = connect(&fresh_config()).await;
    let large = Op::Create { path: "/large".to_owned(), data: vec![0; REQUEST_BYTES_MAX] };
    let refused = session.write(large).await.expect_err("too large");
    assert!(matches!(refused, Failure::Refused(Refusal::TooLarge { .. })), "{refused}");
    session.write(create("/small")).await.expect("created");
    assert_eq!(session.status().borrow().epoch, 0, "the connection was never lost");
    let almost = Op::Create { path: "/almost".to_owned(), data: vec![0; REQUEST_BYTES_MAX - 1000] };
    session.write(almost).await.expect("what is below the limit passes");
}

#[tokio::test(flavor = "multi_thread")]
async fn hazard_10_a_call_made_while_disconnected_waits_and_is_made_once() {
    let config = fresh_config();
    let observer = connect(&config).await;
    let line = Line::to(zookeeper()).await.expect("a port");
    let session = connect(&through(&line, &config)).await;
    line.cut();
    let mut status = session.status();
    status.wait_for(|s| s.state == State::Disconnected).await.expect("noticed");
    // Made twice, there would be two.
    let mut waiting = pin!(session.write(numbered("/later-")));
    assert!(poll!(&mut waiting).is_pending(), "made, and not answered");
    observer.refresh().await.expect("connected");
    assert_eq!(children(&observer, "/").await, [""; 0]);
    line.mend();
    let created = waiting.await.expect("created").expect("a path");
    session.settle().await.expect("connected");
    observer.refresh().await.expect("connected");
    assert_eq!(children(&observer, "/").await, [&created[1..]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn hazard_16_the_lease_ends_before_anybody_else_sees_the_ephemeral_go() {
    let config = fresh_config();
    let observer = connect(&config).await;
    let line = Line::to(zookeeper()).await.expect("a port");
    let session = connect(&through(&line, &config)).await;
    session.write(ephemeral("/e")).await.expect("created");
    line.drop_requests();
    session.lease_ended().await;
    assert!(!session.lease().holds(Instant::now()));
    node(&observer, "/e").await; // not expired yet when we stop trusting
    until("the server expires the session", async || observer.get("/e").await == Ok(None)).await;
    assert!(session.lease().stop_by() <= Instant::now(), "everything had to be stopped by then");
}

#[tokio::test(flavor = "multi_thread")]
async fn hazard_16_an_idle_session_keeps_its_lease_by_probing() {
    let session = connect(&fresh_config()).await;
    let first = session.lease().ends();
    until("the lease is renewed without a call of ours", async || session.lease().ends() > first + TIMEOUT).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hazard_2_a_reconnect_too_fast_to_be_seen_as_a_state_counts_as_a_change() {
    let line = Line::to(zookeeper()).await.expect("a port");
    let session = connect(&through(&line, &fresh_config())).await;
    let before = session.status().borrow().epoch;
    line.interrupt();
    until("the epoch goes up", async || session.status().borrow().epoch > before).await;
    session.settle().await.expect("the session lives");
}

#[tokio::test(flavor = "multi_thread")]
async fn hazard_20_a_session_is_back_soon_after_an_outage_of_most_of_its_timeout() {
    let line = Line::to(zookeeper()).await.expect("a port");
    let mut config = through(&line, &fresh_config());
    config.session_timeout = Duration::from_secs(10);
    let session = connect(&config).await;
    line.cut();
    tokio::time::sleep(Duration::from_secs(5)).await; // the outage itself
    let mended = Instant::now();
    line.mend();
    session.settle().await.expect("the session lives");
    assert!(mended.elapsed() < Duration::from_secs(2), "{:?}", mended.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn hazard_5_a_tree_watch_ends_with_its_session_instead_of_panicking() {
    let session = connect(&fresh_config()).await;
    let mut watch = session.watch_tree("/").await.expect("watched");
    session.write(create("/a")).await.expect("created");
    assert_eq!(watch.next().await, Some(Event::Created("/a".to_owned())));
    session.close().await;
    assert_eq!(watch.next().await, None);
    assert_eq!(watch.next().await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn hazard_8_an_ephemeral_whose_reply_was_lost_is_found_again_and_not_created_twice() {
    let config = fresh_config();
    let observer = connect(&config).await;
    observer.write(create("/members")).await.expect("created");
    let line = Line::to(zookeeper()).await.expect("a port");
    let session = connect(&through(&line, &config)).await;
    line.cut_reply_to(MULTI);
    let member = Registration::enter(&session, "/members", "m", "0badcafe", b"{}").await.expect("registered");
    assert_eq!(line.replies_cut(), 1, "the reply was lost");
    assert_eq!(children(&observer, "/members").await, ["m-0badcafe"]);
    assert_eq!(node(&observer, member.path()).await.owner, session.id());
}

#[tokio::test(flavor = "multi_thread")]
async fn hazard_19_a_znode_of_the_same_name_that_another_session_owns_is_not_taken_for_ours() {
    let config = fresh_config();
    let (ghost, session) = (connect(&config).await, connect(&config).await);
    ghost.write(create("/members")).await.expect("created");
    ghost.write(ephemeral("/members/m-0badcafe")).await.expect("created");
    let refused = Registration::enter(&session, "/members", "m", "0badcafe", b"{}").await.expect_err("taken");
    assert_eq!(refused, Failure::Refused(Refusal::NodeExists));
}

fn an_hour_ahead() -> SystemTime {
    SystemTime::now() + Duration::from_secs(3600)
}

/// How far a session's time is from ZooKeeper's, which runs on this machine.
fn ahead_ms(session: &Session) -> i64 {
    session.now_ms() - wall_ms(SystemTime::now())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_time_is_zookeepers_once_a_write_was_answered_and_asking_for_it_leaves_nothing() {
    let config = SessionConfig { wall_clock: an_hour_ahead, ..fresh_config() };
    let (asks, writes) = (connect(&config).await, connect(&config).await);
    assert!((3_599_000..=3_601_000).contains(&ahead_ms(&asks)), "nothing is known but this machine's clock");
    asks.learn_time().await.expect("learned");
    assert!(ahead_ms(&asks).abs() < 1_000);
    assert_eq!(children(&asks, "/").await, [""; 0]);
    writes.write(create("/z")).await.expect("created");
    writes.write(Op::Set { path: "/z".to_owned(), data: Vec::new(), version: None }).await.expect("set");
    assert!(ahead_ms(&writes).abs() < 1_000, "any write tells");
}

#[tokio::test(flavor = "multi_thread")]
async fn hazard_7_the_time_is_learned_though_the_answer_that_told_it_is_lost() {
    let line = Line::to(zookeeper()).await.expect("a port");
    let config = SessionConfig { wall_clock: an_hour_ahead, ..through(&line, &fresh_config()) };
    let session = connect(&config).await;
    line.cut_reply_to(MULTI);
    session.learn_time().await.expect("learned");
    assert_eq!(line.replies_cut(), 1);
    assert!(ahead_ms(&session).abs() < 1_000);
    assert_eq!(children(&session, "/").await, [""; 0]);
}
