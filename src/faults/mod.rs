//! Faults, for tests, scenarios and chaos; nothing that masters, workers and clients use.
//!
//! | file | what it holds |
//! |---|---|
//! | [`line`](mod@line) | a TCP proxy between a process and ZooKeeper that can be cut |
//! | [`schedule`] | pure: a seed in, faults out |
//! | [`chaos`] | a herd of processes, the faults of a schedule, and two verdicts: safe, and live once healed |

pub mod chaos;
mod herd;
pub mod line;
pub mod schedule;
