//! The ledger under tables and under arbitrary histories. The world around it is simulated here, clock included.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use super::{Absence, Cause, Counts, Enrolment, Ledger, Moment, Seen, Timings, Waking};
use crate::{
    digest::{DigestKey, ShortMac},
    fault::{Fault, Reason, retry},
    item::{FindRef, Hint, Item, Listing, Wanted},
    name::{ObjectKey, ObjectKind, ProviderKind, RemoteKey, RemoteRef},
};

mod edges;
mod histories;

const SECOND: i64 = 1_000_000_000;
const HOUR: Duration = Duration::from_secs(3600);
/// Some Tuesday.
const START: i64 = 1_700_000_000 * SECOND;

fn item(store: &str, name: &str) -> Item {
    let key = RemoteKey::parse(ProviderKind::File, name).unwrap();
    Item { store: store.to_owned(), wanted: Wanted::Value(RemoteRef { key, version: None, is_metadata: false }) }
}

fn numbered(n: usize) -> Item {
    item("store", &format!("app/{n}"))
}

fn search(store: &str) -> Item {
    let find = FindRef { provider: ProviderKind::File, listing: Listing::default(), regexp: None, allowed: None, is_metadata: false };
    Item { store: store.to_owned(), wanted: Wanted::Find(Box::new(find)) }
}

fn object(name: &str) -> ObjectKey {
    ObjectKey::new(ObjectKind::ExternalSecret, "team", name)
}

fn mac(value: u8) -> ShortMac {
    DigestKey::new(&[1; 32]).mac("value", [&[value][..]]).short()
}

fn found(value: u8) -> Seen {
    Seen::Value(mac(value))
}

fn failed(fault: &Fault) -> Seen {
    Seen::Fault { reason: fault.reason, retry: retry(fault) }
}

fn missing() -> Seen {
    failed(&Fault::absent(Reason::NotFound, ""))
}

fn unavailable() -> Seen {
    failed(&Fault::unavailable(""))
}

fn holding(item: &Item, value: u8) -> Enrolment {
    Enrolment { item: item.clone(), known: Some(mac(value)), failing: None }
}

fn at(mono: i64) -> Moment {
    Moment { mono, wall: START + mono }
}

/// Takes everything that is due and says what became of it: the items with the start of each look.
fn look(ledger: &mut Ledger, now: i64, store: &str, seen: impl Fn(&Item) -> Seen) -> (Vec<Arc<Item>>, Vec<Waking>) {
    let (mut looked, mut wakings) = (Vec::new(), Vec::new());
    while let Some(chunk) = ledger.take(at(now), store, 1) {
        for item in &chunk.items {
            wakings.extend(ledger.observe(at(now), None, item, now, seen(item)));
        }
        ledger.give_back(&chunk.items);
        looked.extend(chunk.items);
        assert!(looked.len() < 10_000, "the same items are due again and again");
    }
    (looked, wakings)
}

/// Goes from look to look until `end`: the starts.
fn run(ledger: &mut Ledger, store: &str, end: i64, seen: impl Fn(i64) -> Seen) -> Vec<i64> {
    let mut starts = Vec::new();
    while let Some(due) = ledger.next_due(store).filter(|due| *due <= end) {
        let (looked, _) = look(ledger, due, store, |_| seen(due));
        starts.extend(looked.iter().map(|_| due));
        assert!(!looked.is_empty(), "due and not taken");
    }
    starts
}

/// One object that has just fetched `items` at the moment 0.
fn settled(timings: Timings, interval: Option<Duration>, items: &[Item]) -> Ledger {
    let mut ledger = Ledger::new(timings, None);
    for item in items {
        ledger.observe(at(0), Some(&object("a")), item, 0, found(1));
    }
    let wakings = ledger.register(at(0), &object("a"), interval, items.iter().map(|item| holding(item, 1)));
    assert_eq!(wakings, []);
    ledger.complete();
    ledger
}

fn names(wakings: &[Waking]) -> Vec<(&str, Cause)> {
    wakings.iter().map(|waking| (waking.object.name.as_str(), waking.cause)).collect()
}

#[test]
fn what_was_just_fetched_is_due_in_its_next_slot_and_every_period_after() {
    let mut ledger = settled(Timings::default(), Some(HOUR), &[numbered(1)]);
    let starts = run(&mut ledger, "store", 100 * 3600 * SECOND, |_| found(1));
    assert!(starts[0] > 0 && starts[0] <= 3200 * SECOND);
    assert!(starts.windows(2).all(|pair| pair[1] - pair[0] == 3200 * SECOND), "{starts:?}");
}

#[test]
fn without_an_interval_nothing_is_looked_at() {
    for interval in [None, Some(Duration::ZERO)] {
        let mut ledger = settled(Timings::default(), interval, &[numbered(1), search("store")]);
        assert_eq!(ledger.next_due("store"), None);
        ledger.hint(at(5), "store", &Hint::All);
        ledger.renew(at(6), "store");
        assert_eq!(ledger.next_due("store"), None);
    }
}

#[test]
fn the_shortest_interval_of_all_users_counts() {
    let mut ledger = settled(Timings::default(), Some(HOUR), &[numbered(1)]);
    ledger.register(at(1), &object("b"), Some(Duration::from_secs(90)), [holding(&numbered(1), 1)]);
    let starts = run(&mut ledger, "store", 400 * SECOND, |_| found(1));
    assert_eq!(starts.len(), 5, "{starts:?}");
    assert!(starts[0] <= 80 * SECOND);
    let last = *starts.last().unwrap();
    ledger.forget(at(last + 1), &object("b"));
    let starts = run(&mut ledger, "store", 8000 * SECOND, |_| found(1));
    assert!(starts.len() <= 3 && starts[0] - last <= 3200 * SECOND, "{starts:?}");
}

