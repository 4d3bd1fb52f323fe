//! The only place that talks to the API server. No decisions here: each function is one call, or one watch.

pub mod account;
pub mod error;
mod lean;
pub mod lease;
mod store;
pub mod target;
pub mod watch;

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::{
    api::{
        core::v1::{ConfigMap, ObjectReference, Secret},
        events::v1::Event,
    },
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
    jiff::Timestamp,
};
use kube::{
    Api, Client, Resource,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
    core::NamespaceResourceScope,
};
use serde::{Serialize, Serializer, de::DeserializeOwned};
use tokio::sync::Semaphore;

use crate::{
    access::{Holder, HolderKind},
    backend::ApiServer,
    crd::v1alpha1::{ExternalParameter, ExternalSecret, SyncObject, SyncStatus},
    digest::DigestKey,
    metrics::{Metrics, Write},
    name::{ObjectKey, ObjectKind, TargetKind},
    secret::SecretValue,
};
pub use error::ClusterError;
use lean::{LeanTarget, Version};
use target::{TargetFacts, TargetName};

/// No call to the API server takes longer, watches aside.
const CALL_TIMEOUT: Duration = Duration::from_secs(20);
/// Name of the Secret with the MAC key, in the operator's namespace.
pub const DIGEST_KEY_SECRET: &str = "keyferry-digest-key";
const DIGEST_KEY_FIELD: &str = "key";

/// How long a write may still take: what is left of the Lease.
pub type Deadline = Arc<dyn Fn() -> Duration + Send + Sync>;

/// The API server, as the operator may use it. Cheap to clone.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
    /// Bounds writes in flight: 20 to 50 are as fast as 1,000 and take a tenth of the memory (measured, see the design).
    writes: Arc<Semaphore>,
    deadline: Deadline,
    metrics: Metrics,
    /// Who this API server takes tokens for.
    audiences: Arc<[String]>,
}

/// What a target shall be, except for who applies it.
#[derive(Clone)]
pub struct TargetBody {
    pub target: TargetName,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    pub owner: Option<OwnerReference>,
    pub data: BTreeMap<String, SecretValue>,
}

impl fmt::Debug for TargetBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TargetBody({} of {}: {} keys)", self.target, self.target.namespace, self.data.len())
    }
}

/// Where in the life of a target an apply stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Guard {
    /// Create only: an object of that name, living or terminating, answers [`ClusterError::Changed`]. The resource version "1" can
    /// belong to no object, so that the API server refuses to update and, with nothing there, creates (tried on 1.36.3).
    CreateOnly,
    /// Only this object: another one of the name, or none, answers [`ClusterError::Changed`].
    Uid(String),
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ApplyBody<'a> {
    api_version: &'static str,
    kind: &'static str,
    metadata: ApplyMetadata<'a>,
    data: BTreeMap<&'a str, Shown<'a>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    binary_data: BTreeMap<&'a str, Shown<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ApplyMetadata<'a> {
    namespace: &'a str,
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    uid: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource_version: Option<&'static str>,
    labels: &'a BTreeMap<String, String>,
    annotations: &'a BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    owner_references: Vec<&'a OwnerReference>,
}

/// A value as the API server takes it.
enum Shown<'a> {
    Text(&'a str),
    Base64(&'a SecretValue),
}

impl Serialize for Shown<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Text(text) => serializer.serialize_str(text),
            Self::Base64(value) => {
                serializer.collect_str(&base64::display::Base64Display::new(value.expose(), &base64::engine::general_purpose::STANDARD))
            }
        }
    }
}

impl TargetBody {
    /// `data` and `binaryData`: a `ConfigMap` takes text as it is and everything else apart, a Secret takes all of it encoded.
    fn shown(&self) -> (BTreeMap<&str, Shown<'_>>, BTreeMap<&str, Shown<'_>>) {
        let (mut data, mut binary) = (BTreeMap::new(), BTreeMap::new());
        for (key, value) in &self.data {
            match (self.target.kind, std::str::from_utf8(value.expose())) {
                (TargetKind::Secret, _) => data.insert(key.as_str(), Shown::Base64(value)),
                (TargetKind::ConfigMap, Ok(text)) => data.insert(key.as_str(), Shown::Text(text)),
                (TargetKind::ConfigMap, Err(_)) => binary.insert(key.as_str(), Shown::Base64(value)),
            };
        }
        (data, binary)
    }
}

