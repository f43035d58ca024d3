//! What a refusal, and one read after it, tell of the other transactions of a batch.

use std::collections::{BTreeSet, HashMap, HashSet};

use znode::{Answer, Node, Op, Refusal};

use super::{CommitError, Transaction, answer_all};
use crate::reader::Appetite;
use crate::session::Session;

/// How much is read to look ahead after one refusal: versions are wanted, and payloads come with them.
const LOOK_AHEAD_BYTES: usize = 4 * 1024 * 1024;

/// A transaction that is refused once what is sent before it is applied, and how. It is sent only if that is not.
pub(super) struct Held {
    pub(super) transaction: Transaction,
    pub(super) refused: CommitError,
}

/// Whether what is there tells that another operation would be refused like this.
pub(super) fn is_foretold(refusal: &Refusal) -> bool {
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
pub(super) async fn look_ahead(
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
