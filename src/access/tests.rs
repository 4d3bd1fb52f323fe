//! What the rules admit, and above all what they do not.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{
    Asker, CredentialKey, CredentialRefs, Granted, HolderKind, Role, Search, SeenStore, StoreSpec, credential, judge, key_allowed,
    pattern::expand,
};
use crate::{
    crd::v1alpha1::{ClusterSecretStoreSpec, Find, Reference, RemoteValue, SecretStoreSpec},
    fault::{Class, Fault, Reason},
    item::{Item, Wanted},
    name::{ProviderKind, RemoteKey, StoreName},
};

mod kubernetes;

const UID: &str = "uid-of-the-store";

fn shared_name() -> StoreName {
    StoreName::Cluster { name: "shared".to_owned() }
}

fn parsed<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("the fixture is a manifest")
}

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// The verdict for a value of a cluster store with that spec; `None` is a store that does not exist.
fn cluster(namespace: &str, namespace_labels: &[(&str, &str)], spec: Option<&Value>, reference: &Value) -> Result<Granted<Item>, Fault> {
    let name = shared_name();
    let spec: Option<ClusterSecretStoreSpec> = spec.map(|spec| parsed(spec.clone()));
    let seen = spec.as_ref().map(|spec| SeenStore { name: &name, uid: UID, spec: StoreSpec::Cluster(spec) });
    ask(namespace, namespace_labels, &name, seen.as_ref(), reference)
}

/// The verdict for a value of the SecretStore `own` in namespace `owner`.
fn namespaced(namespace: &str, owner: &str, spec: Option<&Value>, reference: &Value) -> Result<Granted<Item>, Fault> {
    let name = StoreName::Namespaced { namespace: owner.to_owned(), name: "own".to_owned() };
    let spec: Option<SecretStoreSpec> = spec.map(|spec| parsed(spec.clone()));
    let seen = spec.as_ref().map(|spec| SeenStore { name: &name, uid: UID, spec: StoreSpec::Namespaced(spec) });
    ask(namespace, &[], &name, seen.as_ref(), reference)
}

fn ask(
    namespace: &str,
    namespace_labels: &[(&str, &str)],
    name: &StoreName,
    seen: Option<&SeenStore<'_>>,
    reference: &Value,
) -> Result<Granted<Item>, Fault> {
    let labels = labels(namespace_labels);
    let protected = BTreeSet::from(["kube-system".to_owned(), "keyferry-system".to_owned()]);
    let asker = Asker { namespace, labels: &labels, protected: &protected };
    match reference.get("find") {
        Some(find) => judge(&asker, name, seen, Reference::Find(&parsed::<Find>(find.clone()))),
        None => judge(&asker, name, seen, Reference::Value(&parsed::<RemoteValue>(reference.clone()))),
    }
}

fn key(text: &str) -> Value {
    json!({"key": text})
}

fn file(rest: &Value) -> Value {
    let mut spec = json!({"provider": {"file": {"path": "store"}}});
    spec.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
    spec
}

fn reason(verdict: Result<Granted<Item>, Fault>) -> Option<Reason> {
    verdict.err().map(|fault| fault.reason)
}

#[test]
fn a_grant_names_the_store_by_uid_and_the_key_in_canonical_form() {
    let verdict = namespaced("team", "team", Some(&file(&json!({}))), &json!({"key": "/db//password", "version": "3", "property": "x"}));
    let granted = verdict.unwrap();
    assert_eq!(granted.get().store, UID);
    let Wanted::Value(value) = &granted.get().wanted else { panic!("a value was asked for") };
    assert_eq!((value.key.as_str(), value.version.as_deref()), ("db/password", Some("3")));
}

#[test]
fn a_store_of_either_kind_says_how_much_may_be_asked_of_it_and_how_long_it_is_kept() {
    let stores = [json!({}), json!({"limits": {"maxConcurrent": 3}, "cache": {"ttl": "30s"}})];
    for (store, expected) in stores.iter().zip([(None, None), (Some(3), Some("30s"))]) {
        let (namespaced, cluster) = (parsed::<SecretStoreSpec>(file(store)), parsed::<ClusterSecretStoreSpec>(file(store)));
        for spec in [StoreSpec::Namespaced(&namespaced), StoreSpec::Cluster(&cluster)] {
            let said = (spec.limits().and_then(|limits| limits.max_concurrent), spec.cache().map(|cache| cache.ttl.as_str()));
            assert_eq!(said, expected);
        }
    }
}

