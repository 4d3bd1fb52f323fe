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

use std::process::ExitCode;

use bench::rows::{self, Size};
use bench::scene::{self, Scene};
use bench::{objects, table::Table};

/// Groups of rows, in this order; `KEYFERRY_BENCH_ROWS=cold,hang` measures some of them.
const GROUPS: [&str; 6] = ["cold", "refresh", "held", "fan-out", "hang", "hit"];

#[tokio::main]
async fn main() -> ExitCode {
    let _ = tokio_rustls::rustls::crypto::aws_lc_rs::default_provider().install_default();
    let setting = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let size = if setting("KEYFERRY_BENCH_QUICK").is_some() { Size::QUICK } else { Size::FULL };
    let wanted = setting("KEYFERRY_BENCH_ROWS").unwrap_or_else(|| GROUPS.join(","));
    let bare = setting("KEYFERRY_BENCH_BARE").expect("KEYFERRY_BENCH_BARE names the bare client: run `make bench`");
    let scene = Scene::open(&bare).await;
    let most = size.many.max(size.objects);
    for prefix in ["o", "b", "n", "p"] {
        let count = if prefix == "o" { most } else { size.news };
        let names: Vec<String> = (0..count).map(|number| format!("{prefix}-{number:05}")).collect();
        objects::put_keys(&scene.bao, &names, scene::TEXT).await;
    }
    let mut table = Table::default();
    for group in wanted.split(',') {
        println!("{group}");
        match group {
            "cold" => rows::cold::measure(&scene, &mut table, &size).await,
            "refresh" => rows::refresh::measure(&scene, &mut table, &size).await,
            "held" => rows::held::measure(&scene, &mut table, &size).await,
            "fan-out" => rows::fan_out::measure(&scene, &mut table, &size).await,
            "hang" => rows::hang::measure(&scene, &mut table, &size).await,
            "hit" => rows::hit::measure(&mut table),
            unknown => panic!("no rows {unknown:?}: {}", GROUPS.join(", ")),
        }
    }
    println!("\n{table}");
    if table.holds() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
