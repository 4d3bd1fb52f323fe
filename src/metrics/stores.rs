//! The series of one store, under a label that nobody can make grow without bounds.
//!
//! Only a ClusterSecretStore has a label of its own, because only an admin names one, and only the first [`MOST`] of them; all others
//! share one of two. A label and everything under it goes with the last session of its stores.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError, atomic::AtomicU64},
    time::Duration,
};

use jiff::Timestamp;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};

use super::{Operation, latency, outcome, sharing::Sharing, sharing::Tally};
use crate::{
    fault::{Fault, Reason},
    name::ProviderKind,
};

/// ClusterSecretStores with a label of their own at most.
pub const MOST: usize = 64;
/// The label of all stores that live in namespaces. No object can be called so, nor the next.
pub const NAMESPACED: &str = "(namespaced)";
/// The label of the ClusterSecretStores beyond [`MOST`].
pub const OTHER: &str = "(other)";
/// Longest name that an object can have.
const LONGEST_NAME: usize = 253;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct StoreLabel {
    store: Arc<str>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct CallLabels {
    provider: &'static str,
    store: Arc<str>,
    operation: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct LatencyLabels {
    provider: &'static str,
    store: Arc<str>,
    operation: &'static str,
}

/// The series of all stores. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Stores {
    calls: Family<CallLabels, Counter>,
    call_seconds: Family<LatencyLabels, Histogram>,
    answered: Family<StoreLabel, Gauge<f64, AtomicU64>>,
    down: Family<StoreLabel, Gauge>,
    waiting: Family<StoreLabel, Gauge>,
    flying: Family<StoreLabel, Gauge>,
    waits: Family<StoreLabel, Histogram>,
    most_flying: Family<StoreLabel, Gauge>,
    per_second: Family<StoreLabel, Gauge<f64, AtomicU64>>,
    users: Arc<Mutex<BTreeMap<Arc<str>, Users>>>,
}

/// Who counts under one label.
#[derive(Debug, Default)]
struct Users {
    sessions: usize,
    /// Of these stores something was counted: what has to go with the last session.
    providers: BTreeSet<&'static str>,
}

/// What is counted of one store, and of what all stores share. Cheap to clone.
#[derive(Clone, Debug)]
pub struct StoreSeries {
    pub sharing: Sharing,
    place: Arc<Place>,
}

/// A use of a label.
#[derive(Debug)]
struct Place {
    stores: Stores,
    label: StoreLabel,
}

fn wait() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 4.0, 9))
}

impl Stores {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let stores = Self {
            calls: Family::default(),
            call_seconds: Family::new_with_constructor(latency),
            answered: Family::default(),
            down: Family::default(),
            waiting: Family::default(),
            flying: Family::default(),
            waits: Family::new_with_constructor(wait),
            most_flying: Family::default(),
            per_second: Family::default(),
            users: Arc::default(),
        };
        let seconds = Unit::Seconds;
        registry.register("backend_calls", "Calls to stores", stores.calls.clone());
        registry.register_with_unit("backend_call_duration", "Time that a call to a store took", seconds, stores.call_seconds.clone());
        let help = "When the store last answered a call";
        registry.register_with_unit("store_last_answer_timestamp", help, Unit::Seconds, stores.answered.clone());
        registry.register("stores_down", "Stores that are not asked because they do not answer", stores.down.clone());
        registry.register("store_questions_waiting", "Questions that wait for their call", stores.waiting.clone());
        registry.register("store_calls_in_flight", "Calls under way", stores.flying.clone());
        registry.register_with_unit("turn_wait", "Time from a question to its call", Unit::Seconds, stores.waits.clone());
        registry.register("store_limit_calls_in_flight", "Calls that may be under way", stores.most_flying.clone());
        registry.register("store_limit_calls_per_second", "Calls per second that the store allows", stores.per_second.clone());
        stores
    }

    /// The series of a store: a ClusterSecretStore by its name, any other without.
    pub(super) fn of(&self, name: Option<&str>, sharing: Sharing) -> StoreSeries {
        let mut users = self.users();
        let label = label(name, &users);
        users.entry(Arc::clone(&label)).or_default().sessions += 1;
        let label = StoreLabel { store: label };
        for gauge in [&self.down, &self.waiting, &self.flying] {
            drop(gauge.get_or_create(&label));
        }
        StoreSeries { sharing, place: Arc::new(Place { stores: self.clone(), label }) }
    }

    fn users(&self) -> std::sync::MutexGuard<'_, BTreeMap<Arc<str>, Users>> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn forget(&self, label: &StoreLabel, providers: &BTreeSet<&'static str>) {
        for gauge in [&self.down, &self.waiting, &self.flying, &self.most_flying] {
            gauge.remove(label);
        }
        for gauge in [&self.answered, &self.per_second] {
            gauge.remove(label);
        }
        self.waits.remove(label);
        for (provider, operation) in providers.iter().flat_map(|provider| Operation::ALL.map(|operation| (*provider, operation.as_str()))) {
            let store = || Arc::clone(&label.store);
            self.call_seconds.remove(&LatencyLabels { provider, store: store(), operation });
            for reason in Reason::ALL {
                self.calls.remove(&CallLabels { provider, store: store(), operation, outcome: reason.as_str() });
            }
        }
    }
}

