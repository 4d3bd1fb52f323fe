//! Who uses which item, when each is due, who has to be woken, and how far the work is caught up. A state machine without a clock.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use super::{
    Absence, Cause, Enrolment, Moment, Seen, Timings, View, Waking,
    brake::Brake,
    track::{Misses, Track, User, nanoseconds},
};
use crate::{
    fault::Retry,
    item::{Hint, Item, Wanted},
    name::ObjectKey,
};

/// A fetch is followed by the object's registration within this, or what it saw is forgotten.
const UNREGISTERED: Duration = Duration::from_secs(120);
/// Hints of one store are answered at most this often.
const HINT_SPACING: Duration = Duration::from_millis(200);
/// A store that has a new session is looked at anew within this, unless the reconciles that follow do it before.
const RENEWAL: Duration = Duration::from_secs(1);
/// The offset of the two clocks may change by this before slots are computed anew.
const JUMP: Duration = Duration::from_secs(1);
/// An object that was woken so recently will see for itself whatever else changes: its looks begin later, and its registration is
/// compared with what was seen meanwhile.
const JUST_WOKEN: Duration = Duration::from_secs(10);
/// So many times in a row a look that somebody asked for goes before one that has been due for longer.
const PATIENCE: u32 = 7;
/// A store's early looks are searched for no further than this many items.
const PULL_SEARCH: usize = 1_024;

