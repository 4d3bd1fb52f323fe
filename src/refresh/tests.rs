//! Order and timing of the poller, with a scripted double of the backend *trait*: no real server hangs, counts and changes on cue.
//! Time is paused and moved on by the runtime, so nothing here waits.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use futures::{StreamExt, stream::BoxStream};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    task::JoinHandle,
    time::{Instant, sleep_until, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::{Absence, Cause, MayLook, PollerEnded, Refresh, RegisteredItem, Registration, Wake, poll::LONGEST_SILENCE};
use crate::{
    access::{Asker, Granted, SeenStore, StoreSpec, judge},
    backend::{Backend, List, Probe, not_found},
    crd::v1alpha1::{Reference, SecretStoreSpec},
    digest::{DigestKey, ShortMac, of_sighting},
    fault::{Fault, Reason},
    governor::{Governor, Limits, Look, Own, Priority, Session, SessionId},
    item::{Fetched, Form, Hint, Item, Listing, Reading, Sighting},
    metrics::{Health, Metrics},
    name::{ObjectKey, ObjectKind, ProviderKind, RemoteKey, RemoteRef, StoreName},
    schedule::{Counts, Timings, WallClock},
    secret::SecretValue,
};

const HOUR: Duration = Duration::from_secs(3600);
const START: i64 = 1_700_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Answer,
    Hang,
    Panic,
    Down,
}

/// A backend whose values the test sets.
struct Scripted {
    batch: usize,
    act: Mutex<Act>,
    values: Mutex<BTreeMap<String, String>>,
    calls: Mutex<Vec<(Instant, Vec<String>)>>,
    delay: Duration,
    hints: Mutex<Vec<UnboundedSender<Hint>>>,
    /// Whether it can tell versions without reading; the value is its own version.
    has_versions: bool,
    /// Whether what it gave to another process may end.
    leases: bool,
}

impl Scripted {
    fn new(batch: usize) -> Arc<Self> {
        Self::slow(batch, Duration::ZERO)
    }

    fn slow(batch: usize, delay: Duration) -> Arc<Self> {
        let (act, values, calls, hints) = (Mutex::new(Act::Answer), Mutex::default(), Mutex::default(), Mutex::default());
        Arc::new(Self { batch, act, values, calls, delay, hints, has_versions: false, leases: false })
    }

    fn leasing() -> Arc<Self> {
        let (act, values, calls, hints) = (Mutex::new(Act::Answer), Mutex::default(), Mutex::default(), Mutex::default());
        Arc::new(Self { batch: 1, act, values, calls, delay: Duration::ZERO, hints, has_versions: false, leases: true })
    }

    fn versioned(batch: usize) -> Arc<Self> {
        let (act, values, calls, hints) = (Mutex::new(Act::Answer), Mutex::default(), Mutex::default(), Mutex::default());
        Arc::new(Self { batch, act, values, calls, delay: Duration::ZERO, hints, has_versions: true, leases: false })
    }

    fn set(&self, key: &str, value: &str) {
        self.values.lock().unwrap().insert(key.to_owned(), value.to_owned());
    }

    fn remove(&self, key: &str) {
        self.values.lock().unwrap().remove(key);
    }

    fn act(&self, act: Act) {
        *self.act.lock().unwrap() = act;
    }

    fn hint(&self) {
        self.hints.lock().unwrap().retain(|hints| hints.send(Hint::All).is_ok());
    }

    fn calls(&self) -> usize {
        self.calls.lock().unwrap().len()
    }

    fn reads_of(&self, key: &str) -> usize {
        self.calls.lock().unwrap().iter().filter(|(_, keys)| keys.iter().any(|read| read == key)).count()
    }
}

#[async_trait]
impl Backend for Scripted {
    fn batch_size(&self) -> usize {
        self.batch
    }

    async fn fetch(&self, refs: &[RemoteRef]) -> Vec<Reading> {
        self.calls.lock().unwrap().push((Instant::now(), refs.iter().map(|one| one.key.to_string()).collect()));
        let act = *self.act.lock().unwrap();
        // What is read is read when the call begins.
        let values = self.values.lock().unwrap().clone();
        sleep_until(Instant::now() + self.delay).await;
        let read = |one: &RemoteRef| match values.get(one.key.as_str()) {
            Some(value) => {
                let version = self.has_versions.then(|| value.clone());
                Reading::Found(Fetched { value: SecretValue::from(value.clone()), form: Form::Whole, version, is_secret: false })
            }
            None => Reading::Absent(not_found(&one.key)),
        };
        match act {
            Act::Answer => refs.iter().map(read).collect(),
            Act::Hang => std::future::pending().await,
            Act::Panic => panic!("a provider's bug"),
            Act::Down => vec![Reading::Unknown(Fault::unavailable("down")); refs.len()],
        }
    }

    fn is_unattended(&self, wanted: &RemoteRef) -> bool {
        self.leases && self.reads_of(wanted.key.as_str()) == 0
    }

    fn lister(&self) -> Option<&dyn List> {
        Some(self)
    }

    fn prober(&self) -> Option<&dyn Probe> {
        self.has_versions.then_some(self)
    }

