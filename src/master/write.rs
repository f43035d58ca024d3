//! Writing a plan, under the leader's guard.

use std::time::Instant;

use coordination::{Failure, MultiFailure, Op, Refusal};
use tracing::{debug, info, warn};
use tree::{TaskId, TaskState, WorkerId, WorkerRecord, transitions, transitions::assign};
use znode::{MULTI_OPS_MAX, REQUEST_BYTES_MAX};

use super::{Setback, Standing};
use crate::decide::assign::{Moved, Plan, take_back};

/// What one operation of a plan's multi does.
enum Writes {
    End(TaskId, i32, TaskState),
    List(WorkerId),
}

impl Standing {
    /// Writes a plan. What is refused by itself (a worker that is gone, an attempt that ended otherwise, a znode that may not
    /// be set) is booked, and the rest written without it; but what moves tasks is written as one, or not. `false` where the
    /// tree was ahead, and is to be heard before anything else is planned.
    pub(super) async fn write(&mut self, guard: &Op, plan: Plan) -> Result<bool, Setback> {
        debug!(assigned = plan.assigned, lists = plan.lists.len(), interrupted = plan.interrupted.len(), "writing");
        if !plan.moved.is_empty() {
            return self.write_moves(guard, plan.moved, &plan.lists).await;
        }
        let ends = plan.interrupted.iter().map(|(task, ended)| {
            let op = transitions::end_attempt(task, &ended.state, ended.version);
            (Writes::End(task.clone(), ended.version, ended.state.clone()), op)
        });
        let lists = plan.lists.iter().map(|(id, record)| (Writes::List(id.clone()), assign(id, record)));
        let mut left: Vec<(Writes, Op)> = ends.chain(lists).collect();
        let mut as_planned = true;
        while !left.is_empty() {
            let mut bytes = guard.bytes();
            let fits = left.iter().take_while(|(_, op)| {
                bytes += op.bytes();
                bytes <= REQUEST_BYTES_MAX
            });
            let count = fits.count().clamp(1, left.len());
            let ops: Vec<Op> = std::iter::once(guard).chain(left[..count].iter().map(|(_, op)| op)).cloned().collect();
            let sent_at = Instant::now();
            let done = match self.session.multi(&ops).await {
                Ok(_) => left.drain(..count).map(|(what, _)| what).collect(),
                Err(error) => match refused(error)? {
                    Some((at, refusal)) => {
                        as_planned = false;
                        match left.remove(at - 1).0 {
                            Writes::List(worker) if refusal != Refusal::NoNode => self.list_refused(&worker, &refusal),
                            // Others may have gone with it, and would be refused one by one.
                            Writes::List(worker) => {
                                let mut gone = self.missing(&left).await?;
                                left.retain(|(what, _)| !matches!(what, Writes::List(worker) if gone.contains(worker)));
                                gone.push(worker);
                                self.workers_gone(&gone);
                            }
                            // The tree is ahead: that will be heard of, and perhaps of other ends that are due no more. A worker
                            // that handed everything back, and left, may be heard of by its leaving first.
                            Writes::End(task, ..) if matches!(refusal, Refusal::NoNode | Refusal::BadVersion) => {
                                self.ledger.not_interrupted(&task);
                                left.retain(|(what, _)| matches!(what, Writes::List(_)));
                            }
                            Writes::End(task, version, _) => self.task_refused(&task, version, &refusal),
                        }
                        Vec::new()
                    }
                    None => return Err(Setback::Doubt),
                },
            };
            self.round_trip = self.round_trip.mul_f64(0.8) + sent_at.elapsed().mul_f64(0.2);
            for what in done {
                match what {
                    Writes::List(worker) => self.ledger.list_written(&worker),
                    Writes::End(task, version, state) => {
                        let (attempt, worker) = (state.attempt, state.last().map(|last| &*last.worker));
                        info!(%task, attempt, worker, dead = state.dead, "the attempt was lost with its worker");
                        self.ledger.task_is(&task, version + 1, &state);
                    }
                }
            }
        }
        Ok(as_planned)
    }

