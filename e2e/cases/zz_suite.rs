//! What only the suite as a whole can show; its name makes it start last.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::harness::{World, oracle, suite};

#[tokio::test(flavor = "multi_thread")]
async fn every_granted_right_is_used_by_some_test() {
    suite::ended().await;
    let world = World::prepare(Default::default()).await;
    let mut granted = BTreeSet::new();
    for role in ["clusterrole/keyferry", "clusterrole/keyferry-secrets", "role/keyferry"] {
        let role: Value = serde_json::from_str(&world.plane.kubectl(&["get", role, "-n", "keyferry-system", "-o", "json"], "")).unwrap();
        granted.extend(oracle::granted(&role["rules"]));
    }
    assert!(granted.len() > 10, "{granted:?}");
    let used = oracle::USED.lock().unwrap().clone();
    let unused = oracle::unused(&granted, &used);
    assert!(unused.is_empty(), "{}", unused.join("\n"));
    world.finish().await;
}
