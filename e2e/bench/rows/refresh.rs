//! What goes on at a ten-second interval: refreshes that change nothing, new objects meanwhile, thirty seconds of 500s.

use std::time::{Duration, Instant};

use super::{Size, arrivals, pause};
use crate::bench::counts::Cost;
use crate::bench::program::Program;
use crate::bench::scene::{self, Scene, Stage};
use crate::bench::table::{Table, median, most};
use crate::proxy::Fault;

const INTERVAL: &str = "10s";
/// Calls that a store with errors may get in thirty seconds.
const CALLS_OF_OUTAGE: usize = 60;
/// After this every object says that its values are stale.
const TOLD: Duration = Duration::from_secs(20);
/// After this every object is current again.
const RECOVERED: Duration = Duration::from_secs(10);

pub async fn measure(scene: &Scene, table: &mut Table, size: &Size) {
    let mut stage = scene.stage().await;
    let unit = bare_unit(scene, &stage, size).await;
    let program = scene.operator().await;
    program.at_rest().await;
    let quiet = arrivals(scene, &stage, "n", size.news).await;
    let (ours, bare) = (median(&quiet), median(&unit));
    let figure = format!("p50 {:.2} × ({ours:.1} ms, bare {bare:.1} ms), max {:.1} ms", ours / bare, most(&quiet));
    table.enter("a new object, create to Ready", "p50 ≤ 2 × the bare client", figure, ours / bare <= 2.0);

    let mark = scene.audit.mark();
    let many = stage.create(INTERVAL, "o", size.objects).await;
    scene.all_ready(&stage.cluster, mark, &many.names()).await;
    no_op(scene, table, &stage, size).await;
    let busy = arrivals(scene, &stage, "p", size.news).await;
    let (p50, worst) = (median(&busy) / bare, most(&busy) / bare);
    let figure = format!("p50 {p50:.2} ×, max {worst:.2} × ({:.1} ms, {:.1} ms)", median(&busy), most(&busy));
    let case = format!("a new object while {} refresh every {INTERVAL}", size.objects);
    table.enter(&case, "p50 ≤ 4 ×, max ≤ 15 ×", figure, p50 <= 4.0 && worst <= 15.0);
    outage(table, &mut stage, size, &many.names()).await;
    flat(table, &program, size).await;
    program.kill();
    stage.leave().await;
}

/// Milliseconds of the bare client for one object after the other; no operator runs.
async fn bare_unit(scene: &Scene, stage: &Stage, size: &Size) -> Vec<f64> {
    let many = stage.create("1h", "b", size.news).await;
    let bare = scene.bare_sync(stage, &many, 1).await;
    scene::clear_only(&stage.cluster, "b-").await;
    bare.each
}

async fn no_op(scene: &Scene, table: &mut Table, stage: &Stage, size: &Size) {
    let (mark, from) = (scene.audit.mark(), stage.proxy.calls_so_far());
    let began = Instant::now();
    while stage.proxy.calls_so_far() < from + 2 * size.objects {
        assert!(began.elapsed() < Duration::from_mins(1), "the objects are not looked at");
        pause(Duration::from_millis(100)).await;
    }
    let work = Cost(&scene.requests(mark)).work();
    let (calls, seconds) = (stage.proxy.calls_so_far() - from, began.elapsed().as_secs_f64());
    let figure = format!("{} API calls in {seconds:.0} s with {calls} looks {work:?}", work.values().sum::<usize>());
    table.enter("a refresh that changes nothing", "0 API calls", figure, work.is_empty());
}

async fn outage(table: &mut Table, stage: &mut Stage, size: &Size, names: &[String]) {
    let targets = stage.targets().await;
    let (from, began) = (stage.proxy.calls_so_far(), Instant::now());
    let broken = stage.break_with(Fault::status(500));
    let told = until(stage, names, began, "False", Some("ProviderUnavailable"), size.outage).await;
    pause(size.outage.saturating_sub(began.elapsed())).await;
    let calls = stage.proxy.calls_so_far() - from;
    stage.mend(&broken);
    let mended = Instant::now();
    let current = until(stage, names, mended, "True", None, Duration::from_mins(1)).await;
    let kept = stage.targets().await == targets;
    let shown = |time: Option<Duration>| time.map_or("never".to_owned(), |time| format!("{:.1} s", time.as_secs_f64()));
    let figure =
        format!("{calls} calls; all told after {}; targets kept: {kept}; all current {} after the end", shown(told), shown(current));
    let holds = calls <= CALLS_OF_OUTAGE && told.is_some_and(|t| t <= TOLD) && kept && current.is_some_and(|t| t <= RECOVERED);
    let case = format!("{} s of 500s, {} objects at {INTERVAL}", size.outage.as_secs(), size.objects);
    table.enter(&case, "≤ 60 calls; told ≤ 20 s; kept; current ≤ 10 s after", figure, holds);
}

/// How long after `began` the condition Fresh of all is so.
async fn until(stage: &Stage, names: &[String], began: Instant, status: &str, reason: Option<&str>, limit: Duration) -> Option<Duration> {
    loop {
        let at = began.elapsed();
        let so = scene::named_with(&stage.cluster, "Fresh", status, reason).await;
        if names.iter().all(|name| so.contains(name)) {
            return Some(at);
        }
        if at > limit {
            return None;
        }
        pause(Duration::from_millis(500)).await;
    }
}

/// Only the memory of an operator whose objects refresh, for as long as it is to be watched.
pub async fn soak(scene: &Scene, table: &mut Table, size: &Size) {
    let stage = scene.stage().await;
    let program = scene.operator().await;
    let mark = scene.audit.mark();
    let many = stage.create(INTERVAL, "o", size.objects).await;
    scene.all_ready(&stage.cluster, mark, &many.names()).await;
    flat(table, &program, size).await;
    program.kill();
    stage.leave().await;
}

async fn flat(table: &mut Table, program: &Program, size: &Size) {
    pause(Duration::from_secs(10)).await;
    let mut seen = Vec::new();
    for _ in 0..size.flat.as_secs().max(5) {
        pause(Duration::from_secs(1)).await;
        seen.push(program.memory().settled);
    }
    let fifth = seen.len() / 5;
    let (before, after) = (median(&seen[..fifth]), median(&seen[seen.len() - fifth..]));
    let seconds = seen.len();
    let figure = format!("{before:.1} MiB in the first fifth of {seconds} s, {after:.1} in the last, never above {:.1}", most(&seen));
    // As much as an allocator's own noise.
    table.enter("anonymous memory while refreshing", "flat", figure, after <= before + 0.5);
}
