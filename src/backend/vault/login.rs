//! The ways to log in: each a path and a few fields, some of which are secret. What a token looks like.

use std::sync::Arc;

use base64::{Engine, prelude::BASE64_STANDARD};
use http::HeaderValue;
use jiff::Timestamp;
use rustify::{
    endpoint::Endpoint,
    enums::{RequestMethod, RequestType, ResponseType},
    errors::ClientError,
};
use zeroize::Zeroizing;

use super::{
    amazon::{self, Identity},
    failure::Failure,
    google::ServiceAccount,
};
use crate::{
    access::Role,
    backend::{Credentials, TokenSource},
    crd::v1alpha1::{VaultAuth, VaultIam, VaultProvider},
    fault::{Class, Fault, Reason},
    name::{ProviderKind, RemoteKey},
    secret::SecretValue,
};

/// Where a call to AWS is signed for, unless a store names a region: where IAM itself lives.
const DEFAULT_REGION: &str = "us-east-1";

/// How a session comes to its token.
#[derive(Debug)]
pub(super) enum Way {
    /// It stands in a Secret.
    Fixed(HeaderValue),
    Login(Login),
}

/// One login, as often as it is needed.
#[derive(Debug)]
pub(super) struct Login {
    /// As the API names it, such as `appRole`.
    pub method: &'static str,
    path: String,
    fields: Vec<(&'static str, Given)>,
}

/// What goes into a field.
#[derive(Debug)]
enum Given {
    Text(String),
    Secret(SecretValue),
    Account(Arc<dyn TokenSource>),
    /// Signed at each login, for the role.
    Signed {
        by: Box<ServiceAccount>,
        role: String,
    },
    /// Signed at each login.
    SignedCall(Box<Identity>),
}

/// A request whose body is overwritten when it is dropped.
pub(super) struct Post {
    pub path: String,
    pub body: Zeroizing<Vec<u8>>,
}

impl Post {
    /// Of a body that is no secret.
    pub fn json(path: &str, body: &serde_json::Value) -> Self {
        Self { path: path.to_owned(), body: Zeroizing::new(body.to_string().into_bytes()) }
    }
}

impl Endpoint for Post {
    type Response = ();
    const REQUEST_BODY_TYPE: RequestType = RequestType::JSON;
    const RESPONSE_BODY_TYPE: ResponseType = ResponseType::JSON;

    fn path(&self) -> String {
        self.path.clone()
    }

    fn method(&self) -> RequestMethod {
        RequestMethod::POST
    }

