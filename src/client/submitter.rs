//! The task behind an open job: it holds the session and the user's channels, and serves the job from its opening to its
//! close.
//!
//! What is to be done next is decided by [`Submission`]; this file turns what happens into its events, and carries out its
//! operations. Where the session ends another one is begun, and *rejoins*.

use std::collections::{HashMap, VecDeque};
use std::ops::ControlFlow;

use coordination::{Change, Failure, Mirror, Node, Refusal, Scope, Session, SessionConfig};
use tokio::sync::{mpsc, oneshot};
use tracing::{info, warn};
use tree::{JobId, JobRecord, TaskId, TaskState, task_number, transitions};
use znode::paths;

use super::admission::Door;
use super::requests::{Requests, Stop};
use super::{ClientError, Finished, Limit, RECONNECT, attend};
use crate::decide::submission::{Event, Operation, Refused, Seen, Submission};
use crate::steps;

/// How many payloads may wait to be acknowledged before `submit` itself waits.
pub(super) const UNACKNOWLEDGED_MAX: usize = 4096;

/// What the user's handle asks for.
#[derive(Debug)]
pub(super) enum Command {
    Submit(NewTask),
    Seal { reply: Reply<()> },
}

/// A task to be submitted.
#[derive(Debug)]
pub(super) struct NewTask {
    pub(super) payload: Vec<u8>,
    pub(super) reply: Reply<TaskId>,
}

/// Where the answer to a command goes.
pub(super) type Reply<T> = oneshot::Sender<Result<T, ClientError>>;

/// How a task ended; and the task, where the user is to say when it was dealt with.
pub(super) type Delivery = (Option<TaskId>, Finished);

/// The other ends of a job's handles.
pub(super) struct Ends {
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) deliveries: mpsc::UnboundedSender<Delivery>,
    /// The tasks whose delivery was dealt with.
    pub(super) taken: mpsc::UnboundedReceiver<TaskId>,
}

