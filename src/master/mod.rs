//! The master: leads, or stands by to.
//!
//! Every master, leader or not, mirrors `/tasks` and `/workers` in its [`Ledger`] and stands in the election. The
//! leader plans on every change, writes each plan in one multi under its guard, and lets the next changes gather
//! meanwhile. What it knows beyond the tree is which attempts ended with their workers, until it has written that down.
//!
//! What can go wrong, and what then happens:
//! - It dies: its znode goes, the next candidate wins, reads the tree and plans. Nothing had to be handed over.
//! - It dies together with workers: a master that stood by saw them go, and what they had (`standby`); when it leads it ends
//!   their attempts, unless the tree says that somebody has.
//! - It pauses past its session: its next write is refused by the guard; the session is over, and it joins again.
//! - Its write is not answered: the plan is thrown away, the tree read anew, and planned again.
//! - Its own znode is deleted by hand: its next write is refused; it steps down and joins again.

mod doubts;
mod mass_loss;
mod observe;
mod standby;
mod sweep;
mod upkeep;
mod window;
mod write;

use std::collections::{BTreeSet, HashMap};
use std::pin::Pin;
use std::time::{Duration, Instant};

use coordination::{Candidacy, Failure, Leadership, Mirror, Op, Scope, Session, election::Election};
use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};
use tree::{MASTER, MasterRecord, TASKS, WORKERS, WorkerId, WorkerRecord};
use znode::paths;

use self::doubts::Doubts;
use self::mass_loss::MassLoss;
use self::standby::Lists;
use self::sweep::Sweeper;
use self::upkeep::{Beside, Round};
use self::window::Window;
use crate::decide::assign::{plan, rebalance, tidy};
use crate::decide::ledger::Ledger;
use crate::run::Role;
use crate::shutdown::Shutdown;

/// How often windows are reckoned anew and lists tidied while nothing else happens.
const TICK: Duration = Duration::from_millis(100);
/// How long a worker must have completed nothing before what is parked there goes to an idle one.
const PATIENCE: Duration = Duration::from_millis(500);

/// A master's settings. Fields may be added: `Master { retention, ..Master::new(name) }`.
#[derive(Debug, Clone)]
pub struct Master {
    /// Shown to people; names need not be unique.
    pub name: String,
    /// How long a job without outstanding tasks, that no client attends, is kept for somebody to collect it.
    pub retention: Duration,
}

impl Master {
    /// Jobs are kept for a day.
    pub fn new(name: &str) -> Self {
        Master { name: name.to_owned(), retention: Duration::from_secs(24 * 3600) }
    }
}

impl Role for Master {
    fn title(&self) -> String {
        format!("master {}", self.name)
    }

    async fn play(&mut self, session: &Session, shutdown: &Shutdown) -> Result<(), Failure> {
        let tasks = Scope {
            levels: 2,
            read_created: |path| !path.contains('/'),
            read_changed: |_| true,
            remember_leaves: true,
        };
        // Only the leader sets a worker's znode, and need not read what it wrote; who stands by does so at leisure.
        let workers = Scope { levels: 1, read_created: |_| true, read_changed: |_| false, remember_leaves: false };
        let state = Standing {
            session: session.clone(),
            retention: self.retention,
            ledger: Ledger::default(),
            tasks: Mirror::start(session.clone(), TASKS, tasks),
            workers: Mirror::start(session.clone(), WORKERS, workers),
            refresh: Refresh::Done,
            stands_by: true,
            lists: Lists::default(),
            assigned: false,
            windows: HashMap::new(),
            busy: BTreeSet::new(),
            round_trip: Duration::from_millis(5),
            mass_loss: MassLoss::new(session.timeout()),
            began: Instant::now(),
            upkeep: Beside::default(),
            sweeper: Sweeper::default(),
            doubts: Doubts::default(),
            complaints: HashMap::new(),
        };
        state.stand(self, shutdown).await
    }
}

/// A master on one session.
struct Standing {
    session: Session,
    retention: Duration,
    ledger: Ledger,
    tasks: Mirror,
    workers: Mirror,
    refresh: Refresh,
    stands_by: bool,
    /// What the leader wrote, while this master stands by.
    lists: Lists,
    /// Whether it has assigned anything since it won.
    assigned: bool,
    windows: HashMap<WorkerId, Window>,
    /// Workers that completed something since the last plan.
    busy: BTreeSet<WorkerId>,
    /// How long one multi takes from sending to answer, averaged.
    round_trip: Duration,
    mass_loss: MassLoss,
    began: Instant,
    /// What it does for jobs beside assigning.
    upkeep: Beside<Round>,
    /// Jobs that are being removed.
    sweeper: Sweeper,
    /// Attempts of which it is asked whether they failed.
    doubts: Doubts,
    /// Malformed znodes that were complained of, so that each is named once.
    complaints: HashMap<String, String>,
}

