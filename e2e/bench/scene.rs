//! What the rows share: one control plane with `config/default` in it, one OpenBao with its keys, the operator's account.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::{Api, Client};
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Namespace, Secret};
use keyferry::cluster::lease::CAUGHT_UP_ANNOTATION;
use keyferry::crd::v1alpha1::{ClusterSecretStore, ExternalSecret};

use super::objects::Many;
use super::program::Program;
use crate::backends::openbao::OpenBao;
use crate::harness::audit::{Audit, Mark, OPERATOR, Request};
use crate::harness::canary::random_hex;
use crate::harness::cluster::{condition_is, reason_of};
use crate::harness::plane::Lent;
use crate::harness::{Cluster, operator, world};
use crate::proxy::{Fault, Matcher, Nth, Options, Proxy, Rule};

/// What a call to OpenBao takes longer.
const LATENCY: Duration = Duration::from_millis(20);
/// What does not happen within this does not happen.
const PATIENCE: Duration = Duration::from_mins(5);
/// Between two looks at the audit log.
const BREATH: Duration = Duration::from_millis(5);
/// What is written into every key at first.
pub const TEXT: &str = "value of";

pub struct Scene {
    pub plane: Lent,
    pub client: Client,
    pub audit: Audit,
    pub bao: OpenBao,
    /// The token that stores read with.
    pub token: String,
    /// Path of the program `bare`.
    bare: String,
    account: String,
    folder: TempDir,
}

/// What the bare client needed.
pub struct Bare {
    /// From the start of its process to the last status.
    pub seconds: f64,
    /// Milliseconds of each object.
    pub each: Vec<f64>,
    pub processor: f64,
}

/// One namespace with a store over the shared OpenBao, behind a proxy of its own.
pub struct Stage {
    pub cluster: Cluster,
    pub store: String,
    pub proxy: Proxy,
    latency: Rule,
}

