//! What a worker does that lacks what it takes to begin tasks: file descriptors, processes, memory, a temporary directory.
//!
//! Whoever fails at once is always idle, and would be given everything. So it hands back what it has not begun, says in the
//! tree for how long it is to be given nothing, and tries again after that; each pause is twice as long as the one before.

use std::time::{Duration, Instant};

/// The first pause, and the longest.
const PAUSE_MIN: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// Whether the worker lacks something, as far as its last tries tell.
#[derive(Debug, Default)]
pub(super) struct Shortage(Option<Pause>);

#[derive(Debug, Clone, Copy)]
struct Pause {
    length: Duration,
    until: Instant,
}

impl Shortage {
    /// A task could not be begun. Returns whether that is new. What fails within a pause was begun before it.
    pub(super) fn lacks(&mut self, now: Instant) -> bool {
        let length = match self.0 {
            Some(pause) if now < pause.until => return false,
            Some(pause) => (pause.length * 2).min(PAUSE_MAX),
            None => PAUSE_MIN,
        };
        let before = self.0.replace(Pause { length, until: now + length });
        before.is_none()
    }

    /// For how long nothing is to be begun from now on.
    pub(super) fn pause(&self, now: Instant) -> Option<Duration> {
        self.0.map(|pause| pause.until.saturating_duration_since(now)).filter(|left| !left.is_zero())
    }

    /// A task that was begun at `since` has ended otherwise. Returns whether the shortage is over by that: a pause and as long
    /// again have passed without another failure. Some kinds may need nothing of what is short.
    pub(super) fn ended(&mut self, since: Instant, now: Instant) -> bool {
        let passed = |pause: &mut Pause| since >= pause.until && now >= pause.until + pause.length;
        self.0.take_if(passed).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_until_a_task_has_ended_that_was_begun_after_one() {
        let (mut shortage, start) = (Shortage::default(), Instant::now());
        let mut now = start;
        assert_eq!(shortage.pause(now), None);
        assert!(shortage.lacks(now), "new");
        assert_eq!(shortage.pause(now), Some(PAUSE_MIN));
        assert!(!shortage.lacks(now) && shortage.pause(now) == Some(PAUSE_MIN), "begun with the first: one failure");
        for expected in [1_000, 2_000, 4_000, 8_000, 10_000, 10_000].map(Duration::from_millis) {
            now += shortage.pause(now).expect("a pause");
            assert_eq!(shortage.pause(now), None);
            assert!(!shortage.ended(start, now + PAUSE_MAX * 2), "begun before");
            assert!(!shortage.ended(now, now), "the next may still lack it");
            assert!(!shortage.lacks(now), "not new");
            assert_eq!(shortage.pause(now), Some(expected));
        }
        now += PAUSE_MAX;
        assert!(shortage.ended(now, now + PAUSE_MAX));
        assert!(!shortage.ended(now, now + PAUSE_MAX), "said once");
        assert!(shortage.lacks(now) && shortage.pause(now) == Some(PAUSE_MIN), "begins anew");
    }
}
