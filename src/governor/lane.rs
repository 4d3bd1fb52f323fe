//! The calls to one store: what is asked at the same time is asked once, in batches, a bounded number at a time, each with a deadline.

use std::{
    collections::{BTreeSet, HashMap},
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture, stream::BoxStream};
use tokio::{sync::oneshot, time::Instant};

use super::Priority;
use crate::{
    backend::Backend,
    cache::{Kept, Table},
    fault::{Class, Fault, Reason},
    item::{Hint, Listing, Reading},
    name::{RemoteKey, RemoteRef},
};

/// What a provider gets beyond its own deadline: its own words about the time-out are the better ones, and with both at the same
/// moment the message would change between attempts.
const OVERTIME: Duration = Duration::from_secs(1);

/// What is asked of a backend.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Asked {
    Value(RemoteRef),
    Names(Listing),
}

/// What it answered.
#[derive(Clone, Debug)]
pub enum Answer {
    Value(Reading),
    Names(Result<Vec<RemoteKey>, Fault>),
}

/// Resolves when the answer is there.
pub type Waiting = BoxFuture<'static, Arc<Kept<Answer>>>;

/// A state that cannot be.
pub fn bug(what: &str) -> Fault {
    Fault::new(Class::Bug, Reason::ProviderUnavailable, format!("{what}: this is a bug of Keyferry, please report it"))
}

/// The calls to one store. Cheap to clone.
#[derive(Clone)]
pub struct Lane(Arc<Inner>);

struct Inner {
    backend: Arc<dyn Backend>,
    concurrency: usize,
    call_timeout: Duration,
    /// Opened with the session, before anything is read: what changes between a read and the first listener is hinted at too.
    hints: Mutex<Option<BoxStream<'static, Hint>>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    table: Table<Asked, Answer>,
    /// Asked and not yet sent, first come first served within a priority.
    queue: BTreeSet<(Priority, u64, Asked)>,
    queued: HashMap<Asked, Queued>,
    flying: HashMap<Asked, Vec<Flight>>,
    calls: usize,
    turn: u64,
    last_start: Option<Instant>,
}

struct Queued {
    priority: Priority,
    turn: u64,
    waiters: Vec<oneshot::Sender<Arc<Kept<Answer>>>>,
}

/// A call under way that will answer a question.
struct Flight {
    at: Instant,
    waiters: Vec<oneshot::Sender<Arc<Kept<Answer>>>>,
}

impl Lane {
    pub fn new(backend: Arc<dyn Backend>, concurrency: usize, call_timeout: Duration) -> Self {
        let hints = Mutex::new(backend.changes());
        Self(Arc::new(Inner { backend, concurrency: concurrency.max(1), call_timeout, hints, state: Mutex::default() }))
    }

    pub fn batch_size(&self) -> usize {
        self.0.backend.batch_size().max(1)
    }

