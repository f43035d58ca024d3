//! Programs as tasks: when one has ended, and that what it started ends with it.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use herdsman::client::{Client, Finished, FinishedStatus, JobSpec, LogLine};
use herdsman::handlers::{Exec, Handlers};
use tree::Policy;

use super::policy::{herd, shell, submitted, whole};
use crate::support::herd::{exec, master, worker_with};
use crate::support::{all, children, connect, eventually, fresh_config, is_gone, until};

/// What a script noted: the pid of a process that it started.
struct Noted {
    _folder: tempfile::TempDir,
    file: PathBuf,
}

impl Noted {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("pids");
        Noted { _folder: folder, file }
    }

    /// `script` with a function `note` in front.
    fn script(&self, script: &str) -> String {
        format!("note() {{ echo $1 > {0}.new; mv {0}.new {0}; }}; {script}", self.file.display())
    }

    async fn pid(&self) -> String {
        let text = eventually("a pid is noted", async || std::fs::read_to_string(&self.file).ok()).await;
        text.trim().to_owned()
    }

    async fn is_gone(&self) {
        let pid = self.pid().await;
        until("it is gone", async || is_gone(&pid)).await;
    }
}

/// The outcome of one such program, and how long it took.
async fn outcome(script: &str, policy: Policy) -> (Finished, Duration) {
    outcome_by(exec(), script, policy).await
}

