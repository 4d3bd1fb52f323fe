//! The subject of provider `kubernetes`: a namespace of its own on the real API server, behind a fault proxy. What rows call `app/db` is
//! the Secret `app.db`: names have no folders.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use base64::{Engine, prelude::BASE64_STANDARD};
use k8s_openapi::{
    ByteString,
    api::{
        authentication::v1::{TokenRequest, TokenRequestSpec},
        core::v1::{Namespace, Secret, ServiceAccount},
    },
};
use keyferry::{
    access::Role,
    backend::{Backend, Credentials, Settings, open},
    crd::v1alpha1::{KubernetesAuth, KubernetesProvider, KubernetesServer, KubernetesToken, Provider, SecretKeyRef},
    fault,
    name::{ProviderKind, StoreName},
    secret::SecretValue,
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use super::{
    subject::{CANARY, Damage, Payload, Subject, Written},
    wire::{Voice, Wire},
};
use crate::{
    harness::{Cluster, World},
    proxy::{Answer, Call, Matcher, Options},
};

/// One API server for all cells, and who reads there.
pub struct ApiServer {
    world: World,
    reader: String,
    nobody: String,
}

/// What the documentation tells people to grant to who reads a whole cluster.
const READER: &str = r#"
apiVersion: v1
kind: ServiceAccount
metadata: {name: reader}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: nobody}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: keyferry-contract}
rules:
  - {apiGroups: [""], resources: [secrets, configmaps], verbs: [get, list, watch]}
  - {apiGroups: [""], resources: [namespaces], verbs: [get]}"#;

impl ApiServer {
    pub async fn start() -> Self {
        let world = World::prepare(crate::harness::Settings::default()).await;
        world.cluster.apply(READER).await;
        let namespace = world.namespace().to_owned();
        world
            .cluster
            .apply(&format!(
                "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRoleBinding\nmetadata: {{name: keyferry-contract}}\n\
                 roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: keyferry-contract}}\n\
                 subjects: [{{kind: ServiceAccount, name: reader, namespace: {namespace}}}]"
            ))
            .await;
        let (reader, nobody) = (token(&world.cluster, "reader").await, token(&world.cluster, "nobody").await);
        Self { world, reader, nobody }
    }

    /// Takes away what is cluster-wide.
    pub async fn finish(self: Arc<Self>) {
        let Ok(server) = Arc::try_unwrap(self) else { panic!("a cell still holds the API server") };
        let client = server.world.cluster.client.clone();
        let bindings: Api<k8s_openapi::api::rbac::v1::ClusterRoleBinding> = Api::all(client.clone());
        bindings.delete("keyferry-contract", &DeleteParams::default()).await.expect("a deletion");
        let roles: Api<k8s_openapi::api::rbac::v1::ClusterRole> = Api::all(client);
        roles.delete("keyferry-contract", &DeleteParams::default()).await.expect("a deletion");
        server.world.finish().await;
    }
}

pub(crate) async fn token(cluster: &Cluster, account: &str) -> String {
    let accounts: Api<ServiceAccount> = cluster.api();
    let request = TokenRequest { spec: TokenRequestSpec { expiration_seconds: Some(3600), ..Default::default() }, ..Default::default() };
    let answer = accounts.create_token_request(account, &PostParams::default(), &request).await.expect("a token");
    answer.status.expect("a token").token
}

pub struct Kubernetes {
    server: Arc<ApiServer>,
    wire: Wire,
    namespace: String,
    token: Option<String>,
    can_be_mended: bool,
}

const VOICE: Voice = Voice {
    error: |code| json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "message": CANARY, "code": code }),
    endless_list: Some(more_secrets),
    list_verb: "list",
};

/// A thousand new names per page, and another page.
fn more_secrets(call: &Call) -> Answer {
    let item = |number: usize| json!({ "metadata": { "name": format!("s{}-{number}", call.id), "resourceVersion": "1" } });
    let items: Vec<Value> = (0..1000).map(item).collect();
    let metadata = json!({ "resourceVersion": "1", "continue": format!("page {}", call.id) });
    Answer::json(200, &json!({ "kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": metadata, "items": items }))
}

