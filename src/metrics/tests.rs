use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use super::{How, Metrics, Operation, Present, Stage, Write};
use crate::{
    fault::{Fault, Reason},
    name::{ObjectKind, ProviderKind},
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
    let store = metrics.store(Some("a"));
    store.called(ProviderKind::Vault, Operation::Read, Some(&Fault::unavailable("x")), Duration::from_secs(2));
    metrics.looked(None);
    metrics.wrote(Write::Status, false);
    metrics.set_leader(true);
    metrics.panicked();

    let expected = [
        ("keyferry_build_info{", "version=\""),
        ("keyferry_reconciles_total{reason=\"NotOwned\"}", " 2"),
        ("keyferry_reconciles_total{reason=\"Synced\"}", " 1"),
        ("keyferry_stage_duration_seconds_count{stage=\"apply\"}", " 1"),
        ("keyferry_backend_calls_total{provider=\"vault\",store=\"a\",operation=\"read\",outcome=\"ProviderUnavailable\"}", " 1"),
        ("keyferry_backend_call_duration_seconds_sum{provider=\"vault\",store=\"a\",operation=\"read\"}", " 2.0"),
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

/// A page on which every series stands; what has to live for that comes with it.
fn full_page() -> String {
    let metrics = Metrics::new();
    let (store, fault) = (metrics.store(Some("a")), Fault::unavailable("x"));
    metrics.reconciled(Reason::Synced);
    metrics.stage(Stage::Fetch, Duration::ZERO);
    metrics.looked(None);
    metrics.wrote(Write::Event, true);
    let mut timings = Timings::default();
    timings.set("misses", Duration::from_secs(1)).unwrap();
    metrics.set_timings(&timings);
    store.called(ProviderKind::Fake, Operation::List, None, Duration::ZERO);
    store.called(ProviderKind::Fake, Operation::List, Some(&fault), Duration::ZERO);
    store.allow(1, Some(1.0));
    store.waited(Duration::ZERO);
    store.sharing.answered(How::Kept);
    store.sharing.refused(Reason::Throttled);
    metrics.tell_present(|| {
        let mut present = Present::default();
        present.count(ObjectKind::ExternalSecret, Some("Synced"), Some("Throttled"));
        present
    });
    let registered = format!("{:?}", metrics.registry);
    let page = metrics.render();
    for name in registered.split("Descriptor { name: \"").skip(1).map(|rest| rest.split('"').next().unwrap_or_default()) {
        assert!(
            page.contains(&format!("# TYPE keyferry_{name}")),
            "{name} is registered and stands on no page: count something into it here"
        );
    }
    page
}

/// What a page, or the documentation, says of each series: its type and its labels.
type Described = BTreeMap<String, (String, BTreeSet<String>)>;

fn on_page(page: &str) -> Described {
    let types: BTreeMap<&str, &str> = page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect();
    let mut described = Described::new();
    for (family, kind) in types {
        let (suffix, sample) = match kind {
            "counter" => ("_total", "_total"),
            "info" => ("_info", "_info"),
            "histogram" => ("", "_count"),
            _ => ("", ""),
        };
        let names = |line: &str| -> Option<BTreeSet<String>> {
            let rest = line.strip_prefix(&format!("{family}{sample}"))?;
            let labels = match rest.strip_prefix('{') {
                Some(labels) => labels.rsplit_once('}')?.0,
                None => rest.strip_prefix(' ').map(|_| "")?,
            };
            Some(labels.split("\",").filter_map(|label| label.split_once('=')).map(|(name, _)| name.to_owned()).collect())
        };
        let labels = page.lines().find_map(names).unwrap_or_else(|| panic!("no sample of {family} in\n{page}"));
        described.insert(format!("{family}{suffix}"), (kind.to_owned(), labels));
    }
    described
}

const MANUAL: &str = include_str!("../../docs/metrics.md");

/// The texts between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The cells of each table row whose first cell is a quoted name that begins so, by that name.
fn rows(start: &'static str) -> impl Iterator<Item = (&'static str, Vec<&'static str>)> {
    MANUAL.lines().filter_map(move |line| {
        let cells: Vec<&str> = line.strip_prefix('|')?.split('|').map(str::trim).collect();
        let name = cells.first()?.strip_prefix('`')?.strip_suffix('`')?;
        name.starts_with(start).then_some((name, cells))
    })
}

#[test]
fn the_manual_lists_exactly_the_series_that_exist_with_their_types_and_labels() {
    let documented: Described = rows("keyferry_")
        .map(|(name, cells)| (name.to_owned(), (cells[1].to_owned(), quoted(cells[2]).map(str::to_owned).collect())))
        .collect();
    assert_eq!(on_page(&full_page()), documented, "left: what exists; right: docs/metrics.md");
}

#[test]
fn names_tell_their_units() {
    for (name, (kind, _)) in on_page(&full_page()) {
        let is_named = match kind.as_str() {
            "counter" => name.ends_with("_total"),
            "histogram" => name.ends_with("_seconds"),
            _ => !name.ends_with("_total") && !["time", "age", "size"].iter().any(|word| name.ends_with(word)),
        };
        assert!(is_named, "{name} is a {kind}");
    }
}

const RULES: &str = include_str!("../../config/prometheus/rules.yaml");

fn alerts() -> Vec<(String, String)> {
    let manifest: serde_json::Value = serde_saphyr::from_str(RULES).expect("a manifest");
    let groups = manifest["spec"]["groups"].as_array().expect("groups").clone();
    let rules = groups.iter().flat_map(|group| group["rules"].as_array().cloned().unwrap_or_default());
    let text = |rule: &serde_json::Value, field: &str| rule[field].as_str().unwrap_or_else(|| panic!("no {field}: {rule}")).to_owned();
    rules
        .map(|rule| {
            for (section, field) in [("labels", "severity"), ("annotations", "summary"), ("annotations", "description")] {
                assert!(!text(&rule[section], field).is_empty());
            }
            (text(&rule, "alert"), text(&rule, "expr"))
        })
        .collect()
}

/// The name of a series without what a histogram appends, what its selector says, and what is left of the expression.
fn selectors(expression: &str) -> Vec<(String, String)> {
    let starts = expression.match_indices("keyferry_").map(|(at, _)| &expression[at..]);
    starts
        .map(|rest| {
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
            let selector = rest[end..].strip_prefix('{').and_then(|selector| selector.split_once('}')).map_or("", |(inside, _)| inside);
            let name = ["_bucket", "_count", "_sum"].iter().find_map(|suffix| rest[..end].strip_suffix(suffix)).unwrap_or(&rest[..end]);
            (name.to_owned(), selector.to_owned())
        })
        .collect()
}

#[test]
fn alerts_name_only_series_labels_and_reasons_that_exist_and_the_manual_lists_them() {
    let existing = on_page(&full_page());
    for (alert, expression) in alerts() {
        let selectors = selectors(&expression);
        assert!(!selectors.is_empty(), "{alert}: {expression}");
        for (series, selector) in selectors {
            let Some((_, labels)) = existing.get(&series) else { panic!("{alert}: there is no {series}") };
            for matcher in selector.split(',').filter(|matcher| !matcher.is_empty()) {
                let (label, value) = matcher.split_once('=').expect("a matcher");
                let label = label.trim_end_matches('!');
                assert!(labels.contains(label), "{alert}: {series} has no label {label}");
                for word in value.trim_matches(['~', '"']).split('|').filter(|_| label == "reason") {
                    assert!(Reason::parse(word).is_some(), "{alert}: {word} is no reason");
                }
            }
        }
    }
    let listed: BTreeSet<&str> = rows("Keyferry").map(|(name, _)| name).collect();
    let alerts = alerts();
    assert_eq!(alerts.iter().map(|(alert, _)| alert.as_str()).collect::<BTreeSet<_>>(), listed);
}
