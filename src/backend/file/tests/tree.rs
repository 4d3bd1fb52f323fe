//! Trees of plain files: what is opened, what is listed, and what no name and no link leads to.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures::StreamExt;
use tempfile::TempDir;

use super::memory;
use crate::{
    backend::{Backend, Credentials, Settings, file},
    crd::v1alpha1::{FileFormat, FileProvider},
    fault::{Class, Fault, Reason},
    item::{Hint, Reading},
    name::{ProviderKind, RemoteKey, RemoteRef, StoreName},
};

const PATIENCE: Duration = Duration::from_secs(60);

/// A root with the tree `config`, and something beside it that must never be read.
struct Grove {
    folder: TempDir,
}

impl Grove {
    fn new() -> Self {
        let grove = Self { folder: memory() };
        grove.put("config/app/db.yaml", "password: 1.10");
        grove.put("config/app/.env", "A=1");
        grove.put("config/bytes.bin", "\u{0}\u{1}");
        grove.put("other/secret", "not yours");
        fs::write(grove.folder.path().join("outside"), "not yours").unwrap();
        grove
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root().join(path)
    }

    fn put(&self, path: &str, text: &str) {
        fs::create_dir_all(self.at(path).parent().unwrap()).unwrap();
        fs::write(self.at(path), text).unwrap();
    }

    fn settings(&self) -> Settings {
        Settings { file_tree_root: Some(self.root()), call_timeout: PATIENCE, ..Settings::default() }
    }

    fn open(&self, path: &str) -> Arc<dyn Backend> {
        open(&cluster(), path, &self.settings()).unwrap()
    }
}

fn cluster() -> StoreName {
    StoreName::Cluster { name: "trees".to_owned() }
}

fn open(store: &StoreName, path: &str, settings: &Settings) -> Result<Arc<dyn Backend>, Fault> {
    let spec = FileProvider { path: path.to_owned(), format: Some(FileFormat::Tree), decryption: None };
    file::open(store, &spec, &Credentials::default(), settings)
}

fn key(text: &str) -> RemoteKey {
    RemoteKey::parse(ProviderKind::File, text).unwrap()
}

async fn word(backend: &Arc<dyn Backend>, name: &str) -> String {
    match backend.fetch(&[RemoteRef { key: key(name), version: None, is_metadata: false }]).await.remove(0) {
        Reading::Found(found) => format!("{:?}", String::from_utf8_lossy(found.value.expose())),
        Reading::Absent(fault) => format!("absent {}", fault.reason),
        Reading::Unknown(fault) => format!("unknown {}", fault.reason),
    }
}

async fn names(backend: &Arc<dyn Backend>, path: Option<&str>) -> Vec<String> {
    backend.lister().unwrap().list(path).await.unwrap().iter().map(ToString::to_string).collect()
}

#[tokio::test]
async fn files_are_read_as_they_are_under_their_paths() {
    let grove = Grove::new();
    let config = grove.open("config");
    for (name, expected) in [
        ("app/db.yaml", "\"password: 1.10\""),
        ("app/.env", "\"A=1\""),
        ("bytes.bin", "\"\\0\\u{1}\""),
        ("app", "absent NotFound"),
        ("app/db.yaml/x", "absent NotFound"),
        ("never", "absent NotFound"),
        (&"x".repeat(300), "absent NotFound"),
    ] {
        assert_eq!(word(&config, name).await, expected, "{name}");
    }
    assert_eq!(names(&config, None).await, ["app/.env", "app/db.yaml", "bytes.bin"]);
    assert_eq!(names(&config, Some("app")).await, ["app/.env", "app/db.yaml"]);
    for nothing in ["ap", "bytes.bin", "never"] {
        assert!(names(&config, Some(nothing)).await.is_empty(), "{nothing}");
    }
    assert_eq!(word(&grove.open("."), "other/secret").await, "\"not yours\"", "the root itself is a tree too");
    let pinned = config.fetch(&[RemoteRef { key: key("app/db.yaml"), version: Some("1".into()), is_metadata: false }]).await.remove(0);
    assert!(matches!(pinned, Reading::Unknown(fault) if fault.reason == Reason::InvalidSpec));
}

#[tokio::test]
async fn no_link_leads_out_of_a_tree_and_those_within_are_a_mounted_volume() {
    let grove = Grove::new();
    for (link, to) in [
        ("up", "../other/secret".into()),
        ("absolute", grove.at("config/app/db.yaml")),
        ("proc", "/proc/self/environ".into()),
        ("folder", "../other".into()),
        ("nothing", PathBuf::from("nowhere")),
        ("loop", "loop".into()),
        ("..data", "..2026_01_01".into()),
        ("mounted.yaml", "..data/mounted.yaml".into()),
        ("app/again", "../app".into()),
    ] {
        symlink(to, grove.at("config").join(link)).unwrap();
    }
    grove.put("config/..2026_01_01/mounted.yaml", "a: 1");
    let config = grove.open("config");
    for (name, expected) in [
        ("up", "unknown NotAllowed"),
        ("absolute", "unknown NotAllowed"),
        ("proc", "unknown NotAllowed"),
        ("folder/secret", "unknown NotAllowed"),
        ("loop", "unknown NotAllowed"),
        ("nothing", "unknown ProviderUnavailable"),
        ("mounted.yaml", "\"a: 1\""),
        ("app/again/db.yaml", "\"password: 1.10\""),
    ] {
        assert_eq!(word(&config, name).await, expected, "{name}");
    }
    assert_eq!(names(&config, None).await, ["app/.env", "app/db.yaml", "bytes.bin", "mounted.yaml"]);
}

