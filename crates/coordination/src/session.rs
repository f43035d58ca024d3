//! A ZooKeeper session: how it is made, how it lives and ends, and the calls on it.
//!
//! A session outlives its connections. It is *connected* or *disconnected* any number of times, and then *over*, once:
//! expired by the server, or closed by us. Whoever used it starts again with a new one; nothing is patched over.
//!
//! Rules kept here: no call is sent while disconnected; at most 256 calls or 4 MiB are in flight; a request over
//! [`REQUEST_BYTES_MAX`] is refused before it can make the server drop the connection; only what the ZooKeeper leader
//! acknowledged renews the [`Lease`], and an idle session proves its life with a sync every T/10; [`Session::close`]
//! waits until the server has removed the ephemerals; moments are those of ZooKeeper's [`Clock`], which every write tells.

use std::convert::Infallible;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, RwLock, Weak};
use std::time::{Duration, Instant, SystemTime};

use rand::RngExt;
use tokio::sync::{Semaphore, SemaphorePermit, watch};
use tokio::time::{sleep, sleep_until, timeout, timeout_at};
use tracing::{debug, info, warn};
use znode::{Answer, Failure, MultiFailure, Node, Op, REQUEST_BYTES_MAX, Refusal, paths};
use zookeeper_client as zk;

use super::clock::{Clock, News, wall_ms};
use super::connect::{ConnectError, ConnectString, SessionConfig};
use super::lease::Lease;
use super::patience::Patience;
use super::watch::Budget;
use crate::zookeeper::{add, classify, node};

/// Permits for requests in flight; each stands for one request or 16 KiB of a larger one.
const IN_FLIGHT_MAX: u32 = 256;
const BYTES_PER_PERMIT: usize = 16 * 1024;
/// How many answers to one call may be lost in a row. It takes as many connections, each of which answered a sync.
pub(super) const LOST_MAX: u32 = 10;

/// How often the time is asked for at first, until an answer was fast enough.
const ASKS_MAX: u32 = 5;

/// When it is said that there is no connection, and how often then.
const COMPLAIN_AFTER: Duration = Duration::from_secs(5);
const COMPLAIN_EVERY: Duration = Duration::from_secs(10);

