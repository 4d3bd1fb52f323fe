//! What users read, as tables: the outcome before, the outcome now, and the conditions that follow.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Outcome, events, expiry, outcome, seal, stands, status};
use crate::{
    cluster::ClusterError,
    crd::v1alpha1::SyncStatus,
    engine::{
        apply::Done,
        plan::{DeleteCause, WriteKind},
        scene::{Scene, noon},
    },
    fault::{Fault, Reason},
    schedule::Timings,
};

fn spec(more: &Value) -> Value {
    let mut spec =
        json!({"secretStoreRef": {"name": "main"}, "refreshInterval": "1h", "data": [{"secretKey": "a", "remoteRef": {"key": "a"}}]});
    for (name, value) in more.as_object().into_iter().flatten() {
        spec[name.as_str()] = value.clone();
    }
    spec
}

fn scene() -> Scene {
    Scene::new(spec(&json!({})))
}

fn synced() -> Outcome {
    Outcome::Synced { entries: vec![], done: Done::default() }
}

fn faulty(fault: Fault) -> Outcome {
    Outcome::Faulty { entries: vec![], fault, done: Done::default() }
}

fn after(scene: &Scene, outcome: &Outcome) -> SyncStatus {
    status(&scene.judged(), outcome, &Timings::default())
}

/// `Type=Status/Reason`, in order.
fn shown(status: &SyncStatus) -> String {
    status.conditions.iter().map(|c| format!("{}={}/{}", c.type_, c.status, c.reason)).collect::<Vec<_>>().join(" ")
}

/// The rules that kstatus publishes for a custom resource.
fn kstatus(status: &SyncStatus, generation: i64) -> &'static str {
    use crate::crd::condition::{READY, RECONCILING, STALLED, is_true};
    match () {
        () if status.observed_generation != Some(generation) => "InProgress",
        () if is_true(&status.conditions, STALLED) => "Failed",
        () if is_true(&status.conditions, RECONCILING) => "InProgress",
        () if is_true(&status.conditions, READY) => "Current",
        () => "InProgress",
    }
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

#[test]
fn every_fault_shows_in_its_own_way_before_and_after_a_success() {
    let cases = [
        (Fault::unavailable("x"), "Reconciling", "Ready=True/Synced Fresh=False/ProviderUnavailable"),
        (Fault::throttled(None, "x"), "Reconciling", "Ready=True/Synced Fresh=False/Throttled"),
        (Fault::access_denied("x"), "Reconciling", "Ready=True/Synced Fresh=False/AccessDenied"),
        (Fault::absent(Reason::NotFound, "x"), "Reconciling", "Ready=False/NotFound Fresh=True/Synced Reconciling=True/NotFound"),
        (Fault::invalid(Reason::InvalidData, "x"), "Reconciling", "Ready=False/InvalidData Fresh=True/Synced Reconciling=True/InvalidData"),
        (Fault::not_allowed("x"), "Stalled", "Ready=False/NotAllowed Fresh=True/Synced Stalled=True/NotAllowed"),
        (Fault::conflict(Reason::NotOwned, "x"), "Stalled", "Ready=False/NotOwned Fresh=True/Synced Stalled=True/NotOwned"),
        (Fault::invalid(Reason::InvalidSpec, "x"), "Stalled", "Ready=False/InvalidSpec Fresh=True/Synced Stalled=True/InvalidSpec"),
        (Fault::invalid(Reason::TooLarge, "x"), "Stalled", "Ready=False/TooLarge Fresh=True/Synced Stalled=True/TooLarge"),
    ];
    for (fault, mark, later) in cases {
        let reason = fault.reason;
        let first = after(&scene(), &faulty(fault.clone()));
        assert!(shown(&first).starts_with(&format!("Ready=False/{reason}")), "{reason}: {}", shown(&first));
        assert!(shown(&first).ends_with(&format!("{mark}=True/{reason}")), "{reason}: {}", shown(&first));
        assert_eq!(kstatus(&first, 1), if mark == "Stalled" { "Failed" } else { "InProgress" }, "{reason}");

        let mut scene = scene();
        scene.status = after(&scene, &synced());
        let status = after(&scene, &faulty(fault));
        assert_eq!(shown(&status), later);
        assert_eq!(kstatus(&status, 1) == "Current", later.starts_with("Ready=True"), "{reason}");
    }
}

