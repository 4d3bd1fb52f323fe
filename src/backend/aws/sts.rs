//! What is asked of the Security Token Service, one role at a time, and what its refusals mean.
//!
//! Must not be here: when it is asked (`session`), and any part of an answer in a message.

use std::{fmt, time::Duration};

use aws_credential_types::Credentials as Keys;
use aws_sdk_sts::{
    Client,
    config::http::HttpResponse,
    error::{ProvideErrorMetadata, SdkError},
    types::{Credentials as Granted, Tag},
};
use aws_smithy_types::DateTime;
use jiff::Timestamp;

use super::failure::{Failure, PARTY};
use crate::{
    backend::transport::{Broken, Party},
    fault::{Fault, Reason},
};

/// The server, in the words of messages.
pub(super) const STS: Party = Party { name: "AWS STS", field: "region (or stsEndpoint)", ..PARTY };

/// What a session is asked to live for: the longest that a chain of roles gets.
const LIFE: Duration = Duration::from_hours(1);

/// Which field of the spec names a role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Named {
    Role,
    Additional(usize),
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Role => f.write_str("provider.aws.role"),
            Self::Additional(at) => write!(f, "provider.aws.additionalRoles[{at}]"),
        }
    }
}

/// A role to assume, and what is said about it.
#[derive(Clone, Debug)]
pub(super) struct Assumption {
    pub named: Named,
    pub role: String,
    pub session_name: String,
    pub external_id: Option<String>,
    /// By key.
    pub tags: Vec<(String, String)>,
    pub transitive: Vec<String>,
}

/// One login: from the identity that the client signs with to a role.
#[derive(Debug)]
pub(super) struct Step {
    pub client: Client,
    pub assumption: Assumption,
}

/// Keys, and for how long they are good.
pub(super) struct Grant {
    pub keys: Keys,
    pub life: Duration,
}

/// Why there is no session.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error(
        "AWS refused to let the identity assume {0}: check that the role exists, that its trust policy allows this identity (and asks for no other external id than provider.aws.externalID), and that the identity may sts:AssumeRole"
    )]
    Role(Named),
    #[error("AWS refused the session tags for {0}: let the role's trust policy allow this identity sts:TagSession, too")]
    Tags(Named),
    #[error("AWS refused the login for {0} as impossible: correct the role, externalID, sessionTags and transitiveTagKeys")]
    Impossible(Named),
    #[error(
        "AWS STS is not active in this region for the account: activate it there, or name another region's in provider.aws.stsEndpoint"
    )]
    RegionDisabled,
    #[error("{}", .0.told(&STS))]
    Broken(Broken),
    #[error("AWS STS answered with a redirect, which is never followed: correct provider.aws.stsEndpoint")]
    Redirect,
    #[error("what answered is not AWS STS, or its answer is not whole: check provider.aws.stsEndpoint")]
    Malformed,
}

impl Refusal {
    pub fn fault(&self, detail: String) -> Fault {
        match self {
            Self::Role(_) | Self::Tags(_) | Self::RegionDisabled => Fault::access_denied(detail),
            Self::Impossible(_) => Fault::invalid(Reason::InvalidSpec, detail),
            Self::Broken(broken) => broken.fault(detail),
            Self::Redirect | Self::Malformed => Fault::unavailable(detail),
        }
    }

    /// Whether trying again soon would end the same.
    pub fn is_lasting(&self) -> bool {
        match self {
            Self::Role(_) | Self::Tags(_) | Self::Impossible(_) | Self::RegionDisabled => true,
            Self::Broken(_) | Self::Redirect | Self::Malformed => false,
        }
    }
}

impl Step {
    /// Asks for keys of the role.
    pub async fn take(&self) -> Result<Grant, Failure> {
        let Assumption { named, role, session_name, external_id, tags, transitive } = &self.assumption;
        let call = self.client.assume_role().role_arn(role).role_session_name(session_name);
        let tags = tags.iter().map(|(key, value)| Tag::builder().key(key).value(value).build().expect("both are set")).collect();
        let call = call.set_external_id(external_id.clone()).set_tags(some(tags)).set_transitive_tag_keys(some(transitive.clone()));
        let life = i32::try_from(LIFE.as_secs()).unwrap_or(i32::MAX);
        let answer = call.duration_seconds(life).send().await.map_err(|error| refusal(*named, &error))?;
        grant(answer.credentials.as_ref())
    }

    /// The login took too long.
    #[expect(clippy::unused_self, reason = "what a step says, whichever it is")]
    pub fn timed_out(&self) -> Failure {
        Failure::Login(Refusal::Broken(Broken::TimedOut))
    }
}

/// An empty list is not sent.
fn some<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}

fn grant(granted: Option<&Granted>) -> Result<Grant, Failure> {
    let malformed = || Failure::Login(Refusal::Malformed);
    let granted = granted.ok_or_else(malformed)?;
    let parts = [granted.access_key_id(), granted.secret_access_key(), granted.session_token()];
    // They go into headers.
    if parts.iter().any(|part| part.is_empty() || !part.bytes().all(|byte| byte.is_ascii_graphic())) {
        return Err(malformed());
    }
    let [id, key, token] = parts.map(str::to_owned);
    let life = life(granted.expiration(), Timestamp::now()).ok_or(Failure::ClockSkew)?;
    Ok(Grant { keys: Keys::new(id, key, Some(token), None, "sts"), life })
}

/// What is left until then, and never more than was asked for: the clock of this machine may be late.
fn life(until: &DateTime, now: Timestamp) -> Option<Duration> {
    let left = u64::try_from(until.secs().saturating_sub(now.as_second())).ok().filter(|left| *left > 0)?;
    Some(Duration::from_secs(left).min(LIFE))
}

/// What kept a role from being assumed.
fn refusal<E: ProvideErrorMetadata + std::error::Error + 'static>(named: Named, error: &SdkError<E, HttpResponse>) -> Failure {
    let (code, message) = match error {
        SdkError::ServiceError(service) => (service.err().code(), service.err().message().unwrap_or_default()),
        _ => (None, ""),
    };
    let refused = match code.unwrap_or_default() {
        "AccessDenied" | "AccessDeniedException" if message.contains("sts:TagSession") => Refusal::Tags(named),
        "AccessDenied" | "AccessDeniedException" | "NoSuchEntity" => Refusal::Role(named),
        "ValidationError" | "MalformedPolicyDocument" | "PackedPolicyTooLarge" | "InvalidParameterValue" => Refusal::Impossible(named),
        "RegionDisabledException" => Refusal::RegionDisabled,
        _ => match Failure::of(error) {
            Failure::Broken(broken) => Refusal::Broken(broken),
            Failure::Redirect => Refusal::Redirect,
            Failure::Malformed => Refusal::Malformed,
            Failure::Refused => Refusal::Impossible(named),
            other => return other,
        },
    };
    Failure::Login(refused)
}
