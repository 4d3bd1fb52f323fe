//! Histories of writes, by one writer and by two: the store holds what a map would hold.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{Shop, text};
use crate::{backend::file::StoreError, secret::SecretValue};

/// One write of a history.
#[derive(Clone, Debug)]
enum Write {
    Set { key: usize, value: Vec<u8>, expected: Option<u64> },
    Mark { key: usize, version: Option<u64>, deleted: bool },
}

fn writes() -> impl Strategy<Value = Write> {
    let set = (0..3usize, proptest::collection::vec(any::<u8>(), 0..40), proptest::option::of(0..4u64))
        .prop_map(|(key, value, expected)| Write::Set { key, value, expected });
    let mark =
        (0..3usize, proptest::option::of(0..4u64), any::<bool>()).prop_map(|(key, version, deleted)| Write::Mark { key, version, deleted });
    prop_oneof![3 => set, 2 => mark]
}

const KEYS: [&str; 3] = ["a", "a/b", "ü"];

/// What the store should hold: per key its versions with their mark.
type Model = BTreeMap<&'static str, Vec<(Vec<u8>, bool)>>;

fn apply_to_model(model: &mut Model, write: &Write) -> Result<u64, &'static str> {
    match write {
        Write::Set { key, value, expected } => {
            let latest = model.get(KEYS[*key]).map_or(0, Vec::len) as u64;
            if expected.is_some_and(|expected| expected != latest) {
                return Err("conflict");
            }
            model.entry(KEYS[*key]).or_default().push((value.clone(), false));
            Ok(latest + 1)
        }
        Write::Mark { key, version, deleted } => {
            let versions = model.get_mut(KEYS[*key]).ok_or("no key")?;
            let number = version.unwrap_or(versions.len() as u64);
            let at = usize::try_from(number).unwrap().checked_sub(1).ok_or("no version")?;
            versions.get_mut(at).ok_or("no version")?.1 = *deleted;
            Ok(number)
        }
    }
}

fn apply_to_store(shop: &Shop, write: &Write) -> Result<u64, &'static str> {
    let writer = shop.writer();
    let outcome = match write {
        Write::Set { key, value, expected } => writer.set(KEYS[*key], &SecretValue::new(value.clone()), *expected),
        Write::Mark { key, version, deleted } => writer.mark_deleted(KEYS[*key], *version, *deleted),
    };
    outcome.map_err(|error| match error {
        StoreError::Conflict { .. } => "conflict",
        StoreError::NoKey { .. } => "no key",
        StoreError::NoVersion { .. } => "no version",
        _ => "something else",
    })
}

fn assert_holds(shop: &Shop, model: &Model) {
    let mut reader = shop.reader().unwrap();
    let names: Vec<_> = reader.names().unwrap().into_iter().map(|name| (name.key, name.version, name.deleted)).collect();
    let expected: Vec<_> =
        model.iter().map(|(key, versions)| ((*key).to_owned(), versions.len() as u64, versions.last().unwrap().1)).collect();
    assert_eq!(names, expected);
    for (key, versions) in model {
        for (number, (value, deleted)) in (1..).zip(versions) {
            match reader.get(key, Some(number)) {
                Ok((found, version)) => assert!(!deleted && found.expose() == value && version == number, "{key} {number}"),
                Err(error) => assert!(*deleted && matches!(error, StoreError::Deleted { .. }), "{key} {number}: {error}"),
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_history_of_writes_leaves_what_a_map_would_hold(history in proptest::collection::vec(writes(), 1..16)) {
        let (shop, mut model) = (Shop::new(), Model::new());
        for write in &history {
            prop_assert_eq!(apply_to_store(&shop, write), apply_to_model(&mut model, write), "{:?}", write);
        }
        assert_holds(&shop, &model);
    }
}

/// Counts a shared key up by compare-and-set, and writes a key of its own as often.
fn count_up(shop: &Shop, own: &str, times: u64) {
    for number in 1..=times {
        shop.set(own, &number.to_string());
        loop {
            let latest = shop.reader().unwrap().versions("shared").map_or(0, |versions| versions.len() as u64);
            match shop.writer().set("shared", &SecretValue::from((latest + 1).to_string()), Some(latest)) {
                Ok(_) => break,
                Err(StoreError::Conflict { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }
}

#[test]
fn two_writers_lose_nothing_and_a_reader_beside_them_sees_whole_changes() {
    const TIMES: u64 = 12;
    let shop = Shop::new();
    std::thread::scope(|scope| {
        let writers = [scope.spawn(|| count_up(&shop, "one", TIMES)), scope.spawn(|| count_up(&shop, "two", TIMES))];
        let mut seen = 0;
        while !writers.iter().all(std::thread::ScopedJoinHandle::is_finished) {
            match shop.reader().unwrap().get("shared", None) {
                Ok((value, version)) => {
                    assert_eq!(text(&value), version.to_string(), "a value of another version");
                    assert!(version >= seen, "went back from {seen} to {version}");
                    seen = version;
                }
                Err(error) => assert!(matches!(error, StoreError::NoKey { .. }) && seen == 0, "{error}"),
            }
        }
    });
    assert_eq!(shop.get("shared", None).unwrap(), (2 * TIMES).to_string());
    for own in ["one", "two"] {
        assert_eq!(shop.get(own, None).unwrap(), TIMES.to_string());
        assert_eq!(shop.reader().unwrap().versions(own).unwrap().len() as u64, TIMES);
    }
}
