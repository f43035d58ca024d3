//! Loads on a service: what comes of them, and what is left.

use std::time::Duration;

use coordination::{Session, SessionConfig};
use herdsman::cli::Zkbench;
use herdsman::cli::stress::{Stage, StressError, stress};
use herdsman::client::{JobSpec, open};
use herdsman::handlers::Handlers;
use herdsman::shutdown::Shutdown;
use serde_json::Value;
use stress::{Case, Load, Operation, Run, Tally, report::write_page, text};
use tree::JobId;

use crate::support::herd::{Member, master, worker, worker_with};
use crate::support::{LIMIT, all, children, config_at, connect, fresh_config, until, zookeeper};

/// A service beside the herd: another chroot of the same server.
async fn service() -> (String, Session) {
    let config = fresh_config();
    (config.zookeeper.to_string(), connect(&config).await)
}

fn load(target: &str, case: Case, clients: u32) -> Load {
    Load {
        target: target.to_owned(),
        case,
        clients,
        znodes: 20,
        modify: 3,
        data_size: 6,
        duration_ms: 1500,
        rate: 100.0,
        read_ratio: 0.5,
        seed: 7,
        session_timeout_ms: 2000,
        root: String::new(),
        i_own_this_service: false,
    }
}

fn generators(config: &SessionConfig, name: &str, slots: u32) -> Member {
    let handlers = Handlers::none().with("zkbench", Zkbench::new(config.clone()));
    worker_with(config, name, slots, handlers, Duration::ZERO)
}

async fn herd_of(config: &SessionConfig, workers: usize) -> Session {
    let session = connect(config).await;
    until("the workers are there", async || {
        session.children("/workers").await.is_ok_and(|names| names.is_some_and(|names| names.len() == workers))
    })
    .await;
    session
}

async fn run(config: &SessionConfig, load: Load) -> Result<Run, StressError> {
    let (_stopper, shutdown) = Shutdown::new();
    tokio::time::timeout(LIMIT, stress(config, load, &mut rand::rng(), &shutdown, |_| {})).await.expect("it ends")
}

async fn nothing_is_left(herd: &Session, service: &Session) {
    for (session, path) in [(herd, "/tasks"), (herd, "/data"), (service, "/")] {
        assert_eq!(children(session, path).await, Vec::<String>::new(), "{path}");
    }
}

