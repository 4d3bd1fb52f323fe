//! Digests of values and of what a target says about itself. Pure; the key is an argument.
//!
//! Of secret values only keyed MACs leave the process: without the key of this installation nobody can test a guess against one. What
//! stands openly in a ConfigMap has a plain hash, so that an operator of parameters needs no key, and no right to a Secret that holds one.

use std::{borrow::Cow, collections::BTreeMap, fmt};

use aws_lc_rs::{
    digest::{self, SHA256},
    hmac,
};

use crate::{
    item::{Fetched, Reading, Sighting},
    name::TargetKind,
    secret::SecretValue,
};

/// The MAC key of this installation (32 random bytes of the Secret `keyferry-digest-key`), or none: then digests are plain SHA-256.
#[derive(Clone)]
pub struct DigestKey {
    key: Option<hmac::Key>,
    id: Cow<'static, str>,
}

static PLAIN: DigestKey = DigestKey::plain();

impl DigestKey {
    #[must_use]
    pub fn new(bytes: &[u8]) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, bytes);
        let id = hex(&hmac::sign(&key, b"keyferry key id").as_ref()[..4]);
        Self { key: Some(key), id: id.into() }
    }

    /// No key at all, for what anybody may read.
    #[must_use]
    pub const fn plain() -> Self {
        Self { key: None, id: Cow::Borrowed("sha256") }
    }

    /// What a target of that kind says about itself is made with: the installation's key for a Secret, none for a `ConfigMap`.
    #[must_use]
    pub fn of(&self, kind: TargetKind) -> &Self {
        match kind {
            TargetKind::Secret => self,
            TargetKind::ConfigMap => &PLAIN,
        }
    }

    /// Whether guesses can be tested against its digests by anybody.
    #[must_use]
    pub const fn is_plain(&self) -> bool {
        self.key.is_none()
    }

    /// Eight hex digits that tell keys apart and say nothing about them; `sha256` without a key.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// MAC over parts that cannot be shifted into each other: each is preceded by its length.
    #[must_use]
    pub fn mac<'a>(&self, domain: &'a str, parts: impl IntoIterator<Item = &'a [u8]>) -> Mac {
        let parts = std::iter::once(domain.as_bytes()).chain(parts);
        let mut bytes = [0; 32];
        if let Some(key) = &self.key {
            let mut context = hmac::Context::with_key(key);
            feed(parts, |part| context.update(part));
            bytes.copy_from_slice(context.sign().as_ref());
        } else {
            let mut context = digest::Context::new(&SHA256);
            feed(parts, |part| context.update(part));
            bytes.copy_from_slice(context.finish().as_ref());
        }
        Mac(bytes)
    }
}

fn feed<'a>(parts: impl Iterator<Item = &'a [u8]>, mut update: impl FnMut(&[u8])) {
    for part in parts {
        update(&(part.len() as u64).to_be_bytes());
        update(part);
    }
}

/// HMAC-SHA256, or SHA-256 where there is no key.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Mac([u8; 32]);

/// The first eight bytes of a MAC, as annotations hold them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShortMac([u8; 8]);

impl Mac {
    #[must_use]
    pub fn short(&self) -> ShortMac {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&self.0[..8]);
        ShortMac(bytes)
    }

    #[must_use]
    pub fn to_hex(self) -> String {
        hex(&self.0)
    }
}

impl ShortMac {
    #[must_use]
    pub fn to_hex(self) -> String {
        hex(&self.0)
    }

    /// Sixteen hex digits; anything else is `None`.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        if text.len() != 16 || !text.is_ascii() {
            return None;
        }
        let mut bytes = [0; 8];
        for (byte, at) in bytes.iter_mut().zip((0..16).step_by(2)) {
            *byte = u8::from_str_radix(text.get(at..at + 2)?, 16).ok()?;
        }
        Some(Self(bytes))
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mac({})", hex(&self.0[..4]))
    }
}

impl fmt::Debug for ShortMac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ShortMac({})", hex(&self.0[..4]))
    }
}

/// MAC of what a look found; `None` when it found no value (absent or unknown).
///
/// It covers the bytes, not the version: the same bytes under a new version are no change of a target. Whether the system marks them as a
/// secret is covered, and of a search what was withheld: what may stand in a target, and whether it is kept, depends on both.
#[must_use]
pub fn of_sighting(key: &DigestKey, sighting: &Sighting) -> Option<Mac> {
    match sighting {
        Sighting::Value(Reading::Found(fetched)) => {
            Some(key.mac(if fetched.is_secret { "secret value" } else { "value" }, [fetched.value.expose()]))
        }
        Sighting::Found(Ok(found)) => {
            let values = found.values.iter().flat_map(|(name, Fetched { value, .. })| [name.as_str().as_bytes(), value.expose()]);
            let mark = (!found.withheld.is_empty()).then_some(&b"withheld"[..]);
            let withheld = found.withheld.iter().flat_map(|(name, fault)| [name.as_str().as_bytes(), fault.reason.as_str().as_bytes()]);
            let names = found.values.iter().filter(|(_, fetched)| fetched.is_secret).map(|(name, _)| name.as_str().as_bytes());
            let secret = found.values.values().any(|fetched| fetched.is_secret).then_some(&b"secret"[..]);
            Some(key.mac("find", values.chain(mark).chain(withheld).chain(secret).chain(names)))
        }
        Sighting::Value(Reading::Absent(_) | Reading::Unknown(_)) | Sighting::Found(Err(_)) => None,
    }
}

