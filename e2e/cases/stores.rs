//! What a store says of itself, how soon, and what that costs.

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::{DeleteParams, ListParams};
use serde_json::{Value, json};

use keyferry::crd::v1alpha1::{Capabilities, ExternalSecret, SecretStore};

use super::external;
use crate::harness::cluster::{condition_is, is_current, reason_of};
use crate::harness::{Canary, Settings, World};
use crate::proxy::{Accepting, Answer, Call, Fault, Matcher, Nth};

const MAY_READ: &str = r#"path "secret/*" { capabilities = ["read", "list"] }"#;

/// What asks the server for the engine at `secret/`, and so for nothing that is secret.
fn check() -> Matcher {
    Matcher::any().when("a check", |call| call.operation.resource.starts_with("sys/internal/ui/mounts"))
}

/// Reasons of the events about a store, in the order of their times.
async fn events_of(world: &World, namespace: &str, store: &str) -> Vec<String> {
    let events = Api::<Event>::namespaced(world.cluster.client.clone(), namespace).list(&ListParams::default()).await.expect("a list");
    let mut told: Vec<_> = events
        .into_iter()
        .filter(|event| event.regarding.as_ref().and_then(|about| about.name.as_deref()) == Some(store))
        .map(|event| (event.event_time, event.reason.unwrap_or_default()))
        .collect();
    told.sort();
    told.into_iter().map(|(_, reason)| reason).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_tells_what_is_wrong_with_it_and_that_it_is_well_again() {
    let world = World::prepare(Settings::default().timing("backoff", "500ms").timing("denied", "1s")).await;
    let store = world.vault().await;
    let value = world.canary();
    store.kv().put("db", &json!({ "v": value.text })).await;
    let before = world.cluster.store(&store.name, "to be there", |_| true).await;
    assert_eq!(before.status.and_then(|status| status.observed_generation), Some(-1), "in progress, before anybody has looked");
    world.operator.start();

    world.cluster.store_says(&store.name, "True", "Synced").await;
    let ready = world.cluster.store(&store.name, "to be Ready", |_| true).await;
    let status = ready.status.expect("a status");
    let can = Capabilities { read: true, list: true, versions: true, write: true, ..Capabilities::default() };
    assert_eq!((status.provider.as_deref(), status.capabilities), (Some("vault"), Some(can)));
    assert_eq!(status.conditions.len(), 1);
    assert_eq!(store.proxy.count(&check()), 1, "nobody uses it, and it was checked once");
    assert_eq!(store.proxy.calls().len(), 1, "no value was read");
    let columns = world.plane.kubectl(&["get", "clustersecretstore", &store.name], "");
    for word in ["READY", "REASON", "PROVIDER", "True", "Synced", "vault"] {
        assert!(columns.contains(word), "{columns}");
    }

    // An object that is delivered, and a server that goes away: the looks say so, the store's status follows.
    let object = external("db", &store.name, "  refreshInterval: 2s\n  data: [{secretKey: v, remoteRef: {key: db, property: v}}]");
    world.cluster.apply(&object).await;
    world.cluster.ready("db").await;
    store.proxy.accept(Accepting::Reset);
    store.proxy.reset_connections();
    let message = world.cluster.store_says(&store.name, "False", "ProviderUnavailable").await;
    assert!(message.contains("check"), "{message}");
    world.cluster.external("db", "not to be fresh", |object| condition_is(object, "Fresh", "False")).await;
    store.proxy.accept(Accepting::Normally);
    world.cluster.store_says(&store.name, "True", "Synced").await;
    world.cluster.external("db", "to be fresh", |object| condition_is(object, "Fresh", "True")).await;

    store.bao.seal().await;
    world.cluster.store_says(&store.name, "False", "Sealed").await;
    store.bao.unseal().await;
    world.cluster.store_says(&store.name, "True", "Synced").await;

    store.bao.revoke_token(&store.token).await;
    let message = world.cluster.store_says(&store.name, "False", "AccessDenied").await;
    assert!(message.contains("token"), "{message}");
    let token = store.bao.create_token(MAY_READ).await;
    store.write_token(&world, &token).await;
    world.cluster.store_says(&store.name, "True", "Synced").await;

    world.cluster.delete::<Secret>("bao-token", &DeleteParams::default()).await;
    let message = world.cluster.store_says(&store.name, "False", "StoreNotReady").await;
    assert!(message.contains("bao-token"), "{message}");
    world.a_while().await;
    let mark = world.audit.mark();
    world.a_while().await;
    assert!(world.work_since(mark).is_empty(), "what is missing is waited for, not asked for: {:?}", world.work_since(mark));
    store.write_token(&world, &token).await;
    world.cluster.store_says(&store.name, "True", "Synced").await;
    world.cluster.external("db", "to be fresh", |object| is_current(object) && condition_is(object, "Fresh", "True")).await;

    let told = events_of(&world, "default", &store.name).await;
    assert_eq!(told, ["ProviderUnavailable", "Sealed", "AccessDenied", "StoreNotReady"], "an event per fault, none for a success");
    world.source("bao-token", &Canary::plain(&token));
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_is_checked_again_in_its_interval_and_after_a_restart_only_when_it_must() {
    let world = World::start().await;
    let store = world.vault().await;
    world.cluster.store_says(&store.name, "True", "Synced").await;
    world.a_while().await;
    let (mark, checks) = (world.audit.mark(), store.proxy.count(&check()));
    world.operator.restart();
    world.operator.synced().await;
    world.a_while().await;
    assert_eq!(store.proxy.count(&check()), checks, "what is known is not asked again");
    let writes: Vec<String> = world.audit.of_operator(mark).iter().filter(|call| call.verb == "patch").map(ToString::to_string).collect();
    assert!(writes.is_empty(), "{writes:?}");

    // The credential is another one by the time that it comes back, twice.
    let value = world.canary();
    store.kv().put("db", &json!({ "v": value.text })).await;
    let object = external("db", &store.name, "  refreshInterval: 24h\n  data: [{secretKey: v, remoteRef: {key: db, property: v}}]");
    world.cluster.apply(&object).await;
    world.cluster.ready("db").await;
    world.operator.kill();
    store.write_token(&world, "no-token-of-this-server").await;
    world.operator.start();
    world.cluster.store_says(&store.name, "False", "AccessDenied").await;
    let ask = json!({ "metadata": { "annotations": { "keyferry.dev/refresh": "1" } } });
    world.cluster.merge::<ExternalSecret>("db", &ask).await;
    world.cluster.external("db", "to be refused", |object| condition_is(object, "Fresh", "False")).await;
    world.operator.kill();
    store.write_token(&world, &store.token).await;
    world.operator.start();
    world.cluster.store_says(&store.name, "True", "Synced").await;
    world.cluster.external("db", "to be fresh", |object| condition_is(object, "Fresh", "True")).await;

    store.apply(&world, "  refreshInterval: 1s").await;
    world.cluster.store_says(&store.name, "True", "Synced").await;
    world.a_while().await;
    let (mark, checks) = (world.audit.mark(), store.proxy.count(&check()));
    store.proxy.await_calls(|calls| calls.iter().filter(|call| check().matches(call)).count() >= checks + 3).await;
    assert!(world.work_since(mark).is_empty(), "what is as it was is not told again: {:?}", world.work_since(mark));
    let unused = store.proxy.on(check(), Nth::every(), Fault::answer(Answer::json(502, &json!({}))));
    world.cluster.store_says(&store.name, "False", "ProviderUnavailable").await;
    unused.withdraw();
    world.cluster.store_says(&store.name, "True", "Synced").await;
    for (wrong, part) in [("-1", "cannot be negative"), ("soon", "Go duration"), ("1.5", "Go duration")] {
        let spec =
            format!("kind: SecretStore\nmetadata: {{name: wrong}}\nspec: {{refreshInterval: {wrong}, provider: {{fake: {{data: []}}}}}}");
        let refused = world.cluster.try_apply(&spec).await.expect_err(wrong);
        assert!(refused.contains(part) || refused.contains("refreshInterval"), "{wrong}: {refused}");
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whom_a_store_refused_looks_as_soon_as_the_store_takes_the_login_again() {
    let world = World::start().await;
    let store = world.vault().await;
    let (old, new) = (world.canary(), world.canary());
    store.bao.write_policy("changing", MAY_READ).await;
    let token = store.bao.create_token_under("changing").await;
    world.source("bao-token", &Canary::plain(&token));
    store.write_token(&world, &token).await;
    store.apply(&world, "  refreshInterval: 1s").await;
    store.kv().put("db", &json!({ "v": old.text })).await;
    let line = "  refreshInterval: 24h\n  data: [{secretKey: v, remoteRef: {key: db, property: v}}]";
    world.cluster.apply(&external("db", &store.name, line)).await;
    world.cluster.ready("db").await;

    store.bao.write_policy("changing", r#"path "elsewhere/*" { capabilities = ["read"] }"#).await;
    world.cluster.store_says(&store.name, "False", "AccessDenied").await;
    let ask = json!({ "metadata": { "annotations": { "keyferry.dev/refresh": "1" } } });
    world.cluster.merge::<ExternalSecret>("db", &ask).await;
    world.cluster.external("db", "to be refused", |object| reason_of(object, "Fresh", "False") == Some("AccessDenied")).await;
    store.kv().put("db", &json!({ "v": new.text })).await;
    world.a_while().await;
    let looks = store.looks("db");
    // The object itself would not ask again for ten minutes.
    store.bao.write_policy("changing", MAY_READ).await;
    world.cluster.holds("db", &[("v", new.bytes())]).await;
    world.cluster.external("db", "to be fresh", |object| condition_is(object, "Fresh", "True")).await;
    world.a_while().await;
    assert_eq!(store.looks("db"), looks + 1);
    store.apply(&world, "  refreshInterval: 0s").await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_provider_says_what_it_can_and_a_spec_that_cannot_work_stalls() {
    let world = World::start_with(Settings::default().variable("APP_X", "x").argument("--env-prefix=APP_")).await;
    let file = world.file_store().await;
    file.set("db", world.withheld().bytes());
    world.cluster.store_says(&file.name, "True", "Synced").await;
    let status = world.cluster.store(&file.name, "to be Ready", |_| true).await.status.expect("a status");
    let can = Capabilities { read: true, list: true, batch: true, versions: true, events: true, ..Capabilities::default() };
    assert_eq!((status.provider.as_deref(), status.capabilities), (Some("file"), Some(can)));

    let namespaced = |name: &'static str, provider: &str| {
        let manifest = format!("kind: SecretStore\nmetadata: {{name: {name}}}\nspec: {{provider: {provider}}}");
        let cluster = world.cluster.clone();
        async move {
            cluster.apply(&manifest).await;
            let is_told = |store: Option<&SecretStore>| {
                let status = store.and_then(|store| store.status.as_ref());
                status.is_some_and(|status| !status.conditions.is_empty())
            };
            let seen = cluster.until::<SecretStore>(name, "to have a status", is_told).await.expect("a store");
            serde_json::to_value(seen.status).expect("JSON")
        }
    };
    let condition = |status: &Value, kind: &str| {
        let found = status["conditions"].as_array().into_iter().flatten().find(|condition| condition["type"] == kind);
        found
            .map(|found| (found["status"].as_str().unwrap_or_default().to_owned(), found["reason"].as_str().unwrap_or_default().to_owned()))
    };
    let is = |status: &str, reason: &str| Some((status.to_owned(), reason.to_owned()));
    let fake = namespaced("fake", "{fake: {data: []}}").await;
    assert_eq!((condition(&fake, "Ready"), fake["provider"].as_str()), (is("True", "Synced"), Some("fake")), "{fake}");
    let hostless = namespaced("hostless", "{vault: {server: 'https://[::bad', auth: {tokenSecretRef: {name: t}}}}").await;
    assert_eq!(condition(&hostless, "Ready").map(|ready| ready.0), Some("False".to_owned()), "{hostless}");
    let foreign = namespaced("foreign", "{file: {path: x}}").await;
    assert_eq!((condition(&foreign, "Ready"), condition(&foreign, "Stalled")), (is("False", "NotAllowed"), is("True", "NotAllowed")));
    let is_told = |call: &&Call| call.operation.verb == "create" && call.operation.resource == "events" && call.status == Some(201);
    // One for each of the two that cannot work: an event is written after the status that tells the same.
    world.proxy.await_calls(|calls| calls.iter().filter(is_told).count() >= 2).await;
    assert_eq!(events_of(&world, world.namespace(), "foreign").await, ["NotAllowed"]);

    // What an object gets to hear of its store is the same word.
    world.cluster.apply("kind: ExternalSecret\nmetadata: {name: db}\nspec:\n  secretStoreRef: {name: foreign}\n  data: [{secretKey: k, remoteRef: {key: k}}]").await;
    world.cluster.external("db", "to be refused", |object: &ExternalSecret| condition_is(object, "Ready", "False")).await;
    world.cluster.not_ready("db", "NotAllowed").await;
    world.finish().await;
}
