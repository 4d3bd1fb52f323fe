//! What can be done to a call, and the answers that the proxy makes up itself.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Response, StatusCode};
use serde_json::json;

use super::ledger::Call;
use super::{Proxy, bomb};

/// When a fault strikes. In both cases the whole request was read from the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Nothing was sent to the upstream.
    BeforeCommit,
    /// The upstream answered completely. Not for watches, which never do.
    AfterCommit,
}

/// How an answer that was cut short looks from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Its head promises the whole of it by `Content-Length`, then the connection closes.
    Promised,
    /// It comes in chunks, and the connection closes without the last one.
    Chunked,
    /// `Content-Length` says what is left: on this level nothing is wrong with it.
    Unnoticed,
}

#[derive(Clone)]
pub(super) enum Action {
    Close,
    Reset,
    Answer(Answer),
    Compute(Arc<dyn Fn(&Call) -> Answer + Send + Sync>),
    Redirect(StatusCode, String),
    Cut(Cut, usize),
    Relabel(String),
    Replay(Arc<Memory>),
    Endless { beginning: Bytes, piece: Bytes },
    Drip(Duration),
    DuplicateEvents,
    Delay(Duration),
    Hold,
    Hang,
    Kill(Arc<dyn Fn() + Send + Sync>),
}

/// The first answer to each request, by method, path and query, and where only the body tells requests apart by that, too.
#[derive(Default)]
pub(super) struct Memory(Mutex<HashMap<(Method, String), Response<Bytes>>>);

impl Memory {
    pub fn recall(&self, request: &(Method, String)) -> Option<Response<Bytes>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(request).cloned()
    }

    pub fn keep(&self, request: (Method, String), answer: &Response<Bytes>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(request, answer.clone());
    }
}

/// The id under which the proxy answers for AWS.
const AWS_REQUEST: &str = "00000000-fa01-4000-8000-000000000000";

/// An answer of the proxy's own.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
}

impl Answer {
    /// # Panics
    /// When `code` is no HTTP status.
    #[must_use]
    pub fn new(code: u16, content_type: &str, body: impl Into<Bytes>) -> Self {
        Self {
            status: StatusCode::from_u16(code).expect("a valid HTTP status"),
            headers: vec![("content-type".to_owned(), content_type.to_owned())],
            body: body.into(),
        }
    }

    /// With a JSON body, as both API server and Vault answer.
    ///
    /// # Panics
    /// When `code` is no HTTP status.
    #[must_use]
    pub fn json(code: u16, body: &serde_json::Value) -> Self {
        Self::new(code, "application/json", body.to_string())
    }

    /// A `Status` object of the API server.
    #[must_use]
    pub fn kubernetes(code: u16, reason: &str, message: &str) -> Self {
        Self::json(code, &kubernetes_status(code, reason, message))
    }

    /// An error of AWS's JSON protocol; almost all have code 400.
    ///
    /// # Panics
    /// When `code` is no HTTP status.
    #[must_use]
    pub fn aws(code: u16, kind: &str, message: &str) -> Self {
        let body = json!({ "__type": kind, "message": message }).to_string();
        Self::new(code, "application/x-amz-json-1.1", body).header("x-amzn-requestid", AWS_REQUEST)
    }

    /// An error of AWS's protocol of forms, which STS speaks.
    ///
    /// # Panics
    /// When `code` is no HTTP status.
    #[must_use]
    pub fn aws_form(code: u16, kind: &str, message: &str) -> Self {
        let fault = if code < 500 { "Sender" } else { "Receiver" };
        let error = format!("<Error><Type>{fault}</Type><Code>{kind}</Code><Message>{message}</Message></Error>");
        let body = format!(
            "<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">{error}<RequestId>{AWS_REQUEST}</RequestId></ErrorResponse>"
        );
        Self::new(code, "text/xml", body).header("x-amzn-requestid", AWS_REQUEST)
    }

    /// JSON that a client would have to unpack to `mebibytes` and more, from about a thousandth of that. `layers` name the content
    /// codings from the innermost on: `gzip`, `deflate`.
    ///
    /// # Panics
    /// When a layer is none of these.
    #[must_use]
    pub fn bomb(mebibytes: usize, layers: &[&str]) -> Self {
        Self::new(200, "application/json", bomb::packed(mebibytes, layers)).header("content-encoding", &layers.join(", "))
    }

    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }
}

pub(super) fn kubernetes_status(code: u16, reason: &str, message: &str) -> serde_json::Value {
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {},
        "status": "Failure", "message": message, "reason": reason, "code": code,
    })
}

/// What happens to a call.
#[derive(Clone)]
pub struct Fault {
    pub(super) name: &'static str,
    pub(super) moment: Moment,
    pub(super) action: Action,
}

impl Fault {
    /// Closes the connection without an answer.
    #[must_use]
    pub fn drop(moment: Moment) -> Self {
        Self { name: "drop", moment, action: Action::Close }
    }

