//! Stage 3. READ: one sighting per granted reference, through the shared sessions. Nothing is read while any reference is refused.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
};

use tokio::{sync::mpsc::UnboundedSender, time::Instant};

use crate::{
    access::{CredentialRefs, Granted, Holder, HolderKind, provider_kind},
    backend::{self, Backend, Credentials, Settings, TokenSource},
    cluster::{Cluster, ClusterError, Credential},
    crd::v1alpha1::{Provider, RefreshPolicy},
    digest::sha256_hex,
    engine::{
        resolve::{Judged, StoreView},
        token::AccountTokens,
    },
    fault::{Class, Fault, Reason},
    governor::{Counted, Governor, Look, Own, Priority, Pulse, Session, SessionId, Sign},
    item::Item,
    metrics::Metrics,
    name::StoreName,
};

/// Opens sessions: the one place where stores, credentials and backends meet. Cheap to clone.
#[derive(Clone)]
pub struct Sessions {
    cluster: Cluster,
    governor: Governor,
    settings: Arc<Settings>,
    metrics: Metrics,
    /// Who hears how looks at a store go.
    signs: UnboundedSender<(StoreName, Sign)>,
    /// Whether there is a right to read Secrets: an operator of parameters alone has none.
    reads_secrets: bool,
    /// Secrets and ConfigMaps that stores refer to. Values live in the sessions only.
    holders: Arc<Mutex<HashMap<Holder, Known>>>,
}

/// What is known of a Secret or ConfigMap that holds keys of a credential.
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

impl Judged {
    /// The same with the logins among the inputs of who never looks by the clock: it looks when one changes, also when that was while
    /// nobody ran. Whoever looks by the clock has its looks brought forward instead (`refresh`), which costs no write.
    #[must_use]
    pub fn under(mut self, connected: &Connected) -> Self {
        if self.request.interval.is_some() || self.request.policy == RefreshPolicy::CreatedOnce {
            return self;
        }
        let login = |(store, session): (&StoreName, &Result<Session, Fault>)| {
            let credential = &session.as_ref().ok()?.id().credential;
            (!credential.is_empty()).then(|| format!("{store} {credential}"))
        };
        let logins: Vec<String> = connected.iter().filter_map(login).collect();
        if !logins.is_empty() {
            sha256_hex(&format!("{}\n{}", self.inputs, logins.join("\n")))[..32].clone_into(&mut self.inputs);
        }
        self
    }
}

impl Sessions {
    #[must_use]
    pub fn new(
        cluster: Cluster,
        governor: Governor,
        settings: Arc<Settings>,
        metrics: Metrics,
        signs: UnboundedSender<(StoreName, Sign)>,
        reads_secrets: bool,
    ) -> Self {
        Self { cluster, governor, settings, metrics, signs, reads_secrets, holders: Arc::default() }
    }

    /// Notes that a Secret or ConfigMap has another version now (none: it is gone); the stores whose credential it holds, if that is
    /// news.
    pub fn invalidate(&self, holder: &Holder, version: Option<&str>) -> BTreeSet<StoreName> {
        match self.holders().get_mut(holder) {
            Some(known) if version != Some(known.version.as_str()) => {
                known.version.clear();
                known.changes += 1;
                known.stores.clone()
            }
            _ => BTreeSet::new(),
        }
    }

    fn holders(&self) -> std::sync::MutexGuard<'_, HashMap<Holder, Known>> {
        self.holders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes a store that is gone.
    pub fn close(&self, store_uid: &str) {
        self.governor.close(store_uid);
    }

