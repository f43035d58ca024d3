//! Load on a ZooKeeper service, spread over many load generators: what each is to do, and what all of them measured. It knows
//! nothing of herds; `client stress` has a task for each generator.
//!
//! | file | what it holds |
//! |---|---|
//! | here | pure: a load, and the share of each generator |
//! | [`generator`] | does a share: simulated clients, and a probe that measures |
//! | [`service`] | the place in the service under test |
//! | [`Tally`], [`Outcome`], [`Run`], [`Timeline`] | pure: what was measured, by one, by all, over time |
//! | [`text`], [`report`] | for people: tables, a page, plots |
//!
//! The phases of *lifecycle* are those of hZookeeper, a tool that scale-tests ZooKeeper with many simulated clients.

pub mod generator;
mod measured;
mod outcome;
pub mod report;
pub mod service;
pub mod text;
mod timeline;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use measured::{Figures, Measured, Operation, Tally};
pub use outcome::{ClientFigures, ClientTally, Outcome, Parts, Run, Step};
pub use timeline::Timeline;

use coordination::ConnectString;

/// The most bytes in a znode: half of what ZooKeeper takes.
const ZNODE_BYTES_MAX: usize = 512 * 1024;
/// The most rows of figures of one load generator, a row for each client, step and operation: they must fit into an outcome.
const ROWS_MAX: u32 = 1000;
/// The most steps of a ramp, beside the one without load.
const STEPS_MAX: u32 = 10;

/// What is done to the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Case {
    /// Each client connects, creates its znodes, reads each and leaves a watch, modifies the first of them, and closes.
    Lifecycle,
    /// A probe measures while load is added step by step.
    Ramp,
    /// A probe measures under full load.
    Steady,
}

/// A load, whole.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Load {
    /// `HOST:PORT[,...][/chroot]` of the service; see [`Load::check`] for the bounds of all that follows.
    pub target: String,
    /// What is done to it.
    pub case: Case,
    /// How many simulated clients there are, the probe among them; at least 1.
    pub clients: u32,
    /// How many znodes each has.
    pub znodes: u32,
    /// How many of them are modified in a lifecycle.
    pub modify: u32,
    /// Bytes in each.
    pub data_size: usize,
    /// For how long the probe measures, all steps together, in milliseconds.
    pub duration_ms: u64,
    /// Operations a second that each client begins, where it measures for a time.
    pub rate: f64,
    /// The share of reads among the operations of the load, from 0 to 1.
    pub read_ratio: f64,
    /// Draws the operations.
    pub seed: u64,
    /// The session timeout of the simulated clients, in milliseconds.
    pub session_timeout_ms: u64,
    /// The znode of the service below which everything happens.
    pub root: String,
    /// Whether whoever submits this says that the service is theirs to load, though it is not on this machine.
    pub i_own_this_service: bool,
}

/// The part of one load generator.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Share {
    /// The whole.
    pub load: Load,
    /// The numbers of its clients, counted from 0.
    pub clients: Vec<u32>,
}

impl Share {
    /// The service, where this can be run; see [`Load::check`].
    pub fn check(&self) -> Result<ConnectString, String> {
        let target = self.load.check()?;
        let Share { load, clients } = self;
        if clients.iter().any(|client| *client >= load.clients) || clients.len() > load.clients_max() as usize {
            return Err(format!("clients {clients:?} are no share of {}", load.clients));
        }
        Ok(target)
    }
}

impl Load {
    /// The service, where this can be run.
    ///
    /// Errors: a figure is out of its bounds; the service cannot be read; it is not on this machine, and nobody said that it
    /// may be loaded.
    pub fn check(&self) -> Result<ConnectString, String> {
        let within = |what: &str, value: f64, least: f64, most: f64| {
            // Not a number is within nothing.
            if (least..=most).contains(&value) {
                Ok(())
            } else {
                Err(format!("{what}: {value} is not {least} to {most}"))
            }
        };
        within("clients", self.clients.into(), 1.0, 10_000.0)?;
        within("znodes of a client", self.znodes.into(), 1.0, 100_000.0)?;
        within("znodes to modify", self.modify.into(), 0.0, self.znodes.into())?;
        within("bytes of a znode", self.data_size as f64, 0.0, ZNODE_BYTES_MAX as f64)?;
        within("seconds to measure", self.duration_ms as f64 / 1e3, 1.0, 30.0 * 86_400.0)?;
        within("operations a second", self.rate, 0.1, 100_000.0)?;
        within("share of reads", self.read_ratio, 0.0, 1.0)?;
        within("session timeout in ms", self.session_timeout_ms as f64, 100.0, 3_600_000.0)?;
        let target: ConnectString = self.target.parse()?;
        if target.is_loopback() || self.i_own_this_service {
            return Ok(target);
        }
        Err(format!("{target} is not on this machine: a load can take a service down"))
    }

