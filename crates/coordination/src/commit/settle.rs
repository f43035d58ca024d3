//! What became of a batch whose answer was lost: found out by reading, never by sending again.

use znode::{Failure, Node, Op, Refusal};

use super::{CommitError, Transaction, answer_all};
use crate::reader::read_all;
use crate::session::Session;

/// Finds out what became of a batch whose answer was lost, and answers it; returns what is to be sent again: all of it where
/// it was not applied.
pub(super) async fn settle(session: &Session, guard: Option<&Op>, batch: Vec<Transaction>) -> Vec<Transaction> {
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
