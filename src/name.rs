//! Validated names and the canonical form of a remote key. Pure.

use std::fmt;

/// The kinds of objects that become a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ObjectKind {
    ExternalSecret,
    ExternalParameter,
}

/// What an object becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TargetKind {
    Secret,
    ConfigMap,
}

impl ObjectKind {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::ExternalSecret, Self::ExternalParameter];

    /// The kind's name, as manifests spell it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ExternalSecret => "ExternalSecret",
            Self::ExternalParameter => "ExternalParameter",
        }
    }

    /// The kind of that name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }

    /// What objects of the kind become; nothing else becomes it.
    #[must_use]
    pub const fn target(self) -> TargetKind {
        match self {
            Self::ExternalSecret => TargetKind::Secret,
            Self::ExternalParameter => TargetKind::ConfigMap,
        }
    }
}

impl fmt::Display for ObjectKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl TargetKind {
    /// The kind's name, as manifests spell it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Secret => "Secret",
            Self::ConfigMap => "ConfigMap",
        }
    }
}

impl fmt::Display for TargetKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An object by kind, namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey {
    pub kind: ObjectKind,
    pub namespace: String,
    pub name: String,
}

impl ObjectKey {
    pub fn new(kind: ObjectKind, namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { kind, namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
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
    AwsSecretsManager,
    AwsParameterStore,
    Kubernetes,
    File,
    /// Variables whose names are flat: `db/password` is `DB_PASSWORD`.
    Env,
    /// Variables whose names keep the hierarchy: `db/password` is `__DB__PASSWORD`.
    EnvNested,
    Fake,
}

impl ProviderKind {
    /// The provider's name, as manifests spell it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Vault => "vault",
            Self::AwsSecretsManager | Self::AwsParameterStore => "aws",
            Self::Kubernetes => "kubernetes",
            Self::File => "file",
            Self::Env | Self::EnvNested => "env",
            Self::Fake => "fake",
        }
    }
}

/// A remote key in its canonical form: two spellings of one thing compare equal, so that rules and the cache cannot be by-passed.
///
/// At most 2,048 bytes. `vault` and `file`: segments between single slashes, no leading or trailing slash, no `.` or `..`
/// segment, no control character. `env`: lower case, and exactly one spelling per variable, so that no rule on `db/password` is
/// passed by asking for `DB_PASSWORD`: flat names have `/` wherever the variable has `_`; nested names have `/` for `__` and `_`
/// inside a segment. `kubernetes`: the name of a Secret, or `configmap/` and the name of a ConfigMap; `secret/<name>` is `<name>`.
/// `aws`: as written, since a slash at the start or two in a row make another name there; an ARN is a key of its own, and `:` is in no
/// other. `fake`: as written.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RemoteKey(String);

/// One remote value that is wanted.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RemoteRef {
    pub key: RemoteKey,
    /// The provider's own word for a version; `None` is the current one.
    pub version: Option<String>,
    /// Not the value is wanted, but what the system keeps beside it for its users: labels, tags, custom metadata, as a JSON object.
    pub is_metadata: bool,
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
    #[error("the remote key names no Secret or ConfigMap: write the name of a Secret, or configmap/<name>")]
    NoObject,
    #[error("the remote key has a ':' and is no ARN: write a version, stage or label into version")]
    Selector,
    #[error("the remote key names no variable: use letters, digits and single '/', '_', '-' or '.' between them")]
    NoVariable,
}