#[test]
fn metadata_is_another_item_than_the_value_and_has_no_versions() {
    let wanted = |reference: Value| match namespaced("team", "team", Some(&file(&json!({}))), &reference)
        .map(|granted| granted.get().wanted.clone())
    {
        Ok(Wanted::Value(value)) => Ok(value.is_metadata),
        Ok(other) => panic!("{other:?}"),
        Err(fault) => Err(fault.reason),
    };
    assert_eq!(wanted(json!({"key": "a"})), Ok(false));
    assert_eq!(wanted(json!({"key": "a", "metadataPolicy": "None", "version": "1"})), Ok(false));
    assert_eq!(wanted(json!({"key": "a", "metadataPolicy": "Fetch"})), Ok(true));
    assert_eq!(wanted(json!({"key": "a", "metadataPolicy": "Fetch", "version": "1"})), Err(Reason::InvalidSpec));
    for (policy, expected) in [(Value::Null, false), (json!("None"), false), (json!("Fetch"), true)] {
        let reference = json!({"find": {"path": "a", "metadataPolicy": policy}});
        let granted = namespaced("team", "team", Some(&file(&json!({}))), &reference).unwrap();
        assert!(matches!(&granted.get().wanted, Wanted::Find(find) if find.is_metadata == expected), "{granted:?}");
    }
}

#[test]
fn a_namespaced_store_serves_its_own_namespace_only() {
    let spec = file(&json!({}));
    assert_eq!(reason(namespaced("team", "team", Some(&spec), &key("a"))), None);
    assert_eq!(reason(namespaced("other", "team", Some(&spec), &key("a"))), Some(Reason::NotAllowed));
    assert_eq!(reason(namespaced("other", "team", None, &key("a"))), Some(Reason::NotAllowed));
}

#[test]
fn a_store_of_another_name_is_never_judged_in_its_place() {
    let (asked, other) = (StoreName::Cluster { name: "asked".to_owned() }, StoreName::Cluster { name: "other".to_owned() });
    let spec: ClusterSecretStoreSpec = parsed(file(&json!({"allowAllNamespaces": true})));
    let seen = SeenStore { name: &other, uid: UID, spec: StoreSpec::Cluster(&spec) };
    assert_eq!(ask("team", &[], &asked, Some(&seen), &key("a")).unwrap_err().class, Class::Bug);
    assert!(ask("team", &[], &other, Some(&seen), &key("a")).is_ok());
}

#[test]
fn a_missing_namespaced_store_is_not_ready_and_says_what_to_create() {
    let fault = namespaced("team", "team", None, &key("a")).unwrap_err();
    assert_eq!((fault.class, fault.reason), (Class::Unavailable, Reason::StoreNotReady));
    assert!(fault.detail.contains("SecretStore \"own\"") && fault.detail.contains("create it"), "{fault}");
}

#[test]
fn a_missing_cluster_store_answers_like_one_that_refuses() {
    let missing = cluster("team", &[], None, &key("a")).unwrap_err();
    let refusing = file(&json!({"conditions": [{"namespaces": ["other"]}]}));
    // Neither the key nor the provider may tell them apart.
    for (spec, reference) in [(&refusing, key("a")), (&refusing, key("..")), (&file(&json!({})), key("a"))] {
        assert_eq!(cluster("team", &[], Some(spec), &reference).unwrap_err(), missing);
    }
    assert_eq!((missing.class, missing.reason), (Class::Denied, Reason::NotAllowed));
}

#[test]
fn objects_in_protected_namespaces_are_refused_whatever_the_store_says() {
    let spec = file(&json!({"allowAllNamespaces": true}));
    for namespace in ["kube-system", "keyferry-system"] {
        assert_eq!(reason(cluster(namespace, &[], Some(&spec), &key("a"))), Some(Reason::NotAllowed));
        assert_eq!(reason(namespaced(namespace, namespace, Some(&file(&json!({}))), &key("a"))), Some(Reason::NotAllowed));
    }
    assert_eq!(reason(cluster("team", &[], Some(&spec), &key("a"))), None);
}

