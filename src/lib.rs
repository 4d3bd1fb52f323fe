//! Keyferry: an operator that ferries secrets from where they live into Kubernetes `Secret`s.
//!
//! Folders are layers and imports go one way; `ARCHITECTURE.md` has the map and `tests/architecture.rs` holds it.
