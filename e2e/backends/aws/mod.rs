//! AWS in the tests: Secrets Manager, Parameter Store and STS in memory, strict where moto is not. Shares no code with `src/`.
//!
//! ```ignore
//! let aws = AwsServer::start();                              // its own port and thread; gone when dropped
//! let reader = aws.user("reader");                           // a key to sign with, `arn:aws:iam::123456789012:user/reader`
//! aws.put_secret("app/db", "value");                         // at once, without HTTP; `aws.admin()` makes any call, signed, over HTTP
//! aws.put_parameter("/app/size", "String", "10");
//! aws.deny(Denial::new(&reader.arn, "secretsmanager:GetSecretValue", "app/*"));
//! aws.plan("GetSecretValue", 1, Failure::new("ThrottlingException", "Rate exceeded").retry_after(20));
//! aws.set_latency(Duration::from_millis(20));
//! // … the operator, with endpoint aws.url() and the key, directly or through Proxy::start(aws.url(), "", Options::aws())
//! aws.count("BatchGetSecretValue"); aws.counts(); aws.connections(); aws.taken();
//! judge(&aws.recorded(), &aws.keys());                       // red unless botocore finds nothing wrong with any request or answer
//! ```
//!
//! It checks signatures (with five minutes of skew), sessions and their ends, web identity tokens against the discovery of their issuer,
//! external ids, session tags, and the vendor's limits: 20 ids, 10 names, pages of 100, 20, 10 and 50, 65,536, 4,096 and 8,192 bytes.
//! Whoever has a key may do everything in the own account but for what is denied. `judge.py` runs the vendor's own client against this
//! server and against moto and compares.
//!
//! - `admin`: signed calls, to this server and to moto alike. `signature`: Signature Version 4. `gate`: denials and KMS keys.
//! - `secrets`, `parameters`, `sts`, `token`: the services. `world`: what they keep. `identity`: users, roles, sessions.
//! - `judge`: the vendor's client, models and signer. `serve`: HTTP and authentication. `input`, `failure`: members within bounds, errors in both protocols.

pub mod admin;
pub mod failure;
pub mod gate;
pub mod identity;
mod input;
pub mod judge;
mod parameters;
mod secrets;
mod serve;
pub mod signature;
mod sts;
#[cfg(test)]
mod tests;
mod token;
mod world;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::SignedDuration;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::proxy::Recorded;
use admin::{Admin, REGION, Service};
use failure::Failure;
use gate::{Caller, Denial, KeyState};
use identity::{Holder, Login, Provider, Role};
use input::Input;
use signature::Key;
use world::{ACCOUNT, Ask, Planned, World};

/// A running server; gone with its connections when it is dropped.
pub struct AwsServer {
    shared: Arc<Shared>,
    url: String,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    world: Mutex<World>,
    taken: Mutex<Ledger>,
    /// Microseconds before each answer.
    latency: AtomicU64,
    keeps_bodies: AtomicBool,
    connections: AtomicU64,
}

/// Someone with a key.
#[derive(Clone, Debug)]
pub struct User {
    pub arn: String,
    pub key: Key,
}

/// One request that was answered.
#[derive(Clone, Debug)]
pub struct Taken {
    /// `GetSecretValue`
    pub operation: String,
    /// ARN of who asked; none where that could not be told.
    pub caller: Option<String>,
    pub region: String,
    pub recorded: Recorded,
}

#[derive(Default)]
struct Ledger {
    taken: Vec<Taken>,
    counts: BTreeMap<String, usize>,
}

impl Ledger {
    fn push(&mut self, taken: Taken, keeps: bool) {
        *self.counts.entry(taken.operation.clone()).or_default() += 1;
        if keeps {
            self.taken.push(taken);
        }
    }
}

