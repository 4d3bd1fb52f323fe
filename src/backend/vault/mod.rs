//! Provider `vault`: the key/value engines of Vault and OpenBao, and any other path with the leases that it gives.
//!
//! The three outcomes are decided here; `answer` reads what the server said, `failure` says what can go wrong and what to do about
//! it, `session` keeps the token that `login` gets (`google` signs for one of its ways), `leases` what must not be read twice, `connection` talks. What `vaultrs` knows about paths and queries is used; its client is not: it reads `VAULT_*` variables, buffers
//! answers without a limit, drops headers such as Retry-After, and loses digits.

mod amazon;
mod answer;
mod connection;
mod failure;
mod google;
mod leases;
mod login;
mod session;
#[cfg(test)]
mod tests;
mod write;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::{
    StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};
use rustify::{
    endpoint::Endpoint,
    enums::{RequestMethod, RequestType, ResponseType},
};
use tokio::time::Instant;
use vaultrs::api::{
    kv1,
    kv2::{self, requests::ReadSecretRequest},
};

use crate::{
    backend::{Backend, Credentials, List, Settings, Traits, Write, not_found},
    crd::v1alpha1::{VaultEngine, VaultKvVersion, VaultProvider},
    fault::{Fault, Reason},
    item::{Fetched, Form, Hint, Reading},
    name::{ProviderKind, RemoteKey, RemoteRef, StoreName},
    secret::SecretValue,
};
use answer::Kept;
use failure::Failure;
use leases::{Lease, Leases};
use login::Post;
use session::Session;

/// What a server may need for a rotation that is due.
const CHANGE_TAKES: Duration = Duration::from_secs(2);
/// Calls of one listing that are under way at once.
const LISTS_IN_FLIGHT: usize = 8;
/// Names and folders of one listing: a server that invents folders for ever must not hold the caller for ever.
const MAX_NAMES: usize = 100_000;

/// Builds the session of a store.
///
/// # Errors
/// `InvalidSpec` naming the field that cannot work, `StoreNotReady` without a usable credential, `NotAllowed` for an address that a
/// tenant's store may not lead to.
pub fn open(store: &StoreName, spec: &VaultProvider, credentials: &Credentials, settings: &Settings) -> Result<Arc<dyn Backend>, Fault> {
    let engine = engine(spec)?;
    let session = Session::open(store, spec, credentials, settings)?;
    Ok(Arc::new(Vault { session, engine, deadline: settings.call_timeout }))
}

fn engine(spec: &VaultProvider) -> Result<Engine, Fault> {
    Ok(match (spec.engine.unwrap_or_default(), spec.version.unwrap_or_default()) {
        (VaultEngine::Kv, VaultKvVersion::V1) => Engine::Kv1 { mount: mount_path(spec.path.as_deref().unwrap_or("secret"))? },
        (VaultEngine::Kv, VaultKvVersion::V2) => Engine::Kv2 { mount: mount_path(spec.path.as_deref().unwrap_or("secret"))? },
        (VaultEngine::Logical, _) => {
            let prefix = spec.path.as_deref().map(mount_path).transpose()?.map_or_else(String::new, |path| format!("{path}/"));
            Engine::Logical { prefix, leases: Arc::default(), revokes: spec.revoke_on_delete.unwrap_or(false) }
        }
    })
}

/// The mount path in the form in which the server names it, without its last slash.
fn mount_path(text: &str) -> Result<String, Fault> {
    let path = RemoteKey::parse(ProviderKind::Vault, text).map_err(|_| {
        let detail = "provider.vault.path is no mount path: write it as `bao secrets list` shows it, such as secret or team/kv";
        Fault::invalid(Reason::InvalidSpec, detail)
    })?;
    Ok(path.as_str().to_owned())
}

/// A read of a path as it is. Of `sys/internal/ui/mounts/…` it is answered to every token that may look at anything below the mount,
/// whatever its policies say of this path.
#[derive(Debug)]
struct Get {
    path: String,
}

impl Endpoint for Get {
    type Response = ();
    const REQUEST_BODY_TYPE: RequestType = RequestType::JSON;
    const RESPONSE_BODY_TYPE: ResponseType = ResponseType::JSON;

    fn path(&self) -> String {
        self.path.clone()
    }

