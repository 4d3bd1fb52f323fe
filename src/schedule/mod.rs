//! When to look: pure, with the clock as an argument.

pub mod due;
pub mod duration;
mod timings;

use std::sync::Arc;

use jiff::Timestamp;

pub use timings::{ALL as TIMINGS, LONGEST, Timing, TimingError, Timings};

/// Reads the wall clock. Slots and marks need it; the shell hands it down.
pub type WallClock = Arc<dyn Fn() -> Timestamp + Send + Sync>;
