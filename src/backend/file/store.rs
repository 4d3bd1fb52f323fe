//! One store file: opening it, reading from one consistent state of it, and writing to it so that what was acknowledged stays.
//!
//! The container is a redb file that several processes share: readers see whole commits, one writer writes at a time. It is not
//! trusted: everything read from it is checked against the sealed index, and a panic in it is damage of the file.

use std::{
    cell::Cell,
    collections::HashMap,
    fs::File,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::Once,
};

use jiff::Timestamp;
use redb::{
    Builder, ConcurrencyMode, Database, ReadOnlyDatabase, ReadOnlyTable, ReadableDatabase, ReadableTable, Table, TableDefinition,
    WriteTransaction, backends::FileBackend,
};

use super::{
    about::{About, Changes, Status, Withheld},
    error::StoreError,
    index::{self, Entry, Name, Part, Root, Version},
    kind::Kind,
    place::{Access, Place},
    publish,
    seal::{Keys, MasterKey, STORE_ID, digest_of, fill},
};
use crate::secret::SecretValue;

/// Longest value that is stored: well above what a Secret can hold, so that a value that is too large for one can be seen and named.
pub const MAX_VALUE: usize = 8 << 20;

/// Without any metadata.
const FIRST_FORMAT: u32 = 1;
/// Entries may have metadata: who does not know that must not read them, one could be disabled.
const FORMAT: u32 = 2;
/// Memory for pages; the container's own default is a gigabyte.
const PAGE_CACHE: usize = 1 << 20;

pub(super) const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");
/// The root at 0, part n at n + 1.
pub(super) const INDEX: TableDefinition<u64, &[u8]> = TableDefinition::new("index");
/// The digest of the sealed root, in a table of its own: were one of the two read from an old page, they would differ.
pub(super) const WITNESS: TableDefinition<u64, &[u8]> = TableDefinition::new("witness");
pub(super) const RECORDS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("records");

/// Makes a new store, complete or not at all.
///
/// # Errors
/// [`StoreError::Exists`] when the path is taken, else what kept it from being made.
pub fn create(path: &Path, master: &MasterKey) -> Result<(), StoreError> {
    let name = path.display().to_string();
    let draft = publish::draft_beside(path)?;
    let file = draft.reopen().map_err(|error| StoreError::io(&name, "opening", &error))?;
    let mut id = [0; STORE_ID];
    fill(&mut id);
    contained(&name, || {
        let database = share(&name, file)?;
        let change = database.begin_write().map_err(at(&name))?;
        lay_out(&change, &name, &Keys::derive(master, id))?;
        change.commit().map_err(at(&name))?;
        settle(&database, &name)?;
        database.close().map_err(at(&name))
    })?;
    publish::publish(draft, path)
}

/// One consistent state of a store.
pub struct Reader {
    pub(super) place: String,
    pub(super) keys: Keys,
    pub(super) format: u32,
    pub(super) index: ReadOnlyTable<u64, &'static [u8]>,
    pub(super) records: ReadOnlyTable<&'static [u8], &'static [u8]>,
    pub(super) root: Root,
    parts: HashMap<u64, Part>,
    // Last, so that it closes after the tables that it keeps alive.
    _database: ReadOnlyDatabase,
}

impl Reader {
    /// Opens the store as it is now. If a writer was killed, the container is mended first, which takes the right to write.
    ///
    /// # Errors
    /// [`StoreError`], none of which says anything about any key.
    pub fn open(store: &Place, master: &Place) -> Result<Self, StoreError> {
        contained(store.name(), || match Self::attempt(store, master) {
            Err(StoreError::Unfinished { .. }) => {
                mend(store)?;
                Self::attempt(store, master)
            }
            answer => answer,
        })
    }

    fn attempt(store: &Place, master: &Place) -> Result<Self, StoreError> {
        let place = store.name();
        let file = store.open(Access::Read)?;
        let master = MasterKey::read(master)?;
        let backend = FileBackend::new(file).map_err(at(place))?;
        let database = builder().open_read_only_with_backend(backend).map_err(at(place))?;
        let state = database.begin_read().map_err(at(place))?;
        let (keys, format) = unlock(place, &state.open_table(META).map_err(at(place))?, &master)?;
        let index = state.open_table(INDEX).map_err(at(place))?;
        let root = read_root(place, &keys, &index, &state.open_table(WITNESS).map_err(at(place))?)?;
        let records = state.open_table(RECORDS).map_err(at(place))?;
        Ok(Self { place: place.to_owned(), keys, format, index, records, root, parts: HashMap::new(), _database: database })
    }

