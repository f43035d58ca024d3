//! How long a session lives after its last acknowledged sync, when the ZooKeeper server that it is connected to dies right
//! after that sync: the figure from which [`Lease`](coordination::Lease) takes its margins.
//!
//!     cargo bench --bench lease -- 40     rounds of about 20 s; without a number 2
//!
//! Three servers with a tick of 2 s, T = 10 s. In each round eight sessions know one follower only, each with an ephemeral
//! znode and the probes that every idle session sends. Right after the sync of one of them was acknowledged the follower is
//! killed. A watcher on another server sees each ephemeral go; the session that has just synced is the one that the round
//! is about, the others add phases. Why they end early: ZooKeeper's leader renews sessions from what followers tell it in
//! answer to its pings, every half tick, and not from the requests that they pass on (`LearnerHandler.java`).

use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use coordination::{Op, Session, SessionConfig};
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::sleep;

const TIMEOUT: Duration = Duration::from_secs(10);
const SESSIONS: usize = 8;

fn zookeeper(folder: &Path, args: &[&str]) -> String {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios/zookeeper");
    let run = Command::new(script).args(args).arg("--dir").arg(folder).env("HERDSMAN_TICK_MS", "2000").output();
    let run = run.expect("scenarios/zookeeper can be run");
    assert!(run.status.success(), "scenarios/zookeeper {args:?}: {}", String::from_utf8_lossy(&run.stderr));
    String::from_utf8_lossy(&run.stdout).trim().to_owned()
}

async fn session(server: &str) -> Session {
    let zookeeper = server.parse().expect("an address");
    let config = SessionConfig { session_timeout: TIMEOUT, ..SessionConfig::new(zookeeper) };
    Session::connect(&config, Duration::from_secs(60)).await.expect("the servers serve")
}

/// When the sync was sent that was acknowledged last.
fn renewed(session: &Session) -> Instant {
    session.lease().renewed()
}

/// For each session, from its last acknowledged sync to the end of its ephemeral, as a share of T; the first is the one whose
/// sync the follower had just acknowledged.
async fn round(folder: &Path, addresses: &[&str], number: usize) -> Vec<f64> {
    let leader: usize = zookeeper(folder, &["leader"]).parse().expect("a number");
    let follower = (1..=3).find(|n| *n != leader).expect("two of three");
    let pid = std::fs::read_to_string(folder.join(format!("{follower}/pid"))).expect("it runs");
    let pid = Pid::from_raw(pid.trim().parse().expect("a number")).expect("it runs");
    let watcher = session(addresses[leader - 1]).await;
    let mut sessions = Vec::new();
    for n in 0..SESSIONS {
        let path = format!("/lease-{number}-{n}");
        let owner = session(addresses[follower - 1]).await;
        owner.write(Op::CreateEphemeral { path: path.clone(), data: vec![], sequential: false }).await.expect("made");
        sessions.push((owner, path));
        sleep(TIMEOUT / 5 / SESSIONS as u32).await; // so that their probes come at different times
    }
    sleep(TIMEOUT / 2 + Duration::from_millis(137 * (number as u64 % 16))).await; // every phase of the pings
    let about = number % SESSIONS;
    let before = renewed(&sessions[about].0);
    while renewed(&sessions[about].0) == before {
        sleep(Duration::from_micros(200)).await;
    }
    kill_process(pid, Signal::KILL).expect("it runs");
    sessions.rotate_left(about);
    let ended = sessions.iter().map(|(owner, path)| {
        let (watcher, synced) = (&watcher, renewed(owner));
        async move {
            loop {
                let (node, watch) = watcher.watch_node(path).await.expect("a majority serves");
                if node.is_none() {
                    return synced.elapsed().as_secs_f64() / TIMEOUT.as_secs_f64();
                }
                watch.fired().await;
            }
        }
    });
    let shares = futures::future::join_all(ended).await;
    watcher.close().await;
    drop(sessions);
    zookeeper(folder, &["revive", &follower.to_string()]);
    while Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios/zookeeper"))
        .args(["serving", "--dir"])
        .arg(folder)
        .env("HERDSMAN_TICK_MS", "2000")
        .output()
        .is_ok_and(|run| !run.status.success())
    {
        sleep(Duration::from_millis(100)).await;
    }
    shares
}

fn main() -> ExitCode {
    let rounds = std::env::args().skip(1).find_map(|arg| arg.parse().ok()).unwrap_or(2);
    let folder = tempfile::tempdir().expect("a folder");
    let addresses = zookeeper(folder.path(), &["start", "--port", "any", "--servers", "3"]);
    let addresses: Vec<&str> = addresses.split(',').collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("threads");
    let (mut least, mut least_of_all) = (f64::INFINITY, f64::INFINITY);
    println!("round  just synced  the earliest of {SESSIONS}   (from the last acknowledged sync to the end, in T)");
    for number in 0..rounds {
        let shares = runtime.block_on(round(folder.path(), &addresses, number));
        let earliest = shares.iter().copied().fold(f64::INFINITY, f64::min);
        println!("{number:5}  {:11.3}  {earliest:17.3}", shares[0]);
        (least, least_of_all) = (least.min(shares[0]), least_of_all.min(earliest));
    }
    println!("least  {least:11.3}  {least_of_all:17.3}");
    zookeeper(folder.path(), &["stop"]);
    ExitCode::SUCCESS
}
