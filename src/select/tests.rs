//! What is selected, exactly, and what is refused without showing it.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Document, EntryFault, Layout, MAX_BYTES, MAX_KEYS, Syntax, assemble};
use crate::{
    crd::v1alpha1::{ExternalParameterSpec, ExternalSecretSpec},
    fault::{Class, Fault, Reason},
    item::{Fetched, Form, Reading, Sighting},
    name::{ProviderKind, RemoteKey, TargetKind},
    secret::SecretValue,
};

/// Stands in values that must not be shown.
const CANARY: &str = "cAnArY";

fn value(bytes: &[u8]) -> Sighting {
    Sighting::Value(Reading::Found(Fetched { value: SecretValue::new(bytes.to_vec()), form: Form::Whole, version: None, is_secret: false }))
}

fn names(found: &[(&str, &str)]) -> Sighting {
    let fetched = |text: &str| Fetched { value: SecretValue::from(text.to_owned()), form: Form::Whole, version: None, is_secret: false };
    let key = |name: &str| RemoteKey::parse(ProviderKind::File, name).unwrap();
    let values: std::collections::BTreeMap<_, _> = found.iter().map(|(name, text)| (key(name), fetched(text))).collect();
    Sighting::Found(Ok(values.into()))
}

/// Assembles a spec (without its store) over sightings in the order of its entries, as lossy text.
fn assembled(spec: Value, sightings: &[Sighting]) -> Result<BTreeMap<String, String>, Vec<EntryFault>> {
    let mut spec = spec;
    spec["secretStoreRef"] = json!({"name": "s"});
    let spec: ExternalSecretSpec = serde_json::from_value(spec).expect("the fixture is a spec");
    let entries: Vec<_> = spec.entries().expect("the fixture has entries").into_iter().zip(sightings).collect();
    assert_eq!(entries.len(), sightings.len());
    let data = assemble(&Layout::keys(TargetKind::Secret), &entries)?.data;
    Ok(data.into_iter().map(|(key, value)| (key, String::from_utf8_lossy(value.expose()).into_owned())).collect())
}

/// The one value that `property` selects from a document, or the fault.
fn selected(document: &str, property: &str) -> Result<String, Fault> {
    let spec = json!({"data": [{"secretKey": "k", "remoteRef": {"key": "doc", "property": property}}]});
    assembled(spec, &[value(document.as_bytes())]).map(|mut data| data.remove("k").unwrap()).map_err(only)
}

fn extracted(document: &str) -> Result<BTreeMap<String, String>, Fault> {
    assembled(json!({"dataFrom": [{"extract": {"key": "doc"}}]}), &[value(document.as_bytes())]).map_err(only)
}

fn only(mut faults: Vec<EntryFault>) -> Fault {
    assert_eq!(faults.len(), 1, "{faults:?}");
    faults.remove(0).fault
}

fn pairs(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, text)| ((*key).to_owned(), (*text).to_owned())).collect()
}

/// A Secret or ConfigMap as provider `kubernetes` gives it.
fn map(document: &str) -> Sighting {
    Sighting::Value(Reading::Found(Fetched {
        value: SecretValue::from(document.to_owned()),
        form: Form::Map,
        version: None,
        is_secret: false,
    }))
}

#[test]
fn a_member_of_a_map_is_taken_byte_by_byte() {
    let document =
        r#"{"a.b":"dots","bin":{"base64":"AP8="},"conf":"{\"x\": {\"y\": 7}, \"base64\": \"no\"}","empty":"","text":"\u00e9\n"}"#;
    let of = |property: Option<&str>| {
        let mut reference = json!({"key": "doc"});
        reference["property"] = json!(property);
        let spec = json!({"secretStoreRef": {"name": "s"}, "data": [{"secretKey": "k", "remoteRef": reference}]});
        let spec: ExternalSecretSpec = serde_json::from_value(spec).unwrap();
        let data = assemble(&Layout::keys(TargetKind::Secret), &[(spec.entries().unwrap()[0], &map(document))]);
        data.map(|assembled| assembled.data["k"].expose().to_vec()).map_err(|faults| only(faults).reason)
    };
    let cases = [
        (Some("bin"), Ok(&b"\x00\xff"[..])),
        (Some("a.b"), Ok(b"dots")),
        (Some("text"), Ok("é\n".as_bytes())),
        (Some("conf.x.y"), Ok(b"7")),
        (Some("conf.x.z"), Err(Reason::InvalidData)),
        (Some("bin.base64"), Err(Reason::InvalidData)),
        (Some("none"), Err(Reason::InvalidData)),
        (Some("empty"), Err(Reason::EmptyValue)),
        (None, Err(Reason::InvalidData)),
    ];
    for (property, expected) in cases {
        assert_eq!(of(property), expected.map(<[u8]>::to_vec), "{property:?}");
    }
}

