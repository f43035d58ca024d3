//! When what is tried again and again is worth a word: not at once, and not each time.

use std::time::{Duration, Instant};

/// How long a stretch of failures may last before it is spoken of, and how often it is then.
const FIRST: Duration = Duration::from_secs(1);
const EVERY: Duration = Duration::from_secs(5);

/// Follows a stretch of failures.
#[derive(Debug)]
pub struct Patience {
    first: Duration,
    stretch: Option<Stretch>,
}

impl Default for Patience {
    fn default() -> Self {
        Patience { first: FIRST, stretch: None }
    }
}

#[derive(Debug)]
struct Stretch {
    began: Instant,
    due: Instant,
}

impl Patience {
    /// Where already the first failure is to be spoken of.
    pub fn none() -> Self {
        Patience { first: Duration::ZERO, stretch: None }
    }

    /// It failed, perhaps again, at `now`: for how long it has by then, where that is to be said now.
    pub fn failed(&mut self, now: Instant) -> Option<Duration> {
        let stretch = self.stretch.get_or_insert(Stretch { began: now, due: now + self.first });
        if now < stretch.due {
            return None;
        }
        stretch.due = now + EVERY;
        Some(now - stretch.began)
    }

    /// It went well: the next failure begins another stretch.
    pub fn succeeded(&mut self) {
        self.stretch = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stretch_of_failures_is_spoken_of_after_a_second_and_then_every_five() {
        let (start, mut patience) = (Instant::now(), Patience::default());
        let mut said = |from_ms: u64, to_ms: u64| {
            let moments = (from_ms..=to_ms).step_by(50).map(Duration::from_millis);
            moments.filter_map(|at| patience.failed(start + at)).map(|lasted| lasted.as_millis()).collect::<Vec<_>>()
        };
        assert_eq!(said(0, 12_000), [1_000, 6_000, 11_000]);
        patience.succeeded();
        assert_eq!(patience.failed(start + Duration::from_secs(60)), None, "another stretch");
        assert_eq!(patience.failed(start + Duration::from_secs(90)), Some(Duration::from_secs(30)));
        assert_eq!(Patience::none().failed(start), Some(Duration::ZERO));
    }
}
