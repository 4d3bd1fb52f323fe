//! Each fault as a client sees it, before a real server, through real TLS.

use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use reqwest::{Certificate, Client};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast;
use tokio_util::task::AbortOnDropHandle;

use super::*;

const SECRETS: &str = "/api/v1/namespaces/a/secrets";

/// A server that remembers what reached it and answers with the number of the request.
struct Upstream {
    url: String,
    state: Arc<UpstreamState>,
    _server: AbortOnDropHandle<()>,
}

struct UpstreamState {
    reached: Mutex<Vec<String>>,
    events: broadcast::Sender<&'static str>,
}

type UpstreamBody = http_body_util::combinators::UnsyncBoxBody<Bytes, Infallible>;

impl Upstream {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(UpstreamState { reached: Mutex::default(), events: broadcast::Sender::new(16) });
        let serving = state.clone();
        let server = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((tcp, _)) = listener.accept().await {
                let state = serving.clone();
                let service = service_fn(move |request| answer(state.clone(), request));
                let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(tcp), service);
                connections.spawn(async move { drop(connection.await) });
            }
        });
        Self { url, state, _server: AbortOnDropHandle::new(server) }
    }

    fn reached(&self) -> Vec<String> {
        self.state.reached.lock().unwrap().clone()
    }
}

async fn answer(state: Arc<UpstreamState>, request: hyper::Request<Incoming>) -> Result<http::Response<UpstreamBody>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let token = head.headers.get("authorization").map_or("", |value| value.to_str().unwrap());
    let text = format!("{} {} {token} {}", head.method, head.uri, String::from_utf8_lossy(&body));
    let number = {
        let mut reached = state.reached.lock().unwrap();
        reached.push(text);
        reached.len()
    };
    let response = http::Response::builder().header("x-upstream", "yes");
    if head.uri.query().is_some_and(|query| query.contains("watch=true")) {
        return Ok(response.body(events(state.events.subscribe())).unwrap());
    }
    let response = if head.uri.path().ends_with("/closing") { response.header("connection", "close") } else { response };
    let body = http_body_util::Full::new(Bytes::from(format!("answer {number}")));
    Ok(response.status(201).body(body.boxed_unsync()).unwrap())
}

fn events(receiver: broadcast::Receiver<&'static str>) -> UpstreamBody {
    let frames = futures::stream::unfold(receiver, |mut receiver| async move {
        let line = receiver.recv().await.ok().filter(|line| *line != "end")?;
        Some((Ok(Frame::data(Bytes::from_static(line.as_bytes()))), receiver))
    });
    StreamBody::new(Box::pin(frames)).boxed_unsync()
}

fn client(proxy: &Proxy) -> Client {
    let ca = Certificate::from_pem(proxy.ca_pem().as_bytes()).unwrap();
    let builder = Client::builder().tls_certs_only([ca]).no_proxy().no_gzip().user_agent("the-client/1");
    builder.retry(reqwest::retry::never()).build().unwrap()
}

async fn proxied() -> (Upstream, Proxy, Client) {
    let upstream = Upstream::start().await;
    let proxy = Proxy::start(&upstream.url, "", Options::kubernetes());
    let client = client(&proxy);
    (upstream, proxy, client)
}

/// The answered text of a GET, or the innermost error.
async fn get(proxy: &Proxy, client: &Client, path: &str) -> Result<String, String> {
    let answer = client.get(format!("{}{path}", proxy.url())).send().await;
    let text = match answer {
        Ok(answer) => answer.text().await,
        Err(error) => Err(error),
    };
    text.map_err(|error| innermost(&error))
}

fn innermost(error: &reqwest::Error) -> String {
    let mut inner: &dyn std::error::Error = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner.to_string()
}

fn get_in_background(proxy: &Proxy, client: &Client, path: &str) -> tokio::task::JoinHandle<Result<String, String>> {
    let request = client.get(format!("{}{path}", proxy.url()));
    tokio::spawn(async move {
        let answer = request.send().await.map_err(|error| innermost(&error))?;
        answer.text().await.map_err(|error| innermost(&error))
    })
}

/// Time enough for a call that is only said to wait to show itself.
async fn others_pass(proxy: &Proxy, client: &Client) {
    for _ in 0..5 {
        get(proxy, client, "/version").await.unwrap();
    }
}

fn panics(action: impl FnOnce()) -> Option<String> {
    let panic = catch_unwind(AssertUnwindSafe(action)).err()?;
    Some(panic.downcast::<String>().map_or_else(|_| String::new(), |text| *text))
}

#[tokio::test]
async fn a_call_without_a_rule_goes_through_unchanged_and_is_counted() {
    let upstream = Upstream::start().await;
    let behind = Proxy::start(&upstream.url, "", Options::kubernetes());
    let proxy = Proxy::start(behind.url(), behind.ca_pem(), Options::kubernetes());
    let client = client(&proxy);

    let request = client.patch(format!("{}{SECRETS}/db?fieldManager=k", proxy.url()));
    let request = request.header("content-type", "application/apply-patch+yaml").bearer_auth("t").body("the body");
    let answer = request.send().await.unwrap();

    assert_eq!(answer.status(), 201);
    assert_eq!(answer.headers()["x-upstream"], "yes");
    assert_eq!(answer.text().await.unwrap(), "answer 1");
    assert_eq!(upstream.reached(), [format!("PATCH {SECRETS}/db?fieldManager=k Bearer t the body")]);
    let calls = proxy.await_calls(|calls| calls.iter().all(|call| !call.is_open)).await;
    assert_eq!(calls.len(), 1);
    assert_eq!(calls[0].id, 0);
    assert_eq!(calls[0].path_and_query, format!("{SECRETS}/db?fieldManager=k"));
    assert!(calls[0].at <= Instant::now() && calls[0].wall <= SystemTime::now());
    assert_eq!(calls[0].operation.to_string(), "apply secrets a/db");
    assert_eq!((calls[0].upstream, calls[0].status, calls[0].fault), (Some(201), Some(201), None));
    assert_eq!(calls[0].user_agent, "the-client/1");
    assert_eq!(behind.count(&Matcher::operation(&calls[0].operation)), 1);
}

