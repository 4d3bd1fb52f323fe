//! The brake on deletions: when many items of one store turn absent at once, something is wrong with the store, not with the items.

use std::collections::BTreeMap;

/// Up to this many items may turn absent in a window without a doubt.
const ALWAYS_BELIEVED: usize = 3;
/// Beyond that, one in so many of the store's items.
const ONE_IN: usize = 10;

/// The state of one store. In memory only: a restart begins the window anew.
#[derive(Debug, Default)]
pub struct Brake {
    /// Items that turned absent, with the moment.
    turned: BTreeMap<u64, i64>,
    held: bool,
}

impl Brake {
    /// An item turned absent while the store has `total` of them. Once held, the brake stays until it is confirmed.
    pub fn turn(&mut self, item: u64, now: i64, window: i64, total: usize) {
        self.turned.retain(|_, at| now - *at < window);
        self.turned.insert(item, now);
        let count = self.turned.len();
        self.held |= count > ALWAYS_BELIEVED && count * ONE_IN > total;
    }

    pub fn is_held(&self) -> bool {
        self.held
    }

    /// Somebody says that it is meant.
    pub fn confirm(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::Brake;

    fn turned(count: u64, total: usize) -> bool {
        let mut brake = Brake::default();
        (0..count).for_each(|item| brake.turn(item, 0, 100, total));
        brake.is_held()
    }

    #[test]
    fn more_than_three_and_more_than_a_tenth_hold_it() {
        let cases = [(3, 3, false), (4, 4, true), (4, 39, true), (4, 40, false), (5, 40, true), (10, 100, false), (11, 100, true)];
        for (count, total, held) in cases {
            assert_eq!(turned(count, total), held, "{count} of {total}");
        }
    }

    #[test]
    fn the_same_item_counts_once_and_leaves_after_the_window() {
        let mut brake = Brake::default();
        (0..10).for_each(|at| brake.turn(1, at, 100, 4));
        assert!(!brake.is_held());
        for (item, at) in [(1, 0), (2, 0), (3, 0), (4, 109)] {
            brake.turn(item, at, 100, 4);
        }
        assert!(!brake.is_held());
        brake.turn(5, 110, 100, 4);
        brake.turn(6, 110, 100, 4);
        brake.turn(7, 110, 100, 4);
        assert!(brake.is_held());
    }

    #[test]
    fn what_turned_absent_a_whole_window_ago_counts_no_more() {
        for (at, held) in [(99, true), (100, false)] {
            let mut brake = Brake::default();
            (0..3).for_each(|item| brake.turn(item, 0, 100, 4));
            brake.turn(3, at, 100, 4);
            assert_eq!(brake.is_held(), held, "at {at}");
        }
    }

    #[test]
    fn it_stays_until_confirmed() {
        let mut brake = Brake::default();
        (0..4).for_each(|item| brake.turn(item, 0, 100, 4));
        brake.turn(9, 1_000_000, 100, 1_000);
        assert!(brake.is_held());
        brake.confirm();
        assert!(!brake.is_held());
    }
}
