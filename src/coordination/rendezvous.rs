//! A rendezvous: a conductor and its members go from one numbered point to the next together.
//!
//! After the recipe *Barriers* of the ZooKeeper documentation, held by one side: members show by ephemeral znodes which
//! point they have reached, and the conductor, once all have, calls the next one by setting an ephemeral znode of its own.
//! Nobody sleeps and nobody counts on a clock; whoever dies is missed when its session ends, on both sides.

use futures::future::try_join_all;

use super::ephemeral;
use super::failure::Failure;
use super::op::Op;
use super::session::Session;

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
}

impl Conductor {
    /// Calls point 0, at the path `calls`, which no other process may use.
    pub async fn open(session: &Session, calls: &str) -> Result<Self, Failure> {
        let calls = ephemeral::create(session, calls, &to_data(0), false).await?;
        Ok(Conductor { session: session.clone(), calls })
    }

    /// Completes when all members have reached `point`: at 0 they are waited for, later they are missed.
    pub async fn all_reach(&self, members: &[String], point: u32) -> Result<(), Missed> {
        let reach = |path: &String| reaches(self.session.clone(), path.clone(), point, point == 0);
        try_join_all(members.iter().map(reach)).await.map(drop)
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
        session.sync().await?;
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
        reaches(self.session.clone(), self.calls.clone(), point, false).await
    }

    /// Shows that `point` is reached.
    pub async fn reach(&self, point: u32) -> Result<(), Failure> {
        set(&self.session, &self.path, point).await
    }
}

/// Completes when the znode at `path` shows `point` or a later one.
async fn reaches(session: Session, path: String, point: u32, may_come: bool) -> Result<(), Missed> {
    loop {
        match session.watch_node(&path).await {
            Ok((Some(node), _)) if from_data(&node.data) >= point => return Ok(()),
            Ok((None, _)) if !may_come => return Err(Missed::Gone(path)),
            Ok((_, watch)) => watch.fired().await,
            Err(Failure::Unknown(_)) => session.settle().await?,
            Err(failure) => return Err(failure.into()),
        }
    }
}

/// Setting the same point twice is as good as once.
async fn set(session: &Session, path: &str, point: u32) -> Result<(), Failure> {
    let op = Op::Set { path: path.to_owned(), data: to_data(point), version: None };
    loop {
        match session.write(op.clone()).await {
            Err(Failure::Unknown(_)) => session.settle().await?,
            done => return done.map(drop),
        }
    }
}

fn to_data(point: u32) -> Vec<u8> {
    point.to_string().into_bytes()
}

fn from_data(data: &[u8]) -> u32 {
    std::str::from_utf8(data).ok().and_then(|text| text.parse().ok()).unwrap_or(0)
}
