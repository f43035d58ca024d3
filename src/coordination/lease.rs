//! How long a process may trust its session, on its own monotonic clock.
//!
//! The server counts the session timeout T from the last request that it received; the process knows only when it
//! *sent* the last one that was acknowledged, which is earlier. Until 0.8 T after that moment nobody else can have
//! been given what is ours, whatever the connection looks like: a session state of "connected" is no proof of life
//! while only the bytes towards the server are lost.
//!
//! Only requests that the ZooKeeper leader itself answered renew a lease: writes and syncs. A follower that has lost
//! its leader still answers reads for a while.
//!
//! Source: Gray and Cheriton, "Leases: an efficient fault-tolerant mechanism for distributed file cache consistency"
//! (SOSP 1989), with the margin for clocks that run at different rates.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The lease of one session.
#[derive(Debug)]
pub struct Lease {
    started: Instant,
    timeout: Duration,
    /// When the newest acknowledged request was sent, in nanoseconds since `started`.
    renewed: AtomicU64,
}

impl Lease {
    /// A lease renewed at `now`, for a session of the given (negotiated) timeout.
    pub fn new(timeout: Duration, now: Instant) -> Self {
        Lease { started: now, timeout, renewed: AtomicU64::new(0) }
    }

    /// A request sent at `sent_at` was acknowledged.
    pub fn renew(&self, sent_at: Instant) {
        let nanos = sent_at.saturating_duration_since(self.started).as_nanos();
        self.renewed.fetch_max(u64::try_from(nanos).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// When the newest acknowledged request was sent.
    pub fn renewed(&self) -> Instant {
        self.started + Duration::from_nanos(self.renewed.load(Ordering::Relaxed))
    }

    /// From then on nothing new may be started: 0.8 T after the last renewal.
    pub fn ends(&self) -> Instant {
        self.renewed() + self.timeout.mul_f64(0.8)
    }

    /// By then everything that was started must have stopped: 0.9 T after the last renewal.
    pub fn stop_by(&self) -> Instant {
        self.renewed() + self.timeout.mul_f64(0.9)
    }

    /// Whether the session may be trusted at `now`.
    pub fn holds(&self, now: Instant) -> bool {
        now < self.ends()
    }

    /// When an idle session should next prove that it lives: T/5 after the last renewal.
    pub fn probe_at(&self) -> Instant {
        self.renewed() + self.timeout / 5
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hazard_16_a_lease_ends_before_the_server_can_expire_the_session() {
        let (timeout, start) = (Duration::from_secs(10), Instant::now());
        let lease = Lease::new(timeout, start);
        assert!(lease.holds(start + Duration::from_millis(7_999)));
        assert!(!lease.holds(start + Duration::from_millis(8_000)));
        assert_eq!(lease.stop_by(), start + Duration::from_secs(9));
        lease.renew(start + Duration::from_secs(5));
        assert!(lease.holds(start + Duration::from_millis(12_999)));
        lease.renew(start + Duration::from_secs(3)); // an older acknowledgement arriving late shortens nothing
        assert_eq!(lease.ends(), start + Duration::from_secs(13));
    }
}