    /// The value of a key, of its latest version or of the one asked for, with the version's number.
    ///
    /// # Errors
    /// `NoKey`, `NoVersion`, `Deleted`, `Disabled`, `Revoked` and `Expired` are proven by the index; everything else says nothing about
    /// the key.
    pub fn get(&mut self, key: &str, version: Option<u64>) -> Result<(SecretValue, u64), StoreError> {
        self.get_at(key, version, Timestamp::now())
    }

    /// As [`Reader::get`], at another moment.
    pub fn get_at(&mut self, key: &str, version: Option<u64>, now: Timestamp) -> Result<(SecretValue, u64), StoreError> {
        self.typed(key, version, now).map(|(value, number, _)| (value, number))
    }

    /// As [`Reader::get_at`], with the type of the key.
    pub(super) fn typed(&mut self, key: &str, version: Option<u64>, now: Timestamp) -> Result<(SecretValue, u64, Kind), StoreError> {
        let place = self.place.clone();
        contained(&place, || {
            let hidden = self.keys.hide(key);
            let entry = self.entry(key, &hidden)?;
            let number = version.unwrap_or(index::latest(&entry.versions));
            let wanted =
                index::numbered(&entry.versions, number).ok_or_else(|| StoreError::NoVersion { key: key.to_owned(), version: number })?;
            if wanted.deleted {
                return Err(StoreError::Deleted { key: key.to_owned(), version: number });
            }
            refuse_withheld(key, &entry.about, now)?;
            let (digest, kind) = (wanted.record.clone(), entry.about.kind);
            let value = self.read_record(key, &hidden, number, kind, &digest)?;
            Ok((value, number, kind))
        })
    }

    /// What is known about a key besides its values, and every version of it, in order, numbered from 1.
    ///
    /// # Errors
    /// As [`Reader::get`].
    pub fn describe(&mut self, key: &str) -> Result<(Name, Vec<Version>), StoreError> {
        let place = self.place.clone();
        contained(&place, || {
            let hidden = self.keys.hide(key);
            self.entry(key, &hidden).map(|entry| (Name::of(key, entry), entry.versions.clone()))
        })
    }

    /// Every version of a key, in order, numbered from 1.
    ///
    /// # Errors
    /// As [`Reader::get`].
    pub fn versions(&mut self, key: &str) -> Result<Vec<Version>, StoreError> {
        let place = self.place.clone();
        contained(&place, || {
            let hidden = self.keys.hide(key);
            self.entry(key, &hidden).map(|entry| entry.versions.clone())
        })
    }

    /// Every name, deleted ones included, in order.
    ///
    /// # Errors
    /// [`StoreError`] when any part of the index cannot be read: half a list would look like deletions.
    pub fn names(&mut self) -> Result<Vec<Name>, StoreError> {
        let place = self.place.clone();
        contained(&place, || {
            let numbers: Vec<u64> = self.root.parts.keys().copied().collect();
            let mut names = Vec::new();
            for number in numbers {
                names.extend(self.part(number)?.names.iter().map(|(key, entry)| Name::of(key, entry)));
            }
            names.sort_by(|one, other| one.key.cmp(&other.key));
            Ok(names)
        })
    }

    fn entry(&mut self, key: &str, hidden: &[u8; 32]) -> Result<&Entry, StoreError> {
        let place = self.place.clone();
        let part = self.part(index::part_of(hidden))?;
        part.names.get(key).ok_or_else(|| StoreError::NoKey { place, key: key.to_owned() })
    }

    pub(super) fn part(&mut self, number: u64) -> Result<&Part, StoreError> {
        let Self { place, keys, index, root, parts, .. } = self;
        match parts.entry(number) {
            std::collections::hash_map::Entry::Occupied(read) => Ok(read.into_mut()),
            std::collections::hash_map::Entry::Vacant(unread) => Ok(unread.insert(read_part(place, keys, index, root, number)?)),
        }
    }

    fn read_record(&self, key: &str, hidden: &[u8; 32], version: u64, kind: Kind, digest: &str) -> Result<SecretValue, StoreError> {
        open_record(&self.place, &self.keys, &self.records, (key, hidden), (version, kind, digest))
    }
}

