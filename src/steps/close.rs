//! The step *close*: a job goes, with all that is kept in the tree because of it.
//!
//! Its client takes away the ephemerals that are left in it too, [`close`]. The leader closes only what nobody attends, and
//! does that behind its guard; what both take away beside the job's own znodes is [`ties`].

use coordination::{Failure, MultiFailure, Op, Refusal, Session};
use tree::{JobId, JobRecord, has_tasks, is_ephemeral, key_path, transitions};

use crate::run::{TRIES_MAX, gave_up};
use crate::spill;

/// Closes a job, unless a task, an outcome, or what keeps the job for a later one is left in it. Removes what is kept for it in
/// its spill directory. Returns whether the job is gone.
///
/// Errors: others change the job all the time; or as of [`Session::multi`].
pub(crate) async fn close(session: &Session, job: &JobId) -> Result<bool, Failure> {
    for _ in 0..TRIES_MAX {
        let Some(names) = session.children(&job.path()).await? else { return Ok(true) };
        let data = session.children(&job.data_path()).await?;
        if has_tasks(&names) || !data.iter().flatten().all(|name| is_ephemeral(name)) {
            return Ok(false);
        }
        // What is left are ephemerals: clients that attend it, and tasks that were cancelled and are being stopped.
        let record = session.get(&job.path()).await?.and_then(|node| JobRecord::from_json(&node.data).ok());
        let ties = match &record {
            Some(record) => ties(session, job, record).await?,
            None => Vec::new(),
        };
        let ops = transitions::close(job, &names, data.as_deref(), ties); // somebody's hand may have removed its data
        match session.multi(&ops).await {
            Ok(_) => {
                if let Some(directory) = record.and_then(|record| record.spill) {
                    spill::remove_aside(directory, job.clone()).await;
                }
                return Ok(true);
            }
            Err(MultiFailure { failure: Failure::Refused(Refusal::NotEmpty), .. }) => return Ok(false),
            Err(MultiFailure { failure: Failure::Unknown(_), .. }) => session.settle().await?,
            Err(MultiFailure { failure: Failure::Refused(Refusal::NoNode | Refusal::BadVersion), .. }) => {
                // Closed by somebody else, or by this very call; or only the key has gone to another job.
                if session.get(&job.path()).await?.is_none() {
                    return Ok(true);
                }
            }
            Err(error) => return Err(error.failure),
        }
    }
    Err(Failure::Refused(gave_up(&job.path())))
}

/// What ties a job to others, to be deleted with it: its key, where it has it still, and what keeps other jobs for it.
pub(crate) async fn ties(session: &Session, job: &JobId, record: &JobRecord) -> Result<Vec<Op>, Failure> {
    let mut ops = Vec::new();
    for before in &record.after {
        ops.extend(let_go(session, before, job).await?);
    }
    if let Some(key) = record.key.as_deref() {
        let node = session.get(&key_path(key)).await?.filter(|node| node.data == job.as_str().as_bytes());
        ops.extend(node.map(|node| transitions::free_key(key, node.version)));
    }
    Ok(ops)
}

/// The deletion of what keeps `job` for a later one; `None` where nothing does.
pub(crate) async fn let_go(session: &Session, job: &JobId, later: &JobId) -> Result<Option<Op>, Failure> {
    let there = session.get(&job.after_path(later)).await?.is_some();
    Ok(there.then(|| transitions::let_go(job, later)))
}