/// What a poller may look at with one call.
#[derive(Debug, PartialEq, Eq)]
pub struct Chunk {
    pub items: Vec<Arc<Item>>,
    /// Somebody waits for it: a hint, or a request.
    pub is_urgent: bool,
}

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

    /// Replaces what the object registered before.
    pub fn register(
        &mut self,
        now: Moment,
        object: &ObjectKey,
        interval: Option<Duration>,
        items: impl IntoIterator<Item = Enrolment>,
    ) -> Vec<Waking> {
        self.tick(now);
        let key = self.record(object);
        let interval = interval.filter(|interval| !interval.is_zero());
        let mut enrolled = BTreeMap::new();
        for enrolment in items {
            let id = self.intern(&enrolment.item);
            enrolled.entry(id).or_insert(enrolment);
        }
        let before = self.objects.get_mut(object).map(|record| {
            record.registered = true;
            std::mem::replace(&mut record.items, enrolled.keys().copied().collect())
        });
        let mut wakings = Vec::new();
        for (id, enrolment) in &enrolled {
            self.enrol(now, &key, interval, *id, enrolment);
            wakings.extend(self.tell(*id, &key));
        }
        for id in before.into_iter().flatten().filter(|id| !enrolled.contains_key(id)) {
            self.leave(now, id, object);
        }
        self.wake(now, wakings)
    }

    /// The object uses nothing any more.
    pub fn forget(&mut self, now: Moment, object: &ObjectKey) {
        let Some(record) = self.objects.remove(object) else { return };
        self.pending.remove(&record.key);
        for id in record.items {
            self.leave(now, id, object);
        }
    }

    /// Takes in one look that began at `at`. `by` is the object whose reconcile made it, if one did: it knows already.
    pub fn observe(&mut self, now: Moment, by: Option<&ObjectKey>, item: &Item, at: i64, seen: Seen) -> Vec<Waking> {
        self.tick(now);
        let id = match (by, self.ids.get(item).copied()) {
            (_, Some(id)) => id,
            (Some(_), None) => self.intern(item),
            (None, None) => return Vec::new(),
        };
        if let Some(by) = by {
            self.mention(now, by, id);
        }
        let Some(track) = self.tracks.get_mut(&id).filter(|track| track.last.is_none_or(|last| at >= last)) else { return Vec::new() };
        let wakes = if track.last == Some(at) { Vec::new() } else { self.take_in(now, by, id, at, seen) };
        if let Some(user) = by.and_then(|by| self.tracks.get_mut(&id)?.user_mut(by)) {
            user.tell(seen.view());
        }
        self.reindex(id);
        self.wake(now, wakes)
    }

    /// Takes in that at `at` the item was still what the last look saw. `None` when that was no value: then it has to be looked at.
    pub fn observe_unchanged(&mut self, now: Moment, item: &Item, at: i64) -> Option<Vec<Waking>> {
        let view = self.ids.get(item).and_then(|id| self.tracks.get(id)).map(|track| track.view);
        match view {
            Some(View::Value(mac)) => Some(self.observe(now, None, item, at, Seen::Value(mac))),
            Some(View::Unseen | View::Fault(_)) | None => None,
        }
    }

    /// Looks at the object's items now, and wakes it when that is done.
    pub fn ask(&mut self, now: Moment, object: &ObjectKey) -> Vec<Waking> {
        self.tick(now);
        let Some(record) = self.objects.get(object) else { return Vec::new() };
        let (key, items) = (Arc::clone(&record.key), record.items.clone());
        if items.is_empty() {
            return self.wake(now, [Wish { object: key, at: now.mono, due: now.mono, cause: Cause::Asked }]);
        }
        for id in items {
            if let Some(track) = self.tracks.get_mut(&id) {
                track.request(now.mono, now.mono);
                if !track.askers.contains(&key) {
                    track.askers.push(Arc::clone(&key));
                }
            }
            self.reindex(id);
        }
        Vec::new()
    }

    /// The store says what changed: the items that this concerns are due now, but for those that nobody looks at periodically.
    pub fn hint(&mut self, now: Moment, store: &str, hint: &Hint) {
        self.tick(now);
        let Some(book) = self.stores.get_mut(store) else { return };
        let due = match book.last_hint {
            Some(ahead) if ahead > now.mono => ahead,
            last => now.mono.max(last.map_or(i64::MIN, |last| last + nanoseconds(HINT_SPACING))),
        };
        book.last_hint = Some(due);
        for id in book.items.iter().copied().collect::<Vec<_>>() {
            let is_concerned = |track: &&mut Box<Track>| track.period().is_some() && hint.concerns(&track.item.wanted);
            if let Some(track) = self.tracks.get_mut(&id).filter(is_concerned) {
                track.request(now.mono, due);
                self.reindex(id);
            }
        }
    }

    /// The item cannot wait for its slot: it is due now, unless nobody looks at it periodically.
    pub fn hurry(&mut self, now: Moment, item: &Item) {
        self.tick(now);
        let Some(id) = self.ids.get(item).copied() else { return };
        if let Some(track) = self.tracks.get_mut(&id).filter(|track| track.period().is_some()) {
            track.request(now.mono, now.mono);
            self.reindex(id);
        }
    }

    /// The store has a new generation or credential: what is looked at at all is looked at soon, and keeps what is known of it.
    pub fn renew(&mut self, now: Moment, store: &str) {
        self.tick(now);
        let Some(book) = self.stores.get(store) else { return };
        for id in book.items.iter().copied().collect::<Vec<_>>() {
            if let Some(track) = self.tracks.get_mut(&id).filter(|track| track.due().is_some()) {
                let soon = track.part_of(nanoseconds(RENEWAL));
                track.request(now.mono, now.mono + soon);
                self.reindex(id);
            }
        }
    }

    /// The store answers again: whatever it did not answer for is due now.
    pub fn recover(&mut self, now: Moment, store: &str) {
        self.tick(now);
        let Some(book) = self.stores.get(store) else { return };
        for id in book.unanswered.iter().copied().collect::<Vec<_>>() {
            self.look_now(now, id);
        }
    }

    /// A look may find out whether the store answers again: the item that has been without an answer for longest is due now.
    pub fn probe(&mut self, now: Moment, store: &str) {
        self.tick(now);
        let Some(book) = self.stores.get(store) else { return };
        let is_wanted = |id: &&u64| self.tracks.get(id).is_some_and(|track| track.due().is_some() && !track.is_flying);
        let longest = book.unanswered.iter().filter(is_wanted).min_by_key(|id| self.tracks.get(id).and_then(|track| track.last)).copied();
        if let Some(id) = longest {
            self.look_now(now, id);
        }
    }

    fn look_now(&mut self, now: Moment, id: u64) {
        if let Some(track) = self.tracks.get_mut(&id).filter(|track| track.due().is_some()) {
            track.request(now.mono, now.mono);
            self.reindex(id);
        }
    }

    /// What one call may look at now: what was asked for first, then what is due, then those of the same interval that fall due soon, to fill the batch.
    /// A search comes alone. They are on their way until [`Ledger::give_back`].
    pub fn take(&mut self, now: Moment, store: &str, batch: usize) -> Option<Chunk> {
        self.tick(now);
        let ids = self.choose(now.mono, store, batch.max(1));
        let is_urgent = ids.iter().any(|id| self.tracks.get(id).is_some_and(|track| track.is_urgent(now.mono)));
        let mut items = Vec::with_capacity(ids.len());
        for id in ids {
            if let Some(track) = self.tracks.get_mut(&id) {
                track.take(now.mono);
                items.push(Arc::clone(&track.item));
            }
            self.reindex(id);
        }
        (!items.is_empty()).then_some(Chunk { items, is_urgent })
    }

    /// The look at these is over, observed or not.
    pub fn give_back(&mut self, items: &[Arc<Item>]) {
        for item in items {
            if let Some(id) = self.ids.get(item).copied() {
                if let Some(track) = self.tracks.get_mut(&id) {
                    track.give_back();
                }
                self.reindex(id);
            }
        }
    }

    /// When the store's next item falls due, on the monotonic clock.
    #[must_use]
    pub fn next_due(&self, store: &str) -> Option<i64> {
        self.stores.get(store)?.due.first().map(|(due, _)| *due)
    }

    /// The object reported what became of everything that looks up to `not_before` saw. Whether nothing is left open.
    pub fn settle(&mut self, object: &ObjectKey, not_before: i64) -> bool {
        let Some(record) = self.objects.get_mut(object) else { return true };
        record.pending = record.pending.filter(|pending| pending.not_before > not_before);
        if record.pending.is_none() {
            self.pending.remove(&record.key);
        }
        record.pending.is_none()
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

    /// The absences are meant: who waited for that is woken.
    pub fn confirm_absence(&mut self, now: Moment, store: &str) -> Vec<Waking> {
        let Some(book) = self.stores.get_mut(store) else { return Vec::new() };
        book.brake.confirm();
        let mut wishes = Vec::new();
        for track in book.items.iter().filter_map(|id| self.tracks.get(id)).filter(|track| track.misses.is_some_and(|run| run.is_confirmed))
        {
            let at = track.last.unwrap_or(now.mono);
            let users = track.users.iter().filter(|user| user.waits());
            wishes.extend(users.map(|user| Wish { object: Arc::clone(&user.object), at, due: now.mono, cause: Cause::AbsenceConfirmed }));
        }
        self.wake(now, wishes)
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
}

impl Store {
    /// Who is next: what was asked for, but nobody is passed over for ever.
    fn next(&mut self, now: i64) -> Option<(i64, u64)> {
        let longest = self.due.first().copied().filter(|(due, _)| *due <= now)?;
        let preferred = self.asked.first().copied().filter(|(due, _)| *due <= now).unwrap_or(longest);
        let is_over = self.passed_over >= PATIENCE;
        self.passed_over = if preferred == longest || is_over { 0 } else { self.passed_over + 1 };
        Some(if is_over { longest } else { preferred })
    }

    fn drop_from_index(&mut self, due: i64, id: u64) {
        self.due.remove(&(due, id));
        self.asked.remove(&(due, id));
    }
}

/// A wake that is not yet recorded.
struct Wish {
    object: Arc<ObjectKey>,
    at: i64,
    due: i64,
    cause: Cause,
}

impl Ledger {
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

    fn drop_unregistered(&mut self, now: Moment, object: &ObjectKey) {
        let Some(record) = self.objects.get_mut(object) else { return };
        record.is_queued = false;
        if !record.registered {
            return self.forget(now, object);
        }
        let tracks = &self.tracks;
        let is_mentioned =
            |id: &u64| tracks.get(id).is_some_and(|track| track.users.iter().any(|user| *user.object == *object && !user.registered));
        let mentioned: Vec<u64> = record.items.iter().copied().filter(is_mentioned).collect();
        record.items.retain(|id| !mentioned.contains(id));
        for id in mentioned {
            self.leave(now, id, object);
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

    /// A fetch of the object touched the item; whether it will be registered is not yet known.
    fn mention(&mut self, now: Moment, by: &ObjectKey, id: u64) {
        let key = self.record(by);
        let Some(track) = self.tracks.get_mut(&id) else { return };
        if track.user_mut(by).is_some() {
            return;
        }
        track.add(User { object: Arc::clone(&key), registered: false, interval: None, view: View::Unseen, told: None, holds: false });
        let Some(record) = self.objects.get_mut(by) else { return };
        record.items.push(id);
        if !std::mem::replace(&mut record.is_queued, true) {
            self.unregistered.push_back((now.mono + nanoseconds(UNREGISTERED), key));
        }
    }

    fn enrol(&mut self, now: Moment, key: &Arc<ObjectKey>, interval: Option<Duration>, id: u64, enrolment: &Enrolment) {
        let since = self.mark(now);
        let Some(track) = self.tracks.get_mut(&id) else { return };
        let seen = track.view;
        let told = track.user_mut(key).and_then(|user| user.told);
        let view = if told.is_some_and(|told| told == seen) { seen } else { enrolment.view() };
        track.users.retain(|user| user.object != *key);
        let holds = enrolment.known.is_some();
        track.add(User { object: Arc::clone(key), registered: true, interval, view, told, holds });
        if let (None, Some((_, retry))) = (track.last, enrolment.failing) {
            track.resume_failing(retry, now, since, &self.timings);
        }
        track.settle_period(now, since);
        self.count_turned(id, now.mono, false);
        self.reindex(id);
    }

    /// A new user of an item that was looked at before is told what that saw, if it does not know.
    fn tell(&mut self, id: u64, object: &ObjectKey) -> Option<Wish> {
        let track = self.tracks.get_mut(&id)?;
        let (view, at, due) = (track.view, track.last?, track.last_due);
        let user = track.user_mut(object)?;
        let cause = user.concern(view)?;
        user.tell(view);
        Some(Wish { object: Arc::clone(&user.object), at, due, cause })
    }

    /// A look that is newer than all before. Who has to be woken for it.
    fn take_in(&mut self, now: Moment, by: Option<&ObjectKey>, id: u64, at: i64, seen: Seen) -> Vec<Wish> {
        let longest = self.count_unanswered(id, seen);
        let Some(track) = self.tracks.get_mut(&id) else { return Vec::new() };
        let due = track.due().filter(|due| *due <= at).unwrap_or(at);
        let had_value = matches!(track.view, View::Value(_));
        let was_confirmed = track.misses.is_some_and(|run| run.is_confirmed);
        track.observe(at, now, seen, &self.timings, longest);
        track.last_due = due;
        let is_confirmed = !was_confirmed && track.misses.is_some_and(|run| run.is_confirmed);
        let askers = if track.has_request() { Vec::new() } else { std::mem::take(&mut track.askers) };
        let (mut wishes, mut coming) = (Vec::new(), Vec::new());
        let objects = &self.objects;
        let is_coming = |object: &ObjectKey| {
            let pending = objects.get(object).and_then(|record| record.pending);
            pending.is_some_and(|pending| now.mono - pending.woken < nanoseconds(JUST_WOKEN))
        };
        for user in track.users.iter_mut().filter(|user| by.is_none_or(|by| *user.object != *by)) {
            let mut concern = user.concern(seen.view());
            if concern.is_some() && is_coming(&user.object) {
                concern = None;
                coming.push(Arc::clone(&user.object));
            }
            let confirmed = (is_confirmed && user.waits()).then_some(Cause::AbsenceConfirmed);
            let asked = askers.contains(&user.object).then_some(Cause::Asked);
            if let Some(cause) = concern.or(confirmed).or(asked) {
                user.tell(seen.view());
                wishes.push(Wish { object: Arc::clone(&user.object), at, due, cause });
            }
        }
        for object in coming {
            if let Some(pending) = self.objects.get_mut(&*object).and_then(|record| record.pending.as_mut()) {
                pending.due = pending.due.min(due);
            }
        }
        self.count_turned(id, now.mono, had_value);
        wishes
    }

    /// Notes whether the store answered for the item. The longest pause before a failed look is made again: all that fail at one store share
    /// a rate, so that one key alone is soon back, and a thousand do not knock all the time.
    fn count_unanswered(&mut self, id: u64, seen: Seen) -> Duration {
        let store = self.tracks.get(&id).and_then(|track| self.stores.get_mut(&track.item.store));
        let Some(book) = store else { return self.timings.backoff_max };
        match seen {
            Seen::Fault { retry: Retry::UnavailableBackoff | Retry::Hinted(_), .. } => book.unanswered.insert(id),
            Seen::Fault { .. } | Seen::Value(_) => book.unanswered.remove(&id),
        };
        let many = u32::try_from(book.unanswered.len()).unwrap_or(u32::MAX);
        self.timings.outage.max(self.timings.backoff).saturating_mul(many.max(1)).min(self.timings.backoff_max)
    }

    /// Tells the brake of an item that begins to be missing after somebody had it.
    fn count_turned(&mut self, id: u64, now: i64, had_value: bool) {
        let Some(track) = self.tracks.get_mut(&id) else { return };
        let was_held = had_value || track.users.iter().any(|user| user.holds);
        let Some(store) = self.stores.get_mut(&track.item.store) else { return };
        if let Some(run) = track.misses.as_mut().filter(|run| was_held && !run.is_counted) {
            run.is_counted = true;
            store.brake.turn(id, now, nanoseconds(self.timings.brake_window), store.items.len());
        }
    }

    fn choose(&mut self, now: i64, store: &str, batch: usize) -> Vec<u64> {
        let Some(book) = self.stores.get_mut(store) else { return Vec::new() };
        let Some((_, first)) = book.next(now) else { return Vec::new() };
        let Some(book) = self.stores.get(store) else { return Vec::new() };
        let is_value = |id: &u64| self.tracks.get(id).is_some_and(|track| matches!(track.item.wanted, Wanted::Value(_)));
        if !is_value(&first) {
            return vec![first];
        }
        let until_now = ..=(now, u64::MAX);
        let due = book.asked.range(until_now).chain(book.due.range(until_now)).map(|(_, id)| *id);
        let mut taken = BTreeSet::new();
        let chosen = std::iter::once(first).chain(due.filter(is_value)).filter(|id| taken.insert(*id)).take(batch);
        let mut chosen: Vec<u64> = chosen.collect();
        let room = batch - chosen.len();
        let Some(period) = self.tracks.get(&first).and_then(|track| track.period()).filter(|_| room > 0) else { return chosen };
        let soon = book.due.range((now + 1, 0)..=(now + period / 9, u64::MAX)).take(PULL_SEARCH).map(|(_, id)| *id);
        let of_lane = soon.filter(|id| is_value(id) && self.tracks.get(id).is_some_and(|track| track.is_pullable(period)));
        chosen.extend(of_lane.take(room));
        chosen
    }

    /// Records who is woken. An object that several items wake is woken once, with the newest look.
    fn wake(&mut self, now: Moment, wishes: impl IntoIterator<Item = Wish>) -> Vec<Waking> {
        let mut wakings: BTreeMap<Arc<ObjectKey>, Waking> = BTreeMap::new();
        for Wish { object, at, due, cause } in wishes {
            let Some(record) = self.objects.get_mut(&*object).filter(|record| record.registered) else { continue };
            let pending = record.pending.map_or(Pending { not_before: at, woken: now.mono, due }, |open| Pending {
                not_before: open.not_before.max(at),
                woken: now.mono,
                due: open.due.min(due),
            });
            record.pending = Some(pending);
            self.pending.insert(Arc::clone(&object));
            let waking = wakings.entry(Arc::clone(&object)).or_insert_with(|| Waking { object: (*object).clone(), not_before: at, cause });
            waking.not_before = waking.not_before.max(pending.not_before);
        }
        wakings.into_values().collect()
    }

    /// The last leader's mark, while it says anything: not after everything was registered, and not when it lies in the future,
    /// because then one of the clocks was wrong.
    fn mark(&self, now: Moment) -> Option<i64> {
        self.since.filter(|since| !self.is_complete && *since <= now.wall.saturating_add(nanoseconds(JUMP)))
    }

    fn leave(&mut self, now: Moment, id: u64, object: &ObjectKey) {
        let since = self.mark(now);
        let Some(track) = self.tracks.get_mut(&id) else { return };
        track.users.retain(|user| *user.object != *object);
        track.askers.retain(|asker| **asker != *object);
        if track.users.is_empty() {
            self.remove(id);
        } else {
            track.settle_period(now, since);
            self.reindex(id);
        }
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
