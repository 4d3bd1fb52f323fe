//! Parameter Store: ten parameters with one call, whatever version is named.

use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_ssm::{
    Client, Config,
    config::{Builder, Region},
    types::{Parameter, ParameterType},
};
use aws_types::SdkConfig;

use super::{failure::Failure, in_time, readings, region_of};
use crate::{
    backend::{Backend, Traits},
    fault::Fault,
    item::{Fetched, Form, Reading},
    name::RemoteRef,
    secret::SecretValue,
};

/// What one `GetParameters` takes.
const BATCH: usize = 10;
/// A name that nobody has, to ask for when only the login matters.
const NOBODY: &str = "/keyferry/no-such-parameter";

/// One region's parameters, and by ARN those of any other.
#[derive(Debug)]
pub(super) struct Parameters {
    client: Client,
    deadline: Duration,
}

impl Parameters {
    pub fn new(config: &SdkConfig, deadline: Duration) -> Self {
        Self { client: Client::new(config), deadline }
    }

    /// Of one region.
    async fn look(&self, refs: &[RemoteRef]) -> Result<Vec<Result<Fetched, Failure>>, Failure> {
        let Some(first) = refs.first() else { return Ok(Vec::new()) };
        let names = refs.iter().map(selector).collect();
        let call = self.client.get_parameters().set_names(Some(names)).with_decryption(true);
        let answer = call.customize().config_override(region(region_of(&first.key))).send().await.map_err(|error| Failure::of(&error))?;
        let (mut parameters, missing) = (answer.parameters.unwrap_or_default(), answer.invalid_parameters.unwrap_or_default());
        Ok(refs.iter().map(|wanted| entry(wanted, &mut parameters, &missing)).collect())
    }
}

fn region(name: Option<&str>) -> Builder {
    let mut config = Config::builder();
    config.set_region(name.map(|name| Region::new(name.to_owned())));
    config
}

/// The name with the version or label that is wanted of it.
fn selector(wanted: &RemoteRef) -> String {
    match &wanted.version {
        Some(version) => format!("{}:{version}", wanted.key.as_str()),
        None => wanted.key.as_str().to_owned(),
    }
}

/// What the service says of one parameter.
fn entry(wanted: &RemoteRef, parameters: &mut Vec<Parameter>, missing: &[String]) -> Result<Fetched, Failure> {
    let asked = selector(wanted);
    if missing.contains(&asked) {
        return Err(if wanted.version.is_some() { Failure::NoVersion } else { Failure::Missing });
    }
    let at = parameters.iter().position(|parameter| is_called(wanted, parameter)).ok_or(Failure::Malformed)?;
    let Parameter { value, version, r#type, .. } = parameters.swap_remove(at);
    let value = SecretValue::from(value.ok_or(Failure::Malformed)?);
    let is_secret = r#type == Some(ParameterType::SecureString);
    Ok(Fetched { value, form: Form::Whole, version: Some(version.to_string()), is_secret })
}

/// Whether it is the one that was asked for: by its name or ARN, and the same version or label.
fn is_called(wanted: &RemoteRef, found: &Parameter) -> bool {
    let key = Some(wanted.key.as_str());
    let version = found.selector().map(|selector| selector.trim_start_matches(':'));
    (found.name() == key || found.arn() == key) && version == wanted.version.as_deref()
}

#[async_trait]
impl Backend for Parameters {
    fn batch_size(&self) -> usize {
        BATCH
    }

    /// With those of the same region.
    fn shares(&self, wanted: &RemoteRef) -> Option<String> {
        (!wanted.is_metadata).then(|| region_of(&wanted.key).unwrap_or_default().to_owned())
    }

    async fn fetch(&self, refs: &[RemoteRef]) -> Vec<Reading> {
        readings(refs, in_time(self.deadline, self.look(refs)).await)
    }

    async fn check(&self) -> Result<Traits, Fault> {
        let call = self.client.get_parameters().names(NOBODY).send();
        match in_time(self.deadline, async { call.await.map_err(|error| Failure::of(&error)) }).await {
            // Whoever is refused one thing was known by its signature.
            Ok(_) | Err(Failure::Denied) => Ok(Traits { has_versions: true }),
            Err(failure) => Err(failure.fault("login check")),
        }
    }
}
