//! What a backend is: batch in, batch out, three outcomes per reference. A provider's folder holds auth, request and decode, and nothing else.
//!
//! Must not be here: caching, retries, rate limits (they stand above, once, for all), Kubernetes objects other than the provider block.

#[cfg(feature = "aws-client")]
pub mod aws;
pub mod endpoint;
pub mod env;
pub mod fake;
pub mod file;
pub mod kubernetes;
pub mod transport;
#[cfg(feature = "vault")]
pub mod vault;

use std::{collections::BTreeMap, fmt, path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::stream::BoxStream;

use crate::{
    access::Role,
    crd::v1alpha1::Provider,
    fault::{Fault, Reason},
    item::{Fetched, Hint, Listing, Reading},
    name::{RemoteKey, RemoteRef, StoreName},
    secret::SecretValue,
};

/// The read power, which every backend has.
#[async_trait]
pub trait Backend: Send + Sync {
    /// How many references one call to the system takes; the caller never passes more to [`Backend::fetch`], and only such as share it.
    /// At least 1.
    fn batch_size(&self) -> usize;

    /// With which others it is read by one call: those that say the same; none for what is read alone. All with all by default.
    fn shares(&self, _wanted: &RemoteRef) -> Option<String> {
        Some(String::new())
    }

    /// Exactly one reading per reference, in the same order. Never panics on what a server answers; keeps its own deadline.
    async fn fetch(&self, refs: &[RemoteRef]) -> Vec<Reading>;

    /// Whether the store can be used as it is configured: reachable, logged in, the right engine. Reads no value, and costs the system
    /// as little as it can. What depends on nothing outside the process passes.
    ///
    /// # Errors
    /// The fault that every look at the store would meet.
    async fn check(&self) -> Result<Traits, Fault> {
        Ok(Traits::default())
    }

    /// The power to list names, if the system has it.
    fn lister(&self) -> Option<&dyn List> {
        None
    }

    /// The power to tell versions without reading values, if the system has it.
    fn prober(&self) -> Option<&dyn Probe> {
        None
    }

    /// The power to write, if the system has it and this store may.
    fn writer(&self) -> Option<&dyn Write> {
        None
    }

    /// Whether a value that was delivered may end before its next look is due, and nobody in this process attends to it: a lease that the
    /// process before has taken. Such a value is looked at at once.
    fn is_unattended(&self, _wanted: &RemoteRef) -> bool {
        false
    }

    /// No object uses the value any more. A backend that leases values may end the lease.
    async fn release(&self, _wanted: &RemoteRef) {}

    /// Hints of what changed, if the system gives any. Hints only: polling stays the truth.
    fn changes(&self) -> Option<BoxStream<'static, Hint>> {
        None
    }
}

/// What a check found out about a system that its powers do not show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traits {
    /// Older versions of a value can be asked for.
    pub has_versions: bool,
}

/// The power to list.
#[async_trait]
pub trait List: Send + Sync {
    /// All names below `path` (all when `None`), recursively and completely, in canonical form relative to the store's root: of values that
    /// are current, and of those that the system still has and does not give (deleted softly, disabled, expired), which reading then says.
    /// A page that fails, fails the list: an incomplete list would look like deletions.
    ///
    /// # Errors
    /// The fault that kept the list from being complete.
    async fn list(&self, path: Option<&str>) -> Result<Vec<RemoteKey>, Fault>;

    /// The same, without what lacks one of these tags: what the system itself keeps beside each value (labels, custom metadata).
    ///
    /// # Errors
    /// As [`List::list`]; `InvalidSpec` where tags are asked for and the system keeps none, which is what this does by itself.
    async fn list_tagged(&self, path: Option<&str>, tags: &BTreeMap<String, String>) -> Result<Vec<RemoteKey>, Fault> {
        if tags.is_empty() {
            return self.list(path).await;
        }
        let detail = "find.tags: the store's provider keeps no tags beside its values: remove them, or search by name";
        Err(Fault::invalid(Reason::InvalidSpec, detail))
    }

    /// Whether the names below this path cost no more with their values than without. Then a search that takes all of them asks for
    /// [`List::list_values`]; one that takes some does not, since it may not read the others.
    fn gives_values(&self, _path: Option<&str>) -> bool {
        false
    }

    /// What [`List::list`] names, with its current values; `None` where it has to be listed and read after all. Asked only where
    /// [`List::gives_values`] said so.
    ///
    /// # Errors
    /// As [`List::list`].
    async fn list_values(&self, _path: Option<&str>) -> Result<Option<BTreeMap<RemoteKey, Fetched>>, Fault> {
        Ok(None)
    }
}

/// The power to tell, without reading a value, which version of it is current.
#[async_trait]
pub trait Probe: Send + Sync {
    /// The current version; `None` where nothing proves it, or there is no value.
    async fn version(&self, wanted: &RemoteRef) -> Option<String>;

    /// The current version of every value that a listing names; `None` where nothing proves that these are all.
    async fn versions(&self, listing: &Listing) -> Option<BTreeMap<RemoteKey, String>>;
}

/// What a write expects to find; it changes nothing where it finds something else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    Anything,
    /// No version at all.
    Nothing,
    /// This one as the current version.
    Version(String),
}

/// What became of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Written {
    /// It is the current version now.
    Version(String),
    /// Something else stands there than was expected: nothing was written.
    Changed,
}

