//! The poller of one store: takes what is due, looks, hands in what was seen. Ends when nobody uses the store any more.

use std::{sync::Arc, time::Duration};

use futures::{
    FutureExt, StreamExt,
    future::BoxFuture,
    stream::{BoxStream, FuturesUnordered},
};
use tokio::{sync::Notify, time::Instant};

use super::{Chunk, MayLook, Refresh};
use crate::{
    access::Granted,
    governor::{Look, Priority, Session, SessionId},
    item::{Hint, Item, Versions},
    metrics::Beat,
};

/// Calls that one poller has asked for at most; how many really go out at once is the governor's business.
const CHUNKS: usize = 32;
/// Longest rest, so that a wall clock that jumped is noticed.
const LONGEST_REST: Duration = Duration::from_secs(30);
/// A poller that did not come around for so long is stuck: it waits for nothing longer than a rest.
pub(super) const LONGEST_SILENCE: Duration = Duration::from_secs(120);
/// How often it is asked whether looking may go on.
const PAUSE: Duration = Duration::from_secs(1);
/// Pause before hints are asked for again after their stream ended.
const LISTEN_AGAIN: Duration = Duration::from_secs(10);

/// A look that is over.
struct Landed {
    items: Vec<Arc<Item>>,
    looks: Vec<Look>,
    /// What was not read again, because it provably has not changed; known at that moment.
    unchanged: (Instant, Vec<Item>),
}

struct Poller {
    refresh: Refresh,
    store: String,
    changed: Arc<Notify>,
    looks: FuturesUnordered<BoxFuture<'static, Landed>>,
    /// Hints with the session that gives them; `None` in it when the system gives none, or gives no more.
    hints: Option<(SessionId, Option<BoxStream<'static, Hint>>)>,
    listen_at: Option<Instant>,
    /// The last moment at which a look was asked for to find out whether the store is up again.
    probed: Option<Instant>,
    may_look: MayLook,
    /// Nothing is begun; it is asked again then.
    paused_until: Option<Instant>,
}

pub(super) async fn run(refresh: Refresh, store: String, changed: Arc<Notify>, beat: Beat, may_look: MayLook) {
    let looks = FuturesUnordered::new();
    let mut poller = Poller { refresh, store, changed, looks, hints: None, listen_at: None, probed: None, may_look, paused_until: None };
    while let Some(session) = poller.refresh.session(&poller.store, &poller.changed) {
        beat.now();
        poller.listen(&session);
        poller.heed(&session);
        poller.begin(&session);
        poller.wait(&session).await;
    }
}

impl Poller {
    /// Hints come from the session that is polled with. After a gap in them everything is looked at once.
    fn listen(&mut self, session: &Session) {
        let is_other = self.hints.as_ref().is_none_or(|(id, _)| id != session.id());
        let is_again = self.listen_at.is_some_and(|at| at <= Instant::now());
        if is_other || is_again {
            self.hints = Some((session.id().clone(), session.changes()));
            self.listen_at = None;
        }
        if is_again {
            self.refresh.hint(&self.store, &Hint::All);
        }
    }

    /// A store that is back is asked for all that it did not answer; one that is down is asked now and then whether it is back.
    fn heed(&mut self, session: &Session) {
        if session.take_recovered() {
            self.refresh.recover(&self.store);
        }
        if let Some(at) = self.next_probe(session).filter(|at| *at <= Instant::now()) {
            self.probed = Some(at);
            self.refresh.probe(&self.store);
        }
    }

    fn next_probe(&self, session: &Session) -> Option<Instant> {
        session.probe_at().filter(|at| self.probed != Some(*at))
    }

