//! From what was seen to the keys of a target: properties are selected, maps are spread, names become keys. Pure.
//!
//! All or nothing: every entry that cannot be used is named, and nothing is assembled. No message holds any part of a value;
//! names of members may stand in one, because they become names of keys.

mod document;
mod json;
mod jsonpath;
mod key;
mod map;
mod notation;
mod property;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    crd::v1alpha1::{Entry, Place, Reference, RemoteValue},
    fault::{Class, Fault, Reason, quote},
    item::{Fetched, Form, Reading, Sighting},
    name::{RemoteKey, TargetKind},
    secret::SecretValue,
};
pub use document::Syntax;
use json::Shape;
use property::Miss;

/// Bytes of all values of one target: Kubernetes' own limit.
pub const MAX_BYTES: usize = 1 << 20;
/// Keys of one target or members of its document: what is written about them must fit beside them.
pub const MAX_KEYS: usize = 2000;

/// The entry at fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryFault {
    /// Its index in what was given to [`assemble`].
    pub entry: usize,
    pub fault: Fault,
}

/// What the target is made like.
#[derive(Clone, Copy, Debug)]
pub struct Layout<'a> {
    pub kind: TargetKind,
    /// Cut from the start of every name.
    pub trim: Option<&'a str>,
    /// One document instead of one key for each value.
    pub document: Option<Document<'a>>,
    /// What a system marks as a secret may not stand there.
    pub refuses_secrets: bool,
}

/// One key that holds all values.
#[derive(Clone, Copy, Debug)]
pub struct Document<'a> {
    pub syntax: Syntax,
    pub file: &'a str,
    /// What parts a name into the names of a hierarchy.
    pub separator: Option<&'a str>,
}

impl Layout<'_> {
    /// The key that is made of a remote name.
    #[must_use]
    pub fn key_of(&self, name: &str) -> String {
        let name = self.trimmed(name);
        if self.document.is_some() { name.to_owned() } else { key::convert(name) }
    }

    /// One key for each value, as a Secret has it.
    #[must_use]
    pub const fn keys(kind: TargetKind) -> Self {
        Self { kind, trim: None, document: None, refuses_secrets: false }
    }

    fn trimmed<'n>(&self, name: &'n str) -> &'n str {
        self.trim.and_then(|trim| name.strip_prefix(trim)).unwrap_or(name)
    }
}

/// What a target is made of.
#[derive(Clone, Debug, Default)]
pub struct Assembled {
    pub data: BTreeMap<String, SecretValue>,
    /// The keys of all values, whether they are the target's or those of its document.
    pub keys: BTreeSet<String>,
}

/// The data of the target that these entries make. `data` wins over `dataFrom`; in a `ConfigMap` a later `dataFrom` wins over an
/// earlier one.
///
/// # Errors
/// Every entry that was not found, is unknown, or cannot be used, in order; if each alone can be used, what collides, then what is
/// too large.
pub fn assemble(layout: &Layout<'_>, entries: &[(Entry<'_>, &Sighting)]) -> Result<Assembled, Vec<EntryFault>> {
    let mut parts = Vec::new();
    let mut faults = Vec::new();
    for (index, (entry, sighting)) in entries.iter().enumerate() {
        match select(layout, entry, sighting) {
            Ok(part) => parts.push(part),
            Err(fault) => faults.push(EntryFault { entry: index, fault }),
        }
    }
    if !faults.is_empty() {
        return Err(faults);
    }
    let sizes: Vec<usize> = parts.iter().map(|part| part.values().map(|piece| piece.value.len()).sum()).collect();
    let merged = merge(entries, parts, layout.kind == TargetKind::ConfigMap).map_err(|fault| vec![fault])?;
    lay_out(layout, merged, &sizes).map_err(|fault| vec![fault])
}

/// The values in the form that the target has.
fn lay_out(layout: &Layout<'_>, merged: Merged, sizes: &[usize]) -> Result<Assembled, EntryFault> {
    let keys: BTreeSet<String> = merged.keys().cloned().collect();
    let bytes = merged.values().map(|(_, piece)| piece.value.len()).sum();
    check_size(layout.kind, bytes, keys.len(), sizes)?;
    let data = match layout.document {
        None => merged.into_iter().map(|(key, (_, piece))| (key, piece.value)).collect(),
        Some(Document { syntax, file, separator }) => {
            let document = document::render(&merged, syntax, separator)?;
            check_size(layout.kind, document.len(), keys.len(), sizes)?;
            BTreeMap::from([(file.to_owned(), document)])
        }
    };
    Ok(Assembled { data, keys })
}

