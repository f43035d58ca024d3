//! Waiting for a job that is known by its name, whatever became of whoever submitted it.

use std::collections::BTreeSet;
use std::time::Duration;

use coordination::{Change, Failure, Mirror, Scope, Session};
use tokio::time::sleep;
use tree::{JobId, TaskState, task_number};

use super::{Client, ClientError, RECONNECT, Tally};

/// How often a job that has nothing outstanding is asked whether it was sealed by now.
const ASK_SEALED_EVERY: Duration = Duration::from_millis(500);

impl Client {
    /// Watches until the job is sealed and nothing of it is outstanding; removes nothing and seals nothing. Survives
    /// the end of its session. `progress` hears of every change.
    ///
    /// Errors: no such job, or it was closed meanwhile.
    pub async fn wait(&mut self, job: &JobId, mut progress: impl FnMut(&Tally)) -> Result<Tally, ClientError> {
        loop {
            match self.wait_on_session(job, &mut progress).await {
                Err(ClientError::Failed(Failure::SessionOver(_))) => {
                    self.session.close().await;
                    self.session = Session::connect(&self.config, RECONNECT).await?;
                }
                done => return done,
            }
        }
    }

    async fn wait_on_session(&self, job: &JobId, progress: &mut impl FnMut(&Tally)) -> Result<Tally, ClientError> {
        let scope = Scope { levels: 1, read_created: |_| false, read_changed: |_| true, remember_leaves: false };
        let mut mirror = Mirror::start(self.session.clone(), &job.path(), scope);
        let mut outstanding: BTreeSet<u32> = BTreeSet::new();
        let (mut known, mut sealed) = (false, false);
        let dead = |data: &[u8]| TaskState::from_json(data).is_ok_and(|state| state.dead);
        loop {
            if known {
                progress(&Tally { outstanding: outstanding.len(), sealed, ..Tally::default() });
                if outstanding.is_empty() && !sealed {
                    sealed = self.record(job).await?.0.sealed;
                }
                if outstanding.is_empty() && sealed {
                    let tally = self.tally(job).await?;
                    if tally.outstanding == 0 {
                        return Ok(tally);
                    } // else one was retried while they were counted
                }
            }
            tokio::select! {
                changes = mirror.next() => {
                    let over = || Failure::SessionOver("expired or closed".to_owned());
                    for change in changes.ok_or_else(over)? {
                        match change {
                            Change::RootGone => return Err(ClientError::NotFound(job.clone())),
                            Change::Snapshot { nodes, .. } => {
                                let alive = nodes.iter().filter(|(_, node)| !node.as_ref().is_some_and(|n| dead(&n.data)));
                                outstanding = alive.filter_map(|(name, _)| task_number(name).ok()).collect();
                                sealed = self.record(job).await?.0.sealed;
                                known = true;
                            }
                            Change::Created(name, _) => outstanding.extend(task_number(&name)),
                            Change::Changed(name, node) => {
                                // One that is gone by now is heard of next.
                                if let (Ok(n), Some(node)) = (task_number(&name), node) {
                                    if dead(&node.data) { outstanding.remove(&n) } else { outstanding.insert(n) };
                                }
                            }
                            Change::Deleted(name) => if let Ok(n) = task_number(&name) {
                                outstanding.remove(&n);
                            },
                        }
                    }
                }
                () = sleep(ASK_SEALED_EVERY), if known && outstanding.is_empty() => {}
            }
        }
    }
}
