//! Provider `file` with format `Tree`: plain files below the admin's root, read as they are. Whatever else may be in such a folder, only
//! regular files beneath it are opened.
//!
//! `walk` opens and lists, `watch` says what changed; here is the read power.

mod walk;
mod watch;

use std::{path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::stream::BoxStream;
use tokio::sync::Semaphore;

use self::walk::{Folder, TreeError};
use crate::{
    backend::{Backend, List, Traits, not_found},
    fault::{Fault, Reason},
    item::{Fetched, Form, Hint, Reading},
    name::{ProviderKind, RemoteKey, RemoteRef},
};

/// Files of one look.
const BATCH: usize = 256;

/// A tree is opened by each look, so that a folder that is mounted anew is noticed.
#[must_use]
pub fn open(root: &Path, namespace: Option<&str>, path: &str, deadline: Duration) -> Arc<dyn Backend> {
    Arc::new(Tree { folder: Folder::beneath(root, namespace, path), deadline, gate: Arc::new(Semaphore::new(1)) })
}

struct Tree {
    folder: Folder,
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
        let wanted = refs.to_vec();
        let look = self.look(move |folder| wanted.iter().map(|wanted| read(folder, wanted)).collect()).await;
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
        Ok(files.keys().filter_map(|file| RemoteKey::parse(ProviderKind::File, file).ok()).collect())
    }
}

fn read(folder: &Folder, wanted: &RemoteRef) -> Reading {
    let key = wanted.key.as_str();
    if wanted.version.is_some() {
        let detail = format!("remote key {key:?}: a tree of files has no versions: remove the version");
        return Reading::Unknown(Fault::invalid(Reason::InvalidSpec, detail));
    }
    match folder.read(key) {
        Ok(Some(value)) => Reading::Found(Fetched { value, form: Form::Whole, version: None, is_secret: false }),
        Ok(None) => Reading::Absent(not_found(&wanted.key)),
        Err(error) => Reading::Unknown(error.into()),
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