#[tokio::test]
async fn only_regular_files_of_a_bounded_size_are_read() {
    let grove = Grove::new();
    rustix::fs::mkfifoat(rustix::fs::CWD, grove.at("config/pipe"), rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
    let socket = std::os::unix::net::UnixListener::bind(grove.at("config/socket")).unwrap();
    fs::File::create(grove.at("config/large")).unwrap().set_len((8 << 20) + 1).unwrap();
    fs::File::create(grove.at("config/largest")).unwrap().set_len(8 << 20).unwrap();
    let config = grove.open("config");
    for (name, expected) in [("pipe", "unknown InvalidData"), ("socket", "unknown InvalidData"), ("large", "unknown TooLarge")] {
        assert_eq!(word(&config, name).await, expected, "{name}");
    }
    assert_eq!(word(&config, "largest").await.len(), 2 + 2 * (8 << 20));
    assert_eq!(names(&config, None).await, ["app/.env", "app/db.yaml", "bytes.bin", "large", "largest"]);
    drop(socket);
}

#[tokio::test]
async fn a_tree_that_is_not_there_or_empty_proves_no_absence() {
    let grove = Grove::new();
    fs::create_dir(grove.at("empty")).unwrap();
    for path in ["nowhere", "empty", "config/bytes.bin"] {
        let tree = grove.open(path);
        assert_eq!(word(&tree, "app/db.yaml").await, "unknown StoreNotReady", "{path}");
        let reading = tree.fetch(&[RemoteRef { key: key("x"), version: None, is_metadata: false }]).await.remove(0);
        let Reading::Unknown(fault) = reading else { unreachable!() };
        assert_eq!(fault.class, Class::Unavailable);
        assert!(!fault.detail.contains(&*grove.folder.path().to_string_lossy()), "the admin's path is told: {fault}");
    }
    assert!(grove.open("nowhere").lister().unwrap().list(None).await.is_err());
    symlink("../other", grove.at("config/elsewhere")).unwrap();
    symlink(grove.folder.path(), grove.at("out")).unwrap();
    assert_eq!(word(&grove.open("out"), "outside").await, "unknown NotAllowed");
}

#[tokio::test]
async fn a_folder_that_cannot_be_listed_fails_the_list() {
    let grove = Grove::new();
    let mut deep = String::from("config/deep");
    (0..40).for_each(|_| deep.push_str("/x"));
    grove.put(&format!("{deep}/file"), "v");
    let refused = grove.open("config").lister().unwrap().list(None).await.unwrap_err();
    assert_eq!((refused.class, refused.reason), (Class::Invalid, Reason::TooLarge), "{refused}");
    assert_eq!(names(&grove.open("config"), Some("app")).await, ["app/.env", "app/db.yaml"]);
}

#[tokio::test]
async fn a_namespaced_store_has_its_own_folder_and_only_where_the_operator_allows_it() {
    let grove = Grove::new();
    grove.put("team-a/config/x", "ours");
    grove.put("team-b/config/x", "theirs");
    symlink("../team-b/config", grove.at("team-a/link")).unwrap();
    symlink("team-b", grove.at("team-c")).unwrap();
    let of = |namespace: &str| StoreName::Namespaced { namespace: namespace.to_owned(), name: "trees".to_owned() };
    let mut settings = grove.settings();
    assert_eq!(open(&of("team-a"), "config", &settings).err().unwrap().reason, Reason::NotAllowed);
    settings.file_namespaced = true;
    for (namespace, path, expected) in [
        ("team-a", "config", "\"ours\""),
        ("team-a", ".", "absent NotFound"),
        ("team-a", "link", "unknown NotAllowed"),
        ("team-c", "config", "unknown StoreNotReady"),
        ("team-d", "config", "unknown StoreNotReady"),
    ] {
        assert_eq!(word(&open(&of(namespace), path, &settings).unwrap(), "x").await, expected, "{namespace} {path}");
    }
    for path in ["../team-b", "/etc", "a/../b", "./a", "a/.", ".."] {
        assert_eq!(open(&cluster(), path, &settings).err().unwrap().reason, Reason::InvalidSpec, "{path}");
    }
    let off = Settings { file_tree_root: None, file_root: Some(grove.root()), ..settings };
    assert_eq!(open(&cluster(), "config", &off).err().unwrap().reason, Reason::NotAllowed);
}

#[tokio::test]
async fn a_change_is_hinted_by_its_keys_and_reading_is_none() {
    let grove = Grove::new();
    let config = grove.open("config");
    let mut hints = config.changes().unwrap();
    let mut hinted = async || tokio::time::timeout(PATIENCE, hints.next()).await.unwrap().unwrap();
    let keys = |names: &[&str]| Hint::Keys(names.iter().map(|name| key(name)).collect::<BTreeSet<_>>());
    word(&config, "app/db.yaml").await;
    grove.put("config/app/db.yaml", "password: 2");
    assert_eq!(hinted().await, keys(&["app/db.yaml"]));
    fs::remove_file(grove.at("config/bytes.bin")).unwrap();
    assert_eq!(hinted().await, keys(&["bytes.bin"]));
    swap(&grove.at("config/app/.env"), "A=2");
    assert_eq!(hinted().await, keys(&["app/.env"]));
    fs::rename(grove.at("config"), grove.at("moved")).unwrap();
    assert_eq!(hinted().await, Hint::All);
}

fn swap(path: &Path, text: &str) {
    // Beside the tree: a draft in it would be a change of its own.
    let draft = path.ancestors().nth(3).unwrap().join("draft");
    fs::write(&draft, text).unwrap();
    fs::set_permissions(&draft, fs::Permissions::from_mode(0o644)).unwrap();
    fs::rename(draft, path).unwrap();
}
