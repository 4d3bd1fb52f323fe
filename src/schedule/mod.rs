//! When to look: pure, with the clock as an argument.

mod timings;

pub use timings::{ALL as TIMINGS, Timing, TimingError, Timings};
