//! What changes parameters.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::read::resource;
use super::{
    ADVANCED_BYTES, MANAGED_KEY, MOST_LABELS, MOST_TAGS, MOST_VERSIONS, Parameter, STANDARD_BYTES, Version, arn, check, check_name,
    malformed, not_found, parameter,
};
use crate::backends::aws::failure::{Failure, Result};
use crate::backends::aws::input::Input;
use crate::backends::aws::world::{Ask, World};

pub fn put(world: &mut World, ask: &Ask<'_>, input: &Input) -> Result<Value> {
    let name = input.required("Name", 1, 2048)?;
    check_name(name)?;
    let lower = name.trim_start_matches('/').to_lowercase();
    if lower.starts_with("aws") {
        return Err(Failure::new("AccessDeniedException", format!("No access to reserved parameter name: {name}.")));
    }
    if lower.starts_with("ssm") {
        return Err(malformed());
    }
    let value = input.required("Value", 1, usize::MAX)?;
    let (tags, overwrites) = (input.tags(MOST_TAGS)?, input.flag("Overwrite")?);
    if !tags.is_empty() && overwrites {
        let words = "Invalid request: tags and overwrite can't be used together. To create a parameter with tags, please remove overwrite flag. To update tags for an existing parameter, please use AddTagsToResource or RemoveTagsFromResource.";
        return Err(Failure::new("ValidationException", words));
    }
    check(world, ask, &ask.caller.account, name)?;
    let now = world.now();
    let parameters = &mut world.place(&ask.caller.account, ask.region).parameters;
    let before = parameters.get(name);
    if before.is_some() && !overwrites {
        let words = "The parameter already exists. To overwrite this value, set the overwrite option in the request to true.";
        return Err(Failure::new("ParameterAlreadyExists", words));
    }
    let kind = input.word("Type", &["String", "StringList", "SecureString"])?;
    let kind = kind.map(str::to_owned).or_else(|| before.map(|before| before.kind.clone()));
    let kind = kind.ok_or_else(|| Failure::new("ValidationException", "A parameter type is required when you create a parameter."))?;
    let tier = tier(input, before, value)?;
    let data_type = input.text("DataType", 0, 128)?.unwrap_or("text");
    if !["text", "aws:ec2:image", "aws:ssm:integration"].contains(&data_type) {
        return Err(Failure::new("ValidationException", "The following data type is not supported."));
    }
    let pattern = input.text("AllowedPattern", 0, 1024)?;
    check_pattern(pattern, value)?;
    let mut next = Parameter {
        name: name.to_owned(),
        arn: arn(ask.region, &ask.caller.account, name),
        key: (kind == "SecureString").then(|| input.value("KeyId").as_str().unwrap_or(MANAGED_KEY).to_owned()),
        kind,
        tier,
        data_type: data_type.to_owned(),
        description: input.text("Description", 0, 1024)?.map(str::to_owned),
        pattern: pattern.map(str::to_owned),
        policies: policies(input)?,
        tags: before.map_or_else(|| tags.into_iter().collect::<BTreeMap<_, _>>(), |before| before.tags.clone()),
        versions: before.map(|before| before.versions.clone()).unwrap_or_default(),
    };
    if next.policies.is_some() && next.tier != "Advanced" {
        return Err(Failure::new("ValidationException", "Policies need the advanced tier."));
    }
    let number = next.versions.last().map_or(1, |version| version.number + 1);
    if next.versions.len() == MOST_VERSIONS {
        if !next.versions[0].labels.is_empty() {
            let words = "The oldest version has a label: move it before another version is made.";
            return Err(Failure::new("ParameterMaxVersionLimitExceeded", words));
        }
        next.versions.remove(0);
    }
    let by = ask.caller.arn.clone();
    next.versions.push(Version { number, value: value.to_owned(), labels: BTreeSet::new(), modified: now, by });
    let answer = json!({ "Version": number, "Tier": next.tier });
    parameters.insert(name.to_owned(), next);
    Ok(answer)
}

/// The tier of what is written, if it holds the value.
fn tier(input: &Input, before: Option<&Parameter>, value: &str) -> Result<String> {
    let asked = input.word("Tier", &["Standard", "Advanced", "Intelligent-Tiering"])?;
    let was_advanced = before.is_some_and(|before| before.tier == "Advanced");
    let tier = match asked {
        Some("Standard") if was_advanced => {
            let words = "This parameter uses the advanced-parameter tier. You can't downgrade a parameter from the advanced-parameter tier to the standard-parameter tier.";
            return Err(Failure::new("ValidationException", words));
        }
        Some("Advanced") => "Advanced",
        Some("Intelligent-Tiering") if value.len() > STANDARD_BYTES || input.has("Policies") => "Advanced",
        _ if was_advanced => "Advanced",
        _ => "Standard",
    };
    let most = if tier == "Advanced" { ADVANCED_BYTES } else { STANDARD_BYTES };
    if value.len() > most {
        let words = format!("{tier} tier parameters support a maximum parameter value of {most} characters.");
        return Err(Failure::new("ValidationException", words));
    }
    Ok(tier.to_owned())
}

fn check_pattern(pattern: Option<&str>, value: &str) -> Result<()> {
    let Some(pattern) = pattern.filter(|pattern| !pattern.is_empty()) else { return Ok(()) };
    let pattern = regex::Regex::new(pattern).map_err(|_| Failure::new("InvalidAllowedPatternException", ""))?;
    if pattern.is_match(value) {
        Ok(())
    } else {
        Err(Failure::new("ParameterPatternMismatchException", "Parameter value does not match the allowed pattern."))
    }
}

