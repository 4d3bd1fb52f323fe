//! What a proxy saw: every call, and how many connections there were and are. Holds no body and no header but the user agent;
//! of a login what a test can compare it by.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use tokio::sync::watch;

use super::operation::Operation;
use super::submission::Submission;

/// One request as it came in, and what became of it so far.
#[derive(Clone, Debug)]
pub struct Call {
    /// Position in the ledger, in order of arrival.
    pub id: usize,
    pub at: Instant,
    /// To set beside the audit log; for intervals use `at`.
    pub wall: SystemTime,
    /// Number of the client's connection, from 1.
    pub connection: u64,
    pub operation: Operation,
    pub path_and_query: String,
    pub user_agent: String,
    /// Which of the needles in `Options` stood in the body or the path.
    pub needles: Vec<String>,
    /// Names of the headers that carried a credential.
    pub credentials: Vec<&'static str>,
    /// The client showed the certificate that `Options` name.
    pub shows_certificate: bool,
    /// What a login carried; empty for any other call.
    pub submission: Submission,
    /// The fault that a rule chose for this call.
    pub fault: Option<&'static str>,
    /// What the upstream answered: `Some` means that the call was committed.
    pub upstream: Option<u16>,
    /// What the client was answered.
    pub status: Option<u16>,
    /// The client still waits for an answer or for the rest of one.
    pub is_open: bool,
}

/// A snapshot of everything that a proxy saw.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub calls: Vec<Call>,
    /// TCP connections accepted since the start.
    pub connections_opened: u64,
    pub connections_open: u64,
}

/// Calls by operation.
#[must_use]
pub fn count_by_operation<'a>(calls: impl IntoIterator<Item = &'a Call>) -> BTreeMap<Operation, usize> {
    let mut counts = BTreeMap::new();
    for call in calls {
        *counts.entry(call.operation.clone()).or_default() += 1;
    }
    counts
}

/// Every call as (operation, its n-th occurrence, from 1), in order of arrival: the places where a run can be interrupted.
#[must_use]
pub fn occurrences<'a>(calls: impl IntoIterator<Item = &'a Call>) -> Vec<(Operation, u64)> {
    let mut counts: BTreeMap<Operation, u64> = BTreeMap::new();
    let number = |call: &Call| {
        let count = counts.entry(call.operation.clone()).or_default();
        *count += 1;
        (call.operation.clone(), *count)
    };
    calls.into_iter().map(number).collect()
}

/// The living side of `Seen`: connections write into it, tests wait on it.
#[derive(Clone)]
pub(super) struct Ledger {
    seen: Arc<watch::Sender<Seen>>,
}

impl Ledger {
    pub fn new() -> Self {
        Self { seen: Arc::new(watch::Sender::new(Seen::default())) }
    }

    pub fn seen(&self) -> Seen {
        self.seen.borrow().clone()
    }

    pub fn calls_so_far(&self) -> usize {
        self.seen.borrow().calls.len()
    }

    /// Returns when the condition holds; it is looked at after every change.
    pub async fn wait_for(&self, mut condition: impl FnMut(&Seen) -> bool) -> Seen {
        let mut changes = self.seen.subscribe();
        let seen = changes.wait_for(|seen| condition(seen)).await;
        seen.expect("this ledger holds the sender").clone()
    }

    pub fn open_connection(&self) -> OpenConnection {
        let mut number = 0;
        self.seen.send_modify(|seen| {
            seen.connections_opened += 1;
            seen.connections_open += 1;
            number = seen.connections_opened;
        });
        OpenConnection { ledger: self.clone(), number }
    }

    /// Enters the call; `describe` gets its id.
    pub fn open_call(&self, describe: impl FnOnce(usize) -> Call) -> OpenCall {
        let mut id = 0;
        self.seen.send_modify(|seen| {
            id = seen.calls.len();
            seen.calls.push(describe(id));
        });
        OpenCall { ledger: self.clone(), id }
    }
}

/// Counts as open until it is dropped.
pub(super) struct OpenConnection {
    ledger: Ledger,
    pub number: u64,
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.ledger.seen.send_modify(|seen| seen.connections_open -= 1);
    }
}

/// The right to complete one entry; the call counts as open until it is dropped.
pub(super) struct OpenCall {
    ledger: Ledger,
    id: usize,
}

impl OpenCall {
    pub fn id(&self) -> usize {
        self.id
    }

    pub fn call(&self) -> Call {
        self.ledger.seen.borrow().calls[self.id].clone()
    }

    pub fn amend(&self, change: impl FnOnce(&mut Call)) {
        self.ledger.seen.send_modify(|seen| change(&mut seen.calls[self.id]));
    }
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        self.amend(|call| call.is_open = false);
    }
}
