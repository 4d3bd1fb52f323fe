//! The provider as the engine uses it: where it may read, what its readings are, and when it hints.

use std::{fs, os::unix::fs::PermissionsExt, sync::Arc, time::Duration};

use futures::StreamExt;

use super::{Shop, eventful};
use crate::{
    backend::{
        Backend, Credentials, Settings,
        file::{self, Changes, Kind, Status},
    },
    crd::v1alpha1::FileProvider,
    fault::{Class, Fault, Reason},
    item::Reading,
    name::{ProviderKind, RemoteKey, RemoteRef, StoreName},
    secret::SecretValue,
};

/// Ends a test that would hang; no assertion depends on it.
const PATIENCE: Duration = Duration::from_secs(60);

fn settings(shop: &Shop) -> Settings {
    Settings {
        file_root: Some(shop.folder.path().to_owned()),
        file_master_key: Some(shop.key()),
        call_timeout: PATIENCE,
        ..Settings::default()
    }
}

fn cluster() -> StoreName {
    StoreName::Cluster { name: "vaulted".to_owned() }
}

fn namespaced(namespace: &str) -> StoreName {
    StoreName::Namespaced { namespace: namespace.to_owned(), name: "vaulted".to_owned() }
}

fn open(store: &StoreName, path: &str, settings: &Settings) -> Result<Arc<dyn Backend>, Fault> {
    file::open(store, &FileProvider { path: path.to_owned(), format: None, decryption: None }, &Credentials::default(), settings)
}

fn backend(shop: &Shop) -> Arc<dyn Backend> {
    open(&cluster(), "store.kfs", &settings(shop)).unwrap()
}

fn wanted(key: &str, version: Option<&str>) -> RemoteRef {
    RemoteRef { key: RemoteKey::parse(ProviderKind::File, key).unwrap(), version: version.map(str::to_owned), is_metadata: false }
}

async fn read(backend: &Arc<dyn Backend>, key: &str, version: Option<&str>) -> Reading {
    backend.fetch(&[wanted(key, version)]).await.remove(0)
}

/// A reading in a word.
fn word(reading: &Reading) -> String {
    match reading {
        Reading::Found(found) => {
            format!("{} at {}", String::from_utf8_lossy(found.value.expose()), found.version.as_deref().unwrap_or("none"))
        }
        Reading::Absent(fault) => format!("absent {}", fault.reason),
        Reading::Unknown(fault) => format!("unknown {}", fault.reason),
    }
}

#[tokio::test]
async fn metadata_is_what_is_known_about_a_secret_whatever_its_state() {
    let shop = eventful();
    let tags = [("team".to_owned(), Some("shop".to_owned()))].into();
    let changes = Changes { status: Some(Status::Disabled), owner: Some("ada".to_owned()), tags, ..Changes::default() };
    shop.writer().edit("db/password", &changes).unwrap();
    let backend = backend(&shop);
    let about = |key: &str| RemoteRef { is_metadata: true, ..wanted(key, None) };
    let readings = backend.fetch(&[about("db/password"), wanted("db/password", None), about("gone"), about("never")]).await;
    let expected = r#"{"owner":"ada","status":"disabled","tags":{"team":"shop"},"type":"opaque"} at none"#;
    let gone = r#"{"status":"active","type":"opaque"} at none"#;
    assert_eq!(readings.iter().map(word).collect::<Vec<_>>(), [expected, "absent Disabled", gone, "absent NotFound"]);
}

#[tokio::test]
async fn each_reference_of_a_batch_gets_its_own_reading() {
    let shop = eventful();
    let cases = [
        ("db/password", None, "two at 2"),
        ("gone", None, "absent Deleted"),
        ("db/password", Some("1"), "one at 1"),
        ("never", None, "absent NotFound"),
        ("db/password", Some("3"), "absent NotFound"),
        ("db/password", Some("0"), "unknown InvalidSpec"),
        ("db/password", Some("01"), "unknown InvalidSpec"),
        ("db/password", Some("latest"), "unknown InvalidSpec"),
        ("never", Some("1"), "absent NotFound"),
    ];
    let refs: Vec<_> = cases.iter().map(|(key, version, _)| wanted(key, *version)).collect();
    let readings: Vec<_> = backend(&shop).fetch(&refs).await.iter().map(word).collect();
    assert_eq!(readings, cases.map(|(_, _, expected)| expected));
}

#[tokio::test]
async fn a_list_has_what_is_below_a_path_and_also_what_is_withheld() {
    let shop = eventful();
    shop.writer().edit("app/newest", &Changes { status: Some(Status::Disabled), ..Changes::default() }).unwrap();
    shop.set("db", "x");
    shop.set("db/user/name", "x");
    shop.set("dbs", "x");
    let backend = backend(&shop);
    for (path, expected) in [
        (None, &["app/newest", "db", "db/password", "db/user/name", "dbs", "gone"][..]),
        (Some("db"), &["db/password", "db/user/name"]),
        (Some("gone"), &[]),
    ] {
        let names = backend.lister().unwrap().list(path).await.unwrap();
        assert_eq!(names.iter().map(RemoteKey::as_str).collect::<Vec<_>>(), expected, "{path:?}");
    }
    for (key, expected) in [("gone", "absent Deleted"), ("app/newest", "absent Disabled")] {
        assert_eq!(word(&read(&backend, key, None).await), expected, "{key}");
    }
}

