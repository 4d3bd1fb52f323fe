//! The reconcile of stores: open, check, tell. It shares the sessions of the objects, so that a store is logged in to once.
//!
//! A store that is well is checked again in slots, and nothing else is done for it; one that fails is checked again after growing
//! pauses, and at once when a look at it goes otherwise than its status says. When it is well again, the objects that it refused wake.

use std::{
    collections::HashMap,
    convert::Infallible,
    fmt::Debug,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, PoisonError},
};

use futures::{FutureExt, StreamExt};
use kube::{
    Resource,
    runtime::{
        Controller,
        controller::{self, Action},
        reflector::{ObjectRef, Store},
    },
};
use serde::de::DeserializeOwned;
use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::Context;
use crate::{
    access::provider_kind,
    cluster::{ClusterError, is_newer},
    crd::v1alpha1::{ClusterSecretStore, SecretStore, StoreStatus},
    engine::{
        report::store::{self as report, Checked},
        resolve::StoreView,
    },
    fault::{Class, Fault},
    governor::{Session, SessionId, Sign},
    name::StoreName,
    schedule::Timings,
};

/// Stores that are checked at the same time: each of them may hang until its deadline.
const CHECKS: u16 = 32;

/// Asks for reconciles of stores. Cheap to clone.
#[derive(Clone)]
pub struct StoreTrigger {
    namespaced: UnboundedSender<ObjectRef<SecretStore>>,
    cluster: UnboundedSender<ObjectRef<ClusterSecretStore>>,
}

/// What reconciles of stores are asked for by.
pub struct Inbox {
    namespaced: UnboundedReceiver<ObjectRef<SecretStore>>,
    cluster: UnboundedReceiver<ObjectRef<ClusterSecretStore>>,
    signs: UnboundedReceiver<(StoreName, Sign)>,
    trigger: StoreTrigger,
}

impl StoreTrigger {
    /// `signs`: how looks at stores go.
    pub fn new(signs: UnboundedReceiver<(StoreName, Sign)>) -> (Self, Inbox) {
        let ((namespaced, of_namespaces), (cluster, of_cluster)) = (unbounded_channel(), unbounded_channel());
        let trigger = Self { namespaced, cluster };
        (trigger.clone(), Inbox { namespaced: of_namespaces, cluster: of_cluster, signs, trigger })
    }

    pub fn send(&self, store: &StoreName) {
        // A closed channel means that the controller is ending.
        let _ = match store {
            StoreName::Namespaced { namespace, name } => self.namespaced.send(ObjectRef::new(name).within(namespace)).is_ok(),
            StoreName::Cluster { name } => self.cluster.send(ObjectRef::new(name)).is_ok(),
        };
    }
}

/// What was checked last: while it is the same, and no check is due, there is nothing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Subject {
    generation: i64,
    session: Result<SessionId, Fault>,
}

/// What one process remembers of a store. All of it may be lost.
#[derive(Clone, Debug, Default)]
struct Memory {
    uid: String,
    /// The `inputs` of the status that this process found when it first saw the store; empty without any.
    found: Option<String>,
    subject: Option<Subject>,
    /// What the last check, or the status that was found at start, says.
    is_ready: Option<bool>,
    checked: Option<Instant>,
    due: Option<Instant>,
    /// Checks that failed in a row.
    failures: u32,
    /// Failures of the API server in a row.
    trouble: u32,
    /// The status that was written last, and the store's resource version since.
    written: Option<(String, StoreStatus)>,
}

impl Memory {
    /// What the status tells of that nobody in this process has written yet.
    fn found(&mut self, store: &StoreView) -> &str {
        self.found.get_or_insert_with(|| store.status().and_then(|status| status.inputs.clone()).unwrap_or_default())
    }

    /// The status as last known and the resource version to patch it at: the cache may lag behind our own write.
    fn status_of(&self, store: &StoreView) -> (StoreStatus, String) {
        match &self.written {
            Some((version, status)) if is_newer(version, store.resource_version()) => (status.clone(), version.clone()),
            _ => (store.status().cloned().unwrap_or_default(), store.resource_version().to_owned()),
        }
    }