    fn method(&self) -> RequestMethod {
        RequestMethod::GET
    }
}

/// What is read, and where.
#[derive(Debug)]
enum Engine {
    Kv1 {
        mount: String,
    },
    Kv2 {
        mount: String,
    },
    /// Any path, below a prefix that is empty or ends in a slash.
    Logical {
        prefix: String,
        leases: Arc<Leases>,
        revokes: bool,
    },
}

#[derive(Debug)]
struct Vault {
    session: Session,
    engine: Engine,
    /// Of a look as a whole: of a read with its look at the mount, of all folders of a list.
    deadline: Duration,
}

impl Vault {
    async fn read(&self, wanted: &RemoteRef) -> Reading {
        let subject = format!("remote key {:?}", wanted.key.as_str());
        let look = tokio::time::timeout(self.deadline, self.look(wanted)).await;
        match look.unwrap_or(Err(Failure::TIMED_OUT)) {
            Ok(Kept::Value(fetched)) => Reading::Found(fetched),
            Ok(Kept::Deleted) => Reading::Absent(deleted(&subject)),
            Ok(Kept::Destroyed) => Reading::Absent(destroyed(&subject)),
            Ok(Kept::Nothing) => Reading::Absent(missing(wanted)),
            Err(failure) => Reading::Unknown(failure.fault(&subject)),
        }
    }

    /// What the engine keeps under the key. `Nothing` is said only when the engine itself was seen: a proxy, another engine at
    /// the same path or a mount that went away answer 404 too.
    async fn look(&self, wanted: &RemoteRef) -> Result<Kept, Failure> {
        let kept = match &self.engine {
            Engine::Kv2 { mount } if wanted.is_metadata => self.beside(mount, &wanted.key).await?,
            _ if wanted.is_metadata => return Err(Failure::NoMetadata),
            Engine::Kv2 { mount } => self.versioned(mount, wanted).await?,
            Engine::Kv1 { .. } | Engine::Logical { .. } if wanted.version.is_some() => return Err(Failure::NoVersions),
            Engine::Kv1 { mount } => match self.plain(format!("{mount}/{}", wanted.key.as_str())).await? {
                Some(plain) => Kept::Value(Fetched { value: plain.value, form: Form::Whole, version: None, is_secret: false }),
                None => Kept::Nothing,
            },
            Engine::Logical { prefix, leases, .. } => self.leased(prefix, leases, &wanted.key).await?,
        };
        if matches!(kept, Kept::Nothing) {
            self.see_engine(wanted.key.as_str()).await?;
        }
        Ok(kept)
    }

    async fn versioned(&self, mount: &str, wanted: &RemoteRef) -> Result<Kept, Failure> {
        let version = wanted.version.as_deref().map(version_number).transpose()?;
        let request = || ReadSecretRequest { mount: mount.to_owned(), path: wanted.key.as_str().to_owned(), version };
        answer::kept(&self.session.call(request).await?, version)
    }

    async fn plain(&self, path: String) -> Result<Option<answer::Plain>, Failure> {
        answer::plain(&self.session.call(|| Get { path: path.clone() }).await?)
    }

    /// The value of a path that may make a new one at each read. While its lease lives it is not read again.
    async fn leased(&self, prefix: &str, leases: &Leases, key: &RemoteKey) -> Result<Kept, Failure> {
        let gate = leases.gate(key);
        let _alone = gate.lock().await;
        if let Some(lease) = leases.get(key)
            && let Some(fetched) = self.renewed(leases, key, lease).await?
        {
            return Ok(Kept::Value(fetched));
        }
        let token = self.session.keep().await?;
        let asked = Instant::now();
        let Some(plain) = self.plain(format!("{prefix}{}", key.as_str())).await? else { return Ok(Kept::Nothing) };
        // What the server made for us, or changes by itself, is a credential.
        let is_secret = plain.lease.is_some() || plain.changes_in.is_some();
        let fetched = Fetched { value: plain.value, form: Form::Whole, version: None, is_secret };
        if let Some(leased) = plain.lease {
            leases.put(key, Lease::new(leased, fetched.clone(), asked, token));
        } else if let Some(wait) = plain.changes_in {
            // The server may need a moment for the change.
            leases.expect_change(key, asked + wait + CHANGE_TAKES);
        }
        Ok(Kept::Value(fetched))
    }

