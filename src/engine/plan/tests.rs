//! Golden plans: what is asked and seen, and the steps that follow, as people read them.

use serde_json::{Value, json};

use super::{Step, WriteKind, record::Record, standing};
use crate::{
    cluster::target::{Holder, TargetFacts},
    crd::v1alpha1::CreationPolicy,
    digest::DigestKey,
    engine::scene::{Scene, foreign, noon},
    fault::{Fault, Reason},
    item::{Fetched, Form, Found, Reading, Sighting},
    name::{ProviderKind, RemoteKey},
    schedule::due::TargetState,
    secret::SecretValue,
};

fn spec() -> Value {
    json!({"secretStoreRef": {"name": "main"}, "data": [
        {"secretKey": "password", "remoteRef": {"key": "db/password"}},
        {"secretKey": "user", "remoteRef": {"key": "db/user"}},
    ]})
}

fn with(mut spec: Value, field: &str, value: Value) -> Value {
    spec[field] = value;
    spec
}

fn fresh() -> Scene {
    Scene::new(spec()).found(0, "s3cret").found(1, "admin")
}

fn converged() -> Scene {
    fresh().apply().wrote("app")
}

fn deleting() -> Scene {
    let target = json!({"deletionPolicy": "Delete"});
    Scene::new(with(spec(), "target", target)).found(0, "s3cret").found(1, "admin").apply().wrote("app")
}

fn not_found() -> Fault {
    crate::backend::not_found(&RemoteKey::parse(ProviderKind::File, "db/password").unwrap())
}

type Meddle = fn(&mut crate::cluster::target::TargetFacts);

fn golden(scene: &Scene, expected: &str) {
    let plan = scene.plan().to_string();
    let trimmed: Vec<&str> = expected.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    assert_eq!(plan.trim_end(), trimmed.join("\n"));
}

#[test]
fn a_new_object_creates_its_secret() {
    golden(
        &fresh(),
        "judgement: Synced
         entry data[password] of SecretStore/main: Current Synced version 3
         entry data[user] of SecretStore/main: Current Synced version 3
         step: Create Secret app, only if missing, owned, keys [password, user]",
    );
}

#[test]
fn a_plan_made_twice_changes_nothing() {
    golden(
        &converged(),
        "judgement: Synced
         entry data[password] of SecretStore/main: Current Synced version 3
         entry data[user] of SecretStore/main: Current Synced version 3
         steps: none",
    );
}

#[test]
fn a_changed_value_updates_exactly_that_secret() {
    golden(
        &converged().found(0, "new"),
        "judgement: Synced
         entry data[password] of SecretStore/main: Current Synced version 3
         entry data[user] of SecretStore/main: Current Synced version 3
         step: Update Secret app, only uid uid-target, owned, keys [password, user]",
    );
}

#[test]
fn one_entry_that_fails_keeps_the_whole_target() {
    let unknown = Sighting::Value(Reading::Unknown(Fault::unavailable("no answer")));
    golden(
        &converged().found(1, "changed too").sees(0, unknown),
        "judgement: ProviderUnavailable: data[password]: no answer
         entry data[password] of SecretStore/main: Unavailable ProviderUnavailable
         entry data[user] of SecretStore/main: Current Synced version 3
         steps: none",
    );
}

#[test]
fn a_message_ends_at_512_characters_and_says_how_many_entries_fail() {
    let unknown = |detail: &str| Sighting::Value(Reading::Unknown(Fault::unavailable(detail)));
    let detail_of = |length: usize, others: bool| {
        let scene = converged().sees(0, unknown(&"ü".repeat(length)));
        let scene = if others { scene.sees(1, unknown("no answer")) } else { scene };
        scene.plan().judgement.unwrap_err().detail
    };
    let place = "data[password]: ".len();
    for (more, others) in [("", false), (" (and 1 more entries)", true)] {
        let room = 512 - place - more.len();
        assert_eq!(detail_of(room, others), format!("data[password]: {}{more}", "ü".repeat(room)));
        assert_eq!(detail_of(room + 1, others), format!("data[password]: {}…{more}", "ü".repeat(room - 1)));
    }
}

