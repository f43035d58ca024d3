//! `client stress`.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use clap::{Args, ValueEnum};
use coordination::ConnectString;
use herdsman::cli::stress::{Stage, StressError, stress as run_stress};
use herdsman::cli::{self, ConnectArgs, Exit};
use herdsman::shutdown::Shutdown;
use indicatif::{ProgressBar, ProgressStyle};
use rand::RngExt;
use stress::{Case, Load, report::write_page, text};

#[derive(Debug, Args)]
pub struct Stress {
    /// The service to be measured; it may be another one than the herd's own
    #[arg(long, env = "HERDSMAN_TARGET", value_name = "HOST:PORT[,...][/chroot]")]
    target: ConnectString,

    /// How many simulated clients, spread over the free slots of all workers
    #[arg(long, env = "HERDSMAN_CLIENTS", value_name = "N", default_value_t = 11)]
    clients: u32,

    /// How many znodes each of them creates
    #[arg(long, env = "HERDSMAN_ZNODES", value_name = "N", default_value_t = 1000)]
    znodes: u32,

    /// How many of them it modifies in a lifecycle
    #[arg(long, env = "HERDSMAN_MODIFY", value_name = "N", default_value_t = 10)]
    modify: u32,

    /// Bytes in each znode
    #[arg(long, env = "HERDSMAN_DATA_SIZE", value_name = "BYTES", default_value_t = 6)]
    data_size: usize,

    /// What is done
    #[arg(long = "case", env = "HERDSMAN_CASE", value_enum, default_value_t = Cases::Lifecycle)]
    case: Cases,

    /// For how long ramp and steady measure, all steps together
    #[arg(long, env = "HERDSMAN_DURATION", value_name = "DURATION", default_value = "120s", value_parser = cli::duration)]
    duration: Duration,

    /// Operations a second that each client begins in ramp and steady, the probe too
    #[arg(long, env = "HERDSMAN_RATE", value_name = "PER_SECOND", default_value_t = 100.0)]
    rate: f64,

    /// The share of reads in ramp and steady; the others are modifies
    #[arg(long, env = "HERDSMAN_READ_RATIO", value_name = "0..1", default_value_t = 0.5)]
    read_ratio: f64,

    /// Draws the operations of ramp and steady  [default: a random one]
    #[arg(long, env = "HERDSMAN_SEED")]
    seed: Option<u64>,

    /// Put load on a service that is not on this machine
    #[arg(long, env = "HERDSMAN_I_OWN_THIS_SERVICE")]
    i_own_this_service: bool,

    /// Show each client's figures in the table too
    #[arg(long, env = "HERDSMAN_PER_CLIENT")]
    per_client: bool,

    /// What goes to stdout
    #[arg(short, long, env = "HERDSMAN_OUTPUT", value_enum, default_value_t = Format::Table)]
    output: Format,

    /// Write a page with plots into this directory: index.html
    #[arg(long, env = "HERDSMAN_REPORT", value_name = "DIR")]
    report: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Cases {
    /// Each client connects, creates znodes, reads and watches them, modifies some, and closes
    Lifecycle,
    /// A probe measures while load is added client by client
    Ramp,
    /// A probe measures beside all other clients
    Steady,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people; latencies in milliseconds
    Table,
    /// One JSON object; latencies in microseconds
    Json,
    /// InfluxDB's line protocol; latencies in microseconds
    Influx,
    /// Prometheus' text format; latencies in seconds
    Prometheus,
}

impl Stress {
    fn load(&self, connect: &ConnectArgs) -> Load {
        Load {
            target: self.target.to_string(),
            case: match self.case {
                Cases::Lifecycle => Case::Lifecycle,
                Cases::Ramp => Case::Ramp,
                Cases::Steady => Case::Steady,
            },
            clients: self.clients,
            znodes: self.znodes,
            modify: self.modify,
            data_size: self.data_size,
            duration_ms: u64::try_from(self.duration.as_millis()).unwrap_or(u64::MAX),
            rate: self.rate,
            read_ratio: self.read_ratio,
            seed: self.seed.unwrap_or_else(|| rand::rng().random()),
            session_timeout_ms: u64::try_from(connect.session_timeout.as_millis()).unwrap_or(u64::MAX),
            root: String::new(),
            i_own_this_service: self.i_own_this_service,
        }
    }
}

pub async fn stress(connect: &ConnectArgs, stress: Stress, shutdown: &Shutdown) -> Exit {
    let load = stress.load(connect);
    if let Err(error) = load.check() {
        let hint = "--i-own-this-service, if it is yours";
        let hint = Some(hint).filter(|_| !load.i_own_this_service && !stress.target.is_loopback());
        return cli::complain(&error, hint, Exit::Usage);
    }
    let (config, mut rng) = (connect.session(false), rand::rng());
    let run = match run_stress(&config, load, &mut rng, shutdown, progress()).await {
        Ok(run) => run,
        Err(error) => return failed(&stress, &error),
    };
    cli::say(&match stress.output {
        Format::Table => text::table(&run, stress.per_client),
        Format::Json => format!("{}\n", text::json(&run)),
        Format::Influx => {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            text::influx(&run, now.as_nanos())
        }
        Format::Prometheus => text::prometheus(&run),
    });
    if let Some(directory) = &stress.report {
        if let Err(error) = write_page(&run, directory) {
            let error = format!("cannot write the page: {error:#}");
            return cli::complain(&error, Some("--report names a directory that can be written"), Exit::Failed);
        }
        cli::note(format_args!("written: {}", directory.join("index.html").display()));
    }
    Exit::Done
}

/// Says how far it is; where stderr is a terminal, with a bar.
fn progress() -> impl FnMut(Stage) {
    let mut bar = ProgressBar::hidden();
    move |stage| match stage {
        Stage::Gathering(job, generators) => {
            cli::note(format_args!("job {job}: {generators} load generators"));
        }
        Stage::Begun(points) => {
            cli::note("all are there: begun");
            if std::io::stderr().is_terminal() {
                let style = ProgressStyle::with_template("{spinner} {bar:40.cyan/blue} {pos}/{len}  {elapsed}");
                let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
                bar = ProgressBar::new(points.into()).with_style(style);
                bar.enable_steady_tick(Duration::from_millis(200));
            }
        }
        Stage::Reached(point) => {
            bar.set_position(point.into());
            if bar.length() == Some(point.into()) {
                bar.finish_and_clear();
            }
        }
        Stage::Left(what) => cli::note(format_args!("warning: {what}")),
    }
}

fn failed(stress: &Stress, error: &StressError) -> Exit {
    if let (StressError::Invalid(reason), Format::Json) = (error, stress.output) {
        cli::say(&format!("{}\n", serde_json::json!({ "verdict": "invalid", "reason": reason })));
    }
    match error {
        StressError::Refused(_) => cli::complain(error, None, Exit::Failed),
        StressError::Service { .. } => {
            cli::complain(error, Some("is it up, and is its chroot there? --target names it"), Exit::Lost)
        }
        StressError::Invalid(_) => {
            cli::complain(error, Some("there are no figures: mend that, and run it again"), Exit::Failed)
        }
        StressError::Interrupted => cli::complain(error, None, Exit::Interrupted),
        StressError::Herd(error) => cli::client_failed(error),
    }
}