#[tokio::test]
async fn a_call_dropped_before_commit_never_reaches_the_server() {
    let (upstream, proxy, client) = proxied().await;
    let rule = proxy.on(Matcher::any(), Nth::every(), Fault::drop(Moment::BeforeCommit));

    get(&proxy, &client, SECRETS).await.unwrap_err();

    rule.assert_fired();
    assert!(upstream.reached().is_empty());
    assert_eq!((proxy.calls()[0].upstream, proxy.calls()[0].status), (None, None));
}

#[tokio::test]
async fn a_call_dropped_after_commit_reaches_the_server_once_and_gets_no_answer() {
    let (upstream, proxy, client) = proxied().await;
    let rule = proxy.on(Matcher::any(), Nth::every(), Fault::drop(Moment::AfterCommit));

    get(&proxy, &client, SECRETS).await.unwrap_err();

    rule.assert_fired();
    assert_eq!(upstream.reached().len(), 1);
    assert_eq!((proxy.calls()[0].upstream, proxy.calls()[0].status), (Some(201), None));
}

#[tokio::test]
async fn exactly_the_counted_calls_are_broken() {
    for (nth, expected) in
        [(Nth::only(2), "1 0 1 1 1"), (Nth::from(3), "1 1 0 0 0"), (Nth::between(2, 4), "1 0 0 0 1"), (Nth::every(), "0 0 0 0 0")]
    {
        let (_upstream, proxy, client) = proxied().await;
        let rule = proxy.on(Matcher::any().verb("get").name("db"), nth.clone(), Fault::drop(Moment::BeforeCommit));
        let mut outcomes = Vec::new();
        for _ in 0..5 {
            get(&proxy, &client, SECRETS).await.unwrap();
            get(&proxy, &client, &format!("{SECRETS}/other")).await.unwrap();
            outcomes.push(u8::from(get(&proxy, &client, &format!("{SECRETS}/db")).await.is_ok()).to_string());
        }
        assert_eq!(outcomes.join(" "), expected, "{nth:?}");
        assert_eq!(rule.times_fired(), expected.matches('0').count() as u64);
    }
}

#[tokio::test]
async fn every_condition_of_a_matcher_counts() {
    let (_upstream, proxy, client) = proxied().await;
    get(&proxy, &client, &format!("{SECRETS}/db")).await.unwrap();
    let call = &proxy.calls()[0];
    let full = || Matcher::any().verb("get").resource("secrets").namespace("a").name("db");

    assert!(full().matches(call));
    assert!(full().resource_prefix("sec").when("from the client", |call| call.user_agent.starts_with("the-client")).matches(call));
    assert!(!full().verb("list").matches(call));
    assert!(!full().resource("configmaps").matches(call));
    assert!(!full().resource_prefix("con").matches(call));
    assert!(!full().namespace("b").matches(call));
    assert!(!full().name("dc").matches(call));
    assert!(!full().when("never", |_| false).matches(call));
    assert!(!Matcher::operation(&Operation { verb: "list".to_owned(), ..call.operation.clone() }).matches(call));
}

#[tokio::test]
async fn the_oldest_of_two_rules_breaks_a_call_and_both_count_it() {
    let (_upstream, proxy, client) = proxied().await;
    let older = proxy.on(Matcher::any(), Nth::only(1), Fault::status(503));
    let younger = proxy.on(Matcher::any(), Nth::between(1, 2), Fault::status(429));
    let mut answers = Vec::new();
    for _ in 0..3 {
        let answer = client.get(proxy.url()).send().await.unwrap();
        answers.push((answer.status().as_u16(), answer.text().await.unwrap()));
    }
    let own = "the fault proxy says so\n".to_owned();
    assert_eq!(answers, [(503, own.clone()), (429, own), (201, "answer 1".to_owned())]);
    assert_eq!((older.times_fired(), younger.times_fired()), (1, 1));
}

#[tokio::test]
async fn an_own_answer_carries_status_headers_and_body_and_the_server_hears_nothing() {
    let (upstream, proxy, client) = proxied().await;
    let answer = Answer::kubernetes(429, "TooManyRequests", "slow down").header("retry-after", "7");
    let rule = proxy.on(Matcher::any(), Nth::every(), Fault::answer(answer));

    let answer = client.get(format!("{}{SECRETS}", proxy.url())).send().await.unwrap();

    rule.assert_fired();
    assert_eq!(answer.status(), 429);
    assert_eq!(answer.headers()["retry-after"], "7");
    let status: serde_json::Value = answer.json().await.unwrap();
    assert_eq!(status["reason"], "TooManyRequests");
    assert!(upstream.reached().is_empty());
    assert_eq!((proxy.calls()[0].upstream, proxy.calls()[0].status, proxy.calls()[0].fault), (None, Some(429), Some("answer")));
}

