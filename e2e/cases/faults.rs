//! What comes of each fault between the operator and a store: the target is kept byte for byte, the status says the right reason, and
//! afterwards everything goes on by itself. One operator, one server, a store and an object for each fault, so that none can
//! hide behind another's.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use reqwest::Method;
use serde_json::json;

use super::external;
use crate::harness::canary::random_hex;
use crate::harness::cluster::{condition_is, reason_of};
use crate::harness::{Canary, Settings, VaultStore, World};
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

/// `value` stands wherever an answer could quote one, and may stand in no status, event or log.
fn rows(elsewhere: &Proxy, value: &str) -> Vec<Row> {
    let page = |code| Fault::answer(Answer::new(code, "text/html", format!("<!doctype html><title>{value}</title>")));
    let json = |text: String| Fault::answer(Answer::new(200, "application/json", text));
    let throttled = || Answer::json(429, &json!({ "errors": [format!("request path rate limit quota exceeded: {value}")] }));
    let mut rows = vec![
        row("hang", UNAVAILABLE, Fault::hang()),
        row("drip", UNAVAILABLE, Fault::drip(Duration::from_millis(5))),
        row("reset", UNAVAILABLE, Fault::reset(Moment::AfterCommit)),
        row("drop", UNAVAILABLE, Fault::drop(Moment::BeforeCommit)),
        row("cut-promised", UNAVAILABLE, Fault::cut(Cut::Promised, 40)),
        row("cut-chunked", UNAVAILABLE, Fault::cut(Cut::Chunked, 40)),
        row("cut-unnoticed", UNAVAILABLE, Fault::cut(Cut::Unnoticed, 40)),
        row("malformed", UNAVAILABLE, json(format!("{{\"data\":{{\"data\":{{\"v\":\"{value}\"}}"))),
        row("other-shape", UNAVAILABLE, json(format!("{{\"data\":[\"{value}\"],\"metadata\":7}}"))),
        row("empty", UNAVAILABLE, json(String::new())),
        row("nothing", UNAVAILABLE, json("null".to_owned())),
        row("deep", UNAVAILABLE, json(format!("{}\"{value}\"{}", "{\"data\":".repeat(200_000), "}".repeat(200_000)))),
        row("page", UNAVAILABLE, page(200)),
        row("missing-page", UNAVAILABLE, page(404)),
        row("no-route", UNAVAILABLE, says(404, &json!({ "errors": [format!("no handler for route {value}")] }))),
        row("bomb", UNAVAILABLE, Fault::answer(Answer::bomb(300, &["gzip"]))),
        row("bombs", UNAVAILABLE, Fault::answer(Answer::bomb(300, &["gzip", "deflate"]))),
        row("endless", "TooLarge", Fault::endless("{\"data\":{\"data\":{\"v\":\"", vec![b'a'; 64 << 10])),
        row("large-headers", UNAVAILABLE, Fault::answer(Answer::json(200, &json!({})).header("x-large", &"a".repeat(1 << 20)))),
        row("failing", UNAVAILABLE, says(500, &json!({ "errors": [value] }))),
        row("gateway", UNAVAILABLE, Fault::status(502)),
        row("no-servers", UNAVAILABLE, Fault::status(503)),
        row("sealed", "Sealed", says(503, &json!({ "errors": [format!("Vault is sealed: {value}")] }))),
        row("denied", "AccessDenied", says(403, &json!({ "errors": [format!("permission denied: {value}")] }))),
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
    let quoted = Canary::plain(&random_hex());
    let rows = rows(&elsewhere, &world.withhold(quoted).text);
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

/// What the server itself says of a key: (name, what is done to it, the reason).
const STATES: &[(&str, State, &str)] = &[
    ("deleted", State::Deleted, "Deleted"),
    ("destroyed", State::Destroyed, "Destroyed"),
    ("removed", State::Removed, "NotFound"),
    ("without-property", State::Holding(r#"{"other": "x"}"#), "InvalidData"),
    ("empty-map", State::Holding("{}"), "InvalidData"),
    ("too-large", State::Large, "TooLarge"),
];

#[derive(Clone, Copy)]
enum State {
    Deleted,
    Destroyed,
    Removed,
    Holding(&'static str),
    /// More than fits into a Secret.
    Large,
}

async fn bring_about(vault: &VaultStore, key: &str, state: State) {
    let call = |method, path: String, body| async move {
        let answer = vault.bao.call(method, &path, body).await;
        assert!((200..300).contains(&answer.status), "{path}: {}", answer.status);
    };
    match state {
        State::Deleted => call(Method::DELETE, format!("secret/data/{key}"), None).await,
        State::Destroyed => call(Method::PUT, format!("secret/destroy/{key}"), Some(&json!({ "versions": [1] }))).await,
        State::Removed => call(Method::DELETE, format!("secret/metadata/{key}"), None).await,
        State::Holding(map) => {
            vault.kv().put_raw_json(key, map).await;
        }
        State::Large => {
            vault.kv().put(key, &json!({ "v": "x".repeat(1_000_000), "w": "x".repeat(60_000) })).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_state_of_a_key_that_gives_no_value_keeps_the_target_says_its_reason_and_passes() {
    let world = World::start_with(impatient()).await;
    let vault = world.vault().await;
    let mut targets: BTreeMap<&str, Secret> = BTreeMap::new();
    // Beside the key at fault each reads one that is well: all or nothing.
    vault.kv().put("well", &json!({ "v": "1" })).await;
    for (name, _, _) in STATES {
        let value = world.canary();
        vault.kv().put(name, &json!({ "v": value.text, "w": "small" })).await;
        let entries =
            ["v", "w"].map(|property| format!("    - {{secretKey: {property}, remoteRef: {{key: {name}, property: {property}}}}}\n"));
        let well = "    - {secretKey: well, remoteRef: {key: well, property: v}}\n";
        let more = format!("  refreshInterval: 2s\n  data:\n{}{well}", entries.concat());
        world.cluster.apply(&external(name, &vault.name, &more)).await;
    }
    for (name, _, _) in STATES {
        world.cluster.ready(name).await;
        targets.insert(name, world.cluster.get(name).await.expect("the target"));
    }
    for (name, state, _) in STATES {
        bring_about(&vault, name, *state).await;
    }
    vault.kv().put("well", &json!({ "v": "2" })).await;
    for (name, _, reason) in STATES {
        told(&world, name, reason).await;
    }
    world.a_while().await;
    for (name, _, _) in STATES {
        let target = world.cluster.get::<Secret>(name).await.expect("the target is kept");
        let before = &targets[name];
        assert_eq!((target.resource_version(), &target.data), (before.resource_version(), &before.data), "{name}");
    }
    for (name, _, _) in STATES {
        let value = world.canary();
        vault.kv().put(name, &json!({ "v": value.text, "w": "small" })).await;
        world.cluster.holds(name, &[("v", value.bytes()), ("w", b"small"), ("well", b"2")]).await;
        fresh(&world, name).await;
    }

    // A replica that lags behind gives old answers: no change, until it has caught up.
    let (old, new) = (world.canary(), world.canary());
    vault.kv().put("lagging", &json!({ "v": old.text })).await;
    let lag = vault.proxy.on(VaultStore::look("lagging"), Nth::every(), Fault::replay());
    world.cluster.apply(&object("lagging", &vault.name)).await;
    world.cluster.ready("lagging").await;
    let before = world.cluster.get::<Secret>("lagging").await.expect("the target").resource_version();
    vault.kv().put("lagging", &json!({ "v": new.text })).await;
    lag.fired().await;
    world.a_while().await;
    assert_eq!(world.cluster.get::<Secret>("lagging").await.expect("the target").resource_version(), before);
    lag.withdraw();
    world.cluster.holds("lagging", &[("v", new.bytes())]).await;
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
