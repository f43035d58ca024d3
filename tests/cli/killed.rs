//! What becomes of programs when their worker is killed, or lacks what it takes to run them.

use std::path::Path;
use std::time::{Duration, Instant};

use super::support::is_gone;
use super::{Herd, LIMIT, code, stderr, stdout};

fn until(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < limit, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn the_programs_of_a_killed_worker_are_gone_within_a_second() {
    let mut herd = Herd::new();
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("pids");
    let script = format!(
        "sleep 1000 & A=$!; setsid sh -c 'setsid sleep 1000 & wait' & \
         echo $HERDSMAN_PROGRESS $$ $A $! > {0}.new; mv {0}.new {0}; wait",
        file.display()
    );
    assert_eq!(code(&herd.client(&["submit", "--", "sh", "-c", &script])), 0);
    until("the program runs", LIMIT, || file.exists());
    let noted = std::fs::read_to_string(&file).expect("readable");
    let (progress, pids) = noted.split_once(' ').expect("a path and pids");
    herd.processes[1].kill().expect("it runs");
    herd.processes[1].wait().expect("it ends");
    for pid in pids.split_whitespace() {
        until("it is gone", Duration::from_secs(1), || is_gone(pid));
    }
    until("nothing is left of it in the temporary directory", LIMIT, || !Path::new(progress).exists());
}

#[test]
fn a_worker_without_a_temporary_directory_fails_no_program() {
    let mut herd = Herd::empty();
    herd.start(env!("CARGO_BIN_EXE_master"), &[]);
    let mut bad = herd.command(env!("CARGO_BIN_EXE_worker"), &["--allow", "exec", "--name", "bad"]);
    let bad = bad.env("TMPDIR", "/no/such/directory").stdout(std::process::Stdio::null()).spawn();
    herd.processes.push(bad.expect("it was built"));
    herd.until("the bad worker is there", |status| status.contains("worker   bad"));
    let submitted =
        herd.client(&["submit", "--count", "20", "--job", "good", "--", "sh", "-c", "echo 0.5 > $HERDSMAN_PROGRESS"]);
    assert_eq!(code(&submitted), 0);
    herd.start(env!("CARGO_BIN_EXE_worker"), &["--allow", "exec", "--name", "good"]);
    let job = stdout(&submitted);
    let ran = herd.client(&["wait", job.trim()]);
    assert_eq!(code(&ran), 0, "{} {}", stdout(&ran), stderr(&ran));
}