#[tokio::test]
async fn a_committed_call_can_be_answered_with_a_lie() {
    let (upstream, proxy, client) = proxied().await;
    let lie = Fault::answer_after_commit(Answer::kubernetes(504, "Timeout", "request timed out"));
    let rule = proxy.on(Matcher::any(), Nth::every(), lie);

    let answer = client.get(format!("{}{SECRETS}", proxy.url())).send().await.unwrap();

    rule.assert_fired();
    assert_eq!(answer.status(), 504);
    assert_eq!(upstream.reached().len(), 1);
    assert_eq!((proxy.calls()[0].upstream, proxy.calls()[0].status), (Some(201), Some(504)));
}

#[tokio::test]
async fn a_truncated_answer_breaks_off_in_the_middle() {
    let (_upstream, proxy, client) = proxied().await;
    let rule = proxy.on(Matcher::any(), Nth::only(1), Fault::truncate(3));
    let mut answer = client.get(format!("{}{SECRETS}", proxy.url())).send().await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.content_length()), (201, Some("answer 1".len() as u64)));
    assert_eq!(answer.chunk().await.unwrap().unwrap(), "ans");
    answer.chunk().await.unwrap_err();
    rule.assert_fired();
    get(&proxy, &client, SECRETS).await.unwrap();
}

#[tokio::test]
async fn an_answer_is_cut_with_its_length_promised_in_chunks_or_unnoticed() {
    // (how, what the head says of the length, whether the client can tell)
    let cases = [(Cut::Promised, Some(8), true), (Cut::Chunked, None, true), (Cut::Unnoticed, Some(3), false)];
    for (cut, length, is_noticed) in cases {
        let (_upstream, proxy, client) = proxied().await;
        let rule = proxy.on(Matcher::any(), Nth::only(1), Fault::cut(cut, 3));
        let mut answer = client.get(format!("{}{SECRETS}", proxy.url())).send().await.unwrap();
        assert_eq!(answer.headers().get("content-length").map(|value| value.to_str().unwrap().parse().unwrap()), length, "{cut:?}");
        assert_eq!(answer.headers().contains_key("transfer-encoding"), length.is_none(), "{cut:?}");
        assert_eq!(answer.chunk().await.unwrap().unwrap(), "ans");
        assert_eq!(answer.chunk().await.is_err(), is_noticed, "{cut:?}");
        rule.assert_fired();
        assert_eq!(get(&proxy, &client, SECRETS).await.unwrap(), "answer 2");
    }
}

#[tokio::test]
async fn an_answer_is_never_passed_on_whole_however_late_it_is_cut() {
    let (_upstream, proxy, client) = proxied().await;
    let _rule = proxy.on(Matcher::any(), Nth::every(), Fault::cut(Cut::Unnoticed, 1000));
    assert_eq!(get(&proxy, &client, SECRETS).await.unwrap(), "answer ");
}

#[tokio::test]
async fn a_replay_answers_each_request_as_the_first_time() {
    let (upstream, proxy, client) = proxied().await;
    let rule = proxy.on(Matcher::any().resource("secrets"), Nth::every(), Fault::replay());
    assert_eq!(get(&proxy, &client, &format!("{SECRETS}/a")).await.unwrap(), "answer 1");
    assert_eq!(rule.times_fired(), 0, "this was the truth");
    assert_eq!(get(&proxy, &client, &format!("{SECRETS}/b")).await.unwrap(), "answer 2");
    assert_eq!(get(&proxy, &client, &format!("{SECRETS}/a?v=1")).await.unwrap(), "answer 3", "another request");
    assert_eq!(get(&proxy, &client, &format!("{SECRETS}/a")).await.unwrap(), "answer 1");
    assert_eq!((rule.times_fired(), upstream.reached().len()), (1, 3));
    rule.withdraw();
    assert_eq!(get(&proxy, &client, &format!("{SECRETS}/a")).await.unwrap(), "answer 4");
}

#[tokio::test]
async fn a_redirect_that_is_followed_arrives_elsewhere_and_its_credentials_are_seen() {
    for code in [301, 302, 307, 308] {
        let (upstream, proxy, client) = proxied().await;
        let elsewhere = proxy.beside();
        assert_ne!(elsewhere.url(), proxy.url());
        let rule = proxy.on(Matcher::any(), Nth::every(), Fault::redirect(code, &elsewhere));
        let request = client.get(format!("{}{SECRETS}?a=b", proxy.url())).header("x-vault-token", "t").bearer_auth("t");
        assert_eq!(request.send().await.unwrap().text().await.unwrap(), "answer 1", "{code}");
        rule.assert_fired();
        let seen = elsewhere.calls();
        assert_eq!(seen.len(), 1);
        assert_eq!(seen[0].path_and_query, format!("{SECRETS}?a=b"));
        // This client takes away what it knows to be a credential, and knows nothing of Vault.
        assert_eq!(seen[0].credentials, ["x-vault-token"]);
        assert_eq!(proxy.calls()[0].credentials, ["authorization", "x-vault-token"]);
        assert_eq!((proxy.calls()[0].status, upstream.reached().len()), (Some(code), 1));
    }
}

