//! No field without an effect: every leaf of the kinds' specs has a pair of manifests that differ in it alone, and whose story
//! (verdict, due decision, what is read, plan) differs because of it. A leaf without a pair is red, and so is a pair without a leaf.
//!
//! A leaf is a scalar, each value of an enumeration, each element of a list of scalars, and each object that may be left out
//! (the arms of unions are such). To add a field: one row in `rows`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der},
    rsa::{KeyPair, KeySize},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    core::PartialObjectMeta,
    runtime::{reflector::store::Writer, watcher::Event},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_util::task::AbortOnDropHandle;

use super::{
    plan::{Plan, Repairs, Seen, Snapshot, Step, plan},
    resolve::{Claims, Judged, World, judge, resolve},
    scene::{self, noon, written},
};
use crate::{
    access::{CredentialKey, Role, Search, TokenAccount},
    backend::{self, ApiServer, Backend, Credentials, Settings, TokenSource, endpoint::Endpoints},
    cluster::target::TargetIndex,
    crd::{
        manifest,
        v1alpha1::{Provider, SyncObject, SyncStatus, TargetStatus},
    },
    digest::{DigestKey, ShortMac},
    fault::{Fault, Reason},
    governor::Limits,
    item::{Item, Reading, Sighting, Wanted},
    name::{ObjectKind, RemoteKey, RemoteRef, StoreName},
    schedule::{
        Enrolment, Ledger, Moment, Timings,
        due::{Standing, TargetState, due},
    },
    secret::SecretValue,
};

/// The specs of one small cluster: an object `app` in namespace `team`, a store of either kind called `main`, another called `other`.
#[derive(Clone, Debug)]
struct Specs {
    kind: ObjectKind,
    object: Value,
    own: Value,
    shared: Value,
    /// Where the operator's own API server is.
    api_server: String,
}

impl Specs {
    fn of(&mut self, kind: &str) -> &mut Value {
        match kind {
            "ExternalSecret" | "ExternalParameter" => &mut self.object,
            "SecretStore" => &mut self.own,
            "ClusterSecretStore" => &mut self.shared,
            other => unreachable!("no kind {other}"),
        }
    }
}

/// A leaf, the manifests around it, and the two values that it has in the pair; null leaves it out.
struct Row {
    leaf: String,
    around: Specs,
    values: [Value; 2],
}

/// What admission refuses as a whole, so that nothing below it can be set.
const REFUSED: &[(&str, &str)] = &[("SecretStore.spec.provider.env.", "the arm itself is refused: it is for ClusterSecretStores")];

#[tokio::test]
async fn every_leaf_of_the_specs_makes_a_difference() {
    let servers = [Server::start("one").await, Server::start("two").await];
    let rows = rows(&servers);
    let told: BTreeSet<&str> = rows.iter().map(|row| row.leaf.as_str()).collect();
    assert_eq!(told.len(), rows.len(), "a leaf has two rows");
    let leaves = leaves();
    let missing: Vec<_> = leaves.iter().filter(|leaf| !told.contains(leaf.as_str())).collect();
    assert!(missing.is_empty(), "leaves without a pair of inputs that they tell apart: {missing:#?}");
    let unknown: Vec<_> = told.iter().filter(|leaf| !leaves.contains(**leaf)).collect();
    assert!(unknown.is_empty(), "rows without a leaf: {unknown:#?}");
    for row in &rows {
        let [one, other] = row.values.clone().map(|value| row.with(&value));
        let (first, second) = (story(&one).await, story(&other).await);
        assert_ne!(first, second, "{} makes no difference", row.leaf);
        assert_eq!(first, story(&one).await, "{}: the story is not the same twice, so its differences prove nothing", row.leaf);
    }
}

/// The walker must see scalars, enumerations, unions, lists and maps, or it would miss leaves in silence.
#[test]
fn the_walker_sees_every_shape() {
    let schema = json!({"type": "object", "required": ["must"], "properties": {
        "must": {"type": "object", "properties": {"text": {"type": "string"}}},
        "may": {"type": "object", "properties": {"number": {"type": "integer"}}},
        "choice": {"type": "string", "enum": ["A", "B"]},
        "list": {"type": "array", "items": {"type": "string"}},
        "things": {"type": "array", "items": {"type": "object", "properties": {"flag": {"type": "boolean"}}}},
        "map": {"type": "object", "additionalProperties": {"type": "string"}},
    }});
    let mut found = BTreeSet::new();
    walk(&schema, "s", &mut found);
    let expected = ["s.choice=A", "s.choice=B", "s.list[]", "s.map{}", "s.may", "s.may.number", "s.must.text", "s.things[].flag"];
    assert_eq!(found.into_iter().collect::<Vec<_>>(), expected);
}

fn leaves() -> BTreeSet<String> {
    let mut leaves = BTreeSet::new();
    for manifest in manifest::all() {
        let crd = serde_json::to_value(&manifest.crd).expect("a definition is JSON");
        let spec = crd.pointer("/spec/versions/0/schema/openAPIV3Schema/properties/spec").expect("a kind has a spec");
        walk(spec, &format!("{}.spec", manifest.crd.spec.names.kind), &mut leaves);
    }
    leaves.retain(|leaf| !REFUSED.iter().any(|(refused, _)| leaf.starts_with(refused)));
    leaves
}

fn walk(schema: &Value, path: &str, leaves: &mut BTreeSet<String>) {
    let is_required = |name: &str| schema["required"].as_array().is_some_and(|names| names.contains(&json!(name)));
    if let Some(properties) = schema["properties"].as_object() {
        for (name, inner) in properties {
            let inner_path = format!("{path}.{name}");
            if inner["properties"].is_object() && !is_required(name) {
                leaves.insert(inner_path.clone());
            }
            walk(inner, &inner_path, leaves);
        }
    } else if schema["additionalProperties"].is_object() {
        leaves.insert(format!("{path}{{}}"));
    } else if schema["items"].is_object() {
        walk(&schema["items"], &format!("{path}[]"), leaves);
    } else if let Some(values) = schema["enum"].as_array() {
        leaves.extend(values.iter().map(|value| format!("{path}={}", value.as_str().expect("an enumeration of texts"))));
    } else {
        leaves.insert(path.to_owned());
    }
}

impl Row {
    fn new(leaf: impl Into<String>, around: &Specs, values: [Value; 2]) -> Self {
        Self { leaf: leaf.into(), around: around.clone(), values }
    }

    /// The manifests with that value at the leaf's place; the first element stands for a list's.
    fn with(&self, value: &Value) -> Specs {
        let mut specs = self.around.clone();
        let (kind, path) = self.leaf.split_once(".spec.").expect("a leaf of a spec");
        let path = path.split('=').next().expect("a path");
        let mut node = specs.of(kind);
        let steps: Vec<&str> = path.split('.').collect();
        for (at, step) in steps.iter().enumerate() {
            let name = step.trim_end_matches("[]").trim_end_matches("{}");
            if at + 1 < steps.len() || step.ends_with("[]") || step.ends_with("{}") {
                node = &mut node[name];
                node = match step {
                    step if step.ends_with("[]") => &mut node[0],
                    step if step.ends_with("{}") => node.as_object_mut().expect("a map").values_mut().next().expect("a member"),
                    _ => node,
                };
                if at + 1 == steps.len() {
                    *node = value.clone();
                }
            } else if value.is_null() {
                node.as_object_mut().expect("an object").remove(name);
            } else {
                node[name] = value.clone();
            }
        }
        specs
    }
}

