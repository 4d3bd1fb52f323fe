//! One client per store: its authority, its client certificate, and one call at a time as request and whole answer.
//!
//! No redirect is followed (the token would go along), nothing is retried, nothing is unpacked, no answer is read beyond its limit.

use std::{error::Error, io};

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Uri, header::CONTENT_TYPE};
use reqwest::{Certificate, Client, ClientBuilder, Identity, redirect::Policy};
use rustify::endpoint::Endpoint;
use url::Url;
use vaultrs::api::EndpointMiddleware;
use zeroize::Zeroizing;

use super::{answer::Answer, failure::Failure};
use crate::{
    access::Role,
    backend::{
        Credentials, Settings,
        endpoint::{self, Forbidden},
        transport::retry_after,
    },
    crd::v1alpha1::VaultProvider,
    fault::{Class, Fault, Reason},
    name::{ProviderKind, RemoteKey, StoreName},
};

/// An answer beyond this is not read: eight times what fits into a Secret.
pub(super) const MAX_BODY: usize = 8 << 20;
const TOKEN_HEADER: HeaderName = HeaderName::from_static("x-vault-token");
const NAMESPACE_HEADER: HeaderName = HeaderName::from_static("x-vault-namespace");

/// The way to one server and namespace.
pub(super) struct Connection {
    client: Client,
    server: String,
    namespace: Option<HeaderValue>,
    prefix: EndpointMiddleware,
}

// By hand, because the prefix has a member for a token, even if it is empty here.
impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("server", &self.server).field("namespace", &self.namespace).finish_non_exhaustive()
    }
}

impl Connection {
    /// Builds the client; nothing is sent.
    pub fn open(store: &StoreName, spec: &VaultProvider, credentials: &Credentials, settings: &Settings) -> Result<Self, Fault> {
        let server = server(&spec.server)?;
        let guarded = |builder| {
            let builder = settings.proxies.tell(builder);
            endpoint::guarded(builder, store, &server, &settings.endpoints).map_err(|forbidden| forbidden.fault("provider.vault.server"))
        };
        let client = client(&server, spec, credentials, guarded)?;
        let namespace = spec.namespace.as_deref().map(namespace).transpose()?;
        // The token goes into a header of ours that is marked sensitive: that of vaultrs is not, and a log could show it.
        let prefix = EndpointMiddleware { token: String::new(), version: "v1".to_owned(), wrap: None, namespace: None };
        Ok(Self { client, server: server.into(), namespace, prefix })
    }