#[tokio::test]
async fn a_bomb_is_small_on_the_wire_and_large_once_unpacked() {
    for layers in [&["gzip"][..], &["gzip", "deflate"], &["gzip", "gzip"]] {
        let (_upstream, proxy, client) = proxied().await;
        let _rule = proxy.on(Matcher::any(), Nth::every(), Fault::answer(Answer::bomb(300, layers)));
        let answer = client.get(proxy.url()).header("accept-encoding", "identity").send().await.unwrap();
        assert_eq!(answer.headers()["content-encoding"].to_str().unwrap(), layers.join(", "));
        let packed = answer.bytes().await.unwrap();
        assert!(packed.len() < 600 << 10, "{} bytes for 300 MiB", packed.len());
        let unpacked: Box<dyn std::io::Read> = match layers {
            ["gzip"] => Box::new(flate2::read::GzDecoder::new(&packed[..])),
            [_, "deflate"] => Box::new(flate2::read::GzDecoder::new(flate2::read::ZlibDecoder::new(&packed[..]))),
            _ => Box::new(flate2::read::GzDecoder::new(flate2::read::GzDecoder::new(&packed[..]))),
        };
        // The whole of the first shows its checksum; of the others the beginning is enough.
        let limit = if layers.len() == 1 { u64::MAX } else { 9 << 20 };
        let size = std::io::copy(&mut std::io::Read::take(unpacked, limit), &mut std::io::sink()).unwrap();
        assert!(size >= (300 << 20).min(limit), "{size}");
    }
}

#[tokio::test]
async fn an_endless_answer_goes_on_for_as_long_as_it_is_read() {
    let (_upstream, proxy, client) = proxied().await;
    let _rule = proxy.on(Matcher::any(), Nth::only(1), Fault::endless("{\"data\":\"", vec![b'a'; 64 << 10]));
    let mut answer = client.get(proxy.url()).send().await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.content_length()), (200, None));
    let mut read = 0;
    while read < 20 << 20 {
        read += answer.chunk().await.unwrap().expect("there is always more").len();
    }
    assert!(proxy.calls()[0].is_open);
    drop(answer);
    proxy.await_calls(|calls| !calls[0].is_open).await;
    get(&proxy, &client, SECRETS).await.unwrap();
}

#[tokio::test]
async fn a_dripping_answer_comes_byte_by_byte_and_never_ends() {
    let (_upstream, proxy, client) = proxied().await;
    let rule = proxy.on(Matcher::any().resource("secrets"), Nth::every(), Fault::drip(Duration::from_millis(1)));
    let mut answer = client.get(format!("{}{SECRETS}", proxy.url())).send().await.unwrap();
    assert_eq!(answer.content_length(), Some(8));
    let mut read = Vec::new();
    while read.len() < 7 {
        let chunk = answer.chunk().await.unwrap().unwrap();
        assert_eq!(chunk.len(), 1);
        read.extend(chunk);
    }
    assert_eq!(read, b"answer ");
    others_pass(&proxy, &self::client(&proxy)).await;
    assert!(proxy.calls()[0].is_open);
    rule.release();
    assert_eq!(answer.chunk().await.unwrap().unwrap(), "1");
    assert_eq!(answer.chunk().await.unwrap(), None);
}

#[tokio::test]
async fn an_answer_gets_another_content_type() {
    let (_upstream, proxy, client) = proxied().await;
    let _rule = proxy.on(Matcher::any(), Nth::every(), Fault::relabel("text/html"));
    let answer = client.get(format!("{}{SECRETS}", proxy.url())).send().await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.headers()["content-type"].to_str().unwrap()), (201, "text/html"));
    assert_eq!(answer.text().await.unwrap(), "answer 1");
}

#[tokio::test]
async fn an_answer_can_be_computed_from_the_call() {
    let (upstream, proxy, client) = proxied().await;
    let told = |call: &Call| Answer::new(200, "text/plain", format!("{} {}", call.id, call.operation));
    let _rule = proxy.on(Matcher::any(), Nth::every(), Fault::compute(told));
    assert_eq!(get(&proxy, &client, SECRETS).await.unwrap(), "0 list secrets a/");
    assert_eq!(get(&proxy, &client, &format!("{SECRETS}/b")).await.unwrap(), "1 get secrets a/b");
    assert!(upstream.reached().is_empty());
}

#[tokio::test]
async fn headers_of_a_mebibyte_are_sent_as_they_are() {
    let (_upstream, proxy, _client) = proxied().await;
    let answer = Answer::json(200, &serde_json::json!({})).header("x-large", &"a".repeat(1 << 20));
    let _rule = proxy.on(Matcher::any(), Nth::every(), Fault::answer(answer));
    // A client of HTTP takes no such header: its bytes are counted below it.
    let connector = TlsConnector::from(tls::client_config(proxy.ca_pem(), None));
    let tcp = TcpStream::connect(proxy.url().trim_start_matches("https://")).await.unwrap();
    let mut tls = connector.connect(ServerName::try_from("127.0.0.1").unwrap(), tcp).await.unwrap();
    tls.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut said = Vec::new();
    let _ = tls.read_to_end(&mut said).await;
    let head = said.windows(4).position(|window| window == b"\r\n\r\n").expect("a head");
    assert!(head > 1 << 20, "{head}");
}

