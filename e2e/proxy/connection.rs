//! One client connection: TLS, its calls one after the other, its own upstream connection, its end.
//! Client and upstream connections stand one to one, so what the upstream counts is what the client did.

use std::borrow::Cow;
use std::convert::Infallible;
use std::error::Error;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName};
use http::request::Parts;
use http::{Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio_rustls::server::TlsStream;
use tokio_util::task::AbortOnDropHandle;

use super::fault::{Action, Answer, Memory, Moment};
use super::ledger::{Call, OpenCall};
use super::operation::{Dialect, Operation};
use super::relay;
use super::rule::Rule;
use super::submission::Submission;
use super::{Accepting, Shared};

pub(super) type AnyError = Box<dyn Error + Send + Sync>;
pub(super) type Body = UnsyncBoxBody<Bytes, AnyError>;

/// Headers that say who a client is.
const CREDENTIALS: &[&str] = &["authorization", "cookie", "proxy-authorization", "x-amz-security-token", "x-vault-token"];

/// How the proxy ends a connection from its side.
#[derive(Clone, Copy, Debug)]
pub(super) enum End {
    /// FIN without an answer and without a TLS alert.
    Close,
    /// RST.
    Reset,
}

/// Serves one accepted connection to its end.
pub(super) async fn serve(shared: Arc<Shared>, tcp: TcpStream) {
    // Before it is counted: who saw the count may change the mode for the connections after it.
    let accepting = shared.accepting();
    let open = shared.ledger.open_connection();
    let (ending, mut ends) = mpsc::unbounded_channel();
    shared.connections.register(open.number, ending.clone());
    // Nagle and delayed acknowledgements would add 40 ms to small answers.
    let _ = tcp.set_nodelay(true);
    match accepting {
        Accepting::Reset => reset(&tcp),
        Accepting::HangTls => hang_tls(tcp, &mut ends).await,
        Accepting::Normally => {
            let acceptor = shared.acceptor.clone();
            let client = |shows_certificate| {
                let upstream = tokio::sync::Mutex::default();
                Arc::new(Client { shared, number: open.number, shows_certificate, ending, upstream })
            };
            match acceptor {
                None => answer_calls(&client(false), tcp, &mut ends).await,
                Some(acceptor) => {
                    if let Ok(tls) = acceptor.accept(tcp).await {
                        let shows_certificate = tls.get_ref().1.peer_certificates().is_some();
                        answer_calls(&client(shows_certificate), tls, &mut ends).await;
                    }
                }
            }
        }
    }
}

/// Reads what the client says and says nothing, until the client gives up or the proxy ends it.
async fn hang_tls(mut tcp: TcpStream, ends: &mut UnboundedReceiver<End>) {
    let swallow_all = async {
        let mut buffer = [0; 1024];
        while tcp.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
    };
    tokio::select! {
        () = swallow_all => {}
        _ = ends.recv() => {}
    }
}

/// What a client speaks HTTP over.
trait Socket: AsyncRead + AsyncWrite + Unpin {
    fn tcp(&self) -> &TcpStream;
}

impl Socket for TcpStream {
    fn tcp(&self) -> &TcpStream {
        self
    }
}

impl Socket for TlsStream<TcpStream> {
    fn tcp(&self) -> &TcpStream {
        self.get_ref().0
    }
}

async fn answer_calls(client: &Arc<Client>, socket: impl Socket, ends: &mut UnboundedReceiver<End>) {
    let service = service_fn(|request| {
        let client = client.clone();
        async move { Ok::<_, Infallible>(client.answer(request).await) }
    });
    let mut connection = http1::Builder::new().serve_connection(TokioIo::new(socket), service);
    let end = tokio::select! {
        biased;
        end = ends.recv() => end,
        _ = &mut connection => None,
    };
    if let Some(End::Reset) = end {
        reset(connection.into_parts().io.inner().tcp());
    }
}

/// Makes the coming close of the socket an RST.
fn reset(tcp: &TcpStream) {
    let _ = tcp.set_zero_linger();
}

struct Client {
    shared: Arc<Shared>,
    number: u64,
    shows_certificate: bool,
    ending: UnboundedSender<End>,
    upstream: tokio::sync::Mutex<Option<Upstream>>,
}

impl Client {
    /// The answer for the client. Where there is none the connection is ended, and this never returns.
    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let (head, body) = request.into_parts();
        let Ok(body) = body.collect().await else { return self.end(End::Close).await };
        let body = body.to_bytes();
        let call = self.shared.ledger.open_call(|id| self.describe(id, &head, &body));
        self.shared.record(&head, &body);
        let rule = self.shared.rules.judge(&call.call());
        let answer = match rule {
            None => self.forward(&call, &head, &body).await.map(|answer| relay::flowing(&self.shared.running, call, answer, false)),
            Some(rule) => {
                call.amend(|entry| entry.fault = Some(rule.fault().name));
                self.break_call(&rule, call, &head, &body).await
            }
        };
        match answer {
            Ok(answer) => answer,
            // The upstream went away or never was there: the client sees the same.
            Err(_) => self.end(End::Close).await,
        }
    }

    fn describe(&self, id: usize, head: &Parts, body: &Bytes) -> Call {
        let path_and_query = head.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        let user_agent = head.headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok());
        let operation = Operation::of(self.shared.dialect, head, body);
        let submission = if operation.is_login() { Submission::of(body) } else { Submission::default() };
        Call {
            id,
            at: Instant::now(),
            wall: SystemTime::now(),
            connection: self.number,
            operation,
            submission,
            shows_certificate: self.shows_certificate,
            user_agent: user_agent.unwrap_or_default().to_owned(),
            needles: self.shared.needles_in(&path_and_query, body),
            credentials: CREDENTIALS.iter().filter(|name| head.headers.contains_key(**name)).copied().collect(),
            path_and_query,
            fault: None,
            upstream: None,
            status: None,
            is_open: true,
        }
    }

    async fn break_call(&self, rule: &Rule, call: OpenCall, head: &Parts, body: &Bytes) -> Result<Response<Body>, AnyError> {
        if let Action::Replay(memory) = &rule.fault().action {
            return self.replay(memory, rule, call, head, body).await;
        }
        let committed = match rule.fault().moment {
            Moment::BeforeCommit => None,
            Moment::AfterCommit => Some(whole(self.forward(&call, head, body).await?).await?),
        };
        if let Action::Kill(kill) = &rule.fault().action {
            kill();
        }
        rule.mark_fired();
        let upstream = || committed.clone().expect("this fault strikes after commit");
        match &rule.fault().action {
            Action::Close | Action::Kill(_) => self.end::<()>(End::Close).await,
            Action::Reset => self.end::<()>(End::Reset).await,
            Action::Answer(answer) => return Ok(own_answer(call, answer)),
            Action::Compute(answer) => {
                let answer = answer(&call.call());
                return Ok(own_answer(call, &answer));
            }
            Action::Redirect(code, origin) => return Ok(redirect(call, *code, &format!("{origin}{}", head.uri))),
            Action::Cut(cut, length) => return Ok(relay::beginning(call, upstream(), *cut, *length)),
            Action::Drip(pause) => return Ok(relay::dripping(call, upstream(), *pause, rule.clone())),
            Action::Relabel(content_type) => return Ok(relabelled(call, upstream(), content_type)),
            Action::Endless { beginning, piece } => return Ok(relay::endless(call, beginning.clone(), piece.clone())),
            Action::Delay(duration) => tokio::time::sleep(*duration).await,
            Action::Hold => rule.released().await,
            Action::Hang => {
                rule.released().await;
                self.end::<()>(End::Close).await;
            }
            Action::DuplicateEvents | Action::Replay(_) => {}
        }
        if let Some(answer) = committed {
            return Ok(relay::whole(call, answer));
        }
        let is_doubled = matches!(rule.fault().action, Action::DuplicateEvents);
        let answer = self.forward(&call, head, body).await?;
        Ok(relay::flowing(&self.shared.running, call, answer, is_doubled))
    }

    /// The first answer that this request got: from memory, or now.
    async fn replay(&self, memory: &Memory, rule: &Rule, call: OpenCall, head: &Parts, body: &Bytes) -> Result<Response<Body>, AnyError> {
        let told_apart_by = if self.shared.dialect == Dialect::Aws { String::from_utf8_lossy(body) } else { Cow::default() };
        let request = (head.method.clone(), format!("{}\n{told_apart_by}", head.uri));
        if let Some(answer) = memory.recall(&request) {
            rule.mark_fired();
            return Ok(relay::whole(call, answer));
        }
        let answer = whole(self.forward(&call, head, body).await?).await?;
        memory.keep(request, &answer);
        Ok(relay::whole(call, answer))
    }

    /// Ends the connection: the task that drives it drops this future with it.
    async fn end<Never>(&self, end: End) -> Never {
        let _ = self.ending.send(end);
        std::future::pending().await
    }

    /// Sends the call upstream and returns when the head of the answer is there.
    async fn forward(&self, call: &OpenCall, head: &Parts, body: &Bytes) -> Result<Response<Incoming>, AnyError> {
        let mut request = Request::new(Full::new(body.clone()));
        *request.method_mut() = head.method.clone();
        *request.uri_mut() = head.uri.clone();
        *request.headers_mut() = end_to_end(&head.headers);
        let mut upstream = self.upstream.lock().await;
        let mut answer = send(self, &mut upstream, request).await?;
        *answer.headers_mut() = end_to_end(answer.headers());
        call.amend(|entry| entry.upstream = Some(answer.status().as_u16()));
        Ok(answer)
    }
}