fn rows(servers: &[Server; 2]) -> Vec<Row> {
    let fake = |name: &str| {
        json!({"provider": {"fake": {"data": [
            {"key": "doc", "value": format!("{{\"a\": \"{name}\", \"b\": {{\"c\": \"inner of {name}\"}}}}")},
            {"key": "doc", "value": "{\"a\": \"older\", \"b\": {\"c\": \"older\"}}", "version": "1"},
            {"key": "x/y", "value": format!("y of {name}")},
            {"key": "x/z", "value": format!("z of {name}")},
            {"key": "dup", "value": "{\"a\": \"dup\"}"},
        ]}}})
    };
    let mut shared = fake("shared");
    shared["allowAllNamespaces"] = json!(true);
    let object =
        |key: &str| json!({"secretStoreRef": {"name": "main"}, "data": [{key: "k", "remoteRef": {"key": "doc", "property": "a"}}]});
    let api_server = servers[0].url.clone();
    let specs = Specs { kind: ObjectKind::ExternalSecret, object: object("secretKey"), own: fake("own"), shared, api_server };
    let parameters = Specs { kind: ObjectKind::ExternalParameter, object: object("key"), ..specs.clone() };
    let mut rows = Vec::new();
    for (specs, key) in [(&specs, "secretKey"), (&parameters, "key")] {
        rows.extend(of_the_object(specs));
        rows.extend(of_entries(specs, key));
    }
    rows.extend(of_documents(&parameters, &servers[0]));
    for kind in ["SecretStore", "ClusterSecretStore"] {
        rows.extend(of_a_store(kind, &specs, servers));
    }
    rows.extend(of_conditions(&specs));
    rows
}

fn of_the_object(specs: &Specs) -> Vec<Row> {
    let kind = specs.kind;
    let row = |leaf: &str, one: Value, other: Value| Row::new(format!("{kind}.spec.{leaf}"), specs, [one, other]);
    let targeted = |leaf: &str, one: Value, other: Value| {
        let mut around = specs.clone();
        around.object["target"] = json!({"name": "secret"});
        Row::new(format!("{kind}.spec.{leaf}"), &around, [one, other])
    };
    vec![
        row("secretStoreRef", json!({"name": "main"}), Value::Null),
        row("secretStoreRef.name", json!("main"), json!("other")),
        row("secretStoreRef.kind=SecretStore", json!("SecretStore"), json!("ClusterSecretStore")),
        row("secretStoreRef.kind=ClusterSecretStore", json!("ClusterSecretStore"), Value::Null),
        row("refreshPolicy=Periodic", json!("Periodic"), json!("OnChange")),
        row("refreshPolicy=OnChange", json!("OnChange"), json!("CreatedOnce")),
        row("refreshPolicy=CreatedOnce", json!("CreatedOnce"), Value::Null),
        row("refreshInterval", json!("30s"), json!("1m")),
        row("suspend", json!(true), json!(false)),
        row("target", json!({"name": "secret"}), Value::Null),
        targeted("target.name", json!("secret"), json!("another")),
        targeted("target.creationPolicy=Owner", json!("Owner"), json!("Orphan")),
        targeted("target.creationPolicy=Orphan", json!("Orphan"), json!("None")),
        targeted("target.creationPolicy=None", json!("None"), Value::Null),
        targeted("target.deletionPolicy=Retain", json!("Retain"), json!("Delete")),
        targeted("target.deletionPolicy=Delete", json!("Delete"), Value::Null),
    ]
}

fn of_entries(specs: &Specs, key: &str) -> Vec<Row> {
    let kind = specs.kind;
    let mut rows = Vec::new();
    let mut add = |leaf: &str, entry: Value, one: Value, other: Value| {
        let (list, _) = leaf.split_once("[]").expect("an entry's leaf");
        let mut around = specs.clone();
        around.object = json!({"secretStoreRef": {"name": "main"}});
        around.object[list] = json!([entry]);
        rows.push(Row::new(format!("{kind}.spec.{leaf}"), &around, [one, other]));
    };
    let data = json!({key: "k", "remoteRef": {"key": "doc", "property": "a"}});
    let extract = json!({"extract": {"key": "doc"}});
    let find = json!({"find": {"path": "x", "name": {"regexp": "y"}}});
    let elsewhere = json!({"storeRef": {"name": "other"}});
    add(&format!("data[].{key}"), data.clone(), json!("k"), json!("l"));
    add("data[].remoteRef.key", data.clone(), json!("doc"), json!("dup"));
    add("data[].remoteRef.property", data.clone(), json!("a"), json!("b.c"));
    add("data[].remoteRef.version", data.clone(), json!("1"), Value::Null);
    let told = json!({key: "k", "remoteRef": {"key": "doc"}});
    add("data[].remoteRef.metadataPolicy=Fetch", told.clone(), json!("Fetch"), Value::Null);
    add("data[].remoteRef.metadataPolicy=None", told, json!("None"), json!("Fetch"));
    add("dataFrom[].extract.metadataPolicy=Fetch", extract.clone(), json!("Fetch"), Value::Null);
    add("dataFrom[].extract.metadataPolicy=None", extract.clone(), json!("None"), json!("Fetch"));
    add("dataFrom[].extract", extract.clone(), json!({"key": "doc"}), Value::Null);
    add("dataFrom[].extract.key", extract.clone(), json!("doc"), json!("dup"));
    add("dataFrom[].extract.property", extract.clone(), json!("b"), Value::Null);
    add("dataFrom[].extract.version", extract.clone(), json!("1"), Value::Null);
    add("dataFrom[].find", find.clone(), json!({"path": "x"}), Value::Null);
    add("dataFrom[].find.path", find.clone(), json!("x"), json!("elsewhere"));
    let tagged = json!({"find": {"path": "x", "tags": {"team": ""}}});
    add("dataFrom[].find.tags{}", tagged, json!("shop"), json!("web"));
    add("dataFrom[].find.metadataPolicy=Fetch", find.clone(), json!("Fetch"), Value::Null);
    add("dataFrom[].find.metadataPolicy=None", find.clone(), json!("None"), json!("Fetch"));
    add("dataFrom[].find.name", find.clone(), json!({"regexp": "y"}), Value::Null);
    add("dataFrom[].find.name.regexp", find.clone(), json!("y"), json!("z"));
    for (list, entry) in [("data[]", data), ("dataFrom[]", extract)] {
        let mut sourced = entry.clone();
        sourced["sourceRef"] = json!({"storeRef": {"name": "main"}});
        add(&format!("{list}.sourceRef"), entry, elsewhere.clone(), Value::Null);
        add(&format!("{list}.sourceRef.storeRef.name"), sourced.clone(), json!("main"), json!("other"));
        for (kind, another) in [("SecretStore", "ClusterSecretStore"), ("ClusterSecretStore", "SecretStore")] {
            add(&format!("{list}.sourceRef.storeRef.kind={kind}"), sourced.clone(), json!(kind), json!(another));
        }
    }
    rows
}

