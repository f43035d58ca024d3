//! `/data/<job>/<n>` at version 1: how a task ended.

use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{DATA_BYTES_MAX, Withdrawn};

/// How a task ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OutcomeStatus {
    /// The handler returned a result.
    Done,
    /// The only attempt failed.
    Failed,
    /// Somebody cancelled it, or its job ran out of time.
    Cancelled,
    /// It will never be done: a job that it was to come after did not succeed, or its client is gone.
    Aborted,
}

/// A task's outcome, committed in the same multi that deletes the task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// How it ended.
    pub status: OutcomeStatus,
    /// The worker that committed it; absent where it was cancelled or aborted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<String>,
    /// Which attempt it was, counted from 1; 0 where it was cancelled or aborted.
    #[serde(default)]
    pub attempts: u32,
    /// What the handler returned; see the kind.
    #[serde(default)]
    pub result: Value,
    /// Where the result is kept, if it is too large for the tree.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spilled: Option<Reference>,
    /// Why it is not done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Where something is kept that is too large for the tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reference {
    /// The file, as every machine of the herd names it.
    pub file: PathBuf,
    /// Its length.
    pub bytes: u64,
    /// Its SHA-256, in hexadecimal digits.
    pub sha256: String,
}

impl Outcome {
    /// The outcome of a task that nobody is to do any more: cancelled or aborted.
    pub fn withdrawn(withdrawn: &Withdrawn) -> Self {
        let Withdrawn { status, reason } = withdrawn.clone();
        Outcome { status, worker: None, attempts: 0, result: Value::Null, spilled: None, error: Some(reason) }
    }

    /// As it is stored: see [`Outcome::stored`].
    pub fn to_json(&self) -> Vec<u8> {
        self.stored().1
    }

    /// The status and the bytes with which it is stored. An outcome over the limit is stored as a failed one that says
    /// so.
    pub fn stored(&self) -> (OutcomeStatus, Vec<u8>) {
        let data = super::to_json(self);
        if data.len() <= DATA_BYTES_MAX {
            return (self.status, data);
        }
        let error = format!(
            "the outcome has {} bytes, more than the {DATA_BYTES_MAX} that fit: return less, write it elsewhere and return \
             where, or submit with --spill",
            data.len()
        );
        let refused =
            Outcome { status: OutcomeStatus::Failed, result: Value::Null, error: Some(error), ..self.clone() };
        (refused.status, super::to_json(&refused))
    }

    /// A stored outcome, or why it is none.
    pub fn from_json(data: &[u8]) -> Result<Self, String> {
        super::from_json(data)
    }
}

/// Bytes as JSON: text where that is no longer than base64 would be, `{"base64": "..."}` otherwise.
pub fn bytes_to_json(bytes: &[u8]) -> Value {
    if let Ok(text) = std::str::from_utf8(bytes) {
        // Control characters take six bytes each in JSON.
        let escapes = text.bytes().filter(|b| *b < 0x20 && !matches!(b, b'\n' | b'\t' | b'\r')).count();
        if escapes * 6 <= text.len() / 4 + 32 {
            return Value::String(text.to_owned());
        }
    }
    json!({ "base64": BASE64.encode(bytes) })
}

/// The bytes that [`bytes_to_json`] wrote; `None` for any other value.
pub fn json_to_bytes(value: &Value) -> Option<Vec<u8>> {
    match value {
        Value::String(text) => Some(text.clone().into_bytes()),
        Value::Object(fields) if fields.len() == 1 => BASE64.decode(fields.get("base64")?.as_str()?).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn bytes_survive_json_and_grow_by_no_more_than_half(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let value = bytes_to_json(&bytes);
            prop_assert!(value.to_string().len() <= bytes.len() * 3 / 2 + 100 + bytes.iter().filter(|b| matches!(b, b'"' | b'\\' | b'\n' | b'\t' | b'\r')).count());
            prop_assert_eq!(json_to_bytes(&value), Some(bytes));
        }
    }

    #[test]
    fn an_oversized_outcome_becomes_a_failed_one() {
        let result = Value::String("x".repeat(DATA_BYTES_MAX));
        let large = Outcome {
            status: OutcomeStatus::Done,
            worker: Some("w".into()),
            attempts: 1,
            result,
            spilled: None,
            error: None,
        };
        let stored = Outcome::from_json(&large.to_json()).expect("valid");
        assert_eq!(stored.status, OutcomeStatus::Failed);
        assert!(stored.error.expect("says why").contains("more than the 524288"));
    }
}
