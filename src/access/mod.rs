//! Who may read what: one verdict per reference, before anything is fetched. Pure.
//!
//! A tenant writes objects in its own namespace and is hostile. Whatever the rules do not admit is refused, in the same words
//! whether or not the thing exists. Only this folder can make a [`Granted`], and `fetch` takes nothing else:
//!
//! ```
//! use keyferry::{access::Granted, item::Item};
//! fn fetch(granted: &Granted<Item>) -> &str { &granted.get().store }
//! # let _ = fetch;
//! ```
//!
//! Fetching without the grant does not compile, neither with the bare item nor with a grant made elsewhere:
//!
//! ```compile_fail,E0308
//! use keyferry::{access::Granted, item::Item};
//! fn fetch(granted: &Granted<Item>) -> &str { &granted.get().store }
//! fn around(item: &Item) -> &str { fetch(item) }
//! ```
//!
//! ```compile_fail,E0423
//! use keyferry::{access::Granted, item::Item};
//! fn forge(item: Item) -> Granted<Item> { Granted(item) }
//! ```

mod condition;
mod credential;
mod pattern;
mod search;
#[cfg(test)]
mod tests;

use std::{
    borrow::Borrow,
    collections::{BTreeMap, BTreeSet},
};

use crate::{
    crd::v1alpha1::{
        AwsService, ClusterSecretStoreSpec, EnvStyle, Find, MetadataPolicy, Provider, ProviderBlock, Reference, RemoteValue,
        SecretStoreSpec, StoreCache, StoreLimits, StoreRef, StoreRefKind,
    },
    fault::{Fault, Reason, quote},
    item::{FindRef, Item, Listing, Wanted},
    name::{KeyError, ObjectKey, ProviderKind, RemoteKey, RemoteRef, StoreName},
};

pub use credential::{CredentialKey, CredentialRefs, Holder, HolderKind, Role, TokenAccount, credential};
pub use pattern::key_allowed;
pub use search::Search;

/// Proof that access was judged: only `access` can make one, and `fetch` takes nothing else.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Granted<T>(T);

impl<T> Granted<T> {
    /// What was granted.
    pub fn get(&self) -> &T {
        &self.0
    }
}

/// A set of grants can be asked for one by what was granted.
impl<T> Borrow<T> for Granted<T> {
    fn borrow(&self) -> &T {
        &self.0
    }
}

/// Who asks: the object's own namespace as the cluster shows it. Nothing of it comes from a spec.
#[derive(Clone, Copy, Debug)]
pub struct Asker<'a> {
    pub namespace: &'a str,
    /// The Namespace's labels, not the object's.
    pub labels: &'a BTreeMap<String, String>,
    /// Namespaces whose objects are never served (kube-system, kube-public, kube-node-lease, the operator's own).
    pub protected: &'a BTreeSet<String>,
}

/// A store that exists.
#[derive(Clone, Copy, Debug)]
pub struct SeenStore<'a> {
    pub name: &'a StoreName,
    pub uid: &'a str,
    pub spec: StoreSpec<'a>,
}

/// The spec of either kind.
#[derive(Clone, Copy, Debug)]
pub enum StoreSpec<'a> {
    Namespaced(&'a SecretStoreSpec),
    Cluster(&'a ClusterSecretStoreSpec),
}

impl<'a> StoreSpec<'a> {
    /// The provider block.
    #[must_use]
    pub fn provider(self) -> &'a ProviderBlock {
        match self {
            Self::Namespaced(spec) => &spec.provider,
            Self::Cluster(spec) => &spec.provider,
        }
    }

    /// How much may be asked of it.
    #[must_use]
    pub fn limits(self) -> Option<&'a StoreLimits> {
        match self {
            Self::Namespaced(spec) => spec.limits.as_ref(),
            Self::Cluster(spec) => spec.limits.as_ref(),
        }
    }

    /// How long its values may be kept.
    #[must_use]
    pub fn cache(self) -> Option<&'a StoreCache> {
        match self {
            Self::Namespaced(spec) => spec.cache.as_ref(),
            Self::Cluster(spec) => spec.cache.as_ref(),
        }
    }

    fn allowed_keys(self) -> Option<&'a [String]> {
        match self {
            Self::Namespaced(spec) => spec.allowed_keys.as_deref(),
            Self::Cluster(spec) => spec.allowed_keys.as_deref(),
        }
    }
}