impl AwsServer {
    /// Starts on a free port of 127.0.0.1.
    ///
    /// # Panics
    /// When the machine has no port or thread left.
    #[must_use]
    pub fn start() -> Self {
        let shared = Arc::new(Shared {
            world: Mutex::default(),
            taken: Mutex::default(),
            latency: AtomicU64::new(0),
            keeps_bodies: AtomicBool::new(true),
            connections: AtomicU64::new(0),
        });
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port on 127.0.0.1");
        let port = listener.local_addr().expect("a bound listener has an address").port();
        let (stop, stopped) = oneshot::channel();
        let serving = shared.clone();
        let thread = std::thread::Builder::new().name(format!("aws-{port}"));
        let thread = thread.spawn(move || serve::run(&serving, listener, stopped)).expect("a thread for AWS");
        let server = Self { shared, url: format!("http://127.0.0.1:{port}"), stop: Some(stop), thread: Some(thread) };
        let root = Caller { account: ACCOUNT.to_owned(), arn: format!("arn:aws:iam::{ACCOUNT}:root"), is_admin: true };
        server.world().identities.add(Holder { key: root_key(), caller: root, expires: None, transitive: BTreeMap::new() });
        server
    }

    /// `http://127.0.0.1:<port>`
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Over HTTP, as the account's root, whom nothing is denied and whose calls are counted as all others.
    #[must_use]
    pub fn admin(&self) -> Admin {
        Admin::new(&self.url, root_key())
    }

    /// A new user of the account.
    pub fn user(&self, name: &str) -> User {
        self.user_of(ACCOUNT, name)
    }

    /// A new user of any account.
    pub fn user_of(&self, account: &str, name: &str) -> User {
        let mut world = self.world();
        let serial = world.next_serial();
        let key = Key::user(&format!("AKIA{serial:016}"), &format!("user-secret-{serial:028}"));
        let caller = Caller { account: account.to_owned(), arn: format!("arn:aws:iam::{account}:user/{name}"), is_admin: false };
        let user = User { arn: caller.arn.clone(), key: key.clone() };
        world.identities.add(Holder { key, caller, expires: None, transitive: BTreeMap::new() });
        user
    }

    /// A role, by its ARN: `arn:aws:iam::123456789012:role/reader`.
    pub fn role(&self, arn: &str, role: Role) {
        self.world().identities.roles.insert(arn.to_owned(), role);
    }

    /// An issuer whose web identities are taken.
    pub fn trust_issuer(&self, provider: Provider) {
        self.world().identities.providers.push(provider);
    }

    /// The key is not known any more.
    pub fn revoke(&self, access_key: &str) {
        self.world().identities.revoke(access_key);
    }

    /// Every session that was given out up to now is over.
    pub fn expire_sessions(&self) {
        let mut world = self.world();
        let now = world.now();
        world.identities.expire_sessions(now);
    }

    /// Every session that was given out, in order.
    #[must_use]
    pub fn logins(&self) -> Vec<Login> {
        self.world().identities.logins.clone()
    }

    /// Refuses something from now on.
    pub fn deny(&self, denial: Denial) {
        self.world().gate.denials.push(denial);
    }

    /// Takes every denial away, and every trouble with keys.
    pub fn allow_all(&self) {
        let mut world = self.world();
        world.gate.denials.clear();
        world.gate.keys.clear();
    }

    /// Breaks a KMS key: what it encrypts cannot be read.
    pub fn break_key(&self, key: &str, state: KeyState) {
        self.world().gate.keys.push((key.to_owned(), state));
    }

    /// Lets another account read the secrets or parameters of that name (`*` at its end for any rest), by ARN.
    pub fn share(&self, name: &str, with_account: &str) {
        self.world().gate.shares.push((ACCOUNT.to_owned(), name.to_owned(), with_account.to_owned()));
    }

    /// The next so many calls of an operation (`*` for any) fail so, whoever makes them but the administrator.
    pub fn plan(&self, operation: &str, times: u32, failure: Failure) {
        self.world().planned.push(Planned { operation: operation.to_owned(), left: times, failure });
    }

    /// What was planned and has not happened yet does not happen.
    pub fn plan_nothing(&self) {
        self.world().planned.clear();
    }

    /// Sets how far the server's clock is ahead; a client's that is five minutes off is refused.
    pub fn set_clock_ahead(&self, ahead: SignedDuration) {
        self.world().clock = ahead;
    }

    /// Serves one region only: signatures for others are refused.
    pub fn serve_only(&self, region: &str) {
        self.world().only_region = Some(region.to_owned());
    }

    /// From now on each answer comes so much later.
    pub fn set_latency(&self, latency: Duration) {
        self.shared.latency.store(u64::try_from(latency.as_micros()).expect("microseconds fit"), Ordering::SeqCst);
    }

