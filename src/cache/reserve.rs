//! Values that a store allows to be kept for a while although nobody holds them. Off unless the store says so.
//!
//! Not the crate `moka`: its entries go when somebody next uses the cache, which at rest is never; here each goes when its time is over.

use std::{
    collections::{BTreeSet, HashMap},
    hash::Hash,
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

use super::Kept;

/// How long and how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    pub ttl: Duration,
    /// At least 1.
    pub most: usize,
}

#[derive(Debug)]
pub struct Reserve<K, A> {
    allowance: Allowance,
    entries: HashMap<K, Arc<Kept<A>>>,
    by_age: BTreeSet<(Instant, K)>,
}

impl<K: Clone + Eq + Hash + Ord, A> Reserve<K, A> {
    #[must_use]
    pub fn new(allowance: Allowance) -> Self {
        Self { allowance, entries: HashMap::new(), by_age: BTreeSet::new() }
    }

    /// Keeps what was read, instead of what was read before; beyond the bound the oldest goes.
    pub fn keep(&mut self, key: K, kept: &Arc<Kept<A>>) {
        self.forget(&key);
        self.by_age.insert((kept.at, key.clone()));
        self.entries.insert(key, Arc::clone(kept));
        while self.entries.len() > self.allowance.most.max(1) {
            self.drop_oldest();
        }
    }

    /// Lets go of what is too old; when the next one will be.
    pub fn expire(&mut self, now: Instant) -> Option<Instant> {
        loop {
            let end = self.by_age.first()?.0 + self.allowance.ttl;
            if end > now {
                return Some(end);
            }
            self.drop_oldest();
        }
    }

    pub fn forget(&mut self, key: &K) {
        if let Some(kept) = self.entries.remove(key) {
            self.by_age.remove(&(kept.at, key.clone()));
        }
    }

    /// Lets go of all that is meant: by key, by pattern, or of everything.
    pub fn forget_all(&mut self, is_meant: impl Fn(&K) -> bool) {
        let meant: Vec<K> = self.entries.keys().filter(|key| is_meant(key)).cloned().collect();
        for key in &meant {
            self.forget(key);
        }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn drop_oldest(&mut self) {
        if let Some((_, key)) = self.by_age.pop_first() {
            self.entries.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use tokio::time::Instant;

    use super::{Allowance, Kept, Reserve};

    fn kept(at: Instant) -> Arc<Kept<u8>> {
        Arc::new(Kept { answer: 0, at, counted: None })
    }

    #[test]
    fn what_is_kept_goes_when_its_time_is_over_and_the_oldest_when_there_is_no_room() {
        let (zero, second) = (Instant::now(), Duration::from_secs(1));
        let mut reserve = Reserve::new(Allowance { ttl: 10 * second, most: 2 });
        let values: Vec<_> = (0..4).map(|n| kept(zero + n * second)).collect();
        let alive = || values.iter().map(|value| Arc::strong_count(value) == 2).collect::<Vec<_>>();
        reserve.keep("a", &values[0]);
        reserve.keep("b", &values[1]);
        reserve.keep("a", &values[2]);
        assert_eq!(alive(), [false, true, true, false], "a newer reading replaces the older");
        reserve.keep("c", &values[3]);
        assert_eq!(alive(), [false, false, true, true], "the oldest made room");
        assert_eq!(reserve.expire(zero + 11 * second), Some(zero + 12 * second));
        assert_eq!(reserve.expire(zero + 12 * second), Some(zero + 13 * second));
        assert_eq!(alive(), [false, false, false, true]);
        assert_eq!(reserve.expire(zero + 13 * second), None);
        assert!(reserve.is_empty() && alive().iter().all(|is_alive| !is_alive));
    }

    #[test]
    fn what_is_meant_is_forgotten_at_once() {
        let zero = Instant::now();
        let mut reserve = Reserve::new(Allowance { ttl: Duration::from_secs(10), most: 9 });
        let values: Vec<_> = (0..3).map(|_| kept(zero)).collect();
        for (key, value) in ["a/1", "a/2", "b/1"].into_iter().zip(&values) {
            reserve.keep(key, value);
        }
        reserve.forget_all(|key| key.starts_with("a/"));
        assert_eq!(values.iter().map(Arc::strong_count).collect::<Vec<_>>(), [1, 1, 2]);
        reserve.forget_all(|_| true);
        assert!(reserve.is_empty() && reserve.expire(zero).is_none());
    }
}
