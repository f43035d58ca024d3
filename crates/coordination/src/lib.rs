//! The coordination core: ZooKeeper recipes that know nothing of tasks, usable on their own.
//!
//! | file | what it holds |
//! |---|---|
//! | [`connect`] | where ZooKeeper is, and why it cannot be reached |
//! | [`session`] | connecting, the session's life, reads and multis, within limits |
//! | [`clock`] | what time it is by ZooKeeper's clock |
//! | [`lease`] | how long a process may trust its session |
//! | [`patience`] | when what is tried again and again is worth a word |
//! | [`watch`] | one-shot and recursive watches, within a budget |
//! | [`commit`] | group commit: many transactions in one multi |
//! | [`reader`] | the same for reads |
//! | [`mirror`] | a subtree kept in step by a recursive watch and reconciliation |
//! | [`ephemeral`] | creating an ephemeral znode so that a lost reply does no harm |
//! | [`election`] | leader election by ephemeral sequential znodes |
//! | [`membership`] | group membership by ephemeral znodes |
//! | [`rendezvous`] | barriers: a conductor and its members go from point to point together |
//! | `store` | the few verbs that carry a session, and the stores that have them |
//! | `zookeeper` | Apache ZooKeeper as a store: nothing else imports the `zookeeper-client` crate |
//! | [`bare`] | a session of ZooKeeper's without safeguards, for measuring a service |

pub mod clock;
pub mod commit;
pub mod connect;
pub mod election;
pub mod ephemeral;
pub mod lease;
pub mod membership;
pub mod mirror;
pub mod patience;
pub mod reader;
pub mod rendezvous;
pub mod session;
mod store;
pub mod watch;
mod zookeeper;

pub use commit::{CommitError, Committer};
pub use connect::{ConnectError, ConnectString, SessionConfig};
pub use election::{Candidacy, Leadership};
pub use lease::Lease;
pub use membership::Registration;
pub use mirror::{Change, Mirror, Scope};
pub use patience::Patience;
pub use reader::{Reader, read_all};
pub use session::{Session, State, Status};
pub use znode::{Answer, Failure, MultiFailure, Node, Op, Refusal};
pub use zookeeper::bare;
