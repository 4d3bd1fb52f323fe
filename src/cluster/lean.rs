//! What the API server's answers are decoded into: no more of an object than somebody asks for. `managedFields`, decoded whole, would be
//! many times as large as what is kept, and a list of a thousand objects holds them all at once.

use std::{borrow::Cow, collections::BTreeMap, fmt, marker::PhantomData};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::Resource;
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, DeserializeSeed, IgnoredAny, MapAccess, Visitor},
};

use super::target::{DIGEST_PREFIX, Holder, TargetFacts};
use crate::crd::v1alpha1::{ExternalParameter, ExternalParameterSpec, ExternalSecret, ExternalSecretSpec, MANAGED_LABEL, SyncStatus};

/// Start of the annotations of an object that are kept.
const OUR_ANNOTATIONS: &str = "keyferry.dev/";

/// An object of ours without what nobody asks for: `managedFields`, labels, owners, and the annotations of others.
#[derive(Clone, Debug)]
pub struct Lean<K>(pub K);

/// A kind that is made of its parts. Lists keep no room to grow: most have one member or two, and would have room for four.
pub trait Parts: Resource<DynamicType = ()> + Clone + fmt::Debug + Send + Sync + 'static {
    type Spec: DeserializeOwned;

    fn from_parts(metadata: ObjectMeta, spec: Self::Spec, status: Option<SyncStatus>) -> Self;
}

impl Parts for ExternalSecret {
    type Spec = ExternalSecretSpec;

    fn from_parts(metadata: ObjectMeta, mut spec: Self::Spec, status: Option<SyncStatus>) -> Self {
        spec.data.as_mut().map(Vec::shrink_to_fit);
        spec.data_from.as_mut().map(Vec::shrink_to_fit);
        Self { metadata, spec, status }
    }
}

impl Parts for ExternalParameter {
    type Spec = ExternalParameterSpec;

    fn from_parts(metadata: ObjectMeta, mut spec: Self::Spec, status: Option<SyncStatus>) -> Self {
        spec.data.as_mut().map(Vec::shrink_to_fit);
        spec.data_from.as_mut().map(Vec::shrink_to_fit);
        Self { metadata, spec, status }
    }
}

#[derive(Deserialize)]
struct ObjectBody<S> {
    metadata: ObjectMetadata,
    spec: S,
    #[serde(default)]
    status: Option<SyncStatus>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ObjectMetadata {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    generation: Option<i64>,
    creation_timestamp: Option<Time>,
    deletion_timestamp: Option<Time>,
    annotations: Option<Ours>,
}

impl<'de, K: Parts> Deserialize<'de> for Lean<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let ObjectBody { metadata, spec, mut status } = ObjectBody::<K::Spec>::deserialize(deserializer)?;
        if let Some(status) = &mut status {
            status.conditions.shrink_to_fit();
            status.entries.shrink_to_fit();
        }
        let annotations = metadata.annotations.map(|Ours(pairs)| BTreeMap::from_iter(pairs)).filter(|ours| !ours.is_empty());
        let metadata = ObjectMeta {
            name: metadata.name,
            namespace: metadata.namespace,
            uid: metadata.uid,
            resource_version: metadata.resource_version,
            generation: metadata.generation,
            creation_timestamp: metadata.creation_timestamp,
            deletion_timestamp: metadata.deletion_timestamp,
            annotations,
            ..ObjectMeta::default()
        };
        Ok(Self(K::from_parts(metadata, spec, status)))
    }
}

impl<K: Parts> Resource for Lean<K> {
    type DynamicType = ();
    type Scope = K::Scope;

    fn kind((): &()) -> Cow<'_, str> {
        K::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        K::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        K::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        K::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        self.0.meta()
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        self.0.meta_mut()
    }
}

/// The metadata of a Secret or `ConfigMap`, reduced while it is decoded.
#[derive(Debug)]
pub struct LeanTarget<K> {
    /// Name, namespace and resource version, and nothing else.
    metadata: ObjectMeta,
    pub facts: TargetFacts,
    kind: PhantomData<fn() -> K>,
}

// By hand: whether K can be cloned does not matter.
impl<K> Clone for LeanTarget<K> {
    fn clone(&self) -> Self {
        Self { metadata: self.metadata.clone(), facts: self.facts.clone(), kind: PhantomData }
    }
}

