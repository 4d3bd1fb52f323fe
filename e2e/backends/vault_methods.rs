//! The login methods of Vault that OpenBao has not, `ldap`, `gcp` and `aws`, as Vault documents them: a server before a real OpenBao, which does
//! all the rest and makes the tokens. It checks what Vault's plugins check: of a Google account's JWT algorithm, key, signature, expiry,
//! subject and audience; a signed call to AWS is made at our AWS, which knows whose signature it is.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use reqwest::{Client, Method};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

use super::openbao::{OpenBao, client};

/// Longest life of a JWT that a role takes unless it says otherwise.
const LONGEST_JWT: Duration = Duration::from_mins(15);

/// The methods at their default mounts; gone when it is dropped.
pub struct VaultMethods {
    url: String,
    state: Arc<State>,
    _server: AbortOnDropHandle<()>,
}

struct State {
    bao: String,
    root_token: String,
    client: Client,
    /// The policy of everybody who logs in.
    policy: String,
    directory: Mutex<BTreeMap<String, String>>,
    /// Public keys by account and key id, as Google publishes them.
    keys: Mutex<BTreeMap<(String, String), Vec<u8>>>,
    /// The accounts that each role of type `iam` takes.
    roles: Mutex<BTreeMap<String, Vec<String>>>,
    amazon: Mutex<Option<Amazon>>,
}

/// How the method `aws` is set up.
#[derive(Clone)]
struct Amazon {
    /// Where calls are made instead of the STS that they name.
    sts: String,
    server_id: String,
    /// The identity, by its ARN, that each role of type `iam` takes.
    roles: BTreeMap<String, String>,
}

/// A service account of Google with a key.
pub struct GoogleAccount {
    pub email: String,
    pub key_id: String,
    pub key: KeyPair,
}

impl GoogleAccount {
    /// # Panics
    /// When the machine has no randomness.
    #[must_use]
    pub fn new(email: &str, key_id: &str) -> Self {
        let key = KeyPair::generate(KeySize::Rsa2048).expect("a key");
        Self { email: email.to_owned(), key_id: key_id.to_owned(), key }
    }

    /// The lines between the marks of its private key's PEM.
    #[must_use]
    pub fn private_key(&self) -> String {
        let der: Pkcs8V1Der<'_> = self.key.as_der().expect("a key has a form");
        STANDARD.encode(der.as_ref())
    }

    /// The JSON file that Google gives out for the key.
    #[must_use]
    pub fn file(&self) -> String {
        let pem = format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", self.private_key());
        let file = json!({
            "type": "service_account", "project_id": "shop", "private_key_id": self.key_id, "private_key": pem,
            "client_email": self.email, "client_id": "1", "token_uri": "https://oauth2.googleapis.com/token",
        });
        file.to_string()
    }
}

impl VaultMethods {
    /// Whoever logs in gets a token under that policy.
    pub async fn before(bao: &OpenBao, policy: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port on 127.0.0.1");
        let url = format!("http://{}", listener.local_addr().expect("a bound listener has an address"));
        let state = Arc::new(State {
            bao: bao.url().to_owned(),
            root_token: bao.root_token().to_owned(),
            client: client(bao.ca_pem()),
            policy: policy.to_owned(),
            directory: Mutex::default(),
            keys: Mutex::default(),
            roles: Mutex::default(),
            amazon: Mutex::default(),
        });
        let serving = state.clone();
        let server = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((tcp, _)) = listener.accept().await {
                let state = serving.clone();
                let service = service_fn(move |request| {
                    let state = state.clone();
                    async move { Ok::<_, Infallible>(state.answer(request).await) }
                });
                let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(tcp), service);
                connections.spawn(async move { drop(connection.await) });
            }
        });
        Self { url, state, _server: AbortOnDropHandle::new(server) }
    }

    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Enters somebody into the directory, or another password.
    pub fn person(&self, name: &str, password: &str) {
        self.state.directory.lock().unwrap().insert(name.to_owned(), password.to_owned());
    }

    /// What Google would publish of the account.
    pub fn publish(&self, account: &GoogleAccount) {
        let key = account.key.public_key().as_ref().to_vec();
        self.state.keys.lock().unwrap().insert((account.email.clone(), account.key_id.clone()), key);
    }

    /// What Google does when a key is deleted.
    pub fn withdraw(&self, account: &GoogleAccount) {
        self.state.keys.lock().unwrap().remove(&(account.email.clone(), account.key_id.clone()));
    }

    /// Sets up `aws`: calls are made at this STS, and have to be signed for this server.
    pub fn amazon(&self, sts: &str, server_id: &str, roles: &[(&str, &str)]) {
        let roles = roles.iter().map(|(role, arn)| ((*role).to_owned(), (*arn).to_owned())).collect();
        *self.state.amazon.lock().unwrap() = Some(Amazon { sts: sts.to_owned(), server_id: server_id.to_owned(), roles });
    }

    /// A role of type `iam` for these accounts.
    pub fn role(&self, name: &str, accounts: &[&str]) {
        let accounts = accounts.iter().map(|account| (*account).to_owned()).collect();
        self.state.roles.lock().unwrap().insert(name.to_owned(), accounts);
    }
}

