//! Stage 3. READ: one sighting per granted reference, through the shared sessions. Nothing is read while any reference is refused.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
};

use tokio::time::Instant;

use crate::{
    access::{CredentialKey, Granted, provider_kind},
    backend::{self, Backend, Settings},
    cluster::{Cluster, ClusterError, Credential, target::TargetName},
    crd::v1alpha1::Provider,
    engine::resolve::{Judged, StoreView},
    fault::{Class, Fault, Reason, quote},
    governor::{Counted, Governor, Look, Priority, Session, SessionId},
    item::Item,
    metrics::Metrics,
    name::StoreName,
    secret::SecretValue,
};

/// Opens sessions: the one place where stores, credentials and backends meet. Cheap to clone.
#[derive(Clone)]
pub struct Sessions {
    cluster: Cluster,
    governor: Governor,
    settings: Arc<Settings>,
    metrics: Metrics,
    /// Credential Secrets that stores refer to. Values live in the sessions only.
    credentials: Arc<Mutex<HashMap<TargetName, Known>>>,
}

/// What is known of a credential Secret.
#[derive(Default)]
struct Known {
    /// The version that was read; empty when it was missing, or has changed since.
    version: String,
    /// Who uses it.
    stores: BTreeSet<StoreName>,
    /// How often it changed: a read that a change overtook shows what was.
    changes: u64,
    /// Held while it is read: at a start all objects of a store ask for it at once, and one read serves them.
    gate: Arc<tokio::sync::Mutex<()>>,
}

/// The session of each store of a request, or why there is none.
pub type Connected = BTreeMap<StoreName, Result<Session, Fault>>;

impl Sessions {
    #[must_use]
    pub fn new(cluster: Cluster, governor: Governor, settings: Arc<Settings>, metrics: Metrics) -> Self {
        Self { cluster, governor, settings, metrics, credentials: Arc::default() }
    }

    /// Notes that a Secret has another version now (none: it is gone); the stores whose credential it holds, if that is news.
    pub fn invalidate(&self, secret: &TargetName, version: Option<&str>) -> BTreeSet<StoreName> {
        let mut credentials = self.credentials();
        match credentials.get_mut(secret) {
            Some(known) if version != Some(known.version.as_str()) => {
                known.version.clear();
                known.changes += 1;
                known.stores.clone()
            }
            _ => BTreeSet::new(),
        }
    }

    fn credentials(&self) -> std::sync::MutexGuard<'_, HashMap<TargetName, Known>> {
        self.credentials.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes a store that is gone.
    pub fn close(&self, store_uid: &str) {
        self.governor.close(store_uid);
    }

    /// Opens or reuses the session of every store that the request may use.
    pub async fn connect(&self, judged: &Judged) -> Connected {
        let mut connected = BTreeMap::new();
        for (name, view) in &judged.request.stores {
            let (Some(view), Some(credential)) = (view, judged.credentials.get(name)) else { continue };
            let session = match credential {
                Ok(credential) => self.session(name, view, credential.as_ref()).await,
                Err(fault) => Err(fault.clone()),
            };
            connected.insert(name.clone(), session);
        }
        connected
    }

    async fn session(&self, name: &StoreName, view: &StoreView, credential: Option<&Granted<CredentialKey>>) -> Result<Session, Fault> {
        let provider = view.provider()?;
        let id =
            |credential: &str| SessionId { store: view.uid().to_owned(), generation: view.generation(), credential: credential.to_owned() };
        let Some(key) = credential else {
            return self.governor.session(id(""), || self.open(name, provider, None));
        };
        let opened = |version: String| self.governor.session(id(&version), || Err(Fault::unavailable("not open yet"))).ok();
        if let Some(session) = self.known_version(key.get()).and_then(&opened) {
            return Ok(session);
        }
        let gate = self.gate(name, key.get());
        let _alone = gate.lock().await;
        if let Some(session) = self.known_version(key.get()).and_then(&opened) {
            return Ok(session);
        }
        let Credential { version, value } = self.read(key.get()).await?;
        if value.is_none() {
            let CredentialKey { namespace, name: secret, key } = key.get();
            let detail =
                format!("Secret {namespace}/{secret} with key {} does not exist: create it with the store's credential", quote(key));
            return Err(Fault::new(Class::Unavailable, Reason::StoreNotReady, detail));
        }
        self.governor.session(id(&version), || self.open(name, provider, value))
    }

