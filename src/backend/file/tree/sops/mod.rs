//! Files that SOPS encrypted, as its sources (v3.13) read them: <https://github.com/getsops/sops>. Read only.
//!
//! `document` is a file as a tree, with one module per notation; `metadata` what SOPS writes about it; `cipher` opens single values. Here
//! the whole is put together: the values are opened in their order, and none is given away before the MAC over all of them agrees.

mod cipher;
mod document;
mod metadata;
mod notation;
mod number;
mod sink;

use aws_lc_rs::{
    constant_time::verify_slices_are_equal,
    digest::{Context, SHA512},
};

use self::{
    cipher::DataKey,
    document::{Kind, Node, Scalar},
    metadata::Metadata,
    notation::Notation,
};
use super::{
    age::{Identities, Unopened},
    sealed::SealedError,
};
use crate::{digest::hex, secret::SecretValue};

/// What is wrong with a file; its name is added above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    Damaged(&'static str),
    Unsupported(&'static str),
    NotForUs,
    NoRecipient,
}

impl Flaw {
    pub fn of(self, file: String) -> SealedError {
        match self {
            Self::Damaged(part) => SealedError::Damaged { file, part },
            Self::Unsupported(what) => SealedError::Unsupported { file, what },
            Self::NotForUs => SealedError::NotForUs { file },
            Self::NoRecipient => SealedError::NoRecipient { file },
        }
    }
}

/// What goes before the values into a MAC over the encrypted ones only: SHA-256 of `sops`, so that the two kinds of MAC never agree.
const ENCRYPTED_ONLY: [u8; 32] = [
    0x8a, 0x3f, 0xd2, 0xad, 0x54, 0xce, 0x66, 0x52, 0x7b, 0x10, 0x34, 0xf3, 0xd1, 0x47, 0xbe, 0x0b, 0x0b, 0x97, 0x5b, 0x3b, 0xf4, 0x4f,
    0x72, 0xc6, 0xfd, 0xad, 0xec, 0x81, 0x76, 0xf2, 0x7d, 0x69,
];

/// The plain text of a file.
///
/// # Errors
/// [`Flaw`] for whatever is not as SOPS wrote it; nothing of the plain text is in it.
pub fn open(key: &str, sealed: &[u8], identities: &Identities) -> Result<SecretValue, Flaw> {
    let notation = Notation::of(key, sealed);
    let (mut document, about) = notation.read(sealed)?;
    let metadata = Metadata::read(&about)?;
    let data_key = data_key(&metadata, identities)?;
    let mut opening = Opening { key: &data_key, metadata: &metadata, mac: Context::new(&SHA512), path: Vec::new() };
    if metadata.mac_only_encrypted {
        opening.mac.update(&ENCRYPTED_ONLY);
    }
    opening.node(&mut document)?;
    verify(opening.mac, &metadata, &data_key)?;
    notation.write(&document)
}

fn data_key(metadata: &Metadata, identities: &Identities) -> Result<DataKey, Flaw> {
    let mut flaw = Flaw::NotForUs;
    for sealed in &metadata.recipients {
        match identities.open(sealed.as_bytes()) {
            Ok(key) => return DataKey::new(&key).ok_or(Flaw::Damaged("data key")),
            Err(Unopened::NotForUs) => {}
            Err(Unopened::Damaged | Unopened::Passphrase) => flaw = Flaw::Damaged("data key"),
        }
    }
    Err(flaw)
}

fn verify(mac: Context, metadata: &Metadata, key: &DataKey) -> Result<(), Flaw> {
    const WRONG: Flaw = Flaw::Damaged("MAC");
    let written = key.open(&metadata.mac, metadata.last_modified.as_bytes()).ok_or(WRONG)?;
    let computed = hex(mac.finish().as_ref()).to_ascii_uppercase();
    verify_slices_are_equal(&written.text, computed.as_bytes()).map_err(|_| WRONG)
}

/// A walk over a document that opens its values.
struct Opening<'a> {
    key: &'a DataKey,
    metadata: &'a Metadata,
    mac: Context,
    /// Names on the way here; elements of a list add none.
    path: Vec<String>,
}

impl Opening<'_> {
    fn node(&mut self, node: &mut Node) -> Result<(), Flaw> {
        match node {
            // SOPS neither encrypts nor authenticates it.
            Node::Null => Ok(()),
            Node::Scalar(scalar) => self.scalar(scalar),
            Node::List(elements) => elements.iter_mut().try_for_each(|element| self.node(element)),
            Node::Map(members) => members.iter_mut().try_for_each(|(name, member)| {
                self.path.push(name.clone());
                self.node(member)?;
                self.path.pop();
                Ok(())
            }),
        }
    }

    fn scalar(&mut self, scalar: &mut Scalar) -> Result<(), Flaw> {
        if self.metadata.rule.encrypts(&self.path) {
            *scalar = self.opened(scalar)?;
            // As SOPS wrote it, so it is authenticated; and no copy of it is made.
            self.mac.update(&scalar.text);
        } else if !self.metadata.mac_only_encrypted {
            self.mac.update(&scalar.understood());
        }
        Ok(())
    }

    fn opened(&self, scalar: &Scalar) -> Result<Scalar, Flaw> {
        const WRONG: Flaw = Flaw::Damaged("a value");
        match scalar.kind {
            // The empty text is the only one that SOPS writes as it is.
            Kind::Text if scalar.text.is_empty() => Ok(scalar.clone()),
            Kind::Text => {
                let bound = self.path.iter().fold(String::new(), |bound, name| bound + name + ":");
                let sealed = std::str::from_utf8(&scalar.text).map_err(|_| WRONG)?;
                self.key.open(sealed, bound.as_bytes()).ok_or(WRONG)
            }
            Kind::Integer | Kind::Float | Kind::Truth | Kind::Time => Err(WRONG),
        }
    }
}
