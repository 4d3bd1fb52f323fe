//! Keeps looking at what objects use, and wakes them when something changed. The shell around `schedule::Ledger`.
//!
//! How a reconcile uses it, in this order: `Session::look`, then [`Refresh::observe`] with what it saw (before anything is asked
//! about absence), then plan, apply, report, then [`Refresh::register`] and [`Refresh::settled`].
//!
//! Must not be here: what is due when and who is woken for what (`schedule/`), and how calls are shared and bounded (`governor/`).

mod hold;
mod poll;
#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, HashSet, VecDeque},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use tokio::{
    sync::{
        Notify,
        mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    },
    task::JoinSet,
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::{
    access::Granted,
    digest::{self, DigestKey, ShortMac},
    fault::{self, Fault},
    governor::{Look, Session, SessionId},
    item::{Item, Reading, Sighting, Versions},
    metrics::Health,
    name::ObjectKey,
    schedule::{self, Chunk, Enrolment, Ledger, Moment, Seen, Timings, Waking, WallClock},
};
use hold::Holds;

pub use crate::schedule::Cause;

/// Versions of items that nobody has registered are looked through when there are more than this many.
const UNREGISTERED: usize = 64;
/// How many replaced sessions of a store are remembered.
const FORMER: usize = 8;

/// All that an object uses, as its last reconcile left it.
#[derive(Clone, Debug)]
pub struct Registration {
    pub object: ObjectKey,
    /// `None`: no periodic looks (OnChange, CreatedOnce, zero). What fails is looked at all the same until it succeeds.
    pub interval: Option<Duration>,
    pub items: Vec<RegisteredItem>,
}

/// One item of an object.
#[derive(Clone, Debug)]
pub struct RegisteredItem {
    pub item: Granted<Item>,
    pub session: Session,
    /// MAC of the value that the object dealt with last: of what this reconcile fetched, whatever became of it (validation may have
    /// refused it), else of what the target's annotation says.
    pub known: Option<ShortMac>,
    /// The fault of the look itself (absent, denied, unavailable, ...), or after a restart the one that `status.entries` records.
    /// A value that this reconcile fetched and could not use is no failing look: `None`, with its MAC in `known`.
    pub failing: Option<Fault>,
}

/// An object has to be reconciled, with values from looks that started at or after `not_before`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wake {
    pub object: ObjectKey,
    pub not_before: Instant,
    pub cause: Cause,
}

/// What is known about the absence of an item's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absence {
    /// The last look did not find it missing.
    None,
    /// Missing since this look, not yet twice far enough apart.
    First { since: Instant },
    /// Two consecutive misses, `timings.misses` or more apart.
    Confirmed,
}

/// The poller's handle. Cheap to clone.
#[derive(Clone)]
pub struct Refresh(Arc<Inner>);

struct Inner {
    digest_key: DigestKey,
    clock: WallClock,
    /// The zero of the ledger's monotonic clock.
    epoch: Instant,
    wakes: UnboundedSender<Wake>,
    /// A store has come that nobody polls yet.
    stores_changed: Notify,
    state: Mutex<State>,
}

struct State {
    ledger: Ledger,
    /// The grant under which each registered item is looked at.
    grants: HashSet<Granted<Item>>,
    /// Of which versions the last look at each item was, where its store can tell whether they are still current.
    versions: HashMap<Item, Versions>,
    stores: HashMap<String, Polled>,
    holds: Holds,
}

/// A store of which items are registered.
struct Polled {
    session: Session,
    /// Sessions that were replaced. A reconcile that began with one may register late, and must not bring an old credential back.
    former: VecDeque<SessionId>,
    /// Something changed for the store's poller; tells two lives of one store apart too.
    changed: Arc<Notify>,
    has_poller: bool,
}

/// Whether anything may be looked at: not while nobody could be told of it.
pub type MayLook = Arc<dyn Fn() -> bool + Send + Sync>;

/// The poller ended without being told to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the poller of a store ended by itself")]
pub struct PollerEnded;

