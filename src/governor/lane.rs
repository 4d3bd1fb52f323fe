//! The calls to one store: what is asked at the same time is asked once, in batches, a bounded number at a time, each with a deadline, no
//! faster than the store may be asked, and not at all while it is down.

use std::{
    collections::{BTreeMap, HashMap, HashSet, hash_map::RandomState},
    hash::BuildHasher,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::{
    FutureExt,
    future::{BoxFuture, join_all},
    stream::BoxStream,
};
use tokio::{
    sync::{Notify, oneshot},
    time::{Instant, sleep_until},
};

use super::{
    Priority,
    breaker::{Admission, Breaker, Pauses},
    pace::{Pace, Rate, Turn},
    probe,
    queue::Queue,
};
use crate::{
    access::Search,
    backend::Backend,
    cache::{Allowance, Kept, Reserve, Table},
    crd::v1alpha1::Capabilities,
    fault::{Class, Fault, Reason, quote},
    item::{Fetched, Hint, Item, Listing, Reading, Versions, Wanted},
    metrics::{How, StoreSeries, Tally},
    name::{RemoteKey, RemoteRef},
};

/// What a provider gets beyond its own deadline: its own words about the time-out are the better ones, and with both at the same
/// moment the message would change between attempts.
const OVERTIME: Duration = Duration::from_secs(1);

/// Objects that start together share batches: where a call takes several, the first waits so long for others.
const WINDOW: Duration = Duration::from_millis(2);
/// A larger batch than this is no call to another system: it is not refused for one of its keys.
const LARGEST_REMOTE_BATCH: usize = 256;
/// Keys that are asked for alone, because they had their batch refused.
const MOST_ALONE: usize = 1_024;

/// How a store is asked.
#[derive(Clone, Debug)]
pub struct Manner {
    /// Calls in flight. At least 1.
    pub concurrency: usize,
    /// Deadline of one call, connect included.
    pub call_timeout: Duration,
    pub rate: Option<Rate>,
    /// Values that may be kept although nobody holds them.
    pub allowance: Option<Allowance>,
    /// Longest patience that the store can ask for.
    pub longest_hold: Duration,
    /// Between calls to a store that is down.
    pub pauses: Pauses,
}

/// What is asked of a backend.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Asked {
    Value(RemoteRef),
    Names(Listing),
    /// Names and values of all that is below a path.
    All(Listing),
}

/// What it answered.
#[derive(Clone, Debug)]
pub enum Answer {
    Value(Reading),
    Names(Result<Vec<RemoteKey>, Fault>),
    All(BTreeMap<RemoteKey, Fetched>),
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
    manner: Manner,
    /// Opened with the session, before anything is read: what changes between a read and the first listener is hinted at too.
    hints: Mutex<Option<BoxStream<'static, Hint>>>,
    gives_hints: bool,
    /// The store went down or came back.
    turned: Notify,
    jitter: RandomState,
    series: StoreSeries,
    state: Mutex<State>,
}

struct State {
    table: Table<Asked, Answer>,
    reserve: Option<Reserve<Asked, Answer>>,
    /// Asked and not yet sent.
    queue: Queue<Asked>,
    waiters: HashMap<Asked, Queued>,
    flying: HashMap<Asked, Vec<Flight>>,
    calls: usize,
    last_start: Option<Instant>,
    pace: Pace,
    breaker: Breaker<Asked, Arc<Trouble>>,
    /// How the store refused the call after which it has to be left alone.
    refusal: Option<Arc<Trouble>>,
    /// Until then the first of a batch waits for others.
    window: Option<Instant>,
    /// When the queue is looked at by itself.
    alarm: Option<Instant>,
    alone: HashSet<Asked>,
    has_recovered: bool,
    backend: Arc<dyn Backend>,
    /// While the store is down.
    down: Option<Tally>,
    series: StoreSeries,
}

/// A question that waits for its call.
struct Queued {
    since: Instant,
    /// Counts it as long as it waits.
    _counted: Tally,
    waiters: Vec<Waiter>,
}

type Waiter = oneshot::Sender<Arc<Kept<Answer>>>;

/// A call under way that will answer a question.
struct Flight {
    at: Instant,
    waiters: Vec<Waiter>,
}

