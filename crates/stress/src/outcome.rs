//! What load generators return, and the whole that is made of it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Case, Figures, Load, Operation, Tally, Timeline};

/// What one simulated client measured, at each step; a lifecycle is one step.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ClientTally {
    /// Its number.
    pub client: u32,
    /// What it measured.
    pub steps: Vec<Tally>,
}

/// The same in figures: histograms of each client would not fit into an outcome.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ClientFigures {
    /// Its number.
    pub client: u32,
    /// What it measured, at each step.
    pub steps: Vec<BTreeMap<Operation, Figures>>,
}

/// What a load generator returns.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// By client.
    pub clients: Vec<ClientFigures>,
    /// All its clients together, at each step.
    pub steps: Vec<Parts>,
    /// Over time: the probe's operations, or those of a lifecycle.
    pub timeline: Timeline,
}

/// Who measured what at a step.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Parts {
    /// Those who make load; of a lifecycle, all.
    pub load: Tally,
    /// The probe, where there is one.
    pub probe: Tally,
}

impl Outcome {
    /// Of the clients of one generator.
    pub fn of(load: &Load, clients: &[ClientTally], timeline: Timeline) -> Self {
        let mut steps = vec![Parts::default(); load.steps().len().max(1)];
        for client in clients {
            for (step, tally) in steps.iter_mut().zip(&client.steps) {
                step.of(load, client.client).merge(tally);
            }
        }
        let figures = |tally: &Tally| tally.iter().map(|(operation, m)| (operation, m.figures())).collect();
        let clients = clients.iter().map(|ClientTally { client, steps }| ClientFigures {
            client: *client,
            steps: steps.iter().map(figures).collect(),
        });
        Outcome { clients: clients.collect(), steps, timeline }
    }

    /// As JSON of at most so many bytes: with latencies to two digits where three do not fit, and then with longer intervals.
    pub fn to_json(mut self, bytes_max: usize) -> Value {
        for round in 0..16 {
            let value = serde_json::to_value(&self).unwrap_or_default();
            if value.to_string().len() <= bytes_max {
                return value;
            }
            if round == 0 {
                self.steps.iter_mut().for_each(Parts::coarsen);
            } else {
                self.timeline.double();
            }
        }
        serde_json::to_value(&self).unwrap_or_default()
    }
}

impl Parts {
    fn of(&mut self, load: &Load, client: u32) -> &mut Tally {
        if load.is_probe(client) { &mut self.probe } else { &mut self.load }
    }

    fn coarsen(&mut self) {
        self.load.coarsen();
        self.probe.coarsen();
    }

    fn merge(&mut self, other: &Parts) {
        self.load.merge(&other.load);
        self.probe.merge(&other.probe);
    }
}

/// A valid run: every generator was there from the first call to the last, and every client measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// What was to be done.
    pub load: Load,
    /// The job that did it.
    pub job: String,
    /// What each client measured, and on which worker, by its number.
    pub clients: BTreeMap<u32, (String, ClientFigures)>,
    /// The steps.
    pub steps: Vec<Step>,
    /// Latencies over time: of the probe, or of a lifecycle.
    pub timeline: Timeline,
}

/// All clients together, at one step.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Step {
    /// How many clients made load.
    pub clients: u32,
    /// How many operations a second they were to begin, where they had a pace.
    pub offered: Option<f64>,
    /// What they measured.
    pub measured: Parts,
}

impl Run {
    /// Puts together what the generators returned, each with the worker that it was on.
    ///
    /// Errors: a client is missing or counted twice, or did not do what it was to do: then nothing of it is worth a figure.
    pub fn of(load: Load, job: String, outcomes: Vec<(String, Outcome)>) -> Result<Run, String> {
        let paced = |n: u32| Step { clients: n, offered: Some(f64::from(n) * load.rate), ..Step::default() };
        let mut steps: Vec<Step> = load.steps().into_iter().map(paced).collect();
        if load.case == Case::Lifecycle {
            steps.push(Step { clients: load.clients, ..Step::default() });
        }
        let (mut clients, mut timeline) = (BTreeMap::new(), Timeline::default());
        for (worker, outcome) in outcomes {
            timeline.merge(outcome.timeline);
            if outcome.steps.len() != steps.len() {
                return Err(format!("{worker} knows {} steps of {}", outcome.steps.len(), steps.len()));
            }
            for (step, parts) in steps.iter_mut().zip(&outcome.steps) {
                step.measured.merge(parts);
            }
            for figures in outcome.clients {
                let client = figures.client;
                if figures.steps.len() != steps.len() {
                    return Err(format!("client {client} knows {} steps of {}", figures.steps.len(), steps.len()));
                }
                if load.case == Case::Lifecycle {
                    complete(&load, &figures)?;
                }
                if clients.insert(client, (worker.clone(), figures)).is_some() {
                    return Err(format!("client {client} measured twice"));
                }
            }
        }
        if let Some(missing) = (0..load.clients).find(|client| !clients.contains_key(client)) {
            return Err(format!("client {missing} measured nothing"));
        }
        if clients.len() != load.clients as usize {
            return Err(format!("{} clients measured, and not {}", clients.len(), load.clients));
        }
        Ok(Run { load, job, clients, steps, timeline })
    }
}

