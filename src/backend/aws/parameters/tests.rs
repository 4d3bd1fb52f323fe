//! Wire shapes of Parameter Store. What moto shows is in the contract suite; here is what AWS does and moto does not, and what no server
//! should.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    access::Role,
    backend::{Backend, Credentials, Expected, Settings, Written, open},
    crd::v1alpha1::Provider,
    fault::{Class, Fault, Reason},
    item::Reading,
    name::{ProviderKind, RemoteKey, RemoteRef, StoreName},
    secret::SecretValue,
};

const CANARY: &str = "canary-value";
const ARN: &str = "arn:aws:ssm:eu-west-1:210987654321:parameter/app/db";

/// A service that answers each call by its operation and what was asked, and then closes the connection.
struct Server {
    url: String,
    calls: Arc<Mutex<Vec<(String, Value)>>>,
    _task: AbortOnDropHandle<()>,
}

impl Server {
    async fn start(answer: impl Fn(&str, &Value) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (calls, answer) = (Arc::new(Mutex::new(Vec::new())), Arc::new(answer));
        let seen = calls.clone();
        let task = tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                tokio::spawn(serve(connection, seen.clone(), answer.clone()));
            }
        });
        Self { url, calls, _task: AbortOnDropHandle::new(task) }
    }

    async fn always(answer: Vec<u8>) -> Self {
        Self::start(move |_, _| answer.clone()).await
    }

    fn store(&self) -> Arc<dyn Backend> {
        let key = |key: &str| json!({"name": "aws", "key": key});
        let auth = json!({"secretRef": {"accessKeyIDSecretRef": key("id"), "secretAccessKeySecretRef": key("key")}});
        let spec = json!({"service": "ParameterStore", "region": "eu-central-1", "endpoint": self.url, "auth": auth});
        let spec = serde_json::from_value(spec).unwrap();
        let secret = |text: &str| SecretValue::from(text.to_owned());
        let secrets = BTreeMap::from([(Role::AccessKeyId, secret("AKIDEXAMPLE")), (Role::SecretAccessKey, secret("canary-key"))]);
        let settings = Settings { call_timeout: Duration::from_secs(20), ..Settings::default() };
        let name = StoreName::Cluster { name: "aws".into() };
        open(&name, Provider::Aws(&spec), &Credentials { secrets, tokens: None }, &settings).unwrap()
    }

    /// The operations so far, and what each asked for.
    fn calls(&self) -> Vec<String> {
        let asked = |asked: &Value| match asked {
            Value::Array(names) => names.iter().map(|name| name.as_str().unwrap()).collect::<Vec<_>>().join(" "),
            other => other.as_str().unwrap_or_default().to_owned(),
        };
        let names = |input: &Value| ["Names", "Name", "Path", "ResourceId"].map(|member| asked(&input[member])).concat();
        self.calls
            .lock()
            .unwrap()
            .drain(..)
            .map(|(operation, input)| format!("{operation} {}", names(&input)).trim_end().to_owned())
            .collect()
    }
}

async fn serve(mut connection: TcpStream, calls: Arc<Mutex<Vec<(String, Value)>>>, answer: Arc<impl Fn(&str, &Value) -> Vec<u8>>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = connection.read_u8().await else { return };
        head.push(byte);
    }
    let head = String::from_utf8(head).unwrap();
    let header = |name: &str| head.lines().find_map(|line| line.split_once(": ").filter(|(known, _)| known.eq_ignore_ascii_case(name)));
    let mut body = vec![0; header("content-length").unwrap().1.parse().unwrap()];
    connection.read_exact(&mut body).await.unwrap();
    let (input, operation): (Value, _) = (serde_json::from_slice(&body).unwrap(), header("x-amz-target").unwrap().1);
    let operation = operation.strip_prefix("AmazonSSM.").unwrap();
    let bytes = answer(operation, &input);
    calls.lock().unwrap().push((operation.to_owned(), input));
    let _ = connection.write_all(&bytes).await;
}

