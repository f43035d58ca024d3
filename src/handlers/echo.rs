use serde_json::Value;
use tree::bytes_to_json;

use super::{Handler, Task, TaskError};

/// Returns its payload.
#[derive(Debug, Clone, Copy)]
pub struct Echo;

impl Handler for Echo {
    async fn run(&self, task: Task) -> Result<Value, TaskError> {
        Ok(bytes_to_json(&task.payload))
    }
}
