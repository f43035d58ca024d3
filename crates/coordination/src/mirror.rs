//! A subtree, followed: listed once, then kept in step by one persistent recursive watch.
//!
//! The cost is O(1) for each change, and not one listing. But such a watch dies at the first reconnect without a word,
//! and what happened in between is lost (ZOOKEEPER-4698). So at every change of the session's state and
//! every [`RECONCILE_EVERY`], the mirror watches anew (before it drops the old watch), syncs, lists and reads
//! everything, and hands over a [`Change::Snapshot`]. Between snapshots events are hints: they may come twice, or after a
//! snapshot that shows their effect already.
//!
//! Its owner may ask for a snapshot at any time. Where the watch still holds, that takes a sync, the events that came
//! before its answer (they are there by then), and a listing; leaves that were handed over before are not read again,
//! since whatever happened to them was among the events. A hundred thousand of them take a listing and not as many reads.
//!
//! A znode below the root that may not be read, because somebody gave it an ACL of its own, is as good as absent: it is named
//! once, and nothing else suffers from it.

use std::collections::HashSet;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{debug, warn};
use znode::{Answer, Failure, MULTI_OPS_MAX, Node, paths};

use super::patience::Patience;
use super::reader::Appetite;
use super::session::Session;
use super::watch::{Event, TreeWatch};

/// A full reconciliation this often, whatever the watch says.
pub const RECONCILE_EVERY: Duration = Duration::from_secs(30);
/// The most events handed over at a time.
const EVENTS_MAX: usize = 4096;
/// How many znodes that may not be read are named.
const NAMED_MAX: usize = 10_000;

/// What is mirrored, and what of it is read.
#[derive(Debug, Clone, Copy)]
pub struct Scope {
    /// How many levels below the root are listed.
    pub levels: usize,
    /// Whether the znode at this path below the root is read when it is created.
    pub read_created: fn(&str) -> bool,
    /// Whether it is read when its data is set.
    pub read_changed: fn(&str) -> bool,
    /// Whether the names at the lowest level are kept, so that a snapshot that the owner asks for need not read them.
    pub remember_leaves: bool,
}

/// What changed. What may not be read does not exist. Paths are below the root, without a leading slash: `job/0000000001`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Everything, parents before their children. What is not in it does not exist.
    Snapshot {
        /// Each znode below the root; `None` where it is as it was handed over last.
        nodes: Vec<(String, Option<Node>)>,
        /// The number of the last [`Mirror::refresh`] that this snapshot answers; 0 before the first.
        answers: u64,
    },
    /// A znode was created; it was read if the scope says so, and its version is 0 otherwise.
    Created(String, Option<Node>),
    /// A znode's data was set; it was read if the scope says so.
    Changed(String, Option<Node>),
    /// A znode was deleted, or may not be read.
    Deleted(String),
    /// The root itself does not exist.
    RootGone,
}

/// A mirrored subtree; it ends when dropped.
#[derive(Debug)]
pub struct Mirror {
    changes: mpsc::Receiver<Vec<Change>>,
    refresh: mpsc::UnboundedSender<u64>,
    asked: u64,
}

impl Mirror {
    /// Follows everything below `root`.
    pub fn start(session: Session, root: &str, scope: Scope) -> Self {
        let (sender, changes) = mpsc::channel(4);
        let (refresh, requests) = mpsc::unbounded_channel();
        let root = root.to_owned();
        let follower = Follower {
            session,
            root,
            scope,
            changes: sender,
            requests,
            answers: 0,
            appetite: Appetite::default(),
            leaves: HashSet::new(),
            unreadable: HashSet::new(),
        };
        tokio::spawn(follower.run());
        Mirror { changes, refresh, asked: 0 }
    }

    /// The next changes, in order; `None` once the session is over. Safe to cancel.
    pub async fn next(&mut self) -> Option<Vec<Change>> {
        self.changes.recv().await
    }

    /// Asks for a snapshot as of now or later; returns the number that it will carry.
    pub fn refresh(&mut self) -> u64 {
        self.asked += 1;
        let _ = self.refresh.send(self.asked);
        self.asked
    }
}

struct Follower {
    session: Session,
    root: String,
    scope: Scope,
    changes: mpsc::Sender<Vec<Change>>,
    requests: mpsc::UnboundedReceiver<u64>,
    answers: u64,
    appetite: Appetite,
    /// The znodes at the lowest level that were handed over, where the scope says that they are remembered.
    leaves: HashSet<String>,
    /// Which znodes were named because they may not be read.
    unreadable: HashSet<String>,
}

