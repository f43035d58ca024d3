//! Masters and workers inside the test's process, each on a session of its own.

use std::time::Duration;

use coordination::SessionConfig;
use herdsman::handlers::{Exec, Handlers};
use herdsman::master::Master;

use herdsman::shutdown::{Shutdown, Stopper};
use herdsman::worker::Worker;
use tokio::task::JoinHandle;

/// A running role.
pub struct Member {
    stopper: Stopper,
    task: JoinHandle<()>,
}

impl Member {
    fn start(role: impl herdsman::Role + Send + 'static, config: &SessionConfig) -> Self {
        let (stopper, shutdown) = Shutdown::new();
        let config = config.clone();
        let task = tokio::spawn(async move {
            herdsman::run(role, &config, &shutdown).await.expect("ZooKeeper is up");
        });
        Member { stopper, task }
    }

    /// As SIGTERM does: drains, and returns when it has ended.
    pub async fn stop(self) {
        self.stopper.stop();
        self.task.await.expect("no panic");
    }
}

pub fn master(config: &SessionConfig, name: &str) -> Member {
    master_with_retention(config, name, Duration::from_secs(3600))
}

pub fn master_with_retention(config: &SessionConfig, name: &str, retention: Duration) -> Member {
    Member::start(Master { retention, ..Master::new(name) }, config)
}

/// Programs, supervised as those of `worker` are.
pub fn exec() -> Exec {
    Exec::supervised_by(env!("CARGO_BIN_EXE_worker"))
}

pub fn worker(config: &SessionConfig, name: &str) -> Member {
    worker_with(config, name, 4, Handlers::builtin().with("exec", exec()), Duration::from_secs(10))
}

pub fn worker_with(config: &SessionConfig, name: &str, slots: u32, handlers: Handlers, grace: Duration) -> Member {
    Member::start(Worker { slots, grace, ..Worker::new(name, handlers) }, config)
}
