//! Herdsman: master/worker task processing on Apache ZooKeeper.
//!
//! Clients submit tasks, an elected master assigns them, workers execute them, and all of them meet only in a ZooKeeper
//! tree. Any process may die, pause or be cut off at any moment, ZooKeeper servers too: no task is lost, none is
//! completed twice, and service goes on.
//!
//! # The map, in reading order
//!
//! | module | what it holds |
//! |---|---|
//! | [`records`] | what is stored in the tree: paths and JSON |
//! | [`handlers`] | what workers run: the trait that you implement, and `sleep`, `echo`, `exec`, `zkbench` |
//! | [`roles::client`] | submit a job, receive each outcome, look at the herd |
//! | [`roles::worker`] | take assignments, run handlers, commit outcomes |
//! | [`roles::master`] | lead: observe, plan, write |
//! | [`ledger`], [`plan`], [`duties`] | pure: what a master knows, what it assigns next, and what else it does for jobs |
//! | [`spill`] | payloads and results that are too large for the tree |
//! | [`stress`] | load on a ZooKeeper service: who does what, and what all of them measured |
//! | [`coordination`] | the recipes below all this: session, election, membership, mirror, group commit; they know nothing of tasks |
//! | [`audit`] | the judge: the protocol checked on ZooKeeper's own log |
//! | [`faults`] | a line that can be cut, for tests and scenarios |
//! | [`cli`], [`shutdown`] | what the three programs share |
//!
//! Imports point downwards only: programs over roles over pure decisions over records over coordination. The tree as a
//! contract for other languages is in `docs/protocol.md`.
//!
//! # Embedding
//!
//! ```no_run
//! use std::time::{Duration, SystemTime};
//!
//! use coordination::SessionConfig;
//! use herdsman::client::{JobSpec, open};
//!
//! # async fn submit() -> Result<(), Box<dyn std::error::Error>> {
//! let config = SessionConfig {
//!     zookeeper: "127.0.0.1:2181/lab3".parse()?,
//!     session_timeout: Duration::from_secs(10),
//!     create_chroot: false,
//!     wall_clock: SystemTime::now,
//! };
//! let (job, mut results) = open(&config, JobSpec::new("echo"), &mut rand::rng()).await?;
//! for n in 0..100 {
//!     job.submit(format!("task {n}").into_bytes()).await?; // acknowledged: it will be completed, once
//! }
//! job.seal().await?;
//! while let Some(finished) = results.next().await? {
//!     println!("{} {:?} {}", finished.task, finished.status, finished.result);
//! }
//! # Ok(())
//! # }
//! ```

#![warn(clippy::print_stdout, clippy::print_stderr)] // they panic where nobody takes it: cli::say and cli::note do not

#[cfg(feature = "cli")]
pub mod cli;
pub mod client;
mod closing;
pub mod decide;
pub mod handlers;
pub mod master;
mod run;
pub mod shutdown;
mod spawn;
pub mod spill;
mod unsuccessful;
pub mod worker;

pub use run::{Role, run};
