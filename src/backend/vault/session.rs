//! One client per store: its authority, its token, and one call at a time as request and whole answer.
//!
//! No redirect is followed (the token would go along), nothing is retried, nothing is unpacked, no answer is read beyond its limit.

use std::{error::Error, io, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Uri, header::RETRY_AFTER};
use reqwest::{Certificate, Client, redirect::Policy};
use rustify::{
    endpoint::Endpoint,
    enums::{RequestMethod, RequestType, ResponseType},
};
use url::Url;
use vaultrs::api::EndpointMiddleware;
use zeroize::Zeroizing;

use super::{answer::Answer, failure::Failure};
use crate::{
    crd::v1alpha1::VaultProvider,
    fault::{Class, Fault, Reason},
    secret::SecretValue,
};

/// An answer beyond this is not read: eight times what fits into a Secret.
pub(super) const MAX_BODY: usize = 8 << 20;
const TOKEN_HEADER: HeaderName = HeaderName::from_static("x-vault-token");

/// A logged-in client.
pub(super) struct Session {
    client: Client,
    server: String,
    token: HeaderValue,
    prefix: EndpointMiddleware,
}

// By hand, because the prefix has a member for a token, even if it is empty here.
impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("server", &self.server).field("token", &self.token).finish_non_exhaustive()
    }
}

/// What is mounted at a path; answered to every token that may look at anything below it, whatever its policies say of this path.
#[derive(Debug)]
pub(super) struct MountRequest {
    pub mount: String,
}

impl Endpoint for MountRequest {
    type Response = ();
    const REQUEST_BODY_TYPE: RequestType = RequestType::JSON;
    const RESPONSE_BODY_TYPE: ResponseType = ResponseType::JSON;

    fn path(&self) -> String {
        format!("sys/internal/ui/mounts/{}", self.mount)
    }

    fn method(&self) -> RequestMethod {
        RequestMethod::GET
    }
}

impl Session {
    /// Builds the client; nothing is sent.
    pub fn open(spec: &VaultProvider, token: Option<SecretValue>) -> Result<Self, Fault> {
        let server = server(&spec.server)?;
        let client = client(&server, spec.ca_bundle.as_deref())?;
        let token = token_header(token)?;
        // The token goes into a header of ours that is marked sensitive: that of vaultrs is not, and a log could show it.
        let prefix = EndpointMiddleware { token: String::new(), version: "v1".to_owned(), wrap: None, namespace: None };
        Ok(Self { client, server: server.into(), token, prefix })
    }

    /// Sends a request and reads the whole answer, whatever its status. The caller keeps the deadline: it is that of a look, which
    /// may be several calls.
    pub async fn call(&self, endpoint: impl Endpoint) -> Result<Answer, Failure> {
        // The request is built from a server and a key that were checked: this fails for no input.
        let request = endpoint.with_middleware(&self.prefix).request(&self.server).map_err(|_| Failure::Refused(400))?;
        let mut request = reqwest::Request::try_from(request).map_err(|_| Failure::Refused(400))?;
        if request.url().query() == Some("") {
            request.url_mut().set_query(None);
        }
        request.headers_mut().insert(TOKEN_HEADER, self.token.clone());
        let mut response = self.client.execute(request).await.map_err(|error| why(&error))?;
        let (status, retry_after) = (response.status().as_u16(), retry_after(response.headers()));
        let (mut chunks, mut length) = (Vec::new(), 0);
        while let Some(chunk) = response.chunk().await.map_err(|error| why(&error))? {
            length += chunk.len();
            if length > MAX_BODY {
                return Err(Failure::TooLarge);
            }
            chunks.push(chunk);
        }
        Ok(Answer { status, retry_after, body: joined(&chunks, length) })
    }
}

/// One allocation of the right size: a buffer that grows leaves copies of values behind.
fn joined(chunks: &[Bytes], length: usize) -> Zeroizing<Vec<u8>> {
    let mut body = Zeroizing::new(Vec::with_capacity(length));
    for chunk in chunks {
        body.extend_from_slice(chunk);
    }
    body
}

/// Seconds only, as Vault's rate limits send them: a date would need a clock.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok().map(Duration::from_secs)
}

fn invalid(detail: &str) -> Fault {
    Fault::invalid(Reason::InvalidSpec, detail)
}

fn server(text: &str) -> Result<Url, Fault> {
    let fault = || invalid("provider.vault.server is no address such as https://vault.example.com:8200: correct it");
    let url = Url::parse(text).map_err(|_| fault())?;
    let is_bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
    let is_anonymous = url.username().is_empty() && url.password().is_none();
    // Some hosts that the one parser takes are refused by the other, which vaultrs unwraps.
    let is_sendable = url.as_str().parse::<Uri>().is_ok() && url.has_host();
    let is_http = matches!(url.scheme(), "http" | "https");
    if is_bare && is_anonymous && is_sendable && is_http { Ok(url) } else { Err(fault()) }
}

