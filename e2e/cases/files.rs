//! Provider `file` as objects meet it: a value that is withheld, another master key, plain files.

use std::fs;

use keyferry::crd::v1alpha1::ExternalSecret;

use super::{external, whole_values};
use crate::harness::{
    Settings, World,
    canary::Canary,
    cluster::{condition_is, reason_of},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_disabled_value_and_another_master_key_keep_the_target_until_they_are_mended() {
    let world = World::start().await;
    let store = world.file_store().await;
    let value = world.canary();
    store.set("db/password", value.bytes());
    world.cluster.apply(&whole_values("db", &store.name, "  target: {deletionPolicy: Delete}\n", &[("password", "db/password")])).await;
    world.cluster.ready("db").await;

    store.edit("db/password", &["--status", "disabled"]);
    let message = world.cluster.not_ready("db", "Disabled").await;
    assert!(message.contains("db/password") && message.contains("--status active"), "{message}");
    world.cluster.holds("db", &[("password", value.bytes())]).await;
    store.edit("db/password", &["--status", "active"]);
    world.cluster.ready("db").await;

    let new = world.folder().join("new-key");
    store.rekey(&new);
    let is_not_ready =
        |object: &ExternalSecret| reason_of(object, "Fresh", "False") == Some("StoreNotReady") && condition_is(object, "Ready", "True");
    world.cluster.external("db", "to say that the store is not ready", is_not_ready).await;
    world.cluster.store_says(&store.name, "False", "StoreNotReady").await;
    world.cluster.holds("db", &[("password", value.bytes())]).await;
    fs::rename(&new, &store.master_key).expect("the admin replaces the key's file");
    world.cluster.external("db", "to be Fresh again", |object| condition_is(object, "Fresh", "True")).await;
    world.cluster.store_says(&store.name, "True", "Synced").await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_files_arrive_with_exact_numbers_and_a_change_of_one_does_too() {
    let trees = tempfile::tempdir().expect("a folder");
    let folder = trees.path().join("app");
    fs::create_dir(&folder).expect("a folder");
    let arguments = vec![format!("--file-tree-root={}", trees.path().display())];
    let world = World::start_with(Settings { arguments, ..Settings::default() }).await;
    let name = format!("{}-tree", world.namespace());
    let (first, second) = (world.canary(), world.canary());
    let put = |file: &str, text: &str| {
        let draft = trees.path().join("draft");
        fs::write(&draft, text).expect("a draft");
        fs::rename(draft, folder.join(file)).expect("a file");
    };
    put("config.yaml", &format!("server: {{timeout: 1.10, token: {}}}\n", String::from_utf8_lossy(first.bytes())));
    put(".env", "MODE=plain\n");
    let store = format!(
        "kind: ClusterSecretStore\nmetadata: {{name: {name}}}\nspec:\n  provider: {{file: {{format: Tree, path: app}}}}\n  conditions: [{{namespaces: [{}]}}]",
        world.namespace()
    );
    world.cluster.apply(&store).await;
    world.sweep_later(&name);
    let entries = "  data:\n    - {secretKey: timeout, remoteRef: {key: config.yaml, property: server.timeout}}\n    \
                   - {secretKey: token, remoteRef: {key: config.yaml, property: server.token}}\n  dataFrom:\n    - extract: {key: .env}\n";
    world.cluster.apply(&external("tree", &name, entries)).await;
    world.cluster.ready("tree").await;
    world.cluster.holds("tree", &[("timeout", b"1.10"), ("token", first.bytes()), ("MODE", b"plain")]).await;
    put("config.yaml", &format!("server: {{timeout: 2.20, token: {}}}\n", String::from_utf8_lossy(second.bytes())));
    world.cluster.holds("tree", &[("timeout", b"2.20"), ("token", second.bytes()), ("MODE", b"plain")]).await;
    world.finish().await;
}

/// What SOPS and age encrypted, made by the real tools: `src/backend/file/tests/sealed/README.md`.
#[cfg(feature = "age")]
#[tokio::test(flavor = "multi_thread")]
async fn sealed_files_arrive_with_the_stores_identity_and_an_altered_one_keeps_the_target() {
    let trees = tempfile::tempdir().expect("a folder");
    let folder = trees.path().join("app");
    fs::create_dir(&folder).expect("a folder");
    let arguments = vec![format!("--file-tree-root={}", trees.path().display())];
    let world = World::start_with(Settings { arguments, ..Settings::default() }).await;
    let put = |file: &str, bytes: &[u8]| {
        let draft = trees.path().join("draft");
        fs::write(&draft, bytes).expect("a draft");
        fs::rename(draft, folder.join(file)).expect("a file");
    };
    let fixture = |name: &str| fs::read_to_string(format!("src/backend/file/tests/sealed/{name}")).expect("a fixture");
    let key_file = fixture("ours.agekey");
    let identity = key_file.lines().find(|line| line.starts_with("AGE")).expect("an identity");
    let recipient = identity.parse::<age::x25519::Identity>().expect("an identity").to_public();
    let seal = |value: &Canary| age::encrypt(&recipient, value.bytes()).expect("age encrypts");
    let (first, second) = (world.canary(), world.canary());
    put("note.age", &seal(&first));
    put("small.yaml", fixture("sealed.small.yaml").as_bytes());

    let (name, namespace) = (format!("{}-sealed", world.namespace()), world.namespace());
    let decryption = format!("{{ageIdentitySecretRef: {{name: sops-age, namespace: {namespace}}}}}");
    let store = format!(
        "kind: ClusterSecretStore\nmetadata: {{name: {name}}}\nspec:\n  provider: {{file: {{format: Tree, path: app, decryption: {decryption}}}}}\n  conditions: [{{namespaces: [{namespace}]}}]"
    );
    world.cluster.apply(&store).await;
    world.sweep_later(&name);
    let entries = "  target: {deletionPolicy: Delete}\n  data:\n    - {secretKey: note, remoteRef: {key: note.age}}\n    \
                   - {secretKey: third, remoteRef: {key: small.yaml, property: beta.1}}\n    \
                   - {secretKey: gamma, remoteRef: {key: small.yaml, property: gamma}}\n";
    world.cluster.apply(&external("sealed", &name, entries)).await;
    let message = world.cluster.not_ready("sealed", "StoreNotReady").await;
    assert!(message.contains("sops-age"), "{message}");

    world.source("sops-age", &Canary::plain(identity));
    world.cluster.apply(&format!("kind: Secret\nmetadata: {{name: sops-age}}\nstringData: {{age.agekey: {identity}}}")).await;
    world.cluster.ready("sealed").await;
    let holds = async |note: &Canary| {
        world.cluster.holds("sealed", &[("note", note.bytes()), ("third", b"third"), ("gamma", b"7")]).await;
    };
    holds(&first).await;

    put("small.yaml", fixture("sealed.small.yaml").replace("gamma", "delta").as_bytes());
    put("note.age", &seal(&second));
    let message = world.cluster.not_ready("sealed", "InvalidData").await;
    assert!(message.contains("small.yaml") && message.contains("not as it was encrypted"), "{message}");
    holds(&first).await;
    put("small.yaml", fixture("sealed.theirs.yaml").as_bytes());
    let denied = |object: &ExternalSecret| reason_of(object, "Fresh", "False") == Some("AccessDenied");
    world.cluster.external("sealed", "to say that the file is for others", denied).await;
    holds(&first).await;
    put("small.yaml", fixture("sealed.small.yaml").as_bytes());
    holds(&second).await;
    world.cluster.ready("sealed").await;
    world.finish().await;
}
