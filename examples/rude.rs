//! A worker whose handlers are rude: for `scenarios/hostile.sh`, and to see what a worker bears.
//!
//! - `block` sleeps for as many seconds as its payload says, on the thread that it was given.
//! - `panic` panics in a task that it has spawned.

use std::time::Duration;

use coordination::SessionConfig;
use herdsman::handlers::{Handler, Handlers, Task, TaskError};
use herdsman::shutdown::Shutdown;
use herdsman::worker::Worker;
use serde_json::Value;

struct Block;

impl Handler for Block {
    async fn run(&self, task: Task) -> Result<Value, TaskError> {
        std::thread::sleep(Duration::from_secs_f64(String::from_utf8(task.payload)?.parse()?));
        Ok(Value::Null)
    }
}

struct Panic;

impl Handler for Panic {
    async fn run(&self, _: Task) -> Result<Value, TaskError> {
        tokio::spawn(async { panic!("rude") }).await?;
        Ok(Value::Null)
    }
}

fn main() -> anyhow::Result<()> {
    herdsman::cli::start_logging(herdsman::cli::LogFormat::Text, "info");
    let variable = |name: &str| std::env::var(name).map_err(|_| anyhow::anyhow!("{name} is not set"));
    let zookeeper = variable("HERDSMAN_ZOOKEEPER")?.parse().map_err(anyhow::Error::msg)?;
    let config = SessionConfig {
        session_timeout: variable("HERDSMAN_SESSION_TIMEOUT")?.parse::<humantime::Duration>()?.into(),
        create_chroot: true,
        ..SessionConfig::new(zookeeper)
    };
    let handlers = Handlers::none().with("block", Block).with("panic", Panic);
    let worker = Worker { grace: Duration::from_secs(1), ..Worker::new("rude", handlers) };
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(async {
        herdsman::run(worker, &config, &Shutdown::on_signals()?).await?;
        Ok(())
    })
}
