//! The worker: takes what the leader assigns, runs it, and commits each outcome.
//!
//! | file | what it holds |
//! |---|---|
//! | here | a worker on one session, and the loop around all that may happen to it |
//! | `list` | the list that the leader writes, and how far each of its entries is |
//! | `fetch`, `at_hand` | reading what a task needs, and keeping what the next one needs too |
//! | `slots` | which tasks begin, and what is stopped before it has ended |
//! | `threads`, `attempt` | where handlers run, and one attempt there |
//! | `progress` | what is seen of a task while it runs |
//! | `ending` | how an attempt is ended in the tree |
//! | `shortage` | what it does while it lacks what it takes to begin tasks |
//!
//! It registers an ephemeral znode, whose list the leader writes, and follows that list. For each new entry it reads
//! the payload, runs the kind's handler in a slot, and commits: the task's znode deleted at the version assigned and
//! the outcome set, in one multi that checks the worker's own znode. Whatever came too late is refused there.
//!
//! What can go wrong, and what then happens:
//! - It dies: its znode goes with all assignments; the leader gives them to others.
//! - A handler blocks or panics: it has threads of its own, apart from the session's.
//! - It is cut off or pauses: when the lease ends it starts nothing, and by 0.75 T its tasks are stopped, before
//!   anybody else can have been given them. If the session lives after all, they are started again.
//! - A commit is not answered: what became of it is read, on the same session ([`Committer`]).
//! - It lacks what it takes to begin a task: `shortage` says what it does then.
//! - Its own znode is gone: the session is given up and everything begins anew.

mod at_hand;
mod attempt;
mod ending;
mod fetch;
mod list;
mod progress;
mod shortage;
mod slots;
mod threads;

