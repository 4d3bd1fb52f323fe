//! Signature Version 4 (docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html), to sign with and to compare
//! with. Shares no code with what the operator signs with.

use std::fmt::Write as _;

use aws_lc_rs::{digest, hmac};
use http::HeaderMap;

/// The only algorithm.
pub const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// Who signs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// The access key: no secret.
    pub id: String,
    pub secret: String,
    /// Of a session of a role; none for a user.
    pub token: Option<String>,
}

impl Key {
    /// A user's.
    pub fn user(id: &str, secret: &str) -> Self {
        Self { id: id.to_owned(), secret: secret.to_owned(), token: None }
    }
}

/// What a signature is good for, as `Credential=` names it behind the access key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// `20261122`
    pub date: String,
    pub region: String,
    /// `secretsmanager`, `ssm`, `sts`
    pub service: String,
}

impl Scope {
    fn text(&self) -> String {
        format!("{}/{}/{}/aws4_request", self.date, self.region, self.service)
    }
}

/// What `Authorization` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    pub access_key: String,
    pub scope: Scope,
    /// Names in lower case, in their order.
    pub signed_headers: Vec<String>,
    pub signature: String,
}

impl Claim {
    /// None where the header has another form.
    pub fn parse(authorization: &str) -> Option<Self> {
        let rest = authorization.strip_prefix(ALGORITHM)?.trim_start();
        let part = |name: &str| rest.split(',').find_map(|part| part.trim().strip_prefix(name)?.strip_prefix('='));
        let credential: Vec<&str> = part("Credential")?.split('/').collect();
        let [access_key, date, region, service, "aws4_request"] = credential.as_slice() else { return None };
        Some(Self {
            access_key: (*access_key).to_owned(),
            scope: Scope { date: (*date).to_owned(), region: (*region).to_owned(), service: (*service).to_owned() },
            signed_headers: part("SignedHeaders")?.split(';').map(str::to_owned).collect(),
            signature: part("Signature")?.to_owned(),
        })
    }

    /// Whose claim a request makes; none where it makes none.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        Self::parse(headers.get(http::header::AUTHORIZATION)?.to_str().ok()?)
    }
}

impl std::fmt::Display for Claim {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (credential, headers) = (self.scope.text(), self.signed_headers.join(";"));
        write!(out, "{ALGORITHM} Credential={}/{credential}, SignedHeaders={headers}, Signature={}", self.access_key, self.signature)
    }
}

/// A request as far as it is signed.
pub struct Signed<'a> {
    pub method: &'a str,
    pub path: &'a str,
    pub query: &'a str,
    pub headers: &'a HeaderMap,
    pub body: &'a [u8],
}

/// The signature that a request with these signed headers must have; `time` is that of `X-Amz-Date`.
pub fn signature(secret: &str, scope: &Scope, time: &str, signed_headers: &[String], request: &Signed<'_>) -> String {
    let canonical = canonical(signed_headers, request);
    let to_sign = format!("{ALGORITHM}\n{time}\n{}\n{}", scope.text(), hex(digest::digest(&digest::SHA256, canonical.as_bytes()).as_ref()));
    let mut key = format!("AWS4{secret}").into_bytes();
    for part in [scope.date.as_str(), &scope.region, &scope.service, "aws4_request"] {
        key = mac(&key, part);
    }
    hex(&mac(&key, &to_sign))
}

fn canonical(signed_headers: &[String], request: &Signed<'_>) -> String {
    let mut query: Vec<&str> = request.query.split('&').filter(|pair| !pair.is_empty()).collect();
    query.sort_unstable();
    let mut text = format!("{}\n{}\n{}\n", request.method, request.path, query.join("&"));
    for name in signed_headers {
        let values: Vec<String> = request.headers.get_all(name.as_str()).iter().map(|value| folded(value.as_bytes())).collect();
        let _ = writeln!(text, "{name}:{}", values.join(","));
    }
    let body = hex(digest::digest(&digest::SHA256, request.body).as_ref());
    text + &format!("\n{}\n{body}", signed_headers.join(";"))
}

/// Without spaces at its ends, and with one where there are several.
fn folded(value: &[u8]) -> String {
    String::from_utf8_lossy(value).split_whitespace().collect::<Vec<_>>().join(" ")
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes()).as_ref().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the vendor's own documentation: "Signature Version 4 signing process", ListUsers of IAM.
    #[test]
    fn the_documented_example_has_the_documented_signature() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("content-type", "application/x-www-form-urlencoded; charset=utf-8"),
            ("host", "iam.amazonaws.com"),
            ("x-amz-date", "20150830T123600Z"),
        ] {
            headers.insert(name, value.parse().unwrap());
        }
        let signed_headers = ["content-type", "host", "x-amz-date"].map(str::to_owned);
        let scope = Scope { date: "20150830".to_owned(), region: "us-east-1".to_owned(), service: "iam".to_owned() };
        let request = Signed { method: "GET", path: "/", query: "Action=ListUsers&Version=2010-05-08", headers: &headers, body: b"" };
        let signature = signature("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", &scope, "20150830T123600Z", &signed_headers, &request);
        assert_eq!(signature, "5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7");
        let claim = Claim { access_key: "AKIDEXAMPLE".to_owned(), scope, signed_headers: signed_headers.to_vec(), signature };
        assert_eq!(Claim::parse(&claim.to_string()), Some(claim));
        assert_eq!(Claim::parse("Bearer x"), None);
    }
}
