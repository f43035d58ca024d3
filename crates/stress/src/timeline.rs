//! Latencies over time, in at most so many intervals however long it takes.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::Operation;
use super::measured::{compressed, count, histogram};

/// The most intervals.
const INTERVALS_MAX: usize = 120;
/// The shortest interval; a longer one is this one doubled some times.
const SHORTEST_MS: u64 = 50;

/// Latencies by interval, from the start.
#[derive(Debug, Clone, PartialEq)]
pub struct Timeline {
    interval_ms: u64,
    operations: BTreeMap<Operation, Vec<Histogram<u64>>>,
}

impl Default for Timeline {
    fn default() -> Self {
        Timeline { interval_ms: SHORTEST_MS, operations: BTreeMap::new() }
    }
}

impl Timeline {
    /// An operation was answered.
    pub fn record(&mut self, operation: Operation, latency: Duration, ended: Duration) {
        let ended_ms = u64::try_from(ended.as_millis()).unwrap_or(u64::MAX);
        while ended_ms / self.interval_ms >= INTERVALS_MAX as u64 {
            self.double();
        }
        let at = (ended_ms / self.interval_ms) as usize;
        let intervals = self.operations.entry(operation).or_default();
        if intervals.len() <= at {
            intervals.resize_with(at + 1, || histogram(2));
        }
        count(&mut intervals[at], latency);
    }

    /// Adds what somebody else measured at the same time.
    pub fn merge(&mut self, mut other: Timeline) {
        while self.interval_ms < other.interval_ms {
            self.double();
        }
        while other.interval_ms < self.interval_ms {
            other.double();
        }
        for (operation, intervals) in other.operations {
            let own = self.operations.entry(operation).or_default();
            if own.len() < intervals.len() {
                own.resize_with(intervals.len(), || histogram(2));
            }
            for (own, theirs) in own.iter_mut().zip(intervals) {
                *own += theirs;
            }
        }
    }

    /// Makes two intervals into one.
    pub(super) fn double(&mut self) {
        self.interval_ms *= 2;
        for intervals in self.operations.values_mut() {
            let pairs = intervals.chunks(2).map(|pair| {
                let mut both = pair[0].clone();
                pair[1..].iter().for_each(|second| both += second);
                both
            });
            *intervals = pairs.collect();
        }
    }

    /// The length of an interval.
    pub fn interval(&self) -> Duration {
        Duration::from_millis(self.interval_ms)
    }

    /// For each kind of operation the intervals from the start: how many, and the latency at `quantile` in microseconds.
    pub fn at(&self, quantile: f64) -> impl Iterator<Item = (Operation, Vec<(u64, u64)>)> {
        let figures = move |h: &Histogram<u64>| (h.len(), h.value_at_quantile(quantile));
        self.operations.iter().map(move |(operation, all)| (*operation, all.iter().map(figures).collect()))
    }
}

/// How it is passed on: an empty text stands for an empty interval.
#[derive(Serialize, Deserialize)]
struct Written {
    interval_ms: u64,
    operations: BTreeMap<Operation, Vec<String>>,
}

impl Serialize for Timeline {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let write = |h: &Histogram<u64>| if h.is_empty() { Ok(String::new()) } else { compressed::write(h) };
        let mut operations = BTreeMap::new();
        for (operation, intervals) in &self.operations {
            let texts: Result<Vec<String>, String> = intervals.iter().map(write).collect();
            operations.insert(*operation, texts.map_err(serde::ser::Error::custom)?);
        }
        Written { interval_ms: self.interval_ms, operations }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Timeline {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let written = Written::deserialize(deserializer)?;
        let doublings = written.interval_ms / SHORTEST_MS;
        if !doublings.is_power_of_two() || doublings * SHORTEST_MS != written.interval_ms {
            return Err(de::Error::custom(format!("an interval of {} ms", written.interval_ms)));
        }
        let read = |text: &String| if text.is_empty() { Ok(histogram(2)) } else { compressed::read(text) };
        let mut operations = BTreeMap::new();
        for (operation, texts) in &written.operations {
            let intervals: Result<Vec<_>, String> = texts.iter().map(read).collect();
            operations.insert(*operation, intervals.map_err(de::Error::custom)?);
        }
        Ok(Timeline { interval_ms: written.interval_ms, operations })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded(seconds: u64) -> Timeline {
        let mut timeline = Timeline::default();
        for ms in (0..seconds * 1000).step_by(10) {
            timeline.record(Operation::Read, Duration::from_micros(300), Duration::from_millis(ms));
        }
        timeline
    }

    #[test]
    fn a_long_run_has_longer_intervals_and_no_more_of_them() {
        for (seconds, interval_ms) in [(1, 50), (6, 50), (7, 100), (120, 1600), (3600, 51_200)] {
            let timeline = recorded(seconds);
            assert_eq!(timeline.interval(), Duration::from_millis(interval_ms), "{seconds} s");
            let (_, intervals) = timeline.at(0.5).next().expect("recorded");
            assert!(intervals.len() <= INTERVALS_MAX);
            assert_eq!(intervals.iter().map(|(count, _)| count).sum::<u64>(), seconds * 100, "nothing is lost");
        }
    }

    #[test]
    fn timelines_of_different_lengths_are_merged_at_the_longer_interval() {
        let mut short = recorded(2);
        short.merge(recorded(10));
        assert_eq!(short.interval(), recorded(10).interval());
        let (_, intervals) = short.at(0.5).next().expect("recorded");
        assert_eq!(intervals.iter().map(|(count, _)| count).sum::<u64>(), 1200);
        assert_eq!((intervals[0].0, intervals[50].0), (20, 10));
    }

    fn passed_on(timeline: &Timeline) -> Timeline {
        serde_json::from_str(&serde_json::to_string(timeline).expect("JSON")).expect("the same")
    }

    #[test]
    fn a_timeline_survives_being_passed_on() {
        assert_eq!(passed_on(&recorded(20)), recorded(20));
    }

    #[test]
    fn a_timeline_that_was_passed_on_is_merged_whatever_came_later_in_it() {
        let mut slower_and_slower = Timeline::default();
        for n in 1..50_u64 {
            slower_and_slower.record(Operation::Read, Duration::from_micros(n.pow(4)), Duration::from_millis(n * 50));
        }
        let mut merged = passed_on(&recorded(20));
        merged.merge(passed_on(&slower_and_slower));
        let (_, intervals) = merged.at(1.0).next().expect("recorded");
        assert_eq!(intervals.iter().map(|(count, _)| count).sum::<u64>(), 2000 + 49);
    }
}
