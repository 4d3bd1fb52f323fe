//! How a store is asked that fails, asks for patience or has limits, counted where its server would count; and what people are told of it:
//! statuses, events and metrics.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::api::events::v1::Event;
use kube::api::{DeleteParams, ListParams};
use kube::{Api, ResourceExt};
use serde_json::json;

use keyferry::crd::v1alpha1::{ClusterSecretStore, ExternalSecret};

use super::external;
use crate::harness::canary::random_hex;
use crate::harness::cluster::{condition_is, reason_of};
use crate::harness::{Canary, Settings, VaultStore, World};
use crate::proxy::{Answer, Call, Fault, Matcher, Nth};

const OBJECTS: usize = 20;
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// Calls that find out whether the store is up again.
const PROBES: usize = 5;

fn names(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{prefix}-{number}")).collect()
}

/// An object that reads the key of its name once a second.
async fn apply(world: &World, name: &str, store: &str) {
    let entry = format!("  refreshInterval: 1s\n  data: [{{secretKey: v, remoteRef: {{key: {name}, property: v}}}}]");
    world.cluster.apply(&external(name, store, &entry)).await;
}

/// A new value for each key.
async fn put(world: &World, vault: &VaultStore, names: &[String]) -> Vec<Canary> {
    let mut values = Vec::new();
    for name in names {
        let value = world.canary();
        vault.kv().put(name, &json!({ "v": value.text })).await;
        values.push(value);
    }
    values
}

/// Looks at any of these keys.
fn looks(names: &[String]) -> Matcher {
    let names = names.to_vec();
    Matcher::any().when("a look at one of several keys", move |call| names.iter().any(|name| VaultStore::look(name).matches(call)))
}

/// Waits until each says that reason and still counts as Ready.
async fn told(world: &World, names: &[String], reason: &str) {
    for name in names {
        let says = |object: &ExternalSecret| reason_of(object, "Fresh", "False") == Some(reason) && condition_is(object, "Ready", "True");
        world.cluster.external(name, &format!("to be Ready and not Fresh, {reason}"), says).await;
    }
}

async fn current(world: &World, names: &[String], values: &[Canary]) {
    for (name, value) in names.iter().zip(values) {
        world.cluster.holds(name, &[("v", value.bytes())]).await;
        let is_well = |object: &ExternalSecret| condition_is(object, "Fresh", "True") && condition_is(object, "Ready", "True");
        world.cluster.external(name, "to be Fresh and Ready", is_well).await;
    }
}

/// The events of this namespace: how many each object got of each reason, repetitions included.
async fn events(world: &World) -> BTreeMap<(String, String), i32> {
    let mut counts = BTreeMap::new();
    for event in world.cluster.api::<Event>().list(&ListParams::default()).await.expect("a list") {
        let object = event.regarding.and_then(|object| object.name).unwrap_or_default();
        let times = event.series.map_or(1, |series| series.count);
        *counts.entry((object, event.reason.unwrap_or_default())).or_default() += times;
    }
    counts
}

fn one_each(names: &[String], reasons: &[&str]) -> BTreeMap<(String, String), i32> {
    names.iter().flat_map(|name| reasons.iter().map(move |reason| ((name.clone(), (*reason).to_owned()), 1))).collect()
}

/// Waits until each has an event of that reason: it is published after the status.
async fn published(world: &World, names: &[String], reason: &str) {
    let wait = tokio::time::timeout(crate::harness::cluster::PATIENCE, async {
        loop {
            let events = events(world).await;
            if names.iter().all(|name| events.contains_key(&(name.clone(), reason.to_owned()))) {
                return;
            }
            world.a_while().await;
        }
    });
    assert!(wait.await.is_ok(), "not every object has an event of {reason}: {:?}", events(world).await);
}

/// Waits until the page of metrics has the line.
async fn shown(world: &World, line: &str) {
    let wait = tokio::time::timeout(crate::harness::cluster::PATIENCE, async {
        while !world.operator.metrics().await.lines().any(|shown| shown == line) {
            world.a_while().await;
        }
    });
    assert!(wait.await.is_ok(), "no {line} in\n{}", world.operator.metrics().await);
}

