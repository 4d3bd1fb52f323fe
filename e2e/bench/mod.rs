//! `make bench`: what the operator costs and how fast it is, beside a bare client that does the same in the same run.
//!
//! Counts come from the API server's audit log and from the proxy before the backend, times from the audit log; where the operator itself is the
//! only witness the row says so. `docs/benchmarks.md` says what the figures mean.

pub mod counts;
pub mod objects;
pub mod program;
pub mod rows;
pub mod scene;
pub mod table;