type Part = BTreeMap<String, Piece>;
/// The values of all entries, each with the entry that gave it.
type Merged = BTreeMap<String, (usize, Piece)>;

/// One value on its way into a target.
struct Piece {
    value: SecretValue,
    /// Its text is JSON and means what JSON says; else it is a string.
    is_json: bool,
}

/// What one entry gives.
fn select(layout: &Layout<'_>, entry: &Entry<'_>, sighting: &Sighting) -> Result<Part, Fault> {
    if layout.refuses_secrets {
        refuse_secrets(entry, sighting)?;
    }
    match (entry.reference, sighting) {
        (Reference::Value(reference), Sighting::Value(reading)) => {
            let value = single(found(reading)?, reference)?;
            if entry.is_json {
                check_json(&value, reference)?;
            }
            Ok(BTreeMap::from([(own_key(entry.place, layout)?, Piece { value, is_json: entry.is_json })]))
        }
        (Reference::Extract(reference), Sighting::Value(reading)) => spread(layout, found(reading)?, reference),
        (Reference::Find(_), Sighting::Found(found)) => rename(layout, &found.as_ref().map_err(Clone::clone)?.values),
        (Reference::Find(_), Sighting::Value(_)) | (Reference::Value(_) | Reference::Extract(_), Sighting::Found(_)) => {
            Err(Fault::new(Class::Bug, Reason::InvalidData, "another kind of answer was given than was asked for"))
        }
    }
}

/// What the system itself marks as a secret is refused by its name, whole or in part.
fn refuse_secrets(entry: &Entry<'_>, sighting: &Sighting) -> Result<(), Fault> {
    let name = match (entry.reference, sighting) {
        (Reference::Value(reference) | Reference::Extract(reference), Sighting::Value(Reading::Found(fetched))) => {
            fetched.is_secret.then_some(reference.key.as_str())
        }
        (_, Sighting::Found(Ok(found))) => found.values.iter().find(|(_, fetched)| fetched.is_secret).map(|(name, _)| name.as_str()),
        (_, Sighting::Value(_) | Sighting::Found(Err(_))) => None,
    };
    let Some(name) = name else { return Ok(()) };
    let remedy = "take it with an ExternalSecret, or set sensitivity to Allow";
    Err(Fault::invalid(Reason::SensitiveValue, format!("remote key {} is a secret by its store's own word: {remedy}", quote(name))))
}

fn found(reading: &Reading) -> Result<&Fetched, Fault> {
    match reading {
        Reading::Found(fetched) => Ok(fetched),
        Reading::Absent(fault) | Reading::Unknown(fault) => Err(fault.clone()),
    }
}

/// The value of an entry of type Json: null is no value, as everywhere.
fn check_json(value: &SecretValue, reference: &RemoteValue) -> Result<(), Fault> {
    match json::parse(value).map(json::shape) {
        Ok(Shape::Null) => {
            Err(Fault::invalid(Reason::EmptyValue, format!("{} is null: store a value, or remove the entry", shown(reference))))
        }
        Ok(_) => Ok(()),
        Err(flaw) => {
            Err(Fault::invalid(Reason::InvalidData, format!("{} has type Json, and {flaw}: correct one of them", shown(reference))))
        }
    }
}

fn own_key(place: Place<'_>, layout: &Layout<'_>) -> Result<String, Fault> {
    match place {
        Place::Data(key) => {
            let (key, kind) = (layout.trimmed(key), layout.kind);
            if layout.document.is_some() || key::is_valid(key) {
                return Ok(key.to_owned());
            }
            let rule = "use at most 253 letters, digits, '-', '_' and '.', not beginning with '..'";
            Err(Fault::invalid(Reason::InvalidSpec, format!("key {} is no key of a {kind}: {rule}", quote(key))))
        }
        Place::DataFrom(_) => Err(Fault::new(Class::Bug, Reason::InvalidSpec, "an entry of dataFrom has no key of its own")),
    }
}

/// One value, or the part of it that `property` names.
fn single(fetched: &Fetched, reference: &RemoteValue) -> Result<SecretValue, Fault> {
    let selected = match reference.property.as_deref() {
        None => Some(whole(fetched, || shown(reference))?),
        Some(property) => part_of(fetched, reference, property)?,
    };
    selected.filter(|value| !value.is_empty()).ok_or_else(|| {
        let remedy = "store a value, or remove the entry";
        Fault::invalid(Reason::EmptyValue, format!("{} is empty or null: {remedy}", shown(reference)))
    })
}