/// Whether a session has a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// A server answers.
    Connected,
    /// The crate is looking for a server; the session may live or be expired by now.
    Disconnected,
    /// Expired or closed, for ever.
    Over,
}

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
    client: RwLock<Option<zk::Client>>,
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
        let servers = config.zookeeper.servers();
        let dialled = config.zookeeper.dialled();
        let dial = async {
            loop {
                let sent_at = Instant::now();
                let connector =
                    zk::Client::connector().with_session_timeout(config.session_timeout).with_fail_eagerly();
                match timeout_at(deadline, connector.connect(&dialled)).await {
                    Ok(Ok(client)) => return Ok((client, sent_at)),
                    Ok(Err(error)) => debug!(%servers, %error, "cannot connect"),
                    Err(_) => {}
                }
                let pause = Duration::from_millis(rand::rng().random_range(50..1000));
                if tokio::time::Instant::now() + pause >= deadline {
                    let cause = config.zookeeper.diagnose().await;
                    return Err(ConnectError::Unreachable { servers: servers.clone(), within, cause });
                }
                sleep(pause).await;
            }
        };
        let (client, sent_at) = tokio::select! {
            dialled = dial => dialled?,
            never = complain(&config.zookeeper) => match never {},
        };
        let failed = |error| ConnectError::Failed { servers: servers.clone(), failure: classify(error) };
        let client = match config.zookeeper.chroot() {
            None => client,
            Some(chroot) => {
                if client.check_stat(chroot).await.map_err(failed)?.is_none() {
                    if !config.create_chroot {
                        return Err(ConnectError::NoChroot { chroot: chroot.to_owned(), servers });
                    }
                    info!(%chroot, "the chroot is missing: creating it");
                    let persistent = zk::CreateMode::Persistent.with_acls(zk::Acls::anyone_all());
                    client.mkdir(chroot, &persistent).await.map_err(failed)?;
                }
                client.chroot(chroot).map_err(|_| failed(zk::Error::BadArguments(&"chroot")))?
            }
        };
        let (granted, asked) = (client.session_timeout(), config.session_timeout);
        if granted != asked {
            warn!(?asked, ?granted, "the server grants another session timeout than the one asked for");
        }
        Ok(Session::start(client, sent_at, config.wall_clock))
    }

    fn start(client: zk::Client, connect_sent_at: Instant, wall_clock: fn() -> SystemTime) -> Session {
        let (status_sender, status) = watch::channel(Status { state: State::Connected, epoch: 0 });
        let states = client.state_watcher();
        let inner = Arc::new(Inner {
            id: client.session_id().0,
            timeout: client.session_timeout(),
            lease: Lease::new(client.session_timeout(), connect_sent_at),
            clock: Mutex::new(Clock::new(connect_sent_at, rand::rng().random())),
            wall_clock,
            client: RwLock::new(Some(client)),
            status,
            in_flight: Semaphore::new(IN_FLIGHT_MAX as usize),
            budget: Arc::default(),
        });
        tokio::spawn(observe(states, status_sender, inner.id));
        tokio::spawn(prove_life(Arc::downgrade(&inner)));
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

    /// Waits until every earlier call of this session has been applied or never will be: connected again, and a sync
    /// acknowledged. What is read on this session afterwards settles each call whose answer was lost.
    ///
    /// Errors: session over, if it ends first.
    pub async fn settle(&self) -> Result<(), Failure> {
        let mut patience = Patience::default();
        loop {
            self.connected().await?;
            match self.sync().await {
                Err(Failure::Unknown(cause)) => {
                    if let Some(lasted) = patience.failed(Instant::now()) {
                        warn!(session = ?self, cause, ?lasted, "ZooKeeper acknowledges nothing: still trying");
                    }
                    sleep(Duration::from_millis(20)).await;
                }
                done => return done,
            }
        }
    }

    /// Waits until the server that answers us has seen every write acknowledged so far, to anybody. Renews the lease:
    /// the ZooKeeper leader itself checks the session on its way.
    pub async fn sync(&self) -> Result<(), Failure> {
        let (client, _permit) = self.begin(0).await?;
        let sent_at = Instant::now();
        client.sync("/").await.map_err(classify)?;
        self.inner.lease.renew(sent_at);
        Ok(())
    }

    /// Applies all operations in one step, or none. For each operation in order: the path created, where it creates.
    pub async fn multi(&self, ops: &[Op]) -> Result<Vec<Option<String>>, MultiFailure> {
        let bytes = ops.iter().map(Op::bytes).sum();
        if bytes > REQUEST_BYTES_MAX {
            let refusal = Refusal::TooLarge { bytes, limit: REQUEST_BYTES_MAX };
            return Err(Failure::Refused(refusal).into());
        }
        let (client, _permit) = self.begin(bytes).await?;
        let mut multi = client.new_multi_writer();
        for (at, op) in ops.iter().enumerate() {
            add(op, &mut multi).map_err(|error| MultiFailure { at: Some(at), failure: classify(error) })?;
        }
        let sent_at = Instant::now();
        let outcome = multi.commit().await;
        match outcome {
            Ok(results) => {
                self.inner.lease.renew(sent_at);
                self.inner.learn(sent_at, &results);
                let path = |result| match result {
                    zk::MultiWriteResult::Create { path, .. } => Some(path),
                    _ => None,
                };
                Ok(results.into_iter().map(path).collect())
            }
            Err(zk::MultiWriteError::OperationFailed { index, source }) => {
                self.inner.lease.renew(sent_at);
                Err(MultiFailure { at: Some(index), failure: classify(source) })
            }
            Err(zk::MultiWriteError::RequestFailed { source }) => Err(classify(source).into()),
        }
    }

    /// One operation, as a multi of its own.
    pub async fn write(&self, op: Op) -> Result<Option<String>, Failure> {
        let mut results = self.multi(std::slice::from_ref(&op)).await.map_err(|e| e.failure)?;
        Ok(results.pop().flatten())
    }

    /// One operation, sent again where its answer was lost: for one that does no harm twice. A refusal may be the effect of
    /// the first try.
    ///
    /// Errors: refused, or session over.
    pub async fn insist(&self, op: Op) -> Result<Option<String>, Failure> {
        self.repeat(|| self.write(op.clone())).await
    }

    /// Makes a call until it is answered, as long as what was lost is made up for by [`Session::settle`].
    pub(super) async fn repeat<T, F>(&self, call: impl Fn() -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let mut lost = 0;
        loop {
            match call().await {
                Err(Failure::Unknown(cause)) if lost == LOST_MAX => return Err(self.give_up(&cause)),
                Err(Failure::Unknown(_)) => self.settle().await?,
                done => return done,
            }
            lost += 1;
        }
    }

    /// Ends a session that lives, and on which one call goes wrong each time: a new one may do better, and whoever uses this
    /// one hears that it is over.
    pub(super) fn give_up(&self, cause: &str) -> Failure {
        warn!(session = ?self, cause, "giving the session up: a call was not answered {LOST_MAX} times in a row");
        drop(self.inner.client.write().expect("no panic holds this lock").take());
        Failure::SessionOver(format!("given up, as a call was not answered {LOST_MAX} times in a row: {cause}"))
    }

    /// The znode, or `None` where it is absent.
    ///
    /// Reads change nothing, so one whose answer was lost is repeated: all reads fail only where the server refuses or the
    /// session is over.
    pub async fn get(&self, path: &str) -> Result<Option<Node>, Failure> {
        self.repeat(|| self.try_get(path)).await
    }

    async fn try_get(&self, path: &str) -> Result<Option<Node>, Failure> {
        let (client, _permit) = self.begin(path.len()).await?;
        match client.get_data(path).await {
            Ok((data, stat)) => Ok(Some(node(data, &stat))),
            Err(zk::Error::NoNode) => Ok(None),
            Err(error) => Err(classify(error)),
        }
    }

    /// The session that owns a znode, 0 where it has none; `None` where it is absent. Old servers (3.8.0) tell it even of a
    /// znode that may not be read.
    pub async fn owner(&self, path: &str) -> Result<Option<i64>, Failure> {
        self.repeat(|| async move {
            let (client, _permit) = self.begin(path.len()).await?;
            let stat = client.check_stat(path).await.map_err(classify)?;
            Ok(stat.map(|stat| stat.ephemeral_owner))
        })
        .await
    }

    /// The names of the children in no order, or `None` where the znode is absent.
    pub async fn children(&self, path: &str) -> Result<Option<Vec<String>>, Failure> {
        self.repeat(|| self.try_children(path)).await
    }

    async fn try_children(&self, path: &str) -> Result<Option<Vec<String>>, Failure> {
        let (client, _permit) = self.begin(path.len()).await?;
        match client.list_children(path).await {
            Ok(names) => Ok(Some(names)),
            Err(zk::Error::NoNode) => Ok(None),
            Err(error) => Err(classify(error)),
        }
    }

    /// Many znodes in one request: all at one moment, in the order asked for. Each answers for itself, so that one that may
    /// not be read takes none of its neighbours with it. How large the answer is only the caller can limit; see
    /// [`read_all`](super::reader::read_all).
    pub async fn get_many(&self, paths: &[impl AsRef<str>]) -> Result<Vec<Answer<Node>>, Failure> {
        self.repeat(|| self.try_get_many(paths)).await
    }

    async fn try_get_many(&self, paths: &[impl AsRef<str>]) -> Result<Vec<Answer<Node>>, Failure> {
        let (client, _permit) = self.begin(paths.iter().map(|path| path.as_ref().len()).sum()).await?;
        let mut multi = client.new_multi_reader();
        for path in paths {
            multi.add_get_data(path.as_ref()).map_err(classify)?;
        }
        let results = multi.commit().await.map_err(classify)?;
        let data = |result| match result {
            zk::MultiReadResult::Data { data, stat } => Ok(Ok(Some(node(data, &stat)))),
            zk::MultiReadResult::Error { err } => answer(classify(err)),
            other => Err(Failure::Unknown(format!("asked for data, got {other:?}"))),
        };
        results.into_iter().map(data).collect()
    }

    /// The children of many znodes in one request, in the order asked for; each answers for itself.
    pub async fn children_many(&self, paths: &[String]) -> Result<Vec<Answer<Vec<String>>>, Failure> {
        self.repeat(|| self.try_children_many(paths)).await
    }

    async fn try_children_many(&self, paths: &[String]) -> Result<Vec<Answer<Vec<String>>>, Failure> {
        let (client, _permit) = self.begin(paths.iter().map(String::len).sum()).await?;
        let mut multi = client.new_multi_reader();
        for path in paths {
            multi.add_get_children(path).map_err(classify)?;
        }
        let results = multi.commit().await.map_err(classify)?;
        let names = |result| match result {
            zk::MultiReadResult::Children { children } => Ok(Ok(Some(children))),
            zk::MultiReadResult::Error { err } => answer(classify(err)),
            other => Err(Failure::Unknown(format!("asked for children, got {other:?}"))),
        };
        results.into_iter().map(names).collect()
    }

    /// A client for one call of about `bytes`, once connected and within the limits of what may be in flight.
    pub(super) async fn begin(&self, bytes: usize) -> Result<(zk::Client, SemaphorePermit<'_>), Failure> {
        let permits = u32::try_from(bytes / BYTES_PER_PERMIT).unwrap_or(IN_FLIGHT_MAX) + 1;
        let closed = || Failure::SessionOver("closed".to_owned());
        let permit = self.inner.in_flight.acquire_many(permits.min(IN_FLIGHT_MAX)).await.map_err(|_| closed())?;
        self.connected().await?;
        let client = self.inner.client.read().expect("no panic holds this lock").clone();
        Ok((client.ok_or_else(closed)?, permit))
    }

    pub(super) fn budget(&self) -> &Arc<Budget> {
        &self.inner.budget
    }

    /// Ends the session now: its ephemerals go within milliseconds. Every later call of any clone fails.
    ///
    /// Waits for the server's answer for at most 2 s; without it the server still ends the session after T.
    pub async fn close(&self) {
        let client = self.inner.client.write().expect("no panic holds this lock").take();
        if client.is_none() {
            return;
        }
        drop(client);
        if timeout(Duration::from_secs(2), self.over()).await.is_err() {
            warn!(session = %format_args!("{:#x}", self.inner.id), "no answer to closing the session; it will time out");
        }
    }
}

