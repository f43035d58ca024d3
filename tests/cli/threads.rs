//! Programs to which the machine gives no thread.

use std::process::Child;

use rustix::process::{Pid, Resource, Rlimit, prlimit};

use super::{Herd, code, stderr, stdout};

/// From now on this process gets less memory than the stack of one thread.
fn no_more_threads(process: &Child) {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.id())).expect("it runs");
    let size = status.lines().find_map(|line| line.strip_prefix("VmSize:")).expect("a size");
    let kilobytes: u64 = size.trim().trim_end_matches(" kB").parse().expect("a number");
    let most = Some((kilobytes + 1536) * 1024);
    let pid = Pid::from_raw(process.id().cast_signed());
    prlimit(pid, Resource::As, Rlimit { current: most, maximum: most }).expect("allowed");
}

#[test]
fn what_is_kept_in_a_spill_directory_costs_no_program_its_life_where_no_thread_is_to_be_had() {
    let mut herd = Herd::empty();
    let folder = tempfile::tempdir().expect("a folder");
    let spill = folder.path().to_str().expect("UTF-8");
    herd.start(env!("CARGO_BIN_EXE_master"), &[]);
    herd.start(env!("CARGO_BIN_EXE_worker"), &["--name", "poor"]);
    herd.until("leader and worker are there", |status| status.contains("leader   m") && status.contains("poor"));
    herd.processes.iter().for_each(no_more_threads);
    // More than goes into the tree; beside the one that can begin nothing, there is soon one that can.
    let data = format!("@{}", folder.path().join("data").display());
    std::fs::write(&data[1..], vec![b'x'; 400_000]).expect("writable");
    let args = ["submit", "--kind", "echo", "--count", "3", "--spill", spill, "--data", &data];
    let submitted = herd.client(&args);
    assert_eq!(code(&submitted), 0, "{}", stderr(&submitted));
    herd.start(env!("CARGO_BIN_EXE_worker"), &["--name", "rich"]);
    let job = stdout(&submitted).trim().to_owned();
    assert_eq!(code(&herd.client(&["wait", &job])), 0);
    let args = ["results", &job, "-o", "json"];
    let ended = herd.client(&args);
    assert_eq!(code(&ended), 0, "{}", stderr(&ended));
    assert_eq!(stdout(&ended).lines().count(), 3);
    for process in &mut herd.processes {
        assert_eq!(process.try_wait().expect("ours"), None, "all of them live");
    }
    herd.signal(1, rustix::process::Signal::TERM);
    assert!(herd.processes[1].wait().expect("ours").success());
}
