//! What the server said: status and body to what the engine keeps. Pure.
//!
//! Bodies hold values: nothing of them goes into an error, and the errors of the parser, which quote them, are dropped.

use std::{borrow::Cow, collections::BTreeMap, time::Duration};

use http::HeaderValue;
use serde::{Deserialize, de::IgnoredAny};
use serde_json::value::RawValue;
use zeroize::Zeroizing;

use super::{failure::Failure, login};
use crate::{
    backend::Written,
    crd::v1alpha1::VaultKvVersion,
    item::{Fetched, Form},
    secret::SecretValue,
};

/// A whole answer.
pub(super) struct Answer {
    pub status: u16,
    /// Seconds of the header Retry-After.
    pub retry_after: Option<Duration>,
    pub body: Zeroizing<Vec<u8>>,
}

/// What an engine keeps under a key.
#[derive(Debug)]
pub(super) enum Kept {
    Value(Fetched),
    /// Deleted softly: it can be had back.
    Deleted,
    Destroyed,
    /// The engine, if it is one, knows no such key or version.
    Nothing,
}

/// What is mounted at a path.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Engine {
    /// Its mount path, with a slash at the end.
    pub path: String,
    /// Of a key/value engine.
    pub kv: Option<VaultKvVersion>,
}

/// What the server said of a lease.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Leased {
    pub id: String,
    /// None for ever.
    pub life: Option<Duration>,
    pub is_renewable: bool,
}

/// The answer to a read that is not of KV version 2.
#[derive(Debug)]
pub(super) struct Plain {
    pub value: SecretValue,
    pub lease: Option<Leased>,
    /// In how long the server changes the value by itself (a static role of a database).
    pub changes_in: Option<Duration>,
}

/// The answer to a read, of the version that was asked for if there was one.
pub(super) fn kept(answer: &Answer, asked: Option<u64>) -> Result<Kept, Failure> {
    match answer.status {
        200 => kept_version(answer, asked)?.ok_or(answer.malformed()),
        404 if knows_nothing(answer)? => Ok(Kept::Nothing),
        404 => match kept_version(answer, asked)? {
            Some(kept @ (Kept::Deleted | Kept::Destroyed)) => Ok(kept),
            _ => Err(answer.malformed()),
        },
        _ => Err(answer.failure()),
    }
}

/// The answer to a read of any path; `None` when the server knows nothing there.
pub(super) fn plain(answer: &Answer) -> Result<Option<Plain>, Failure> {
    #[derive(Deserialize)]
    struct Reply<'a> {
        #[serde(borrow, default)]
        data: Option<&'a RawValue>,
        #[serde(borrow, default)]
        lease_id: Cow<'a, str>,
        #[serde(default)]
        lease_duration: u64,
        #[serde(default)]
        renewable: bool,
    }
    match answer.status {
        200 => {
            let reply: Reply = serde_json::from_slice(&answer.body).map_err(|_| answer.malformed())?;
            let text = reply.data.map(RawValue::get).filter(|text| text.starts_with('{')).ok_or(answer.malformed())?;
            let lease = (!reply.lease_id.is_empty()).then(|| Leased {
                id: reply.lease_id.into_owned(),
                life: life(reply.lease_duration),
                is_renewable: reply.renewable,
            });
            let (value, changes_in) = match rotated(text) {
                Some((value, ttl)) => (value, Some(ttl)),
                None => (SecretValue::new(text.as_bytes().to_vec()), None),
            };
            Ok(Some(Plain { value, lease, changes_in }))
        }
        404 if knows_nothing(answer)? => Ok(None),
        404 => Err(answer.malformed()),
        _ => Err(answer.failure()),
    }
}

/// A static role's answer without its `ttl`, which counts down and would make every look a change; and that time.
fn rotated(text: &str) -> Option<(SecretValue, Duration)> {
    let mut members: BTreeMap<Cow<'_, str>, &RawValue> = serde_json::from_str(text).ok()?;
    if !members.contains_key("last_vault_rotation") {
        return None;
    }
    let seconds: u64 = members.remove("ttl")?.get().parse().ok()?;
    let mut bytes = Vec::with_capacity(text.len());
    serde_json::to_writer(&mut bytes, &members).ok()?;
    Some((SecretValue::new(bytes), life(seconds).unwrap_or_default()))
}

