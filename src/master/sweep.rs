//! Removing what nobody came for: jobs without outstanding tasks, and without a client that attends them, for longer than
//! the retention; and attached jobs whose client is gone.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use coordination::{MultiFailure, Op, Refusal};
use futures::future::join_all;
use futures::{StreamExt, stream};
use tracing::info;
use tree::{JobId, JobRecord, has_tasks, is_client, is_ephemeral, later_job, task_number, transitions};

use super::upkeep::{Beside, Hand, may_go_on, refused};
use super::{Setback, Standing};

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
    /// What is left to be looked at below `/data/<job>`, and whether it may be the payload of a task that somebody's hand has
    /// deleted; `None` before that was listed.
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
        let mut is_sealed = false;
        if names.is_none() {
            match self.seal(job).await? {
                Some(sealed) => is_sealed = sealed,
                None => return Ok(false),
            }
        }
        let tasks = self.session.children(&job.path()).await?.unwrap_or_default();
        if tasks.iter().any(|name| is_client(name)) {
            return Ok(false); // what is left is its client's
        }
        let names = match names {
            Some(names) => names,
            None => {
                // After the seal no task comes any more: a payload without one has lost it.
                if *all && has_tasks(&tasks) {
                    return Ok(false); // the mirror is behind
                }
                let tasks: HashSet<String> = tasks.into_iter().collect();
                let stored = self.session.children(&job.data_path()).await?.unwrap_or_default();
                let may_be_lost = |name: String| {
                    let is_lost = is_sealed && task_number(&name).is_ok() && !tasks.contains(&name);
                    (name, is_lost)
                };
                names.insert(stored.into_iter().map(may_be_lost).collect())
            }
        };
        let some = names.split_off(names.len().saturating_sub(ZNODES_MAX));
        let delete = |name: &str, version| transitions::sweep(job, name, version);
        let mut removals = Vec::new();
        for (name, may_be_lost) in &some {
            let (ops, lost) = match all {
                true => (Some(vec![delete(name, None)]), None),
                false => (self.removal(job, name, dead).await?, may_be_lost.then(|| delete(name, Some(0)))),
            };
            removals.extend(ops.map(|ops| (ops, lost)));
        }
        let committer = self.committer();
        let remove = |(ops, lost): (Vec<Op>, Option<Op>)| {
            let (committer, removed) = (&committer, committer.commit(ops));
            async move {
                let removed = match (removed.await.map_err(refused), lost) {
                    // No outcome, but a payload that nothing is to come of.
                    (Err(Ok(Refusal::BadVersion)), Some(lost)) => committer.commit(vec![lost]).await.map_err(refused),
                    (removed, _) => removed,
                };
                match removed {
                    Ok(()) => Ok(true),
                    Err(refusal) => refusal.map(|_| false), // no outcome, or somebody else is at the job
                }
            }
        };
        let mut removed = 0;
        for done in join_all(removals.into_iter().map(remove)).await {
            removed += usize::from(done?);
        }
        if removed > 0 {
            info!(%job, removed, "swept");
        }
        if names.is_empty() {
            self.close(job).await?;
        }
        Ok(!names.is_empty())
    }

    /// Seals a job; whether it is sealed then, `None` where it is gone. A record that nobody understands cannot be sealed; its
    /// outcomes and the job go all the same, by their versions.
    async fn seal(&self, job: &JobId) -> Result<Option<bool>, MultiFailure> {
        let Some(node) = self.session.get(&job.path()).await? else { return Ok(None) };
        let Ok(record) = JobRecord::from_json(&node.data) else { return Ok(Some(false)) };
        if !record.sealed {
            self.write(vec![transitions::seal(job, &record, None, Some(node.version))]).await?;
        }
        Ok(Some(true))
    }

    /// What removes a child of `/data/<job>`, if it may go: an outcome, a dead task with its payload, or what keeps the job for
    /// one that is gone.
    async fn removal(
        &self,
        job: &JobId,
        name: &str,
        dead: &HashMap<u32, i32>,
    ) -> Result<Option<Vec<Op>>, MultiFailure> {
        let delete = |version| transitions::sweep(job, name, version);
        if let Some((n, version)) = task_number(name).ok().and_then(|n| Some((n, dead.get(&n)?))) {
            return Ok(Some(transitions::sweep_dead(&job.task(n), Some(*version))));
        }
        if let Some(later) = later_job(name) {
            let is_gone = self.session.get(&later.path()).await?.is_none();
            return Ok(is_gone.then(|| vec![delete(None)]));
        }
        Ok((!is_ephemeral(name)).then(|| vec![delete(Some(1))]))
    }
}
