//! Logins: what is sent to STS, how often, who shares what, and what follows from the answers.

#![cfg(feature = "aws-sm")]

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use futures::future::join_all;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_util::task::AbortOnDropHandle;
use url::form_urlencoded;

use super::Login;
use crate::{
    access::Role,
    backend::{Backend, Credentials, Settings, TokenSource, endpoint::Endpoints, open},
    crd::v1alpha1::{AwsProvider, Provider},
    fault::{Class, Fault, Reason},
    item::Reading,
    name::{ProviderKind, RemoteKey, RemoteRef, StoreName},
    secret::SecretValue,
};

const READER: &str = "arn:aws:iam::123456789012:role/team/reader";
const HUB: &str = "arn:aws:iam::210987654321:role/hub";

/// A request as the server saw it.
#[derive(Clone, Debug)]
struct Asked {
    head: String,
    /// The fields of a form; none of any other body.
    form: BTreeMap<String, String>,
}

impl Asked {
    /// The access key that signed.
    fn signer(&self) -> String {
        let scope = self.head.split_once("Credential=").map_or("", |(_, rest)| rest);
        scope.split('/').next().unwrap_or_default().to_owned()
    }

    fn of(&self, field: &str) -> &str {
        self.form.get(field).map_or("", String::as_str)
    }
}

/// STS and Secrets Manager on one port.
struct Amazon {
    url: String,
    seen: Arc<Mutex<Vec<Asked>>>,
    _task: AbortOnDropHandle<()>,
}

impl Amazon {
    async fn start(answer: impl Fn(&Asked) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (seen, answer) = (Arc::new(Mutex::new(Vec::new())), Arc::new(answer));
        let told = seen.clone();
        let task = tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                tokio::spawn(serve(connection, told.clone(), answer.clone()));
            }
        });
        Self { url, seen, _task: AbortOnDropHandle::new(task) }
    }

    /// STS answers so; any other call finds a value.
    async fn granting(sts: impl Fn(&Asked) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self::start(move |asked| if asked.form.is_empty() { found() } else { sts(asked) }).await
    }

    fn spec(&self, more: Value) -> AwsProvider {
        let secret = json!({"name": "s"});
        let key = json!({"accessKeyIDSecretRef": secret, "secretAccessKeySecretRef": secret, "sessionTokenSecretRef": secret});
        let mut spec = json!({
            "service": "SecretsManager", "region": "eu-central-1", "endpoint": self.url, "stsEndpoint": self.url, "auth": {"secretRef": key}
        });
        let Value::Object(more) = more else { unreachable!("{more}") };
        spec.as_object_mut().unwrap().extend(more);
        serde_json::from_value(spec).unwrap()
    }

    /// A store that reads with the role.
    fn reader(&self) -> Arc<dyn Backend> {
        opened(&cluster("main"), &self.spec(json!({"role": READER})), &holding("canary-key"), &settings())
    }

    fn logins(&self) -> Vec<Asked> {
        self.seen.lock().unwrap().iter().filter(|asked| !asked.form.is_empty()).cloned().collect()
    }

    fn looks(&self) -> Vec<Asked> {
        self.seen.lock().unwrap().iter().filter(|asked| asked.form.is_empty()).cloned().collect()
    }
}

async fn serve(mut connection: TcpStream, seen: Arc<Mutex<Vec<Asked>>>, answer: Arc<impl Fn(&Asked) -> Vec<u8>>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = connection.read_u8().await else { return };
        head.push(byte);
    }
    let head = String::from_utf8(head).unwrap();
    let length = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    connection.read_exact(&mut body).await.unwrap();
    let form = if head.contains("x-www-form-urlencoded") { form_urlencoded::parse(&body).into_owned().collect() } else { BTreeMap::new() };
    let asked = Asked { head, form };
    let bytes = answer(&asked);
    seen.lock().unwrap().push(asked);
    let _ = connection.write_all(&bytes).await;
}

