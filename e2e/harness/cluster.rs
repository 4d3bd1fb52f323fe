//! What tests do to the cluster as its admin: apply, read, change, delete, and wait until something is so.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

use futures::{StreamExt, pin_mut};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{ApiResource, DeleteParams, DynamicObject, GroupVersionKind, Patch, PatchParams};
use kube::core::object::HasStatus;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use keyferry::crd::v1alpha1::{ClusterSecretStore, ExternalParameter, ExternalSecret, SyncStatus};

/// The kinds of objects that become a target.
pub trait Served:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + HasStatus<Status = SyncStatus>
    + Clone
    + DeserializeOwned
    + Debug
    + Serialize
    + Send
    + 'static
{
}

impl Served for ExternalSecret {}
impl Served for ExternalParameter {}

/// A wait that takes longer than this is a failed test, not a slow one.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// The admin of one test's namespace.
#[derive(Clone)]
pub struct Cluster {
    pub client: Client,
    pub namespace: String,
}

impl Cluster {
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Applies manifests, several between `---` lines, strictly; those without a namespace into the test's own. `apiVersion` may be
    /// left out where the kind is one of ours or of the core.
    ///
    /// # Panics
    /// When one is refused.
    pub async fn apply(&self, yaml: &str) {
        for document in yaml.split("\n---\n") {
            self.try_apply(document).await.unwrap_or_else(|refusal| panic!("{refusal}\n{document}"));
        }
    }

    /// Applies one manifest; the API server's words when it refuses.
    pub async fn try_apply(&self, yaml: &str) -> Result<(), String> {
        let mut object: Value = serde_saphyr::from_str(yaml).unwrap_or_else(|error| panic!("{error}\n{yaml}"));
        let kind = object["kind"].as_str().unwrap_or_else(|| panic!("no kind in {yaml}")).to_owned();
        if object.get("apiVersion").is_none() {
            object["apiVersion"] =
                json!(if matches!(kind.as_str(), "Secret" | "ConfigMap" | "Namespace") { "v1" } else { "keyferry.dev/v1alpha1" });
        }
        let version = object["apiVersion"].as_str().expect("a version").to_owned();
        let (group, version) = version.split_once('/').unwrap_or(("", &version));
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, &kind));
        let is_cluster_wide = kind == "Namespace" || kind.starts_with("Cluster");
        let api: Api<DynamicObject> = if is_cluster_wide {
            Api::all_with(self.client.clone(), &resource)
        } else {
            let namespace = object["metadata"]["namespace"].as_str().unwrap_or(&self.namespace);
            Api::namespaced_with(self.client.clone(), namespace, &resource)
        };
        let name = object["metadata"]["name"].as_str().unwrap_or_else(|| panic!("no name in {yaml}")).to_owned();
        let params =
            PatchParams { field_validation: Some(kube::api::ValidationDirective::Strict), ..PatchParams::apply("the-test").force() };
        let applied = api.patch(&name, &params, &Patch::Apply(&object)).await;
        applied.map(drop).map_err(|error| match error {
            kube::Error::Api(status) => status.message.clone(),
            other => panic!("the API server: {other}"),
        })
    }

    /// JSON merge patch.
    pub async fn merge<K>(&self, name: &str, patch: &Value)
    where
        K: Resource<Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
        K::DynamicType: Default,
    {
        let patched = self.api::<K>().patch(name, &PatchParams::default(), &Patch::Merge(patch)).await;
        patched.unwrap_or_else(|error| panic!("patch of {name}: {error}"));
    }

    pub async fn delete<K>(&self, name: &str, params: &DeleteParams)
    where
        K: Resource<Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
        K::DynamicType: Default,
    {
        let deleted = self.api::<K>().delete(name, params).await;
        deleted.unwrap_or_else(|error| panic!("deletion of {name}: {error}"));
    }

    pub async fn get<K>(&self, name: &str) -> Option<K>
    where
        K: Resource<Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
        K::DynamicType: Default,
    {
        self.api::<K>().get_opt(name).await.unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// Waits until an object of the namespace is as wanted, or not there (`None`) where that is wanted.
    ///
    /// # Panics
    /// When that takes longer than a test can wait, with what was seen last.
    pub async fn until<K>(&self, name: &str, words: &str, condition: impl FnMut(Option<&K>) -> bool) -> Option<K>
    where
        K: Resource<Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug + Serialize + Send + 'static,
        K::DynamicType: Default,
    {
        until(self.api::<K>(), name, words, condition).await
    }

    /// Waits until an object is as wanted.
    pub async fn served<K: Served>(&self, name: &str, words: &str, mut condition: impl FnMut(&K) -> bool) -> K {
        let seen = self.until(name, words, |object| object.is_some_and(&mut condition)).await;
        seen.expect("the condition wants one")
    }

    /// Waits until an ExternalSecret is as wanted.
    pub async fn external(&self, name: &str, words: &str, condition: impl FnMut(&ExternalSecret) -> bool) -> ExternalSecret {
        self.served(name, words, condition).await
    }

    /// Waits until an ExternalSecret is Ready in its present generation.
    pub async fn ready(&self, name: &str) -> ExternalSecret {
        self.ready_as(name).await
    }

    /// The same for an object of any kind.
    pub async fn ready_as<K: Served>(&self, name: &str) -> K {
        self.served(name, "to be Ready", |object| is_current(object) && condition_is(object, "Ready", "True")).await
    }

    /// Waits until an ExternalSecret in its present generation is not Ready for that reason, and returns its message.
    pub async fn not_ready(&self, name: &str, reason: &str) -> String {
        self.not_ready_as::<ExternalSecret>(name, reason).await
    }

    /// The same for an object of any kind.
    pub async fn not_ready_as<K: Served>(&self, name: &str, reason: &str) -> String {
        let words = format!("to be not Ready, {reason}");
        let is_so = |object: &K| is_current(object) && reason_of(object, "Ready", "False") == Some(reason);
        message_of(&self.served(name, &words, is_so).await, "Ready")
    }

    /// Waits until a ClusterSecretStore is as wanted.
    pub async fn store(&self, name: &str, words: &str, mut condition: impl FnMut(&ClusterSecretStore) -> bool) -> ClusterSecretStore {
        let api = Api::<ClusterSecretStore>::all(self.client.clone());
        until(api, name, words, |store| store.is_some_and(&mut condition)).await.expect("the condition wants one")
    }

    /// Waits until a ClusterSecretStore says Ready with that status and reason of its present generation, and returns the message.
    pub async fn store_says(&self, name: &str, ready: &str, reason: &str) -> String {
        let is_so = |store: &ClusterSecretStore| {
            let ready_now = store_ready(store).filter(|ready| ready.observed_generation == store.metadata.generation);
            ready_now.is_some_and(|now| now.status == ready && now.reason == reason)
        };
        let store = self.store(name, &format!("to say Ready={ready}, {reason}"), is_so).await;
        store_ready(&store).map(|ready| ready.message.clone()).unwrap_or_default()
    }

    /// Waits until the Secret holds exactly this.
    pub async fn holds(&self, name: &str, data: &[(&str, &[u8])]) -> Secret {
        let wanted: BTreeMap<String, Vec<u8>> = data.iter().map(|(key, value)| ((*key).to_owned(), value.to_vec())).collect();
        let secret =
            self.until::<Secret>(name, "to hold the wanted data", |secret| secret.is_some_and(|secret| data_of(secret) == wanted)).await;
        secret.expect("the condition wants one")
    }

    /// Waits until the ConfigMap holds exactly this.
    pub async fn configures(&self, name: &str, data: &[(&str, &[u8])]) -> ConfigMap {
        let wanted: BTreeMap<String, Vec<u8>> = data.iter().map(|(key, value)| ((*key).to_owned(), value.to_vec())).collect();
        let map = self.until::<ConfigMap>(name, "to hold the wanted data", |map| map.is_some_and(|map| parameters_of(map) == wanted)).await;
        map.expect("the condition wants one")
    }
}

