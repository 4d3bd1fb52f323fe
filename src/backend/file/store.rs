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

use redb::{
    Builder, ConcurrencyMode, Database, ReadOnlyDatabase, ReadOnlyTable, ReadableDatabase, ReadableTable, Table, TableDefinition,
    WriteTransaction, backends::FileBackend,
};

use super::{
    error::StoreError,
    index::{self, Name, Part, Root, Version},
    place::{Access, Place},
    publish,
    seal::{Keys, MasterKey, STORE_ID, digest_of, fill},
};
use crate::secret::SecretValue;

/// Longest value that is stored: well above what a Secret can hold, so that a value that is too large for one can be seen and named.
pub const MAX_VALUE: usize = 8 << 20;

const FORMAT: u32 = 1;
/// Memory for pages; the container's own default is a gigabyte.
const PAGE_CACHE: usize = 1 << 20;

const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");
/// The root at 0, part n at n + 1.
const INDEX: TableDefinition<u64, &[u8]> = TableDefinition::new("index");
/// The digest of the sealed root, in a table of its own: were one of the two read from an old page, they would differ.
const WITNESS: TableDefinition<u64, &[u8]> = TableDefinition::new("witness");
const RECORDS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("records");

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
        lay_out(&change, &name, &Keys::derive(master, id), id)?;
        change.commit().map_err(at(&name))?;
        settle(&database, &name)?;
        database.close().map_err(at(&name))
    })?;
    publish::publish(draft, path)
}

/// One consistent state of a store.
pub struct Reader {
    place: String,
    keys: Keys,
    index: ReadOnlyTable<u64, &'static [u8]>,
    records: ReadOnlyTable<&'static [u8], &'static [u8]>,
    root: Root,
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
        let keys = unlock(place, &state.open_table(META).map_err(at(place))?, &master)?;
        let index = state.open_table(INDEX).map_err(at(place))?;
        let root = read_root(place, &keys, &index, &state.open_table(WITNESS).map_err(at(place))?)?;
        let records = state.open_table(RECORDS).map_err(at(place))?;
        Ok(Self { place: place.to_owned(), keys, index, records, root, parts: HashMap::new(), _database: database })
    }

    /// The value of a key, of its latest version or of the one asked for, with the version's number.
    ///
    /// # Errors
    /// `NoKey`, `NoVersion` and `Deleted` are proven by the index; everything else says nothing about the key.
    pub fn get(&mut self, key: &str, version: Option<u64>) -> Result<(SecretValue, u64), StoreError> {
        let place = self.place.clone();
        contained(&place, || {
            let hidden = self.keys.hide(key);
            let versions = self.versions_of(key, &hidden)?;
            let number = version.unwrap_or(index::latest(versions));
            let wanted = index::numbered(versions, number).ok_or_else(|| StoreError::NoVersion { key: key.to_owned(), version: number })?;
            if wanted.deleted {
                return Err(StoreError::Deleted { key: key.to_owned(), version: number });
            }
            let digest = wanted.record.clone();
            let value = self.read_record(key, &hidden, number, &digest)?;
            Ok((value, number))
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
            self.versions_of(key, &hidden).map(<[Version]>::to_vec)
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
                names.extend(self.part(number)?.names.iter().map(|(key, versions)| Name {
                    key: key.clone(),
                    version: index::latest(versions),
                    deleted: versions.last().is_some_and(|version| version.deleted),
                }));
            }
            names.sort();
            Ok(names)
        })
    }

    fn versions_of(&mut self, key: &str, hidden: &[u8; 32]) -> Result<&[Version], StoreError> {
        let place = self.place.clone();
        let part = self.part(index::part_of(hidden))?;
        part.names.get(key).map(Vec::as_slice).ok_or_else(|| StoreError::NoKey { place, key: key.to_owned() })
    }

    fn part(&mut self, number: u64) -> Result<&Part, StoreError> {
        let Self { place, keys, index, root, parts, .. } = self;
        match parts.entry(number) {
            std::collections::hash_map::Entry::Occupied(read) => Ok(read.into_mut()),
            std::collections::hash_map::Entry::Vacant(unread) => Ok(unread.insert(read_part(place, keys, index, root, number)?)),
        }
    }

    fn read_record(&self, key: &str, hidden: &[u8; 32], version: u64, digest: &str) -> Result<SecretValue, StoreError> {
        let damaged = || StoreError::damaged(&self.place, "a value");
        let slot = index::record_key(hidden, version);
        let record = self.records.get(slot.as_slice()).map_err(at(&self.place))?.ok_or_else(damaged)?;
        if digest_of(record.value()) != digest {
            return Err(damaged());
        }
        let mut value = self.keys.open_value(key, version, record.value()).map_err(|_| damaged())?;
        Ok(SecretValue::new(std::mem::take(&mut *value)))
    }
}

