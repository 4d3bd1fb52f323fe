//! JSON as text that is borrowed, level by level: no number is converted, no string is copied before it is delivered. Pure.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;
use zeroize::Zeroizing;

use crate::secret::SecretValue;

/// Why a text cannot be read. Nothing of the text itself is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Flaw {
    #[error("it is no valid JSON")]
    NotJson,
    #[error("an object in it has the same member twice")]
    Duplicate,
    #[error("it is nested too deep")]
    TooDeep,
    #[error("it is no text in UTF-8")]
    NotText,
    #[error("it is no valid YAML with scalars as keys")]
    NotYaml,
    #[error("it uses a merge key (<<): write the members out")]
    Merge,
    #[error("it holds several documents: keep one")]
    Several,
    #[error("it is no valid TOML")]
    NotToml,
    #[error("it is no valid .env file")]
    NotDotenv,
    #[error("it becomes longer than 8 MiB")]
    TooLarge,
    #[error("a member's name in it is longer than 1000 bytes")]
    LongName,
}

/// What a node is, told by its first character: the text was already checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Object,
    Array,
    String,
    Null,
    /// A number, `true` or `false`: delivered as it is written.
    Scalar,
}

/// The one JSON text that the value is.
pub(super) fn parse(value: &SecretValue) -> Result<&RawValue, Flaw> {
    serde_json::from_slice(value.expose()).map_err(|_| Flaw::NotJson)
}

/// The text that the value is; none when it is no text.
pub(super) fn text(value: &SecretValue) -> Option<&str> {
    std::str::from_utf8(value.expose()).ok()
}

pub(super) fn shape(node: &RawValue) -> Shape {
    match node.get().as_bytes().first() {
        Some(b'{') => Shape::Object,
        Some(b'[') => Shape::Array,
        Some(b'"') => Shape::String,
        Some(b'n') => Shape::Null,
        _ => Shape::Scalar,
    }
}

/// The members of an object in their order. Two of one name are refused: readers disagree about which one counts.
pub(super) fn members(object: &RawValue) -> Result<Vec<(String, &RawValue)>, Flaw> {
    let Members(members) = serde_json::from_str(object.get()).map_err(|_| Flaw::NotJson)?;
    let mut names: Vec<&str> = members.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    if names.windows(2).any(|pair| pair[0] == pair[1]) { Err(Flaw::Duplicate) } else { Ok(members) }
}

/// The elements of an array.
pub(super) fn elements(array: &RawValue) -> Result<Vec<&RawValue>, Flaw> {
    serde_json::from_str(array.get()).map_err(|_| Flaw::NotJson)
}

/// The bytes that are delivered for a node: a string's text, anything else as it is written.
pub(super) fn deliver(node: &RawValue) -> Result<SecretValue, Flaw> {
    match shape(node) {
        Shape::String => decode(node).map(SecretValue::from),
        Shape::Object | Shape::Array | Shape::Null | Shape::Scalar => Ok(SecretValue::from(node.get().to_owned())),
    }
}

/// Whether a string node is exactly this text.
pub(super) fn is_text(node: &RawValue, text: &str) -> bool {
    shape(node) == Shape::String && decode(node).is_ok_and(|decoded| *Zeroizing::new(decoded) == text)
}

/// The text of a string node, decoded into one buffer that never grows, so that no copy of a value is left behind. The caller
/// overwrites it.
pub(super) fn decode(node: &RawValue) -> Result<String, Flaw> {
    let inner = node.get().strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).ok_or(Flaw::NotJson)?;
    let mut text = Zeroizing::new(String::with_capacity(inner.len()));
    let mut rest = inner;
    while let Some(at) = rest.find('\\') {
        text.push_str(&rest[..at]);
        let (character, after) = escaped(&rest[at + 1..]).ok_or(Flaw::NotJson)?;
        text.push(character);
        rest = after;
    }
    text.push_str(rest);
    Ok(std::mem::take(&mut *text))
}

/// One escape after its backslash, and what follows. A lone surrogate is no character.
fn escaped(text: &str) -> Option<(char, &str)> {
    let (&kind, after) = text.as_bytes().split_first()?;
    let plain = match kind {
        b'"' | b'\\' | b'/' => char::from(kind),
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        b'u' => {
            let (high, rest) = code_unit(&text[1..])?;
            if let Some(character) = char::from_u32(high) {
                return Some((character, rest));
            }
            let (low, rest) = code_unit(rest.strip_prefix("\\u")?)?;
            let pair = [u16::try_from(high).ok()?, u16::try_from(low).ok()?];
            return Some((char::decode_utf16(pair).next()?.ok()?, rest));
        }
        _ => return None,
    };
    text.get(text.len() - after.len()..).map(|rest| (plain, rest))
}

fn code_unit(text: &str) -> Option<(u32, &str)> {
    Some((u32::from_str_radix(text.get(..4)?, 16).ok()?, text.get(4..)?))
}

struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MembersVisitor)
    }
}

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Members<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(Members(members))
    }
}
