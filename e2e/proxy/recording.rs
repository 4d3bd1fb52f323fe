//! A request with all that was in it, for a judge that reads it later. Values and credentials stand in it: it belongs into no message.

use std::fmt;

use bytes::Bytes;
use http::HeaderMap;
use http::request::Parts;

/// One request, and what it was answered where whoever recorded it knows.
#[derive(Clone)]
pub struct Recorded {
    pub method: String,
    pub path_and_query: String,
    /// As they were sent, in order.
    pub headers: HeaderMap,
    pub body: Bytes,
    pub status: Option<u16>,
    pub answer: Option<Bytes>,
}

impl Recorded {
    #[must_use]
    pub fn of(head: &Parts, body: &Bytes) -> Self {
        Self {
            method: head.method.to_string(),
            path_and_query: head.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
            headers: head.headers.clone(),
            body: body.clone(),
            status: None,
            answer: None,
        }
    }

    /// The first header of that name, where it is text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

impl fmt::Debug for Recorded {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = self.header("x-amz-target").unwrap_or(&self.path_and_query);
        write!(out, "{} {what}, {} bytes, answered {:?}", self.method, self.body.len(), self.status)
    }
}
