//! So many a second.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// Whoever was held up for longer makes up for so much of it, and for no more: what comes then at once stays small.
const CATCH_UP: Duration = Duration::from_millis(100);

/// Lets through so many a second, in groups where the clock is coarser than that.
#[derive(Debug)]
pub struct Pace {
    per_second: f64,
    began: Instant,
    /// When the next is due, since the beginning.
    next: Duration,
    /// How many may pass at once.
    ready: usize,
}

impl Pace {
    /// `per_second`: above 0. The first is due at once.
    pub fn new(per_second: f64) -> Self {
        Pace { per_second, began: Instant::now(), next: Duration::ZERO, ready: 0 }
    }

    /// Waits for the next one's turn. Safe to cancel.
    pub async fn turn(&mut self) {
        while self.ready == 0 {
            self.ready = self.due(self.began.elapsed());
            if self.ready == 0 {
                sleep_until(self.began + self.next).await;
            }
        }
        self.ready -= 1;
    }

    /// How many are due at `now`, since the beginning, that were not before.
    fn due(&mut self, now: Duration) -> usize {
        self.next = self.next.max(now.saturating_sub(CATCH_UP));
        let Some(late) = now.checked_sub(self.next) else { return 0 };
        let due = (late.as_secs_f64() * self.per_second) as usize + 1;
        self.next += Duration::from_secs_f64(due as f64 / self.per_second);
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many were due at each of these moments, in milliseconds.
    fn due_at(per_second: f64, moments: impl IntoIterator<Item = u64>) -> Vec<usize> {
        let mut pace = Pace::new(per_second);
        moments.into_iter().map(|ms| pace.due(Duration::from_millis(ms))).collect()
    }

    #[test]
    fn a_rate_above_that_of_the_clock_is_reached_in_groups() {
        let due = due_at(5_000.0, 0..=2_000);
        assert_eq!(due.iter().sum::<usize>().abs_diff(10_000), 1, "the first was due at 0");
        assert!(due.iter().all(|due| (1..=6).contains(due)), "{due:?}");
    }

    #[test]
    fn whatever_the_moments_it_is_never_ahead_and_not_behind_while_nothing_holds_it_up() {
        for per_second in [0.3, 7.0, 333.0, 5_000.0, 1e6] {
            let (mut pace, mut now, mut sum) = (Pace::new(per_second), Duration::ZERO, 0);
            for step in (0..5_000_u64).map(|n| n * n * 7_919 % 90_000) {
                sum += pace.due(now);
                let exact = now.as_secs_f64() * per_second;
                assert!(sum as f64 <= exact + 1.001 && sum as f64 > exact - 1.0, "{sum} of {exact} at {now:?}");
                now += Duration::from_micros(step);
            }
        }
    }

    #[test]
    fn whoever_was_held_up_makes_up_for_a_tenth_of_a_second() {
        assert_eq!(due_at(1_000.0, [0, 10, 10_000, 10_000, 10_001]), [1, 10, 101, 0, 1]);
        assert_eq!(due_at(0.5, [0, 1, 1_999, 2_000, 3_999, 4_000, 60_000]), [1, 0, 0, 1, 0, 1, 1]);
    }
}