/// The answer to the renewal of a lease: for how long it lives from now on.
pub(super) fn renewal(answer: &Answer) -> Result<Option<Duration>, Failure> {
    #[derive(Deserialize)]
    struct Renewal {
        lease_duration: u64,
    }
    match answer.status {
        200 => serde_json::from_slice(&answer.body).map(|renewal: Renewal| life(renewal.lease_duration)).map_err(|_| answer.malformed()),
        _ => Err(answer.failure()),
    }
}

/// Seconds as the server grants them: zero is for ever, and beyond a year no clock of ours has to know.
fn life(seconds: u64) -> Option<Duration> {
    Some(Duration::from_secs(seconds.min(366 * 24 * 3600))).filter(|life| !life.is_zero())
}

/// What the server keeps beside all versions of a key for whoever uses it; `None` when there is no such key.
pub(super) fn custom_metadata(answer: &Answer) -> Result<Option<BTreeMap<String, String>>, Failure> {
    #[derive(Deserialize)]
    struct Beside {
        custom_metadata: Option<BTreeMap<String, String>>,
    }
    match answer.status {
        200 => Ok(Some(answer.data::<Beside>()?.custom_metadata.unwrap_or_default())),
        404 if knows_nothing(answer)? => Ok(None),
        404 => Err(answer.malformed()),
        _ => Err(answer.failure()),
    }
}

/// The answer to a write of a new version.
pub(super) fn written(answer: &Answer) -> Result<Written, Failure> {
    #[derive(Deserialize)]
    struct Version {
        version: u64,
    }
    match answer.status {
        200 => answer.data().map(|Version { version }| Written::Version(version.to_string())),
        400 if answer.says("check-and-set") => Ok(Written::Changed),
        // A merge into a key that is not there: OpenBao says so without a body. Whoever else says it has written nothing either.
        404 if answer.body.is_empty() || answer.errors().is_some_and(|errors| errors.is_empty()) => Ok(Written::Changed),
        _ => Err(answer.failure()),
    }
}

/// The answer to a change that tells nothing.
pub(super) fn done(answer: &Answer) -> Result<(), Failure> {
    match answer.status {
        200 | 204 => Ok(()),
        _ => Err(answer.failure()),
    }
}

/// The answer to a list of one folder. A folder without names is no folder: 404, as if nothing had ever been there.
pub(super) fn names(answer: &Answer) -> Result<Vec<String>, Failure> {
    #[derive(Deserialize)]
    struct Names {
        keys: Vec<String>,
    }
    match answer.status {
        200 => Ok(answer.data::<Names>()?.keys),
        404 if knows_nothing(answer)? => Ok(Vec::new()),
        404 => Err(answer.malformed()),
        _ => Err(answer.failure()),
    }
}

/// A token as a login or a renewal grants it.
pub(super) struct Grant {
    pub token: HeaderValue,
    /// None for ever.
    pub life: Option<Duration>,
    pub is_renewable: bool,
}

/// The answer to a login or to a renewal.
pub(super) fn grant(answer: &Answer) -> Result<Grant, Failure> {
    #[derive(Deserialize)]
    struct Login<'a> {
        #[serde(borrow)]
        auth: Auth<'a>,
    }
    #[derive(Deserialize)]
    struct Auth<'a> {
        #[serde(borrow)]
        client_token: Cow<'a, str>,
        lease_duration: u64,
        #[serde(default)]
        renewable: bool,
    }
    if answer.status != 200 {
        return Err(answer.failure());
    }
    let Login { auth } = serde_json::from_slice(&answer.body).map_err(|_| answer.malformed())?;
    let token = login::sensitive(auth.client_token.as_bytes()).ok_or(answer.malformed())?;
    Ok(Grant { token, life: life(auth.lease_duration), is_renewable: auth.renewable })
}

/// The answer to a token that asks about itself. A policy may refuse even that to a good one.
pub(super) fn login(answer: &Answer) -> Result<(), Failure> {
    match answer.status {
        200 => Ok(()),
        403 if !answer.names_the_token() => Ok(()),
        _ => Err(answer.failure()),
    }
}

