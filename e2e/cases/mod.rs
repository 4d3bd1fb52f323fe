//! What the operator does, seen from outside: one file per topic. See `harness` for how a case is written.

mod admission;
mod synced;
mod zz_suite;
