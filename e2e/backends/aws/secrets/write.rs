//! What changes secrets.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::{CURRENT, MOST_TAGS, PENDING, Payload, Rotation, Secret, Version, any, arn, check_name, granted, marked, secret_id, usable};
use crate::backends::aws::failure::{Failure, Result};
use crate::backends::aws::input::Input;
use crate::backends::aws::world::{Ask, World, seconds};

/// Labels that one call may give.
const MOST_STAGES: usize = 20;
/// For which a deleted secret can be kept.
const DAYS: std::ops::RangeInclusive<i64> = 7..=30;

pub fn create(world: &mut World, ask: &Ask<'_>, input: &Input) -> Result<Value> {
    let name = input.required("Name", 1, 512)?;
    check_name(name)?;
    let payload = Payload::of(input)?;
    let (tags, description) = (tags(input)?, text(input, "Description", 2048)?);
    let kms_key = text(input, "KmsKeyId", 2048)?;
    let token = token(world, input)?;
    let (now, serial) = (world.now(), world.next_serial());
    let (place, name) = granted(world, ask, name, "CreateSecret")?;
    if let Some(there) = place.secrets.get(&name) {
        return again(there, &token, payload.as_ref(), &name);
    }
    let arn = arn(ask.region, &ask.caller.account, &name, serial);
    let mut answer = json!({ "ARN": arn, "Name": name });
    let mut secret = Secret {
        arn,
        name: name.clone(),
        description,
        kms_key,
        created: now,
        changed: now,
        accessed: None,
        rotated: None,
        deletion: None,
        tags,
        versions: Vec::new(),
        rotation: None,
        serial,
    };
    if let Some(payload) = payload {
        answer["VersionId"] = token.as_str().into();
        secret.add(&token, Some(payload), &[CURRENT.to_owned()], now);
    }
    place.secrets.insert(name, secret);
    Ok(answer)
}

/// The same creation once more is no error.
fn again(there: &Secret, token: &str, payload: Option<&Payload>, name: &str) -> Result<Value> {
    if there.deletion.is_some() {
        let words = "You can't create this secret because a secret with this name is already scheduled for deletion.";
        return Err(Failure::new("InvalidRequestException", words));
    }
    let same = there.with_id(token).filter(|version| version.value.as_ref() == payload);
    let same = same.ok_or_else(|| {
        Failure::new("ResourceExistsException", format!("The operation failed because the secret {name} already exists."))
    })?;
    Ok(json!({ "ARN": there.arn, "Name": there.name, "VersionId": same.id }))
}

pub fn put(world: &mut World, ask: &Ask<'_>, input: &Input) -> Result<Value> {
    let stages = input.texts("VersionStages", 1, MOST_STAGES)?;
    let stages: Vec<String> = stages.unwrap_or_else(|| vec![CURRENT]).into_iter().map(str::to_owned).collect();
    let payload = Payload::of(input)?
        .ok_or_else(|| Failure::new("InvalidRequestException", "You must provide either SecretString or SecretBinary."))?;
    let (token, now) = (token(world, input)?, world.now());
    let secret = usable(world, ask, secret_id(input)?)?;
    let stages = secret.write(&token, payload, stages, now)?;
    Ok(json!({ "ARN": secret.arn, "Name": secret.name, "VersionId": token, "VersionStages": stages }))
}

pub fn update(world: &mut World, ask: &Ask<'_>, input: &Input) -> Result<Value> {
    let payload = Payload::of(input)?;
    let (description, kms_key) = (text(input, "Description", 2048)?, text(input, "KmsKeyId", 2048)?);
    let (token, now) = (token(world, input)?, world.now());
    let secret = usable(world, ask, secret_id(input)?)?;
    let mut answer = json!({ "ARN": secret.arn, "Name": secret.name });
    if let Some(payload) = payload {
        secret.write(&token, payload, vec![CURRENT.to_owned()], now)?;
        answer["VersionId"] = token.into();
    }
    secret.description = description.or_else(|| secret.description.take());
    secret.kms_key = kms_key.or_else(|| secret.kms_key.take());
    secret.changed = now;
    Ok(answer)
}

