//! Cold sync against the bare client, calls per object, restart, memory.

use super::{Size, pause};
use crate::bench::counts::Cost;
use crate::bench::objects;
use crate::bench::program::{Memory, Program};
use crate::bench::scene::{self, Bare, Scene, Stage, TEXT, create_foreign, seconds};
use crate::bench::table::{Table, median, most, seconds as listed, span};
use crate::harness::audit::Request;

use crate::proxy::Call;

use futures::{StreamExt, stream};
use jiff::Timestamp;
use keyferry::item::{Item, Wanted};
use keyferry::name::{ProviderKind, RemoteKey, RemoteRef};
use keyferry::schedule::{duration, slots};
use std::time::Duration;

/// Objects that the bare client works on at once.
const IN_FLIGHT: usize = 20;
/// Long enough that nothing falls due meanwhile.
const LONG: &str = "24h";
/// What is given back after work, is given back after this.
const SETTLING: Duration = Duration::from_secs(5);

/// One cold sync by the operator that then still runs.
pub struct Synced {
    stage: Stage,
    program: Program,
    seconds: f64,
    /// From its start to the first Secret that it wrote.
    first: f64,
    processor: f64,
    requests: Vec<Request>,
    memory: Memory,
}

pub async fn measure(scene: &Scene, table: &mut Table, size: &Size) {
    idle(scene, table).await;
    let Size { runs, objects, many, .. } = *size;
    let (synced, ours) = beside_bare(scene, table, size).await;
    calls(table, &synced, objects);
    memory(table, objects, synced.memory);
    restart(scene, table, synced, size).await;
    let mut large = Vec::new();
    let mut peak = Memory { settled: 0.0, peak: 0.0 };
    for _ in 0..runs.min(2) {
        let synced = cold_sync(scene, many).await;
        large.push(synced.seconds);
        peak = Memory { settled: peak.settled.max(synced.memory.settled), peak: peak.peak.max(synced.memory.peak) };
        leave(synced).await;
    }
    let factor = median(&large) / median(&ours);
    // 5.3 for five times as many.
    let bar = 1.06 * many as f64 / objects as f64;
    let figure = format!("{factor:.2} × the time of {objects} ({})", listed(&large));
    table.enter(&format!("cold sync of {many}"), &format!("≤ {bar:.1} ×"), figure, factor <= bar);
    memory(table, many, peak);
}

/// Bare client and operator in turns: the operator's last run, which is left as it is, and the seconds of all.
pub async fn beside_bare(scene: &Scene, table: &mut Table, size: &Size) -> (Synced, Vec<f64>) {
    let Size { runs, objects, .. } = *size;
    let (mut bare, mut ours, mut first) = (Vec::new(), Vec::new(), Vec::new());
    let (mut cpu, mut bare_cpu) = (0.0, 0.0);
    let mut last = None;
    for _ in 0..runs {
        if let Some(former) = last.take() {
            leave(former).await;
        }
        let alone = bare_sync(scene, objects).await;
        bare_cpu += alone.processor;
        bare.push(alone.seconds);
        let synced = cold_sync(scene, objects).await;
        cpu += synced.processor;
        ours.push(synced.seconds);
        first.push(synced.first);
        last = Some(synced);
    }
    let ratios: Vec<f64> = ours.iter().zip(&bare).map(|(ours, bare)| ours / bare).collect();
    let per_thousand = 1_000.0 / (runs * objects) as f64;
    let figure = format!(
        "{} of the bare client (min / median; {}, the first Secret after {}, bare {}; {:.2} CPU-s per 1,000, bare {:.2})",
        span(&ratios),
        listed(&ours),
        listed(&first),
        listed(&bare),
        cpu * per_thousand,
        bare_cpu * per_thousand,
    );
    table.enter(&format!("cold sync of {objects}"), "≤ 1.3", figure, median(&ratios) <= 1.3);
    (last.expect("one run at least"), ours)
}

