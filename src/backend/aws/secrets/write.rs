//! Writing to Secrets Manager. Check-and-set goes by the stage of the current version, which AWS moves only from the version that is named.

use std::collections::BTreeMap;

use async_trait::async_trait;
use aws_lc_rs::rand;
use aws_sdk_secretsmanager::{
    operation::{
        create_secret::CreateSecretError, put_secret_value::PutSecretValueError, update_secret_version_stage::UpdateSecretVersionStageError,
    },
    types::Tag,
};
use aws_smithy_types::Blob;

use super::{BY_ID, CURRENT, Secrets, pinned};
use crate::{
    backend::{
        Expected, Write, Written,
        aws::{failure::Failure, in_time, members::merged},
    },
    fault::{Fault, Reason},
    name::{RemoteKey, RemoteRef},
    secret::SecretValue,
};

/// What a secret may hold.
const MOST: usize = 65_536;
/// The stage of a version that is to become the current one.
const NEXT: &str = "KEYFERRYNEXT";
/// The longest that AWS keeps what was deleted, and what it keeps it by itself.
const RECOVERABLE_DAYS: i64 = 30;

type Bytes = (Option<String>, Option<Blob>);

impl Secrets {
    /// A new secret; `Changed` where there is one.
    async fn create(&self, key: &RemoteKey, (text, binary): Bytes) -> Result<Written, Failure> {
        let call = self.client.create_secret().name(key.as_str()).client_request_token(token()).set_secret_string(text);
        match call.set_secret_binary(binary).send().await {
            Ok(answer) => answer.version_id.map(|id| Written::Version(pinned(&id))).ok_or(Failure::Malformed),
            Err(error) if error.as_service_error().is_some_and(CreateSecretError::is_resource_exists_exception) => Ok(Written::Changed),
            Err(error) => Err(Failure::of(&error)),
        }
    }

    /// A new version under a stage; `None` where there is no such secret.
    async fn add(&self, key: &RemoteKey, (text, binary): Bytes, stage: &str) -> Result<Option<String>, Failure> {
        let call = self.client.put_secret_value().secret_id(key.as_str()).client_request_token(token()).version_stages(stage);
        match call.set_secret_string(text).set_secret_binary(binary).send().await {
            Ok(answer) => answer.version_id.map(Some).ok_or(Failure::Malformed),
            Err(error) if error.as_service_error().is_some_and(PutSecretValueError::is_resource_not_found_exception) => Ok(None),
            Err(error) => Err(Failure::of(&error)),
        }
    }

    /// The current version, if it is `former`, becomes another.
    async fn replace(&self, key: &RemoteKey, bytes: Bytes, former: &str) -> Result<Written, Failure> {
        let Some(next) = self.add(key, bytes, NEXT).await? else { return Ok(Written::Changed) };
        let call = self.client.update_secret_version_stage().secret_id(key.as_str()).version_stage(CURRENT);
        match call.move_to_version_id(&next).remove_from_version_id(former.trim_start_matches(BY_ID)).send().await {
            Ok(_) => Ok(Written::Version(pinned(&next))),
            Err(error) if error.as_service_error().is_some_and(is_elsewhere) => Ok(Written::Changed),
            Err(error) => Err(Failure::of(&error)),
        }
    }

    async fn written(&self, key: &RemoteKey, value: &SecretValue, expected: &Expected) -> Result<Written, Failure> {
        match expected {
            Expected::Nothing => self.create(key, bytes(value)).await,
            Expected::Version(former) => self.replace(key, bytes(value), former).await,
            Expected::Anything => match self.add(key, bytes(value), CURRENT).await? {
                Some(version) => Ok(Written::Version(pinned(&version))),
                None => self.create(key, bytes(value)).await,
            },
        }
    }

    /// The current map with some of its members changed, if it is still the current one then.
    async fn patched(&self, key: &RemoteKey, changes: &SecretValue, expected: &Expected) -> Result<Option<Written>, Failure> {
        let current = self.single(&RemoteRef { key: key.clone(), version: None, is_metadata: false }).await;
        let current = match current {
            Err(Failure::Missing | Failure::NoVersion) => return Ok(Some(Written::Changed)),
            other => other?,
        };
        let version = current.version.ok_or(Failure::Malformed)?;
        if matches!(expected, Expected::Nothing) || matches!(expected, Expected::Version(wanted) if *wanted != version) {
            return Ok(Some(Written::Changed));
        }
        let Some(merged) = merged(&current.value, changes) else { return Ok(None) };
        self.replace(key, bytes(&merged), &version).await.map(Some)
    }

