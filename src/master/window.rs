//! How many tasks a worker may be given beyond its slots: those on their way to it and back.
//!
//! Little's law: to keep a worker busy that ends `rate` tasks a second, `rate x round trip` of them must be under way.
//! Twice that lets the rate grow until something is saturated, as a TCP window does. A worker of long tasks has a low
//! rate, so it is given what its slots hold and nothing more: no long task is parked behind another.

use std::time::{Duration, Instant};

/// Over how long the rate of completions is averaged.
const AVERAGED_OVER: Duration = Duration::from_millis(100);
/// How far beyond what is needed now the window reaches, so that the rate can grow.
const GAIN: f64 = 2.0;
/// The longest window: a worker's list is written whole.
const WINDOW_MAX: usize = 2048;

/// The rate at which one worker completes tasks.
#[derive(Debug, Clone)]
pub(super) struct Window {
    /// Completions, each counted less the longer ago it is.
    recent: f64,
    updated: Instant,
    last: Instant,
}

impl Window {
    pub(super) fn new(now: Instant) -> Self {
        Window { recent: 0.0, updated: now, last: now }
    }

    fn fade(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.updated).as_secs_f64();
        self.recent *= (-passed / AVERAGED_OVER.as_secs_f64()).exp();
        self.updated = now;
    }

    /// The worker completed a task.
    pub(super) fn completed(&mut self, now: Instant) {
        self.fade(now);
        self.recent += 1.0;
        self.last = now;
    }

    /// Nothing could be heard of the worker until now.
    pub(super) fn listen(&mut self, now: Instant) {
        self.last = now;
    }

    /// For how long it has completed nothing, as far as is known.
    pub(super) fn silent_for(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.last)
    }

    /// How long the worker's list may be, if a task takes `round_trip` to reach it and its completion to be seen.
    pub(super) fn size(&mut self, slots: usize, round_trip: Duration, now: Instant) -> usize {
        self.fade(now);
        let rate = self.recent / AVERAGED_OVER.as_secs_f64();
        let under_way = (GAIN * rate * round_trip.as_secs_f64()).floor();
        (slots + under_way as usize).min(WINDOW_MAX.max(slots))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUND_TRIP: Duration = Duration::from_millis(10);

    fn after(tasks: usize, every: Duration) -> (Window, Instant) {
        let mut now = Instant::now();
        let mut window = Window::new(now);
        for _ in 0..tasks {
            now += every;
            window.completed(now);
        }
        (window, now)
    }

    #[test]
    fn a_worker_of_long_tasks_is_given_what_its_slots_hold() {
        let (mut window, now) = after(20, Duration::from_millis(250)); // four slots, a second each
        assert_eq!(window.size(4, ROUND_TRIP, now), 4);
    }

    #[test]
    fn a_worker_of_tiny_tasks_is_given_what_is_under_way_and_as_much_again() {
        let (mut window, now) = after(20_000, Duration::from_micros(100)); // 10,000 a second
        let size = window.size(4, ROUND_TRIP, now);
        assert!((195..=215).contains(&size), "{size}");
    }

    #[test]
    fn the_window_closes_when_completions_stop() {
        let (mut window, now) = after(20_000, Duration::from_micros(100));
        assert_eq!(window.size(4, ROUND_TRIP, now + Duration::from_secs(1)), 4);
    }
}
