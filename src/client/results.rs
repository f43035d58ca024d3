//! Collecting the outcomes of a job that is known by its name. Any process can do this, at any time, whatever became of the
//! one that submitted it.

use std::collections::HashSet;
use std::io;

use coordination::{Committer, Failure, Reader};
use futures::future::{join, join_all};
use tree::{JobId, TaskId, TaskState, task_number, transitions};
use znode::paths;

use super::manage::already_gone;
use super::stored::{Stored, stored};
use super::{Client, ClientError, Finished, Tally, attend};
use crate::steps;

/// How many znodes are read, delivered and removed at a time.
const CHUNK: usize = 250;

impl Client {
    pub(super) async fn tally(&self, job: &JobId) -> Result<Tally, ClientError> {
        Ok(Tally { sealed: true, ..self.all_ended(job, None, &mut |_| Ok(())).await?.tally })
    }

    /// Reads what has ended, oldest task first, some at a time, and hands it over: outcomes and lost tasks, then dead ones. With
    /// a `remover` what was taken is removed, but for the dead ones, while the next are read.
    async fn all_ended(
        &self,
        job: &JobId,
        remover: Option<&Committer>,
        deliver: &mut (impl FnMut(&[Finished]) -> io::Result<()> + Send),
    ) -> Result<Collected, ClientError> {
        let reader = Reader::start(self.session.clone());
        let names = |names: Option<Vec<String>>| {
            let mut numbers: Vec<u32> = names.unwrap_or_default().iter().filter_map(|n| task_number(n).ok()).collect();
            numbers.sort_unstable();
            numbers
        };
        let remove = |tasks: Vec<(TaskId, i32)>| async move {
            let Some(remover) = remover else { return Ok(0) };
            let delete = |(task, version): &(TaskId, i32)| remover.commit(vec![transitions::collect(task, *version)]);
            for removed in join_all(tasks.iter().map(delete)).await {
                removed.or_else(already_gone)?;
            }
            Ok::<usize, ClientError>(tasks.len())
        };
        let (mut ended, mut taken, mut removed) = (Collected::default(), Vec::new(), 0);
        let mut delivered = HashSet::new();
        let mut hand_over = |finished: &[Finished], removed| {
            let delivered = if finished.is_empty() { Ok(()) } else { deliver(finished) };
            delivered.map_err(|error| ClientError::Undelivered { job: job.clone(), error, removed })
        };
        // Listed first: what ends meanwhile is in one of the two lists, or in both.
        let with_znode = names(self.session.children(&job.path()).await?);
        let had_znode: HashSet<u32> = with_znode.iter().copied().collect();
        for numbers in names(self.session.children(&job.data_path()).await?).chunks(CHUNK) {
            let tasks: Vec<TaskId> = numbers.iter().map(|n| job.task(*n)).collect();
            let reads = join_all(tasks.iter().map(|task| reader.read(task.data_path())));
            let (nodes, removal) = join(reads, remove(std::mem::take(&mut taken))).await;
            removed += removal?;
            let mut finished = Vec::new();
            for (task, node) in tasks.into_iter().zip(nodes) {
                let stored = match node {
                    Ok(Some(node)) if node.version > 0 => Stored::Outcome(node),
                    Ok(Some(_)) if !had_znode.contains(&task.n) => stored(&reader, &task).await?,
                    Ok(_) => continue,
                    Err(Failure::Refused(refusal)) => Stored::Unreadable(refusal),
                    Err(failure) => return Err(failure.into()),
                };
                // Submitted since the listing; or removed by somebody else.
                if matches!(stored, Stored::NotEnded | Stored::Nothing) {
                    continue;
                }
                let Some(task_ended) = stored.ended(&task).await else { continue };
                finished.push(task_ended.told);
                if let Some(version) = task_ended.left_at {
                    delivered.insert(task.n);
                    taken.push((task, version));
                }
            }
            hand_over(&finished, removed)?;
            finished.iter().for_each(|finished| ended.tally.count(finished));
        }
        removed += remove(taken).await?;
        for numbers in with_znode.chunks(CHUNK) {
            let tasks: Vec<TaskId> = numbers.iter().map(|n| job.task(*n)).collect();
            let nodes = join_all(tasks.iter().map(|task| reader.read(task.path()))).await;
            let mut finished = Vec::new();
            for (task, node) in tasks.into_iter().zip(nodes) {
                match node.map(|node| node.map(|node| TaskState::from_json(&node.data))) {
                    Ok(Some(Ok(state))) if state.dead => finished.push(Finished::dead(&task, &state)),
                    Ok(Some(_)) | Err(Failure::Refused(_)) => ended.tally.outstanding += 1,
                    Err(failure) => return Err(failure.into()),
                    Ok(None) if delivered.contains(&task.n) => {}
                    // It ended between the two reads: whoever asks again will find its outcome, unless somebody has taken it.
                    Ok(None) => {
                        let stored = self.session.get(&task.data_path()).await?;
                        ended.tally.outstanding += usize::from(stored.is_some());
                    }
                }
            }
            hand_over(&finished, removed)?;
            finished.iter().for_each(|finished| ended.tally.count(finished));
            ended.dead += finished.len();
        }
        Ok(ended)
    }

    /// Delivers every outcome that is there, some at a time, and removes those that were taken, unless `keep`; closes the job
    /// once nothing is left. Dead tasks are delivered, and stay.
    /// With `seal`, seals the job first: its submitter, if it lives, can submit nothing more.
    ///
    /// `deliver` may see an outcome again in a later call of this function: where it failed, what it was given stays, and so
    /// does all that comes after; and where this client ends between delivering and removing.
    ///
    /// Errors: no such job; not sealed, and neither `keep` nor `seal` given; or `deliver` failed.
    pub async fn results(
        &self,
        job: &JobId,
        keep: bool,
        seal: bool,
        mut deliver: impl FnMut(&[Finished]) -> io::Result<()> + Send,
    ) -> Result<Tally, ClientError> {
        let sealed = if seal {
            self.set_record(job, |record| record.sealed = true).await?.sealed
        } else {
            self.record(job).await?.0.sealed
        };
        if keep {
            return Ok(Tally { sealed, ..self.all_ended(job, None, &mut deliver).await?.tally });
        }
        if !sealed {
            return Err(ClientError::NotSealed(job.clone()));
        }
        let client = job.client_path(&paths::uid(&mut rand::rng()));
        attend(&self.session, &client).await?;
        let committer = Committer::start(self.session.clone(), None);
        let ended = match self.all_ended(job, Some(&committer), &mut deliver).await {
            Err(error @ ClientError::Undelivered { .. }) => {
                self.delete(client).await?;
                return Err(error);
            }
            ended => ended?,
        };
        if ended.tally.outstanding > 0 || ended.dead > 0 || !steps::close(&self.session, job).await? {
            self.delete(client).await?;
        }
        Ok(Tally { sealed, ..ended.tally })
    }
}

/// What was handed over.
#[derive(Default)]
struct Collected {
    tally: Tally,
    /// How many dead tasks, which stay.
    dead: usize,
}
