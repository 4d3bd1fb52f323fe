//! The way of the vendor's library to the network: our client, one exchange at a time. Only keys that are refused are replaced, once, by
//! those that the session gives then.

use std::{fmt, sync::Arc, time::SystemTime};

use aws_credential_types::Credentials as Keys;
use aws_sigv4::{
    http_request::{SignableBody, SignableRequest, SigningSettings, sign},
    sign::v4,
};
use aws_smithy_runtime_api::{
    client::{
        http::{HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector},
        orchestrator::{HttpRequest, HttpResponse},
        result::ConnectorError,
        runtime_components::RuntimeComponents,
    },
    http::StatusCode,
};
use aws_smithy_types::body::SdkBody;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, header};
use jiff::Timestamp;
use serde::Deserialize;

use super::session::Session;
use crate::backend::transport::{Broken, Exchanged, exchange};

/// A client that the library calls. Cheap to clone.
#[derive(Clone)]
pub(super) struct Connector {
    client: reqwest::Client,
    /// Whose keys sign the requests.
    session: Option<Arc<Session>>,
}

impl Connector {
    pub fn new(client: reqwest::Client, session: Option<Arc<Session>>) -> Self {
        Self { client, session }
    }
}

// By hand: nothing of it is worth showing.
impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connector")
    }
}

impl HttpClient for Connector {
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let connector = self.clone();
        HttpConnectorFuture::new(async move { response(connector.send(request).await?) })
    }
}

impl Connector {
    async fn send(&self, request: HttpRequest) -> Result<Exchanged, ConnectorError> {
        let request = request.try_into_http1x().map_err(|_| unusable())?;
        // Requests of these services are never streams.
        let request = request.map(|body| body.bytes().map(Bytes::copy_from_slice).unwrap_or_default());
        let Some(session) = &self.session else { return self.exchange(request).await };
        let mut again = request.clone();
        let exchanged = self.exchange(request).await?;
        if !refuses_the_keys(&exchanged) {
            return Ok(exchanged);
        }
        let Some(signed) = Signed::of(&again) else { return Ok(exchanged) };
        match session.replacement(&signed.id).await {
            Err(failure) => Err(ConnectorError::other(Box::new(failure), None)),
            Ok(None) => Ok(exchanged),
            Ok(Some(keys)) => {
                signed.sign(&mut again, &keys, Timestamp::now().into()).ok_or_else(unusable)?;
                self.exchange(again).await
            }
        }
    }

    async fn exchange(&self, request: http::Request<Bytes>) -> Result<Exchanged, ConnectorError> {
        let request = reqwest::Request::try_from(request.map(reqwest::Body::from)).map_err(|_| unusable())?;
        exchange(&self.client, request).await.map_err(connector_error)
    }
}

fn response(exchanged: Exchanged) -> Result<HttpResponse, ConnectorError> {
    let status = StatusCode::try_from(exchanged.status.as_u16()).map_err(|_| connector_error(Broken::Lost))?;
    // It stays in a buffer that is overwritten when it is dropped.
    let mut response = HttpResponse::new(status, SdkBody::from(Bytes::from_owner(exchanged.body)));
    for (name, value) in &exchanged.headers {
        if let Ok(value) = value.to_str() {
            response.headers_mut().append(name.as_str().to_owned(), value.to_owned());
        }
    }
    Ok(response)
}

fn unusable() -> ConnectorError {
    ConnectorError::user("the request cannot be sent".into())
}

fn connector_error(broken: Broken) -> ConnectorError {
    match broken {
        Broken::TimedOut => ConnectorError::timeout(Box::new(broken)),
        other => ConnectorError::io(Box::new(other)),
    }
}

/// Whether an answer says that the keys are no good any more. What they may not do is another matter: that is decided at each call.
fn refuses_the_keys(answer: &Exchanged) -> bool {
    const WORDS: [&str; 5] =
        ["ExpiredToken", "ExpiredTokenException", "UnrecognizedClientException", "InvalidClientTokenId", "InvalidAccessKeyId"];
    if !answer.status.is_client_error() {
        return false;
    }
    let code = error_code(&answer.body).unwrap_or_default();
    WORDS.contains(&code.rsplit('#').next().unwrap_or_default())
}

