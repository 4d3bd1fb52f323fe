//! An ExternalSecret becomes a Secret, and what that costs.

use std::collections::BTreeMap;

use kube::ResourceExt;

use keyferry::crd::v1alpha1::MANAGED_LABEL;

use crate::harness::{World, cluster::data_of};

#[tokio::test(flavor = "multi_thread")]
async fn a_new_object_costs_one_apply_and_one_status() {
    let world = World::start().await;
    let store = world.file_store().await;
    let (password, binary) = (world.canary(), [0, 159, 146, 150, b'\n', 255]);
    store.set("db/password", password.bytes());
    store.set("db/binary", binary);
    store.set("db/settings", r#"{"port": 12345678901234567890, "ratio": 1.10}"#);
    world.operator.synced().await;
    world.a_while().await;
    let mark = world.audit.mark();

    let manifest = format!(
        "
kind: ExternalSecret
metadata: {{name: db}}
spec:
  secretStoreRef: {{kind: ClusterSecretStore, name: {}}}
  data:
    - {{secretKey: password, remoteRef: {{key: db/password}}}}
    - {{secretKey: binary, remoteRef: {{key: db/binary}}}}
    - {{secretKey: port, remoteRef: {{key: db/settings, property: port}}}}
    - {{secretKey: ratio, remoteRef: {{key: db/settings, property: ratio}}}}",
        store.name
    );
    world.cluster.apply(&manifest).await;
    let object = world.cluster.ready("db").await;
    world.a_while().await;

    let work = world.work_since(mark);
    let wanted = [("patch secrets", 1), ("patch keyferry.dev/externalsecrets/status", 1)];
    assert_eq!(work, wanted.map(|(what, count)| (what.to_owned(), count)).into(), "one apply, one status, nothing else");
    let secret = world.cluster.get::<k8s_openapi::api::core::v1::Secret>("db").await.unwrap();
    let data: BTreeMap<String, Vec<u8>> =
        [("password", password.bytes()), ("binary", &binary), ("port", b"12345678901234567890"), ("ratio", b"1.10")]
            .map(|(key, value)| (key.to_owned(), value.to_vec()))
            .into();
    assert_eq!(data_of(&secret), data);
    assert_eq!(secret.labels().get(MANAGED_LABEL).map(String::as_str), Some("true"));
    let [owner] = secret.owner_references() else { panic!("one owner: {:?}", secret.owner_references()) };
    assert_eq!((owner.kind.as_str(), owner.name.as_str(), Some(&owner.uid)), ("ExternalSecret", "db", object.uid().as_ref()));
    assert_eq!(owner.block_owner_deletion, None);
    assert!(secret.annotations().keys().any(|name| name.starts_with("keyferry.dev/digest-")), "{:?}", secret.annotations());
    let target = object.status.unwrap().target.unwrap();
    assert_eq!((target.name.as_str(), target.uid), ("db", secret.uid()));
    world.finish().await;
}
