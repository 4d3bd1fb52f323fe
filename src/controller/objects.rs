//! The objects of all kinds: their caches, and how a reconcile of one is asked for.

use std::{collections::BTreeSet, sync::Arc};

use futures::{Stream, StreamExt, stream::BoxStream};
use jiff::Timestamp;
use kube::runtime::{
    reflector::{ObjectRef, Store},
    watcher::Event,
};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::{
    cluster::{Cluster, watch::mapped},
    crd::{
        condition::{self, FRESH, READY},
        v1alpha1::{ExternalParameter, ExternalSecret, SyncObject},
    },
    metrics::Present,
    name::{ObjectKey, ObjectKind},
};

/// The caches of the kinds that are served. Cheap to clone.
#[derive(Clone)]
pub struct Objects {
    pub secrets: Option<Store<ExternalSecret>>,
    pub parameters: Option<Store<ExternalParameter>>,
}

/// What a watch of objects tells, whichever kind they are.
pub type ObjectEvents = BoxStream<'static, Event<SyncObject>>;

impl Objects {
    /// One watch for each of the kinds.
    pub fn watch(cluster: &Cluster, kinds: &BTreeSet<ObjectKind>) -> (Self, Vec<ObjectEvents>) {
        let (mut objects, mut events) = (Self { secrets: None, parameters: None }, Vec::new());
        if kinds.contains(&ObjectKind::ExternalSecret) {
            let (store, stream) = cluster.objects::<ExternalSecret>();
            objects.secrets = Some(store);
            events.push(merged(stream));
        }
        if kinds.contains(&ObjectKind::ExternalParameter) {
            let (store, stream) = cluster.objects::<ExternalParameter>();
            objects.parameters = Some(store);
            events.push(merged(stream));
        }
        (objects, events)
    }

    /// Resolves when the caches hold full lists; false when one of them never will.
    pub async fn synced(&self) -> bool {
        if let Some(secrets) = &self.secrets
            && secrets.wait_until_ready().await.is_err()
        {
            return false;
        }
        match &self.parameters {
            Some(parameters) => parameters.wait_until_ready().await.is_ok(),
            None => true,
        }
    }

    #[must_use]
    pub fn get(&self, key: &ObjectKey) -> Option<SyncObject> {
        match key.kind {
            ObjectKind::ExternalSecret => self.secrets.as_ref()?.get(&reference(key)).map(SyncObject::Secret),
            ObjectKind::ExternalParameter => self.parameters.as_ref()?.get(&reference(key)).map(SyncObject::Parameter),
        }
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
        let secrets = self.secrets.iter().flat_map(Store::state).map(SyncObject::Secret);
        secrets.chain(self.parameters.iter().flat_map(Store::state).map(SyncObject::Parameter)).collect()
    }
}

fn merged<K: Send + 'static>(events: impl Stream<Item = Event<K>> + Send + 'static) -> ObjectEvents
where
    SyncObject: From<Arc<K>>,
{
    events.map(|event| mapped(event, |object| SyncObject::from(Arc::new(object)))).boxed()
}

fn reference<K: kube::Resource<DynamicType = ()>>(key: &ObjectKey) -> ObjectRef<K> {
    ObjectRef::new(&key.name).within(&key.namespace)
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