    pub fn changes(&self) -> Option<BoxStream<'static, Hint>> {
        let opened = self.0.hints.lock().unwrap_or_else(PoisonError::into_inner).take();
        opened.or_else(|| self.0.backend.changes())
    }

    /// Asks, or joins who has asked: what is kept or under way is good enough if its call began at or after `not_before`. All are
    /// asked before the first call starts, so that they share calls. One answer each, in the same order.
    pub fn ask(&self, asked: impl IntoIterator<Item = Asked>, not_before: Instant, priority: Priority) -> Vec<Waiting> {
        let mut state = self.state();
        let waiting = asked.into_iter().map(|asked| state.ask(asked, not_before, priority)).collect();
        self.pump(&mut state);
        waiting
    }

    /// Starts calls while there is something to ask and room to ask it.
    fn pump(&self, state: &mut State) {
        while state.calls < self.0.concurrency && !state.queue.is_empty() {
            let at = state.next_start();
            let batch = state.take(self.batch_size(), at);
            state.calls += 1;
            tokio::spawn(self.clone().call(batch, at));
        }
    }

    async fn call(self, batch: Vec<Asked>, at: Instant) {
        let answers = self.answers(&batch).await;
        let mut state = self.state();
        state.calls -= 1;
        for (asked, answer) in batch.into_iter().zip(answers) {
            state.deliver(asked, &Arc::new(Kept { answer, at }));
        }
        self.pump(&mut state);
    }

    /// Exactly one answer for each.
    async fn answers(&self, batch: &[Asked]) -> Vec<Answer> {
        let values: Vec<RemoteRef> = batch.iter().filter_map(Asked::value).cloned().collect();
        match batch.first() {
            Some(Asked::Names(listing)) => vec![Answer::Names(self.names(listing).await)],
            _ => self.readings(&values).await.into_iter().map(Answer::Value).collect(),
        }
    }

    async fn readings(&self, refs: &[RemoteRef]) -> Vec<Reading> {
        let answered = match self.guarded(self.0.backend.fetch(refs)).await {
            Ok(readings) if readings.len() == refs.len() => return readings,
            Ok(_) => bug("a backend gave another number of answers than was asked for"),
            Err(fault) => fault,
        };
        vec![Reading::Unknown(answered); refs.len()]
    }

    async fn names(&self, listing: &Listing) -> Result<Vec<RemoteKey>, Fault> {
        let Some(lister) = self.0.backend.lister() else {
            return Err(Fault::invalid(
                Reason::InvalidSpec,
                "the store's provider cannot list names: use data or dataFrom.extract instead of find",
            ));
        };
        self.guarded(lister.list_tagged(listing.path.as_ref().map(RemoteKey::as_str), &listing.tags)).await?
    }

    /// A provider that hangs or panics costs its own call only.
    async fn guarded<T>(&self, call: impl Future<Output = T>) -> Result<T, Fault> {
        match tokio::time::timeout(self.0.call_timeout + OVERTIME, AssertUnwindSafe(call).catch_unwind()).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(bug("a provider panicked")),
            Err(_) => {
                let limit = self.0.call_timeout;
                Err(Fault::unavailable(format!("the store gave no answer within {limit:?}: check that it is reachable and not overloaded")))
            }
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Asked {
    fn value(&self) -> Option<&RemoteRef> {
        match self {
            Self::Value(value) => Some(value),
            Self::Names(_) => None,
        }
    }
}

impl State {
    fn ask(&mut self, asked: Asked, not_before: Instant, priority: Priority) -> Waiting {
        if let Some(kept) = self.table.get(&asked, not_before) {
            return std::future::ready(kept).boxed();
        }
        let (sender, receiver) = oneshot::channel();
        if let Some(flight) = self.flying.get_mut(&asked).and_then(|flights| flights.iter_mut().find(|flight| flight.at >= not_before)) {
            flight.waiters.push(sender);
        } else {
            self.enqueue(asked, priority, sender);
        }
        async move {
            receiver.await.unwrap_or_else(|_| Arc::new(Kept { answer: Answer::Names(Err(bug("a call was lost"))), at: Instant::now() }))
        }
        .boxed()
    }

    fn enqueue(&mut self, asked: Asked, priority: Priority, waiter: oneshot::Sender<Arc<Kept<Answer>>>) {
        self.turn += 1;
        let turn = self.turn;
        let queued = self.queued.entry(asked.clone()).or_insert_with(|| Queued { priority, turn, waiters: Vec::new() });
        queued.waiters.push(waiter);
        if queued.turn == turn {
            self.queue.insert((priority, turn, asked));
        } else if priority < queued.priority {
            self.queue.remove(&(queued.priority, queued.turn, asked.clone()));
            queued.priority = priority;
            self.queue.insert((priority, queued.turn, asked));
        }
    }

    /// No two calls start at the same instant: then "at or after" says which one saw a change.
    fn next_start(&mut self) -> Instant {
        let now = Instant::now();
        let start = self.last_start.map_or(now, |last| now.max(last + Duration::from_nanos(1)));
        self.last_start = Some(start);
        start
    }

    /// What one call asks: the first in the queue, and as many more values as fit. Names come alone.
    fn take(&mut self, batch_size: usize, at: Instant) -> Vec<Asked> {
        let mut batch: Vec<Asked> = Vec::new();
        while batch.len() < batch_size {
            let is_first = batch.is_empty();
            let next = self.queue.iter().find(|(_, _, asked)| is_first || asked.value().is_some()).cloned();
            let Some(entry) = next else { break };
            self.queue.remove(&entry);
            let asked = entry.2;
            let waiters = self.queued.remove(&asked).map(|queued| queued.waiters).unwrap_or_default();
            self.flying.entry(asked.clone()).or_default().push(Flight { at, waiters });
            let is_alone = asked.value().is_none();
            batch.push(asked);
            if is_alone {
                break;
            }
        }
        batch
    }

    fn deliver(&mut self, asked: Asked, kept: &Arc<Kept<Answer>>) {
        let Some(flights) = self.flying.get_mut(&asked) else { return };
        let landed: Vec<Flight> = flights.extract_if(.., |flight| flight.at == kept.at).collect();
        if flights.is_empty() {
            self.flying.remove(&asked);
        }
        self.table.put(asked, kept);
        for waiter in landed.into_iter().flat_map(|flight| flight.waiters) {
            // Whoever has gone away meanwhile wants nothing any more.
            let _ = waiter.send(kept.clone());
        }
    }
}
