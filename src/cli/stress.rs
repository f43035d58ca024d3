//! Conducting a load: one task of kind `zkbench` for each load generator, a rendezvous, and a verdict.
//!
//! The run is valid if every generator was there from the first call to the last and returned what it measured. Whatever
//! else happens - a worker dies, one is paused past its session, the service refuses - ends the run with the reason and
//! without figures.

use std::collections::HashMap;
use std::time::Duration;

use coordination::{
    Failure, SessionConfig,
    rendezvous::{Conductor, Missed},
};
use rand::Rng;
use stress::{Load, Outcome, Run, Share, service::Service};
use tokio::time::timeout;
use tracing::{debug, warn};
use tree::{JobId, Policy};
use znode::paths;

use crate::client::{
    Client, ClientError, Finished, FinishedStatus, Herd, Job, JobSpec, Results, Selected, WorkerView, herd, open,
};
use crate::shutdown::Shutdown;

/// What the tasks are of.
const KIND: &str = "zkbench";
/// The most generators of one worker: each has a thread.
const THREADS_MAX: u32 = 64;
/// How long the generators may take until all are there.
const GATHER_WITHIN: Duration = Duration::from_secs(30);
/// How long a generator that has ended may take to say why.
const TOLD_WITHIN: Duration = Duration::from_secs(2);
/// How long the service may take for each thing that is asked of it before and after the run.
const PREPARE_WITHIN: Duration = Duration::from_secs(10);

/// Why there are no figures.
#[derive(Debug, thiserror::Error)]
pub enum StressError {
    /// The load cannot be run as it is.
    #[error("{0}")]
    Refused(String),
    /// The service that is to be measured does not take part.
    #[error("the service at {target}: {failure}")]
    Service {
        /// Where it is.
        target: String,
        /// What failed.
        failure: Failure,
    },
    /// The run began and is worth nothing.
    #[error("the run is invalid: {0}")]
    Invalid(String),
    /// Whoever wanted it does not want it any more.
    #[error("interrupted")]
    Interrupted,
    /// The herd cannot be used.
    #[error(transparent)]
    Herd(#[from] ClientError),
}

impl From<Failure> for StressError {
    fn from(failure: Failure) -> Self {
        ClientError::from(failure).into()
    }
}

/// How far a run is, for whoever watches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stage {
    /// The job was submitted; so many generators are to come.
    Gathering(JobId, usize),
    /// All are there. So many points are to come.
    Begun(u32),
    /// This point was reached by all.
    Reached(u32),
    /// All is over, but something could not be removed from the service.
    Left(String),
}

/// Runs a load on the free slots of the herd at `config`, and leaves nothing behind, neither there nor in the service; also
/// when `shutdown` is requested. If the process dies, its job is withdrawn with its session.
///
/// Errors: see [`StressError`].
pub async fn stress(
    config: &SessionConfig,
    mut load: Load,
    rng: &mut impl Rng,
    shutdown: &Shutdown,
    mut progress: impl FnMut(Stage),
) -> Result<Run, StressError> {
    let target = load.check().map_err(StressError::Refused)?;
    let client = Client::connect(config).await?;
    let generators = free_slots(&herd(client.session()).await?).min(load.clients);
    if let Err(error) = enough(generators, &load) {
        client.close().await;
        return Err(error);
    }
    load.root = format!("/herdsman-stress-{}", paths::uid(rng));
    let service = Service::prepare(target, &load)
        .await
        .map_err(|failure| StressError::Service { target: load.target.clone(), failure })?;
    let ran = in_the_service(config, &client, &load, generators, rng, shutdown, &mut progress).await;
    if let Err(failure) = service.clean_up(&load).await {
        progress(Stage::Left(format!("{} is left at {}: {failure}", load.root, load.target)));
    }
    client.close().await;
    ran
}

/// How many generators could begin at once.
fn free_slots(herd: &Herd) -> u32 {
    let able = herd.workers.iter().filter(|worker| worker.kinds.iter().any(|kind| kind == KIND));
    let free = |worker: &WorkerView| worker.slots.saturating_sub(u32::try_from(worker.assigned).unwrap_or(u32::MAX));
    able.map(|worker| free(worker).min(THREADS_MAX)).sum()
}

fn enough(generators: u32, load: &Load) -> Result<(), StressError> {
    if generators == 0 {
        let error = "no worker that runs 'zkbench' has a free slot: start one with `worker`, or wait";
        return Err(StressError::Refused(error.to_owned()));
    }
    let (clients, most) = (load.clients, load.clients_max());
    if clients.div_ceil(generators) > most {
        let error =
            format!("{clients} clients on {generators} free slots: a slot carries {most} at most; start more workers");
        return Err(StressError::Refused(error));
    }
    Ok(())
}

