//! Moments that fall on a slot exactly, and looks that come late or off by a little.

use super::{HOUR, Hint, Ledger, Moment, SECOND, START, Timings, at, failed, found, holding, item, look, numbered, object, run, settled};
use crate::{fault::Fault, schedule::slots};
use std::time::Duration;

const PERIOD: i64 = 3200 * SECOND;
const MILLISECOND: i64 = SECOND / 1_000;
const SHORT: Duration = Duration::from_secs(90);
const SHORT_PERIOD: i64 = 80 * SECOND;

/// The item's first slot at or after that moment of the monotonic clock.
fn slot(period: i64, from: i64) -> i64 {
    slots::at_or_after(slots::hash(&numbered(1)), period, START + from) - START
}

#[test]
fn after_a_restart_the_slot_at_the_mark_is_looked_at_and_one_before_it_is_not() {
    let due = |now: i64, mark: i64| {
        let mut ledger = Ledger::new(Timings::default(), Some(START + mark));
        ledger.register(at(now), &object("a"), Some(HOUR), [holding(&numbered(1), 1)]);
        ledger.next_due("store").unwrap()
    };
    let slot = slot(PERIOD, 10_000 * SECOND);
    assert_eq!(due(slot + 5 * SECOND, slot), slot, "the mark says what was dealt with before it");
    assert_eq!(due(slot, slot + 50 * MILLISECOND), slot + PERIOD, "it was dealt with, by a clock that is a little ahead");
    assert_eq!(due(slot - 900 * MILLISECOND, slot + 50 * MILLISECOND), slot, "what lies ahead was not dealt with, whatever the mark says");
}

#[test]
fn a_new_interval_does_not_look_twice_for_one_slot() {
    let mut ledger = settled(Timings::default(), Some(HOUR), &[numbered(1)]);
    let looked = slot(SHORT_PERIOD, 5_000 * SECOND);
    ledger.observe(at(looked), None, &numbered(1), looked, found(1));
    ledger.register(at(looked + 1), &object("b"), Some(SHORT), [holding(&numbered(1), 1)]);
    assert_eq!(ledger.next_due("store"), Some(looked + SHORT_PERIOD));
}

#[test]
fn a_shorter_interval_shortens_the_pause_of_what_is_not_answered_and_no_more() {
    let mut ledger = settled(Timings::default(), Some(HOUR), &[numbered(1)]);
    let starts = run(&mut ledger, "store", 7_200 * SECOND, |_| failed(&Fault::unavailable("")));
    let last = *starts.last().unwrap();
    ledger.register(at(last + 1), &object("b"), Some(SHORT), [holding(&numbered(1), 1)]);
    let due = ledger.next_due("store").unwrap();
    assert!(due > last + 1 && due <= last + SHORT_PERIOD, "{}", due - last);
}

#[test]
fn a_clock_that_jumps_onto_a_slot_does_not_look_at_once() {
    let mut ledger = settled(Timings::default(), Some(HOUR), &[numbered(1)]);
    let before = ledger.next_due("store").unwrap();
    ledger.hint(Moment { mono: 1, wall: START + before + PERIOD }, "nobody", &Hint::All);
    assert_eq!(ledger.next_due("store"), Some(before));
}

#[test]
fn a_look_that_comes_late_does_not_cost_the_next_slot() {
    let mut ledger = settled(Timings::default(), Some(HOUR), &[numbered(1)]);
    let due = ledger.next_due("store").unwrap();
    let late = due + PERIOD - PERIOD / 10;
    assert_eq!(look(&mut ledger, late, "store", |_| found(1)).0.len(), 1);
    assert_eq!(ledger.next_due("store"), Some(due + PERIOD));
}

#[test]
fn a_clock_that_is_a_little_slow_does_not_look_twice_however_long_it_has_run() {
    let mut ledger = settled(Timings::default(), Some(HOUR), &[numbered(1)]);
    run(&mut ledger, "store", 100 * PERIOD, |_| found(1));
    let due = ledger.next_due("store").unwrap();
    ledger.observe(Moment { mono: due, wall: START + due - SECOND / 2 }, None, &numbered(1), due, found(1));
    assert!(ledger.next_due("store").unwrap() - due > PERIOD - SECOND);
}

#[test]
fn a_new_credential_does_not_look_at_everything_in_the_same_moment() {
    let items: Vec<_> = (0..1_000).map(|n| item("store", &format!("app/{n}"))).collect();
    let mut ledger = settled(Timings::default(), Some(HOUR), &items);
    let now = ledger.next_due("store").unwrap() - 1;
    ledger.renew(at(now), "store");
    let looked = [1, 2, 5, 8, 10].map(|tenths| look(&mut ledger, now + tenths * SECOND / 10, "store", |_| found(1)).0.len());
    let expected = [100, 100, 300, 300, 200];
    assert!(looked.iter().zip(expected).all(|(looked, expected)| looked.abs_diff(expected) < 60), "{looked:?}");
    assert_eq!(looked.iter().sum::<usize>(), 1_000);
}