    /// The value of a lease that lives, renewed if it is due; `None` when there has to be another lease. While a lease lives its value is
    /// good, whatever keeps it from being renewed.
    async fn renewed(&self, leases: &Leases, key: &RemoteKey, mut lease: Lease) -> Result<Option<Fetched>, Failure> {
        match self.session.keep().await {
            // The token of its login ends, and the lease with it.
            Ok(token) if token.number != lease.token.number => return Ok(None),
            Ok(token) => lease.token = token,
            Err(failure) if lease.is_dead() => return Err(failure),
            Err(_) => lease.postpone(),
        }
        if lease.is_dead() {
            return Ok(None);
        }
        if lease.is_due() {
            match self.renew(&mut lease).await {
                Ok(true) => {}
                Ok(false) => return Ok(None),
                Err(_) => lease.postpone(),
            }
        }
        let fetched = lease.fetched.clone();
        leases.put(key, lease);
        Ok(Some(fetched))
    }

    /// Whether the lease lives on as long as at first. A server that grants less than half has begun to end it.
    async fn renew(&self, lease: &mut Lease) -> Result<bool, Failure> {
        if !lease.is_renewable {
            return Ok(false);
        }
        let began = Instant::now();
        let seconds = lease.life.map_or(0, |life| life.as_secs());
        let body = serde_json::json!({"lease_id": lease.id, "increment": seconds});
        let answer = self.session.call(|| Post::json("sys/leases/renew", &body)).await?;
        match (answer::renewal(&answer), lease.life) {
            (Ok(None), _) => lease.lives(began, None),
            (Ok(Some(granted)), Some(life)) if granted * 2 >= life => lease.lives(began, Some(granted)),
            (Ok(Some(_)) | Err(Failure::Refused(_) | Failure::Denied | Failure::NoEngine), _) => return Ok(false),
            (Err(failure), _) => return Err(failure),
        }
        Ok(true)
    }

    /// Succeeds when the engine that the store names is mounted where it should be, and the token may look into it.
    async fn see_engine(&self, key: &str) -> Result<(), Failure> {
        let path = match &self.engine {
            Engine::Kv1 { mount } | Engine::Kv2 { mount } => mount.clone(),
            Engine::Logical { prefix, .. } => format!("{prefix}{key}"),
        };
        let answer = self.session.call(|| Get { path: format!("sys/internal/ui/mounts/{path}") }).await?;
        let seen = answer::engine(&answer)?;
        let is_there = match &self.engine {
            Engine::Kv1 { mount } => seen.kv == Some(VaultKvVersion::V1) && seen.path.trim_end_matches('/') == mount,
            Engine::Kv2 { mount } => seen.kv == Some(VaultKvVersion::V2) && seen.path.trim_end_matches('/') == mount,
            Engine::Logical { .. } => !seen.path.is_empty() && path.starts_with(&seen.path),
        };
        if is_there { Ok(()) } else { Err(Failure::NoEngine) }
    }

    /// Asks what is mounted: that is answered to whoever may look at anything below, so the token is good, the server unsealed, and
    /// the engine the right one. Where no mount is named there is only the token to ask about.
    async fn see_login(&self) -> Result<(), Failure> {
        match &self.engine {
            Engine::Logical { prefix, .. } if prefix.is_empty() => {
                answer::login(&self.session.call(|| Get { path: "auth/token/lookup-self".to_owned() }).await?)
            }
            Engine::Kv1 { .. } | Engine::Kv2 { .. } | Engine::Logical { .. } => self.see_engine("").await,
        }
    }

    /// The names in one folder (empty, or with a slash at its end); those that end in a slash are folders.
    async fn folder(&self, folder: String) -> Result<Vec<String>, Fault> {
        let answer = match &self.engine {
            Engine::Kv2 { mount } => {
                self.session.call(|| kv2::requests::ListSecretsRequest { mount: mount.clone(), path: folder.clone() }).await
            }
            Engine::Kv1 { mount } => {
                self.session.call(|| kv1::requests::ListSecretRequest { mount: mount.clone(), path: folder.clone() }).await
            }
            Engine::Logical { .. } => Err(Failure::NoEngine),
        };
        let names = answer.and_then(|answer| answer::names(&answer));
        let names = names.map_err(|failure| failure.fault(&list_of(&folder)))?;
        Ok(names.into_iter().map(|name| format!("{folder}{name}")).collect())
    }

