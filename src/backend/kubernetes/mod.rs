//! Provider `kubernetes`: Secrets and ConfigMaps of one namespace of this or another cluster, under a credential of the store's own.
//!
//! Their metadata is watched, so that a change is looked at when it happens and what did not change is not read again. The three
//! outcomes are decided here; `answer` reads what the server said, `failure` says what can go wrong and what to do about it,
//! `connection` talks, `watch` keeps the `board` current. It speaks to the API server as to any other backend: no part of
//! it knows the operator's own client or rights.

mod answer;
mod board;
mod connection;
mod failure;
mod kubeconfig;
mod place;
#[cfg(test)]
mod tests;
mod watch;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use futures::stream::BoxStream;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::{
    backend::{Backend, Credentials, List, Probe, Settings, Traits, not_found},
    crd::v1alpha1::KubernetesProvider,
    fault::{Fault, Reason},
    item::{Hint, Listing, Reading},
    name::{RemoteKey, RemoteRef, StoreName},
};
use answer::{Kept, Mark};
use board::Board;
use connection::{Connection, View, timed};
use failure::Failure;
use place::{Resource, place};
use watch::Subject;

/// Where objects are read when the store does not say, as in ESO.
const DEFAULT_NAMESPACE: &str = "default";

/// Builds the session of a store.
///
/// # Errors
/// `InvalidSpec` naming the field that cannot work, `StoreNotReady` without a usable credential, `NotAllowed` for a kubeconfig that
/// reaches into the operator's machine and for an address to which a tenant's store may not lead.
pub fn open(
    store: &StoreName,
    spec: &KubernetesProvider,
    credentials: &Credentials,
    settings: &Settings,
) -> Result<Arc<dyn Backend>, Fault> {
    let namespace = spec.remote_namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE);
    let is_label =
        |text: &str| text.len() <= 63 && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    if namespace.is_empty() || !is_label(namespace) {
        return Err(Fault::invalid(Reason::InvalidSpec, "provider.kubernetes.remoteNamespace is no name of a namespace: correct it"));
    }
    Ok(Arc::new(Kubernetes {
        connection: Arc::new(Connection::open(store, spec, credentials, settings)?),
        namespace: namespace.into(),
        board: Arc::default(),
        watches: Mutex::default(),
        deadline: settings.call_timeout,
    }))
}

struct Kubernetes {
    connection: Arc<Connection>,
    namespace: Arc<str>,
    board: Arc<Board>,
    /// They end with the store.
    watches: Mutex<HashMap<Resource, AbortOnDropHandle<()>>>,
    /// Of a look as a whole: of a read with its look at the namespace, of one page of a list.
    deadline: Duration,
}

impl Kubernetes {
    async fn read(&self, wanted: &RemoteRef) -> Reading {
        let subject = format!("remote key {:?}", wanted.key.as_str());
        if wanted.version.is_some() {
            return Reading::Unknown(Failure::NoVersions.fault(&subject));
        }
        match timed(Instant::now() + self.deadline, self.look(wanted)).await {
            Ok(Kept::Object(fetched)) => Reading::Found(fetched),
            Ok(Kept::Nothing) => Reading::Absent(not_found(&wanted.key)),
            Err(failure) => Reading::Unknown(failure.fault(&subject)),
        }
    }

    /// What is kept under the key. `Nothing` is said only when the namespace is there: without it everything is missing.
    async fn look(&self, wanted: &RemoteRef) -> Result<Kept, Failure> {
        let (resource, name) = place(&wanted.key);
        self.attend(resource);
        let path = format!("{}/{name}", resource.path(&self.namespace));
        let kept = if wanted.is_metadata {
            answer::beside(&self.connection.get(&path, View::Metadata).await?, resource, &self.namespace, name)?
        } else {
            answer::object(&self.connection.get(&path, View::Whole).await?, resource, &self.namespace, name)?
        };
        if matches!(kept, Kept::Nothing) {
            self.see_namespace(resource).await?;
        }
        Ok(kept)
    }

    /// All objects of a kind. There being none is said only when the namespace is there: the server lists nothing without it, too.
    async fn look_at_all(&self, resource: Resource) -> Result<BTreeMap<String, Mark>, Failure> {
        let (objects, _) = watch::list(&self.subject(resource)).await?;
        if objects.is_empty() {
            self.see_namespace(resource).await?;
        }
        Ok(objects)
    }