#[tokio::test]
async fn a_search_by_tags_finds_what_has_all_of_them() {
    let shop = eventful();
    let tag = |key: &str, value: &str| (key.to_owned(), Some(value.to_owned()));
    let writer = shop.writer();
    let both = Changes { owner: Some("me".into()), tags: [tag("tier", "1"), tag("zone", "a")].into(), ..Changes::default() };
    writer.edit("db/password", &both).unwrap();
    writer.edit("gone", &Changes { tags: [tag("tier", "1")].into(), ..Changes::default() }).unwrap();
    drop(writer);
    let backend = backend(&shop);
    for (tags, path, expected) in [
        (&[("tier", "1")][..], None, &["db/password", "gone"][..]),
        (&[("tier", "1"), ("zone", "a"), ("owner", "me")], None, &["db/password"]),
        (&[("tier", "1")], Some("db"), &["db/password"]),
        (&[("tier", "2")], None, &[]),
        (&[("type", "opaque")], Some("app"), &["app/newest"]),
    ] {
        let tags = tags.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let names = backend.lister().unwrap().list_tagged(path, &tags).await.unwrap();
        assert_eq!(names.iter().map(RemoteKey::as_str).collect::<Vec<_>>(), expected, "{tags:?}");
    }
}

#[tokio::test]
async fn a_named_type_marks_its_values_as_secrets() {
    let shop = eventful();
    let backend = backend(&shop);
    let marked = async || match read(&backend, "db/password", None).await {
        Reading::Found(found) => found.is_secret,
        other => panic!("{other:?}"),
    };
    assert!(!marked().await, "nothing is known of opaque bytes");
    for (kind, expected) in
        [(Kind::DatabasePassword, true), (Kind::EnvironmentVariable, false), (Kind::ApiKey, true), (Kind::Opaque, false)]
    {
        shop.writer().edit("db/password", &Changes { kind: Some(kind), ..Changes::default() }).unwrap();
        assert_eq!(marked().await, expected, "{kind}");
    }
}

#[tokio::test]
async fn a_store_with_a_new_master_key_is_not_ready_until_the_operator_has_it() {
    let (shop, other) = (eventful(), Shop::new());
    let backend = backend(&shop);
    let mut hints = backend.changes().unwrap();
    let mut hinted = async || tokio::time::timeout(PATIENCE, hints.next()).await.unwrap().unwrap();
    let place = file::Place::path;
    file::rekey(&place(&shop.file()), &place(&shop.key()), &place(&other.key())).unwrap();
    hinted().await;
    let Reading::Unknown(fault) = read(&backend, "db/password", None).await else { panic!("a value under another key") };
    assert_eq!(fault.reason, Reason::StoreNotReady);
    assert!(!fault.detail.contains(&*shop.folder.path().to_string_lossy()), "{fault}");
    fs::copy(other.key(), shop.folder.path().join("new.key")).unwrap();
    fs::rename(shop.folder.path().join("new.key"), shop.key()).unwrap();
    hinted().await;
    assert_eq!(word(&read(&backend, "db/password", None).await), "two at 2");
}

type Spoil = fn(&Shop);

#[tokio::test]
async fn what_cannot_be_opened_is_unknown_and_so_is_its_list() {
    let shop = eventful();
    let backend = backend(&shop);
    let spoilt: [(&str, Spoil, &str); 5] = [
        ("no store", |shop| fs::write(shop.file(), "text").unwrap(), "ProviderUnavailable"),
        ("readable by others", |shop| fs::set_permissions(shop.file(), fs::Permissions::from_mode(0o644)).unwrap(), "StoreNotReady"),
        ("missing", |shop| fs::remove_file(shop.file()).unwrap(), "StoreNotReady"),
        ("a folder", |shop| fs::create_dir(shop.file()).unwrap(), "StoreNotReady"),
        ("key missing", |shop| fs::remove_file(shop.key()).unwrap(), "StoreNotReady"),
    ];
    for (what, spoil, reason) in spoilt {
        spoil(&shop);
        for key in ["db/password", "gone", "never"] {
            let reading = read(&backend, key, None).await;
            assert_eq!(word(&reading), format!("unknown {reason}"), "{what}");
            let Reading::Unknown(fault) = reading else { unreachable!() };
            assert_eq!(fault.class, Class::Unavailable, "{what}: looked at again, and no absence");
            assert!(
                !fault.detail.contains(&*shop.folder.path().to_string_lossy()),
                "{what} tells tenants the admin's path: {}",
                fault.detail
            );
        }
        assert!(backend.lister().unwrap().list(None).await.is_err(), "{what}: an empty list would look like deletions");
    }
}