#[test]
fn a_success_is_current_and_an_untouched_object_in_progress() {
    let scene = scene();
    let status = after(&scene, &synced());
    assert_eq!(shown(&status), "Ready=True/Synced Fresh=True/Synced");
    assert_eq!(kstatus(&status, 1), "Current");
    assert_eq!(kstatus(&status, 2), "InProgress", "an edit that nobody has seen");
    let untouched = SyncStatus { observed_generation: Some(-1), ..Default::default() };
    assert_eq!(kstatus(&untouched, 1), "InProgress");
}

#[test]
fn nothing_new_means_the_very_same_status() {
    for outcome in
        [synced(), faulty(Fault::unavailable("x")), faulty(Fault::absent(Reason::NotFound, "x")), Outcome::Suspended, Outcome::Kept]
    {
        let mut scene = scene();
        scene.status = after(&scene, &outcome);
        scene.now = at("2026-01-01T12:30:00Z");
        assert_eq!(after(&scene, &outcome), scene.status, "{outcome:?}");
    }
}

#[test]
fn ready_outlives_fresh_until_the_staleness_limit_and_no_longer() {
    let mut scene = scene();
    scene.status = after(&scene, &synced());
    scene.status = after(&scene, &faulty(Fault::unavailable("x")));
    let end = expiry(&scene.judged().request, &scene.status, &Timings::default()).unwrap();
    assert_eq!(end, at("2026-01-01T15:00:00Z"), "three intervals of one hour");
    scene.now = at("2026-01-01T14:59:59Z");
    assert_eq!(shown(&after(&scene, &faulty(Fault::unavailable("x")))), "Ready=True/Synced Fresh=False/ProviderUnavailable");
    scene.now = end;
    let stale = after(&scene, &faulty(Fault::unavailable("x")));
    assert_eq!(shown(&stale), "Ready=False/ProviderUnavailable Fresh=False/ProviderUnavailable Reconciling=True/ProviderUnavailable");
    assert_eq!(expiry(&scene.judged().request, &stale, &Timings::default()), None, "told once");
}

#[test]
fn the_staleness_limit_is_three_intervals_within_its_bounds() {
    let limits = [
        (json!({"refreshInterval": "10s"}), Some(3600)),
        (json!({"refreshInterval": "2h"}), Some(6 * 3600)),
        (json!({"refreshInterval": "1000h"}), Some(24 * 3600)),
        (json!({"refreshInterval": "0"}), None),
        (json!({"refreshPolicy": "OnChange"}), None),
        (json!({"refreshPolicy": "CreatedOnce"}), None),
    ];
    for (more, expected) in limits {
        let request = Scene::new(spec(&more)).judged().request;
        assert_eq!(super::staleness(&request, &Timings::default()), expected.map(Duration::from_secs), "{more}");
    }
}

#[test]
fn a_new_generation_has_no_grace() {
    let mut scene = scene();
    scene.status = after(&scene, &synced());
    let scene = scene.edit(&spec(&json!({"refreshInterval": "2h"})));
    let status = after(&scene, &faulty(Fault::unavailable("x")));
    assert_eq!(shown(&status), "Ready=False/ProviderUnavailable Fresh=False/ProviderUnavailable Reconciling=True/ProviderUnavailable");
}

#[test]
fn suspension_leaves_ready_as_it_was() {
    let mut scene = scene();
    assert_eq!(shown(&after(&scene, &Outcome::Suspended)), "Ready=False/Suspended");
    scene.status = after(&scene, &synced());
    let status = after(&scene, &Outcome::Suspended);
    assert_eq!(shown(&status), "Ready=True/Suspended Fresh=True/Synced");
    assert_eq!(kstatus(&status, 1), "Current");
}

