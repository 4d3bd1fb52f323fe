//! Order, sharing and faults of calls, with a scripted double of the backend *trait*: no real server can be made to count, hang and
//! panic at will. Time is paused and moved on by the runtime, so nothing here waits.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use jiff::Timestamp;
use serde_json::json;
use tokio::{sync::Semaphore, time::Instant};

use super::{Governor, Limits, Own, Priority, Session, SessionId};
use crate::{
    access::{Asker, Granted, SeenStore, StoreSpec, judge},
    backend::{Backend, List},
    crd::v1alpha1::{Reference, SecretStoreSpec, StoreLimits},
    fault::{Class, Fault, Reason},
    item::{Fetched, Form, Hint, Item, Reading, Sighting},
    metrics::Metrics,
    name::{ProviderKind, RemoteKey, RemoteRef, StoreName},
    schedule::Timings,
    secret::SecretValue,
};

#[derive(Clone, Copy)]
enum Act {
    Answer,
    Hang,
    Panic,
    Short,
}

struct Scripted {
    batch: usize,
    acts: Mutex<VecDeque<Act>>,
    calls: Mutex<Vec<Vec<String>>>,
    /// A call answers when it gets a permit.
    gate: Semaphore,
    names: Mutex<Vec<&'static str>>,
    /// What a list of values gives: nothing, or only the word that it has to be listed and read after all.
    values: Mutex<Option<bool>>,
    /// How every key fails, if it does.
    trouble: Mutex<Option<Fault>>,
    /// A call that asks for one of these is refused as a whole.
    guilty: Mutex<Vec<&'static str>>,
    /// A call for several that asks for this one is refused as a whole.
    spoiling: Mutex<Option<&'static str>>,
}

impl Scripted {
    fn new(batch: usize, acts: &[Act]) -> Arc<Self> {
        Arc::new(Self {
            batch,
            acts: Mutex::new(acts.iter().copied().collect()),
            calls: Mutex::default(),
            gate: Semaphore::new(1000),
            names: Mutex::new(vec![]),
            values: Mutex::default(),
            trouble: Mutex::default(),
            guilty: Mutex::default(),
            spoiling: Mutex::default(),
        })
    }

    fn fails(&self, trouble: Option<Fault>) {
        *self.trouble.lock().unwrap() = trouble;
    }

    fn calls(&self) -> Vec<Vec<String>> {
        self.calls.lock().unwrap().clone()
    }
}

#[async_trait]
impl Backend for Scripted {
    fn batch_size(&self) -> usize {
        self.batch
    }

    async fn fetch(&self, refs: &[RemoteRef]) -> Vec<Reading> {
        self.calls.lock().unwrap().push(refs.iter().map(|one| one.key.to_string()).collect());
        let act = self.acts.lock().unwrap().pop_front().unwrap_or(Act::Answer);
        self.gate.acquire().await.unwrap().forget();
        let is_spoilt = |one: &RemoteRef| refs.len() > 1 && self.spoiling.lock().unwrap().is_some_and(|key| key == one.key.as_str());
        if refs.iter().any(is_spoilt) {
            return vec![Reading::Unknown(Fault::invalid(Reason::InvalidSpec, "not all of these can be read")); refs.len()];
        }
        let is_guilty = refs.iter().any(|one| self.guilty.lock().unwrap().contains(&one.key.as_str()));
        if is_guilty {
            return vec![Reading::Unknown(Fault::access_denied("not all of these may be read")); refs.len()];
        }
        if let Some(fault) = self.trouble.lock().unwrap().clone() {
            let told = |one: &RemoteRef| Fault { detail: format!("remote key {:?}: {}", one.key.as_str(), fault.detail), ..fault.clone() };
            return refs.iter().map(|one| Reading::Unknown(told(one))).collect();
        }
        let read = |one: &RemoteRef| match one.key.as_str() {
            "k-gone" => Reading::Absent(Fault::absent(Reason::NotFound, "vanished")),
            "k-deleted" => Reading::Absent(Fault::absent(Reason::Deleted, "can be had back")),
            name => {
                Reading::Found(Fetched { value: SecretValue::from(name.to_owned()), form: Form::Whole, version: None, is_secret: false })
            }
        };
        match act {
            Act::Answer => refs.iter().map(read).collect(),
            Act::Hang => std::future::pending().await,
            Act::Panic => panic!("a provider's bug"),
            Act::Short => Vec::new(),
        }
    }