/// The memory of the same cold syncs, and nothing else.
pub async fn memory_only(scene: &Scene, table: &mut Table, size: &Size) {
    idle(scene, table).await;
    for objects in [size.objects, size.many] {
        let synced = cold_sync(scene, objects).await;
        memory(table, objects, synced.memory);
        let Synced { stage, program, .. } = synced;
        program.kill();
        let program = scene.same_operator();
        program.at_rest().await;
        pause(SETTLING).await;
        memory_row(table, &format!("{objects} objects, restarted"), program.memory(), bar_of(objects));
        program.kill();
        stage.leave().await;
    }
}

async fn idle(scene: &Scene, table: &mut Table) {
    let program = scene.operator().await;
    program.at_rest().await;
    pause(SETTLING).await;
    memory_row(table, "no objects", program.memory(), 8.0);
    program.kill();
}

/// What so many objects may need: 16 MiB up to a thousand, 40 beyond.
fn bar_of(objects: usize) -> f64 {
    if objects > 1_000 { 40.0 } else { 16.0 }
}

fn memory(table: &mut Table, objects: usize, memory: Memory) {
    memory_row(table, &format!("{objects} objects"), memory, bar_of(objects));
}

fn memory_row(table: &mut Table, what: &str, memory: Memory, bar: f64) {
    let figure = format!("peak {:.1} MiB, settled {:.1}", memory.peak, memory.settled);
    table.enter(&format!("anonymous memory, {what}"), &format!("≤ {bar:.0} MiB"), figure, memory.peak <= bar);
}

async fn bare_sync(scene: &Scene, objects: usize) -> Bare {
    let stage = scene.stage().await;
    let many = stage.create(LONG, "o", objects).await;
    let bare = scene.bare_sync(&stage, &many, IN_FLIGHT).await;
    stage.leave().await;
    bare
}

async fn cold_sync(scene: &Scene, objects: usize) -> Synced {
    let stage = scene.stage().await;
    let many = stage.create(LONG, "o", objects).await;
    let mark = scene.audit.mark();
    let program = scene.operator().await;
    let last = scene.all_ready(&stage.cluster, mark, &many.names()).await;
    let processor = program.processor_seconds();
    let requests = scene.requests(mark);
    let first = requests.iter().find(|request| request.verb == "patch" && request.resource == "secrets").expect("a Secret");
    let (seconds, first) = (seconds(program.started, last), seconds(program.started, first.at));
    assert_eq!(objects::right_secrets(&stage.cluster, TEXT).await, objects, "every Secret holds its value");
    program.at_rest().await;
    pause(SETTLING).await;
    let memory = program.memory();
    Synced { stage, program, seconds, first, processor, requests, memory }
}

async fn leave(synced: Synced) {
    synced.program.kill();
    synced.stage.leave().await;
}

fn calls(table: &mut Table, synced: &Synced, objects: usize) {
    let cost = Cost(&synced.requests);
    let per_object = cost.calls() as f64 / objects as f64;
    let work = cost.work();
    let reads: usize = cost.reads_of(&synced.stage.cluster.namespace, "secrets") - 1;
    let figure = format!("{per_object:.3} per object, {reads} reads of targets; {work:?}");
    // What a start costs weighs more on fewer objects.
    let bar = 2.05f64.max(2.0 + 50.0 / objects as f64);
    table.enter(
        &format!("API calls, cold sync of {objects}"),
        &format!("≤ {bar:.2} per object, no target read"),
        figure,
        per_object <= bar && reads == 0,
    );
}