    fn body(&self) -> Result<Option<Vec<u8>>, ClientError> {
        Ok(Some(self.body.to_vec()))
    }
}

impl Way {
    /// The way that a store's `auth` names.
    pub fn of(spec: &VaultProvider, credentials: &Credentials) -> Result<Self, Fault> {
        let login = |method, mount: Option<&String>, user: Option<&String>, fields| {
            let mount = mount.map_or_else(|| default_mount(method).to_owned(), Clone::clone);
            Login::new(method, &mount, user, fields).map(Self::Login)
        };
        let text = |name, text: &String| (name, Given::Text(text.clone()));
        let secret = |name, role, field: &str| Ok::<_, Fault>((name, Given::Secret(secret(credentials, role, field)?)));
        match &spec.auth {
            VaultAuth { token_secret_ref: Some(_), .. } => Ok(Self::Fixed(token_header(credentials.secrets.get(&Role::Token))?)),
            VaultAuth { app_role: Some(it), .. } => {
                let role = match &it.role_id {
                    Some(id) => text("role_id", id),
                    None => secret("role_id", Role::AppRoleId, "appRole.roleRef")?,
                };
                login("appRole", it.path.as_ref(), None, vec![role, secret("secret_id", Role::SecretId, "appRole.secretRef")?])
            }
            VaultAuth { kubernetes: Some(it), .. } => {
                let jwt = ("jwt", jwt(credentials, "kubernetes")?);
                login("kubernetes", it.mount_path.as_ref(), None, vec![text("role", &it.role), jwt])
            }
            VaultAuth { jwt: Some(it), .. } => {
                let mut fields = vec![("jwt", jwt(credentials, "jwt")?)];
                fields.extend(it.role.as_ref().map(|role| text("role", role)));
                login("jwt", it.path.as_ref(), None, fields)
            }
            VaultAuth { user_pass: Some(it), .. } => {
                let password = secret("password", Role::Password, "userPass.secretRef")?;
                login("userPass", it.path.as_ref(), Some(&it.username), vec![password])
            }
            VaultAuth { ldap: Some(it), .. } => {
                let password = secret("password", Role::Password, "ldap.secretRef")?;
                login("ldap", it.path.as_ref(), Some(&it.username), vec![password])
            }
            VaultAuth { cert: Some(it), .. } => {
                login("cert", it.path.as_ref(), None, it.vault_role.iter().map(|role| text("name", role)).collect())
            }
            VaultAuth { gcp: Some(it), .. } => {
                let signed = Given::Signed { by: Box::new(google_account(credentials)?), role: it.role.clone() };
                login("gcp", it.path.as_ref(), None, vec![text("role", &it.role), ("jwt", signed)])
            }
            VaultAuth { iam: Some(it), .. } => {
                let identity = amazon_identity(it, credentials)?;
                let encoded = |text: &str| Given::Text(BASE64_STANDARD.encode(text));
                let call = vec![
                    text("role", &it.vault_role),
                    ("iam_http_request_method", Given::Text("POST".to_owned())),
                    ("iam_request_url", encoded(&identity.url())),
                    ("iam_request_body", encoded(amazon::BODY)),
                    ("iam_request_headers", Given::SignedCall(Box::new(identity))),
                ];
                login("iam", it.path.as_ref(), None, call)
            }
            VaultAuth { .. } => {
                Err(Fault::invalid(Reason::InvalidSpec, "provider.vault.auth names no way to log in: set one of its members"))
            }
        }
    }
}

fn default_mount(method: &str) -> &str {
    match method {
        "appRole" => "approle",
        "userPass" => "userpass",
        "iam" => "aws",
        other => other,
    }
}

impl Login {
    fn new(method: &'static str, mount: &str, user: Option<&String>, fields: Vec<(&'static str, Given)>) -> Result<Self, Fault> {
        let fault =
            |what| Fault::invalid(Reason::InvalidSpec, format!("provider.vault.auth.{method} has a {what} that cannot be one: correct it"));
        let mount = RemoteKey::parse(ProviderKind::Vault, mount).map_err(|_| fault("mount path"))?;
        let path = match user {
            None => format!("auth/{}/login", mount.as_str()),
            Some(user) => {
                // One segment of the path: with a slash in it, somebody else would be logged in.
                let name = RemoteKey::parse(ProviderKind::Vault, user).ok().filter(|name| name.as_str() == user && !user.contains('/'));
                format!("auth/{}/login/{}", mount.as_str(), name.ok_or_else(|| fault("username"))?.as_str())
            }
        };
        Ok(Self { method, path, fields })
    }

    /// The request, with a token of now where a ServiceAccount logs in.
    pub async fn request(&self) -> Result<Post, Failure> {
        let mut body = Zeroizing::new(Vec::with_capacity(4096));
        body.push(b'{');
        for (number, (name, given)) in self.fields.iter().enumerate() {
            let made;
            let value = match given {
                Given::Text(text) => text.as_str(),
                Given::Secret(secret) => utf8(secret),
                Given::Account(tokens) => {
                    made = tokens.token().await.map_err(Failure::NoAccountToken)?;
                    utf8(&made)
                }
                Given::Signed { by, role } => {
                    made = by.assertion(role, Timestamp::now()).ok_or(Failure::Refused(400))?;
                    utf8(&made)
                }
                Given::SignedCall(by) => {
                    made = by.headers(Timestamp::now()).ok_or(Failure::Refused(400))?;
                    utf8(&made)
                }
            };
            if number > 0 {
                body.push(b',');
            }
            let written = serde_json::to_writer(&mut *body, name).and_then(|()| {
                body.push(b':');
                serde_json::to_writer(&mut *body, value)
            });
            written.map_err(|_| Failure::Refused(400))?;
        }
        body.push(b'}');
        Ok(Post { path: self.path.clone(), body })
    }
}