    fn lister(&self) -> Option<&dyn List> {
        Some(self)
    }
}

#[async_trait]
impl List for Scripted {
    async fn list(&self, _path: Option<&str>) -> Result<Vec<RemoteKey>, Fault> {
        self.calls.lock().unwrap().push(vec!["LIST".to_owned()]);
        Ok(self.names.lock().unwrap().iter().map(|name| key(name)).collect())
    }

    fn gives_values(&self, path: Option<&str>) -> bool {
        path.is_some() && self.values.lock().unwrap().is_some()
    }

    async fn list_values(&self, _path: Option<&str>) -> Result<Option<BTreeMap<RemoteKey, Fetched>>, Fault> {
        self.calls.lock().unwrap().push(vec!["ALL".to_owned()]);
        if let Some(fault) = self.trouble.lock().unwrap().clone() {
            return Err(fault);
        }
        let value = |name: &str| Fetched { value: SecretValue::from(name.to_owned()), form: Form::Whole, version: None, is_secret: false };
        let values = self.names.lock().unwrap().iter().map(|name| (key(name), value(name))).collect();
        Ok(self.values.lock().unwrap().is_some_and(|has_values| has_values).then_some(values))
    }
}

fn key(text: &str) -> RemoteKey {
    RemoteKey::parse(ProviderKind::File, text).unwrap()
}

/// The way every grant comes about.
fn granted(reference: Reference<'_>) -> Granted<Item> {
    let (labels, protected) = (BTreeMap::new(), BTreeSet::new());
    let asker = Asker { namespace: "team", labels: &labels, protected: &protected };
    let name = StoreName::Namespaced { namespace: "team".to_owned(), name: "main".to_owned() };
    let spec: SecretStoreSpec = serde_json::from_value(json!({"provider": {"file": {"path": "a"}}})).unwrap();
    let seen = SeenStore { name: &name, uid: "uid", spec: StoreSpec::Namespaced(&spec) };
    judge(&asker, &name, Some(&seen), reference).unwrap()
}

fn item(text: &str) -> Granted<Item> {
    granted(Reference::Value(&serde_json::from_value(json!({"key": text})).unwrap()))
}

fn search() -> Granted<Item> {
    granted(Reference::Find(&serde_json::from_value(json!({"name": {"regexp": "^k"}})).unwrap()))
}

fn limits(concurrency: usize) -> Limits {
    Limits::new(concurrency, Duration::from_secs(5), &Timings::default())
}

fn id() -> SessionId {
    SessionId { store: "uid".to_owned(), generation: 1, credential: String::new() }
}

fn session(backend: &Arc<Scripted>, concurrency: usize) -> Session {
    let backend = backend.clone();
    Governor::new(limits(concurrency), Arc::new(|| Timestamp::UNIX_EPOCH), &Metrics::new())
        .session(id(), Own::default(), || Ok(backend))
        .unwrap()
}

