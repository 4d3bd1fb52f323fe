//! A file as a tree whose members keep their order: the MAC goes over them in it.

use std::borrow::Cow;

use zeroize::Zeroizing;

use super::number;

/// A part of a document.
#[derive(Clone)]
pub enum Node {
    Null,
    Scalar(Scalar),
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
}

/// One value with the text that stands for it: exact, nothing is converted.
#[derive(Clone)]
pub struct Scalar {
    pub kind: Kind,
    pub text: Zeroizing<Vec<u8>>,
}

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A text, or bytes that are none.
    Text,
    Integer,
    Float,
    Truth,
    Time,
}

impl Scalar {
    pub fn new(kind: Kind, text: &str) -> Self {
        Self { kind, text: Zeroizing::new(text.as_bytes().to_vec()) }
    }

    pub fn text(text: &str) -> Self {
        Self::new(Kind::Text, text)
    }

    /// How SOPS writes a value that is not encrypted into its MAC: as it understood it, not as it stands there.
    pub fn understood(&self) -> Cow<'_, [u8]> {
        let Ok(text) = std::str::from_utf8(&self.text) else { return Cow::Borrowed(&self.text) };
        let understood = match self.kind {
            Kind::Text => None,
            Kind::Integer => number::integer(text).map(|number| number.to_string()),
            Kind::Float => number::float(text).map(number::shown),
            Kind::Truth => Some(if text.eq_ignore_ascii_case("true") { "True" } else { "False" }.to_owned()),
            Kind::Time => number::time(text),
        };
        understood.map_or(Cow::Borrowed(&self.text), |text| Cow::Owned(text.into_bytes()))
    }
}

impl Node {
    pub fn text(text: &str) -> Self {
        Self::Scalar(Scalar::text(text))
    }
}
