//! The login of a Google service account: what is signed, and what is no key.

use aws_lc_rs::{
    encoding::AsDer,
    rsa::{KeyPair, KeySize},
    signature::{KeyPair as _, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey},
};
use base64::{
    Engine as _,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use serde_json::{Value, json};

use super::{
    FOUND, Server, http,
    logins::{block, credentials, granted, opened},
    read, unknown,
};
use crate::{
    access::Role,
    backend::{Settings, open, vault::session::Session},
    crd::v1alpha1::Provider,
    fault::{Class, Reason},
    item::Reading,
    name::StoreName,
};

/// A key of a Google service account, and the file that Google would give out for it.
fn google_key() -> (KeyPair, Value) {
    let pair = KeyPair::generate(KeySize::Rsa2048).unwrap();
    let der = AsDer::<aws_lc_rs::encoding::Pkcs8V1Der<'_>>::as_der(&pair).unwrap();
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", BASE64_STANDARD.encode(der.as_ref()));
    let file = json!({
        "type": "service_account", "project_id": "p", "private_key_id": "k1", "private_key": pem,
        "client_email": "shop@p.iam.gserviceaccount.com", "token_uri": "https://oauth2.googleapis.com/token",
    });
    (pair, file)
}

fn google_auth() -> Value {
    json!({"gcp": {"role": "app", "secretRef": {"secretAccessKeySecretRef": {"name": "s"}}}})
}

#[tokio::test]
async fn a_google_account_says_who_it_is_and_for_which_role_and_signs_that() {
    let (pair, file) = google_key();
    let secrets = credentials(&[(Role::GoogleKey, &format!("{file}\n"))]);
    for (mount, path) in [(None, "auth/gcp/login"), (Some("google/eu"), "auth/google/eu/login")] {
        let server = Server::start(|line| if line.starts_with("POST") { granted("hvs.canary", 60, true) } else { http(200, FOUND) }).await;
        let mut auth = google_auth();
        auth["gcp"]["path"] = json!(mount);
        let before = jiff::Timestamp::now().as_second();
        assert!(matches!(read(opened(&block(&server.url, &auth), &secrets).as_ref(), "db", None).await, Reading::Found(_)));
        let after = jiff::Timestamp::now().as_second();
        let login = server.heads().remove(0);
        let (head, sent) = login.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with(&format!("POST /v1/{path} HTTP/1.1\r\n")), "{head}");
        let sent: Value = serde_json::from_str(sent).unwrap();
        assert_eq!((sent.as_object().unwrap().len(), &sent["role"]), (2, &json!("app")));
        let (signed, signature) = sent["jwt"].as_str().unwrap().rsplit_once('.').unwrap();
        let [header, claims] =
            signed.split('.').map(|part| BASE64_URL_SAFE_NO_PAD.decode(part).unwrap()).collect::<Vec<_>>().try_into().unwrap();
        let [header, claims] = [header, claims].map(|part| serde_json::from_slice::<Value>(&part).unwrap());
        assert_eq!(header, json!({"alg": "RS256", "kid": "k1", "typ": "JWT"}));
        let issued = claims["iat"].as_i64().unwrap();
        assert!((before..=after).contains(&issued), "{claims}");
        let expected = json!({"aud": "vault/app", "sub": "shop@p.iam.gserviceaccount.com", "iat": issued, "exp": issued + 600});
        assert_eq!(claims, expected);
        let key = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, pair.public_key().as_ref());
        key.verify(signed.as_bytes(), &BASE64_URL_SAFE_NO_PAD.decode(signature).unwrap()).unwrap();
    }
}

#[test]
fn what_is_no_key_of_a_service_account_is_not_ready_and_not_shown() {
    let (_, file) = google_key();
    let with = |field: &str, value: Value| {
        let mut file = file.clone();
        file[field] = value;
        file.to_string()
    };
    let cases = [
        String::new(),
        "canary".to_owned(),
        "{}".to_owned(),
        with("type", json!("authorized_user")),
        with("client_email", json!("")),
        with("private_key_id", json!("")),
        with("private_key_id", Value::Null),
        with("private_key", json!("canary")),
        with("private_key", json!("-----BEGIN PRIVATE KEY-----\nY2FuYXJ5\n-----END PRIVATE KEY-----\n")),
        with("private_key", json!("-----BEGIN RSA PRIVATE KEY-----\nY2FuYXJ5\n-----END RSA PRIVATE KEY-----\n")),
    ];
    let name = StoreName::Cluster { name: "vault".into() };
    for text in cases {
        let secrets = credentials(&[(Role::GoogleKey, &text)]);
        let fault = open(&name, Provider::Vault(&block("https://vault", &google_auth())), &secrets, &Settings::default()).err().unwrap();
        assert_eq!((fault.class, fault.reason), (Class::Unavailable, Reason::StoreNotReady), "{text}");
        assert!(fault.detail.contains("gcp.secretRef.secretAccessKeySecretRef") && !fault.detail.contains("canary"), "{fault}");
    }
}

#[tokio::test]
async fn a_google_account_that_is_refused_is_told_what_to_check() {
    let server = Server::start(|_| http(400, r#"{"errors":["canary"]}"#)).await;
    let secrets = credentials(&[(Role::GoogleKey, &google_key().1.to_string())]);
    let fault = unknown(read(opened(&block(&server.url, &google_auth()), &secrets).as_ref(), "db", None).await, "refused");
    assert!(fault.reason == Reason::AccessDenied && fault.detail.contains("provider.vault.auth.gcp"), "{fault}");
    assert!(fault.detail.contains("service account") && fault.detail.contains("clock"), "{fault}");
}

#[test]
fn no_part_of_a_key_is_shown_by_a_session() {
    let (_, file) = google_key();
    let secrets = credentials(&[(Role::GoogleKey, &file.to_string())]);
    let name = StoreName::Cluster { name: "vault".into() };
    let session = Session::open(&name, &block("http://vault", &google_auth()), &secrets, &Settings::default()).unwrap();
    let line = file["private_key"].as_str().unwrap().lines().nth(1).unwrap();
    let shown = format!("{session:?} {secrets:?}");
    assert!(shown.contains("shop@p.iam") && !shown.contains(&line[..20]), "{shown}");
}
