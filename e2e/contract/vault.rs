//! The subject of provider `vault`: a KV 2 mount of its own on a real OpenBao over TLS, behind a fault proxy.

use std::{
    fmt::Write as _,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use keyferry::{
    access::Role,
    backend::{Backend, Credentials, Settings, open},
    crd::v1alpha1::{Provider, SecretKeyRef, VaultAuth, VaultProvider},
    fault::Fault,
    name::{ProviderKind, StoreName},
    secret::SecretValue,
};
use reqwest::Method;
use serde_json::{Value, json};

use super::subject::{CANARY, Damage, Payload, Subject, Written};
use crate::{
    backends::openbao::OpenBao,
    proxy::{self, Accepting, Answer, Matcher, Moment, Nth, Options, Proxy, Rule},
};

pub struct Vault {
    bao: Arc<OpenBao>,
    proxy: Proxy,
    mount: String,
    token: Option<String>,
    ca_pem: String,
    deadline: Duration,
    rules: Vec<Rule>,
    can_be_mended: bool,
    /// Where a redirect leads: it must see nothing.
    elsewhere: Option<Proxy>,
}

impl Vault {
    pub async fn start(bao: Arc<OpenBao>) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(1);
        let mount = format!("contract/{}", COUNT.fetch_add(1, Ordering::SeqCst));
        bao.mount_kv(&mount).await;
        let proxy = Proxy::start(bao.url(), bao.ca_pem(), Options::vault());
        let token = bao.create_token(&policy(&mount)).await;
        let (ca_pem, deadline) = (proxy.ca_pem().to_owned(), PATIENCE);
        Self { bao, proxy, mount, token: Some(token), ca_pem, deadline, rules: Vec::new(), can_be_mended: true, elsewhere: None }
    }

    /// As root, past the proxy.
    async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Value {
        let path = format!("{}/{}", self.mount, path);
        let answer = self.bao.call(method, &path, body).await;
        assert!((200..300).contains(&answer.status), "{path}: {}", answer.status);
        answer.body
    }

    fn on_calls(&mut self, fault: proxy::Fault) {
        self.rules.push(self.proxy.on(Matcher::any(), Nth::every(), fault));
    }

    fn answer(&mut self, status: u16, body: impl Into<Bytes>) {
        let answer = Answer { body: body.into(), ..Answer::json(status, &Value::Null) };
        self.on_calls(proxy::Fault::answer(answer));
    }

    async fn unmount(&mut self) {
        let answer = self.bao.call(Method::DELETE, &format!("sys/mounts/{}", self.mount), None).await;
        assert_eq!(answer.status, 204);
        self.can_be_mended = false;
    }

    fn redirect(&mut self) {
        let elsewhere = Proxy::start(self.bao.url(), self.bao.ca_pem(), Options::vault());
        let location = format!("{}/v1/{}/data/app/db", elsewhere.url(), self.mount);
        self.on_calls(proxy::Fault::answer(Answer::json(307, &Value::Null).header("location", &location)));
        self.elsewhere = Some(elsewhere);
    }
}

/// Longer than any answer takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the documentation tells people to grant.
fn policy(mount: &str) -> String {
    format!(
        r#"path "{mount}/data/*" {{ capabilities = ["read"] }}
           path "{mount}/metadata" {{ capabilities = ["list"] }}
           path "{mount}/metadata/*" {{ capabilities = ["list"] }}"#
    )
}

fn path_of(kind: &str, key: &str) -> String {
    key.bytes().fold(format!("{kind}/"), |mut path, byte| {
        match byte {
            b'/' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => path.push(char::from(byte)),
            _ => write!(path, "%{byte:02X}").unwrap(),
        }
        path
    })
}

fn map_of(payload: &Payload) -> Value {
    match payload {
        Payload::Empty => json!({}),
        _ => json!({ "value": String::from_utf8(payload.bytes()).expect("text") }),
    }
}

/// The server's JSON escapes what HTML would take for its own.
fn as_go_writes(map: &Value) -> String {
    map.to_string().replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}

#[async_trait]
impl Subject for Vault {
    fn keys(&self) -> ProviderKind {
        ProviderKind::Vault
    }

    fn open(&self) -> Result<Arc<dyn Backend>, Fault> {
        let token_secret_ref = SecretKeyRef { name: "vault".into(), key: None, namespace: None };
        let spec = VaultProvider {
            server: self.proxy.url().into(),
            path: Some(self.mount.clone()),
            ca_bundle: Some(BASE64_STANDARD.encode(&self.ca_pem)),
            namespace: None,
            ca_provider: None,
            auth: VaultAuth { token_secret_ref: Some(token_secret_ref), ..VaultAuth::default() },
        };
        let settings = Settings { call_timeout: self.deadline, ..Settings::default() };
        let name = StoreName::Namespaced { namespace: "team".into(), name: "contract".into() };
        let secrets = self.token.clone().map(|token| (Role::Token, SecretValue::from(token))).into_iter().collect();
        open(&name, Provider::Vault(&spec), &Credentials { secrets, tokens: None }, &settings)
    }

