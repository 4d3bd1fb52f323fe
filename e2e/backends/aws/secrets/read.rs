//! What looks and changes nothing.

use serde_json::{Value, json};

use super::{CURRENT, Secret, any, granted, key_failure, locate, marked, missing, secret_id, usable};
use crate::backends::aws::failure::{Failure, Result};
use crate::backends::aws::gate::refusal;
use crate::backends::aws::input::{Input, page};
use crate::backends::aws::world::{Ask, World, seconds};

/// Ids of a batch, and secrets of one page of it.
const MOST_IN_BATCH: i64 = 20;
/// Secrets of one page of a list.
const MOST_IN_LIST: i64 = 100;
const BAD_TOKEN: &str = "InvalidNextTokenException";

pub fn get(world: &mut World, ask: &Ask<'_>, input: &Input) -> Result<Value> {
    let id = secret_id(input)?;
    let version = input.text("VersionId", 32, 64)?;
    let stage = input.text("VersionStage", 1, 256)?;
    value_of(world, ask, id, version, stage)
}

fn value_of(world: &mut World, ask: &Ask<'_>, id: &str, version: Option<&str>, stage: Option<&str>) -> Result<Value> {
    let now = world.now();
    let (place, name) = granted(world, ask, id, "GetSecretValue")?;
    let secret = place.secrets.get_mut(&name).ok_or_else(missing)?;
    if secret.deletion.is_some() {
        return Err(marked());
    }
    let wanted = match (version, stage) {
        (Some(id), _) => secret.with_id(id).ok_or_else(|| no_version(&format!("VersionId: {id}")))?,
        (None, stage) => {
            let stage = stage.unwrap_or(CURRENT);
            secret.with_stage(stage).ok_or_else(|| no_version(&format!("staging label: {stage}")))?
        }
    };
    if version.is_some() && stage.is_some_and(|stage| !wanted.stages.contains(stage)) {
        let words = "You provided a VersionStage that is not associated to the provided VersionId.";
        return Err(Failure::new("InvalidRequestException", words));
    }
    let Some(value) = &wanted.value else { return Err(no_version(&format!("VersionId: {}", wanted.id))) };
    let mut answer = json!({
        "ARN": secret.arn, "Name": secret.name, "VersionId": wanted.id, "CreatedDate": seconds(wanted.created),
    });
    if !wanted.stages.is_empty() {
        answer["VersionStages"] = json!(wanted.stages);
    }
    value.put_into(&mut answer);
    let key = secret.kms_key.clone();
    secret.accessed = Some(now);
    match key.and_then(|key| world.gate.key(ask.caller, &key)) {
        Some(trouble) => Err(key_failure(trouble)),
        None => Ok(answer),
    }
}

fn no_version(what: &str) -> Failure {
    Failure::new("ResourceNotFoundException", format!("Secrets Manager can't find the specified secret value for {what}"))
}

/// What is wrong with one name stands beside the others. What is malformed, or may not be asked for in a batch, fails the whole.
pub fn batch(world: &mut World, ask: &Ask<'_>, input: &Input) -> Result<Value> {
    let ids = input.texts("SecretIdList", 1, 20)?;
    world.gate.check(ask.caller, &ask.caller.account, "secretsmanager:BatchGetSecretValue", "*", "*")?;
    let (ids, next) = match ids {
        Some(_) if input.has("Filters") => {
            return Err(Failure::new("InvalidParameterException", "You must include Filters or SecretIdList, but not both."));
        }
        Some(_) if input.has("MaxResults") || input.has("NextToken") => {
            return Err(Failure::new("InvalidParameterException", "MaxResults and NextToken need Filters."));
        }
        Some(ids) => (ids.into_iter().map(str::to_owned).collect(), None),
        None if !input.has("Filters") => {
            return Err(Failure::new("InvalidParameterException", "You must include Filters or SecretIdList."));
        }
        None => filtered(world, ask, input)?,
    };
    for id in &ids {
        if id.is_empty() || id.chars().count() > 2048 {
            return Err(Failure::validation(
                "secretIdList",
                "Member must satisfy constraint: [Member must have length less than or equal to 2048]",
            ));
        }
        let found = locate(world, ask, id)?;
        if world.gate.refuses_batch(ask.caller, "secretsmanager:GetSecretValue", &found.name) {
            return Err(refusal(ask.caller, "secretsmanager:GetSecretValue", id));
        }
    }
    let (mut values, mut errors) = (Vec::new(), Vec::new());
    for id in &ids {
        match value_of(world, ask, id, None, None) {
            Ok(value) => values.push(value),
            Err(failure) => errors.push(json!({ "SecretId": id, "ErrorCode": failure.kind, "Message": failure.message })),
        }
    }
    let mut answer = json!({ "SecretValues": values, "Errors": errors });
    if let Some(next) = next {
        answer["NextToken"] = next.into();
    }
    Ok(answer)
}

/// ARNs of one page. Whoever may use filters may list.
fn filtered(world: &mut World, ask: &Ask<'_>, input: &Input) -> Result<(Vec<String>, Option<String>)> {
    world.gate.check(ask.caller, &ask.caller.account, "secretsmanager:ListSecrets", "*", "*")?;
    let all = matching(world, ask, input, false)?;
    let (page, next) = page(&all, input, MOST_IN_BATCH, BAD_TOKEN)?;
    Ok((page.iter().map(|secret| secret.arn.clone()).collect(), next))
}