#[test]
fn what_no_retry_mends_is_shown_first() {
    let absent = Fault::absent(Reason::NotFound, "gone");
    let unknown = Sighting::Value(Reading::Unknown(Fault::unavailable("no answer")));
    golden(
        &converged().sees(0, unknown).absent(1, absent, false, false),
        "judgement: NotFound: data[user]: gone (and 1 more entries)
         entry data[password] of SecretStore/main: Unavailable ProviderUnavailable
         entry data[user] of SecretStore/main: Absent NotFound
         steps: none",
    );
}

#[test]
fn a_foreign_secret_is_untouched_and_its_owner_named() {
    golden(
        &fresh().target("app", foreign()),
        "judgement: NotOwned: Secret app exists and belongs to field manager helm: choose another target.name or delete it
         entry data[password] of SecretStore/main: Current Synced version 3
         entry data[user] of SecretStore/main: Current Synced version 3
         steps: none",
    );
    let detail_of = |change: fn(&mut Vec<Holder>)| {
        let mut facts = foreign();
        change(&mut facts.holders);
        fresh().target("app", facts).plan().judgement.unwrap_err().detail
    };
    let detail = detail_of(Vec::clear);
    assert!(detail.contains("belongs to somebody else"), "{detail}");
    let detail = detail_of(|holders| {
        holders.insert(0, Holder { manager: "labeler".to_owned(), is_apply: true, keys: vec![], time: None });
    });
    assert!(detail.contains("field manager helm"), "who holds data, not who was there first: {detail}");
}

#[test]
fn an_owner_reference_names_a_foreign_secrets_owner() {
    let mut facts = foreign();
    facts.owners = vec![("Certificate".to_owned(), "web".to_owned(), "uid-other".to_owned())];
    let plan = fresh().target("app", facts).plan();
    assert!(plan.judgement.unwrap_err().detail.contains("belongs to Certificate web"));
}

#[test]
fn of_two_objects_the_holder_keeps_the_target_and_the_older_takes_a_free_one() {
    let other = with(spec(), "target", json!({"name": "app"}));
    let held = converged();
    let traces: [fn(&mut TargetFacts); 3] = [|_| {}, |facts| facts.holders.clear(), |facts| facts.owners.clear()];
    for leave in traces {
        let mut facts = held.facts("app");
        leave(&mut facts);
        let plan = Scene::new(other.clone()).found(0, "x").found(1, "y").named("other").target("app", facts).plan();
        let fault = plan.judgement.unwrap_err();
        assert_eq!(fault.reason, Reason::Conflict);
        assert!(fault.detail.contains("ExternalSecret app holds Secret app"), "{}", fault.detail);
        assert!(plan.steps.is_empty());
    }

    let younger = fresh().rival("older", true, &other).plan();
    let fault = younger.judgement.unwrap_err();
    assert_eq!((fault.reason, younger.steps.is_empty()), (Reason::Conflict, true));
    assert!(fault.detail.contains("ExternalSecret older"), "{}", fault.detail);
    assert!(fresh().rival("younger", false, &other).plan().judgement.is_ok());
    assert!(converged().rival("older", true, &other).plan().judgement.is_ok(), "the holder keeps it");
}

#[test]
fn the_state_of_a_target_is_told_from_its_metadata() {
    let scene = converged();
    let request = scene.judged().request;
    let changed = |change: fn(&mut TargetFacts)| {
        let mut facts = scene.facts("app");
        change(&mut facts);
        Some(facts)
    };
    let cases = [
        (changed(|_| {}), TargetState::InOrder),
        (None, TargetState::Missing),
        (changed(|facts| facts.is_deleting = true), TargetState::Missing),
        (changed(|facts| facts.has_label = false), TargetState::Drifted),
        (changed(|facts| facts.records.clear()), TargetState::Drifted),
        (Some(foreign()), TargetState::Drifted),
    ];
    for (facts, expected) in cases {
        let state = |policy, was_written| {
            standing::state(facts.as_ref(), &scene.key, &request.key, &request.uid, &request.target, policy, was_written)
        };
        assert_eq!(state(CreationPolicy::Owner, true), expected, "{facts:?}");
        assert_eq!(state(CreationPolicy::Owner, false), TargetState::Unwritten, "{facts:?}");
        assert_eq!(state(CreationPolicy::None, true), TargetState::Unwritten, "{facts:?}");
    }
}