/// Says every few seconds that ZooKeeper cannot be reached, and why.
async fn complain(zookeeper: &ConnectString) -> Infallible {
    let began = Instant::now();
    sleep(COMPLAIN_AFTER).await;
    loop {
        let cause = zookeeper.diagnose().await;
        warn!(servers = zookeeper.servers(), cause, lasted = ?began.elapsed(), "cannot reach ZooKeeper: still trying");
        sleep(COMPLAIN_EVERY).await;
    }
}

/// What one znode of a multi-read says beside data.
fn answer<T>(failure: Failure) -> Result<Answer<T>, Failure> {
    match failure {
        Failure::Refused(Refusal::NoNode) => Ok(Ok(None)),
        Failure::Refused(refusal) => Ok(Err(refusal)),
        Failure::Unknown(_) | Failure::SessionOver(_) => Err(failure),
    }
}

impl Inner {
    fn clock(&self) -> MutexGuard<'_, Clock> {
        self.clock.lock().expect("no panic holds this lock")
    }

    /// A write was answered. Says so where this machine's clock is found to be wrong.
    fn learn(&self, sent_at: Instant, results: &[zk::MultiWriteResult]) {
        let stamp_ms = results.iter().find_map(|result| match result {
            zk::MultiWriteResult::Create { stat, .. } | zk::MultiWriteResult::SetData { stat } => {
                (!stat.is_invalid() && stat.mtime > 0).then_some(stat.mtime) // ZOOKEEPER-4026, ZOOKEEPER-4667
            }
            _ => None,
        });
        let Some(stamp_ms) = stamp_ms else { return };
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

/// Turns the crate's states into ours. The crate coalesces them, so each change counts, whatever it says.
async fn observe(mut states: zk::StateWatcher, status: watch::Sender<Status>, id: i64) {
    let session = format!("{id:#x}");
    info!(%session, "session begun");
    let mut epoch = 0;
    let mut lost: Option<Instant> = None;
    loop {
        let changed = match lost {
            None => states.changed().await,
            Some(since) => match timeout(COMPLAIN_AFTER, states.changed()).await {
                Ok(changed) => changed,
                Err(_) => {
                    warn!(%session, lasted = ?since.elapsed(), "no connection to ZooKeeper: still trying");
                    continue;
                }
            },
        };
        let state = match changed {
            zk::SessionState::SyncConnected | zk::SessionState::ConnectedReadOnly => State::Connected,
            zk::SessionState::Disconnected => State::Disconnected,
            zk::SessionState::Expired | zk::SessionState::Closed | zk::SessionState::AuthFailed => State::Over,
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
async fn prove_life(inner: Weak<Inner>) {
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
            match session.sync().await {
                Ok(()) => continue,
                Err(Failure::SessionOver(_)) => return,
                Err(Failure::Refused(_) | Failure::Unknown(_)) => session.timeout() / 20,
            }
        };
        drop(session);
        sleep(pause).await;
    }
}
