//! Stage 6, the decision: status, event and what happens next, from one outcome. Pure; the controller writes them.

pub mod store;

use std::time::Duration;

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::{SignedDuration, Timestamp},
};

use crate::{
    cluster::{
        ClusterError, EventText,
        target::{TargetFacts, TargetName, annotation},
    },
    crd::{
        condition::{self, FRESH, READY, RECONCILING, STALLED},
        v1alpha1::{CreationPolicy, DeletionPolicy, EntryState, EntryStatus, RefreshPolicy, SyncStatus, TargetStatus},
    },
    digest::sha256_hex,
    engine::{
        apply::Done,
        plan::{DeleteCause, Plan, WriteKind},
        resolve::{Judged, Request},
    },
    fault::{Class, Fault, Reason},
    schedule::Timings,
};

/// What became of a reconcile that has something to say.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// The target is as the values say.
    Synced { entries: Vec<EntryStatus>, done: Done },
    /// It is not, and this is why. What was written or deleted on the way stands in `done`.
    Faulty { entries: Vec<EntryStatus>, fault: Fault, done: Done },
    /// `suspend: true`.
    Suspended,
    /// `CreatedOnce`, created.
    Kept,
}

/// What apply made of the plan: the plan's judgement, unless a write failed.
///
/// # Errors
/// The failure of the API server that says nothing about the object: retry by the object's backoff, or judge again.
pub fn outcome(request: &Request, plan: Plan, done: Done) -> Result<Outcome, ClusterError> {
    let target = &request.target;
    let fault = match (&done.failure, plan.judgement) {
        (None, Ok(())) => return Ok(Outcome::Synced { entries: plan.entries, done }),
        (None, Err(fault)) => fault,
        (Some(ClusterError::Held { fields, managers }), _) => held(target, fields, managers),
        (Some(ClusterError::Immutable), _) => Fault::new(
            Class::Conflict,
            Reason::ImmutableTarget,
            format!("{target} is immutable: delete it, and it is created anew, or choose another target.name"),
        ),
        (Some(ClusterError::TooLarge), _) => {
            Fault::new(Class::Conflict, Reason::TooLarge, format!("{target} would be larger than the API server takes: select less"))
        }
        (Some(ClusterError::Forbidden(_) | ClusterError::Invalid(_)), _) => Fault::new(
            Class::Cluster,
            Reason::NotAllowed,
            format!("the API server refuses to write {target}: check quotas, admission policies and the operator's rights"),
        ),
        (Some(failure), _) => return Err(failure.clone()),
    };
    Ok(Outcome::Faulty { entries: plan.entries, fault, done })
}

fn held(target: &TargetName, fields: &[String], managers: &[String]) -> Fault {
    let keys: Vec<_> = fields
        .iter()
        .map(|field| field.strip_prefix(".data.").or_else(|| field.strip_prefix(".binaryData.")).unwrap_or(field))
        .take(8)
        .collect();
    let mut managers: Vec<_> = managers.iter().map(String::as_str).collect();
    managers.sort_unstable();
    managers.dedup();
    Fault::conflict(
        Reason::Conflict,
        format!(
            "{} of {target} held by {}: remove the key there or here, or choose another target.name",
            keys.join(", "),
            if managers.is_empty() { "another manager".to_owned() } else { managers.join(", ") }
        ),
    )
}

/// How the object shows a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Show {
    /// Ready stays True until the staleness limit, Fresh is False.
    Grace,
    /// Ready is False at once, and the operator goes on trying.
    Trying,
    /// Ready is False at once, until somebody changes something.
    Stalled,
}

fn show(fault: &Fault) -> Show {
    match (fault.class, fault.reason) {
        (Class::Denied, Reason::NotAllowed)
        | (Class::Conflict | Class::Bug, _)
        | (Class::Invalid, Reason::InvalidSpec | Reason::KeyCollision | Reason::TooLarge) => Show::Stalled,
        (Class::Invalid | Class::Absent, _) | (Class::Cluster, Reason::NotAllowed) => Show::Trying,
        (Class::Denied | Class::Throttled { .. } | Class::Unavailable | Class::Cluster, _) => Show::Grace,
    }
}

/// How long Ready outlives Fresh; `None` for ever, where no periodic look was promised.
#[must_use]
pub fn staleness(request: &Request, timings: &Timings) -> Option<Duration> {
    let interval = request.interval.filter(|_| request.policy == RefreshPolicy::Periodic)?;
    Some(interval.saturating_mul(3).clamp(timings.staleness, timings.staleness_max))
}

