//! YAML as a tree, event by event. Scalars are understood as the YAML of Go does, which is what SOPS uses.

use granit_parser::{Event, Parser, ScalarStyle, Tag};

use crate::backend::file::tree::sops::{
    Flaw,
    document::{Kind, Node, Scalar},
    number,
};

const WRONG: Flaw = Flaw::Damaged("it is no valid YAML");

pub fn read(text: &str) -> Result<Node, Flaw> {
    let mut builder = Builder { open: Vec::new(), root: None };
    for event in Parser::new_from_str(text) {
        builder.take(&event.map_err(|_| WRONG)?.0)?;
    }
    builder.root.ok_or(WRONG)
}

struct Builder {
    open: Vec<Open>,
    root: Option<Node>,
}

/// A list or map that has begun.
enum Open {
    List(Vec<Node>),
    /// With the name whose member comes next.
    Map(Vec<(String, Node)>, Option<String>),
}

impl Builder {
    fn take(&mut self, event: &Event<'_>) -> Result<(), Flaw> {
        match event {
            Event::Scalar(text, style, _, tag) => {
                if let Some(Open::Map(_, name @ None)) = self.open.last_mut() {
                    *name = Some(text.to_string());
                    return Ok(());
                }
                self.put(scalar(text, *style == ScalarStyle::Plain, tag.as_deref())?)
            }
            Event::SequenceStart(..) => self.begin(Open::List(Vec::new())),
            Event::MappingStart(..) => self.begin(Open::Map(Vec::new(), None)),
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(Open::List(elements)) => self.put(Node::List(elements)),
                Some(Open::Map(members, _)) => self.put(Node::Map(members)),
                None => Err(WRONG),
            },
            // SOPS writes out what they stand for.
            Event::Alias(_) | Event::UnresolvedAlias(_) => Err(Flaw::Unsupported("an alias (*name)")),
            Event::DocumentStart(..) if self.root.is_some() => Err(Flaw::Unsupported("several documents")),
            _ => Ok(()),
        }
    }

    fn begin(&mut self, open: Open) -> Result<(), Flaw> {
        if matches!(self.open.last(), Some(Open::Map(_, None))) {
            return Err(Flaw::Unsupported("a list or map as the name of a member"));
        }
        self.open.push(open);
        Ok(())
    }

    fn put(&mut self, node: Node) -> Result<(), Flaw> {
        match self.open.last_mut() {
            None => self.root = Some(node),
            Some(Open::List(elements)) => elements.push(node),
            Some(Open::Map(members, name)) => members.push((name.take().ok_or(WRONG)?, node)),
        }
        Ok(())
    }
}

fn scalar(text: &str, is_plain: bool, tag: Option<&Tag>) -> Result<Node, Flaw> {
    match tag.map(Tag::suffix) {
        None if is_plain => Ok(plain(text)),
        None | Some("str") => Ok(Node::text(text)),
        Some(_) => Err(Flaw::Unsupported("a tag (!name)")),
    }
}

fn plain(text: &str) -> Node {
    let kind = match text {
        "" | "~" | "null" | "Null" | "NULL" => return Node::Null,
        "true" | "True" | "TRUE" | "false" | "False" | "FALSE" => Kind::Truth,
        _ if number::time(text).is_some() => Kind::Time,
        _ if number::integer(text).is_some() => Kind::Integer,
        _ if number::float(text).is_some() => Kind::Float,
        _ => Kind::Text,
    };
    Node::Scalar(Scalar::new(kind, text))
}
