//! Herdsman: master/worker task processing on Apache ZooKeeper.

pub mod cli;
pub mod coordination;
pub mod handlers;
pub mod ledger;
pub mod plan;
pub mod records;
pub mod roles;
pub mod shutdown;