    fn begin(&mut self, session: &Session) {
        // Each store asks from its own last moment on, so that not all go on at once.
        self.paused_until = (!(self.may_look)()).then(|| Instant::now() + PAUSE);
        if self.paused_until.is_some() {
            return;
        }
        while self.looks.len() < CHUNKS {
            let Some((chunk, known)) = self.refresh.take(&self.store, session.batch_size()) else { break };
            let (session, now) = (session.clone(), Instant::now());
            let priority = if chunk.is_urgent { Priority::Changed } else { Priority::Periodic };
            let look = async move {
                let (at, answers) = session.unchanged(&known).await;
                let (mut unchanged, mut wanted) = (Vec::new(), Vec::new());
                for ((granted, _), is_unchanged) in known.into_iter().zip(answers) {
                    if is_unchanged { unchanged.push(granted.get().clone()) } else { wanted.push(granted) }
                }
                let looks = if wanted.is_empty() { Vec::new() } else { session.look(&wanted, now, priority).await };
                Landed { items: chunk.items, looks, unchanged: (at, unchanged) }
            };
            self.looks.push(look.boxed());
        }
    }

    async fn wait(&mut self, session: &Session) {
        let longest = Instant::now() + LONGEST_REST;
        let due = self.refresh.next_due(&self.store).filter(|_| self.looks.len() < CHUNKS && self.paused_until.is_none());
        let until = [due, self.listen_at, self.next_probe(session), self.paused_until].into_iter().flatten().fold(longest, Instant::min);
        let hints = self.hints.as_mut().and_then(|(_, hints)| hints.as_mut());
        tokio::select! {
            Some(landed) = self.looks.next() => self.refresh.land(&landed),
            () = self.changed.notified() => {}
            () = session.turned() => {}
            () = tokio::time::sleep_until(until) => {}
            hint = next(hints) => match hint {
                Some(hint) => {
                    session.forget(&hint);
                    self.refresh.hint(&self.store, &hint);
                }
                None => self.stop_listening(),
            },
        }
    }

    fn stop_listening(&mut self) {
        if let Some((_, hints)) = &mut self.hints {
            *hints = None;
        }
        self.listen_at = Some(Instant::now() + LISTEN_AGAIN);
    }
}

/// The next hint; without a stream there is none, ever.
async fn next(hints: Option<&mut BoxStream<'static, Hint>>) -> Option<Hint> {
    match hints {
        Some(hints) => hints.next().await,
        None => std::future::pending().await,
    }
}

/// An item that may be looked at, and the versions of which the last look was.
type Known = (Granted<Item>, Option<Versions>);

impl Refresh {
    fn take_unchanged(&self, (at, items): &(Instant, Vec<Item>)) {
        let mut state = self.state();
        for item in items {
            match state.ledger.observe_unchanged(self.now(), item, self.mono(*at)) {
                Some(wakings) => self.wake(wakings),
                // A fault was seen meanwhile: the next look reads.
                None => drop(state.versions.remove(item)),
            }
        }
    }

    /// The session to poll with; none when this life of the store is over.
    fn session(&self, store: &str, changed: &Arc<Notify>) -> Option<Session> {
        let mut state = self.state();
        let session =
            state.stores.get(store).filter(|polled| Arc::ptr_eq(&polled.changed, changed)).map(|polled| polled.session.clone())?;
        if state.ledger.has_store(store) {
            return Some(session);
        }
        state.stores.remove(store);
        None
    }

    fn hint(&self, store: &str, hint: &Hint) {
        self.state().ledger.hint(self.now(), store, hint);
    }

    fn recover(&self, store: &str) {
        self.state().ledger.recover(self.now(), store);
    }

    fn probe(&self, store: &str) {
        self.state().ledger.probe(self.now(), store);
    }

    fn next_due(&self, store: &str) -> Option<Instant> {
        self.state().ledger.next_due(store).map(|due| self.instant(due))
    }

    /// What is due, with the grants to look at it and what is known of it.
    fn take(&self, store: &str, batch: usize) -> Option<(Chunk, Vec<Known>)> {
        let mut state = self.state();
        let chunk = state.ledger.take(self.now(), store, batch)?;
        let known = |item: &Arc<Item>| Some((state.grants.get(&**item)?.clone(), state.versions.get(&**item).cloned()));
        let known = chunk.items.iter().filter_map(known).collect();
        Some((chunk, known))
    }

    fn land(&self, landed: &Landed) {
        self.take_in(None, &landed.looks);
        self.take_unchanged(&landed.unchanged);
        self.state().ledger.give_back(&landed.items);
    }
}
