//! `make try` on a cluster that belongs to somebody.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::api::ListParams;

use crate::harness::World;

#[tokio::test(flavor = "multi_thread")]
async fn make_try_refuses_a_cluster_where_another_keyferry_holds_the_lease_and_changes_nothing_there() {
    let world = World::start().await;
    world.operator.synced().await;
    let namespaces = Api::<Namespace>::all(world.cluster.client.clone());
    // The binary is built already: this is about the cluster.
    let folder = world.folder().join("no-build");
    fs::create_dir(&folder).unwrap();
    let cargo = folder.join("cargo");
    fs::write(&cargo, "#!/bin/sh\nexit 0\n").unwrap();
    fs::set_permissions(&cargo, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("ci/try");
    let mut command = Command::new(script);
    command.env("PATH", path).env("KEYFERRY_KUBECONFIG", &world.plane.kubeconfig).env_remove("KEEP");
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{said}");
    assert!(said.contains("another Keyferry lives on this cluster: Lease keyferry-system/keyferry is held"), "{said}");
    let left: Vec<String> =
        namespaces.list(&ListParams::default()).await.unwrap().into_iter().filter_map(|one| one.metadata.name).collect();
    assert!(!left.iter().any(|name| name == "keyferry-try" || name == "keyferry-samples"), "{left:?}");
    assert!(world.operator.is_running());
    world.finish().await;
}
