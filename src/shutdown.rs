//! Signals, turned into something to wait for.
//!
//! The first SIGTERM or SIGINT asks the process to drain. The second ends it at once with exit code 130.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tokio::sync::watch;
use tracing::info;

/// Tells, once and for all, that the process is to stop. Shared by cloning.
#[derive(Debug, Clone)]
pub struct Shutdown {
    requested: watch::Receiver<bool>,
}

/// Asks for a [`Shutdown`].
#[derive(Debug, Clone)]
pub struct Stopper {
    request: Arc<watch::Sender<bool>>,
}

impl Stopper {
    /// Asks everybody who holds the other end to stop.
    pub fn stop(&self) {
        self.request.send_replace(true);
    }
}

impl Shutdown {
    /// A shutdown that the returned stopper asks for; for embedding and tests.
    pub fn new() -> (Stopper, Shutdown) {
        let (request, requested) = watch::channel(false);
        (Stopper { request: Arc::new(request) }, Shutdown { requested })
    }

    /// A shutdown that SIGTERM or SIGINT asks for.
    ///
    /// Errors: where the handlers cannot be installed, or there is no thread for them.
    pub fn on_signals() -> std::io::Result<Shutdown> {
        let (stopper, shutdown) = Shutdown::new();
        // In this order, the first signal raises the flag and the second finds it raised.
        let seen_one = Arc::new(AtomicBool::new(false));
        for signal in [SIGTERM, SIGINT] {
            signal_hook::flag::register_conditional_shutdown(signal, 130, seen_one.clone())?;
            signal_hook::flag::register(signal, seen_one.clone())?;
        }
        let mut signals = Signals::new([SIGTERM, SIGINT])?;
        std::thread::Builder::new().spawn(move || {
            for signal in signals.forever() {
                let name = if signal == SIGTERM { "SIGTERM" } else { "SIGINT" };
                info!("{name}: stopping; a second signal ends the process at once");
                stopper.stop();
            }
        })?;
        Ok(shutdown)
    }

    /// Whether it was asked for.
    pub fn is_requested(&self) -> bool {
        *self.requested.borrow()
    }

    /// Completes once it is asked for; never, where nobody can ask any more.
    pub async fn requested(&self) {
        let mut requested = self.requested.clone();
        if requested.wait_for(|requested| *requested).await.is_err() {
            std::future::pending().await
        }
    }
}