#[test]
fn a_terminating_secret_is_waited_for() {
    let plan = converged().meddle("app", |facts| facts.is_deleting = true).plan();
    assert_eq!(plan.judgement.unwrap_err().reason, Reason::Conflict);
    assert!(plan.steps.is_empty());
}

#[test]
fn an_edited_key_is_restored_and_may_be_taken_back() {
    let edited = converged().meddle("app", |facts| {
        facts.holders[0].keys.retain(|key| key != "user");
        facts.holders.push(Holder { manager: "kubectl-edit".to_owned(), is_apply: false, keys: ["user".to_owned()].into(), time: None });
    });
    golden(
        &edited,
        "judgement: Synced
         entry data[password] of SecretStore/main: Current Synced version 3
         entry data[user] of SecretStore/main: Current Synced version 3
         step: Repair Secret app, only uid uid-target, owned, keys [password, user], restores [user]",
    );
    let Step::Write(write) = &edited.plan().steps[0] else { panic!("a write") };
    assert!(write.may_force.contains(".data.user"));

    let mut stubborn = edited;
    stubborn.repairs.restored.insert("user".to_owned(), vec![noon(); 3]);
    let fault = stubborn.plan().judgement.unwrap_err();
    assert_eq!(fault.reason, Reason::Conflict);
    assert!(fault.detail.contains("kubectl-edit"), "{}", fault.detail);
    stubborn.now = "2026-01-01T12:04:59Z".parse().unwrap();
    assert!(stubborn.plan().judgement.is_err());
    stubborn.now = "2026-01-01T12:05:00Z".parse().unwrap();
    assert!(stubborn.plan().judgement.is_ok(), "the window has passed");
}

#[test]
fn a_key_that_was_never_ours_is_never_forced() {
    let more = with(spec(), "data", json!([{"secretKey": "new", "remoteRef": {"key": "db/new"}}]));
    let scene = converged().edit(&more).found(0, "x");
    let plan = scene.plan();
    let Step::Write(write) = &plan.steps[0] else { panic!("a write") };
    assert!(!write.may_force.contains(".data.new"));
    assert_eq!(write.body.data.keys().collect::<Vec<_>>(), ["new"], "what the spec no longer names is no longer applied");
}

#[test]
fn a_stripped_label_annotation_or_owner_is_put_back() {
    let cases: [(&str, Meddle); 3] = [
        ("label", |facts| facts.has_label = false),
        ("owner", |facts| facts.owners[0].2 = "uid-dead".to_owned()),
        ("annotation", |facts| facts.records.clear()),
    ];
    for (name, meddle) in cases {
        let plan = converged().meddle("app", meddle).plan();
        let [Step::Write(write)] = plan.steps.as_slice() else { panic!("{name}: {plan}") };
        assert_eq!(write.kind, WriteKind::Repair, "{name}");
        assert_eq!(write.guard, crate::cluster::Guard::Uid("uid-target".to_owned()), "{name}");
    }
}

#[test]
fn a_forged_annotation_proves_nothing() {
    let forged = converged().meddle("app", |facts| {
        facts.holders.clear();
        for (_, text) in &mut facts.records {
            *text = text.replace("\"own\":\"", "\"own\":\"0");
        }
    });
    assert_eq!(forged.plan().judgement.unwrap_err().reason, Reason::NotOwned);
}

#[test]
fn cleared_managed_fields_leave_the_annotation_as_proof() {
    let cleared = converged().meddle("app", |facts| facts.holders.clear());
    let plan = cleared.plan();
    let [Step::Write(write)] = plan.steps.as_slice() else { panic!("{plan}") };
    assert!(write.may_force.contains(".data.password"));
}

#[test]
fn another_mac_key_rewrites_what_the_target_says_and_forces_nothing() {
    let mut scene = converged();
    scene.key = DigestKey::new(&[8; 32]);
    let plan = scene.plan();
    let [Step::Write(write)] = plan.steps.as_slice() else { panic!("{plan}") };
    assert!(!write.may_force.iter().any(|field| field.starts_with(".data.")));
    golden(
        &scene.apply(),
        "judgement: Synced
         entry data[password] of SecretStore/main: Current Synced version 3
         entry data[user] of SecretStore/main: Current Synced version 3
         steps: none",
    );
}