fn label(name: Option<&str>, users: &BTreeMap<Arc<str>, Users>) -> Arc<str> {
    let Some(name) = name else { return NAMESPACED.into() };
    if let Some((label, _)) = users.get_key_value(name) {
        return Arc::clone(label);
    }
    let own = users.keys().filter(|label| is_name(label)).count();
    if own < MOST && is_name(name) { name.into() } else { OTHER.into() }
}

/// What the API server takes for the name of a store: nothing in it needs an escape.
fn is_name(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'.';
    (1..=LONGEST_NAME).contains(&name.len()) && name.bytes().all(is_plain)
}

impl StoreSeries {
    /// A call ended; no fault means that it was answered.
    pub fn called(&self, provider: ProviderKind, operation: Operation, fault: Option<&Fault>, took: Duration) {
        let Place { stores, label } = &*self.place;
        let (provider, operation, store) = (provider.as_str(), operation.as_str(), || Arc::clone(&label.store));
        if let Some(users) = stores.users().get_mut(&label.store) {
            users.providers.insert(provider);
        }
        stores.calls.get_or_create(&CallLabels { provider, store: store(), operation, outcome: outcome(fault) }).inc();
        stores.call_seconds.get_or_create(&LatencyLabels { provider, store: store(), operation }).observe(took.as_secs_f64());
        if fault.is_none() && is_name(&label.store) {
            stores.answered.get_or_create(label).set(Timestamp::now().as_duration().as_secs_f64());
        }
    }

    /// What the store allows: calls under way, and calls per second if it says. Not told where stores share a label.
    pub fn allow(&self, in_flight: usize, per_second: Option<f64>) {
        let Place { stores, label } = &*self.place;
        if !is_name(&label.store) {
            return;
        }
        stores.most_flying.get_or_create(label).set(i64::try_from(in_flight).unwrap_or(i64::MAX));
        if let Some(rate) = per_second {
            stores.per_second.get_or_create(label).set(rate);
        } else {
            stores.per_second.remove(label);
        }
    }

    /// A question got its call after so long.
    pub fn waited(&self, time: Duration) {
        self.place.stores.waits.get_or_create(&self.place.label).observe(time.as_secs_f64());
    }

    /// A question waits for its call.
    #[must_use]
    pub fn waiting(&self) -> Tally {
        self.count(&self.place.stores.waiting)
    }

    /// A call is under way.
    #[must_use]
    pub fn flying(&self) -> Tally {
        self.count(&self.place.stores.flying)
    }

    /// The store is down.
    #[must_use]
    pub fn down(&self) -> Tally {
        self.count(&self.place.stores.down)
    }

