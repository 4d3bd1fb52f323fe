//! Values that a real server leases: made once for all, renewed, replaced when they end, revoked when nobody needs them.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::core::v1::Secret;
use kube::api::DeleteParams;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use keyferry::crd::v1alpha1::ExternalSecret;

use crate::harness::cluster::data_of;
use crate::harness::{VaultStore, World};
use crate::proxy::Matcher;

const POLICY: &str = r#"
path "rabbitmq/creds/*" { capabilities = ["read"] }
path "sys/leases/renew" { capabilities = ["update"] }
path "sys/leases/revoke" { capabilities = ["update"] }"#;

/// The users that a message broker has, as its management API is told: what the server's engine makes and takes away.
#[derive(Clone, Default)]
struct Broker(Arc<Mutex<BTreeSet<String>>>);

impl Broker {
    /// Starts it; its address.
    async fn start(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port on loopback");
        let address = format!("http://{}", listener.local_addr().expect("a bound port"));
        let broker = self.clone();
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                tokio::spawn(broker.clone().serve(connection));
            }
        });
        address
    }

    async fn serve(self, mut connection: TcpStream) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let Ok(byte) = connection.read_u8().await else { return };
            head.push(byte);
        }
        let head = String::from_utf8_lossy(&head).to_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
        let mut body = vec![0; length.unwrap_or(0)];
        let _ = connection.read_exact(&mut body).await;
        let mut words = head.split(' ');
        let (verb, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        if let Some(user) = path.strip_prefix("/api/users/") {
            let mut users = self.0.lock().unwrap();
            match verb {
                "put" => users.insert(user.to_owned()),
                "delete" => users.remove(user),
                _ => false,
            };
        }
        let _ = connection.write_all(b"HTTP/1.1 204 No Content\r\nconnection: close\r\ncontent-length: 0\r\n\r\n").await;
    }

    fn users(&self) -> BTreeSet<String> {
        self.0.lock().unwrap().clone()
    }
}

async fn put(vault: &VaultStore, path: &str, body: Value) {
    let answer = vault.bao.call(Method::PUT, path, Some(&body)).await;
    assert!((200..300).contains(&answer.status), "{path}: {} {}", answer.status, answer.body);
}

async fn user_of(world: &World, target: &str) -> String {
    let secret = world.cluster.get::<Secret>(target).await.expect("a target");
    String::from_utf8(data_of(&secret)["username"].clone()).expect("text")
}

fn calls(vault: &VaultStore, path: &str) -> usize {
    vault.proxy.count(&Matcher::any().resource_prefix(path))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leased_user_is_made_once_for_all_renewed_replaced_at_its_end_and_revoked_with_its_last_object() {
    let world = World::start().await;
    let (vault, broker) = (world.vault().await, Broker::default());
    put(&vault, "sys/mounts/rabbitmq", json!({"type": "rabbitmq"})).await;
    let connection = json!({"connection_uri": broker.start().await, "username": "a", "password": "b", "verify_connection": false});
    put(&vault, "rabbitmq/config/connection", connection).await;
    put(&vault, "rabbitmq/config/lease", json!({"ttl": "6s", "max_ttl": "12s"})).await;
    put(&vault, "rabbitmq/roles/app", json!({"tags": "none"})).await;
    let token = vault.bao.create_token(POLICY).await;
    vault.write_token(&world, &token).await;
    let name = format!("{}-leases", world.namespace());
    let block = json!({
        "server": vault.proxy.url(), "caBundle": STANDARD.encode(vault.proxy.ca_pem()), "engine": "Logical", "path": "rabbitmq",
        "revokeOnDelete": true, "auth": {"tokenSecretRef": {"name": "bao-token", "namespace": world.namespace()}},
    });
    let spec = json!({"provider": {"vault": block}, "conditions": [{"namespaces": [world.namespace()]}]});
    world.cluster.apply(&json!({"kind": "ClusterSecretStore", "metadata": {"name": name}, "spec": spec}).to_string()).await;
    world.sweep_later(&name);
    for object in ["one", "two"] {
        world.may_vanish(object);
        world.cluster.apply(&super::external(object, &name, "  dataFrom: [{extract: {key: creds/app}}]")).await;
    }
    world.cluster.ready("one").await;
    world.cluster.ready("two").await;
    let first = user_of(&world, "one").await;
    assert_eq!(user_of(&world, "two").await, first);
    assert_eq!(broker.users(), [first.clone()].into());

    let renewals = |calls: &[crate::proxy::Call]| calls.iter().filter(|call| call.operation.resource == "sys/leases/renew").count();
    vault.proxy.await_calls(|calls| renewals(calls) >= 1).await;
    assert_eq!(calls(&vault, "rabbitmq/creds/app"), 1, "a look is no new user");
    // The longest life is near: another user, in both targets at once.
    for object in ["one", "two"] {
        let is_other = |secret: Option<&Secret>| secret.is_some_and(|secret| data_of(secret)["username"] != first.as_bytes());
        world.cluster.until::<Secret>(object, "to hold another user", is_other).await;
    }
    let second = calls(&vault, "rabbitmq/creds/app");
    assert!(renewals(&vault.proxy.calls()) >= 2 && second >= 2, "{second}");

    // Who starts anew knows of no lease: it takes one before the old one ends, for all, and long before a look is due.
    world.operator.kill();
    let (before, reads) = (user_of(&world, "one").await, calls(&vault, "rabbitmq/creds/app"));
    world.operator.start();
    for object in ["one", "two"] {
        let is_other = |secret: Option<&Secret>| secret.is_some_and(|secret| data_of(secret)["username"] != before.as_bytes());
        world.cluster.until::<Secret>(object, "to hold a user of this process", is_other).await;
    }
    assert!(calls(&vault, "rabbitmq/creds/app") > reads);

    world.cluster.delete::<ExternalSecret>("one", &DeleteParams::default()).await;
    world.cluster.until::<ExternalSecret>("one", "to be gone", |object| object.is_none()).await;
    assert_eq!(calls(&vault, "sys/leases/revoke"), 0, "the other object uses it");
    world.cluster.delete::<ExternalSecret>("two", &DeleteParams::default()).await;
    vault.proxy.await_calls(|calls| calls.iter().any(|call| call.operation.resource == "sys/leases/revoke" && call.status.is_some())).await;
    world.a_while().await;
    let last = calls(&vault, "rabbitmq/creds/app");
    world.a_while().await;
    assert_eq!(calls(&vault, "rabbitmq/creds/app"), last, "nobody looks any more");
    world.finish().await;
}