fn is_told(verb: &str) -> bool {
    verb == "create events.k8s.io/events" || verb == "patch keyferry.dev/externalsecrets/status"
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_fails_is_asked_now_and_then_every_object_tells_it_once_and_all_are_current_after_it() {
    let settings = Settings::default().timing("backoff", "500ms").timing("outage", "1s").timing("denied", "500ms");
    let world = World::start_with(settings).await;
    let vault = world.vault().await;
    let beside = vault.apply_as(&world, "beside", "").await;
    let names = names("o", OBJECTS);
    let before = put(&world, &vault, &names).await;
    put(&world, &vault, &["beside".to_owned()]).await;
    for name in &names {
        apply(&world, name, &vault.name).await;
    }
    apply(&world, "beside", &beside).await;
    current(&world, &names, &before).await;
    world.cluster.ready("beside").await;
    assert_eq!(events(&world).await, BTreeMap::new(), "none for a first success");
    shown(&world, &format!("keyferry_objects{{kind=\"ExternalSecret\",reason=\"Synced\"}} {}", OBJECTS + 1)).await;
    let targets = versions(&world, &names).await;

    let quoted = world.withhold(Canary::plain(&random_hex())).text;
    let failing = Fault::answer(Answer::json(500, &json!({ "errors": [&quoted] })));
    let broken = vault.proxy.on(looks(&names), Nth::every(), failing);
    told(&world, &names, "ProviderUnavailable").await;
    shown(&world, &format!("keyferry_stores_down{{store=\"{}\"}} 1", vault.name)).await;
    shown(&world, &format!("keyferry_stores_down{{store=\"{beside}\"}} 0")).await;
    shown(&world, &format!("keyferry_objects_not_fresh{{kind=\"ExternalSecret\",reason=\"ProviderUnavailable\"}} {OBJECTS}")).await;
    let after = put(&world, &vault, &names).await;
    let from = vault.proxy.calls_so_far();
    let calls = vault.proxy.await_calls(|calls| calls[from..].iter().filter(|call| looks(&names).matches(call)).count() > PROBES).await;
    let probes: Vec<Instant> = calls[from..].iter().filter(|call| looks(&names).matches(call)).map(|call| call.at).collect();
    // A pause begins when the answer is there, and its jitter takes a quarter of it at most.
    let shortest = probes.windows(2).map(|pair| pair[1] - pair[0]).min().expect("calls");
    assert!(shortest >= FIRST_PAUSE * 3 / 4, "{OBJECTS} objects want a look each second; two calls came within {shortest:?}");
    let late = put(&world, &vault, &["beside".to_owned()]).await;
    current(&world, &["beside".to_owned()], &late).await;
    published(&world, &names, "ProviderUnavailable").await;
    assert_eq!(events(&world).await, one_each(&names, &["ProviderUnavailable"]), "one each, however often it fails");

    world.operator.restart();
    world.operator.synced().await;
    let mark = world.audit.mark();
    shown(&world, &format!("keyferry_stores_down{{store=\"{}\"}} 1", vault.name)).await;
    let work = world.work_since(mark);
    assert!(!work.keys().any(|verb| is_told(verb)), "what was told before the restart was told again: {work:?}");
    assert_eq!(versions(&world, &names).await, targets, "every target is kept as it is");

    broken.withdraw();
    let denying = Fault::answer(Answer::json(403, &json!({ "errors": [format!("permission denied: {quoted}")] })));
    let denied = vault.proxy.on(looks(&names), Nth::every(), denying);
    told(&world, &names, "AccessDenied").await;
    published(&world, &names, "AccessDenied").await;
    denied.withdraw();
    current(&world, &names, &after).await;
    shown(&world, &format!("keyferry_stores_down{{store=\"{}\"}} 0", vault.name)).await;
    let told = one_each(&names, &["ProviderUnavailable", "AccessDenied"]);
    assert_eq!(events(&world).await, told, "one for the other reason, none for the recovery");

    // What is gone is told no more.
    world.may_vanish("beside");
    world.cluster.delete::<ExternalSecret>("beside", &DeleteParams::default()).await;
    let stores = Api::<ClusterSecretStore>::all(world.cluster.client.clone());
    stores.delete(&beside, &DeleteParams::default()).await.expect("a deletion");
    shown(&world, &format!("keyferry_objects{{kind=\"ExternalSecret\",reason=\"Synced\"}} {OBJECTS}")).await;
    let label = format!("store=\"{beside}\"");
    let is_forgotten = tokio::time::timeout(crate::harness::cluster::PATIENCE, async {
        while world.operator.metrics().await.contains(&label) {
            world.a_while().await;
        }
    });
    assert!(is_forgotten.await.is_ok(), "{}", world.operator.metrics().await);
    world.finish().await;
}

async fn versions(world: &World, names: &[String]) -> BTreeMap<String, Option<String>> {
    let mut versions = BTreeMap::new();
    for name in names {
        let target = world.cluster.get::<Secret>(name).await.expect("the target");
        versions.insert(name.clone(), target.resource_version());
    }
    versions
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_asks_for_patience_is_left_alone_as_a_whole_and_limits_hold_on_the_wire() {
    const PATIENCE: Duration = Duration::from_secs(8);
    const RATE: f64 = 5.0;
    const BURST: f64 = 2.0;
    let world = World::start().await;
    let vault = world.vault().await;
    let free = names("free", 1);
    let (patient, patients) = (vault.apply_as(&world, "patient", "").await, names("patient", 10));
    let (limited, many) = (vault.apply_as(&world, "limited", "  limits: {requestsPerSecond: 5, burst: 2}").await, names("limited", 30));
    for keys in [&free, &patients, &many] {
        put(&world, &vault, keys).await;
    }
    for name in &patients {
        apply(&world, name, &patient).await;
        world.cluster.ready(name).await;
    }
    apply(&world, &free[0], &vault.name).await;
    world.cluster.ready(&free[0]).await;

    let throttled = Answer::json(429, &json!({ "errors": ["quota"] })).header("retry-after", &PATIENCE.as_secs().to_string());
    let refused = vault.proxy.on(VaultStore::look(&patients[3]), Nth::only(1), Fault::answer(throttled));
    refused.fired().await;
    let from = vault.proxy.calls_so_far();
    let began = Instant::now();
    for name in &many {
        apply(&world, name, &limited).await;
    }
    let of = |calls: &[Call], keys: &[String]| calls[from..].iter().filter(|call| looks(keys).matches(call)).cloned().collect::<Vec<_>>();
    // Until everything goes on: half of it as the limit allows.
    let calls =
        vault.proxy.await_calls(|calls| of(calls, &many).len() >= 2 * many.len() && of(calls, &patients).len() > patients.len()).await;

    let is_refusal = |call: &&Call| call.status == Some(429) && looks(&patients).matches(call);
    let refused_at = calls.iter().find(is_refusal).expect("it fired").at;
    let is_patient = |call: &&Call| call.at.saturating_duration_since(refused_at) < PATIENCE;
    let while_refused = of(&calls, &patients).iter().filter(is_patient).count();
    assert!(while_refused < patients.len(), "{while_refused} calls while the store wanted none: more than were under way");
    assert!(of(&calls, &free).iter().any(|call| is_patient(&call)), "the server's other stores go on");

    for (number, call) in (1_u32..).zip(of(&calls, &many)) {
        let earliest = Duration::from_secs_f64((f64::from(number) - BURST).max(0.0) / RATE);
        let at = call.at.saturating_duration_since(began);
        assert!(at >= earliest, "call {number} came after {at:?}: no limit of {RATE} calls per second allows that before {earliest:?}");
    }
    for name in &many {
        world.cluster.ready(name).await;
    }
    published(&world, &patients, "Throttled").await;
    shown(&world, &format!("keyferry_store_limit_calls_per_second{{store=\"{limited}\"}} 5.0")).await;
    for name in &patients {
        let is_fresh = |object: &ExternalSecret| condition_is(object, "Fresh", "True");
        world.cluster.external(name, "to be Fresh again", is_fresh).await;
    }
    world.finish().await;
}
