//! The three roles. Each is a loop around a session that begins anew when the session ends; none of them talks to
//! another except through the tree.

pub mod client;
mod closing;
mod life;
pub mod master;
mod unsuccessful;
pub mod worker;

pub use life::{Role, run};

use crate::coordination::Refusal;

/// How often a transaction is tried that others make refused each time: those who keep to the protocol do so a few times at
/// most, whoever does not is not waited for.
const TRIES_MAX: usize = 20;

/// Others were faster each time.
fn gave_up(path: &str) -> Refusal {
    Refusal::Other(format!("others changed {path} {TRIES_MAX} times meanwhile: giving up"))
}
