//! Provider `aws` as objects meet it: Secrets Manager with its batches, what it refuses, and what its own models say of each request.

use k8s_openapi::api::core::v1::Secret;
use serde_json::json;

use super::{external, whole_values};
use crate::backends::aws::admin::Service;
use crate::backends::aws::failure::Failure;
use crate::backends::aws::gate::{Denial, KeyState};
use crate::backends::aws::judge::judge;
use crate::backends::aws::{AwsServer, User};
use crate::harness::World;
use crate::harness::canary::Canary;
use crate::harness::cluster::{data_of, reason_of};
use keyferry::crd::v1alpha1::{ClusterSecretStore, ExternalSecret};

/// A store by an access key in a Secret of the test's namespace; its name.
async fn store(world: &World, aws: &AwsServer, user: &User, service: &str) -> String {
    let (namespace, name) = (world.namespace(), format!("{}-{}", world.namespace(), service.to_lowercase()));
    world.source("aws", &Canary::plain(&user.key.secret));
    let secret = json!({ "access-key-id": user.key.id, "secret-access-key": user.key.secret });
    let secret = json!({ "kind": "Secret", "apiVersion": "v1", "metadata": { "name": "aws" }, "stringData": secret });
    world.cluster.apply(&secret.to_string()).await;
    let key = json!({ "name": "aws", "namespace": namespace });
    let auth = json!({ "secretRef": { "accessKeyIDSecretRef": key, "secretAccessKeySecretRef": key } });
    let provider = json!({ "service": service, "region": "eu-west-1", "endpoint": aws.url(), "auth": auth });
    world
        .cluster
        .apply(&format!(
            "kind: ClusterSecretStore\nmetadata: {{name: {name}}}\nspec:\n  provider: {{aws: {provider}}}\n  refreshInterval: 0s\n  conditions: [{{namespaces: [{namespace}]}}]"
        ))
        .await;
    world.sweep_later(&name);
    name
}

fn text(canary: &Canary) -> String {
    String::from_utf8(canary.bytes().to_vec()).expect("a canary is text")
}

