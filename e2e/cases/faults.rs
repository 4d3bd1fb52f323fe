//! What comes of each fault between the operator and a store: the target is kept byte for byte, the status says the right reason, and
//! afterwards everything goes on by itself. One operator, one server, a store and an object for each fault, so that none can
//! hide behind another's.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use serde_json::json;

use super::external;
use crate::harness::cluster::{condition_is, reason_of};
use crate::harness::{Settings, VaultStore, World};
use crate::proxy::{Answer, Cut, Fault, Moment, Nth, Proxy, Rule};

/// A fault on the wire, by the name of the object that meets it.
struct Row {
    name: &'static str,
    fault: Fault,
    reason: &'static str,
}

const UNAVAILABLE: &str = "ProviderUnavailable";

fn row(name: &'static str, reason: &'static str, fault: Fault) -> Row {
    Row { name, fault, reason }
}

fn says(code: u16, body: &serde_json::Value) -> Fault {
    Fault::answer(Answer::json(code, body))
}

fn rows(elsewhere: &Proxy) -> Vec<Row> {
    let page = |code| Fault::answer(Answer::new(code, "text/html", "<!doctype html><title>Sign in</title>"));
    let json = |text: String| Fault::answer(Answer::new(200, "application/json", text));
    let throttled = || Answer::json(429, &json!({ "errors": ["request path rate limit quota exceeded"] }));
    let mut rows = vec![
        row("hang", UNAVAILABLE, Fault::hang()),
        row("drip", UNAVAILABLE, Fault::drip(Duration::from_millis(5))),
        row("reset", UNAVAILABLE, Fault::reset(Moment::AfterCommit)),
        row("drop", UNAVAILABLE, Fault::drop(Moment::BeforeCommit)),
        row("cut-promised", UNAVAILABLE, Fault::cut(Cut::Promised, 40)),
        row("cut-chunked", UNAVAILABLE, Fault::cut(Cut::Chunked, 40)),
        row("cut-unnoticed", UNAVAILABLE, Fault::cut(Cut::Unnoticed, 40)),
        row("malformed", UNAVAILABLE, json("{\"data\":{\"data\":{\"v\":\"x\"}".to_owned())),
        row("empty", UNAVAILABLE, json(String::new())),
        row("nothing", UNAVAILABLE, json("null".to_owned())),
        row("deep", UNAVAILABLE, json(format!("{}1{}", "{\"data\":".repeat(200_000), "}".repeat(200_000)))),
        row("page", UNAVAILABLE, page(200)),
        row("missing-page", UNAVAILABLE, page(404)),
        row("no-route", UNAVAILABLE, says(404, &json!({ "errors": ["no handler for route"] }))),
        row("bomb", UNAVAILABLE, Fault::answer(Answer::bomb(300, &["gzip"]))),
        row("bombs", UNAVAILABLE, Fault::answer(Answer::bomb(300, &["gzip", "deflate"]))),
        row("endless", "TooLarge", Fault::endless("{\"data\":{\"data\":{\"v\":\"", vec![b'a'; 64 << 10])),
        row("large-headers", UNAVAILABLE, Fault::answer(Answer::json(200, &json!({})).header("x-large", &"a".repeat(1 << 20)))),
        row("failing", UNAVAILABLE, Fault::status(500)),
        row("gateway", UNAVAILABLE, Fault::status(502)),
        row("no-servers", UNAVAILABLE, Fault::status(503)),
        row("sealed", "Sealed", says(503, &json!({ "errors": ["Vault is sealed"] }))),
        row("denied", "AccessDenied", says(403, &json!({ "errors": ["permission denied"] }))),
        row("throttled", "Throttled", Fault::answer(throttled())),
        row("throttled-until", "Throttled", Fault::answer(throttled().header("retry-after", "1"))),
    ];
    rows.extend(
        [(301, "moved"), (302, "found"), (307, "temporary"), (308, "permanent")]
            .map(|(code, name)| row(name, UNAVAILABLE, Fault::redirect(code, elsewhere))),
    );
    rows
}

fn object(name: &str, store: &str) -> String {
    let entry = format!("  data: [{{secretKey: v, remoteRef: {{key: {name}, property: v}}}}]");
    external(name, store, &format!("  refreshInterval: 2s\n{entry}"))
}

fn impatient() -> Settings {
    let settings = Settings::default().timing("backoff", "100ms").timing("denied", "500ms").timing("absent", "500ms");
    settings.argument("--call-timeout=2s")
}

