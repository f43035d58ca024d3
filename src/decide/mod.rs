//! Pure decisions: what a master knows, what it assigns next, and what else it does for jobs. No clock, no I/O, no await.

pub mod assign;
pub mod completion;
pub mod ledger;
pub mod upkeep;
