//! Parameter Store: what it keeps and how its operations change that (docs.aws.amazon.com/systems-manager/latest/APIReference).

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
use super::world::{Ask, World, partition, seconds};

/// Bytes of a value, by tier.
const STANDARD_BYTES: usize = 4096;
const ADVANCED_BYTES: usize = 8192;
/// Versions that are kept.
const MOST_VERSIONS: usize = 100;
const MOST_LABELS: usize = 10;
const MOST_TAGS: usize = 50;
/// Levels of a name.
const MOST_LEVELS: usize = 15;
const MOST_LETTERS: usize = 1011;
/// The managed key, which a SecureString has where it names none.
const MANAGED_KEY: &str = "alias/aws/ssm";
const BAD_TOKEN: &str = "InvalidNextToken";

#[derive(Clone)]
pub struct Parameter {
    name: String,
    arn: String,
    kind: String,
    tier: String,
    data_type: String,
    description: Option<String>,
    pattern: Option<String>,
    policies: Option<String>,
    key: Option<String>,
    tags: BTreeMap<String, String>,
    /// Oldest first; at least one.
    versions: Vec<Version>,
}

#[derive(Clone)]
struct Version {
    number: i64,
    value: String,
    labels: BTreeSet<String>,
    modified: Timestamp,
    by: String,
}

/// One operation, by its name.
pub fn call(world: &mut World, ask: &Ask<'_>, input: &Input) -> Result<Value> {
    match ask.operation {
        "GetParameter" => read::get(world, ask, input),
        "GetParameters" => read::batch(world, ask, input),
        "GetParametersByPath" => read::by_path(world, ask, input),
        "DescribeParameters" => read::describe(world, ask, input),
        "GetParameterHistory" => read::history(world, ask, input),
        "ListTagsForResource" => read::tags(world, ask, input),
        "PutParameter" => write::put(world, ask, input),
        "LabelParameterVersion" => write::label(world, ask, input),
        "UnlabelParameterVersion" => write::unlabel(world, ask, input),
        "DeleteParameter" => write::delete(world, ask, input),
        "DeleteParameters" => write::delete_batch(world, ask, input),
        "AddTagsToResource" => write::add_tags(world, ask, input),
        "RemoveTagsFromResource" => write::remove_tags(world, ask, input),
        _ => Err(Failure::new("UnknownOperationException", "")),
    }
}

/// What a name in a request means: `/app/size`, `/app/size:3`, `/app/size:label`, or an ARN in front of these.
struct Wanted {
    account: String,
    name: String,
    /// Without its colon.
    selector: Option<String>,
}

impl Wanted {
    fn parse(text: &str, account: &str) -> Result<Self> {
        let parts: Vec<&str> = text.splitn(6, ':').collect();
        let (account, rest) = match parts.as_slice() {
            ["arn", _, "ssm", _, account, resource] => {
                let path = resource.strip_prefix("parameter").ok_or_else(malformed)?;
                let is_path = path.trim_start_matches('/').contains('/');
                ((*account).to_owned(), if is_path { path } else { path.trim_start_matches('/') })
            }
            _ => (account.to_owned(), text),
        };
        let (name, selector) = rest.split_once(':').map_or((rest, None), |(name, selector)| (name, Some(selector)));
        check_name(name)?;
        Ok(Self { account, name: name.to_owned(), selector: selector.map(str::to_owned) })
    }
}

/// What a name may be (docs: "Parameter names", `PutParameter`).
fn check_name(name: &str) -> Result<()> {
    let is_valid = |letter: char| letter.is_ascii_alphanumeric() || "_.-/".contains(letter);
    let levels: Vec<&str> = name.trim_start_matches('/').split('/').collect();
    let is_hierarchy = name.contains('/');
    let is_whole =
        !name.is_empty() && name.len() <= MOST_LETTERS && name.chars().all(is_valid) && levels.iter().all(|level| !level.is_empty());
    if !is_whole || (is_hierarchy && !name.starts_with('/')) || levels.len() > MOST_LEVELS {
        return Err(malformed());
    }
    Ok(())
}

fn malformed() -> Failure {
    let words = "Parameter name: can't be prefixed with \"ssm\" (case-insensitive). If formed as a path, it can consist of sub-paths divided by slash symbol; each sub-path can be formed as a mix of letters, numbers and the following 3 symbols .-_";
    Failure::new("ValidationException", words)
}

fn arn(region: &str, account: &str, name: &str) -> String {
    let slash = if name.starts_with('/') { "" } else { "/" };
    format!("arn:{}:ssm:{region}:{account}:parameter{slash}{name}", partition(region))
}

/// Whether the caller may do this with the parameter, there or not.
fn check(world: &World, ask: &Ask<'_>, account: &str, name: &str) -> Result<()> {
    let action = format!("ssm:{}", ask.operation);
    world.gate.check(ask.caller, account, &action, name, &arn(ask.region, account, name))
}

fn parameter<'w>(world: &'w mut World, ask: &Ask<'_>, name: &str) -> Result<&'w mut Parameter> {
    check(world, ask, &ask.caller.account, name)?;
    world.place(&ask.caller.account, ask.region).parameters.get_mut(name).ok_or_else(not_found)
}

fn not_found() -> Failure {
    Failure::new("ParameterNotFound", "")
}

impl Parameter {
    fn latest(&self) -> &Version {
        self.versions.last().expect("a parameter has a version")
    }

    /// By number or by label.
    fn selected(&self, selector: Option<&str>) -> Option<&Version> {
        let Some(selector) = selector else { return Some(self.latest()) };
        match selector.parse::<i64>() {
            Ok(number) => self.versions.iter().find(|version| version.number == number),
            Err(_) => self.versions.iter().find(|version| version.labels.contains(selector)),
        }
    }

    /// As a read gives it; a value that is not decrypted is something else.
    fn show(&self, version: &Version, selector: Option<&str>, is_decrypted: bool) -> Value {
        let value = if self.kind == "SecureString" && !is_decrypted { sealed(&version.value) } else { version.value.clone() };
        let mut shown = json!({
            "Name": self.name, "Type": self.kind, "Value": value, "Version": version.number, "ARN": self.arn,
            "LastModifiedDate": seconds(version.modified), "DataType": self.data_type,
        });
        if let Some(selector) = selector {
            shown["Selector"] = format!(":{selector}").into();
        }
        shown
    }
}

/// What stands for a value that is not decrypted: nothing of it can be read there.
fn sealed(value: &str) -> String {
    let scrambled: Vec<u8> = value.bytes().rev().map(|byte| byte ^ 0xA5).collect();
    format!("AQICAHh{}", STANDARD.encode(scrambled))
}

/// Whether the key that decrypts a parameter can be used.
fn check_key(world: &World, ask: &Ask<'_>, parameter: &Parameter, is_decrypted: bool) -> Result<()> {
    let Some(key) = parameter.key.as_deref().filter(|_| is_decrypted) else { return Ok(()) };
    match world.gate.key(ask.caller, key) {
        None => Ok(()),
        Some(KeyState::Disabled) => {
            let words = format!(
                "{key} is disabled. (Service: AWSKMS; Status Code: 400; Error Code: DisabledException; Request ID: -; Proxy: null)"
            );
            Err(Failure::new("InvalidKeyId", words))
        }
        Some(KeyState::Denied) => {
            let words = "The ciphertext refers to a customer master key that does not exist, does not exist in this region, or you are not allowed to access. (Service: AWSKMS; Status Code: 400; Error Code: AccessDeniedException; Request ID: -; Proxy: null)";
            Err(Failure::new("AccessDeniedException", words))
        }
    }
}