pub fn list(world: &mut World, ask: &Ask<'_>, input: &Input) -> Result<Value> {
    world.gate.check(ask.caller, &ask.caller.account, "secretsmanager:ListSecrets", "*", "*")?;
    let mut all = matching(world, ask, input, input.flag("IncludePlannedDeletion")?)?;
    match input.word("SortBy", &["created-date", "last-accessed-date", "last-changed-date", "name"])? {
        Some("name") => all.sort_by(|one, other| one.name.cmp(&other.name)),
        Some("last-changed-date") => all.sort_by_key(|secret| secret.changed),
        Some("last-accessed-date") => all.sort_by_key(|secret| secret.accessed),
        _ => {}
    }
    if input.word("SortOrder", &["asc", "desc"])? == Some("desc") {
        all.reverse();
    }
    let (page, next) = page(&all, input, MOST_IN_LIST, BAD_TOKEN)?;
    let entries: Vec<Value> = page.iter().copied().map(entry).collect();
    let mut answer = json!({ "SecretList": entries });
    if let Some(next) = next {
        answer["NextToken"] = next.into();
    }
    Ok(answer)
}

fn entry(secret: &Secret) -> Value {
    let mut entry = secret.about();
    if let Some(stages) = entry.as_object_mut().and_then(|entry| entry.remove("Stages")) {
        entry["SecretVersionsToStages"] = stages;
    }
    entry
}

/// In the order in which they were made.
fn matching<'w>(world: &'w mut World, ask: &Ask<'_>, input: &Input, with_marked: bool) -> Result<Vec<&'w Secret>> {
    let filters = filters(input)?;
    let place = world.place(&ask.caller.account, ask.region);
    let wanted = |secret: &&Secret| (with_marked || secret.deletion.is_none()) && filters.iter().all(|filter| filter.covers(secret));
    let mut found: Vec<&Secret> = place.secrets.values().filter(wanted).collect();
    found.sort_by_key(|secret| secret.serial);
    Ok(found)
}

/// One of its values has to fit; one that begins with `!` fits where the rest does not.
struct Filter {
    key: String,
    values: Vec<String>,
}

fn filters(input: &Input) -> Result<Vec<Filter>> {
    let keys = ["description", "name", "tag-key", "tag-value", "primary-region", "owning-service", "all"];
    let filter = |filter: &Input| {
        let key = filter.word("Key", &keys)?.ok_or_else(|| Failure::new("InvalidParameterException", "A filter needs a key."))?;
        let values = filter.texts("Values", 1, 10)?;
        let values = values.ok_or_else(|| Failure::new("InvalidParameterException", "A filter needs values."))?;
        let is_valid = |letter: char| letter.is_ascii_alphanumeric() || " :_@/+=.-!".contains(letter);
        if values.iter().any(|value| value.len() > 512 || !value.chars().all(is_valid)) {
            return Err(Failure::validation(
                "values",
                "Member must satisfy regular expression pattern: ^\\!?[a-zA-Z0-9 :_@\\/\\+\\=\\.\\-\\!]*$",
            ));
        }
        Ok(Filter { key: key.to_owned(), values: values.into_iter().map(str::to_owned).collect() })
    };
    input.objects("Filters", 10)?.iter().map(filter).collect()
}

impl Filter {
    fn covers(&self, secret: &Secret) -> bool {
        self.values.iter().any(|value| match value.strip_prefix('!') {
            Some(value) => !self.fits(secret, value),
            None => self.fits(secret, value),
        })
    }

    /// Each is compared from its beginning: names and tags as they are written, descriptions in any case.
    fn fits(&self, secret: &Secret, value: &str) -> bool {
        let description = || secret.description.as_deref().unwrap_or_default().to_lowercase();
        let lower = value.to_lowercase();
        match self.key.as_str() {
            "name" => secret.name.starts_with(value),
            "description" => description().starts_with(&lower),
            "tag-key" => secret.tags.keys().any(|key| key.starts_with(value)),
            "tag-value" => secret.tags.values().any(|tag| tag.starts_with(value)),
            "all" => {
                let tags = secret.tags.iter().flat_map(|(key, value)| [key.to_lowercase(), value.to_lowercase()]);
                let texts: Vec<String> = tags.chain([secret.name.to_lowercase(), description()]).collect();
                texts.iter().any(|text| text.contains(&lower))
            }
            _ => false,
        }
    }
}

pub fn describe(world: &mut World, ask: &Ask<'_>, input: &Input) -> Result<Value> {
    let mut about = any(world, ask, secret_id(input)?)?.about();
    if let Some(stages) = about.as_object_mut().and_then(|about| about.remove("Stages")) {
        about["VersionIdsToStages"] = stages;
    }
    Ok(about)
}

pub fn versions(world: &mut World, ask: &Ask<'_>, input: &Input) -> Result<Value> {
    let with_deprecated = input.flag("IncludeDeprecated")?;
    let secret = usable(world, ask, secret_id(input)?)?;
    let wanted = secret.versions.iter().filter(|version| with_deprecated || !version.stages.is_empty());
    let all: Vec<Value> = wanted
        .map(|version| {
            let mut entry = json!({ "VersionId": version.id, "CreatedDate": seconds(version.created) });
            if !version.stages.is_empty() {
                entry["VersionStages"] = json!(version.stages);
            }
            entry
        })
        .collect();
    let (page, next) = page(&all, input, MOST_IN_LIST, BAD_TOKEN)?;
    let mut answer = json!({ "Versions": page, "ARN": secret.arn, "Name": secret.name });
    if let Some(next) = next {
        answer["NextToken"] = next.into();
    }
    Ok(answer)
}
