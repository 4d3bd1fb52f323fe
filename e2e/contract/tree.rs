//! The subject of provider `file` with format `Tree`: plain files below a root.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use keyferry::{
    backend::{Backend, Credentials, Settings, open},
    crd::v1alpha1::{FileFormat, FileProvider, Provider},
    fault::Fault,
    name::{ProviderKind, StoreName},
};
use tempfile::TempDir;

use super::subject::{CANARY, Damage, Payload, Subject, Written};

pub struct Tree {
    folder: TempDir,
}

impl Tree {
    pub fn create() -> Self {
        let tree = Self { folder: TempDir::with_prefix("keyferry-contract-").unwrap() };
        fs::create_dir_all(tree.at("")).unwrap();
        tree
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    fn at(&self, key: &str) -> PathBuf {
        self.root().join("tree").join(key)
    }

    fn aside(&self) -> PathBuf {
        self.folder.path().join("aside")
    }

    /// As a deployment replaces a file: whole, by its name.
    fn put(&self, path: &Path, bytes: &[u8]) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let draft = self.folder.path().join("draft");
        fs::write(&draft, bytes).unwrap();
        fs::rename(draft, path).unwrap();
    }
}

#[async_trait]
impl Subject for Tree {
    fn keys(&self) -> ProviderKind {
        ProviderKind::File
    }

    fn open(&self) -> Result<Arc<dyn Backend>, Fault> {
        let settings = Settings { file_tree_root: Some(self.root()), call_timeout: Duration::from_secs(20), ..Settings::default() };
        let spec = FileProvider { path: "tree".into(), format: Some(FileFormat::Tree), decryption: None };
        open(&StoreName::Cluster { name: "contract".into() }, Provider::File(&spec), &Credentials::default(), &settings)
    }

    async fn write(&mut self, key: &str, payload: &Payload) -> Written {
        self.put(&self.at(key), &payload.bytes());
        Written { bytes: payload.bytes(), version: None, told: None }
    }

    async fn write_outside(&mut self) {
        for path in [self.root().join("outside/x"), self.folder.path().join("outside/x")] {
            self.put(&path, CANARY.as_bytes());
        }
    }

    async fn remove(&mut self, key: &str) {
        fs::remove_file(self.at(key)).unwrap();
    }

    async fn damage(&mut self, damage: Damage) {
        match damage {
            Damage::NoParent => fs::rename(self.at(""), self.aside()).unwrap(),
            other => unreachable!("{other:?}"),
        }
    }

    async fn mend(&mut self) -> bool {
        fs::rename(self.aside(), self.at("")).is_ok()
    }
}
