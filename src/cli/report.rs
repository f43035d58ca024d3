//! How the client shows tasks, the herd and the tree.

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;
use tree::{TaskId, TaskState, json_to_bytes};

use super::print::{Pending, Stream};
use super::{note, say};
use crate::client::TreeLine;
use crate::client::{Finished, FinishedStatus, Herd, JobInfo, JobView, LogLine, Tally};

/// How many malformed znodes are named to people.
const MALFORMED_NAMED_MAX: usize = 10;

/// What goes to stdout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// A line for each task; for programs, what they printed
    Table,
    /// One JSON object for each task: task, status, worker, attempts, result
    Json,
    /// Nothing
    Quiet,
}

/// Shows tasks as they end, with a progress bar below them where stderr is a terminal.
#[derive(Debug)]
pub struct Report {
    output: Output,
    bar: ProgressBar,
    began: Instant,
    headed: bool,
    pending: Pending,
    tally: Tally,
    dead: usize,
}

impl Report {
    /// A report on `total` tasks, if that is known.
    pub fn new(output: Output, total: Option<u64>) -> Self {
        let bar = match total {
            Some(total) if total > 1 && std::io::stderr().is_terminal() => {
                let style = "{bar:40.cyan/blue} {pos}/{len}  {per_sec}  {elapsed}, {eta} left";
                let style = ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar());
                let bar = ProgressBar::new(total).with_style(style);
                bar.enable_steady_tick(Duration::from_millis(200));
                bar
            }
            _ => ProgressBar::hidden(),
        };
        Report {
            output,
            bar,
            began: Instant::now(),
            headed: false,
            pending: Pending::default(),
            tally: Tally::default(),
            dead: 0,
        }
    }

    /// Prints what has ended. Errors: stdout or stderr did not take all of it.
    pub fn finished(&mut self, finished: &[Finished]) -> io::Result<()> {
        for finished in finished {
            self.tally.count(finished);
            self.dead += usize::from(finished.status == FinishedStatus::Dead);
            match self.output {
                Output::Quiet => {}
                Output::Json => self.line(&serde_json::to_string(finished).unwrap_or_default()),
                Output::Table => match program_output(&finished.result) {
                    Some((stdout, stderr)) => self.program(finished, &stdout, &stderr),
                    None => self.row(finished),
                },
            }
        }
        self.bar.inc(finished.len() as u64);
        let (bar, pending) = (&self.bar, &mut self.pending);
        bar.suspend(|| pending.write())
    }

    fn line(&mut self, line: &str) {
        let out = self.pending.to(Stream::Out);
        out.extend_from_slice(line.as_bytes());
        out.push(b'\n');
    }

    fn program(&mut self, finished: &Finished, stdout: &[u8], stderr: &[u8]) {
        self.pending.to(Stream::Out).extend_from_slice(stdout);
        let err = self.pending.to(Stream::Err);
        err.extend_from_slice(stderr);
        for (name, field) in [("stdout", "stdout_dropped_bytes"), ("stderr", "stderr_dropped_bytes")] {
            if let Some(bytes) = finished.result[field].as_u64() {
                let dropped = format!("task {}: {bytes} more bytes of {name} were dropped\n", finished.task);
                err.extend_from_slice(dropped.as_bytes());
            }
        }
        if let Some(error) = &finished.error {
            err.extend_from_slice(format!("task {} {}: {error}\n", finished.task, finished.status).as_bytes());
        }
    }

    fn row(&mut self, finished: &Finished) {
        let width = finished.task.len().max(4);
        if !self.headed {
            self.headed = true;
            self.line(&format!("{:width$}  {:9}  {:>8}  {:24}  RESULT", "TASK", "STATUS", "ATTEMPTS", "WORKER"));
        }
        let worker = finished.worker.as_deref().unwrap_or("-");
        let result = finished.error.clone().unwrap_or_else(|| one_line(&finished.result));
        let line =
            format!("{:width$}  {:9}  {:>8}  {worker:24}  {result}", finished.task, finished.status, finished.attempts);
        self.line(line.trim_end());
    }

    /// How many of them are dead, and stay.
    pub fn dead(&self) -> usize {
        self.dead
    }

    /// How far a job is that is only watched.
    pub fn progress(&mut self, outstanding: usize) {
        let total = self.bar.length().unwrap_or(0).max(outstanding as u64);
        self.bar.set_length(total);
        self.bar.set_position(total - outstanding as u64);
    }

    /// Prints the summary to stderr; returns what was counted.
    pub fn end(self) -> Tally {
        self.bar.finish_and_clear();
        let (tally, seconds) = (self.tally, self.began.elapsed().as_secs_f64());
        let total = tally.done + tally.failed;
        if total > 1 && self.output != Output::Quiet {
            let rate = total as f64 / seconds.max(1e-6);
            let Tally { done, failed, .. } = tally;
            note(format_args!("{total} tasks: {done} done, {failed} failed in {seconds:.2} s ({rate:.0}/s)"));
        }
        tally
    }
}

