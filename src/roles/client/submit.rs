//! A job of one's own: open, submit, seal, receive each outcome, collect, close.
//!
//! A task of its own holds the session and the job; [`Job`] and [`Results`] are the two ends of it. Where the session
//! ends it begins a new one and *rejoins*: it sets the job's record anew at the version read, so that a late submit of
//! the old session is refused, then submits again only what is absent and was never acknowledged.
//!
//! If the process dies, the job goes on without it, and anybody can collect it once it is sealed.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt};
use futures::stream::{FuturesUnordered, StreamExt};
use rand::Rng;
use tokio::sync::{mpsc, oneshot};
use tracing::{info, warn};

use super::{ClientError, Finished};
use crate::coordination::commit::CommitError;
use crate::coordination::session::MultiFailure;
use crate::coordination::{
    Change, Committer, Failure, Mirror, Node, Op, Reader, Refusal, Scope, Session, SessionConfig, paths,
};
use crate::records::tree::task_number;
use crate::records::{DATA_BYTES_MAX, JobId, JobRecord, Policy, TaskId, TaskState};

/// How long the first connection, and any later one, may take.
const CONNECT: Duration = Duration::from_secs(10);
const RECONNECT: Duration = Duration::from_secs(60);
/// How many payloads may wait to be acknowledged before `submit` itself waits.
const UNACKNOWLEDGED_MAX: usize = 4096;

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
}