#[test]
fn absence_deletes_only_with_every_proof() {
    let gone = |scene: Scene, confirmed: bool, braked: bool| {
        scene.absent(0, not_found(), confirmed, braked).absent(1, not_found(), confirmed, braked)
    };
    golden(
        &gone(deleting(), true, false),
        "judgement: NotFound: data[password]: remote key \"db/password\" does not exist: create it or correct the key (and 1 more entries)
         entry data[password] of SecretStore/main: Absent NotFound
         entry data[user] of SecretStore/main: Absent NotFound
         step: delete Secret app of uid uid-target (Absent)",
    );
    let soft = Fault::absent(Reason::Deleted, "soft-deleted");
    let kept = vec![
        ("Retain", gone(converged(), true, false)),
        ("one miss", gone(deleting(), false, false)),
        ("one entry is there", gone(deleting(), true, false).found(1, "admin")),
        ("one entry is unknown", gone(deleting(), true, false).sees(1, Sighting::Value(Reading::Unknown(Fault::unavailable("x"))))),
        ("one entry is denied", gone(deleting(), true, false).sees(1, Sighting::Value(Reading::Unknown(Fault::access_denied("x"))))),
        ("soft-deleted", gone(deleting(), true, false).absent(1, soft, true, false)),
        ("another generation of the store", gone(deleting(), true, false).store_generation(2)),
        ("not ours", gone(deleting(), true, false).target("app", foreign())),
        (
            "owned by an earlier object of the name",
            gone(deleting(), true, false).meddle("app", |facts| facts.owners[0].2 = "uid-dead".to_owned()),
        ),
        ("the record is forged", gone(deleting(), true, false).meddle("app", |facts| facts.records.clear())),
        ("terminating", gone(deleting(), true, false).meddle("app", |facts| facts.is_deleting = true)),
    ];
    for (name, scene) in kept {
        let plan = scene.plan();
        assert!(plan.steps.is_empty() && plan.judgement.is_err(), "{name}: {plan}");
    }
}

#[test]
fn a_key_that_was_never_found_deletes_nothing() {
    let more = with(
        with(spec(), "target", json!({"deletionPolicy": "Delete"})),
        "data",
        json!([{"secretKey": "a", "remoteRef": {"key": "typo"}}]),
    );
    let plan = deleting().edit(&more).absent(0, not_found(), true, false).plan();
    assert!(plan.steps.is_empty(), "{plan}");
}

#[test]
fn mass_absence_brakes_the_deletion_and_says_how_to_go_on() {
    let scene = deleting().absent(0, not_found(), true, true).absent(1, not_found(), true, true);
    let plan = scene.plan();
    assert!(plan.steps.is_empty());
    assert!(plan.entries.iter().all(|entry| entry.reason == "MassAbsence"));
    let fault = plan.judgement.unwrap_err();
    assert_eq!(fault.reason, Reason::MassAbsence);
    assert!(fault.detail.contains("keyferry.dev/confirm-absence"));
}

#[test]
fn a_renamed_target_is_made_first_and_only_our_own_old_one_goes() {
    let renamed = with(spec(), "target", json!({"name": "fresh"}));
    let scene = converged().edit(&renamed);
    golden(
        &scene,
        "judgement: Synced
         entry data[password] of SecretStore/main: Current Synced version 3
         entry data[user] of SecretStore/main: Current Synced version 3
         step: Create Secret fresh, only if missing, owned, keys [password, user]
         step: delete Secret app of uid uid-target (Renamed)",
    );
    let not_ours = converged().edit(&renamed).target("app", foreign()).plan();
    assert_eq!(not_ours.steps.len(), 1, "{not_ours}");
    let taken = converged().edit(&renamed).target("fresh", foreign()).plan();
    assert!(taken.steps.is_empty(), "the old one stays while the new one cannot be made: {taken}");
    let orphan = with(spec(), "target", json!({"name": "fresh", "creationPolicy": "Orphan"}));
    assert_eq!(converged().edit(&orphan).plan().steps.len(), 1, "what is orphaned stays");
}

