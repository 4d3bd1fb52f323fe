//! OpenBao as the operator sees it: through a fault proxy that counts.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{Canary, World};
use crate::backends::openbao::{Kv, OpenBao};
use crate::proxy::{Matcher, Options, Proxy};

/// A server, the proxy before it, and the ClusterSecretStore that names the proxy.
pub struct VaultStore {
    pub name: String,
    pub bao: OpenBao,
    pub proxy: Proxy,
    pub token: String,
}

impl VaultStore {
    /// Starts a server whose `secret/` this test's namespace may read; the token stands in the Secret `bao-token`.
    pub async fn start(world: &World) -> Self {
        let bao = OpenBao::start().await;
        let proxy = Proxy::start(bao.url(), bao.ca_pem(), Options::vault());
        let token = bao.create_token(r#"path "secret/*" { capabilities = ["read", "list"] }"#).await;
        let namespace = &world.cluster.namespace;
        let store = Self { name: format!("{namespace}-bao"), bao, proxy, token };
        world.source("bao-token", &Canary::plain(&store.token));
        store.write_token(world, &store.token).await;
        store.apply(world, "").await;
        store
    }

    /// Puts a token where the store finds it.
    pub async fn write_token(&self, world: &World, token: &str) {
        world.cluster.apply(&format!("kind: Secret\nmetadata: {{name: bao-token}}\nstringData: {{token: {token}}}")).await;
    }

    /// Applies the store; `more` are further lines of its spec, such as `  allowedKeys: [app/*]`.
    pub async fn apply(&self, world: &World, more: &str) {
        self.apply_named(world, &self.name, more).await;
    }

    /// Another store over the same server, with a session of its own; its name.
    pub async fn apply_as(&self, world: &World, name: &str, more: &str) -> String {
        let name = format!("{}-{name}", self.name);
        self.apply_named(world, &name, more).await;
        name
    }

    async fn apply_named(&self, world: &World, name: &str, more: &str) {
        let (namespace, server) = (&world.cluster.namespace, self.proxy.url());
        let ca = STANDARD.encode(self.proxy.ca_pem());
        world
            .cluster
            .apply(&format!(
                "
kind: ClusterSecretStore
metadata: {{name: {name}}}
spec:
  provider:
    vault:
      server: {server}
      caBundle: {ca}
      auth: {{tokenSecretRef: {{name: bao-token, namespace: {namespace}}}}}
  conditions: [{{namespaces: [{namespace}]}}]
{more}"
            ))
            .await;
        world.sweep_later(name);
    }

    pub fn kv(&self) -> Kv<'_> {
        self.bao.kv()
    }

    /// How often a key of `secret/` was looked at.
    pub fn looks(&self, key: &str) -> usize {
        self.proxy.count(&Self::look(key))
    }

    /// Looks at a key of `secret/`, by value or by metadata.
    pub fn look(key: &str) -> Matcher {
        let (data, metadata) = (format!("secret/data/{key}"), format!("secret/metadata/{key}"));
        Matcher::any().when(&format!("a look at {key}"), move |call| call.operation.resource == data || call.operation.resource == metadata)
    }
}
