//! The clock of one item: when it was looked at, how that went, and when it is due. Times are nanoseconds on the monotonic clock.

use std::{sync::Arc, time::Duration};

use super::{Cause, Moment, Seen, Timings, View, slots};
use crate::{
    fault::{Reason, Retry},
    item::Item,
    name::ObjectKey,
};

/// Longest pause of an absent item that nobody looks at periodically.
const ABSENT_WITHOUT_INTERVAL: Duration = Duration::from_secs(3600);

/// An object that uses the item.
#[derive(Debug)]
pub(super) struct User {
    pub object: Arc<ObjectKey>,
    /// False while only a fetch has mentioned the item and no registration has followed yet.
    pub registered: bool,
    pub interval: Option<Duration>,
    /// What the object knows of the item.
    pub view: View,
    /// What it was last told, or saw itself: it is never told the same again.
    pub told: Option<View>,
    /// Whether its target holds a value of the item.
    pub holds: bool,
}

impl User {
    /// Why the object has to be woken for what is seen now, if it has.
    pub fn concern(&self, now: View) -> Option<Cause> {
        if !self.registered {
            return None;
        }
        match (self.view, now) {
            (View::Fault(_), View::Value(_)) => Some(Cause::Recovered),
            (View::Fault(old), View::Fault(new)) if old != new => Some(Cause::Failing),
            (View::Unseen | View::Value(_), View::Fault(_)) if self.interval.is_some() => Some(Cause::Failing),
            (View::Unseen, View::Value(_)) if self.interval.is_some() => Some(Cause::Changed),
            (View::Value(old), View::Value(new)) if old != new && self.interval.is_some() => Some(Cause::Changed),
            _ => None,
        }
    }

    /// Whether it cares how looks at the item go on.
    pub fn waits(&self) -> bool {
        self.registered && (self.interval.is_some() || matches!(self.view, View::Fault(_)))
    }

    pub fn tell(&mut self, view: View) {
        self.view = view;
        self.told = Some(view);
    }
}

/// A run of consecutive misses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Misses {
    pub first: i64,
    pub is_confirmed: bool,
    /// Whether the brake has heard of it.
    pub is_counted: bool,
}

/// Which clock decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Slots,
    /// A growing pause, at most a period; it replaces the slots.
    Backoff,
    /// The long pause of what the backend refuses; it may be longer than the interval.
    Denied,
}

/// A look that somebody asked for.
#[derive(Clone, Copy, Debug)]
struct Request {
    /// A look that began before this does not answer it.
    since: i64,
    due: i64,
}

/// One item.
#[derive(Debug)]
pub(super) struct Track {
    pub item: Arc<Item>,
    pub users: Vec<User>,
    /// What the last look saw.
    pub view: View,
    /// Start of the last look.
    pub last: Option<i64>,
    /// When that look was due, if it was late.
    pub last_due: i64,
    pub misses: Option<Misses>,
    /// Whom the next look wakes in any case.
    pub askers: Vec<Arc<ObjectKey>>,
    /// A poller's look is on its way.
    pub is_flying: bool,
    /// Where the index holds it.
    pub indexed: Option<i64>,
    hash: u64,
    period: Option<i64>,
    slot: Option<i64>,
    /// The slot that a look which is on its way was taken for, ahead of time.
    pulled: Option<i64>,
    retry: Option<i64>,
    request: Option<Request>,
    mode: Mode,
    /// How often the same kind of failure followed itself.
    streak: (Option<Mode>, u32),
}

impl Track {
    pub fn new(item: Arc<Item>) -> Self {
        Self {
            hash: slots::hash(&item),
            item,
            users: Vec::new(),
            view: View::Unseen,
            last: None,
            last_due: 0,
            misses: None,
            askers: Vec::new(),
            is_flying: false,
            indexed: None,
            period: None,
            slot: None,
            pulled: None,
            retry: None,
            request: None,
            mode: Mode::Slots,
            streak: (None, 0),
        }
    }

    pub fn period(&self) -> Option<i64> {
        self.period
    }

    /// Almost every item has one user, and room for one.
    pub fn add(&mut self, user: User) {
        if self.users.is_empty() {
            self.users.reserve_exact(1);
        }
        self.users.push(user);
    }

    pub fn user_mut(&mut self, object: &ObjectKey) -> Option<&mut User> {
        self.users.iter_mut().find(|user| *user.object == *object)
    }

