//! What came out of an audit.

use serde::Serialize;

/// The verdict that follows from these, in a word.
pub(super) fn judgement(violations: &[Violation], doubts: &[String]) -> &'static str {
    match (violations.is_empty(), doubts.is_empty()) {
        (false, _) => "invalid",
        (true, false) => "unknown",
        (true, true) => "valid",
    }
}

/// A rule of the protocol that was broken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// Which rule.
    pub rule: &'static str,
    /// What happened.
    pub what: String,
    /// In which transaction, as ZooKeeper writes it.
    pub zxid: String,
    /// By which session.
    pub session: String,
    /// In milliseconds since 1970.
    pub time_ms: i64,
    /// Where it stands in the logs: file and byte.
    pub line: String,
}

/// The judgement.
#[derive(Debug, Clone, Serialize)]
pub struct Verdict {
    /// "valid", "invalid" or "unknown".
    pub verdict: &'static str,
    /// Every rule that was broken, in order.
    pub violations: Vec<Violation>,
    /// Why it cannot be told whether every rule was kept.
    pub doubts: Vec<String>,
    /// What was counted.
    pub figures: Figures,
    /// Who led when, and how long each change took.
    pub leaders: Vec<Leader>,
    /// Every assignment, in the order of their ends.
    #[serde(skip)]
    pub spans: Vec<Span>,
    /// Every candidate, worker and job, in the order of their ends.
    #[serde(skip)]
    pub lives: Vec<Life>,
    /// When a guard refused somebody who had lost its place, in milliseconds since 1970.
    #[serde(skip)]
    pub fenced_ms: Vec<i64>,
}

/// A leader's time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Leader {
    /// Its znode's name.
    pub candidate: String,
    /// When it became the lowest, in milliseconds since 1970.
    pub from_ms: i64,
    /// When its znode went; `None` at the end of the log.
    pub until_ms: Option<i64>,
    /// When it first wrote an assignment.
    pub first_write_ms: Option<i64>,
    /// From the end of the leader before it to its first assignment. In an idle herd this is long without anybody's
    /// fault.
    pub takeover_ms: Option<i64>,
    /// How many transactions it assigned by.
    pub writes: usize,
}

/// How long a candidate, a worker or a job was in the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Life {
    /// The znode, without the chroot.
    pub path: String,
    /// When it was created, in milliseconds since 1970.
    pub from_ms: i64,
    /// When it was deleted, or when the log ends.
    pub to_ms: i64,
}

/// A task in a worker's list, from its assignment to its end there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// The worker's znode's name.
    pub worker: String,
    /// The task.
    pub task: String,
    /// When it was assigned, in milliseconds since 1970.
    pub from_ms: i64,
    /// When it ended there.
    pub to_ms: i64,
    /// How.
    pub end: SpanEnd,
}

/// How an assignment ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpanEnd {
    /// Its outcome was committed.
    Committed,
    /// The leader gave the task to somebody else, or it was cancelled, or its attempt ended without an outcome.
    Withdrawn,
    /// The worker's session ended.
    Lost,
    /// It had not ended when the log did.
    Open,
}

/// What was counted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Figures {
    /// Records in the log.
    pub transactions: usize,
    /// Sessions begun.
    pub sessions: usize,
    /// Times that the lowest candidate changed to another one.
    pub elections: usize,
    /// Jobs opened.
    pub jobs: usize,
    /// Tasks submitted.
    pub submitted: usize,
    /// Tasks done.
    pub done: usize,
    /// Tasks failed.
    pub failed: usize,
    /// Tasks cancelled, or removed before they had ended.
    pub cancelled: usize,
    /// Tasks aborted.
    pub aborted: usize,
    /// Tasks that wait or run at the end of the log.
    pub outstanding: usize,
    /// Of these, tasks that are dead.
    pub dead: usize,
    /// Attempts that ended without an outcome.
    pub lost_attempts: usize,
    /// Assignments made; a task that was assigned again counts again.
    pub assignments: usize,
    /// Transactions refused, for whatever reason.
    pub refused: usize,
    /// Of these, by a guard: their sender had lost its place.
    pub fenced: usize,
    /// Records that were never committed, in an ensemble.
    pub uncommitted: usize,
    /// Files that end in the middle of a record.
    pub torn: usize,
}

