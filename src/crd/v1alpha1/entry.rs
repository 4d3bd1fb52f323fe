//! The entries of an object in the order of its spec: one view of `data[]` and `dataFrom[]` for every stage.

use std::fmt;

use super::{
    DataFromEntry, ExternalParameterSpec, ExternalSecretSpec, Find, ParameterEntry, ParameterType, RemoteValue, SourceRef, StoreRef,
};
use crate::fault::{Fault, Reason, quote};

/// One entry: where it stands, where it looks, what it asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    pub place: Place<'a>,
    pub store: &'a StoreRef,
    pub reference: Reference<'a>,
    /// The value's text is JSON and means what JSON says.
    pub is_json: bool,
}

/// Where an entry stands, as status names it: `data[<key>]` or `dataFrom[<index>]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place<'a> {
    Data(&'a str),
    DataFrom(usize),
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Data(key) => write!(f, "data[{key}]"),
            Self::DataFrom(index) => write!(f, "dataFrom[{index}]"),
        }
    }
}

/// What an entry asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reference<'a> {
    /// One value, or a part of it, under the entry's own key.
    Value(&'a RemoteValue),
    /// Every member of one JSON object.
    Extract(&'a RemoteValue),
    /// Every value whose name matches.
    Find(&'a Find),
}

impl ExternalSecretSpec {
    /// All entries, `data` first.
    ///
    /// # Errors
    /// `InvalidSpec` for what the schema refuses too: no entry at all, an entry without a store, not exactly one of `extract` and
    /// `find`.
    pub fn entries(&self) -> Result<Vec<Entry<'_>>, Fault> {
        let data = self.data.iter().flatten().map(|entry| (entry.secret_key.as_str(), &entry.remote_ref, entry.source_ref.as_ref(), false));
        entries(self.secret_store_ref.as_ref(), data, self.data_from.as_deref())
    }
}

impl ExternalParameterSpec {
    /// All entries, `data` first.
    ///
    /// # Errors
    /// As for [`ExternalSecretSpec::entries`].
    pub fn entries(&self) -> Result<Vec<Entry<'_>>, Fault> {
        let is_json = |entry: &ParameterEntry| entry.type_ == Some(ParameterType::Json);
        let data = self.data.iter().flatten();
        let data = data.map(|entry| (entry.key.as_str(), &entry.remote_ref, entry.source_ref.as_ref(), is_json(entry)));
        entries(self.secret_store_ref.as_ref(), data, self.data_from.as_deref())
    }
}

type Single<'a> = (&'a str, &'a RemoteValue, Option<&'a SourceRef>, bool);

fn entries<'a>(
    default: Option<&'a StoreRef>,
    data: impl Iterator<Item = Single<'a>>,
    data_from: Option<&'a [DataFromEntry]>,
) -> Result<Vec<Entry<'a>>, Fault> {
    let data = data.map(|(key, remote, source, is_json)| {
        let place = Place::Data(key);
        Ok(Entry { place, store: store_of(place, source, default)?, reference: Reference::Value(remote), is_json })
    });
    let data_from = data_from.into_iter().flatten().enumerate().map(|(index, entry)| {
        let place = Place::DataFrom(index);
        let store = store_of(place, entry.source_ref.as_ref(), default)?;
        Ok(Entry { place, store, reference: reference_of(place, entry)?, is_json: false })
    });
    let entries: Vec<_> = data.chain(data_from).collect::<Result<_, Fault>>()?;
    if entries.is_empty() { Err(invalid("spec needs at least one entry: add data or dataFrom")) } else { Ok(entries) }
}

fn store_of<'a>(place: Place<'_>, source: Option<&'a SourceRef>, default: Option<&'a StoreRef>) -> Result<&'a StoreRef, Fault> {
    source
        .map(|source| &source.store_ref)
        .or(default)
        .ok_or_else(|| invalid(format!("{} names no store: add spec.secretStoreRef or sourceRef.storeRef", quote(&place.to_string()))))
}

fn reference_of<'a>(place: Place<'_>, entry: &'a DataFromEntry) -> Result<Reference<'a>, Fault> {
    match (&entry.extract, &entry.find) {
        (Some(extract), None) => Ok(Reference::Extract(extract)),
        (None, Some(find)) => Ok(Reference::Find(find)),
        _ => Err(invalid(format!("{place} needs exactly one of extract and find: remove one or add one"))),
    }
}

fn invalid(detail: impl Into<String>) -> Fault {
    Fault::invalid(Reason::InvalidSpec, detail)
}
