//! Secrets Manager: many secrets with one call, one where a version is named.
//!
//! Nothing tells by a cheaper call that a value has not changed: a list is up to five minutes old (docs.aws.amazon.com/secretsmanager,
//! ListSecrets), and describing one secret costs as much as reading twenty.

mod write;

use std::{collections::BTreeMap, time::Duration};

use async_trait::async_trait;
use aws_sdk_secretsmanager::{
    Client, Config,
    config::Region,
    types::{ApiErrorType, Filter, FilterNameStringType, SecretListEntry, SecretValueEntry},
};
use aws_smithy_types::Blob;
use aws_types::SdkConfig;
use futures::future::join_all;

use super::{MAX_NAMES, MAX_PAGES, Patience, failure::Failure, in_time, list_of, readings, region_of};
use crate::{
    backend::{Backend, List, Traits, Write},
    fault::Fault,
    item::{Fetched, Form, Reading},
    name::{ProviderKind, RemoteKey, RemoteRef},
    secret::SecretValue,
};

/// What one `BatchGetSecretValue` takes.
const BATCH: usize = 20;
/// The largest page of a list.
const PAGE: i32 = 100;
/// The stage of the current version. It is asked for by name: not every server gives it without.
const CURRENT: &str = "AWSCURRENT";
/// What stands before the id of a version.
const BY_ID: &str = "uuid/";
/// A name that nobody has, to ask for when only the login matters.
const NOBODY: &str = "keyferry/no-such-secret";

/// One region's secrets, and by ARN those of any other.
#[derive(Debug)]
pub(super) struct Secrets {
    client: Client,
    deadline: Duration,
    /// Several at once.
    batches: Patience,
}

impl Secrets {
    pub fn new(config: &SdkConfig, deadline: Duration) -> Self {
        Self { client: Client::new(config), deadline, batches: Patience::default() }
    }

    async fn one(&self, wanted: &RemoteRef) -> Result<Fetched, Failure> {
        if wanted.is_metadata { self.beside(&wanted.key).await } else { self.single(wanted).await }
    }

    async fn single(&self, wanted: &RemoteRef) -> Result<Fetched, Failure> {
        let call = self.client.get_secret_value().secret_id(wanted.key.as_str());
        let call = match wanted.version.as_deref().map(|version| version.strip_prefix(BY_ID).ok_or(version)) {
            None => call.version_stage(CURRENT),
            Some(Ok(id)) => call.version_id(id),
            Some(Err(stage)) => call.version_stage(stage),
        };
        let call = call.customize().config_override(region(region_of(&wanted.key)));
        let answer = call.send().await.map_err(|error| Failure::of(&error))?;
        fetched(answer.secret_string, answer.secret_binary, answer.version_id.as_deref())
    }

    async fn look(&self, refs: &[RemoteRef]) -> Result<Vec<Result<Fetched, Failure>>, Failure> {
        if let [one] = refs {
            return Ok(vec![self.one(one).await]);
        }
        match self.batch(refs).await {
            Err(Failure::BatchDenied) => {
                self.batches.lose();
                Ok(join_all(refs.iter().map(|wanted| self.one(wanted))).await)
            }
            looks => looks,
        }
    }

    /// The current versions of several secrets of one region.
    async fn batch(&self, refs: &[RemoteRef]) -> Result<Vec<Result<Fetched, Failure>>, Failure> {
        let ids: Vec<String> = refs.iter().map(|wanted| wanted.key.as_str().to_owned()).collect();
        let (mut values, mut errors, mut page) = (Vec::new(), Vec::new(), None);
        // A page for each secret at most, were they all of the largest size.
        for _ in 0..=refs.len() {
            let call = self.client.batch_get_secret_value().set_secret_id_list(Some(ids.clone())).set_next_token(page);
            let call = call.customize().config_override(region(region_of(&refs[0].key)));
            let answer = call.send().await.map_err(|error| Failure::of(&error))?;
            values.extend(answer.secret_values.into_iter().flatten().map(Entry::of));
            errors.extend(answer.errors.unwrap_or_default());
            page = answer.next_token;
            if page.is_none() {
                return Ok(refs.iter().map(|wanted| told(&wanted.key, &values, &errors)).collect());
            }
        }
        Err(Failure::Malformed)
    }

    /// The tags of a secret as a JSON object.
    async fn beside(&self, key: &RemoteKey) -> Result<Fetched, Failure> {
        let call = self.client.describe_secret().secret_id(key.as_str()).customize().config_override(region(region_of(key)));
        let answer = call.send().await.map_err(|error| Failure::of(&error))?;
        let tags: BTreeMap<&str, &str> =
            answer.tags().iter().filter_map(|tag| Some((tag.key()?, tag.value().unwrap_or_default()))).collect();
        let value = SecretValue::from(serde_json::json!(tags).to_string());
        Ok(Fetched { value, form: Form::Whole, version: None, is_secret: false })
    }

