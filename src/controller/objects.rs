//! The objects of all kinds: one cache of them, and how a reconcile of one is asked for.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use futures::{Stream, StreamExt, stream::BoxStream};
use jiff::Timestamp;
use kube::runtime::watcher::Event;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::{
    cluster::{Cluster, watch::mapped},
    crd::{
        condition::{self, FRESH, READY},
        v1alpha1::{ExternalParameter, ExternalSecret, REFRESH_ANNOTATION, SyncObject},
    },
    metrics::Present,
    name::{ObjectKey, ObjectKind},
};

/// The objects of the kinds that are served, as the watches showed them last. Cheap to clone.
#[derive(Clone, Default)]
pub struct Objects(Arc<RwLock<HashMap<ObjectKey, SyncObject>>>);

/// What a watch of objects tells, whichever kind they are.
pub type ObjectEvents = BoxStream<'static, Event<SyncObject>>;

/// What a full list has shown so far.
pub type Listing = HashMap<ObjectKey, SyncObject>;

/// What an event means. An object of which only the status is another is no news.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct News {
    pub changed: Vec<ObjectKey>,
    pub gone: Vec<ObjectKey>,
}

/// One watch for each of the kinds.
pub fn watches(cluster: &Cluster, kinds: &BTreeSet<ObjectKind>) -> Vec<(ObjectKind, ObjectEvents)> {
    let watch = |kind: &ObjectKind| match kind {
        ObjectKind::ExternalSecret => (*kind, merged(cluster.objects::<ExternalSecret>())),
        ObjectKind::ExternalParameter => (*kind, merged(cluster.objects::<ExternalParameter>())),
    };
    kinds.iter().map(watch).collect()
}

impl Objects {
    /// Takes an event of that kind's watch in. During a full list the cache stays as it was.
    pub fn take(&self, kind: ObjectKind, listing: &mut Listing, event: Event<SyncObject>) -> News {
        let mut news = News::default();
        match event {
            Event::Init => *listing = Listing::new(),
            Event::InitApply(object) => drop(listing.insert(object.key(), object)),
            Event::InitDone => return self.replace(kind, std::mem::take(listing)),
            Event::Apply(object) => {
                let key = object.key();
                let mut objects = self.write();
                if objects.get(&key).is_none_or(|known| mark(known) != mark(&object)) {
                    news.changed.push(key.clone());
                }
                objects.insert(key, object);
            }
            Event::Delete(object) => {
                let key = object.key();
                self.write().remove(&key);
                news.gone.push(key);
            }
        }
        news
    }

    fn replace(&self, kind: ObjectKind, listed: Listing) -> News {
        let mut objects = self.write();
        let gone: Vec<ObjectKey> = objects.keys().filter(|key| key.kind == kind && !listed.contains_key(*key)).cloned().collect();
        for key in &gone {
            objects.remove(key);
        }
        let is_new = |key: &ObjectKey, object: &SyncObject| objects.get(key).is_none_or(|known| mark(known) != mark(object));
        let changed = listed.iter().filter(|(key, object)| is_new(key, object)).map(|(key, _)| key.clone()).collect();
        objects.extend(listed);
        News { changed, gone }
    }

    #[must_use]
    pub fn get(&self, key: &ObjectKey) -> Option<SyncObject> {
        self.read().get(key).cloned()
    }

