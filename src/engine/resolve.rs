//! Stages 1 and 2. READ: gathers what one reconcile is about from the watch caches; then judges every reference, purely.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use k8s_openapi::{api::core::v1::Namespace, jiff::Timestamp};
use kube::{
    core::PartialObjectMeta,
    runtime::reflector::{ObjectRef, Store},
};

use crate::{
    access::{self, Asker, CredentialRefs, Granted, SeenStore, StoreSpec},
    cluster::target::{TargetFacts, TargetIndex, TargetName},
    crd::{
        condition,
        v1alpha1::{
            ClusterSecretStore, CreationPolicy, DeletionPolicy, Entry, Provider, REFRESH_ANNOTATION, RefreshPolicy, SecretStore,
            StoreStatus, SyncObject, SyncStatus,
        },
    },
    digest::sha256_hex,
    fault::{Fault, Reason},
    governor::Own,
    item::Item,
    name::{ObjectKey, StoreName},
    schedule::{check::Checking, duration},
};

/// How often a value is looked at when the object does not say: one hour.
pub const DEFAULT_INTERVAL: Duration = Duration::from_secs(3600);

/// The caches that the watches feed. Cheap to clone.
#[derive(Clone)]
pub struct World {
    pub secret_stores: Store<SecretStore>,
    pub cluster_stores: Store<ClusterSecretStore>,
    pub namespaces: Store<PartialObjectMeta<Namespace>>,
    pub targets: TargetIndex,
    pub claims: Claims,
    /// Namespaces whose objects are never served.
    pub protected: Arc<BTreeSet<String>>,
}

/// Which objects want which target. Cheap to clone.
#[derive(Clone, Default)]
pub struct Claims(Arc<Mutex<ClaimMap>>);

#[derive(Default)]
struct ClaimMap {
    /// Sorted. Almost every target has one claim: a set would be ten times as large.
    by_target: HashMap<TargetName, Vec<Claim>>,
    by_object: HashMap<ObjectKey, TargetName>,
}

/// Older claims come first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Claim {
    created: Option<Timestamp>,
    uid: String,
    object: ObjectKey,
}

impl Claims {
    fn map(&self) -> std::sync::MutexGuard<'_, ClaimMap> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes an object's wish; true when it is new or has changed. The target that it wanted before may have other claimants: they
    /// see the change by the target that is deleted, or by their own next look.
    pub fn put(&self, object: &SyncObject) -> bool {
        let (key, metadata) = (object.key(), object.metadata());
        let claim = Claim {
            created: metadata.creation_timestamp.as_ref().map(|time| time.0),
            uid: metadata.uid.clone().unwrap_or_default(),
            object: key.clone(),
        };
        let wanted = object.creation_policy() != CreationPolicy::None && metadata.deletion_timestamp.is_none();
        let target = TargetName::new(object.target_kind(), &key.namespace, object.target_name());
        let mut map = self.map();
        let is_known = |claims: &Vec<Claim>| claims.contains(&claim);
        if wanted && map.by_object.get(&key) == Some(&target) && map.by_target.get(&target).is_some_and(is_known) {
            return false;
        }
        let had = map.remove(&key);
        if wanted {
            map.by_object.insert(key, target.clone());
            map.insert(target, claim);
        }
        wanted || had.is_some()
    }

    /// Forgets an object; the target that it wanted.
    pub fn remove(&self, object: &ObjectKey) -> Option<TargetName> {
        self.map().remove(object)
    }

    /// The target that an object wants.
    #[must_use]
    pub fn target_of(&self, object: &ObjectKey) -> Option<TargetName> {
        self.map().by_object.get(object).cloned()
    }

    /// Whether somebody wants that target.
    #[must_use]
    pub fn is_wanted(&self, target: &TargetName) -> bool {
        self.map().by_target.contains_key(target)
    }

    /// Who wants that target, the oldest first.
    #[must_use]
    pub fn of(&self, target: &TargetName) -> Vec<ObjectKey> {
        self.map().by_target.get(target).into_iter().flatten().map(|claim| claim.object.clone()).collect()
    }
}

impl ClaimMap {
    fn insert(&mut self, target: TargetName, claim: Claim) {
        let Some(claims) = self.by_target.get_mut(&target) else {
            self.by_target.insert(target, vec![claim]);
            return;
        };
        let at = claims.partition_point(|known| *known < claim);
        claims.insert(at, claim);
    }

    fn remove(&mut self, object: &ObjectKey) -> Option<TargetName> {
        let target = self.by_object.remove(object)?;
        if let Some(claims) = self.by_target.get_mut(&target) {
            claims.retain(|claim| claim.object != *object);
            if claims.is_empty() {
                self.by_target.remove(&target);
            }
        }
        Some(target)
    }
}

