//! What time it is on ZooKeeper's clock, the one that a whole herd shares.
//!
//! ZooKeeper's leader stamps every transaction with its wall clock, and the Stat that answers a write says so. The stamp was
//! made between the sending of the write and its answer, which bounds how far that clock is from this process's monotonic
//! one. Each further answer narrows the bounds, or, where it contradicts them, replaces them: the server's clock was set, or
//! another server leads. From then on this machine's wall clock plays no part; setting it changes nothing here. It is only
//! compared, so that somebody hears that it is wrong.
//!
//! Source: F. Cristian, "Probabilistic clock synchronization" (Distributed Computing 3, 1989), with bounds intersected as in
//! K. Marzullo and S. Owicki, "Maintaining the time in a distributed system" (PODC 1983).
//!
//! Left out: a monotonic clock that stands still while the machine is suspended. Its session does not outlive that, and each
//! session learns for itself.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How old the last answer may be before one is asked for, at most. A fifth sooner it may be: not all of a herd ask at once.
const ASK_EVERY: Duration = Duration::from_secs(300);
/// Within how long after a reconnect one is asked for, where no write is answered meanwhile: each process at a moment of its own.
const ASK_AFTER: Duration = Duration::from_secs(5);
/// How far the time may be from the truth where it is used, in microseconds, and how far ahead of it it may ever be.
const WIDE_US: i64 = 500_000;
/// From then on this machine's wall clock is called wrong. It is called right again at half of that.
const WRONG_US: i64 = 1_000_000;
/// How far two clocks may drift apart, in millionths: quartz is good for a tenth of it.
const DRIFT: f64 = 200e-6;

/// ZooKeeper's clock as one session knows it. Pure: what time it is by this machine's clocks is told to it.
#[derive(Debug)]
pub struct Clock {
    origin: Instant,
    /// This process's place among those that ask, from 0 to 1.
    share: f64,
    known: Option<Bounds>,
    asked: Option<Instant>,
    /// When to ask because another server may lead.
    ask_at: Option<Instant>,
    wrong: bool,
}

/// Where ZooKeeper's clock stood at the origin, in microseconds since 1970: at least, and at most; as of a moment.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    least_us: i64,
    most_us: i64,
    at: Instant,
}

/// How this machine's wall clock compares, where that is news.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// It is wrong now, by so many milliseconds: more than 0 is ahead of ZooKeeper's.
    Wrong(i64),
    /// It was, and is not any more.
    Right,
}

impl Clock {
    /// Nothing is known; `origin` is any moment of the past. `share`, drawn from 0 to 1, spreads over time who asks when.
    pub fn new(origin: Instant, share: f64) -> Self {
        Clock { origin, share, known: None, asked: None, ask_at: None, wrong: false }
    }

    /// A write sent at `sent_at` was answered by `answered_at`, and stamped with `stamp_ms`, in milliseconds since 1970.
    pub fn learn(&mut self, sent_at: Instant, answered_at: Instant, stamp_ms: i64) {
        let stamp_us = stamp_ms.saturating_mul(1_000);
        let heard = Bounds {
            least_us: stamp_us - self.since_us(answered_at),
            most_us: stamp_us + 1_000 - self.since_us(sent_at),
            at: answered_at,
        };
        self.ask_at = None;
        self.known = Some(match self.known {
            None => heard,
            Some(known) => known.at(answered_at).and(heard).unwrap_or(heard),
        });
    }

    /// The moment by ZooKeeper's clock, in milliseconds since 1970, once that is known.
    pub fn now_ms(&self, now: Instant) -> Option<i64> {
        Some(self.now_us(now)? / 1_000)
    }

    /// How far that may be from the truth.
    pub fn error(&self, now: Instant) -> Option<Duration> {
        let (known, now_us) = (self.known?.at(now), self.now_us(now)? - self.since_us(now));
        let error_us = (known.most_us - now_us).max(now_us - known.least_us);
        Some(Duration::from_micros(error_us.max(0).unsigned_abs()))
    }

    /// Whether the time is known to half a second: no answer was fast enough, where it is not.
    pub fn is_sharp(&self, now: Instant) -> bool {
        self.error(now).is_some_and(|error| error.as_micros() < u128::from(WIDE_US.unsigned_abs()))
    }

    /// Whether ZooKeeper is to be asked: the last answer is old, and so is the last asking, if that had none; or another
    /// server may lead, since this session was `reconnected`, and no write has told the time within some seconds of that.
    pub fn is_to_be_asked(&mut self, now: Instant, reconnected: bool) -> bool {
        if self.known.is_none() {
            return false;
        }
        if reconnected {
            self.ask_at = Some(now + ASK_AFTER.mul_f64(self.share));
        }
        let last = self.known.map(|known| known.at).max(self.asked);
        let every = ASK_EVERY.mul_f64(1.0 - self.share / 5.0);
        let old = last.is_some_and(|last| now.saturating_duration_since(last) >= every);
        let ask = old || self.ask_at.is_some_and(|at| now >= at);
        if ask {
            (self.asked, self.ask_at) = (Some(now), None);
        }
        ask
    }

