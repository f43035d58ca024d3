//! The model of the user: what it has submitted and was told, and what it must be told.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::tree::{Tree, Znode};
use super::{Checked, Told};
use crate::decide::submission::Refused;

/// What the user knows of a task that it has submitted.
#[derive(Debug, Clone, Default)]
pub(super) struct Known {
    /// Its number; none once it was refused.
    n: Option<u32>,
    /// Whether it was acknowledged, or refused.
    answered: Option<bool>,
    /// The last death it was told of.
    death: u32,
    /// After how many deaths the submitter saw it alive last. Where it is retried and dies faster than the mirror reads, some
    /// deaths are not told.
    pub(super) seen_alive_after: u32,
    outcome: Option<Told>,
    pub(super) taken: bool,
}

#[derive(Debug, Default)]
pub(super) struct User {
    pub(super) tasks: Vec<Known>,
    /// What it was told and has not dealt with yet; whether it is an outcome.
    pub(super) deliveries: VecDeque<(u32, bool)>,
    pub(super) left: bool,
    pub(super) seal_asked: bool,
    pub(super) seal_told: bool,
}

impl User {
    /// A new task, with this number; returns its payload, which no other has.
    pub(super) fn submit(&mut self, n: u32) -> Vec<u8> {
        let payload = u32::try_from(self.tasks.len()).expect("few").to_be_bytes().to_vec();
        self.tasks.push(Known { n: Some(n), ..Known::default() });
        payload
    }

    /// The one task that has this number, and was not refused.
    pub(super) fn task(&mut self, n: u32) -> Result<&mut Known, TestCaseError> {
        let mut known = self.tasks.iter_mut().filter(|known| known.n == Some(n));
        let first = known.next().ok_or_else(|| TestCaseError::fail(format!("nobody submitted {n}")))?;
        prop_assert!(known.next().is_none(), "two tasks have the number {}", n);
        Ok(first)
    }

    pub(super) fn is_submitting(&mut self, n: u32) -> Checked {
        prop_assert_eq!(self.task(n)?.answered, None);
        Ok(())
    }

    pub(super) fn acknowledged(&mut self, n: u32, tree: &Tree) -> Checked {
        prop_assert!(tree.created.contains_key(&n), "{} is acknowledged, and was never there", n);
        prop_assert_eq!(self.task(n)?.answered.replace(true), None);
        Ok(())
    }

    pub(super) fn refused(&mut self, n: u32, why: &Refused, tree: &Tree) -> Checked {
        // Whoever sealed the job may have removed it before anybody knew that it was there.
        let removed = tree.sealed && tree.collected_by_somebody.contains(&n);
        prop_assert!(removed || !tree.created.contains_key(&n), "{} is refused, and is there", n);
        prop_assert!(tree.sealed || self.seal_asked || matches!(why, Refused::By(_)));
        let known = self.task(n)?;
        prop_assert_eq!(known.answered.replace(false), None);
        known.n = None;
        Ok(())
    }

    pub(super) fn delivered(&mut self, n: u32, told: Told, tree: &Tree) -> Checked {
        match told {
            Told::Outcome(outcome) => prop_assert_eq!(tree.outcomes.get(&n), Some(&outcome)),
            Told::NothingLeft => prop_assert!(tree.collected_by_somebody.contains(&n)),
            Told::Dead(_) => prop_assert!(false, "a death is no outcome"),
        }
        let known = self.task(n)?;
        prop_assert_eq!(known.answered, Some(true));
        prop_assert_eq!(known.outcome.replace(told), None);
        self.deliveries.push_back((n, true));
        Ok(())
    }

    pub(super) fn told_dead(&mut self, n: u32, told: Told) -> Checked {
        let known = self.task(n)?;
        prop_assert_eq!((known.answered, known.outcome), (Some(true), None));
        let Told::Dead(death) = told else { return Err(TestCaseError::fail("an outcome is no death")) };
        prop_assert!(death > known.death, "{} is told twice that it is dead", n);
        known.death = death;
        self.deliveries.push_back((n, false));
        Ok(())
    }

    /// The job is to be sealed, with so many tasks.
    pub(super) fn check_count(&self, tasks: u32) -> Checked {
        prop_assert!(self.tasks.iter().all(|known| known.answered.is_some()), "sealed too early");
        let acknowledged = self.tasks.iter().filter(|known| known.answered == Some(true)).count();
        prop_assert_eq!(tasks as usize, acknowledged);
        Ok(())
    }

    /// The submitter ends by itself.
    pub(super) fn check_end(&self, tree: &Tree) -> Checked {
        prop_assert!(tree.sealed && (!self.seal_asked || self.seal_told));
        prop_assert!(self.tasks.iter().all(|known| known.answered.is_some()), "an answer is missing");
        if let Some(count) = tree.count {
            self.check_count(count)?;
            prop_assert_eq!(count as usize, tree.created.len());
        }
        for known in self.tasks.iter().filter(|known| known.answered == Some(true) && !self.left) {
            prop_assert!(known.outcome.is_some() || known.death > 0, "{:?} was never delivered", known);
        }
        Ok(())
    }

    /// The submitter says that the job is gone before its time.
    pub(super) fn check_no_job(&self, tree: &Tree) -> Checked {
        prop_assert!(tree.closed);
        let taken = self.tasks.iter().all(|known| known.answered == Some(false) || known.taken);
        prop_assert!(!taken || !self.seal_told, "the user has had everything");
        Ok(())
    }

    /// Everything has been heard of: the user knows how each task is.
    pub(super) fn check_all_is_told(&self, tree: &Tree) -> Checked {
        for known in self.tasks.iter().filter(|known| known.answered != Some(false)) {
            let n = known.n.expect("it is not refused");
            prop_assert_eq!(known.answered, Some(true), "of {}", n);
            match tree.znodes.get(&n) {
                Some(Znode { dead: true, deaths }) => {
                    prop_assert!(known.death > known.seen_alive_after, "nobody was told of {} deaths of {}", deaths, n);
                }
                Some(Znode { dead: false, .. }) => prop_assert_eq!(known.outcome, None),
                None => prop_assert!(known.outcome.is_some(), "nobody was told of the outcome of {}", n),
            }
        }
        Ok(())
    }
}
