//! One test's world: its control plane, namespace, operator and stores, and the end of it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret, ServiceAccount};
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, ResourceExt};
use serde_json::Value;
use tempfile::TempDir;

use keyferry::crd::v1alpha1::{ClusterSecretStore, ExternalParameter, ExternalSecret, MANAGED_LABEL, SecretStore, SyncObject};

use super::audit::{Audit, Mark};
use super::canary::{Canary, random_hex};
use super::cluster::{Served, data_of, parameters_of};
use super::history::{self, History};
use super::operator::{Operator, Settings};
use super::plane::Lent;
use super::{AwsStore, Cluster, FileStore, VaultStore, oracle};
use crate::backends::aws::AwsServer;
use crate::backends::moto::Moto;
use crate::proxy::{Matcher, Options, Proxy};

/// Marks what belongs to tests, for the sweep.
const LABEL: &str = "keyferry-e2e";
/// Renewals of the Lease that an operator at rest lives through before it counts as at rest.
const RENEWALS: usize = 3;
/// Connections that an operator may hold: one per watch, the Lease's, and twice as many idle ones as it writes at once: the pool opens one
/// for each call that finds none free, and keeps it too when the call got another meanwhile.
const CONNECTIONS: u64 = 72;

/// See the module `harness`.
pub struct World {
    pub cluster: Cluster,
    pub audit: Audit,
    /// Between the operator and the API server.
    pub proxy: Proxy,
    pub operator: Operator,
    pub plane: Lent,
    /// Where this world began in the audit log.
    pub began: Mark,
    folder: Option<TempDir>,
    history: History,
    promises: Mutex<Promises>,
    is_finished: bool,
}

/// What the test declared.
#[derive(Default)]
struct Promises {
    /// Values that must stand in a target, and nowhere else.
    delivered: Vec<Canary>,
    /// Values that must stand nowhere at all, and the credentials that stand in a source.
    withheld: Vec<Canary>,
    /// Secrets of the test's own, whose data is not searched.
    sources: BTreeSet<String>,
    may_vanish: BTreeSet<String>,
    may_be_refused: bool,
    is_untruthful: BTreeSet<String>,
    cluster_stores: BTreeSet<String>,
}

impl World {
    /// A world with a running operator.
    pub async fn start() -> Self {
        Self::start_with(Settings::default()).await
    }

    pub async fn start_with(settings: Settings) -> Self {
        let world = Self::prepare(settings).await;
        world.operator.start();
        world
    }

    /// A world whose operator is not started yet.
    pub async fn prepare(settings: Settings) -> Self {
        let plane = Lent::next().await;
        let client = admin(&plane.kubeconfig).await;
        sweep(&client).await;
        let namespace = format!("t-{}", random_hex());
        let cluster = Cluster { client, namespace };
        cluster.apply(&format!("kind: Namespace\nmetadata: {{name: {}, labels: {{{LABEL}: world}}}}", cluster.namespace)).await;
        let audit = Audit::at(&plane.audit_log);
        let began = audit.mark();
        let proxy = Proxy::start(&plane.server, &plane.ca_pem, Options::kubernetes());
        let folder = TempDir::with_prefix_in("world-", env!("CARGO_TARGET_TMPDIR")).expect("a temporary folder");
        std::fs::create_dir(folder.path().join("root")).expect("a folder for stores");
        let settings = shortened(settings);
        let operator = Operator::new(folder.path(), &proxy, &operator_token(&cluster.client).await, settings);
        let history = History::begin(&cluster).await;
        Self {
            cluster,
            audit,
            proxy,
            operator,
            plane,
            began,
            folder: Some(folder),
            history,
            promises: Mutex::default(),
            is_finished: false,
        }
    }

    pub fn namespace(&self) -> &str {
        &self.cluster.namespace
    }

    /// The folder of this world: `root` (the operator's file root), `master-key`, `operator.log`.
    pub fn folder(&self) -> &Path {
        self.folder.as_ref().expect("kept to the end").path()
    }

    pub fn master_key(&self) -> PathBuf {
        self.folder().join("master-key")
    }

    /// A new encrypted file and the ClusterSecretStore over it that this namespace may use.
    pub async fn file_store(&self) -> FileStore {
        let name = format!("{}-file", self.namespace());
        self.file_store_named(&name, &format!("conditions: [{{namespaces: [{}]}}]", self.namespace())).await
    }

