//! Which parameter of an answer is whose. Pure.
//!
//! An answer names parameters in its own way: by name or ARN, in any order, one that was asked for under two names perhaps once, and what
//! was asked for by version or label with that as its selector, which not every server sends. A value goes to a key only where nothing
//! else in the call could be meant.

use std::collections::BTreeSet;

use aws_sdk_ssm::types::{Parameter, ParameterType};

use crate::{
    backend::aws::failure::Failure,
    item::{Fetched, Form},
    name::RemoteRef,
    secret::SecretValue,
};

/// What one call gave.
#[derive(Default)]
pub(super) struct Answer {
    found: Vec<Entry>,
    /// What the system does not have, as it was asked for.
    missing: BTreeSet<String>,
    /// Whether it says which version or label a value was asked for by.
    tells_selectors: bool,
}

struct Entry {
    name: Option<String>,
    arn: Option<String>,
    selector: Option<String>,
    number: i64,
    fetched: Result<Fetched, Failure>,
}

/// The name with the version or label that is wanted of it.
pub(super) fn selector(wanted: &RemoteRef) -> String {
    match &wanted.version {
        Some(version) => format!("{}:{version}", wanted.key.as_str()),
        None => wanted.key.as_str().to_owned(),
    }
}

impl Answer {
    pub fn of(parameters: Vec<Parameter>, missing: &[String]) -> Self {
        let found: Vec<Entry> = parameters.into_iter().map(Entry::of).collect();
        let tells_selectors = found.iter().any(|entry| entry.selector.is_some());
        Self { found, missing: missing.iter().cloned().collect(), tells_selectors }
    }

    /// What it says of one of those that were asked for together; `None` where it may mean another of them.
    pub fn told(&self, wanted: &RemoteRef, asked: &BTreeSet<&RemoteRef>) -> Option<Result<Fetched, Failure>> {
        if self.missing.contains(&selector(wanted)) {
            return Some(Err(if wanted.version.is_some() { Failure::MissingOrVersion } else { Failure::Missing }));
        }
        let entries: Vec<&Entry> = self.found.iter().filter(|entry| self.may_be(entry, wanted)).collect();
        let is_rival = |other: &RemoteRef| {
            other != wanted && !self.missing.contains(&selector(other)) && entries.iter().any(|entry| self.may_be(entry, other))
        };
        match entries.as_slice() {
            [] => Some(Err(Failure::Malformed)),
            _ if asked.iter().any(|other| is_rival(other)) => None,
            [entry] => Some(entry.fetched.clone()),
            _ => Some(Err(Failure::Malformed)),
        }
    }

    fn may_be(&self, entry: &Entry, wanted: &RemoteRef) -> bool {
        let key = Some(wanted.key.as_str());
        let is_named = entry.name.as_deref() == key || entry.arn.as_deref() == key;
        is_named
            && match (&entry.selector, &wanted.version) {
                (Some(selector), version) => Some(selector) == version.as_ref(),
                (None, None) => true,
                (None, Some(_)) if self.tells_selectors => false,
                (None, Some(version)) => version.parse().map_or(true, |number: i64| entry.number == number),
            }
    }
}

impl Entry {
    fn of(parameter: Parameter) -> Self {
        let Parameter { name, arn, selector, version: number, value, r#type, source_result, .. } = parameter;
        // Of a secret that is read through Parameter Store it holds the value once more: overwritten when it is dropped.
        drop(source_result.map(SecretValue::from));
        // AWS writes `:3`; the name is in no answer, and would be before the last colon.
        let selector = selector.filter(|text| !text.is_empty()).map(|text| text.rsplit(':').next().unwrap_or_default().to_owned());
        Self { name, arn, selector, number, fetched: fetched(value, r#type, number) }
    }
}

/// A parameter of an answer that gives all that there are: its name, and what it is.
pub(super) fn named(parameter: Parameter) -> (Option<String>, Result<Fetched, Failure>) {
    let Entry { name, fetched, .. } = Entry::of(parameter);
    (name, fetched)
}

/// A value without its type is none: a SecureString could pass for a parameter that may be shown.
fn fetched(value: Option<String>, kind: Option<ParameterType>, number: i64) -> Result<Fetched, Failure> {
    let (Some(value), Some(kind)) = (value.map(SecretValue::from), kind) else { return Err(Failure::Malformed) };
    let is_secret = !matches!(kind, ParameterType::String | ParameterType::StringList);
    // What Secrets Manager keeps has version 0, whatever it is.
    let version = (number > 0).then(|| number.to_string());
    Ok(Fetched { value, form: Form::Whole, version, is_secret })
}
