//! What workers run: the trait that users implement, and the kinds that come with Herdsman.
//!
//! ```
//! use herdsman::handlers::{Handler, Handlers, Task, TaskError};
//! use serde_json::{Value, json};
//!
//! struct WordCount;
//!
//! impl Handler for WordCount {
//!     async fn run(&self, task: Task) -> Result<Value, TaskError> {
//!         let text = String::from_utf8(task.payload)?;
//!         Ok(json!(text.split_whitespace().count()))
//!     }
//! }
//!
//! let handlers = Handlers::builtin().with("wordcount", WordCount);
//! assert!(handlers.kinds().contains(&"wordcount".to_owned()));
//! ```

mod context;
mod echo;
mod exec;
mod sleep;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use serde_json::Value;

pub(crate) use context::Signals;
pub use context::{Cancelled, Sink, Token};
pub use echo::Echo;
pub use exec::{Exec, supervise_if_asked};
pub use sleep::Sleep;

use tree::TaskId;

/// A task to be run.
#[derive(Debug, Clone)]
pub struct Task {
    /// Its id.
    pub id: TaskId,
    /// Which attempt this is, counted from 1.
    pub attempt: u32,
    /// What to show to whatever the task writes to, so that it can refuse an attempt that is over.
    pub token: Token,
    /// The job's arguments.
    pub args: Vec<String>,
    /// The payload, at most 512 KiB.
    pub payload: Vec<u8>,
    /// Tells when the task was cancelled.
    pub cancelled: Cancelled,
    /// Takes what is to be seen of the task while it runs.
    pub sink: Sink,
}

/// Runs the tasks of one kind.
pub trait Handler: Send + Sync + 'static {
    /// Runs one task; several run at once.
    ///
    /// The future is dropped where the task must stop: at once where the session may be over or the attempt took too long,
    /// and 2 s after [`Task::cancelled`] where it was cancelled. What it started must end with it. A panic fails the
    /// attempt, not the worker; so does one in a task or a thread that it started, at most.
    ///
    /// Handlers run on threads of their own, a runtime with one for each slot, at most 64. What blocks (computes for long,
    /// reads files, calls what is not async) costs the worker no session and delays its neighbours little, but a future
    /// that does not yield cannot be dropped: nothing stops it before it ends, and until then it keeps its slot. Use `tokio::task::spawn_blocking` for
    /// more than a few milliseconds of that.
    ///
    /// A task may be run more than once (its worker may die after running it and before saying so); its outcome is
    /// recorded exactly once.
    fn run(&self, task: Task) -> impl Future<Output = Result<Value, TaskError>> + Send;
}

/// Why a task did not succeed. Any error turns into one by `?`.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum TaskError {
    /// The attempt failed.
    Failed {
        /// The reason, for people.
        error: String,
        /// What there is of a result all the same.
        result: Value,
    },
    /// The worker lacks this to begin the task at all (file descriptors, processes, memory, a directory for temporary files):
    /// the task has no part in that. It is handed back as it was, nothing is counted, and the worker pauses before it takes
    /// more. Only for a handler that has not done anything yet.
    WorkerLacks(String),
}

impl TaskError {
    /// A failure with nothing but a reason.
    pub fn new(error: impl fmt::Display) -> Self {
        TaskError::Failed { error: error.to_string(), result: Value::Null }
    }
}

impl fmt::Display for TaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TaskError::Failed { error, .. } => f.write_str(error),
            TaskError::WorkerLacks(what) => write!(f, "the worker lacks what it takes to begin: {what}"),
        }
    }
}

impl<E: std::error::Error> From<E> for TaskError {
    fn from(error: E) -> Self {
        TaskError::new(error)
    }
}

/// How large a small payload is, in bytes.
const LIGHT_BYTES_MAX: usize = 64 * 1024;

/// A task that runs.
pub(crate) type Running = Pin<Box<dyn Future<Output = Result<Value, TaskError>> + Send>>;
type Run = Arc<dyn Fn(Task) -> Running + Send + Sync>;

/// The kinds of tasks that a worker runs, each with its handler.
#[derive(Clone, Default)]
pub struct Handlers {
    by_kind: BTreeMap<String, Run>,
    /// Those that are known never to block, nor to take long over a small payload.
    light: BTreeSet<String>,
}

impl Handlers {
    /// None.
    pub fn none() -> Self {
        Self::default()
    }

    /// `sleep` and `echo`, which anybody may run.
    pub fn builtin() -> Self {
        let light = ["sleep", "echo"].map(str::to_owned).into();
        Handlers { light, ..Self::none().with("sleep", Sleep).with("echo", Echo) }
    }

    /// One more kind.
    pub fn with(mut self, kind: &str, handler: impl Handler) -> Self {
        let handler = Arc::new(handler);
        let run: Run = Arc::new(move |task| {
            let handler = handler.clone();
            Box::pin(async move { handler.run(task).await })
        });
        self.light.remove(kind);
        self.by_kind.insert(kind.to_owned(), run);
        self
    }

    /// The kinds, sorted.
    pub fn kinds(&self) -> Vec<String> {
        self.by_kind.keys().cloned().collect()
    }

    /// Whether a task may be run on a thread that must not be held up.
    pub(crate) fn is_light(&self, kind: &str, payload: &[u8]) -> bool {
        payload.len() <= LIGHT_BYTES_MAX && self.light.contains(kind)
    }

    /// Begins a task, or `None` where its kind is not among these.
    pub(crate) fn run(&self, kind: &str, task: Task) -> Option<Running> {
        self.by_kind.get(kind).map(|run| run(task))
    }
}

impl fmt::Debug for Handlers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.by_kind.keys()).finish()
    }
}