impl fmt::Debug for ApplyBody<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApplyBody({})", self.metadata.name)
    }
}

impl<'a> ApplyBody<'a> {
    fn new(body: &'a TargetBody, guard: &'a Guard) -> Self {
        let (uid, resource_version) = match guard {
            Guard::CreateOnly => (None, Some("1")),
            Guard::Uid(uid) => (Some(uid.as_str()), None),
        };
        let (data, binary_data) = body.shown();
        Self {
            api_version: "v1",
            kind: body.target.kind.as_str(),
            metadata: ApplyMetadata {
                namespace: &body.target.namespace,
                name: &body.target.name,
                uid,
                resource_version,
                labels: &body.labels,
                annotations: &body.annotations,
                owner_references: body.owner.iter().collect(),
            },
            data,
            binary_data,
        }
    }
}

/// A kind whose objects stand in namespaces.
trait Namespaced: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + fmt::Debug {}

impl<K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + fmt::Debug> Namespaced for K {}

/// How to reach the cluster: that kubeconfig, or the pod's own ServiceAccount. The ambient kubeconfig is never read.
///
/// # Errors
/// When the file cannot be read, or the process runs in no pod.
pub async fn configuration(kubeconfig: Option<&Path>) -> Result<kube::Config, ConnectError> {
    let Some(path) = kubeconfig else { return kube::Config::incluster().map_err(|error| ConnectError::InCluster(error.to_string())) };
    let unreadable = |error: kube::config::KubeconfigError| ConnectError::Kubeconfig { path: path.to_owned(), why: error.to_string() };
    let file = kube::config::Kubeconfig::read_from(path).map_err(unreadable)?;
    let says_proxy = names_proxy(&file);
    let mut config = kube::Config::from_custom_kubeconfig(file, &kube::config::KubeConfigOptions::default()).await.map_err(unreadable)?;
    // Else it is one of the environment, which is for backends: the API server is reached as the file says.
    config.proxy_url = config.proxy_url.filter(|_| says_proxy);
    Ok(config)
}

/// Whether the file's current cluster is behind a proxy.
fn names_proxy(file: &kube::config::Kubeconfig) -> bool {
    let current = file.contexts.iter().find(|context| Some(&context.name) == file.current_context.as_ref());
    let name = current.and_then(|context| context.context.as_ref()).map(|context| &context.cluster);
    let cluster = file.clusters.iter().find(|cluster| Some(&cluster.name) == name);
    cluster
        .and_then(|cluster| cluster.cluster.as_ref())
        .is_some_and(|cluster| cluster.proxy_url.as_ref().is_some_and(|url| !url.is_empty()))
}

/// Where the cluster is and whom it is known by, without any right to it.
#[must_use]
pub fn api_server(config: &kube::Config) -> ApiServer {
    ApiServer { url: config.cluster_url.to_string(), authorities: config.root_cert.clone().unwrap_or_default() }
}

/// Why there is no way to the cluster.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("kubeconfig {path}: {why}", path = path.display())]
    Kubeconfig { path: PathBuf, why: String },
    #[error("no pod's ServiceAccount is mounted here ({0}): pass --kubeconfig")]
    InCluster(String),
    #[error("no client can be made of the configuration: {0}")]
    Client(String),
}

impl Cluster {
    /// Makes the client; nothing is called yet. `concurrency`: writes in flight, about 32.
    ///
    /// # Errors
    /// When the configuration makes no client.
    pub fn connect(mut config: kube::Config, concurrency: usize, deadline: Deadline, metrics: Metrics) -> Result<Self, ConnectError> {
        // Retries are decided above: a POST that is repeated blindly answers AlreadyExists.
        config.default_retry = false;
        let audiences = account::own_audiences(&config).into();
        let client = Client::try_from(config).map_err(|error| ConnectError::Client(error.to_string()))?;
        Ok(Self { client, writes: Arc::new(Semaphore::new(concurrency)), deadline, metrics, audiences })
    }