/// A store as the watch shows it.
#[derive(Clone)]
pub enum StoreView {
    Namespaced(Arc<SecretStore>),
    Cluster(Arc<ClusterSecretStore>),
}

impl From<Arc<SecretStore>> for StoreView {
    fn from(store: Arc<SecretStore>) -> Self {
        Self::Namespaced(store)
    }
}

impl From<Arc<ClusterSecretStore>> for StoreView {
    fn from(store: Arc<ClusterSecretStore>) -> Self {
        Self::Cluster(store)
    }
}

impl StoreView {
    /// Its own name.
    #[must_use]
    pub fn name(&self) -> StoreName {
        let metadata = self.metadata();
        let name = metadata.name.clone().unwrap_or_default();
        match self {
            Self::Namespaced(_) => StoreName::Namespaced { namespace: metadata.namespace.clone().unwrap_or_default(), name },
            Self::Cluster(_) => StoreName::Cluster { name },
        }
    }

    #[must_use]
    pub fn uid(&self) -> &str {
        self.metadata().uid.as_deref().unwrap_or_default()
    }

    #[must_use]
    pub fn generation(&self) -> i64 {
        self.metadata().generation.unwrap_or_default()
    }

    #[must_use]
    pub fn resource_version(&self) -> &str {
        self.metadata().resource_version.as_deref().unwrap_or_default()
    }

    #[must_use]
    pub fn is_deleting(&self) -> bool {
        self.metadata().deletion_timestamp.is_some()
    }

    #[must_use]
    pub fn status(&self) -> Option<&StoreStatus> {
        match self {
            Self::Namespaced(store) => store.status.as_ref(),
            Self::Cluster(store) => store.status.as_ref(),
        }
    }

    /// When its login is to be checked.
    ///
    /// # Errors
    /// `InvalidSpec` naming the field that cannot be used.
    pub fn checking(&self) -> Result<Checking, Fault> {
        let (interval, settings) = match self {
            Self::Namespaced(store) => (&store.spec.refresh_interval, &store.spec.retry_settings),
            Self::Cluster(store) => (&store.spec.refresh_interval, &store.spec.retry_settings),
        };
        Checking::of(interval.as_ref(), settings.as_ref())
    }

    /// What its `auth` names, judged.
    ///
    /// # Errors
    /// `NotAllowed` or `InvalidSpec` naming the field.
    pub fn credential(&self) -> Result<Granted<CredentialRefs>, Fault> {
        access::credential(&self.seen(&self.name()))
    }

    /// The annotation of that name.
    #[must_use]
    pub fn annotation(&self, name: &str) -> Option<&str> {
        self.metadata().annotations.as_ref()?.get(name).map(String::as_str)
    }

    /// The provider block's one member.
    ///
    /// # Errors
    /// `InvalidSpec` when the block has none.
    pub fn provider(&self) -> Result<Provider<'_>, Fault> {
        self.spec()
            .provider()
            .provider()
            .ok_or_else(|| Fault::invalid(Reason::InvalidSpec, "the store needs exactly one provider: set one"))
    }

    /// How it may be asked.
    #[must_use]
    pub fn own(&self) -> Own<'_> {
        let name = match self {
            Self::Namespaced(_) => None,
            Self::Cluster(store) => store.metadata.name.as_deref(),
        };
        Own { name, limits: self.spec().limits(), cache: self.spec().cache() }
    }

    fn spec(&self) -> StoreSpec<'_> {
        match self {
            Self::Namespaced(store) => StoreSpec::Namespaced(&store.spec),
            Self::Cluster(store) => StoreSpec::Cluster(&store.spec),
        }
    }

    fn metadata(&self) -> &kube::core::ObjectMeta {
        match self {
            Self::Namespaced(store) => &store.metadata,
            Self::Cluster(store) => &store.metadata,
        }
    }

    fn seen<'a>(&'a self, name: &'a StoreName) -> SeenStore<'a> {
        SeenStore { name, uid: self.uid(), spec: self.spec() }
    }
}