/// Status and why, as the server would say it.
type Refusal = (u16, String);

fn refused<T>(why: impl Into<String>) -> Result<T, Refusal> {
    Err((400, why.into()))
}

impl State {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        let is_write = matches!(head.method, Method::POST | Method::PUT);
        let judged = match head.uri.path().strip_prefix("/v1/auth/") {
            Some("gcp/login") if is_write => self.google(&body),
            Some("aws/login") if is_write => self.amazon(&body).await,
            Some(path) if is_write && path.starts_with("ldap/login/") => self.directory(&path["ldap/login/".len()..], &body),
            _ => return self.pass_on(head.method, &head.uri.to_string(), &head.headers, body).await,
        };
        match judged {
            Ok(()) => self.token().await,
            Err((status, why)) => answer(status, json!({ "errors": [why] }).to_string()),
        }
    }

    fn directory(&self, user: &str, body: &[u8]) -> Result<(), Refusal> {
        let Some(password) = text_of(&fields(body)?, "password") else { return refused("missing password") };
        if password.is_empty() {
            return refused("password cannot be of zero length when passwordless binds are being denied");
        }
        let is_known = self.directory.lock().unwrap().get(user).is_some_and(|known| *known == password);
        if is_known { Ok(()) } else { refused("ldap operation failed: failed to bind as user") }
    }

    async fn amazon(&self, body: &[u8]) -> Result<(), Refusal> {
        const CALL: [&str; 4] = ["iam_http_request_method", "iam_request_url", "iam_request_body", "iam_request_headers"];
        let fields = fields(body)?;
        known(&fields, &["role", CALL[0], CALL[1], CALL[2], CALL[3]])?;
        let Some(amazon) = self.amazon.lock().unwrap().clone() else { return refused("not configured") };
        let Some(bound) = text_of(&fields, "role").and_then(|role| amazon.roles.get(&role).cloned()) else {
            return refused("entry for role not found");
        };
        if fields[CALL[0]] != "POST" {
            return refused("invalid iam_http_request_method; currently only 'POST' is supported");
        }
        let decoded =
            |name: &str| text_of(&fields, name).and_then(|text| STANDARD.decode(text).ok()).and_then(|bytes| String::from_utf8(bytes).ok());
        let [Some(url), Some(call), Some(headers)] = [CALL[1], CALL[2], CALL[3]].map(decoded) else {
            return refused("failed to base64 decode");
        };
        if !url.starts_with("https://sts.") || !call.contains("Action=GetCallerIdentity") {
            return refused("iam_request_url or iam_request_body is not of GetCallerIdentity");
        }
        let headers: BTreeMap<String, Vec<String>> =
            serde_json::from_str(&headers).map_err(|_| (400, "failed to JSON decode".to_owned()))?;
        let header =
            |wanted: &str| headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted)).and_then(|(_, values)| values.first());
        let signed =
            header("authorization").and_then(|said| said.split_once("SignedHeaders=")).and_then(|(_, rest)| rest.split(',').next());
        let is_signed = signed.is_some_and(|names| names.split(';').any(|name| name == "x-vault-aws-iam-server-id"));
        if header("x-vault-aws-iam-server-id") != Some(&amazon.server_id) || !is_signed {
            return refused("error validating X-Vault-AWS-IAM-Server-ID header");
        }
        let all = headers.iter().flat_map(|(name, values)| values.iter().map(move |value| (name, value)));
        let request = all.fold(self.client.post(amazon.sts).body(call), |request, (name, value)| request.header(name, value));
        let Ok(said) = request.send().await else { return Err((500, "error making upstream request".to_owned())) };
        let text = said.text().await.unwrap_or_default();
        match text.split_once("<Arn>").and_then(|(_, rest)| rest.split_once("</Arn>")) {
            Some((arn, _)) if arn == bound => Ok(()),
            Some((arn, _)) => refused(format!("IAM Principal {arn:?} does not belong to the role")),
            None => refused("error making upstream request: received error code from STS"),
        }
    }

    fn google(&self, body: &[u8]) -> Result<(), Refusal> {
        let fields = fields(body)?;
        known(&fields, &["role", "jwt"])?;
        let Some(role) = text_of(&fields, "role").filter(|role| !role.is_empty()) else { return refused("role is required") };
        let Some(accounts) = self.roles.lock().unwrap().get(&role).cloned() else { return refused(format!("role {role:?} not found")) };
        let Some(jwt) = text_of(&fields, "jwt") else { return refused("jwt argument is required") };
        let subject = self.verified(&jwt, &role)?;
        if accounts.contains(&subject) { Ok(()) } else { refused(format!("service account {subject} is not authorized for role")) }
    }

    /// The subject of a JWT whose signature, life and audience are right.
    fn verified(&self, jwt: &str, role: &str) -> Result<String, Refusal> {
        let parts: Vec<&str> = jwt.split('.').collect();
        let [header, claims, signature] = parts.as_slice() else { return refused("unable to parse signed JWT") };
        let decoded = [header, claims, signature].map(|part| URL_SAFE_NO_PAD.decode(part).ok());
        let [Some(header), Some(claims_text), Some(signature)] = decoded else { return refused("unable to parse signed JWT") };
        let [Ok(header), Ok(said)] = [header, claims_text].map(|text| serde_json::from_slice::<Value>(&text)) else {
            return refused("unable to parse signed JWT");
        };
        if header["alg"] != "RS256" {
            return refused("unexpected signature algorithm");
        }
        let Some(subject) = said["sub"].as_str().filter(|subject| !subject.is_empty()) else {
            return refused("expected 'sub' claim from JWT");
        };
        let id = (subject.to_owned(), header["kid"].as_str().unwrap_or_default().to_owned());
        let Some(key) = self.keys.lock().unwrap().get(&id).cloned() else { return refused("unable to get public key for signed JWT") };
        let signed = &jwt.as_bytes()[..parts[0].len() + 1 + parts[1].len()];
        if UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key).verify(signed, &signature).is_err() {
            return refused("error in cryptographic primitive");
        }
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("the clock is right").as_secs();
        match said["exp"].as_u64() {
            Some(end) if end > now + LONGEST_JWT.as_secs() => {
                return refused("role requires that service account JWTs expire within 900 seconds");
            }
            Some(end) if end > now => {}
            _ => return refused("JWT is expired or does not have proper 'exp' claim"),
        }
        if said["aud"].as_str().is_some_and(|audience| audience.ends_with(&format!("vault/{role}"))) {
            Ok(subject.to_owned())
        } else {
            refused(format!("at least one of the JWT claim 'aud' must end in \"vault/{role}\""))
        }
    }

    /// What a login is answered: a token of OpenBao's own.
    async fn token(&self) -> Response<Full<Bytes>> {
        let body = json!({"policies": [self.policy], "ttl": "1h", "no_parent": true}).to_string();
        let mut headers = http::HeaderMap::new();
        headers.insert("x-vault-token", self.root_token.parse().expect("a token is a header"));
        self.pass_on(Method::POST, "/v1/auth/token/create", &headers, body.into()).await
    }

    async fn pass_on(&self, method: Method, uri: &str, headers: &http::HeaderMap, body: Bytes) -> Response<Full<Bytes>> {
        let mut request = self.client.request(method, format!("{}{uri}", self.bao)).body(body);
        for name in ["x-vault-token", "x-vault-namespace", "content-type"] {
            request = headers.get(name).into_iter().fold(request, |request, value| request.header(name, value));
        }
        match request.send().await {
            Ok(said) => {
                let status = said.status().as_u16();
                said.text().await.map_or_else(|_| answer(502, String::new()), |text| answer(status, text))
            }
            Err(_) => answer(502, String::new()),
        }
    }
}