fn count(tally: &Tally, operation: Operation) -> u64 {
    tally.get(operation).map_or(0, |measured| measured.figures().count)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lifecycle_is_exactly_what_was_ordered_and_leaves_nothing() {
    let (config, (target, service)) = (fresh_config(), service().await);
    let _herd = (master(&config, "m"), generators(&config, "w1", 2), generators(&config, "w2", 1));
    let session = herd_of(&config, 2).await;
    let run = run(&config, load(&target, Case::Lifecycle, 11)).await.expect("valid");
    let all = &run.steps[0].measured.load;
    let counts = all.iter().map(|(operation, _)| (operation, count(all, operation)));
    assert_eq!(
        counts.collect::<Vec<_>>(),
        [
            (Operation::Connect, 11),
            (Operation::Create, 220),
            (Operation::Read, 220),
            (Operation::Modify, 33),
            (Operation::Watch, 33)
        ]
    );
    let mut workers: Vec<&str> = run.clients.values().map(|(worker, _)| &worker[..2]).collect();
    workers.sort_unstable();
    workers.dedup();
    assert_eq!(workers, ["w1", "w2"], "both workers took part");
    nothing_is_left(&session, &service).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ramp_measures_the_probe_beside_more_and_more_clients() {
    let (config, (target, service)) = (fresh_config(), service().await);
    let _herd = (master(&config, "m"), generators(&config, "w", 2));
    let session = herd_of(&config, 1).await;
    let run = run(&config, load(&target, Case::Ramp, 3)).await.expect("valid");
    assert_eq!(run.steps.iter().map(|step| step.clients).collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!(run.steps.iter().map(|step| step.offered).collect::<Vec<_>>(), [Some(0.0), Some(100.0), Some(200.0)]);
    for step in &run.steps {
        let probed = [Operation::Create, Operation::Read, Operation::Modify, Operation::Watch, Operation::Delete];
        assert!(probed.iter().all(|operation| count(&step.measured.probe, *operation) > 0), "{step:?}");
        let (reads, modifies) =
            (count(&step.measured.load, Operation::Read), count(&step.measured.load, Operation::Modify));
        assert_eq!(step.clients > 0, reads > 0 && modifies > 0, "{step:?}");
    }
    nothing_is_left(&session, &service).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_whose_worker_stops_is_invalid_and_names_it() {
    let (config, (target, service)) = (fresh_config(), service().await);
    let (_m, _w1, w2) = (master(&config, "m"), generators(&config, "w1", 1), generators(&config, "w2", 1));
    let session = herd_of(&config, 2).await;
    let (_stopper, shutdown) = Shutdown::new();
    let long = Load { duration_ms: 60_000, ..load(&target, Case::Steady, 4) };
    let (begun, mut has_begun) = tokio::sync::mpsc::unbounded_channel();
    let progress = move |stage| {
        let _ = begun.send(stage);
    };
    let running = async { stress(&config, long, &mut rand::rng(), &shutdown, progress).await };
    let stopping = async {
        while let Some(stage) = has_begun.recv().await {
            if stage == Stage::Reached(1) {
                return w2.stop().await;
            }
        } // or it ended before that, and says why
    };
    let (ended, ()) = tokio::time::timeout(LIMIT, async { tokio::join!(running, stopping) }).await.expect("it ends");
    let error = ended.expect_err("one is missing").to_string();
    assert!(error.contains("invalid") && error.contains("w2-"), "{error}");
    nothing_is_left(&session, &service).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_run_leaves_nothing() {
    let (config, (target, service)) = (fresh_config(), service().await);
    let _herd = (master(&config, "m"), generators(&config, "w", 2));
    let session = herd_of(&config, 1).await;
    let (stopper, shutdown) = Shutdown::new();
    let long = Load { duration_ms: 60_000, ..load(&target, Case::Steady, 4) };
    let interrupt = move |stage| {
        if stage == Stage::Reached(1) {
            stopper.stop();
        }
    };
    let ended = tokio::time::timeout(LIMIT, stress(&config, long, &mut rand::rng(), &shutdown, interrupt)).await;
    assert!(matches!(ended.expect("it ends"), Err(StressError::Interrupted)));
    nothing_is_left(&session, &service).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_measured_is_refused_before_anything_begins() {
    let (config, (target, service)) = (fresh_config(), service().await);
    let _herd = (master(&config, "m"), worker(&config, "w")); // which does not run it
    let session = herd_of(&config, 1).await;
    let lifecycle = load(&target, Case::Lifecycle, 2);
    let refused = run(&config, lifecycle.clone()).await;
    assert!(matches!(refused, Err(StressError::Refused(_))), "{refused:?}");
    let elsewhere = run(&config, Load { target: "192.0.2.1:2181".to_owned(), ..lifecycle.clone() }).await;
    assert!(matches!(elsewhere, Err(StressError::Refused(_))), "{elsewhere:?}");
    let _w = generators(&config, "w2", 1);
    herd_of(&config, 2).await;
    let crowded = run(&config, Load { clients: 201, ..lifecycle.clone() }).await;
    assert!(matches!(crowded, Err(StressError::Refused(_))), "{crowded:?}");
    let nobody = config_at("127.0.0.1:1", "/").zookeeper.to_string();
    let absent = run(&config, Load { target: nobody, ..lifecycle }).await;
    assert!(matches!(absent, Err(StressError::Service { .. })), "{absent:?}");
    nothing_is_left(&session, &service).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_generator_refuses_what_no_conductor_has_called() {
    let config = fresh_config();
    let _herd = (master(&config, "m"), generators(&config, "w", 1));
    herd_of(&config, 1).await;
    let (job, results) = open(&config, JobSpec::new("zkbench"), &mut rand::rng()).await.expect("opened");
    let alone = &load(zookeeper(), Case::Lifecycle, 1).deal(1)[0];
    let elsewhere = &Load { target: "192.0.2.1:2181".to_owned(), ..load("", Case::Lifecycle, 1) }.deal(1)[0];
    for payload in [serde_json::to_vec(alone), serde_json::to_vec(elsewhere), Ok(b"garbage".to_vec())] {
        job.submit(payload.expect("JSON")).await.expect("submitted");
    }
    job.seal().await.expect("sealed");
    let finished = all(results).await.into_iter();
    let errors: Vec<String> = finished.map(|finished| finished.error.expect("none is done")).collect();
    assert!(errors[0].contains("calls is gone"), "{errors:?}");
    assert!(errors[1].contains("not on this machine"), "{errors:?}");
    assert_eq!(errors.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_format_says_the_same() {
    let (config, (target, _service)) = (fresh_config(), service().await);
    let _herd = (master(&config, "m"), generators(&config, "w", 1));
    herd_of(&config, 1).await;
    let run = run(&config, load(&target, Case::Lifecycle, 2)).await.expect("valid");
    let table = text::table(&run, true);
    assert_eq!(table.lines().filter(|line| line.starts_with("create ")).count(), 3, "all, and each client\n{table}");
    let json: Value = text::json(&run);
    assert_eq!(json["steps"][0]["load"]["create"]["count"], 40);
    assert_eq!(json["steps"][0]["clients"].as_array().map(Vec::len), Some(2));
    let influx = text::influx(&run, 1_000_000_007);
    assert_eq!(influx.lines().count(), 2 * 5);
    for line in influx.lines() {
        let [tags, fields, time] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
        assert!(
            tags.starts_with("herdsman_stress,") && tags.contains(",client=") && tags.contains(",worker=w-"),
            "{line}"
        );
        assert!(fields.contains("count=") && time == "1000000007", "{line}");
    }
    let prometheus = text::prometheus(&run);
    let creates = prometheus.lines().filter(|line| {
        line.starts_with("herdsman_stress_latency_seconds_count{") && line.contains("operation=\"create\"")
    });
    assert_eq!(creates.map(|line| line.rsplit(' ').next()).collect::<Vec<_>>(), [Some("20"), Some("20")]);
    assert!(run.job.parse::<JobId>().is_ok());
    let folder = tempfile::tempdir().expect("a folder");
    write_page(&run, &folder.path().join("new")).expect("written");
    let page = std::fs::read_to_string(folder.path().join("new/index.html")).expect("there");
    let plots: Vec<&str> = page.split("<img src=\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    assert_eq!(plots.len(), 4, "{page}");
    for plot in plots {
        let svg = std::fs::read_to_string(folder.path().join("new").join(plot)).expect("there");
        assert!(svg.contains("create") && svg.contains("<polyline"), "{plot}");
    }
}
