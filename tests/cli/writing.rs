//! What becomes of outcomes when nobody takes what is printed: a full device, a reader that has gone, or both.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::{BufRead, BufReader};
use std::process::{Output, Stdio};

use super::{Herd, code, stderr, stdout};

/// More than are read, printed and removed at a time.
const TASKS: usize = 600;

/// Where the streams of a client go.
#[derive(Debug, Clone, Copy)]
enum To {
    /// A device without room.
    Full,
    /// A pipe whose reader has gone.
    Nobody,
    /// Each to a pipe, and read.
    Reader,
}

impl To {
    fn stdio(self) -> Stdio {
        match self {
            To::Full => OpenOptions::new().write(true).open("/dev/full").expect("a device").into(),
            To::Nobody => std::io::pipe().expect("a pipe").1.into(),
            To::Reader => Stdio::piped(),
        }
    }
}

const UNREADABLE: [(To, To); 4] =
    [(To::Full, To::Reader), (To::Nobody, To::Reader), (To::Full, To::Full), (To::Nobody, To::Nobody)];

impl Herd {
    fn client_to(&self, args: &[&str], (out, err): (To, To)) -> Output {
        let mut command = self.command(env!("CARGO_BIN_EXE_client"), args);
        let process = command.stdout(out.stdio()).stderr(err.stdio()).spawn().expect("it was built");
        process.wait_with_output().expect("it ends")
    }

    /// A job of so many tasks with so many bytes each, all of which have ended.
    fn ended_job(&self, tasks: usize, bytes: usize) -> String {
        let args = ["submit", "--kind", "echo", "--count", &tasks.to_string(), "--data", &"x".repeat(bytes)];
        let job = stdout(&self.client(&args)).trim().to_owned();
        assert_eq!(code(&self.client(&["wait", "-o", "quiet", &job])), 0);
        job
    }

    /// The tasks whose outcomes are there; they are removed.
    fn collected(&self, job: &str) -> BTreeSet<String> {
        let collected = self.client(&["results", "-o", "json", job]);
        assert_eq!(code(&collected), 0, "{}", stderr(&collected));
        stdout(&collected).lines().map(task).collect()
    }
}

fn task(line: &str) -> String {
    let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
    line["task"].as_str().expect("text").to_owned()
}

/// Exit code 1, and a message where it can be read: what failed, how many are gone, and how to get the rest.
fn says_so(failed: &Output, to: (To, To), job: &str, removed: usize) {
    assert_eq!(code(failed), 1, "{to:?}: {}", stderr(failed));
    if let To::Reader = to.1 {
        let text = stderr(failed);
        let cause = if let To::Full = to.0 { "No space left on device" } else { "Broken pipe" };
        assert!(text.contains("error: ") && text.contains(cause), "{to:?}: {text}");
        assert!(text.contains(&format!("{removed} were written and removed")), "{to:?}: {text}");
        assert!(text.contains(&format!("`client results {job}`")), "{to:?}: {text}");
    }
}

#[test]
fn results_that_cannot_be_written_stay() {
    let herd = Herd::new();
    let job = herd.ended_job(TASKS, 1);
    for to in UNREADABLE {
        for output in ["json", "table"] {
            says_so(&herd.client_to(&["results", "-o", output, &job], to), to, &job, 0);
        }
    }
    assert_eq!(herd.collected(&job).len(), TASKS);
}

#[test]
fn what_a_program_printed_stays_when_it_cannot_be_printed_again() {
    let herd = Herd::new();
    let submitted = herd.client(&["submit", "--", "sh", "-c", "printf out; printf err >&2"]);
    let job = stdout(&submitted).trim().to_owned();
    assert_eq!(code(&herd.client(&["wait", "-o", "quiet", &job])), 0);
    for to in [(To::Full, To::Reader), (To::Reader, To::Full), (To::Reader, To::Nobody)] {
        assert_eq!(code(&herd.client_to(&["results", &job], to)), 1, "{to:?}");
    }
    let collected = herd.client(&["results", &job]);
    assert_eq!((code(&collected), stdout(&collected), stderr(&collected)), (0, "out".into(), "err".into()));
}

#[test]
fn results_of_which_a_part_was_read_are_removed_up_to_where_all_was_taken() {
    let herd = Herd::new();
    // So large that a pipe holds a fraction of what is printed at a time.
    for (lines, removed) in [(2, 0), (300, 250)] {
        let job = herd.ended_job(TASKS, 4_000);
        let mut client = herd.command(env!("CARGO_BIN_EXE_client"), &["results", "-o", "json", &job]);
        let mut client = client.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it was built");
        let mut reader = BufReader::new(client.stdout.take().expect("piped")).lines();
        let read: BTreeSet<String> = reader.by_ref().take(lines).map(|line| task(&line.expect("UTF-8"))).collect();
        drop(reader);
        assert_eq!(read.len(), lines);
        says_so(&client.wait_with_output().expect("it ends"), (To::Nobody, To::Reader), &job, removed);
        let collected = herd.collected(&job);
        assert_eq!(collected.len(), TASKS - removed);
        assert_eq!(read.union(&collected).count(), TASKS, "each came at least once");
    }
}

