//! Calm when many workers go at once: then it is not their tasks, and they may come back.
//!
//! Source: the damping of reassignment in Kafka Connect (KIP-415, `scheduled.rebalance.max.delay.ms`).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Which workers were lost lately, and whether each had work.
#[derive(Debug)]
pub(super) struct Calm {
    lately: Duration,
    lost: VecDeque<(Instant, bool)>,
}

impl Calm {
    /// `lately`: the session timeout.
    pub(super) fn new(lately: Duration) -> Self {
        Calm { lately, lost: VecDeque::new() }
    }

    /// Workers were lost at `now`: whether each had work; and so many are left. Whether more than half of those there were
    /// are gone within the time, and more than one of them had work: idle ones that leave take nothing with them.
    pub(super) fn lost(&mut self, had_work: impl IntoIterator<Item = bool>, left: usize, now: Instant) -> bool {
        self.lost.extend(had_work.into_iter().map(|had_work| (now, had_work)));
        while self.lost.front().is_some_and(|(at, _)| now.saturating_duration_since(*at) >= self.lately) {
            self.lost.pop_front();
        }
        self.lost.len() > left && self.lost.iter().filter(|(_, had_work)| *had_work).count() > 1
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
        let storms: Vec<bool> = (0..4).rev().map(|left| calm.lost([true], left, now)).collect(); // one after the other
        assert_eq!(storms, [false, false, true, true]);
        assert!(Calm::new(LATELY).lost([true; 3], 1, now), "all those that are missed at once are judged as one");
    }

    #[test]
    fn idle_workers_that_leave_are_no_storm_nor_is_the_one_among_them_that_had_work() {
        let (now, mut calm) = (Instant::now(), Calm::new(LATELY));
        assert!(!calm.lost([false; 5], 0, now));
        assert!(!calm.lost([true, false], 0, now));
        assert!(calm.lost([true], 0, now), "the second");
    }

    #[test]
    fn losses_apart_are_no_storm_and_one_worker_is_none_either() {
        let now = Instant::now();
        let mut calm = Calm::new(LATELY);
        assert!((0..5).all(|n| !calm.lost([true], 0, now + n * LATELY)));
    }
}
