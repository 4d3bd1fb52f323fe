//! Which calls are broken, when, and how. A rule that never fires is a test that tests nothing, so rules can be asked.

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use serde_json::json;
use tokio::sync::watch;

use super::ledger::Call;
use super::operation::Operation;
use super::within_patience;

type Condition = dyn Fn(&Call) -> bool + Send + Sync;

/// A conjunction of conditions on a call; each method adds one.
#[derive(Clone)]
pub struct Matcher {
    description: String,
    conditions: Vec<Arc<Condition>>,
}

impl Matcher {
    /// Matches every call.
    #[must_use]
    pub fn any() -> Self {
        Self { description: "any call".to_owned(), conditions: Vec::new() }
    }

    #[must_use]
    pub fn operation(operation: &Operation) -> Self {
        let wanted = operation.clone();
        Self::any().when(&format!("operation `{operation}`"), move |call| call.operation == wanted)
    }

    #[must_use]
    pub fn verb(self, verb: &str) -> Self {
        let wanted = verb.to_owned();
        self.when(&format!("verb {verb}"), move |call| call.operation.verb == wanted)
    }

    /// `secrets`, `externalsecrets/status`; for Vault the whole path without `/v1/`, escaped as it was sent.
    #[must_use]
    pub fn resource(self, resource: &str) -> Self {
        let wanted = resource.to_owned();
        self.when(&format!("resource {resource}"), move |call| call.operation.resource == wanted)
    }

    #[must_use]
    pub fn resource_prefix(self, prefix: &str) -> Self {
        let wanted = prefix.to_owned();
        self.when(&format!("resource {prefix}*"), move |call| call.operation.resource.starts_with(&wanted))
    }

    #[must_use]
    pub fn namespace(self, namespace: &str) -> Self {
        let wanted = namespace.to_owned();
        self.when(&format!("namespace {namespace}"), move |call| call.operation.namespace == wanted)
    }

    #[must_use]
    pub fn name(self, name: &str) -> Self {
        let wanted = name.to_owned();
        self.when(&format!("name {name}"), move |call| call.operation.name == wanted)
    }

    /// Any other condition, with the words that a failing test prints for it.
    #[must_use]
    pub fn when(mut self, words: &str, condition: impl Fn(&Call) -> bool + Send + Sync + 'static) -> Self {
        self.description = format!("{}, {words}", self.description);
        self.conditions.push(Arc::new(condition));
        self
    }

    #[must_use]
    pub fn matches(&self, call: &Call) -> bool {
        self.conditions.iter().all(|condition| condition(call))
    }
}

impl fmt::Display for Matcher {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.description.strip_prefix("any call, ").unwrap_or(&self.description))
    }
}

/// Which of the matching calls, counted from 1 since the rule was made.
#[derive(Clone, Debug)]
pub struct Nth(RangeInclusive<u64>);

impl Nth {
    #[must_use]
    pub fn only(k: u64) -> Self {
        Self::between(k, k)
    }

    #[must_use]
    pub fn from(k: u64) -> Self {
        Self::between(k, u64::MAX)
    }

    #[must_use]
    pub fn every() -> Self {
        Self::from(1)
    }

    /// Both ends included.
    #[must_use]
    pub fn between(first: u64, last: u64) -> Self {
        assert!(first > 0, "calls are counted from 1");
        Self(first..=last)
    }
}

/// When a fault strikes. In both cases the whole request was read from the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Nothing was sent to the upstream.
    BeforeCommit,
    /// The upstream answered completely. Not for watches, which never do.
    AfterCommit,
}