    fn changes(&self) -> Option<BoxStream<'static, Hint>> {
        let (sender, receiver) = unbounded_channel();
        self.hints.lock().unwrap().push(sender);
        Some(futures::stream::unfold(receiver, |mut receiver| async { receiver.recv().await.map(|hint| (hint, receiver)) }).boxed())
    }
}

#[async_trait]
impl Probe for Scripted {
    async fn version(&self, wanted: &RemoteRef) -> Option<String> {
        self.values.lock().unwrap().get(wanted.key.as_str()).cloned()
    }

    async fn versions(&self, _listing: &Listing) -> Option<BTreeMap<RemoteKey, String>> {
        let values = self.values.lock().unwrap();
        Some(values.iter().map(|(name, value)| (RemoteKey::parse(ProviderKind::File, name).unwrap(), value.clone())).collect())
    }
}

#[async_trait]
impl List for Scripted {
    async fn list(&self, _path: Option<&str>) -> Result<Vec<RemoteKey>, Fault> {
        let values = self.values.lock().unwrap();
        Ok(values.keys().map(|name| RemoteKey::parse(ProviderKind::File, name).unwrap()).collect())
    }
}

/// The way every grant comes about.
fn grant(store: &str, reference: Reference<'_>) -> Granted<Item> {
    let (labels, protected) = (BTreeMap::new(), BTreeSet::new());
    let asker = Asker { namespace: "team", labels: &labels, protected: &protected };
    let name = StoreName::Namespaced { namespace: "team".to_owned(), name: "main".to_owned() };
    let spec: SecretStoreSpec = serde_json::from_value(json!({"provider": {"file": {"path": "a"}}})).unwrap();
    let seen = SeenStore { name: &name, uid: store, spec: StoreSpec::Namespaced(&spec) };
    judge(&asker, &name, Some(&seen), reference).unwrap()
}

fn item(store: &str, key: &str) -> Granted<Item> {
    grant(store, Reference::Value(&serde_json::from_value(json!({"key": key})).unwrap()))
}

fn search(store: &str) -> Granted<Item> {
    grant(store, Reference::Find(&serde_json::from_value(json!({"name": {"regexp": "^app/"}})).unwrap()))
}

fn object(name: &str) -> ObjectKey {
    ObjectKey::new(ObjectKind::ExternalSecret, "team", name)
}

fn digest_key() -> DigestKey {
    DigestKey::new(&[7; 32])
}

fn mac_of(look: &Look) -> Option<ShortMac> {
    of_sighting(&digest_key(), &look.sighting).map(|mac| mac.short())
}

fn fault_of(look: &Look) -> Option<Fault> {
    match &look.sighting {
        Sighting::Value(Reading::Absent(fault) | Reading::Unknown(fault)) | Sighting::Found(Err(fault)) => Some(fault.clone()),
        _ => None,
    }
}

fn text_of(look: &Look) -> String {
    match &look.sighting {
        Sighting::Value(Reading::Found(fetched)) => String::from_utf8(fetched.value.expose().to_vec()).unwrap(),
        other => format!("{other:?}"),
    }
}

fn clock() -> WallClock {
    let zero = Instant::now();
    Arc::new(move || Timestamp::from_second(START).unwrap() + SignedDuration::try_from(zero.elapsed()).unwrap())
}

/// An operator in small: governor, poller, and reconciles that the test makes.
struct Rig {
    health: Health,
    /// The API server does not answer.
    is_silent: Arc<AtomicBool>,
    governor: Governor,
    refresh: Refresh,
    wakes: UnboundedReceiver<Wake>,
    stop: CancellationToken,
    poller: JoinHandle<Result<(), PollerEnded>>,
    clock: WallClock,
}

impl Rig {
    fn new() -> Self {
        Self::since(None)
    }

    fn since(since: Option<Timestamp>) -> Self {
        Self::at(since, clock())
    }

    /// After a restart the wall clock goes on.
    fn at(since: Option<Timestamp>, clock: WallClock) -> Self {
        let limits = Limits::new(4, Duration::from_secs(30), &Timings::default());
        let governor = Governor::new(limits, clock.clone(), &Metrics::new());
        let (refresh, wakes) = Refresh::new(digest_key(), Timings::default(), since, clock.clone());
        let stop = CancellationToken::new();
        let (handle, token, health) = (refresh.clone(), stop.clone(), Health::default());
        let (pulse, is_silent) = (health.clone(), Arc::<AtomicBool>::default());
        let silent = is_silent.clone();
        let may_look: MayLook = Arc::new(move || !silent.load(Ordering::Relaxed));
        let poller = tokio::spawn(async move { handle.run(token, &pulse, may_look).await });
        Self { health, is_silent, governor, refresh, wakes, stop, poller, clock }
    }

    fn session(&self, store: &str, generation: i64, backend: &Arc<Scripted>) -> Session {
        self.session_with(store, generation, "", backend)
    }

    fn session_with(&self, store: &str, generation: i64, credential: &str, backend: &Arc<Scripted>) -> Session {
        let (id, backend) = (SessionId { store: store.to_owned(), generation, credential: credential.to_owned() }, backend.clone());
        self.governor.session(id, Own::default(), || Ok(backend)).unwrap()
    }

