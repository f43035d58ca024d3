//! Another language joins the herd: `interop/herd.py`, written from docs/protocol.md alone, with kazoo.

mod support;

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use audit::{Ending, audit};
use coordination::SessionConfig;
use herdsman::client::{JobSpec, open};
use serde_json::{Value, json};
use support::herd::{master, worker};
use support::{all, connect, eventually, fresh_config, until};

/// Where kazoo is: installed, or put into the build folder with pip. A machine that has neither fails these tests.
fn python() -> Command {
    static KAZOO: OnceLock<PathBuf> = OnceLock::new();
    let folder = KAZOO.get_or_init(|| {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("kazoo");
        let finds_it = || {
            let found = Command::new("python3").args(["-c", "import kazoo"]).env("PYTHONPATH", &folder).output();
            found.expect("python3 is needed to test that other languages can join").status.success()
        };
        if !finds_it() {
            let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target"];
            let status = Command::new("python3").args(pip).arg(&folder).arg("kazoo>=2.8,<3").status();
            let installed = status.is_ok_and(|status| status.success()) && finds_it();
            assert!(installed, "kazoo is needed: python3 -m pip install kazoo, or apt-get install python3-kazoo");
        }
        folder
    });
    let mut command = Command::new("python3");
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/interop/herd.py")).env("PYTHONPATH", folder);
    command
}

/// Whoever wrote it: the auditor finds every rule kept.
fn keeps_every_rule(config: &SessionConfig) {
    let address = config.zookeeper.to_string();
    let chroot = &address[address.find('/').expect("tests have a chroot")..];
    let verdict = audit(&[&support::server_folder().join("1/data")], chroot, Ending::Open).expect("readable");
    assert_eq!(verdict.verdict, "valid", "{}", verdict.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_python_client_submits_waits_collects_and_leaves_nothing() {
    let config = fresh_config();
    let (_m, _w) = (master(&config, "m"), worker(&config, "w"));
    let session = connect(&config).await;
    until("the worker is there", async || {
        session.children("/workers").await.is_ok_and(|w| w.is_some_and(|w| w.len() == 1))
    })
    .await;
    let address = config.zookeeper.to_string();
    let run = tokio::task::spawn_blocking(move || {
        python().args(["client", &address, "echo", "one", "two", "three"]).output().expect("python3 runs")
    });
    let run = run.await.expect("no panic");
    let (out, err) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success(), "{out}{err}");
    let results: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    for (outcome, want) in results.iter().zip(["one", "two", "three"]) {
        assert_eq!((&outcome["status"], &outcome["result"]), (&json!("done"), &json!(want)));
    }
    assert_eq!(results.len(), 3);
    for root in ["/tasks", "/data"] {
        assert_eq!(session.children(root).await, Ok(Some(Vec::new())));
    }
    keeps_every_rule(&config);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_python_worker_runs_a_kind_of_its_own_beside_ours() {
    let config = fresh_config();
    let (_m, _w) = (master(&config, "m"), worker(&config, "w"));
    let session = connect(&config).await;
    let address = config.zookeeper.to_string();
    let mut process = python()
        .args(["worker", &address, "2"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 runs");
    let stdout = process.stdout.take().expect("piped");
    let name = tokio::task::spawn_blocking(move || {
        let mut name = String::new();
        BufReader::new(stdout).read_line(&mut name).expect("it speaks UTF-8");
        name.trim().to_owned()
    });
    let name = name.await.expect("no panic");
    assert!(name.starts_with("python-"), "it did not register: {name:?}");
    let (job, results) = open(&config, JobSpec::new("upper"), &mut rand::rng()).await.expect("opened");
    for n in 0..50 {
        job.submit(format!("task {n}").into_bytes()).await.expect("submitted");
    }
    job.seal().await.expect("sealed");
    let mut seen = Vec::new();
    for finished in all(results).await {
        assert!(finished.is_done(), "{finished:?}");
        assert_eq!(finished.worker.as_deref(), Some(name.as_str()));
        seen.push(finished.result.as_str().expect("text").to_owned());
    }
    seen.sort_by_key(|text| text[5..].parse::<u32>().expect("a number"));
    assert_eq!(seen, (0..50).map(|n| format!("TASK {n}")).collect::<Vec<_>>());
    drop(process.stdin.take());
    process.wait().expect("it ends");
    eventually("its registration is gone", async || {
        let workers = session.children("/workers").await.ok()??;
        (!workers.contains(&name)).then_some(())
    })
    .await;
    keeps_every_rule(&config);
}
