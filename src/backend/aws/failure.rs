//! Why a call gave nothing that can be used, and the one place that turns this into a fault: class, reason, remedy.
//!
//! Must not be here: any part of an answer's body or of an error text of a library, other than what is compared with known words.

use std::{error::Error, time::Duration};

use aws_smithy_runtime_api::client::{orchestrator::HttpResponse, result::SdkError};
use aws_smithy_types::error::metadata::ProvideErrorMetadata;

use super::sts::Refusal;
use crate::{
    backend::transport::{Broken, Party, retry_after_text},
    fault::{Fault, Reason},
};

/// The server, in the words of messages.
pub(super) const PARTY: Party = Party { name: "AWS", block: "provider.aws", field: "region (or endpoint)" };

/// Why a call gave nothing that can be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Failure {
    #[error("{}", .0.told(&PARTY))]
    Broken(Broken),
    #[error("{0}")]
    Login(Refusal),
    /// The Kubernetes API gave no token, or the account names no role; the fault names account and remedy.
    #[error("{detail}", detail = .0.detail)]
    Account(Fault),
    #[error("AWS refused it: allow the identity of provider.aws.auth to read this key (AWS answers the same where a key is missing)")]
    Denied,
    /// Of a call for several keys.
    #[error("AWS refused the call for several keys: allow the identity of provider.aws.auth to make it")]
    BatchDenied,
    #[error("AWS does not know the access key, or it was deactivated: correct provider.aws.auth")]
    UnknownKey,
    #[error("AWS found the signature wrong: correct the secret access key in provider.aws.auth")]
    WrongSignature,
    #[error("AWS found the time of the signature wrong: set the clock of the operator's node")]
    ClockSkew,
    #[error("AWS expects another region: correct provider.aws.region")]
    WrongRegion,
    #[error("the session with AWS has expired: renew the credentials of provider.aws.auth")]
    Expired,
    #[error("AWS asks for fewer requests: raise the quota or the refresh interval")]
    Throttled { after: Option<Duration> },
    #[error("KMS refused the key that encrypts the value: allow the identity of provider.aws.auth to decrypt with it")]
    KeyDenied,
    #[error("the KMS key that encrypts the value cannot be used: enable it, or encrypt the value anew")]
    KeyDisabled,
    #[error("AWS refused the request as impossible: correct key and version")]
    Refused,
    #[error("AWS answered with a redirect, which is never followed: correct provider.aws.endpoint")]
    Redirect,
    #[error("AWS failed ({0}): look at its health dashboard")]
    Server(u16),
    #[error("what answered is not AWS, or its answer is not whole: check provider.aws.endpoint")]
    Malformed,
    /// The value is there and marked for deletion.
    #[error("it is scheduled for deletion: restore it, or correct the key")]
    Deleted,
    #[error("it does not exist: create it or correct the key")]
    Missing,
    #[error("AWS refused the list: allow the identity of provider.aws.auth to list, or name keys instead of a search")]
    ListDenied,
    #[error("the list does not come to an end within 100000 names: name a path")]
    Endless,
    #[error("this version of it does not exist: correct the version")]
    NoVersion,
    /// Of a call that does not say which of the two.
    #[cfg_attr(not(feature = "aws-ssm"), expect(dead_code, reason = "only Parameter Store has such calls"))]
    #[error("it does not exist, or this version of it does not: correct key and version")]
    MissingOrVersion,
    #[cfg_attr(not(feature = "aws-ssm"), expect(dead_code, reason = "only Parameter Store has such tags"))]
    #[error("tags are read by name: write the name of the parameter instead of its ARN, in a store of its account and region")]
    TagsByArn,
}

impl Failure {
    /// The look as a whole took too long.
    pub const TIMED_OUT: Self = Self::Broken(Broken::TimedOut);