#[test]
fn nobody_can_make_a_busy_loop_of_an_interval() {
    let mut ledger = settled(Timings::default(), Some(Duration::from_nanos(1)), &[numbered(1)]);
    let starts = run(&mut ledger, "store", 10 * SECOND, |_| found(1));
    assert!(starts.len() <= 113, "{}", starts.len());
}

#[test]
fn the_longest_interval_does_not_overflow() {
    let mut ledger = settled(Timings::default(), Some(Duration::MAX), &[numbered(1)]);
    assert!(ledger.next_due("store").unwrap() <= 366 * 24 * 3600 * SECOND);
    let starts = run(&mut ledger, "store", i64::MAX / 2, |_| found(1));
    assert!((147..=164).contains(&starts.len()), "292 years have half as many slots: {}", starts.len());
}

#[test]
fn only_who_knows_another_value_is_woken_and_only_once() {
    let mut ledger = settled(Timings::default(), Some(HOUR), &[numbered(1)]);
    ledger.register(at(1), &object("b"), Some(HOUR), [holding(&numbered(1), 1)]);
    ledger.register(at(1), &object("c"), None, [holding(&numbered(1), 1)]);
    let due = ledger.next_due("store").unwrap();
    let (_, wakings) = look(&mut ledger, due, "store", |_| found(2));
    assert_eq!(names(&wakings), [("a", Cause::Changed), ("b", Cause::Changed)], "c does not look periodically");
    assert!(wakings.iter().all(|waking| waking.not_before == due));
    let due = ledger.next_due("store").unwrap();
    assert_eq!(look(&mut ledger, due, "store", |_| found(2)).1, []);
    let due = ledger.next_due("store").unwrap();
    assert_eq!(look(&mut ledger, due, "store", |_| found(1)).1.len(), 2, "back is a change too");
}

#[test]
fn the_first_failure_the_first_success_and_a_new_reason_wake_and_nothing_else() {
    let mut ledger = settled(Timings::default(), Some(HOUR), &[numbered(1)]);
    let denied = failed(&Fault::access_denied(""));
    let cases = [
        (unavailable(), Some(Cause::Failing)),
        (unavailable(), None),
        (denied, Some(Cause::Failing)),
        (denied, None),
        (found(1), Some(Cause::Recovered)),
        (found(1), None),
        (failed(&Fault::invalid(Reason::InvalidData, "")), Some(Cause::Failing)),
        (found(2), Some(Cause::Recovered)),
    ];
    for (step, (seen, cause)) in cases.into_iter().enumerate() {
        let due = ledger.next_due("store").unwrap();
        let (_, wakings) = look(&mut ledger, due, "store", |_| seen);
        assert_eq!(wakings.first().map(|waking| waking.cause), cause, "step {step}");
        ledger.settle(&object("a"), due);
    }
}

#[test]
fn who_looked_itself_is_not_woken_but_the_others_are() {
    let mut ledger = settled(Timings::default(), Some(HOUR), &[numbered(1)]);
    ledger.register(at(1), &object("b"), Some(HOUR), [holding(&numbered(1), 1)]);
    let wakings = ledger.observe(at(9), Some(&object("b")), &numbered(1), 8, found(2));
    assert_eq!(names(&wakings), [("a", Cause::Changed)]);
    assert_eq!(ledger.register(at(10), &object("b"), Some(HOUR), [holding(&numbered(1), 2)]), []);
}

#[test]
fn who_is_about_to_look_is_not_woken_again_but_nothing_is_lost_by_that() {
    let mut ledger = settled(Timings::default(), Some(HOUR), &[numbered(1), numbered(2)]);
    ledger.register(at(1), &object("b"), Some(HOUR), [holding(&numbered(1), 1), holding(&numbered(2), 1)]);
    let wakings = ledger.observe(at(10), None, &numbered(1), 10, found(2));
    assert_eq!(names(&wakings), [("a", Cause::Changed), ("b", Cause::Changed)]);
    assert_eq!(ledger.observe(at(20), Some(&object("a")), &numbered(2), 20, found(2)), [], "b will read it anyway");
    // b had already read the second item when it changed.
    ledger.observe(at(21), Some(&object("b")), &numbered(1), 10, found(2));
    let wakings = ledger.register(at(30), &object("b"), Some(HOUR), [holding(&numbered(1), 2), holding(&numbered(2), 1)]);
    assert_eq!(names(&wakings), [("b", Cause::Changed)]);
    // Neither reports; ten seconds after it was woken each is told again.
    let (a_again, b_again) = (10 + 10 * SECOND, 30 + 10 * SECOND);
    assert_eq!(names(&ledger.observe(at(a_again), None, &numbered(1), a_again, found(3))), [("a", Cause::Changed)]);
    assert_eq!(names(&ledger.observe(at(b_again), None, &numbered(1), b_again, found(4))), [("b", Cause::Changed)]);
}

#[test]
fn a_refused_value_is_not_offered_again_and_again() {
    let mut ledger = settled(Timings::default(), Some(HOUR), &[numbered(1)]);
    let due = ledger.next_due("store").unwrap();
    assert_eq!(look(&mut ledger, due, "store", |_| found(2)).1.len(), 1);
    // The object could not use it and registers what its target still holds.
    for step in 1..4 {
        assert_eq!(ledger.register(at(due + step), &object("a"), Some(HOUR), [holding(&numbered(1), 1)]), []);
    }
    let due = ledger.next_due("store").unwrap();
    assert_eq!(look(&mut ledger, due, "store", |_| found(2)).1, []);
}