/// All of a value as one text. What `what` names is said to be at fault.
fn whole(fetched: &Fetched, what: impl Fn() -> String) -> Result<SecretValue, Fault> {
    match fetched.form {
        Form::Whole => Ok(fetched.value.clone()),
        Form::Map => match map::whole(&fetched.value) {
            Ok(Ok(text)) => Ok(text),
            Ok(Err(member)) => {
                let (what, member) = (what(), quote(&member));
                let remedy = "name a member with property, or take all with dataFrom.extract";
                Err(Fault::invalid(Reason::InvalidData, format!("{what} cannot be one text, its member {member} is no UTF-8: {remedy}")))
            }
            Err(flaw) => Err(Fault::invalid(Reason::InvalidData, format!("{} cannot be used, {flaw}: correct the value", what()))),
        },
    }
}

/// `None` is JSON null.
fn part_of(fetched: &Fetched, reference: &RemoteValue, property: &str) -> Result<Option<SecretValue>, Fault> {
    let unusable = |miss: Miss| unusable(reference, property, miss);
    if fetched.form == Form::Map {
        return map::part(&fetched.value, property).map_err(unusable);
    }
    let value = notation::as_json(&fetched.value, &reference.key).map_err(|flaw| unusable(flaw.into()))?;
    let document = json::parse(&value).map_err(|flaw| unusable(flaw.into()))?;
    let selected = property::select(document, property).map_err(unusable)?;
    selected.deliver().map_err(|flaw| unusable(flaw.into()))
}

fn unusable(reference: &RemoteValue, property: &str, miss: Miss) -> Fault {
    let (key, property) = (quote(&reference.key), quote(property));
    match miss {
        Miss::Syntax(why) => Fault::invalid(Reason::InvalidSpec, format!("property {property} of remote key {key}: {why}")),
        Miss::Missing => Fault::invalid(
            Reason::InvalidData,
            format!("remote key {key} has no property {property}: correct the property or add it to the value"),
        ),
        Miss::Value(flaw) => Fault::invalid(
            Reason::InvalidData,
            format!("remote key {key} cannot be searched for property {property}, {flaw}: correct the value or remove the property"),
        ),
        Miss::Several | Miss::Costly => Fault::invalid(
            Reason::InvalidData,
            format!("property {property} of remote key {key} cannot be used, {miss}: correct the property"),
        ),
    }
}

/// Every member of a JSON object. A single empty string is a value; null is none.
fn spread(layout: &Layout<'_>, fetched: &Fetched, reference: &RemoteValue) -> Result<Part, Fault> {
    let selected = match (fetched.form, reference.property.as_deref()) {
        (Form::Map, None) => return spread_map(layout, &fetched.value, reference),
        (Form::Whole, None) => Some(fetched.value.clone()),
        (_, Some(property)) => part_of(fetched, reference, property)?,
    };
    let invalid = |why: &str| Fault::invalid(Reason::InvalidData, format!("{} cannot be extracted, {why}", shown(reference)));
    let empty = |what: &str| Fault::invalid(Reason::EmptyValue, format!("{} {what}: store a value, or remove it", shown(reference)));
    let selected = selected.ok_or_else(|| empty("is null"))?;
    if selected.is_empty() {
        return Err(empty("is empty"));
    }
    let flawed = |flaw: json::Flaw| invalid(&format!("{flaw}: correct the value"));
    // What a property selected is JSON already.
    let notated = if reference.property.is_none() { &reference.key } else { "" };
    let selected = notation::as_json(&selected, notated).map_err(flawed)?;
    let document = json::parse(&selected).map_err(flawed)?;
    match json::shape(document) {
        Shape::Object => {}
        Shape::Null => return Err(empty("is null")),
        Shape::Array | Shape::String | Shape::Scalar => return Err(invalid("it is no JSON object: use data for a single value")),
    }
    let mut part = Keys::default();
    for (name, node) in json::members(document).map_err(flawed)? {
        if json::shape(node) == Shape::Null {
            return Err(empty(&format!("has a null member {}", quote(&name))));
        }
        let is_json = layout.document.is_some();
        let value = if is_json { SecretValue::from(node.get().to_owned()) } else { json::deliver(node).map_err(flawed)? };
        part.insert(layout, &name, Piece { value, is_json })?;
    }
    if part.values.is_empty() { Err(empty("has no members")) } else { Ok(part.values) }
}