/// How the store failed to answer, and to what question.
#[derive(Debug)]
struct Trouble {
    asked: Asked,
    fault: Fault,
}

/// One call and what is asked with it.
struct Call {
    batch: Vec<Asked>,
    at: Instant,
    /// It finds out whether the store is up again.
    is_probe: bool,
}

impl Lane {
    /// `former` is the lane to the same store that this one replaces: what the store said of its pace goes on.
    pub fn new(backend: Arc<dyn Backend>, manner: Manner, former: Option<&Self>, series: StoreSeries) -> Self {
        series.allow(manner.concurrency.max(1), manner.rate.map(|rate| rate.per_second));
        let hints = backend.changes();
        let gives_hints = hints.is_some();
        let hints = Mutex::new(hints);
        let (pace, refusal) = match former.map(Self::state) {
            Some(former) => (former.pace.limited(manner.rate), former.refusal.clone()),
            None => (Pace::new(manner.rate, manner.longest_hold), None),
        };
        let state = Mutex::new(State {
            table: Table::default(),
            reserve: manner.allowance.map(Reserve::new),
            queue: Queue::default(),
            waiters: HashMap::new(),
            flying: HashMap::new(),
            calls: 0,
            last_start: None,
            pace,
            breaker: Breaker::new(manner.pauses),
            refusal,
            window: None,
            alarm: None,
            alone: HashSet::new(),
            has_recovered: false,
            backend: Arc::clone(&backend),
            down: None,
            series: series.clone(),
        });
        Self(Arc::new(Inner { backend, manner, hints, gives_hints, turned: Notify::new(), jitter: RandomState::new(), series, state }))
    }

    pub fn batch_size(&self) -> usize {
        self.0.backend.batch_size().max(1)
    }

    /// What a look at an item begins with. A search that takes everything below its path is read at once where that costs no more.
    pub fn asked_for(&self, item: &Item) -> Asked {
        let find = match &item.wanted {
            Wanted::Value(value) => return Asked::Value(value.clone()),
            Wanted::Find(find) => find,
        };
        let (listing, lister) = (&find.listing, self.0.backend.lister());
        let gives_values = lister.is_some_and(|lister| lister.gives_values(listing.path.as_ref().map(RemoteKey::as_str)));
        let wants_values = listing.tags.is_empty() && !find.is_metadata;
        if gives_values && wants_values && Search::new(find).is_ok_and(|search| search.takes_all()) {
            return Asked::All(listing.clone());
        }
        Asked::Names(listing.clone())
    }

    /// Whether the store can tell versions without reading values.
    pub fn has_prober(&self) -> bool {
        self.0.backend.prober().is_some()
    }

    /// Which of the items are still of the versions that were read, and since when that is known at least. No value is read.
    pub async fn unchanged(&self, known: &[(&Item, &Versions)]) -> (Instant, Vec<bool>) {
        let at = self.state().next_start();
        let Some(prober) = self.0.backend.prober() else { return (at, vec![false; known.len()]) };
        let answers = join_all(known.iter().map(|(item, versions)| probe::is_unchanged(prober, item, versions)));
        (at, self.guarded(answers).await.unwrap_or_else(|_| vec![false; known.len()]))
    }

