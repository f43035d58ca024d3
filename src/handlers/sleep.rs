use std::time::Duration;

use serde_json::{Value, json};

use super::{Handler, Task, TaskError};

/// Sleeps for as many seconds as its payload says, as the course's `utils.task` does; returns that number. No payload
/// is no time.
#[derive(Debug, Clone, Copy)]
pub struct Sleep;

impl Handler for Sleep {
    async fn run(&self, task: Task) -> Result<Value, TaskError> {
        let text = String::from_utf8_lossy(&task.payload);
        let text = text.trim();
        let seconds: f64 = if text.is_empty() { Ok(0.0) } else { text.parse() }
            .map_err(|_| TaskError::new(format!("the payload of sleep is a number of seconds, not '{text}'")))?;
        let time = Duration::try_from_secs_f64(seconds)
            .map_err(|error| TaskError::new(format!("cannot sleep for {seconds} seconds: {error}")))?;
        if !time.is_zero() {
            tokio::time::sleep(time).await; // no time would still wait for the clock's next tick
        }
        Ok(json!(seconds))
    }
}
