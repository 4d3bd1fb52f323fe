//! Whose a target is: foreign ones are untouched, ours come back, two objects never fight.

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::api::events::v1::Event;
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams};
use serde_json::json;

use keyferry::crd::v1alpha1::ExternalSecret;

use super::whole_values;
use crate::harness::{World, cluster::data_of};

async fn events(world: &World, reason: &str) -> usize {
    let events = world.cluster.api::<Event>().list(&ListParams::default()).await.unwrap();
    events.iter().filter(|event| event.reason.as_deref() == Some(reason)).count()
}

fn base64(text: &str) -> String {
    base64::Engine::encode(&base64::engine::general_purpose::STANDARD, text)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_secret_is_untouched_and_its_name_is_taken_when_it_goes() {
    let world = World::start().await;
    let store = world.file_store().await;
    let value = world.canary();
    store.set("db/password", value.bytes());
    world.cluster.apply("kind: Secret\nmetadata: {name: db}\nstringData: {password: theirs, other: theirs}").await;
    let theirs = world.cluster.get::<Secret>("db").await.unwrap();

    world.cluster.apply(&whole_values("db", &store.name, "", &[("password", "db/password")])).await;
    let message = world.cluster.not_ready("db", "NotOwned").await;
    assert!(message.contains("the-test") && message.contains("target.name"), "who has it and what to do: {message}");
    let object = world.cluster.get::<ExternalSecret>("db").await.unwrap();
    assert!(crate::harness::cluster::condition_is(&object, "Stalled", "True"));
    assert_eq!(object.status.unwrap().target, None, "no target was written");
    assert_eq!(world.cluster.get::<Secret>("db").await.unwrap(), theirs, "not even its metadata was written");

    world.cluster.delete::<Secret>("db", &DeleteParams::default()).await;
    world.cluster.ready("db").await;
    world.cluster.holds("db", &[("password", value.bytes())]).await;
    world.a_while().await;
    assert_eq!(events(&world, "Recreated").await, 0, "it was never ours before");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_target_comes_back() {
    let world = World::start().await;
    let store = world.file_store().await;
    let value = world.canary();
    store.set("db/password", value.bytes());
    world.cluster.apply(&whole_values("db", &store.name, "", &[("password", "db/password")])).await;
    world.cluster.ready("db").await;
    let first = world.cluster.get::<Secret>("db").await.unwrap().uid();
    world.may_vanish("db");

    world.cluster.delete::<Secret>("db", &DeleteParams::default()).await;
    let is_back = |secret: Option<&Secret>| secret.is_some_and(|secret| secret.uid() != first);
    let back = world.cluster.until::<Secret>("db", "to be back", is_back).await.unwrap();
    assert_eq!(data_of(&back)["password"], value.bytes());
    world
        .cluster
        .external("db", "to name the new Secret", |object| {
            object.status.as_ref().and_then(|status| status.target.as_ref()).and_then(|target| target.uid.clone()) == back.uid()
        })
        .await;
    world.a_while().await;
    assert_eq!(events(&world, "Recreated").await, 1);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edited_key_is_restored_until_its_editor_insists_and_foreign_keys_stay() {
    let world = World::start().await;
    let store = world.file_store().await;
    let value = world.canary();
    store.set("db/password", value.bytes());
    world.cluster.apply(&whole_values("db", &store.name, "", &[("password", "db/password")])).await;
    world.cluster.ready("db").await;
    let edit = json!({ "data": { "password": base64("edited"), "theirs": base64("kept") } });
    let wanted: &[(&str, &[u8])] = &[("password", value.bytes()), ("theirs", b"kept")];
    for _ in 0..3 {
        world.cluster.merge::<Secret>("db", &edit).await;
        world.cluster.holds("db", wanted).await;
    }
    world.cluster.merge::<Secret>("db", &edit).await;
    let message = world.cluster.not_ready("db", "Conflict").await;
    assert!(message.contains("password"), "the key that is fought over: {message}");
    assert_eq!(data_of(&world.cluster.get::<Secret>("db").await.unwrap())["password"], b"edited", "its editor wins for a while");
    world.outruns_status("db");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_key_and_a_removed_label_are_restored() {
    let world = World::start().await;
    let store = world.file_store().await;
    let (one, two) = (world.canary(), world.canary());
    store.set("one", one.bytes());
    store.set("two", two.bytes());
    world.cluster.apply(&whole_values("db", &store.name, "", &[("one", "one"), ("two", "two")])).await;
    world.cluster.ready("db").await;
    let wanted: &[(&str, &[u8])] = &[("one", one.bytes()), ("two", two.bytes())];
    world.cluster.merge::<Secret>("db", &json!({ "data": { "one": null } })).await;
    world.cluster.holds("db", wanted).await;
    world
        .cluster
        .merge::<Secret>("db", &json!({ "metadata": { "labels": { "keyferry.dev/managed": null }, "ownerReferences": null } }))
        .await;
    let is_mended = |secret: Option<&Secret>| {
        secret.is_some_and(|secret| secret.labels().contains_key("keyferry.dev/managed") && !secret.owner_references().is_empty())
    };
    world.cluster.until::<Secret>("db", "to be ours again", is_mended).await;
    world.cluster.holds("db", wanted).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renamed_target_is_there_before_the_old_one_goes() {
    let world = World::start().await;
    let store = world.file_store().await;
    let value = world.canary();
    store.set("db/password", value.bytes());
    let named = |target: &str| whole_values("db", &store.name, &format!("  target: {{name: {target}}}\n"), &[("password", "db/password")]);
    world.cluster.apply(&named("old")).await;
    world.cluster.ready("db").await;
    world.may_vanish("old");
    world.cluster.apply(&named("new")).await;
    world.cluster.holds("new", &[("password", value.bytes())]).await;
    world.cluster.until::<Secret>("old", "to be gone", |secret| secret.is_none()).await;
    world.cluster.ready("db").await;
    let sights = world.history().await.sights();
    let came = sights.iter().position(|sight| sight.name == "new" && sight.data.is_some());
    let went = sights.iter().position(|sight| sight.name == "old" && sight.data.is_none());
    assert!(came < went, "the new one comes at {came:?}, the old one goes at {went:?}");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_objects_never_fight_for_one_target() {
    let world = World::start().await;
    let store = world.file_store().await;
    let (first, second) = (world.canary(), world.canary());
    store.set("first", first.bytes());
    store.set("second", second.bytes());
    let target = "  target: {name: shared}\n";
    world.cluster.apply(&whole_values("first", &store.name, target, &[("password", "first")])).await;
    world.cluster.ready("first").await;
    world.cluster.apply(&whole_values("second", &store.name, target, &[("password", "second")])).await;
    let message = world.cluster.not_ready("second", "Conflict").await;
    assert!(message.contains("first") && message.contains("shared"), "{message}");
    world.cluster.holds("shared", &[("password", first.bytes())]).await;
    world.a_while().await;

    world.may_vanish("shared");
    world.cluster.delete::<ExternalSecret>("first", &DeleteParams::default()).await;
    world.cluster.holds("shared", &[("password", second.bytes())]).await;
    world.cluster.ready("second").await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restore_with_new_uids_the_target_is_adopted_as_it_is() {
    let world = World::start().await;
    let store = world.file_store().await;
    let value = world.canary();
    store.set("db/password", value.bytes());
    let manifest = whole_values("db", &store.name, "", &[("password", "db/password")]);
    world.cluster.apply(&manifest).await;
    world.cluster.ready("db").await;
    let before = world.cluster.get::<Secret>("db").await.unwrap();
    world.operator.stop().await;
    world
        .cluster
        .delete::<ExternalSecret>(
            "db",
            &DeleteParams { propagation_policy: Some(kube::api::PropagationPolicy::Orphan), ..Default::default() },
        )
        .await;
    world.cluster.until::<ExternalSecret>("db", "to be gone", |object| object.is_none()).await;
    world.cluster.apply(&manifest).await;
    world.operator.start();
    let object = world.cluster.ready("db").await;
    let owned = |secret: Option<&Secret>| {
        secret.is_some_and(|secret| secret.owner_references().iter().any(|owner| Some(&owner.uid) == object.uid().as_ref()))
    };
    let after = world.cluster.until::<Secret>("db", "to belong to the restored object", owned).await.unwrap();
    assert_eq!((after.uid(), data_of(&after)), (before.uid(), data_of(&before)), "the very same Secret");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_digest_key_rewrites_annotations_and_no_data() {
    let world = World::start().await;
    let store = world.file_store().await;
    let value = world.canary();
    store.set("db/password", value.bytes());
    world.cluster.apply(&whole_values("db", &store.name, "", &[("password", "db/password")])).await;
    world.cluster.ready("db").await;
    let before = world.cluster.get::<Secret>("db").await.unwrap();
    world.operator.stop().await;
    let keys = kube::Api::<Secret>::namespaced(world.cluster.client.clone(), "keyferry-system");
    keys.delete("keyferry-digest-key", &DeleteParams::default()).await.unwrap();
    world.operator.start();
    // Whoever asks for a look gets one, and the target can be judged again.
    world.cluster.merge::<ExternalSecret>("db", &json!({ "metadata": { "annotations": { "keyferry.dev/refresh": "now" } } })).await;
    let is_rewritten = |secret: Option<&Secret>| secret.is_some_and(|secret| secret.annotations() != before.annotations());
    let after = world.cluster.until::<Secret>("db", "to carry a record under the new key", is_rewritten).await.unwrap();
    assert_eq!((after.uid(), data_of(&after)), (before.uid(), data_of(&before)));
    world
        .cluster
        .external("db", "to have handled the request", |object| {
            object.status.as_ref().and_then(|status| status.handled_refresh.as_deref()) == Some("now")
        })
        .await;
    world.cluster.ready("db").await;
    world.finish().await;
}
