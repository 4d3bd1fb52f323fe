//! When an object is looked at: asked for, suspended, once, or only on change.

use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{DeleteParams, Patch};
use serde_json::json;

use keyferry::crd::v1alpha1::{ClusterSecretStore, ExternalSecret};

use super::{external, whole_values};
use crate::harness::cluster::{condition_is, reason_of};
use crate::harness::{VaultStore, World};
use crate::proxy::Matcher;

fn object(name: &str, store: &VaultStore, more: &str) -> String {
    external(name, &store.name, &format!("{more}  data: [{{secretKey: v, remoteRef: {{key: {name}, property: v}}}}]"))
}

fn ask(token: &str) -> serde_json::Value {
    json!({ "metadata": { "annotations": { "keyferry.dev/refresh": token } } })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_that_is_asked_for_is_made_and_acknowledged_whatever_it_finds() {
    let world = World::start().await;
    let store = world.vault().await;
    let (old, new) = (world.canary(), world.canary());
    store.kv().put("db", &json!({ "v": old.text })).await;
    world.cluster.apply(&object("db", &store, "  refreshInterval: 24h\n")).await;
    world.cluster.ready("db").await;
    let handled = |token: &'static str| {
        move |object: &ExternalSecret| object.status.as_ref().and_then(|status| status.handled_refresh.as_deref()) == Some(token)
    };
    world.a_while().await;
    let mark = world.audit.mark();
    world.cluster.merge::<ExternalSecret>("db", &ask("1")).await;
    world.cluster.external("db", "to acknowledge 1", handled("1")).await;
    assert_eq!(world.work_since(mark).get("patch secrets"), None, "nothing changed");
    store.kv().put("db", &json!({ "v": new.text })).await;
    world.cluster.merge::<ExternalSecret>("db", &ask("2")).await;
    world.cluster.external("db", "to acknowledge 2", handled("2")).await;
    world.cluster.holds("db", &[("v", new.bytes())]).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_object_is_neither_read_nor_written() {
    let world = World::start().await;
    let store = world.vault().await;
    let (old, new) = (world.canary(), world.canary());
    store.kv().put("db", &json!({ "v": old.text })).await;
    world.cluster.apply(&object("db", &store, "  refreshInterval: 1s\n")).await;
    world.cluster.ready("db").await;
    world.cluster.apply(&object("db", &store, "  refreshInterval: 1s\n  suspend: true\n")).await;
    world.cluster.external("db", "to be Suspended", |object| reason_of(object, "Ready", "True") == Some("Suspended")).await;
    // A watch may show a status before its write is answered and in the audit log.
    world.a_while().await;
    let (mark, looks) = (world.audit.mark(), store.looks("db"));
    store.kv().put("db", &json!({ "v": new.text })).await;
    for _ in 0..4 {
        world.a_while().await;
    }
    assert_eq!(store.looks("db"), looks);
    let work = world.work_since(mark);
    assert!(work.is_empty(), "{work:?}");
    world.cluster.apply(&object("db", &store, "  refreshInterval: 1s\n")).await;
    world.cluster.holds("db", &[("v", new.bytes())]).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn created_once_is_kept_and_on_change_waits_for_a_change() {
    let world = World::start().await;
    let store = world.file_store().await;
    let (old, new) = (world.canary(), world.canary());
    store.set("db", old.bytes());
    world.cluster.apply(&whole_values("once", &store.name, "  refreshPolicy: CreatedOnce\n", &[("v", "db")])).await;
    world.cluster.apply(&whole_values("on-change", &store.name, "  refreshPolicy: OnChange\n", &[("v", "db")])).await;
    world.cluster.ready("once").await;
    world.cluster.ready("on-change").await;
    store.set("db", new.bytes());
    // A change of the object is a change.
    let edited = whole_values("on-change", &store.name, "  refreshPolicy: OnChange\n", &[("v", "db"), ("w", "db")]);
    world.cluster.apply(&edited).await;
    world.cluster.holds("on-change", &[("v", new.bytes()), ("w", new.bytes())]).await;
    world.a_while().await;
    world.cluster.holds("once", &[("v", old.bytes())]).await;
    // It is created again where somebody deletes it, and only then looked at.
    world.may_vanish("once");
    world.cluster.delete::<Secret>("once", &DeleteParams::default()).await;
    world.cluster.holds("once", &[("v", new.bytes())]).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_changed_together_arrive_together_though_each_is_looked_at_alone() {
    let world = World::start().await;
    let store = world.vault().await;
    let keys = ["a", "b", "c"];
    let entries: String =
        keys.iter().map(|key| format!("    - {{secretKey: {key}, remoteRef: {{key: pair/{key}, property: v}}}}\n")).collect();
    for generation in 1..=5 {
        // No look falls between the writes: no backend promises anything about that.
        let held = store.proxy.hold(Matcher::any().resource_prefix("secret/")).may_stay_silent();
        let mut wanted = Vec::new();
        for key in keys {
            let value = world.canary_of(generation);
            store.kv().put(&format!("pair/{key}"), &json!({ "v": value.text })).await;
            wanted.push((key, value));
        }
        if generation == 1 {
            world.cluster.apply(&external("pair", &store.name, &format!("  refreshInterval: 2s\n  data:\n{entries}"))).await;
        }
        held.withdraw();
        let wanted: Vec<(&str, &[u8])> = wanted.iter().map(|(key, value)| (*key, value.bytes())).collect();
        world.cluster.holds("pair", &wanted).await;
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_appears_and_a_store_that_appears_are_noticed() {
    let world = World::start_with(crate::harness::Settings::default().timing("absent", "500ms")).await;
    let store = world.file_store().await;
    let (early, late) = (world.canary(), world.canary());
    world.cluster.apply(&whole_values("key", &store.name, "", &[("v", "early")])).await;
    world.cluster.not_ready("key", "NotFound").await;
    store.set("early", early.bytes());
    world.cluster.holds("key", &[("v", early.bytes())]).await;
    world.cluster.ready("key").await;

    let name = format!("{}-late", world.namespace());
    world.cluster.apply(&whole_values("store", &name, "", &[("v", "late")])).await;
    world.cluster.not_ready("store", "NotAllowed").await;
    let appeared = world.file_store_named(&name, &format!("conditions: [{{namespaces: [{}]}}]", world.namespace())).await;
    appeared.set("late", late.bytes());
    world.cluster.ready("store").await;
    // Whoever loses his store keeps what he has.
    let stores = Api::<ClusterSecretStore>::all(world.cluster.client.clone());
    stores.delete(&name, &DeleteParams::default()).await.unwrap();
    world.cluster.not_ready("store", "NotAllowed").await;
    world.cluster.holds("store", &[("v", late.bytes())]).await;
    let untouched = Patch::Merge(json!({ "metadata": { "labels": { "some": "label" } } }));
    stores.patch(&store.name, &Default::default(), &untouched).await.unwrap();
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_softly_deleted_key_of_a_file_store_comes_back() {
    let world = World::start_with(crate::harness::Settings::default().timing("misses", "500ms").timing("absent", "300ms")).await;
    let store = world.file_store().await;
    let value = world.canary();
    store.set("db", value.bytes());
    world.cluster.apply(&whole_values("db", &store.name, "  target: {deletionPolicy: Delete}\n", &[("v", "db")])).await;
    let (other, later) = (world.canary(), world.canary());
    store.set("other", other.bytes());
    let search = "  refreshInterval: 2s\n  dataFrom: [{find: {name: {regexp: \"^(db|other)$\"}}}]";
    world.cluster.apply(&external("found", &store.name, search)).await;
    world.cluster.ready("db").await;
    world.cluster.ready("found").await;
    store.delete("db");
    store.set("other", later.bytes());
    world.cluster.not_ready("found", "Deleted").await;
    world.cluster.holds("found", &[("db", value.bytes()), ("other", other.bytes())]).await;
    let message = world.cluster.not_ready("db", "Deleted").await;
    assert!(message.contains("data[v]"), "{message}");
    for _ in 0..2 {
        world.a_while().await;
    }
    world.cluster.holds("db", &[("v", value.bytes())]).await;
    store.undelete("db");
    for name in ["db", "found"] {
        world.cluster.external(name, "to be Ready", |object| condition_is(object, "Ready", "True")).await;
    }
    world.cluster.holds("found", &[("db", value.bytes()), ("other", later.bytes())]).await;
    world.finish().await;
}