    fn count(&self, family: &Family<StoreLabel, Gauge>) -> Tally {
        Tally::of([(&*family.get_or_create(&self.place.label), 1)])
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut users = self.stores.users();
        let Some(left) = users.get_mut(&self.label.store) else { return };
        left.sessions -= 1;
        if left.sessions == 0 {
            let providers = std::mem::take(&mut left.providers);
            users.remove(&self.label.store);
            self.stores.forget(&self.label, &providers);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, time::Duration};

    use super::{MOST, NAMESPACED, OTHER, StoreSeries};
    use crate::{
        fault::Fault,
        metrics::{Metrics, Operation},
        name::ProviderKind,
    };

    fn work(series: &StoreSeries) {
        series.called(ProviderKind::Vault, Operation::Read, None, Duration::from_millis(2));
        series.called(ProviderKind::Vault, Operation::List, Some(&Fault::access_denied("db/\"password\"")), Duration::from_millis(2));
        series.allow(16, Some(5.0));
        series.waited(Duration::from_millis(1));
    }

    /// All that stands between quotes after `store=`.
    fn labels(page: &str) -> BTreeSet<&str> {
        page.lines().filter_map(|line| line.split_once("store=\"")?.1.split_once('"')).map(|(label, _)| label).collect()
    }

    #[test]
    fn ten_thousand_stores_of_hostile_names_share_two_labels_and_an_admins_are_bounded() {
        let metrics = Metrics::new();
        let hostile = ["a\"} 1\nkeyferry_evil 1", "back\\slash", "", "(other)", "Ünder", &"x".repeat(254), "a b", "{store=\"b\"}"];
        let series: Vec<_> = hostile.iter().map(|name| metrics.store(Some(name))).collect();
        series.iter().for_each(work);
        assert_eq!(labels(&metrics.render()), BTreeSet::from([OTHER]));
        let tenants: Vec<_> = (0..10_000).map(|_| metrics.store(None)).collect();
        tenants.iter().for_each(work);
        let lines = metrics.render().lines().count();
        let admins: Vec<_> = (0..10_000).map(|number| metrics.store(Some(&format!("store-{number}")))).collect();
        admins.iter().for_each(work);
        let page = metrics.render();
        assert_eq!(labels(&page).len(), MOST + 2);
        assert!(labels(&page).is_superset(&BTreeSet::from([OTHER, NAMESPACED])));
        assert!(page.lines().count() <= lines + MOST * 60, "{} lines", page.lines().count());
        assert!(!page.contains("evil") && !page.contains("password"), "{page}");
        assert!(page.contains(
            "keyferry_backend_calls_total{provider=\"vault\",store=\"(namespaced)\",operation=\"read\",outcome=\"Synced\"} 10000"
        ));
        drop((series, tenants, admins));
        assert_eq!(labels(&metrics.render()), BTreeSet::new(), "nothing is left of stores that are gone");
    }

    #[test]
    fn a_store_that_goes_takes_its_series_along_and_one_that_stays_keeps_them() {
        let metrics = Metrics::new();
        let (gone, stays, renewed) = (metrics.store(Some("gone")), metrics.store(Some("stays")), metrics.store(Some("stays")));
        for series in [&gone, &stays] {
            work(series);
        }
        // Its block was another one before.
        gone.called(ProviderKind::EnvNested, Operation::Check, None, Duration::ZERO);
        let (down, flying, waiting) = (gone.down(), gone.flying(), stays.waiting());
        let page = metrics.render();
        for line in [
            "keyferry_stores_down{store=\"gone\"} 1",
            "keyferry_stores_down{store=\"stays\"} 0",
            "keyferry_store_calls_in_flight{store=\"gone\"} 1",
            "keyferry_store_questions_waiting{store=\"stays\"} 1",
            "keyferry_store_limit_calls_in_flight{store=\"stays\"} 16",
            "keyferry_store_limit_calls_per_second{store=\"stays\"} 5.0",
            "keyferry_turn_wait_seconds_count{store=\"stays\"} 1",
            "keyferry_backend_call_duration_seconds_count{provider=\"vault\",store=\"gone\",operation=\"list\"} 1",
        ] {
            assert!(page.contains(line), "{line} in {page}");
        }
        drop((gone, stays, down, flying));
        assert_eq!(labels(&metrics.render()), BTreeSet::from(["stays"]), "another session of it is open");
        renewed.allow(4, None);
        let page = metrics.render();
        assert!(!page.contains("calls_per_second{") && page.contains("keyferry_store_limit_calls_in_flight{store=\"stays\"} 4"), "{page}");
        drop((renewed, waiting));
        assert_eq!(labels(&metrics.render()), BTreeSet::new());
    }

    #[test]
    fn when_a_store_answered_is_told_of_stores_with_a_label_of_their_own_and_only_for_answers() {
        let metrics = Metrics::new();
        let fault = Fault::unavailable("x");
        let (named, shared) = (metrics.store(Some("a")), metrics.store(None));
        let answered = || metrics.render().lines().filter(|line| line.starts_with("keyferry_store_last_answer")).count();
        named.called(ProviderKind::Fake, Operation::Read, Some(&fault), Duration::ZERO);
        shared.called(ProviderKind::Fake, Operation::Read, None, Duration::ZERO);
        assert_eq!(answered(), 0);
        named.called(ProviderKind::Fake, Operation::Read, None, Duration::ZERO);
        assert_eq!(answered(), 1);
    }
}
