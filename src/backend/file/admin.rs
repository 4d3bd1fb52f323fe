//! Work on whole stores: another master key, a backup, a restore. Each is there as a whole or not at all.

use std::{collections::BTreeMap, path::Path};

use redb::Database;

use super::{
    error::StoreError,
    index::{self, Entry, Part, Root},
    place::Place,
    publish,
    seal::{Keys, MasterKey, digest_of},
    store::{
        INDEX, META, RECORDS, Reader, Records, WITNESS, Writer, at, contained, open_record, read_part, read_root, refuse_other_key,
        sealed_part, sealed_record, settle, share, write_head, write_root,
    },
};

/// Gives a store another master key: every data key is sealed anew in one change, and the index with them. Before that change is
/// durable the old key opens the store, afterwards the new one, at no moment both or none. A store that has the new key already, as
/// after a run that was killed, is left as it is. Returns the number of versions; `None` if it had the new key.
///
/// # Errors
/// [`StoreError`] with the store as it was.
pub fn rekey(store: &Place, old: &Place, new: &Place) -> Result<Option<u64>, StoreError> {
    let fresh = MasterKey::read(new)?;
    match Writer::open(store, new) {
        // A run that was killed may have left it at its first commit.
        Ok(writer) => contained(&writer.place, || settle(&writer.database, &writer.place)).map(|()| None),
        Err(StoreError::WrongKey { .. }) => Writer::open(store, old)?.rekey(&fresh).map(Some),
        Err(error) => Err(error),
    }
}

/// Writes a new file with everything that the store holds at one moment, sealed as it is, and opens every value of it. Writers go on
/// meanwhile. Returns the number of versions.
///
/// # Errors
/// [`StoreError::Exists`] when the path is taken, `Damaged` when anything cannot be opened, else what kept it from being written.
pub fn backup(store: &Place, master: &Place, path: &Path) -> Result<u64, StoreError> {
    let mut reader = Reader::open(store, master)?;
    publish_copy(&mut reader, master, path)
}

/// What a restore did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restored {
    /// Versions in the store now.
    pub versions: u64,
    /// Whether another content was replaced.
    pub replaced: bool,
}

/// Brings back what a backup holds. Every value of it is opened first, so another key or a damaged backup touches nothing. A store that
/// is there is replaced in one change, under its writers' lock; unless it is empty only if `replace` says so.
///
/// # Errors
/// `NotEmpty`, `WrongKey`, `Damaged` and the like with the store as it was.
pub fn restore(backup: &Place, store: &Path, master: &Place, replace: bool) -> Result<Restored, StoreError> {
    let mut reader = Reader::open(backup, master)?;
    let versions = reader.verify()?;
    let place = Place::path(store);
    match Writer::open(&place, master) {
        Ok(writer) => writer.replace_by(&mut reader, replace).map(|replaced| Restored { versions, replaced }),
        Err(StoreError::Missing { .. }) => publish_copy(&mut reader, master, store).map(|versions| Restored { versions, replaced: false }),
        Err(error) => Err(error),
    }
}

fn publish_copy(reader: &mut Reader, master: &Place, path: &Path) -> Result<u64, StoreError> {
    let name = path.display().to_string();
    // Told before the work: naming the draft would refuse it as well.
    if path.symlink_metadata().is_ok() {
        return Err(StoreError::Exists { place: name });
    }
    let draft = publish::draft_beside(path)?;
    let file = draft.reopen().map_err(|error| StoreError::io(&name, "opening", &error))?;
    contained(&name, || {
        let database = share(&name, file)?;
        fill(&database, &name, reader)?;
        settle(&database, &name)?;
        database.close().map_err(at(&name))
    })?;
    let versions = Reader::open(&Place::named(draft.path(), &name), master)?.verify()?;
    publish::publish(draft, path)?;
    Ok(versions)
}

/// Puts everything that the reader's root leads to in place of whatever the container holds.
fn fill(database: &Database, place: &str, reader: &mut Reader) -> Result<(), StoreError> {
    let change = database.begin_write().map_err(at(place))?;
    copy_into(&change, place, reader)?;
    change.commit().map_err(at(place))
}

fn copy_into(change: &redb::WriteTransaction, place: &str, reader: &mut Reader) -> Result<(), StoreError> {
    change.delete_table(INDEX).map_err(at(place))?;
    change.delete_table(WITNESS).map_err(at(place))?;
    change.delete_table(RECORDS).map_err(at(place))?;
    write_head(change, place, &reader.keys, reader.format)?;
    let mut index = change.open_table(INDEX).map_err(at(place))?;
    let mut witness = change.open_table(WITNESS).map_err(at(place))?;
    let mut records = change.open_table(RECORDS).map_err(at(place))?;
    let root = reader.root.clone();
    for (number, digest) in &root.parts {
        let sealed = sealed_part(&reader.place, &reader.index, *number, digest)?;
        index.insert(number + 1, sealed.as_slice()).map_err(at(place))?;
        for (key, entry) in &reader.part(*number)?.clone().names {
            let hidden = reader.keys.hide(key);
            for (version, number) in entry.versions.iter().zip(1..) {
                let slot = index::record_key(&hidden, number);
                let record = sealed_record(&reader.place, &reader.records, &slot, &version.record)?;
                records.insert(slot.as_slice(), record.as_slice()).map_err(at(place))?;
            }
        }
    }
    write_root(place, &reader.keys, &mut index, &mut witness, &root)
}