#[tokio::test]
async fn a_delayed_call_is_answered_later_and_not_otherwise() {
    let (_upstream, proxy, client) = proxied().await;
    let delay = Duration::from_millis(60);
    let rule = proxy.on(Matcher::any(), Nth::only(1), Fault::delay(delay));
    let start = Instant::now();
    assert_eq!(get(&proxy, &client, SECRETS).await.unwrap(), "answer 1");
    assert!(start.elapsed() >= delay);
    rule.assert_fired();
}

#[tokio::test]
async fn a_hanging_call_gets_no_answer_until_it_is_released_and_then_none() {
    let (upstream, proxy, client) = proxied().await;
    let rule = proxy.on(Matcher::any().name("db"), Nth::every(), Fault::hang());
    let hanging = get_in_background(&proxy, &client, &format!("{SECRETS}/db"));
    rule.fired().await;

    others_pass(&proxy, &client).await;
    assert!(!hanging.is_finished());
    assert!(proxy.calls()[0].is_open);
    rule.release();

    hanging.await.unwrap().unwrap_err();
    assert!(upstream.reached().iter().all(|text| text.contains("/version")));
}

#[tokio::test]
async fn a_call_given_up_by_the_client_is_open_no_more() {
    let (_upstream, proxy, client) = proxied().await;
    let rule = proxy.on(Matcher::any(), Nth::every(), Fault::hang());
    let hanging = get_in_background(&proxy, &client, SECRETS);
    rule.fired().await;
    hanging.abort();
    let seen = proxy.await_seen(|seen| seen.connections_open == 0).await;
    assert!(!seen.calls[0].is_open);
}

#[tokio::test]
async fn a_held_call_waits_before_or_after_commit_and_then_goes_on() {
    for (moment, reached) in [(Moment::BeforeCommit, 0), (Moment::AfterCommit, 1)] {
        let (upstream, proxy, client) = proxied().await;
        let rule = proxy.on(Matcher::any().name("db"), Nth::every(), Fault::hold(moment));
        let held = get_in_background(&proxy, &client, &format!("{SECRETS}/db"));
        rule.fired().await;
        others_pass(&proxy, &client).await;
        assert_eq!(upstream.reached().iter().filter(|text| text.contains("/db")).count(), reached);
        assert!(!held.is_finished());
        rule.release();
        held.await.unwrap().unwrap();
        assert_eq!(upstream.reached().iter().filter(|text| text.contains("/db")).count(), 1);
    }
}

#[tokio::test]
async fn a_withdrawn_rule_lets_go_and_strikes_no_more() {
    let (_upstream, proxy, client) = proxied().await;
    let rule = proxy.hold(Matcher::any());
    let held = get_in_background(&proxy, &client, SECRETS);
    rule.fired().await;
    rule.withdraw();
    held.await.unwrap().unwrap();
    get(&proxy, &client, SECRETS).await.unwrap();
    assert_eq!(rule.times_fired(), 1);
    assert_eq!(proxy.calls()[1].fault, None);
}

#[tokio::test]
async fn a_hanging_handshake_is_a_connection_without_a_call() {
    let (_upstream, proxy, client) = proxied().await;
    proxy.accept(Accepting::HangTls);
    let hanging = get_in_background(&proxy, &client, SECRETS);
    proxy.await_seen(|seen| seen.connections_open == 1).await;

    proxy.accept(Accepting::Normally);
    others_pass(&proxy, &self::client(&proxy)).await;
    assert!(!hanging.is_finished());
    assert!(proxy.calls().iter().all(|call| call.operation.resource == "/version"));

    assert!(proxy.close_connections() >= 1);
    hanging.await.unwrap().unwrap_err();
    get(&proxy, &client, SECRETS).await.unwrap();
}

#[tokio::test]
async fn a_reset_is_seen_as_a_reset() {
    let (upstream, proxy, client) = proxied().await;
    for (number, moment) in [Moment::BeforeCommit, Moment::AfterCommit].into_iter().enumerate() {
        let rule = proxy.on(Matcher::any(), Nth::only(1), Fault::reset(moment));
        let error = get(&proxy, &client, SECRETS).await.unwrap_err();
        assert!(error.contains("reset by peer"), "{error}");
        assert_eq!(upstream.reached().len(), number);
        rule.assert_fired();
    }
    proxy.accept(Accepting::Reset);
    let error = get(&proxy, &client, SECRETS).await.unwrap_err();
    assert!(error.contains("reset by peer"), "{error}");
}

#[tokio::test]
async fn a_dropped_connection_is_not_seen_as_a_reset() {
    let (_upstream, proxy, client) = proxied().await;
    let _rule = proxy.on(Matcher::any(), Nth::only(1), Fault::drop(Moment::BeforeCommit));
    let error = get(&proxy, &client, SECRETS).await.unwrap_err();
    assert!(!error.contains("reset by peer"), "{error}");
}

#[tokio::test]
async fn a_list_or_watch_can_be_answered_as_expired() {
    let (upstream, proxy, client) = proxied().await;
    let rule = proxy.on(Matcher::any().verb("watch"), Nth::every(), Fault::gone());
    let answer = client.get(format!("{}{SECRETS}?watch=true", proxy.url())).send().await.unwrap();
    assert_eq!(answer.status(), 410);
    let status: serde_json::Value = answer.json().await.unwrap();
    assert_eq!((&status["kind"], &status["reason"], &status["code"]), (&"Status".into(), &"Expired".into(), &410.into()));
    rule.assert_fired();
    assert!(upstream.reached().is_empty());
}

