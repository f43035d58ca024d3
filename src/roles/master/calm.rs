//! Calm when many workers go at once: then it is not their tasks, and they may come back.
//!
//! Source: the damping of reassignment in Kafka Connect (KIP-415, `scheduled.rebalance.max.delay.ms`).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Which workers were lost lately.
#[derive(Debug)]
pub(super) struct Calm {
    lately: Duration,
    lost: VecDeque<Instant>,
}

impl Calm {
    /// `lately`: the session timeout.
    pub(super) fn new(lately: Duration) -> Self {
        Calm { lately, lost: VecDeque::new() }
    }

    /// A worker was lost at `now`, and so many are left. Whether more than half, and more than one, of those there were
    /// are gone within the time.
    pub(super) fn lost(&mut self, left: usize, now: Instant) -> bool {
        self.lost.push_back(now);
        while self.lost.front().is_some_and(|at| now.saturating_duration_since(*at) >= self.lately) {
            self.lost.pop_front();
        }
        self.lost.len() > left.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATELY: Duration = Duration::from_secs(10);

    #[test]
    fn more_than_half_of_the_workers_lost_at_once_are_a_storm_and_fewer_are_not() {
        let now = Instant::now();
        let mut calm = Calm::new(LATELY);
        let storms: Vec<bool> = (0..4).rev().map(|left| calm.lost(left, now)).collect(); // four, one after the other
        assert_eq!(storms, [false, false, true, true]);
    }

    #[test]
    fn losses_apart_are_no_storm_and_one_worker_is_none_either() {
        let now = Instant::now();
        let mut calm = Calm::new(LATELY);
        assert!((0..5).all(|n| !calm.lost(0, now + n * LATELY)));
    }
}