/// What one reconcile is about.
#[derive(Clone)]
pub struct Request {
    pub object: SyncObject,
    pub key: ObjectKey,
    pub uid: String,
    pub generation: i64,
    pub target: TargetName,
    pub creation: CreationPolicy,
    pub deletion: DeletionPolicy,
    pub policy: RefreshPolicy,
    /// `None`: no periodic looks.
    pub interval: Option<Duration>,
    pub is_suspended: bool,
    pub is_deleting: bool,
    /// The namespace is going away: nothing can be written there.
    pub is_leaving: bool,
    /// Token of the refresh annotation.
    pub token: Option<String>,
    pub stores: BTreeMap<StoreName, Option<StoreView>>,
    pub namespace_labels: BTreeMap<String, String>,
    pub facts: Option<Arc<TargetFacts>>,
    /// The target of an earlier name, if the status knows one.
    pub former: Option<(TargetName, Option<Arc<TargetFacts>>)>,
    /// An older object that wants the same target.
    pub rival: Option<String>,
    /// What the spec says wrongly and the schema could not refuse.
    pub fault: Option<Fault>,
    /// The status as last known.
    pub status: SyncStatus,
    pub now: Timestamp,
}

/// A request whose references were judged, one verdict per entry.
#[derive(Clone)]
pub struct Judged {
    pub request: Request,
    pub verdicts: Vec<Result<Granted<Item>, Fault>>,
    /// Which credential each store's sessions need.
    pub credentials: BTreeMap<StoreName, Result<Granted<CredentialRefs>, Fault>>,
    /// Hash of what the target is computed from besides values.
    pub inputs: String,
    /// Hash of store UIDs and generations under which values are found.
    pub stores: String,
}

/// The stores that an object refers to.
#[must_use]
pub fn stores_of(object: &SyncObject) -> BTreeSet<StoreName> {
    let key = object.key();
    object.entries().into_iter().flatten().map(|entry| access::store_name(&key, entry.store)).collect()
}

/// Stage 1.
#[must_use]
pub fn resolve(world: &World, object: SyncObject, status: SyncStatus, now: Timestamp) -> Request {
    let key = object.key();
    let target = TargetName::new(object.target_kind(), &key.namespace, object.target_name());
    let stores = stores_of(&object).into_iter().map(|name| (name.clone(), view(world, &name))).collect();
    let namespace = world.namespaces.get(&ObjectRef::new(&key.namespace));
    let policy = object.refresh_policy();
    let interval = interval(object.refresh_interval());
    let former = status
        .target
        .as_ref()
        .filter(|former| former.name != target.name && former.uid.is_some())
        .map(|former| TargetName { name: former.name.clone(), ..target.clone() })
        .map(|former| (former.clone(), world.targets.get(&former)));
    let rival = world.claims.of(&target).into_iter().next().filter(|first| *first != key).map(|first| first.name);
    let fault = interval.as_ref().err().cloned().or_else(|| object.entries().err());
    let metadata = object.metadata();
    Request {
        uid: metadata.uid.clone().unwrap_or_default(),
        generation: metadata.generation.unwrap_or_default(),
        creation: object.creation_policy(),
        deletion: object.deletion_policy(),
        interval: interval.ok().filter(|interval| policy == RefreshPolicy::Periodic && !interval.is_zero()),
        policy,
        is_suspended: object.is_suspended(),
        is_deleting: metadata.deletion_timestamp.is_some(),
        is_leaving: namespace.as_ref().is_some_and(|namespace| namespace.metadata.deletion_timestamp.is_some()),
        token: object.annotation(REFRESH_ANNOTATION).filter(|token| !token.is_empty()).map(echo),
        namespace_labels: namespace.and_then(|namespace| namespace.metadata.labels.clone()).unwrap_or_default(),
        facts: world.targets.get(&target),
        target,
        stores,
        former,
        rival,
        fault,
        status,
        now,
        object,
        key,
    }
}

/// The token as status repeats it: one that is longer than the field is told by its hash.
fn echo(token: &str) -> String {
    if token.len() <= 256 { token.to_owned() } else { format!("sha256:{}", sha256_hex(token)) }
}

fn interval(text: Option<&str>) -> Result<Duration, Fault> {
    let Some(text) = text else { return Ok(DEFAULT_INTERVAL) };
    duration::parse(text).map_err(|error| {
        Fault::invalid(Reason::InvalidSpec, format!("spec.refreshInterval cannot be used: {error}; write a Go duration such as 1h30m"))
    })
}

fn view(world: &World, name: &StoreName) -> Option<StoreView> {
    match name {
        StoreName::Namespaced { namespace, name } => {
            world.secret_stores.get(&ObjectRef::new(name).within(namespace)).map(StoreView::Namespaced)
        }
        StoreName::Cluster { name } => world.cluster_stores.get(&ObjectRef::new(name)).map(StoreView::Cluster),
    }
}

