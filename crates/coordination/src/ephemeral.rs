//! Creating an ephemeral znode so that a lost reply does no harm.

use znode::{Failure, Op, Refusal, paths};

use super::session::{LOST_MAX, Session};

/// Creates an ephemeral znode at `path`, or, if `sequential`, at `path` with a number appended; returns its path.
///
/// `path` must be unique to this call (it holds a fresh uid): where the reply is lost, the znode is looked for under
/// that name, on the same session after a sync, and counts as created only if this session owns it.
///
/// Errors: refused, or session over.
pub async fn create(session: &Session, path: &str, data: &[u8], sequential: bool) -> Result<String, Failure> {
    let op = Op::CreateEphemeral { path: path.to_owned(), data: data.to_vec(), sequential };
    let mut unanswered = 0;
    loop {
        let refused = match session.write(op.clone()).await {
            Ok(created) => return Ok(created.unwrap_or_else(|| path.to_owned())),
            Err(Failure::Unknown(cause)) if unanswered == LOST_MAX => return Err(session.give_up(&cause)),
            Err(Failure::Unknown(_)) => None,
            // By an earlier try of ours, or by a znode of that name that is another's.
            Err(failure @ Failure::Refused(Refusal::NodeExists)) if unanswered > 0 => Some(failure),
            Err(failure) => return Err(failure),
        };
        unanswered += 1;
        session.settle().await?;
        match (find(session, path, sequential).await?, refused) {
            (Some(found), _) => return Ok(found),
            (None, Some(failure)) => return Err(failure),
            (None, None) => {}
        }
    }
}

async fn find(session: &Session, path: &str, sequential: bool) -> Result<Option<String>, Failure> {
    let found = if sequential {
        let parent = &path[..path.rfind('/').unwrap_or(0)];
        let names = session.children(parent).await?.unwrap_or_default();
        names.into_iter().find(|name| name.starts_with(paths::name(path))).map(|name| paths::join(parent, &name))
    } else {
        Some(path.to_owned())
    };
    let Some(found) = found else { return Ok(None) };
    let owner = session.get(&found).await?.map(|node| node.owner);
    Ok((owner == Some(session.id())).then_some(found))
}
