//! Each oracle is shown a planted violation, and something innocent beside it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use keyferry::crd::v1alpha1::ExternalSecret;

use super::audit::Request;
use super::history::{Sight, faults};
use super::kstatus::{Verdict, verdict};
use super::{Canary, Login, World, login, oracle};
use crate::proxy::{Call, Operation, Submission};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[test]
fn a_value_is_found_in_every_form() {
    let canary = Canary::new();
    let url: String = url::form_urlencoded::byte_serialize(canary.bytes()).collect();
    let mut forms = vec![
        canary.text.clone(),
        format!("prefix {} suffix", canary.text),
        url,
        json!(canary.text).to_string(),
        json!(json!({ "password": canary.text }).to_string()).to_string(),
        format!("{:?}", canary.text),
        hex(canary.bytes()),
        hex(canary.bytes()).to_uppercase(),
    ];
    for prefix in ["", "x", "xy", "xyz"] {
        let text = format!("{prefix}{}", canary.text);
        forms.extend([STANDARD.encode(&text), STANDARD_NO_PAD.encode(&text), URL_SAFE.encode(&text)]);
    }
    for form in &forms {
        assert!(canary.found_in(form).is_some(), "{form}");
        assert!(Canary::new().found_in(form).is_none(), "another value is not found in {form}");
    }
    let leaks = oracle::leaks(&[Canary::new(), canary.clone()], "a log", &forms[0]);
    assert_eq!(leaks, ["value 1 stands in a log, raw or escaped"]);
}

#[test]
fn a_value_may_stand_in_the_data_of_its_target_and_nowhere_else() {
    let canary = Canary::new();
    let secret = |annotation: &str| {
        json!({ "items": [{ "kind": "Secret", "metadata": { "name": "t", "annotations": { "a": annotation } },
            "data": { "k": STANDARD.encode(canary.bytes()) } }] })
    };
    let is_target = |item: &Value| item["metadata"]["name"] == "t";
    let search = |list: Value, is_exempt: fn(&Value) -> bool| {
        oracle::leaks(std::slice::from_ref(&canary), "x", &oracle::text_of_objects(list, is_exempt))
    };
    assert!(search(secret("harmless"), is_target).is_empty());
    assert_eq!(search(secret(&canary.text), is_target).len(), 1, "in an annotation of the target");
    assert_eq!(search(secret("harmless"), |_| false).len(), 1, "in another Secret");
}

#[test]
fn a_value_that_never_arrived_shows_nothing() {
    let (arrived, lost) = (Canary::new(), Canary::new());
    let sights = [sight("t", Some(&[("k", &format!("x{}", arrived.text))]))];
    assert!(oracle::undelivered(std::slice::from_ref(&arrived), &sights).is_empty());
    assert_eq!(oracle::undelivered(&[arrived, lost], &sights).len(), 1);
}

fn sight(name: &str, data: Option<&[(&str, &str)]>) -> Sight {
    let data = data.map(|data| data.iter().map(|(key, value)| ((*key).to_owned(), value.as_bytes().to_vec())).collect());
    Sight { kind: keyferry::name::TargetKind::Secret, name: name.to_owned(), uid: "u".to_owned(), is_managed: true, data }
}

#[test]
fn a_target_that_was_lost_empty_or_mixed_for_a_moment_is_seen() {
    let (one, two) = (Canary::of_generation(1), Canary::of_generation(2));
    let old = sight("t", Some(&[("a", &one.text), ("b", &one.text)]));
    let new = sight("t", Some(&[("a", &two.text), ("b", &two.text)]));
    let nobody = BTreeSet::new();
    assert!(faults(&[old.clone(), new.clone()], &nobody).is_empty());
    let mixed = sight("t", Some(&[("a", &two.text), ("b", &one.text)]));
    assert_eq!(faults(&[old.clone(), mixed, new.clone()], &nobody).len(), 1);
    let gone = sight("t", None);
    assert_eq!(faults(&[old.clone(), gone.clone(), new.clone()], &nobody).len(), 1);
    assert!(faults(&[old.clone(), gone], &BTreeSet::from(["t".to_owned()])).is_empty(), "where the test wanted that");
    for empty in [sight("t", Some(&[])), sight("t", Some(&[("a", "")]))] {
        assert_eq!(faults(&[old.clone(), empty], &nobody).len(), 1);
    }
    let foreign = Sight { is_managed: false, ..sight("t", Some(&[])) };
    assert!(faults(&[foreign], &nobody).is_empty());
}

fn request(verb: &str, resource: &str, decision: &str) -> Request {
    Request {
        user: super::audit::OPERATOR.to_owned(),
        verb: verb.to_owned(),
        group: String::new(),
        resource: resource.to_owned(),
        namespace: "n".to_owned(),
        name: "x".to_owned(),
        code: 200,
        decision: decision.to_owned(),
        uri: String::new(),
        at: jiff::Timestamp::UNIX_EPOCH,
    }
}