#[test]
fn creation_policies_differ_in_the_owner_and_in_writing_at_all() {
    let orphan = with(spec(), "target", json!({"creationPolicy": "Orphan"}));
    golden(
        &Scene::new(orphan).found(0, "a").found(1, "b"),
        "judgement: Synced
         entry data[password] of SecretStore/main: Current Synced version 3
         entry data[user] of SecretStore/main: Current Synced version 3
         step: Create Secret app, only if missing, not owned, keys [password, user]",
    );
    let none = with(spec(), "target", json!({"creationPolicy": "None"}));
    assert!(Scene::new(none).found(0, "a").found(1, "b").plan().steps.is_empty());
}

#[test]
fn a_refused_reference_says_so_and_nothing_is_written() {
    let mut denied = spec();
    denied["data"][1]["sourceRef"] = json!({"storeRef": {"name": "shared", "kind": "ClusterSecretStore"}});
    let plan = Scene::new(denied).plan();
    assert!(plan.steps.is_empty());
    assert_eq!(plan.judgement.unwrap_err().reason, Reason::NotAllowed);
    assert_eq!(plan.entries.len(), 1, "the other entry was not looked at");
}

#[test]
fn a_target_that_somebody_deleted_is_created_again_under_its_guard() {
    let scene = fresh().wrote("app");
    let plan = scene.plan();
    let [Step::Write(write)] = plan.steps.as_slice() else { panic!("{plan}") };
    assert_eq!((write.kind, &write.guard), (WriteKind::Recreate, &crate::cluster::Guard::CreateOnly));
}

/// Two entries of an ExternalParameter.
fn parameters() -> Value {
    json!({"secretStoreRef": {"name": "main"}, "data": [
        {"key": "host", "remoteRef": {"key": "db/host"}},
        {"key": "port", "remoteRef": {"key": "db/port"}},
    ]})
}

#[test]
fn a_parameter_goes_the_same_way_into_a_config_map() {
    let fresh = || Scene::parameter(parameters()).found(0, "h").found(1, "1");
    golden(
        &fresh(),
        "judgement: Synced
         entry data[host] of SecretStore/main: Current Synced version 3
         entry data[port] of SecretStore/main: Current Synced version 3
         step: Create ConfigMap app, only if missing, owned, keys [host, port]",
    );
    let converged = || fresh().apply().wrote("app");
    golden(
        &converged(),
        "judgement: Synced
         entry data[host] of SecretStore/main: Current Synced version 3
         entry data[port] of SecretStore/main: Current Synced version 3
         steps: none",
    );
    golden(
        &converged().found(0, "other").meddle("app", |facts| facts.holders[0].keys.retain(|key| key != "port")),
        "judgement: Synced
         entry data[host] of SecretStore/main: Current Synced version 3
         entry data[port] of SecretStore/main: Current Synced version 3
         step: Update ConfigMap app, only uid uid-target, owned, keys [host, port], restores [port]",
    );
    golden(
        &converged().edit(&with(parameters(), "target", json!({"name": "fresh"}))),
        "judgement: Synced
         entry data[host] of SecretStore/main: Current Synced version 3
         entry data[port] of SecretStore/main: Current Synced version 3
         step: Create ConfigMap fresh, only if missing, owned, keys [host, port]
         step: delete ConfigMap app of uid uid-target (Renamed)",
    );
    let fault = fresh().target("app", foreign()).plan().judgement.unwrap_err();
    assert_eq!(
        fault.to_string(),
        "NotOwned: ConfigMap app exists and belongs to field manager helm: choose another target.name or delete it"
    );
    let deleting = Scene::parameter(with(parameters(), "target", json!({"deletionPolicy": "Delete"}))).found(0, "h").found(1, "1");
    golden(
        &deleting.apply().wrote("app").absent(0, not_found(), true, false).absent(1, not_found(), true, false),
        "judgement: NotFound: data[host]: remote key \"db/password\" does not exist: create it or correct the key (and 1 more entries)
         entry data[host] of SecretStore/main: Absent NotFound
         entry data[port] of SecretStore/main: Absent NotFound
         step: delete ConfigMap app of uid uid-target (Absent)",
    );
}

