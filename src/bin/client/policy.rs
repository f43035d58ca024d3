//! How the tasks of a job are treated: the flags of `client submit`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use herdsman::cli;
use tree::Policy;

#[derive(Debug, Args)]
#[command(next_help_heading = "How the tasks are treated")]
pub struct How {
    /// Attempt a task that fails so often; then it is dead, and stays until it is retried or forgotten
    #[arg(long, env = "HERDSMAN_MAX_ATTEMPTS", value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    max_attempts: u32,

    /// How long a task waits after a failed attempt: the first time, and at most; in between it doubles
    #[arg(long, env = "HERDSMAN_BACKOFF", value_name = "FIRST..MOST", default_value = "1s..5m", value_parser = backoff)]
    backoff: (Duration, Duration),

    /// After so many workers were lost under it a task is dead; 0 is never
    #[arg(long, env = "HERDSMAN_CRASH_LIMIT", value_name = "N", default_value_t = 3)]
    crash_limit: u32,

    /// How long one attempt may take
    #[arg(long, env = "HERDSMAN_TIMEOUT", value_name = "DURATION", value_parser = cli::duration)]
    timeout: Option<Duration>,

    /// How long the whole job may take, from now on; what is outstanding then is cancelled
    #[arg(long, env = "HERDSMAN_JOB_TIMEOUT", value_name = "DURATION", value_parser = cli::duration)]
    pub job_timeout: Option<Duration>,

    /// Jobs with a higher one go first
    #[arg(long, env = "HERDSMAN_PRIORITY", value_name = "N", default_value_t = 0, allow_negative_numbers = true)]
    priority: i32,

    /// Only workers that have all these tags
    #[arg(long, env = "HERDSMAN_REQUIRE", value_name = "TAGS", value_delimiter = ',', value_parser = cli::name)]
    require: Vec<String>,

    /// Begin no sooner than after this time
    #[arg(long, env = "HERDSMAN_DELAY", value_name = "DURATION", value_parser = cli::duration, conflicts_with = "at")]
    pub delay: Option<Duration>,

    /// Begin no sooner than at this moment (UTC)
    #[arg(long, env = "HERDSMAN_AT", value_name = "2027-01-31T18:00:00Z", value_parser = moment)]
    at: Option<SystemTime>,

    /// Withdraw the job, its tasks and its data when this client is gone
    #[arg(long, env = "HERDSMAN_ATTACHED")]
    attached: bool,
}

impl How {
    /// As the record says it, but for what is counted from now on.
    pub fn policy(&self) -> Policy {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let since_1970 = |at: SystemTime| {
            let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
            i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
        };
        let retries = self.max_attempts > 1;
        Policy {
            max_attempts: self.max_attempts,
            backoff_ms: if retries { millis(self.backoff.0) } else { 0 },
            backoff_max_ms: if retries { millis(self.backoff.1) } else { 0 },
            crash_limit: self.crash_limit,
            timeout_ms: self.timeout.map(millis),
            not_before_ms: self.at.map(since_1970),
            priority: self.priority,
            require: self.require.clone(),
            attached: self.attached,
            ..Policy::default()
        }
    }
}

fn backoff(text: &str) -> Result<(Duration, Duration), String> {
    let (first, most) = text.split_once("..").unwrap_or((text, text));
    match (cli::duration(first)?, cli::duration(most)?) {
        (first, most) if first <= most => Ok((first, most)),
        _ => Err("the first must not be longer than the most: 1s..5m".to_owned()),
    }
}

fn moment(text: &str) -> Result<SystemTime, String> {
    humantime::parse_rfc3339_weak(text).map_err(|error| format!("{error}; write 2027-01-31T18:00:00Z"))
}