/// What only an ExternalParameter has.
fn of_documents(specs: &Specs, server: &Server) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut add = |leaf: &str, more: Value, one: Value, other: Value| {
        let mut around = specs.clone();
        for (name, value) in more.as_object().into_iter().flatten() {
            around.object[name] = value.clone();
        }
        rows.push(Row::new(format!("ExternalParameter.spec.{leaf}"), &around, [one, other]));
    };
    let json = json!({"target": {"format": "Json"}, "data": [{"key": "k.l", "remoteRef": {"key": "doc", "property": "a"}}]});
    let search = json!({"target": {"name": "app"}, "dataFrom": [{"find": {"path": "x"}}]});
    add("target.format=Keys", json!({"target": {"name": "app"}}), json!("Keys"), json!("Json"));
    add("target.format=Json", json!({"target": {"name": "app"}}), json!("Json"), json!("Yaml"));
    add("target.format=Yaml", json!({"target": {"name": "app"}}), json!("Yaml"), Value::Null);
    add("target.fileName", json.clone(), json!("app.json"), Value::Null);
    add("target.separator", json, json!("."), Value::Null);
    add("target.trimPrefix", search, json!("x/"), Value::Null);
    add("data[].type=String", json!({}), json!("String"), json!("Json"));
    add("data[].type=Json", json!({}), json!("Json"), Value::Null);
    // What Vault makes is a secret by its own word.
    let mut around = specs.clone();
    around.own = json!({"provider": {"vault": {"server": server.url, "engine": "Logical", "auth": {"tokenSecretRef": {"name": "t"}}}}});
    for (one, other) in [("Refuse", json!("Allow")), ("Allow", Value::Null)] {
        rows.push(Row::new(format!("ExternalParameter.spec.sensitivity={one}"), &around, [json!(one), other]));
    }
    rows
}

/// The leaves that both kinds of store have.
fn of_a_store(kind: &str, specs: &Specs, servers: &[Server; 2]) -> Vec<Row> {
    let is_cluster = kind == "ClusterSecretStore";
    let mut specs = specs.clone();
    specs.object["secretStoreRef"]["kind"] = json!(kind);
    let mut rows = Vec::new();
    let mut add = |leaf: &str, provider: Value, one: Value, other: Value| {
        let mut around = specs.clone();
        around.of(kind)["provider"] = provider;
        rows.push(Row::new(format!("{kind}.spec.provider.{leaf}"), &around, [one, other]));
    };
    let fake = json!({"data": [{"key": "doc", "value": "{\"a\": 0}"}]});
    let file = json!({"path": "one"});
    let env = json!({"prefix": "APP_"});
    let credential = |namespace: Option<&str>| json!({"name": "t", "namespace": namespace.map_or(Value::Null, Value::from)});
    let vault = json!({"server": servers[0].url, "auth": {"tokenSecretRef": credential(is_cluster.then_some("vault"))}});
    let kubernetes = json!({"auth": {"serviceAccount": {"name": "sa", "namespace": if is_cluster { "vault" } else { "team" }}}});
    let aws = aws_block(&servers[0], is_cluster);
    for (arm, block) in [("fake", &fake), ("file", &file), ("env", &env), ("vault", &vault), ("aws", &aws), ("kubernetes", &kubernetes)] {
        add(arm, json!({}), block.clone(), Value::Null);
    }
    add("fake.data[].key", json!({"fake": fake}), json!("doc"), json!("another"));
    add("fake.data[].value", json!({"fake": fake}), json!("{\"a\": 1}"), json!("{\"a\": 2}"));
    add("fake.data[].version", json!({"fake": fake}), json!("7"), Value::Null);
    add("file.path", json!({"file": file}), json!("one"), json!("two"));
    add("file.format=Sealed", json!({"file": file}), json!("Sealed"), json!("Tree"));
    add("file.format=Tree", json!({"file": file}), json!("Tree"), Value::Null);
    let home = if is_cluster { "vault" } else { "team" };
    let decryption = json!({"ageIdentitySecretRef": {"name": "t", "namespace": home}});
    let tree = json!({"file": {"path": "one", "format": "Tree", "decryption": decryption}});
    add("file.decryption", tree.clone(), decryption.clone(), Value::Null);
    let identity = "file.decryption.ageIdentitySecretRef";
    add(&format!("{identity}.name"), tree.clone(), json!("t"), json!("u"));
    add(&format!("{identity}.key"), tree.clone(), json!("other"), Value::Null);
    add(&format!("{identity}.namespace"), tree, json!(home), json!("elsewhere"));
    if is_cluster {
        add("env.prefix", json!({"env": env}), json!("APP_"), json!("CFG_"));
        add("env.style=Flat", json!({"env": env}), json!("Flat"), json!("Nested"));
        add("env.style=Nested", json!({"env": env}), json!("Nested"), Value::Null);
    }
    add("vault.server", json!({"vault": vault}), json!(servers[0].url), json!(servers[1].url));
    of_vault(is_cluster, &vault, &mut add);
    of_aws(is_cluster, &aws, &servers[1], &mut add);
    of_kubernetes(is_cluster, &kubernetes, &mut add);
    let mut bound = specs.clone();
    bound.of(kind)["allowedKeys"] = json!([""]);
    let mut limited = specs.clone();
    limited.of(kind)["limits"] = json!({"requestsPerSecond": 5});
    let mut add = |leaf: &str, one: Value, other: Value| rows.push(Row::new(format!("{kind}.spec.limits{leaf}"), &limited, [one, other]));
    add("", json!({"maxConcurrent": 4}), Value::Null);
    add(".requestsPerSecond", json!(5), json!(6));
    add(".burst", json!(7), Value::Null);
    add(".maxConcurrent", json!(4), Value::Null);
    add(".timeout", json!("3s"), json!("4s"));
    let mut keeping = specs.clone();
    keeping.of(kind)["cache"] = json!({"ttl": "1m"});
    let mut add = |leaf: &str, one: Value, other: Value| rows.push(Row::new(format!("{kind}.spec.cache{leaf}"), &keeping, [one, other]));
    add("", json!({"ttl": "1m"}), Value::Null);
    add(".ttl", json!("1m"), json!("2m"));
    add(".maxEntries", json!(10), Value::Null);
    rows.push(Row::new(format!("{kind}.spec.allowedKeys[]"), &bound, [json!("do*"), json!("{namespace}/**")]));
    rows.push(Row::new(format!("{kind}.spec.refreshInterval"), &specs, [json!("30s"), json!(60)]));
    rows.push(Row::new(format!("{kind}.spec.retrySettings"), &specs, [json!({"maxRetries": 0}), Value::Null]));
    let mut retrying = specs.clone();
    retrying.of(kind)["retrySettings"] = json!({});
    rows.push(Row::new(format!("{kind}.spec.retrySettings.maxRetries"), &retrying, [json!(1), json!(2)]));
    rows.push(Row::new(format!("{kind}.spec.retrySettings.retryInterval"), &retrying, [json!("10s"), Value::Null]));
    rows
}

