//! The fault proxy: stands between a client and an https or http server, counts its calls by operation, and breaks those that a test names.
//! It judges nothing and knows nothing of the operator.
//!
//! A proxy runs on a thread of its own, so it works the same under any test, also one that blocks, and it is gone with its
//! connections when it is dropped. TLS towards the client unless it is asked for none. HTTP/1.1 only; requests are read whole, answers are passed on frame by frame; no upgrades.

mod bomb;
mod connection;
mod fault;
mod ledger;
mod operation;
mod recording;
mod relay;
mod rule;
mod submission;
#[cfg(test)]
mod tests;
mod tls;
mod tunnel;

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use url::Url;

use connection::End;
use ledger::Ledger;
use relay::{Order, Registry};
use rule::RuleBook;

pub use fault::{Answer, Cut, Fault, Moment};
pub use ledger::{Call, Seen, count_by_operation, occurrences};
pub use operation::{Dialect, Operation};
pub use recording::Recorded;
pub use relay::WatchEnd;
pub use rule::{Matcher, Nth, Rule};
pub use submission::Submission;
pub use tls::ClientIdentity;
pub use tunnel::{Tunnel, Tunnels};

/// A wait that takes longer than this is a failed test, not a slow one.
const PATIENCE: Duration = Duration::from_secs(90);

/// What a proxy has to know beyond its upstream.
pub struct Options {
    pub dialect: Dialect,
    /// (name, bytes) to look for in request paths and bodies; a call records the names only.
    pub needles: Vec<(String, Vec<u8>)>,
    is_plain: bool,
    is_recording: bool,
    /// A client may show a certificate; the proxy shows this one, which is its, to the upstream then.
    pub client: Option<ClientIdentity>,
}

impl Options {
    #[must_use]
    pub fn kubernetes() -> Self {
        Self::of(Dialect::Kubernetes)
    }

    #[must_use]
    pub fn vault() -> Self {
        Self::of(Dialect::Vault)
    }

    /// For any AWS; whole requests are recorded, for whoever recomputes their signatures: `Proxy::recorded`.
    #[must_use]
    pub fn aws() -> Self {
        Self { is_recording: true, ..Self::of(Dialect::Aws) }
    }

    fn of(dialect: Dialect) -> Self {
        Self { dialect, needles: Vec::new(), is_plain: false, is_recording: false, client: None }
    }

    #[must_use]
    pub fn client(self, client: ClientIdentity) -> Self {
        Self { client: Some(client), ..self }
    }

    /// Without TLS towards the client.
    #[must_use]
    pub fn in_the_clear(self) -> Self {
        Self { is_plain: true, ..self }
    }

    #[must_use]
    pub fn needle(mut self, name: &str, bytes: impl Into<Vec<u8>>) -> Self {
        self.needles.push((name.to_owned(), bytes.into()));
        self
    }
}

/// What happens to new connections. Those that exist are not touched: see `Proxy::close_connections`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepting {
    Normally = 0,
    /// TCP is accepted, the TLS handshake never goes on.
    HangTls = 1,
    /// RST right after TCP is accepted.
    Reset = 2,
}

/// A running proxy.
///
/// Dropping it closes every connection, and panics when a rule never fired that should have.
pub struct Proxy {
    shared: Arc<Shared>,
    url: String,
    identity: tls::Identity,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    dialect: Dialect,
    needles: Vec<(String, Vec<u8>)>,
    upstream: Arc<UpstreamAddress>,
    /// None where clients speak without TLS.
    acceptor: Option<TlsAcceptor>,
    /// None where nothing is recorded.
    recording: Option<Mutex<Vec<Recorded>>>,
    accepting: AtomicU8,
    ledger: Ledger,
    rules: RuleBook,
    /// Answers that are still coming, by the id of the call.
    running: Registry<usize, Order>,
    connections: Registry<u64, End>,
}

struct UpstreamAddress {
    host: String,
    port: u16,
    tls: Option<UpstreamTls>,
}

struct UpstreamTls {
    name: ServerName<'static>,
    anonymous: TlsConnector,
    /// Shows the client's certificate.
    certified: Option<TlsConnector>,
}

impl Proxy {
    /// Starts on a free port of 127.0.0.1 in front of `upstream` (`https://…` with the PEM of its CA, or `http://…` with any).
    ///
    /// # Panics
    /// When `upstream` is no such URL, its CA is no PEM, or the machine has no port or thread left.
    #[must_use]
    pub fn start(upstream: &str, upstream_ca_pem: &str, options: Options) -> Self {
        let identity = tls::Identity::generate(options.client.as_ref());
        let upstream = UpstreamAddress::parse(upstream, upstream_ca_pem, options.client.as_ref());
        Self::launch(Arc::new(upstream), options, identity)
    }

