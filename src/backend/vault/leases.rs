//! What was leased: values that a read makes anew each time, and so must not be read again while their lease lives.
//!
//! A lease is renewed at two thirds of its life. A stream of hints says when, so that nobody looks in vain. Nothing here talks.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use tokio::{sync::Notify, time::Instant};

use super::answer::Leased;
use crate::{
    item::{Fetched, Hint},
    name::RemoteKey,
};

/// What is due and was not looked at is hinted at again no sooner than this.
const AGAIN: Duration = Duration::from_secs(1);
/// Longest rest of the stream.
const LONGEST_REST: Duration = Duration::from_secs(3600);

/// The leases of one session.
#[derive(Debug, Default)]
pub(super) struct Leases {
    table: Mutex<BTreeMap<RemoteKey, Entry>>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Entry {
    /// Held while the server is asked about the key: two looks at once must not make two values.
    gate: Arc<tokio::sync::Mutex<()>>,
    lease: Option<Lease>,
    /// When somebody should look.
    wake_at: Option<Instant>,
}

/// One lease and the value that it is about.
#[derive(Clone, Debug)]
pub(super) struct Lease {
    pub id: String,
    pub fetched: Fetched,
    /// The life that it was granted at first; none for ever.
    pub life: Option<Duration>,
    pub is_renewable: bool,
    pub token: TokenLife,
    renew_at: Option<Instant>,
    expires: Option<Instant>,
}

/// The token under which a lease lives: it dies with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct TokenLife {
    /// Which login it is of; 0 for a token of a Secret.
    pub number: u64,
    pub renew_at: Option<Instant>,
    pub expires: Option<Instant>,
}

impl Lease {
    pub fn new(leased: Leased, fetched: Fetched, since: Instant, token: TokenLife) -> Self {
        let Leased { id, life, is_renewable } = leased;
        let mut lease = Self { id, fetched, life, is_renewable, token, renew_at: None, expires: None };
        lease.lives(since, life);
        lease
    }

    /// Lives from `since` on for what the server granted.
    pub fn lives(&mut self, since: Instant, life: Option<Duration>) {
        self.renew_at = life.map(|life| since + life * 2 / 3);
        self.expires = life.map(|life| since + life);
    }

    /// Tries again when a third of what is left has passed.
    pub fn postpone(&mut self) {
        let now = Instant::now();
        self.renew_at = self.ends().map(|end| now + end.saturating_duration_since(now) / 3);
        self.token.renew_at = None;
    }

    pub fn is_due(&self) -> bool {
        self.renew_at.is_some_and(|at| at <= Instant::now())
    }

    pub fn is_dead(&self) -> bool {
        self.ends().is_some_and(|end| end <= Instant::now())
    }

    fn ends(&self) -> Option<Instant> {
        [self.expires, self.token.expires].into_iter().flatten().min()
    }

    fn wake_at(&self) -> Option<Instant> {
        [self.renew_at, self.token.renew_at].into_iter().flatten().min()
    }
}

impl Leases {
    pub fn gate(&self, key: &RemoteKey) -> Arc<tokio::sync::Mutex<()>> {
        self.table().entry(key.clone()).or_default().gate.clone()
    }

    /// Whether the key was asked about in this session.
    pub fn has_seen(&self, key: &RemoteKey) -> bool {
        self.table().contains_key(key)
    }

    pub fn get(&self, key: &RemoteKey) -> Option<Lease> {
        self.table().get(key)?.lease.clone()
    }

    pub fn put(&self, key: &RemoteKey, lease: Lease) {
        let mut table = self.table();
        let entry = table.entry(key.clone()).or_default();
        entry.wake_at = lease.wake_at().map(|at| at.max(Instant::now() + AGAIN));
        entry.lease = Some(lease);
        drop(table);
        self.changed.notify_one();
    }

    /// Forgets the lease, if there is one.
    pub fn take(&self, key: &RemoteKey) -> Option<Lease> {
        self.table().remove(key)?.lease
    }

    /// The server changes the value then, by itself.
    pub fn expect_change(&self, key: &RemoteKey, at: Instant) {
        self.table().entry(key.clone()).or_default().wake_at = Some(at);
        self.changed.notify_one();
    }

    /// The keys to look at, when it is time to.
    pub fn hints(self: &Arc<Self>) -> BoxStream<'static, Hint> {
        stream::unfold(Arc::clone(self), |leases| async move {
            loop {
                let until = leases.next().unwrap_or_else(|| Instant::now() + LONGEST_REST);
                tokio::select! {
                    () = tokio::time::sleep_until(until) => {}
                    () = leases.changed.notified() => {}
                }
                let due = leases.take_due();
                if !due.is_empty() {
                    return Some((Hint::Keys(due), leases));
                }
            }
        })
        .boxed()
    }

    fn next(&self) -> Option<Instant> {
        self.table().values().filter_map(|entry| entry.wake_at).min()
    }

    /// A key that nobody looks at any more is forgotten with its lease.
    fn take_due(&self) -> BTreeSet<RemoteKey> {
        let (now, mut due) = (Instant::now(), BTreeSet::new());
        self.table().retain(|key, entry| {
            if entry.wake_at.is_none_or(|at| at > now) {
                return true;
            }
            due.insert(key.clone());
            let left = entry.lease.as_ref().and_then(Lease::ends).map(|end| end.saturating_duration_since(now));
            entry.wake_at = left.map(|left| now + (left / 3).max(AGAIN));
            left.is_some_and(|left| !left.is_zero())
        });
        due
    }

    fn table(&self) -> std::sync::MutexGuard<'_, BTreeMap<RemoteKey, Entry>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
