//! All waiting times of the operator, in one admin-only table: names, meanings, defaults, and which of them guard data.
//!
//! Counts and percentages are not in it. Tests shorten these on the real binary.

use std::time::Duration;

/// What is known about one waiting time besides its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Its name in flag, environment and file.
    pub name: &'static str,
    /// What waits for it.
    pub meaning: &'static str,
    pub default: Duration,
    /// Whether a shorter time weakens a safeguard: said at start and shown as a metric.
    pub safety: bool,
}

/// The longest time that can be set: far beyond use, and clocks can add it without overflow.
pub const LONGEST: Duration = Duration::from_hours(366 * 24);

macro_rules! timings {
    ($($(#[doc = $meaning:literal])+ $field:ident $name:literal = $default:expr, $safety:literal;)+) => {
        /// The waiting times in force.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct Timings {
            $($(#[doc = $meaning])+ pub $field: Duration,)+
        }

        /// Every waiting time, in the order of the documentation.
        pub const ALL: &[Timing] = &[
            $(Timing { name: $name, meaning: concat!($($meaning),+), default: $default, safety: $safety },)+
        ];

        impl Default for Timings {
            fn default() -> Self {
                Self { $($field: $default,)+ }
            }
        }

        impl Timings {
            /// The value under a name of [`ALL`].
            #[must_use]
            pub fn get(&self, name: &str) -> Option<Duration> {
                match name {
                    $($name => Some(self.$field),)+
                    _ => None,
                }
            }

            fn slot(&mut self, name: &str) -> Option<&mut Duration> {
                match name {
                    $($name => Some(&mut self.$field),)+
                    _ => None,
                }
            }
        }
    };
}

timings! {
    /// Least time that Ready stays True while looks fail (else three intervals).
    staleness "staleness" = Duration::from_hours(1), false;
    /// Longest time that Ready stays True while looks fail, however long the interval.
    staleness_max "stalenessMax" = Duration::from_hours(24), false;
    /// Pause before a key that the backend refused is asked for again.
    denied "denied" = Duration::from_mins(10), false;
    /// First pause after a key was absent; it triples with each miss, up to the interval.
    absent "absent" = Duration::from_secs(10), false;
    /// Least time between the two misses that a deletion by absence needs.
    misses "misses" = Duration::from_mins(1), true;
    /// Least time before a list that shrank by more than half is believed.
    shrink "shrink" = Duration::from_secs(10), true;
    /// Window in which items that turn absent are counted for the brake on deletions.
    brake_window "brakeWindow" = Duration::from_hours(1), true;
    /// Window in which the third repair of one key stops repairing it.
    repair_window "repairWindow" = Duration::from_mins(5), true;
    /// Least time between two re-creations of one target.
    recreation "recreation" = Duration::from_secs(10), true;
    /// First pause after a failure of the API server, or of a backend that is unavailable; it doubles.
    backoff "backoff" = Duration::from_secs(1), false;
    /// Longest pause after a failure of the API server, and longest patience that a backend can ask for.
    backoff_max "backoffMax" = Duration::from_mins(5), false;
    /// Longest pause between looks at a store that does not answer; the first is the backoff, and it doubles.
    outage "outage" = Duration::from_secs(5), false;
    /// How long a Lease lasts that nobody renews.
    lease_duration "leaseDuration" = Duration::from_secs(15), true;
    /// How long the leader goes on without a renewal before it ends itself.
    lease_renew "leaseRenew" = Duration::from_secs(10), false;
    /// Pause between two attempts to take or renew the Lease.
    lease_retry "leaseRetry" = Duration::from_secs(2), false;
}

/// Why a waiting time cannot be set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TimingError {
    #[error("unknown timing {0:?}: known are {known}", known = names())]
    Unknown(String),
    #[error("timing {0} must be longer than zero")]
    Zero(&'static str),
    #[error("timing {0} must be at most 366 days")]
    TooLong(&'static str),
    #[error("timings must keep leaseRetry < leaseRenew < leaseDuration, else a leader would end itself or not know that it was replaced")]
    LeaseOrder,
    #[error("timing {0} must not be longer than {1}")]
    Order(&'static str, &'static str),
}

fn names() -> String {
    ALL.iter().map(|timing| timing.name).collect::<Vec<_>>().join(", ")
}

impl Timings {
    /// Sets one time by its name.
    ///
    /// # Errors
    /// When the name is unknown, or the time is zero or beyond [`LONGEST`].
    pub fn set(&mut self, name: &str, value: Duration) -> Result<(), TimingError> {
        let timing = ALL.iter().find(|timing| timing.name == name).ok_or_else(|| TimingError::Unknown(name.to_owned()))?;
        if value.is_zero() {
            return Err(TimingError::Zero(timing.name));
        }
        if value > LONGEST {
            return Err(TimingError::TooLong(timing.name));
        }
        if let Some(slot) = self.slot(timing.name) {
            *slot = value;
        }
        Ok(())
    }

    /// Whether the times go together.
    ///
    /// # Errors
    /// The pair that does not.
    pub fn check(&self) -> Result<(), TimingError> {
        if self.lease_retry >= self.lease_renew || self.lease_renew >= self.lease_duration {
            return Err(TimingError::LeaseOrder);
        }
        if self.staleness > self.staleness_max {
            return Err(TimingError::Order("staleness", "stalenessMax"));
        }
        if self.backoff > self.backoff_max {
            return Err(TimingError::Order("backoff", "backoffMax"));
        }
        Ok(())
    }

    /// Whether the API server counts as gone when so much is left of a leadership: at least two renewals failed, and half of the time in
    /// which one must succeed is over.
    #[must_use]
    pub fn is_silent(&self, left: Duration) -> bool {
        self.lease_renew.saturating_sub(left) > (self.lease_renew / 2).max(self.lease_retry * 2)
    }

    /// The times that guard data and are shorter than their defaults.
    pub fn weakened(&self) -> impl Iterator<Item = &'static Timing> {
        ALL.iter().filter(|timing| timing.safety && self.get(timing.name).is_some_and(|value| value < timing.default))
    }
}

#[cfg(test)]
mod tests {
    use super::{ALL, LONGEST, TimingError, Timings};
    use std::time::Duration;

    #[test]
    fn every_name_of_the_table_can_be_set_and_read_back() {
        for timing in ALL {
            let mut timings = Timings::default();
            assert_eq!(timings.get(timing.name), Some(timing.default), "{}", timing.name);
            timings.set(timing.name, Duration::from_millis(7)).unwrap();
            assert_eq!(timings.get(timing.name), Some(Duration::from_millis(7)), "{}", timing.name);
            let changed: Vec<_> =
                ALL.iter().filter(|other| timings.get(other.name) != Some(other.default)).map(|other| other.name).collect();
            assert_eq!(changed, [timing.name]);
        }
    }

    #[test]
    fn only_safety_times_below_their_default_count_as_weakened() {
        let mut timings = Timings::default();
        assert_eq!(timings.weakened().count(), 0);
        timings.set("denied", Duration::from_secs(1)).unwrap();
        timings.set("misses", Duration::from_secs(61)).unwrap();
        assert_eq!(timings.weakened().count(), 0);
        timings.set("misses", Duration::from_secs(59)).unwrap();
        timings.set("shrink", Duration::from_secs(1)).unwrap();
        assert_eq!(timings.weakened().map(|timing| timing.name).collect::<Vec<_>>(), ["misses", "shrink"]);
    }

    #[test]
    fn the_api_server_counts_as_gone_after_two_renewals_and_half_of_the_time() {
        let mut timings = Timings::default();
        let silent = |timings: &Timings| (0..=10).find(|since| timings.is_silent(Duration::from_secs(10 - since)));
        assert_eq!(silent(&timings), Some(6));
        timings.set("leaseRetry", Duration::from_secs(4)).unwrap();
        assert_eq!(silent(&timings), Some(9));
        timings.set("leaseRetry", Duration::from_secs(5)).unwrap();
        assert_eq!(silent(&timings), None, "there is no time to tell");
        assert!(!timings.is_silent(Duration::MAX));
    }

    #[test]
    fn times_that_cannot_work_are_refused_by_name() {
        let mut timings = Timings::default();
        assert_eq!(timings.set("denied", Duration::ZERO), Err(TimingError::Zero("denied")));
        assert_eq!(timings.set("denied", Duration::MAX), Err(TimingError::TooLong("denied")));
        let unknown = timings.set("staleness ", Duration::from_secs(1)).unwrap_err().to_string();
        assert!(unknown.contains("known are staleness, stalenessMax, denied"), "{unknown}");
        assert_eq!(timings, Timings::default());
        timings.set("denied", LONGEST).unwrap();
    }

    #[test]
    fn two_times_of_the_same_length_are_in_order() {
        let mut timings = Timings::default();
        timings.set("staleness", timings.staleness_max).unwrap();
        timings.set("backoff", timings.backoff_max).unwrap();
        assert_eq!(timings.check(), Ok(()));
    }

    #[test]
    fn times_that_contradict_each_other_are_refused() {
        let cases = [
            ("leaseRenew", 15, TimingError::LeaseOrder),
            ("leaseRetry", 10, TimingError::LeaseOrder),
            ("staleness", 24 * 3600 + 1, TimingError::Order("staleness", "stalenessMax")),
            ("backoffMax", 0, TimingError::Order("backoff", "backoffMax")),
        ];
        for (name, seconds, error) in cases {
            let mut timings = Timings::default();
            timings.set(name, Duration::from_secs(seconds).max(Duration::from_millis(1))).unwrap();
            assert_eq!(timings.check(), Err(error), "{name}");
        }
        assert_eq!(Timings::default().check(), Ok(()));
    }
}