/// Checked when the session was opened, or a token, which is ASCII.
fn utf8(secret: &SecretValue) -> &str {
    std::str::from_utf8(secret.expose()).unwrap_or_default()
}

fn jwt(credentials: &Credentials, method: &str) -> Result<Given, Fault> {
    match &credentials.tokens {
        Some(tokens) => Ok(Given::Account(tokens.clone())),
        None => secret(credentials, Role::Jwt, &format!("{method}.secretRef")).map(Given::Secret),
    }
}

fn google_account(credentials: &Credentials) -> Result<ServiceAccount, Fault> {
    let field = "gcp.secretRef.secretAccessKeySecretRef";
    let key = secret(credentials, Role::GoogleKey, field)?;
    let no_key = || not_ready(field, "what stands there is no key of a Google service account: put the JSON file of one there");
    ServiceAccount::parse(key.expose()).ok_or_else(no_key)
}

fn amazon_identity(spec: &VaultIam, credentials: &Credentials) -> Result<Identity, Fault> {
    let named = &spec.secret_ref;
    let text = |role, field: &str| {
        let field = format!("iam.secretRef.{field}");
        let found = secret(credentials, role, &field)?;
        let text = utf8(&found).trim().to_owned();
        let is_key = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        if is_key { Ok(text) } else { Err(not_ready(&field, "what stands there is no key of AWS: put the credential there")) }
    };
    let id = text(Role::AccessKeyId, "accessKeyIDSecretRef")?;
    let key = Zeroizing::new(text(Role::SecretAccessKey, "secretAccessKeySecretRef")?);
    let token = named.session_token_secret_ref.as_ref().map(|_| text(Role::SessionToken, "sessionTokenSecretRef")).transpose()?;
    let region = spec.region.as_deref().unwrap_or(DEFAULT_REGION);
    Ok(Identity::new(&id, &key, token.as_deref(), region, spec.vault_aws_iam_server_id.as_deref()))
}

/// Text as people put it into a Secret: often with a line break at its end.
fn secret(credentials: &Credentials, role: Role, field: &str) -> Result<SecretValue, Fault> {
    let not_ready = |detail: &str| not_ready(field, detail);
    let found = credentials.secrets.get(&role).ok_or_else(|| not_ready("the Secret or its key is missing: put the credential there"))?;
    let mut bytes = found.expose();
    while let [rest @ .., b'\n' | b'\r'] = bytes {
        bytes = rest;
    }
    if bytes.is_empty() || std::str::from_utf8(bytes).is_err() {
        return Err(not_ready("what stands there is empty or no text: put the credential there"));
    }
    Ok(SecretValue::new(bytes.to_vec()))
}

/// A token as people put it into a Secret.
fn token_header(token: Option<&SecretValue>) -> Result<HeaderValue, Fault> {
    let not_ready = |detail: &str| not_ready("tokenSecretRef", detail);
    let missing = || not_ready("the Secret or its key is missing or empty: put the token there");
    let bytes = trim(token.ok_or_else(missing)?.expose());
    if bytes.is_empty() {
        return Err(missing());
    }
    sensitive(bytes).ok_or_else(|| {
        not_ready("what stands there is no token, it has spaces, line breaks or other characters inside: put the token there")
    })
}

/// A token as header, if it can be one.
pub(super) fn sensitive(token: &[u8]) -> Option<HeaderValue> {
    let is_token = !token.is_empty() && token.iter().all(u8::is_ascii_graphic);
    let mut header = HeaderValue::from_bytes(token).ok().filter(|_| is_token)?;
    header.set_sensitive(true);
    Some(header)
}

fn trim(mut bytes: &[u8]) -> &[u8] {
    let is_around = |byte: &u8| byte.is_ascii_whitespace() || byte.is_ascii_control();
    while let [first, rest @ ..] = bytes
        && is_around(first)
    {
        bytes = rest;
    }
    while let [rest @ .., last] = bytes
        && is_around(last)
    {
        bytes = rest;
    }
    bytes
}

fn not_ready(field: &str, detail: &str) -> Fault {
    Fault::new(Class::Unavailable, Reason::StoreNotReady, format!("provider.vault.auth.{field}: {detail}"))
}
