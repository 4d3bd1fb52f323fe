//! Logins: what is sent, how often, and what follows from the answers.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use futures::future::join_all;
use serde_json::{Value, json};

use super::{FOUND, KV2, Server, http, read, spec, unknown};
use crate::{
    access::Role,
    backend::{Backend, Credentials, Settings, TokenSource, open},
    crd::v1alpha1::{Provider, VaultProvider},
    fault::{Class, Fault, Reason},
    item::Reading,
    name::StoreName,
    secret::SecretValue,
};

#[derive(Debug)]
struct Account(Result<&'static str, Fault>);

#[async_trait]
impl TokenSource for Account {
    async fn token(&self) -> Result<SecretValue, Fault> {
        self.0.clone().map(|token| SecretValue::from(token.to_owned()))
    }

    async fn forget(&self) {}
}

/// A block with that `auth`.
pub(super) fn block(server: &str, auth: &Value) -> VaultProvider {
    let spec = spec(server);
    VaultProvider { auth: serde_json::from_value(auth.clone()).unwrap(), ..spec }
}

pub(super) fn credentials(secrets: &[(Role, &str)]) -> Credentials {
    let secrets = secrets.iter().map(|(role, text)| (*role, SecretValue::from((*text).to_owned()))).collect();
    Credentials { secrets, tokens: Some(Arc::new(Account(Ok("canary-jwt")))) }
}

pub(super) fn opened(spec: &VaultProvider, credentials: &Credentials) -> Arc<dyn Backend> {
    let name = StoreName::Cluster { name: "vault".into() };
    open(&name, Provider::Vault(spec), credentials, &Settings { call_timeout: Duration::from_secs(20), ..Settings::default() }).unwrap()
}

pub(super) fn granted(token: &str, seconds: u64, is_renewable: bool) -> Vec<u8> {
    let auth = json!({"client_token": token, "lease_duration": seconds, "renewable": is_renewable, "policies": ["x"]});
    http(200, &json!({"request_id": "x", "auth": auth}).to_string())
}

fn app_role(server: &Server) -> Arc<dyn Backend> {
    let auth = json!({"appRole": {"roleId": "role", "secretRef": {"name": "s"}}});
    opened(&block(&server.url, &auth), &credentials(&[(Role::SecretId, "canary-id")]))
}

/// The first lines of what was sent, without the version of the protocol.
fn lines(server: &Server) -> Vec<String> {
    server.heads().iter().map(|head| head.lines().next().unwrap().trim_end_matches(" HTTP/1.1").to_owned()).collect()
}

fn count(server: &Server, part: &str) -> usize {
    lines(server).iter().filter(|line| line.contains(part)).count()
}

#[tokio::test]
async fn every_login_sends_what_its_method_asks_for_and_nothing_else() {
    let secret = json!({"name": "s"});
    let account = json!({"name": "sa"});
    let cases = [
        (
            json!({"appRole": {"roleId": "r\"1", "secretRef": secret}}),
            "auth/approle/login",
            json!({"role_id": "r\"1", "secret_id": "canary-id"}),
        ),
        (
            json!({"appRole": {"path": "team/role", "roleRef": secret, "secretRef": secret}}),
            "auth/team/role/login",
            json!({"role_id": "canary-role", "secret_id": "canary-id"}),
        ),
        (
            json!({"kubernetes": {"role": "app", "serviceAccountRef": account}}),
            "auth/kubernetes/login",
            json!({"role": "app", "jwt": "canary-jwt"}),
        ),
        (
            json!({"kubernetes": {"mountPath": "k8s-eu", "role": "app", "serviceAccountRef": account}}),
            "auth/k8s-eu/login",
            json!({"role": "app", "jwt": "canary-jwt"}),
        ),
        (json!({"jwt": {"kubernetesServiceAccountToken": {"serviceAccountRef": account}}}), "auth/jwt/login", json!({"jwt": "canary-jwt"})),
        (
            json!({"jwt": {"path": "oidc", "role": "app", "kubernetesServiceAccountToken": {"serviceAccountRef": account}}}),
            "auth/oidc/login",
            json!({"role": "app", "jwt": "canary-jwt"}),
        ),
        (
            json!({"userPass": {"username": "joe smith", "secretRef": secret}}),
            "auth/userpass/login/joe%20smith",
            json!({"password": "canary pass "}),
        ),
        (
            json!({"ldap": {"path": "ad", "username": "joe@corp", "secretRef": secret}}),
            "auth/ad/login/joe@corp",
            json!({"password": "canary pass "}),
        ),
        (json!({"ldap": {"username": "joe", "secretRef": secret}}), "auth/ldap/login/joe", json!({"password": "canary pass "})),
        (json!({"cert": {"clientCert": secret, "secretRef": secret}}), "auth/cert/login", json!({})),
        (
            json!({"cert": {"path": "tls", "vaultRole": "web", "clientCert": secret, "secretRef": secret}}),
            "auth/tls/login",
            json!({"name": "web"}),
        ),
    ];
    let secrets = credentials(&[(Role::AppRoleId, "canary-role\n"), (Role::SecretId, "canary-id"), (Role::Password, "canary pass \r\n")]);
    for (auth, path, body) in cases {
        let server = Server::start(|line| if line.starts_with("POST") { granted("hvs.canary", 60, true) } else { http(200, FOUND) }).await;
        let spec = VaultProvider { namespace: Some("/team/a/".into()), ..block(&server.url, &auth) };
        assert!(matches!(read(opened(&spec, &secrets).as_ref(), "db", None).await, Reading::Found(_)), "{auth}");
        let heads = server.heads();
        let [login, look] = heads.as_slice() else { unreachable!("{auth}: {heads:?}") };
        let (head, sent) = login.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with(&format!("POST /v1/{path} HTTP/1.1\r\n")), "{auth}: {head}");
        assert_eq!(serde_json::from_str::<Value>(sent).unwrap(), body, "{auth}");
        assert!(!head.contains("x-vault-token") && head.contains("x-vault-namespace: team/a\r\n"), "{auth}: {head}");
        assert!(look.contains("x-vault-token: hvs.canary\r\n") && look.contains("x-vault-namespace: team/a\r\n"), "{auth}: {look}");
    }
}

