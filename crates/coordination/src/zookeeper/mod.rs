//! Apache ZooKeeper as a store: nothing else imports the `zookeeper-client` crate.
//!
//! | file | what it holds |
//! |---|---|
//! | here | the verbs, and what of the crate and the server each of them has to mind |
//! | `types` | the crate's types turned into ours, each of its errors sorted |
//! | [`bare`] | a session without safeguards, for measuring a service |

pub mod bare;
mod types;

use std::time::{Duration, Instant};

use tokio::time::timeout_at;
use tracing::{debug, info};
use zk::MultiWriteResult as Written;
use znode::{Answer, Failure, MultiFailure, Node, Op, Refusal};
use zookeeper_client as zk;

use self::types::{add, classify, node};
use super::connect::{ConnectError, ConnectString};
use super::store::{self, Applied, Event, Granted, Limits, State, Store};

/// A session of ZooKeeper's, below the chroot.
#[derive(Clone)]
pub(crate) struct ZooKeeper {
    client: zk::Client,
}

impl ZooKeeper {
    /// Tries once to connect, until `deadline`; `None` where nobody answers. With the moment at which it began to.
    pub(crate) async fn dial(
        target: &ConnectString,
        session_timeout: Duration,
        deadline: tokio::time::Instant,
    ) -> Option<(ZooKeeper, Instant)> {
        let sent_at = Instant::now();
        let connector = zk::Client::connector().with_session_timeout(session_timeout).with_fail_eagerly();
        match timeout_at(deadline, connector.connect(&dialled(target))).await {
            Ok(Ok(client)) => Some((ZooKeeper { client }, sent_at)),
            Ok(Err(error)) => {
                debug!(servers = target.servers(), %error, "cannot connect");
                None
            }
            Err(_) => None,
        }
    }

    /// The same session, seen from its chroot down.
    pub(crate) async fn below(self, target: &ConnectString, create_chroot: bool) -> Result<ZooKeeper, ConnectError> {
        let Some(chroot) = target.chroot() else { return Ok(self) };
        let servers = target.servers();
        let failed = |error| ConnectError::Failed { servers: servers.clone(), failure: classify(error) };
        if self.client.check_stat(chroot).await.map_err(failed)?.is_none() {
            if !create_chroot {
                return Err(ConnectError::NoChroot { chroot: chroot.to_owned(), servers });
            }
            info!(%chroot, "the chroot is missing: creating it");
            let persistent = zk::CreateMode::Persistent.with_acls(zk::Acls::anyone_all());
            self.client.mkdir(chroot, &persistent).await.map_err(failed)?;
        }
        let client = self.client.chroot(chroot).map_err(|_| failed(zk::Error::BadArguments(&"chroot")))?;
        Ok(ZooKeeper { client })
    }

    /// Follows the session's state.
    pub(crate) fn states(&self) -> States {
        States { watcher: self.client.state_watcher() }
    }

    async fn sync(&self) -> Result<(), Failure> {
        self.client.sync("/").await.map_err(classify)
    }
}

/// What the crate gets to dial.
///
/// Its pause between two attempts doubles with each round over the list, without a cap: with one server it would
/// come back 12 s after an outage of 6. Naming a lone server twenty times makes a round long and its pauses
/// short (at most 1 s), for all the time that a session of 10 s can wait.
fn dialled(target: &ConnectString) -> String {
    let servers: Vec<&str> = target.beginning_at(0).collect();
    match &servers[..] {
        [lone] => vec![*lone; 20].join(","),
        several => several.join(","),
    }
}

impl Store for ZooKeeper {
    /// A session that watches more than 128 KiB of paths can never reconnect: its request to set them again is too large.
    const LIMITS: Limits = Limits { watches: 500, watched_bytes: 64 * 1024 };

    fn session(&self) -> Granted {
        Granted { id: self.client.session_id().0, timeout: self.client.session_timeout() }
    }

    async fn multi(&self, ops: &[Op]) -> Applied {
        let mut multi = self.client.new_multi_writer();
        for (at, op) in ops.iter().enumerate() {
            if let Err(error) = add(op, &mut multi) {
                return Applied::not(MultiFailure { at: Some(at), failure: classify(error) });
            }
        }
        match multi.commit().await {
            Ok(results) => {
                let at_ms = results.iter().find_map(stamp_ms);
                let path = |result| match result {
                    Written::Create { path, .. } => Some(path),
                    _ => None,
                };
                Applied { outcome: Ok(results.into_iter().map(path).collect()), proves: true, at_ms }
            }
            Err(zk::MultiWriteError::OperationFailed { index, source }) => {
                let failure = MultiFailure { at: Some(index), failure: classify(source) };
                Applied { outcome: Err(failure), proves: true, at_ms: None }
            }
            Err(zk::MultiWriteError::RequestFailed { source }) => Applied::not(classify(source).into()),
        }
    }

    async fn get_many<P: AsRef<str> + Sync>(&self, paths: &[P]) -> Result<Vec<Answer<Node>>, Failure> {
        let mut multi = self.client.new_multi_reader();
        for path in paths {
            multi.add_get_data(path.as_ref()).map_err(classify)?;
        }
        let results = multi.commit().await.map_err(classify)?;
        let data = |result| match result {
            zk::MultiReadResult::Data { data, stat } => Ok(Ok(Some(node(data, &stat)))),
            zk::MultiReadResult::Error { err } => answer(classify(err)),
            other => Err(Failure::Unknown(format!("asked for data, got {other:?}"))),
        };
        results.into_iter().map(data).collect()
    }