/// Stage 2. Pure: one verdict per entry.
#[must_use]
pub fn judge(request: Request, protected: &BTreeSet<String>) -> Judged {
    let asker = Asker { namespace: &request.key.namespace, labels: &request.namespace_labels, protected };
    let verdicts: Vec<_> = request
        .entries()
        .iter()
        .map(|entry| {
            let store = access::store_name(&request.key, entry.store);
            let seen = request.stores.get(&store).and_then(Option::as_ref).map(|view| view.seen(&store));
            access::judge(&asker, &store, seen.as_ref(), entry.reference)
        })
        .collect();
    // A store that refuses everything is not even opened: its credential is read for nobody.
    let admitted: BTreeSet<StoreName> =
        request.entries().iter().zip(&verdicts).filter(|(_, verdict)| verdict.is_ok()).map(|(entry, _)| request.store_of(entry)).collect();
    let credentials = request
        .stores
        .iter()
        .filter(|(name, _)| admitted.contains(name))
        .filter_map(|(name, view)| view.as_ref().map(|view| (name.clone(), access::credential(&view.seen(name)))))
        .collect();
    let inputs = inputs(&request, &verdicts);
    let stores = stores_hash(&request);
    Judged { request, verdicts, credentials, inputs, stores }
}

fn inputs(request: &Request, verdicts: &[Result<Granted<Item>, Fault>]) -> String {
    let verdicts = request.entries().into_iter().zip(verdicts).map(|(entry, verdict)| match verdict {
        Ok(granted) => format!("{} {:?}", entry.place, granted.get()),
        Err(fault) => format!("{} {}", entry.place, fault.reason),
    });
    let stores = request.stores.iter().map(|(name, view)| store_line(name, view.as_ref()));
    sha256_hex(&stores.chain(verdicts).collect::<Vec<_>>().join("\n"))[..32].to_owned()
}

/// A changed manifest of `fake` is changed values, not another store: its generation proves nothing about absence.
fn stores_hash(request: &Request) -> String {
    let lines: Vec<_> = request
        .stores
        .iter()
        .map(|(name, view)| match view {
            Some(view) if matches!(view.provider(), Ok(Provider::Fake(_))) => format!("{name} {}", view.uid()),
            other => store_line(name, other.as_ref()),
        })
        .collect();
    sha256_hex(&lines.join("\n"))[..16].to_owned()
}

fn store_line(name: &StoreName, view: Option<&StoreView>) -> String {
    match view {
        Some(view) => format!("{name} {} {}", view.uid(), view.generation()),
        None => format!("{name} -"),
    }
}

impl Request {
    /// Whether this object ever wrote the target of this name, as far as the status knows.
    #[must_use]
    pub fn was_written(&self) -> bool {
        self.status.target.as_ref().is_some_and(|target| target.name == self.target.name && target.uid.is_some())
    }

    /// Whether the status says that this very generation was Ready once.
    #[must_use]
    pub fn was_ready(&self) -> bool {
        condition::find(&self.status.conditions, condition::READY)
            .is_some_and(|ready| ready.status == "True" && ready.observed_generation == Some(self.generation))
    }

    /// The entries in the order of the spec; none when the spec cannot be used (then `fault` says why).
    #[must_use]
    pub fn entries(&self) -> Vec<Entry<'_>> {
        self.object.entries().unwrap_or_default()
    }

    /// The store of an entry.
    #[must_use]
    pub fn store_of(&self, entry: &Entry<'_>) -> StoreName {
        access::store_name(&self.key, entry.store)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::{crd::v1alpha1::REFRESH_ANNOTATION, engine::scene::Scene};

    fn asking_for(key: &str) -> Scene {
        Scene::new(json!({"secretStoreRef": {"name": "main"}, "data": [{"secretKey": "k", "remoteRef": {"key": key}}]}))
    }

    #[test]
    fn the_credential_of_a_store_that_refuses_is_not_asked_for() {
        assert_eq!(asking_for("a").judged().credentials.len(), 1);
        assert!(asking_for("../a").judged().credentials.is_empty());
    }

    #[test]
    fn a_refresh_token_that_status_cannot_hold_is_told_by_its_hash() {
        let token = |text: String| {
            let mut scene = asking_for("a");
            scene = scene.annotated(REFRESH_ANNOTATION, &text);
            scene.judged().request.token
        };
        assert_eq!(token("x".repeat(256)), Some("x".repeat(256)));
        let (one, other) = (token("x".repeat(257)).unwrap(), token("y".repeat(257)).unwrap());
        assert!(one != other && one.len() <= 256 && one.starts_with("sha256:"), "{one}");
        assert_eq!(token(String::new()), None);
    }
}