#[test]
fn a_request_at_rest_or_outside_the_rights_is_seen() {
    let background = [request("update", "leases", "allow"), request("watch", "secrets", "allow")];
    assert!(oracle::work_at_rest(&background).is_empty() && oracle::forbidden(&background).is_empty());
    assert_eq!(oracle::work_at_rest(&[request("patch", "secrets", "allow")]).len(), 1);
    assert_eq!(oracle::work_at_rest(&[request("get", "secrets", "allow")]).len(), 1, "a read costs, too");
    assert_eq!(oracle::forbidden(&[request("delete", "pods", "forbid")]).len(), 1);
}

#[test]
fn a_granted_right_that_nothing_used_is_seen() {
    let rules = json!([{ "apiGroups": [""], "resources": ["secrets", "namespaces"], "verbs": ["get", "list"] }]);
    let granted = oracle::granted(&rules);
    assert_eq!(granted.len(), 4);
    let used = [request("get", "secrets", ""), request("list", "secrets", ""), request("list", "namespaces", "")];
    let used: BTreeSet<_> = used.iter().flat_map(Request::rights).collect();
    assert_eq!(oracle::unused(&granted, &used), ["granted and never used: get /namespaces"]);
}

#[test]
fn a_panic_is_seen_in_a_log() {
    assert!(oracle::panics("{\"level\":\"WARN\",\"message\":\"nothing bad\"}").is_empty());
    assert_eq!(oracle::panics("fine\nthread 'main' panicked at src/x.rs:1:2:\nfine").len(), 1);
}

#[test]
fn what_is_held_beyond_every_bound_is_seen_and_so_is_what_was_not_counted() {
    let held = |threads, memory| {
        let counts = [("threads", threads), ("open files", 40), ("KiB of memory", memory)];
        counts.map(|(what, count)| (what.to_owned(), count)).into_iter().collect()
    };
    assert_eq!(oracle::beyond_bounds(&held(8, 30_000), 1), [""; 0]);
    assert_eq!(oracle::beyond_bounds(&held(8, 500_000), 1), ["500000 KiB of memory at the end, of at most 32768"]);
    assert_eq!(oracle::beyond_bounds(&held(33, 30_000), 1), ["33 threads at the end, of at most 32"]);
    assert_eq!(oracle::beyond_bounds(&Default::default(), 1).len(), 3);
}

#[test]
fn growth_is_seen_beyond_its_allowance() {
    let counts = |threads: u64, files: u64| BTreeMap::from([("threads".to_owned(), threads), ("files".to_owned(), files)]);
    assert!(oracle::growth(&counts(10, 20), &counts(11, 19), 2).is_empty());
    assert_eq!(oracle::growth(&counts(10, 20), &counts(10, 30), 2), ["files grew from 20 to 30"]);
}

fn object(status: Value) -> ExternalSecret {
    serde_json::from_value(json!({
        "apiVersion": "keyferry.dev/v1alpha1", "kind": "ExternalSecret", "metadata": { "name": "x", "generation": 2 },
        "spec": { "secretStoreRef": { "name": "s" }, "data": [{ "secretKey": "k", "remoteRef": { "key": "r" } }] }, "status": status,
    }))
    .unwrap()
}

