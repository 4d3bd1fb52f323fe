//! KV version 1, tags, and paths whose values are leased.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::{FutureExt, StreamExt, future::join_all};
use serde_json::json;

use super::{Server, http, read, spec, store, unknown};
use crate::{
    backend::Backend,
    crd::v1alpha1::{VaultEngine, VaultKvVersion, VaultProvider},
    fault::{Class, Reason},
    item::{Hint, Reading},
    name::{ProviderKind, RemoteKey, RemoteRef},
};

const KV1: &str = r#"{"data":{"path":"secret/","type":"kv","options":{"version":"1"}}}"#;

fn kv1(server: &Server) -> Arc<dyn Backend> {
    store(&VaultProvider { version: Some(VaultKvVersion::V1), ..spec(&server.url) }, Some("t")).unwrap()
}

fn logical(server: &Server, revokes: bool) -> Arc<dyn Backend> {
    let spec = VaultProvider { engine: Some(VaultEngine::Logical), revoke_on_delete: Some(revokes), ..spec(&server.url) };
    store(&spec, Some("t")).unwrap()
}

fn text(reading: Reading) -> String {
    let Reading::Found(found) = reading else { unreachable!("{reading:?}") };
    String::from_utf8(found.value.expose().to_vec()).unwrap()
}

fn lines(server: &Server) -> Vec<String> {
    server.heads().iter().map(|head| head.lines().next().unwrap().trim_end_matches(" HTTP/1.1").to_owned()).collect()
}

fn count(server: &Server, part: &str) -> usize {
    lines(server).iter().filter(|line| line.contains(part)).count()
}

