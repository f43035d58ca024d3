//! What a failed ZooKeeper call means to its caller.
//!
//! Callers act on three cases only. *Refused*: the server said no and nothing changed. *Unknown*: the call may have
//! been applied, now or seconds later; only a sync and a read **on the same session** can tell. *Session over*: the
//! same doubt, and no session left to ask on; begin anew and rely on the guards of the transactions.

/// Why a call failed, sorted by what its caller has to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The server refused: nothing was changed.
    #[error("refused: {0}")]
    Refused(Refusal),
    /// The call may have been applied, or may still be.
    #[error("unknown whether it was applied: {0}")]
    Unknown(String),
    /// The session has ended; the call may have been applied before it did.
    #[error("the session is over: {0}")]
    SessionOver(String),
}

/// A definite no.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The znode, or its parent, is absent.
    #[error("no such znode")]
    NoNode,
    /// The znode is there already.
    #[error("the znode exists already")]
    NodeExists,
    /// The znode is at another version than the one named.
    #[error("the znode is at another version")]
    BadVersion,
    /// The znode has children.
    #[error("the znode has children")]
    NotEmpty,
    /// Refused here, before sending: the request would make the server drop the connection.
    #[error("{bytes} bytes are more than the {limit} that one request may carry")]
    TooLarge {
        /// Size of the request, in bytes.
        bytes: usize,
        /// The limit, in bytes.
        limit: usize,
    },
    /// Anything else: access denied, quota, bad arguments.
    #[error("{0}")]
    Other(String),
}
