//! Masters, workers and clients against a real ZooKeeper.

#[path = "../support/mod.rs"]
mod support;

mod by_hand;
mod client;
mod clocks;
mod ending;
mod exec;
mod handlers;
mod health;
mod losses;
mod lost_replies;
mod master;
mod policy;
mod stress;
mod sweep;
mod unreadable;
mod worker;
