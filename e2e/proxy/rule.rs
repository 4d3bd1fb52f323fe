//! Which calls are broken, when, and how. A rule that never fires is a test that tests nothing, so rules can be asked.
//! The faults and answers themselves are in `fault`.

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::watch;

use super::fault::Fault;
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
