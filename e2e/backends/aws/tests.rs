//! The server itself: what it refuses, and that the vendor's client and models find nothing wrong with it, and find what is planted.

use std::collections::BTreeMap;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256};
use axum::routing::get;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use tokio_util::task::AbortOnDropHandle;

use super::admin::Answer;
use super::judge::{differences, findings, judge};
use super::*;
use crate::backends::moto::Moto;

const SECRETS: Service = Service::SecretsManager;
const ROLE: &str = "arn:aws:iam::123456789012:role/reader";

fn as_user(server: &AwsServer, user: &User) -> Admin {
    Admin::new(server.url(), user.key.clone())
}

async fn read(admin: &Admin, id: &str) -> Answer {
    admin.call(SECRETS, "GetSecretValue", &json!({ "SecretId": id })).await
}

async fn batch(admin: &Admin, ids: &[&str]) -> Answer {
    admin.call(SECRETS, "BatchGetSecretValue", &json!({ "SecretIdList": ids })).await
}

fn errors(answer: &Answer) -> BTreeMap<String, String> {
    let errors = answer.body["Errors"].as_array().expect("errors").iter();
    errors.map(|error| (error["SecretId"].as_str().unwrap().to_owned(), error["ErrorCode"].as_str().unwrap().to_owned())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_vendors_client_sees_in_our_server_what_it_sees_in_moto() {
    let (moto, aws) = (Moto::start().await, AwsServer::start());
    aws.role(ROLE, Role { trusts: vec!["*".to_owned()], ..Role::default() });
    let at = |url: &str, key: &Key| json!({ "url": url, "access_key": key.id, "secret_key": key.secret });
    let key = aws.user("judge").key;
    let different = differences(&json!({ "ours": at(aws.url(), &key), "moto": at(moto.url(), &key) }));
    assert!(different.is_empty(), "\n{}", different.join("\n"));
    // The rows go beyond limits on purpose: what is refused may be wrong, and nothing else.
    let taken = aws.taken();
    assert!(taken.len() > 200, "{}", taken.len());
    let wrong = findings(&aws.recorded(), &aws.keys());
    let was_refused = |line: &&String| {
        let number: usize = line.split(':').next().and_then(|number| number.parse().ok()).unwrap();
        taken[number].recorded.status == Some(400) && line.contains(": input")
    };
    let unexpected: Vec<&String> = wrong.iter().filter(|line| !was_refused(line)).collect();
    assert!(unexpected.is_empty(), "{unexpected:?}");
    assert!(!wrong.is_empty(), "what goes beyond a limit is found");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_judge_finds_what_is_planted_and_nothing_else() {
    let aws = AwsServer::start();
    aws.role(ROLE, Role { trusts: vec!["*".to_owned()], takes_tags: true, ..Role::default() });
    aws.put_secret("db", "one");
    let reader = aws.user("reader");
    let admin = as_user(&aws, &reader);
    read(&admin, "db").await.expect_success("db");
    assert_eq!(read(&admin, "none").await.status, 400);
    let role = json!({ "RoleArn": ROLE, "RoleSessionName": "judge", "Tags.member.1.Key": "team", "Tags.member.1.Value": "a" });
    assert_eq!(admin.call(Service::Sts, "AssumeRole", &role).await.status, 200);
    batch(&admin, &["db", "none"]).await.expect_success("a batch");
    let (good, keys) = (aws.recorded(), aws.keys());
    judge(&good, &keys);

    let text = |body: &Bytes| String::from_utf8(body.to_vec()).unwrap();
    let with_body = |number: usize, from: &str, to: &str| {
        let mut request = good[number].clone();
        let changed = text(&request.body).replace(from, to);
        assert_ne!(changed, text(&request.body), "{from}");
        request.body = Bytes::from(changed);
        request
    };
    let with_answer = |number: usize, from: &str, to: &str| {
        let mut request = good[number].clone();
        let before = text(request.answer.as_ref().unwrap());
        let changed = before.replace(from, to);
        assert_ne!(changed, before, "{from}");
        request.answer = Some(Bytes::from(changed));
        request
    };
    let with_header = |name: &'static str, value: &str| {
        let mut request = good[0].clone();
        request.headers.insert(name, value.parse().unwrap());
        request
    };
    let unsigned = {
        let mut request = good[0].clone();
        request.headers.remove("authorization");
        request
    };
    let ids: Vec<String> = (0..21).map(|number| format!("\"id-{number}\"")).collect();
    let planted = [
        (with_body(0, "db", "dc"), "its signature is not the one"),
        (with_body(0, "SecretId", "SecretName"), "input.SecretId is missing"),
        (with_body(0, "SecretId", "SecretName"), "input.SecretName is no member"),
        (with_body(0, "\"db\"", "\"\""), "input.SecretId has 0 characters, of at least 1"),
        (with_body(0, "\"db\"", "7"), "input.SecretId is no string"),
        (with_body(3, "\"db\",\"none\"", &ids.join(",")), "input.SecretIdList has 21 entries, of at most 20"),
        (with_body(2, "RoleSessionName=judge", "RoleSessionName=a+judge"), "input.RoleSessionName does not match its pattern"),
        (with_body(2, "Tags.member.1.Key=team&", ""), "input.Tags[0].Key is missing"),
        (with_body(2, "Tags.member.1.Key", "Tags.1.Key"), "Tags.1.Key is no member"),
        (with_body(2, "Version=2011-06-15", "Version=2011-06-16"), "its version is not that of the model"),
        (with_answer(0, "\"Name\"", "\"Nome\""), "output.Nome is no member"),
        (with_answer(0, "\"CreatedDate\":", "\"CreatedDate\":\"x\",\"X\":"), "output.CreatedDate is no number of seconds"),
        (with_answer(1, "ResourceNotFoundException", "NotFoundException"), "the error of its answer is none that the model knows"),
        (with_answer(2, "<Expiration>2", "<Expiration>x"), "output.Credentials.Expiration is no time"),
        (with_answer(2, "SessionToken>", "SessionTocken>"), "output.Credentials.SessionToken is missing"),
        (with_answer(3, "}", ""), "its answer cannot be parsed"),
        (with_header("x-amz-target", "secretsmanager.GetSecret"), "it is no operation of a known service"),
        (with_header("content-type", "application/json"), "its content type is not"),
        (with_header("x-amz-date", "20200101T000000Z"), "its scope is of another day"),
        (with_header("x-amz-security-token", "somebody's"), "its session token is not that of its access key"),
        (with_header("x-amz-more", "x"), "x-amz-more is not signed"),
        (unsigned, "it is not signed"),
    ];
    let requests: Vec<Recorded> = planted.iter().map(|(request, _)| request.clone()).collect();
    let found = findings(&requests, &keys);
    for (number, (_, wanted)) in planted.iter().enumerate() {
        let of_it: Vec<&String> = found.iter().filter(|line| line.starts_with(&format!("{number}: "))).collect();
        assert!(of_it.iter().any(|line| line.contains(wanted)), "{wanted}: {of_it:?}");
    }
    assert!(findings(&good[..1], &[]).iter().any(|line| line.contains("nobody has its access key")));
    let other = Key { secret: "another secret".to_owned(), ..reader.key };
    assert!(findings(&good[..1], &[other]).iter().any(|line| line.contains("its signature is not the one")));
}

#[tokio::test]
async fn a_batch_delivers_the_others_and_a_batch_that_fails_whole_names_nobody() {
    let aws = AwsServer::start();
    let reader = aws.user("reader");
    let admin = as_user(&aws, &reader);
    for name in ["a/one", "a/two", "a/marked", "b/denied"] {
        aws.put_secret(name, name);
    }
    aws.as_root(SECRETS, "CreateSecret", &json!({ "Name": "a/locked", "SecretString": "x", "KmsKeyId": "alias/own" }));
    aws.as_root(SECRETS, "DeleteSecret", &json!({ "SecretId": "a/marked", "RecoveryWindowInDays": 7 }));
    aws.break_key("alias/own", KeyState::Disabled);
    aws.deny(Denial::new(&reader.arn, "secretsmanager:GetSecretValue", "b/*"));
    let answer = batch(&admin, &["a/one", "a/marked", "b/denied", "b/none", "a/none", "a/locked", "a/two"]).await;
    let values = answer.body["SecretValues"].as_array().unwrap().iter().map(|value| value["SecretString"].as_str().unwrap());
    assert_eq!(values.collect::<Vec<_>>(), ["a/one", "a/two"]);
    let expected = [
        ("a/locked", "DecryptionFailure"),
        ("a/marked", "InvalidRequestException"),
        ("a/none", "ResourceNotFoundException"),
        ("b/denied", "AccessDeniedException"),
        // Whether there is something is not told to who may not know.
        ("b/none", "AccessDeniedException"),
    ];
    assert_eq!(errors(&answer), expected.iter().map(|(id, code)| ((*id).to_owned(), (*code).to_owned())).collect());

    assert_eq!(batch(&admin, &["a/one", "not a name"]).await.error(), "ValidationException");
    aws.deny(Denial::new("*", "secretsmanager:GetSecretValue", "b/whole").of_whole_batches());
    assert_eq!(batch(&admin, &["a/one", "b/whole"]).await.error(), "AccessDeniedException");
    aws.deny(Denial::new("*", "secretsmanager:BatchGetSecretValue", "*"));
    assert_eq!(batch(&admin, &["a/one"]).await.error(), "AccessDeniedException");
    assert_eq!(read(&admin, "a/one").await.status, 200, "single calls are another right");
    aws.allow_all();
    let told = aws.taken();
    assert!(told.iter().all(|taken| taken.caller.as_ref() == Some(&reader.arn) && taken.region == REGION));
    assert_eq!(errors(&batch(&admin, &["b/denied", "a/locked", "a/none"]).await).len(), 1);
    assert_eq!((aws.count("BatchGetSecretValue"), aws.count("GetSecretValue")), (5, 1));
    judge(&aws.recorded()[..1], &aws.keys());
}

#[tokio::test]
async fn one_parameter_that_may_not_be_read_fails_its_batch_and_a_path_is_one_right() {
    let aws = AwsServer::start();
    let reader = aws.user("reader");
    let admin = as_user(&aws, &reader);
    for number in 0..12 {
        aws.put_parameter(&format!("/a/{number:02}"), "String", "x");
    }
    aws.put_parameter("/a/b/secret", "SecureString", "plain text");
    let call = async |operation: &str, input: Value| admin.call(Service::Ssm, operation, &input).await;
    let sealed = call("GetParameter", json!({ "Name": "/a/b/secret" })).await.expect_success("sealed");
    assert!(!sealed.to_string().contains("plain text"));
    aws.deny(Denial::new(&reader.arn, "ssm:GetParameters", "/a/03"));
    let names = |names: &[&str]| json!({ "Names": names, "WithDecryption": true });
    assert_eq!(call("GetParameters", names(&["/a/02", "/a/03"])).await.error(), "AccessDeniedException");
    assert_eq!(call("GetParameters", names(&["/a/02", "/a/none"])).await.body["InvalidParameters"], json!(["/a/none"]));
    let below = call("GetParametersByPath", json!({ "Path": "/a", "Recursive": true })).await;
    assert_eq!(below.body["Parameters"].as_array().unwrap().len(), 10);
    let rest = call("GetParametersByPath", json!({ "Path": "/a", "Recursive": true, "NextToken": below.body["NextToken"] })).await;
    assert_eq!(rest.body["Parameters"].as_array().unwrap().len(), 3);
    assert_eq!(call("GetParametersByPath", json!({ "Path": "/a", "NextToken": "another" })).await.error(), "InvalidNextToken");
    aws.deny(Denial::new(&reader.arn, "ssm:GetParametersByPath", "/a"));
    assert_eq!(call("GetParametersByPath", json!({ "Path": "/a" })).await.error(), "AccessDeniedException");
    aws.break_key("alias/aws/ssm", KeyState::Disabled);
    assert_eq!(call("GetParameters", names(&["/a/02", "/a/b/secret"])).await.error(), "InvalidKeyId");
    aws.allow_all();
    aws.break_key("alias/aws/ssm", KeyState::Denied);
    assert_eq!(call("GetParameter", json!({ "Name": "/a/b/secret", "WithDecryption": true })).await.error(), "AccessDeniedException");
    judge(&aws.recorded(), &aws.keys());
}

#[tokio::test]
async fn a_request_is_believed_only_with_its_signature_its_time_and_its_session() {
    let aws = AwsServer::start();
    aws.put_secret("db", "one");
    let reader = aws.user("reader");
    let admin = as_user(&aws, &reader);
    assert_eq!(read(&admin, "db").await.status, 200);
    let with = |key: Key| Admin::new(aws.url(), key);
    let wrong = with(Key { secret: "wrong".to_owned(), ..reader.key.clone() });
    assert_eq!(read(&wrong, "db").await.error(), "InvalidSignatureException");
    assert_eq!(read(&with(Key::user("AKIANOBODYNOBODY", "x")), "db").await.error(), "UnrecognizedClientException");
    let unasked = with(Key { token: Some("x".to_owned()), ..reader.key.clone() });
    assert_eq!(read(&unasked, "db").await.error(), "UnrecognizedClientException");

    aws.set_clock_ahead(SignedDuration::from_mins(6));
    let late = read(&admin, "db").await;
    assert_eq!(late.error(), "InvalidSignatureException");
    assert!(late.text.contains("Signature expired"), "{}", late.text);
    aws.set_clock_ahead(SignedDuration::from_mins(-6));
    assert!(read(&admin, "db").await.text.contains("Signature not yet current"));
    aws.set_clock_ahead(SignedDuration::ZERO);

    aws.serve_only("us-east-1");
    assert_eq!(read(&admin, "db").await.error(), "InvalidSignatureException");
    assert_eq!(read(&admin.in_region("us-east-1"), "db").await.error(), "ResourceNotFoundException", "each region has its own");
    aws.serve_only(REGION);

    aws.plan("GetSecretValue", 1, Failure::new("ThrottlingException", "Rate exceeded").retry_after(20));
    aws.plan("*", 1, Failure::new("InternalServiceError", "").with_status(500));
    let throttled = read(&admin, "db").await;
    assert_eq!((throttled.error(), throttled.headers["retry-after"].to_str().unwrap()), ("ThrottlingException", "20"));
    assert_eq!(read(&admin, "db").await.status, 500);
    assert_eq!(read(&admin, "db").await.status, 200);
    aws.revoke(&reader.key.id);
    assert_eq!(read(&admin, "db").await.error(), "UnrecognizedClientException");
}

#[tokio::test]
async fn a_role_is_given_to_whom_it_trusts_with_its_external_id_and_for_its_time() {
    const INNER: &str = "arn:aws:iam::210987654321:role/inner";
    let aws = AwsServer::start();
    let reader = aws.user("reader");
    let admin = as_user(&aws, &reader);
    let role = Role { trusts: vec![reader.arn.clone()], external_id: Some("team-a".to_owned()), takes_tags: true, ..Role::default() };
    aws.role(ROLE, role);
    aws.role(
        INNER,
        Role { trusts: vec!["arn:aws:sts::123456789012:assumed-role/reader/*".to_owned()], takes_tags: true, ..Role::default() },
    );
    let assume = async |admin: &Admin, role: &str, more: Value| {
        let mut input = json!({ "RoleArn": role, "RoleSessionName": "keyferry" });
        input.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        admin.call(Service::Sts, "AssumeRole", &input).await
    };
    let code = |answer: &Answer| answer.element("Code").unwrap_or_default().to_owned();
    assert_eq!(code(&assume(&admin, ROLE, json!({})).await), "AccessDenied");
    assert_eq!(code(&assume(&admin, ROLE, json!({ "ExternalId": "team-b" })).await), "AccessDenied");
    assert_eq!(code(&assume(&admin, INNER, json!({})).await), "AccessDenied");
    assert_eq!(code(&assume(&admin, ROLE, json!({ "ExternalId": "team-a", "DurationSeconds": "7200" })).await), "ValidationError");
    assert_eq!(code(&assume(&admin, ROLE, json!({ "ExternalId": "team-a", "DurationSeconds": "899" })).await), "ValidationError");
    let tagged = json!({
        "ExternalId": "team-a", "DurationSeconds": "900", "Tags.member.1.Key": "team", "Tags.member.1.Value": "a",
        "Tags.member.2.Key": "tier", "Tags.member.2.Value": "1", "TransitiveTagKeys.member.1": "team",
    });
    let session = session_of(&assume(&admin, ROLE, tagged).await);
    let second = Admin::new(aws.url(), session);
    let conflict = json!({ "Tags.member.1.Key": "team", "Tags.member.1.Value": "b" });
    assert_eq!(code(&assume(&second, INNER, conflict).await), "InvalidParameterValue");
    let inner = Admin::new(aws.url(), session_of(&assume(&second, INNER, json!({})).await));
    let who = inner.call(Service::Sts, "GetCallerIdentity", &json!({})).await;
    assert_eq!(who.element("Arn"), Some("arn:aws:sts::210987654321:assumed-role/inner/keyferry"));

    let logins = aws.logins();
    assert_eq!((logins.len(), &logins[0].by, logins[0].external_id.as_deref(), logins[0].duration), (2, &reader.arn, Some("team-a"), 900));
    assert_eq!(logins[1].tags, BTreeMap::from([("team".to_owned(), "a".to_owned())]), "what is transitive goes on");
    assert_eq!(aws.count("AssumeRole"), 8);

    let arn = aws.as_root(SECRETS, "CreateSecret", &json!({ "Name": "shared", "SecretString": "x" }))["ARN"].as_str().unwrap().to_owned();
    assert_eq!(read(&inner, &arn).await.error(), "AccessDeniedException");
    aws.share("shared", "210987654321");
    assert_eq!(read(&inner, &arn).await.body["SecretString"], "x");
    assert_eq!(read(&inner, "shared").await.error(), "ResourceNotFoundException", "a name is one of the own account");
    aws.expire_sessions();
    assert_eq!(read(&inner, &arn).await.error(), "ExpiredTokenException");
    judge(&aws.recorded()[5..], &aws.keys());
}

fn session_of(answer: &Answer) -> Key {
    let part = |name: &str| answer.element(name).unwrap_or_else(|| panic!("{}", answer.text)).to_owned();
    Key { id: part("AccessKeyId"), secret: part("SecretAccessKey"), token: Some(part("SessionToken")) }
}

#[tokio::test]
async fn a_web_identity_is_checked_against_what_its_issuer_publishes() {
    const ISSUER: &str = "https://issuer.example";
    let aws = AwsServer::start();
    let (key, other) = (KeyPair::generate(KeySize::Rsa2048).unwrap(), KeyPair::generate(KeySize::Rsa2048).unwrap());
    let (origin, _server) = discovery(ISSUER, &key).await;
    let subject = "system:serviceaccount:team:app";
    aws.trust_issuer(Provider { issuer: ISSUER.to_owned(), origin, ca_pem: String::new() });
    aws.role(
        ROLE,
        Role { web_identities: vec![(ISSUER.to_owned(), "sts.amazonaws.com".to_owned(), subject.to_owned())], ..Role::default() },
    );
    let now = jiff::Timestamp::now().as_second();
    let claims = |issuer: &str, audience: &str, subject: &str, end: i64| json!({ "iss": issuer, "aud": [audience], "sub": subject, "exp": end, "iat": now });
    let (right, end) = ("sts.amazonaws.com", now + 600);
    let nobody = Admin::new(aws.url(), Key::user("AKIANOBODYNOBODY", "x"));
    let login = async |token: String| {
        let input = json!({ "RoleArn": ROLE, "RoleSessionName": "web", "WebIdentityToken": token });
        nobody.call(Service::Sts, "AssumeRoleWithWebIdentity", &input).await
    };
    let cases = [
        (signed(&key, &claims(ISSUER, "other", subject, end)), "InvalidIdentityToken"),
        (signed(&key, &claims("https://stranger.example", right, subject, end)), "InvalidIdentityToken"),
        (signed(&key, &claims(ISSUER, right, "system:serviceaccount:team:other", end)), "AccessDenied"),
        (signed(&key, &claims(ISSUER, right, subject, now - 1)), "ExpiredTokenException"),
        (signed(&other, &claims(ISSUER, right, subject, end)), "InvalidIdentityToken"),
        ("no token".to_owned(), "InvalidIdentityToken"),
    ];
    for (token, code) in cases {
        assert_eq!(login(token).await.element("Code"), Some(code));
    }
    let session = session_of(&login(signed(&key, &claims(ISSUER, right, subject, end))).await);
    aws.put_secret("db", "one");
    assert_eq!(read(&Admin::new(aws.url(), session), "db").await.body["SecretString"], "one");
    assert_eq!((aws.logins().len(), aws.logins()[0].by.as_str()), (1, subject));
    let unsigned: Vec<String> = findings(&aws.recorded(), &aws.keys());
    // The administrator of the tests signs also where nobody has to.
    assert!(unsigned.iter().all(|line| line.ends_with("nobody has its access key")), "{unsigned:?}");
}

/// Serves both documents of discovery.
async fn discovery(issuer: &str, key: &KeyPair) -> (String, AbortOnDropHandle<()>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    let document = json!({ "issuer": issuer, "jwks_uri": format!("{issuer}/keys") });
    let (n, e) = modulus_and_exponent(key.public_key().as_ref());
    let keys =
        json!({ "keys": [{ "kid": "one", "kty": "RSA", "alg": "RS256", "n": URL_SAFE_NO_PAD.encode(n), "e": URL_SAFE_NO_PAD.encode(e) }] });
    let router = axum::Router::new()
        .route("/.well-known/openid-configuration", get(async move || document.to_string()))
        .route("/keys", get(async move || keys.to_string()));
    let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (origin, AbortOnDropHandle::new(server))
}

/// Of a public key as RFC 8017 writes it.
fn modulus_and_exponent(der: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let (_, sequence) = element(der);
    let (rest, modulus) = element(sequence);
    let (_, exponent) = element(rest);
    (modulus.strip_prefix(&[0]).unwrap_or(modulus).to_vec(), exponent.to_vec())
}

/// What follows the first element, and what is in it.
fn element(der: &[u8]) -> (&[u8], &[u8]) {
    let (length, start) = match der[1] {
        short @ 0..=127 => (usize::from(short), 2),
        long => {
            let bytes = usize::from(long & 127);
            (der[2..2 + bytes].iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), 2 + bytes)
        }
    };
    (&der[start + length..], &der[start..start + length])
}

fn signed(key: &KeyPair, claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let text = format!("{}.{}", part(&json!({ "alg": "RS256", "kid": "one" })), part(claims));
    let mut signature = vec![0; key.public_modulus_len()];
    key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), text.as_bytes(), &mut signature).unwrap();
    format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
}

