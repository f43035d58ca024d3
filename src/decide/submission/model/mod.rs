//! A submission against a model of the tree and of its user, in whatever order things happen: what must always hold.
//!
//! Between the submitter and the tree there are requests that were not applied yet, answers that have not come, events that the
//! mirror has not read, and what it has handed over. Any of them may come next, or be lost; sessions end; others work on the
//! tasks, seal the job and collect from it. After that nothing fails any more, and the job must end.
//!
//! The model allows more than ZooKeeper does, such as requests that overtake each other, and never less.

use std::collections::{HashMap, VecDeque};

use proptest::prelude::*;
use znode::Refusal;

use super::{Event, Operation, Seen, Submission};

mod actions;
mod tree;
mod user;

use actions::{Action, action, pick, pick_key};
use tree::{Request, Tree};
use user::User;

type Checked = Result<(), TestCaseError>;

/// What the user is told of a task's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    /// The outcome with this number, of all that there ever were.
    Outcome(u32),
    /// It is dead, for so many times now.
    Dead(u32),
    /// Somebody else has removed its outcome.
    NothingLeft,
}

/// An event of the watch.
#[derive(Debug, Clone, Copy)]
enum Raw {
    Changed(u32),
    Deleted(u32),
}

/// What the mirror hands over; and which tasks it shows alive, after how many deaths.
#[derive(Debug, Clone)]
struct HandedOver {
    event: Event<Told>,
    alive: Vec<(u32, u32)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Session {
    Serving,
    /// The rejoin has just begun.
    Joining,
    /// The record was set, or is sealed; the data is to be listed.
    Listing {
        sealed: bool,
    },
    Closing,
    /// The submitter has ended; whether the job was closed.
    Ended,
    /// It has ended with an error.
    Failed,
}

#[derive(Debug)]
struct World {
    submission: Submission<Told>,
    user: User,
    tree: Tree,
    session: Session,
    /// The record's version as the submitter knows it; `None` where it knows that it is sealed.
    guard: Option<i32>,
    requests: Vec<Request>,
    /// Those whose answers nobody waits for any more.
    late: Vec<Request>,
    answers: Vec<Event<Told>>,
    /// Whether the mirror hears of what changes.
    watched: bool,
    raw: VecDeque<Raw>,
    handed_over: VecDeque<HandedOver>,
}

impl World {
    fn new() -> Self {
        World {
            submission: Submission::new(),
            user: User::default(),
            tree: Tree::default(),
            session: Session::Serving,
            guard: Some(0),
            requests: Vec::new(),
            late: Vec::new(),
            answers: Vec::new(),
            watched: false,
            raw: VecDeque::new(),
            handed_over: VecDeque::new(),
        }
    }

    fn act(&mut self, action: &Action) -> Checked {
        if self.session == Session::Serving {
            self.act_on_session(action)?;
        }
        match *action {
            Action::ApplyLate(k) => {
                if let Some(request) = pick(&mut self.late, k) {
                    self.tree.apply(request)?;
                }
            }
            Action::Complete(k) => {
                if let Some(n) = pick_key(&self.tree.znodes, k) {
                    self.tree.end(n);
                    self.watch(Raw::Deleted(n));
                }
            }
            Action::Die(k) | Action::Retry(k) => {
                let dies = matches!(action, Action::Die(_));
                let n = pick_key(&self.tree.znodes, k).filter(|n| self.tree.znodes[n].dead != dies);
                if let Some(znode) = n.and_then(|n| self.tree.znodes.get_mut(&n)) {
                    (znode.dead, znode.deaths) = (dies, znode.deaths + u32::from(dies));
                    self.watch(Raw::Changed(n.expect("it was found")));
                }
            }
            Action::Mark => self.tree.version += 1,
            Action::SealBySomebody if !self.tree.sealed => self.tree.seal(),
            Action::CollectBySomebody(k) => {
                if let Some(n) = pick_key(&self.tree.data, k) {
                    self.tree.collect_by_somebody(n);
                }
            }
            Action::CloseBySomebody => {
                let closed = self.tree.close();
                if closed && self.watched {
                    self.hand_over(Event::JobGone, &[]);
                }
            }
            Action::Read => match self.raw.pop_front() {
                Some(Raw::Changed(n)) if self.tree.znodes.contains_key(&n) => {
                    self.hand_over(Event::Seen(n, self.tree.seen(n)), &[n]);
                }
                Some(Raw::Changed(n) | Raw::Deleted(n)) => self.hand_over(Event::Gone(n), &[]),
                None => {}
            },
            Action::LoseWatch => (self.watched, self.raw) = (false, VecDeque::new()),
            Action::SessionOver(applied) if !matches!(self.session, Session::Ended | Session::Failed) => {
                if self.session == Session::Closing && applied {
                    self.tree.close();
                }
                self.disconnect();
            }
            Action::Join => self.join()?,
            _ => {}
        }
        Ok(())
    }

