//! An ExternalParameter becomes a ConfigMap, under all that is promised of an ExternalSecret.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt;

use keyferry::crd::v1alpha1::{ExternalParameter, MANAGED_LABEL};

use crate::harness::World;

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