    /// Succeeds when the namespace is there to stay. A Role that does not show it still proves it, if what it allows it allows there
    /// only: then it stands in that namespace itself.
    async fn see_namespace(&self, resource: Resource) -> Result<(), Failure> {
        let path = format!("/api/v1/namespaces/{}", self.namespace);
        match answer::namespace(&self.connection.get(&path, View::Whole).await?, &self.namespace) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Failure::NoNamespace),
            Err(Failure::Denied) => {
                let review = match resource {
                    Resource::Secret => MAY_GET_SECRETS_ANYWHERE,
                    Resource::ConfigMap => MAY_GET_CONFIG_MAPS_ANYWHERE,
                };
                let answer = self.connection.post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review).await?;
                if answer::is_allowed(&answer)? { Err(Failure::NamespaceUnseen) } else { Ok(()) }
            }
            Err(failure) => Err(failure),
        }
    }

    /// Watches that kind from now on.
    fn attend(&self, resource: Resource) {
        let mut watches = self.watches.lock().unwrap_or_else(PoisonError::into_inner);
        watches
            .entry(resource)
            .or_insert_with(|| AbortOnDropHandle::new(tokio::spawn(watch::keep(self.subject(resource), self.board.clone()))));
    }

    /// Resolves when the watch of that kind stands, or did not come about: a watch that is about to begin is worth waiting for, because
    /// whoever asks would read everything once more.
    async fn shown(&self, resource: Resource) {
        self.attend(resource);
        self.board.begun(resource).await;
    }

    fn subject(&self, resource: Resource) -> Subject {
        let (connection, namespace) = (self.connection.clone(), self.namespace.clone());
        Subject { connection, namespace, resource, deadline: self.deadline }
    }
}

const MAY_GET_SECRETS_ANYWHERE: &str = r#"{"apiVersion":"authorization.k8s.io/v1","kind":"SelfSubjectAccessReview","spec":{"resourceAttributes":{"verb":"get","version":"v1","resource":"secrets"}}}"#;
const MAY_GET_CONFIG_MAPS_ANYWHERE: &str = r#"{"apiVersion":"authorization.k8s.io/v1","kind":"SelfSubjectAccessReview","spec":{"resourceAttributes":{"verb":"get","version":"v1","resource":"configmaps"}}}"#;

#[async_trait]
impl Backend for Kubernetes {
    /// There is no call that reads several by name.
    fn batch_size(&self) -> usize {
        1
    }

    async fn fetch(&self, refs: &[RemoteRef]) -> Vec<Reading> {
        let mut readings = Vec::with_capacity(refs.len());
        for wanted in refs {
            readings.push(self.read(wanted).await);
        }
        readings
    }

    /// Asks for the namespace. A login that may read everywhere and see no namespace is good all the same: it proves no absence, and
    /// whoever needs one is told so.
    async fn check(&self) -> Result<Traits, Fault> {
        match timed(Instant::now() + self.deadline, self.see_namespace(Resource::Secret)).await {
            Ok(()) | Err(Failure::NamespaceUnseen) => Ok(Traits::default()),
            Err(failure) => Err(failure.fault("login check")),
        }
    }

    fn lister(&self) -> Option<&dyn List> {
        Some(self)
    }

    fn prober(&self) -> Option<&dyn Probe> {
        Some(self)
    }

    fn changes(&self) -> Option<BoxStream<'static, Hint>> {
        Some(self.board.hints())
    }
}

/// The kind that a path of a search names, and what stands below it.
fn searched(path: Option<&str>) -> (Resource, bool) {
    match path {
        None => (Resource::Secret, true),
        Some(place::CONFIG_MAPS) => (Resource::ConfigMap, true),
        // Names have no folders.
        Some(_) => (Resource::Secret, false),
    }
}

fn tagged<'a>(objects: &'a BTreeMap<String, Mark>, tags: &'a BTreeMap<String, String>) -> impl Iterator<Item = (&'a String, &'a Mark)> {
    objects.iter().filter(|(_, mark)| tags.iter().all(|(name, value)| mark.labels.get(name) == Some(value)))
}

#[async_trait]
impl List for Kubernetes {
    async fn list(&self, path: Option<&str>) -> Result<Vec<RemoteKey>, Fault> {
        self.list_tagged(path, &BTreeMap::new()).await
    }

    /// Tags are labels. Always asks the server: what a watch shows may be behind.
    async fn list_tagged(&self, path: Option<&str>, tags: &BTreeMap<String, String>) -> Result<Vec<RemoteKey>, Fault> {
        let (resource, has_names) = searched(path);
        self.attend(resource);
        let listed = timed(Instant::now() + self.deadline, self.look_at_all(resource)).await;
        let objects = listed.map_err(|failure| failure.fault(&format!("list of the {}", resource.plural())))?;
        Ok(tagged(&objects, tags).filter(|_| has_names).filter_map(|(name, _)| resource.key(name)).collect())
    }
}

#[async_trait]
impl Probe for Kubernetes {
    async fn version(&self, wanted: &RemoteRef) -> Option<String> {
        let (resource, name) = place(&wanted.key);
        self.shown(resource).await;
        self.board.version(resource, name).filter(|_| wanted.version.is_none())
    }

    async fn versions(&self, listing: &Listing) -> Option<BTreeMap<RemoteKey, String>> {
        let (resource, has_names) = searched(listing.path.as_ref().map(RemoteKey::as_str));
        self.shown(resource).await;
        let objects = self.board.objects(resource).filter(|_| has_names)?;
        Some(tagged(&objects, &listing.tags).filter_map(|(name, mark)| Some((resource.key(name)?, mark.version.clone()))).collect())
    }
}
