//! The administrator of an AWS in the tests: any call, signed, and the few that most tests make. It speaks to moto and to our own server
//! alike.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderValue};
use reqwest::{Certificate, Client};
use serde_json::{Value, json};
use url::form_urlencoded;

use super::signature::{Claim, Key, Scope, Signed, signature};

/// Where tests live unless they say otherwise.
pub const REGION: &str = "eu-west-1";

/// The services of which tests speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Service {
    SecretsManager,
    /// Systems Manager, of which Parameter Store is a part.
    Ssm,
    Sts,
}

impl Service {
    /// As a signature names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::SecretsManager => "secretsmanager",
            Self::Ssm => "ssm",
            Self::Sts => "sts",
        }
    }

    /// What stands before the dot of `X-Amz-Target`; none for the service of forms.
    pub fn target(self) -> Option<&'static str> {
        match self {
            Self::SecretsManager => Some("secretsmanager"),
            Self::Ssm => Some("AmazonSSM"),
            Self::Sts => None,
        }
    }
}

/// What a server answered, whatever it was.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    /// Null where the text is no JSON, as with STS.
    pub body: Value,
    pub text: String,
}

impl Answer {
    /// The last part of `__type`; empty where there is none.
    pub fn error(&self) -> &str {
        let kind = self.body["__type"].as_str().unwrap_or_default();
        kind.rsplit('#').next().unwrap_or_default()
    }

    /// # Panics
    /// When it is an error.
    pub fn expect_success(self, what: &str) -> Value {
        assert!((200..300).contains(&self.status), "{what}: {} {}", self.status, self.text);
        self.body
    }

    /// What stands in the first element of an XML answer that has this name.
    pub fn element(&self, name: &str) -> Option<&str> {
        let (_, rest) = self.text.split_once(&format!("<{name}>"))?;
        rest.split_once(&format!("</{name}>")).map(|(inside, _)| inside)
    }
}

/// One identity in one region, at one address.
#[derive(Clone)]
pub struct Admin {
    url: String,
    key: Key,
    region: String,
    client: Client,
}

impl Admin {
    /// `url` is `http://…`.
    pub fn new(url: &str, key: Key) -> Self {
        Self { url: url.to_owned(), key, region: REGION.to_owned(), client: builder().build().expect("a client") }
    }

    /// The same through a server that this authority vouches for: a fault proxy.
    pub fn through(&self, url: &str, ca_pem: &str) -> Self {
        let ca = Certificate::from_pem(ca_pem.as_bytes()).expect("a PEM");
        Self { url: url.to_owned(), client: builder().tls_certs_only([ca]).build().expect("a client"), ..self.clone() }
    }

    /// The same in another region.
    pub fn in_region(&self, region: &str) -> Self {
        Self { region: region.to_owned(), ..self.clone() }
    }

    /// Any call; an `STS` operation takes its parameters from an object of texts.
    pub async fn call(&self, service: Service, operation: &str, input: &Value) -> Answer {
        self.try_call(service, operation, input).await.expect("AWS answers")
    }

    /// The same where there may be no answer.
    pub async fn try_call(&self, service: Service, operation: &str, input: &Value) -> reqwest::Result<Answer> {
        let (headers, body) = message(service, operation, input);
        let headers = self.signed(service, headers, &body);
        let answer = self.client.post(&self.url).headers(headers).body(body).send().await?;
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        let text = answer.text().await?;
        let body = serde_json::from_str(&text).unwrap_or(Value::Null);
        Ok(Answer { status, headers, body, text })
    }

    fn signed(&self, service: Service, mut headers: HeaderMap, body: &[u8]) -> HeaderMap {
        let host = self.url.split_once("://").expect("a URL").1.trim_end_matches('/');
        let time = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
        headers.insert(HOST, value(host));
        headers.insert("x-amz-date", value(&time));
        if let Some(token) = &self.key.token {
            headers.insert("x-amz-security-token", value(token));
        }
        let mut signed_headers: Vec<String> = headers.keys().map(|name| name.as_str().to_owned()).collect();
        signed_headers.sort();
        let scope = Scope { date: time[..8].to_owned(), region: self.region.clone(), service: service.name().to_owned() };
        let request = Signed { method: "POST", path: "/", query: "", headers: &headers, body };
        let signature = signature(&self.key.secret, &scope, &time, &signed_headers, &request);
        let claim = Claim { access_key: self.key.id.clone(), scope, signed_headers, signature };
        headers.insert(AUTHORIZATION, value(&claim.to_string()));
        headers
    }

