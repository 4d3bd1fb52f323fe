//! What is due, who brings it forward, and in which order pollers take it.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use super::{
    super::{
        Cause, Moment, Waking,
        track::{Track, nanoseconds},
    },
    Ledger, Store,
    seen::Wish,
};
use crate::{
    item::{Hint, Item, Wanted},
    name::ObjectKey,
};

/// Hints of one store are answered at most this often.
const HINT_SPACING: Duration = Duration::from_millis(200);
/// A store that has a new session is looked at anew within this, unless the reconciles that follow do it before.
const RENEWAL: Duration = Duration::from_secs(1);
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

impl Ledger {
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
}
