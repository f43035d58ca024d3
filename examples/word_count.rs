//! A worker with a kind of its own, in one file.
//!
//!     scenarios/up
//!     cargo run --example word_count &
//!     target/debug/client submit --kind wordcount --each-line README.md --wait

use herdsman::{Handler, Handlers, SessionConfig, Shutdown, Task, TaskError, Worker};
use serde_json::{Value, json};

struct WordCount;

impl Handler for WordCount {
    async fn run(&self, task: Task) -> Result<Value, TaskError> {
        let text = String::from_utf8(task.payload)?;
        Ok(json!(text.split_whitespace().count()))
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    herdsman::cli::start_logging(herdsman::cli::LogFormat::Text, "info");
    let zookeeper = std::env::var("HERDSMAN_ZOOKEEPER").unwrap_or_else(|_| "127.0.0.1:2181".to_owned());
    let zookeeper = zookeeper.parse().map_err(anyhow::Error::msg)?;
    let config = SessionConfig { create_chroot: true, ..SessionConfig::new(zookeeper) };
    let worker = Worker::new("counter", Handlers::none().with("wordcount", WordCount));
    herdsman::run(worker, &config, &Shutdown::on_signals()?).await?;
    Ok(())
}
