//! `make bench`: prints the table, and ends with code 1 when a row does not hold.
#![allow(
    dead_code,
    unused_imports,
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    clippy::too_many_lines,
    clippy::default_trait_access,
    clippy::format_collect,
    clippy::type_complexity,
    clippy::needless_pass_by_value,
    clippy::needless_for_each,
    clippy::zombie_processes,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "it shares the suite's modules and uses a part of them; it ends by panicking, prints, starts processes and clients of its own, and divides counts"
)]

mod backends;
mod bench;
mod harness;
mod proxy;

use std::panic::AssertUnwindSafe;
use std::process::ExitCode;
use std::time::Duration;

use futures::FutureExt;

use bench::rows::{self, Size};
use bench::scene::{self, Scene};
use bench::{objects, table::Table};

/// Groups of rows, in this order; `KEYFERRY_BENCH_ROWS=cold,hang` measures some of them.
const GROUPS: [&str; 6] = ["cold", "refresh", "held", "fan-out", "hang", "hit"];
/// Parts of `cold` and `refresh`, for whoever works on them: measured only when they are named.
const PARTS: [&str; 3] = ["sync", "memory", "soak"];

#[tokio::main]
async fn main() -> ExitCode {
    let _ = tokio_rustls::rustls::crypto::aws_lc_rs::default_provider().install_default();
    let setting = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let size = if setting("KEYFERRY_BENCH_QUICK").is_some() { Size::QUICK } else { Size::FULL };
    let soak = setting("KEYFERRY_BENCH_SOAK").map(|seconds| seconds.parse().expect("SOAK is a number of seconds"));
    let size = Size { flat: soak.map_or(size.flat, Duration::from_secs), ..size };
    let wanted = setting("KEYFERRY_BENCH_ROWS").unwrap_or_else(|| GROUPS.join(","));
    let bare = setting("KEYFERRY_BENCH_BARE").expect("KEYFERRY_BENCH_BARE names the bare client: run `make bench`");
    let groups: Vec<&str> = wanted.split(',').collect();
    for group in &groups {
        assert!(GROUPS.iter().chain(&PARTS).any(|known| known == group), "no rows {group:?}: {}, {}", GROUPS.join(", "), PARTS.join(", "));
    }
    let scene = Scene::open(&bare).await;
    let most = size.many.max(size.objects);
    for prefix in ["o", "b", "n", "p"] {
        let count = if prefix == "o" { most } else { size.news };
        let names: Vec<String> = (0..count).map(|number| format!("{prefix}-{number:05}")).collect();
        objects::put_keys(&scene.bao, &names, scene::TEXT).await;
    }
    let mut table = Table::default();
    for group in groups {
        println!("{group}");
        // What goes wrong in one group is a row, and the others are measured all the same.
        if let Err(panic) = AssertUnwindSafe(measure(group, &scene, &mut table, &size)).catch_unwind().await {
            table.enter(&format!("the rows of {group}"), "measured to the end", text_of(&*panic), false);
            scene.sweep().await;
        }
    }
    println!("\n{table}");
    if table.holds() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn measure(group: &str, scene: &Scene, table: &mut Table, size: &Size) {
    match group {
        "cold" => rows::cold::measure(scene, table, size).await,
        "sync" => drop(rows::cold::beside_bare(scene, table, size).await),
        "soak" => rows::refresh::soak(scene, table, size).await,
        "memory" => rows::cold::memory_only(scene, table, size).await,
        "refresh" => rows::refresh::measure(scene, table, size).await,
        "held" => rows::held::measure(scene, table, size).await,
        "fan-out" => rows::fan_out::measure(scene, table, size).await,
        "hang" => rows::hang::measure(scene, table, size).await,
        _ => rows::hit::measure(table),
    }
}

fn text_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("it panicked").replace(['\n', '|'], " ")
}
