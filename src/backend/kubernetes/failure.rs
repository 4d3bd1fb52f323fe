//! Why a call gave nothing that can be used, and the one place that turns this into a fault: class, reason, remedy.
//!
//! Must not be here: any part of an answer's body or of an error text of a library. They may hold values, and they change between attempts.

use std::time::Duration;

use crate::{
    backend::endpoint::Forbidden,
    fault::{Fault, Reason},
};

/// Why a call gave nothing that can be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Failure {
    #[error("the API server does not know the credential: renew it (a ServiceAccount's audience must be that of the server)")]
    Unauthenticated,
    #[error("the API server refused: let the credential's Role get it (list and watch too, for a search)")]
    Denied,
    #[error("the API server asks for fewer requests: raise the refresh interval")]
    Throttled { after: Option<Duration> },
    #[error(
        "the API server answered with a redirect ({0}), which is never followed: name the server itself in provider.kubernetes.server.url"
    )]
    Redirect(u16),
    #[error("the namespace of provider.kubernetes.remoteNamespace does not exist or is going away: correct it, or make the namespace")]
    NoNamespace,
    #[error("it is not there, but nothing shows that its namespace is: let the credential's Role get the namespace, too")]
    NamespaceUnseen,
    #[error("the server refused the request as impossible ({0}): check that provider.kubernetes.server.url is an API server")]
    Refused(u16),
    #[error("the API server failed ({0}): look at its log")]
    Server(u16),
    #[error("the server gave an answer that no API server gives ({0}): check what provider.kubernetes.server.url leads to")]
    Malformed(u16),
    #[error("the answer of the API server is larger than 8 MiB: make it smaller")]
    TooLarge,
    #[error("the list does not come to an end within 100000 names")]
    Endless,
    #[error("the API server has forgotten where the list stood: it is begun anew")]
    Outdated,
    #[error("Kubernetes keeps no older versions of a Secret or ConfigMap: remove version")]
    NoVersions,
    #[error("no answer within the deadline: check that the API server can be reached and is not overloaded")]
    TimedOut,
    #[error("the name of the API server cannot be resolved: check provider.kubernetes.server.url and DNS")]
    NoSuchHost,
    #[error("nobody listens at the address of the API server: check provider.kubernetes.server.url and that it runs")]
    NobodyListens,
    #[error("the certificate of the API server is not trusted: let provider.kubernetes.server.caBundle hold the authority that signed it")]
    UnknownIssuer,
    #[error("the certificate of the API server is for another name: correct provider.kubernetes.server.url or the certificate")]
    WrongName,
    #[error("the certificate of the API server is not valid: renew it")]
    BadCertificate,
    #[error("no TLS connection to the API server comes about: check that it speaks TLS there, and the client certificate")]
    NoTls,
    #[error("the connection to the API server broke before the whole answer was there: check the server and the network")]
    Broken,
    #[error(transparent)]
    Forbidden(Forbidden),
    /// No token of a ServiceAccount: its words are those of who requests it.
    #[error("{}", .0.detail)]
    NoToken(Fault),
}

impl Failure {
    /// The fault of what was wanted, such as `remote key "db"`.
    pub fn fault(self, subject: &str) -> Fault {
        let detail = format!("{subject}: {self}");
        match self {
            Self::Denied | Self::Unauthenticated => Fault::access_denied(detail),
            Self::Throttled { after } => Fault::throttled(after, detail),
            Self::NoVersions => Fault::invalid(Reason::InvalidSpec, detail),
            Self::TooLarge | Self::Endless => Fault::invalid(Reason::TooLarge, detail),
            Self::Forbidden(forbidden) => forbidden.fault(subject),
            Self::NoToken(fault) => Fault { detail, ..fault },
            Self::Redirect(_)
            | Self::NoNamespace
            | Self::NamespaceUnseen
            | Self::Refused(_)
            | Self::Server(_)
            | Self::Malformed(_)
            | Self::Outdated
            | Self::TimedOut
            | Self::NoSuchHost
            | Self::NobodyListens
            | Self::UnknownIssuer
            | Self::WrongName
            | Self::BadCertificate
            | Self::NoTls
            | Self::Broken => Fault::unavailable(detail),
        }
    }
}