use std::collections::{HashMap, HashSet, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use coordination::{CommitError, Committer, Failure, Node, Reader, Registration, Session, State, watch::NodeWatch};
use futures::future::BoxFuture;
use futures::stream::{FuturesOrdered, FuturesUnordered, Stream, StreamExt};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{MissedTickBehavior, interval, sleep, sleep_until, timeout_at};
use tracing::{debug, info, warn};
use tree::{Assignment, JobId, WORKERS, WorkerRecord};
use znode::paths;

use self::attempt::Ended;
use self::fetch::{FetchError, Fetched, Fetcher};
use self::list::{Entry, Stage};
use self::progress::SHOW_EVERY;
use self::shortage::Shortage;
use self::threads::{Threads, WAKE_EVERY};
use crate::handlers::Handlers;
use crate::run::Role;
use crate::shutdown::Shutdown;

/// How long a task that was cancelled may take to end by itself.
const CANCEL_GRACE: Duration = Duration::from_secs(2);
/// The most answers that are looked at before anything else is.
const READY_MAX: usize = 1_000;
/// How long a stopping worker waits for the answers to what it handed back.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// A worker's settings. Fields may be added: `Worker { slots: 8, ..Worker::new(name, handlers) }`.
#[derive(Debug, Clone)]
pub struct Worker {
    /// Shown to people; names need not be unique.
    pub name: String,
    /// How many tasks it runs at once, at least 1.
    pub slots: u32,
    /// What else it says of itself: jobs may require tags.
    pub tags: Vec<String>,
    /// What it runs.
    pub handlers: Handlers,
    /// How long running tasks may go on after the shutdown was asked for.
    pub grace: Duration,
}

impl Worker {
    /// Four slots, no tags, and 30 s for what runs when the shutdown is asked for.
    pub fn new(name: &str, handlers: Handlers) -> Self {
        Worker { name: name.to_owned(), slots: 4, tags: Vec::new(), handlers, grace: Duration::from_secs(30) }
    }
}

impl Role for Worker {
    fn title(&self) -> String {
        format!("worker {}", self.name)
    }

    async fn play(&mut self, session: &Session, shutdown: &Shutdown) -> Result<(), Failure> {
        let record = WorkerRecord { tags: self.tags.clone(), ..WorkerRecord::new(self.slots, self.handlers.kinds()) };
        let uid = paths::uid(&mut rand::rng());
        let registration = Registration::enter(session, WORKERS, &self.name, &uid, &record.to_json()).await?;
        info!(znode = registration.path(), slots = self.slots, kinds = ?self.handlers.kinds(), "registered");
        session.learn_time().await?;
        let mut shift = Shift {
            id: paths::name(registration.path()).to_owned(),
            worker: self.clone(),
            session: session.clone(),
            committer: Committer::start(session.clone(), Some(registration.guard())),
            fetcher: Fetcher::new(Reader::start(session.clone())),
            list: Vec::new(),
            version: None,
            entries: HashMap::new(),
            queue: VecDeque::new(),
            loading: FuturesOrdered::new(),
            running: JoinSet::new(),
            told_to_stop: Vec::new(),
            committing: FuturesUnordered::new(),
            stopping: None,
            paused: false,
            shortage: Shortage::default(),
            refused: HashSet::new(),
            threads: Threads::new(self.slots),
        };
        let ended = shift.work(&registration, shutdown).await;
        shift.threads.stop().await;
        ended
    }
}

/// A call under way for an assignment, and its answer.
type Call<Answer> = BoxFuture<'static, (Assignment, Answer)>;

/// A worker on one session.
struct Shift {
    id: String,
    worker: Worker,
    session: Session,
    committer: Committer,
    fetcher: Fetcher,
    /// The list as last read.
    list: Vec<Assignment>,
    /// The version at which it was read; none where it is known to have been written since.
    version: Option<i32>,
    /// What became of each entry of the list; kept until the leader drops the entry.
    entries: HashMap<Assignment, Entry>,
    /// The entries that wait for a slot, in their order.
    queue: VecDeque<Assignment>,
    loading: FuturesOrdered<Call<Result<Arc<Fetched>, FetchError>>>,
    /// What runs, and what was withdrawn and has not ended yet.
    running: JoinSet<Ended>,
    /// What was told to stop, and by when it must have. Until it has ended it keeps its slot: it may block a thread.
    told_to_stop: Vec<(Instant, AbortHandle)>,
    committing: FuturesUnordered<Call<Result<(), CommitError>>>,
    /// When running tasks must be over, once the shutdown was asked for.
    stopping: Option<Instant>,
    /// The lease has ended: nothing is started.
    paused: bool,
    shortage: Shortage,
    /// Jobs of which a write was refused that says how an attempt ended, and that were named for it.
    refused: HashSet<JobId>,
    /// Where handlers run.
    threads: Threads,
}

type ListRead = Pin<Box<dyn Future<Output = Result<(Option<Node>, NodeWatch), Failure>> + Send>>;

impl Shift {
    async fn work(&mut self, registration: &Registration, shutdown: &Shutdown) -> Result<(), Failure> {
        let mut next_list: ListRead = {
            let registration = registration.clone();
            Box::pin(async move { registration.read().await })
        };
        let session = self.session.clone();
        let mut status = session.status();
        let mut tick = interval(SHOW_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut wake = interval(WAKE_EVERY);
        wake.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.fill_slots();
            if let Some(last_words) = self.stopping.map(|at| at + LAST_WORDS)
                && self.has_handed_everything_back()
                && let Some(version) = self.version.take()
            {
                let left = timeout_at(last_words.into(), registration.leave(version)).await;
                match left.unwrap_or(Ok(true)) {
                    Ok(true) => return Ok(()),
                    Ok(false) => debug!("the list was written since: reading it before leaving"),
                    Err(failure) => return Err(failure),
                }
            }
            tokio::select! {
                read = &mut next_list => {
                    let (node, watch) = read?;
                    let Some(node) = node else { return Err(lost_registration()) };
                    self.list_is(&node);
                    let registration = registration.clone();
                    next_list = Box::pin(async move {
                        watch.fired().await;
                        registration.read().await
                    });
                }
                // Much comes at once: what has come is taken before anything is waited for again.
                Some(ready) = all_ready(&mut self.loading) => {
                    for (assignment, fetched) in ready {
                        self.fetched(assignment, fetched)?;
                    }
                }
                Some(first) = self.running.join_next_with_id() => {
                    let mut next = Some(first);
                    while let Some(joined) = next {
                        match joined {
                            Ok((run, ended)) => self.ended(run, ended),
                            Err(error) => self.broke(error),
                        }
                        next = self.running.try_join_next_with_id();
                    }
                }
                Some(ready) = all_ready(&mut self.committing) => {
                    for (assignment, committed) in ready {
                        self.committed(assignment, committed)?;
                    }
                }
                () = session.lease_ended(), if !self.paused => {
                    warn!("not sure of the session any more: starting nothing");
                    self.paused = true;
                }
                () = sleep_until(session.lease().stop_by().into()), if self.paused && self.runs_any() => {
                    self.stop_running();
                }
                () = sleep(session.timeout() / 50), if self.paused => if session.lease().holds(Instant::now()) {
                    info!("sure of the session again");
                    self.paused = false;
                    self.resume();
                },
                _ = tick.tick(), if !self.running.is_empty() => {
                    self.end_overdue();
                    self.show();
                }
                _ = wake.tick(), if !self.running.is_empty() => self.threads.wake_one(),
                _ = status.changed() => if status.borrow_and_update().state == State::Over {
                    return Err(Failure::SessionOver("expired or closed".to_owned()));
                },
                () = shutdown.requested(), if self.stopping.is_none() => {
                    info!(running = self.running.len(), grace = ?self.worker.grace, "finishing what runs, taking nothing new");
                    self.stopping = Some(Instant::now() + self.worker.grace);
                    self.hand_back_waiting();
                }
                () = until(self.stopping), if !self.running.is_empty() => self.end_running(),
                () = until(self.stopping.map(|at| at + LAST_WORDS)) => return Ok(()),
            }
        }
    }

    fn has_handed_everything_back(&self) -> bool {
        let at_work = !self.running.is_empty() || !self.loading.is_empty() || !self.committing.is_empty();
        let stopped = |entry: &Entry| matches!(entry.stage, Stage::Interrupted);
        !at_work && self.queue.is_empty() && !self.entries.values().any(stopped)
    }

    fn fetched(&mut self, assignment: Assignment, fetched: Result<Arc<Fetched>, FetchError>) -> Result<(), Failure> {
        if !matches!(self.entries.get(&assignment), Some(Entry { stage: Stage::Fetching, .. })) {
            return Ok(()); // withdrawn meanwhile
        }
        if let Ok(fetched) = &fetched {
            self.fetcher.jobs.weighs(&assignment.task.job, fetched.job_bytes);
        }
        match fetched {
            Ok(fetched) if self.stopping.is_some() || self.shortage.pause(Instant::now()).is_some() => {
                self.hand_back(assignment, &fetched, None);
            }
            Ok(fetched) => {
                self.stage(&assignment, Stage::Waiting(fetched));
                self.queue.push_back(assignment);
            }
            Err(FetchError::Over) => {
                self.fetcher.jobs.forget(&assignment.task.job);
                self.stage(&assignment, Stage::Over);
            }
            Err(FetchError::Malformed(error)) => self.mark_dead(assignment, &error),
            Err(FetchError::Failed(failure)) => return Err(failure),
        }
        Ok(())
    }
}

fn lost_registration() -> Failure {
    Failure::SessionOver("this worker's znode is gone".to_owned())
}

/// The next answer, and those that are there with it; `None` where none is under way. Safe to cancel.
async fn all_ready<S: Stream + Unpin>(answers: &mut S) -> Option<Vec<S::Item>> {
    answers.ready_chunks(READY_MAX).next().await
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}
