//! What a tool that knows nothing of Keyferry concludes from an object: the published rules of kstatus, as `kubectl wait`, Flux and
//! others apply them to any custom resource.

use super::cluster::Served;

/// The verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    InProgress,
    Failed,
    Current,
    Terminating,
}

/// The rules for a resource of unknown kind, in their order.
pub fn verdict<K: Served>(object: &K) -> Verdict {
    if object.meta().deletion_timestamp.is_some() {
        return Verdict::Terminating;
    }
    let Some(status) = object.status() else {
        // Nothing to go by counts as current: that is why the schema's default says -1.
        return Verdict::Current;
    };
    if status.observed_generation.is_some_and(|observed| Some(observed) != object.meta().generation) {
        return Verdict::InProgress;
    }
    let is = |kind: &str, value: &str| status.conditions.iter().any(|condition| condition.type_ == kind && condition.status == value);
    if is("Reconciling", "True") {
        return Verdict::InProgress;
    }
    if is("Stalled", "True") {
        return Verdict::Failed;
    }
    if is("Ready", "False") || is("Ready", "Unknown") {
        return Verdict::InProgress;
    }
    Verdict::Current
}