/// Takes a leaf of a provider block, the block, and the leaf's two values.
type Add<'a> = dyn FnMut(&str, Value, Value, Value) + 'a;

fn of_vault(is_cluster: bool, vault: &Value, add: &mut Add<'_>) {
    let home = if is_cluster { "vault" } else { "team" };
    let secret = |name: &str| json!({"name": name, "namespace": is_cluster.then_some(home)});
    let with = |field: &str, value: Value| {
        let mut vault = vault.clone();
        vault[field] = value;
        json!({ "vault": vault })
    };
    let authority = |kind: &str| json!({"type": kind, "name": "ca", "namespace": home});
    for (one, other) in [("KV", "Logical"), ("Logical", "KV")] {
        add(&format!("vault.engine={one}"), with("engine", json!(one)), json!(one), json!(other));
    }
    for (one, other) in [("v1", "v2"), ("v2", "v1")] {
        add(&format!("vault.version={one}"), with("version", json!(one)), json!(one), json!(other));
    }
    add("vault.caBundle", json!({"vault": vault}), json!("bm8gY2VydGlmaWNhdGU="), Value::Null);
    add("vault.revokeOnDelete", with("engine", json!("Logical")), json!(true), Value::Null);
    add("vault.path", json!({"vault": vault}), json!("team"), Value::Null);
    add("vault.namespace", json!({"vault": vault}), json!("team/a"), Value::Null);
    add("vault.caProvider", json!({"vault": vault}), authority("Secret"), Value::Null);
    for (kind, other) in [("Secret", "ConfigMap"), ("ConfigMap", "Secret")] {
        add(&format!("vault.caProvider.type={kind}"), with("caProvider", authority(kind)), json!(kind), json!(other));
    }
    let reference = |add: &mut Add<'_>, at: &str, around: &Value| {
        add(&format!("vault.{at}.name"), around.clone(), json!("t"), json!("u"));
        add(&format!("vault.{at}.key"), around.clone(), json!("other"), Value::Null);
        add(&format!("vault.{at}.namespace"), around.clone(), json!(home), json!("elsewhere"));
    };
    reference(add, "caProvider", &with("caProvider", authority("Secret")));
    of_vault_logins(home, &secret, &with, &reference, add);
}

/// The leaves of every way to log in.
fn of_vault_logins(
    home: &str,
    secret: &dyn Fn(&str) -> Value,
    with: &dyn Fn(&str, Value) -> Value,
    reference: &dyn Fn(&mut Add<'_>, &str, &Value),
    add: &mut Add<'_>,
) {
    let account = json!({"name": "sa", "namespace": home, "audiences": ["vault"]});
    let token = json!({"serviceAccountRef": account});
    // Each way with its texts, its references to Secrets, and its references that may be left out for another.
    let ways = [
        ("tokenSecretRef", secret("t"), &[][..], &[""][..], &[][..]),
        ("appRole", json!({"roleId": "r", "secretRef": secret("t")}), &["path", "roleId"], &["secretRef"], &[]),
        ("kubernetes", json!({"role": "r", "secretRef": secret("t")}), &["mountPath", "role"], &["secretRef"], &["secretRef"]),
        ("jwt", json!({"role": "r", "secretRef": secret("t")}), &["path", "role"], &["secretRef"], &["secretRef"]),
        ("userPass", json!({"username": "u", "secretRef": secret("t")}), &["path", "username"], &["secretRef"], &[]),
        ("ldap", json!({"username": "u", "secretRef": secret("t")}), &["path", "username"], &["secretRef"], &[]),
        ("cert", json!({"clientCert": secret("t"), "secretRef": secret("k")}), &["path", "vaultRole"], &["clientCert", "secretRef"], &[]),
    ];
    for (way, block, texts, secrets, optional) in ways {
        let around = with("auth", json!({ way: block }));
        add(&format!("vault.auth.{way}"), around.clone(), block.clone(), Value::Null);
        for text in texts {
            add(&format!("vault.auth.{way}.{text}"), around.clone(), json!("one"), json!("two"));
        }
        for field in secrets {
            reference(add, format!("auth.{way}.{field}").trim_end_matches('.'), &around);
        }
        for field in optional {
            add(&format!("vault.auth.{way}.{field}"), around.clone(), block[*field].clone(), Value::Null);
        }
    }
    let google = json!({"role": "r", "secretRef": {"secretAccessKeySecretRef": secret("t")}});
    let around = with("auth", json!({"gcp": google}));
    add("vault.auth.gcp", around.clone(), google, Value::Null);
    for text in ["path", "role"] {
        add(&format!("vault.auth.gcp.{text}"), around.clone(), json!("one"), json!("two"));
    }
    reference(add, "auth.gcp.secretRef.secretAccessKeySecretRef", &around);
    let key = json!({"accessKeyIDSecretRef": secret("t"), "secretAccessKeySecretRef": secret("t"), "sessionTokenSecretRef": secret("t")});
    let amazon = json!({"vaultRole": "r", "secretRef": key});
    let around = with("auth", json!({"iam": amazon}));
    add("vault.auth.iam", around.clone(), amazon.clone(), Value::Null);
    for text in ["path", "vaultRole", "vaultAwsIamServerID"] {
        add(&format!("vault.auth.iam.{text}"), around.clone(), json!("one"), json!("two"));
    }
    add("vault.auth.iam.region", around.clone(), json!("eu-west-1"), Value::Null);
    for field in ["accessKeyIDSecretRef", "secretAccessKeySecretRef", "sessionTokenSecretRef"] {
        reference(add, &format!("auth.iam.secretRef.{field}"), &around);
    }
    add("vault.auth.iam.secretRef.sessionTokenSecretRef", around, key["sessionTokenSecretRef"].clone(), Value::Null);
    let role = with("auth", json!({"appRole": {"roleRef": secret("r"), "secretRef": secret("t")}}));
    add("vault.auth.appRole.roleRef", role.clone(), secret("r"), Value::Null);
    reference(add, "auth.appRole.roleRef", &role);
    for (at, block) in [
        ("kubernetes.serviceAccountRef", json!({"kubernetes": {"role": "r", "serviceAccountRef": account}})),
        ("jwt.kubernetesServiceAccountToken", json!({"jwt": {"role": "r", "kubernetesServiceAccountToken": token}})),
    ] {
        let around = with("auth", block.clone());
        let (way, field) = at.split_once('.').expect("a way and its field");
        add(&format!("vault.auth.{at}"), around.clone(), block[way][field].clone(), Value::Null);
        let at = if way == "jwt" { format!("{at}.serviceAccountRef") } else { at.to_owned() };
        add(&format!("vault.auth.{at}.name"), around.clone(), json!("sa"), json!("other"));
        add(&format!("vault.auth.{at}.namespace"), around.clone(), json!(home), json!("elsewhere"));
        add(&format!("vault.auth.{at}.audiences[]"), around, json!("vault"), json!("bao"));
    }
}

fn aws_block(server: &Server, is_cluster: bool) -> Value {
    let secret = |key: &str| json!({"name": "t", "key": key, "namespace": is_cluster.then_some("vault")});
    let key =
        json!({"accessKeyIDSecretRef": secret("id"), "secretAccessKeySecretRef": secret("key"), "sessionTokenSecretRef": secret("token")});
    json!({"service": "SecretsManager", "region": "eu-central-1", "endpoint": server.url, "auth": {"secretRef": key}})
}

fn of_aws(is_cluster: bool, aws: &Value, other: &Server, add: &mut Add<'_>) {
    let home = if is_cluster { "vault" } else { "team" };
    let with = |field: &str, value: Value| {
        let mut aws = aws.clone();
        aws[field] = value;
        json!({ "aws": aws })
    };
    let plain = || json!({ "aws": aws });
    for (one, other) in [("SecretsManager", "ParameterStore"), ("ParameterStore", "SecretsManager")] {
        add(&format!("aws.service={one}"), plain(), json!(one), json!(other));
    }
    add("aws.region", plain(), json!("eu-central-1"), json!("eu-west-1"));
    add("aws.endpoint", plain(), aws["endpoint"].clone(), json!(other.url));
    add("aws.caBundle", plain(), json!("bm8gY2VydGlmaWNhdGU="), Value::Null);
    let authority = |kind: &str| json!({"type": kind, "name": "ca", "namespace": home});
    add("aws.caProvider", plain(), authority("Secret"), Value::Null);
    for (kind, other) in [("Secret", "ConfigMap"), ("ConfigMap", "Secret")] {
        add(&format!("aws.caProvider.type={kind}"), with("caProvider", authority(kind)), json!(kind), json!(other));
    }
    let reference = |add: &mut Add<'_>, at: &str, around: &Value| {
        add(&format!("aws.{at}.name"), around.clone(), json!("t"), json!("u"));
        add(&format!("aws.{at}.key"), around.clone(), json!("other"), Value::Null);
        add(&format!("aws.{at}.namespace"), around.clone(), json!(home), json!("elsewhere"));
    };
    reference(add, "caProvider", &with("caProvider", authority("Secret")));
    add("aws.auth", plain(), aws["auth"].clone(), Value::Null);
    add("aws.auth.secretRef", plain(), aws["auth"]["secretRef"].clone(), Value::Null);
    for field in ["accessKeyIDSecretRef", "secretAccessKeySecretRef", "sessionTokenSecretRef"] {
        reference(add, &format!("auth.secretRef.{field}"), &plain());
    }
    add("aws.auth.secretRef.sessionTokenSecretRef", plain(), aws["auth"]["secretRef"]["sessionTokenSecretRef"].clone(), Value::Null);
    of_roles(aws, other, add);
    let mut web = aws.clone();
    let account = json!({"name": "sa", "namespace": home, "audiences": ["one"]});
    web["auth"] = json!({"jwt": {"serviceAccountRef": account}});
    web["stsEndpoint"] = aws["endpoint"].clone();
    let mut nobody = web.clone();
    nobody["auth"] = json!({});
    add("aws.auth.jwt", json!({"aws": nobody}), web["auth"]["jwt"].clone(), Value::Null);
    let web = json!({"aws": web});
    let account = "aws.auth.jwt.serviceAccountRef";
    add(&format!("{account}.name"), web.clone(), json!("sa"), json!("other"));
    add(&format!("{account}.namespace"), web.clone(), json!(home), json!("elsewhere"));
    add(&format!("{account}.audiences[]"), web, json!("one"), json!("two"));
}

