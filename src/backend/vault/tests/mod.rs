//! Wire shapes that no real server can be made to show. What a real one shows is in the contract suite.

mod amazon;
mod engines;
mod google;
mod logins;

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{Arc, Mutex},
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    access::Role,
    backend::{Backend, Credentials, Settings, endpoint::Endpoints, open},
    crd::v1alpha1::{Provider, SecretKeyRef, VaultAuth, VaultProvider},
    fault::{Class, Fault, Reason},
    item::Reading,
    name::{ProviderKind, RemoteKey, RemoteRef, StoreName},
    secret::SecretValue,
};

const TOKEN: &str = "hvs.canary-token";
const CANARY: &str = "canary-value";
const KV2: &str = r#"{"data":{"path":"secret/","type":"kv","options":{"version":"2"}}}"#;
const FOUND: &str = r#"{"data":{"data":{"a":"canary-value"},"metadata":{"version":3,"deletion_time":"","destroyed":false}}}"#;

/// A server that answers each request by its first line, in bytes of the test's choice, and then closes the connection.
struct Server {
    url: String,
    seen: Arc<Mutex<Vec<String>>>,
    _task: AbortOnDropHandle<()>,
}

impl Server {
    async fn start(answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self::start_with_head(move |head| answer(head.lines().next().unwrap())).await
    }

    /// By the whole request.
    async fn start_with_head(answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (seen, answer) = (Arc::new(Mutex::new(Vec::new())), Arc::new(answer));
        let heads = seen.clone();
        let task = tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                tokio::spawn(serve(connection, heads.clone(), answer.clone()));
            }
        });
        Self { url, seen, _task: AbortOnDropHandle::new(task) }
    }

    /// The same answer to every read and list; a KV 2 engine at `secret`.
    async fn answering(bytes: Vec<u8>) -> Self {
        Self::start(move |line| if line.contains("/sys/internal/") { http(200, KV2) } else { bytes.clone() }).await
    }

    fn store(&self) -> Arc<dyn Backend> {
        store(&spec(&self.url), Some(TOKEN)).unwrap()
    }

    fn heads(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

async fn serve(mut connection: TcpStream, seen: Arc<Mutex<Vec<String>>>, answer: Arc<impl Fn(&str) -> Vec<u8>>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = connection.read_u8().await else { return };
        head.push(byte);
    }
    let mut head = String::from_utf8(head).unwrap();
    let length = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    connection.read_exact(&mut body).await.unwrap();
    head.push_str(std::str::from_utf8(&body).unwrap());
    let bytes = answer(&head);
    seen.lock().unwrap().push(head);
    // An empty answer is silence: the connection stays open until the client gives up.
    if bytes.is_empty() {
        let _ = connection.read_u8().await;
    }
    let _ = connection.write_all(&bytes).await;
}

fn http(status: u16, body: &str) -> Vec<u8> {
    http_with(status, "", body.as_bytes())
}

fn http_with(status: u16, headers: &str, body: &[u8]) -> Vec<u8> {
    let mut answer = format!("HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {}\r\n{headers}\r\n", body.len()).into_bytes();
    answer.extend_from_slice(body);
    answer
}

fn spec(server: &str) -> VaultProvider {
    let token_secret_ref = SecretKeyRef { name: "vault".into(), key: None, namespace: None };
    let auth = VaultAuth { token_secret_ref: Some(token_secret_ref), ..VaultAuth::default() };
    VaultProvider {
        server: server.into(),
        path: None,
        engine: None,
        version: None,
        revoke_on_delete: None,
        namespace: None,
        ca_bundle: None,
        ca_provider: None,
        auth,
    }
}

fn holding(token: Option<&str>) -> Credentials {
    let secrets = token.map(|token| (Role::Token, SecretValue::from(token.to_owned())));
    Credentials { secrets: secrets.into_iter().collect(), tokens: None }
}

