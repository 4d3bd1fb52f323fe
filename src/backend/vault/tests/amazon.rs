//! The login of an identity of AWS: what is signed, and what is no key.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use super::{
    FOUND, Server, http,
    logins::{block, credentials, granted, opened},
    read,
};
use crate::{
    access::Role,
    backend::{Settings, open},
    crd::v1alpha1::Provider,
    fault::Reason,
    item::Reading,
    name::StoreName,
};

fn auth(more: &Value) -> Value {
    let mut iam =
        json!({"vaultRole": "app", "secretRef": {"accessKeyIDSecretRef": {"name": "s"}, "secretAccessKeySecretRef": {"name": "s"}}});
    iam.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({ "iam": iam })
}

#[tokio::test]
async fn an_identity_of_aws_signs_a_call_that_says_who_made_it_and_for_which_server() {
    let key = [(Role::AccessKeyId, "AKID\n"), (Role::SecretAccessKey, "canary-key\n")];
    let elsewhere = json!({"path": "cloud/aws", "region": "cn-north-1", "vaultAwsIamServerID": "vault.example.com"});
    let cases = [
        (json!({}), "aws", "https://sts.us-east-1.amazonaws.com/", "us-east-1", None),
        (elsewhere, "cloud/aws", "https://sts.cn-north-1.amazonaws.com.cn/", "cn-north-1", Some("vault.example.com")),
    ];
    for (more, mount, url, region, server_id) in cases {
        let server = Server::start(|line| if line.starts_with("POST") { granted("hvs.canary", 60, true) } else { http(200, FOUND) }).await;
        let store = opened(&block(&server.url, &auth(&more)), &credentials(&key));
        assert!(matches!(read(store.as_ref(), "db", None).await, Reading::Found(_)));
        let login = server.heads().remove(0);
        let (head, sent) = login.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with(&format!("POST /v1/auth/{mount}/login HTTP/1.1\r\n")), "{head}");
        let sent: Value = serde_json::from_str(sent).unwrap();
        let decoded = |name: &str| String::from_utf8(BASE64_STANDARD.decode(sent[name].as_str().unwrap()).unwrap()).unwrap();
        assert_eq!((sent.as_object().unwrap().len(), &sent["role"], &sent["iam_http_request_method"]), (5, &json!("app"), &json!("POST")));
        assert_eq!(decoded("iam_request_url"), url);
        assert_eq!(decoded("iam_request_body"), "Action=GetCallerIdentity&Version=2011-06-15");
        let headers: Value = serde_json::from_str(&decoded("iam_request_headers")).unwrap();
        assert_eq!(headers["x-vault-aws-iam-server-id"][0].as_str(), server_id);
        let signature = headers["authorization"][0].as_str().unwrap();
        assert!(signature.contains("Credential=AKID/") && signature.contains(&format!("/{region}/sts/aws4_request")), "{signature}");
        assert_eq!(signature.contains("x-vault-aws-iam-server-id"), server_id.is_some(), "{signature}");
        assert!(!login.contains("canary-key"));
    }
}

#[test]
fn what_is_no_key_of_aws_is_not_ready_and_not_shown() {
    let name = StoreName::Cluster { name: "s".into() };
    let spec = block("http://127.0.0.1:1", &auth(&json!({})));
    for wrong in [vec![], vec![(Role::AccessKeyId, "AKID")], vec![(Role::AccessKeyId, "AKID"), (Role::SecretAccessKey, "canary key")]] {
        let fault = open(&name, Provider::Vault(&spec), &credentials(&wrong), &Settings::default()).err().unwrap();
        assert_eq!(fault.reason, Reason::StoreNotReady, "{fault}");
        assert!(fault.detail.contains("provider.vault.auth.iam.secretRef.") && !fault.detail.contains("canary"), "{fault}");
    }
}
