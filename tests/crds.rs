//! What `crds/` holds is fit for an API server and for Git: described, bounded, structural, without defaults, with the names and
//! columns that people type and read. What each field does is proven where the decisions are made (`engine::leaves`).

use std::{collections::BTreeMap, fs, path::PathBuf};

use keyferry::crd::manifest;
use serde_json::{Value, json};

fn committed(file: &str) -> String {
    fs::read_to_string(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("crds").join(file)).expect("the folder holds the file")
}

/// Every definition by its kind, as it was committed.
fn definitions() -> BTreeMap<String, Value> {
    let read = |manifest: &manifest::Manifest| -> Value { serde_saphyr::from_str(&committed(&manifest.file)).expect("the file is YAML") };
    manifest::all().iter().map(|manifest| (manifest.crd.spec.names.kind.clone(), read(manifest))).collect()
}

fn schema(definition: &Value) -> &Value {
    definition.pointer("/spec/versions/0/schema/openAPIV3Schema").expect("a definition has a schema")
}

#[test]
fn the_files_say_what_the_program_means() {
    for manifest in manifest::all() {
        let meant = serde_json::to_value(&manifest.crd).unwrap();
        let read: Value = serde_saphyr::from_str(&committed(&manifest.file)).unwrap();
        assert_eq!(read, meant, "{}: what was written is not read back", manifest.file);
    }
}

#[test]
fn the_command_prints_the_files_one_after_another() {
    let printed = std::process::Command::new(env!("CARGO_BIN_EXE_keyferry")).arg("crds").output().unwrap();
    assert!(printed.status.success());
    let files: String = manifest::all().iter().map(|manifest| committed(&manifest.file)).collect();
    assert!(String::from_utf8(printed.stdout).unwrap() == files, "`keyferry crds` prints something else than crds/ holds: run `make crds`");
}

#[test]
fn every_field_is_described_and_bounded() {
    for (kind, definition) in definitions() {
        let mut findings = Vec::new();
        let parts = schema(&definition)["properties"].as_object().expect("a schema has parts");
        assert!(parts.contains_key("spec"), "{kind}");
        for (part, inner) in parts {
            check(inner, &format!("{kind}.{part}"), part, &mut findings);
        }
        assert!(findings.is_empty(), "{findings:#?}");
    }
}

/// The check itself must find what it is there for.
#[test]
fn a_careless_schema_is_found_out() {
    let careless = json!({"description": "x", "type": "object", "properties": {
        "undescribed": {"type": "integer"},
        "text": {"description": "x", "type": "string"},
        "list": {"description": "x", "type": "array", "items": {"type": "string", "maxLength": 1}, "x-kubernetes-list-type": "atomic"},
        "merged": {"description": "x", "type": "array", "maxItems": 1, "items": {"type": "string", "maxLength": 1}},
        "map": {"description": "x", "type": "object", "additionalProperties": {"type": "string", "maxLength": 1}},
        "anything": {"description": "x", "type": "object"},
        "preset": {"description": "x", "type": "boolean", "default": true},
        "nothing": {"description": "x", "type": "boolean", "nullable": true},
        "untyped": {"description": "x", "x-kubernetes-preserve-unknown-fields": true},
        "either": {"description": "x", "x-kubernetes-int-or-string": true},
        "inner": {"description": "x", "type": "array", "maxItems": 1, "x-kubernetes-list-type": "atomic",
                  "items": {"description": "x", "type": "object", "properties": {"deep": {"description": "x", "type": "string"}}}},
        "good": {"description": "x", "type": "string", "enum": ["A"]},
    }});
    let mut findings = Vec::new();
    check(&careless, "s", "spec", &mut findings);
    findings.sort();
    let expected = [
        "s.anything: an object without members takes anything",
        "s.either: no type, or unknown fields are kept",
        "s.inner[].deep: a text without maxLength",
        "s.list: a list without maxItems",
        "s.map: a map without maxProperties",
        "s.merged: a list that does not say how it merges",
        "s.nothing: nullable, so that null counts as set",
        "s.preset: a default in the schema is a permanent difference from Git",
        "s.text: a text without maxLength",
        "s.undescribed: no description",
        "s.untyped: no type, or unknown fields are kept",
    ];
    assert_eq!(findings, expected);
}

