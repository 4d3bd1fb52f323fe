//! Many objects at once: made, waited for, taken away, by the admin.

use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ListParams, PostParams};
use serde_json::json;

use keyferry::crd::v1alpha1::ExternalSecret;

use crate::backends::openbao::OpenBao;
use crate::harness::Cluster;

/// Requests of the admin in flight.
const IN_FLIGHT: usize = 20;

/// What a set of objects is made of.
#[derive(Clone)]
pub struct Many {
    pub store: String,
    pub interval: String,
    /// Name of each object and the keys that it reads, each whole under `v` (or `v0`, `v1`, … where there are several).
    pub objects: Vec<(String, Vec<String>)>,
}

impl Many {
    /// Objects `<prefix>-00000` …, each with the key of its own name.
    pub fn of_own_keys(store: &str, interval: &str, prefix: &str, count: usize) -> Self {
        let objects = (0..count).map(|number| format!("{prefix}-{number:05}")).map(|name| (name.clone(), vec![name])).collect();
        Self { store: store.to_owned(), interval: interval.to_owned(), objects }
    }

    /// The same that all read one key.
    pub fn of_one_key(store: &str, interval: &str, prefix: &str, count: usize, key: &str) -> Self {
        let objects = (0..count).map(|number| (format!("{prefix}-{number:05}"), vec![key.to_owned()])).collect();
        Self { store: store.to_owned(), interval: interval.to_owned(), objects }
    }

    pub fn names(&self) -> Vec<String> {
        self.objects.iter().map(|(name, _)| name.clone()).collect()
    }

    /// Makes them all.
    pub async fn create(&self, cluster: &Cluster) {
        stream::iter(&self.objects)
            .map(|(name, keys)| self.create_one(cluster, name, keys))
            .buffer_unordered(IN_FLIGHT)
            .collect::<Vec<()>>()
            .await;
    }

    async fn create_one(&self, cluster: &Cluster, name: &str, keys: &[String]) {
        let entry = |(number, key): (usize, &String)| {
            let secret_key = if keys.len() == 1 { "v".to_owned() } else { format!("v{number}") };
            json!({ "secretKey": secret_key, "remoteRef": { "key": key, "property": "v" } })
        };
        let object: ExternalSecret = serde_json::from_value(json!({
            "apiVersion": "keyferry.dev/v1alpha1", "kind": "ExternalSecret", "metadata": { "name": name },
            "spec": {
                "secretStoreRef": { "kind": "ClusterSecretStore", "name": self.store },
                "refreshInterval": self.interval,
                "data": keys.iter().enumerate().map(entry).collect::<Vec<_>>(),
            },
        }))
        .expect("an ExternalSecret");
        cluster.api().create(&PostParams::default(), &object).await.unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

/// Writes the key of each name; every value is `<text> <name>`.
pub async fn put_keys(bao: &OpenBao, names: &[String], text: &str) {
    let puts = stream::iter(names).map(|name| async move {
        bao.kv().put(name, &json!({ "v": format!("{text} {name}") })).await;
    });
    puts.buffer_unordered(IN_FLIGHT).collect::<Vec<()>>().await;
}

/// How many Secrets of the namespace hold exactly what the key of their name holds.
pub async fn right_secrets(cluster: &Cluster, text: &str) -> usize {
    let secrets = cluster.api::<Secret>().list(&ListParams::default()).await.expect("a list");
    let is_right = |secret: &&Secret| {
        let (name, data) = (secret.metadata.name.as_deref().unwrap_or_default(), secret.data.as_ref());
        data.and_then(|data| data.get("v")).is_some_and(|value| value.0 == format!("{text} {name}").as_bytes())
    };
    secrets.iter().filter(is_right).count()
}
