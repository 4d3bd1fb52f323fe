//! Provider `fake`: values in the manifest. For trying things out; what stands in a manifest is no secret.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;

use crate::{
    backend::{Backend, List, Traits, no_metadata, not_found},
    crd::v1alpha1::FakeProvider,
    fault::{Fault, Reason},
    item::{Fetched, Form, Reading},
    name::{ProviderKind, RemoteKey, RemoteRef},
    secret::SecretValue,
};

/// Takes the values out of the provider block. Whatever the schema admits is a store.
#[must_use]
pub fn open(spec: &FakeProvider) -> Arc<dyn Backend> {
    let mut keys: BTreeMap<String, Versions> = BTreeMap::new();
    for entry in &spec.data {
        let value = SecretValue::from(entry.value.clone());
        keys.entry(entry.key.clone()).or_default().insert(entry.version.clone(), value);
    }
    Arc::new(Fake { keys })
}

/// The values of one key; `None` is the current one.
type Versions = BTreeMap<Option<String>, SecretValue>;

struct Fake {
    keys: BTreeMap<String, Versions>,
}

impl Fake {
    fn read(&self, wanted: &RemoteRef) -> Reading {
        if wanted.is_metadata {
            return Reading::Unknown(no_metadata(&wanted.key, "provider fake"));
        }
        let Some(versions) = self.keys.get(wanted.key.as_str()) else {
            return Reading::Absent(not_found(&wanted.key));
        };
        match versions.get(&wanted.version) {
            Some(value) => {
                Reading::Found(Fetched { value: value.clone(), form: Form::Whole, version: wanted.version.clone(), is_secret: false })
            }
            None => Reading::Absent(no_such_version(wanted)),
        }
    }
}

#[async_trait]
impl Backend for Fake {
    fn batch_size(&self) -> usize {
        usize::MAX
    }

    async fn fetch(&self, refs: &[RemoteRef]) -> Vec<Reading> {
        refs.iter().map(|wanted| self.read(wanted)).collect()
    }

    async fn check(&self) -> Result<Traits, Fault> {
        Ok(Traits { has_versions: true })
    }

    fn lister(&self) -> Option<&dyn List> {
        Some(self)
    }
}

#[async_trait]
impl List for Fake {
    async fn list(&self, path: Option<&str>) -> Result<Vec<RemoteKey>, Fault> {
        let below = path.map_or_else(String::new, |path| format!("{}/", path.trim_end_matches('/')));
        let current = self.keys.iter().filter(|(key, versions)| key.starts_with(&below) && versions.contains_key(&None));
        // A key that is no remote key cannot be asked for by any reference either.
        Ok(current.filter_map(|(key, _)| RemoteKey::parse(ProviderKind::Fake, key).ok()).filter(|key| key.as_str() != below).collect())
    }
}

fn no_such_version(wanted: &RemoteRef) -> Fault {
    let key = wanted.key.as_str();
    let detail = match &wanted.version {
        Some(version) => format!("remote key {key:?} has no version {version:?}: add it to the store or correct the version"),
        None => format!("remote key {key:?} has numbered versions only: add a value without a version to the store or name a version"),
    };
    Fault::absent(Reason::NotFound, detail)
}

#[cfg(test)]
mod tests {
    use crate::{
        backend::{Credentials, Settings, open},
        crd::v1alpha1::{FakeProvider, Provider},
        fault::Reason,
        item::Reading,
        name::{ProviderKind, RemoteKey, RemoteRef, StoreName},
    };

    fn store() -> std::sync::Arc<dyn crate::backend::Backend> {
        let spec: FakeProvider = serde_json::from_str(
            r#"{"data": [
                {"key": "a/b", "value": "first"},
                {"key": "a/b", "value": "pinned", "version": "v1"},
                {"key": "a/b", "value": "last"},
                {"key": "a", "value": ""},
                {"key": "ab/c", "value": "x"},
                {"key": "a/old", "value": "x", "version": "7"}
            ]}"#,
        )
        .unwrap();
        open(&StoreName::Cluster { name: "s".into() }, Provider::Fake(&spec), &Credentials::default(), &Settings::default()).unwrap()
    }

    async fn read(key: &str, version: Option<&str>) -> Result<(String, Option<String>), Reason> {
        let key = RemoteKey::parse(ProviderKind::Fake, key).unwrap();
        match store().fetch(&[RemoteRef { key, version: version.map(str::to_owned), is_metadata: false }]).await.remove(0) {
            Reading::Found(found) => Ok((String::from_utf8(found.value.expose().to_vec()).unwrap(), found.version)),
            Reading::Absent(fault) => Err(fault.reason),
            Reading::Unknown(fault) => unreachable!("{fault}"),
        }
    }

    #[tokio::test]
    async fn the_last_value_without_a_version_is_the_current_one() {
        assert_eq!(read("a/b", None).await, Ok(("last".into(), None)));
        assert_eq!(read("a", None).await, Ok((String::new(), None)));
    }

    #[tokio::test]
    async fn a_pinned_version_is_read_by_its_name_only() {
        assert_eq!(read("a/b", Some("v1")).await, Ok(("pinned".into(), Some("v1".into()))));
        for (key, version) in [("a/b", Some("v2")), ("a/old", None), ("nowhere", None), ("/a/b", None)] {
            assert_eq!(read(key, version).await, Err(Reason::NotFound), "{key} {version:?}");
        }
    }

    #[tokio::test]
    async fn a_list_names_each_current_key_below_its_path_once() {
        let (store, cases) = (store(), [(None, vec!["a", "a/b", "ab/c"]), (Some("a"), vec!["a/b"]), (Some("x"), vec![])]);
        for (path, expected) in cases {
            let names = store.lister().unwrap().list(path).await.unwrap();
            assert_eq!(names.iter().map(RemoteKey::as_str).collect::<Vec<_>>(), expected, "{path:?}");
        }
    }
}