async fn restart(scene: &Scene, table: &mut Table, synced: Synced, size: &Size) {
    let Synced { stage, mut program, memory: before, .. } = synced;
    let uid = stage.store_uid().await;
    let (mut ours, mut bare, mut figures, mut holds) = (Vec::new(), Vec::new(), Vec::new(), true);
    for _ in 0..size.runs {
        program.kill();
        let (mark, calls, caught_up) = (scene.audit.mark(), stage.proxy.calls_so_far(), scene.caught_up().await);
        program = scene.same_operator();
        let steady = program.at_rest().await;
        let end = program.started + Duration::from_secs_f64(steady);
        pause(Duration::from_secs(3)).await;
        let all = scene.requests(mark);
        // A steady leader goes on renewing its Lease; everything else that comes later still belongs to the start.
        let counted: Vec<Request> = all.iter().filter(|request| request.at <= end || request.resource != "leases").cloned().collect();
        let (kinds, pages, others) = (Cost(&counted).watched().len(), Cost(&counted).further_pages(), Cost(&counted).others());
        let (reads, allowed) = (counted.len() - others, 2 * kinds + pages);
        let (writes, looks) = (Cost(&all).writes(), stage.proxy.calls().split_off(calls));
        let undue = looks.iter().filter(|look| !fell_due(look, &uid, caught_up)).count();
        holds &= reads <= allowed && others <= 6 && writes.is_empty() && undue == 0;
        figures.push(format!(
            "{} calls ({kinds} kinds, {pages} further pages, {others} more), writes {writes:?}, {} of the backend, {undue} of them not due",
            counted.len(),
            looks.len(),
        ));
        ours.push(steady);
        let lists: Vec<(String, bool)> = Cost(&all)
            .watched()
            .into_iter()
            .map(|path| {
                let is_metadata = !path.contains("keyferry.dev");
                (path, is_metadata)
            })
            .collect();
        bare.push(scene.bare_list(&lists).await.0);
    }
    figures.dedup();
    table.enter(
        &format!("restart with {} converged: calls", size.objects),
        "2 per kind, 1 per further page, 6 more; 0 writes; only what fell due",
        figures.join("; "),
        holds,
    );
    let ratios: Vec<f64> = ours.iter().zip(&bare).map(|(ours, bare)| ours / bare).collect();
    let figure = format!("{} of listing the same bare (min / median; {}, bare {})", span(&ratios), listed(&ours), listed(&bare));
    table.enter("restart: time to steady", "≤ 2", figure, median(&ratios) <= 2.0);
    let memory = program.memory();
    program.kill();
    foreign(scene, table, stage, size, most(&[before.peak, memory.peak])).await;
}

/// Whether a call reads a value whose slot lies between the mark that the killed operator left and the call.
fn fell_due(call: &Call, store: &str, caught_up: Option<Timestamp>) -> bool {
    let Some(key) = call.path_and_query.strip_prefix("/v1/secret/data/") else { return false };
    let Ok(key) = RemoteKey::parse(ProviderKind::Vault, key) else { return false };
    let item = Item { store: store.to_owned(), wanted: Wanted::Value(RemoteRef { key, version: None, is_metadata: false }) };
    let at = Timestamp::try_from(call.wall).expect("a time of today");
    let interval = duration::parse(LONG).expect("a duration");
    let slot = slots::at_or_before(slots::hash(&item), slots::period(interval), nanoseconds(at));
    caught_up.is_some_and(|caught_up| slot >= nanoseconds(caught_up))
}

fn nanoseconds(time: Timestamp) -> i64 {
    i64::try_from(time.as_nanosecond()).expect("a time of today")
}

/// The same restart beside big Secrets of others.
async fn foreign(scene: &Scene, table: &mut Table, stage: Stage, size: &Size, without: f64) {
    let others = scene.namespace().await;
    let creates = stream::iter(0..size.foreign).map(|number| {
        let others = &others;
        async move { create_foreign(others, &format!("foreign-{number}"), 50_000).await }
    });
    creates.buffer_unordered(IN_FLIGHT).collect::<Vec<()>>().await;
    let program = scene.same_operator();
    program.at_rest().await;
    pause(SETTLING).await;
    let with = program.memory();
    let figure = format!("peak {:.1} MiB, without them {without:.1}; settled {:.1}", with.peak, with.settled);
    table.enter(
        &format!("anonymous memory beside {} foreign Secrets of 50 kB", size.foreign),
        "≤ 16 MiB, no more than without",
        figure,
        with.peak <= without.max(16.0) && with.peak <= without + 1.0,
    );
    program.kill();
    scene::clear(&others).await;
    stage.leave().await;
}