    /// The same with other lines in its spec, each indented by two spaces.
    pub async fn file_store_named(&self, name: &str, more: &str) -> FileStore {
        let store = FileStore::create(&self.folder().join("root"), &self.master_key(), name, name);
        let provider = format!("provider: {{file: {{path: {name}}}}}");
        self.cluster.apply(&format!("kind: ClusterSecretStore\nmetadata: {{name: {name}}}\nspec:\n  {provider}\n  {more}")).await;
        self.sweep_later(name);
        store
    }

    /// A new OpenBao, and the ClusterSecretStore over it that this namespace may use.
    pub async fn vault(&self) -> VaultStore {
        VaultStore::start(self).await
    }

    /// A new AWS of ours, and the ClusterSecretStore over it that this namespace may use. `service` is `SecretsManager` or
    /// `ParameterStore`.
    pub async fn aws(&self, service: &str) -> AwsStore<AwsServer> {
        AwsStore::start(self, service).await
    }

    /// The same over moto.
    pub async fn moto(&self, service: &str) -> AwsStore<Moto> {
        AwsStore::start_moto(self, service).await
    }

    /// A value that a target must hold before the end, and nothing else ever.
    pub fn canary(&self) -> Canary {
        self.deliver(Canary::new())
    }

    /// Like `canary`; no target may ever hold values of two generations.
    pub fn canary_of(&self, generation: u32) -> Canary {
        self.deliver(Canary::of_generation(generation))
    }

    /// The same for a value that was made before the world.
    pub fn deliver(&self, canary: Canary) -> Canary {
        self.promises().delivered.push(canary.clone());
        canary
    }

    /// A value that must not even reach a target.
    pub fn withheld(&self) -> Canary {
        self.withhold(Canary::new())
    }

    /// The same for a value that was made before the world.
    pub fn withhold(&self, canary: Canary) -> Canary {
        self.promises().withheld.push(canary.clone());
        canary
    }

    /// A Secret of the test's own that holds a credential.
    pub fn source(&self, name: &str, credential: &Canary) {
        let mut promises = self.promises();
        promises.sources.insert(name.to_owned());
        promises.withheld.push(credential.clone());
    }

    /// This target goes away in this test, and that is right.
    pub fn may_vanish(&self, target: &str) {
        self.promises().may_vanish.insert(target.to_owned());
    }

    /// The test makes the API server refuse requests of the operator.
    pub fn may_be_refused(&self) {
        self.promises().may_be_refused = true;
    }

    /// The test ends in a state that no status can know of: with the operator dead, or the target taken away behind its back.
    pub fn outruns_status(&self, object: &str) {
        self.promises().is_untruthful.insert(object.to_owned());
    }

    /// A cluster-wide store to remove at the end.
    pub fn sweep_later(&self, cluster_store: &str) {
        self.promises().cluster_stores.insert(cluster_store.to_owned());
    }

    fn promises(&self) -> MutexGuard<'_, Promises> {
        self.promises.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All that a watch saw up to now.
    pub async fn history(&self) -> &History {
        self.history.flush(&self.cluster).await;
        &self.history
    }

    /// What the operator asked of the API server since a mark, besides watching and its Lease: `verb group/resource` with counts.
    pub fn work_since(&self, mark: Mark) -> BTreeMap<String, usize> {
        self.audit.work_of_operator(mark)
    }

    /// Returns when the operator has renewed its Lease some times more: a while of its own clock.
    pub async fn a_while(&self) {
        let renewal = Matcher::any().verb("update").resource("leases");
        let done = |call: &&crate::proxy::Call| renewal.matches(call) && call.status == Some(200);
        let before = self.proxy.calls().iter().filter(done).count();
        self.proxy.await_calls(|calls| calls.iter().filter(done).count() >= before + RENEWALS).await;
    }

    /// The end of every test: the oracles, then the operator's graceful end.
    ///
    /// # Panics
    /// With everything that is wrong.
    pub async fn finish(mut self) {
        let mut wrong = Vec::new();
        if self.operator.is_running() {
            wrong.extend(self.unrest().await);
        }
        wrong.extend(self.untruths().await);
        wrong.extend(self.lost_and_mixed().await);
        wrong.extend(self.leaks().await);
        self.operator.stop().await;
        let open = self.proxy.await_seen(|seen| seen.connections_open == 0).await;
        assert_eq!(open.connections_open, 0);
        wrong.extend(oracle::panics(&self.operator.log()));
        let requests = self.audit.of_operator(self.began);
        oracle::note_used(&requests);
        if !self.promises().may_be_refused {
            wrong.extend(oracle::forbidden(&requests));
        }
        self.clean().await;
        self.is_finished = true;
        if !wrong.is_empty() {
            let log = self.keep_log();
            panic!("what must always hold does not:\n  {}\nlog: {}", wrong.join("\n  "), log.unwrap_or_default().display());
        }
    }

