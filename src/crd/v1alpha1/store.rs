//! `SecretStore` and `ClusterSecretStore`: where values live and who may use which keys.

use k8s_openapi::apimachinery::pkg::{
    apis::meta::v1::{Condition, LabelSelector},
    util::intstr::IntOrString,
};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{AwsProvider, KubernetesProvider, VaultProvider};

/// Where values live, for the objects of one namespace.
#[derive(CustomResource, Clone, Debug, PartialEq, Deserialize, Serialize, KubeSchema)]
#[kube(
    group = "keyferry.dev",
    version = "v1alpha1",
    kind = "SecretStore",
    plural = "secretstores",
    shortname = "kss",
    category = "keyferry",
    namespaced,
    status = "StoreStatus",
    derive = "PartialEq",
    doc = "Where values live, for the objects of one namespace.",
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Provider", type_ = "string", json_path = ".status.provider"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Message", type_ = "string", priority = 1, json_path = ".status.conditions[?(@.type==\"Ready\")].message")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.provider.env)").message("provider.env reads the operator's own environment: it is for a ClusterSecretStore only"))]
pub struct SecretStoreSpec {
    /// The system: exactly one of its members.
    pub provider: ProviderBlock,
    /// Patterns of which a remote key must match one, with `{namespace}` as variable: `*` is one segment or
    /// a part of it, `**` crosses `/`. All keys without it. What `find` returns is filtered by them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 512)))]
    pub allowed_keys: Option<Vec<String>>,
    /// How much may be asked of the system for this store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<StoreLimits>,
    /// Values may be kept in memory for a while, so that new objects with the same keys cost no call. Nothing is kept without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<StoreCache>,
    /// How often the login is checked while all is well, as a Go duration ("30s", "1h30m") or in whole seconds, as ESO writes it.
    /// Default 1h. Zero means once. A check reads no value; what fails meanwhile is noticed by the looks of the objects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "super::schema::interval")]
    pub refresh_interval: Option<IntOrString>,
    /// How a check that failed is repeated before the next one is due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_settings: Option<RetrySettings>,
}

/// Where values live, for every namespace that a condition admits.
#[derive(CustomResource, Clone, Debug, PartialEq, Deserialize, Serialize, KubeSchema)]
#[kube(
    group = "keyferry.dev",
    version = "v1alpha1",
    kind = "ClusterSecretStore",
    plural = "clustersecretstores",
    shortname = "kcss",
    category = "keyferry",
    status = "StoreStatus",
    derive = "PartialEq",
    doc = "Where values live, for every namespace that a condition admits.",
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Provider", type_ = "string", json_path = ".status.provider"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Message", type_ = "string", priority = 1, json_path = ".status.conditions[?(@.type==\"Ready\")].message")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.allowAllNamespaces) || !self.allowAllNamespaces || !has(self.conditions)").message("allowAllNamespaces: true and conditions exclude each other"))]
#[x_kube(validation = Rule::new("!has(self.provider.vault) || !has(self.provider.vault.auth.tokenSecretRef) || has(self.provider.vault.auth.tokenSecretRef.namespace)").message("provider.vault.auth.tokenSecretRef.namespace is needed in a ClusterSecretStore: it has no namespace of its own"))]
pub struct ClusterSecretStoreSpec {
    /// The system: exactly one of its members.
    pub provider: ProviderBlock,
    /// Which namespaces may use the store: one matching condition is enough; none means nobody, unless `allowAllNamespaces`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub conditions: Option<Vec<StoreCondition>>,
    /// Every namespace may use the store. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_all_namespaces: Option<bool>,
    /// Patterns of which a remote key must match one, with `{namespace}` as variable: `*` is one segment or
    /// a part of it, `**` crosses `/`. All keys without it. What `find` returns is filtered by them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 512)))]
    pub allowed_keys: Option<Vec<String>>,
    /// How much may be asked of the system for this store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<StoreLimits>,
    /// Values may be kept in memory for a while, so that new objects with the same keys cost no call. Nothing is kept without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<StoreCache>,
    /// How often the login is checked while all is well, as a Go duration ("30s", "1h30m") or in whole seconds, as ESO writes it.
    /// Default 1h. Zero means once. A check reads no value; what fails meanwhile is noticed by the looks of the objects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "super::schema::interval")]
    pub refresh_interval: Option<IntOrString>,
    /// How a check that failed is repeated before the next one is due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_settings: Option<RetrySettings>,
}