impl JobSpec {
    /// A job of the given kind, named after it.
    pub fn new(kind: &str) -> Self {
        JobSpec { name: kind.to_owned(), kind: kind.to_owned(), args: Vec::new(), policy: Policy::default() }
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

#[derive(Debug)]
enum Command {
    Submit { payload: Vec<u8>, reply: Reply<TaskId> },
    Seal { reply: Reply<()> },
}

type Reply<T> = oneshot::Sender<Result<T, ClientError>>;

/// Opens a job: from here on it is in the tree.
///
/// Errors: no connection within 10 s, or refused.
pub async fn open(config: &SessionConfig, spec: JobSpec, rng: &mut impl Rng) -> Result<(Job, Results), ClientError> {
    let session = Session::connect(config, CONNECT).await?;
    let record = JobRecord::new(&spec.kind, spec.args, spec.policy);
    let id = match create(&session, &spec.name, &record, rng).await {
        Ok(id) => id,
        Err(failure) => {
            session.close().await;
            return Err(failure.into());
        }
    };
    let (commands, received) = mpsc::channel(UNACKNOWLEDGED_MAX);
    let (finished_in, finished) = mpsc::unbounded_channel();
    let (delivered, deliveries) = mpsc::unbounded_channel();
    let (ended_in, ended) = oneshot::channel();
    let submitter = Submitter {
        config: config.clone(),
        id: id.clone(),
        record,
        commands: Some(received),
        finished: finished_in,
        deliveries,
        tasks: BTreeMap::new(),
        unacknowledged: 0,
        next: 0,
        seal: Seal::Open,
    };
    tokio::spawn(async move {
        let _ = ended_in.send(submitter.run(session).await);
    });
    Ok((Job { id, commands }, Results { finished, delivered, last: None, ended: Some(ended) }))
}

/// The row *open*. An id whose create was not answered is used again only if it turns out to be there.
async fn create(session: &Session, name: &str, record: &JobRecord, rng: &mut impl Rng) -> Result<JobId, Failure> {
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
            Err(Failure::Refused(Refusal::NoNode)) => {
                return Err(Failure::Refused(Refusal::Other(
                    "there is no herd here: /tasks does not exist; start a master first".to_owned(),
                )));
            }
            Err(Failure::Unknown(_)) => {
                session.settle().await?;
                if session.get(&id.path()).await?.is_some() {
                    return Ok(id);
                }
            }
            Err(failure) => return Err(failure),
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
    /// Submissions are made in the order of the calls. Errors: the payload is over 512 KiB, the job was sealed or
    /// closed by somebody else, or no session could be had for a minute.
    pub async fn submit(&self, payload: Vec<u8>) -> Result<TaskId, ClientError> {
        if payload.len() > DATA_BYTES_MAX {
            return Err(ClientError::TooLarge(payload.len()));
        }
        let (reply, answer) = oneshot::channel();
        self.ask(Command::Submit { payload, reply }, answer).await
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

struct Submitter {
    config: SessionConfig,
    id: JobId,
    record: JobRecord,
    /// `None` once no more commands can come.
    commands: Option<mpsc::Receiver<Command>>,
    finished: mpsc::UnboundedSender<(TaskId, Finished)>,
    deliveries: mpsc::UnboundedReceiver<TaskId>,
    tasks: BTreeMap<u32, Submitted>,
    unacknowledged: usize,
    next: u32,
    seal: Seal,
}

enum Seal {
    Open,
    /// Asked for; done once every submission is acknowledged.
    Wanted(Option<Reply<()>>),
    Sealed,
}

enum Submitted {
    /// Sent or to be sent; not acknowledged.
    Submitting {
        payload: Vec<u8>,
        reply: Option<Reply<TaskId>>,
    },
    Outstanding,
    /// Its znode is gone: the outcome is being read.
    Fetching,
    Delivered(Remains),
    /// What remains is being removed.
    Collecting(Remains),
}

/// What is left in the tree of a task that was delivered.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Remains {
    Nothing,
    Outcome,
    DeadTask,
    DeadTaskWithoutPayload,
}

/// Calls under way on one session.
struct Calls {
    submit: Committer,
    clean: Committer,
    reader: Reader,
    submitting: FuturesUnordered<BoxFuture<'static, (u32, Result<(), CommitError>)>>,
    fetching: FuturesUnordered<BoxFuture<'static, (u32, Result<Option<Node>, Failure>)>>,
    collecting: FuturesUnordered<BoxFuture<'static, (u32, Remains, Result<(), CommitError>)>>,
}

/// Why a session is given up.
enum End {
    SessionOver,
    /// The record is at another version than the one that guards our submissions: join again on this session.
    Rejoin,
    Failed(ClientError),
}

impl From<Failure> for End {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::SessionOver(_) => End::SessionOver,
            Failure::Refused(_) | Failure::Unknown(_) => End::Failed(failure.into()),
        }
    }
}

impl Submitter {
    async fn run(mut self, mut session: Session) -> Result<(), ClientError> {
        let mut version = Some(0); // as created
        loop {
            let ended = match version {
                Some(_) => self.attend(&session, version).await,
                None => match self.rejoin(&session).await {
                    Ok(joined) => self.attend(&session, joined).await,
                    Err(end) => Err(end),
                },
            };
            version = None;
            match ended {
                Ok(()) => {
                    session.close().await;
                    return Ok(());
                }
                Err(End::Rejoin) => {}
                Err(End::SessionOver) => {
                    session.close().await;
                    warn!(job = %self.id, "the session is over: beginning another");
                    session = Session::connect(&self.config, RECONNECT).await?;
                }
                Err(End::Failed(error)) => {
                    session.close().await;
                    return Err(error);
                }
            }
        }
    }

    /// The row *rejoin*: `Some(version)` to go on submitting under, `None` where the job is sealed.
    async fn rejoin(&mut self, session: &Session) -> Result<Option<i32>, End> {
        session.settle().await?;
        let version = loop {
            let Some(node) = session.get(&self.id.path()).await? else {
                return Err(End::Failed(ClientError::NotFound(self.id.clone())));
            };
            let record = self.parse(&node)?;
            if record.sealed {
                self.sealed_by_somebody();
                break None;
            }
            let set = Op::Set { path: self.id.path(), data: node.data, version: Some(node.version) };
            match session.write(set).await {
                Ok(_) => break Some(node.version + 1),
                Err(Failure::Refused(Refusal::BadVersion)) => {}
                Err(Failure::Unknown(_)) => session.settle().await?,
                Err(failure) => return Err(failure.into()),
            }
        };
        let present = session.children(&self.id.data_path()).await?.unwrap_or_default();
        for n in present.iter().filter_map(|name| task_number(name).ok()) {
            self.acknowledge(n);
        }
        // What was being read when the session ended is looked at again.
        for task in self.tasks.values_mut() {
            if matches!(task, Submitted::Fetching) {
                *task = Submitted::Outstanding;
            }
        }
        info!(job = %self.id, unacknowledged = self.unacknowledged, sealed = version.is_none(), "rejoined");
        Ok(version)
    }