#[test]
fn conditions_admit_what_they_say_and_nothing_else() {
    let selector = |selector: Value| json!({"conditions": [{"namespaceSelector": selector}]});
    let expression = |key: &str, operator: &str, values: Value| {
        selector(json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]}))
    };
    let regexes = |expressions: Value| json!({"conditions": [{"namespaceRegexes": expressions}]});
    // The namespace is `team-a` with labels tier=gold, env=dev.
    let cases = [
        ("no conditions", json!({}), false),
        ("no conditions at all", json!({"conditions": []}), false),
        ("everybody", json!({"allowAllNamespaces": true}), true),
        ("everybody refused", json!({"allowAllNamespaces": false}), false),
        ("a name", json!({"conditions": [{"namespaces": ["x", "team-a"]}]}), true),
        ("another name", json!({"conditions": [{"namespaces": ["team", "team-ab", "TEAM-A"]}]}), false),
        ("an empty condition", json!({"conditions": [{}]}), false),
        ("the second condition", json!({"conditions": [{"namespaces": ["x"]}, {"namespaces": ["team-a"]}]}), true),
        ("one member of a condition", json!({"conditions": [{"namespaces": ["x"], "namespaceRegexes": ["team-."]}]}), true),
        ("a label", selector(json!({"matchLabels": {"tier": "gold"}})), true),
        ("another value", selector(json!({"matchLabels": {"tier": "silver"}})), false),
        ("one label of two", selector(json!({"matchLabels": {"tier": "gold", "env": "prod"}})), false),
        ("a label that is not there", selector(json!({"matchLabels": {"zone": ""}})), false),
        (
            "label and expression",
            selector(json!({"matchLabels": {"tier": "gold"}, "matchExpressions": [{"key": "env", "operator": "In", "values": ["prod"]}]})),
            false,
        ),
        ("an empty selector", selector(json!({})), true),
        ("In", expression("tier", "In", json!(["silver", "gold"])), true),
        ("In another", expression("tier", "In", json!(["silver"])), false),
        ("In without the label", expression("zone", "In", json!(["a"])), false),
        ("In without values", expression("tier", "In", json!([])), false),
        ("NotIn", expression("tier", "NotIn", json!(["silver"])), true),
        ("NotIn it", expression("tier", "NotIn", json!(["gold"])), false),
        ("NotIn without the label", expression("zone", "NotIn", json!(["a"])), true),
        ("NotIn without values", expression("tier", "NotIn", json!([])), false),
        ("Exists", expression("tier", "Exists", json!([])), true),
        ("Exists not", expression("zone", "Exists", json!([])), false),
        ("Exists with values", expression("tier", "Exists", json!(["gold"])), false),
        ("DoesNotExist", expression("zone", "DoesNotExist", json!([])), true),
        ("DoesNotExist but does", expression("tier", "DoesNotExist", json!([])), false),
        ("DoesNotExist with values", expression("zone", "DoesNotExist", json!(["a"])), false),
        ("a misspelt operator", expression("tier", "exists", json!([])), false),
        ("a regex", regexes(json!(["team-[a-z]"])), true),
        ("a regex on a part", regexes(json!(["team"])), false),
        ("a regex on the end", regexes(json!(["eam-a"])), false),
        ("a regex whose first branch is a part", regexes(json!(["team|team-a"])), true),
        ("a broken regex", regexes(json!(["team-a)|(?:.*"])), false),
        ("a broken regex beside a good one", regexes(json!(["(", "team-.*"])), true),
        ("a huge regex", regexes(json!(["(.{0,500}){0,500}"])), false),
    ];
    for (case, rest, admitted) in cases {
        let verdict = cluster("team-a", &[("tier", "gold"), ("env", "dev")], Some(&file(&rest)), &key("a"));
        assert_eq!(verdict.is_ok(), admitted, "{case}");
        assert!(admitted || reason(verdict) == Some(Reason::NotAllowed), "{case}");
    }
}

#[test]
fn patterns_admit_what_they_say_and_nothing_else() {
    let cases = [
        ("a", "a", true),
        ("a", "ab", false),
        ("a", "a/b", false),
        ("*", "a", true),
        ("*", "a/b", false),
        ("a/*", "a/b", true),
        ("a/*", "a", false),
        ("a/*", "a/b/c", false),
        ("a/*", "b/a/b", false),
        ("a/*/c", "a/b/c", true),
        ("a/*/c", "a/c", false),
        ("a/*/c", "a/b/b/c", false),
        ("db-*", "db-main", true),
        ("db-*", "db-main/x", false),
        ("db-*", "xdb-main", false),
        ("*-db/x", "main-db/x", true),
        ("a*c*e", "abcde", true),
        ("a*c*e", "abcd", false),
        ("**", "a/b/c", true),
        ("a/**", "a/b/c", true),
        ("a/**", "a", false),
        ("a/**", "ab/c", false),
        ("**/c", "c", true),
        ("**/c", "a/b/c", true),
        ("**/c", "a/bc", false),
        ("a/**/c", "a/c", true),
        ("a/**/c", "a/b/b/c", true),
        ("a/**/c", "a/bc", false),
        ("a/**/**/c", "a/c", true),
        ("a**/c", "ax/y/c", true),
        ("a**/c", "ac", false),
        ("a.c", "abc", false),
        ("a[bc]", "ab", false),
        ("a?", "ab", false),
        ("é/*", "é/ü", true),
        ("/a//b/", "a/b", true),
        ("", "a", false),
        ("a/../*", "b", false),
    ];
    for (pattern, key, admitted) in cases {
        let patterns = expand(&[pattern.to_owned()], ProviderKind::Vault, "team");
        let key = RemoteKey::parse(ProviderKind::Vault, key).unwrap();
        assert_eq!(key_allowed(&patterns, &key), admitted, "{pattern} on {}", key.as_str());
    }
}