/// A store opened for writing. Every method returns once its change is durable.
pub struct Writer {
    place: String,
    keys: Keys,
    database: Database,
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
            let keys = unlock(&place, &state.open_table(META).map_err(at(&place))?, &master)?;
            Ok(Self { place: place.clone(), keys, database })
        })
    }

    /// Writes a new version of a key and returns its number. With `expected`, only if the latest version is that one; 0 is none.
    ///
    /// # Errors
    /// `Conflict` or `TooLong` with nothing written, else what kept it from being durable.
    pub fn set(&self, key: &str, value: &SecretValue, expected: Option<u64>) -> Result<u64, StoreError> {
        if value.len() > MAX_VALUE {
            return Err(StoreError::TooLong { limit: MAX_VALUE });
        }
        self.change(key, |versions, hidden, records| {
            let latest = index::latest(versions);
            if let Some(expected) = expected.filter(|expected| *expected != latest) {
                return Err(StoreError::Conflict { key: key.to_owned(), latest, expected });
            }
            let number = latest + 1;
            let record = self.keys.seal_value(key, number, value.expose());
            records.insert(index::record_key(hidden, number).as_slice(), record.as_slice()).map_err(at(&self.place))?;
            versions.push(Version { record: digest_of(&record), deleted: false });
            Ok(number)
        })
    }

    /// Marks a version (the latest without a number) as deleted, or takes the mark away; its value stays. Returns its number.
    ///
    /// # Errors
    /// `NoKey` or `NoVersion` with nothing written, else what kept it from being durable.
    pub fn mark_deleted(&self, key: &str, version: Option<u64>, deleted: bool) -> Result<u64, StoreError> {
        self.change(key, |versions, _, _| {
            if versions.is_empty() {
                return Err(StoreError::NoKey { place: self.place.clone(), key: key.to_owned() });
            }
            let number = version.unwrap_or(index::latest(versions));
            let wanted = index::position(number).and_then(|at| versions.get_mut(at));
            wanted.ok_or_else(|| StoreError::NoVersion { key: key.to_owned(), version: number })?.deleted = deleted;
            Ok(number)
        })
    }

    /// Applies a change of one key's versions: record, part, root and witness become durable together or not at all.
    fn change<T>(
        &self,
        key: &str,
        apply: impl FnOnce(&mut Vec<Version>, &[u8; 32], &mut Table<&'static [u8], &'static [u8]>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let (place, keys) = (self.place.as_str(), &self.keys);
        contained(place, || {
            let change = self.database.begin_write().map_err(at(place))?;
            let result = {
                let mut index = change.open_table(INDEX).map_err(at(place))?;
                let mut witness = change.open_table(WITNESS).map_err(at(place))?;
                let mut records = change.open_table(RECORDS).map_err(at(place))?;
                let mut root = read_root(place, keys, &index, &witness)?;
                let hidden = keys.hide(key);
                let number = index::part_of(&hidden);
                let mut part = read_part(place, keys, &index, &root, number)?;
                let result = apply(part.names.entry(key.to_owned()).or_default(), &hidden, &mut records)?;
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

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_concurrency_mode(ConcurrencyMode::MultiWriter).set_cache_size(PAGE_CACHE);
    builder
}

fn share(place: &str, file: File) -> Result<Database, StoreError> {
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
fn settle(database: &Database, place: &str) -> Result<(), StoreError> {
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

fn lay_out(change: &WriteTransaction, place: &str, keys: &Keys, id: [u8; STORE_ID]) -> Result<(), StoreError> {
    let mut meta = change.open_table(META).map_err(at(place))?;
    meta.insert("format", FORMAT.to_be_bytes().as_slice()).map_err(at(place))?;
    meta.insert("store", id.as_slice()).map_err(at(place))?;
    meta.insert("check", keys.check()).map_err(at(place))?;
    change.open_table(RECORDS).map_err(at(place))?;
    let mut index = change.open_table(INDEX).map_err(at(place))?;
    let mut witness = change.open_table(WITNESS).map_err(at(place))?;
    write_root(place, keys, &mut index, &mut witness, &Root::default())
}

/// Reads what stands in the open, format first, and derives the keys.
fn unlock(place: &str, meta: &impl ReadableTable<&'static str, &'static [u8]>, master: &MasterKey) -> Result<Keys, StoreError> {
    let damaged = || StoreError::damaged(place, "head");
    let read = |name| -> Result<Vec<u8>, StoreError> {
        let bytes = meta.get(name).map_err(at(place))?;
        bytes.map(|bytes| bytes.value().to_vec()).ok_or_else(damaged)
    };
    let found = u32::from_be_bytes(read("format")?.try_into().map_err(|_| damaged())?);
    if found != FORMAT {
        return Err(StoreError::Format { place: place.to_owned(), found, known: FORMAT });
    }
    let keys = Keys::derive(master, read("store")?.try_into().map_err(|_| damaged())?);
    if read("check")? != keys.check() {
        return Err(StoreError::WrongKey { place: place.to_owned() });
    }
    Ok(keys)
}

fn read_root(
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

fn write_root(
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
fn read_part(
    place: &str,
    keys: &Keys,
    index: &impl ReadableTable<u64, &'static [u8]>,
    root: &Root,
    number: u64,
) -> Result<Part, StoreError> {
    let Some(digest) = root.parts.get(&number) else { return Ok(Part::default()) };
    let damaged = || StoreError::damaged(place, "index");
    let sealed = index.get(number + 1).map_err(at(place))?.ok_or_else(damaged)?;
    if digest_of(sealed.value()) != *digest {
        return Err(damaged());
    }
    let plain = keys.open_index("names", number, sealed.value()).map_err(|_| damaged())?;
    index::decode(&plain).ok_or_else(damaged)
}

fn at<E: Into<redb::Error>>(place: &str) -> impl Fn(E) -> StoreError {
    move |error| StoreError::container(place, &error.into())
}

/// Runs work on the container. It panics on some files that something else has changed: that is damage, not a bug of ours, and told as
/// such, so the panic itself is kept out of the log and out of the count of panics.
fn contained<T>(place: &str, work: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
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
