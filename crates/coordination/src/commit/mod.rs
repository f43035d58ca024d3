//! Group commit: many small transactions in one multi.
//!
//! The first transaction leaves at once; while it is in flight the next ones gather, up to a count and a size, and
//! leave together. Latency at rest is untouched, and throughput grows with load. Source: the group commit of databases
//! (DeWitt et al., "Implementation techniques for main memory database systems", SIGMOD 1984).
//!
//! - A batch may begin with a *guard*, a check that makes all of it void once the process has lost its place.
//! - One refused operation fails its whole multi. It is taken out by its index and the rest is sent again, so that
//!   neighbours succeed. Before that the rest is looked at, where what is there tells of such refusals: what many have done
//!   already (two that cancel one job) is answered by that, and does not cost a round trip and a refused multi each.
//! - An answer that was lost is never met by sending again: what was applied may have been consumed since, and would be
//!   applied once more. It is settled by *reading*, on the same session after a sync: a multi is one step, so a single
//!   *witness* tells of all of it, and the whole batch is answered at once.
//!
//! | file | what it holds |
//! |---|---|
//! | here | gathering, sending, and taking out what is refused |
//! | `foretell` | what a refusal and a read tell of the other transactions of a batch |
//! | `settle` | what became of a batch whose answer was lost |
//!
//! The witness of a transaction is its first operation. Whoever commits chooses one whose effect tells: a create of a path
//! that nobody else creates, and that nobody removes while the guard holds; a delete of a path that is never created again;
//! a set at a version. Others (a set at any version, a check) tell nothing, and are sent again: they must be harmless twice.

mod foretell;
mod settle;

use std::time::Instant;

use tokio::sync::{mpsc, oneshot};
use tracing::{debug, warn};
use znode::{Failure, MULTI_OPS_MAX, Op, REQUEST_BYTES_MAX, Refusal};

use self::foretell::{Held, is_foretold, look_ahead};
use self::settle::settle;
use super::patience::Patience;
use super::reader::Appetite;
use super::session::{LOST_MAX, Session};

/// The size up to which a batch grows. One larger transaction still goes, alone.
const BATCH_BYTES: usize = 256 * 1024;

/// Why a transaction was not applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// The guard was refused: this process has lost its place. Nothing of the batch was applied, unless an answer was lost
    /// before that.
    #[error("the guard was refused: {0}")]
    Guard(Refusal),
    /// An operation of this transaction was refused.
    #[error("operation {at} was refused: {refusal}")]
    Refused {
        /// Which operation of the transaction, counted from 0.
        at: usize,
        /// Why.
        refusal: Refusal,
        /// Whether the answer was lost, and this is what a second try would be told: it may have been applied, and its effect
        /// consumed since.
        unanswered: bool,
    },
    /// The session ended; the transaction may have been applied before.
    #[error("the session is over: {0}")]
    SessionOver(String),
}

type Reply = oneshot::Sender<Result<(), CommitError>>;

struct Transaction {
    /// Its place in its batch, in the order of the calls.
    turn: usize,
    ops: Vec<Op>,
    bytes: usize,
    reply: Reply,
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
            Err(CommitError::Refused { at: 0, refusal, unanswered: false })
        } else {
            self.queue
                .send(Transaction { turn: 0, ops, bytes, reply })
                .map_err(|_| CommitError::SessionOver("closed".to_owned()))
        };
        async move {
            queued?;
            answer.await.unwrap_or_else(|_| Err(CommitError::SessionOver("closed".to_owned())))
        }
    }
}

async fn run(session: Session, guard: Option<Op>, mut transactions: mpsc::UnboundedReceiver<Transaction>) {
    let (mut next, mut appetite) = (None, Appetite::default());
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
        apply(&session, guard.as_ref(), batch, &mut appetite).await;
    }
}

async fn apply(session: &Session, guard: Option<&Op>, mut batch: Vec<Transaction>, appetite: &mut Appetite) {
    let mut held: Vec<Held> = Vec::new();
    let (mut lost, mut patience) = (0, Patience::default());
    batch.iter_mut().enumerate().for_each(|(turn, transaction)| transaction.turn = turn);
    while !batch.is_empty() {
        let ops: Vec<Op> = guard.into_iter().chain(batch.iter().flat_map(|t| &t.ops)).cloned().collect();
        let Err(error) = session.multi(&ops).await else {
            batch.into_iter().for_each(|t| drop(t.reply.send(Ok(()))));
            return held.into_iter().for_each(|held| answer_all(vec![held.transaction], &held.refused));
        };
        match (error.failure, error.at) {
            (Failure::Refused(refusal), Some(0)) if guard.is_some() => {
                return answer_all(with_held(batch, held), &CommitError::Guard(refusal));
            }
            (Failure::Refused(refusal), Some(at)) => {
                (lost, patience) = (0, Patience::default());
                let (index, at) = locate(&batch, at - usize::from(guard.is_some()));
                let may_be_foretold = is_foretold(&refusal);
                answer_all(vec![batch.remove(index)], &CommitError::Refused { at, refusal, unanswered: false });
                batch = with_held(batch, std::mem::take(&mut held));
                if may_be_foretold {
                    (batch, held) = look_ahead(session, batch, at, appetite).await;
                }
            }
            (Failure::Refused(refusal), None) => {
                let refused = CommitError::Refused { at: 0, refusal, unanswered: false };
                return answer_all(with_held(batch, held), &refused);
            }
            (Failure::Unknown(cause), _) if lost == LOST_MAX => {
                let over = CommitError::SessionOver(session.give_up(&cause).to_string());
                return answer_all(with_held(batch, held), &over);
            }
            (Failure::Unknown(cause), _) => {
                lost += 1;
                let transactions = batch.len();
                match patience.failed(Instant::now()) {
                    Some(lasted) => {
                        warn!(%cause, transactions, ?lasted, "a commit is not answered: settling it, again")
                    }
                    None => debug!(%cause, transactions, "a commit was not answered: settling it"),
                }
                batch = with_held(settle(session, guard, batch).await, std::mem::take(&mut held));
            }
            (Failure::SessionOver(cause), _) => {
                return answer_all(with_held(batch, held), &CommitError::SessionOver(cause));
            }
        }
    }
}

/// All of them, in the order of the calls.
fn with_held(mut batch: Vec<Transaction>, held: Vec<Held>) -> Vec<Transaction> {
    batch.extend(held.into_iter().map(|held| held.transaction));
    batch.sort_by_key(|t| t.turn);
    batch
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