/// Twenty keys of one object, three of which cannot be had.
fn twenty() -> Vec<String> {
    (0..20).map(|number| format!("app/{number:02}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_arrive_by_name_version_arn_and_search_and_each_request_is_one_that_aws_takes() {
    let world = World::start().await;
    let aws = AwsServer::start();
    let user = aws.user("reader");
    let store = store(&world, &aws, &user, "SecretsManager").await;
    world.cluster.store_says(&store, "True", "Synced").await;
    let able = |store: &ClusterSecretStore| {
        let able = store.status.as_ref().and_then(|status| status.capabilities);
        able.is_some_and(|able| able.batch && able.list && able.versions && able.write)
    };
    world.cluster.store(&store, "to say that it reads batches", able).await;
    let (old, new, member, far) = (world.canary(), world.canary(), world.canary(), world.canary());
    let first = aws.put_secret("app/db", &text(&old));
    aws.put_secret("app/db", &text(&new));
    aws.put_secret("app/doc", &json!({ "password": text(&member), "size": 12_345_678_901_234_567_890_u64 }).to_string());
    aws.put_binary("app/key", &[0, 159, 146, 150, 255]);
    let elsewhere = aws.admin().in_region("us-east-2");
    let created = elsewhere.call(Service::SecretsManager, "CreateSecret", &json!({ "Name": "far", "SecretString": text(&far) })).await;
    let arn = created.expect_success("far")["ARN"].as_str().expect("an ARN").to_owned();
    aws.as_root(Service::SecretsManager, "TagResource", &json!({ "SecretId": "app/doc", "Tags": [{ "Key": "team", "Value": "shop" }] }));

    let entries = format!(
        "  data:\n    - {{secretKey: new, remoteRef: {{key: app/db}}}}\n    - {{secretKey: old, remoteRef: {{key: app/db, version: uuid/{first}}}}}\n    \
         - {{secretKey: previous, remoteRef: {{key: app/db, version: AWSPREVIOUS}}}}\n    \
         - {{secretKey: member, remoteRef: {{key: app/doc, property: password}}}}\n    - {{secretKey: size, remoteRef: {{key: app/doc, property: size}}}}\n    \
         - {{secretKey: bytes, remoteRef: {{key: app/key}}}}\n    - {{secretKey: far, remoteRef: {{key: \"{arn}\"}}}}\n    \
         - {{secretKey: tags, remoteRef: {{key: app/doc, metadataPolicy: Fetch}}}}\n"
    );
    world.cluster.apply(&external("all", &store, &entries)).await;
    world.cluster.ready("all").await;
    let expected: &[(&str, &[u8])] = &[
        ("new", new.bytes()),
        ("old", old.bytes()),
        ("previous", old.bytes()),
        ("member", member.bytes()),
        ("size", b"12345678901234567890"),
        ("bytes", &[0, 159, 146, 150, 255]),
        ("far", far.bytes()),
        ("tags", br#"{"team":"shop"}"#),
    ];
    world.cluster.holds("all", expected).await;
    world.cluster.apply(&external("tagged", &store, "  dataFrom:\n    - {find: {path: app, tags: {team: shop}}}\n")).await;
    let document = json!({ "password": text(&member), "size": 12_345_678_901_234_567_890_u64 }).to_string();
    world.cluster.holds("tagged", &[("app_doc", document.as_bytes())]).await;
    judge(&aws.recorded(), &aws.keys());
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_batch_lacks_is_named_and_the_others_arrive() {
    let world = World::start().await;
    let aws = AwsServer::start();
    let user = aws.user("reader");
    let store = store(&world, &aws, &user, "SecretsManager").await;
    let keys = twenty();
    let value = world.canary();
    for key in &keys {
        aws.put_secret(key, &text(&value));
    }
    aws.deny(Denial::new(&user.arn, "secretsmanager:GetSecretValue", "app/03"));
    aws.admin().delete_secret("app/07").await;
    aws.admin().remove_secret("app/11").await;
    aws.forget();
    // All in one object, so that they are asked for together.
    let pairs: Vec<(String, String)> = keys.iter().map(|key| (key.replace('/', "-"), key.clone())).collect();
    let pairs: Vec<(&str, &str)> = pairs.iter().map(|(name, key)| (name.as_str(), key.as_str())).collect();
    world.cluster.apply(&whole_values("twenty", &store, "", &pairs)).await;
    let told = |object: &ExternalSecret, entry: &str, reason: &str| {
        let mut entries = object.status.iter().flat_map(|status| &status.entries);
        entries.any(|told| told.name == format!("data[app-{entry}]") && told.reason == reason)
    };
    let three =
        |object: &ExternalSecret| told(object, "03", "AccessDenied") && told(object, "07", "Deleted") && told(object, "11", "NotFound");
    world.cluster.external("twenty", "to name the three", three).await;
    // One object each: seventeen arrive whatever becomes of the three.
    for (name, key) in &pairs {
        world.cluster.apply(&whole_values(name, &store, "", &[("value", key)])).await;
    }
    for (name, _) in pairs.iter().filter(|(name, _)| !["app-03", "app-07", "app-11"].contains(name)) {
        world.cluster.holds(name, &[("value", value.bytes())]).await;
    }
    let all: usize = aws.count("BatchGetSecretValue");
    assert!(all > 0, "{:?}", aws.counts());

    // A permission granted later, a secret restored, one made.
    aws.allow_all();
    aws.admin().restore_secret("app/07").await;
    aws.put_secret("app/11", &text(&value));
    for (name, _) in &pairs {
        world.cluster.merge::<ExternalSecret>(name, &json!({ "metadata": { "annotations": { "keyferry.dev/refresh": "1" } } })).await;
    }
    for (name, _) in &pairs {
        world.cluster.holds(name, &[("value", value.bytes())]).await;
    }
    world.cluster.merge::<ExternalSecret>("twenty", &json!({ "metadata": { "annotations": { "keyferry.dev/refresh": "1" } } })).await;
    world.cluster.ready("twenty").await;
    judge(&aws.recorded(), &aws.keys());
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_of_aws_are_told_apart_and_keep_the_target() {
    let world = World::start().await;
    let aws = AwsServer::start();
    let user = aws.user("reader");
    let (one, two) = (world.canary(), world.canary());
    aws.put_secret("a", &text(&one));
    aws.put_secret("b", &text(&two));
    // Whoever may not read several reads one after the other.
    aws.deny(Denial::new(&user.arn, "secretsmanager:BatchGetSecretValue", "*"));
    let store = store(&world, &aws, &user, "SecretsManager").await;
    let singly = |store: &ClusterSecretStore| {
        store.status.as_ref().and_then(|status| status.capabilities).is_some_and(|able| able.read && !able.batch)
    };
    world.cluster.store(&store, "to say that it reads singly", singly).await;
    world.cluster.apply(&whole_values("both", &store, "  refreshInterval: 2s\n", &[("a", "a"), ("b", "b")])).await;
    world.cluster.holds("both", &[("a", one.bytes()), ("b", two.bytes())]).await;

    let fresh = |wanted: Option<&'static str>| {
        move |object: &ExternalSecret| match wanted {
            Some(reason) => reason_of(object, "Fresh", "False") == Some(reason),
            None => reason_of(object, "Fresh", "True").is_some(),
        }
    };
    let planned = [
        ("InternalServiceError", "An error occurred", "ProviderUnavailable"),
        ("ThrottlingException", "Rate exceeded", "Throttled"),
        ("ExpiredTokenException", "The security token included in the request is expired", "AccessDenied"),
        ("InvalidSignatureException", "Signature expired: 20261122T000000Z is now earlier than 20261122T000500Z", "AccessDenied"),
        ("UnrecognizedClientException", "The security token included in the request is invalid.", "AccessDenied"),
    ];
    for (kind, message, reason) in planned {
        // Others than the operator have no part in it: it is told once, and mended by a refresh by hand.
        aws.plan("GetSecretValue", 1_000_000, Failure::new(kind, message));
        world.cluster.external("both", kind, fresh(Some(reason))).await;
        world.cluster.holds("both", &[("a", one.bytes()), ("b", two.bytes())]).await;
        aws.plan_nothing();
        let token = json!({ "metadata": { "annotations": { "keyferry.dev/refresh": kind } } });
        world.cluster.merge::<ExternalSecret>("both", &token).await;
        world.cluster.external("both", "to be Fresh again", fresh(None)).await;
    }
    let key = json!({ "Name": "locked", "SecretString": text(&one), "KmsKeyId": "alias/locked" });
    aws.as_root(Service::SecretsManager, "CreateSecret", &key);
    for (state, reason) in [(KeyState::Denied, "AccessDenied"), (KeyState::Disabled, "Disabled")] {
        aws.allow_all();
        aws.break_key("alias/locked", state);
        let name = reason.to_lowercase();
        world.cluster.apply(&whole_values(&name, &store, "", &[("a", "locked")])).await;
        world.cluster.not_ready(&name, reason).await;
        world.cluster.delete::<ExternalSecret>(&name, &kube::api::DeleteParams::default()).await;
    }
    judge(&aws.recorded(), &aws.keys());
    world.finish().await;
}

/// Of both services, from our server and from moto.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_of_aws_is_valid_and_rightly_signed() {
    let world = World::start().await;
    let (aws, moto) = (world.aws("SecretsManager").await, world.moto("SecretsManager").await);
    let (own_parameters, motos_parameters) =
        (aws.apply_as(&world, "parameters", "ParameterStore", "").await, moto.apply_as(&world, "parameters", "ParameterStore", "").await);
    let values = [(); 8].map(|()| world.canary());
    for (number, value) in values[..3].iter().enumerate() {
        aws.server.put_secret(&format!("app/{number}"), &value.text);
        moto.server.admin().put_secret(&format!("app/{number}"), &values[3 + number].text).await;
    }
    aws.server.put_parameter("/app/token", "SecureString", &values[6].text);
    moto.server.admin().put_parameter("/app/token", "SecureString", &values[7].text).await;

    let three = [("k0", "app/0"), ("k1", "app/1"), ("k2", "app/2")];
    let token = [("k0", "/app/token")];
    for (name, store, keys) in [
        ("own", &aws.name, &three[..]),
        ("motos", &moto.name, &three),
        ("own-p", &own_parameters, &token),
        ("motos-p", &motos_parameters, &token),
    ] {
        world.cluster.apply(&whole_values(name, store, "", keys)).await;
    }
    for (name, expected) in [("own", &values[..3]), ("motos", &values[3..6]), ("own-p", &values[6..7]), ("motos-p", &values[7..])] {
        world.cluster.ready(name).await;
        let secret = world.cluster.get::<Secret>(name).await.expect("a target");
        let held: Vec<Vec<u8>> = data_of(&secret).into_values().collect();
        assert!(held.iter().map(Vec::as_slice).eq(expected.iter().map(Canary::bytes)), "{name} holds something else");
    }
    aws.judge();
    moto.judge();
    assert!(aws.server.count("BatchGetSecretValue") > 0 && aws.server.count("GetParameters") > 0, "{:?}", aws.server.counts());
    assert_eq!(aws.server.counts().values().sum::<usize>(), aws.proxy.calls().len(), "nobody goes past the proxy");
    world.finish().await;
}
