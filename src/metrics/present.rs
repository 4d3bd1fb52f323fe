//! What is counted only when somebody looks at the page: how the objects stand, and how far the poller is. At rest it costs nothing, and
//! what is gone is gone from the page.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, OnceLock, atomic::AtomicU64},
};

use jiff::Timestamp;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet},
    metrics::{family::Family, gauge::Gauge},
    registry::{Metric, Unit},
};

use crate::{fault::Reason, name::ObjectKind};

/// An object before its first report.
const PENDING: &str = "Pending";
/// A word in a status that is none of ours: others may write it too.
const UNKNOWN: &str = "Unknown";

/// How things stand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Present {
    objects: BTreeMap<ObjectLabels, i64>,
    stale: BTreeMap<ObjectLabels, i64>,
    caught_up: Timestamp,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, PartialOrd, Ord, EncodeLabelSet)]
struct ObjectLabels {
    kind: &'static str,
    reason: &'static str,
}

impl Present {
    /// Everything due before `caught_up` was looked at and delivered.
    #[must_use]
    pub fn new(caught_up: Timestamp) -> Self {
        Self { caught_up, ..Self::default() }
    }

    /// An object, the reason of its Ready if it has one, and that of its Fresh if that is False.
    pub fn count(&mut self, kind: ObjectKind, ready: Option<&str>, not_fresh: Option<&str>) {
        let of = |reason| ObjectLabels { kind: kind.as_str(), reason };
        *self.objects.entry(of(ready.map_or(PENDING, word))).or_default() += 1;
        if let Some(reason) = not_fresh {
            *self.stale.entry(of(word(reason))).or_default() += 1;
        }
    }
}

fn word(reason: &str) -> &'static str {
    Reason::parse(reason).map_or(UNKNOWN, Reason::as_str)
}

/// Who knows it.
type Source = Box<dyn Fn() -> Present + Send + Sync>;

/// Asks for it at each look at the page; there is nothing to tell before the process leads. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Asked(Arc<OnceLock<Source>>);

impl Asked {
    pub(super) fn of(&self, source: Source) {
        // One controller runs in a process.
        let _ = self.0.set(source);
    }
}

impl fmt::Debug for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Asked").field(&self.0.get().is_some()).finish()
    }
}

impl Collector for Asked {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let Some(source) = self.0.get() else { return Ok(()) };
        let present = source();
        let mut tell = |name, help, unit: Option<&Unit>, metric: &dyn Metric| {
            metric.encode(encoder.encode_descriptor(name, help, unit, metric.metric_type())?)
        };
        tell("objects", "Objects by the reason of Ready.", None, &family(&present.objects))?;
        tell("objects_not_fresh", "Objects whose values could not be looked at, by the reason.", None, &family(&present.stale))?;
        let caught_up = Gauge::<f64, AtomicU64>::default();
        caught_up.set(present.caught_up.as_duration().as_secs_f64());
        tell("caught_up_timestamp", "Everything due before it was looked at and delivered.", Some(&Unit::Seconds), &caught_up)
    }
}

fn family(counts: &BTreeMap<ObjectLabels, i64>) -> Family<ObjectLabels, Gauge> {
    let family = Family::<ObjectLabels, Gauge>::default();
    for (labels, count) in counts {
        family.get_or_create(labels).set(*count);
    }
    family
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::Present;
    use crate::{metrics::Metrics, name::ObjectKind};

    #[test]
    fn objects_are_told_by_kind_and_reason_and_words_of_strangers_are_not() {
        let metrics = Metrics::new();
        assert!(!metrics.render().contains("keyferry_objects"), "a replica that stands by has nothing to tell");
        metrics.tell_present(|| {
            let mut present = Present::new(Timestamp::from_millisecond(1_500).unwrap());
            present.count(ObjectKind::ExternalSecret, Some("Synced"), None);
            present.count(ObjectKind::ExternalSecret, Some("Synced"), Some("ProviderUnavailable"));
            present.count(ObjectKind::ExternalSecret, None, None);
            for number in 0..10_000 {
                present.count(ObjectKind::ExternalParameter, Some(&format!("x\"{number}\n")), None);
            }
            present
        });
        let page = metrics.render();
        let mut told: Vec<&str> =
            page.lines().filter(|line| line.starts_with("keyferry_objects") || line.starts_with("keyferry_caught")).collect();
        told.sort_unstable();
        assert_eq!(
            told,
            [
                "keyferry_caught_up_timestamp_seconds 1.5",
                "keyferry_objects_not_fresh{kind=\"ExternalSecret\",reason=\"ProviderUnavailable\"} 1",
                "keyferry_objects{kind=\"ExternalParameter\",reason=\"Unknown\"} 10000",
                "keyferry_objects{kind=\"ExternalSecret\",reason=\"Pending\"} 1",
                "keyferry_objects{kind=\"ExternalSecret\",reason=\"Synced\"} 2",
            ]
        );
    }
}
