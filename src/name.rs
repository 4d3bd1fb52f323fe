//! Validated names and the canonical form of a remote key. Pure.

use std::fmt;

/// An `ExternalSecret` by namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey {
    pub namespace: String,
    pub name: String,
}

impl ObjectKey {
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A store by scope and name: a namespaced `SecretStore` or a `ClusterSecretStore`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StoreName {
    Namespaced { namespace: String, name: String },
    Cluster { name: String },
}

impl StoreName {
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Namespaced { name, .. } | Self::Cluster { name } => name,
        }
    }

    /// The kind's name, as manifests spell it.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Namespaced { .. } => "SecretStore",
            Self::Cluster { .. } => "ClusterSecretStore",
        }
    }
}

impl fmt::Display for StoreName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind(), self.name())
    }
}

/// The providers of this build, for the canonical form of their keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ProviderKind {
    Vault,
    File,
    Env,
    Fake,
}

/// A remote key in its canonical form: two spellings of one thing compare equal, so that rules and the cache cannot be by-passed.
///
/// At most 2,048 bytes. `vault` and `file`: segments between single slashes, no leading or trailing slash, no `.` or `..`
/// segment, no control character. `env`: as `file` (the variable's name is made from it by the backend). `fake`: as written.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RemoteKey(String);

/// One remote value that is wanted.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RemoteRef {
    pub key: RemoteKey,
    /// The provider's own word for a version; `None` is the current one.
    pub version: Option<String>,
}

/// Why a text is no remote key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("the remote key is empty: name the key to read")]
    Empty,
    #[error("the remote key is longer than 2048 bytes")]
    TooLong,
    #[error("the remote key has a '.' or '..' segment: write the full path")]
    Traversal,
    #[error("the remote key has a control character: remove it")]
    Control,
}

impl RemoteKey {
    /// Brings a key of a manifest or of a listing into its canonical form.
    ///
    /// # Errors
    /// [`KeyError`] when it is empty, too long, climbs, or has control characters.
    pub fn parse(provider: ProviderKind, text: &str) -> Result<Self, KeyError> {
        if text.len() > 2048 {
            return Err(KeyError::TooLong);
        }
        if text.chars().any(char::is_control) {
            return Err(KeyError::Control);
        }
        if provider == ProviderKind::Fake {
            return if text.is_empty() { Err(KeyError::Empty) } else { Ok(Self(text.to_owned())) };
        }
        let segments: Vec<&str> = text.split('/').filter(|segment| !segment.is_empty()).collect();
        if segments.iter().any(|segment| matches!(*segment, "." | "..")) {
            return Err(KeyError::Traversal);
        }
        if segments.is_empty() { Err(KeyError::Empty) } else { Ok(Self(segments.join("/"))) }
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RemoteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::{KeyError, ProviderKind, RemoteKey};

    #[test]
    fn spellings_of_one_key_compare_equal() {
        for text in ["db/password", "/db/password", "db//password/"] {
            assert_eq!(RemoteKey::parse(ProviderKind::Vault, text).unwrap().as_str(), "db/password", "{text}");
        }
    }

    #[test]
    fn keys_that_climb_or_hide_are_refused() {
        let cases = [
            ("", KeyError::Empty),
            ("//", KeyError::Empty),
            ("a/../b", KeyError::Traversal),
            ("./a", KeyError::Traversal),
            ("a\nb", KeyError::Control),
        ];
        for (text, error) in cases {
            assert_eq!(RemoteKey::parse(ProviderKind::File, text), Err(error), "{text:?}");
        }
        assert_eq!(RemoteKey::parse(ProviderKind::Vault, &"x".repeat(2049)), Err(KeyError::TooLong));
        assert_eq!(RemoteKey::parse(ProviderKind::Fake, ""), Err(KeyError::Empty));
    }
}
