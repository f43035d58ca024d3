//! The file into which a program may write how far it is: a line like `0.4 resizing`, again and again.

use std::convert::Infallible;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::OFlags;
use tokio::time::sleep;

use super::{Sink, Task, TaskError};
use crate::spawn::blocking;

/// How often it is read.
const READ_EVERY: Duration = Duration::from_millis(500);
/// How much of its end is read, in bytes.
const READ_BYTES_MAX: u64 = 4096;

/// The file; removed when dropped.
pub(super) struct ProgressFile {
    path: PathBuf,
}

impl ProgressFile {
    /// Makes it, empty.
    pub(super) async fn of(task: &Task) -> Result<Self, TaskError> {
        let name = format!("herdsman-{}-{}-{}", std::process::id(), task.token, task.id.to_string().replace('/', "-"));
        let file = ProgressFile { path: std::env::temp_dir().join(name) };
        // Not in the session's thread, here and below: who knows what kind of file system this is.
        let made = blocking(move || {
            let _ = std::fs::remove_file(&file.path); // somebody else's link, perhaps
            let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&file.path);
            let cannot = |error| format!("cannot write '{}', in the directory TMPDIR: {error}", file.path.display());
            made.map_err(|error| TaskError::WorkerLacks(cannot(error))).map(|_| file)
        });
        made.await.map_err(|error| TaskError::WorkerLacks(format!("cannot start a thread: {error}")))?
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Shows what the program writes.
    pub(super) async fn follow(&self, sink: &Sink) -> Infallible {
        let mut before = String::new();
        loop {
            sleep(READ_EVERY).await;
            let path = self.path.clone();
            let Ok(Ok(text)) = blocking(move || end_of(&path)).await else { continue };
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
        let _ = std::fs::remove_file(&self.path); // the program may have done that
    }
}

/// The end of a regular file. The program may have put anything in its place, a pipe that nobody writes to for one.
fn end_of(path: &Path) -> io::Result<String> {
    let no_wait = OFlags::NONBLOCK.bits().cast_signed();
    let mut file: File = OpenOptions::new().read(true).custom_flags(no_wait).open(path)?;
    let about = file.metadata()?;
    if !about.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    file.seek(SeekFrom::Start(about.len().saturating_sub(READ_BYTES_MAX)))?;
    let mut bytes = Vec::new();
    file.take(READ_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handlers::{Cancelled, Token};
    use crate::spawn::without_threads;

    fn task() -> Task {
        let id = format!("j-{}/0000000000", std::process::id()).parse().expect("valid");
        let token = Token { zxid: 1, run: 1 };
        let (args, payload) = (Vec::new(), Vec::new());
        Task { id, attempt: 1, token, args, payload, cancelled: Cancelled::never(), sink: Sink::default() }
    }

    #[test]
    fn where_there_is_no_thread_the_worker_lacks_one() {
        without_threads::holds(
            "handlers::exec::progress::tests::where_there_is_no_thread_the_worker_lacks_one",
            async { matches!(ProgressFile::of(&task()).await, Err(TaskError::WorkerLacks(_))) },
        );
    }
}
