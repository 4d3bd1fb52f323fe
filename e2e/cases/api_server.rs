//! The API server fails: it dies, forgets, hangs, refuses, answers after the connection is gone. Targets stay, and everything catches up.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::api::Patch;
use kube::{Api, ResourceExt};
use serde_json::json;

use keyferry::crd::v1alpha1::ExternalSecret;

use super::whole_values;
use crate::harness::{FileStore, Settings, World, cluster};
use crate::proxy::{Accepting, Answer, Call, Fault, Matcher, Moment, Nth, WatchEnd};

const KEYS: &[(&str, &str)] = &[("password", "db/password")];

async fn ready_world(settings: Settings) -> (World, FileStore) {
    let world = World::start_with(settings).await;
    let store = world.file_store().await;
    store.set("db/password", world.canary().bytes());
    world.cluster.apply(&whole_values("db", &store.name, "", KEYS)).await;
    world.cluster.ready("db").await;
    (world, store)
}

fn patient() -> Settings {
    Settings::default().timing("backoff", "100ms").timing("backoffMax", "1s").timing("leaseDuration", "80s").timing("leaseRenew", "60s")
}

/// Returns when every watch is open: one that failed comes back after a pause, with a list.
async fn watching(world: &World) {
    let open = |call: &&Call| call.operation.verb == "watch" && call.is_open && call.status == Some(200);
    let kinds = |calls: &[Call]| calls.iter().filter(open).map(|call| call.operation.resource.clone()).collect::<BTreeSet<_>>().len();
    world.proxy.await_calls(|calls| kinds(calls) >= 7).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_server_is_killed_and_comes_back() {
    let (world, store) = ready_world(patient()).await;
    // An API server that has just begun knows no rules yet, and refuses everybody.
    world.may_be_refused();
    world.plane.kill_api_server();
    let value = world.canary();
    store.set("db/password", value.bytes());
    world.plane.start_api_server();
    world.cluster.holds("db", &[("password", value.bytes())]).await;
    world.cluster.ready("db").await;
    let late = world.canary();
    store.set("db/late", late.bytes());
    world.cluster.apply(&whole_values("late", &store.name, "", &[("password", "db/late")])).await;
    world.cluster.holds("late", &[("password", late.bytes())]).await;
    watching(&world).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn watches_that_end_in_any_way_miss_nothing_and_cost_no_write() {
    let (world, store) = ready_world(patient()).await;
    world.a_while().await;
    for (number, end) in [WatchEnd::Gone, WatchEnd::Cut, WatchEnd::Finish].into_iter().enumerate() {
        let mark = world.audit.mark();
        assert!(world.proxy.end_watches(&Matcher::any().verb("watch"), end) >= 7);
        let (name, value) = (format!("after{number}"), world.canary());
        store.set(&format!("db/{name}"), value.bytes());
        world.cluster.apply(&whole_values(&name, &store.name, "", &[("password", &format!("db/{name}"))])).await;
        world.cluster.holds(&name, &[("password", value.bytes())]).await;
        world.cluster.ready(&name).await;
        watching(&world).await;
        world.a_while().await;
        let mut writes = world.audit.of_operator(mark);
        writes.retain(|request| !request.is_background() && !matches!(request.verb.as_str(), "get" | "list"));
        let told: Vec<String> = writes.iter().map(ToString::to_string).collect();
        assert!(writes.iter().all(|request| request.name == name), "{end:?}: what was in order is not written: {told:?}");
        assert_eq!(writes.iter().filter(|request| request.resource == "secrets").count(), 1, "{end:?}: {told:?}");
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_fails_in_any_way_is_done_once_in_the_end() {
    let (world, store) = ready_world(patient()).await;
    let apply = |name: &str| Matcher::any().verb("apply").resource("secrets").name(name);
    let faults = [
        ("dropped", Fault::drop(Moment::BeforeCommit)),
        ("lost-answer", Fault::drop(Moment::AfterCommit)),
        ("reset", Fault::reset(Moment::AfterCommit)),
        ("throttled", Fault::answer(Answer::kubernetes(429, "TooManyRequests", "slow down").header("retry-after", "1"))),
        ("broken", Fault::status(500)),
        ("bad-gateway", Fault::status(502)),
        ("timeout", Fault::answer_after_commit(Answer::kubernetes(504, "Timeout", "it took too long"))),
        ("truncated", Fault::truncate(10)),
        ("slow", Fault::delay(Duration::from_secs(1))),
    ];
    for (name, fault) in faults {
        let rule = world.proxy.on(apply(name), Nth::only(1), fault);
        let value = world.canary();
        store.set(&format!("f/{name}"), value.bytes());
        world.cluster.apply(&whole_values(name, &store.name, "", &[("password", &format!("f/{name}"))])).await;
        rule.fired().await;
        world.cluster.ready(name).await;
        world.cluster.holds(name, &[("password", value.bytes())]).await;
        let history = world.history().await;
        assert_eq!(history.of(name).len(), 1, "{name}: written once");
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_hangs_holds_up_nobody_else() {
    let (world, store) = ready_world(patient().argument("--call-timeout=2s")).await;
    let hang = world.proxy.on(Matcher::any().verb("apply").resource("secrets").name("stuck"), Nth::only(1), Fault::hang());
    let value = world.canary();
    store.set("db/stuck", value.bytes());
    world.cluster.apply(&whole_values("stuck", &store.name, "", &[("password", "db/stuck")])).await;
    hang.fired().await;
    let other = world.canary();
    store.set("db/other", other.bytes());
    world.cluster.apply(&whole_values("other", &store.name, "", &[("password", "db/other")])).await;
    world.cluster.ready("other").await;
    assert!(world.cluster.get::<Secret>("stuck").await.is_none());
    hang.release();
    world.cluster.holds("stuck", &[("password", value.bytes())]).await;
    world.cluster.ready("stuck").await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_that_somebody_else_changed_first_is_computed_anew() {
    let (world, store) = ready_world(patient()).await;
    let conflict = Answer::kubernetes(409, "Conflict", "the object has been modified");
    let status = Matcher::any().verb("patch").resource("externalsecrets/status").name("two");
    let rule = world.proxy.on(status, Nth::only(1), Fault::answer(conflict));
    let value = world.canary();
    store.set("db/two", value.bytes());
    world.cluster.apply(&whole_values("two", &store.name, "", &[("password", "db/two")])).await;
    rule.fired().await;
    world.cluster.ready("two").await;
    assert_eq!(world.history().await.of("two").len(), 1, "the target is written once all the same");

    // A status that was computed for an object that is gone must not reach its successor.
    let held = world.proxy.on(
        Matcher::any().verb("patch").resource("externalsecrets/status").name("three"),
        Nth::only(1),
        Fault::hold(Moment::BeforeCommit),
    );
    store.set("db/three", world.canary().bytes());
    world.cluster.apply(&whole_values("three", &store.name, "", &[("password", "db/three")])).await;
    held.fired().await;
    world.may_vanish("three");
    world.cluster.delete::<ExternalSecret>("three", &Default::default()).await;
    world.cluster.until::<ExternalSecret>("three", "to be gone", |object| object.is_none()).await;
    world.cluster.apply(&whole_values("three", &store.name, "", &[("password", "db/nothing")])).await;
    let successor = world.cluster.get::<ExternalSecret>("three").await.unwrap().uid();
    held.withdraw();
    world.cluster.not_ready("three", "NotFound").await;
    let misled = world.history().await.objects().into_iter().filter(|object| object.uid() == successor);
    assert_eq!(misled.filter(|object| cluster::condition_is(object, "Ready", "True")).count(), 0, "it was never Ready");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_that_cannot_reach_the_api_server_waits_for_it() {
    let world = World::prepare(patient()).await;
    let store = world.file_store().await;
    let value = world.canary();
    store.set("db/password", value.bytes());
    world.cluster.apply(&whole_values("db", &store.name, "", KEYS)).await;
    world.proxy.accept(Accepting::Reset);
    world.operator.start();
    world.proxy.await_seen(|seen| seen.connections_opened >= 3).await;
    assert!(world.operator.is_running(), "{}", world.operator.last_words());
    world.proxy.accept(Accepting::Normally);
    world.cluster.ready("db").await;
    world.cluster.holds("db", &[("password", value.bytes())]).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_that_is_taken_away_is_told_and_its_return_is_noticed() {
    let (world, store) = ready_world(patient()).await;
    let denied = Answer::kubernetes(403, "Forbidden", "secrets \"db\" is forbidden: cannot patch");
    let rule = world.proxy.on(Matcher::any().verb("apply").resource("secrets").name("db"), Nth::between(1, 2), Fault::answer(denied));
    let value = world.canary();
    store.set("db/password", value.bytes());
    world.cluster.merge::<ExternalSecret>("db", &json!({ "metadata": { "annotations": { "keyferry.dev/refresh": "1" } } })).await;
    rule.fired().await;
    rule.withdraw();
    world.cluster.merge::<ExternalSecret>("db", &json!({ "metadata": { "annotations": { "keyferry.dev/refresh": "2" } } })).await;
    world.cluster.holds("db", &[("password", value.bytes())]).await;
    world.cluster.ready("db").await;
    world.finish().await;
}

/// What was written since a mark, targets and statuses above all, by `verb resource name`. What the API server refused is no write.
fn writes_since(world: &World, mark: crate::harness::audit::Mark) -> BTreeMap<String, usize> {
    let mut writes = BTreeMap::new();
    for request in world.audit.of_operator(mark) {
        if !request.is_background() && !matches!(request.verb.as_str(), "get" | "list") && request.code < 400 {
            *writes.entry(format!("{} {} {}", request.verb, request.resource, request.name)).or_default() += 1;
        }
    }
    writes
}

fn counts(wanted: &[(&str, usize)]) -> BTreeMap<String, usize> {
    wanted.iter().map(|(what, count)| ((*what).to_owned(), *count)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_are_told_twice_cost_no_write_and_lose_none() {
    let world = World::prepare(patient()).await;
    let rule = world.proxy.on(Matcher::any().verb("watch"), Nth::every(), Fault::duplicate_events());
    world.operator.start();
    let store = world.file_store().await;
    let value = world.canary();
    store.set("db/password", value.bytes());
    world.cluster.store_says(&store.name, "True", "Synced").await;
    world.a_while().await;
    let mark = world.audit.mark();
    world.cluster.apply(&whole_values("db", &store.name, "", KEYS)).await;
    world.cluster.ready("db").await;
    world.a_while().await;
    rule.assert_fired();
    assert_eq!(writes_since(&world, mark), counts(&[("patch secrets db", 1), ("patch externalsecrets/status db", 1)]));
    // A changed value, an edited target, a deleted target: each is answered once.
    let (mark, changed) = (world.audit.mark(), world.canary());
    store.set("db/password", changed.bytes());
    world.cluster.holds("db", &[("password", changed.bytes())]).await;
    world.a_while().await;
    assert_eq!(writes_since(&world, mark).get("patch secrets db"), Some(&1));
    let mark = world.audit.mark();
    world.cluster.merge::<Secret>("db", &json!({ "stringData": { "password": "edited" } })).await;
    world.cluster.holds("db", &[("password", changed.bytes())]).await;
    world.a_while().await;
    assert_eq!(writes_since(&world, mark).get("patch secrets db"), Some(&1));
    let mark = world.audit.mark();
    world.may_vanish("db");
    world.cluster.delete::<Secret>("db", &Default::default()).await;
    world.cluster.holds("db", &[("password", changed.bytes())]).await;
    world.a_while().await;
    assert_eq!(writes_since(&world, mark).get("patch secrets db"), Some(&1));
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn watches_that_show_nothing_for_a_while_neither_lose_a_change_nor_undo_one() {
    let (world, store) = ready_world(patient()).await;
    world.a_while().await;
    // It does not see its own writes: what the answers said must do.
    let secrets = Matcher::any().verb("watch").resource("secrets");
    let own = Matcher::any().verb("watch").resource("externalsecrets");
    assert_eq!((world.proxy.hold_watches(&secrets), world.proxy.hold_watches(&own)), (1, 1));
    let mark = world.audit.mark();
    for _ in 0..3 {
        let value = world.canary();
        store.set("db/password", value.bytes());
        world.cluster.holds("db", &[("password", value.bytes())]).await;
    }
    world.a_while().await;
    assert_eq!(writes_since(&world, mark).get("patch secrets db"), Some(&3), "each change is written once");

    // What others did meanwhile is seen when the watches go on: the edit is mended, the new object served, the deleted one left alone.
    let last = world.canary();
    store.set("db/password", last.bytes());
    world.cluster.holds("db", &[("password", last.bytes())]).await;
    world.cluster.merge::<Secret>("db", &json!({ "stringData": { "password": "edited", "foreign": "stays" } })).await;
    let late = world.canary();
    store.set("db/late", late.bytes());
    world.cluster.apply(&whole_values("late", &store.name, "", &[("password", "db/late")])).await;
    world.a_while().await;
    assert!(world.cluster.get::<Secret>("late").await.is_none(), "nobody knows of it yet");
    assert_eq!((world.proxy.release_watches(&secrets), world.proxy.release_watches(&own)), (1, 1));
    world.cluster.holds("db", &[("password", last.bytes()), ("foreign", b"stays")]).await;
    world.cluster.holds("late", &[("password", late.bytes())]).await;
    world.cluster.ready("late").await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_lags_behind_with_its_lists_makes_nothing_be_written_or_deleted() {
    let world = World::prepare(patient()).await;
    let store = world.file_store().await;
    let names = ["one", "two", "three"];
    let lists = |resource| Matcher::any().verb("list").resource(resource);
    // Both lists are remembered as they were before anything was there.
    let stale: Vec<_> =
        ["secrets", "externalsecrets"].iter().map(|resource| world.proxy.on(lists(resource), Nth::every(), Fault::replay())).collect();
    world.operator.start();
    world.operator.synced().await;
    let mut values = Vec::new();
    for name in names {
        let value = world.canary();
        store.set(name, value.bytes());
        world.cluster.apply(&whole_values(name, &store.name, "", &[("v", name)])).await;
        world.cluster.ready(name).await;
        values.push((name, value));
    }
    world.a_while().await;
    let before = targets(&world, &names).await;
    let mark = world.audit.mark();
    for resource in ["secrets", "externalsecrets"] {
        assert_eq!(world.proxy.end_watches(&Matcher::any().verb("watch").resource(resource), WatchEnd::Gone), 1);
    }
    for rule in &stale {
        rule.fired().await;
    }
    watching(&world).await;
    world.a_while().await;
    assert_eq!(targets(&world, &names).await, before, "nothing was written, deleted or made anew");
    assert_eq!(writes_since(&world, mark), counts(&[]));
    // The watches went on from the old lists and told everything again: what changes now arrives.
    for (name, _) in &values {
        let value = world.canary();
        store.set(name, value.bytes());
        world.cluster.holds(name, &[("v", value.bytes())]).await;
    }
    stale.iter().for_each(crate::proxy::Rule::withdraw);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_and_events_that_cannot_be_read_stop_nothing_and_delete_nothing() {
    let (world, store) = ready_world(patient()).await;
    world.a_while().await;
    let before = targets(&world, &["db"]).await;
    let json = |body: &str| Fault::answer(Answer::new(200, "application/json", body.to_owned()));
    let faults = [
        ("malformed", "list", json("{\"kind\":\"SecretList\",\"items\":[")),
        ("page", "list", Fault::answer(Answer::new(200, "text/html", "<!doctype html>"))),
        // An empty list without a version is no list; the API server never sends one.
        ("nothing", "list", json("{\"kind\":\"List\",\"items\":[]}")),
        ("cut", "list", Fault::cut(crate::proxy::Cut::Chunked, 60)),
        ("refused", "list", Fault::answer(Answer::kubernetes(403, "Forbidden", "not now"))),
        ("broken-event", "watch", json("{\"type\":\"DELETED\",\"object\":{\n")),
        ("unknown-event", "watch", json("{\"type\":\"VANISHED\",\"object\":{}}\n")),
    ];
    for (name, verb, fault) in faults {
        // Once of each kind: the next attempt is as it should be.
        let rules: Vec<_> = ["secrets", "externalsecrets", "clustersecretstores", "namespaces"]
            .map(|resource| world.proxy.on(Matcher::any().verb(verb).resource(resource), Nth::only(1), fault.clone()))
            .into();
        assert!(world.proxy.end_watches(&Matcher::any().verb("watch"), WatchEnd::Gone) >= 4, "{name}");
        for rule in &rules {
            rule.fired().await;
        }
        let value = world.canary();
        store.set(&format!("db/{name}"), value.bytes());
        world.cluster.apply(&whole_values(name, &store.name, "", &[("password", &format!("db/{name}"))])).await;
        world.cluster.holds(name, &[("password", value.bytes())]).await;
        world.cluster.ready(name).await;
        watching(&world).await;
    }
    assert_eq!(targets(&world, &["db"]).await, before);
    world.finish().await;
}

/// UID and version of each target.
async fn targets(world: &World, names: &[&str]) -> Vec<(Option<String>, Option<String>)> {
    let mut targets = Vec::new();
    for name in names {
        let secret = world.cluster.get::<Secret>(name).await.unwrap_or_else(|| panic!("{name} is gone"));
        targets.push((secret.uid(), secret.resource_version()));
    }
    targets
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_that_ends_while_its_target_is_written_is_left_in_peace() {
    let (world, store) = ready_world(patient()).await;
    let value = world.withheld();
    store.set("db/last", value.bytes());
    let ending = crate::harness::Cluster { client: world.cluster.client.clone(), namespace: format!("{}-ends", world.namespace()) };
    let name = &ending.namespace;
    // The sweep takes it along.
    ending.apply(&format!("kind: Namespace\nmetadata: {{name: {name}, labels: {{keyferry-e2e: world}}}}")).await;
    let access = Patch::Merge(json!({ "spec": { "conditions": [{ "namespaces": [world.namespace(), name] }] } }));
    let stores = Api::<keyferry::crd::v1alpha1::ClusterSecretStore>::all(world.cluster.client.clone());
    stores.patch(&store.name, &Default::default(), &access).await.unwrap();
    // It keeps the namespace from being gone before it was seen ending.
    ending.apply("kind: ConfigMap\nmetadata: {name: stays, finalizers: [keyferry.dev/e2e]}").await;
    let write = || Matcher::any().verb("apply").resource("secrets").namespace(name);
    let held = world.proxy.hold(write());
    ending.apply(&whole_values("last", &store.name, "", &[("password", "db/last")])).await;
    held.fired().await;
    let namespaces = Api::<Namespace>::all(world.cluster.client.clone());
    namespaces.delete(name, &Default::default()).await.unwrap();
    held.withdraw();
    let refused = |calls: &[Call]| calls.iter().any(|call| write().matches(call) && call.status == Some(403));
    world.proxy.await_calls(refused).await;
    for _ in 0..2 {
        world.a_while().await;
    }
    assert_eq!(world.proxy.count(&write()), 1, "it is not tried again");
    assert_eq!(ending.api::<Secret>().list(&Default::default()).await.unwrap().items.len(), 0);
    ending.merge::<k8s_openapi::api::core::v1::ConfigMap>("stays", &json!({ "metadata": { "finalizers": null } })).await;
    world.cluster.ready("db").await;
    world.finish().await;
}
