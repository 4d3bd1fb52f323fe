//! When to look, and who has to know: pure, with the clock as an argument.
//!
//! [`Ledger`] is the state machine that `refresh/` drives. Times are nanoseconds: on the monotonic clock from any fixed moment, in
//! wall time from 1970.

mod brake;
pub mod check;
pub mod due;
pub mod duration;
mod ledger;
pub mod slots;
#[cfg(test)]
mod tests;
mod timings;
mod track;

use std::sync::Arc;

use jiff::Timestamp;

use crate::{
    digest::ShortMac,
    fault::{Reason, Retry},
    item::Item,
    name::ObjectKey,
};

pub use ledger::{Chunk, Counts, Ledger};
pub use slots::SHORTEST_INTERVAL;
pub use timings::{ALL as TIMINGS, LONGEST, Timing, TimingError, Timings};

/// Reads the wall clock. Slots and marks need it; the shell hands it down.
pub type WallClock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// One moment on both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    pub mono: i64,
    pub wall: i64,
}

impl Moment {
    fn mono_of(self, wall: i64) -> i64 {
        self.mono.saturating_add(wall.saturating_sub(self.wall))
    }

    fn wall_of(self, mono: i64) -> i64 {
        self.wall.saturating_add(mono.saturating_sub(self.mono))
    }
}

/// What a look saw, as far as the clock and the users care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    Value(ShortMac),
    Fault { reason: Reason, retry: Retry },
}

impl Seen {
    fn view(self) -> View {
        match self {
            Self::Value(mac) => View::Value(mac),
            Self::Fault { reason, .. } => View::Fault(reason),
        }
    }
}

/// What somebody knows of an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum View {
    Unseen,
    Value(ShortMac),
    Fault(Reason),
}

/// One item of a registration.
#[derive(Clone, Debug)]
pub struct Enrolment {
    pub item: Item,
    /// What the object dealt with last.
    pub known: Option<ShortMac>,
    /// How looking at it failed last.
    pub failing: Option<(Reason, Retry)>,
}

impl Enrolment {
    fn view(&self) -> View {
        match (self.failing, self.known) {
            (Some((reason, _)), _) => View::Fault(reason),
            (None, Some(mac)) => View::Value(mac),
            (None, None) => View::Unseen,
        }
    }
}

/// An object that has to be reconciled with looks that began at or after `not_before`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waking {
    pub object: ObjectKey,
    pub not_before: i64,
    pub cause: Cause,
}

/// Why an object is woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Cause {
    Changed,
    Failing,
    Recovered,
    Asked,
    AbsenceConfirmed,
}

/// What is known about the absence of an item's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absence {
    /// The last look did not find it missing.
    None,
    /// Missing since this moment, not yet twice far enough apart.
    First { since: i64 },
    /// Two consecutive misses, `timings.misses` or more apart.
    Confirmed,
}
