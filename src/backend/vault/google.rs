//! A Google service account that logs in: a JWT which says who it is and for which role of the server, signed with the account's own key.

use aws_lc_rs::{rand::SystemRandom, rsa::KeyPair, signature::RSA_PKCS1_SHA256};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use jiff::Timestamp;
use rustls::pki_types::{PrivatePkcs8KeyDer, pem::PemObject};
use serde::Deserialize;
use serde_json::json;
use zeroize::{Zeroize, Zeroizing};

use crate::secret::SecretValue;

/// How long a JWT may be used, in seconds. A role takes 15 minutes at most unless it says otherwise (`max_jwt_exp`), and clocks differ.
const LIFE: i64 = 600;

/// An account with one of its keys.
pub(super) struct ServiceAccount {
    email: String,
    key_id: String,
    key: KeyPair,
}

impl std::fmt::Debug for ServiceAccount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServiceAccount").field("email", &self.email).finish_non_exhaustive()
    }
}

/// The file that Google gives out for a key.
#[derive(Deserialize)]
struct KeyFile {
    r#type: String,
    client_email: String,
    private_key_id: String,
    private_key: String,
}

impl ServiceAccount {
    /// Of such a file; `None` when it is none, or of something else than a service account.
    pub fn parse(json: &[u8]) -> Option<Self> {
        let file: KeyFile = serde_json::from_slice(json).ok()?;
        let pem = Zeroizing::new(file.private_key);
        let mut der = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).ok()?;
        let key = KeyPair::from_pkcs8(der.secret_pkcs8_der());
        der.zeroize();
        let is_account = file.r#type == "service_account" && !file.client_email.is_empty() && !file.private_key_id.is_empty();
        key.ok().filter(|_| is_account).map(|key| Self { email: file.client_email, key_id: file.private_key_id, key })
    }

    /// What logs in under that role, from now on for ten minutes; `None` when nothing can be signed.
    pub fn assertion(&self, role: &str, now: Timestamp) -> Option<SecretValue> {
        let issued = now.as_second();
        let header = json!({"alg": "RS256", "kid": self.key_id, "typ": "JWT"});
        let claims = json!({"aud": format!("vault/{role}"), "sub": self.email, "iat": issued, "exp": issued + LIFE});
        let [header, claims] = [header, claims].map(|part| BASE64_URL_SAFE_NO_PAD.encode(part.to_string()));
        let mut signature = vec![0; self.key.public_modulus_len()];
        self.key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), format!("{header}.{claims}").as_bytes(), &mut signature).ok()?;
        Some(SecretValue::from(format!("{header}.{claims}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))))
    }
}