/// How much may be asked of the system for one store, by all its objects together. Fresh objects go before changed values, and these before
/// periodic looks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.burst) || has(self.requestsPerSecond)").message("burst needs requestsPerSecond: without a rate nothing is held back"))]
pub struct StoreLimits {
    /// Calls per second, 1 to 10000. Without it as many as the system takes; when it refuses calls as too many, fewer for a while.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000), extend("format" = "int32"))]
    pub requests_per_second: Option<u32>,
    /// Calls at once after a rest, 1 to 10000. Default: `requestsPerSecond`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000), extend("format" = "int32"))]
    pub burst: Option<u32>,
    /// Calls in flight, 1 to 256. Default 16.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 256), extend("format" = "int32"))]
    pub max_concurrent: Option<u32>,
    /// Deadline of one call, connect and login included, as a Go duration from 10ms to 5m. Default: the operator's `callTimeout`, 10s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    #[x_kube(validation = Rule::new("self.matches('^[+]?(0|(([0-9]+[.]?[0-9]*|[.][0-9]+)(ns|us|µs|μs|ms|s|m|h))+)$') && duration(self) >= duration('10ms') && duration(self) <= duration('5m')").message("must be a Go duration from 10ms to 5m, such as 2s"))]
    pub timeout: Option<String>,
}

/// Values of a store that are kept after they were delivered, in zeroising memory, for this identity only.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct StoreCache {
    /// How old a value may be that a new or edited object is given, as a Go duration from 1s to 1h; never older than the object's own
    /// interval. Changes are seen and delivered as without it.
    #[schemars(length(min = 1, max = 64))]
    #[x_kube(validation = Rule::new("self.matches('^[+]?(0|(([0-9]+[.]?[0-9]*|[.][0-9]+)(ns|us|µs|μs|ms|s|m|h))+)$') && duration(self) >= duration('1s') && duration(self) <= duration('1h')").message("must be a Go duration from 1s to 1h, such as 30s"))]
    pub ttl: String,
    /// Values that are kept, 1 to 10000; beyond it the oldest goes. Default 1000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000), extend("format" = "int32"))]
    pub max_entries: Option<u32>,
}

/// How a check that failed is repeated.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RetrySettings {
    /// After so many repetitions the next check is the one that `refreshInterval` makes due. Without it they go on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub max_retries: Option<u32>,
    /// Pause before the first repetition, as a Go duration; it doubles with each, up to five minutes. Default 1s. A store that refused
    /// the login is asked again after ten minutes at the earliest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    #[x_kube(validation = Rule::new("self.matches('^[+]?(0|(([0-9]+[.]?[0-9]*|[.][0-9]+)(ns|us|µs|μs|ms|s|m|h))+)$') && duration(self) > duration('0s')").message("must be a Go duration above zero such as 500ms or 30s"))]
    pub retry_interval: Option<String>,
}

/// What the operator found out about a store of either kind.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct StoreStatus {
    /// The generation that this status speaks of; -1 before the first check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready` always; `Stalled` and `Reconciling` only while true.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "super::schema::conditions")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".to_string()]))]
    pub conditions: Vec<Condition>,
    /// The provider's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub provider: Option<String>,
    /// What the store can do, as found out when it was Ready last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Capabilities>,
    /// Hash of the generation and credential that were checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub inputs: Option<String>,
}

/// What a store can do in this build, with its provider, engine and settings. What its credential may do with a single key is not in
/// it: that is seen when the key is asked for.
#[expect(clippy::struct_excessive_bools, reason = "each is a field of the status, and any of them goes with any other")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Capabilities {
    /// Values are read by key.
    pub read: bool,
    /// Names are listed: `find` works.
    pub list: bool,
    /// One call reads several keys.
    pub batch: bool,
    /// A change is seen without reading the value.
    pub probe: bool,
    /// Values can be written.
    pub write: bool,
    /// A version can be asked for.
    pub versions: bool,
    /// The system changes values by itself when asked to.
    pub rotate: bool,
    /// The system says that something changed: no waiting for the next look.
    pub events: bool,
}

/// One way for a namespace to be admitted; of several members in one condition one is enough, as in ESO.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.namespaceSelector) || has(self.namespaces) || has(self.namespaceRegexes)").message("needs namespaceSelector, namespaces or namespaceRegexes"))]
pub struct StoreCondition {
    /// Namespaces whose labels match.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "super::schema::label_selector")]
    pub namespace_selector: Option<LabelSelector>,
    /// Namespaces by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256), inner(length(min = 1, max = 63)))]
    pub namespaces: Option<Vec<String>>,
    /// Namespaces whose whole name matches one of these regular expressions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 256)))]
    pub namespace_regexes: Option<Vec<String>>,
}

/// The system that holds the values.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[has(self.vault), has(self.aws), has(self.kubernetes), has(self.file), has(self.env), has(self.fake)].exists_one(p, p)").message("needs exactly one of vault, aws, kubernetes, file, env, fake"))]
pub struct ProviderBlock {
    /// HashiCorp Vault or OpenBao.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vault: Option<VaultProvider>,
    /// AWS Secrets Manager or Parameter Store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aws: Option<AwsProvider>,
    /// Secrets and ConfigMaps of this or another cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubernetes: Option<KubernetesProvider>,
    /// Files on the operator's disk: the encrypted store, or a tree of plain files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<FileProvider>,
    /// Environment variables of the operator; only in a ClusterSecretStore.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env: Option<EnvProvider>,
    /// Values that stand in the manifest: for trying things, never for secrets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fake: Option<FakeProvider>,
}

