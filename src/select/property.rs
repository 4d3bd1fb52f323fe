//! `property`: the literal member first, then a dotted path in the field's syntax, or an RFC 9535 JSONPath. Pure.

use serde_json::value::RawValue;
use zeroize::Zeroizing;

use super::{
    json::{self, Flaw, Shape},
    jsonpath,
};
use crate::secret::SecretValue;

/// Steps of one path; a longer one names nothing that people write.
const MAX_STEPS: usize = 128;
/// Queries inside queries.
const MAX_NESTING: usize = 4;

/// Why a property selects nothing. Texts name neither the property nor anything of the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Miss {
    /// The value's fault.
    #[error(transparent)]
    Value(#[from] Flaw),
    #[error("nothing is there")]
    Missing,
    #[error("it gives more than one node")]
    Several,
    #[error("the search is too costly for a value of this size: name the way to the node")]
    Costly,
    /// The spec's fault.
    #[error("{0}")]
    Syntax(&'static str),
}

/// What a property gave.
pub(super) enum Selected<'a> {
    Node(&'a RawValue),
    /// JSON text put together from nodes: the answer of `#`.
    Text(Zeroizing<String>),
}

impl Selected<'_> {
    /// The bytes to deliver; `None` for JSON null.
    pub(super) fn deliver(&self) -> Result<Option<SecretValue>, Flaw> {
        match self {
            Self::Node(node) if json::shape(node) == Shape::Null => Ok(None),
            Self::Node(node) => json::deliver(node).map(Some),
            Self::Text(text) => Ok(Some(SecretValue::new(text.as_bytes().to_vec()))),
        }
    }

    fn as_json(&self) -> &str {
        match self {
            Self::Node(node) => node.get(),
            Self::Text(text) => text,
        }
    }
}

/// Selects a part of a document.
pub(super) fn select<'a>(document: &'a RawValue, property: &str) -> Result<Selected<'a>, Miss> {
    if let Some(node) = member(document, property)? {
        return Ok(Selected::Node(node));
    }
    if property.starts_with('$') {
        return jsonpath::select(document, property).map(Selected::Node);
    }
    resolve(document, &parse(property, MAX_NESTING)?)?.ok_or(Miss::Missing)
}

/// The member of that literal name, where the node is an object that has it.
fn member<'a>(node: &'a RawValue, name: &str) -> Result<Option<&'a RawValue>, Flaw> {
    match json::shape(node) {
        Shape::Object => Ok(json::members(node)?.into_iter().find(|(key, _)| key == name).map(|(_, value)| value)),
        _ => Ok(None),
    }
}

enum Step {
    /// A member's name or an element's index.
    Name(String),
    /// `#`: how many elements, or the rest of the path in each.
    Each,
    /// `#(name=="x")`: the first element that matches; with `#` behind it all of them.
    Query { path: Vec<Step>, is_equal: bool, operand: Operand, all: bool },
}

enum Operand {
    Text(String),
    /// Unquoted: a string of that text, or a number, `true`, `false` written so.
    Bare(String),
}

fn parse(path: &str, nesting: usize) -> Result<Vec<Step>, Miss> {
    let mut steps = Vec::new();
    let mut rest = Some(path);
    while let Some(text) = rest {
        let (step, after) = match text.strip_prefix("#(") {
            Some(query) => parse_query(query, nesting)?,
            None => parse_name(text)?,
        };
        steps.push(step);
        rest = after;
        if steps.len() > MAX_STEPS {
            return Err(Miss::Syntax("the path has more than 128 steps: shorten it"));
        }
    }
    Ok(steps)
}

/// A name up to the next dot; `\` takes the next character as it is.
fn parse_name(text: &str) -> Result<(Step, Option<&str>), Miss> {
    let mut name = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '.' => return Ok((named(name, &text[..at]), Some(&text[at + 1..]))),
            '\\' => name.push(characters.next().ok_or(Miss::Syntax("the path ends in a backslash: remove it"))?.1),
            other => name.push(other),
        }
    }
    Ok((named(name, text), None))
}

fn named(name: String, written: &str) -> Step {
    if written == "#" { Step::Each } else { Step::Name(name) }
}

