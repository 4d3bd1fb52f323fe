//! RFC 9535 JSONPath over exact text: the path is searched in a tree of converted values, and the node is then cut out of the
//! text by its place. Pure.
//!
//! A tenant writes the path and may own the document, so that what would make the search explode is refused before it starts:
//! several selectors in one bracket (they multiply and give several nodes anyway), deep nesting, searches inside searches over
//! large documents, and large regular expressions, which are compiled anew for every node.

use regex::RegexBuilder;
use serde_json::{Map, Number, Value, value::RawValue};
use serde_json_path::JsonPath;
use zeroize::Zeroize;

use super::{
    json::{self, Flaw, Shape},
    property::Miss,
};

/// Levels of the document.
const MAX_DEPTH: usize = 64;
/// Brackets and parentheses inside each other in the path: its parser tries each several times per level.
const MAX_NESTING: usize = 5;
/// Nodes of the document: what the tree of them costs in memory.
const MAX_NODES: usize = 200_000;
/// Nodes visited by the search, at most: well below a second.
const MAX_COST: usize = 4_000_000;
/// Nodes visited by a search with regular expressions, how many of those it may have, and their memory in bytes.
const MAX_MATCHED: usize = 50_000;
const MAX_EXPRESSIONS: usize = 2;
const MAX_EXPRESSION: usize = 64 << 10;

/// The one node that the path gives.
pub(super) fn select<'a>(document: &'a RawValue, path: &str) -> Result<&'a RawValue, Miss> {
    let (searches, limit) = cost_of(path)?;
    let path = JsonPath::parse(path).map_err(|_| Miss::Syntax("it is no RFC 9535 JSONPath: correct it"))?;
    let mut nodes = 0;
    let tree = Tree(convert(document, MAX_DEPTH, &mut nodes)?);
    if nodes.checked_pow(searches).is_none_or(|cost| cost > limit) {
        return Err(Miss::Costly);
    }
    let found = path.query(&tree.0);
    let mut found = found.iter();
    let node = *found.next().ok_or(Miss::Missing)?;
    if found.any(|other| !std::ptr::eq(*other, node)) {
        return Err(Miss::Several);
    }
    cut(document, &tree.0, node)?.ok_or(Miss::Missing)
}

/// How many times each node may be visited over again, as a power (one, and one more per filter and per further `..`), and how
/// many visits are too many.
fn cost_of(path: &str) -> Result<(u32, usize), Miss> {
    let texts = quoted_of(path)?;
    let filters = path.matches('?').count();
    let descents = path.matches("..").count().saturating_sub(1);
    let searches = u32::try_from(1 + filters + descents).map_err(|_| Miss::Costly)?;
    match ["match(", "search("].iter().map(|function| path.matches(function).count()).sum() {
        0 => Ok((searches, MAX_COST)),
        1..=MAX_EXPRESSIONS if texts.iter().all(|text| is_small(text)) => Ok((searches, MAX_MATCHED)),
        _ => Err(Miss::Syntax("the JSONPath has too many or too large regular expressions: simplify it")),
    }
}

/// The quoted texts of a path, if its brackets are harmless.
fn quoted_of(path: &str) -> Result<Vec<&str>, Miss> {
    let (mut open, mut texts) = (Vec::new(), Vec::new());
    let (mut quote, mut is_escaped) = (None, false);
    for (at, character) in path.char_indices() {
        match (quote, character) {
            (Some(_), _) if is_escaped => is_escaped = false,
            (Some(_), '\\') => is_escaped = true,
            (Some((begin, mark)), _) if mark == character => {
                texts.push(&path[begin..=at]);
                quote = None;
            }
            (None, '"' | '\'') => quote = Some((at, character)),
            (None, '[' | '(') => open.push(character),
            (None, ']' | ')') => drop(open.pop()),
            (None, ',') if open.last() != Some(&'(') => {
                return Err(Miss::Syntax("a JSONPath with several selectors in one bracket gives several nodes: name one"));
            }
            (None, ',') if !path[at + 1..].trim_start().starts_with(['"', '\'']) => {
                return Err(Miss::Syntax("a regular expression in a JSONPath stands in quotes: write it into the path"));
            }
            (Some(_) | None, _) => {}
        }
        if open.len() > MAX_NESTING {
            return Err(Miss::Syntax("the JSONPath has too many brackets inside each other: simplify it"));
        }
    }
    Ok(texts)
}

/// Whether a quoted text is no large regular expression.
fn is_small(quoted: &str) -> bool {
    let inner = &quoted[1..quoted.len() - 1];
    let json = if quoted.starts_with('\'') { format!("\"{}\"", inner.replace("\\'", "'").replace('"', "\\\"")) } else { quoted.to_owned() };
    let text = serde_json::from_str::<String>(&json);
    text.is_ok_and(|text| RegexBuilder::new(&text).size_limit(MAX_EXPRESSION).build().is_ok())
}

/// A copy that serves the search only, overwritten when dropped.
struct Tree(Value);

impl Drop for Tree {
    fn drop(&mut self) {
        wipe(&mut self.0);
    }
}

fn wipe(value: &mut Value) {
    match value {
        Value::String(text) => text.zeroize(),
        Value::Array(elements) => elements.iter_mut().for_each(wipe),
        Value::Object(members) => members.values_mut().for_each(wipe),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn convert(node: &RawValue, depth: usize, nodes: &mut usize) -> Result<Value, Miss> {
    let depth = depth.checked_sub(1).ok_or(Flaw::TooDeep)?;
    *nodes += 1;
    if *nodes > MAX_NODES {
        return Err(Miss::Costly);
    }
    Ok(match json::shape(node) {
        Shape::Object => {
            let mut members = Map::new();
            for (name, value) in json::members(node)? {
                members.insert(name, convert(value, depth, nodes)?);
            }
            Value::Object(members)
        }
        Shape::Array => {
            Value::Array(json::elements(node)?.into_iter().map(|value| convert(value, depth, nodes)).collect::<Result<_, _>>()?)
        }
        Shape::String => Value::String(json::decode(node)?),
        Shape::Null => Value::Null,
        Shape::Scalar => scalar(node.get()),
    })
}

/// For comparisons in filters only; what is delivered is cut from the text.
fn scalar(text: &str) -> Value {
    match text {
        "true" => Value::Bool(true),
        "false" => Value::Bool(false),
        _ => serde_json::from_str::<Number>(text).map_or_else(|_| beyond(text), Value::Number),
    }
}

/// A number beyond what a float holds is the largest of its sign.
fn beyond(text: &str) -> Value {
    let largest = if text.starts_with('-') { f64::MIN } else { f64::MAX };
    Number::from_f64(largest).map_or(Value::Null, Value::Number)
}

/// Walks tree and text side by side to where the tree has exactly this node.
fn cut<'a>(text: &'a RawValue, tree: &Value, node: &Value) -> Result<Option<&'a RawValue>, Flaw> {
    if std::ptr::eq(tree, node) {
        return Ok(Some(text));
    }
    let inner: Vec<(&'a RawValue, &Value)> = match tree {
        Value::Object(members) => {
            json::members(text)?.into_iter().filter_map(|(name, value)| members.get(&name).map(|inner| (value, inner))).collect()
        }
        Value::Array(elements) => json::elements(text)?.into_iter().zip(elements).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
    };
    for (text, tree) in inner {
        if let Some(found) = cut(text, tree, node)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}
