//! MassLoss when many workers go at once: then it is not their tasks, and they may come back.
//!
//! Workers that are lost by one cause are not lost in one moment, and the first of them looks like any other. So what a loss
//! means is settled a little later, for all of them together, unless it is plain at once.
//!
//! Source: the damping of reassignment in Kafka Connect (KIP-415, `scheduled.rebalance.max.delay.ms`).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use tree::WorkerId;

/// The share of a session timeout for which it is waited what else is lost: ZooKeeper ends sessions that are over by one
/// tick of its clock in one go. A worker's tasks come back later by so much.
const SETTLING_SHARE: u32 = 20;

/// Which workers were lost lately, and whether each had work.
#[derive(Debug)]
pub(super) struct MassLoss {
    lately: Duration,
    lost: VecDeque<(Instant, bool)>,
    /// Those with work of which it is not settled what their loss means.
    unsettled: Vec<WorkerId>,
    settled_at: Option<Instant>,
}

/// What the loss of some workers means.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Loss {
    pub(super) workers: Vec<WorkerId>,
    /// More than half of those there were are gone within the time, and more than one of them had work: idle ones that leave
    /// take nothing with them.
    pub(super) storm: bool,
}

impl MassLoss {
    /// `lately`: the session timeout.
    pub(super) fn new(lately: Duration) -> Self {
        MassLoss { lately, lost: VecDeque::new(), unsettled: Vec::new(), settled_at: None }
    }

    /// A worker was lost at `now`.
    pub(super) fn lost(&mut self, worker: &WorkerId, had_work: bool, now: Instant) {
        self.lost.push_back((now, had_work));
        if had_work {
            self.unsettled.push(worker.clone());
            self.settled_at.get_or_insert(now + self.lately / SETTLING_SHARE);
        }
    }

    /// Whether what some losses mean is to be settled.
    pub(super) fn is_unsettled(&self) -> bool {
        !self.unsettled.is_empty()
    }

    /// What the losses mean, as soon as that is plain at `now`: so many workers are left, and so many of them have work.
    pub(super) fn settle(&mut self, left: usize, left_with_work: usize, now: Instant) -> Option<Loss> {
        self.settled_at?;
        while self.lost.front().is_some_and(|(at, _)| now.saturating_duration_since(*at) >= self.lately) {
            self.lost.pop_front();
        }
        let with_work = self.lost.iter().filter(|(_, had_work)| *had_work).count();
        let storm = self.lost.len() > left && with_work > 1;
        let may_become_one = with_work + left_with_work > 1;
        if !storm && may_become_one && self.settled_at.is_some_and(|at| now < at) {
            return None;
        }
        self.settled_at = None;
        Some(Loss { workers: std::mem::take(&mut self.unsettled), storm })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATELY: Duration = Duration::from_secs(10);

    fn worker(n: usize) -> WorkerId {
        format!("w-{n}").parse().expect("valid")
    }

    /// Loses workers, some with work, of whom so many with work are left; what is settled then, and after the time for it.
    fn lose(mass_loss: &mut MassLoss, had_work: &[bool], left: usize, now: Instant) -> [Option<(usize, bool)>; 2] {
        had_work.iter().enumerate().for_each(|(n, had_work)| mass_loss.lost(&worker(n), *had_work, now));
        [now, now + LATELY / SETTLING_SHARE]
            .map(|now| mass_loss.settle(left, left, now).map(|loss| (loss.workers.len(), loss.storm)))
    }

    #[test]
    fn the_first_half_of_a_storm_is_judged_with_the_second() {
        let (now, mut mass_loss) = (Instant::now(), MassLoss::new(LATELY));
        for n in 0..2 {
            mass_loss.lost(&worker(n), true, now + n as u32 * LATELY / 100);
            assert_eq!(mass_loss.settle(3 - n, 3 - n, now + n as u32 * LATELY / 100), None, "it may be one");
        }
        mass_loss.lost(&worker(2), true, now + LATELY / 50);
        let loss = mass_loss.settle(1, 1, now + LATELY / 50).expect("now it is");
        assert_eq!(loss, Loss { workers: (0..3).map(worker).collect(), storm: true });
        assert_eq!(
            lose(&mut mass_loss, &[true], 0, now + LATELY / 10),
            [Some((1, true)), None],
            "so is what is lost after that"
        );
    }

    #[test]
    fn fewer_than_half_are_no_storm_which_is_known_soon() {
        let now = Instant::now();
        assert_eq!(lose(&mut MassLoss::new(LATELY), &[true; 2], 2, now), [None, Some((2, false))]);
        assert_eq!(lose(&mut MassLoss::new(LATELY), &[true; 2], 1, now), [Some((2, true)), None]);
    }

    #[test]
    fn idle_workers_that_leave_are_no_storm_nor_is_the_one_among_them_that_had_work() {
        let (now, mut mass_loss) = (Instant::now(), MassLoss::new(LATELY));
        assert_eq!(lose(&mut mass_loss, &[false; 5], 0, now), [None, None]);
        assert_eq!(lose(&mut mass_loss, &[true, false], 0, now), [Some((1, false)), None], "which is plain at once");
        assert_eq!(lose(&mut mass_loss, &[true], 0, now), [Some((1, true)), None], "the second");
    }

    #[test]
    fn losses_apart_are_no_storm_and_one_worker_is_none_either() {
        let now = Instant::now();
        let mut mass_loss = MassLoss::new(LATELY);
        assert_eq!(lose(&mut mass_loss, &[true], 0, now), [Some((1, false)), None]);
        for n in 1..5 {
            assert_eq!(lose(&mut mass_loss, &[true], 1, now + n * LATELY), [None, Some((1, false))]);
        }
    }
}
