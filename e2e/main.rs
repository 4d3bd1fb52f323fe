//! The suite against a real API server and real backends.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    clippy::too_many_lines,
    reason = "the suite fails by panicking, tells what it did, starts processes and clients of its own, and measures time"
)]

mod backends;
mod cases;
mod contract;
mod harness;
mod proxy;
