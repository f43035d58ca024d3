//! Pure decisions: what a master knows, what it assigns next, what else it does for jobs, and how a
//! worker ends an attempt. No clock, no I/O, no await.

pub mod assign;
pub mod completion;
pub mod ledger;
pub mod upkeep;
