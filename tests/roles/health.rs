//! A worker that lacks what its tasks need, beside one that has it.

use std::time::Duration;

use futures::future::join_all;
use herdsman::client::{FinishedStatus, JobSpec, open};
use herdsman::handlers::{Handler, Handlers, Task, TaskError};
use serde_json::{Value, json};

use crate::support::herd::{master, worker_with};
use crate::support::{all, children, connect, fresh_config, until};

/// Fails at once, or does it in 100 ms.
struct Has(bool);

impl Handler for Has {
    async fn run(&self, _: Task) -> Result<Value, TaskError> {
        if !self.0 {
            return Err(TaskError::new("no such program"));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        Ok(json!(null))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_fails_everything_at_once_draws_a_few_tasks_and_not_all() {
    let config = fresh_config();
    let join = |name, has| worker_with(&config, name, 4, Handlers::builtin().with("k", Has(has)), Duration::ZERO);
    let (_m, _bad, _good) = (master(&config, "m"), join("bad", false), join("good", true));
    let session = connect(&config).await;
    until("the herd is there", async || children(&session, "/workers").await.len() == 2).await;
    let (job, results) = open(&config, JobSpec::new("k"), &mut rand::rng()).await.expect("opened");
    join_all((0..200).map(|_| job.submit(Vec::new()))).await.into_iter().for_each(|task| drop(task.expect("in")));
    job.seal().await.expect("sealed");
    let failed = all(results).await.iter().filter(|finished| finished.status == FinishedStatus::Failed).count();
    assert!((1..60).contains(&failed), "{failed} of 200");
}
