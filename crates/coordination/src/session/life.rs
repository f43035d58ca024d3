//! What goes on beside the calls: following the session's state, proving its life, learning ZooKeeper's time.

use std::convert::Infallible;
use std::sync::Weak;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};
use znode::{Failure, Op, paths};

use super::{Inner, Session, Status};
use crate::clock::News;
use crate::connect::ConnectString;
use crate::store::{State, States};

/// How often the time is asked for at first, until an answer was fast enough.
const ASKS_MAX: u32 = 5;
/// When it is said that there is no connection, and how often then.
const COMPLAIN_AFTER: Duration = Duration::from_secs(5);
const COMPLAIN_EVERY: Duration = Duration::from_secs(10);

/// Follows the states. Some may be left out, so each change counts, whatever it says.
pub(super) async fn observe(mut states: States, status: watch::Sender<Status>, id: i64) {
    let session = format!("{id:#x}");
    info!(%session, "session begun");
    let mut epoch = 0;
    let mut lost: Option<Instant> = None;
    loop {
        let state = match lost {
            None => states.next().await,
            Some(since) => match timeout(COMPLAIN_AFTER, states.next()).await {
                Ok(state) => state,
                Err(_) => {
                    warn!(%session, lasted = ?since.elapsed(), "no connection to ZooKeeper: still trying");
                    continue;
                }
            },
        };
        epoch += 1;
        lost = (state == State::Disconnected).then(|| lost.unwrap_or_else(Instant::now));
        status.send_replace(Status { state, epoch });
        match state {
            State::Connected => info!(%session, "connected again"),
            State::Disconnected => warn!(%session, "connection lost"),
            State::Over => {
                info!(%session, "session over");
                return;
            }
        }
    }
}

/// Renews the lease of an idle session, and what it knows of ZooKeeper's clock.
pub(super) async fn prove_life(inner: Weak<Inner>) {
    let mut epoch = 0;
    loop {
        let Some(session) = inner.upgrade().map(|inner| Session { inner }) else { return };
        let (now, probe_at) = (Instant::now(), session.lease().probe_at());
        let status = *session.status().borrow();
        let reconnected =
            status.state == State::Connected && std::mem::replace(&mut epoch, status.epoch) != status.epoch;
        let ask_time = session.inner.clock().is_to_be_asked(now, reconnected);
        if ask_time && let Err(failure) = session.ask_time().await {
            debug!(%failure, "ZooKeeper does not tell its time");
        }
        let pause = if now < probe_at {
            probe_at - now
        } else {
            match session.prove().await {
                Ok(()) => continue,
                Err(Failure::SessionOver(_)) => return,
                Err(Failure::Refused(_) | Failure::Unknown(_)) => session.timeout() / 20,
            }
        };
        drop(session);
        sleep(pause).await;
    }
}

/// Says every few seconds that ZooKeeper cannot be reached, and why.
pub(super) async fn complain(zookeeper: &ConnectString) -> Infallible {
    let began = Instant::now();
    sleep(COMPLAIN_AFTER).await;
    loop {
        let cause = zookeeper.diagnose().await;
        warn!(servers = zookeeper.servers(), cause, lasted = ?began.elapsed(), "cannot reach ZooKeeper: still trying");
        sleep(COMPLAIN_EVERY).await;
    }
}

impl Session {
    /// Returns once ZooKeeper's clock is known, to half a second: at once where a write of this session told it, else after
    /// one, or some where answers are slow.
    ///
    /// Where such a write is refused, says so, and goes on by this machine's clock. Errors: session over.
    pub async fn learn_time(&self) -> Result<(), Failure> {
        for _ in 0..ASKS_MAX {
            if self.inner.clock().is_sharp(Instant::now()) {
                break;
            }
            match self.repeat(|| self.ask_time()).await {
                Ok(()) => {}
                Err(Failure::Refused(refusal)) => {
                    warn!(%refusal, "ZooKeeper does not tell its time: going by the clock of this machine");
                    break;
                }
                Err(failure) => return Err(failure),
            }
        }
        Ok(())
    }

    /// A write for the sake of its answer: a znode that comes and goes in one step, so that nobody ever sees it.
    async fn ask_time(&self) -> Result<(), Failure> {
        let path = paths::join("/", &format!("clock-{}", paths::uid(&mut rand::rng())));
        let set = Op::Set { path: path.clone(), data: Vec::new(), version: None }; // of a create the answer may lack the time
        let create = Op::Create { path: path.clone(), data: Vec::new() };
        self.multi(&[create, set, Op::Delete { path, version: None }]).await.map(drop).map_err(|error| error.failure)
    }
}

impl Inner {
    /// A write was answered: it was applied at this moment by ZooKeeper's clock. Says so where this machine's clock is found to be wrong.
    pub(super) fn learn(&self, sent_at: Instant, stamp_ms: i64) {
        let (answered_at, mut clock) = (Instant::now(), self.clock());
        clock.learn(sent_at, answered_at, stamp_ms);
        match clock.compare(answered_at, (self.wall_clock)()) {
            Some(News::Wrong(ahead_ms)) => {
                let round_ms = if ahead_ms.abs() < 10_000 { 100 } else { 1_000 };
                let by = Duration::from_millis((ahead_ms.unsigned_abs() + round_ms / 2) / round_ms * round_ms);
                let (by, way) = (humantime::format_duration(by), if ahead_ms > 0 { "ahead of" } else { "behind" });
                warn!(
                    "the clock of this machine is {by} {way} ZooKeeper's, which delays and deadlines go by: see that NTP runs \
                     here and on ZooKeeper's servers"
                );
            }
            Some(News::Right) => info!("the clock of this machine agrees with ZooKeeper's again"),
            None => {}
        }
    }
}