    fn open(&self, name: &StoreName, provider: Provider<'_>, credential: Option<SecretValue>) -> Result<Arc<dyn Backend>, Fault> {
        let backend = backend::open(name, provider, credential, &self.settings)?;
        Ok(Arc::new(Counted::new(backend, provider_kind(provider), self.metrics.clone())))
    }

    fn known_version(&self, key: &CredentialKey) -> Option<String> {
        let secret = (key.namespace.clone(), key.name.clone());
        self.credentials().get(&secret).map(|known| known.version.clone()).filter(|version| !version.is_empty())
    }

    /// The credential's gate; from now on its changes concern this store.
    fn gate(&self, store: &StoreName, key: &CredentialKey) -> Arc<tokio::sync::Mutex<()>> {
        let mut credentials = self.credentials();
        let known = credentials.entry((key.namespace.clone(), key.name.clone())).or_default();
        known.stores.insert(store.clone());
        known.gate.clone()
    }

    async fn read(&self, key: &CredentialKey) -> Result<Credential, Fault> {
        let secret = (key.namespace.clone(), key.name.clone());
        let changes = self.credentials().get(&secret).map(|known| known.changes);
        let read = self.cluster.credential(&key.namespace, &key.name, &key.key).await;
        if let (Ok(credential), Some(known)) = (&read, self.credentials().get_mut(&secret))
            && Some(known.changes) == changes
        {
            known.version.clone_from(&credential.version);
        }
        read.map_err(|error: ClusterError| Fault::cluster(format!("the store's credential could not be read: {error}")))
    }
}

/// What a fetch gave: per entry the look, or why there is none; `None` where nothing was asked because another entry is refused.
pub type Fetched = Vec<Option<Result<Look, Fault>>>;

/// Looks at every granted item, each store at once; everything at or after `not_before`.
pub async fn fetch(judged: &Judged, connected: &Connected, not_before: Instant, priority: Priority) -> Fetched {
    let stores: Vec<StoreName> = judged.request.entries().iter().map(|entry| judged.request.store_of(entry)).collect();
    if judged.verdicts.iter().any(Result::is_err) || judged.request.fault.is_some() {
        return vec![None; stores.len()];
    }
    let mut fetched: Fetched = vec![None; stores.len()];
    let of_entries = &stores;
    let looks = judged.request.stores.keys().map(|store| async move {
        let wanted: Vec<(usize, &Granted<Item>)> = of_entries
            .iter()
            .zip(&judged.verdicts)
            .enumerate()
            .filter(|(_, (of_entry, _))| *of_entry == store)
            .filter_map(|(at, (_, verdict))| verdict.as_ref().ok().map(|granted| (at, granted)))
            .collect();
        match connected.get(store) {
            Some(Ok(session)) => {
                let items: Vec<Granted<Item>> = wanted.iter().map(|(_, granted)| (*granted).clone()).collect();
                let looks = session.look(&items, not_before, priority).await;
                wanted.iter().map(|(at, _)| *at).zip(looks.into_iter().map(Ok)).collect::<Vec<_>>()
            }
            Some(Err(fault)) => wanted.iter().map(|(at, _)| (*at, Err(fault.clone()))).collect(),
            None => Vec::new(),
        }
    });
    for (at, look) in futures::future::join_all(looks).await.into_iter().flatten() {
        if let Some(slot) = fetched.get_mut(at) {
            *slot = Some(look);
        }
    }
    fetched
}
