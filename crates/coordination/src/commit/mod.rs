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
//! The witness of a transaction is its first operation. Whoever commits chooses one whose effect tells: a create of a path
//! that nobody else creates, and that nobody removes while the guard holds; a delete of a path that is never created again;
//! a set at a version. Others (a set at any version, a check) tell nothing, and are sent again: they must be harmless twice.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Instant;

use tokio::sync::{mpsc, oneshot};
use tracing::{debug, warn};
use znode::{Answer, Failure, MULTI_OPS_MAX, Node, Op, REQUEST_BYTES_MAX, Refusal};

use super::patience::Patience;
use super::reader::{Appetite, read_all};
use super::session::{LOST_MAX, Session};

/// The size up to which a batch grows. One larger transaction still goes, alone.
const BATCH_BYTES: usize = 256 * 1024;
/// How much is read to look ahead after one refusal: versions are wanted, and payloads come with them.
const LOOK_AHEAD_BYTES: usize = 4 * 1024 * 1024;

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

/// A transaction that is refused once what is sent before it is applied, and how. It is sent only if that is not.
struct Held {
    transaction: Transaction,
    refused: CommitError,
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

/// Whether what is there tells that another operation would be refused like this.
fn is_foretold(refusal: &Refusal) -> bool {
    match refusal {
        Refusal::NoNode | Refusal::NodeExists | Refusal::BadVersion => true,
        Refusal::NotEmpty | Refusal::TooLarge { .. } | Refusal::Other(_) => false,
    }
}

/// After operation `at` of a transaction was refused: reads what the others begin with, and what they have at that place,
/// and answers those that would be refused. Returns those to be sent, and those that one of these makes refused.
///
/// The read shows the tree as of that refusal or later, and all of these were asked for before it: a refusal that it foretells
/// is as good as the server's.
async fn look_ahead(
    session: &Session,
    batch: Vec<Transaction>,
    at: usize,
    appetite: &mut Appetite,
) -> (Vec<Transaction>, Vec<Held>) {
    if batch.len() < 2 {
        return (batch, Vec::new());
    }
    let places = BTreeSet::from([0, at]);
    let asked = batch.iter().flat_map(|t| places.iter().filter_map(|at| t.ops.get(*at)));
    let paths: BTreeSet<String> = asked.map(|op| op.path().to_owned()).collect();
    // What cannot be read, or is not for its size, tells nothing: the server will.
    let asked: Vec<&str> = paths.iter().map(String::as_str).collect();
    let nodes = appetite.read_some(session, &asked, LOOK_AHEAD_BYTES).await.unwrap_or_default();
    let seen = |answer: Answer<Node>| match answer {
        Ok(Some(node)) => Seen::At(node.version),
        Ok(None) => Seen::Absent,
        Err(_) => Seen::Unknown,
    };
    let mut tree: HashMap<String, Seen> = paths.into_iter().zip(nodes.into_iter().map(seen)).collect();
    let mut written: HashSet<String> = HashSet::new();
    let (mut now, mut held) = (Vec::new(), Vec::new());
    for transaction in batch {
        match foretell(&transaction.ops, &mut tree) {
            Ok(()) => {
                written.extend(transaction.ops.iter().map(|op| op.path().to_owned()));
                now.push(transaction);
            }
            Err((at, refusal)) => {
                let refused = CommitError::Refused { at, refusal, unanswered: false };
                if written.contains(transaction.ops[at].path()) {
                    held.push(Held { transaction, refused });
                } else {
                    answer_all(vec![transaction], &refused);
                }
            }
        }
    }
    (now, held)
}

/// A znode as it is, or as what is sent first leaves it.
#[derive(Clone, Copy)]
enum Seen {
    Unknown,
    Absent,
    At(i32),
}

/// Whether all of `ops` would be applied, as far as is known; `tree` is then as they leave it. Else which would be refused,
/// and how.
fn foretell(ops: &[Op], tree: &mut HashMap<String, Seen>) -> Result<(), (usize, Refusal)> {
    let mut then: HashMap<&str, Seen> = HashMap::new();
    for (at, op) in ops.iter().enumerate() {
        let path = op.path();
        let seen = then.get(path).or_else(|| tree.get(path)).copied().unwrap_or(Seen::Unknown);
        let left = match (op, seen) {
            (Op::CreateEphemeral { sequential: true, .. }, _) => continue, // this is no path of its own
            (Op::Create { .. } | Op::CreateEphemeral { .. }, Seen::At(_)) => return Err((at, Refusal::NodeExists)),
            (Op::Create { .. } | Op::CreateEphemeral { .. }, Seen::Absent | Seen::Unknown) => Seen::At(0),
            (_, Seen::Absent) => return Err((at, Refusal::NoNode)),
            (
                Op::Check { version: Some(asked), .. }
                | Op::Set { version: Some(asked), .. }
                | Op::Delete { version: Some(asked), .. },
                Seen::At(version),
            ) if *asked != version => return Err((at, Refusal::BadVersion)),
            (Op::Set { .. }, Seen::At(version)) => Seen::At(version + 1),
            (Op::Set { version: Some(version), .. }, Seen::Unknown) => Seen::At(version + 1),
            (Op::Delete { .. }, _) => Seen::Absent,
            (Op::Check { .. } | Op::Set { version: None, .. }, seen) => seen,
        };
        then.insert(path, left);
    }
    tree.extend(then.into_iter().map(|(path, seen)| (path.to_owned(), seen)));
    Ok(())
}

/// Finds out what became of a batch whose answer was lost, and answers it; returns what is to be sent again: all of it where
/// it was not applied.
async fn settle(session: &Session, guard: Option<&Op>, batch: Vec<Transaction>) -> Vec<Transaction> {
    let read = match session.settle().await {
        Ok(()) => witnesses(session, guard, &batch).await,
        Err(failure) => Err(failure),
    };
    let told = match read {
        Ok(Ok(told)) => told,
        Ok(Err(refusal)) => {
            answer_all(batch, &CommitError::Guard(refusal));
            return Vec::new();
        }
        Err(Failure::Refused(refusal)) => {
            answer_all(batch, &unanswered(refusal));
            return Vec::new();
        }
        Err(failure) => {
            answer_all(batch, &CommitError::SessionOver(failure.to_string()));
            return Vec::new();
        }
    };
    if told.contains(&Told::NotApplied) {
        return batch;
    }
    if told.contains(&Told::Applied) {
        batch.into_iter().for_each(|t| drop(t.reply.send(Ok(()))));
        return Vec::new();
    }
    // What is absent was made and removed since, where anything else of the batch was consumed.
    let by_others = |told: &Told| matches!(told, Told::Refused(refusal) if !matches!(refusal, Refusal::Other(_)));
    let consumed = told.iter().any(by_others);
    let mut again = Vec::new();
    for (transaction, told) in batch.into_iter().zip(told) {
        match told {
            Told::Refused(refusal) => answer_all(vec![transaction], &unanswered(refusal)),
            Told::Absent if consumed => answer_all(vec![transaction], &unanswered(Refusal::NoNode)),
            Told::Applied | Told::NotApplied | Told::Absent | Told::Nothing => again.push(transaction),
        }
    }
    again
}

/// What the witnesses tell, or why the guard does not hold any more. One is enough where it tells whether the multi was
/// applied: they may be large by now, outcomes of what was submitted.
async fn witnesses(
    session: &Session,
    guard: Option<&Op>,
    batch: &[Transaction],
) -> Result<Result<Vec<Told>, Refusal>, Failure> {
    let (first, rest) = batch.split_at(1);
    let mut told = Vec::new();
    for some in [first, rest] {
        // The guard is read last: as long as it holds, nobody else may have removed what the batch made.
        let paths: Vec<&str> = some.iter().map(|t| t.ops[0].path()).chain(guard.map(Op::path)).collect();
        let mut nodes = read_all(session, &paths).await?;
        if let Some(guard) = guard {
            let node = nodes.pop().unwrap_or(Ok(None)).map_err(Failure::Refused)?;
            if let Err(refusal) = still_holds(guard, node.as_ref()) {
                return Ok(Err(refusal));
            }
        }
        for (transaction, node) in some.iter().zip(nodes) {
            // What may not be read tells nothing, and is not sent again either.
            told.push(
                node.map_or_else(Told::Refused, |node| self::told(&transaction.ops[0], node.as_ref(), session.id())),
            );
        }
        if matches!(told[0], Told::Applied | Told::NotApplied) {
            break;
        }
    }
    Ok(Ok(told))
}

/// A second try of a transaction whose answer was lost would be refused like this.
fn unanswered(refusal: Refusal) -> CommitError {
    CommitError::Refused { at: 0, refusal, unanswered: true }
}

/// What a witness tells of the multi that it was part of.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Told {
    /// It was applied: what it makes is there.
    Applied,
    /// It was not: what it removes or replaces is there.
    NotApplied,
    /// What it creates is not there. It was not applied, unless that was removed since, which another witness may tell.
    Absent,
    /// A second try would be refused like this: it was applied, or somebody else was faster.
    Refused(Refusal),
    Nothing,
}

