//! Every way to log in to Vault, against a real server: what it accepts, what it refuses, and how often it is asked.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use k8s_openapi::api::rbac::v1::ClusterRoleBinding;
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use reqwest::Method;
use serde_json::{Value, json};

use keyferry::crd::v1alpha1::{ClusterSecretStore, ExternalSecret};

use crate::backends::aws::judge::judge;
use crate::backends::aws::{AwsServer, User};
use crate::backends::openbao::OpenBao;
use crate::backends::vault_methods::{GoogleAccount, VaultMethods};
use crate::harness::{Canary, Login, VaultStore, World, login};
use crate::proxy::{ClientIdentity, Matcher, Options, Proxy};

const POLICY: &str = r#"path "secret/*" { capabilities = ["read", "list"] }"#;

async fn put(bao: &OpenBao, path: &str, body: Value) -> Value {
    let answer = bao.call(Method::PUT, path, Some(&body)).await;
    assert!((200..300).contains(&answer.status), "{path}: {} {}", answer.status, answer.body);
    answer.body
}

/// The account that consents, the operator's right to its tokens, and one that does not consent.
fn accounts(namespace: &str) -> String {
    format!(
        r#"
apiVersion: v1
kind: ServiceAccount
metadata: {{name: vault-login, annotations: {{keyferry.dev/allow-token: "true"}}}}
---
apiVersion: v1
kind: ServiceAccount
metadata: {{name: silent}}
---
apiVersion: v1
kind: ServiceAccount
metadata: {{name: reviewer}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {{name: keyferry-vault-login}}
rules:
  - {{apiGroups: [""], resources: [serviceaccounts], resourceNames: [vault-login, silent], verbs: [get]}}
  - {{apiGroups: [""], resources: [serviceaccounts/token], resourceNames: [vault-login], verbs: [create]}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {{name: keyferry-vault-login}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: Role, name: keyferry-vault-login}}
subjects: [{{kind: ServiceAccount, name: keyferry, namespace: keyferry-system}}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {{name: {namespace}-reviewer}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: "system:auth-delegator"}}
subjects: [{{kind: ServiceAccount, name: reviewer, namespace: {namespace}}}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {{name: {namespace}-discovery}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: "system:service-account-issuer-discovery"}}
subjects: [{{kind: Group, name: "system:unauthenticated", apiGroup: rbac.authorization.k8s.io}}]"#
    )
}

async fn reviewer_token(world: &World) -> String {
    let accounts: Api<ServiceAccount> = world.cluster.api();
    let request = TokenRequest { spec: TokenRequestSpec::default(), ..TokenRequest::default() };
    accounts.create_token_request("reviewer", &PostParams::default(), &request).await.expect("a token").status.expect("a token").token
}

async fn issuer(world: &World) -> String {
    let request = http::Request::get("/.well-known/openid-configuration").body(Vec::new()).expect("a path");
    let answer: Value = world.cluster.client.request(request).await.expect("the discovery document");
    answer["issuer"].as_str().expect("an issuer").to_owned()
}

/// Mounts every method and lets one identity in by each; its policy is `app`.
async fn open_doors(world: &World, bao: &OpenBao, authority: &str) {
    let namespace = world.namespace();
    bao.write_policy("app", POLICY).await;
    for method in ["approle", "kubernetes", "jwt", "userpass", "cert"] {
        put(bao, &format!("sys/auth/{method}"), json!({ "type": method })).await;
    }
    put(bao, "sys/auth/team/role", json!({ "type": "approle" })).await;
    for mount in ["approle", "team/role"] {
        put(bao, &format!("auth/{mount}/role/app"), json!({"token_policies": ["app"], "token_ttl": "1h"})).await;
    }
    let reviewer = reviewer_token(world).await;
    let config = json!({
        "kubernetes_host": world.plane.server, "kubernetes_ca_cert": world.plane.ca_pem,
        "token_reviewer_jwt": reviewer, "disable_local_ca_jwt": true,
    });
    put(bao, "auth/kubernetes/config", config).await;
    let role =
        json!({"bound_service_account_names": ["vault-login"], "bound_service_account_namespaces": [namespace], "token_policies": ["app"]});
    for (name, audience) in [("app", "vault"), ("other", "another")] {
        let mut bound = role.clone();
        bound["audience"] = json!(audience);
        put(bao, &format!("auth/kubernetes/role/{name}"), bound).await;
    }
    let discovery = json!({"oidc_discovery_url": issuer(world).await, "oidc_discovery_ca_pem": world.plane.ca_pem});
    put(bao, "auth/jwt/config", discovery).await;
    let subject = format!("system:serviceaccount:{namespace}:vault-login");
    let role =
        json!({"role_type": "jwt", "bound_audiences": ["bao"], "user_claim": "sub", "bound_subject": subject, "token_policies": ["app"]});
    put(bao, "auth/jwt/role/app", role).await;
    put(bao, "auth/userpass/users/joe", json!({"password": "pass word 0123456789", "token_policies": ["app"]})).await;
    put(bao, "auth/cert/certs/web", json!({"certificate": authority, "token_policies": ["app"]})).await;
    put(bao, "sys/namespaces/team", json!({})).await;
    put(bao, "team/sys/mounts/secret", json!({"type": "kv", "options": {"version": "2"}})).await;
    put(bao, "team/sys/auth/userpass", json!({"type": "userpass"})).await;
    put(bao, "team/sys/policies/acl/app", json!({"policy": POLICY})).await;
    put(bao, "team/auth/userpass/users/joe", json!({"password": "pass word 0123456789", "token_policies": ["app"]})).await;
}

/// A client's certificate, its key and its authority.
fn client_identity() -> ClientIdentity {
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, "clients");
    let authority = rcgen::CertifiedIssuer::self_signed(params, rcgen::KeyPair::generate().expect("a key")).expect("an authority");
    let key = rcgen::KeyPair::generate().expect("a key");
    let mut params = rcgen::CertificateParams::new(vec!["web.example.com".to_owned()]).expect("a name");
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    params.distinguished_name.push(rcgen::DnType::CommonName, "web");
    let certificate = params.signed_by(&key, &authority).expect("a certificate");
    ClientIdentity { authority: authority.pem(), certificate: certificate.pem(), key: key.serialize_pem() }
}

