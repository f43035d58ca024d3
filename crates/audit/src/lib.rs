//! The auditor: judges a herd by ZooKeeper's own transaction log, which holds every write that was made or refused, in
//! one total order, with its session and time. It knows nothing of what the programs say of themselves.
//!
//! | file | what it holds |
//! |---|---|
//! | [`log`] | the log files of one server or of an ensemble, read into one sequence of records |
//! | [`txn`] | what a record says: ZooKeeper's binary encoding |
//! | [`replay`] | the tree as it was at each zxid |
//! | [`rules`] | the invariants of the protocol, checked at every zxid |
//! | `timeline` | what happened when, for reports; judges nothing |
//! | [`verdict`] | what came out: violations and figures |

pub mod log;
pub mod replay;
pub mod rules;
mod timeline;
pub mod txn;
pub mod verdict;

use std::path::Path;

pub use log::LogError;
pub use verdict::{Figures, Leader, Life, Span, SpanEnd, Verdict, Violation};

/// What is demanded of the end of the logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Nothing: the herd may be at work.
    Open,
    /// Every task has ended, or is dead: the run had its time.
    Settled,
}

/// Reads all logs below the given folders (the data folder of each server of one ensemble) and judges the herd below
/// `chroot` (`""` for none).
///
/// Errors: a folder without a log, or one that cannot be read.
pub fn audit(folders: &[&Path], chroot: &str, ending: Ending) -> Result<Verdict, LogError> {
    let history = log::History::read(folders)?;
    let mut rules = rules::Rules::new(chroot);
    for record in &history.records {
        rules.apply(record);
    }
    Ok(rules.verdict(&history, ending))
}
