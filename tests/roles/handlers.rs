//! What handlers may do, and what their worker may lack, without harm to anybody else.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use herdsman::handlers::{Handler, Handlers, Task, TaskError};
use herdsman::roles::client::{JobSpec, open};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::time::sleep;

use crate::support::herd::{master, worker_with};
use crate::support::{all, children, connect, fresh_config, until};

/// Needs something of which its worker has so much; says by which worker it was run.
#[derive(Clone)]
struct Needy {
    worker: &'static str,
    has: Arc<Semaphore>,
    lacked: Arc<AtomicUsize>,
}

impl Needy {
    fn on(worker: &'static str, has: usize) -> Self {
        Needy { worker, has: Arc::new(Semaphore::new(has)), lacked: Arc::default() }
    }
}

impl Handler for Needy {
    async fn run(&self, _: Task) -> Result<Value, TaskError> {
        let Ok(_taken) = self.has.try_acquire() else {
            self.lacked.fetch_add(1, Ordering::SeqCst);
            return Err(TaskError::WorkerLacks("file descriptors".to_owned()));
        };
        sleep(Duration::from_millis(100)).await;
        Ok(json!(self.worker))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_lacks_something_fails_no_task_and_leaves_nearly_all_to_the_others() {
    let config = fresh_config();
    let _m = master(&config, "m");
    let (good, poor) = (Needy::on("good", 4), Needy::on("poor", 1));
    let grace = Duration::from_secs(1);
    let _good = worker_with(&config, "good", 4, Handlers::none().with("needy", good.clone()), grace);
    let _poor = worker_with(&config, "poor", 4, Handlers::none().with("needy", poor.clone()), grace);
    let session = connect(&config).await;
    until("the herd is there", async || children(&session, "/workers").await.len() == 2).await;
    let (job, results) = open(&config, JobSpec::new("needy"), &mut rand::rng()).await.expect("opened");
    for _ in 0..100 {
        job.submit(Vec::new()).await.expect("acknowledged");
    }
    job.seal().await.expect("sealed");
    let finished = all(results).await;
    assert!(finished.iter().all(|finished| finished.is_done() && finished.attempts == 1), "{finished:?}");
    let by_good = finished.iter().filter(|finished| finished.result == json!("good")).count();
    assert!(by_good >= 85, "{by_good} of 100");
    let lacked = poor.lacked.load(Ordering::SeqCst);
    assert!((1..=30).contains(&lacked), "handed back {lacked} times");
    assert_eq!(good.lacked.load(Ordering::SeqCst), 0, "no more at once than it has slots");
}
