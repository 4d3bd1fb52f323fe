//! What a secret is: one of ten named types, or opaque; and what a value of each must look like. Pure.
//!
//! The checks are about form: they catch the wrong file or a stray line end, they prove nothing about the other side. No refusal says
//! anything about the value but which form was expected.

use std::{collections::BTreeMap, fmt, str::FromStr};

use base64::{
    Engine,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE, BASE64_URL_SAFE_NO_PAD},
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use zeroize::Zeroizing;

/// The type of a secret. It is bound to each sealed value: one that was sealed as a password does not open as anything else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(try_from = "String", into = "&'static str")]
pub enum Kind {
    /// Any bytes.
    #[default]
    Opaque,
    ApiKey,
    DatabasePassword,
    SshKey,
    TlsCertificate,
    OauthToken,
    Jwt,
    EnvironmentVariable,
    ServiceAccountKey,
    WebhookSecret,
    EncryptionKey,
}

/// No type has this name.
#[derive(Debug, thiserror::Error)]
#[error("is no type of a secret: use one of {}", names().join(", "))]
pub struct UnknownKind;

fn names() -> Vec<&'static str> {
    Kind::ALL.iter().map(|kind| kind.as_str()).collect()
}

impl Kind {
    pub const ALL: &[Self] = &[
        Self::Opaque,
        Self::ApiKey,
        Self::DatabasePassword,
        Self::SshKey,
        Self::TlsCertificate,
        Self::OauthToken,
        Self::Jwt,
        Self::EnvironmentVariable,
        Self::ServiceAccountKey,
        Self::WebhookSecret,
        Self::EncryptionKey,
    ];

