//! What a search finds: names, fifty with one call; all values below a path with their names, ten with one call.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use aws_sdk_ssm::types::ParameterStringFilter;

use super::{Parameters, answer::named};
use crate::{
    backend::{
        List,
        aws::{MAX_NAMES, MAX_PAGES, failure::Failure, in_time, list_of},
    },
    fault::{Fault, Reason},
    item::Fetched,
    name::{ProviderKind, RemoteKey},
};

/// The largest page of names.
const PAGE: i32 = 50;
/// The largest page of values.
const VALUES: i32 = 10;

impl Parameters {
    /// The names below a path, of parameters that carry all of the tags.
    async fn names(&self, path: Option<&str>, tags: &BTreeMap<String, String>) -> Result<Vec<RemoteKey>, Failure> {
        let filters = filters(path, tags);
        let (mut names, mut page) = (BTreeSet::new(), None);
        for _ in 0..MAX_PAGES {
            let call = self.client.describe_parameters().set_parameter_filters(filters.clone()).max_results(PAGE).set_next_token(page);
            let answer = call.send().await.map_err(|error| Failure::of(&error))?;
            // Without its list it is no answer, which the library does not mind.
            for parameter in answer.parameters.ok_or(Failure::Malformed)? {
                names.insert(key(parameter.name())?);
            }
            page = answer.next_token.filter(|token| !token.is_empty());
            if page.is_none() {
                return Ok(names.into_iter().collect());
            }
            if names.len() > MAX_NAMES {
                break;
            }
        }
        Err(Failure::Endless)
    }
}

impl Parameters {
    /// All values below a path, deciphered. One that cannot be makes AWS refuse them all.
    async fn values(&self, path: &str) -> Result<BTreeMap<RemoteKey, Fetched>, Failure> {
        let (mut values, mut page) = (BTreeMap::new(), None);
        for _ in 0..MAX_PAGES {
            let call = self.client.get_parameters_by_path().path(path).recursive(true).with_decryption(true).max_results(VALUES);
            let answer = call.set_next_token(page).send().await.map_err(|error| Failure::of(&error))?;
            for parameter in answer.parameters.ok_or(Failure::Malformed)? {
                let (name, fetched) = named(parameter);
                values.insert(key(name.as_deref())?, fetched?);
            }
            page = answer.next_token.filter(|token| !token.is_empty());
            if page.is_none() {
                return Ok(values);
            }
            if values.len() > MAX_NAMES {
                break;
            }
        }
        Err(Failure::Endless)
    }
}

/// An entry without a name makes the list incomplete.
fn key(name: Option<&str>) -> Result<RemoteKey, Failure> {
    RemoteKey::parse(ProviderKind::AwsParameterStore, name.unwrap_or_default()).map_err(|_| Failure::Malformed)
}

fn filters(path: Option<&str>, tags: &BTreeMap<String, String>) -> Option<Vec<ParameterStringFilter>> {
    let filter = |key: String, option: &str, value: &str| ParameterStringFilter::builder().key(key).option(option).values(value).build();
    let path = path.map(|path| filter("Path".to_owned(), "Recursive", path));
    let tags = tags.iter().map(|(tag, value)| filter(format!("tag:{tag}"), "Equals", value));
    let filters: Result<Vec<_>, _> = path.into_iter().chain(tags).collect();
    Some(filters.expect("each has its key")).filter(|filters| !filters.is_empty())
}

/// The path as AWS takes it.
fn rooted(path: Option<&str>) -> Result<Option<&str>, Fault> {
    let Some(path) = path else { return Ok(None) };
    if !path.starts_with('/') {
        let detail = format!("find.path {path:?}: paths of Parameter Store begin with a slash: write {:?}", format!("/{path}"));
        return Err(Fault::invalid(Reason::InvalidSpec, detail));
    }
    let trimmed = path.trim_end_matches('/');
    Ok(Some(if trimmed.is_empty() { "/" } else { trimmed }))
}

#[async_trait]
impl List for Parameters {
    async fn list(&self, path: Option<&str>) -> Result<Vec<RemoteKey>, Fault> {
        self.list_tagged(path, &BTreeMap::new()).await
    }

    async fn list_tagged(&self, path: Option<&str>, tags: &BTreeMap<String, String>) -> Result<Vec<RemoteKey>, Fault> {
        let below = rooted(path)?;
        in_time(self.deadline, self.names(below, tags)).await.map_err(|failure| failure.of_list().fault(&list_of(path)))
    }

    fn gives_values(&self, path: Option<&str>) -> bool {
        path.is_some() && self.paths.is_there()
    }

    /// What is refused here may be allowed by name, and which value it was refused for is found out there: then the names are listed, and
    /// all at once is not tried again for a while.
    async fn list_values(&self, path: Option<&str>) -> Result<Option<BTreeMap<RemoteKey, Fetched>>, Fault> {
        let Some(below) = rooted(path)? else { return Ok(None) };
        match in_time(self.deadline, self.values(below)).await {
            Ok(values) => Ok(Some(values)),
            Err(Failure::Denied | Failure::Refused | Failure::KeyDenied | Failure::KeyDisabled) => {
                self.paths.lose();
                Ok(None)
            }
            Err(failure) => Err(failure.fault(&list_of(path))),
        }
    }
}
