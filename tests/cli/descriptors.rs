//! How many files a worker may have open.

use std::process::{Command, Stdio};

use super::{Herd, code, stderr};

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
