//! Watches, within what one session can carry.
//!
//! A session that watches more than 128 KiB of paths can never reconnect: its request to set them again is too large.
//! So each watch takes its share of a [`Budget`] and gives it back when dropped. Where a path has a recursive watch, no
//! one-shot watch of the same session may be set on it (ZOOKEEPER-4466); the callers here keep them on different
//! subtrees.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::FutureExt;
use znode::{Failure, Node, Refusal};
use zookeeper_client as zk;

use super::session::Session;
use crate::zookeeper::{classify, node};

/// The most watches of one session, and the most bytes of their paths.
const WATCHES_MAX: usize = 500;
const PATH_BYTES_MAX: usize = 64 * 1024;

/// What a session's watches take up.
#[derive(Debug, Default)]
pub struct Budget {
    watches: AtomicUsize,
    path_bytes: AtomicUsize,
}

/// One watch's share of the budget.
#[derive(Debug)]
struct Share {
    budget: Arc<Budget>,
    path_bytes: usize,
}

impl Share {
    fn take(budget: &Arc<Budget>, path: &str) -> Result<Share, Failure> {
        let share = Share { budget: budget.clone(), path_bytes: path.len() };
        let watches = budget.watches.fetch_add(1, Ordering::Relaxed) + 1;
        let path_bytes = budget.path_bytes.fetch_add(path.len(), Ordering::Relaxed) + path.len();
        if watches > WATCHES_MAX || path_bytes > PATH_BYTES_MAX {
            let text = format!("watching {path} would be watch {watches} of this session, {path_bytes} bytes of paths");
            return Err(Failure::Refused(Refusal::Other(text)));
        }
        Ok(share)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.watches.fetch_sub(1, Ordering::Relaxed);
        self.budget.path_bytes.fetch_sub(self.path_bytes, Ordering::Relaxed);
    }
}

/// A one-shot watch on one znode, or on the names of its children; it survives reconnects.
#[derive(Debug)]
pub struct NodeWatch {
    watcher: zk::OneshotWatcher,
    _share: Share,
}

impl NodeWatch {
    /// Completes when what it watches for has happened, or the session is over. What happened is to be read.
    /// Never, where the znode may not be read any more: ZooKeeper tells nothing of such (ZOOKEEPER-4799).
    pub async fn fired(self) {
        self.watcher.changed().await;
    }
}

/// What may have happened to a znode: a hint, never a count. The server sends some twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// It was created.
    Created(String),
    /// Its data was set.
    Changed(String),
    /// It was deleted.
    Deleted(String),
}

/// A persistent recursive watch. It is dead after the first reconnect, and says nothing of it: whoever holds one
/// follows the session's [`epoch`](super::session::Status) and sets it anew.
#[derive(Debug)]
pub struct TreeWatch {
    watcher: zk::PersistentWatcher,
    ended: bool,
    _share: Share,
}

impl TreeWatch {
    /// The next event; `None` once the session is over. Safe to cancel.
    pub async fn next(&mut self) -> Option<Event> {
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

    /// An event that is there already, without waiting.
    pub fn try_next(&mut self) -> Option<Event> {
        self.next().now_or_never().flatten()
    }
}

impl Session {
    /// Reads a znode and watches it; where it is absent, watches for its creation.
    ///
    /// Errors: refused, or session over.
    pub async fn watch_node(&self, path: &str) -> Result<(Option<Node>, NodeWatch), Failure> {
        self.repeat(|| self.try_watch_node(path)).await
    }

    async fn try_watch_node(&self, path: &str) -> Result<(Option<Node>, NodeWatch), Failure> {
        let share = Share::take(self.budget(), path)?;
        let (client, _permit) = self.begin(path.len()).await?;
        loop {
            match client.get_and_watch_data(path).await {
                Ok((data, stat, watcher)) => {
                    return Ok((Some(node(data, &stat)), NodeWatch { watcher, _share: share }));
                }
                Err(zk::Error::NoNode) => {}
                Err(error) => return Err(classify(error)),
            }
            match client.check_and_watch_stat(path).await {
                Ok((None, watcher)) => return Ok((None, NodeWatch { watcher, _share: share })),
                Ok((Some(_), _)) => {} // created in between
                Err(error) => return Err(classify(error)),
            }
        }
    }

    /// The names of a znode's children, and a watch that fires when one is created or deleted.
    ///
    /// Errors: refused, also where the znode is absent; or session over.
    pub async fn watch_children(&self, path: &str) -> Result<(Vec<String>, NodeWatch), Failure> {
        self.repeat(|| self.try_watch_children(path)).await
    }

    async fn try_watch_children(&self, path: &str) -> Result<(Vec<String>, NodeWatch), Failure> {
        let share = Share::take(self.budget(), path)?;
        let (client, _permit) = self.begin(path.len()).await?;
        let (names, watcher) = client.list_and_watch_children(path).await.map_err(classify)?;
        Ok((names, NodeWatch { watcher, _share: share }))
    }

    /// Watches a znode and everything below it, present or not.
    pub async fn watch_tree(&self, path: &str) -> Result<TreeWatch, Failure> {
        let share = Share::take(self.budget(), path)?;
        let (client, _permit) = self.begin(path.len()).await?;
        let watcher = client.watch(path, zk::AddWatchMode::PersistentRecursive).await.map_err(classify)?;
        Ok(TreeWatch { watcher, ended: false, _share: share })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hazard_3_a_watch_over_the_budget_is_refused_and_a_dropped_one_gives_its_share_back() {
        let budget = Arc::new(Budget::default());
        let shares: Vec<_> = (0..WATCHES_MAX).map(|_| Share::take(&budget, "/a").expect("within")).collect();
        assert!(Share::take(&budget, "/a").is_err());
        drop(shares);
        assert!(Share::take(&budget, "/a").is_ok());
        assert!(Share::take(&budget, &"x".repeat(PATH_BYTES_MAX + 1)).is_err());
        assert!(Share::take(&budget, "/a").is_ok(), "the refused one took nothing");
    }
}