/// The store that a reference names: a `SecretStore` is always one of the object's own namespace.
#[must_use]
pub fn store_name(object: &ObjectKey, reference: &StoreRef) -> StoreName {
    let name = reference.name.clone();
    match reference.kind.unwrap_or(StoreRefKind::SecretStore) {
        StoreRefKind::SecretStore => StoreName::Namespaced { namespace: object.namespace.clone(), name },
        StoreRefKind::ClusterSecretStore => StoreName::Cluster { name },
    }
}

/// Judges one reference. `seen` is the store of that name, if it exists.
///
/// # Errors
/// - `NotAllowed`: the namespace is protected; the cluster store does not admit it *or does not exist*; no pattern of
///   `allowedKeys` admits the key; the provider is not for this kind of store; the credential stands in another namespace.
/// - `StoreNotReady`: the namespaced store does not exist.
/// - `InvalidSpec`: the key or the regular expression cannot be one.
pub fn judge(asker: &Asker<'_>, store: &StoreName, seen: Option<&SeenStore<'_>>, reference: Reference<'_>) -> Result<Granted<Item>, Fault> {
    if asker.protected.contains(asker.namespace) {
        return Err(Fault::not_allowed("objects in a protected namespace are never served: use another namespace"));
    }
    let seen = admitted(asker, store, seen)?;
    credential(seen)?;
    let wanted = match reference {
        // The property is no matter of access: the whole value is read.
        Reference::Value(value) | Reference::Extract(value) => Wanted::Value(value_wanted(asker, seen, value)?),
        Reference::Find(find) => Wanted::Find(Box::new(find_wanted(asker, seen, find)?)),
    };
    Ok(Granted(Item { store: seen.uid.to_owned(), wanted }))
}

/// What the store's keys look like.
#[must_use]
pub fn provider_kind(provider: Provider<'_>) -> ProviderKind {
    match provider {
        Provider::Vault(_) => ProviderKind::Vault,
        Provider::Aws(aws) => match aws.service {
            AwsService::SecretsManager => ProviderKind::AwsSecretsManager,
            AwsService::ParameterStore => ProviderKind::AwsParameterStore,
        },
        Provider::Kubernetes(_) => ProviderKind::Kubernetes,
        Provider::File(_) => ProviderKind::File,
        Provider::Env(env) => match env.style.unwrap_or_default() {
            EnvStyle::Flat => ProviderKind::Env,
            EnvStyle::Nested => ProviderKind::EnvNested,
        },
        Provider::Fake(_) => ProviderKind::Fake,
    }
}

/// The store, if it is there for this namespace. A cluster store that is missing answers like one that refuses, so that a tenant
/// cannot find out which exist.
fn admitted<'s, 'a>(asker: &Asker<'_>, store: &StoreName, seen: Option<&'s SeenStore<'a>>) -> Result<&'s SeenStore<'a>, Fault> {
    match (store, seen) {
        (StoreName::Namespaced { namespace, .. }, _) if namespace != asker.namespace => {
            Err(Fault::not_allowed("a SecretStore serves only the objects of its own namespace: create one here"))
        }
        (StoreName::Namespaced { name, .. }, None) => {
            let detail = format!("SecretStore {} does not exist in this namespace: create it or correct secretStoreRef", quote(name));
            Err(Fault::new(crate::fault::Class::Unavailable, Reason::StoreNotReady, detail))
        }
        (_, Some(seen)) if seen.name != store => Err(Fault::new(crate::fault::Class::Bug, Reason::StoreNotReady, "another store was looked up")),
        (StoreName::Namespaced { .. }, Some(seen)) => match provider(seen)? {
            Provider::Env(_) => Err(Fault::not_allowed("provider env is for ClusterSecretStores only: use another provider in a SecretStore")),
            Provider::Vault(_) | Provider::Aws(_) | Provider::Kubernetes(_) | Provider::File(_) | Provider::Fake(_) => Ok(seen),
        },
        (StoreName::Cluster { name }, seen) => seen.filter(|seen| admits_namespace(asker, seen)).ok_or_else(|| {
            let (name, namespace) = (quote(name), quote(asker.namespace));
            Fault::not_allowed(format!(
                "ClusterSecretStore {name} does not exist or does not admit namespace {namespace}: correct secretStoreRef, or ask its admin to add a condition"
            ))
        }),
    }
}

