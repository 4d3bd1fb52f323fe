//! Sessions with stores, and the one way to look at items: shared, batched, bounded, with a deadline.
//!
//! Must not be here: when to look (`schedule/`, `refresh/`), and what a system's protocol is (`backend/`).

use std::{fmt, sync::Arc, time::Duration};

use futures::stream::BoxStream;
use jiff::Timestamp;
use tokio::time::Instant;

use crate::{
    access::Granted,
    backend::Backend,
    fault::Fault,
    item::{Item, Sighting},
    schedule::WallClock,
};

/// What the admin allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Calls in flight to one store.
    pub concurrency: usize,
    /// Deadline of one call to a backend, connect included.
    pub call_timeout: Duration,
    /// Least time before a list that shrank by more than half is believed (`timings.shrink`).
    pub shrink: Duration,
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
#[derive(Clone, Debug)]
pub struct Look {
    pub item: Item,
    pub sighting: Sighting,
    /// Start of the call; two looks at one store never start at the same instant.
    pub at: Instant,
    /// The same moment in wall time.
    pub wall: Timestamp,
}

/// All sessions of the process. Cheap to clone.
#[derive(Clone)]
pub struct Governor {
    limits: Limits,
    clock: WallClock,
}

impl Governor {
    #[must_use]
    pub fn new(limits: Limits, clock: WallClock) -> Self {
        Self { limits, clock }
    }

    /// Opens the session, or hands out the one that is open. The session of an older generation or credential of the same store is
    /// dropped when the new one opens.
    pub fn session(&self, id: SessionId, open: impl FnOnce() -> Result<Arc<dyn Backend>, Fault>) -> Result<Session, Fault> {
        let _ = (&self.limits, &self.clock, open()?);
        Ok(Session { id })
    }

    /// Forgets the store's session: the store is gone.
    pub fn close(&self, _store_uid: &str) {}
}

/// An open store. Cheap to clone.
#[derive(Clone)]
pub struct Session {
    id: SessionId,
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

    /// Hints that something changed, if the system gives any.
    #[must_use]
    pub fn changes(&self) -> Option<BoxStream<'static, ()>> {
        None
    }

    /// Exactly one look per item, in the same order.
    ///
    /// A look that started at or after `not_before` is shared with whoever else wants the item; an older one never is.
    #[expect(clippy::unused_async, reason = "the calls are being written")]
    pub async fn look(&self, _items: &[Granted<Item>], _not_before: Instant, _priority: Priority) -> Vec<Look> {
        Vec::new()
    }
}