fn http(status: u16, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

fn found() -> Vec<u8> {
    http(200, &json!({"Name": "db", "SecretString": "v", "VersionId": "1"}).to_string())
}

/// Keys for so many seconds.
fn granted(id: &str, seconds: i64) -> Vec<u8> {
    answered("AssumeRole", id, seconds)
}

fn answered(action: &str, id: &str, seconds: i64) -> Vec<u8> {
    let until = Timestamp::from_second(Timestamp::now().as_second() + seconds).unwrap();
    let keys = format!(
        "<AccessKeyId>{id}</AccessKeyId><SecretAccessKey>canary-{id}</SecretAccessKey><SessionToken>canary-token-{id}</SessionToken><Expiration>{until}</Expiration>"
    );
    http(200, &format!("<{action}Response><{action}Result><Credentials>{keys}</Credentials></{action}Result></{action}Response>"))
}

/// Keys that are called after the role, for an hour.
fn named(asked: &Asked) -> Vec<u8> {
    answered(asked.of("Action"), asked.of("RoleArn").rsplit('/').next().unwrap(), 3600)
}

fn refused(status: u16, code: &str, message: &str) -> Vec<u8> {
    let error = format!("<Type>Sender</Type><Code>{code}</Code><Message>{message}</Message>");
    http(status, &format!("<ErrorResponse><Error>{error}</Error><RequestId>x</RequestId></ErrorResponse>"))
}

fn cluster(name: &str) -> StoreName {
    StoreName::Cluster { name: name.into() }
}

fn holding(key: &str) -> Credentials {
    let secrets = [(Role::AccessKeyId, "BASE\n"), (Role::SecretAccessKey, key), (Role::SessionToken, "canary-base-token")];
    let secrets = secrets.map(|(role, text)| (role, SecretValue::from(text.to_owned())));
    Credentials { secrets: secrets.into_iter().collect(), ..Credentials::default() }
}

fn settings() -> Settings {
    Settings { call_timeout: Duration::from_secs(20), ..Settings::default() }
}

fn opened(name: &StoreName, spec: &AwsProvider, credentials: &Credentials, settings: &Settings) -> Arc<dyn Backend> {
    open(name, Provider::Aws(spec), credentials, settings).unwrap()
}

async fn read(store: &Arc<dyn Backend>) -> Reading {
    let key = RemoteKey::parse(ProviderKind::AwsSecretsManager, "db").unwrap();
    store.fetch(&[RemoteRef { key, version: None, is_metadata: false }]).await.remove(0)
}

async fn is_read(store: &Arc<dyn Backend>) -> bool {
    matches!(read(store).await, Reading::Found(_))
}

/// The fault of an unknown reading that shows nothing of keys or bodies.
fn unknown(reading: Reading, case: &str) -> Fault {
    let Reading::Unknown(fault) = reading else { unreachable!("{case}: {reading:?}") };
    let shown = format!("{fault:?} {fault}");
    assert!(!shown.contains("canary"), "{case}: {shown}");
    assert!(fault.detail.starts_with("remote key \"db\": ") && fault.detail.len() <= 512, "{case}: {shown}");
    fault
}

/// Moves the clock of sessions; nothing waits for it meanwhile.
async fn forward(seconds: u64) {
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(seconds)).await;
    tokio::time::resume();
}

#[tokio::test]
async fn roles_are_assumed_in_their_order_and_the_last_is_told_id_and_tags() {
    let amazon = Amazon::granting(named).await;
    let spec = amazon.spec(json!({
        "additionalRoles": [HUB], "role": READER, "externalID": "shop:1",
        "sessionTags": [{"key": "team", "value": "shop & co"}, {"key": "area", "value": ""}], "transitiveTagKeys": ["team"],
    }));
    assert!(is_read(&opened(&cluster("main"), &spec, &holding("canary-key"), &settings())).await);
    let common = [("Action", "AssumeRole"), ("Version", "2011-06-15"), ("RoleSessionName", "keyferry"), ("DurationSeconds", "3600")];
    let form = |more: &[(&str, &str)]| {
        common.iter().chain(more).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect::<BTreeMap<_, _>>()
    };
    let logins = amazon.logins();
    let [hub, reader] = logins.as_slice() else { unreachable!("{logins:?}") };
    assert_eq!((hub.signer().as_str(), &hub.form), ("BASE", &form(&[("RoleArn", HUB)])));
    let told = [
        ("RoleArn", READER),
        ("ExternalId", "shop:1"),
        ("Tags.member.1.Key", "team"),
        ("Tags.member.1.Value", "shop & co"),
        ("Tags.member.2.Key", "area"),
        ("Tags.member.2.Value", ""),
        ("TransitiveTagKeys.member.1", "team"),
    ];
    assert_eq!((reader.signer().as_str(), &reader.form), ("hub", &form(&told)));
    assert!(hub.head.contains("x-amz-security-token: canary-base-token") && hub.head.contains("/eu-central-1/sts/aws4_request"));
    let looks = amazon.looks();
    assert!(looks.len() == 1 && looks[0].signer() == "reader" && looks[0].head.contains("x-amz-security-token: canary-token-reader"));
}

