//! A run as text: a table for people, JSON, InfluxDB's line protocol, and Prometheus' text format.

use std::fmt::Write;

use serde_json::{Value, json};

use super::{Case, ClientFigures, Figures, Operation, Run, Step, Tally};

/// One row: at which step, whose, what.
struct Row<'a> {
    step: usize,
    /// `load` or `probe`.
    whose: &'static str,
    /// The client and its worker; of all together, none.
    client: Option<(u32, &'a str)>,
    operation: Operation,
    figures: Figures,
}

fn rows(run: &Run, per_client: bool) -> Vec<Row<'_>> {
    let mut rows = Vec::new();
    for (at, step) in run.steps.iter().enumerate() {
        for (whose, tally) in [("probe", &step.measured.probe), ("load", &step.measured.load)] {
            let all = tally.iter().map(|(operation, measured)| (operation, measured.figures()));
            rows.extend(all.map(|(operation, figures)| Row { step: at, whose, client: None, operation, figures }));
        }
        for (client, (worker, measured)) in run.clients.iter().filter(|_| per_client) {
            let whose = if run.load.is_probe(*client) { "probe" } else { "load" };
            let client = Some((*client, worker.as_str()));
            let all = measured.steps[at].iter().map(|(operation, figures)| (*operation, figures.clone()));
            rows.extend(all.map(|(operation, figures)| Row { step: at, whose, client, operation, figures }));
        }
    }
    rows
}

/// What was done, in one line.
pub fn headline(run: &Run) -> String {
    let load = &run.load;
    let what = match load.case {
        Case::Lifecycle => format!(
            "{} clients x {} znodes of {} bytes x {} modifies",
            load.clients, load.znodes, load.data_size, load.modify
        ),
        Case::Ramp | Case::Steady => format!(
            "a probe and up to {} clients, {} operations a second each, {:.0} % reads, {} znodes of {} bytes each, seed {}",
            load.clients - 1,
            load.rate,
            load.read_ratio * 100.0,
            load.znodes,
            load.data_size,
            load.seed
        ),
    };
    let mut workers: Vec<&str> = run.clients.values().map(|(worker, _)| worker.as_str()).collect();
    workers.sort_unstable();
    workers.dedup();
    format!("{what}, on {}, from {} workers", load.target, workers.len())
}

/// A table; latencies in milliseconds.
pub fn table(run: &Run, per_client: bool) -> String {
    let mut text = headline(run).replacen(", on ", "\non ", 1) + "\n";
    let paced = run.load.case != Case::Lifecycle;
    let head = format!(
        "{:9} {:>8} {:>6} {:>8} {:>10} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}",
        "", "count", "errors", "seconds", "rate/s", "min ms", "mean", "p50", "p90", "p95", "p99", "max"
    );
    let mut heading = None;
    for row in rows(run, per_client) {
        let new = (row.step, row.whose, row.client);
        if heading != Some(new) {
            heading = Some(new);
            text.push('\n');
            let whose = match (row.client, paced) {
                (Some((client, worker)), _) => format!("client {client} on {worker}"),
                (None, false) => "all clients".to_owned(),
                (None, true) => match (row.whose, &run.steps[row.step]) {
                    ("probe", step) => format!("the probe beside {} clients", step.clients),
                    (_, step) => format!(
                        "{} clients: {:.0} operations a second offered, {:.0} done",
                        step.clients,
                        step.offered.unwrap_or_default(),
                        step.measured.load.rate()
                    ),
                },
            };
            let _ = writeln!(text, "{whose}\n{head}");
        }
        let f = &row.figures;
        let ms = |us: f64| format!("{:>9.3}", us / 1000.0);
        let _ = write!(
            text,
            "{:9} {:>8} {:>6} {:>8.2} {:>10.1} {} {}",
            row.operation,
            f.count,
            f.errors,
            f.seconds,
            f.rate,
            ms(f.min as f64),
            ms(f.mean)
        );
        for us in [f.p50, f.p90, f.p95, f.p99, f.max] {
            let _ = write!(text, " {}", ms(us as f64));
        }
        text.push('\n');
    }
    text
}

