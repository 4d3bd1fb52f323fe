//! From what the watches see to the objects that it concerns. What did not change wakes nobody.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use futures::{
    FutureExt, Stream, StreamExt,
    future::{BoxFuture, join_all, select_all},
    pin_mut,
};
use k8s_openapi::api::core::v1::Namespace;
use kube::{Resource, ResourceExt, core::PartialObjectMeta, runtime::watcher::Event};
use tokio::sync::oneshot;

use super::{
    Arrivals,
    memory::Memories,
    objects::{self, Listing, ObjectEvents, Objects, Trigger},
    stores::{StoreMemories, StoreTrigger},
};
use crate::{
    access::{Holder, HolderKind},
    cluster::{
        Cluster,
        target::{TargetIndex, TargetName},
        watch::TargetEvent,
    },
    crd::v1alpha1::{CONFIRM_ABSENCE_ANNOTATION, ClusterSecretStore, SecretStore},
    engine::{
        fetch::Sessions,
        resolve::{Claims, World, stores_of},
    },
    name::{ObjectKey, ObjectKind, StoreName, TargetKind},
    refresh::Refresh,
};

/// The watches and what they feed.
pub struct Watches {
    pub objects: Objects,
    pub world: World,
    pub memories: Memories,
    pub stores: StoreMemories,
    pub trigger: Trigger,
    /// All of them; ends only when one of them does.
    pub tasks: BoxFuture<'static, ()>,
    /// Resolves when every cache holds a full list; false when one of them never will.
    pub synced: BoxFuture<'static, bool>,
}

impl Watches {
    /// For each kind of object one watch of it and one of its targets' metadata; ConfigMaps, both kinds of stores, and namespaces.
    pub fn new(
        cluster: &Cluster,
        kinds: &BTreeSet<ObjectKind>,
        protected: BTreeSet<String>,
        (trigger, store_trigger): (Trigger, StoreTrigger),
        sessions: Sessions,
        refresh: Refresh,
        arrivals: Arrivals,
    ) -> Self {
        let objects = Objects::default();
        let (secret_stores, store_events) = cluster.reflect::<SecretStore>();
        let (cluster_stores, cluster_store_events) = cluster.reflect::<ClusterSecretStore>();
        let (namespaces, namespace_events) = cluster.namespaces();
        let world = World {
            secret_stores,
            cluster_stores,
            namespaces,
            targets: TargetIndex::default(),
            claims: Claims::default(),
            protected: Arc::new(protected),
        };
        let (memories, stores) = (Memories::default(), StoreMemories::default());
        let watcher = Watcher {
            objects: objects.clone(),
            world: world.clone(),
            memories: memories.clone(),
            stores: stores.clone(),
            trigger: trigger.clone(),
            store_trigger,
            sessions,
            refresh,
            arrivals,
        };
        let mut tasks = Vec::new();
        let mut listed = Vec::new();
        // A store's authority may stand in a ConfigMap, whatever is served.
        for kind in kinds.iter().map(|kind| kind.target()).chain([TargetKind::ConfigMap]).collect::<BTreeSet<_>>() {
            let (sender, receiver) = oneshot::channel();
            tasks.push(watcher.clone().targets(kind, cluster.targets(kind), sender).boxed());
            listed.push(receiver);
        }
        for (kind, events) in objects::watches(cluster, kinds) {
            let (sender, receiver) = oneshot::channel();
            tasks.push(watcher.clone().objects(kind, events, sender).boxed());
            listed.push(receiver);
        }
        let own = |store: &SecretStore| StoreName::Namespaced { namespace: store.namespace().unwrap_or_default(), name: store.name_any() };
        tasks.push(watcher.clone().stores(store_events, own).boxed());
        let shared = |store: &ClusterSecretStore| StoreName::Cluster { name: store.name_any() };
        tasks.push(watcher.clone().stores(cluster_store_events, shared).boxed());
        tasks.push(watcher.namespaces(namespace_events).boxed());
        let synced = synced(world.clone(), listed).boxed();
        Self { objects, world, memories, stores, trigger, tasks: select_all(tasks).map(drop).boxed(), synced }
    }
}

