//! Provider `env`: variables of the operator's own environment, below a prefix. The environment is read once, at start, by `config`.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;

use crate::{
    backend::{Backend, List, Settings, no_metadata, not_found},
    crd::v1alpha1::{EnvProvider, EnvStyle},
    fault::{Fault, Reason},
    item::{Fetched, Form, Reading},
    name::{ProviderKind, RemoteKey, RemoteRef, StoreName},
    secret::SecretValue,
};

/// Takes the variables below the prefix; no other variable is kept.
///
/// # Errors
/// `NotAllowed` for a namespaced store (the environment is the operator's), `InvalidSpec` for an empty prefix.
pub fn open(store: &StoreName, spec: &EnvProvider, settings: &Settings) -> Result<Arc<dyn Backend>, Fault> {
    if let StoreName::Namespaced { .. } = store {
        return Err(Fault::not_allowed("provider env reads the operator's own environment: use it in a ClusterSecretStore"));
    }
    if spec.prefix.is_empty() {
        return Err(Fault::invalid(Reason::InvalidSpec, "provider.env.prefix is empty: name the start of the readable variables"));
    }
    let naming = Naming { prefix: spec.prefix.clone(), style: spec.style.unwrap_or_default() };
    let readable = settings.environment.iter().filter(|(name, _)| name.starts_with(&naming.prefix));
    let variables = readable.map(|(name, value)| (name.clone(), value.clone())).collect();
    Ok(Arc::new(Env { naming, variables }))
}

struct Env {
    naming: Naming,
    variables: BTreeMap<String, SecretValue>,
}

/// How keys become names of variables.
struct Naming {
    prefix: String,
    style: EnvStyle,
}

impl Naming {
    /// What stands between two segments of a key.
    fn separator(&self) -> &'static str {
        match self.style {
            EnvStyle::Flat => "_",
            EnvStyle::Nested => "__",
        }
    }

    /// `db/password` is `<prefix>DB_PASSWORD`, or `<prefix>__DB__PASSWORD` when nested. Whatever no portable name can hold is `_`.
    fn variable(&self, key: &str) -> String {
        let segments: Vec<String> = key.split('/').map(|segment| segment.chars().map(portable).collect()).collect();
        format!("{}{}", self.start(), segments.join(self.separator()))
    }

    /// What the name of every variable of this store begins with.
    fn start(&self) -> String {
        match self.style {
            EnvStyle::Flat => self.prefix.clone(),
            EnvStyle::Nested => format!("{}__", self.prefix),
        }
    }

    /// The canonical form of this store's keys.
    fn keys(&self) -> ProviderKind {
        match self.style {
            EnvStyle::Flat => ProviderKind::Env,
            EnvStyle::Nested => ProviderKind::EnvNested,
        }
    }

    /// The one key that reads `variable`, if there is one and it is below `path`: the way back of [`Naming::variable`].
    fn key(&self, path: Option<&str>, variable: &str) -> Option<RemoteKey> {
        let key = RemoteKey::parse(self.keys(), variable.strip_prefix(&self.start())?).ok()?;
        let is_below = |path: &str| key.as_str().strip_prefix(path).is_some_and(|rest| rest.starts_with('/'));
        // `foo` in lower case, or two underscores in a row: nobody could read it by the name that the list gives it.
        (path.is_none_or(is_below) && self.variable(key.as_str()) == variable).then_some(key)
    }
}

fn portable(character: char) -> char {
    match character.to_ascii_uppercase() {
        upper @ ('A'..='Z' | '0'..='9') => upper,
        _ => '_',
    }
}

impl Env {
    fn read(&self, wanted: &RemoteRef) -> Reading {
        if wanted.is_metadata {
            return Reading::Unknown(no_metadata(&wanted.key, "provider env"));
        }
        if wanted.version.is_some() {
            let key = wanted.key.as_str();
            let detail = format!("remote key {key:?}: provider env has no versions: remove the version");
            return Reading::Unknown(Fault::invalid(Reason::InvalidSpec, detail));
        }
        match self.variables.get(&self.naming.variable(wanted.key.as_str())) {
            Some(value) => Reading::Found(Fetched { value: value.clone(), form: Form::Whole, version: None, is_secret: false }),
            None => Reading::Absent(not_found(&wanted.key)),
        }
    }
}

#[async_trait]
impl Backend for Env {
    fn batch_size(&self) -> usize {
        usize::MAX
    }

    async fn fetch(&self, refs: &[RemoteRef]) -> Vec<Reading> {
        refs.iter().map(|wanted| self.read(wanted)).collect()
    }

    fn lister(&self) -> Option<&dyn List> {
        Some(self)
    }
}

