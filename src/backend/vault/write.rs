//! Writing to KV version 2: with check-and-set, by merge, and what can be taken back.

use std::collections::BTreeMap;

use async_trait::async_trait;
use rustify::{
    endpoint::Endpoint,
    enums::{RequestMethod, RequestType, ResponseType},
    errors::ClientError,
};
use serde_json::{json, value::RawValue};
use zeroize::Zeroizing;

use super::{
    Engine, Vault,
    answer::{self, Answer},
    failure::Failure,
    version_number,
};
use crate::{
    backend::{Expected, Write, Written},
    fault::{Fault, Reason},
    name::RemoteKey,
    secret::SecretValue,
};

/// A write whose body is overwritten when it is dropped.
struct Change {
    method: RequestMethod,
    path: String,
    body: Zeroizing<Vec<u8>>,
}

impl Endpoint for &Change {
    type Response = ();
    const REQUEST_BODY_TYPE: RequestType = RequestType::JSON;
    const RESPONSE_BODY_TYPE: ResponseType = ResponseType::JSON;

    fn path(&self) -> String {
        self.path.clone()
    }

    fn method(&self) -> RequestMethod {
        self.method.clone()
    }

    fn body(&self) -> Result<Option<Vec<u8>>, ClientError> {
        Ok(Some(self.body.to_vec()))
    }
}

impl Vault {
    /// The way to what is kept of a key, such as `data` or `metadata`.
    fn change(&self, method: RequestMethod, kind: &str, key: &RemoteKey, body: Zeroizing<Vec<u8>>) -> Result<Change, Failure> {
        let Engine::Kv2 { mount } = &self.engine else { return Err(Failure::NoVersions) };
        Ok(Change { method, path: format!("{mount}/{kind}/{}", key.as_str()), body })
    }

    async fn send(&self, key: &RemoteKey, change: Result<Change, Failure>) -> Result<Answer, Fault> {
        let subject = format!("remote key {:?}", key.as_str());
        let change = change.map_err(|failure| failure.fault(&subject))?;
        let answer = tokio::time::timeout(self.deadline, self.session.call(|| &change)).await;
        answer.unwrap_or(Err(Failure::TIMED_OUT)).map_err(|failure| failure.fault(&subject))
    }

    async fn write(&self, method: RequestMethod, key: &RemoteKey, map: &SecretValue, expected: &Expected) -> Result<Written, Fault> {
        let subject = format!("remote key {:?}", key.as_str());
        let body = body(map, expected).map_err(|failure| failure.fault(&subject))?;
        let body = body.ok_or_else(|| Fault::invalid(Reason::InvalidData, format!("{subject}: KV keeps maps: write a JSON object")))?;
        let answer = self.send(key, self.change(method, "data", key, body)).await?;
        answer::written(&answer).map_err(|failure| failure.fault(&subject))
    }

    async fn done(&self, key: &RemoteKey, change: Result<Change, Failure>) -> Result<(), Fault> {
        let answer = self.send(key, change).await?;
        answer::done(&answer).map_err(|failure| failure.fault(&format!("remote key {:?}", key.as_str())))
    }
}

#[async_trait]
impl Write for Vault {
    async fn put(&self, key: &RemoteKey, map: &SecretValue, expected: &Expected) -> Result<Written, Fault> {
        self.write(RequestMethod::POST, key, map, expected).await
    }

    async fn patch(&self, key: &RemoteKey, map: &SecretValue, expected: &Expected) -> Result<Written, Fault> {
        self.write(RequestMethod::PATCH, key, map, expected).await
    }

    async fn delete(&self, key: &RemoteKey) -> Result<(), Fault> {
        self.done(key, self.change(RequestMethod::DELETE, "data", key, Zeroizing::default())).await
    }

    async fn undelete(&self, key: &RemoteKey, version: &str) -> Result<(), Fault> {
        let number = version_number(version).map_err(|failure| failure.fault(&format!("remote key {:?}", key.as_str())))?;
        let body = json!({"versions": [number]}).to_string().into_bytes();
        self.done(key, self.change(RequestMethod::POST, "undelete", key, body.into())).await
    }

    async fn set_metadata(&self, key: &RemoteKey, metadata: &BTreeMap<String, String>) -> Result<(), Fault> {
        let body = json!({"custom_metadata": metadata}).to_string().into_bytes();
        self.done(key, self.change(RequestMethod::POST, "metadata", key, body.into())).await
    }
}

/// The request of a write; `None` when the value is no map.
fn body(map: &SecretValue, expected: &Expected) -> Result<Option<Zeroizing<Vec<u8>>>, Failure> {
    let options = match expected {
        Expected::Anything => "{}".to_owned(),
        Expected::Nothing => r#"{"cas":0}"#.to_owned(),
        Expected::Version(version) => format!(r#"{{"cas":{}}}"#, version_number(version)?),
    };
    let is_map = |text: &&RawValue| text.get().starts_with('{');
    let Some(map) = serde_json::from_slice::<&RawValue>(map.expose()).ok().filter(is_map) else { return Ok(None) };
    let parts: [&[u8]; 5] = [br#"{"data":"#, map.get().as_bytes(), br#","options":"#, options.as_bytes(), b"}"];
    let mut body = Zeroizing::new(Vec::with_capacity(parts.iter().map(|part| part.len()).sum()));
    for part in parts {
        body.extend_from_slice(part);
    }
    Ok(Some(body))
}