#[test]
fn transitions_keep_their_time_while_the_status_stays() {
    let mut scene = scene();
    scene.status = after(&scene, &faulty(Fault::absent(Reason::NotFound, "x")));
    scene.now = at("2026-01-01T13:00:00Z");
    let status = after(&scene, &faulty(Fault::absent(Reason::Deleted, "y")));
    assert_eq!(status.conditions[0].last_transition_time.0, noon());
    assert_eq!(status.conditions[0].reason, "Deleted");
}

#[test]
fn the_target_and_its_last_change_are_noted_only_when_written() {
    let mut scene = scene().target("app", crate::engine::scene::foreign());
    let wrote = |kind| Outcome::Synced {
        entries: vec![],
        done: Done { wrote: Some(kind), target: Some(crate::engine::scene::foreign()), ..Done::default() },
    };
    let status = after(&scene, &wrote(WriteKind::Create));
    assert_eq!(status.target.as_ref().unwrap().uid.as_deref(), Some("uid-foreign"));
    assert_eq!(status.last_change_time.as_ref().unwrap().0, noon());
    scene.status = status;
    scene.now = at("2026-01-01T13:00:00Z");
    let same = after(&scene, &wrote(WriteKind::Annotate));
    assert_eq!(same.last_change_time.unwrap().0, noon(), "no data changed");
    let gone = Outcome::Faulty {
        entries: vec![],
        fault: Fault::absent(Reason::NotFound, "x"),
        done: Done { deleted: Some(DeleteCause::Absent), ..Done::default() },
    };
    assert_eq!(after(&scene, &gone).target.unwrap().uid, None);
}

#[test]
fn somebody_elses_secret_is_never_noted_as_our_target() {
    let scene = scene().target("app", crate::engine::scene::foreign());
    let status = after(&scene, &faulty(Fault::conflict(Reason::NotOwned, "x")));
    assert_eq!(status.target, None);
    let converged = after(&scene, &synced());
    assert_eq!(converged.target.unwrap().uid.as_deref(), Some("uid-foreign"), "synced without a write: it is ours");
}

#[test]
fn the_token_and_the_inputs_are_echoed_when_handled() {
    let mut scene = scene();
    scene = scene.annotated("keyferry.dev/refresh", "7");
    let status = after(&scene, &synced());
    assert_eq!(status.handled_refresh.as_deref(), Some("7"));
    assert!(status.inputs.is_some());
    assert_eq!(after(&scene, &Outcome::Suspended).handled_refresh, None, "suspended handles nothing");
}

#[test]
fn a_status_that_was_lost_after_its_write_does_not_fit_the_target() {
    let fits = |scene: &Scene| {
        let judged = scene.judged();
        let status = &judged.request.status;
        status.inputs == Some(seal(&judged, judged.request.facts.as_deref(), status.last_change_time.as_ref()))
    };
    let mut scene = scene().found(0, "old").apply();
    scene.status = after(&scene, &synced());
    assert!(fits(&scene));
    let mut lost = scene.found(0, "new").apply();
    assert!(!fits(&lost));
    lost.status = after(&lost, &synced());
    assert!(fits(&lost));
}

#[test]
fn a_target_that_was_deleted_for_its_absence_is_not_said_to_be_there_even_if_that_status_was_lost() {
    let uid = |policy: &str| {
        let scene = Scene::new(spec(&json!({"target": {"deletionPolicy": policy}}))).wrote("app");
        after(&scene, &faulty(Fault::absent(Reason::NotFound, "x"))).target.unwrap().uid
    };
    assert_eq!(uid("Delete"), None);
    assert_eq!(uid("Retain").as_deref(), Some("uid-target"), "somebody else deleted it: it comes back with its value");
}

