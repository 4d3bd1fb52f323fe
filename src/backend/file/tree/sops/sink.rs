//! Text that is written piece by piece: bounded, and no copy of it is left behind when it grows.

use zeroize::Zeroizing;

use super::{
    Flaw,
    document::{Kind, Node, Scalar},
};
use crate::secret::SecretValue;

/// Longest plain text.
const MOST: usize = 8 << 20;

pub struct Sink(Zeroizing<Vec<u8>>);

impl Sink {
    pub fn with_room(length: usize) -> Self {
        Self(Zeroizing::new(Vec::with_capacity(length)))
    }

    pub fn push(&mut self, part: &[u8]) -> Result<(), Flaw> {
        let length = self.0.len() + part.len();
        if length > MOST {
            return Err(Flaw::Unsupported("more than 8 MiB of plain text"));
        }
        if length > self.0.capacity() {
            let mut larger = Zeroizing::new(Vec::with_capacity(length * 2));
            larger.extend_from_slice(&self.0);
            self.0 = larger;
        }
        self.0.extend_from_slice(part);
        Ok(())
    }

    pub fn into_value(mut self) -> SecretValue {
        SecretValue::new(std::mem::take(&mut *self.0))
    }

    /// A document as JSON, on lines of their own.
    pub fn json(&mut self, node: &Node, depth: usize) -> Result<(), Flaw> {
        match node {
            Node::Null => self.push(b"null"),
            Node::Scalar(scalar) => self.json_scalar(scalar),
            Node::List(elements) => self.json_lines(b"[", b"]", depth, elements, |sink, element| sink.json(element, depth + 1)),
            Node::Map(members) => self.json_lines(b"{", b"}", depth, members, |sink, (name, member)| {
                sink.json_string(name)?;
                sink.push(b": ")?;
                sink.json(member, depth + 1)
            }),
        }
    }

    fn json_lines<T>(
        &mut self,
        open: &[u8],
        close: &[u8],
        depth: usize,
        items: &[T],
        mut write: impl FnMut(&mut Self, &T) -> Result<(), Flaw>,
    ) -> Result<(), Flaw> {
        self.push(open)?;
        for (index, item) in items.iter().enumerate() {
            self.push(if index == 0 { b"\n" } else { b",\n" })?;
            self.indent(depth + 1)?;
            write(self, item)?;
        }
        if !items.is_empty() {
            self.push(b"\n")?;
            self.indent(depth)?;
        }
        self.push(close)
    }

    fn indent(&mut self, depth: usize) -> Result<(), Flaw> {
        (0..depth).try_for_each(|_| self.push(b"  "))
    }

    fn json_scalar(&mut self, scalar: &Scalar) -> Result<(), Flaw> {
        let text = std::str::from_utf8(&scalar.text).map_err(|_| Flaw::Unsupported("a value that is no text in UTF-8"))?;
        match scalar.kind {
            Kind::Integer | Kind::Float if is_number(text) => self.push(text.as_bytes()),
            Kind::Truth => self.push(text.to_ascii_lowercase().as_bytes()),
            Kind::Text | Kind::Time | Kind::Integer | Kind::Float => self.json_string(text),
        }
    }

    fn json_string(&mut self, text: &str) -> Result<(), Flaw> {
        self.push(b"\"")?;
        let mut rest = text;
        while let Some(at) = rest.find(|character: char| matches!(character, '"' | '\\') || character < ' ') {
            self.push(&rest.as_bytes()[..at])?;
            match rest.as_bytes()[at] {
                b'"' => self.push(b"\\\"")?,
                b'\\' => self.push(b"\\\\")?,
                b'\n' => self.push(b"\\n")?,
                control => self.push(format!("\\u{control:04x}").as_bytes())?,
            }
            rest = &rest[at + 1..];
        }
        self.push(rest.as_bytes())?;
        self.push(b"\"")
    }
}

/// Whether JSON can write it so. What it cannot is delivered as text.
fn is_number(text: &str) -> bool {
    serde_json::from_str::<&serde_json::value::RawValue>(text).is_ok_and(|raw| raw.get() == text)
}
