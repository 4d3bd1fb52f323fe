//! Stage 4. Pure: from what was asked and what was seen to the steps that make it so. A plan made twice changes nothing.

mod layout;
pub mod record;
pub mod standing;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::OwnerReference, jiff::Timestamp};

use crate::{
    cluster::{
        Guard, TargetBody,
        target::{TargetFacts, TargetName},
    },
    crd::{
        condition,
        v1alpha1::{CreationPolicy, DeletionPolicy, Entry, EntryState, EntryStatus, MANAGED_LABEL, Reference},
    },
    digest::{self, DigestKey, ShortMac},
    engine::{
        plan::{
            record::{Content, Record, Worth},
            standing::{Drift, Holding},
        },
        resolve::{Judged, Request},
    },
    fault::{Class, Fault, Reason},
    item::{Item, Reading, Sighting},
    name::{RemoteKey, TargetKind},
    secret::SecretValue,
    select::{self, Assembled},
};

/// What was seen of one entry.
#[derive(Clone, Debug)]
pub struct Seen {
    pub sighting: Sighting,
    /// Two consecutive misses, far enough apart, with nothing found between.
    pub is_absence_confirmed: bool,
    /// Too many items of the store turned absent at once: nothing is deleted until an admin confirms.
    pub is_braked: bool,
}

/// What was seen of all entries: one each, in their order; `None` for those that were not looked at.
pub type Snapshot = Vec<Option<Seen>>;

/// What the plan may remember of earlier reconciles; all of it may be lost.
#[derive(Clone, Debug, Default)]
pub struct Repairs {
    /// When each key was restored.
    pub restored: BTreeMap<String, Vec<Timestamp>>,
    /// Restores of one key within the window that are one too many.
    pub window: std::time::Duration,
}

/// How often a key is restored within the window before its editor wins.
const RESTORES: usize = 3;

impl Repairs {
    fn is_exhausted(&self, key: &str, now: Timestamp) -> bool {
        let recent = |at: &&Timestamp| now.duration_since(**at).unsigned_abs() < self.window;
        self.restored.get(key).is_some_and(|times| times.iter().filter(recent).count() >= RESTORES)
    }
}

/// The steps, and what will be true when they are done.
#[must_use]
#[derive(Clone, Debug)]
pub struct Plan {
    pub steps: Vec<Step>,
    pub entries: Vec<EntryStatus>,
    /// `Err`: the first fault by weight; the steps beside it never write data.
    pub judgement: Result<(), Fault>,
    /// What every item was worth, for the poller.
    pub macs: Vec<(Item, Option<ShortMac>)>,
}

/// One write.
#[derive(Clone, Debug)]
pub enum Step {
    Write(Box<Write>),
    Delete { target: TargetName, facts: Arc<TargetFacts>, cause: DeleteCause },
}

/// One apply of the target.
#[derive(Clone, Debug)]
pub struct Write {
    pub body: TargetBody,
    pub guard: Guard,
    pub manager: String,
    /// Fields that may be taken from another manager, because it is proven that they were ours.
    pub may_force: BTreeSet<String>,
    pub kind: WriteKind,
    /// The keys that are restored.
    pub restored: Vec<String>,
}

/// Why the target is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteKind {
    Create,
    /// It was there and somebody deleted it.
    Recreate,
    Update,
    /// Nothing new: what somebody edited is put back.
    Repair,
    /// Only what the target says about itself changes, no data.
    Annotate,
}

/// Why a target is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeleteCause {
    /// Every value is proven absent and `deletionPolicy` says Delete.
    Absent,
    /// The target has another name now.
    Renamed,
}

/// Makes the plan.
pub fn plan(judged: &Judged, snapshot: &Snapshot, key: &DigestKey, repairs: &Repairs) -> Plan {
    let request = &judged.request;
    let faults = faults(judged, snapshot);
    let macs = macs(judged, snapshot, key);
    if let Some(fault) = &request.fault {
        return Plan { steps: vec![], entries: vec![], judgement: Err(fault.clone()), macs };
    }
    let (mut faults, made) = if faults.iter().all(Option::is_none) { selected(judged, snapshot) } else { (faults, Assembled::default()) };
    let holding = standing::holding(request.facts.as_deref(), key, &request.key, &request.target);
    keep_withheld(&mut faults, &made, request, snapshot, &holding);
    let mut entries = entries(judged, snapshot, &faults);
    if let Some(fault) = primary(request, &faults) {
        return match deletion(judged, snapshot, &holding) {
            Deletion::Due(step) => Plan { steps: vec![step], entries, judgement: Err(fault), macs },
            Deletion::Braked => {
                for entry in &mut entries {
                    Reason::MassAbsence.as_str().clone_into(&mut entry.reason);
                }
                Plan { steps: vec![], entries, judgement: Err(mass_absence(request)), macs }
            }
            Deletion::NotDue => Plan { steps: vec![], entries, judgement: Err(fault), macs },
        };
    }
    let judged_steps =
        if request.creation == CreationPolicy::None { Ok(vec![]) } else { steps(judged, snapshot, &made, &macs, key, repairs) };
    match judged_steps {
        Ok(steps) => Plan { steps, entries, judgement: Ok(()), macs },
        Err(fault) => Plan { steps: vec![], entries, judgement: Err(fault), macs },
    }
}

