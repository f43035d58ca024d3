//! What a submitter has under way on one session.

use futures::future::{BoxFuture, FutureExt};
use futures::stream::FuturesUnordered;

use crate::coordination::{CommitError, Committer, Failure, Node, Op, Reader, Session};
use crate::records::TaskId;

/// What is left in the tree of a task that was delivered.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Remains {
    Nothing,
    Outcome,
    DeadTask,
    DeadTaskWithoutPayload,
}

/// A call under way for a task, and its answer.
type Call<Answer> = BoxFuture<'static, (u32, Answer)>;

/// Calls under way on one session.
pub(super) struct Calls {
    submit: Committer,
    clean: Committer,
    reader: Reader,
    pub(super) submitting: FuturesUnordered<Call<Result<(), CommitError>>>,
    pub(super) fetching: FuturesUnordered<Call<Result<Option<Node>, Failure>>>,
    pub(super) collecting: FuturesUnordered<Call<(Remains, Result<(), CommitError>)>>,
}

impl Calls {
    /// `guard` heads every submission.
    pub(super) fn on(session: &Session, guard: Op) -> Self {
        Calls {
            submit: Committer::start(session.clone(), Some(guard)),
            clean: Committer::start(session.clone(), None),
            reader: Reader::start(session.clone()),
            submitting: FuturesUnordered::new(),
            fetching: FuturesUnordered::new(),
            collecting: FuturesUnordered::new(),
        }
    }

    /// The row *submit*.
    pub(super) fn submit(&mut self, task: &TaskId, payload: Vec<u8>) {
        let commit = self.submit.commit(vec![
            Op::Create { path: task.data_path(), data: payload },
            Op::Create { path: task.path(), data: Vec::new() },
        ]);
        let n = task.n;
        self.submitting.push(async move { (n, commit.await) }.boxed());
    }

    /// Reads what is stored of a task: its payload, or its outcome.
    pub(super) fn fetch(&mut self, task: &TaskId) {
        let (n, read) = (task.n, self.reader.read(task.data_path()));
        self.fetching.push(async move { (n, read.await) }.boxed());
    }

    /// The rows *collect* and, for what is left of a dead task, *cancel*.
    pub(super) fn clean(&mut self, task: &TaskId, remains: Remains) {
        let delete = |path, version| Op::Delete { path, version };
        let ops = match remains {
            Remains::Nothing => Vec::new(),
            Remains::Outcome => vec![delete(task.data_path(), Some(1))],
            Remains::DeadTask => vec![delete(task.path(), None), delete(task.data_path(), None)],
            Remains::DeadTaskWithoutPayload => vec![delete(task.path(), None)],
        };
        let (n, commit) = (task.n, self.clean.commit(ops));
        self.collecting.push(async move { (n, (remains, commit.await)) }.boxed());
    }
}
