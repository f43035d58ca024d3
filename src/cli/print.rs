//! Writing to stdout and stderr, which may be full, and whose readers may have gone: `println!` and `eprintln!` panic then.
//!
//! A stream that is closed when a program starts (`>&-`) is the null device to it: that is how Rust begins every process.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write};
use std::sync::OnceLock;

use super::{Exit, complain};

/// What stdout did not take, but for a reader that left.
static UNWRITTEN: OnceLock<io::Error> = OnceLock::new();

/// Writes to stdout. If that does not take all of it, [`ended`] makes it an error, unless only the reader has gone:
/// `client status | head -1` is none.
pub fn say(text: &str) {
    try_say(text);
}

/// The same; returns whether all of it was taken.
pub fn try_say(text: &str) -> bool {
    match write(&mut io::stdout().lock(), text.as_bytes()) {
        Ok(()) => true,
        Err(error) => {
            if error.kind() != ErrorKind::BrokenPipe {
                let _ = UNWRITTEN.set(error); // the first tells enough
            }
            false
        }
    }
}

/// Writes a line to stderr, if there is somebody to take it.
pub fn note(line: impl Display) {
    let _ = write(&mut io::stderr().lock(), format!("{line}\n").as_bytes());
}

/// How a program ends, now that all is said that it had to say.
pub fn ended(exit: Exit) -> Exit {
    match UNWRITTEN.get() {
        Some(error) => {
            let exit = if exit == Exit::Done { Exit::Failed } else { exit };
            complain(&format!("cannot write to stdout: {error}"), None, exit)
        }
        None => exit,
    }
}

fn write(to: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    to.write_all(bytes)?;
    to.flush()
}

/// What is to be written to both streams, in its order.
#[derive(Debug, Default)]
pub(super) struct Pending(Vec<(Stream, Vec<u8>)>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stream {
    Out,
    Err,
}

impl Pending {
    /// Where to append what goes to a stream.
    pub(super) fn to(&mut self, stream: Stream) -> &mut Vec<u8> {
        if self.0.last().is_none_or(|(last, _)| *last != stream) {
            self.0.push((stream, Vec::new()));
        }
        let (_, bytes) = self.0.last_mut().expect("just pushed, or there");
        bytes
    }

    /// Writes all of it, and forgets it. Errors: a stream did not take its part; those before it were written.
    pub(super) fn write(&mut self) -> io::Result<()> {
        std::mem::take(&mut self.0).iter().try_for_each(|(stream, bytes)| {
            let (name, written) = match stream {
                Stream::Out => ("stdout", write(&mut io::stdout().lock(), bytes)),
                Stream::Err => ("stderr", write(&mut io::stderr().lock(), bytes)),
            };
            written.map_err(|error| io::Error::new(error.kind(), format!("cannot write to {name}: {error}")))
        })
    }
}