/// One fault or none per entry: of the verdict, else of the look.
fn faults(judged: &Judged, snapshot: &Snapshot) -> Vec<Option<Fault>> {
    judged
        .verdicts
        .iter()
        .zip(snapshot)
        .map(|(verdict, seen)| match (verdict, seen.as_ref().map(|seen| &seen.sighting)) {
            (Err(fault), _)
            | (Ok(_), Some(Sighting::Value(Reading::Absent(fault) | Reading::Unknown(fault)) | Sighting::Found(Err(fault)))) => {
                Some(fault.clone())
            }
            (Ok(_), _) => None,
        })
        .collect()
}

fn macs(judged: &Judged, snapshot: &Snapshot, key: &DigestKey) -> Vec<(Item, Option<ShortMac>)> {
    let mut macs: BTreeMap<Item, Option<ShortMac>> = BTreeMap::new();
    for (verdict, seen) in judged.verdicts.iter().zip(snapshot) {
        if let (Ok(granted), Some(seen)) = (verdict, seen) {
            macs.insert(granted.get().clone(), digest::of_sighting(key, &seen.sighting).map(|mac| mac.short()));
        }
    }
    macs.into_iter().collect()
}

/// Selects every entry's part; a fault per entry, or all values.
fn selected(judged: &Judged, snapshot: &Snapshot) -> (Vec<Option<Fault>>, Assembled) {
    let entries = judged.request.entries();
    let sources: Vec<_> =
        entries.iter().zip(snapshot).filter_map(|(entry, seen)| seen.as_ref().map(|seen| (*entry, &seen.sighting))).collect();
    let mut faults = vec![None; entries.len()];
    if sources.len() != entries.len() {
        faults.fill(Some(Fault::new(Class::Bug, Reason::ProviderUnavailable, "an entry was not looked at: please report it")));
        return (faults, Assembled::default());
    }
    match select::assemble(&layout::layout(&judged.request), &sources) {
        Ok(made) => (faults, made),
        Err(errors) => {
            for error in errors {
                if let Some(slot) = faults.get_mut(error.entry) {
                    *slot = Some(error.fault);
                }
            }
            (faults, Assembled::default())
        }
    }
}

/// What a search takes and its store withholds is kept like a single value that is deleted softly: while the target holds the key of such
/// a name, and nothing else gives that key, the entry has the fault.
fn keep_withheld(faults: &mut [Option<Fault>], made: &Assembled, request: &Request, snapshot: &Snapshot, holding: &Holding) {
    for (slot, seen) in faults.iter_mut().zip(snapshot) {
        let Some(Sighting::Found(Ok(found))) = seen.as_ref().map(|seen| &seen.sighting) else { continue };
        let layout = layout::layout(request);
        let is_held = |key: &str| match layout.document {
            Some(document) => standing::holds_member(holding, request.facts.as_deref(), &request.key, document.file, key),
            None => standing::holds(holding, request.facts.as_deref(), &request.key, key),
        };
        let is_kept = |name: &&RemoteKey| {
            let key = layout.key_of(name.as_str());
            !made.keys.contains(&key) && is_held(&key)
        };
        let kept = found.withheld.keys().find(is_kept).and_then(|name| found.withheld.get(name));
        if let (Some(fault), true) = (kept, slot.as_ref().is_none_or(|fault| fault.reason == Reason::NoMatch)) {
            *slot = Some(fault.clone());
        }
    }
}

