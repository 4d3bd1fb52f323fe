//! Parameter Store: ten parameters with one call, whatever version is named; all of a path ten at a time.
//!
//! `answer` says which parameter of an answer is whose. Nothing tells by a cheaper call that a value has not changed: describing one
//! parameter costs as much as reading ten.

mod answer;
mod list;
#[cfg(test)]
mod tests;
mod write;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use async_trait::async_trait;
use aws_sdk_ssm::{
    Client, Config,
    config::{Builder, Region},
    operation::list_tags_for_resource::ListTagsForResourceError,
    types::ResourceTypeForTagging,
};
use aws_types::SdkConfig;
use futures::future::join_all;

use super::{Patience, failure::Failure, in_time, readings, region_of};
use crate::{
    backend::{Backend, List, Traits, Write},
    fault::Fault,
    item::{Fetched, Form, Reading},
    name::RemoteRef,
    secret::SecretValue,
};
use answer::{Answer, selector};

/// What one `GetParameters` takes.
const BATCH: usize = 10;
/// A name that nobody has, to ask for when only the login matters.
const NOBODY: &str = "/keyferry/no-such-parameter";
/// Longest label, in characters (`docs.aws.amazon.com/systems-manager`, "Working with parameter labels").
const LONGEST_LABEL: usize = 100;

/// One region's parameters, and by ARN those of any other.
#[derive(Debug)]
pub(super) struct Parameters {
    client: Client,
    deadline: Duration,
    region: String,
    /// Several at once.
    batches: Patience,
    /// All values of a path.
    paths: Patience,
}

impl Parameters {
    pub fn new(config: &SdkConfig, deadline: Duration) -> Self {
        let region = config.region().map(ToString::to_string).unwrap_or_default();
        Self { client: Client::new(config), deadline, region, batches: Patience::default(), paths: Patience::default() }
    }

    /// At values of one region, or at what stands beside one.
    async fn look(&self, refs: &[RemoteRef]) -> Result<Vec<Result<Fetched, Failure>>, Failure> {
        match refs {
            [] => Ok(Vec::new()),
            [one] => Ok(vec![self.one(one).await]),
            several if self.batches.is_there() => self.batch(several).await,
            several => Ok(join_all(several.iter().map(|wanted| self.one(wanted))).await),
        }
    }

    /// Each by its own word, and those that the answer cannot tell apart one by one.
    async fn batch(&self, refs: &[RemoteRef]) -> Result<Vec<Result<Fetched, Failure>>, Failure> {
        let asked: BTreeSet<&RemoteRef> = refs.iter().filter(|wanted| is_version(wanted)).collect();
        let answer = match asked.first() {
            Some(_) => self.together(&asked).await.map_err(of_one_among_several)?,
            None => Answer::default(),
        };
        let (answer, asked) = (&answer, &asked);
        let told = refs.iter().map(|wanted| async move {
            if !is_version(wanted) {
                return Err(Failure::Refused);
            }
            match answer.told(wanted, asked) {
                Some(told) => told,
                None => self.one(wanted).await,
            }
        });
        Ok(join_all(told).await)
    }

    /// Allowed to read several at once or not: what is allowed for one key may be refused for another, so a refusal is the key's only when
    /// both calls are refused.
    async fn one(&self, wanted: &RemoteRef) -> Result<Fetched, Failure> {
        if wanted.is_metadata {
            return self.beside(wanted).await;
        }
        if !is_version(wanted) {
            return Err(Failure::Refused);
        }
        if self.batches.is_there() {
            let told = self.by_list(wanted).await;
            let Err(Failure::Denied) = told else { return told };
            let told = self.by_name(wanted).await;
            if matches!(told, Ok(_) | Err(Failure::Missing | Failure::NoVersion | Failure::KeyDisabled | Failure::KeyDenied)) {
                self.batches.lose();
            }
            return told;
        }
        match self.by_name(wanted).await {
            Err(Failure::Denied) => self.by_list(wanted).await,
            told => told,
        }
    }

    async fn by_list(&self, wanted: &RemoteRef) -> Result<Fetched, Failure> {
        let asked = BTreeSet::from([wanted]);
        self.together(&asked).await?.told(wanted, &asked).unwrap_or(Err(Failure::Malformed))
    }

    async fn by_name(&self, wanted: &RemoteRef) -> Result<Fetched, Failure> {
        let call = self.client.get_parameter().name(selector(wanted)).with_decryption(true);
        let answer = call.customize().config_override(self.region_of(wanted)).send().await.map_err(|error| Failure::of(&error))?;
        let asked = BTreeSet::from([wanted]);
        Answer::of(answer.parameter.into_iter().collect(), &[]).told(wanted, &asked).unwrap_or(Err(Failure::Malformed))
    }