#[test]
fn keys_are_judged_after_normalisation_with_the_namespace_filled_in() {
    let spec = file(&json!({"allowAllNamespaces": true, "allowedKeys": ["teams/{namespace}/*", "shared/**"]}));
    let cases = [
        ("teams/team/a", true),
        ("//teams//team///a/", true),
        ("shared/x/y", true),
        ("teams/other/a", false),
        ("teams/team/a/b", false),
        ("teams/team", false),
        ("teams/{namespace}/a", false),
        ("TEAMS/team/a", false),
        ("shared", false),
    ];
    for (text, admitted) in cases {
        let verdict = cluster("team", &[], Some(&spec), &key(text));
        assert_eq!(reason(verdict), (!admitted).then_some(Reason::NotAllowed), "{text}");
    }
    assert_eq!(reason(cluster("team", &[], Some(&spec), &key("shared/../teams/other/a"))), Some(Reason::InvalidSpec));
    let none = file(&json!({"allowAllNamespaces": true, "allowedKeys": []}));
    assert_eq!(reason(cluster("team", &[], Some(&none), &key("a"))), Some(Reason::NotAllowed));
}

#[test]
fn a_hostile_namespace_cannot_widen_a_pattern() {
    for namespace in ["*", "**", "a/b", "../x", "", "{namespace}", "Team", "a.b", "-a", "a-", &"a".repeat(64)] {
        assert!(expand(&["teams/{namespace}/*".to_owned(), "**".to_owned()], ProviderKind::Vault, namespace).is_empty(), "{namespace}");
    }
    assert_eq!(expand(&["teams/{namespace}/*".to_owned()], ProviderKind::Vault, "a-b"), ["teams/a-b/*"]);
}

#[test]
fn two_spellings_of_one_variable_get_one_verdict() {
    let spec = |style: &str| json!({"provider": {"env": {"prefix": "APP_", "style": style}}, "allowAllNamespaces": true, "allowedKeys": ["teams/{namespace}/*", "OPEN_*"]});
    let cases = [
        ("Flat", "teams/team/x", true),
        ("Flat", "TEAMS_TEAM_X", true),
        ("Flat", "open/x", true),
        ("Flat", "db/password", false),
        ("Flat", "DB_PASSWORD", false),
        ("Flat", "teams/other/x", false),
        // The variable TEAMS_TEAM_B_X belongs to namespace team-b.
        ("Flat", "teams/team/b-x", false),
        ("Nested", "teams/team/b-x", true),
        ("Nested", "TEAMS__TEAM__X", true),
        ("Nested", "TEAMS__OTHER__X", false),
        ("Nested", "open/x", false),
    ];
    for (style, text, admitted) in cases {
        assert_eq!(
            reason(cluster("team", &[], Some(&spec(style)), &key(text))),
            (!admitted).then_some(Reason::NotAllowed),
            "{style} {text}"
        );
    }
}

#[test]
fn a_fake_store_takes_keys_as_they_are_written() {
    let spec = json!({"provider": {"fake": {"data": []}}, "allowedKeys": ["/a/*"]});
    assert_eq!(reason(namespaced("team", "team", Some(&spec), &key("/a/b"))), None);
    assert_eq!(reason(namespaced("team", "team", Some(&spec), &key("a/b"))), Some(Reason::NotAllowed));
}

#[test]
fn a_key_that_cannot_be_one_is_named_with_its_remedy() {
    let fault = namespaced("team", "team", Some(&file(&json!({}))), &key("a/../b")).unwrap_err();
    assert_eq!((fault.class, fault.reason), (Class::Invalid, Reason::InvalidSpec));
    assert!(fault.detail.contains("\"a/../b\"") && fault.detail.contains("write the full path"), "{fault}");
}

#[test]
fn provider_env_is_refused_in_a_namespaced_store() {
    let spec = json!({"provider": {"env": {"prefix": "APP_"}}});
    assert_eq!(reason(namespaced("team", "team", Some(&spec), &key("a"))), Some(Reason::NotAllowed));
}

#[test]
fn a_store_without_exactly_one_provider_is_invalid() {
    for provider in [json!({}), json!({"file": {"path": "a"}, "env": {"prefix": "A"}})] {
        assert_eq!(reason(namespaced("team", "team", Some(&json!({"provider": provider})), &key("a"))), Some(Reason::InvalidSpec));
    }
}

fn vault(token: &Value) -> Value {
    json!({"provider": {"vault": {"server": "https://vault:8200", "auth": {"tokenSecretRef": token}}}, "allowAllNamespaces": true})
}