async fn synced(world: World, listed: Vec<oneshot::Receiver<()>>) -> bool {
    world.secret_stores.wait_until_ready().await.is_ok()
        && world.cluster_stores.wait_until_ready().await.is_ok()
        && world.namespaces.wait_until_ready().await.is_ok()
        && join_all(listed).await.iter().all(Result::is_ok)
}

/// What the handlers of events work on.
#[derive(Clone)]
struct Watcher {
    objects: Objects,
    world: World,
    memories: Memories,
    stores: StoreMemories,
    trigger: Trigger,
    store_trigger: StoreTrigger,
    sessions: Sessions,
    refresh: Refresh,
    arrivals: Arrivals,
}

/// The last known mark of each thing of a kind: an event that leaves it as it was is no news.
struct Marks<K, M> {
    known: HashMap<K, M>,
    /// During a full list: what it showed.
    listed: Option<HashMap<K, M>>,
}

/// What an event means.
struct News<K> {
    changed: Vec<K>,
    gone: Vec<K>,
}

impl<K: Clone + Eq + std::hash::Hash, M: PartialEq> Marks<K, M> {
    fn new() -> Self {
        Self { known: HashMap::new(), listed: None }
    }

    /// Takes an event in. During a full list nothing is news until the list is complete, because the cache changes only then.
    fn take<T>(&mut self, event: &Event<T>, mark: impl Fn(&T) -> (K, M)) -> News<K> {
        let mut news = News { changed: Vec::new(), gone: Vec::new() };
        match event {
            Event::Init => self.listed = Some(HashMap::new()),
            Event::InitApply(thing) => {
                let (key, mark) = mark(thing);
                self.listed.get_or_insert_default().insert(key, mark);
            }
            Event::InitDone => {
                let listed = self.listed.take().unwrap_or_default();
                news.gone = self.known.keys().filter(|key| !listed.contains_key(*key)).cloned().collect();
                news.changed =
                    listed.iter().filter(|(key, mark)| self.known.get(*key) != Some(*mark)).map(|(key, _)| key.clone()).collect();
                self.known = listed;
            }
            Event::Apply(thing) => {
                let (key, mark) = mark(thing);
                if self.known.get(&key) != Some(&mark) {
                    news.changed.push(key.clone());
                    self.known.insert(key, mark);
                }
            }
            Event::Delete(thing) => {
                let (key, _) = mark(thing);
                self.known.remove(&key);
                news.gone.push(key);
            }
        }
        news
    }
}

impl Watcher {
    async fn objects(self, kind: ObjectKind, mut events: ObjectEvents, listed: oneshot::Sender<()>) {
        let (mut listing, mut listed) = (Listing::new(), Some(listed));
        while let Some(event) = events.next().await {
            let is_listed = matches!(event, Event::InitDone);
            let shown = if let Event::Apply(object) = &event { Some(object.clone()) } else { None };
            let news = self.objects.take(kind, &mut listing, event);
            if let Some(object) = shown {
                self.memories.shown(&object);
            }
            for key in news.gone {
                self.forget(&key);
            }
            for key in news.changed {
                if let Some(object) = self.objects.get(&key) {
                    if is_listed {
                        self.memories.shown(&object);
                    }
                    if self.world.claims.put(&object) {
                        self.wake_rivals(&key);
                    }
                }
                self.trigger.send(&key);
            }
            if let Some(listed) = listed.take_if(|_| is_listed) {
                let _ = listed.send(());
            }
        }
    }

    /// An object is gone: whoever wanted its target may have it now.
    fn forget(&self, key: &ObjectKey) {
        let target = self.world.claims.remove(key);
        self.refresh.gone(key);
        self.memories.remove(key);
        self.arrivals.note(key, &self.refresh);
        if let Some(target) = target {
            self.wake_claimants(&target);
        }
    }

