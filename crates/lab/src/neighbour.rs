//! A neighbour on the same ZooKeeper that does wrong: `scenarios/Neighbour.java`, by ZooKeeper's own client.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use audit::Violation;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::schedule::Deed;

/// What it leaves that its session would not end, against the protocol: the auditor names these, as it should.
const OUTLIVING: [&str; 4] = ["/master/old-", "/master/secret-", "/workers/secret-", "/workers/fat-"];

/// It does what it is told, one deed after another. It ends with its standard input.
pub(super) struct Neighbour {
    process: Child,
    commands: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    /// How many commands were not answered yet.
    unanswered: usize,
}

impl Neighbour {
    /// It reaches the servers directly. What it complains of goes to a file.
    pub(super) async fn start(scenarios: &Path, work: &Path, servers: &[String]) -> anyhow::Result<Self> {
        let mut process = Command::new(scenarios.join("zookeeper"))
            .arg("java")
            .arg(scenarios.join("Neighbour.java"))
            .arg(servers.join(","))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(work.join("neighbour.log"))?)
            .kill_on_drop(true)
            .spawn()
            .context("starting the hostile neighbour")?;
        let commands = process.stdin.take().context("piped")?;
        let answers = BufReader::new(process.stdout.take().context("piped")?).lines();
        Ok(Neighbour { process, commands, answers, unanswered: 0 })
    }

    /// Has it do something, or undo it. Nobody waits: servers may be away.
    pub(super) async fn tell(&mut self, deed: Deed, begins: bool) -> anyhow::Result<()> {
        let command = format!("{} {}\n", if begins { "begin" } else { "end" }, deed.name());
        self.commands.write_all(command.as_bytes()).await.context("the hostile neighbour has ended")?;
        self.unanswered += 1;
        Ok(())
    }

    /// Waits until everything is undone, and for its end.
    pub(super) async fn leave(mut self, within: Duration) -> anyhow::Result<()> {
        let all = async {
            while self.unanswered > 0 {
                self.answers.next_line().await?.context("the hostile neighbour has ended: see neighbour.log")?;
                self.unanswered -= 1;
            }
            drop(self.commands);
            self.process.wait().await?;
            Ok(())
        };
        tokio::time::timeout(within, all).await.context("the hostile neighbour does not leave")?
    }
}

/// Whether a violation is the neighbour's, and meant to be found.
pub(super) fn is_planted(violation: &Violation) -> bool {
    violation.rule == "ephemeral" && OUTLIVING.iter().any(|path| violation.what.starts_with(path))
}
