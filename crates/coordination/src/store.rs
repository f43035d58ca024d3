//! What carries a session: the few things that a store must be able to do.
//!
//! Everything above this line is policy, and written once: how much may be in flight, how long a session may be trusted, what
//! is asked again, every recipe and every role. Everything below it is one store's way. ZooKeeper is the one there is.
//!
//! What ZooKeeper calls a *sync* is three things, which other stores do in three ways; whoever means one says so:
//!
//! | verb | what holds once it is answered |
//! |---|---|
//! | [`Store::refresh`] | reads see every write that was acknowledged before, to anybody |
//! | [`Store::settle`] | no unanswered write of this session can be applied any more, and the session lived when this was asked |
//! | [`Store::prove`] | the session lived when this was asked |

use std::time::Duration;

use znode::{Answer, Failure, MultiFailure, Node, Op};

use super::zookeeper::{self, ZooKeeper};

/// A session of a store. Clones are the same session; it ends when the last one is dropped, or expires.
///
/// Calls are sent as they are, at once, and fail as they fail: whoever calls has seen to the limits.
pub(crate) trait Store: Clone + Send + Sync + 'static {
    /// What one session can carry.
    const LIMITS: Limits;

    /// What the store granted.
    fn session(&self) -> Granted;

    /// Applies all of `ops` in one step, or none.
    fn multi(&self, ops: &[Op]) -> impl Future<Output = Applied> + Send;

    /// Many znodes as of one moment, in the order asked for.
    fn get_many<P: AsRef<str> + Sync>(
        &self,
        paths: &[P],
    ) -> impl Future<Output = Result<Vec<Answer<Node>>, Failure>> + Send;

    /// The names of the children of many znodes as of one moment, in the order asked for.
    fn children_many<P: AsRef<str> + Sync>(
        &self,
        paths: &[P],
    ) -> impl Future<Output = Result<Vec<Answer<Vec<String>>>, Failure>> + Send;

    /// The session that owns a znode, 0 where it has none; `None` where it is absent. Unlike a read it may be answered of a
    /// znode that must not be read.
    fn owner(&self, path: &str) -> impl Future<Output = Result<Option<i64>, Failure>> + Send;

    /// Reads from here on see every write acknowledged so far, to anybody.
    fn refresh(&self) -> impl Future<Output = Result<(), Failure>> + Send;

    /// No unanswered write of this session can be applied any more. Proves that the session lives, too.
    fn settle(&self) -> impl Future<Output = Result<(), Failure>> + Send;

    /// Proves that the session lives.
    fn prove(&self) -> impl Future<Output = Result<(), Failure>> + Send;

    /// The znode, and a watch for what happens to it next: where it is absent, for its creation.
    fn watch_znode(&self, path: &str) -> impl Future<Output = Result<(Option<Node>, OneShot), Failure>> + Send;

    /// Watches for the next change among the names of its children. Refused where it is absent.
    fn watch_children(&self, path: &str) -> impl Future<Output = Result<OneShot, Failure>> + Send;

    /// Watches it and all that is below it from now on, present or not.
    fn watch_tree(&self, path: &str) -> impl Future<Output = Result<Recursive, Failure>> + Send;
}

/// What one session can carry.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Watches.
    pub(crate) watches: usize,
    /// Bytes of the paths that are watched.
    pub(crate) watched_bytes: usize,
}

/// What the store granted when the session began.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Granted {
    /// The session's id, as [`Node::owner`] shows it.
    pub(crate) id: i64,
    /// T.
    pub(crate) timeout: Duration,
}

/// What came of a multi.
#[derive(Debug)]
pub(crate) struct Applied {
    /// For each operation in order the path created, where it creates; or which was refused first, and why.
    pub(crate) outcome: Result<Vec<Option<String>>, MultiFailure>,
    /// Whether the answer, be it a refusal, proves that the session lived when this was asked.
    pub(crate) proves: bool,
    /// The store's time when it was applied, in milliseconds since 1970, where the answer tells.
    pub(crate) at_ms: Option<i64>,
}

impl Applied {
    /// It was not answered, or not sent.
    pub(crate) fn not(failure: MultiFailure) -> Self {
        Applied { outcome: Err(failure), proves: false, at_ms: None }
    }
}

/// Whether a session has a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// A server answers.
    Connected,
    /// A server is looked for; the session may live or be expired by now.
    Disconnected,
    /// Expired or closed, for ever.
    Over,
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

/// The store that a session runs on. An enum, so that what stands above has no type parameter and no call costs a box.
#[derive(Clone)]
pub(crate) enum Engine {
    /// Apache ZooKeeper.
    ZooKeeper(ZooKeeper),
}

/// A watch that fires once, and survives reconnects.
#[derive(Debug)]
pub(crate) enum OneShot {
    /// ZooKeeper's.
    ZooKeeper(zookeeper::OneShot),
}

/// A recursive watch.
#[derive(Debug)]
pub(crate) enum Recursive {
    /// ZooKeeper's.
    ZooKeeper(zookeeper::Recursive),
}

/// The states of a session, one after the other.
pub(crate) enum States {
    /// ZooKeeper's.
    ZooKeeper(zookeeper::States),
}

/// Makes a call on whichever store it is.
macro_rules! on {
    ($kind:ident, $of:expr, $store:ident => $call:expr) => {
        match $of {
            $crate::store::$kind::ZooKeeper($store) => $call,
        }
    };
}
pub(crate) use on;

impl Engine {
    /// What one session can carry.
    pub(crate) const fn limits(&self) -> Limits {
        match self {
            Engine::ZooKeeper(_) => ZooKeeper::LIMITS,
        }
    }

    /// Follows the session's state.
    pub(crate) fn states(&self) -> States {
        match self {
            Engine::ZooKeeper(store) => States::ZooKeeper(store.states()),
        }
    }
}

impl States {
    /// The next state. What came in between may be left out.
    pub(crate) async fn next(&mut self) -> State {
        on!(States, self, states => states.next().await)
    }
}

impl OneShot {
    /// Completes when what it watches for has happened, or the session is over.
    pub(crate) async fn fired(self) {
        on!(OneShot, self, watch => watch.fired().await);
    }
}

impl Recursive {
    /// The next event; `None` once the session is over. Safe to cancel.
    pub(crate) async fn next(&mut self) -> Option<Event> {
        on!(Recursive, self, watch => watch.next().await)
    }
}
