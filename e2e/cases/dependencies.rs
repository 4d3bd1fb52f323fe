//! What an object depends on besides its spec and its values: store, credential, authority, labels of its namespace. Each change is
//! noticed by the watches that there are anyway, also when it was made while nobody ran, and nothing is read at rest for it.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use keyferry::crd::v1alpha1::ExternalSecret;

use super::external;
use crate::harness::cluster::{condition_is, is_current, reason_of};
use crate::harness::{Canary, Settings, VaultStore, World};

/// Objects never look by themselves here: not by the clock, and not soon again after a look that failed.
const POLICIES: [(&str, &str); 2] = [("periodic", "refreshInterval: 24h"), ("on-change", "refreshPolicy: OnChange")];

/// What changes. Each has a store of its own over the same server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dependency {
    Store,
    Credential,
    AuthorityMap,
    AuthoritySecret,
    Labels,
}

use Dependency::{AuthorityMap, AuthoritySecret, Credential, Labels, Store};

/// What changes at the same time. Labels of a namespace wake everybody in it, and would hide who wakes nobody.
const TOGETHER: [&[Dependency]; 2] = [&[Store, Credential, AuthorityMap, AuthoritySecret], &[Labels]];

/// As what it stands there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Good,
    Bad,
    /// As good, and another.
    Other,
}

/// When it changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    Running,
    /// While the operator is dead.
    Down,
}

impl fmt::Display for Dependency {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Store => "store",
            Credential => "credential",
            AuthorityMap => "authority-map",
            AuthoritySecret => "authority-secret",
            Labels => "labels",
        })
    }
}

impl Dependency {
    /// What objects say while it is bad: which condition, and why.
    fn fault(self) -> (&'static str, &'static str) {
        match self {
            Store | Labels => ("Ready", "NotAllowed"),
            Credential => ("Fresh", "AccessDenied"),
            AuthorityMap | AuthoritySecret => ("Fresh", "ProviderUnavailable"),
        }
    }

    /// Each reads a key of its name: the look of one would tell the other.
    fn objects(self) -> [String; 2] {
        POLICIES.map(|(policy, _)| format!("{self}-{policy}"))
    }
}

struct Stage {
    world: World,
    vault: VaultStore,
    tokens: [String; 2],
    /// Certificates of another authority.
    stranger: String,
}