/// A lifecycle has exactly so many operations of each kind.
fn complete(load: &Load, figures: &ClientFigures) -> Result<(), String> {
    let (znodes, modify) = (u64::from(load.znodes), u64::from(load.modify));
    for (operation, due) in [
        (Operation::Connect, 1),
        (Operation::Create, znodes),
        (Operation::Read, znodes),
        (Operation::Modify, modify),
        (Operation::Watch, modify),
    ] {
        let count = figures.steps[0].get(&operation).map_or(0, |figures| figures.count);
        if count != due {
            let client = figures.client;
            return Err(format!("client {client} measured {count} of {due} operations '{operation}'"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;
    use crate::ZNODE_BYTES_MAX;

    fn load() -> Load {
        Load {
            target: "127.0.0.1:2181".to_owned(),
            case: Case::Lifecycle,
            clients: 2,
            znodes: 3,
            modify: 1,
            data_size: 6,
            duration_ms: 1000,
            rate: 10.0,
            read_ratio: 0.5,
            seed: 0,
            session_timeout_ms: 10_000,
            root: "/x".to_owned(),
            i_own_this_service: false,
        }
    }

    fn measured(client: u32, creates: u32) -> Outcome {
        let mut tally = Tally::default();
        let mut record = |operation, times: u32| {
            (0..times).for_each(|n| tally.record(operation, Duration::from_micros(1), Duration::from_millis(n.into())));
        };
        record(Operation::Connect, 1);
        record(Operation::Create, creates);
        record(Operation::Read, 3);
        record(Operation::Modify, 1);
        record(Operation::Watch, 1);
        Outcome::of(&load(), &[ClientTally { client, steps: vec![tally] }], Timeline::default())
    }

    fn run(outcomes: Vec<Outcome>) -> Result<Run, String> {
        let outcomes = outcomes.into_iter().map(|outcome| ("w".to_owned(), outcome)).collect();
        Run::of(load(), "job".to_owned(), outcomes)
    }

    #[test]
    fn a_run_adds_up_what_its_clients_measured() {
        let run = run(vec![measured(1, 3), measured(0, 3)]).expect("complete");
        let counts: Vec<_> = run.steps[0].measured.load.iter().map(|(_, measured)| measured.count()).collect();
        assert_eq!(counts, [2, 6, 6, 2, 2]);
    }

    #[test]
    fn a_run_that_lacks_a_client_or_an_operation_has_no_figures() {
        assert!(run(vec![measured(0, 3)]).is_err(), "one is missing");
        assert!(run(vec![measured(0, 3), measured(0, 3)]).is_err(), "one came twice");
        assert!(run(vec![measured(0, 3), measured(1, 3), measured(2, 3)]).is_err(), "one too many");
        assert!(run(vec![measured(0, 3), measured(1, 2)]).is_err(), "a create is missing");
        assert!(run(vec![measured(0, 4), measured(1, 2)]).is_err(), "another's create does not make up for it");
    }

    #[test]
    fn the_most_that_a_generator_can_have_measured_fits_into_an_outcome() {
        let load = Load { case: Case::Ramp, clients: 1000, ..load() };
        let steps = load.steps().len();
        let mut rng = StdRng::seed_from_u64(1);
        let mut latency = || Duration::from_secs_f64(10_f64.powf(rng.random_range(-4.3..1.0)));
        let (mut clients, mut timeline) = (Vec::new(), Timeline::default());
        for client in 0..load.clients_max() {
            let mut tallies = vec![Tally::default(); steps];
            for n in 0..(steps as u64 * 500) {
                let (ended, step) = (Duration::from_millis(n * 20), n as usize / 500);
                for operation in
                    [Operation::Create, Operation::Read, Operation::Modify, Operation::Watch, Operation::Delete]
                {
                    if client == 0 || matches!(operation, Operation::Read | Operation::Modify) {
                        tallies[step].record(operation, latency(), ended);
                    }
                    if client < 10 {
                        timeline.record(operation, latency(), ended);
                    }
                }
            }
            clients.push(ClientTally { client, steps: tallies });
        }
        let outcome = Outcome::of(&load, &clients, timeline);
        let whole = serde_json::to_string(&outcome).expect("JSON");
        assert!(whole.len() > ZNODE_BYTES_MAX, "{} bytes: nothing is tested", whole.len());
        let value = outcome.clone().to_json(ZNODE_BYTES_MAX);
        assert!(value.to_string().len() <= ZNODE_BYTES_MAX, "{} bytes", value.to_string().len());
        let read: Outcome = serde_json::from_value(value).expect("an outcome");
        assert_eq!(read.clients, outcome.clients, "figures are those of the finer histograms");
        let at = |outcome: &Outcome| outcome.steps[3].load.get(Operation::Read).map(|m| (m.count(), m.at(0.99) as f64));
        let (coarse, fine) = (at(&read).expect("measured"), at(&outcome).expect("measured"));
        assert_eq!(coarse.0, fine.0);
        assert!((coarse.1 / fine.1 - 1.0).abs() < 0.02, "{coarse:?} {fine:?}");
    }
}
