//! JSON as a tree: members in their order, numbers in their text.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::backend::file::tree::sops::{
    Flaw,
    document::{Kind, Node, Scalar},
    number,
};

const WRONG: Flaw = Flaw::Damaged("it is no valid JSON");

pub fn read(text: &str) -> Result<Node, Flaw> {
    node(serde_json::from_str(text).map_err(|_| WRONG)?)
}

/// The parser bounded how deep it is nested.
fn node(raw: &RawValue) -> Result<Node, Flaw> {
    let text = raw.get();
    match text.as_bytes().first() {
        Some(b'{') => {
            let Members(members) = serde_json::from_str(text).map_err(|_| WRONG)?;
            members.into_iter().map(|(name, raw)| Ok((name, node(raw)?))).collect::<Result<_, _>>().map(Node::Map)
        }
        Some(b'[') => {
            let elements: Vec<&RawValue> = serde_json::from_str(text).map_err(|_| WRONG)?;
            elements.into_iter().map(node).collect::<Result<_, _>>().map(Node::List)
        }
        Some(b'"') => serde_json::from_str::<String>(text).map(|text| Node::text(&text)).map_err(|_| WRONG),
        Some(b'n') => Ok(Node::Null),
        Some(b't' | b'f') => Ok(Node::Scalar(Scalar::new(Kind::Truth, text))),
        // Go reads what is no whole number of 64 bits as a float.
        _ if !text.contains(['.', 'e', 'E']) && number::integer(text).is_some() => Ok(Node::Scalar(Scalar::new(Kind::Integer, text))),
        _ => Ok(Node::Scalar(Scalar::new(Kind::Float, text))),
    }
}

struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(InOrder)
    }
}

struct InOrder;

impl<'de> Visitor<'de> for InOrder {
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