#[test]
fn a_document_is_one_key_and_its_collisions_name_the_entry() {
    let spec = |keys: [&str; 2]| {
        json!({"secretStoreRef": {"name": "main"}, "target": {"format": "Yaml", "fileName": "app.yaml", "separator": "."}, "data": [
            {"key": keys[0], "remoteRef": {"key": "db/host"}},
            {"key": keys[1], "type": "Json", "remoteRef": {"key": "db/port"}},
        ]})
    };
    let scene = Scene::parameter(spec(["db.host", "db.port"])).found(0, "h").found(1, "12345678901234567890");
    let plan = scene.plan();
    let [Step::Write(write)] = plan.steps.as_slice() else { panic!("{plan}") };
    let document = write.body.data["app.yaml"].expose();
    assert_eq!(String::from_utf8_lossy(document), "\"db\":\n  \"host\": \"h\"\n  \"port\": 12345678901234567890\n");
    assert_eq!(write.body.data.len(), 1);
    let converged = scene.apply().wrote("app");
    assert!(converged.plan().steps.is_empty());
    golden(
        &Scene::parameter(spec(["db", "db.port"])).found(0, "h").found(1, "1"),
        "judgement: KeyCollision: data[db.port]: key \"db.port\" lies below key \"db\", which has a value of its own: rename one of them
         entry data[db.port] of SecretStore/main: Invalid KeyCollision
         entry data[db] of SecretStore/main: Current Synced version 3
         steps: none",
    );
}

#[test]
fn a_document_that_no_search_fills_remembers_no_members() {
    let spec = json!({"secretStoreRef": {"name": "main"}, "target": {"format": "Json"}, "data": [{"key": "host", "remoteRef": {"key": "db/host"}}]});
    let plan = Scene::parameter(spec).found(0, "h").plan();
    let [Step::Write(write)] = plan.steps.as_slice() else { panic!("{plan}") };
    let record = write.body.annotations.values().find_map(|text| Record::parse(text)).unwrap();
    assert!(!record.has_member("host"), "nothing of it can come to be withheld");
}

#[test]
fn without_the_installations_key_no_digest_of_a_whole_item_stands_in_a_target() {
    let mut scene = Scene::parameter(parameters()).found(0, "h").found(1, "1");
    scene.key = DigestKey::plain();
    let scene = scene.apply().wrote("app");
    let facts = scene.facts("app");
    let record: Value = serde_json::from_str(&facts.records[0].1).unwrap();
    assert!(record["i"].as_object().unwrap().values().all(|mac| mac == ""), "{record}");
    assert!(scene.plan().steps.is_empty());
}

/// Without the installation's key only what is compared with its MACs is made anew; whose target it is needs no key.
#[test]
fn a_config_map_is_known_without_the_key_of_the_installation() {
    let mut scene = Scene::parameter(parameters()).found(0, "h").found(1, "1").apply().wrote("app");
    scene.key = DigestKey::new(&[8; 32]);
    let plan = scene.plan();
    let [Step::Write(write)] = plan.steps.as_slice() else { panic!("{plan}") };
    assert_eq!(write.kind, WriteKind::Annotate);
    assert!(write.may_force.contains(".data.host"), "the record proves what was ours");
    assert!(scene.apply().plan().steps.is_empty());
}

#[test]
fn objects_of_two_kinds_never_share_a_target() {
    let secret = Scene::new(spec()).found(0, "a").found(1, "b");
    let other = Scene::parameter(parameters());
    secret.world.claims.put(&other.object);
    assert!(secret.plan().judgement.is_ok(), "a ConfigMap of the name is no Secret of the name");
    let (one, two) = (secret.object.key(), other.object.key());
    assert_ne!(crate::cluster::target::annotation(&one), crate::cluster::target::annotation(&two));
}

#[test]
fn messages_end_at_512_characters() {
    let long = Fault::absent(Reason::NotFound, "x".repeat(2000));
    let fault = converged().absent(0, long, false, false).plan().judgement.unwrap_err();
    assert_eq!(fault.detail.chars().count(), 512);
}

