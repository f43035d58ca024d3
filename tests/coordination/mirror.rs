use std::collections::BTreeMap;

use coordination::{Change, Mirror, Op, Scope, Session, State};
use lab::line::Line;

use crate::support::{LIMIT, connect, forbid, fresh_config, through, zookeeper};

const SCOPE: Scope = Scope { levels: 2, read_created: |_| true, read_changed: |_| true, remember_leaves: false };

/// What a mirror shows: path and data.
#[derive(Default)]
struct Shadow {
    nodes: BTreeMap<String, Vec<u8>>,
    snapshots: usize,
    /// How many znodes of the last snapshot were not read again.
    unread: usize,
    answers: u64,
}

impl Shadow {
    fn apply(&mut self, change: Change) {
        match change {
            Change::Snapshot { nodes, answers } => {
                let mut before = std::mem::take(&mut self.nodes);
                self.unread = nodes.iter().filter(|(_, node)| node.is_none()).count();
                let mut known = |path: &str| before.remove(path).expect("handed over before");
                let nodes = nodes.into_iter().map(|(path, node)| match node {
                    Some(node) => (path, node.data),
                    None => (path.clone(), known(&path)),
                });
                self.nodes = nodes.collect();
                self.snapshots += 1;
                self.answers = answers;
            }
            Change::Created(path, node) | Change::Changed(path, node) => {
                self.nodes.insert(path, node.map(|n| n.data).unwrap_or_default());
            }
            Change::Deleted(path) => {
                self.nodes.remove(&path);
            }
            Change::RootGone => self.nodes.clear(),
        }
    }

    async fn follow_until(&mut self, mirror: &mut Mirror, mut done: impl FnMut(&Self) -> bool) {
        while !done(self) {
            let changes = tokio::time::timeout(LIMIT, mirror.next()).await.expect("a change comes");
            changes.expect("the session lives").into_iter().for_each(|change| self.apply(change));
        }
    }
}

async fn create(session: &Session, path: &str, data: &str) {
    let op = Op::Create { path: path.to_owned(), data: data.as_bytes().to_vec() };
    session.write(op).await.expect("created");
}