impl Scene {
    pub async fn open(bare: &str) -> Self {
        let (plane, bao) = (Lent::next().await, OpenBao::start().await);
        let client = world::admin(&plane.kubeconfig).await;
        let account = world::operator_token(&client).await;
        let folder = TempDir::with_prefix_in("bench-", env!("CARGO_TARGET_TMPDIR")).expect("a temporary folder");
        let kubeconfig = operator::kubeconfig(&plane.server, &plane.ca_pem, &account);
        operator::write_private(&folder.path().join("kubeconfig"), &kubeconfig.to_string());
        let token = bao.create_token(r#"path "secret/*" { capabilities = ["read", "list"] }"#).await;
        let audit = Audit::at(&plane.audit_log);
        Self { plane, client, audit, bao, token, bare: bare.to_owned(), account, folder }
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A new namespace and store.
    pub async fn stage(&self) -> Stage {
        let proxy = Proxy::start(self.bao.url(), self.bao.ca_pem(), Options::vault());
        let latency = delayed(&proxy);
        let cluster = self.namespace().await;
        let store = format!("{}-bao", cluster.namespace);
        let auth = format!("tokenSecretRef: {{name: bao-token, namespace: {}}}", cluster.namespace);
        cluster.apply(&format!("kind: Secret\nmetadata: {{name: bao-token}}\nstringData: {{token: {}}}", self.token)).await;
        let stage = Stage { cluster, store, proxy, latency };
        stage.apply_store(&auth).await;
        stage
    }

    /// The same stage with a store that logs in by AppRole.
    pub async fn stage_with_login(&self) -> Stage {
        const ROLE: &str = "auth/approle/role/bench";
        let stage = self.stage().await;
        // A second time it is there already.
        let _ = self.bao.call(Method::PUT, "sys/auth/approle", Some(&json!({ "type": "approle" }))).await;
        self.bao.write_policy("bench", r#"path "secret/*" { capabilities = ["read", "list"] }"#).await;
        let _ = self.bao.call(Method::PUT, ROLE, Some(&json!({ "token_policies": ["bench"], "token_ttl": "1h" }))).await;
        let id = self.bao.call(Method::GET, &format!("{ROLE}/role-id"), None).await.body["data"]["role_id"].clone();
        let secret = self.bao.call(Method::PUT, &format!("{ROLE}/secret-id"), Some(&json!({}))).await.body["data"]["secret_id"].clone();
        let namespace = &stage.cluster.namespace;
        stage.cluster.apply(&format!("kind: Secret\nmetadata: {{name: bao-role}}\nstringData: {{secretId: {secret}}}")).await;
        stage.apply_store(&format!("appRole: {{roleId: {id}, secretRef: {{name: bao-role, namespace: {namespace}}}}}")).await;
        stage
    }

    /// Takes away what a group left behind that did not come to its end.
    pub async fn sweep(&self) {
        let (delete, all) = (DeleteParams::default(), ListParams::default());
        let stores = Api::<ClusterSecretStore>::all(self.client.clone());
        stores.delete_collection(&delete, &all).await.expect("a deletion");
        let namespaces = Api::<Namespace>::all(self.client.clone());
        let ours = ListParams::default().labels("keyferry-e2e=world");
        for namespace in namespaces.list_metadata(&ours).await.expect("a list").items {
            let namespace = namespace.metadata.name.unwrap_or_default();
            clear(&Cluster { client: self.client.clone(), namespace }).await;
        }
    }

    pub async fn namespace(&self) -> Cluster {
        let cluster = Cluster { client: self.client.clone(), namespace: format!("t-{}", random_hex()) };
        cluster.apply(&format!("kind: Namespace\nmetadata: {{name: {}, labels: {{keyferry-e2e: world}}}}", cluster.namespace)).await;
        cluster
    }

    /// The operator, without a memory of an earlier one.
    pub async fn operator(&self) -> Program {
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), "keyferry-system");
        let _ = leases.delete("keyferry", &DeleteParams::default()).await;
        self.same_operator()
    }

    /// The same that may read files below this folder.
    pub async fn operator_with_files(&self, root: &Path) -> Program {
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), "keyferry-system");
        let _ = leases.delete("keyferry", &DeleteParams::default()).await;
        Program::start(self.folder(), Some(root))
    }

    /// Until when the operator that was killed a moment ago had looked at everything that was due, as its Lease says.
    pub async fn caught_up(&self) -> Option<Timestamp> {
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), "keyferry-system");
        let lease = leases.get("keyferry").await.expect("a Lease");
        lease.metadata.annotations?.get(CAUGHT_UP_ANNOTATION)?.parse().ok()
    }

    /// The operator that was killed a moment ago.
    pub fn same_operator(&self) -> Program {
        Program::start(self.folder(), None)
    }

    /// What the operator asked for since a mark.
    pub fn requests(&self, mark: Mark) -> Vec<Request> {
        self.audit.of_operator(mark)
    }

    /// Returns when each of the names has a status that the operator wrote since the mark and `Ready` is True in all, with the time of the last.
    pub async fn all_ready(&self, cluster: &Cluster, mark: Mark, names: &[String]) -> Timestamp {
        let last = self.statuses_of(cluster, mark, OPERATOR, names).await;
        let began = std::time::Instant::now();
        loop {
            let ready = named_with(cluster, "Ready", "True", None).await;
            if names.iter().all(|name| ready.contains(name)) {
                return last;
            }
            assert!(began.elapsed() < PATIENCE, "{} of {} are Ready", ready.len(), names.len());
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Returns when the operator has written a status of this object.
    pub async fn all_ready_soon(&self, cluster: &Cluster, mark: Mark, name: &str) {
        self.statuses_of(cluster, mark, OPERATOR, &[name.to_owned()]).await;
    }

    /// Returns when that user has written the status of each, with the time of the last of these first writes.
    async fn statuses_of(&self, cluster: &Cluster, mark: Mark, user: &str, names: &[String]) -> Timestamp {
        let mut left: BTreeSet<&str> = names.iter().map(String::as_str).collect();
        let (began, mut mark, mut last) = (std::time::Instant::now(), mark, Timestamp::UNIX_EPOCH);
        loop {
            let (requests, read) = self.audit.read(mark);
            mark = read;
            let written = requests.iter().filter(|request| request.user == user && is_status(request, &cluster.namespace));
            for request in written {
                if left.remove(request.name.as_str()) {
                    last = last.max(request.at);
                }
            }
            if left.is_empty() {
                return last;
            }
            assert!(began.elapsed() < PATIENCE, "{} of {} statuses were not written", left.len(), names.len());
            tokio::time::sleep(BREATH).await;
        }
    }

    /// Does the objects' work with the bare client.
    pub async fn bare_sync(&self, stage: &Stage, many: &Many, in_flight: usize) -> Bare {
        let mark = self.audit.mark();
        let vault = json!({ "url": stage.proxy.url(), "ca": stage.proxy.ca_pem(), "token": self.token });
        let sync = json!({ "namespace": stage.cluster.namespace, "names": many.names(), "in_flight": in_flight });
        let (started, said) = self.bare(&json!({ "kubernetes": self.server(), "vault": vault, "sync": sync })).await;
        let each = said["each_ms"].as_array().expect("times").iter().map(|time| time.as_f64().expect("a time")).collect();
        let statuses = self.audit.since(mark);
        let last = statuses.iter().filter(|request| is_status(request, &stage.cluster.namespace)).map(|request| request.at).max();
        Bare { seconds: seconds(started, last.expect("statuses")), each, processor: said["processor_s"].as_f64().expect("a time") }
    }

    /// Seconds that the bare client's whole process takes to list these paths, and the items.
    pub async fn bare_list(&self, lists: &[(String, bool)]) -> (f64, usize) {
        let began = std::time::Instant::now();
        let (_, said) = self.bare(&json!({ "kubernetes": self.server(), "list": lists })).await;
        let items = said["items"].as_u64().and_then(|items| usize::try_from(items).ok());
        (began.elapsed().as_secs_f64(), items.expect("a number"))
    }

    fn server(&self) -> Value {
        json!({ "url": self.plane.server, "ca": self.plane.ca_pem, "token": self.account })
    }

    async fn bare(&self, task: &Value) -> (Timestamp, Value) {
        let path = self.folder().join("task.json");
        operator::write_private(&path, &task.to_string());
        let started = Timestamp::now();
        let output =
            Command::new(&self.bare).arg(&path).stderr(Stdio::inherit()).kill_on_drop(true).output().await.expect("the bare client");
        assert!(output.status.success(), "the bare client ended with {}", output.status);
        (started, serde_json::from_slice(&output.stdout).expect("JSON"))
    }
}

impl Stage {
    /// Applies the store with this member of `auth`.
    pub async fn apply_store(&self, auth: &str) {
        let Self { cluster, store, proxy, .. } = self;
        let (server, ca, namespace) = (proxy.url(), STANDARD.encode(proxy.ca_pem()), &cluster.namespace);
        let provider = format!("{{server: '{server}', caBundle: {ca}, auth: {{{auth}}}}}");
        cluster
            .apply(&format!(
                "kind: ClusterSecretStore\nmetadata: {{name: {store}}}\nspec:\n  provider: {{vault: {provider}}}\n  conditions: [{{namespaces: [{namespace}]}}]"
            ))
            .await;
    }

    /// Makes objects whose keys have their names.
    pub async fn create(&self, interval: &str, prefix: &str, count: usize) -> Many {
        let many = Many::of_own_keys(&self.store, interval, prefix, count);
        many.create(&self.cluster).await;
        many
    }

    /// Takes everything away; no operator runs.
    pub async fn leave(self) {
        let stores = Api::<ClusterSecretStore>::all(self.cluster.client.clone());
        let _ = stores.delete(&self.store, &DeleteParams::default()).await;
        clear(&self.cluster).await;
    }

    /// From now on every call meets this instead of the latency.
    pub fn break_with(&self, fault: Fault) -> Rule {
        self.latency.withdraw();
        self.proxy.on(Matcher::any(), Nth::every(), fault).may_stay_silent()
    }

    /// From now on these calls, and no others, meet this.
    pub fn break_some(&self, matcher: Matcher, fault: Fault) -> Rule {
        self.latency.withdraw();
        self.proxy.on(matcher, Nth::every(), fault).may_stay_silent()
    }

    /// The end of what `break_with` began.
    pub fn mend(&mut self, broken: &Rule) {
        broken.withdraw();
        self.latency = delayed(&self.proxy);
    }

    /// The UID of its store.
    pub async fn store_uid(&self) -> String {
        let stores = Api::<ClusterSecretStore>::all(self.cluster.client.clone());
        stores.get(&self.store).await.expect("the store").metadata.uid.expect("a UID")
    }

    /// The Secret's UID of every target.
    pub async fn targets(&self) -> BTreeMap<String, String> {
        let secrets = self.cluster.api::<Secret>().list_metadata(&Default::default()).await.expect("a list");
        let named = |secret: &kube::core::PartialObjectMeta<Secret>| Some((secret.metadata.name.clone()?, secret.metadata.uid.clone()?));
        secrets.items.iter().filter_map(named).collect()
    }
}

fn delayed(proxy: &Proxy) -> Rule {
    proxy.on(Matcher::any(), Nth::every(), Fault::delay(LATENCY)).may_stay_silent()
}

/// A status of an object of the namespace that was written.
pub fn is_status(request: &Request, namespace: &str) -> bool {
    request.resource == "externalsecrets/status" && request.namespace == namespace && request.code == 200
}

pub fn seconds(from: Timestamp, to: Timestamp) -> f64 {
    to.duration_since(from).as_secs_f64()
}

/// A Secret that is nobody's of ours.
pub async fn create_foreign(cluster: &Cluster, name: &str, bytes: usize) {
    let secret: Secret =
        serde_json::from_value(json!({ "metadata": { "name": name }, "data": { "it": STANDARD.encode(vec![b'x'; bytes]) } }))
            .expect("a Secret");
    cluster.api().create(&PostParams::default(), &secret).await.unwrap_or_else(|error| panic!("{name}: {error}"));
}

/// The names of the namespace's objects of which a condition has this status (and reason, where one is given).
pub async fn named_with(cluster: &Cluster, kind: &str, status: &str, reason: Option<&str>) -> BTreeSet<String> {
    let objects = cluster.api::<ExternalSecret>().list(&ListParams::default()).await.expect("a list");
    let is_so = |object: &&ExternalSecret| match reason {
        Some(reason) => reason_of(*object, kind, status) == Some(reason),
        None => condition_is(*object, kind, status),
    };
    objects.iter().filter(is_so).filter_map(|object| object.metadata.name.clone()).collect()
}

/// Removes the objects and Secrets whose names begin so.
pub async fn clear_only(cluster: &Cluster, prefix: &str) {
    let (params, all) = (DeleteParams::background(), ListParams::default());
    let (objects, secrets): (Api<ExternalSecret>, Api<Secret>) = (cluster.api(), cluster.api());
    for object in objects.list_metadata(&all).await.expect("a list").items {
        let name = object.metadata.name.unwrap_or_default();
        if name.starts_with(prefix) {
            let _ = objects.delete(&name, &params).await;
            let _ = secrets.delete(&name, &params).await;
        }
    }
}

/// Removes objects and Secrets; returns when they are gone.
pub async fn clear(cluster: &Cluster) {
    let (params, all) = (DeleteParams::background(), ListParams::default());
    let objects: Api<ExternalSecret> = cluster.api();
    objects.delete_collection(&params, &all).await.expect("a deletion");
    let secrets: Api<Secret> = cluster.api();
    secrets.delete_collection(&params, &all).await.expect("a deletion");
    loop {
        let left =
            secrets.list_metadata(&all).await.expect("a list").items.len() + objects.list_metadata(&all).await.expect("a list").items.len();
        if left == 0 {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}
