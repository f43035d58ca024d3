//! What masters and workers have in common: a session, a role on it, and a new session when that one ends.

use std::time::{Duration, Instant};

use rand::RngExt;
use tokio::time::sleep;
use tracing::{info, warn};

use crate::coordination::{ConnectError, Failure, Op, Refusal, Session, SessionConfig};
use crate::records::tree::ROOTS;
use crate::shutdown::Shutdown;

/// How long the first connection may take; after that a process never gives up.
const FIRST_CONNECT: Duration = Duration::from_secs(10);
const RECONNECT: Duration = Duration::from_secs(3600);
/// A session that ends sooner is not followed by the next at once: whatever ended it may not have passed.
const SHORT_LIVED: Duration = Duration::from_secs(5);

/// A role that a process plays on one session after another.
pub trait Role {
    /// For the log: "master m1".
    fn title(&self) -> String;

    /// Plays the role until the session is over (an error), or the shutdown is asked for and everything is handed back.
    /// Nothing of one session may be carried over to the next.
    fn play(&mut self, session: &Session, shutdown: &Shutdown) -> impl Future<Output = Result<(), Failure>> + Send;
}

/// Plays `role` until `shutdown`, on a new session whenever one ends.
///
/// Errors: only where the very first session cannot be had.
pub async fn run(mut role: impl Role, config: &SessionConfig, shutdown: &Shutdown) -> Result<(), ConnectError> {
    let mut within = FIRST_CONNECT;
    loop {
        let connected = tokio::select! {
            connected = Session::connect(config, within) => connected,
            () = shutdown.requested() => return Ok(()),
        };
        let session = match connected {
            Ok(session) => session,
            Err(error) if within == RECONNECT => {
                warn!(%error, "still trying");
                continue;
            }
            Err(error) => return Err(error),
        };
        within = RECONNECT;
        let began = Instant::now();
        let played = match create_roots(&session).await {
            Ok(()) => role.play(&session, shutdown).await,
            Err(failure) => Err(failure),
        };
        session.close().await;
        match played {
            Ok(()) => {
                info!("{} stopped", role.title());
                return Ok(());
            }
            Err(failure) => warn!(%failure, "{} begins anew with a new session", role.title()),
        }
        if began.elapsed() < SHORT_LIVED {
            let pause = Duration::from_millis(rand::rng().random_range(100..1000));
            tokio::select! {
                () = sleep(pause) => {}
                () = shutdown.requested() => return Ok(()),
            }
        }
    }
}

/// Creates the four roots where they are missing.
pub(crate) async fn create_roots(session: &Session) -> Result<(), Failure> {
    for root in ROOTS {
        loop {
            match session.write(Op::Create { path: root.to_owned(), data: Vec::new() }).await {
                Ok(_) | Err(Failure::Refused(Refusal::NodeExists)) => break,
                Err(Failure::Unknown(_)) => session.settle().await?,
                Err(failure) => return Err(failure),
            }
        }
    }
    Ok(())
}
