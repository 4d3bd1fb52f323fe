//! Secrets Manager: many secrets with one call, one where a version is named.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use aws_sdk_secretsmanager::{
    Client, Config,
    config::Region,
    types::{ApiErrorType, SecretValueEntry},
};
use aws_smithy_types::Blob;
use aws_types::SdkConfig;
use futures::future::join_all;
use tokio::time::Instant;

use super::{failure::Failure, reading, region_of};
use crate::{
    backend::{Backend, Traits},
    fault::Fault,
    item::{Fetched, Form, Reading},
    name::{RemoteKey, RemoteRef},
    secret::SecretValue,
};

/// What one `BatchGetSecretValue` takes.
const BATCH: usize = 20;
/// The stage of the current version. It is asked for by name: not every server gives it without.
const CURRENT: &str = "AWSCURRENT";
/// How long a store whose identity may not read several at once is left in peace with that.
const BATCHES_PAUSE: Duration = Duration::from_mins(10);
/// A name that nobody has, to ask for when only the login matters.
const NOBODY: &str = "keyferry/no-such-secret";

/// One region's secrets, and by ARN those of any other.
#[derive(Debug)]
pub(super) struct Secrets {
    client: Client,
    deadline: Duration,
    /// Until then nobody asks for several at once: that was refused.
    singly_until: Mutex<Option<Instant>>,
}

impl Secrets {
    pub fn new(config: &SdkConfig, deadline: Duration) -> Self {
        Self { client: Client::new(config), deadline, singly_until: Mutex::default() }
    }

    /// Reads singly for a while; then tries again whether several may be read at once.
    fn pause_batches(&self) {
        *self.singly_until.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + BATCHES_PAUSE);
    }

    fn may_batch(&self) -> bool {
        self.singly_until.lock().unwrap_or_else(PoisonError::into_inner).is_none_or(|until| until <= Instant::now())
    }

    async fn single(&self, wanted: &RemoteRef) -> Result<Fetched, Failure> {
        let call = self.client.get_secret_value().secret_id(wanted.key.as_str());
        let call = match wanted.version.as_deref().map(|version| version.strip_prefix("uuid/").ok_or(version)) {
            None => call.version_stage(CURRENT),
            Some(Ok(id)) => call.version_id(id),
            Some(Err(stage)) => call.version_stage(stage),
        };
        let call = call.customize().config_override(region(region_of(&wanted.key)));
        let answer = call.send().await.map_err(|error| Failure::of(&error))?;
        fetched(answer.secret_string, answer.secret_binary, answer.version_id)
    }

    async fn look(&self, refs: &[RemoteRef]) -> Vec<Result<Fetched, Failure>> {
        if let [] | [_] = refs {
            return join_all(refs.iter().map(|wanted| self.single(wanted))).await;
        }
        match self.batch(refs).await {
            Ok(looks) => looks,
            Err(Failure::BatchDenied) => {
                self.pause_batches();
                join_all(refs.iter().map(|wanted| self.single(wanted))).await
            }
            Err(failure) => vec![Err(failure); refs.len()],
        }
    }

    /// The current versions of several secrets of one region.
    async fn batch(&self, refs: &[RemoteRef]) -> Result<Vec<Result<Fetched, Failure>>, Failure> {
        let ids = refs.iter().map(|wanted| wanted.key.as_str().to_owned()).collect();
        let call = self.client.batch_get_secret_value().set_secret_id_list(Some(ids));
        let call = call.customize().config_override(region(region_of(&refs[0].key)));
        let answer = call.send().await.map_err(|error| Failure::of(&error))?;
        let (mut values, errors) = (answer.secret_values.unwrap_or_default(), answer.errors.unwrap_or_default());
        Ok(refs.iter().map(|wanted| entry(&wanted.key, &mut values, &errors)).collect())
    }
}

fn region(name: Option<&str>) -> aws_sdk_secretsmanager::config::Builder {
    let mut config = Config::builder();
    if let Some(name) = name {
        config.set_region(Some(Region::new(name.to_owned())));
    }
    config
}

/// What a batch says of one secret.
fn entry(key: &RemoteKey, values: &mut Vec<SecretValueEntry>, errors: &[ApiErrorType]) -> Result<Fetched, Failure> {
    if let Some(at) = values.iter().position(|value| is_called(key, value.name(), value.arn())) {
        let SecretValueEntry { secret_string, secret_binary, version_id, .. } = values.swap_remove(at);
        return fetched(secret_string, secret_binary, version_id);
    }
    let error = errors.iter().find(|error| error.secret_id() == Some(key.as_str())).ok_or(Failure::Malformed)?;
    Err(Failure::answered(400, error.error_code(), error.message().unwrap_or_default(), None))
}

/// Whether a secret is the one that was asked for: by its name, or by its ARN with or without the six characters that AWS adds.
fn is_called(key: &RemoteKey, name: Option<&str>, arn: Option<&str>) -> bool {
    let key = key.as_str();
    name == Some(key) || arn.is_some_and(|arn| arn == key || arn.rsplit_once('-').is_some_and(|(short, _)| short == key))
}

fn fetched(text: Option<String>, binary: Option<Blob>, version: Option<String>) -> Result<Fetched, Failure> {
    let value = match (text, binary) {
        (Some(text), None) => SecretValue::from(text),
        (None, Some(bytes)) => SecretValue::new(bytes.into_inner()),
        (Some(_), Some(_)) | (None, None) => return Err(Failure::Malformed),
    };
    Ok(Fetched { value, form: Form::Whole, version, is_secret: true })
}

#[async_trait]
impl Backend for Secrets {
    fn batch_size(&self) -> usize {
        if self.may_batch() { BATCH } else { 1 }
    }

    /// With those of the same region, unless a version is named.
    fn shares(&self, wanted: &RemoteRef) -> Option<String> {
        let is_single = wanted.version.is_some() || wanted.is_metadata;
        (!is_single).then(|| region_of(&wanted.key).unwrap_or_default().to_owned())
    }

    async fn fetch(&self, refs: &[RemoteRef]) -> Vec<Reading> {
        let looks = tokio::time::timeout(self.deadline, self.look(refs)).await;
        let looks = looks.unwrap_or_else(|_| vec![Err(Failure::TIMED_OUT); refs.len()]);
        refs.iter().zip(looks).map(|(wanted, look)| reading(wanted, look)).collect()
    }

    async fn check(&self) -> Result<Traits, Fault> {
        let call = self.client.batch_get_secret_value().secret_id_list(NOBODY).send();
        let answer = match tokio::time::timeout(self.deadline, call).await {
            Err(_) => Err(Failure::TIMED_OUT),
            Ok(answer) => answer.map(drop).map_err(|error| Failure::of(&error)),
        };
        match answer {
            // Whoever is refused one thing was known by its signature.
            Ok(()) | Err(Failure::Denied | Failure::BatchDenied | Failure::Missing) => Ok(Traits { has_versions: true }),
            Err(failure) => Err(failure.fault("login check")),
        }
    }
}