fn http(status: u16, body: &[u8]) -> Vec<u8> {
    let head = "content-type: application/x-amz-json-1.1\r\nconnection: close\r\n";
    let mut answer = format!("HTTP/1.1 {status} X\r\n{head}content-length: {}\r\n\r\n", body.len()).into_bytes();
    answer.extend_from_slice(body);
    answer
}

fn ok(body: &Value) -> Vec<u8> {
    http(200, body.to_string().as_bytes())
}

fn error(kind: &str, message: &str) -> Vec<u8> {
    http(400, json!({"__type": kind, "message": format!("{message} {CANARY}")}).to_string().as_bytes())
}

fn denied(operation: &str) -> Vec<u8> {
    error("AccessDeniedException", &format!("User: arn:aws:iam::1:user/x is not authorized to perform: ssm:{operation} on resource: y"))
}

fn parameter(name: &str, kind: &str, value: &str, version: u32) -> Value {
    let arn = format!("arn:aws:ssm:eu-central-1:123456789012:parameter/{}", name.trim_start_matches('/'));
    json!({"Name": name, "Type": kind, "Value": value, "Version": version, "ARN": arn, "DataType": "text"})
}

fn wanted(key: &str, version: Option<&str>) -> RemoteRef {
    let key = RemoteKey::parse(ProviderKind::AwsParameterStore, key).unwrap();
    RemoteRef { key, version: version.map(str::to_owned), is_metadata: false }
}

/// Value and version of what was found, reason and text of what was not.
async fn told(store: &dyn Backend, refs: &[RemoteRef]) -> Vec<String> {
    let readings = store.fetch(refs).await;
    assert_eq!(readings.len(), refs.len());
    readings.iter().map(tell).collect()
}

fn tell(reading: &Reading) -> String {
    match reading {
        Reading::Found(found) => {
            let text = String::from_utf8_lossy(found.value.expose()).into_owned();
            format!("{text} {}{}", found.version.as_deref().unwrap_or("-"), if found.is_secret { " secret" } else { "" })
        }
        Reading::Absent(fault) => format!("absent {}", shown(fault)),
        Reading::Unknown(fault) => format!("unknown {}", shown(fault)),
    }
}

/// A fault that shows nothing of a value, key or answer.
fn shown(fault: &Fault) -> String {
    let text = format!("{fault:?} {fault}");
    assert!(!text.contains("canary") && fault.detail.contains(": "), "{text}");
    fault.reason.to_string()
}

#[tokio::test]
async fn one_call_tells_each_of_ten_parameters_by_its_own_type_in_any_order() {
    let server = Server::start(|_, _| {
        let shared = json!({"Name": ARN, "ARN": ARN, "Type": "String", "Value": "theirs", "Version": 8});
        let parameters = [
            parameter("/app/list", "StringList", "a,b", 3),
            shared,
            parameter("/app/db", "SecureString", "ours", 2),
            parameter("/app/size", "String", "", 1),
            parameter("/app/kind", "NewString", "x", 4),
        ];
        ok(&json!({"Parameters": parameters, "InvalidParameters": ["/app/none", "/app/db:9"]}))
    })
    .await;
    let store = server.store();
    let refs = ["/app/size", "/app/none", "/app/db", "/app/list", ARN, "/app/size", "/app/kind", "/app/lost"].map(|key| wanted(key, None));
    let refs = [&refs[..], &[wanted("/app/db", Some("9")), wanted("/app/db", Some("0"))]].concat();
    let expected = [
        " 1",
        "absent NotFound",
        "ours 2 secret",
        "a,b 3",
        "theirs 8",
        " 1",
        "x 4 secret",
        "unknown ProviderUnavailable",
        "absent NotFound",
        "unknown InvalidSpec",
    ];
    assert_eq!(told(&*store, &refs).await, expected);
    let calls = server.calls();
    assert_eq!(calls.len(), 1, "{calls:?}");
    assert_eq!(calls[0].matches("/app/size").count(), 1, "what is asked twice is asked once: {calls:?}");
    assert!(store.fetch(&[]).await.is_empty() && server.calls().is_empty());
    assert_eq!(store.shares(&wanted(ARN, None)).as_deref(), Some("eu-west-1"));
    let own = "arn:aws:ssm:eu-central-1:123456789012:parameter/x";
    assert_eq!(store.shares(&wanted(own, None)), store.shares(&wanted("/app/db", Some("3"))));
}

