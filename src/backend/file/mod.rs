//! Provider `file`: the encrypted store on disk, the embedded default. `docs/backends/file.md` is its manual.
//!
//! `place` opens files, `seal` encrypts, `index` says what exists, `kind` and `about` what it is, `store` reads and writes one store,
//! `admin` works on whole stores, `watch` notices changes.
//! `tree` is the other format: plain files. Here is the read power for objects; the write power is used by `keyferry store`.

mod about;
mod admin;
mod error;
mod index;
mod kind;
mod place;
mod publish;
mod seal;
mod store;
#[cfg(test)]
mod tests;
mod tree;
mod watch;

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::stream::BoxStream;
use jiff::Timestamp;
use tokio::sync::Semaphore;

pub use self::{
    about::{About, Changes, New, Status, Withheld},
    admin::{Restored, backup, rekey, restore},
    error::StoreError,
    index::{Name, Version},
    kind::Kind,
    place::Place,
    seal::MasterKey,
    store::{MAX_VALUE, Reader, Writer, create},
};
#[cfg(feature = "age")]
use crate::access::Role;
use crate::{
    backend::{Backend, Credentials, List, Settings, Traits},
    crd::v1alpha1::{FileFormat, FileProvider},
    fault::{Class, Fault, Reason},
    item::{Fetched, Form, Hint, Reading},
    name::{ProviderKind, RemoteKey, RemoteRef, StoreName},
};

/// References of one look: they share the opening and one consistent state of the file.
const BATCH: usize = 256;

/// Opens a store beneath the admin's root; the file itself is opened by each look, so that a replaced one is noticed.
///
/// # Errors
/// `NotAllowed` where the operator's settings refuse, `InvalidSpec` for a path that leaves its folder.
pub fn open(store: &StoreName, spec: &FileProvider, credentials: &Credentials, settings: &Settings) -> Result<Arc<dyn Backend>, Fault> {
    let format = spec.format.unwrap_or_default();
    let namespace = match store {
        StoreName::Cluster { .. } => None,
        StoreName::Namespaced { .. } if !settings.file_namespaced => {
            return Err(Fault::not_allowed("provider file is for a ClusterSecretStore: this operator does not allow it in a SecretStore"));
        }
        StoreName::Namespaced { namespace, .. } => Some(namespace.as_str()),
    };
    if format == FileFormat::Tree {
        let Some(root) = &settings.file_tree_root else {
            return Err(Fault::not_allowed("provider file with format Tree is not enabled on this operator: set --file-tree-root"));
        };
        if spec.path != "." {
            refuse_climbing(&spec.path)?;
        }
        return Ok(tree::open(root, namespace, &spec.path, unsealer(spec, credentials)?, settings.call_timeout));
    }
    if spec.decryption.is_some() {
        let detail = "provider.file.decryption is for format: Tree; the encrypted store has the operator's master key: remove it";
        return Err(Fault::invalid(Reason::InvalidSpec, detail));
    }
    let (Some(root), Some(master)) = (&settings.file_root, &settings.file_master_key) else {
        return Err(Fault::not_allowed("provider file is not enabled on this operator: set --file-root and --file-master-key"));
    };
    refuse_climbing(&spec.path)?;
    Ok(Arc::new(FileStore {
        store: Place::beneath(root, namespace, &spec.path),
        master: Place::named(master, "the operator's file master key"),
        deadline: settings.call_timeout,
        gate: Arc::new(Semaphore::new(1)),
    }))
}

#[cfg(feature = "age")]
fn unsealer(spec: &FileProvider, credentials: &Credentials) -> Result<tree::Unsealer, Fault> {
    if spec.decryption.is_none() {
        return Ok(None);
    }
    let not_ready = |what: &dyn std::fmt::Display| {
        let detail = format!("the Secret of provider.file.decryption.ageIdentitySecretRef cannot be used: {what}");
        Fault::new(Class::Unavailable, Reason::StoreNotReady, detail)
    };
    let file = credentials.secrets.get(&Role::AgeIdentity).ok_or_else(|| not_ready(&"it was not read"))?;
    let identities = tree::Identities::parse(file).map_err(|error| not_ready(&error))?;
    Ok(Some(Arc::new(identities)))
}

#[cfg(not(feature = "age"))]
fn unsealer(spec: &FileProvider, _: &Credentials) -> Result<tree::Unsealer, Fault> {
    let detail = "provider.file.decryption: this build opens no files of SOPS and age: use an image built with the feature age";
    if spec.decryption.is_some() { Err(Fault::invalid(Reason::InvalidSpec, detail)) } else { Ok(None) }
}