/// A watch that got its first event.
async fn watching(upstream: &Upstream, proxy: &Proxy, client: &Client) -> reqwest::Response {
    let mut watch = client.get(format!("{}{SECRETS}?watch=true", proxy.url())).send().await.unwrap();
    upstream.state.events.send("first\n").unwrap();
    assert_eq!(watch.chunk().await.unwrap().unwrap(), "first\n");
    watch
}

#[tokio::test]
async fn a_watch_flows_event_by_event() {
    let (upstream, proxy, client) = proxied().await;
    let mut watch = watching(&upstream, &proxy, &client).await;
    for event in ["second\n", "third\n"] {
        upstream.state.events.send(event).unwrap();
        assert_eq!(watch.chunk().await.unwrap().unwrap(), event);
    }
    assert!(proxy.calls()[0].is_open);
    upstream.state.events.send("end").unwrap();
    assert_eq!(watch.chunk().await.unwrap(), None);
    proxy.await_calls(|calls| !calls[0].is_open).await;
}

#[tokio::test]
async fn a_watch_given_up_by_the_client_is_given_up_upstream_too() {
    let (upstream, proxy, client) = proxied().await;
    let watch = watching(&upstream, &proxy, &client).await;
    drop((watch, client));
    let seen = proxy.await_seen(|seen| seen.connections_open == 0).await;
    assert!(!seen.calls[0].is_open);
    upstream.state.events.closed().await;
}

#[tokio::test]
async fn a_running_watch_is_cut_in_the_middle() {
    let (upstream, proxy, client) = proxied().await;
    let mut watch = watching(&upstream, &proxy, &client).await;
    assert_eq!(proxy.end_watches(&Matcher::any().verb("list"), WatchEnd::Cut), 0);
    assert_eq!(proxy.end_watches(&Matcher::any().verb("watch"), WatchEnd::Cut), 1);
    watch.chunk().await.unwrap_err();
    proxy.await_seen(|seen| seen.connections_open == 0).await;
}

#[tokio::test]
async fn a_running_watch_ends_in_good_order() {
    let (upstream, proxy, client) = proxied().await;
    let mut watch = watching(&upstream, &proxy, &client).await;
    assert_eq!(proxy.end_watches(&Matcher::any(), WatchEnd::Finish), 1);
    assert_eq!(watch.chunk().await.unwrap(), None);
    assert_eq!(proxy.end_watches(&Matcher::any(), WatchEnd::Finish), 0);
}

#[tokio::test]
async fn a_running_watch_expires_after_the_event_that_was_begun() {
    let (upstream, proxy, client) = proxied().await;
    let mut watch = watching(&upstream, &proxy, &client).await;
    upstream.state.events.send("half an ").unwrap();
    assert_eq!(watch.chunk().await.unwrap().unwrap(), "half an ");
    assert_eq!(proxy.end_watches(&Matcher::any(), WatchEnd::Gone), 1);
    upstream.state.events.send("event\n").unwrap();
    let rest = watch.text().await.unwrap();
    let (event, error) = rest.split_once('\n').unwrap();
    assert_eq!(event, "event");
    let error: serde_json::Value = serde_json::from_str(error).unwrap();
    assert_eq!((&error["type"], &error["object"]["code"]), (&"ERROR".into(), &410.into()));
}

#[tokio::test]
async fn a_held_watch_shows_nothing_until_it_goes_on_and_then_everything() {
    let (upstream, proxy, client) = proxied().await;
    let mut watch = watching(&upstream, &proxy, &client).await;
    assert_eq!(proxy.hold_watches(&Matcher::any().verb("list")), 0);
    assert_eq!(proxy.hold_watches(&Matcher::any().verb("watch")), 1);
    for event in ["second\n", "third\n"] {
        upstream.state.events.send(event).unwrap();
    }
    let next = tokio::spawn(async move { (watch.chunk().await.unwrap().unwrap(), watch) });
    others_pass(&proxy, &self::client(&proxy)).await;
    assert!(!next.is_finished());
    assert!(proxy.calls()[0].is_open);
    assert_eq!(proxy.release_watches(&Matcher::any().verb("watch")), 1);
    let (first, mut watch) = next.await.unwrap();
    upstream.state.events.send("end").unwrap();
    let mut rest = first.to_vec();
    while let Some(chunk) = watch.chunk().await.unwrap() {
        rest.extend(chunk);
    }
    assert_eq!(rest, b"second\nthird\n");
}

#[tokio::test]
async fn a_held_watch_can_be_ended() {
    let (upstream, proxy, client) = proxied().await;
    let mut watch = watching(&upstream, &proxy, &client).await;
    assert_eq!(proxy.hold_watches(&Matcher::any()), 1);
    assert_eq!(proxy.end_watches(&Matcher::any(), WatchEnd::Finish), 1);
    assert_eq!(watch.chunk().await.unwrap(), None);
}

#[tokio::test]
async fn every_event_of_a_watch_is_told_twice_in_whole_lines() {
    let (upstream, proxy, client) = proxied().await;
    let rule = proxy.on(Matcher::any().verb("watch"), Nth::every(), Fault::duplicate_events());
    let mut watch = client.get(format!("{}{SECRETS}?watch=true", proxy.url())).send().await.unwrap();
    for piece in ["one\n", "half an ", "event\nand ", "another\n", "end"] {
        upstream.state.events.send(piece).unwrap();
    }
    let mut told = Vec::new();
    while let Some(chunk) = watch.chunk().await.unwrap() {
        told.extend(chunk);
    }
    let told = String::from_utf8(told).unwrap();
    assert_eq!(told.lines().collect::<Vec<_>>(), ["one", "one", "half an event", "half an event", "and another", "and another"]);
    rule.assert_fired();
}

