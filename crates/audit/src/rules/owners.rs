//! Whose a znode is: the rules `ephemeral` and `foreign`, row by row of the protocol's table of the tree.

use super::place::Place;
use super::{Rules, Step};
use crate::log::Record;
use crate::replay::Effect;

impl Rules {
    /// `ephemeral`: what ends with a session by the table does, and nothing else.
    pub(super) fn ends_as_it_should(&mut self, place: &Place, path: &str, record: &Record) {
        let Some(node) = self.tree.get(path) else { return };
        match (place.is_ephemeral(), node.owner != 0) {
            (Some(true), false) => self.broken("ephemeral", format!("{path} would outlive its session"), record),
            (Some(false), true) => self.broken("ephemeral", format!("{path} would end with its session"), record),
            _ => {}
        }
    }

    /// `foreign`: what belongs to a session is changed and deleted by that session, and a root by nobody.
    pub(super) fn is_ones_own(&mut self, place: &Place, effect: &Effect, step: &Step, record: &Record) {
        let session = record.txn.session;
        match (place, effect) {
            (
                Place::Root | Place::Candidate | Place::Client(_) | Place::Stored(_) | Place::Hold,
                Effect::Set(path, _),
            ) => {
                self.broken("foreign", format!("{path} was set, which nobody does"), record);
            }
            (Place::Point(_), Effect::Set(path, node)) if node.owner != session => {
                self.broken("foreign", format!("{path} was set by another session than its own"), record);
            }
            (Place::Root, Effect::Deleted(path, _)) => {
                self.broken("foreign", format!("the root {path} was deleted, which nobody does"), record);
            }
            (Place::Candidate | Place::Worker(_) | Place::Client(_) | Place::Point(_), Effect::Deleted(path, node))
                if node.owner != session && node.owner != 0 =>
            {
                let closed = match place {
                    Place::Client(job) => self.tree.get(&job.path()).is_none(),
                    Place::Point(job) => self.tree.get(&job.path()).is_none() || step.author.checks_candidate,
                    _ => false,
                };
                if !closed {
                    self.broken("foreign", format!("{path} was deleted by another session than its own"), record);
                }
            }
            _ => {}
        }
    }
}
