//! Secrets Manager: what it keeps and how its operations change that (docs.aws.amazon.com/secretsmanager/latest/apireference).

mod read;
mod write;

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::failure::{Failure, Result};
use super::gate::KeyState;
use super::input::Input;
use super::world::{Ask, Place, World, partition, seconds};

/// Bytes of a value.
const MOST_BYTES: usize = 65_536;
/// Tags of a secret.
const MOST_TAGS: usize = 50;
pub const CURRENT: &str = "AWSCURRENT";
pub const PREVIOUS: &str = "AWSPREVIOUS";
pub const PENDING: &str = "AWSPENDING";

#[derive(Clone)]
pub struct Secret {
    arn: String,
    name: String,
    description: Option<String>,
    kms_key: Option<String>,
    created: Timestamp,
    changed: Timestamp,
    accessed: Option<Timestamp>,
    rotated: Option<Timestamp>,
    /// When it goes away; none unless it is marked for deletion.
    deletion: Option<Timestamp>,
    tags: BTreeMap<String, String>,
    /// In the order in which they were made.
    versions: Vec<Version>,
    rotation: Option<Rotation>,
    /// By which lists are ordered.
    serial: u64,
}

#[derive(Clone)]
struct Version {
    id: String,
    /// None while a rotation has not filled it.
    value: Option<Payload>,
    stages: BTreeSet<String>,
    created: Timestamp,
}

#[derive(Clone, PartialEq, Eq)]
enum Payload {
    Text(String),
    Binary(Vec<u8>),
}

#[derive(Clone)]
struct Rotation {
    function: String,
    rules: Value,
    is_enabled: bool,
}

/// One operation, by its name.
pub fn call(world: &mut World, ask: &Ask<'_>, input: &Input) -> Result<Value> {
    match ask.operation {
        "GetSecretValue" => read::get(world, ask, input),
        "BatchGetSecretValue" => read::batch(world, ask, input),
        "ListSecrets" => read::list(world, ask, input),
        "DescribeSecret" => read::describe(world, ask, input),
        "ListSecretVersionIds" => read::versions(world, ask, input),
        "CreateSecret" => write::create(world, ask, input),
        "PutSecretValue" => write::put(world, ask, input),
        "UpdateSecret" => write::update(world, ask, input),
        "UpdateSecretVersionStage" => write::move_stage(world, ask, input),
        "DeleteSecret" => write::delete(world, ask, input),
        "RestoreSecret" => write::restore(world, ask, input),
        "TagResource" => write::tag(world, ask, input),
        "UntagResource" => write::untag(world, ask, input),
        "RotateSecret" => write::rotate(world, ask, input),
        "CancelRotateSecret" => write::cancel_rotation(world, ask, input),
        _ => Err(Failure::new("UnknownOperationException", "")),
    }
}

/// Ends a rotation as its function would: fills the pending version and makes it current.
pub fn finish_rotation(world: &mut World, account: &str, region: &str, name: &str, text: &str) {
    let now = world.now();
    let secret = world.place(account, region).secrets.get_mut(name).expect("a secret");
    let pending = secret.versions.iter_mut().find(|version| version.stages.contains(PENDING)).expect("a pending version");
    pending.value = Some(Payload::Text(text.to_owned()));
    let id = pending.id.clone();
    pending.stages.remove(PENDING);
    secret.attach(&id, &[CURRENT.to_owned()]);
    secret.rotated = Some(now);
    secret.changed = now;
}

/// Which secret an id means: (account, region, name). By name, by whole ARN, or by ARN without its random end.
struct Located {
    account: String,
    region: String,
    name: String,
}

/// Where the id leads, whether there is something or not.
fn locate(world: &mut World, ask: &Ask<'_>, id: &str) -> Result<Located> {
    let parts: Vec<&str> = id.splitn(7, ':').collect();
    let ["arn", _, "secretsmanager", region, account, "secret", rest] = parts.as_slice() else {
        check_name(id)?;
        return Ok(Located { account: ask.caller.account.clone(), region: ask.region.to_owned(), name: id.to_owned() });
    };
    check_name(rest)?;
    // A region has no other region's secrets.
    let place = world.place(account, if *region == ask.region { region } else { "" });
    let named = rest.rsplit_once('-').map(|(name, _)| name).filter(|name| place.secrets.get(*name).is_some_and(|secret| secret.arn == id));
    Ok(Located { account: (*account).to_owned(), region: ask.region.to_owned(), name: named.unwrap_or(rest).to_owned() })
}

fn check_name(name: &str) -> Result<()> {
    let is_valid = |letter: char| letter.is_ascii_alphanumeric() || "/_+=.@-!".contains(letter);
    if name.is_empty() || name.chars().count() > 512 || !name.chars().all(is_valid) {
        let words = "Invalid name. Must be a valid name containing alphanumeric characters, or any of the following: -/_+=.@!";
        return Err(Failure::new("ValidationException", words));
    }
    Ok(())
}

/// The place of a secret that the caller may do this with. Who may not is told so, whether there is something or not.
fn granted<'w>(world: &'w mut World, ask: &Ask<'_>, id: &str, operation: &str) -> Result<(&'w mut Place, String)> {
    let found = locate(world, ask, id)?;
    let action = format!("secretsmanager:{operation}");
    world.gate.check(ask.caller, &found.account, &action, &found.name, id)?;
    Ok((world.place(&found.account, &found.region), found.name))
}

/// The secret of this id, for an operation that needs one that is not marked for deletion.
fn usable<'w>(world: &'w mut World, ask: &Ask<'_>, id: &str) -> Result<&'w mut Secret> {
    let secret = any(world, ask, id)?;
    if secret.deletion.is_some() {
        return Err(marked());
    }
    Ok(secret)
}