impl Figures {
    /// Tasks that have ended, however.
    pub fn ended(&self) -> usize {
        self.done + self.failed + self.cancelled + self.aborted
    }
}

/// How many cases of each broken rule the short text shows.
const CASES_SHOWN: usize = 3;

impl Verdict {
    /// As text for people, a page: of each broken rule how often it was, and the first three cases.
    pub fn text(&self) -> String {
        self.text_with(CASES_SHOWN)
    }

    /// The same with every case.
    pub fn text_in_full(&self) -> String {
        self.text_with(usize::MAX)
    }

    fn text_with(&self, cases_max: usize) -> String {
        let f = &self.figures;
        let mut text = format!("{}\n", self.verdict);
        for (rule, cases) in self.by_rule() {
            let times = if cases.len() == 1 { "once".to_owned() } else { format!("{} times", cases.len()) };
            text += &format!("  {rule}: {times}\n");
            for case in cases.iter().take(cases_max) {
                text += &format!(
                    "      {}\n          zxid {} by session {}, {}\n",
                    case.what, case.zxid, case.session, case.line
                );
            }
            if let more @ 1.. = cases.len().saturating_sub(cases_max) {
                text += &format!("      and {more} more (client audit --all)\n");
            }
        }
        for doubt in &self.doubts {
            text += &format!("  doubt: {doubt}\n");
        }
        text += &format!(
            "tasks         {} submitted: {} done, {} failed, {} cancelled, {} aborted, {} outstanding ({} dead)\n",
            f.submitted, f.done, f.failed, f.cancelled, f.aborted, f.outstanding, f.dead
        );
        text += &format!(
            "assignments   {}, and {} attempts that ended without an outcome\n",
            f.assignments, f.lost_attempts
        );
        text += &format!(
            "transactions  {} by {} sessions; {} refused, {} of them by a guard\n",
            f.transactions, f.sessions, f.refused, f.fenced
        );
        if f.uncommitted + f.torn > 0 {
            text += &format!("logs          {} torn at the end, {} records never committed\n", f.torn, f.uncommitted);
        }
        for leader in &self.leaders {
            let takeover = leader.takeover_ms.map(|ms| format!(", took over within {ms} ms")).unwrap_or_default();
            text += &format!("leader        {}: {} writes{takeover}\n", leader.candidate, leader.writes);
        }
        text
    }

    /// Takes out the violations that a test or a scenario caused on purpose, and returns how many these were.
    pub fn excuse(&mut self, is_meant: impl Fn(&Violation) -> bool) -> usize {
        let found = self.violations.len();
        self.violations.retain(|violation| !is_meant(violation));
        self.verdict = judgement(&self.violations, &self.doubts);
        found - self.violations.len()
    }

    /// Adds a reason, from outside of the log, why it cannot be told whether every rule was kept.
    pub fn doubt(&mut self, reason: String) {
        self.doubts.push(reason);
        self.verdict = judgement(&self.violations, &self.doubts);
    }

    /// The violations of each broken rule, in the order in which the rules were first broken.
    fn by_rule(&self) -> Vec<(&'static str, Vec<&Violation>)> {
        let mut rules: Vec<(&'static str, Vec<&Violation>)> = Vec::new();
        for violation in &self.violations {
            match rules.iter_mut().find(|(rule, _)| *rule == violation.rule) {
                Some((_, cases)) => cases.push(violation),
                None => rules.push((violation.rule, vec![violation])),
            }
        }
        rules
    }
}