    /// What the engine keeps beside all versions of a key for whoever uses it; `None` when there is no such key.
    async fn custom_metadata(&self, mount: &str, key: &RemoteKey) -> Result<Option<BTreeMap<String, String>>, Failure> {
        let path = format!("{mount}/metadata/{}", key.as_str());
        answer::custom_metadata(&self.session.call(|| Get { path: path.clone() }).await?)
    }

    /// It as a JSON object.
    async fn beside(&self, mount: &str, key: &RemoteKey) -> Result<Kept, Failure> {
        Ok(self.custom_metadata(mount, key).await?.map_or(Kept::Nothing, |found| {
            let value = SecretValue::from(serde_json::json!(found).to_string());
            Kept::Value(Fetched { value, form: Form::Whole, version: None, is_secret: false })
        }))
    }

    /// The key, if it carries all of the tags.
    async fn tagged(&self, mount: &str, key: RemoteKey, tags: &BTreeMap<String, String>) -> Result<Option<RemoteKey>, Fault> {
        let found = self.custom_metadata(mount, &key).await;
        let found = found.map_err(|failure| failure.fault(&format!("metadata of remote key {:?}", key.as_str())))?;
        Ok(found.filter(|found| tags.iter().all(|tag| found.get_key_value(tag.0) == Some(tag))).map(|_| key))
    }

    /// Every key below a folder, or the first fault in the order of the folders.
    async fn walk(&self, top: &str) -> Result<Vec<RemoteKey>, Fault> {
        let (mut keys, mut folders, mut seen) = (Vec::new(), vec![top.to_owned()], 0);
        while !folders.is_empty() {
            // In their order, so that of several failures the same one is told each time.
            let mut listings = stream::iter(std::mem::take(&mut folders)).map(|folder| self.folder(folder)).buffered(LISTS_IN_FLIGHT);
            while let Some(names) = listings.try_next().await? {
                seen += names.len();
                if seen > MAX_NAMES {
                    return Err(Failure::Endless.fault(&list_of(top)));
                }
                let (below, here): (Vec<String>, Vec<String>) = names.into_iter().partition(|name| name.ends_with('/'));
                keys.extend(here.iter().filter_map(|name| canonical(name)));
                folders.extend(below.into_iter().filter(|folder| is_folder(folder)));
            }
        }
        if keys.is_empty() {
            self.see_engine("").await.map_err(|failure| failure.fault(&list_of(top)))?;
        }
        Ok(keys)
    }
}

#[async_trait]
impl Backend for Vault {
    /// KV has no call that reads several keys.
    fn batch_size(&self) -> usize {
        1
    }

    async fn fetch(&self, refs: &[RemoteRef]) -> Vec<Reading> {
        let mut readings = Vec::with_capacity(refs.len());
        for wanted in refs {
            readings.push(self.read(wanted).await);
        }
        readings
    }

    async fn check(&self) -> Result<Traits, Fault> {
        let seen = tokio::time::timeout(self.deadline, self.see_login()).await;
        seen.unwrap_or(Err(Failure::TIMED_OUT)).map_err(|failure| failure.fault("login check"))?;
        Ok(Traits { has_versions: matches!(self.engine, Engine::Kv2 { .. }) })
    }

    fn lister(&self) -> Option<&dyn List> {
        match self.engine {
            Engine::Kv1 { .. } | Engine::Kv2 { .. } => Some(self),
            Engine::Logical { .. } => None,
        }
    }

    fn writer(&self) -> Option<&dyn Write> {
        match self.engine {
            Engine::Kv2 { .. } => Some(self),
            Engine::Kv1 { .. } | Engine::Logical { .. } => None,
        }
    }

    fn is_unattended(&self, wanted: &RemoteRef) -> bool {
        match &self.engine {
            Engine::Logical { leases, .. } => !leases.has_seen(&wanted.key),
            Engine::Kv1 { .. } | Engine::Kv2 { .. } => false,
        }
    }

