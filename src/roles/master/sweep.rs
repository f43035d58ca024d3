//! Removing what nobody came for: jobs without outstanding tasks, and without a client that attends them, for longer than
//! the retention.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use tracing::info;

use super::{Setback, Standing};
use crate::coordination::{MultiFailure, Op, paths};
use crate::ledger::Ledger;
use crate::records::tree::later_job;
use crate::records::{JobId, JobRecord, TaskState};

/// How often the leader looks for jobs to sweep.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// How many tasks one round removes.
const ROUND: usize = 200;

/// Since when each job has had nothing outstanding, as far as this leader has seen.
#[derive(Debug, Default)]
pub(super) struct Idle {
    since: HashMap<JobId, Instant>,
}

impl Idle {
    /// Notes which jobs are idle at `now`, and names one that has been for longer than `retention`.
    pub(super) fn overdue(&mut self, ledger: &Ledger, retention: Duration, now: Instant) -> Option<JobId> {
        let idle = ledger.jobs().filter(|job| !ledger.has_outstanding(job) && !ledger.is_attended(job));
        self.since = idle.map(|job| (job.clone(), self.since.get(job).copied().unwrap_or(now))).collect();
        let oldest = self.since.iter().min_by_key(|(_, since)| **since)?;
        (now.saturating_duration_since(*oldest.1) >= retention).then(|| oldest.0.clone())
    }

    /// The job was looked at: its time begins again, if it is still there.
    pub(super) fn restart(&mut self, job: &JobId, now: Instant) {
        self.since.insert(job.clone(), now);
    }
}

impl Standing {
    /// Looks for a job to sweep, once a second.
    pub(super) async fn sweep(&mut self, guard: &Op) -> Result<(), Setback> {
        let now = Instant::now();
        if now.saturating_duration_since(self.swept) < SWEEP_EVERY {
            return Ok(());
        }
        self.swept = now;
        let Some(job) = self.idle.overdue(&self.ledger, self.retention, now) else { return Ok(()) };
        let swept = self.sweep_some(guard, &job).await;
        if !swept.as_ref().is_ok_and(|more| *more) {
            self.idle.restart(&job, Instant::now());
        }
        // Somebody else may be at the job, or the answer was lost: it is looked at again after the retention.
        self.done(swept.map(drop))
    }

    /// One bounded round: seals the job, removes up to 200 of its outcomes and dead tasks, and closes it once it is empty.
    /// Whether there is more.
    async fn sweep_some(&self, guard: &Op, job: &JobId) -> Result<bool, MultiFailure> {
        let Some(node) = self.session.get(&job.path()).await? else { return Ok(false) };
        // A record that nobody understands cannot be sealed; its outcomes and the job go all the same, by their versions.
        if let Ok(mut record) = JobRecord::from_json(&node.data)
            && !record.sealed
        {
            record.sealed = true;
            let seal = Op::Set { path: job.path(), data: record.to_json(), version: Some(node.version) };
            self.session.multi(&[guard.clone(), seal]).await?;
        }
        let names = self.session.children(&job.data_path()).await?.unwrap_or_default();
        let mut removals = Vec::new();
        for some in names[..names.len().min(ROUND)].chunks(50) {
            let stored: Vec<String> = some.iter().map(|name| paths::join(&job.data_path(), name)).collect();
            let tasks: Vec<String> = some.iter().map(|name| paths::join(&job.path(), name)).collect();
            let (stored_now, tasks_now) = (self.session.get_many(&stored).await?, self.session.get_many(&tasks).await?);
            for (at, (stored_now, task)) in stored_now.into_iter().zip(tasks_now).enumerate() {
                let (Ok(Some(stored_now)), Ok(task)) = (stored_now, task) else { continue };
                let stored = Op::Delete { path: stored[at].clone(), version: Some(stored_now.version) };
                let later_is_gone = later_job(&some[at]).is_some_and(|later| self.ledger.job(&later).is_none());
                let dead = task.filter(|task| TaskState::from_json(&task.data).is_ok_and(|state| state.dead));
                match dead {
                    Some(task) => {
                        removals.push(Op::Delete { path: tasks[at].clone(), version: Some(task.version) });
                        removals.push(stored);
                    }
                    None if stored_now.version == 1 || later_is_gone => removals.push(stored),
                    None => {}
                }
            }
        }
        if !removals.is_empty() {
            let count = removals.len();
            self.session.multi(&[vec![guard.clone()], removals].concat()).await?;
            info!(%job, znodes = count, "swept");
        }
        let more = names.len() > ROUND;
        if !more {
            self.close(guard, job).await?;
        }
        Ok(more)
    }
}
