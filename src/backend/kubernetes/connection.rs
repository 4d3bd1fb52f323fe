//! One client per store: where its API server is, whom it trusts, who it says it is, and one call at a time as request and answer.
//!
//! No redirect is followed (the token would go along), nothing is unpacked, no answer is read beyond its limit. One thing is repeated:
//! a call whose token of a ServiceAccount is refused gets a new one, once.

use std::{error::Error, io, sync::Arc};

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{
    HeaderValue, Method,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE},
};
use reqwest::{Certificate, Client, ClientBuilder, Identity, redirect::Policy};
use tokio::time::{Instant, timeout_at};
use url::Url;
use zeroize::Zeroizing;

use super::{
    answer::{Answer, refusal_of_list},
    failure::Failure,
    kubeconfig,
};
use crate::{
    access::Role,
    backend::{
        Credentials, Settings, TokenSource,
        endpoint::{self, Forbidden},
        transport::{Proxies, retry_after},
    },
    crd::v1alpha1::KubernetesProvider,
    fault::{Class, Fault, Reason},
    name::StoreName,
    secret::SecretValue,
};

/// An answer beyond this is not read: etcd takes 1.5 MiB, which base64 and a page of metadata make more of.
pub(super) const MAX_BODY: usize = 8 << 20;
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const METADATA: HeaderValue = HeaderValue::from_static("application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1");
const METADATA_LIST: HeaderValue = HeaderValue::from_static("application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1");

/// What of an object is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum View {
    Whole,
    Metadata,
    MetadataList,
}

/// The way to one API server under one identity.
pub(super) struct Connection {
    client: Client,
    server: Url,
    bearer: Bearer,
}

enum Bearer {
    /// The client certificate says who it is.
    None,
    Fixed(HeaderValue),
    Account(Arc<dyn TokenSource>),
}

/// Where the server is and how it is reached.
struct Way {
    server: Url,
    is_this_cluster: bool,
    authorities: Option<Vec<Certificate>>,
    identity: Option<Identity>,
    bearer: Bearer,
}

impl Connection {
    /// Builds the client; nothing is sent.
    pub fn open(store: &StoreName, spec: &KubernetesProvider, credentials: &Credentials, settings: &Settings) -> Result<Self, Fault> {
        let way = match credentials.secrets.get(&Role::Kubeconfig) {
            Some(text) => of_kubeconfig(text)?,
            None => of_spec(spec, credentials, settings)?,
        };
        // The API server of this cluster is always reached directly, as the operator itself does.
        // It is the only one that a tenant's store may reach at such an address, because no tenant has named it.
        let guarded = |builder| {
            if way.is_this_cluster {
                return Ok(Proxies::default().tell(builder));
            }
            let builder = settings.proxies.tell(builder);
            let guarded = endpoint::guarded(builder, store, &way.server, &settings.endpoints);
            guarded.map_err(|forbidden| forbidden.fault("provider.kubernetes"))
        };
        let client = client(way.server.scheme() == "https", way.authorities, way.identity, guarded)?;
        Ok(Self { client, server: way.server, bearer: way.bearer })
    }

    /// Gets a path (with its query), whatever the status. The caller keeps the deadline.
    pub async fn get(&self, path: &str, view: View) -> Result<Answer, Failure> {
        self.whole(self.send(Method::GET, path, view, None).await?).await
    }

    /// Creates something that is answered and not kept: a review.
    pub async fn post(&self, path: &str, body: &'static str) -> Result<Answer, Failure> {
        self.whole(self.send(Method::POST, path, View::Whole, Some(body)).await?).await
    }

    /// Begins a watch: its lines, up to `until`.
    pub async fn watch(&self, path: &str, until: Instant) -> Result<Lines, Failure> {
        let response = timed(until, self.send(Method::GET, path, View::Metadata, None)).await?;
        if response.status().as_u16() != 200 {
            return Err(refusal_of_list(&timed(until, self.whole(response)).await?));
        }
        Ok(Lines { response, buffer: Zeroizing::default(), until })
    }

    async fn send(&self, method: Method, path: &str, view: View, body: Option<&'static str>) -> Result<reqwest::Response, Failure> {
        let response = self.send_once(method.clone(), path, view, body).await?;
        match &self.bearer {
            Bearer::Account(tokens) if response.status().as_u16() == 401 => {
                tokens.forget().await;
                self.send_once(method, path, view, body).await
            }
            _ => Ok(response),
        }
    }

