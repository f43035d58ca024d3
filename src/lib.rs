//! Herdsman: master/worker task processing on Apache ZooKeeper.
//!
//! Clients submit tasks, an elected master assigns them, workers execute them, and all of them meet only in a ZooKeeper
//! tree. Any process may die, pause or be cut off at any moment, ZooKeeper servers too: no task is lost, none is
//! completed twice, and service goes on.
//!
//! # The map, from the top down
//!
//! | where | what it holds |
//! |---|---|
//! | `src/bin` | the three programs: flags, one call of the library, an exit code |
//! | [`cli`] | what the programs share, and `client stress`; with the feature `cli`, which is on by default |
//! | [`client`] | submit a job, receive each outcome, look at the herd |
//! | [`master`] | lead, or stand by to: observe, decide, write |
//! | [`worker`] | take assignments, run handlers, commit outcomes |
//! | [`handlers`] | what workers run: the trait that you implement, and `sleep`, `echo`, `exec` |
//! | [`run`](fn@run) | a role on one session after another |
//! | `steps` | steps of the protocol that are more than one multi, for whichever role takes them |
//! | `decide` | pure: what a master knows and assigns next, what else it does for jobs; what the submitter of a job does next |
//! | [`spill`] | payloads and results that are too large for the tree |
//! | `crates/tree` | what is stored in the tree: identifiers, paths, records, and each step of `docs/protocol.md` as a function |
//! | `crates/coordination` | sessions and recipes on ZooKeeper: election, membership, mirror, group commit; they know nothing of tasks |
//! | `crates/znode` | znodes, operations and refusals as values |
//!
//! And beside the herd: `crates/audit` judges it by ZooKeeper's own log, `crates/stress` puts load on a ZooKeeper service,
//! `crates/lab` has the faults, chaos and the report.
//!
//! Imports point downwards only; the crates see to that, and `tests/layers.rs` to the rest. The tree as a contract for other
//! languages is in `docs/protocol.md`.
//!
//! # Embedding
//!
//! ```no_run
//! use herdsman::{JobSpec, SessionConfig, open};
//!
//! # async fn submit() -> Result<(), Box<dyn std::error::Error>> {
//! let config = SessionConfig::new("127.0.0.1:2181/lab3".parse()?);
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
#[doc(hidden)] // public for its tests in tests/planner
pub mod decide;
pub mod handlers;
pub mod master;
mod run;
pub mod shutdown;
mod spawn;
pub mod spill;
mod steps;
pub mod worker;

pub use client::{Client, ClientError, Finished, FinishedStatus, Job, JobSpec, Results, open};
pub use coordination::{ConnectString, SessionConfig};
pub use handlers::{Handler, Handlers, Task, TaskError};
pub use master::Master;
pub use run::{Role, run};
pub use shutdown::Shutdown;
pub use tree::{JobId, Policy, TaskId};
pub use worker::Worker;
