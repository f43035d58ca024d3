//! Waking simulated clients at exact moments. The runtime's clock ticks in milliseconds; what is to be measured takes a
//! third of one.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Instant;

use tokio::sync::oneshot;

/// A thread that wakes others; it ends when this is dropped.
#[derive(Debug, Clone)]
pub struct Pacer {
    alarms: Sender<(Instant, oneshot::Sender<()>)>,
}

impl Pacer {
    /// Starts it.
    pub fn start() -> std::io::Result<Self> {
        let (alarms, received) = channel();
        thread::Builder::new().name("pacer".to_owned()).spawn(move || run(&received))?;
        Ok(Pacer { alarms })
    }

    /// Completes at `moment`, or at once where that is over.
    pub async fn until(&self, moment: Instant) {
        if moment > Instant::now() {
            let (wake, woken) = oneshot::channel();
            let _ = self.alarms.send((moment, wake));
            let _ = woken.await;
        }
    }
}

fn run(alarms: &Receiver<(Instant, oneshot::Sender<()>)>) {
    let mut sleepers = BTreeMap::new();
    for number in 0_u64.. {
        let alarm = match sleepers.first_key_value() {
            Some(((at, _), _)) => alarms.recv_timeout(Instant::saturating_duration_since(at, Instant::now())),
            None => alarms.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match alarm {
            // The number tells those of one moment apart.
            Ok((at, wake)) => drop(sleepers.insert((at, number), wake)),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        while let Some(first) = sleepers.first_entry().filter(|first| first.key().0 <= Instant::now()) {
            let _: Result<(), ()> = first.remove().send(());
        }
    }
}
