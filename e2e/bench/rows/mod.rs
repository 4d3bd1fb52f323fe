//! The rows of the table, in groups that share what is expensive to make.

pub mod cold;
pub mod fan_out;
pub mod hang;
pub mod held;
pub mod hit;
pub mod refresh;

use std::time::Duration;

use super::objects::Many;
use super::scene::{Scene, Stage, is_status, seconds};
use crate::harness::audit::OPERATOR;

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    pub runs: usize,
    pub objects: usize,
    pub many: usize,
    pub foreign: usize,
    /// New objects whose latency is measured one after the other.
    pub news: usize,
    /// Distinct keys of the refreshes.
    pub keys: usize,
    pub outage: Duration,
    pub flat: Duration,
}

impl Size {
    pub const FULL: Self = Self {
        runs: 3,
        objects: 1_000,
        many: 5_000,
        foreign: 2_000,
        news: 100,
        keys: 10_000,
        outage: Duration::from_secs(30),
        flat: Duration::from_secs(60),
    };
    pub const QUICK: Self = Self {
        runs: 1,
        objects: 200,
        many: 1_000,
        foreign: 200,
        news: 30,
        keys: 1_000,
        outage: Duration::from_secs(30),
        flat: Duration::from_secs(20),
    };
}

/// Makes objects one after the other: milliseconds from the answer to each create to the answer to its Ready=True, by the audit log.
async fn arrivals(scene: &Scene, stage: &Stage, prefix: &str, count: usize) -> Vec<f64> {
    let news = Many::of_own_keys(&stage.store, "1h", prefix, count);
    let mark = scene.audit.mark();
    for one in &news.objects {
        let mark = scene.audit.mark();
        let alone = Many { objects: vec![one.clone()], ..news.clone() };
        alone.create(&stage.cluster).await;
        scene.all_ready_soon(&stage.cluster, mark, &one.0).await;
    }
    let names = news.names();
    scene.all_ready(&stage.cluster, mark, &names).await;
    let requests = scene.audit.since(mark);
    let namespace = &stage.cluster.namespace;
    let time_of = |name: &String| {
        let created =
            requests.iter().find(|r| r.verb == "create" && r.resource == "externalsecrets" && r.namespace == *namespace && r.name == *name);
        let ready = requests.iter().find(|r| r.user == OPERATOR && r.name == *name && is_status(r, namespace));
        let (created, ready) = (created.expect("a create"), ready.expect("a status"));
        seconds(created.at, ready.at) * 1e3
    };
    names.iter().map(time_of).collect()
}

async fn pause(time: Duration) {
    tokio::time::sleep(time).await;
}