    async fn retagged(&self, key: &RemoteKey, tags: &BTreeMap<String, String>) -> Result<(), Failure> {
        let found = self.client.describe_secret().secret_id(key.as_str()).send().await.map_err(|error| Failure::of(&error))?;
        // Those are AWS's own.
        let gone = found.tags().iter().filter_map(Tag::key).filter(|tag| !tags.contains_key(*tag) && !tag.starts_with("aws:"));
        let gone: Vec<String> = gone.map(str::to_owned).collect();
        if !gone.is_empty() {
            let call = self.client.untag_resource().secret_id(key.as_str()).set_tag_keys(Some(gone));
            call.send().await.map_err(|error| Failure::of(&error))?;
        }
        if !tags.is_empty() {
            let tags = tags.iter().map(|(tag, value)| Tag::builder().key(tag).value(value).build()).collect();
            let call = self.client.tag_resource().secret_id(key.as_str()).set_tags(Some(tags));
            call.send().await.map_err(|error| Failure::of(&error))?;
        }
        Ok(())
    }
}

#[async_trait]
impl Write for Secrets {
    async fn put(&self, key: &RemoteKey, value: &SecretValue, expected: &Expected) -> Result<Written, Fault> {
        fits(key, value)?;
        in_time(self.deadline, self.written(key, value, expected)).await.map_err(|failure| failure.fault(&subject(key)))
    }

    async fn patch(&self, key: &RemoteKey, value: &SecretValue, expected: &Expected) -> Result<Written, Fault> {
        fits(key, value)?;
        let patched = in_time(self.deadline, self.patched(key, value, expected)).await.map_err(|failure| failure.fault(&subject(key)))?;
        patched.ok_or_else(|| {
            let detail = format!("{}: only a JSON object has members to change: write a JSON object", subject(key));
            Fault::invalid(Reason::InvalidData, detail)
        })
    }

    /// Kept by AWS for 30 days.
    async fn delete(&self, key: &RemoteKey) -> Result<(), Fault> {
        let call = self.client.delete_secret().secret_id(key.as_str()).recovery_window_in_days(RECOVERABLE_DAYS).send();
        match in_time(self.deadline, async { call.await.map_err(|error| Failure::of(&error)) }).await {
            Ok(_) | Err(Failure::Missing | Failure::Deleted) => Ok(()),
            Err(failure) => Err(failure.fault(&subject(key))),
        }
    }

    /// All versions come back with the secret.
    async fn undelete(&self, key: &RemoteKey, _version: &str) -> Result<(), Fault> {
        let call = self.client.restore_secret().secret_id(key.as_str()).send();
        let restored = in_time(self.deadline, async { call.await.map_err(|error| Failure::of(&error)) }).await;
        restored.map(drop).map_err(|failure| failure.fault(&subject(key)))
    }

    /// As tags.
    async fn set_metadata(&self, key: &RemoteKey, metadata: &BTreeMap<String, String>) -> Result<(), Fault> {
        in_time(self.deadline, self.retagged(key, metadata)).await.map_err(|failure| failure.fault(&subject(key)))
    }
}

fn subject(key: &RemoteKey) -> String {
    format!("remote key {:?}", key.as_str())
}

fn fits(key: &RemoteKey, value: &SecretValue) -> Result<(), Fault> {
    if (1..=MOST).contains(&value.len()) {
        return Ok(());
    }
    let detail = format!("{}: Secrets Manager keeps 1 to {MOST} bytes: write another value", subject(key));
    Err(Fault::invalid(Reason::InvalidData, detail))
}

/// Text as text: what is shown in AWS's console.
fn bytes(value: &SecretValue) -> Bytes {
    match str::from_utf8(value.expose()) {
        Ok(text) => (Some(text.to_owned()), None),
        Err(_) => (None, Some(Blob::new(value.expose()))),
    }
}

/// Whether the stage was not where it was expected.
fn is_elsewhere(error: &UpdateSecretVersionStageError) -> bool {
    error.is_invalid_parameter_exception()
}

/// A UUID by which AWS knows a repeated call, and the version afterwards. Random: one that is made of the value would tell about it.
fn token() -> String {
    let mut bytes = [0; 16];
    rand::fill(&mut bytes).expect("the system has randomness");
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = format!("{:032x}", u128::from_be_bytes(bytes));
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}