impl fmt::Debug for Refresh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refresh").finish_non_exhaustive()
    }
}

impl Refresh {
    /// `since` is the caught-up mark of the last leader; without one everything is due.
    #[must_use]
    pub fn new(digest_key: DigestKey, timings: Timings, since: Option<Timestamp>, clock: WallClock) -> (Self, UnboundedReceiver<Wake>) {
        let (wakes, receiver) = unbounded_channel();
        let ledger = Ledger::new(timings, since.map(nanoseconds));
        let state = State { ledger, grants: HashSet::new(), versions: HashMap::new(), stores: HashMap::new(), holds: Holds::default() };
        let inner = Inner { digest_key, clock, epoch: Instant::now(), wakes, stores_changed: Notify::new(), state: Mutex::new(state) };
        (Self(Arc::new(inner)), receiver)
    }

    /// Replaces what the object registered before. Called at the end of every reconcile.
    pub fn register(&self, registration: Registration) {
        let now = self.now();
        let mut state = self.state();
        let before = state.ledger.items_of(&registration.object);
        let enrolments: Vec<Enrolment> = registration.items.iter().map(RegisteredItem::enrolment).collect();
        let unattended: Vec<Item> = registration.items.iter().filter_map(RegisteredItem::unattended).collect();
        for registered in registration.items {
            state.grants.insert(registered.item);
            self.use_session(&mut state, now, registered.session);
        }
        let wakings = state.ledger.register(now, &registration.object, registration.interval, enrolments);
        for item in &unattended {
            state.ledger.hurry(now, item);
            state.nudge(&item.store);
        }
        state.drop_unused(&before);
        self.wake(wakings);
    }

    /// The object is gone, suspended or needs nothing.
    pub fn forget(&self, object: &ObjectKey) {
        let mut state = self.state();
        let before = state.ledger.items_of(object);
        state.ledger.forget(self.now(), object);
        state.holds.release(object);
        state.drop_unused(&before);
    }

    /// The object is gone for good: beyond [`Refresh::forget`], stores are told of what nobody uses any more.
    pub fn gone(&self, object: &ObjectKey) {
        let of_store = |state: &State, item: &Item| Some(state.stores.get(&item.store)?.session.clone());
        let used: Vec<(Arc<Item>, Session)> = {
            let state = self.state();
            state.ledger.items_of(object).into_iter().filter_map(|item| Some((Arc::clone(&item), of_store(&state, &item)?))).collect()
        };
        self.forget(object);
        let state = self.state();
        for (item, session) in used.iter().filter(|(item, _)| !state.ledger.is_known(item)) {
            session.release(item);
        }
    }

    /// Takes in what a reconcile saw: other users of the items are woken by a changed value, misses are counted, clocks move. The
    /// object itself is not woken by what it saw.
    pub fn observe(&self, by: &ObjectKey, looks: &[Look]) {
        self.take_in(Some(by), looks);
    }

    /// Looks at the object's items as soon as possible and wakes it then, whatever was found.
    pub fn ask(&self, object: &ObjectKey) {
        let mut state = self.state();
        let wakings = state.ledger.ask(self.now(), object);
        for item in state.ledger.items_of(object) {
            state.nudge(&item.store);
        }
        self.wake(wakings);
    }

    #[must_use]
    pub fn absence(&self, item: &Item) -> Absence {
        match self.state().ledger.absence(item) {
            schedule::Absence::None => Absence::None,
            schedule::Absence::First { since } => Absence::First { since: self.instant(since) },
            schedule::Absence::Confirmed => Absence::Confirmed,
        }
    }

    /// Whether so many items of the store turned absent that nothing may be deleted for it. Stays until confirmed.
    #[must_use]
    pub fn is_braked(&self, store_uid: &str) -> bool {
        self.state().ledger.is_braked(store_uid)
    }

    /// Somebody confirmed the store's mass absence (once per new value of the annotation): the brake is lifted, who waited is woken.
    pub fn confirm_absence(&self, store_uid: &str) {
        let mut state = self.state();
        let wakings = state.ledger.confirm_absence(self.now(), store_uid);
        self.wake(wakings);
    }

