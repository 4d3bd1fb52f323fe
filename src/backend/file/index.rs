//! The index: which names exist, which versions they have and what their records must look like. Types and their text form; pure.
//!
//! Names are spread over 256 parts by a keyed hash, so that a write seals one part and the root again and not every name. The root
//! holds the digest of each part, a part the digest of each record: what the root does not lead to does not exist, and what it leads to
//! is there as it was written or the store is damaged.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What everything else hangs from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Root {
    /// Digest of each part that has names.
    pub parts: BTreeMap<u64, String>,
}

/// The names of one part.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Part {
    pub names: BTreeMap<String, Vec<Version>>,
}

/// One version of a name; they are numbered from 1 by their order.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Version {
    /// Digest of its record.
    pub record: String,
    #[serde(default, skip_serializing_if = "is_false")]
    pub deleted: bool,
}

/// A name as a listing shows it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Name {
    pub key: String,
    /// The latest version.
    pub version: u64,
    /// Whether the latest version is deleted.
    pub deleted: bool,
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