fn of_roles(aws: &Value, other: &Server, add: &mut Add<'_>) {
    let role = |name: &str| json!(format!("arn:aws:iam::123456789012:role/{name}"));
    let mut assuming = aws.clone();
    assuming["stsEndpoint"] = aws["endpoint"].clone();
    let around = |more: Value| {
        let mut aws = assuming.clone();
        aws.as_object_mut()
            .expect("a block")
            .extend(more.as_object().into_iter().flatten().map(|(field, value)| (field.clone(), value.clone())));
        json!({ "aws": aws })
    };
    let full = json!({"role": role("reader"), "sessionTags": [{"key": "team", "value": "shop"}]});
    add("aws.role", around(json!({})), role("reader"), role("other"));
    add("aws.additionalRoles[]", around(json!({"additionalRoles": [""]})), role("hub"), role("other"));
    add("aws.externalID", around(full.clone()), json!("one"), Value::Null);
    add("aws.sessionTags[].key", around(full.clone()), json!("team"), json!("area"));
    add("aws.sessionTags[].value", around(full.clone()), json!("shop"), json!("bank"));
    let mut transitive = full.clone();
    transitive["transitiveTagKeys"] = json!([""]);
    add("aws.transitiveTagKeys[]", around(transitive), json!("team"), json!("area"));
    add("aws.stsEndpoint", around(full), aws["endpoint"].clone(), json!(other.url));
}

fn of_kubernetes(is_cluster: bool, kubernetes: &Value, add: &mut Add<'_>) {
    let home = if is_cluster { "vault" } else { "team" };
    let secret = |name: &str| json!({"name": name, "namespace": is_cluster.then_some(home)});
    let with = |block: Value| json!({ "kubernetes": block });
    let on = |server: Value| {
        let mut block = kubernetes.clone();
        block["server"] = server;
        with(block)
    };
    let authority = |kind: &str| json!({"type": kind, "name": "ca", "namespace": home});
    add("kubernetes.remoteNamespace", with(kubernetes.clone()), json!("elsewhere"), Value::Null);
    add("kubernetes.server", with(kubernetes.clone()), json!({"url": "https://127.0.0.1:1"}), Value::Null);
    add("kubernetes.server.url", on(json!({})), json!("https://127.0.0.1:1"), Value::Null);
    add("kubernetes.server.caBundle", on(json!({})), json!("bm8gY2VydGlmaWNhdGU="), Value::Null);
    add("kubernetes.server.caProvider", on(json!({})), authority("Secret"), Value::Null);
    for (kind, other) in [("Secret", "ConfigMap"), ("ConfigMap", "Secret")] {
        let around = on(json!({"caProvider": authority(kind)}));
        add(&format!("kubernetes.server.caProvider.type={kind}"), around, json!(kind), json!(other));
    }
    let reference = |add: &mut Add<'_>, at: &str, around: &Value| {
        add(&format!("kubernetes.{at}.name"), around.clone(), json!("t"), json!("u"));
        add(&format!("kubernetes.{at}.key"), around.clone(), json!("other"), Value::Null);
        add(&format!("kubernetes.{at}.namespace"), around.clone(), json!(home), json!("elsewhere"));
    };
    reference(add, "server.caProvider", &on(json!({"caProvider": authority("Secret")})));
    add("kubernetes.auth", with(json!({})), kubernetes["auth"].clone(), Value::Null);
    add("kubernetes.authRef", with(json!({})), secret("t"), Value::Null);
    reference(add, "authRef", &with(json!({"authRef": secret("t")})));
    let (token, cert) = (json!({"bearerToken": secret("t")}), json!({"clientCert": secret("t"), "clientKey": secret("t")}));
    for (way, block) in [("serviceAccount", &kubernetes["auth"]["serviceAccount"]), ("token", &token), ("cert", &cert)] {
        add(&format!("kubernetes.auth.{way}"), with(json!({"auth": {}})), block.clone(), Value::Null);
    }
    reference(add, "auth.token.bearerToken", &with(json!({"auth": {"token": token}})));
    for field in ["clientCert", "clientKey"] {
        reference(add, &format!("auth.cert.{field}"), &with(json!({"auth": {"cert": cert}})));
    }
    let account = "kubernetes.auth.serviceAccount";
    add(&format!("{account}.name"), with(kubernetes.clone()), json!("sa"), json!("other"));
    add(&format!("{account}.namespace"), with(kubernetes.clone()), json!(home), json!("elsewhere"));
    let mut meant = kubernetes.clone();
    meant["auth"]["serviceAccount"]["audiences"] = json!([""]);
    add(&format!("{account}.audiences[]"), with(meant), json!("one"), json!("two"));
}

