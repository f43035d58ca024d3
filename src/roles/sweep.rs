//! Removing what nobody came for: jobs without outstanding tasks for longer than the retention.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use tracing::{debug, info};

use crate::coordination::op::MULTI_OPS_MAX;
use crate::coordination::{Failure, MultiFailure, Op, Refusal, Session, paths};
use crate::ledger::Ledger;
use crate::records::{JobId, JobRecord};

/// Since when each job has had nothing outstanding, as far as this leader has seen.
#[derive(Debug, Default)]
pub(super) struct Idle {
    since: HashMap<JobId, Instant>,
}

impl Idle {
    /// Notes which jobs are idle at `now`, and names one that has been for longer than `retention`.
    pub(super) fn overdue(&mut self, ledger: &Ledger, retention: Duration, now: Instant) -> Option<JobId> {
        let idle = ledger.jobs().filter(|job| !ledger.has_outstanding(job));
        self.since = idle.map(|job| (job.clone(), self.since.get(job).copied().unwrap_or(now))).collect();
        let oldest = self.since.iter().min_by_key(|(_, since)| **since)?;
        (now.saturating_duration_since(*oldest.1) >= retention).then(|| oldest.0.clone())
    }

    /// The job was looked at: its time begins again, if it is still there.
    pub(super) fn restart(&mut self, job: &JobId, now: Instant) {
        self.since.insert(job.clone(), now);
    }
}

/// One bounded round: seals the job, deletes up to 500 of its outcomes, and closes it once it is empty. Every multi
/// is headed by the leader's `guard`.
pub(super) async fn sweep(session: &Session, guard: Op, job: &JobId) -> Result<(), MultiFailure> {
    let Some(node) = session.get(&job.path()).await? else { return Ok(()) };
    // A record that nobody understands cannot be sealed; its outcomes and the job go all the same, by their versions.
    if let Ok(mut record) = JobRecord::from_json(&node.data)
        && !record.sealed
    {
        record.sealed = true;
        let seal = Op::Set { path: job.path(), data: record.to_json(), version: Some(node.version) };
        session.multi(&[guard.clone(), seal]).await?;
    }
    let names = session.children(&job.data_path()).await?.unwrap_or_default();
    let paths: Vec<String> = names.iter().take(MULTI_OPS_MAX - 1).map(|n| paths::join(&job.data_path(), n)).collect();
    let mut outcomes = Vec::new();
    for chunk in paths.chunks(50) {
        let nodes = session.get_many(chunk).await?;
        let at_version_1 = chunk.iter().zip(nodes).filter(|(_, node)| node.as_ref().is_some_and(|n| n.version == 1));
        outcomes.extend(at_version_1.map(|(path, _)| Op::Delete { path: path.clone(), version: Some(1) }));
    }
    if !outcomes.is_empty() {
        let count = outcomes.len();
        session.multi(&[vec![guard.clone()], outcomes].concat()).await?;
        info!(%job, outcomes = count, "swept");
    }
    let close =
        [guard, Op::Delete { path: job.data_path(), version: None }, Op::Delete { path: job.path(), version: None }];
    match session.multi(&close).await {
        Ok(_) => info!(%job, "closed: nobody came for it"),
        Err(MultiFailure { at: Some(1..), failure: Failure::Refused(Refusal::NotEmpty | Refusal::NoNode) }) => {
            debug!(%job, "not empty yet");
        }
        Err(error) => return Err(error),
    }
    Ok(())
}
