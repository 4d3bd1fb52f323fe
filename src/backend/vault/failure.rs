//! Why a call gave nothing that can be used, and the one place that turns this into a fault: class, reason, remedy.
//!
//! Must not be here: any part of an answer's body or of an error text of a library. They may hold values, and they change between attempts.

use std::time::Duration;

use crate::{
    backend::transport::{Broken, Party},
    fault::{Class, Fault, Reason},
};

/// The server, in the words of messages.
pub(super) const PARTY: Party = Party { name: "the Vault server", block: "provider.vault", field: "server" };

/// Why a call gave nothing that can be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Failure {
    #[error("the Vault server refused the login by provider.vault.auth.{0}: {remedy}", remedy = remedy(.0))]
    LoginRefused(&'static str),
    /// The Kubernetes API gave none; the fault names account and remedy.
    #[error("{detail}", detail = .0.detail)]
    NoAccountToken(Fault),
    #[error("the Vault server refused the token or its policies: renew the token, or allow it to read this key (list, for a search)")]
    Denied,
    #[error("the Vault server is sealed: unseal it")]
    Sealed,
    #[error("the Vault server asks for fewer requests: raise its rate limit or the refresh interval")]
    Throttled { after: Option<Duration> },
    #[error("the Vault server answered with a redirect ({0}), which is never followed: name the server itself in provider.vault.server")]
    Redirect(u16),
    #[error(
        "the engine that the store names is not mounted exactly at provider.vault.path: mount it there, or correct path, engine and version"
    )]
    NoEngine,
    #[error(
        "the server refused the request as impossible ({0}): check that path, engine and version of provider.vault are those of the mount, and whether it still upgrades itself"
    )]
    Refused(u16),
    #[error("the Vault server is a standby that cannot answer yet ({0}): let provider.vault.server name the active node")]
    Standby(u16),
    #[error("the Vault server failed ({0}): look at its log")]
    Server(u16),
    #[error(
        "the Vault server gave an answer that the engine of provider.vault does not give ({0}): check what provider.vault.server leads to"
    )]
    Malformed(u16),
    #[error("the list does not come to an end within 100000 names: name a path")]
    Endless,
    #[error("a version is named, and what is read has none: remove the version")]
    NoVersions,
    #[error("metadataPolicy: Fetch, and only KV version 2 keeps metadata beside its values: remove it")]
    NoMetadata,
    #[error("the version is no number from 1 on, as KV version 2 counts: correct the version")]
    NoVersionNumber,
    #[error("{}", .0.told(&PARTY))]
    Broken(Broken),
}

/// What to check, in the order of likelihood.
fn remedy(method: &str) -> &'static str {
    match method {
        "appRole" => "check path, role id and secret id (it may have been used up, or have expired)",
        "kubernetes" => {
            "check mountPath and role, that the role names the ServiceAccount and has one of its audiences as `audience` (a role without `audience` rejects such tokens), and that the server may review tokens"
        }
        "jwt" => "check path and role, and that the role's bound_audiences and bound claims fit the token",
        "iam" => {
            "check path and vaultRole, that the role binds the identity's ARN, vaultAwsIamServerID, region, and that the key is active at AWS"
        }
        "gcp" => {
            "check path and role, that the role is of type iam and names the service account, that the key still exists, and the operator's clock"
        }
        "cert" => "check path and vaultRole, and that the role trusts the certificate's authority",
        _ => "check path, username and password",
    }
}

impl Failure {
    /// The look as a whole took too long.
    pub const TIMED_OUT: Self = Self::Broken(Broken::TimedOut);

    /// The same about a login: what the server calls impossible or forbidden there, it refuses.
    pub fn of_login(self, method: &'static str) -> Self {
        match self {
            Self::Denied | Self::Refused(400) | Self::NoEngine => Self::LoginRefused(method),
            other => other,
        }
    }

    /// Whether trying again soon would end the same.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Denied | Self::LoginRefused(_))
    }

    /// The fault of what was wanted, such as `remote key "db"`.
    pub fn fault(self, subject: &str) -> Fault {
        let detail = format!("{subject}: {self}");
        match self {
            Self::Denied | Self::LoginRefused(_) => Fault::access_denied(detail),
            Self::NoAccountToken(fault) => Fault { detail, ..fault },
            Self::Broken(broken) => broken.fault(detail),
            Self::Throttled { after } => Fault::throttled(after, detail),
            Self::Sealed => Fault::new(Class::Unavailable, Reason::Sealed, detail),
            Self::NoVersionNumber | Self::NoVersions | Self::NoMetadata => Fault::invalid(Reason::InvalidSpec, detail),
            Self::Endless => Fault::invalid(Reason::TooLarge, detail),
            Self::Redirect(_) | Self::NoEngine | Self::Refused(_) | Self::Standby(_) | Self::Server(_) | Self::Malformed(_) => {
                Fault::unavailable(detail)
            }
        }
    }
}
