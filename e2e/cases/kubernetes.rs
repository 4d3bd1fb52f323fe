//! Provider `kubernetes`: Secrets and ConfigMaps as sources, watched instead of polled, under a credential of the store's own.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::api::DeleteParams;
use serde_json::json;

use keyferry::crd::v1alpha1::ExternalSecret;

use crate::harness::audit::Mark;
use crate::harness::cluster::{condition_is, message_of, reason_of};
use crate::harness::plane::self_signed;
use crate::harness::{Canary, Settings, World};
use crate::proxy::{Fault, Matcher, Moment, Nth};

/// What the documentation tells people to grant: to the reader, and to the operator that requests the reader's tokens.
const ACCOUNT: &str = r#"
apiVersion: v1
kind: ServiceAccount
metadata: {name: reader, annotations: {keyferry.dev/allow-token: "true"}}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: silent}
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
subjects: [{kind: ServiceAccount, name: reader}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: tokens}
rules:
  - {apiGroups: [""], resources: [serviceaccounts], resourceNames: [reader, silent], verbs: [get]}
  - {apiGroups: [""], resources: [serviceaccounts/token], resourceNames: [reader, silent], verbs: [create]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: tokens}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: tokens}
subjects: [{kind: ServiceAccount, name: keyferry, namespace: keyferry-system}]"#;

/// How many values rest beside those that change.
const RESTING: usize = 100;

fn object(name: &str, store: &str, more: &str) -> String {
    format!("kind: ExternalSecret\nmetadata: {{name: {name}}}\nspec:\n  secretStoreRef: {{name: {store}}}\n{more}")
}

fn store(world: &World, name: &str, account: &str) -> String {
    let namespace = world.namespace();
    format!(
        "kind: SecretStore\nmetadata: {{name: {name}}}\nspec:\n  provider:\n    kubernetes:\n      remoteNamespace: {namespace}\n      auth: {{serviceAccount: {account}}}"
    )
}

/// Puts a value into a Secret that is a source; its label is its name.
async fn put(world: &World, name: &str, value: &Canary) {
    world.source(name, &Canary::new());
    let data = json!({ "value": value.text }).to_string();
    world.cluster.apply(&format!("kind: Secret\nmetadata: {{name: {name}, labels: {{kind: {name}}}}}\nstringData: {data}")).await;
}

