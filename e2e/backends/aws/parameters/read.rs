//! What looks and changes nothing.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{BAD_TOKEN, Parameter, Wanted, arn, check, check_key, check_name, malformed, not_found, parameter};
use crate::backends::aws::failure::{Failure, Result};
use crate::backends::aws::input::{Input, page};
use crate::backends::aws::world::{Ask, World, seconds};

/// Names of a batch.
const MOST_IN_BATCH: usize = 10;
/// Parameters of one page below a path.
const MOST_BELOW: i64 = 10;
/// Parameters of one page of descriptions or of a history.
const MOST_DESCRIBED: i64 = 50;

pub fn get(world: &mut World, ask: &Ask<'_>, input: &Input) -> Result<Value> {
    let wanted = Wanted::parse(input.required("Name", 1, 2048)?, &ask.caller.account)?;
    let is_decrypted = input.flag("WithDecryption")?;
    check(world, ask, &wanted.account, &wanted.name)?;
    let parameter = world.place(&wanted.account, ask.region).parameters.get(&wanted.name).cloned().ok_or_else(not_found)?;
    let version = parameter.selected(wanted.selector.as_deref()).ok_or_else(|| {
        let (name, selector) = (&wanted.name, wanted.selector.as_deref().unwrap_or_default());
        let words = format!("Systems Manager could not find version {selector} of {name}. Verify the version and try again.");
        Failure::new("ParameterVersionNotFound", words)
    })?;
    check_key(world, ask, &parameter, is_decrypted)?;
    Ok(json!({ "Parameter": parameter.show(version, wanted.selector.as_deref(), is_decrypted) }))
}

/// What is not there is named beside the others. One name that is malformed, denied or cannot be decrypted fails the whole.
pub fn batch(world: &mut World, ask: &Ask<'_>, input: &Input) -> Result<Value> {
    let names = input.texts("Names", 1, MOST_IN_BATCH)?.ok_or_else(|| Failure::validation("Names", "Member must not be null"))?;
    let is_decrypted = input.flag("WithDecryption")?;
    let mut wanted = Vec::new();
    for name in &names {
        wanted.push((*name, Wanted::parse(name, &ask.caller.account)?));
    }
    if names.iter().collect::<BTreeSet<_>>().len() < names.len() {
        return Err(Failure::new("ValidationException", "Names: duplicates are not allowed."));
    }
    for (_, wanted) in &wanted {
        check(world, ask, &wanted.account, &wanted.name)?;
    }
    let (mut found, mut invalid) = (Vec::new(), Vec::new());
    for (name, wanted) in wanted {
        let parameter = world.place(&wanted.account, ask.region).parameters.get(&wanted.name).cloned();
        let selector = wanted.selector.as_deref();
        match parameter.as_ref().and_then(|parameter| Some((parameter, parameter.selected(selector)?))) {
            None => invalid.push(name),
            Some((parameter, version)) => {
                check_key(world, ask, parameter, is_decrypted)?;
                found.push(parameter.show(version, selector, is_decrypted));
            }
        }
    }
    Ok(json!({ "Parameters": found, "InvalidParameters": invalid }))
}