    fn parse(&self, node: &Node) -> Result<JobRecord, End> {
        let malformed = |error| End::Failed(ClientError::Malformed { path: self.id.path(), error });
        JobRecord::from_json(&node.data).map_err(malformed)
    }

    /// Only what was acknowledged can still be collected.
    fn sealed_by_somebody(&mut self) {
        if let Seal::Wanted(Some(reply)) = std::mem::replace(&mut self.seal, Seal::Sealed) {
            let _ = reply.send(Ok(()));
        }
        let (id, mut refused) = (self.id.clone(), Vec::new());
        self.tasks.retain(|_, task| match task {
            Submitted::Submitting { reply, .. } => {
                refused.extend(reply.take());
                false
            }
            _ => true,
        });
        self.unacknowledged = 0;
        for reply in refused {
            let _ = reply.send(Err(ClientError::Sealed(id.clone())));
        }
    }

    /// Serves the job on one session until it is closed, or until nobody wants its outcomes.
    async fn attend(&mut self, session: &Session, version: Option<i32>) -> Result<(), End> {
        let guard = Op::Check { path: self.id.path(), version };
        let scope = Scope { levels: 1, read_created: |_| false, read_changed: |_| true };
        let mut mirror = Mirror::start(session.clone(), &self.id.path(), scope);
        let mut calls = Calls {
            submit: Committer::start(session.clone(), Some(guard)),
            clean: Committer::start(session.clone(), None),
            reader: Reader::start(session.clone()),
            submitting: FuturesUnordered::new(),
            fetching: FuturesUnordered::new(),
            collecting: FuturesUnordered::new(),
        };
        for (n, task) in &self.tasks {
            match task {
                Submitted::Submitting { payload, .. } => calls.submit(&self.id.task(*n), payload.clone()),
                Submitted::Collecting(remains) => calls.clean(&self.id.task(*n), *remains),
                Submitted::Delivered(_) | Submitted::Outstanding | Submitted::Fetching => {}
            }
        }
        loop {
            if matches!(self.seal, Seal::Wanted(_)) && self.unacknowledged == 0 {
                self.set_sealed(session, version).await?;
            }
            if matches!(self.seal, Seal::Sealed) {
                if self.finished.is_closed() {
                    return Ok(());
                }
                if self.tasks.is_empty() {
                    return self.close(session).await;
                }
            }
            let room = self.unacknowledged < UNACKNOWLEDGED_MAX;
            tokio::select! {
                command = next_command(&mut self.commands), if self.commands.is_some() && room => {
                    self.command(command, &mut calls);
                }
                Some((n, submitted)) = calls.submitting.next() => self.submitted(n, submitted)?,
                changes = mirror.next() => match changes {
                    Some(changes) => for change in changes {
                        self.change(change, &mut calls)?;
                    },
                    None => return Err(End::SessionOver),
                },
                Some((n, node)) = calls.fetching.next() => self.fetched(n, node?),
                Some(task) = self.deliveries.recv() => self.collect(task.n, &mut calls),
                Some((n, remains, collected)) = calls.collecting.next() => {
                    self.collected(n, remains, collected, &mut calls)?;
                }
                () = session.over() => return Err(End::SessionOver),
                () = self.finished.closed(), if matches!(self.seal, Seal::Sealed) => return Ok(()),
            }
        }
    }

    fn command(&mut self, command: Option<Command>, calls: &mut Calls) {
        match command {
            Some(Command::Submit { reply, .. }) if !matches!(self.seal, Seal::Open) => {
                let _ = reply.send(Err(ClientError::Sealed(self.id.clone())));
            }
            Some(Command::Submit { payload, reply }) => {
                let n = self.next;
                self.next += 1;
                calls.submit(&self.id.task(n), payload.clone());
                self.tasks.insert(n, Submitted::Submitting { payload, reply: Some(reply) });
                self.unacknowledged += 1;
            }
            Some(Command::Seal { reply }) => match self.seal {
                Seal::Sealed => drop(reply.send(Ok(()))),
                Seal::Open | Seal::Wanted(_) => self.seal = Seal::Wanted(Some(reply)),
            },
            None => {
                self.commands = None;
                if matches!(self.seal, Seal::Open) {
                    self.seal = Seal::Wanted(None);
                }
            }
        }
    }

