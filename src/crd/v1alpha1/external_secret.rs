//! `ExternalSecret`: remote values that become one `Secret`.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Remote values that become one Secret and stay fresh.
#[derive(CustomResource, Clone, Debug, PartialEq, Deserialize, Serialize, KubeSchema)]
#[kube(
    group = "keyferry.dev",
    version = "v1alpha1",
    kind = "ExternalSecret",
    plural = "externalsecrets",
    shortname = "kes",
    category = "keyferry",
    namespaced,
    status = "SyncStatus",
    derive = "PartialEq",
    doc = "Remote values that become one Secret and stay fresh.",
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Store", type_ = "string", json_path = ".spec.secretStoreRef.name"),
    printcolumn(name = "Target", type_ = "string", json_path = ".status.target.name"),
    printcolumn(name = "Changed", type_ = "date", json_path = ".status.lastChangeTime"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Message", type_ = "string", priority = 1, json_path = ".status.conditions[?(@.type==\"Ready\")].message")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("size(self.?data.orValue([])) + size(self.?dataFrom.orValue([])) > 0").message("needs at least one entry in data or dataFrom"),
    validation = Rule::new("has(self.secretStoreRef) || ((!has(self.data) || self.data.all(e, has(e.sourceRef))) && (!has(self.dataFrom) || self.dataFrom.all(e, has(e.sourceRef))))").message("an entry without sourceRef.storeRef needs spec.secretStoreRef"),
    validation = Rule::new("!has(self.target) || self.target.?deletionPolicy.orValue('Retain') != 'Delete' || self.target.?creationPolicy.orValue('Owner') == 'Owner'").message("target.deletionPolicy Delete needs target.creationPolicy Owner: a Secret that is not owned is never deleted")
)]
pub struct ExternalSecretSpec {
    /// The store of every entry that names none of its own in `sourceRef.storeRef`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_store_ref: Option<StoreRef>,

    /// When the backend is looked at: `Periodic` (the default) every `refreshInterval`; `OnChange` only when this object, its
    /// store or its credential change; `CreatedOnce` until the target was created, and never again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh_policy: Option<RefreshPolicy>,

    /// How old a value may get, as a Go duration ("30s", "1h30m"). Default 1h. Zero means once. No two looks at a key are further
    /// apart than this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    #[x_kube(validation = Rule::new("self.matches('^[+]?(0|(([0-9]+[.]?[0-9]*|[.][0-9]+)(ns|us|µs|μs|ms|s|m|h))+)$') && duration(self) >= duration('0s')").message("must be a Go duration such as 30s or 1h30m, or 0 for once; it cannot be negative"))]
    pub refresh_interval: Option<String>,

    /// While true nothing is read and nothing is written; the target stays as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,

    /// Single values, each under the key that it gets in the Secret. They win over `dataFrom`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["secretKey".to_string()]))]
    pub data: Option<Vec<DataEntry>>,

    /// Many values at once; two sources that give the same key are a `KeyCollision`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub data_from: Option<Vec<DataFromEntry>>,

    /// The Secret to write.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Target>,
}

/// A store by name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StoreRef {
    /// Name of the store.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// `SecretStore` (the default, in the object's own namespace) or `ClusterSecretStore`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<StoreRefKind>,
}

/// The kind of a referenced store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
pub enum StoreRefKind {
    SecretStore,
    ClusterSecretStore,
}

/// When to look at the backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
pub enum RefreshPolicy {
    Periodic,
    OnChange,
    CreatedOnce,
}

/// One key of the Secret and where its value comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DataEntry {
    /// Key in the Secret: letters, digits, '-', '_' and '.', not beginning with '..'.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[.]?[-_a-zA-Z0-9][-._a-zA-Z0-9]*$"))]
    pub secret_key: String,
    /// The remote value.
    pub remote_ref: RemoteValue,
    /// Another store for this entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_ref: Option<SourceRef>,
}

/// A remote value, or a part of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.version) || !has(self.metadataPolicy) || self.metadataPolicy != 'Fetch'").message("metadataPolicy: Fetch and version exclude each other: metadata is kept once for all versions"))]
pub struct RemoteValue {
    /// Name of the value in the store.
    #[schemars(length(min = 1, max = 2048))]
    pub key: String,
    /// Part of a JSON value: the literal key first, then a dotted path (`a.0.b`, `\.` escapes, `#`, `#(name=="x")`); a text that
    /// starts with `$` is an RFC 9535 JSONPath that must give exactly one node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub property: Option<String>,
    /// The provider's word for a version; the current one without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub version: Option<String>,
    /// `Fetch` reads what the system keeps beside the value (labels, tags, custom metadata) as a JSON object, and not the value; `property`
    /// is a member of it. `None` (the default) reads the value. A provider without metadata refuses `Fetch`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata_policy: Option<MetadataPolicy>,
}