    /// The names below a path, of secrets that carry all of the tags.
    async fn names(&self, path: Option<&str>, tags: &BTreeMap<String, String>) -> Result<Vec<RemoteKey>, Failure> {
        let prefix = path.map(|path| format!("{}/", path.trim_end_matches('/')));
        let filter = |name, value: String| Filter::builder().key(name).values(value).build();
        let filters: Vec<Filter> = prefix
            .iter()
            .map(|prefix| filter(FilterNameStringType::Name, prefix.clone()))
            .chain(tags.keys().map(|tag| filter(FilterNameStringType::TagKey, tag.clone())))
            .collect();
        let filters = Some(filters).filter(|filters| !filters.is_empty());
        let (mut names, mut page) = (Vec::new(), None);
        for _ in 0..MAX_PAGES {
            let call = self.client.list_secrets().set_filters(filters.clone()).include_planned_deletion(true).max_results(PAGE);
            let answer = call.set_next_token(page).send().await.map_err(|error| Failure::of(&error))?;
            // Without its list it is no answer, which the library does not mind; nor that an entry has no name.
            for entry in answer.secret_list.ok_or(Failure::Malformed)? {
                let name = entry.name().ok_or(Failure::Malformed)?;
                if has_all(&entry, tags) && prefix.as_ref().is_none_or(|prefix| name.starts_with(prefix)) {
                    names.extend(RemoteKey::parse(ProviderKind::AwsSecretsManager, name));
                }
            }
            page = answer.next_token.filter(|token| !token.is_empty());
            if page.is_none() {
                return Ok(names);
            }
            if names.len() > MAX_NAMES {
                break;
            }
        }
        Err(Failure::Endless)
    }
}

fn has_all(entry: &SecretListEntry, tags: &BTreeMap<String, String>) -> bool {
    tags.iter().all(|(key, value)| entry.tags().iter().any(|tag| tag.key() == Some(key) && tag.value() == Some(value)))
}

fn region(name: Option<&str>) -> aws_sdk_secretsmanager::config::Builder {
    let mut config = Config::builder();
    if let Some(name) = name {
        config.set_region(Some(Region::new(name.to_owned())));
    }
    config
}

/// A secret of a batch.
struct Entry {
    name: Option<String>,
    arn: Option<String>,
    fetched: Result<Fetched, Failure>,
}

impl Entry {
    fn of(value: SecretValueEntry) -> Self {
        let SecretValueEntry { name, arn, secret_string, secret_binary, version_id, .. } = value;
        Self { name, arn, fetched: fetched(secret_string, secret_binary, version_id.as_deref()) }
    }

    /// Whether it is the one that was asked for: by its name, or by its ARN with or without the six characters that AWS adds.
    fn is(&self, key: &RemoteKey) -> bool {
        let key = Some(key.as_str());
        let arn = self.arn.as_deref();
        self.name.as_deref() == key || arn == key || arn.and_then(|arn| arn.rsplit_once('-')).map(|(short, _)| short) == key
    }
}

/// What a batch says of one secret; several keys may be of the same.
fn told(key: &RemoteKey, values: &[Entry], errors: &[ApiErrorType]) -> Result<Fetched, Failure> {
    if let Some(entry) = values.iter().find(|entry| entry.is(key)) {
        return entry.fetched.clone();
    }
    let error = errors.iter().find(|error| error.secret_id() == Some(key.as_str())).ok_or(Failure::Malformed)?;
    Err(Failure::answered(400, error.error_code(), error.message().unwrap_or_default(), None))
}

/// A version as manifests pin it: `uuid/` and its id. Any other word is the name of a stage.
fn pinned(id: &str) -> String {
    format!("{BY_ID}{id}")
}

fn fetched(text: Option<String>, binary: Option<Blob>, version: Option<&str>) -> Result<Fetched, Failure> {
    let value = match (text, binary) {
        (Some(text), None) => SecretValue::from(text),
        (None, Some(bytes)) => SecretValue::new(bytes.into_inner()),
        (Some(_), Some(_)) | (None, None) => return Err(Failure::Malformed),
    };
    Ok(Fetched { value, form: Form::Whole, version: version.map(pinned), is_secret: true })
}

#[async_trait]
impl Backend for Secrets {
    fn batch_size(&self) -> usize {
        if self.batches.is_there() { BATCH } else { 1 }
    }

    /// With those of the same region, unless a version is named.
    fn shares(&self, wanted: &RemoteRef) -> Option<String> {
        let is_single = wanted.version.is_some() || wanted.is_metadata;
        (!is_single).then(|| region_of(&wanted.key).unwrap_or_default().to_owned())
    }

    async fn fetch(&self, refs: &[RemoteRef]) -> Vec<Reading> {
        readings(refs, in_time(self.deadline, self.look(refs)).await)
    }

    /// By a call for several secrets, so that whether it is allowed shows in the store's capabilities.
    async fn check(&self) -> Result<Traits, Fault> {
        let call = self.client.batch_get_secret_value().secret_id_list(NOBODY).send();
        match in_time(self.deadline, async { call.await.map_err(|error| Failure::of(&error)) }).await {
            Ok(answer) if answer.errors.is_none() && answer.secret_values.is_none() => return Err(Failure::Malformed.fault("login check")),
            // Whoever is refused one thing was known by its signature.
            Err(Failure::BatchDenied) => self.batches.lose(),
            Ok(_) | Err(Failure::Denied | Failure::Missing) => self.batches.regain(),
            Err(failure) => return Err(failure.fault("login check")),
        }
        Ok(Traits { has_versions: true })
    }

    fn lister(&self) -> Option<&dyn List> {
        Some(self)
    }

    fn writer(&self) -> Option<&dyn Write> {
        Some(self)
    }
}

#[async_trait]
impl List for Secrets {
    async fn list(&self, path: Option<&str>) -> Result<Vec<RemoteKey>, Fault> {
        self.list_tagged(path, &BTreeMap::new()).await
    }

    async fn list_tagged(&self, path: Option<&str>, tags: &BTreeMap<String, String>) -> Result<Vec<RemoteKey>, Fault> {
        in_time(self.deadline, self.names(path, tags)).await.map_err(|failure| failure.of_list().fault(&list_of(path)))
    }
}
