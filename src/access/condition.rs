//! Whether a condition of a cluster store admits a namespace. Pure.
//!
//! As in ESO: of several conditions, and of several members in one condition, one that matches is enough.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use regex::RegexBuilder;

use super::search::REGEX_LIMIT;
use crate::crd::v1alpha1::StoreCondition;

/// Whether one member of the condition matches.
pub(super) fn matches(condition: &StoreCondition, namespace: &str, labels: &BTreeMap<String, String>) -> bool {
    let by_name = condition.namespaces.iter().flatten().any(|name| name == namespace);
    let by_label = condition.namespace_selector.as_ref().is_some_and(|selector| selects(selector, labels));
    let by_expression = condition.namespace_regexes.iter().flatten().any(|expression| is_whole_match(expression, namespace));
    by_name || by_label || by_expression
}

/// Kubernetes' own semantics: all requirements must hold, and an empty selector selects everything.
fn selects(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> bool {
    let equal = selector.match_labels.iter().flatten().all(|(key, value)| labels.get(key) == Some(value));
    equal && selector.match_expressions.iter().flatten().all(|requirement| holds(requirement, labels))
}

/// A requirement that the API server would refuse never holds, so that a misspelt one admits nobody.
fn holds(requirement: &LabelSelectorRequirement, labels: &BTreeMap<String, String>) -> bool {
    let value = labels.get(&requirement.key);
    let values = requirement.values.as_deref().unwrap_or_default();
    match (requirement.operator.as_str(), values.is_empty()) {
        ("In", false) => value.is_some_and(|value| values.contains(value)),
        ("NotIn", false) => value.is_none_or(|value| !values.contains(value)),
        ("Exists", true) => value.is_some(),
        ("DoesNotExist", true) => value.is_none(),
        _ => false,
    }
}

/// The expression must be one by itself (or it could close our group), and must match from end to end; a broken one admits nobody.
fn is_whole_match(expression: &str, namespace: &str) -> bool {
    let compiles = |text: &str| RegexBuilder::new(text).size_limit(REGEX_LIMIT).dfa_size_limit(REGEX_LIMIT).build();
    compiles(expression).is_ok() && compiles(&format!(r"\A(?:{expression})\z")).is_ok_and(|regex| regex.is_match(namespace))
}