/// The code of an error, in the shape of either protocol.
fn error_code(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Error {
        #[serde(rename = "__type", alias = "code", alias = "Code")]
        code: String,
    }
    if body.starts_with(b"{") {
        return serde_json::from_slice::<Error>(body).ok().map(|error| error.code);
    }
    let (_, rest) = str::from_utf8(body).ok()?.split_once("<Code>")?;
    rest.split_once("</Code>").map(|(code, _)| code.trim().to_owned())
}

/// How a request was signed.
#[derive(Debug, PartialEq, Eq)]
struct Signed {
    /// Of the access key.
    id: String,
    region: String,
    service: String,
}

impl Signed {
    fn of(request: &http::Request<Bytes>) -> Option<Self> {
        let value = request.headers().get(header::AUTHORIZATION)?.to_str().ok()?;
        let scope = value.split_once("Credential=")?.1.split(',').next()?;
        // The id, the date, region, service and a word.
        let mut parts = scope.rsplitn(5, '/').skip(1);
        let (service, region, _) = (parts.next()?.to_owned(), parts.next()?.to_owned(), parts.next()?);
        Some(Self { id: parts.next()?.to_owned(), region, service })
    }

    /// Puts another signature into the place of the first.
    fn sign(&self, request: &mut http::Request<Bytes>, keys: &Keys, time: SystemTime) -> Option<()> {
        for name in ["authorization", "x-amz-date", "x-amz-security-token"] {
            request.headers_mut().remove(name);
        }
        let identity = keys.clone().into();
        let params = v4::SigningParams::builder().identity(&identity).region(&self.region).name(&self.service).time(time);
        let params = params.settings(SigningSettings::default()).build().ok()?.into();
        let headers = request.headers().iter().filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)));
        let (method, uri): (&Method, String) = (request.method(), request.uri().to_string());
        let signable = SignableRequest::new(method.as_str(), uri, headers, SignableBody::Bytes(request.body())).ok()?;
        let (instructions, _) = sign(signable, &params).ok()?.into_parts();
        let (headers, _) = instructions.into_parts();
        for signed in headers {
            let mut value = HeaderValue::from_str(signed.value()).ok()?;
            value.set_sensitive(signed.sensitive());
            request.headers_mut().insert(HeaderName::from_static(signed.name()), value);
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use aws_credential_types::Credentials as Keys;
    use bytes::Bytes;

    use super::{Signed, error_code};

    #[test]
    fn a_code_is_found_in_the_shape_of_either_protocol() {
        let xml = "<ErrorResponse><Error><Type>Sender</Type><Code>ExpiredToken</Code><Message>x</Message></Error></ErrorResponse>";
        let cases = [
            (
                r#"{"__type":"com.amazonaws.x#ExpiredTokenException","message":"<Code>y</Code>"}"#,
                Some("com.amazonaws.x#ExpiredTokenException"),
            ),
            (r#"{"code":"UnrecognizedClientException"}"#, Some("UnrecognizedClientException")),
            (xml, Some("ExpiredToken")),
            (r#"{"message":"ExpiredToken"}"#, None),
            ("<html>ExpiredToken</html>", None),
            ("", None),
        ];
        for (body, code) in cases {
            assert_eq!(error_code(body.as_bytes()).as_deref(), code, "{body}");
        }
    }

    /// Of the vendor's examples for version 4 (`get-vanilla`).
    #[test]
    fn a_request_is_signed_anew_as_it_was_signed_first() {
        let signature = |scope: &str, signature: &str| {
            format!("AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host;x-amz-date, Signature={signature}")
        };
        let old = signature("OLD/20150830/us-east-1/service/aws4_request", "00");
        let mut request = http::Request::get("http://example.amazonaws.com/")
            .header("host", "example.amazonaws.com")
            .header("authorization", old)
            .header("x-amz-security-token", "old")
            .header("x-amz-date", "20150830T120000Z")
            .body(Bytes::new())
            .unwrap();
        let signed = Signed::of(&request).unwrap();
        assert_eq!(signed, Signed { id: "OLD".into(), region: "us-east-1".into(), service: "service".into() });
        let keys = Keys::new("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", None, None, "test");
        // 2015-08-30T12:36:00Z
        signed.sign(&mut request, &keys, SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_440_938_160)).unwrap();
        let expected = signature(
            "AKIDEXAMPLE/20150830/us-east-1/service/aws4_request",
            "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
        );
        assert_eq!(request.headers()["authorization"], expected);
        assert_eq!(request.headers()["x-amz-date"], "20150830T123600Z");
        assert!(!request.headers().contains_key("x-amz-security-token"));
    }
}
