//! Work that blocks, off the thread of the session.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use tokio::sync::{Semaphore, oneshot};

/// How many threads this process has for it at a time; more waits.
static THREADS: Semaphore = Semaphore::const_new(128);

/// Runs a job that blocks on a thread of its own. Once begun it goes on, also where nobody waits for it any more.
///
/// For this and not `tokio::task::spawn_blocking`, which panics where the machine has no thread for it, and so ends a program
/// for a moment's shortage. Errors: there is no thread for it, and it was dropped; or it panicked.
pub(crate) async fn blocking<T: Send + 'static>(job: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    let permit = THREADS.acquire().await.map_err(io::Error::other)?;
    let (ended, end) = oneshot::channel();
    thread::Builder::new().name("blocking".to_owned()).spawn(move || {
        let _permit = permit;
        let _ = ended.send(job());
    })?;
    end.await.map_err(|_| io::Error::other("it panicked"))
}

/// Does the same, but here where there is no thread for it: where to hold up others for a moment is better than to fail.
///
/// Errors: it panicked.
pub(crate) async fn blocking_even_here<T: Send + 'static>(job: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    let job = Arc::new(Mutex::new(Some(job)));
    let take = |job: &Mutex<Option<_>>| job.lock().unwrap_or_else(PoisonError::into_inner).take();
    let there = job.clone();
    let done = blocking(move || take(&there).map(|job| job())).await;
    match take(&job) {
        Some(job) => Ok(job()), // nobody has begun it
        None => done.and_then(|done| done.ok_or_else(|| io::Error::other("it was begun twice"))),
    }
}

/// A test of what is done where no thread is to be had.
#[cfg(test)]
pub(crate) mod without_threads {
    use std::process::Command;

    /// Tells this test program, started by itself, that no thread is to be had.
    const CHILD: &str = "HERDSMAN_TEST_NO_THREADS";

    /// Has the test of this name run again, in a process that can start no thread, and there asks whether all is `as_told`.
    pub(crate) fn holds(test: &str, as_told: impl Future<Output = bool>) {
        if std::env::var_os(CHILD).is_some() {
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
            std::process::exit(if runtime.block_on(as_told) { 7 } else { 8 });
        }
        let myself = std::env::current_exe().expect("this test program");
        // In one thread, for the test program needs none then. A stack that fits into no address space.
        let child = Command::new(myself)
            .args(["--exact", test, "--test-threads", "1"])
            .env(CHILD, "")
            .env("RUST_MIN_STACK", (1_u64 << 50).to_string())
            .output();
        let child = child.expect("it can be run");
        assert_eq!(child.status.code(), Some(7), "{}", String::from_utf8_lossy(&child.stderr));
    }
}

#[cfg(test)]
mod tests {
    use std::thread::current;

    use super::*;

    #[tokio::test]
    async fn a_job_runs_elsewhere_and_its_panic_is_an_error() {
        let here = current().id();
        assert_ne!(blocking(move || current().id()).await.expect("a thread"), here);
        let failed = blocking::<()>(|| panic!("rude")).await.expect_err("it panicked");
        assert_eq!(failed.to_string(), "it panicked");
    }

    #[test]
    fn where_there_is_no_thread_for_a_job_that_is_an_error() {
        without_threads::holds("spawn::tests::where_there_is_no_thread_for_a_job_that_is_an_error", async {
            let (done, done_here) = (blocking(|| ()).await, blocking_even_here(|| current().id()).await);
            done.is_err() && done_here.is_ok_and(|id| id == current().id())
        });
    }
}