async fn in_the_service(
    config: &SessionConfig,
    client: &Client,
    load: &Load,
    generators: u32,
    rng: &mut impl Rng,
    shutdown: &Shutdown,
    progress: &mut impl FnMut(Stage),
) -> Result<Run, StressError> {
    // Once begun there is no second attempt.
    let policy = Policy { attached: true, crash_limit: 1, ..Policy::default() };
    let spec = JobSpec { name: "stress".to_owned(), policy, ..JobSpec::new(KIND) };
    let (job, mut results) = open(config, spec, rng).await?;
    let id = job.id().clone();
    progress(Stage::Gathering(id.clone(), generators as usize));
    let shares = load.deal(generators);
    let conducted = tokio::select! {
        conducted = conduct(client, &job, load, &shares, progress) => conducted,
        () = shutdown.requested() => Err(StressError::Interrupted),
        // Nobody is dismissed yet: whoever ends has failed.
        ended = results.next() => Err(match ended? {
            Some(finished) => StressError::Invalid(why(&finished)),
            None => StressError::Invalid(format!("job {id} was removed by somebody else")),
        }),
    };
    let selected = Selected { job: id.clone(), tasks: None };
    let run = match conducted {
        Ok(conductor) => {
            conductor.call(load.last_point() + 1).await?;
            collect(&mut results, load, &id).await
        }
        Err(StressError::Invalid(reason)) => {
            Err(StressError::Invalid(own_reason(&mut results).await.unwrap_or(reason)))
        }
        Err(error) => Err(error),
    };
    if let Err(error) = &run {
        debug!(%error, "withdrawing what is left");
        unless_gone(&id, client.cancel(&selected, &error.to_string()).await);
    }
    drop(job);
    let _ = timeout(PREPARE_WITHIN, results.leave()).await;
    // A generator whose worker died is dead, and stays unless it is forgotten.
    unless_gone(&id, client.forget(&selected).await);
    run
}

/// What a generator says itself of its end, which is missed before it is told.
async fn own_reason(results: &mut Results) -> Option<String> {
    let ended = async {
        while let Ok(Some(finished)) = results.next().await {
            if finished.status == FinishedStatus::Failed {
                return Some(why(&finished));
            }
        }
        None
    };
    timeout(TOLD_WITHIN, ended).await.unwrap_or(None)
}

/// What fails here changes nothing of what was measured.
fn unless_gone(job: &JobId, removed: Result<usize, ClientError>) {
    match removed {
        Ok(_) | Err(ClientError::NotFound(_)) => {}
        Err(error) => warn!(%job, %error, "cannot remove it: it is withdrawn with this client"),
    }
}

/// Submits a task for each share, and calls one point after another until all have reached the last one. They wait to be
/// dismissed.
async fn conduct(
    client: &Client,
    job: &Job,
    load: &Load,
    shares: &[Share],
    progress: &mut impl FnMut(Stage),
) -> Result<Conductor, StressError> {
    let mut conductor = Conductor::open(client.session(), &job.id().calls_path()).await?;
    let mut members = Vec::new();
    for share in shares {
        let payload = serde_json::to_vec(share).map_err(|error| StressError::Refused(error.to_string()))?;
        members.push(job.submit(payload).await?.at_path());
    }
    job.seal().await?;
    match timeout(GATHER_WITHIN, conductor.all_reach(&members, 0)).await {
        Ok(gathered) => gathered.map_err(|gone| missed(gone, &HashMap::new()))?,
        Err(_) => {
            let present = conductor.present(&members).await?.into_iter().filter(|present| *present).count();
            let within = humantime::format_duration(GATHER_WITHIN);
            let error = format!("only {present} of {} load generators came within {within}", members.len());
            return Err(StressError::Invalid(error));
        }
    }
    let holders = client.holders(job.id()).await?;
    progress(Stage::Begun(load.last_point()));
    for point in 1..=load.last_point() {
        conductor.call(point).await?;
        conductor.all_reach(&members, point).await.map_err(|gone| missed(gone, &holders))?;
        progress(Stage::Reached(point));
    }
    Ok(conductor)
}

/// Says whose generator it was, where that is known.
fn missed(missed: Missed, holders: &HashMap<u32, String>) -> StressError {
    match missed {
        Missed::Gone(path) => {
            let n = tree::at_number(paths::name(&path));
            let worker = n.and_then(|n| holders.get(&n)).map_or("a worker", String::as_str);
            let lost = format!("a load generator was lost: {worker} died, was stopped, or lost its session");
            StressError::Invalid(lost)
        }
        Missed::Late(_) | Missed::Failed(_) => StressError::Invalid(missed.to_string()),
    }
}

async fn collect(results: &mut Results, load: &Load, job: &JobId) -> Result<Run, StressError> {
    let mut outcomes = Vec::new();
    while let Some(finished) = results.next().await? {
        if !finished.is_done() {
            return Err(StressError::Invalid(why(&finished)));
        }
        let worker = finished.worker.unwrap_or_default();
        let outcome: Outcome =
            serde_json::from_value(finished.result).map_err(|error| StressError::Invalid(error.to_string()))?;
        outcomes.push((worker, outcome));
    }
    Run::of(load.clone(), job.to_string(), outcomes).map_err(StressError::Invalid)
}

fn why(finished: &Finished) -> String {
    let worker = finished.worker.as_deref().unwrap_or("no worker");
    let error = finished.error.as_deref().unwrap_or("it ended before it was dismissed");
    format!("load generator {} on {worker}: {} ({error})", finished.task, finished.status)
}
