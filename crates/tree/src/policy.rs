//! How the tasks of a job are treated: part of `/tasks/<job>`, and never changed.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A moment may make the leader wait this long, in milliseconds, also where the backoff is shorter: after a mass loss
/// tasks wait for a session timeout, which is no longer than this.
const CALM_MS_MAX: i64 = 60_000;

/// How the tasks of a job are treated. Times are in milliseconds, moments in milliseconds since 1970 by ZooKeeper's
/// clock. A field that is absent is as in [`Policy::default`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// After this many failed attempts a task is not attempted again. An attempt that was lost with its worker did not
    /// fail.
    #[serde(default = "one")]
    pub max_attempts: u32,
    /// How long a task waits after its first failed attempt; after each further one twice as long.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub backoff_ms: u64,
    /// The longest that a task waits after a failed attempt.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub backoff_max_ms: u64,
    /// A task is dead after this many workers were lost while they had it; 0 means never.
    #[serde(default = "three", skip_serializing_if = "is_three")]
    pub crash_limit: u32,
    /// How long one attempt may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// The moment at which what is outstanding of the job is cancelled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<i64>,
    /// The moment before which no task is assigned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before_ms: Option<i64>,
    /// Tasks of jobs with a higher number go first.
    #[serde(default, skip_serializing_if = "is_none")]
    pub priority: i32,
    /// Only workers that have all these tags run the tasks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub require: Vec<String>,
    /// Whether the job is withdrawn when its client is gone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub attached: bool,
    /// Fields of other versions.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

fn one() -> u32 {
    1
}

fn three() -> u32 {
    3
}

fn is_three(n: &u32) -> bool {
    *n == 3
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

fn is_none(priority: &i32) -> bool {
    *priority == 0
}

impl Default for Policy {
    /// One attempt without a limit of time, three crashes, priority 0, anywhere, at once.
    fn default() -> Self {
        Policy {
            max_attempts: 1,
            backoff_ms: 0,
            backoff_max_ms: 0,
            crash_limit: 3,
            timeout_ms: None,
            deadline_ms: None,
            not_before_ms: None,
            priority: 0,
            require: Vec::new(),
            attached: false,
            other: Map::new(),
        }
    }
}

impl Policy {
    /// How long a task waits after so many failed attempts: exponential, and of that between a half and all, as `jitter`
    /// from 0 to 1 says, so that tasks which failed together do not come back together. Source: "equal jitter" in
    /// M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
    pub fn backoff(&self, failures: u32, jitter: f64) -> Duration {
        let doubled = self.backoff_ms.saturating_mul(1 << failures.saturating_sub(1).min(32));
        let most = doubled.min(self.backoff_max_ms.max(self.backoff_ms));
        Duration::from_millis(most).mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0)
    }

    /// The longest that a task ever waits after an attempt, in milliseconds: its longest backoff, or a minute if that
    /// is longer, which covers the wait after a mass loss.
    pub fn longest_wait_ms(&self) -> i64 {
        i64::try_from(self.backoff_max_ms.max(self.backoff_ms)).unwrap_or(i64::MAX).max(CALM_MS_MAX)
    }

    /// Whether tasks may be attempted more than once. Then a task that is out of attempts is dead; a task whose only
    /// attempt failed is `failed`.
    pub fn retries(&self) -> bool {
        self.max_attempts > 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_backoff_doubles_up_to_its_limit_and_jitter_takes_no_more_than_half() {
        let policy = Policy { backoff_ms: 1_000, backoff_max_ms: 10_000, ..Policy::default() };
        let most: Vec<u128> = (1..7).map(|failures| policy.backoff(failures, 1.0).as_millis()).collect();
        assert_eq!(most, [1_000, 2_000, 4_000, 8_000, 10_000, 10_000]);
        assert_eq!(policy.backoff(3, 0.0), Duration::from_secs(2));
        assert_eq!(policy.backoff(u32::MAX, 1.0), Duration::from_secs(10));
        assert_eq!(Policy::default().backoff(5, 1.0), Duration::ZERO);
    }

    #[test]
    fn only_what_differs_from_the_default_is_stored() {
        let stored = |policy: &Policy| serde_json::to_string(policy).expect("valid");
        assert_eq!(stored(&Policy::default()), r#"{"max_attempts":1}"#);
        assert_eq!(serde_json::from_str::<Policy>("{}").expect("valid"), Policy::default());
        let policy = Policy { crash_limit: 0, priority: -2, attached: true, ..Policy::default() };
        assert_eq!(serde_json::from_str::<Policy>(&stored(&policy)).expect("valid"), policy);
    }
}
