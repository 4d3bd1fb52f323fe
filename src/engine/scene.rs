//! Fixtures of the pure stages: manifests through the real parsers, and an API server that accepts what a plan says.

use std::{collections::BTreeSet, sync::Arc};

use jiff::Timestamp;
use kube::runtime::{reflector::store::Writer, watcher::Event};
use serde_json::{Value, json};

use super::{
    plan::{Plan, Repairs, Seen, Snapshot, Step, plan},
    resolve::{Claims, Judged, World, judge, resolve},
};
use crate::{
    cluster::target::{Holder, TargetFacts, TargetIndex},
    crd::v1alpha1::{ExternalSecret, ExternalSecretStatus, SecretStore},
    digest::DigestKey,
    fault::Fault,
    item::{Fetched, Form, Reading, Sighting},
    secret::SecretValue,
};

/// One object, its store, its target and what is seen of its entries.
pub struct Scene {
    pub world: World,
    pub object: ExternalSecret,
    pub status: ExternalSecretStatus,
    pub snapshot: Snapshot,
    pub repairs: Repairs,
    pub key: DigestKey,
    pub now: Timestamp,
    stores: Writer<SecretStore>,
}

/// A fixed moment.
pub fn noon() -> Timestamp {
    "2026-01-01T12:00:00Z".parse().expect("a timestamp")
}

impl Scene {
    /// `spec` of an object `app` in namespace `team`, with a SecretStore `main` of provider `fake`.
    #[expect(clippy::needless_pass_by_value, reason = "fixtures are written where they are used")]
    pub fn new(spec: Value) -> Self {
        let mut stores = Writer::default();
        let secret_stores = stores.as_reader();
        let world = World {
            secret_stores,
            cluster_stores: Writer::default().as_reader(),
            namespaces: Writer::default().as_reader(),
            targets: TargetIndex::default(),
            claims: Claims::default(),
            protected: Arc::new(BTreeSet::new()),
        };
        stores.apply_watcher_event(&Event::Apply(store(1)));
        let mut scene = Self {
            world,
            object: object("app", "uid-app", &spec),
            status: ExternalSecretStatus::default(),
            snapshot: vec![],
            repairs: Repairs { window: std::time::Duration::from_secs(300), ..Repairs::default() },
            key: DigestKey::new(&[7; 32]),
            now: noon(),
            stores,
        };
        scene.world.claims.put(&scene.object);
        scene.snapshot = scene.object.spec.entries().map(|entries| vec![None; entries.len()]).unwrap_or_default();
        scene
    }

    /// Another object of the same namespace wants a target too; older than `app` if so.
    pub fn rival(self, name: &str, is_older: bool, spec: &Value) -> Self {
        let mut rival = object(name, &format!("uid-{name}"), spec);
        let created = if is_older { "2025-01-01T00:00:00Z" } else { "2027-01-01T00:00:00Z" };
        rival.metadata.creation_timestamp = serde_json::from_value(json!(created)).expect("a timestamp");
        self.world.claims.put(&rival);
        self
    }

    /// The store has another generation now.
    pub fn store_generation(mut self, generation: i64) -> Self {
        self.stores.apply_watcher_event(&Event::Apply(store(generation)));
        self
    }

    /// The spec is another one now.
    pub fn edit(mut self, spec: &Value) -> Self {
        self.object = object("app", "uid-app", spec);
        self.object.metadata.generation = Some(2);
        self.world.claims.put(&self.object);
        self.snapshot.resize_with(self.object.spec.entries().map_or(0, |entries| entries.len()), || None);
        self
    }

    /// Entry `at` shows that value.
    pub fn found(self, at: usize, value: &str) -> Self {
        let fetched = Fetched { value: SecretValue::from(value.to_owned()), form: Form::Whole, version: Some("3".to_owned()) };
        self.sees(at, Sighting::Value(Reading::Found(fetched)))
    }

    /// Entry `at` shows that sighting.
    pub fn sees(mut self, at: usize, sighting: Sighting) -> Self {
        self.snapshot[at] = Some(Seen { sighting, is_absence_confirmed: false, is_braked: false });
        self
    }

