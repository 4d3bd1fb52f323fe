//! Files that something else has changed: each reading says what it said before, or that it does not know. Never absence, never another value.

use std::{fs, os::unix::fs::FileExt, path::Path};

use redb::{Builder, ConcurrencyMode, ReadableDatabase, ReadableTable, TableDefinition};

use super::{ASKED, Shop, UNKNOWN, eventful, readings};
use crate::{
    backend::file::{Place, Writer},
    secret::SecretValue,
};

/// What each reading may say once the file was tampered with: what it said before, or that it does not know.
fn assert_true_or_unknown(shop: &Shop, before: &[String], what: &str) {
    for (((key, version), now), before) in ASKED.iter().zip(readings(shop)).zip(before) {
        assert!(now == *before || now == UNKNOWN, "{what}: {key} {version:?} reads {now:?} and not {before:?}");
    }
}

const PAGE: usize = 4096;

/// The pages on which any of the readings depends: the others hold what earlier changes left.
fn live_pages(shop: &Shop, bytes: &[u8], before: &[String]) -> Vec<usize> {
    let file = fs::OpenOptions::new().write(true).open(shop.file()).unwrap();
    (0..bytes.len() / PAGE)
        .filter(|page| {
            let at = page * PAGE;
            let flipped: Vec<u8> = bytes[at..at + PAGE].iter().map(|byte| !byte).collect();
            file.write_all_at(&flipped, at as u64).unwrap();
            assert_true_or_unknown(shop, before, &format!("all of page {page} flipped"));
            let live = readings(shop) != before;
            file.write_all_at(&bytes[at..at + PAGE], at as u64).unwrap();
            live
        })
        .collect()
}

#[test]
fn no_flipped_byte_makes_a_key_absent_or_another() {
    let shop = eventful();
    let (bytes, before) = (fs::read(shop.file()).unwrap(), readings(&shop));
    let pages = live_pages(&shop, &bytes, &before);
    assert!(pages.len() >= 6, "head, four tables and the table of tables are read: {pages:?}");
    let file = fs::OpenOptions::new().write(true).open(shop.file()).unwrap();
    for at in pages.iter().flat_map(|page| page * PAGE..(page + 1) * PAGE) {
        // Every bit of the container's head, which decides what is read at all. Elsewhere one bit of each byte where a page says what
        // is where, and of every third byte of what it holds: there all bytes are alike.
        let bits = match at {
            0..320 => 0..8,
            _ if at % PAGE < 128 || at % 3 == 0 => at % 8..at % 8 + 1,
            _ => 0..0,
        };
        for bit in bits {
            file.write_all_at(&[bytes[at] ^ (1 << bit)], at as u64).unwrap();
            assert_true_or_unknown(&shop, &before, &format!("bit {bit} of byte {at} flipped"));
        }
        file.write_all_at(&bytes[at..=at], at as u64).unwrap();
    }
    assert_eq!(readings(&shop), before);
}

#[test]
fn no_page_put_in_place_of_another_makes_a_key_absent_or_another() {
    let shop = eventful();
    let (bytes, before) = (fs::read(shop.file()).unwrap(), readings(&shop));
    let pages = live_pages(&shop, &bytes, &before);
    let file = fs::OpenOptions::new().write(true).open(shop.file()).unwrap();
    for page in pages {
        for other in bytes.chunks(PAGE) {
            file.write_all_at(other, (page * PAGE) as u64).unwrap();
            assert_true_or_unknown(&shop, &before, &format!("page {page} replaced"));
        }
        file.write_all_at(&bytes[page * PAGE..][..PAGE], (page * PAGE) as u64).unwrap();
    }
}

#[test]
fn a_file_cut_off_anywhere_is_unknown() {
    let shop = eventful();
    let (bytes, before) = (fs::read(shop.file()).unwrap(), readings(&shop));
    for length in (0..bytes.len()).step_by(512) {
        fs::write(shop.file(), &bytes[..length]).unwrap();
        assert_true_or_unknown(&shop, &before, &format!("cut off at {length}"));
        let refused = Writer::open(&Place::path(&shop.file()), &Place::path(&shop.key())).err();
        assert!(refused.is_some(), "a writer takes a file cut off at {length} for a whole one");
    }
}

#[test]
fn a_write_into_a_damaged_file_is_refused_or_loses_nothing() {
    let shop = eventful();
    let (bytes, before) = (fs::read(shop.file()).unwrap(), readings(&shop));
    for at in live_pages(&shop, &bytes, &before).iter().flat_map(|page| (page * PAGE..(page + 1) * PAGE).step_by(131)) {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << (at % 8);
        fs::write(shop.file(), &flipped).unwrap();
        let written = Writer::open(&Place::path(&shop.file()), &Place::path(&shop.key()))
            .and_then(|writer| writer.set("after", &SecretValue::from("five".to_owned()), None));
        assert_true_or_unknown(&shop, &before, &format!("byte {at} flipped, then written"));
        if written.is_ok() {
            assert_eq!(shop.get("after", None).unwrap(), "five", "acknowledged with byte {at} flipped");
        }
    }
}

