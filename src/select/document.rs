//! One document of many values: a hierarchy by the separator of their names, typed where the source is. Pure.
//!
//! Members are sorted and numbers keep their text, so the same values always give the same bytes. Names and strings are always quoted
//! and escaped as JSON has it, which is YAML too: no reader can take a string for a number, a date, `null` or `true`.

use std::collections::{BTreeMap, btree_map::Entry};

use serde_json::value::RawValue;
use zeroize::Zeroizing;

use super::{
    EntryFault, Merged, Piece,
    json::{self, Flaw, Shape},
    notation::Sink,
};
use crate::{
    fault::{Fault, Reason, quote},
    secret::SecretValue,
};

/// How the document is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Syntax {
    Json,
    Yaml,
}

/// How deep typed values and hierarchies may be nested.
const DEEPEST: usize = 64;
/// YAML takes a name only up to 1,024 characters as it is written, quotes and escapes included.
const LONGEST_NAME: usize = 1000;

/// A place in the hierarchy, with the key that made it.
enum Node<'a> {
    Branch(&'a str, Members<'a>),
    Leaf(&'a str, usize, &'a Piece),
}

type Members<'a> = BTreeMap<&'a str, Node<'a>>;

/// The document of all values.
///
/// # Errors
/// At the entry that gave the key: `KeyCollision` where one name lies below another, `InvalidData` for what no document can hold.
pub(super) fn render(values: &Merged, syntax: Syntax, separator: Option<&str>) -> Result<SecretValue, EntryFault> {
    let mut members = Members::new();
    for (key, (entry, piece)) in values {
        insert(&mut members, key, *entry, piece, separator).map_err(|fault| EntryFault { entry: *entry, fault })?;
    }
    let mut out = Sink::default();
    match syntax {
        Syntax::Json => {
            json_branch(&mut out, &members, 1)?;
            out.grow("\n");
        }
        Syntax::Yaml => yaml_branch(&mut out, &members, 0)?,
    }
    Ok(out.finish())
}

fn insert<'a>(members: &mut Members<'a>, key: &'a str, entry: usize, piece: &'a Piece, separator: Option<&str>) -> Result<(), Fault> {
    let names: Vec<&str> = separator.map_or_else(|| vec![key], |separator| key.split(separator).collect());
    let refuse = |why: &str| Err(Fault::invalid(Reason::InvalidData, format!("key {} {why}", quote(key))));
    if key.is_empty() {
        return refuse("is empty: correct target.trimPrefix, or rename what has exactly that name");
    }
    if names.iter().any(|name| name.is_empty()) {
        return refuse("has an empty part beside a separator: rename it, or set target.trimPrefix");
    }
    if names.iter().any(|name| written(name) > LONGEST_NAME) {
        return refuse("has a part that is longer than 1000 characters: rename it");
    }
    if names.len() > DEEPEST {
        return refuse("has more than 64 parts: choose another target.separator");
    }
    let Some((last, path)) = names.split_last() else { return refuse("has no part") };
    let mut here = members;
    for name in path {
        here = match here.entry(name).or_insert_with(|| Node::Branch(key, Members::new())) {
            Node::Branch(_, members) => members,
            Node::Leaf(other, ..) => return Err(collision(other, key)),
        };
    }
    match here.entry(last) {
        Entry::Vacant(place) => {
            place.insert(Node::Leaf(key, entry, piece));
            Ok(())
        }
        Entry::Occupied(place) => match place.get() {
            Node::Branch(other, _) | Node::Leaf(other, ..) => Err(collision(other, key)),
        },
    }
}

fn collision(one: &str, other: &str) -> Fault {
    let (upper, lower) = if one.len() <= other.len() { (one, other) } else { (other, one) };
    let detail = format!("key {} lies below key {}, which has a value of its own: rename one of them", quote(lower), quote(upper));
    Fault::invalid(Reason::KeyCollision, detail)
}

