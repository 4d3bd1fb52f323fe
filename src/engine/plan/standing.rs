//! Whose a target is and how it stands against what was applied. Pure.

use crate::{
    cluster::target::{TargetFacts, TargetName},
    crd::v1alpha1::CreationPolicy,
    digest::DigestKey,
    engine::plan::record::{Record, annotation, field_manager, manager_prefix},
    fault::{Fault, Reason},
    name::{ObjectKey, ObjectKind},
    schedule::due::TargetState,
};

/// Whose target it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holding {
    /// Nothing of that name.
    Free,
    /// It is being deleted: wait until it is gone.
    Going,
    /// Ours, by a valid annotation.
    Ours(Record),
    /// Ours by field manager only: the annotation is missing, malformed, or of another MAC key.
    OursUnproven,
    /// Another of our objects holds it, by its name where that can be told.
    Rival(Option<String>),
    /// Anyone else's, by the name of its owner.
    Foreign(String),
}

/// Tells whose a target is.
#[must_use]
pub fn holding(facts: Option<&TargetFacts>, key: &DigestKey, object: &ObjectKey, target: &TargetName) -> Holding {
    let Some(facts) = facts else { return Holding::Free };
    let name = annotation(object);
    let record = facts.record(&name).and_then(Record::parse);
    if let Some(record) = record.filter(|record| record.is_valid(key, object, target)) {
        return if facts.is_deleting { Holding::Going } else { Holding::Ours(record) };
    }
    if facts.is_deleting {
        return Holding::Going;
    }
    if facts.applied_by(&field_manager(object)).is_some() {
        return Holding::OursUnproven;
    }
    if facts.records.iter().any(|(other, _)| *other != name) {
        return Holding::Rival(rival(facts, object.kind));
    }
    Holding::Foreign(owner(facts))
}

/// Whether a target of ours holds that key: by its record, or, where that is lost, by what our field manager applied.
#[must_use]
pub fn holds(holding: &Holding, facts: Option<&TargetFacts>, object: &ObjectKey, key: &str) -> bool {
    match holding {
        Holding::Ours(record) => record.has_key(key),
        Holding::OursUnproven => {
            facts.and_then(|facts| facts.applied_by(&field_manager(object))).is_some_and(|keys| keys.iter().any(|held| held == key))
        }
        Holding::Free | Holding::Going | Holding::Rival(_) | Holding::Foreign(_) => false,
    }
}

/// Whether the document under that file name holds that member: by the record, or, where that is lost, perhaps.
#[must_use]
pub fn holds_member(holding: &Holding, facts: Option<&TargetFacts>, object: &ObjectKey, file: &str, member: &str) -> bool {
    holds(holding, facts, object, file) && !matches!(holding, Holding::Ours(record) if !record.has_member(member))
}

/// The other object by name: the owner of its target, else whose field manager applied it.
fn rival(facts: &TargetFacts, of: ObjectKind) -> Option<String> {
    let owner = facts.owners.iter().find(|(kind, _, _)| kind == of.as_str()).map(|(_, name, _)| name.clone());
    let applied = || facts.holders.iter().find_map(|holder| holder.manager.strip_prefix(manager_prefix(of)).map(str::to_owned));
    owner.or_else(applied)
}

/// Whoever owns a foreign target: its controller or owner, else the field manager that holds its data.
fn owner(facts: &TargetFacts) -> String {
    match (facts.owners.first(), facts.holders.iter().find(|holder| !holder.keys.is_empty()).or(facts.holders.first())) {
        (Some((kind, name, _)), _) => format!("{kind} {name}"),
        (None, Some(holder)) => format!("field manager {}", holder.manager),
        (None, None) => "somebody else".to_owned(),
    }
}

/// Stands for label, annotation and owner reference among the names of what is restored; no key of a target has a space.
const METADATA: &str = "its metadata";

/// What of that which was applied is no longer ours.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Drift {
    /// Applied keys that another manager took or somebody removed.
    pub keys: Vec<String>,
    /// Label, annotation or owner reference are not as applied.
    pub has_metadata: bool,
}

impl Drift {
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.keys.is_empty() && !self.has_metadata
    }

    /// What has to be restored, by name.
    #[must_use]
    pub fn names(self) -> Vec<String> {
        let metadata = self.has_metadata.then(|| METADATA.to_owned());
        self.keys.into_iter().chain(metadata).collect()
    }
}

/// Compares the applied names with what our own *Apply* entry still holds.
#[must_use]
pub fn drift(facts: &TargetFacts, record: &Record, object: &ObjectKey, uid: &str, policy: CreationPolicy) -> Drift {
    let held = facts.applied_by(&field_manager(object)).unwrap_or_default();
    let is_owned = facts.owners.iter().any(|(kind, _, owner)| kind == object.kind.as_str() && owner == uid);
    let has_metadata = !facts.has_label || is_owned != (policy == CreationPolicy::Owner);
    Drift { keys: record.missing_from(held), has_metadata }
}

/// The state that the due decision asks for. `was_written` says whether this object ever wrote this target.
#[must_use]
pub fn state(
    facts: Option<&TargetFacts>,
    key: &DigestKey,
    object: &ObjectKey,
    uid: &str,
    target: &TargetName,
    policy: CreationPolicy,
    was_written: bool,
) -> TargetState {
    if policy == CreationPolicy::None || !was_written {
        return TargetState::Unwritten;
    }
    match (holding(facts, key, object, target), facts) {
        (Holding::Free | Holding::Going, _) | (_, None) => TargetState::Missing,
        (Holding::Ours(record), Some(facts)) if drift(facts, &record, object, uid, policy).is_none() => TargetState::InOrder,
        _ => TargetState::Drifted,
    }
}

/// Why nothing may be written there, if so.
///
/// # Errors
/// `Conflict` or `NotOwned`, naming the holder and the remedy.
pub fn may_write(holding: &Holding, object: ObjectKind, target: &TargetName, rival: Option<&str>) -> Result<(), Fault> {
    match (holding, rival) {
        (Holding::Ours(_) | Holding::OursUnproven, _) | (Holding::Free, None) => Ok(()),
        (Holding::Free, Some(rival)) => Err(Fault::conflict(
            Reason::Conflict,
            format!("{object} {rival} is older and wants {target} too: give one of them another target.name"),
        )),
        (Holding::Rival(holder), _) => {
            let who = holder.as_ref().map_or_else(|| format!("another {object}"), |name| format!("{object} {name}"));
            Err(Fault::conflict(Reason::Conflict, format!("{who} holds {target}: give one of them another target.name")))
        }
        (Holding::Going, _) => Err(Fault::conflict(Reason::Conflict, format!("{target} is being deleted: it is written when it is gone"))),
        (Holding::Foreign(owner), _) => Err(Fault::conflict(
            Reason::NotOwned,
            format!("{target} exists and belongs to {owner}: choose another target.name or delete it"),
        )),
    }
}