fn of_conditions(specs: &Specs) -> Vec<Row> {
    let mut specs = specs.clone();
    specs.object["secretStoreRef"]["kind"] = json!("ClusterSecretStore");
    let allowing = Row::new("ClusterSecretStore.spec.allowAllNamespaces", &specs, [json!(true), json!(false)]);
    specs.shared["allowAllNamespaces"] = json!(false);
    let mut rows = vec![allowing];
    let mut add = |leaf: &str, condition: Value, one: Value, other: Value| {
        let mut around = specs.clone();
        around.shared["conditions"] = json!([condition]);
        rows.push(Row::new(format!("ClusterSecretStore.spec.conditions[].{leaf}"), &around, [one, other]));
    };
    // Namespace `team` has the label tier=gold.
    let selecting = |key: &str, operator: &str, values: Value| {
        let mut expression = json!({"key": key, "operator": operator});
        expression["values"] = values;
        json!({"namespaceSelector": {"matchExpressions": [expression]}})
    };
    let nobody = json!({"namespaces": ["nobody"]});
    add("namespaces[]", nobody.clone(), json!("team"), json!("tea"));
    add("namespaceRegexes[]", json!({"namespaceRegexes": [""]}), json!("t.*"), json!("t"));
    add("namespaceSelector", nobody, json!({"matchLabels": {"tier": "gold"}}), Value::Null);
    add("namespaceSelector.matchLabels{}", json!({"namespaceSelector": {"matchLabels": {"tier": ""}}}), json!("gold"), json!("silver"));
    let expression = "namespaceSelector.matchExpressions[]";
    add(&format!("{expression}.key"), selecting("tier", "Exists", json!([])), json!("tier"), json!("zone"));
    add(&format!("{expression}.values[]"), selecting("tier", "In", json!([""])), json!("gold"), json!("silver"));
    for (operator, another, values) in [
        ("In", "NotIn", json!(["gold"])),
        ("NotIn", "In", json!(["gold"])),
        ("Exists", "DoesNotExist", json!([])),
        ("DoesNotExist", "Exists", json!([])),
    ] {
        add(&format!("{expression}.operator={operator}"), selecting("tier", "", values), json!(operator), json!(another));
    }
    rows
}

/// All that follows from the manifests: verdicts, when to look, what is read, the plan of a new target, the plan once all is gone.
async fn story(specs: &Specs) -> String {
    let stage = Stage::new(specs);
    let judged = stage.judged();
    let mut story = decisions(&judged);
    let before = CALLS.load(Ordering::SeqCst);
    let snapshot = stage.look(&judged).await;
    let _ = writeln!(story, "calls {}", CALLS.load(Ordering::SeqCst) - before);
    let first = stage.plan(&judged, &snapshot);
    tell(&mut story, &first);
    let stage = stage.apply(&first);
    let judged = stage.judged();
    let gone = snapshot.iter().map(|seen| seen.as_ref().map(|_| gone())).collect();
    tell(&mut story, &stage.plan(&judged, &gone));
    story
}

fn decisions(judged: &Judged) -> String {
    let request = &judged.request;
    let (verdicts, credentials) = (&judged.verdicts, &judged.credentials);
    let mut text =
        format!("verdicts {verdicts:?}\ncredentials {credentials:?}\nlooks at {:?}\nchecks at {:?}\n", looks(judged), checks(judged));
    let defaults = Limits::new(16, Duration::from_secs(20), &Timings::default());
    let manners = request.stores.values().flatten().map(|store| defaults.manner(store.own()));
    let _ = writeln!(text, "asks {:?}", manners.collect::<Vec<_>>());
    for target in [TargetState::Unwritten, TargetState::InOrder, TargetState::Missing, TargetState::Drifted] {
        for (is_settled, is_asked) in [(true, false), (true, true), (false, false)] {
            let (is_suspended, policy) = (request.is_suspended, request.policy);
            let decision = due(Standing { is_suspended, policy, is_settled, is_asked, target });
            let _ = write!(text, "{decision:?} ");
        }
    }
    text
}

/// When each store is looked at next, once everything was found.
fn looks(judged: &Judged) -> Vec<(String, Option<i64>)> {
    let now = Moment { mono: 0, wall: i64::try_from(noon().as_nanosecond()).expect("a moment of this century") };
    let mut ledger = Ledger::new(Timings::default(), Some(now.wall));
    let known = ShortMac::from_hex("0123456789abcdef");
    let items: Vec<Item> = judged.verdicts.iter().flatten().map(|granted| granted.get().clone()).collect();
    let enrolments = items.iter().map(|item| Enrolment { item: item.clone(), known, failing: None });
    ledger.register(now, &judged.request.key, judged.request.interval, enrolments);
    items.iter().map(|item| (item.store.clone(), ledger.next_due(&item.store))).collect()
}

/// When the login of each store is checked next: while all is well, and after one to three failures.
fn checks(judged: &Judged) -> Vec<String> {
    let stores = judged.request.stores.values().flatten();
    let told = stores.map(|store| {
        let checking = store.checking().expect("a spec that was admitted");
        let again = |failures| checking.again(&Fault::unavailable("down"), failures, store.uid(), &Timings::default());
        format!("{:?} {:?}", checking.regular(store.uid(), noon()), [again(1), again(2), again(3)])
    });
    told.collect()
}