impl RemoteKey {
    /// Brings a key of a manifest or of a listing into its canonical form.
    ///
    /// # Errors
    /// [`KeyError`] when it is empty, too long, climbs, or has control characters.
    pub fn parse(provider: ProviderKind, text: &str) -> Result<Self, KeyError> {
        canonical(provider, text, |character| character.is_ascii_alphanumeric()).map(Self)
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

/// Brings a pattern on keys into the form of the keys that it is compared with; `*` stays what it is.
///
/// # Errors
/// [`KeyError`] when no key could match it.
pub fn canonical_pattern(provider: ProviderKind, text: &str) -> Result<String, KeyError> {
    canonical(provider, text, |character| character.is_ascii_alphanumeric() || character == '*')
}

/// `in_variable` says which characters stand for themselves in a variable's name.
fn canonical(provider: ProviderKind, text: &str, in_variable: impl Fn(char) -> bool) -> Result<String, KeyError> {
    if text.len() > 2048 {
        return Err(KeyError::TooLong);
    }
    if text.chars().any(char::is_control) {
        return Err(KeyError::Control);
    }
    let segments: Vec<&str> = text.split('/').filter(|segment| !segment.is_empty()).collect();
    if provider != ProviderKind::Fake && segments.iter().any(|segment| matches!(*segment, "." | "..")) {
        return Err(KeyError::Traversal);
    }
    let joined = match provider {
        ProviderKind::Vault | ProviderKind::File => segments.join("/"),
        // A key with a selector would be a second spelling of one with a version, which no rule and no cache would know.
        ProviderKind::AwsSecretsManager | ProviderKind::AwsParameterStore if text.contains(':') && !is_arn(text) => {
            return Err(KeyError::Selector);
        }
        ProviderKind::Kubernetes => object(&segments, in_variable)?,
        ProviderKind::Env => variable(&segments.join("_"), in_variable, "_")?,
        ProviderKind::EnvNested => variable(&segments.join("__"), in_variable, "__")?,
        ProviderKind::AwsSecretsManager | ProviderKind::AwsParameterStore | ProviderKind::Fake => text.to_owned(),
    };
    if joined.is_empty() { Err(KeyError::Empty) } else { Ok(joined) }
}

/// Whether it is an ARN of a secret or parameter, or a pattern on such: `arn:PARTITION:SERVICE:REGION:ACCOUNT:` and a name without `:`,
/// which for a secret stands behind `secret:`.
fn is_arn(text: &str) -> bool {
    let parts: Vec<&str> = text.split(':').collect();
    match parts.as_slice() {
        ["arn", _, "secretsmanager", _, _, "secret", name] => !name.is_empty(),
        ["arn", _, "ssm", _, _, name] => name.starts_with("parameter/"),
        _ => false,
    }
}

/// The one key of a Secret or ConfigMap. What stands for itself in a name includes `*` where it is a pattern.
fn object(segments: &[&str], in_variable: impl Fn(char) -> bool) -> Result<String, KeyError> {
    let is_object = |name: &str| {
        name.len() <= 253
            && name.chars().all(|character| (in_variable(character) && !character.is_ascii_uppercase()) || matches!(character, '-' | '.'))
    };
    match segments {
        [] => Ok(String::new()),
        [name] if is_object(name) => Ok((*name).to_owned()),
        // A name has no slash that `**` could cross; without its segment it would cross into the ConfigMaps.
        ["secret", name] if is_object(name) => Ok(name.replace("**", "*")),
        [kind, name] if is_object(name) && (*kind == "configmap" || is_object(kind) && kind.contains('*')) => Ok(format!("{kind}/{name}")),
        _ => Err(KeyError::NoObject),
    }
}

/// The one key of a variable whose hierarchy is marked by `mark`.
fn variable(name: &str, in_variable: impl Fn(char) -> bool, mark: &str) -> Result<String, KeyError> {
    let name = name.replace(['-', '.'], "_").to_ascii_lowercase();
    if !name.chars().all(|character| in_variable(character) || character == '_') {
        return Err(KeyError::NoVariable);
    }
    // An empty part, or one that begins or ends with '_', would be the name of a second key for the same variable.
    let parts: Vec<&str> = name.split(mark).collect();
    if parts.iter().any(|part| part.is_empty() || part.starts_with('_') || part.ends_with('_')) && !name.is_empty() {
        return Err(KeyError::NoVariable);
    }
    Ok(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::{KeyError, ProviderKind, RemoteKey, canonical_pattern};

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

    #[test]
    fn a_key_of_aws_stands_as_written_and_has_no_second_spelling_by_a_selector() {
        let arns =
            ["arn:aws:secretsmanager:eu-west-1:123456789012:secret:a/b-AbCdEf", "arn:aws-cn:ssm:cn-north-1:123456789012:parameter/a/b"];
        for text in ["a/b", "/a/b", "a//b", "a@b+c=d"].into_iter().chain(arns) {
            assert_eq!(RemoteKey::parse(ProviderKind::AwsSecretsManager, text).unwrap().as_str(), text);
        }
        for text in ["a:1", "/a/b:label", &format!("{}:7", arns[1]), "arn:aws:s3:::bucket", "arn:aws:secretsmanager:::secret:"] {
            assert_eq!(RemoteKey::parse(ProviderKind::AwsParameterStore, text), Err(KeyError::Selector), "{text}");
        }
        let pattern = "arn:aws:secretsmanager:*:*:secret:teams/**";
        assert_eq!(canonical_pattern(ProviderKind::AwsSecretsManager, pattern).unwrap(), pattern);
    }

    #[test]
    fn a_secret_and_a_configmap_have_exactly_one_key_each() {
        for (text, canonical) in [
            ("db", "db"),
            ("/secret//db/", "db"),
            ("configmap/app.conf", "configmap/app.conf"),
            ("secret", "secret"),
            ("configmap", "configmap"),
        ] {
            assert_eq!(RemoteKey::parse(ProviderKind::Kubernetes, text).unwrap().as_str(), canonical, "{text}");
        }
        for text in
            ["DB", "a_b", "a b", "pod/x", "configmap/a/b", "secret/a/b", "a/b", "*", "configmap/*", "a?x=1", "%2e", &"x".repeat(254)]
        {
            assert_eq!(RemoteKey::parse(ProviderKind::Kubernetes, text), Err(KeyError::NoObject), "{text}");
        }
        assert_eq!(RemoteKey::parse(ProviderKind::Kubernetes, "../default/x"), Err(KeyError::Traversal));
        assert_eq!(RemoteKey::parse(ProviderKind::Kubernetes, "/"), Err(KeyError::Empty));
        let patterns = [("secret/app-**", "app-*"), ("configmap/*", "configmap/*"), ("**", "**"), ("*/x", "*/x"), ("db-*", "db-*")];
        for (text, canonical) in patterns {
            assert_eq!(canonical_pattern(ProviderKind::Kubernetes, text).unwrap(), canonical, "{text}");
        }
    }

    #[test]
    fn a_variable_has_exactly_one_key() {
        let cases = [
            (ProviderKind::Env, "db/password", "db/password"),
            (ProviderKind::Env, "DB_PASSWORD", "db/password"),
            (ProviderKind::Env, "Db-Pass.Word", "db/pass/word"),
            (ProviderKind::EnvNested, "db/password", "db/password"),
            (ProviderKind::EnvNested, "DB__PASSWORD", "db/password"),
            (ProviderKind::EnvNested, "db/pass-word", "db/pass_word"),
        ];
        for (provider, text, canonical) in cases {
            assert_eq!(RemoteKey::parse(provider, text).unwrap().as_str(), canonical, "{text}");
        }
    }

    #[test]
    fn a_key_that_would_be_a_second_name_of_a_variable_is_refused() {
        let cases = [
            (ProviderKind::Env, "db__password"),
            (ProviderKind::Env, "_db"),
            (ProviderKind::Env, "db-"),
            (ProviderKind::Env, "d\u{f6}b"),
            (ProviderKind::Env, "db=x"),
            (ProviderKind::Env, "*"),
            (ProviderKind::EnvNested, "db/_x"),
            (ProviderKind::EnvNested, "db___x"),
        ];
        for (provider, text) in cases {
            assert_eq!(RemoteKey::parse(provider, text), Err(KeyError::NoVariable), "{text}");
        }
        assert_eq!(RemoteKey::parse(ProviderKind::Env, "//"), Err(KeyError::Empty));
        assert_eq!(RemoteKey::parse(ProviderKind::Env, "db/../x"), Err(KeyError::Traversal));
    }
}
