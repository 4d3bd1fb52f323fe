//! Refreshes that are held: how many distinct keys are looked at in a second without falling behind, and what that costs.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use keyferry::backend::file::{MasterKey, Place, Writer, create};
use keyferry::secret::SecretValue;

use super::{Size, pause};
use crate::bench::objects::{self, Many};
use crate::bench::program::Program;
use crate::bench::scene::{self, Scene, TEXT};
use crate::bench::table::Table;

const KEYS_PER_OBJECT: usize = 100;
/// Intervals that are watched.
const WATCHED: u32 = 2;

pub async fn measure(scene: &Scene, table: &mut Table, size: &Size) {
    vault(scene, table, size).await;
    file(scene, table, size).await;
}

fn objects(store: &str, interval: Duration, keys: &[String]) -> Many {
    let objects = keys.chunks(KEYS_PER_OBJECT).enumerate().map(|(number, keys)| (format!("h-{number:03}"), keys.to_vec()));
    Many { store: store.to_owned(), interval: format!("{}ms", interval.as_millis()), objects: objects.collect() }
}

/// An interval that demands this many looks in a second: a slot is eight ninths of it.
fn interval(keys: usize, per_second: f64) -> Duration {
    Duration::from_secs_f64(keys as f64 / per_second * 9.0 / 8.0)
}

async fn vault(scene: &Scene, table: &mut Table, size: &Size) {
    const DEMAND: f64 = 560.0;
    let stage = scene.stage().await;
    let keys: Vec<String> = (0..size.keys).map(|number| format!("h-{number:05}")).collect();
    objects::put_keys(&scene.bao, &keys, TEXT).await;
    let interval = interval(size.keys, DEMAND);
    let many = objects(&stage.store, interval, &keys);
    many.create(&stage.cluster).await;
    let mark = scene.audit.mark();
    let program = scene.operator().await;
    scene.all_ready(&stage.cluster, mark, &many.names()).await;
    pause(interval).await;
    let (from, cpu, began) = (stage.proxy.calls_so_far(), program.processor_seconds(), Instant::now());
    pause(interval * WATCHED).await;
    let (seconds, cpu) = (began.elapsed().as_secs_f64(), program.processor_seconds() - cpu);
    let calls = stage.proxy.calls().split_off(from);
    let rate = calls.len() as f64 / seconds;
    let mut looks: HashMap<&str, Vec<Instant>> = HashMap::new();
    for call in &calls {
        looks.entry(&call.path_and_query).or_default().push(call.at);
    }
    let gap = looks.values().flat_map(|times| times.windows(2).map(|pair| pair[1] - pair[0])).max().unwrap_or_default();
    let figure = format!(
        "{rate:.0}/s of {} keys, longest gap {:.2} s at an interval of {:.2} s; {:.3} CPU-s per 1,000",
        looks.len(),
        gap.as_secs_f64(),
        interval.as_secs_f64(),
        cpu / calls.len() as f64 * 1e3
    );
    let holds = rate >= 500.0 && looks.len() >= size.keys && gap <= interval + Duration::from_millis(100);
    table.enter(&format!("refreshes held with Vault, {} keys", size.keys), "≥ 500/s", figure, holds);
    program.kill();
    stage.leave().await;
}

/// The one count that only the operator has: nobody else sees who reads a file.
async fn file(scene: &Scene, table: &mut Table, size: &Size) {
    const DEMAND: f64 = 2_200.0;
    let cluster = scene.namespace().await;
    let root = scene.folder().join("root");
    let keys: Vec<String> = (0..size.keys).map(|number| format!("h-{number:05}")).collect();
    fill(&root, &scene.folder().join("master-key"), &keys);
    let (name, namespace) = (format!("{}-file", cluster.namespace), cluster.namespace.clone());
    cluster
        .apply(&format!("kind: ClusterSecretStore\nmetadata: {{name: {name}}}\nspec:\n  provider: {{file: {{path: store}}}}\n  conditions: [{{namespaces: [{namespace}]}}]"))
        .await;
    let interval = interval(size.keys, DEMAND);
    let many = objects(&name, interval, &keys);
    many.create(&cluster).await;
    let mark = scene.audit.mark();
    let program = scene.operator_with_files(&root).await;
    scene.all_ready(&cluster, mark, &many.names()).await;
    pause(interval).await;
    let (looks, cpu, began) = (looks(&program).await, program.processor_seconds(), Instant::now());
    pause(interval * WATCHED * 3).await;
    let (seconds, cpu) = (began.elapsed().as_secs_f64(), program.processor_seconds() - cpu);
    let looks = self::looks(&program).await - looks;
    let rate = looks / seconds;
    let figure = format!("{rate:.0}/s at an interval of {:.2} s; {:.3} CPU-s per 1,000", interval.as_secs_f64(), cpu / looks * 1e3);
    table.enter(&format!("refreshes held with file, {} keys", size.keys), "≥ 2,000/s", figure, rate >= 2_000.0);
    program.kill();
    let stores = kube::Api::<keyferry::crd::v1alpha1::ClusterSecretStore>::all(cluster.client.clone());
    let _ = stores.delete(&name, &Default::default()).await;
    scene::clear(&cluster).await;
}

fn fill(root: &std::path::Path, master: &std::path::Path, keys: &[String]) {
    std::fs::create_dir(root).expect("a folder");
    let path = root.join("store");
    MasterKey::create(master).expect("a key file");
    create(&path, &MasterKey::read(&Place::path(master)).expect("a key")).expect("a store");
    let writer = Writer::open(&Place::path(&path), &Place::path(master)).expect("a writer");
    for key in keys {
        let text = serde_json::json!({ "v": format!("{TEXT} {key}") }).to_string();
        writer.set(key, &SecretValue::new(text.into_bytes()), None).expect("a value");
    }
}

async fn looks(program: &Program) -> f64 {
    let (_, page) = program.page("/metrics").await.expect("a page");
    let lines = page.lines().filter(|line| line.starts_with("keyferry_looks_total"));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}