    /// Compares this machine's wall clock, which shows `wall` at `now`. The news comes once, until it changes.
    pub fn compare(&mut self, now: Instant, wall: SystemTime) -> Option<News> {
        let ahead_us = micros(wall) - self.now_us(now)?;
        let doubt_us = i64::try_from(self.error(now)?.as_micros()).unwrap_or(i64::MAX);
        let limit_us = if self.wrong { WRONG_US / 2 } else { WRONG_US };
        let wrong = ahead_us.saturating_abs() > limit_us.saturating_add(doubt_us);
        let was = std::mem::replace(&mut self.wrong, wrong);
        (was != wrong).then_some(if wrong { News::Wrong(ahead_us / 1_000) } else { News::Right })
    }

    /// The middle of the bounds. Where they are wide, less: what is begun late does less harm than what is begun too soon.
    fn now_us(&self, now: Instant) -> Option<i64> {
        let known = self.known?;
        Some(known.least_us + ((known.most_us - known.least_us) / 2).min(WIDE_US) + self.since_us(now))
    }

    fn since_us(&self, moment: Instant) -> i64 {
        i64::try_from(moment.saturating_duration_since(self.origin).as_micros()).unwrap_or(i64::MAX)
    }
}

impl Bounds {
    /// As wide as they are by then.
    fn at(self, now: Instant) -> Bounds {
        let drift_us = (now.saturating_duration_since(self.at).as_secs_f64() * 1e6 * DRIFT) as i64;
        Bounds { least_us: self.least_us - drift_us, most_us: self.most_us + drift_us, at: self.at.max(now) }
    }

    /// What both say, if they do not contradict one another.
    fn and(self, other: Bounds) -> Option<Bounds> {
        let (least_us, most_us) = (self.least_us.max(other.least_us), self.most_us.min(other.most_us));
        (least_us <= most_us).then_some(Bounds { least_us, most_us, at: self.at.max(other.at) })
    }
}