fn refuse_climbing(path: &str) -> Result<(), Fault> {
    let climbs = path.split('/').any(|segment| matches!(segment, "" | "." | ".."));
    if climbs || Path::new(path).is_absolute() || path.contains('\0') {
        return Err(Fault::invalid(
            Reason::InvalidSpec,
            format!("provider.file.path {path:?} must be relative, without empty, '.' or '..' segments"),
        ));
    }
    Ok(())
}

struct FileStore {
    store: Place,
    master: Place,
    deadline: Duration,
    /// One look at a time: a look that hangs on a lock must not gather others behind it.
    gate: Arc<Semaphore>,
}

impl FileStore {
    async fn look<T: Send + 'static>(&self, work: impl FnOnce(&mut Reader) -> T + Send + 'static) -> Result<T, Fault> {
        let (store, master, gate) = (self.store.clone(), self.master.clone(), Arc::clone(&self.gate));
        let look = async move {
            let turn = gate.acquire_owned().await;
            tokio::task::spawn_blocking(move || {
                let _turn = turn;
                Reader::open(&store, &master).map(|mut reader| work(&mut reader))
            })
            .await
        };
        match tokio::time::timeout(self.deadline, look).await {
            Ok(Ok(answer)) => answer.map_err(Fault::from),
            Ok(Err(_)) => Err(Fault::unavailable(format!("{} could not be read", self.store.name()))),
            Err(_) => {
                Err(Fault::unavailable(format!("{} did not open in time: another process holds it, or its disk hangs", self.store.name())))
            }
        }
    }
}

#[async_trait]
impl Backend for FileStore {
    fn batch_size(&self) -> usize {
        BATCH
    }

    async fn fetch(&self, refs: &[RemoteRef]) -> Vec<Reading> {
        let wanted = refs.to_vec();
        let look = self.look(move |reader| wanted.iter().map(|wanted| read(reader, wanted)).collect()).await;
        look.unwrap_or_else(|fault| refs.iter().map(|_| Reading::Unknown(fault.clone())).collect())
    }

    /// Opens the file with the master key and verifies its whole index.
    async fn check(&self) -> Result<Traits, Fault> {
        self.look(|reader| reader.names().map(drop).map_err(Fault::from)).await??;
        Ok(Traits { has_versions: true })
    }

    fn lister(&self) -> Option<&dyn List> {
        Some(self)
    }

    fn changes(&self) -> Option<BoxStream<'static, Hint>> {
        Some(watch::changes(self.store.clone(), self.master.clone()))
    }
}

#[async_trait]
impl List for FileStore {
    async fn list(&self, path: Option<&str>) -> Result<Vec<RemoteKey>, Fault> {
        self.list_tagged(path, &BTreeMap::new()).await
    }

    /// Also names whose value is deleted, disabled or expired: a reading of each says so.
    async fn list_tagged(&self, path: Option<&str>, tags: &BTreeMap<String, String>) -> Result<Vec<RemoteKey>, Fault> {
        let below = path.map(|path| format!("{path}/"));
        let names = self.look(|reader| reader.names().map_err(Fault::from)).await??;
        names
            .into_iter()
            .filter(|name| below.as_deref().is_none_or(|below| name.key.starts_with(below)))
            .filter(|name| tags.iter().all(|(key, value)| name.about.says(key, value)))
            .map(|name| {
                RemoteKey::parse(ProviderKind::File, &name.key)
                    .map_err(|error| Fault::invalid(Reason::InvalidData, format!("key {:?} in {}: {error}", name.key, self.store.name())))
            })
            .collect()
    }
}

fn read(reader: &mut Reader, wanted: &RemoteRef) -> Reading {
    if wanted.is_metadata {
        return match reader.describe(wanted.key.as_str()) {
            Ok((name, _)) => Reading::Found(Fetched { value: name.about.document(), form: Form::Whole, version: None, is_secret: false }),
            Err(error) => unread(error),
        };
    }
    let version = match wanted.version.as_deref().map(parse_version).transpose() {
        Ok(version) => version,
        Err(fault) => return Reading::Unknown(fault),
    };
    match reader.typed(wanted.key.as_str(), version, Timestamp::now()) {
        Ok((value, version, kind)) => {
            Reading::Found(Fetched { value, form: Form::Whole, version: Some(version.to_string()), is_secret: kind.is_secret() })
        }
        Err(error) => unread(error),
    }
}

fn unread(error: StoreError) -> Reading {
    let fault = Fault::from(error);
    if fault.class == Class::Absent { Reading::Absent(fault) } else { Reading::Unknown(fault) }
}

fn parse_version(text: &str) -> Result<u64, Fault> {
    text.parse().ok().filter(|number: &u64| *number > 0 && number.to_string() == text).ok_or_else(|| {
        Fault::invalid(Reason::InvalidSpec, format!("version {text:?} is no version of a file store: versions are numbers from 1"))
    })
}
