//! The API server as a source: what changes is told by a watch, and a value is read only then.

use k8s_openapi::api::core::v1::Secret;
use kube::api::DeleteParams;
use serde_json::json;

use super::{Row, Server, UNAVAILABLE, are_kept, each_fault_passes, external, fresh, impatient, row, says, targets, told};
use crate::contract::kubernetes::token;
use crate::harness::{Canary, World};
use crate::proxy::{Answer, Fault, Matcher, Nth, Options, Proxy};

const READER: &str = r#"
apiVersion: v1
kind: ServiceAccount
metadata: {name: reader}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: reader}
rules: [{apiGroups: [""], resources: [secrets, configmaps], verbs: [get, list, watch]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: reader}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: reader}
subjects: [{kind: ServiceAccount, name: reader}]"#;

/// The namespace of the test as the remote one, behind a proxy that the operator itself does not use.
struct Source {
    proxy: Proxy,
    namespace: String,
}

impl Source {
    async fn start(world: &World) -> Self {
        world.cluster.apply(READER).await;
        let token = Canary::plain(&token(&world.cluster, "reader").await);
        world.source("reader-token", &token);
        world.cluster.apply(&format!("kind: Secret\nmetadata: {{name: reader-token}}\nstringData: {{token: {}}}", token.text)).await;
        let proxy = Proxy::start(&world.plane.server, &world.plane.ca_pem, Options::kubernetes());
        Self { proxy, namespace: world.namespace().to_owned() }
    }
}

/// The Secret that is read for an object: the object's own name is that of its target.
fn source(key: &str) -> String {
    format!("from-{key}")
}

async fn write(world: &World, key: &str, data: &serde_json::Value) {
    let name = source(key);
    world.source(&name, &Canary::new());
    world.cluster.apply(&format!("kind: Secret\nmetadata: {{name: {name}}}\nstringData: {data}")).await;
}

impl Server for Source {
    fn proxy(&self) -> &Proxy {
        &self.proxy
    }

    fn look(&self, key: &str) -> Matcher {
        Matcher::any().verb("get").resource("secrets").name(&source(key))
    }

    async fn put(&self, world: &World, key: &str, value: &Canary) {
        write(world, key, &json!({ "v": value.text })).await;
    }

    async fn store(&self, world: &World, name: &str) -> String {
        use base64::Engine as _;
        let (namespace, name) = (&self.namespace, format!("{}-{name}", self.namespace));
        let ca = base64::engine::general_purpose::STANDARD.encode(self.proxy.ca_pem());
        let server = format!("server: {{url: {}, caBundle: {ca}}}", self.proxy.url());
        let auth = format!("auth: {{token: {{bearerToken: {{name: reader-token, key: token, namespace: {namespace}}}}}}}");
        let provider = format!("provider: {{kubernetes: {{{server}, remoteNamespace: {namespace}, {auth}}}}}");
        let conditions = format!("conditions: [{{namespaces: [{namespace}]}}]");
        world.cluster.apply(&format!("kind: ClusterSecretStore\nmetadata: {{name: {name}}}\nspec:\n  {provider}\n  {conditions}")).await;
        world.sweep_later(&name);
        name
    }

    fn object(&self, name: &str, store: &str) -> String {
        let entry = format!("  data: [{{secretKey: v, remoteRef: {{key: {}, property: v}}}}]", source(name));
        external(name, store, &format!("  refreshInterval: 2s\n{entry}"))
    }

