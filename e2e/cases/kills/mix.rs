//! The mix of one round: seven objects and a parameter, what people do to them, and what must come of it.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{DeleteParams, ListParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use keyferry::crd::v1alpha1::{ExternalParameter, ExternalSecret, SyncStatus};

use super::Stage;
use crate::harness::canary::generations;
use crate::harness::cluster::{condition_is, data_of, is_current, parameters_of, reason_of};
use crate::harness::history::{self, Sight};
use crate::proxy::Operation;

/// The objects that are there from the beginning.
const CREATED: [&str; 6] = ["plain", "pair", "moved", "left", "gone", "lost"];
/// Those that are there in the end: `left` and `gone` were deleted.
const IN_THE_END: [&str; 5] = ["plain", "pair", "moved", "lost", "fresh"];
/// Their targets, and the one that `left` leaves behind.
const TARGETS: [&str; 5] = ["plain", "pair", "moved-new", "left", "fresh"];
/// Targets that go, and never come back.
const GOING: [&str; 3] = ["moved-old", "gone", "lost"];
/// The parameter; the values of its ConfigMap are generations without a canary, because they are no secrets.
const PARAMETER: &str = "open";
/// The token of the second look.
const SECOND: &str = "second";

#[derive(Clone, Copy)]
pub(super) struct Mix<'a> {
    pub stage: &'a Stage,
    pub number: usize,
}

impl<'a> Mix<'a> {
    /// Each round has names of its own.
    fn named(self, name: &str) -> String {
        format!("{name}{}", suffix(self.number))
    }

    fn is_mine(self, name: &str) -> bool {
        name.ends_with(&suffix(self.number))
    }

    /// An operation of round 0, as this round will see it.
    pub fn of_this_round(self, operation: &Operation) -> Operation {
        let renamed = |text: &String| text.replace(&suffix(0), &suffix(self.number));
        Operation { name: renamed(&operation.name), resource: renamed(&operation.resource), ..operation.clone() }
    }

