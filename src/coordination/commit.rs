//! Group commit: many small transactions in one multi.
//!
//! The first transaction leaves at once; while it is in flight the next ones gather, up to a count and a size, and
//! leave together. Latency at rest is untouched, and throughput grows with load. Source: the group commit of databases
//! (DeWitt et al., "Implementation techniques for main memory database systems", SIGMOD 1984).
//!
//! - A batch may begin with a *guard*, a check that makes all of it void once the process has lost its place.
//! - One refused operation fails its whole multi. It is taken out by its index and the rest is sent again, so that
//!   neighbours succeed.
//! - An answer that was lost is settled on the same session by a sync; then the batch is sent once more. Whoever
//!   commits chooses operations that are refused the second time, and learns by [`CommitError::Refused::resent`]
//!   that such a refusal may mean "was applied the first time".

use tokio::sync::{mpsc, oneshot};
use tracing::debug;

use super::failure::{Failure, Refusal};
use super::op::{MULTI_OPS_MAX, Op, REQUEST_BYTES_MAX};
use super::session::Session;

/// The size up to which a batch grows. One larger transaction still goes, alone.
const BATCH_BYTES: usize = 256 * 1024;

/// Why a transaction was not applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// The guard was refused: this process has lost its place, and nothing of the batch was applied.
    #[error("the guard was refused: {0}")]
    Guard(Refusal),
    /// An operation of this transaction was refused.
    #[error("operation {at} was refused: {refusal}")]
    Refused {
        /// Which operation of the transaction, counted from 0.
        at: usize,
        /// Why.
        refusal: Refusal,
        /// Whether the transaction was sent before and its answer lost: it may have been applied then.
        resent: bool,
    },
    /// The session ended; the transaction may have been applied before.
    #[error("the session is over: {0}")]
    SessionOver(String),
}

type Reply = oneshot::Sender<Result<(), CommitError>>;

struct Transaction {
    ops: Vec<Op>,
    bytes: usize,
    reply: Reply,
    resent: bool,
}

/// Commits transactions in groups, in the order of the calls. Dropping it ends its task after what was handed in.
#[derive(Clone, Debug)]
pub struct Committer {
    queue: mpsc::UnboundedSender<Transaction>,
}

impl Committer {
    /// `guard`, where given, heads every multi.
    pub fn start(session: Session, guard: Option<Op>) -> Self {
        let (queue, transactions) = mpsc::unbounded_channel();
        tokio::spawn(run(session, guard, transactions));
        Committer { queue }
    }

    /// Applies all of `ops` in one step, or none.
    ///
    /// The transaction is queued when this is called, not when the future is polled; dropping the future does not
    /// withdraw it.
    pub fn commit(&self, ops: Vec<Op>) -> impl Future<Output = Result<(), CommitError>> + Send + use<> {
        let bytes = ops.iter().map(Op::bytes).sum();
        let (reply, answer) = oneshot::channel();
        let queued = if bytes > REQUEST_BYTES_MAX {
            let refusal = Refusal::TooLarge { bytes, limit: REQUEST_BYTES_MAX };
            Err(CommitError::Refused { at: 0, refusal, resent: false })
        } else {
            self.queue
                .send(Transaction { ops, bytes, reply, resent: false })
                .map_err(|_| CommitError::SessionOver("closed".to_owned()))
        };
        async move {
            queued?;
            answer.await.unwrap_or_else(|_| Err(CommitError::SessionOver("closed".to_owned())))
        }
    }
}

async fn run(session: Session, guard: Option<Op>, mut transactions: mpsc::UnboundedReceiver<Transaction>) {
    let mut next = None;
    loop {
        let first = match next.take() {
            Some(transaction) => transaction,
            None => match transactions.recv().await {
                Some(transaction) => transaction,
                None => return,
            },
        };
        let (mut ops, mut bytes) = (first.ops.len(), first.bytes);
        let mut batch = vec![first];
        while let Ok(transaction) = transactions.try_recv() {
            ops += transaction.ops.len();
            bytes += transaction.bytes;
            if ops > MULTI_OPS_MAX || bytes > BATCH_BYTES {
                next = Some(transaction);
                break;
            }
            batch.push(transaction);
        }
        apply(&session, guard.as_ref(), batch).await;
    }
}

async fn apply(session: &Session, guard: Option<&Op>, mut batch: Vec<Transaction>) {
    while !batch.is_empty() {
        let ops: Vec<Op> = guard.into_iter().chain(batch.iter().flat_map(|t| &t.ops)).cloned().collect();
        let Err(error) = session.multi(&ops).await else {
            return batch.into_iter().for_each(|t| drop(t.reply.send(Ok(()))));
        };
        match (error.failure, error.at) {
            (Failure::Refused(refusal), Some(0)) if guard.is_some() => {
                return answer_all(batch, &CommitError::Guard(refusal));
            }
            (Failure::Refused(refusal), Some(at)) => {
                let (index, at) = locate(&batch, at - usize::from(guard.is_some()));
                let Transaction { reply, resent, .. } = batch.remove(index);
                let _ = reply.send(Err(CommitError::Refused { at, refusal, resent }));
            }
            (Failure::Refused(refusal), None) => {
                return answer_all(batch, &CommitError::Refused { at: 0, refusal, resent: false });
            }
            (Failure::Unknown(cause), _) => {
                debug!(%cause, "a commit was not answered: settling it");
                batch.iter_mut().for_each(|t| t.resent = true);
                if let Err(failure) = session.settle().await {
                    return answer_all(batch, &CommitError::SessionOver(failure.to_string()));
                }
            }
            (Failure::SessionOver(cause), _) => return answer_all(batch, &CommitError::SessionOver(cause)),
        }
    }
}

/// Which transaction holds operation `at` of the batch, and which of its operations it is.
fn locate(batch: &[Transaction], mut at: usize) -> (usize, usize) {
    for (index, transaction) in batch.iter().enumerate() {
        match at.checked_sub(transaction.ops.len()) {
            Some(rest) => at = rest,
            None => return (index, at),
        }
    }
    unreachable!("the server names an operation of the request")
}

fn answer_all(batch: Vec<Transaction>, error: &CommitError) {
    batch.into_iter().for_each(|t| drop(t.reply.send(Err(error.clone()))));
}