    /// At least one, all of one region.
    async fn together(&self, asked: &BTreeSet<&RemoteRef>) -> Result<Answer, Failure> {
        let Some(first) = asked.first() else { return Ok(Answer::default()) };
        let names = asked.iter().map(|wanted| selector(wanted)).collect();
        let call = self.client.get_parameters().set_names(Some(names)).with_decryption(true);
        let answer = call.customize().config_override(self.region_of(first)).send().await.map_err(|error| Failure::of(&error))?;
        Ok(Answer::of(answer.parameters.unwrap_or_default(), &answer.invalid_parameters.unwrap_or_default()))
    }

    /// The tags of a parameter as a JSON object. AWS gives them by name only, and to the account that the parameter belongs to.
    async fn beside(&self, wanted: &RemoteRef) -> Result<Fetched, Failure> {
        if region_of(&wanted.key).is_some() {
            return Err(Failure::TagsByArn);
        }
        let call = self.client.list_tags_for_resource().resource_type(ResourceTypeForTagging::Parameter).resource_id(wanted.key.as_str());
        let answer = call.send().await.map_err(|error| match error.as_service_error() {
            Some(ListTagsForResourceError::InvalidResourceId(_)) => Failure::Missing,
            _ => Failure::of(&error),
        })?;
        let tags = answer.tag_list.ok_or(Failure::Malformed)?;
        let tags: BTreeMap<&str, &str> = tags.iter().map(|tag| (tag.key(), tag.value())).collect();
        let value = SecretValue::from(serde_json::json!(tags).to_string());
        Ok(Fetched { value, form: Form::Whole, version: None, is_secret: false })
    }

    fn region_of(&self, wanted: &RemoteRef) -> Builder {
        let mut config = Config::builder();
        config.set_region(Some(Region::new(region_of(&wanted.key).unwrap_or(&self.region).to_owned())));
        config
    }
}

/// What a call for several keys says for one of them: which one is found out above, where the call is halved.
fn of_one_among_several(failure: Failure) -> Failure {
    match failure {
        Failure::KeyDisabled => Failure::Refused,
        other => other,
    }
}

/// Whether what is wanted can be a version: a number from 1 on, as AWS spells it, or a label.
fn is_version(wanted: &RemoteRef) -> bool {
    let Some(version) = &wanted.version else { return true };
    let is_number = version.parse::<i64>().is_ok_and(|number| number > 0 && number.to_string() == *version);
    let is_of_a_label = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    let begins_as_a_label = version.bytes().next().is_some_and(|byte| !byte.is_ascii_digit());
    is_number || begins_as_a_label && version.len() <= LONGEST_LABEL && version.bytes().all(is_of_a_label)
}

#[async_trait]
impl Backend for Parameters {
    fn batch_size(&self) -> usize {
        if self.batches.is_there() { BATCH } else { 1 }
    }

    /// With those of the same region.
    fn shares(&self, wanted: &RemoteRef) -> Option<String> {
        (!wanted.is_metadata).then(|| region_of(&wanted.key).unwrap_or(&self.region).to_owned())
    }

    async fn fetch(&self, refs: &[RemoteRef]) -> Vec<Reading> {
        readings(refs, in_time(self.deadline, self.look(refs)).await)
    }

    /// Where several may not be read at once, and one may, that shows in the store's capabilities.
    async fn check(&self) -> Result<Traits, Fault> {
        let call = self.client.get_parameters().names(NOBODY).send();
        let several = in_time(self.deadline, async { call.await.map_err(|error| Failure::of(&error)) }).await;
        let checked = match several {
            Err(Failure::Denied) => {
                let call = self.client.get_parameter().name(NOBODY).send();
                let one = in_time(self.deadline, async { call.await.map_err(|error| Failure::of(&error)) }).await;
                if let Ok(_) | Err(Failure::Missing) = &one {
                    self.batches.lose();
                }
                one.map(drop)
            }
            other => other.map(|_| self.batches.regain()),
        };
        match checked {
            // Whoever is refused one thing was known by its signature.
            Ok(()) | Err(Failure::Denied | Failure::Missing) => Ok(Traits { has_versions: true }),
            Err(failure) => Err(failure.fault("login check")),
        }
    }

    fn lister(&self) -> Option<&dyn List> {
        Some(self)
    }

    fn writer(&self) -> Option<&dyn Write> {
        Some(self)
    }
}