#[tokio::test]
async fn a_namespaced_store_has_its_own_folder_and_only_where_the_operator_allows_it() {
    let shop = eventful();
    let mut settings = settings(&shop);
    let refused = open(&namespaced("team-a"), "store.kfs", &settings).err().unwrap();
    assert_eq!((refused.class, refused.reason), (Class::Denied, Reason::NotAllowed));

    settings.file_namespaced = true;
    for namespace in ["team-a", "team-b"] {
        fs::create_dir(shop.folder.path().join(namespace)).unwrap();
    }
    fs::copy(shop.file(), shop.folder.path().join("team-a/store.kfs")).unwrap();
    let readings = [("team-a", "two at 2"), ("team-b", "unknown StoreNotReady"), ("no-folder", "unknown StoreNotReady")];
    for (namespace, expected) in readings {
        let backend = open(&namespaced(namespace), "store.kfs", &settings).unwrap();
        assert_eq!(word(&read(&backend, "db/password", None).await), expected, "{namespace}");
    }
    std::os::unix::fs::symlink("../team-a/store.kfs", shop.folder.path().join("team-b/link.kfs")).unwrap();
    let backend = open(&namespaced("team-b"), "link.kfs", &settings).unwrap();
    assert_eq!(word(&read(&backend, "db/password", None).await), "unknown StoreNotReady");
}

#[test]
fn a_path_that_climbs_and_a_provider_that_is_off_are_refused_at_once() {
    let shop = Shop::new();
    for path in ["../store.kfs", "a/../../b", "/etc/store.kfs", "./store.kfs", "a//b", "a/", "..", "a\0b"] {
        let refused = open(&cluster(), path, &settings(&shop)).err().unwrap_or_else(|| panic!("{path:?} is taken"));
        assert_eq!(refused.reason, Reason::InvalidSpec, "{path:?}");
        assert!(refused.detail.contains("provider.file.path"), "{}", refused.detail);
    }
    for off in [Settings { file_root: None, ..settings(&shop) }, Settings { file_master_key: None, ..settings(&shop) }] {
        let refused = open(&cluster(), "store.kfs", &off).err().unwrap();
        assert_eq!(refused.reason, Reason::NotAllowed);
    }
}

#[tokio::test]
async fn a_change_a_replacement_and_a_return_are_hinted_and_the_next_look_sees_them() {
    let shop = eventful();
    let backend = backend(&shop);
    let mut hints = backend.changes().unwrap();
    let mut hinted = async || tokio::time::timeout(PATIENCE, hints.next()).await.unwrap().unwrap();

    shop.set("db/password", "three");
    hinted().await;
    assert_eq!(word(&read(&backend, "db/password", None).await), "three at 3");

    let replacement = eventful();
    fs::copy(replacement.key(), shop.key()).unwrap();
    fs::copy(replacement.file(), shop.folder.path().join("new.kfs")).unwrap();
    fs::rename(shop.folder.path().join("new.kfs"), shop.file()).unwrap();
    hinted().await;
    // The key and the file may be seen one after the other.
    assert_eq!(word(&read(&backend, "db/password", None).await), "two at 2");

    fs::remove_file(shop.file()).unwrap();
    hinted().await;
    assert_eq!(word(&read(&backend, "db/password", None).await), "unknown StoreNotReady");
}

#[test]
fn reading_changes_nothing_that_would_be_hinted_and_each_write_does() {
    let shop = eventful();
    let place = file::Place::path(&shop.file());
    let before = place.stamp();
    shop.reader().unwrap().names().unwrap();
    shop.get("db/password", None).unwrap();
    assert!(before.is_some() && place.stamp() == before, "a reading looks like a change");
    let mut stamps = vec![before];
    for number in 0..8 {
        shop.set("db/password", &number.to_string());
        stamps.push(place.stamp());
    }
    assert!(stamps.windows(2).all(|pair| pair[0] != pair[1]), "a write looks like none");
}

#[tokio::test]
async fn what_a_killed_writer_left_is_mended_by_the_next_look() {
    let shop = eventful();
    let writer = shop.writer();
    writer.set("db/password", &SecretValue::from("three".to_owned()), None).unwrap();
    let left = fs::read(shop.file()).unwrap();
    drop(writer);
    fs::write(shop.file(), left).unwrap();
    assert_eq!(word(&read(&backend(&shop), "db/password", None).await), "three at 3");
}

#[tokio::test]
async fn a_store_that_another_holds_is_unknown_until_it_lets_go() {
    let shop = eventful();
    let other = fs::OpenOptions::new().read(true).write(true).open(shop.file()).unwrap();
    other.lock().unwrap();
    let impatient = Settings { call_timeout: Duration::from_millis(200), ..settings(&shop) };
    let backend = open(&cluster(), "store.kfs", &impatient).unwrap();
    for _ in 0..3 {
        assert_eq!(word(&read(&backend, "db/password", None).await), "unknown ProviderUnavailable");
    }
    drop(other);
    let reads = async { while word(&read(&backend, "db/password", None).await) != "two at 2" {} };
    tokio::time::timeout(PATIENCE, reads).await.expect("the store is read once it is free");
}