#[test]
fn a_credential_of_a_namespaced_store_stands_beside_it() {
    let name = StoreName::Namespaced { namespace: "team".to_owned(), name: "own".to_owned() };
    let cases = [
        (json!({"name": "t"}), Some(("team", "token"))),
        (json!({"name": "t", "namespace": "team", "key": "k"}), Some(("team", "k"))),
        (json!({"name": "t", "namespace": "keyferry-system"}), None),
    ];
    for (token, expected) in cases {
        let mut value = vault(&token);
        value.as_object_mut().unwrap().remove("allowAllNamespaces");
        let spec: SecretStoreSpec = parsed(value.clone());
        let found = credential(&SeenStore { name: &name, uid: UID, spec: StoreSpec::Namespaced(&spec) });
        match (&found, expected) {
            (Ok(granted), Some((namespace, key))) => {
                let CredentialKey { holder, key: found } = &granted.get().keys[&Role::Token];
                assert_eq!((holder.kind, holder.namespace.as_str(), holder.name.as_str()), (HolderKind::Secret, namespace, "t"));
                assert_eq!((found.as_str(), granted.get().keys.len()), (key, 1));
            }
            (Err(fault), None) => assert_eq!(fault.reason, Reason::NotAllowed),
            _ => panic!("{token}: {found:?}"),
        }
        // Nothing is read with a credential that is refused.
        assert_eq!(namespaced("team", "team", Some(&value), &key("a")).is_ok(), expected.is_some(), "{token}");
    }
}

#[test]
fn a_credential_of_a_cluster_store_needs_a_namespace() {
    assert_eq!(reason(cluster("team", &[], Some(&vault(&json!({"name": "t", "namespace": "vault"}))), &key("a"))), None);
    assert_eq!(reason(cluster("team", &[], Some(&vault(&json!({"name": "t"}))), &key("a"))), Some(Reason::InvalidSpec));
    let spec: ClusterSecretStoreSpec = parsed(file(&json!({})));
    let none = credential(&SeenStore { name: &shared_name(), uid: UID, spec: StoreSpec::Cluster(&spec) }).unwrap();
    assert_eq!(none.get(), &CredentialRefs::default());
}

#[test]
fn the_age_identity_of_a_store_is_a_tenants_own_and_only_where_files_are_decrypted() {
    let spec = |namespace: Value| {
        let secret = json!({"name": "age", "namespace": namespace});
        json!({"provider": {"file": {"path": "a", "format": "Tree", "decryption": {"ageIdentitySecretRef": secret}}}})
    };
    let own = StoreName::Namespaced { namespace: "team".to_owned(), name: "own".to_owned() };
    let shared = shared_name();
    let tenant = |namespace: Value| {
        let spec: SecretStoreSpec = parsed(spec(namespace));
        credential(&SeenStore { name: &own, uid: UID, spec: StoreSpec::Namespaced(&spec) })
    };
    let admin = |namespace: Value| {
        let spec: ClusterSecretStoreSpec = parsed(spec(namespace));
        credential(&SeenStore { name: &shared, uid: UID, spec: StoreSpec::Cluster(&spec) })
    };
    for (granted, expected) in [
        (tenant(Value::Null), Ok("team")),
        (tenant(json!("team")), Ok("team")),
        (tenant(json!("keyferry-system")), Err(Reason::NotAllowed)),
        (admin(json!("vault")), Ok("vault")),
        (admin(Value::Null), Err(Reason::InvalidSpec)),
    ] {
        let found = granted.map(|granted| {
            let CredentialKey { holder, key } = &granted.get().keys[&Role::AgeIdentity];
            assert_eq!(
                (holder.kind, holder.name.as_str(), key.as_str(), granted.get().keys.len()),
                (HolderKind::Secret, "age", "age.agekey", 1)
            );
            holder.namespace.clone()
        });
        assert_eq!(found.as_deref().map_err(|fault| fault.reason), expected);
    }
}

/// What a store of either kind needs to log in.
fn refs(is_cluster: bool, provider: &Value) -> Result<CredentialRefs, Fault> {
    let spec = json!({"provider": provider});
    let granted = if is_cluster {
        let spec: ClusterSecretStoreSpec = parsed(spec);
        credential(&SeenStore { name: &shared_name(), uid: UID, spec: StoreSpec::Cluster(&spec) })
    } else {
        let spec: SecretStoreSpec = parsed(spec);
        let name = StoreName::Namespaced { namespace: "team".to_owned(), name: "own".to_owned() };
        credential(&SeenStore { name: &name, uid: UID, spec: StoreSpec::Namespaced(&spec) })
    };
    granted.map(|granted| granted.get().clone())
}

fn refs_of(is_cluster: bool, vault: &Value) -> Result<CredentialRefs, Fault> {
    refs(is_cluster, &json!({"vault": vault}))
}