    fn wake_rivals(&self, key: &ObjectKey) {
        if let Some(target) = self.world.claims.target_of(key) {
            for rival in self.world.claims.of(&target).iter().filter(|rival| *rival != key) {
                self.trigger.send(rival);
            }
        }
    }

    fn wake_claimants(&self, target: &TargetName) {
        for object in self.world.claims.of(target) {
            self.trigger.send(&object);
        }
    }

    async fn stores<K>(self, events: impl Stream<Item = Event<K>>, name: impl Fn(&K) -> StoreName)
    where
        K: Resource<DynamicType = ()>,
    {
        let mut marks = Marks::new();
        let mut uids: HashMap<StoreName, String> = HashMap::new();
        let mut confirmations = Confirmations::default();
        pin_mut!(events);
        while let Some(event) = events.next().await {
            if let Event::Apply(store) | Event::InitApply(store) = &event {
                let uid = store.uid().unwrap_or_default();
                if let Some(former) = uids.insert(name(store), uid.clone()).filter(|former| *former != uid) {
                    self.sessions.close(&former);
                }
            }
            let confirmed = confirmations.take(&event, &name);
            let news = marks.take(&event, |store| (name(store), store_mark(store)));
            for store in &news.gone {
                if let Some(uid) = uids.remove(store) {
                    self.sessions.close(&uid);
                }
                self.stores.remove(store);
            }
            for store in &news.changed {
                self.store_trigger.send(store);
            }
            if let Some(uid) = confirmed {
                self.refresh.confirm_absence(&uid);
            }
            self.wake_users(&news.changed.into_iter().chain(news.gone).collect());
        }
    }

    fn wake_users(&self, stores: &BTreeSet<StoreName>) {
        if stores.is_empty() {
            return;
        }
        for object in self.objects.all() {
            if !stores.is_disjoint(&stores_of(&object)) {
                self.trigger.send(&object.key());
            }
        }
    }

    async fn namespaces(self, events: impl Stream<Item = Event<PartialObjectMeta<Namespace>>>) {
        let mut marks = Marks::new();
        pin_mut!(events);
        while let Some(event) = events.next().await {
            let news = marks.take(&event, namespace_mark);
            if news.changed.is_empty() {
                continue;
            }
            let changed: BTreeSet<String> = news.changed.into_iter().collect();
            for object in self.objects.all() {
                let key = object.key();
                if changed.contains(&key.namespace) {
                    self.trigger.send(&key);
                }
            }
        }
    }

    async fn targets(self, kind: TargetKind, events: impl Stream<Item = TargetEvent>, listed: oneshot::Sender<()>) {
        let mut listed = Some(listed);
        pin_mut!(events);
        while let Some(event) = events.next().await {
            match event {
                TargetEvent::Seen(name, facts) => {
                    self.credential_changed(&name, Some(&facts.resource_version));
                    let is_wanted = self.world.claims.is_wanted(&name);
                    if self.world.targets.put(name.clone(), facts, is_wanted) {
                        self.wake_claimants(&name);
                    }
                }
                TargetEvent::Gone(name) => self.target_gone(&name),
                TargetEvent::Listed(names) => {
                    for name in self.world.targets.retain(kind, &names) {
                        self.target_gone(&name);
                    }
                    if let Some(listed) = listed.take() {
                        let _ = listed.send(());
                    }
                }
            }
        }
    }

    fn target_gone(&self, name: &TargetName) {
        self.credential_changed(name, None);
        self.world.targets.remove(name);
        self.wake_claimants(name);
    }

    fn credential_changed(&self, name: &TargetName, version: Option<&str>) {
        let kind = match name.kind {
            TargetKind::Secret => HolderKind::Secret,
            TargetKind::ConfigMap => HolderKind::ConfigMap,
        };
        let holder = Holder { kind, namespace: name.namespace.clone(), name: name.name.clone() };
        let stores = self.sessions.invalidate(&holder, version);
        for store in &stores {
            self.store_trigger.send(store);
        }
        self.wake_users(&stores);
    }
}

