//! Steps of `docs/protocol.md` that are more than one multi, for whichever role takes them: what is in the tree has to be read
//! first, and again where somebody else was faster. The multis themselves are in [`tree::transitions`].
//!
//! | file | the step |
//! |---|---|
//! | `close` | *close* |
//! | `end_without_success` | *complete* and *cancel*, of a task that is not done |

mod close;
mod end_without_success;

pub(crate) use close::{close, let_go, ties};
pub(crate) use end_without_success::{end_without_success, has_no_place};
