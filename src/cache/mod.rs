//! Values that were just read, for exactly as long as somebody holds what the look gave.
//!
//! The table owns nothing: each entry is a weak reference. The poller holds a look until the objects that it woke have reported, a
//! reconcile holds its looks while it runs; when the last of them lets go, the value is zeroised and the entry is dead. A store may allow a
//! reserve, which holds values for a while longer.

mod reserve;

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Weak},
};

use tokio::time::Instant;

use crate::metrics::Tally;
pub use reserve::{Allowance, Reserve};

/// Dead entries are swept when the table has grown to this many, or to twice what was alive at the last sweep.
const SWEEP: usize = 64;

/// What was read, and when reading began.
#[derive(Debug)]
pub struct Kept<A> {
    pub answer: A,
    pub at: Instant,
    /// Counts it as long as it is held.
    pub counted: Option<Tally>,
}

/// The table of one store. Keys are what was asked, so that no two identities can share: each session has its own.
#[derive(Debug)]
pub struct Table<K, A> {
    entries: HashMap<K, Weak<Kept<A>>>,
    sweep_at: usize,
}

impl<K: Eq + Hash, A> Default for Table<K, A> {
    fn default() -> Self {
        Self { entries: HashMap::new(), sweep_at: SWEEP }
    }
}

impl<K: Eq + Hash, A> Table<K, A> {
    /// What was read at or after `not_before`, if somebody still holds it.
    #[must_use]
    pub fn get(&self, key: &K, not_before: Instant) -> Option<Arc<Kept<A>>> {
        self.entries.get(key)?.upgrade().filter(|kept| kept.at >= not_before)
    }

    /// Notes what was read. An older reading never replaces a newer one.
    pub fn put(&mut self, key: K, kept: &Arc<Kept<A>>) {
        if self.get(&key, kept.at).is_none() {
            self.entries.insert(key, Arc::downgrade(kept));
        }
        if self.entries.len() >= self.sweep_at {
            self.entries.retain(|_, entry| entry.strong_count() > 0);
            self.sweep_at = SWEEP.max(self.entries.len() * 2);
        }
    }

    /// Entries, dead ones that were not yet swept included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use tokio::time::Instant;

    use super::{Kept, SWEEP, Table};

    #[test]
    fn a_value_is_there_as_long_as_somebody_holds_it() {
        let (mut table, now) = (Table::<&str, u8>::default(), Instant::now());
        let kept = Arc::new(Kept { answer: 1, at: now, counted: None });
        table.put("a", &kept);
        assert_eq!(table.get(&"a", now).map(|kept| kept.answer), Some(1));
        assert!(table.get(&"a", now + Duration::from_nanos(1)).is_none(), "too old for who asks now");
        drop(kept);
        assert!(table.get(&"a", now).is_none());
    }

    #[test]
    fn an_older_reading_does_not_replace_a_newer_one() {
        let (mut table, now) = (Table::<&str, u8>::default(), Instant::now());
        let newer = Arc::new(Kept { answer: 2, at: now + Duration::from_secs(1), counted: None });
        let older = Arc::new(Kept { answer: 1, at: now, counted: None });
        table.put("a", &newer);
        table.put("a", &older);
        assert_eq!(table.get(&"a", now).map(|kept| kept.answer), Some(2));
    }

    #[test]
    fn dead_entries_do_not_pile_up() {
        let (mut table, now) = (Table::<usize, u8>::default(), Instant::now());
        for key in 0..10 * SWEEP {
            table.put(key, &Arc::new(Kept { answer: 0, at: now, counted: None }));
        }
        assert!(table.len() <= SWEEP);
    }
}