async fn outcome_by(exec: Exec, script: &str, policy: Policy) -> (Finished, Duration) {
    let config = fresh_config();
    let _m = master(&config, "m");
    let _w = worker_with(&config, "w", 1, Handlers::none().with("exec", exec), Duration::from_secs(1));
    let session = connect(&config).await;
    until("the herd is there", async || children(&session, "/workers").await.len() == 1).await;
    let began = Instant::now();
    let (_, results) = submitted(&config, shell(script, policy), 1).await;
    let finished = all(results).await.pop().expect("one");
    (finished, began.elapsed())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_has_ended_when_it_has_exited_whoever_holds_its_pipes() {
    let noted = Noted::new();
    let script = noted.script("sleep 25 & note $!; echo started");
    let (finished, took) = outcome(&script, Policy { timeout_ms: Some(2_000), ..Policy::default() }).await;
    assert_eq!((finished.status, &finished.result["stdout"]), (FinishedStatus::Done, &"started\n".into()));
    assert!(took < Duration::from_secs(2), "{took:?}");
    noted.is_gone().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_program_left_behind_is_ended_though_it_takes_no_sigterm() {
    let noted = Noted::new();
    let script = noted.script("trap '' TERM; sleep 25 & note $!; echo started");
    let (finished, took) = outcome(&script, Policy { timeout_ms: Some(2_000), ..Policy::default() }).await;
    assert_eq!((finished.status, &finished.result["stdout"]), (FinishedStatus::Done, &"started\n".into()));
    assert!(took < Duration::from_secs(2), "{took:?}");
    noted.is_gone().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_program_left_in_the_background_ends_with_its_success() {
    let noted = Noted::new();
    let (finished, _) = outcome(&noted.script("sleep 1000 >/dev/null 2>&1 & note $!"), Policy::default()).await;
    assert!(finished.is_done());
    noted.is_gone().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_in_a_session_of_its_own_ends_with_the_one_that_started_it() {
    let noted = Noted::new();
    let (finished, _) = outcome(&noted.script("setsid sleep 1000 >/dev/null 2>&1 & note $!"), Policy::default()).await;
    assert!(finished.is_done());
    noted.is_gone().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_in_a_session_of_its_own_does_not_survive_a_cancel() {
    let config = fresh_config();
    let (_m, _w, _session) = herd(&config).await;
    let noted = Noted::new();
    let script = noted.script("setsid sleep 1000 & note $!; wait");
    let (job, results) = submitted(&config, shell(&script, Policy::default()), 1).await;
    noted.pid().await;
    let client = Client::connect(&config).await.expect("connected");
    assert_eq!(client.cancel(&whole(&job), "enough").await.expect("cancelled"), 1);
    assert_eq!(all(results).await[0].status, FinishedStatus::Cancelled);
    noted.is_gone().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_whose_supervisor_is_killed_ends_with_it() {
    let noted = Noted::new();
    let script = noted.script("sleep 1000 & note $!; kill -KILL $PPID; wait");
    let (finished, _) = outcome(&script, Policy::default()).await;
    assert_eq!(finished.error.as_deref(), Some("the program's supervisor was ended: ended by signal 9"));
    noted.is_gone().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn arguments_that_no_program_can_be_given_fail_their_tasks_and_hold_up_no_other() {
    let config = fresh_config();
    let (_m, _w, _session) = herd(&config).await;
    for args in [["echo", "a\0b"], ["ec\0ho", "a"]] {
        let spec = JobSpec { args: args.map(str::to_owned).to_vec(), ..JobSpec::new("exec") };
        let (_, results) = submitted(&config, spec, 1).await;
        let failed = all(results).await.pop().expect("one");
        let error = failed.error.unwrap_or_default();
        assert!(error.contains("cannot run") && error.contains("nul byte"), "{error}");
    }
    let (_, results) = submitted(&config, shell("true", Policy::default()), 1).await;
    assert!(all(results).await[0].is_done());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_supervisor_does_not_end_by_what_ends_a_whole_service_and_its_program_may() {
    let script = "for signal in TERM INT HUP; do kill -$signal $PPID; done; echo on";
    let (finished, _) = outcome(script, Policy::default()).await;
    assert_eq!((finished.error, &finished.result["stdout"]), (None, &"on\n".into()));
    for (signal, number) in [("TERM", 15), ("INT", 2), ("HUP", 1)] {
        let (finished, _) = outcome(&format!("kill -{signal} $$; echo on"), Policy::default()).await;
        assert_eq!(finished.error, Some(format!("ended by signal {number}")));
    }
}

/// Supervised by a shell script; file descriptor 3 is its worker.
fn supervised_by(folder: &tempfile::TempDir, script: &str) -> Exec {
    let file = folder.path().join("supervisor");
    std::fs::write(&file, format!("#!/bin/sh\nexec 3<&0\n{script}\n")).expect("writable");
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o700)).expect("ours");
    Exec::supervised_by(file)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_fails_whose_supervisor_was_killed_before_it_told_of_its_program() {
    let folder = tempfile::tempdir().expect("a folder");
    let killed = supervised_by(&folder, "\"$@\" & kill -KILL $$");
    let (finished, _) = outcome_by(killed, "true", Policy::default()).await;
    assert_eq!(finished.error.as_deref(), Some("the program's supervisor was ended: ended by signal 9"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_is_not_signalled_once_its_supervisor_has_ended_by_itself() {
    let mut stranger = Command::new("sleep").arg("1000").process_group(0).spawn().expect("there is sleep");
    let folder = tempfile::tempdir().expect("a folder");
    // Somebody else holds its end of the socket, so that the attempt is over before the worker has seen it end.
    let script = format!("sleep 5 & echo runs {} >&3; echo exited 0 >&3; exit 0", stranger.id());
    let (finished, _) = outcome_by(supervised_by(&folder, &script), "true", Policy::default()).await;
    assert!(finished.is_done());
    let pid = rustix::process::Pid::from_child(&stranger);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it is a child");
    assert_eq!(stranger.wait().expect("a child").signal(), Some(15), "9 if somebody killed it before");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_supervisor_is_known_by_its_name() {
    let (finished, _) = outcome("cat /proc/$PPID/comm", Policy::default()).await;
    assert_eq!(finished.result["stdout"], "herdsman-superv\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_supervisor_a_program_ends_with_its_group() {
    let noted = Noted::new();
    let script = noted.script("trap '' TERM; sleep 1000 & note $!; echo $PPID");
    let alone = Exec::new(); // nobody asked whether this process is a supervisor
    let (finished, took) = outcome_by(alone, &script, Policy::default()).await;
    let printed = format!("{}\n", std::process::id());
    assert_eq!((finished.status, &finished.result["stdout"]), (FinishedStatus::Done, &printed.into()));
    assert!(took < Duration::from_secs(2), "{took:?}");
    noted.is_gone().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_is_told_from_an_exit_code() {
    for (script, error) in [("kill -KILL $$", "ended by signal 9"), ("exit 137", "exit code 137")] {
        assert_eq!(outcome(script, Policy::default()).await.0.error.as_deref(), Some(error));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_progress_file_may_be_long_or_no_file_at_all() {
    let config = fresh_config();
    let (_m, _w, _session) = herd(&config).await;
    let folder = tempfile::tempdir().expect("a folder");
    let go = folder.path().join("go");
    let wait = format!("while [ ! -e {} ]; do sleep 0.05; done", go.display());
    // A pipe that nobody writes to: to open it takes for ever.
    let pipe = format!("rm -f $HERDSMAN_PROGRESS; mkfifo $HERDSMAN_PROGRESS; {wait}");
    let (_, of_pipe) = submitted(&config, shell(&pipe, Policy::default()), 1).await;
    // 4 GiB, nearly all of it a hole.
    let long = format!(
        "truncate -s 4G $HERDSMAN_PROGRESS; echo >> $HERDSMAN_PROGRESS; \
                        echo '0.5 half' >> $HERDSMAN_PROGRESS; {wait}"
    );
    let (job, of_long) = submitted(&config, shell(&long, Policy::default()), 1).await;
    let client = Client::connect(&config).await.expect("connected");
    let note = |_: &_, line: LogLine| {
        if line == LogLine::Progress(0.5, "half".to_owned()) {
            std::fs::write(&go, "").expect("writable");
        }
    };
    client.logs(&whole(&job), true, note).await.expect("followed to the end");
    assert!(all(of_long).await[0].is_done() && all(of_pipe).await[0].is_done());
}
