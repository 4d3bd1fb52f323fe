//! The certificates of a proxy: its own authority towards the client, the upstream's towards the upstream.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose};
use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};

/// A certificate for 127.0.0.1 and the PEM of the authority that signed it, new for every proxy.
#[derive(Clone)]
pub(super) struct Identity {
    pub ca_pem: String,
    pub config: Arc<ServerConfig>,
}

impl Identity {
    pub fn generate() -> Self {
        let authority = authority();
        let key = KeyPair::generate().expect("a key can be generated");
        let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
        let leaf = CertificateParams::new(names).expect("the names are valid");
        let certificate = leaf.signed_by(&key, &authority).expect("the authority can sign");
        let private_key = PrivateKeyDer::try_from(key.serialize_der()).expect("rcgen writes PKCS#8");
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("the provider knows the default versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], private_key)
            .expect("key and certificate belong together");
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

/// Trusts the certificates of `ca_pem` and nothing else.
///
/// # Panics
/// When `ca_pem` holds no certificate or a malformed one.
pub(super) fn client_config(ca_pem: &str) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca_pem.as_bytes()) {
        roots.add(certificate.expect("the upstream's CA is PEM")).expect("the upstream's CA is a certificate");
    }
    assert!(!roots.is_empty(), "the upstream's CA holds no certificate");
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("the provider knows the default versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}
