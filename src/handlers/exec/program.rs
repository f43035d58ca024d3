//! A running program as its worker has it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream as Socket;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::net::unix::pipe::{Receiver, Sender};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::process::{Child, Command};
use tokio::time::sleep;

use super::supervisor::{NAME, Said, send_streams};
use super::{Task, TaskError, describe};

/// How often it is looked whether a group is empty.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// The worker's ends of a program's standard streams.
pub(super) struct Streams {
    pub(super) stdin: Sender,
    pub(super) stdout: Receiver,
    pub(super) stderr: Receiver,
}

/// A program and all that it started; killed when dropped.
pub(super) struct Program {
    /// The supervisor; without one, the program itself.
    process: Child,
    supervisor: Option<Supervisor>,
    /// The program's group. None once nobody is left in it.
    group: Option<Pid>,
}

struct Supervisor {
    says: Lines<BufReader<OwnedReadHalf>>,
    /// Closed when dropped, whereupon the supervisor kills everything.
    hears: Option<OwnedWriteHalf>,
}

impl Program {
    /// Starts `task`'s program, with `HERDSMAN_PROGRESS` set to `progress`.
    ///
    /// Errors: what the worker lacks, or why there can be no such program.
    pub(super) async fn start(
        supervisor: Option<&Path>,
        task: &Task,
        progress: &Path,
    ) -> Result<(Self, Streams), TaskError> {
        let Some((program, args)) = task.args.split_first() else {
            return Err(TaskError::new("exec was given no program: client submit -- PROGRAM ARGS..."));
        };
        let ((streams, ends), sockets) = pipes()
            .and_then(|pipes| Ok((pipes, supervisor.map(|_| Socket::pair()).transpose()?)))
            .map_err(|error| TaskError::WorkerLacks(format!("cannot open pipes for '{program}': {error}")))?;
        let mut command = Command::new(supervisor.unwrap_or(Path::new(program)));
        command
            .env("HERDSMAN_TASK", task.id.to_string())
            .env("HERDSMAN_ATTEMPT", task.attempt.to_string())
            .env("HERDSMAN_TOKEN", task.token.to_string())
            .env("HERDSMAN_PROGRESS", progress)
            .process_group(0); // so that no key of a worker's terminal reaches it
        let cannot = |error| cannot_run(&format!("'{program}'"), &error);
        let (Some(executable), Some((ours, its))) = (supervisor, sockets) else {
            let [stdin, stdout, stderr] = ends;
            command.args(args).stdin(stdin).stdout(stdout).stderr(stderr);
            let process = command.spawn().map_err(cannot)?;
            let group = process.id().and_then(|id| Pid::from_raw(id.cast_signed()));
            return Ok((Program { process, supervisor: None, group }, streams));
        };
        let lacks = |error: io::Error| TaskError::WorkerLacks(format!("cannot supervise '{program}': {error}"));
        send_streams(&ours, &[ends[0].as_fd(), ends[1].as_fd(), ends[2].as_fd()]).map_err(lacks)?;
        ours.set_nonblocking(true).map_err(lacks)?;
        let (says, hears) = UnixStream::from_std(ours).map_err(lacks)?.into_split();
        drop(ends);
        command.arg0(NAME).arg(program).args(args).stdin(OwnedFd::from(its)).stdout(Stdio::null());
        let spawned = command.spawn();
        drop(command); // and with it the supervisor's end
        let supervised = format!("'{program}' supervised by '{}'", executable.display());
        let process = spawned.map_err(|error| cannot_run(&supervised, &error))?;
        let supervisor = Supervisor { says: BufReader::new(says).lines(), hears: Some(hears) };
        let mut program = Program { process, supervisor: Some(supervisor), group: None };
        // From here on the program may have run: nothing is for want of anything unless the supervisor says so.
        match program.next_said().await? {
            Said::Runs(group) => program.group = Some(group),
            Said::Cannot(errno) => return Err(cannot(io::Error::from_raw_os_error(errno))),
            Said::Exited(_) => return Err(other_protocol().into()),
        }
        Ok((program, streams))
    }

    /// Completes once the program itself has exited. May be dropped and called anew.
    pub(super) async fn exited(&mut self) -> io::Result<ExitStatus> {
        if self.supervisor.is_none() {
            let status = self.process.wait().await;
            self.look_for_group(); // at once: its number may be somebody else's soon
            return status;
        }
        match self.next_said().await? {
            Said::Exited(status) => Ok(ExitStatus::from_raw(status)),
            Said::Runs(_) | Said::Cannot(_) => Err(other_protocol()),
        }
    }