    /// What a call of the library failed with.
    pub fn of<E: ProvideErrorMetadata + Error + 'static>(error: &SdkError<E, HttpResponse>) -> Self {
        match error {
            SdkError::ServiceError(service) => {
                let (answer, error) = (service.raw(), service.err());
                let after = retry_after_text(answer.headers().get("retry-after"), answer.headers().get("date"));
                Self::answered(answer.status().as_u16(), error.code(), error.message().unwrap_or_default(), after)
            }
            SdkError::ResponseError(answer) if answer.raw().status().is_server_error() => Self::Server(answer.raw().status().as_u16()),
            SdkError::ResponseError(_) => Self::Malformed,
            SdkError::TimeoutError(_) => Self::TIMED_OUT,
            other => causes(other)
                .find_map(|cause| {
                    cause.downcast_ref::<Self>().cloned().or_else(|| cause.downcast_ref::<Broken>().map(|broken| Self::Broken(*broken)))
                })
                .unwrap_or(Self::Refused),
        }
    }

    /// What an error code means; the message is only compared with words of the vendor's.
    pub fn answered(status: u16, code: Option<&str>, message: &str, after: Option<Duration>) -> Self {
        let says = |words: &str| message.contains(words);
        match code.unwrap_or_default() {
            "ThrottlingException"
            | "Throttling"
            | "ThrottledException"
            | "TooManyRequestsException"
            | "RequestLimitExceeded"
            | "RequestThrottled"
            | "TooManyUpdates"
            | "SlowDown"
            | "PriorRequestNotComplete" => Self::Throttled { after },
            _ if status == 429 => Self::Throttled { after },
            "ResourceNotFoundException" if says("secret value") || says("staging label") || says("VersionId") => Self::NoVersion,
            "ResourceNotFoundException" | "ParameterNotFound" => Self::Missing,
            "ParameterVersionNotFound" | "ParameterVersionLabelLimitExceeded" => Self::NoVersion,
            "InvalidRequestException" if says("marked for deletion") || says("scheduled for deletion") => Self::Deleted,
            // The names of actions: the message quotes the name of what was asked for as well.
            "AccessDeniedException" | "AccessDenied" | "UnauthorizedOperation" if says("Access to KMS") || says("kms:Decrypt") => {
                Self::KeyDenied
            }
            "AccessDeniedException" | "AccessDenied" | "UnauthorizedOperation" if says("BatchGetSecretValue") => Self::BatchDenied,
            "AccessDeniedException" | "AccessDenied" | "UnauthorizedOperation" => Self::Denied,
            "DecryptionFailure"
            | "InvalidKeyId"
            | "KMSDisabledException"
            | "KMSInvalidStateException"
            | "KMSNotFoundException"
            | "InvalidCiphertextException" => Self::KeyDisabled,
            "KMSAccessDeniedException" => Self::KeyDenied,
            "ExpiredTokenException" | "ExpiredToken" => Self::Expired,
            "UnrecognizedClientException"
            | "InvalidClientTokenId"
            | "MissingAuthenticationToken"
            | "MissingAuthenticationTokenException"
            | "NotAuthorized"
            | "OptInRequired"
            | "AuthFailure"
            | "InvalidAccessKeyId" => Self::UnknownKey,
            "RequestExpired" | "RequestTimeTooSkewed" => Self::ClockSkew,
            "InvalidSignatureException" | "SignatureDoesNotMatch" | "IncompleteSignature" | "IncompleteSignatureException" => {
                if says("expired") || says("not yet current") {
                    Self::ClockSkew
                } else if says("valid region") {
                    Self::WrongRegion
                } else {
                    Self::WrongSignature
                }
            }
            _ if (300..400).contains(&status) => Self::Redirect,
            _ if status >= 500 => Self::Server(status),
            "InternalServiceError" | "InternalFailure" | "InternalServerError" | "ServiceUnavailable" | "ServiceUnavailableException" => {
                Self::Server(status)
            }
            "" => Self::Malformed,
            _ => Self::Refused,
        }
    }

    /// The same about a list.
    pub fn of_list(self) -> Self {
        match self {
            Self::Denied => Self::ListDenied,
            other => other,
        }
    }

    /// Whether a call was refused for what it asked.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Denied | Self::KeyDenied | Self::Refused)
    }

    /// Whether a login that failed so would fail again soon.
    pub fn is_refused_login(&self) -> bool {
        match self {
            Self::Login(refusal) => refusal.is_lasting(),
            other => matches!(other, Self::Denied | Self::UnknownKey | Self::WrongSignature | Self::ClockSkew | Self::Expired),
        }
    }

    /// The fault of what was wanted, such as `remote key "db"`.
    pub fn fault(self, subject: &str) -> Fault {
        let detail = format!("{subject}: {self}");
        match self {
            Self::Broken(broken) => broken.fault(detail),
            Self::Login(refusal) => refusal.fault(detail),
            Self::Account(fault) => Fault { detail, ..fault },
            Self::Denied
            | Self::BatchDenied
            | Self::ListDenied
            | Self::KeyDenied
            | Self::UnknownKey
            | Self::WrongSignature
            | Self::ClockSkew
            | Self::WrongRegion
            | Self::Expired => Fault::access_denied(detail),
            Self::Throttled { after } => Fault::throttled(after, detail),
            Self::Refused | Self::TagsByArn => Fault::invalid(Reason::InvalidSpec, detail),
            Self::Endless => Fault::invalid(Reason::TooLarge, detail),
            Self::KeyDisabled => Fault::absent(Reason::Disabled, detail),
            Self::Deleted => Fault::absent(Reason::Deleted, detail),
            Self::Missing | Self::NoVersion | Self::MissingOrVersion => Fault::absent(Reason::NotFound, detail),
            Self::Redirect | Self::Server(_) | Self::Malformed => Fault::unavailable(detail),
        }
    }
}

fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |cause: &&'a (dyn Error + 'static)| (*cause).source())
}
