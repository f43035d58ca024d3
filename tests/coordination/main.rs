//! The coordination core against a real ZooKeeper. Tests named after a hazard keep a rule of how ZooKeeper and its
//! client behave when things break.

#[path = "../support/mod.rs"]
mod support;

mod commit;
mod election;
mod mirror;
mod rendezvous;
mod session;
