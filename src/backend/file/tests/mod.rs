//! Tests of the file store that need more than one of its parts.

mod damage;
mod history;
mod metadata;
mod provider;
#[cfg(feature = "age")]
mod sealed;
mod tree;

use std::{
    fs,
    path::{Path, PathBuf},
};

use redb::TableDefinition;
use tempfile::TempDir;

use super::{MasterKey, Place, Reader, StoreError, Writer, create};
use crate::secret::SecretValue;

/// A store in a folder of its own.
struct Shop {
    folder: TempDir,
}

impl Shop {
    fn new() -> Self {
        let shop = Self { folder: memory() };
        MasterKey::create(&shop.key()).unwrap();
        create(&shop.file(), &MasterKey::read(&Place::path(&shop.key())).unwrap()).unwrap();
        shop
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("store.kfs")
    }

    fn key(&self) -> PathBuf {
        self.folder.path().join("master.key")
    }

    fn reader(&self) -> Result<Reader, StoreError> {
        open(&self.file(), &self.key())
    }

    fn writer(&self) -> Writer {
        Writer::open(&Place::path(&self.file()), &Place::path(&self.key())).unwrap()
    }

    fn set(&self, key: &str, value: &str) -> u64 {
        self.writer().set(key, &SecretValue::from(value.to_owned()), None).unwrap()
    }

    fn get(&self, key: &str, version: Option<u64>) -> Result<String, StoreError> {
        self.reader()?.get(key, version).map(|(value, _)| text(&value))
    }
}

/// A folder in memory where the machine has one: what survives a crash is the concern of the tests of `keyferry store`.
fn memory() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory).unwrap() } else { tempfile::tempdir().unwrap() }
}

fn open(file: &Path, key: &Path) -> Result<Reader, StoreError> {
    Reader::open(&Place::path(file), &Place::path(key))
}

fn text(value: &SecretValue) -> String {
    String::from_utf8(value.expose().to_vec()).unwrap()
}

/// A reading in a word, without its place.
fn word(reading: Result<(SecretValue, u64), StoreError>) -> String {
    match reading {
        Ok((value, version)) => format!("{version}: {}", text(&value)),
        Err(StoreError::NoKey { .. }) => "no key".to_owned(),
        Err(StoreError::NoVersion { .. }) => "no version".to_owned(),
        Err(StoreError::Deleted { .. }) => "deleted".to_owned(),
        Err(_) => UNKNOWN.to_owned(),
    }
}

const UNKNOWN: &str = "unknown";

/// Readings of a store with everything that a reading can say; the first key came with the last change.
const ASKED: [(&str, Option<u64>); 6] =
    [("app/newest", None), ("db/password", None), ("db/password", Some(1)), ("db/password", Some(9)), ("gone", None), ("never", None)];

fn eventful() -> Shop {
    let shop = Shop::new();
    shop.set("db/password", "one");
    shop.set("gone", "three");
    shop.writer().mark_deleted("gone", None, true).unwrap();
    shop.set("db/password", "two");
    shop.set("app/newest", "four");
    shop
}

fn readings(shop: &Shop) -> Vec<String> {
    match shop.reader() {
        Ok(mut reader) => ASKED.iter().map(|(key, version)| word(reader.get(key, *version))).collect(),
        Err(_) => vec![UNKNOWN.to_owned(); ASKED.len()],
    }
}

#[test]
fn a_reading_says_what_is_there() {
    let shop = eventful();
    assert_eq!(readings(&shop), ["1: four", "2: two", "1: one", "no version", "deleted", "no key"]);
    let names = shop.reader().unwrap().names().unwrap();
    let shown: Vec<_> = names.iter().map(|name| (name.key.as_str(), name.version, name.deleted)).collect();
    assert_eq!(shown, [("app/newest", 1, false), ("db/password", 2, false), ("gone", 1, true)]);
}

#[test]
fn another_master_key_is_named_and_says_nothing_about_keys() {
    let (shop, other) = (eventful(), Shop::new());
    let refused = open(&shop.file(), &other.key()).err().unwrap();
    assert!(matches!(refused, StoreError::WrongKey { .. }), "{refused}");
    let refused = Writer::open(&Place::path(&shop.file()), &Place::path(&other.key())).err().unwrap();
    assert!(matches!(refused, StoreError::WrongKey { .. }), "{refused}");
}

