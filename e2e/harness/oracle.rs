//! What must hold after every test, whatever it was about. Each is a function from what was seen to what is wrong with it, so that its
//! own test can plant a violation.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use serde_json::Value;

use keyferry::crd::v1alpha1::{CreationPolicy, ParameterFormat, Place, SyncObject};
use keyferry::name::TargetKind;

use super::audit::Request;
use super::canary::Canary;
use super::cluster::{Served, condition_is, is_current};
use super::history::Sight;
use super::kstatus::{Verdict, verdict};

/// A right as a rule of RBAC gives it: (verb, group, resource).
pub type Right = (String, String, String);

/// What every test of this process used.
pub static USED: LazyLock<Mutex<BTreeSet<Right>>> = LazyLock::new(Mutex::default);

/// Values that stand in a text where no value may stand.
pub fn leaks(canaries: &[Canary], place: &str, text: &str) -> Vec<String> {
    let found = canaries.iter().enumerate();
    let found = found.filter_map(|(number, canary)| canary.found_in(text).map(|form| (number, form)));
    found.map(|(number, form)| format!("value {number} stands in {place}, {form}")).collect()
}

/// Values that no target ever held, so that their absence elsewhere shows nothing.
pub fn undelivered(canaries: &[Canary], sights: &[Sight]) -> Vec<String> {
    // A ConfigMap that is no target may be a leak.
    let sights = sights.iter().filter(|sight| sight.kind == TargetKind::Secret || sight.is_managed);
    let values = sights.flat_map(|sight| sight.data.iter().flat_map(BTreeMap::values));
    let held: BTreeSet<_> = values.map(|value| String::from_utf8_lossy(value)).collect();
    let never = canaries.iter().enumerate().filter(|(_, canary)| !held.iter().any(|value| canary.found_in(value).is_some()));
    never.map(|(number, _)| format!("value {number} never reached a target: its absence elsewhere shows nothing")).collect()
}

/// Objects as text, without the one place where values belong: the data of targets, and of the test's own sources.
pub fn text_of_objects(mut list: Value, is_exempt: impl Fn(&Value) -> bool) -> String {
    for item in list["items"].as_array_mut().into_iter().flatten() {
        if is_exempt(item) {
            item["data"] = Value::Null;
        }
    }
    list.to_string()
}

/// Signs of a panic in a log, its tail included.
pub fn panics(log: &str) -> Vec<String> {
    let is_panic = |line: &&str| line.contains("panicked") || line.contains("this is a bug of Keyferry");
    log.lines().filter(is_panic).map(|line| format!("a panic: {line}")).collect()
}

/// Requests that the operator had no right to.
pub fn forbidden(requests: &[Request]) -> Vec<String> {
    let refused = requests.iter().filter(|request| request.decision == "forbid");
    refused.map(|request| format!("outside the operator's rights: {request}")).collect()
}

/// Requests of an operator that has nothing to do, beside holding its Lease.
pub fn work_at_rest(requests: &[Request]) -> Vec<String> {
    let work = requests.iter().filter(|request| !request.is_background());
    work.map(|request| format!("nothing changed, and still: {request}")).collect()
}

/// Notes what was used, for [`unused`].
pub fn note_used(requests: &[Request]) {
    let allowed = requests.iter().filter(|request| request.decision == "allow");
    USED.lock().unwrap_or_else(PoisonError::into_inner).extend(allowed.flat_map(Request::rights));
}

/// The rights that rules grant.
pub fn granted(rules: &Value) -> BTreeSet<Right> {
    let strings = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(|text| text.as_str().map(str::to_owned)).collect()
    };
    let mut rights = BTreeSet::new();
    for rule in rules.as_array().into_iter().flatten() {
        for group in strings(&rule["apiGroups"]) {
            for resource in strings(&rule["resources"]) {
                rights.extend(strings(&rule["verbs"]).into_iter().map(|verb| (verb, group.clone(), resource.clone())));
            }
        }
    }
    rights
}

