//! Masters, workers and clients against a real ZooKeeper.

#[path = "../support/mod.rs"]
mod support;

mod client;
mod master;
mod policy;
mod stress;
mod submission;
mod worker;
