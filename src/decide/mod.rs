//! Pure decisions: no clock, no I/O, no await; what happened comes in, what is to be done goes out.
//!
//! | module | what is decided |
//! |---|---|
//! | [`ledger`], [`assign`] | what a master knows, and what it assigns next |
//! | [`upkeep`] | what else it does for jobs |
//! | [`completion`] | what a worker writes when an attempt has ended, and what a refusal of that means |
//! | `submission` | what the submitter of a job does next |

pub mod assign;
pub mod completion;
pub mod ledger;
pub(crate) mod submission;
pub mod upkeep;
