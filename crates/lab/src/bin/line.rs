//! `line`: a TCP proxy on loopback between a process and ZooKeeper, steered through standard input.

#![warn(clippy::print_stdout, clippy::print_stderr)]

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use herdsman::cli::{self, Exit};
use herdsman_lab::line::{Line, MULTI};
use tokio::io::{AsyncBufReadExt, BufReader};

const COMMANDS: &str = "Commands, a line each on standard input; its end ends the proxy:
  cut            end every connection, and each new one
  mend           let everything pass again
  drop-requests  lose what goes to the server; connections stay open
  drop-replies   lose what comes from the server; connections stay open
  delay MS       hold everything back for so long
  cut-reply      let the next write reach the server, and end the connection instead of handing on its reply
  cut-replies K[,K...] [over BYTES]
                 the same with the K-th reply to a write (from 1, counted from now on, over all connections),
                 or to a write of more than BYTES; takes the place of the schedule before it
  replies-cut    print how many replies were cut off so";

/// A line to ZooKeeper that can be cut. Prints the address to connect to.
#[derive(Debug, Parser)]
#[command(version, after_help = COMMANDS)]
struct Args {
    /// The server
    #[arg(long, value_name = "HOST:PORT")]
    to: String,
}

fn main() -> ExitCode {
    let args = Args::parse();
    cli::run(async {
        let line = match Line::to(&args.to).await {
            Ok(line) => line,
            Err(error) => return cli::complain(&format!("no loopback port to be had: {error}"), None, Exit::Failed),
        };
        cli::say(&format!("{}\n", line.address()));
        let mut commands = BufReader::new(tokio::io::stdin()).lines();
        while let Ok(Some(command)) = commands.next_line().await {
            match command.split_whitespace().collect::<Vec<_>>()[..] {
                ["cut"] => line.cut(),
                ["mend"] => line.mend(),
                ["drop-requests"] => line.drop_requests(),
                ["drop-replies"] => line.drop_replies(),
                ["cut-reply"] => line.cut_reply_to(MULTI),
                ["cut-replies", ref schedule @ ..] => match schedule.join(" ").parse() {
                    Ok(schedule) => line.schedule(schedule),
                    Err(error) => return cli::complain(&error, Some(COMMANDS), Exit::Usage),
                },
                ["replies-cut"] => cli::say(&format!("{}\n", line.replies_cut())),
                ["delay", ms] if ms.parse::<u64>().is_ok() => {
                    line.delay(Duration::from_millis(ms.parse().unwrap_or_default()));
                }
                _ => return cli::complain(&format!("no command: '{command}'"), Some(COMMANDS), Exit::Usage),
            }
        }
        Exit::Done
    })
}