/// The fault that the object shows: what no retry mends weighs most, then what is False at once, then what time may mend.
fn primary(request: &Request, faults: &[Option<Fault>]) -> Option<Fault> {
    let entries = request.entries();
    let failing: Vec<_> = entries.iter().zip(faults).filter_map(|(entry, fault)| fault.as_ref().map(|fault| (entry, fault))).collect();
    let (entry, fault) = failing.iter().min_by_key(|(_, fault)| weight(fault))?;
    let more = match failing.len() {
        1 => String::new(),
        many => format!(" (and {} more entries)", many - 1),
    };
    Some(Fault { detail: condition::message(&format!("{}: {}", entry.place, fault.detail), &more), ..(*fault).clone() })
}

fn weight(fault: &Fault) -> u8 {
    match (fault.class, fault.reason) {
        (Class::Bug, _) => 0,
        (Class::Denied, Reason::NotAllowed) => 1,
        (Class::Invalid | Class::Conflict, _) => 2,
        (Class::Absent, _) => 3,
        (Class::Denied, _) => 4,
        (Class::Unavailable | Class::Cluster, _) => 5,
        (Class::Throttled { .. }, _) => 6,
    }
}

fn entries(judged: &Judged, snapshot: &Snapshot, faults: &[Option<Fault>]) -> Vec<EntryStatus> {
    let request = &judged.request;
    let earlier: BTreeMap<&str, &EntryStatus> = request.status.entries.iter().map(|entry| (entry.name.as_str(), entry)).collect();
    let mut entries: Vec<EntryStatus> = request
        .entries()
        .iter()
        .zip(snapshot)
        .zip(faults)
        .filter_map(|((entry, seen), fault)| match (seen, fault) {
            (_, Some(fault)) => Some(entry_status(request, entry, entry_state(fault), fault.reason, None)),
            (Some(seen), None) => Some(entry_status(request, entry, EntryState::Current, Reason::Synced, version(&seen.sighting))),
            (None, None) => earlier.get(entry.place.to_string().as_str()).map(|known| (*known).clone()),
        })
        .collect();
    entries.sort_by_key(|entry| entry.state == EntryState::Current);
    entries.truncate(64);
    entries
}

fn entry_status(request: &Request, entry: &Entry<'_>, state: EntryState, reason: Reason, version: Option<String>) -> EntryStatus {
    let store = request.store_of(entry);
    EntryStatus {
        name: entry.place.to_string(),
        store: format!("{}/{}", store.kind(), store.name()),
        version,
        state,
        reason: reason.as_str().to_owned(),
    }
}

/// The state that a fault gives an entry.
#[must_use]
pub fn entry_state(fault: &Fault) -> EntryState {
    match fault.class {
        Class::Absent => EntryState::Absent,
        Class::Denied => EntryState::Denied,
        Class::Throttled { .. } => EntryState::Throttled,
        Class::Unavailable | Class::Cluster => EntryState::Unavailable,
        Class::Invalid | Class::Conflict | Class::Bug => EntryState::Invalid,
    }
}

fn version(sighting: &Sighting) -> Option<String> {
    match sighting {
        Sighting::Value(Reading::Found(fetched)) => fetched.version.clone(),
        _ => None,
    }
}

enum Deletion {
    Due(Step),
    Braked,
    NotDue,
}

/// Deletion by absence needs all of it: the policy, a target that is ours and alive, every entry proven absent twice, each found
/// before under the very same stores, and no brake.
fn deletion(judged: &Judged, snapshot: &Snapshot, holding: &Holding) -> Deletion {
    let request = &judged.request;
    let (Holding::Ours(record), Some(facts)) = (holding, &request.facts) else { return Deletion::NotDue };
    if request.deletion != DeletionPolicy::Delete || request.creation != CreationPolicy::Owner || record.stores != judged.stores {
        return Deletion::NotDue;
    }
    let is_owned = facts.owners.iter().any(|(_, _, uid)| *uid == request.uid);
    let is_proven = is_owned
        && !judged.verdicts.is_empty()
        && judged.verdicts.iter().zip(snapshot).all(|(verdict, seen)| match (verdict, seen) {
            (Ok(granted), Some(seen)) => is_not_found(&seen.sighting) && seen.is_absence_confirmed && record.has_item(granted.get()),
            _ => false,
        });
    if !is_proven {
        return Deletion::NotDue;
    }
    if snapshot.iter().flatten().any(|seen| seen.is_braked) {
        return Deletion::Braked;
    }
    Deletion::Due(Step::Delete { target: request.target.clone(), facts: facts.clone(), cause: DeleteCause::Absent })
}

fn is_not_found(sighting: &Sighting) -> bool {
    matches!(sighting, Sighting::Value(Reading::Absent(fault)) if fault.reason == Reason::NotFound)
}

