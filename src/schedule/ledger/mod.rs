//! Who uses which item, when each is due, who has to be woken, and how far the work is caught up. A state machine without a clock.
//!
//! Here is the state and what can be asked of it; `users`, `due` and `seen` change it.

mod due;
mod seen;
mod users;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use super::{
    Absence, Moment, Timings,
    brake::Brake,
    track::{Misses, Track, nanoseconds},
};
use crate::{item::Item, name::ObjectKey};
pub use due::Chunk;

/// The offset of the two clocks may change by this before slots are computed anew.
const JUMP: Duration = Duration::from_secs(1);

/// How much there is, for tests and metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub items: usize,
    pub objects: usize,
    pub stores: usize,
    pub pending: usize,
}

/// An object that was woken and has not settled.
#[derive(Clone, Copy, Debug)]
struct Pending {
    not_before: i64,
    /// When it was woken last.
    woken: i64,
    /// When the look that saw it first was due.
    due: i64,
}

#[derive(Debug)]
struct Record {
    key: Arc<ObjectKey>,
    registered: bool,
    /// It stands in the queue of those that fetched without a registration so far.
    is_queued: bool,
    items: Vec<u64>,
    pending: Option<Pending>,
}

#[derive(Debug, Default)]
struct Store {
    items: BTreeSet<u64>,
    /// Items by due time, without those that are on their way.
    due: BTreeSet<(i64, u64)>,
    /// Of these, what somebody asked for.
    asked: BTreeSet<(i64, u64)>,
    passed_over: u32,
    /// Items that could not be looked at, because the store gave no answer.
    unanswered: BTreeSet<u64>,
    flying: BTreeSet<u64>,
    brake: Brake,
    last_hint: Option<i64>,
}

/// The whole state.
#[derive(Debug)]
pub struct Ledger {
    timings: Timings,
    since: Option<i64>,
    is_complete: bool,
    /// Wall minus monotonic time when the slots were last computed.
    offset: Option<i64>,
    ids: HashMap<Arc<Item>, u64>,
    tracks: HashMap<u64, Box<Track>>,
    last_id: u64,
    objects: HashMap<Arc<ObjectKey>, Record>,
    stores: BTreeMap<String, Store>,
    pending: BTreeSet<Arc<ObjectKey>>,
    /// Objects that fetched without a registration so far, with the end of our patience.
    unregistered: VecDeque<(i64, Arc<ObjectKey>)>,
}

impl Ledger {
    /// `since` is the last leader's mark in wall time; without one everything is due.
    #[must_use]
    pub fn new(timings: Timings, since: Option<i64>) -> Self {
        Self {
            timings,
            since,
            is_complete: false,
            offset: None,
            ids: HashMap::new(),
            tracks: HashMap::new(),
            last_id: 0,
            objects: HashMap::new(),
            stores: BTreeMap::new(),
            pending: BTreeSet::new(),
            unregistered: VecDeque::new(),
        }
    }

    /// Every object that existed at start was reconciled once.
    pub fn complete(&mut self) {
        self.is_complete = true;
    }

    /// Everything due before this moment of wall time was looked at, and every object woken by that has settled.
    #[must_use]
    pub fn caught_up(&self, now: Moment) -> i64 {
        if !self.is_complete {
            return self.since.unwrap_or(0);
        }
        let waiting = self.stores.values().filter_map(|store| Some(store.due.first()?.0));
        let flying = self.stores.values().flat_map(|store| &store.flying).filter_map(|id| self.tracks.get(id)?.due());
        let open = self.pending.iter().filter_map(|key| Some(self.objects.get(&**key)?.pending?.due));
        now.wall_of(waiting.chain(flying).chain(open).fold(now.mono, i64::min))
    }

    /// What is known about the absence of the item.
    #[must_use]
    pub fn absence(&self, item: &Item) -> Absence {
        let misses = self.ids.get(item).and_then(|id| self.tracks.get(id)?.misses);
        match misses {
            None => Absence::None,
            Some(Misses { is_confirmed: true, .. }) => Absence::Confirmed,
            Some(Misses { first, .. }) => Absence::First { since: first },
        }
    }

    /// Whether so many of the store's items turned absent that nothing may be deleted for it.
    #[must_use]
    pub fn is_braked(&self, store: &str) -> bool {
        self.stores.get(store).is_some_and(|store| store.brake.is_held())
    }

    /// The open objects that use the item: a look at it is worth keeping for them.
    #[must_use]
    pub fn open_users(&self, item: &Item) -> Vec<ObjectKey> {
        let track = self.ids.get(item).and_then(|id| self.tracks.get(id));
        let users = track.into_iter().flat_map(|track| &track.users);
        users.filter(|user| self.pending.contains(&user.object)).map(|user| (*user.object).clone()).collect()
    }