/// A process that ends by itself only when this one does.
fn victim() -> std::process::Child {
    let mut command = std::process::Command::new("cat");
    command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::null()).spawn().unwrap()
}

#[tokio::test]
async fn a_kill_strikes_before_or_after_commit_and_before_the_client_knows() {
    for (moment, reached) in [(Moment::BeforeCommit, 0), (Moment::AfterCommit, 1)] {
        let (upstream, proxy, client) = proxied().await;
        let victim = Arc::new(Mutex::new(victim()));
        let (state, reached_at_kill) = (upstream.state.clone(), Arc::new(Mutex::new(None)));
        let (target, note) = (victim.clone(), reached_at_kill.clone());
        let rule = proxy.on(
            Matcher::any(),
            Nth::only(1),
            Fault::kill(moment, move || {
                *note.lock().unwrap() = Some(state.reached.lock().unwrap().len());
                let mut target = target.lock().unwrap();
                target.kill().unwrap();
                target.wait().unwrap();
            }),
        );

        get(&proxy, &client, SECRETS).await.unwrap_err();

        rule.assert_fired();
        assert_eq!(*reached_at_kill.lock().unwrap(), Some(reached));
        assert_eq!(upstream.reached().len(), reached);
        assert!(victim.lock().unwrap().try_wait().unwrap().is_some(), "dead when the client hears of it");
    }
}

#[tokio::test]
async fn connections_are_counted_as_opened_and_as_open() {
    let (_upstream, proxy, first) = proxied().await;
    get(&proxy, &first, SECRETS).await.unwrap();
    get(&proxy, &first, SECRETS).await.unwrap();
    assert_eq!((proxy.seen().connections_opened, proxy.seen().connections_open), (1, 1), "kept alive");
    let second = client(&proxy);
    get(&proxy, &second, SECRETS).await.unwrap();
    assert_eq!((proxy.seen().connections_opened, proxy.seen().connections_open), (2, 2));
    assert_eq!(proxy.calls()[2].connection, 2);
    drop(first);
    let seen = proxy.await_seen(|seen| seen.connections_open == 1).await;
    assert_eq!(seen.connections_opened, 2);
    assert_eq!(proxy.reset_connections(), 1);
    proxy.await_seen(|seen| seen.connections_open == 0).await;
}

#[tokio::test]
async fn a_rule_that_never_fired_fails_the_test() {
    let (_upstream, proxy, client) = proxied().await;
    let rule = proxy.on(Matcher::any().verb("delete"), Nth::only(2), Fault::hang());
    get(&proxy, &client, SECRETS).await.unwrap();

    let asked = panics(|| rule.assert_fired()).expect("asking the rule fails");
    assert!(asked.contains("hang before commit on verb delete, calls 2 to 2 (0 matched)"), "{asked}");
    let ended = panics(|| drop(proxy)).expect("ending the proxy fails");
    assert!(ended.contains("verb delete"), "{ended}");
}

#[tokio::test]
async fn a_rule_that_may_stay_silent_fails_nothing() {
    let (_upstream, proxy, _client) = proxied().await;
    let _rule = proxy.on(Matcher::any(), Nth::only(1), Fault::hang()).may_stay_silent();
    assert_eq!(panics(|| drop(proxy)), None);
}

#[tokio::test]
async fn a_fault_after_commit_did_not_fire_when_nothing_was_committed() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::start(&upstream.url, "", Options::kubernetes());
    drop(upstream);
    let rule = proxy.on(Matcher::any(), Nth::every(), Fault::drop(Moment::AfterCommit)).may_stay_silent();
    get(&proxy, &client(&proxy), SECRETS).await.unwrap_err();
    assert_eq!(rule.times_fired(), 0);
}

#[tokio::test]
async fn needles_are_found_in_bodies_and_paths_and_only_named() {
    let upstream = Upstream::start().await;
    let options = Options::vault().needle("canary", "s3cr3t").needle("other", "absent");
    let proxy = Proxy::start(&upstream.url, "", options);
    let client = client(&proxy);
    let url = format!("{}/v1/secret/data/db", proxy.url());
    client.post(&url).body("{\"password\":\"s3cr3t\"}").send().await.unwrap();
    client.get(format!("{url}?q=s3cr3t")).send().await.unwrap();
    client.get(&url).send().await.unwrap();
    let needles: Vec<_> = proxy.calls().into_iter().map(|call| call.needles).collect();
    assert_eq!(needles, [vec!["canary".to_owned()], vec!["canary".to_owned()], vec![]]);
}