    /// Ends the connection by RST without an answer.
    #[must_use]
    pub fn reset(moment: Moment) -> Self {
        Self { name: "reset", moment, action: Action::Reset }
    }

    /// Answers this instead of the upstream, which never hears of the call.
    #[must_use]
    pub fn answer(answer: Answer) -> Self {
        Self { name: "answer", moment: Moment::BeforeCommit, action: Action::Answer(answer) }
    }

    /// Commits, and tells the client this instead of what the upstream said.
    #[must_use]
    pub fn answer_after_commit(answer: Answer) -> Self {
        Self { name: "answer", moment: Moment::AfterCommit, action: Action::Answer(answer) }
    }

    /// Answers this code with plain text, as something between client and server would: no word of the server itself.
    #[must_use]
    pub fn status(code: u16) -> Self {
        Self::answer(Answer::new(code, "text/plain", "the fault proxy says so\n"))
    }

    /// 410 `Expired`, as the API server answers a list or watch from a resourceVersion that it forgot.
    #[must_use]
    pub fn gone() -> Self {
        Self::answer(Answer::kubernetes(410, "Expired", "too old resource version"))
    }

    /// Answers what `answer` makes of the call, instead of the upstream.
    #[must_use]
    pub fn compute(answer: impl Fn(&Call) -> Answer + Send + Sync + 'static) -> Self {
        Self { name: "compute", moment: Moment::BeforeCommit, action: Action::Compute(Arc::new(answer)) }
    }

    /// Sends the client to the same path of another origin. What arrives there is in that one's ledger.
    ///
    /// # Panics
    /// When `code` is no HTTP status.
    #[must_use]
    pub fn redirect(code: u16, to: &Proxy) -> Self {
        let code = StatusCode::from_u16(code).expect("a valid HTTP status");
        Self { name: "redirect", moment: Moment::BeforeCommit, action: Action::Redirect(code, to.url().to_owned()) }
    }

    /// Commits, then passes on the head and the first `length` bytes of the answer (never all of them), and closes the connection.
    #[must_use]
    pub fn truncate(length: usize) -> Self {
        Self::cut(Cut::Promised, length)
    }

    /// Commits, then passes on the first `length` bytes of the answer (never all of them).
    #[must_use]
    pub fn cut(cut: Cut, length: usize) -> Self {
        Self { name: "cut", moment: Moment::AfterCommit, action: Action::Cut(cut, length) }
    }

    /// Passes on the answer under another content type.
    #[must_use]
    pub fn relabel(content_type: &str) -> Self {
        Self { name: "relabel", moment: Moment::AfterCommit, action: Action::Relabel(content_type.to_owned()) }
    }

    /// Answers each request as it was answered the first time, as a replica that lags behind would. The rule has fired when an
    /// old answer was given; the first one comes from the upstream. Not for watches.
    #[must_use]
    pub fn replay() -> Self {
        Self { name: "replay", moment: Moment::BeforeCommit, action: Action::Replay(Arc::default()) }
    }

    /// Answers 200 with `beginning` and then `piece` again and again, in chunks, for as long as the client reads.
    #[must_use]
    pub fn endless(beginning: impl Into<Bytes>, piece: impl Into<Bytes>) -> Self {
        let action = Action::Endless { beginning: beginning.into(), piece: piece.into() };
        Self { name: "endless", moment: Moment::BeforeCommit, action }
    }

    /// Passes on the answer one byte at a time, each after a pause, so that something always comes; the last byte never does, unless
    /// `Rule::release` is called.
    #[must_use]
    pub fn drip(pause: Duration) -> Self {
        Self { name: "drip", moment: Moment::AfterCommit, action: Action::Drip(pause) }
    }

    /// Passes on every line of the answer twice: each event of a watch is told again at once.
    #[must_use]
    pub fn duplicate_events() -> Self {
        Self { name: "duplicate events", moment: Moment::BeforeCommit, action: Action::DuplicateEvents }
    }

    /// Waits, then goes on as if nothing had been.
    #[must_use]
    pub fn delay(duration: Duration) -> Self {
        Self { name: "delay", moment: Moment::BeforeCommit, action: Action::Delay(duration) }
    }

    /// Waits for `Rule::release`, then goes on as if nothing had been.
    #[must_use]
    pub fn hold(moment: Moment) -> Self {
        Self { name: "hold", moment, action: Action::Hold }
    }

    /// Never answers and never forwards. `Rule::release` closes the connection.
    #[must_use]
    pub fn hang() -> Self {
        Self { name: "hang", moment: Moment::BeforeCommit, action: Action::Hang }
    }

    /// Calls `kill`, which must not return before the client is dead, then closes the connection.
    /// Nothing else goes through this proxy meanwhile.
    #[must_use]
    pub fn kill(moment: Moment, kill: impl Fn() + Send + Sync + 'static) -> Self {
        Self { name: "kill", moment, action: Action::Kill(Arc::new(kill)) }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.moment {
            Moment::BeforeCommit => write!(out, "{} before commit", self.name),
            Moment::AfterCommit => write!(out, "{} after commit", self.name),
        }
    }
}