fn mass_absence(request: &Request) -> Fault {
    Fault::absent(
        Reason::MassAbsence,
        format!(
            "{} is kept: many keys of its store turned absent at once; if that is meant, annotate the store with keyferry.dev/confirm-absence",
            request.target
        ),
    )
}

fn steps(
    judged: &Judged,
    snapshot: &Snapshot,
    made: &Assembled,
    macs: &[(Item, Option<ShortMac>)],
    key: &DigestKey,
    repairs: &Repairs,
) -> Result<Vec<Step>, Fault> {
    let request = &judged.request;
    let holding = standing::holding(request.facts.as_deref(), key, &request.key, &request.target);
    standing::may_write(&holding, request.key.kind, &request.target, request.rival.as_deref())?;
    let record = new_record(judged, snapshot, made, macs, key);
    let write = write(request, &made.data, &record, &holding, repairs)?;
    Ok(write.into_iter().chain(removal_of_former(request, key)).collect())
}

fn new_record(judged: &Judged, snapshot: &Snapshot, made: &Assembled, macs: &[(Item, Option<ShortMac>)], key: &DigestKey) -> Record {
    let request = &judged.request;
    let names = names(judged, snapshot);
    let worth = |(item, mac): &(Item, Option<ShortMac>)| mac.map(|mac| Worth { item: item.clone(), mac, names: names.get(item).copied() });
    let found: Vec<Worth> = macs.iter().filter_map(worth).collect();
    let kind = match request.target.kind {
        TargetKind::Secret => "Opaque",
        TargetKind::ConfigMap => "ConfigMap",
    };
    let data = digest::of_target(key.of(request.target.kind), kind, MANAGED_LABEL, &made.data).to_hex();
    let keys = made.data.keys().map(String::as_str).collect();
    let content = Content { keys, members: members(request, made), stores: &judged.stores, items: &found, data };
    Record::new(key, &request.key, &request.target, &content)
}

/// What a document holds, where a search may come to withhold some of it.
fn members<'a>(request: &Request, made: &'a Assembled) -> BTreeSet<&'a str> {
    let is_search = |entry: &Entry<'_>| matches!(entry.reference, Reference::Find(_));
    if layout::layout(request).document.is_none() || !request.entries().iter().any(is_search) {
        return BTreeSet::new();
    }
    made.keys.iter().map(String::as_str).collect()
}

/// How many names each search had.
fn names<'a>(judged: &'a Judged, snapshot: &Snapshot) -> BTreeMap<&'a Item, usize> {
    let seen = judged.verdicts.iter().zip(snapshot).filter_map(|(verdict, seen)| Some((verdict.as_ref().ok()?.get(), seen.as_ref()?)));
    seen.filter_map(|(item, seen)| match &seen.sighting {
        Sighting::Found(Ok(found)) => Some((item, found.values.len() + found.withheld.len())),
        Sighting::Found(Err(_)) | Sighting::Value(_) => None,
    })
    .collect()
}

fn write(
    request: &Request,
    values: &BTreeMap<String, SecretValue>,
    record: &Record,
    holding: &Holding,
    repairs: &Repairs,
) -> Result<Option<Step>, Fault> {
    let mut drift = Drift::default();
    let (guard, kind) = match (holding, &request.facts) {
        (Holding::Ours(known), Some(facts)) => {
            drift = standing::drift(facts, known, &request.key, &request.uid, request.creation);
            if known == record && drift.is_none() {
                return Ok(None);
            }
            (Guard::Uid(facts.uid.clone()), kind_of_update(known, record, &drift))
        }
        (Holding::OursUnproven, Some(facts)) => {
            drift.has_metadata = true;
            (Guard::Uid(facts.uid.clone()), WriteKind::Repair)
        }
        _ if request.was_written() => (Guard::CreateOnly, WriteKind::Recreate),
        _ => (Guard::CreateOnly, WriteKind::Create),
    };
    let restored = drift.names();
    exhausted(request, &restored, repairs)?;
    Ok(Some(Step::Write(Box::new(Write {
        body: body(request, values, record),
        guard,
        manager: record::field_manager(&request.key),
        may_force: may_force(request, values, holding),
        kind,
        restored,
    }))))
}

fn kind_of_update(known: &Record, record: &Record, drift: &Drift) -> WriteKind {
    match (known.data == record.data && known.keys == record.keys, drift.is_none()) {
        (false, _) => WriteKind::Update,
        (true, false) => WriteKind::Repair,
        (true, true) => WriteKind::Annotate,
    }
}