#[test]
fn a_map_is_one_text_only_where_all_of_it_is_text() {
    let spec = json!({"data": [{"secretKey": "k", "remoteRef": {"key": "doc"}}]});
    let text = r#"{"a":"1","b":"x"}"#;
    assert_eq!(assembled(spec.clone(), &[map(text)]).map_err(only), Ok(pairs(&[("k", text)])));
    let fault = only(assembled(spec, &[map(r#"{"a":"cAnArY","bin":{"base64":"AP8="}}"#)]).unwrap_err());
    assert_eq!(fault.reason, Reason::InvalidData);
    assert!(fault.detail.contains("\"bin\"") && fault.detail.contains("dataFrom.extract") && !fault.detail.contains(CANARY), "{fault}");
}

#[test]
fn extract_gives_every_member_of_a_map_byte_by_byte() {
    let of = |document: &str| {
        let spec = json!({"secretStoreRef": {"name": "s"}, "dataFrom": [{"extract": {"key": "doc"}}]});
        let spec: ExternalSecretSpec = serde_json::from_value(spec).unwrap();
        let data = assemble(&Layout::keys(TargetKind::Secret), &[(spec.entries().unwrap()[0], &map(document))]);
        data.map(|assembled| assembled.data.into_iter().map(|(key, value)| (key, value.expose().to_vec())).collect::<Vec<_>>())
            .map_err(|faults| only(faults).reason)
    };
    let expected = vec![("bin".to_owned(), vec![0, 255]), ("empty".to_owned(), vec![]), ("tls.crt".to_owned(), b"x".to_vec())];
    assert_eq!(of(r#"{"bin":{"base64":"AP8="},"empty":"","tls.crt":"x"}"#), Ok(expected));
    assert_eq!(of("{}"), Err(Reason::EmptyValue));
    for broken in [r#"{"a":{"other":"AP8="}}"#, r#"{"a":{"base64":"%"}}"#, r#"{"a":1}"#, "[]", "{"] {
        assert_eq!(of(broken), Err(Reason::InvalidData), "{broken}");
    }
}

#[test]
fn bytes_are_bytes() {
    let spec: ExternalSecretSpec = serde_json::from_value(json!({
        "secretStoreRef": {"name": "s"}, "data": [{"secretKey": "k", "remoteRef": {"key": "doc"}}]
    }))
    .unwrap();
    for bytes in [&b"\xff\x00\xfe"[..], b" {\"a\": 1}\n", b"null", b"\"x\"", b"\r\n"] {
        let data = assemble(&Layout::keys(TargetKind::Secret), &[(spec.entries().unwrap()[0], &value(bytes))]).unwrap().data;
        assert_eq!(data["k"].expose(), bytes);
    }
}

/// Holds every shape that a path can meet.
const DOCUMENT: &str = r##"{
        "plain": "x", "escaped": "a\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00", "unicode": "é😀", "empty": {}, "list": [],
        "big": 12345678901234567890, "money": 1.10, "huge": 1e400, "minus": -0.0, "yes": true, "no": false,
        "a": {"b": {"c": "deep"}, "0": "zero", "list": [ 1.50, {"x": "y"}, "s" ]},
        "a.b": "literal", "a.b.c": "longer literal", "dot.ted": {"in.ner": "both"}, "#": "hash", "$.plain": "dollar", "$": "root",
        "users": [{"name": "ann", "id": 1, "pw": "p1", "tags": ["t"]}, {"name": "bob", "id": 2, "pw": "p2"}, {"name": "bob", "id": 3, "pw": "p3"}, {"id": 4}],
        "rows": [[1, 2], [3, 4], "x"], "words": ["red", "green"], "esc": {"back\\slash": "s", "": "nameless"},
        "spaced" : { "k" : 1 , "l":[ ] }
    }"##;

/// Pairs of a property and the text that it selects from [`DOCUMENT`].
fn check(cases: &[(&str, &str)]) {
    for (property, expected) in cases {
        assert_eq!(selected(DOCUMENT, property), Ok((*expected).to_owned()), "{property}");
    }
}

#[test]
fn a_member_is_delivered_as_it_is_written_and_its_literal_name_comes_first() {
    check(&[
        ("plain", "x"),
        ("escaped", "a\"\\/\u{8}\u{c}\n\r\t\u{e9}\u{1f600}"),
        ("unicode", "é😀"),
        ("big", "12345678901234567890"),
        ("money", "1.10"),
        ("huge", "1e400"),
        ("minus", "-0.0"),
        ("yes", "true"),
        ("no", "false"),
        ("empty", "{}"),
        ("list", "[]"),
        ("spaced", r#"{ "k" : 1 , "l":[ ] }"#),
        ("a.b", "literal"),
        ("a.b.c", "longer literal"),
        ("#", "hash"),
        ("$.plain", "dollar"),
        ("$", "root"),
    ]);
}

#[test]
fn dotted_paths_select_as_manifests_use_them() {
    check(&[
        ("a.0", "zero"),
        ("a.list.0", "1.50"),
        ("a.list.1.x", "y"),
        ("a.list.2", "s"),
        ("dot\\.ted.in\\.ner", "both"),
        ("esc.back\\\\slash", "s"),
        ("esc.", "nameless"),
        ("users.1.pw", "p2"),
        ("users.#", "4"),
        ("users.#.pw", r#"["p1","p2","p3"]"#),
        ("users.#.tags.0", r#"["t"]"#),
        ("users.#.nothing", "[]"),
        ("rows.#.0", "[1,3]"),
        ("rows.0.#", "2"),
        ("rows.#.#", "[2,2]"),
        (r#"users.#(name=="bob").pw"#, "p2"),
        (r#"users.#( name == "bob" ).id"#, "2"),
        (r#"users.#(name=="bob")#.pw"#, r#"["p2","p3"]"#),
        (r#"users.#(name!="ann").pw"#, "p2"),
        ("users.#(name==ann).pw", "p1"),
        ("users.#(id==3).pw", "p3"),
        (r#"users.#(tags.0=="t").pw"#, "p1"),
        (r#"users.#(tags.#(=="t")=="t").pw"#, "p1"),
        (r#"words.#(=="green")"#, "green"),
        (r#"words.#(!="green")#"#, r#"["red"]"#),
        (r#"users.#(name=="x.y)")#"#, "[]"),
    ]);
}

#[test]
fn a_jsonpath_selects_the_exact_text() {
    check(&[
        ("$.a.b.c", "deep"),
        ("$['a.b']", "literal"),
        ("$.big", "12345678901234567890"),
        ("$.money", "1.10"),
        ("$.huge", "1e400"),
        ("$.a.list[0]", "1.50"),
        ("$.a.list[-1]", "s"),
        ("$.spaced", r#"{ "k" : 1 , "l":[ ] }"#),
        ("$..c", "deep"),
        ("$.users[?@.id == 3].pw", "p3"),
        ("$.users[?(@.name == 'ann' && @.id == 1)].pw", "p1"),
        ("$.words[?length(@) == 5]", "green"),
        ("$.a['0']", "zero"),
        ("$.users[?match(@.name, 'a.n')].pw", "p1"),
        (r#"$.users[?search(@.name, "^\\x61")].pw"#, "p1"),
        ("$.words[?search(@, 're[^e]')]", "red"),
    ]);
}

#[test]
fn a_dotted_path_works_on_an_array_and_nothing_on_a_scalar() {
    assert_eq!(selected(r#"[{"a": "x"}]"#, "0.a").unwrap(), "x");
    assert_eq!(selected("[1,2,3]", "#").unwrap(), "3");
    assert_eq!(selected(r#" ["only"] "#, "$[0]").unwrap(), "only");
    assert_eq!(selected("5", "a").unwrap_err().reason, Reason::InvalidData);
    assert_eq!(selected("5", "$").unwrap(), "5");
}

#[test]
fn what_is_not_there_is_named_with_its_remedy() {
    let document = r#"{"a": {"b": [1, 2]}, "s": "cAnArY", "x": null}"#;
    for property in
        ["b", "a.c", "a.b.2", "a.b.-1", "a.b.x", "a.b.99999999999999999999999", "s.x", "a.#", "x.y", "a..b", "$.b", "$.a.b[2]", "$..z"]
    {
        let fault = selected(document, property).unwrap_err();
        assert_eq!((fault.class, fault.reason), (Class::Invalid, Reason::InvalidData), "{property}");
        assert!(fault.detail.contains("remote key \"doc\" has no property") && fault.detail.contains("correct the property"), "{fault}");
    }
}

#[test]
fn a_property_that_cannot_be_one_is_the_specs_fault() {
    let deep = "[?".repeat(8);
    let cases = [
        "a\\",
        "#(a",
        "#()",
        "#(a)",
        "#(a>1)",
        "#(a>=1)",
        "#(a=~\"x\")",
        "#(a==)",
        "#(a==\"x)",
        "#(a==\"x\")b",
        "$[",
        "$.a[0,1]",
        "$['a','b']",
        "$x",
        "$.a[?match(@.b, @.c)]",
        "$.a[?match(@.b, '(')]",
        "$.a[?search(@.b, '(x{99}){99}')]",
        "$.a[?match(@.b, 'x') || match(@.b, 'y') || match(@.b, 'z')]",
        "$[?@[0,0]]",
        "#(#(#(#(#(a==1)==1)==1)==1)==1)",
    ];
    for property in cases.into_iter().map(str::to_owned).chain([format!("${deep}@"), "a.".repeat(200)]) {
        let fault = selected(r#"{"z": 1}"#, &property).unwrap_err();
        assert_eq!((fault.class, fault.reason), (Class::Invalid, Reason::InvalidSpec), "{property}: {fault}");
        assert!(fault.detail.contains("doc"), "{fault}");
    }
}

#[test]
fn a_jsonpath_must_give_one_node() {
    for property in ["$.a[*]", "$..b", "$.a[0:2]"] {
        let fault = selected(r#"{"a": [{"b": 1}, {"b": 2}]}"#, property).unwrap_err();
        assert_eq!(fault.reason, Reason::InvalidData);
        assert!(fault.detail.contains("more than one node"), "{property}: {fault}");
    }
    // Seen twice, but one node.
    assert_eq!(selected(r#"{"a": {"a": {"b": 1}}}"#, "$..a..b").unwrap(), "1");
}

#[test]
fn a_search_that_would_explode_is_refused_before_it_starts() {
    let wide = format!("[{}]", vec!["[1]"; 5000].join(","));
    let fault = selected(&wide, "$[?@[?@ > 1]]").unwrap_err();
    assert!(fault.detail.contains("too costly"), "{fault}");
    assert_eq!(selected(&wide, "$[4999][0]").unwrap(), "1");
    let huge = format!("[{}]", vec!["1"; 200_000].join(","));
    assert!(selected(&huge, "$[0]").unwrap_err().detail.contains("too costly"));
    assert_eq!(selected(&huge, "199999").unwrap(), "1");
    let deep = format!("{}{}", "[".repeat(200_000), "]".repeat(200_000));
    assert!(selected(&deep, "$[0]").unwrap_err().detail.contains("too deep"));
    assert_eq!(selected(&deep, "0.0.0").unwrap().len(), 2 * (200_000 - 3));
}

#[test]
fn a_value_that_is_no_json_is_refused_without_showing_it() {
    let documents = [
        CANARY.to_owned(),
        format!("{{\"{CANARY}\": "),
        format!("{{\"a\": \"{CANARY}\"}} {CANARY}"),
        format!("{{'a': '{CANARY}'}}"),
        format!("{{\"a\": \"{CANARY}\\ud800\"}}"),
        format!("{{\"a\": \"{CANARY}\\x\"}}"),
        format!("{{\"a\": 01, \"b\": \"{CANARY}\"}}"),
        String::new(),
    ];
    for document in &documents {
        for fault in [selected(document, "a").unwrap_err(), selected(document, "$.a").unwrap_err()] {
            assert_eq!(fault.reason, Reason::InvalidData, "{document}");
            assert!(!format!("{fault:?}").contains(CANARY) && fault.detail.contains("doc"), "{fault}");
        }
        let fault = extracted(document).unwrap_err();
        assert!(matches!(fault.reason, Reason::InvalidData | Reason::EmptyValue), "{document}: {fault}");
        assert!(!format!("{fault:?}").contains(CANARY), "{fault}");
    }
}

#[test]
fn a_member_that_stands_twice_is_refused() {
    for fault in [
        selected(r#"{"a": 1, "a": 2}"#, "a").unwrap_err(),
        selected(r#"{"a": 1, "\u0061": 2}"#, "$.a").unwrap_err(),
        extracted(r#"{"a": 1, "b": 3, "a": 2}"#).unwrap_err(),
    ] {
        assert_eq!(fault.reason, Reason::InvalidData);
        assert!(fault.detail.contains("same member twice"), "{fault}");
    }
}

#[test]
fn an_empty_or_null_value_is_never_delivered() {
    for (document, property) in
        [(r#"{"a": ""}"#, "a"), (r#"{"a": null}"#, "a"), (r#"{"a": null}"#, "$.a"), ("null", "$"), (r#"{"a": [""]}"#, "a.0")]
    {
        assert_eq!(selected(document, property).unwrap_err().reason, Reason::EmptyValue, "{document} {property}");
    }
    let whole = assembled(json!({"data": [{"secretKey": "k", "remoteRef": {"key": "doc"}}]}), &[value(b"")]).map_err(only);
    let fault = whole.unwrap_err();
    assert_eq!((fault.class, fault.reason), (Class::Invalid, Reason::EmptyValue));
    assert!(fault.detail.contains("\"doc\""), "{fault}");
}

#[test]
fn extract_spreads_every_member_under_a_valid_key() {
    let document = r#"{"user": "u", "a/b c": "x", "n": 1.10, "o": {"k": [1 ]}, "t": true, "empty": "", "é.-_": "\n"}"#;
    let expected =
        pairs(&[("user", "u"), ("a_b_c", "x"), ("n", "1.10"), ("o", r#"{"k": [1 ]}"#), ("t", "true"), ("empty", ""), ("_.-_", "\n")]);
    assert_eq!(extracted(document).unwrap(), expected);
}

#[test]
fn extract_takes_a_property_also_one_that_holds_json_as_text() {
    let spec = |property: &str| json!({"dataFrom": [{"extract": {"key": "doc", "property": property}}]});
    let document = value(br#"{"a": {"b": {"x": "1"}}, "text": "{\"y\": \"2\"}", "s": "cAnArY", "n": null, "e": ""}"#);
    let extracted = |property: &str| assembled(spec(property), std::slice::from_ref(&document)).map_err(only);
    assert_eq!(extracted("a.b").unwrap(), pairs(&[("x", "1")]));
    assert_eq!(extracted("$.a.b").unwrap(), pairs(&[("x", "1")]));
    assert_eq!(extracted("text").unwrap(), pairs(&[("y", "2")]));
    for (property, reason) in [("s", Reason::InvalidData), ("z", Reason::InvalidData), ("n", Reason::EmptyValue), ("e", Reason::EmptyValue)]
    {
        let fault = extracted(property).unwrap_err();
        assert_eq!(fault.reason, reason, "{property}");
        assert!(!fault.detail.contains(CANARY));
    }
}

#[test]
fn extract_refuses_what_is_no_map_or_an_empty_one() {
    let cases = [
        ("[1]", Reason::InvalidData),
        ("\"x\"", Reason::InvalidData),
        ("5", Reason::InvalidData),
        ("null", Reason::EmptyValue),
        ("{}", Reason::EmptyValue),
        ("", Reason::EmptyValue),
        (r#"{"a": null}"#, Reason::EmptyValue),
        (r#"{"": "x"}"#, Reason::InvalidData),
        (r#"{"..": "x"}"#, Reason::InvalidData),
        (r#"{".": "x"}"#, Reason::InvalidData),
        (r#"{"a/b": "x", "a_b": "y"}"#, Reason::KeyCollision),
    ];
    for (document, reason) in cases {
        assert_eq!(extracted(document).unwrap_err().reason, reason, "{document}");
    }
    let long = format!("{{\"{}\": 1}}", "k".repeat(254));
    assert_eq!(extracted(&long).unwrap_err().reason, Reason::InvalidData);
    let fault = extracted(r#"{"a/b": "x", "a_b": "y"}"#).unwrap_err();
    assert!(fault.detail.contains("\"a/b\"") && fault.detail.contains("\"a_b\"") && fault.detail.contains("rename one"), "{fault}");
}

#[test]
fn find_gives_every_value_under_its_name() {
    let find = |found: &Sighting| assembled(json!({"dataFrom": [{"find": {"path": "a"}}]}), std::slice::from_ref(found)).map_err(only);
    assert_eq!(find(&names(&[("a/b", "1"), ("a/c d", "2")])).unwrap(), pairs(&[("a_b", "1"), ("a_c_d", "2")]));
    let none = find(&names(&[])).unwrap_err();
    assert_eq!((none.class, none.reason), (Class::Absent, Reason::NoMatch));
    assert_eq!(find(&names(&[("a/b", "1"), ("a_b", "2")])).unwrap_err().reason, Reason::KeyCollision);
    assert_eq!(find(&names(&[("a/b", "")])).unwrap_err().reason, Reason::EmptyValue);
    let broken = Fault::unavailable("a page failed");
    assert_eq!(find(&Sighting::Found(Err(broken.clone()))).unwrap_err(), broken);
}

#[test]
fn data_beats_data_from_and_equals_collide() {
    let extract = |key: &str| json!({"extract": {"key": key}});
    let data = |key: &str| json!({"secretKey": key, "remoteRef": {"key": "one"}});
    let both = assembled(json!({"data": [data("a")], "dataFrom": [extract("m")]}), &[value(b"own"), value(br#"{"a": "x", "b": "y"}"#)]);
    assert_eq!(both.unwrap(), pairs(&[("a", "own"), ("b", "y")]));

    let twice = [value(br#"{"a": "1"}"#), value(br#"{"b": "2"}"#), value(br#"{"a": "1"}"#)];
    let faults = assembled(json!({"dataFrom": [extract("m"), extract("n"), extract("o")]}), &twice).unwrap_err();
    assert_eq!((faults[0].entry, faults[0].fault.reason), (2, Reason::KeyCollision));
    let detail = &faults[0].fault.detail;
    assert!(detail.contains("key \"a\"") && detail.contains("dataFrom[0]") && detail.contains("dataFrom[2]"), "{detail}");

    // `data` does not hide that two sources disagree.
    let hidden = [value(b"own"), value(br#"{"a": "1"}"#), value(br#"{"a": "2"}"#)];
    let faults = assembled(json!({"data": [data("a")], "dataFrom": [extract("m"), extract("n")]}), &hidden).unwrap_err();
    assert_eq!((faults[0].entry, faults[0].fault.reason), (2, Reason::KeyCollision));
    let faults = assembled(json!({"data": [data("a"), data("a")]}), &[value(b"1"), value(b"2")]).unwrap_err();
    assert_eq!((faults[0].entry, faults[0].fault.reason), (1, Reason::KeyCollision));
}

#[test]
fn in_a_config_map_the_later_source_wins_and_data_over_all() {
    let extract = |key: &str| json!({"extract": {"key": key}});
    let spec: ExternalSecretSpec = serde_json::from_value(json!({
        "secretStoreRef": {"name": "main"}, "data": [{"secretKey": "a", "remoteRef": {"key": "one"}}],
        "dataFrom": [extract("m"), extract("n")],
    }))
    .unwrap();
    let sightings = [value(b"own"), value(br#"{"a": "1", "b": "first", "c": "kept"}"#), value(br#"{"a": "2", "b": "second"}"#)];
    let entries: Vec<_> = spec.entries().unwrap().into_iter().zip(&sightings).collect();
    let data = assemble(&Layout::keys(TargetKind::ConfigMap), &entries).unwrap().data;
    let data: BTreeMap<String, String> =
        data.into_iter().map(|(key, value)| (key, String::from_utf8_lossy(value.expose()).into_owned())).collect();
    assert_eq!(data, pairs(&[("a", "own"), ("b", "second"), ("c", "kept")]));
}

#[test]
fn every_entry_at_fault_is_named_and_nothing_is_assembled() {
    let absent = Fault::absent(Reason::NotFound, "not there");
    let unknown = Fault::unavailable("no answer");
    let spec = json!({"data": [
        {"secretKey": "good", "remoteRef": {"key": "a"}},
        {"secretKey": "gone", "remoteRef": {"key": "b"}},
        {"secretKey": "down", "remoteRef": {"key": "c"}},
        {"secretKey": "..", "remoteRef": {"key": "a"}},
    ]});
    let sightings =
        [value(b"x"), Sighting::Value(Reading::Absent(absent.clone())), Sighting::Value(Reading::Unknown(unknown.clone())), value(b"x")];
    let faults = assembled(spec, &sightings).unwrap_err();
    assert_eq!(faults[..2], [EntryFault { entry: 1, fault: absent }, EntryFault { entry: 2, fault: unknown }]);
    assert_eq!((faults[2].entry, faults[2].fault.reason, faults.len()), (3, Reason::InvalidSpec, 3));
}

#[test]
fn an_answer_of_another_kind_is_a_bug_and_no_panic() {
    let spec = json!({"dataFrom": [{"find": {"path": "a"}}, {"extract": {"key": "a"}}]});
    let faults = assembled(spec, &[value(b"x"), names(&[("a", "b")])]).unwrap_err();
    assert!(faults.len() == 2 && faults.iter().all(|fault| fault.fault.class == Class::Bug), "{faults:?}");
}

#[test]
fn a_secret_that_is_too_large_is_refused_with_its_sizes() {
    let data = |key: &str| json!({"secretKey": key, "remoteRef": {"key": key}});
    let spec = json!({"data": [data("a"), data("b")]});
    let (large, small) = (vec![b'x'; MAX_BYTES - 1], vec![b'y'; 2]);
    assert!(assembled(spec.clone(), &[value(&large), value(b"y")]).is_ok());
    let faults = assembled(spec, &[value(&small), value(&large)]).unwrap_err();
    assert_eq!((faults[0].entry, faults[0].fault.reason), (1, Reason::TooLarge));
    let detail = &faults[0].fault.detail;
    assert!(detail.contains("1048577") && detail.contains("1048576") && detail.contains("smaller"), "{detail}");
}

#[test]
fn a_secret_of_too_many_keys_is_refused() {
    let members = |count: usize| (0..count).map(|number| format!("\"k{number}\":1")).collect::<Vec<_>>().join(",");
    assert_eq!(extracted(&format!("{{{}}}", members(MAX_KEYS))).unwrap().len(), MAX_KEYS);
    let fault = extracted(&format!("{{{}}}", members(MAX_KEYS + 1))).unwrap_err();
    assert_eq!(fault.reason, Reason::TooLarge);
    assert!(fault.detail.contains("2001") && fault.detail.contains("2000"), "{fault}");
}

#[test]
fn messages_stay_short_whatever_is_asked_for() {
    let long = "\u{202e}\"".repeat(500);
    let spec = json!({"data": [{"secretKey": "k", "remoteRef": {"key": long, "property": long}}]});
    for document in [&b"{}"[..], b"x"] {
        let fault = only(assembled(spec.clone(), &[value(document)]).unwrap_err());
        assert!(fault.detail.chars().count() <= 450, "{fault}");
    }
}

fn document() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[a-z]{1,3}".prop_map(Value::from),
        "\\PC{1,4}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[ab.#$\\\\]{1,2}", inner, 0..4).prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// The way to some leaf or branch: names and indices.
fn ways(node: &Value, way: &[String], all: &mut Vec<(Vec<String>, Value)>) {
    all.push((way.to_vec(), node.clone()));
    let step = |name: &str| way.iter().cloned().chain([name.to_owned()]).collect::<Vec<_>>();
    match node {
        Value::Object(members) => members.iter().for_each(|(name, value)| ways(value, &step(name), all)),
        Value::Array(elements) => elements.iter().enumerate().for_each(|(at, value)| ways(value, &step(&at.to_string()), all)),
        _ => {}
    }
}

fn delivered(node: &Value) -> String {
    node.as_str().map_or_else(|| node.to_string(), str::to_owned)
}

proptest! {
    /// Both syntaxes find what a plain walk finds, in every document.
    #[test]
    fn selection_agrees_with_a_plain_walk(document in document()) {
        let text = document.to_string();
        let mut all = Vec::new();
        ways(&document, &[], &mut all);
        for (way, node) in all.into_iter().filter(|(way, _)| !way.is_empty()) {
            let escaped: Vec<String> = way.iter().map(|name| name.replace('\\', "\\\\").replace('.', "\\.").replace('#', "\\#").replace('$', "\\$")).collect();
            let dotted = escaped.join(".");
            // A member of that very name wins, and is walked to elsewhere.
            if document.get(&dotted).is_none() {
                prop_assert_eq!(selected(&text, &dotted), Ok(delivered(&node)), "{} in {}", dotted, text);
            }
            let mut path = "$".to_owned();
            let mut parent = &document;
            for name in &way {
                let (step, inner) = match parent {
                    Value::Array(elements) => (format!("[{name}]"), &elements[name.parse::<usize>().unwrap()]),
                    other => (format!("[{}]", Value::from(name.as_str())), &other[name]),
                };
                path.push_str(&step);
                parent = inner;
            }
            prop_assert_eq!(selected(&text, &path), Ok(delivered(&node)), "{} in {}", path, text);
        }
    }

    /// A number is delivered as it was written.
    #[test]
    fn numbers_keep_their_text(number in "-?(0|[1-9][0-9]{0,30})([.][0-9]{1,30})?([eE][+-]?[0-9]{1,4})?") {
        let document = format!("{{\"n\": {number}, \"l\":[{number} ]}}");
        for property in ["n", "l.0", "$.n", "$.l[0]"] {
            prop_assert_eq!(selected(&document, property), Ok(number.clone()));
        }
        prop_assert_eq!(extracted(&document).unwrap()["n"].clone(), number);
    }

    /// Strings survive whatever is in them.
    #[test]
    fn strings_are_decoded_as_serde_does(text in any::<String>()) {
        prop_assume!(!text.is_empty());
        let document = json!({"s": text}).to_string();
        prop_assert_eq!(selected(&document, "s"), Ok(text));
    }

    #[test]
    fn nothing_panics_on_arbitrary_bytes(bytes in prop::collection::vec(any::<u8>(), 0..64), property in any::<String>()) {
        prop_assume!(!property.is_empty());
        let spec = json!({"data": [{"secretKey": "k", "remoteRef": {"key": "doc", "property": property}}], "dataFrom": [{"extract": {"key": "doc"}}]});
        let _ = assembled(spec, &[value(&bytes), value(&bytes)]);
    }

    #[test]
    fn nothing_panics_on_what_looks_like_json_and_paths(text in "[\\[\\]{}\",:0-9eE.+a\\\\u-]{0,40}", property in "[$#@?.*:,()\\[\\]'\"a=!<&|0-9 -]{1,24}") {
        let _ = selected(&text, &property);
        let _ = selected(r#"{"a": [[1, {"a": 2}], "a"], "0": {"a": "x"}}"#, &property);
        let _ = selected(r#"{"a": [[1, {"a": 2}], "a"], "0": {"a": "x"}}"#, &format!("$[{property}]"));
    }
}

const IN_YAML: Layout<'static> = Layout {
    document: Some(Document { syntax: Syntax::Yaml, file: "app.yaml", separator: Some("/") }),
    trim: Some("app/"),
    ..Layout::keys(TargetKind::ConfigMap)
};

/// Assembles a parameter's spec (without its store), as text.
fn laid_out(layout: &Layout<'_>, spec: Value, sightings: &[Sighting]) -> Result<BTreeMap<String, String>, Vec<EntryFault>> {
    let mut spec = spec;
    spec["secretStoreRef"] = json!({"name": "s"});
    let spec: ExternalParameterSpec = serde_json::from_value(spec).expect("the fixture is a spec");
    let entries: Vec<_> = spec.entries().expect("the fixture has entries").into_iter().zip(sightings).collect();
    assert_eq!(entries.len(), sightings.len());
    let made = assemble(layout, &entries)?;
    Ok(made.data.into_iter().map(|(key, value)| (key, String::from_utf8_lossy(value.expose()).into_owned())).collect())
}

#[test]
fn a_document_has_types_where_the_source_has_them_and_text_elsewhere() {
    let spec = json!({
        "data": [
            {"key": "app/text", "remoteRef": {"key": "a"}},
            {"key": "app/number", "type": "Json", "remoteRef": {"key": "b"}},
            {"key": "part", "remoteRef": {"key": "c", "property": "port"}},
            {"key": "typed/part", "type": "Json", "remoteRef": {"key": "c", "property": "port"}},
        ],
        "dataFrom": [{"extract": {"key": "d"}}, {"find": {"path": "app"}}, {"extract": {"key": "e"}}],
    });
    let sightings = [
        value(b"8080"),
        value(b" 12345678901234567890 "),
        value(br#"{"port": 1.10}"#),
        value(br#"{"port": 1.10}"#),
        value(br#"{"text": "loses", "flag": true, "name": "true", "list": [1, {"b": null, "a": "x"}], "later": 1}"#),
        names(&[("app/log/level", "10"), ("app/later", "loses")]),
        map(r#"{"later": "1", "cert.pem": "text"}"#),
    ];
    let expected = r#""cert.pem": "text"
"flag": true
"later": "1"
"list": [1, {"a": "x", "b": null}]
"log":
  "level": "10"
"name": "true"
"number": 12345678901234567890
"part": "1.10"
"text": "8080"
"typed":
  "part": 1.10
"#;
    assert_eq!(laid_out(&IN_YAML, spec, &sightings).unwrap(), pairs(&[("app.yaml", expected)]));
}

#[test]
fn a_prefix_is_cut_once_from_every_name_that_begins_with_it() {
    let spec = json!({
        "data": [{"key": "app/app/own", "remoteRef": {"key": "a"}}, {"key": "other/own", "remoteRef": {"key": "a"}}],
        "dataFrom": [{"find": {"path": "app"}}, {"extract": {"key": "d"}}],
    });
    let sightings = [value(b"x"), value(b"x"), names(&[("app/db/host", "h"), ("apple", "x")]), value(br#"{"app/e": "e"}"#)];
    let keys = Layout { trim: Some("app/"), ..Layout::keys(TargetKind::ConfigMap) };
    let spec_of_keys = json!({"dataFrom": spec["dataFrom"]});
    let found = laid_out(&keys, spec_of_keys, &sightings[2..]).unwrap();
    assert_eq!(found, pairs(&[("apple", "x"), ("db_host", "h"), ("e", "e")]));
    let document = laid_out(&IN_YAML, spec, &sightings).unwrap();
    let expected = "\"app\":\n  \"own\": \"x\"\n\"apple\": \"x\"\n\"db\":\n  \"host\": \"h\"\n\"e\": \"e\"\n\"other\":\n  \"own\": \"x\"\n";
    assert_eq!(document, pairs(&[("app.yaml", expected)]));
    let twice = json!({"data": [{"key": "app/a", "remoteRef": {"key": "a"}}, {"key": "a", "remoteRef": {"key": "a"}}]});
    let fault = only(laid_out(&keys, twice, &[value(b"x"), value(b"x")]).unwrap_err());
    assert_eq!(fault.reason, Reason::KeyCollision);
    assert!(fault.detail.contains("data[app/a]") && fault.detail.contains("data[a]"), "{fault}");
    for layout in [&keys, &IN_YAML] {
        let fault = only(laid_out(layout, json!({"dataFrom": [{"extract": {"key": "d"}}]}), &[value(br#"{"app/": "x"}"#)]).unwrap_err());
        assert_eq!(fault.reason, Reason::InvalidData, "nothing is left of the name: {fault}");
    }
}

#[test]
fn what_lies_below_a_value_is_refused_by_both_names_wherever_they_come_from() {
    let extract = |text: &str| value(text.as_bytes());
    let both = json!({"data": [{"key": "a/b", "remoteRef": {"key": "x"}}], "dataFrom": [{"extract": {"key": "y"}}]});
    for (spec, sightings) in [
        (both.clone(), vec![value(b"1"), extract(r#"{"a": "2"}"#)]),
        (both, vec![value(b"1"), extract(r#"{"a": {"c": 2}}"#)]),
        (json!({"dataFrom": [{"extract": {"key": "y"}}]}), vec![extract(r#"{"a": 1, "a/b": 2}"#)]),
        (json!({"dataFrom": [{"find": {}}]}), vec![names(&[("app/a", "1"), ("a/b", "2")])]),
    ] {
        let fault = only(laid_out(&IN_YAML, spec, &sightings).unwrap_err());
        assert_eq!(fault.reason, Reason::KeyCollision);
        assert!(fault.detail.contains("\"a\"") && fault.detail.contains("\"a/b\""), "{fault}");
    }
    let flat = Layout { document: Some(Document { separator: None, ..IN_YAML.document.unwrap() }), ..IN_YAML };
    assert!(laid_out(&flat, json!({"dataFrom": [{"extract": {"key": "y"}}]}), &[extract(r#"{"a": 1, "a/b": 2}"#)]).is_ok());
}

#[test]
fn bytes_that_are_no_text_stand_in_keys_and_are_refused_by_name_in_a_document() {
    let spec = json!({"data": [{"key": "good", "remoteRef": {"key": "a"}}, {"key": "bin", "remoteRef": {"key": "b"}}]});
    let sightings = [value(b"x"), value(b"\xff\xfe")];
    let of_keys = laid_out(&Layout::keys(TargetKind::ConfigMap), spec.clone(), &sightings).unwrap();
    assert_eq!(of_keys.keys().collect::<Vec<_>>(), ["bin", "good"]);
    let faults = laid_out(&IN_YAML, spec, &sightings).unwrap_err();
    assert_eq!((faults[0].entry, faults[0].fault.reason), (1, Reason::InvalidData));
    assert!(faults[0].fault.detail.contains("\"bin\""), "{faults:?}");
}

#[test]
fn an_entry_of_type_json_must_be_json_in_every_format() {
    let spec = json!({"data": [{"key": "k", "type": "Json", "remoteRef": {"key": "a"}}]});
    for layout in [&Layout::keys(TargetKind::ConfigMap), &IN_YAML] {
        for (text, reason) in
            [("yes", Reason::InvalidData), ("{", Reason::InvalidData), ("null", Reason::EmptyValue), ("", Reason::EmptyValue)]
        {
            let fault = only(laid_out(layout, spec.clone(), &[value(text.as_bytes())]).unwrap_err());
            assert_eq!(fault.reason, reason, "{text}: {fault}");
        }
    }
    let kept = laid_out(&Layout::keys(TargetKind::ConfigMap), spec, &[value(b"{ \"b\": 1, \"a\": 2 }")]).unwrap();
    assert_eq!(kept["k"], "{ \"b\": 1, \"a\": 2 }", "in keys it stays as it is written");
}

fn marked(sighting: Sighting) -> Sighting {
    match sighting {
        Sighting::Value(Reading::Found(fetched)) => Sighting::Value(Reading::Found(Fetched { is_secret: true, ..fetched })),
        Sighting::Found(Ok(mut found)) => {
            found.values.values_mut().skip(1).for_each(|fetched| fetched.is_secret = true);
            Sighting::Found(Ok(found))
        }
        other => other,
    }
}

#[test]
fn what_its_store_marks_as_a_secret_is_refused_by_name_whole_in_part_and_among_others() {
    let refusing = Layout { refuses_secrets: true, ..Layout::keys(TargetKind::ConfigMap) };
    let single = json!({"data": [{"key": "k", "remoteRef": {"key": "db/password"}}]});
    let part = json!({"data": [{"key": "k", "remoteRef": {"key": "db/password", "property": "user"}}]});
    let extract = json!({"dataFrom": [{"extract": {"key": "db/password"}}]});
    let find = json!({"dataFrom": [{"find": {"path": "db"}}]});
    for (spec, sighting) in [
        (single, value(CANARY.as_bytes())),
        (part, map(r#"{"user": "cAnArY"}"#)),
        (extract, value(br#"{"user": "cAnArY"}"#)),
        (find, names(&[("db/host", "h"), ("db/password", CANARY)])),
    ] {
        let refused = laid_out(&refusing, spec.clone(), &[marked(sighting.clone())]).unwrap_err();
        let fault = only(refused);
        assert_eq!((fault.class, fault.reason), (Class::Invalid, Reason::SensitiveValue));
        assert!(fault.detail.contains("\"db/password\"") && !fault.detail.contains(CANARY), "{fault}");
        assert!(laid_out(&refusing, spec.clone(), std::slice::from_ref(&sighting)).is_ok(), "what is not marked is a parameter");
        let allowing = Layout { refuses_secrets: false, ..refusing };
        assert!(laid_out(&allowing, spec, &[marked(sighting)]).is_ok());
    }
}

#[test]
fn a_document_is_bounded_like_a_target() {
    let spec = json!({"dataFrom": [{"extract": {"key": "doc"}}]});
    let many: serde_json::Map<String, Value> = (0..=MAX_KEYS).map(|n| (format!("k{n}"), json!("x"))).collect();
    let quotes = json!({"k": "\"".repeat(MAX_BYTES / 2)});
    for document in [Value::from(many), quotes] {
        let fault = only(laid_out(&IN_YAML, spec.clone(), &[value(document.to_string().as_bytes())]).unwrap_err());
        assert_eq!(fault.reason, Reason::TooLarge, "{fault}");
    }
}

proptest! {
    /// Whatever the values are: a reader gets them back, and their order changes no byte.
    #[test]
    fn a_document_says_what_it_was_made_of(values in prop::collection::btree_map("[a-z]{1,3}(/[a-z]{1,3}){0,2}", ".{1,12}", 1..8)) {
        let data: Vec<Value> = values.keys().map(|key| json!({"key": key, "remoteRef": {"key": "a"}})).collect();
        let sightings: Vec<Sighting> = values.values().map(|text| value(text.as_bytes())).collect();
        let reversed: Vec<Value> = data.iter().rev().cloned().collect();
        let backwards: Vec<Sighting> = sightings.iter().rev().cloned().collect();
        let layout = Layout { trim: None, ..IN_YAML };
        match (laid_out(&layout, json!({"data": data}), &sightings), laid_out(&layout, json!({"data": reversed}), &backwards)) {
            (Ok(one), Ok(other)) => {
                prop_assert_eq!(&one, &other);
                let read: Value = serde_saphyr::from_str(&one["app.yaml"]).unwrap();
                for (key, text) in &values {
                    prop_assert_eq!(read.pointer(&format!("/{key}")), Some(&json!(text)));
                }
            }
            (Err(one), Err(other)) => {
                prop_assert_eq!(one[0].fault.reason, Reason::KeyCollision);
                prop_assert_eq!(other[0].fault.reason, Reason::KeyCollision);
                let below = |upper: &String| values.keys().any(|key| key.starts_with(&format!("{upper}/")));
                prop_assert!(values.keys().any(below), "only what lies below another is refused");
            }
            (one, other) => prop_assert!(false, "the order decides: {:?} {:?}", one, other),
        }
    }
}
