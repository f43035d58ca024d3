//! Apache ZooKeeper's znodes as values, without a client: what is read of them, what is asked of them, and what a failed
//! call means. Whatever decides what is to be written needs no more than this.
//!
//! | file | what it holds |
//! |---|---|
//! | [`paths`] | joining and splitting paths, the number of a sequential znode |
//! | [`Node`], [`Op`] | a znode as it is read, and the operations of a multi |
//! | [`Failure`], [`Refusal`] | refused, unknown, or session over |

mod failure;
mod op;
pub mod paths;

pub use failure::{Failure, Refusal};
pub use op::{Answer, MULTI_OPS_MAX, MultiFailure, Node, Op, REQUEST_BYTES_MAX};
