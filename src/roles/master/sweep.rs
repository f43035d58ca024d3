//! Removing what nobody came for: jobs without outstanding tasks, and without a client that attends them, for longer than
//! the retention; and attached jobs whose client is gone.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use futures::future::join_all;
use futures::{StreamExt, stream};
use tracing::info;

use super::chores::{Beside, Hand, may_go_on, refused};
use super::{Setback, Standing};
use crate::coordination::{MultiFailure, Op, paths};
use crate::records::tree::{has_tasks, is_client, is_ephemeral, later_job, task_number};
use crate::records::{JobId, JobRecord};

/// A job that was looked at is not looked at again before.
const AGAIN: Duration = Duration::from_secs(1);
/// How many jobs one round is about, and how many of them at a time.
const JOBS_MAX: usize = 50;
const AT_A_TIME: usize = 4;
/// How many znodes of one job a round removes: no job keeps the others waiting.
const ZNODES_MAX: usize = 1_000;

/// The jobs that are being removed, a part of each in turn.
#[derive(Default)]
pub(super) struct Sweeper {
    queue: VecDeque<Clearing>,
    /// Those in the queue, and those of the round that is under way.
    jobs: HashSet<JobId>,
    under_way: Beside<Swept>,
}

/// A job that is being removed.
struct Clearing {
    job: JobId,
    /// Whether all that is in it goes, or only what has ended.
    all: bool,
    /// The versions of its dead tasks.
    dead: HashMap<u32, i32>,
    /// What is left to be looked at below `/data/<job>`, and whether it is a task's that is there; `None` before that was
    /// listed.
    names: Option<Vec<(String, bool)>>,
}

/// What a round came to.
pub(super) struct Swept {
    /// Each job, and whether there is more to be removed of it.
    clearings: Vec<(Clearing, bool)>,
    outcome: Result<(), Setback>,
}

impl Sweeper {
    /// A job is to be removed, with all that is in it.
    pub(super) fn remove(&mut self, job: JobId) {
        self.add(Clearing { job, all: true, dead: HashMap::new(), names: None });
    }

    fn add(&mut self, clearing: Clearing) {
        if self.jobs.insert(clearing.job.clone()) {
            self.queue.push_back(clearing);
        }
    }

    /// What a round came to, once it is done. Safe to cancel.
    pub(super) async fn done(&mut self) -> Swept {
        self.under_way.done().await
    }
}

impl Standing {
    /// Begins a round, unless one is under way.
    pub(super) fn begin_sweep(&mut self, guard: &Op) {
        if self.sweeper.under_way.is_under_way() {
            return;
        }
        let overdue = self.ledger.idle_for(self.retention.max(AGAIN)).take(JOBS_MAX).cloned();
        for job in overdue.collect::<Vec<JobId>>() {
            self.ledger.idle_again(&job);
            let dead = self.ledger.dead(&job);
            self.sweeper.add(Clearing { job, all: false, dead, names: None });
        }
        let mut round = Vec::new();
        while round.len() < JOBS_MAX
            && let Some(clearing) = self.sweeper.queue.pop_front()
        {
            if self.ledger.is_idle(&clearing.job) {
                round.push(clearing);
            } else {
                self.sweeper.jobs.remove(&clearing.job); // somebody came
            }
        }
        if !round.is_empty() {
            self.sweeper.under_way.begin(self.hand(guard).clear(round));
        }
    }

    /// Takes over what a round came to; whether there is more to do at once.
    pub(super) fn swept(&mut self, swept: Swept) -> Result<bool, Setback> {
        for (clearing, more) in swept.clearings {
            self.sweeper.jobs.remove(&clearing.job);
            if more {
                self.sweeper.add(clearing);
            }
        }
        swept.outcome.map(|()| !self.sweeper.queue.is_empty())
    }
}