impl Secret {
    /// The same token with the same value is the same write; with another one it is refused.
    fn write(&mut self, token: &str, payload: Payload, mut stages: Vec<String>, now: Timestamp) -> Result<BTreeSet<String>> {
        if let Some(there) = self.with_id(token) {
            if there.value.as_ref() == Some(&payload) {
                return Ok(there.stages.clone());
            }
            // A version that a rotation began is there and empty.
            if there.value.is_some() {
                let words = "You can't modify an existing version, you can only create a new version.";
                return Err(Failure::new("ResourceExistsException", words));
            }
        }
        if self.versions.is_empty() && !stages.iter().any(|stage| stage == CURRENT) {
            stages.push(CURRENT.to_owned());
        }
        self.add(token, Some(payload), &stages, now);
        self.changed = now;
        Ok(self.with_id(token).map(|version| version.stages.clone()).unwrap_or_default())
    }

    fn add(&mut self, id: &str, value: Option<Payload>, stages: &[String], now: Timestamp) {
        self.versions.retain(|version| version.id != id);
        self.versions.push(Version { id: id.to_owned(), value, stages: BTreeSet::new(), created: now });
        self.attach(id, stages);
    }
}

pub fn move_stage(world: &mut World, ask: &Ask<'_>, input: &Input) -> Result<Value> {
    let stage = input.required("VersionStage", 1, 256)?.to_owned();
    let from = input.text("RemoveFromVersionId", 32, 64)?.map(str::to_owned);
    let to = input.text("MoveToVersionId", 32, 64)?.map(str::to_owned);
    let now = world.now();
    let secret = usable(world, ask, secret_id(input)?)?;
    let holder = secret.with_stage(&stage).map(|version| version.id.clone());
    if let (Some(holder), true) = (&holder, to.is_some() || from.is_some())
        && from.as_ref() != Some(holder)
    {
        let words = format!(
            "The parameter RemoveFromVersionId can't be empty. Staging label {stage} is currently attached to version {holder}, so you must explicitly reference that version in RemoveFromVersionId."
        );
        return Err(Failure::new("InvalidParameterException", words));
    }
    if let Some(unknown) = [&from, &to].into_iter().flatten().find(|id| secret.with_id(id).is_none()) {
        return Err(Failure::new(
            "ResourceNotFoundException",
            format!("Secrets Manager can't find the specified secret version: {unknown}"),
        ));
    }
    match to {
        Some(to) => secret.attach(&to, &[stage]),
        None if stage == CURRENT => {
            return Err(Failure::new(
                "InvalidParameterException",
                "You can only move staging label AWSCURRENT to a different secret version. It can't be completely removed.",
            ));
        }
        None => {
            for version in &mut secret.versions {
                version.stages.remove(&stage);
            }
        }
    }
    secret.changed = now;
    Ok(json!({ "ARN": secret.arn, "Name": secret.name }))
}

pub fn delete(world: &mut World, ask: &Ask<'_>, input: &Input) -> Result<Value> {
    let (is_forced, days) = (input.flag("ForceDeleteWithoutRecovery")?, input.number("RecoveryWindowInDays", i64::MIN, i64::MAX)?);
    if is_forced && days.is_some() {
        let words = "You can't use ForceDeleteWithoutRecovery in conjunction with RecoveryWindowInDays.";
        return Err(Failure::new("InvalidParameterException", words));
    }
    let days = days.unwrap_or(30);
    if !DAYS.contains(&days) {
        let words = "The RecoveryWindowInDays value must be between 7 and 30 days (inclusive).";
        return Err(Failure::new("InvalidParameterException", words));
    }
    let (id, now) = (secret_id(input)?, world.now());
    let (place, name) = granted(world, ask, id, ask.operation)?;
    if is_forced {
        // What is not there is deleted, too.
        let arn = place.secrets.remove(&name).map_or_else(|| arn(ask.region, &ask.caller.account, &name, 0), |secret| secret.arn);
        return Ok(json!({ "ARN": arn, "Name": name, "DeletionDate": seconds(now) }));
    }
    let secret = usable(world, ask, id)?;
    let deletion = now + SignedDuration::from_hours(24 * days);
    secret.deletion = Some(deletion);
    Ok(json!({ "ARN": secret.arn, "Name": secret.name, "DeletionDate": seconds(deletion) }))
}

pub fn restore(world: &mut World, ask: &Ask<'_>, input: &Input) -> Result<Value> {
    let secret = any(world, ask, secret_id(input)?)?;
    secret.deletion = None;
    Ok(json!({ "ARN": secret.arn, "Name": secret.name }))
}

pub fn tag(world: &mut World, ask: &Ask<'_>, input: &Input) -> Result<Value> {
    let tags = tags(input)?;
    let secret = usable(world, ask, secret_id(input)?)?;
    let mut all = secret.tags.clone();
    all.extend(tags);
    if all.len() > MOST_TAGS {
        return Err(Failure::new("InvalidParameterException", format!("A secret can have {MOST_TAGS} tags.")));
    }
    secret.tags = all;
    Ok(Value::Null)
}