impl Stage {
    async fn set() -> Self {
        let settings = Settings::default().timing("backoff", "4m").timing("outage", "10m");
        let world = World::prepare(settings).await;
        let vault = world.vault().await;
        vault.apply(&world, "  refreshInterval: 0s").await;
        let second = vault.bao.create_token(r#"path "secret/*" { capabilities = ["read", "list"] }"#).await;
        let (tokens, stranger) = ([vault.token.clone(), second], world.proxy.ca_pem().to_owned());
        for token in &tokens {
            world.source("credential", &Canary::plain(token));
        }
        Self { world, vault, tokens, stranger }
    }

    fn store(&self, dependency: Dependency) -> String {
        format!("{}-{dependency}", self.world.namespace())
    }

    async fn put(&self, dependency: Dependency, state: State) {
        match dependency {
            Store => self.put_store(dependency, state).await,
            Credential => self.put_credential(state).await,
            AuthorityMap | AuthoritySecret => self.put_authority(dependency, state).await,
            Labels => self.put_labels(state).await,
        }
    }

    async fn put_store(&self, dependency: Dependency, state: State) {
        let (name, namespace, server) = (self.store(dependency), self.world.namespace(), self.vault.proxy.url());
        let authority = match dependency {
            AuthorityMap => format!("caProvider: {{type: ConfigMap, name: authority-map, namespace: {namespace}}}"),
            AuthoritySecret => format!("caProvider: {{type: Secret, name: authority-secret, namespace: {namespace}}}"),
            Store | Credential | Labels => format!("caBundle: {}", STANDARD.encode(self.vault.proxy.ca_pem())),
        };
        let secret = if dependency == Credential { "credential" } else { "bao-token" };
        let condition = match dependency {
            Labels => "{namespaceSelector: {matchLabels: {team: blue}}}".to_owned(),
            _ => format!("{{namespaces: [{namespace}]}}"),
        };
        let more = match state {
            State::Good => "allowedKeys: ['**']",
            State::Bad => "allowedKeys: ['elsewhere/**']",
            State::Other => "allowedKeys: ['**', 'elsewhere/**']",
        };
        let manifest = format!(
            "
kind: ClusterSecretStore
metadata: {{name: {name}}}
spec:
  refreshInterval: 0s
  provider:
    vault:
      server: {server}
      {authority}
      auth: {{tokenSecretRef: {{name: {secret}, namespace: {namespace}}}}}
  conditions: [{condition}]
  {more}"
        );
        self.world.cluster.apply(&manifest).await;
        self.world.sweep_later(&name);
    }

    async fn put_credential(&self, state: State) {
        let token = match state {
            State::Good => &self.tokens[0],
            State::Bad => "no-token-of-this-server",
            State::Other => &self.tokens[1],
        };
        self.world.cluster.apply(&format!("kind: Secret\nmetadata: {{name: credential}}\nstringData: {{token: {token}}}")).await;
    }

    async fn put_authority(&self, dependency: Dependency, state: State) {
        let right = self.vault.proxy.ca_pem();
        let pem = match state {
            State::Good => right.to_owned(),
            State::Bad => self.stranger.clone(),
            State::Other => format!("{right}{}", self.stranger),
        };
        let (kind, field) = if dependency == AuthorityMap { ("ConfigMap", "data") } else { ("Secret", "stringData") };
        let pem = serde_json::to_string(&pem).expect("a text");
        self.world.cluster.apply(&format!("kind: {kind}\nmetadata: {{name: {dependency}}}\n{field}: {{ca.crt: {pem}}}")).await;
    }

    async fn put_labels(&self, state: State) {
        let team = if state == State::Bad { "red" } else { "blue" };
        let labels = json!({ "metadata": { "labels": { "team": team, "shade": format!("{state:?}") } } });
        let namespaces = Api::<Namespace>::all(self.world.cluster.client.clone());
        let patched = namespaces.patch(self.world.namespace(), &PatchParams::default(), &Patch::Merge(labels)).await;
        patched.expect("a patch");
    }

    /// All of these are brought into one state, while the operator runs, or before its next start.
    async fn bring(&self, dependencies: &[Dependency], state: State, when: When) {
        if when == When::Down {
            self.world.operator.kill();
        }
        for dependency in dependencies {
            self.put(*dependency, state).await;
        }
        if when == When::Down {
            self.world.operator.start();
        }
    }

    async fn new_value(&self, dependencies: &[Dependency]) -> Canary {
        let value = self.world.canary();
        for object in dependencies.iter().flat_map(|dependency| dependency.objects()) {
            self.vault.kv().put(&object, &json!({ "v": value.text })).await;
        }
        value
    }

    async fn is_told(&self, dependencies: &[Dependency], when: When) {
        for dependency in dependencies {
            let (kind, reason) = dependency.fault();
            for object in dependency.objects() {
                let words = format!("to say {kind}=False, {reason}, {when:?}");
                self.world.cluster.external(&object, &words, |object| reason_of(object, kind, "False") == Some(reason)).await;
            }
        }
    }

    async fn is_delivered(&self, value: &Canary, dependencies: &[Dependency], when: When) {
        for object in dependencies.iter().flat_map(|dependency| dependency.objects()) {
            self.world.cluster.holds(&object, &[("v", value.bytes())]).await;
            let is_well = |object: &ExternalSecret| {
                is_current(object) && condition_is(object, "Ready", "True") && condition_is(object, "Fresh", "True")
            };
            self.world.cluster.external(&object, &format!("to be well, {when:?}"), is_well).await;
        }
    }

    /// At rest nobody asks the server or the API server for anything.
    async fn is_at_rest(&self) {
        // The stores' own checks and status may be a little behind their objects.
        self.world.a_while().await;
        self.world.a_while().await;
        let (mark, calls) = (self.world.audit.mark(), self.vault.proxy.calls_so_far());
        self.world.a_while().await;
        assert_eq!(self.vault.proxy.calls_so_far(), calls);
        let work = self.world.work_since(mark);
        assert!(work.is_empty(), "{work:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_of_a_dependency_is_noticed_while_the_operator_runs_and_while_it_does_not() {
    let stage = Stage::set().await;
    let all = TOGETHER.concat();
    let value = stage.new_value(&all).await;
    for dependency in all.iter().copied() {
        stage.put(dependency, State::Good).await;
        stage.put_store(dependency, State::Good).await;
        for (name, (_, policy)) in dependency.objects().iter().zip(POLICIES) {
            let line = format!("  {policy}\n  data: [{{secretKey: v, remoteRef: {{key: {name}, property: v}}}}]");
            stage.world.cluster.apply(&external(name, &stage.store(dependency), &line)).await;
        }
    }
    stage.world.operator.start();
    stage.is_delivered(&value, &all, When::Running).await;
    for (when, together) in [When::Running, When::Down].into_iter().flat_map(|when| TOGETHER.map(|together| (when, together))) {
        stage.is_at_rest().await;
        stage.bring(together, State::Bad, when).await;
        stage.is_told(together, when).await;
        let value = stage.new_value(together).await;
        stage.bring(together, State::Good, when).await;
        stage.is_delivered(&value, together, when).await;

        // Nothing failed, and nothing was due: what may be read now is seen by looking. Labels that admit as before change nothing.
        stage.is_at_rest().await;
        if together == [Labels] {
            stage.bring(together, State::Other, when).await;
        } else {
            let value = stage.new_value(together).await;
            stage.bring(together, State::Other, when).await;
            stage.is_delivered(&value, together, when).await;
        }
    }
    stage.is_at_rest().await;
    stage.world.finish().await;
}