#[tokio::test]
async fn all_that_start_together_assume_a_role_once() {
    let amazon = Amazon::granting(named).await;
    let store = amazon.reader();
    assert!(join_all((0..50).map(|_| is_read(&store))).await.iter().all(|is_read| *is_read));
    assert_eq!((amazon.logins().len(), amazon.looks().len()), (1, 50));
}

#[tokio::test]
async fn stores_of_one_identity_share_its_session_and_others_never_do() {
    let amazon = Amazon::granting(|_| granted("any", 3600)).await;
    let tenant = |namespace: &str| StoreName::Namespaced { namespace: namespace.into(), name: "main".into() };
    let endpoints = Endpoints { tenants: vec![amazon.url.trim_start_matches("http://").parse().unwrap()], ..Endpoints::default() };
    let settings = Settings { endpoints, ..settings() };
    let reader = || json!({"role": READER});
    let tagged = |tags: Value| json!({"role": READER, "sessionTags": tags});
    // The whole list goes through the same sessions: each line says whether it needs another login.
    let cases = [
        (cluster("a"), reader(), "canary-key", true),
        (cluster("b"), reader(), "canary-key", false),
        (cluster("b"), reader(), "canary-other", true),
        (tenant("team"), reader(), "canary-key", true),
        (tenant("bank"), reader(), "canary-key", false),
        (cluster("a"), json!({"role": HUB}), "canary-key", true),
        (cluster("a"), json!({"role": READER, "externalID": "one"}), "canary-key", true),
        (cluster("a"), json!({"role": READER, "externalID": "two"}), "canary-key", true),
        (cluster("a"), json!({"role": READER, "region": "eu-west-1"}), "canary-key", true),
        (cluster("a"), tagged(json!([{"key": "a", "value": "bc"}])), "canary-key", true),
        (cluster("a"), tagged(json!([{"key": "ab", "value": "c"}])), "canary-key", true),
        (
            cluster("a"),
            json!({"role": READER, "sessionTags": [{"key": "a", "value": "bc"}], "transitiveTagKeys": ["a"]}),
            "canary-key",
            true,
        ),
        // By the hub, whose session is known already: one more.
        (cluster("a"), json!({"additionalRoles": [HUB], "role": READER}), "canary-key", true),
        (cluster("b"), json!({"additionalRoles": [HUB], "role": READER}), "canary-key", false),
    ];
    let mut open = Vec::new();
    for (number, (name, more, key, is_another)) in cases.into_iter().enumerate() {
        let before = amazon.logins().len();
        open.push(opened(&name, &amazon.spec(more.clone()), &holding(key), &settings));
        assert!(is_read(open.last().unwrap()).await);
        assert_eq!(amazon.logins().len() - before, usize::from(is_another), "line {number}: {name} {more}");
    }
    // Who comes when all are gone begins anew.
    drop(open);
    let before = amazon.logins().len();
    assert!(is_read(&opened(&cluster("a"), &amazon.spec(reader()), &holding("canary-key"), &settings)).await);
    assert_eq!(amazon.logins().len() - before, 1);
}

#[tokio::test]
async fn a_refused_login_is_not_repeated_at_once_and_an_outage_is() {
    for (answer, repeated) in [(refused(403, "AccessDenied", "canary"), 1), (refused(500, "InternalFailure", "canary"), 3)] {
        let amazon = Amazon::granting(move |_| answer.clone()).await;
        let store = amazon.reader();
        for reading in join_all((0..20).map(|_| read(&store))).await {
            unknown(reading, "asked together");
        }
        assert_eq!((amazon.logins().len(), amazon.looks().len()), (1, 0), "what failed failed for all that waited");
        for _ in 0..2 {
            unknown(read(&store).await, "asked again");
        }
        assert_eq!(amazon.logins().len(), repeated);
        forward(11).await;
        unknown(read(&store).await, "asked later");
        assert_eq!(amazon.logins().len(), repeated + 1);
    }
}