#[test]
fn a_new_user_is_told_what_a_look_already_saw() {
    let mut ledger = settled(Timings::default(), Some(HOUR), &[numbered(1)]);
    let wakings = ledger.register(at(7), &object("b"), Some(HOUR), [holding(&numbered(1), 3)]);
    assert_eq!(names(&wakings), [("b", Cause::Changed)]);
    assert_eq!(ledger.register(at(8), &object("b"), Some(HOUR), [holding(&numbered(1), 3)]), []);
}

#[test]
fn an_older_look_that_arrives_late_says_nothing() {
    let mut ledger = settled(Timings::default(), Some(HOUR), &[numbered(1)]);
    assert_eq!(ledger.observe(at(30), Some(&object("x")), &numbered(1), 20, found(2)).len(), 1);
    assert_eq!(ledger.observe(at(31), None, &numbered(1), 10, found(1)), []);
    assert_eq!(ledger.observe(at(32), None, &numbered(1), 20, found(1)), [], "the same look twice");
    assert_eq!(ledger.observe(at(33), None, &numbered(1), 33, found(2)), [], "everybody knows it");
}

#[test]
fn an_asked_look_comes_now_and_always_wakes_who_asked() {
    let mut ledger = settled(Timings::default(), None, &[numbered(1)]);
    ledger.ask(at(5), &object("a"));
    let (looked, wakings) = look(&mut ledger, 5, "store", |_| found(1));
    assert_eq!((looked.len(), names(&wakings)), (1, vec![("a", Cause::Asked)]));
    assert_eq!(ledger.next_due("store"), None);
    let mut ledger = settled(Timings::default(), None, &[numbered(1)]);
    ledger.register(at(1), &object("b"), None, [holding(&numbered(1), 1)]);
    ledger.ask(at(5), &object("a"));
    ledger.ask(at(5), &object("b"));
    ledger.forget(at(6), &object("b"));
    assert_eq!(names(&look(&mut ledger, 7, "store", |_| found(1)).1), [("a", Cause::Asked)]);
    let mut ledger = settled(Timings::default(), Some(HOUR), &[]);
    assert_eq!(names(&ledger.ask(at(5), &object("a"))), [("a", Cause::Asked)], "nothing to look at is no reason to be silent");
}

#[test]
fn a_look_that_began_before_it_was_asked_for_does_not_answer() {
    let mut ledger = settled(Timings::default(), Some(HOUR), &[numbered(1)]);
    let due = ledger.next_due("store").unwrap();
    let chunk = ledger.take(at(due), "store", 1).unwrap();
    ledger.ask(at(due + 5), &object("a"));
    assert_eq!(ledger.observe(at(due + 9), None, &numbered(1), due, found(1)), []);
    ledger.give_back(&chunk.items);
    assert_eq!(names(&look(&mut ledger, due + 10, "store", |_| found(1)).1), [("a", Cause::Asked)]);
}

#[test]
fn an_item_on_its_way_is_not_taken_twice_and_comes_back_when_nothing_was_seen() {
    let mut ledger = settled(Timings::default(), Some(HOUR), &[numbered(1)]);
    let due = ledger.next_due("store").unwrap();
    let chunk = ledger.take(at(due), "store", 1).unwrap();
    assert_eq!((ledger.take(at(due), "store", 1), ledger.next_due("store")), (None, None));
    ledger.give_back(&chunk.items);
    assert_eq!(ledger.next_due("store"), Some(due));
}

#[test]
fn absence_is_looked_at_nine_times_in_the_first_day_and_confirmed_at_sixty_seconds() {
    let day = Duration::from_secs(24 * 3600);
    let mut ledger = settled(Timings::default(), Some(day), &[numbered(1)]);
    let first = ledger.next_due("store").unwrap();
    assert_eq!(ledger.absence(&numbered(1)), Absence::None);
    let starts = run(&mut ledger, "store", first + 24 * 3600 * SECOND - 1, |_| missing());
    let seconds: Vec<i64> = starts.iter().map(|start| (start - first) / SECOND).collect();
    assert_eq!(seconds, [0, 10, 40, 60, 330, 1140, 3570, 10860, 32730]);
}

#[test]
fn absence_needs_two_consecutive_misses_far_enough_apart() {
    let missed = |seconds: &[(i64, Seen)]| {
        let mut ledger = settled(Timings::default(), Some(HOUR), &[numbered(1)]);
        for (second, seen) in seconds {
            ledger.observe(at(second * SECOND), None, &numbered(1), second * SECOND, *seen);
        }
        ledger.absence(&numbered(1))
    };
    let deleted = failed(&Fault::absent(Reason::Deleted, ""));
    let first = |second: i64| Absence::First { since: second * SECOND };
    assert_eq!(missed(&[(1, missing())]), first(1));
    assert_eq!(missed(&[(1, missing()), (60, missing())]), first(1));
    assert_eq!(missed(&[(1, missing()), (61, missing())]), Absence::Confirmed);
    assert_eq!(missed(&[(1, missing()), (61, missing()), (62, found(1))]), Absence::None);
    assert_eq!(missed(&[(1, missing()), (30, unavailable()), (61, missing())]), first(61), "unknown is never absent");
    assert_eq!(missed(&[(1, missing()), (30, found(1)), (61, missing())]), first(61));
    assert_eq!(missed(&[(1, deleted), (61, deleted)]), Absence::None, "soft-deleted values are kept");
    assert_eq!(missed(&[(1, deleted), (61, missing())]), first(61));
}

