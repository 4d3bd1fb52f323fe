//! How fast a store may be asked: its rate and burst, and what it says itself when it is asked too often. Pure, with the clock as an
//! argument.
//!
//! A bucket of its own and not the crate `governor`: that one's quotas cannot be slowed down and sped up again, and a lane has to know
//! when its next turn comes without taking it.

use std::time::Duration;

use tokio::time::Instant;

/// Calls of one burst are refused together: they slow the store down once.
const ONE_REFUSAL: Duration = Duration::from_secs(1);
/// How much of the rate at a refusal comes back in each second.
const RECOVERY: f64 = 0.1;
/// A rounding error is no reason to wait.
const WHOLE: f64 = 1.0 - 1e-6;

/// How often a store may be asked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// Calls per second, above zero.
    pub per_second: f64,
    /// Calls at once after a rest, at least 1.
    pub burst: f64,
}

/// Whether a call may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    Now,
    At(Instant),
    /// The store asked for patience that lasts so long.
    Held(Duration),
}

#[derive(Clone, Debug)]
pub struct Pace {
    limit: Option<Rate>,
    /// Longest patience that a store can ask for.
    longest: Duration,
    tokens: f64,
    filled: Option<Instant>,
    slowed: Option<Slowed>,
    held_until: Option<Instant>,
    recent: Recent,
}

/// The store refused without saying for how long.
#[derive(Clone, Copy, Debug)]
struct Slowed {
    since: Instant,
    per_second: f64,
    /// What comes back in each second.
    step: f64,
    /// Here it ends.
    ceiling: f64,
}

/// Calls of this second and of the one before.
#[derive(Clone, Copy, Debug, Default)]
struct Recent {
    second: Option<Instant>,
    now: u32,
    before: u32,
}

impl Pace {
    pub fn new(limit: Option<Rate>, longest: Duration) -> Self {
        let tokens = limit.map_or(0.0, |rate| rate.burst);
        Self { limit, longest, tokens, filled: None, slowed: None, held_until: None, recent: Recent::default() }
    }

    /// The same store under another limit: what the store itself said goes on.
    #[must_use]
    pub fn limited(&self, limit: Option<Rate>) -> Self {
        Self { slowed: self.slowed, held_until: self.held_until, recent: self.recent, ..Self::new(limit, self.longest) }
    }

    /// Whether a call may begin now.
    pub fn turn(&mut self, now: Instant) -> Turn {
        if let Some(left) = self.held_until.map(|until| until.saturating_duration_since(now)).filter(|left| !left.is_zero()) {
            return Turn::Held(left);
        }
        self.held_until = None;
        let Some(rate) = self.rate(now) else { return Turn::Now };
        self.fill(rate, now);
        if self.tokens >= WHOLE { Turn::Now } else { Turn::At(now + Duration::from_secs_f64((1.0 - self.tokens) / rate.per_second)) }
    }

    /// A call begins.
    pub fn begin(&mut self, now: Instant) {
        self.recent.note(now);
        if self.rate(now).is_some() {
            self.tokens = (self.tokens - 1.0).max(0.0);
        }
    }

    /// The store refused a call. Its hint holds back every call, with up to a tenth more (`fraction` of it); without one (zero) the rate
    /// halves.
    pub fn refused(&mut self, now: Instant, hint: Duration, fraction: f64) {
        if hint.is_zero() {
            return self.slow_down(now);
        }
        let until = now + hint.min(self.longest).mul_f64(1.0 + 0.1 * fraction.clamp(0.0, 1.0));
        self.held_until = Some(self.held_until.map_or(until, |known| known.max(until)));
    }

    fn slow_down(&mut self, now: Instant) {
        if self.slowed.is_some_and(|slowed| now.saturating_duration_since(slowed.since) < ONE_REFUSAL) {
            return;
        }
        let base = self.rate(now).map_or(f64::from(self.recent.most()), |rate| rate.per_second.min(f64::from(self.recent.most()))).max(1.0);
        let ceiling = self.limit.map_or(base * 2.0, |limit| limit.per_second);
        self.slowed = Some(Slowed { since: now, per_second: base / 2.0, step: base * RECOVERY, ceiling });
        (self.tokens, self.filled) = (0.0, Some(now));
    }

    /// The rate in force; none without a limit.
    fn rate(&mut self, now: Instant) -> Option<Rate> {
        let slowed = self.slowed.map(|slowed| (slowed.at(now), slowed.ceiling));
        match slowed {
            Some((per_second, ceiling)) if per_second < ceiling => Some(Rate { per_second, burst: 1.0 }),
            _ => {
                self.slowed = None;
                self.limit
            }
        }
    }

    fn fill(&mut self, rate: Rate, now: Instant) {
        let since = self.filled.replace(now).unwrap_or(now);
        self.tokens = (self.tokens + now.saturating_duration_since(since).as_secs_f64() * rate.per_second).min(rate.burst.max(1.0));
    }
}

impl Slowed {
    fn at(&self, now: Instant) -> f64 {
        self.per_second + self.step * now.saturating_duration_since(self.since).as_secs_f64()
    }
}

impl Recent {
    fn note(&mut self, now: Instant) {
        let second = Duration::from_secs(1);
        match self.second.map(|began| now.saturating_duration_since(began)) {
            Some(since) if since < second => self.now += 1,
            Some(since) => *self = Self { second: Some(now), now: 1, before: if since < second * 2 { self.now } else { 0 } },
            None => *self = Self { second: Some(now), now: 1, before: 0 },
        }
    }