impl Kubernetes {
    pub async fn start(server: Arc<ApiServer>) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(1);
        let namespace = format!("{}-{}", server.world.namespace(), COUNT.fetch_add(1, Ordering::SeqCst));
        let manifest = format!("kind: Namespace\nmetadata: {{name: {namespace}, labels: {{keyferry-e2e: world}}}}");
        server.world.cluster.apply(&manifest).await;
        let wire = Wire::before(&server.world.plane.server, &server.world.plane.ca_pem, Options::kubernetes(), VOICE);
        let token = Some(server.reader.clone());
        Self { server, wire, namespace, token, can_be_mended: true }
    }

    fn api(&self) -> Api<Secret> {
        Api::namespaced(self.server.world.cluster.client.clone(), &self.namespace)
    }
}

/// What a read gives of a Secret with the one key `value`.
fn document(bytes: &[u8]) -> Vec<u8> {
    let value = match std::str::from_utf8(bytes) {
        Ok(text) => json!(text),
        Err(_) => json!({ "base64": BASE64_STANDARD.encode(bytes) }),
    };
    json!({ "value": value }).to_string().into_bytes()
}

#[async_trait]
impl Subject for Kubernetes {
    fn keys(&self) -> ProviderKind {
        ProviderKind::Kubernetes
    }

    fn spell(&self, key: &str) -> String {
        key.replace('/', ".")
    }

    fn open(&self) -> Result<Arc<dyn Backend>, fault::Fault> {
        let bearer_token = SecretKeyRef { name: "t".into(), key: None, namespace: None };
        let spec = KubernetesProvider {
            server: Some(KubernetesServer {
                url: Some(self.wire.url().into()),
                ca_bundle: Some(BASE64_STANDARD.encode(&self.wire.ca_pem)),
                ca_provider: None,
            }),
            remote_namespace: Some(self.namespace.clone()),
            auth: Some(KubernetesAuth { token: Some(KubernetesToken { bearer_token }), ..KubernetesAuth::default() }),
            auth_ref: None,
        };
        let settings = Settings { call_timeout: self.wire.deadline, ..Settings::default() };
        let secrets = self.token.clone().map(|token| (Role::Token, SecretValue::from(token))).into_iter().collect();
        let name = StoreName::Cluster { name: "contract".into() };
        open(&name, Provider::Kubernetes(&spec), &Credentials { secrets, tokens: None }, &settings)
    }

    async fn write(&mut self, key: &str, payload: &Payload) -> Written {
        let name = self.spell(key);
        let mut secret = Secret { data: Some([("value".to_owned(), ByteString(payload.bytes()))].into()), ..Secret::default() };
        secret.metadata.name = Some(name.clone());
        let params = PatchParams::apply("the-test").force();
        let written = self.api().patch(&name, &params, &Patch::Apply(&secret)).await.expect("a write");
        Written { bytes: document(&payload.bytes()), version: None, told: written.resource_version() }
    }

    async fn write_outside(&mut self) {
        let manifest = format!("kind: Secret\nmetadata: {{name: x}}\nstringData: {{value: {CANARY}}}");
        self.server.world.cluster.apply(&manifest).await;
    }

    async fn remove(&mut self, key: &str) {
        self.api().delete(&self.spell(key), &DeleteParams::default()).await.expect("a deletion");
    }

    async fn damage(&mut self, damage: Damage) {
        if self.wire.damage(damage) {
            return;
        }
        match damage {
            Damage::Denied => self.token = Some(self.server.nobody.clone()),
            // As one whose signature is another's: the API server takes none of its own back within seconds.
            Damage::Expired => self.token = Some(format!("{}x", self.server.reader)),
            Damage::NoCredential => self.token = None,
            Damage::NoParent => {
                let namespaces: Api<Namespace> = Api::all(self.server.world.cluster.client.clone());
                namespaces.delete(&self.namespace, &DeleteParams::default()).await.expect("a deletion");
                // Until then what is in it can be read.
                let inside = Cluster { namespace: self.namespace.clone(), ..self.server.world.cluster.clone() };
                inside.until::<Secret>("app.db", "to go with its namespace", |secret| secret.is_none()).await;
            }
            other => unreachable!("{other:?}"),
        }
        self.can_be_mended = false;
    }

    async fn mend(&mut self) -> bool {
        self.wire.mend();
        self.can_be_mended
    }

    /// Reads of values, and the connections that they took; the watch has its own.
    fn traffic(&self) -> (u64, usize) {
        let (calls, read) = (self.wire.proxy.calls(), Matcher::any().verb("get"));
        let reads: Vec<&Call> = calls.iter().filter(|call| read.matches(call)).collect();
        let connections: BTreeSet<u64> = reads.iter().map(|call| call.connection).collect();
        (connections.len() as u64, reads.len())
    }

    fn secrets(&self) -> Vec<String> {
        self.token.iter().cloned().collect()
    }
}
