//! Group membership: a process is a member as long as its ephemeral znode exists (ZooKeeper documentation, "Recipes
//! and Solutions: Group Membership").

use znode::{Failure, Node, Op, Refusal, paths};

use super::ephemeral;
use super::session::Session;
use super::watch::NodeWatch;

/// A membership, identified by a znode of its own.
#[derive(Debug, Clone)]
pub struct Registration {
    session: Session,
    path: String,
}

impl Registration {
    /// Joins the group below `root`, an existing path, as `<name>-<uid>`; `uid` is random and new for every
    /// registration.
    ///
    /// Errors: refused, or session over.
    pub async fn enter(session: &Session, root: &str, name: &str, uid: &str, data: &[u8]) -> Result<Self, Failure> {
        let path = paths::join(root, &format!("{name}-{uid}"));
        let path = ephemeral::create(session, &path, data, false).await?;
        Ok(Registration { session: session.clone(), path })
    }

    /// The znode.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Heads every multi of a member: it is refused once the membership is over.
    pub fn guard(&self) -> Op {
        Op::Check { path: self.path.clone(), version: None }
    }

    /// Leaves, if the znode is at this version still, so that nothing that was written to it goes unread. `false` where it
    /// is not: what is in it now is to be read.
    ///
    /// Errors: session over, or refused otherwise.
    pub async fn leave(&self, version: i32) -> Result<bool, Failure> {
        let delete = Op::Delete { path: self.path.clone(), version: Some(version) };
        match self.session.insist(delete).await {
            Ok(_) | Err(Failure::Refused(Refusal::NoNode)) => Ok(true),
            Err(Failure::Refused(Refusal::BadVersion)) => Ok(false),
            Err(failure) => Err(failure),
        }
    }

    /// Reads the znode and watches it; `None` once it is gone.
    ///
    /// Errors: session over, or refused.
    pub async fn read(&self) -> Result<(Option<Node>, NodeWatch), Failure> {
        self.session.watch_node(&self.path).await
    }
}
