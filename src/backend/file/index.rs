//! The index: which names exist, which versions they have and what their records must look like. Types and their text form; pure.
//!
//! Names are spread over 256 parts by a keyed hash, so that a write seals one part and the root again and not every name. The root
//! holds the digest of each part, a part the digest of each record: what the root does not lead to does not exist, and what it leads to
//! is there as it was written or the store is damaged.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::about::About;

/// What everything else hangs from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Root {
    /// Digest of each part that has names.
    pub parts: BTreeMap<u64, String>,
}

/// The names of one part.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Part {
    pub names: BTreeMap<String, Entry>,
}

/// What stands under one name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(from = "Stored", into = "Stored")]
pub struct Entry {
    /// Numbered from 1 by their order.
    pub versions: Vec<Version>,
    pub about: About,
}

/// The text form of an entry. Before there was metadata it was the versions alone, and so it still is where there is none.
#[derive(Deserialize, Serialize)]
#[serde(untagged)]
enum Stored {
    Bare(Vec<Version>),
    Described { versions: Vec<Version>, about: About },
}

impl From<Stored> for Entry {
    fn from(stored: Stored) -> Self {
        match stored {
            Stored::Bare(versions) => Self { versions, about: About::default() },
            Stored::Described { versions, about } => Self { versions, about },
        }
    }
}

impl From<Entry> for Stored {
    fn from(Entry { versions, about }: Entry) -> Self {
        if about == About::default() { Self::Bare(versions) } else { Self::Described { versions, about } }
    }
}

/// One version of a name.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Version {
    /// Digest of its record.
    pub record: String,
    #[serde(default, skip_serializing_if = "is_false")]
    pub deleted: bool,
    /// When it was written; unknown of versions that are older than this field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub written: Option<Timestamp>,
}

/// A name as a listing shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    pub key: String,
    /// The latest version.
    pub version: u64,
    /// Whether the latest version is deleted.
    pub deleted: bool,
    /// When the latest version was written, if that is known.
    pub written: Option<Timestamp>,
    pub about: About,
}

impl Name {
    pub fn of(key: &str, entry: &Entry) -> Self {
        let last = entry.versions.last();
        Self {
            key: key.to_owned(),
            version: latest(&entry.versions),
            deleted: last.is_some_and(|version| version.deleted),
            written: last.and_then(|version| version.written),
            about: entry.about.clone(),
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde asks for")]
fn is_false(value: &bool) -> bool {
    !value
}

/// The part in which a hidden name stands.
pub fn part_of(hidden: &[u8; 32]) -> u64 {
    u64::from(hidden[0])
}

/// Key of a version's record.
pub fn record_key(hidden: &[u8; 32], version: u64) -> Vec<u8> {
    [hidden.as_slice(), &version.to_be_bytes()].concat()
}

/// The number of the latest version; 0 when there is none.
pub fn latest(versions: &[Version]) -> u64 {
    versions.len() as u64
}

/// The version with this number.
pub fn numbered(versions: &[Version], number: u64) -> Option<&Version> {
    versions.get(position(number)?)
}

/// Where the version with this number stands.
pub fn position(number: u64) -> Option<usize> {
    usize::try_from(number).ok()?.checked_sub(1)
}

pub fn encode<T: Serialize>(part: &T) -> Vec<u8> {
    serde_json::to_vec(part).expect("maps with plain keys have a JSON form")
}

pub fn decode<T: for<'de> Deserialize<'de>>(text: &[u8]) -> Option<T> {
    serde_json::from_slice(text).ok()
}

#[cfg(test)]
mod tests {
    use super::{About, Entry, Part, Version, decode, encode};

    #[test]
    fn a_part_of_the_first_format_is_read_and_written_as_it_was() {
        let first = br#"{"names":{"db/password":[{"record":"AA=="},{"record":"BB==","deleted":true}]}}"#;
        let part: Part = decode(first).unwrap();
        let entry = &part.names["db/password"];
        assert_eq!((entry.versions.len(), entry.versions[1].deleted, &entry.about), (2, true, &About::default()));
        assert_eq!(encode(&part), first);
    }

    #[test]
    fn an_entry_with_metadata_is_read_back_and_is_nothing_that_the_first_format_knows() {
        let about = About { owner: Some("me".to_owned()), ..About::default() };
        let entry = Entry { versions: vec![Version { record: "AA==".to_owned(), deleted: false, written: None }], about };
        let part = Part { names: [("k".to_owned(), entry)].into() };
        assert_eq!(decode::<Part>(&encode(&part)), Some(part.clone()));
        assert!(encode(&part).starts_with(br#"{"names":{"k":{"versions":"#));
        let unheard = String::from_utf8(encode(&part)).unwrap().replace("owner", "unheard");
        assert_eq!(decode::<Part>(unheard.as_bytes()), None, "what is not known may restrict");
    }
}
