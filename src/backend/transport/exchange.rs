//! One request and its whole answer under a cap, and what kept an answer from coming. Nothing is retried, unpacked or followed.

use std::{error::Error, io};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use zeroize::Zeroizing;

use crate::{
    backend::endpoint::Forbidden,
    fault::{Fault, Reason},
};

/// An answer beyond this is not read: eight times what fits into a Secret.
pub const MAX_BODY: usize = 8 << 20;

/// An answer, whatever its status. Its body is overwritten when it is dropped.
#[derive(Debug)]
pub struct Exchanged {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Zeroizing<Vec<u8>>,
}

/// A server, in the words of messages.
#[derive(Clone, Copy, Debug)]
pub struct Party {
    /// Such as `the Vault server`.
    pub name: &'static str,
    /// The provider's block, such as `provider.vault`.
    pub block: &'static str,
    /// The field of it that says where the server is, such as `server`.
    pub field: &'static str,
}

/// What kept an answer from coming. [`Broken::told`] has the words for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{self:?}")]
pub enum Broken {
    TimedOut,
    NoSuchHost,
    Forbidden(Forbidden),
    NobodyListens,
    UnknownIssuer,
    WrongName,
    BadCertificate,
    NoTls,
    Lost,
    TooLarge,
}

impl Broken {
    /// What happened and what to do about it.
    #[must_use]
    pub fn told(self, Party { name, block, field }: &Party) -> String {
        match self {
            Self::TimedOut => format!("no answer within the deadline: check that {name} can be reached and is not overloaded"),
            Self::NoSuchHost => format!("the name of {name} cannot be resolved: check {block}.{field} and DNS"),
            Self::Forbidden(forbidden) => {
                format!("{forbidden}: name another server, or ask the admin to list its host and port in tenantEndpoints")
            }
            Self::NobodyListens => format!("nobody listens at the address of {name}: check {block}.{field} and that it runs"),
            Self::UnknownIssuer => {
                format!("the certificate of {name} is not trusted: let {block}.caBundle hold the authority that signed it")
            }
            Self::WrongName => format!("the certificate of {name} is for another name: correct {block}.{field} or the certificate"),
            Self::BadCertificate => format!("the certificate of {name} is not valid: renew it"),
            Self::NoTls => format!("no TLS connection to {name} comes about: check that {block}.{field} speaks TLS there"),
            Self::Lost => format!("the connection to {name} broke before the whole answer was there: check the server and the network"),
            Self::TooLarge => format!("the answer of {name} is larger than 8 MiB: split the value"),
        }
    }

    /// As a fault; `detail` is what was wanted and what happened.
    #[must_use]
    pub fn fault(self, detail: String) -> Fault {
        match self {
            Self::Forbidden(_) => Fault::not_allowed(detail),
            Self::TooLarge => Fault::invalid(Reason::TooLarge, detail),
            Self::TimedOut
            | Self::NoSuchHost
            | Self::NobodyListens
            | Self::UnknownIssuer
            | Self::WrongName
            | Self::BadCertificate
            | Self::NoTls
            | Self::Lost => Fault::unavailable(detail),
        }
    }
}

/// Sends a request and reads the whole answer. The caller keeps the deadline: it is that of a look, which may be several calls.
///
/// # Errors
/// What kept the answer from being complete.
pub async fn exchange(client: &reqwest::Client, request: reqwest::Request) -> Result<Exchanged, Broken> {
    let mut response = client.execute(request).await.map_err(|error| why(&error))?;
    let (mut chunks, mut length) = (Vec::new(), 0);
    while let Some(chunk) = response.chunk().await.map_err(|error| why(&error))? {
        length += chunk.len();
        if length > MAX_BODY {
            return Err(Broken::TooLarge);
        }
        chunks.push(chunk);
    }
    let (status, headers) = (response.status(), std::mem::take(response.headers_mut()));
    Ok(Exchanged { status, headers, body: joined(&chunks, length) })
}

/// One allocation of the right size: a buffer that grows leaves copies of values behind.
fn joined(chunks: &[Bytes], length: usize) -> Zeroizing<Vec<u8>> {
    let mut body = Zeroizing::new(Vec::with_capacity(length));
    for chunk in chunks {
        body.extend_from_slice(chunk);
    }
    body
}

/// The library's own texts hold addresses and times, so only their kind is looked at.
fn why(error: &reqwest::Error) -> Broken {
    if error.is_timeout() {
        return Broken::TimedOut;
    }
    let causes = std::iter::successors(error.source(), |cause: &&(dyn Error + 'static)| (*cause).source());
    let known = causes.filter_map(|cause| cause.downcast_ref::<io::Error>()).find_map(known_cause);
    known.unwrap_or(if error.is_dns() { Broken::NoSuchHost } else { Broken::Lost })
}

fn known_cause(error: &io::Error) -> Option<Broken> {
    use rustls::CertificateError as Bad;
    if error.kind() == io::ErrorKind::ConnectionRefused {
        return Some(Broken::NobodyListens);
    }
    // What an io::Error wraps is not its source: its source is that one's source.
    let inner = error.get_ref()?;
    if let Some(forbidden) = inner.downcast_ref::<Forbidden>() {
        return Some(Broken::Forbidden(*forbidden));
    }
    match inner.downcast_ref::<rustls::Error>()? {
        rustls::Error::InvalidCertificate(Bad::UnknownIssuer) => Some(Broken::UnknownIssuer),
        rustls::Error::InvalidCertificate(Bad::NotValidForName | Bad::NotValidForNameContext { .. }) => Some(Broken::WrongName),
        rustls::Error::InvalidCertificate(_) => Some(Broken::BadCertificate),
        _ => Some(Broken::NoTls),
    }
}