/// One line per carelessness. `part` is `spec` or `status`: only the latter may have a default, at its top.
fn check(schema: &Value, path: &str, part: &str, findings: &mut Vec<String>) {
    let mut find = |finding: &str| findings.push(format!("{path}: {finding}"));
    let has = |name: &str| !schema[name].is_null();
    let is_plain_element = (path.ends_with("[]") || path.ends_with("{}")) && schema["type"] != "object";
    if !has("description") && !is_plain_element {
        find("no description");
    }
    if has("nullable") {
        find("nullable, so that null counts as set");
    }
    if has("default") && !(part == "status" && path.ends_with(".status")) {
        find("a default in the schema is a permanent difference from Git");
    }
    match schema["type"].as_str() {
        None if schema["x-kubernetes-int-or-string"] == true && has("maxLength") => {}
        Some("string") if !has("maxLength") && !has("enum") => find("a text without maxLength"),
        Some("array") if !has("maxItems") => find("a list without maxItems"),
        Some("array") if !has("x-kubernetes-list-type") => find("a list that does not say how it merges"),
        Some("object") if has("additionalProperties") && !has("maxProperties") => find("a map without maxProperties"),
        Some("object") if !has("additionalProperties") && !has("properties") => find("an object without members takes anything"),
        Some("string" | "array" | "object" | "boolean" | "integer") if !has("x-kubernetes-preserve-unknown-fields") => {}
        _ => find("no type, or unknown fields are kept"),
    }
    for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
        check(inner, &format!("{path}.{name}"), part, findings);
    }
    for (inner, mark) in [("items", "[]"), ("additionalProperties", "{}")] {
        if has(inner) {
            check(&schema[inner], &format!("{path}{mark}"), part, findings);
        }
    }
}

#[test]
fn every_rule_of_admission_says_what_is_wrong() {
    fn rules<'a>(node: &'a Value, found: &mut Vec<&'a Value>) {
        match node {
            Value::Object(members) => {
                found.extend(members.get("x-kubernetes-validations").and_then(Value::as_array).into_iter().flatten());
                members.values().for_each(|inner| rules(inner, found));
            }
            Value::Array(elements) => elements.iter().for_each(|inner| rules(inner, found)),
            _ => {}
        }
    }
    let mut count = 0;
    for (kind, definition) in definitions() {
        let mut found = Vec::new();
        rules(schema(&definition), &mut found);
        count += found.len();
        for rule in found {
            assert!(rule["message"].as_str().is_some_and(|message| !message.is_empty()), "{kind}: {rule}");
        }
    }
    assert!(count >= 10, "only {count} rules were seen");
}

#[test]
fn people_find_the_kinds_by_the_names_and_columns_of_the_design() {
    let columns = |definition: &Value, priority: i64| -> Vec<String> {
        let all = definition["spec"]["versions"][0]["additionalPrinterColumns"].as_array().unwrap();
        let of = all.iter().filter(|column| column["priority"].as_i64().unwrap_or(0) == priority);
        of.map(|column| column["name"].as_str().unwrap().to_owned()).collect()
    };
    let definitions = definitions();
    for (kind, plural, short, scope) in [
        ("ExternalSecret", "externalsecrets", "kes", "Namespaced"),
        ("SecretStore", "secretstores", "kss", "Namespaced"),
        ("ClusterSecretStore", "clustersecretstores", "kcss", "Cluster"),
    ] {
        let definition = &definitions[kind];
        assert_eq!(definition["metadata"]["name"], json!(format!("{plural}.keyferry.dev")));
        assert_eq!(definition["spec"]["names"]["shortNames"], json!([short]));
        assert_eq!(definition["spec"]["names"]["categories"], json!(["keyferry"]));
        assert_eq!(definition["spec"]["scope"], json!(scope));
        assert_eq!(definition["spec"]["versions"][0]["name"], json!("v1alpha1"));
        assert!(columns(definition, 0).contains(&"Age".to_owned()), "{kind}");
    }
    let synced = &definitions["ExternalSecret"];
    assert_eq!(columns(synced, 0), ["Ready", "Reason", "Store", "Target", "Changed", "Age"]);
    assert_eq!(columns(synced, 1), ["Message"]);
    for kind in ["SecretStore", "ClusterSecretStore"] {
        assert_eq!(columns(&definitions[kind], 0), ["Ready", "Reason", "Provider", "Age"], "{kind}");
        assert_eq!(columns(&definitions[kind], 1), ["Message"], "{kind}");
    }
}

#[test]
fn an_object_that_nobody_looked_at_yet_is_in_progress() {
    for (kind, definition) in definitions() {
        let status = &schema(&definition)["properties"]["status"];
        assert_eq!(status["default"], json!({"observedGeneration": -1}), "{kind}");
        assert_eq!(definition["spec"]["versions"][0]["subresources"], json!({"status": {}}), "{kind}");
    }
}
