//! One scenario's folder, as `scenarios/run --keep` leaves it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use audit::{Ending, Verdict, audit};

/// A scenario that was run.
#[derive(Debug)]
pub struct Case {
    /// Its script's name.
    pub name: String,
    /// The first line of its script: clients/workers/masters, and what breaks.
    pub title: String,
    /// What it checked, a line each.
    pub checks: Vec<String>,
    /// Whether one of its checks failed.
    pub failed: bool,
    /// From the signal to the next assignment, where the scenario measures that.
    pub takeover_ms: Option<i64>,
    /// How many ZooKeeper servers it ran on.
    pub servers: usize,
    /// What it broke.
    pub faults: Vec<Fault>,
    /// How often a task was begun, by the second witness; `None` where its tasks leave no traces.
    pub executions: Option<usize>,
    /// The rule that the scenario itself broke by hand, once; the auditor must have named it.
    pub planted: Option<String>,
    /// The auditor's judgement.
    pub verdict: Verdict,
}

/// Something that a scenario broke or mended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// In milliseconds since 1970.
    pub at_ms: i64,
    /// Process, line or server.
    pub target: String,
    /// A signal, or what was done.
    pub what: String,
}

impl Case {
    /// Reads what `scenarios/run --keep` left in `folder`, of the script `name` in `scenarios`.
    pub fn read(folder: &Path, name: &str, scenarios: &Path) -> anyhow::Result<Case> {
        let text = |file: &str| fs::read_to_string(folder.join(file)).unwrap_or_default();
        let script =
            fs::read_to_string(scenarios.join(format!("{name}.sh"))).with_context(|| format!("scenario {name}"))?;
        let title = script.lines().next().unwrap_or_default().trim_start_matches("# ").to_owned();
        let verdicts = text("verdict");
        let mut data: Vec<PathBuf> = (1..=9).map(|n| folder.join(format!("zookeeper/{n}/data"))).collect();
        data.retain(|path| path.is_dir());
        let folders: Vec<&Path> = data.iter().map(PathBuf::as_path).collect();
        let verdict = audit(&folders, "", Ending::Settled).with_context(|| format!("the logs of scenario {name}"))?;
        let fault = |line: &str| {
            let mut fields = line.split('\t');
            let (at_ms, target, what) = (fields.next()?.parse().ok()?, fields.next()?, fields.next()?);
            Some(Fault { at_ms, target: target.to_owned(), what: what.to_owned() })
        };
        let witness = text("witness");
        let begun = witness.lines().filter(|line| line.starts_with("begin")).count();
        Ok(Case {
            name: name.to_owned(),
            title,
            checks: verdicts.lines().map(|line| line.trim().to_owned()).collect(),
            failed: verdicts.contains("FAILED"),
            takeover_ms: text("fact.takeover_ms").trim().parse().ok(),
            servers: data.len(),
            faults: text("faults").lines().filter_map(fault).collect(),
            executions: (!witness.is_empty()).then_some(begun),
            planted: fs::read_to_string(folder.join("fact.planted")).ok().map(|rule| rule.trim().to_owned()),
            verdict,
        })
    }

    /// Whether every rule was kept, but for the one that was broken by hand.
    pub fn is_valid(&self) -> bool {
        match &self.planted {
            None => self.verdict.verdict == "valid",
            Some(rule) => {
                let named: Vec<&str> = self.verdict.violations.iter().map(|violation| violation.rule).collect();
                named == [rule] && self.verdict.doubts.is_empty()
            }
        }
    }

    /// When the herd's first znode came, in milliseconds since 1970.
    pub fn began_ms(&self) -> i64 {
        self.verdict.lives.iter().map(|life| life.from_ms).min().unwrap_or_default()
    }

    /// When its last one went.
    pub fn ended_ms(&self) -> i64 {
        self.verdict.lives.iter().map(|life| life.to_ms).max().unwrap_or_default()
    }
}