#[tokio::test]
async fn what_a_login_carries_can_be_compared_and_not_read() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::start(&upstream.url, "", Options::vault());
    let client = client(&proxy);
    let send = async |path: &str, body: &str| {
        client.post(format!("{}/v1/{path}", proxy.url())).body(body.to_owned()).send().await.unwrap();
        proxy.calls().pop().unwrap().submission
    };
    // The second part says {"aud":"vault"}.
    let login = send("auth/team/role/login", r#"{"role_id": "r", "secret_id": "s3cr3t", "jwt": "a.eyJhdWQiOiJ2YXVsdCJ9.b", "n": 1}"#).await;
    assert_eq!(login.names().collect::<Vec<_>>(), ["jwt", "n", "role_id", "secret_id"]);
    assert!(login.holds("secret_id", "s3cr3t") && !login.holds("secret_id", "s3cr3") && !login.holds("role_id", "s3cr3t"));
    assert!(!login.holds("n", "1") && !login.holds("missing", ""));
    assert_eq!(login.claims("jwt").unwrap(), &serde_json::json!({"aud": "vault"}));
    assert!(login.claims("role_id").is_none());
    let shown = format!("{:?}", proxy.calls());
    assert!(shown.contains("secret_id") && !shown.contains("s3cr3t") && !shown.contains("eyJhdWQ"), "{shown}");
    assert!(!send("auth/approle/login", "[1]").await.is_object());
    assert!(!send("auth/token/renew-self", "{}").await.is_object(), "no login");
    assert!(!send("secret/data/auth", r#"{"data": {}}"#).await.is_object(), "no login");
}

#[tokio::test]
async fn a_clients_certificate_is_asked_for_and_shown_to_the_upstream() {
    let upstream = Upstream::start().await;
    let identity = identity();
    let behind = Proxy::start(&upstream.url, "", Options::vault().client(identity.clone()));
    let proxy = Proxy::start(behind.url(), behind.ca_pem(), Options::vault().client(identity.clone()));
    let ca = Certificate::from_pem(proxy.ca_pem().as_bytes()).unwrap();
    let pem = [identity.certificate, identity.key].concat();
    let certified = Client::builder().tls_certs_only([ca]).no_proxy().identity(reqwest::Identity::from_pem(pem.as_bytes()).unwrap());
    for client in [certified.build().unwrap(), client(&proxy)] {
        get(&proxy, &client, "/v1/x").await.unwrap();
    }
    let shown = |proxy: &Proxy| proxy.calls().iter().map(|call| call.shows_certificate).collect::<Vec<_>>();
    assert_eq!((shown(&proxy), shown(&behind)), (vec![true, false], vec![true, false]));
}

fn identity() -> ClientIdentity {
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority = rcgen::CertifiedIssuer::self_signed(params, rcgen::KeyPair::generate().unwrap()).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["client".to_owned()]).unwrap();
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    let certificate = params.signed_by(&key, &authority).unwrap();
    ClientIdentity { authority: authority.pem(), certificate: certificate.pem(), key: key.serialize_pem() }
}

#[tokio::test]
async fn occurrences_number_equal_operations_in_order_of_arrival() {
    let (_upstream, proxy, client) = proxied().await;
    for path in ["/db", "", "/db"] {
        get(&proxy, &client, &format!("{SECRETS}{path}")).await.unwrap();
    }
    let points: Vec<_> = occurrences(&proxy.calls()).into_iter().map(|(operation, nth)| format!("{operation} #{nth}")).collect();
    assert_eq!(points, ["get secrets a/db #1", "list secrets a/ #1", "get secrets a/db #2"]);
    let counts = count_by_operation(&proxy.calls());
    assert_eq!(counts.values().copied().collect::<Vec<_>>(), [2, 1]);
}

#[tokio::test]
async fn an_upstream_connection_closed_at_rest_is_replaced() {
    let (upstream, proxy, client) = proxied().await;
    for _ in 0..3 {
        get(&proxy, &client, "/closing").await.unwrap();
    }
    assert_eq!(upstream.reached().len(), 3);
    assert_eq!(proxy.seen().connections_opened, 1, "the client's own connection lives on");
}

#[tokio::test]
async fn an_upstream_that_is_away_closes_the_clients_connection() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::start(&upstream.url, "", Options::kubernetes());
    drop(upstream);
    get(&proxy, &client(&proxy), SECRETS).await.unwrap_err();
    assert_eq!((proxy.calls()[0].upstream, proxy.calls()[0].status), (None, None));
}

#[tokio::test]
async fn an_upstream_of_a_foreign_authority_gets_nothing() {
    let (upstream, behind, _) = proxied().await;
    let stranger = Proxy::start(&upstream.url, "", Options::kubernetes());
    let proxy = Proxy::start(behind.url(), stranger.ca_pem(), Options::kubernetes());
    get(&proxy, &client(&proxy), SECRETS).await.unwrap_err();
    assert!(upstream.reached().is_empty());
}

#[tokio::test]
async fn a_dropped_proxy_leaves_no_connection_and_no_port() {
    let (_upstream, proxy, client) = proxied().await;
    let address = proxy.url().trim_start_matches("https://").to_owned();
    let rule = proxy.on(Matcher::any(), Nth::every(), Fault::hang());
    let hanging = get_in_background(&proxy, &client, SECRETS);
    rule.fired().await;
    drop(proxy);
    hanging.await.unwrap().unwrap_err();
    assert_eq!(TcpStream::connect(address).await.unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn a_client_without_tls_is_turned_away_and_others_are_served() {
    let (_upstream, proxy, client) = proxied().await;
    let mut plain = TcpStream::connect(proxy.url().trim_start_matches("https://")).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut said = Vec::new();
    let _ = plain.read_to_end(&mut said).await;
    assert!(!said.starts_with(b"HTTP"));
    get(&proxy, &client, SECRETS).await.unwrap();
    assert_eq!(proxy.calls().len(), 1);
}
