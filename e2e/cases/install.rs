//! Installing it and taking it away: `config/` as people use it.

use std::path::Path;

use keyferry::crd::v1alpha1::ExternalSecret;
use kube::{Api, ResourceExt, api::ListParams};
use serde_json::{Value, json};

use crate::harness::{World, plane::Plane};

fn folder(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(name).to_string_lossy().into_owned()
}

fn kinds(plane: &Plane) -> String {
    plane.kubectl(
        &[
            "get",
            "crd",
            "externalsecrets.keyferry.dev",
            "externalparameters.keyferry.dev",
            "secretstores.keyferry.dev",
            "clustersecretstores.keyferry.dev",
            "-o",
            "name",
        ],
        "",
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn taking_the_operator_away_keeps_kinds_objects_and_secrets_however_often_it_is_tried() {
    let world = World::start().await;
    world
        .cluster
        .apply(
            "
kind: SecretStore
metadata: {name: fake}
spec: {provider: {fake: {data: [{key: greeting, value: hello}]}}}
---
kind: ExternalSecret
metadata: {name: kept}
spec: {secretStoreRef: {name: fake}, data: [{secretKey: now, remoteRef: {key: greeting}}]}",
        )
        .await;
    let before = world.cluster.ready("kept").await;
    world.operator.stop().await;
    let refusal = "annotate the CRD with keyferry.dev/confirm-deletion";
    for attempt in 1..=3 {
        let refused =
            world.plane.try_kubectl(&["delete", "-k", &folder("default"), "--ignore-not-found"], "").expect_err("the kinds are kept");
        assert_eq!(refused.matches(refusal).count(), 4, "attempt {attempt}: {refused}");
    }
    for arguments in [&["delete", "crd", "--all"][..], &["delete", "--raw", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"]] {
        let refused = world.plane.try_kubectl(arguments, "").expect_err("the kinds are kept");
        assert!(refused.contains(refusal), "{arguments:?}: {refused}");
    }
    assert_eq!(kinds(&world.plane).lines().count(), 4);
    let after = world.cluster.get::<ExternalSecret>("kept").await.expect("the object");
    assert_eq!((after.uid(), after.metadata.deletion_timestamp), (before.uid(), None));
    world.cluster.holds("kept", &[("now", b"hello")]).await;

    // As the next test expects it.
    world.plane.kubectl(&["wait", "--for=delete", "namespace/keyferry-system", "--timeout=60s"], "");
    let unguard = r#"{"metadata":{"finalizers":null}}"#;
    let guard = "validatingadmissionpolicybinding,validatingadmissionpolicy";
    world.plane.kubectl(&["patch", guard, "keyferry-keep-kinds", "--type=merge", "-p", unguard], "");
    world.plane.install();
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_sample_is_valid_under_strict_validation() {
    let world = World::prepare(crate::harness::Settings::default()).await;
    let samples = folder("samples");
    let applied = world.plane.kubectl(&["apply", "-k", &samples, "--validate=strict"], "");
    assert!(applied.lines().count() > 12, "{applied}");
    let objects: Api<ExternalSecret> = Api::namespaced(world.cluster.client.clone(), "keyferry-samples");
    let names: Vec<String> = objects.list(&ListParams::default()).await.expect("a list").iter().map(ResourceExt::name_any).collect();
    assert!(names.len() >= 10, "{names:?}");
    world.plane.kubectl(&["delete", "-k", &samples, "--wait=false"], "");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_deployment_makes_pods_that_the_restricted_profile_admits_without_a_fixed_user() {
    let world = World::prepare(crate::harness::Settings::default()).await;
    let all = world.plane.kubectl(&["kustomize", &folder("default")], "");
    let deployment = all.split("\n---\n").find(|document| document.lines().any(|line| line == "kind: Deployment")).expect("a Deployment");
    let deployment: Value = serde_saphyr::from_str(deployment).expect("YAML");
    let template = &deployment["spec"]["template"];
    assert!(!template.to_string().contains("runAsUser") && !template.to_string().contains("runAsGroup"), "{template}");
    let pod =
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "one", "namespace": "keyferry-system"}, "spec": template["spec"]});
    // The namespace enforces the profile: a Pod that breaks it is refused.
    world.plane.kubectl(&["create", "--dry-run=server", "--validate=strict", "-f", "-"], &pod.to_string());
    let mut worse = pod;
    worse["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = json!(true);
    let refused =
        world.plane.try_kubectl(&["create", "--dry-run=server", "-f", "-"], &worse.to_string()).expect_err("the profile is enforced");
    assert!(refused.contains("restricted"), "{refused}");
    // What watches it finds its pods and their port.
    let watching = world.plane.kubectl(&["kustomize", &folder("prometheus")], "");
    let monitor = watching.split("\n---\n").find(|document| document.lines().any(|line| line == "kind: PodMonitor")).expect("a PodMonitor");
    let monitor: Value = serde_saphyr::from_str(monitor).expect("YAML");
    assert_eq!(monitor["spec"]["selector"]["matchLabels"], deployment["spec"]["selector"]["matchLabels"]);
    assert_eq!(monitor["spec"]["podMetricsEndpoints"][0]["port"], template["spec"]["containers"][0]["ports"][0]["name"]);
    assert!(watching.contains("kind: PrometheusRule"));
    world.plane.kubectl(&["create", "--dry-run=server", "--validate=strict", "-f", "-"], &deployment.to_string());
    world.finish().await;
}