    /// When it has to be looked at, if ever.
    pub fn due(&self) -> Option<i64> {
        let is_wanted = self.period.is_some() || self.users.iter().any(User::waits);
        let retry = self.retry.filter(|_| is_wanted);
        let slot = self.slot.filter(|_| self.mode == Mode::Slots);
        [retry, slot, self.request.map(|request| request.due)].into_iter().flatten().min()
    }

    /// Whether somebody asked for the look that is due.
    pub fn is_urgent(&self, now: i64) -> bool {
        self.request.is_some_and(|request| request.due <= now)
    }

    /// Whether a slot and nothing else decides, so that a batch may take it early.
    pub fn is_pullable(&self, period: i64) -> bool {
        self.period == Some(period) && self.slot.is_some() && self.due() == self.slot
    }

    /// A poller takes it.
    pub fn take(&mut self, now: i64) {
        self.is_flying = true;
        self.pulled = self.due().filter(|due| *due > now);
    }

    pub fn give_back(&mut self) {
        self.is_flying = false;
        self.pulled = None;
    }

    pub fn has_request(&self) -> bool {
        self.request.is_some()
    }

    /// The item's own part of a time over which many are spread.
    pub fn part_of(&self, time: i64) -> i64 {
        scaled(Duration::from_nanos(time.unsigned_abs()), slots::fraction(self.hash, 0))
    }

    pub fn request(&mut self, since: i64, due: i64) {
        self.request = Some(match self.request {
            Some(earlier) => Request { since: earlier.since.max(since), due: earlier.due.min(due) },
            None => Request { since, due },
        });
    }

    /// The shortest interval of its users has changed, or not.
    pub fn settle_period(&mut self, now: Moment, since: Option<i64>) {
        let shortest = self.users.iter().filter(|user| user.registered).filter_map(|user| user.interval).min();
        let period = shortest.map(slots::period);
        if period == self.period {
            return;
        }
        self.period = period;
        self.slot = period.map(|period| match self.last {
            Some(last) => now.mono_of(slots::at_or_after(self.hash, period, now.wall_of(last) + 1)),
            None => self.first_due(now, since, period),
        });
        if let (Mode::Backoff, Some(period), Some(last)) = (self.mode, period, self.last) {
            self.retry = self.retry.map(|retry| retry.min(last + period));
        }
    }

    /// The first time that nobody is known to have looked at: after a restart, what fell due since the mark and nothing else.
    fn first_due(&self, now: Moment, since: Option<i64>, period: i64) -> i64 {
        let missed = slots::at_or_before(self.hash, period, now.wall);
        now.mono_of(match since {
            Some(since) if since > missed => slots::at_or_after(self.hash, period, now.wall + 1),
            Some(since) => slots::at_or_after(self.hash, period, since),
            None => missed,
        })
    }

    /// Nobody has looked in this process, and it was failing when the last leader wrote it down.
    pub fn resume_failing(&mut self, retry: Retry, now: Moment, since: Option<i64>, timings: &Timings) {
        let spread = |pause: Duration| now.mono + scaled(pause, slots::fraction(self.hash, 0));
        match retry {
            Retry::DeniedPause => {
                self.mode = Mode::Denied;
                self.retry = Some(self.first_due(now, since, slots::period(timings.denied)));
            }
            Retry::AbsentBackoff => self.retry = Some(spread(timings.absent)),
            Retry::Hinted(_) | Retry::UnavailableBackoff => self.retry = Some(spread(timings.backoff)),
            Retry::AwaitChange | Retry::ObjectBackoff => {}
        }
    }

    /// The wall clock jumped. Never later than before, so that the interval holds on the monotonic clock too.
    pub fn rebase(&mut self, now: Moment) {
        if let (Some(slot), Some(period)) = (self.slot, self.period) {
            self.slot = Some(slot.min(now.mono_of(slots::at_or_after(self.hash, period, now.wall + 1))));
        }
    }

    /// Takes in a look that began at `at`. The caller has made sure that it is newer than the last. `longest` bounds the pause after a look
    /// that the store did not answer.
    pub fn observe(&mut self, at: i64, now: Moment, seen: Seen, timings: &Timings, longest: Duration) {
        self.advance_slot(at, now);
        self.last = Some(at);
        self.view = seen.view();
        self.request = self.request.filter(|request| request.since > at);
        self.count_miss(at, seen, timings);
        match seen {
            Seen::Fault { retry, .. } => self.fail(at, now, retry, timings, longest),
            Seen::Value(_) => self.return_to_slots(),
        }
    }

