//! One client per store: its authority, its client certificate, and one call at a time as request and whole answer.
//!
//! No redirect is followed (the token would go along), nothing is retried, nothing is unpacked, no answer is read beyond its limit.

use http::{HeaderName, HeaderValue, Method, Uri, header::CONTENT_TYPE};
use reqwest::{Client, Identity};
use rustify::endpoint::Endpoint;
use url::Url;
use vaultrs::api::EndpointMiddleware;
use zeroize::Zeroizing;

use super::{
    answer::Answer,
    failure::{Failure, PARTY},
};
use crate::{
    access::Role,
    backend::{
        Credentials, Settings,
        transport::{Plan, exchange, retry_after},
    },
    crd::v1alpha1::VaultProvider,
    fault::{Class, Fault, Reason},
    name::{ProviderKind, RemoteKey, StoreName},
};

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
        let plan = Plan {
            party: PARTY,
            server: &server,
            ca_bundle: spec.ca_bundle.as_deref(),
            authority: credentials.secrets.get(&Role::Authority),
        };
        let client = plan.build(store, identity(spec, credentials, server.scheme() == "https")?, settings)?;
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
        let exchanged = exchange(&self.client, request).await.map_err(Failure::Broken)?;
        let (status, retry_after) = (exchanged.status.as_u16(), retry_after(&exchanged.headers));
        Ok(Answer { status, retry_after, body: exchanged.body })
    }
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
