//! The harness: a real operator in a real cluster, with faults at every wire, and what must hold after every test.
//!
//! A case is a `#[tokio::test(flavor = "multi_thread")]` in `e2e/cases/`:
//!
//! ```ignore
//! let world = World::start().await;                      // a namespace, a control plane of its own, a running operator
//! let store = world.file_store().await;                  // a ClusterSecretStore over an encrypted file that this namespace may use
//! let value = world.canary();                            // a value that must stand in the target and nowhere else
//! store.set("db/password", value.bytes());
//! world.cluster.apply(&format!("kind: ExternalSecret\n…")).await;
//! world.cluster.ready("db").await;                       // waits on watches, never sleeps
//! world.finish().await;                                  // the oracles; a world that is dropped without it fails
//! ```
//!
//! - `plane`: the control planes with `config/default` installed. Operators serve a whole cluster, so a test has one to itself.
//! - `operator`: the process: start, kill, restart, stop, its pages, its log (at trace, searched by the oracles).
//! - `world.proxy`: the fault proxy between the operator and the API server; `world.vault()`, `world.aws(service)` and
//!   `world.moto(service)` have their own before OpenBao, our AWS and moto.
//! - `login`: what a login to Vault must carry, compared with what a proxy saw.
//! - `cluster`: the admin: apply, patch, delete, wait. `audit`: what the API server counted. `history`: every state of every target.
//! - `oracle`: what is checked by `finish`: no value outside its target, no panic, no request outside RBAC, no work at rest, no
//!   target that was wrongly missing, empty or mixed, no status that misleads. Declare what a test means to do (`may_vanish`,
//!   `may_be_refused`, `outruns_status`); everything else is red.

pub mod audit;
pub mod aws;
pub mod canary;
pub mod cluster;
pub mod history;
pub mod kstatus;
pub mod login;
pub mod operator;
pub mod oracle;
pub mod plane;
pub mod process;
pub mod store;
pub mod suite;
#[cfg(test)]
mod tests;
pub mod vault;
pub mod world;

pub use aws::AwsStore;
pub use canary::Canary;
pub use cluster::Cluster;
pub use login::Login;
pub use operator::Settings;
pub use store::FileStore;
pub use vault::VaultStore;
pub use world::World;