    fn advance_slot(&mut self, at: i64, now: Moment) {
        if let (Some(slot), Some(period)) = (self.slot, self.period) {
            let is_covered = slot <= at || self.pulled == Some(slot);
            let from = if is_covered { slot.max(at) } else { at };
            let next = now.mono_of(slots::at_or_after(self.hash, period, now.wall_of(from) + 1));
            // What was looked at for a slot is not looked at for it again, whatever the two clocks make of the same moment, as long as
            // the interval (a period and an eighth) holds: after a look that was taken early and a clock that jumped, it might not.
            let is_same = is_covered && next - slot < period / 8 && next - at <= period / 8;
            self.slot = Some(if is_same { next + period } else { next });
        }
    }

    fn count_miss(&mut self, at: i64, seen: Seen, timings: &Timings) {
        self.misses = match (seen, self.misses) {
            (Seen::Fault { reason: Reason::NotFound, .. }, Some(run)) => {
                Some(Misses { is_confirmed: run.is_confirmed || at - run.first >= nanoseconds(timings.misses), ..run })
            }
            (Seen::Fault { reason: Reason::NotFound, .. }, None) => Some(Misses { first: at, is_confirmed: false, is_counted: false }),
            _ => None,
        };
    }

    fn return_to_slots(&mut self) {
        self.mode = Mode::Slots;
        self.retry = None;
        self.streak = (None, 0);
    }

    fn fail(&mut self, at: i64, now: Moment, retry: Retry, timings: &Timings, longest: Duration) {
        let fraction = slots::fraction(self.hash, self.streak.1);
        match retry {
            // What cannot be used today may be mended at the backend.
            Retry::AwaitChange | Retry::ObjectBackoff => self.return_to_slots(),
            Retry::DeniedPause => {
                self.streak = (None, self.streak.1.wrapping_add(1));
                self.mode = Mode::Denied;
                self.retry = Some(now.mono + scaled(timings.denied, 0.9 + 0.2 * fraction));
            }
            Retry::AbsentBackoff => {
                let n = self.lengthen(Mode::Slots);
                let pause = scaled(timings.absent, 3_f64.powi(n)).min(self.confirming(at, timings));
                self.back_off(at, at, pause.min(self.period.unwrap_or(nanoseconds(ABSENT_WITHOUT_INTERVAL))));
            }
            Retry::UnavailableBackoff => {
                let n = self.lengthen(Mode::Backoff);
                let pause = timings.backoff.mul_f64(2_f64.powi(n.min(20))).min(longest);
                self.back_off(at, now.mono, scaled(pause, 0.75 + 0.25 * fraction));
            }
            Retry::Hinted(hint) => {
                self.streak = (None, self.streak.1.wrapping_add(1));
                let pause = hint.unwrap_or(timings.backoff).clamp(timings.backoff, timings.backoff_max);
                self.back_off(at, now.mono, scaled(pause, 1.0 + 0.25 * fraction));
            }
        }
    }

    /// How often this kind of failure came before, without a break.
    fn lengthen(&mut self, kind: Mode) -> i32 {
        let n = if self.streak.0 == Some(kind) { self.streak.1 } else { 0 };
        self.streak = (Some(kind), n.saturating_add(1));
        i32::try_from(n.min(60)).expect("at most 60")
    }

    /// Time until the look that can confirm an absence.
    fn confirming(&self, at: i64, timings: &Timings) -> i64 {
        match self.misses {
            Some(run) if !run.is_confirmed => (run.first + nanoseconds(timings.misses) - at).max(0),
            _ => i64::MAX,
        }
    }

    /// Waits, but never longer than a period after the look's start; at a full period the slots take over, so that what fails together
    /// does not stay together.
    fn back_off(&mut self, at: i64, from: i64, pause: i64) {
        match self.period {
            Some(period) if pause >= period => {
                self.mode = Mode::Slots;
                self.retry = None;
            }
            period => {
                self.mode = Mode::Backoff;
                let due = from.saturating_add(pause);
                self.retry = Some(period.map_or(due, |period| due.min((at + period).max(from))));
            }
        }
    }
}

pub(super) fn nanoseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

/// A part of a duration, at most a year.
#[expect(clippy::cast_possible_truncation, reason = "clamped to a year of nanoseconds before")]
fn scaled(duration: Duration, factor: f64) -> i64 {
    (duration.as_secs_f64() * factor * 1e9).clamp(0.0, super::timings::LONGEST.as_secs_f64() * 1e9) as i64
}
