//! A job of one's own: open, submit, seal, receive each outcome, collect, close.
//!
//! [`Job`] and [`Results`] are two handles of one task, which holds the session and does the work: `submitter.rs`. If this
//! process dies, the tasks that were acknowledged are done all the same, and anybody can collect their outcomes once the job is
//! sealed.

use std::path::PathBuf;
use std::time::Duration;

use coordination::{Failure, Op, Refusal, Session, SessionConfig};
use rand::Rng;
use tokio::sync::{mpsc, oneshot};
use tree::{
    DATA_BYTES_MAX, JobId, JobRecord, Policy, TASKS, TaskId, has_tasks, key_path, transitions, transitions::OPEN_OWN,
};
use znode::paths;

use super::submitter::{Command, Delivery, Ends, NewTask, Submitter, UNACKNOWLEDGED_MAX};
use super::{CONNECT, ClientError, Finished, Limit};
use crate::run::{TRIES_MAX, gave_up};
use crate::spawn::blocking_even_here;
use crate::spill;

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
    /// It begins no sooner than so long after it was opened, by ZooKeeper's clock; sets the policy's `not_before_ms`.
    pub delay: Option<Duration>,
    /// So long after it was opened what is outstanding of it is cancelled, likewise; sets the policy's `deadline_ms`.
    pub time_limit: Option<Duration>,
    /// The jobs that must have succeeded before a task of this one is begun.
    pub after: Vec<JobId>,
    /// At most one job is outstanding under a key: 1 to 64 of `A-Z a-z 0-9 . _ -`.
    pub key: Option<String>,
    /// A directory that all machines share, for payloads and results that are too large for the tree.
    pub spill: Option<PathBuf>,
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
            delay: None,
            time_limit: None,
            after: Vec::new(),
            key: None,
            spill: None,
            limit: Limit::default(),
        }
    }
}

/// Submits tasks to an open job. Dropping it is as good as [`Job::seal`], without the answer.
#[derive(Debug)]
pub struct Job {
    id: JobId,
    spill: Option<PathBuf>,
    commands: mpsc::Sender<Command>,
}

/// Receives the outcomes of an open job, in the order in which they come. Dropping it leaves them in the tree.
#[derive(Debug)]
pub struct Results {
    deliveries: mpsc::UnboundedReceiver<Delivery>,
    taken: mpsc::UnboundedSender<TaskId>,
    /// What was delivered last, where its being dealt with is to be told.
    last: Option<TaskId>,
    ended: Option<oneshot::Receiver<Result<(), ClientError>>>,
}