fn micros(wall: SystemTime) -> i64 {
    let since = wall.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// A wall clock's moment in milliseconds since 1970.
pub fn wall_ms(wall: SystemTime) -> i64 {
    micros(wall) / 1_000
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    /// What ZooKeeper's clock shows at the origin.
    const ORIGIN_MS: i64 = 1_800_000_000_000;

    /// A clock, and its origin.
    fn clock() -> (Clock, Instant) {
        let origin = Instant::now();
        (Clock::new(origin, 0.0), origin)
    }

    fn wall(origin: Instant, now: Instant, ahead_ms: i64) -> SystemTime {
        let ms = ORIGIN_MS + ahead_ms + i64::try_from((now - origin).as_millis()).expect("small");
        UNIX_EPOCH + Duration::from_millis(ms.unsigned_abs())
    }

    #[test]
    fn the_time_is_unknown_until_a_write_is_answered_and_then_within_half_its_round_trip() {
        let (mut clock, origin) = clock();
        assert_eq!((clock.now_ms(origin), clock.is_to_be_asked(origin + ASK_EVERY, true)), (None, false));
        clock.learn(origin + 100 * MS, origin + 140 * MS, ORIGIN_MS + 130); // stamped 30 ms after it was sent
        assert_eq!(clock.now_ms(origin + 140 * MS), Some(ORIGIN_MS + 150));
        assert!(clock.error(origin + 140 * MS).is_some_and(|error| error <= 21 * MS));
        assert_eq!(clock.now_ms(origin + 3_600_000 * MS), Some(ORIGIN_MS + 3_600_010), "the monotonic clock goes on");
    }

    #[test]
    fn a_fast_answer_narrows_the_bounds_and_a_slow_one_widens_them_by_no_more_than_drift() {
        let (mut clock, origin) = clock();
        clock.learn(origin, origin + 900 * MS, ORIGIN_MS + 890);
        clock.learn(origin + 1_000 * MS, origin + 1_002 * MS, ORIGIN_MS + 1_001);
        let sharp = clock.error(origin + 1_002 * MS).expect("known");
        assert!(sharp < 2 * MS, "{sharp:?}");
        clock.learn(origin + 2_000 * MS, origin + 2_800 * MS, ORIGIN_MS + 2_010);
        let after = clock.error(origin + 2_800 * MS).expect("known");
        assert!(after < sharp + MS, "{after:?}");
        assert!(
            clock.now_ms(origin + 3_000 * MS).is_some_and(|now| (ORIGIN_MS + 2_998..=ORIGIN_MS + 3_002).contains(&now))
        );
    }

    #[test]
    fn a_clock_that_is_set_and_one_that_runs_slow_are_followed() {
        let (mut clock, origin) = clock();
        clock.learn(origin, origin + 2 * MS, ORIGIN_MS + 1);
        for hour_ms in [3_600_000, -3_600_000, 40] {
            clock.learn(origin + 10 * MS, origin + 12 * MS, ORIGIN_MS + 11 + hour_ms);
            let now = clock.now_ms(origin + 12 * MS).expect("known");
            assert!((now - (ORIGIN_MS + 12 + hour_ms)).abs() <= 1, "{now}");
        }
        let mut clock = Clock::new(origin, 0.0);
        for minute in 0..10_000_u32 {
            let sent = origin + Duration::from_secs(60) * minute;
            let shown = ORIGIN_MS + i64::from(minute) * 59_997; // 50 ppm slow: half a minute in a week
            clock.learn(sent, sent + 2 * MS, shown + 1);
            assert!((clock.now_ms(sent).expect("known") - shown).abs() <= 30, "minute {minute}");
        }
    }

    #[test]
    fn an_answer_grows_old_and_one_that_does_not_come_is_asked_for_as_seldom() {
        let (mut clock, origin) = clock();
        clock.learn(origin, origin, ORIGIN_MS);
        let asked: Vec<u32> = (0..20).filter(|n| clock.is_to_be_asked(origin + ASK_EVERY * *n / 4, false)).collect();
        assert_eq!(asked, [4, 8, 12, 16]);
        assert!(clock.is_to_be_asked(origin + ASK_EVERY * 4, true), "another server may lead");
    }

    #[test]
    fn not_all_of_a_herd_ask_at_once_and_whoever_writes_need_not() {
        let (_, origin) = clock();
        let [mut early, mut late] = [0.2, 0.8].map(|share| Clock::new(origin, share));
        [&mut early, &mut late].into_iter().for_each(|clock| clock.learn(origin, origin, ORIGIN_MS));
        let mut at = |ms: u32, reconnected| {
            [&mut early, &mut late].map(|clock| clock.is_to_be_asked(origin + ms * MS, reconnected))
        };
        assert_eq!(
            [at(100, true), at(1_000, false), at(1_100, false)],
            [[false, false], [false, false], [true, false]]
        );
        assert_eq!([at(4_099, false), at(4_100, false), at(9_000, false)], [[false, false], [false, true], [false; 2]]);
        assert_eq!([at(260_000, false), at(290_000, false)], [[false, true], [true, false]]);
        early.is_to_be_asked(origin + 300_000 * MS, true);
        early.learn(origin + 300_100 * MS, origin + 300_101 * MS, ORIGIN_MS + 300_101);
        assert!(!early.is_to_be_asked(origin + 310_000 * MS, false), "a write has told it");
    }

    #[test]
    fn a_wrong_wall_clock_is_news_once_a_stretch_and_so_is_its_end() {
        let (mut clock, origin) = clock();
        let at = |ms: u64| origin + Duration::from_millis(ms);
        assert_eq!(clock.compare(origin, wall(origin, origin, 3_600_000)), None, "nothing to compare it with");
        clock.learn(at(0), at(2), ORIGIN_MS + 1);
        let mut compare = |ms, ahead_ms| clock.compare(at(ms), wall(origin, at(ms), ahead_ms));
        assert_eq!(compare(10, 900), None);
        assert!(matches!(compare(20, 3_600_000), Some(News::Wrong(3_599_990..=3_600_010))));
        assert_eq!(compare(30, 3_600_000), None, "it was said");
        assert_eq!(compare(40, 800), None, "it may come back");
        assert_eq!(compare(50, 100), Some(News::Right));
        assert!(matches!(compare(60, -2_000), Some(News::Wrong(-2_010..=-1_990))));
    }

    #[test]
    fn a_slow_answer_accuses_nobody() {
        let (mut clock, origin) = clock();
        clock.learn(origin, origin + 5_000 * MS, ORIGIN_MS + 4_990);
        assert_eq!(clock.compare(origin + 5_000 * MS, wall(origin, origin + 5_000 * MS, 0)), None);
    }

    #[test]
    fn a_slow_answer_puts_the_time_ahead_by_no_more_than_half_a_second() {
        for (took_ms, stamped_ms) in [(5_000, 10), (5_000, 2_500), (5_000, 4_990), (700, 1)] {
            let (mut clock, origin) = clock();
            let answered = origin + took_ms * MS;
            clock.learn(origin, answered, ORIGIN_MS + stamped_ms);
            let (now, error) = (clock.now_ms(answered).expect("known"), clock.error(answered).expect("known"));
            let error = i64::try_from(error.as_millis()).expect("small");
            let (least, most) = (ORIGIN_MS + stamped_ms, ORIGIN_MS + stamped_ms + i64::from(took_ms));
            assert!(now <= least + 501, "{now} {least}");
            assert!(now - error <= least + 1 && now + error >= most - 1, "{now} {error}");
        }
    }
}