fn json_branch(out: &mut Sink, members: &Members<'_>, depth: usize) -> Result<(), EntryFault> {
    out.grow("{\n");
    for (at, (name, node)) in members.iter().enumerate() {
        if at > 0 {
            out.grow(",\n");
        }
        indent(out, depth);
        quoted(out, name);
        out.grow(": ");
        match node {
            Node::Branch(_, members) => json_branch(out, members, depth + 1)?,
            Node::Leaf(key, entry, piece) => leaf(out, key, *entry, piece)?,
        }
    }
    out.grow("\n");
    indent(out, depth - 1);
    out.grow("}");
    Ok(())
}

fn yaml_branch(out: &mut Sink, members: &Members<'_>, depth: usize) -> Result<(), EntryFault> {
    for (name, node) in members {
        indent(out, depth);
        quoted(out, name);
        match node {
            Node::Branch(_, members) => {
                out.grow(":\n");
                yaml_branch(out, members, depth + 1)?;
            }
            Node::Leaf(key, entry, piece) => {
                out.grow(": ");
                leaf(out, key, *entry, piece)?;
                out.grow("\n");
            }
        }
    }
    Ok(())
}

fn indent(out: &mut Sink, depth: usize) {
    for _ in 0..depth {
        out.grow("  ");
    }
}

fn leaf(out: &mut Sink, key: &str, entry: usize, piece: &Piece) -> Result<(), EntryFault> {
    let refuse = |why: String| {
        let detail = format!("the value of key {} {why}", quote(key));
        EntryFault { entry, fault: Fault::invalid(Reason::InvalidData, detail) }
    };
    if piece.is_json {
        let typed = json::parse(&piece.value).and_then(|document| typed(out, document, 0));
        return typed.map_err(|flaw| refuse(format!("cannot be typed, {flaw}: correct it")));
    }
    let text = json::text(&piece.value);
    let text = text.ok_or_else(|| refuse("is no text in UTF-8, which no document can hold: use target.format Keys".to_owned()))?;
    quoted(out, text);
    Ok(())
}

/// A typed value on one line: members sorted, numbers as they are written.
fn typed(out: &mut Sink, node: &RawValue, depth: usize) -> Result<(), Flaw> {
    if depth > DEEPEST {
        return Err(Flaw::TooDeep);
    }
    match json::shape(node) {
        Shape::Object => {
            let mut members = json::members(node)?;
            members.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
            if members.iter().any(|(name, _)| written(name) > LONGEST_NAME) {
                return Err(Flaw::LongName);
            }
            listed(out, ["{", "}"], &members, |out, (name, inner)| {
                quoted(out, name);
                out.grow(": ");
                typed(out, inner, depth + 1)
            })
        }
        Shape::Array => listed(out, ["[", "]"], &json::elements(node)?, |out, inner| typed(out, inner, depth + 1)),
        Shape::String => {
            quoted(out, &Zeroizing::new(json::decode(node)?));
            Ok(())
        }
        Shape::Null | Shape::Scalar => {
            out.grow(node.get());
            Ok(())
        }
    }
}

fn listed<T>(
    out: &mut Sink,
    [open, close]: [&str; 2],
    things: &[T],
    mut write: impl FnMut(&mut Sink, &T) -> Result<(), Flaw>,
) -> Result<(), Flaw> {
    out.grow(open);
    for (at, thing) in things.iter().enumerate() {
        if at > 0 {
            out.grow(", ");
        }
        write(out, thing)?;
    }
    out.grow(close);
    Ok(())
}

/// A string that JSON and every version of YAML read alike.
fn quoted(out: &mut Sink, text: &str) {
    out.grow("\"");
    let mut rest = text;
    while let Some(at) = rest.find(needs_escape) {
        out.grow(&rest[..at]);
        let mut after = rest[at..].chars();
        out.grow(&escape(after.next().unwrap_or_default()));
        rest = after.as_str();
    }
    out.grow(rest);
    out.grow("\"");
}

/// How many characters a name takes once it is quoted.
fn written(name: &str) -> usize {
    2 + name.chars().map(|character| if needs_escape(character) { escape(character).len() } else { 1 }).sum::<usize>()
}