    /// Of the workers whose lists are to be written, those that are gone.
    async fn missing(&self, writes: &[(Writes, Op)]) -> Result<Vec<WorkerId>, Setback> {
        let lists = writes.iter().filter_map(|(what, _)| match what {
            Writes::List(worker) => Some(worker.clone()),
            Writes::End(..) => None,
        });
        let lists: Vec<WorkerId> = lists.collect();
        let mut missing = Vec::new();
        for some in lists.chunks(MULTI_OPS_MAX) {
            let paths: Vec<String> = some.iter().map(WorkerId::path).collect();
            // They have no children, and their data is large.
            match self.session.children_many(&paths).await {
                Ok(there) => missing
                    .extend(some.iter().zip(there).filter(|(_, there)| *there == Ok(None)).map(|(id, _)| id.clone())),
                Err(failure @ Failure::SessionOver(_)) => return Err(Setback::SessionOver(failure)),
                Err(_) => {} // the server will tell one by one
            }
        }
        Ok(missing)
    }

    /// Sets each task to its next version, so that whatever the worker that had it still sends is refused, together with
    /// both lists. Where a task has ended, or a worker is gone, nothing is moved.
    async fn write_moves(
        &mut self,
        guard: &Op,
        moved: Vec<Moved>,
        lists: &[(WorkerId, WorkerRecord)],
    ) -> Result<bool, Setback> {
        let tasks = moved.iter().map(|moved| transitions::move_on(&moved.task, moved.data(), moved.version));
        let set_lists = lists.iter().map(|(id, record)| assign(id, record));
        let ops: Vec<Op> = std::iter::once(guard.clone()).chain(tasks).chain(set_lists).collect();
        let Err(error) = self.session.multi(&ops).await else {
            lists.iter().for_each(|(id, _)| self.ledger.list_written(id));
            for moved in moved {
                debug!(task = %moved.task, "moved");
                self.ledger.task_is(&moved.task, moved.version + 1, &moved.state);
            }
            return Ok(true);
        };
        let tasks: Vec<(TaskId, i32)> = moved.iter().map(|moved| (moved.task.clone(), moved.version)).collect();
        take_back(&mut self.ledger, moved);
        let Some((at, refusal)) = refused(error)? else { return Err(Setback::Doubt) };
        match (tasks.get(at - 1), lists.get((at - 1).saturating_sub(tasks.len())), refusal) {
            (Some(_), _, Refusal::NoNode | Refusal::BadVersion) => {} // its own event follows
            (Some((task, version)), _, refusal) => self.task_refused(task, *version, &refusal),
            // A worker's event may take a while.
            (None, Some((worker, _)), Refusal::NoNode) => self.workers_gone(std::slice::from_ref(worker)),
            (None, Some((worker, _)), refusal) => self.list_refused(worker, &refusal),
            (None, None, _) => {}
        }
        Ok(false)
    }

    /// The znode of a worker may not be set: it is given nothing for a while, and nobody else suffers from it.
    fn list_refused(&mut self, worker: &WorkerId, refusal: &Refusal) {
        self.ledger.list_refused(worker);
        self.complain(&worker.path(), format!("its list may not be set, so it is given no task: {refusal}"));
    }

    /// The znode of a task may not be set, and so no attempt of it be ended or moved: it is left alone.
    fn task_refused(&mut self, task: &TaskId, version: i32, refusal: &Refusal) {
        self.ledger.task_is_refused(task, version);
        self.complain(&task.path(), format!("it may not be set, so it is attempted no more: {refusal}"));
    }
}

/// Which operation was refused, and why: that is its znode's affair alone. `None` where nobody knows what was applied.
fn refused(error: MultiFailure) -> Result<Option<(usize, Refusal)>, Setback> {
    match (error.failure, error.at) {
        (Failure::Refused(_), Some(0)) => Err(Setback::Deposed),
        (Failure::Refused(refusal), Some(at)) => Ok(Some((at, refusal))),
        (failure @ Failure::SessionOver(_), _) => Err(Setback::SessionOver(failure)),
        (failure, at) => {
            warn!(%failure, ?at, "a plan was not written: reading the tree anew");
            Ok(None)
        }
    }
}
