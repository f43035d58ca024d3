//! A load generator, one of those that `client stress` has tasks for.
//!
//! Its simulated clients have sessions of their own with the service that is measured, on a thread of their own, so
//! that they hold up neither the worker nor its lease. It joins the others at a rendezvous in the herd's own ZooKeeper:
//! nobody begins before all are there, and nobody leaves before all have ended. If one of them vanishes, the conductor
//! ends the run.

mod lifecycle;
mod pace;
mod paced;

use std::fmt;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use coordination::{ConnectString, Session, SessionConfig, bare::Bare, rendezvous::Member};
use tokio::sync::{oneshot, watch};

use crate::{Case, Outcome, Share};

/// How long a session may take, with the herd or with the service.
const CONNECT: Duration = Duration::from_secs(10);

/// The error of those who have to end because others have failed.
const STOPPED: &str = "stopped";

/// Why a generator has measured nothing, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GeneratorError(String);

impl GeneratorError {
    fn new(error: impl fmt::Display) -> Self {
        GeneratorError(error.to_string())
    }
}

impl fmt::Display for GeneratorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<E: std::error::Error> From<E> for GeneratorError {
    fn from(error: E) -> Self {
        GeneratorError::new(error)
    }
}

/// Where the generators of a run meet, in the herd's ZooKeeper.
#[derive(Debug, Clone)]
pub struct Meeting {
    /// How to get there.
    pub zookeeper: SessionConfig,
    /// The path of the conductor's calls.
    pub calls: String,
    /// The path of this member.
    pub member: String,
}

/// Does the part of one generator, from the first call to the last, and returns what it measured.
///
/// Errors: the share cannot be run; the service fails; somebody is missed; `cancelled` has completed.
pub async fn generate(
    share: Share,
    meeting: Meeting,
    cancelled: impl Future<Output = ()>,
) -> Result<Outcome, GeneratorError> {
    let target = share.check().map_err(GeneratorError::new)?;
    let (stop, _) = watch::channel(false);
    let stop = Arc::new(stop);
    let stopping = StopWhenDropped(stop.clone());
    let generator = Arc::new(Generator { share, target, stop });
    let (end, mut ended) = oneshot::channel();
    thread::Builder::new().name("zkbench".to_owned()).spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let measured = match runtime {
            Ok(runtime) => runtime.block_on(generator.run(&meeting)),
            Err(error) => Err(GeneratorError::new(error)),
        };
        let _ = end.send(measured);
    })?;
    tokio::select! {
        outcome = &mut ended => outcome?,
        () = cancelled => {
            drop(stopping);
            ended.await?
        }
    }
}

/// Stops the thread when the task is over, or dropped.
struct StopWhenDropped(Arc<watch::Sender<bool>>);

impl Drop for StopWhenDropped {
    fn drop(&mut self) {
        self.0.send_replace(true);
    }
}

/// One load generator.
struct Generator {
    share: Share,
    target: ConnectString,
    stop: Arc<watch::Sender<bool>>,
}

impl Generator {
    /// Joins the others, and does its part.
    async fn run(self: Arc<Self>, meeting: &Meeting) -> Result<Outcome, GeneratorError> {
        let session = Session::connect(&meeting.zookeeper, CONNECT).await?;
        let outcome = self.meet(&session, meeting).await;
        session.close().await;
        outcome
    }

    async fn meet(self: &Arc<Self>, session: &Session, meeting: &Meeting) -> Result<Outcome, GeneratorError> {
        let member = Member::join(session, &meeting.calls, &meeting.member).await?;
        let outcome = match self.share.load.case {
            Case::Lifecycle => lifecycle::play(self, &member).await?,
            Case::Ramp | Case::Steady => paced::play(self, &member).await?,
        };
        self.unless_stopped(async { Ok(member.called(self.share.load.last_point() + 1).await?) }).await?;
        Ok(outcome)
    }

    /// What comes, unless the task is to end before.
    async fn unless_stopped<T>(
        &self,
        work: impl Future<Output = Result<T, GeneratorError>>,
    ) -> Result<T, GeneratorError> {
        let mut stopped = self.stop.subscribe();
        tokio::select! {
            done = work => done,
            _ = stopped.wait_for(|stopped| *stopped) => Err(GeneratorError::new(STOPPED)),
        }
    }

    /// Ends all that the generator does.
    fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// A session of a simulated client.
    async fn connect(&self, client: u32) -> Result<Bare, GeneratorError> {
        let timeout = Duration::from_millis(self.share.load.session_timeout_ms);
        let connected = Bare::connect(&self.target, client as usize, timeout, CONNECT).await;
        connected.map_err(|failure| {
            GeneratorError::new(format!("client {client}: cannot connect to {}: {failure}", self.target))
        })
    }

    /// Where the znodes of a client begin.
    fn prefix(&self, client: u32) -> String {
        format!("{}/{client:05}-", self.share.load.root)
    }

    fn data(&self) -> Vec<u8> {
        vec![b'x'; self.share.load.data_size]
    }
}
