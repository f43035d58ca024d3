//! The types of the `zookeeper-client` crate, turned into ours and back.

use znode::{Failure, Node, Op, Refusal};
use zookeeper_client as zk;
use zookeeper_client::Error as Zk;

/// A znode as the crate reads it.
pub(crate) fn node(data: Vec<u8>, stat: &zk::Stat) -> Node {
    Node {
        data,
        version: stat.version,
        czxid: stat.czxid,
        mzxid: stat.mzxid,
        owner: stat.ephemeral_owner,
        children: stat.num_children,
    }
}

/// One more operation of a multi.
pub(crate) fn add(op: &Op, multi: &mut zk::MultiWriter<'_>) -> Result<(), zk::Error> {
    let persistent = zk::CreateMode::Persistent.with_acls(zk::Acls::anyone_all());
    match op {
        // The crate takes any number here, and the server takes -1 for "any version".
        Op::Check { path, version } => multi.add_check_version(path, version.unwrap_or(-1)),
        Op::Create { path, data } => multi.add_create(path, data, &persistent),
        Op::CreateEphemeral { path, data, sequential } => {
            let mode = if *sequential { zk::CreateMode::EphemeralSequential } else { zk::CreateMode::Ephemeral };
            multi.add_create(path, data, &mode.with_acls(zk::Acls::anyone_all()))
        }
        Op::Set { path, data, version } => multi.add_set_data(path, data, *version),
        Op::Delete { path, version } => multi.add_delete(path, *version),
    }
}

/// Sorts every error of the client crate.
///
/// The crate's error type is `#[non_exhaustive]`, so the compiler insists on a last arm; it holds *unknown*, the one
/// answer that is never wrong. Each variant known today stands above it, and a test names each.
pub(crate) fn classify(error: Zk) -> Failure {
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