/// Which snapshot the leader must see next, by the number that it asked for, before it may plan. First the tasks, then the
/// workers: assignments are adopted for known tasks only.
#[derive(PartialEq, Eq)]
enum Refresh {
    Tasks(u64),
    Workers(u64),
    Done,
}

enum Place {
    Candidate(Pin<Box<dyn Future<Output = Result<Election, Failure>> + Send>>),
    /// The leadership, and its end.
    Leader(Leadership, Pin<Box<dyn Future<Output = ()> + Send>>),
}

/// Why the leader does not go on as before after a write.
enum Setback {
    /// The guard was refused.
    Deposed,
    /// It is not known what was applied.
    Doubt,
    SessionOver(Failure),
}

impl Standing {
    async fn stand(mut self, master: &Master, shutdown: &Shutdown) -> Result<(), Failure> {
        let mut place = self.candidate(master).await?;
        self.session.learn_time().await?;
        let mut status = self.session.status();
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut look = interval(self.session.timeout() / 10);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Whether what can wait is to be looked at: it is time, or there is more of it.
        let (mut spare_time, mut more) = (false, false);
        loop {
            self.settle_losses();
            let mut removed = match &place {
                Place::Leader(leadership, _) => self.lead(&leadership.guard(), spare_time, more).await?,
                Place::Candidate(_) => false,
            };
            (spare_time, more) = (false, false);
            if !removed {
                tokio::select! {
                    () = shutdown.requested() => {
                        if let Place::Leader(leadership, _) = place {
                            info!("resigning");
                            leadership.resign().await;
                        }
                        return Ok(());
                    }
                    () = self.session.over() => {
                        return Err(Failure::SessionOver("expired or closed".to_owned()));
                    }
                    changes = self.tasks.next() => {
                        self.ledger.wake(self.session.now_ms()); // what is seen now is seen at this moment
                        changes.into_iter().flatten().for_each(|change| self.task_change(change));
                    }
                    changes = self.workers.next() => self.worker_changes(changes.unwrap_or_default()),
                    _ = look.tick(), if self.stands_by => self.lists.look(&self.session),
                    read = self.lists.next(), if self.stands_by => self.lists_are(read),
                    _ = status.changed() => if matches!(place, Place::Leader(..)) {
                        self.begin_refresh(); // what was planned is thrown away
                    },
                    news = follow(&mut place) => match news? {
                        Some(Election::Won(leadership)) => {
                            info!(znode = leadership.path(), "leading");
                            self.stop_standing_by();
                            self.begin_refresh();
                            self.assigned = false;
                            let lost = Box::pin(leadership.lost());
                            place = Place::Leader(leadership, lost);
                        }
                        Some(Election::Removed) | None => removed = true,
                    },
                    round = self.upkeep.done() => {
                        let done = self.upkeep_done(round);
                        (removed, more) = self.beside(done)?;
                    }
                    swept = self.sweeper.done() => {
                        let done = self.swept(swept);
                        (removed, more) = self.beside(done)?;
                    }
                    known = self.doubts.known() => for (quick, failed) in known {
                        self.ledger.quick_was(&quick, failed);
                    },
                    _ = tick.tick() => spare_time = true,
                }
            }
            if removed {
                self.session.connected().await?; // or was it the session that ended?
                warn!("the znode of this candidacy is gone: stepping down and joining again");
                if let Place::Leader(leadership, _) = place {
                    leadership.resign().await;
                }
                self.stand_by();
                place = self.candidate(master).await?;
            }
        }
    }

    /// What a leader does now; whether it learned that it does not lead. `more`: of what is done beside the planning there is
    /// more.
    async fn lead(&mut self, guard: &Op, spare_time: bool, more: bool) -> Result<bool, Failure> {
        if self.refresh != Refresh::Done || !self.session.lease().holds(Instant::now()) {
            return Ok(false);
        }
        self.ledger.passes(self.began.elapsed());
        self.doubts.look(&self.session);
        let acted = self.act(guard, spare_time).await;
        if acted.is_ok() && (spare_time || more) {
            self.begin_upkeep(guard);
            self.begin_sweep(guard);
        }
        self.is_removed(acted)
    }