#[test]
fn the_confirming_look_wakes_even_though_the_view_is_the_same() {
    let mut ledger = settled(Timings::default(), Some(HOUR), &[numbered(1)]);
    let first = ledger.next_due("store").unwrap();
    let mut causes = Vec::new();
    while let Some(due) = ledger.next_due("store").filter(|due| *due <= first + 400 * SECOND) {
        causes.extend(look(&mut ledger, due, "store", |_| missing()).1.iter().map(|waking| waking.cause));
        let is_confirmed = ledger.absence(&numbered(1)) == Absence::Confirmed;
        assert_eq!(causes.contains(&Cause::AbsenceConfirmed), is_confirmed, "by this look and no later one");
    }
    assert_eq!(causes, [Cause::Failing, Cause::AbsenceConfirmed]);
}

#[test]
fn who_does_not_look_periodically_retries_what_fails_and_rests_after() {
    let mut ledger = settled(Timings::default(), None, &[numbered(1)]);
    ledger.observe(at(SECOND), Some(&object("a")), &numbered(1), SECOND, unavailable());
    let fault = Fault::unavailable("");
    let failing = Enrolment { item: numbered(1), known: Some(mac(1)), failing: Some((fault.reason, retry(&fault))) };
    assert_eq!(ledger.register(at(SECOND), &object("a"), None, [failing]), []);
    let due = ledger.next_due("store").unwrap();
    assert!(due < 3 * SECOND, "{due}");
    assert_eq!(look(&mut ledger, due, "store", |_| unavailable()).1, []);
    let due = ledger.next_due("store").unwrap();
    assert_eq!(names(&look(&mut ledger, due, "store", |_| found(1)).1), [("a", Cause::Recovered)]);
    assert_eq!(ledger.next_due("store"), None);
}

#[test]
fn who_does_not_look_periodically_is_told_of_nothing_that_others_find() {
    let mut ledger = settled(Timings::default(), Some(HOUR), &[numbered(1), numbered(2)]);
    let never_read = || Enrolment { item: numbered(2), known: None, failing: None };
    assert_eq!(ledger.register(at(1), &object("b"), None, [holding(&numbered(1), 1), never_read()]), []);
    assert_eq!(names(&ledger.register(at(1), &object("c"), Some(HOUR), [never_read()])), [("c", Cause::Changed)], "it looks by itself");
    ledger.forget(at(1), &object("c"));
    let end = ledger.next_due("store").unwrap() + 3600 * SECOND;
    let mut told = BTreeSet::new();
    while let Some(due) = ledger.next_due("store").filter(|due| *due <= end) {
        let (_, wakings) = look(&mut ledger, due, "store", |_| missing());
        told.extend(wakings.iter().map(|waking| waking.object.name.clone()));
    }
    assert_eq!(ledger.absence(&numbered(1)), Absence::Confirmed);
    assert_eq!(told, BTreeSet::from(["a".to_owned()]));
}

#[test]
fn unavailability_doubles_the_pause_up_to_the_longest_or_the_period() {
    for (interval, longest) in [(HOUR, 5), (Duration::from_secs(9), 5)] {
        let mut ledger = settled(Timings::default(), Some(interval), &[numbered(1)]);
        let starts = run(&mut ledger, "store", 300 * SECOND, |_| unavailable());
        let gaps: Vec<i64> = starts.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let gaps = &gaps[..30];
        assert!(gaps[0] >= 3 * SECOND / 4 && gaps[0] <= 5 * SECOND / 4, "{gaps:?}");
        assert!(gaps[1] > gaps[0] && gaps[2] > gaps[1], "{gaps:?}");
        assert!(gaps.iter().all(|gap| *gap <= longest * SECOND), "{gaps:?}");
        assert!(gaps[20] >= 3 * longest * SECOND / 4, "{gaps:?}");
    }
}

#[test]
fn a_denial_pauses_ten_minutes_more_or_less_whatever_the_interval() {
    let mut firsts = BTreeSet::new();
    for (n, interval) in [(1, 10), (2, 10), (3, 86_400)] {
        let mut ledger = settled(Timings::default(), Some(Duration::from_secs(interval)), &[numbered(n)]);
        let starts = run(&mut ledger, "store", 48 * 3600 * SECOND, |_| failed(&Fault::access_denied("")));
        let gaps: Vec<i64> = starts.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(gaps.iter().all(|gap| (540 * SECOND..=660 * SECOND).contains(gap)), "{gaps:?}");
        firsts.insert(gaps[0]);
    }
    assert_eq!(firsts.len(), 3, "items differ");
}

#[test]
fn a_new_credential_looks_at_the_denied_within_a_second() {
    let mut ledger = settled(Timings::default(), Some(HOUR), &[numbered(1)]);
    let due = ledger.next_due("store").unwrap();
    look(&mut ledger, due, "store", |_| failed(&Fault::access_denied("")));
    ledger.settle(&object("a"), due);
    ledger.renew(at(due + 5), "store");
    let due_again = ledger.next_due("store").unwrap();
    assert!(due_again <= due + 5 + SECOND);
    assert_eq!(names(&look(&mut ledger, due_again, "store", |_| found(1)).1), [("a", Cause::Recovered)]);
}

