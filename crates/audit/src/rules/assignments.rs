//! What is in whose list: the rules `one-holder`, `misfit` and `too-soon`.

use std::collections::BTreeSet;

use tree::{Assignment, TaskState, WORKERS, WorkerRecord};
use znode::paths;

use super::{Rules, Step};
use crate::log::Record;
use crate::replay::{Effect, Znode};
use crate::verdict::SpanEnd;

/// How far a leader's idea of ZooKeeper's clock may be from that clock.
const CLOCKS_MS: i64 = 1_000;

impl Rules {
    pub(super) fn worker_changed(&mut self, name: &str, effect: &Effect, step: &mut Step, record: &Record) {
        let node = self.tree.get(effect.path());
        let worker = node.and_then(|node| WorkerRecord::from_json(&node.data).ok());
        let entries = worker.as_ref().map(|worker| worker.assignments().0).unwrap_or_default();
        let list: BTreeSet<Assignment> = entries.iter().cloned().collect();
        match effect {
            Effect::Created(_) if !list.is_empty() => {
                self.broken("one-leader", format!("{name} registered with assignments of its own"), record);
            }
            Effect::Set(_, before) => self.worker_keeps_its_record(name, before, worker.as_ref(), record),
            Effect::Created(_) | Effect::Deleted(..) => {}
        }
        let before = self.lists.remove(name).unwrap_or_default();
        self.drop_entries(name, before.difference(&list), effect, record);
        for new in list.difference(&before) {
            self.figures.assignments += 1;
            self.holders.entry(new.clone()).or_default().insert(name.to_owned());
            self.timeline.assigned(name, new, record.txn.time_ms);
            self.may_be_assigned(new, record);
            if let Some(worker) = &worker {
                self.is_fit(name, worker, new, record);
            }
            step.assigned.push(new.clone());
        }
        if entries.len() > list.len() {
            let mut seen = BTreeSet::new();
            let twice = entries.iter().filter(|entry| !seen.insert(*entry) && !before.contains(entry));
            for entry in twice.collect::<BTreeSet<_>>() {
                self.broken("one-holder", format!("{entry} is in the list of {name} twice"), record);
            }
        }
        if !matches!(effect, Effect::Deleted(..)) {
            self.lists.insert(name.to_owned(), list);
        }
    }

    fn drop_entries<'e>(
        &mut self,
        name: &str,
        entries: impl Iterator<Item = &'e Assignment>,
        effect: &Effect,
        record: &Record,
    ) {
        let lost = matches!(effect, Effect::Deleted(..));
        let end = if lost { SpanEnd::Lost } else { SpanEnd::Withdrawn };
        for entry in entries {
            self.timeline.over(name, entry, record.txn.time_ms, end);
            if let Some(holders) = self.holders.get_mut(entry) {
                holders.remove(name);
                if holders.is_empty() {
                    self.holders.remove(entry);
                }
            }
            if lost && self.is_current(entry) {
                self.lost.insert(entry.clone());
            }
        }
    }

    /// Whether the entry is not over: its task is there, at its version.
    fn is_current(&self, entry: &Assignment) -> bool {
        self.tree.get(&entry.task.path()).is_some_and(|node| node.version == entry.version)
    }

    /// `record`: of a worker only the list changes.
    fn worker_keeps_its_record(&mut self, name: &str, before: &Znode, now: Option<&WorkerRecord>, record: &Record) {
        let Ok(was) = WorkerRecord::from_json(&before.data) else { return };
        let what = match now {
            None => "is none any more",
            Some(now) if (now.slots, &now.kinds, &now.tags) != (was.slots, &was.kinds, &was.tags) => {
                "says other slots, kinds or tags than when it registered"
            }
            Some(now) if !super::jobs::keeps(&was.other, &now.other) => "lost a field that somebody else had written",
            Some(_) => return,
        };
        self.broken("record", format!("the record of worker {name} {what}"), record);
    }

    /// `misfit`: a worker is given what it can run.
    fn is_fit(&mut self, name: &str, worker: &WorkerRecord, entry: &Assignment, record: &Record) {
        let Some(job) = self.job_record(&entry.task.job) else { return };
        let lacks = if !worker.kinds.contains(&job.kind) {
            format!("does not run kind '{}'", job.kind)
        } else if let Some(tag) = job.policy.require.iter().find(|tag| !worker.tags.contains(tag)) {
            format!("has no tag '{tag}'")
        } else {
            return;
        };
        self.broken("misfit", format!("{entry} was assigned to {name}, which {lacks}"), record);
    }

    /// `too-soon`: what is assigned may be.
    fn may_be_assigned(&mut self, entry: &Assignment, record: &Record) {
        let Some(job) = self.job_record(&entry.task.job) else { return };
        let node = self.tree.get(&entry.task.path()).filter(|node| node.version == entry.version);
        let state = node.and_then(|node| TaskState::from_json(&node.data).ok()).unwrap_or_default();
        // Nobody need wait longer than that, whatever the clock was by which the moment was written; and where it was set back
        // since, when the wait began is not known.
        let set_ms = node.map(|node| node.set_ms).filter(|set_ms| *set_ms <= record.txn.time_ms + CLOCKS_MS);
        let latest = set_ms.map(|set_ms| set_ms.saturating_add(job.policy.longest_wait_ms()));
        let wait = state.not_before_ms.and_then(|at| Some(at.min(latest?)));
        let moment = job.policy.not_before_ms.max(wait);
        let reason = if let Some(after) = job.after.first() {
            format!("its job waits for {after}")
        } else if moment.is_some_and(|at| at > record.txn.time_ms + CLOCKS_MS) {
            "it was to wait for a moment that had not come".to_owned()
        } else if state.dead {
            "it is dead".to_owned()
        } else {
            return;
        };
        self.broken("too-soon", format!("{entry} was assigned, but {reason}"), record);
    }

    /// `one-holder`: looks whether what was assigned is in another live worker's list too.
    pub(super) fn one_holder(&mut self, step: &Step, record: &Record) {
        for entry in BTreeSet::from_iter(&step.assigned) {
            let Some(holders) = self.holders.get(entry).filter(|holders| holders.len() > 1) else { continue };
            if self.is_current(entry) {
                let names = Vec::from_iter(holders.clone()).join(" and ");
                self.broken("one-holder", format!("{entry} is assigned to {names}"), record);
            }
        }
    }

    /// The owner of a worker's znode.
    pub(super) fn owner_of(&self, worker: &str) -> Option<i64> {
        self.tree.get(&paths::join(WORKERS, worker)).map(|node| node.owner)
    }
}
