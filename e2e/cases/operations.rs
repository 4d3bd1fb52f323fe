//! Running it: who leads, how it ends, what its pages and its log say, and how settings that cannot work are refused.

use std::process::Command;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::harness::store::KEYFERRY;
use crate::harness::{Settings, World, operator::Operator};
use crate::proxy::{Fault, Matcher, Nth};

const FAKE: &str = "
kind: SecretStore
metadata: {name: fake}
spec: {provider: {fake: {data: [{key: greeting, value: hello}]}}}
---
kind: ExternalSecret
metadata: {name: greeting}
spec:
  secretStoreRef: {name: fake}
  refreshInterval: 10s
  data: [{secretKey: now, remoteRef: {key: greeting}}]";

fn leases(world: &World) -> Api<Lease> {
    Api::namespaced(world.cluster.client.clone(), "keyferry-system")
}

async fn lease(world: &World) -> Lease {
    leases(world).get("keyferry").await.expect("the operator's Lease")
}

async fn lease_spec(world: &World) -> LeaseSpec {
    lease(world).await.spec.expect("a spec")
}

/// A second replica: the same installation, another pod.
fn replica(world: &World, identity: &str, settings: Settings) -> Operator {
    let folder = world.folder().join(identity);
    std::fs::create_dir_all(folder.join("root")).expect("a folder");
    let kubeconfig = std::fs::read_to_string(world.folder().join("kubeconfig")).expect("the operator's kubeconfig");
    let kubeconfig: Value = serde_json::from_str(&kubeconfig).expect("JSON");
    let token = kubeconfig["users"][0]["user"]["token"].as_str().expect("a token").to_owned();
    Operator::new(&folder, &world.proxy, &token, settings.variable("KEYFERRY_IDENTITY", identity).timing("leaseRetry", "250ms"))
}

