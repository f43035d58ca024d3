use std::convert::Infallible;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Map, Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::time::sleep;

use super::{Handler, Sink, Task, TaskError};
use crate::records::bytes_to_json;

/// How much of a program's stdout, and of its stderr, is kept: the first 96 KiB.
const OUTPUT_BYTES_MAX: usize = 96 * 1024;

/// How often a program's progress file is read.
const PROGRESS_EVERY: Duration = Duration::from_millis(500);

/// Runs a program: the job's arguments are the program and its arguments, the payload its standard input.
///
/// Returns `{"exit": 3, "stdout": "...", "stderr": "..."}`, with `"signal"` where one ended it, and
/// `"stdout_dropped_bytes"` where there was more than the 96 KiB kept (likewise for stderr). Any exit code but 0 is a
/// failure. The program runs in a process group of its own, and learns of its task by `HERDSMAN_TASK`, `HERDSMAN_ATTEMPT` and
/// `HERDSMAN_TOKEN`; into the file `HERDSMAN_PROGRESS` it may write lines like `0.4 resizing`. When the task is cancelled, the whole group is sent SIGTERM, and SIGKILL 2 s later; when it must stop
/// at once, SIGKILL.
#[derive(Debug, Clone, Copy)]
pub struct Exec;

impl Handler for Exec {
    async fn run(&self, task: Task) -> Result<Value, TaskError> {
        let Some((program, args)) = task.args.split_first() else {
            return Err(TaskError::new("exec was given no program: client submit -- PROGRAM ARGS..."));
        };
        let progress = ProgressFile::of(&task);
        let child = Command::new(program)
            .args(args)
            .env("HERDSMAN_TASK", task.id.to_string())
            .env("HERDSMAN_ATTEMPT", task.attempt.to_string())
            .env("HERDSMAN_TOKEN", task.token.to_string())
            .env("HERDSMAN_PROGRESS", &progress.path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .map_err(|error| TaskError::new(format!("cannot run '{program}': {error}")))?;
        let mut group = Group::of(child);
        let (stdin, stdout, stderr) = (group.child.stdin.take(), group.child.stdout.take(), group.child.stderr.take());
        let payload = task.payload;
        let feed = async move {
            if let Some(mut stdin) = stdin {
                let _ = stdin.write_all(&payload).await; // a program need not read it
            }
        };
        let cancelled = task.cancelled;
        let pid = group.pid;
        let end = async {
            tokio::select! {
                status = group.child.wait() => return status,
                () = cancelled.wait() => {}
            }
            signal(pid, Signal::TERM);
            group.child.wait().await
        };
        let all =
            async { tokio::join!(feed, keep(stdout, "stdout", &task.sink), keep(stderr, "stderr", &task.sink), end) };
        let ((), stdout, stderr, status) = tokio::select! {
            all = all => all,
            never = progress.follow(&task.sink) => match never {},
        };
        group.ended = true;
        let status = status?;
        let mut result = Map::new();
        result.insert("exit".to_owned(), json!(status.code()));
        if let Some(signal) = status.signal() {
            result.insert("signal".to_owned(), json!(signal));
        }
        for (name, kept) in [("stdout", stdout?), ("stderr", stderr?)] {
            result.insert(name.to_owned(), bytes_to_json(&kept.bytes));
            if kept.dropped > 0 {
                result.insert(format!("{name}_dropped_bytes"), json!(kept.dropped));
            }
        }
        let result = Value::Object(result);
        if status.success() { Ok(result) } else { Err(TaskError::Failed { error: describe(status), result }) }
    }
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("ended by signal {signal}"),
        (None, None) => "ended without an exit code".to_owned(),
    }
}

/// The file into which a program may write how far it is: a line like `0.4 resizing`, again and again.
struct ProgressFile {
    path: PathBuf,
}

impl ProgressFile {
    fn of(task: &Task) -> Self {
        let name = format!("herdsman-{}-{}-{}", std::process::id(), task.token, task.id.to_string().replace('/', "-"));
        ProgressFile { path: std::env::temp_dir().join(name) }
    }

    async fn follow(&self, sink: &Sink) -> Infallible {
        let mut before = String::new();
        loop {
            sleep(PROGRESS_EVERY).await;
            let Ok(text) = std::fs::read_to_string(&self.path) else { continue };
            let line = text.lines().next_back().unwrap_or_default();
            let (number, message) = line.split_once(' ').unwrap_or((line, ""));
            if let Ok(done) = number.parse()
                && line != before
            {
                sink.progress(done, message);
                line.clone_into(&mut before);
            }
        }
    }
}

impl Drop for ProgressFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path); // few programs write one
    }
}

struct Kept {
    bytes: Vec<u8>,
    dropped: usize,
}

/// Reads all of a stream, keeps its beginning, and shows its end.
async fn keep(stream: Option<impl AsyncRead + Unpin>, name: &'static str, sink: &Sink) -> std::io::Result<Kept> {
    let mut kept = Kept { bytes: Vec::new(), dropped: 0 };
    let Some(mut stream) = stream else { return Ok(kept) };
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let read = stream.read(&mut buffer).await?;
        if read == 0 {
            return Ok(kept);
        }
        sink.print(name, &buffer[..read]);
        let room = read.min(OUTPUT_BYTES_MAX - kept.bytes.len());
        kept.bytes.extend_from_slice(&buffer[..room]);
        kept.dropped += read - room;
    }
}

/// A program and all that it started; killed when dropped before its end.
struct Group {
    child: Child,
    pid: Option<Pid>,
    ended: bool,
}

impl Group {
    fn of(child: Child) -> Self {
        let pid = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        Group { child, pid, ended: false }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        signal(self.pid.filter(|_| !self.ended), Signal::KILL);
    }
}

fn signal(group: Option<Pid>, signal: Signal) {
    if let Some(pid) = group {
        let _ = kill_process_group(pid, signal); // it may have ended by itself
    }
}