    async fn unrest(&self) -> Vec<String> {
        // What the last wait saw may be a moment before the operator's last word about it.
        self.a_while().await;
        let mark = self.audit.mark();
        self.a_while().await;
        let mut wrong = oracle::work_at_rest(&self.audit.of_operator(mark));
        let open = self.proxy.seen().connections_open;
        if open > CONNECTIONS {
            wrong.push(format!("{open} connections to the API server are open at rest"));
        }
        let holdings = self.operator.holdings();
        println!("at the end it holds {holdings:?}");
        wrong.extend(oracle::beyond_bounds(&holdings, self.promises().cluster_stores.len()));
        wrong
    }

    async fn untruths(&self) -> Vec<String> {
        let secrets = self.cluster.api::<Secret>().list(&ListParams::default()).await.expect("a list");
        let secrets = secrets.iter().map(|secret| (secret.name_any(), data_of(secret).into_keys().collect())).collect();
        let maps = self.cluster.api::<ConfigMap>().list(&ListParams::default()).await.expect("a list");
        let maps = maps.iter().map(|map| (map.name_any(), parameters_of(map).into_keys().collect())).collect();
        let mut untruths = self.untruths_of::<ExternalSecret>(&secrets).await;
        untruths.extend(self.untruths_of::<ExternalParameter>(&maps).await);
        untruths
    }

    async fn untruths_of<K: Served>(&self, keys: &BTreeMap<String, BTreeSet<String>>) -> Vec<String>
    where
        SyncObject: From<Arc<K>>,
    {
        let declared = self.promises().is_untruthful.clone();
        let objects = self.cluster.api::<K>().list(&ListParams::default()).await.expect("a list");
        let objects = objects.into_iter().filter(|object| !declared.contains(&object.name_any()));
        let checked = objects.flat_map(|object| {
            let target = SyncObject::from(Arc::new(object.clone())).target_name();
            oracle::untruths(&object, keys.get(&target))
        });
        checked.collect()
    }

    async fn lost_and_mixed(&self) -> Vec<String> {
        let sights = self.history().await.sights();
        history::faults(&sights, &self.promises().may_vanish)
    }

    async fn leaks(&self) -> Vec<String> {
        let (delivered, withheld, sources) = {
            let promises = self.promises();
            (promises.delivered.clone(), promises.withheld.clone(), promises.sources.clone())
        };
        let all: Vec<Canary> = delivered.iter().chain(&withheld).cloned().collect();
        let mut wrong = oracle::leaks(&all, "the operator's log", &self.operator.log());
        if self.operator.is_running() {
            wrong.extend(oracle::leaks(&all, "the page of metrics", &self.operator.metrics().await));
        }
        let is_exempt = |item: &Value| {
            let metadata = &item["metadata"];
            item["kind"] == "Secret"
                && (!metadata["labels"][MANAGED_LABEL].is_null() || metadata["name"].as_str().is_some_and(|name| sources.contains(name)))
        };
        for (place, list) in every_object(&self.cluster).await {
            wrong.extend(oracle::leaks(&all, &place, &oracle::text_of_objects(list, is_exempt)));
        }
        wrong.extend(oracle::undelivered(&delivered, &self.history.sights()));
        wrong
    }

    /// Takes away what later operators would see.
    async fn clean(&self) {
        let stores: Vec<String> = self.promises().cluster_stores.iter().cloned().collect();
        for store in stores {
            let _ = Api::<ClusterSecretStore>::all(self.cluster.client.clone()).delete(&store, &DeleteParams::default()).await;
        }
        sweep(&self.cluster.client).await;
    }

