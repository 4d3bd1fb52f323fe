//! Writing to Parameter Store, which has no check-and-set: of a write that expects a version, the version is looked at first, and somebody
//! else can write in between. Then both versions stand in the parameter's history. One that expects nothing is checked by AWS itself.
//!
//! A new parameter is a SecureString; one that is there keeps its type, which AWS never changes. AWS itself takes the advanced tier where
//! the size asks for it, and never goes back from it.

use std::collections::BTreeMap;

use async_trait::async_trait;
use aws_sdk_ssm::{
    operation::put_parameter::{PutParameterError, builders::PutParameterFluentBuilder},
    types::{ParameterTier, ParameterType, ResourceTypeForTagging, Tag},
};

use super::{Parameters, is_version};
use crate::{
    backend::{
        Expected, Write, Written,
        aws::{failure::Failure, in_time, members::merged},
    },
    fault::{Fault, Reason},
    item::Fetched,
    name::{RemoteKey, RemoteRef},
    secret::SecretValue,
};

/// What a parameter of the advanced tier may hold, in bytes.
const MOST: usize = 8_192;

impl Parameters {
    fn putting(&self, key: &RemoteKey, value: &str) -> PutParameterFluentBuilder {
        self.client.put_parameter().name(key.as_str()).value(value).tier(ParameterTier::IntelligentTiering)
    }

    /// A new parameter; `Changed` where there is one.
    async fn create(&self, key: &RemoteKey, value: &str) -> Result<Written, Failure> {
        match self.putting(key, value).r#type(ParameterType::SecureString).overwrite(false).send().await {
            Ok(answer) => written(answer.version),
            Err(error) if error.as_service_error().is_some_and(PutParameterError::is_parameter_already_exists) => Ok(Written::Changed),
            Err(error) => Err(Failure::of(&error)),
        }
    }

    async fn overwrite(&self, key: &RemoteKey, value: &str) -> Result<Written, Failure> {
        let answer = self.putting(key, value).overwrite(true).send().await.map_err(|error| Failure::of(&error))?;
        written(answer.version)
    }

    async fn written(&self, key: &RemoteKey, value: &str, expected: &Expected) -> Result<Written, Failure> {
        match expected {
            Expected::Nothing => self.create(key, value).await,
            Expected::Anything => match self.create(key, value).await? {
                Written::Changed => self.overwrite(key, value).await,
                created @ Written::Version(_) => Ok(created),
            },
            Expected::Version(_) => match self.current(key, expected).await? {
                Some(_) => self.overwrite(key, value).await,
                None => Ok(Written::Changed),
            },
        }
    }

    /// What stands there, if it is what is expected.
    async fn current(&self, key: &RemoteKey, expected: &Expected) -> Result<Option<Fetched>, Failure> {
        let current = match self.one(&RemoteRef { key: key.clone(), version: None, is_metadata: false }).await {
            Err(Failure::Missing) => return Ok(None),
            current => current?,
        };
        Ok(match expected {
            Expected::Nothing => None,
            Expected::Version(version) => Some(current).filter(|current| current.version.as_ref() == Some(version)),
            Expected::Anything => Some(current),
        })
    }

    /// `None` where no members can be changed: one of the two is no map, or what comes of it is too large.
    async fn patched(&self, key: &RemoteKey, changes: &SecretValue, expected: &Expected) -> Result<Option<Written>, Failure> {
        let Some(current) = self.current(key, expected).await? else { return Ok(Some(Written::Changed)) };
        let merged = merged(&current.value, changes);
        let Some(text) = merged.as_ref().and_then(text) else { return Ok(None) };
        self.overwrite(key, text).await.map(Some)
    }

    async fn retagged(&self, key: &RemoteKey, tags: &BTreeMap<String, String>) -> Result<(), Failure> {
        let kind = ResourceTypeForTagging::Parameter;
        let call = self.client.list_tags_for_resource().resource_type(kind.clone()).resource_id(key.as_str());
        let found = call.send().await.map_err(|error| Failure::of(&error))?.tag_list.ok_or(Failure::Malformed)?;
        // Those are AWS's own.
        let gone = found.iter().map(Tag::key).filter(|tag| !tags.contains_key(*tag) && !tag.starts_with("aws:"));
        let gone: Vec<String> = gone.map(str::to_owned).collect();
        if !gone.is_empty() {
            let call = self.client.remove_tags_from_resource().resource_type(kind.clone()).resource_id(key.as_str());
            call.set_tag_keys(Some(gone)).send().await.map_err(|error| Failure::of(&error))?;
        }
        if !tags.is_empty() {
            let tags = tags.iter().map(|(tag, value)| Tag::builder().key(tag).value(value).build().expect("it has both"));
            let call = self.client.add_tags_to_resource().resource_type(kind).resource_id(key.as_str());
            call.set_tags(Some(tags.collect())).send().await.map_err(|error| Failure::of(&error))?;
        }
        Ok(())
    }
}

