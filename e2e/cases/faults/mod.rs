//! What comes of each fault between the operator and a store: the target is kept byte for byte, the status says the right reason, and
//! afterwards everything goes on by itself. One operator, one server, a store and an object for each fault, so that none can
//! hide behind another's.

mod kubernetes;
mod vault;

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use serde_json::json;

use super::external;
use crate::harness::canary::random_hex;
use crate::harness::cluster::{condition_is, reason_of};
use crate::harness::{Canary, Settings, World};
use crate::proxy::{Answer, Cut, Fault, Matcher, Moment, Nth, Proxy, Rule};

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

/// A server behind its proxy, in the terms of which the table speaks.
trait Server {
    fn proxy(&self) -> &Proxy;
    /// Reads of the value of a key.
    fn look(&self, key: &str) -> Matcher;
    /// Puts the value under a key, and the rest beside it.
    async fn put(&self, world: &World, key: &str, value: &Canary);
    /// Another store over the server, with a session of its own; its name.
    async fn store(&self, world: &World, name: &str) -> String;
    /// The manifest of an object that reads property `v` of the key of its name.
    fn object(&self, name: &str, store: &str) -> String;
    /// Refusals as this server words them. `value` stands wherever an answer could quote one.
    fn words(&self, value: &str) -> Vec<Row>;
}

/// What breaks any conversation in HTTP. `value` stands wherever an answer could quote one, and may stand in no status, event or log.
fn wire(elsewhere: &Proxy, value: &str) -> Vec<Row> {
    let page = |code| Fault::answer(Answer::new(code, "text/html", format!("<!doctype html><title>{value}</title>")));
    let json = |text: String| Fault::answer(Answer::new(200, "application/json", text));
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
        row("bomb", UNAVAILABLE, Fault::answer(Answer::bomb(300, &["gzip"]))),
        row("bombs", UNAVAILABLE, Fault::answer(Answer::bomb(300, &["gzip", "deflate"]))),
        row("endless", "TooLarge", Fault::endless("{\"data\":{\"data\":{\"v\":\"", vec![b'a'; 64 << 10])),
        row("large-headers", UNAVAILABLE, Fault::answer(Answer::json(200, &json!({})).header("x-large", &"a".repeat(1 << 20)))),
        row("gateway", UNAVAILABLE, Fault::status(502)),
        row("no-servers", UNAVAILABLE, Fault::status(503)),
    ];
    rows.extend(
        [(301, "moved"), (302, "found"), (307, "temporary"), (308, "permanent")]
            .map(|(code, name)| row(name, UNAVAILABLE, Fault::redirect(code, elsewhere))),
    );
    rows
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

/// The targets of these objects, once they are Ready.
async fn targets(world: &World, names: &[&'static str]) -> BTreeMap<&'static str, Secret> {
    let mut targets = BTreeMap::new();
    for name in names {
        world.cluster.ready(name).await;
        targets.insert(*name, world.cluster.get(name).await.expect("the target"));
    }
    targets
}

async fn are_kept(world: &World, targets: &BTreeMap<&'static str, Secret>) {
    for (name, before) in targets {
        let target = world.cluster.get::<Secret>(name).await.expect("the target is kept");
        assert_eq!((target.resource_version(), &target.data), (before.resource_version(), &before.data), "{name}");
    }
}

/// Each fault, each with a store and an object of its own and all at once: the target is kept byte for byte, the status says the right
/// reason, no redirect is followed, and the value that came meanwhile is there when the fault is over.
async fn each_fault_passes(world: &World, server: &impl Server) {
    let elsewhere = server.proxy().beside();
    let quoted = world.withhold(Canary::plain(&random_hex())).text;
    let rows: Vec<Row> = wire(&elsewhere, &quoted).into_iter().chain(server.words(&quoted)).collect();
    println!("{} faults", rows.len());
    for Row { name, .. } in &rows {
        server.put(world, name, &world.canary()).await;
        let store = server.store(world, name).await;
        world.cluster.apply(&server.object(name, &store)).await;
    }
    let targets = targets(world, &rows.iter().map(|row| row.name).collect::<Vec<_>>()).await;

    let rules: Vec<Rule> = rows.iter().map(|row| server.proxy().on(server.look(row.name), Nth::every(), row.fault.clone())).collect();
    // A new value: a server that tells what changed is asked for nothing else.
    let mut values = Vec::new();
    for Row { name, .. } in &rows {
        let value = world.canary();
        server.put(world, name, &value).await;
        values.push((name, value));
    }
    for Row { name, reason, .. } in &rows {
        told(world, name, reason).await;
    }
    // Once more for each, with all of them under way.
    let fired: Vec<u64> = rules.iter().map(Rule::times_fired).collect();
    server.proxy().await_calls(|_| rules.iter().zip(&fired).all(|(rule, before)| rule.times_fired() > *before)).await;
    are_kept(world, &targets).await;
    assert_eq!(elsewhere.seen().connections_opened, 0, "no redirect was followed");

    rules.iter().for_each(Rule::withdraw);
    for (name, value) in values {
        world.cluster.holds(name, &[("v", value.bytes())]).await;
        fresh(world, name).await;
    }
}
