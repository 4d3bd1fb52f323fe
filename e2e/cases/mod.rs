//! What the operator does, seen from outside: one file per topic. See `harness` for how a case is written.

mod admission;
mod api_server;
#[cfg(feature = "aws-sm")]
mod aws;
mod costs;
mod deletion;
mod dependencies;
mod faults;
mod files;
mod footprint;
mod input;
mod install;
mod kills;
mod kubernetes;
mod newcomer;
mod operations;
mod outage;
mod outbound;
mod ownership;
#[cfg(feature = "aws-ssm")]
mod parameter_store;
mod parameters;
mod refresh;
mod schedule;
mod stores;
mod synced;
mod tenancy;
mod vault_leases;
mod vault_logins;
mod zz_suite;

/// An ExternalSecret of the namespace that reads from a cluster-wide store; `more` are further lines of its spec, indented by two.
fn external(name: &str, store: &str, more: &str) -> String {
    format!(
        "kind: ExternalSecret\nmetadata: {{name: {name}}}\nspec:\n  secretStoreRef: {{kind: ClusterSecretStore, name: {store}}}\n{more}"
    )
}

/// One that reads the whole value of each key: `(key in the Secret, key in the store)`.
fn whole_values(name: &str, store: &str, more: &str, keys: &[(&str, &str)]) -> String {
    let entries = keys.iter().map(|(key, remote)| format!("    - {{secretKey: {key}, remoteRef: {{key: {remote}}}}}\n"));
    external(name, store, &format!("{more}  data:\n{}", entries.collect::<String>()))
}