/// The condition Ready of a store.
pub fn store_ready(store: &ClusterSecretStore) -> Option<&Condition> {
    store.status.iter().flat_map(|status| &status.conditions).find(|condition| condition.type_ == "Ready")
}

/// The bytes of a Secret.
pub fn data_of(secret: &Secret) -> BTreeMap<String, Vec<u8>> {
    secret.data.iter().flatten().map(|(key, value)| (key.clone(), value.0.clone())).collect()
}

/// The bytes of a ConfigMap, of either field.
pub fn parameters_of(map: &ConfigMap) -> BTreeMap<String, Vec<u8>> {
    let text = map.data.iter().flatten().map(|(key, value)| (key.clone(), value.clone().into_bytes()));
    text.chain(map.binary_data.iter().flatten().map(|(key, value)| (key.clone(), value.0.clone()))).collect()
}

/// Whether the status speaks of the present generation.
pub fn is_current<K: Served>(object: &K) -> bool {
    let observed = object.status().and_then(|status| status.observed_generation);
    observed.is_some() && observed == object.meta().generation
}

pub fn condition_is<K: Served>(object: &K, kind: &str, value: &str) -> bool {
    reason_of(object, kind, value).is_some()
}

/// The reason of a condition that has this status.
pub fn reason_of<'a, K: Served>(object: &'a K, kind: &str, value: &str) -> Option<&'a str> {
    let mut conditions = object.status().into_iter().flat_map(|status| &status.conditions);
    let found = conditions.find(|condition| condition.type_ == kind && condition.status == value);
    found.map(|condition| condition.reason.as_str())
}

pub fn message_of<K: Served>(object: &K, kind: &str) -> String {
    let mut conditions = object.status().into_iter().flat_map(|status| &status.conditions);
    conditions.find(|condition| condition.type_ == kind).map(|condition| condition.message.clone()).unwrap_or_default()
}

async fn until<K>(api: Api<K>, name: &str, words: &str, mut condition: impl FnMut(Option<&K>) -> bool) -> Option<K>
where
    K: Resource + Clone + DeserializeOwned + Debug + Serialize + Send + 'static,
    K::DynamicType: Default,
{
    let mut last = None;
    let wait = async {
        let seen = watcher::watch_object(api, name).default_backoff();
        pin_mut!(seen);
        while let Some(object) = seen.next().await {
            // A watch that fails goes on by itself: tests kill the API server.
            let Ok(object) = object else { continue };
            let is_wanted = condition(object.as_ref());
            last = object;
            if is_wanted {
                return;
            }
        }
        panic!("the watch ended");
    };
    let waited = tokio::time::timeout(PATIENCE, wait).await;
    assert!(waited.is_ok(), "waited {PATIENCE:?} for {name} {words}; last seen:\n{}", shown(last.as_ref()));
    last
}

/// What was seen, for a failing test's message: values stay out of it.
fn shown<K: Serialize>(object: Option<&K>) -> String {
    let mut value = serde_json::to_value(object).unwrap_or_default();
    for field in ["data", "binaryData"] {
        for (_, bytes) in value.get_mut(field).and_then(Value::as_object_mut).into_iter().flatten() {
            *bytes = json!(format!("({} characters)", bytes.as_str().unwrap_or_default().len()));
        }
    }
    if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
    serde_json::to_string_pretty(&value).unwrap_or_default()
}