    async fn secrets(&self, operation: &str, input: Value) -> Value {
        self.call(Service::SecretsManager, operation, &input).await.expect_success(operation)
    }

    /// Writes a secret, which is made where there is none, and returns the id of the new version.
    pub async fn put_secret(&self, name: &str, text: &str) -> String {
        self.write_secret(name, "SecretString", text).await
    }

    /// The same for bytes.
    pub async fn put_binary(&self, name: &str, bytes: &[u8]) -> String {
        self.write_secret(name, "SecretBinary", &STANDARD.encode(bytes)).await
    }

    async fn write_secret(&self, name: &str, member: &str, value: &str) -> String {
        let token = token();
        let created = json!({ "Name": name, member: value, "ClientRequestToken": token });
        let answer = self.call(Service::SecretsManager, "CreateSecret", &created).await;
        if answer.error() == "ResourceExistsException" {
            self.secrets("PutSecretValue", json!({ "SecretId": name, member: value, "ClientRequestToken": token })).await;
        } else {
            answer.expect_success(name);
        }
        token
    }

    /// Marks a secret for deletion.
    pub async fn delete_secret(&self, name: &str) {
        self.secrets("DeleteSecret", json!({ "SecretId": name, "RecoveryWindowInDays": 7 })).await;
    }

    pub async fn restore_secret(&self, name: &str) {
        self.secrets("RestoreSecret", json!({ "SecretId": name })).await;
    }

    /// Afterwards it is proven absent.
    pub async fn remove_secret(&self, name: &str) {
        self.secrets("DeleteSecret", json!({ "SecretId": name, "ForceDeleteWithoutRecovery": true })).await;
    }

    /// Writes a parameter of type `String`, `StringList` or `SecureString`, and returns the number of the new version.
    pub async fn put_parameter(&self, name: &str, kind: &str, text: &str) -> u64 {
        let input = json!({ "Name": name, "Type": kind, "Value": text, "Overwrite": true });
        let answer = self.call(Service::Ssm, "PutParameter", &input).await.expect_success(name);
        answer["Version"].as_u64().expect("a version")
    }

    pub async fn remove_parameter(&self, name: &str) {
        self.call(Service::Ssm, "DeleteParameter", &json!({ "Name": name })).await.expect_success(name);
    }
}

fn builder() -> reqwest::ClientBuilder {
    // No connection is kept: a server may be shared by tests that each have a runtime of their own.
    Client::builder().no_proxy().pool_max_idle_per_host(0).retry(reqwest::retry::never())
}

/// The version id that a write of the administrator gives.
fn token() -> String {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).expect("the system has randomness");
    let hex = format!("{:032x}", u128::from_be_bytes(bytes));
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

fn message(service: Service, operation: &str, input: &Value) -> (HeaderMap, Vec<u8>) {
    let mut headers = HeaderMap::new();
    let Some(target) = service.target() else {
        headers.insert(CONTENT_TYPE, value("application/x-www-form-urlencoded"));
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("Action", operation).append_pair("Version", "2011-06-15");
        for (name, value) in input.as_object().into_iter().flatten() {
            form.append_pair(name, &value.as_str().map_or_else(|| value.to_string(), str::to_owned));
        }
        return (headers, form.finish().into_bytes());
    };
    headers.insert(CONTENT_TYPE, value("application/x-amz-json-1.1"));
    headers.insert("x-amz-target", value(&format!("{target}.{operation}")));
    (headers, input.to_string().into_bytes())
}

fn value(text: &str) -> HeaderValue {
    text.parse().expect("a header's value")
}
