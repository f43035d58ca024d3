//! The process between a worker and a program, which sees to it that what the program started ends with it.
//!
//! A process group is ended by one signal, but whoever likes leaves it (`setsid`); and when the worker is killed nobody is
//! there to send one. So the worker's executable is started anew for each program, and that process starts the program:
//!
//! ```text
//! worker --- supervisor --- program --- what it started
//! ```
//!
//! - It is a *subreaper*, prctl(2): whatever loses its parent below it becomes its child, and can be found, ended and reaped.
//! - Its standard input is a socket whose other end the worker alone has. However the worker ends, this one is at its end,
//!   and the supervisor kills until it has no child. (PR_SET_PDEATHSIG would tell of the thread that started it, not of the
//!   worker.)
//!
//! The worker sends the program's three standard streams, so that the supervisor holds no pipe that somebody reads to its
//! end; then a byte for each SIGTERM. The supervisor answers in lines, [`Said`], and closes its end when no child is left.
//!
//! Whoever stops a whole service signals every process of it (systemd does, unless told `KillMode=mixed`), and the worker may
//! have a grace for what runs. So the supervisor does not end by SIGTERM, SIGINT or SIGHUP; the program may.
//!
//! What is left out: if the supervisor itself is killed, the worker kills the program's group, and what had left that lives on.
//! If that comes after it started the program and before it said so, the worker knows of no group: the attempt fails, and the
//! program runs to its end. (PR_SET_PDEATHSIG, set between fork and exec, would end the program itself; that is unsafe code.)
//! Where there are no subreapers (everywhere but on Linux), nothing is supervised.

use std::ffi::OsString;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::cmsg_space;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, FdFlags, fcntl_setfd};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};
use rustix::process::{Pid, Signal, WaitOptions, getpgid, getpid, kill_process, kill_process_group, wait};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};

/// What the process is called, by which it knows what it is to be.
pub(super) const NAME: &str = "herdsman-supervisor";

/// How often children are looked for while they are killed: one may have come without a signal.
const LOOK_EVERY: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };

/// Whether this process asked itself whether it is a supervisor.
static ASKED: AtomicBool = AtomicBool::new(false);

/// Supervises a program, if this process was started for that, and says how to end. The first line of the `main` of whoever
/// runs [`Exec`](super::Exec), before anything is read or printed.
pub fn supervise_if_asked() -> Option<ExitCode> {
    ASKED.store(true, Ordering::Relaxed);
    let mut args = std::env::args_os();
    if args.next().is_none_or(|name| name != NAME) {
        return None;
    }
    Some(match supervise(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "error: cannot supervise a program: {error}"); // the worker's stderr
            ExitCode::FAILURE
        }
    })
}

/// Whether this executable can be started as a supervisor.
pub(super) fn is_available() -> bool {
    cfg!(target_os = "linux") && ASKED.load(Ordering::Relaxed)
}

/// What a supervisor says, one line each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Said {
    /// It started the program, which leads a group of its own.
    Runs(Pid),
    /// It could not, for this error.
    Cannot(i32),
    /// The program has exited, with this as waitpid(2) has it.
    Exited(i32),
}

impl Said {
    fn line(self) -> String {
        match self {
            Said::Runs(pid) => format!("runs {}\n", pid.as_raw_nonzero()),
            Said::Cannot(errno) => format!("cannot {errno}\n"),
            Said::Exited(status) => format!("exited {status}\n"),
        }
    }

    /// What a line says.
    pub(super) fn of(line: &str) -> Option<Said> {
        let (verb, number) = line.split_once(' ')?;
        let number = number.parse().ok()?;
        match verb {
            "runs" => Pid::from_raw(number).map(Said::Runs),
            "cannot" => Some(Said::Cannot(number)),
            "exited" => Some(Said::Exited(number)),
            _ => None,
        }
    }
}

/// Sends a program's standard streams to its supervisor.
pub(super) fn send_streams(worker: &UnixStream, streams: &[BorrowedFd<'_>; 3]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(3))];
    let mut descriptors = SendAncillaryBuffer::new(&mut space);
    descriptors.push(SendAncillaryMessage::ScmRights(streams));
    rustix::net::sendmsg(worker, &[IoSlice::new(b"s")], &mut descriptors, SendFlags::empty())?;
    Ok(())
}

fn receive_streams(worker: &UnixStream) -> io::Result<[OwnedFd; 3]> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(3))];
    let mut descriptors = RecvAncillaryBuffer::new(&mut space);
    rustix::net::recvmsg(worker, &mut [IoSliceMut::new(&mut [0])], &mut descriptors, RecvFlags::empty())?;
    let mut streams = Vec::new();
    for message in descriptors.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            streams.extend(received);
        }
    }
    for stream in &streams {
        fcntl_setfd(stream, FdFlags::CLOEXEC)?;
    }
    <[OwnedFd; 3]>::try_from(streams).map_err(|_| io::Error::other("no worker sent the program's streams"))
}