/// Reads of values of Secrets and ConfigMaps by the store's account.
fn reads(world: &World, since: Mark) -> Vec<String> {
    let reader = format!("system:serviceaccount:{}:reader", world.namespace());
    let requests = world.audit.since(since);
    let reads = requests.iter().filter(|request| request.user == reader && request.verb == "get" && request.name != *world.namespace());
    reads.map(ToString::to_string).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_and_configmaps_arrive_when_they_change_and_cost_nothing_while_they_rest() {
    let settings = Settings::default().timing("misses", "1s").timing("absent", "500ms");
    // A list that is held back must not be over before it is let go, however slow the machine is.
    let world = World::start_with(settings.argument("--call-timeout=2m")).await;
    let secrets = Matcher::any().resource("secrets").namespace(world.namespace());
    let first_list = world.proxy.on(secrets.clone().verb("list"), Nth::only(1), Fault::hold(Moment::BeforeCommit));
    world.cluster.apply(ACCOUNT).await;
    world.cluster.apply(&store(&world, "here", "{name: reader}")).await;
    let (first, second) = (world.canary(), world.canary());
    put(&world, "source", &first).await;
    world.cluster.apply("kind: ConfigMap\nmetadata: {name: conf}\ndata: {level: low}\nbinaryData: {bytes: AP8=}").await;
    for number in 0..RESTING {
        world.cluster.apply(&format!("kind: Secret\nmetadata: {{name: rest-{number}}}\nstringData: {{value: at rest}}")).await;
    }
    let entries: String = (0..RESTING)
        .map(|number| format!("    - {{secretKey: k{number}, remoteRef: {{key: rest-{number}, property: value}}}}\n"))
        .collect();
    world.cluster.apply(&object("many", "here", &format!("  refreshInterval: 1s\n  data:\n{entries}"))).await;
    let one = "  data: [{secretKey: password, remoteRef: {key: source, property: value}}]";
    world.cluster.apply(&object("one", "here", one)).await;
    world.cluster.apply(&object("settings", "here", "  dataFrom: [{extract: {key: configmap/conf}}]")).await;
    world.cluster.apply(&object("found", "here", "  dataFrom: [{find: {tags: {kind: source}}}]")).await;
    for name in ["many", "one", "settings", "found"] {
        world.cluster.ready(name).await;
    }
    world.cluster.holds("one", &[("password", first.bytes())]).await;
    world.cluster.holds("settings", &[("level", b"low"), ("bytes", b"\x00\xff")]).await;

    // Many intervals of a second: every slot is answered by the watch, and waits for it while it is about to begin.
    world.a_while().await;
    first_list.release();
    world.a_while().await;
    for number in 0..RESTING {
        let reads = secrets.clone().verb("get").name(&format!("rest-{number}"));
        assert_eq!(world.proxy.count(&reads), 1, "{reads}");
    }
    let mark = world.audit.mark();
    world.a_while().await;
    assert_eq!(reads(&world, mark), [""; 0], "nothing changed, and values were read");

    // A change is read once, for each who uses it: the value itself, and as part of the search.
    let mark = world.audit.mark();
    put(&world, "source", &second).await;
    world.cluster.holds("one", &[("password", second.bytes())]).await;
    world.cluster.merge::<ConfigMap>("conf", &json!({ "data": { "level": "high" } })).await;
    world.cluster.holds("settings", &[("level", b"high"), ("bytes", b"\x00\xff")]).await;
    let reads_of = |name: &str| reads(&world, mark).iter().filter(|read| read.contains(&format!("/{name} "))).count();
    assert!((1..=2).contains(&reads_of("source")) && reads_of("conf") == 1, "{:?}", reads(&world, mark));
    assert_eq!(reads_of("rest-0"), 0);

    credentials_in_secrets(&world, &second).await;
    client_certificates(&world, &second).await;
    deletions(&world, &second).await;
    denials(&world).await;
    world.finish().await;
}

/// A token and a kubeconfig, each out of a Secret, over TLS that is checked against the authority that the store names. Labels and
/// annotations arrive the same way.
async fn credentials_in_secrets(world: &World, value: &Canary) {
    let namespace = world.namespace();
    let token = world.plane.kubectl(&["create", "token", "reader", "-n", namespace], "").trim().to_owned();
    let authority = STANDARD.encode(&world.plane.ca_pem);
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "there",
        "clusters": [{"name": "there", "cluster": {"server": world.plane.server, "certificate-authority-data": authority}}],
        "users": [{"name": "reader", "user": {"token": token}}],
        "contexts": [{"name": "there", "context": {"cluster": "there", "user": "reader"}}],
    });
    world.source("login", &Canary::plain(&token));
    let login =
        json!({"kind": "Secret", "metadata": {"name": "login"}, "stringData": {"token": token, "kubeconfig": kubeconfig.to_string()}});
    world.cluster.apply(&login.to_string()).await;
    let secret = json!({"name": "login", "namespace": namespace});
    let server = json!({"url": world.plane.server, "caBundle": authority});
    for (way, provider) in [
        ("token", json!({"remoteNamespace": namespace, "server": server, "auth": {"token": {"bearerToken": secret}}})),
        ("kubeconfig", json!({"remoteNamespace": namespace, "authRef": secret})),
    ] {
        let name = format!("{namespace}-{way}");
        let spec = json!({"provider": {"kubernetes": provider}, "conditions": [{"namespaces": [namespace]}]});
        world.cluster.apply(&json!({"kind": "ClusterSecretStore", "metadata": {"name": name}, "spec": spec}).to_string()).await;
        world.sweep_later(&name);
        let data = json!([
            {"secretKey": "password", "remoteRef": {"key": "source", "property": "value"}},
            {"secretKey": "kind", "remoteRef": {"key": "source", "metadataPolicy": "Fetch", "property": "labels.kind"}},
        ]);
        let beside = json!([{"find": {"name": {"regexp": "^source$"}, "metadataPolicy": "Fetch"}}]);
        let spec = json!({"secretStoreRef": {"name": name, "kind": "ClusterSecretStore"}, "data": data, "dataFrom": beside});
        world.cluster.apply(&json!({"kind": "ExternalSecret", "metadata": {"name": way}, "spec": spec}).to_string()).await;
        world.cluster.ready(way).await;
        let told = &br#"{"annotations":{},"labels":{"kind":"source"}}"#[..];
        world.cluster.holds(way, &[("password", value.bytes()), ("kind", b"source"), ("source", told)]).await;
        world.may_vanish(way);
        world.cluster.delete::<ExternalSecret>(way, &DeleteParams::default()).await;
    }
}