/// What its editor keeps changing is left alone for a while.
fn exhausted(request: &Request, restored: &[String], repairs: &Repairs) -> Result<(), Fault> {
    let Some(key) = restored.iter().find(|key| repairs.is_exhausted(key, request.now)) else { return Ok(()) };
    let manager = request
        .facts
        .as_ref()
        .and_then(|facts| facts.holder_of(key, &record::field_manager(&request.key)).map(str::to_owned))
        .unwrap_or_else(|| "somebody".to_owned());
    Err(Fault::conflict(
        Reason::Conflict,
        format!("{key} of {} was restored three times and changed again by {manager}: stop one of the two", request.target),
    ))
}

fn body(request: &Request, values: &BTreeMap<String, SecretValue>, record: &Record) -> TargetBody {
    TargetBody {
        target: request.target.clone(),
        labels: BTreeMap::from([(MANAGED_LABEL.to_owned(), "true".to_owned())]),
        annotations: BTreeMap::from([(record::annotation(&request.key), record.to_text())]),
        owner: (request.creation == CreationPolicy::Owner).then(|| owner_reference(request)),
        data: values.clone(),
    }
}

/// Without `blockOwnerDeletion`: nobody's deletion waits for us.
fn owner_reference(request: &Request) -> OwnerReference {
    OwnerReference {
        api_version: "keyferry.dev/v1alpha1".to_owned(),
        kind: request.key.kind.as_str().to_owned(),
        name: request.key.name.clone(),
        uid: request.uid.clone(),
        controller: Some(true),
        block_owner_deletion: None,
    }
}

/// What may be forced: our reserved label and annotation, and the keys that a valid annotation proves to have been ours.
fn may_force(request: &Request, values: &BTreeMap<String, SecretValue>, holding: &Holding) -> BTreeSet<String> {
    let mut fields = BTreeSet::from([
        format!(".metadata.labels.{MANAGED_LABEL}"),
        format!(".metadata.annotations.{}", record::annotation(&request.key)),
    ]);
    if let Holding::Ours(record) = holding {
        fields
            .extend(values.keys().filter(|key| record.has_key(key)).flat_map(|key| [format!(".data.{key}"), format!(".binaryData.{key}")]));
    }
    fields
}

/// After the new name is there, the target of the old name goes, if it is proven ours.
fn removal_of_former(request: &Request, key: &DigestKey) -> Option<Step> {
    let (target, facts) = request.former.as_ref()?;
    let facts = facts.as_ref()?;
    let is_ours = matches!(standing::holding(Some(facts), key, &request.key, target), Holding::Ours(_));
    let is_owned = facts.owners.iter().any(|(_, _, uid)| *uid == request.uid);
    let goes_along = request.creation == CreationPolicy::Owner;
    (is_ours && is_owned && goes_along).then(|| Step::Delete { target: target.clone(), facts: facts.clone(), cause: DeleteCause::Renamed })
}

/// Readable, for golden tests and for people: names, never values.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.judgement {
            Ok(()) => writeln!(f, "judgement: Synced")?,
            Err(fault) => writeln!(f, "judgement: {fault}")?,
        }
        for entry in &self.entries {
            let version = entry.version.as_deref().map(|version| format!(" version {version}")).unwrap_or_default();
            writeln!(f, "entry {} of {}: {:?} {}{version}", entry.name, entry.store, entry.state, entry.reason)?;
        }
        if self.steps.is_empty() {
            writeln!(f, "steps: none")?;
        }
        for step in &self.steps {
            writeln!(f, "{step}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Write(write) => {
                let guard = match &write.guard {
                    Guard::CreateOnly => "only if missing".to_owned(),
                    Guard::Uid(uid) => format!("only uid {uid}"),
                };
                let keys: Vec<_> = write.body.data.keys().map(String::as_str).collect();
                let owner = if write.body.owner.is_some() { "owned" } else { "not owned" };
                write!(f, "step: {:?} {}, {guard}, {owner}, keys [{}]", write.kind, write.body.target, keys.join(", "))?;
                if !write.restored.is_empty() {
                    write!(f, ", restores [{}]", write.restored.join(", "))?;
                }
                Ok(())
            }
            Self::Delete { target, facts, cause } => write!(f, "step: delete {target} of uid {} ({cause:?})", facts.uid),
        }
    }
}

#[cfg(test)]
mod tests;
