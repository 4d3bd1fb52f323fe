//! The Security Token Service: sessions of roles (docs.aws.amazon.com/STS/latest/APIReference).

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use url::form_urlencoded;

use super::failure::{FORM_NAMESPACE, Failure, Result, escaped};
use super::gate::Caller;
use super::identity::{Holder, Login, Provider};
use super::signature::Key;
use super::token;
use super::world::World;

/// Seconds of a session that names no duration.
const HOUR: i64 = 3600;
const SHORTEST: i64 = 900;
const LONGEST: i64 = 43_200;
const MOST_TAGS: usize = 50;

/// The members of a form.
pub struct Form(BTreeMap<String, String>);

impl Form {
    pub fn parse(body: &[u8]) -> Self {
        Self(form_urlencoded::parse(body).into_owned().collect())
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    fn required(&self, name: &str, min: usize, max: usize) -> Result<&str> {
        let text = self.get(name).ok_or_else(|| invalid(name, "Member must not be null"))?;
        let length = text.chars().count();
        if length < min || length > max {
            return Err(invalid(name, &format!("Member must have length between {min} and {max}")));
        }
        Ok(text)
    }

    /// `Tags.member.1.Key`, `TransitiveTagKeys.member.1`: the members from 1 on.
    fn members<'a>(&'a self, list: &'a str, rest: &'a str) -> impl Iterator<Item = &'a str> {
        (1..).map_while(move |number| self.get(&format!("{list}.member.{number}{rest}")))
    }

    fn tags(&self) -> Result<BTreeMap<String, String>> {
        let keys: Vec<&str> = self.members("Tags", ".Key").collect();
        let values: Vec<&str> = self.members("Tags", ".Value").collect();
        let is_bounded = |(key, value): (&&str, &&str)| (1..=128).contains(&key.chars().count()) && value.chars().count() <= 256;
        if keys.len() != values.len() || keys.len() > MOST_TAGS || !keys.iter().zip(&values).all(is_bounded) {
            return Err(invalid("Tags", "Member must have up to 50 keys with up to 128 letters, and values with up to 256"));
        }
        let tags: BTreeMap<String, String> =
            keys.iter().zip(&values).map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        if tags.len() == keys.len() {
            return Ok(tags);
        }
        Err(Failure::new("InvalidParameterValue", "Duplicate tag keys found. Please note that Tag keys are case insensitive."))
    }
}

/// What is asked of a role, whoever asks.
struct Wish<'a> {
    role: &'a str,
    session_name: &'a str,
    duration: Option<i64>,
}

impl<'a> Wish<'a> {
    fn of(form: &'a Form) -> Result<Self> {
        let (role, session_name) = (form.required("RoleArn", 20, 2048)?, form.required("RoleSessionName", 2, 64)?);
        let is_valid = |letter: char| letter.is_ascii_alphanumeric() || "_+=,.@-".contains(letter);
        if !session_name.chars().all(is_valid) {
            return Err(invalid("RoleSessionName", "Member must satisfy regular expression pattern: [\\w+=,.@-]*"));
        }
        if !role.starts_with("arn:") {
            return Err(Failure::new("ValidationError", format!("{role} is invalid")));
        }
        let duration = form.get("DurationSeconds").map(str::parse::<i64>).transpose();
        let duration = duration.map_err(|_| invalid("DurationSeconds", "Member must be a number"))?;
        if duration.is_some_and(|seconds| !(SHORTEST..=LONGEST).contains(&seconds)) {
            return Err(invalid("DurationSeconds", &format!("Member must have value between {SHORTEST} and {LONGEST}")));
        }
        Ok(Self { role, session_name, duration })
    }
}

pub fn assume(world: &mut World, holder: &Holder, form: &Form) -> Result<String> {
    let wish = Wish::of(form)?;
    let external_id = form.get("ExternalId");
    let mut tags = form.tags()?;
    let transitive: Vec<String> = form.members("TransitiveTagKeys", "").map(str::to_owned).collect();
    let role = world.identities.roles.get(wish.role);
    let caller = &holder.caller;
    let refused = || {
        let words = format!("User: {} is not authorized to perform: sts:AssumeRole on resource: {}", caller.arn, wish.role);
        Failure::new("AccessDenied", words).with_status(403)
    };
    let role = role.filter(|role| role.trusts(&caller.arn)).ok_or_else(refused)?.clone();
    let is_right = role.external_id.as_deref().is_none_or(|wanted| external_id == Some(wanted));
    if !is_right || (!tags.is_empty() && !role.takes_tags) || world.gate.denial(caller, "sts:AssumeRole", wish.role).is_some() {
        return Err(refused());
    }
    if let Some(key) = transitive.iter().find(|key| !tags.contains_key(*key)) {
        return Err(Failure::new("InvalidParameterValue", format!("One of the transitive tag keys, {key}, is no tag of the request.")));
    }
    if let Some(key) = tags.keys().find(|key| holder.transitive.contains_key(*key)) {
        let words = format!(
            "One of the specified transitive tag keys can't be set because it conflicts with a transitive tag key from the calling session: {key}"
        );
        return Err(Failure::new("InvalidParameterValue", words));
    }
    let is_chained = holder.key.token.is_some();
    if is_chained && wish.duration.is_some_and(|seconds| seconds > HOUR) {
        let words = "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining.";
        return Err(Failure::new("ValidationError", words));
    }
    let mut onward = holder.transitive.clone();
    onward.extend(transitive.iter().filter_map(|key| Some((key.clone(), tags.get(key)?.clone()))));
    tags.extend(holder.transitive.clone());
    let login = Login {
        operation: "AssumeRole".to_owned(),
        by: caller.arn.clone(),
        role: wish.role.to_owned(),
        session_name: wish.session_name.to_owned(),
        external_id: external_id.map(str::to_owned),
        tags,
        transitive: onward.keys().cloned().collect(),
        duration: lasting(&wish, role.max_duration)?,
        access_key: String::new(),
    };
    let (credentials, user) = admit(world, login, onward);
    Ok(answer("AssumeRole", &format!("{credentials}{user}")))
}