#[test]
fn a_store_of_another_format_is_named_with_both_numbers() {
    let shop = eventful();
    damage::put(&shop, TableDefinition::<&str, &[u8]>::new("meta"), "format", Some(&3u32.to_be_bytes()));
    for refused in [shop.reader().err(), Writer::open(&Place::path(&shop.file()), &Place::path(&shop.key())).err()] {
        let told = refused.unwrap().to_string();
        assert!(told.contains("store.kfs") && told.contains("format 3") && told.contains("format 2"), "{told}");
    }
}

#[test]
fn what_is_no_store_is_unknown_and_never_empty() {
    let shop = Shop::new();
    for content in [&b""[..], b"db/password: one\n", &vec![0; 1 << 16]] {
        fs::write(shop.file(), content).unwrap();
        assert!(matches!(shop.get("k", None), Err(StoreError::Damaged { .. })), "{} bytes", content.len());
        assert!(Writer::open(&Place::path(&shop.file()), &Place::path(&shop.key())).is_err(), "{} bytes", content.len());
        assert_eq!(fs::read(shop.file()).unwrap(), content, "a refused file is left as it is");
    }
    fs::remove_file(shop.file()).unwrap();
    assert!(matches!(shop.get("k", None), Err(StoreError::Missing { .. })));
    fs::remove_file(shop.key()).unwrap();
    assert!(matches!(shop.get("k", None), Err(StoreError::Missing { .. })));
}

#[test]
fn a_key_file_with_anything_else_is_refused() {
    let shop = eventful();
    let right = fs::read_to_string(shop.key()).unwrap();
    for text in ["", "short", &right[..right.len() - 5], &format!("{right}{right}"), &right.replace('\n', "A"), &"A".repeat(4096)] {
        fs::write(shop.key(), text).unwrap();
        let refused = shop.reader().err().unwrap();
        assert!(matches!(refused, StoreError::NotAKey { .. }), "{refused}");
        assert!(!refused.to_string().contains(&right[..8]), "the message quotes the key");
    }
    fs::write(shop.key(), right.trim_end()).unwrap();
    assert!(shop.reader().is_ok(), "a missing line end does no harm");
}

#[test]
fn a_making_never_replaces_what_is_there() {
    let shop = eventful();
    let (store, key) = (fs::read(shop.file()).unwrap(), fs::read(shop.key()).unwrap());
    let master = MasterKey::read(&Place::path(&shop.key())).unwrap();
    assert!(matches!(create(&shop.file(), &master), Err(StoreError::Exists { .. })));
    assert!(matches!(MasterKey::create(&shop.key()), Err(StoreError::Exists { .. })));
    assert_eq!((fs::read(shop.file()).unwrap(), fs::read(shop.key()).unwrap()), (store, key));
    let left: Vec<_> = fs::read_dir(shop.folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "no draft stays behind: {left:?}");
}

#[test]
fn values_of_every_size_come_back_byte_for_byte() {
    let shop = Shop::new();
    for length in [0, 1, 4095, 64 << 10, 1 << 20, super::MAX_VALUE] {
        let bytes: Vec<u8> = (0..=250).cycle().take(length).collect();
        shop.writer().set("k", &SecretValue::new(bytes.clone()), None).unwrap();
        assert_eq!(shop.reader().unwrap().get("k", None).unwrap().0.expose(), bytes, "{length} bytes");
    }
    let refused = shop.writer().set("k", &SecretValue::new(vec![0; super::MAX_VALUE + 1]), None).unwrap_err();
    assert!(matches!(refused, StoreError::TooLong { .. }), "{refused}");
}

#[test]
fn nothing_of_a_value_or_a_name_stands_in_the_file_in_the_clear() {
    let shop = Shop::new();
    shop.set("some/telling/name", "a value that nobody may see");
    let bytes = fs::read(shop.file()).unwrap();
    for text in ["telling", "nobody"] {
        assert!(!bytes.windows(text.len()).any(|window| window == text.as_bytes()), "{text}");
    }
}
