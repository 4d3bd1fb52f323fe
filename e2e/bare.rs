//! The bare client: what a program without any of our code needs for the same work. It shares nothing with `src/`.
//!
//! `bare TASK.json` does one task and prints `{"each_ms": […], "processor_s": …}` or `{"items": N}`. `sync`: read a value from OpenBao, POST the Secret,
//! merge-patch the status; the two necessary writes and nothing else. `list`: read all pages of some lists, at the same time.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a program to measure against: it ends at the first surprise, prints its result and has clients of its own"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::future::join_all;
use reqwest::{Certificate, Client, RequestBuilder};
use serde::Deserialize;
use serde_json::{Value, json};

const PAGE: usize = 500;
const METADATA: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";

#[derive(Deserialize)]
struct Task {
    kubernetes: Server,
    vault: Option<Server>,
    #[serde(default)]
    sync: Option<Sync>,
    /// Paths to list; (path, whether metadata is enough).
    #[serde(default)]
    list: Vec<(String, bool)>,
}

#[derive(Deserialize)]
struct Server {
    url: String,
    ca: String,
    token: String,
}

#[derive(Deserialize)]
struct Sync {
    namespace: String,
    /// Names of the objects, of their Secrets, and of the keys in OpenBao.
    names: Vec<String>,
    in_flight: usize,
}

#[tokio::main]
async fn main() {
    let path = std::env::args().nth(1).expect("a file with the task");
    let task: Task = serde_json::from_str(&std::fs::read_to_string(path).expect("the task")).expect("a task");
    if let Some(sync) = &task.sync {
        let each = synced(&task, sync).await;
        println!("{}", json!({ "each_ms": each, "processor_s": processor_seconds() }));
    } else {
        println!("{}", json!({ "items": listed(&task).await }));
    }
}

impl Server {
    fn client(&self) -> Client {
        let authorities = Certificate::from_pem_bundle(self.ca.as_bytes()).expect("authorities");
        let builder = Client::builder().tls_certs_only(authorities).no_proxy().http1_only();
        builder.user_agent("keyferry-bench-bare").build().expect("a client")
    }
}

/// Processor time of this process so far, of user and kernel: Linux counts hundredths for everybody.
fn processor_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

/// Milliseconds of each, in the order of their ends.
async fn synced(task: &Task, sync: &Sync) -> Vec<f64> {
    let vault = task.vault.as_ref().expect("where values are");
    let clients = Arc::new((vault.client(), task.kubernetes.client()));
    let next = AtomicUsize::new(0);
    let worker = || async {
        let mut times = Vec::new();
        while let Some(name) = sync.names.get(next.fetch_add(1, Ordering::Relaxed)) {
            let began = Instant::now();
            one(task, vault, &clients, &sync.namespace, name).await;
            times.push(began.elapsed().as_secs_f64() * 1e3);
        }
        times
    };
    join_all((0..sync.in_flight).map(|_| worker())).await.concat()
}

async fn one(task: &Task, vault: &Server, clients: &(Client, Client), namespace: &str, name: &str) {
    let (store, cluster) = clients;
    let read = store.get(format!("{}/v1/secret/data/{name}", vault.url)).header("X-Vault-Token", &vault.token);
    let value = answer(read).await["data"]["data"]["v"].as_str().expect("a value").to_owned();
    let Server { url, token, .. } = &task.kubernetes;
    let secret = json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name }, "data": { "v": STANDARD.encode(value) } });
    answer(cluster.post(format!("{url}/api/v1/namespaces/{namespace}/secrets")).bearer_auth(token).json(&secret)).await;
    let status = json!({ "status": { "observedGeneration": 1, "conditions": [
        { "type": "Ready", "status": "True", "reason": "Synced", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z" },
    ] } });
    let path = format!("{url}/apis/keyferry.dev/v1alpha1/namespaces/{namespace}/externalsecrets/{name}/status");
    let change = cluster.patch(path).bearer_auth(token).header("content-type", "application/merge-patch+json");
    answer(change.body(status.to_string())).await;
}

/// How many items the lists have.
async fn listed(task: &Task) -> usize {
    let cluster = task.kubernetes.client();
    let counts = join_all(task.list.iter().map(|(path, is_metadata)| pages(&task.kubernetes, &cluster, path, *is_metadata))).await;
    counts.iter().sum()
}

async fn pages(server: &Server, client: &Client, path: &str, is_metadata: bool) -> usize {
    let (mut items, mut more) = (0, String::new());
    loop {
        let accept = if is_metadata { METADATA } else { "application/json" };
        let query = [("limit", PAGE.to_string()), ("continue", more.clone())];
        let page = client.get(format!("{}{path}", server.url)).query(&query).bearer_auth(&server.token).header("accept", accept);
        let page = answer(page).await;
        items += page["items"].as_array().expect("items").len();
        page["metadata"]["continue"].as_str().unwrap_or_default().clone_into(&mut more);
        if more.is_empty() {
            return items;
        }
    }
}

async fn answer(request: RequestBuilder) -> Value {
    let answer = request.send().await.expect("an answer");
    let status = answer.status();
    let text = answer.text().await.expect("a whole answer");
    assert!(status.is_success(), "{status}");
    serde_json::from_str(&text).expect("JSON")
}
