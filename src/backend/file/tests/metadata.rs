//! What is known about a secret: it is bound to what is sealed, decides about reading, and survives everything that a value survives.

use jiff::{SignedDuration, Timestamp};
use redb::TableDefinition;

use super::{Shop, damage, eventful, text};
use crate::{
    backend::file::{About, Changes, Kind, New, Place, Reader, Status, StoreError, backup, rekey, restore},
    secret::SecretValue,
};

fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

fn status(status: Status) -> Changes {
    Changes { status: Some(status), ..Changes::default() }
}

fn kind(kind: Kind) -> Changes {
    Changes { kind: Some(kind), ..Changes::default() }
}

fn expires(moment: Timestamp) -> Changes {
    Changes { expires: Some(New::Is(moment)), ..Changes::default() }
}

fn put(shop: &Shop, key: &str, value: &str, changes: &Changes) -> Result<u64, StoreError> {
    shop.writer().set_described(key, &SecretValue::from(value.to_owned()), None, changes, now())
}

fn about(shop: &Shop, key: &str) -> About {
    shop.reader().unwrap().describe(key).unwrap().0.about
}

fn records(shop: &Shop) -> Vec<Vec<u8>> {
    damage::records(shop).into_iter().map(|(_, bytes)| bytes).collect()
}

fn format(shop: &Shop) -> Option<Vec<u8>> {
    damage::meta(shop, "format")
}

#[test]
fn a_status_and_an_expiry_decide_about_every_version_and_give_it_back() {
    let shop = eventful();
    let read = |version, at| shop.reader().unwrap().get_at("db/password", version, at).map(|(value, _)| text(&value));
    for withheld in [Status::Disabled, Status::Revoked] {
        shop.writer().edit("db/password", &status(withheld)).unwrap();
        for version in [None, Some(1), Some(2)] {
            let refused = read(version, now()).unwrap_err();
            assert!(
                matches!(
                    (&refused, withheld),
                    (StoreError::Disabled { .. }, Status::Disabled) | (StoreError::Revoked { .. }, Status::Revoked)
                ),
                "{refused}"
            );
        }
        assert!(matches!(read(Some(9), now()), Err(StoreError::NoVersion { .. })), "what does not exist is not withheld");
    }
    for read_again in [Status::Deprecated, Status::Active] {
        shop.writer().edit("db/password", &status(read_again)).unwrap();
        assert_eq!(read(None, now()).unwrap(), "two");
    }
    shop.writer().edit("db/password", &expires(now())).unwrap();
    let second = SignedDuration::from_secs(1);
    assert_eq!(read(None, now() - second).unwrap(), "two");
    for at in [now(), now() + second] {
        assert!(matches!(read(Some(1), at), Err(StoreError::Expired { expires, .. }) if expires == now()), "{at}");
    }
}

#[test]
fn a_new_value_that_nobody_could_read_is_refused_unless_it_is_meant() {
    let shop = eventful();
    shop.writer().edit("db/password", &expires(now())).unwrap();
    assert!(matches!(put(&shop, "db/password", "three", &Changes::default()), Err(StoreError::StillExpired { .. })));
    assert_eq!(put(&shop, "db/password", "three", &Changes { expires: Some(New::Never), ..Changes::default() }).unwrap(), 3);
    shop.writer().edit("db/password", &status(Status::Revoked)).unwrap();
    assert!(matches!(put(&shop, "db/password", "four", &Changes::default()), Err(StoreError::StillWithheld { .. })));
    assert_eq!(put(&shop, "db/password", "four", &status(Status::Revoked)).unwrap(), 4);
    assert_eq!(put(&shop, "db/password", "five", &status(Status::Active)).unwrap(), 5);
    assert_eq!(shop.get("db/password", None).unwrap(), "five");
}

#[test]
fn a_value_without_the_form_of_its_type_is_refused_and_nothing_of_it_is_told() {
    let shop = eventful();
    let refused = put(&shop, "app/token", "canary but no token", &kind(Kind::Jwt)).unwrap_err().to_string();
    assert!(
        refused.contains("jwt") && refused.contains("three parts") && refused.contains("opaque") && !refused.contains("canary"),
        "{refused}"
    );
    assert!(matches!(shop.get("app/token", None), Err(StoreError::NoKey { .. })));
    assert_eq!(put(&shop, "app/token", "canary but no token", &kind(Kind::Opaque)).unwrap(), 1);
    assert!(matches!(shop.writer().edit("app/token", &kind(Kind::Jwt)), Err(StoreError::WrongForm { kind: Kind::Jwt })));
    assert_eq!(about(&shop, "app/token").kind, Kind::Opaque);
}

#[test]
fn a_new_type_seals_every_version_anew_and_the_type_stays_with_what_comes() {
    let shop = eventful();
    let before = records(&shop);
    shop.writer().edit("db/password", &kind(Kind::DatabasePassword)).unwrap();
    let after = records(&shop);
    assert_eq!(before.iter().filter(|record| after.contains(record)).count(), before.len() - 2, "both versions, and no other key's");
    assert_eq!((shop.get("db/password", Some(1)).unwrap(), shop.get("db/password", None).unwrap()), ("one".into(), "two".into()));
    assert!(matches!(put(&shop, "db/password", "line\n", &Changes::default()), Err(StoreError::WrongForm { .. })));
    assert_eq!(put(&shop, "db/password", "line\n", &kind(Kind::Opaque)).unwrap(), 3);
    assert_eq!((shop.get("db/password", Some(1)).unwrap(), shop.get("db/password", None).unwrap()), ("one".into(), "line\n".into()));
}

