//! `ExternalParameter`: remote configuration that becomes one `ConfigMap`.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{CreationPolicy, DataFromEntry, DeletionPolicy, RefreshPolicy, RemoteValue, SourceRef, StoreRef, SyncStatus};

/// Remote configuration that becomes one `ConfigMap` and stays fresh.
#[derive(CustomResource, Clone, Debug, PartialEq, Deserialize, Serialize, KubeSchema)]
#[kube(
    group = "keyferry.dev",
    version = "v1alpha1",
    kind = "ExternalParameter",
    plural = "externalparameters",
    shortname = "kep",
    category = "keyferry",
    namespaced,
    status = "SyncStatus",
    derive = "PartialEq",
    doc = "Remote configuration that becomes one ConfigMap and stays fresh.",
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
    validation = Rule::new("!has(self.target) || self.target.?deletionPolicy.orValue('Retain') != 'Delete' || self.target.?creationPolicy.orValue('Owner') == 'Owner'").message("target.deletionPolicy Delete needs target.creationPolicy Owner: a ConfigMap that is not owned is never deleted"),
    validation = Rule::new("!has(self.data) || self.?target.?format.orValue('Keys') != 'Keys' || self.?target.?trimPrefix.hasValue() || self.data.all(e, e.key.matches('^[.]?[-_a-zA-Z0-9][-._a-zA-Z0-9]*$'))").message("a key may hold letters, digits, '-', '_' and '.' only, unless target.format is Json or Yaml")
)]
pub struct ExternalParameterSpec {
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

    /// Single values, each under the key that it gets. They win over `dataFrom`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["key".to_string()]))]
    pub data: Option<Vec<ParameterEntry>>,

    /// Many values at once, in order: what a later source gives under a key wins over what an earlier one gives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub data_from: Option<Vec<DataFromEntry>>,

    /// The `ConfigMap` to write.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<ParameterTarget>,

    /// What happens to a value that its store marks as a secret: a Secret of Kubernetes, a typed secret of the file store, a credential
    /// that Vault made. `Refuse` (the default): nothing is written, the reason is `SensitiveValue`. `Allow`: it is written, and everybody
    /// who may read the `ConfigMap` sees it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sensitivity: Option<Sensitivity>,
}

/// What happens to a value that its store marks as a secret.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
pub enum Sensitivity {
    #[default]
    Refuse,
    Allow,
}

/// One key and where its value comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ParameterEntry {
    /// Key in the `ConfigMap`: letters, digits, '-', '_' and '.', not beginning with '..'. In a document the name before it is parted by
    /// `target.separator`: any text without white space.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^\S+$"))]
    pub key: String,
    /// The remote value.
    pub remote_ref: RemoteValue,
    /// Another store for this entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_ref: Option<SourceRef>,
    /// `String` (the default): the value stays the text that it is. `Json`: its text must be JSON, and in a document it is what JSON says:
    /// a number, a truth value, a list, an object or a text.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub type_: Option<ParameterType>,
}

/// What the text of a value means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
pub enum ParameterType {
    String,
    Json,
}

/// How the values stand in the `ConfigMap`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
pub enum ParameterFormat {
    #[default]
    Keys,
    Json,
    Yaml,
}

/// The `ConfigMap` to write.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize, Serialize, KubeSchema)]
#[x_kube(validation = Rule::new("self.?format.orValue('Keys') != 'Keys' || (!has(self.fileName) && !has(self.separator))").message("fileName and separator are for a document: set format to Json or Yaml"))]
#[serde(rename_all = "camelCase")]
pub struct ParameterTarget {
    /// Name of the `ConfigMap`; the object's own name without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"))]
    pub name: Option<String>,
    /// `Owner` (the default): the `ConfigMap` goes with this object. `Orphan`: it stays. `None`: values are checked, nothing is
    /// written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub creation_policy: Option<CreationPolicy>,
    /// What happens when the backend proves every value absent: `Retain` (the default) keeps the `ConfigMap`, `Delete` removes it
    /// after two looks at least a minute apart. Deleting this object is `creationPolicy`'s matter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_policy: Option<DeletionPolicy>,
    /// `Keys` (the default): each value under its own key, what is no text in `binaryData`. `Json`, `Yaml`: one document of all values,
    /// sorted; a value stays a string unless its source is typed: a member of an `extract`, or an entry of type Json.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<ParameterFormat>,
    /// Key that holds the document. Default `config.json` or `config.yaml`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[.]?[-_a-zA-Z0-9][-._a-zA-Z0-9]*$"))]
    pub file_name: Option<String>,
    /// What parts a name into the names of a hierarchy in the document, such as `/` or `.`; without it the document is flat.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 8))]
    pub separator: Option<String>,
    /// Cut from the start of every name that begins with it, before it becomes a key: names that `dataFrom` gives and `data[].key` alike.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    pub trim_prefix: Option<String>,
}
