//! How many files a worker may have open.

use std::process::{Command, Stdio};

use rustix::process::{Pid, Resource, Rlimit, prlimit};

use super::{Herd, code, stderr, stdout};

/// A worker that starts with these limits of open files.
fn worker(herd: &Herd, soft: u32, hard: u32, args: &[&str]) -> Command {
    let limited = format!("ulimit -Sn {soft} && ulimit -Hn {hard} && exec \"$0\" \"$@\"");
    herd.command("sh", &[&["-c", &limited, env!("CARGO_BIN_EXE_worker"), "--allow", "exec"], args].concat())
}

#[test]
fn more_slots_for_programs_than_fit_are_refused_with_what_to_do() {
    let herd = Herd::empty();
    let refused = worker(&herd, 100, 100, &["--slots", "50"]).output().expect("there is a shell");
    let text = stderr(&refused);
    assert_eq!(code(&refused), 2, "{text}");
    assert!(text.contains("50 slots for programs need 364 open files, and this process may have 100"), "{text}");
    assert!(text.contains("hint: raise the limit (ulimit -Hn 364;") && text.contains("--slots 6"), "{text}");
}

#[test]
fn a_worker_raises_its_soft_limit_as_far_as_its_slots_need() {
    let mut herd = Herd::new();
    let worker = worker(&herd, 64, 512, &["--slots", "50", "--name", "raised"]).stderr(Stdio::null()).spawn();
    let worker = worker.expect("there is a shell");
    let limits = format!("/proc/{}/limits", worker.id());
    herd.processes.push(worker);
    herd.until("the worker is there", |status| status.contains("raised"));
    let limits = std::fs::read_to_string(limits).expect("it runs");
    let open_files = limits.lines().find(|line| line.starts_with("Max open files")).expect("a limit");
    assert_eq!(open_files.split_whitespace().skip(3).take(2).collect::<Vec<_>>(), ["364", "512"]);
}

#[test]
fn a_worker_short_of_descriptors_fails_no_program_and_leaves_nearly_all_to_the_others() {
    let mut herd = Herd::new();
    let poor = herd.start(env!("CARGO_BIN_EXE_worker"), &["--allow", "exec", "--name", "poor"]);
    herd.until("both workers are there", |status| status.contains("poor"));
    let pid = herd.processes[poor].id();
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs").count() as u64;
    let few = Rlimit { current: Some(open + 8), maximum: Some(open + 8) };
    prlimit(Pid::from_raw(pid.cast_signed()), Resource::Nofile, few).expect("allowed");
    let args = ["submit", "--kind", "exec", "--count", "100", "--wait", "-o", "json", "--", "sleep", "0.2"];
    let ended = herd.client(&args);
    assert_eq!(code(&ended), 0, "{}", stderr(&ended));
    let outcomes: Vec<serde_json::Value> =
        stdout(&ended).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert!(outcomes.iter().all(|outcome| outcome["attempts"] == 1), "{outcomes:?}");
    let by_poor = outcomes.iter().filter(|outcome| outcome["worker"].as_str().is_some_and(|w| w.starts_with("poor")));
    let by_poor = by_poor.count();
    assert!(outcomes.len() == 100 && by_poor <= 15, "{by_poor} of {}", outcomes.len());
    // It says so once, however often it tried.
    herd.processes[poor].kill().expect("it runs");
    let said = std::io::read_to_string(herd.processes[poor].stderr.take().expect("piped")).expect("UTF-8");
    assert_eq!(said.matches("cannot begin tasks").count(), 1, "{said}");
}