    /// For measurements: calls are counted, and requests and answers are not kept.
    pub fn keep_nothing(&self) {
        self.shared.keeps_bodies.store(false, Ordering::SeqCst);
    }

    /// Writes a secret, which is made where there is none; the id of its new version.
    pub fn put_secret(&self, name: &str, text: &str) -> String {
        self.write_secret(name, "SecretString", text)
    }

    /// The same for bytes.
    pub fn put_binary(&self, name: &str, bytes: &[u8]) -> String {
        self.write_secret(name, "SecretBinary", &STANDARD.encode(bytes))
    }

    fn write_secret(&self, name: &str, member: &str, value: &str) -> String {
        let is_there = self.world().place(ACCOUNT, REGION).secrets.contains_key(name);
        let (operation, id) = if is_there { ("PutSecretValue", "SecretId") } else { ("CreateSecret", "Name") };
        let answer = self.as_root(Service::SecretsManager, operation, &json!({ id: name, member: value }));
        answer["VersionId"].as_str().expect("a version").to_owned()
    }

    /// Writes a parameter of type `String`, `StringList` or `SecureString`; the number of its new version.
    pub fn put_parameter(&self, name: &str, kind: &str, text: &str) -> u64 {
        let answer = self.as_root(Service::Ssm, "PutParameter", &json!({ "Name": name, "Type": kind, "Value": text, "Overwrite": true }));
        answer["Version"].as_u64().expect("a version")
    }

    /// Any operation of Secrets Manager or Parameter Store, at once and uncounted.
    ///
    /// # Panics
    /// When it is refused.
    pub fn as_root(&self, service: Service, operation: &str, input: &Value) -> Value {
        let mut world = self.world();
        let caller = world.identities.holder(&root_key().id).expect("the root").caller.clone();
        let ask = Ask { caller: &caller, region: REGION, operation };
        let input = Input::parse(input.to_string().as_bytes()).expect("an object");
        let answer = match service {
            Service::SecretsManager => secrets::call(&mut world, &ask, &input),
            Service::Ssm => parameters::call(&mut world, &ask, &input),
            Service::Sts => Err(Failure::new("InvalidAction", "only over HTTP")),
        };
        answer.unwrap_or_else(|failure| panic!("{operation}: {failure:?}"))
    }

    /// The ARN of a function that may rotate; the test itself does its work with `finish_rotation`.
    pub fn rotator(&self, name: &str) -> String {
        let arn = format!("arn:aws:lambda:{REGION}:{ACCOUNT}:function:{name}");
        self.world().rotators.push(arn.clone());
        arn
    }

    /// Ends a rotation that was begun: the pending version gets this value and is current.
    pub fn finish_rotation(&self, name: &str, text: &str) {
        secrets::finish_rotation(&mut self.world(), ACCOUNT, REGION, name, text);
    }

    /// How often an operation was called, with whatever outcome.
    #[must_use]
    pub fn count(&self, operation: &str) -> usize {
        self.ledger().counts.get(operation).copied().unwrap_or_default()
    }

    /// The same for every operation that was.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<String, usize> {
        self.ledger().counts.clone()
    }

    /// TCP connections since the start.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Every request since the start or since `forget`, in the order in which they were answered.
    #[must_use]
    pub fn taken(&self) -> Vec<Taken> {
        self.ledger().taken.clone()
    }

    /// The same as a judge takes them.
    #[must_use]
    pub fn recorded(&self) -> Vec<Recorded> {
        self.ledger().taken.iter().map(|taken| taken.recorded.clone()).collect()
    }

    /// Every key that there ever was, those of sessions included: what a judge recomputes signatures with.
    #[must_use]
    pub fn keys(&self) -> Vec<Key> {
        self.world().identities.all.clone()
    }

    /// Forgets what was counted and recorded; connections stay counted.
    pub fn forget(&self) {
        *self.ledger() = Ledger::default();
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.shared.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.shared.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for AwsServer {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "the thread of AWS panicked");
        }
    }
}

fn root_key() -> Key {
    Key::user("AKIAROOTROOTROOTROOT", "the secret of the account's root")
}
