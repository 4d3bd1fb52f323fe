//! Tests without a cluster.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    clippy::too_many_lines,
    reason = "a test fails by panicking, tells what it did, starts processes with an environment of its own, and is a table"
)]

mod architecture;
mod crds;
mod panics;
mod store;
