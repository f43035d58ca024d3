//! `/data/<job>/<n>-live`: what is seen of a task while it runs. Ephemeral: it goes with the task's end or its worker.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// How much of the end of each stream is shown, in bytes.
pub const STREAM_BYTES_MAX: usize = 8 * 1024;

/// A running task, seen from outside.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Live {
    /// Who runs it.
    pub worker: String,
    /// Which attempt it is, counted from 1.
    pub attempt: u32,
    /// How much of it is done, from 0 to 1, as far as it says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<f64>,
    /// What it is doing now, in its own words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// The end of what it printed, by stream: `stdout`, `stderr`, `log`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub streams: BTreeMap<String, Tail>,
}

/// The end of a stream.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tail {
    /// How many bytes came before it.
    pub from: u64,
    /// The bytes, as text of the same length: `?` for each that belongs to no character.
    pub text: String,
}

impl Live {
    /// As it is stored.
    pub fn to_json(&self) -> Vec<u8> {
        super::to_json(self)
    }

    /// A stored one, or why it is none.
    pub fn from_json(data: &[u8]) -> Result<Self, String> {
        super::from_json(data)
    }
}

impl Tail {
    /// What follows the first `seen` bytes of the stream, as far as this end of it has it; and how many bytes of the
    /// stream that makes.
    pub fn since(&self, seen: u64) -> (&str, u64) {
        let end = self.from + self.text.len() as u64;
        let skip = usize::try_from(seen.saturating_sub(self.from)).unwrap_or(usize::MAX).min(self.text.len());
        let skip = (skip..=self.text.len()).find(|at| self.text.is_char_boundary(*at)).unwrap_or(self.text.len());
        (&self.text[skip..], end.max(seen))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_follower_is_shown_each_byte_once_as_far_as_it_is_there() {
        let tail = Tail { from: 100, text: "hello".to_owned() };
        assert_eq!(tail.since(0), ("hello", 105));
        assert_eq!(tail.since(102), ("llo", 105));
        assert_eq!(tail.since(105), ("", 105));
        assert_eq!(tail.since(200), ("", 200));
    }
}
