//! What load generators return, and the whole that is made of it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Case, Load, Operation, Tally, Timeline};

/// What one simulated client measured.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ClientTally {
    /// Its number.
    pub client: u32,
    /// What it measured at each step; a lifecycle is one step.
    pub steps: Vec<Tally>,
}

/// What a load generator returns.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// By client.
    pub clients: Vec<ClientTally>,
    /// All its clients together: the probe's operations, or those of a lifecycle.
    pub timeline: Timeline,
}

/// A valid run: every generator was there from the first call to the last, and every client measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// What was to be done.
    pub load: Load,
    /// The job that did it.
    pub job: String,
    /// What each client measured, and on which worker, by its number.
    pub clients: BTreeMap<u32, (String, ClientTally)>,
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
    pub load: Tally,
    /// What the probe measured, where there was one.
    pub probe: Tally,
}

impl Run {
    /// Puts together what the generators returned, each with the worker that it was on.
    ///
    /// Errors: a client is missing or counted twice, or did not do what it was to do: then nothing of it is worth a figure.
    pub fn of(load: Load, job: String, outcomes: Vec<(String, Outcome)>) -> Result<Run, String> {
        let (mut clients, mut timeline) = (BTreeMap::new(), Timeline::default());
        for (worker, outcome) in outcomes {
            timeline.merge(outcome.timeline);
            for tally in outcome.clients {
                let client = tally.client;
                if clients.insert(client, (worker.clone(), tally)).is_some() {
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
        let mut steps: Vec<Step> = match load.case {
            Case::Lifecycle => vec![Step { clients: load.clients, ..Step::default() }],
            Case::Ramp | Case::Steady => {
                let step = |n| Step { clients: n, offered: Some(f64::from(n) * load.rate), ..Step::default() };
                load.steps().into_iter().map(step).collect()
            }
        };
        for (client, (_, tally)) in &clients {
            if tally.steps.len() != steps.len() {
                return Err(format!("client {client} knows {} steps of {}", tally.steps.len(), steps.len()));
            }
            let is_probe = load.case != Case::Lifecycle && *client == 0;
            for (step, tally) in steps.iter_mut().zip(&tally.steps) {
                if is_probe { &mut step.probe } else { &mut step.load }.merge(tally);
            }
            if load.case == Case::Lifecycle {
                complete(&load, *client, &tally.steps[0])?;
            }
        }
        Ok(Run { load, job, clients, steps, timeline })
    }
}

/// A lifecycle has exactly so many operations of each kind.
fn complete(load: &Load, client: u32, tally: &Tally) -> Result<(), String> {
    let (znodes, modify) = (u64::from(load.znodes), u64::from(load.modify));
    for (operation, due) in [
        (Operation::Connect, 1),
        (Operation::Create, znodes),
        (Operation::Read, znodes),
        (Operation::Modify, modify),
        (Operation::Watch, modify),
    ] {
        let count = tally.get(operation).map_or(0, super::Measured::count);
        if count != due {
            return Err(format!("client {client} measured {count} of {due} operations '{operation}'"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

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
        Outcome { clients: vec![ClientTally { client, steps: vec![tally] }], timeline: Timeline::default() }
    }

    fn run(outcomes: Vec<Outcome>) -> Result<Run, String> {
        let outcomes = outcomes.into_iter().map(|outcome| ("w".to_owned(), outcome)).collect();
        Run::of(load(), "job".to_owned(), outcomes)
    }

    #[test]
    fn a_run_adds_up_what_its_clients_measured() {
        let run = run(vec![measured(1, 3), measured(0, 3)]).expect("complete");
        let counts: Vec<_> = run.steps[0].load.iter().map(|(_, measured)| measured.count()).collect();
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
}