    /// What happens only while the submitter listens.
    fn act_on_session(&mut self, action: &Action) -> Checked {
        match *action {
            Action::Submit => {
                let payload = self.user.submit(self.submission.next());
                self.step(Event::Submit(payload))
            }
            Action::Seal => {
                (self.user.seal_asked, self.user.seal_told) = (true, false);
                self.step(Event::Seal)
            }
            Action::Leave => {
                self.user.left = true;
                self.step(Event::Left)
            }
            Action::Take if !self.user.left => match self.user.deliveries.pop_front() {
                Some((n, true)) => {
                    self.user.task(n)?.taken = true;
                    self.step(Event::Taken(n))
                }
                Some((_, false)) | None => Ok(()),
            },
            Action::Apply(k) => {
                if let Some(request) = pick(&mut self.requests, k) {
                    self.answers.push(self.tree.apply(request)?);
                }
                Ok(())
            }
            Action::Lose(k, applied) => self.lose(k, applied),
            Action::Refuse(k) => {
                match pick(&mut self.requests, k) {
                    Some(Request::Submit { n, unanswered: false, .. }) => {
                        self.answers.push(Event::Refused(n, Refusal::Other("too long".to_owned())));
                    }
                    request => self.requests.extend(request),
                }
                Ok(())
            }
            Action::Answer(k) | Action::AnswerTwice(k) => {
                let answer = pick(&mut self.answers, k);
                let twice = matches!(action, Action::AnswerTwice(_)) && answer != Some(Event::SealRefused);
                answer.map_or(Ok(()), |answer| self.hear(answer, twice))
            }
            Action::Hear | Action::HearTwice => {
                let Some(HandedOver { event, alive }) = self.handed_over.pop_front() else { return Ok(()) };
                for (n, deaths) in alive {
                    // Of one that a late request has made nobody may know any more.
                    if let Ok(known) = self.user.task(n) {
                        known.seen_alive_after = deaths;
                    }
                }
                self.hear(event, matches!(action, Action::HearTwice))
            }
            Action::List => {
                (self.watched, self.raw) = (true, VecDeque::new());
                let there: Vec<u32> = self.tree.znodes.keys().copied().collect();
                let snapshot: HashMap<u32, Seen<Told>> = there.iter().map(|n| (*n, self.tree.seen(*n))).collect();
                self.hand_over(if self.tree.closed { Event::JobGone } else { Event::Snapshot(snapshot) }, &there);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn hear(&mut self, event: Event<Told>, twice: bool) -> Checked {
        self.step(event.clone())?;
        if twice && self.session == Session::Serving {
            self.step(event)?;
        }
        Ok(())
    }

    fn watch(&mut self, raw: Raw) {
        if self.watched {
            self.raw.push_back(raw);
        }
    }

    fn hand_over(&mut self, event: Event<Told>, there: &[u32]) {
        let alive = there.iter().map(|n| (*n, self.tree.znodes[n])).filter(|(_, znode)| !znode.dead);
        let alive = alive.map(|(n, znode)| (n, znode.deaths)).collect();
        self.handed_over.push_back(HandedOver { event, alive });
    }

    fn lose(&mut self, k: u8, applied: bool) -> Checked {
        let Some(mut request) = pick(&mut self.requests, k) else { return Ok(()) };
        if applied {
            self.tree.apply(request.clone())?;
        }
        match &mut request {
            Request::Submit { unanswered, .. } => {
                *unanswered = true;
                self.requests.push(request);
            }
            Request::Collect(..) => self.requests.push(request),
            Request::Seal { .. } => self.answers.push(Event::SealRefused),
            Request::Fetch(_) => self.disconnect(), // to rejoin on the same session
        }
        Ok(())
    }

    /// What was under way is forgotten, and has yet to come.
    fn disconnect(&mut self) {
        self.late.append(&mut self.requests);
        self.answers.clear();
        self.handed_over.clear();
        (self.watched, self.raw) = (false, VecDeque::new());
        self.session = Session::Joining;
    }

    fn join(&mut self) -> Checked {
        match self.session {
            Session::Joining if self.tree.closed => {
                self.session = Session::Serving;
                self.step(Event::JobGone)?;
            }
            Session::Joining => {
                let sealed = self.tree.sealed;
                self.tree.version += i32::from(!sealed);
                self.guard = (!sealed).then_some(self.tree.version);
                self.session = Session::Listing { sealed };
            }
            Session::Listing { sealed } => {
                self.session = Session::Serving;
                self.step(Event::Rejoined { sealed, stored: self.tree.data.keys().copied().collect() })?;
            }
            Session::Closing => {
                self.tree.close();
                self.session = Session::Ended;
            }
            Session::Serving | Session::Ended | Session::Failed => {}
        }
        Ok(())
    }

    fn step(&mut self, event: Event<Told>) -> Checked {
        for operation in self.submission.step(event) {
            if self.session != Session::Serving {
                break; // as the submitter does
            }
            self.carry_out(operation)?;
        }
        let ends = self.user.left && self.user.seal_told;
        prop_assert!(!ends || self.session != Session::Serving, "nobody waits for anything, and the job is served");
        Ok(())
    }

    fn carry_out(&mut self, operation: Operation<Told>) -> Checked {
        match operation {
            Operation::Submit(n, payload) => {
                self.user.is_submitting(n)?;
                prop_assert!(self.guard.is_some(), "something is submitted to a job that is sealed");
                self.requests.push(Request::Submit { n, payload, version: self.guard, unanswered: false });
            }
            Operation::Fetch(n) => self.requests.push(Request::Fetch(n)),
            Operation::Collect(n, version) => {
                prop_assert!(self.user.task(n)?.taken, "the outcome of {} is removed, and nobody has it", n);
                self.requests.push(Request::Collect(n, version));
            }
            Operation::Seal(tasks) => {
                self.user.check_count(tasks)?;
                self.requests.push(Request::Seal { tasks, version: self.guard });
            }
            Operation::Rejoin => self.disconnect(),
            Operation::Close => {
                prop_assert!(self.tree.znodes.is_empty() && self.tree.data.is_empty(), "something is left");
                self.user.check_end(&self.tree)?;
                self.session = Session::Closing;
            }
            Operation::End => {
                self.user.check_end(&self.tree)?;
                self.session = Session::Ended;
            }
            Operation::NoJob => {
                self.user.check_no_job(&self.tree)?;
                self.session = Session::Failed;
            }
            Operation::Acknowledge(n) => {
                let under_way = |request: &Request| matches!(request, Request::Submit { n: other, .. } if *other == n);
                prop_assert!(!self.requests.iter().any(under_way), "{} is acknowledged before its answer", n);
                self.user.acknowledged(n, &self.tree)?;
            }
            Operation::Refuse(n, why) => self.user.refused(n, &why, &self.tree)?,
            Operation::Deliver(n, told) => self.user.delivered(n, told, &self.tree)?,
            Operation::TellDead(n, told) => self.user.told_dead(n, told)?,
            Operation::Sealed => {
                prop_assert!(self.tree.sealed);
                self.user.seal_told = true;
            }
        }
        Ok(())
    }

    /// Nothing fails any more: what is under way comes, in some order, tasks end, the user takes what it is told, and in the end
    /// it seals. Then the job ends.
    fn end_fairly(&mut self, mut random: u64) -> Checked {
        let (restless, dead_stay) = (200, random.is_multiple_of(2)); // for so long some die, and are retried
        for round in 0..2_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let [which, k, ..] = random.to_be_bytes();
            let under_way = self.requests.len() + self.answers.len() + self.raw.len() + self.handed_over.len();
            match self.session {
                Session::Ended | Session::Failed => return Ok(()),
                Session::Joining | Session::Listing { .. } | Session::Closing => self.join()?,
                Session::Serving if !self.watched => self.act(&Action::List)?,
                Session::Serving if under_way == 0 && (self.user.left || self.user.deliveries.is_empty()) => {
                    self.user.check_all_is_told(&self.tree)?;
                    if round > restless && !self.user.seal_asked {
                        self.act(&Action::Seal)?;
                    }
                }
                Session::Serving => {}
            }
            self.act(&match which % 8 {
                0 | 1 => Action::Apply(k),
                2 | 3 => Action::Answer(k),
                4 => Action::Read,
                5 => Action::Hear,
                6 => Action::Take,
                _ if round < restless && k >= 192 => Action::Die(k),
                _ if round < restless && k >= 128 => Action::Retry(k),
                _ => match pick_key(&self.tree.znodes, k) {
                    Some(n) if self.tree.znodes[&n].dead && dead_stay => continue,
                    _ => Action::Complete(k),
                },
            })?;
        }
        Err(TestCaseError::fail("the job does not come to its end"))
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8_000, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_each_task_is_answered_once_made_once_and_told_once_and_the_job_ends(
        actions in prop::collection::vec((any::<u8>(), 0..8_u8).prop_map(action), 0..150),
        random in any::<u64>(),
    ) {
        let mut world = World::new();
        for action in &actions {
            world.act(action)?;
        }
        world.end_fairly(random)?;
    }
}