/// MAC over everything of a target that we own: type, label and data. Equal means that there is nothing to write.
#[must_use]
pub fn of_target(key: &DigestKey, kind: &str, label: &str, data: &BTreeMap<String, SecretValue>) -> Mac {
    let fixed = [kind.as_bytes(), label.as_bytes()];
    key.mac("data", fixed.into_iter().chain(data.iter().flat_map(|(name, value)| [name.as_bytes(), value.expose()])))
}

/// Lower-case hex digits of bytes that are no value.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        text.push(char::from(b"0123456789abcdef"[usize::from(byte >> 4)]));
        text.push(char::from(b"0123456789abcdef"[usize::from(byte & 15)]));
        text
    })
}

/// Lower-case hex digits of the plain SHA-256 of public text.
#[must_use]
pub fn sha256_hex(text: &str) -> String {
    hex(digest::digest(&SHA256, text.as_bytes()).as_ref())
}

#[cfg(test)]
mod tests {
    use super::{DigestKey, ShortMac, of_sighting};
    use crate::{
        fault::{Fault, Reason},
        item::{Fetched, Form, Found, Reading, Sighting},
        name::{ProviderKind, RemoteKey},
        secret::SecretValue,
    };

    #[test]
    fn parts_cannot_be_shifted_into_each_other() {
        let key = DigestKey::new(&[7; 32]);
        let one = key.mac("value", [&b"ab"[..], &b"c"[..]]);
        let other = key.mac("value", [&b"a"[..], &b"bc"[..]]);
        assert_ne!(one, other);
    }

    #[test]
    fn another_key_gives_another_mac_and_id() {
        let (one, other) = (DigestKey::new(&[1; 32]), DigestKey::new(&[2; 32]));
        assert_ne!(one.mac("value", [&b"x"[..]]), other.mac("value", [&b"x"[..]]));
        assert_ne!(one.id(), other.id());
    }

    #[test]
    fn what_a_search_withholds_changes_its_mac_and_nothing_withheld_does_not() {
        let key = DigestKey::new(&[4; 32]);
        let name = |text: &str| RemoteKey::parse(ProviderKind::File, text).unwrap();
        let of = |withheld: &[(&str, Reason)]| {
            let values =
                [(name("a"), Fetched { value: SecretValue::from("x".to_owned()), form: Form::Whole, version: None, is_secret: false })]
                    .into();
            let withheld = withheld.iter().map(|(text, reason)| (name(text), Fault::absent(*reason, ""))).collect();
            of_sighting(&key, &Sighting::Found(Ok(Found { values, withheld }))).unwrap()
        };
        assert_eq!(of(&[]), key.mac("find", [&b"a"[..], &b"x"[..]]));
        let all = [of(&[]), of(&[("b", Reason::Deleted)]), of(&[("b", Reason::Destroyed)]), of(&[("c", Reason::Deleted)])];
        assert!(all.iter().enumerate().all(|(n, mac)| all.iter().skip(n + 1).all(|other| other != mac)), "{all:?}");
    }

    #[test]
    fn a_value_that_becomes_a_secret_is_another_one() {
        let key = DigestKey::new(&[4; 32]);
        let name = |text: &str| RemoteKey::parse(ProviderKind::File, text).unwrap();
        let fetched = |is_secret| Fetched { value: SecretValue::from("x".to_owned()), form: Form::Whole, version: None, is_secret };
        let value = |is_secret| of_sighting(&key, &Sighting::Value(Reading::Found(fetched(is_secret)))).unwrap();
        assert_eq!(value(false), key.mac("value", [&b"x"[..]]));
        assert_ne!(value(false), value(true));
        let search = |one, other| {
            let values = [(name("a"), fetched(one)), (name("b"), fetched(other))].into();
            of_sighting(&key, &Sighting::Found(Ok(Found { values, withheld: [].into() }))).unwrap()
        };
        let all = [search(false, false), search(true, false), search(false, true), search(true, true)];
        assert!(all.iter().enumerate().all(|(n, mac)| all.iter().skip(n + 1).all(|other| other != mac)), "{all:?}");
    }

    #[test]
    fn a_short_mac_survives_its_text() {
        let mac = DigestKey::new(&[3; 32]).mac("value", [&b"x"[..]]).short();
        assert_eq!(ShortMac::from_hex(&mac.to_hex()), Some(mac));
        for text in ["", "00", "zzzzzzzzzzzzzzzz", "é2345678901234"] {
            assert_eq!(ShortMac::from_hex(text), None, "{text}");
        }
    }
}