    /// A reconcile: looks, observes, registers what it saw, settles.
    async fn reconcile(
        &self,
        name: &str,
        interval: Option<Duration>,
        session: &Session,
        items: &[Granted<Item>],
        not_before: Instant,
    ) -> Vec<Look> {
        let looks = session.look(items, not_before, Priority::Fresh).await;
        self.refresh.observe(&object(name), &looks);
        self.register(name, interval, session, looks.iter().zip(items).map(|(look, item)| (item, mac_of(look), fault_of(look))));
        self.refresh.settled(&object(name), not_before);
        looks
    }

    fn register<'a>(
        &self,
        name: &str,
        interval: Option<Duration>,
        session: &Session,
        items: impl Iterator<Item = (&'a Granted<Item>, Option<ShortMac>, Option<Fault>)>,
    ) {
        let items = items.map(|(item, known, failing)| RegisteredItem { item: item.clone(), session: session.clone(), known, failing });
        self.refresh.register(Registration { object: object(name), interval, items: items.collect() });
    }

    async fn woken(&mut self) -> Wake {
        timeout(2 * HOUR, self.wakes.recv()).await.expect("nobody was woken").unwrap()
    }

    /// Nobody is woken for so long.
    async fn quiet(&mut self, time: Duration) {
        let woken = timeout(time, self.wakes.recv()).await;
        assert!(woken.is_err(), "{woken:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_changed_value_wakes_its_users_within_the_interval_and_an_unchanged_one_nobody() {
    let (mut rig, backend) = (Rig::new(), Scripted::new(1));
    let session = rig.session("store", 1, &backend);
    backend.set("app/a", "1");
    for name in ["x", "y"] {
        rig.reconcile(name, Some(HOUR), &session, &[item("store", "app/a")], Instant::now()).await;
    }
    let before = backend.calls();
    rig.quiet(10 * HOUR).await;
    assert!((11..=12).contains(&(backend.calls() - before)), "{}", backend.calls());
    backend.set("app/a", "2");
    let changed = Instant::now();
    let mut wakes = [rig.woken().await, rig.woken().await];
    wakes.sort_by(|one, other| one.object.cmp(&other.object));
    assert!(changed.elapsed() <= HOUR);
    assert_eq!(wakes.each_ref().map(|wake| (wake.object.name.as_str(), wake.cause)), [("x", Cause::Changed), ("y", Cause::Changed)]);
    rig.quiet(3 * HOUR).await;
}

#[tokio::test(start_paused = true)]
async fn who_is_woken_gets_the_value_that_woke_it_and_reads_the_rest_anew() {
    let (mut rig, backend) = (Rig::new(), Scripted::new(1));
    let session = rig.session("store", 1, &backend);
    let items = [item("store", "app/a"), item("store", "app/b")];
    for key in ["app/a", "app/b"] {
        backend.set(key, "old");
    }
    for name in ["x", "y", "z"] {
        rig.reconcile(name, Some(HOUR), &session, &items, Instant::now()).await;
    }
    for key in ["app/a", "app/b"] {
        backend.set(key, "new");
    }
    let wake = rig.woken().await;
    let others = [rig.woken().await, rig.woken().await];
    assert!(others.iter().all(|other| other.not_before == wake.not_before));
    let (a, b) = (backend.reads_of("app/a"), backend.reads_of("app/b"));
    for name in ["x", "y", "z"] {
        let looks = rig.reconcile(name, Some(HOUR), &session, &items, wake.not_before).await;
        assert_eq!(looks.iter().map(text_of).collect::<Vec<_>>(), ["new", "new"], "{name}: old and new never meet");
    }
    let reads = backend.reads_of("app/a") - a + backend.reads_of("app/b") - b;
    assert_eq!(reads, 1, "the look's own result is handed over, the other item is read once for all");
    rig.quiet(3 * HOUR).await;
    assert_eq!(rig.refresh.held(), 0, "values are gone once everybody has reported");
}

#[tokio::test(start_paused = true)]
async fn a_hint_looks_at_once_and_wakes_only_on_a_difference() {
    let (mut rig, backend) = (Rig::new(), Scripted::new(10));
    let session = rig.session("store", 1, &backend);
    let items: Vec<_> = (0..5).map(|n| item("store", &format!("app/{n}"))).collect();
    (0..5).for_each(|n| backend.set(&format!("app/{n}"), "1"));
    for (n, item) in items.iter().enumerate() {
        rig.reconcile(&n.to_string(), Some(24 * HOUR), &session, std::slice::from_ref(item), Instant::now()).await;
    }
    rig.quiet(Duration::from_secs(1)).await;
    let (calls, changed) = (backend.calls(), Instant::now());
    backend.set("app/3", "2");
    backend.hint();
    let wake = rig.woken().await;
    assert_eq!((wake.object, wake.cause), (object("3"), Cause::Changed));
    assert!(changed.elapsed() < Duration::from_secs(1));
    assert_eq!(backend.calls() - calls, 1, "one batch");
    rig.quiet(Duration::from_secs(60)).await;
}

#[tokio::test(start_paused = true)]
async fn what_provably_did_not_change_is_not_read_again() {
    let (mut rig, backend) = (Rig::new(), Scripted::versioned(1));
    let session = rig.session("store", 1, &backend);
    let items: Vec<_> = (0..5).map(|n| item("store", &format!("app/{n}"))).chain([search("store")]).collect();
    (0..5).for_each(|n| backend.set(&format!("app/{n}"), "1"));
    for (n, item) in items.iter().enumerate() {
        rig.reconcile(&n.to_string(), Some(HOUR), &session, std::slice::from_ref(item), Instant::now()).await;
    }
    let before = backend.calls();
    rig.quiet(24 * HOUR).await;
    backend.hint();
    rig.quiet(HOUR).await;
    assert_eq!(backend.calls(), before, "nothing changed, nothing was read");
    backend.set("app/3", "2");
    backend.hint();
    let mut woken = [rig.woken().await.object.name, rig.woken().await.object.name];
    woken.sort();
    assert_eq!(woken, ["3", "5"], "the value and the search");
    backend.remove("app/4");
    backend.hint();
    assert_eq!(rig.woken().await.cause, Cause::Failing, "what is not there is no version, and is looked at");
}

#[tokio::test(start_paused = true)]
async fn the_first_fetch_of_a_large_object_is_its_last_as_long_as_nothing_changes() {
    let (mut rig, backend) = (Rig::new(), Scripted::versioned(1));
    let session = rig.session("store", 1, &backend);
    let items: Vec<_> = (0..300).map(|n| item("store", &format!("app/{n}"))).collect();
    (0..300).for_each(|n| backend.set(&format!("app/{n}"), "1"));
    rig.reconcile("x", Some(HOUR), &session, &items, Instant::now()).await;
    rig.quiet(24 * HOUR).await;
    assert_eq!(backend.calls(), 300);
    rig.refresh.forget(&object("x"));
    assert_eq!(rig.refresh.state().versions.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_new_credential_reads_once_what_the_former_one_knew() {
    let (mut rig, backend) = (Rig::new(), Scripted::versioned(1));
    let session = rig.session_with("store", 1, "1", &backend);
    backend.set("app/a", "1");
    rig.reconcile("x", Some(HOUR), &session, &[item("store", "app/a")], Instant::now()).await;
    let rotated = rig.session_with("store", 1, "2", &backend);
    rig.register("x", Some(HOUR), &rotated, [(&item("store", "app/a"), None, None)].into_iter());
    let before = backend.calls();
    rig.quiet(Duration::from_secs(60)).await;
    assert_eq!(backend.calls() - before, 1);
    rig.quiet(10 * HOUR).await;
    assert_eq!(backend.calls() - before, 1);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_delays_no_other() {
    let mut rig = Rig::new();
    let (stuck, sound) = (Scripted::new(1), Scripted::new(1));
    let sessions = [rig.session("stuck", 1, &stuck), rig.session("sound", 1, &sound)];
    stuck.act(Act::Hang);
    sound.set("app/a", "1");
    let ten = Some(Duration::from_secs(10));
    let many: Vec<_> = (0..200).map(|n| item("stuck", &format!("app/{n}"))).collect();
    rig.register("x", ten, &sessions[0], many.iter().map(|item| (item, None, None)));
    rig.reconcile("y", ten, &sessions[1], &[item("sound", "app/a")], Instant::now()).await;
    rig.quiet(Duration::from_secs(25)).await;
    let starts: Vec<Instant> = sound.calls.lock().unwrap().iter().map(|(at, _)| *at).collect();
    assert!(starts.windows(2).all(|pair| pair[1] - pair[0] <= Duration::from_secs(10)), "{starts:?}");
    assert!(starts.len() >= 3);
    let wake = rig.woken().await;
    assert_eq!((wake.object, wake.cause), (object("x"), Cause::Failing), "the deadline makes it a failure");
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_a_provider_is_a_fault_and_the_poller_goes_on() {
    let (mut rig, backend) = (Rig::new(), Scripted::new(1));
    let session = rig.session("store", 1, &backend);
    backend.set("app/a", "1");
    rig.reconcile("x", Some(HOUR), &session, &[item("store", "app/a")], Instant::now()).await;
    backend.act(Act::Panic);
    assert_eq!(rig.woken().await.cause, Cause::Failing);
    backend.act(Act::Answer);
    assert_eq!(rig.woken().await.cause, Cause::Recovered);
    assert!(!rig.poller.is_finished());
}

#[tokio::test(start_paused = true)]
async fn failing_wakes_once_and_recovering_wakes_once() {
    let (mut rig, backend) = (Rig::new(), Scripted::new(1));
    let session = rig.session("store", 1, &backend);
    backend.set("app/a", "1");
    rig.reconcile("x", Some(HOUR), &session, &[item("store", "app/a")], Instant::now()).await;
    backend.act(Act::Down);
    let wake = rig.woken().await;
    assert_eq!(wake.cause, Cause::Failing);
    let looks = rig.reconcile("x", Some(HOUR), &session, &[item("store", "app/a")], wake.not_before).await;
    assert_eq!(fault_of(&looks[0]).map(|fault| fault.reason), Some(Reason::ProviderUnavailable));
    rig.quiet(HOUR).await;
    backend.act(Act::Answer);
    assert_eq!(rig.woken().await.cause, Cause::Recovered);
    rig.quiet(HOUR).await;
}

/// Poller, batches, the governor's order and its rate together, over several lives of the operator.
#[tokio::test(start_paused = true)]
async fn a_thousand_items_cost_58_calls_an_interval_and_none_waits_longer_beside_fresh_objects_and_over_restarts_too() {
    let (backend, clock) = (Scripted::new(20), clock());
    let items: Vec<_> = (0..1_000).map(|n| item("store", &format!("app/{n}"))).collect();
    (0..1_000).for_each(|n| backend.set(&format!("app/{n}"), "1"));
    let (mut mark, mut macs, mut restarts) = (None, Vec::new(), Vec::new());
    for life in 0..4_u64 {
        let mut rig = Rig::at(mark, clock.clone());
        let id = SessionId { store: "store".to_owned(), generation: 1, credential: String::new() };
        let limits = serde_json::from_value(json!({"requestsPerSecond": 10, "burst": 10})).unwrap();
        let session = rig.governor.session(id, Own { limits: Some(&limits), ..Own::default() }, || Ok(backend.clone())).unwrap();
        if life == 0 {
            let looks = rig.reconcile("x", Some(HOUR), &session, &items, Instant::now()).await;
            macs = looks.iter().map(mac_of).collect();
        } else {
            rig.register("x", Some(HOUR), &session, items.iter().zip(&macs).map(|(item, mac)| (item, *mac, None)));
        }
        rig.refresh.all_registered();
        restarts.push(Instant::now());
        for fresh in 0..200 + life * 77 {
            rig.quiet(Duration::from_secs(60)).await;
            let asked = Instant::now();
            session.look(&[item("store", &format!("new/{life}/{fresh}"))], asked, Priority::Fresh).await;
            assert!(asked.elapsed() < Duration::from_millis(300), "{:?}", asked.elapsed());
        }
        mark = Some(rig.refresh.caught_up());
        rig.stop.cancel();
        rig.poller.await.unwrap().unwrap();
    }
    let calls = backend.calls.lock().unwrap().clone();
    let periodic: Vec<_> = calls.iter().filter(|(_, keys)| keys.iter().any(|key| key.starts_with("app/"))).collect();
    let mut last = BTreeMap::new();
    for (at, keys) in &periodic {
        for key in keys {
            let gap = last.insert(key.clone(), *at).map_or(Duration::ZERO, |last| *at - last);
            assert!(gap <= HOUR + Duration::from_secs(1), "{key}: {gap:?}");
        }
    }
    assert_eq!(last.keys().filter(|key| key.starts_with("app/")).count(), 1_000);
    let after_start = periodic.iter().filter(|(at, _)| *at > restarts[0]);
    for (n, (from, _)) in after_start.clone().enumerate() {
        let count = after_start.clone().skip(n).take_while(|(at, _)| *at - *from < HOUR).count();
        // Who was looked at early before a restart is looked at again in its slot: a ninth of the items at most.
        let most = if restarts.iter().any(|restart| *restart >= *from && *restart - *from < HOUR) { 58 + 7 } else { 58 };
        assert!(count <= most, "{count} calls in an interval");
    }
}

/// Half a minute of failures, as users see it: a thousand objects, each with its own key and an interval of ten seconds.
#[tokio::test(start_paused = true)]
async fn a_store_that_is_down_costs_few_calls_and_all_objects_are_back_soon_after() {
    let (mut rig, backend) = (Rig::new(), Scripted::new(1));
    let session = rig.session("store", 1, &backend);
    let (names, interval): (Vec<String>, _) = ((0..1_000).map(|n| format!("app/{n}")).collect(), Duration::from_secs(10));
    for name in &names {
        backend.set(name, "1");
        rig.reconcile(name, Some(interval), &session, &[item("store", name)], Instant::now()).await;
    }
    rig.quiet(2 * interval).await;
    backend.act(Act::Down);
    let (began, calls) = (Instant::now(), backend.calls());
    let mut woken = BTreeSet::new();
    while let Ok(wake) = timeout_at(began + Duration::from_secs(30), rig.wakes.recv()).await {
        let wake = wake.unwrap();
        assert_eq!(wake.cause, Cause::Failing);
        assert!(began.elapsed() <= Duration::from_secs(20), "told {:?} after it went down", began.elapsed());
        assert!(woken.insert(wake.object.name.clone()), "told twice");
        let name = &wake.object.name;
        let looks = rig.reconcile(name, Some(interval), &session, &[item("store", name)], wake.not_before).await;
        assert_eq!(fault_of(&looks[0]).unwrap().reason, Reason::ProviderUnavailable);
    }
    let calls = backend.calls() - calls;
    assert_eq!((woken.len(), calls <= 60), (1_000, true), "{calls} calls while it was down");
    backend.act(Act::Answer);
    let end = Instant::now();
    while !woken.is_empty() {
        let wake = rig.woken().await;
        assert_eq!(wake.cause, Cause::Recovered);
        let name = &wake.object.name;
        rig.reconcile(name, Some(interval), &session, &[item("store", name)], wake.not_before).await;
        assert!(woken.remove(name), "told twice");
    }
    assert!(end.elapsed() <= Duration::from_secs(6), "{:?}", end.elapsed());
    rig.quiet(3 * interval).await;
}

#[tokio::test(start_paused = true)]
async fn a_store_with_one_key_and_a_long_interval_is_back_within_seconds_too() {
    let (mut rig, backend) = (Rig::new(), Scripted::new(1));
    let session = rig.session("store", 1, &backend);
    backend.set("app/a", "1");
    rig.reconcile("x", Some(HOUR), &session, &[item("store", "app/a")], Instant::now()).await;
    backend.act(Act::Down);
    assert_eq!(rig.woken().await.cause, Cause::Failing);
    rig.refresh.settled(&object("x"), Instant::now());
    rig.quiet(HOUR / 2).await;
    backend.act(Act::Answer);
    let end = Instant::now();
    assert_eq!(rig.woken().await.cause, Cause::Recovered);
    assert!(end.elapsed() <= Duration::from_secs(5), "{:?}", end.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_first_fetch_that_fails_is_retried_without_an_interval_too() {
    let (mut rig, backend) = (Rig::new(), Scripted::new(1));
    let session = rig.session("store", 1, &backend);
    backend.act(Act::Down);
    rig.reconcile("x", None, &session, &[item("store", "app/a")], Instant::now()).await;
    rig.quiet(Duration::from_secs(100)).await;
    backend.set("app/a", "1");
    backend.act(Act::Answer);
    let wake = rig.woken().await;
    assert_eq!(wake.cause, Cause::Recovered);
    rig.reconcile("x", None, &session, &[item("store", "app/a")], wake.not_before).await;
    let calls = backend.calls();
    rig.quiet(48 * HOUR).await;
    assert_eq!(backend.calls(), calls);
}

#[tokio::test(start_paused = true)]
async fn absence_is_confirmed_after_a_minute_and_wakes() {
    let (mut rig, backend) = (Rig::new(), Scripted::new(1));
    let session = rig.session("store", 1, &backend);
    let wanted = item("store", "app/a");
    backend.set("app/a", "1");
    rig.reconcile("x", Some(HOUR), &session, std::slice::from_ref(&wanted), Instant::now()).await;
    backend.remove("app/a");
    let wake = rig.woken().await;
    assert_eq!((wake.cause, rig.refresh.absence(wanted.get())), (Cause::Failing, Absence::First { since: wake.not_before }));
    rig.refresh.settled(&object("x"), wake.not_before);
    let confirmed = rig.woken().await;
    assert_eq!((confirmed.cause, rig.refresh.absence(wanted.get())), (Cause::AbsenceConfirmed, Absence::Confirmed));
    assert_eq!((confirmed.not_before - wake.not_before).as_secs(), 60);
    assert!(!rig.refresh.is_braked("store"));
}

#[tokio::test(start_paused = true)]
async fn many_absent_items_brake_their_store_until_it_is_confirmed() {
    let (mut rig, backend) = (Rig::new(), Scripted::new(10));
    let session = rig.session("store", 1, &backend);
    let items: Vec<_> = (0..5).map(|n| item("store", &format!("app/{n}"))).collect();
    (0..5).for_each(|n| backend.set(&format!("app/{n}"), "1"));
    rig.reconcile("x", Some(HOUR), &session, &items, Instant::now()).await;
    (0..5).for_each(|n| backend.remove(&format!("app/{n}")));
    backend.hint();
    assert_eq!(rig.woken().await.cause, Cause::Failing);
    assert!(rig.refresh.is_braked("store"));
    loop {
        if rig.woken().await.cause == Cause::AbsenceConfirmed {
            break;
        }
    }
    rig.refresh.confirm_absence("store");
    assert!(!rig.refresh.is_braked("store"));
    assert_eq!(rig.woken().await.cause, Cause::AbsenceConfirmed);
}

#[tokio::test(start_paused = true)]
async fn a_search_wakes_when_a_name_comes_or_goes() {
    let (mut rig, backend) = (Rig::new(), Scripted::new(10));
    let session = rig.session("store", 1, &backend);
    (0..4).for_each(|n| backend.set(&format!("app/{n}"), "1"));
    backend.set("other", "1");
    let wanted = search("store");
    rig.reconcile("x", Some(HOUR), &session, std::slice::from_ref(&wanted), Instant::now()).await;
    rig.quiet(3 * HOUR).await;
    backend.set("other", "2");
    rig.quiet(3 * HOUR).await;
    backend.set("app/4", "1");
    let wake = rig.woken().await;
    assert_eq!(wake.cause, Cause::Changed);
    let looks = rig.reconcile("x", Some(HOUR), &session, &[wanted], wake.not_before).await;
    assert!(matches!(&looks[0].sighting, Sighting::Found(Ok(found)) if found.values.len() == 5));
    backend.remove("app/0");
    assert_eq!(rig.woken().await.cause, Cause::Changed);
}

#[tokio::test(start_paused = true)]
async fn a_new_generation_is_looked_at_soon_and_keeps_what_is_known() {
    let (mut rig, backend) = (Rig::new(), Scripted::new(1));
    backend.set("app/a", "1");
    let wanted = [item("store", "app/a")];
    rig.reconcile("x", Some(HOUR), &rig.session("store", 1, &backend), &wanted, Instant::now()).await;
    let looks = rig.session("store", 1, &backend).look(&wanted, Instant::now(), Priority::Fresh).await;
    let (next, known) = (Scripted::new(1), mac_of(&looks[0]));
    next.set("app/a", "1");
    rig.register("x", Some(HOUR), &rig.session("store", 2, &next), wanted.iter().map(|item| (item, known, None)));
    rig.quiet(Duration::from_secs(2)).await;
    assert_eq!(next.calls(), 1);
    // A straggler with the older generation does not bring it back.
    rig.register("x", Some(HOUR), &rig.session("store", 1, &backend), wanted.iter().map(|item| (item, known, None)));
    let calls = backend.calls();
    rig.quiet(3 * HOUR).await;
    assert_eq!((backend.calls(), next.calls() > 3), (calls, true));
}

#[tokio::test(start_paused = true)]
async fn a_reconcile_that_registers_late_does_not_bring_an_old_credential_back() {
    let mut rig = Rig::new();
    let backends = [Scripted::new(1), Scripted::new(1), Scripted::new(1)];
    let sessions: Vec<_> =
        ["1", "2", "3"].iter().zip(&backends).map(|(name, backend)| rig.session_with("store", 1, name, backend)).collect();
    let wanted = [item("store", "app/a")];
    for backend in &backends {
        backend.set("app/a", "1");
    }
    let known = mac_of(&rig.reconcile("x", Some(HOUR), &sessions[0], &wanted, Instant::now()).await[0]);
    for session in [&sessions[1], &sessions[2], &sessions[0], &sessions[1]] {
        rig.register("x", Some(HOUR), session, wanted.iter().map(|item| (item, known, None)));
    }
    rig.quiet(3 * HOUR).await;
    assert_eq!(backends.each_ref().map(|backend| backend.calls() > 1), [false, false, true]);
}

#[tokio::test(start_paused = true)]
async fn an_asked_look_wakes_who_asked() {
    let (mut rig, backend) = (Rig::new(), Scripted::new(1));
    let session = rig.session("store", 1, &backend);
    backend.set("app/a", "1");
    rig.reconcile("x", None, &session, &[item("store", "app/a")], Instant::now()).await;
    let calls = backend.calls();
    rig.refresh.ask(&object("x"));
    assert_eq!(rig.woken().await.cause, Cause::Asked);
    assert_eq!(backend.calls(), calls + 1);
}

#[tokio::test(start_paused = true)]
async fn the_mark_follows_when_everything_was_looked_at_and_settled() {
    let since = Timestamp::from_second(START - 60).unwrap();
    let (mut rig, backend) = (Rig::since(Some(since)), Scripted::new(1));
    let session = rig.session("store", 1, &backend);
    backend.set("app/a", "1");
    assert_eq!(rig.refresh.caught_up(), since);
    rig.reconcile("x", Some(HOUR), &session, &[item("store", "app/a")], Instant::now()).await;
    assert_eq!(rig.refresh.caught_up(), since, "others may be missing");
    rig.refresh.all_registered();
    assert_eq!(rig.refresh.caught_up(), (rig.clock)());
    backend.set("app/a", "2");
    let wake = rig.woken().await;
    rig.quiet(HOUR).await;
    let lag = (rig.clock)().duration_since(rig.refresh.caught_up());
    assert!(lag >= SignedDuration::from_secs(3600), "{lag}");
    rig.refresh.settled(&object("x"), wake.not_before);
    assert_eq!(rig.refresh.caught_up(), (rig.clock)());
}

#[tokio::test(start_paused = true)]
async fn after_a_restart_only_what_fell_due_is_looked_at_and_nobody_is_woken() {
    let (mut rig, backend) = (Rig::since(Some(Timestamp::from_second(START - 320).unwrap())), Scripted::new(1));
    let session = rig.session("store", 1, &backend);
    let items: Vec<_> = (0..200).map(|n| item("store", &format!("app/{n}"))).collect();
    (0..200).for_each(|n| backend.set(&format!("app/{n}"), "1"));
    let known = Some(digest_key().mac("value", [&b"1"[..]]).short());
    for (n, item) in items.iter().enumerate() {
        rig.register(&n.to_string(), Some(HOUR), &session, [(item, known, None)].into_iter());
    }
    rig.refresh.all_registered();
    rig.quiet(Duration::from_secs(1)).await;
    assert!((8..=35).contains(&backend.calls()), "a tenth of the period: {}", backend.calls());
    rig.quiet(2 * HOUR).await;
}

#[tokio::test(start_paused = true)]
async fn after_a_restart_what_may_end_meanwhile_is_looked_at_once_at_once() {
    let (mut rig, backend) = (Rig::since(Some(Timestamp::from_second(START).unwrap())), Scripted::leasing());
    let session = rig.session("store", 1, &backend);
    let items: Vec<_> = (0..20).map(|n| item("store", &format!("app/{n}"))).collect();
    (0..20).for_each(|n| backend.set(&format!("app/{n}"), "2"));
    let known = Some(digest_key().mac("value", [&b"1"[..]]).short());
    for (n, item) in items.iter().enumerate() {
        for user in ["x", "y"] {
            rig.register(&format!("{user}{n}"), Some(HOUR), &session, [(item, known, None)].into_iter());
        }
    }
    rig.register("once", None, &session, [(&item("store", "app/once"), known, None)].into_iter());
    rig.refresh.all_registered();
    for _ in 0..40 {
        let woken = timeout(Duration::from_secs(5), rig.wakes.recv()).await;
        woken.expect("its users have the value that has ended").unwrap();
    }
    let reads: Vec<usize> = (0..20).map(|n| backend.reads_of(&format!("app/{n}"))).collect();
    assert!(reads.iter().all(|reads| *reads == 1), "{reads:?}");
    assert_eq!(backend.reads_of("app/once"), 0, "nobody looks at it periodically");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_left_of_what_is_forgotten() {
    let (mut rig, backend) = (Rig::new(), Scripted::new(1));
    let session = rig.session("store", 1, &backend);
    backend.set("app/a", "1");
    let wanted = [item("store", "app/a"), search("store")];
    for name in ["x", "y"] {
        rig.reconcile(name, Some(HOUR), &session, &wanted, Instant::now()).await;
    }
    backend.set("app/a", "2");
    rig.woken().await;
    assert!(rig.refresh.held() > 0);
    for name in ["x", "y"] {
        rig.refresh.forget(&object(name));
    }
    assert_eq!(rig.refresh.leftovers(), (Counts::default(), 0, 0, 0));
    let calls = backend.calls();
    while rig.wakes.try_recv().is_ok() {}
    rig.quiet(3 * HOUR).await;
    assert_eq!(backend.calls(), calls);
    assert!(backend.hints.lock().unwrap().iter().all(UnboundedSender::is_closed), "nobody listens any more");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_comes_back_is_polled_again() {
    let (mut rig, backend) = (Rig::new(), Scripted::slow(1, Duration::from_secs(1)));
    let session = rig.session("store", 1, &backend);
    for value in ["1", "2", "3"] {
        backend.set("app/a", value);
        rig.reconcile("x", Some(HOUR), &session, &[item("store", "app/a")], Instant::now()).await;
        backend.set("app/a", "changed");
        assert_eq!(rig.woken().await.cause, Cause::Changed);
        rig.refresh.forget(&object("x"));
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_looked_at_while_nobody_could_be_told_and_what_fell_due_meanwhile_is_made_up_for() {
    let (mut rig, backend) = (Rig::new(), Scripted::new(1));
    let session = rig.session("store", 1, &backend);
    let items: Vec<_> = (0..20).map(|n| item("store", &format!("app/{n}"))).collect();
    (0..20).for_each(|n| backend.set(&format!("app/{n}"), "1"));
    rig.reconcile("x", Some(Duration::from_secs(60)), &session, &items, Instant::now()).await;
    rig.refresh.all_registered();
    rig.quiet(HOUR).await;
    rig.is_silent.store(true, Ordering::Relaxed);
    rig.quiet(Duration::from_secs(1)).await;
    let (calls, mark) = (backend.calls(), rig.refresh.caught_up());
    rig.quiet(HOUR).await;
    assert_eq!(backend.calls(), calls);
    assert!(rig.refresh.caught_up().duration_since(mark) < SignedDuration::from_secs(60), "what is due is not caught up with");
    rig.is_silent.store(false, Ordering::Relaxed);
    rig.quiet(Duration::from_secs(2)).await;
    assert!((20..23).contains(&(backend.calls() - calls)), "each once, and what falls due in these two seconds");
}

#[tokio::test(start_paused = true)]
async fn it_stops_when_it_is_told_to() {
    let (rig, backend) = (Rig::new(), Scripted::new(1));
    backend.act(Act::Hang);
    let session = rig.session("store", 1, &backend);
    rig.register("x", Some(HOUR), &session, [(&item("store", "app/a"), None, None)].into_iter());
    tokio::task::yield_now().await;
    rig.stop.cancel();
    assert_eq!(rig.poller.await.unwrap(), Ok(()));
}

#[tokio::test(start_paused = true)]
async fn a_poller_shows_that_it_lives_until_nobody_uses_its_store() {
    // The pulse is of real time, of which next to none goes by here.
    let (mut rig, backend) = (Rig::new(), Scripted::new(1));
    let session = rig.session("store", 1, &backend);
    backend.set("app/a", "1");
    rig.reconcile("x", None, &session, &[item("store", "app/a")], Instant::now()).await;
    rig.quiet(HOUR).await;
    let before = std::time::Instant::now();
    assert_eq!(rig.health.silent(before + 2 * LONGEST_SILENCE), ["poller"], "it is missed when it falls silent");
    rig.quiet(HOUR).await;
    assert_eq!(rig.health.silent(before + LONGEST_SILENCE), [""; 0], "with nothing to look at it comes around all the same");
    rig.refresh.forget(&object("x"));
    rig.quiet(HOUR).await;
    assert_eq!(rig.health.silent(before + 2 * LONGEST_SILENCE), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn hints_are_asked_for_again_when_their_stream_ends() {
    let (mut rig, backend) = (Rig::new(), Scripted::new(1));
    let session = rig.session("store", 1, &backend);
    backend.set("app/a", "1");
    rig.reconcile("x", Some(24 * HOUR), &session, &[item("store", "app/a")], Instant::now()).await;
    rig.quiet(Duration::from_secs(1)).await;
    backend.hints.lock().unwrap().clear();
    backend.set("app/a", "2");
    let ended = Instant::now();
    let wake = rig.woken().await;
    assert_eq!(wake.cause, Cause::Changed, "what happened meanwhile is looked for");
    rig.refresh.settled(&wake.object, wake.not_before);
    assert!(ended.elapsed() < Duration::from_secs(12));
    backend.set("app/a", "3");
    backend.hint();
    rig.woken().await;
    assert!(ended.elapsed() < Duration::from_secs(14));
}
