//! `/tasks/<job>`: what all tasks of a job have in common.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{JobId, OutcomeStatus, Policy};

/// How and why the outstanding tasks of a job are to end without being done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Withdrawn {
    /// How its tasks end: cancelled or aborted.
    pub status: OutcomeStatus,
    /// For people.
    pub reason: String,
}

/// A job's record. Kind, arguments, key and policy never change; `sealed` goes from false to true, once, and brings
/// `tasks`; `failed` and `withdrawn` come once; `after` only shrinks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobRecord {
    /// Which handler runs the tasks.
    pub kind: String,
    /// Arguments for the handler; for `exec`, the program and its arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// How its tasks are treated.
    #[serde(default)]
    pub policy: Policy,
    /// Whether all tasks were submitted. Only the submitter may collect, cancel or close before that.
    #[serde(default)]
    pub sealed: bool,
    /// How many tasks were submitted, as the submitter counted them when it sealed the job; absent while it is open, or
    /// where somebody else sealed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tasks: Option<u32>,
    /// The key under which at most one job is outstanding.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The directory, shared by all machines, in which large payloads and results are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spill: Option<PathBuf>,
    /// The jobs that must still succeed before a task of this one is assigned; the leader takes out those that have.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<JobId>,
    /// Whether a task failed or was cancelled, so that the job has not succeeded.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub failed: bool,
    /// Set once the outstanding tasks are to end without being done. Only a sealed job is withdrawn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub withdrawn: Option<Withdrawn>,
    /// Fields of other versions.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl JobRecord {
    /// An unsealed job of the given kind.
    pub fn new(kind: &str, args: Vec<String>, policy: Policy) -> Self {
        JobRecord {
            kind: kind.to_owned(),
            args,
            policy,
            sealed: false,
            tasks: None,
            key: None,
            spill: None,
            after: Vec::new(),
            failed: false,
            withdrawn: None,
            other: Map::new(),
        }
    }

    /// As it is stored.
    pub fn to_json(&self) -> Vec<u8> {
        super::to_json(self)
    }

    /// A stored record, or why it is none.
    pub fn from_json(data: &[u8]) -> Result<Self, String> {
        super::from_json(data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_set_again_keeps_the_fields_of_other_versions() {
        let text = br#"{"kind":"echo","policy":{"max_attempts":3,"colour":"blue"},"sealed":false,"color":"red"}"#;
        let mut record = JobRecord::from_json(text).expect("valid");
        record.sealed = true;
        let json: Value = serde_json::from_slice(&record.to_json()).expect("valid");
        assert_eq!(json["color"], "red");
        assert_eq!(json["policy"]["colour"], "blue");
        assert_eq!(json["sealed"], true);
    }

    #[test]
    fn only_the_kind_must_be_there() {
        let record = JobRecord::from_json(br#"{"kind":"echo"}"#).expect("valid");
        assert_eq!(record, JobRecord::new("echo", vec![], Policy::default()));
        assert!(JobRecord::from_json(b"{}").is_err());
        assert!(JobRecord::from_json(b"").is_err());
    }
}
