//! Faults for tests, scenarios and chaos, and the report about them; nothing that masters, workers and clients use.
//!
//! | file | what it holds |
//! |---|---|
//! | [`line`](mod@line) | a TCP proxy between a process and ZooKeeper that can be cut |
//! | [`frames`] | pure: ZooKeeper's requests and replies in a stream of bytes |
//! | [`cut_replies`] | pure: which replies to multis such a line cuts off, by count |
//! | [`schedule`] | pure: a seed in, faults out |
//! | [`witness`] | pure: the fencing tokens that a herd has given out |
//! | [`report`] | the page and the timelines about what scenarios left behind |
//! | [`chaos`] | a herd of processes, the faults of a schedule, and two verdicts: safe, and live once healed |

pub mod chaos;
pub mod cut_replies;
pub mod frames;
mod herd;
pub mod line;
mod neighbour;
pub mod report;
pub mod schedule;
pub mod witness;
