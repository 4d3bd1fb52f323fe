//! What a panic leaves on standard error, seen from outside: this test program runs itself, panics in every way, and reads what was said.

use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::process::Command;
use std::sync::Arc;

use keyferry::metrics::Metrics;
use keyferry::telemetry::{LogFormat, init, install_panic_hook};

const CANARY: &str = "canary-4711";
const CHILD: &str = "KEYFERRY_TEST_PANICS";

/// Every way in which a provider, or what it stands on, could panic with a value in its mouth.
fn panic_in_every_way() {
    let value = Arc::new(CANARY.to_owned());
    let ways: [fn(String); 5] = [
        |value| panic!("bad value {value}"),
        |value| panic_any(value),
        |value| {
            value.parse::<u32>().map_err(|error| format!("{error}: {value}")).unwrap();
        },
        |value| {
            std::str::from_utf8(&[&[0xff], value.as_bytes()].concat()).map_err(|error| (error, value)).expect(CANARY);
        },
        |value| assert_eq!(value, "something else"),
    ];
    for way in ways {
        let here = value.to_string();
        assert!(catch_unwind(AssertUnwindSafe(|| way(here))).is_err());
        let there = value.to_string();
        assert!(std::thread::Builder::new().name(CANARY.to_owned()).spawn(move || way(there)).unwrap().join().is_err());
        let task = value.to_string();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        assert!(runtime.block_on(async { tokio::spawn(async move { way(task) }).await }).is_err());
    }
}

#[test]
fn a_panic_tells_its_place_and_nothing_that_it_carried() {
    if std::env::var_os(CHILD).is_some() {
        let format = if std::env::var(CHILD).unwrap() == "json" { LogFormat::Json } else { LogFormat::Text };
        init(format, "trace").unwrap();
        let metrics = Metrics::new();
        install_panic_hook(metrics.clone());
        panic_in_every_way();
        println!("{}", metrics.render());
        return;
    }
    for format in ["json", "text"] {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "panics::a_panic_tells_its_place_and_nothing_that_it_carried", "--nocapture"]);
        let output = command.env(CHILD, format).env("RUST_BACKTRACE", "full").output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{format}: it ended with {}", output.status);
        assert!(!said.contains(CANARY), "{format}: a value was said");
        let told = said.lines().filter(|line| line.contains("a panic was caught") && line.contains("tests/panics.rs:")).count();
        assert_eq!(told, 15, "{format}: each panic is told once, with its place");
        assert!(said.lines().any(|line| line == "keyferry_panics_total 15"), "{format}: each panic is counted");
    }
}