    /// Opens or reuses the session of a store for its own sake.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn open(&self, name: &StoreName, view: &StoreView) -> Result<Session, Fault> {
        self.session(name, view, &view.credential()?).await
    }

    /// Opens or reuses the session of every store that the request may use.
    pub async fn connect(&self, judged: &Judged) -> Connected {
        let mut connected = BTreeMap::new();
        for (name, view) in &judged.request.stores {
            let (Some(view), Some(credential)) = (view, judged.credentials.get(name)) else { continue };
            let session = match credential {
                Ok(credential) => self.session(name, view, credential).await,
                Err(fault) => Err(fault.clone()),
            };
            connected.insert(name.clone(), session);
        }
        connected
    }

    async fn session(&self, name: &StoreName, view: &StoreView, granted: &Granted<CredentialRefs>) -> Result<Session, Fault> {
        let (provider, own) = (view.provider()?, view.own());
        let id = |credential: String| SessionId { store: view.uid().to_owned(), generation: view.generation(), credential };
        let holders = granted.get().holders();
        if !self.reads_secrets && holders.iter().any(|holder| holder.kind == HolderKind::Secret) {
            let detail = "the store's credential is a Secret, and this operator serves parameters alone and reads none: \
                          log in by a ServiceAccount's token, or serve kind ExternalSecret too";
            return Err(Fault::not_allowed(detail));
        }
        if holders.is_empty() {
            let credentials = Credentials { tokens: self.tokens(granted), ..Credentials::default() };
            return self.governor.session(id(String::new()), own, || self.backend(name, provider, own, &credentials));
        }
        let opened = |version: String| self.governor.session(id(version), own, || Err(Fault::unavailable("not open yet"))).ok();
        if let Some(session) = self.known_versions(&holders).and_then(&opened) {
            return Ok(session);
        }
        // In the holders' order, so that nobody waits for who waits for him.
        let mut alone = Vec::with_capacity(holders.len());
        for holder in &holders {
            alone.push(self.gate(name, holder).lock_owned().await);
        }
        if let Some(session) = self.known_versions(&holders).and_then(&opened) {
            return Ok(session);
        }
        let (versions, credentials) = self.read_all(granted).await?;
        self.governor.session(id(versions), own, || self.backend(name, provider, own, &credentials))
    }

    fn backend(
        &self,
        name: &StoreName,
        provider: Provider<'_>,
        own: Own<'_>,
        credentials: &Credentials,
    ) -> Result<Arc<dyn Backend>, Fault> {
        let call_timeout = self.governor.call_timeout(own);
        let backend = if call_timeout == self.settings.call_timeout {
            backend::open(name, provider, credentials, &self.settings)?
        } else {
            backend::open(name, provider, credentials, &Settings { call_timeout, ..(*self.settings).clone() })?
        };
        let (signs, store) = (self.signs.clone(), name.clone());
        // A closed channel means that the process is ending.
        let pulse = Pulse::new(move |sign| drop(signs.send((store.clone(), sign))));
        Ok(Arc::new(Counted::new(backend, provider_kind(provider), own.name, self.metrics.clone(), pulse)))
    }

    fn tokens(&self, granted: &Granted<CredentialRefs>) -> Option<Arc<dyn TokenSource>> {
        let account = granted.account()?;
        Some(Arc::new(AccountTokens::new(self.cluster.clone(), account)))
    }

    /// The versions under which a session is known, when none of them is in doubt.
    fn known_versions(&self, holders: &BTreeSet<&Holder>) -> Option<String> {
        let known = self.holders();
        let versions = holders.iter().map(|holder| known.get(*holder).map(|known| known.version.as_str()).filter(|it| !it.is_empty()));
        Some(joined(&versions.collect::<Option<Vec<_>>>()?))
    }

    /// The holder's gate; from now on its changes concern this store.
    fn gate(&self, store: &StoreName, holder: &Holder) -> Arc<tokio::sync::Mutex<()>> {
        let mut holders = self.holders();
        let known = holders.entry(holder.clone()).or_default();
        known.stores.insert(store.clone());
        known.gate.clone()
    }

    /// Everything that the credential names, each Secret and ConfigMap by one read.
    async fn read_all(&self, granted: &Granted<CredentialRefs>) -> Result<(String, Credentials), Fault> {
        let refs = granted.get();
        let mut read = BTreeMap::new();
        for holder in refs.holders() {
            read.insert(holder, self.read(holder, &refs.keys_of(holder).collect::<Vec<_>>()).await?);
        }
        let mut credentials = Credentials { tokens: self.tokens(granted), ..Credentials::default() };
        for (role, key) in &refs.keys {
            let value = read.get(&key.holder).and_then(|credential| credential.values.get(&key.key)).cloned().ok_or_else(|| {
                let detail = format!("{key} does not exist: create it with the store's credential");
                Fault::new(Class::Unavailable, Reason::StoreNotReady, detail)
            })?;
            credentials.secrets.insert(*role, value);
        }
        let versions: Vec<&str> = read.values().map(|credential| credential.version.as_str()).collect();
        Ok((joined(&versions), credentials))
    }

    async fn read(&self, holder: &Holder, keys: &[&str]) -> Result<Credential, Fault> {
        let changes = self.holders().get(holder).map(|known| known.changes);
        let read = self.cluster.credential(holder, keys).await;
        if let (Ok(credential), Some(known)) = (&read, self.holders().get_mut(holder))
            && Some(known.changes) == changes
        {
            known.version.clone_from(&credential.version);
        }
        read.map_err(|error: ClusterError| Fault::cluster(format!("the store's credential could not be read: {error}")))
    }
}