async fn until_page(operator: &Operator, path: &str, wanted: (u16, &str)) {
    let deadline = tokio::time::Instant::now() + crate::harness::cluster::PATIENCE;
    loop {
        let (status, text) = operator.page(path).await;
        if (status, text.trim()) == wanted {
            return;
        }
        assert!(tokio::time::Instant::now() < deadline, "{path} says {status} {text:?}, wanted {wanted:?}\n{}", operator.last_words());
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_is_ready_writes_nothing_and_goes_on_at_once_when_the_leader_stops() {
    let world = World::start().await;
    world.operator.synced().await;
    let standby = replica(&world, "another-pod", Settings::default());
    standby.start();
    until_page(&standby, "/readyz", (200, "ok")).await;
    until_page(&standby, "/healthz", (200, "ok")).await;
    assert!(standby.metrics().await.contains("keyferry_is_leader 0"));
    assert!(world.operator.metrics().await.contains("keyferry_is_leader 1"));
    world.cluster.apply(FAKE).await;
    world.cluster.ready("greeting").await;
    assert_eq!(lease_spec(&world).await.holder_identity.as_deref(), Some("the-pod"));

    world.operator.stop().await;
    standby.synced().await;
    assert_eq!(lease_spec(&world).await.holder_identity.as_deref(), Some("another-pod"));
    assert!(standby.metrics().await.contains("keyferry_is_leader 1"));
    world
        .cluster
        .merge::<keyferry::crd::v1alpha1::SecretStore>(
            "fake",
            &json!({"spec": {"provider": {"fake": {"data": [{"key": "greeting", "value": "good day"}]}}}}),
        )
        .await;
    world.cluster.holds("greeting", &[("now", b"good day")]).await;

    standby.stop().await;
    assert_eq!(lease_spec(&world).await.holder_identity.unwrap_or_default(), "", "a graceful end releases the Lease");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_operator_goes_on_at_once_under_its_own_name() {
    // A Lease that others would wait for longer than a test may take.
    let world = World::start_with(Settings::default().timing("leaseDuration", "1h")).await;
    world.operator.synced().await;
    let before = lease_spec(&world).await.lease_transitions;
    world.operator.restart();
    world.operator.synced().await;
    let spec = lease_spec(&world).await;
    assert_eq!(spec.holder_identity.as_deref(), Some("the-pod"));
    assert!(spec.lease_transitions > before, "{:?} after {before:?}", spec.lease_transitions);
    assert_eq!(spec.lease_duration_seconds, Some(3600));
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_mark_of_what_was_caught_up_goes_along_with_renewals() {
    let world = World::start().await;
    world.cluster.apply(FAKE).await;
    world.cluster.ready("greeting").await;
    let is_marked = |lease: Option<&Lease>| {
        let annotations = lease.and_then(|lease| lease.metadata.annotations.as_ref());
        annotations
            .and_then(|annotations| annotations.get("keyferry.dev/caught-up"))
            .is_some_and(|mark| mark.parse::<jiff::Timestamp>().is_ok())
    };
    let operator = crate::harness::Cluster { client: world.cluster.client.clone(), namespace: "keyferry-system".to_owned() };
    operator.until::<Lease>("keyferry", "to carry the mark", is_marked).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_replaced_ends_with_an_error() {
    let world = World::start().await;
    world.operator.synced().await;
    let taken = json!({"spec": {"holderIdentity": "somebody-else"}});
    leases(&world).patch("keyferry", &PatchParams::default(), &Patch::Merge(&taken)).await.expect("the admin may");
    assert!(!world.operator.ended().await, "it must not end with code 0");
    assert!(world.operator.log().contains("somebody-else"), "{}", world.operator.last_words());
    assert_eq!(lease_spec(&world).await.holder_identity.as_deref(), Some("somebody-else"), "it releases nothing that is not its own");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_cannot_renew_ends_and_writes_nothing_meanwhile() {
    let world = World::start_with(Settings::default().timing("leaseDuration", "4s").timing("leaseRenew", "2s")).await;
    world.operator.synced().await;
    world.may_be_refused();
    let renewals = Matcher::any().verb("update").resource("leases");
    let _rule = world.proxy.on(renewals, Nth::every(), Fault::status(503));
    assert!(!world.operator.ended().await, "it must not end with code 0");
    assert!(world.operator.log().contains("could not be renewed in time"), "{}", world.operator.last_words());
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pages_tell_what_it_does_and_the_log_is_json_throughout() {
    let world = World::start_with(Settings::default().timing("misses", "2s")).await;
    world.cluster.apply(FAKE).await;
    world.cluster.ready("greeting").await;
    until_page(&world.operator, "/healthz", (200, "ok")).await;
    until_page(&world.operator, "/readyz", (200, "ok")).await;
    let metrics = world.operator.metrics().await;
    for series in [
        "keyferry_build_info{",
        "keyferry_is_leader 1",
        "keyferry_reconciles_total{reason=\"Synced\"}",
        "keyferry_stage_duration_seconds_count{stage=\"apply\"}",
        "keyferry_backend_calls_total{provider=\"fake\",store=\"(namespaced)\",operation=\"read\",outcome=\"Synced\"}",
        "keyferry_looks_total{reason=\"Synced\"}",
        "keyferry_api_writes_total{write=\"target_apply\",outcome=\"success\"} 1",
        "keyferry_api_writes_total{write=\"status\",outcome=\"success\"}",
        "keyferry_api_writes_total{write=\"lease\",outcome=\"success\"}",
        "keyferry_timing_below_default{timing=\"misses\"} 1",
        "keyferry_panics_total 0",
    ] {
        assert!(metrics.contains(series), "{series} is missing in\n{metrics}");
    }
    assert!(!metrics.contains("greeting") && !metrics.contains(world.namespace()), "labels are bounded: no names\n{metrics}");
    let log = world.operator.log();
    let foreign: Vec<&str> = log.lines().filter(|line| serde_json::from_str::<Value>(line).is_err()).collect();
    assert!(foreign.is_empty(), "not JSON: {foreign:?}");
    let warning = log.lines().find(|line| line.contains("shorter than its default") && line.contains("misses"));
    assert!(warning.is_some(), "a safety time below its default is told at start");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_written_before_a_graceful_end_stays_as_it_is() {
    let world = World::start().await;
    world.cluster.apply(FAKE).await;
    world.cluster.ready("greeting").await;
    let before = world.cluster.get::<Secret>("greeting").await.expect("the target");
    world.operator.stop().await;
    world.operator.start();
    world.operator.synced().await;
    world.a_while().await;
    assert_eq!(
        world.cluster.get::<Secret>("greeting").await.expect("the target").metadata.resource_version,
        before.metadata.resource_version
    );
    world.finish().await;
}

type Variables<'a> = &'a [(&'a str, &'a str)];

#[test]
fn settings_that_cannot_work_end_it_at_start_with_place_and_remedy() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), "namspace: x\n").expect("written");
    let path = file.path().to_str().expect("text").to_owned();
    let cases: &[(&[&str], Variables, &[&str])] = &[
        (&["--config", &path], &[], &["namspace", "line 1", "namespace"]),
        (&["--write-concurrency", "0"], &[], &["--write-concurrency", "1 to 1000"]),
        (&[], &[("KEYFERRY_LISTEN", "nowhere")], &["KEYFERRY_LISTEN", "nowhere"]),
        (&["--kubeconfig", "/does/not/exist"], &[], &["/does/not/exist"]),
        // No cluster is guessed: neither a kubeconfig of the environment nor one in the home folder.
        (&[], &[("KUBECONFIG", &path), ("HOME", "/root")], &["cluster"]),
    ];
    for (arguments, environment, parts) in cases {
        let mut command = Command::new(KEYFERRY);
        command.arg("run").arg("--listen=127.0.0.1:0").args(*arguments).env_clear().envs(environment.iter().copied());
        if environment.iter().any(|(name, _)| *name == "KEYFERRY_LISTEN") {
            command = Command::new(KEYFERRY);
            command.arg("run").env_clear().envs(environment.iter().copied());
        }
        let output = command.output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments:?} {environment:?}: {said}");
        for part in *parts {
            assert!(said.contains(part), "{part:?} is missing for {arguments:?} {environment:?}: {said}");
        }
    }
}
