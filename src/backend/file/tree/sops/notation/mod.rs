//! The notations of SOPS: each file as a tree and what SOPS wrote about it, and the tree as plain text again.
//!
//! A notation is told by the end of the name, as SOPS does; where that says nothing, by the first character.

mod dotenv;
mod ini;
mod json;
mod yaml;

use super::{
    Flaw,
    document::{Node, Scalar},
    metadata::Fields,
    sink::Sink,
};
use crate::secret::SecretValue;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notation {
    Yaml,
    Json,
    Dotenv,
    Ini,
    /// Any bytes, as one value of a JSON object.
    Binary,
}

/// Under this name stands what SOPS writes about a file.
const ABOUT: &str = "sops";
const NOT_UTF8: Flaw = Flaw::Damaged("it is no text");

impl Notation {
    pub fn of(key: &str, sealed: &[u8]) -> Self {
        let name = key.rsplit('/').next().unwrap_or(key).to_ascii_lowercase();
        let is_object = sealed.trim_ascii_start().starts_with(b"{");
        match name.rsplit_once('.').map(|(_, end)| end) {
            Some("yaml" | "yml") => Self::Yaml,
            Some("json") => Self::Json,
            Some("ini") => Self::Ini,
            Some("env") => Self::Dotenv,
            _ if is_object => Self::Binary,
            _ => Self::Dotenv,
        }
    }

    pub fn read(self, sealed: &[u8]) -> Result<(Node, Fields), Flaw> {
        let text = std::str::from_utf8(sealed).map_err(|_| NOT_UTF8)?;
        match self {
            Self::Yaml => split(yaml::read(text)?),
            Self::Json | Self::Binary => split(json::read(text)?),
            Self::Dotenv => dotenv::read(text),
            Self::Ini => split(ini::read(text)?),
        }
    }

    pub fn write(self, document: &Node) -> Result<SecretValue, Flaw> {
        match (self, document) {
            (Self::Binary, Node::Map(members)) => match &members[..] {
                [(name, Node::Scalar(Scalar { text, .. }))] if name == "data" => Ok(SecretValue::new(text.to_vec())),
                // JSON under a name that does not say so.
                _ => written(|sink| sink.json(document, 0)),
            },
            (Self::Dotenv, Node::Map(members)) => written(|sink| dotenv::write(members, sink)),
            (Self::Ini, Node::Map(sections)) => written(|sink| ini::write(sections, sink)),
            (Self::Yaml | Self::Json | Self::Binary | Self::Dotenv | Self::Ini, _) => written(|sink| sink.json(document, 0)),
        }
    }
}

fn written(write: impl FnOnce(&mut Sink) -> Result<(), Flaw>) -> Result<SecretValue, Flaw> {
    let mut sink = Sink::with_room(4096);
    write(&mut sink)?;
    Ok(sink.into_value())
}

/// Takes what SOPS wrote out of a document.
fn split(document: Node) -> Result<(Node, Fields), Flaw> {
    let Node::Map(mut members) = document else { return Err(Flaw::Damaged("it is no map")) };
    let mut fields = Fields::new();
    if let Some(at) = members.iter().position(|(name, _)| name == ABOUT) {
        flatten(String::new(), &members.remove(at).1, &mut fields);
    }
    if members.iter().any(|(name, _)| name == ABOUT) {
        return Err(Flaw::Damaged("what SOPS writes about it stands twice"));
    }
    Ok((Node::Map(members), fields))
}

fn flatten(path: String, node: &Node, fields: &mut Fields) {
    let below = |separator: &str, name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}{separator}{name}") };
    match node {
        Node::Null => {}
        Node::Scalar(scalar) => {
            fields.insert(path, String::from_utf8_lossy(&scalar.text).into_owned());
        }
        Node::List(elements) => {
            for (index, element) in elements.iter().enumerate() {
                flatten(below("__list_", &index.to_string()), element, fields);
            }
        }
        Node::Map(members) => members.iter().for_each(|(name, member)| flatten(below("__map_", name), member, fields)),
    }
}