/// Uses the connection that is there. One that the upstream had closed before it took the request is replaced;
/// what was sent is never sent twice.
async fn send(client: &Client, upstream: &mut Option<Upstream>, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, AnyError> {
    let mut request = request;
    if let Some(upstream) = upstream {
        match upstream.try_send(request).await {
            Ok(answer) => return Ok(answer),
            Err((_, Some(unsent))) => request = unsent,
            Err((error, None)) => return Err(error.into()),
        }
    }
    let fresh = upstream.insert(Upstream::connect(client).await?);
    fresh.try_send(request).await.map_err(|(error, _)| error.into())
}

struct Upstream {
    sender: SendRequest<Full<Bytes>>,
    _driver: AbortOnDropHandle<()>,
}

impl Upstream {
    async fn connect(client: &Client) -> Result<Self, AnyError> {
        let upstream = &client.shared.upstream;
        let tcp = TcpStream::connect((upstream.host.as_str(), upstream.port)).await?;
        tcp.set_nodelay(true)?;
        let Some(tls) = &upstream.tls else { return Self::handshake(tcp).await };
        let certified = tls.certified.as_ref().filter(|_| client.shows_certificate);
        Self::handshake(certified.unwrap_or(&tls.anonymous).connect(tls.name.clone(), tcp).await?).await
    }

    async fn handshake(io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Result<Self, AnyError> {
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(io)).await?;
        let driver = tokio::spawn(async move {
            // Its error reaches the request or the body that suffers from it.
            let _ = connection.await;
        });
        Ok(Self { sender, _driver: AbortOnDropHandle::new(driver) })
    }

    /// The request comes back where nothing of it was sent.
    async fn try_send(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, (hyper::Error, Option<Request<Full<Bytes>>>)> {
        if let Err(error) = self.sender.ready().await {
            return Err((error, Some(request)));
        }
        let mut sent = pin!(self.sender.try_send_request(request));
        sent.as_mut().await.map_err(|mut error| {
            let unsent = error.take_message();
            (error.into_error(), unsent)
        })
    }
}

async fn whole(answer: Response<Incoming>) -> Result<Response<Bytes>, AnyError> {
    let (head, body) = answer.into_parts();
    Ok(Response::from_parts(head, body.collect().await?.to_bytes()))
}

fn redirect(call: OpenCall, code: StatusCode, to: &str) -> Response<Body> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = code;
    response.headers_mut().insert(header::LOCATION, to.parse().expect("an address is a header value"));
    relay::whole(call, response)
}

fn relabelled(call: OpenCall, mut answer: Response<Bytes>, content_type: &str) -> Response<Body> {
    answer.headers_mut().insert(header::CONTENT_TYPE, content_type.parse().expect("a content type is a header value"));
    relay::whole(call, answer)
}

fn own_answer(call: OpenCall, answer: &Answer) -> Response<Body> {
    let mut response = Response::new(answer.body.clone());
    *response.status_mut() = answer.status;
    for (name, value) in &answer.headers {
        let name: HeaderName = name.parse().expect("a rule's header name is valid");
        response.headers_mut().append(name, value.parse().expect("a rule's header value is valid"));
    }
    relay::whole(call, response)
}

/// Headers that belong to one connection stay on it; hyper frames each side anew.
fn end_to_end(headers: &HeaderMap) -> HeaderMap {
    let mut kept = headers.clone();
    for name in [
        header::CONNECTION,
        header::TRANSFER_ENCODING,
        header::TE,
        header::TRAILER,
        header::UPGRADE,
        header::EXPECT,
        HeaderName::from_static("keep-alive"),
    ] {
        kept.remove(name);
    }
    kept
}
