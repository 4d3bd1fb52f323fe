//! When to look: pure, with the clock as an argument.

pub mod duration;
mod timings;

pub use timings::{ALL as TIMINGS, LONGEST, Timing, TimingError, Timings};