/// The power to write, for pushing and rotating. A fault means that nobody knows whether it was done; a write that expects a version may
/// be repeated.
#[async_trait]
pub trait Write: Send + Sync {
    /// Writes a new version.
    ///
    /// # Errors
    /// `InvalidData` for a value that the system cannot keep; else the fault of the call.
    async fn put(&self, key: &RemoteKey, value: &SecretValue, expected: &Expected) -> Result<Written, Fault>;

    /// Writes a new version with these members of a map changed; those that are null are removed.
    ///
    /// # Errors
    /// As [`Write::put`].
    async fn patch(&self, key: &RemoteKey, value: &SecretValue, expected: &Expected) -> Result<Written, Fault>;

    /// Deletes the current version so that it can be had back; nothing happens where there is none.
    ///
    /// # Errors
    /// The fault of the call.
    async fn delete(&self, key: &RemoteKey) -> Result<(), Fault>;

    /// Takes the deletion of a version back.
    ///
    /// # Errors
    /// The fault of the call.
    async fn undelete(&self, key: &RemoteKey, version: &str) -> Result<(), Fault>;

    /// Replaces what the system keeps beside the values for its users.
    ///
    /// # Errors
    /// The fault of the call.
    async fn set_metadata(&self, key: &RemoteKey, metadata: &BTreeMap<String, String>) -> Result<(), Fault>;
}

/// What the admin set for backends on this machine; never from a spec.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Root folder of provider `file`; none means that the provider is refused.
    pub file_root: Option<PathBuf>,
    /// Root folder of the trees of plain files; none means that they are refused.
    pub file_tree_root: Option<PathBuf>,
    /// File that holds the master key of provider `file` (32 bytes, base64).
    pub file_master_key: Option<PathBuf>,
    /// Whether a namespaced store may use `<root>/<namespace>/`.
    pub file_namespaced: bool,
    /// The process's environment, read once at start, for provider `env`.
    pub environment: BTreeMap<String, SecretValue>,
    /// Deadline of one call to a backend, connect included.
    pub call_timeout: Duration,
    /// The forward proxies that clients of backends go through.
    pub proxies: transport::Proxies,
    /// Where stores of tenants may lead.
    pub endpoints: endpoint::Endpoints,
    /// The API server of the cluster in which the operator works, for provider `kubernetes`.
    pub api_server: Option<ApiServer>,
    /// The sessions of provider `aws` that its stores share.
    #[cfg(feature = "aws-client")]
    pub logins: aws::Logins,
}

/// An API server as the operator itself knows it. Not the operator's right to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiServer {
    pub url: String,
    /// Certificates (DER) that sign the server's; without any, the system's own authorities.
    pub authorities: Vec<Vec<u8>>,
}

/// Mints tokens of a ServiceAccount for a login.
#[async_trait]
pub trait TokenSource: fmt::Debug + Send + Sync {
    /// A token that is valid for a third of its life at least.
    ///
    /// # Errors
    /// `StoreNotReady` with what to do: no consent, no right, no API server.
    async fn token(&self) -> Result<SecretValue, Fault>;

    /// The token that was given last was refused: the next one is a new one.
    async fn forget(&self);

    /// What the account says of itself under that name.
    ///
    /// # Errors
    /// As [`TokenSource::token`].
    async fn annotation(&self, _name: &str) -> Result<Option<String>, Fault> {
        Ok(None)
    }
}

/// What a provider's `auth` names, already read.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    pub secrets: BTreeMap<Role, SecretValue>,
    pub tokens: Option<Arc<dyn TokenSource>>,
}

/// Opens a store: builds the client of its provider. Cheap; does not need the backend to be reachable.
///
/// # Errors
/// A fault when the settings or the provider block cannot work, naming field and remedy.
pub fn open(store: &StoreName, provider: Provider<'_>, credentials: &Credentials, settings: &Settings) -> Result<Arc<dyn Backend>, Fault> {
    match provider {
        Provider::File(spec) => file::open(store, spec, credentials, settings),
        Provider::Env(spec) => env::open(store, spec, settings),
        Provider::Fake(spec) => Ok(fake::open(spec)),
        Provider::Kubernetes(spec) => kubernetes::open(store, spec, credentials, settings),
        #[cfg(feature = "aws-client")]
        Provider::Aws(spec) => aws::open(store, spec, credentials, settings),
        #[cfg(not(feature = "aws-client"))]
        Provider::Aws(_) => Err(Fault::invalid(Reason::InvalidSpec, "this build has no provider aws: use an image built with the feature")),
        #[cfg(feature = "vault")]
        Provider::Vault(spec) => vault::open(store, spec, credentials, settings),
        #[cfg(not(feature = "vault"))]
        Provider::Vault(_) => {
            Err(Fault::invalid(Reason::InvalidSpec, "this build has no provider vault: use an image built with the feature"))
        }
    }
}

/// The fault of a provider that keeps nothing beside its values.
#[must_use]
pub fn no_metadata(key: &RemoteKey, provider: &str) -> Fault {
    let key = key.as_str();
    let detail = format!("remote key {key:?}: metadataPolicy: Fetch: {provider} keeps no metadata beside its values: remove it");
    Fault::invalid(Reason::InvalidSpec, detail)
}

/// The fault of a backend that answers with something that is not there by its own word.
#[must_use]
pub fn not_found(key: &RemoteKey) -> Fault {
    Fault::absent(Reason::NotFound, format!("remote key {key:?} does not exist: create it or correct the key", key = key.as_str()))
}
