//! Leader election by ephemeral sequential znodes (ZooKeeper documentation, "Recipes and Solutions: Leader Election").
//!
//! 1. A candidate creates `<root>/<name>-<uid>-` as an ephemeral sequential znode; ZooKeeper appends a number.
//! 2. It lists the candidates. The lowest number leads, of those that a session owns: a persistent znode, made by hand or
//!    restored from a backup, is no candidate, or it would end leadership for good.
//! 3. Any other watches only the candidate right before it, so that one death wakes one process, and lists again when
//!    the watch fires.
//! 4. A candidate that is absent from the list has lost its znode and must join again; it never concludes that nobody
//!    is before it.
//!
//! Winning is an opinion of the past: every write of a leader carries [`Leadership::guard`], and ZooKeeper refuses it
//! once the znode is gone. The crate's own `Client::lock` is not used; it can leak its znode and then wait behind it.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};
use tracing::warn;
use znode::{Failure, Op, Refusal, paths};

use super::ephemeral;
use super::patience::Patience;
use super::session::Session;
use super::watch::NodeWatch;

/// How long to wait before looking again where no watch can be set.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// How often to look though no watch has fired: none does once the znode may not be read any more.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// A place in the queue.
#[derive(Debug)]
pub struct Candidacy {
    session: Session,
    root: String,
    path: String,
}

/// How waiting for leadership ended.
#[derive(Debug)]
pub enum Election {
    /// Nobody is before us.
    Won(Leadership),
    /// Our znode is gone while the session lives: somebody deleted it. Join again.
    Removed,
}

/// The right to lead, as long as its znode exists.
#[derive(Debug)]
pub struct Leadership {
    candidacy: Candidacy,
}

impl Candidacy {
    /// Joins the queue below `root`, an existing path.
    ///
    /// - `name`: shown to people; it plays no part in who wins.
    /// - `uid`: random and new for every candidacy.
    /// - `data`: what the znode holds.
    ///
    /// Errors: refused, or session over.
    pub async fn enter(session: &Session, root: &str, name: &str, uid: &str, data: &[u8]) -> Result<Self, Failure> {
        let prefix = paths::join(root, &format!("{name}-{uid}-"));
        let path = ephemeral::create(session, &prefix, data, true).await?;
        Ok(Candidacy { session: session.clone(), root: root.to_owned(), path })
    }

    /// The znode.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Waits without limit until nobody is before us. Dropping the future changes nothing; the candidacy stays.
    ///
    /// Errors: session over.
    pub async fn won(self) -> Result<Election, Failure> {
        let (mut patience, mut ignored) = (Patience::default(), HashSet::new());
        loop {
            match self.look(&mut ignored).await {
                Ok(Look::First) => return Ok(Election::Won(Leadership { candidacy: self })),
                Ok(Look::Absent) => return Ok(Election::Removed),
                Ok(Look::Behind(watch)) => {
                    patience.succeeded();
                    let _ = timeout(LOOK_EVERY, watch.fired()).await;
                }
                Ok(Look::Unsure(path, refusal)) => {
                    if let Some(lasted) = patience.failed(Instant::now()) {
                        warn!(path, %refusal, ?lasted, "waiting for a candidate that may not be read; mend its ACL, or delete it");
                    }
                    sleep(LOOK_AGAIN).await;
                }
                Err(Failure::SessionOver(cause)) => return Err(Failure::SessionOver(cause)),
                Err(failure) => {
                    if let Some(lasted) = patience.failed(Instant::now()) {
                        warn!(root = self.root, %failure, ?lasted, "cannot tell who stands before us: still trying");
                    }
                    self.session.settle().await?;
                    sleep(LOOK_AGAIN).await;
                }
            }
        }
    }

    /// `ignored`: what was found to be no candidate, so that each is named once.
    async fn look(&self, ignored: &mut HashSet<String>) -> Result<Look, Failure> {
        // A server that lags behind could still show a predecessor that is gone, or not show us.
        self.session.refresh().await?;
        let names = self.session.children(&self.root).await?.unwrap_or_default();
        let Some(own) = names.iter().find(|name| *name == paths::name(&self.path)).and_then(|n| paths::sequence(n))
        else {
            return Ok(Look::Absent);
        };
        let before = names.iter().filter_map(|n| Some((paths::sequence(n)?, n))).filter(|(number, _)| *number < own);
        let mut before: Vec<(u32, &String)> = before.collect();
        before.sort_unstable();
        for (_, name) in before.into_iter().rev() {
            let path = paths::join(&self.root, name);
            let (owner, watch) = match self.session.watch_node(&path).await {
                Ok((node, watch)) => (node.map(|node| node.owner), Ok(watch)),
                Err(Failure::Refused(refusal)) => match self.session.owner(&path).await {
                    // One of which nobody says whether it has an owner may lead: it is waited for.
                    Err(Failure::Refused(_)) => return Ok(Look::Unsure(path, refusal)),
                    owner => (owner?, Err(refusal)),
                },
                Err(failure) => return Err(failure),
            };
            match (owner, watch) {
                (Some(0), _) => {
                    if ignored.insert(path.clone()) {
                        warn!(path, "ignoring a persistent znode among the candidates; delete it");
                    }
                }
                (Some(_), Ok(watch)) => return Ok(Look::Behind(watch)),
                (Some(_), Err(refusal)) => return Ok(Look::Unsure(path, refusal)),
                (None, _) => {} // gone since the listing
            }
        }
        Ok(Look::First)
    }

    /// Leaves the queue. The znode is deleted by its exact path, until it is gone or the session over.
    pub async fn withdraw(&self) {
        // Refused where it is gone already; and nobody is left to hear of anything else.
        let _ = self.session.insist(Op::Delete { path: self.path.clone(), version: None }).await;
    }
}

enum Look {
    First,
    Behind(NodeWatch),
    Absent,
    /// There is one before us that may not be read, and so not be watched.
    Unsure(String, Refusal),
}

impl Leadership {
    /// Heads every multi that a leader sends: it is refused once this leadership is over, however late it arrives.
    pub fn guard(&self) -> Op {
        Op::Check { path: self.candidacy.path.clone(), version: None }
    }

    /// The znode.
    pub fn path(&self) -> &str {
        &self.candidacy.path
    }

    /// Completes when the znode is gone or the session over.
    pub fn lost(&self) -> impl Future<Output = ()> + Send + use<> {
        let (session, path) = (self.candidacy.session.clone(), self.candidacy.path.clone());
        async move {
            loop {
                match session.watch_node(&path).await {
                    Ok((Some(_), watch)) => drop(timeout(LOOK_EVERY, watch.fired()).await),
                    // What may not be read passes no check either.
                    Ok((None, _)) | Err(_) => return,
                }
            }
        }
    }

    /// Gives the leadership up: the next candidate is woken at once.
    pub async fn resign(self) {
        self.candidacy.withdraw().await;
    }
}