    /// Entry `at` is absent; twice if confirmed.
    pub fn absent(mut self, at: usize, fault: Fault, is_confirmed: bool, is_braked: bool) -> Self {
        let sighting = Sighting::Value(Reading::Absent(fault));
        self.snapshot[at] = Some(Seen { sighting, is_absence_confirmed: is_confirmed, is_braked });
        self
    }

    /// What stands under a target's name.
    pub fn target(self, name: &str, facts: TargetFacts) -> Self {
        self.world.targets.remove(&("team".to_owned(), name.to_owned()));
        self.world.targets.put(("team".to_owned(), name.to_owned()), facts, true);
        self
    }

    pub fn judged(&self) -> Judged {
        let request = resolve(&self.world, Arc::new(self.object.clone()), self.status.clone(), self.now);
        judge(request, &self.world.protected)
    }

    pub fn plan(&self) -> Plan {
        plan(&self.judged(), &self.snapshot, &self.key, &self.repairs)
    }

    /// Does what the plan says, as the API server would show it.
    pub fn apply(self) -> Self {
        let plan = self.plan();
        for step in &plan.steps {
            match step {
                Step::Write(write) => {
                    let facts = written(write);
                    self.world.targets.remove(&("team".to_owned(), write.body.name.clone()));
                    self.world.targets.put(("team".to_owned(), write.body.name.clone()), facts, true);
                }
                Step::Delete { name, .. } => {
                    self.world.targets.remove(&("team".to_owned(), name.clone()));
                }
            }
        }
        self
    }

    /// The target's metadata, changed by somebody.
    pub fn meddle(self, name: &str, change: impl FnOnce(&mut TargetFacts)) -> Self {
        let mut facts = (*self.world.targets.get(&("team".to_owned(), name.to_owned())).expect("a target")).clone();
        change(&mut facts);
        self.target(name, facts)
    }

    /// The status says that the target of that name was written.
    pub fn wrote(mut self, name: &str) -> Self {
        self.status.target = Some(crate::crd::v1alpha1::TargetStatus { name: name.to_owned(), uid: Some("uid-target".to_owned()) });
        self
    }
}

fn object(name: &str, uid: &str, spec: &Value) -> ExternalSecret {
    let manifest = json!({
        "apiVersion": "keyferry.dev/v1alpha1", "kind": "ExternalSecret", "spec": spec,
        "metadata": {"name": name, "namespace": "team", "uid": uid, "generation": 1, "resourceVersion": "5", "creationTimestamp": "2026-01-01T00:00:00Z"},
    });
    serde_json::from_value(manifest).expect("the fixture is a manifest")
}

fn store(generation: i64) -> SecretStore {
    let manifest = json!({
        "apiVersion": "keyferry.dev/v1alpha1", "kind": "SecretStore", "spec": {"provider": {"file": {"path": "a"}}},
        "metadata": {"name": "main", "namespace": "team", "uid": "uid-store", "generation": generation},
    });
    serde_json::from_value(manifest).expect("the fixture is a manifest")
}

pub fn written(write: &super::plan::Write) -> TargetFacts {
    TargetFacts {
        uid: "uid-target".to_owned(),
        resource_version: "100".to_owned(),
        is_deleting: false,
        has_label: true,
        owners: write.body.owner.iter().map(|owner| (owner.kind.clone(), owner.name.clone(), owner.uid.clone())).collect(),
        records: write.body.annotations.clone(),
        holders: vec![Holder {
            manager: write.manager.clone(),
            is_apply: true,
            keys: write.body.data.keys().cloned().collect(),
            time: Some(noon()),
        }],
    }
}

/// Metadata of a Secret that somebody else made.
pub fn foreign() -> TargetFacts {
    TargetFacts {
        uid: "uid-foreign".to_owned(),
        resource_version: "50".to_owned(),
        is_deleting: false,
        has_label: false,
        owners: vec![],
        records: std::collections::BTreeMap::new(),
        holders: vec![Holder { manager: "helm".to_owned(), is_apply: false, keys: BTreeSet::from(["a".to_owned()]), time: None }],
    }
}