/// A ClusterSecretStore with that `auth` and further lines of its block, and an object that reads `app/db` by it.
async fn store(world: &World, suffix: &str, server: &str, ca_pem: &str, auth: &Value, more: Value) {
    let name = format!("{}-{suffix}", world.namespace());
    let mut vault = json!({"server": server, "caBundle": STANDARD.encode(ca_pem), "auth": auth});
    for (field, value) in more.as_object().into_iter().flatten() {
        vault[field] = value.clone();
        if field == "caProvider" {
            vault.as_object_mut().expect("an object").remove("caBundle");
        }
    }
    let spec = json!({"provider": {"vault": vault}, "conditions": [{"namespaces": [world.namespace()]}]});
    world.cluster.apply(&json!({"kind": "ClusterSecretStore", "metadata": {"name": name}, "spec": spec}).to_string()).await;
    world.sweep_later(&name);
    object(world, suffix, suffix, "app/db").await;
}

async fn object(world: &World, name: &str, store: &str, key: &str) {
    let store = format!("{}-{store}", world.namespace());
    world
        .cluster
        .apply(&super::external(name, &store, &format!("  data: [{{secretKey: v, remoteRef: {{key: {key}, property: v}}}}]")))
        .await;
}

async fn write_source(world: &World, name: &str, fields: &[(&str, &str)]) {
    for (_, text) in fields {
        world.source(name, &Canary::plain(text));
    }
    let data: Value = fields.iter().map(|(key, text)| ((*key).to_owned(), json!(text))).collect::<serde_json::Map<_, _>>().into();
    world.cluster.apply(&json!({"kind": "Secret", "metadata": {"name": name}, "stringData": data}).to_string()).await;
}

fn logins(vault: &VaultStore, mount: &str) -> usize {
    vault.proxy.count(&Matcher::any().resource_prefix(&format!("auth/{mount}/login")))
}

async fn secret_id(bao: &OpenBao, mount: &str) -> String {
    let answer = put(bao, &format!("auth/{mount}/role/app/secret-id"), json!({})).await;
    answer["data"]["secret_id"].as_str().expect("a secret id").to_owned()
}

async fn role_id(bao: &OpenBao, mount: &str) -> String {
    let answer = bao.call(Method::GET, &format!("auth/{mount}/role/app/role-id"), None).await;
    answer.body["data"]["role_id"].as_str().expect("an id").to_owned()
}

