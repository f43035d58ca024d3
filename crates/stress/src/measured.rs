//! Latencies, counted in HDR histograms, which can be merged without losing their percentiles.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// What a simulated client does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Operation {
    /// Begins a session.
    Connect,
    /// Creates an ephemeral sequential znode.
    Create,
    /// Reads a znode; in a lifecycle, and by the probe, with a watch.
    Read,
    /// Sets a znode's data.
    Modify,
    /// From the modify's start until the watch's notification came.
    Watch,
    /// Deletes a znode.
    Delete,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Operation::Connect => "connect",
            Operation::Create => "create",
            Operation::Read => "read",
            Operation::Modify => "modify",
            Operation::Watch => "watch",
            Operation::Delete => "delete",
        })
    }
}

/// Latencies in microseconds, to so many digits.
pub(super) fn histogram(digits: u8) -> Histogram<u64> {
    Histogram::new(digits).expect("1 to 5 digits")
}

/// The longest latency that is told from longer ones.
const LONGEST_US: u128 = 3_600_000_000;

/// Counts a latency; none is less than a microsecond.
pub(super) fn count(histogram: &mut Histogram<u64>, latency: Duration) {
    let micros = latency.as_micros().clamp(1, LONGEST_US) as u64;
    histogram.record(micros).expect("it grows to what it holds");
}

/// A histogram as text: its compressed form in base64.
pub(super) mod compressed {
    use base64::prelude::{BASE64_STANDARD, Engine};
    use hdrhistogram::Histogram;
    use hdrhistogram::serialization::{Deserializer as Reader, Serializer as _, V2DeflateSerializer};

    pub fn write(histogram: &Histogram<u64>) -> Result<String, String> {
        let mut bytes = Vec::new();
        V2DeflateSerializer::new().serialize(histogram, &mut bytes).map_err(|error| error.to_string())?;
        Ok(BASE64_STANDARD.encode(bytes))
    }

    pub fn read(text: &str) -> Result<Histogram<u64>, String> {
        let bytes = BASE64_STANDARD.decode(text).map_err(|error| error.to_string())?;
        let mut histogram: Histogram<u64> =
            Reader::new().deserialize(&mut bytes.as_slice()).map_err(|error| error.to_string())?;
        histogram.auto(true); // so that it grows when another is added
        Ok(histogram)
    }
}

/// One kind of operation, as it was measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured {
    latency: Histogram<u64>,
    /// When the first one began and the last one ended, in microseconds from the start.
    first_us: u64,
    last_us: u64,
    errors: u64,
}

impl Default for Measured {
    fn default() -> Self {
        Measured { latency: histogram(3), first_us: u64::MAX, last_us: 0, errors: 0 }
    }
}

/// How it is passed on.
#[derive(Serialize, Deserialize)]
struct Written {
    latency: String,
    first_us: u64,
    last_us: u64,
    #[serde(default)]
    errors: u64,
}

impl Serialize for Measured {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let latency = compressed::write(&self.latency).map_err(serde::ser::Error::custom)?;
        let Measured { first_us, last_us, errors, .. } = *self;
        Written { latency, first_us, last_us, errors }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Measured {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Written { latency, first_us, last_us, errors } = Written::deserialize(deserializer)?;
        let latency = compressed::read(&latency).map_err(de::Error::custom)?;
        Ok(Measured { latency, first_us, last_us, errors })
    }
}

/// One kind of operation in figures. Latencies are in microseconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// How many were answered.
    pub count: u64,
    /// How many were not.
    pub errors: u64,
    /// From the first one's start to the last one's end.
    pub seconds: f64,
    /// How many were answered a second in that time.
    pub rate: f64,
    /// The least.
    pub min: u64,
    /// The mean.
    pub mean: f64,
    /// The median.
    pub p50: u64,
    /// The 90th percentile.
    pub p90: u64,
    /// The 95th percentile.
    pub p95: u64,
    /// The 99th percentile.
    pub p99: u64,
    /// The greatest.
    pub max: u64,
}

impl Measured {
    /// The figures.
    pub fn figures(&self) -> Figures {
        let h = &self.latency;
        let seconds = self.last_us.saturating_sub(self.first_us) as f64 / 1e6;
        let at = |quantile| h.value_at_quantile(quantile);
        Figures {
            count: h.len(),
            errors: self.errors,
            seconds,
            rate: if h.is_empty() { 0.0 } else { h.len() as f64 / seconds.max(1e-6) },
            min: h.min(),
            mean: h.mean(),
            p50: at(0.5),
            p90: at(0.9),
            p95: at(0.95),
            p99: at(0.99),
            max: h.max(),
        }
    }

    /// The latency, in microseconds, that such a share of the operations stayed within.
    pub fn at(&self, quantile: f64) -> u64 {
        self.latency.value_at_quantile(quantile)
    }