fn status(observed: i64, conditions: &[(&str, &str)]) -> Value {
    let condition = |(kind, value): &(&str, &str)| json!({ "type": kind, "status": value, "reason": "R", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z" });
    json!({ "observedGeneration": observed, "conditions": conditions.iter().map(condition).collect::<Vec<_>>() })
}

#[test]
fn tools_conclude_by_the_published_rules() {
    let cases: &[(i64, &[(&str, &str)], Verdict)] = &[
        (-1, &[], Verdict::InProgress),
        (1, &[("Ready", "True")], Verdict::InProgress),
        (2, &[("Ready", "True")], Verdict::Current),
        (2, &[("Ready", "False"), ("Stalled", "True")], Verdict::Failed),
        (2, &[("Ready", "False"), ("Reconciling", "True")], Verdict::InProgress),
        (2, &[("Ready", "False")], Verdict::InProgress),
        (2, &[("Ready", "True"), ("Fresh", "False")], Verdict::Current),
    ];
    for (observed, conditions, expected) in cases {
        assert_eq!(verdict(&object(status(*observed, conditions))), *expected, "{observed} {conditions:?}");
    }
}

#[test]
fn a_status_that_misleads_is_seen() {
    let keys = BTreeSet::from(["k".to_owned()]);
    let ready = object(status(2, &[("Ready", "True")]));
    assert!(oracle::untruths(&ready, Some(&keys)).is_empty());
    assert_eq!(oracle::untruths(&ready, None).len(), 1, "Ready without a target");
    assert_eq!(oracle::untruths(&ready, Some(&BTreeSet::new())).len(), 1, "Ready without its key");
    let silent = object(status(2, &[("Stalled", "True")]));
    assert_eq!(oracle::untruths(&silent, Some(&keys)).len(), 1, "no Ready at all");
    let both = object(status(2, &[("Ready", "True"), ("Stalled", "True")]));
    assert_eq!(oracle::untruths(&both, Some(&keys)).len(), 1, "Ready, and Failed for tools");
    let vague = object(json!({ "observedGeneration": 2 }));
    assert_eq!(oracle::untruths(&vague, Some(&keys)).len(), 1, "Current for tools, and nothing said");
}

/// A JWT of these claims.
fn jwt(claims: &Value) -> String {
    format!("e30.{}.c2lnbmF0dXJl", URL_SAFE_NO_PAD.encode(claims.to_string()))
}

/// A login as a proxy would have seen it.
fn login_call(path: &str, body: &Value) -> Call {
    Call {
        id: 0,
        at: std::time::Instant::now(),
        wall: std::time::SystemTime::now(),
        connection: 1,
        operation: Operation { verb: "write".to_owned(), resource: path.to_owned(), ..Operation::default() },
        path_and_query: format!("/v1/{path}"),
        user_agent: concat!("keyferry/", env!("CARGO_PKG_VERSION")).to_owned(),
        needles: Vec::new(),
        credentials: Vec::new(),
        shows_certificate: false,
        submission: Submission::of(body.to_string().as_bytes()),
        fault: None,
        upstream: Some(200),
        status: Some(200),
        is_open: false,
    }
}

#[test]
fn a_login_with_one_wrong_parameter_is_seen_and_its_values_are_not_told() {
    let path = "auth/kubernetes/login";
    let claims = json!({"sub": "joe", "aud": ["vault"], "iat": 1000, "exp": 1600});
    let right = json!({"role": "app", "password": "canary-right", "jwt": jwt(&claims)});
    let expected = Login::at(path).text("role", "app").text("password", "canary-right").token("jwt", "joe", &["vault"], 600);
    let with = |member: &str, value: Value| {
        let mut body = right.clone();
        body[member] = value;
        login_call(path, &body)
    };
    let claiming = |claim: &str, value: Value| {
        let mut claims = claims.clone();
        claims[claim] = value;
        with("jwt", json!(jwt(&claims)))
    };
    let call = || login_call(path, &right);
    assert_eq!(login::compare(&[call()], std::slice::from_ref(&expected)), [""; 0]);
    let mut less = right.clone();
    less.as_object_mut().unwrap().remove("role");
    let operation = |change: fn(&mut Operation)| {
        let mut operation = call().operation;
        change(&mut operation);
        Call { operation, ..call() }
    };
    let planted = [
        (login_call("auth/k8s/login", &right), "another path"),
        (Call { path_and_query: format!("/v1/{path}?x=1"), ..call() }, "another path"),
        (operation(|operation| operation.namespace = "team".to_owned()), "another namespace"),
        (operation(|operation| operation.verb = "read".to_owned()), "no POST"),
        (Call { credentials: vec!["x-vault-token"], ..call() }, "a header carries"),
        (Call { user_agent: "curl/8".to_owned(), ..call() }, "user agent"),
        (Call { shows_certificate: true, ..call() }, "certificate"),
        (login_call(path, &json!([])), "no JSON object"),
        (login_call(path, &less), "role is missing"),
        (with("role", json!("canary-wrong")), "role is missing or another"),
        (with("password", json!("canary-right ")), "password is missing or another"),
        (with("password", json!(["canary-right"])), "password is missing or another"),
        (with("name", json!("canary")), "name does not belong"),
        (with("jwt", json!("canary.canary.canary")), "jwt is missing or another"),
        (claiming("sub", json!("canary")), "jwt is missing or another"),
        (claiming("aud", json!(["vault", "canary"])), "jwt is missing or another"),
        (claiming("aud", json!([])), "jwt is missing or another"),
        (claiming("exp", json!(1601)), "jwt is missing or another"),
        (claiming("exp", Value::Null), "jwt is missing or another"),
    ];
    for (call, words) in planted {
        let complaints = login::compare(&[call], std::slice::from_ref(&expected));
        // It is another one, and the one that should have come did not.
        let [strange, missing] = complaints.as_slice() else { panic!("{words}: {complaints:?}") };
        assert!(strange.contains(words), "{words}: {strange}");
        assert!(missing.contains("never came") && !complaints.concat().contains("canary"), "{complaints:?}");
    }
    assert_eq!(login::compare(&[call()], &[]).len(), 1, "a login that nobody expects");
    assert_eq!(login::compare(&[], &[expected]).len(), 1, "no login at all");
}

/// The message with which a world ends.
async fn finish(world: World) -> String {
    let ended = tokio::spawn(world.finish()).await.expect_err("something was planted").into_panic();
    ended.downcast_ref::<String>().cloned().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_planted_in_the_cluster_ends_the_world_in_red() {
    let world = World::prepare(super::Settings::default()).await;
    let canary = world.canary();
    let text = STANDARD.encode(canary.bytes());
    world.cluster.apply(&format!("kind: ConfigMap\nmetadata: {{name: leak}}\ndata: {{k: {text}}}")).await;
    let message = finish(world).await;
    assert!(message.contains("/configmaps, base64"), "{message}");
    assert!(message.contains("never reached a target"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
#[should_panic(expected = "a world ends with finish()")]
async fn a_world_without_its_oracles_is_red() {
    drop(World::prepare(super::Settings::default()).await);
}