impl Reader {
    /// Opens every version of every key, deleted ones too, and returns their number.
    ///
    /// # Errors
    /// [`StoreError`] when any of them is not as it was written.
    pub fn verify(&mut self) -> Result<u64, StoreError> {
        let place = self.place.clone();
        contained(&place, || {
            let numbers: Vec<u64> = self.root.parts.keys().copied().collect();
            let mut versions = 0;
            for number in numbers {
                for (key, entry) in &self.part(number)?.clone().names {
                    let hidden = self.keys.hide(key);
                    for (version, number) in entry.versions.iter().zip(1..) {
                        let wanted = (number, entry.about.kind, version.record.as_str());
                        open_record(&self.place, &self.keys, &self.records, (key, &hidden), wanted)?;
                        versions += 1;
                    }
                }
            }
            Ok(versions)
        })
    }
}

impl Writer {
    fn rekey(self, master: &MasterKey) -> Result<u64, StoreError> {
        let Self { place, keys: old, database } = self;
        let new = Keys::derive(master, old.store());
        contained(&place, || {
            let change = database.begin_write().map_err(at(&place))?;
            let versions = rewrap_all(&change, &place, &old, &new)?;
            change.commit().map_err(at(&place))?;
            settle(&database, &place)?;
            database.close().map_err(at(&place))?;
            Ok(versions)
        })
    }

    /// Returns whether there was anything to replace.
    fn replace_by(self, reader: &mut Reader, replace: bool) -> Result<bool, StoreError> {
        let Self { place, keys, database } = self;
        contained(&place, || {
            let change = database.begin_write().map_err(at(&place))?;
            let is_empty = {
                refuse_other_key(&place, &change.open_table(META).map_err(at(&place))?, &keys)?;
                let index = change.open_table(INDEX).map_err(at(&place))?;
                read_root(&place, &keys, &index, &change.open_table(WITNESS).map_err(at(&place))?)?.parts.is_empty()
            };
            if !is_empty && !replace {
                return Err(StoreError::NotEmpty { place: place.clone() });
            }
            copy_into(&change, &place, reader)?;
            change.commit().map_err(at(&place))?;
            settle(&database, &place)?;
            database.close().map_err(at(&place))?;
            Ok(!is_empty)
        })
    }
}

/// Names are hidden by a key of their own, so every record and every name moves to another place in the container.
fn rewrap_all(change: &redb::WriteTransaction, place: &str, old: &Keys, new: &Keys) -> Result<u64, StoreError> {
    refuse_other_key(place, &change.open_table(META).map_err(at(place))?, old)?;
    let mut index = change.open_table(INDEX).map_err(at(place))?;
    let mut witness = change.open_table(WITNESS).map_err(at(place))?;
    let mut records = change.open_table(RECORDS).map_err(at(place))?;
    let root = read_root(place, old, &index, &witness)?;
    let (mut parts, mut versions) = (BTreeMap::<u64, Part>::new(), 0);
    for number in root.parts.keys() {
        for (key, mut entry) in read_part(place, old, &index, &root, *number)?.names {
            versions += rewrap_entry(place, &mut records, (old, new), &key, &mut entry)?;
            parts.entry(index::part_of(&new.hide(&key))).or_default().names.insert(key, entry);
        }
        index.remove(number + 1).map_err(at(place))?;
    }
    let mut fresh = Root::default();
    for (number, part) in parts {
        let sealed = new.seal_index("names", number, &index::encode(&part));
        fresh.parts.insert(number, digest_of(&sealed));
        index.insert(number + 1, sealed.as_slice()).map_err(at(place))?;
    }
    write_root(place, new, &mut index, &mut witness, &fresh)?;
    let mut meta = change.open_table(META).map_err(at(place))?;
    meta.insert("check", new.check()).map_err(at(place))?;
    Ok(versions)
}

fn rewrap_entry(place: &str, records: &mut Records, (old, new): (&Keys, &Keys), key: &str, entry: &mut Entry) -> Result<u64, StoreError> {
    let (before, after) = (old.hide(key), new.hide(key));
    let kind = entry.about.kind;
    let mut count = 0;
    for (version, number) in entry.versions.iter_mut().zip(1..) {
        let slot = index::record_key(&before, number);
        let record = sealed_record(place, records, &slot, &version.record)?;
        let rewrapped = old.rewrap(new, key, number, kind, &record).map_err(|_| StoreError::damaged(place, "a value"))?;
        records.remove(slot.as_slice()).map_err(at(place))?;
        records.insert(index::record_key(&after, number).as_slice(), rewrapped.as_slice()).map_err(at(place))?;
        version.record = digest_of(&rewrapped);
        count += 1;
    }
    Ok(count)
}
