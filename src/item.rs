//! The unit of refresh: one remote thing that is looked at, whoever uses it. Types only.

use crate::{
    fault::Fault,
    name::{ProviderKind, RemoteKey, RemoteRef},
    secret::SecretValue,
};
use std::collections::{BTreeMap, BTreeSet};

/// One remote thing of one store: equal items of several objects are looked at once.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Item {
    /// UID of the store object; a store that was deleted and made again is another one.
    pub store: String,
    pub wanted: Wanted,
}

/// What is looked at.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Wanted {
    Value(RemoteRef),
    /// Boxed, because most items are values and there may be many.
    Find(Box<FindRef>),
}

/// A search. Only the listing of names is shared; values are read for what the patterns admit.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FindRef {
    pub provider: ProviderKind,
    /// What to list.
    pub listing: Listing,
    /// Regular expression on the full canonical name; already known to compile.
    pub regexp: Option<String>,
    /// The store's `allowedKeys` with `{namespace}` expanded; `None` admits every name.
    pub allowed: Option<Vec<String>>,
    /// Of what it finds, what the system keeps beside the values is read.
    pub is_metadata: bool,
}

/// What a listing of names is asked for; equal listings of one store are made once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Listing {
    /// Canonical path below which to list; everything without it.
    pub path: Option<RemoteKey>,
    /// What the system itself says about each value (tags, labels, custom metadata): all of these, or the value is not listed.
    pub tags: BTreeMap<String, String>,
}

/// What a system says has changed since it said so last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hint {
    /// Something: nobody knows what, or hints were lost.
    All,
    /// These: what they hold, whether they are there, or what searches go by.
    Keys(BTreeSet<RemoteKey>),
}

impl Hint {
    /// Whether what is looked at may have changed. A search is concerned by every key below its path.
    #[must_use]
    pub fn concerns(&self, wanted: &Wanted) -> bool {
        match (self, wanted) {
            (Self::All, _) => true,
            (Self::Keys(keys), Wanted::Value(value)) => keys.contains(&value.key),
            (Self::Keys(keys), Wanted::Find(find)) => {
                keys.iter().any(|key| find.listing.path.as_ref().is_none_or(|path| is_below(path, key)))
            }
        }
    }
}

fn is_below(path: &RemoteKey, key: &RemoteKey) -> bool {
    let path = path.as_str().trim_end_matches('/');
    key.as_str().strip_prefix(path).is_some_and(|rest| rest.starts_with('/'))
}

/// A value and what the backend says about it.
#[derive(Clone, Debug)]
pub struct Fetched {
    pub value: SecretValue,
    pub form: Form,
    /// The version that was read, where the backend has versions.
    pub version: Option<String>,
    /// The system itself marks it as a secret: by its kind, its type, or the lease that it was given under. A system that tells no
    /// secrets from other values marks none.
    pub is_secret: bool,
}

/// How the bytes of a value are to be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// As they are.
    #[default]
    Whole,
    /// A map of names to bytes, as a JSON object: a string is the text of its name, an object `{"base64": "…"}` bytes that are no text.
    Map,
}

/// Of which versions a look was: enough to ask later whether anything has changed since.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Versions {
    Value(String),
    /// Of every value that a search found.
    Found(BTreeMap<RemoteKey, String>),
}

/// The three outcomes of a read. Unknown is never absent.
#[derive(Clone, Debug)]
pub enum Reading {
    Found(Fetched),
    /// An authoritative, current and complete answer says that there is nothing to read: its fault's class is `Absent`. Only
    /// reason `NotFound` may ever lead to a deletion; soft-deleted, disabled, destroyed and expired values are kept.
    Absent(Fault),
    /// No answer that can be trusted, or one that refuses: classes `Unavailable`, `Denied`, `Throttled`, `Invalid`, `Bug`.
    Unknown(Fault),
}

/// What one look at an item gave.
#[derive(Clone, Debug)]
pub enum Sighting {
    Value(Reading),
    /// For a search: what it found, or the first fault that kept it from being complete.
    Found(Result<Found, Fault>),
}

impl Sighting {
    /// Of which versions it is; none where no value was found or one has no version.
    #[must_use]
    pub fn versions(&self) -> Option<Versions> {
        match self {
            Self::Value(Reading::Found(fetched)) => fetched.version.clone().map(Versions::Value),
            Self::Found(Ok(found)) if found.withheld.is_empty() => {
                let versions = found.values.iter().map(|(name, fetched)| Some((name.clone(), fetched.version.clone()?)));
                versions.collect::<Option<_>>().map(Versions::Found)
            }
            Self::Value(Reading::Absent(_) | Reading::Unknown(_)) | Self::Found(_) => None,
        }
    }
}

/// What a search found. A name that vanished between listing and reading is in neither; without any value it is the caller's `NoMatch`.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// Every admitted name that has a current value.
    pub values: BTreeMap<RemoteKey, Fetched>,
    /// Admitted names whose value the store has and does not give (deleted softly, disabled, destroyed, expired): class `Absent`, never
    /// reason `NotFound`. Such a value is kept where it was delivered.
    pub withheld: BTreeMap<RemoteKey, Fault>,
}

impl From<BTreeMap<RemoteKey, Fetched>> for Found {
    fn from(values: BTreeMap<RemoteKey, Fetched>) -> Self {
        Self { values, withheld: BTreeMap::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::{FindRef, Hint, Listing, Wanted};
    use crate::name::{ProviderKind, RemoteKey, RemoteRef};

    fn key(text: &str) -> RemoteKey {
        RemoteKey::parse(ProviderKind::File, text).unwrap()
    }

    #[test]
    fn a_hint_concerns_its_keys_in_every_version_and_the_searches_around_them() {
        let hint = Hint::Keys([key("app/db")].into());
        let value = |text: &str, version: Option<&str>| {
            Wanted::Value(RemoteRef { key: key(text), version: version.map(str::to_owned), is_metadata: false })
        };
        let find = |path: Option<&str>| {
            Wanted::Find(Box::new(FindRef {
                provider: ProviderKind::File,
                listing: Listing { path: path.map(key), ..Listing::default() },
                regexp: None,
                allowed: None,
                is_metadata: false,
            }))
        };
        let cases = [
            (value("app/db", None), true),
            (value("app/db", Some("1")), true),
            (value("app/other", None), false),
            (value("app", None), false),
            (find(None), true),
            (find(Some("app")), true),
            (find(Some("ap")), false),
            (find(Some("app/db")), false),
        ];
        for (wanted, expected) in cases {
            assert_eq!(hint.concerns(&wanted), expected, "{wanted:?}");
            assert!(Hint::All.concerns(&wanted));
        }
    }
}