/// Who may read a path may read all below it, whatever else is denied: so does AWS.
pub fn by_path(world: &mut World, ask: &Ask<'_>, input: &Input) -> Result<Value> {
    let path = input.required("Path", 1, 2048)?;
    if !path.starts_with('/') {
        let words = "The parameter doesn't meet the parameter name requirements. The parameter name must begin with a forward slash \"/\". It can't be prefixed with \"aws\" or \"ssm\" (case-insensitive). It must use only letters, numbers, or the following symbols: . (period), - (hyphen), _ (underscore). Special characters are not allowed. All sub-paths, if specified, must use the forward slash symbol \"/\". Valid example: /get/parameters2-/by1./path0_.";
        return Err(Failure::new("ValidationException", words));
    }
    let top = path.trim_end_matches('/');
    if !top.is_empty() {
        check_name(top)?;
    }
    let (is_recursive, is_decrypted) = (input.flag("Recursive")?, input.flag("WithDecryption")?);
    let filters = filters(input, &["Type", "KeyId", "Label"])?;
    check(world, ask, &ask.caller.account, if top.is_empty() { "/" } else { top })?;
    let below = format!("{top}/");
    let place = world.place(&ask.caller.account, ask.region);
    let is_wanted = |parameter: &&Parameter| {
        let rest = parameter.name.strip_prefix(&below);
        rest.is_some_and(|rest| is_recursive || !rest.contains('/')) && filters.iter().all(|filter| filter.covers(parameter))
    };
    let all: Vec<Parameter> = place.parameters.values().filter(is_wanted).cloned().collect();
    let (page, next) = page(&all, input, MOST_BELOW, BAD_TOKEN)?;
    let mut shown = Vec::new();
    for parameter in page {
        check_key(world, ask, parameter, is_decrypted)?;
        let label = filters.iter().find(|filter| filter.key == "Label").and_then(|filter| filter.values.first());
        let version = parameter.selected(label.map(String::as_str)).unwrap_or_else(|| parameter.latest());
        shown.push(parameter.show(version, label.map(String::as_str), is_decrypted));
    }
    Ok(with_next(json!({ "Parameters": shown }), next))
}

pub fn describe(world: &mut World, ask: &Ask<'_>, input: &Input) -> Result<Value> {
    world.gate.check(ask.caller, &ask.caller.account, "ssm:DescribeParameters", "*", &arn(ask.region, &ask.caller.account, "*"))?;
    let filters = filters(input, &["Name", "Type", "KeyId", "Path", "Tier", "DataType"])?;
    let place = world.place(&ask.caller.account, ask.region);
    let is_wanted = |parameter: &&Parameter| filters.iter().all(|filter| filter.covers(parameter));
    let all: Vec<Value> = place.parameters.values().filter(is_wanted).map(about).collect();
    let (page, next) = page(&all, input, MOST_DESCRIBED, BAD_TOKEN)?;
    Ok(with_next(json!({ "Parameters": page }), next))
}

pub fn history(world: &mut World, ask: &Ask<'_>, input: &Input) -> Result<Value> {
    let name = input.required("Name", 1, 2048)?;
    check_name(name)?;
    let is_decrypted = input.flag("WithDecryption")?;
    let parameter = parameter(world, ask, name)?.clone();
    check_key(world, ask, &parameter, is_decrypted)?;
    let entry = |version: &super::Version| {
        let mut entry = about(&parameter);
        entry.as_object_mut().expect("an object").remove("ARN");
        let shown = parameter.show(version, None, is_decrypted);
        for member in ["Value", "Version", "LastModifiedDate"] {
            entry[member] = shown[member].clone();
        }
        entry["Labels"] = json!(version.labels);
        entry
    };
    let all: Vec<Value> = parameter.versions.iter().map(entry).collect();
    let (page, next) = page(&all, input, MOST_DESCRIBED, BAD_TOKEN)?;
    Ok(with_next(json!({ "Parameters": page }), next))
}

fn about(parameter: &Parameter) -> Value {
    let latest = parameter.latest();
    let policies = parameter.policies.as_deref().and_then(|text| serde_json::from_str::<Vec<Value>>(text).ok()).unwrap_or_default();
    let policy = |policy: &Value| json!({ "PolicyText": policy.to_string(), "PolicyType": policy["Type"], "PolicyStatus": "Pending" });
    let mut about = json!({
        "Name": parameter.name, "ARN": parameter.arn, "Type": parameter.kind, "Version": latest.number, "Tier": parameter.tier,
        "LastModifiedDate": seconds(latest.modified), "LastModifiedUser": latest.by, "DataType": parameter.data_type,
        "Policies": policies.iter().map(policy).collect::<Vec<_>>(),
    });
    for (member, value) in [("Description", &parameter.description), ("AllowedPattern", &parameter.pattern), ("KeyId", &parameter.key)] {
        if let Some(value) = value {
            about[member] = value.as_str().into();
        }
    }
    about
}

