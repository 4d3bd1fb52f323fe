//! Keys and sealing: the master key's file, the keys derived from it for one store, and authenticated encryption under them.
//!
//! AES-256-GCM with random nonces. What is sealed is bound to its purpose, its store and its place, so that bytes moved elsewhere do
//! not open. `sealed` is always nonce (12 bytes), ciphertext, tag (16 bytes).

use std::{io::Read, path::Path};

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey},
    digest, hkdf, hmac, rand,
};
use base64::{Engine, prelude::BASE64_STANDARD};
use zeroize::Zeroizing;

use super::{
    error::StoreError,
    kind::Kind,
    place::{Access, Place},
    publish,
};

/// Length of the store's id, which salts its keys.
pub const STORE_ID: usize = 16;
const KEY: usize = 32;
const TAG: usize = 16;

/// The key that wraps all others: 32 random bytes.
pub struct MasterKey(Zeroizing<[u8; KEY]>);

/// The bytes do not open under this key at this place.
#[derive(Debug, PartialEq, Eq)]
pub struct Refused;

impl MasterKey {
    /// Reads the key's file.
    ///
    /// # Errors
    /// [`StoreError`] when the file is missing, open to others, or holds something else.
    pub fn read(place: &Place) -> Result<Self, StoreError> {
        let file = place.open(Access::Read)?;
        let mut text = Zeroizing::new(Vec::with_capacity(128));
        file.take(128).read_to_end(&mut text).map_err(|error| StoreError::io(place.name(), "reading", &error))?;
        let not_a_key = || StoreError::NotAKey { place: place.name().to_owned() };
        let mut bytes = Zeroizing::new([0; KEY + 1]);
        let length = BASE64_STANDARD.decode_slice(text.trim_ascii(), bytes.as_mut_slice()).map_err(|_| not_a_key())?;
        let mut key = Zeroizing::new([0; KEY]);
        if length != KEY {
            return Err(not_a_key());
        }
        key.copy_from_slice(&bytes[..KEY]);
        Ok(Self(key))
    }

    /// Makes a new key and its file, complete or not at all. An existing file stays.
    ///
    /// # Errors
    /// [`StoreError::Exists`], or what kept it from being written.
    pub fn create(path: &Path) -> Result<(), StoreError> {
        let mut key = Zeroizing::new([0; KEY]);
        fill(key.as_mut_slice());
        let mut text = Zeroizing::new(BASE64_STANDARD.encode(key.as_slice()).into_bytes());
        text.push(b'\n');
        publish::file(path, &text)
    }
}

/// The keys of one store, derived from the master key and the store's id.
pub struct Keys {
    store: [u8; STORE_ID],
    wrap: RandomizedNonceKey,
    index: RandomizedNonceKey,
    names: hmac::Key,
    check: [u8; KEY],
}

impl Keys {
    pub fn derive(master: &MasterKey, store: [u8; STORE_ID]) -> Self {
        let secret = hkdf::Salt::new(hkdf::HKDF_SHA256, &store).extract(master.0.as_slice());
        Self {
            store,
            wrap: aead_key(&expand(&secret, "keyferry file store: wrap data keys")),
            index: aead_key(&expand(&secret, "keyferry file store: seal the index")),
            names: hmac::Key::new(hmac::HMAC_SHA256, expand(&secret, "keyferry file store: hide names").as_slice()),
            check: *expand(&secret, "keyferry file store: tell master keys apart"),
        }
    }

    /// The store's id.
    pub fn store(&self) -> [u8; STORE_ID] {
        self.store
    }

    /// Says whether a master key is the store's, and nothing about it.
    pub fn check(&self) -> &[u8] {
        &self.check
    }

    /// A name as it stands in the file.
    pub fn hide(&self, name: &str) -> [u8; KEY] {
        let mut hidden = [0; KEY];
        hidden.copy_from_slice(hmac::sign(&self.names, name.as_bytes()).as_ref());
        hidden
    }

    /// Seals a part of the index for its place.
    pub fn seal_index(&self, part: &str, place: u64, plain: &[u8]) -> Vec<u8> {
        seal(&self.index, &self.bound(part, "", place), plain)
    }