/// A query behind its `#(`.
fn parse_query(text: &str, nesting: usize) -> Result<(Step, Option<&str>), Miss> {
    const SYNTAX: Miss = Miss::Syntax("a query is written #(name==\"x\") or #(name!=\"x\"): correct it");
    let nesting = nesting.checked_sub(1).ok_or(Miss::Syntax("the path has too many queries inside queries: simplify it"))?;
    let end = find_outside(text, |rest| rest.starts_with(')')).ok_or(SYNTAX)?;
    let (inner, after) = (&text[..end], &text[end + 1..]);
    let at = find_outside(inner, |rest| rest.starts_with("==") || rest.starts_with("!=")).ok_or(SYNTAX)?;
    let (left, right) = (inner[..at].trim(), inner[at + 2..].trim());
    if right.is_empty() || left.ends_with(['<', '>', '=', '!', '%', '~']) || right.starts_with(['=', '~']) {
        return Err(SYNTAX);
    }
    let operand = if right.starts_with('"') {
        Operand::Text(serde_json::from_str(right).map_err(|_| SYNTAX)?)
    } else {
        Operand::Bare(right.to_owned())
    };
    let path = if left.is_empty() { Vec::new() } else { parse(left, nesting)? };
    let (all, after) = after.strip_prefix('#').map_or((false, after), |after| (true, after));
    let rest = match after.strip_prefix('.') {
        Some(rest) => Some(rest),
        None if after.is_empty() => None,
        None => return Err(SYNTAX),
    };
    Ok((Step::Query { path, is_equal: inner[at..].starts_with("=="), operand, all }, rest))
}

/// The first place outside quotes and inner parentheses where the rest begins as wanted.
fn find_outside(text: &str, begins: impl Fn(&str) -> bool) -> Option<usize> {
    let (mut depth, mut is_quoted, mut is_escaped) = (0_usize, false, false);
    for (at, character) in text.char_indices() {
        if !is_quoted && !is_escaped && depth == 0 && begins(&text[at..]) {
            return Some(at);
        }
        match character {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            '"' => is_quoted = !is_quoted,
            '(' if !is_quoted => depth += 1,
            ')' if !is_quoted => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    None
}

fn resolve<'a>(document: &'a RawValue, steps: &[Step]) -> Result<Option<Selected<'a>>, Flaw> {
    let mut node = document;
    for (at, step) in steps.iter().enumerate() {
        let rest = &steps[at + 1..];
        let next = match (step, json::shape(node)) {
            (Step::Name(name), Shape::Object) => member(node, name)?,
            (Step::Name(name), Shape::Array) => element(node, name)?,
            (Step::Each, Shape::Object) => member(node, "#")?,
            (Step::Each, Shape::Array) if rest.is_empty() => {
                return Ok(Some(Selected::Text(Zeroizing::new(json::elements(node)?.len().to_string()))));
            }
            (Step::Each, Shape::Array) => return gather(&json::elements(node)?, rest).map(Some),
            (Step::Query { path, is_equal, operand, all }, Shape::Array) => {
                let found = matching(node, path, *is_equal, operand, *all)?;
                if *all {
                    return gather(&found, rest).map(Some);
                }
                found.first().copied()
            }
            _ => None,
        };
        let Some(next) = next else { return Ok(None) };
        node = next;
    }
    Ok(Some(Selected::Node(node)))
}

fn element<'a>(array: &'a RawValue, index: &str) -> Result<Option<&'a RawValue>, Flaw> {
    match index.bytes().all(|byte| byte.is_ascii_digit()).then(|| index.parse::<usize>()) {
        Some(Ok(index)) => Ok(json::elements(array)?.get(index).copied()),
        _ => Ok(None),
    }
}

fn matching<'a>(array: &'a RawValue, path: &[Step], is_equal: bool, operand: &Operand, all: bool) -> Result<Vec<&'a RawValue>, Flaw> {
    let mut found = Vec::new();
    for element in json::elements(array)? {
        let Some(Selected::Node(value)) = resolve(element, path)? else { continue };
        if equals(value, operand) == is_equal {
            found.push(element);
            if !all {
                break;
            }
        }
    }
    Ok(found)
}

/// Numbers are compared as they are written: as floats two long identifiers could be one.
fn equals(value: &RawValue, operand: &Operand) -> bool {
    match operand {
        Operand::Text(text) => json::is_text(value, text),
        Operand::Bare(text) => json::is_text(value, text) || value.get() == text,
    }
}

/// The rest of the path in each node, as one array of what is there.
fn gather<'a>(nodes: &[&'a RawValue], rest: &[Step]) -> Result<Selected<'a>, Flaw> {
    let found: Vec<Selected<'a>> = nodes.iter().filter_map(|node| resolve(node, rest).transpose()).collect::<Result<_, _>>()?;
    let length = found.iter().map(|selected| selected.as_json().len() + 1).sum::<usize>() + 2;
    let mut text = Zeroizing::new(String::with_capacity(length));
    text.push('[');
    for (at, selected) in found.iter().enumerate() {
        text.push_str(if at == 0 { "" } else { "," });
        text.push_str(selected.as_json());
    }
    text.push(']');
    Ok(Selected::Text(text))
}