fn class_of(sighting: &Sighting) -> Option<(Class, Reason)> {
    match sighting {
        Sighting::Value(Reading::Unknown(fault)) | Sighting::Found(Err(fault)) => Some((fault.class, fault.reason)),
        _ => None,
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_wanted_at_the_same_time_is_read_once_and_in_batches() {
    let backend = Scripted::new(20, &[]);
    let session = session(&backend, 4);
    let items: Vec<_> = (0..50).map(|n| item(&format!("k{n:02}"))).collect();
    let now = Instant::now();
    let looks = futures::future::join_all((0..10).map(|_| session.look(&items, now, Priority::Fresh))).await;
    assert!(looks.iter().all(|looks| looks.len() == 50));
    let sizes: Vec<usize> = backend.calls().iter().map(Vec::len).collect();
    assert_eq!(sizes, [20, 20, 10], "full batches, however many calls may be in flight");
}

#[tokio::test(start_paused = true)]
async fn a_look_is_shared_while_it_is_held_and_only_with_who_asks_for_no_later_moment() {
    let backend = Scripted::new(1, &[]);
    let session = session(&backend, 4);
    let first = session.look(&[item("k")], Instant::now(), Priority::Periodic).await.remove(0);
    let again = session.look(&[item("k")], first.at, Priority::Changed).await.remove(0);
    assert_eq!((backend.calls().len(), again.at), (1, first.at), "handed over");
    session.look(&[item("k")], first.at + Duration::from_nanos(1), Priority::Changed).await;
    assert_eq!(backend.calls().len(), 2, "an older look never serves who asks later");
    drop((first, again));
    session.look(&[item("k")], Instant::now() - Duration::from_secs(1), Priority::Changed).await;
    assert_eq!(backend.calls().len(), 3, "nobody holds it any more");
}

#[tokio::test(start_paused = true)]
async fn fresh_objects_go_before_changed_ones_before_periodic_looks() {
    let backend = Scripted::new(1, &[]);
    backend.gate.forget_permits(1000);
    let session = session(&backend, 1);
    let now = Instant::now();
    let look = |name: &'static str, priority| {
        let session = session.clone();
        tokio::spawn(async move { session.look(&[item(name)], now, priority).await })
    };
    let mut tasks = vec![look("first", Priority::Periodic)];
    tokio::task::yield_now().await;
    for (name, priority) in [("periodic", Priority::Periodic), ("changed", Priority::Changed), ("fresh", Priority::Fresh)] {
        tasks.push(look(name, priority));
        tokio::task::yield_now().await;
    }
    backend.gate.add_permits(4);
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(backend.calls().concat(), ["first", "fresh", "changed", "periodic"]);
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_hangs_panics_or_miscounts_costs_its_own_call_only() {
    let cases = [(Act::Hang, Class::Unavailable), (Act::Panic, Class::Bug), (Act::Short, Class::Bug)];
    for (act, class) in cases {
        let backend = Scripted::new(1, &[act]);
        let session = session(&backend, 1);
        let look = session.look(&[item("k")], Instant::now(), Priority::Fresh).await.remove(0);
        assert_eq!(class_of(&look.sighting), Some((class, Reason::ProviderUnavailable)));
        tokio::time::advance(Duration::from_millis(1)).await;
        let look = session.look(&[item("k")], Instant::now(), Priority::Fresh).await.remove(0);
        assert_eq!(class_of(&look.sighting), None, "the next call works");
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_does_not_delay_another() {
    let (hung, lively) = (Scripted::new(1, &[Act::Hang]), Scripted::new(1, &[]));
    let (a, b) = (session(&hung, 1), session(&lively, 1));
    let began = Instant::now();
    let waiting = tokio::spawn(async move { a.look(&[item("k")], began, Priority::Fresh).await });
    b.look(&[item("k")], began, Priority::Fresh).await;
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert_eq!(waiting.await.unwrap()[0].at, began);
}

#[tokio::test(start_paused = true)]
async fn what_is_saved_held_and_refused_is_counted() {
    let (backend, metrics) = (Scripted::new(1, &[]), Metrics::new());
    let open = backend.clone();
    let session =
        Governor::new(limits(4), Arc::new(|| Timestamp::UNIX_EPOCH), &metrics).session(id(), Own::default(), || Ok(open)).unwrap();
    let first = session.look(&[item("k1"), item("k1")], Instant::now(), Priority::Fresh).await;
    let again = session.look(&[item("k1")], first[0].at, Priority::Changed).await;
    let page = metrics.render();
    for (how, count) in [("asked", 1), ("joined", 1), ("kept", 1)] {
        let line = format!("keyferry_shared_looks_total{{how=\"{how}\"}} {count}");
        assert!(page.contains(&line), "{line} in {page}");
    }
    assert!(page.contains("keyferry_held_answers 1") && page.contains("keyferry_held_bytes 2"), "{page}");
    drop((first, again));
    assert!(metrics.render().contains("keyferry_held_bytes 0"));
    backend.fails(Some(Fault::unavailable("down")));
    for name in ["k1", "k2", "k3", "k4"] {
        look(&session, name).await;
    }
    let page = metrics.render();
    assert!(
        page.contains("keyferry_stores_down{store=\"(namespaced)\"} 1")
            && page.contains("keyferry_refused_looks_total{reason=\"ProviderUnavailable\"} 1"),
        "{page}"
    );
    drop(session);
}

fn fault_of(look: &super::Look) -> Option<Fault> {
    match &look.sighting {
        Sighting::Value(Reading::Unknown(fault)) | Sighting::Found(Err(fault)) => Some(fault.clone()),
        _ => None,
    }
}

async fn look(session: &Session, name: &str) -> Option<Fault> {
    fault_of(&session.look(&[item(name)], Instant::now(), Priority::Periodic).await[0])
}

#[tokio::test(start_paused = true)]
async fn what_a_store_says_of_its_patience_holds_back_every_call_to_it_and_to_no_other() {
    let (a, b) = (Scripted::new(1, &[]), Scripted::new(1, &[]));
    let (busy, lively) = (session(&a, 4), session(&b, 4));
    a.fails(Some(Fault::throttled(Some(Duration::from_secs(20)), "too many requests")));
    let began = Instant::now();
    assert_eq!(look(&busy, "k1").await.unwrap().reason, Reason::Throttled);
    a.fails(None);
    while began.elapsed() < Duration::from_secs(20) {
        let fault = look(&busy, "k2").await.unwrap();
        let Class::Throttled { after: Some(left) } = fault.class else { unreachable!("{fault:?}") };
        assert!(began.elapsed() + left >= Duration::from_secs(20), "{left:?}");
        assert_eq!(fault.detail, "remote key \"k2\": too many requests", "as the store itself would say it");
        assert_eq!(look(&lively, "k").await, None);
        tokio::time::advance(Duration::from_millis(500)).await;
    }
    assert_eq!((a.calls().len(), b.calls().len()), (1, 40));
    tokio::time::advance(Duration::from_secs(2)).await;
    assert_eq!(look(&busy, "k2").await, None);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_down_is_asked_now_and_then_and_who_waits_is_answered_at_once() {
    let backend = Scripted::new(1, &[]);
    let session = session(&backend, 4);
    backend.fails(Some(Fault::new(Class::Unavailable, Reason::Sealed, "the server is sealed: unseal it")));
    for name in ["k1", "k2", "k3"] {
        assert!(look(&session, name).await.is_some());
    }
    let (began, mut probes) = (Instant::now(), 0);
    while began.elapsed() < Duration::from_secs(30) {
        let (calls, now) = (backend.calls().len(), Instant::now());
        let looks = session.look(&[item("k8"), item("k9")], now, Priority::Fresh).await;
        let told: Vec<Fault> = looks.iter().map(|look| fault_of(look).unwrap()).collect();
        assert_eq!(now.elapsed(), Duration::ZERO, "nobody waits for a store that is down");
        assert!(told.iter().all(|fault| fault.reason == Reason::Sealed));
        assert_eq!(told[1].detail, "remote key \"k9\": the server is sealed: unseal it", "asked or not, the words are the same");
        probes += backend.calls().len() - calls;
        assert!(backend.calls().len() - calls <= 1, "one call finds out");
        tokio::time::advance(Duration::from_millis(100)).await;
    }
    assert!((6..=10).contains(&probes), "{probes} calls in half a minute");
    backend.fails(None);
    assert!(!session.take_recovered());
    tokio::time::advance(Duration::from_secs(5)).await;
    assert_eq!(look(&session, "k1").await, None);
    assert!(session.take_recovered() && session.probe_at().is_none());
    assert_eq!(look(&session, "k2").await, None);
}

#[tokio::test(start_paused = true)]
async fn when_a_store_hangs_those_who_wait_are_told_as_soon_as_it_is_known() {
    let backend = Scripted::new(1, &[Act::Hang; 5]);
    let session = session(&backend, 3);
    let began = Instant::now();
    let items: Vec<_> = (0..1_000).map(|n| item(&format!("k{n}"))).collect();
    let looks = session.look(&items, began, Priority::Fresh).await;
    assert!(looks.iter().all(|look| fault_of(look).is_some_and(|fault| fault.class == Class::Unavailable)));
    // Three hang; two more had begun before the third of them was over.
    assert_eq!((backend.calls().len(), began.elapsed()), (5, Duration::from_secs(12)));
}

fn limited(spec: serde_json::Value) -> StoreLimits {
    serde_json::from_value(spec).unwrap()
}

fn own(limits: &StoreLimits) -> Own<'_> {
    Own { limits: Some(limits), ..Own::default() }
}

#[tokio::test(start_paused = true)]
async fn a_store_may_allow_to_keep_values_for_new_objects_for_a_while_and_no_longer() {
    let (backend, metrics) = (Scripted::new(1, &[]), Metrics::new());
    let cache = serde_json::from_value(json!({"ttl": "30s", "maxEntries": 2})).unwrap();
    let open = backend.clone();
    let own = Own { cache: Some(&cache), ..Own::default() };
    let session = Governor::new(limits(4), Arc::new(|| Timestamp::UNIX_EPOCH), &metrics).session(id(), own, || Ok(open)).unwrap();
    let held = || metrics.render().lines().find_map(|line| line.strip_prefix("keyferry_held_answers ").map(str::to_owned)).unwrap();
    let calls = async |name: &str, priority, interval: Option<u64>| {
        let before = backend.calls().len();
        let not_before = session.oldest(Instant::now(), priority, interval.map(Duration::from_secs));
        session.look(&[item(name)], not_before, priority).await;
        backend.calls().len() - before
    };
    assert_eq!(calls("k1", Priority::Fresh, None).await, 1);
    tokio::time::advance(Duration::from_secs(20)).await;
    assert_eq!(calls("k1", Priority::Fresh, Some(3600)).await, 0, "kept");
    assert_eq!(calls("k1", Priority::Fresh, Some(10)).await, 1, "older than the object's own interval");
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(calls("k1", Priority::Changed, None).await, 1, "a change is never served from what is kept");
    tokio::time::advance(Duration::from_millis(1)).await;
    assert_eq!(calls("k1", Priority::Periodic, None).await, 1);
    assert_eq!((calls("k2", Priority::Fresh, None).await, calls("k3", Priority::Fresh, None).await, held()), (1, 1, "2".to_owned()));
    session.forget(&Hint::Keys([key("k3")].into()));
    assert_eq!((held(), calls("k3", Priority::Fresh, None).await), ("1".to_owned(), 1));
    tokio::time::sleep_until(Instant::now() + Duration::from_secs(31)).await;
    assert_eq!(held(), "0", "nobody asks any more, and it is gone all the same");
    calls("k1", Priority::Fresh, None).await;
    session.forget(&Hint::All);
    assert_eq!(held(), "0");
}

#[test]
fn what_a_store_says_of_itself_goes_before_what_holds_for_all() {
    let manner = limits(16).manner(Own::default());
    assert_eq!((manner.concurrency, manner.call_timeout, manner.rate.is_none()), (16, Duration::from_secs(5), true));
    let said = limited(json!({"requestsPerSecond": 5, "burst": 9, "maxConcurrent": 3, "timeout": "1m30s"}));
    let manner = limits(16).manner(own(&said));
    let rate = manner.rate.unwrap();
    assert_eq!((manner.concurrency, manner.call_timeout), (3, Duration::from_secs(90)));
    assert_eq!((rate.per_second.to_string(), rate.burst.to_string()), ("5".to_owned(), "9".to_owned()));
    let rate = limits(16).manner(own(&limited(json!({"requestsPerSecond": 7})))).rate.unwrap();
    assert_eq!(rate.burst.to_string(), "7", "a second's worth");
}

#[tokio::test(start_paused = true)]
async fn the_rate_of_a_store_holds_and_a_changed_one_applies_to_what_comes() {
    let backend = Scripted::new(1, &[]);
    let governor = Governor::new(limits(16), Arc::new(|| Timestamp::UNIX_EPOCH), &Metrics::new());
    let open = |generation: i64, spec: serde_json::Value| {
        let id = SessionId { generation, ..id() };
        governor.session(id, own(&limited(spec)), || Ok(backend.clone() as Arc<dyn Backend>)).unwrap()
    };
    let items: Vec<_> = (0..100).map(|n| item(&format!("k{n}"))).collect();
    let took = async |session: Session| {
        let began = Instant::now();
        session.look(&items, began, Priority::Periodic).await;
        began.elapsed().as_millis()
    };
    let slow = took(open(1, json!({"requestsPerSecond": 10, "burst": 20}))).await;
    assert!((8_000..=8_010).contains(&slow), "{slow} ms for 80 calls after the burst");
    let fast = took(open(2, json!({"requestsPerSecond": 100, "burst": 1}))).await;
    assert!((990..=1_010).contains(&fast), "{fast} ms");
    assert_eq!(took(open(3, json!({}))).await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_new_object_waits_for_one_turn_behind_ten_thousand_periodic_looks_and_they_go_on() {
    let backend = Scripted::new(1, &[]);
    let governor = Governor::new(limits(16), Arc::new(|| Timestamp::UNIX_EPOCH), &Metrics::new());
    let session = governor.session(id(), own(&limited(json!({"requestsPerSecond": 10, "burst": 1}))), || Ok(backend.clone())).unwrap();
    let items: Vec<_> = (0..10_000).map(|n| item(&format!("k{n}"))).collect();
    let (periodic, began) = (session.clone(), Instant::now());
    let backlog = tokio::spawn(async move { periodic.look(&items, began, Priority::Periodic).await });
    tokio::time::advance(Duration::from_secs(1)).await;
    for n in 0..50 {
        let asked = Instant::now();
        session.look(&[item(&format!("new{n}"))], asked, Priority::Fresh).await;
        assert!(asked.elapsed() <= Duration::from_millis(201), "{:?}", asked.elapsed());
    }
    let calls = backend.calls().concat();
    assert!(calls.iter().filter(|key| key.starts_with('k')).count() > 50 / 8, "{calls:?}");
    backlog.abort();
}

#[tokio::test(start_paused = true)]
async fn a_key_that_fails_alone_stops_nobody() {
    let backend = Scripted::new(1, &[]);
    let session = session(&backend, 4);
    for n in 0..50 {
        backend.fails(Some(Fault::unavailable("broken")));
        assert!(look(&session, "bad").await.is_some());
        assert!(look(&session, "worse").await.is_some());
        backend.fails(None);
        assert_eq!(look(&session, &format!("good{n}")).await, None);
        tokio::time::advance(Duration::from_millis(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn who_starts_together_shares_batches_and_who_starts_alone_does_not_wait_where_there_are_none() {
    for (batch, calls, waits) in [(20, 3, true), (1, 50, false)] {
        let backend = Scripted::new(batch, &[]);
        let session = session(&backend, 4);
        let began = Instant::now();
        let objects = (0..50).map(|n| {
            let session = session.clone();
            tokio::spawn(async move { session.look(&[item(&format!("k{n:02}"))], began, Priority::Fresh).await })
        });
        futures::future::join_all(objects).await;
        assert_eq!((backend.calls().len(), began.elapsed() > Duration::ZERO), (calls, waits), "{batch}");
        assert!(began.elapsed() < Duration::from_millis(5), "{:?}", began.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_is_refused_is_halved_until_the_guilty_keys_are_alone() {
    let backend = Scripted::new(20, &[]);
    let session = session(&backend, 4);
    *backend.guilty.lock().unwrap() = vec!["k03", "k14"];
    let items: Vec<_> = (0..20).map(|n| item(&format!("k{n:02}"))).collect();
    let faulty = async || {
        let looks = session.look(&items, Instant::now(), Priority::Fresh).await;
        let faulty = looks.iter().enumerate().filter(|(_, look)| fault_of(look).is_some()).map(|(n, _)| n);
        faulty.collect::<Vec<_>>()
    };
    assert_eq!(faulty().await, [3, 14]);
    let first = backend.calls().len();
    assert!(first <= 19, "{first} calls");
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(faulty().await, [3, 14]);
    assert_eq!(backend.calls().len() - first, 3, "the guilty ones are asked for alone from now on");
    backend.guilty.lock().unwrap().clear();
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(faulty().await, Vec::<usize>::new());
    tokio::time::advance(Duration::from_secs(1)).await;
    let before = backend.calls().len();
    assert_eq!(faulty().await, Vec::<usize>::new());
    assert_eq!(backend.calls().len() - before, 1, "and with the others when they are guilty no more");
}

#[tokio::test(start_paused = true)]
async fn a_search_that_takes_all_is_read_with_its_names_and_one_that_takes_some_reads_only_those() {
    let backend = Scripted::new(20, &[]);
    let session = session(&backend, 4);
    *backend.names.lock().unwrap() = vec!["app/a", "app/b", "app/c"];
    let all = || granted(Reference::Find(&serde_json::from_value(json!({"path": "app"})).unwrap()));
    let some = granted(Reference::Find(&serde_json::from_value(json!({"path": "app", "name": {"regexp": "a$"}})).unwrap()));
    let beside = granted(Reference::Find(&serde_json::from_value(json!({"path": "app", "metadataPolicy": "Fetch"})).unwrap()));
    let found = async |search: Granted<Item>| {
        tokio::time::advance(Duration::from_secs(1)).await;
        let before = backend.calls().len();
        let look = session.look(&[search], Instant::now(), Priority::Fresh).await.remove(0);
        let names = match look.sighting {
            Sighting::Found(Ok(found)) => found.values.keys().map(ToString::to_string).collect::<Vec<_>>().join(" "),
            other => format!("{:?}", class_of(&other).map(|(_, reason)| reason)),
        };
        (names, backend.calls()[before..].iter().map(|call| call.join(" ")).collect::<Vec<_>>())
    };
    let calls = |calls: &[&str]| calls.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(found(all()).await, ("app/a app/b app/c".to_owned(), calls(&["LIST", "app/a app/b app/c"])));
    *backend.values.lock().unwrap() = Some(true);
    assert_eq!(found(all()).await, ("app/a app/b app/c".to_owned(), calls(&["ALL"])));
    assert_eq!(found(some).await, ("app/a".to_owned(), calls(&["LIST", "app/a"])));
    assert_eq!(found(beside).await, ("app/a app/b app/c".to_owned(), calls(&["LIST", "app/a app/b app/c"])), "no values are wanted");
    *backend.values.lock().unwrap() = Some(false);
    assert_eq!(found(all()).await, ("app/a app/b app/c".to_owned(), calls(&["ALL", "LIST", "app/a app/b app/c"])));
    *backend.values.lock().unwrap() = Some(true);
    *backend.names.lock().unwrap() = vec!["app/a"];
    assert_eq!(found(all()).await, ("Some(ProviderUnavailable)".to_owned(), calls(&["ALL"])), "it shrank too much to be believed");
    backend.fails(Some(Fault::unavailable("broken")));
    assert_eq!(found(all()).await, ("Some(ProviderUnavailable)".to_owned(), calls(&["ALL"])));
}

#[tokio::test(start_paused = true)]
async fn a_withheld_value_that_has_its_batch_refused_is_asked_for_alone_until_it_is_given() {
    let backend = Scripted::new(20, &[]);
    let session = session(&backend, 4);
    *backend.spoiling.lock().unwrap() = Some("k-deleted");
    let items: Vec<_> = ["k1", "k2", "k-deleted", "k3"].map(item).into();
    let count = async || {
        tokio::time::advance(Duration::from_secs(1)).await;
        let before = backend.calls().len();
        let looks = session.look(&items, Instant::now(), Priority::Fresh).await;
        let found = looks.iter().filter(|look| matches!(look.sighting, Sighting::Value(Reading::Found(_)))).count();
        (found, backend.calls().len() - before)
    };
    assert_eq!(count().await, (3, 5));
    assert_eq!(count().await, (3, 2), "it is asked for alone, the others are together");
}

#[tokio::test(start_paused = true)]
async fn a_search_reads_what_it_takes_and_believes_no_sudden_shrinking() {
    let backend = Scripted::new(20, &[]);
    let session = session(&backend, 4);
    let found = async |session: &Session| match session.look(&[search()], Instant::now(), Priority::Fresh).await.remove(0).sighting {
        Sighting::Found(Ok(found)) => Ok(found.values.keys().map(ToString::to_string).collect::<Vec<_>>()),
        other => Err(class_of(&other).map(|(_, reason)| reason)),
    };
    *backend.names.lock().unwrap() = vec!["k1", "k2", "k3", "other"];
    assert_eq!(found(&session).await, Ok(vec!["k1".to_owned(), "k2".to_owned(), "k3".to_owned()]));
    *backend.names.lock().unwrap() = vec!["k1"];
    assert_eq!(found(&session).await, Err(Some(Reason::ProviderUnavailable)));
    tokio::time::advance(Duration::from_secs(9)).await;
    assert_eq!(found(&session).await, Err(Some(Reason::ProviderUnavailable)), "too early to be believed");
    tokio::time::advance(Duration::from_millis(1001)).await;
    assert_eq!(found(&session).await, Ok(vec!["k1".to_owned()]));
}

#[tokio::test(start_paused = true)]
async fn a_sudden_shrinking_is_not_believed_after_a_restart_or_with_a_new_credential_either() {
    let backend = Scripted::new(20, &[]);
    let governor = Governor::new(limits(4), Arc::new(|| Timestamp::UNIX_EPOCH), &Metrics::new());
    let open = |id: SessionId| governor.session(id, Own::default(), || Ok(backend.clone())).unwrap();
    let found = async |session: &Session| match session.look(&[search()], Instant::now(), Priority::Fresh).await.remove(0).sighting {
        Sighting::Found(found) => found.map(|found| found.values.len()).map_err(|fault| fault.reason),
        Sighting::Value(_) => unreachable!("a search was asked"),
    };
    let restarted = open(id());
    restarted.note_names(&search(), 5);
    restarted.note_names(&search(), 3);
    *backend.names.lock().unwrap() = vec!["k1", "k2"];
    assert_eq!(found(&restarted).await, Err(Reason::ProviderUnavailable), "the target had five");
    let rotated = open(SessionId { credential: "2".to_owned(), ..id() });
    tokio::time::advance(Duration::from_secs(9)).await;
    assert_eq!(found(&rotated).await, Err(Reason::ProviderUnavailable), "the doubt outlives the session");
    tokio::time::advance(Duration::from_secs(2)).await;
    assert_eq!(found(&rotated).await, Ok(2));
    rotated.note_names(&search(), 5);
    assert_eq!(found(&rotated).await, Ok(2), "what was seen here is newer than what a target says");
}

#[tokio::test(start_paused = true)]
async fn a_search_tells_what_is_withheld_and_leaves_out_what_vanished() {
    let backend = Scripted::new(20, &[]);
    *backend.names.lock().unwrap() = vec!["k1", "k-gone", "k-deleted"];
    let session = session(&backend, 4);
    let look = session.look(&[search()], Instant::now(), Priority::Fresh).await.remove(0);
    let Sighting::Found(Ok(found)) = look.sighting else { unreachable!("{look:?}") };
    assert_eq!(found.values.keys().map(RemoteKey::as_str).collect::<Vec<_>>(), ["k1"]);
    let withheld: Vec<_> = found.withheld.iter().map(|(name, fault)| (name.as_str(), fault.reason)).collect();
    assert_eq!(withheld, [("k-deleted", Reason::Deleted)]);
}

#[tokio::test(start_paused = true)]
async fn a_search_by_tags_is_another_question_and_refused_by_who_keeps_none() {
    let backend = Scripted::new(20, &[]);
    let session = session(&backend, 4);
    *backend.names.lock().unwrap() = vec!["k1"];
    let tagged = granted(Reference::Find(&serde_json::from_value(json!({"tags": {"team": "shop"}})).unwrap()));
    let looks = session.look(&[search(), tagged], Instant::now(), Priority::Fresh).await;
    let classes: Vec<_> = looks.iter().map(|look| class_of(&look.sighting)).collect();
    assert_eq!(classes, [None, Some((Class::Invalid, Reason::InvalidSpec))], "never all names for those with a tag");
}

#[tokio::test(start_paused = true)]
async fn a_session_lives_until_its_store_or_credential_changes() {
    let governor = Governor::new(limits(1), Arc::new(|| Timestamp::UNIX_EPOCH), &Metrics::new());
    let open = |id: SessionId| {
        let mut opened = false;
        let session = governor.session(id, Own::default(), || {
            opened = true;
            Ok(Scripted::new(1, &[]) as Arc<dyn Backend>)
        });
        (session.unwrap(), opened)
    };
    assert!(open(id()).1);
    assert!(!open(id()).1, "reused");
    let rotated = SessionId { credential: "2".to_owned(), ..id() };
    assert!(open(rotated.clone()).1);
    assert_eq!(open(rotated.clone()).0.id(), &rotated);
    governor.close("uid");
    assert!(open(rotated).1);
    assert!(governor.session(SessionId { store: "x".to_owned(), ..id() }, Own::default(), || Err(Fault::unavailable("no"))).is_err());
}
