//! What goes when something goes: the object, its namespace, the value in the backend. And what must stay.

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret};
use kube::api::{DeleteParams, PropagationPolicy};
use kube::{Api, ResourceExt};
use serde_json::json;

use keyferry::crd::v1alpha1::{ClusterSecretStore, ExternalSecret};

use super::whole_values;
use crate::harness::{Cluster, Settings, VaultStore, World};

async fn deletion_never_fights(policy: PropagationPolicy) {
    let world = World::start().await;
    let store = world.file_store().await;
    let value = world.canary();
    store.set("db/password", value.bytes());
    world.cluster.apply(&whole_values("db", &store.name, "", &[("password", "db/password")])).await;
    world.cluster.ready("db").await;
    world.may_vanish("db");
    world.a_while().await;
    let mark = world.audit.mark();
    world.cluster.delete::<ExternalSecret>("db", &DeleteParams { propagation_policy: Some(policy), ..DeleteParams::default() }).await;
    world.cluster.until::<ExternalSecret>("db", "to be gone", |object| object.is_none()).await;
    world.cluster.until::<Secret>("db", "to be gone", |secret| secret.is_none()).await;
    world.a_while().await;
    let work = world.work_since(mark);
    assert!(!work.keys().any(|what| what.starts_with("patch") || what.starts_with("create")), "nothing is written: {work:?}");
    assert_eq!(world.history().await.of("db").iter().filter(|sight| sight.data.is_none()).count(), 1, "it goes once");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_its_object_the_target_goes() {
    deletion_never_fights(PropagationPolicy::Background).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_foreground_deletion_the_target_goes_first_and_is_not_made_again() {
    deletion_never_fights(PropagationPolicy::Foreground).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_orphan_stays_and_none_is_never_written() {
    let world = World::start().await;
    let store = world.file_store().await;
    let value = world.canary();
    store.set("db/password", value.bytes());
    let keys: &[(&str, &str)] = &[("password", "db/password")];
    world.cluster.apply(&whole_values("kept", &store.name, "  target: {creationPolicy: Orphan}\n", keys)).await;
    world.cluster.apply(&whole_values("checked", &store.name, "  target: {creationPolicy: None}\n", keys)).await;
    world.cluster.ready("kept").await;
    world.cluster.ready("checked").await;
    let secret = world.cluster.get::<Secret>("kept").await.unwrap();
    assert!(secret.owner_references().is_empty() && secret.labels().contains_key("keyferry.dev/managed"));
    world.cluster.delete::<ExternalSecret>("kept", &DeleteParams::foreground()).await;
    world.cluster.until::<ExternalSecret>("kept", "to be gone", |object| object.is_none()).await;
    world.a_while().await;
    assert_eq!(world.cluster.get::<Secret>("kept").await.unwrap().uid(), secret.uid());
    assert!(world.history().await.of("checked").is_empty());
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_written_into_a_namespace_that_ends() {
    let world = World::start().await;
    let other = Cluster { namespace: format!("{}-b", world.namespace()), ..world.cluster.clone() };
    other.apply(&format!("kind: Namespace\nmetadata: {{name: {}, labels: {{keyferry-e2e: world}}}}", other.namespace)).await;
    let name = format!("{}-file", world.namespace());
    let store = world.file_store_named(&name, &format!("conditions: [{{namespaces: [{}, {}]}}]", world.namespace(), other.namespace)).await;
    store.set("db/password", "first");
    let manifest = whole_values("db", &store.name, "", &[("password", "db/password")]);
    other.apply(&manifest).await;
    other.ready("db").await;
    // Both keep the namespace in its end, the object without a deletion of its own would not stay.
    let hold = json!({ "metadata": { "finalizers": ["example.com/hold"] } });
    other.apply("kind: ConfigMap\nmetadata: {name: hold}").await;
    other.merge::<ConfigMap>("hold", &hold).await;
    other.merge::<ExternalSecret>("db", &hold).await;
    Api::<Namespace>::all(world.cluster.client.clone()).delete(&other.namespace, &DeleteParams::default()).await.unwrap();
    other.until::<Secret>("db", "to be gone", |secret| secret.is_none()).await;
    let mark = world.audit.mark();
    store.set("db/password", "second");
    world.a_while().await;
    let requests = world.audit.of_operator(mark);
    let written = requests.iter().filter(|request| request.namespace == other.namespace && request.verb != "watch").count();
    assert_eq!(written, 0, "{requests:?}");
    let release = json!({ "metadata": { "finalizers": null } });
    other.merge::<ExternalSecret>("db", &release).await;
    other.merge::<ConfigMap>("hold", &release).await;
    world.finish().await;
}

fn quick() -> Settings {
    Settings::default().timing("misses", "1s").timing("absent", "500ms")
}

async fn deleting_object(world: &World, keys: &[(&str, &str)]) -> VaultStore {
    let store = world.vault().await;
    for (_, remote) in keys {
        store.kv().put(remote, &json!({ "value": "present" })).await;
    }
    let more = "  refreshInterval: 2s\n  target: {deletionPolicy: Delete}\n";
    world.cluster.apply(&whole_values("db", &store.name, more, keys)).await;
    world.cluster.ready("db").await;
    store
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proven_absence_deletes_where_that_was_asked_for() {
    let world = World::start_with(quick()).await;
    let store = deleting_object(&world, &[("a", "app/a"), ("b", "app/b")]).await;
    store.kv().remove("app/a").await;
    let message = world.cluster.not_ready("db", "NotFound").await;
    assert!(message.contains("data[a]") && message.contains("app/a"), "{message}");
    world.a_while().await;
    assert!(world.cluster.get::<Secret>("db").await.is_some(), "one of two is no reason");

    world.may_vanish("db");
    let looks = store.looks("app/b");
    store.kv().remove("app/b").await;
    world.cluster.until::<Secret>("db", "to be gone", |secret| secret.is_none()).await;
    assert!(store.looks("app/b") >= looks + 2, "two misses");
    // And it comes back with its values.
    store.kv().put("app/a", &json!({ "value": "again" })).await;
    store.kv().put("app/b", &json!({ "value": "again" })).await;
    world.cluster.until::<Secret>("db", "to be back", |secret| secret.is_some()).await;
    world.cluster.ready("db").await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_soft_deletion_and_a_lost_right_and_a_seal_keep_the_target() {
    let world = World::start_with(quick()).await;
    let store = deleting_object(&world, &[("a", "app/a")]).await;
    let uid = world.cluster.get::<Secret>("db").await.unwrap().uid();
    store.kv().soft_delete("app/a").await;
    world.cluster.not_ready("db", "Deleted").await;
    let looks = store.looks("app/a");
    store.proxy.await_calls(|calls| calls.iter().filter(|call| VaultStore::look("app/a").matches(call)).count() >= looks + 4).await;
    assert_eq!(world.cluster.get::<Secret>("db").await.unwrap().uid(), uid);
    store.kv().undelete("app/a", &[1]).await;
    world.cluster.ready("db").await;

    store.bao.seal().await;
    world
        .cluster
        .external("db", "to say Sealed and stay Ready", |object| {
            use crate::harness::cluster::{condition_is, reason_of};
            reason_of(object, "Fresh", "False") == Some("Sealed") && condition_is(object, "Ready", "True")
        })
        .await;
    store.bao.unseal().await;
    world.cluster.external("db", "to be Fresh again", |object| crate::harness::cluster::condition_is(object, "Fresh", "True")).await;

    store.bao.revoke_token(&store.token).await;
    world
        .cluster
        .external("db", "to say AccessDenied and stay Ready", |object| {
            use crate::harness::cluster::{condition_is, reason_of};
            reason_of(object, "Fresh", "False") == Some("AccessDenied") && condition_is(object, "Ready", "True")
        })
        .await;
    assert_eq!(world.cluster.get::<Secret>("db").await.unwrap().uid(), uid);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_absences_at_once_delete_nothing_until_somebody_confirms() {
    let world = World::start_with(quick()).await;
    let keys = ["a", "b", "c", "d", "e"];
    let remote: Vec<String> = keys.iter().map(|key| format!("app/{key}")).collect();
    let pairs: Vec<(&str, &str)> = keys.iter().copied().zip(remote.iter().map(String::as_str)).collect();
    let store = deleting_object(&world, &pairs).await;
    for key in &remote {
        store.kv().remove(key).await;
    }
    let message = world.cluster.not_ready("db", "MassAbsence").await;
    assert!(message.contains("keyferry.dev/confirm-absence"), "{message}");
    let looks = store.looks("app/a");
    store.proxy.await_calls(|calls| calls.iter().filter(|call| VaultStore::look("app/a").matches(call)).count() >= looks + 3).await;
    assert!(world.cluster.get::<Secret>("db").await.is_some());

    world.may_vanish("db");
    let stores = Api::<ClusterSecretStore>::all(world.cluster.client.clone());
    let confirm = json!({ "metadata": { "annotations": { "keyferry.dev/confirm-absence": "yes" } } });
    stores.patch(&store.name, &Default::default(), &kube::api::Patch::Merge(&confirm)).await.unwrap();
    world.cluster.until::<Secret>("db", "to be gone", |secret| secret.is_none()).await;
    world.finish().await;
}