    /// A look at the store gave another sign than the one before. One that contradicts the last check brings the next one forward; a
    /// refusal may be about one key alone, and is not asked about again and again.
    fn feel(&mut self, sign: Sign, now: Instant, timings: &Timings) {
        let pause = match (self.is_ready, sign) {
            (Some(true), Sign::Unavailable) | (Some(false), Sign::Well) => timings.backoff,
            (Some(true), Sign::Refused) => timings.denied,
            _ => return,
        };
        let due = self.checked.map_or(now, |checked| now.max(checked + pause));
        self.due = Some(self.due.map_or(due, |known| known.min(due)));
    }
}

/// All memories of stores. Cheap to clone.
#[derive(Clone, Default)]
pub struct StoreMemories(Arc<Mutex<HashMap<StoreName, Memory>>>);

impl StoreMemories {
    /// Works on one memory; a store that was deleted and made again starts with an empty one.
    fn with<T>(&self, store: &StoreName, uid: &str, work: impl FnOnce(&mut Memory) -> T) -> T {
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let memory = map.entry(store.clone()).or_default();
        if memory.uid != uid {
            *memory = Memory { uid: uid.to_owned(), ..Memory::default() };
        }
        work(memory)
    }

    /// Whether the store had another login when the last leader checked it.
    pub fn has_other_login(&self, store: &StoreView, session: &SessionId) -> bool {
        self.with(&store.name(), store.uid(), |memory| {
            let found = memory.found(store);
            !found.is_empty() && found != report::inputs(session)
        })
    }

    fn feel(&self, store: &StoreName, sign: Sign, timings: &Timings) {
        if let Some(memory) = self.0.lock().unwrap_or_else(PoisonError::into_inner).get_mut(store) {
            memory.feel(sign, Instant::now(), timings);
        }
    }

    /// Forgets a store that is gone.
    pub fn remove(&self, store: &StoreName) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(store);
    }
}

/// Runs the reconciles of both kinds until `shutdown`, then drains those that are under way.
pub async fn run(context: Arc<Context>, inbox: Inbox, shutdown: CancellationToken) {
    let (namespaced, cluster) = (context.world.secret_stores.clone(), context.world.cluster_stores.clone());
    let of_namespaces = reconciles(Arc::clone(&context), namespaced, inbox.namespaced, shutdown.clone());
    let of_cluster = reconciles(Arc::clone(&context), cluster, inbox.cluster, shutdown);
    tokio::select! {
        _ = futures::future::join(of_namespaces, of_cluster) => {}
        () = feel(inbox.signs, inbox.trigger, &context) => {}
    }
}

/// Hands signs of the stores' health to their reconciles.
async fn feel(mut signs: UnboundedReceiver<(StoreName, Sign)>, trigger: StoreTrigger, context: &Context) {
    while let Some((store, sign)) = signs.recv().await {
        tracing::debug!(%store, ?sign, "looks at the store go otherwise than before");
        context.stores.feel(&store, sign, &context.timings);
        trigger.send(&store);
    }
}

async fn reconciles<K>(context: Arc<Context>, stores: Store<K>, triggers: UnboundedReceiver<ObjectRef<K>>, shutdown: CancellationToken)
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    StoreView: From<Arc<K>>,
{
    let triggers = futures::stream::unfold(triggers, |mut triggers| async move { triggers.recv().await.map(|store| (store, triggers)) });
    Controller::for_stream(futures::stream::pending(), stores)
        .with_config(controller::Config::default().concurrency(CHECKS))
        .reconcile_on(triggers)
        .graceful_shutdown_on(async move { shutdown.cancelled().await })
        .run(|store, context| guarded(StoreView::from(store), context), |_, _: &Infallible, _| Action::await_change(), context)
        .for_each(|_| futures::future::ready(()))
        .await;
}

