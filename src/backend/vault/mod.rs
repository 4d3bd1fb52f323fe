//! Provider `vault`: KV version 2 of Vault and OpenBao.
//!
//! The three outcomes are decided here; `answer` reads what the server said, `failure` says what can go wrong and what to do about
//! it, `session` keeps the token that `login` gets, `connection` talks. What `vaultrs` knows about paths and queries is used; its client is not: it reads `VAULT_*` variables, buffers
//! answers without a limit, drops headers such as Retry-After, and loses digits.

mod answer;
mod connection;
mod failure;
mod login;
mod session;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt, stream};
use rustify::{
    endpoint::Endpoint,
    enums::{RequestMethod, RequestType, ResponseType},
};
use vaultrs::api::kv2::requests::{ListSecretsRequest, ReadSecretRequest};

use crate::{
    backend::{Backend, Credentials, List, Settings, not_found},
    crd::v1alpha1::VaultProvider,
    fault::{Fault, Reason},
    item::Reading,
    name::{ProviderKind, RemoteKey, RemoteRef, StoreName},
};
use answer::{Engine, Kept};
use failure::Failure;
use session::Session;

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
    let mount = mount_path(spec.path.as_deref().unwrap_or("secret"))?;
    let session = Session::open(store, spec, credentials, settings)?;
    Ok(Arc::new(Vault { session, mount, deadline: settings.call_timeout }))
}

/// The mount path in the form in which the server names it, without its last slash.
fn mount_path(text: &str) -> Result<String, Fault> {
    let path = RemoteKey::parse(ProviderKind::Vault, text).map_err(|_| {
        let detail = "provider.vault.path is no mount path: write it as `bao secrets list` shows it, such as secret or team/kv";
        Fault::invalid(Reason::InvalidSpec, detail)
    })?;
    Ok(path.as_str().to_owned())
}

/// What is mounted at a path; answered to every token that may look at anything below it, whatever its policies say of this path.
#[derive(Debug)]
struct MountRequest {
    mount: String,
}

impl Endpoint for MountRequest {
    type Response = ();
    const REQUEST_BODY_TYPE: RequestType = RequestType::JSON;
    const RESPONSE_BODY_TYPE: ResponseType = ResponseType::JSON;

    fn path(&self) -> String {
        format!("sys/internal/ui/mounts/{}", self.mount)
    }

    fn method(&self) -> RequestMethod {
        RequestMethod::GET
    }
}

#[derive(Debug)]
struct Vault {
    session: Session,
    mount: String,
    /// Of a look as a whole: of a read with its look at the mount, of all folders of a list.
    deadline: Duration,
}

impl Vault {
    async fn read(&self, wanted: &RemoteRef) -> Reading {
        let subject = format!("remote key {:?}", wanted.key.as_str());
        let version = match wanted.version.as_deref().map(version_number).transpose() {
            Ok(version) => version,
            Err(failure) => return Reading::Unknown(failure.fault(&subject)),
        };
        let look = tokio::time::timeout(self.deadline, self.look(wanted, version)).await;
        match look.unwrap_or(Err(Failure::TimedOut)) {
            Ok(Kept::Value(fetched)) => Reading::Found(fetched),
            Ok(Kept::Deleted) => Reading::Absent(deleted(&subject)),
            Ok(Kept::Destroyed) => Reading::Absent(destroyed(&subject)),
            Ok(Kept::Nothing) => Reading::Absent(missing(wanted)),
            Err(failure) => Reading::Unknown(failure.fault(&subject)),
        }
    }

    /// What the engine keeps under the key. `Nothing` is said only when the engine itself was seen: a proxy, another engine at
    /// the same path or a mount that went away answer 404 too.
    async fn look(&self, wanted: &RemoteRef, version: Option<u64>) -> Result<Kept, Failure> {
        let request = || ReadSecretRequest { mount: self.mount.clone(), path: wanted.key.as_str().to_owned(), version };
        let kept = answer::kept(&self.session.call(request).await?, version)?;
        if matches!(kept, Kept::Nothing) {
            self.see_engine().await?;
        }
        Ok(kept)
    }

    /// Succeeds when the mount path is that of a KV version 2 engine which the token may look into.
    async fn see_engine(&self) -> Result<(), Failure> {
        let answer = self.session.call(|| MountRequest { mount: self.mount.clone() }).await?;
        match answer::engine(&answer)? {
            Engine { path, is_kv2: true } if path.trim_end_matches('/') == self.mount => Ok(()),
            _ => Err(Failure::NoEngine),
        }
    }

    /// The names in one folder (empty, or with a slash at its end); those that end in a slash are folders.
    async fn folder(&self, folder: String) -> Result<Vec<String>, Fault> {
        let request = || ListSecretsRequest { mount: self.mount.clone(), path: folder.clone() };
        let names = match self.session.call(request).await {
            Ok(answer) => answer::names(&answer),
            Err(failure) => Err(failure),
        };
        let names = names.map_err(|failure| failure.fault(&list_of(&folder)))?;
        Ok(names.into_iter().map(|name| format!("{folder}{name}")).collect())
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
            self.see_engine().await.map_err(|failure| failure.fault(&list_of(top)))?;
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

    fn lister(&self) -> Option<&dyn List> {
        Some(self)
    }
}

#[async_trait]
impl List for Vault {
    async fn list(&self, path: Option<&str>) -> Result<Vec<RemoteKey>, Fault> {
        let top = path.map_or_else(String::new, |path| format!("{path}/"));
        let walk = tokio::time::timeout(self.deadline, self.walk(&top)).await;
        walk.unwrap_or_else(|_| Err(Failure::TimedOut.fault(&list_of(&top))))
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