/// What a program of kind `exec` printed.
fn program_output(result: &Value) -> Option<(Vec<u8>, Vec<u8>)> {
    result.get("exit")?;
    Some((json_to_bytes(result.get("stdout")?)?, json_to_bytes(result.get("stderr")?)?))
}

fn one_line(result: &Value) -> String {
    match result {
        Value::Null => String::new(),
        Value::String(text) if !text.chars().any(char::is_control) => text.clone(),
        other => other.to_string(),
    }
}

/// The herd as text.
pub fn herd(herd: &Herd) -> String {
    let mut text = String::new();
    let mut line = |line: String| {
        text.push_str(line.trim_end());
        text.push('\n');
    };
    let master = |m: &crate::client::MasterView| format!("{}  (process {} on {})", m.id, m.pid, m.host);
    match herd.masters.split_first() {
        None => line("leader   none: start one with `master`".to_owned()),
        Some((leader, backups)) => {
            line(format!("leader   {}", master(leader)));
            backups.iter().for_each(|backup| line(format!("backup   {}", master(backup))));
        }
    }
    if herd.workers.is_empty() {
        line("workers  none: start one with `worker`".to_owned());
    }
    for worker in &herd.workers {
        let load = format!("{} of {} slots", worker.assigned.min(worker.slots as usize), worker.slots);
        let queued = worker.assigned.saturating_sub(worker.slots as usize);
        let queued = if queued > 0 { format!(" +{queued} queued") } else { String::new() };
        let tags = if worker.tags.is_empty() { String::new() } else { format!("  tags {}", worker.tags.join(", ")) };
        line(format!("worker   {}  {load}{queued}  runs {}{tags}", worker.id, worker.kinds.join(", ")));
    }
    let (waiting, assigned) = herd.jobs.iter().fold((0, 0), |(w, a), job| (w + job.waiting, a + job.assigned));
    line(format!("queue    {} jobs, {waiting} tasks waiting, {assigned} assigned", herd.jobs.len()));
    for job in &herd.jobs {
        line(job_line(job));
    }
    for path in herd.malformed.iter().take(MALFORMED_NAMED_MAX) {
        line(format!("malformed  {path}: not as docs/protocol.md says; ignored"));
    }
    if let Some(more) = herd.malformed.len().checked_sub(MALFORMED_NAMED_MAX).filter(|more| *more > 0) {
        line(format!("malformed  and {more} more: `client status -o json` names them"));
    }
    text
}

/// A job as a line of text.
pub fn job_line(job: &JobView) -> String {
    let sealed = match (&job.withdrawn, job.after.first()) {
        (Some(reason), _) => format!("  (withdrawn: {reason})"),
        (None, Some(before)) => format!("  (after {before})"),
        (None, None) if job.sealed => String::new(),
        (None, None) => "  (not sealed)".to_owned(),
    };
    format!(
        "job      {}  {}: {} waiting, {} assigned, {} to collect{sealed}",
        job.id, job.kind, job.waiting, job.assigned, job.ended
    )
}