fn supervise(args: impl Iterator<Item = OsString>) -> io::Result<()> {
    let mut worker = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let (program, mut ended) = match start(args, &worker) {
        Ok(started) => started,
        Err(error) => return error.raw_os_error().map_or(Err(error), |errno| tell(&worker, Said::Cannot(errno))),
    };
    let mut killing = tell(&worker, Said::Runs(program)).is_err();
    while reap(program, &worker)? {
        if killing {
            signal_children(program, Signal::KILL);
        }
        let mut waiting = [PollFd::new(&ended, PollFlags::IN), PollFd::new(&worker, PollFlags::IN)];
        let waiting = if killing { &mut waiting[..1] } else { &mut waiting[..] };
        let _ = poll(waiting, killing.then_some(&LOOK_EVERY)); // it may be interrupted by the signal itself
        let heard = waiting.get(1).is_some_and(|worker| !worker.revents().is_empty());
        let _ = ended.read(&mut [0; 64]);
        if heard {
            match worker.read(&mut [0; 64]) {
                Ok(0) | Err(_) => killing = true, // the worker has gone, or wants nothing of this to go on
                Ok(_) => signal_children(program, Signal::TERM),
            }
        }
    }
    if let Some(progress) = std::env::var_os("HERDSMAN_PROGRESS").filter(|_| killing) {
        let _ = std::fs::remove_file(progress); // a worker that lives does so itself
    }
    let _ = worker.shutdown(Shutdown::Both); // it need not wait until this process is taken down
    Ok(())
}

/// Starts the program. Returns what can be read from once a child has ended.
fn start(mut args: impl Iterator<Item = OsString>, worker: &UnixStream) -> io::Result<(Pid, UnixStream)> {
    let _ = std::fs::write("/proc/self/comm", NAME); // for `ps`, which would call it "exe"; cut off at 15 bytes
    for signal in [SIGTERM, SIGINT, SIGHUP] {
        signal_hook::flag::register(signal, Arc::default())?; // not ignored, for that the program would inherit
    }
    #[cfg(target_os = "linux")]
    rustix::process::set_child_subreaper(Some(getpid()))?;
    let (ended, signalled) = UnixStream::pair()?;
    ended.set_nonblocking(true)?;
    signal_hook::low_level::pipe::register(SIGCHLD, signalled)?;

    let [stdin, stdout, stderr] = receive_streams(worker)?;
    let mut command = Command::new(args.next().ok_or_else(|| io::Error::other("no program was named"))?);
    command.args(args).stdin(stdin).stdout(stdout).stderr(stderr).process_group(0);
    Ok((Pid::from_child(&command.spawn()?), ended))
}

fn tell(mut worker: &UnixStream, said: Said) -> io::Result<()> {
    worker.write_all(said.line().as_bytes())
}

/// Reaps whoever has ended, and tells of the program. Whether any child is left.
fn reap(program: Pid, worker: &UnixStream) -> io::Result<bool> {
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if pid == program => {
                let _ = tell(worker, Said::Exited(status.as_raw())); // a worker that has gone is noticed elsewhere
            }
            Ok(Some(_)) | Err(Errno::INTR) => {}
            Ok(None) => return Ok(true),
            Err(Errno::CHILD) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Signals each child, with its group where that is the program's or one that it leads. Nobody but this thread reaps them, so
/// none of these numbers can mean a stranger meanwhile. Their own children are signalled with the group, or when they have
/// become ours.
fn signal_children(program: Pid, signal: Signal) {
    for child in children() {
        let _ = match getpgid(Some(child)) {
            Ok(group) if group == program || group == child => kill_process_group(group, signal),
            _ => kill_process(child, signal),
        };
    }
}

/// This process's children, by the parent that each process names in `/proc`.
fn children() -> Vec<Pid> {
    let me = getpid().as_raw_nonzero().to_string();
    let Ok(processes) = std::fs::read_dir("/proc") else { return Vec::new() };
    let numbers = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    let is_mine = |number: &i32| {
        let stat = std::fs::read_to_string(format!("/proc/{number}/stat")).unwrap_or_default();
        // "PID (NAME) STATE PARENT ...", and a name may hold anything.
        stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)) == Some(me.as_str())
    };
    numbers.filter(is_mine).filter_map(Pid::from_raw).collect()
}