    fn value(self, generation: usize) -> &'a str {
        &self.stage.values[generation - 1].text
    }

    /// What people make first.
    pub async fn create(self) {
        let first = self.value(1);
        for key in ["plain", "left"] {
            self.stage.file.set(&self.named(key), first);
        }
        let kv = self.stage.bao.kv();
        kv.put(&self.named("pair"), &json!({ "a": first, "b": first })).await;
        for key in ["moved", "gone", "lost"] {
            kv.put(&self.named(key), &json!({ "v": first })).await;
        }
        let (file, bao) = (self.stage.file.name.as_str(), self.stage.bao.name.as_str());
        self.apply("plain", file, "refreshInterval: 1s", &[("v", "")]).await;
        self.configure().await;
        self.apply("pair", bao, "target: {creationPolicy: Owner}", &[("a", "a"), ("b", "b")]).await;
        self.apply("moved", bao, &format!("target: {{name: {}}}", self.named("moved-old")), &[("v", "v")]).await;
        self.apply("left", file, "target: {creationPolicy: Orphan}", &[("v", "")]).await;
        self.apply("gone", bao, "refreshPolicy: Periodic", &[("v", "v")]).await;
        self.apply("lost", bao, "refreshInterval: 1s\n  target: {deletionPolicy: Delete}", &[("v", "v")]).await;
    }

    async fn apply(self, name: &str, store: &str, line: &str, entries: &[(&str, &str)]) {
        let key = self.named(name);
        let entry = |(secret_key, property): &(&str, &str)| {
            let property = if property.is_empty() { String::new() } else { format!(", property: {property}") };
            format!("    - {{secretKey: {secret_key}, remoteRef: {{key: {key}{property}}}}}\n")
        };
        let entries: String = entries.iter().map(entry).collect();
        let store = format!("secretStoreRef: {{kind: ClusterSecretStore, name: {store}}}");
        let manifest = format!("kind: ExternalSecret\nmetadata: {{name: {key}}}\nspec:\n  {store}\n  {line}\n  data:\n{entries}");
        self.stage.world.cluster.apply(&manifest).await;
        // Its end is the round's own business: the world has no say in when it goes.
        for target in [name, "moved-old", "moved-new"] {
            self.stage.world.may_vanish(&self.named(target));
        }
    }

    /// A document, which a later value changes.
    async fn configure(self) {
        let (name, store) = (self.named(PARAMETER), &self.stage.file.name);
        self.set_parameter(1);
        let manifest = format!(
            "kind: ExternalParameter\nmetadata: {{name: {name}}}\nspec:\n  secretStoreRef: {{kind: ClusterSecretStore, name: {store}}}\n  \
             refreshInterval: 1s\n  target: {{format: Json, separator: .}}\n  data: [{{key: a.b, remoteRef: {{key: {name}}}}}]"
        );
        self.stage.world.cluster.apply(&manifest).await;
        self.stage.world.may_vanish(&name);
    }

    fn set_parameter(self, generation: usize) {
        self.stage.file.set(&self.named(PARAMETER), format!("#g{generation}."));
    }

    fn document(generation: usize) -> Vec<u8> {
        format!("{{\n  \"a\": {{\n    \"b\": \"#g{generation}.\"\n  }}\n}}\n").into_bytes()
    }

    /// All targets are there, and the status of each object says so.
    pub async fn is_created(self) {
        for name in CREATED {
            self.stage.world.cluster.ready(&self.named(name)).await;
        }
        self.stage.world.cluster.ready_as::<ExternalParameter>(&self.named(PARAMETER)).await;
    }

    /// What people do then.
    pub async fn change(self) {
        let (second, cluster, kv) = (self.value(2), &self.stage.world.cluster, self.stage.bao.kv());
        self.stage.file.set(&self.named("plain"), second);
        self.set_parameter(2);
        kv.put(&self.named("pair"), &json!({ "a": second, "b": second })).await;
        kv.remove(&self.named("lost")).await;
        for name in ["pair", "lost"] {
            let annotation = json!({ "metadata": { "annotations": { "keyferry.dev/refresh": SECOND } } });
            cluster.merge::<ExternalSecret>(&self.named(name), &annotation).await;
        }
        let rename = json!({ "spec": { "target": { "name": self.named("moved-new") } } });
        cluster.merge::<ExternalSecret>(&self.named("moved"), &rename).await;
        for name in ["left", "gone"] {
            cluster.delete::<ExternalSecret>(&self.named(name), &DeleteParams::default()).await;
        }
        self.stage.file.set(&self.named("fresh"), second);
        self.apply("fresh", &self.stage.file.name, "refreshInterval: 1s", &[("v", "")]).await;
    }

    /// All of it arrived, and the status of each object says so.
    pub async fn is_changed(self) {
        let (cluster, first, second) = (&self.stage.world.cluster, self.value(1).as_bytes(), self.value(2).as_bytes());
        cluster.holds(&self.named("plain"), &[("v", second)]).await;
        cluster.holds(&self.named("pair"), &[("a", second), ("b", second)]).await;
        cluster.holds(&self.named("moved-new"), &[("v", first)]).await;
        cluster.holds(&self.named("left"), &[("v", first)]).await;
        cluster.holds(&self.named("fresh"), &[("v", second)]).await;
        cluster.configures(&self.named(PARAMETER), &[("config.json", &Self::document(2))]).await;
        let is_told = |object: &ExternalParameter| {
            let names_its_target = object.status.iter().any(|status| status.target.as_ref().is_some_and(|target| target.uid.is_some()));
            is_current(object) && condition_is(object, "Ready", "True") && names_its_target
        };
        cluster.served::<ExternalParameter>(&self.named(PARAMETER), "to tell its end", is_told).await;
        for name in GOING {
            cluster.until::<Secret>(&self.named(name), "to be gone", |secret| secret.is_none()).await;
        }
        for name in IN_THE_END {
            let is_asked = ["pair", "lost"].contains(&name);
            let token = is_asked.then(|| SECOND.to_owned());
            let is_dealt_with = |object: &ExternalSecret| {
                let ready = if name == "lost" {
                    reason_of(object, "Ready", "False") == Some("NotFound")
                } else {
                    condition_is(object, "Ready", "True")
                };
                let uid = object.status.iter().find_map(|status| status.target.as_ref()?.uid.clone());
                let is_told = object.status.as_ref().is_some_and(|status| status.handled_refresh == token);
                is_current(object) && ready && is_told && uid.is_some() == (name != "lost")
            };
            cluster.external(&self.named(name), "to tell its end", is_dealt_with).await;
        }
    }

    /// Before anything was taken away, nothing is gone.
    pub async fn nothing_is_lost_yet(self) {
        let gone: Vec<Sight> = self.sights().await.into_iter().filter(|sight| sight.data.is_none()).collect();
        assert!(gone.is_empty(), "targets went before their time: {:?}", names(&gone));
    }

    /// Every object and every Secret of the round, without times and with the names of round 0.
    pub async fn end_state(self) -> BTreeMap<String, Value> {
        let cluster = &self.stage.world.cluster;
        let objects = cluster.api::<ExternalSecret>().list(&ListParams::default()).await.expect("a list");
        let secrets = cluster.api::<Secret>().list(&ListParams::default()).await.expect("a list");
        let mine = |name: &str| self.is_mine(name);
        let uids: BTreeMap<String, String> = objects.iter().map(|object| (object.uid().unwrap_or_default(), object.name_any())).collect();
        let targets: BTreeMap<String, String> =
            secrets.iter().map(|secret| (secret.uid().unwrap_or_default(), secret.name_any())).collect();
        let objects = objects.iter().filter(|object| mine(&object.name_any()));
        let objects = objects.map(|object| (format!("ExternalSecret {}", object.name_any()), of_status(object.status.as_ref(), &targets)));
        let secrets = secrets.iter().filter(|secret| mine(&secret.name_any()));
        let secrets = secrets.map(|secret| (format!("Secret {}", secret.name_any()), of_secret(secret, &uids)));
        let mut all: BTreeMap<String, Value> = objects.chain(secrets).collect();
        all.extend(self.end_of_the_parameter().await);
        assert_eq!(all.len(), IN_THE_END.len() + TARGETS.len() + 2, "{:?}", all.keys());
        let text = serde_json::to_string(&all).expect("JSON").replace(&suffix(self.number), &suffix(0));
        serde_json::from_str(&text).expect("JSON")
    }

    async fn end_of_the_parameter(self) -> [(String, Value); 2] {
        let (cluster, name) = (&self.stage.world.cluster, self.named(PARAMETER));
        let object = cluster.get::<ExternalParameter>(&name).await.expect("a parameter");
        let map = cluster.get::<ConfigMap>(&name).await.expect("its target");
        let targets = BTreeMap::from([(map.uid().unwrap_or_default(), name.clone())]);
        let uids = BTreeMap::from([(object.uid().unwrap_or_default(), name.clone())]);
        let (told, held) = (of_status(object.status.as_ref(), &targets), of_target(&map, parameters_of(&map), None, &uids));
        [(format!("ExternalParameter {name}"), told), (format!("ConfigMap {name}"), held)]
    }

    /// No state in between was one that nobody should see.
    pub async fn was_never_wrong(self) {
        let sights = self.sights().await;
        let going: BTreeSet<String> = GOING.iter().map(|name| self.named(name)).collect();
        let mut wrong = history::faults(&sights, &going);
        wrong.extend(relapses(&sights));
        let new_came = sights.iter().position(|sight| sight.name == self.named("moved-new") && sight.data.is_some());
        let old_went = sights.iter().position(|sight| sight.name == self.named("moved-old") && sight.data.is_none());
        if new_came.is_none() || new_came > old_went {
            wrong.push(format!("the renamed target: the new one came as {new_came:?}, the old one went as {old_went:?}"));
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    async fn sights(self) -> Vec<Sight> {
        let mut sights = self.stage.world.history().await.sights();
        sights.retain(|sight| self.is_mine(&sight.name));
        sights
    }

    /// Takes the objects away; owned targets follow them.
    pub async fn clean(self) {
        let cluster = &self.stage.world.cluster;
        for name in IN_THE_END {
            cluster.delete::<ExternalSecret>(&self.named(name), &DeleteParams::default()).await;
        }
        cluster.delete::<ExternalParameter>(&self.named(PARAMETER), &DeleteParams::default()).await;
        cluster.delete::<Secret>(&self.named("left"), &DeleteParams::default()).await;
    }
}

impl Stage {
    /// As if nobody had ever run here: what the first start makes, it makes anew.
    pub(super) async fn forget_everything(&self) {
        let client = &self.world.cluster.client;
        let leases: Api<Lease> = Api::namespaced(client.clone(), "keyferry-system");
        leases.delete_collection(&DeleteParams::default(), &ListParams::default()).await.expect("a deletion");
        let secrets: Api<Secret> = Api::namespaced(client.clone(), "keyferry-system");
        if secrets.get_opt("keyferry-digest-key").await.expect("a read").is_some() {
            secrets.delete("keyferry-digest-key", &DeleteParams::default()).await.expect("a deletion");
        }
    }
}

/// Whether the call is about the objects of the round.
pub(super) fn is_of_round_0(operation: &Operation) -> bool {
    operation.name.ends_with(&suffix(0)) || operation.resource.ends_with(&suffix(0))
}

fn suffix(number: usize) -> String {
    format!("-round{number:04}")
}

fn names(sights: &[Sight]) -> Vec<&str> {
    sights.iter().map(|sight| sight.name.as_str()).collect()
}

/// Targets that came back after they went, and values that came back after newer ones.
fn relapses(sights: &[Sight]) -> Vec<String> {
    let mut wrong = Vec::new();
    let (mut gone, mut newest) = (BTreeSet::new(), BTreeMap::<&str, u32>::new());
    for Sight { name, data, .. } in sights {
        let Some(data) = data else {
            gone.insert(name.as_str());
            continue;
        };
        if gone.contains(name.as_str()) {
            wrong.push(format!("{name} came back"));
        }
        let held = data.values().flat_map(|value| generations(&String::from_utf8_lossy(value))).max().unwrap_or_default();
        let before = newest.insert(name, held).unwrap_or_default();
        if held < before {
            wrong.push(format!("{name} went back from generation {before} to {held}"));
        }
    }
    wrong
}

fn of_status(status: Option<&SyncStatus>, targets: &BTreeMap<String, String>) -> Value {
    let status = status.expect("a status");
    let mut value = serde_json::to_value(status).expect("JSON");
    for condition in value["conditions"].as_array_mut().into_iter().flatten() {
        condition["lastTransitionTime"] = Value::Null;
    }
    value["lastChangeTime"] = Value::Null;
    let uid = status.target.as_ref().and_then(|target| target.uid.as_ref());
    value["target"]["uid"] = json!(uid.map(|uid| targets.get(uid).map_or("nobody's", String::as_str)));
    // It is made of UIDs.
    value["inputs"] = json!(status.inputs.is_some());
    value
}

fn of_secret(secret: &Secret, objects: &BTreeMap<String, String>) -> Value {
    of_target(secret, data_of(secret), secret.type_.as_deref(), objects)
}

fn of_target(target: &impl ResourceExt, data: BTreeMap<String, Vec<u8>>, kind: Option<&str>, objects: &BTreeMap<String, String>) -> Value {
    let data = data.into_iter().map(|(key, value)| (key, String::from_utf8_lossy(&value).into_owned()));
    let owners = target.owner_references().iter().map(|owner| json!([owner.kind, owner.name, objects.get(&owner.uid)]));
    let managers = target.managed_fields().iter().map(|entry| json!([entry.manager, entry.operation]));
    json!({
        "data": data.collect::<BTreeMap<_, _>>(),
        "type": kind,
        "labels": target.labels(),
        // The names of our annotations; their content is keyed.
        "annotations": target.annotations().len(),
        "owners": owners.collect::<Vec<_>>(),
        "managers": managers.collect::<Vec<_>>(),
    })
}
