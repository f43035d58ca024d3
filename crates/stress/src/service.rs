//! The place that a load has in the service that is measured.

use std::time::Duration;

use coordination::{ConnectString, Failure, Refusal, bare::Bare};
use tokio::time::{Instant, sleep, timeout};

use crate::Load;

/// How long the service may take for each thing that is asked of it before and after the run.
const PREPARE_WITHIN: Duration = Duration::from_secs(10);

/// The service that is measured: where its znodes are put, and removed from.
#[derive(Debug)]
pub struct Service {
    target: ConnectString,
    session_timeout: Duration,
}

impl Service {
    /// Creates the root of a load.
    pub async fn prepare(target: ConnectString, load: &Load) -> Result<Self, Failure> {
        let service = Service { target, session_timeout: Duration::from_millis(load.session_timeout_ms) };
        service.call(async |bare| bare.create_container(&load.root).await).await?;
        Ok(service)
    }

    /// Removes the root, once the znodes below it are gone with their sessions: those of a generator that was killed go after
    /// a session timeout.
    pub async fn clean_up(self, load: &Load) -> Result<(), Failure> {
        let deadline = Instant::now() + 2 * self.session_timeout + PREPARE_WITHIN;
        loop {
            let failure = match self.call(async |bare| bare.delete(&load.root).await).await {
                Ok(()) | Err(Failure::Refused(Refusal::NoNode)) => return Ok(()),
                Err(failure) => failure,
            };
            if Instant::now() >= deadline {
                return Err(failure);
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// A call on a session of its own: the service may have been away for longer than a session.
    async fn call(&self, call: impl AsyncFnOnce(&Bare) -> Result<(), Failure>) -> Result<(), Failure> {
        let bare = Bare::connect(&self.target, 0, self.session_timeout, PREPARE_WITHIN).await?;
        let within = humantime::format_duration(PREPARE_WITHIN);
        let done = timeout(PREPARE_WITHIN, call(&bare)).await;
        bare.close().await;
        done.unwrap_or_else(|_| Err(Failure::Unknown(format!("no answer within {within}"))))
    }
}
