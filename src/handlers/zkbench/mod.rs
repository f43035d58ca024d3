//! `zkbench`: a load generator, one of those that `client stress` submits.
//!
//! Its simulated clients have sessions of their own with the service that is measured, on a thread of their own, so that
//! they hold up neither the worker nor its lease. It joins the others at a rendezvous in the herd's own ZooKeeper, below
//! the job's data: nobody begins before all are there, and nobody goes before all have ended. If one is missed, the
//! conductor withdraws the job; a generator that would begin again comes too late, and says so.

mod lifecycle;
mod pace;
mod paced;

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::oneshot;

use super::{Handler, Task, TaskError};
use crate::coordination::bare::Bare;
use crate::coordination::rendezvous::Member;
use crate::coordination::{ConnectString, Session, SessionConfig};
use crate::records::{DATA_BYTES_MAX, TaskId};
use crate::shutdown::{Shutdown, Stopper};
use crate::stress::{Case, Outcome, Share};

/// How long a session may take, with the herd or with the service.
const CONNECT: Duration = Duration::from_secs(10);

/// The error of those who have to end because others have failed.
const STOPPED: &str = "stopped";

/// Makes load on a ZooKeeper service.
#[derive(Debug, Clone)]
pub struct Zkbench {
    herd: SessionConfig,
}

impl Zkbench {
    /// For workers of the herd at `herd`.
    pub fn new(herd: SessionConfig) -> Self {
        Zkbench { herd }
    }
}

impl Handler for Zkbench {
    async fn run(&self, task: Task) -> Result<Value, TaskError> {
        let share: Share = serde_json::from_slice(&task.payload)?;
        let target = share.check().map_err(TaskError::new)?;
        if task.attempt > 1 {
            return Err(TaskError::new("a load generator that begins again would measure something else"));
        }
        let (stopper, stopped) = Shutdown::new();
        let stop = StopWhenDropped(stopper.clone());
        let generator = Arc::new(Generator { share, target, stopper, stopped });
        let (herd, id) = (self.herd.clone(), task.id.clone());
        let (end, mut ended) = oneshot::channel();
        thread::Builder::new().name("zkbench".to_owned()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let measured = match runtime {
                Ok(runtime) => runtime.block_on(generator.run(&herd, &id)),
                Err(error) => Err(TaskError::new(error)),
            };
            let _ = end.send(measured);
        })?;
        let outcome = tokio::select! {
            outcome = &mut ended => outcome?,
            () = task.cancelled.wait() => {
                drop(stop);
                ended.await?
            }
        };
        // The outcome has more than its result.
        Ok(outcome?.to_json(DATA_BYTES_MAX - 4096))
    }
}

/// Stops the thread when the task is over, or dropped.
struct StopWhenDropped(Stopper);

impl Drop for StopWhenDropped {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// One load generator.
struct Generator {
    share: Share,
    target: ConnectString,
    stopper: Stopper,
    stopped: Shutdown,
}

impl Generator {
    /// Joins the others, and does its part.
    async fn run(self: Arc<Self>, herd: &SessionConfig, task: &TaskId) -> Result<Outcome, TaskError> {
        let session = Session::connect(herd, CONNECT).await?;
        let outcome = self.meet(&session, task).await;
        session.close().await;
        outcome
    }

    async fn meet(self: &Arc<Self>, session: &Session, task: &TaskId) -> Result<Outcome, TaskError> {
        let member = Member::join(session, &task.job.calls_path(), &task.at_path()).await?;
        let outcome = match self.share.load.case {
            Case::Lifecycle => lifecycle::play(self, &member).await?,
            Case::Ramp | Case::Steady => paced::play(self, &member).await?,
        };
        self.unless_stopped(async { Ok(member.called(self.share.load.last_point() + 1).await?) }).await?;
        Ok(outcome)
    }

    /// What comes, unless the task is to end before.
    async fn unless_stopped<T>(&self, work: impl Future<Output = Result<T, TaskError>>) -> Result<T, TaskError> {
        tokio::select! {
            done = work => done,
            () = self.stopped.requested() => Err(TaskError::new(STOPPED)),
        }
    }

    /// A session of a simulated client.
    async fn connect(&self, client: u32) -> Result<Bare, TaskError> {
        let timeout = Duration::from_millis(self.share.load.session_timeout_ms);
        let connected = Bare::connect(&self.target, client as usize, timeout, CONNECT).await;
        connected
            .map_err(|failure| TaskError::new(format!("client {client}: cannot connect to {}: {failure}", self.target)))
    }

    /// Where the znodes of a client begin.
    fn prefix(&self, client: u32) -> String {
        format!("{}/{client:05}-", self.share.load.root)
    }

    fn data(&self) -> Vec<u8> {
        vec![b'x'; self.share.load.data_size]
    }
}