    async fn write(&mut self, key: &str, payload: &Payload) -> Written {
        let map = map_of(payload);
        let answer = self.call(Method::PUT, &path_of("data", key), Some(&json!({ "data": map }))).await;
        let version = Some(answer["data"]["version"].to_string());
        Written { bytes: as_go_writes(&map).into_bytes(), version: version.clone(), told: version }
    }

    async fn write_outside(&mut self) {
        let outside = self.bao.mount_kv("contract/outside").await;
        outside.put("x", &json!({ "value": CANARY })).await;
    }

    async fn remove(&mut self, key: &str) {
        self.call(Method::DELETE, &path_of("metadata", key), None).await;
    }

    async fn soft_delete(&mut self, key: &str) {
        self.call(Method::DELETE, &path_of("data", key), None).await;
    }

    async fn undelete(&mut self, key: &str, version: &str) {
        self.call(Method::PUT, &path_of("undelete", key), Some(&json!({ "versions": [version] }))).await;
    }

    async fn destroy(&mut self, key: &str, version: &str) {
        self.call(Method::PUT, &path_of("destroy", key), Some(&json!({ "versions": [version] }))).await;
    }

    async fn damage(&mut self, damage: Damage) {
        let short = Duration::from_millis(300);
        match damage {
            Damage::Slow => self.on_calls(proxy::Fault::delay(short)),
            Damage::Hang => {
                self.deadline = short;
                self.on_calls(proxy::Fault::hang());
            }
            Damage::HangInTls => {
                self.deadline = short;
                self.proxy.accept(Accepting::HangTls);
            }
            Damage::Reset => self.on_calls(proxy::Fault::reset(Moment::AfterCommit)),
            Damage::Close => self.on_calls(proxy::Fault::drop(Moment::BeforeCommit)),
            Damage::Truncated => self.on_calls(proxy::Fault::truncate(10)),
            Damage::Malformed => self.answer(200, format!("{{\"data\":{{\"data\":{{\"value\":\"{CANARY}\"}}")),
            Damage::Oversized => self.answer(200, vec![b' '; 9 << 20]),
            Damage::Throttled => {
                let answer = Answer::json(429, &json!({ "errors": [CANARY] })).header("retry-after", "7");
                self.on_calls(proxy::Fault::answer(answer));
            }
            Damage::Failing => self.answer(502, format!("<html>{CANARY}</html>")),
            Damage::Redirect => self.redirect(),
            Damage::Sealed => {
                // A server of its own: the other rows go on with theirs.
                *self = Self::start(Arc::new(OpenBao::start().await)).await;
                self.bao.seal().await;
                self.can_be_mended = false;
            }
            Damage::Denied => {
                self.token = Some(self.bao.create_token(&policy("elsewhere")).await);
                self.can_be_mended = false;
            }
            Damage::Expired => {
                self.bao.revoke_token(self.token.as_ref().expect("a token")).await;
                self.can_be_mended = false;
            }
            Damage::NoCredential => self.token = None,
            Damage::OtherAuthority => {
                self.bao.ca_pem().clone_into(&mut self.ca_pem);
                self.can_be_mended = false;
            }
            Damage::NoParent => self.unmount().await,
            // It answers 404 to every path that it does not know, in the very words of KV 2.
            Damage::OtherEngine => {
                self.unmount().await;
                let engine = json!({ "type": "kv", "options": { "version": "1" } });
                let answer = self.bao.call(Method::PUT, &format!("sys/mounts/{}", self.mount), Some(&engine)).await;
                assert_eq!(answer.status, 204);
            }
            Damage::OnePart => {
                let last = Matcher::any().verb("list").when("the last folder", |call| call.path_and_query.contains("/metadata/z"));
                self.rules.push(self.proxy.on(last, Nth::every(), proxy::Fault::status(500)));
            }
        }
    }

    async fn mend(&mut self) -> bool {
        if let Some(elsewhere) = self.elsewhere.take() {
            assert_eq!(elsewhere.seen().connections_opened, 0, "the redirect was followed");
        }
        self.rules.iter().for_each(Rule::withdraw);
        self.proxy.accept(Accepting::Normally);
        self.deadline = PATIENCE;
        self.can_be_mended
    }

    fn traffic(&self) -> (u64, usize) {
        let seen = self.proxy.seen();
        (seen.connections_opened, seen.calls.len())
    }

    fn secrets(&self) -> Vec<String> {
        self.token.iter().cloned().collect()
    }
}
