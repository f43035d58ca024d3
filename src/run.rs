//! What masters and workers have in common: a session, a role on it, and a new session when that one ends.

use std::convert::Infallible;
use std::future::pending;
use std::time::{Duration, Instant};

use coordination::{ConnectError, Failure, Op, Patience, Refusal, Session, SessionConfig};
use rand::RngExt;
use tokio::time::sleep;
use tracing::{info, warn};
use tree::ROOTS;
use znode::paths;

use crate::shutdown::Shutdown;

/// How long the first connection may take; after that a process never gives up.
const FIRST_CONNECT: Duration = Duration::from_secs(10);
const RECONNECT: Duration = Duration::from_secs(3600);
/// A session that ends sooner is not followed by the next at once: whatever ended it may not have passed.
const SHORT_LIVED: Duration = Duration::from_secs(5);

/// How long to wait before looking again for the roots, where that failed.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// How long to wait, in milliseconds, before looking again where something changed beside the roots: every process does, and
/// each that asks ZooKeeper for its time is such a change.
const LOOK_AFTER_MS: std::ops::Range<u64> = 1_000..5_000;

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
    let (mut within, mut patience) = (FIRST_CONNECT, Patience::none());
    loop {
        let connected = tokio::select! {
            connected = Session::connect(config, within) => connected,
            () = shutdown.requested() => return Ok(()),
        };
        let began = Instant::now();
        match connected {
            Err(error) if within == FIRST_CONNECT => return Err(error),
            // Nobody answers, or what answers is not what we left: somebody may have removed the chroot.
            Err(error) => {
                if let Some(lasted) = patience.failed(began) {
                    warn!(%error, ?lasted, "{} has no session: still trying", role.title());
                }
            }
            Ok(session) => {
                within = RECONNECT;
                let played = play(&mut role, &session, shutdown).await;
                session.close().await;
                let Err(failure) = played else {
                    info!("{} stopped", role.title());
                    return Ok(());
                };
                if began.elapsed() >= SHORT_LIVED {
                    patience.succeeded();
                }
                if patience.failed(Instant::now()).is_some() {
                    warn!(%failure, "{} begins anew with a new session", role.title());
                }
            }
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

/// Plays a role on one session, with the roots there.
async fn play(role: &mut impl Role, session: &Session, shutdown: &Shutdown) -> Result<(), Failure> {
    create_roots(session, &ROOTS).await?;
    tokio::select! {
        played = role.play(session, shutdown) => played,
        never = keep_roots(session) => match never {},
    }
}

/// Makes again whatever root is deleted by hand: nobody else would, and nothing could be submitted.
async fn keep_roots(session: &Session) -> Infallible {
    let mut patience = Patience::default();
    loop {
        let kept = async {
            let (names, watch) = session.watch_children("/").await?;
            let gone: Vec<&str> =
                ROOTS.into_iter().filter(|root| !names.iter().any(|name| name == paths::name(root))).collect();
            for root in create_roots(session, &gone).await? {
                warn!(root, "a root of the herd was deleted: it is made again");
            }
            Ok(watch)
        };
        match kept.await {
            Ok(watch) => {
                patience.succeeded();
                watch.fired().await;
                let pause = Duration::from_millis(rand::rng().random_range(LOOK_AFTER_MS));
                sleep(pause).await;
            }
            Err(Failure::SessionOver(_)) => return pending().await, // the role hears of it itself
            Err(failure) => {
                if let Some(lasted) = patience.failed(Instant::now()) {
                    warn!(%failure, ?lasted, "cannot tell whether the roots of the herd are there: still trying");
                }
                sleep(LOOK_AGAIN).await;
            }
        }
    }
}

/// Creates those of these roots that are missing, and says which they were.
async fn create_roots<'r>(session: &Session, roots: &[&'r str]) -> Result<Vec<&'r str>, Failure> {
    let mut created = Vec::new();
    for root in roots {
        match session.insist(Op::Create { path: (*root).to_owned(), data: Vec::new() }).await {
            Ok(_) => created.push(*root),
            Err(Failure::Refused(Refusal::NodeExists)) => {}
            Err(failure) => return Err(failure),
        }
    }
    Ok(created)
}

/// How often a transaction is tried that others make refused each time: those who keep to the protocol do so a few times at
/// most, whoever does not is not waited for.
pub(crate) const TRIES_MAX: usize = 20;

/// Others were faster each time.
pub(crate) fn gave_up(path: &str) -> Refusal {
    Refusal::Other(format!("others changed {path} {TRIES_MAX} times meanwhile: giving up"))
}