#[test]
fn a_hint_to_slow_down_is_kept_up_to_its_cap() {
    let pause = |interval: u64, after: Option<u64>| {
        let mut ledger = settled(Timings::default(), Some(Duration::from_secs(interval)), &[numbered(1)]);
        let due = ledger.next_due("store").unwrap();
        look(&mut ledger, due, "store", |_| failed(&Fault::throttled(after.map(Duration::from_secs), "")));
        (ledger.next_due("store").unwrap() - due) / SECOND
    };
    assert!((30..=38).contains(&pause(3600, Some(30))));
    assert!((300..=375).contains(&pause(3600, Some(1_000_000))));
    assert!((1..=2).contains(&pause(3600, None)));
    assert!(pause(90, Some(1_000)) <= 80, "never longer than the interval");
}

#[test]
fn hints_are_coalesced() {
    let mut ledger = settled(Timings::default(), Some(HOUR), &[numbered(1), numbered(2)]);
    let mut looks = 0;
    for millisecond in 1..1_001 {
        let now = millisecond * 1_000_000;
        ledger.hint(at(now), "store", &Hint::All);
        looks += look(&mut ledger, now, "store", |_| found(1)).0.len();
    }
    assert!((8..=12).contains(&looks), "{looks}");
}

#[test]
fn two_hints_of_one_moment_are_one_look_now_and_one_later() {
    let mut ledger = settled(Timings::default(), Some(HOUR), &[numbered(1)]);
    ledger.hint(at(5), "store", &Hint::All);
    assert_eq!(look(&mut ledger, 5, "store", |_| found(1)).0.len(), 1);
    ledger.hint(at(5), "store", &Hint::All);
    assert_eq!(ledger.next_due("store"), Some(5 + 200_000_000));
}

#[test]
fn a_hint_of_keys_is_followed_by_looks_at_these_and_at_searches_only() {
    let mut ledger = settled(Timings::default(), Some(HOUR), &[numbered(1), numbered(2), search("store")]);
    let key = RemoteKey::parse(ProviderKind::File, "app/2").unwrap();
    ledger.hint(at(5), "store", &Hint::Keys([key].into()));
    let mut seen: Vec<Item> = Vec::new();
    while let Some(chunk) = ledger.take(at(5), "store", 1) {
        assert!(chunk.is_urgent);
        seen.extend(chunk.items.iter().map(|item| (**item).clone()));
    }
    seen.sort();
    assert_eq!(seen, [numbered(2), search("store")]);
}

#[test]
fn what_is_known_to_be_unchanged_counts_as_a_look_and_wakes_nobody_but_who_asked() {
    let mut ledger = settled(Timings::default(), Some(HOUR), &[numbered(1)]);
    ledger.observe(at(2), None, &numbered(1), 2, found(1));
    let due = ledger.next_due("store").unwrap();
    assert_eq!(ledger.observe_unchanged(at(due), &numbered(1), due), Some(vec![]));
    assert!(ledger.next_due("store").unwrap() > due, "its next slot");
    ledger.ask(at(due + 1), &object("a"));
    let wakings = ledger.observe_unchanged(at(due + 2), &numbered(1), due + 2).unwrap();
    assert_eq!(names(&wakings), [("a", Cause::Asked)]);
    ledger.observe(at(due + 3), None, &numbered(1), due + 3, unavailable());
    assert_eq!(ledger.observe_unchanged(at(due + 4), &numbered(1), due + 4), None, "a fault is not unchanged: it is looked at");
    assert_eq!(ledger.observe_unchanged(at(due + 5), &numbered(2), due + 5), None, "nobody uses it");
}

#[test]
fn the_brake_holds_until_it_is_confirmed_and_then_wakes_who_waited() {
    let items: Vec<Item> = (0..8).map(numbered).collect();
    let mut ledger = settled(Timings::default(), Some(HOUR), &items);
    for (n, item) in items.iter().enumerate().take(5) {
        for second in [1, 100] {
            ledger.observe(at(second * SECOND), None, item, second * SECOND + i64::try_from(n).unwrap(), missing());
        }
        assert_eq!(ledger.is_braked("store"), n >= 3, "{n}");
    }
    ledger.register(at(101 * SECOND), &object("a"), Some(HOUR), items.iter().map(|item| holding(item, 1)));
    assert!(ledger.is_braked("store") && !ledger.is_braked("other"));
    assert_eq!(names(&ledger.confirm_absence(at(102 * SECOND), "store")), [("a", Cause::AbsenceConfirmed)]);
    assert!(!ledger.is_braked("store"));
    ledger.register(at(103 * SECOND), &object("a"), Some(HOUR), items.iter().map(|item| holding(item, 1)));
    ledger.observe(at(900 * SECOND), None, &items[0], 900 * SECOND, missing());
    assert!(!ledger.is_braked("store"), "what was confirmed is not counted again");
}

#[test]
fn what_nobody_ever_had_does_not_brake() {
    let mut ledger = Ledger::new(Timings::default(), None);
    for n in 0..20 {
        ledger.observe(at(n), Some(&object("new")), &numbered(usize::try_from(n).unwrap()), n, missing());
    }
    assert!(!ledger.is_braked("store"));
    ledger.register(at(30), &object("new"), Some(HOUR), (0..20).map(|n| holding(&numbered(n), 1)));
    assert!(ledger.is_braked("store"), "after a restart the annotation tells that somebody had it");
}

#[test]
fn a_thousand_items_are_spread_over_the_period() {
    let items: Vec<Item> = (0..1_000).map(numbered).collect();
    let mut ledger = settled(Timings::default(), Some(HOUR), &items);
    let mut by_minute = BTreeMap::<i64, usize>::new();
    for start in run(&mut ledger, "store", 2 * 3200 * SECOND, |_| found(1)) {
        *by_minute.entry(start / (64 * SECOND)).or_default() += 1;
    }
    // 20 are expected in each of the hundred parts; 44 would be more than five standard deviations.
    assert!(by_minute.len() >= 100 && by_minute.values().all(|count| *count < 44), "{by_minute:?}");
    assert_eq!(by_minute.values().sum::<usize>(), 2_000);
}

