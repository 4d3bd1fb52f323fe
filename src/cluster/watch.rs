//! The watches: each a stream of reduced objects. A watch that fails is restarted by its backoff; the stream never ends by itself.

use std::collections::BTreeSet;

use futures::{Stream, StreamExt, future::ready, stream::BoxStream};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret};
use kube::{
    Api, Resource, ResourceExt,
    core::PartialObjectMeta,
    runtime::{
        WatchStreamExt,
        reflector::{self, Store, store::Writer},
        watcher::{self, Config, Event, watcher},
    },
};
use serde::de::DeserializeOwned;

use super::{
    Cluster,
    lean::{Lean, LeanTarget, Parts},
    target::{TargetFacts, TargetName},
};
use crate::name::TargetKind;

/// What a watch of Secrets or `ConfigMaps` tells.
#[derive(Debug)]
pub enum TargetEvent {
    Seen(TargetName, TargetFacts),
    Gone(TargetName),
    /// A full list has ended; these are all names that it showed.
    Listed(BTreeSet<TargetName>),
}

impl Cluster {
    /// The objects of a kind; nothing of them is cached here.
    pub fn objects<K: Parts>(&self) -> impl Stream<Item = Event<K>> + Send + 'static {
        let source = watcher(Api::<Lean<K>>::all(self.client.clone()), Config::default()).default_backoff();
        source.filter_map(|event| ready(logged(event))).map(|event| mapped(event, |Lean(object)| object))
    }

    /// A reflected cache of a whole kind, and the stream that feeds it; `managedFields` are dropped on the way.
    pub fn reflect<K>(&self) -> (Store<K>, impl Stream<Item = Event<K>> + Send + 'static)
    where
        K: kube::Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug + Send + Sync + 'static,
    {
        let writer = Writer::<K>::default();
        let store = writer.as_reader();
        let source = watcher(Api::all(self.client.clone()), Config::default()).default_backoff().modify(|object: &mut K| {
            object.managed_fields_mut().clear();
        });
        let stream = reflector::reflector(writer, source).filter_map(|event| ready(logged(event)));
        (store, stream)
    }

    /// Names, labels and deletion marks of namespaces.
    pub fn namespaces(
        &self,
    ) -> (Store<PartialObjectMeta<Namespace>>, impl Stream<Item = Event<PartialObjectMeta<Namespace>>> + Send + 'static) {
        let writer = Writer::<PartialObjectMeta<Namespace>>::default();
        let store = writer.as_reader();
        let api: Api<PartialObjectMeta<Namespace>> = Api::all(self.client.clone());
        let source = watcher(api, Config::default()).default_backoff().modify(|object| {
            object.managed_fields_mut().clear();
            object.annotations_mut().clear();
        });
        let stream = reflector::reflector(writer, source).filter_map(|event| ready(logged(event)));
        (store, stream)
    }

    /// The one metadata watch of everything of a target's kind; nothing of it is cached here.
    pub fn targets(&self, kind: TargetKind) -> BoxStream<'static, TargetEvent> {
        match kind {
            TargetKind::Secret => self.targets_of::<Secret>(kind).boxed(),
            TargetKind::ConfigMap => self.targets_of::<ConfigMap>(kind).boxed(),
        }
    }

    fn targets_of<K>(&self, kind: TargetKind) -> impl Stream<Item = TargetEvent> + Send + 'static
    where
        K: Resource<DynamicType = ()> + std::fmt::Debug + Send + Sync + 'static,
    {
        let api: Api<LeanTarget<K>> = Api::all(self.client.clone());
        let name_of = move |object: &LeanTarget<K>| TargetName::new(kind, object.namespace().unwrap_or_default(), object.name_any());
        let mut listed = BTreeSet::new();
        watcher(api, Config::default())
            .default_backoff()
            .filter_map(|event| ready(logged(event)))
            .map(move |event| match event {
                Event::Init => {
                    listed = BTreeSet::new();
                    None
                }
                Event::InitApply(object) => {
                    let name = name_of(&object);
                    listed.insert(name.clone());
                    Some(TargetEvent::Seen(name, object.facts))
                }
                Event::InitDone => Some(TargetEvent::Listed(std::mem::take(&mut listed))),
                Event::Apply(object) => Some(TargetEvent::Seen(name_of(&object), object.facts)),
                Event::Delete(object) => Some(TargetEvent::Gone(name_of(&object))),
            })
            .filter_map(ready)
    }
}

/// The event of something else.
pub fn mapped<A, B>(event: Event<A>, other: impl FnOnce(A) -> B) -> Event<B> {
    match event {
        Event::Apply(one) => Event::Apply(other(one)),
        Event::Delete(one) => Event::Delete(other(one)),
        Event::Init => Event::Init,
        Event::InitApply(one) => Event::InitApply(other(one)),
        Event::InitDone => Event::InitDone,
    }
}

/// Errors of a watch are logged by kind only: their text may hold a body that did not decode.
fn logged<K>(event: Result<Event<K>, watcher::Error>) -> Option<Event<K>> {
    match event {
        Ok(event) => Some(event),
        Err(error) => {
            let what = match error {
                watcher::Error::InitialListFailed(_) => "list",
                watcher::Error::WatchStartFailed(_) => "watch start",
                watcher::Error::WatchError(_) => "watch",
                watcher::Error::WatchFailed(_) => "watch stream",
                watcher::Error::NoResourceVersion => "resource version",
            };
            tracing::warn!(what, "a watch failed and is restarted");
            None
        }
    }
}