/// A job, looked at closely, as text.
pub fn job(info: &JobInfo) -> String {
    let record = &info.record;
    let counts: Vec<String> = info.counts().iter().map(|(state, count)| format!("{count} {state}")).collect();
    let mut text = format!("job       {}  {}\n", info.id, if record.sealed { "sealed" } else { "not sealed" });
    text += &format!("kind      {}\n", [std::slice::from_ref(&record.kind), &record.args].concat().join(" "));
    text += &format!("policy    {}\n", serde_json::to_string(&record.policy).unwrap_or_default());
    text += &format!("client    {}\n", if info.attended { "attends it" } else { "none" });
    if let Some(withdrawn) = &record.withdrawn {
        text += &format!("withdrawn {}\n", withdrawn.reason);
    }
    if let Some(key) = &record.key {
        text += &format!("key       {key}\n");
    }
    text += &format!("tasks     {}\n", if counts.is_empty() { "none".to_owned() } else { counts.join(", ") });
    for task in &info.tasks {
        let worker = task.worker.as_deref().unwrap_or("-");
        let error = task.error.as_deref().unwrap_or_default();
        text += format!("  {:>10}  {:9}  {:>3} attempts  {worker:24}  {error}", task.n, task.state, task.attempts)
            .trim_end();
        text += "\n";
    }
    text
}

/// Prints what a task printed, to the same streams, each line behind the task's number; the rest goes to stderr.
pub fn log(task: &TaskId, line: &LogLine) {
    let n = task.n;
    match line {
        LogLine::Printed { stream, text, missed } => {
            let missed = (*missed > 0).then(|| format!("{n}: ... {missed} bytes of {stream} were not seen"));
            let lines = text.lines().map(|line| format!("{n}: {line}"));
            let lines = missed.into_iter().chain(lines).collect::<Vec<_>>().join("\n");
            if stream == "stdout" {
                say(&(lines + "\n"));
            } else {
                note(lines);
            }
        }
        LogLine::Progress(done, message) => note(format_args!("{n}: {:.0} % {message}", done * 100.0)),
        LogLine::Ended(finished) => {
            let error = finished.error.as_deref().map(|error| format!(": {error}")).unwrap_or_default();
            note(format_args!("{n}: {}{error}", finished.status));
        }
    }
}

/// Dead tasks as text: each with what became of its attempts.
pub fn dead(tasks: &[(TaskId, TaskState, i32)]) -> String {
    let mut text = String::new();
    for (task, state, _) in tasks {
        text += &format!("{task}  {} attempts, {} failed, {} crashed\n", state.attempt, state.failures, state.crashes);
        for attempt in &state.history {
            text += &format!("    {:24}  {}\n", attempt.worker, attempt.error.lines().next().unwrap_or_default());
        }
    }
    text
}

/// The tree as text, a line for each znode with its data.
pub fn tree(lines: &[TreeLine]) -> String {
    let mut text = String::new();
    for line in lines {
        let indent = "  ".repeat(line.depth);
        match &line.node {
            None => text.push_str(&format!("{indent}... {}\n", line.name)),
            Some(node) => {
                let data = String::from_utf8_lossy(&node.data);
                let long = data.chars().count() > 200;
                let data: String = data.chars().take(200).map(|c| if c.is_control() { '?' } else { c }).collect();
                let cut = if long { format!("... ({} bytes)", node.data.len()) } else { String::new() };
                let version = if node.version > 0 { format!("  v{}", node.version) } else { String::new() };
                let owner = if node.owner != 0 { format!("  ephemeral {:#x}", node.owner) } else { String::new() };
                text.push_str(format!("{indent}{}{version}{owner}  {data}{cut}", line.name).trim_end());
                text.push('\n');
            }
        }
    }
    text
}