/// When Ready turns False if nothing gets better; `None` when it need not be watched.
#[must_use]
pub fn expiry(request: &Request, status: &SyncStatus, timings: &Timings) -> Option<Timestamp> {
    let fresh = condition::find(&status.conditions, FRESH).filter(|fresh| fresh.status == "False")?;
    condition::find(&status.conditions, READY).filter(|ready| ready.status == "True")?;
    let limit = SignedDuration::try_from(staleness(request, timings)?).ok()?;
    fresh.last_transition_time.0.checked_add(limit).ok()
}

/// The status that an outcome gives, computed from the earlier one. Equal means: write nothing.
#[must_use]
pub fn status(judged: &Judged, outcome: &Outcome, timings: &Timings) -> SyncStatus {
    let request = &judged.request;
    let mut status = request.status.clone();
    status.observed_generation = Some(request.generation);
    match outcome {
        Outcome::Suspended => {
            status.conditions = suspended(request);
            return status;
        }
        Outcome::Kept => {
            status.conditions = synced(request, &format!("the {} was created once and is kept as it is", request.target.kind));
        }
        Outcome::Synced { entries, done } => {
            status.conditions = synced(request, &synced_text(request));
            status.entries.clone_from(entries);
            note_target(&mut status, request, done);
            note_converged(&mut status, judged, done);
        }
        Outcome::Faulty { entries, fault, done } => {
            status.conditions = faulty(request, fault, timings);
            status.entries.clone_from(entries);
            note_target(&mut status, request, done);
            // Deleted for its absence by a leader that died before it could say so.
            let is_gone = request.facts.is_none() && done.target.is_none() && request.deletion == DeletionPolicy::Delete;
            if let (true, Class::Absent, Some(target)) = (is_gone, fault.class, &mut status.target) {
                target.uid = None;
            }
        }
    }
    status.inputs = Some(seal(judged, left_behind(request, outcome), status.last_change_time.as_ref()));
    status.handled_refresh.clone_from(&request.token);
    status
}

/// The target's metadata as the outcome leaves it.
fn left_behind<'a>(request: &'a Request, outcome: &'a Outcome) -> Option<&'a TargetFacts> {
    match outcome {
        Outcome::Synced { done, .. } | Outcome::Faulty { done, .. } if done.deleted == Some(DeleteCause::Absent) => None,
        Outcome::Synced { done, .. } | Outcome::Faulty { done, .. } => done.target.as_ref().or(request.facts.as_deref()),
        Outcome::Suspended | Outcome::Kept => request.facts.as_deref(),
    }
}

/// The `inputs` of a status: what the target was computed from, and which write of the target the status tells of. A status that was
/// lost after its write does not fit the target, so that the next leader tells it again. Of the values only keyed MACs go into it,
/// and with a time: nobody learns from it whether values are equal.
#[must_use]
pub fn seal(judged: &Judged, target: Option<&TargetFacts>, changed: Option<&Time>) -> String {
    let record = target.and_then(|facts| facts.record(&annotation(&judged.request.key)));
    let changed = changed.map(|time| time.0.as_second());
    sha256_hex(&format!("{} {changed:?} {record:?}", judged.inputs))[..32].to_owned()
}

fn synced_text(request: &Request) -> String {
    let kind = request.target.kind;
    match request.creation {
        CreationPolicy::None => format!("every value was read; creationPolicy None writes no {kind}"),
        _ => format!("the {kind} holds the values of the store"),
    }
}

fn note_target(status: &mut SyncStatus, request: &Request, done: &Done) {
    let name = || request.target.name.clone();
    if done.deleted == Some(DeleteCause::Absent) {
        status.target = Some(TargetStatus { name: name(), uid: None });
        status.last_change_time = Some(Time(request.now));
        return;
    }
    if let Some(written) = &done.target {
        status.target = Some(TargetStatus { name: name(), uid: Some(written.uid.clone()) });
    }
    if matches!(done.wrote, Some(WriteKind::Create | WriteKind::Recreate | WriteKind::Update | WriteKind::Repair)) {
        status.last_change_time = Some(Time(request.now));
    }
}

/// Synced without a write: the target that is there is the one. A status that was lost after its write, or tells of an earlier one, gets
/// the time of that write from the target.
fn note_converged(status: &mut SyncStatus, judged: &Judged, done: &Done) {
    let request = &judged.request;
    let (None, CreationPolicy::Owner | CreationPolicy::Orphan, Some(facts)) = (&done.target, request.creation, &request.facts) else {
        return;
    };
    let is_told = request.status.target.as_ref().is_some_and(|target| target.uid.as_deref() == Some(facts.uid.as_str()));
    let is_lost = request.status.observed_generation == Some(request.generation)
        && request.status.inputs.as_deref() != Some(&seal(judged, Some(facts), request.status.last_change_time.as_ref()));
    if let (true, Some(applied)) = (!is_told || is_lost, facts.applied_at()) {
        let known = status.last_change_time.take().map(|time| time.0);
        status.last_change_time = Some(Time(known.map_or(applied, |known| known.max(applied))));
    }
    status.target = Some(TargetStatus { name: request.target.name.clone(), uid: Some(facts.uid.clone()) });
}