/// What either of the two takes for a quote, a break or a mark of the encoding, or refuses. All of them are of the basic plane.
fn needs_escape(character: char) -> bool {
    character.is_control() || matches!(character, '"' | '\\' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}')
}

fn escape(character: char) -> String {
    match character {
        '"' => "\\\"".to_owned(),
        '\\' => "\\\\".to_owned(),
        '\n' => "\\n".to_owned(),
        '\r' => "\\r".to_owned(),
        '\t' => "\\t".to_owned(),
        other => format!("\\u{:04x}", u32::from(other)),
    }
}

#[cfg(test)]
mod tests {
    use super::{Merged, Piece, Syntax, render};
    use crate::{fault::Reason, secret::SecretValue};

    fn merged(values: &[(&str, &str, bool)]) -> Merged {
        let piece = |text: &str, is_json| Piece { value: SecretValue::from(text.to_owned()), is_json };
        values.iter().enumerate().map(|(at, (key, text, is_json))| ((*key).to_owned(), (at, piece(text, *is_json)))).collect()
    }

    fn rendered(values: &[(&str, &str, bool)], syntax: Syntax, separator: Option<&str>) -> String {
        String::from_utf8(render(&merged(values), syntax, separator).unwrap().expose().to_vec()).unwrap()
    }

    /// Texts that some reader of YAML takes for something else when they stand bare.
    const TRICKY: &[&str] = &[
        "5432",
        "1.10",
        "0x1F",
        "0o17",
        "017",
        "1_000",
        "1e3",
        ".inf",
        ".NaN",
        "null",
        "~",
        "Null",
        "true",
        "yes",
        "off",
        "NO",
        "y",
        "2024-01-01",
        "2024-01-01T00:00:00Z",
        "12:30:45",
        " leading",
        "trailing ",
        "a: b",
        "a #b",
        "- a",
        "? a",
        "&a",
        "*a",
        "!a",
        "|",
        ">",
        "%a",
        "@a",
        "`a`",
        "{a}",
        "[a]",
        "a,b",
        "'",
        "\"",
        "\\",
        "\\n",
        "one\ntwo\n",
        "\n\n",
        "\t",
        "\r\n",
        "\u{7f}",
        "\u{85}",
        "\u{a0}",
        "\u{2028}",
        "\u{2029}",
        "\u{feff}",
        "\u{fffe}",
        "\u{1}",
        "\u{0}",
        "gr\u{fc}n",
        "\u{1f980}",
        "---",
        "...",
        "<<",
        "=",
        "x",
    ];