/// An open job, served.
pub(super) struct Submitter {
    config: SessionConfig,
    id: JobId,
    /// The znode by which this session attends the job.
    client: String,
    /// The record as it was last read or written.
    record: JobRecord,
    /// Its version, which guards our submissions; `None` where it is sealed.
    version: Option<i32>,
    submission: Submission<Finished>,
    /// What is to be done, and was not carried out yet.
    todo: VecDeque<Operation<Finished>>,
    door: Door<NewTask>,
    /// `None` once no more commands can come.
    commands: Option<mpsc::Receiver<Command>>,
    deliveries: mpsc::UnboundedSender<Delivery>,
    taken: mpsc::UnboundedReceiver<TaskId>,
    /// Who waits for a task to be acknowledged, by the task's number.
    submitting: HashMap<u32, Reply<TaskId>>,
    /// Who waits for the job to be sealed.
    sealing: Vec<Reply<()>>,
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
            version: Some(0),
            submission: Submission::new(),
            todo: VecDeque::new(),
            door: Door::new(limit),
            commands: Some(ends.commands),
            deliveries: ends.deliveries,
            taken: ends.taken,
            submitting: HashMap::new(),
            sealing: Vec::new(),
        }
    }

    /// Serves the job until it is closed or nobody wants its outcomes, on one session after another.
    pub(super) async fn run(mut self, mut session: Session) -> Result<(), ClientError> {
        let mut served = self.serve(&session).await;
        loop {
            match served {
                Ok(()) => {
                    session.close().await;
                    return Ok(());
                }
                Err(Stop::Rejoin) => {}
                Err(Stop::SessionOver) => {
                    session.close().await;
                    warn!(job = %self.id, "the session is over: beginning another");
                    session = Session::connect(&self.config, RECONNECT).await?;
                    self.client = self.id.client_path(&paths::uid(&mut rand::rng()));
                }
                Err(Stop::Failed(error)) => {
                    session.close().await;
                    return Err(error);
                }
            }
            served = match self.rejoin(&session).await {
                Ok(()) => self.serve(&session).await,
                Err(stop) => Err(stop),
            };
        }
    }

    fn step(&mut self, event: Event<Finished>) {
        self.todo.extend(self.submission.step(event));
    }

    /// The row *rejoin*.
    async fn rejoin(&mut self, session: &Session) -> Result<(), Stop> {
        session.settle().await?;
        self.version = loop {
            let Some(node) = session.get(&self.id.path()).await? else {
                self.step(Event::JobGone);
                return Ok(());
            };
            self.record = self.parse(&node)?;
            attend(session, &self.client).await?;
            if self.record.sealed {
                break None;
            }
            match session.write(transitions::rejoin(&self.id, node.data, node.version)).await {
                Ok(_) => break Some(node.version + 1),
                Err(Failure::Refused(Refusal::BadVersion)) => {}
                Err(Failure::Unknown(_)) => session.settle().await?,
                Err(failure) => return Err(failure.into()),
            }
        };
        let names = session.children(&self.id.data_path()).await?.unwrap_or_default();
        let stored = names.iter().filter_map(|name| task_number(name).ok()).collect();
        let sealed = self.version.is_none();
        self.step(Event::Rejoined { sealed, stored });
        info!(job = %self.id, unacknowledged = self.submission.unacknowledged(), sealed, "rejoined");
        Ok(())
    }

    fn parse(&self, node: &Node) -> Result<JobRecord, Stop> {
        let malformed = |error| Stop::Failed(ClientError::Malformed { path: self.id.path(), error });
        JobRecord::from_json(&node.data).map_err(malformed)
    }

    /// Serves the job on one session until it is closed, or until nobody wants its outcomes.
    async fn serve(&mut self, session: &Session) -> Result<(), Stop> {
        let scope = Scope { levels: 1, read_created: |_| false, read_changed: |_| true, remember_leaves: false };
        let mut mirror = Mirror::start(session.clone(), &self.id.path(), scope);
        let mut requests = Requests::on(session, &self.id, self.version);
        self.door.look_anew();
        loop {
            while let Some(operation) = self.todo.pop_front() {
                if self.carry_out(operation, session, &mut requests).await?.is_break() {
                    return Ok(());
                }
            }
            // Nobody but ourselves may collect from a job that is not sealed.
            let (deliveries, acknowledged) = (&self.deliveries, self.submission.acknowledged() as usize);
            let own = || if deliveries.is_closed() { acknowledged } else { 0 };
            let all_is_in_the_tree = self.submission.unacknowledged() == 0; // so that a look sees it
            tokio::select! {
                command = next_command(&mut self.commands), if self.takes_commands() => self.command(command),
                (task, admitted) = self.door.opened(session, own), if all_is_in_the_tree => self.admit(task, admitted)?,
                Some(event) = requests.next() => self.step(event?),
                changes = mirror.next() => match changes {
                    Some(changes) => changes.into_iter().for_each(|change| self.changed(change)),
                    None => return Err(Stop::SessionOver),
                },
                Some(task) = self.taken.recv() => self.step(Event::Taken(task.n)),
                () = session.over() => return Err(Stop::SessionOver),
                () = self.deliveries.closed(), if !self.submission.has_user_left() => {}
            }
            if self.deliveries.is_closed() && !self.submission.has_user_left() {
                self.step(Event::Left);
            }
        }
    }

    fn changed(&mut self, change: Change) {
        if let Some(event) = event(&self.id, change) {
            self.step(event);
        }
    }

    fn takes_commands(&self) -> bool {
        self.commands.is_some() && self.door.is_free() && self.submission.unacknowledged() < UNACKNOWLEDGED_MAX
    }

    fn command(&mut self, command: Option<Command>) {
        match command {
            Some(Command::Submit(task)) => {
                if let Some(task) = self.door.pass(task) {
                    self.submit(task);
                }
            }
            Some(Command::Seal { reply }) => {
                self.sealing.push(reply);
                self.step(Event::Seal);
            }
            None => {
                self.commands = None;
                self.step(Event::Seal);
            }
        }
    }

    fn submit(&mut self, NewTask { payload, reply }: NewTask) {
        self.submitting.insert(self.submission.next(), reply);
        self.step(Event::Submit(payload));
    }

    /// The tree was looked at: the task that waited is submitted, or refused.
    fn admit(&mut self, task: NewTask, admitted: Result<(), ClientError>) -> Result<(), Stop> {
        match admitted {
            Ok(()) => self.submit(task),
            Err(ClientError::Failed(failure)) => {
                self.door.keep(task);
                return Err(failure.into());
            }
            Err(error) => drop(task.reply.send(Err(error))),
        }
        Ok(())
    }

    /// Whoever is told something may have gone; that is no concern of ours.
    async fn carry_out(
        &mut self,
        operation: Operation<Finished>,
        session: &Session,
        requests: &mut Requests,
    ) -> Result<ControlFlow<()>, Stop> {
        match operation {
            Operation::Submit(n, payload) => requests.submit(&self.id.task(n), payload),
            Operation::Fetch(n) => requests.fetch(self.id.task(n)),
            Operation::Collect(n, version) => requests.collect(self.id.task(n), version),
            Operation::Seal(tasks) => {
                requests.seal(transitions::seal(&self.id, &self.record, Some(tasks), self.version));
            }
            Operation::Rejoin => return Err(Stop::Rejoin),
            Operation::NoJob => return Err(Stop::Failed(ClientError::NotFound(self.id.clone()))),
            Operation::Close => {
                if !steps::close(session, &self.id).await? {
                    info!(job = %self.id, "a later job waits for it, or something of others is left in it: leaving it open");
                }
                return Ok(ControlFlow::Break(()));
            }
            Operation::End => return Ok(ControlFlow::Break(())),
            Operation::Acknowledge(n) => self.answer(n, Ok(self.id.task(n))),
            Operation::Refuse(n, Refused::Sealed) => self.answer(n, Err(ClientError::closed(&self.id, &self.record))),
            Operation::Refuse(n, Refused::By(refusal)) => self.answer(n, Err(Failure::Refused(refusal).into())),
            Operation::Deliver(n, finished) => drop(self.deliveries.send((Some(self.id.task(n)), finished))),
            Operation::TellDead(_, finished) => drop(self.deliveries.send((None, finished))),
            Operation::Sealed => self.sealing.drain(..).for_each(|reply| drop(reply.send(Ok(())))),
        }
        Ok(ControlFlow::Continue(()))
    }

    fn answer(&mut self, n: u32, answer: Result<TaskId, ClientError>) {
        if let Some(reply) = self.submitting.remove(&n) {
            let _ = reply.send(answer);
        }
    }
}

/// What a change below the job means for its tasks.
fn event(job: &JobId, change: Change) -> Option<Event<Finished>> {
    let seen = |n: u32, node: &Node| match TaskState::from_json(&node.data) {
        Ok(state) if state.dead => Seen::Dead(Finished::dead(&job.task(n), &state)),
        Ok(_) | Err(_) => Seen::Alive,
    };
    match change {
        Change::Snapshot { nodes, .. } => {
            let named = nodes.iter().filter_map(|(name, node)| Some((task_number(name).ok()?, node.as_ref()?)));
            Some(Event::Snapshot(named.map(|(n, node)| (n, seen(n, node))).collect()))
        }
        Change::Changed(name, Some(node)) => {
            let n = task_number(&name).ok()?;
            Some(Event::Seen(n, seen(n, &node)))
        }
        Change::Deleted(name) => Some(Event::Gone(task_number(&name).ok()?)),
        Change::RootGone => Some(Event::JobGone),
        Change::Created(..) | Change::Changed(_, None) => None,
    }
}

async fn next_command(commands: &mut Option<mpsc::Receiver<Command>>) -> Option<Command> {
    match commands {
        Some(commands) => commands.recv().await,
        None => std::future::pending().await,
    }
}
