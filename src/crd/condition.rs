//! Conditions of a status: building and merging them. Types only; the clock is an argument.

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};

/// `Ready` is always present; kstatus and `kubectl wait` read it.
pub const READY: &str = "Ready";
/// False from the first look that was due and failed.
pub const FRESH: &str = "Fresh";
/// Present only while True: nothing more happens until somebody changes something.
pub const STALLED: &str = "Stalled";
/// Present only while True: the operator is still trying.
pub const RECONCILING: &str = "Reconciling";

/// The condition of that type, if present.
#[must_use]
pub fn find<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == kind)
}

/// Whether the condition is present and True.
#[must_use]
pub fn is_true(conditions: &[Condition], kind: &str) -> bool {
    find(conditions, kind).is_some_and(|condition| condition.status == "True")
}

/// A condition whose transition time is kept from `earlier` unless its status differs.
#[must_use]
pub fn transition(
    earlier: &[Condition],
    kind: &str,
    status: bool,
    reason: &str,
    message: &str,
    generation: Option<i64>,
    now: Timestamp,
) -> Condition {
    let status = if status { "True" } else { "False" };
    let since = find(earlier, kind).filter(|was| was.status == status).map_or(Time(now), |was| was.last_transition_time.clone());
    Condition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        observed_generation: generation,
        last_transition_time: since,
    }
}

/// Longest message, in characters.
const MESSAGE: usize = 512;

/// A text as a message that ends with `more`, cut where it would be too long.
#[must_use]
pub fn message(text: &str, more: &str) -> String {
    let room = MESSAGE - more.chars().count();
    if text.chars().count() <= room {
        return format!("{text}{more}");
    }
    let cut: String = text.chars().take(room - 1).collect();
    format!("{cut}…{more}")
}
