//! The age identities of a store, and files that age encrypted for them.

use std::io::Read;

use age::{DecryptError, Decryptor, armor::ArmoredReader, x25519};
use zeroize::Zeroizing;

use super::{
    sealed::{SealedError, Tool, Unseal, tool_of},
    sops,
};
use crate::{fault::quote, secret::SecretValue};

/// Identities beyond this are no key file: each is tried for each recipient.
const MOST_IDENTITIES: usize = 64;

/// Why a text is no key file. Nothing of it is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotIdentities {
    #[error("line {0} is no identity that `age-keygen` makes: it begins with AGE-SECRET-KEY-1")]
    Line(usize),
    #[error("it holds no identity: put the output of `age-keygen` there")]
    Empty,
    #[error("it holds more than {MOST_IDENTITIES} identities: leave out what is not needed")]
    TooMany,
}

/// Opens files for whom they were encrypted.
pub struct Identities(Vec<x25519::Identity>);

impl Identities {
    /// The identities of a key file as `age-keygen` writes it: one a line, with comments.
    ///
    /// # Errors
    /// [`NotIdentities`] where one line is something else: a typing error must not take a key away in silence.
    pub fn parse(file: &SecretValue) -> Result<Self, NotIdentities> {
        let mut identities = Vec::new();
        for (index, line) in file.expose().split(|byte| *byte == b'\n').enumerate() {
            let line = line.trim_ascii();
            if line.is_empty() || line.starts_with(b"#") {
                continue;
            }
            let identity = std::str::from_utf8(line).ok().and_then(|line| line.parse().ok());
            identities.push(identity.ok_or(NotIdentities::Line(index + 1))?);
            if identities.len() > MOST_IDENTITIES {
                return Err(NotIdentities::TooMany);
            }
        }
        if identities.is_empty() { Err(NotIdentities::Empty) } else { Ok(Self(identities)) }
    }

    /// What age encrypted, as bytes or as text.
    ///
    /// # Errors
    /// [`Unopened`]; nothing of the plain text is kept.
    pub fn open(&self, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, Unopened> {
        let decryptor = Decryptor::new_buffered(ArmoredReader::new(sealed)).map_err(|error| unopened(&error))?;
        if decryptor.is_scrypt() {
            return Err(Unopened::Passphrase);
        }
        let mut reader =
            decryptor.decrypt(self.0.iter().map(|identity| identity as &dyn age::Identity)).map_err(|error| unopened(&error))?;
        // The plain text is always shorter, so that the buffer never moves.
        let mut plain = Zeroizing::new(Vec::with_capacity(sealed.len()));
        reader.read_to_end(&mut plain).map_err(|_| Unopened::Damaged)?;
        Ok(plain)
    }
}

/// Why age did not open something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unopened {
    NotForUs,
    Passphrase,
    Damaged,
}

fn unopened(error: &DecryptError) -> Unopened {
    match error {
        DecryptError::NoMatchingKeys => Unopened::NotForUs,
        DecryptError::ExcessiveWork { .. } => Unopened::Passphrase,
        _ => Unopened::Damaged,
    }
}

impl Unseal for Identities {
    fn unseal(&self, key: &str, sealed: &SecretValue) -> Result<SecretValue, SealedError> {
        let file = || quote(key);
        match tool_of(sealed.expose()) {
            None => Err(SealedError::Plain { file: file() }),
            Some(Tool::Sops) => sops::open(key, sealed.expose(), self).map_err(|flaw| flaw.of(file())),
            Some(Tool::Age) => match self.open(sealed.expose()) {
                Ok(mut plain) => Ok(SecretValue::new(std::mem::take(&mut *plain))),
                Err(Unopened::NotForUs) => Err(SealedError::NotForUs { file: file() }),
                Err(Unopened::Passphrase) => Err(SealedError::Passphrase { file: file() }),
                Err(Unopened::Damaged) => Err(SealedError::Damaged { file: file(), part: "age" }),
            },
        }
    }
}
