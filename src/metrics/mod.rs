//! What is counted and measured. Labels come from closed sets, and from the bounded set of names that `stores` takes: no names of objects,
//! keys or namespaces. docs/metrics.md lists every series, and a test compares.

mod health;
mod present;
mod serve;
mod sharing;
mod stores;

use std::{
    fmt::Write as _,
    sync::Arc,
    time::{Duration, Instant},
};

use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
        info::Info,
    },
    registry::{Registry, Unit},
};

use crate::{
    fault::{Fault, Reason},
    schedule::Timings,
};

pub use health::{Beat, Gate, Health};
pub use present::Present;
pub use serve::serve;
pub use sharing::{How, Sharing, Tally};
pub use stores::StoreSeries;

/// The stages of a reconcile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Resolve,
    Access,
    Fetch,
    Plan,
    Apply,
    Report,
}

impl Stage {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Resolve => "resolve",
            Self::Access => "access",
            Self::Fetch => "fetch",
            Self::Plan => "plan",
            Self::Apply => "apply",
            Self::Report => "report",
        }
    }
}

/// What a backend was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Read,
    List,
    /// A login check, which reads no value.
    Check,
}

impl Operation {
    const ALL: [Self; 3] = [Self::Read, Self::List, Self::Check];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::List => "list",
            Self::Check => "check",
        }
    }
}

/// A write to the API server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    TargetApply,
    TargetDelete,
    Status,
    StoreStatus,
    Event,
    Lease,
    DigestKey,
}

impl Write {
    const fn as_str(self) -> &'static str {
        match self {
            Self::TargetApply => "target_apply",
            Self::TargetDelete => "target_delete",
            Self::Status => "status",
            Self::StoreStatus => "store_status",
            Self::Event => "event",
            Self::Lease => "lease",
            Self::DigestKey => "digest_key",
        }
    }
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct StageLabel {
    stage: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct WriteLabels {
    write: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct TimingLabel {
    timing: &'static str,
}

/// All series of the process. Cheap to clone; every clone counts into the same series.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Arc<Registry>,
    reconciles: Family<ReasonLabel, Counter>,
    stages: Family<StageLabel, Histogram>,
    looks: Family<ReasonLabel, Counter>,
    writes: Family<WriteLabels, Counter>,
    leader: Gauge,
    timings: Family<TimingLabel, Gauge>,
    panics: Counter,
    sharing: Sharing,
    stores: stores::Stores,
    present: present::Asked,
}

/// Milliseconds to half a minute.
fn latency() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.5, 12))
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    #[must_use]
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("keyferry");
        let build = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The build that runs", build);
        let reconciles = Family::default();
        registry.register("reconciles", "Reconciles by the reason that they ended with", reconciles.clone());
        let stages = Family::new_with_constructor(latency as fn() -> Histogram);
        registry.register_with_unit("stage_duration", "Time that a stage of a reconcile took", Unit::Seconds, stages.clone());
        let looks = Family::default();
        registry.register("looks", "Looks at items by what they gave", looks.clone());
        let writes = Family::default();
        registry.register("api_writes", "Writes to the API server", writes.clone());
        let leader = Gauge::default();
        registry.register("is_leader", "1 while this process holds the Lease", leader.clone());
        let timings = Family::default();
        registry.register("timing_below_default", "1 for each safety time that is shorter than its default", timings.clone());
        let panics = Counter::default();
        registry.register("panics", "Panics that were caught", panics.clone());
        let (sharing, stores) = (Sharing::register(&mut registry), stores::Stores::register(&mut registry));
        let present = present::Asked::default();
        registry.register_collector(Box::new(present.clone()));
        Self { registry: Arc::new(registry), reconciles, stages, looks, writes, leader, timings, panics, sharing, stores, present }
    }

    /// What is counted of a store: of a ClusterSecretStore under its name, of any other without.
    #[must_use]
    pub fn store(&self, name: Option<&str>) -> StoreSeries {
        self.stores.of(name, self.sharing.clone())
    }

    /// From now on the page tells how things stand, as `present` says at each look at it.
    pub fn tell_present(&self, present: impl Fn() -> Present + Send + Sync + 'static) {
        self.present.of(Box::new(present));
    }

    /// A reconcile ended.
    pub fn reconciled(&self, reason: Reason) {
        self.reconciles.get_or_create(&ReasonLabel { reason: reason.as_str() }).inc();
    }

    /// Runs a stage of a reconcile and notes how long it took.
    pub async fn timed<T>(&self, stage: Stage, work: impl Future<Output = T>) -> T {
        let began = Instant::now();
        let outcome = work.await;
        self.stage(stage, began.elapsed());
        outcome
    }

    /// A stage of a reconcile took so long.
    pub fn stage(&self, stage: Stage, took: Duration) {
        self.stages.get_or_create(&StageLabel { stage: stage.as_str() }).observe(took.as_secs_f64());
    }

    /// An item was looked at.
    pub fn looked(&self, fault: Option<&Fault>) {
        self.looks.get_or_create(&ReasonLabel { reason: outcome(fault) }).inc();
    }

    /// A write to the API server was answered, or failed.
    pub fn wrote(&self, write: Write, succeeded: bool) {
        let outcome = if succeeded { "success" } else { "failure" };
        self.writes.get_or_create(&WriteLabels { write: write.as_str(), outcome }).inc();
    }

    /// Whether this process leads.
    pub fn set_leader(&self, leads: bool) {
        self.leader.set(i64::from(leads));
    }

    /// Shows the safety times that are shorter than their defaults.
    pub fn set_timings(&self, timings: &Timings) {
        for timing in timings.weakened() {
            self.timings.get_or_create(&TimingLabel { timing: timing.name }).set(1);
        }
    }

    /// A panic happened.
    pub fn panicked(&self) {
        self.panics.inc();
    }

    /// The OpenMetrics text of all series.
    #[must_use]
    pub fn render(&self) -> String {
        let mut page = String::new();
        if text::encode(&mut page, &self.registry).is_err() {
            page.clear();
            let _ = writeln!(page, "# EOF");
        }
        page
    }
}

fn outcome(fault: Option<&Fault>) -> &'static str {
    fault.map_or(Reason::Synced, |fault| fault.reason).as_str()
}

#[cfg(test)]
mod tests;