/// One JSON object; latencies in microseconds.
pub fn json(run: &Run) -> Value {
    let operations = |tally: &Tally| {
        let all = tally.iter().map(|(operation, m)| (operation.to_string(), json!(m.figures())));
        Value::Object(all.collect())
    };
    let clients = |at: usize| {
        let one = |(client, (worker, measured)): (&u32, &(String, ClientFigures))| {
            let operations = &measured.steps[at];
            json!({ "client": client, "worker": worker, "operations": operations })
        };
        run.clients.iter().map(one).collect::<Vec<_>>()
    };
    let step = |(at, step): (usize, &Step)| {
        json!({
            "load_clients": step.clients,
            "offered_per_s": step.offered,
            "load": operations(&step.measured.load),
            "probe": operations(&step.measured.probe),
            "clients": clients(at),
        })
    };
    let steps: Vec<Value> = run.steps.iter().enumerate().map(step).collect();
    json!({ "verdict": "valid", "job": run.job, "load": run.load, "unit": "us", "steps": steps })
}

/// InfluxDB's line protocol, a line for each client, step and operation, with the clients' and workers' names as tags;
/// latencies in microseconds. `now_ns` is the time since 1970 in nanoseconds.
pub fn influx(run: &Run, now_ns: u128) -> String {
    let mut text = String::new();
    let case = case(run);
    for row in rows(run, true).iter().filter(|row| row.client.is_some()) {
        let (client, worker) = row.client.unwrap_or_default();
        let Row { step, whose, operation, figures: f, .. } = row;
        let _ = writeln!(
            text,
            "herdsman_stress,job={},case={case},client={client},worker={worker},operation={operation},part={whose},step={step} \
             load_clients={}i,count={}i,errors={}i,seconds={},rate={},min={}i,mean={},p50={}i,p90={}i,p95={}i,p99={}i,max={}i {now_ns}",
            run.job,
            run.steps[*step].clients,
            f.count,
            f.errors,
            f.seconds,
            f.rate,
            f.min,
            f.mean,
            f.p50,
            f.p90,
            f.p95,
            f.p99,
            f.max
        );
    }
    text
}

/// Prometheus' text format, for a file that its node exporter collects: a summary for each client, step and operation.
pub fn prometheus(run: &Run) -> String {
    const NAME: &str = "herdsman_stress_latency_seconds";
    let mut text = format!("# HELP {NAME} Latency of operations on the service under test.\n# TYPE {NAME} summary\n");
    let mut errors = "# HELP herdsman_stress_errors_total Operations that were not answered.\n\
                      # TYPE herdsman_stress_errors_total counter\n"
        .to_owned();
    let case = case(run);
    for row in rows(run, true).iter().filter(|row| row.client.is_some()) {
        let (client, worker) = row.client.unwrap_or_default();
        let Row { step, whose, operation, figures: f, .. } = row;
        let labels = format!(
            "job=\"{}\",case=\"{case}\",client=\"{client}\",worker=\"{worker}\",operation=\"{operation}\",part=\"{whose}\",step=\"{step}\"",
            run.job
        );
        for (quantile, us) in
            [("0", f.min), ("0.5", f.p50), ("0.9", f.p90), ("0.95", f.p95), ("0.99", f.p99), ("1", f.max)]
        {
            let _ = writeln!(text, "{NAME}{{{labels},quantile=\"{quantile}\"}} {}", us as f64 / 1e6);
        }
        let _ = writeln!(text, "{NAME}_sum{{{labels}}} {}", f.mean * f.count as f64 / 1e6);
        let _ = writeln!(text, "{NAME}_count{{{labels}}} {}", f.count);
        let _ = writeln!(errors, "herdsman_stress_errors_total{{{labels}}} {}", f.errors);
    }
    text + &errors
}

fn case(run: &Run) -> &'static str {
    match run.load.case {
        Case::Lifecycle => "lifecycle",
        Case::Ramp => "ramp",
        Case::Steady => "steady",
    }
}