#[test]
fn all_that_one_store_does_not_answer_share_the_rate_at_which_it_is_asked_again() {
    for (count, most) in [(1, 3600 / 3), (10, 3600 / 3), (100, 3600 / 2)] {
        let items: Vec<Item> = (0..count).map(numbered).collect();
        let mut ledger = settled(Timings::default(), Some(24 * HOUR), &items);
        ledger.hint(at(SECOND), "store", &Hint::All);
        let starts = run(&mut ledger, "store", 2 * 3600 * SECOND, |_| unavailable());
        let settled = starts.iter().filter(|start| **start > 3600 * SECOND).count();
        assert!(settled > 0 && settled <= most, "{count} items are looked at {settled} times an hour");
    }
}

#[test]
fn when_a_store_is_back_all_that_it_did_not_answer_is_looked_at_at_once_and_nothing_else() {
    let items: Vec<Item> = (0..100).map(numbered).collect();
    let mut ledger = settled(Timings::default(), Some(HOUR), &items);
    ledger.hint(at(SECOND), "store", &Hint::All);
    let down = |item: &Item| if *item == numbered(7) { found(1) } else { unavailable() };
    assert_eq!(look(&mut ledger, SECOND, "store", down).0.len(), 100);
    ledger.recover(at(SECOND + 1), "store");
    let (looked, wakings) = look(&mut ledger, SECOND + 1, "store", |_| found(1));
    assert_eq!(looked.len(), 99);
    assert_eq!(names(&wakings).iter().filter(|(_, cause)| *cause == Cause::Recovered).count(), 0, "it was just woken for the failure");
    ledger.recover(at(SECOND + 2), "store");
    assert_eq!(ledger.take(at(SECOND + 2), "store", 1), None);
}

#[test]
fn who_finds_out_whether_a_store_is_back_is_each_in_turn() {
    let items: Vec<Item> = (0..4).map(numbered).collect();
    let mut ledger = settled(Timings::default(), Some(HOUR), &items);
    ledger.hint(at(SECOND), "store", &Hint::All);
    look(&mut ledger, SECOND, "store", |_| unavailable());
    let mut probed = BTreeSet::new();
    for n in 1..=4 {
        let now = SECOND + n * 1_000;
        ledger.probe(at(now), "store");
        let (looked, _) = look(&mut ledger, now, "store", |_| unavailable());
        assert_eq!(looked.len(), 1);
        probed.extend(looked);
    }
    assert_eq!(probed.len(), 4);
    ledger.probe(at(SECOND), "another");
    let now = SECOND + 9_000;
    ledger.probe(at(now), "store");
    let first = ledger.take(at(now), "store", 1).unwrap();
    ledger.probe(at(now), "store");
    let second = ledger.take(at(now), "store", 1).unwrap();
    assert_ne!(first.items, second.items, "who is on the way already finds it out");
}

#[test]
fn what_is_asked_for_goes_before_what_is_late_and_does_not_stop_it() {
    let items: Vec<Item> = (0..1_000).map(numbered).collect();
    let mut ledger = Ledger::new(Timings::default(), None);
    ledger.register(at(0), &object("a"), Some(HOUR), items[..900].iter().map(|item| holding(item, 1)));
    ledger.register(at(0), &object("b"), Some(HOUR), items[900..].iter().map(|item| holding(item, 1)));
    for item in &items[900..] {
        ledger.observe(at(1), Some(&object("b")), item, 1, found(1));
    }
    ledger.ask(at(SECOND), &object("b"));
    let taken: Vec<bool> = std::iter::from_fn(|| ledger.take(at(SECOND), "store", 1)).map(|chunk| chunk.is_urgent).collect();
    assert_eq!(taken.len(), 1_000);
    let last = taken.iter().rposition(|is_urgent| *is_urgent).unwrap();
    assert!(last < 120, "the last of a hundred was number {last}");
    assert!(taken[..last].iter().filter(|is_urgent| !**is_urgent).count() >= 12, "late looks go on meanwhile");
}

#[test]
fn failing_together_does_not_mean_staying_together() {
    let items: Vec<Item> = (0..1_000).map(numbered).collect();
    let mut ledger = settled(Timings::default(), Some(Duration::from_secs(90)), &items);
    let end = 3600 * SECOND;
    let starts = run(&mut ledger, "store", end, |_| unavailable());
    let mut by_second = BTreeMap::<i64, usize>::new();
    starts.iter().filter(|start| **start > end / 2).for_each(|start| *by_second.entry(start / SECOND).or_default() += 1);
    assert!(by_second.values().all(|count| *count < 40), "{by_second:?}");
}

#[test]
fn batches_are_filled_and_no_gap_is_longer_than_the_interval() {
    for (count, most) in [(200, 13), (1_000, 58), (5_000, 283)] {
        let items: Vec<Item> = (0..count).map(numbered).collect();
        let mut ledger = settled(Timings::default(), Some(HOUR), &items);
        let (mut last, mut calls) = (BTreeMap::<Arc<Item>, i64>::new(), 0);
        while let Some(due) = ledger.next_due("store").filter(|due| *due <= 10 * 3600 * SECOND) {
            let chunk = ledger.take(at(due), "store", 20).unwrap();
            assert!(chunk.items.len() <= 20);
            calls += 1;
            for item in &chunk.items {
                let gap = due - last.insert(Arc::clone(item), due).unwrap_or(0);
                assert!(gap > 0 && gap <= 3600 * SECOND, "{gap}");
                ledger.observe(at(due), None, item, due, found(1));
            }
            ledger.give_back(&chunk.items);
        }
        assert!(calls <= most * 10, "{count} items: {calls} calls in ten intervals");
    }
}