/// The value of a record, which must be the one that the index leads to.
pub(super) fn open_record(
    place: &str,
    keys: &Keys,
    records: &impl ReadableTable<&'static [u8], &'static [u8]>,
    (key, hidden): (&str, &[u8; 32]),
    (version, kind, digest): (u64, Kind, &str),
) -> Result<SecretValue, StoreError> {
    let record = sealed_record(place, records, &index::record_key(hidden, version), digest)?;
    let mut value = keys.open_value(key, version, kind, &record).map_err(|_| StoreError::damaged(place, "a value"))?;
    Ok(SecretValue::new(std::mem::take(&mut *value)))
}

/// The bytes of a record, which must be those that the index leads to.
pub(super) fn sealed_record(
    place: &str,
    records: &impl ReadableTable<&'static [u8], &'static [u8]>,
    slot: &[u8],
    digest: &str,
) -> Result<Vec<u8>, StoreError> {
    let record = records.get(slot).map_err(at(place))?.map(|record| record.value().to_vec());
    record.filter(|record| digest_of(record) == digest).ok_or_else(|| StoreError::damaged(place, "a value"))
}

fn refuse_withheld(key: &str, about: &About, now: Timestamp) -> Result<(), StoreError> {
    let key = key.to_owned();
    match about.withheld(now) {
        None => Ok(()),
        Some(Withheld::Disabled) => Err(StoreError::Disabled { key }),
        Some(Withheld::Revoked) => Err(StoreError::Revoked { key }),
        Some(Withheld::Expired(expires)) => Err(StoreError::Expired { key, expires }),
    }
}

/// A store opened for writing. Every method returns once its change is durable.
pub struct Writer {
    pub(super) place: String,
    pub(super) keys: Keys,
    pub(super) database: Database,
}

impl Writer {
    /// Opens the store and checks the whole container, so that nothing is written into a damaged one.
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot be opened or is damaged.
    pub fn open(store: &Place, master: &Place) -> Result<Self, StoreError> {
        let place = store.name().to_owned();
        let file = store.open(Access::ReadWrite)?;
        let master = MasterKey::read(master)?;
        contained(&place, || {
            let database = share_existing(&place, file)?;
            let state = database.begin_read().map_err(at(&place))?;
            let (keys, _) = unlock(&place, &state.open_table(META).map_err(at(&place))?, &master)?;
            Ok(Self { place: place.clone(), keys, database })
        })
    }

    /// Writes a new version of a key and returns its number. With `expected`, only if the latest version is that one; 0 is none.
    /// The value must have the form of the key's type.
    ///
    /// # Errors
    /// `Conflict`, `TooLong`, `WrongForm` and the like with nothing written, else what kept it from being durable.
    pub fn set(&self, key: &str, value: &SecretValue, expected: Option<u64>) -> Result<u64, StoreError> {
        self.set_described(key, value, expected, &Changes::default(), Timestamp::now())
    }

    /// As [`Writer::set`], with changes of what is known about the key, at this moment.
    ///
    /// # Errors
    /// As [`Writer::set`], and `Unfit`.
    pub fn set_described(
        &self,
        key: &str,
        value: &SecretValue,
        expected: Option<u64>,
        changes: &Changes,
        now: Timestamp,
    ) -> Result<u64, StoreError> {
        if value.len() > MAX_VALUE {
            return Err(StoreError::TooLong { limit: MAX_VALUE });
        }
        self.change(key, |entry, records| {
            let latest = index::latest(&entry.versions);
            if let Some(expected) = expected.filter(|expected| *expected != latest) {
                return Err(StoreError::Conflict { key: key.to_owned(), latest, expected });
            }
            let about = entry.about.changed(changes)?;
            if !about.kind.admits(value.expose()) {
                return Err(StoreError::WrongForm { kind: about.kind });
            }
            refuse_unreadable(key, &about, changes, now)?;
            self.retype(key, entry, about.kind, records)?;
            let number = latest + 1;
            let record = self.seal(key, number, about.kind, value, records)?;
            entry.versions.push(Version { record, deleted: false, written: Some(now) });
            entry.about = about;
            Ok(number)
        })
    }

    /// Changes what is known about a key; its values stay what they are. A new type is one that the latest value has, and every version
    /// is sealed anew for it.
    ///
    /// # Errors
    /// `NoKey`, `WrongForm` or `Unfit` with nothing written, else what kept it from being durable.
    pub fn edit(&self, key: &str, changes: &Changes) -> Result<(), StoreError> {
        self.change(key, |entry, records| {
            self.refuse_unknown(key, entry)?;
            let about = entry.about.changed(changes)?;
            if about.kind != entry.about.kind {
                let latest = index::latest(&entry.versions);
                let value = self.value_of(key, entry, latest, records)?;
                if !about.kind.admits(value.expose()) {
                    return Err(StoreError::WrongForm { kind: about.kind });
                }
                self.retype(key, entry, about.kind, records)?;
            }
            entry.about = about;
            Ok(())
        })
    }