    /// The word for it, on the command line and in the file.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Opaque => "opaque",
            Self::ApiKey => "api-key",
            Self::DatabasePassword => "database-password",
            Self::SshKey => "ssh-key",
            Self::TlsCertificate => "tls-certificate",
            Self::OauthToken => "oauth-token",
            Self::Jwt => "jwt",
            Self::EnvironmentVariable => "environment-variable",
            Self::ServiceAccountKey => "service-account-key",
            Self::WebhookSecret => "webhook-secret",
            Self::EncryptionKey => "encryption-key",
        }
    }

    /// Whether the type itself says that its values are secrets. Of bytes without a type nothing is known, and environment variables hold
    /// both.
    #[must_use]
    pub const fn is_secret(self) -> bool {
        !matches!(self, Self::Opaque | Self::EnvironmentVariable)
    }

    /// What a value of this type must be, to go on after "expected".
    #[must_use]
    pub const fn expected(self) -> &'static str {
        match self {
            Self::Opaque => "any bytes",
            Self::ApiKey | Self::WebhookSecret => "one line of visible ASCII characters, without spaces and without a line end",
            Self::DatabasePassword => "one line of UTF-8 text, without control characters and without a line end",
            Self::SshKey => "a private key in PEM (-----BEGIN … PRIVATE KEY-----), or a public key as one line of an authorized_keys file",
            Self::TlsCertificate => "PEM with at least one -----BEGIN CERTIFICATE-----, and nothing broken beside it",
            Self::OauthToken => "one line of visible ASCII characters without spaces or a line end, or a JSON object with access_token",
            Self::Jwt => "three parts of unpadded base64url between two dots, the first two of them JSON objects, without a line end",
            Self::EnvironmentVariable => "UTF-8 text without a NUL character",
            Self::ServiceAccountKey => "a JSON object with at least one member, as the key file of a service account is",
            Self::EncryptionKey => "16, 24, 32, 48 or 64 bytes, raw or as one line of hex or base64, or a key in PEM",
        }
    }

    /// Whether the value has the form of its type.
    #[must_use]
    pub fn admits(self, value: &[u8]) -> bool {
        let text = std::str::from_utf8(value).ok();
        match self {
            Self::Opaque => true,
            Self::ApiKey | Self::WebhookSecret => is_visible(value),
            Self::DatabasePassword => text.is_some_and(|text| !text.is_empty() && !text.chars().any(char::is_control)),
            Self::SshKey => text.is_some_and(|text| is_private_key(text) || is_public_ssh_key(text)),
            Self::TlsCertificate => text.and_then(pem).is_some_and(|labels| labels.contains(&"CERTIFICATE")),
            Self::OauthToken => is_visible(value) || members(value).is_some_and(|members| members.contains_key("access_token")),
            Self::Jwt => text.is_some_and(is_jwt),
            Self::EnvironmentVariable => text.is_some_and(|text| !text.contains('\0')),
            Self::ServiceAccountKey => members(value).is_some_and(|members| !members.is_empty()),
            Self::EncryptionKey => is_key_length(value.len()) || text.is_some_and(is_written_key),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Kind {
    type Err = UnknownKind;

    fn from_str(text: &str) -> Result<Self, UnknownKind> {
        Self::ALL.iter().copied().find(|kind| kind.as_str() == text).ok_or(UnknownKind)
    }
}

impl TryFrom<String> for Kind {
    type Error = UnknownKind;

    fn try_from(text: String) -> Result<Self, UnknownKind> {
        text.parse()
    }
}

impl From<Kind> for &'static str {
    fn from(kind: Kind) -> Self {
        kind.as_str()
    }
}

fn is_visible(value: &[u8]) -> bool {
    !value.is_empty() && value.iter().all(u8::is_ascii_graphic)
}

/// The members of a JSON object; their values are not copied.
fn members(value: &[u8]) -> Option<BTreeMap<String, &RawValue>> {
    serde_json::from_slice(value).ok()
}

fn is_private_key(text: &str) -> bool {
    pem(text).is_some_and(|labels| labels.len() == 1 && labels[0].ends_with("PRIVATE KEY"))
}

/// `ssh-ed25519 AAAA… comment`; the first field stands in the second again, after its length.
fn is_public_ssh_key(text: &str) -> bool {
    let line = text.strip_suffix('\n').unwrap_or(text);
    let mut fields = line.split(' ');
    let (Some(algorithm), Some(body)) = (fields.next(), fields.next()) else { return false };
    let Ok(body) = BASE64_STANDARD.decode(body) else { return false };
    let inner = body.get(4..).and_then(|rest| rest.get(..algorithm.len()));
    !line.contains('\n') && !algorithm.is_empty() && inner == Some(algorithm.as_bytes())
}

/// The labels of the blocks of a PEM text; none when anything in it is no whole block. Text between blocks is allowed, as OpenSSL
/// writes it.
fn pem(text: &str) -> Option<Vec<&str>> {
    let (mut labels, mut open, mut body) = (Vec::new(), None, Zeroizing::new(String::with_capacity(text.len())));
    for line in text.lines().map(str::trim_end) {
        let begin = line.strip_prefix("-----BEGIN ").and_then(|rest| rest.strip_suffix("-----"));
        let end = line.strip_prefix("-----END ").and_then(|rest| rest.strip_suffix("-----"));
        match (open, begin, end) {
            (None, Some(label), _) => open = Some(label),
            (None, None, None) => {}
            (Some(label), None, Some(ended)) if label == ended => {
                let decoded = BASE64_STANDARD.decode(body.as_str()).map(Zeroizing::new).ok()?;
                labels.push((!decoded.is_empty()).then_some(label)?);
                (open, body) = (None, Zeroizing::new(String::with_capacity(text.len())));
            }
            // A header of an encrypted key: `Proc-Type: 4,ENCRYPTED`.
            (Some(_), None, None) if line.contains(": ") || line.is_empty() => {}
            (Some(_), None, None) => body.push_str(line),
            _ => return None,
        }
    }
    (open.is_none() && !labels.is_empty()).then_some(labels)
}

fn is_jwt(text: &str) -> bool {
    let parts: Vec<_> = text.split('.').map(|part| BASE64_URL_SAFE_NO_PAD.decode(part).map(Zeroizing::new)).collect();
    let [Ok(header), Ok(claims), Ok(signature)] = parts.as_slice() else { return false };
    members(header).is_some() && members(claims).is_some() && !signature.is_empty()
}

fn is_key_length(length: usize) -> bool {
    matches!(length, 16 | 24 | 32 | 48 | 64)
}

fn is_written_key(text: &str) -> bool {
    let line = text.strip_suffix('\n').unwrap_or(text);
    let is_pem = pem(text).is_some_and(|labels| labels.iter().all(|label| label.ends_with("KEY")));
    let is_hex = line.len().is_multiple_of(2) && line.bytes().all(|byte| byte.is_ascii_hexdigit()) && is_key_length(line.len() / 2);
    let decodes = [&BASE64_STANDARD, &BASE64_URL_SAFE, &BASE64_URL_SAFE_NO_PAD]
        .iter()
        .any(|base64| base64.decode(line).map(Zeroizing::new).is_ok_and(|bytes| is_key_length(bytes.len())));
    is_hex || decodes || is_pem
}

#[cfg(test)]
mod tests {
    use super::Kind;

    const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\nAAAA\nBBBB\n-----END CERTIFICATE-----\n";
    const PRIVATE: &str = "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n";

    #[test]
    fn each_type_takes_its_form_and_refuses_what_is_mistaken_for_it() {
        let cases: &[(Kind, &[&str], &[&str])] = &[
            (Kind::ApiKey, &["abc-123_x/+=", "!"], &["", "a b", "a\n", "\u{e9}", "a\tb"]),
            (Kind::WebhookSecret, &["whsec_1"], &["", "whsec_1\n", "w w"]),
            (Kind::DatabasePassword, &["correct horse", "p\u{e4}ss"], &["", "x\n", "a\0b", "a\tb"]),
            (
                Kind::SshKey,
                &[PRIVATE, "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA me@host\n", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA"],
                &["", CERTIFICATE, "ssh-rsa AAAAC3NzaC1lZDI1NTE5AAAA", "ssh-ed25519", "ssh-ed25519 !!", &PRIVATE[..40], " AAAAAA=="],
            ),
            (
                Kind::TlsCertificate,
                &[CERTIFICATE, "subject=x\n-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----", &[CERTIFICATE, PRIVATE].concat()],
                &[
                    "",
                    PRIVATE,
                    "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n",
                    "-----BEGIN CERTIFICATE-----\nA!\n-----END CERTIFICATE-----\n",
                    "-----BEGIN CERTIFICATE-----\nAAAA\n-----END PRIVATE KEY-----\n",
                    "-----BEGIN CERTIFICATE-----\nAAAA\n",
                ],
            ),
            (Kind::OauthToken, &["ya29.a0", "{\"access_token\": \"x\"}"], &["", "a b", "{\"token\": \"a b\"}"]),
            (
                Kind::Jwt,
                &["eyJhbGciOiJub25lIn0.e30.AA"],
                &[
                    "",
                    "a.b.c",
                    "eyJhbGciOiJub25lIn0.e30",
                    "eyJhbGciOiJub25lIn0.e30.",
                    "eyJhbGciOiJub25lIn0.e30.AA.AA",
                    "eyJhbGciOiJub25lIn0.e30.AA\n",
                ],
            ),
            (Kind::EnvironmentVariable, &["", "a\nb", "\u{e9}"], &["a\0"]),
            (Kind::ServiceAccountKey, &["{\"type\": \"service_account\"}"], &["", "{}", "[1]", "x"]),
            (
                Kind::EncryptionKey,
                &["0123456789abcdef", "000102030405060708090a0b0c0d0e0f\n", "AAAAAAAAAAAAAAAAAAAAAA==", "AAAAAAAAAAAAAAAAAAAAAA", PRIVATE],
                &["", "short", "0123456789abcdef\n0", &CERTIFICATE.replace("AAAA", "AAAACCCC")],
            ),
            (Kind::Opaque, &["", "anything"], &[]),
        ];
        assert_eq!(cases.len(), Kind::ALL.len());
        for (kind, right, wrong) in cases {
            right.iter().for_each(|value| assert!(kind.admits(value.as_bytes()), "{kind} refuses {value:?}"));
            wrong.iter().for_each(|value| assert!(!kind.admits(value.as_bytes()), "{kind} takes {value:?}"));
        }
        assert!(!Kind::DatabasePassword.admits(b"\xff") && !Kind::EnvironmentVariable.admits(b"\xff") && Kind::Opaque.admits(b"\xff"));
    }

    #[test]
    fn every_type_has_one_word_that_is_read_back() {
        for kind in Kind::ALL {
            assert_eq!(kind.as_str().parse::<Kind>().unwrap(), *kind);
        }
        let refused = "password".parse::<Kind>().unwrap_err().to_string();
        assert!(Kind::ALL.iter().all(|kind| refused.contains(kind.as_str())), "{refused}");
    }
}