#[async_trait]
impl List for Env {
    async fn list(&self, path: Option<&str>) -> Result<Vec<RemoteKey>, Fault> {
        Ok(self.variables.keys().filter_map(|variable| self.naming.key(path, variable)).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use crate::{
        backend::{Backend, Credentials, Settings, open},
        crd::v1alpha1::{EnvProvider, EnvStyle, Provider},
        fault::{Class, Fault, Reason},
        item::Reading,
        name::{ProviderKind, RemoteKey, RemoteRef, StoreName},
        secret::SecretValue,
    };

    const VARIABLES: &[(&str, &[u8])] = &[
        ("APP_DB_PASSWORD", b"flat"),
        ("APP_EMPTY", b""),
        ("APP_BYTES", b"\xff\xfe"),
        ("APP_lower", b"never by a key"),
        ("APP_", b"the prefix alone"),
        ("CFG__DB__PASSWORD", b"nested"),
        ("CFG__DB_HOST", b"one segment"),
        ("CFG____X", b"never by a key"),
        ("CFGX", b"another prefix"),
        ("HOME", b"elsewhere"),
    ];

    fn store(name: &StoreName, prefix: &str, style: Option<EnvStyle>) -> Result<Arc<dyn Backend>, Fault> {
        let environment: BTreeMap<_, _> =
            VARIABLES.iter().map(|(name, value)| ((*name).to_owned(), SecretValue::new(value.to_vec()))).collect();
        let settings = Settings { environment, ..Settings::default() };
        open(name, Provider::Env(&EnvProvider { prefix: prefix.into(), style }), &Credentials::default(), &settings)
    }

    fn cluster(prefix: &str, style: Option<EnvStyle>) -> Arc<dyn Backend> {
        store(&StoreName::Cluster { name: "s".into() }, prefix, style).unwrap()
    }

    async fn read(store: &dyn Backend, keys: ProviderKind, key: &str, version: Option<&str>) -> Result<Vec<u8>, Fault> {
        let key = RemoteKey::parse(keys, key).unwrap();
        match store.fetch(&[RemoteRef { key, version: version.map(str::to_owned), is_metadata: false }]).await.remove(0) {
            Reading::Found(found) => Ok(found.value.expose().to_vec()),
            Reading::Absent(fault) | Reading::Unknown(fault) => Err(fault),
        }
    }

    async fn names(store: &dyn Backend, path: Option<&str>) -> Vec<String> {
        store.lister().unwrap().list(path).await.unwrap().iter().map(ToString::to_string).collect()
    }

    #[tokio::test]
    async fn a_key_names_a_variable_below_the_prefix() {
        let (flat, nested) = (cluster("APP_", None), cluster("CFG", Some(EnvStyle::Nested)));
        let cases = [
            (&flat, ProviderKind::Env, "db/password", b"flat" as &[u8]),
            (&flat, ProviderKind::Env, "DB.Password", b"flat"),
            (&flat, ProviderKind::Env, "db_password", b"flat"),
            (&flat, ProviderKind::Env, "empty", b""),
            (&flat, ProviderKind::Env, "bytes", b"\xff\xfe"),
            (&nested, ProviderKind::EnvNested, "db/password", b"nested"),
            (&nested, ProviderKind::EnvNested, "db-host", b"one segment"),
        ];
        for (store, keys, key, expected) in cases {
            assert_eq!(read(store.as_ref(), keys, key, None).await.unwrap(), expected, "{key}");
        }
    }

    #[tokio::test]
    async fn what_is_not_there_is_proven_absent() {
        for (store, key) in
            [(cluster("APP_", None), "home"), (cluster("CFG", Some(EnvStyle::Nested)), "x"), (cluster("APP_", None), "lower")]
        {
            let fault = read(store.as_ref(), ProviderKind::EnvNested, key, None).await.unwrap_err();
            assert_eq!((fault.class, fault.reason), (Class::Absent, Reason::NotFound), "{key}");
        }
    }

    #[tokio::test]
    async fn a_version_is_refused_with_its_remedy() {
        let fault = read(cluster("APP_", None).as_ref(), ProviderKind::Env, "empty", Some("1")).await.unwrap_err();
        assert_eq!((fault.class, fault.reason), (Class::Invalid, Reason::InvalidSpec));
        assert!(fault.detail.contains("remove the version"), "{fault}");
    }

    #[tokio::test]
    async fn a_list_gives_keys_that_read_what_they_name() {
        let (flat, nested) = (cluster("APP_", None), cluster("CFG", Some(EnvStyle::Nested)));
        assert_eq!(names(flat.as_ref(), None).await, ["bytes", "db/password", "empty"]);
        assert_eq!(names(nested.as_ref(), None).await, ["db_host", "db/password"]);
        for store in [&flat, &nested] {
            assert_eq!(names(store.as_ref(), Some("db")).await, ["db/password"]);
            assert_eq!(names(store.as_ref(), Some("d")).await, [""; 0]);
        }
        for (store, keys) in [(&flat, ProviderKind::Env), (&nested, ProviderKind::EnvNested)] {
            for name in names(store.as_ref(), None).await {
                assert!(read(store.as_ref(), keys, &name, None).await.is_ok(), "{name}");
            }
        }
    }

    #[test]
    fn a_namespaced_store_is_refused() {
        let name = StoreName::Namespaced { namespace: "team".into(), name: "s".into() };
        let fault = store(&name, "APP_", None).err().unwrap();
        assert_eq!(fault.reason, Reason::NotAllowed);
        assert!(fault.detail.contains("ClusterSecretStore"), "{fault}");
    }
}