/// Every way to log in, with each reference in it by name; `ns` is what all of them say of their namespace.
fn ways(ns: &Value) -> Vec<(Value, Vec<(Role, &'static str)>)> {
    let secret = |name: &str| json!({"name": name, "namespace": ns});
    let account = json!({"name": "sa", "namespace": ns});
    vec![
        (json!({"tokenSecretRef": secret("a")}), vec![(Role::Token, "a/token")]),
        (json!({"appRole": {"roleId": "r", "secretRef": secret("a")}}), vec![(Role::SecretId, "a/secretId")]),
        (
            json!({"appRole": {"roleRef": secret("a"), "secretRef": secret("b")}}),
            vec![(Role::AppRoleId, "a/roleId"), (Role::SecretId, "b/secretId")],
        ),
        (json!({"kubernetes": {"role": "r", "secretRef": secret("a")}}), vec![(Role::Jwt, "a/token")]),
        (json!({"kubernetes": {"role": "r", "serviceAccountRef": account}}), vec![]),
        (json!({"jwt": {"role": "r", "secretRef": secret("a")}}), vec![(Role::Jwt, "a/token")]),
        (json!({"jwt": {"kubernetesServiceAccountToken": {"serviceAccountRef": account}}}), vec![]),
        (json!({"userPass": {"username": "u", "secretRef": secret("a")}}), vec![(Role::Password, "a/password")]),
        (json!({"ldap": {"username": "u", "secretRef": secret("a")}}), vec![(Role::Password, "a/password")]),
        (
            json!({"cert": {"clientCert": secret("a"), "secretRef": secret("b")}}),
            vec![(Role::ClientCertificate, "a/tls.crt"), (Role::ClientKey, "b/tls.key")],
        ),
        (json!({"gcp": {"role": "r", "secretRef": {"secretAccessKeySecretRef": secret("a")}}}), vec![(Role::GoogleKey, "a/key.json")]),
        (
            json!({"iam": {"vaultRole": "r", "secretRef": {"accessKeyIDSecretRef": secret("a"), "secretAccessKeySecretRef": secret("b"), "sessionTokenSecretRef": secret("c")}}}),
            vec![
                (Role::AccessKeyId, "a/access-key-id"),
                (Role::SecretAccessKey, "b/secret-access-key"),
                (Role::SessionToken, "c/session-token"),
            ],
        ),
    ]
}

#[test]
fn every_way_to_log_in_names_its_keys() {
    for (auth, expected) in ways(&Value::Null) {
        let refs = refs_of(false, &json!({"server": "https://vault", "auth": auth})).unwrap();
        let keys: Vec<_> = refs.keys.iter().map(|(role, key)| (*role, format!("{}/{}", key.holder.name, key.key))).collect();
        assert_eq!(keys, expected.iter().map(|(role, key)| (*role, (*key).to_owned())).collect::<Vec<_>>(), "{auth}");
        assert!(refs.holders().iter().all(|holder| holder.namespace == "team"), "{auth}");
        let account = refs.account.as_ref().map(|account| (account.namespace.as_str(), account.name.as_str(), account.audiences.join(",")));
        assert_eq!(account, keys.is_empty().then(|| ("team", "sa", "vault".to_owned())), "{auth}");
        assert!(!refs.account.is_some_and(|account| account.is_for_this_cluster));
    }
}

#[test]
fn no_reference_of_any_way_leaves_the_namespace_of_its_store_or_lacks_one() {
    let authority = json!({"type": "ConfigMap", "name": "ca", "namespace": "elsewhere"});
    let token = json!({"tokenSecretRef": {"name": "a"}});
    let mut cases: Vec<Value> =
        ways(&json!("elsewhere")).into_iter().map(|(auth, _)| json!({"server": "https://vault", "auth": auth})).collect();
    cases.push(json!({"server": "https://vault", "auth": token, "caProvider": authority}));
    for vault in cases {
        let fault = refs_of(false, &vault).unwrap_err();
        assert_eq!(fault.reason, Reason::NotAllowed, "{vault}");
        assert!(fault.detail.contains("provider.vault.") && fault.detail.contains(".namespace"), "{fault}");
    }
    for (auth, _) in ways(&Value::Null) {
        let fault = refs_of(true, &json!({"server": "https://vault", "auth": auth})).unwrap_err();
        assert_eq!((fault.class, fault.reason), (Class::Invalid, Reason::InvalidSpec), "{auth}");
    }
    for (auth, _) in ways(&json!("vault")) {
        assert!(refs_of(true, &json!({"server": "https://vault", "auth": auth})).is_ok(), "{auth}");
    }
}

#[test]
fn an_account_of_aws_is_one_of_its_stores_namespace_and_for_sts() {
    let refs_of = |is_cluster, account: Value| {
        let aws = json!({"service": "SecretsManager", "region": "eu-central-1", "auth": {"jwt": {"serviceAccountRef": account}}});
        refs(is_cluster, &json!({"aws": aws})).map(|refs| {
            let account = refs.account.unwrap();
            assert!(refs.keys.is_empty() && !account.is_for_this_cluster);
            (account.namespace, account.audiences.join(","))
        })
    };
    let named = |namespace: Value| json!({"name": "sa", "namespace": namespace});
    let granted = |namespace: &str| (namespace.to_owned(), "sts.amazonaws.com".to_owned());
    assert_eq!(refs_of(false, named(Value::Null)).unwrap(), granted("team"));
    assert_eq!(refs_of(true, named(json!("vault"))).unwrap(), granted("vault"));
    let audiences = json!({"name": "sa", "audiences": ["one", "two"]});
    assert_eq!(refs_of(false, audiences).unwrap().1, "one,two");
    let cases = [
        (false, named(json!("elsewhere")), Reason::NotAllowed),
        (true, named(Value::Null), Reason::InvalidSpec),
        (false, json!({"name": "sa", "audiences": ["https://kubernetes.default.svc"]}), Reason::NotAllowed),
    ];
    for (is_cluster, account, reason) in cases {
        let fault = refs_of(is_cluster, account).unwrap_err();
        assert_eq!((fault.reason, fault.detail.contains("provider.aws.auth.jwt.serviceAccountRef")), (reason, true), "{fault}");
    }
}

#[test]
fn an_authority_stands_in_a_secret_or_a_config_map() {
    for (kind, holder) in [("Secret", HolderKind::Secret), ("ConfigMap", HolderKind::ConfigMap)] {
        for (key, expected) in [(Value::Null, "ca.crt"), (json!("other"), "other")] {
            let authority = json!({"type": kind, "name": "ca", "key": key});
            let refs = refs_of(false, &json!({"server": "https://v", "auth": {"tokenSecretRef": {"name": "a"}}, "caProvider": authority}));
            let refs = refs.unwrap();
            let found = &refs.keys[&Role::Authority];
            assert_eq!((found.holder.kind, found.holder.name.as_str(), found.key.as_str()), (holder, "ca", expected));
            assert_eq!(refs.holders().len(), 2);
        }
    }
}

#[test]
fn no_token_is_asked_for_that_the_api_server_takes() {
    for audience in [
        "https://kubernetes.default.svc",
        "https://kubernetes.default.svc.cluster.local",
        "https://kubernetes.default.svc:443/",
        "kubernetes.default.svc",
        "kubernetes",
    ] {
        let account = json!({"name": "sa", "audiences": ["vault", audience]});
        let auth = json!({"kubernetes": {"role": "r", "serviceAccountRef": account}});
        let fault = refs_of(false, &json!({"server": "https://vault", "auth": auth})).unwrap_err();
        assert_eq!(fault.reason, Reason::NotAllowed, "{audience}");
        assert!(fault.detail.contains("serviceAccountRef.audiences"), "{fault}");
    }
    for audience in ["vault", "https://vault.example.com", "kubernetes-vault"] {
        let auth = json!({"kubernetes": {"role": "r", "serviceAccountRef": {"name": "sa", "audiences": [audience]}}});
        let refs = refs_of(false, &json!({"server": "https://vault", "auth": auth})).unwrap();
        assert_eq!(refs.account.unwrap().audiences, [audience]);
    }
}

#[test]
fn a_search_takes_only_what_path_expression_and_patterns_admit() {
    let spec = file(&json!({"allowAllNamespaces": true, "allowedKeys": ["teams/{namespace}/**"]}));
    let granted = cluster("team", &[], Some(&spec), &json!({"find": {"path": "/teams/", "name": {"regexp": "pass|tok"}}})).unwrap();
    let Wanted::Find(find) = &granted.get().wanted else { panic!("a search was asked for") };
    let search = Search::new(find).unwrap();
    let cases = [
        ("teams/team/password", true),
        ("teams/team/db/token", true),
        ("teams/team/user", false),
        ("teams/other/password", false),
        ("password", false),
        ("teamsteam/password", false),
    ];
    for (name, taken) in cases {
        assert_eq!(search.takes(&RemoteKey::parse(ProviderKind::File, name).unwrap()), taken, "{name}");
    }
}

#[test]
fn a_search_stays_strictly_below_its_path() {
    let below = |path: &str, name: &str| {
        let granted = namespaced("team", "team", Some(&file(&json!({}))), &json!({"find": {"path": path}})).unwrap();
        let Wanted::Find(find) = &granted.get().wanted else { panic!("a search was asked for") };
        Search::new(find).unwrap().takes(&RemoteKey::parse(ProviderKind::File, name).unwrap())
    };
    assert!(below("a", "a/b") && below("a/b", "a/b/c") && below("/", "a") && below("//", "a/b"));
    assert!(!below("a", "a") && !below("a", "ab") && !below("a/b", "a/bc") && !below("b", "a/b"));
}

#[test]
fn a_folder_of_a_fake_store_is_not_below_itself() {
    let spec = json!({"provider": {"fake": {"data": []}}});
    let granted = namespaced("team", "team", Some(&spec), &json!({"find": {"path": "a/"}})).unwrap();
    let Wanted::Find(find) = &granted.get().wanted else { panic!("a search was asked for") };
    let takes = |name: &str| Search::new(find).unwrap().takes(&RemoteKey::parse(ProviderKind::Fake, name).unwrap());
    assert_eq!(["a", "a/", "a/b", "ab"].map(takes), [false, false, true, false]);
}

#[test]
fn two_namespaces_never_share_a_search_that_patterns_bind() {
    let spec = file(&json!({"allowAllNamespaces": true, "allowedKeys": ["teams/{namespace}/*"]}));
    let find = json!({"find": {"path": "teams"}});
    assert_ne!(cluster("a", &[], Some(&spec), &find).unwrap(), cluster("b", &[], Some(&spec), &find).unwrap());
}

#[test]
fn an_expression_that_cannot_work_names_itself_and_the_remedy() {
    let spec = file(&json!({}));
    for (expression, remedy) in [("(", "correct it"), ("(?=x)", "look-around"), (r"(\w{0,500}){0,500}", "simplify it")] {
        let fault = namespaced("team", "team", Some(&spec), &json!({"find": {"name": {"regexp": expression}}})).unwrap_err();
        assert_eq!((fault.class, fault.reason), (Class::Invalid, Reason::InvalidSpec));
        assert!(fault.detail.contains("find.name.regexp") && fault.detail.contains(remedy), "{fault}");
    }
}

#[test]
fn messages_stay_short_whatever_is_asked_for() {
    let spec = file(&json!({"allowAllNamespaces": true, "allowedKeys": ["x"]}));
    let long = "\u{202e}\"".repeat(600);
    for fault in [
        cluster("team", &[], Some(&spec), &key(&long)).unwrap_err(),
        cluster("team", &[], Some(&spec), &key(&format!("../{long}"))).unwrap_err(),
        cluster("team", &[], Some(&spec), &json!({"find": {"name": {"regexp": format!("({long}")}}})).unwrap_err(),
        cluster(&"n".repeat(63), &[], None, &key("a")).unwrap_err(),
    ] {
        assert!(fault.detail.chars().count() <= 400, "{fault}");
    }
}

proptest! {
    /// The matcher agrees with the obvious translation into a regular expression.
    #[test]
    fn patterns_mean_what_their_translation_means(pattern in "[ab*/]{1,12}", key in "[ab/]{1,12}") {
        let (Some(pattern), Ok(key)) = (expand(&[pattern], ProviderKind::File, "team").pop(), RemoteKey::parse(ProviderKind::File, &key)) else {
            return Ok(());
        };
        let expected = regex::Regex::new(&translated(&pattern)).unwrap().is_match(key.as_str());
        prop_assert_eq!(key_allowed(std::slice::from_ref(&pattern), &key), expected, "{} on {}", pattern, key.as_str());
    }

    /// No key leaves the part of the store that its namespace has.
    #[test]
    fn no_key_leaves_its_namespace(text in "[a-b./*{}_-]{0,16}", style in prop::sample::select(vec!["Flat", "Nested"])) {
        let spec = json!({"provider": {"env": {"prefix": "A", "style": style}}, "allowAllNamespaces": true, "allowedKeys": ["{namespace}/*"]});
        if let Ok(granted) = cluster("a", &[], Some(&spec), &key(&text)) {
            let Wanted::Value(value) = &granted.get().wanted else { panic!("a value was asked for") };
            let segments: Vec<&str> = value.key.as_str().split('/').collect();
            prop_assert_eq!((segments[0], segments.len()), ("a", 2));
        }
    }
}

/// The documented meaning, segment by segment.
fn translated(pattern: &str) -> String {
    let mut text = String::from(r"\A");
    let mut rest = pattern;
    while !rest.is_empty() {
        let begins = rest.len() == pattern.len() || pattern[..pattern.len() - rest.len()].ends_with('/');
        let stars = rest.len() - rest.trim_start_matches('*').len();
        let (part, used) = match stars {
            0 => (regex::escape(&rest[..1]), 1),
            1 => ("[^/]*".to_owned(), 1),
            _ if begins && rest[stars..].starts_with('/') => ("(?:.*/)?".to_owned(), stars + 1),
            _ => (".*".to_owned(), stars),
        };
        text += &part;
        rest = &rest[used..];
    }
    text + r"\z"
}
