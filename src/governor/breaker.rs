//! Whether a store is asked at all: after several keys failed and none succeeded, one call now and then finds out. Pure, with the clock and
//! randomness as arguments.
//!
//! A store of one or two keys never opens it: there the clock of the items (`schedule/`) does the same, with the same pauses.

use std::{collections::BTreeSet, time::Duration};

use tokio::time::Instant;

/// So many distinct keys fail before the store is believed to be down.
const KEYS: usize = 3;
/// In so many calls at least: one call that broke says little about the store, however many keys it asked for.
const CALLS: u32 = 2;

/// Pauses between two calls to a store that is down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pauses {
    /// The first; it doubles.
    pub first: Duration,
    pub longest: Duration,
}

/// What may be done with a call that somebody wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission<C> {
    Free,
    /// This one, and no other until it is over: tell [`Breaker::probe`].
    Probe,
    /// None; how the store failed last.
    Refused(C),
}

/// `K` are the keys, `C` is how a call failed.
#[derive(Debug)]
pub struct Breaker<K, C> {
    pauses: Pauses,
    state: State<K, C>,
}

#[derive(Debug)]
enum State<K, C> {
    /// What failed since the last success, as many as decide.
    Closed {
        failing: BTreeSet<K>,
        calls: u32,
    },
    Open {
        until: Instant,
        round: u32,
        cause: C,
    },
    HalfOpen {
        round: u32,
        cause: C,
    },
}

impl<K: Ord, C: Clone> Breaker<K, C> {
    pub fn new(pauses: Pauses) -> Self {
        Self { pauses, state: closed() }
    }

    pub fn admit(&self, now: Instant) -> Admission<C> {
        match &self.state {
            State::Closed { .. } => Admission::Free,
            State::Open { until, .. } if *until <= now => Admission::Probe,
            State::Open { cause, .. } | State::HalfOpen { cause, .. } => Admission::Refused(cause.clone()),
        }
    }

    /// The call that finds out begins.
    pub fn probe(&mut self) {
        if let State::Open { round, cause, .. } = &self.state {
            self.state = State::HalfOpen { round: *round, cause: cause.clone() };
        }
    }

    /// The store answered, whatever it said. Whether it is believed to be up again.
    pub fn succeed(&mut self) -> bool {
        let was_open = !matches!(self.state, State::Closed { .. });
        self.state = closed();
        was_open
    }

    /// A call failed for these keys, and gave no answer for any other. Whether the store is believed to be down, from now on or still.
    /// Calls that began before the breaker opened say nothing new. `fraction` of one is the jitter.
    pub fn fail(&mut self, keys: impl IntoIterator<Item = K>, cause: C, is_probe: bool, now: Instant, fraction: f64) -> bool {
        match &mut self.state {
            State::Closed { failing, calls } => {
                *calls = calls.saturating_add(1);
                for key in keys {
                    if failing.len() < KEYS {
                        failing.insert(key);
                    }
                }
                let is_down = failing.len() >= KEYS && *calls >= CALLS;
                if is_down {
                    self.open(0, cause, now, fraction);
                }
                is_down
            }
            State::HalfOpen { round, .. } if is_probe => {
                let round = round.saturating_add(1);
                self.open(round, cause, now, fraction);
                true
            }
            State::Open { .. } | State::HalfOpen { .. } => false,
        }
    }

    /// When a call may find out whether the store is up.
    pub fn probe_at(&self) -> Option<Instant> {
        match self.state {
            State::Open { until, .. } => Some(until),
            State::Closed { .. } | State::HalfOpen { .. } => None,
        }
    }

    /// Never longer than the longest pause: who waits for the store is promised that.
    fn open(&mut self, round: u32, cause: C, now: Instant, fraction: f64) {
        let whole = self.pauses.first.saturating_mul(2_u32.saturating_pow(round.min(30))).min(self.pauses.longest);
        let until = now + whole.mul_f64(0.75 + 0.25 * fraction.clamp(0.0, 1.0));
        self.state = State::Open { until, round, cause };
    }
}

