//! Watches, within what one session can carry: each takes its share of a budget, and gives it back when dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::FutureExt;
use znode::{Failure, Refusal};

pub use super::store::Event;
use super::store::{Limits, OneShot, Recursive};

/// What a session's watches take up.
#[derive(Debug)]
pub(crate) struct Budget {
    limits: Limits,
    watches: AtomicUsize,
    path_bytes: AtomicUsize,
}

impl Budget {
    pub(crate) fn new(limits: Limits) -> Self {
        Budget { limits, watches: AtomicUsize::new(0), path_bytes: AtomicUsize::new(0) }
    }
}

/// One watch's share of the budget.
#[derive(Debug)]
pub(crate) struct Share {
    budget: Arc<Budget>,
    path_bytes: usize,
}

impl Share {
    /// The share of a watch on `path`. Refused where there is none left.
    pub(crate) fn take(budget: &Arc<Budget>, path: &str) -> Result<Share, Failure> {
        let share = Share { budget: budget.clone(), path_bytes: path.len() };
        let watches = budget.watches.fetch_add(1, Ordering::Relaxed) + 1;
        let path_bytes = budget.path_bytes.fetch_add(path.len(), Ordering::Relaxed) + path.len();
        if watches > budget.limits.watches || path_bytes > budget.limits.watched_bytes {
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
    watch: OneShot,
    _share: Share,
}

impl NodeWatch {
    pub(crate) fn new(watch: OneShot, share: Share) -> Self {
        NodeWatch { watch, _share: share }
    }

    /// Completes when what it watches for has happened, or the session is over. What happened is to be read.
    /// Never, where the znode may not be read any more (ZOOKEEPER-4799).
    pub async fn fired(self) {
        self.watch.fired().await;
    }
}

/// A persistent recursive watch. It is dead after the first reconnect, and says nothing of it: whoever holds one
/// follows the session's [`epoch`](super::session::Status) and sets it anew.
#[derive(Debug)]
pub struct TreeWatch {
    watch: Recursive,
    _share: Share,
}

impl TreeWatch {
    pub(crate) fn new(watch: Recursive, share: Share) -> Self {
        TreeWatch { watch, _share: share }
    }

    /// The next event; `None` once the session is over. Safe to cancel.
    pub async fn next(&mut self) -> Option<Event> {
        self.watch.next().await
    }

    /// An event that is there already, without waiting.
    pub fn try_next(&mut self) -> Option<Event> {
        self.next().now_or_never().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hazard_3_a_watch_over_the_budget_is_refused_and_a_dropped_one_gives_its_share_back() {
        let limits = Limits { watches: 500, watched_bytes: 64 * 1024 };
        let budget = Arc::new(Budget::new(limits));
        let shares: Vec<_> = (0..limits.watches).map(|_| Share::take(&budget, "/a").expect("within")).collect();
        assert!(Share::take(&budget, "/a").is_err());
        drop(shares);
        assert!(Share::take(&budget, "/a").is_ok());
        assert!(Share::take(&budget, &"x".repeat(limits.watched_bytes + 1)).is_err());
        assert!(Share::take(&budget, "/a").is_ok(), "the refused one took nothing");
    }
}