    /// How many were answered.
    pub fn count(&self) -> u64 {
        self.latency.len()
    }

    /// To two digits, which take less room.
    fn coarsen(&mut self) {
        let mut coarse = histogram(2);
        coarse.add(&self.latency).expect("it grows to what it holds");
        self.latency = coarse;
    }

    fn merge(&mut self, other: &Measured) {
        self.latency += &other.latency;
        self.first_us = self.first_us.min(other.first_us);
        self.last_us = self.last_us.max(other.last_us);
        self.errors += other.errors;
    }
}

/// Operations by their kind.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Tally {
    operations: BTreeMap<Operation, Measured>,
}

impl Tally {
    /// An operation was answered: how long it took, and when that was, from the start.
    pub fn record(&mut self, operation: Operation, latency: Duration, ended: Duration) {
        let measured = self.operations.entry(operation).or_default();
        count(&mut measured.latency, latency);
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        measured.first_us = measured.first_us.min(micros(ended.saturating_sub(latency)));
        measured.last_us = measured.last_us.max(micros(ended));
    }

    /// An operation was not answered.
    pub fn error(&mut self, operation: Operation) {
        self.operations.entry(operation).or_default().errors += 1;
    }

    /// Adds what somebody else measured at the same time.
    pub fn merge(&mut self, other: &Tally) {
        for (operation, measured) in &other.operations {
            self.operations.entry(*operation).or_default().merge(measured);
        }
    }

    /// Latencies to two digits.
    pub(super) fn coarsen(&mut self) {
        self.operations.values_mut().for_each(Measured::coarsen);
    }

    /// What was measured, by kind.
    pub fn iter(&self) -> impl Iterator<Item = (Operation, &Measured)> {
        self.operations.iter().map(|(operation, measured)| (*operation, measured))
    }

    /// One kind.
    pub fn get(&self, operation: Operation) -> Option<&Measured> {
        self.operations.get(&operation)
    }

    /// Operations a second, of all kinds but the watches, which the server begins.
    pub fn rate(&self) -> f64 {
        self.iter().filter(|(operation, _)| *operation != Operation::Watch).map(|(_, m)| m.figures().rate).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merged_percentiles_are_those_of_all_operations_together() {
        let (mut one, mut two, mut both) = (Tally::default(), Tally::default(), Tally::default());
        for n in 1..=1000_u64 {
            let (latency, ended) = (Duration::from_micros(n * n), Duration::from_millis(n * 10));
            if n % 7 == 0 { &mut one } else { &mut two }.record(Operation::Create, latency, ended);
            both.record(Operation::Create, latency, ended);
        }
        two.error(Operation::Read);
        both.error(Operation::Read);
        one.merge(&two);
        assert_eq!(one, both);
        let figures = one.get(Operation::Create).expect("recorded").figures();
        assert_eq!((figures.count, figures.min, figures.errors), (1000, 1, 0));
        assert!((figures.p50 as f64 / 250_000.0 - 1.0).abs() < 0.002, "{figures:?}");
        assert!((figures.max as f64 / 1e6 - 1.0).abs() < 0.002, "{figures:?}");
        assert!((figures.rate - 100.0).abs() < 0.2, "{figures:?}");
    }

    #[test]
    fn what_was_measured_survives_being_passed_on() {
        let mut tally = Tally::default();
        for n in 1..2000 {
            tally.record(Operation::Watch, Duration::from_micros(n), Duration::from_millis(n));
        }
        let text = serde_json::to_string(&tally).expect("JSON");
        assert!(text.len() < 2000, "{} bytes", text.len());
        assert_eq!(serde_json::from_str::<Tally>(&text).expect("the same"), tally);
    }

    #[test]
    fn what_was_passed_on_grows_when_more_is_added() {
        let passed_on = |micros| {
            let mut tally = Tally::default();
            tally.record(Operation::Read, Duration::from_micros(micros), Duration::from_secs(1));
            serde_json::from_value::<Tally>(serde_json::to_value(&tally).expect("JSON")).expect("the same")
        };
        let mut all = passed_on(100);
        all.merge(&passed_on(90_000_000));
        let figures = all.get(Operation::Read).expect("recorded").figures();
        assert!(figures.count == 2 && figures.max >= 90_000_000, "{figures:?}");
    }

    #[test]
    fn nothing_measured_is_no_rate_and_no_latency() {
        let mut tally = Tally::default();
        tally.error(Operation::Modify);
        let figures = tally.get(Operation::Modify).expect("tried").figures();
        assert_eq!((figures.count, figures.errors, figures.max), (0, 1, 0));
        assert!(figures.rate.abs() < f64::EPSILON);
    }
}