/// The answer to the question what is mounted at a path.
pub(super) fn engine(answer: &Answer) -> Result<Engine, Failure> {
    #[derive(Deserialize)]
    struct Mount {
        path: String,
        r#type: String,
        options: Option<Options>,
    }
    #[derive(Deserialize)]
    struct Options {
        version: Option<String>,
    }
    match answer.status {
        200 => {
            let mount: Mount = answer.data()?;
            let version = mount.options.and_then(|options| options.version);
            let kv = match (mount.r#type.as_str(), version.as_deref()) {
                ("kv", Some("2")) => Some(VaultKvVersion::V2),
                ("kv" | "generic", None | Some("1" | "")) => Some(VaultKvVersion::V1),
                _ => None,
            };
            Ok(Engine { path: mount.path, kv })
        }
        _ => Err(answer.failure()),
    }
}

#[derive(Deserialize)]
struct Secret<'a> {
    /// Not parsed: a number keeps every digit, and what is delivered is the server's own text.
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    metadata: Metadata,
}

#[derive(Deserialize)]
struct Metadata {
    version: u64,
    #[serde(default)]
    destroyed: bool,
    deletion_time: Option<String>,
}

/// `None` for an answer that contradicts itself or the question.
fn kept_version(answer: &Answer, asked: Option<u64>) -> Result<Option<Kept>, Failure> {
    let Secret { data, metadata } = answer.data()?;
    if asked.is_some_and(|asked| asked != metadata.version) {
        return Ok(None);
    }
    Ok(match data {
        Some(text) if text.get().starts_with('{') => {
            let value = SecretValue::new(text.get().as_bytes().to_vec());
            Some(Kept::Value(Fetched { value, form: Form::Whole, version: Some(metadata.version.to_string()), is_secret: false }))
        }
        Some(_) => None,
        None if metadata.destroyed => Some(Kept::Destroyed),
        None => metadata.deletion_time.filter(|time| !time.is_empty()).map(|_| Kept::Deleted),
    })
}

/// Whether a 404 says in the server's own words that nothing is there: an empty list of errors. With errors in it, it speaks
/// about the path instead ("no handler for route").
fn knows_nothing(answer: &Answer) -> Result<bool, Failure> {
    match answer.errors() {
        Some(errors) if errors.is_empty() => Ok(true),
        Some(_) => Err(Failure::NoEngine),
        None => Ok(false),
    }
}

impl Answer {
    /// The member `data`, which every answer that is not an error has.
    fn data<'a, T: Deserialize<'a>>(&'a self) -> Result<T, Failure> {
        #[derive(Deserialize)]
        struct Envelope<T> {
            data: T,
        }
        let envelope: Envelope<T> = serde_json::from_slice(&self.body).map_err(|_| self.malformed())?;
        Ok(envelope.data)
    }

    /// The errors of an answer that consists of nothing else.
    fn errors(&self) -> Option<Vec<Cow<'_, str>>> {
        #[derive(Deserialize)]
        struct Errors<'a> {
            #[serde(borrow)]
            errors: Vec<Cow<'a, str>>,
            data: Option<IgnoredAny>,
        }
        let answer: Errors = serde_json::from_slice(&self.body).ok()?;
        answer.data.is_none().then_some(answer.errors)
    }

    /// Whether a refusal is about the token itself rather than about what it may read.
    pub fn names_the_token(&self) -> bool {
        self.says("invalid token") || self.says("bad token")
    }

    fn malformed(&self) -> Failure {
        Failure::Malformed(self.status)
    }

    /// What a status says that is neither 200 nor a 404 with a meaning.
    fn failure(&self) -> Failure {
        match self.status {
            300..=399 => Failure::Redirect(self.status),
            401 | 403 => Failure::Denied,
            404 => Failure::NoEngine,
            // Vault Enterprise: a standby that is behind, a secondary for disaster recovery, a performance standby.
            412 | 472 | 473 => Failure::Standby(self.status),
            429 => Failure::Throttled { after: self.retry_after },
            503 if self.is_sealed() => Failure::Sealed,
            400..=499 => Failure::Refused(self.status),
            500..=599 => Failure::Server(self.status),
            _ => self.malformed(),
        }
    }

    /// A load balancer without servers says 503 too.
    fn is_sealed(&self) -> bool {
        self.says("sealed")
    }

    fn says(&self, words: &str) -> bool {
        self.errors().is_some_and(|errors| errors.iter().any(|error| error.contains(words)))
    }
}