fn admits_namespace(asker: &Asker<'_>, seen: &SeenStore<'_>) -> bool {
    match seen.spec {
        StoreSpec::Namespaced(_) => false,
        StoreSpec::Cluster(spec) => {
            spec.allow_all_namespaces.unwrap_or(false)
                || spec.conditions.iter().flatten().any(|condition| condition::matches(condition, asker.namespace, asker.labels))
        }
    }
}

fn provider<'a>(store: &SeenStore<'a>) -> Result<Provider<'a>, Fault> {
    store.spec.provider().provider().ok_or_else(|| {
        Fault::invalid(
            Reason::InvalidSpec,
            format!("{} needs exactly one provider: set one of vault, aws, kubernetes, file, env, fake", store.name),
        )
    })
}

fn value_wanted(asker: &Asker<'_>, store: &SeenStore<'_>, value: &RemoteValue) -> Result<RemoteRef, Fault> {
    let kind = provider_kind(provider(store)?);
    let key = RemoteKey::parse(kind, &value.key).map_err(|error| bad_key(&value.key, error))?;
    match allowed(asker, store, kind) {
        Some(patterns) if !key_allowed(&patterns, &key) => Err(Fault::not_allowed(format!(
            "{} does not allow remote key {} for namespace {}: use a key that its allowedKeys admit, or ask its admin",
            quote(&store.name.to_string()),
            quote(&value.key),
            quote(asker.namespace)
        ))),
        _ => {
            let is_metadata = value.metadata_policy.unwrap_or_default() == MetadataPolicy::Fetch;
            if is_metadata && value.version.is_some() {
                let detail =
                    "metadataPolicy: Fetch and version exclude each other: metadata is kept once for all versions, remove the version";
                return Err(Fault::invalid(Reason::InvalidSpec, detail));
            }
            Ok(RemoteRef { key, version: value.version.clone(), is_metadata })
        }
    }
}

fn find_wanted(asker: &Asker<'_>, store: &SeenStore<'_>, find: &Find) -> Result<FindRef, Fault> {
    let provider = provider_kind(provider(store)?);
    let path = match find.path.as_deref() {
        None => None,
        // "/" is the root, as in ESO manifests.
        Some(path) if provider != ProviderKind::Fake && path.trim_matches('/').is_empty() => None,
        Some(path) if provider == ProviderKind::Kubernetes => kind_searched(path)?,
        Some(path) => Some(RemoteKey::parse(provider, path).map_err(|error| bad_key(path, error))?),
    };
    let listing = Listing { path, tags: find.tags.clone().unwrap_or_default() };
    let wanted = FindRef {
        provider,
        listing,
        regexp: find.name.as_ref().map(|name| name.regexp.clone()),
        allowed: allowed(asker, store, provider),
        is_metadata: find.metadata_policy.unwrap_or_default() == MetadataPolicy::Fetch,
    };
    Search::new(&wanted)?;
    Ok(wanted)
}

/// Names of Secrets and ConfigMaps have no folders: a path says which of the two are searched.
fn kind_searched(path: &str) -> Result<Option<RemoteKey>, Fault> {
    match path.trim_matches('/') {
        "secret" => Ok(None),
        kind @ "configmap" => RemoteKey::parse(ProviderKind::Kubernetes, kind).map(Some).map_err(|error| bad_key(path, error)),
        _ => Err(Fault::invalid(
            Reason::InvalidSpec,
            format!("find.path {} is none of provider kubernetes: remove it (for Secrets), or write configmap", quote(path)),
        )),
    }
}

/// The patterns that bind this namespace; `None` admits every key, an empty list none.
fn allowed(asker: &Asker<'_>, store: &SeenStore<'_>, kind: ProviderKind) -> Option<Vec<String>> {
    store.spec.allowed_keys().map(|patterns| pattern::expand(patterns, kind, asker.namespace))
}

fn bad_key(text: &str, error: KeyError) -> Fault {
    Fault::invalid(Reason::InvalidSpec, format!("remote key {} cannot be used: {error}", quote(text)))
}