    fn words(&self, value: &str) -> Vec<Row> {
        let status = |code: u16, reason: &str| Answer::kubernetes(code, reason, &format!("it said {value}"));
        let other = json!({
            "kind": "Secret", "apiVersion": "v1", "data": { "v": "b3RoZXI=" },
            "metadata": { "name": "other", "namespace": self.namespace, "resourceVersion": "1" },
        });
        vec![
            row("no-route", UNAVAILABLE, Fault::answer(Answer::new(404, "text/plain", "404 page not found\n"))),
            row("not-found-of-nothing", UNAVAILABLE, Fault::answer(status(404, "NotFound"))),
            row("another-object", UNAVAILABLE, says(200, &other)),
            row("failing", UNAVAILABLE, Fault::answer(status(500, "InternalError"))),
            row("timeout", UNAVAILABLE, Fault::answer(status(504, "Timeout"))),
            row("gone", UNAVAILABLE, Fault::gone()),
            row("unauthenticated", "AccessDenied", Fault::answer(status(401, "Unauthorized"))),
            row("denied", "AccessDenied", Fault::answer(status(403, "Forbidden"))),
            row("throttled", "Throttled", Fault::answer(status(429, "TooManyRequests"))),
            row("throttled-until", "Throttled", Fault::answer(status(429, "TooManyRequests").header("retry-after", "1"))),
        ]
    }
}

/// What the server itself says of a Secret that gave a value: (name, what it holds from then on, the reason).
const STATES: &[(&str, Option<&str>, &str)] = &[
    ("removed", None, "NotFound"),
    ("without-property", Some(r#"{"other": "x"}"#), "InvalidData"),
    ("empty-map", Some("{}"), "InvalidData"),
];

#[tokio::test(flavor = "multi_thread")]
async fn each_fault_and_each_state_of_a_source_in_kubernetes_keeps_the_target_says_its_reason_and_passes() {
    let world = World::start_with(impatient()).await;
    let server = Source::start(&world).await;
    each_fault_passes(&world, &server).await;
    each_state_passes(&world, &server).await;
    a_server_that_lags_changes_nothing_until_it_has_caught_up(&world, &server).await;
    world.finish().await;
}

async fn each_state_passes(world: &World, server: &Source) {
    let store = server.store(world, "states").await;
    // Beside the key at fault each reads one that is well: all or nothing.
    write(world, "well", &json!({ "v": "1" })).await;
    for (name, _, _) in STATES {
        write(world, name, &json!({ "v": world.canary().text, "w": "small" })).await;
        let of = |key: &str, from: &str, property: &str| {
            format!("    - {{secretKey: {key}, remoteRef: {{key: {}, property: {property}}}}}\n", source(from))
        };
        let entries = format!("{}{}{}", of("v", name, "v"), of("w", name, "w"), of("well", "well", "v"));
        world.cluster.apply(&external(name, &store, &format!("  refreshInterval: 2s\n  data:\n{entries}"))).await;
    }
    let targets = targets(world, &STATES.iter().map(|(name, _, _)| *name).collect::<Vec<_>>()).await;
    for (name, state, _) in STATES {
        world.cluster.delete::<Secret>(&source(name), &DeleteParams::default()).await;
        if let Some(data) = state {
            write(world, name, &serde_json::from_str(data).expect("JSON")).await;
        }
    }
    write(world, "well", &json!({ "v": "2" })).await;
    for (name, _, reason) in STATES {
        told(world, name, reason).await;
    }
    world.a_while().await;
    are_kept(world, &targets).await;
    for (name, _, _) in STATES {
        let value = world.canary();
        write(world, name, &json!({ "v": value.text, "w": "small" })).await;
        world.cluster.holds(name, &[("v", value.bytes()), ("w", b"small"), ("well", b"2")]).await;
        fresh(world, name).await;
    }
}

/// A server that answers out of an old cache, while the watch tells of what is new.
async fn a_server_that_lags_changes_nothing_until_it_has_caught_up(world: &World, server: &Source) {
    let store = server.store(world, "lagging").await;
    let (old, new) = (world.canary(), world.canary());
    server.put(world, "lagging", &old).await;
    let lag = server.proxy.on(server.look("lagging"), Nth::every(), Fault::replay());
    world.cluster.apply(&server.object("lagging", &store)).await;
    let before = targets(world, &["lagging"]).await;
    let looks = lag.times_fired();
    server.put(world, "lagging", &new).await;
    server.proxy.await_calls(|_| lag.times_fired() > looks).await;
    world.a_while().await;
    are_kept(world, &before).await;
    lag.withdraw();
    world.cluster.holds("lagging", &[("v", new.bytes())]).await;
    fresh(world, "lagging").await;
}