/// Opens a job: from here on it is in the tree.
///
/// Errors: no connection within 10 s; the key is taken; a job that it is to come after does not exist; or refused.
pub async fn open(config: &SessionConfig, spec: JobSpec, rng: &mut impl Rng) -> Result<(Job, Results), ClientError> {
    let (mut after, key, spill) = (spec.after, spec.key, spec.spill);
    after.sort_unstable();
    after.dedup(); // each keeps the others with one znode
    if let Some(key) = key.as_ref().filter(|key| !paths::is_plain(key)) {
        return Err(Failure::Refused(Refusal::Other(format!("'{key}' is no key: 1 to 64 of A-Z a-z 0-9 . _ -"))).into());
    }
    let mut record =
        JobRecord { after, key, spill: spill.clone(), ..JobRecord::new(&spec.kind, spec.args, spec.policy) };
    let mut tries = 0;
    let (session, id, client) = loop {
        let session = Session::connect(config, CONNECT).await?;
        let opened = async {
            set_moments(&session, &mut record.policy, spec.delay, spec.time_limit).await?;
            create(&session, &spec.name, &record, rng).await
        };
        match opened.await {
            Ok((id, client)) => break (session, id, client),
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
    let (deliveries_in, deliveries) = mpsc::unbounded_channel();
    let (taken_in, taken) = mpsc::unbounded_channel();
    let (ended_in, ended) = oneshot::channel();
    let ends = Ends { commands: received, deliveries: deliveries_in, taken };
    let submitter = Submitter::new(config.clone(), id.clone(), client, record, spec.limit, ends);
    tokio::spawn(async move {
        let _ = ended_in.send(submitter.run(session).await);
    });
    Ok((Job { id, spill, commands }, Results { deliveries, taken: taken_in, last: None, ended: Some(ended) }))
}

/// What is said from now on, as moments.
async fn set_moments(
    session: &Session,
    policy: &mut Policy,
    delay: Option<Duration>,
    time_limit: Option<Duration>,
) -> Result<(), Failure> {
    if delay.is_some() || time_limit.is_some() {
        session.learn_time().await?;
    }
    let now_ms = session.now_ms();
    let after = |time: Duration| now_ms.saturating_add(i64::try_from(time.as_millis()).unwrap_or(i64::MAX));
    policy.not_before_ms = delay.map(after).or(policy.not_before_ms);
    policy.deadline_ms = time_limit.map(after).or(policy.deadline_ms);
    Ok(())
}

/// The row *open*: the job's id, and the path of the znode by which this client attends it. An id whose create was not
/// answered is used again only if it turns out to be there.
async fn create(
    session: &Session,
    name: &str,
    record: &JobRecord,
    rng: &mut impl Rng,
) -> Result<(JobId, String), ClientError> {
    for _ in 0..TRIES_MAX {
        let id: JobId =
            format!("{name}-{}", paths::uid(rng)).parse().map_err(|error| Failure::Refused(Refusal::Other(error)))?;
        let client = id.client_path(&paths::uid(rng));
        let key = match &record.key {
            Some(key) => Some(take_key(session, key, &id).await?),
            None => None,
        };
        let ops = transitions::open(&id, record, &client, key);
        match session.multi(&ops).await.map_err(|error| (error.failure, error.at)) {
            Ok(_) => return Ok((id, client)),
            // Somebody else drew the id before, or took the key just now.
            Err((Failure::Refused(Refusal::NodeExists | Refusal::BadVersion), _)) => {}
            Err((Failure::Refused(Refusal::NoNode), Some(at))) if at >= OPEN_OWN => {
                if let Some(before) = record.after.get(at - OPEN_OWN) {
                    return Err(ClientError::NotFound(before.clone()));
                } // else the key was freed just now
            }
            Err((Failure::Refused(Refusal::NoNode), _)) => return Err(ClientError::NoHerd),
            Err((Failure::Unknown(_), _)) => {
                session.settle().await?;
                if session.get(&id.path()).await?.is_some() {
                    return Ok((id, client));
                }
            }
            Err((failure, _)) => return Err(failure.into()),
        }
    }
    Err(Failure::Refused(gave_up(&record.key.as_deref().map_or(TASKS.to_owned(), key_path))).into())
}

/// Gives a key to a job, where nobody has it or the one who has it has ended: sealed, with no task left that waits, runs
/// or could be retried. Such a job never has one again.
async fn take_key(session: &Session, key: &str, id: &JobId) -> Result<Op, ClientError> {
    session.refresh().await?;
    let Some(node) = session.get(&key_path(key)).await? else { return Ok(transitions::take_key(key, id, None)) };
    if let Ok(job) = String::from_utf8_lossy(&node.data).parse::<JobId>()
        && let Some(holder) = session.get(&job.path()).await?
    {
        let sealed = JobRecord::from_json(&holder.data).is_ok_and(|record| record.sealed);
        let names = session.children(&job.path()).await?.unwrap_or_default();
        if !sealed || has_tasks(&names) {
            return Err(ClientError::KeyTaken { key: key.to_owned(), job });
        }
    }
    Ok(transitions::take_key(key, id, Some(node.version)))
}

impl Job {
    /// The job's id.
    pub fn id(&self) -> &JobId {
        &self.id
    }

    /// Submits a task; done when ZooKeeper has acknowledged it: from then on it will be completed, once.
    ///
    /// Of several at a time nobody knows which comes first; see [`Job::enqueue`]. Waits while the tree is full, unless
    /// [`JobSpec::limit`] says otherwise. Errors: the payload is over 512 KiB and the job has no spill directory, the tree is
    /// full, the job was sealed or closed by somebody else, or no session could be had for a minute.
    pub async fn submit(&self, payload: Vec<u8>) -> Result<TaskId, ClientError> {
        self.enqueue(payload).await?.await
    }

    /// Gives a task its place: it comes after all those for which this is done, and before all for which it is called later.
    /// What it returns is done, as [`Job::submit`] is, when ZooKeeper has acknowledged it; many can be waited for at a time.
    pub async fn enqueue(
        &self,
        payload: Vec<u8>,
    ) -> Result<impl Future<Output = Result<TaskId, ClientError>> + Send + use<>, ClientError> {
        let payload = match self.spill.clone() {
            Some(directory) if spill::is_large(&payload) => {
                let id = self.id.clone();
                blocking_even_here(move || spill::wrap(&directory, &id, payload)).await??
            }
            Some(directory) => spill::wrap(&directory, &self.id, payload)?,
            None => payload,
        };
        if payload.len() > DATA_BYTES_MAX {
            return Err(ClientError::TooLarge(payload.len()));
        }
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Submit(NewTask { payload, reply })).await.map_err(|_| not_attended())?;
        Ok(async { answer.await.unwrap_or_else(|_| Err(not_attended())) })
    }

    /// Seals the job: all is submitted. Done when ZooKeeper has acknowledged everything.
    pub async fn seal(&self) -> Result<(), ClientError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Seal { reply }).await.map_err(|_| not_attended())?;
        answer.await.unwrap_or_else(|_| Err(not_attended()))
    }
}

fn not_attended() -> ClientError {
    ClientError::Failed(Failure::SessionOver("this job is no longer attended".to_owned()))
}

impl Results {
    /// The next task that ended, or `None` when the job is sealed, everything was delivered, and the job closed.
    ///
    /// Asking for the next one says that the one before was dealt with: only then is its outcome removed.
    pub async fn next(&mut self) -> Result<Option<Finished>, ClientError> {
        if let Some(last) = self.last.take() {
            let _ = self.taken.send(last);
        }
        if let Some((last, finished)) = self.deliveries.recv().await {
            self.last = last;
            return Ok(Some(finished));
        }
        match self.ended.take() {
            Some(ended) => ended.await.unwrap_or(Ok(())).map(|()| None),
            None => Ok(None),
        }
    }

    /// Leaves the outcomes in the tree; returns once everything was submitted and sealed, and the session closed.
    pub async fn leave(mut self) -> Result<(), ClientError> {
        self.deliveries.close();
        let ended = self.ended.take();
        drop(self);
        match ended {
            Some(ended) => ended.await.unwrap_or(Ok(())),
            None => Ok(()),
        }
    }
}
