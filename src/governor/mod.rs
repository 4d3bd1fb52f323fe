//! Sessions with stores, and the one way to look at items: shared, batched, bounded, with a deadline.
//!
//! Must not be here: when to look (`schedule/`, `refresh/`), and what a system's protocol is (`backend/`).

mod breaker;
mod counted;
mod lane;
mod pace;
mod probe;
mod pulse;
mod queue;
mod search;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::{future::join_all, stream::BoxStream};
use jiff::Timestamp;
use tokio::time::Instant;

use crate::{
    access::Granted,
    backend::Backend,
    cache::{Allowance, Kept},
    crd::v1alpha1::{Capabilities, StoreCache, StoreLimits},
    fault::Fault,
    item::{Hint, Item, Reading, Sighting, Versions, Wanted},
    metrics::Metrics,
    schedule::{Timings, WallClock, duration},
};
use breaker::Pauses;
pub use counted::Counted;
pub use lane::Manner;
use lane::{Answer, Lane};
use pace::Rate;
pub use pulse::{Pulse, Sign};
pub use queue::Queue;
use search::Lists;

/// Values that a store with a cache keeps, when it does not say how many.
const DEFAULT_ENTRIES: u32 = 1_000;

/// What holds for every store that says nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Calls in flight to one store. At least 1.
    pub concurrency: usize,
    /// Deadline of one call to a backend, connect included.
    pub call_timeout: Duration,
    /// Least time before a list that shrank by more than half is believed (`timings.shrink`).
    pub shrink: Duration,
    /// First pause between calls to a store that is down (`timings.backoff`), and the longest (`timings.outage`).
    pub outage: (Duration, Duration),
    /// Longest patience that a store can ask for (`timings.backoffMax`).
    pub longest_hold: Duration,
}

impl Limits {
    #[must_use]
    pub fn new(concurrency: usize, call_timeout: Duration, timings: &Timings) -> Self {
        let outage = (timings.backoff, timings.outage.max(timings.backoff));
        Self { concurrency, call_timeout, shrink: timings.shrink, outage, longest_hold: timings.backoff_max }
    }

    /// How a store is asked that says this of itself.
    #[must_use]
    pub fn manner(&self, Own { limits: own, cache, .. }: Own<'_>) -> Manner {
        let (first, longest) = self.outage;
        let concurrency = own.and_then(|own| own.max_concurrent).and_then(|most| usize::try_from(most).ok());
        let timeout = own.and_then(|own| own.timeout.as_deref()).and_then(|text| duration::parse(text).ok());
        Manner {
            concurrency: concurrency.unwrap_or(self.concurrency),
            // The schema keeps zero out; it would be a store that never answers.
            call_timeout: timeout.filter(|timeout| !timeout.is_zero()).unwrap_or(self.call_timeout),
            rate: own.and_then(rate),
            allowance: cache.and_then(allowance),
            longest_hold: self.longest_hold,
            pauses: Pauses { first, longest },
        }
    }
}

/// What a store says of itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct Own<'a> {
    /// The name of a ClusterSecretStore; none for a store of a namespace, whose name a tenant chose.
    pub name: Option<&'a str>,
    pub limits: Option<&'a StoreLimits>,
    pub cache: Option<&'a StoreCache>,
}

fn allowance(own: &StoreCache) -> Option<Allowance> {
    let ttl = duration::parse(&own.ttl).ok().filter(|ttl| !ttl.is_zero())?;
    Some(Allowance { ttl, most: usize::try_from(own.max_entries.unwrap_or(DEFAULT_ENTRIES)).unwrap_or(usize::MAX) })
}

fn rate(own: &StoreLimits) -> Option<Rate> {
    let per_second = own.requests_per_second.filter(|rate| *rate > 0)?;
    Some(Rate { per_second: per_second.into(), burst: own.burst.unwrap_or(per_second).max(1).into() })
}

/// Who goes first when a store is busy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// An object that waits for its first value, or was edited.
    Fresh,
    /// A hint or a seen change.
    Changed,
    /// A slot.
    Periodic,
}

/// Identity under which a store is talked to. Two identities never share a value.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId {
    /// UID of the store object.
    pub store: String,
    pub generation: i64,
    /// Version of the Secret that holds the credential; empty without one.
    pub credential: String,
}