#[derive(Deserialize)]
struct TargetAnswer {
    metadata: TargetMetadata,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TargetMetadata {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    deletion_timestamp: Option<IgnoredAny>,
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<Ours>,
    owner_references: Option<Vec<Owner>>,
    managed_fields: Option<Vec<Fieldset>>,
}

#[derive(Deserialize)]
struct Owner {
    kind: String,
    name: String,
    uid: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Fieldset {
    manager: Option<String>,
    operation: Option<String>,
    time: Option<Time>,
    fields_v1: Option<Fields>,
}

impl Fieldset {
    fn holder(self) -> Option<Holder> {
        let Fields(mut keys) = self.fields_v1?;
        keys.sort_unstable();
        keys.dedup();
        keys.shrink_to_fit();
        Some(Holder {
            manager: self.manager.unwrap_or_default(),
            is_apply: self.operation.as_deref() == Some("Apply"),
            keys,
            time: self.time.map(|time| time.0),
        })
    }
}

impl<'de, K> Deserialize<'de> for LeanTarget<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let metadata = TargetAnswer::deserialize(deserializer)?.metadata;
        let mut records = metadata.annotations.map(|Ours(pairs)| pairs).unwrap_or_default();
        records.retain(|(name, _)| name.starts_with(DIGEST_PREFIX));
        records.shrink_to_fit();
        let facts = TargetFacts {
            uid: metadata.uid.unwrap_or_default(),
            resource_version: metadata.resource_version.clone().unwrap_or_default(),
            is_deleting: metadata.deletion_timestamp.is_some(),
            has_label: metadata.labels.is_some_and(|labels| labels.get(MANAGED_LABEL).is_some_and(|value| value == "true")),
            owners: exactly(metadata.owner_references.into_iter().flatten().map(|owner| (owner.kind, owner.name, owner.uid))),
            records,
            holders: exactly(metadata.managed_fields.into_iter().flatten().filter_map(Fieldset::holder)),
        };
        let (name, namespace, resource_version) = (metadata.name, metadata.namespace, metadata.resource_version);
        Ok(Self { metadata: ObjectMeta { name, namespace, resource_version, ..ObjectMeta::default() }, facts, kind: PhantomData })
    }
}

/// Without room to grow.
fn exactly<T>(members: impl Iterator<Item = T>) -> Vec<T> {
    let mut members: Vec<T> = members.collect();
    members.shrink_to_fit();
    members
}

impl<K: Resource<DynamicType = ()>> Resource for LeanTarget<K> {
    type DynamicType = ();
    type Scope = K::Scope;

    /// So that the API server is asked for metadata: it never sends the data.
    fn metadata_api() -> bool {
        true
    }

    fn kind((): &()) -> Cow<'_, str> {
        K::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        K::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        K::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        K::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// The resource version of whatever was written.
pub struct Version(pub Option<String>);

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Whole {
            metadata: Metadata,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Metadata {
            resource_version: Option<String>,
        }
        Ok(Self(Whole::deserialize(deserializer)?.metadata.resource_version))
    }
}

/// Annotations that are ours, in the order of the answer. Somebody else's may be a quarter of a megabyte each.
struct Ours(Vec<(String, String)>);

impl<'de> Deserialize<'de> for Ours {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Ours;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("annotations")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Ours, A::Error> {
                let mut pairs = Vec::new();
                while let Some(name) = map.next_key_seed(After { prefix: "", wanted: OUR_ANNOTATIONS })? {
                    if let Some(name) = name {
                        pairs.push((name, map.next_value()?));
                    } else {
                        map.next_value::<IgnoredAny>()?;
                    }
                }
                pairs.shrink_to_fit();
                Ok(Ours(pairs))
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}

/// The keys of `data` and `binaryData` that a manager holds. What is not written as the API server writes it holds nothing.
struct Fields(Vec<String>);

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Known {
            #[serde(default, rename = "f:data")]
            data: Keys,
            #[serde(default, rename = "f:binaryData")]
            binary: Keys,
        }
        let Known { data: Keys(mut keys), binary: Keys(binary) } = Known::deserialize(deserializer)?;
        keys.extend(binary);
        Ok(Self(keys))
    }
}

/// The names below one field.
#[derive(Default)]
struct Keys(Vec<String>);

impl<'de> Deserialize<'de> for Keys {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Names;
        impl<'de> Visitor<'de> for Names {
            type Value = Keys;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("fields")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Keys, A::Error> {
                let mut keys = Vec::new();
                while let Some(name) = map.next_key_seed(After { prefix: "f:", wanted: "" })? {
                    keys.extend(name);
                    map.next_value::<IgnoredAny>()?;
                }
                Ok(Keys(keys))
            }
        }
        deserializer.deserialize_map(Names)
    }
}