impl Hand {
    async fn clear(self, clearings: Vec<Clearing>) -> Swept {
        let clear = |mut clearing: Clearing| {
            let hand = &self;
            async move {
                let more = hand.clear_some(&mut clearing).await;
                (clearing, more)
            }
        };
        let done: Vec<_> = stream::iter(clearings).map(clear).buffer_unordered(AT_A_TIME).collect().await;
        let mut swept = Swept { clearings: Vec::new(), outcome: Ok(()) };
        for (clearing, more) in done {
            let left = more.as_ref().is_ok_and(|more| *more);
            swept.clearings.push((clearing, left));
            // Where somebody else is at the job, or the answer was lost, it is looked at again after the retention.
            swept.outcome = swept.outcome.and(may_go_on(more.map(drop)));
        }
        swept
    }

    /// Seals the job, removes some of its outcomes and dead tasks, and closes it once nothing is left to be looked at.
    /// Whether there is more. Stops where a client has come to attend it since the round began.
    async fn clear_some(&self, clearing: &mut Clearing) -> Result<bool, MultiFailure> {
        let Clearing { job, all, dead, names } = clearing;
        if names.is_none() && !self.seal(job).await? {
            return Ok(false);
        }
        let tasks = self.session.children(&job.path()).await?.unwrap_or_default();
        if tasks.iter().any(|name| is_client(name)) {
            return Ok(false); // what is left is its client's
        }
        let names = match names {
            Some(names) => names,
            None => {
                // After the seal no task comes any more.
                if *all && has_tasks(&tasks) {
                    return Ok(false); // the mirror is behind
                }
                let tasks: HashSet<String> = tasks.into_iter().collect();
                let stored = self.session.children(&job.data_path()).await?.unwrap_or_default();
                let with_task = |name: String| {
                    let has_task = tasks.contains(&name);
                    (name, has_task)
                };
                names.insert(stored.into_iter().map(with_task).collect())
            }
        };
        let some = names.split_off(names.len().saturating_sub(ZNODES_MAX));
        let mut removals = Vec::new();
        for (name, has_task) in &some {
            removals.extend(match all {
                true => Some(vec![Op::Delete { path: paths::join(&job.data_path(), name), version: None }]),
                false => self.removal(job, name, *has_task, dead).await?,
            });
        }
        let committer = self.committer();
        let mut removed = 0;
        for done in join_all(removals.into_iter().map(|ops| committer.commit(ops))).await {
            match done {
                Ok(()) => removed += 1,
                Err(error) => drop(refused(error)?), // a payload without a task, or somebody else is at the job
            }
        }
        if removed > 0 {
            info!(%job, removed, "swept");
        }
        if names.is_empty() {
            self.close(job).await?;
        }
        Ok(!names.is_empty())
    }

    /// Seals a job; whether it is there. A record that nobody understands cannot be sealed; its outcomes and the job go all
    /// the same, by their versions.
    async fn seal(&self, job: &JobId) -> Result<bool, MultiFailure> {
        let Some(node) = self.session.get(&job.path()).await? else { return Ok(false) };
        if let Ok(mut record) = JobRecord::from_json(&node.data)
            && !record.sealed
        {
            record.sealed = true;
            self.write(vec![Op::Set { path: job.path(), data: record.to_json(), version: Some(node.version) }]).await?;
        }
        Ok(true)
    }

    /// What removes a child of `/data/<job>`, if it may go: an outcome, a dead task with its payload, the payload of a task that
    /// somebody's hand has deleted, or what keeps the job for one that is gone.
    async fn removal(
        &self,
        job: &JobId,
        name: &str,
        has_task: bool,
        dead: &HashMap<u32, i32>,
    ) -> Result<Option<Vec<Op>>, MultiFailure> {
        let delete = |version| Op::Delete { path: paths::join(&job.data_path(), name), version };
        if let Some(version) = task_number(name).ok().and_then(|n| dead.get(&n)) {
            return Ok(Some(vec![
                Op::Delete { path: paths::join(&job.path(), name), version: Some(*version) },
                delete(None),
            ]));
        }
        if let Some(later) = later_job(name) {
            let is_gone = self.session.get(&later.path()).await?.is_none();
            return Ok(is_gone.then(|| vec![delete(None)]));
        }
        let is_lost = !has_task && task_number(name).is_ok();
        Ok((!is_ephemeral(name)).then(|| vec![delete((!is_lost).then_some(1))]))
    }
}
