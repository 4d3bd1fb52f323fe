//! The certificates of a proxy: its own authority towards the client, the upstream's towards the upstream.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose};
use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};

/// A certificate for 127.0.0.1 and the PEM of the authority that signed it, new for every proxy.
#[derive(Clone)]
pub(super) struct Identity {
    pub ca_pem: String,
    pub config: Arc<ServerConfig>,
}

/// A client that logs in by its certificate, all as PEM. Whoever ends TLS between it and its server has to have it.
#[derive(Clone)]
pub struct ClientIdentity {
    /// What signed the certificate.
    pub authority: String,
    pub certificate: String,
    pub key: String,
}

impl Identity {
    /// Asks clients for a certificate of that one's authority, if there is one.
    pub fn generate(client: Option<&ClientIdentity>) -> Self {
        let authority = authority();
        let key = KeyPair::generate().expect("a key can be generated");
        let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
        let leaf = CertificateParams::new(names).expect("the names are valid");
        let certificate = leaf.signed_by(&key, &authority).expect("the authority can sign");
        let private_key = PrivateKeyDer::try_from(key.serialize_der()).expect("rcgen writes PKCS#8");
        let config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("the provider knows the default versions");
        let config = match client {
            None => config.with_no_client_auth(),
            Some(client) => {
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(&client.authority)), provider());
                config.with_client_cert_verifier(verifier.allow_unauthenticated().build().expect("an authority was named"))
            }
        };
        let mut config =
            config.with_single_cert(vec![certificate.der().clone()], private_key).expect("key and certificate belong together");
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Self { ca_pem: authority.pem(), config: Arc::new(config) }
    }
}

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.distinguished_name.push(rcgen::DnType::CommonName, "fault proxy");
    let key = KeyPair::generate().expect("a key can be generated");
    CertifiedIssuer::self_signed(params, key).expect("an authority can sign itself")
}

/// The certificates of `ca_pem` and nothing else.
fn roots(ca_pem: &str) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca_pem.as_bytes()) {
        roots.add(certificate.expect("the upstream's CA is PEM")).expect("the upstream's CA is a certificate");
    }
    assert!(!roots.is_empty(), "the upstream's CA holds no certificate");
    roots
}

/// Trusts the certificates of `ca_pem` and nothing else; shows the client's certificate, if there is one.
///
/// # Panics
/// When `ca_pem` holds no certificate or a malformed one.
pub(super) fn client_config(ca_pem: &str, client: Option<&ClientIdentity>) -> Arc<ClientConfig> {
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("the provider knows the default versions")
        .with_root_certificates(roots(ca_pem));
    Arc::new(match client {
        None => config.with_no_client_auth(),
        Some(client) => {
            let chain = CertificateDer::pem_slice_iter(client.certificate.as_bytes()).collect::<Result<_, _>>();
            let key = PrivateKeyDer::from_pem_slice(client.key.as_bytes()).expect("the client's key is PEM");
            config.with_client_auth_cert(chain.expect("the client's certificate is PEM"), key).expect("they belong together")
        }
    })
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}
