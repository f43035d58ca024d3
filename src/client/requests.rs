//! What a submitter has under way on one session.

use coordination::{CommitError, Committer, Failure, Op, Reader, Session};
use futures::future::{BoxFuture, FutureExt};
use futures::stream::FuturesUnordered;
use tree::{TaskId, transitions};

use super::ending::{Ending, stored};

/// A call under way for a task, and its answer.
type Call<Answer> = BoxFuture<'static, (u32, Answer)>;

/// Requests under way on one session.
pub(super) struct Requests {
    submit: Committer,
    clean: Committer,
    reader: Reader,
    pub(super) submitting: FuturesUnordered<Call<Result<(), CommitError>>>,
    pub(super) fetching: FuturesUnordered<Call<Result<Option<Ending>, Failure>>>,
    pub(super) collecting: FuturesUnordered<Call<Result<(), CommitError>>>,
}

impl Requests {
    /// `guard` heads every submission.
    pub(super) fn on(session: &Session, guard: Op) -> Self {
        Requests {
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
        let commit = self.submit.commit(transitions::submit(task, payload));
        let n = task.n;
        self.submitting.push(async move { (n, commit.await) }.boxed());
    }

    /// Reads how a task ended.
    pub(super) fn fetch(&mut self, task: TaskId) {
        let reader = self.reader.clone();
        let fetch = async move {
            let ended = match stored(&reader, &task).await {
                Ok(stored) => Ok(stored.ending(&task).await),
                Err(failure) => Err(failure),
            };
            (task.n, ended)
        };
        self.fetching.push(fetch.boxed());
    }

    /// The row *collect*: of an outcome, or of the payload that a lost task left.
    pub(super) fn collect(&mut self, task: &TaskId, version: i32) {
        let commit = self.clean.commit(vec![transitions::collect(task, version)]);
        let n = task.n;
        self.collecting.push(async move { (n, commit.await) }.boxed());
    }
}