    /// The object has reported what became of everything it was woken for up to `not_before`.
    pub fn settled(&self, object: &ObjectKey, not_before: Instant) {
        let mut state = self.state();
        if state.ledger.settle(object, self.mono(not_before)) {
            state.holds.release(object);
        }
    }

    /// Every object that existed at start was reconciled once: registered, or found to need no looks. Until then the mark stays where
    /// the last leader left it.
    pub fn all_registered(&self) {
        self.state().ledger.complete();
    }

    /// Everything due before this was looked at, with whatever outcome, and every object woken by it has settled.
    #[must_use]
    pub fn caught_up(&self) -> Timestamp {
        let nanoseconds = self.state().ledger.caught_up(self.now());
        Timestamp::from_nanosecond(nanoseconds.into()).unwrap_or(Timestamp::UNIX_EPOCH)
    }

    /// Looks at what falls due until `shutdown`, while `may_look` says so: what falls due meanwhile stays due, and the mark stays. One task per store, so that a store that hangs delays no other; each has a pulse.
    ///
    /// # Errors
    /// [`PollerEnded`] when a part of it failed: the process must end.
    pub async fn run(&self, shutdown: CancellationToken, health: &Health, may_look: MayLook) -> Result<(), PollerEnded> {
        let mut pollers = JoinSet::new();
        loop {
            for (store, changed) in self.without_poller() {
                let beat = health.task("poller", poll::LONGEST_SILENCE);
                pollers.spawn(poll::run(self.clone(), store, changed, beat, may_look.clone()));
            }
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = self.0.stores_changed.notified() => {}
                Some(ended) = pollers.join_next() => ended.map_err(|_| PollerEnded)?,
            }
        }
        pollers.shutdown().await;
        self.state().stores.values_mut().for_each(|polled| polled.has_poller = false);
        Ok(())
    }

    /// Looks that are held for woken objects.
    #[cfg(test)]
    fn held(&self) -> usize {
        self.state().holds.looks()
    }

    /// What is kept: by the ledger, and how many grants, stores and held looks.
    #[cfg(test)]
    fn leftovers(&self) -> (schedule::Counts, usize, usize, usize) {
        let state = self.state();
        (state.ledger.counts(), state.grants.len(), state.stores.len(), state.holds.looks())
    }

    fn take_in(&self, by: Option<&ObjectKey>, looks: &[Look]) {
        let seen: Vec<Seen> = looks.iter().map(|look| seen(&self.0.digest_key, &look.sighting)).collect();
        let now = self.now();
        let mut state = self.state();
        let mut wakings = Vec::new();
        for (look, seen) in looks.iter().zip(seen) {
            wakings.extend(state.ledger.observe(now, by, &look.item, self.mono(look.at), seen));
            state.note_versions(look);
            let open = state.ledger.open_users(&look.item);
            state.holds.hold(look, open);
            if by.is_some() {
                state.nudge(&look.item.store);
            }
        }
        state.drop_old_versions();
        self.wake(wakings);
    }

    /// The newest session of a store is the one that is polled with.
    fn use_session(&self, state: &mut State, now: Moment, session: Session) {
        let store = session.id().store.clone();
        let Some(polled) = state.stores.get_mut(&store) else {
            let polled = Polled { session, former: VecDeque::new(), changed: Arc::default(), has_poller: false };
            state.stores.insert(store, polled);
            self.0.stores_changed.notify_one();
            return;
        };
        polled.changed.notify_one();
        if polled.is_replaced_by(&session) {
            let former = std::mem::replace(&mut polled.session, session);
            polled.former.push_front(former.id().clone());
            polled.former.truncate(FORMER);
            state.ledger.renew(now, &store);
            // Another credential may not read what the former did: it has to show that it can.
            state.versions.retain(|item, _| item.store != store);
        }
    }

    fn without_poller(&self) -> Vec<(String, Arc<Notify>)> {
        let mut state = self.state();
        let alone = state.stores.iter_mut().filter(|(_, polled)| !polled.has_poller);
        alone
            .map(|(store, polled)| {
                polled.has_poller = true;
                (store.clone(), Arc::clone(&polled.changed))
            })
            .collect()
    }

    fn wake(&self, wakings: Vec<Waking>) {
        for Waking { object, not_before, cause } in wakings {
            // A closed channel means that the controller is ending.
            let _ = self.0.wakes.send(Wake { object, not_before: self.instant(not_before), cause });
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Moment {
        Moment { mono: self.mono(Instant::now()), wall: nanoseconds((self.0.clock)()) }
    }

    fn mono(&self, at: Instant) -> i64 {
        let (epoch, whole) = (self.0.epoch, |time: Duration| i64::try_from(time.as_nanos()).unwrap_or(i64::MAX));
        if at >= epoch { whole(at - epoch) } else { -whole(epoch - at) }
    }

    fn instant(&self, mono: i64) -> Instant {
        let distance = Duration::from_nanos(mono.unsigned_abs());
        let at = if mono >= 0 { self.0.epoch.checked_add(distance) } else { self.0.epoch.checked_sub(distance) };
        at.unwrap_or(self.0.epoch)
    }
}

impl Polled {
    fn is_replaced_by(&self, other: &Session) -> bool {
        let (now, then) = (self.session.id(), other.id());
        now != then && now.generation <= then.generation && !self.former.contains(then)
    }
}

impl State {
    fn note_versions(&mut self, look: &Look) {
        match &look.versions {
            Some(versions) => self.versions.insert(look.item.clone(), versions.clone()),
            None => self.versions.remove(&look.item),
        };
    }

    /// Most fetches are followed by a registration; those that are not leave something behind.
    fn drop_old_versions(&mut self) {
        if self.versions.len() > 2 * self.grants.len() + UNREGISTERED {
            self.versions.retain(|item, _| self.ledger.is_known(item));
        }
    }

    /// Forgets the grants and stores of items that nobody uses any more.
    fn drop_unused(&mut self, items: &[Arc<Item>]) {
        for item in items {
            if !self.ledger.is_used(item) {
                self.grants.remove(&**item);
                self.versions.remove(&**item);
            }
            self.nudge(&item.store);
        }
        let ledger = &self.ledger;
        self.stores.retain(|store, polled| {
            let is_used = ledger.has_store(store);
            if !is_used {
                polled.changed.notify_one();
            }
            is_used
        });
    }

    /// Tells the store's poller that due times may have changed.
    fn nudge(&self, store: &str) {
        if let Some(polled) = self.stores.get(store) {
            polled.changed.notify_one();
        }
    }
}

impl RegisteredItem {
    fn enrolment(&self) -> Enrolment {
        let failing = self.failing.as_ref().map(|fault| (fault.reason, fault::retry(fault)));
        Enrolment { item: self.item.get().clone(), known: self.known, failing }
    }

    /// The item, if it cannot wait for its slot.
    fn unattended(&self) -> Option<Item> {
        let item = self.item.get();
        self.session.is_unattended(item).then(|| item.clone())
    }
}

/// What a sighting means to the ledger. A search without a match is a value too: that of nothing.
fn seen(key: &DigestKey, sighting: &Sighting) -> Seen {
    let failed = |fault: &Fault| Seen::Fault { reason: fault.reason, retry: fault::retry(fault) };
    match sighting {
        Sighting::Value(Reading::Absent(fault) | Reading::Unknown(fault)) | Sighting::Found(Err(fault)) => failed(fault),
        Sighting::Value(Reading::Found(_)) | Sighting::Found(Ok(_)) => match digest::of_sighting(key, sighting) {
            Some(mac) => Seen::Value(mac.short()),
            None => failed(&Fault::unavailable("a value without a digest")),
        },
    }
}

fn nanoseconds(at: Timestamp) -> i64 {
    i64::try_from(at.as_nanosecond()).unwrap_or(if at > Timestamp::UNIX_EPOCH { i64::MAX / 2 } else { i64::MIN / 2 })
}
