//! AWS as the operator sees it: through a fault proxy that names, counts and records its calls.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{Canary, World};
use crate::backends::aws::AwsServer;
use crate::backends::aws::judge::judge;
use crate::backends::aws::signature::Key;
use crate::backends::moto::Moto;
use crate::proxy::{Options, Proxy};

/// A server (moto, or ours), the proxy before it, and the ClusterSecretStore that names the proxy.
pub struct AwsStore<Server> {
    pub name: String,
    pub server: Server,
    pub proxy: Proxy,
    /// What stands in the Secret `key_name`.
    pub key: Key,
    pub key_name: &'static str,
}

impl AwsStore<AwsServer> {
    /// Our server, where the store is `arn:aws:iam::123456789012:user/reader`. `service` is `SecretsManager` or `ParameterStore`.
    pub async fn start(world: &World, service: &str) -> Self {
        let server = AwsServer::start();
        let key = server.user("reader").key;
        let url = server.url().to_owned();
        Self::before(world, service, server, &url, key, "aws").await
    }

    /// # Panics
    /// When botocore finds anything wrong with what was asked for or answered so far.
    pub fn judge(&self) {
        judge(&self.server.recorded(), &self.server.keys());
    }
}

impl AwsStore<Moto> {
    /// moto, where everybody may do everything.
    pub async fn start_moto(world: &World, service: &str) -> Self {
        let server = Moto::start().await;
        let key = Key::user("AKIAREADERREADERREAD", &format!("secret-{}", super::canary::random_hex()));
        let url = server.url().to_owned();
        Self::before(world, service, server, &url, key, "moto").await
    }

    /// # Panics
    /// When botocore finds anything wrong with what the store was asked for by its own key.
    pub fn judge(&self) {
        judge(&self.proxy.recorded(), std::slice::from_ref(&self.key));
    }
}

impl<Server> AwsStore<Server> {
    async fn before(world: &World, service: &str, server: Server, url: &str, key: Key, kind: &'static str) -> Self {
        let proxy = Proxy::start(url, "", Options::aws());
        let key_name = if kind == "aws" { "aws-key" } else { "moto-key" };
        let store = Self { name: format!("{}-{kind}", world.namespace()), server, proxy, key, key_name };
        world.source(key_name, &Canary::plain(&store.key.secret));
        store.write_key(world, &store.key).await;
        store.apply(world, service, "").await;
        store
    }

    /// Puts a key where the store finds it.
    pub async fn write_key(&self, world: &World, key: &Key) {
        let (id, secret) = (&key.id, &key.secret);
        let data = format!("{{access-key-id: {id}, secret-access-key: {secret}}}");
        world.cluster.apply(&format!("kind: Secret\nmetadata: {{name: {}}}\nstringData: {data}", self.key_name)).await;
    }

    /// Applies the store; `more` are further lines of its spec, such as `  allowedKeys: [app/*]`.
    pub async fn apply(&self, world: &World, service: &str, more: &str) {
        self.apply_named(world, &self.name, service, more).await;
    }

    /// Another store over the same server, with a session of its own; its name.
    pub async fn apply_as(&self, world: &World, name: &str, service: &str, more: &str) -> String {
        let name = format!("{}-{name}", self.name);
        self.apply_named(world, &name, service, more).await;
        name
    }

    async fn apply_named(&self, world: &World, name: &str, service: &str, more: &str) {
        let (namespace, endpoint, key) = (world.namespace(), self.proxy.url(), self.key_name);
        let ca = STANDARD.encode(self.proxy.ca_pem());
        world
            .cluster
            .apply(&format!(
                "
kind: ClusterSecretStore
metadata: {{name: {name}}}
spec:
  provider:
    aws:
      service: {service}
      region: eu-west-1
      endpoint: {endpoint}
      caBundle: {ca}
      auth:
        secretRef:
          accessKeyIDSecretRef: {{name: {key}, namespace: {namespace}}}
          secretAccessKeySecretRef: {{name: {key}, namespace: {namespace}}}
  conditions: [{{namespaces: [{namespace}]}}]
{more}"
            ))
            .await;
        world.sweep_later(name);
    }
}
