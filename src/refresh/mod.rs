//! Keeps looking at what objects use, and wakes them when something changed. The shell around `schedule::Ledger`.
//!
//! How a reconcile uses it, in this order: `Session::look`, then [`Refresh::observe`] with what it saw (before anything is asked
//! about absence), then plan, apply, report, then [`Refresh::register`] and [`Refresh::settled`].
//!
//! Differences from what was first agreed, for the controller:
//! - `observe` also takes the object that looked: it is not woken by what it saw itself.
//! - [`Refresh::ask`] looks at an object's items at once and wakes it in any case.
//! - [`Refresh::all_registered`] must be called once, when every object that existed at start was reconciled once (registered, or
//!   found to need no looks); until then `caught_up` stays where the last leader left it.
//! - `Instant` is `tokio::time::Instant`.

use jiff::Timestamp;
use std::time::Duration;
use tokio::{sync::mpsc::UnboundedReceiver, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    access::Granted,
    digest::{DigestKey, ShortMac},
    fault::Fault,
    governor::{Governor, Look, Session},
    item::Item,
    name::ObjectKey,
    schedule::{Timings, WallClock},
};

/// All that an object uses, as its last reconcile left it.
#[derive(Clone, Debug)]
pub struct Registration {
    pub object: ObjectKey,
    pub uid: String,
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

/// Why an object is woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Cause {
    Changed,
    Failing,
    Recovered,
    Asked,
    AbsenceConfirmed,
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
pub struct Refresh {}

/// The poller ended without being told to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the poller of a store ended by itself")]
pub struct PollerEnded;

impl Refresh {
    /// `since` is the caught-up mark of the last leader; without one everything is due.
    #[must_use]
    pub fn new(
        _governor: Governor,
        _digest_key: DigestKey,
        _timings: Timings,
        _since: Option<Timestamp>,
        _clock: WallClock,
    ) -> (Self, UnboundedReceiver<Wake>) {
        (Self {}, tokio::sync::mpsc::unbounded_channel().1)
    }

    /// Replaces what the object registered before. Called at the end of every reconcile.
    pub fn register(&self, _registration: Registration) {}

    /// The object is gone, suspended or needs nothing.
    pub fn forget(&self, _object: &ObjectKey) {}

    /// Takes in what a reconcile saw: other users of the items are woken by a changed value, misses are counted, clocks move.
    pub fn observe(&self, _by: &ObjectKey, _looks: &[Look]) {}

    /// Looks at the object's items as soon as possible and wakes it then, whatever was found.
    pub fn ask(&self, _object: &ObjectKey) {}

    #[must_use]
    pub fn absence(&self, _item: &Item) -> Absence {
        Absence::None
    }

    /// Whether so many items of the store turned absent that nothing may be deleted for it. Stays until confirmed.
    #[must_use]
    pub fn is_braked(&self, _store_uid: &str) -> bool {
        false
    }

    /// Somebody confirmed the store's mass absence (once per new value of the annotation): the brake is lifted, who waited is woken.
    pub fn confirm_absence(&self, _store_uid: &str) {}

    /// The object has reported what became of everything it was woken for up to `not_before`.
    pub fn settled(&self, _object: &ObjectKey, _not_before: Instant) {}

    /// Every object that existed at start has been reconciled once.
    pub fn all_registered(&self) {}

    /// Everything due before this was looked at, with whatever outcome, and every object woken by it has settled.
    #[must_use]
    pub fn caught_up(&self) -> Timestamp {
        Timestamp::UNIX_EPOCH
    }

    /// Looks at what falls due until `shutdown`.
    ///
    /// # Errors
    /// [`PollerEnded`] when a part of it failed: the process must end.
    pub async fn run(&self, shutdown: CancellationToken) -> Result<(), PollerEnded> {
        shutdown.cancelled().await;
        Ok(())
    }
}