/// What one look at an item gave, and when it began.
///
/// While a look is held, whoever wants the same item from no later a moment shares what was read: the poller holds the look that
/// woke objects until they have reported. Dropping the last one zeroises the values.
#[derive(Clone)]
pub struct Look {
    pub item: Item,
    pub sighting: Sighting,
    /// Start of the call; two calls to one store never start at the same instant.
    pub at: Instant,
    /// The same moment in wall time.
    pub wall: Timestamp,
    /// What it was of, where the store can tell later whether that is still current.
    pub versions: Option<Versions>,
    /// What was read for it.
    #[expect(dead_code, reason = "held, not read: the table shares what somebody holds")]
    kept: Vec<Arc<Kept<Answer>>>,
}

impl fmt::Debug for Look {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Look").field("item", &self.item).field("sighting", &self.sighting).field("at", &self.at).finish_non_exhaustive()
    }
}

/// All sessions of the process. Cheap to clone.
#[derive(Clone)]
pub struct Governor {
    limits: Limits,
    clock: WallClock,
    metrics: Metrics,
    sessions: Arc<Mutex<HashMap<String, Session>>>,
}

impl Governor {
    #[must_use]
    pub fn new(limits: Limits, clock: WallClock, metrics: &Metrics) -> Self {
        Self { limits, clock, metrics: metrics.clone(), sessions: Arc::default() }
    }

    /// Deadline of one call to a store that says this of itself.
    #[must_use]
    pub fn call_timeout(&self, own: Own<'_>) -> Duration {
        self.limits.manner(own).call_timeout
    }

    /// Opens the session, or hands out the one that is open; `own` is what the store says of itself. The session of an older generation or credential of the same store is
    /// dropped when the new one opens, which goes on with what its searches found and what the store said of its pace.
    ///
    /// # Errors
    /// What `open` says.
    pub fn session(&self, id: SessionId, own: Own<'_>, open: impl FnOnce() -> Result<Arc<dyn Backend>, Fault>) -> Result<Session, Fault> {
        if let Some(session) = self.sessions().get(&id.store).filter(|session| session.id == id) {
            return Ok(session.clone());
        }
        let (backend, store) = (open()?, id.store.clone());
        let mut sessions = self.sessions();
        let former = sessions.get(&store);
        if let Some(session) = former.filter(|session| session.id == id) {
            return Ok(session.clone());
        }
        let session = Session {
            lane: Lane::new(backend, self.limits.manner(own), former.map(|former| &former.lane), self.metrics.store(own.name)),
            lists: former.map_or_else(|| Arc::new(Lists::new(self.limits.shrink)), |former| former.lists.clone()),
            clock: self.clock.clone(),
            id,
        };
        sessions.insert(store, session.clone());
        Ok(session)
    }

    /// Forgets the store's session: the store is gone.
    pub fn close(&self, store_uid: &str) {
        self.sessions().remove(store_uid);
    }

    fn sessions(&self) -> std::sync::MutexGuard<'_, HashMap<String, Session>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An open store. Cheap to clone.
#[derive(Clone)]
pub struct Session {
    id: SessionId,
    lane: Lane,
    lists: Arc<Lists>,
    clock: WallClock,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Session({:?})", self.id)
    }
}

impl Session {
    #[must_use]
    pub fn id(&self) -> &SessionId {
        &self.id
    }

    /// How many values one call to the system takes. At least 1.
    #[must_use]
    pub fn batch_size(&self) -> usize {
        self.lane.batch_size()
    }