    /// Marks a version (the latest without a number) as deleted, or takes the mark away; its value stays. Returns its number.
    ///
    /// # Errors
    /// `NoKey` or `NoVersion` with nothing written, else what kept it from being durable.
    pub fn mark_deleted(&self, key: &str, version: Option<u64>, deleted: bool) -> Result<u64, StoreError> {
        self.change(key, |entry, _| {
            self.refuse_unknown(key, entry)?;
            let number = version.unwrap_or(index::latest(&entry.versions));
            let wanted = index::position(number).and_then(|at| entry.versions.get_mut(at));
            wanted.ok_or_else(|| StoreError::NoVersion { key: key.to_owned(), version: number })?.deleted = deleted;
            Ok(number)
        })
    }

    fn refuse_unknown(&self, key: &str, entry: &Entry) -> Result<(), StoreError> {
        if entry.versions.is_empty() {
            return Err(StoreError::NoKey { place: self.place.clone(), key: key.to_owned() });
        }
        Ok(())
    }

    fn seal(&self, key: &str, number: u64, kind: Kind, value: &SecretValue, records: &mut Records) -> Result<String, StoreError> {
        let record = self.keys.seal_value(key, number, kind, value.expose());
        records.insert(index::record_key(&self.keys.hide(key), number).as_slice(), record.as_slice()).map_err(at(&self.place))?;
        Ok(digest_of(&record))
    }

    fn value_of(&self, key: &str, entry: &Entry, number: u64, records: &Records) -> Result<SecretValue, StoreError> {
        let version =
            index::numbered(&entry.versions, number).ok_or_else(|| StoreError::NoVersion { key: key.to_owned(), version: number })?;
        open_record(&self.place, &self.keys, records, (key, &self.keys.hide(key)), (number, entry.about.kind, &version.record))
    }

    /// Seals every version for another type.
    fn retype(&self, key: &str, entry: &mut Entry, kind: Kind, records: &mut Records) -> Result<(), StoreError> {
        if kind == entry.about.kind {
            return Ok(());
        }
        for number in 1..=index::latest(&entry.versions) {
            let value = self.value_of(key, entry, number, records)?;
            let record = self.seal(key, number, kind, &value, records)?;
            if let Some(version) = index::position(number).and_then(|at| entry.versions.get_mut(at)) {
                version.record = record;
            }
        }
        Ok(())
    }

    /// Applies a change of one key: records, part, root and witness become durable together or not at all.
    fn change<T>(&self, key: &str, apply: impl FnOnce(&mut Entry, &mut Records) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let (place, keys) = (self.place.as_str(), &self.keys);
        contained(place, || {
            let change = self.database.begin_write().map_err(at(place))?;
            let result = {
                let mut meta = change.open_table(META).map_err(at(place))?;
                let mut index = change.open_table(INDEX).map_err(at(place))?;
                let mut witness = change.open_table(WITNESS).map_err(at(place))?;
                let mut records = change.open_table(RECORDS).map_err(at(place))?;
                refuse_other_key(place, &meta, keys)?;
                let mut root = read_root(place, keys, &index, &witness)?;
                let number = index::part_of(&keys.hide(key));
                let mut part = read_part(place, keys, &index, &root, number)?;
                let entry = part.names.entry(key.to_owned()).or_default();
                let result = apply(entry, &mut records)?;
                if entry.about != About::default() {
                    meta.insert("format", FORMAT.to_be_bytes().as_slice()).map_err(at(place))?;
                }
                let sealed = keys.seal_index("names", number, &index::encode(&part));
                root.parts.insert(number, digest_of(&sealed));
                index.insert(number + 1, sealed.as_slice()).map_err(at(place))?;
                write_root(place, keys, &mut index, &mut witness, &root)?;
                result
            };
            change.commit().map_err(at(place))?;
            settle(&self.database, place)?;
            Ok(result)
        })
    }
}

pub(super) type Records<'txn> = Table<'txn, &'static [u8], &'static [u8]>;