/// The plan as people read it, with the values of the fixture.
fn tell(story: &mut String, plan: &Plan) {
    let _ = write!(story, "\n{plan}");
    for step in &plan.steps {
        if let Step::Write(write) = step {
            let values = write.body.data.values().map(|value| String::from_utf8_lossy(value.expose()).into_owned());
            let _ = writeln!(story, "{:?}", values.collect::<Vec<_>>());
        }
    }
}

fn gone() -> Seen {
    let sighting = Sighting::Value(Reading::Absent(Fault::absent(Reason::NotFound, "gone")));
    Seen { sighting, is_absence_confirmed: true, is_braked: false }
}

struct Stage {
    world: World,
    object: SyncObject,
    status: SyncStatus,
    root: tempfile::TempDir,
    key: DigestKey,
    api_server: String,
}

impl Stage {
    fn new(specs: &Specs) -> Self {
        let (mut own, mut shared, mut namespaces) = (Writer::default(), Writer::default(), Writer::default());
        let world = World {
            secret_stores: own.as_reader(),
            cluster_stores: shared.as_reader(),
            namespaces: namespaces.as_reader(),
            targets: TargetIndex::default(),
            claims: Claims::default(),
            protected: Arc::default(),
        };
        own.apply_watcher_event(&Event::Apply(parsed(&manifest("SecretStore", "main", &specs.own))));
        shared.apply_watcher_event(&Event::Apply(parsed(&manifest("ClusterSecretStore", "main", &specs.shared))));
        let team: PartialObjectMeta<Namespace> = parsed(&json!({"metadata": {"name": "team", "labels": {"tier": "gold"}}}));
        namespaces.apply_watcher_event(&Event::Apply(team));
        let object = scene::object(specs.kind, "app", "uid-app", &specs.object);
        world.claims.put(&object);
        let root = tempfile::tempdir().expect("a temporary folder");
        let (key, api_server) = (DigestKey::new(&[7; 32]), specs.api_server.clone());
        Self { world, object, status: SyncStatus::default(), root, key, api_server }
    }

    fn judged(&self) -> Judged {
        judge(resolve(&self.world, self.object.clone(), self.status.clone(), noon()), &self.world.protected)
    }

    fn plan(&self, judged: &Judged, snapshot: &Snapshot) -> Plan {
        plan(judged, snapshot, &self.key, &Repairs { window: Duration::from_secs(300), ..Repairs::default() })
    }

    fn apply(mut self, plan: &Plan) -> Self {
        for step in &plan.steps {
            let Step::Write(write) = step else { continue };
            self.world.targets.put(write.body.target.clone(), written(write), true);
            self.status.target = Some(TargetStatus { name: write.body.target.name.clone(), uid: Some("uid-target".to_owned()) });
        }
        self
    }

    /// Reads through the real backends; nothing, while any reference is refused.
    async fn look(&self, judged: &Judged) -> Snapshot {
        if judged.verdicts.iter().any(Result::is_err) {
            return judged.verdicts.iter().map(|_| None).collect();
        }
        let mut snapshot = Snapshot::new();
        for (entry, granted) in judged.request.entries().iter().zip(judged.verdicts.iter().flatten()) {
            let name = judged.request.store_of(entry);
            let sighting = match self.open(judged, &name) {
                Ok(backend) => twice(backend.as_ref(), granted.get()).await,
                Err(fault) => Sighting::Value(Reading::Unknown(fault)),
            };
            snapshot.push(Some(Seen { sighting, is_absence_confirmed: false, is_braked: false }));
        }
        snapshot
    }

    /// Each secret of a credential says which it is.
    fn open(&self, judged: &Judged, name: &StoreName) -> Result<Arc<dyn Backend>, Fault> {
        let view = judged.request.stores[name].as_ref().expect("a store that was judged");
        let credential = judged.credentials[name].clone()?;
        let said = |key: &CredentialKey| SecretValue::from(format!("{}/{}/{}", key.holder.namespace, key.holder.name, key.key));
        let given = |role: Role, key: &CredentialKey| if role == Role::GoogleKey { google_key(key) } else { said(key) };
        let secrets = credential.get().keys.iter().map(|(role, key)| (*role, given(*role, key))).collect();
        let tokens = credential.get().account.clone().map(|account| Arc::new(Minted(account)) as Arc<dyn TokenSource>);
        let credentials = Credentials { secrets, tokens };
        let provider: Provider<'_> = view.provider()?;
        let mut settings = self.settings();
        let servers = match provider {
            Provider::Vault(vault) => [Some(&vault.server), None],
            Provider::Aws(aws) => [aws.endpoint.as_ref(), aws.sts_endpoint.as_ref()],
            Provider::Kubernetes(_) | Provider::File(_) | Provider::Env(_) | Provider::Fake(_) => [None, None],
        };
        // The fixture's servers listen on loopback, where a tenant's store may not lead by itself.
        settings.endpoints.tenants.extend(servers.iter().flatten().filter_map(|server| server.trim_start_matches("http://").parse().ok()));
        backend::open(name, provider, &credentials, &settings)
    }

    fn settings(&self) -> Settings {
        let variables = [("APP_DOC", "{\"a\": \"flat\"}"), ("APP___DOC", "{\"a\": \"nested\"}"), ("CFG_DOC", "{\"a\": \"other\"}")];
        let environment: BTreeMap<_, _> =
            variables.into_iter().map(|(name, value)| (name.to_owned(), SecretValue::from(value.to_owned()))).collect();
        Settings {
            file_root: Some(self.root.path().to_owned()),
            file_master_key: Some(self.root.path().join("master")),
            file_tree_root: Some(self.root.path().to_owned()),
            file_namespaced: true,
            environment,
            call_timeout: Duration::from_secs(20),
            proxies: crate::backend::transport::Proxies::default(),
            api_server: Some(ApiServer { url: self.api_server.clone(), authorities: Vec::new() }),
            endpoints: Endpoints::default(),
            #[cfg(feature = "aws-client")]
            logins: backend::aws::Logins::default(),
        }
    }
}

/// The key of a Google service account whose id says which it is.
fn google_key(key: &CredentialKey) -> SecretValue {
    static PEM: LazyLock<String> = LazyLock::new(|| {
        let pair = KeyPair::generate(KeySize::Rsa2048).expect("a key");
        let der: Pkcs8V1Der<'_> = pair.as_der().expect("a key has a form");
        format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", BASE64_STANDARD.encode(der.as_ref()))
    });
    let file = json!({"type": "service_account", "client_email": "a@b", "private_key_id": key.to_string(), "private_key": *PEM});
    SecretValue::from(file.to_string())
}

/// A token that says whose it is.
#[derive(Debug)]
struct Minted(TokenAccount);

#[async_trait]
impl TokenSource for Minted {
    async fn token(&self) -> Result<SecretValue, Fault> {
        Ok(SecretValue::from(graphic(&format!("{:?}", self.0))))
    }

    async fn forget(&self) {}

    async fn annotation(&self, name: &str) -> Result<Option<String>, Fault> {
        Ok(Some(format!("arn:{name}")))
    }
}

/// As a header can hold it.
fn graphic(text: &str) -> String {
    text.chars().map(|character| if character.is_ascii_graphic() { character } else { '_' }).collect()
}