fn store_mark<K: Resource>(store: &K) -> (Option<String>, Option<i64>, Option<String>) {
    (store.uid(), store.meta().generation, store.annotations().get(CONFIRM_ABSENCE_ANNOTATION).cloned())
}

/// The annotation by which an admin confirms that a store's keys are meant to be gone, as last seen of each store.
#[derive(Default)]
struct Confirmations(HashMap<StoreName, String>);

impl Confirmations {
    /// The UID of the store, if its annotation has a new value. What a full list shows is no confirmation: it may be an old one.
    fn take<K: Resource>(&mut self, event: &Event<K>, name: impl Fn(&K) -> StoreName) -> Option<String> {
        let (store, is_alive) = match event {
            Event::Apply(store) => (store, true),
            Event::InitApply(store) => (store, false),
            Event::Delete(store) => {
                self.0.remove(&name(store));
                return None;
            }
            Event::Init | Event::InitDone => return None,
        };
        let value = store.annotations().get(CONFIRM_ABSENCE_ANNOTATION)?;
        let former = self.0.insert(name(store), value.clone());
        (is_alive && former.as_ref() != Some(value)).then(|| store.uid()).flatten()
    }
}

fn namespace_mark(namespace: &PartialObjectMeta<Namespace>) -> (String, (BTreeMap<String, String>, bool)) {
    (namespace.name_any(), (namespace.labels().clone(), namespace.metadata.deletion_timestamp.is_some()))
}

#[cfg(test)]
mod tests {
    use kube::{ResourceExt, runtime::watcher::Event};

    use super::{Confirmations, Marks};
    use crate::{crd::v1alpha1::ClusterSecretStore, name::StoreName};

    fn mark(thing: &(&'static str, u8)) -> (&'static str, u8) {
        *thing
    }

    #[test]
    fn an_absence_is_confirmed_once_and_never_by_an_old_annotation() {
        let store = |value: &str| -> ClusterSecretStore {
            serde_json::from_value(serde_json::json!({
                "metadata": {"name": "a", "uid": "u", "annotations": {"keyferry.dev/confirm-absence": value}}, "spec": {"provider": {}},
            }))
            .unwrap()
        };
        let name = |store: &ClusterSecretStore| StoreName::Cluster { name: store.name_any() };
        let mut confirmations = Confirmations::default();
        assert_eq!(confirmations.take(&Event::InitApply(store("1")), name), None, "found at start");
        assert_eq!(confirmations.take(&Event::Apply(store("1")), name), None, "another change of the store");
        assert_eq!(confirmations.take(&Event::Apply(store("2")), name).as_deref(), Some("u"));
        assert_eq!(confirmations.take(&Event::Apply(store("2")), name), None);
    }

    #[test]
    fn only_what_changed_is_news() {
        let mut marks = Marks::new();
        assert_eq!(marks.take(&Event::Apply(("a", 1)), mark).changed, ["a"]);
        assert!(marks.take(&Event::Apply(("a", 1)), mark).changed.is_empty());
        assert_eq!(marks.take(&Event::Apply(("a", 2)), mark).changed, ["a"]);
        assert_eq!(marks.take(&Event::Delete(("a", 2)), mark).gone, ["a"]);
    }

    #[test]
    fn a_full_list_tells_at_its_end_what_came_changed_and_went() {
        let mut marks = Marks::new();
        for thing in [("kept", 1), ("changed", 1), ("gone", 1)] {
            marks.take(&Event::Apply(thing), mark);
        }
        for event in [Event::Init, Event::InitApply(("kept", 1)), Event::InitApply(("changed", 2)), Event::InitApply(("new", 1))] {
            let news = marks.take(&event, mark);
            assert!(news.changed.is_empty() && news.gone.is_empty());
        }
        let mut news = marks.take(&Event::InitDone, mark);
        news.changed.sort_unstable();
        assert_eq!(news.changed, ["changed", "new"]);
        assert_eq!(news.gone, ["gone"]);
    }
}