/// A token of the account that consents, as somebody may keep it in a Secret.
async fn minted(world: &World, audience: &str) -> String {
    let accounts: Api<ServiceAccount> = world.cluster.api();
    let spec = TokenRequestSpec { audiences: vec![audience.to_owned()], ..TokenRequestSpec::default() };
    let request = TokenRequest { spec, ..TokenRequest::default() };
    accounts.create_token_request("vault-login", &PostParams::default(), &request).await.expect("a token").status.expect("a token").token
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_server_lets_in_by_every_method_and_is_asked_once_for_each_store() {
    let world = World::start().await;
    let (vault, namespace) = (world.vault().await, world.namespace().to_owned());
    let (bao, proxy) = (&vault.bao, &vault.proxy);
    let (value, elsewhere) = (world.canary(), world.canary());
    vault.kv().put("app/db", &json!({"v": value.text})).await;
    world.cluster.apply(&accounts(&namespace)).await;
    let client = client_identity();
    open_doors(&world, bao, &client.authority).await;
    let certified = Proxy::start(bao.url(), bao.ca_pem(), Options::vault().client(client.clone()));
    put(bao, "team/secret/data/app/db", json!({"data": {"v": elsewhere.text}})).await;

    let role = role_id(bao, "approle").await;
    let secret_ids = [secret_id(bao, "approle").await, "00000000-wrong-0000".to_owned(), secret_id(bao, "approle").await];
    let (team_role, team_secret_id) = (role_id(bao, "team/role").await, secret_id(bao, "team/role").await);
    let kept = [minted(&world, "vault").await, minted(&world, "bao").await];
    write_source(&world, "app-role", &[("roleId", &role), ("secretId", &secret_ids[0])]).await;
    write_source(&world, "team-role", &[("secretId", &team_secret_id)]).await;
    write_source(&world, "kept", &[("vault", &kept[0]), ("token", &kept[1])]).await;
    write_source(&world, "joe", &[("password", "pass word 0123456789")]).await;
    world.source("web", &Canary::plain(client.key.lines().nth(1).expect("a line of a key")));
    let tls = json!({"tls.crt": client.certificate, "tls.key": client.key});
    let tls = json!({"kind": "Secret", "metadata": {"name": "web"}, "type": "kubernetes.io/tls", "stringData": tls});
    world.cluster.apply(&tls.to_string()).await;
    let authority = json!({"kind": "ConfigMap", "metadata": {"name": "authority"}, "data": {"ca.crt": proxy.ca_pem()}});
    world.cluster.apply(&authority.to_string()).await;

    let here = |name: &str| json!({"name": name, "namespace": namespace});
    let account = |name: &str, audience: &str| json!({"name": name, "namespace": namespace, "audiences": [audience]});
    let kubernetes = |role: &str, account: Value| json!({"kubernetes": {"role": role, "serviceAccountRef": account}});
    let (server, ca) = (proxy.url(), proxy.ca_pem());
    let app_role = json!({"appRole": {"roleRef": here("app-role"), "secretRef": here("app-role")}});
    let config_map = json!({"caProvider": {"type": "ConfigMap", "name": "authority", "namespace": namespace}});
    store(&world, "approle", server, ca, &app_role, config_map).await;
    let team_role_auth = json!({"appRole": {"path": "team/role", "roleId": team_role, "secretRef": here("team-role")}});
    store(&world, "mounted", server, ca, &team_role_auth, json!({})).await;
    store(&world, "kubernetes", server, ca, &kubernetes("app", here("vault-login")), json!({})).await;
    let jwt = json!({"jwt": {"role": "app", "kubernetesServiceAccountToken": {"serviceAccountRef": account("vault-login", "bao")}}});
    store(&world, "jwt", server, ca, &jwt, json!({})).await;
    let kept_token = json!({"name": "kept", "key": "vault", "namespace": namespace});
    store(&world, "reviewed", server, ca, &json!({"kubernetes": {"role": "app", "secretRef": kept_token}}), json!({})).await;
    store(&world, "signed", server, ca, &json!({"jwt": {"role": "app", "secretRef": here("kept")}}), json!({})).await;
    let joe = json!({"userPass": {"username": "joe", "secretRef": here("joe")}});
    store(&world, "userpass", server, ca, &joe, json!({})).await;
    store(&world, "namespace", server, ca, &joe, json!({"namespace": "team"})).await;
    let cert = json!({"cert": {"clientCert": here("web"), "secretRef": here("web"), "vaultRole": "web"}});
    store(&world, "cert", certified.url(), certified.ca_pem(), &cert, json!({})).await;
    for number in 0..10 {
        object(&world, &format!("crowd{number}"), "approle", "app/db").await;
    }
    for name in ["approle", "mounted", "kubernetes", "reviewed", "jwt", "signed", "userpass", "cert", "crowd0", "crowd9"] {
        world.cluster.ready(name).await;
        world.cluster.holds(name, &[("v", value.bytes())]).await;
    }
    world.cluster.ready("namespace").await;
    world.cluster.holds("namespace", &[("v", elsewhere.bytes())]).await;
    let asked = ["approle", "team/role", "kubernetes", "jwt", "userpass"].map(|mount| logins(&vault, mount));
    assert_eq!(asked, [1, 1, 2, 2, 2], "one for each store");
    assert_eq!(certified.count(&Matcher::any().resource("auth/cert/login")), 1);
    let tokens = world.audit.of_operator(world.began).into_iter().filter(|request| request.resource == "serviceaccounts/token").count();
    assert_eq!(tokens, 2);

    // What is kept beside the values, of all that a search finds.
    put(bao, "secret/metadata/app/db", json!({"custom_metadata": {"team": "shop"}})).await;
    let found = "  dataFrom: [{find: {path: app, metadataPolicy: Fetch}}]";
    world.cluster.apply(&super::external("beside", &format!("{namespace}-userpass"), found)).await;
    world.cluster.ready("beside").await;
    world.cluster.holds("beside", &[("app_db", br#"{"team":"shop"}"#)]).await;

    // What is refused, and in which words.
    store(&world, "silent", server, ca, &kubernetes("app", here("silent")), json!({})).await;
    let message = world.cluster.not_ready("silent", "StoreNotReady").await;
    assert!(message.contains("silent") && message.contains("keyferry.dev/allow-token"), "{message}");
    store(&world, "own", server, ca, &kubernetes("app", account("vault-login", &issuer(&world).await)), json!({})).await;
    let message = world.cluster.not_ready("own", "NotAllowed").await;
    assert!(message.contains("API server"), "{message}");
    store(&world, "other", server, ca, &kubernetes("other", here("vault-login")), json!({})).await;
    let message = world.cluster.not_ready("other", "AccessDenied").await;
    assert!(message.contains("`audience`"), "{message}");

    // Another credential is another session: the wrong one is refused, the right one serves again.
    vault.kv().put("app/db", &json!({"v": value.text, "w": 1})).await;
    write_source(&world, "app-role", &[("roleId", &role), ("secretId", &secret_ids[1])]).await;
    let denied = |object: &ExternalSecret| crate::harness::cluster::reason_of(object, "Fresh", "False") == Some("AccessDenied");
    let object = world.cluster.external("approle", "to be denied", denied).await;
    let message = crate::harness::cluster::message_of(&object, "Fresh");
    assert!(message.contains("provider.vault.auth.appRole"), "{message}");
    world.cluster.holds("approle", &[("v", value.bytes())]).await;
    write_source(&world, "app-role", &[("roleId", &role), ("secretId", &secret_ids[2])]).await;
    let fresh = |object: &ExternalSecret| !crate::harness::cluster::condition_is(object, "Fresh", "False");
    world.cluster.external("approle", "to be Fresh again", fresh).await;

    // What each login carried, and that nothing else logged in.
    let subject = format!("system:serviceaccount:{namespace}:vault-login");
    let of_account = |method: &str, role: &str, audience: &str| {
        Login::at(&format!("auth/{method}/login")).text("role", role).token("jwt", &subject, &[audience], 600)
    };
    let of_role = |mount: &str, role: &str, id: &str| Login::at(&format!("auth/{mount}/login")).text("role_id", role).text("secret_id", id);
    let of_joe = Login::at("auth/userpass/login/joe").text("password", "pass word 0123456789");
    let mut expected: Vec<Login> = secret_ids.iter().map(|id| of_role("approle", &role, id)).collect();
    expected.push(of_role("team/role", &team_role, &team_secret_id));
    expected.extend([
        of_account("kubernetes", "app", "vault"),
        of_account("kubernetes", "other", "vault"),
        of_account("jwt", "app", "bao"),
    ]);
    expected.push(Login::at("auth/kubernetes/login").text("role", "app").text("jwt", &kept[0]));
    expected.push(Login::at("auth/jwt/login").text("role", "app").text("jwt", &kept[1]));
    expected.extend([of_joe.clone(), of_joe.of_namespace("team")]);
    assert_eq!(login::compare(&proxy.calls(), &expected), [""; 0]);
    let of_web = Login::at("auth/cert/login").text("name", "web").by_certificate();
    assert_eq!(login::compare(&certified.calls(), &[of_web]), [""; 0]);

    // What is refused is tried again, by its object and by the check of its store.
    let stores: Api<ClusterSecretStore> = Api::all(world.cluster.client.clone());
    for name in ["silent", "own", "other"] {
        world.may_vanish(name);
        world.cluster.delete::<ExternalSecret>(name, &DeleteParams::default()).await;
        stores.delete(&format!("{namespace}-{name}"), &DeleteParams::default()).await.expect("a deletion");
    }
    let bindings: Api<ClusterRoleBinding> = Api::all(world.cluster.client.clone());
    for suffix in ["reviewer", "discovery"] {
        bindings.delete(&format!("{namespace}-{suffix}"), &DeleteParams::default()).await.expect("a deletion");
    }
    assert!(world.cluster.get::<Secret>("silent").await.is_none());
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_and_google_and_amazon_let_in_as_vault_documents_it() {
    let world = World::start().await;
    let (vault, namespace) = (world.vault().await, world.namespace().to_owned());
    let value = world.canary();
    vault.kv().put("app/db", &json!({"v": value.text})).await;
    vault.bao.write_policy("app", POLICY).await;
    let methods = VaultMethods::before(&vault.bao, "app").await;
    let proxy = Proxy::start(methods.url(), "", Options::vault());
    let (server, ca) = (proxy.url(), proxy.ca_pem());
    let count = |path: &str| proxy.count(&Matcher::any().resource(path));

    methods.person("joe@example.com", "pass word 9876543210");
    let account = GoogleAccount::new("shop@example.iam.gserviceaccount.com", "0123456789abcdef");
    methods.publish(&account);
    methods.role("app", &[&account.email]);
    methods.role("others", &["other@example.iam.gserviceaccount.com"]);
    write_source(&world, "joe", &[("password", "pass word 9876543210")]).await;
    world.source("google", &Canary::plain(&account.private_key()));
    world
        .cluster
        .apply(&json!({"kind": "Secret", "metadata": {"name": "google"}, "stringData": {"key.json": account.file()}}).to_string())
        .await;

    let here = |name: &str| json!({"name": name, "namespace": namespace});
    let google = |role: &str| json!({"gcp": {"role": role, "secretRef": {"secretAccessKeySecretRef": here("google")}}});
    let joe = json!({"ldap": {"username": "joe@example.com", "secretRef": here("joe")}});
    store(&world, "ldap", server, ca, &joe, json!({})).await;
    store(&world, "gcp", server, ca, &google("app"), json!({})).await;
    for number in 0..5 {
        object(&world, &format!("crowd{number}"), if number % 2 == 0 { "gcp" } else { "ldap" }, "app/db").await;
    }
    for name in ["ldap", "gcp", "crowd0", "crowd1", "crowd4"] {
        world.cluster.ready(name).await;
        world.cluster.holds(name, &[("v", value.bytes())]).await;
    }
    assert_eq!((count("auth/ldap/login/joe@example.com"), count("auth/gcp/login")), (1, 1), "one for each store");

    // What is refused, and in which words.
    store(&world, "others", server, ca, &google("others"), json!({})).await;
    let message = world.cluster.not_ready("others", "AccessDenied").await;
    assert!(message.contains("provider.vault.auth.gcp") && message.contains("names the service account"), "{message}");

    // A password that the directory does not know is refused, and what was delivered stays.
    let denied = |object: &ExternalSecret| crate::harness::cluster::reason_of(object, "Fresh", "False") == Some("AccessDenied");
    let fresh = |object: &ExternalSecret| !crate::harness::cluster::condition_is(object, "Fresh", "False");
    write_source(&world, "joe", &[("password", "another 0123456789")]).await;
    let object = world.cluster.external("ldap", "to be denied", denied).await;
    let message = crate::harness::cluster::message_of(&object, "Fresh");
    assert!(message.contains("provider.vault.auth.ldap") && message.contains("password"), "{message}");
    methods.person("joe@example.com", "another 0123456789");
    write_source(&world, "joe", &[("password", "another 0123456789\n")]).await;
    world.cluster.external("ldap", "to be Fresh again", fresh).await;

    // So is a key that Google withdrew; another one lets in again.
    methods.withdraw(&account);
    let other = GoogleAccount::new(&account.email, "fedcba9876543210");
    world.source("google", &Canary::plain(&other.private_key()));
    let file = json!({"kind": "Secret", "metadata": {"name": "google"}, "stringData": {"key.json": other.file()}});
    world.cluster.apply(&file.to_string()).await;
    world.cluster.external("gcp", "to be denied", denied).await;
    methods.publish(&other);
    world
        .cluster
        .apply(
            &json!({"kind": "Secret", "metadata": {"name": "google"}, "stringData": {"key.json": format!("{}\n", other.file())}})
                .to_string(),
        )
        .await;
    world.cluster.external("gcp", "to be Fresh again", fresh).await;

    // An identity of AWS, whose signature AWS knows, for the server that it names and no other.
    let aws = AwsServer::start();
    let (reader, stranger) = (aws.user("reader"), aws.user("stranger"));
    methods.amazon(aws.url(), "vault.example.com", &[("app", &reader.arn)]);
    let amazon_proxy = Proxy::start(methods.url(), "", Options::vault());
    let write_key = async |user: &User| {
        world.source("amazon", &Canary::plain(&user.key.secret));
        write_source(&world, "amazon", &[("access-key-id", &user.key.id), ("secret-access-key", &user.key.secret)]).await;
    };
    write_key(&reader).await;
    let key = json!({"accessKeyIDSecretRef": here("amazon"), "secretAccessKeySecretRef": here("amazon")});
    let amazon =
        |server_id: &str| json!({"iam": {"vaultRole": "app", "region": "eu-west-1", "vaultAwsIamServerID": server_id, "secretRef": key}});
    let (server, ca) = (amazon_proxy.url(), amazon_proxy.ca_pem());
    store(&world, "iam", server, ca, &amazon("vault.example.com"), json!({})).await;
    world.cluster.ready("iam").await;
    world.cluster.holds("iam", &[("v", value.bytes())]).await;
    assert_eq!((amazon_proxy.count(&Matcher::any().resource("auth/aws/login")), aws.count("GetCallerIdentity")), (1, 1));
    write_key(&stranger).await;
    let object = world.cluster.external("iam", "to be denied", denied).await;
    let message = crate::harness::cluster::message_of(&object, "Fresh");
    assert!(message.contains("provider.vault.auth.iam") && message.contains("binds the identity's ARN"), "{message}");
    write_key(&reader).await;
    world.cluster.external("iam", "to be Fresh again", fresh).await;
    store(&world, "elsewhere", server, ca, &amazon("another.example.com"), json!({})).await;
    world.cluster.not_ready("elsewhere", "AccessDenied").await;
    judge(&aws.recorded(), &aws.keys());

    // What each login carried.
    let passwords = ["pass word 9876543210", "another 0123456789"];
    let of_joe = passwords.map(|password| Login::at("auth/ldap/login/joe@example.com").text("password", password));
    let of_google = ["app", "others"]
        .map(|role| Login::at("auth/gcp/login").text("role", role).token("jwt", &account.email, &[&format!("vault/{role}")], 600));
    assert_eq!(login::compare(&proxy.calls(), &[of_joe, of_google].concat()), [""; 0]);

    let stores: Api<ClusterSecretStore> = Api::all(world.cluster.client.clone());
    for refused in ["others", "elsewhere"] {
        world.may_vanish(refused);
        world.cluster.delete::<ExternalSecret>(refused, &DeleteParams::default()).await;
        stores.delete(&format!("{namespace}-{refused}"), &DeleteParams::default()).await.expect("a deletion");
        assert!(world.cluster.get::<Secret>(refused).await.is_none());
    }
    world.finish().await;
}