/// A new value that nobody could read is a mistake: the old expiry or mark was forgotten. Who gives it again means it.
fn refuse_unreadable(key: &str, about: &About, changes: &Changes, now: Timestamp) -> Result<(), StoreError> {
    let key = key.to_owned();
    match about.withheld(now) {
        Some(Withheld::Expired(expires)) if changes.expires.is_none() => Err(StoreError::StillExpired { key, expires }),
        Some(Withheld::Disabled) if changes.status.is_none() => Err(StoreError::StillWithheld { key, status: Status::Disabled }),
        Some(Withheld::Revoked) if changes.status.is_none() => Err(StoreError::StillWithheld { key, status: Status::Revoked }),
        _ => Ok(()),
    }
}

/// Another process may have given the store a new master key, or restored it, since these keys were derived.
pub(super) fn refuse_other_key(place: &str, meta: &impl ReadableTable<&'static str, &'static [u8]>, keys: &Keys) -> Result<(), StoreError> {
    let check = meta.get("check").map_err(at(place))?.ok_or_else(|| StoreError::damaged(place, "head"))?;
    if check.value() == keys.check() { Ok(()) } else { Err(StoreError::WrongKey { place: place.to_owned() }) }
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_concurrency_mode(ConcurrencyMode::MultiWriter).set_cache_size(PAGE_CACHE);
    builder
}

pub(super) fn share(place: &str, file: File) -> Result<Database, StoreError> {
    let backend = FileBackend::new(file).map_err(at(place))?;
    builder().set_check_integrity_on_open(true).create_with_backend(backend).map_err(at(place))
}

/// Opens for writing what has content: the container would take an emptied file for a new one.
fn share_existing(place: &str, file: File) -> Result<Database, StoreError> {
    let length = file.metadata().map_err(|error| StoreError::io(place, "looking at it", &error))?.len();
    if length == 0 {
        return Err(StoreError::damaged(place, "empty"));
    }
    share(place, file)
}

/// Finishes or undoes what a killed writer left: the container does so when it is opened for writing.
fn mend(store: &Place) -> Result<(), StoreError> {
    let unfinished = |_| StoreError::Unfinished { place: store.name().to_owned() };
    let file = store.open(Access::ReadWrite).map_err(unfinished)?;
    let database = share_existing(store.name(), file)?;
    database.close().map_err(at(store.name()))
}

/// Commits the same state once more, so that both of the container's commit slots lead to it. One flipped bit in its header then
/// cannot bring an earlier state back, in which a key of the last change would be missing.
pub(super) fn settle(database: &Database, place: &str) -> Result<(), StoreError> {
    let again = database.begin_write().map_err(at(place))?;
    {
        let mut index = again.open_table(INDEX).map_err(at(place))?;
        let mut witness = again.open_table(WITNESS).map_err(at(place))?;
        repeat(place, &mut index)?;
        repeat(place, &mut witness)?;
    }
    again.commit().map_err(at(place))
}

fn repeat(place: &str, table: &mut Table<u64, &'static [u8]>) -> Result<(), StoreError> {
    let bytes = table.get(0).map_err(at(place))?.map(|bytes| bytes.value().to_vec());
    let bytes = bytes.ok_or_else(|| StoreError::damaged(place, "index"))?;
    table.insert(0, bytes.as_slice()).map_err(at(place))?;
    Ok(())
}

pub(super) fn lay_out(change: &WriteTransaction, place: &str, keys: &Keys) -> Result<(), StoreError> {
    write_head(change, place, keys, FIRST_FORMAT)?;
    change.open_table(RECORDS).map_err(at(place))?;
    let mut index = change.open_table(INDEX).map_err(at(place))?;
    let mut witness = change.open_table(WITNESS).map_err(at(place))?;
    write_root(place, keys, &mut index, &mut witness, &Root::default())
}

/// Writes what stands in the open.
pub(super) fn write_head(change: &WriteTransaction, place: &str, keys: &Keys, format: u32) -> Result<(), StoreError> {
    let mut meta = change.open_table(META).map_err(at(place))?;
    meta.insert("format", format.to_be_bytes().as_slice()).map_err(at(place))?;
    meta.insert("store", keys.store().as_slice()).map_err(at(place))?;
    meta.insert("check", keys.check()).map_err(at(place))?;
    Ok(())
}

