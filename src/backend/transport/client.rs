//! The one way in which a provider's client over HTTP is built: whose certificates it trusts, where it may lead, by which proxy.

use base64::{Engine, prelude::BASE64_STANDARD};
use reqwest::{Certificate, Client, Identity, redirect::Policy};
use url::Url;

use super::Party;
use crate::{
    backend::{Settings, endpoint},
    fault::{Fault, Reason},
    name::StoreName,
    secret::SecretValue,
};

/// A client for the server that a store names.
#[derive(Clone, Copy, Debug)]
pub struct Plan<'a> {
    pub party: Party,
    pub server: &'a Url,
    /// PEM certificates in base64, as `caBundle` has them.
    pub ca_bundle: Option<&'a str>,
    /// PEM certificates that `caProvider` named.
    pub authority: Option<&'a SecretValue>,
}

impl Plan<'_> {
    /// Builds it; nothing is sent. It follows no redirect (credentials would go along), retries and unpacks nothing, and connects only where
    /// the store may lead.
    ///
    /// # Errors
    /// `InvalidSpec` for certificates that are none or of no use, `NotAllowed` for an address that a tenant's store may not lead to.
    pub fn build(&self, store: &StoreName, identity: Option<Identity>, settings: &Settings) -> Result<Client, Fault> {
        let bundle = match (self.ca_bundle, self.authority) {
            (Some(bundle), _) => Some(self.certificates(&BASE64_STANDARD.decode(unfolded(bundle)).map_err(|_| self.no_certificates())?)?),
            (None, Some(pem)) => Some(self.certificates(pem.expose())?),
            (None, None) => None,
        };
        let is_tls = self.server.scheme() == "https";
        if bundle.is_some() && !is_tls {
            let (authority, server) = (self.authority_field(), self.server_field());
            return Err(invalid(&format!("{authority} is of no use to an http server: use https in {server} or remove it")));
        }
        let has_bundle = bundle.is_some();
        #[expect(
            clippy::disallowed_methods,
            reason = "the one place that builds a provider's client: without redirects; each look has a deadline"
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
        let builder = settings.proxies.tell(builder);
        let builder = endpoint::guarded(builder, store, self.server, &settings.endpoints)
            .map_err(|forbidden| forbidden.fault(&self.server_field()))?;
        let builder = match identity {
            Some(identity) => builder.identity(identity),
            None => builder,
        };
        builder.build().map_err(|_| {
            if has_bundle {
                self.no_certificates()
            } else {
                invalid(&format!("the operator's image has no certificate authorities: set {}.caBundle", self.party.block))
            }
        })
    }

    fn certificates(&self, pem: &[u8]) -> Result<Vec<Certificate>, Fault> {
        let certificates = Certificate::from_pem_bundle(pem).map_err(|_| self.no_certificates())?;
        if certificates.is_empty() { Err(self.no_certificates()) } else { Ok(certificates) }
    }

    fn server_field(&self) -> String {
        format!("{}.{}", self.party.block, self.party.field)
    }

    fn authority_field(&self) -> String {
        format!("{}.{}", self.party.block, if self.ca_bundle.is_some() { "caBundle" } else { "caProvider" })
    }

    fn no_certificates(&self) -> Fault {
        let remedy = if self.ca_bundle.is_some() { "base64-encode" } else { "put there" };
        invalid(&format!("{} holds no certificates that can be read: {remedy} the PEM file of the authority", self.authority_field()))
    }
}

fn invalid(detail: &str) -> Fault {
    Fault::invalid(Reason::InvalidSpec, detail)
}

/// Base64 as tools fold it.
fn unfolded(text: &str) -> String {
    text.split_ascii_whitespace().collect()
}