fn store(spec: &VaultProvider, token: Option<&str>) -> Result<Arc<dyn Backend>, Fault> {
    let name = StoreName::Cluster { name: "vault".into() };
    let settings = Settings { call_timeout: Duration::from_secs(20), ..Settings::default() };
    open(&name, Provider::Vault(spec), &holding(token), &settings)
}

async fn read(store: &dyn Backend, key: &str, version: Option<&str>) -> Reading {
    let key = RemoteKey::parse(ProviderKind::Vault, key).unwrap();
    let mut readings = store.fetch(&[RemoteRef { key, version: version.map(str::to_owned), is_metadata: false }]).await;
    assert_eq!(readings.len(), 1);
    readings.remove(0)
}

/// The fault of an unknown reading that shows nothing of value, token or body.
fn unknown(reading: Reading, case: &str) -> Fault {
    let Reading::Unknown(fault) = reading else { unreachable!("{case}: {reading:?}") };
    let shown = format!("{fault:?} {fault}");
    assert!(!shown.contains("canary"), "{case}: {shown}");
    assert!(fault.detail.contains("remote key \"db\"") && fault.detail.contains(": "), "{case}: {shown}");
    fault
}

#[tokio::test]
async fn the_text_of_the_map_is_delivered_as_it_came() {
    let text = r#"{ "n":12345678901234567890, "d":1.10,"e":1E400 , "s":"\u003c\u00e9\u0000" }"#;
    let body = format!(r#"{{"request_id":"x","data":{{"data":{text},"metadata":{{"version":7,"destroyed":false}}}},"warnings":["w"]}}"#);
    let server = Server::answering(http(200, &body)).await;
    let Reading::Found(found) = read(server.store().as_ref(), "db", None).await else { unreachable!() };
    assert_eq!(String::from_utf8_lossy(found.value.expose()), text);
    assert_eq!(found.version.as_deref(), Some("7"));
}

#[tokio::test]
async fn an_answer_that_is_not_kv_2_is_unknown() {
    let cases = [
        (200, ""),
        (200, "null"),
        (200, "[]"),
        (200, "<html>canary</html>"),
        (200, r#"{"errors":["canary"]}"#),
        (200, r#"{"data":null}"#),
        (200, r#"{"data":{"a":"canary"}}"#),
        (200, r#"{"data":{"data":"canary","metadata":{"version":1}}}"#),
        (200, r#"{"data":{"data":["canary"],"metadata":{"version":1}}}"#),
        (200, r#"{"data":{"data":{"a":"canary"},"metadata":{"version":"canary"}}}"#),
        (200, r#"{"data":{"data":{"a":"canary"},"metadata":null}}"#),
        (200, r#"{"data":{"data":{"a":"canary"},"metadata":{"version":1}}"#),
        (200, r#"{"data":{"data":null,"metadata":{"version":1,"deletion_time":"","destroyed":false}}}"#),
        (204, ""),
        (404, ""),
        (404, "<html>canary</html>"),
        (404, r#"{"errors":"canary"}"#),
        (404, r#"{"errors":["no handler for route \"canary\""]}"#),
        (404, r#"{"data":null,"warnings":["canary"]}"#),
        (404, r#"{"errors":[],"data":{"data":{"a":"canary"},"metadata":{"version":1}}}"#),
        (404, FOUND),
        (400, r#"{"errors":["canary"]}"#),
        (405, r#"{"errors":["canary"]}"#),
        (412, r#"{"errors":["canary"]}"#),
        (472, ""),
        (473, ""),
        (500, r#"{"errors":["canary"]}"#),
        (502, "<html>canary</html>"),
        (503, "<html>canary is sealed</html>"),
    ];
    for (status, body) in cases {
        let case = format!("{status} {body}");
        let server = Server::answering(http(status, body)).await;
        let fault = unknown(read(server.store().as_ref(), "db", None).await, &case);
        assert_eq!((fault.class, fault.reason), (Class::Unavailable, Reason::ProviderUnavailable), "{case}");
        let again = unknown(read(server.store().as_ref(), "db", None).await, &case);
        assert_eq!(fault, again, "{case}: the message changed between attempts");
    }
}

#[tokio::test]
async fn a_refusal_a_seal_and_a_limit_each_have_their_reason() {
    let sealed = r#"{"errors":["Vault is sealed"]}"#;
    let cases = [
        (http(401, ""), Class::Denied, Reason::AccessDenied),
        (http(403, r#"{"errors":["permission denied canary"]}"#), Class::Denied, Reason::AccessDenied),
        (http(503, sealed), Class::Unavailable, Reason::Sealed),
        (http(429, ""), Class::Throttled { after: None }, Reason::Throttled),
        (http_with(429, "retry-after: 7\r\n", b""), Class::Throttled { after: Some(Duration::from_secs(7)) }, Reason::Throttled),
        (http_with(429, "retry-after: soon\r\n", b""), Class::Throttled { after: None }, Reason::Throttled),
    ];
    for (answer, class, reason) in cases {
        let case = String::from_utf8_lossy(&answer).into_owned();
        let server = Server::answering(answer).await;
        let fault = unknown(read(server.store().as_ref(), "db", None).await, &case);
        assert_eq!((fault.class, fault.reason), (class, reason), "{case}");
    }
}

#[tokio::test]
async fn nothing_is_absent_unless_the_engine_was_seen() {
    let cases = [
        (http(200, KV2), None),
        (http(200, r#"{"data":{"path":"secret/","type":"kv","options":{"version":"1"}}}"#), Some(Reason::ProviderUnavailable)),
        (http(200, r#"{"data":{"path":"secret/","type":"kv","options":null}}"#), Some(Reason::ProviderUnavailable)),
        (http(200, r#"{"data":{"path":"secret/","type":"cubbyhole","options":{"version":"2"}}}"#), Some(Reason::ProviderUnavailable)),
        (http(200, r#"{"data":{"path":"sec/","type":"kv","options":{"version":"2"}}}"#), Some(Reason::ProviderUnavailable)),
        (http(200, "{}"), Some(Reason::ProviderUnavailable)),
        (http(404, r#"{"errors":[]}"#), Some(Reason::ProviderUnavailable)),
        (http(403, r#"{"errors":["preflight"]}"#), Some(Reason::AccessDenied)),
        (http(503, r#"{"errors":["Vault is sealed"]}"#), Some(Reason::Sealed)),
        (http(302, ""), Some(Reason::ProviderUnavailable)),
    ];
    for (mount, expected) in cases {
        let case = String::from_utf8_lossy(&mount).into_owned();
        let server =
            Server::start(
                move |line| if line.contains("/sys/internal/ui/mounts/secret ") { mount.clone() } else { http(404, r#"{"errors":[]}"#) },
            )
            .await;
        for version in [None, Some("4")] {
            match (read(server.store().as_ref(), "db", version).await, expected) {
                (Reading::Absent(fault), None) => assert_eq!((fault.class, fault.reason), (Class::Absent, Reason::NotFound), "{case}"),
                (reading, Some(reason)) => assert_eq!(unknown(reading, &case).reason, reason, "{case}"),
                (reading, None) => unreachable!("{case}: {reading:?}"),
            }
        }
        let listed = server.store().lister().unwrap().list(None).await;
        assert_eq!(listed.map_err(|fault| fault.reason).err(), expected, "{case}");
    }
}

#[tokio::test]
async fn deleted_and_destroyed_versions_are_not_not_found() {
    let cases = [
        (r#"{"data":{"data":null,"metadata":{"version":2,"deletion_time":"2026-01-01T00:00:00Z","destroyed":false}}}"#, Reason::Deleted),
        (r#"{"data":{"data":null,"metadata":{"version":2,"deletion_time":"","destroyed":true}}}"#, Reason::Destroyed),
    ];
    for (body, reason) in cases {
        let server = Server::answering(http(404, body)).await;
        let Reading::Absent(fault) = read(server.store().as_ref(), "db", None).await else { unreachable!("{body}") };
        assert_eq!((fault.class, fault.reason), (Class::Absent, reason));
        assert!(matches!(read(server.store().as_ref(), "db", Some("2")).await, Reading::Absent(_)));
        // An answer about another version says nothing about the one that was asked for.
        unknown(read(server.store().as_ref(), "db", Some("1")).await, body);
    }
}

#[tokio::test]
async fn a_version_is_a_number_from_one_on_or_nothing_is_asked() {
    let server = Server::answering(http(200, FOUND)).await;
    for version in ["0", "03", "+3", "-1", " 3", "3 ", "latest", "", "1.0", "9223372036854775808", "99999999999999999999"] {
        let fault = unknown(read(server.store().as_ref(), "db", Some(version)).await, version);
        assert_eq!((fault.class, fault.reason), (Class::Invalid, Reason::InvalidSpec), "{version}");
    }
    assert!(server.heads().is_empty());
    assert!(matches!(read(server.store().as_ref(), "db", Some("3")).await, Reading::Found(_)));
    unknown(read(server.store().as_ref(), "db", Some("4")).await, "another version than asked for");
}

#[tokio::test]
async fn a_redirect_is_not_followed_and_the_token_stays_here() {
    let elsewhere = Server::answering(http(200, FOUND)).await;
    for status in [301, 302, 303, 307, 308] {
        let server = Server::answering(http_with(status, &format!("location: {}/v1/x\r\n", elsewhere.url), b"")).await;
        let fault = unknown(read(server.store().as_ref(), "db", None).await, "redirect");
        assert!(fault.detail.contains("redirect"), "{fault}");
    }
    assert!(elsewhere.heads().is_empty());
}

#[tokio::test]
async fn an_answer_that_breaks_off_or_is_packed_is_unknown() {
    let whole = http(200, FOUND);
    let packed = http_with(200, "content-encoding: gzip\r\n", &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0]);
    for (case, bytes) in [("cut body", whole[..whole.len() - 1].to_vec()), ("cut head", whole[..9].to_vec()), ("gzip", packed)] {
        let server = Server::answering(bytes).await;
        assert_eq!(unknown(read(server.store().as_ref(), "db", None).await, case).reason, Reason::ProviderUnavailable, "{case}");
        assert!(server.heads().iter().all(|head| !head.to_lowercase().contains("accept-encoding")));
    }
}

#[tokio::test]
async fn an_answer_is_read_to_its_limit_only() {
    let value = "x".repeat(crate::backend::transport::MAX_BODY);
    let body = format!(r#"{{"data":{{"data":{{"a":"{value}"}},"metadata":{{"version":1}}}}}}"#);
    for bytes in [http(200, &body), [b"HTTP/1.1 200 X\r\nconnection: close\r\n\r\n", body.as_bytes()].concat()] {
        let server = Server::answering(bytes).await;
        assert_eq!(unknown(read(server.store().as_ref(), "db", None).await, "large").reason, Reason::TooLarge);
    }
}

#[tokio::test]
async fn a_server_that_says_nothing_ends_at_the_deadline() {
    let server = Server::answering(Vec::new()).await;
    let settings = Settings { call_timeout: Duration::from_millis(100), ..Settings::default() };
    let name = StoreName::Cluster { name: "vault".into() };
    let store = open(&name, Provider::Vault(&spec(&server.url)), &holding(Some(TOKEN)), &settings).unwrap();
    let fault = unknown(read(store.as_ref(), "db", None).await, "silence");
    assert!(fault.detail.contains("deadline"), "{fault}");
}

#[tokio::test]
async fn the_deadline_is_that_of_the_whole_look() {
    let server = Server::start(|line| match line.split(' ').nth(1) {
        Some("/v1/secret/metadata/") => http(200, r#"{"data":{"keys":["a/"]}}"#),
        Some("/v1/secret/data/db") => http(404, r#"{"errors":[]}"#),
        _ => Vec::new(),
    })
    .await;
    let settings = Settings { call_timeout: Duration::from_millis(500), ..Settings::default() };
    let name = StoreName::Cluster { name: "vault".into() };
    let store = open(&name, Provider::Vault(&spec(&server.url)), &holding(Some(TOKEN)), &settings).unwrap();
    let fault = unknown(read(store.as_ref(), "db", None).await, "the look at the mount hangs");
    assert!(fault.detail.contains("deadline"), "{fault}");
    let fault = store.lister().unwrap().list(None).await.unwrap_err();
    assert!(fault.detail.contains("list of all keys") && fault.detail.contains("deadline"), "{fault}");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_told_from_one_that_has_no_name() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let cases = [(format!("http://{gone}"), "nobody listens"), ("http://keyferry.invalid".to_owned(), "cannot be resolved")];
    for (server, words) in cases {
        let fault = unknown(read(store(&spec(&server), Some(TOKEN)).unwrap().as_ref(), "db", None).await, &server);
        assert!(fault.detail.contains(words), "{fault}");
    }
}

#[tokio::test]
async fn a_key_is_one_path_whatever_its_characters() {
    let server = Server::answering(http(200, FOUND)).await;
    let cases = [
        ("a/b", "a/b"),
        ("sp ace", "sp%20ace"),
        ("q?x=1#f", "q%3Fx=1%23f"),
        ("100%", "100%25"),
        ("%2e%2e/x", "%252e%252e/x"),
        ("%2F..%2Fsys", "%252F..%252Fsys"),
        ("back\\slash", "back%5Cslash"),
        ("ü/€", "%C3%BC/%E2%82%AC"),
        (".hidden/...", ".hidden/..."),
        ("a;b=c", "a;b=c"),
    ];
    let store = server.store();
    for (key, path) in cases {
        assert!(matches!(read(store.as_ref(), key, None).await, Reading::Found(_)), "{key}");
        let head = server.heads().pop().unwrap();
        assert!(head.starts_with(&format!("GET /v1/secret/data/{path} HTTP/1.1\r\n")), "{key}: {head}");
    }
    assert!(matches!(read(store.as_ref(), "db", Some("3")).await, Reading::Found(_)));
    assert!(server.heads().pop().unwrap().starts_with("GET /v1/secret/data/db?version=3 HTTP/1.1\r\n"));
}

/// Folder to the names in it, as a server lists them.
type Tree = BTreeMap<&'static str, &'static [&'static str]>;

async fn tree(tree: Tree) -> Server {
    Server::start(move |line| {
        let Some(folder) = line.strip_prefix("LIST /v1/secret/metadata/").and_then(|rest| rest.strip_suffix(" HTTP/1.1")) else {
            return http(200, KV2);
        };
        match tree.get(folder) {
            Some([status]) if status.parse::<u16>().is_ok() => http(status.parse().unwrap(), r#"{"errors":["canary"]}"#),
            Some(names) => http(200, &serde_json::json!({ "data": { "keys": names } }).to_string()),
            None => http(404, r#"{"errors":[]}"#),
        }
    })
    .await
}

async fn names(server: &Server, path: Option<&str>) -> Result<Vec<String>, Fault> {
    let mut names: Vec<String> = server.store().lister().unwrap().list(path).await?.iter().map(ToString::to_string).collect();
    names.sort();
    Ok(names)
}

#[tokio::test]
async fn a_list_goes_through_all_folders() {
    let server =
        tree(BTreeMap::from([("", &["top", "app/", "app", "gone/"] as &[_]), ("app/", &["db", "deep/"]), ("app/deep/", &["é x"])])).await;
    assert_eq!(names(&server, None).await.unwrap(), ["app", "app/db", "app/deep/é x", "top"]);
    assert_eq!(names(&server, Some("app")).await.unwrap(), ["app/db", "app/deep/é x"]);
    assert_eq!(names(&server, Some("none")).await.unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn a_name_that_no_reference_can_spell_is_not_listed_under_another() {
    let server =
        tree(BTreeMap::from([("", &["a", "", "/", "../", "..", "x\ny", "a//", "./"] as &[_]), ("/", &["never"]), ("a//", &["never"])]))
            .await;
    assert_eq!(names(&server, None).await.unwrap(), ["a"]);
}

#[tokio::test]
async fn a_folder_that_fails_fails_the_list() {
    for (status, reason) in [("403", Reason::AccessDenied), ("500", Reason::ProviderUnavailable), ("429", Reason::Throttled)] {
        let folders: &'static [&'static str] = match status {
            "403" => &["403"],
            "500" => &["500"],
            _ => &["429"],
        };
        let server = tree(BTreeMap::from([("", &["a", "b/", "c/"] as &[_]), ("b/", folders), ("c/", &["d"])])).await;
        let fault = names(&server, None).await.unwrap_err();
        assert_eq!(fault.reason, reason);
        assert!(fault.detail.contains("\"b/\"") && !fault.detail.contains("canary"), "{fault}");
    }
}

#[tokio::test]
async fn a_list_without_an_end_is_given_up() {
    let mut folder = String::new();
    for number in 0..60_000 {
        write!(folder, r#""{number}/","#).unwrap();
    }
    let body = format!(r#"{{"data":{{"keys":[{}]}}}}"#, folder.trim_end_matches(','));
    let server = Server::answering(http(200, &body)).await;
    let fault = names(&server, Some("0")).await.unwrap_err();
    assert_eq!(fault.reason, Reason::TooLarge, "{fault}");
}

#[tokio::test]
async fn a_token_is_sent_trimmed_and_shown_nowhere() {
    let server = Server::answering(http(200, FOUND)).await;
    let spec = spec(&server.url);
    for token in [TOKEN, "hvs.canary-token\n", "\r\n hvs.canary-token\t\r\n\0"] {
        let store = store(&spec, Some(token)).unwrap();
        assert!(matches!(read(store.as_ref(), "db", None).await, Reading::Found(_)), "{token:?}");
        let head = server.heads().pop().unwrap();
        assert!(head.contains("x-vault-token: hvs.canary-token\r\n"), "{token:?}: {head}");
    }
    let name = StoreName::Cluster { name: "vault".into() };
    let session = crate::backend::vault::session::Session::open(&name, &spec, &holding(Some(TOKEN)), &Settings::default()).unwrap();
    let vault = crate::backend::vault::Vault {
        session,
        engine: crate::backend::vault::Engine::Kv2 { mount: "secret".into() },
        deadline: Duration::from_secs(1),
    };
    assert!(!format!("{vault:?}").contains("canary"), "{vault:?}");
}

#[test]
fn a_store_without_a_usable_token_is_not_ready() {
    for token in [None, Some(""), Some("\n"), Some("hvs.a\nhvs.canary"), Some("hvs.canary x"), Some("hvs.canärý"), Some("hvs\0canary")] {
        let fault = store(&spec("https://vault.example.com"), token).err().unwrap();
        assert_eq!((fault.class, fault.reason), (Class::Unavailable, Reason::StoreNotReady), "{token:?}");
        assert!(fault.detail.contains("provider.vault.auth.tokenSecretRef") && !fault.detail.contains("can"), "{fault}");
    }
}

#[test]
fn a_block_that_cannot_work_names_its_field() {
    let with = |server: &str, path: Option<&str>, ca_bundle: Option<String>| VaultProvider {
        path: path.map(str::to_owned),
        ca_bundle,
        ..spec(server)
    };
    let pem = |text: &str| Some(BASE64_STANDARD.encode(text));
    let garbage = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let https = "https://vault.example.com:8200";
    let cases = [
        (with("vault.example.com", None, None), "provider.vault.server"),
        (with("ftp://vault.example.com", None, None), "provider.vault.server"),
        (with("https://user:pass@vault.example.com", None, None), "provider.vault.server"),
        (with("https://vault.example.com/vault", None, None), "provider.vault.server"),
        (with("https://vault.example.com?x", None, None), "provider.vault.server"),
        (with("https://", None, None), "provider.vault.server"),
        (with(https, Some("../sys"), None), "provider.vault.path"),
        (with(https, Some("/"), None), "provider.vault.path"),
        (with(https, None, Some("no base64!".into())), "provider.vault.caBundle"),
        (with(https, None, pem("")), "provider.vault.caBundle"),
        (with(https, None, pem("no PEM")), "provider.vault.caBundle"),
        (with(https, None, pem(garbage)), "provider.vault.caBundle"),
        (with("http://vault.example.com", None, pem(garbage)), "provider.vault.caBundle"),
    ];
    for (spec, field) in cases {
        let fault = store(&spec, Some(TOKEN)).err().unwrap_or_else(|| unreachable!("{spec:?}"));
        assert_eq!((fault.class, fault.reason), (Class::Invalid, Reason::InvalidSpec), "{spec:?}");
        assert!(fault.detail.contains(field), "{spec:?}: {fault}");
    }
}

#[test]
fn a_found_value_is_shown_by_no_debug_text() {
    let answer = crate::backend::vault::answer::Answer { status: 200, retry_after: None, body: FOUND.as_bytes().to_vec().into() };
    let kept = crate::backend::vault::answer::kept(&answer, None).unwrap();
    assert!(!format!("{kept:?}").contains(CANARY), "{kept:?}");
}

#[tokio::test]
async fn the_store_of_a_tenant_leads_to_no_address_of_this_host_whatever_its_spelling() {
    let server = Server::answering(http(200, FOUND)).await;
    let port = server.url.rsplit_once(':').unwrap().1.to_owned();
    let tenant = StoreName::Namespaced { namespace: "team".into(), name: "vault".into() };
    let open_with = |spelled: &str, listed: &[&str]| {
        let tenants = listed.iter().map(|endpoint| endpoint.parse().unwrap()).collect();
        let endpoints = Endpoints { tenants, api_servers: Vec::new() };
        let settings = Settings { call_timeout: Duration::from_secs(20), endpoints, ..Settings::default() };
        open(&tenant, Provider::Vault(&spec(&format!("http://{spelled}:{port}"))), &holding(Some(TOKEN)), &settings)
    };
    for literal in ["127.0.0.1", "0x7f.1", "[::ffff:127.0.0.1]", "0.0.0.0"] {
        let fault = open_with(literal, &[]).err().unwrap();
        assert_eq!((fault.class, fault.reason), (Class::Denied, Reason::NotAllowed), "{literal}");
        assert!(fault.detail.contains("tenantEndpoints") && fault.detail.contains("provider.vault.server"), "{fault}");
    }
    for name in ["localhost", "LocalHost"] {
        let store = open_with(name, &[]).unwrap();
        for _ in 0..2 {
            let fault = unknown(read(store.as_ref(), "db", None).await, name);
            assert_eq!((fault.class, fault.reason), (Class::Denied, Reason::NotAllowed), "{name}: {fault}");
        }
    }
    let nobody = open_with("keyferry.invalid", &[]).unwrap();
    assert!(unknown(read(nobody.as_ref(), "db", None).await, "no such name").detail.contains("cannot be resolved"));
    assert!(server.heads().is_empty(), "{:?}", server.heads());
    for (spelled, listed) in [("127.0.0.1", format!("127.0.0.1:{port}")), ("localhost", format!("localhost:{port}"))] {
        let store = open_with(spelled, &[&listed]).unwrap();
        assert!(matches!(read(store.as_ref(), "db", None).await, Reading::Found(_)), "{spelled}");
    }
}
