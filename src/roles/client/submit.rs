//! A job of one's own: open, submit, seal, receive each outcome, collect, close.
//!
//! [`Job`] and [`Results`] are the two ends of a task that holds the session and does the work, see
//! `submitter.rs`. If the process dies, the job goes on without it, and anybody can collect it once it
//! is sealed.

use rand::Rng;
use tokio::sync::{mpsc, oneshot};

use super::submitter::{Command, Ends, Submission, Submitter, UNACKNOWLEDGED_MAX};
use super::{CONNECT, ClientError, Finished, Limit};
use crate::coordination::{Failure, Op, Refusal, Session, SessionConfig, paths};
use crate::records::{DATA_BYTES_MAX, JobId, JobRecord, Policy, TaskId};

/// How many sessions may end while the job is being opened.
const TRIES_MAX: usize = 5;

/// What job to open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobSpec {
    /// The beginning of its id; a random end is added.
    pub name: String,
    /// Which handler runs its tasks.
    pub kind: String,
    /// What the kind makes of it.
    pub args: Vec<String>,
    /// How its tasks are treated.
    pub policy: Policy,
    /// How much the tree may hold.
    pub limit: Limit,
}

impl JobSpec {
    /// A job of the given kind, named after it.
    pub fn new(kind: &str) -> Self {
        JobSpec {
            name: kind.to_owned(),
            kind: kind.to_owned(),
            args: Vec::new(),
            policy: Policy::default(),
            limit: Limit::default(),
        }
    }
}

/// Submits tasks to an open job. Dropping it is as good as [`Job::seal`], without the answer.
#[derive(Debug)]
pub struct Job {
    id: JobId,
    commands: mpsc::Sender<Command>,
}

/// Receives the outcomes of an open job, in the order in which they come. Dropping it leaves them in the tree.
#[derive(Debug)]
pub struct Results {
    finished: mpsc::UnboundedReceiver<(TaskId, Finished)>,
    delivered: mpsc::UnboundedSender<TaskId>,
    last: Option<TaskId>,
    ended: Option<oneshot::Receiver<Result<(), ClientError>>>,
}

/// Opens a job: from here on it is in the tree.
///
/// Errors: no connection within 10 s, or refused.
pub async fn open(config: &SessionConfig, spec: JobSpec, rng: &mut impl Rng) -> Result<(Job, Results), ClientError> {
    let record = JobRecord::new(&spec.kind, spec.args, spec.policy);
    let mut tries = 0;
    let (session, id) = loop {
        let session = Session::connect(config, CONNECT).await?;
        match create(&session, &spec.name, &record, rng).await {
            Ok(id) => break (session, id),
            // What that session may have opened stays empty, and is swept; its id is never used again.
            Err(ClientError::Failed(Failure::SessionOver(_))) if tries < TRIES_MAX => tries += 1,
            Err(error) => {
                session.close().await;
                return Err(error);
            }
        }
        session.close().await;
    };
    let (commands, received) = mpsc::channel(UNACKNOWLEDGED_MAX);
    let (finished_in, finished) = mpsc::unbounded_channel();
    let (delivered, deliveries) = mpsc::unbounded_channel();
    let (ended_in, ended) = oneshot::channel();
    let ends = Ends { commands: received, finished: finished_in, deliveries };
    let submitter = Submitter::new(config.clone(), id.clone(), record, spec.limit, ends);
    tokio::spawn(async move {
        let _ = ended_in.send(submitter.run(session).await);
    });
    Ok((Job { id, commands }, Results { finished, delivered, last: None, ended: Some(ended) }))
}

/// The row *open*. An id whose create was not answered is used again only if it turns out to be there.
async fn create(session: &Session, name: &str, record: &JobRecord, rng: &mut impl Rng) -> Result<JobId, ClientError> {
    loop {
        let id: JobId =
            format!("{name}-{}", paths::uid(rng)).parse().map_err(|error| Failure::Refused(Refusal::Other(error)))?;
        let ops = [
            Op::Create { path: id.path(), data: record.to_json() },
            Op::Create { path: id.data_path(), data: Vec::new() },
        ];
        match session.multi(&ops).await.map_err(|error| error.failure) {
            Ok(_) => return Ok(id),
            Err(Failure::Refused(Refusal::NodeExists)) => {} // somebody else drew it before
            Err(Failure::Refused(Refusal::NoNode)) => return Err(ClientError::NoHerd),
            Err(Failure::Unknown(_)) => {
                session.settle().await?;
                if session.get(&id.path()).await?.is_some() {
                    return Ok(id);
                }
            }
            Err(failure) => return Err(failure.into()),
        }
    }
}

impl Job {
    /// The job's id.
    pub fn id(&self) -> &JobId {
        &self.id
    }

    /// Submits a task; done when ZooKeeper has acknowledged it: from then on it will be completed, once.
    ///
    /// Submissions are made in the order of the calls. Waits while the tree is full, unless [`JobSpec::limit`]
    /// says otherwise. Errors: the payload is over 512 KiB, the tree is full, the job was sealed or
    /// closed by somebody else, or no session could be had for a minute.
    pub async fn submit(&self, payload: Vec<u8>) -> Result<TaskId, ClientError> {
        if payload.len() > DATA_BYTES_MAX {
            return Err(ClientError::TooLarge(payload.len()));
        }
        let (reply, answer) = oneshot::channel();
        self.ask(Command::Submit(Submission { payload, reply }), answer).await
    }

    /// Seals the job: all is submitted. Done when ZooKeeper has acknowledged everything.
    pub async fn seal(&self) -> Result<(), ClientError> {
        let (reply, answer) = oneshot::channel();
        self.ask(Command::Seal { reply }, answer).await
    }

    async fn ask<T>(
        &self,
        command: Command,
        answer: oneshot::Receiver<Result<T, ClientError>>,
    ) -> Result<T, ClientError> {
        let over = || ClientError::Failed(Failure::SessionOver("this job is no longer attended".to_owned()));
        self.commands.send(command).await.map_err(|_| over())?;
        answer.await.unwrap_or_else(|_| Err(over()))
    }
}

impl Results {
    /// The next task that ended, or `None` when the job is sealed, everything was delivered, and the job closed.
    ///
    /// Asking for the next one says that the one before was dealt with: only then is its outcome removed.
    pub async fn next(&mut self) -> Result<Option<Finished>, ClientError> {
        if let Some(last) = self.last.take() {
            let _ = self.delivered.send(last);
        }
        if let Some((task, finished)) = self.finished.recv().await {
            self.last = Some(task);
            return Ok(Some(finished));
        }
        match self.ended.take() {
            Some(ended) => ended.await.unwrap_or(Ok(())).map(|()| None),
            None => Ok(None),
        }
    }

    /// Leaves the outcomes in the tree; returns once everything was submitted and sealed, and the session closed.
    pub async fn leave(mut self) -> Result<(), ClientError> {
        self.finished.close();
        let ended = self.ended.take();
        drop(self);
        match ended {
            Some(ended) => ended.await.unwrap_or(Ok(())),
            None => Ok(()),
        }
    }
}
