//! What a submitter has asked of ZooKeeper on one session, and the events that the answers are.

use coordination::{CommitError, Committer, Failure, Op, Reader, Refusal, Session};
use futures::future::{BoxFuture, FutureExt};
use futures::stream::{FuturesUnordered, StreamExt};
use tracing::warn;
use tree::{JobId, TaskId, transitions};

use super::stored::stored;
use super::{ClientError, Finished};
use crate::decide::submission::Event;

/// Why a job cannot be served any longer as it is.
pub(super) enum Stop {
    /// The session is over: another one has to rejoin.
    SessionOver,
    /// The job's record is at another version than the one that guards the submissions, or an answer was lost: rejoin on this
    /// session, which begins by settling what is not known.
    Rejoin,
    /// It cannot be served at all.
    Failed(ClientError),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::SessionOver(_) => Stop::SessionOver,
            Failure::Unknown(_) => Stop::Rejoin,
            Failure::Refused(_) => Stop::Failed(failure.into()),
        }
    }
}

/// Requests under way on one session. Dropping it forgets their answers; what was sent may be applied all the same.
pub(super) struct Requests {
    session: Session,
    submitter: Committer,
    collector: Committer,
    reader: Reader,
    under_way: FuturesUnordered<BoxFuture<'static, Result<Event<Finished>, Stop>>>,
}

impl Requests {
    /// `version`: of the job's record, which guards every submission.
    pub(super) fn on(session: &Session, job: &JobId, version: Option<i32>) -> Self {
        let guard = transitions::submission_guard(job, version);
        Requests {
            session: session.clone(),
            submitter: Committer::start(session.clone(), Some(guard)),
            collector: Committer::start(session.clone(), None),
            reader: Reader::start(session.clone()),
            under_way: FuturesUnordered::new(),
        }
    }

    /// The next answer; `None` where nothing is under way. Safe to cancel.
    pub(super) async fn next(&mut self) -> Option<Result<Event<Finished>, Stop>> {
        self.under_way.next().await
    }

    /// The row *submit*.
    pub(super) fn submit(&mut self, task: &TaskId, payload: Vec<u8>) {
        let commit = self.submitter.commit(transitions::submit(task, payload));
        let n = task.n;
        let submit = async move {
            match commit.await {
                // There already: by an earlier request of ours. Nobody else submits to this job.
                Ok(()) | Err(CommitError::Refused { refusal: Refusal::NodeExists, .. }) => Ok(Event::Acknowledged(n)),
                Err(CommitError::Refused { refusal, .. }) => Ok(Event::Refused(n, refusal)),
                Err(CommitError::Guard(_)) => Ok(Event::GuardRefused),
                Err(CommitError::SessionOver(_)) => Err(Stop::SessionOver),
            }
        };
        self.under_way.push(submit.boxed());
    }

    /// Reads how a task ended.
    pub(super) fn fetch(&mut self, task: TaskId) {
        let reader = self.reader.clone();
        let fetch = async move { Ok(Event::Read(task.n, stored(&reader, &task).await?.ended(&task).await)) };
        self.under_way.push(fetch.boxed());
    }

    /// The row *collect*: of an outcome, or of the payload that a lost task left.
    pub(super) fn collect(&mut self, task: TaskId, version: i32) {
        let commit = self.collector.commit(vec![transitions::collect(&task, version)]);
        let collect = async move {
            match commit.await {
                Err(CommitError::SessionOver(_)) => return Err(Stop::SessionOver),
                Ok(()) | Err(CommitError::Refused { refusal: Refusal::NoNode, .. }) => {}
                Err(CommitError::Refused { refusal, .. } | CommitError::Guard(refusal)) => {
                    warn!(%task, %refusal, "cannot remove the outcome");
                }
            }
            Ok(Event::Collected(task.n))
        };
        self.under_way.push(collect.boxed());
    }

    /// The row *seal*, as this operation.
    pub(super) fn seal(&mut self, set: Op) {
        let session = self.session.clone();
        let seal = async move {
            match session.write(set).await {
                Ok(_) => Ok(Event::SealAcknowledged),
                Err(Failure::Unknown(_) | Failure::Refused(Refusal::BadVersion | Refusal::NoNode)) => {
                    Ok(Event::SealRefused)
                }
                Err(failure) => Err(failure.into()),
            }
        };
        self.under_way.push(seal.boxed());
    }
}