#[test]
fn outcomes_that_a_waiting_submitter_cannot_write_stay() {
    let herd = Herd::new();
    for to in UNREADABLE {
        for output in ["json", "table"] {
            let submit = ["submit", "--wait", "--kind", "echo", "--data", "x", "--count", "600", "-o", output];
            let failed = herd.client_to(&submit, to);
            let info = stdout(&herd.client(&["info", "last", "-o", "json"]));
            let info: serde_json::Value = serde_json::from_str(&info).expect("one job");
            let job = info["id"].as_str().expect("text");
            says_so(&failed, to, job, 0);
            assert_eq!(info["record"]["sealed"], true, "what was submitted can be collected");
            assert_eq!(code(&herd.client(&["wait", "-o", "quiet", job])), 0);
            let collected = herd.collected(job).len();
            assert!(collected > 0, "{to:?} {output}");
            assert_eq!(Some(collected as u64), info["record"]["tasks"].as_u64(), "{to:?} {output}");
        }
    }
}

#[test]
fn a_waiting_submitter_whose_reader_leaves_keeps_what_was_not_read() {
    let herd = Herd::new();
    let submit = ["submit", "--wait", "--kind", "echo", "--count", "600", "-o", "json", "--data", &"x".repeat(4_000)];
    let mut client = herd.command(env!("CARGO_BIN_EXE_client"), &submit);
    let mut client = client.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it was built");
    let mut reader = BufReader::new(client.stdout.take().expect("piped")).lines();
    let first = task(&reader.next().expect("a line").expect("UTF-8"));
    let job = first.split_once('/').expect("a task").0.to_owned();
    drop(reader);
    let failed = client.wait_with_output().expect("it ends");
    assert_eq!(code(&failed), 1);
    let text = stderr(&failed);
    let removed =
        text.split(" were written and removed").next().and_then(|text| text.rsplit(' ').next()).expect("a number");
    let removed: usize = removed.parse().unwrap_or_else(|_| panic!("{text}"));
    assert!(text.contains("Broken pipe") && text.contains(&format!("`client results {job}`")), "{text}");
    assert!((1..60).contains(&removed), "a pipe holds 64 KiB: {text}");
    let info: serde_json::Value =
        serde_json::from_str(&stdout(&herd.client(&["info", &job, "-o", "json"]))).expect("JSON");
    let submitted = info["record"]["tasks"].as_u64().expect("sealed") as usize;
    assert_eq!(code(&herd.client(&["wait", "-o", "quiet", &job])), 0);
    let collected = herd.collected(&job).len();
    assert!(collected + removed >= submitted, "{collected} are left of {submitted}, and {removed} were written");
}

#[test]
fn commands_that_only_look_mind_a_full_device_and_no_reader_that_left() {
    let herd = Herd::new();
    let failing = ["submit", "--max-attempts", "2", "--backoff", "10ms", "--", "sh", "-c", "exit 7"];
    let job = stdout(&herd.client(&failing)).trim().to_owned();
    assert_eq!(code(&herd.client(&["wait", "-o", "quiet", &job])), 1);
    let looks: [&[&str]; 8] = [
        &["status"],
        &["status", "-o", "json"],
        &["tree"],
        &["list"],
        &["list", "--dead"],
        &["info", "last"],
        &["explain", "last"],
        &["cancel", "last"],
    ];
    for args in looks {
        let full = herd.client_to(args, (To::Full, To::Reader));
        assert_eq!(code(&full), 1, "{args:?}");
        let text = stderr(&full);
        assert!(text.contains("error: cannot write to stdout: No space left on device"), "{args:?}: {text}");
        assert_eq!(code(&herd.client_to(args, (To::Full, To::Full))), 1, "{args:?}");
        let left = herd.client_to(args, (To::Nobody, To::Reader));
        assert_eq!((code(&left), stderr(&left).as_str()), (0, ""), "{args:?}");
    }
    let refused = herd.client_to(&["info", "nothing-0badcafe"], (To::Nobody, To::Nobody));
    assert_eq!(code(&refused), 3);
}

#[test]
fn a_job_whose_name_could_not_be_printed_is_named_on_stderr() {
    let herd = Herd::new();
    for (to, exit) in [(To::Full, 1), (To::Nobody, 0)] {
        let submitted = herd.client_to(&["submit", "--data", "x"], (to, To::Reader));
        let listed = stdout(&herd.client(&["list", "last", "-o", "json"]));
        let listed: serde_json::Value = serde_json::from_str(&listed).expect("one job");
        assert_eq!(code(&submitted), exit, "{to:?}");
        assert!(stderr(&submitted).contains(listed["id"].as_str().expect("text")), "{}", stderr(&submitted));
        herd.client(&["forget", "last"]);
    }
}

#[test]
fn master_and_worker_go_on_when_nobody_takes_their_logs() {
    for to in [To::Full, To::Nobody] {
        let mut herd = Herd::empty();
        for program in [env!("CARGO_BIN_EXE_master"), env!("CARGO_BIN_EXE_worker")] {
            let process = herd.command(program, &[]).env("HERDSMAN_LOG", "debug").stderr(to.stdio()).spawn();
            herd.processes.push(process.expect("it was built"));
        }
        herd.until("leader and worker are there", |status| {
            status.contains("leader   m") && status.contains("worker   w")
        });
        assert_eq!(code(&herd.client(&["submit", "--wait", "--data", "x"])), 0);
    }
}