pub fn untag(world: &mut World, ask: &Ask<'_>, input: &Input) -> Result<Value> {
    let keys = input.texts("TagKeys", 0, usize::MAX)?.ok_or_else(|| Failure::validation("TagKeys", "Member must not be null"))?;
    let secret = usable(world, ask, secret_id(input)?)?;
    secret.tags.retain(|key, _| !keys.contains(&key.as_str()));
    Ok(Value::Null)
}

/// Begins a rotation: the function, which is the test itself, fills the pending version.
pub fn rotate(world: &mut World, ask: &Ask<'_>, input: &Input) -> Result<Value> {
    let function = input.text("RotationLambdaARN", 0, 2048)?.map(str::to_owned);
    let rules = input.object("RotationRules");
    if let Some(rules) = &rules {
        check_rules(rules)?;
    }
    let starts_now = !input.has("RotateImmediately") || input.flag("RotateImmediately")?;
    let (token, now, functions) = (token(world, input)?, world.now(), world.rotators.clone());
    let secret = usable(world, ask, secret_id(input)?)?;
    let function = function.or_else(|| secret.rotation.as_ref().map(|rotation| rotation.function.clone()));
    let function = function
        .ok_or_else(|| Failure::new("InvalidRequestException", "No Lambda rotation function ARN is associated with this secret."))?;
    if !functions.contains(&function) {
        let words = "Secrets Manager cannot invoke the specified Lambda function. Ensure that the function policy grants access to the principal secretsmanager.amazonaws.com";
        return Err(Failure::new("AccessDeniedException", words));
    }
    if secret.with_stage(PENDING).is_some_and(|pending| !pending.stages.contains(CURRENT)) {
        let words = "A previous rotation isn't complete. That rotation will be reattempted.";
        return Err(Failure::new("InvalidRequestException", words));
    }
    let before = secret.rotation.take().map(|rotation| rotation.rules);
    let rules = rules.map(|_| input.value("RotationRules")).or(before).unwrap_or_default();
    secret.rotation = Some(Rotation { function, rules, is_enabled: true });
    let mut answer = json!({ "ARN": secret.arn, "Name": secret.name });
    if starts_now {
        secret.add(&token, None, &[PENDING.to_owned()], now);
        answer["VersionId"] = token.into();
    }
    Ok(answer)
}

fn check_rules(rules: &Input) -> Result<()> {
    let days = rules.number("AutomaticallyAfterDays", 1, 1000)?;
    let schedule = rules.text("ScheduleExpression", 1, 256)?;
    if days.is_some() && schedule.is_some() {
        let words = "You can't specify both AutomaticallyAfterDays and ScheduleExpression.";
        return Err(Failure::new("InvalidParameterException", words));
    }
    let is_schedule = |text: &str| (text.starts_with("rate(") || text.starts_with("cron(")) && text.ends_with(')');
    if schedule.is_some_and(|text| !is_schedule(text)) {
        return Err(Failure::new("InvalidParameterException", "The schedule expression is neither rate(…) nor cron(…)."));
    }
    Ok(())
}

pub fn cancel_rotation(world: &mut World, ask: &Ask<'_>, input: &Input) -> Result<Value> {
    let secret = any(world, ask, secret_id(input)?)?;
    if secret.deletion.is_some() {
        return Err(marked());
    }
    if let Some(rotation) = &mut secret.rotation {
        rotation.is_enabled = false;
    }
    Ok(json!({ "ARN": secret.arn, "Name": secret.name }))
}

fn tags(input: &Input) -> Result<BTreeMap<String, String>> {
    let tags = input.tags(MOST_TAGS)?;
    if tags.iter().any(|(key, _)| key.to_lowercase().starts_with("aws:")) {
        return Err(Failure::new("InvalidParameterException", "Tag keys that begin with aws: are AWS's own."));
    }
    Ok(tags.into_iter().collect())
}

fn text(input: &Input, member: &str, max: usize) -> Result<Option<String>> {
    Ok(input.text(member, 0, max)?.map(str::to_owned))
}

fn token(world: &mut World, input: &Input) -> Result<String> {
    Ok(match input.text("ClientRequestToken", 32, 64)? {
        Some(token) => token.to_owned(),
        None => world.uuid(),
    })
}
