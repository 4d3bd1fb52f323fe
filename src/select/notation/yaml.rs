//! YAML as JSON, event by event: one document, keys that are scalars, the core schema of YAML 1.2.

use std::{collections::HashMap, ops::Range};

use granit_parser::{Event, Parser, ScalarStyle, Tag};
use zeroize::Zeroizing;

use super::Sink;
use crate::select::json::Flaw;

pub(super) fn read(text: &str) -> Result<Zeroizing<String>, Flaw> {
    let mut writer = Writer { json: Sink::beside(text), open: Vec::new(), anchors: HashMap::new(), documents: 0 };
    for event in Parser::new_from_str(text) {
        writer.take(&event.map_err(|_| Flaw::NotYaml)?.0)?;
    }
    if writer.json.0.is_empty() {
        writer.json.push("null")?;
    }
    Ok(writer.json.0)
}

struct Writer {
    json: Sink,
    open: Vec<Open>,
    /// Where the JSON of an anchored node stands.
    anchors: HashMap<usize, Range<usize>>,
    documents: usize,
}

/// A sequence or mapping that has begun.
struct Open {
    is_mapping: bool,
    /// Nodes in it so far; of a mapping each second one is a value.
    nodes: usize,
    anchor: usize,
    start: usize,
}

impl Writer {
    fn take(&mut self, event: &Event<'_>) -> Result<(), Flaw> {
        match event {
            Event::DocumentStart(..) if self.documents > 0 => Err(Flaw::Several),
            Event::DocumentStart(..) => {
                self.documents += 1;
                Ok(())
            }
            Event::Scalar(text, style, anchor, tag) => self.scalar(text, *style, *anchor, tag.as_deref()),
            Event::SequenceStart(_, anchor, _) => self.begin(false, *anchor),
            Event::MappingStart(_, anchor, _) => self.begin(true, *anchor),
            Event::SequenceEnd => self.end("]"),
            Event::MappingEnd => self.end("}"),
            Event::Alias(anchor) => self.alias(*anchor),
            Event::UnresolvedAlias(_) => Err(Flaw::NotYaml),
            _ => Ok(()),
        }
    }

    /// Puts what stands between two nodes, and says whether this one is a key.
    fn separate(&mut self) -> Result<bool, Flaw> {
        let Some(open) = self.open.last_mut() else { return Ok(false) };
        let (is_value, is_first) = (open.is_mapping && open.nodes % 2 == 1, open.nodes == 0);
        let is_key = open.is_mapping && !is_value;
        open.nodes += 1;
        match (is_value, is_first) {
            (true, _) => self.json.push(":")?,
            (false, false) => self.json.push(",")?,
            (false, true) => {}
        }
        Ok(is_key)
    }

    fn scalar(&mut self, text: &str, style: ScalarStyle, anchor: usize, tag: Option<&Tag>) -> Result<(), Flaw> {
        let is_key = self.separate()?;
        let start = self.json.0.len();
        let is_plain = style == ScalarStyle::Plain && tag.is_none_or(|tag| tag.suffix() != "str");
        if is_key && is_plain && text == "<<" {
            return Err(Flaw::Merge);
        }
        match text {
            _ if is_key || !is_plain => self.json.string(text)?,
            "" | "~" | "null" | "Null" | "NULL" => self.json.push("null")?,
            "true" | "True" | "TRUE" => self.json.push("true")?,
            "false" | "False" | "FALSE" => self.json.push("false")?,
            _ => self.json.number(text)?,
        }
        self.note(anchor, start);
        Ok(())
    }

    fn begin(&mut self, is_mapping: bool, anchor: usize) -> Result<(), Flaw> {
        if self.separate()? {
            return Err(Flaw::NotYaml);
        }
        self.open.push(Open { is_mapping, nodes: 0, anchor, start: self.json.0.len() });
        self.json.push(if is_mapping { "{" } else { "[" })
    }

    fn end(&mut self, bracket: &str) -> Result<(), Flaw> {
        self.json.push(bracket)?;
        let open = self.open.pop().ok_or(Flaw::NotYaml)?;
        self.note(open.anchor, open.start);
        Ok(())
    }

    fn note(&mut self, anchor: usize, start: usize) {
        if anchor > 0 {
            self.anchors.insert(anchor, start..self.json.0.len());
        }
    }

    /// The node again. One that is not complete holds itself; one in place of a key has no text of its own.
    fn alias(&mut self, anchor: usize) -> Result<(), Flaw> {
        if self.separate()? {
            return Err(Flaw::NotYaml);
        }
        let node = self.anchors.get(&anchor).cloned().ok_or(Flaw::NotYaml)?;
        let node = Zeroizing::new(self.json.0[node].to_owned());
        self.json.push(&node)
    }
}