#[test]
fn failures_of_writing_are_told_apart() {
    let plan = || scene().found(0, "x").plan();
    let reason = |failure: ClusterError| {
        let done = Done { failure: Some(failure), ..Done::default() };
        outcome(&scene().judged().request, plan(), done).map(|outcome| match outcome {
            Outcome::Faulty { fault, .. } => (fault.reason, fault.detail),
            _ => panic!("a failure is no success"),
        })
    };
    let held = ClusterError::Held { fields: vec![".data.tls.crt".to_owned()], managers: vec!["helm".to_owned(), "helm".to_owned()] };
    let (kind, text) = reason(held).unwrap();
    assert_eq!(kind, Reason::Conflict);
    assert!(text.starts_with("tls.crt of Secret app held by helm:"), "{text}");
    assert_eq!(reason(ClusterError::Immutable).unwrap().0, Reason::ImmutableTarget);
    assert_eq!(reason(ClusterError::TooLarge).unwrap().0, Reason::TooLarge);
    assert_eq!(reason(ClusterError::Forbidden("Forbidden".to_owned())).unwrap().0, Reason::NotAllowed);
    for passing in [ClusterError::Changed, ClusterError::Unavailable("5xx"), ClusterError::NamespaceTerminating] {
        assert_eq!(reason(passing.clone()), Err(passing));
    }
}

#[test]
fn an_event_tells_a_change_of_reason_once() {
    let mut scene = scene();
    let said = |scene: &Scene, outcome: &Outcome| -> Vec<&'static str> {
        events(&scene.judged().request, outcome, &after(scene, outcome)).iter().map(|event| event.reason).collect()
    };
    assert!(said(&scene, &synced()).is_empty(), "no event for a first success");
    let outage = faulty(Fault::unavailable("x"));
    assert_eq!(said(&scene, &outage), ["ProviderUnavailable"]);
    scene.status = after(&scene, &outage);
    assert!(said(&scene, &outage).is_empty(), "a repetition is no news");
    assert_eq!(said(&scene, &faulty(Fault::absent(Reason::NotFound, "x"))), ["NotFound"]);
    let restored = Done { wrote: Some(WriteKind::Repair), restored: vec!["a".to_owned()], ..Done::default() };
    assert_eq!(said(&scene, &Outcome::Synced { entries: vec![], done: restored }), ["Repaired"]);
    let recreated = Done { wrote: Some(WriteKind::Recreate), ..Done::default() };
    assert_eq!(said(&scene, &Outcome::Synced { entries: vec![], done: recreated }), ["Recreated"]);
}

#[test]
fn after_a_restart_what_stalled_is_judged_anew_and_the_rest_stands() {
    let mut scene = scene();
    assert!(!stands(&SyncStatus::default()));
    assert!(stands(&after(&scene, &synced())));
    assert!(!stands(&after(&scene, &faulty(Fault::conflict(Reason::NotOwned, "x")))));
    let absent = scene.absent(0, Fault::absent(Reason::NotFound, "x"), false, false);
    let plan = absent.plan();
    scene = absent;
    let failing = outcome(&scene.judged().request, plan, Done::default()).unwrap();
    assert!(stands(&after(&scene, &failing)), "the poller looks on");
}

#[test]
fn a_status_that_was_lost_after_its_write_gets_the_time_of_the_write() {
    let later = at("2026-01-01T18:00:00Z");
    let change = |status: &SyncStatus| status.last_change_time.as_ref().map(|time| time.0);
    // The create was written, its status was not.
    let mut created = scene().found(0, "x").apply();
    created.now = later;
    let told = after(&created, &synced());
    assert_eq!(change(&told), Some(noon()));
    assert_eq!(told.target.as_ref().and_then(|target| target.uid.as_deref()), Some("uid-target"));
    // Told once, it stays what it is.
    created.status = told.clone();
    assert_eq!(after(&created, &synced()), told);
    // An update was written, and the status tells of the write before.
    let mut updated = created.found(0, "y").apply().meddle("app", |facts| facts.holders[0].time = Some(at("2026-01-01T15:00:00Z")));
    updated.now = later;
    assert_eq!(change(&after(&updated, &synced())), Some(at("2026-01-01T15:00:00Z")));
}

#[test]
fn an_edit_that_changes_nothing_is_no_change() {
    let mut scene = scene().found(0, "x").apply();
    scene.status = after(&scene, &synced());
    let mut edited = scene
        .edit(&spec(&json!({"refreshInterval": "2h"})))
        .meddle("app", |facts| facts.holders[0].time = Some(at("2026-01-01T15:00:00Z")));
    edited.now = at("2026-01-01T18:00:00Z");
    assert_eq!(after(&edited, &synced()).last_change_time.map(|time| time.0), Some(noon()));
}
