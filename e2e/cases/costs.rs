//! What work costs, counted by the bench's own code: its counts are asserted here, its times nowhere.

use std::collections::BTreeMap;

use super::whole_values;
use crate::bench::counts::Cost;
use crate::bench::objects::{self, Many};
use crate::harness::{Settings, VaultStore, World};
use crate::proxy::Matcher;

const OBJECTS: usize = 100;
const TEXT: &str = "value of";

fn two_writes_each() -> BTreeMap<String, usize> {
    BTreeMap::from([("patch secrets".to_owned(), OBJECTS), ("patch keyferry.dev/externalsecrets/status".to_owned(), OBJECTS)])
}

async fn all_ready(world: &World, many: &Many) {
    for name in many.names() {
        world.cluster.ready(&name).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_objects_cost_what_the_bench_counts() {
    let world = World::prepare(Settings::default()).await;
    let store = world.vault().await;
    let (together, shared) = ("together".to_owned(), "shared".to_owned());
    objects::put_keys(&store.bao, &[together.clone(), shared.clone()], TEXT).await;
    // Never looked at again: what is read of it is read for the start.
    let starting = Many::of_one_key(&store.name, "0s", "t", OBJECTS, &together);
    starting.create(&world.cluster).await;
    let mark = world.audit.mark();
    world.operator.start();
    all_ready(&world, &starting).await;
    world.a_while().await;
    let requests = world.audit.of_operator(mark);
    assert_eq!(Cost(&requests).writes_in(world.namespace()), two_writes_each(), "objects of one identity that start together");
    assert_eq!(Cost(&requests).reads_of(world.namespace(), "secrets"), 1, "one read of the credential, none of a target");
    assert_eq!(store.looks(&together), 1, "one read of the one key");

    let users = Many::of_one_key(&store.name, "10s", "s", OBJECTS, &shared);
    users.create(&world.cluster).await;
    all_ready(&world, &users).await;
    world.a_while().await;
    let (mark, looks) = (world.audit.mark(), store.looks(&shared));
    let watched = store.proxy.calls_so_far();
    objects::put_keys(&store.bao, std::slice::from_ref(&shared), "changed").await;
    world.proxy.await_calls(|_| world.work_since(mark).get("patch secrets") == Some(&OBJECTS)).await;
    world.a_while().await;
    assert_eq!(world.work_since(mark), two_writes_each(), "one changed key");
    let seen = store.proxy.calls()[watched..].iter().filter(|call| VaultStore::look(&shared).matches(call)).count();
    assert!(store.looks(&shared) > looks && seen <= 2, "{seen} looks: the one that saw it, and one that may have fallen due meanwhile");

    let (mark, from) = (world.audit.mark(), store.proxy.calls_so_far());
    let many = Many::of_own_keys(&store.name, "10s", "o", OBJECTS);
    objects::put_keys(&store.bao, &many.names(), TEXT).await;
    many.create(&world.cluster).await;
    all_ready(&world, &many).await;
    world.a_while().await;
    assert_eq!(world.work_since(mark), two_writes_each(), "new objects with a key each");
    assert_eq!(objects::right_secrets(&world.cluster, TEXT).await, OBJECTS);

    let (mark, from) = (world.audit.mark(), store.proxy.calls_so_far().max(from));
    store.proxy.await_calls(|calls| calls.len() >= from + 2 * OBJECTS).await;
    assert_eq!(world.work_since(mark), BTreeMap::new(), "refreshes that change nothing");

    world.operator.kill();
    let mark = world.audit.mark();
    world.operator.start();
    world.operator.synced().await;
    world.a_while().await;
    let requests = world.audit.of_operator(mark);
    let cost = Cost(&requests);
    assert_eq!(cost.writes(), BTreeMap::new(), "a restart");
    let (kinds, pages) = (cost.watched().len(), cost.further_pages());
    assert!(kinds >= 5 && cost.lists_and_watches() <= 2 * kinds + pages, "{:?}", cost.work());
    let others = requests.iter().filter(|request| request.verb == "get").count();
    assert!(others <= 6, "{:?}", cost.work());
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_hangs_holds_up_no_object_of_another_store() {
    let world = World::start().await;
    let (hanging, working) = (world.vault().await, world.file_store().await);
    let held = hanging.proxy.hold(Matcher::any().resource_prefix("secret/"));
    let waiting = Many::of_own_keys(&hanging.name, "1h", "h", OBJECTS);
    objects::put_keys(&hanging.bao, &waiting.names(), TEXT).await;
    waiting.create(&world.cluster).await;
    held.fired().await;
    let mark = world.audit.mark();
    let value = world.canary();
    working.set("db", value.bytes());
    world.cluster.apply(&whole_values("db", &working.name, "", &[("v", "db")])).await;
    world.cluster.ready("db").await;
    let told = world.work_since(mark).get("patch keyferry.dev/externalsecrets/status").copied();
    assert_eq!(told, Some(1), "the others still wait: none of their calls has ended, not even by its deadline");
    held.withdraw();
    all_ready(&world, &waiting).await;
    assert_eq!(objects::right_secrets(&world.cluster, TEXT).await, OBJECTS);
    world.finish().await;
}
