//! What the shared fetch saves, holds and refuses, for all stores together.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::{Registry, Unit},
};

use super::ReasonLabel;
use crate::fault::Reason;

/// How a look came to its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// Somebody still held what was just read.
    Kept,
    /// Somebody else had asked the same, and was waiting.
    Joined,
    /// By a call of its own, or a place in one.
    Asked,
}

impl How {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::Joined => "joined",
            Self::Asked => "asked",
        }
    }
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct HowLabel {
    how: &'static str,
}

/// The series. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Sharing {
    answers: Family<HowLabel, Counter>,
    refused: Family<ReasonLabel, Counter>,
    values: Gauge,
    bytes: Gauge,
}

/// Something that is counted as long as it lives.
#[derive(Debug)]
pub struct Tally {
    gauges: Vec<(Gauge, i64)>,
}

impl Tally {
    pub(super) fn of<const N: usize>(gauges: [(&Gauge, i64); N]) -> Self {
        let gauges: Vec<(Gauge, i64)> = gauges.into_iter().map(|(gauge, by)| (gauge.clone(), by)).collect();
        for (gauge, by) in &gauges {
            gauge.inc_by(*by);
        }
        Self { gauges }
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        for (gauge, by) in &self.gauges {
            gauge.dec_by(*by);
        }
    }
}

impl Sharing {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let answers = Family::default();
        registry.register("shared_looks", "Looks by how they came to their answer", answers.clone());
        let refused = Family::default();
        registry.register("refused_looks", "Looks that failed without a call", refused.clone());
        let values = Gauge::default();
        registry.register("held_answers", "Answers of stores that somebody holds", values.clone());
        let bytes = Gauge::default();
        registry.register_with_unit("held", "Size of the values in them", Unit::Bytes, bytes.clone());
        Self { answers, refused, values, bytes }
    }

    /// A look has, or will have, its answer.
    pub fn answered(&self, how: How) {
        self.answers.get_or_create(&HowLabel { how: how.as_str() }).inc();
    }

    /// A look failed without a call.
    pub fn refused(&self, reason: Reason) {
        self.refused.get_or_create(&ReasonLabel { reason: reason.as_str() }).inc();
    }

    /// An answer with so many bytes of values is held.
    #[must_use]
    pub fn hold(&self, bytes: usize) -> Tally {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        Tally::of([(&self.values, 1), (&self.bytes, bytes)])
    }
}

#[cfg(test)]
mod tests {
    use super::How;
    use crate::{fault::Reason, metrics::Metrics};

    #[test]
    fn what_is_shared_held_and_refused_is_counted_as_long_as_it_lasts() {
        let metrics = Metrics::new();
        let sharing = metrics.store(None).sharing;
        sharing.answered(How::Kept);
        sharing.answered(How::Joined);
        sharing.refused(Reason::Throttled);
        let (one, other) = (sharing.hold(10), sharing.hold(5));
        let page = metrics.render();
        for line in [
            "keyferry_shared_looks_total{how=\"kept\"} 1",
            "keyferry_shared_looks_total{how=\"joined\"} 1",
            "keyferry_refused_looks_total{reason=\"Throttled\"} 1",
            "keyferry_held_answers 2",
            "keyferry_held_bytes 15",
        ] {
            assert!(page.contains(line), "{line} in {page}");
        }
        drop(one);
        let page = metrics.render();
        for line in ["keyferry_held_answers 1", "keyferry_held_bytes 5"] {
            assert!(page.contains(line), "{line} in {page}");
        }
        drop(other);
        assert!(metrics.render().contains("keyferry_held_bytes 0"));
    }
}
