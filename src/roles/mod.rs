//! The three roles. Each is a loop around a session that begins anew when the session ends; none of them talks to
//! another except through the tree.

pub mod client;
mod closing;
mod life;
pub mod master;
mod unsuccessful;
pub mod worker;

use std::time::{SystemTime, UNIX_EPOCH};

pub use life::{Role, run};

/// The moment by the clock of this machine, in milliseconds since 1970.
pub(crate) fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}
