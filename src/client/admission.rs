//! Admission: the tree lives in every server's memory, so only so many tasks may be in it at a time.
//!
//! A submitter looks how many there are, outstanding or not yet collected, before its first task and again before every
//! ten thousandth. Each looks for itself, so that many that start at once may exceed the limit by ten thousand each.

use std::future::pending;
use std::time::Duration;

use coordination::{Failure, Session, read_all};
use futures::future::{BoxFuture, FutureExt};
use tokio::time::sleep;
use tracing::warn;
use tree::DATA;
use znode::paths;

use super::ClientError;

/// How many tasks may be submitted before the next look.
const SLICE: usize = 10_000;
/// How often a full tree is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// How much the tree may hold, and what becomes of a task beyond that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// How many tasks, of all jobs, outstanding or not yet collected; at least 1.
    pub tasks_max: usize,
    /// What `submit` does where there are as many.
    pub when_full: WhenFull,
}

/// What becomes of a task when the tree is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenFull {
    /// It waits for room.
    Wait,
    /// It is refused, with [`ClientError::Full`].
    Refuse,
}

impl Default for Limit {
    /// A million tasks; waits.
    fn default() -> Self {
        Limit { tasks_max: 1_000_000, when_full: WhenFull::Wait }
    }
}

/// Lets tasks through as long as there is room; keeps the first that finds none until there is.
pub(super) struct Door<T> {
    limit: Limit,
    /// How many may pass before the next look.
    left: usize,
    waiting: Option<T>,
    looking: Option<BoxFuture<'static, Result<usize, Failure>>>,
    /// Whether the last look found the tree full.
    full: bool,
}

impl<T> Door<T> {
    pub(super) fn new(limit: Limit) -> Self {
        Door { limit, left: 0, waiting: None, looking: None, full: false }
    }

    /// Whether another may come.
    pub(super) fn is_free(&self) -> bool {
        self.waiting.is_none()
    }

    /// Lets `task` through, or keeps it; then the tree is to be looked at.
    pub(super) fn pass(&mut self, task: T) -> Option<T> {
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                Some(task)
            }
            None => {
                self.keep(task);
                None
            }
        }
    }

    /// Keeps a task until the tree was looked at.
    pub(super) fn keep(&mut self, task: T) {
        self.waiting = Some(task);
    }

    /// The task that is kept, and whether it may pass; never, where none is kept. Safe to cancel.
    ///
    /// `own`: how many tasks the caller has in the tree itself and will not collect. Where they alone fill it, nobody can
    /// make room, and waiting would have no end.
    pub(super) async fn opened(&mut self, session: &Session, own: impl Fn() -> usize) -> (T, Result<(), ClientError>) {
        let Limit { tasks_max, when_full } = self.limit;
        if self.waiting.is_none() {
            return pending().await;
        }
        let admitted = loop {
            let pause = if self.full { LOOK_EVERY } else { Duration::ZERO };
            let look = self.looking.get_or_insert_with(|| look(session.clone(), pause).boxed());
            let looked = look.await;
            self.looking = None;
            match looked {
                Err(failure) => break Err(failure.into()),
                Ok(tasks) if tasks < tasks_max => {
                    self.left = (tasks_max - tasks).min(SLICE) - 1;
                    self.full = false;
                    break Ok(());
                }
                Ok(tasks) if when_full == WhenFull::Refuse || own() >= tasks_max => {
                    break Err(ClientError::Full { tasks, tasks_max });
                }
                Ok(tasks) if !self.full => {
                    warn!(tasks, tasks_max, "the tree is full: waiting for tasks to be done and collected");
                    self.full = true;
                }
                Ok(_) => {}
            }
        };
        (self.waiting.take().expect("seen above"), admitted)
    }

    /// Forgets a look on a session that ended.
    pub(super) fn look_anew(&mut self) {
        self.looking = None;
    }
}

/// How many tasks are in the tree, after a pause.
async fn look(session: Session, pause: Duration) -> Result<usize, Failure> {
    sleep(pause).await;
    let jobs = session.children(DATA).await?.unwrap_or_default();
    let paths: Vec<String> = jobs.iter().map(|job| paths::join(DATA, job)).collect();
    let nodes = read_all(&session, &paths).await?;
    Ok(nodes.iter().flatten().flatten().map(|node| usize::try_from(node.children).unwrap_or(0)).sum())
}