/// The same also where it is marked for deletion.
fn any<'w>(world: &'w mut World, ask: &Ask<'_>, id: &str) -> Result<&'w mut Secret> {
    let (place, name) = granted(world, ask, id, ask.operation)?;
    place.secrets.get_mut(&name).ok_or_else(missing)
}

fn missing() -> Failure {
    Failure::new("ResourceNotFoundException", "Secrets Manager can't find the specified secret.")
}

fn marked() -> Failure {
    Failure::new("InvalidRequestException", "You can't perform this operation on the secret because it was marked for deletion.")
}

fn secret_id(input: &Input) -> Result<&str> {
    input.required("SecretId", 1, 2048)
}

impl Secret {
    fn with_stage(&self, stage: &str) -> Option<&Version> {
        self.versions.iter().find(|version| version.stages.contains(stage))
    }

    fn with_id(&self, id: &str) -> Option<&Version> {
        self.versions.iter().find(|version| version.id == id)
    }

    /// Moves the stages to a version that is there; what was current becomes the previous one.
    fn attach(&mut self, id: &str, stages: &[String]) {
        let was_current = self.with_stage(CURRENT).map(|version| version.id.clone());
        for version in &mut self.versions {
            version.stages.retain(|stage| !stages.contains(stage));
        }
        if stages.iter().any(|stage| stage == CURRENT)
            && let Some(before) = was_current.filter(|before| before != id)
        {
            for version in &mut self.versions {
                version.stages.remove(PREVIOUS);
                if version.id == before {
                    version.stages.insert(PREVIOUS.to_owned());
                }
            }
        }
        if let Some(version) = self.versions.iter_mut().find(|version| version.id == id) {
            version.stages.extend(stages.iter().cloned());
        }
    }

    fn about(&self) -> Value {
        let stages = self.versions.iter().filter(|version| !version.stages.is_empty());
        let stages: BTreeMap<&str, &BTreeSet<String>> = stages.map(|version| (version.id.as_str(), &version.stages)).collect();
        let tags: Vec<Value> = self.tags.iter().map(|(key, value)| json!({ "Key": key, "Value": value })).collect();
        let mut about = json!({
            "ARN": self.arn, "Name": self.name, "CreatedDate": seconds(self.created), "LastChangedDate": seconds(self.changed), "Tags": tags,
        });
        let optional = [
            ("Description", self.description.clone().map(Value::from)),
            ("KmsKeyId", self.kms_key.clone().map(Value::from)),
            ("LastAccessedDate", self.accessed.map(|time| seconds(day(time)).into())),
            ("LastRotatedDate", self.rotated.map(|time| seconds(time).into())),
            ("DeletedDate", self.deletion.map(|time| seconds(time).into())),
            ("RotationEnabled", self.rotation.as_ref().map(|rotation| rotation.is_enabled.into())),
            ("RotationLambdaARN", self.rotation.as_ref().map(|rotation| rotation.function.clone().into())),
            ("RotationRules", self.rotation.as_ref().map(|rotation| rotation.rules.clone()).filter(|rules| !rules.is_null())),
            ("Stages", (!stages.is_empty()).then(|| json!(stages))),
        ];
        for (member, value) in optional {
            if let Some(value) = value {
                about[member] = value;
            }
        }
        about
    }
}

/// Accesses are told by the day.
fn day(time: Timestamp) -> Timestamp {
    let second = time.as_second();
    Timestamp::from_second(second - second.rem_euclid(86_400)).unwrap_or(time)
}

impl Payload {
    /// What the input says; none where it says nothing.
    fn of(input: &Input) -> Result<Option<Self>> {
        if input.has("SecretString") && input.has("SecretBinary") {
            return Err(Failure::new("InvalidParameterException", "You can't specify both SecretString and SecretBinary."));
        }
        if let Some(text) = input.text("SecretString", 1, MOST_BYTES)? {
            return if text.len() > MOST_BYTES { Err(too_long("SecretString")) } else { Ok(Some(Self::Text(text.to_owned()))) };
        }
        let Some(text) = input.text("SecretBinary", 0, usize::MAX)? else { return Ok(None) };
        let bytes = STANDARD.decode(text).map_err(|_| Failure::new("SerializationException", ""))?;
        match bytes.len() {
            0 => Err(Failure::validation("SecretBinary", "Member must have length greater than or equal to 1")),
            1..=MOST_BYTES => Ok(Some(Self::Binary(bytes))),
            _ => Err(too_long("SecretBinary")),
        }
    }

    fn put_into(&self, answer: &mut Value) {
        match self {
            Self::Text(text) => answer["SecretString"] = text.as_str().into(),
            Self::Binary(bytes) => answer["SecretBinary"] = STANDARD.encode(bytes).into(),
        }
    }
}

fn too_long(member: &str) -> Failure {
    Failure::validation(member, &format!("Member must have length less than or equal to {MOST_BYTES}"))
}

fn key_failure(state: KeyState) -> Failure {
    match state {
        KeyState::Disabled => {
            Failure::new("DecryptionFailure", "Secrets Manager can't decrypt the protected secret text using the provided KMS key.")
        }
        KeyState::Denied => Failure::new("AccessDeniedException", "Access to KMS is not allowed"),
    }
}

fn arn(region: &str, account: &str, name: &str, serial: u64) -> String {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdef";
    let letter = |place: u64| LETTERS[usize::try_from((serial * 7919) >> (5 * place) & 31).expect("one of 32")];
    let end: String = (0..6).map(|place| char::from(letter(place))).collect();
    format!("arn:{}:secretsmanager:{region}:{account}:secret:{name}-{end}", partition(region))
}
