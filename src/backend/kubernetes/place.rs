//! Which object of the remote namespace a key names, and its paths. Pure.

use crate::name::{ProviderKind, RemoteKey};

/// What can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Resource {
    Secret,
    ConfigMap,
}

/// Start of the keys of ConfigMaps, and the path of a search for them.
pub(super) const CONFIG_MAPS: &str = "configmap";

impl Resource {
    pub fn kind(self) -> &'static str {
        match self {
            Self::Secret => "Secret",
            Self::ConfigMap => "ConfigMap",
        }
    }

    pub fn plural(self) -> &'static str {
        match self {
            Self::Secret => "secrets",
            Self::ConfigMap => "configmaps",
        }
    }

    /// The canonical key of the object of that name; none for a name that no reference can ask for.
    pub fn key(self, name: &str) -> Option<RemoteKey> {
        let text = match self {
            Self::Secret => name.to_owned(),
            Self::ConfigMap => format!("{CONFIG_MAPS}/{name}"),
        };
        RemoteKey::parse(ProviderKind::Kubernetes, &text).ok().filter(|key| key.as_str() == text)
    }

    /// The path of all objects of a namespace.
    pub fn path(self, namespace: &str) -> String {
        format!("/api/v1/namespaces/{namespace}/{}", self.plural())
    }
}

/// The object that a key names.
pub(super) fn place(key: &RemoteKey) -> (Resource, &str) {
    match key.as_str().split_once('/') {
        Some((_, name)) => (Resource::ConfigMap, name),
        None => (Resource::Secret, key.as_str()),
    }
}

#[cfg(test)]
mod tests {
    use super::{Resource, place};
    use crate::name::{ProviderKind, RemoteKey};

    #[test]
    fn a_key_leads_to_its_object_and_back() {
        for (text, resource, name) in [
            ("db", Resource::Secret, "db"),
            ("secret/db", Resource::Secret, "db"),
            ("configmap/db.x", Resource::ConfigMap, "db.x"),
            ("configmap", Resource::Secret, "configmap"),
        ] {
            let key = RemoteKey::parse(ProviderKind::Kubernetes, text).unwrap();
            assert_eq!(place(&key), (resource, name), "{text}");
            assert_eq!(resource.key(name), Some(key), "{text}");
        }
        assert_eq!(Resource::Secret.key("No Name"), None);
    }
}