async fn set(session: &Session, path: &str, data: &str) {
    let op = Op::Set { path: path.to_owned(), data: data.as_bytes().to_vec(), version: None };
    session.write(op).await.expect("set");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_shows_what_is_there_and_then_each_change() {
    let session = connect(&fresh_config()).await;
    for (path, data) in [("/root", ""), ("/root/a", "1"), ("/root/a/b", "2"), ("/root/a/b/deeper", "")] {
        create(&session, path, data).await;
    }
    let mut mirror = Mirror::start(session.clone(), "/root", SCOPE);
    let mut shadow = Shadow::default();
    shadow.follow_until(&mut mirror, |s| s.snapshots == 1).await;
    assert_eq!(shadow.nodes, BTreeMap::from([("a".into(), b"1".to_vec()), ("a/b".into(), b"2".to_vec())]));
    create(&session, "/root/c", "3").await;
    set(&session, "/root/a", "4").await;
    session.write(Op::Delete { path: "/root/a/b/deeper".to_owned(), version: None }).await.expect("deleted");
    session.write(Op::Delete { path: "/root/a/b".to_owned(), version: None }).await.expect("deleted");
    let want = BTreeMap::from([("a".into(), b"4".to_vec()), ("c".into(), b"3".to_vec())]);
    shadow.follow_until(&mut mirror, |s| s.nodes == want).await;
    assert_eq!(shadow.snapshots, 1, "nothing was listed again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_asked_for_lists_everything_and_reads_only_leaves_that_are_new() {
    let config = fresh_config();
    let (session, other) = (connect(&config).await, connect(&config).await);
    for path in ["/root", "/root/a", "/root/a/1", "/root/a/2", "/root/a/3"] {
        create(&other, path, "before").await;
    }
    let scope = Scope { read_created: |_| false, remember_leaves: true, ..SCOPE };
    let mut mirror = Mirror::start(session.clone(), "/root", scope);
    let mut shadow = Shadow::default();
    shadow.follow_until(&mut mirror, |s| s.snapshots == 1).await;
    assert_eq!(shadow.unread, 0, "the first one reads everything");
    for round in 0..20 {
        set(&other, "/root/a", &format!("job {round}")).await;
        set(&other, "/root/a/1", &format!("leaf {round}")).await;
        other.write(Op::Delete { path: "/root/a/2".to_owned(), version: None }).await.expect("deleted");
        create(&other, "/root/a/2", &format!("again {round}")).await;
        // Whatever was acknowledged to anybody before the question is in the answer, or was handed over before it.
        let asked = mirror.refresh();
        shadow.follow_until(&mut mirror, |s| s.answers == asked).await;
        let data = |path: &str| String::from_utf8_lossy(&shadow.nodes[path]).into_owned();
        assert_eq!(shadow.nodes.len(), 4);
        assert_eq!((data("a"), data("a/1")), (format!("job {round}"), format!("leaf {round}")));
        assert_eq!(data("a/3"), "before");
        assert!(shadow.unread >= 2, "{} not read again", shadow.unread);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hazard_1_a_mirror_survives_reconnects_and_makes_up_for_what_it_missed() {
    let config = fresh_config();
    let other = connect(&config).await;
    create(&other, "/root", "").await;
    create(&other, "/root/old", "1").await;
    let line = Line::to(zookeeper()).await.expect("a port");
    let session = connect(&through(&line, &config)).await;
    let mut mirror = Mirror::start(session.clone(), "/root", SCOPE);
    let mut shadow = Shadow::default();
    shadow.follow_until(&mut mirror, |s| s.snapshots == 1).await;
    for round in 0..3 {
        line.cut();
        session.status().wait_for(|s| s.state == State::Disconnected).await.expect("noticed");
        create(&other, &format!("/root/missed{round}"), "x").await; // nobody tells us of this one
        line.mend();
        let missed = format!("missed{round}");
        shadow.follow_until(&mut mirror, |s| s.nodes.contains_key(&missed)).await;
        create(&other, &format!("/root/seen{round}"), "y").await; // and the new watch must tell of this one
        let seen = format!("seen{round}");
        shadow.follow_until(&mut mirror, |s| s.nodes.contains_key(&seen)).await;
    }
    assert_eq!(shadow.nodes.len(), 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_is_answered_by_a_snapshot_read_after_it() {
    let session = connect(&fresh_config()).await;
    create(&session, "/root", "").await;
    let mut mirror = Mirror::start(session.clone(), "/root", SCOPE);
    let mut shadow = Shadow::default();
    shadow.follow_until(&mut mirror, |s| s.snapshots == 1).await;
    create(&session, "/root/a", "1").await;
    let asked = mirror.refresh();
    shadow.follow_until(&mut mirror, |s| s.answers == asked).await;
    assert!(shadow.nodes.contains_key("a"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_of_nothing_says_so_and_sees_it_come() {
    let session = connect(&fresh_config()).await;
    let mut mirror = Mirror::start(session.clone(), "/root", SCOPE);
    assert_eq!(mirror.next().await, Some(vec![Change::RootGone]));
    create(&session, "/root", "").await;
    create(&session, "/root/a", "1").await;
    let mut shadow = Shadow::default();
    shadow.follow_until(&mut mirror, |s| s.nodes.contains_key("a")).await;
    session.close().await;
    // What is said twice, by events and by the snapshot of a root that is back, may be under way still.
    let ends = async { while mirror.next().await.is_some() {} };
    tokio::time::timeout(LIMIT, ends).await.expect("it ends with its session");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_created_while_a_mirror_begins_is_read_with_its_first_snapshot() {
    let config = fresh_config();
    let (session, other) = (connect(&config).await, connect(&config).await);
    let create = |path: String| Op::Create { path, data: b"x".to_vec() };
    other.multi(&[create("/r".into()), create("/r/a".into())]).await.expect("created");
    let creating = tokio::spawn(async move {
        for n in 0.. {
            if other.write(create(format!("/r/a/{n}"))).await.is_err() {
                return;
            }
        }
    });
    let scope = Scope { levels: 2, read_created: |_| false, read_changed: |_| true, remember_leaves: true };
    for _ in 0..50 {
        let mut mirror = Mirror::start(session.clone(), "/r", scope);
        let first = mirror.next().await.expect("the session lives");
        let [Change::Snapshot { nodes, .. }] = &first[..] else { panic!("no snapshot: {first:?}") };
        let unread = nodes.iter().find(|(_, node)| node.is_none());
        assert_eq!(unread, None, "nothing was handed over before");
    }
    creating.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn hazard_36_a_znode_that_may_not_be_read_takes_no_neighbour_with_it() {
    let config = fresh_config();
    let session = connect(&config).await;
    for path in ["/root", "/root/a", "/root/secret", "/root/b", "/root/b/secret", "/root/b/1"] {
        session.write(Op::Create { path: path.to_owned(), data: path.into() }).await.expect("created");
    }
    forbid(&config, "/root/secret").await;
    forbid(&config, "/root/b/secret").await;
    let mut mirror = Mirror::start(session.clone(), "/root", SCOPE);
    let mut shadow = Shadow::default();
    shadow.follow_until(&mut mirror, |shadow| shadow.snapshots == 1).await;
    assert_eq!(shadow.nodes.keys().collect::<Vec<_>>(), ["a", "b", "b/1"]);
    // One that was handed over before.
    forbid(&config, "/root/b/1").await;
    let asked = mirror.refresh();
    shadow.follow_until(&mut mirror, |shadow| shadow.answers == asked).await;
    assert_eq!(shadow.nodes.keys().collect::<Vec<_>>(), ["a", "b"]);
    session.write(Op::Create { path: "/root/c".to_owned(), data: Vec::new() }).await.expect("created");
    shadow.follow_until(&mut mirror, |shadow| shadow.nodes.contains_key("c")).await;
}