/// Waits until the status says the reason, with Ready or without.
async fn told(world: &World, name: &str, reason: &str) {
    let says = |object: &_| ["Fresh", "Ready"].iter().any(|kind| reason_of(object, kind, "False") == Some(reason));
    world.cluster.external(name, &format!("to say {reason}"), says).await;
}

async fn fresh(world: &World, name: &str) {
    let is_well = |object: &_| condition_is(object, "Fresh", "True") && condition_is(object, "Ready", "True");
    world.cluster.external(name, "to be Fresh and Ready again", is_well).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_fault_of_a_store_keeps_the_target_says_its_reason_and_passes() {
    let world = World::start_with(impatient()).await;
    let vault = world.vault().await;
    let elsewhere = vault.proxy.beside();
    let rows = rows(&elsewhere);
    let mut targets: BTreeMap<&str, Secret> = BTreeMap::new();
    for Row { name, .. } in &rows {
        let value = world.canary();
        vault.kv().put(name, &json!({ "v": value.text })).await;
        let store = vault.apply_as(&world, name, "").await;
        world.cluster.apply(&object(name, &store)).await;
    }
    for Row { name, .. } in &rows {
        world.cluster.ready(name).await;
        targets.insert(name, world.cluster.get(name).await.expect("the target"));
    }

    let rules: Vec<Rule> = rows.iter().map(|row| vault.proxy.on(VaultStore::look(row.name), Nth::every(), row.fault.clone())).collect();
    for Row { name, reason, .. } in &rows {
        told(&world, name, reason).await;
    }
    // Once more for each, with all of them under way.
    let fired: Vec<u64> = rules.iter().map(Rule::times_fired).collect();
    vault.proxy.await_calls(|_| rules.iter().zip(&fired).all(|(rule, before)| rule.times_fired() > *before)).await;
    for Row { name, .. } in &rows {
        let target = world.cluster.get::<Secret>(name).await.expect("the target is kept");
        let before = &targets[name];
        assert_eq!((target.resource_version(), &target.data), (before.resource_version(), &before.data), "{name}");
    }
    assert_eq!(elsewhere.seen().connections_opened, 0, "no redirect was followed");

    let mut values = Vec::new();
    for Row { name, .. } in &rows {
        let value = world.canary();
        vault.kv().put(name, &json!({ "v": value.text })).await;
        values.push((name, value));
    }
    rules.iter().for_each(Rule::withdraw);
    for (name, value) in values {
        world.cluster.holds(name, &[("v", value.bytes())]).await;
        fresh(&world, name).await;
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_without_bounds_takes_no_more_memory_than_the_bound_of_answers() {
    // What is read of one answer at most, and what may come beside it: buffers of TLS, the heap's own waste, a status.
    const BOUND: u64 = 8 << 10;
    const BESIDE: u64 = 8 << 10;
    let world = World::start_with(impatient()).await;
    let vault = world.vault().await;
    let value = world.canary();
    vault.kv().put("db", &json!({ "v": value.text })).await;
    world.cluster.apply(&object("db", &vault.name)).await;
    world.cluster.ready("db").await;
    let faults = [
        ("bomb", UNAVAILABLE, Fault::answer(Answer::bomb(512, &["gzip"]))),
        ("bombs", UNAVAILABLE, Fault::answer(Answer::bomb(512, &["gzip", "gzip"]))),
        ("endless", "TooLarge", Fault::endless("{\"data\":{\"data\":{\"v\":\"", vec![b'a'; 64 << 10])),
        ("large headers", UNAVAILABLE, Fault::answer(Answer::json(200, &json!({})).header("x-large", &"a".repeat(4 << 20)))),
    ];
    // The first round pages in the code that is run, which is memory too.
    for is_measured in [false, true] {
        for (name, reason, fault) in &faults {
            let before = world.operator.forget_peak();
            let rule = vault.proxy.on(VaultStore::look("db"), Nth::every(), fault.clone());
            told(&world, "db", reason).await;
            rule.withdraw();
            fresh(&world, "db").await;
            let grown = world.operator.peak().saturating_sub(before);
            println!("{name}: the peak of memory grew by {grown} KiB");
            assert!(!is_measured || grown <= BOUND + BESIDE, "{name}: {grown} KiB");
        }
    }
    world.cluster.holds("db", &[("v", value.bytes())]).await;
    world.finish().await;
}