#[test]
fn no_flipped_bit_brings_back_what_was_before_the_change_of_a_killed_writer() {
    let shop = eventful();
    let writer = shop.writer();
    writer.set("app/newest", &SecretValue::from("five".to_owned()), None).unwrap();
    writer.set("db/password", &SecretValue::from("six".to_owned()), None).unwrap();
    // Copied while the writer lives: what a killed one leaves.
    let (left, before) = (fs::read(shop.file()).unwrap(), readings(&shop));
    drop(writer);
    for (at, bit) in (0..8).map(|bit| (9, bit)).chain((0..320).map(|at| (at, at % 8))) {
        let mut flipped = left.clone();
        flipped[at] ^= 1 << bit;
        fs::write(shop.file(), &flipped).unwrap();
        assert_true_or_unknown(&shop, &before, &format!("bit {bit} of byte {at} flipped"));
    }
    fs::write(shop.file(), &left).unwrap();
    assert_eq!(readings(&shop), before, "without a flip the file is mended and read");
}

const INDEX: TableDefinition<u64, &[u8]> = TableDefinition::new("index");
const WITNESS: TableDefinition<u64, &[u8]> = TableDefinition::new("witness");
const RECORDS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("records");

fn container(file: impl AsRef<Path>) -> redb::Database {
    Builder::new().set_concurrency_mode(ConcurrencyMode::MultiWriter).open(file).unwrap()
}

pub fn put<K: redb::Key + 'static>(shop: &Shop, table: TableDefinition<K, &[u8]>, key: K::SelfType<'_>, bytes: Option<&[u8]>) {
    let database = container(shop.file());
    let change = database.begin_write().unwrap();
    {
        let mut table = change.open_table(table).unwrap();
        match bytes {
            Some(bytes) => drop(table.insert(key, bytes).unwrap()),
            None => drop(table.remove(key).unwrap()),
        }
    }
    change.commit().unwrap();
}

/// A row of the head, as it stands in the open.
pub fn meta(shop: &Shop, name: &str) -> Option<Vec<u8>> {
    let database = container(shop.file());
    let state = database.begin_read().unwrap();
    let table = state.open_table(TableDefinition::<&str, &[u8]>::new("meta")).unwrap();
    table.get(name).unwrap().map(|bytes| bytes.value().to_vec())
}

pub fn records(shop: &Shop) -> Vec<(Vec<u8>, Vec<u8>)> {
    records_of(&shop.file())
}

pub fn slots_of(file: &Path) -> Vec<Vec<u8>> {
    records_of(file).into_iter().map(|(slot, _)| slot).collect()
}

fn records_of(file: &Path) -> Vec<(Vec<u8>, Vec<u8>)> {
    let database = container(file);
    let state = database.begin_read().unwrap();
    let table = state.open_table(RECORDS).unwrap();
    table.iter().unwrap().map(|row| row.map(|(key, bytes)| (key.value().to_vec(), bytes.value().to_vec())).unwrap()).collect()
}

fn numbered_rows(shop: &Shop, table: TableDefinition<u64, &[u8]>) -> Vec<(u64, Vec<u8>)> {
    let database = container(shop.file());
    let state = database.begin_read().unwrap();
    let table = state.open_table(table).unwrap();
    table.iter().unwrap().map(|row| row.map(|(key, bytes)| (key.value(), bytes.value().to_vec())).unwrap()).collect()
}

#[test]
fn a_record_put_in_place_of_another_is_refused() {
    let shop = eventful();
    let (before, rows) = (readings(&shop), records(&shop));
    assert_eq!(rows.len(), 4);
    for (slot, own) in &rows {
        let others = rows.iter().map(|(_, record)| Some(record.as_slice())).chain([None]);
        for other in others.filter(|other| *other != Some(own)) {
            put(&shop, RECORDS, slot.as_slice(), other);
            assert_true_or_unknown(&shop, &before, "a record moved or taken out");
        }
        put(&shop, RECORDS, slot.as_slice(), Some(own));
    }
    assert_eq!(readings(&shop), before, "with every record back in its place all is as before");
}

/// A backup was written to on its own: what stands in it is sealed for the same store, names and versions.
#[test]
fn nothing_of_another_history_of_the_store_is_taken_for_its_own() {
    let (shop, fork) = (eventful(), Shop::new());
    fs::copy(shop.file(), fork.file()).unwrap();
    fs::copy(shop.key(), fork.key()).unwrap();
    shop.writer().mark_deleted("gone", None, false).unwrap();
    shop.set("db/password", "ours");
    fork.set("db/password", "theirs");
    fork.set("never", "theirs");
    fork.writer().mark_deleted("app/newest", None, true).unwrap();
    let before = readings(&shop);
    for (slot, record) in records(&fork) {
        let own = records(&shop).into_iter().find(|(own, _)| *own == slot).map(|(_, record)| record);
        put(&shop, RECORDS, slot.as_slice(), Some(&record));
        assert_true_or_unknown(&shop, &before, "a record of the fork");
        put(&shop, RECORDS, slot.as_slice(), own.as_deref());
    }
    for table in [INDEX, WITNESS] {
        let own = numbered_rows(&shop, table);
        for (slot, bytes) in numbered_rows(&fork, table) {
            put(&shop, table, slot, Some(&bytes));
            assert_true_or_unknown(&shop, &before, &format!("row {slot} of {table} of the fork"));
            put(&shop, table, slot, own.iter().find(|(own, _)| *own == slot).map(|(_, bytes)| bytes.as_slice()));
        }
        assert_eq!(readings(&shop), before);
    }
    for (slot, bytes) in numbered_rows(&fork, INDEX) {
        put(&shop, INDEX, slot, Some(&bytes));
    }
    assert_true_or_unknown(&shop, &before, "the whole index of the fork");
}
