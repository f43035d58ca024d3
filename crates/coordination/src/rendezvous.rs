//! A rendezvous: a conductor and its members go from one numbered point to the next together.
//!
//! After the recipe *Barriers* of the ZooKeeper documentation, held by one side: members show by ephemeral znodes which
//! point they have reached, and the conductor, once all have, calls the next one by setting an ephemeral znode of its own.
//! Nobody sleeps and nobody counts on a clock; whoever dies is missed when its session ends, on both sides.
//!
//! The conductor watches the parent of all of them, once: a watch for each member would be more than a session may have.

use std::collections::HashSet;

use znode::{Failure, Op};

use super::ephemeral;
use super::reader::read_all;
use super::session::Session;
use super::watch::{Event, TreeWatch};

/// Why a rendezvous cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Missed {
    /// A znode that was there is not any more: its process has died, stopped, or lost its session.
    #[error("{0} is gone")]
    Gone(String),
    /// It has begun without this member.
    #[error("point {0} was called before this member came")]
    Late(u32),
    /// ZooKeeper refused, or our own session is over.
    #[error("{0}")]
    Failed(#[from] Failure),
}

/// Calls the points.
#[derive(Debug)]
pub struct Conductor {
    session: Session,
    calls: String,
    /// On the parent; it is dead once the session has another epoch than this one.
    watch: Option<(TreeWatch, u64)>,
}

impl Conductor {
    /// Calls point 0, at the path `calls`, which no other process may use; its siblings are the members. Nothing else on this
    /// session may watch them (ZOOKEEPER-4466).
    pub async fn open(session: &Session, calls: &str) -> Result<Self, Failure> {
        let calls = ephemeral::create(session, calls, &to_data(0), false).await?;
        Ok(Conductor { session: session.clone(), calls, watch: None })
    }

    /// Completes when all members have reached `point`: at 0 they are waited for, later they are missed.
    pub async fn all_reach(&mut self, members: &[String], point: u32) -> Result<(), Missed> {
        let session = self.session.clone();
        let mut late: HashSet<&str> = members.iter().map(String::as_str).collect();
        loop {
            let (watch, epoch) = self.watched().await?;
            let mut unread: Vec<&str> = late.iter().copied().collect();
            // As long as the watch lives, only those that it names are read again.
            while !unread.is_empty() {
                for (path, node) in unread.iter().zip(read_all(&session, &unread).await?) {
                    match node {
                        Ok(Some(node)) if from_data(&node.data) >= point => drop(late.remove(path)),
                        Ok(None) if point > 0 => return Err(Missed::Gone((*path).to_owned())),
                        Ok(_) => {}
                        Err(refusal) => return Err(Failure::Refused(refusal).into()),
                    }
                }
                if late.is_empty() {
                    return Ok(());
                }
                let mut status = session.status();
                unread = tokio::select! {
                    named = named(watch, &late) => named?,
                    _ = status.wait_for(|status| status.epoch != epoch) => Vec::new(),
                };
            }
        }
    }

    /// A watch that lives, and the epoch in which it was set. What came before it is to be read.
    async fn watched(&mut self) -> Result<(&mut TreeWatch, u64), Failure> {
        let parent =
            self.calls.rsplit_once('/').map_or("/", |(parent, _)| if parent.is_empty() { "/" } else { parent });
        loop {
            self.session.connected().await?;
            let epoch = self.session.status().borrow().epoch;
            if self.watch.as_ref().is_some_and(|(_, set_in)| *set_in == epoch) {
                break;
            }
            match self.session.watch_tree(parent).await {
                Ok(watch) => self.watch = Some((watch, epoch)), // unless it is another one by now
                Err(Failure::Unknown(_)) => self.session.settle().await?,
                Err(failure) => return Err(failure),
            }
        }
        let (watch, epoch) = self.watch.as_mut().expect("set above");
        Ok((watch, *epoch))
    }

    /// Which of the members have come.
    pub async fn present(&self, members: &[String]) -> Result<Vec<bool>, Failure> {
        let nodes = self.session.get_many(members).await?;
        Ok(nodes.iter().map(|node| *node != Ok(None)).collect())
    }

    /// Calls a point.
    pub async fn call(&self, point: u32) -> Result<(), Failure> {
        set(&self.session, &self.calls, point).await
    }
}

/// Goes where it is called.
#[derive(Debug)]
pub struct Member {
    session: Session,
    path: String,
    calls: String,
}

impl Member {
    /// Has reached point 0, at the path `path`, which no other process may use.
    ///
    /// Errors: a later point was called already, or there is no conductor.
    pub async fn join(session: &Session, calls: &str, path: &str) -> Result<Self, Missed> {
        session.refresh().await?;
        match session.get(calls).await?.map(|node| from_data(&node.data)) {
            None => return Err(Missed::Gone(calls.to_owned())),
            Some(0) => {}
            Some(point) => return Err(Missed::Late(point)),
        }
        let path = ephemeral::create(session, path, &to_data(0), false).await?;
        Ok(Member { session: session.clone(), path, calls: calls.to_owned() })
    }

    /// Completes when `point` is called.
    pub async fn called(&self, point: u32) -> Result<(), Missed> {
        loop {
            match self.session.watch_node(&self.calls).await? {
                (Some(node), _) if from_data(&node.data) >= point => return Ok(()),
                (None, _) => return Err(Missed::Gone(self.calls.clone())),
                (Some(_), watch) => watch.fired().await,
            }
        }
    }

    /// Shows that `point` is reached.
    pub async fn reach(&self, point: u32) -> Result<(), Failure> {
        set(&self.session, &self.path, point).await
    }
}

/// Which of those that are late have done something: at least one. Events of others are passed over.
async fn named<'m>(watch: &mut TreeWatch, late: &HashSet<&'m str>) -> Result<Vec<&'m str>, Failure> {
    let mut named = HashSet::new();
    while named.is_empty() {
        let mut event = Some(watch.next().await.ok_or_else(|| Failure::SessionOver("expired or closed".to_owned()))?);
        while let Some(Event::Created(path) | Event::Changed(path) | Event::Deleted(path)) = event {
            named.extend(late.get(path.as_str()));
            event = watch.try_next();
        }
    }
    Ok(named.into_iter().collect())
}

/// Setting the same point twice is as good as once.
async fn set(session: &Session, path: &str, point: u32) -> Result<(), Failure> {
    let op = Op::Set { path: path.to_owned(), data: to_data(point), version: None };
    session.insist(op).await.map(drop)
}

fn to_data(point: u32) -> Vec<u8> {
    point.to_string().into_bytes()
}

fn from_data(data: &[u8]) -> u32 {
    std::str::from_utf8(data).ok().and_then(|text| text.parse().ok()).unwrap_or(0)
}