    /// What the object uses, registered or only fetched so far.
    #[must_use]
    pub fn items_of(&self, object: &ObjectKey) -> Vec<Arc<Item>> {
        let ids = self.objects.get(object).into_iter().flat_map(|record| &record.items);
        ids.filter_map(|id| Some(Arc::clone(&self.tracks.get(id)?.item))).collect()
    }

    /// Whether an object has registered the item.
    #[must_use]
    pub fn is_used(&self, item: &Item) -> bool {
        let track = self.ids.get(item).and_then(|id| self.tracks.get(id));
        track.is_some_and(|track| track.users.iter().any(|user| user.registered))
    }

    /// Whether anybody uses the item, or has fetched it and may register it yet.
    #[must_use]
    pub fn is_known(&self, item: &Item) -> bool {
        self.ids.contains_key(item)
    }

    /// Whether any item of the store is used.
    #[must_use]
    pub fn has_store(&self, store: &str) -> bool {
        self.stores.contains_key(store)
    }

    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts { items: self.tracks.len(), objects: self.objects.len(), stores: self.stores.len(), pending: self.pending.len() }
    }

    /// What every call begins with: clocks that jumped, and fetches that no registration followed.
    fn tick(&mut self, now: Moment) {
        let offset = now.wall.saturating_sub(now.mono);
        match self.offset {
            Some(before) if (offset - before).abs() > nanoseconds(JUMP) => self.rebase(now, offset),
            None => self.offset = Some(offset),
            Some(_) => {}
        }
        while self.unregistered.front().is_some_and(|(end, _)| *end <= now.mono) {
            if let Some((_, key)) = self.unregistered.pop_front() {
                self.drop_unregistered(now, &key);
            }
        }
    }

    fn rebase(&mut self, now: Moment, offset: i64) {
        self.offset = Some(offset);
        for id in self.tracks.keys().copied().collect::<Vec<_>>() {
            if let Some(track) = self.tracks.get_mut(&id) {
                track.rebase(now);
            }
            self.reindex(id);
        }
    }

    fn record(&mut self, object: &ObjectKey) -> Arc<ObjectKey> {
        if let Some(record) = self.objects.get(object) {
            return Arc::clone(&record.key);
        }
        let key = Arc::new(object.clone());
        let record = Record { key: Arc::clone(&key), registered: false, is_queued: false, items: Vec::new(), pending: None };
        self.objects.insert(Arc::clone(&key), record);
        key
    }

    fn intern(&mut self, item: &Item) -> u64 {
        if let Some(id) = self.ids.get(item) {
            return *id;
        }
        self.last_id += 1;
        let (id, item) = (self.last_id, Arc::new(item.clone()));
        self.stores.entry(item.store.clone()).or_default().items.insert(id);
        self.ids.insert(Arc::clone(&item), id);
        self.tracks.insert(id, Box::new(Track::new(item)));
        id
    }

    /// The last leader's mark, while it says anything: not after everything was registered, and not when it lies in the future,
    /// because then one of the clocks was wrong.
    fn mark(&self, now: Moment) -> Option<i64> {
        self.since.filter(|since| !self.is_complete && *since <= now.wall.saturating_add(nanoseconds(JUMP)))
    }

    fn remove(&mut self, id: u64) {
        let Some(track) = self.tracks.remove(&id) else { return };
        self.ids.remove(&track.item);
        let Some(store) = self.stores.get_mut(&track.item.store) else { return };
        store.items.remove(&id);
        store.flying.remove(&id);
        store.unanswered.remove(&id);
        if let Some(due) = track.indexed {
            store.drop_from_index(due, id);
        }
        if store.items.is_empty() {
            self.stores.remove(&track.item.store);
        }
    }

    /// Puts the item where its due time says.
    fn reindex(&mut self, id: u64) {
        let Some(track) = self.tracks.get_mut(&id) else { return };
        let Some(store) = self.stores.get_mut(&track.item.store) else { return };
        if let Some(due) = track.indexed.take() {
            store.drop_from_index(due, id);
        }
        if track.is_flying {
            store.flying.insert(id);
            return;
        }
        store.flying.remove(&id);
        track.indexed = track.due();
        if let Some(due) = track.indexed {
            store.due.insert((due, id));
            if track.is_urgent(due) {
                store.asked.insert((due, id));
            }
        }
    }
}

impl Store {
    fn drop_from_index(&mut self, due: i64, id: u64) {
        self.due.remove(&(due, id));
        self.asked.remove(&(due, id));
    }
}