/// A name without this start, if it has it and goes on with what is wanted; no other name is kept.
struct After {
    prefix: &'static str,
    wanted: &'static str,
}

impl<'de> DeserializeSeed<'de> for After {
    type Value = Option<String>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for After {
    type Value = Option<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(name.strip_prefix(self.prefix).filter(|rest| rest.starts_with(self.wanted)).map(str::to_owned))
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Secret;
    use serde_json::json;

    use super::{Lean, LeanTarget};
    use crate::crd::v1alpha1::ExternalSecret;

    #[test]
    fn an_object_keeps_what_decisions_ask_for_and_nothing_else() {
        let manifest = json!({
            "apiVersion": "keyferry.dev/v1alpha1", "kind": "ExternalSecret",
            "metadata": {
                "name": "a", "namespace": "team", "uid": "u", "generation": 3, "resourceVersion": "7", "labels": {"app": "x"},
                "creationTimestamp": "2026-01-01T00:00:00Z", "deletionTimestamp": "2026-01-02T00:00:00Z", "finalizers": ["x"],
                "annotations": {"keyferry.dev/refresh": "now", "kubectl.kubernetes.io/last-applied-configuration": "{}"},
                "managedFields": [{"manager": "m", "operation": "Update", "fieldsV1": {"f:spec": {}}}],
            },
            "spec": {"secretStoreRef": {"name": "main"}, "data": [{"secretKey": "k", "remoteRef": {"key": "a"}}]},
            "status": {"observedGeneration": 3, "inputs": "i"},
        });
        let whole: ExternalSecret = serde_json::from_value(manifest.clone()).unwrap();
        let Lean(lean) = serde_json::from_str::<Lean<ExternalSecret>>(&manifest.to_string()).unwrap();
        let mut expected = whole;
        (expected.metadata.labels, expected.metadata.managed_fields, expected.metadata.finalizers) = (None, None, None);
        expected.metadata.annotations.as_mut().unwrap().remove("kubectl.kubernetes.io/last-applied-configuration");
        assert_eq!(lean, expected);
    }

    #[test]
    fn an_object_without_a_status_or_annotations_of_ours_is_one_too() {
        let text = r#"{"metadata":{"name":"a","annotations":{"x":"y"}},"spec":{},"status":null}"#;
        let Lean(lean) = serde_json::from_str::<Lean<ExternalSecret>>(text).unwrap();
        assert!(lean.status.is_none() && lean.metadata.annotations.is_none());
    }

    #[test]
    fn a_targets_holders_are_read_without_the_rest_of_its_managed_fields() {
        let text = json!({"metadata": {
            "name": "s", "namespace": "ns", "uid": "u", "resourceVersion": "9", "labels": {"keyferry.dev/managed": "true"},
            "annotations": {"keyferry.dev/digest-0123456789": "{}", "keyferry.dev/other": "", "other": "x"},
            "ownerReferences": [{"apiVersion": "v1", "kind": "K", "name": "n", "uid": "o", "controller": true}],
            "managedFields": [
                {"manager": "one", "operation": "Apply", "time": "2026-01-01T10:00:00Z", "apiVersion": "v1", "fieldsType": "FieldsV1",
                 "fieldsV1": {"f:metadata": {"f:labels": {"f:x": {}}}, "f:data": {".": {}, "f:b": {}, "f:a.x": {}}, "f:binaryData": {"f:c": {}}}},
                {"manager": "two", "operation": "Update", "fieldsV1": {"f:type": {}}},
                {"manager": "three", "operation": "Update"},
            ],
        }});
        let facts = serde_json::from_str::<LeanTarget<Secret>>(&text.to_string()).unwrap().facts;
        assert_eq!((facts.uid.as_str(), facts.resource_version.as_str(), facts.has_label, facts.is_deleting), ("u", "9", true, false));
        assert_eq!(facts.records, [("keyferry.dev/digest-0123456789".to_owned(), "{}".to_owned())]);
        assert_eq!(facts.owners, [("K".to_owned(), "n".to_owned(), "o".to_owned())]);
        let held: Vec<_> = facts.holders.iter().map(|holder| (holder.manager.as_str(), holder.is_apply, holder.keys.join(" "))).collect();
        assert_eq!(held, [("one", true, "a.x b c".to_owned()), ("two", false, String::new())]);
    }
}
