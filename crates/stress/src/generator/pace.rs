//! Waking simulated clients at exact moments. The runtime's clock ticks in milliseconds, but the operations that
//! are measured take a third of one.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
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
    let mut next: BinaryHeap<Reverse<(Instant, u64)>> = BinaryHeap::new();
    let mut sleepers = std::collections::HashMap::new();
    let mut number = 0_u64;
    loop {
        let now = Instant::now();
        while let Some(Reverse((_, sleeper))) = next.peek().copied().filter(|Reverse((at, _))| *at <= now) {
            next.pop();
            if let Some(wake) = sleepers.remove(&sleeper) {
                let _: Result<(), ()> = oneshot::Sender::send(wake, ());
            }
        }
        let alarm = match next.peek() {
            Some(Reverse((at, _))) => alarms.recv_timeout(at.saturating_duration_since(now)),
            None => alarms.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match alarm {
            Ok((at, wake)) => {
                number += 1;
                next.push(Reverse((at, number)));
                sleepers.insert(number, wake);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}
