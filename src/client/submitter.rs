//! The task behind an open job: it holds the session, submits, follows the job, collects, and closes.
//!
//! Where the session ends it begins a new one and *rejoins*: it sets the job's record anew at the version read, so that a
//! late submit of the old session is refused, then submits again only what is absent and was never acknowledged.

use std::collections::{BTreeMap, HashMap};

use coordination::{Change, CommitError, Failure, Mirror, Node, Refusal, Scope, Session, SessionConfig};
use futures::stream::StreamExt;
use tokio::sync::{mpsc, oneshot};
use tracing::{info, warn};
use tree::{JobId, JobRecord, TaskId, TaskState, task_number, transitions};
use znode::paths;

use super::admission::Door;
use super::ending::Ending;
use super::requests::Requests;
use super::{ClientError, Finished, Limit, RECONNECT, close, show};

/// How many payloads may wait to be acknowledged before `submit` itself waits.
pub(super) const UNACKNOWLEDGED_MAX: usize = 4096;

/// What the handle asks for.
#[derive(Debug)]
pub(super) enum Command {
    Submit(Submission),
    Seal { reply: Reply<()> },
}

/// A task to be submitted.
#[derive(Debug)]
pub(super) struct Submission {
    pub(super) payload: Vec<u8>,
    pub(super) reply: Reply<TaskId>,
}

/// Where the answer to a command goes.
pub(super) type Reply<T> = oneshot::Sender<Result<T, ClientError>>;

/// The other ends of a job's handles.
pub(super) struct Ends {
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) finished: mpsc::UnboundedSender<(TaskId, Finished)>,
    pub(super) deliveries: mpsc::UnboundedReceiver<TaskId>,
}

/// The state of an open job.
pub(super) struct Submitter {
    config: SessionConfig,
    id: JobId,
    /// The znode by which this session attends the job.
    client: String,
    /// The record as it was last read or written.
    record: JobRecord,
    door: Door<Submission>,
    /// `None` once no more commands can come.
    commands: Option<mpsc::Receiver<Command>>,
    finished: mpsc::UnboundedSender<(TaskId, Finished)>,
    deliveries: mpsc::UnboundedReceiver<TaskId>,
    tasks: BTreeMap<u32, Submitted>,
    acknowledged: u32,
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
    /// Sent or to be sent; not acknowledged. Whatever is seen of it meanwhile is kept until then: an outcome that is
    /// delivered and removed before the answer to its submission is known would let a second try make the task anew.
    Submitting {
        payload: Vec<u8>,
        reply: Option<Reply<TaskId>>,
        seen: Seen,
    },
    Outstanding,
    /// Its znode is gone, or was not in a snapshot: the outcome is being read. `gone_since`: the znode was seen to go after
    /// the read was asked for, so that a task found there is out of date.
    Fetching {
        gone_since: bool,
    },
    /// Its end was delivered; the version of what is left of it in the tree.
    Delivered(Option<i32>),
    /// What is left of it, at this version, is being removed.
    Collecting(i32),
    /// Delivered as dead: it stays, and may be retried by somebody.
    Dead,
}

/// What was seen of a task last, before its submission was acknowledged.
enum Seen {
    Nothing,
    /// Its znode was set to this.
    Set(Node),
    /// Its znode was not there, or not any more.
    Absent,
}

/// Why a session is given up.
enum End {
    SessionOver,
    /// The record is at another version than the one that guards our submissions, or a read was not answered: join again
    /// on this session.
    Rejoin,
    Failed(ClientError),
}

impl From<Failure> for End {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::SessionOver(_) => End::SessionOver,
            // Joining again begins by settling what is not known.
            Failure::Unknown(_) => End::Rejoin,
            Failure::Refused(_) => End::Failed(failure.into()),
        }
    }
}

