//! What waits to be asked of one store: fresh before changed before periodic, first come first served within each, and nobody waits for
//! ever. Pure.

use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
};

use super::Priority;

/// So many times in a row somebody who waits longer is passed over; then the one who waits longest goes.
const PATIENCE: u32 = 7;

#[derive(Debug)]
pub struct Queue<K> {
    /// Those who wait, by their turn, one class for each priority.
    classes: [BTreeMap<u64, K>; 3],
    places: HashMap<K, (Priority, u64)>,
    last_turn: u64,
    passed_over: u32,
}

impl<K> Default for Queue<K> {
    fn default() -> Self {
        Self { classes: Default::default(), places: HashMap::new(), last_turn: 0, passed_over: 0 }
    }
}

impl<K: Clone + Eq + Hash> Queue<K> {
    /// Queues what is asked; what waits already goes on waiting where it stands, with the higher of its priorities.
    pub fn push(&mut self, asked: K, priority: Priority) {
        let turn = match self.places.get(&asked).copied() {
            Some((known, _)) if known <= priority => return,
            Some((known, turn)) => {
                self.class(known).remove(&turn);
                turn
            }
            None => {
                self.last_turn += 1;
                self.last_turn
            }
        };
        self.class(priority).insert(turn, asked.clone());
        self.places.insert(asked, (priority, turn));
    }

    /// What one call asks: who is next, and, if that shares calls, as many more as fit that share the same. `shares` says which, none
    /// for what is asked alone.
    pub fn take<G: PartialEq>(&mut self, most: usize, shares: impl Fn(&K) -> Option<G>) -> Vec<K> {
        let Some(first) = self.next() else { return Vec::new() };
        self.remove(&first);
        let group = shares(&first);
        if group.is_none() {
            return vec![first];
        }
        let more = self.classes.iter().flat_map(BTreeMap::values).filter(|asked| shares(asked) == group).take(most.saturating_sub(1));
        let batch: Vec<K> = std::iter::once(first).chain(more.cloned()).collect();
        for asked in &batch {
            self.remove(asked);
        }
        batch
    }

    /// Everything that waits.
    pub fn drain(&mut self) -> Vec<K> {
        self.places.clear();
        self.classes.iter_mut().flat_map(|class| std::mem::take(class).into_values()).collect()
    }

    pub fn len(&self) -> usize {
        self.places.len()
    }

    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Whether something of that priority waits.
    pub fn has(&self, priority: Priority) -> bool {
        !self.classes[priority as usize].is_empty()
    }

    fn next(&mut self) -> Option<K> {
        let mut heads = self.classes.iter().filter_map(BTreeMap::first_key_value);
        let preferred = heads.next()?;
        let longest = heads.fold(preferred, |one, other| if other.0 < one.0 { other } else { one });
        let is_passed_over = longest.0 != preferred.0;
        let is_over = is_passed_over && self.passed_over >= PATIENCE;
        let next = if is_over { longest.1 } else { preferred.1 }.clone();
        self.passed_over = if is_passed_over && !is_over { self.passed_over + 1 } else { 0 };
        Some(next)
    }

    fn remove(&mut self, asked: &K) {
        if let Some((priority, turn)) = self.places.remove(asked) {
            self.class(priority).remove(&turn);
        }
    }

    fn class(&mut self, priority: Priority) -> &mut BTreeMap<u64, K> {
        &mut self.classes[priority as usize]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop, prop_assert, prop_assert_eq, proptest};

    use super::{PATIENCE, Queue};
    use crate::governor::Priority;

    const PRIORITIES: [Priority; 3] = [Priority::Fresh, Priority::Changed, Priority::Periodic];

    fn one(queue: &mut Queue<u32>) -> Option<u32> {
        queue.take(1, |_| Some(())).pop()
    }

    #[test]
    fn a_higher_priority_goes_first_and_equals_in_the_order_in_which_they_came() {
        let mut queue = Queue::default();
        for (asked, priority) in [(1, 2), (2, 1), (3, 0), (4, 0), (5, 2)] {
            queue.push(asked, PRIORITIES[priority]);
        }
        assert_eq!(std::iter::from_fn(|| one(&mut queue)).collect::<Vec<_>>(), [3, 4, 2, 1, 5]);
    }

    #[test]
    fn what_is_asked_again_keeps_its_turn_and_gets_the_higher_priority() {
        let mut queue = Queue::default();
        for (asked, priority) in [(1, 2), (2, 0), (1, 0), (1, 2)] {
            queue.push(asked, PRIORITIES[priority]);
        }
        assert_eq!(queue.len(), 2);
        assert_eq!(std::iter::from_fn(|| one(&mut queue)).collect::<Vec<_>>(), [1, 2]);
    }

    #[test]
    fn a_batch_takes_only_what_shares_calls() {
        let mut queue = Queue::default();
        (1..=7).for_each(|asked| queue.push(asked, Priority::Periodic));
        let thirds = |asked: &u32| (!asked.is_multiple_of(3)).then_some(asked % 3);
        assert_eq!(queue.take(2, thirds), [1, 4]);
        assert_eq!(queue.take(3, thirds), [2, 5]);
        assert_eq!(queue.take(3, thirds), [3], "alone");
        assert_eq!(queue.drain(), [6, 7]);
        assert!(queue.is_empty() && queue.take(3, thirds).is_empty());
    }

    #[test]
    fn ten_thousand_periodic_looks_do_not_hold_up_fresh_ones_nor_fresh_ones_them() {
        let mut queue = Queue::default();
        (0..10_000).for_each(|asked| queue.push(asked, Priority::Periodic));
        let mut periodic = 0;
        for fresh in 10_000..11_000 {
            queue.push(fresh, Priority::Fresh);
            let first = one(&mut queue).unwrap();
            if first != fresh {
                periodic += 1;
                assert_eq!(one(&mut queue), Some(fresh), "at most one call goes before it");
            }
        }
        assert!(periodic >= 1_000 / (PATIENCE as usize + 1) - 1, "{periodic} periodic looks in a thousand calls");
    }

    proptest! {
        /// Whatever comes, nobody is passed over for ever, nothing is lost, and nothing is asked twice.
        #[test]
        fn everybody_has_a_turn(pushes in prop::collection::vec((any::<u8>(), 0..3_usize, 0..3_u8), 1..300)) {
            let mut queue = Queue::default();
            let mut waits: std::collections::BTreeMap<u32, usize> = std::collections::BTreeMap::new();
            for (asked, priority, calls) in pushes {
                let asked = u32::from(asked);
                queue.push(asked, PRIORITIES[priority]);
                waits.entry(asked).or_insert(0);
                for _ in 0..calls {
                    let Some(next) = one(&mut queue) else { break };
                    prop_assert!(waits.remove(&next).is_some(), "asked without being wanted");
                    for waited in waits.values_mut() {
                        *waited += 1;
                    }
                }
                // At most 256 wait, and every eighth call goes to the one who has waited longest.
                prop_assert!(waits.values().all(|waited| *waited <= 256 * (PATIENCE as usize + 1)));
            }
            prop_assert_eq!(queue.len(), waits.len());
        }
    }
}