/// What is seen; then nobody uses it any more, and somebody does again.
async fn twice(backend: &dyn Backend, item: &Item) -> Sighting {
    let seen = sighting(backend, item).await;
    if let Wanted::Value(wanted) = &item.wanted {
        backend.release(wanted).await;
        sighting(backend, item).await;
    }
    seen
}

async fn sighting(backend: &dyn Backend, item: &Item) -> Sighting {
    match &item.wanted {
        Wanted::Value(wanted) => Sighting::Value(backend.fetch(std::slice::from_ref(wanted)).await.remove(0)),
        Wanted::Find(find) => {
            let search = Search::new(find).expect("it was granted");
            let path = find.listing.path.as_ref().map(RemoteKey::as_str);
            let names = match backend.lister().expect("a store that lists").list_tagged(path, &find.listing.tags).await {
                Ok(names) => names,
                Err(fault) => return Sighting::Found(Err(fault)),
            };
            let mut found = BTreeMap::new();
            for key in names.into_iter().filter(|name| search.takes(name)) {
                let wanted = RemoteRef { key: key.clone(), version: None, is_metadata: find.is_metadata };
                if let Reading::Found(fetched) = backend.fetch(&[wanted]).await.remove(0) {
                    found.insert(key, fetched);
                }
            }
            Sighting::Found(Ok(found.into()))
        }
    }
}

fn manifest(kind: &str, name: &str, spec: &Value) -> Value {
    let mut metadata = json!({"name": name, "uid": format!("uid-{kind}"), "generation": 1, "resourceVersion": "5"});
    if kind != "ClusterSecretStore" {
        metadata["namespace"] = json!("team");
    }
    json!({"apiVersion": "keyferry.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec})
}

fn parsed<T: serde::de::DeserializeOwned>(manifest: &Value) -> T {
    serde_json::from_value(manifest.clone()).expect("the fixture is a manifest")
}

/// What all servers of the fixture were asked, one story after the other.
static CALLS: AtomicUsize = AtomicUsize::new(0);

/// A key-value server that tells its name, the path and the token it was asked with.
struct Server {
    url: String,
    _task: AbortOnDropHandle<()>,
}

impl Server {
    async fn start(name: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port on loopback");
        let url = format!("http://{}", listener.local_addr().expect("a bound port"));
        let task = tokio::spawn(async move {
            while let Ok((mut connection, _)) = listener.accept().await {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let Ok(byte) = connection.read_u8().await else { break };
                    head.push(byte);
                }
                CALLS.fetch_add(1, Ordering::SeqCst);
                let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
                let mut body = vec![0; length.unwrap_or(0)];
                let _ = connection.read_exact(&mut body).await;
                let _ = connection.write_all(answer(name, &head, &String::from_utf8_lossy(&body)).as_bytes()).await;
            }
        });
        Self { url, _task: AbortOnDropHandle::new(task) }
    }
}

fn answer(name: &str, head: &str, body: &str) -> String {
    let line = head.lines().next().unwrap_or_default();
    let headers: Vec<&str> =
        head.lines().filter(|line| line.starts_with("x-vault-token") || line.starts_with("x-vault-namespace")).collect();
    // Of a JWT that is signed at each login only the head is the same each time.
    let body = body.split(".ey").next().unwrap_or_default();
    let login = json!({"auth": {"client_token": graphic(&format!("{line} {}", timeless(body))), "lease_duration": 0}});
    let value = json!({"data": {"data": {"a": format!("{name}: {line} {}", headers.join(" "))}, "metadata": {"version": 3, "deletion_time": "", "destroyed": false}}, "lease_id": "x", "lease_duration": 60});
    let engine = json!({"data": {"path": "secret/", "type": "kv", "options": {"version": "2"}}});
    let object = |path: &str| {
        let mut parts = path.split('/');
        let (namespace, object) =
            (parts.next().unwrap_or_default(), parts.nth(1).and_then(|rest| rest.split(' ').next()).unwrap_or_default());
        let metadata = json!({"name": object, "namespace": namespace, "resourceVersion": "3"});
        json!({"kind": "Secret", "metadata": metadata, "data": {"a": BASE64_STANDARD.encode(format!("{name}: {line}"))}})
    };
    if body.starts_with("Action=AssumeRole") {
        return whole(&of_sts(name, body));
    }
    let body = match line {
        _ if head.contains("x-amz-target: ") => of_amazon(name, head, body),
        line if line.contains("/api/v1/namespaces/") => object(line.split_once("/api/v1/namespaces/").map_or("", |(_, path)| path)),
        line if line.contains("/sys/internal/") => engine,
        line if line.starts_with("post") => login,
        _ => value,
    };
    whole(&body.to_string())
}

fn whole(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

/// Keys whose id tells what was asked for and where.
fn of_sts(name: &str, asked: &str) -> String {
    let id = graphic(&format!("{name}:{}", asked.to_ascii_lowercase()));
    let keys = format!(
        "<AccessKeyId>{}</AccessKeyId><SecretAccessKey>k</SecretAccessKey><SessionToken>t</SessionToken><Expiration>2999-01-01T00:00:00Z</Expiration>",
        id.replace('&', "_")
    );
    let action = if asked.starts_with("Action=AssumeRoleWithWebIdentity") { "AssumeRoleWithWebIdentity" } else { "AssumeRole" };
    format!("<{action}Response><{action}Result><Credentials>{keys}</Credentials></{action}Result></{action}Response>")
}

/// A login without what is signed with the time; of that, who signs what.
fn timeless(body: &str) -> String {
    let mut login: Value = serde_json::from_str(body).unwrap_or_default();
    let Some(headers) = login["iam_request_headers"].as_str().and_then(|headers| BASE64_STANDARD.decode(headers).ok()) else {
        return body.to_owned();
    };
    let mut headers: Value = serde_json::from_slice(&headers).expect("headers are JSON");
    for signed in ["authorization", "x-amz-date"] {
        headers.as_object_mut().expect("a map").remove(signed);
    }
    login["iam_request_headers"] = headers;
    login.to_string()
}

/// Tells who signed for which region, in the shape of both services.
fn of_amazon(name: &str, head: &str, body: &str) -> Value {
    let scope = head.split_once("credential=").and_then(|(_, scope)| scope.split(',').next()).unwrap_or_default();
    // It ends in the key's id, the date, region, service and a word.
    let (id, region) = (scope.rsplit('/').nth(4), scope.rsplit('/').nth(2));
    let token = head.contains("x-amz-security-token");
    let text = json!({"a": format!("{name}: {id:?} {region:?} {token} {body}")}).to_string();
    let asked: Value = serde_json::from_str(body).unwrap_or_default();
    match asked.get("Names") {
        Some(names) => json!({"Parameters": [{"Name": names[0], "Type": "String", "Value": text, "Version": 1}]}),
        None => json!({"Name": asked["SecretId"], "SecretString": text, "VersionId": "00000000-0000-0000-0000-000000000000"}),
    }
}
