//! What a leader has to do for jobs beside assigning their tasks. Pure, as [`plan`](crate::decide::assign) is: from the ledger alone,
//! so that a new leader goes on where the old one was.

use tree::{JobId, OutcomeStatus, TaskId, Withdrawn};

use crate::decide::ledger::{Job, Ledger};

/// The most tasks that one round ends, of all jobs together.
const ENDED_MAX: usize = 1_000;

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Duty {
    /// Seal the job and write into its record that what is outstanding is not to be done, and why.
    Withdraw {
        /// Which job.
        job: JobId,
        /// How its tasks end, and why.
        withdrawn: Withdrawn,
        /// Whether it was sealed when this was decided. Where that has changed, it may have ended, and is looked at anew.
        sealed: bool,
    },
    /// End these tasks of a withdrawn job, each with an outcome that says why.
    End(Vec<TaskId>, Withdrawn),
    /// The job need not wait for that other one any more, because it has succeeded, as far as is known, or because this one
    /// is withdrawn.
    Release {
        /// Which job.
        job: JobId,
        /// Which it waited for.
        after: JobId,
    },
    /// Remove the job and all that is in it: its client is gone, and nothing of it is outstanding.
    Remove(JobId),
}

/// What there is to do now, for every job; some of it in several rounds.
///
/// | a job | is |
/// |---|---|
/// | past its deadline, and not ended: not sealed, or with tasks outstanding | withdrawn: cancelled |
/// | attached, and without its client | withdrawn: aborted; once nothing is outstanding, removed |
/// | after another that has ended without success, or is gone | withdrawn: aborted |
/// | after another that has succeeded | released from it |
/// | withdrawn | rid of its tasks, and released |
pub fn duties(ledger: &Ledger) -> Vec<Duty> {
    let mut duties = Vec::new();
    let jobs = || ledger.special.iter().filter_map(|key| ledger.jobs.get(key));
    let has_any = |job: &&Job| job.has_outstanding() || !job.dead.is_empty();
    let withdrawn = jobs().filter(|job| job.record.as_ref().is_some_and(|record| record.withdrawn.is_some()));
    // None waits until a larger one has ended.
    let each = (ENDED_MAX / withdrawn.filter(has_any).count().max(1)).max(1);
    for job in jobs() {
        let Some(record) = &job.record else { continue };
        let policy = &record.policy;
        let left = policy.attached && job.clients.is_empty();
        let outstanding = ledger.has_outstanding(&job.id);
        if let Some(withdrawn) = &record.withdrawn {
            let ended = end(job, withdrawn, each);
            let over = ended.is_none() && !outstanding;
            duties.extend(ended);
            let release = |after: &JobId| Duty::Release { job: job.id.clone(), after: after.clone() };
            duties.extend(record.after.first().map(release));
            if over && left {
                duties.push(Duty::Remove(job.id.clone()));
            }
        } else if left {
            duties.push(withdraw(job, OutcomeStatus::Aborted, "its client is gone, and the job was attached to it"));
        } else if policy.deadline_ms.is_some_and(|at| at <= ledger.clock_ms) && (outstanding || !record.sealed) {
            duties.push(withdraw(job, OutcomeStatus::Cancelled, "the job ran out of time"));
        } else {
            duties.extend(record.after.iter().find_map(|other| dependency(ledger, job, other)));
        }
    }
    duties
}

fn withdraw(job: &Job, status: OutcomeStatus, reason: &str) -> Duty {
    let sealed = job.record.as_ref().is_some_and(|record| record.sealed);
    Duty::Withdraw { job: job.id.clone(), withdrawn: Withdrawn { status, reason: reason.to_owned() }, sealed }
}

/// What runs first, so that it stops soon.
fn end(job: &Job, withdrawn: &Withdrawn, room: usize) -> Option<Duty> {
    let waiting = job.waiting.iter().chain(&job.suspects).chain(job.deferred.keys());
    let tasks: Vec<TaskId> =
        job.held.keys().chain(waiting).chain(&job.dead).take(room).map(|n| job.id.task(*n)).collect();
    (!tasks.is_empty()).then(|| Duty::End(tasks, withdrawn.clone()))
}

/// Whether the other job has ended, and what follows.
fn dependency(ledger: &Ledger, job: &Job, other: &JobId) -> Option<Duty> {
    let abort = |why: &str| Some(withdraw(job, OutcomeStatus::Aborted, &format!("job {other} {why}")));
    let Some(before) = ledger.job(other) else { return abort("is gone, and nothing says that it succeeded") };
    let record = before.record.as_ref()?;
    if !record.sealed || ledger.has_outstanding(other) {
        return None;
    }
    if record.failed || record.withdrawn.is_some() || !before.dead.is_empty() {
        return abort("did not succeed");
    }
    Some(Duty::Release { job: job.id.clone(), after: other.clone() })
}
