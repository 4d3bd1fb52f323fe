//! What a target says about itself: the annotation that makes it known, without reading it, what was written and by whom. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{
    cluster::target::TargetName,
    digest::{DigestKey, ShortMac, sha256_hex},
    item::{Item, Wanted},
    name::{ObjectKey, ObjectKind},
};

pub use crate::cluster::target::annotation;

/// Above this many bytes names and item ids become 4-byte hashes.
const LONG: usize = 4096;
/// Marks a hashed key name; no key of a target can contain it.
const HASHED: char = '#';

/// The annotation's content. It holds names and keyed MACs, never a value or a digest that could be tried out without the key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Applied key names, sorted.
    #[serde(rename = "k")]
    pub keys: Vec<String>,
    /// Hashes of the members of a document, where a search gave some of them.
    #[serde(rename = "m", default, skip_serializing_if = "BTreeSet::is_empty")]
    pub members: BTreeSet<String>,
    /// Id of the key of the items' MACs; of a Secret all MACs are made with it.
    #[serde(rename = "id")]
    pub key_id: String,
    /// Hash of store UIDs and generations under which the values were found.
    #[serde(rename = "s")]
    pub stores: String,
    /// One short MAC per item; of a search, followed by a dot and how many names it had.
    #[serde(rename = "i")]
    pub items: BTreeMap<String, String>,
    /// Digest of data, labels and type that we own.
    pub data: String,
    /// Digest of all of this and whose it is.
    pub own: String,
}

/// Start of the field manager of every object of that kind.
#[must_use]
pub const fn manager_prefix(kind: ObjectKind) -> &'static str {
    match kind {
        ObjectKind::ExternalSecret => "keyferry-kes-",
        ObjectKind::ExternalParameter => "keyferry-kep-",
    }
}

/// Field manager of an object: stable over re-creation and restore; the API server takes 128 characters.
#[must_use]
pub fn field_manager(object: &ObjectKey) -> String {
    let prefix = manager_prefix(object.kind);
    if object.name.len() <= 100 { format!("{prefix}{}", object.name) } else { format!("{prefix}{}", &sha256_hex(&object.name)[..32]) }
}

/// What was found of an item.
#[derive(Clone, Debug)]
pub struct Worth {
    pub item: Item,
    pub mac: ShortMac,
    /// How many names a search had.
    pub names: Option<usize>,
}

impl Worth {
    /// Without the installation's key the MAC is left out: an item may hold more than its target shows, and a plain hash could be
    /// tried out.
    fn text(&self, key: &DigestKey) -> String {
        let mac = if key.is_plain() { String::new() } else { self.mac.to_hex() };
        match self.names {
            Some(names) => format!("{mac}.{names}"),
            None => mac,
        }
    }
}

/// Everything a record is made of.
pub struct Content<'a> {
    pub keys: BTreeSet<&'a str>,
    pub members: BTreeSet<&'a str>,
    pub stores: &'a str,
    pub items: &'a [Worth],
    pub data: String,
}

impl Record {
    /// The record of a target that is about to be written.
    #[must_use]
    pub fn new(key: &DigestKey, object: &ObjectKey, target: &TargetName, content: &Content<'_>) -> Self {
        let names: usize = content.keys.iter().map(|name| name.len() + 3).sum();
        let is_long = names + content.items.len() * 38 > LONG;
        let name = |name: &str| if is_long { hashed(name) } else { name.to_owned() };
        let digits = if is_long { 8 } else { 16 };
        let mut keys: Vec<String> = content.keys.iter().map(|key| name(key)).collect();
        keys.sort_unstable();
        let mut record = Self {
            keys,
            members: content.members.iter().map(|member| hashed(member)).collect(),
            key_id: key.id().to_owned(),
            stores: content.stores.to_owned(),
            items: content.items.iter().map(|worth| (item_id(&worth.item)[..digits].to_owned(), worth.text(key))).collect(),
            data: content.data.clone(),
            own: String::new(),
        };
        record.own = record.ownership(key, object, target);
        record
    }

    /// Reads an annotation; anything malformed is as good as none.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// The annotation's text.
    #[must_use]
    pub fn to_text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Whether this installation wrote it, for that object and target.
    #[must_use]
    pub fn is_valid(&self, key: &DigestKey, object: &ObjectKey, target: &TargetName) -> bool {
        self.own == self.ownership(key, object, target)
    }

    /// Whether a key's name is among the applied ones.
    #[must_use]
    pub fn has_key(&self, name: &str) -> bool {
        let has = |wanted: &str| self.keys.binary_search_by(|known| known.as_str().cmp(wanted)).is_ok();
        has(name) || has(&hashed(name))
    }