    fn submitted(&mut self, n: u32, submitted: Result<(), CommitError>) -> Result<(), End> {
        match submitted {
            // There already: our own create, whose answer was lost. Nobody else submits to this job.
            Ok(()) | Err(CommitError::Refused { refusal: Refusal::NodeExists, .. }) => self.acknowledge(n),
            Err(CommitError::Guard(_)) => return Err(End::Rejoin),
            Err(CommitError::SessionOver(_)) => return Err(End::SessionOver),
            Err(CommitError::Refused { refusal, .. }) => {
                if let Some(Submitted::Submitting { reply: Some(reply), .. }) = self.tasks.remove(&n) {
                    let _ = reply.send(Err(ClientError::Failed(Failure::Refused(refusal))));
                }
                self.unacknowledged -= 1;
            }
        }
        Ok(())
    }

    /// The task is in the tree, or was.
    fn acknowledge(&mut self, n: u32) {
        if let Some(task @ Submitted::Submitting { .. }) = self.tasks.get_mut(&n)
            && let Submitted::Submitting { reply, .. } = std::mem::replace(task, Submitted::Outstanding)
        {
            self.unacknowledged -= 1;
            if let Some(reply) = reply {
                let _ = reply.send(Ok(self.id.task(n)));
            }
        }
    }

    fn change(&mut self, change: Change, calls: &mut Calls) -> Result<(), End> {
        match change {
            Change::Snapshot { nodes, .. } => {
                let named = nodes.into_iter().filter_map(|(name, node)| Some((task_number(&name).ok()?, node)));
                let present: HashMap<u32, Node> = named.collect();
                let outstanding = |(n, task): (&u32, &Submitted)| matches!(task, Submitted::Outstanding).then_some(*n);
                let outstanding: Vec<u32> = self.tasks.iter().filter_map(outstanding).collect();
                for n in outstanding {
                    match present.get(&n) {
                        // Absent, or submitted since the snapshot was read: the payload's version tells.
                        None => self.fetch(n, calls),
                        Some(node) => self.changed(n, node),
                    }
                }
            }
            Change::Created(..) | Change::Changed(_, None) => {}
            Change::Changed(name, Some(node)) => {
                if let Ok(n) = task_number(&name) {
                    self.acknowledge(n);
                    self.changed(n, &node);
                }
            }
            Change::Deleted(name) => {
                if let Ok(n) = task_number(&name) {
                    self.acknowledge(n);
                    self.fetch(n, calls);
                }
            }
            Change::RootGone => return Err(End::Failed(ClientError::NotFound(self.id.clone()))),
        }
        Ok(())
    }

    fn changed(&mut self, n: u32, node: &Node) {
        if let Ok(state) = TaskState::from_json(&node.data)
            && state.dead
            && matches!(self.tasks.get(&n), Some(Submitted::Outstanding))
        {
            self.deliver(n, Finished::dead(&self.id.task(n), state), Remains::DeadTask);
        }
    }

    fn fetch(&mut self, n: u32, calls: &mut Calls) {
        if let Some(task @ Submitted::Outstanding) = self.tasks.get_mut(&n) {
            *task = Submitted::Fetching;
            let read = calls.reader.read(self.id.task(n).data_path());
            calls.fetching.push(async move { (n, read.await) }.boxed());
        }
    }

    fn fetched(&mut self, n: u32, node: Option<Node>) {
        let task = self.id.task(n);
        match node {
            None => self.deliver(n, Finished::gone(&task), Remains::Nothing),
            Some(node) if node.version == 0 => drop(self.tasks.insert(n, Submitted::Outstanding)),
            Some(node) => self.deliver(n, Finished::with_outcome(&task, &node.data), Remains::Outcome),
        }
    }

    fn deliver(&mut self, n: u32, finished: Finished, remains: Remains) {
        self.tasks.insert(n, Submitted::Delivered(remains));
        let _ = self.finished.send((self.id.task(n), finished));
    }