    fn most(self) -> u32 {
        self.now.max(self.before)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::{prop, prop_assert, proptest};
    use tokio::time::Instant;

    use super::{Pace, Rate, Turn};

    const LONGEST: Duration = Duration::from_secs(300);

    fn limited(per_second: f64, burst: f64) -> Pace {
        Pace::new(Some(Rate { per_second, burst }), LONGEST)
    }

    /// The starts of calls that are wanted all the time, until `end`.
    fn starts(pace: &mut Pace, from: Instant, end: Instant) -> Vec<Instant> {
        let (mut now, mut starts) = (from, Vec::new());
        while now <= end {
            match pace.turn(now) {
                Turn::Now => {
                    pace.begin(now);
                    starts.push(now);
                    assert!(starts.len() < 100_000, "without a limit");
                }
                Turn::At(at) => now = at.max(now + Duration::from_nanos(1)),
                Turn::Held(left) => now += left,
            }
        }
        starts
    }

    #[test]
    fn a_burst_goes_at_once_and_then_the_rate_holds() {
        let zero = Instant::now();
        let starts = starts(&mut limited(5.0, 10.0), zero, zero + Duration::from_millis(9_950));
        assert_eq!(starts.iter().filter(|at| **at == zero).count(), 10);
        assert_eq!(starts.len(), 10 + 49);
    }

    #[test]
    fn without_a_limit_there_is_always_a_turn() {
        let (mut pace, now) = (Pace::new(None, LONGEST), Instant::now());
        (0..10_000).for_each(|_| {
            assert_eq!(pace.turn(now), Turn::Now);
            pace.begin(now);
        });
    }

    #[test]
    fn a_hint_holds_back_everything_until_its_end_capped_and_with_jitter() {
        let cases = [(20, 0.0, 20_000), (20, 1.0, 22_000), (3600, 0.0, 300_000), (3600, 0.5, 315_000)];
        for (hint, fraction, expected) in cases {
            let (mut pace, now) = (Pace::new(None, LONGEST), Instant::now());
            pace.refused(now, Duration::from_secs(hint), fraction);
            pace.refused(now, Duration::from_secs(1), 0.0);
            let end = Duration::from_millis(expected);
            assert_eq!(pace.turn(now), Turn::Held(end), "{hint} {fraction}");
            assert!(matches!(pace.turn(now + end - Duration::from_millis(1)), Turn::Held(_)));
            assert_eq!(pace.turn(now + end), Turn::Now);
        }
    }

    #[test]
    fn a_refusal_without_a_hint_halves_the_rate_once_and_it_comes_back_by_and_by() {
        let (mut pace, zero) = (limited(100.0, 1.0), Instant::now());
        let second = |n: u64| zero + Duration::from_secs(n);
        let count = |pace: &mut Pace, from: u64| starts(pace, second(from), second(from + 1)).len();
        count(&mut pace, 0);
        pace.refused(second(1), Duration::ZERO, 0.0);
        pace.refused(second(1) + Duration::from_millis(500), Duration::ZERO, 0.0);
        let counts: Vec<usize> = (1..8).map(|from| count(&mut pace, from)).collect();
        assert!((50..=62).contains(&counts[0]), "{counts:?}");
        assert!(counts[..4].windows(2).all(|pair| pair[0] < pair[1] && pair[1] - pair[0] < 15), "{counts:?}");
        assert!(counts[6] >= 98, "{counts:?}");
    }

    #[test]
    fn without_a_limit_a_refusal_counts_from_what_was_asked_for_and_ends_by_itself() {
        let (mut pace, zero) = (Pace::new(None, LONGEST), Instant::now());
        (0..200).for_each(|_| pace.begin(zero));
        pace.refused(zero, Duration::ZERO, 0.0);
        let slow = starts(&mut pace.clone(), zero, zero + Duration::from_secs(1)).len();
        assert!((95..=115).contains(&slow), "{slow}");
        assert_eq!(pace.turn(zero + Duration::from_secs(15)), Turn::Now);
        assert!(pace.slowed.is_none());
    }

    #[test]
    fn another_limit_keeps_what_the_store_said() {
        let (mut pace, now) = (Pace::new(None, LONGEST), Instant::now());
        pace.refused(now, Duration::from_secs(9), 0.0);
        let mut edited = pace.limited(Some(Rate { per_second: 1.0, burst: 1.0 }));
        assert_eq!(edited.turn(now), Turn::Held(Duration::from_secs(9)));
    }

    proptest! {
        /// In no window there are more calls than the burst and what the rate allows in it, whenever they are wanted.
        #[test]
        fn the_rate_is_never_exceeded(
            per_second in 1..50_u32, burst in 1..20_u32, gaps in prop::collection::vec(0..400_u64, 1..200),
        ) {
            let zero = Instant::now();
            let mut pace = limited(f64::from(per_second), f64::from(burst));
            let (mut now, mut starts) = (zero, Vec::new());
            for gap in gaps {
                now += Duration::from_millis(gap);
                if pace.turn(now) == Turn::Now {
                    pace.begin(now);
                    starts.push(now);
                }
            }
            for (n, from) in starts.iter().enumerate() {
                for (calls, to) in starts[n..].iter().enumerate() {
                    let most = f64::from(burst) + to.duration_since(*from).as_secs_f64() * f64::from(per_second) + 0.01;
                    prop_assert!(f64::from(u32::try_from(calls + 1).unwrap()) <= most, "{calls} in {:?}", to.duration_since(*from));
                }
            }
        }
    }
}
