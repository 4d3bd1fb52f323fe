//! Values that are maps of bytes: the Secrets and ConfigMaps of provider `kubernetes`. Each member is taken byte by byte; as text the whole
//! can be had only where all of it is text. Pure.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::value::RawValue;

use super::{
    json::{self, Flaw, Shape},
    property::{self, Miss},
};
use crate::secret::SecretValue;

/// The JSON object of all members, or the name of one that is no text.
pub(super) fn whole(value: &SecretValue) -> Result<Result<SecretValue, String>, Flaw> {
    let members = json::members(json::parse(value)?)?;
    match members.into_iter().find(|(_, node)| json::shape(node) != Shape::String) {
        Some((name, _)) => Ok(Err(name)),
        None => Ok(Ok(value.clone())),
    }
}

/// Every member's bytes.
pub(super) fn members(value: &SecretValue) -> Result<Vec<(String, SecretValue)>, Flaw> {
    json::members(json::parse(value)?)?.into_iter().map(|(name, node)| Ok((name, bytes(node)?))).collect()
}

/// A member by its literal name; else a path into a member that is JSON itself: the name, a dot, and a property of it.
pub(super) fn part(value: &SecretValue, property: &str) -> Result<Option<SecretValue>, Miss> {
    let document = json::parse(value)?;
    let members = json::members(document)?;
    let member = |name: &str| members.iter().find(|(known, _)| known == name).map(|(_, node)| *node);
    if let Some(node) = member(property) {
        return Ok(Some(bytes(node)?));
    }
    let inside = property.match_indices('.').find_map(|(at, _)| Some((member(&property[..at])?, &property[at + 1..])));
    match inside {
        Some((node, rest)) => Ok(property::select(json::parse(&bytes(node)?)?, rest)?.deliver()?),
        // A query over all members would meet the spelling of bytes that are no text.
        None if members.iter().any(|(_, node)| json::shape(node) != Shape::String) => Err(Miss::Missing),
        None => Ok(property::select(document, property)?.deliver()?),
    }
}

fn bytes(node: &RawValue) -> Result<SecretValue, Flaw> {
    match json::shape(node) {
        Shape::String => json::deliver(node),
        Shape::Object => match json::members(node)?.as_slice() {
            [(name, base64)] if name == "base64" => {
                let text = json::deliver(base64)?;
                BASE64_STANDARD.decode(text.expose()).map(SecretValue::new).map_err(|_| Flaw::NotJson)
            }
            _ => Err(Flaw::NotJson),
        },
        Shape::Array | Shape::Null | Shape::Scalar => Err(Flaw::NotJson),
    }
}
