//! Which faults hit whom, when and for how long: drawn from a seed, so that the same seed is the same schedule.
//!
//! A target that suffers is left alone until it has healed. Of ZooKeeper's servers one is down at a time, and the next
//! goes only when the one before has had time to join again: 3.8.0 can lose transactions that it has committed when
//! a server crashes while it joins (ZOOKEEPER-4643), and then there is nothing to be judged. Two servers down at once are
//! the scenario `minority`.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// SIGTERM; the process is started again when the fault heals.
    Term,
    /// SIGKILL; likewise.
    Kill,
    /// SIGSTOP until the fault heals.
    Stop,
    /// The line to ZooKeeper is cut.
    Cut,
    /// What goes to ZooKeeper is lost; the connection stays.
    DropRequests,
    /// What comes from ZooKeeper is lost; the connection stays.
    DropReplies,
    /// The next write is applied, and the line ends before its reply.
    CutReply,
    /// The next large writes are applied, and the line ends before the replies to those with these numbers, from 1.
    CutLarge([usize; 3]),
    /// Everything takes 50 ms longer, each way.
    Delay,
    /// A ZooKeeper server is killed, and started again when the fault heals.
    ServerKill,
    /// A neighbour on the same ZooKeeper does wrong, and undoes it when the fault heals.
    Neighbour(Deed),
}

/// What a hostile neighbour does: see `scenarios/Neighbour.java`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Deed {
    /// Znodes below each root that nobody else may read.
    Unreadable,
    /// A persistent znode with the lowest number in `/master`.
    Candidate,
    /// Hundreds of znodes below each root that are nothing.
    Garbage,
    /// Records of 900 kB.
    Fat,
    /// A worker that takes everything and runs nothing.
    Greedy,
}

impl Deed {
    const ALL: [Deed; 5] = [Deed::Unreadable, Deed::Candidate, Deed::Garbage, Deed::Fat, Deed::Greedy];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Deed::Unreadable => "unreadable",
            Deed::Candidate => "candidate",
            Deed::Garbage => "garbage",
            Deed::Fat => "fat",
            Deed::Greedy => "greedy",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Fault::Neighbour(deed) => return write!(f, "neighbour: {}", deed.name()),
            Fault::Term => "SIGTERM",
            Fault::Kill => "SIGKILL",
            Fault::Stop => "SIGSTOP/CONT",
            Fault::Cut => "line cut",
            Fault::DropRequests => "requests lost",
            Fault::DropReplies => "replies lost",
            Fault::CutReply => "cut before a reply",
            Fault::CutLarge(_) => "cut before replies to large writes",
            Fault::Delay => "line delayed",
            Fault::ServerKill => "server killed",
        })
    }
}

/// Whom a fault hits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// A process of the herd, by its index.
    Process(usize),
    /// A ZooKeeper server, by its number from 1.
    Server(usize),
    /// Everybody: what the neighbour does is there for all.
    Everybody,
}

/// One fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Injection {
    /// From the beginning of the run.
    pub at: Duration,
    /// How long it lasts.
    pub lasts: Duration,
    /// Whom it hits.
    pub target: Target,
    /// What happens.
    pub fault: Fault,
}

/// How long a server that was started again is left alone.
const JOIN_WITHIN: Duration = Duration::from_secs(8);
/// The most faults at the same time.
const SUFFERING_MAX: usize = 4;

/// Whom there is to hit.
#[derive(Debug, Clone, Copy)]
pub struct Targets {
    /// How many processes.
    pub processes: usize,
    /// How many of them, the last ones, are clients that submit thousands of tasks at once.
    pub bulk: usize,
    /// How many ZooKeeper servers.
    pub servers: usize,
}

/// How many tasks each of these clients submits at once.
pub fn draw_bulk(seed: u64, clients: usize) -> Vec<usize> {
    let mut rng = StdRng::seed_from_u64(seed);
    (0..clients).map(|_| rng.random_range(3000..=5000)).collect()
}

