//! A session: how it is made, how it lives and ends, and the calls on it.
//!
//! A session outlives its connections. It is *connected* or *disconnected* any number of times, and then *over*, once:
//! expired by the server, or closed by us. Whoever used it starts again with a new one; nothing is patched over.
//!
//! Rules kept here, whatever the store: no call is sent while disconnected; at most 256 calls or 4 MiB are in flight; a request
//! over [`REQUEST_BYTES_MAX`](znode::REQUEST_BYTES_MAX) is refused before it can make the server drop the connection; only what
//! the store's leader acknowledged renews the [`Lease`], and an idle session proves its life every T/10; [`Session::close`]
//! waits until the server has removed the ephemerals; moments are those of ZooKeeper's [`Clock`], which every write tells.
//!
//! | file | what it holds |
//! |---|---|
//! | here | connecting; the session's id, lease, state and end |
//! | `calls` | reads, writes, watches, and what is done where an answer is lost |
//! | `life` | what goes on beside: following the state, proving life, learning the time |

mod calls;
mod life;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, RwLock};
use std::time::{Duration, Instant, SystemTime};

use rand::RngExt;
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, sleep_until, timeout};
use tracing::warn;
use znode::Failure;

pub(super) use self::calls::LOST_MAX;
use super::clock::{Clock, wall_ms};
use super::connect::{ConnectError, SessionConfig};
use super::lease::Lease;
pub use super::store::State;
use super::store::{Engine, Store, on};
use super::watch::Budget;
use super::zookeeper::ZooKeeper;

/// Permits for requests in flight; each stands for one request or 16 KiB of a larger one.
const IN_FLIGHT_MAX: u32 = 256;

/// The state, and how often it has changed: a fast failover shows as a higher `epoch` with the same state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// The state now.
    pub state: State,
    /// Goes up with every change that was seen.
    pub epoch: u64,
}

/// A session, shared by cloning. It ends by [`Session::close`], by expiry, or when the last clone is dropped.
#[derive(Clone)]
pub struct Session {
    inner: Arc<Inner>,
}

struct Inner {
    /// Taken out by `close`; calls hold a clone only while they are in flight.
    engine: RwLock<Option<Engine>>,
    id: i64,
    timeout: Duration,
    status: watch::Receiver<Status>,
    lease: Lease,
    clock: Mutex<Clock>,
    wall_clock: fn() -> SystemTime,
    in_flight: Semaphore,
    budget: Arc<Budget>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Session({:#x})", self.inner.id)
    }
}

impl Session {
    /// Connects within `within`, or says why not.
    ///
    /// Attempts follow one another with a random pause of up to 1 s, so that a herd that lost its servers does not
    /// come back in step.
    pub async fn connect(config: &SessionConfig, within: Duration) -> Result<Session, ConnectError> {
        let deadline = tokio::time::Instant::now() + within;
        let (target, asked) = (&config.zookeeper, config.session_timeout);
        let dial = async {
            loop {
                if let Some(dialled) = ZooKeeper::dial(target, asked, deadline).await {
                    return Ok(dialled);
                }
                let pause = Duration::from_millis(rand::rng().random_range(50..1000));
                if tokio::time::Instant::now() + pause >= deadline {
                    let cause = target.diagnose().await;
                    return Err(ConnectError::Unreachable { servers: target.servers(), within, cause });
                }
                sleep(pause).await;
            }
        };
        let (store, sent_at) = tokio::select! {
            dialled = dial => dialled?,
            never = life::complain(target) => match never {},
        };
        let store = store.below(target, config.create_chroot).await?;
        let granted = store.session().timeout;
        if granted != asked {
            warn!(?asked, ?granted, "the server grants another session timeout than the one asked for");
        }
        Ok(Session::start(Engine::ZooKeeper(store), sent_at, config.wall_clock))
    }

    fn start(engine: Engine, connect_sent_at: Instant, wall_clock: fn() -> SystemTime) -> Session {
        let (status_sender, status) = watch::channel(Status { state: State::Connected, epoch: 0 });
        let (granted, states) = (on!(Engine, &engine, store => store.session()), engine.states());
        let inner = Arc::new(Inner {
            id: granted.id,
            timeout: granted.timeout,
            lease: Lease::new(granted.timeout, connect_sent_at),
            clock: Mutex::new(Clock::new(connect_sent_at, rand::rng().random())),
            wall_clock,
            budget: Arc::new(Budget::new(engine.limits())),
            engine: RwLock::new(Some(engine)),
            status,
            in_flight: Semaphore::new(IN_FLIGHT_MAX as usize),
        });
        tokio::spawn(life::observe(states, status_sender, inner.id));
        tokio::spawn(life::prove_life(Arc::downgrade(&inner)));
        Session { inner }
    }

    /// The id that ZooKeeper shows as `ephemeralOwner`.
    pub fn id(&self) -> i64 {
        self.inner.id
    }

    /// T, the session timeout that the server granted.
    pub fn timeout(&self) -> Duration {
        self.inner.timeout
    }

    /// How long the session may be trusted.
    pub fn lease(&self) -> &Lease {
        &self.inner.lease
    }

    /// Completes once the lease has ended.
    pub async fn lease_ended(&self) {
        while self.inner.lease.holds(Instant::now()) {
            sleep_until(self.inner.lease.ends().into()).await;
        }
    }

    /// The moment by ZooKeeper's clock, in milliseconds since 1970; by this machine's own as long as no write of this session
    /// was answered, see [`Session::learn_time`].
    pub fn now_ms(&self) -> i64 {
        self.inner.clock().now_ms(Instant::now()).unwrap_or_else(|| wall_ms((self.inner.wall_clock)()))
    }

    /// Follows the session's state.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.inner.status.clone()
    }

    /// Waits until a server answers; fails once the session is over.
    pub async fn connected(&self) -> Result<(), Failure> {
        let mut status = self.status();
        let seen = status.wait_for(|s| s.state != State::Disconnected).await.map(|s| s.state);
        match seen {
            Ok(State::Connected) => Ok(()),
            Ok(State::Disconnected | State::Over) | Err(_) => Err(Failure::SessionOver("expired or closed".to_owned())),
        }
    }

    /// Completes once the session is over.
    pub async fn over(&self) {
        let _ = self.status().wait_for(|s| s.state == State::Over).await;
    }

    /// Ends the session now: its ephemerals go within milliseconds. Every later call of any clone fails.
    ///
    /// Waits for the server's answer for at most 2 s; without it the server still ends the session after T.
    pub async fn close(&self) {
        let engine = self.inner.engine.write().expect("no panic holds this lock").take();
        if engine.is_none() {
            return;
        }
        drop(engine);
        if timeout(Duration::from_secs(2), self.over()).await.is_err() {
            warn!(session = %format_args!("{:#x}", self.inner.id), "no answer to closing the session; it will time out");
        }
    }
}

impl Inner {
    fn clock(&self) -> MutexGuard<'_, Clock> {
        self.clock.lock().expect("no panic holds this lock")
    }
}