    async fn next_said(&mut self) -> io::Result<Said> {
        let said = match &mut self.supervisor {
            Some(supervisor) => supervisor.says.next_line().await.ok().flatten(),
            None => None,
        };
        match said.as_deref().and_then(Said::of) {
            Some(said) => Ok(said),
            None => {
                let status = self.process.wait().await?;
                Err(io::Error::other(format!("the program's supervisor was ended: {}", describe(status))))
            }
        }
    }

    /// Sends SIGTERM to the program and to what it started.
    pub(super) fn terminate(&mut self) {
        match &self.supervisor {
            Some(supervisor) => {
                let _ = supervisor.hears.as_ref().map(|hears| hears.try_write(b"t")); // it may have ended by itself
            }
            None => self.signal_group(Signal::TERM),
        }
    }

    /// Sends SIGKILL to the program and to what it started.
    pub(super) fn kill(&mut self) {
        match &mut self.supervisor {
            Some(supervisor) => supervisor.hears = None,
            None => self.signal_group(Signal::KILL),
        }
    }

    /// Completes once nothing is left of the program and of what it started. May be dropped and called anew.
    pub(super) async fn gone(&mut self) {
        match &mut self.supervisor {
            Some(supervisor) => while let Ok(Some(_)) = supervisor.says.next_line().await {},
            None => {
                while self.look_for_group() {
                    sleep(LOOK_EVERY).await;
                }
            }
        }
        self.group = None;
    }

    /// Whether anybody is left in the group.
    fn look_for_group(&mut self) -> bool {
        self.group = self.group.filter(|&group| test_kill_process_group(group).is_ok());
        self.group.is_some()
    }

    fn signal_group(&self, signal: Signal) {
        if let Some(group) = self.group {
            let _ = kill_process_group(group, signal); // it may have ended by itself
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
        // A supervisor that lives kills more than the group; one that was killed itself, nothing. One that ended by itself has
        // reaped everything, and the group's number may be somebody else's.
        let was_killed = |ended| matches!(ended, Ok(Some(status)) if !ExitStatus::success(&status));
        if self.supervisor.is_none() || was_killed(self.process.try_wait()) {
            self.signal_group(Signal::KILL);
        }
    }
}

fn other_protocol() -> io::Error {
    io::Error::other("the program's supervisor speaks another protocol")
}

/// The worker's ends of three pipes, and the program's: stdin, stdout, stderr.
fn pipes() -> io::Result<(Streams, [OwnedFd; 3])> {
    let ((its_stdin, stdin), (stdout, its_stdout), (stderr, its_stderr)) = (io::pipe()?, io::pipe()?, io::pipe()?);
    let streams = Streams {
        stdin: Sender::from_owned_fd(stdin.into())?,
        stdout: Receiver::from_owned_fd(stdout.into())?,
        stderr: Receiver::from_owned_fd(stderr.into())?,
    };
    Ok((streams, [its_stdin.into(), its_stdout.into(), its_stderr.into()]))
}

/// Whether it is for the worker or for the task that `what` could not be started. What is not known to be want of something is
/// the task's: one that the worker handed back for ever would keep it from beginning any other.
fn cannot_run(what: &str, error: &io::Error) -> TaskError {
    let text = format!("cannot run {what}: {error}");
    match Errno::from_io_error(error) {
        Some(Errno::MFILE | Errno::NFILE | Errno::AGAIN | Errno::NOMEM) => TaskError::WorkerLacks(text),
        _ => TaskError::new(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_not_there_is_the_tasks_fault_and_want_of_descriptors_the_workers() {
        let cannot = |errno: Errno| cannot_run("p", &io::Error::from(errno));
        for lacking in [Errno::MFILE, Errno::NFILE, Errno::AGAIN, Errno::NOMEM] {
            assert!(matches!(cannot(lacking), TaskError::WorkerLacks(_)), "{lacking}");
        }
        for wrong in [Errno::NOENT, Errno::ACCESS, Errno::TOOBIG, Errno::NOEXEC] {
            assert!(matches!(cannot(wrong), TaskError::Failed { .. }), "{wrong}");
        }
        let without_errno = io::Error::from(io::ErrorKind::InvalidInput);
        assert!(matches!(cannot_run("p", &without_errno), TaskError::Failed { .. }));
    }
}
