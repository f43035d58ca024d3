//! Load at a pace, and a probe that measures beside it.
//!
//! Every operation has a moment at which it is to begin, whatever became of the one before, and its latency is counted from
//! that moment: a service that stands still for a second shows as a second of latency, and not as one slow operation
//! (G. Tene, "How NOT to measure latency": coordinated omission).

use std::sync::Arc;
use std::time::{Duration, Instant};

use coordination::{Failure, bare::Bare, rendezvous::Member};
use futures::StreamExt;
use futures::future::try_join;
use futures::stream;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

use super::pace::Pacer;
use super::{Generator, GeneratorError};
use crate::{ClientTally, Operation, Outcome, Tally, Timeline};

/// How many of its znodes a client creates at once before it begins.
const CREATING: usize = 64;

/// What is measured just now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Nothing: load is being added.
    Between,
    /// A step, since when.
    Measuring(usize, Instant),
    /// Nothing any more.
    Over,
}

/// What the clients of one generator share.
#[derive(Clone)]
struct Pace {
    generator: Arc<Generator>,
    pacer: Pacer,
    stages: watch::Receiver<Stage>,
}

pub async fn play(generator: &Arc<Generator>, member: &Member) -> Result<Outcome, GeneratorError> {
    let (stage, stages) = watch::channel(Stage::Between);
    let pace = Pace { generator: generator.clone(), pacer: Pacer::start()?, stages };
    let mut clients = JoinSet::new();
    let played = generator.unless_stopped(steps(&pace, member, &stage, &mut clients)).await;
    stage.send_replace(Stage::Over);
    let (mut tallies, mut failed) = (Vec::new(), None);
    while let Some(ended) = clients.join_next().await {
        match ended {
            Ok(Ok(tally)) => tallies.push(tally),
            Ok(Err(error)) => failed = Some(error),
            Err(error) => failed = Some(GeneratorError::new(error)),
        }
    }
    if let Some(error) = failed {
        return Err(error);
    }
    let timeline = match played? {
        Some((tally, timeline)) => {
            tallies.push(tally);
            timeline
        }
        None => Timeline::default(),
    };
    Ok(Outcome::of(&generator.share.load, &tallies, timeline))
}

/// From the first point to the last; what the probe measured, where it is here.
async fn steps(
    pace: &Pace,
    member: &Member,
    stage: &watch::Sender<Stage>,
    clients: &mut JoinSet<Result<ClientTally, GeneratorError>>,
) -> Result<Option<(ClientTally, Timeline)>, GeneratorError> {
    let share = &pace.generator.share;
    let mut probe = match share.clients.first() {
        Some(0) => Some(Probe::connect(pace).await?),
        _ => None,
    };
    let mut begun = 0;
    for (step, load) in share.load.steps().into_iter().enumerate() {
        let point = 2 * step as u32 + 1;
        member.called(point).await?;
        stage.send_replace(Stage::Between);
        let mut beginning = Vec::new();
        for client in share.clients.iter().copied().filter(|client| (begun + 1..=load).contains(client)) {
            let (ready, is_ready) = oneshot::channel();
            clients.spawn(make_load(pace.clone(), client, ready));
            beginning.push(is_ready);
        }
        begun = load;
        for ready in beginning {
            if ready.await.is_err() {
                return Ok(None); // it has failed, and says why
            }
        }
        member.reach(point).await?;
        member.called(point + 1).await?;
        stage.send_replace(Stage::Measuring(step, Instant::now()));
        if let Some(probe) = &mut probe {
            probe.measure(step, share.load.step_duration()).await;
        }
        member.reach(point + 1).await?;
    }
    member.called(share.load.last_point() + 1).await?;
    match probe {
        Some(probe) => Ok(Some(probe.end().await)),
        None => Ok(None),
    }
}

