//! Every state that a test's Secrets, ConfigMaps and objects were ever in, as a watch saw them: what was wrong for a moment only is wrong, too.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::time::Duration;

use futures::{StreamExt, pin_mut};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::runtime::watcher::{self, Event};
use kube::{Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use keyferry::crd::v1alpha1::{ExternalSecret, MANAGED_LABEL};
use keyferry::name::TargetKind;

use super::canary;
use super::cluster::{Cluster, PATIENCE, data_of, parameters_of};

/// A Secret or ConfigMap at one moment; without data when it is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sight {
    pub kind: TargetKind,
    pub name: String,
    pub uid: String,
    pub is_managed: bool,
    pub data: Option<BTreeMap<String, Vec<u8>>>,
}

impl Sight {
    fn new(kind: TargetKind, target: &impl ResourceExt, data: Option<BTreeMap<String, Vec<u8>>>) -> Self {
        let is_managed = target.labels().contains_key(MANAGED_LABEL);
        Self { kind, name: target.name_any(), uid: target.uid().unwrap_or_default(), is_managed, data }
    }
}

/// The recorder of one namespace; ends when dropped.
pub struct History {
    sights: watch::Sender<Vec<Sight>>,
    objects: watch::Sender<Vec<ExternalSecret>>,
    tasks: Vec<JoinHandle<()>>,
}

impl History {
    /// Begins to record; from now on nothing is missed.
    pub async fn begin(cluster: &Cluster) -> Self {
        let (sights, objects) = (watch::Sender::new(Vec::new()), watch::Sender::new(Vec::new()));
        let tasks = vec![
            tokio::spawn(record(cluster.clone(), sights.clone(), |secret: &Secret, is_gone| {
                Sight::new(TargetKind::Secret, secret, (!is_gone).then(|| data_of(secret)))
            })),
            tokio::spawn(record(cluster.clone(), sights.clone(), |map: &ConfigMap, is_gone| {
                Sight::new(TargetKind::ConfigMap, map, (!is_gone).then(|| parameters_of(map)))
            })),
            tokio::spawn(record(cluster.clone(), objects.clone(), |object: &ExternalSecret, _| object.clone())),
        ];
        let history = Self { sights, objects, tasks };
        history.flush(cluster).await;
        history
    }

    /// Returns when everything that was written before is in here: a watch has an order.
    pub async fn flush(&self, cluster: &Cluster) {
        let name = format!("flush-{}", canary::random_hex());
        for kind in ["Secret", "ConfigMap"] {
            cluster.apply(&format!("kind: {kind}\nmetadata: {{name: {name}}}")).await;
        }
        let mut changes = self.sights.subscribe();
        let both = |sights: &Vec<Sight>| {
            [TargetKind::Secret, TargetKind::ConfigMap]
                .iter()
                .all(|kind| sights.iter().any(|sight| sight.kind == *kind && sight.name == name))
        };
        let seen = changes.wait_for(both);
        tokio::time::timeout(PATIENCE, seen).await.expect("the watches see what is written").expect("held here");
        cluster.delete::<Secret>(&name, &kube::api::DeleteParams::default()).await;
        cluster.delete::<ConfigMap>(&name, &kube::api::DeleteParams::default()).await;
    }

    /// All states of one Secret, in order.
    pub fn of(&self, name: &str) -> Vec<Sight> {
        self.sights.borrow().iter().filter(|sight| sight.kind == TargetKind::Secret && sight.name == name).cloned().collect()
    }

    pub fn sights(&self) -> Vec<Sight> {
        self.sights.borrow().clone()
    }

    /// All states of all ExternalSecrets, in order.
    pub fn objects(&self) -> Vec<ExternalSecret> {
        self.objects.borrow().clone()
    }
}

impl Drop for History {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

async fn record<K, T>(cluster: Cluster, into: watch::Sender<Vec<T>>, reduce: impl Fn(&K, bool) -> T)
where
    K: Resource<Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug + Send + 'static,
    K::DynamicType: Default,
{
    let (mut known, mut listed) = (BTreeMap::<String, K>::new(), BTreeSet::new());
    let events = watcher::watcher(cluster.api::<K>(), watcher::Config::default());
    pin_mut!(events);
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Apply(object)) => {
                into.send_modify(|all| all.push(reduce(&object, false)));
                known.insert(object.name_any(), object);
            }
            Ok(Event::Delete(object)) => {
                into.send_modify(|all| all.push(reduce(&object, true)));
                known.remove(&object.name_any());
            }
            Ok(Event::Init) => listed.clear(),
            Ok(Event::InitApply(object)) => {
                listed.insert(object.name_any());
                let is_new = known.get(&object.name_any()).is_none_or(|last| last.resource_version() != object.resource_version());
                if is_new {
                    into.send_modify(|all| all.push(reduce(&object, false)));
                    known.insert(object.name_any(), object);
                }
            }
            // What a new list does not hold went while nobody watched.
            Ok(Event::InitDone) => {
                let gone: Vec<String> = known.keys().filter(|name| !listed.contains(*name)).cloned().collect();
                for name in gone {
                    let object = known.remove(&name).expect("just seen");
                    into.send_modify(|all| all.push(reduce(&object, true)));
                }
            }
            // Tests kill the API server; the watch goes on when it is back.
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// What was wrong with the targets: gone though nobody may take them away, empty, or old and new at once.
pub fn faults(sights: &[Sight], may_vanish: &BTreeSet<String>) -> Vec<String> {
    let mut faults = Vec::new();
    for sight in sights.iter().filter(|sight| sight.is_managed) {
        let Sight { name, data, .. } = sight;
        let Some(data) = data else {
            if !may_vanish.contains(name) {
                faults.push(format!("target {name} was missing for a while"));
            }
            continue;
        };
        if data.is_empty() || data.values().any(Vec::is_empty) {
            faults.push(format!("target {name} was empty for a while"));
        }
        let generations: BTreeSet<u32> = data.values().flat_map(|value| canary::generations(&String::from_utf8_lossy(value))).collect();
        if generations.len() > 1 {
            faults.push(format!("target {name} held values of generations {generations:?} at once"));
        }
    }
    faults
}
