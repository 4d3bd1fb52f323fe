//! Parameter Store as objects meet it: how often it is asked, what of it becomes a ConfigMap, and one name that may not be read.

use std::fmt::Write as _;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use keyferry::crd::v1alpha1::{ExternalParameter, ExternalSecret};

use super::external;
use crate::backends::aws::admin::REGION;
use crate::backends::aws::gate::Denial;
use crate::backends::aws::judge::judge;
use crate::backends::aws::{AwsServer, User};
use crate::harness::{Canary, World, cluster::condition_is};
use crate::proxy::{Options, Proxy};

/// Below one path.
const MANY: usize = 300;

fn store(world: &World, name: &str, proxy: &Proxy) -> String {
    let namespace = world.namespace();
    let key = |key: &str| format!("{{name: aws-key, namespace: {namespace}, key: {key}}}");
    format!(
        "
kind: ClusterSecretStore
metadata: {{name: {name}}}
spec:
  conditions: [{{namespaces: [{namespace}]}}]
  provider:
    aws:
      service: ParameterStore
      region: {REGION}
      endpoint: {}
      caBundle: {}
      auth: {{secretRef: {{accessKeyIDSecretRef: {}, secretAccessKeySecretRef: {}}}}}",
        proxy.url(),
        BASE64_STANDARD.encode(proxy.ca_pem()),
        key("id"),
        key("secret")
    )
}

async fn put_credential(world: &World, user: &User) {
    world.source("aws-key", &Canary::plain(&user.key.secret));
    let (id, secret) = (&user.key.id, &user.key.secret);
    world.cluster.apply(&format!("kind: Secret\nmetadata: {{name: aws-key}}\nstringData: {{id: {id:?}, secret: {secret:?}}}")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_arrive_in_tens_and_a_secure_one_never_in_a_configmap() {
    let world = World::start().await;
    let aws = AwsServer::start();
    let proxy = Proxy::start(aws.url(), "", Options::aws());
    let reader = aws.user("reader");
    let (name, password) = (format!("{}-aws", world.namespace()), world.canary());
    aws.put_parameter("/shop/password", "SecureString", str::from_utf8(password.bytes()).expect("text"));
    aws.put_parameter("/shop/size", "String", "12");
    aws.put_parameter("/shop/zones", "StringList", "a,b");
    aws.put_parameter("/other/denied", "String", "no");
    for number in 0..MANY {
        aws.put_parameter(&format!("/many/{number:03}"), "String", &format!("v{number}"));
    }
    aws.deny(Denial::new(&reader.arn, "ssm:GetParameter*", "/other/denied"));
    put_credential(&world, &reader).await;
    world.cluster.apply(&store(&world, &name, &proxy)).await;
    world.sweep_later(&name);
    world.cluster.store_says(&name, "True", "Synced").await;

    aws.forget();
    world.cluster.apply(&external("many", &name, "  dataFrom:\n    - find: {path: /many}\n")).await;
    world.cluster.ready("many").await;
    let calls = (aws.count("GetParametersByPath"), aws.count("DescribeParameters"), aws.count("GetParameters"));
    assert!(calls.0 <= 31 && (calls.1, calls.2) == (0, 0), "{:?}", aws.counts());
    let mut named = String::from("  data:\n");
    for number in 0..MANY {
        writeln!(named, "    - {{secretKey: v{number}, remoteRef: {{key: /many/{number:03}}}}}").expect("a text");
    }
    aws.forget();
    world.cluster.apply(&external("named", &name, &named)).await;
    world.cluster.ready("named").await;
    assert!(aws.count("GetParameters") <= 31 && aws.counts().len() == 1, "{:?}", aws.counts());

    let entries = |keys: &[(&str, &str)]| {
        let entries = keys.iter().map(|(key, remote)| format!("    - {{secretKey: {key}, remoteRef: {{key: {remote}}}}}\n"));
        format!("  data:\n{}", entries.collect::<String>())
    };
    let all = [("password", "/shop/password"), ("size", "/shop/size"), ("zones", "/shop/zones")];
    world.cluster.apply(&external("shop", &name, &entries(&all))).await;
    world.cluster.apply(&external("denied", &name, &entries(&[("denied", "/other/denied")]))).await;
    let message = world.cluster.not_ready("denied", "AccessDenied").await;
    assert!(message.contains("/other/denied"), "{message}");
    world.cluster.ready("shop").await;
    world.cluster.holds("shop", &[("password", password.bytes()), ("size", b"12"), ("zones", b"a,b")]).await;

    let parameter = |object: &str, key: &str| {
        format!(
            "kind: ExternalParameter\nmetadata: {{name: {object}}}\nspec:\n  secretStoreRef: {{kind: ClusterSecretStore, name: {name}}}\n  data:\n    - {{key: value, remoteRef: {{key: {key}}}}}"
        )
    };
    world.cluster.apply(&parameter("size", "/shop/zones")).await;
    world.cluster.apply(&parameter("secure", "/shop/password")).await;
    world.cluster.ready_as::<ExternalParameter>("size").await;
    world.cluster.configures("size", &[("value", b"a,b")]).await;
    let message = world.cluster.not_ready_as::<ExternalParameter>("secure", "SensitiveValue").await;
    assert!(message.contains("value"), "the key is named: {message}");
    let delivered = |object: &ExternalSecret| condition_is(object, "Ready", "True");
    world.cluster.external("shop", "to be as it was", delivered).await;
    judge(&aws.recorded(), &aws.keys());
    world.finish().await;
}