#[derive(Clone)]
pub(super) enum Action {
    Close,
    Reset,
    Answer(Answer),
    Truncate(usize),
    Delay(Duration),
    Hold,
    Hang,
    Kill(Arc<dyn Fn() + Send + Sync>),
}

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

    /// Commits, then passes on the head and the first `length` bytes of the answer (never all of them), and closes the connection.
    #[must_use]
    pub fn truncate(length: usize) -> Self {
        Self { name: "truncate", moment: Moment::AfterCommit, action: Action::Truncate(length) }
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

/// The test's handle on a rule. Dropping it changes nothing: the rule lives as long as the proxy.
#[derive(Clone)]
#[must_use = "a rule that never fired shows nothing: assert_fired()"]
pub struct Rule {
    inner: Arc<RuleState>,
}

struct RuleState {
    matcher: Matcher,
    nth: Nth,
    fault: Fault,
    matched: AtomicU64,
    fired: watch::Sender<u64>,
    released: watch::Sender<bool>,
    is_withdrawn: AtomicBool,
    must_fire: AtomicBool,
}

impl Rule {
    fn new(matcher: Matcher, nth: Nth, fault: Fault) -> Self {
        let inner = RuleState {
            matcher,
            nth,
            fault,
            matched: AtomicU64::new(0),
            fired: watch::Sender::new(0),
            released: watch::Sender::new(false),
            is_withdrawn: AtomicBool::new(false),
            must_fire: AtomicBool::new(true),
        };
        Self { inner: Arc::new(inner) }
    }

    /// How often the fault was completed: a kill after its callback, a fault after commit after the commit.
    #[must_use]
    pub fn times_fired(&self) -> u64 {
        *self.inner.fired.borrow()
    }

    /// # Panics
    /// When the rule never fired.
    pub fn assert_fired(&self) {
        assert!(self.times_fired() > 0, "this rule never fired: {self}");
    }

    /// Returns when the rule has fired at least once.
    ///
    /// # Panics
    /// When that takes longer than a test can wait.
    pub async fn fired(&self) {
        let mut changes = self.inner.fired.subscribe();
        let fired = changes.wait_for(|count| *count > 0);
        let fired = within_patience(fired, || format!("rule did not fire: {self}")).await;
        fired.expect("this rule holds the sender");
    }

    /// Lets go what a hold or a hang keeps waiting, now and from now on.
    pub fn release(&self) {
        self.inner.released.send_replace(true);
    }

    /// The rule strikes no more; what it keeps waiting is released.
    pub fn withdraw(&self) {
        self.inner.is_withdrawn.store(true, Ordering::SeqCst);
        self.release();
    }

    /// For a rule that may or may not be reached: the proxy's end does not ask for it.
    pub fn may_stay_silent(self) -> Self {
        self.inner.must_fire.store(false, Ordering::SeqCst);
        self
    }

    pub(super) fn fault(&self) -> &Fault {
        &self.inner.fault
    }

    pub(super) fn mark_fired(&self) {
        self.inner.fired.send_modify(|count| *count += 1);
    }

    pub(super) async fn released(&self) {
        let mut changes = self.inner.released.subscribe();
        let released = changes.wait_for(|released| *released).await;
        released.expect("this rule holds the sender");
    }

    /// Counts the call if it matches; whether it is one of those to break.
    fn takes(&self, call: &Call) -> bool {
        if self.inner.is_withdrawn.load(Ordering::SeqCst) || !self.inner.matcher.matches(call) {
            return false;
        }
        let number = self.inner.matched.fetch_add(1, Ordering::SeqCst) + 1;
        self.inner.nth.0.contains(&number)
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RuleState { matcher, nth: Nth(nth), fault, matched, .. } = &*self.inner;
        let matched = matched.load(Ordering::SeqCst);
        write!(out, "{fault} on {matcher}, calls {} to {} ({matched} matched)", nth.start(), nth.end())
    }
}

/// The rules of a proxy in the order in which they were made.
#[derive(Default)]
pub(super) struct RuleBook {
    rules: Mutex<Vec<Rule>>,
}

impl RuleBook {
    pub fn add(&self, matcher: Matcher, nth: Nth, fault: Fault) -> Rule {
        let rule = Rule::new(matcher, nth, fault);
        self.lock().push(rule.clone());
        rule
    }

    /// Every matching rule counts the call; the oldest of those that take it breaks it.
    pub fn judge(&self, call: &Call) -> Option<Rule> {
        let mut taken = None;
        for rule in self.lock().iter() {
            if rule.takes(call) && taken.is_none() {
                taken = Some(rule.clone());
            }
        }
        taken
    }

    /// The rules that should have fired and did not.
    pub fn silent(&self) -> Vec<Rule> {
        let must_fire = |rule: &&Rule| rule.inner.must_fire.load(Ordering::SeqCst);
        self.lock().iter().filter(must_fire).filter(|rule| rule.times_fired() == 0).cloned().collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Rule>> {
        self.rules.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
