//! The suite against a real API server and real backends.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    clippy::too_many_lines,
    clippy::default_trait_access,
    clippy::format_collect,
    clippy::type_complexity,
    clippy::needless_pass_by_value,
    clippy::needless_for_each,
    clippy::zombie_processes,
    reason = "the suite fails by panicking, tells what it did, starts processes and clients of its own, measures time, and its tables are read once"
)]

mod backends;
/// What `make bench` counts.
mod bench {
    pub mod counts;
    pub mod objects;
}
mod cases;
mod contract;
mod harness;
mod proxy;
