//! What AWS answers instead of a result, in the words of its two protocols.

use bytes::Bytes;
use http::Response;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use serde_json::json;

/// One error; `kind` is its name, as either protocol writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub status: u16,
    pub kind: String,
    /// Empty where the vendor says nothing beyond the name.
    pub message: String,
    /// Seconds.
    pub retry_after: Option<u32>,
}

pub type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    /// An error of a JSON service: all that the client can help have code 400.
    pub fn new(kind: &str, message: impl Into<String>) -> Self {
        Self { status: 400, kind: kind.to_owned(), message: message.into(), retry_after: None }
    }

    pub fn with_status(self, status: u16) -> Self {
        Self { status, ..self }
    }

    pub fn retry_after(self, seconds: u32) -> Self {
        Self { retry_after: Some(seconds), ..self }
    }

    /// "1 validation error detected": what the models say of a member does not hold.
    pub fn validation(member: &str, constraint: &str) -> Self {
        Self::new(
            "ValidationException",
            format!("1 validation error detected: Value at '{}' failed to satisfy constraint: {constraint}", lower_first(member)),
        )
    }

    /// `message` is the member that holds the words: services spell it differently.
    pub fn as_json(&self, request_id: &str, message: &str) -> Response<Bytes> {
        let mut body = json!({ "__type": self.kind });
        if !self.message.is_empty() {
            body[message] = self.message.as_str().into();
        }
        self.response("application/x-amz-json-1.1", request_id, body.to_string())
    }

    pub fn as_form(&self, request_id: &str) -> Response<Bytes> {
        let fault = if self.status < 500 { "Sender" } else { "Receiver" };
        let error = format!("<Type>{fault}</Type><Code>{}</Code><Message>{}</Message>", self.kind, escaped(&self.message));
        let body = format!(
            "<ErrorResponse xmlns=\"{FORM_NAMESPACE}\">\n  <Error>{error}</Error>\n  <RequestId>{request_id}</RequestId>\n</ErrorResponse>\n"
        );
        self.response("text/xml", request_id, body)
    }

    fn response(&self, content_type: &str, request_id: &str, body: String) -> Response<Bytes> {
        let mut response =
            Response::builder().status(self.status).header(CONTENT_TYPE, content_type).header("x-amzn-RequestId", request_id);
        if let Some(seconds) = self.retry_after {
            response = response.header(RETRY_AFTER, seconds);
        }
        response.body(Bytes::from(body)).expect("a valid answer")
    }
}

/// Of every answer of STS.
pub const FORM_NAMESPACE: &str = "https://sts.amazonaws.com/doc/2011-06-15/";

/// As text in XML.
pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn lower_first(member: &str) -> String {
    let mut letters = member.chars();
    letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
}