    pub fn changes(&self) -> Option<BoxStream<'static, Hint>> {
        let opened = self.0.hints.lock().unwrap_or_else(PoisonError::into_inner).take();
        opened.or_else(|| self.0.backend.changes())
    }

    /// What may be kept although nobody holds it.
    pub fn allowance(&self) -> Option<Allowance> {
        self.0.manner.allowance
    }

    /// Lets go of kept values that may have changed.
    pub fn forget(&self, hint: &Hint) {
        if let Some(reserve) = &mut self.state().reserve {
            reserve.forget_all(|asked| asked.value().is_some_and(|value| hint.concerns(&Wanted::Value(value.clone()))));
        }
    }

    /// Lets go of each kept value when its time is over, as long as there is one.
    fn expire_by_itself(&self, mut next: Instant) {
        let lane = Arc::downgrade(&self.0);
        tokio::spawn(async move {
            loop {
                sleep_until(next).await;
                let Some(lane) = lane.upgrade().map(Self) else { return };
                let mut state = lane.state();
                match state.reserve.as_mut().and_then(|reserve| reserve.expire(Instant::now())) {
                    Some(end) => next = end,
                    None => return,
                }
            }
        });
    }

    /// Resolves when the store went down or came back since the last call of this.
    pub async fn turned(&self) {
        self.0.turned.notified().await;
    }

    /// Whether the store came back since this was asked last.
    pub fn take_recovered(&self) -> bool {
        std::mem::take(&mut self.state().has_recovered)
    }

    /// When a call may find out whether a store that is down is up again; none while it is up, or while one finds out.
    pub fn probe_at(&self) -> Option<Instant> {
        self.state().breaker.probe_at()
    }

    pub fn is_unattended(&self, wanted: &RemoteRef) -> bool {
        self.0.backend.is_unattended(wanted)
    }

    /// Tells the backend that nobody uses the value any more; nobody waits for what it does then.
    pub fn release(&self, wanted: RemoteRef) {
        let lane = self.clone();
        tokio::spawn(async move { lane.guarded(lane.0.backend.release(&wanted)).await });
    }

    /// What the store can do, once its login was checked. No backend rotates in this build.
    pub async fn check(&self) -> Result<Capabilities, Fault> {
        let traits = self.guarded(self.0.backend.check()).await??;
        Ok(Capabilities {
            read: true,
            list: self.0.backend.lister().is_some(),
            batch: self.batch_size() > 1,
            probe: self.0.backend.prober().is_some(),
            write: self.0.backend.writer().is_some(),
            versions: traits.has_versions,
            events: self.0.gives_hints,
            ..Capabilities::default()
        })
    }

    /// Asks, or joins who has asked: what is kept or under way is good enough if its call began at or after `not_before`. All are
    /// asked before the first call starts, so that they share calls. One answer each, in the same order.
    pub fn ask(&self, asked: impl IntoIterator<Item = Asked>, not_before: Instant, priority: Priority) -> Vec<Waiting> {
        let mut state = self.state();
        if self.batch_size() > 1 && state.queue.is_empty() {
            state.window = Some(Instant::now() + WINDOW);
        }
        let waiting = asked.into_iter().map(|asked| state.ask(asked, not_before, priority)).collect();
        self.pump(&mut state);
        waiting
    }

    /// Starts calls while there is something to ask and it may be asked. What may not be asked soon is answered: its look has failed.
    fn pump(&self, state: &mut State) {
        while !state.queue.is_empty() {
            let now = Instant::now();
            let is_probe = match state.breaker.admit(now) {
                Admission::Refused(trouble) => return state.refuse(|asked| trouble.retold(asked)),
                Admission::Probe => true,
                Admission::Free => false,
            };
            if state.calls >= self.0.manner.concurrency.max(1) {
                return;
            }
            match state.pace.turn(now) {
                Turn::Held(left) => return state.refuse_for(left),
                Turn::At(at) => return self.look_again(state, at),
                Turn::Now => {}
            }
            if let Some(end) = state.window_end(now, self.batch_size()) {
                return self.look_again(state, end);
            }
            let call = state.begin(now, self.batch_size(), is_probe);
            tokio::spawn(self.clone().call(call));
        }
    }

    /// Looks at the queue again at that moment, unless it is done before anyway.
    fn look_again(&self, state: &mut State, at: Instant) {
        if state.alarm.is_some_and(|alarm| alarm <= at) {
            return;
        }
        state.alarm = Some(at);
        let lane = Arc::downgrade(&self.0);
        tokio::spawn(async move {
            sleep_until(at).await;
            if let Some(lane) = lane.upgrade().map(Self) {
                let mut state = lane.state();
                state.alarm = state.alarm.filter(|alarm| *alarm != at);
                lane.pump(&mut state);
            }
        });
    }

    async fn call(self, call: Call) {
        let _counted = self.0.series.flying();
        let answers = self.answers(&call.batch).await;
        let mut state = self.state();
        state.calls -= 1;
        self.judge(&mut state, &call, &answers);
        for (asked, answer) in call.batch.into_iter().zip(answers) {
            let counted = Some(self.0.series.sharing.hold(answer.size()));
            let kept = Arc::new(Kept { answer, at: call.at, counted });
            if let Some(end) = state.keep(&asked, &kept) {
                self.expire_by_itself(end);
            }
            state.deliver(asked, &kept);
        }
        self.pump(&mut state);
    }

    /// What a call says about the store.
    fn judge(&self, state: &mut State, call: &Call, answers: &[Answer]) {
        let (now, fraction) = (Instant::now(), self.fraction(call.at));
        let troubles: Vec<Arc<Trouble>> = call.batch.iter().zip(answers).filter_map(|(asked, answer)| answer.trouble(asked)).collect();
        let refusal = troubles.iter().find_map(|trouble| Some((trouble, trouble.refusal()?)));
        if let Some((trouble, hint)) = refusal {
            state.pace.refused(now, hint, fraction);
            state.refusal = Some(Arc::clone(trouble));
        }
        let turned = match troubles.first() {
            Some(trouble) if troubles.len() == answers.len() && (refusal.is_none() || call.is_probe) => {
                state.breaker.fail(call.batch.iter().cloned(), Arc::clone(trouble), call.is_probe, now, fraction)
            }
            _ if refusal.is_some() => false,
            _ => {
                let is_back = state.breaker.succeed();
                state.has_recovered |= is_back;
                is_back
            }
        };
        if turned {
            // Counted once, however often it is found to be still down.
            state.down = state.breaker.probe_at().map(|_| state.down.take().unwrap_or_else(|| self.0.series.down()));
            self.0.turned.notify_one();
        }
    }

    /// Exactly one answer for each.
    async fn answers(&self, batch: &[Asked]) -> Vec<Answer> {
        let values: Vec<RemoteRef> = batch.iter().filter_map(Asked::value).cloned().collect();
        match batch.first() {
            Some(Asked::Names(listing)) => vec![Answer::Names(self.names(listing).await)],
            Some(Asked::All(listing)) => vec![self.all(listing).await],
            _ => self.shared(&values).await.into_iter().map(Answer::Value).collect(),
        }
    }

    /// A batch that is refused as a whole is halved until the key that it is refused for is alone. From then on that one is asked for
    /// alone, until it is refused no more.
    async fn shared(&self, refs: &[RemoteRef]) -> Vec<Reading> {
        let (mut parts, mut readings) = (vec![refs], Vec::with_capacity(refs.len()));
        while let Some(part) = parts.pop() {
            if !readings.is_empty() || part.len() < refs.len() {
                self.turn().await;
            }
            let read = self.readings(part).await;
            if is_refused_whole(&read) && (2..=LARGEST_REMOTE_BATCH).contains(&part.len()) {
                let (first, second) = part.split_at(part.len() / 2);
                parts.extend([second, first]);
                continue;
            }
            if let [one] = part {
                self.state().note_alone(one, is_refused_whole(&read) || is_withheld(&read), refs.len() > 1);
            }
            readings.extend(read);
        }
        readings
    }

    /// Waits until a call that belongs to one under way may begin.
    async fn turn(&self) {
        loop {
            let next = {
                let (mut state, now) = (self.state(), Instant::now());
                match state.pace.turn(now) {
                    Turn::Now => return state.pace.begin(now),
                    Turn::At(at) => at,
                    Turn::Held(left) => now + left,
                }
            };
            sleep_until(next).await;
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

    /// The names alone where the backend gives no values with them after all.
    async fn all(&self, listing: &Listing) -> Answer {
        let Some(lister) = self.0.backend.lister() else { return Answer::Names(self.names(listing).await) };
        match self.guarded(lister.list_values(listing.path.as_ref().map(RemoteKey::as_str))).await {
            Ok(Ok(Some(values))) => Answer::All(values),
            Ok(Ok(None)) => Answer::Names(self.names(listing).await),
            Ok(Err(fault)) | Err(fault) => Answer::Names(Err(fault)),
        }
    }

    /// A provider that hangs or panics costs its own call only.
    async fn guarded<T>(&self, call: impl Future<Output = T>) -> Result<T, Fault> {
        let limit = self.0.manner.call_timeout;
        match tokio::time::timeout(limit + OVERTIME, AssertUnwindSafe(call).catch_unwind()).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(bug("a provider panicked")),
            Err(_) => {
                Err(Fault::unavailable(format!("the store gave no answer within {limit:?}: check that it is reachable and not overloaded")))
            }
        }
    }

    /// A fraction of one that nobody can foretell.
    #[expect(clippy::cast_precision_loss, reason = "a fraction")]
    fn fraction(&self, at: Instant) -> f64 {
        self.0.jitter.hash_one(at) as f64 / u64::MAX as f64
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a call was refused for what it asked, with the same words for every key.
fn is_refused_whole(readings: &[Reading]) -> bool {
    let refusal = |reading: &Reading| match reading {
        Reading::Unknown(fault) if matches!(fault.class, Class::Invalid | Class::Denied) => Some(fault.clone()),
        Reading::Unknown(_) | Reading::Found(_) | Reading::Absent(_) => None,
    };
    let first = readings.first().and_then(refusal);
    first.is_some() && readings.iter().all(|reading| refusal(reading) == first)
}

/// Whether the store has it and does not give it: some refuse all that is asked with it then.
fn is_withheld(readings: &[Reading]) -> bool {
    readings.iter().any(|reading| matches!(reading, Reading::Absent(fault) if fault.reason != Reason::NotFound))
}

impl Answer {
    /// Bytes of values in it.
    fn size(&self) -> usize {
        match self {
            Self::Value(Reading::Found(fetched)) => fetched.value.len(),
            Self::All(values) => values.values().map(|fetched| fetched.value.len()).sum(),
            Self::Value(Reading::Absent(_) | Reading::Unknown(_)) | Self::Names(_) => 0,
        }
    }

    /// Why the store itself could not answer, if so.
    fn trouble(&self, asked: &Asked) -> Option<Arc<Trouble>> {
        let fault = match self {
            Self::Value(Reading::Unknown(fault)) | Self::Names(Err(fault)) => fault,
            Self::Value(Reading::Found(_) | Reading::Absent(_)) | Self::Names(Ok(_)) | Self::All(_) => return None,
        };
        let is_trouble = matches!(fault.class, Class::Unavailable | Class::Throttled { .. } | Class::Bug);
        is_trouble.then(|| Arc::new(Trouble { asked: asked.clone(), fault: fault.clone() }))
    }
}

impl Trouble {
    /// The store asks for patience: for how long, zero if it does not say.
    fn refusal(&self) -> Option<Duration> {
        match self.fault.class {
            Class::Throttled { after } => Some(after.unwrap_or_default()),
            _ => None,
        }
    }

    /// The same fault for another question, in the words in which the store's own answer to it would be told: a look that is not made
    /// and one that is must not take turns in a status.
    fn retold(&self, asked: &Asked) -> Fault {
        let (Some(told), Some(other)) = (self.asked.value(), asked.value()) else { return self.fault.clone() };
        let (told, other) = (told.key.as_str(), other.key.as_str());
        let detail = self.fault.detail.replace(&format!("{told:?}"), &format!("{other:?}")).replace(&quote(told), &quote(other));
        Fault { detail, ..self.fault.clone() }
    }
}

impl Asked {
    fn value(&self) -> Option<&RemoteRef> {
        match self {
            Self::Value(value) => Some(value),
            Self::Names(_) | Self::All(_) => None,
        }
    }
}

impl State {
    fn ask(&mut self, asked: Asked, not_before: Instant, priority: Priority) -> Waiting {
        if let Some(kept) = self.table.get(&asked, not_before) {
            self.series.sharing.answered(How::Kept);
            return std::future::ready(kept).boxed();
        }
        let (sender, receiver) = oneshot::channel();
        if let Some(flight) = self.flying.get_mut(&asked).and_then(|flights| flights.iter_mut().find(|flight| flight.at >= not_before)) {
            flight.waiters.push(sender);
            self.series.sharing.answered(How::Joined);
        } else {
            let queued = self.waiters.entry(asked.clone()).or_insert_with(|| Queued {
                since: Instant::now(),
                _counted: self.series.waiting(),
                waiters: Vec::new(),
            });
            self.series.sharing.answered(if queued.waiters.is_empty() { How::Asked } else { How::Joined });
            queued.waiters.push(sender);
            self.queue.push(asked, priority);
        }
        let lost = || Arc::new(Kept { answer: Answer::Names(Err(bug("a call was lost"))), at: Instant::now(), counted: None });
        async move { receiver.await.unwrap_or_else(|_| lost()) }.boxed()
    }

    /// No two calls start at the same instant: then "at or after" says which one saw a change.
    fn next_start(&mut self) -> Instant {
        let now = Instant::now();
        let start = self.last_start.map_or(now, |last| now.max(last + Duration::from_nanos(1)));
        self.last_start = Some(start);
        start
    }

    /// Until when the first of a batch waits for others; not once the batch is full, and not for periodic looks, which come together
    /// already.
    fn window_end(&self, now: Instant, batch_size: usize) -> Option<Instant> {
        let is_waiting = batch_size > 1 && self.queue.len() < batch_size && !self.queue.has(Priority::Periodic);
        self.window.filter(|end| is_waiting && *end > now)
    }

    /// Takes what the next call asks.
    fn begin(&mut self, now: Instant, batch_size: usize, is_probe: bool) -> Call {
        let at = self.next_start();
        let (alone, backend) = (&self.alone, &self.backend);
        let shares = |asked: &Asked| asked.value().filter(|_| !alone.contains(asked)).and_then(|wanted| backend.shares(wanted));
        let batch = self.queue.take(batch_size, shares);
        for asked in &batch {
            let waiters = self.waiters.remove(asked).map_or_else(Vec::new, |queued| {
                self.series.waited(now.saturating_duration_since(queued.since));
                queued.waiters
            });
            self.flying.entry(asked.clone()).or_default().push(Flight { at, waiters });
        }
        self.calls += 1;
        self.pace.begin(now);
        if is_probe {
            self.breaker.probe();
        }
        Call { batch, at, is_probe }
    }

    /// Everything that waits has failed without a call.
    fn refuse(&mut self, fault: impl Fn(&Asked) -> Fault) {
        for asked in self.queue.drain() {
            let fault = fault(&asked);
            self.series.sharing.refused(fault.reason);
            let answer = match &asked {
                Asked::Value(_) => Answer::Value(Reading::Unknown(fault)),
                Asked::Names(_) | Asked::All(_) => Answer::Names(Err(fault)),
            };
            let kept = Arc::new(Kept { answer, at: self.next_start(), counted: None });
            let waiters = self.waiters.remove(&asked).map(|queued| queued.waiters).unwrap_or_default();
            self.hand_over(asked, &kept, waiters);
        }
    }

    /// The store has to be left alone for so long.
    fn refuse_for(&mut self, left: Duration) {
        let refusal = self.refusal.clone();
        self.refuse(|asked| match &refusal {
            Some(trouble) => Fault { class: Class::Throttled { after: Some(left) }, ..trouble.retold(asked) },
            None => Fault::throttled(Some(left), "the store asked to be left alone for a while: it is asked again when that is over"),
        });
    }

    /// Keeps a value that may be kept, and nothing else; when it has to go, if nobody sees to that yet.
    fn keep(&mut self, asked: &Asked, kept: &Arc<Kept<Answer>>) -> Option<Instant> {
        let reserve = self.reserve.as_mut()?;
        if !matches!(kept.answer, Answer::Value(Reading::Found(_))) {
            reserve.forget(asked);
            return None;
        }
        let is_first = reserve.is_empty();
        reserve.keep(asked.clone(), kept);
        reserve.expire(kept.at).filter(|_| is_first)
    }

    fn deliver(&mut self, asked: Asked, kept: &Arc<Kept<Answer>>) {
        let Some(flights) = self.flying.get_mut(&asked) else { return };
        let landed: Vec<Flight> = flights.extract_if(.., |flight| flight.at == kept.at).collect();
        if flights.is_empty() {
            self.flying.remove(&asked);
        }
        self.hand_over(asked, kept, landed.into_iter().flat_map(|flight| flight.waiters));
    }

    fn hand_over(&mut self, asked: Asked, kept: &Arc<Kept<Answer>>, waiters: impl IntoIterator<Item = Waiter>) {
        self.table.put(asked, kept);
        for waiter in waiters {
            // Whoever has gone away meanwhile wants nothing any more.
            let _ = waiter.send(kept.clone());
        }
    }

    fn note_alone(&mut self, wanted: &RemoteRef, is_refused: bool, had_company: bool) {
        let asked = Asked::Value(wanted.clone());
        if !is_refused {
            self.alone.remove(&asked);
        } else if had_company && self.alone.len() < MOST_ALONE {
            self.alone.insert(asked);
        }
    }
}
