//! The subject of provider `vault`: a KV 2 mount of its own on a real OpenBao over TLS, behind a fault proxy.

use std::{
    fmt::Write as _,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use base64::{Engine, prelude::BASE64_STANDARD};
use keyferry::{
    access::Role,
    backend::{Backend, Credentials, Settings, open},
    crd::v1alpha1::{Provider, SecretKeyRef, VaultAuth, VaultProvider},
    fault,
    name::{ProviderKind, StoreName},
    secret::SecretValue,
};
use reqwest::Method;
use serde_json::{Value, json};

use super::{
    subject::{CANARY, Damage, Payload, Subject, Written},
    wire::{Voice, Wire},
};
use crate::{
    backends::openbao::OpenBao,
    proxy::{Answer, Call, Fault, Matcher, Options},
};

pub struct Vault {
    bao: Arc<OpenBao>,
    wire: Wire,
    mount: String,
    token: Option<String>,
    can_be_mended: bool,
}

const VOICE: Voice = Voice { error: |_| json!({ "errors": [CANARY] }), endless_list: Some(more_folders), list_verb: "list" };

/// Folders in each folder: a thousand new ones per call.
fn more_folders(call: &Call) -> Answer {
    let names: Vec<String> = (0..1000).map(|number| format!("{}-{number}/", call.id)).collect();
    Answer::json(200, &json!({ "data": { "keys": names } }))
}

impl Vault {
    pub async fn start(bao: Arc<OpenBao>) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(1);
        let mount = format!("contract/{}", COUNT.fetch_add(1, Ordering::SeqCst));
        bao.mount_kv(&mount).await;
        let wire = Wire::before(bao.url(), bao.ca_pem(), Options::vault(), VOICE);
        let token = bao.create_token(&policy(&mount)).await;
        Self { bao, wire, mount, token: Some(token), can_be_mended: true }
    }

    /// The same with a token that may write everything below the mount.
    pub async fn start_writing(bao: Arc<OpenBao>) -> Self {
        let mut subject = Self::start(bao).await;
        let all = r#"capabilities = ["create", "read", "update", "patch", "delete", "list"]"#;
        subject.token = Some(subject.bao.create_token(&format!("path \"{}/*\" {{ {all} }}", subject.mount)).await);
        subject
    }

    /// What stands under a key now, as root reads it; null for nothing.
    pub async fn current(&self, path: &str) -> Value {
        let answer = self.bao.call(Method::GET, &format!("{}/data/{path}", self.mount), None).await;
        answer.body["data"]["data"].clone()
    }

    /// As root, past the proxy.
    async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Value {
        let path = format!("{}/{}", self.mount, path);
        let answer = self.bao.call(method, &path, body).await;
        assert!((200..300).contains(&answer.status), "{path}: {}", answer.status);
        answer.body
    }

    async fn unmount(&mut self) {
        let answer = self.bao.call(Method::DELETE, &format!("sys/mounts/{}", self.mount), None).await;
        assert_eq!(answer.status, 204);
        self.can_be_mended = false;
    }
}

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

    fn open(&self) -> Result<Arc<dyn Backend>, fault::Fault> {
        let token_secret_ref = SecretKeyRef { name: "vault".into(), key: None, namespace: None };
        let spec = VaultProvider {
            server: self.wire.url().into(),
            path: Some(self.mount.clone()),
            ca_bundle: Some(BASE64_STANDARD.encode(&self.wire.ca_pem)),
            engine: None,
            version: None,
            revoke_on_delete: None,
            namespace: None,
            ca_provider: None,
            auth: VaultAuth { token_secret_ref: Some(token_secret_ref), ..VaultAuth::default() },
        };
        let settings = Settings { call_timeout: self.wire.deadline, ..Settings::default() };
        let name = StoreName::Cluster { name: "contract".into() };
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
        if self.wire.damage(damage) {
            return;
        }
        match damage {
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
                self.wire.on(last, Fault::status(500));
            }
            other => unreachable!("{other:?}"),
        }
    }

    async fn mend(&mut self) -> bool {
        self.wire.mend();
        self.can_be_mended
    }

    fn traffic(&self) -> (u64, usize) {
        self.wire.traffic()
    }

    fn secrets(&self) -> Vec<String> {
        self.token.iter().cloned().collect()
    }
}
