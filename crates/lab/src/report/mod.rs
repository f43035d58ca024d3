//! The report: what was run and what held, written from what the scenarios left behind. Every figure is of that run.
//!
//! | file | what it holds |
//! |---|---|
//! | [`case`] | one scenario's folder: what it checked, its faults, the audit of its ZooKeeper's logs |
//! | [`timeline`] | a picture of a case: lanes for masters, workers, clients and servers over time |
//! | [`text`] | the page |

pub mod case;
pub mod text;
pub mod timeline;