/// The one member of a [`ProviderBlock`] that is set.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Provider<'a> {
    Vault(&'a VaultProvider),
    Aws(&'a AwsProvider),
    Kubernetes(&'a KubernetesProvider),
    File(&'a FileProvider),
    Env(&'a EnvProvider),
    Fake(&'a FakeProvider),
}

impl ProviderBlock {
    /// The member that is set; `None` unless it is exactly one (the schema refuses anything else).
    #[must_use]
    pub fn provider(&self) -> Option<Provider<'_>> {
        let Self { vault, aws, kubernetes, file, env, fake } = self;
        let members = [
            vault.as_ref().map(Provider::Vault),
            aws.as_ref().map(Provider::Aws),
            kubernetes.as_ref().map(Provider::Kubernetes),
            file.as_ref().map(Provider::File),
            env.as_ref().map(Provider::Env),
            fake.as_ref().map(Provider::Fake),
        ];
        let mut set = members.into_iter().flatten();
        set.next().filter(|_| set.next().is_none())
    }
}

/// One key of a Secret.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretKeyRef {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Key in the Secret. The default is that of the field which names the Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub key: Option<String>,
    /// Namespace of the Secret: needed in a ClusterSecretStore; in a SecretStore it is always the store's own, and another is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub namespace: Option<String>,
}

/// A ServiceAccount whose tokens may be requested: one that is annotated `keyferry.dev/allow-token: "true"`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceAccountRef {
    /// Name of the ServiceAccount.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Namespace of the ServiceAccount: needed in a ClusterSecretStore; in a SecretStore it is always the store's own, and another is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub namespace: Option<String>,
    /// Who the token is for. Default `vault`, and `sts.amazonaws.com` for provider `aws`. The API server itself is refused as audience.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16), inner(length(min = 1, max = 512)))]
    pub audiences: Option<Vec<String>>,
}

/// Where certificates of an authority stand.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CaProvider {
    /// What holds them.
    pub r#type: CaProviderType,
    /// Name of the Secret or ConfigMap.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Its key that holds PEM certificates. Default `ca.crt`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub key: Option<String>,
    /// Its namespace: needed in a ClusterSecretStore; in a SecretStore it is always the store's own, and another is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub namespace: Option<String>,
}

/// What holds certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
pub enum CaProviderType {
    Secret,
    ConfigMap,
}

/// Files on the operator's disk.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.decryption) || (has(self.format) && self.format == 'Tree')").message("decryption is for format: Tree"))]
pub struct FileProvider {
    /// `Sealed`: the store's file, relative to the operator's `fileRoot`. `Tree`: a folder, relative to its `fileTreeRoot`; `.` is the root
    /// itself. For a SecretStore below `<root>/<namespace>/`, where the operator allows it.
    #[schemars(length(min = 1, max = 512), regex(pattern = r"^[^/].*$"))]
    pub path: String,
    /// What stands there: `Sealed` (the default) is the encrypted store, `Tree` plain files, whose keys are their paths.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<FileFormat>,
    /// Opens files that SOPS or age encrypted, in a `Tree`. With it every file that is read must be encrypted, without it none may be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decryption: Option<FileDecryption>,
}

/// Whose files are opened.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FileDecryption {
    /// A key file of age in a Secret, as `age-keygen` makes it: at most 64 identities, one a line. Key `age.agekey` by default.
    pub age_identity_secret_ref: SecretKeyRef,
}

/// What a file provider reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
pub enum FileFormat {
    #[default]
    Sealed,
    Tree,
}

/// Environment variables of the operator.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EnvProvider {
    /// Start of every readable variable's name, such as `APP_`.
    #[schemars(length(min = 1, max = 128), regex(pattern = r"^[A-Z][A-Z0-9_]*$"))]
    pub prefix: String,
    /// How `db/password` becomes a name: `Flat` (the default) is `<prefix>DB_PASSWORD`, `Nested` is `<prefix>__DB__PASSWORD`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub style: Option<EnvStyle>,
}

/// How a remote key becomes a variable's name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
pub enum EnvStyle {
    #[default]
    Flat,
    Nested,
}

/// Values that stand in the manifest.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct FakeProvider {
    /// The values; of one key the last without a version is the current one.
    #[schemars(length(max = 256))]
    pub data: Vec<FakeValue>,
}

/// One value of a fake store.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FakeValue {
    /// Remote key.
    #[schemars(length(min = 1, max = 2048))]
    pub key: String,
    /// The value.
    #[schemars(length(max = 65_536))]
    pub value: String,
    /// Its version; the current one without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub version: Option<String>,
}