    async fn release(&self, wanted: &RemoteRef) {
        let Engine::Logical { leases, revokes: true, .. } = &self.engine else { return };
        if wanted.is_metadata {
            return;
        }
        let gate = leases.gate(&wanted.key);
        let _alone = gate.lock().await;
        let Some(lease) = leases.take(&wanted.key) else { return };
        let body = serde_json::json!({"lease_id": lease.id});
        let revoked = tokio::time::timeout(self.deadline, self.session.call(|| Post::json("sys/leases/revoke", &body))).await;
        if !revoked.is_ok_and(|answer| answer.is_ok_and(|answer| matches!(answer.status, 200 | 204))) {
            tracing::warn!(key = wanted.key.as_str(), "a lease could not be revoked; it ends by itself");
        }
    }

    fn changes(&self) -> Option<BoxStream<'static, Hint>> {
        match &self.engine {
            Engine::Logical { leases, .. } => Some(leases.hints()),
            Engine::Kv1 { .. } | Engine::Kv2 { .. } => None,
        }
    }
}

#[async_trait]
impl List for Vault {
    async fn list(&self, path: Option<&str>) -> Result<Vec<RemoteKey>, Fault> {
        let top = path.map_or_else(String::new, |path| format!("{path}/"));
        let walk = tokio::time::timeout(self.deadline, self.walk(&top)).await;
        walk.unwrap_or_else(|_| Err(Failure::TIMED_OUT.fault(&list_of(&top))))
    }

    /// Tags are custom metadata, which costs one call for each name.
    async fn list_tagged(&self, path: Option<&str>, tags: &BTreeMap<String, String>) -> Result<Vec<RemoteKey>, Fault> {
        let Engine::Kv2 { mount } = &self.engine else {
            return if tags.is_empty() { self.list(path).await } else { Err(no_tags()) };
        };
        let top = path.map_or_else(String::new, |path| format!("{path}/"));
        let tagged = async {
            let names = self.walk(&top).await?;
            if tags.is_empty() {
                return Ok(names);
            }
            let judged = stream::iter(names).map(|key| self.tagged(mount, key, tags)).buffered(LISTS_IN_FLIGHT);
            judged.try_filter_map(|key| std::future::ready(Ok(key))).try_collect().await
        };
        tokio::time::timeout(self.deadline, tagged).await.unwrap_or_else(|_| Err(Failure::TIMED_OUT.fault(&list_of(&top))))
    }
}

/// A name that is spelled as a canonical key. Another (`a//b`, `..`, control characters) can be asked for by no reference, and under
/// its canonical spelling it would be somebody else.
fn canonical(name: &str) -> Option<RemoteKey> {
    RemoteKey::parse(ProviderKind::Vault, name).ok().filter(|key| key.as_str() == name)
}

/// Whether keys below it can be spelled: one slash at the end of a canonical name.
fn is_folder(name: &str) -> bool {
    name.strip_suffix('/').is_some_and(|name| canonical(name).is_some())
}

/// Versions count from 1; 0 would be the newest, and 01 a second spelling of 1.
fn version_number(text: &str) -> Result<u64, Failure> {
    let number = text.parse().ok().filter(|number| *number > 0 && i64::try_from(*number).is_ok());
    number.filter(|number: &u64| number.to_string() == text).ok_or(Failure::NoVersionNumber)
}

fn list_of(folder: &str) -> String {
    if folder.is_empty() { "list of all keys".to_owned() } else { format!("list of the keys below {folder:?}") }
}

fn no_tags() -> Fault {
    Fault::invalid(Reason::InvalidSpec, "find.tags: KV version 1 keeps no metadata beside its values: remove them, or search by name")
}

fn missing(wanted: &RemoteRef) -> Fault {
    let (key, Some(version)) = (wanted.key.as_str(), &wanted.version) else { return not_found(&wanted.key) };
    Fault::absent(Reason::NotFound, format!("remote key {key:?} has no version {version}: write the key or correct the version"))
}

fn deleted(subject: &str) -> Fault {
    Fault::absent(Reason::Deleted, format!("{subject}: this version was deleted and can be had back: undelete it or write a new one"))
}

fn destroyed(subject: &str) -> Fault {
    Fault::absent(Reason::Destroyed, format!("{subject}: this version was destroyed for good: write a new one or name another"))
}
