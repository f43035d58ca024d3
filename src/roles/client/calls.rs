//! What a submitter has under way on one session.

use futures::future::{BoxFuture, FutureExt};
use futures::stream::FuturesUnordered;

use crate::coordination::{CommitError, Committer, Failure, Node, Op, Reader, Session};
use crate::records::TaskId;

/// A call under way for a task, and its answer.
type Call<Answer> = BoxFuture<'static, (u32, Answer)>;

/// Calls under way on one session.
pub(super) struct Calls {
    submit: Committer,
    clean: Committer,
    reader: Reader,
    pub(super) submitting: FuturesUnordered<Call<Result<(), CommitError>>>,
    pub(super) fetching: FuturesUnordered<Call<Result<Option<Node>, Failure>>>,
    pub(super) collecting: FuturesUnordered<Call<Result<(), CommitError>>>,
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

    /// The row *collect*.
    pub(super) fn collect(&mut self, task: &TaskId) {
        let commit = self.clean.commit(vec![Op::Delete { path: task.data_path(), version: Some(1) }]);
        let n = task.n;
        self.collecting.push(async move { (n, commit.await) }.boxed());
    }
}