fn closed<K: Ord, C>() -> State<K, C> {
    State::Closed { failing: BTreeSet::new(), calls: 0 }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::{Just, Strategy, any, prop, prop_assert, prop_assert_eq, prop_oneof, proptest};
    use tokio::time::Instant;

    use super::{Admission, Breaker, CALLS, KEYS, Pauses};
    use crate::fault::Reason;

    const DOWN: Reason = Reason::ProviderUnavailable;
    const PAUSES: Pauses = Pauses { first: Duration::from_secs(1), longest: Duration::from_secs(5) };

    fn opened(now: Instant) -> Breaker<u8, Reason> {
        let mut breaker = Breaker::new(PAUSES);
        assert_eq!([1, 2, 3].map(|key| breaker.fail([key], DOWN, false, now, 1.0)), [false, false, true]);
        breaker
    }

    #[test]
    fn it_opens_for_several_keys_in_several_calls_and_not_for_one_key_or_one_call() {
        let now = Instant::now();
        let mut breaker = Breaker::new(PAUSES);
        assert!((0..100).all(|_| !breaker.fail([1, 2], DOWN, false, now, 1.0)), "two keys only");
        let mut breaker = Breaker::new(PAUSES);
        assert!(!breaker.fail(1..=20, DOWN, false, now, 1.0), "one call only");
        assert_eq!(breaker.admit(now), Admission::Free);
        assert!(breaker.fail([1], DOWN, false, now, 1.0));
        assert_eq!(breaker.admit(now), Admission::Refused(DOWN));
    }

    #[test]
    fn a_success_between_failures_keeps_it_closed() {
        let (mut breaker, now) = (Breaker::new(PAUSES), Instant::now());
        for key in 0..100_u8 {
            assert!(!breaker.fail([key], DOWN, false, now, 1.0));
            assert!(key % 2 == 0 || !breaker.succeed());
        }
    }

    #[test]
    fn one_call_finds_out_and_the_pauses_grow_to_their_bound() {
        let mut now = Instant::now();
        let mut breaker = opened(now);
        for pause in [1, 2, 4, 5, 5, 5] {
            let until = now + Duration::from_secs(pause);
            assert_eq!(breaker.probe_at(), Some(until));
            assert!(matches!(breaker.admit(until - Duration::from_millis(1)), Admission::Refused(_)));
            assert_eq!(breaker.admit(until), Admission::Probe);
            breaker.probe();
            assert!(matches!(breaker.admit(until), Admission::Refused(_)) && breaker.probe_at().is_none(), "one only");
            assert!(!breaker.fail([9], DOWN, false, until, 1.0), "a call from before says nothing");
            assert!(breaker.fail([1], Reason::Sealed, true, until, 1.0));
            assert_eq!(breaker.admit(until), Admission::Refused(Reason::Sealed), "as it failed last");
            now = until;
        }
        assert!(breaker.succeed());
        assert_eq!(breaker.admit(now), Admission::Free);
        assert!(!breaker.succeed(), "told once");
    }

    #[test]
    fn jitter_only_shortens_a_pause() {
        let now = Instant::now();
        for (fraction, expected) in [(0.0, 750), (0.5, 875), (1.0, 1000), (7.0, 1000)] {
            let mut breaker = Breaker::new(PAUSES);
            assert!([1, 2, 3].map(|key| breaker.fail([key], DOWN, false, now, fraction))[2]);
            assert_eq!(breaker.probe_at(), Some(now + Duration::from_millis(expected)), "{fraction}");
        }
    }

    #[derive(Clone, Debug)]
    enum Event {
        Wait(u64),
        Want,
        Fail(Vec<u8>),
        Succeed,
    }

    fn events() -> impl Strategy<Value = Event> {
        prop_oneof![
            (0..3_000_u64).prop_map(Event::Wait),
            Just(Event::Want),
            prop::collection::vec(any::<u8>(), 1..4).prop_map(Event::Fail),
            Just(Event::Succeed),
        ]
    }

    proptest! {
        /// Against a model that only counts: it opens exactly for enough failures since the last success, lets one call through after a
        /// pause of at most the longest, and closes with every success.
        #[test]
        fn it_keeps_its_word(events in prop::collection::vec(events(), 1..200), fraction in 0.0..1.0_f64) {
            let mut now = Instant::now();
            let mut breaker = Breaker::new(PAUSES);
            let (mut keys, mut calls) = (std::collections::BTreeSet::new(), 0);
            let (mut closed_at, mut is_probing) = (None, false);
            for event in events {
                match event {
                    Event::Wait(milliseconds) => now += Duration::from_millis(milliseconds),
                    Event::Want => match breaker.admit(now) {
                        Admission::Free => prop_assert!(closed_at.is_none()),
                        Admission::Probe => {
                            prop_assert!(!is_probing, "a second probe");
                            breaker.probe();
                            is_probing = true;
                        }
                        Admission::Refused(_) => {
                            let since: Instant = closed_at.unwrap_or(now);
                            prop_assert!(is_probing || now - since < PAUSES.longest, "refused for longer than the longest pause");
                        }
                    },
                    Event::Fail(failed) => {
                        keys.extend(failed.iter().copied());
                        calls += 1;
                        let is_down = keys.len() >= KEYS && calls >= CALLS;
                        let turned = breaker.fail(failed, DOWN, is_probing, now, fraction);
                        prop_assert_eq!(turned, is_down && (closed_at.is_none() || is_probing));
                        if turned {
                            (closed_at, is_probing) = (Some(now), false);
                        }
                    }
                    Event::Succeed => {
                        prop_assert_eq!(breaker.succeed(), closed_at.is_some());
                        (keys, calls, closed_at, is_probing) = (std::collections::BTreeSet::new(), 0, None, false);
                    }
                }
            }
        }
    }
}
