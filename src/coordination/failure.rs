//! What a failed ZooKeeper call means to its caller.
//!
//! Callers act on three cases only. *Refused*: the server said no and nothing changed. *Unknown*: the call may have
//! been applied, now or seconds later; only a sync and a read **on the same session** can tell. *Session over*: the
//! same doubt, and no session left to ask on; begin anew and rely on the guards of the transactions.

use zookeeper_client::Error as Zk;

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

impl Failure {
    /// The refusal, where this is one.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Failure::Refused(refusal) => Some(refusal),
            Failure::Unknown(_) | Failure::SessionOver(_) => None,
        }
    }
}

/// Sorts every error of the client crate.
///
/// The crate's error type is `#[non_exhaustive]`, so the compiler insists on a last arm; it holds *unknown*, the one
/// answer that is never wrong. Each variant known today stands above it, and a test names each.
pub(super) fn classify(error: Zk) -> Failure {
    let text = error.to_string();
    match error {
        Zk::NoNode => Failure::Refused(Refusal::NoNode),
        Zk::NodeExists => Failure::Refused(Refusal::NodeExists),
        Zk::BadVersion => Failure::Refused(Refusal::BadVersion),
        Zk::NotEmpty => Failure::Refused(Refusal::NotEmpty),
        Zk::NoAuth
        | Zk::InvalidAcl
        | Zk::NoChildrenForEphemerals
        | Zk::NotReadOnly
        | Zk::NoWatcher
        | Zk::QuotaExceeded
        | Zk::Throttled
        | Zk::MarshallingError
        | Zk::Unimplemented
        | Zk::ReconfigDisabled
        | Zk::RuntimeInconsistent
        | Zk::BadArguments(_) => Failure::Refused(Refusal::Other(text)),
        Zk::SessionExpired | Zk::AuthFailed | Zk::ClientClosed | Zk::NoHosts => Failure::SessionOver(text),
        Zk::ConnectionLoss
        | Zk::Timeout
        | Zk::SessionMoved
        | Zk::UnexpectedError(_)
        | Zk::UnexpectedErrorCode(_)
        | Zk::UnmarshalError { .. }
        | Zk::Custom(_) => Failure::Unknown(text),
        _ => Failure::Unknown(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hazard_7_only_a_definite_server_code_counts_as_refused() {
        let refused = [
            Zk::NoNode,
            Zk::NodeExists,
            Zk::BadVersion,
            Zk::NotEmpty,
            Zk::NoAuth,
            Zk::InvalidAcl,
            Zk::NoChildrenForEphemerals,
            Zk::NotReadOnly,
            Zk::NoWatcher,
            Zk::QuotaExceeded,
            Zk::Throttled,
            Zk::MarshallingError,
            Zk::Unimplemented,
            Zk::ReconfigDisabled,
            Zk::RuntimeInconsistent,
            Zk::BadArguments(&"x"),
        ];
        for error in refused {
            assert!(matches!(classify(error.clone()), Failure::Refused(_)), "{error:?}");
        }
        let unknown = [
            Zk::ConnectionLoss,
            Zk::Timeout,
            Zk::SessionMoved,
            Zk::UnexpectedError("reset".into()),
            Zk::UnexpectedErrorCode(-7),
            Zk::UnmarshalError { entity: "reply", reason: &"short" },
        ];
        for error in unknown {
            assert!(matches!(classify(error.clone()), Failure::Unknown(_)), "{error:?}");
        }
        for error in [Zk::SessionExpired, Zk::AuthFailed, Zk::ClientClosed, Zk::NoHosts] {
            assert!(matches!(classify(error.clone()), Failure::SessionOver(_)), "{error:?}");
        }
    }
}
