//! Files that SOPS or age encrypted: how they are told from plain ones, and what keeps one from being opened. What opens them is behind
//! [`Unseal`].

use crate::{
    fault::{Fault, Reason},
    secret::SecretValue,
};

/// Opens encrypted files, and refuses all others.
pub trait Unseal: Send + Sync {
    /// The plain text of a file, only if every byte that its encryption protects is as it was encrypted.
    ///
    /// # Errors
    /// [`SealedError`]; the plain text is in none of them.
    fn unseal(&self, key: &str, sealed: &SecretValue) -> Result<SecretValue, SealedError>;
}

/// Why a file that is encrypted, or that should be, was not read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealedError {
    #[error("{file} is encrypted with {tool} and the store opens no such files: name an age identity in provider.file.decryption")]
    NotOpened { file: String, tool: Tool },
    #[error("{file} is not encrypted, or was cut off, and the store reads only files that SOPS or age encrypted: encrypt it anew")]
    Plain { file: String },
    #[error(
        "{file} is encrypted for others than the store's age identity: encrypt it for this one too (`sops updatekeys`, `age -r`), or name its identity"
    )]
    NotForUs { file: String },
    #[error("{file} is encrypted with a passphrase: encrypt it for an age identity (`age -r`)")]
    Passphrase { file: String },
    #[error("{file} has no recipient of age: add one to its keys (`sops updatekeys`)")]
    NoRecipient { file: String },
    #[error("{file} is not as it was encrypted ({part}): restore it from where it came from, or encrypt it anew")]
    Damaged { file: String, part: &'static str },
    #[error("{file} cannot be opened, it has {what}: write it without")]
    Unsupported { file: String, what: &'static str },
}

/// Who encrypted a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tool {
    Age,
    Sops,
}

impl std::fmt::Display for Tool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Age => "age",
            Self::Sops => "SOPS",
        })
    }
}

/// The first line of a binary file of age, and of one as text.
const AGE: [&[u8]; 2] = [b"age-encryption.org/", b"-----BEGIN AGE ENCRYPTED FILE-----"];
/// How each value begins that SOPS encrypted; every file of it has one, that of its MAC.
const SOPS: &[u8] = b"ENC[AES256_GCM,data:";

/// Who encrypted these bytes; none when they are plain.
#[must_use]
pub fn tool_of(bytes: &[u8]) -> Option<Tool> {
    if AGE.iter().any(|start| bytes.trim_ascii_start().starts_with(start)) {
        return Some(Tool::Age);
    }
    bytes.windows(SOPS.len()).any(|window| window == SOPS).then_some(Tool::Sops)
}

impl From<SealedError> for Fault {
    fn from(error: SealedError) -> Self {
        let detail = error.to_string();
        match error {
            SealedError::NotForUs { .. } | SealedError::NoRecipient { .. } | SealedError::Passphrase { .. } => Self::access_denied(detail),
            SealedError::NotOpened { .. } | SealedError::Plain { .. } | SealedError::Damaged { .. } | SealedError::Unsupported { .. } => {
                Self::invalid(Reason::InvalidData, detail)
            }
        }
    }
}
