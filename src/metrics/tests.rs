use std::time::{Duration, Instant};

use super::{Metrics, Operation, Stage, Write};
use crate::{
    fault::{Fault, Reason},
    name::ProviderKind,
    schedule::Timings,
};

fn line(metrics: &Metrics, start: &str) -> String {
    metrics.render().lines().find(|line| line.starts_with(start)).map(str::to_owned).unwrap_or_default()
}

#[test]
fn every_series_shows_what_was_counted() {
    let metrics = Metrics::new();
    metrics.reconciled(Reason::Synced);
    metrics.reconciled(Reason::NotOwned);
    metrics.clone().reconciled(Reason::NotOwned);
    metrics.stage(Stage::Apply, Duration::from_millis(3));
    metrics.backend_call(ProviderKind::Vault, Operation::Read, Some(&Fault::unavailable("x")), Duration::from_secs(2));
    metrics.looked(None);
    metrics.wrote(Write::Status, false);
    metrics.set_leader(true);
    metrics.panicked();

    let expected = [
        ("keyferry_build_info{", "version=\""),
        ("keyferry_reconciles_total{reason=\"NotOwned\"}", " 2"),
        ("keyferry_reconciles_total{reason=\"Synced\"}", " 1"),
        ("keyferry_stage_duration_seconds_count{stage=\"apply\"}", " 1"),
        ("keyferry_backend_calls_total{provider=\"vault\",operation=\"read\",outcome=\"ProviderUnavailable\"}", " 1"),
        ("keyferry_backend_call_duration_seconds_sum{provider=\"vault\",operation=\"read\"}", " 2.0"),
        ("keyferry_looks_total{reason=\"Synced\"}", " 1"),
        ("keyferry_api_writes_total{write=\"status\",outcome=\"failure\"}", " 1"),
        ("keyferry_is_leader", " 1"),
        ("keyferry_panics_total", " 1"),
    ];
    for (start, part) in expected {
        let line = line(&metrics, start);
        assert!(line.contains(part), "{start}: {line:?} in\n{}", metrics.render());
    }
}

#[test]
fn a_shortened_safety_time_is_a_series_and_others_are_not() {
    let metrics = Metrics::new();
    let mut timings = Timings::default();
    timings.set("misses", Duration::from_secs(1)).unwrap();
    timings.set("denied", Duration::from_secs(1)).unwrap();
    metrics.set_timings(&timings);
    assert_eq!(line(&metrics, "keyferry_timing_below_default{"), "keyferry_timing_below_default{timing=\"misses\"} 1");
    assert!(!metrics.render().contains("denied"));
}

#[expect(clippy::disallowed_methods, reason = "the test reads pages of its own process")]
async fn get(address: std::net::SocketAddr, path: &str) -> (u16, String) {
    let answer = reqwest::get(format!("http://{address}{path}")).await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

#[tokio::test]
async fn the_three_pages_tell_life_readiness_and_numbers() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let health = super::Health::default();
    let gate = health.gate("caches");
    let beat = health.task("poller", Duration::ZERO);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let server = tokio::spawn(super::serve(listener, Metrics::new(), health.clone(), async {
        let _ = stopped.await;
    }));

    assert_eq!(get(address, "/readyz").await, (503, "waiting for caches\n".to_owned()));
    gate.open();
    assert_eq!(get(address, "/readyz").await, (200, "ok\n".to_owned()));

    assert_eq!(health.silent(Instant::now() + Duration::from_secs(1)), ["poller"]);
    assert_eq!(get(address, "/healthz").await, (503, "no sign of life from poller\n".to_owned()));
    drop(beat);
    assert!(get(address, "/metrics").await.1.ends_with("# EOF\n"));

    stop.send(()).unwrap();
    server.await.unwrap().unwrap();
}
