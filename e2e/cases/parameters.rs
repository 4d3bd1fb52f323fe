//! An ExternalParameter becomes a ConfigMap, under all that is promised of an ExternalSecret.

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::ResourceExt;

use keyferry::crd::v1alpha1::{ExternalParameter, MANAGED_LABEL};

use crate::harness::audit::{OPERATOR, Request};
use crate::harness::plane::Plane;
use crate::harness::{Settings, World};

/// The setting that says what is served.
const KINDS: &str = "KEYFERRY_KINDS";
use crate::harness::cluster::message_of;

#[tokio::test(flavor = "multi_thread")]
async fn a_parameter_costs_one_apply_and_one_status_and_keeps_its_bytes() {
    let world = World::start().await;
    let store = world.file_store().await;
    let binary = [0, 159, 146, 150, b'\n', 255];
    store.set("app/host", "db.example.com");
    store.set("app/binary", binary);
    store.set("app/settings", r#"{"port": 12345678901234567890, "ratio": 1.10}"#);
    world.operator.synced().await;
    world.a_while().await;
    let mark = world.audit.mark();

    let manifest = format!(
        "
kind: ExternalParameter
metadata: {{name: app}}
spec:
  secretStoreRef: {{kind: ClusterSecretStore, name: {}}}
  data:
    - {{key: host, remoteRef: {{key: app/host}}}}
    - {{key: binary, remoteRef: {{key: app/binary}}}}
  dataFrom:
    - extract: {{key: app/settings}}",
        store.name
    );
    world.cluster.apply(&manifest).await;
    let object: ExternalParameter = world.cluster.ready_as("app").await;
    world.a_while().await;

    let work = world.work_since(mark);
    let wanted = [("patch configmaps", 1), ("patch keyferry.dev/externalparameters/status", 1)];
    assert_eq!(work, wanted.map(|(what, count)| (what.to_owned(), count)).into(), "one apply, one status, nothing else");
    let data: [(&str, &[u8]); 4] =
        [("host", b"db.example.com"), ("binary", &binary), ("port", b"12345678901234567890"), ("ratio", b"1.10")];
    let map: ConfigMap = world.cluster.configures("app", &data).await;
    let in_text: Vec<_> = map.data.iter().flatten().map(|(key, _)| key.as_str()).collect();
    assert_eq!(in_text, ["host", "port", "ratio"], "only what is no text stands in binaryData");
    assert_eq!(map.labels().get(MANAGED_LABEL).map(String::as_str), Some("true"));
    let [owner] = map.owner_references() else { panic!("one owner: {:?}", map.owner_references()) };
    assert_eq!((owner.kind.as_str(), owner.name.as_str(), Some(&owner.uid)), ("ExternalParameter", "app", object.uid().as_ref()));
    let target = object.status.unwrap().target.unwrap();
    assert_eq!((target.name.as_str(), target.uid), ("app", map.uid()));

    // A changed value, an edit by somebody, a deletion by somebody: as for a Secret.
    store.set("app/host", "db2.example.com");
    world.cluster.merge::<ExternalParameter>("app", &serde_json::json!({"metadata": {"annotations": {"keyferry.dev/refresh": "1"}}})).await;
    let changed: [(&str, &[u8]); 4] =
        [("host", b"db2.example.com"), ("binary", &binary), ("port", b"12345678901234567890"), ("ratio", b"1.10")];
    world.cluster.configures("app", &changed).await;
    world.cluster.merge::<ConfigMap>("app", &serde_json::json!({"data": {"host": "evil"}, "binaryData": {"binary": null}})).await;
    world.cluster.configures("app", &changed).await;
    world.cluster.delete::<ConfigMap>("app", &kube::api::DeleteParams::default()).await;
    let again = world.cluster.configures("app", &changed).await;
    assert_ne!(again.uid(), map.uid());
    world
        .cluster
        .served::<ExternalParameter>("app", "to name the new target", |object| {
            object.status.as_ref().and_then(|status| status.target.as_ref()).is_some_and(|target| target.uid == again.uid())
        })
        .await;

    // A new name: first the new one, then the old one goes. Somebody else's is untouched.
    world.may_vanish("app");
    let renamed = |name: &str| serde_json::json!({"spec": {"target": {"name": name}}});
    world.cluster.merge::<ExternalParameter>("app", &renamed("fresh")).await;
    world.cluster.configures("fresh", &changed).await;
    world.cluster.until::<ConfigMap>("app", "to be gone", |map| map.is_none()).await;
    world.cluster.apply("kind: ConfigMap\nmetadata: {name: foreign}\ndata: {theirs: x}").await;
    world.cluster.merge::<ExternalParameter>("app", &renamed("foreign")).await;
    let message = world.cluster.not_ready_as::<ExternalParameter>("app", "NotOwned").await;
    assert!(message.contains("ConfigMap foreign exists"), "{message}");
    world.cluster.configures("foreign", &[("theirs", b"x")]).await;
    world.cluster.configures("fresh", &changed).await;

    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_has_hierarchy_and_types_and_no_value_that_its_store_calls_a_secret() {
    let world = World::start().await;
    let store = world.file_store().await;
    let password = world.withheld();
    store.set("app/db/host", "db.example.com");
    store.set("app/db/port", "5432");
    store.set("settings", r#"{"ratio": 1.10, "big": 12345678901234567890, "log": {"to": ["a", "b"], "level": "no"}}"#);
    let target = |format: &str| serde_json::json!({"format": format, "separator": "/", "trimPrefix": "app/", "fileName": "app.conf"});
    let spec = serde_json::json!({
        "secretStoreRef": {"kind": "ClusterSecretStore", "name": store.name},
        "refreshInterval": "1s",
        "target": target("Json"),
        "data": [{"key": "db/port", "type": "Json", "remoteRef": {"key": "app/db/port"}}],
        "dataFrom": [{"extract": {"key": "settings"}}, {"find": {"path": "app"}}],
    });
    world.cluster.apply(&serde_json::json!({"kind": "ExternalParameter", "metadata": {"name": "app"}, "spec": spec}).to_string()).await;
    let json = b"{
  \"big\": 12345678901234567890,
  \"db\": {
    \"host\": \"db.example.com\",
    \"port\": 5432
  },
  \"log\": {\"level\": \"no\", \"to\": [\"a\", \"b\"]},
  \"ratio\": 1.10
}
";
    world.cluster.configures("app", &[("app.conf", json)]).await;
    world.cluster.merge::<ExternalParameter>("app", &serde_json::json!({"spec": {"target": target("Yaml")}})).await;
    let yaml = b"\"big\": 12345678901234567890
\"db\":
  \"host\": \"db.example.com\"
  \"port\": 5432
\"log\": {\"level\": \"no\", \"to\": [\"a\", \"b\"]}
\"ratio\": 1.10
";
    let map = world.cluster.configures("app", &[("app.conf", yaml)]).await;

    // The same values in another spelling are no change; a name below a value is one that cannot be.
    let mark = world.audit.mark();
    store.set("settings", r#"{"log":{"level":"no","to":["a","b"]},"big":12345678901234567890,"ratio":1.10}"#);
    store.set("app/db", "x");
    let message = world.cluster.not_ready_as::<ExternalParameter>("app", "KeyCollision").await;
    assert!(message.contains("\"db\"") && message.contains("\"db/"), "{message}");
    store.delete("app/db");
    store.edit("app/db/host", &["--type", "database-password"]);
    let message = world.cluster.not_ready_as::<ExternalParameter>("app", "SensitiveValue").await;
    assert!(message.contains("\"app/db/host\"") && message.contains("ExternalSecret"), "{message}");
    store.set("app/password", password.bytes());
    store.edit("app/password", &["--type", "database-password"]);
    store.edit("app/db/host", &["--type", "opaque"]);
    world
        .cluster
        .served::<ExternalParameter>("app", "to name the password", |object| message_of(object, "Ready").contains("\"app/password\""))
        .await;
    let kept = world.cluster.configures("app", &[("app.conf", yaml)]).await;
    assert_eq!(kept.uid(), map.uid());
    assert_eq!(world.work_since(mark).get("delete configmaps"), None);
    store.delete("app/password");
    world.cluster.ready_as::<ExternalParameter>("app").await;
    world.cluster.configures("app", &[("app.conf", yaml)]).await;

    // An ExternalSecret of the same name has a Secret of that name, and neither knows of the other.
    let before = world.cluster.get::<ConfigMap>("app").await.unwrap().resource_version();
    let twin = serde_json::json!({"kind": "ExternalSecret", "metadata": {"name": "app"}, "spec": {
        "secretStoreRef": {"kind": "ClusterSecretStore", "name": store.name}, "data": [{"secretKey": "port", "remoteRef": {"key": "app/db/port"}}]}});
    world.cluster.apply(&twin.to_string()).await;
    world.cluster.ready("app").await;
    world.cluster.merge::<Secret>("app", &serde_json::json!({"data": {"port": "ZXZpbA=="}})).await;
    world.cluster.holds("app", &[("port", b"5432")]).await;
    world.cluster.ready_as::<ExternalParameter>("app").await;
    assert_eq!(world.cluster.get::<ConfigMap>("app").await.unwrap().resource_version(), before);

    // An admin's own word for it.
    store.edit("app/db/host", &["--type", "database-password"]);
    world.cluster.not_ready_as::<ExternalParameter>("app", "SensitiveValue").await;
    world.cluster.merge::<ExternalParameter>("app", &serde_json::json!({"spec": {"sensitivity": "Allow"}})).await;
    world.cluster.ready_as::<ExternalParameter>("app").await;

    // What a store names is read by name only; it is not there, and the message says so.
    let vault = "kind: SecretStore
metadata: {name: vault}
spec:
  provider:
    vault:
      server: https://vault.example.com
      caProvider: {type: ConfigMap, name: authority, key: ca.crt}
      auth: {tokenSecretRef: {name: token}}";
    world.cluster.apply(vault).await;
    let waiting = "kind: ExternalParameter\nmetadata: {name: waiting}\nspec:\n  secretStoreRef: {name: vault}\n  data: [{key: a, remoteRef: {key: a}}]";
    world.cluster.apply(waiting).await;
    let message = world.cluster.not_ready_as::<ExternalParameter>("waiting", "StoreNotReady").await;
    assert!(message.contains("does not exist"), "{message}");
    world.finish().await;
}

/// The rights of `config/parameters-only` and no others; those of `config/default` again when dropped.
struct WithoutSecrets<'a>(&'a Plane);

impl<'a> WithoutSecrets<'a> {
    fn install(plane: &'a Plane) -> Self {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("config/parameters-only");
        let all = plane.kubectl(&["kustomize", &folder.to_string_lossy()], "");
        assert!(
            all.contains(&format!("- name: {KINDS}\n          value: ExternalParameter\n")),
            "the Deployment says what it serves: {all}"
        );
        let is_a_right = |document: &&str| document.lines().any(|line| line.starts_with("kind: ") && line.contains("Role"));
        let rights: Vec<&str> = all.split("\n---\n").filter(is_a_right).collect();
        assert!(!rights.iter().any(|document| document.contains("- secrets\n")), "{rights:?}");
        let installed = Self(plane);
        let roles = ["delete", "clusterrole,clusterrolebinding", "keyferry", "keyferry-secrets"];
        plane.kubectl(&roles, "");
        plane.kubectl(&["apply", "--server-side", "--validate=strict", "-f", "-"], &rights.join("\n---\n"));
        let may = ["auth", "can-i", "--list", "--as", OPERATOR];
        assert!(!plane.kubectl(&may, "").contains("secrets "), "{}", plane.kubectl(&may, ""));
        installed
    }
}

impl Drop for WithoutSecrets<'_> {
    fn drop(&mut self) {
        self.0.install();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_parameters_alone_no_secret_is_asked_for_and_no_right_to_one_is_held() {
    let world = World::prepare(Settings::default().variable(KINDS, "ExternalParameter")).await;
    let installed = WithoutSecrets::install(&world.plane);
    let digest_key = ["secret", "keyferry-digest-key", "-n", "keyferry-system", "--ignore-not-found"];
    world.plane.kubectl(&[&["delete"], &digest_key[..]].concat(), "");
    world.operator.start();
    let store = world.file_store().await;
    store.set("app/host", "db.example.com");
    let manifest = |name: &str, store: &str, target: &str| {
        format!(
            "kind: ExternalParameter\nmetadata: {{name: {name}}}\nspec:\n  refreshInterval: 1s\n  secretStoreRef: {store}\n  target: {target}\n  \
             data: [{{key: host, remoteRef: {{key: app/host}}}}]"
        )
    };
    let shared = format!("{{kind: ClusterSecretStore, name: {}}}", store.name);
    world.cluster.apply(&manifest("app", &shared, "{}")).await;
    world.cluster.apply(&manifest("document", &shared, "{format: Yaml}")).await;
    world.cluster.configures("app", &[("host", b"db.example.com")]).await;
    world.cluster.configures("document", &[("config.yaml", b"\"host\": \"db.example.com\"\n")]).await;
    let vault = "kind: SecretStore\nmetadata: {name: vault}\nspec: {provider: {vault: {server: 'https://vault.example.com', auth: {tokenSecretRef: {name: token}}}}}";
    world.cluster.apply(vault).await;
    world.cluster.apply(&manifest("refused", "{name: vault}", "{}")).await;
    let message = world.cluster.not_ready_as::<ExternalParameter>("refused", "NotAllowed").await;
    assert!(message.contains("serves parameters alone"), "{message}");
    // Nobody serves the other kind.
    world.cluster.apply(&format!("kind: ExternalSecret\nmetadata: {{name: unserved}}\nspec:\n  secretStoreRef: {shared}\n  data: [{{secretKey: host, remoteRef: {{key: app/host}}}}]")).await;
    world.outruns_status("unserved");

    // Edits are repaired, and a start finds all of it as it was.
    world.cluster.merge::<ConfigMap>("app", &serde_json::json!({"data": {"host": "evil"}})).await;
    world.cluster.configures("app", &[("host", b"db.example.com")]).await;
    world.cluster.ready_as::<ExternalParameter>("app").await;
    world.cluster.ready_as::<ExternalParameter>("document").await;
    world.a_while().await;
    world.operator.kill();
    let mark = world.audit.mark();
    world.operator.start();
    world.operator.synced().await;
    world.a_while().await;
    let wrote: Vec<String> = world.work_since(mark).into_keys().filter(|work| !work.starts_with("list")).collect();
    assert!(wrote.is_empty(), "a restart writes nothing: {wrote:?}");
    store.set("app/host", "db2.example.com");
    world.cluster.configures("app", &[("host", b"db2.example.com")]).await;
    world.cluster.configures("document", &[("config.yaml", b"\"host\": \"db2.example.com\"\n")]).await;

    let requests = world.audit.of_operator(world.began);
    assert!(requests.iter().any(|request| request.resource == "configmaps"), "the log shows what is asked");
    let of_secrets = |request: &&Request| matches!(request.resource.as_str(), "secrets" | "externalsecrets" | "externalsecrets/status");
    let touched: Vec<String> = requests.iter().filter(of_secrets).map(ToString::to_string).collect();
    assert!(touched.is_empty(), "{touched:?}");
    assert_eq!(world.plane.kubectl(&[&["get"], &digest_key[..]].concat(), ""), "");
    drop(installed);
    world.finish().await;
}