#[tokio::test]
async fn limits_hold_to_the_byte() {
    let aws = AwsServer::start();
    let admin = aws.admin();
    let code = async |service: Service, operation: &str, input: Value| admin.call(service, operation, &input).await.error().to_owned();
    let value = |bytes: usize| json!({ "Name": format!("s{bytes}"), "SecretString": "x".repeat(bytes) });
    assert_eq!(code(SECRETS, "CreateSecret", value(65_536)).await, "");
    assert_eq!(code(SECRETS, "CreateSecret", value(65_537)).await, "ValidationException");
    let wide = json!({ "Name": "wide", "SecretString": "ü".repeat(32_769) });
    assert_eq!(code(SECRETS, "CreateSecret", wide).await, "ValidationException", "bytes count, not letters");
    let binary = |bytes: usize| json!({ "Name": format!("b{bytes}"), "SecretBinary": STANDARD.encode(vec![0; bytes]) });
    assert_eq!(code(SECRETS, "CreateSecret", binary(65_536)).await, "");
    assert_eq!(code(SECRETS, "CreateSecret", binary(65_537)).await, "ValidationException");
    assert_eq!(code(SECRETS, "ListSecrets", json!({ "MaxResults": 100 })).await, "");
    assert_eq!(code(SECRETS, "ListSecrets", json!({ "MaxResults": 101 })).await, "ValidationException");
    let token = |length: usize| json!({ "SecretId": "s65536", "SecretString": "x", "ClientRequestToken": "t".repeat(length) });
    for (length, expected) in [(31, "ValidationException"), (32, ""), (64, ""), (65, "ValidationException")] {
        assert_eq!(code(SECRETS, "PutSecretValue", token(length)).await, expected, "{length}");
    }
    let names = |count: usize| json!({ "Names": (0..count).map(|number| format!("/n/{number}")).collect::<Vec<_>>() });
    assert_eq!(code(Service::Ssm, "GetParameters", names(10)).await, "");
    assert_eq!(code(Service::Ssm, "GetParameters", names(11)).await, "ValidationException");
    let ids = |count: usize| json!({ "SecretIdList": (0..count).map(|number| format!("n/{number}")).collect::<Vec<_>>() });
    assert_eq!(code(SECRETS, "BatchGetSecretValue", ids(20)).await, "");
    assert_eq!(code(SECRETS, "BatchGetSecretValue", ids(21)).await, "ValidationException");
}