    /// Whether a member was in the document when this was written.
    #[must_use]
    pub fn has_member(&self, name: &str) -> bool {
        self.members.contains(&hashed(name))
    }

    /// The applied names that are not among `held`, which is sorted (hashed names stay hashed).
    #[must_use]
    pub fn missing_from(&self, held: &[String]) -> Vec<String> {
        let missing: Vec<&String> = self.keys.iter().filter(|name| held.binary_search(name).is_err()).collect();
        if missing.iter().all(|name| !name.starts_with(HASHED)) {
            return missing.into_iter().cloned().collect();
        }
        let hashes: BTreeSet<String> = held.iter().map(|name| hashed(name)).collect();
        missing.into_iter().filter(|name| !hashes.contains(*name)).cloned().collect()
    }

    /// Whether an item was found when this was written.
    #[must_use]
    pub fn has_item(&self, item: &Item) -> bool {
        self.text_of(item).is_some()
    }

    /// The MAC of an item, if it was found when this was written and can be compared with what `key` makes.
    #[must_use]
    pub fn item(&self, key: &DigestKey, item: &Item) -> Option<ShortMac> {
        let text = self.text_of(item).filter(|_| self.key_id == key.id())?;
        ShortMac::from_hex(text.split_once('.').map_or(text, |(mac, _)| mac))
    }

    /// How many names a search had when this was written.
    #[must_use]
    pub fn names_of(&self, item: &Item) -> Option<usize> {
        self.text_of(item)?.split_once('.')?.1.parse().ok()
    }

    fn text_of(&self, item: &Item) -> Option<&str> {
        let id = item_id(item);
        self.items.get(&id[..16]).or_else(|| self.items.get(&id[..8])).map(String::as_str)
    }

    fn ownership(&self, key: &DigestKey, object: &ObjectKey, target: &TargetName) -> String {
        let key = key.of(target.kind);
        let whose = [object.namespace.as_str(), object.kind.as_str(), &object.name, &target.name, &self.key_id, &self.stores, &self.data];
        let keys = self.keys.iter().map(String::as_str);
        let items = self.items.iter().flat_map(|(id, mac)| [id.as_str(), mac.as_str()]);
        // Records without members keep the MAC that they had before there were documents.
        let members = self.members.iter().map(String::as_str);
        let members = (!self.members.is_empty()).then_some("members").into_iter().chain(members);
        let parts = whose.into_iter().chain(["keys"]).chain(keys).chain(["items"]).chain(items).chain(members);
        key.mac("own", parts.map(str::as_bytes)).to_hex()
    }
}

fn hashed(name: &str) -> String {
    format!("{HASHED}{}", &sha256_hex(name)[..8])
}

