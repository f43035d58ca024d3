use std::fmt;

use tokio::sync::watch;

/// A fencing token: of two attempts of one task the later one has the greater token, and a task that was created later
/// has a greater token than one created before. Whatever a task writes to can keep the greatest token that it has seen
/// and refuse smaller ones. Source: M. Kleppmann, "How to do distributed locking", 2016.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token {
    /// The transaction that created the task.
    pub czxid: i64,
    /// Which attempt it is, counted from 1.
    pub attempt: u32,
}

impl fmt::Display for Token {
    /// Twenty digits, a dash, and ten digits, so that tokens compare as text.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:020}-{:010}", self.czxid, self.attempt)
    }
}

/// Tells when a task was cancelled.
#[derive(Debug, Clone)]
pub struct Cancelled {
    cancelled: Option<watch::Receiver<bool>>,
}

impl Cancelled {
    /// Never: for tests of handlers.
    pub fn never() -> Self {
        Cancelled { cancelled: None }
    }

    pub(crate) fn when(cancelled: watch::Receiver<bool>) -> Self {
        Cancelled { cancelled: Some(cancelled) }
    }

    /// Completes once the task was cancelled: there are 2 s to clean up.
    pub async fn wait(&mut self) {
        if let Some(cancelled) = &mut self.cancelled
            && cancelled.wait_for(|cancelled| *cancelled).await.is_ok()
        {
            return;
        }
        std::future::pending().await
    }
}
