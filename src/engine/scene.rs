//! Fixtures of the pure stages: manifests through the real parsers, and an API server that accepts what a plan says.

use std::{collections::BTreeSet, sync::Arc};

use jiff::Timestamp;
use kube::{
    core::ObjectMeta,
    runtime::{reflector::store::Writer, watcher::Event},
};
use serde_json::{Value, json};

use super::{
    plan::{Plan, Repairs, Seen, Snapshot, Step, plan},
    resolve::{Claims, Judged, World, judge, resolve},
};
use crate::{
    cluster::target::{Holder, TargetFacts, TargetIndex, TargetName},
    crd::v1alpha1::{SecretStore, SyncObject, SyncStatus},
    digest::DigestKey,
    fault::Fault,
    item::{Fetched, Form, Reading, Sighting},
    name::ObjectKind,
    secret::SecretValue,
};

/// One object, its store, its target and what is seen of its entries.
pub struct Scene {
    pub world: World,
    pub object: SyncObject,
    pub status: SyncStatus,
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
    /// `spec` of an ExternalSecret `app` in namespace `team`, with a SecretStore `main` of provider `fake`.
    #[expect(clippy::needless_pass_by_value, reason = "fixtures are written where they are used")]
    pub fn new(spec: Value) -> Self {
        Self::of(ObjectKind::ExternalSecret, &spec)
    }

    /// The same with an ExternalParameter.
    #[expect(clippy::needless_pass_by_value, reason = "fixtures are written where they are used")]
    pub fn parameter(spec: Value) -> Self {
        Self::of(ObjectKind::ExternalParameter, &spec)
    }

    fn of(kind: ObjectKind, spec: &Value) -> Self {
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
            object: object(kind, "app", "uid-app", spec),
            status: SyncStatus::default(),
            snapshot: vec![],
            repairs: Repairs { window: std::time::Duration::from_secs(300), ..Repairs::default() },
            key: DigestKey::new(&[7; 32]),
            now: noon(),
            stores,
        };
        scene.world.claims.put(&scene.object);
        scene.snapshot = scene.object.entries().map(|entries| vec![None; entries.len()]).unwrap_or_default();
        scene
    }

    /// Another object of the same namespace wants a target too; older than `app` if so.
    pub fn rival(self, name: &str, is_older: bool, spec: &Value) -> Self {
        let mut rival = object(self.object.kind(), name, &format!("uid-{name}"), spec);
        let created = if is_older { "2025-01-01T00:00:00Z" } else { "2027-01-01T00:00:00Z" };
        metadata_mut(&mut rival).creation_timestamp = serde_json::from_value(json!(created)).expect("a timestamp");
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
        self.object = object(self.object.kind(), "app", "uid-app", spec);
        metadata_mut(&mut self.object).generation = Some(2);
        self.world.claims.put(&self.object);
        self.snapshot.resize_with(self.object.entries().map_or(0, |entries| entries.len()), || None);
        self
    }

    /// The object has another name.
    pub fn named(mut self, name: &str) -> Self {
        metadata_mut(&mut self.object).name = Some(name.to_owned());
        self
    }

    /// The object carries that annotation.
    pub fn annotated(mut self, name: &str, value: &str) -> Self {
        metadata_mut(&mut self.object).annotations = Some([(name.to_owned(), value.to_owned())].into());
        self
    }

    /// Entry `at` shows that value.
    pub fn found(self, at: usize, value: &str) -> Self {
        let fetched =
            Fetched { value: SecretValue::from(value.to_owned()), form: Form::Whole, version: Some("3".to_owned()), is_secret: false };
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
        let name = self.target_named(name);
        self.world.targets.remove(&name);
        self.world.targets.put(name, facts, true);
        self
    }

    /// What stands under that name.
    pub fn facts(&self, name: &str) -> TargetFacts {
        (*self.world.targets.get(&self.target_named(name)).expect("a target")).clone()
    }

    fn target_named(&self, name: &str) -> TargetName {
        TargetName::new(self.object.target_kind(), "team", name)
    }

    pub fn judged(&self) -> Judged {
        let request = resolve(&self.world, self.object.clone(), self.status.clone(), self.now);
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
                    self.world.targets.remove(&write.body.target);
                    self.world.targets.put(write.body.target.clone(), facts, true);
                }
                Step::Delete { target, .. } => {
                    self.world.targets.remove(target);
                }
            }
        }
        self
    }

    /// The target's metadata, changed by somebody.
    pub fn meddle(self, name: &str, change: impl FnOnce(&mut TargetFacts)) -> Self {
        let mut facts = self.facts(name);
        change(&mut facts);
        self.target(name, facts)
    }

    /// The status says that the target of that name was written.
    pub fn wrote(mut self, name: &str) -> Self {
        self.status.target = Some(crate::crd::v1alpha1::TargetStatus { name: name.to_owned(), uid: Some("uid-target".to_owned()) });
        self
    }
}

pub fn object(kind: ObjectKind, name: &str, uid: &str, spec: &Value) -> SyncObject {
    let manifest = json!({
        "apiVersion": "keyferry.dev/v1alpha1", "kind": kind.as_str(), "spec": spec,
        "metadata": {"name": name, "namespace": "team", "uid": uid, "generation": 1, "resourceVersion": "5", "creationTimestamp": "2026-01-01T00:00:00Z"},
    });
    match kind {
        ObjectKind::ExternalSecret => {
            SyncObject::Secret(serde_json::from_value(manifest).map(Arc::new).expect("the fixture is a manifest"))
        }
        ObjectKind::ExternalParameter => {
            SyncObject::Parameter(serde_json::from_value(manifest).map(Arc::new).expect("the fixture is a manifest"))
        }
    }
}

fn metadata_mut(object: &mut SyncObject) -> &mut ObjectMeta {
    match object {
        SyncObject::Secret(object) => &mut Arc::make_mut(object).metadata,
        SyncObject::Parameter(object) => &mut Arc::make_mut(object).metadata,
    }
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
        records: write.body.annotations.clone().into_iter().collect(),
        holders: vec![Holder {
            manager: write.manager.clone(),
            is_apply: true,
            keys: write.body.data.keys().cloned().collect(),
            time: Some(noon()),
        }],
    }
}

/// Metadata of a target that somebody else made.
pub fn foreign() -> TargetFacts {
    TargetFacts {
        uid: "uid-foreign".to_owned(),
        resource_version: "50".to_owned(),
        is_deleting: false,
        has_label: false,
        owners: vec![],
        records: vec![],
        holders: vec![Holder { manager: "helm".to_owned(), is_apply: false, keys: vec!["a".to_owned()], time: None }],
    }
}