    pub fn open_index(&self, part: &str, place: u64, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, Refused> {
        open(&self.index, &self.bound(part, "", place), sealed)
    }

    /// Seals one version of a value under a data key of its own, which is sealed under the store's and stands before it.
    pub fn seal_value(&self, name: &str, version: u64, kind: Kind, value: &[u8]) -> Vec<u8> {
        let mut data_key = Zeroizing::new([0; KEY]);
        fill(data_key.as_mut_slice());
        let mut record = seal(&self.wrap, &self.bound_as("data key", name, version, kind), data_key.as_slice());
        record.extend(seal(&aead_key(&data_key), &self.bound_as("value", name, version, kind), value));
        record
    }

    pub fn open_value(&self, name: &str, version: u64, kind: Kind, record: &[u8]) -> Result<Zeroizing<Vec<u8>>, Refused> {
        let (data_key, sealed) = self.unwrap_data_key(name, version, kind, record)?;
        open(&aead_key(&data_key), &self.bound_as("value", name, version, kind), sealed)
    }

    /// The same record with its data key sealed under the keys of another master key of the same store.
    pub fn rewrap(&self, new: &Self, name: &str, version: u64, kind: Kind, record: &[u8]) -> Result<Vec<u8>, Refused> {
        let (data_key, sealed) = self.unwrap_data_key(name, version, kind, record)?;
        let mut rewrapped = seal(&new.wrap, &new.bound_as("data key", name, version, kind), data_key.as_slice());
        rewrapped.extend(sealed);
        Ok(rewrapped)
    }

    fn unwrap_data_key<'a>(
        &self,
        name: &str,
        version: u64,
        kind: Kind,
        record: &'a [u8],
    ) -> Result<(Zeroizing<[u8; KEY]>, &'a [u8]), Refused> {
        let (wrapped, sealed) = record.split_at_checked(NONCE_LEN + KEY + TAG).ok_or(Refused)?;
        let data_key = open(&self.wrap, &self.bound_as("data key", name, version, kind), wrapped)?;
        let data_key = Zeroizing::new(<[u8; KEY]>::try_from(data_key.as_slice()).map_err(|_| Refused)?);
        Ok((data_key, sealed))
    }

    /// The associated data: what it is, of which store, under which name and number. Each part is preceded by its length.
    fn bound(&self, part: &str, name: &str, number: u64) -> Vec<u8> {
        let mut bound = Vec::new();
        for part in [part.as_bytes(), &self.store, name.as_bytes(), &number.to_be_bytes()] {
            append(&mut bound, part);
        }
        bound
    }

    /// As [`Keys::bound`], with the type. Opaque adds nothing: so were values bound before there were types.
    fn bound_as(&self, part: &str, name: &str, number: u64, kind: Kind) -> Vec<u8> {
        let mut bound = self.bound(part, name, number);
        if kind != Kind::Opaque {
            append(&mut bound, kind.as_str().as_bytes());
        }
        bound
    }
}

fn append(bound: &mut Vec<u8>, part: &[u8]) {
    bound.extend((part.len() as u64).to_be_bytes());
    bound.extend(part);
}

/// SHA-256 of sealed bytes, as the index holds it.
pub fn digest_of(sealed: &[u8]) -> String {
    BASE64_STANDARD.encode(digest::digest(&digest::SHA256, sealed))
}

/// Random bytes.
pub fn fill(bytes: &mut [u8]) {
    rand::fill(bytes).expect("the system's random numbers do not fail once the process runs");
}

fn expand(secret: &hkdf::Prk, purpose: &str) -> Zeroizing<[u8; KEY]> {
    let mut key = Zeroizing::new([0; KEY]);
    secret
        .expand(&[purpose.as_bytes()], hkdf::HKDF_SHA256)
        .and_then(|material| material.fill(key.as_mut_slice()))
        .expect("32 bytes are within what HKDF gives");
    key
}

fn aead_key(key: &[u8; KEY]) -> RandomizedNonceKey {
    RandomizedNonceKey::new(&AES_256_GCM, key).expect("the key has the length of the algorithm")
}

