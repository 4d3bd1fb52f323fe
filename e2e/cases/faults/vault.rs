//! OpenBao.

use reqwest::Method;
use serde_json::json;

use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;

use super::{Row, Server, UNAVAILABLE, are_kept, each_fault_passes, external, fresh, impatient, row, says, targets, told};
use crate::harness::{Canary, VaultStore, World};
use crate::proxy::{Answer, Fault, Matcher, Nth, Proxy};

impl Server for VaultStore {
    fn proxy(&self) -> &Proxy {
        &self.proxy
    }

    fn look(&self, key: &str) -> Matcher {
        Self::look(key)
    }

    async fn put(&self, _: &World, key: &str, value: &Canary) {
        self.kv().put(key, &json!({ "v": value.text })).await;
    }

    async fn store(&self, world: &World, name: &str) -> String {
        self.apply_as(world, name, "").await
    }

    fn object(&self, name: &str, store: &str) -> String {
        object(name, store)
    }

    fn words(&self, value: &str) -> Vec<Row> {
        let throttled = || Answer::json(429, &json!({ "errors": [format!("request path rate limit quota exceeded: {value}")] }));
        vec![
            row("no-route", UNAVAILABLE, says(404, &json!({ "errors": [format!("no handler for route {value}")] }))),
            row("failing", UNAVAILABLE, says(500, &json!({ "errors": [value] }))),
            row("sealed", "Sealed", says(503, &json!({ "errors": [format!("Vault is sealed: {value}")] }))),
            row("denied", "AccessDenied", says(403, &json!({ "errors": [format!("permission denied: {value}")] }))),
            row("throttled", "Throttled", Fault::answer(throttled())),
            row("throttled-until", "Throttled", Fault::answer(throttled().header("retry-after", "1"))),
        ]
    }
}

fn object(name: &str, store: &str) -> String {
    let entry = format!("  data: [{{secretKey: v, remoteRef: {{key: {name}, property: v}}}}]");
    external(name, store, &format!("  refreshInterval: 2s\n{entry}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn each_fault_of_a_store_keeps_the_target_says_its_reason_and_passes() {
    let world = World::start_with(impatient()).await;
    let vault = world.vault().await;
    each_fault_passes(&world, &vault).await;
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
    let targets = targets(&world, &STATES.iter().map(|(name, _, _)| *name).collect::<Vec<_>>()).await;
    for (name, state, _) in STATES {
        bring_about(&vault, name, *state).await;
    }
    vault.kv().put("well", &json!({ "v": "2" })).await;
    for (name, _, reason) in STATES {
        told(&world, name, reason).await;
    }
    world.a_while().await;
    are_kept(&world, &targets).await;
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
