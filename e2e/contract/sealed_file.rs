//! The subject of provider `file`: an encrypted store on disk, written by the library's own writer as `keyferry store` does.

use std::{fs, path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use keyferry::{
    backend::{
        Backend, Credentials, Settings,
        file::{Changes, MasterKey, New, Place, Status, Writer, create},
        open,
    },
    crd::v1alpha1::{FileProvider, Provider},
    fault::Fault,
    name::{ProviderKind, StoreName},
    secret::SecretValue,
};
use tempfile::TempDir;

use super::subject::{CANARY, Damage, Payload, Subject, Written};

pub struct SealedFile {
    _folder: TempDir,
    root: PathBuf,
    master: PathBuf,
    aside: Option<Vec<u8>>,
}

impl SealedFile {
    pub fn create() -> Self {
        let folder = TempDir::with_prefix("keyferry-contract-").unwrap();
        let root = folder.path().join("root");
        fs::create_dir(&root).unwrap();
        let file = Self { root, master: new_key(&folder, "master"), _folder: folder, aside: None };
        create(&file.store(), &MasterKey::read(&Place::path(&file.master)).unwrap()).unwrap();
        file
    }

    fn store(&self) -> PathBuf {
        self.root.join("store")
    }

    fn writer(&self) -> Writer {
        Writer::open(&Place::path(&self.store()), &Place::path(&self.master)).unwrap()
    }

    /// Replaces the store's bytes, keeping those that were there.
    fn break_with(&mut self, change: impl FnOnce(&mut Vec<u8>)) {
        let whole = fs::read(self.store()).unwrap();
        let mut broken = whole.clone();
        change(&mut broken);
        fs::write(self.store(), broken).unwrap();
        self.aside = Some(whole);
    }
}

fn new_key(folder: &TempDir, name: &str) -> PathBuf {
    let path = folder.path().join(name);
    MasterKey::create(&path).unwrap();
    path
}

#[async_trait]
impl Subject for SealedFile {
    fn keys(&self) -> ProviderKind {
        ProviderKind::File
    }

    fn open(&self) -> Result<Arc<dyn Backend>, Fault> {
        let settings = Settings {
            file_root: Some(self.root.clone()),
            file_master_key: Some(self.master.clone()),
            call_timeout: Duration::from_secs(20),
            ..Settings::default()
        };
        open(
            &StoreName::Cluster { name: "contract".into() },
            Provider::File(&FileProvider { path: "store".into(), format: None, decryption: None }),
            &Credentials::default(),
            &settings,
        )
    }

    async fn write(&mut self, key: &str, payload: &Payload) -> Written {
        let version = Some(self.writer().set(key, &SecretValue::new(payload.bytes()), None).unwrap().to_string());
        Written { bytes: payload.bytes(), version: version.clone(), told: version }
    }

    async fn write_all(&mut self, keys: &[String], payload: &Payload) {
        let writer = self.writer();
        for key in keys {
            writer.set(key, &SecretValue::new(payload.bytes()), None).unwrap();
        }
    }

    async fn write_outside(&mut self) {
        fs::write(self.root.join("outside"), CANARY).unwrap();
        fs::write(self.root.with_file_name("outside"), CANARY).unwrap();
    }

    async fn soft_delete(&mut self, key: &str) {
        self.writer().mark_deleted(key, None, true).unwrap();
    }

    async fn enable(&mut self, key: &str, enabled: bool) {
        let status = if enabled { Status::Active } else { Status::Disabled };
        self.writer().edit(key, &Changes { status: Some(status), ..Changes::default() }).unwrap();
    }

    async fn expire(&mut self, key: &str) {
        let long_ago = jiff::Timestamp::UNIX_EPOCH;
        self.writer().edit(key, &Changes { expires: Some(New::Is(long_ago)), ..Changes::default() }).unwrap();
    }

    async fn undelete(&mut self, key: &str, version: &str) {
        self.writer().mark_deleted(key, Some(version.parse().unwrap()), false).unwrap();
    }

    async fn damage(&mut self, damage: Damage) {
        match damage {
            Damage::Truncated => self.break_with(|bytes| bytes.truncate(bytes.len() / 2)),
            Damage::Malformed => self.break_with(|bytes| bytes.iter_mut().for_each(|byte| *byte ^= 1)),
            Damage::Expired => self.master = new_key(&self._folder, "another"),
            Damage::NoCredential => fs::remove_file(&self.master).unwrap(),
            Damage::NoParent => {
                self.aside = Some(fs::read(self.store()).unwrap());
                fs::remove_file(self.store()).unwrap();
            }
            other => unreachable!("{other:?}"),
        }
    }

    async fn mend(&mut self) -> bool {
        use std::os::unix::fs::PermissionsExt;
        let Some(whole) = self.aside.take() else { return false };
        fs::write(self.store(), whole).unwrap();
        fs::set_permissions(self.store(), fs::Permissions::from_mode(0o600)).unwrap();
        true
    }
}
