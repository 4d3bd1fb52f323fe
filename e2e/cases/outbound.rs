//! How the operator leaves the machine: forward proxies are the admin's, and for backends only.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::external;
use crate::harness::canary::random_hex;
use crate::harness::{Canary, Settings, World};
use crate::proxy::{Tunnel, Tunnels};

#[tokio::test(flavor = "multi_thread")]
async fn backends_are_reached_through_the_admins_proxy_and_the_api_server_is_not() {
    let (tunnels, password) = (Tunnels::start().await, random_hex());
    let proxy = format!("http://keyferry:{password}@{}", tunnels.address());
    let world = World::start_with(Settings::default().variable("HTTPS_PROXY", &proxy)).await;
    world.withhold(Canary::plain(&password));
    let store = world.vault().await;
    let value = world.canary();
    store.kv().put("db", &json!({ "v": value.text })).await;
    world.cluster.apply(&external("db", &store.name, "  data: [{secretKey: v, remoteRef: {key: db, property: v}}]")).await;
    world.cluster.ready("db").await;
    world.cluster.holds("db", &[("v", value.bytes())]).await;

    let opened = tunnels.opened();
    let wanted = Tunnel {
        asked: format!("CONNECT {}", store.proxy.url().trim_start_matches("https://")),
        authorization: Some(format!("Basic {}", STANDARD.encode(format!("keyferry:{password}")))),
    };
    assert!(!opened.is_empty() && opened.iter().all(|tunnel| *tunnel == wanted), "{opened:?}");
    assert_eq!(store.proxy.seen().connections_opened, opened.len() as u64, "no connection went another way");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_admin_excepts_is_reached_directly() {
    let tunnels = Tunnels::start().await;
    let settings = Settings::default().variable("https_proxy", tunnels.address()).variable("no_proxy", "example.com,127.0.0.0/8");
    let world = World::start_with(settings).await;
    let store = world.vault().await;
    let value = world.canary();
    store.kv().put("db", &json!({ "v": value.text })).await;
    world.cluster.apply(&external("db", &store.name, "  data: [{secretKey: v, remoteRef: {key: db, property: v}}]")).await;
    world.cluster.holds("db", &[("v", value.bytes())]).await;
    world.cluster.ready("db").await;
    assert_eq!(tunnels.opened(), []);
    world.finish().await;
}