fn written(version: i64) -> Result<Written, Failure> {
    if version > 0 { Ok(Written::Version(version.to_string())) } else { Err(Failure::Malformed) }
}

/// A value as a parameter can hold it.
fn text(value: &SecretValue) -> Option<&str> {
    str::from_utf8(value.expose()).ok().filter(|text| (1..=MOST).contains(&text.len()))
}

fn subject(key: &RemoteKey) -> String {
    format!("remote key {:?}", key.as_str())
}

fn invalid(reason: Reason, key: &RemoteKey, what: &str) -> Fault {
    Fault::invalid(reason, format!("{}: {what}", subject(key)))
}

/// A word that is no version is never the current one, and a label is none that a write could expect.
fn judged(key: &RemoteKey, expected: &Expected) -> Result<(), Fault> {
    let Expected::Version(version) = expected else { return Ok(()) };
    let wanted = RemoteRef { key: key.clone(), version: Some(version.clone()), is_metadata: false };
    if is_version(&wanted) && version.parse::<i64>().is_ok() {
        return Ok(());
    }
    Err(invalid(Reason::InvalidSpec, key, "versions of Parameter Store are numbers: expect a number from 1 on"))
}

#[async_trait]
impl Write for Parameters {
    async fn put(&self, key: &RemoteKey, value: &SecretValue, expected: &Expected) -> Result<Written, Fault> {
        judged(key, expected)?;
        let text = text(value).ok_or_else(|| {
            let what = format!("Parameter Store keeps text of 1 to {MOST} bytes: write another value");
            invalid(Reason::InvalidData, key, &what)
        })?;
        in_time(self.deadline, self.written(key, text, expected)).await.map_err(|failure| failure.fault(&subject(key)))
    }

    async fn patch(&self, key: &RemoteKey, value: &SecretValue, expected: &Expected) -> Result<Written, Fault> {
        judged(key, expected)?;
        let patched = in_time(self.deadline, self.patched(key, value, expected)).await.map_err(|failure| failure.fault(&subject(key)))?;
        let what = format!("only members of a JSON object can be changed, up to {MOST} bytes in all: write a JSON object");
        patched.ok_or_else(|| invalid(Reason::InvalidData, key, &what))
    }

    /// For good: AWS keeps nothing of it.
    async fn delete(&self, key: &RemoteKey) -> Result<(), Fault> {
        let call = self.client.delete_parameter().name(key.as_str()).send();
        match in_time(self.deadline, async { call.await.map_err(|error| Failure::of(&error)) }).await {
            Ok(_) | Err(Failure::Missing) => Ok(()),
            Err(failure) => Err(failure.fault(&subject(key))),
        }
    }

    async fn undelete(&self, key: &RemoteKey, _version: &str) -> Result<(), Fault> {
        Err(invalid(Reason::InvalidSpec, key, "Parameter Store keeps nothing of a deleted parameter: write it anew"))
    }

    /// As tags.
    async fn set_metadata(&self, key: &RemoteKey, metadata: &BTreeMap<String, String>) -> Result<(), Fault> {
        in_time(self.deadline, self.retagged(key, metadata)).await.map_err(|failure| failure.fault(&subject(key)))
    }
}