fn make(request: &Request, kind: &str, is_true: bool, reason: Reason, message: &str) -> Condition {
    let earlier = &request.status.conditions;
    condition::transition(earlier, kind, is_true, reason.as_str(), message, Some(request.generation), request.now)
}

fn synced(request: &Request, message: &str) -> Vec<Condition> {
    vec![
        make(request, READY, true, Reason::Synced, message),
        make(request, FRESH, true, Reason::Synced, "the last look that was due found every value"),
    ]
}

/// Ready keeps what it said; kstatus sees a rest, not a failure.
fn suspended(request: &Request) -> Vec<Condition> {
    let was_ready = condition::is_true(&request.status.conditions, READY);
    let ready = make(
        request,
        READY,
        was_ready,
        Reason::Suspended,
        "suspended: nothing is read and nothing is written; set suspend to false to go on",
    );
    let fresh = condition::find(&request.status.conditions, FRESH).cloned();
    std::iter::once(ready).chain(fresh).collect()
}

fn faulty(request: &Request, fault: &Fault, timings: &Timings) -> Vec<Condition> {
    let how = show(fault);
    let is_unread = how == Show::Grace;
    let fresh = if is_unread {
        Some(make(request, FRESH, false, fault.reason, &fault.detail))
    } else {
        condition::find(&request.status.conditions, FRESH).cloned()
    };
    let ready = condition::find(&request.status.conditions, READY);
    if let (Show::Grace, Some(ready), Some(fresh)) = (how, ready, &fresh)
        && request.was_ready()
        && !is_expired(request, fresh, timings)
    {
        return vec![ready.clone(), fresh.clone()];
    }
    let ready = make(request, READY, false, fault.reason, &fault.detail);
    let why = match how {
        Show::Stalled => make(request, STALLED, true, fault.reason, &fault.detail),
        Show::Grace | Show::Trying => make(request, RECONCILING, true, fault.reason, &fault.detail),
    };
    std::iter::once(ready).chain(fresh).chain([why]).collect()
}

fn is_expired(request: &Request, fresh: &Condition, timings: &Timings) -> bool {
    let Some(limit) = staleness(request, timings).and_then(|limit| SignedDuration::try_from(limit).ok()) else { return false };
    fresh.last_transition_time.0.checked_add(limit).is_ok_and(|end| end <= request.now)
}

/// The events of an outcome: one per change of reason, never per repetition; none for a first success.
#[must_use]
pub fn events(request: &Request, outcome: &Outcome, next: &SyncStatus) -> Vec<EventText> {
    let (mut events, kind) = (Vec::new(), request.target.kind);
    let event = |reason: &'static str, action, note: &str, is_warning| EventText {
        reason,
        action,
        note: note.to_owned(),
        is_warning,
        time: request.now,
    };
    match outcome {
        Outcome::Synced { done, .. } => match done.wrote {
            Some(WriteKind::Recreate) => {
                events.push(event("Recreated", "Create", &format!("the {kind} was deleted by somebody and is back"), false));
            }
            Some(WriteKind::Repair) if !done.restored.is_empty() => {
                events.push(event("Repaired", "Update", &format!("restored {} of the {kind}", done.restored.join(", ")), false));
            }
            _ => {}
        },
        Outcome::Faulty { fault, done, .. } => {
            if done.deleted == Some(DeleteCause::Absent) {
                events.push(event(
                    fault.reason.as_str(),
                    "Delete",
                    &format!("every value is absent: the {kind} was deleted, as deletionPolicy says"),
                    true,
                ));
            } else if told(&request.status) != told(next) {
                events.push(event(fault.reason.as_str(), "Read", &fault.detail, true));
            }
        }
        Outcome::Suspended | Outcome::Kept => {}
    }
    events
}

/// What a status says is wrong, by reason.
fn told(status: &SyncStatus) -> Option<&str> {
    let false_reason = |kind| condition::find(&status.conditions, kind).filter(|c| c.status == "False").map(|c| c.reason.as_str());
    false_reason(READY).or_else(|| false_reason(FRESH))
}

/// Whether a status, found after a restart, shows something that stands by itself: Ready, or failing in a way that the poller
/// retries.
#[must_use]
pub fn stands(status: &SyncStatus) -> bool {
    let is_stalled = condition::is_true(&status.conditions, STALLED);
    let is_ready = condition::is_true(&status.conditions, READY);
    let is_failing = status.entries.iter().any(|entry| entry.state != EntryState::Current);
    is_ready || (!is_stalled && is_failing)
}

#[cfg(test)]
mod tests;
