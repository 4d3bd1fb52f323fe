//! Runs the reconciles: wires watches, poller and stages together, and keeps what the process remembers of each object.
//!
//! Must not be here: decisions (they are in `engine` and below), calls to the API server (they are in `cluster`).

pub mod memory;
mod objects;
mod queue;
mod reconcile;
mod rooms;
mod stores;
mod triggers;

use std::{
    collections::BTreeSet,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use tokio::{
    sync::mpsc::{UnboundedReceiver, unbounded_channel},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::{
    backend::Settings,
    cluster::{Cluster, ClusterError},
    crd::{
        condition::{FRESH, READY},
        v1alpha1::SyncObject,
    },
    digest::DigestKey,
    engine::{
        fetch::Sessions,
        resolve::{World, stores_of},
    },
    fault::Reason,
    governor::{Governor, Limits},
    metrics::{Health, Metrics, Present},
    name::{ObjectKey, ObjectKind, StoreName},
    refresh::{MayLook, Refresh, Wake},
    schedule::{Timings, WallClock},
};
use memory::Memories;
use objects::{Objects, Trigger};
use queue::Action;
use rooms::Rooms;
use stores::{StoreMemories, StoreTrigger};
use triggers::Watches;

/// Everything that the controller needs to run.
pub struct Setup {
    pub cluster: Cluster,
    /// The kinds that are served.
    pub kinds: BTreeSet<ObjectKind>,
    /// The operator's own namespace: its Lease and its MAC key live there.
    pub namespace: String,
    pub settings: Settings,
    pub timings: Timings,
    /// Namespaces whose objects are never served.
    pub protected: BTreeSet<String>,
    /// Objects reconciled at the same time.
    pub concurrency: u16,
    /// Calls in flight to one store.
    pub store_concurrency: usize,
    /// The caught-up mark of the last leader.
    pub since: Option<Timestamp>,
    pub clock: WallClock,
    pub metrics: Metrics,
    /// Where the pollers show that they live.
    pub health: Health,
    pub shutdown: CancellationToken,
}

/// Until when everything due was looked at and delivered; nothing before the controller runs. Filled by [`run`].
pub type CaughtUp = Arc<OnceLock<Refresh>>;

/// Why the controller ended without being told to.
#[derive(Debug, thiserror::Error)]
pub enum ControllerError {
    #[error("the key for digests cannot be read or made: {0}")]
    DigestKey(ClusterError),
    #[error("a watch ended")]
    WatchEnded,
    #[error("the poller ended")]
    PollerEnded,
}

/// What every reconcile uses.
struct Context {
    world: World,
    cluster: Cluster,
    sessions: Sessions,
    refresh: Refresh,
    key: DigestKey,
    timings: Timings,
    memories: Memories,
    objects: Objects,
    stores: StoreMemories,
    metrics: Metrics,
    clock: WallClock,
    trigger: Trigger,
    arrivals: Arrivals,
    rooms: Rooms,
    /// Objects that wait for one store at the same time.
    room: usize,
}

/// Fewest objects that wait for one store at the same time, however few workers there are.
const LEAST_ROOM: usize = 4;

impl Context {
    /// A store takes its login again: whom it refused looks at once, and not after the long pause of what is refused. What it gave no
    /// answer for is looked at again anyway, sooner than any check. The governor spreads what that costs.
    fn wake_refused_users(&self, store: &StoreName) {
        let now = Instant::now();
        for object in self.objects.all().iter().filter(|object| is_refused(object) && stores_of(object).contains(store)) {
            let key = object.key();
            self.memories.with(&key, object.metadata().uid.as_deref().unwrap_or_default(), |memory| memory.ask(now));
            self.trigger.send(&key);
        }
    }
}

/// Whether the status tells that a store refused.
fn is_refused(object: &SyncObject) -> bool {
    let is_told = |condition: &Condition| condition.status == "False" && condition.reason == Reason::AccessDenied.as_str();
    object.status().conditions.iter().any(|condition| matches!(condition.type_.as_str(), READY | FRESH) && is_told(condition))
}

/// The objects that existed at start and were not yet reconciled once: until all were, the caught-up mark stays. Cheap to clone.
#[derive(Clone, Default)]
struct Arrivals(Arc<Mutex<Option<BTreeSet<ObjectKey>>>>);

impl Arrivals {
    fn expect(&self, objects: &Objects, refresh: &Refresh) {
        let keys: BTreeSet<ObjectKey> = objects.all().iter().map(SyncObject::key).collect();
        if keys.is_empty() {
            refresh.all_registered();
        } else {
            *self.left() = Some(keys);
        }
    }

    /// Notes one that was reconciled, or is gone.
    fn note(&self, object: &ObjectKey, refresh: &Refresh) {
        let mut left = self.left();
        let is_last = left.as_mut().is_some_and(|keys| keys.remove(object) && keys.is_empty());
        if is_last {
            *left = None;
            refresh.all_registered();
        }
    }

    fn left(&self) -> std::sync::MutexGuard<'_, Option<BTreeSet<ObjectKey>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs until `shutdown`, then drains the reconciles that are under way.
///
/// # Errors
/// When something that must go on has ended: the process must end too.
pub async fn run(setup: Setup, caught_up: CaughtUp, ready: impl FnOnce() + Send) -> Result<(), ControllerError> {
    let shutdown = setup.shutdown.clone();
    let reads_secrets = setup.kinds.contains(&ObjectKind::ExternalSecret);
    let key = if reads_secrets { digest_key(&setup).await? } else { DigestKey::plain() };
    let limits = Limits::new(setup.store_concurrency, setup.settings.call_timeout, &setup.timings);
    let governor = Governor::new(limits, setup.clock.clone(), &setup.metrics);
    let (refresh, wakes) = Refresh::new(key.clone(), setup.timings.clone(), setup.since, setup.clock.clone());
    let (signs, felt) = unbounded_channel();
    let sessions = Sessions::new(setup.cluster.clone(), governor, Arc::new(setup.settings), setup.metrics.clone(), signs, reads_secrets);
    let ((trigger, triggers), (store_trigger, inbox)) = (Trigger::new(), StoreTrigger::new(felt));
    let arrivals = Arrivals::default();
    let both = (trigger, store_trigger);
    let watches = Watches::new(&setup.cluster, &setup.kinds, setup.protected, both, sessions.clone(), refresh.clone(), arrivals.clone());
    let mut background = tokio::spawn(watches.tasks);
    tokio::select! {
        is_synced = watches.synced => if !is_synced { return Err(ControllerError::WatchEnded) },
        _ = &mut background => return Err(ControllerError::WatchEnded),
        () = shutdown.cancelled() => return Ok(()),
    }
    ready();
    arrivals.expect(&watches.objects, &refresh);
    let context = Arc::new(Context {
        arrivals,
        world: watches.world,
        cluster: setup.cluster,
        sessions,
        refresh: refresh.clone(),
        key,
        timings: setup.timings,
        memories: watches.memories,
        objects: watches.objects.clone(),
        stores: watches.stores,
        metrics: setup.metrics,
        clock: setup.clock,
        rooms: Rooms::new(watches.trigger.clone()),
        trigger: watches.trigger,
        // A quarter of the workers: with three stores that hang there is still one left.
        room: (usize::from(setup.concurrency) / 4).max(LEAST_ROOM),
    });
    let _ = caught_up.set(refresh.clone());
    context.metrics.tell_present(present(watches.objects.clone(), refresh.clone()));
    let poller_stop = CancellationToken::new();
    let (leader, timings) = (context.cluster.clone(), context.timings.clone());
    let may_look: MayLook = Arc::new(move || !timings.is_silent(leader.remaining()));
    let poller = tokio::spawn(refresh_run(refresh, poller_stop.clone(), setup.health, may_look));
    let mut waking = tokio::spawn(forward(wakes, context.memories.clone(), context.trigger.clone()));
    let of_objects = queue::run(triggers, usize::from(setup.concurrency), shutdown.clone(), reconciles(Arc::clone(&context)));
    let of_stores = stores::run(context, inbox, shutdown);
    let ended = tokio::select! {
        _ = futures::future::join(of_objects, of_stores) => Ok(()),
        _ = background => Err(ControllerError::WatchEnded),
        _ = poller => Err(ControllerError::PollerEnded),
        _ = &mut waking => Err(ControllerError::PollerEnded),
    };
    poller_stop.cancel();
    waking.abort();
    ended
}

/// What the page of metrics tells of objects and poller.
fn present(objects: Objects, refresh: Refresh) -> impl Fn() -> Present {
    move || objects.present(refresh.caught_up())
}

async fn refresh_run(refresh: Refresh, stop: CancellationToken, health: Health, may_look: MayLook) {
    if let Err(error) = refresh.run(stop, &health, may_look).await {
        tracing::error!(%error, "the poller ended");
    }
}

/// The MAC key; waits for an API server that cannot answer, because nothing works without.
async fn digest_key(setup: &Setup) -> Result<DigestKey, ControllerError> {
    let mut pause = setup.timings.backoff;
    loop {
        match setup.cluster.digest_key(&setup.namespace).await {
            Ok(key) => return Ok(key),
            Err(ClusterError::Unavailable(why)) if !setup.shutdown.is_cancelled() => {
                tracing::warn!(why, "the key for digests cannot be read yet");
                tokio::select! {
                    () = pausing(pause) => {}
                    () = setup.shutdown.cancelled() => {}
                }
                pause = (pause * 2).min(setup.timings.backoff_max);
            }
            Err(error) => return Err(ControllerError::DigestKey(error)),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the start waits here for the API server; no reconcile does")]
async fn pausing(time: Duration) {
    tokio::time::sleep(time).await;
}

/// Hands the poller's wakes to the queue.
async fn forward(mut wakes: UnboundedReceiver<Wake>, memories: Memories, trigger: Trigger) {
    while let Some(wake) = wakes.recv().await {
        tracing::debug!(object = %wake.object, cause = ?wake.cause, "woken");
        memories.wake(&wake.object, wake.not_before);
        trigger.send(&wake.object);
    }
}

/// What is done about an object whose turn it is.
fn reconciles(context: Arc<Context>) -> impl Fn(Arc<ObjectKey>) -> BoxFuture<'static, Action> {
    move |key| guarded(key, Arc::clone(&context)).boxed()
}

/// A panic in one reconcile is that object's bug, not the end of the others.
async fn guarded(key: Arc<ObjectKey>, context: Arc<Context>) -> Action {
    let action = match context.objects.get(&key) {
        Some(object) => AssertUnwindSafe(reconcile::reconcile(object, &key, &context)).catch_unwind().await,
        None => Ok(Action::await_change()),
    };
    context.rooms.gone_by(&key);
    action.unwrap_or_else(|_| {
        tracing::error!(object = %key, "a reconcile panicked: this is a bug of Keyferry; the object waits for a change");
        Action::await_change()
    })
}