    /// Another origin with the same upstream, trusted by whoever trusts this one: where a redirect may lead.
    #[must_use]
    pub fn beside(&self) -> Self {
        let options = Options {
            dialect: self.shared.dialect,
            needles: self.shared.needles.clone(),
            is_plain: self.shared.acceptor.is_none(),
            is_recording: self.shared.recording.is_some(),
            client: None,
        };
        Self::launch(self.shared.upstream.clone(), options, self.identity.clone())
    }

    fn launch(upstream: Arc<UpstreamAddress>, options: Options, identity: tls::Identity) -> Self {
        let shared = Arc::new(Shared {
            dialect: options.dialect,
            needles: options.needles,
            upstream,
            acceptor: (!options.is_plain).then(|| TlsAcceptor::from(identity.config.clone())),
            recording: options.is_recording.then(Mutex::default),
            accepting: AtomicU8::new(Accepting::Normally as u8),
            ledger: Ledger::new(),
            rules: RuleBook::default(),
            running: Registry::default(),
            connections: Registry::default(),
        });
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port on 127.0.0.1");
        let port = listener.local_addr().expect("a bound listener has an address").port();
        let scheme = if shared.acceptor.is_some() { "https" } else { "http" };
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new().name(format!("proxy-{port}"));
        let serving = shared.clone();
        let thread = thread.spawn(move || run(&serving, listener, stopped)).expect("a thread for the proxy");
        Self { shared, url: format!("{scheme}://127.0.0.1:{port}"), identity, stop: Some(stop), thread: Some(thread) }
    }

    /// `https://127.0.0.1:<port>`, or `http://…` in the clear.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The authority that clients of this proxy must trust.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        &self.identity.ca_pem
    }

    /// Makes a rule for calls from now on. Where several rules take the same call the oldest one breaks it.
    pub fn on(&self, matcher: Matcher, nth: Nth, fault: Fault) -> Rule {
        self.shared.rules.add(matcher, nth, fault)
    }

    /// Holds every matching call before it is forwarded, until the rule is released.
    pub fn hold(&self, matcher: Matcher) -> Rule {
        self.on(matcher, Nth::every(), Fault::hold(Moment::BeforeCommit))
    }

    /// Everything seen so far.
    #[must_use]
    pub fn seen(&self) -> Seen {
        self.shared.ledger.seen()
    }

    /// How many calls came so far.
    #[must_use]
    pub fn calls_so_far(&self) -> usize {
        self.shared.ledger.calls_so_far()
    }

    /// The calls so far, in order of arrival.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.seen().calls
    }

    #[must_use]
    pub fn calls_matching(&self, matcher: &Matcher) -> Vec<Call> {
        let mut calls = self.calls();
        calls.retain(|call| matcher.matches(call));
        calls
    }

    #[must_use]
    pub fn count(&self, matcher: &Matcher) -> usize {
        self.calls_matching(matcher).len()
    }

    /// The requests so far with all that was in them, in order of arrival; none unless the options ask for it.
    #[must_use]
    pub fn recorded(&self) -> Vec<Recorded> {
        let recording = self.shared.recording.as_ref();
        recording.map(|recording| recording.lock().unwrap_or_else(PoisonError::into_inner).clone()).unwrap_or_default()
    }

    /// Returns the calls when `condition` holds for them; it is looked at after every change.
    ///
    /// # Panics
    /// When that takes longer than a test can wait.
    pub async fn await_calls(&self, mut condition: impl FnMut(&[Call]) -> bool) -> Vec<Call> {
        self.await_seen(move |seen| condition(&seen.calls)).await.calls
    }

    /// Like `await_calls`, with the connection counts.
    ///
    /// # Panics
    /// When that takes longer than a test can wait.
    pub async fn await_seen(&self, condition: impl FnMut(&Seen) -> bool) -> Seen {
        within_patience(self.shared.ledger.wait_for(condition), || self.story()).await
    }

    /// Ends the running answers of matching calls, watches above all, and says how many there were.
    #[must_use = "an end that reached nothing shows nothing"]
    pub fn end_watches(&self, matcher: &Matcher, end: WatchEnd) -> usize {
        self.order_watches(matcher, Order::End(end))
    }

    /// Passes on nothing more of the running answers of matching calls, watches above all, and says how many there were. They stay
    /// open; those that begin later flow.
    #[must_use = "a hold that reached nothing shows nothing"]
    pub fn hold_watches(&self, matcher: &Matcher) -> usize {
        self.order_watches(matcher, Order::Hold)
    }

    /// Lets held answers go on with all that came meanwhile, and says how many took it.
    pub fn release_watches(&self, matcher: &Matcher) -> usize {
        self.order_watches(matcher, Order::GoOn)
    }

    fn order_watches(&self, matcher: &Matcher, order: Order) -> usize {
        let calls = self.calls();
        self.shared.running.order(order, |id| matcher.matches(&calls[id]))
    }

    /// What happens to new connections from now on.
    pub fn accept(&self, accepting: Accepting) {
        self.shared.accepting.store(accepting as u8, Ordering::SeqCst);
    }

    /// Closes all connections, also those that hang in TLS, and says how many there were.
    pub fn close_connections(&self) -> usize {
        self.shared.connections.order(End::Close, |_| true)
    }

    /// Like `close_connections`, by RST.
    pub fn reset_connections(&self) -> usize {
        self.shared.connections.order(End::Reset, |_| true)
    }

    fn story(&self) -> String {
        let seen = self.seen();
        let connections = format!("{} of {} connections are open", seen.connections_open, seen.connections_opened);
        let counts = count_by_operation(&seen.calls);
        let counts: Vec<_> = counts.iter().map(|(operation, count)| format!("\n  {count} × {operation}")).collect();
        format!("the wanted calls did not come; {connections}; {} calls:{}", seen.calls.len(), counts.concat())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "the proxy's thread panicked");
        }
        let silent: Vec<String> = self.shared.rules.silent().iter().map(Rule::to_string).collect();
        assert!(silent.is_empty() || std::thread::panicking(), "these rules never fired: {}", silent.join("; "));
    }
}