    async fn send_once(&self, method: Method, path: &str, view: View, body: Option<&'static str>) -> Result<reqwest::Response, Failure> {
        // Behind some gateways the API begins below a path.
        let url = Url::parse(&format!("{}{path}", self.server.as_str().trim_end_matches('/'))).map_err(|_| Failure::Refused(400))?;
        let mut request = reqwest::Request::new(method, url);
        let accept = match view {
            View::Whole => JSON,
            View::Metadata => METADATA,
            View::MetadataList => METADATA_LIST,
        };
        request.headers_mut().insert(ACCEPT, accept);
        if let Some(body) = body {
            request.headers_mut().insert(CONTENT_TYPE, JSON);
            *request.body_mut() = Some(body.into());
        }
        if let Some(token) = self.bearer.header().await? {
            request.headers_mut().insert(AUTHORIZATION, token);
        }
        self.client.execute(request).await.map_err(|error| why(&error))
    }

    async fn whole(&self, mut response: reqwest::Response) -> Result<Answer, Failure> {
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

impl Bearer {
    async fn header(&self) -> Result<Option<HeaderValue>, Failure> {
        match self {
            Self::None => Ok(None),
            Self::Fixed(header) => Ok(Some(header.clone())),
            Self::Account(tokens) => {
                let token = tokens.token().await.map_err(Failure::NoToken)?;
                bearer(&token, "the token of the ServiceAccount").map(Some).map_err(Failure::NoToken)
            }
        }
    }
}

/// The lines of a watch.
pub(super) struct Lines {
    response: reqwest::Response,
    buffer: Zeroizing<Vec<u8>>,
    until: Instant,
}

impl Lines {
    /// The next line without its end; none when the server has ended the watch.
    ///
    /// # Errors
    /// `TimedOut` when the server should have ended it long ago: what it says cannot be current.
    pub async fn next(&mut self) -> Result<Option<Zeroizing<Vec<u8>>>, Failure> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let rest = Zeroizing::new(self.buffer[end + 1..].to_vec());
                let mut line = std::mem::replace(&mut self.buffer, rest);
                line.truncate(end);
                return Ok(Some(line));
            }
            let chunk = timed(self.until, async { self.response.chunk().await.map_err(|error| why(&error)) }).await?;
            match chunk {
                Some(chunk) if self.buffer.len() + chunk.len() > MAX_BODY => return Err(Failure::TooLarge),
                Some(chunk) => self.buffer.extend_from_slice(&chunk),
                None if self.buffer.is_empty() => return Ok(None),
                None => return Err(Failure::Broken),
            }
        }
    }
}