fn told(op: &Op, node: Option<&Node>, session: i64) -> Told {
    match (op, node) {
        (Op::Create { .. }, Some(_)) => Told::Applied,
        (Op::CreateEphemeral { sequential: false, .. }, Some(node)) if node.owner == session => Told::Applied,
        (Op::CreateEphemeral { sequential: false, .. }, Some(_)) => Told::Refused(Refusal::NodeExists),
        (Op::Create { .. } | Op::CreateEphemeral { sequential: false, .. }, None) => Told::Absent,
        (Op::Delete { .. }, Some(_)) => Told::NotApplied,
        (Op::Set { version: Some(version), .. }, Some(node)) if node.version == *version => Told::NotApplied,
        (Op::Set { version: Some(version), data, .. }, Some(node))
            if node.version == version + 1 && node.data == *data =>
        {
            Told::Applied
        }
        (Op::Set { version: Some(_), .. }, Some(_)) => Told::Refused(Refusal::BadVersion),
        (Op::Delete { .. } | Op::Set { .. }, None) => Told::Refused(Refusal::NoNode),
        (Op::Set { version: None, .. } | Op::Check { .. } | Op::CreateEphemeral { sequential: true, .. }, _) => {
            Told::Nothing
        }
    }
}

/// Whether a guard would be passed, or how it would be refused.
fn still_holds(guard: &Op, node: Option<&Node>) -> Result<(), Refusal> {
    match (guard, node) {
        (_, None) => Err(Refusal::NoNode),
        (Op::Check { version: Some(version), .. }, Some(node)) if node.version != *version => Err(Refusal::BadVersion),
        (_, Some(_)) => Ok(()),
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