fn seal(key: &RandomizedNonceKey, bound: &[u8], plain: &[u8]) -> Vec<u8> {
    // Allocated once, so that no copy of the plain text stays behind in freed memory.
    let mut sealed = Vec::with_capacity(NONCE_LEN + plain.len() + TAG);
    sealed.extend([0; NONCE_LEN]);
    sealed.extend(plain);
    let (nonce, tag) =
        key.seal_in_place_separate_tag(Aad::from(bound), &mut sealed[NONCE_LEN..]).expect("sealing fails only beyond 64 GiB");
    sealed[..NONCE_LEN].copy_from_slice(nonce.as_ref());
    sealed.extend(tag.as_ref());
    sealed
}

fn open(key: &RandomizedNonceKey, bound: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, Refused> {
    let (nonce, body) = sealed.split_at_checked(NONCE_LEN).ok_or(Refused)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| Refused)?;
    let mut plain = Zeroizing::new(body.to_vec());
    let length = key.open_in_place(nonce, Aad::from(bound), &mut plain).map_err(|_| Refused)?.len();
    plain.truncate(length);
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use super::{KEY, Keys, MasterKey, Refused};
    use crate::backend::file::kind::Kind;
    use zeroize::Zeroizing;

    fn keys(master: u8, store: u8) -> Keys {
        Keys::derive(&MasterKey(Zeroizing::new([master; KEY])), [store; 16])
    }

    #[test]
    fn a_value_opens_only_under_its_name_version_store_and_key() {
        let kind = Kind::DatabasePassword;
        let record = keys(1, 1).seal_value("db/password", 2, kind, b"value");
        assert_eq!(keys(1, 1).open_value("db/password", 2, kind, &record).unwrap().as_slice(), b"value");
        for (what, opened) in [
            ("name", keys(1, 1).open_value("db/passwor", 2, kind, &record)),
            ("version", keys(1, 1).open_value("db/password", 3, kind, &record)),
            ("type", keys(1, 1).open_value("db/password", 2, Kind::ApiKey, &record)),
            ("no type", keys(1, 1).open_value("db/password", 2, Kind::Opaque, &record)),
            ("store", keys(1, 2).open_value("db/password", 2, kind, &record)),
            ("master key", keys(2, 1).open_value("db/password", 2, kind, &record)),
        ] {
            assert_eq!(opened.err(), Some(Refused), "{what}");
        }
    }

    #[test]
    fn every_flipped_bit_and_every_truncation_is_refused() {
        let keys = keys(1, 1);
        let record = keys.seal_value("k", 1, Kind::Opaque, b"");
        for at in 0..record.len() {
            let mut flipped = record.clone();
            flipped[at] ^= 1;
            assert_eq!(keys.open_value("k", 1, Kind::Opaque, &flipped).err(), Some(Refused), "byte {at}");
            assert_eq!(keys.open_value("k", 1, Kind::Opaque, &record[..at]).err(), Some(Refused), "cut at {at}");
        }
    }

    #[test]
    fn a_rewrapped_record_opens_under_the_new_key_alone() {
        let (old, new) = (keys(1, 1), keys(2, 1));
        let record = old.rewrap(&new, "k", 1, Kind::Jwt, &old.seal_value("k", 1, Kind::Jwt, b"v")).unwrap();
        assert_eq!(new.open_value("k", 1, Kind::Jwt, &record).unwrap().as_slice(), b"v");
        assert_eq!(old.open_value("k", 1, Kind::Jwt, &record).err(), Some(Refused));
        assert_eq!(old.rewrap(&new, "k", 1, Kind::Jwt, &record).err(), Some(Refused));
    }

    #[test]
    fn a_part_of_the_index_is_no_other_part() {
        let keys = keys(1, 1);
        let sealed = keys.seal_index("names", 3, b"{}");
        assert!(keys.open_index("names", 3, &sealed).is_ok());
        assert!(keys.open_index("names", 4, &sealed).is_err());
        assert!(keys.open_index("root", 3, &sealed).is_err());
        assert!(keys.open_value("", 3, Kind::Opaque, &sealed).is_err());
    }

    #[test]
    fn one_value_sealed_twice_looks_different() {
        let keys = keys(1, 1);
        assert_ne!(keys.seal_value("k", 1, Kind::Opaque, b"v"), keys.seal_value("k", 1, Kind::Opaque, b"v"));
    }
}