/// One simulated client that makes load until all is over.
async fn make_load(pace: Pace, client: u32, ready: oneshot::Sender<()>) -> Result<ClientTally, GeneratorError> {
    let load = &pace.generator.share.load;
    let mut tally = ClientTally { client, steps: vec![Tally::default(); load.steps().len()] };
    let bare = pace.generator.connect(client).await?;
    let paths = match create_all(&pace.generator, client, &bare).await {
        Ok(paths) => paths,
        Err(failure) => {
            bare.close().await;
            return Err(GeneratorError::new(format!("client {client}: {failure}")));
        }
    };
    let _ = ready.send(());
    let mut rng = StdRng::seed_from_u64(load.seed.wrapping_add(client.into()));
    let (interval, data) = (Duration::from_secs_f64(1.0 / load.rate), pace.generator.data());
    // Not in step with the other clients.
    let mut due = Instant::now() + interval.mul_f64(rng.random());
    let mut stages = pace.stages.clone();
    loop {
        tokio::select! {
            () = pace.pacer.until(due) => {}
            _ = stages.wait_for(|stage| *stage == Stage::Over) => break,
        }
        let stage = *stages.borrow();
        let path = &paths[rng.random_range(0..paths.len())];
        let (operation, done) = if rng.random_bool(load.read_ratio) {
            (Operation::Read, bare.read(path).await)
        } else {
            (Operation::Modify, bare.modify(path, &data).await)
        };
        if let Stage::Measuring(step, since) = stage {
            match done {
                Ok(()) => tally.steps[step].record(operation, due.elapsed(), since.elapsed()),
                Err(_) => tally.steps[step].error(operation),
            }
        }
        due += interval;
    }
    bare.close().await;
    Ok(tally)
}

async fn create_all(generator: &Generator, client: u32, bare: &Bare) -> Result<Vec<String>, Failure> {
    let (prefix, data) = (generator.prefix(client), generator.data());
    let creates = (0..generator.share.load.znodes).map(|_| bare.create(&prefix, &data));
    let created: Vec<Result<String, Failure>> = stream::iter(creates).buffered(CREATING).collect().await;
    created.into_iter().collect()
}

/// The client that measures: it creates a znode, reads and watches it, modifies it, deletes it, and begins again.
struct Probe {
    pace: Pace,
    bare: Bare,
    start: Instant,
    tally: ClientTally,
    timeline: Timeline,
}

impl Probe {
    async fn connect(pace: &Pace) -> Result<Self, GeneratorError> {
        let bare = pace.generator.connect(0).await?;
        let steps = vec![Tally::default(); pace.generator.share.load.steps().len()];
        let tally = ClientTally { client: 0, steps };
        Ok(Probe { pace: pace.clone(), bare, start: Instant::now(), tally, timeline: Timeline::default() })
    }

    async fn measure(&mut self, step: usize, time: Duration) {
        if step == 0 {
            self.start = Instant::now();
        }
        let pace = self.pace.clone();
        let (prefix, data) = (pace.generator.prefix(0), pace.generator.data());
        let interval = Duration::from_secs_f64(1.0 / pace.generator.share.load.rate);
        let mut due = Instant::now();
        let end = due + time;
        while due < end {
            let turn = self.turn(step, &prefix, &data, &mut due, interval).await;
            if let Err(operation) = turn {
                self.tally.steps[step].error(operation);
            }
        }
        pace.pacer.until(end).await;
    }

    /// One znode's life, each operation at its moment; or the operation that was not answered.
    async fn turn(
        &mut self,
        step: usize,
        prefix: &str,
        data: &[u8],
        due: &mut Instant,
        interval: Duration,
    ) -> Result<(), Operation> {
        let begins = self.next(due, interval).await;
        let path = self.bare.create(prefix, data).await.map_err(|_| Operation::Create)?;
        self.took(step, Operation::Create, begins.elapsed());
        let begins = self.next(due, interval).await;
        let watch = self.bare.read_and_watch(&path).await.map_err(|_| Operation::Read)?;
        self.took(step, Operation::Read, begins.elapsed());
        let begins = self.next(due, interval).await;
        let called = Instant::now();
        let modified = async { self.bare.modify(&path, data).await.map(|()| begins.elapsed()) };
        let notified = async { watch.changed().await.map(|()| called.elapsed()) };
        let (modified, notified) = try_join(modified, notified).await.map_err(|_| Operation::Modify)?;
        self.took(step, Operation::Modify, modified);
        self.took(step, Operation::Watch, notified);
        let begins = self.next(due, interval).await;
        self.bare.delete(&path).await.map_err(|_| Operation::Delete)?;
        self.took(step, Operation::Delete, begins.elapsed());
        Ok(())
    }

    /// Waits for the next operation's moment.
    async fn next(&self, due: &mut Instant, interval: Duration) -> Instant {
        let begins = *due;
        self.pace.pacer.until(begins).await;
        *due += interval;
        begins
    }

    fn took(&mut self, step: usize, operation: Operation, latency: Duration) {
        let ended = self.start.elapsed();
        self.tally.steps[step].record(operation, latency, ended);
        self.timeline.record(operation, latency, ended);
    }

    async fn end(self) -> (ClientTally, Timeline) {
        self.bare.close().await;
        (self.tally, self.timeline)
    }
}