/// The providers that a web identity can be checked against; the check itself asks them.
pub fn providers(world: &World) -> Vec<Provider> {
    world.identities.providers.clone()
}

/// `identity` is what the check of the token gave.
pub fn assume_with_web_identity(world: &mut World, form: &Form, identity: &token::Identity) -> Result<String> {
    let wish = Wish::of(form)?;
    let refused = || Failure::new("AccessDenied", "Not authorized to perform sts:AssumeRoleWithWebIdentity").with_status(403);
    let role = world.identities.roles.get(wish.role).ok_or_else(refused)?.clone();
    let known: Vec<_> = role.web_identities.iter().filter(|(issuer, _, _)| *issuer == identity.issuer).collect();
    if known.is_empty() || !known.iter().any(|(_, _, subject)| *subject == identity.subject) {
        return Err(refused());
    }
    if !known.iter().any(|(_, audience, subject)| *subject == identity.subject && identity.audiences.contains(audience)) {
        return Err(Failure::new("InvalidIdentityToken", "Incorrect token audience"));
    }
    let login = Login {
        operation: "AssumeRoleWithWebIdentity".to_owned(),
        by: identity.subject.clone(),
        role: wish.role.to_owned(),
        session_name: wish.session_name.to_owned(),
        external_id: None,
        tags: BTreeMap::new(),
        transitive: Vec::new(),
        duration: lasting(&wish, role.max_duration)?,
        access_key: String::new(),
    };
    let (credentials, user) = admit(world, login, BTreeMap::new());
    let subject = format!("<SubjectFromWebIdentityToken>{}</SubjectFromWebIdentityToken>", escaped(&identity.subject));
    let provider = format!("<Provider>{}</Provider>", escaped(&identity.issuer));
    let audience = format!("<Audience>{}</Audience>", escaped(identity.audiences.first().map_or("", String::as_str)));
    Ok(answer("AssumeRoleWithWebIdentity", &format!("{credentials}{user}{subject}{provider}{audience}")))
}

pub fn caller_identity(caller: &Caller) -> String {
    let (account, arn) = (escaped(&caller.account), escaped(&caller.arn));
    answer("GetCallerIdentity", &format!("<UserId>AIDA{account}</UserId><Account>{account}</Account><Arn>{arn}</Arn>"))
}

fn lasting(wish: &Wish<'_>, most: i64) -> Result<i64> {
    let most = if most == 0 { HOUR } else { most };
    match wish.duration {
        Some(seconds) if seconds > most => {
            let words = "The requested DurationSeconds exceeds the MaxSessionDuration set for this role.";
            Err(Failure::new("ValidationError", words))
        }
        Some(seconds) => Ok(seconds),
        None => Ok(HOUR.min(most)),
    }
}

/// Gives the session out and notes it.
fn admit(world: &mut World, mut login: Login, transitive: BTreeMap<String, String>) -> (String, String) {
    let (serial, now) = (world.next_serial(), world.now());
    let parts: Vec<&str> = login.role.splitn(6, ':').collect();
    let (partition, account) = (parts.get(1).copied().unwrap_or("aws"), parts.get(4).copied().unwrap_or_default());
    let role_name = login.role.rsplit('/').next().unwrap_or_default();
    let arn = format!("arn:{partition}:sts::{account}:assumed-role/{role_name}/{}", login.session_name);
    let key = Key {
        id: format!("ASIA{serial:016}"),
        secret: format!("session-secret-{serial:024}"),
        token: Some(format!("session-token-{serial:08}-{}", "x".repeat(64))),
    };
    login.access_key.clone_from(&key.id);
    let expires = now + SignedDuration::from_secs(login.duration);
    let caller = Caller { account: account.to_owned(), arn: arn.clone(), is_admin: false };
    let credentials = credentials(&key, expires);
    let user = format!(
        "<AssumedRoleUser><AssumedRoleId>AROA{serial:016}:{}</AssumedRoleId><Arn>{}</Arn></AssumedRoleUser>",
        escaped(&login.session_name),
        escaped(&arn)
    );
    world.identities.add(Holder { key, caller, expires: Some(expires), transitive });
    world.identities.logins.push(login);
    (credentials, user)
}

fn credentials(key: &Key, expires: Timestamp) -> String {
    let token = key.token.as_deref().unwrap_or_default();
    let expires = expires.strftime("%Y-%m-%dT%H:%M:%SZ");
    format!(
        "<Credentials><AccessKeyId>{}</AccessKeyId><SecretAccessKey>{}</SecretAccessKey><SessionToken>{token}</SessionToken><Expiration>{expires}</Expiration></Credentials>",
        key.id, key.secret
    )
}

fn answer(operation: &str, result: &str) -> String {
    let metadata = "<ResponseMetadata><RequestId>00000000-0000-4000-8000-0000005e55a0</RequestId></ResponseMetadata>";
    format!(
        "<{operation}Response xmlns=\"{FORM_NAMESPACE}\"><{operation}Result>{result}</{operation}Result>{metadata}</{operation}Response>"
    )
}

fn invalid(member: &str, constraint: &str) -> Failure {
    let failure = Failure::validation(member, constraint);
    Failure { kind: "ValidationError".to_owned(), ..failure }
}