#[tokio::test]
async fn all_that_start_together_log_in_once() {
    let server = Server::start(|line| if line.starts_with("POST") { granted("t", 0, false) } else { http(200, FOUND) }).await;
    let store = app_role(&server);
    let readings = join_all((0..50).map(|number| read_owned(&store, format!("db{number}")))).await;
    assert!(readings.iter().all(|reading| matches!(reading, Reading::Found(_))));
    assert_eq!((count(&server, "login"), count(&server, "/data/")), (1, 50));
}

async fn read_owned(store: &Arc<dyn Backend>, key: String) -> Reading {
    read(store.as_ref(), &key, None).await
}

#[tokio::test]
async fn a_login_that_fails_fails_for_all_that_wait_for_it() {
    for status in [400, 403, 500] {
        let server = Server::start(move |line| if line.starts_with("POST") { http(status, "") } else { http(200, FOUND) }).await;
        let store = app_role(&server);
        // All are asked before the first is answered.
        let readings = join_all((0..50).map(|number| read_owned(&store, format!("db{number}")))).await;
        assert!(readings.iter().all(|reading| matches!(reading, Reading::Unknown(_))));
        assert_eq!((count(&server, "login"), count(&server, "/data/")), (1, 0), "{status}");
    }
}

#[tokio::test]
async fn a_refused_login_is_not_repeated_at_once_and_an_outage_is() {
    for (status, logins) in [(400, 1), (403, 1), (503, 3)] {
        let server = Server::start(move |_| http(status, "")).await;
        let store = app_role(&server);
        for _ in 0..3 {
            unknown(read(store.as_ref(), "db", None).await, "a login that fails");
        }
        assert_eq!(count(&server, "login"), logins, "{status}");
        forward(Duration::from_secs(11)).await;
        unknown(read(store.as_ref(), "db", None).await, "a login that fails");
        assert_eq!(count(&server, "login"), logins + 1, "{status}");
    }
}