    async fn children_many<P: AsRef<str> + Sync>(&self, paths: &[P]) -> Result<Vec<Answer<Vec<String>>>, Failure> {
        let mut multi = self.client.new_multi_reader();
        for path in paths {
            multi.add_get_children(path.as_ref()).map_err(classify)?;
        }
        let results = multi.commit().await.map_err(classify)?;
        let names = |result| match result {
            zk::MultiReadResult::Children { children } => Ok(Ok(Some(children))),
            zk::MultiReadResult::Error { err } => answer(classify(err)),
            other => Err(Failure::Unknown(format!("asked for children, got {other:?}"))),
        };
        results.into_iter().map(names).collect()
    }

    /// Old servers (3.8.0) tell it even of a znode that may not be read; from 3.9 on they do not.
    async fn owner(&self, path: &str) -> Result<Option<i64>, Failure> {
        let stat = self.client.check_stat(path).await.map_err(classify)?;
        Ok(stat.map(|stat| stat.ephemeral_owner))
    }

    /// A sync reaches the leader, and comes back to our server behind all that was committed before it.
    async fn refresh(&self) -> Result<(), Failure> {
        self.sync().await
    }

    /// The leader orders a sync behind all that it got from this session before. What it did not get is lost: the crate sends
    /// no request twice.
    async fn settle(&self) -> Result<(), Failure> {
        self.sync().await
    }

    /// A follower that has lost its leader still answers pings and reads for a while, but no sync.
    async fn prove(&self) -> Result<(), Failure> {
        self.sync().await
    }

    async fn watch_znode(&self, path: &str) -> Result<(Option<Node>, store::OneShot), Failure> {
        loop {
            match self.client.get_and_watch_data(path).await {
                Ok((data, stat, watcher)) => return Ok((Some(node(data, &stat)), one_shot(watcher))),
                Err(zk::Error::NoNode) => {}
                Err(error) => return Err(classify(error)),
            }
            let (stat, watcher) = self.client.check_and_watch_stat(path).await.map_err(classify)?;
            if stat.is_none() {
                return Ok((None, one_shot(watcher)));
            } // else it was created in between
        }
    }

    async fn watch_children(&self, path: &str) -> Result<store::OneShot, Failure> {
        let (_, watcher) = self.client.list_and_watch_children(path).await.map_err(classify)?;
        Ok(one_shot(watcher))
    }

    async fn watch_tree(&self, path: &str) -> Result<store::Recursive, Failure> {
        let watcher = self.client.watch(path, zk::AddWatchMode::PersistentRecursive).await.map_err(classify)?;
        Ok(store::Recursive::ZooKeeper(Recursive { watcher, ended: false }))
    }
}

/// When a write was applied. Of a create the answer may lack it (ZOOKEEPER-4026, ZOOKEEPER-4667).
fn stamp_ms(written: &Written) -> Option<i64> {
    match written {
        Written::Create { stat, .. } | Written::SetData { stat } => {
            (!stat.is_invalid() && stat.mtime > 0).then_some(stat.mtime)
        }
        _ => None,
    }
}

/// What one znode of a multi-read says beside data.
fn answer<T>(failure: Failure) -> Result<Answer<T>, Failure> {
    match failure {
        Failure::Refused(Refusal::NoNode) => Ok(Ok(None)),
        Failure::Refused(refusal) => Ok(Err(refusal)),
        Failure::Unknown(_) | Failure::SessionOver(_) => Err(failure),
    }
}

/// A one-shot watch. It never fires once the znode may not be read any more: ZooKeeper tells nothing of such (ZOOKEEPER-4799).
#[derive(Debug)]
pub(crate) struct OneShot {
    watcher: zk::OneshotWatcher,
}

fn one_shot(watcher: zk::OneshotWatcher) -> store::OneShot {
    store::OneShot::ZooKeeper(OneShot { watcher })
}

impl OneShot {
    pub(crate) async fn fired(self) {
        self.watcher.changed().await;
    }
}

/// A persistent recursive watch. It is dead after the first reconnect, and says nothing of it. No one-shot watch of the same
/// session may be set where there is one (ZOOKEEPER-4466).
#[derive(Debug)]
pub(crate) struct Recursive {
    watcher: zk::PersistentWatcher,
    ended: bool,
}

impl Recursive {
    pub(crate) async fn next(&mut self) -> Option<Event> {
        while !self.ended {
            let event = self.watcher.changed().await;
            match event.event_type {
                zk::EventType::NodeCreated => return Some(Event::Created(event.path)),
                zk::EventType::NodeDataChanged => return Some(Event::Changed(event.path)),
                zk::EventType::NodeDeleted => return Some(Event::Deleted(event.path)),
                zk::EventType::NodeChildrenChanged => {}
                // The crate panics when polled after a terminal event; this ends instead.
                zk::EventType::Session => self.ended = event.session_state.is_terminated(),
            }
        }
        None
    }
}

/// The crate coalesces states: each change counts, whatever it says.
pub(crate) struct States {
    watcher: zk::StateWatcher,
}

impl States {
    pub(crate) async fn next(&mut self) -> State {
        match self.watcher.changed().await {
            zk::SessionState::SyncConnected | zk::SessionState::ConnectedReadOnly => State::Connected,
            zk::SessionState::Disconnected => State::Disconnected,
            zk::SessionState::Expired | zk::SessionState::Closed | zk::SessionState::AuthFailed => State::Over,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hazard_20_a_lone_server_is_dialled_often_enough() {
        let lone: ConnectString = "a:1".parse().expect("valid");
        assert_eq!(dialled(&lone).split(',').count(), 20);
        let three: ConnectString = "a:1,b:1,c:1".parse().expect("valid");
        assert_eq!(dialled(&three), "a:1,b:1,c:1");
    }
}
