//! How long a process may trust its session, on its own monotonic clock.
//!
//! The server counts the session timeout T from the last request that it received; the process knows only when it
//! *sent* the last one that was acknowledged, which is earlier: a session state of "connected" is no proof of life while
//! only the bytes towards the server are lost.
//!
//! How much earlier the session may end: on an ensemble ZooKeeper's leader renews a session not when its follower passes a
//! request on, but when that follower answers one of its pings, every half tick, with the sessions that it has heard of
//! since the ping before (`LearnerHandler.java`). Where a follower dies right after a request, that request counts
//! for nothing, and the session ends as early as T after the last answered ping: half a tick before the request, or one
//! probe of ours before it, whichever is longer. ZooKeeper grants no T below two ticks (unless `minSessionTimeout` says so),
//! so half a tick is at most T/4, and probes every T/10 add nothing to that. Hence 0.75 T is safe, and nothing beyond.
//! Measured by `cargo bench --bench lease`, T = 5 ticks: docs/failures.md has the figures.
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

    /// From then on nothing new may be started: 0.65 T after the last renewal.
    pub fn ends(&self) -> Instant {
        self.renewed() + self.timeout.mul_f64(0.65)
    }

    /// By then everything that was started must have stopped: 0.75 T after the last renewal.
    pub fn stop_by(&self) -> Instant {
        self.renewed() + self.timeout.mul_f64(0.75)
    }

    /// Whether the session may be trusted at `now`.
    pub fn holds(&self, now: Instant) -> bool {
        now < self.ends()
    }

    /// When an idle session should next prove that it lives: T/10 after the last renewal.
    pub fn probe_at(&self) -> Instant {
        self.renewed() + self.timeout / 10
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hazard_34_a_lease_ends_before_the_servers_can_expire_the_session() {
        let (timeout, start) = (Duration::from_secs(10), Instant::now());
        let lease = Lease::new(timeout, start);
        assert!(lease.holds(start + Duration::from_millis(6_499)));
        assert!(!lease.holds(start + Duration::from_millis(6_500)));
        // The shortest T is two ticks, and the last ping that told of us half a tick before our last request.
        let (half_a_tick, probe) = (timeout / 4, lease.probe_at() - start);
        assert!(lease.stop_by() <= start + timeout - half_a_tick.max(probe));
        lease.renew(start + Duration::from_secs(5));
        assert!(lease.holds(start + Duration::from_millis(11_499)));
        lease.renew(start + Duration::from_secs(3)); // an older acknowledgement arriving late shortens nothing
        assert_eq!(lease.ends(), start + Duration::from_millis(11_500));
    }
}