/// Whether a value is read or what is kept beside it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
pub enum MetadataPolicy {
    #[default]
    None,
    Fetch,
}

/// Where an entry's value comes from, if not from the object's store.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SourceRef {
    /// The store.
    pub store_ref: StoreRef,
}

/// Many values at once: exactly one of `extract` and `find`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.extract) != has(self.find)").message("needs exactly one of extract and find"))]
pub struct DataFromEntry {
    /// Every member of one remote JSON object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extract: Option<RemoteValue>,
    /// Every remote value whose name matches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub find: Option<Find>,
    /// Another store for this entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_ref: Option<SourceRef>,
}

/// A search by name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.path) || has(self.name) || has(self.tags)").message("needs at least one of path, name.regexp and tags"))]
pub struct Find {
    /// Only names below this path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    pub path: Option<String>,
    /// Only names that match.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<FindName>,
    /// Only values that carry all these tags: what the system itself keeps beside a value, such as labels. Providers without tags
    /// refuse them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "super::schema::tags")]
    pub tags: Option<BTreeMap<String, String>>,
    /// `Fetch` reads of every name what the system keeps beside its value (labels, tags, custom metadata) as a JSON object, and not the
    /// value. `None` (the default) reads the values. A provider without metadata refuses `Fetch`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata_policy: Option<MetadataPolicy>,
}

/// How a name must look.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FindName {
    /// Regular expression (linear time, no look-around) that must match somewhere in the full remote name.
    #[schemars(length(min = 1, max = 1024))]
    pub regexp: String,
}

/// The Secret to write.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Target {
    /// Name of the Secret; the object's own name without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"))]
    pub name: Option<String>,
    /// `Owner` (the default): the Secret goes with this object. `Orphan`: it stays. `None`: values are checked, nothing is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub creation_policy: Option<CreationPolicy>,
    /// What happens when the backend proves every value absent: `Retain` (the default) keeps the Secret, `Delete` removes it after
    /// two looks at least a minute apart. Deleting this object is `creationPolicy`'s matter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_policy: Option<DeletionPolicy>,
}

/// Who the Secret belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
pub enum CreationPolicy {
    #[default]
    Owner,
    Orphan,
    None,
}

/// What proven absence does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
pub enum DeletionPolicy {
    #[default]
    Retain,
    Delete,
}

/// What the operator found and did.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SyncStatus {
    /// The generation that this status speaks of; -1 before the first look.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready` always; `Fresh` once values were read; `Stalled` and `Reconciling` only while true.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "super::schema::conditions")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".to_string()]))]
    pub conditions: Vec<Condition>,
    /// The Secret or `ConfigMap` that was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<TargetStatus>,
    /// Hash of what the target was computed from besides values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub inputs: Option<String>,
    /// The entries, the failing ones first; at most 64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub entries: Vec<EntryStatus>,
    /// When the target's content was last written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_change_time: Option<Time>,
    /// The token of the annotation `keyferry.dev/refresh` that was handled last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub handled_refresh: Option<String>,
}

/// The Secret or `ConfigMap` that was written.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TargetStatus {
    /// Its name.
    #[schemars(length(max = 253))]
    pub name: String,
    /// Its UID; absent while nothing was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub uid: Option<String>,
}

/// One entry of the spec as it was last seen.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EntryStatus {
    /// `data[<key>]` or `dataFrom[<index>]`.
    #[schemars(length(max = 300))]
    pub name: String,
    /// The store, as `SecretStore/<name>` or `ClusterSecretStore/<name>`.
    #[schemars(length(max = 300))]
    pub store: String,
    /// The version that was delivered, where the backend has versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub version: Option<String>,
    /// What became of it.
    pub state: EntryState,
    /// Why, in one word of a closed set.
    #[schemars(length(max = 64))]
    pub reason: String,
}

/// What became of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
pub enum EntryState {
    Current,
    Absent,
    Denied,
    Invalid,
    Unavailable,
    Throttled,
}