/// Moves the clock of sessions; nothing waits for it meanwhile.
async fn forward(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

#[tokio::test]
async fn what_keeps_a_login_from_succeeding_has_its_class_and_remedy() {
    let cases = [
        (http(400, r#"{"errors":["canary"]}"#), Class::Denied, Reason::AccessDenied, "provider.vault.auth.appRole"),
        (http(401, ""), Class::Denied, Reason::AccessDenied, "secret id"),
        (http(403, r#"{"errors":["permission denied canary"]}"#), Class::Denied, Reason::AccessDenied, "role id"),
        (http(404, r#"{"errors":["no handler for route canary"]}"#), Class::Denied, Reason::AccessDenied, "check path"),
        (http(429, ""), Class::Throttled { after: None }, Reason::Throttled, "fewer requests"),
        (http(503, r#"{"errors":["Vault is sealed"]}"#), Class::Unavailable, Reason::Sealed, "unseal"),
        (http(500, ""), Class::Unavailable, Reason::ProviderUnavailable, "failed"),
        (http(473, ""), Class::Unavailable, Reason::ProviderUnavailable, "standby"),
        (http(307, ""), Class::Unavailable, Reason::ProviderUnavailable, "redirect"),
        (http(200, ""), Class::Unavailable, Reason::ProviderUnavailable, "answer"),
        (http(200, r#"{"auth":null}"#), Class::Unavailable, Reason::ProviderUnavailable, "answer"),
        (http(200, r#"{"auth":{"client_token":"","lease_duration":1}}"#), Class::Unavailable, Reason::ProviderUnavailable, "answer"),
        (
            http(200, r#"{"auth":{"client_token":"can\nary","lease_duration":1}}"#),
            Class::Unavailable,
            Reason::ProviderUnavailable,
            "answer",
        ),
        (http(200, r#"{"auth":{"client_token":"canary","lease_duration":-1}}"#), Class::Unavailable, Reason::ProviderUnavailable, "answer"),
    ];
    for (answer, class, reason, words) in cases {
        let case = String::from_utf8_lossy(&answer).into_owned();
        let server = Server::start(move |_| answer.clone()).await;
        let fault = unknown(read(app_role(&server).as_ref(), "db", None).await, &case);
        assert_eq!((fault.class, fault.reason), (class, reason), "{case}");
        assert!(fault.detail.contains(words), "{case}: {fault}");
    }
}

#[tokio::test]
async fn a_role_without_audience_is_named_where_service_accounts_log_in() {
    let server = Server::start(|_| http(403, r#"{"errors":["permission denied"]}"#)).await;
    let auth = json!({"kubernetes": {"role": "app", "serviceAccountRef": {"name": "sa"}}});
    let fault = unknown(read(opened(&block(&server.url, &auth), &credentials(&[])).as_ref(), "db", None).await, "refused");
    assert!(fault.detail.contains("`audience`") && fault.reason == Reason::AccessDenied, "{fault}");
}

#[tokio::test]
async fn without_a_token_of_the_account_nothing_is_sent() {
    let server = Server::start(|_| http(200, FOUND)).await;
    let auth = json!({"kubernetes": {"role": "app", "serviceAccountRef": {"name": "sa"}}});
    let refused = Fault::new(Class::Unavailable, Reason::StoreNotReady, "ServiceAccount a/b does not allow it");
    let credentials = Credentials { tokens: Some(Arc::new(Account(Err(refused)))), ..Credentials::default() };
    let fault = unknown(read(opened(&block(&server.url, &auth), &credentials).as_ref(), "db", None).await, "no token");
    assert_eq!((fault.class, fault.reason), (Class::Unavailable, Reason::StoreNotReady));
    assert!(fault.detail.contains("ServiceAccount a/b") && server.heads().is_empty(), "{fault}");
}

#[tokio::test]
async fn a_token_is_renewed_at_two_thirds_and_replaced_when_the_server_shortens_it() {
    let renewals = Arc::new(AtomicU64::new(0));
    let counted = renewals.clone();
    let server = Server::start(move |line| {
        if line.contains("renew-self") {
            // The second renewal nears the longest life.
            let seconds = if counted.fetch_add(1, Ordering::SeqCst) == 0 { 90 } else { 20 };
            return granted("t", seconds, true);
        }
        if line.contains("login") { granted("t", 90, true) } else { http(200, FOUND) }
    })
    .await;
    let store = app_role(&server);
    let mut after = Vec::new();
    for wait in [0, 59, 2, 59, 2, 59, 2] {
        forward(Duration::from_secs(wait)).await;
        assert!(matches!(read(store.as_ref(), "db", None).await, Reading::Found(_)));
        after.push((count(&server, "login"), count(&server, "renew-self")));
    }
    // After the replacement the clock begins anew, and the third renewal is short again.
    assert_eq!(after, [(1, 0), (1, 0), (1, 1), (1, 1), (2, 2), (2, 2), (3, 3)]);
}

#[tokio::test]
async fn a_token_serves_while_it_is_valid_and_never_longer() {
    let is_down = Arc::new(AtomicU64::new(0));
    let down = is_down.clone();
    let server = Server::start(move |line| match (line.starts_with("POST"), down.load(Ordering::SeqCst)) {
        (true, 0) => granted("t", 90, true),
        (true, _) => http(500, ""),
        (false, _) => http(200, FOUND),
    })
    .await;
    let store = app_role(&server);
    assert!(matches!(read(store.as_ref(), "db", None).await, Reading::Found(_)));
    is_down.store(1, Ordering::SeqCst);
    forward(Duration::from_secs(61)).await;
    for _ in 0..5 {
        assert!(matches!(read(store.as_ref(), "db", None).await, Reading::Found(_)), "a renewal that fails harms nobody yet");
    }
    assert_eq!((count(&server, "renew-self"), count(&server, "login")), (1, 2), "it is not tried again at every call");
    forward(Duration::from_secs(30)).await;
    let fault = unknown(read(store.as_ref(), "db", None).await, "expired");
    assert_eq!(fault.class, Class::Unavailable);
    is_down.store(0, Ordering::SeqCst);
    assert!(matches!(read(store.as_ref(), "db", None).await, Reading::Found(_)));
}

/// Serves `good` keys to the newest token only; answers a refusal with `words`.
async fn strict(words: &'static str) -> Server {
    let logins = Arc::new(AtomicU64::new(0));
    Server::start_with_head(move |head| {
        let line = head.lines().next().unwrap();
        if line.contains("login") {
            return granted(&format!("t{}", logins.fetch_add(1, Ordering::SeqCst) + 1), 0, false);
        }
        let is_newest = head.contains(&format!("x-vault-token: t{}\r\n", logins.load(Ordering::SeqCst)));
        let is_first = head.contains("x-vault-token: t1\r\n");
        match line {
            line if line.contains("/sys/internal/") => http(200, KV2),
            // The first token is revoked as soon as somebody asks with it.
            line if line.contains("revoked") && is_first => http(403, words),
            line if line.contains("forbidden") => http(403, r#"{"errors":["permission denied"]}"#),
            _ if is_newest => http(200, FOUND),
            _ => http(403, words),
        }
    })
    .await
}

#[tokio::test]
async fn a_token_that_is_refused_is_replaced_once_for_all() {
    for words in [r#"{"errors":["permission denied"]}"#, r#"{"errors":["2 errors occurred: permission denied, invalid token"]}"#, ""] {
        let server = strict(words).await;
        let store = app_role(&server);
        assert!(matches!(read(store.as_ref(), "db", None).await, Reading::Found(_)));
        let readings = join_all((0..20).map(|number| read_owned(&store, format!("revoked{number}")))).await;
        assert!(readings.iter().all(|reading| matches!(reading, Reading::Found(_))), "{words}: {readings:?}");
        assert_eq!(count(&server, "login"), 2, "{words}");
    }
}

#[tokio::test]
async fn keys_that_a_policy_refuses_are_denied_after_one_more_login_and_not_one_each() {
    let server = strict("").await;
    let store = app_role(&server);
    for number in 0..20 {
        let key = format!("forbidden{number}");
        let Reading::Unknown(fault) = read(store.as_ref(), &key, None).await else { unreachable!() };
        assert_eq!((fault.class, fault.reason), (Class::Denied, Reason::AccessDenied));
    }
    assert_eq!(count(&server, "login"), 2);
    // Policies of a token are those of its login: later it is tried again.
    forward(Duration::from_secs(11)).await;
    for number in 0..20 {
        read(store.as_ref(), &format!("forbidden{number}"), None).await;
    }
    assert_eq!(count(&server, "login"), 3);
    assert!(matches!(read(store.as_ref(), "db", None).await, Reading::Found(_)), "the others go on");
}

#[tokio::test]
async fn a_token_of_a_secret_is_neither_renewed_nor_replaced() {
    let server = Server::start(|_| http(403, r#"{"errors":["permission denied","invalid token"]}"#)).await;
    for _ in 0..3 {
        unknown(read(server.store().as_ref(), "db", None).await, "refused");
    }
    assert!(lines(&server).iter().all(|line| line.starts_with("GET /v1/secret/data/db")), "{:?}", lines(&server));
}

#[test]
fn a_login_that_cannot_work_names_its_field() {
    let secret = json!({"name": "s"});
    let all = [(Role::SecretId, "x"), (Role::Password, "x"), (Role::AppRoleId, "x")];
    let spec_of = |auth: Value| block("https://vault.example.com", &auth);
    let invalid = [
        json!({"userPass": {"username": "a/b", "secretRef": secret}}),
        json!({"userPass": {"username": "..", "secretRef": secret}}),
        json!({"ldap": {"username": "a\nb", "secretRef": secret}}),
        json!({"appRole": {"path": "../sys", "roleId": "r", "secretRef": secret}}),
        json!({}),
    ];
    let name = StoreName::Cluster { name: "vault".into() };
    for auth in invalid {
        let fault = open(&name, Provider::Vault(&spec_of(auth.clone())), &credentials(&all), &Settings::default()).err().unwrap();
        assert_eq!((fault.class, fault.reason), (Class::Invalid, Reason::InvalidSpec), "{auth}");
        assert!(fault.detail.contains("provider.vault.auth"), "{fault}");
    }
    let missing = [
        (json!({"appRole": {"roleId": "r", "secretRef": secret}}), "appRole.secretRef"),
        (json!({"userPass": {"username": "u", "secretRef": secret}}), "userPass.secretRef"),
        (json!({"cert": {"clientCert": secret, "secretRef": secret}}), "auth.cert"),
    ];
    for (auth, field) in missing {
        for secrets in
            [&[][..], &[(Role::SecretId, "\n"), (Role::Password, ""), (Role::ClientKey, "no PEM"), (Role::ClientCertificate, "x")]]
        {
            let fault = open(&name, Provider::Vault(&spec_of(auth.clone())), &credentials(secrets), &Settings::default()).err().unwrap();
            assert_eq!((fault.class, fault.reason), (Class::Unavailable, Reason::StoreNotReady), "{auth}");
            assert!(fault.detail.contains(field), "{fault}");
        }
    }
}

#[tokio::test]
async fn no_credential_is_shown_by_a_session() {
    let server = Server::start(|_| granted("hvs.canary", 0, false)).await;
    let auth = json!({"appRole": {"roleRef": {"name": "s"}, "secretRef": {"name": "s"}}});
    let secrets = credentials(&[(Role::SecretId, "canary-id"), (Role::AppRoleId, "canary-role")]);
    let name = StoreName::Cluster { name: "vault".into() };
    let session = crate::backend::vault::session::Session::open(&name, &block(&server.url, &auth), &secrets, &Settings::default()).unwrap();
    assert!(!format!("{session:?} {secrets:?}").contains("canary-id"), "{session:?}");
}