    /// How they stand, as their cached statuses say, and how far the poller is.
    #[must_use]
    pub fn present(&self, caught_up: Timestamp) -> Present {
        let mut present = Present::new(caught_up);
        for object in self.all() {
            let conditions = object.conditions();
            let ready = condition::find(conditions, READY).map(|ready| ready.reason.as_str());
            let not_fresh = condition::find(conditions, FRESH).filter(|fresh| fresh.status == "False").map(|fresh| fresh.reason.as_str());
            present.count(object.kind(), ready, not_fresh);
        }
        present
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> Vec<SyncObject> {
        self.read().values().cloned().collect()
    }

    fn read(&self) -> RwLockReadGuard<'_, HashMap<ObjectKey, SyncObject>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashMap<ObjectKey, SyncObject>> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn merged<K: Send + 'static>(events: impl Stream<Item = Event<K>> + Send + 'static) -> ObjectEvents
where
    SyncObject: From<Arc<K>>,
{
    events.map(|event| mapped(event, |object| SyncObject::from(Arc::new(object)))).boxed()
}

/// What of an object matters: our own status writes do not.
fn mark(object: &SyncObject) -> (Option<&str>, Option<i64>, Option<&str>, bool) {
    let metadata = object.metadata();
    (metadata.uid.as_deref(), metadata.generation, object.annotation(REFRESH_ANNOTATION), metadata.deletion_timestamp.is_some())
}

/// Asks for a reconcile. Cheap to clone.
#[derive(Clone)]
pub struct Trigger(UnboundedSender<ObjectKey>);

impl Trigger {
    /// A trigger, and where what it asks for arrives.
    #[must_use]
    pub fn new() -> (Self, UnboundedReceiver<ObjectKey>) {
        let (sender, receiver) = unbounded_channel();
        (Self(sender), receiver)
    }

    pub fn send(&self, key: &ObjectKey) {
        // A closed channel means that the controller is ending.
        drop(self.0.send(key.clone()));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use kube::runtime::watcher::Event;
    use serde_json::json;

    use super::{Listing, News, Objects};
    use crate::{
        crd::v1alpha1::{ExternalParameter, SyncObject},
        name::ObjectKind,
    };

    const KIND: ObjectKind = ObjectKind::ExternalSecret;

    fn object(name: &str, generation: i64, seen: &str) -> SyncObject {
        let status = json!({"inputs": seen});
        let manifest =
            json!({"metadata": {"namespace": "ns", "name": name, "uid": "u", "generation": generation}, "spec": {}, "status": status});
        SyncObject::Secret(Arc::new(serde_json::from_value(manifest).unwrap()))
    }

    fn changed(objects: &Objects, event: Event<SyncObject>) -> Vec<String> {
        objects.take(KIND, &mut Listing::new(), event).changed.into_iter().map(|key| key.name).collect()
    }

    #[test]
    fn only_what_changed_is_news_and_the_cache_has_it_all_the_same() {
        let objects = Objects::default();
        assert_eq!(changed(&objects, Event::Apply(object("a", 1, "x"))), ["a"]);
        assert!(changed(&objects, Event::Apply(object("a", 1, "y"))).is_empty(), "a status of ours");
        let key = object("a", 1, "").key();
        assert_eq!(objects.get(&key).unwrap().status().inputs.as_deref(), Some("y"));
        assert_eq!(changed(&objects, Event::Apply(object("a", 2, "y"))), ["a"]);
        let news = objects.take(KIND, &mut Listing::new(), Event::Delete(object("a", 2, "y")));
        assert_eq!(news, News { changed: Vec::new(), gone: vec![key.clone()] });
        assert!(objects.get(&key).is_none());
    }

    #[test]
    fn a_full_list_tells_at_its_end_what_came_changed_and_went_of_its_kind() {
        let (objects, mut listing) = (Objects::default(), Listing::new());
        for name in ["kept", "changed", "gone"] {
            objects.take(KIND, &mut listing, Event::Apply(object(name, 1, "x")));
        }
        let parameter: ExternalParameter =
            serde_json::from_value(json!({"metadata": {"namespace": "ns", "name": "other"}, "spec": {}})).unwrap();
        let parameter = SyncObject::Parameter(Arc::new(parameter));
        objects.take(ObjectKind::ExternalParameter, &mut Listing::new(), Event::Apply(parameter.clone()));
        let listed = [object("kept", 1, "y"), object("changed", 2, "x"), object("new", 1, "x")];
        for event in [Event::Init].into_iter().chain(listed.into_iter().map(Event::InitApply)) {
            assert_eq!(objects.take(KIND, &mut listing, event), News::default());
        }
        assert!(objects.get(&object("gone", 1, "x").key()).is_some(), "until the list is complete");
        let mut news = objects.take(KIND, &mut listing, Event::InitDone);
        news.changed.sort_unstable();
        let key = |name: &str| object(name, 1, "").key();
        assert_eq!(news, News { changed: vec![key("changed"), key("new")], gone: vec![key("gone")] });
        assert!(objects.get(&key("gone")).is_none() && objects.get(&parameter.key()).is_some());
        assert_eq!(objects.get(&key("kept")).unwrap().status().inputs.as_deref(), Some("y"));
        assert_eq!(objects.all().len(), 4);
    }
}