#[tokio::test]
async fn what_keeps_a_role_from_being_assumed_has_its_class_and_remedy() {
    let denied = (Class::Denied, Reason::AccessDenied);
    let unavailable = (Class::Unavailable, Reason::ProviderUnavailable);
    let cases = [
        (
            refused(403, "AccessDenied", "canary is not authorized to perform: sts:AssumeRole"),
            denied,
            "provider.aws.role: check that the role exists",
        ),
        (refused(403, "AccessDenied", "canary is not authorized to perform: sts:TagSession"), denied, "sts:TagSession"),
        (refused(400, "ValidationError", "canary"), (Class::Invalid, Reason::InvalidSpec), "correct the role"),
        (refused(400, "PackedPolicyTooLarge", "canary"), (Class::Invalid, Reason::InvalidSpec), "sessionTags"),
        (refused(403, "RegionDisabledException", "canary"), denied, "provider.aws.stsEndpoint"),
        (refused(403, "InvalidClientTokenId", "canary"), denied, "does not know the access key"),
        (refused(403, "SignatureDoesNotMatch", "canary"), denied, "secret access key"),
        (refused(403, "SignatureDoesNotMatch", "Signature expired: canary"), denied, "clock"),
        (refused(403, "ExpiredToken", "canary"), denied, "expired"),
        (refused(400, "Throttling", "canary"), (Class::Throttled { after: None }, Reason::Throttled), "fewer requests"),
        (refused(503, "ServiceUnavailable", "canary"), unavailable, "AWS failed (503)"),
        (http(307, ""), unavailable, "correct provider.aws.stsEndpoint"),
        (http(200, "<html>canary</html>"), unavailable, "check provider.aws.stsEndpoint"),
        (http(200, ""), unavailable, "check provider.aws.stsEndpoint"),
        (granted("can\nary", 60), unavailable, "check provider.aws.stsEndpoint"),
        (granted("", 60), unavailable, "check provider.aws.stsEndpoint"),
        (granted("late", -60), denied, "clock"),
        (http(403, "canary"), unavailable, "check provider.aws.stsEndpoint"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nx".to_vec(), unavailable, "AWS STS broke"),
    ];
    for (answer, (class, reason), words) in cases {
        let case = String::from_utf8_lossy(&answer).into_owned();
        let amazon = Amazon::granting(move |_| answer.clone()).await;
        let store = amazon.reader();
        let fault = unknown(read(&store).await, &case);
        assert_eq!((fault.class, fault.reason), (class, reason), "{case}: {fault}");
        assert!(fault.detail.contains(words), "{case}: {fault}");
        assert_eq!(fault, unknown(read(&store).await, &case), "{case}: the message changed between attempts");
        assert_eq!(store.check().await.map_err(|fault| fault.reason), Err(reason), "{case}: a check meets the same");
    }
}

#[tokio::test]
async fn a_refusal_names_the_field_of_the_role_that_was_refused() {
    let amazon = Amazon::granting(|asked| if asked.of("RoleArn") == HUB { refused(403, "AccessDenied", "") } else { named(asked) }).await;
    let spec = amazon.spec(json!({"additionalRoles": [READER, HUB], "role": READER}));
    let fault = unknown(read(&opened(&cluster("main"), &spec, &holding("canary-key"), &settings())).await, "the hub refuses");
    assert!(fault.detail.contains("provider.aws.additionalRoles[1]: check"), "{fault}");
}

#[tokio::test]
async fn keys_are_renewed_at_two_thirds_while_the_old_ones_serve() {
    let logins = Arc::new(AtomicU64::new(0));
    let amazon = Amazon::granting(move |_| granted(&format!("k{}", logins.fetch_add(1, Ordering::SeqCst) + 1), 90)).await;
    let store = amazon.reader();
    assert!(is_read(&store).await);
    forward(57).await;
    assert!(is_read(&store).await);
    assert_eq!(amazon.logins().len(), 1, "it is not due yet");
    forward(4).await;
    assert!(is_read(&store).await);
    assert_eq!(amazon.looks().last().unwrap().signer(), "k1", "nobody waits for a renewal");
    let mut looks = 0;
    while amazon.looks().last().unwrap().signer() == "k1" && looks < 1000 {
        assert!(is_read(&store).await);
        looks += 1;
    }
    assert_eq!((amazon.logins().len(), amazon.looks().last().unwrap().signer().as_str()), (2, "k2"));
}

#[tokio::test]
async fn keys_serve_while_they_are_valid_and_never_longer() {
    let is_down = Arc::new(AtomicU64::new(0));
    let down = is_down.clone();
    let amazon =
        Amazon::granting(move |_| if down.load(Ordering::SeqCst) == 0 { granted("k", 90) } else { refused(500, "InternalFailure", "") })
            .await;
    let store = amazon.reader();
    assert!(is_read(&store).await);
    is_down.store(1, Ordering::SeqCst);
    forward(61).await;
    let mut looks = 0;
    while amazon.logins().len() < 2 && looks < 1000 {
        assert!(is_read(&store).await);
        looks += 1;
    }
    for _ in 0..5 {
        assert!(is_read(&store).await, "a renewal that fails harms nobody yet");
    }
    assert_eq!(amazon.logins().len(), 2, "it is not tried again at every call");
    forward(30).await;
    assert_eq!(unknown(read(&store).await, "expired").class, Class::Unavailable);
    is_down.store(0, Ordering::SeqCst);
    assert!(is_read(&store).await);
}

/// Refuses every key but the newest; so many logins are the first that are refused.
async fn revoking(code: &'static str, dead: u64) -> Amazon {
    let logins = Arc::new(AtomicU64::new(0));
    Amazon::start(move |asked| {
        if !asked.form.is_empty() {
            return granted(&format!("k{}", logins.fetch_add(1, Ordering::SeqCst) + 1), 3600);
        }
        let number: u64 = asked.signer().trim_start_matches('k').parse().unwrap();
        if number > dead { found() } else { http(400, &json!({"__type": code, "message": "canary"}).to_string()) }
    })
    .await
}

#[tokio::test]
async fn keys_that_are_refused_are_replaced_once_for_all() {
    for code in ["ExpiredTokenException", "com.amazon.coral.service#UnrecognizedClientException", "InvalidClientTokenId"] {
        let amazon = revoking(code, 1).await;
        let store = amazon.reader();
        assert!(join_all((0..20).map(|_| is_read(&store))).await.iter().all(|is_read| *is_read), "{code}");
        assert_eq!(amazon.logins().len(), 2, "{code}");
        let last = amazon.looks().pop().unwrap();
        assert!(last.signer() == "k2" && last.head.contains("x-amz-security-token: canary-token-k2"), "{last:?}");
        assert_eq!(last.head.matches("x-amz-security-token").count(), 2, "once as header, once among the signed: {last:?}");
    }
}

#[tokio::test]
async fn keys_that_stay_refused_are_not_a_login_each() {
    let amazon = revoking("ExpiredTokenException", 1000).await;
    let store = amazon.reader();
    for _ in 0..20 {
        let fault = unknown(read(&store).await, "refused");
        assert_eq!((fault.class, fault.reason), (Class::Denied, Reason::AccessDenied));
    }
    assert_eq!(amazon.logins().len(), 2);
    forward(11).await;
    unknown(read(&store).await, "refused");
    assert_eq!(amazon.logins().len(), 3);
}

#[tokio::test]
async fn what_a_policy_refuses_is_no_reason_to_log_in_again() {
    let amazon = Amazon::start(|asked| {
        if asked.form.is_empty() {
            http(400, r#"{"__type":"AccessDeniedException","message":"canary ExpiredToken"}"#)
        } else {
            named(asked)
        }
    })
    .await;
    let store = amazon.reader();
    for _ in 0..3 {
        assert_eq!(unknown(read(&store).await, "denied").reason, Reason::AccessDenied);
    }
    assert_eq!((amazon.logins().len(), amazon.looks().len()), (1, 3));
}

#[tokio::test]
async fn an_intermediate_role_whose_keys_are_refused_is_assumed_again() {
    let hubs = Arc::new(AtomicU64::new(0));
    let amazon = Amazon::granting(move |asked| match (asked.of("RoleArn"), asked.signer().as_str()) {
        (HUB, _) => granted(&format!("hub{}", hubs.fetch_add(1, Ordering::SeqCst) + 1), 3600),
        (_, "hub1") => refused(403, "ExpiredToken", "canary"),
        _ => granted("reader", 3600),
    })
    .await;
    let spec = amazon.spec(json!({"additionalRoles": [HUB], "role": READER}));
    assert!(is_read(&opened(&cluster("main"), &spec, &holding("canary-key"), &settings())).await);
    let signers: Vec<String> = amazon.logins().iter().map(Asked::signer).collect();
    assert_eq!(signers, ["BASE", "hub1", "BASE", "hub2"]);
}

#[tokio::test]
async fn sts_of_a_tenant_leads_nowhere_else_than_its_store_may() {
    let amazon = Amazon::granting(named).await;
    let tenant = StoreName::Namespaced { namespace: "team".into(), name: "main".into() };
    let spec = AwsProvider { endpoint: None, ..amazon.spec(json!({"role": READER})) };
    let fault = open(&tenant, Provider::Aws(&spec), &holding("canary-key"), &settings()).err().unwrap();
    assert_eq!((fault.reason, fault.detail.contains("stsEndpoint")), (Reason::NotAllowed, true), "{fault}");
    for wrong in ["http://a/b", "ftp://a", "http://u:canary@a", "x"] {
        let spec = AwsProvider { sts_endpoint: Some(wrong.into()), ..spec.clone() };
        let fault = open(&cluster("main"), Provider::Aws(&spec), &holding("canary-key"), &settings()).err().unwrap();
        assert!(fault.reason == Reason::InvalidSpec && fault.detail.contains("provider.aws.stsEndpoint"), "{wrong}: {fault}");
        assert!(!fault.detail.contains("canary"), "{fault}");
    }
}

#[tokio::test]
async fn no_credential_is_shown_by_a_login() {
    let amazon = Amazon::granting(named).await;
    let (spec, credentials, settings) = (amazon.spec(json!({"role": READER, "externalID": "id"})), holding("canary-key"), settings());
    let login = Login::of(&cluster("main"), &spec, &credentials, &settings).unwrap();
    assert!(is_read(&opened(&cluster("main"), &spec, &credentials, &settings)).await);
    let bare = Login::of(&cluster("main"), &AwsProvider { role: None, ..spec }, &credentials, &settings).unwrap();
    let shown = format!("{login:?} {bare:?} {credentials:?} {settings:?}");
    assert!(shown.contains("reader") && !shown.contains("canary"), "{shown}");
}

/// An account whose tokens are numbered, with a role or without.
#[derive(Debug)]
struct Numbered {
    role: Option<&'static str>,
    fault: Option<Fault>,
    tokens: AtomicU64,
}

#[async_trait]
impl TokenSource for Numbered {
    async fn token(&self) -> Result<SecretValue, Fault> {
        if let Some(fault) = &self.fault {
            return Err(fault.clone());
        }
        Ok(SecretValue::from(format!("canary-jwt-{}", self.tokens.load(Ordering::SeqCst))))
    }

    async fn forget(&self) {
        self.tokens.fetch_add(1, Ordering::SeqCst);
    }

    async fn annotation(&self, name: &str) -> Result<Option<String>, Fault> {
        assert_eq!(name, "eks.amazonaws.com/role-arn");
        Ok(self.role.map(str::to_owned))
    }
}

fn account(role: Option<&'static str>) -> Credentials {
    Credentials { tokens: Some(Arc::new(Numbered { role, fault: None, tokens: AtomicU64::new(1) })), ..Credentials::default() }
}

fn web(name: &str, audiences: Value) -> Value {
    let mut account = json!({"name": name, "namespace": "team"});
    if !audiences.is_null() {
        account["audiences"] = audiences;
    }
    json!({"auth": {"jwt": {"serviceAccountRef": account}}})
}

#[tokio::test]
async fn a_service_account_logs_in_without_a_signature_and_roles_are_assumed_on_top() {
    let amazon = Amazon::granting(named).await;
    let mut more = web("reader", Value::Null);
    more["role"] = json!(READER);
    more["externalID"] = json!("shop");
    assert!(is_read(&opened(&cluster("main"), &amazon.spec(more), &account(Some(HUB)), &settings())).await);
    let logins = amazon.logins();
    let [by_token, by_hub] = logins.as_slice() else { unreachable!("{logins:?}") };
    let form = [
        ("Action", "AssumeRoleWithWebIdentity"),
        ("Version", "2011-06-15"),
        ("RoleArn", HUB),
        ("RoleSessionName", "keyferry-team-reader"),
        ("WebIdentityToken", "canary-jwt-1"),
        ("DurationSeconds", "3600"),
    ];
    assert_eq!(by_token.form, form.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
    assert!(!by_token.head.to_lowercase().contains("authorization"), "{}", by_token.head);
    assert_eq!((by_hub.signer().as_str(), by_hub.of("RoleSessionName"), by_hub.of("ExternalId")), ("hub", "keyferry-team-reader", "shop"));
    assert_eq!(amazon.looks()[0].signer(), "reader");
}

#[tokio::test]
async fn an_account_shares_its_session_with_nobody_but_itself() {
    let amazon = Amazon::granting(named).await;
    let settings = settings();
    let cases = [
        ("a", web("one", Value::Null), true),
        ("b", web("one", Value::Null), false),
        ("b", web("two", Value::Null), true),
        ("b", web("one", json!(["other"])), true),
    ];
    let mut open = Vec::new();
    for (store, more, is_another) in cases {
        let before = amazon.logins().len();
        open.push(opened(&cluster(store), &amazon.spec(more.clone()), &account(Some(HUB)), &settings));
        assert!(is_read(open.last().unwrap()).await);
        assert_eq!(amazon.logins().len() - before, usize::from(is_another), "{store} {more}");
    }
}

#[tokio::test]
async fn what_keeps_an_account_from_logging_in_has_its_class_and_remedy() {
    let denied = (Class::Denied, Reason::AccessDenied);
    let cases = [
        (refused(403, "AccessDenied", "canary"), denied, "sts:AssumeRoleWithWebIdentity"),
        (refused(400, "InvalidIdentityToken", "canary"), denied, "serviceAccountRef.audiences"),
        (refused(400, "IDPRejectedClaim", "canary"), denied, "OIDC provider"),
        (refused(400, "ExpiredTokenException", "canary"), denied, "token expired"),
        (refused(400, "IDPCommunicationError", "canary"), (Class::Unavailable, Reason::ProviderUnavailable), "issuer"),
        (refused(400, "ValidationError", "canary"), (Class::Invalid, Reason::InvalidSpec), "eks.amazonaws.com/role-arn"),
    ];
    for (answer, (class, reason), words) in cases {
        let case = String::from_utf8_lossy(&answer).into_owned();
        let amazon = Amazon::granting(move |_| answer.clone()).await;
        let store = opened(&cluster("main"), &amazon.spec(web("reader", Value::Null)), &account(Some(HUB)), &settings());
        let fault = unknown(read(&store).await, &case);
        assert_eq!((fault.class, fault.reason, fault.detail.contains(words)), (class, reason, true), "{case}: {fault}");
        forward(11).await;
        unknown(read(&store).await, &case);
        let tokens: Vec<String> = amazon.logins().iter().map(|login| login.of("WebIdentityToken").to_owned()).collect();
        assert_eq!(tokens, ["canary-jwt-1", "canary-jwt-2"], "{case}: a token that was refused is not sent again");
    }
}

#[tokio::test]
async fn without_a_token_or_a_role_of_the_account_nothing_is_sent() {
    let amazon = Amazon::granting(named).await;
    let refused = Fault::new(Class::Unavailable, Reason::StoreNotReady, "ServiceAccount team/reader does not allow it");
    let without_token = Numbered { role: Some(HUB), fault: Some(refused), tokens: AtomicU64::new(1) };
    let without_token = Credentials { tokens: Some(Arc::new(without_token)), ..Credentials::default() };
    let words = "ServiceAccount team/reader names no role: annotate it with eks.amazonaws.com/role-arn";
    for (credentials, words) in
        [(without_token, "ServiceAccount team/reader does not allow it"), (account(None), words), (account(Some("reader")), words)]
    {
        let store = opened(&cluster("main"), &amazon.spec(web("reader", Value::Null)), &credentials, &settings());
        let fault = unknown(read(&store).await, words);
        assert_eq!((fault.class, fault.reason), (Class::Unavailable, Reason::StoreNotReady));
        assert!(fault.detail.contains(words) && amazon.logins().is_empty(), "{fault}");
    }
}
