//! Where handlers run: on threads of their own.
//!
//! The session and its lease live on the runtime of the program. A handler that blocks its thread, on every core, delays
//! other handlers at most; and what a handler starts ends with these threads and not with the worker's.

use std::time::Duration;

use tokio::runtime::{Builder, Handle, Runtime};

/// One for each slot, within these bounds: then no handler that blocks delays another. Where it has started something itself
/// that blocks, there is one more.
const THREADS_MIN: usize = 2;
const THREADS_MAX: usize = 64;
/// How long the end of what was stopped is waited for.
const END_GRACE: Duration = Duration::from_secs(1);

/// How often [`Threads::attend`] is to be called while anything runs.
pub(super) const ATTEND_EVERY: Duration = Duration::from_millis(50);

/// The threads of one worker's handlers.
pub(super) struct Threads(Option<Runtime>);

impl Threads {
    pub(super) fn start(slots: u32) -> std::io::Result<Self> {
        let threads = (slots as usize).clamp(THREADS_MIN, THREADS_MAX);
        Builder::new_multi_thread()
            .worker_threads(threads)
            .thread_name("handler")
            .enable_all()
            .build()
            .map(|r| Threads(Some(r)))
    }

    pub(super) fn handle(&self) -> &Handle {
        self.0.as_ref().expect("until it is stopped").handle()
    }

    /// Wakes an idle thread, which then looks after clocks and sockets. Of these threads one does that at a time; if it runs into
    /// a handler that blocks, nobody does it, and every other handler waits, until something wakes another thread.
    pub(super) fn attend(handle: &Handle) {
        drop(handle.spawn(async {}));
    }

    /// Drops everything that still runs there, and waits until that is done; not for what blocks.
    pub(super) async fn stop(mut self) {
        if let Some(runtime) = self.0.take() {
            let _ = tokio::task::spawn_blocking(move || runtime.shutdown_timeout(END_GRACE)).await;
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background(); // to wait here is not allowed
        }
    }
}