#[test]
fn nothing_of_a_value_stands_in_a_plan() {
    let plan = fresh().found(0, "hunter2").plan();
    let shown = format!("{plan} {plan:?}");
    assert!(!shown.contains("hunter2") && !shown.contains("aHVudGVyMg"), "{shown}");
}

fn searching(policy: &str) -> Scene {
    Scene::new(json!({"secretStoreRef": {"name": "main"}, "target": {"deletionPolicy": policy}, "dataFrom": [
        {"find": {"name": {"regexp": "^db/"}}},
    ]}))
}

/// What a search shows: values under some names, and names of which the store gives no value.
fn seen_by_search(values: &[&str], withheld: &[(&str, Reason)]) -> Sighting {
    let key = |name: &str| RemoteKey::parse(ProviderKind::File, name).unwrap();
    let fetched =
        |name: &str| Fetched { value: SecretValue::from(format!("value of {name}")), form: Form::Whole, version: None, is_secret: false };
    Sighting::Found(Ok(Found {
        values: values.iter().map(|name| (key(name), fetched(name))).collect(),
        withheld: withheld.iter().map(|(name, reason)| (key(name), Fault::absent(*reason, format!("{name} is withheld")))).collect(),
    }))
}

#[test]
fn a_key_whose_value_the_store_withholds_keeps_the_whole_target() {
    for policy in ["Retain", "Delete"] {
        let scene = searching(policy).sees(0, seen_by_search(&["db/user", "db/password"], &[])).apply().wrote("app");
        golden(
            &scene.sees(0, seen_by_search(&["db/user", "db/new"], &[("db/password", Reason::Deleted)])),
            "judgement: Deleted: dataFrom[0]: db/password is withheld
             entry dataFrom[0] of SecretStore/main: Absent Deleted
             steps: none",
        );
    }
}

#[test]
fn a_target_remembers_how_many_names_each_search_had() {
    let names = ["db/user", "db/password", "db/host"];
    let scene = searching("Retain").sees(0, seen_by_search(&names, &[("db/old", Reason::Deleted)]));
    let Step::Write(write) = &scene.plan().steps[0] else { panic!("a write") };
    let record = write.body.annotations.values().find_map(|text| Record::parse(text)).unwrap();
    let judged = scene.judged();
    assert_eq!(record.names_of(judged.verdicts[0].as_ref().unwrap().get()), Some(4), "a withheld name is there");
}

#[test]
fn a_search_of_which_everything_is_withheld_says_why_and_not_that_nothing_matches() {
    let scene = searching("Delete").sees(0, seen_by_search(&["db/user"], &[])).apply().wrote("app");
    golden(
        &scene.sees(0, seen_by_search(&[], &[("db/user", Reason::Disabled)])),
        "judgement: Disabled: dataFrom[0]: db/user is withheld
         entry dataFrom[0] of SecretStore/main: Absent Disabled
         steps: none",
    );
}

#[test]
fn a_withheld_name_that_was_never_delivered_holds_nothing_up() {
    let scene = searching("Retain").sees(0, seen_by_search(&["db/user"], &[])).apply().wrote("app");
    golden(
        &scene.sees(0, seen_by_search(&["db/user", "db/new"], &[("db/old", Reason::Deleted)])),
        "judgement: Synced
         entry dataFrom[0] of SecretStore/main: Current Synced
         step: Update Secret app, only uid uid-target, owned, keys [db_new, db_user]",
    );
}

#[test]
fn a_name_that_is_gone_for_good_takes_its_key_along() {
    let scene = searching("Retain").sees(0, seen_by_search(&["db/user", "db/password"], &[])).apply().wrote("app");
    golden(
        &scene.sees(0, seen_by_search(&["db/user"], &[])),
        "judgement: Synced
         entry dataFrom[0] of SecretStore/main: Current Synced
         step: Update Secret app, only uid uid-target, owned, keys [db_user]",
    );
}

#[test]
fn a_key_that_another_entry_gives_is_not_missed() {
    let spec = json!({"secretStoreRef": {"name": "main"}, "dataFrom": [{"find": {"name": {"regexp": "^db/"}}}],
        "data": [{"secretKey": "db_password", "remoteRef": {"key": "other"}}]});
    let scene = Scene::new(spec).found(0, "s3cret").sees(1, seen_by_search(&["db/user", "db/password"], &[])).apply().wrote("app");
    let plan = scene.sees(1, seen_by_search(&["db/user"], &[("db/password", Reason::Deleted)])).plan();
    assert_eq!(plan.judgement, Ok(()));
}

