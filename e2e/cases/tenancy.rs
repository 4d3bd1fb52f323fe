//! Who may read what: a namespace reaches its own things, and of the cluster's what an admin gave it.

use k8s_openapi::api::core::v1::Secret;
use serde_json::json;

use keyferry::crd::v1alpha1::SecretStore;

use super::whole_values;
use crate::backends::openbao::OpenBao;
use crate::harness::{Canary, Cluster, Settings, World};
use crate::proxy::{Options, Proxy};

async fn another_namespace(world: &World) -> Cluster {
    let other = Cluster { namespace: format!("{}-other", world.namespace()), ..world.cluster.clone() };
    other.apply(&format!("kind: Namespace\nmetadata: {{name: {}, labels: {{keyferry-e2e: world, team: blue}}}}", other.namespace)).await;
    other
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_store_serves_whom_a_condition_admits_and_is_as_good_as_missing_for_others() {
    let world = World::start().await;
    let other = another_namespace(&world).await;
    let value = world.canary();
    let name = |suffix: &str| format!("{}-{suffix}", world.namespace());
    let conditions = [
        ("nobody", "{}", false),
        ("others", "conditions: [{namespaces: [somewhere-else]}]", false),
        ("labelled", "conditions: [{namespaceSelector: {matchLabels: {team: blue}}}]", false),
        ("everybody", "allowAllNamespaces: true", true),
        ("by-regexp", "conditions: [{namespaceRegexes: ['t-[0-9a-f]+']}]", true),
        ("half-regexp", "conditions: [{namespaceRegexes: ['t-']}]", false),
    ];
    for (suffix, condition, _) in conditions {
        let condition = if condition == "{}" { "allowAllNamespaces: false" } else { condition };
        let store = world.file_store_named(&name(suffix), condition).await;
        store.set("db/password", value.bytes());
        world.cluster.apply(&whole_values(suffix, &store.name, "", &[("password", "db/password")])).await;
    }
    world.cluster.apply(&whole_values("missing", &name("missing"), "", &[("password", "db/password")])).await;
    let missing = world.cluster.not_ready("missing", "NotAllowed").await;
    for (suffix, _, is_admitted) in conditions {
        if is_admitted {
            world.cluster.ready(suffix).await;
        } else {
            let message = world.cluster.not_ready(suffix, "NotAllowed").await;
            assert_eq!(message.replace(&name(suffix), &name("missing")), missing, "denied and missing look the same");
            assert!(world.cluster.get::<Secret>(suffix).await.is_none());
        }
    }
    // A label that a namespace gets opens what it selects, and closes it again.
    other.apply(&whole_values("labelled", &name("labelled"), "", &[("password", "db/password")])).await;
    other.ready("labelled").await;
    let namespaces = kube::Api::<k8s_openapi::api::core::v1::Namespace>::all(world.cluster.client.clone());
    let relabel = |team: &str| json!({ "metadata": { "labels": { "team": team } } });
    namespaces.patch(&other.namespace, &Default::default(), &kube::api::Patch::Merge(relabel("red"))).await.unwrap();
    other.not_ready("labelled", "NotAllowed").await;
    assert!(other.get::<Secret>("labelled").await.is_some(), "what was delivered stays");
    namespaces.patch(&other.namespace, &Default::default(), &kube::api::Patch::Merge(relabel("blue"))).await.unwrap();
    other.ready("labelled").await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn allowed_keys_are_those_of_the_own_namespace_and_others_are_not_even_asked_for() {
    let world = World::start().await;
    let store = world.vault().await;
    store.apply(&world, "  allowedKeys: ['teams/{namespace}/*', 'shared/**']").await;
    let (own, shared) = (world.canary(), world.canary());
    let own_key = format!("teams/{}/db", world.namespace());
    store.kv().put(&own_key, &json!({ "v": own.text })).await;
    store.kv().put("shared/deep/down", &json!({ "v": shared.text })).await;
    store.kv().put("teams/other/db", &json!({ "v": world.withheld().text })).await;
    let object = |name: &str, key: &str| {
        super::external(name, &store.name, &format!("  data: [{{secretKey: v, remoteRef: {{key: '{key}', property: v}}}}]"))
    };
    world.cluster.apply(&object("own", &own_key)).await;
    world.cluster.apply(&object("shared", "shared/deep/down")).await;
    let denied = ["teams/other/db".to_owned(), "teams/{namespace}/db".to_owned(), format!("{own_key}/deeper"), "shared".to_owned()];
    for (number, key) in denied.iter().enumerate() {
        world.cluster.apply(&object(&format!("denied{number}"), key)).await;
    }
    world.cluster.ready("own").await;
    world.cluster.ready("shared").await;
    for (number, key) in denied.iter().enumerate() {
        let message = world.cluster.not_ready(&format!("denied{number}"), "NotAllowed").await;
        assert!(message.contains("data[v]") && message.contains("allowedKeys"), "{key}: {message}");
        assert_eq!(store.looks(key), 0, "{key} was asked for");
    }
    // A search gives what is allowed, whatever it matches.
    world.cluster.apply(&super::external("found", &store.name, "  dataFrom: [{find: {name: {regexp: '.*'}}}]")).await;
    world.cluster.ready("found").await;
    let found = crate::harness::cluster::data_of(&world.cluster.get::<Secret>("found").await.unwrap());
    assert_eq!(found.len(), 2, "{:?}", found.keys());
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_and_a_credential_of_another_namespace_are_out_of_reach() {
    let world = World::start().await;
    let other = another_namespace(&world).await;
    let fake = "kind: SecretStore\nmetadata: {name: theirs}\nspec: {provider: {fake: {data: [{key: k, value: v}]}}}";
    other.apply(fake).await;
    let object = |name: &str, store: &str| {
        format!(
            "kind: ExternalSecret\nmetadata: {{name: {name}}}\nspec:\n  secretStoreRef: {{name: {store}}}\n  data: [{{secretKey: k, remoteRef: {{key: k}}}}]"
        )
    };
    other.apply(&object("theirs", "theirs")).await;
    other.ready("theirs").await;
    world.cluster.apply(&object("ours", "theirs")).await;
    let message = world.cluster.not_ready("ours", "StoreNotReady").await;
    assert!(message.contains("theirs"), "{message}");

    let vault = world.vault().await;
    // What its own store asks with its own token.
    world.cluster.store_says(&vault.name, "True", "Synced").await;
    let token = Canary::new();
    other.apply(&format!("kind: Secret\nmetadata: {{name: token}}\nstringData: {{token: {}}}", "other-token-0123456789")).await;
    drop(token);
    let ca = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, vault.proxy.ca_pem());
    let before = vault.proxy.calls().len();
    let store = format!(
        "kind: SecretStore\nmetadata: {{name: thief}}\nspec:\n  provider:\n    vault:\n      server: {}\n      caBundle: {ca}\n      auth: {{tokenSecretRef: {{name: token, namespace: {}}}}}",
        vault.proxy.url(),
        other.namespace
    );
    // Refused at admission or by the operator; the other namespace's token goes nowhere.
    if world.cluster.try_apply(&store).await.is_ok() {
        world.cluster.apply(&object("thief", "thief")).await;
        world.cluster.external("thief", "to be refused", |object| crate::harness::cluster::condition_is(object, "Ready", "False")).await;
        let is_refused = |store: Option<&SecretStore>| {
            let conditions = store.iter().filter_map(|store| store.status.as_ref()).flat_map(|status| &status.conditions);
            conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.reason == "NotAllowed")
        };
        world.cluster.until::<SecretStore>("thief", "to say that it is not allowed", is_refused).await;
        world.a_while().await;
    }
    assert_eq!(vault.proxy.calls().len(), before, "nothing was sent");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenants_store_leads_to_the_operators_own_host_only_where_the_admin_lists_it() {
    let bao = OpenBao::start().await;
    let [listed, refused] = [(); 2].map(|()| Proxy::start(bao.url(), bao.ca_pem(), Options::vault()));
    let endpoint = listed.url().trim_start_matches("https://").to_owned();
    let world = World::start_with(Settings::default().argument(&format!("--tenant-endpoints={endpoint}"))).await;
    let value = world.canary();
    bao.kv().put("app/db", &json!({ "v": value.text })).await;
    let token = bao.create_token(r#"path "secret/*" { capabilities = ["read", "list"] }"#).await;
    world.source("token", &Canary::plain(&token));
    world.cluster.apply(&format!("kind: Secret\nmetadata: {{name: token}}\nstringData: {{token: {token}}}")).await;
    let api_server = world.plane.server.clone();
    let named = refused.url().replace("127.0.0.1", "localhost");
    for (name, server, ca) in [
        ("listed", listed.url(), listed.ca_pem()),
        ("literal", refused.url(), refused.ca_pem()),
        ("named", named.as_str(), refused.ca_pem()),
        ("api", api_server.as_str(), world.plane.ca_pem.as_str()),
    ] {
        let ca = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, ca);
        world
            .cluster
            .apply(&format!(
                "kind: SecretStore\nmetadata: {{name: {name}}}\nspec: {{provider: {{vault: {{server: '{server}', caBundle: {ca}, auth: {{tokenSecretRef: {{name: token}}}}}}}}}}\n---\nkind: ExternalSecret\nmetadata: {{name: {name}}}\nspec:\n  secretStoreRef: {{name: {name}}}\n  data: [{{secretKey: v, remoteRef: {{key: app/db, property: v}}}}]"
            ))
            .await;
    }
    world.cluster.ready("listed").await;
    for name in ["literal", "named", "api"] {
        let message = world.cluster.not_ready(name, "NotAllowed").await;
        assert!(message.contains("tenantEndpoints"), "{name}: {message}");
    }
    assert_eq!(refused.seen().connections_opened, 0, "nothing was sent");
    world.finish().await;
}