/// What has to be there by then.
pub(super) async fn timed<T>(until: Instant, call: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    timeout_at(until, call).await.unwrap_or(Err(Failure::TimedOut))
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

fn not_ready(detail: &str) -> Fault {
    Fault::new(Class::Unavailable, Reason::StoreNotReady, detail)
}

fn of_kubeconfig(text: &SecretValue) -> Result<Way, Fault> {
    let access = kubeconfig::parse(text.expose())?;
    let field = "provider.kubernetes.authRef";
    let server =
        address(&access.server).ok_or_else(|| not_ready(&format!("{field}: the kubeconfig's server is no https address: correct it")))?;
    let authorities =
        access.authority.map(|pem| certificates(pem.expose(), &format!("{field}: certificate-authority-data"))).transpose()?;
    let identity = access.identity.map(|(certificate, key)| identity(&certificate, &key, field)).transpose()?;
    let bearer = access.token.map_or(Ok(Bearer::None), |token| bearer(&token, field).map(Bearer::Fixed))?;
    Ok(Way { server, is_this_cluster: false, authorities, identity, bearer })
}

fn of_spec(spec: &KubernetesProvider, credentials: &Credentials, settings: &Settings) -> Result<Way, Fault> {
    let named = spec.server.as_ref();
    let is_this_cluster = named.is_none_or(|server| server.url.is_none());
    let (server, known) = match named.and_then(|server| server.url.as_deref()) {
        Some(url) => {
            let fault = || invalid("provider.kubernetes.server.url is no address such as https://api.example.com:6443: correct it");
            (address(url).ok_or_else(fault)?, None)
        }
        None => this_cluster(settings)?,
    };
    let bundle = named.and_then(|server| server.ca_bundle.as_deref());
    let authorities = match (bundle, credentials.secrets.get(&Role::Authority)) {
        (Some(bundle), _) => {
            let base64: String = bundle.split_ascii_whitespace().collect();
            let pem = BASE64_STANDARD.decode(base64).map_err(|_| no_certificates("provider.kubernetes.server.caBundle"))?;
            Some(certificates(&pem, "provider.kubernetes.server.caBundle")?)
        }
        (None, Some(pem)) => Some(certificates(pem.expose(), "provider.kubernetes.server.caProvider")?),
        (None, None) => known,
    };
    let identity = match (credentials.secrets.get(&Role::ClientCertificate), credentials.secrets.get(&Role::ClientKey)) {
        (Some(certificate), Some(key)) => Some(identity(certificate, key, "provider.kubernetes.auth.cert")?),
        _ => None,
    };
    let bearer = match (credentials.secrets.get(&Role::Token), &credentials.tokens) {
        (Some(token), _) => Bearer::Fixed(bearer(token, "provider.kubernetes.auth.token.bearerToken")?),
        (None, Some(tokens)) => Bearer::Account(tokens.clone()),
        (None, None) if identity.is_some() => Bearer::None,
        (None, None) => return Err(not_ready("provider.kubernetes.auth: no credential was given: name one")),
    };
    Ok(Way { server, is_this_cluster, authorities, identity, bearer })
}

/// The API server that the operator itself works with.
fn this_cluster(settings: &Settings) -> Result<(Url, Option<Vec<Certificate>>), Fault> {
    let unknown = || not_ready("the operator knows no API server of its own: set provider.kubernetes.server.url");
    let known = settings.api_server.as_ref().ok_or_else(unknown)?;
    let server = Url::parse(&known.url).map_err(|_| unknown())?;
    let authorities =
        known.authorities.iter().map(|der| Certificate::from_der(der)).collect::<Result<Vec<_>, _>>().map_err(|_| unknown())?;
    Ok((server, (!authorities.is_empty()).then_some(authorities)))
}

/// A tenant's address: https and nothing but an origin.
fn address(text: &str) -> Option<Url> {
    let url = Url::parse(text).ok()?;
    let is_bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
    let is_anonymous = url.username().is_empty() && url.password().is_none();
    (url.scheme() == "https" && is_bare && is_anonymous && url.has_host()).then_some(url)
}

/// `guarded` lets it connect only where the store may lead, and by which proxy.
fn client(
    is_tls: bool,
    authorities: Option<Vec<Certificate>>,
    identity: Option<Identity>,
    guarded: impl FnOnce(ClientBuilder) -> Result<ClientBuilder, Fault>,
) -> Result<Client, Fault> {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that builds a client for an API server: without redirects; each look has a deadline"
    )]
    let builder = Client::builder()
        .user_agent(concat!("keyferry/", env!("CARGO_PKG_VERSION")))
        .redirect(Policy::none())
        .retry(reqwest::retry::never())
        .no_gzip()
        // A connection of HTTP/2 that died silently would take all calls along until somebody notices; of HTTP/1 each its own.
        .http1_only();
    let builder = match authorities {
        Some(certificates) => builder.tls_certs_only(certificates),
        // Without TLS no authority is looked for: a machine may have none.
        None if !is_tls => builder.tls_certs_only([]),
        None => builder,
    };
    let builder = match identity {
        Some(identity) => builder.identity(identity),
        None => builder,
    };
    guarded(builder)?
        .build()
        .map_err(|_| invalid("no client can be made: set provider.kubernetes.server.caBundle, and check the client certificate"))
}

fn certificates(pem: &[u8], field: &str) -> Result<Vec<Certificate>, Fault> {
    let certificates = Certificate::from_pem_bundle(pem).map_err(|_| no_certificates(field))?;
    if certificates.is_empty() { Err(no_certificates(field)) } else { Ok(certificates) }
}

fn no_certificates(field: &str) -> Fault {
    invalid(&format!("{field} holds no certificates that can be read: give the PEM file of the authority"))
}

fn identity(certificate: &SecretValue, key: &SecretValue, field: &str) -> Result<Identity, Fault> {
    let mut pem = Zeroizing::new(Vec::with_capacity(certificate.len() + key.len() + 1));
    for part in [certificate.expose(), b"\n", key.expose()] {
        pem.extend_from_slice(part);
    }
    Identity::from_pem(&pem)
        .map_err(|_| not_ready(&format!("{field}: client certificate and key are no PEM that can be read: correct them")))
}

/// A token as people put it into a Secret: often with a line break at its end.
fn bearer(token: &SecretValue, field: &str) -> Result<HeaderValue, Fault> {
    let token = token.expose().trim_ascii();
    if token.is_empty() || !token.iter().all(u8::is_ascii_graphic) {
        return Err(not_ready(&format!("{field}: what stands there is no token: put the token there")));
    }
    let mut header = Zeroizing::new(Vec::with_capacity(token.len() + 7));
    header.extend_from_slice(b"Bearer ");
    header.extend_from_slice(token);
    let mut header = HeaderValue::from_bytes(&header).map_err(|_| not_ready(&format!("{field}: what stands there is no token")))?;
    header.set_sensitive(true);
    Ok(header)
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