/// Granted rights that nothing used.
pub fn unused(granted: &BTreeSet<Right>, used: &BTreeSet<Right>) -> Vec<String> {
    let idle = granted.difference(used);
    idle.map(|(verb, group, resource)| format!("granted and never used: {verb} {group}/{resource}")).collect()
}

/// The target's key under which a value of that name stands: a document holds all of them under one.
fn key_in_target(object: &SyncObject, name: &str) -> String {
    let SyncObject::Parameter(object) = object else { return name.to_owned() };
    let target = object.spec.target.clone().unwrap_or_default();
    match target.format.unwrap_or_default() {
        ParameterFormat::Keys => name.strip_prefix(target.trim_prefix.as_deref().unwrap_or_default()).unwrap_or(name).to_owned(),
        ParameterFormat::Json => target.file_name.unwrap_or_else(|| "config.json".to_owned()),
        ParameterFormat::Yaml => target.file_name.unwrap_or_else(|| "config.yaml".to_owned()),
    }
}

/// Whether what tools conclude from an object is true; `keys` are those of its target as it stands.
pub fn untruths<K: Served>(object: &K, keys: Option<&BTreeSet<String>>) -> Vec<String>
where
    SyncObject: From<Arc<K>>,
{
    let view = SyncObject::from(Arc::new(object.clone()));
    let name = view.key();
    let verdict = verdict(object);
    let is_ready = is_current(object) && condition_is(object, "Ready", "True");
    let mut wrong = Vec::new();
    let is_suspended = view.is_suspended();
    // A suspended object rests as it was: tools may see either.
    if !is_suspended && (verdict == Verdict::Current) != is_ready {
        wrong.push(format!("{name}: kstatus says {verdict:?} while Ready is {is_ready}"));
    }
    if object
        .status()
        .is_some_and(|status| status.conditions.iter().all(|condition| condition.type_ != "Ready") && !status.conditions.is_empty())
    {
        wrong.push(format!("{name}: there is no condition Ready"));
    }
    let writes = view.creation_policy() != CreationPolicy::None;
    if verdict == Verdict::Current && writes && !is_suspended {
        let entries = view.entries().unwrap_or_default();
        let wanted = entries.iter().filter_map(|entry| match entry.place {
            Place::Data(key) => Some(key_in_target(&view, key)),
            Place::DataFrom(_) => None,
        });
        let missing: Vec<String> = wanted.filter(|key| keys.is_none_or(|keys| !keys.contains(key))).collect();
        if !missing.is_empty() || keys.is_none() {
            wrong.push(format!("{name}: Current, while its target lacks {missing:?}"));
        }
    }
    wrong
}

/// What an operator may hold at the end of any case, in a debug build that logs everything. A leak per object, look, watch or
/// reconcile shows in a case that makes many of them. Of the files most are connections: what the pool to the API server may keep, the calls in
/// flight to a store, and the check of its login beside them.
const BOUNDS: &[(&str, u64)] = &[("threads", 32), ("open files", 128), ("KiB of memory", 32 << 10)];

/// Connections that each store keeps: two watches, a look, and the check of its login.
const FILES_OF_A_STORE: u64 = 4;

/// Holdings beyond what any case with so many stores needs.
pub fn beyond_bounds(holdings: &BTreeMap<String, u64>, stores: usize) -> Vec<String> {
    let beyond = BOUNDS.iter().filter_map(|(what, bound)| {
        let of_stores = if *what == "open files" { FILES_OF_A_STORE * stores.saturating_sub(1) as u64 } else { 0 };
        let (held, bound) = (holdings.get(*what).copied().unwrap_or(u64::MAX), bound + of_stores);
        (held > bound).then(|| format!("{held} {what} at the end, of at most {bound}"))
    });
    beyond.collect()
}

/// Growth of what must not grow: by name, before and after.
pub fn growth(before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>, allowance: u64) -> Vec<String> {
    let grown = after.iter().filter_map(|(what, after)| {
        let before = before.get(what).copied().unwrap_or_default();
        (*after > before + allowance).then(|| format!("{what} grew from {before} to {after}"))
    });
    grown.collect()
}
