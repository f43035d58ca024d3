//! `/master/<name>-<uid>-<number>`: who wants to lead.

use serde::{Deserialize, Serialize};

/// A candidate, for people to read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MasterRecord {
    /// The name given on its command line.
    pub name: String,
    /// The machine.
    #[serde(default)]
    pub host: String,
    /// The process.
    #[serde(default)]
    pub pid: u32,
}

impl MasterRecord {
    /// As it is stored.
    pub fn to_json(&self) -> Vec<u8> {
        super::to_json(self)
    }

    /// A stored record, or why it is none.
    pub fn from_json(data: &[u8]) -> Result<Self, String> {
        super::from_json(data)
    }
}