    fn collect(&mut self, n: u32, calls: &mut Calls) {
        let Some(Submitted::Delivered(remains)) = self.tasks.get(&n) else { return };
        let remains = *remains;
        if remains == Remains::Nothing {
            self.tasks.remove(&n);
        } else {
            calls.clean(&self.id.task(n), remains);
            self.tasks.insert(n, Submitted::Collecting(remains));
        }
    }

    fn collected(
        &mut self,
        n: u32,
        remains: Remains,
        collected: Result<(), CommitError>,
        calls: &mut Calls,
    ) -> Result<(), End> {
        match collected {
            Err(CommitError::SessionOver(_)) => return Err(End::SessionOver),
            Err(CommitError::Refused { at: 1, refusal: Refusal::NoNode, .. }) if remains == Remains::DeadTask => {
                calls.clean(&self.id.task(n), Remains::DeadTaskWithoutPayload);
            }
            Ok(()) | Err(CommitError::Refused { refusal: Refusal::NoNode, .. }) => drop(self.tasks.remove(&n)),
            Err(CommitError::Refused { refusal, .. } | CommitError::Guard(refusal)) => {
                warn!(task = %self.id.task(n), %refusal, "cannot remove the outcome");
                self.tasks.remove(&n);
            }
        }
        Ok(())
    }

    /// The row *seal*.
    async fn set_sealed(&mut self, session: &Session, version: Option<i32>) -> Result<(), End> {
        let record = JobRecord { sealed: true, ..self.record.clone() };
        let set = Op::Set { path: self.id.path(), data: record.to_json(), version };
        match session.write(set).await {
            Ok(_) => {
                if let Seal::Wanted(Some(reply)) = std::mem::replace(&mut self.seal, Seal::Sealed) {
                    let _ = reply.send(Ok(()));
                }
                Ok(())
            }
            // Sealed by this very call, or by somebody else: the record tells.
            Err(Failure::Unknown(_) | Failure::Refused(Refusal::BadVersion | Refusal::NoNode)) => Err(End::Rejoin),
            Err(failure) => Err(failure.into()),
        }
    }

    /// The row *close*.
    async fn close(&mut self, session: &Session) -> Result<(), End> {
        loop {
            let delete = |path| Op::Delete { path, version: None };
            match session.multi(&[delete(self.id.data_path()), delete(self.id.path())]).await {
                Ok(_) | Err(MultiFailure { failure: Failure::Refused(Refusal::NoNode), .. }) => return Ok(()),
                Err(MultiFailure { failure: Failure::Refused(Refusal::NotEmpty), .. }) => {
                    warn!(job = %self.id, "something that this client did not submit is left in the job: leaving it open");
                    return Ok(());
                }
                Err(MultiFailure { failure: Failure::Unknown(_), .. }) => session.settle().await?,
                Err(error) => return Err(error.failure.into()),
            }
        }
    }
}

impl Calls {
    /// The row *submit*.
    fn submit(&mut self, task: &TaskId, payload: Vec<u8>) {
        let commit = self.submit.commit(vec![
            Op::Create { path: task.data_path(), data: payload },
            Op::Create { path: task.path(), data: Vec::new() },
        ]);
        let n = task.n;
        self.submitting.push(async move { (n, commit.await) }.boxed());
    }

    /// The rows *collect* and, for what is left of a dead task, *cancel*.
    fn clean(&mut self, task: &TaskId, remains: Remains) {
        let delete = |path, version| Op::Delete { path, version };
        let ops = match remains {
            Remains::Nothing => Vec::new(),
            Remains::Outcome => vec![delete(task.data_path(), Some(1))],
            Remains::DeadTask => vec![delete(task.path(), None), delete(task.data_path(), None)],
            Remains::DeadTaskWithoutPayload => vec![delete(task.path(), None)],
        };
        let (n, commit) = (task.n, self.clean.commit(ops));
        self.collecting.push(async move { (n, remains, commit.await) }.boxed());
    }
}

async fn next_command(commands: &mut Option<mpsc::Receiver<Command>>) -> Option<Command> {
    match commands {
        Some(commands) => commands.recv().await,
        None => std::future::pending().await,
    }
}
