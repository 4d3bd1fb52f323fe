//! Who uses which item: registrations, and fetches that no registration has followed yet.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::{
    super::{
        Enrolment, Moment, View, Waking,
        track::{User, nanoseconds},
    },
    Ledger,
    seen::Wish,
};
use crate::name::ObjectKey;

/// A fetch is followed by the object's registration within this, or what it saw is forgotten.
const UNREGISTERED: Duration = Duration::from_secs(120);

impl Ledger {
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

    pub(super) fn enrol(&mut self, now: Moment, key: &Arc<ObjectKey>, interval: Option<Duration>, id: u64, enrolment: &Enrolment) {
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
    pub(super) fn tell(&mut self, id: u64, object: &ObjectKey) -> Option<Wish> {
        let track = self.tracks.get_mut(&id)?;
        let (view, at, due) = (track.view, track.last?, track.last_due);
        let user = track.user_mut(object)?;
        let cause = user.concern(view)?;
        user.tell(view);
        Some(Wish { object: Arc::clone(&user.object), at, due, cause })
    }

    /// A fetch of the object touched the item; whether it will be registered is not yet known.
    pub(super) fn mention(&mut self, now: Moment, by: &ObjectKey, id: u64) {
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

    pub(super) fn leave(&mut self, now: Moment, id: u64, object: &ObjectKey) {
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

    pub(super) fn drop_unregistered(&mut self, now: Moment, object: &ObjectKey) {
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
}