    /// Time that is left of the leadership: it shrinks while the API server does not renew it.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        (self.deadline)()
    }

    /// Applies a target as `manager`; the answer's metadata, never its data.
    ///
    /// # Errors
    /// See [`ClusterError`]; `Changed` when the guard does not hold.
    pub async fn apply_target(&self, body: &TargetBody, guard: &Guard, manager: &str, force: bool) -> Result<TargetFacts, ClusterError> {
        let params = PatchParams { force, ..PatchParams::apply(manager) };
        let request = ApplyBody::new(body, guard);
        match body.target.kind {
            TargetKind::Secret => self.apply_as::<Secret>(&body.target, &params, &request).await,
            TargetKind::ConfigMap => self.apply_as::<ConfigMap>(&body.target, &params, &request).await,
        }
    }

    async fn apply_as<K: Namespaced>(
        &self,
        target: &TargetName,
        params: &PatchParams,
        body: &ApplyBody<'_>,
    ) -> Result<TargetFacts, ClusterError> {
        let api: Api<LeanTarget<K>> = Api::namespaced(self.client.clone(), &target.namespace);
        let written = self.write(Write::TargetApply, api.patch(&target.name, params, &Patch::Apply(body))).await?;
        Ok(written.facts)
    }

    /// Deletes exactly that target: this UID at this resource version.
    ///
    /// # Errors
    /// `Changed` when it is another object or was written meanwhile; `NotFound` when it is gone.
    pub async fn delete_target(&self, target: &TargetName, facts: &TargetFacts) -> Result<(), ClusterError> {
        let preconditions = Preconditions { uid: Some(facts.uid.clone()), resource_version: Some(facts.resource_version.clone()) };
        let params = DeleteParams::background().preconditions(preconditions);
        match target.kind {
            TargetKind::Secret => self.delete_as::<Secret>(target, &params).await,
            TargetKind::ConfigMap => self.delete_as::<ConfigMap>(target, &params).await,
        }
    }

    async fn delete_as<K: Namespaced>(&self, target: &TargetName, params: &DeleteParams) -> Result<(), ClusterError> {
        let api = self.namespaced::<K>(&target.namespace);
        self.write(Write::TargetDelete, async { api.delete(&target.name, params).await.map(drop) }).await
    }

    /// One live look at a target's metadata.
    ///
    /// # Errors
    /// See [`ClusterError`]; a missing target is `Ok(None)`.
    pub async fn target(&self, target: &TargetName) -> Result<Option<TargetFacts>, ClusterError> {
        match target.kind {
            TargetKind::Secret => self.facts_of::<Secret>(target).await,
            TargetKind::ConfigMap => self.facts_of::<ConfigMap>(target).await,
        }
    }

    async fn facts_of<K: Namespaced>(&self, target: &TargetName) -> Result<Option<TargetFacts>, ClusterError> {
        let api: Api<LeanTarget<K>> = Api::namespaced(self.client.clone(), &target.namespace);
        Ok(self.read(api.get_opt(&target.name)).await?.map(|found| found.facts))
    }

    async fn metadata_of<K: Namespaced>(&self, namespace: &str, name: &str) -> Result<Option<ObjectMeta>, ClusterError> {
        let api = self.namespaced::<K>(namespace);
        Ok(self.read(api.get_metadata_opt(name)).await?.map(|found| found.metadata))
    }

    fn namespaced<K: Namespaced>(&self, namespace: &str) -> Api<K> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// One live look at an object: is it still there, with that UID, and not being deleted?
    ///
    /// # Errors
    /// See [`ClusterError`].
    pub async fn is_alive(&self, object: &ObjectKey, uid: &str) -> Result<bool, ClusterError> {
        let found = match object.kind {
            ObjectKind::ExternalSecret => self.metadata_of::<ExternalSecret>(&object.namespace, &object.name).await?,
            ObjectKind::ExternalParameter => self.metadata_of::<ExternalParameter>(&object.namespace, &object.name).await?,
        };
        Ok(found.is_some_and(|found| found.uid.as_deref() == Some(uid) && found.deletion_timestamp.is_none()))
    }

    /// Writes a status as one merge patch guarded by the resource version that it was computed from.
    ///
    /// # Errors
    /// `Changed` (409) means drop it: the object is another one by now.
    pub async fn patch_status(
        &self,
        object: &ObjectKey,
        resource_version: &str,
        status: &SyncStatus,
    ) -> Result<Option<String>, ClusterError> {
        let patch = status_patch(resource_version, status);
        let params = PatchParams { field_manager: Some("keyferry".to_owned()), ..PatchParams::default() };
        let collection = match object.kind {
            ObjectKind::ExternalSecret => ExternalSecret::url_path(&(), Some(&object.namespace)),
            ObjectKind::ExternalParameter => ExternalParameter::url_path(&(), Some(&object.namespace)),
        };
        let request = kube::core::Request::new(collection)
            .patch_subresource("status", &object.name, &params, &Patch::Merge(&patch))
            .map_err(|_| ClusterError::Invalid(0))?;
        let (mut parts, body) = request.into_parts();
        parts.headers.insert(http::header::ACCEPT, http::HeaderValue::from_static(METADATA_ONLY));
        let request = http::Request::from_parts(parts, body);
        let Version(version) = self.write(Write::Status, self.client.request(request)).await?;
        Ok(version)
    }

    /// What holds keys of a store's credential: its resource version and those keys of it that are there.
    ///
    /// # Errors
    /// See [`ClusterError`]; a missing one has an empty version and no keys.
    pub async fn credential(&self, holder: &Holder, keys: &[&str]) -> Result<Credential, ClusterError> {
        let Holder { kind, namespace, name } = holder;
        let (version, values) = match kind {
            HolderKind::Secret => {
                let api: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
                let Some(found) = self.read(api.get_opt(name)).await? else { return Ok(Credential::default()) };
                let values: Vec<_> = found.data.into_iter().flatten().map(|(key, value)| (key, SecretValue::new(value.0))).collect();
                (found.metadata.resource_version, values)
            }
            HolderKind::ConfigMap => {
                let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), namespace);
                let Some(found) = self.read(api.get_opt(name)).await? else { return Ok(Credential::default()) };
                let texts = found.data.into_iter().flatten().map(|(key, text)| (key, SecretValue::from(text)));
                let bytes = found.binary_data.into_iter().flatten().map(|(key, bytes)| (key, SecretValue::new(bytes.0)));
                (found.metadata.resource_version, texts.chain(bytes).collect())
            }
        };
        let values = values.into_iter().filter(|(key, _)| keys.contains(&key.as_str())).collect();
        Ok(Credential { version: version.unwrap_or_default(), values })
    }

    /// The MAC key of this installation: read, or made (create-only, so that two starting leaders end with one).
    ///
    /// # Errors
    /// See [`ClusterError`]; `Invalid` when the Secret is there without a key of 32 bytes.
    pub async fn digest_key(&self, namespace: &str) -> Result<DigestKey, ClusterError> {
        let holder = Holder { kind: HolderKind::Secret, namespace: namespace.to_owned(), name: DIGEST_KEY_SECRET.to_owned() };
        for _ in 0..2 {
            let found = self.credential(&holder, &[DIGEST_KEY_FIELD]).await?;
            if let Some(value) = found.values.get(DIGEST_KEY_FIELD).filter(|value| value.len() == 32) {
                return Ok(DigestKey::new(value.expose()));
            }
            if !found.version.is_empty() {
                tracing::error!("Secret {namespace}/{DIGEST_KEY_SECRET} has no key of 32 bytes: delete it, and a new one is made");
                return Err(ClusterError::Invalid(0));
            }
            self.create_digest_key(namespace).await?;
        }
        Err(ClusterError::Changed)
    }

    async fn create_digest_key(&self, namespace: &str) -> Result<(), ClusterError> {
        let mut bytes = vec![0; 32];
        aws_lc_rs::rand::fill(&mut bytes).map_err(|_| ClusterError::Unavailable("no randomness"))?;
        let mut secret = Secret { immutable: Some(true), ..Secret::default() };
        secret.metadata.name = Some(DIGEST_KEY_SECRET.to_owned());
        secret.data = Some(BTreeMap::from([(DIGEST_KEY_FIELD.to_owned(), k8s_openapi::ByteString(bytes))]));
        let api: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
        match self.write(Write::DigestKey, api.create(&PostParams::default(), &secret)).await {
            Ok(_) | Err(ClusterError::Changed) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Publishes an event about an object. One create; repetitions are the caller's to avoid.
    ///
    /// # Errors
    /// See [`ClusterError`]; an event that cannot be written is not worth a retry.
    pub async fn publish(&self, object: &SyncObject, event: &EventText) -> Result<(), ClusterError> {
        let key = object.key();
        self.create_event(&key.namespace, &key.name, object.reference(), event).await
    }

    async fn create_event(&self, namespace: &str, name: &str, regarding: ObjectReference, event: &EventText) -> Result<(), ClusterError> {
        let api: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        let body = Event {
            metadata: ObjectMeta { generate_name: Some(format!("{name}-")), ..Default::default() },
            action: Some(event.action.to_owned()),
            event_time: Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime(event.time)),
            note: Some(event.note.clone()),
            reason: Some(event.reason.to_owned()),
            regarding: Some(regarding),
            reporting_controller: Some("keyferry.dev/keyferry".to_owned()),
            reporting_instance: Some("keyferry".to_owned()),
            type_: Some(if event.is_warning { "Warning" } else { "Normal" }.to_owned()),
            ..Event::default()
        };
        self.write(Write::Event, async { api.create(&PostParams::default(), &body).await.map(drop) }).await
    }

    async fn write<T>(&self, what: Write, call: impl Future<Output = kube::Result<T>>) -> Result<T, ClusterError> {
        let _permit = self.writes.acquire().await.map_err(|_| ClusterError::Unavailable("stopping"))?;
        let left = (self.deadline)().min(CALL_TIMEOUT);
        if left.is_zero() {
            return Err(ClusterError::Unavailable("lease lost"));
        }
        let answer = timed(left, call).await;
        self.metrics.wrote(what, answer.is_ok());
        answer
    }

    async fn read<T>(&self, call: impl Future<Output = kube::Result<T>>) -> Result<T, ClusterError> {
        timed(CALL_TIMEOUT, call).await
    }
}

