//! The subjects whose store is memory: variables of the operator, values of a manifest.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use keyferry::{
    backend::{Backend, Credentials, Settings, open},
    crd::v1alpha1::{EnvProvider, EnvStyle, FakeProvider, FakeValue, Provider},
    fault::Fault,
    name::{ProviderKind, StoreName},
    secret::SecretValue,
};

use super::subject::{CANARY, Payload, Subject, Written};

fn store_name() -> StoreName {
    StoreName::Cluster { name: "contract".into() }
}

/// Variables with hierarchy, as only those name every key that a row lists.
#[derive(Default)]
pub struct Env {
    variables: BTreeMap<String, Vec<u8>>,
}

/// `app/db` is `APP__APP__DB`: written down here once more, as a user would.
fn variable(key: &str) -> String {
    format!("APP__{}", key.to_uppercase().replace('/', "__"))
}

#[async_trait]
impl Subject for Env {
    fn keys(&self) -> ProviderKind {
        ProviderKind::EnvNested
    }

    fn open(&self) -> Result<Arc<dyn Backend>, Fault> {
        let variables = self.variables.iter().map(|(name, value)| (name.clone(), SecretValue::new(value.clone())));
        let settings = Settings { environment: variables.collect(), ..Settings::default() };
        let spec = EnvProvider { prefix: "APP".into(), style: Some(EnvStyle::Nested) };
        open(&store_name(), Provider::Env(&spec), &Credentials::default(), &settings)
    }

    async fn write(&mut self, key: &str, payload: &Payload) -> Written {
        self.variables.insert(variable(key), payload.bytes());
        Written { bytes: payload.bytes(), version: None, told: None }
    }

    async fn write_outside(&mut self) {
        for name in ["OUTSIDE__X", "APPOUTSIDE", "APP", "X"] {
            self.variables.insert(name.to_owned(), CANARY.into());
        }
    }

    async fn remove(&mut self, key: &str) {
        self.variables.remove(&variable(key)).expect("it was there");
    }
}

/// A manifest; every write stands in it as the current value and as a version.
#[derive(Default)]
pub struct Fake {
    data: Vec<FakeValue>,
}

#[async_trait]
impl Subject for Fake {
    fn keys(&self) -> ProviderKind {
        ProviderKind::Fake
    }

    fn open(&self) -> Result<Arc<dyn Backend>, Fault> {
        let spec = FakeProvider { data: self.data.clone() };
        open(&store_name(), Provider::Fake(&spec), &Credentials::default(), &Settings::default())
    }

    async fn write(&mut self, key: &str, payload: &Payload) -> Written {
        let value = String::from_utf8(payload.bytes()).expect("a manifest holds text");
        let version = self.data.iter().filter(|entry| entry.key == key && entry.version.is_some()).count() + 1;
        let version = Some(format!("v{version}"));
        self.data.push(FakeValue { key: key.into(), value: value.clone(), version: version.clone() });
        self.data.push(FakeValue { key: key.into(), value, version: None });
        Written { bytes: payload.bytes(), version, told: None }
    }

    async fn remove(&mut self, key: &str) {
        self.data.retain(|entry| entry.key != key);
    }
}
