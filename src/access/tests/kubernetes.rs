//! What a store of provider kubernetes needs to log in, and where a token may go.

use serde_json::{Value, json};

use super::{cluster, namespaced, parsed, reason, refs, shared_name};
use crate::{
    access::{Role, SeenStore, StoreSpec, credential},
    crd::v1alpha1::ClusterSecretStoreSpec,
    fault::Reason,
    item::Wanted,
};

const ELSEWHERE: &str = "https://api.example.com:6443";

fn provider(block: &Value) -> Value {
    json!({"kubernetes": block})
}

/// Every way to log in with the keys that it names; `ns` is what all of them say of their namespace.
fn ways(ns: &Value) -> [(Value, Vec<(Role, &'static str)>); 4] {
    let secret = |name: &str, key: Option<&str>| json!({"name": name, "namespace": ns, "key": key});
    [
        (json!({"auth": {"serviceAccount": {"name": "sa", "namespace": ns}}}), vec![]),
        (json!({"auth": {"token": {"bearerToken": secret("a", None)}}}), vec![(Role::Token, "a/token")]),
        (
            json!({"auth": {"cert": {"clientCert": secret("a", None), "clientKey": secret("b", Some("k"))}}}),
            vec![(Role::ClientCertificate, "a/tls.crt"), (Role::ClientKey, "b/k")],
        ),
        (json!({"authRef": secret("a", None)}), vec![(Role::Kubeconfig, "a/kubeconfig")]),
    ]
}

#[test]
fn every_way_to_log_in_names_its_keys_beside_the_store() {
    for (block, expected) in ways(&Value::Null) {
        let refs = refs(false, &provider(&block)).unwrap();
        let keys: Vec<_> = refs.keys.iter().map(|(role, key)| (*role, format!("{}/{}", key.holder.name, key.key))).collect();
        assert_eq!(keys, expected.iter().map(|(role, key)| (*role, (*key).to_owned())).collect::<Vec<_>>(), "{block}");
        assert!(refs.holders().iter().all(|holder| holder.namespace == "team"), "{block}");
        let account = refs.account.map(|account| (account.namespace, account.name, account.audiences, account.is_for_this_cluster));
        assert_eq!(account, keys.is_empty().then(|| ("team".to_owned(), "sa".to_owned(), vec![], true)), "{block}");
    }
}

#[test]
fn no_way_leaves_the_namespace_of_its_store_or_lacks_one() {
    for (block, _) in ways(&json!("elsewhere")) {
        assert_eq!(refs(false, &provider(&block)).unwrap_err().reason, Reason::NotAllowed, "{block}");
        assert!(refs(true, &provider(&block)).is_ok(), "{block}");
    }
    for (block, _) in ways(&Value::Null) {
        assert_eq!(refs(true, &provider(&block)).unwrap_err().reason, Reason::InvalidSpec, "{block}");
    }
}

#[test]
fn an_authority_is_read_beside_the_credential() {
    let server = json!({"caProvider": {"type": "ConfigMap", "name": "ca"}});
    let refs = refs(false, &provider(&json!({"server": server, "auth": {"token": {"bearerToken": {"name": "a"}}}}))).unwrap();
    assert_eq!(refs.keys.keys().copied().collect::<Vec<_>>(), [Role::Token, Role::Authority]);
}

#[test]
fn exactly_one_way_is_taken() {
    let (token, account) = (json!({"bearerToken": {"name": "a"}}), json!({"name": "sa"}));
    let cert = json!({"clientCert": {"name": "a"}, "clientKey": {"name": "a"}});
    for block in [
        json!({}),
        json!({"auth": {}}),
        json!({"auth": {"token": token, "serviceAccount": account}}),
        json!({"auth": {"token": token, "cert": cert}}),
        json!({"auth": {"serviceAccount": account, "cert": cert}}),
        json!({"auth": {"token": token}, "authRef": {"name": "a"}}),
        json!({"auth": {"serviceAccount": account}, "authRef": {"name": "a"}}),
        json!({"auth": {"cert": cert}, "authRef": {"name": "a"}}),
        json!({"server": {"url": ELSEWHERE}, "authRef": {"name": "a"}}),
    ] {
        let fault = refs(false, &provider(&block)).unwrap_err();
        assert_eq!(fault.reason, Reason::InvalidSpec, "{block}");
        assert!(fault.detail.contains("exactly one of auth.serviceAccount"), "{fault}");
    }
}

#[test]
fn a_token_for_another_cluster_names_whom_it_is_for_and_never_this_clusters_api_server() {
    let asked = |url: Option<&str>, audiences: Value| {
        let account = json!({"name": "sa", "audiences": audiences});
        refs(false, &provider(&json!({"server": {"url": url}, "auth": {"serviceAccount": account}})))
    };
    for audiences in [Value::Null, json!([])] {
        let fault = asked(Some(ELSEWHERE), audiences).unwrap_err();
        assert_eq!(fault.reason, Reason::InvalidSpec);
        assert!(fault.detail.contains("auth.serviceAccount.audiences"), "{fault}");
    }
    for audience in ["kubernetes", "kubernetes.default", "https://kubernetes.default.svc.cluster.local"] {
        assert_eq!(asked(Some(ELSEWHERE), json!(["other", audience])).unwrap_err().reason, Reason::NotAllowed, "{audience}");
        assert!(asked(None, json!([audience])).unwrap().account.unwrap().is_for_this_cluster);
    }
    let account = asked(Some(ELSEWHERE), json!(["other"])).unwrap().account.unwrap();
    assert_eq!((account.audiences, account.is_for_this_cluster), (vec!["other".to_owned()], false));
}

#[test]
fn a_grant_to_log_in_is_a_grant_to_ask_for_its_accounts_token() {
    let granted = |block: &Value| {
        let spec: ClusterSecretStoreSpec = parsed(json!({"provider": provider(block)}));
        let refs = credential(&SeenStore { name: &shared_name(), uid: "uid", spec: StoreSpec::Cluster(&spec) }).unwrap();
        refs.account().map(|account| account.get().name.clone())
    };
    let [account, token, ..] = ways(&json!("ns")).map(|(block, _)| granted(&block));
    assert_eq!((account, token), (Some("sa".to_owned()), None));
}

#[test]
fn what_is_read_of_a_holder_are_its_own_keys_each_told_by_place() {
    let cert = json!({"clientCert": {"name": "both"}, "clientKey": {"name": "both"}});
    let server = json!({"caProvider": {"type": "ConfigMap", "name": "ca"}});
    let refs = refs(false, &provider(&json!({"server": server, "auth": {"cert": cert}}))).unwrap();
    let read = refs.holders().into_iter().map(|holder| (holder.name.as_str(), refs.keys_of(holder).collect::<Vec<_>>()));
    assert_eq!(read.collect::<Vec<_>>(), [("both", vec!["tls.crt", "tls.key"]), ("ca", vec!["ca.crt"])]);
    assert_eq!(refs.keys[&Role::Authority].to_string(), "ConfigMap team/ca with key \"ca.crt\"");
}

#[test]
fn a_path_of_a_search_says_which_kind_is_searched() {
    let spec = json!({"provider": provider(&json!({"auth": {"token": {"bearerToken": {"name": "a"}}}}))});
    let search = |path: Value| namespaced("team", "team", Some(&spec), &json!({"find": {"path": path, "name": {"regexp": "."}}}));
    let searched = |path: Value| match &search(path).unwrap().get().wanted {
        Wanted::Find(find) => find.listing.path.as_ref().map(|path| path.as_str().to_owned()),
        Wanted::Value(_) => panic!("a search was asked for"),
    };
    for path in [Value::Null, json!("/"), json!("secret"), json!("/secret/")] {
        assert_eq!(searched(path.clone()), None, "{path}");
    }
    for path in ["configmap", "/configmap/"] {
        assert_eq!(searched(json!(path)).as_deref(), Some("configmap"), "{path}");
    }
    let fault = search(json!("secrets")).unwrap_err();
    assert_eq!(fault.reason, Reason::InvalidSpec);
    assert!(fault.detail.contains("\"secrets\"") && fault.detail.contains("configmap"), "{fault}");
    assert_eq!(reason(cluster("team", &[], Some(&spec), &json!({"find": {"path": "secrets"}}))), Some(Reason::NotAllowed), "not admitted");
}