    /// Keeps the folder of a world that failed; none when it is kept already.
    fn keep_log(&mut self) -> Option<PathBuf> {
        Some(self.folder.take()?.keep().join("operator.log"))
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.operator.kill();
        if thread::panicking() {
            let words = self.operator.last_words();
            if let Some(log) = self.keep_log() {
                eprintln!("{words}\nlog: {}", log.display());
            }
        } else {
            assert!(self.is_finished, "a world ends with finish(): without the oracles a test shows little");
        }
    }
}

/// Faster where a test would only wait, and never where data is guarded.
fn shortened(settings: Settings) -> Settings {
    let is_set = settings.timings.iter().any(|(name, _)| name == "leaseRetry");
    if is_set { settings } else { settings.timing("leaseRetry", "250ms") }
}

pub async fn admin(kubeconfig: &Path) -> Client {
    let file = Kubeconfig::read_from(kubeconfig).expect("a kubeconfig");
    let config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.expect("a kubeconfig");
    Client::try_from(config).expect("a client")
}

/// The operator's own account, as a pod would have it.
pub async fn operator_token(client: &Client) -> String {
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), "keyferry-system");
    let request = TokenRequest { spec: TokenRequestSpec { expiration_seconds: Some(7200), ..Default::default() }, ..Default::default() };
    let answer = accounts.create_token_request("keyferry", &PostParams::default(), &request).await.expect("a token");
    answer.status.expect("a token").token
}

/// Removes what an earlier test left: no operator may find it.
async fn sweep(client: &Client) {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let ours = namespaces.list(&ListParams::default().labels(&format!("{LABEL}=world"))).await.expect("a list");
    for namespace in ours.iter().filter(|namespace| namespace.metadata.deletion_timestamp.is_none()) {
        let name = namespace.name_any();
        let (params, all) = (DeleteParams::default(), ListParams::default());
        Api::<ExternalSecret>::namespaced(client.clone(), &name).delete_collection(&params, &all).await.expect("a deletion");
        Api::<ExternalParameter>::namespaced(client.clone(), &name).delete_collection(&params, &all).await.expect("a deletion");
        Api::<SecretStore>::namespaced(client.clone(), &name).delete_collection(&params, &all).await.expect("a deletion");
        namespaces.delete(&name, &params).await.expect("a deletion");
    }
    let stores: Api<ClusterSecretStore> = Api::all(client.clone());
    stores.delete_collection(&DeleteParams::default(), &ListParams::default()).await.expect("a deletion");
    let leases: Api<Lease> = Api::namespaced(client.clone(), "keyferry-system");
    leases.delete_collection(&DeleteParams::default(), &ListParams::default()).await.expect("a deletion");
}

/// Every object of every kind in the test's namespace and the operator's, and our cluster-wide ones, by kind.
async fn every_object(cluster: &Cluster) -> Vec<(String, Value)> {
    let client = &cluster.client;
    let mut paths = vec!["/apis/keyferry.dev/v1alpha1/clustersecretstores".to_owned()];
    for group in groups(client).await {
        let Ok(resources) = get(client, &group).await else { continue };
        for resource in resources["resources"].as_array().into_iter().flatten() {
            let name = resource["name"].as_str().unwrap_or_default();
            let is_listed = resource["verbs"].as_array().is_some_and(|verbs| verbs.iter().any(|verb| verb == "list"));
            if is_listed && resource["namespaced"] == true {
                paths.push(format!("{group}/namespaces/{}/{name}", cluster.namespace));
                paths.push(format!("{group}/namespaces/keyferry-system/{name}"));
            }
        }
    }
    let mut lists = Vec::new();
    for path in paths {
        let mut list = get(client, &path).await.unwrap_or_else(|error| panic!("{path}: {error}"));
        // Items of a list do not say what they are.
        let kind = list["kind"].as_str().unwrap_or_default().trim_end_matches("List").to_owned();
        for item in list["items"].as_array_mut().into_iter().flatten() {
            item["kind"] = Value::String(kind.clone());
        }
        lists.push((path, list));
    }
    lists
}

async fn groups(client: &Client) -> Vec<String> {
    let groups = get(client, "/apis").await.expect("groups");
    let preferred =
        groups["groups"].as_array().into_iter().flatten().filter_map(|group| group["preferredVersion"]["groupVersion"].as_str());
    std::iter::once("/api/v1".to_owned()).chain(preferred.map(|version| format!("/apis/{version}"))).collect()
}

async fn get(client: &Client, path: &str) -> kube::Result<Value> {
    client.request(http::Request::get(path).body(Vec::new()).expect("a path")).await
}