/// In the order of their holders. Versions have no spaces.
fn joined(versions: &[&str]) -> String {
    versions.join(" ")
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
                let not_before = session.oldest(not_before, priority, judged.request.interval);
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

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use async_trait::async_trait;
    use jiff::Timestamp;
    use serde_json::{Value, json};

    use super::{Backend, Connected, Governor, Metrics, Own, SessionId, StoreName};
    use crate::{engine::scene::Scene, governor::Limits, item::Reading, name::RemoteRef, schedule::Timings};

    struct Silent;

    #[async_trait]
    impl Backend for Silent {
        fn batch_size(&self) -> usize {
            1
        }

        async fn fetch(&self, _: &[RemoteRef]) -> Vec<Reading> {
            Vec::new()
        }
    }

    fn logged_in_with(credential: &str) -> Connected {
        let limits = Limits::new(1, Duration::from_secs(1), &Timings::default());
        let governor = Governor::new(limits, Arc::new(|| Timestamp::UNIX_EPOCH), &Metrics::new());
        let id = SessionId { store: "uid-store".to_owned(), generation: 1, credential: credential.to_owned() };
        let session = governor.session(id, Own::default(), || Ok(Arc::new(Silent)));
        Connected::from([(StoreName::Namespaced { namespace: "team".to_owned(), name: "main".to_owned() }, session)])
    }

    #[tokio::test]
    async fn who_never_looks_by_the_clock_looks_when_a_login_changed() {
        let cases = [
            (json!({"refreshPolicy": "OnChange"}), true),
            (json!({"refreshInterval": "0"}), true),
            (json!({"refreshInterval": "24h"}), false),
            (json!({}), false),
            (json!({"refreshPolicy": "CreatedOnce"}), false),
        ];
        for (more, is_input) in cases {
            let mut spec = json!({"secretStoreRef": {"name": "main"}, "data": [{"secretKey": "k", "remoteRef": {"key": "a"}}]});
            spec.as_object_mut()
                .unwrap()
                .extend(more.as_object().into_iter().flatten().map(|(k, v): (&String, &Value)| (k.clone(), v.clone())));
            let judged = Scene::new(spec).judged();
            let inputs = |credential: &str| judged.clone().under(&logged_in_with(credential)).inputs;
            assert_eq!(inputs("1"), inputs("1"));
            assert_eq!(inputs("1") != inputs("2"), is_input, "{more}");
            assert_eq!(inputs(""), judged.inputs, "there is no login");
        }
    }
}
