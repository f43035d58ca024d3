//! Whether the herd serves, for a probe.

use coordination::{Failure, Session};
use tree::{MASTER, WORKERS};

use super::view::{NOBODY_LEADS, candidate, children, worker_record};
use super::{Client, ClientError};

impl Client {
    /// What is missing for tasks to be done, a line each; empty where somebody leads and a worker is registered. Only who has a
    /// session counts: a znode that somebody left behind leads nobody, and runs nothing.
    pub async fn lacks(&self) -> Result<Vec<&'static str>, ClientError> {
        let session = self.session();
        session.refresh().await?;
        let mut lacks = Vec::new();
        if !somebody_leads(session).await? {
            lacks.push(NOBODY_LEADS);
        }
        let workers = children(session, WORKERS, &mut Vec::new()).await?;
        if !workers.iter().any(|(_, node)| worker_record(node).is_some()) {
            lacks.push("no worker is registered: start one with `worker`");
        }
        Ok(lacks)
    }
}

/// Whether there is a candidate with a session.
pub(super) async fn somebody_leads(session: &Session) -> Result<bool, Failure> {
    let candidates = children(session, MASTER, &mut Vec::new()).await?;
    Ok(candidates.iter().any(|(name, node)| candidate(name, node).is_some()))
}