/// `/app/db` in versions 1 to 3, the second of which has the label prod, as AWS or a server without selectors tells it.
fn versions(names: &[Value], has_selectors: bool) -> Vec<u8> {
    let found = names.iter().filter_map(|name| {
        let name = name.as_str().unwrap();
        let selector = name.strip_prefix("/app/db").or_else(|| name.split_once("parameter/app/db").map(|(_, rest)| rest)).unwrap();
        let number = match selector {
            "" => 3,
            ":prod" => 2,
            other => other[1..].parse().ok().filter(|number| (1..=3).contains(number))?,
        };
        let mut found = parameter("/app/db", "String", &format!("v{number}"), number);
        if has_selectors && !selector.is_empty() {
            found["Selector"] = selector.into();
        }
        Some((name, found))
    });
    let found: BTreeMap<_, _> = found.collect();
    let missing: Vec<_> = names.iter().filter(|name| !found.contains_key(name.as_str().unwrap())).collect();
    ok(&json!({"Parameters": found.values().collect::<Vec<_>>(), "InvalidParameters": missing}))
}

#[tokio::test]
async fn versions_labels_and_both_names_of_one_parameter_are_never_mixed_up() {
    let own = "arn:aws:ssm:eu-central-1:123456789012:parameter/app/db";
    let refs = [("/app/db", None), ("/app/db", Some("1")), ("/app/db", Some("prod")), ("/app/db", Some("2")), ("/app/db", Some("3"))];
    let refs: Vec<_> =
        refs.into_iter().chain([("/app/db", Some("7")), (own, Some("1"))]).map(|(key, version)| wanted(key, version)).collect();
    let expected = ["v3 3", "v1 1", "v2 2", "v2 2", "v3 3", "absent NotFound", "v1 1"];
    for (has_selectors, calls) in [(true, 3), (false, 8)] {
        let server = Server::start(move |_, input| versions(input["Names"].as_array().unwrap(), has_selectors)).await;
        assert_eq!(told(&*server.store(), &refs).await, expected, "{has_selectors}");
        let seen = server.calls();
        assert!(seen.len() <= calls, "{has_selectors}: {seen:?}");
    }
    let server = Server::start(|_, input| versions(input["Names"].as_array().unwrap(), true)).await;
    assert_eq!(told(&*server.store(), &refs[..6]).await, expected[..6]);
    assert_eq!(server.calls().len(), 1, "all versions of a parameter are told by one call");
}

#[tokio::test]
async fn a_word_that_is_no_version_is_refused_alone() {
    let server = Server::start(|_, _| ok(&json!({"Parameters": [parameter("/app/db", "String", "v", 1)]}))).await;
    let store = server.store();
    for version in ["0", "-1 ", "01", "+1", " 1", "", "9223372036854775808", "1a", "a:b", "a b", "a/b", &"x".repeat(101)] {
        let refs = [wanted("/app/db", Some(version)), wanted("/app/db", None)];
        assert_eq!(told(&*store, &refs).await, ["unknown InvalidSpec", "v 1"], "{version:?}");
        assert_eq!(told(&*store, &refs[..1]).await, ["unknown InvalidSpec"], "{version:?}");
        assert_eq!(server.calls(), ["GetParameters /app/db"], "{version:?}");
    }
}

#[tokio::test]
async fn a_call_that_is_refused_as_a_whole_says_the_same_of_each_and_of_one_what_it_is() {
    let cases = [
        (denied("GetParameters"), "unknown AccessDenied", "unknown AccessDenied"),
        (error("AccessDeniedException", "not authorized to perform kms:Decrypt"), "unknown AccessDenied", "unknown AccessDenied"),
        (error("InvalidKeyId", "arn:aws:kms:x is disabled."), "unknown InvalidSpec", "absent Disabled"),
        (error("ValidationException", "1 validation error detected"), "unknown InvalidSpec", "unknown InvalidSpec"),
    ];
    for (answer, of_several, of_one) in cases {
        let store = Server::always(answer).await;
        let (server, store) = (store.store(), store);
        let readings = server.fetch(&[wanted("/a", None), wanted("/b", None)]).await;
        let faults = readings.iter().map(|reading| match reading {
            Reading::Unknown(fault) if matches!(fault.class, Class::Denied | Class::Invalid) => fault.clone(),
            other => unreachable!("{other:?}"),
        });
        let faults: Vec<Fault> = faults.collect();
        assert_eq!(faults[0], faults[1], "halving goes by that");
        assert_eq!(tell(&readings[0]), of_several);
        assert_eq!(told(&*server, &[wanted("/a", None)]).await, [of_one], "{:?}", store.calls());
    }
}

