//! What looks saw, who has to be woken for it, and what became of that.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::{
    super::{Cause, Moment, Seen, View, Waking, track::nanoseconds},
    Ledger, Pending,
};
use crate::{fault::Retry, item::Item, name::ObjectKey};

/// An object that was woken so recently will see for itself whatever else changes: its looks begin later, and its registration is
/// compared with what was seen meanwhile.
const JUST_WOKEN: Duration = Duration::from_secs(10);

/// A wake that is not yet recorded.
pub(super) struct Wish {
    pub object: Arc<ObjectKey>,
    pub at: i64,
    pub due: i64,
    pub cause: Cause,
}

impl Ledger {
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
    pub(super) fn count_turned(&mut self, id: u64, now: i64, had_value: bool) {
        let Some(track) = self.tracks.get_mut(&id) else { return };
        let was_held = had_value || track.users.iter().any(|user| user.holds);
        let Some(store) = self.stores.get_mut(&track.item.store) else { return };
        if let Some(run) = track.misses.as_mut().filter(|run| was_held && !run.is_counted) {
            run.is_counted = true;
            store.brake.turn(id, now, nanoseconds(self.timings.brake_window), store.items.len());
        }
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

    /// The object reported what became of everything that looks up to `not_before` saw. Whether nothing is left open.
    pub fn settle(&mut self, object: &ObjectKey, not_before: i64) -> bool {
        let Some(record) = self.objects.get_mut(object) else { return true };
        record.pending = record.pending.filter(|pending| pending.not_before > not_before);
        if record.pending.is_none() {
            self.pending.remove(&record.key);
        }
        record.pending.is_none()
    }

    /// Records who is woken. An object that several items wake is woken once, with the newest look.
    pub(super) fn wake(&mut self, now: Moment, wishes: impl IntoIterator<Item = Wish>) -> Vec<Waking> {
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
}