#[test]
fn a_search_is_looked_at_alone() {
    let mut ledger = Ledger::new(Timings::default(), None);
    let items = [numbered(1), search("store"), numbered(2)];
    ledger.register(at(0), &object("a"), Some(HOUR), items.iter().map(|item| holding(item, 1)));
    let mut sizes = Vec::new();
    while let Some(chunk) = ledger.take(at(0), "store", 20) {
        sizes.push((chunk.items.len(), matches!(chunk.items[0].wanted, Wanted::Find(_))));
    }
    sizes.sort_unstable();
    assert_eq!(sizes, [(1, true), (2, false)]);

    let numbered_search = |n: usize| {
        let find = FindRef {
            provider: ProviderKind::File,
            listing: Listing::default(),
            regexp: Some(n.to_string()),
            allowed: None,
            is_metadata: false,
        };
        Item { store: "store".to_owned(), wanted: Wanted::Find(Box::new(find)) }
    };
    let items: Vec<Item> = (0..100).flat_map(|n| [numbered(n), numbered_search(n)]).collect();
    let mut ledger = settled(Timings::default(), Some(HOUR), &items);
    while let Some(due) = ledger.next_due("store").filter(|due| *due <= 3600 * SECOND) {
        let chunk = ledger.take(at(due), "store", 20).unwrap();
        let searches = chunk.items.iter().filter(|item| matches!(item.wanted, Wanted::Find(_))).count();
        assert!(searches == 0 || chunk.items.len() == 1, "none fills a batch of values");
        for item in &chunk.items {
            ledger.observe(at(due), None, item, due, found(1));
        }
        ledger.give_back(&chunk.items);
    }
}

#[test]
fn a_restart_looks_at_what_fell_due_since_the_mark_and_nothing_else() {
    let items: Vec<Item> = (0..1_000).map(numbered).collect();
    let due_at_start = |since: Option<i64>| {
        let mut ledger = Ledger::new(Timings::default(), since);
        ledger.register(at(0), &object("a"), Some(HOUR), items.iter().map(|item| holding(item, 1)));
        look(&mut ledger, 0, "store", |_| found(1)).0.len()
    };
    assert_eq!(due_at_start(None), 1_000);
    assert_eq!(due_at_start(Some(START - 3600 * SECOND)), 1_000);
    assert_eq!(due_at_start(Some(START)), 0);
    let tenth = due_at_start(Some(START - 320 * SECOND));
    assert!((60..140).contains(&tenth), "{tenth}");
    assert_eq!(due_at_start(Some(START + 60 * SECOND)), 1_000, "a mark in the future proves nothing");
}

#[test]
fn what_was_failing_before_a_restart_is_looked_at_soon_and_wakes_on_success() {
    let cases = [
        (Fault::unavailable(""), SECOND),
        (Fault::absent(Reason::NotFound, ""), 10 * SECOND),
        (Fault::throttled(None, ""), SECOND),
        (Fault::access_denied(""), 600 * SECOND),
    ];
    for (fault, most) in cases {
        for interval in [Some(24 * HOUR), None] {
            let mut ledger = Ledger::new(Timings::default(), Some(START));
            let failing = Enrolment { item: numbered(1), known: Some(mac(1)), failing: Some((fault.reason, retry(&fault))) };
            assert_eq!(ledger.register(at(0), &object("a"), interval, [failing]), []);
            let due = ledger.next_due("store").unwrap();
            assert!(due > 0 && due <= most, "{fault} {due}");
            assert_eq!(names(&look(&mut ledger, due, "store", |_| found(1)).1), [("a", Cause::Recovered)]);
        }
    }
}

#[test]
fn the_mark_waits_for_registration_looks_and_settled_objects() {
    let since = START - 7 * SECOND;
    let mut ledger = Ledger::new(Timings::default(), Some(since));
    assert_eq!(ledger.caught_up(at(0)), since);
    let items: Vec<Item> = (0..2_000).map(numbered).collect();
    ledger.register(at(0), &object("a"), Some(HOUR), items.iter().map(|item| holding(item, 1)));
    assert_eq!(ledger.caught_up(at(SECOND)), since, "others may still be missing");
    ledger.complete();
    let chunk = ledger.take(at(SECOND), "store", 1).unwrap();
    let first = ledger.caught_up(at(SECOND));
    assert!(first >= since && first < START, "on its way is not looked at");
    let wakings = ledger.observe(at(SECOND), None, &chunk.items[0], SECOND, found(2));
    ledger.give_back(&chunk.items);
    look(&mut ledger, SECOND, "store", |_| found(1));
    assert_eq!(ledger.caught_up(at(SECOND)), first, "the woken object has not settled");
    assert!(!ledger.settle(&object("a"), SECOND - 1) && ledger.caught_up(at(SECOND)) == first);
    assert!(ledger.settle(&object("a"), wakings[0].not_before));
    assert_eq!(ledger.caught_up(at(SECOND)), START + SECOND);
    let due = ledger.next_due("store").unwrap();
    assert_eq!(ledger.caught_up(at(due + 9 * SECOND)), START + due, "nobody looked");
}