#[test]
fn what_only_changes_words_leaves_the_values_alone() {
    let shop = eventful();
    let before = records(&shop);
    shop.writer().edit("db/password", &Changes { owner: Some("team-a".into()), ..Changes::default() }).unwrap();
    assert_eq!(records(&shop), before);
    assert_eq!(about(&shop, "db/password").owner.as_deref(), Some("team-a"));
    assert!(matches!(shop.writer().edit("never", &status(Status::Active)), Err(StoreError::NoKey { .. })));
    assert!(shop.reader().unwrap().names().unwrap().iter().all(|name| name.key != "never"));
}

#[test]
fn metadata_stands_nowhere_in_the_clear_and_a_store_with_it_has_the_second_format() {
    let shop = eventful();
    let first = Some(1u32.to_be_bytes().to_vec());
    assert_eq!(format(&shop), first, "what has no metadata is read by builds that know none");
    shop.writer().edit("db/password", &Changes { owner: Some("telling-owner".into()), ..Changes::default() }).unwrap();
    assert_eq!(format(&shop), Some(2u32.to_be_bytes().to_vec()));
    let bytes = std::fs::read(shop.file()).unwrap();
    assert!(!bytes.windows(13).any(|window| window == b"telling-owner"));
    // A number that was put back hides no mark: what is read is the same.
    shop.writer().edit("db/password", &status(Status::Disabled)).unwrap();
    damage::put(&shop, TableDefinition::<&str, &[u8]>::new("meta"), "format", first.as_deref());
    assert!(matches!(shop.get("db/password", None), Err(StoreError::Disabled { .. })));
}

#[test]
fn a_rekey_a_backup_and_a_restore_keep_values_metadata_and_marks() {
    let shop = eventful();
    put(&shop, "db/password", "three", &Changes { owner: Some("team-a".into()), kind: Some(Kind::DatabasePassword), ..Changes::default() })
        .unwrap();
    let everything = |file: &std::path::Path, key: &std::path::Path| {
        let mut reader = Reader::open(&Place::path(file), &Place::path(key)).unwrap();
        let names = reader.names().unwrap();
        let values: Vec<_> = names
            .iter()
            .map(|name| (1..=name.version).map(|at| super::word(reader.get(&name.key, Some(at)))).collect::<Vec<_>>())
            .collect();
        (names, values)
    };
    let before = everything(&shop.file(), &shop.key());
    let (store, old, other) = (Place::path(&shop.file()), Place::path(&shop.key()), Shop::new());
    let new = Place::path(&other.key());
    let copy = shop.folder.path().join("backup.kfs");
    assert_eq!(backup(&store, &old, &copy).unwrap(), 5);
    assert!(matches!(backup(&store, &old, &copy), Err(StoreError::Exists { .. })));

    let held = shop.writer();
    assert_eq!(rekey(&store, &old, &new).unwrap(), Some(5));
    assert_eq!(rekey(&store, &old, &new).unwrap(), None);
    assert!(matches!(shop.reader().err(), Some(StoreError::WrongKey { .. })));
    assert!(
        matches!(held.set("db/password", &SecretValue::from("lost".to_owned()), None), Err(StoreError::WrongKey { .. })),
        "a writer from before"
    );
    drop(held);
    assert_eq!(everything(&shop.file(), &other.key()), before);
    assert!(damage::records(&shop).iter().all(|(slot, _)| !damage::slots_of(&copy).contains(slot)), "names are hidden by another key");

    assert!(matches!(restore(&Place::path(&copy), &shop.file(), &new, true), Err(StoreError::WrongKey { .. })));
    assert!(matches!(restore(&Place::path(&copy), &other.file(), &old, true), Err(StoreError::WrongKey { .. })));
    let elsewhere = shop.folder.path().join("restored.kfs");
    assert_eq!(restore(&Place::path(&copy), &elsewhere, &old, false).unwrap().versions, 5);
    assert_eq!(everything(&elsewhere, &shop.key()), before);
    let writer = super::Writer::open(&Place::path(&elsewhere), &old).unwrap();
    writer.set("since", &SecretValue::from("then".to_owned()), None).unwrap();
    assert!(matches!(restore(&Place::path(&copy), &elsewhere, &old, false), Err(StoreError::NotEmpty { .. })));
    assert!(restore(&Place::path(&copy), &elsewhere, &old, true).unwrap().replaced);
    assert_eq!(everything(&elsewhere, &shop.key()), before);
}

#[test]
fn a_damaged_backup_touches_nothing() {
    let (shop, target) = (eventful(), Shop::new());
    std::fs::copy(shop.key(), target.key()).unwrap();
    std::fs::remove_file(target.file()).unwrap();
    super::create(&target.file(), &super::MasterKey::read(&Place::path(&target.key())).unwrap()).unwrap();
    let copy = shop.folder.path().join("backup.kfs");
    backup(&Place::path(&shop.file()), &Place::path(&shop.key()), &copy).unwrap();
    let (mut bytes, before) = (std::fs::read(&copy).unwrap(), std::fs::read(target.file()).unwrap());
    let record = records(&shop).into_iter().next().unwrap();
    let at = bytes.windows(record.len()).position(|window| window == record).unwrap();
    bytes[at + record.len() - 1] ^= 1;
    std::fs::write(&copy, bytes).unwrap();
    let refused = restore(&Place::path(&copy), &target.file(), &Place::path(&target.key()), true).unwrap_err();
    assert!(matches!(refused, StoreError::Damaged { .. }), "{refused}");
    assert_eq!(std::fs::read(target.file()).unwrap(), before);
}