    /// Whether a leader learned that it does not lead.
    fn is_removed(&mut self, acted: Result<(), Setback>) -> Result<bool, Failure> {
        match acted {
            Ok(()) => Ok(false),
            Err(Setback::Doubt) => {
                self.begin_refresh();
                Ok(false)
            }
            Err(Setback::Deposed) => Ok(true),
            Err(Setback::SessionOver(failure)) => Err(failure),
        }
    }

    /// After something that was done beside the planning: whether the leader learned that it does not lead, and whether there
    /// is more.
    fn beside(&mut self, done: Result<bool, Setback>) -> Result<(bool, bool), Failure> {
        match done {
            Ok(more) => Ok((false, more)),
            Err(setback) => Ok((self.is_removed(Err(setback))?, false)),
        }
    }

    async fn candidate(&mut self, master: &Master) -> Result<Place, Failure> {
        let record = MasterRecord { name: master.name.clone(), host: hostname(), pid: std::process::id() };
        let uid = paths::uid(&mut rand::rng());
        let candidacy = Candidacy::enter(&self.session, MASTER, &master.name, &uid, &record.to_json()).await?;
        info!(znode = candidacy.path(), "standing for leader");
        Ok(Place::Candidate(Box::pin(candidacy.won())))
    }

    /// Asks for everything to be read anew; until it is there, nothing is planned.
    fn begin_refresh(&mut self) {
        self.refresh = Refresh::Tasks(self.tasks.refresh());
    }

    /// These are the workers, and the tasks were read before. Attempts that ended with a worker are not forgotten: none that
    /// somebody has ended by now is left, nor one whose task another worker holds.
    fn finish_refresh(&mut self, workers: &[(WorkerId, WorkerRecord)]) {
        self.refresh = Refresh::Done;
        self.ledger.wake(self.session.now_ms());
        self.ledger.workers_are(workers, true);
        let now = Instant::now();
        self.windows.values_mut().for_each(|window| window.listen(now));
        let counts = self.ledger.counts();
        info!(workers = workers.len(), waiting = counts.waiting, assigned = counts.assigned, "read the tree");
    }

    /// Writes what is to be written now. `spare_time`: also what can wait.
    async fn act(&mut self, guard: &Op, spare_time: bool) -> Result<(), Setback> {
        self.ledger.wake(self.session.now_ms());
        loop {
            let now = Instant::now();
            let reckoned: Vec<WorkerId> =
                if spare_time { self.windows.keys().cloned().collect() } else { self.busy.iter().cloned().collect() };
            for worker in reckoned {
                let Some((slots, _)) = self.ledger.load(&worker) else { continue };
                let Some(window) = self.windows.get_mut(&worker) else { continue };
                // Written, list read, payloads read, committed, seen: five steps of about a multi each.
                self.ledger.set_window(&worker, window.size(slots, self.round_trip * 5, now));
            }
            self.busy.clear();
            let mut next = plan(&mut self.ledger);
            if next.is_empty() && spare_time {
                let crowded = self.crowded(now);
                next = rebalance(&mut self.ledger, &crowded);
            }
            if next.is_empty() && spare_time {
                next = tidy(&mut self.ledger);
            }
            let again = !next.interrupted.is_empty(); // their tasks wait now
            if next.is_empty() {
                return Ok(());
            }
            let assigned = next.assigned;
            let as_planned = self.write(guard, next).await?;
            if assigned > 0 && !self.assigned {
                self.assigned = true;
                info!(at_ms = self.session.now_ms(), "first assignment as leader");
            }
            if !again || !as_planned {
                return Ok(());
            }
        }
    }

    /// Workers with more than their slots can take soon, and of whom nothing was heard for so long that what their slots hold
    /// must be running still, as far as can be told.
    fn crowded(&mut self, now: Instant) -> Vec<WorkerId> {
        let patience = PATIENCE.max(self.round_trip * 20);
        let windows = &mut self.windows;
        let mut silent = |worker: &WorkerId| {
            let window = windows.entry(worker.clone()).or_insert_with(|| Window::new(now));
            window.silent_for(now) >= patience
        };
        self.ledger.crowded().filter(|worker| silent(worker)).cloned().collect()
    }
}

/// Waits until the place changes: an election for a candidate, or `None` for a leader whose znode is gone.
async fn follow(place: &mut Place) -> Result<Option<Election>, Failure> {
    match place {
        Place::Candidate(won) => won.await.map(Some),
        Place::Leader(_, lost) => {
            lost.await;
            Ok(None)
        }
    }
}

fn hostname() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").map(|name| name.trim().to_owned()).unwrap_or_default()
}