/// A list of at most ten, each with its type.
fn policies(input: &Input) -> Result<Option<String>> {
    let Some(text) = input.text("Policies", 1, 4096)? else { return Ok(None) };
    let policies: Vec<Value> = serde_json::from_str(text).map_err(|_| Failure::new("InvalidPolicyAttributeException", ""))?;
    let is_known = |policy: &Value| {
        policy["Type"].as_str().is_some_and(|kind| ["Expiration", "ExpirationNotification", "NoChangeNotification"].contains(&kind))
            && policy["Version"] == "1.0"
            && policy["Attributes"].is_object()
    };
    if policies.len() <= 10 && policies.iter().all(is_known) {
        Ok(Some(text.to_owned()))
    } else {
        Err(Failure::new("InvalidPolicyTypeException", "The policy type is not supported."))
    }
}

/// Moves labels to a version; those that cannot be labels are named, and the others attached.
pub fn label(world: &mut World, ask: &Ask<'_>, input: &Input) -> Result<Value> {
    let name = input.required("Name", 1, 2048)?;
    check_name(name)?;
    let number = input.number("ParameterVersion", 0, i64::MAX)?;
    let labels = input.texts("Labels", 1, MOST_LABELS)?.ok_or_else(|| Failure::validation("Labels", "Member must not be null"))?;
    let parameter = parameter(world, ask, name)?;
    let number = number.unwrap_or(parameter.latest().number);
    let (valid, invalid): (Vec<&str>, Vec<&str>) = labels.into_iter().partition(|label| is_label(label));
    let version = parameter.versions.iter().find(|version| version.number == number);
    let mut after = version.ok_or_else(|| version_not_found(name, number))?.labels.clone();
    after.extend(valid.iter().map(|label| (*label).to_owned()));
    if after.len() > MOST_LABELS {
        let words = format!(
            "An error occurred (ParameterVersionLabelLimitExceeded): A parameter version can have a maximum of {MOST_LABELS} labels."
        );
        return Err(Failure::new("ParameterVersionLabelLimitExceeded", words));
    }
    for version in &mut parameter.versions {
        version.labels.retain(|label| !valid.contains(&label.as_str()));
        if version.number == number {
            version.labels.clone_from(&after);
        }
    }
    Ok(json!({ "InvalidLabels": invalid, "ParameterVersion": number }))
}

pub fn unlabel(world: &mut World, ask: &Ask<'_>, input: &Input) -> Result<Value> {
    let name = input.required("Name", 1, 2048)?;
    let number = input.number("ParameterVersion", 0, i64::MAX)?.unwrap_or_default();
    let labels = input.texts("Labels", 1, MOST_LABELS)?.unwrap_or_default();
    let parameter = parameter(world, ask, name)?;
    let version = parameter.versions.iter_mut().find(|version| version.number == number).ok_or_else(|| version_not_found(name, number))?;
    let (removed, invalid): (Vec<&str>, Vec<&str>) = labels.into_iter().partition(|label| version.labels.remove(*label));
    Ok(json!({ "RemovedLabels": removed, "InvalidLabels": invalid }))
}

fn version_not_found(name: &str, number: i64) -> Failure {
    Failure::new(
        "ParameterVersionNotFound",
        format!("Systems Manager could not find version {number} of {name}. Verify the version and try again."),
    )
}

fn is_label(label: &str) -> bool {
    let lower = label.to_lowercase();
    let is_valid = |letter: char| letter.is_ascii_alphanumeric() || "_.-".contains(letter);
    let is_reserved = lower.starts_with("aws") || lower.starts_with("ssm") || label.starts_with(|first: char| first.is_ascii_digit());
    (1..=100).contains(&label.len()) && label.chars().all(is_valid) && !is_reserved
}

pub fn delete(world: &mut World, ask: &Ask<'_>, input: &Input) -> Result<Value> {
    let name = input.required("Name", 1, 2048)?;
    check(world, ask, &ask.caller.account, name)?;
    let parameters = &mut world.place(&ask.caller.account, ask.region).parameters;
    parameters.remove(name).map(|_| json!({})).ok_or_else(not_found)
}

pub fn delete_batch(world: &mut World, ask: &Ask<'_>, input: &Input) -> Result<Value> {
    let names = input.texts("Names", 1, 10)?.ok_or_else(|| Failure::validation("Names", "Member must not be null"))?;
    for name in &names {
        check(world, ask, &ask.caller.account, name)?;
    }
    let parameters = &mut world.place(&ask.caller.account, ask.region).parameters;
    let (deleted, invalid): (Vec<&str>, Vec<&str>) = names.into_iter().partition(|name| parameters.remove(*name).is_some());
    Ok(json!({ "DeletedParameters": deleted, "InvalidParameters": invalid }))
}

pub fn add_tags(world: &mut World, ask: &Ask<'_>, input: &Input) -> Result<Value> {
    let tags = input.tags(1000)?;
    let parameter = resource(world, ask, input)?;
    let mut all = parameter.tags.clone();
    all.extend(tags);
    if all.len() > MOST_TAGS {
        return Err(Failure::new("TooManyTagsError", "").with_status(400));
    }
    parameter.tags = all;
    Ok(json!({}))
}

pub fn remove_tags(world: &mut World, ask: &Ask<'_>, input: &Input) -> Result<Value> {
    let keys = input.texts("TagKeys", 0, usize::MAX)?.unwrap_or_default();
    resource(world, ask, input)?.tags.retain(|key, _| !keys.contains(&key.as_str()));
    Ok(json!({}))
}
