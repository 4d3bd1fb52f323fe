//! An ExternalSecret becomes a Secret, and what that costs.

use std::collections::BTreeMap;

use kube::ResourceExt;

use keyferry::crd::v1alpha1::MANAGED_LABEL;

use super::whole_values;
use crate::harness::{Canary, Settings, World, cluster::data_of};

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

#[tokio::test(flavor = "multi_thread")]
async fn values_of_the_environment_arrive_and_others_of_it_do_not() {
    let (shown, hidden) = (Canary::new(), Canary::new());
    let settings =
        Settings::default().variable("APP_DB_PASSWORD", &shown.text).variable("OTHER_TOKEN", &hidden.text).argument("--env-prefix=APP_");
    let world = World::start_with(settings).await;
    world.deliver(shown.clone());
    world.withhold(hidden);
    let name = format!("{}-env", world.namespace());
    let store = |prefix: &str| {
        format!(
            "kind: ClusterSecretStore\nmetadata: {{name: {name}}}\nspec:\n  allowAllNamespaces: true\n  provider: {{env: {{prefix: {prefix}}}}}"
        )
    };
    world.cluster.apply(&store("APP_")).await;
    world.cluster.apply(&whole_values("db", &name, "", &[("password", "db/password")])).await;
    world.cluster.ready("db").await;
    world.cluster.holds("db", &[("password", shown.bytes())]).await;
    world.cluster.apply(&store("OTHER_")).await;
    world.cluster.apply(&whole_values("other", &name, "", &[("token", "token")])).await;
    world.cluster.external("other", "to be not Ready", |object| crate::harness::cluster::condition_is(object, "Ready", "False")).await;
    world.finish().await;
}
