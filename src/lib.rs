//! Keyferry: an operator that ferries secrets from where they live into Kubernetes `Secret`s.
//!
//! Folders are layers and imports go one way; `ARCHITECTURE.md` has the map and `tests/architecture.rs` holds it.

pub mod crd;
pub mod digest;
pub mod fault;
pub mod item;
pub mod name;
pub mod secret;

pub mod access;
pub mod schedule;
pub mod select;

pub mod backend;
pub mod cache;
pub mod cluster;
pub mod governor;
pub mod metrics;
pub mod signal;

pub mod cli;
pub mod controller;
pub mod engine;
pub mod refresh;

pub mod config;
pub mod telemetry;