pub fn tags(world: &mut World, ask: &Ask<'_>, input: &Input) -> Result<Value> {
    let tags = resource(world, ask, input)?.tags.clone();
    let tags: Vec<Value> = tags.iter().map(|(key, value)| json!({ "Key": key, "Value": value })).collect();
    Ok(json!({ "TagList": tags }))
}

/// The parameter that a call about tags names.
pub fn resource<'w>(world: &'w mut World, ask: &Ask<'_>, input: &Input) -> Result<&'w mut Parameter> {
    if input.required("ResourceType", 0, 64)? != "Parameter" {
        return Err(Failure::new("InvalidResourceType", ""));
    }
    let wanted = Wanted::parse(input.required("ResourceId", 1, 2048)?, &ask.caller.account)?;
    parameter(world, ask, &wanted.name).map_err(|failure| match failure.kind.as_str() {
        "ParameterNotFound" => {
            Failure::new("InvalidResourceId", "The resource ID is not valid. Verify that you entered the correct ID and try again.")
        }
        _ => failure,
    })
}

fn with_next(mut answer: Value, next: Option<String>) -> Value {
    if let Some(next) = next {
        answer["NextToken"] = next.into();
    }
    answer
}

struct Filter {
    key: String,
    option: String,
    values: Vec<String>,
}

fn filters(input: &Input, keys: &[&str]) -> Result<Vec<Filter>> {
    let filter = |filter: &Input| {
        let key = filter.required("Key", 1, 132)?;
        if !(keys.contains(&key) || keys.contains(&"Name") && key.starts_with("tag:")) {
            let words = format!("The following filter key is not valid: {key}. Valid filter keys include: [{}].", keys.join(", "));
            return Err(Failure::new("InvalidFilterKey", words));
        }
        let values = filter.texts("Values", 1, 50)?.unwrap_or_default().into_iter().map(str::to_owned).collect();
        let option = filter.text("Option", 1, 10)?.unwrap_or(if key == "Path" { "OneLevel" } else { "Equals" });
        if !["Equals", "BeginsWith", "Contains", "Recursive", "OneLevel"].contains(&option) {
            return Err(Failure::new("InvalidFilterOption", ""));
        }
        Ok(Filter { key: key.to_owned(), option: option.to_owned(), values })
    };
    let filters: Vec<Filter> = input.objects("ParameterFilters", usize::MAX)?.iter().map(filter).collect::<Result<_>>()?;
    let paths = filters.iter().filter(|filter| filter.key == "Path").flat_map(|filter| &filter.values);
    if paths.into_iter().all(|path| path.starts_with('/')) { Ok(filters) } else { Err(malformed()) }
}

impl Filter {
    fn covers(&self, parameter: &Parameter) -> bool {
        let fits = |text: &str| self.values.iter().any(|value| self.fits(text, value));
        match self.key.as_str() {
            "Name" => fits(&parameter.name) || fits(parameter.name.trim_start_matches('/')),
            "Type" => fits(&parameter.kind),
            "Tier" => fits(&parameter.tier),
            "DataType" => fits(&parameter.data_type),
            "KeyId" => parameter.key.as_deref().is_some_and(fits),
            "Label" => parameter.versions.iter().any(|version| version.labels.iter().any(|label| fits(label))),
            "Path" => self.values.iter().any(|path| {
                let rest = parameter.name.strip_prefix(&format!("{}/", path.trim_end_matches('/')));
                rest.is_some_and(|rest| self.option == "Recursive" || !rest.contains('/'))
            }),
            tag => {
                let value = tag.strip_prefix("tag:").and_then(|tag| parameter.tags.get(tag));
                value.is_some_and(|value| self.values.is_empty() || fits(value))
            }
        }
    }

    fn fits(&self, text: &str, value: &str) -> bool {
        match self.option.as_str() {
            "BeginsWith" => text.starts_with(value),
            "Contains" => text.contains(value),
            _ => text == value,
        }
    }
}
