//! An identity of AWS that logs in: a call to STS, signed with its access key, that says who made it. The server makes the call in its
//! stead; nothing is sent to AWS from here.

use aws_credential_types::Credentials as Keys;
use aws_sigv4::{
    http_request::{SignableBody, SignableRequest, SigningSettings, sign},
    sign::v4,
};
use base64::{Engine, prelude::BASE64_STANDARD};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::secret::SecretValue;

/// What is asked: who am I.
pub(super) const BODY: &str = "Action=GetCallerIdentity&Version=2011-06-15";
/// Tells which server the call is for, so that another one that gets it cannot use it.
const SERVER_ID: &str = "x-vault-aws-iam-server-id";

/// An access key, where it signs, and for whom.
pub(super) struct Identity {
    keys: Keys,
    region: String,
    server_id: Option<String>,
}

// By hand: the library hides the key in its own, and nothing here depends on that.
impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").field("region", &self.region).finish_non_exhaustive()
    }
}

impl Identity {
    pub fn new(id: &str, key: &str, token: Option<&str>, region: &str, server_id: Option<&str>) -> Self {
        let keys = Keys::new(id, key, token.map(str::to_owned), None, "Secret");
        Self { keys, region: region.to_owned(), server_id: server_id.map(str::to_owned) }
    }

    /// The address of STS in the region.
    pub fn url(&self) -> String {
        format!("https://{}/", self.host())
    }

    fn host(&self) -> String {
        let suffix = if self.region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
        format!("sts.{}.{suffix}", self.region)
    }

    /// The headers of the call as the server takes them, from now on for a quarter of an hour; `None` when nothing can be signed.
    pub fn headers(&self, now: Timestamp) -> Option<SecretValue> {
        let (host, length) = (self.host(), BODY.len().to_string());
        let mut headers = vec![
            ("host", host.as_str()),
            ("content-type", "application/x-www-form-urlencoded; charset=utf-8"),
            ("content-length", length.as_str()),
        ];
        headers.extend(self.server_id.as_deref().map(|id| (SERVER_ID, id)));
        let identity = self.keys.clone().into();
        let params = v4::SigningParams::builder().identity(&identity).region(&self.region).name("sts").time(now.into());
        let params = params.settings(SigningSettings::default()).build().ok()?.into();
        let signable = SignableRequest::new("POST", self.url(), headers.iter().copied(), SignableBody::Bytes(BODY.as_bytes())).ok()?;
        let (instructions, _) = sign(signable, &params).ok()?.into_parts();
        let (signed, _) = instructions.into_parts();
        let all = headers.into_iter().map(|(name, value)| (name.to_owned(), json!([value])));
        let all: Map<String, Value> = all.chain(signed.iter().map(|header| (header.name().to_owned(), json!([header.value()])))).collect();
        Some(SecretValue::from(BASE64_STANDARD.encode(Value::Object(all).to_string())))
    }
}
