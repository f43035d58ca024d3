//! What goes with a job when it is closed, by its client or by the leader, beside its own two znodes.

use coordination::{Failure, Op, Session};
use tree::{JobId, JobRecord, key_path, transitions};

/// Frees the key that the job has, where it has it still, and takes away what keeps other jobs for it.
pub(super) async fn ties(session: &Session, job: &JobId, record: &JobRecord) -> Result<Vec<Op>, Failure> {
    let mut ops = Vec::new();
    for before in &record.after {
        ops.extend(hold(session, before, job).await?);
    }
    if let Some(key) = record.key.as_deref() {
        let node = session.get(&key_path(key)).await?.filter(|node| node.data == job.as_str().as_bytes());
        ops.extend(node.map(|node| transitions::free_key(key, node.version)));
    }
    Ok(ops)
}

/// Takes away what keeps a job for a later one, where that is there.
pub(super) async fn hold(session: &Session, job: &JobId, later: &JobId) -> Result<Option<Op>, Failure> {
    let there = session.get(&job.after_path(later)).await?.is_some();
    Ok(there.then(|| transitions::let_go(job, later)))
}