/// A stable id of an item: 64 hex digits, of which records keep the first.
fn item_id(item: &Item) -> String {
    let wanted = match &item.wanted {
        Wanted::Value(value) if value.is_metadata => format!("metadata\n{}", value.key),
        Wanted::Value(value) => format!("value\n{}\n{}", value.key, value.version.as_deref().unwrap_or("\n")),
        Wanted::Find(find) => {
            let path = find.listing.path.as_ref().map(ToString::to_string);
            // Searches without tags keep the id that they had before there were tags.
            let tags = if find.listing.tags.is_empty() { String::new() } else { format!("\n{:?}", find.listing.tags) };
            let what = if find.is_metadata { "find metadata" } else { "find" };
            format!("{what}\n{path:?}\n{:?}\n{:?}{tags}", find.regexp, find.allowed)
        }
    };
    sha256_hex(&format!("{}\n{wanted}", item.store))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{Content, Record, Worth, annotation, field_manager, item_id, sha256_hex};
    use crate::{
        cluster::target::TargetName,
        digest::DigestKey,
        item::{FindRef, Item, Listing, Wanted},
        name::{ObjectKey, ObjectKind, ProviderKind, RemoteKey, RemoteRef, TargetKind},
    };

    fn app() -> TargetName {
        TargetName::new(TargetKind::Secret, "ns", "app")
    }

    fn item(key: &str) -> Item {
        let key = RemoteKey::parse(ProviderKind::File, key).unwrap();
        Item { store: "uid".to_owned(), wanted: Wanted::Value(RemoteRef { key, version: None, is_metadata: false }) }
    }

    fn record(key: &DigestKey, names: &[String]) -> Record {
        let worth = |name: &String| Worth { item: item(name), mac: key.mac("value", [name.as_bytes()]).short(), names: None };
        let items: Vec<_> = names.iter().map(worth).collect();
        let content = Content {
            keys: names.iter().map(String::as_str).collect(),
            members: BTreeSet::new(),
            stores: "s",
            items: &items,
            data: "d".to_owned(),
        };
        Record::new(key, &ObjectKey::new(ObjectKind::ExternalSecret, "ns", "app"), &app(), &content)
    }

    #[test]
    fn a_record_proves_whose_it_is_and_nothing_else_does() {
        let (key, names) = (DigestKey::new(&[1; 32]), ["a".to_owned(), "b.c".to_owned()]);
        let record = Record::parse(&record(&key, &names).to_text()).unwrap();
        let (app, target) = (ObjectKey::new(ObjectKind::ExternalSecret, "ns", "app"), self::app());
        assert!(record.is_valid(&key, &app, &target));
        assert!(
            !record.is_valid(&key, &ObjectKey::new(ObjectKind::ExternalSecret, "other", "app"), &target),
            "copied into another namespace"
        );
        assert!(!record.is_valid(&key, &ObjectKey::new(ObjectKind::ExternalSecret, "ns", "app2"), &target), "of another object");
        assert!(!record.is_valid(&key, &app, &TargetName { name: "app2".to_owned(), ..target.clone() }), "copied to another Secret");
        assert!(!record.is_valid(&DigestKey::new(&[2; 32]), &app, &target), "of another installation");
        let tampered = Record { keys: vec!["a".to_owned()], ..record.clone() };
        assert!(!tampered.is_valid(&key, &app, &target));
        let tampered = Record { stores: "t".to_owned(), ..record };
        assert!(!tampered.is_valid(&key, &app, &target));
    }

    #[test]
    fn names_and_items_are_found_again_short_and_long() {
        let key = DigestKey::new(&[1; 32]);
        for count in [3, 500] {
            let names: Vec<String> = (0..count).map(|n| format!("some-key-{n:04}")).collect();
            let record = record(&key, &names);
            assert_eq!(record.to_text().contains("some-key"), count == 3, "long records hold hashes");
            assert!(names.iter().all(|name| record.has_key(name)), "{count}");
            assert!(!record.has_key("other"));
            assert_eq!(record.item(&key, &item(&names[0])), Some(key.mac("value", [names[0].as_bytes()]).short()));
            assert_eq!(record.item(&key, &item("other")), None);
            assert_eq!(record.missing_from(&names[1..]).len(), 1);
            assert!(record.missing_from(&names).is_empty());
        }
    }

    #[test]
    fn a_search_is_found_again_with_the_number_of_its_names() {
        let (key, app) = (DigestKey::new(&[1; 32]), ObjectKey::new(ObjectKind::ExternalSecret, "ns", "app"));
        let mac = key.mac("find", [&b"x"[..]]).short();
        let items = [Worth { item: item("a"), mac, names: Some(12) }, Worth { item: item("b"), mac, names: None }];
        let content = Content { keys: BTreeSet::new(), members: BTreeSet::new(), stores: "s", items: &items, data: "d".to_owned() };
        let record = Record::parse(&Record::new(&key, &app, &self::app(), &content).to_text()).unwrap();
        assert!(record.is_valid(&key, &app, &self::app()));
        assert_eq!((record.item(&key, &item("a")), record.names_of(&item("a"))), (Some(mac), Some(12)));
        assert_eq!((record.item(&key, &item("b")), record.names_of(&item("b"))), (Some(mac), None));
        assert_eq!(record.names_of(&item("c")), None);
    }

    #[test]
    fn searches_for_values_and_for_metadata_are_two_and_are_found_again_by_later_releases() {
        let search = |is_metadata| {
            let find = FindRef { provider: ProviderKind::File, listing: Listing::default(), regexp: None, allowed: None, is_metadata };
            item_id(&Item { store: "uid".to_owned(), wanted: Wanted::Find(Box::new(find)) })
        };
        assert_eq!(search(false), sha256_hex("uid\nfind\nNone\nNone\nNone"));
        assert_ne!(search(true), search(false));
    }

    #[test]
    fn two_objects_have_two_annotations_and_managers() {
        let (one, other) = (ObjectKey::new(ObjectKind::ExternalSecret, "ns", "a"), ObjectKey::new(ObjectKind::ExternalSecret, "ns", "b"));
        assert_ne!(annotation(&one), annotation(&other));
        assert_eq!(field_manager(&one), "keyferry-kes-a");
        let long = ObjectKey::new(ObjectKind::ExternalSecret, "ns", "x".repeat(250));
        assert!(field_manager(&long).len() <= 128);
    }

    #[test]
    fn malformed_annotations_are_none() {
        for text in ["", "{}", "[]", "{\"k\":1}"] {
            assert_eq!(Record::parse(text), None, "{text}");
        }
    }
}
