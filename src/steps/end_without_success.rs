//! The steps *complete* and *cancel*, of a task that failed or is not to be done: the same multi marks its job as failed, because
//! the jobs that come after that one depend on its success.

use coordination::{CommitError, Committer, Failure, Op, Reader, Refusal};
use tree::{JobId, JobRecord, transitions, transitions::OUTCOME_AT};

use crate::run::{TRIES_MAX, gave_up};

/// Whether a [`cancel`](transitions::cancel) was refused because there is no place for an outcome: the task has no payload, or
/// somebody has set that. Then the task is to be deleted alone.
pub(crate) fn has_no_place(ended: &Result<(), CommitError>) -> bool {
    matches!(
        ended,
        Err(CommitError::Refused { at: OUTCOME_AT, refusal: Refusal::NoNode | Refusal::BadVersion, unanswered: false })
    )
}

/// Commits `ops`, which end a task of `job`, and marks the job's record where nobody has yet.
///
/// Errors: as of [`Committer::commit`]; `at` counts within `ops`, and is their number where others changed the record all the
/// time.
pub(crate) async fn end_without_success(
    committer: &Committer,
    reader: &Reader,
    job: &JobId,
    ops: Vec<Op>,
) -> Result<(), CommitError> {
    for _ in 0..TRIES_MAX {
        let node = reader.read(job.path()).await.map_err(|failure| match failure {
            Failure::Refused(refusal) => CommitError::Refused { at: 0, refusal, unanswered: false },
            Failure::Unknown(cause) | Failure::SessionOver(cause) => CommitError::SessionOver(cause),
        })?;
        let mark = node.and_then(|node| {
            let record = JobRecord::from_json(&node.data).ok()?;
            transitions::mark_failed(job, record, node.version)
        });
        match committer.commit(ops.iter().cloned().chain(mark).collect()).await {
            // Somebody else set the record: it is read again.
            Err(CommitError::Refused { at, refusal: Refusal::BadVersion, .. }) if at == ops.len() => {}
            done => return done,
        }
    }
    Err(CommitError::Refused { at: ops.len(), refusal: gave_up(&job.path()), unanswered: false })
}