    /// Hints of what changed, if the system gives any.
    #[must_use]
    pub fn changes(&self) -> Option<BoxStream<'static, Hint>> {
        self.lane.changes()
    }

    /// How far back a look may lie that serves an object which wants looks from `not_before` on: a new or edited one is given what the
    /// store allows to keep, never older than its own interval.
    #[must_use]
    pub fn oldest(&self, not_before: Instant, priority: Priority, interval: Option<Duration>) -> Instant {
        let kept = self.lane.allowance().filter(|_| priority == Priority::Fresh);
        let age = kept.map_or(Duration::ZERO, |kept| interval.map_or(kept.ttl, |interval| kept.ttl.min(interval)));
        not_before.checked_sub(age).unwrap_or(not_before)
    }

    /// Lets go of kept values that may have changed.
    pub fn forget(&self, hint: &Hint) {
        self.lane.forget(hint);
    }

    /// Resolves when the store went down or came back.
    pub async fn turned(&self) {
        self.lane.turned().await;
    }

    /// Whether the store came back since this was asked last.
    #[must_use]
    pub fn take_recovered(&self) -> bool {
        self.lane.take_recovered()
    }

    /// When a look may find out whether a store that is down is up again.
    #[must_use]
    pub fn probe_at(&self) -> Option<Instant> {
        self.lane.probe_at()
    }

    /// A target says of itself how many names this search had: a first list in this process that shows less than half of them is not
    /// believed at once either.
    pub fn note_names(&self, search: &Granted<Item>, count: usize) {
        if let Wanted::Find(find) = &search.get().wanted {
            self.lists.note(find, count);
        }
    }

    /// Whether what was delivered may end before its next look is due, because nobody has looked at it since this session began.
    #[must_use]
    pub fn is_unattended(&self, item: &Item) -> bool {
        matches!(&item.wanted, Wanted::Value(value) if self.lane.is_unattended(value))
    }

    /// No object uses the item any more.
    pub fn release(&self, item: &Item) {
        if let Wanted::Value(value) = &item.wanted {
            self.lane.release(value.clone());
        }
    }

    /// Checks that the store can be used, reading no value; what it can do. Not counted against the calls in flight: a store that
    /// hangs must not hide that it does.
    ///
    /// # Errors
    /// The fault that every look would meet.
    pub async fn check(&self) -> Result<Capabilities, Fault> {
        self.lane.check().await
    }

    /// Exactly one look per item, in the same order.
    ///
    /// A look that started at or after `not_before` is shared with whoever else wants the item; an older one never is.
    pub async fn look(&self, items: &[Granted<Item>], not_before: Instant, priority: Priority) -> Vec<Look> {
        let waiting = self.lane.ask(items.iter().map(|item| self.lane.asked_for(item.get())), not_before, priority);
        join_all(items.iter().zip(waiting).map(|(item, asked)| self.sight(item.get(), asked, not_before, priority))).await
    }

    /// Which of the items are provably what they were in these versions, and since when that is known at least; reads no value.
    pub async fn unchanged(&self, known: &[(Granted<Item>, Option<Versions>)]) -> (Instant, Vec<bool>) {
        let asked: Vec<_> = known.iter().filter_map(|(item, versions)| Some((item.get(), versions.as_ref()?))).collect();
        let (at, answers) = self.lane.unchanged(&asked).await;
        let mut answers = answers.into_iter();
        (at, known.iter().map(|(_, versions)| versions.is_some() && answers.next().unwrap_or(false)).collect())
    }

    async fn sight(&self, item: &Item, asked: lane::Waiting, not_before: Instant, priority: Priority) -> Look {
        let first = asked.await;
        let (at, mut kept) = (first.at, vec![first.clone()]);
        let sighting = match (&item.wanted, &first.answer) {
            (Wanted::Value(_), Answer::Value(reading)) => Sighting::Value(reading.clone()),
            (Wanted::Find(find), Answer::Names(Ok(names))) => {
                let found = match self.lists.admitted(find, names, at) {
                    Ok(admitted) => search::read(&self.lane, find, admitted, not_before, priority, &mut kept).await,
                    Err(fault) => Err(fault),
                };
                Sighting::Found(found)
            }
            (Wanted::Find(find), Answer::All(values)) => Sighting::Found(self.lists.taken(find, values, at)),
            (Wanted::Find(_), Answer::Names(Err(fault))) => Sighting::Found(Err(fault.clone())),
            (Wanted::Value(_), Answer::Names(_) | Answer::All(_)) => {
                Sighting::Value(Reading::Unknown(lane::bug("a list answered a value")))
            }
            (Wanted::Find(_), Answer::Value(_)) => Sighting::Found(Err(lane::bug("a value answered a list"))),
        };
        let versions = if self.lane.has_prober() { sighting.versions() } else { None };
        Look { item: item.clone(), sighting, at, wall: self.wall_of(at), versions, kept }
    }

    fn wall_of(&self, at: Instant) -> Timestamp {
        let now = (self.clock)();
        jiff::SignedDuration::try_from(at.elapsed()).ok().and_then(|since| now.checked_sub(since).ok()).unwrap_or(now)
    }
}