/// A panic in one reconcile is that store's bug, not the end of the others.
async fn guarded(store: StoreView, context: Arc<Context>) -> Result<Action, Infallible> {
    let reconcile = AssertUnwindSafe(Reconcile::begin(&store, &context).run()).catch_unwind().await;
    Ok(reconcile.unwrap_or_else(|_| {
        tracing::error!(store = %store.name(), "a reconcile panicked: this is a bug of Keyferry; the store waits for a change");
        Action::await_change()
    }))
}

/// The state of one run.
struct Reconcile<'a> {
    context: &'a Context,
    store: &'a StoreView,
    name: StoreName,
    memory: Memory,
}

impl<'a> Reconcile<'a> {
    fn begin(store: &'a StoreView, context: &'a Context) -> Self {
        let name = store.name();
        let memory = context.stores.with(&name, store.uid(), |memory| {
            memory.found(store);
            memory.clone()
        });
        Self { context, store, name, memory }
    }

    async fn run(self) -> Action {
        if self.store.is_deleting() {
            return Action::await_change();
        }
        let session = self.open().await;
        if let Err(fault) = &session
            && fault.class == Class::Cluster
        {
            tracing::warn!(store = %self.name, %fault, "the API server failed; tried again later");
            return self.later();
        }
        let (earlier, version) = self.memory.status_of(self.store);
        let subject = Subject {
            generation: self.store.generation(),
            session: session.as_ref().map(|session| session.id().clone()).map_err(Clone::clone),
        };
        if !self.is_due(&subject, &earlier) {
            return self.rest(subject);
        }
        let checked = self.check(&session).await;
        let next = report::status(&earlier, &checked);
        if let Err(error) = self.tell(&version, &earlier, &next, &checked).await {
            tracing::warn!(store = %self.name, %error, "the status could not be written; tried again later");
            return if error == ClusterError::NotFound { Action::await_change() } else { self.later() };
        }
        let was_ready = report::is_ready(&earlier) && self.memory.is_ready != Some(false);
        if checked.verdict.is_ok() && !was_ready {
            self.context.wake_refused_users(&self.name);
        }
        self.settle(subject, &checked)
    }

    /// The session that the objects use, too. A store of a protected namespace serves nobody: not even its credential is read.
    async fn open(&self) -> Result<Session, Fault> {
        if let StoreName::Namespaced { namespace, .. } = &self.name
            && self.context.world.protected.contains(namespace)
        {
            return Err(Fault::not_allowed("stores in a protected namespace are never used: use another namespace"));
        }
        self.store.checking()?;
        self.context.sessions.open(&self.name, self.store).await
    }

    fn is_due(&self, subject: &Subject, earlier: &StoreStatus) -> bool {
        match &self.memory.subject {
            Some(known) if known == subject => self.memory.due.is_some_and(|due| due <= Instant::now()),
            Some(_) => true,
            None => !report::stands(earlier, subject.generation, subject.inputs().as_deref()),
        }
    }

    /// Nothing is due; after a restart the status that was found is taken at its word.
    fn rest(&self, subject: Subject) -> Action {
        let regular = self.regular();
        let due = self.remember(|memory| {
            if memory.subject.is_none() {
                memory.due = regular;
                memory.is_ready = Some(true);
                memory.subject = Some(subject);
            }
            memory.due
        });
        at(due)
    }

    async fn check(&self, session: &Result<Session, Fault>) -> Checked {
        let verdict = match session {
            Ok(session) => session.check().await,
            Err(fault) => Err(fault.clone()),
        };
        Checked {
            generation: self.store.generation(),
            provider: self.store.provider().ok().map(provider_kind),
            inputs: session.as_ref().ok().map(|session| report::inputs(session.id())),
            verdict,
            now: (self.context.clock)(),
        }
    }