fn client(server: &Url, ca_bundle: Option<&str>) -> Result<Client, Fault> {
    let bundle = ca_bundle.map(certificates).transpose()?;
    let is_tls = server.scheme() == "https";
    if bundle.is_some() && !is_tls {
        return Err(invalid("provider.vault.caBundle is of no use to an http server: use https in provider.vault.server or remove it"));
    }
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that builds a client for Vault: without redirects; each look has a deadline"
    )]
    let builder = Client::builder()
        .user_agent(concat!("keyferry/", env!("CARGO_PKG_VERSION")))
        .redirect(Policy::none())
        .retry(reqwest::retry::never())
        .no_gzip()
        // A connection of HTTP/2 that died silently would take all calls along until somebody notices; of HTTP/1 each its own.
        .http1_only();
    let builder = match bundle {
        Some(certificates) => builder.tls_certs_only(certificates),
        // Without TLS no authority is looked for: a machine may have none.
        None if !is_tls => builder.tls_certs_only([]),
        None => builder,
    };
    builder.build().map_err(|_| match ca_bundle {
        Some(_) => no_certificates(),
        None => invalid("the operator's image has no certificate authorities: set provider.vault.caBundle"),
    })
}

fn certificates(ca_bundle: &str) -> Result<Vec<Certificate>, Fault> {
    let base64: String = ca_bundle.split_ascii_whitespace().collect();
    let pem = BASE64_STANDARD.decode(base64).map_err(|_| no_certificates())?;
    let certificates = Certificate::from_pem_bundle(&pem).map_err(|_| no_certificates())?;
    if certificates.is_empty() { Err(no_certificates()) } else { Ok(certificates) }
}

fn no_certificates() -> Fault {
    invalid("provider.vault.caBundle holds no certificates that can be read: base64-encode the PEM file of the authority")
}

/// A token as people put it into a Secret: often with a line break at its end.
fn token_header(token: Option<SecretValue>) -> Result<HeaderValue, Fault> {
    let missing = || not_ready("the Secret or its key is missing or empty: put the token there");
    let token = token.ok_or_else(missing)?;
    let bytes = trim(token.expose());
    if bytes.is_empty() {
        return Err(missing());
    }
    if !bytes.iter().all(u8::is_ascii_graphic) {
        return Err(not_ready("what stands there is no token, it has spaces, line breaks or other characters inside: put the token there"));
    }
    let mut header = HeaderValue::from_bytes(bytes).map_err(|_| not_ready("what stands there is no token: put the token there"))?;
    header.set_sensitive(true);
    Ok(header)
}

fn trim(mut bytes: &[u8]) -> &[u8] {
    let is_around = |byte: &u8| byte.is_ascii_whitespace() || byte.is_ascii_control();
    while let [first, rest @ ..] = bytes
        && is_around(first)
    {
        bytes = rest;
    }
    while let [rest @ .., last] = bytes
        && is_around(last)
    {
        bytes = rest;
    }
    bytes
}

fn not_ready(detail: &str) -> Fault {
    Fault::new(Class::Unavailable, Reason::StoreNotReady, format!("provider.vault.auth.tokenSecretRef: {detail}"))
}

/// What kept an answer from coming. The library's own texts hold addresses and times, so only their kind is looked at.
fn why(error: &reqwest::Error) -> Failure {
    if error.is_timeout() {
        return Failure::TimedOut;
    }
    if error.is_dns() {
        return Failure::NoSuchHost;
    }
    let causes = std::iter::successors(error.source(), |cause: &&(dyn Error + 'static)| (*cause).source());
    let known = causes.filter_map(|cause| cause.downcast_ref::<io::Error>()).find_map(known_cause);
    known.unwrap_or(Failure::Broken)
}

fn known_cause(error: &io::Error) -> Option<Failure> {
    use rustls::CertificateError as Bad;
    if error.kind() == io::ErrorKind::ConnectionRefused {
        return Some(Failure::NobodyListens);
    }
    // What an io::Error wraps is not its source: its source is that one's source.
    match error.get_ref()?.downcast_ref::<rustls::Error>()? {
        rustls::Error::InvalidCertificate(Bad::UnknownIssuer) => Some(Failure::UnknownIssuer),
        rustls::Error::InvalidCertificate(Bad::NotValidForName | Bad::NotValidForNameContext { .. }) => Some(Failure::WrongName),
        rustls::Error::InvalidCertificate(_) => Some(Failure::BadCertificate),
        _ => Some(Failure::NoTls),
    }
}