fn fields(body: &[u8]) -> Result<Value, Refusal> {
    match serde_json::from_slice(body) {
        Ok(Value::Object(fields)) => Ok(Value::Object(fields)),
        _ => refused("failed to parse JSON input"),
    }
}

fn known(fields: &Value, names: &[&str]) -> Result<(), Refusal> {
    match fields.as_object().into_iter().flatten().find(|(name, _)| !names.contains(&name.as_str())) {
        Some((strange, _)) => Err((422, format!("unknown key {strange:?}"))),
        None => Ok(()),
    }
}

fn text_of(fields: &Value, name: &str) -> Option<String> {
    fields[name].as_str().map(str::to_owned)
}

fn answer(status: u16, body: String) -> Response<Full<Bytes>> {
    let response = Response::builder().status(status).header("content-type", "application/json");
    response.body(Full::new(Bytes::from(body))).expect("a status and a body")
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::signature::RSA_PKCS1_SHA256;

    use super::*;

    fn signed(account: &GoogleAccount, header: &Value, claims: &Value) -> String {
        let [header, claims] = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
        let text = format!("{header}.{claims}");
        let mut signature = vec![0; account.key.public_modulus_len()];
        account.key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), text.as_bytes(), &mut signature).unwrap();
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    #[tokio::test]
    async fn a_login_is_taken_only_when_everything_is_right() {
        let bao = OpenBao::start().await;
        let methods = VaultMethods::before(&bao, "app").await;
        let client = Client::builder().no_proxy().build().unwrap();
        let log_in = async |path: &str, body: Value| {
            let answer = client.post(format!("{}/v1/auth/{path}", methods.url())).body(body.to_string()).send().await.unwrap();
            (answer.status().as_u16(), answer.json::<Value>().await.unwrap())
        };
        methods.person("joe", "right");
        let (status, answer) = log_in("ldap/login/joe", json!({"password": "right"})).await;
        assert_eq!((status, answer["auth"]["lease_duration"].as_u64()), (200, Some(3600)), "{answer}");
        for (user, body) in [
            ("joe", json!({"password": "wrong"})),
            ("joe", json!({"password": ""})),
            ("joe", json!({})),
            ("ann", json!({"password": "right"})),
            ("joe", json!([])),
        ] {
            assert_eq!(log_in(&format!("ldap/login/{user}"), body.clone()).await.0, 400, "{user} {body}");
        }

        let account = GoogleAccount::new("shop@example.com", "k1");
        methods.publish(&account);
        methods.role("app", &["shop@example.com"]);
        methods.role("others", &["other@example.com"]);
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        let header = json!({"alg": "RS256", "kid": "k1"});
        let claims = json!({"aud": "vault/app", "sub": "shop@example.com", "exp": now + 600});
        let with = |member: &str, value: Value, of: &Value| {
            let mut of = of.clone();
            of[member] = value;
            of
        };
        let right = signed(&account, &header, &claims);
        assert_eq!(log_in("gcp/login", json!({"role": "app", "jwt": right})).await.0, 200);
        let claiming = |member: &str, value: Value| signed(&account, &header, &with(member, value, &claims));
        let wrong = [
            (signed(&account, &with("alg", json!("HS256"), &header), &claims), "algorithm"),
            (signed(&account, &with("kid", json!("k2"), &header), &claims), "public key"),
            (signed(&GoogleAccount::new("shop@example.com", "k1"), &header, &claims), "cryptographic"),
            (claiming("sub", json!("other@example.com")), "public key"),
            (claiming("sub", json!("")), "sub"),
            (claiming("aud", json!("vault/other")), "aud"),
            (claiming("aud", Value::Null), "aud"),
            (claiming("exp", json!(now - 1)), "exp"),
            (claiming("exp", Value::Null), "exp"),
            (claiming("exp", json!(now + 3600)), "900 seconds"),
            ("a.b".to_owned(), "parse"),
        ];
        for (jwt, words) in wrong {
            let (status, answer) = log_in("gcp/login", json!({"role": "app", "jwt": jwt})).await;
            assert!(status == 400 && answer["errors"][0].as_str().unwrap().contains(words), "{words}: {answer}");
        }
        for (body, expected) in [
            (json!({"jwt": right}), 400),
            (json!({"role": "none", "jwt": right}), 400),
            (json!({"role": "app"}), 400),
            (json!({"role": "app", "jwt": right, "more": "x"}), 422),
        ] {
            assert_eq!(log_in("gcp/login", body.clone()).await.0, expected, "{body}");
        }
        let for_others = signed(&account, &header, &with("aud", json!("vault/others"), &claims));
        let (status, answer) = log_in("gcp/login", json!({"role": "others", "jwt": for_others})).await;
        assert!(status == 400 && answer["errors"][0].as_str().unwrap().contains("not authorized"), "{answer}");
        methods.withdraw(&account);
        assert_eq!(log_in("gcp/login", json!({"role": "app", "jwt": right})).await.0, 400);
    }
}
