//! Provider `file` with format `Tree`: plain files below the admin's root, read as they are. Whatever else may be in such a folder, only
//! regular files beneath it are opened.
//!
//! `walk` opens and lists, `watch` says what changed, `sealed` tells files that SOPS or age encrypted, which `age` and `sops` open; here is
//! the read power.

#[cfg(feature = "age")]
mod age;
mod sealed;
#[cfg(feature = "age")]
mod sops;
mod walk;
mod watch;

use std::{path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::stream::BoxStream;
use tokio::sync::Semaphore;

#[cfg(feature = "age")]
pub use self::age::Identities;
pub use self::sealed::Unseal;
use self::{
    sealed::{SealedError, tool_of},
    walk::{Folder, TreeError},
};
use crate::{
    backend::{Backend, List, Traits, no_metadata, not_found},
    fault::{Fault, Reason, quote},
    item::{Fetched, Form, Hint, Reading},
    name::{ProviderKind, RemoteKey, RemoteRef},
    secret::SecretValue,
};

/// Files of one look.
const BATCH: usize = 256;

/// What opens the files that somebody encrypted; without it only plain ones are read, with it no plain one.
pub type Unsealer = Option<Arc<dyn Unseal>>;

/// A tree is opened by each look, so that a folder that is mounted anew is noticed.
#[must_use]
pub fn open(root: &Path, namespace: Option<&str>, path: &str, unsealer: Unsealer, deadline: Duration) -> Arc<dyn Backend> {
    Arc::new(Tree { folder: Folder::beneath(root, namespace, path), unsealer, deadline, gate: Arc::new(Semaphore::new(1)) })
}

struct Tree {
    folder: Folder,
    unsealer: Unsealer,
    deadline: Duration,
    /// One look at a time: one that hangs on its disk must not gather others behind it.
    gate: Arc<Semaphore>,
}

impl Tree {
    async fn look<T: Send + 'static>(&self, work: impl FnOnce(&Folder) -> T + Send + 'static) -> Result<T, Fault> {
        let (folder, gate) = (self.folder.clone(), Arc::clone(&self.gate));
        let look = async move {
            let turn = gate.acquire_owned().await;
            tokio::task::spawn_blocking(move || {
                let _turn = turn;
                work(&folder)
            })
            .await
        };
        match tokio::time::timeout(self.deadline, look).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(Fault::unavailable(format!("{} could not be read: look at its files", self.folder.name()))),
            Err(_) => Err(Fault::unavailable(format!("{} was not read in time: its disk hangs", self.folder.name()))),
        }
    }
}

#[async_trait]
impl Backend for Tree {
    fn batch_size(&self) -> usize {
        BATCH
    }

    async fn fetch(&self, refs: &[RemoteRef]) -> Vec<Reading> {
        let (wanted, unsealer) = (refs.to_vec(), self.unsealer.clone());
        let look = self.look(move |folder| wanted.iter().map(|wanted| read(folder, unsealer.as_deref(), wanted)).collect()).await;
        look.unwrap_or_else(|fault| refs.iter().map(|_| Reading::Unknown(fault.clone())).collect())
    }

    /// Opens the folder; its files are opened when they are asked for.
    async fn check(&self) -> Result<Traits, Fault> {
        self.look(|_| ()).await?;
        Ok(Traits::default())
    }

    fn lister(&self) -> Option<&dyn List> {
        Some(self)
    }

    fn changes(&self) -> Option<BoxStream<'static, Hint>> {
        Some(watch::changes(self.folder.clone()))
    }
}

#[async_trait]
impl List for Tree {
    async fn list(&self, path: Option<&str>) -> Result<Vec<RemoteKey>, Fault> {
        let path = path.map(str::to_owned);
        let files = self.look(move |folder| folder.list(path.as_deref())).await??;
        // A name that is no remote key cannot be asked for by any reference either.
        let files = files.keys().filter(|file| self.unsealer.is_none() || !is_rules(file));
        Ok(files.filter_map(|file| RemoteKey::parse(ProviderKind::File, file).ok()).collect())
    }
}

fn read(folder: &Folder, unsealer: Option<&dyn Unseal>, wanted: &RemoteRef) -> Reading {
    let key = wanted.key.as_str();
    if wanted.is_metadata {
        return Reading::Unknown(no_metadata(&wanted.key, "a tree of files"));
    }
    if wanted.version.is_some() {
        let detail = format!("remote key {key:?}: a tree of files has no versions: remove the version");
        return Reading::Unknown(Fault::invalid(Reason::InvalidSpec, detail));
    }
    match folder.read(key) {
        Ok(Some(value)) => match plain(key, value, unsealer) {
            // Whoever encrypted a file says that it is a secret.
            Ok(value) => Reading::Found(Fetched { value, form: Form::Whole, version: None, is_secret: unsealer.is_some() }),
            Err(error) => Reading::Unknown(error.into()),
        },
        Ok(None) => Reading::Absent(not_found(&wanted.key)),
        Err(error) => Reading::Unknown(error.into()),
    }
}

/// The rules by which SOPS encrypts what stands beside them: never encrypted, and nobody's value.
fn is_rules(file: &str) -> bool {
    file.rsplit('/').next() == Some(".sops.yaml")
}

/// What an encrypted file holds is delivered, never the file as it is: an application would take it for the value.
fn plain(key: &str, value: SecretValue, unsealer: Option<&dyn Unseal>) -> Result<SecretValue, SealedError> {
    match (unsealer, tool_of(value.expose())) {
        (Some(unsealer), _) => unsealer.unseal(key, &value),
        (None, None) => Ok(value),
        (None, Some(tool)) => Err(SealedError::NotOpened { file: quote(key), tool }),
    }
}

impl From<TreeError> for Fault {
    fn from(error: TreeError) -> Self {
        let detail = error.to_string();
        match error {
            TreeError::Missing { .. } | TreeError::Empty { .. } => {
                Self::new(crate::fault::Class::Unavailable, Reason::StoreNotReady, detail)
            }
            TreeError::Escapes { .. } => Self::not_allowed(detail),
            TreeError::Denied { .. } => Self::access_denied(detail),
            TreeError::NotAFile { .. } => Self::invalid(Reason::InvalidData, detail),
            TreeError::TooLarge { .. } | TreeError::TooMany { .. } => Self::invalid(Reason::TooLarge, detail),
            TreeError::Changing { .. } | TreeError::Dangling { .. } | TreeError::Io { .. } => Self::unavailable(detail),
        }
    }
}
