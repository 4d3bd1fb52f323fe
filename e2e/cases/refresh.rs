//! When values are looked at, counted by the store itself; what that costs the API server, counted by its audit log.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures::StreamExt;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, ResourceExt};
use serde_json::json;

use crate::harness::canary::random_hex;
use crate::harness::{Canary, Settings, VaultStore, World};
use crate::proxy::{Fault, Moment, Nth};

/// Five looks in any minute.
const LONGEST_GAP: Duration = Duration::from_secs(12);
const INTERVAL: &str = "10s";

#[tokio::test(flavor = "multi_thread")]
async fn every_key_is_looked_at_five_times_a_minute_while_the_cluster_is_left_alone() {
    const LOOKS: usize = 5;
    let world = World::start().await;
    let bao = world.vault().await;
    let keys: Vec<String> = (0..6).map(|number| format!("key-{number}")).collect();
    for key in &keys {
        bao.kv().put(key, &json!({ "v": world.canary().text })).await;
    }
    for (name, keys) in ["a", "b", "c"].iter().zip(keys.chunks(2)) {
        apply(&world, &bao.name, name, INTERVAL, "v", keys).await;
        world.cluster.ready(name).await;
    }
    world.a_while().await;
    let mark = world.audit.mark();
    let from = bao.proxy.calls().len();

    let calls = bao.proxy.await_calls(|calls| {
        let looks = |key: &String| calls[from..].iter().filter(|call| VaultStore::look(key).matches(call)).count();
        keys.iter().all(|key| looks(key) >= LOOKS)
    });
    let calls = calls.await;
    assert_eq!(world.work_since(mark), BTreeMap::new(), "a look that finds nothing new costs the API server nothing");
    for key in &keys {
        let look = VaultStore::look(key);
        let times: Vec<Instant> = calls.iter().filter(|call| look.matches(call)).map(|call| call.at).collect();
        let gap = times.windows(2).map(|pair| pair[1] - pair[0]).max().expect("looks");
        assert!(gap <= LONGEST_GAP, "{key} was not looked at for {gap:?}");
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn values_changed_at_random_arrive_also_after_a_stop_and_a_kill_with_a_backlog() {
    let world = World::start().await;
    let bao = world.vault().await;
    let keys: Vec<String> = (0..8).map(|number| format!("key-{number}")).collect();
    let mut values: BTreeMap<String, Canary> = BTreeMap::new();
    change(&world, &bao, &keys, &mut values).await;
    for key in &keys {
        apply(&world, &bao.name, key, INTERVAL, "v", std::slice::from_ref(key)).await;
    }
    arrived(&world, &values).await;

    for _ in 0..2 {
        change(&world, &bao, &some_of(&keys), &mut values).await;
        arrived(&world, &values).await;
    }

    world.operator.stop().await;
    let changed = some_of(&keys);
    change(&world, &bao, &changed, &mut values).await;
    lives_again(&world, &bao, &changed).await;
    arrived(&world, &values).await;

    // It has seen the first of the new values, and told nobody yet.
    let (early, late) = keys.split_at(4);
    let operator = world.operator.clone();
    let kill = Fault::kill(Moment::AfterCommit, move || operator.kill());
    change(&world, &bao, early, &mut values).await;
    let seen = bao.proxy.on(VaultStore::look(&early[0]), Nth::only(1), kill);
    seen.fired().await;
    change(&world, &bao, late, &mut values).await;
    lives_again(&world, &bao, &keys).await;
    arrived(&world, &values).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_200_converged_objects_reads_what_fell_due_and_writes_nothing() {
    const OBJECTS: usize = 200;
    // Of 200 items with an hour between two looks one falls due every 16 seconds.
    const DUE: usize = 10;
    let world = World::start_with(Settings::default()).await;
    let bao = world.vault().await;
    let value = world.canary();
    let names: Vec<String> = (0..OBJECTS).map(|number| format!("it-{number}")).collect();
    for name in &names {
        bao.kv().put(name, &json!({ "v": value.text })).await;
    }
    let applies = names.iter().map(|name| apply(&world, &bao.name, name, "1h", "v", std::slice::from_ref(name)));
    futures::stream::iter(applies).buffer_unordered(8).collect::<Vec<()>>().await;
    for name in &names {
        world.cluster.ready(name).await;
    }
    world.a_while().await;
    world.operator.kill();
    let (before, mark, looks) = (caught_up(&world).await, world.audit.mark(), bao.proxy.calls().len());

    world.operator.start();
    let leases: Api<Lease> = Api::namespaced(world.cluster.client.clone(), "keyferry-system");
    let lease = kube::runtime::wait::await_condition(leases, "keyferry", move |lease: Option<&Lease>| {
        lease.and_then(mark_of).is_some_and(|mark| mark > before)
    });
    tokio::time::timeout(crate::harness::cluster::PATIENCE, lease).await.expect("every object is dealt with").expect("a watch");
    world.a_while().await;

    let requests = world.audit.of_operator(mark);
    let of = |verb: &str| requests.iter().filter(|request| request.verb == verb).map(ToString::to_string).collect::<Vec<_>>();
    let writes: Vec<String> = requests
        .iter()
        .filter(|request| request.resource != "leases" && !["get", "list", "watch"].contains(&request.verb.as_str()))
        .map(ToString::to_string)
        .collect();
    assert_eq!(writes, Vec::<String>::new(), "a restart writes nothing");
    assert_eq!((of("list").len(), of("watch").len()), (7, 7), "one list and one watch of each kind: {:?} {:?}", of("list"), of("watch"));
    let reads: Vec<String> =
        requests.iter().filter(|request| request.verb == "get" && request.resource != "leases").map(ToString::to_string).collect();
    assert!(reads.len() <= 6, "a restart reads no object by itself: {reads:?}");
    let looks = bao.proxy.calls()[looks..].iter().filter(|call| call.operation.resource.starts_with("secret/")).count();
    println!("restart of {OBJECTS} objects: {} lists, {} reads, {looks} looks at the store", of("list").len(), reads.len());
    assert!(looks <= DUE, "a restart looked at {looks} keys");
    world.finish().await;
}

/// An object with an entry for each key.
async fn apply(world: &World, store: &str, name: &str, interval: &str, property: &str, keys: &[String]) {
    let entry = |key: &String| format!("    - {{secretKey: {key}, remoteRef: {{key: {key}, property: {property}}}}}\n");
    let entries: String = keys.iter().map(entry).collect();
    let store = format!("secretStoreRef: {{kind: ClusterSecretStore, name: {store}}}");
    let spec = format!("  {store}\n  refreshInterval: {interval}\n  data:\n{entries}");
    world.cluster.apply(&format!("kind: ExternalSecret\nmetadata: {{name: {name}}}\nspec:\n{spec}")).await;
}

/// A new value for each of these keys.
async fn change(world: &World, bao: &VaultStore, keys: &[String], values: &mut BTreeMap<String, Canary>) {
    println!("changed: {keys:?}");
    for key in keys {
        let value = world.canary();
        bao.kv().put(key, &json!({ "v": value.text })).await;
        values.insert(key.clone(), value);
    }
}

/// Any of them, at least one.
fn some_of(keys: &[String]) -> Vec<String> {
    let bits = u64::from_str_radix(&random_hex(), 16).expect("hex digits");
    let chosen: Vec<String> = keys.iter().enumerate().filter(|(at, _)| bits >> at & 1 == 1).map(|(_, key)| key.clone()).collect();
    if chosen.is_empty() { keys[..1].to_vec() } else { chosen }
}

/// Every target holds its value.
async fn arrived(world: &World, values: &BTreeMap<String, Canary>) {
    for (key, value) in values {
        world.cluster.holds(key, &[(key, value.bytes())]).await;
    }
}

/// Starts the operator: each of these keys is looked at within the interval.
async fn lives_again(world: &World, bao: &VaultStore, keys: &[String]) {
    let from = bao.proxy.calls().len();
    world.operator.start();
    world.operator.synced().await;
    let alive = Instant::now();
    let calls = bao.proxy.await_calls(|calls| {
        let is_seen = |key: &String| calls[from..].iter().any(|call| VaultStore::look(key).matches(call));
        keys.iter().all(is_seen)
    });
    let calls = calls.await;
    for key in keys {
        let first = calls[from..].iter().find(|call| VaultStore::look(key).matches(call)).expect("awaited").at;
        let wait = first.saturating_duration_since(alive);
        assert!(wait <= LONGEST_GAP, "{key} was first looked at {wait:?} after the operator lived again");
    }
}

/// The mark of the last leader.
async fn caught_up(world: &World) -> String {
    let leases: Api<Lease> = Api::namespaced(world.cluster.client.clone(), "keyferry-system");
    mark_of(&leases.get("keyferry").await.expect("a Lease")).expect("a leader that lived leaves its mark")
}

fn mark_of(lease: &Lease) -> Option<String> {
    lease.annotations().get("keyferry.dev/caught-up").cloned()
}
