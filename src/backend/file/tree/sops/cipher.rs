//! Single values of a file: `ENC[AES256_GCM,data:…,iv:…,tag:…,type:…]`, bound to their path.

use aes_gcm::{
    AesGcm, KeyInit,
    aead::{AeadInPlace, generic_array::GenericArray},
    aes::{Aes256, cipher::consts::U32},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use zeroize::Zeroizing;

use super::document::{Kind, Scalar};

const KEY: usize = 32;
const NONCE: usize = 32;
const TAG: usize = 16;

/// The key of one file.
pub struct DataKey(AesGcm<Aes256, U32>);

impl DataKey {
    /// None unless it has the length of a key.
    pub fn new(key: &[u8]) -> Option<Self> {
        (key.len() == KEY).then(|| Self(AesGcm::new(GenericArray::from_slice(key))))
    }

    /// The value, if it was sealed under this key for this place; none otherwise.
    pub fn open(&self, sealed: &str, bound: &[u8]) -> Option<Scalar> {
        let body = sealed.strip_prefix("ENC[AES256_GCM,data:")?.strip_suffix(']')?;
        let (data, rest) = body.split_once(",iv:")?;
        let (nonce, rest) = rest.split_once(",tag:")?;
        let (tag, kind) = rest.split_once(",type:")?;
        let kind = kind_of(kind)?;
        let mut text = Zeroizing::new(BASE64_STANDARD.decode(data).ok()?);
        let (nonce, tag) = (exact::<NONCE>(nonce)?, exact::<TAG>(tag)?);
        let (nonce, tag) = (GenericArray::from_slice(&nonce), GenericArray::from_slice(&tag));
        self.0.decrypt_in_place_detached(nonce, bound, &mut text, tag).ok()?;
        Some(Scalar { kind, text })
    }
}

fn exact<const LENGTH: usize>(text: &str) -> Option<[u8; LENGTH]> {
    BASE64_STANDARD.decode(text).ok()?.try_into().ok()
}

/// A comment is no value; none of the files has it where one belongs.
fn kind_of(kind: &str) -> Option<Kind> {
    match kind {
        "str" | "bytes" => Some(Kind::Text),
        "int" => Some(Kind::Integer),
        "float" => Some(Kind::Float),
        "bool" => Some(Kind::Truth),
        "time" => Some(Kind::Time),
        _ => None,
    }
}