impl Submitter {
    /// A job just opened: nothing submitted, its record at version 0.
    pub(super) fn new(
        config: SessionConfig,
        id: JobId,
        client: String,
        record: JobRecord,
        limit: Limit,
        ends: Ends,
    ) -> Self {
        Submitter {
            config,
            id,
            client,
            record,
            door: Door::new(limit),
            commands: Some(ends.commands),
            finished: ends.finished,
            deliveries: ends.deliveries,
            tasks: BTreeMap::new(),
            acknowledged: 0,
            unacknowledged: 0,
            next: 0,
            seal: Seal::Open,
        }
    }

    /// Serves the job until it is closed or nobody wants its outcomes, on one session after another.
    pub(super) async fn run(mut self, mut session: Session) -> Result<(), ClientError> {
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
                    self.client = self.id.client_path(&paths::uid(&mut rand::rng()));
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
            self.record = self.parse(&node)?;
            show(session, &self.client).await?;
            if self.record.sealed {
                break None;
            }
            let set = transitions::rejoin(&self.id, node.data, node.version);
            match session.write(set).await {
                Ok(_) => break Some(node.version + 1),
                Err(Failure::Refused(Refusal::BadVersion)) => {}
                Err(Failure::Unknown(_)) => session.settle().await?,
                Err(failure) => return Err(failure.into()),
            }
        };
        let present = session.children(&self.id.data_path()).await?.unwrap_or_default();
        for n in present.iter().filter_map(|name| task_number(name).ok()) {
            self.acknowledge(n); // how far it is the mirror's snapshot will tell
        }
        if version.is_none() {
            self.sealed_by_somebody();
        }
        // What was being read when the session ended is looked at again.
        for task in self.tasks.values_mut() {
            if matches!(task, Submitted::Fetching { .. }) {
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

    /// Only what is in the tree can still be collected.
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
            let _ = reply.send(Err(ClientError::closed(&id, &self.record)));
        }
    }

    /// Serves the job on one session until it is closed, or until nobody wants its outcomes.
    async fn attend(&mut self, session: &Session, version: Option<i32>) -> Result<(), End> {
        let guard = transitions::submission_guard(&self.id, version);
        let scope = Scope { levels: 1, read_created: |_| false, read_changed: |_| true, remember_leaves: false };
        let mut mirror = Mirror::start(session.clone(), &self.id.path(), scope);
        let mut requests = Requests::on(session, guard);
        for (n, task) in &self.tasks {
            match task {
                Submitted::Submitting { payload, .. } => requests.submit(&self.id.task(*n), payload.clone()),
                Submitted::Collecting(version) => requests.collect(&self.id.task(*n), *version),
                Submitted::Delivered(_) | Submitted::Outstanding | Submitted::Fetching { .. } | Submitted::Dead => {}
            }
        }
        self.door.look_anew();
        loop {
            if matches!(self.seal, Seal::Wanted(_)) && self.unacknowledged == 0 {
                self.set_sealed(session, version).await?;
            }
            if matches!(self.seal, Seal::Sealed) {
                if self.finished.is_closed() {
                    return Ok(());
                }
                if self.tasks.values().all(|task| matches!(task, Submitted::Dead)) {
                    if self.tasks.is_empty() && !close(session, &self.id).await? {
                        info!(job = %self.id, "a later job waits for it, or something of others is left in it: leaving it open");
                    }
                    return Ok(());
                }
            }
            // Nobody but ourselves may collect from a job that is not sealed.
            let (finished, submitted) = (&self.finished, self.acknowledged as usize);
            let own = || if finished.is_closed() { submitted } else { 0 };
            let all_is_in_the_tree = self.unacknowledged == 0; // so that a look sees it
            tokio::select! {
                command = next_command(&mut self.commands), if self.takes_commands() => {
                    self.command(command, &mut requests);
                }
                (task, admitted) = self.door.opened(session, own), if all_is_in_the_tree => {
                    self.admit(task, admitted, &mut requests)?;
                }
                Some((n, submitted)) = requests.submitting.next() => self.submitted(n, submitted, &mut requests)?,
                changes = mirror.next() => match changes {
                    Some(changes) => for change in changes {
                        self.change(change, &mut requests)?;
                    },
                    None => return Err(End::SessionOver),
                },
                Some((n, ending)) = requests.fetching.next() => self.fetched(n, ending?, &mut requests),
                Some(task) = self.deliveries.recv() => self.collect(task.n, &mut requests),
                Some((n, collected)) = requests.collecting.next() => self.collected(n, collected)?,
                () = session.over() => return Err(End::SessionOver),
                () = self.finished.closed(), if matches!(self.seal, Seal::Sealed) => return Ok(()),
            }
        }
    }

