//! Due times as a pure function: nothing is stored, tenants differ, a restart computes the same ones.
//!
//! An item is due at `hash(store, key) mod P + k·P` in wall time, with P = 8/9 of its interval. A look may be taken up to P/8 before
//! its slot to fill a batch, and two looks are still never further apart than P + P/8, the interval.

use std::time::Duration;

use super::timings::LONGEST;
use crate::item::{Item, Wanted};

/// Intervals below this are looked at as often as this: nobody may turn a manifest into a busy loop.
pub const SHORTEST_INTERVAL: Duration = Duration::from_millis(100);

/// The slots' period for an interval, in nanoseconds.
#[must_use]
pub fn period(interval: Duration) -> i64 {
    let nanoseconds = interval.clamp(SHORTEST_INTERVAL, LONGEST).as_nanos();
    i64::try_from(nanoseconds * 8 / 9).expect("366 days of nanoseconds are far below 2^63")
}

/// The first slot at or after a moment of wall time.
#[must_use]
pub fn at_or_after(hash: u64, period: i64, wall: i64) -> i64 {
    wall + (phase(hash, period) - wall).rem_euclid(period)
}

/// The last slot at or before a moment of wall time.
#[must_use]
pub fn at_or_before(hash: u64, period: i64, wall: i64) -> i64 {
    wall - (wall - phase(hash, period)).rem_euclid(period)
}

fn phase(hash: u64, period: i64) -> i64 {
    i64::try_from(hash % period.unsigned_abs()).expect("below a positive i64")
}

/// The item's place in every period. Stable over versions of this program: FNV-1a with a finalizer, as neighbours' names differ little.
#[must_use]
pub fn hash(item: &Item) -> u64 {
    let mut state = Fnv::default();
    state.text(&item.store);
    match &item.wanted {
        Wanted::Value(wanted) => {
            state.text(wanted.key.as_str());
            state.option(wanted.version.as_deref());
            if wanted.is_metadata {
                state.text("metadata");
            }
        }
        Wanted::Find(find) => {
            state.text("find");
            state.option(find.listing.path.as_ref().map(crate::name::RemoteKey::as_str));
            state.option(find.regexp.as_deref());
            for pattern in find.allowed.iter().flatten() {
                state.text(pattern);
            }
            for (name, value) in &find.listing.tags {
                state.text(name);
                state.text(value);
            }
            if find.is_metadata {
                state.text("metadata");
            }
        }
    }
    mix(state.0)
}

/// A store's own place in every period.
#[must_use]
pub fn hash_of_store(uid: &str) -> u64 {
    let mut state = Fnv::default();
    state.text(uid);
    mix(state.0)
}

/// A fraction of one that belongs to the item and the n-th time something happens to it.
#[must_use]
pub fn fraction(hash: u64, n: u32) -> f64 {
    f64::from(u32::try_from(mix(hash ^ u64::from(n)) >> 32).expect("32 bits are left")) / f64::from(u32::MAX)
}

struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    fn byte(&mut self, byte: u8) {
        self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }

    /// Texts cannot run into each other: 0xff is in no UTF-8.
    fn text(&mut self, text: &str) {
        text.bytes().for_each(|byte| self.byte(byte));
        self.byte(0xff);
    }

    fn option(&mut self, text: Option<&str>) {
        match text {
            Some(text) => self.text(text),
            None => self.byte(0xfe),
        }
    }
}

/// The finalizer of splitmix64.
fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_the_published_one() {
        let mut state = Fnv::default();
        state.byte(b'a');
        assert_eq!(state.0, 0xaf63_dc4c_8601_ec8c, "FNV-1a of \"a\", by its authors' test vectors");
        assert_eq!(mix(0x9e37_79b9_7f4a_7c15), 0xe220_a839_7b1d_cdaf, "the first number of splitmix64 from seed 0");
        assert!((fraction(7, 12) - fraction(0x7 ^ 0xc, 0)).abs() < f64::EPSILON);
    }

    #[test]
    fn the_slots_around_a_moment_are_the_nearest_ones() {
        for (hash, period, wall) in [(5, 100, 1_234), (5, 100, 1_205), (99, 100, 3), (1_234_567, 8_000, -77), (0, 1, 9)] {
            let (before, after) = (at_or_before(hash, period, wall), at_or_after(hash, period, wall));
            assert!(before <= wall && wall - before < period, "{before} {wall}");
            assert!(after >= wall && after - wall < period, "{after} {wall}");
            for slot in [before, after] {
                assert_eq!(slot.rem_euclid(period), phase(hash, period), "{slot}");
            }
        }
    }
}
