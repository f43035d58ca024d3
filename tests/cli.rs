//! The three programs as a person meets them: what they print, and with which code they end.

#[path = "cli/descriptors.rs"]
mod descriptors;
#[path = "cli/killed.rs"]
mod killed;
mod support;
#[path = "cli/threads.rs"]
mod threads;
#[path = "cli/writing.rs"]
mod writing;

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use coordination::Op;
use lab::line::Line;
use support::{LIMIT, zookeeper};

/// A chroot with processes in it; they are killed when the test ends.
struct Herd {
    zookeeper: String,
    processes: Vec<Child>,
}

impl Herd {
    fn empty() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let zookeeper = format!("{}/cli-{}", zookeeper(), NEXT.fetch_add(1, Ordering::Relaxed));
        Herd { zookeeper, processes: Vec::new() }
    }

    /// One master, one worker that runs programs.
    fn new() -> Self {
        let mut herd = Herd::empty();
        herd.start(env!("CARGO_BIN_EXE_master"), &[]);
        herd.start(env!("CARGO_BIN_EXE_worker"), &["--allow", "exec"]);
        herd.until("leader and worker are there", |status| {
            status.contains("leader   m") && status.contains("worker   w")
        });
        herd
    }

    fn command(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(args).env("HERDSMAN_ZOOKEEPER", &self.zookeeper).env("HERDSMAN_SESSION_TIMEOUT", "2s");
        command.env_remove("HERDSMAN_LOG").stdin(Stdio::null());
        command
    }

    fn start(&mut self, program: &str, args: &[&str]) -> usize {
        let process = self.command(program, args).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
        self.processes.push(process.expect("it was built"));
        self.processes.len() - 1
    }

    /// A session below the herd's chroot.
    async fn session(&self) -> coordination::Session {
        let (server, chroot) = self.zookeeper.split_once('/').expect("it has a chroot");
        support::connect(&support::config_at(server, &format!("/{chroot}"))).await
    }

    fn client(&self, args: &[&str]) -> Output {
        self.command(env!("CARGO_BIN_EXE_client"), args).output().expect("it was built")
    }

    fn until(&self, what: &str, condition: impl Fn(&str) -> bool) {
        let began = Instant::now();
        while !condition(&stdout(&self.client(&["status"]))) {
            assert!(began.elapsed() < LIMIT, "not within {LIMIT:?}: {what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn signal(&self, process: usize, signal: rustix::process::Signal) {
        let pid = self.processes[process].id().cast_signed();
        let pid = rustix::process::Pid::from_raw(pid).expect("it runs");
        rustix::process::kill_process(pid, signal).expect("it runs");
    }
}

impl Drop for Herd {
    fn drop(&mut self) {
        for process in &mut self.processes {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("it was not ended by a signal")
}

#[test]
fn a_program_prints_through_and_its_failure_is_exit_code_1() {
    let herd = Herd::new();
    let ran = herd.client(&["submit", "--wait", "--", "sh", "-c", "echo hi; exit 3"]);
    assert_eq!((code(&ran), stdout(&ran).as_str()), (1, "hi\n"));
    assert!(stderr(&ran).contains("exit code 3"), "{}", stderr(&ran));
    let ran = herd.client(&["submit", "--wait", "--data", "from stdin", "--", "cat"]);
    assert_eq!((code(&ran), stdout(&ran).as_str()), (0, "from stdin"));
    let missing = herd.client(&["submit", "--wait", "--", "/no/such/program"]);
    assert_eq!(code(&missing), 1);
    assert!(stdout(&missing).contains("cannot run '/no/such/program'"), "{}", stdout(&missing));
}

#[test]
fn json_is_one_object_a_task_with_the_documented_fields() {
    let herd = Herd::new();
    let ran = herd.client(&["submit", "--wait", "--count", "3", "--data", "x", "-o", "json", "--job", "nightly"]);
    assert_eq!(code(&ran), 0);
    let mut tasks: Vec<serde_json::Value> =
        stdout(&ran).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    tasks.sort_by_key(|task| task["task"].to_string());
    for (n, task) in tasks.iter().enumerate() {
        let fields: Vec<&str> = task.as_object().expect("an object").keys().map(String::as_str).collect();
        assert_eq!(fields, ["attempts", "result", "status", "task", "worker"]);
        let id = task["task"].as_str().expect("text");
        assert!(id.starts_with("nightly-") && id.ends_with(&format!("/{n:010}")), "{id}");
        assert_eq!((&task["status"], &task["attempts"], &task["result"]), (&"done".into(), &1.into(), &"x".into()));
    }
    assert_eq!(tasks.len(), 3);
}

#[test]
fn a_job_submitted_without_waiting_is_waited_for_and_collected_by_other_processes() {
    let herd = Herd::new();
    let lines = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(lines.path(), "one\ntwo words\n\nfour\n").expect("written");
    let file = lines.path().to_str().expect("UTF-8");
    let submitted = herd.client(&["submit", "--kind", "echo", "--each-line", file]);
    assert_eq!(code(&submitted), 0);
    let job = stdout(&submitted).trim().to_owned();
    assert!(job.starts_with("echo-"), "{job}");
    let waited = herd.client(&["wait", &job]);
    assert_eq!((code(&waited), stdout(&waited)), (0, format!("{job}: 4 done, 0 failed\n")));
    let kept = herd.client(&["results", &job, "--keep", "-o", "json"]);
    let collected = herd.client(&["results", &job, "-o", "json"]);
    assert_eq!(stdout(&kept), stdout(&collected));
    let results: Vec<serde_json::Value> = stdout(&collected)
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON")["result"].clone())
        .collect();
    assert_eq!(results, ["one", "two words", "", "four"]);
    for command in ["wait", "results", "cancel"] {
        let gone = herd.client(&[command, &job]);
        assert_eq!(code(&gone), 3);
        assert!(stderr(&gone).contains(&format!("error: there is no job {job}")), "{}", stderr(&gone));
    }
}

#[test]
fn status_shows_the_leader_the_backups_the_workers_with_their_load_and_the_queue() {
    let mut herd = Herd::new();
    herd.start(env!("CARGO_BIN_EXE_master"), &["--name", "spare"]);
    herd.until("the backup is there", |status| status.contains("backup   spare-"));
    let submitted = herd.client(&["submit", "--kind", "sleep", "--data", "100", "--count", "6"]);
    let job = stdout(&submitted).trim().to_owned();
    let line = format!("job      {job}  sleep: 2 waiting, 4 assigned, 0 to collect");
    herd.until("four are assigned", |status| status.contains(&line));
    let status = stdout(&herd.client(&["status"]));
    assert!(status.contains("leader   master-") && status.contains("4 of 4 slots"), "{status}");
    assert!(status.contains("runs echo, exec, sleep") && status.contains("1 jobs, 2 tasks waiting, 4 assigned"));
    let json: serde_json::Value = serde_json::from_str(&stdout(&herd.client(&["status", "-o", "json"]))).expect("JSON");
    assert_eq!(json["masters"].as_array().map(Vec::len), Some(2));
    assert_eq!(json["jobs"][0]["waiting"], 2);
    let tree = stdout(&herd.client(&["tree"]));
    let roots: Vec<&str> = tree.lines().filter(|line| line.starts_with('/')).collect();
    assert_eq!(roots, ["/master", "/workers", "/tasks", "/data"]);
    assert!(tree.contains(r#"{"kind":"sleep","policy":{"max_attempts":1},"sealed":true,"tasks":6}"#), "{tree}");
    let cancelled = herd.client(&["cancel", &job]);
    assert_eq!((code(&cancelled), stdout(&cancelled)), (0, format!("{job}: 6 tasks cancelled\n")));
    assert_eq!(stdout(&herd.client(&["forget", "last"])), format!("{job}: 6 tasks forgotten\n"));
    herd.until("the slots are free", |status| status.contains("0 of 4 slots") && status.contains("queue    0 jobs"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_somebody_deleted_is_exit_code_1_and_named_by_every_command() {
    let herd = Herd::new();
    let session = herd.session().await;
    let text = |output: &Output| stdout(output) + &stderr(output);
    for waits in [true, false] {
        let submit = ["submit", "--kind", "nobody", if waits { "--wait" } else { "--count=1" }];
        let submitting =
            herd.command(env!("CARGO_BIN_EXE_client"), &submit).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let submitting = submitting.expect("it was built");
        herd.until("it waits", |status| status.contains("nobody: 1 waiting"));
        let job = support::children(&session, "/tasks").await.pop().expect("a job");
        let lost = format!("/tasks/{job}/0000000000");
        session.write(Op::Delete { path: lost.clone(), version: None }).await.expect("deleted");
        let submitted = submitting.wait_with_output().expect("it ends");
        let named = format!("lost by hand: somebody deleted {lost}");
        if waits {
            assert_eq!(code(&submitted), 1);
            assert!(text(&submitted).contains(&named), "{}", text(&submitted));
            continue;
        }
        for (command, exit) in [("explain", 0), ("info", 0), ("wait", 1), ("results", 1)] {
            let told = herd.client(&[command, &job]);
            assert_eq!(code(&told), exit, "{command}");
            assert!(text(&told).contains(&named), "{command}: {}", text(&told));
        }
        assert_eq!(code(&herd.client(&["info", &job])), 3, "results closed it");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_job_hides_no_other_and_is_exit_code_1() {
    let herd = Herd::new();
    let session = herd.session().await;
    let bad = Op::Create { path: "/tasks/bad-1".to_owned(), data: b"no record".to_vec() };
    session.write(bad).await.expect("created");
    let job = stdout(&herd.client(&["submit", "--kind", "nobody"])).trim().to_owned();
    for command in ["info", "explain", "logs", "retry", "cancel"] {
        let told = herd.client(&[command, "all"]);
        assert_eq!(code(&told), 1, "{command}: {}", stderr(&told));
        assert!(stderr(&told).contains("error: /tasks/bad-1 is malformed"), "{command}: {}", stderr(&told));
        assert!(command == "logs" || stdout(&told).contains(&job), "{command}: {}", stdout(&told));
    }
    assert_eq!(code(&herd.client(&["logs", &job])), 0);
    for n in 2..=15 {
        let bad = Op::Create { path: format!("/tasks/bad-{n:02}"), data: b"no record".to_vec() };
        session.write(bad).await.expect("created");
    }
    let status = stdout(&herd.client(&["status"]));
    assert_eq!(status.matches("malformed  /tasks/bad-").count(), 10, "{status}");
    assert!(status.contains("malformed  and 5 more"), "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_says_what_a_herd_lacks_and_counts_nobody_who_is_not_there() {
    let mut herd = Herd::empty();
    herd.start(env!("CARGO_BIN_EXE_worker"), &[]);
    herd.until("the worker is there", |status| status.contains("worker   w"));
    let session = herd.session().await;
    // It will never lead: whoever left it there owns no session.
    let path = "/master/old-0badcafe-0000000000".to_owned();
    let left = Op::Create { path, data: br#"{"name":"old","host":"vm","pid":1}"#.to_vec() };
    session.write(left).await.expect("created");
    let check = || herd.client(&["status", "--check"]);
    assert_eq!((code(&check()), stdout(&check()).as_str()), (1, "nobody leads: start one with `master`\n"));
    herd.client(&["submit", "--data", "x"]);
    let why = stdout(&herd.client(&["explain", "last"]));
    assert!(why.contains("nobody leads: start one with `master`"), "{why}");
    let status = stdout(&herd.client(&["status"]));
    assert!(
        status.contains("leader   none") && status.contains("malformed  /master/old-0badcafe-0000000000"),
        "{status}"
    );
    session
        .write(Op::Delete { path: "/master/old-0badcafe-0000000000".to_owned(), version: None })
        .await
        .expect("deleted");
    herd.start(env!("CARGO_BIN_EXE_master"), &[]);
    herd.until("the leader is there", |status| status.contains("leader   m"));
    let check = || herd.client(&["status", "--check"]);
    assert_eq!((code(&check()), stdout(&check()).as_str()), (0, ""));
    herd.signal(0, rustix::process::Signal::TERM);
    herd.until("the worker is gone", |status| status.contains("workers  none"));
    let check = herd.client(&["status", "--check"]);
    assert_eq!((code(&check), stdout(&check).as_str()), (1, "no worker is registered: start one with `worker`\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_line_is_the_task_with_its_number() {
    let herd = Herd::new();
    let lines = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(lines.path(), (0..3000).map(|n| format!("line {n}\n")).collect::<String>()).expect("written");
    let file = lines.path().to_str().expect("UTF-8");
    let session = herd.session().await;
    for rate in [None, Some("100000")] {
        let submit = ["submit", "--kind", "nobody", "--each-line", file];
        let paced = rate.map(|rate| ["--rate", rate]);
        let submitted = herd.client(&[&submit[..], paced.as_ref().map_or(&[], |paced| &paced[..])].concat());
        let job = stdout(&submitted).trim().to_owned();
        for n in 0..3000 {
            let payload = support::node(&session, &format!("/data/{job}/{n:010}")).await.data;
            assert_eq!(String::from_utf8_lossy(&payload), format!("line {n}"), "task {n}");
        }
    }
}

#[test]
fn a_task_out_of_attempts_is_listed_explained_retried_cancelled_and_forgotten() {
    let herd = Herd::new();
    let failing = ["submit", "--job", "bad", "--max-attempts", "2", "--backoff", "10ms", "--count", "3"];
    let submitted = herd.client(&[&failing[..], &["--", "sh", "-c", "exit 7"]].concat());
    let job = stdout(&submitted).trim().to_owned();
    let text = |args: &[&str]| stdout(&herd.client(args));
    assert_eq!(code(&herd.client(&["wait", "-o", "quiet", &job])), 1);
    let dead = text(&["list", "--dead", &format!("{job}/1-2")]);
    assert_eq!(dead.matches("exit code 7").count(), 4, "two tasks, two attempts each: {dead}");
    assert!(dead.contains("2 attempts, 2 failed, 0 crashed"), "{dead}");
    let why = text(&["explain", "last"]);
    assert!(why.contains(&format!("{job}: task 2 is dead after 2 attempts: exit code 7 (on worker-")), "{why}");
    let info: serde_json::Value = serde_json::from_str(&text(&["info", &job, "-o", "json"])).expect("JSON");
    assert_eq!((&info["tasks"][0]["state"], &info["record"]["policy"]["backoff_ms"]), (&"dead".into(), &10.into()));
    assert_eq!(text(&["retry", &format!("{job}/0")]), format!("{job}/0: 1 dead tasks are attempted again\n"));
    assert_eq!(code(&herd.client(&["wait", "-o", "quiet", &job])), 1);
    assert_eq!(text(&["list", "--dead", "-o", "json"]).lines().count(), 3, "it failed again");
    assert_eq!(text(&["cancel", &format!("{job}/2"), "--reason", "enough"]), format!("{job}/2: 1 tasks cancelled\n"));
    assert!(text(&["info", &format!("{job}/2")]).contains("cancelled    0 attempts  -                         enough"));
    assert_eq!(text(&["forget", "all"]), format!("{job}: 3 tasks forgotten\n"));
    assert_eq!(code(&herd.client(&["info", &job])), 3);
    assert_eq!(code(&herd.client(&["info", "last"])), 3);
}

#[test]
fn a_key_that_is_taken_prints_the_job_that_has_it_and_submits_nothing() {
    let herd = Herd::new();
    let submit = || herd.client(&["submit", "--key", "nightly", "--kind", "exotic"]);
    let (first, second) = (submit(), submit());
    assert_eq!((code(&second), stdout(&second)), (0, stdout(&first)));
    assert!(stderr(&second).contains("has the key 'nightly' and has not ended: nothing was submitted"));
    assert_eq!(stdout(&herd.client(&["list"])).lines().count(), 1);
}

#[test]
fn what_cannot_be_done_says_what_to_do_instead() {
    let herd = Herd::new();
    let usage = [
        (vec!["submit", "--count", "many"], "--count"),
        (vec!["submit", "--count", "2", "--each-line", "x"], "cannot be used with"),
        (vec!["submit", "--kind", "exec"], "hint: client submit --kind exec -- "),
        (vec!["submit", "--kind", "sleep", "--", "ls"], "hint: leave out --kind"),
        (vec!["submit", "--data", "@/no/such/file"], "cannot read /no/such/file"),
        (vec!["submit", "--job", "no spaces"], "A-Z a-z 0-9"),
        (vec!["submit", "--rate", "0"], "--rate"),
        (vec!["submit", "--backoff", "5m..1s"], "the first must not be longer than the most"),
        (vec!["submit", "--at", "tomorrow"], "write 2027-01-31T18:00:00Z"),
        (vec!["submit", "--delay", "1s", "--at", "2027-01-31T18:00:00Z"], "cannot be used with"),
        (vec!["submit", "--max-attempts", "0"], "--max-attempts"),
        (vec!["submit", "--spill", "/no/such/folder"], "No such file"),
        (vec!["cancel", "job/5-1"], "there is no task from 5 to 1"),
        (vec!["wait", "a/b"], "is no job"),
        (vec!["--zookeeper", "localhost", "status"], "lacks a port"),
        (vec!["--session-timeout", "soon", "status"], "write 10s"),
        (vec!["frobnicate"], "frobnicate"),
    ];
    for (args, text) in usage {
        let refused = herd.client(&args);
        assert_eq!(code(&refused), 2, "{args:?}");
        assert!(stderr(&refused).contains(text), "{args:?}: {}", stderr(&refused));
        assert!(stdout(&refused).is_empty());
    }
    let large = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(large.path(), vec![b'x'; 600_000]).expect("written");
    let refused = herd.client(&["submit", "--data", &format!("@{}", large.path().display()), "--wait"]);
    assert_eq!(code(&refused), 2);
    assert!(stderr(&refused).contains("600000 bytes, more than the 524288"), "{}", stderr(&refused));
    let other = herd.client(&["submit", "--data", "x", "--wait"]);
    assert_eq!(code(&other), 0, "and nobody else suffers");
}

#[test]
fn a_kind_that_nobody_runs_is_explained_while_it_waits() {
    let herd = Herd::new();
    let mut client = herd.command(env!("CARGO_BIN_EXE_client"), &["submit", "--kind", "slep", "--wait"]);
    let mut client = client.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().expect("it was built");
    let lines = std::io::BufRead::lines(std::io::BufReader::new(client.stderr.take().expect("piped")));
    let line = lines.map_while(Result::ok).find(|line| line.contains("no worker runs")).expect("it says why");
    assert!(line.contains("kind 'slep'") && line.contains("echo, exec, sleep"), "{line}");
    client.kill().expect("it runs");
    client.wait().expect("killed");
}

#[test]
fn an_unreachable_server_is_exit_code_4_for_each_program() {
    let programs = [env!("CARGO_BIN_EXE_master"), env!("CARGO_BIN_EXE_worker"), env!("CARGO_BIN_EXE_client")];
    let begun = programs.map(|program| {
        let mut command = Command::new(program);
        command.args(["--zookeeper", "127.0.0.1:1"]).stdin(Stdio::null()).stderr(Stdio::piped());
        if program.ends_with("client") {
            command.arg("status");
        }
        command.spawn().expect("it was built")
    });
    for process in begun {
        let failed = process.wait_with_output().expect("it ends");
        let text = stderr(&failed);
        assert_eq!(code(&failed), 4, "{text}");
        assert!(text.contains("error: cannot reach ZooKeeper at 127.0.0.1:1 within 10s"), "{text}");
        assert!(text.contains("hint: start a local one with `scenarios/zookeeper start`"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_without_zookeeper_says_so_every_few_seconds_and_is_back_soon() {
    let mut herd = Herd::new();
    let line = Line::to(zookeeper()).await.expect("a port");
    let (_, chroot) = herd.zookeeper.split_once('/').expect("it has a chroot");
    let through = format!("{}/{chroot}", line.address());
    let far = herd.start(env!("CARGO_BIN_EXE_worker"), &["--zookeeper", &through]);
    let stderr = herd.processes[far].stderr.take().expect("piped");
    let (sender, said) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let lines = std::io::BufRead::lines(std::io::BufReader::new(stderr));
        lines.map_while(Result::ok).for_each(|line| drop(sender.send(line)));
    });
    let says = |what: &str| {
        let began = Instant::now();
        while !said.recv_timeout(LIMIT).unwrap_or_else(|_| panic!("it never says: {what}")).contains(what) {
            assert!(began.elapsed() < LIMIT, "not within {LIMIT:?}: {what}");
        }
        began.elapsed()
    };
    says("registered");
    line.cut();
    says("cannot reach ZooKeeper: still trying");
    line.mend();
    let back = says("registered");
    assert!(back < Duration::from_secs(5), "{back:?}");
}

#[test]
fn a_client_of_a_herd_that_was_never_there_is_told_so() {
    let herd = Herd::empty();
    let failed = herd.client(&["status"]);
    assert_eq!(code(&failed), 4);
    assert!(stderr(&failed).contains("does not exist"), "{}", stderr(&failed));
    let (server, _) = herd.zookeeper.split_once('/').expect("a chroot");
    let failed = herd.client(&["--zookeeper", server, "submit"]);
    assert_eq!(code(&failed), 3);
    assert!(stderr(&failed).contains("hint: start a master"), "{}", stderr(&failed));
}

#[test]
fn the_first_signal_drains_and_the_second_ends_at_once() {
    let mut herd = Herd::new();
    let submitted = herd.client(&["submit", "--kind", "sleep", "--data", "100"]);
    assert_eq!(code(&submitted), 0);
    herd.until("it runs", |status| status.contains("1 of 4 slots"));
    let (master, worker) = (0, 1);
    herd.signal(worker, rustix::process::Signal::TERM);
    // It says so once the first signal was taken.
    let stderr = herd.processes[worker].stderr.take().expect("piped");
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(stderr)).map_while(Result::ok);
    assert!(lines.any(|line| line.contains("finishing what runs")));
    herd.signal(worker, rustix::process::Signal::TERM);
    assert_eq!(herd.processes[worker].wait().expect("it ends").code(), Some(130));
    herd.signal(master, rustix::process::Signal::INT);
    assert_eq!(herd.processes[master].wait().expect("it ends").code(), Some(0));
}

#[test]
fn help_shows_defaults_variables_and_exit_codes() {
    for program in [env!("CARGO_BIN_EXE_master"), env!("CARGO_BIN_EXE_worker"), env!("CARGO_BIN_EXE_client")] {
        let help = stdout(&Command::new(program).arg("--help").output().expect("it was built"));
        for text in ["HERDSMAN_ZOOKEEPER", "127.0.0.1:2181", "HERDSMAN_SESSION_TIMEOUT", "10s", "ZooKeeper lost"] {
            assert!(help.contains(text), "{}: {help}", Path::new(program).display());
        }
    }
}

#[test]
fn a_client_that_still_submits_to_a_job_that_is_cancelled_receives_what_it_had_submitted() {
    let herd = Herd::new();
    let submit = ["submit", "--wait", "--kind", "sleep", "--data", "100", "--count", "1000", "--rate", "50"];
    let args = [&submit[..], &["--job", "long", "-o", "json"]].concat();
    let mut submitting = herd.command(env!("CARGO_BIN_EXE_client"), &args);
    let submitting = submitting.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it was built");
    herd.until("some are assigned", |status| status.contains("sleep: ") && status.contains("4 assigned"));
    assert_eq!(code(&herd.client(&["cancel", "last", "--reason", "no more"])), 0);
    let ended = submitting.wait_with_output().expect("it ends");
    assert_eq!(code(&ended), 1);
    assert!(stderr(&ended).contains("was withdrawn: no more"), "{}", stderr(&ended));
    let outcomes = stdout(&ended);
    assert!(outcomes.lines().count() >= 4 && outcomes.lines().all(|line| line.contains(r#""status":"cancelled""#)));
    herd.until("nothing is left", |status| status.contains("queue    0 jobs"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_audit_tells_each_broken_rule_once_and_nothing_about_no_herd() {
    let herd = Herd::new();
    assert_eq!(code(&herd.client(&["submit", "--wait", "--kind", "echo", "--count", "5", "-o", "quiet"])), 0);
    let (_, chroot) = herd.zookeeper.split_once('/').expect("it has a chroot");
    let (data, chroot) = (support::server_folder().join("1/data"), format!("/{chroot}"));
    let audit = |more: &[&str]| {
        let args = [&["audit", "--log", data.to_str().expect("UTF-8")], more].concat();
        herd.client(&args)
    };
    let nothing = audit(&["--chroot", "/nowhere"]);
    assert_eq!(code(&nothing), 2);
    let text = stdout(&nothing);
    assert!(text.starts_with("unknown\n  doubt: the log holds no herd at /nowhere; there are herds at"), "{text}");
    assert!(text.contains(&chroot), "{text}");
    let valid = audit(&["--chroot", &chroot]);
    assert_eq!((code(&valid), stdout(&valid).lines().next()), (0, Some("valid")), "{}", stdout(&valid));

    let session = support::connect(&support::config_at(zookeeper(), &chroot)).await;
    for n in 0..5 {
        let (path, data) = (format!("/workers/w-{n}"), br#"{"slots":1,"kinds":[]}"#.to_vec());
        session.write(Op::Create { path, data }).await.expect("created");
    }
    let (page, full) = (audit(&["--chroot", &chroot]), audit(&["--chroot", &chroot, "--all"]));
    assert_eq!((code(&page), code(&full)), (1, 1));
    let cases = |output: &Output| stdout(output).matches("would outlive its session").count();
    assert_eq!((cases(&page), cases(&full)), (3, 5), "{}", stdout(&page));
    assert!(stdout(&page).contains("  ephemeral: 5 times\n"), "{}", stdout(&page));
}
