//! Who writes: whether a session acts as the leader, as a worker or as a client; and the rules `one-leader`,
//! `no-return` and `guard`.

use tree::{MASTER, WORKERS};
use znode::paths;

use super::place::Place;
use super::{Rules, Step};
use crate::log::Record;
use crate::replay::Effect;
use crate::txn::{Body, Op, Txn};

/// Who wrote a transaction, as the tree was right before it.
#[derive(Debug, Default)]
pub(super) struct Author {
    /// Whether it owns the lowest candidate.
    pub(super) leads: bool,
    /// Whether it checks that candidate before it writes.
    pub(super) checks_candidate: bool,
    /// The workers that it owns.
    pub(super) workers: Vec<String>,
    /// The one of these that it checks before it writes.
    pub(super) checked_worker: Option<String>,
    /// Whether it submits or attends jobs too.
    pub(super) is_client: bool,
}

impl Author {
    /// Whether it acts as the leader, where a leader and a worker could do what it does.
    pub(super) fn acts_as_leader(&self) -> bool {
        self.leads && (self.checks_candidate || self.workers.is_empty())
    }

    /// Whether it can only have acted as the leader.
    fn is_leader_alone(&self) -> bool {
        self.leads && self.workers.is_empty() && !self.is_client
    }

    /// Whether the worker of this name is its own, and the one that it acts for.
    pub(super) fn acts_for(&self, worker: &str) -> bool {
        match &self.checked_worker {
            Some(checked) => checked == worker,
            None => self.workers.iter().any(|own| own == worker),
        }
    }
}

impl Rules {
    /// Looks at the tree before the transaction.
    pub(super) fn author(&self, txn: &Txn) -> Author {
        let mut author = Author::default();
        if txn.applied().is_empty() || !self.members.contains(&txn.session) {
            return author; // a client's or a load's, which owns what it likes
        }
        author.is_client = self.clients.contains(&txn.session);
        author.leads = self.lowest().is_some_and(|(_, owner)| owner == txn.session);
        let own = self.tree.owned_by(txn.session).iter();
        author.workers = own.filter_map(|path| Some(paths::below(WORKERS, path)?.to_owned())).collect();
        for op in txn.applied() {
            let Op::Check(path) = op else { break }; // what heads the multi
            let Some(path) = self.tree.below(path) else { continue };
            if let Some(worker) = paths::below(WORKERS, &path)
                && author.workers.iter().any(|own| own == worker)
            {
                author.checked_worker = Some(worker.to_owned());
            } else if author.leads && self.lowest().is_some_and(|(name, _)| paths::join(MASTER, name) == path) {
                author.checks_candidate = true;
            }
        }
        author
    }

    /// The lowest candidate and its owner.
    pub(super) fn lowest(&self) -> Option<(&str, i64)> {
        self.candidates.first().map(|(_, name, owner)| (name.as_str(), *owner))
    }

    /// A candidate came or went. One without an owner would stay for ever; it is no candidate.
    pub(super) fn candidate_changed(&mut self, effect: &Effect, record: &Record) {
        let path = effect.path();
        let (owner, there) = match effect {
            Effect::Deleted(_, node) => (node.owner, false),
            Effect::Created(_) | Effect::Set(..) => (self.tree.get(path).map_or(0, |node| node.owner), true),
        };
        let name = paths::name(path).to_owned();
        let Some(number) = paths::sequence(&name).filter(|_| owner != 0) else { return };
        if there {
            self.candidates.insert((number, name, owner));
        } else {
            self.candidates.remove(&(number, name, owner));
        }
        let lowest = self.candidates.first().map(|(_, name, _)| name.as_str());
        self.timeline.lowest_is(lowest, record.txn.time_ms);
    }

    /// `one-leader`, `no-return`: lists are set by the session that leads.
    pub(super) fn assignments_are_the_leaders(&mut self, step: &mut Step, record: &Record) {
        if step.lists_set.is_empty() {
            return;
        }
        let session = record.txn.session;
        let lowest = self.candidates.first().map(|(_, name, _)| name.clone());
        match lowest {
            Some(candidate) if step.author.leads => {
                self.timeline.wrote(&candidate, record.txn.time_ms);
                self.led.insert(session, candidate);
                step.needs_candidate.get_or_insert_with(|| "assigned".to_owned());
            }
            lowest => {
                let lowest = lowest.map_or("there is none".to_owned(), |name| format!("the lowest is {name}"));
                self.broken("one-leader", format!("an assignment by a session that does not lead; {lowest}"), record);
                if let Some(former) = self.led.get(&session).cloned()
                    && self.timeline.leaders.last().is_some_and(|now| now.candidate != former && now.writes > 0)
                {
                    self.broken("no-return", format!("{former} wrote after its successor"), record);
                }
            }
        }
    }

    /// `guard`: whoever writes by right of a znode of its own checks it first.
    pub(super) fn is_guarded(&mut self, step: &mut Step, effects: &[(Place, Effect)], record: &Record) {
        let by_close = matches!(record.txn.body, Body::CloseSession(_));
        if step.author.is_leader_alone() && !by_close && step.needs_candidate.is_none() {
            let changed = effects.iter().find(|(place, effect)| {
                let own = matches!(effect, Effect::Deleted(_, node) if node.owner == record.txn.session);
                !own && *place != Place::Other && !matches!(effect, Effect::Created(_))
            });
            step.needs_candidate = changed.map(|(_, effect)| format!("changed {}", effect.path()));
        }
        if let Some(did) = step.needs_candidate.take().filter(|_| !step.author.checks_candidate) {
            self.broken("guard", format!("the leader {did} without the check of its own znode"), record);
        }
        if let Some(did) = step.needs_worker.take().filter(|_| step.author.checked_worker.is_none()) {
            self.broken("guard", format!("a worker {did} without the check of its own znode"), record);
        }
    }
}
