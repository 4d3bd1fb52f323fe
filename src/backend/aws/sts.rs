//! What is asked of the Security Token Service, one role at a time, and what its refusals mean.
//!
//! Must not be here: when it is asked (`session`), and any part of an answer in a message.

use std::{fmt, sync::Arc, time::Duration};

use aws_credential_types::Credentials as Keys;
use aws_sdk_sts::{
    Client,
    config::http::HttpResponse,
    error::{ProvideErrorMetadata, SdkError},
    types::{Credentials as Granted, Tag},
};
use aws_smithy_types::DateTime;
use jiff::Timestamp;

use super::{
    failure::{Failure, PARTY},
    login::ascii,
};
use crate::{
    backend::{
        TokenSource,
        transport::{Broken, Party},
    },
    fault::{Class, Fault, Reason},
};

/// The server, in the words of messages.
pub(super) const STS: Party = Party { name: "AWS STS", field: "region (or stsEndpoint)", ..PARTY };

/// What a session is asked to live for: the longest that a chain of roles gets.
const LIFE: Duration = Duration::from_hours(1);

/// What names the role of a ServiceAccount, as EKS has it.
const ROLE_ANNOTATION: &str = "eks.amazonaws.com/role-arn";

/// Which field of the spec names a role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Named {
    Role,
    Additional(usize),
    /// By an annotation of the ServiceAccount.
    Annotation,
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Role => f.write_str("provider.aws.role"),
            Self::Additional(at) => write!(f, "provider.aws.additionalRoles[{at}]"),
            Self::Annotation => write!(f, "the ServiceAccount's annotation {ROLE_ANNOTATION}"),
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

/// A ServiceAccount that logs in.
#[derive(Clone, Debug)]
pub(super) struct Account {
    pub namespace: String,
    pub name: String,
    pub session_name: String,
    pub tokens: Arc<dyn TokenSource>,
}

/// One login: how keys of a role are come by.
#[derive(Debug)]
pub(super) enum Step {
    /// From the identity that the client signs with.
    Assume { client: Client, assumption: Assumption },
    /// By the token of a ServiceAccount; the client signs nothing.
    WebIdentity { client: Client, account: Account },
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
        "AWS refused the ServiceAccount the role of its annotation eks.amazonaws.com/role-arn: check that the role exists and its trust policy allows sts:AssumeRoleWithWebIdentity to the cluster's OIDC provider, for this account (`sub`) and this audience (`aud`)"
    )]
    Account,
    #[error(
        "AWS does not take the ServiceAccount's token: check that IAM has an OIDC provider for the cluster's issuer with the audience of serviceAccountRef.audiences, and that AWS can read the issuer's keys"
    )]
    Token,
    #[error("AWS found the ServiceAccount's token expired: set the clocks of the cluster's nodes")]
    TokenExpired,
    #[error("AWS cannot reach the issuer of the ServiceAccount's token: check that the cluster's OIDC discovery is public and answers")]
    Issuer,
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
            Self::Role(_) | Self::Tags(_) | Self::RegionDisabled | Self::Account | Self::Token | Self::TokenExpired => {
                Fault::access_denied(detail)
            }
            Self::Impossible(_) => Fault::invalid(Reason::InvalidSpec, detail),
            Self::Broken(broken) => broken.fault(detail),
            Self::Redirect | Self::Malformed | Self::Issuer => Fault::unavailable(detail),
        }
    }

    /// Whether trying again soon would end the same.
    pub fn is_lasting(&self) -> bool {
        match self {
            Self::Role(_)
            | Self::Tags(_)
            | Self::Impossible(_)
            | Self::RegionDisabled
            | Self::Account
            | Self::Token
            | Self::TokenExpired => true,
            Self::Broken(_) | Self::Redirect | Self::Malformed | Self::Issuer => false,
        }
    }
}

impl Step {
    /// Asks for keys of the role.
    pub async fn take(&self) -> Result<Grant, Failure> {
        match self {
            Self::Assume { client, assumption } => assume(client, assumption).await,
            Self::WebIdentity { client, account } => account.log_in(client).await,
        }
    }

    /// What CloudTrail calls the session.
    pub fn session_name(&self) -> &str {
        match self {
            Self::Assume { assumption, .. } => &assumption.session_name,
            Self::WebIdentity { account, .. } => &account.session_name,
        }
    }
}

async fn assume(client: &Client, assumption: &Assumption) -> Result<Grant, Failure> {
    let Assumption { named, role, session_name, external_id, tags, transitive } = assumption;
    let call = client.assume_role().role_arn(role).role_session_name(session_name).duration_seconds(seconds(LIFE));
    let tags = tags.iter().map(|(key, value)| Tag::builder().key(key).value(value).build().expect("both are set")).collect();
    let call = call.set_external_id(external_id.clone()).set_tags(some(tags)).set_transitive_tag_keys(some(transitive.clone()));
    let answer = call.send().await.map_err(|error| refusal(*named, &error))?;
    grant(answer.credentials.as_ref())
}

impl Account {
    /// With a token of now, for the role that the account names now.
    async fn log_in(&self, client: &Client) -> Result<Grant, Failure> {
        let role = self.tokens.annotation(ROLE_ANNOTATION).await.map_err(Failure::Account)?;
        let role = role.filter(|role| role.starts_with("arn:")).ok_or_else(|| Failure::Account(self.no_role()))?;
        let token = self.tokens.token().await.map_err(Failure::Account)?;
        let call = client.assume_role_with_web_identity().role_arn(role).role_session_name(&self.session_name);
        match call.duration_seconds(seconds(LIFE)).web_identity_token(ascii(&token)).send().await {
            Ok(answer) => grant(answer.credentials.as_ref()),
            Err(error) => {
                self.tokens.forget().await;
                Err(refusal(Named::Annotation, &error))
            }
        }
    }

    fn no_role(&self) -> Fault {
        let Self { namespace, name, .. } = self;
        let detail = format!("ServiceAccount {namespace}/{name} names no role: annotate it with {ROLE_ANNOTATION}");
        Fault::new(Class::Unavailable, Reason::StoreNotReady, detail)
    }
}

fn seconds(time: Duration) -> i32 {
    i32::try_from(time.as_secs()).unwrap_or(i32::MAX)
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
        "AccessDenied" | "AccessDeniedException" | "NoSuchEntity" if named == Named::Annotation => Refusal::Account,
        "AccessDenied" | "AccessDeniedException" | "NoSuchEntity" => Refusal::Role(named),
        "InvalidIdentityToken" | "IDPRejectedClaim" => Refusal::Token,
        "ExpiredTokenException" | "ExpiredToken" if named == Named::Annotation => Refusal::TokenExpired,
        "IDPCommunicationError" => Refusal::Issuer,
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
