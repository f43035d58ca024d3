//! The phases of hZookeeper, for each simulated client one after another: connect, create, read and watch, modify, close.

use std::time::{Duration, Instant};

use coordination::{
    Failure,
    bare::{Bare, DataWatch},
    rendezvous::Member,
};
use futures::future::join_all;
use tokio::time::timeout;

use super::{Generator, GeneratorError, STOPPED};
use crate::{ClientTally, Operation, Outcome, Tally, Timeline};

/// How long a notification may take.
const NOTIFIED_WITHIN: Duration = Duration::from_secs(30);

pub async fn play(generator: &Generator, member: &Member) -> Result<Outcome, GeneratorError> {
    generator.unless_stopped(async { Ok(member.called(1).await?) }).await?;
    let start = Instant::now();
    let (mut clients, mut timelines) = (Vec::new(), Timeline::default());
    let mut failed: Option<GeneratorError> = None;
    for lived in join_all(generator.share.clients.iter().map(|client| live(generator, *client, start))).await {
        match lived {
            Ok((tally, timeline)) => {
                clients.push(tally);
                timelines.merge(timeline);
            }
            // The first that failed has stopped the others.
            Err(error) if failed.as_ref().is_none_or(|failed| *failed == GeneratorError::new(STOPPED)) => {
                failed = Some(error)
            }
            Err(_) => {}
        }
    }
    if let Some(error) = failed {
        return Err(error);
    }
    member.reach(1).await?;
    Ok(Outcome::of(&generator.share.load, &clients, timelines))
}

/// One simulated client. Whatever happens, its session is closed.
async fn live(generator: &Generator, client: u32, start: Instant) -> Result<(ClientTally, Timeline), GeneratorError> {
    let mut clock = Clock { start, tally: Tally::default(), timeline: Timeline::default() };
    let began = Instant::now();
    let bare = generator.connect(client).await.inspect_err(|_| generator.stop())?;
    clock.took(Operation::Connect, began.elapsed());
    let phases = phases(generator, client, &bare, &mut clock);
    let phases = async { phases.await.map_err(|failure| GeneratorError::new(format!("client {client}: {failure}"))) };
    let done = generator.unless_stopped(phases).await.inspect_err(|_| generator.stop());
    bare.close().await;
    // The watches are dropped only now: before, each would be a request to remove it.
    done.map(|_watches| (ClientTally { client, steps: vec![clock.tally] }, clock.timeline))
}

/// Returns the watches that have not fired.
async fn phases(generator: &Generator, client: u32, bare: &Bare, clock: &mut Clock) -> Result<Vec<DataWatch>, Failure> {
    let (load, prefix, data) = (&generator.share.load, generator.prefix(client), generator.data());
    let mut paths = Vec::new();
    for _ in 0..load.znodes {
        let began = Instant::now();
        paths.push(bare.create(&prefix, &data).await?);
        clock.took(Operation::Create, began.elapsed());
    }
    let mut watches = Vec::new();
    for path in &paths {
        let began = Instant::now();
        watches.push(bare.read_and_watch(path).await?);
        clock.took(Operation::Read, began.elapsed());
    }
    let rest = watches.split_off(load.modify as usize);
    for (path, watch) in paths.iter().zip(watches) {
        let began = Instant::now();
        let modified = async { bare.modify(path, &data).await.map(|()| began.elapsed()) };
        let notified = async {
            let late = || Failure::Unknown(format!("the watch on {path} has not fired within {NOTIFIED_WITHIN:?}"));
            timeout(NOTIFIED_WITHIN, watch.changed()).await.unwrap_or_else(|_| Err(late())).map(|()| began.elapsed())
        };
        let (modified, notified) = futures::try_join!(modified, notified)?;
        clock.took(Operation::Modify, modified);
        clock.took(Operation::Watch, notified);
    }
    Ok(rest)
}

/// What a simulated client measures, from the start.
struct Clock {
    start: Instant,
    tally: Tally,
    timeline: Timeline,
}

impl Clock {
    fn took(&mut self, operation: Operation, latency: Duration) {
        let ended = self.start.elapsed();
        self.tally.record(operation, latency, ended);
        self.timeline.record(operation, latency, ended);
    }
}