    /// Writes what is news.
    async fn tell(&self, version: &str, earlier: &StoreStatus, next: &StoreStatus, checked: &Checked) -> Result<(), ClusterError> {
        if next == earlier {
            return Ok(());
        }
        let written = self.context.cluster.patch_store_status(&self.name, version, next).await?;
        self.remember(|memory| memory.written = written.map(|version| (version, next.clone())));
        if let Some(event) = report::event(earlier, checked)
            && let Err(error) = self.context.cluster.publish_of_store(&self.name, self.store.uid(), &event).await
        {
            tracing::debug!(%error, "an event could not be published");
        }
        Ok(())
    }

    /// The outcome stands from here on, until the next check.
    fn settle(&self, subject: Subject, checked: &Checked) -> Action {
        let failures = if checked.verdict.is_ok() { 0 } else { self.memory.failures.saturating_add(1) };
        let due = self.next_check(&subject, checked, failures);
        self.remember(|memory| {
            memory.subject = Some(subject);
            memory.is_ready = Some(checked.verdict.is_ok());
            memory.checked = Some(Instant::now());
            memory.failures = failures;
            memory.trouble = 0;
            memory.due = due;
        });
        at(due)
    }

    /// Without a session only a change can help, and every change of what a session needs is watched.
    fn next_check(&self, subject: &Subject, checked: &Checked, failures: u32) -> Option<Instant> {
        let (Ok(_), Ok(checking)) = (&subject.session, self.store.checking()) else { return None };
        let again =
            checked.verdict.as_ref().err().and_then(|fault| checking.again(fault, failures, self.store.uid(), &self.context.timings));
        [again.and_then(|pause| Instant::now().checked_add(pause)), self.regular()].into_iter().flatten().min()
    }

    fn regular(&self) -> Option<Instant> {
        let pause = self.store.checking().ok()?.regular(self.store.uid(), (self.context.clock)())?;
        Instant::now().checked_add(pause)
    }

    /// The API server failed, or the store is another one than the cache shows.
    fn later(&self) -> Action {
        let timings = &self.context.timings;
        let pause = self.remember(|memory| {
            let pause = timings.backoff.saturating_mul(2_u32.saturating_pow(memory.trouble.min(16))).min(timings.backoff_max);
            memory.trouble = memory.trouble.saturating_add(1);
            memory.due = Instant::now().checked_add(pause);
            pause
        });
        Action::requeue(pause)
    }

    fn remember<T>(&self, work: impl FnOnce(&mut Memory) -> T) -> T {
        self.context.stores.with(&self.name, self.store.uid(), work)
    }
}

impl Subject {
    fn inputs(&self) -> Option<String> {
        self.session.as_ref().ok().map(report::inputs)
    }
}

fn at(due: Option<Instant>) -> Action {
    due.map_or_else(Action::await_change, |due| Action::requeue(due.saturating_duration_since(Instant::now())))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::{SecretStore, SessionId, StoreMemories, StoreView, report};

    fn session(credential: &str) -> SessionId {
        SessionId { store: "uid".to_owned(), generation: 1, credential: credential.to_owned() }
    }

    fn store(uid: &str, inputs: Option<&str>) -> StoreView {
        let manifest = json!({
            "metadata": {"name": "main", "namespace": "team", "uid": uid},
            "spec": {"provider": {"fake": {"data": []}}},
            "status": {"inputs": inputs},
        });
        StoreView::from(Arc::new(serde_json::from_value::<SecretStore>(manifest).unwrap()))
    }

    #[test]
    fn a_login_that_changed_while_nobody_ran_is_told_by_the_status_that_was_found() {
        let memories = StoreMemories::default();
        let found = store("uid", Some(&report::inputs(&session("1"))));
        assert!(!memories.has_other_login(&found, &session("1")));
        assert!(memories.has_other_login(&found, &session("2")));
        let told = store("uid", Some(&report::inputs(&session("2"))));
        assert!(memories.has_other_login(&told, &session("2")), "our own status tells nothing of the time before");
        let made_anew = store("other", None);
        assert!(!memories.has_other_login(&made_anew, &session("1")), "nobody had a login before");
    }
}