#[tokio::test]
async fn a_rotation_leaves_the_current_version_until_it_ends() {
    let aws = AwsServer::start();
    let admin = aws.admin();
    aws.put_binary("db", b"0");
    aws.put_secret("db", "one");
    let rotate = async |function: &str| {
        let rules = json!({ "AutomaticallyAfterDays": 30 });
        admin.call(SECRETS, "RotateSecret", &json!({ "SecretId": "db", "RotationLambdaARN": function, "RotationRules": rules })).await
    };
    assert_eq!(rotate("arn:aws:lambda:eu-west-1:123456789012:function:unknown").await.error(), "AccessDeniedException");
    let function = aws.rotator("rotate");
    rotate(&function).await.expect_success("a rotation");
    assert_eq!(rotate(&function).await.error(), "InvalidRequestException", "one at a time");
    assert_eq!(read(&admin, "db").await.body["SecretString"], "one");
    aws.finish_rotation("db", "two");
    assert_eq!(read(&admin, "db").await.body["SecretString"], "two");
    let about = admin.call(SECRETS, "DescribeSecret", &json!({ "SecretId": "db" })).await.body;
    assert_eq!((&about["RotationEnabled"], &about["RotationRules"]["AutomaticallyAfterDays"]), (&json!(true), &json!(30)));
    judge(&aws.recorded(), &aws.keys());
}

#[tokio::test]
async fn answers_wait_for_the_latency_and_measurements_keep_nothing() {
    let aws = AwsServer::start();
    aws.put_secret("db", "one");
    aws.set_latency(Duration::from_millis(20));
    aws.keep_nothing();
    let admin = aws.admin();
    let began = std::time::Instant::now();
    assert_eq!(read(&admin, "db").await.status, 200);
    assert!(began.elapsed() >= Duration::from_millis(20));
    assert_eq!((aws.count("GetSecretValue"), aws.taken().len(), aws.connections()), (1, 0, 1));
    aws.forget();
    assert!(aws.counts().is_empty());
}