/// A client certificate out of a Secret, past the proxy, which ends TLS: the API server knows the user by it, and their rights decide.
async fn client_certificates(world: &World, value: &Canary) {
    let namespace = world.namespace();
    let name = format!("{namespace}-cert");
    let good = world.plane.client_certificate(&name);
    world.source("client", &Canary::plain(good.1.lines().nth(1).expect("a line of a key")));
    let apply_client = async |(certificate, key): &(String, String)| {
        let data = json!({"tls.crt": certificate, "tls.key": key});
        let secret = json!({"kind": "Secret", "metadata": {"name": "client"}, "type": "kubernetes.io/tls", "stringData": data});
        world.cluster.apply(&secret.to_string()).await;
    };
    apply_client(&good).await;
    let binding = format!(
        "apiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\nmetadata: {{name: certified}}\n\
         roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: Role, name: reader}}\n\
         subjects: [{{apiGroup: rbac.authorization.k8s.io, kind: User, name: {name}}}]"
    );
    world.cluster.apply(&binding).await;
    let server = json!({"url": world.plane.server, "caBundle": STANDARD.encode(&world.plane.ca_pem)});
    let client = |key: &str| json!({"name": "client", "namespace": namespace, "key": key});
    let cert = json!({"clientCert": client("tls.crt"), "clientKey": client("tls.key")});
    let provider = json!({"remoteNamespace": namespace, "server": server, "auth": {"cert": cert}});
    let spec = json!({"provider": {"kubernetes": provider}, "conditions": [{"namespaces": [namespace]}]});
    world.cluster.apply(&json!({"kind": "ClusterSecretStore", "metadata": {"name": name}, "spec": spec}).to_string()).await;
    world.sweep_later(&name);
    put(world, "certified-source", value).await;
    let mark = world.audit.mark();
    let entry = "  data: [{secretKey: k, remoteRef: {key: certified-source, property: value}}]";
    world.cluster.apply(&object("certified", &format!("{name}, kind: ClusterSecretStore"), entry)).await;
    world.cluster.ready("certified").await;
    world.cluster.holds("certified", &[("k", value.bytes())]).await;
    let users: Vec<_> = world.audit.since(mark).into_iter().filter(|request| request.name == "certified-source").collect();
    assert!(users.iter().any(|request| request.user == name && request.verb == "get"), "{users:?}");

    // It says the right name, and nobody whom the server believes has signed that.
    apply_client(&self_signed(&name)).await;
    let message = world.cluster.store_says(&name, "False", "AccessDenied").await;
    assert!(message.contains("does not know the credential"), "{message}");
    let is_denied = |object: &ExternalSecret| reason_of(object, "Fresh", "False") == Some("AccessDenied");
    world.cluster.external("certified", "to be denied", is_denied).await;
    apply_client(&good).await;
    world.cluster.store_says(&name, "True", "Synced").await;
    let is_fresh = |object: &ExternalSecret| condition_is(object, "Fresh", "True") && condition_is(object, "Ready", "True");
    world.cluster.external("certified", "to be well again", is_fresh).await;

    world.cluster.delete::<RoleBinding>("certified", &DeleteParams::default()).await;
    put(world, "certified-source", &world.withheld()).await;
    let denied = world.cluster.external("certified", "to be denied", is_denied).await;
    let message = message_of(&denied, "Fresh");
    assert!(message.contains("let the credential's Role get it"), "{message}");
    world.cluster.holds("certified", &[("k", value.bytes())]).await;
    world.may_vanish("certified");
    world.cluster.delete::<ExternalSecret>("certified", &DeleteParams::default()).await;
}