impl Shared {
    fn accepting(&self) -> Accepting {
        match self.accepting.load(Ordering::SeqCst) {
            1 => Accepting::HangTls,
            2 => Accepting::Reset,
            _ => Accepting::Normally,
        }
    }

    fn record(&self, head: &Parts, body: &Bytes) {
        if let Some(recording) = &self.recording {
            recording.lock().unwrap_or_else(PoisonError::into_inner).push(Recorded::of(head, body));
        }
    }

    fn needles_in(&self, path: &str, body: &[u8]) -> Vec<String> {
        let holds = |text: &[u8], needle: &[u8]| text.windows(needle.len().max(1)).any(|window| window == needle);
        let found = self.needles.iter().filter(|(_, needle)| holds(body, needle) || holds(path.as_bytes(), needle));
        found.map(|(name, _)| name.clone()).collect()
    }
}

impl UpstreamAddress {
    fn parse(upstream: &str, ca_pem: &str, client: Option<&ClientIdentity>) -> Self {
        let url = Url::parse(upstream).expect("the upstream is a URL");
        let host = url.host_str().expect("the upstream has a host").to_owned();
        let port = url.port_or_known_default().expect("the upstream has a port");
        let tls = (url.scheme() == "https").then(|| {
            let name = ServerName::try_from(host.clone()).expect("the upstream's host is a name");
            let connector = |client| TlsConnector::from(tls::client_config(ca_pem, client));
            UpstreamTls { name, anonymous: connector(None), certified: client.map(|client| connector(Some(client))) }
        });
        Self { host, port, tls }
    }
}

/// The whole life of the proxy's thread. All tasks and their sockets end with the runtime.
fn run(shared: &Arc<Shared>, listener: std::net::TcpListener, stopped: oneshot::Receiver<()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime for the proxy");
    runtime.block_on(async {
        tokio::select! {
            () = accept_all(shared, listener) => {}
            _ = stopped => {}
        }
    });
}

async fn accept_all(shared: &Arc<Shared>, listener: std::net::TcpListener) {
    listener.set_nonblocking(true).expect("a listener can be non-blocking");
    let listener = TcpListener::from_std(listener).expect("a listener for the proxy");
    loop {
        if let Ok((tcp, _)) = listener.accept().await {
            tokio::spawn(connection::serve(shared.clone(), tcp));
        }
    }
}

async fn within_patience<T>(wait: impl Future<Output = T>, story: impl FnOnce() -> String) -> T {
    let waited = tokio::time::timeout(PATIENCE, wait).await;
    waited.unwrap_or_else(|elapsed| panic!("gave up after {PATIENCE:?} ({elapsed}): {}", story()))
}
