//! Programs as tasks.

mod program;
mod progress;
mod supervisor;

use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::pin::pin;
use std::process::ExitStatus;
use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use self::program::{Program, Streams};
use self::progress::ProgressFile;

pub use self::supervisor::supervise_if_asked;
use super::{Handler, Sink, Task, TaskError};
use tree::bytes_to_json;

/// How much of a program's stdout, and of its stderr, is kept: the first 96 KiB.
const OUTPUT_BYTES_MAX: usize = 96 * 1024;

/// How long a program's streams are read when it has exited and somebody else still holds them.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// What a program left behind is sent SIGTERM, and after this long SIGKILL. Short: its outcome waits for that, and the time
/// allowed for the attempt may be nearly over.
const LEFT_BEHIND_GRACE: Duration = Duration::from_millis(500);

/// Runs a program: the job's arguments are the program and its arguments, the payload its standard input.
///
/// Returns `{"exit": 3, "stdout": "...", "stderr": "..."}`, with `"signal"` where one ended it, and
/// `"stdout_dropped_bytes"` where there was more than the 96 KiB kept (likewise for stderr). Any exit code but 0 is a
/// failure. The program runs in a process group of its own, and learns of its task by `HERDSMAN_TASK`, `HERDSMAN_ATTEMPT` and
/// `HERDSMAN_TOKEN`; into the file `HERDSMAN_PROGRESS` it may write lines like `0.4 resizing`.
///
/// It has ended when it has exited, whoever holds its streams then. What it left behind is sent SIGTERM, and SIGKILL half a
/// second later. When the task is cancelled, it and all that it started is sent SIGTERM, and SIGKILL 2 s later; when it must
/// stop at once, SIGKILL.
///
/// "All that it started" is what runs below its supervisor, a process of its own between the worker and the program, which
/// also kills all of that as soon as the worker has ended, however that came. Without one it is the program's process group,
/// without what has left it (`setsid`); and nothing ends that when the worker is killed.
#[derive(Debug, Clone, Default)]
pub struct Exec {
    supervisor: Option<PathBuf>,
}

impl Exec {
    /// Programs supervised by this executable, started anew, if its `main` began with [`supervise_if_asked`]; otherwise, and
    /// everywhere but on Linux, by nobody.
    pub fn new() -> Self {
        // Not its path: it may have been replaced since.
        Exec { supervisor: supervisor::is_available().then(|| PathBuf::from("/proc/self/exe")) }
    }

    /// Programs supervised by another executable whose `main` begins with [`supervise_if_asked`], as that of `worker` does.
    /// On Linux only.
    pub fn supervised_by(executable: impl Into<PathBuf>) -> Self {
        Exec { supervisor: Some(executable.into()) }
    }
}

impl Handler for Exec {
    async fn run(&self, task: Task) -> Result<Value, TaskError> {
        let progress = ProgressFile::of(&task).await?;
        let (mut program, streams) = Program::start(self.supervisor.as_deref(), &task, progress.path()).await?;
        let Streams { mut stdin, stdout: its_stdout, stderr: its_stderr } = streams;
        let (mut stdout, mut stderr) = (Kept::default(), Kept::default());
        let Task { payload, cancelled, sink, .. } = task;
        let status = {
            let feed = async move {
                let _ = stdin.write_all(&payload).await; // a program need not read it
            };
            let talk = async {
                let (stdout, stderr) =
                    (stdout.keep(its_stdout, "stdout", &sink), stderr.keep(its_stderr, "stderr", &sink));
                tokio::join!(feed, stdout, stderr)
            };
            let exit = async {
                tokio::select! {
                    status = program.exited() => return status,
                    () = cancelled.wait() => {}
                }
                program.terminate();
                program.exited().await
            };
            let ended = async {
                let (mut talk, mut exit) = (pin!(talk), pin!(exit));
                let (status, talked) = tokio::select! {
                    status = &mut exit => (status, timeout(LAST_WORDS, talk).await.ok()),
                    talked = &mut talk => (exit.await, Some(talked)),
                };
                if let Some(((), stdout, stderr)) = talked {
                    stdout.and(stderr)?;
                }
                status
            };
            tokio::select! {
                status = ended => status?,
                never = progress.follow(&sink) => match never {},
            }
        };
        program.terminate();
        if timeout(LEFT_BEHIND_GRACE, program.gone()).await.is_err() {
            program.kill();
            let _ = timeout(LEFT_BEHIND_GRACE, program.gone()).await; // not even SIGKILL ends who waits for a disk
        }
        let mut result = Map::new();
        result.insert("exit".to_owned(), json!(status.code()));
        if let Some(signal) = status.signal() {
            result.insert("signal".to_owned(), json!(signal));
        }
        for (name, kept) in [("stdout", stdout), ("stderr", stderr)] {
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

/// The beginning of a stream.
#[derive(Default)]
struct Kept {
    bytes: Vec<u8>,
    dropped: usize,
}

impl Kept {
    /// Reads all of a stream, keeps its beginning, and shows its end.
    async fn keep(
        &mut self,
        mut stream: impl AsyncRead + Unpin,
        name: &'static str,
        sink: &Sink,
    ) -> std::io::Result<()> {
        let mut buffer = vec![0; 16 * 1024];
        loop {
            let read = stream.read(&mut buffer).await?;
            if read == 0 {
                return Ok(());
            }
            sink.print(name, &buffer[..read]);
            let room = read.min(OUTPUT_BYTES_MAX - self.bytes.len());
            self.bytes.extend_from_slice(&buffer[..room]);
            self.dropped += read - room;
        }
    }
}
