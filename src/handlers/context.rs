use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;
use tree::live::{Live, STREAM_BYTES_MAX, Tail};

/// A fencing token: it grows with every time that a task is begun, whoever died in between. Whatever a task writes to can
/// keep the greatest token that it has seen of the task, and refuse smaller ones. Source: M. Kleppmann, "How to do
/// distributed locking", 2016.
///
/// Why it grows: a task at one version of its znode is in one worker's list at a time. It leaves that list, or the list goes
/// with its worker, before the task is written into another one, or in the same transaction; so every state of the old list
/// that had the task is older than any state of the new one that has it. A later version is written into a list only once the
/// task is at that version, and whoever writes lists from then on leaves the older version out. Leaders write one after the
/// other, each behind its guard. So the transaction that wrote the list in which a worker first saw the task is greater than
/// those of all assignments before, and needs no write of its own; under one assignment the runs are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token {
    /// The transaction that wrote the worker's list in which this worker first saw the task.
    pub zxid: i64,
    /// Which run it is under this assignment, counted from 1: a worker that stops for doubt of its session, and whose session
    /// lives after all, begins its tasks again.
    pub run: u32,
}

impl fmt::Display for Token {
    /// Twenty digits, a dash, and ten digits, so that tokens compare as text.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:020}-{:010}", self.zxid, self.run)
    }
}

/// What goes from a worker to a running task and back.
#[derive(Debug, Default)]
pub(crate) struct Signals {
    cancelled: AtomicBool,
    woken: Notify,
    state: Mutex<State>,
}

impl Signals {
    pub(crate) fn cancel(&self) {
        self.cancelled.store(true, Ordering::SeqCst);
        self.woken.notify_waiters();
    }
}

/// Tells when a task was cancelled.
#[derive(Debug, Clone, Default)]
pub struct Cancelled(pub(crate) Arc<Signals>);

impl Cancelled {
    /// Never: for tests of handlers.
    pub fn never() -> Self {
        Self::default()
    }

    /// Completes once the task was cancelled: there are 2 s to clean up.
    pub async fn wait(&self) {
        let woken = self.0.woken.notified();
        tokio::pin!(woken);
        woken.as_mut().enable(); // so that no call between the look and the wait is missed
        if !self.0.cancelled.load(Ordering::SeqCst) {
            woken.await;
        }
    }
}

/// What others see of a task while it runs: `client logs --follow` and `client info`. Shown once a second, for tasks that
/// run for longer than that; what is not seen is not kept.
#[derive(Debug, Clone, Default)]
pub struct Sink(pub(crate) Arc<Signals>);

#[derive(Debug, Default)]
struct State {
    progress: Option<f64>,
    message: String,
    streams: BTreeMap<&'static str, (u64, Vec<u8>)>,
    changed: bool,
}

impl Sink {
    /// So much is done, from 0 to 1, and this is what it is at.
    pub fn progress(&self, done: f64, message: &str) {
        let mut state = self.0.state.lock().expect("no panic holds this lock");
        state.progress = done.is_finite().then(|| done.clamp(0.0, 1.0));
        message.clone_into(&mut state.message);
        state.changed = true;
    }

    /// A line for the log.
    pub fn log(&self, line: &str) {
        self.print("log", format!("{line}\n").as_bytes());
    }

    /// More of a stream.
    pub(super) fn print(&self, stream: &'static str, bytes: &[u8]) {
        let mut state = self.0.state.lock().expect("no panic holds this lock");
        let (from, tail) = state.streams.entry(stream).or_default();
        tail.extend_from_slice(bytes);
        let over = tail.len().saturating_sub(STREAM_BYTES_MAX);
        tail.drain(..over);
        *from += over as u64;
        state.changed = true;
    }

    /// What there is to be shown, if it has changed since it was last taken.
    pub(crate) fn take(&self, worker: &str, attempt: u32) -> Option<Live> {
        let mut state = self.0.state.lock().expect("no panic holds this lock");
        std::mem::take(&mut state.changed).then(|| Live {
            worker: worker.to_owned(),
            attempt,
            progress: state.progress,
            message: state.message.clone(),
            streams: state.streams.iter().map(|(name, (from, end))| ((*name).to_owned(), tail(*from, end))).collect(),
        })
    }
}

/// The end of a stream as text of just as many bytes, so that offsets stay those of the stream. A character that is cut is
/// left out: at the front for good, at the end until the rest of it has come.
fn tail(from: u64, bytes: &[u8]) -> Tail {
    let of_cut = |byte: &&u8| from > 0 && (0x80..0xc0).contains(*byte);
    let cut = bytes.iter().take(3).take_while(of_cut).count();
    let mut text = String::new();
    let mut chunks = bytes[cut..].utf8_chunks().peekable();
    while let Some(chunk) = chunks.next() {
        text.push_str(chunk.valid());
        let is_begun = std::str::from_utf8(chunk.invalid()).is_err_and(|error| error.error_len().is_none());
        if chunks.peek().is_some() || !is_begun {
            text.extend(chunk.invalid().iter().map(|_| '?'));
        }
    }
    Tail { from: from + cut as u64, text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sink_keeps_the_end_of_each_stream_and_says_how_much_came_before() {
        let sink = Sink::default();
        assert_eq!(sink.take("w", 1), None);
        sink.print("stdout", &vec![b'x'; STREAM_BYTES_MAX]);
        sink.print("stdout", b"end");
        sink.log("a line");
        sink.progress(7.0, "nearly");
        let live = sink.take("w", 2).expect("changed");
        assert_eq!((live.progress, live.attempt), (Some(1.0), 2));
        assert_eq!((live.streams["stdout"].from, live.streams["stdout"].text.ends_with("xend")), (3, true));
        assert_eq!(live.streams["log"].text, "a line\n");
        assert_eq!(sink.take("w", 2), None, "nothing new");
    }

    #[test]
    fn a_follower_misses_nothing_at_a_character_that_was_cut_or_is_none() {
        let (sink, mut seen, mut followed) = (Sink::default(), 0, String::new());
        for part in [&b"a\xc3"[..], b"\xa9b", b"\xff\xfec", b"\xf0\x9f", b"\x90\x91d", b"\xc3", b"e"] {
            sink.print("stdout", part);
            let live = sink.take("w", 1).expect("changed");
            let (text, now) = live.streams["stdout"].since(seen);
            followed.push_str(text);
            seen = now;
        }
        assert_eq!((followed.as_str(), seen), ("a\u{e9}b??c\u{1f411}d?e", 14));
        let sheep = |times| "\u{1f411}".repeat(times) + "x";
        sink.print("stdout", sheep(STREAM_BYTES_MAX).as_bytes());
        let cut = sink.take("w", 1).expect("changed").streams["stdout"].clone();
        assert_eq!(cut.text, sheep(STREAM_BYTES_MAX / 4 - 1));
    }
}
