//! The provider against a server that says what a test lets it say.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use futures::StreamExt;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_util::task::AbortOnDropHandle;

use super::*;
use crate::{
    access::Role,
    backend::{ApiServer, TokenSource, open as open_any},
    crd::v1alpha1::Provider,
    fault::Class,
    name::{ProviderKind, StoreName},
    secret::SecretValue,
};

/// Answers each request line with what the test's function says; remembers the lines, and with them the tokens.
struct Server {
    url: String,
    asked: Arc<Mutex<Vec<String>>>,
    _task: AbortOnDropHandle<()>,
}

fn http(status: u16, body: &str) -> String {
    format!("HTTP/1.1 {status} x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

impl Server {
    async fn start(answer: impl Fn(&str) -> String + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (asked, answer) = (Arc::<Mutex<Vec<String>>>::default(), Arc::new(answer));
        let ledger = asked.clone();
        let task = tokio::spawn(async move {
            while let Ok((mut connection, _)) = listener.accept().await {
                let (ledger, answer) = (ledger.clone(), answer.clone());
                tokio::spawn(async move {
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        let Ok(byte) = connection.read_u8().await else { return };
                        head.push(byte);
                    }
                    let head = String::from_utf8_lossy(&head).into_owned();
                    let token = head.lines().find_map(|line| line.strip_prefix("authorization: Bearer ")).unwrap_or_default();
                    let line = format!("{} as {token}", head.lines().next().unwrap_or_default());
                    ledger.lock().unwrap().push(line.clone());
                    let _ = connection.write_all(answer(&line).as_bytes()).await;
                });
            }
        });
        Self { url, asked, _task: AbortOnDropHandle::new(task) }
    }

    /// A store that reads namespace `team` here, as this cluster.
    fn store(&self, tokens: Option<Arc<dyn TokenSource>>) -> Arc<dyn Backend> {
        let auth = json!({"serviceAccount": {"name": "reader"}});
        let spec: KubernetesProvider = serde_json::from_value(json!({"remoteNamespace": "team", "auth": auth})).unwrap();
        let settings = Settings {
            call_timeout: Duration::from_secs(20),
            api_server: Some(ApiServer { url: self.url.clone(), authorities: Vec::new() }),
            ..Settings::default()
        };
        let credentials = Credentials { tokens: Some(tokens.unwrap_or_else(|| Arc::new(Tokens::default()))), ..Credentials::default() };
        let name = StoreName::Namespaced { namespace: "shop".into(), name: "s".into() };
        open_any(&name, Provider::Kubernetes(&spec), &credentials, &settings).unwrap()
    }

    fn asked(&self, part: &str) -> usize {
        self.asked.lock().unwrap().iter().filter(|line| line.contains(part)).count()
    }
}

/// Tokens that count.
#[derive(Debug, Default)]
struct Tokens(AtomicUsize);

#[async_trait]
impl TokenSource for Tokens {
    async fn token(&self) -> Result<SecretValue, Fault> {
        Ok(SecretValue::from(format!("token-{}\n", self.0.load(Ordering::SeqCst))))
    }

    async fn forget(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn secret(name: &str, version: &str) -> String {
    let metadata = json!({"name": name, "namespace": "team", "resourceVersion": version});
    http(200, &json!({"kind": "Secret", "metadata": metadata, "data": {"a": "eA=="}}).to_string())
}

fn missing(kind: &str, name: &str) -> String {
    http(404, &json!({"kind": "Status", "reason": "NotFound", "details": {"kind": kind, "name": name}}).to_string())
}

fn wanted(key: &str) -> RemoteRef {
    RemoteRef { key: RemoteKey::parse(ProviderKind::Kubernetes, key).unwrap(), version: None, is_metadata: false }
}

async fn read(store: &dyn Backend, key: &str) -> Reading {
    store.fetch(&[wanted(key)]).await.remove(0)
}

#[tokio::test]
async fn a_token_that_is_refused_is_replaced_once() {
    // The watch asks for new tokens, too.
    let picky = Server::start(|line| if line.ends_with("token-0") { http(401, "") } else { secret("db", "7") }).await;
    let reading = read(&*picky.store(None), "db").await;
    assert!(matches!(&reading, Reading::Found(found) if found.version.as_deref() == Some("7")), "{reading:?}");

    let deaf = Server::start(|_| http(401, "canary")).await;
    let Reading::Unknown(fault) = read(&*deaf.store(None), "db").await else { unreachable!("nobody is let in") };
    assert_eq!((fault.class, deaf.asked("/secrets/db ")), (Class::Denied, 2), "{fault}");
    assert!(!fault.detail.contains("canary"));
}

#[tokio::test]
async fn metadata_is_labels_and_annotations_without_the_value() {
    let server = Server::start(|line| {
        let applied = json!({"kubectl.kubernetes.io/last-applied-configuration": "canary", "example.com/owner": "ü"});
        let metadata =
            json!({"name": "db", "namespace": "team", "resourceVersion": "7", "labels": {"team": "shop"}, "annotations": applied});
        match line {
            line if line.contains("/secrets/db ") => http(200, &json!({"kind": "PartialObjectMetadata", "metadata": metadata}).to_string()),
            // The object itself is no answer: its value was not asked for.
            line if line.contains("/secrets/whole ") => secret("whole", "7"),
            line if line.contains("/secrets/none ") => missing("secrets", "none"),
            line if line.contains("/namespaces/team ") => http(200, r#"{"kind":"Namespace","metadata":{"name":"team"}}"#),
            _ => http(403, ""),
        }
    })
    .await;
    let store = server.store(None);
    let fetch = async |key: &str| store.fetch(&[RemoteRef { is_metadata: true, ..wanted(key) }]).await.remove(0);
    let Reading::Found(found) = fetch("db").await else { unreachable!("it has metadata") };
    assert_eq!(found.value.expose(), r#"{"annotations":{"example.com/owner":"ü"},"labels":{"team":"shop"}}"#.as_bytes());
    assert_eq!(found.version.as_deref(), Some("7"));
    assert!(matches!(fetch("none").await, Reading::Absent(fault) if fault.reason == Reason::NotFound));
    assert!(matches!(fetch("whole").await, Reading::Unknown(fault) if fault.class == Class::Unavailable));
}

#[tokio::test]
async fn absence_needs_a_namespace_that_is_there() {
    let there = |end: &str| http(200, &format!(r#"{{"kind":"Namespace","metadata":{{"name":"team"{end}}}}}"#));
    let review = |allowed: bool| http(201, &json!({"kind": "SelfSubjectAccessReview", "status": {"allowed": allowed}}).to_string());
    let cases = [
        ("it is there", there(""), http(500, ""), None),
        ("it ends", there(r#","deletionTimestamp":"2026-11-22T10:00:00Z""#), http(500, ""), Some("does not exist or is going away")),
        ("it is missing", missing("namespaces", "team"), http(500, ""), Some("does not exist or is going away")),
        ("another is told", missing("namespaces", "other"), review(false), Some("no API server gives")),
        ("a Role in it proves it", http(403, ""), review(false), None),
        ("rights everywhere prove nothing", http(403, ""), review(true), Some("nothing shows that its namespace is")),
        ("the review fails", http(403, ""), http(503, ""), Some("failed (503)")),
    ];
    for (case, namespace, verdict, expected) in cases {
        let server = Server::start(move |line| match line {
            line if line.starts_with("POST ") => verdict.clone(),
            line if line.contains("/namespaces/team ") => namespace.clone(),
            line if line.contains("/secrets/db ") => missing("secrets", "db"),
            _ => http(403, ""),
        })
        .await;
        match (read(&*server.store(None), "db").await, expected) {
            (Reading::Absent(fault), None) => assert_eq!(fault.reason, Reason::NotFound, "{case}"),
            (Reading::Unknown(fault), Some(words)) => {
                assert!(fault.class == Class::Unavailable && fault.detail.contains(words), "{case}: {fault}");
            }
            (reading, _) => unreachable!("{case}: {reading:?}"),
        }
    }
}

#[tokio::test]
async fn without_the_right_to_list_values_are_read_and_nothing_is_claimed_of_them() {
    let server = Server::start(|line| if line.contains("/secrets/db ") { secret("db", "7") } else { http(403, "") }).await;
    let store = server.store(None);
    assert!(matches!(read(&*store, "db").await, Reading::Found(_)));
    let prober = store.prober().unwrap();
    assert_eq!((prober.version(&wanted("db")).await, prober.versions(&Listing::default()).await), (None, None));
    let fault = store.lister().unwrap().list(None).await.unwrap_err();
    assert_eq!((fault.class, fault.reason), (Class::Denied, Reason::AccessDenied), "{fault}");
}

#[tokio::test]
async fn who_asks_for_a_version_before_the_first_list_waits_for_it() {
    let page = r#"{"kind":"PartialObjectMetadataList","metadata":{"resourceVersion":"10"},"items":[{"metadata":{"name":"db","resourceVersion":"7"}}]}"#;
    let server = Server::start(move |line| match line {
        line if line.contains("watch=true") => "HTTP/1.1 200 x\r\ncontent-length: 1000\r\n\r\n".to_owned(),
        _ => http(200, page),
    })
    .await;
    let store = server.store(None);
    let prober = store.prober().unwrap();
    let configured = Listing { path: RemoteKey::parse(ProviderKind::Kubernetes, "configmap").ok(), ..Listing::default() };
    assert_eq!(prober.version(&wanted("db")).await.as_deref(), Some("7"));
    assert_eq!(prober.versions(&configured).await.map(|all| all.len()), Some(1));
    assert_eq!(server.asked("limit=500"), 2, "one list for each kind");
}

#[tokio::test]
async fn the_watch_tells_by_name_what_changed_and_proves_what_did_not() {
    let page = r#"{"kind":"PartialObjectMetadataList","metadata":{"resourceVersion":"10"},"items":[
        {"metadata":{"name":"db","resourceVersion":"7","labels":{"team":"shop"}}},{"metadata":{"name":"x","resourceVersion":"8"}}]}"#;
    let event = |kind: &str, name: &str, version: &str| {
        format!(r#"{{"type":"{kind}","object":{{"metadata":{{"name":"{name}","resourceVersion":"{version}","labels":{{}}}}}}}}"#)
    };
    let lines = format!("{}\n{}\n{}\n", event("MODIFIED", "x", "11"), event("DELETED", "db", "12"), event("BOOKMARK", "", "13"));
    let watched = AtomicUsize::new(0);
    let server = Server::start(move |line| match line {
        line if line.contains("/secrets/db ") => secret("db", "7"),
        line if line.contains("watch=true") && watched.fetch_add(1, Ordering::SeqCst) == 0 => http(200, &lines),
        // A watch that says nothing and does not end.
        line if line.contains("watch=true") => "HTTP/1.1 200 x\r\ncontent-length: 1000\r\n\r\n".to_owned(),
        _ => http(200, page),
    })
    .await;
    let store = server.store(None);
    let mut hints = store.changes().unwrap();
    assert!(matches!(read(&*store, "db").await, Reading::Found(_)));
    while server.asked("resourceVersion=13") == 0 {
        tokio::task::yield_now().await;
    }
    assert!(hints.next().await.is_some(), "told together, as nobody listened");
    let prober = store.prober().unwrap();
    assert_eq!(prober.version(&wanted("x")).await.as_deref(), Some("11"));
    assert_eq!(prober.version(&wanted("db")).await, None, "it is gone, and that proves nothing");
    let tagged = Listing { tags: [("team".to_owned(), "shop".to_owned())].into(), ..Listing::default() };
    assert_eq!(prober.versions(&tagged).await, Some(BTreeMap::new()));
    assert_eq!(prober.versions(&Listing::default()).await.map(|all| all.len()), Some(1));
}

#[tokio::test]
async fn a_version_is_refused() {
    let server = Server::start(|_| secret("db", "7")).await;
    let reference = RemoteRef { version: Some("7".to_owned()), ..wanted("db") };
    let Reading::Unknown(fault) = server.store(None).fetch(&[reference]).await.remove(0) else { unreachable!("a version is no key") };
    assert_eq!((fault.class, fault.reason), (Class::Invalid, Reason::InvalidSpec));
}

#[test]
fn a_tenants_store_leads_to_no_address_of_the_operators_host_or_the_api_server() {
    let kubeconfig = |server: &str| {
        let text = format!(
            "current-context: a\ncontexts: [{{name: a, context: {{cluster: c, user: u}}}}]\n\
             clusters: [{{name: c, cluster: {{server: '{server}'}}}}]\nusers: [{{name: u, user: {{token: t}}}}]"
        );
        (json!({"authRef": {"name": "k"}}), (Role::Kubeconfig, SecretValue::from(text)))
    };
    let named = |server: &str| {
        let spec = json!({"server": {"url": server}, "auth": {"token": {"bearerToken": {"name": "t"}}}});
        (spec, (Role::Token, SecretValue::from("t".to_owned())))
    };
    let mut settings = Settings { call_timeout: Duration::from_secs(20), ..Settings::default() };
    settings.endpoints.api_servers.push("10.0.0.1".to_owned());
    settings.endpoints.tenants.extend("127.0.0.2:443".parse());
    let tenant = StoreName::Namespaced { namespace: "shop".into(), name: "s".into() };
    let admin = StoreName::Cluster { name: "s".into() };
    let opened = |store: &StoreName, (spec, secret): (serde_json::Value, (Role, SecretValue))| {
        let spec: KubernetesProvider = serde_json::from_value(spec).unwrap();
        let credentials = Credentials { secrets: [secret].into(), tokens: None };
        open_any(store, Provider::Kubernetes(&spec), &credentials, &settings).map(drop).map_err(|fault| fault.reason)
    };
    for address in ["https://127.0.0.1:6443", "https://169.254.169.254", "https://[::1]", "https://10.0.0.1"] {
        for block in [named(address), kubeconfig(address)] {
            assert_eq!(opened(&tenant, block.clone()), Err(Reason::NotAllowed), "{address}");
            assert_eq!(opened(&admin, block), Ok(()), "{address}");
        }
    }
    assert_eq!(opened(&tenant, named("https://127.0.0.2")), Ok(()), "the admin listed it");
    assert_eq!(opened(&tenant, named("https://192.0.2.7")), Ok(()));
}
