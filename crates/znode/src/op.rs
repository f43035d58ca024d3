//! Znodes as they are read, and the operations of a multi.

use crate::{Failure, Refusal};

/// The most bytes that one request may carry: ZooKeeper drops connections at 1 MiB and names no reason.
pub const REQUEST_BYTES_MAX: usize = 900_000;
/// The most operations in one multi.
pub const MULTI_OPS_MAX: usize = 500;
/// What an operation costs in a request beside its path and data: headers, ACL, lengths.
const OP_OVERHEAD_BYTES: usize = 64;

/// A znode's data, and the parts of its Stat that herds use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// The data.
    pub data: Vec<u8>,
    /// How often the data was set since the znode's creation.
    pub version: i32,
    /// The transaction that created the znode: its identity, and its place in the order of creation.
    pub czxid: i64,
    /// The transaction that set the data last: of two states of one znode, and of any two znodes, the later has the greater.
    pub mzxid: i64,
    /// The session that owns it, where it is ephemeral; else 0.
    pub owner: i64,
    /// How many children it has.
    pub children: i32,
}

/// What one of many znodes said to a read: what was asked for, `None` where it is absent, or why it may not be read.
pub type Answer<T> = Result<Option<T>, Refusal>;

/// One operation of a multi. A version of `None` means any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Fails unless `path` exists, at `version`.
    Check {
        /// The znode.
        path: String,
        /// The version it must be at.
        version: Option<i32>,
    },
    /// Creates a persistent znode.
    Create {
        /// The znode.
        path: String,
        /// Its data.
        data: Vec<u8>,
    },
    /// Creates a znode that ends with the session; `sequential` appends a ten-digit number to its name.
    CreateEphemeral {
        /// The znode, or the beginning of its path.
        path: String,
        /// Its data.
        data: Vec<u8>,
        /// Whether ZooKeeper appends a number.
        sequential: bool,
    },
    /// Sets the data.
    Set {
        /// The znode.
        path: String,
        /// The new data.
        data: Vec<u8>,
        /// The version it must be at.
        version: Option<i32>,
    },
    /// Deletes the znode.
    Delete {
        /// The znode.
        path: String,
        /// The version it must be at.
        version: Option<i32>,
    },
}

impl Op {
    /// The znode that it is about; of a sequential create, the beginning of its path.
    pub fn path(&self) -> &str {
        match self {
            Op::Check { path, .. }
            | Op::Create { path, .. }
            | Op::CreateEphemeral { path, .. }
            | Op::Set { path, .. }
            | Op::Delete { path, .. } => path,
        }
    }

    /// What the operation adds to a request, in bytes.
    pub fn bytes(&self) -> usize {
        OP_OVERHEAD_BYTES
            + match self {
                Op::Check { path, .. } | Op::Delete { path, .. } => path.len(),
                Op::Create { path, data } | Op::CreateEphemeral { path, data, .. } | Op::Set { path, data, .. } => {
                    path.len() + data.len()
                }
            }
    }
}

/// A multi that failed: nothing of it was applied, or nothing is known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{failure}{}", .at.map(|i| format!(" (operation {i})")).unwrap_or_default())]
pub struct MultiFailure {
    /// The operation that was refused, counted from 0, where one was.
    pub at: Option<usize>,
    /// What it means.
    pub failure: Failure,
}

impl From<Failure> for MultiFailure {
    fn from(failure: Failure) -> Self {
        MultiFailure { at: None, failure }
    }
}
