//! What a worker writes when an attempt has ended, and what follows when that write is refused. Pure: the time and the jitter
//! of a backoff are arguments.
//!
//! Every write names the version at which the task was assigned, so of all that may want to end an attempt one can. That is
//! also why a refusal for the version, or because the task is gone, needs no answer: somebody else has ended the attempt, or
//! this worker has, and did not hear of it.

use std::time::Duration;

use tree::transitions::{self, OUTCOME_AT};
use tree::{Assignment, Policy, TaskState};
use znode::{Op, Refusal};

/// How an attempt ended, or why it was not begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// With an outcome, as it is to be stored.
    Outcome(Vec<u8>),
    /// It failed, and left no outcome: the task waits for its backoff, or is dead where it has no attempt left.
    Failed(String),
    /// The worker hands the task back.
    HandedBack {
        /// Why, where it had begun: that is an attempt. Otherwise none is counted.
        error: Option<String>,
        /// For how long this worker is to be given nothing; none where it stops.
        lacking_for: Option<Duration>,
    },
    /// The tree holds something that no client of this protocol writes: the task can never be completed.
    Malformed(String),
}

/// What one write of this worker about an assignment is made of.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// Who writes: the name of its znode.
    pub worker: &'a str,
    /// The task, and the version at which it was assigned.
    pub assignment: &'a Assignment,
    /// The policy of its job.
    pub policy: &'a Policy,
    /// The task's state at that version.
    pub state: &'a TaskState,
    /// The time of the servers, in milliseconds.
    pub now_ms: i64,
    /// From 0 to 1: which part of the backoff's second half is waited.
    pub jitter: f64,
}

/// The operations that end an attempt, to be sent in one multi behind the guard of the worker's own znode.
pub fn write(context: Context<'_>, end: &End) -> Vec<Op> {
    let Context { worker, assignment, policy, state, .. } = context;
    let state = match end {
        End::Outcome(outcome) => return transitions::complete(assignment, outcome.clone()),
        End::Failed(error) => {
            let failures = state.failures + 1;
            let mut next = TaskState { failures, ..state.attempted(worker, error) };
            if failures < policy.max_attempts {
                let backoff = policy.backoff(failures, context.jitter);
                next.not_before_ms = (!backoff.is_zero()).then(|| context.now_ms + backoff.as_millis() as i64);
            } else {
                next.dead = true;
            }
            next
        }
        End::HandedBack { error, lacking_for } => {
            let state = error.as_ref().map_or_else(|| state.clone(), |error| state.attempted(worker, error));
            state.returned(Some(worker), *lacking_for)
        }
        // What was read of the task may be what is malformed: nothing of it is written again.
        End::Malformed(error) => {
            let state = TaskState::default().attempted(worker, &format!("malformed: {error}"));
            TaskState { dead: true, ..state }
        }
    };
    vec![transitions::end_attempt(&assignment.task, &state, assignment.version)]
}

/// What follows when a write was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// The attempt has been ended already, by this worker or by somebody else.
    Over,
    /// The attempt ends in this way instead.
    Write(End),
    /// The tree lets this worker say nothing of the task: an operation on this path was refused. People are told.
    Unsayable(String),
}

/// What follows when operation `at` of a write was refused. `outcome`: the write was to store an outcome. What is
/// written instead of one is no outcome, and if that is refused nothing else is written: two writes at most.
pub fn refused(assignment: &Assignment, outcome: bool, at: usize, refusal: &Refusal) -> Next {
    let task = &assignment.task;
    match refusal {
        // The task itself was there to be deleted, but not its payload to be replaced.
        Refusal::NoNode | Refusal::BadVersion if outcome && at == OUTCOME_AT => {
            Next::Write(End::Malformed(format!("{} cannot be set: {refusal}", task.data_path())))
        }
        Refusal::NoNode | Refusal::BadVersion => Next::Over,
        // Access denied, a quota, too large: whoever waits for the outcome is to learn why there is none.
        Refusal::NodeExists | Refusal::NotEmpty | Refusal::TooLarge { .. } | Refusal::Other(_) => {
            let path = [task.path(), task.data_path(), task.job.path()].into_iter().nth(at).unwrap_or_default();
            if outcome {
                Next::Write(End::Failed(format!("its outcome was refused at {path}: {refusal}")))
            } else {
                Next::Unsayable(path)
            }
        }
    }
}
