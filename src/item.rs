//! The unit of refresh: one remote thing that is looked at, whoever uses it. Types only.

use crate::{
    fault::Fault,
    name::{ProviderKind, RemoteKey, RemoteRef},
    secret::SecretValue,
};
use std::collections::BTreeMap;

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
    Find(FindRef),
}

/// A search. Only the listing of names is shared; values are read for what the patterns admit.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FindRef {
    pub provider: ProviderKind,
    /// Canonical path below which to list.
    pub path: Option<RemoteKey>,
    /// Regular expression on the full canonical name; already known to compile.
    pub regexp: Option<String>,
    /// The store's `allowedKeys` with `{namespace}` expanded; `None` admits every name.
    pub allowed: Option<Vec<String>>,
}

/// A value and what the backend says about it.
#[derive(Clone, Debug)]
pub struct Fetched {
    pub value: SecretValue,
    /// The version that was read, where the backend has versions.
    pub version: Option<String>,
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
