//! What people get wrong: each mistake is refused or shown at its place with a remedy, and what was delivered stays.

use std::fs;

use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use kube::api::DeleteParams;
use serde_json::json;

use super::{external, whole_values};
use crate::harness::cluster::{condition_is, message_of, reason_of};
use crate::harness::{Canary, World};

/// A mistake in an object that worked: what is applied instead, the reason, and words that tell the place and the remedy.
struct Mistake {
    name: &'static str,
    spec: String,
    reason: &'static str,
    words: &'static [&'static str],
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mistake_is_shown_at_its_place_and_the_target_stays() {
    let world = World::start().await;
    let name = format!("{}-file", world.namespace());
    let store =
        world.file_store_named(&name, &format!("conditions: [{{namespaces: [{}]}}]\n  allowedKeys: [app/**]", world.namespace())).await;
    let value = world.canary();
    store.set("app/good", value.bytes());
    store.set("app/large", vec![b'x'; 2 << 20]);
    store.set("app/odd", format!(r#"{{"{}": "x"}}"#, "k".repeat(300)));
    store.set("app/json", r#"{"a": "x"}"#);
    store.set("app/empty", "");
    store.set("other/denied", world.withheld().bytes());
    let entry = |lines: &str| external("NAME", &name, lines);
    let mistakes = [
        Mistake {
            name: "bad-regexp",
            spec: entry("  dataFrom: [{find: {name: {regexp: 'a('}}}]"),
            reason: "InvalidSpec",
            words: &["dataFrom[0]", "regexp"],
        },
        Mistake {
            name: "missing-store",
            spec: entry("  data: [{secretKey: k, remoteRef: {key: app/good}}]").replace("kind: ClusterSecretStore, name", "name"),
            reason: "StoreNotReady",
            words: &["data[k]", "SecretStore"],
        },
        Mistake {
            name: "missing-cluster-store",
            spec: entry("  data: [{secretKey: k, remoteRef: {key: app/good}}]").replace(&name, "nowhere"),
            reason: "NotAllowed",
            words: &["data[k]", "nowhere"],
        },
        Mistake {
            name: "missing-key",
            spec: entry("  data: [{secretKey: k, remoteRef: {key: app/nothing}}]"),
            reason: "NotFound",
            words: &["data[k]", "app/nothing"],
        },
        Mistake {
            name: "missing-property",
            spec: entry("  data: [{secretKey: k, remoteRef: {key: app/json, property: b}}]"),
            reason: "InvalidData",
            words: &["data[k]", "app/json", "b"],
        },
        Mistake {
            name: "empty-value",
            spec: entry("  data: [{secretKey: k, remoteRef: {key: app/empty}}]"),
            reason: "EmptyValue",
            words: &["data[k]", "app/empty"],
        },
        Mistake {
            name: "denied-key",
            spec: entry("  data: [{secretKey: k, remoteRef: {key: other/denied}}]"),
            reason: "NotAllowed",
            words: &["data[k]"],
        },
        Mistake {
            name: "large-value",
            spec: entry("  data: [{secretKey: k, remoteRef: {key: app/large}}]"),
            reason: "TooLarge",
            words: &["2097152", "1048576"],
        },
        Mistake {
            name: "invalid-secret-key",
            spec: entry("  dataFrom: [{extract: {key: app/odd}}]"),
            reason: "InvalidData",
            words: &["dataFrom[0]", "kkkk", "rename it"],
        },
        Mistake {
            name: "collision",
            spec: entry("  dataFrom: [{extract: {key: app/json}}, {extract: {key: app/json}}]"),
            reason: "KeyCollision",
            words: &["dataFrom[1]", "\"a\""],
        },
    ];
    for mistake in &mistakes {
        world.cluster.apply(&whole_values(mistake.name, &store.name, "", &[("good", "app/good")])).await;
    }
    let mut wrong = Vec::new();
    for mistake in &mistakes {
        world.cluster.ready(mistake.name).await;
        let before = world.cluster.get::<Secret>(mistake.name).await.unwrap();
        world.cluster.apply(&mistake.spec.replace("NAME", mistake.name)).await;
        let object = world
            .cluster
            .external(mistake.name, "to be not Ready", |object| {
                crate::harness::cluster::is_current(object) && condition_is(object, "Ready", "False")
            })
            .await;
        let (reason, message) = (reason_of(&object, "Ready", "False").unwrap_or_default(), message_of(&object, "Ready"));
        if reason != mistake.reason || !mistake.words.iter().all(|word| message.contains(word)) {
            wrong.push(format!("{}: {reason}: {message}", mistake.name));
        }
        assert!(message.chars().count() <= 512, "{message}");
        let after = world.cluster.get::<Secret>(mistake.name).await.unwrap();
        assert_eq!((after.resource_version(), after.data), (before.resource_version(), before.data), "{}", mistake.name);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_file_of_another_version_is_named_and_the_target_stays() {
    let world = World::start().await;
    let store = world.file_store().await;
    let value = world.canary();
    store.set("db/password", value.bytes());
    world.cluster.apply(&whole_values("db", &store.name, "  refreshInterval: 1s\n", &[("password", "db/password")])).await;
    world.cluster.ready("db").await;
    // A whole other file in its place, as a newer program would leave it.
    fs::write(&store.file, b"a store of another time").unwrap();
    let object = world.cluster.external("db", "to be not Fresh", |object| condition_is(object, "Fresh", "False")).await;
    let message = message_of(&object, "Fresh");
    assert!(message.contains("data[password]") && message.contains("store"), "{message}");
    assert!(condition_is(&object, "Ready", "True"), "what was delivered is still good for a while");
    world.cluster.holds("db", &[("password", value.bytes())]).await;
    let reason = reason_of(&object, "Fresh", "False").expect("a reason");
    world.cluster.store_says(&store.name, "False", reason).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_credential_is_named_and_the_target_stays() {
    let world = World::start().await;
    let store = world.vault().await;
    let value = world.canary();
    store.kv().put("db", &json!({ "password": value.text })).await;
    let more = "  refreshInterval: 2s\n  data: [{secretKey: password, remoteRef: {key: db, property: password}}]";
    world.cluster.apply(&external("db", &store.name, more)).await;
    world.cluster.ready("db").await;
    world.cluster.delete::<Secret>("bao-token", &DeleteParams::default()).await;
    let object = world.cluster.external("db", "to be not Fresh", |object| condition_is(object, "Fresh", "False")).await;
    let message = message_of(&object, "Fresh");
    assert!(message.contains("bao-token") && message.contains("data[password]"), "{message}");
    assert!(condition_is(&object, "Ready", "True"), "{message}");
    world.cluster.holds("db", &[("password", value.bytes())]).await;
    // A new credential is noticed at once.
    let token = store.bao.create_token(r#"path "secret/*" { capabilities = ["read", "list"] }"#).await;
    world.source("bao-token", &Canary::plain(&token));
    store.write_token(&world, &token).await;
    world.cluster.external("db", "to be Fresh again", |object| condition_is(object, "Fresh", "True")).await;
    world.finish().await;
}