/// Why `follow` returns.
enum Pause {
    /// The owner asked for a snapshot.
    Asked,
    /// Everything is to be read anew.
    Doubt,
    /// Nobody listens, or the session is over.
    End,
}

impl Follower {
    async fn run(mut self) {
        let mut status = self.session.status();
        let mut watch: Option<(TreeWatch, u64)> = None; // and the epoch in which it was set
        let mut patience = Patience::default();
        loop {
            if self.session.connected().await.is_err() {
                return;
            }
            let epoch = status.borrow_and_update().epoch;
            match self.reconcile(&mut watch, epoch).await {
                Ok(()) => patience.succeeded(),
                Err(Failure::SessionOver(_)) => return,
                Err(failure) => {
                    match patience.failed(std::time::Instant::now()) {
                        Some(lasted) => {
                            warn!(root = %self.root, %failure, ?lasted, "cannot read what is below: still trying")
                        }
                        None => debug!(root = %self.root, %failure, "cannot reconcile: trying again"),
                    }
                    self.leaves.clear();
                    sleep(Duration::from_millis(50)).await;
                    continue;
                }
            }
            let Some((watch, _)) = &mut watch else { continue };
            tokio::select! {
                pause = self.follow(watch) => match pause {
                    Pause::Asked => {}
                    Pause::Doubt => self.leaves.clear(),
                    Pause::End => return,
                },
                // The watch may be dead now; what `follow` was doing is made up for by the next snapshot.
                _ = status.wait_for(|s| s.epoch != epoch) => self.leaves.clear(),
            }
        }
    }

    /// Sets a watch unless there is one of this epoch, then lists everything, reads what is not among `leaves`, and hands
    /// it over.
    async fn reconcile(&mut self, watch: &mut Option<(TreeWatch, u64)>, epoch: u64) -> Result<(), Failure> {
        let mut old = None;
        if watch.as_ref().is_none_or(|(_, set_in)| *set_in != epoch) {
            let anew = self.session.watch_tree(&self.root).await?;
            old = watch.replace((anew, epoch));
        }
        while let Ok(asked) = self.requests.try_recv() {
            self.answers = asked;
        }
        self.session.refresh().await?;
        if let Some((watch, _)) = watch {
            let events: Vec<Event> = std::iter::from_fn(|| watch.try_next()).collect();
            // Where everything is read anew, that shows what they did. Handed over by themselves, they would speak of znodes
            // whose parents nobody has heard of yet.
            if !self.leaves.is_empty() {
                let changes = self.interpret(events).await?;
                if !changes.is_empty() {
                    let _ = self.changes.send(changes).await;
                }
            }
        }
        let change = match self.read_everything().await? {
            Some(nodes) => Change::Snapshot { nodes, answers: self.answers },
            None => Change::RootGone,
        };
        let _ = self.changes.send(vec![change]).await;
        drop(old);
        Ok(())
    }

    async fn read_everything(&mut self) -> Result<Option<Vec<(String, Option<Node>)>>, Failure> {
        let (mut all, mut level) = (Vec::new(), vec![String::new()]);
        for depth in 0..self.scope.levels {
            let mut below = Vec::new();
            for parents in level.chunks(MULTI_OPS_MAX) {
                let paths: Vec<String> = parents.iter().map(|p| self.absolute(p)).collect();
                for (parent, names) in parents.iter().zip(self.session.children_many(&paths).await?) {
                    let names = match names {
                        Ok(None) if depth == 0 => {
                            self.leaves.clear();
                            return Ok(None);
                        }
                        Err(refusal) if depth == 0 => return Err(Failure::Refused(refusal)),
                        names => self.readable(parent, names).unwrap_or_default(),
                    };
                    let path = |name: String| if parent.is_empty() { name } else { paths::join(parent, &name) };
                    below.extend(names.into_iter().map(path));
                }
            }
            level.clear();
            let lowest = depth + 1 == self.scope.levels;
            if lowest {
                let (known, unknown) = below.into_iter().partition(|path| self.leaves.contains(path));
                below = unknown;
                all.extend(Vec::into_iter(known).map(|path| (path, None)));
            }
            let paths: Vec<String> = below.iter().map(|p| self.absolute(p)).collect();
            let nodes = self.appetite.read(&self.session, &paths).await?;
            for (path, node) in below.into_iter().zip(nodes) {
                let Some(node) = self.readable(&path, node) else { continue }; // or deleted since the listing
                if !lowest {
                    level.push(path.clone());
                }
                all.push((path, Some(node)));
            }
        }
        if self.scope.remember_leaves {
            self.leaves = all.iter().filter(|(path, _)| self.is_leaf(path)).map(|(path, _)| path.clone()).collect();
        }
        Ok(Some(all))
    }

