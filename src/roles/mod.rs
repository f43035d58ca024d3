//! The three roles. Each is a loop around a session that begins anew when the session ends; none of them talks to
//! another except through the tree.

pub mod client;
mod closing;
mod life;
pub mod master;
mod unsuccessful;
pub mod worker;

pub use life::{Role, run};
