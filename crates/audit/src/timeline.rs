//! What happened when, told for the report and for chaos: who led, who was there, what was assigned to whom. Judges
//! nothing.

use std::collections::HashMap;

use tree::Assignment;

use super::verdict::{Leader, Life, Span, SpanEnd};

/// The story so far.
#[derive(Debug, Default)]
pub(super) struct Timeline {
    /// Who led, the last one last.
    pub(super) leaders: Vec<Leader>,
    /// How often the lowest candidate changed to another one.
    pub(super) elections: usize,
    /// Assignments that have ended.
    pub(super) spans: Vec<Span>,
    /// Candidates, workers and jobs that have gone.
    pub(super) lives: Vec<Life>,
    /// When each entry of a live list came.
    assigned_ms: HashMap<(String, Assignment), i64>,
    born_ms: HashMap<String, i64>,
}

impl Timeline {
    /// A candidate, a worker or a job came.
    pub(super) fn born(&mut self, path: &str, at_ms: i64) {
        self.born_ms.insert(path.to_owned(), at_ms);
    }

    /// It went.
    pub(super) fn gone(&mut self, path: &str, to_ms: i64) {
        if let Some(from_ms) = self.born_ms.remove(path) {
            self.lives.push(Life { path: path.to_owned(), from_ms, to_ms });
        }
    }

    /// An entry came into a worker's list.
    pub(super) fn assigned(&mut self, worker: &str, entry: &Assignment, at_ms: i64) {
        self.assigned_ms.insert((worker.to_owned(), entry.clone()), at_ms);
    }

    /// It is over there.
    pub(super) fn over(&mut self, worker: &str, entry: &Assignment, to_ms: i64, end: SpanEnd) {
        let key = (worker.to_owned(), entry.clone());
        let Some(from_ms) = self.assigned_ms.remove(&key) else { return };
        let (worker, task) = (key.0, entry.task.to_string());
        self.spans.push(Span { worker, task, from_ms, to_ms, end });
    }

    /// The lowest candidate is this one now, or there is none.
    pub(super) fn lowest_is(&mut self, candidate: Option<&str>, now_ms: i64) {
        if let Some(leader) = self.leaders.last_mut()
            && leader.until_ms.is_none()
            && candidate != Some(&leader.candidate)
        {
            leader.until_ms = Some(now_ms);
        }
        if let Some(candidate) = candidate
            && self.leaders.last().is_none_or(|leader| leader.candidate != candidate)
        {
            self.elections += 1;
            self.leaders.push(Leader {
                candidate: candidate.to_owned(),
                from_ms: now_ms,
                until_ms: None,
                first_write_ms: None,
                takeover_ms: None,
                writes: 0,
            });
        }
    }

    /// The leader wrote assignments.
    pub(super) fn wrote(&mut self, candidate: &str, now_ms: i64) {
        if let Some(leader) = self.leaders.last_mut().filter(|leader| leader.candidate == candidate) {
            leader.writes += 1;
            leader.first_write_ms.get_or_insert(now_ms);
        }
    }

    /// The log ends here.
    pub(super) fn end(&mut self, last_ms: i64) {
        for at in 1..self.leaders.len() {
            let before = self.leaders[at - 1].until_ms;
            let leader = &mut self.leaders[at];
            leader.takeover_ms = leader.first_write_ms.zip(before).map(|(write, end)| write - end);
        }
        for (worker, entry) in self.assigned_ms.keys().cloned().collect::<Vec<_>>() {
            self.over(&worker, &entry, last_ms, SpanEnd::Open);
        }
        for path in self.born_ms.keys().cloned().collect::<Vec<_>>() {
            self.gone(&path, last_ms);
        }
    }
}
