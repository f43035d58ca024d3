//! The calls on a session: what is sent, within the limits of what may be in flight, and what is done where an answer is lost.

use std::time::{Duration, Instant};

use tokio::sync::SemaphorePermit;
use tokio::time::sleep;
use tracing::warn;
use znode::{Answer, Failure, MultiFailure, Node, Op, REQUEST_BYTES_MAX, Refusal};

use super::{IN_FLIGHT_MAX, Session};
use crate::patience::Patience;
use crate::store::{Engine, Store, on};
use crate::watch::{NodeWatch, Share, TreeWatch};

/// How much of a request one permit stands for.
const BYTES_PER_PERMIT: usize = 16 * 1024;
/// How many answers to one call may be lost in a row. It takes as many connections, on each of which something was answered.
pub(crate) const LOST_MAX: u32 = 10;

impl Session {
    /// Waits until every earlier call of this session has been applied or never will be. What is read on this session
    /// afterwards tells what became of each call whose answer was lost.
    ///
    /// Errors: session over, if it ends first.
    pub async fn settle(&self) -> Result<(), Failure> {
        let mut patience = Patience::default();
        loop {
            self.connected().await?;
            match self.proving(|engine| async move { on!(Engine, &engine, store => store.settle().await) }).await {
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

    /// Waits until what is read on this session shows every write acknowledged so far, to anybody.
    ///
    /// Errors: refused, or session over.
    pub async fn refresh(&self) -> Result<(), Failure> {
        self.repeat(|| async move {
            let (engine, _permit) = self.begin(0).await?;
            on!(Engine, &engine, store => store.refresh().await)
        })
        .await
    }

    /// Proves that the session lives, and renews its lease by that.
    ///
    /// Errors: unknown, too.
    pub(super) async fn prove(&self) -> Result<(), Failure> {
        self.proving(|engine| async move { on!(Engine, &engine, store => store.prove().await) }).await
    }

    /// Makes a call whose answer proves that the session lived when it was sent.
    async fn proving<F>(&self, call: impl FnOnce(Engine) -> F) -> Result<(), Failure>
    where
        F: Future<Output = Result<(), Failure>>,
    {
        let (engine, _permit) = self.begin(0).await?;
        let sent_at = Instant::now();
        call(engine).await?;
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
        let (engine, _permit) = self.begin(bytes).await?;
        let sent_at = Instant::now();
        let applied = on!(Engine, &engine, store => store.multi(ops).await);
        if applied.proves {
            self.inner.lease.renew(sent_at);
        }
        if let Some(at_ms) = applied.at_ms {
            self.inner.learn(sent_at, at_ms);
        }
        applied.outcome
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
    pub(crate) fn give_up(&self, cause: &str) -> Failure {
        warn!(session = ?self, cause, "giving the session up: a call was not answered {LOST_MAX} times in a row");
        drop(self.inner.engine.write().expect("no panic holds this lock").take());
        Failure::SessionOver(format!("given up, as a call was not answered {LOST_MAX} times in a row: {cause}"))
    }

    /// The znode, or `None` where it is absent.
    ///
    /// Reads change nothing, so one whose answer was lost is repeated: all reads fail only where the server refuses or the
    /// session is over.
    pub async fn get(&self, path: &str) -> Result<Option<Node>, Failure> {
        alone(self.get_many(&[path]).await?)
    }

    /// The names of the children in no order, or `None` where the znode is absent.
    pub async fn children(&self, path: &str) -> Result<Option<Vec<String>>, Failure> {
        alone(self.children_many(&[path]).await?)
    }

    /// Many znodes in one request: all at one moment, in the order asked for. Each answers for itself, so that one that may
    /// not be read takes none of its neighbours with it. How large the answer is only the caller can limit; see
    /// [`read_all`](crate::reader::read_all).
    pub async fn get_many<P: AsRef<str> + Sync>(&self, paths: &[P]) -> Result<Vec<Answer<Node>>, Failure> {
        self.repeat(|| async move {
            let (engine, _permit) = self.begin(bytes(paths)).await?;
            on!(Engine, &engine, store => store.get_many(paths).await)
        })
        .await
    }

    /// The children of many znodes in one request, in the order asked for; each answers for itself.
    pub async fn children_many<P: AsRef<str> + Sync>(&self, paths: &[P]) -> Result<Vec<Answer<Vec<String>>>, Failure> {
        self.repeat(|| async move {
            let (engine, _permit) = self.begin(bytes(paths)).await?;
            on!(Engine, &engine, store => store.children_many(paths).await)
        })
        .await
    }

    /// The session that owns a znode, 0 where it has none; `None` where it is absent. ZooKeeper 3.8 tells it even of a znode
    /// that may not be read.
    pub async fn owner(&self, path: &str) -> Result<Option<i64>, Failure> {
        self.repeat(|| async move {
            let (engine, _permit) = self.begin(path.len()).await?;
            on!(Engine, &engine, store => store.owner(path).await)
        })
        .await
    }

    /// Reads a znode and watches it; where it is absent, watches for its creation.
    ///
    /// Errors: refused, or session over.
    pub async fn watch_node(&self, path: &str) -> Result<(Option<Node>, NodeWatch), Failure> {
        self.repeat(|| async move {
            let share = Share::take(&self.inner.budget, path)?;
            let (engine, _permit) = self.begin(path.len()).await?;
            let (node, watch) = on!(Engine, &engine, store => store.watch_znode(path).await)?;
            Ok((node, NodeWatch::new(watch, share)))
        })
        .await
    }

    /// The names of a znode's children, and a watch that fires when one is created or deleted.
    ///
    /// Errors: refused, also where the znode is absent; or session over.
    pub async fn watch_children(&self, path: &str) -> Result<(Vec<String>, NodeWatch), Failure> {
        let watch = self.repeat(|| async move {
            let share = Share::take(&self.inner.budget, path)?;
            let (engine, _permit) = self.begin(path.len()).await?;
            let watch = on!(Engine, &engine, store => store.watch_children(path).await)?;
            Ok(NodeWatch::new(watch, share))
        });
        let watch = watch.await?;
        Ok((self.children(path).await?.unwrap_or_default(), watch))
    }

    /// Watches a znode and everything below it, present or not.
    ///
    /// Errors: unknown, too: whoever sets it anew in each epoch would set it twice.
    pub async fn watch_tree(&self, path: &str) -> Result<TreeWatch, Failure> {
        let share = Share::take(&self.inner.budget, path)?;
        let (engine, _permit) = self.begin(path.len()).await?;
        let watch = on!(Engine, &engine, store => store.watch_tree(path).await)?;
        Ok(TreeWatch::new(watch, share))
    }

    /// The store for one call of about `bytes`, once connected and within the limits of what may be in flight.
    async fn begin(&self, bytes: usize) -> Result<(Engine, SemaphorePermit<'_>), Failure> {
        let permits = u32::try_from(bytes / BYTES_PER_PERMIT).unwrap_or(IN_FLIGHT_MAX) + 1;
        let closed = || Failure::SessionOver("closed".to_owned());
        let permit = self.inner.in_flight.acquire_many(permits.min(IN_FLIGHT_MAX)).await.map_err(|_| closed())?;
        self.connected().await?;
        let engine = self.inner.engine.read().expect("no panic holds this lock").clone();
        Ok((engine.ok_or_else(closed)?, permit))
    }
}

/// How much these paths add to a request.
fn bytes(paths: &[impl AsRef<str>]) -> usize {
    paths.iter().map(|path| path.as_ref().len()).sum()
}

/// The answer to a question about one znode.
fn alone<T>(answers: Vec<Answer<T>>) -> Result<Option<T>, Failure> {
    answers.into_iter().next().expect("an answer for each path").map_err(Failure::Refused)
}