/// Keys of a credential as they stand in their Secret or ConfigMap.
#[derive(Clone, Debug, Default)]
pub struct Credential {
    /// Resource version of the holder; empty when it does not exist.
    pub version: String,
    pub values: BTreeMap<String, SecretValue>,
}

/// An event's text; safe to show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventText {
    pub reason: &'static str,
    pub action: &'static str,
    pub note: String,
    pub is_warning: bool,
    pub time: Timestamp,
}

/// Resource versions of one resource are comparable numbers (documented since Kubernetes 1.35, true of etcd-backed servers before); a
/// text that is no number counts as newer.
#[must_use]
pub fn is_newer(one: &str, other: &str) -> bool {
    match (one.parse::<u64>(), other.parse::<u64>()) {
        (Ok(one), Ok(other)) => one > other,
        _ => one != other,
    }
}

const METADATA_ONLY: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";

async fn timed<T>(limit: Duration, call: impl Future<Output = kube::Result<T>>) -> Result<T, ClusterError> {
    match tokio::time::timeout(limit, call).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(ClusterError::Unavailable("time-out")),
    }
}

/// A merge patch replaces what it names only: fields that went away are named with null.
fn status_patch(resource_version: &str, status: &SyncStatus) -> serde_json::Value {
    let mut fields = serde_json::to_value(status).unwrap_or_default();
    if let Some(fields) = fields.as_object_mut() {
        for name in ["target", "inputs", "entries", "lastChangeTime", "handledRefresh"] {
            fields.entry(name).or_insert(serde_json::Value::Null);
        }
    }
    // A merge reaches into objects: what an inner one lacks has to be taken away by name, too.
    if let Some(target) = fields.get_mut("target").and_then(serde_json::Value::as_object_mut) {
        target.entry("uid").or_insert(serde_json::Value::Null);
    }
    serde_json::json!({"metadata": {"resourceVersion": resource_version}, "status": fields})
}
