//! What is remembered of a Secret or `ConfigMap` without its data: reduced in the watch stream, so that other people's cost nothing.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use k8s_openapi::jiff::Timestamp;

use super::is_newer;
use crate::{
    digest::sha256_hex,
    name::{ObjectKey, TargetKind},
};

/// Start of the annotations by which a target says what was written.
pub const DIGEST_PREFIX: &str = "keyferry.dev/digest-";

/// Start of the field managers of our objects of every kind.
const OUR_MANAGERS: &str = "keyferry-";

/// Name of the annotation of an object on its target.
#[must_use]
pub fn annotation(object: &ObjectKey) -> String {
    format!("{DIGEST_PREFIX}{}", &sha256_hex(&format!("{}/{}", object.kind, object.name))[..10])
}

/// A Secret or `ConfigMap` by namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TargetName {
    pub kind: TargetKind,
    pub namespace: String,
    pub name: String,
}

impl TargetName {
    pub fn new(kind: TargetKind, namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { kind, namespace: namespace.into(), name: name.into() }
    }
}

/// Without its namespace, which is always that of whoever speaks of it.
impl fmt::Display for TargetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}

/// The metadata of a target that decisions need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetFacts {
    pub uid: String,
    pub resource_version: String,
    pub is_deleting: bool,
    pub has_label: bool,
    /// Kind, name and UID of each owner.
    pub owners: Vec<(String, String, String)>,
    /// Annotations that start with [`DIGEST_PREFIX`], with their full names.
    pub records: Vec<(String, String)>,
    /// Who holds which keys of `data` and `binaryData`.
    pub holders: Vec<Holder>,
}

/// A field manager and the keys of `data` and `binaryData` that it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    pub manager: String,
    pub is_apply: bool,
    /// Sorted. (There is one of these for each target in the cluster that is ours: a set would be ten times as large.)
    pub keys: Vec<String>,
    /// When it wrote last.
    pub time: Option<Timestamp>,
}

impl TargetFacts {
    /// What the annotation of that name says.
    #[must_use]
    pub fn record(&self, name: &str) -> Option<&str> {
        self.records.iter().find(|(known, _)| known == name).map(|(_, text)| text.as_str())
    }

    /// The keys in the *Apply* entry of that manager; `None` when it has no such entry.
    #[must_use]
    pub fn applied_by(&self, manager: &str) -> Option<&[String]> {
        self.holders.iter().find(|holder| holder.is_apply && holder.manager == manager).map(|holder| holder.keys.as_slice())
    }

    /// When one of our objects last applied something that was not so before.
    #[must_use]
    pub fn applied_at(&self) -> Option<Timestamp> {
        let ours = self.holders.iter().filter(|holder| holder.is_apply && holder.manager.starts_with(OUR_MANAGERS));
        ours.filter_map(|holder| holder.time).max()
    }

    /// Who else holds a key.
    #[must_use]
    pub fn holder_of(&self, key: &str, except: &str) -> Option<&str> {
        self.holders.iter().find(|h| h.holds(key) && !(h.is_apply && h.manager == except)).map(|h| h.manager.as_str())
    }

    fn is_ours(&self) -> bool {
        !self.records.is_empty()
    }
}

impl Holder {
    fn holds(&self, key: &str) -> bool {
        self.keys.binary_search_by(|known| known.as_str().cmp(key)).is_ok()
    }
}

/// All targets, ours and those that somebody wants. Cheap to clone.
#[derive(Clone, Default)]
pub struct TargetIndex(Arc<Mutex<HashMap<TargetName, Arc<TargetFacts>>>>);

impl TargetIndex {
    fn map(&self) -> std::sync::MutexGuard<'_, HashMap<TargetName, Arc<TargetFacts>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[must_use]
    pub fn get(&self, name: &TargetName) -> Option<Arc<TargetFacts>> {
        self.map().get(name).cloned()
    }

    /// Takes what a watch or a write saw; false when it was known already or is nobody's concern.
    pub fn put(&self, name: TargetName, facts: TargetFacts, is_wanted: bool) -> bool {
        let mut map = self.map();
        if !is_wanted && !facts.is_ours() {
            return map.remove(&name).is_some();
        }
        if map.get(&name).is_some_and(|known| known.uid == facts.uid && !is_newer(&facts.resource_version, &known.resource_version)) {
            return false;
        }
        map.insert(name, Arc::new(facts));
        true
    }

    /// Forgets a target that is gone; false when it was not known.
    pub fn remove(&self, name: &TargetName) -> bool {
        self.map().remove(name).is_some()
    }

    /// After a full list of a kind: forgets what it did not show, and returns those names.
    pub fn retain(&self, kind: TargetKind, seen: &BTreeSet<TargetName>) -> Vec<TargetName> {
        let mut map = self.map();
        let gone: Vec<TargetName> = map.keys().filter(|name| name.kind == kind && !seen.contains(*name)).cloned().collect();
        for name in &gone {
            map.remove(name);
        }
        gone
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.map().len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.map().is_empty()
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Secret;

    use super::{TargetFacts, TargetIndex, TargetName};
    use crate::{cluster::lean::LeanTarget, name::TargetKind};

    fn facts(version: &str, record: bool) -> TargetFacts {
        let annotations = if record { r#"{"keyferry.dev/digest-0123456789":"{}"}"# } else { "{}" };
        let text = format!(
            r#"{{"metadata":{{"uid":"u","resourceVersion":"{version}","annotations":{annotations},"managedFields":[
              {{"manager":"keyferry-kes-a","operation":"Apply","time":"2026-01-01T10:00:00Z","fieldsV1":{{"f:data":{{"f:one":{{}},"f:two.x":{{}}}}}}}},
              {{"manager":"kubectl-edit","operation":"Update","time":"2026-01-01T11:00:00Z","fieldsV1":{{"f:data":{{".":{{}},"f:three":{{}}}}}}}}]}}}}"#
        );
        serde_json::from_str::<LeanTarget<Secret>>(&text).unwrap().facts
    }

    #[test]
    fn holders_of_keys_are_read_from_managed_fields() {
        let facts = facts("1", true);
        let ours: Vec<_> = facts.applied_by("keyferry-kes-a").unwrap().iter().map(String::as_str).collect();
        assert_eq!(ours, ["one", "two.x"]);
        assert_eq!(facts.applied_at(), Some("2026-01-01T10:00:00Z".parse().unwrap()), "not the later edit of somebody else");
        assert_eq!(facts.holder_of("three", "keyferry-kes-a"), Some("kubectl-edit"));
        assert_eq!(facts.holder_of("one", "keyferry-kes-a"), None);
        assert_eq!(facts.applied_by("kubectl-edit"), None);
    }

    #[test]
    fn foreign_secrets_are_not_remembered() {
        let index = TargetIndex::default();
        let name = TargetName::new(TargetKind::Secret, "ns", "s");
        assert!(!index.put(name.clone(), facts("1", false), false));
        assert!(index.is_empty());
        assert!(index.put(name.clone(), facts("1", false), true), "somebody refers to it");
        assert!(index.put(name, facts("2", true), false), "it carries a record of ours");
    }

    #[test]
    fn an_echo_of_our_own_write_is_no_news() {
        let index = TargetIndex::default();
        let name = TargetName::new(TargetKind::Secret, "ns", "s");
        assert!(index.put(name.clone(), facts("10", true), true));
        assert!(!index.put(name.clone(), facts("10", true), true));
        assert!(!index.put(name.clone(), facts("9", true), true), "a watch that lags behind our write");
        assert!(index.put(name, facts("11", true), true));
    }
}