    #[test]
    fn the_hierarchy_follows_the_separator_and_numbers_keep_their_text() {
        let values = [
            ("db.port", "12345678901234567890", true),
            ("db.host", "h", false),
            ("db.pool.max", "10", false),
            ("ratio", "1.10", true),
            ("list", r#"[{"z":1,"a":[true,null,"x"]}]"#, true),
        ];
        assert_eq!(
            rendered(&values, Syntax::Yaml, Some(".")),
            "\"db\":\n  \"host\": \"h\"\n  \"pool\":\n    \"max\": \"10\"\n  \"port\": 12345678901234567890\n\
             \"list\": [{\"a\": [true, null, \"x\"], \"z\": 1}]\n\"ratio\": 1.10\n",
        );
        assert_eq!(
            rendered(&values[..2], Syntax::Json, Some(".")),
            "{\n  \"db\": {\n    \"host\": \"h\",\n    \"port\": 12345678901234567890\n  }\n}\n",
        );
        assert_eq!(rendered(&values[1..2], Syntax::Json, None), "{\n  \"db.host\": \"h\"\n}\n");
    }

    #[test]
    fn a_string_stays_the_string_that_it_was_in_either_syntax() {
        for text in TRICKY {
            for (key, text) in [("k", *text), (if text.is_empty() { "k" } else { *text }, "v")] {
                let values = [(key, text, false)];
                let expected = serde_json::json!({ key: text });
                let json: serde_json::Value = serde_json::from_str(&rendered(&values, Syntax::Json, None)).unwrap();
                assert_eq!(json, expected);
                let yaml: serde_json::Value = serde_saphyr::from_str(&rendered(&values, Syntax::Yaml, None)).unwrap();
                assert_eq!(yaml, expected, "{key:?}: {text:?}");
            }
        }
    }

    #[test]
    fn a_value_and_a_hierarchy_under_one_name_are_refused_by_both_names() {
        for keys in [["a", "a.b"], ["a.b", "a.b.c"], ["a.b-c.d", "a.b-c"]] {
            let values = keys.map(|key| (key, "x", false));
            let fault = render(&merged(&values), Syntax::Json, Some(".")).unwrap_err().fault;
            assert_eq!(fault.reason, Reason::KeyCollision);
            assert!(keys.iter().all(|key| fault.detail.contains(&format!("{key:?}"))), "{fault}");
        }
    }

    #[test]
    fn a_typed_object_is_a_value_of_its_own_and_nothing_is_merged_into_it() {
        let fault = render(&merged(&[("a", r#"{"c": 1}"#, true), ("a.b", "x", false)]), Syntax::Yaml, Some(".")).unwrap_err().fault;
        assert_eq!(fault.reason, Reason::KeyCollision);
        let flat = rendered(&[("a", r#"{"c": 1}"#, true), ("a.b", "x", false)], Syntax::Yaml, None);
        assert_eq!(flat, "\"a\": {\"c\": 1}\n\"a.b\": \"x\"\n", "without a separator names have no parts");
    }

    #[test]
    fn the_same_values_give_the_same_bytes_however_their_source_writes_them() {
        let one = [("k", r#"{"b":[1,{"y":"\u00fc","x":null}],"a":1.0}"#, true)];
        let other = [("k", "{ \"a\" : 1.0,\n \"b\" : [ 1, {\"x\": null, \"y\": \"ü\"} ] }", true)];
        for syntax in [Syntax::Json, Syntax::Yaml] {
            assert_eq!(rendered(&one, syntax, None), rendered(&other, syntax, None));
        }
    }

    #[test]
    fn what_no_document_can_hold_names_its_key_and_shows_nothing() {
        let deep = "[".repeat(100_000) + &"]".repeat(100_000);
        let long = format!("{{\"{}\": 1}}", "cAnArY".repeat(200));
        for text in ["cAnArY{", "{\"cAnArY\":1,\"cAnArY\":2}", r#"["\ud800 cAnArY"]"#, &deep, &long] {
            let at_fault = render(&merged(&[("a", "x", false), ("k", text, true)]), Syntax::Yaml, None).unwrap_err();
            assert_eq!((at_fault.entry, at_fault.fault.reason), (1, Reason::InvalidData));
            let detail = at_fault.fault.detail;
            assert!(detail.contains("key \"k\"") && !detail.contains("cAnArY") && detail.len() < 300, "{detail}");
        }
        let binary = Merged::from([("bin".to_owned(), (3, Piece { value: SecretValue::new(vec![0xff, 0xfe]), is_json: false }))]);
        let at_fault = render(&binary, Syntax::Json, None).unwrap_err();
        assert_eq!((at_fault.entry, at_fault.fault.reason), (3, Reason::InvalidData));
        assert!(at_fault.fault.detail.contains("\"bin\"") && at_fault.fault.detail.contains("format Keys"), "{}", at_fault.fault);
    }

    #[test]
    fn a_name_that_cannot_be_parted_is_refused() {
        let (deep, long, escaped) = (vec!["a"; 65].join("."), "x".repeat(999), "\u{1}".repeat(200));
        for key in ["a..b", ".a", "a.", ".", "", &deep, &long, &escaped] {
            let fault = render(&merged(&[(key, "x", false)]), Syntax::Yaml, Some(".")).unwrap_err().fault;
            assert_eq!(fault.reason, Reason::InvalidData, "{key:?}");
        }
        let (deep, long) = (vec!["a"; 64].join("."), "x".repeat(998));
        for key in [deep.as_str(), &long] {
            let text = rendered(&[(key, "v", false)], Syntax::Yaml, Some("."));
            assert!(serde_saphyr::from_str::<serde_json::Value>(&text).is_ok(), "{text}");
        }
    }
}