/// Reads what stands in the open, format first, and derives the keys.
fn unlock(place: &str, meta: &impl ReadableTable<&'static str, &'static [u8]>, master: &MasterKey) -> Result<(Keys, u32), StoreError> {
    let damaged = || StoreError::damaged(place, "head");
    let read = |name| -> Result<Vec<u8>, StoreError> {
        let bytes = meta.get(name).map_err(at(place))?;
        bytes.map(|bytes| bytes.value().to_vec()).ok_or_else(damaged)
    };
    let found = u32::from_be_bytes(read("format")?.try_into().map_err(|_| damaged())?);
    if !(FIRST_FORMAT..=FORMAT).contains(&found) {
        return Err(StoreError::Format { place: place.to_owned(), found, known: FORMAT });
    }
    let keys = Keys::derive(master, read("store")?.try_into().map_err(|_| damaged())?);
    if read("check")? != keys.check() {
        return Err(StoreError::WrongKey { place: place.to_owned() });
    }
    Ok((keys, found))
}

pub(super) fn read_root(
    place: &str,
    keys: &Keys,
    index: &impl ReadableTable<u64, &'static [u8]>,
    witness: &impl ReadableTable<u64, &'static [u8]>,
) -> Result<Root, StoreError> {
    let damaged = || StoreError::damaged(place, "index");
    let root = index.get(0).map_err(at(place))?.ok_or_else(damaged)?;
    let seen = witness.get(0).map_err(at(place))?.ok_or_else(damaged)?;
    let seen = keys.open_index("witness", 0, seen.value()).map_err(|_| damaged())?;
    if *seen != digest_of(root.value()).into_bytes() {
        return Err(damaged());
    }
    index::decode(&keys.open_index("root", 0, root.value()).map_err(|_| damaged())?).ok_or_else(damaged)
}

pub(super) fn write_root(
    place: &str,
    keys: &Keys,
    index: &mut Table<u64, &'static [u8]>,
    witness: &mut Table<u64, &'static [u8]>,
    root: &Root,
) -> Result<(), StoreError> {
    let root = keys.seal_index("root", 0, &index::encode(root));
    let seen = keys.seal_index("witness", 0, digest_of(&root).as_bytes());
    index.insert(0, root.as_slice()).map_err(at(place))?;
    witness.insert(0, seen.as_slice()).map_err(at(place))?;
    Ok(())
}

/// A part of the index; empty where the root proves that it has no names.
pub(super) fn read_part(
    place: &str,
    keys: &Keys,
    index: &impl ReadableTable<u64, &'static [u8]>,
    root: &Root,
    number: u64,
) -> Result<Part, StoreError> {
    let Some(digest) = root.parts.get(&number) else { return Ok(Part::default()) };
    let damaged = || StoreError::damaged(place, "index");
    let sealed = sealed_part(place, index, number, digest)?;
    let plain = keys.open_index("names", number, &sealed).map_err(|_| damaged())?;
    index::decode(&plain).ok_or_else(damaged)
}

/// The bytes of a part, which must be those that the root leads to.
pub(super) fn sealed_part(
    place: &str,
    index: &impl ReadableTable<u64, &'static [u8]>,
    number: u64,
    digest: &str,
) -> Result<Vec<u8>, StoreError> {
    let sealed = index.get(number + 1).map_err(at(place))?.map(|sealed| sealed.value().to_vec());
    sealed.filter(|sealed| digest_of(sealed) == digest).ok_or_else(|| StoreError::damaged(place, "index"))
}

pub(super) fn at<E: Into<redb::Error>>(place: &str) -> impl Fn(E) -> StoreError {
    move |error| StoreError::container(place, &error.into())
}

/// Runs work on the container. It panics on some files that something else has changed: that is damage, not a bug of ours, and told as
/// such, so the panic itself is kept out of the log and out of the count of panics.
pub(super) fn contained<T>(place: &str, work: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    static HOOK: Once = Once::new();
    HOOK.call_once(hush_contained_panics);
    let outer = CONTAINED.replace(true);
    let outcome = catch_unwind(AssertUnwindSafe(work));
    CONTAINED.set(outer);
    outcome.unwrap_or_else(|_| Err(StoreError::damaged(place, "container")))
}

thread_local! {
    /// Whether this thread is at work on a container.
    static CONTAINED: Cell<bool> = const { Cell::new(false) };
}

fn hush_contained_panics() {
    let others = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if CONTAINED.get() {
            // The place only: a message may quote the file.
            tracing::debug!(at = panic.location().map(ToString::to_string), "the container of a file store cannot be read");
        } else {
            others(panic);
        }
    }));
}