/// Every member of a map of bytes, byte by byte.
fn spread_map(layout: &Layout<'_>, value: &SecretValue, reference: &RemoteValue) -> Result<Part, Fault> {
    let flawed = |flaw: json::Flaw| {
        Fault::invalid(Reason::InvalidData, format!("{} cannot be extracted, {flaw}: correct the value", shown(reference)))
    };
    let mut part = Keys::default();
    for (name, bytes) in map::members(value).map_err(flawed)? {
        part.insert(layout, &name, Piece { value: bytes, is_json: false })?;
    }
    if part.values.is_empty() {
        return Err(Fault::invalid(Reason::EmptyValue, format!("{} has no members: store a value, or remove it", shown(reference))));
    }
    Ok(part.values)
}

/// Every value of a search, under its name.
fn rename(layout: &Layout<'_>, found: &BTreeMap<RemoteKey, Fetched>) -> Result<Part, Fault> {
    if found.is_empty() {
        return Err(Fault::absent(Reason::NoMatch, "no remote key matches: correct find, or create a value with such a name"));
    }
    let mut part = Keys::default();
    for (name, fetched) in found {
        if fetched.value.is_empty() {
            let remedy = "store a value, or narrow find";
            return Err(Fault::invalid(Reason::EmptyValue, format!("remote key {} is empty: {remedy}", quote(name.as_str()))));
        }
        let value = whole(fetched, || format!("remote key {}", quote(name.as_str())))?;
        part.insert(layout, name.as_str(), Piece { value, is_json: false })?;
    }
    Ok(part.values)
}

/// Keys made from remote names.
#[derive(Default)]
struct Keys {
    values: Part,
    names: BTreeMap<String, String>,
}

impl Keys {
    fn insert(&mut self, layout: &Layout<'_>, name: &str, piece: Piece) -> Result<(), Fault> {
        let key = layout.key_of(name);
        if layout.document.is_none() && !key::is_valid(&key) {
            let detail = format!("remote name {} gives no valid key of a {}: rename it, or take it with data", quote(name), layout.kind);
            return Err(Fault::invalid(Reason::InvalidData, detail));
        }
        if let Some(other) = self.names.insert(key.clone(), name.to_owned()) {
            let detail = format!("remote names {} and {} both give key {}: rename one", quote(&other), quote(name), quote(&key));
            return Err(Fault::invalid(Reason::KeyCollision, detail));
        }
        self.values.insert(key, piece);
        Ok(())
    }
}

/// Puts the parts together: `data` over `dataFrom`, and among equals no key twice, unless a later `dataFrom` wins.
fn merge(entries: &[(Entry<'_>, &Sighting)], parts: Vec<Part>, later_wins: bool) -> Result<Merged, EntryFault> {
    let (mut data, mut from) = (BTreeMap::new(), BTreeMap::new());
    for (index, part) in parts.into_iter().enumerate() {
        let place = entries[index].0.place;
        let layer = match place {
            Place::Data(_) => &mut data,
            Place::DataFrom(_) => &mut from,
        };
        for (key, value) in part {
            if let Some((other, _)) = layer.insert(key.clone(), (index, value)) {
                if later_wins && matches!(place, Place::DataFrom(_)) {
                    continue;
                }
                let other = entries[other].0.place;
                let detail = format!("key {} comes from {other} and from {place}: rename it in one of them, or remove one", quote(&key));
                return Err(EntryFault { entry: index, fault: Fault::invalid(Reason::KeyCollision, detail) });
            }
        }
    }
    from.extend(data);
    Ok(from)
}

/// The largest entry is named.
fn check_size(kind: TargetKind, bytes: usize, keys: usize, sizes: &[usize]) -> Result<(), EntryFault> {
    let detail = if bytes > MAX_BYTES {
        format!("the values are {bytes} bytes together, a {kind} holds at most {MAX_BYTES}: take fewer or smaller values")
    } else if keys > MAX_KEYS {
        format!("there are {keys} keys, at most {MAX_KEYS} can be written: take fewer values")
    } else {
        return Ok(());
    };
    let largest = sizes.iter().enumerate().max_by_key(|(_, size)| **size).map_or(0, |(index, _)| index);
    Err(EntryFault { entry: largest, fault: Fault::invalid(Reason::TooLarge, detail) })
}

fn shown(reference: &RemoteValue) -> String {
    match reference.property.as_deref() {
        None => format!("remote key {}", quote(&reference.key)),
        Some(property) => format!("property {} of remote key {}", quote(property), quote(&reference.key)),
    }
}