    /// Sends a request and reads the whole answer, whatever its status. The caller keeps the deadline: it is that of a look, which
    /// may be several calls.
    pub async fn call(&self, token: Option<&HeaderValue>, endpoint: impl Endpoint) -> Result<Answer, Failure> {
        // The request is built from a server and a key that were checked: this fails for no input.
        let request = endpoint.with_middleware(&self.prefix).request(&self.server).map_err(|_| Failure::Refused(400))?;
        let mut request = reqwest::Request::try_from(request).map_err(|_| Failure::Refused(400))?;
        if request.url().query() == Some("") {
            request.url_mut().set_query(None);
        }
        if request.method() == Method::PATCH {
            request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/merge-patch+json"));
        }
        request.headers_mut().extend(token.map(|token| (TOKEN_HEADER, token.clone())));
        request.headers_mut().extend(self.namespace.as_ref().map(|namespace| (NAMESPACE_HEADER, namespace.clone())));
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

fn namespace(text: &str) -> Result<HeaderValue, Fault> {
    let path = RemoteKey::parse(ProviderKind::Vault, text).ok().filter(|path| path.as_str().is_ascii());
    let header = path.and_then(|path| HeaderValue::from_str(path.as_str()).ok());
    header.ok_or_else(|| invalid("provider.vault.namespace is no path such as team/a: correct it"))
}

/// `guarded` lets it connect only where the store may lead, and by which proxy.
fn client(
    server: &Url,
    spec: &VaultProvider,
    credentials: &Credentials,
    guarded: impl FnOnce(ClientBuilder) -> Result<ClientBuilder, Fault>,
) -> Result<Client, Fault> {
    let authority = credentials.secrets.get(&Role::Authority);
    let bundle = match (&spec.ca_bundle, authority) {
        (Some(bundle), _) => Some(certificates(&BASE64_STANDARD.decode(unfolded(bundle)).map_err(|_| no_certificates(spec))?, spec)?),
        (None, Some(pem)) => Some(certificates(pem.expose(), spec)?),
        (None, None) => None,
    };
    let is_tls = server.scheme() == "https";
    if bundle.is_some() && !is_tls {
        return Err(invalid(&format!(
            "{} is of no use to an http server: use https in provider.vault.server or remove it",
            authority_field(spec)
        )));
    }
    let has_bundle = bundle.is_some();
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
    let builder = guarded(builder)?;
    let builder = match identity(spec, credentials, is_tls)? {
        Some(identity) => builder.identity(identity),
        None => builder,
    };
    builder.build().map_err(|_| {
        if has_bundle {
            no_certificates(spec)
        } else {
            invalid("the operator's image has no certificate authorities: set provider.vault.caBundle")
        }
    })
}

/// The client's certificate and its key.
fn identity(spec: &VaultProvider, credentials: &Credentials, is_tls: bool) -> Result<Option<Identity>, Fault> {
    // Without TLS there is nobody to show it to; the server refuses the login.
    if spec.auth.cert.is_none() || !is_tls {
        return Ok(None);
    }
    let fault = |detail: &str| Fault::new(Class::Unavailable, Reason::StoreNotReady, format!("provider.vault.auth.cert: {detail}"));
    let [Some(certificate), Some(key)] = [Role::ClientCertificate, Role::ClientKey].map(|role| credentials.secrets.get(&role)) else {
        return Err(fault("a Secret or its key is missing: put the certificate and its key there"));
    };
    let pem = Zeroizing::new([certificate.expose(), b"\n", key.expose()].concat());
    let unusable = || fault("what stands in the Secrets is no certificate with its key: put both there as PEM");
    Identity::from_pem(&pem).map(Some).map_err(|_| unusable())
}

/// Base64 as tools fold it.
fn unfolded(text: &str) -> String {
    text.split_ascii_whitespace().collect()
}

fn certificates(pem: &[u8], spec: &VaultProvider) -> Result<Vec<Certificate>, Fault> {
    let certificates = Certificate::from_pem_bundle(pem).map_err(|_| no_certificates(spec))?;
    if certificates.is_empty() { Err(no_certificates(spec)) } else { Ok(certificates) }
}

fn authority_field(spec: &VaultProvider) -> &'static str {
    if spec.ca_bundle.is_some() { "provider.vault.caBundle" } else { "provider.vault.caProvider" }
}

fn no_certificates(spec: &VaultProvider) -> Fault {
    let field = authority_field(spec);
    let remedy = if spec.ca_bundle.is_some() { "base64-encode" } else { "put there" };
    invalid(&format!("{field} holds no certificates that can be read: {remedy} the PEM file of the authority"))
}

/// What kept an answer from coming. The library's own texts hold addresses and times, so only their kind is looked at.
fn why(error: &reqwest::Error) -> Failure {
    if error.is_timeout() {
        return Failure::TimedOut;
    }
    let causes = std::iter::successors(error.source(), |cause: &&(dyn Error + 'static)| (*cause).source());
    let known = causes.filter_map(|cause| cause.downcast_ref::<io::Error>()).find_map(known_cause);
    known.unwrap_or(if error.is_dns() { Failure::NoSuchHost } else { Failure::Broken })
}

fn known_cause(error: &io::Error) -> Option<Failure> {
    use rustls::CertificateError as Bad;
    if error.kind() == io::ErrorKind::ConnectionRefused {
        return Some(Failure::NobodyListens);
    }
    // What an io::Error wraps is not its source: its source is that one's source.
    let inner = error.get_ref()?;
    if let Some(forbidden) = inner.downcast_ref::<Forbidden>() {
        return Some(Failure::Forbidden(*forbidden));
    }
    match inner.downcast_ref::<rustls::Error>()? {
        rustls::Error::InvalidCertificate(Bad::UnknownIssuer) => Some(Failure::UnknownIssuer),
        rustls::Error::InvalidCertificate(Bad::NotValidForName | Bad::NotValidForNameContext { .. }) => Some(Failure::WrongName),
        rustls::Error::InvalidCertificate(_) => Some(Failure::BadCertificate),
        _ => Some(Failure::NoTls),
    }
}