    /// Shared out over so many generators, as evenly as can be: a share for each, none without a client.
    pub fn deal(&self, generators: u32) -> Vec<Share> {
        let generators = generators.clamp(1, self.clients);
        let share = |first| (first..self.clients).step_by(generators as usize).collect();
        (0..generators).map(|first| Share { load: self.clone(), clients: share(first) }).collect()
    }

    /// How many clients make load at each step beside the probe, which is client 0; none in a lifecycle.
    pub fn steps(&self) -> Vec<u32> {
        let load = self.clients - 1;
        match self.case {
            Case::Lifecycle => Vec::new(),
            Case::Steady => vec![load],
            Case::Ramp => {
                let steps = load.min(STEPS_MAX);
                (0..=steps).map(|step| load * step / steps.max(1)).collect()
            }
        }
    }

    /// Whether this client measures beside the others.
    pub fn is_probe(&self, client: u32) -> bool {
        self.case != Case::Lifecycle && client == 0
    }

    /// How many clients one generator can carry.
    pub fn clients_max(&self) -> u32 {
        match self.case {
            Case::Lifecycle => ROWS_MAX / 5,
            Case::Ramp | Case::Steady => ROWS_MAX / 2 / self.steps().len() as u32,
        }
    }

    /// How long each step is measured.
    pub fn step_duration(&self) -> Duration {
        Duration::from_millis(self.duration_ms / self.steps().len().max(1) as u64)
    }

    /// The last point of the rendezvous that generators reach; at the next one they are dismissed.
    ///
    /// Point 1 of a lifecycle is the whole of it. Else each step has two: all its clients make load, then the probe has
    /// measured.
    pub fn last_point(&self) -> u32 {
        match self.case {
            Case::Lifecycle => 1,
            Case::Ramp | Case::Steady => 2 * self.steps().len() as u32,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(case: Case, clients: u32) -> Load {
        Load {
            target: "127.0.0.1:2181".to_owned(),
            case,
            clients,
            znodes: 10,
            modify: 1,
            data_size: 6,
            duration_ms: 1100,
            rate: 100.0,
            read_ratio: 0.5,
            seed: 0,
            session_timeout_ms: 10_000,
            root: "/x".to_owned(),
            i_own_this_service: false,
        }
    }

    #[test]
    fn clients_are_dealt_evenly_and_none_is_added() {
        for generators in 1..30 {
            let shares = load(Case::Lifecycle, 11).deal(generators);
            assert_eq!(shares.len(), generators.min(11) as usize);
            let mut clients: Vec<u32> = shares.iter().flat_map(|share| share.clients.clone()).collect();
            clients.sort_unstable();
            assert_eq!(clients, (0..11).collect::<Vec<_>>());
            let sizes = shares.iter().map(|share| share.clients.len());
            assert!(sizes.clone().max() <= sizes.min().map(|least| least + 1));
        }
    }

    #[test]
    fn a_ramp_goes_from_the_probe_alone_to_all_clients() {
        assert_eq!(load(Case::Ramp, 5).steps(), [0, 1, 2, 3, 4]);
        assert_eq!(load(Case::Ramp, 101).steps(), [0, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100]);
        assert_eq!(load(Case::Ramp, 1).steps(), [0]);
        assert_eq!(load(Case::Ramp, 11).step_duration(), Duration::from_millis(100));
        assert_eq!(load(Case::Steady, 11).steps(), [10]);
        assert_eq!(load(Case::Steady, 11).step_duration(), Duration::from_millis(1100));
    }

    #[test]
    fn a_service_elsewhere_is_refused_unless_somebody_vouches_for_it() {
        let here = load(Case::Lifecycle, 1);
        assert!(here.check().is_ok());
        let there = Load { target: "10.0.0.1:2181".to_owned(), ..here };
        assert!(there.check().is_err());
        assert!(Load { i_own_this_service: true, ..there }.check().is_ok());
    }

    #[test]
    fn what_no_client_of_ours_would_order_is_refused() {
        let good = load(Case::Ramp, 11);
        assert!(good.deal(4).iter().all(|share| share.check().is_ok()));
        for bad in [
            Load { clients: 0, ..good.clone() },
            Load { clients: u32::MAX, ..good.clone() },
            Load { znodes: 0, ..good.clone() },
            Load { modify: 11, ..good.clone() },
            Load { data_size: usize::MAX, ..good.clone() },
            Load { duration_ms: u64::MAX, ..good.clone() },
            Load { rate: 0.0, ..good.clone() },
            Load { rate: f64::NAN, ..good.clone() },
            Load { read_ratio: 1.5, ..good.clone() },
            Load { session_timeout_ms: 0, ..good.clone() },
            Load { target: "nowhere".to_owned(), ..good.clone() },
        ] {
            assert!(bad.check().is_err(), "{bad:?}");
        }
        for clients in [vec![11], (0..11).cycle().take(500).collect()] {
            assert!(Share { load: good.clone(), clients }.check().is_err());
        }
    }
}