#[test]
fn a_withheld_value_is_kept_without_a_readable_record_too() {
    let scene = searching("Retain").sees(0, seen_by_search(&["db/user", "db/password"], &[])).apply().wrote("app");
    let scene = scene.meddle("app", |facts| facts.records.clear());
    let plan = scene.sees(0, seen_by_search(&["db/user"], &[("db/password", Reason::Destroyed)])).plan();
    assert_eq!(plan.judgement.unwrap_err().reason, Reason::Destroyed);
    assert!(plan.steps.is_empty());
}

fn searching_for_a_document() -> Scene {
    Scene::parameter(json!({"secretStoreRef": {"name": "main"}, "target": {"format": "Json", "trimPrefix": "db/"}, "dataFrom": [
        {"find": {"name": {"regexp": "^db/"}}},
    ]}))
}

#[test]
fn a_document_is_kept_whole_while_the_store_withholds_a_member_that_it_holds() {
    let scene = searching_for_a_document().sees(0, seen_by_search(&["db/user", "db/password"], &[])).apply().wrote("app");
    assert!(scene.plan().steps.is_empty());
    golden(
        &scene.sees(0, seen_by_search(&["db/user", "db/new"], &[("db/password", Reason::Deleted)])),
        "judgement: Deleted: dataFrom[0]: db/password is withheld
         entry dataFrom[0] of SecretStore/main: Absent Deleted
         steps: none",
    );
    let never_had = searching_for_a_document().sees(0, seen_by_search(&["db/user"], &[])).apply().wrote("app");
    golden(
        &never_had.sees(0, seen_by_search(&["db/user", "db/new"], &[("db/password", Reason::Deleted)])),
        "judgement: Synced
         entry dataFrom[0] of SecretStore/main: Current Synced
         step: Update ConfigMap app, only uid uid-target, owned, keys [config.json]",
    );
}

#[test]
fn a_document_whose_record_is_lost_is_kept_while_anything_is_withheld() {
    let scene = searching_for_a_document().sees(0, seen_by_search(&["db/user"], &[])).apply().wrote("app");
    let scene = scene.meddle("app", |facts| facts.records.clear());
    golden(
        &scene.sees(0, seen_by_search(&["db/user"], &[("db/password", Reason::Destroyed)])),
        "judgement: Destroyed: dataFrom[0]: db/password is withheld
         entry dataFrom[0] of SecretStore/main: Absent Destroyed
         steps: none",
    );
}

#[test]
fn a_parameter_that_turns_out_a_secret_keeps_its_config_map_and_writes_nothing() {
    let secret = |text: &str| {
        let value = SecretValue::from(text.to_owned());
        Sighting::Value(Reading::Found(Fetched { value, form: Form::Whole, version: None, is_secret: true }))
    };
    let refused = "judgement: SensitiveValue: data[port]: remote key \"db/port\" is a secret by its store's own word: take it with an ExternalSecret, or set sensitivity to Allow
         entry data[port] of SecretStore/main: Invalid SensitiveValue
         entry data[host] of SecretStore/main: Current Synced version 3
         steps: none";
    golden(&Scene::parameter(parameters()).found(0, "h").sees(1, secret("1")), refused);
    let converged = Scene::parameter(parameters()).found(0, "h").found(1, "1").apply().wrote("app");
    golden(&converged.found(0, "new").sees(1, secret("1")), refused);
    let allowing = with(parameters(), "sensitivity", json!("Allow"));
    golden(
        &Scene::parameter(allowing).found(0, "h").sees(1, secret("1")),
        "judgement: Synced
         entry data[host] of SecretStore/main: Current Synced version 3
         entry data[port] of SecretStore/main: Current Synced
         step: Create ConfigMap app, only if missing, owned, keys [host, port]",
    );
    assert!(Scene::new(spec()).sees(0, secret("a")).sees(1, secret("b")).plan().judgement.is_ok(), "a Secret is the place for secrets");
}