#[tokio::test]
async fn each_fault_has_its_class() {
    let cases = [
        (error("ThrottlingException", "Rate exceeded"), "unknown Throttled"),
        (error("ExpiredTokenException", "expired"), "unknown AccessDenied"),
        (error("UnrecognizedClientException", "invalid"), "unknown AccessDenied"),
        (error("InvalidSignatureException", "Signature not yet current"), "unknown AccessDenied"),
        (error("InternalServerError", "x"), "unknown ProviderUnavailable"),
        (http(500, b"<html>canary</html>"), "unknown ProviderUnavailable"),
        (http(503, b""), "unknown ProviderUnavailable"),
        (http(404, b"<html>canary</html>"), "unknown ProviderUnavailable"),
        (http(200, b"<html>canary</html>"), "unknown ProviderUnavailable"),
        (http(200, b""), "unknown ProviderUnavailable"),
        (http(200, b"null"), "unknown ProviderUnavailable"),
        (http(200, b"{}"), "unknown ProviderUnavailable"),
        (http(200, br#"{"Parameters":[]}"#), "unknown ProviderUnavailable"),
        (http(200, br#"{"Parameters":[{"Name":"/a","Type":"String","Version":1}]}"#), "unknown ProviderUnavailable"),
        (http(200, br#"{"Parameters":[{"Name":"/a","Value":"canary","Version":1}]}"#), "unknown ProviderUnavailable"),
        (http(200, br#"{"Parameters":[{"Name":"/b","Type":"String","Value":"canary","Version":1}]}"#), "unknown ProviderUnavailable"),
        (
            http(200, br#"{"Parameters":[{"Name":"/a","Type":"String","Value":"canary","Version":1,"Selector":":9"}]}"#),
            "unknown ProviderUnavailable",
        ),
        (http(200, br#"{"Parameters":[{"Name":"/a","Type":"String","Value":{"canary":1}}]}"#), "unknown ProviderUnavailable"),
        (http(200, br#"{"Parameters":[{"Name":"/a","Type":"String","Value":"canary"#), "unknown ProviderUnavailable"),
        (
            http(
                200,
                br#"{"Parameters":[{"Name":"/a","Type":"String","Value":"canary1"},{"Name":"/a","Type":"String","Value":"canary2"}]}"#,
            ),
            "unknown ProviderUnavailable",
        ),
        (http(200, &vec![b' '; 9 << 20]), "unknown TooLarge"),
        (http(200, "[".repeat(100_000).as_bytes()), "unknown ProviderUnavailable"),
        (http(200, br#"{"Parameters":[{"Name":"/a","Type":"String","Value":"v","Version":0}]}"#), "v -"),
    ];
    for (answer, expected) in cases {
        let what = String::from_utf8_lossy(&answer[..answer.len().min(400)]).into_owned();
        let server = Server::always(answer).await;
        let (store, refs) = (server.store(), [wanted("/a", None), wanted("/c", None)]);
        assert_eq!(told(&*store, &refs[..1]).await, [expected], "{what}");
        let readings = store.fetch(&refs).await;
        assert!(!matches!(readings[1], Reading::Found(_) | Reading::Absent(_)), "{what}: {readings:?}");
        let _shown: Vec<String> = readings.iter().map(tell).collect();
    }
}

#[tokio::test]
async fn where_several_may_not_be_read_at_once_each_is_read_alone_for_ten_minutes() {
    let is_granted = Arc::new(Mutex::new(false));
    let grant = is_granted.clone();
    let server = Server::start(move |operation, input| {
        let one = |name: &str| parameter(name, "String", "v", 1);
        match (operation, *grant.lock().unwrap()) {
            ("GetParameter", _) if input["Name"] == "/secret" => denied(operation),
            ("GetParameter", _) if input["Name"] == "/none" => error("ParameterNotFound", ""),
            ("GetParameter", _) if input["Name"] == "/a:9" => error("ParameterVersionNotFound", ""),
            ("GetParameter", _) => ok(&json!({"Parameter": one(input["Name"].as_str().unwrap())})),
            ("GetParameters", true) => ok(&json!({"Parameters": [one("/a"), one("/b")]})),
            _ => denied(operation),
        }
    })
    .await;
    let store = server.store();
    assert_eq!(told(&*store, &[wanted("/secret", None)]).await, ["unknown AccessDenied"]);
    assert_eq!(store.batch_size(), 10, "that one may not be read says nothing of the others");
    server.calls();
    assert_eq!(told(&*store, &[wanted("/a", None)]).await, ["v 1"]);
    assert_eq!((server.calls(), store.batch_size()), (vec!["GetParameters /a".to_owned(), "GetParameter /a".to_owned()], 1));
    let refs = [wanted("/a", None), wanted("/b", None)];
    assert_eq!(told(&*store, &refs).await, ["v 1", "v 1"]);
    assert_eq!(server.calls().len(), 2);
    let alone = [wanted("/none", None), wanted("/a", Some("9"))];
    assert_eq!(told(&*store, &alone).await, ["absent NotFound"; 2]);
    assert_eq!(server.calls().len(), 2);

    *is_granted.lock().unwrap() = true;
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(599)).await;
    assert_eq!(store.batch_size(), 1);
    tokio::time::advance(Duration::from_secs(1)).await;
    tokio::time::resume();
    assert_eq!(store.batch_size(), 10);
    assert_eq!(told(&*store, &refs).await, ["v 1", "v 1"]);
    assert_eq!(server.calls(), ["GetParameters /a /b"]);
}

/// What each operation is answered.
type Answers = fn(&str) -> Vec<u8>;

#[tokio::test]
async fn a_check_finds_out_whether_several_may_be_read_at_once() {
    let cases: [(Answers, Result<usize, Reason>); 5] = [
        (|_| ok(&json!({"InvalidParameters": ["x"]})), Ok(10)),
        (|operation| denied(operation), Ok(10)),
        (|operation| if operation == "GetParameter" { error("ParameterNotFound", "") } else { denied(operation) }, Ok(1)),
        (|_| error("UnrecognizedClientException", "x"), Err(Reason::AccessDenied)),
        (|_| http(500, b""), Err(Reason::ProviderUnavailable)),
    ];
    for (answer, expected) in cases {
        let server = Server::start(move |operation, _| answer(operation)).await;
        let store = server.store();
        let checked = store.check().await.map(|traits| (store.batch_size(), traits.has_versions));
        assert_eq!(checked.map_err(|fault| (shown(&fault), fault.reason).1), expected.map(|size| (size, true)));
    }
}

#[tokio::test]
async fn tags_are_read_beside_a_value_by_its_name() {
    let server = Server::start(|_, input| match input["ResourceId"].as_str().unwrap() {
        "/app/db" => ok(&json!({"TagList": [{"Key": "team", "Value": "a \"b\""}, {"Key": "empty", "Value": ""}]})),
        "/app/bare" => ok(&json!({"TagList": []})),
        "/app/other" => ok(&json!({})),
        _ => error("InvalidResourceId", "x"),
    })
    .await;
    let store = server.store();
    for (key, expected) in [
        ("/app/db", r#"{"empty":"","team":"a \"b\""} -"#),
        ("/app/bare", "{} -"),
        ("/none", "absent NotFound"),
        ("/app/other", "unknown ProviderUnavailable"),
        (ARN, "unknown InvalidSpec"),
    ] {
        let beside = RemoteRef { is_metadata: true, ..wanted(key, None) };
        assert_eq!(store.shares(&beside), None);
        assert_eq!(told(&*store, &[beside]).await, [expected], "{key}");
    }
    assert_eq!(server.calls().len(), 4);
}

/// What each page is.
type Pages = fn(usize) -> Vec<u8>;

/// The page that was asked for; the first is 0.
fn page(input: &Value) -> usize {
    input["NextToken"].as_str().map_or(0, |token| token.parse().unwrap())
}

#[tokio::test]
async fn a_list_is_complete_or_a_fault() {
    let server = Server::start(|operation, input| {
        assert_eq!((operation, &input["MaxResults"]), ("DescribeParameters", &json!(50)));
        match page(input) {
            0 => ok(&json!({"Parameters": [{"Name": "/b"}, {"Name": "/a"}], "NextToken": "1"})),
            1 => ok(&json!({"Parameters": [], "NextToken": "2"})),
            _ => ok(&json!({"Parameters": [{"Name": "/c"}, {"Name": "/a"}]})),
        }
    })
    .await;
    let store = server.store();
    let names = store.lister().unwrap().list(None).await.unwrap();
    assert_eq!(names.iter().map(RemoteKey::as_str).collect::<Vec<_>>(), ["/a", "/b", "/c"]);
    let broken: [(Pages, Reason); 7] = [
        (
            |page| if page < 2 { ok(&json!({"Parameters": [], "NextToken": format!("{}", page + 1)})) } else { http(500, b"") },
            Reason::ProviderUnavailable,
        ),
        (
            |page| if page < 1 { ok(&json!({"Parameters": [], "NextToken": "1"})) } else { error("ThrottlingException", "") },
            Reason::Throttled,
        ),
        (|_| denied("DescribeParameters"), Reason::AccessDenied),
        (|_| ok(&json!({})), Reason::ProviderUnavailable),
        (|_| ok(&json!({"Parameters": [{"Type": "String"}]})), Reason::ProviderUnavailable),
        (|_| ok(&json!({"Parameters": [{"Name": "/a:b"}]})), Reason::ProviderUnavailable),
        (|_| http(200, b"<html>canary</html>"), Reason::ProviderUnavailable),
    ];
    for (answer, reason) in broken {
        let server = Server::start(move |_, input| answer(page(input))).await;
        let fault = server.store().lister().unwrap().list(None).await.unwrap_err();
        assert_eq!((shown(&fault), fault.reason).1, reason);
    }
    let fault = store.lister().unwrap().list(Some("app")).await.unwrap_err();
    assert!(fault.reason == Reason::InvalidSpec && fault.detail.contains("\"/app\""), "{fault}");
}

#[tokio::test]
async fn what_is_written_is_what_was_expected_and_what_fits() {
    let server = Server::start(|operation, input| match (operation, &input["Name"], &input["Overwrite"]) {
        ("PutParameter", _, Value::Bool(false)) if input["Name"] == "/new" => {
            assert_eq!((&input["Type"], &input["Tier"]), (&json!("SecureString"), &json!("Intelligent-Tiering")));
            ok(&json!({"Version": 1}))
        }
        ("PutParameter", _, Value::Bool(false)) => error("ParameterAlreadyExists", ""),
        ("PutParameter", _, _) => {
            assert_eq!(input["Type"], Value::Null, "a parameter keeps its type");
            ok(&json!({"Version": 4}))
        }
        ("GetParameters", ..) => ok(&json!({"Parameters": [parameter("/old", "SecureString", r#"{"a":1,"b":2}"#, 3)]})),
        ("DeleteParameter", name, _) if *name == "/old" => ok(&json!({})),
        _ => error("ParameterNotFound", ""),
    })
    .await;
    let store = server.store();
    let writer = store.writer().unwrap();
    let key = |key: &str| wanted(key, None).key;
    let value = |text: &str| SecretValue::from(text.to_owned());
    let version = |version: &str| Expected::Version(version.to_owned());
    let cases = [
        ("/new", Expected::Nothing, Ok(Written::Version("1".into())), 1),
        ("/old", Expected::Nothing, Ok(Written::Changed), 1),
        ("/old", Expected::Anything, Ok(Written::Version("4".into())), 2),
        ("/old", version("3"), Ok(Written::Version("4".into())), 2),
        ("/old", version("2"), Ok(Written::Changed), 1),
        ("/old", version("latest"), Err(Reason::InvalidSpec), 0),
    ];
    for (name, expected, outcome, calls) in cases {
        let written = writer.put(&key(name), &value(CANARY), &expected).await.map_err(|fault| (shown(&fault), fault.reason).1);
        assert_eq!((written, server.calls().len()), (outcome, calls), "{name} {expected:?}");
    }
    let most = "x".repeat(8_192);
    assert!(writer.put(&key("/new"), &value(&most), &Expected::Nothing).await.is_ok());
    for unfit in [value(""), value(&format!("{most}x")), SecretValue::new(vec![0xff])] {
        let fault = writer.put(&key("/new"), &unfit, &Expected::Nothing).await.unwrap_err();
        assert_eq!((shown(&fault), fault.reason).1, Reason::InvalidData);
    }
    server.calls();
    assert_eq!(writer.patch(&key("/old"), &value(r#"{"b":null,"c":3}"#), &version("3")).await, Ok(Written::Version("4".into())));
    let put = server.calls.lock().unwrap().last().unwrap().1["Value"].clone();
    assert_eq!(put, r#"{"a":1,"c":3}"#);
    let fault = writer.patch(&key("/old"), &value("canary"), &Expected::Anything).await.unwrap_err();
    assert_eq!((shown(&fault), fault.reason).1, Reason::InvalidData);
    assert_eq!((writer.delete(&key("/old")).await, writer.delete(&key("/gone")).await), (Ok(()), Ok(())));
    let fault = writer.undelete(&key("/old"), "1").await.unwrap_err();
    assert_eq!((shown(&fault), fault.reason).1, Reason::InvalidSpec);
}

#[tokio::test]
async fn a_search_asks_by_path_and_tags_and_takes_values_with_names_where_it_may() {
    let may = Arc::new(Mutex::new(true));
    let granted = may.clone();
    let server = Server::start(move |operation, input| match operation {
        "GetParametersByPath" if !*granted.lock().unwrap() => denied(operation),
        "GetParametersByPath" => {
            assert_eq!((&input["Recursive"], &input["WithDecryption"], &input["MaxResults"]), (&json!(true), &json!(true), &json!(10)));
            match page(input) {
                0 => ok(&json!({"Parameters": [parameter("/app/b", "SecureString", "b", 2)], "NextToken": "1"})),
                _ => ok(&json!({"Parameters": [parameter("/app/a", "String", "a", 1)]})),
            }
        }
        _ => {
            let filters = json!([
                {"Key": "Path", "Option": "Recursive", "Values": ["/app"]},
                {"Key": "tag:team", "Option": "Equals", "Values": ["shop"]}
            ]);
            assert_eq!(input["ParameterFilters"], filters);
            ok(&json!({"Parameters": [{"Name": "/app/b"}]}))
        }
    })
    .await;
    let store = server.store();
    let lister = store.lister().unwrap();
    assert!(lister.gives_values(Some("/app")) && !lister.gives_values(None));
    let values = lister.list_values(Some("/app/")).await.unwrap().unwrap();
    let values: Vec<_> = values.into_iter().map(|(name, fetched)| format!("{name} {}", tell(&Reading::Found(fetched)))).collect();
    assert_eq!(values, ["/app/a a 1", "/app/b b 2 secret"]);
    assert_eq!(server.calls(), ["GetParametersByPath /app"; 2]);
    let tags = BTreeMap::from([("team".to_owned(), "shop".to_owned())]);
    assert_eq!(lister.list_tagged(Some("/app"), &tags).await.unwrap().len(), 1);
    *may.lock().unwrap() = false;
    assert!(lister.list_values(Some("/app")).await.unwrap().is_none());
    assert!(!lister.gives_values(Some("/app")), "not tried again at once");

    let server =
        Server::start(|_, input| if page(input) < 1 { ok(&json!({"Parameters": [], "NextToken": "1"})) } else { http(503, b"") }).await;
    let fault = server.store().lister().unwrap().list_values(Some("/app")).await.unwrap_err();
    assert_eq!((shown(&fault), fault.reason).1, Reason::ProviderUnavailable);
}
