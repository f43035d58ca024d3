//! `zkbench`: the handler behind `client stress`, one load generator a task.

use coordination::SessionConfig;
use serde_json::Value;
use stress::{
    Share,
    generator::{Meeting, generate},
};
use tree::DATA_BYTES_MAX;

use crate::handlers::{Handler, Task, TaskError};

/// Makes load on a ZooKeeper service.
#[derive(Debug, Clone)]
pub struct Zkbench {
    herd: SessionConfig,
}

impl Zkbench {
    /// For workers of the herd at `herd`.
    pub fn new(herd: SessionConfig) -> Self {
        Zkbench { herd }
    }
}

impl Handler for Zkbench {
    async fn run(&self, task: Task) -> Result<Value, TaskError> {
        let share: Share = serde_json::from_slice(&task.payload)?;
        if task.attempt > 1 {
            return Err(TaskError::new("a load generator that begins again would measure something else"));
        }
        let (calls, member) = (task.id.job.calls_path(), task.id.at_path());
        let meeting = Meeting { zookeeper: self.herd.clone(), calls, member };
        let outcome = generate(share, meeting, task.cancelled.wait()).await.map_err(TaskError::new)?;
        // The outcome has more than its result.
        Ok(outcome.to_json(DATA_BYTES_MAX - 4096))
    }
}