/// A source that goes away is noticed at once, keeps the target by default, and takes it along where that is wished for.
async fn deletions(world: &World, value: &Canary) {
    world
        .cluster
        .apply(&object(
            "bound",
            "here",
            "  target: {deletionPolicy: Delete}\n  data: [{secretKey: k, remoteRef: {key: gone, property: value}}]",
        ))
        .await;
    put(world, "gone", value).await;
    world.cluster.ready("bound").await;
    world.cluster.apply(&object("kept", "here", "  data: [{secretKey: k, remoteRef: {key: gone, property: value}}]")).await;
    world.cluster.ready("kept").await;
    for name in ["bound", "kept"] {
        world.may_vanish(name);
    }
    world.cluster.delete::<Secret>("gone", &DeleteParams::default()).await;
    world.cluster.not_ready("kept", "NotFound").await;
    world.cluster.until::<Secret>("bound", "to be gone", |secret| secret.is_none()).await;
    world.cluster.holds("kept", &[("k", value.bytes())]).await;
    for name in ["bound", "kept"] {
        world.cluster.delete::<ExternalSecret>(name, &DeleteParams::default()).await;
    }
}

/// Who may not read is denied and keeps what it has; nobody reads by another's right.
async fn denials(world: &World) {
    world.cluster.apply(&store(world, "unasked", "{name: silent}")).await;
    world.cluster.apply(&store(world, "abroad", "{name: reader, namespace: kube-system}")).await;
    let entry = "  data: [{secretKey: k, remoteRef: {key: source, property: value}}]";
    world.cluster.apply(&object("unasked", "unasked", entry)).await;
    world.cluster.apply(&object("abroad", "abroad", entry)).await;
    let message = world.cluster.not_ready("unasked", "StoreNotReady").await;
    assert!(message.contains("keyferry.dev/allow-token"), "{message}");
    let message = world.cluster.not_ready("abroad", "NotAllowed").await;
    assert!(message.contains("auth.serviceAccount.namespace"), "{message}");
    // Nobody watches accounts: consent is seen when the login is tried again, and then what the account may not do.
    world.operator.kill();
    let consent = "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: silent, annotations: {keyferry.dev/allow-token: \"true\"}}";
    world.cluster.apply(consent).await;
    world.operator.start();
    world.cluster.not_ready("unasked", "AccessDenied").await;
    for name in ["unasked", "abroad"] {
        world.cluster.delete::<ExternalSecret>(name, &DeleteParams::default()).await;
    }

    let held = world.cluster.get::<Secret>("one").await.unwrap();
    world.cluster.delete::<RoleBinding>("reader", &DeleteParams::default()).await;
    let third = world.withheld();
    put(world, "source", &third).await;
    let denied = world.cluster.external("one", "to be denied", |object| reason_of(object, "Fresh", "False") == Some("AccessDenied")).await;
    assert!(condition_is(&denied, "Ready", "True"), "it was Ready, and the value is not too old");
    assert_eq!(world.cluster.get::<Secret>("one").await.unwrap().data, held.data);
    // What did not change is noticed to be refused when the watch is begun anew.
    for name in ["many", "settings", "found"] {
        let is_denied = |object: &ExternalSecret| reason_of(object, "Fresh", "False") == Some("AccessDenied");
        world.cluster.external(name, "to be denied", is_denied).await;
    }
}