/// Draws the faults of a run of length `run`. Every fault heals before the run ends.
///
/// `timeout` is the session timeout: faults last from a fraction of it to three times it.
pub fn draw(seed: u64, run: Duration, timeout: Duration, targets: Targets) -> Vec<Injection> {
    let Targets { processes, bulk, servers } = targets;
    let mut rng = StdRng::seed_from_u64(seed);
    let mut healed: BTreeMap<Target, Duration> = BTreeMap::new();
    let mut injections = Vec::new();
    let mut at = Duration::from_secs(2);
    while at < run {
        let suffers = |(target, until): &(&Target, &Duration)| **target != Target::Everybody && **until > at;
        let suffering = healed.iter().filter(suffers).count();
        let joined = healed.iter().all(|(t, until)| !matches!(t, Target::Server(_)) || *until + JOIN_WITHIN <= at);
        let (fault, factor) = match rng.random_range(0..100) {
            0..10 => (Fault::Term, 0.1..0.8),
            10..28 => (Fault::Kill, 0.1..1.5),
            28..44 => (Fault::Stop, 0.1..3.0),
            44..50 => (Fault::Neighbour(Deed::ALL[rng.random_range(0..Deed::ALL.len())]), 1.0..4.0),
            50..60 => (Fault::Cut, 0.1..2.0),
            60..66 => (Fault::DropRequests, 0.1..2.0),
            66..72 => (Fault::DropReplies, 0.1..2.0),
            72..77 => (Fault::CutReply, 0.1..0.3),
            77..85 => (Fault::CutLarge([(); 3].map(|()| rng.random_range(1..=8))), 1.0..2.0),
            85..90 => (Fault::Delay, 0.5..2.0),
            _ => (Fault::ServerKill, 0.3..1.5),
        };
        let target = match fault {
            Fault::ServerKill => Target::Server(rng.random_range(1..=servers)),
            Fault::Neighbour(_) => Target::Everybody,
            Fault::CutLarge(_) => Target::Process(rng.random_range(processes - bulk..processes)),
            _ => Target::Process(rng.random_range(0..processes)),
        };
        let lasts = timeout.mul_f64(rng.random_range(factor));
        let is_well = healed.get(&target).is_none_or(|until| *until <= at);
        let allowed = match target {
            Target::Server(_) => joined,
            Target::Everybody => true,
            Target::Process(_) => suffering < SUFFERING_MAX,
        };
        if is_well && allowed && at + lasts < run {
            healed.insert(target, at + lasts);
            injections.push(Injection { at, lasts, target, fault });
        }
        at += Duration::from_millis(rng.random_range(300..1800));
    }
    injections
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const RUN: Duration = Duration::from_secs(1800);
    const TIMEOUT: Duration = Duration::from_secs(4);

    const TARGETS: Targets = Targets { processes: 10, bulk: 2, servers: 3 };

    #[test]
    fn a_seed_is_a_schedule() {
        assert_eq!(draw(7, RUN, TIMEOUT, TARGETS), draw(7, RUN, TIMEOUT, TARGETS));
        assert_ne!(draw(7, RUN, TIMEOUT, TARGETS), draw(8, RUN, TIMEOUT, TARGETS));
        assert_eq!(draw_bulk(7, 2), draw_bulk(7, 2));
    }

    #[test]
    fn half_an_hour_has_hundreds_of_faults_of_every_kind_that_all_heal() {
        let injections = draw(1, RUN, TIMEOUT, TARGETS);
        assert!(injections.len() >= 500, "{}", injections.len());
        let kinds: BTreeSet<String> = injections.iter().map(|i| i.fault.to_string()).collect();
        assert_eq!(kinds.len(), 10 + Deed::ALL.len());
        assert!(injections.iter().all(|i| i.at + i.lasts < RUN));
    }

    #[test]
    fn replies_to_large_writes_are_cut_off_from_who_makes_them() {
        let injections = draw(1, RUN, TIMEOUT, TARGETS);
        let mut large = injections.iter().filter(|i| matches!(i.fault, Fault::CutLarge(_))).peekable();
        assert!(large.peek().is_some());
        assert!(large.all(|i| matches!(i.target, Target::Process(8..10))));
    }

    #[test]
    fn nobody_is_hit_again_before_it_has_healed() {
        let mut healed: BTreeMap<Target, Duration> = BTreeMap::new();
        for injection in draw(3, RUN, TIMEOUT, TARGETS) {
            let until = healed.insert(injection.target, injection.at + injection.lasts);
            assert!(until.is_none_or(|until| until <= injection.at), "{injection:?}");
        }
    }
}