async fn forward(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

#[tokio::test]
async fn version_1_is_read_and_listed_below_its_mount() {
    let server = Server::start(|line| match line.trim_end_matches(" HTTP/1.1") {
        "GET /v1/secret/app/db" => http(200, r#"{"data":{"n":1.10,"s":"x"},"lease_id":"","lease_duration":2764800}"#),
        "LIST /v1/secret/" => http(200, r#"{"data":{"keys":["app/","top"]}}"#),
        "LIST /v1/secret/app/" => http(200, r#"{"data":{"keys":["db"]}}"#),
        line if line.contains("/sys/internal/") => http(200, KV1),
        _ => http(404, r#"{"errors":[]}"#),
    })
    .await;
    let store = kv1(&server);
    assert_eq!(text(read(store.as_ref(), "app/db", None).await), r#"{"n":1.10,"s":"x"}"#);
    let mut names: Vec<String> = store.lister().unwrap().list(None).await.unwrap().iter().map(ToString::to_string).collect();
    names.sort();
    assert_eq!(names, ["app/db", "top"]);
    let Reading::Absent(fault) = read(store.as_ref(), "gone", None).await else { unreachable!() };
    assert_eq!(fault.reason, Reason::NotFound);
    let Reading::Unknown(fault) = read(store.as_ref(), "app/db", Some("1")).await else { unreachable!() };
    assert_eq!((fault.class, fault.reason), (Class::Invalid, Reason::InvalidSpec));
    let tags = BTreeMap::from([("team".to_owned(), "shop".to_owned())]);
    assert_eq!(store.lister().unwrap().list_tagged(None, &tags).await.unwrap_err().reason, Reason::InvalidSpec);
}

#[tokio::test]
async fn an_engine_of_the_other_version_proves_no_absence() {
    for (engine, is_absent) in [(KV1, true), (super::KV2, false), (r#"{"data":{"path":"secret/","type":"cubbyhole"}}"#, false)] {
        let server =
            Server::start(move |line| if line.contains("/sys/") { http(200, engine) } else { http(404, r#"{"errors":[]}"#) }).await;
        let reading = read(kv1(&server).as_ref(), "db", None).await;
        assert_eq!(matches!(reading, Reading::Absent(_)), is_absent, "{engine}: {reading:?}");
    }
}

#[tokio::test]
async fn metadata_is_read_in_the_place_of_the_value_and_only_where_there_is_any() {
    let server = Server::start(|line| match line.trim_end_matches(" HTTP/1.1") {
        "GET /v1/secret/metadata/db" => http(200, r#"{"data":{"custom_metadata":{"team":"shop","a.b":"\u00fc\""},"current_version":1}}"#),
        "GET /v1/secret/metadata/none" => http(200, r#"{"data":{"custom_metadata":null,"current_version":0}}"#),
        "GET /v1/secret/metadata/odd" => http(200, r#"{"data":{"custom_metadata":{"team":["canary"]}}}"#),
        line if line.contains("/sys/") => http(200, super::KV2),
        line if line.contains("/data/") => http(200, r#"{"data":{"data":{"canary":"value"},"metadata":{"version":1}}}"#),
        _ => http(404, r#"{"errors":[]}"#),
    })
    .await;
    let fetch = async |store: &dyn crate::backend::Backend, key: &str| {
        let key = RemoteKey::parse(ProviderKind::Vault, key).unwrap();
        store.fetch(&[RemoteRef { key, version: None, is_metadata: true }]).await.remove(0)
    };
    let store = server.store();
    for (key, expected) in [("db", r#"{"a.b":"ü\"","team":"shop"}"#), ("none", "{}")] {
        let Reading::Found(found) = fetch(store.as_ref(), key).await else { unreachable!("{key}") };
        assert_eq!((found.value.expose(), found.version), (expected.as_bytes(), None), "{key}");
    }
    assert!(matches!(fetch(store.as_ref(), "gone").await, Reading::Absent(fault) if fault.reason == Reason::NotFound));
    assert!(matches!(fetch(store.as_ref(), "odd").await, Reading::Unknown(fault) if !format!("{fault:?}").contains("canary")));
    assert!(matches!(fetch(kv1(&server).as_ref(), "db").await, Reading::Unknown(fault) if fault.reason == Reason::InvalidSpec));
}

#[tokio::test]
async fn tags_are_custom_metadata_and_all_of_them_count() {
    let metadata = |tags: &str| http(200, &format!(r#"{{"data":{{"custom_metadata":{tags},"current_version":1}}}}"#));
    let server = Server::start(move |line| match line.trim_end_matches(" HTTP/1.1") {
        "LIST /v1/secret/metadata/" => http(200, r#"{"data":{"keys":["both","gone","none","null","one","other"]}}"#),
        "GET /v1/secret/metadata/both" => metadata(r#"{"team":"shop","env":"prod","more":"x"}"#),
        "GET /v1/secret/metadata/one" => metadata(r#"{"team":"shop"}"#),
        "GET /v1/secret/metadata/other" => metadata(r#"{"team":"shop","env":"dev"}"#),
        "GET /v1/secret/metadata/none" => metadata("{}"),
        "GET /v1/secret/metadata/null" => metadata("null"),
        _ => http(404, r#"{"errors":[]}"#),
    })
    .await;
    let tags = BTreeMap::from([("team".to_owned(), "shop".to_owned()), ("env".to_owned(), "prod".to_owned())]);
    let store = server.store();
    let names = store.lister().unwrap().list_tagged(None, &tags).await.unwrap();
    assert_eq!(names.iter().map(ToString::to_string).collect::<Vec<_>>(), ["both"]);
}

#[tokio::test]
async fn a_tag_that_cannot_be_read_fails_the_search() {
    for (status, reason) in [(403, Reason::AccessDenied), (500, Reason::ProviderUnavailable)] {
        let server =
            Server::start(move |line| if line.starts_with("LIST") { http(200, r#"{"data":{"keys":["a"]}}"#) } else { http(status, "") });
        let tags = BTreeMap::from([("team".to_owned(), "shop".to_owned())]);
        let fault = server.await.store().lister().unwrap().list_tagged(None, &tags).await.unwrap_err();
        assert_eq!(fault.reason, reason);
    }
}

/// A database engine: each read makes another user; renewals grant what the test says next.
struct Database {
    server: Server,
    /// Seconds that renewals grant; a status above 300 instead fails them.
    grants: Arc<Mutex<u64>>,
}

impl Database {
    async fn start(life: u64) -> Self {
        let (made, grants) = (AtomicU64::new(0), Arc::new(Mutex::new(life)));
        let granted = grants.clone();
        let server = Server::start(move |line| {
            let next = *granted.lock().unwrap();
            if line.contains("/sys/leases/renew") {
                return if next >= 300 {
                    http(u16::try_from(next).unwrap(), "")
                } else {
                    http(200, &json!({"lease_duration": next}).to_string())
                };
            }
            if line.contains("/sys/leases/revoke") {
                return http(204, "");
            }
            let number = made.fetch_add(1, Ordering::SeqCst) + 1;
            let body = json!({"lease_id": format!("database/creds/app/{number}"), "lease_duration": life, "renewable": true,
                              "data": {"username": format!("u{number}")}});
            http(200, &body.to_string())
        })
        .await;
        Self { server, grants }
    }

    fn grant(&self, next: u64) {
        *self.grants.lock().unwrap() = next;
    }

    /// Reads and renewals so far.
    fn calls(&self) -> (usize, usize) {
        (count(&self.server, "GET /v1/database/creds/app"), count(&self.server, "/sys/leases/renew"))
    }
}

const USER: &str = "database/creds/app";

async fn user(store: &Arc<dyn Backend>) -> String {
    text(read(store.as_ref(), USER, None).await)
}

#[tokio::test]
async fn a_leased_value_is_read_once_however_many_look_and_renewed_at_two_thirds() {
    let database = Database::start(90).await;
    let store = logical(&database.server, false);
    let users = join_all((0..20).map(|_| user(&store))).await;
    assert!(users.iter().all(|user| user == r#"{"username":"u1"}"#), "{users:?}");
    assert_eq!(database.calls(), (1, 0));
    for expected in [(1, 0), (1, 1), (1, 1), (1, 2)] {
        assert_eq!(user(&store).await, r#"{"username":"u1"}"#);
        assert_eq!(database.calls(), expected);
        forward(Duration::from_secs(31)).await;
        if expected.1 == 0 {
            forward(Duration::from_secs(30)).await;
        }
    }
    let renewal = database.server.heads().into_iter().find(|head| head.contains("/sys/leases/renew")).unwrap();
    assert!(renewal.ends_with(r#"{"increment":90,"lease_id":"database/creds/app/1"}"#), "{renewal}");
}

#[tokio::test]
async fn a_renewal_that_is_cut_short_or_refused_means_another_lease_and_an_outage_does_not() {
    for (next, reads) in [(20, 2), (400, 2), (403, 2), (404, 2), (500, 1), (503, 1), (429, 1)] {
        let database = Database::start(90).await;
        let store = logical(&database.server, false);
        user(&store).await;
        database.grant(next);
        forward(Duration::from_secs(61)).await;
        for _ in 0..3 {
            assert_eq!(user(&store).await, format!(r#"{{"username":"u{reads}"}}"#), "{next}");
        }
        assert_eq!(database.calls(), (reads, 1), "{next}");
        if reads == 1 {
            // When the lease has ended, its value is good no more.
            forward(Duration::from_secs(31)).await;
            assert_eq!(user(&store).await, r#"{"username":"u2"}"#, "{next}");
        }
    }
}

#[tokio::test]
async fn what_the_server_makes_or_changes_itself_is_marked_as_a_secret_and_what_it_keeps_is_not() {
    let server = Server::start(|line| match line.trim_end_matches(" HTTP/1.1") {
        "GET /v1/database/creds/app" => http(200, r#"{"lease_id":"l","lease_duration":90,"data":{"username":"u"}}"#),
        "GET /v1/database/static-creds/app" => http(200, r#"{"data":{"password":"p","last_vault_rotation":"x","ttl":90}}"#),
        _ => http(200, r#"{"data":{"host":"h"},"lease_id":"","lease_duration":2764800}"#),
    })
    .await;
    let (any, kept) = (logical(&server, false), kv1(&server));
    for (store, key, expected) in
        [(&any, USER, true), (&any, "database/static-creds/app", true), (&any, "secret/app", false), (&kept, "app", false)]
    {
        let Reading::Found(found) = read(store.as_ref(), key, None).await else { unreachable!("{key}") };
        assert_eq!(found.is_secret, expected, "{key}");
        let Reading::Found(again) = read(store.as_ref(), key, None).await else { unreachable!("{key}") };
        assert_eq!(again.is_secret, expected, "{key}, of the lease that is held");
    }
}

#[tokio::test]
async fn a_hint_says_when_a_lease_has_to_be_looked_at() {
    let database = Database::start(90).await;
    let store = logical(&database.server, false);
    let mut hints = store.changes().unwrap();
    assert!(hints.next().now_or_never().is_none(), "nothing is leased");
    user(&store).await;
    assert!(hints.next().now_or_never().is_none(), "too early");
    forward(Duration::from_secs(61)).await;
    let key = RemoteKey::parse(ProviderKind::Vault, USER).unwrap();
    assert_eq!(hints.next().await, Some(Hint::Keys([key].into())));
    assert!(hints.next().now_or_never().is_none(), "said once");
    user(&store).await;
    assert_eq!(database.calls(), (1, 1));
}

#[tokio::test]
async fn a_path_that_may_have_been_leased_to_another_process_is_told_until_it_was_asked_about() {
    let database = Database::start(90).await;
    let wanted = RemoteRef { key: RemoteKey::parse(ProviderKind::Vault, USER).unwrap(), version: None, is_metadata: false };
    let store = logical(&database.server, false);
    assert!(store.is_unattended(&wanted));
    user(&store).await;
    assert!(!store.is_unattended(&wanted));
    assert!(!database.server.store().is_unattended(&wanted), "what KV gives does not end");
}

#[tokio::test]
async fn a_lease_that_nobody_needs_is_revoked_where_that_is_wished() {
    for (revokes, revocations, reads) in [(true, 1, 2), (false, 0, 1)] {
        let database = Database::start(90).await;
        let store = logical(&database.server, revokes);
        user(&store).await;
        let wanted = RemoteRef { key: RemoteKey::parse(ProviderKind::Vault, USER).unwrap(), version: None, is_metadata: false };
        store.release(&wanted).await;
        store.release(&wanted).await;
        assert_eq!(count(&database.server, "/sys/leases/revoke"), revocations);
        user(&store).await;
        assert_eq!(database.calls().0, reads);
    }
}

#[tokio::test]
async fn a_static_role_is_one_value_until_the_server_rotates_it() {
    let countdown = AtomicU64::new(100);
    let server = Server::start(move |_| {
        let ttl = countdown.fetch_sub(1, Ordering::SeqCst);
        let data =
            json!({"username": "app", "password": "p", "last_vault_rotation": "2026-01-01T00:00:00Z", "rotation_period": 100, "ttl": ttl});
        http(200, &json!({"lease_id": "", "lease_duration": 0, "data": data}).to_string())
    })
    .await;
    let store = logical(&server, false);
    let mut hints = store.changes().unwrap();
    let first = text(read(store.as_ref(), "database/static-creds/app", None).await);
    assert_eq!(text(read(store.as_ref(), "database/static-creds/app", None).await), first);
    assert!(!first.contains("ttl") && first.contains(r#""password":"p""#), "{first}");
    assert!(hints.next().now_or_never().is_none());
    forward(Duration::from_secs(102)).await;
    assert!(hints.next().await.is_some());
}

#[tokio::test]
async fn a_path_is_absent_when_something_is_mounted_there_that_knows_it_not() {
    let mount = |path: &'static str| http(200, &json!({"data": {"path": path, "type": "database"}}).to_string());
    for (path, is_absent) in [("database/", true), ("data/", false), ("", false)] {
        let server = Server::start(move |line| if line.contains("/sys/") { mount(path) } else { http(404, r#"{"errors":[]}"#) }).await;
        let reading = read(logical(&server, false).as_ref(), "database/x", None).await;
        assert_eq!(matches!(reading, Reading::Absent(_)), is_absent, "{path}: {reading:?}");
        assert!(lines(&server)[1].contains("/v1/sys/internal/ui/mounts/database/x"), "{:?}", lines(&server));
    }
}

#[tokio::test]
async fn any_other_answer_of_a_path_is_unknown() {
    for (status, body) in
        [(200, ""), (200, "{}"), (200, r#"{"data":["canary"]}"#), (200, r#"{"data":null,"lease_id":"canary"}"#), (400, "canary")]
    {
        let server = Server::start(move |_| http(status, body)).await;
        unknown(read(logical(&server, false).as_ref(), "db", None).await, body);
    }
    let server = Server::start(|_| http(200, r#"{"data":{}}"#)).await;
    let store = logical(&server, false);
    assert!(store.lister().is_none());
    assert_eq!(unknown(read(store.as_ref(), "db", Some("1")).await, "a version").reason, Reason::InvalidSpec);
}