    /// What a znode said; `None` also where it may not be read, which is said once.
    fn readable<T>(&mut self, path: &str, answer: Answer<T>) -> Option<T> {
        answer.unwrap_or_else(|refusal| {
            let path = self.absolute(path);
            if self.unreadable.len() < NAMED_MAX && self.unreadable.insert(path.clone()) {
                warn!(path, %refusal, "ignoring a znode that may not be read; mend its ACL, or delete it");
            }
            None
        })
    }

    fn absolute(&self, path: &str) -> String {
        if path.is_empty() { self.root.clone() } else { paths::join(&self.root, path) }
    }

    /// Hands over events until it is time to reconcile.
    async fn follow(&mut self, watch: &mut TreeWatch) -> Pause {
        let reconcile_at = Instant::now() + RECONCILE_EVERY;
        loop {
            let first = tokio::select! {
                event = watch.next() => match event {
                    Some(event) => event,
                    None => return Pause::End,
                },
                asked = self.requests.recv() => match asked {
                    Some(asked) => {
                        self.answers = asked;
                        return Pause::Asked;
                    }
                    None => return Pause::End,
                },
                () = sleep_until(reconcile_at) => return Pause::Doubt,
            };
            let mut events = vec![first];
            while events.len() < EVENTS_MAX
                && let Some(event) = watch.try_next()
            {
                events.push(event);
            }
            let root_is_back = events.iter().any(|event| matches!(event, Event::Created(path) if *path == self.root));
            match self.interpret(events).await {
                Ok(changes) => {
                    if !changes.is_empty() && self.changes.send(changes).await.is_err() {
                        return Pause::End;
                    }
                    if root_is_back {
                        return Pause::Doubt; // whoever waits for a snapshot had none without it
                    }
                }
                Err(failure) => {
                    debug!(root = %self.root, %failure, "cannot read what changed: reconciling");
                    return Pause::Doubt;
                }
            }
        }
    }

    /// Turns events into changes, with the reads that the scope asks for made in one go. A read may show a later state
    /// than the event's; the event of that state follows.
    async fn interpret(&mut self, events: Vec<Event>) -> Result<Vec<Change>, Failure> {
        let mut wanted = Vec::new();
        let mut changes = Vec::with_capacity(events.len());
        for event in events {
            let (Event::Created(path) | Event::Changed(path) | Event::Deleted(path)) = &event;
            let Some(path) = paths::below(&self.root, path).map(str::to_owned) else { continue };
            let (change, read) = match event {
                Event::Deleted(_) if path.is_empty() => (Change::RootGone, false),
                Event::Created(_) | Event::Changed(_) if path.is_empty() => continue,
                Event::Deleted(_) => (Change::Deleted(path.clone()), false),
                Event::Created(_) => (Change::Created(path.clone(), None), (self.scope.read_created)(&path)),
                Event::Changed(_) => (Change::Changed(path.clone(), None), (self.scope.read_changed)(&path)),
            };
            if read {
                wanted.push((changes.len(), path.clone()));
            }
            changes.push(change);
        }
        let paths: Vec<String> = wanted.iter().map(|(_, path)| self.absolute(path)).collect();
        let nodes = self.appetite.read(&self.session, &paths).await?;
        for ((at, path), read) in wanted.into_iter().zip(nodes) {
            match (&mut changes[at], self.readable(&path, read)) {
                (Change::Created(_, node) | Change::Changed(_, node), Some(read)) => *node = Some(read),
                (change @ (Change::Created(..) | Change::Changed(..)), None) => *change = Change::Deleted(path),
                (Change::Snapshot { .. } | Change::Deleted(_) | Change::RootGone, _) => {}
            }
        }
        if self.scope.remember_leaves {
            changes.iter().for_each(|change| self.remember(change));
        }
        Ok(changes)
    }

    /// Whether a path is at the lowest level.
    fn is_leaf(&self, path: &str) -> bool {
        path.matches('/').count() + 1 == self.scope.levels
    }

    fn remember(&mut self, change: &Change) {
        match change {
            Change::Created(path, _) if self.is_leaf(path) => {
                self.leaves.insert(path.clone());
            }
            Change::Deleted(path) => drop(self.leaves.remove(path)),
            Change::Created(..) | Change::Changed(..) | Change::RootGone | Change::Snapshot { .. } => {}
        }
    }
}
