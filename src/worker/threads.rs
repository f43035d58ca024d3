//! Where handlers run: on threads of their own, but for the lightest of ours.
//!
//! The session and its lease live on the runtime of the program. A handler that blocks its thread, on every core, delays
//! other handlers at most; and what a handler starts ends with these threads and not with the worker's.

use std::thread;
use std::time::Duration;

use tokio::runtime::{Builder, Handle, Runtime};
use tracing::debug;

use crate::spawn::blocking;

/// One thread for each slot up to this: then no handler that blocks delays another.
const THREADS_MAX: usize = 64;
/// How long the end of what was stopped is waited for.
const END_GRACE: Duration = Duration::from_secs(1);
/// How often [`Threads::wake_one`] is to be called while anything runs.
pub(super) const WAKE_EVERY: Duration = Duration::from_millis(50);

/// The threads of one worker's handlers, started when they are first needed.
pub(super) struct Threads {
    number: usize,
    runtime: Option<Runtime>,
}

impl Threads {
    /// For so many tasks at once.
    pub(super) fn new(slots: u32) -> Self {
        Threads { number: (slots as usize).clamp(1, THREADS_MAX), runtime: None }
    }

    /// Where to spawn.
    ///
    /// Errors: what is lacking to start threads.
    pub(super) fn handle(&mut self) -> Result<&Handle, String> {
        let runtime = match self.runtime.take() {
            Some(runtime) => runtime,
            None => start(self.number)?,
        };
        Ok(self.runtime.insert(runtime).handle())
    }

    /// Wakes an idle thread, which then looks after clocks and sockets. Of these threads one does that at a time; if it runs into
    /// a handler that blocks, nobody does it, and every other handler waits, until something wakes another thread.
    pub(super) fn wake_one(&self) {
        if let Some(runtime) = &self.runtime {
            drop(runtime.spawn(async {}));
        }
    }

    /// Drops everything that still runs there, and waits until that is done; not for what blocks.
    pub(super) async fn stop(mut self) {
        if self.runtime.is_none() {
            return;
        }
        let end = move || {
            if let Some(runtime) = self.runtime.take() {
                runtime.shutdown_timeout(END_GRACE);
            }
        };
        // Without a thread for it nobody waits: dropped, it is as below.
        if let Err(error) = blocking(end).await {
            debug!(%error, "not waiting for the handlers to end");
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background(); // to wait here is not allowed
        }
    }
}

/// On a thread of its own, because it panics where the machine has no thread for it.
fn start(threads: usize) -> Result<Runtime, String> {
    let build = move || Builder::new_multi_thread().worker_threads(threads).thread_name("handler").enable_all().build();
    let started = thread::Builder::new().name("handlers".to_owned()).spawn(build).map(thread::JoinHandle::join);
    match started {
        Ok(Ok(Ok(runtime))) => Ok(runtime),
        Ok(Ok(Err(error))) | Err(error) => Err(format!("cannot start {threads} threads: {error}")),
        Ok(Err(_)) => Err(format!("cannot start {threads} threads")),
    }
}