#[test]
fn a_reconcile_that_covers_an_overdue_slot_keeps_the_mark_until_the_others_settle() {
    let mut ledger = settled(Timings::default(), Some(HOUR), &[numbered(1)]);
    ledger.register(at(1), &object("b"), Some(HOUR), [holding(&numbered(1), 1)]);
    let due = ledger.next_due("store").unwrap();
    let late = due + 5 * SECOND;
    assert_eq!(ledger.observe(at(late), Some(&object("b")), &numbered(1), late, found(2)).len(), 1);
    assert_eq!(ledger.caught_up(at(late)), START + due, "else the next leader would skip the slot for a");
}

#[test]
fn when_the_wall_clock_jumps_nothing_comes_later_and_slots_are_computed_anew() {
    for jump in [-86_400, -40, 40, 500, 86_400] {
        let mut ledger = settled(Timings::default(), Some(HOUR), &[numbered(1)]);
        let before = ledger.next_due("store").unwrap();
        let jumped = |mono: i64| Moment { mono, wall: START + mono + jump * SECOND };
        ledger.hint(jumped(1), "nobody", &Hint::All);
        let after = ledger.next_due("store").unwrap();
        let to_the_slot = at(before).wall - (jumped(1).wall + 1);
        assert_eq!(after, before.min(2 + to_the_slot.rem_euclid(3200 * SECOND)), "{jump}");
        ledger.observe(jumped(after), None, &numbered(1), after, found(1));
        let next = ledger.next_due("store").unwrap();
        assert!(next > after && next - after <= 3600 * SECOND, "{jump}");
        assert_eq!(
            jumped(next).wall.rem_euclid(3200 * SECOND),
            at(before).wall.rem_euclid(3200 * SECOND),
            "{jump}: the same slot of the clock"
        );
    }
}

#[test]
fn small_corrections_of_the_clock_do_not_look_twice() {
    let mut ledger = settled(Timings::default(), Some(HOUR), &[numbered(1)]);
    let due = ledger.next_due("store").unwrap();
    for correction in [SECOND / 2, -SECOND / 2, SECOND, -SECOND] {
        ledger.hint(Moment { mono: 1, wall: START + 1 + correction }, "nobody", &Hint::All);
        assert_eq!(ledger.next_due("store"), Some(due), "{correction}");
    }
    let slow = Moment { mono: due, wall: START + due - SECOND / 2 };
    ledger.observe(slow, None, &numbered(1), due, found(1));
    assert!(ledger.next_due("store").unwrap() - due > 3000 * SECOND);
}

#[test]
fn nothing_stays_of_what_is_forgotten() {
    let mut ledger = settled(Timings::default(), Some(HOUR), &[numbered(1), search("store")]);
    ledger.register(at(1), &object("b"), None, [holding(&numbered(1), 2), holding(&item("other", "x"), 1)]);
    ledger.ask(at(1), &object("b"));
    let chunk = ledger.take(at(1), "other", 5).unwrap();
    ledger.forget(at(2), &object("a"));
    assert_eq!(ledger.counts(), Counts { items: 2, objects: 1, stores: 2, pending: 0 });
    ledger.register(at(3), &object("b"), None, [holding(&numbered(1), 2)]);
    ledger.give_back(&chunk.items);
    assert!(ledger.has_store("store") && !ledger.has_store("other"));
    ledger.forget(at(4), &object("b"));
    ledger.forget(at(4), &object("b"));
    assert_eq!(ledger.counts(), Counts::default());
    assert_eq!(ledger.observe(at(5), None, &numbered(1), 5, found(1)), []);
    assert_eq!(ledger.counts(), Counts::default());
}

#[test]
fn a_fetch_that_no_registration_follows_is_forgotten_in_time() {
    let mut ledger = settled(Timings::default(), Some(HOUR), &[numbered(1)]);
    ledger.observe(at(1), Some(&object("b")), &numbered(2), 1, found(1));
    ledger.observe(at(1), Some(&object("a")), &numbered(3), 1, found(1));
    assert_eq!(ledger.counts(), Counts { items: 3, objects: 2, stores: 1, pending: 0 });
    ledger.hint(at(121 * SECOND), "nobody", &Hint::All);
    assert_eq!(ledger.counts(), Counts { items: 1, objects: 1, stores: 1, pending: 0 });
    assert_eq!(ledger.items_of(&object("a")), [Arc::new(numbered(1))]);
}

#[test]
fn what_an_object_uses_and_who_uses_an_item_is_known_while_it_lasts() {
    let mut ledger = settled(Timings::default(), Some(HOUR), &[numbered(1)]);
    ledger.observe(at(1), Some(&object("a")), &numbered(2), 1, found(1));
    assert_eq!(ledger.items_of(&object("a")), [numbered(1), numbered(2)].map(Arc::new));
    assert_eq!(ledger.items_of(&object("b")), []);
    let used = [numbered(1), numbered(2), numbered(3)].map(|item| ledger.is_used(&item));
    assert_eq!(used, [true, false, false], "registered, only fetched, unknown");
    assert_eq!([numbered(1), numbered(2), numbered(3)].map(|item| ledger.is_known(&item)), [true, true, false]);
}

#[test]
fn an_object_is_open_from_its_waking_to_its_report() {
    let mut ledger = settled(Timings::default(), Some(HOUR), &[numbered(1), numbered(2)]);
    ledger.register(at(1), &object("b"), Some(HOUR), [holding(&numbered(1), 2)]);
    assert_eq!(ledger.open_users(&numbered(1)), [object("b")], "it holds another value than the last look saw");
    assert_eq!(ledger.open_users(&numbered(2)), []);
    assert_eq!(ledger.open_users(&numbered(3)), []);
    assert!(ledger.settle(&object("b"), 1));
    assert_eq!(ledger.open_users(&numbered(1)), []);
}
