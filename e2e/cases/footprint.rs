//! What the operator holds on to: nothing of work that is done.

use std::collections::BTreeMap;

use kube::api::DeleteParams;

use keyferry::crd::v1alpha1::ExternalSecret;

use super::external;
use crate::harness::{World, oracle};
use crate::proxy::{Matcher, WatchEnd};

fn holdings(world: &World) -> BTreeMap<String, u64> {
    let mut holdings = world.operator.holdings();
    // Memory has its own case: it grows in steps.
    holdings.remove("KiB of memory");
    holdings.insert("connections".to_owned(), world.proxy.seen().connections_open);
    holdings
}

#[tokio::test(flavor = "multi_thread")]
async fn rounds_of_work_leave_no_thread_file_or_connection_behind() {
    let world = World::start().await;
    let store = world.vault().await;
    let value = world.canary();
    store.kv().put("db", &serde_json::json!({ "v": value.text })).await;
    let mut before = BTreeMap::new();
    for round in 0..6 {
        for number in 0..8 {
            let name = format!("o{round}-{number}");
            world.may_vanish(&name);
            world.cluster.apply(&external(&name, &store.name, "  data: [{secretKey: v, remoteRef: {key: db, property: v}}]")).await;
        }
        for number in 0..8 {
            world.cluster.ready(&format!("o{round}-{number}")).await;
        }
        for number in 0..8 {
            world.cluster.delete::<ExternalSecret>(&format!("o{round}-{number}"), &DeleteParams::default()).await;
        }
        assert!(world.proxy.end_watches(&Matcher::any().verb("watch"), WatchEnd::Cut) > 0);
        world.a_while().await;
        if round == 1 {
            before = holdings(&world);
        }
    }
    let after = holdings(&world);
    // What ends is closed a moment later, and a pool keeps a few connections.
    let grown = oracle::growth(&before, &after, 12);
    assert!(grown.is_empty(), "{grown:?}: {before:?} {after:?}");
    world.finish().await;
}