    fn takes_commands(&self) -> bool {
        self.commands.is_some() && self.door.is_free() && self.unacknowledged < UNACKNOWLEDGED_MAX
    }

    fn command(&mut self, command: Option<Command>, requests: &mut Requests) {
        match command {
            Some(Command::Submit(submission)) => {
                if let Some(submission) = self.door.pass(submission) {
                    self.submit(submission, requests);
                }
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

    fn submit(&mut self, Submission { payload, reply }: Submission, requests: &mut Requests) {
        if !matches!(self.seal, Seal::Open) {
            let _ = reply.send(Err(ClientError::closed(&self.id, &self.record)));
            return;
        }
        let n = self.next;
        self.next += 1;
        requests.submit(&self.id.task(n), payload.clone());
        self.tasks.insert(n, Submitted::Submitting { payload, reply: Some(reply), seen: Seen::Nothing });
        self.unacknowledged += 1;
    }

    /// The tree was looked at: the task that waited is submitted, or refused.
    fn admit(
        &mut self,
        task: Submission,
        admitted: Result<(), ClientError>,
        requests: &mut Requests,
    ) -> Result<(), End> {
        match admitted {
            Ok(()) => self.submit(task, requests),
            Err(ClientError::Failed(failure)) => {
                self.door.keep(task);
                return Err(failure.into());
            }
            Err(error) => drop(task.reply.send(Err(error))),
        }
        Ok(())
    }

    fn submitted(&mut self, n: u32, submitted: Result<(), CommitError>, requests: &mut Requests) -> Result<(), End> {
        match submitted {
            Ok(()) => self.acknowledged_as_seen(n, requests),
            // There already: our own create. Nobody else submits to this job.
            Err(CommitError::Refused { refusal: Refusal::NodeExists, .. }) => {
                self.acknowledged_as_seen(n, requests);
                self.fetch(n, requests);
            }
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

    fn acknowledged_as_seen(&mut self, n: u32, requests: &mut Requests) {
        match self.acknowledge(n) {
            Some(Seen::Set(node)) => self.changed(n, node),
            Some(Seen::Absent) => self.fetch(n, requests),
            Some(Seen::Nothing) | None => {}
        }
    }

    /// The task is in the tree, or was; what was seen of it before that was known.
    fn acknowledge(&mut self, n: u32) -> Option<Seen> {
        let task = self.tasks.get_mut(&n).filter(|task| matches!(task, Submitted::Submitting { .. }))?;
        let Submitted::Submitting { reply, seen, .. } = std::mem::replace(task, Submitted::Outstanding) else {
            return None;
        };
        self.acknowledged += 1;
        self.unacknowledged -= 1;
        if let Some(reply) = reply {
            let _ = reply.send(Ok(self.id.task(n)));
        }
        Some(seen)
    }

    fn change(&mut self, change: Change, requests: &mut Requests) -> Result<(), End> {
        match change {
            Change::Snapshot { nodes, .. } => {
                let named = nodes.into_iter().filter_map(|(name, node)| Some((task_number(&name).ok()?, node?)));
                let mut present: HashMap<u32, Node> = named.collect();
                for n in self.tasks.keys().copied().collect::<Vec<_>>() {
                    match present.remove(&n) {
                        // Absent, or submitted since the snapshot was read: the payload's version tells.
                        None => self.fetch(n, requests),
                        Some(node) => self.changed(n, node),
                    }
                }
            }
            Change::Created(..) | Change::Changed(_, None) => {}
            Change::Changed(name, Some(node)) => {
                if let Ok(n) = task_number(&name) {
                    self.changed(n, node);
                }
            }
            Change::Deleted(name) => {
                if let Ok(n) = task_number(&name) {
                    self.fetch(n, requests);
                }
            }
            Change::RootGone => return Err(End::Failed(ClientError::NotFound(self.id.clone()))),
        }
        Ok(())
    }

    /// The task's znode is there, and holds this.
    fn changed(&mut self, n: u32, node: Node) {
        if let Some(Submitted::Submitting { seen, .. }) = self.tasks.get_mut(&n) {
            *seen = Seen::Set(node);
            return;
        }
        let Ok(state) = TaskState::from_json(&node.data) else { return };
        match (self.tasks.get(&n), state.dead) {
            (Some(Submitted::Outstanding | Submitted::Fetching { .. }), true) => {
                self.tasks.insert(n, Submitted::Dead);
                let _ = self.finished.send((self.id.task(n), Finished::dead(&self.id.task(n), &state)));
            }
            (Some(Submitted::Dead), false) => drop(self.tasks.insert(n, Submitted::Outstanding)), // retried
            _ => {}
        }
    }

    /// The task's znode is not there: its outcome is read, once the task is known to have been there.
    fn fetch(&mut self, n: u32, requests: &mut Requests) {
        match self.tasks.get_mut(&n) {
            Some(task @ Submitted::Outstanding) => {
                *task = Submitted::Fetching { gone_since: false };
                requests.fetch(self.id.task(n));
            }
            Some(Submitted::Fetching { gone_since }) => *gone_since = true,
            // Dead, and ended all the same: cancelled.
            Some(task @ Submitted::Dead) => {
                *task = Submitted::Fetching { gone_since: true };
                requests.fetch(self.id.task(n));
            }
            Some(Submitted::Submitting { seen, .. }) => *seen = Seen::Absent,
            Some(Submitted::Delivered(_) | Submitted::Collecting(_)) | None => {}
        }
    }

    /// It ended so, or has not ended after all.
    fn fetched(&mut self, n: u32, ending: Option<Ending>, requests: &mut Requests) {
        let Some(Submitted::Fetching { gone_since }) = self.tasks.get(&n) else { return }; // dead, and delivered
        match (ending, *gone_since) {
            (Some(ending), _) => self.deliver(n, ending),
            (None, gone_since) => {
                self.tasks.insert(n, Submitted::Outstanding);
                if gone_since {
                    self.fetch(n, requests);
                }
            }
        }
    }

    fn deliver(&mut self, n: u32, Ending { finished, remains }: Ending) {
        self.tasks.insert(n, Submitted::Delivered(remains));
        let _ = self.finished.send((self.id.task(n), finished));
    }

    fn collect(&mut self, n: u32, requests: &mut Requests) {
        match self.tasks.get_mut(&n) {
            Some(Submitted::Delivered(None)) => drop(self.tasks.remove(&n)),
            Some(Submitted::Delivered(Some(version))) => {
                let version = *version;
                self.tasks.insert(n, Submitted::Collecting(version));
                requests.collect(&self.id.task(n), version);
            }
            _ => {} // dead, and kept
        }
    }

    fn collected(&mut self, n: u32, collected: Result<(), CommitError>) -> Result<(), End> {
        match collected {
            Err(CommitError::SessionOver(_)) => return Err(End::SessionOver),
            Ok(()) | Err(CommitError::Refused { refusal: Refusal::NoNode, .. }) => {}
            Err(CommitError::Refused { refusal, .. } | CommitError::Guard(refusal)) => {
                warn!(task = %self.id.task(n), %refusal, "cannot remove the outcome");
            }
        }
        self.tasks.remove(&n);
        Ok(())
    }

    /// The row *seal*.
    async fn set_sealed(&mut self, session: &Session, version: Option<i32>) -> Result<(), End> {
        let set = transitions::seal(&self.id, &self.record, Some(self.acknowledged), version);
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
}

async fn next_command(commands: &mut Option<mpsc::Receiver<Command>>) -> Option<Command> {
    match commands {
        Some(commands) => commands.recv().await,
        None => std::future::pending().await,
    }
}
