//! One reconcile: the stages in a row, and what the process remembers of it.

use std::{sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use super::{
    Context,
    memory::{Blocked, Handled, Memory, Written},
    queue::Action,
    rooms::Inside,
};
use crate::{
    cluster::ClusterError,
    crd::{
        condition::{self, READY},
        v1alpha1::{EntryState, RefreshPolicy, SyncObject, SyncStatus},
    },
    digest::ShortMac,
    engine::{
        apply::{self, Done},
        fetch::{self, Connected, Fetched},
        plan::{self, Seen, Snapshot, WriteKind, record::Record, standing},
        report::{self, Outcome},
        resolve::{self, Judged, Request},
    },
    fault::{Class, Fault, Reason, Retry, retry},
    governor::Priority,
    item::{Item, Reading, Sighting, Wanted},
    metrics::Stage,
    name::ObjectKey,
    refresh::{Absence, RegisteredItem, Registration},
    schedule::due::{Due, Standing, TargetState, due},
};

/// Who found no room at a store is called when there is; it comes back after this although nobody called.
const PARKED: Duration = Duration::from_secs(60);

/// Reconciles one object: what the cache shows of it now, up to what its status says of it then.
pub async fn reconcile(object: SyncObject, key: &Arc<ObjectKey>, context: &Context) -> Action {
    let uid = object.metadata().uid.clone().unwrap_or_default();
    let action = Reconcile::begin(object, key, context).run().await;
    if !context.memories.with(key, &uid, |memory| memory.is_parked) {
        context.arrivals.note(key, &context.refresh);
    }
    action
}

/// The state of one run: what it began with, and the stage results that later stages and the report share.
struct Reconcile<'a> {
    context: &'a Context,
    key: &'a Arc<ObjectKey>,
    object: SyncObject,
    memory: Memory,
    /// The resource version at which a status may be written.
    version: String,
    now: Timestamp,
    began: Instant,
}

impl<'a> Reconcile<'a> {
    /// Takes the wake out of the memory: whoever asks from now on asks again.
    fn begin(object: SyncObject, key: &'a Arc<ObjectKey>, context: &'a Context) -> Self {
        let uid = object.metadata().uid.clone().unwrap_or_default();
        let memory = context.memories.with(key, &uid, |memory| {
            let taken = memory.clone();
            memory.wake = None;
            memory.is_parked = false;
            taken
        });
        Self { context, key, object, memory, version: String::new(), now: (context.clock)(), began: Instant::now() }
    }

    async fn run(mut self) -> Action {
        let (status, version) = self.memory.status_of(&self.object);
        self.version = version;
        let metrics = &self.context.metrics;
        let request =
            metrics.timed(Stage::Resolve, async { resolve::resolve(&self.context.world, self.object.clone(), status, self.now) }).await;
        if request.is_deleting || request.is_leaving {
            return self.gone();
        }
        let judged = metrics.timed(Stage::Access, async { resolve::judge(request, &self.context.world.protected) }).await;
        let connected = self.context.sessions.connect(&judged).await;
        let judged = judged.under(&connected);
        self.note_names(&judged, &connected);
        let standing = self.standing(&judged, &connected);
        match due(standing) {
            Due::Nothing => self.rest(&judged, &connected),
            Due::Suspended => {
                self.context.refresh.forget(self.key);
                self.report(&judged, &connected, Outcome::Suspended).await
            }
            Due::Kept => self.report(&judged, &connected, Outcome::Kept).await,
            Due::Fetch => self.refresh(&judged, &connected, standing).await,
        }
    }

    fn standing(&self, judged: &Judged, connected: &Connected) -> Standing {
        let request = &judged.request;
        let by = standing_there(request);
        let is_blocked = self.memory.blocked.as_ref().is_some_and(|blocked| blocked.holds(by.as_ref(), request.rival.as_deref(), self.now));
        let target = if is_blocked {
            TargetState::Unwritten
        } else {
            standing::state(
                request.facts.as_deref(),
                &self.context.key,
                self.key,
                &request.uid,
                &request.target,
                request.creation,
                request.was_written(),
            )
        };
        let is_unblocked = self.memory.blocked.is_some() && !is_blocked;
        let is_overdue = report::expiry(request, &request.status, &self.context.timings).is_some_and(|end| end <= self.now);
        Standing {
            is_suspended: request.is_suspended,
            policy: request.policy,
            is_settled: !is_unblocked && self.is_settled(judged, connected),
            is_asked: self.memory.wake.is_some() || is_overdue,
            target,
        }
    }

    /// Whether this process handled exactly this, or, after a restart, the status says that somebody did.
    fn is_settled(&self, judged: &Judged, connected: &Connected) -> bool {
        let request = &judged.request;
        if let Some(handled) = &self.memory.handled {
            return *handled == handled_now(judged, connected);
        }
        let status = &request.status;
        let is_suspended_no_more =
            condition::find(&status.conditions, READY).is_some_and(|ready| ready.reason == Reason::Suspended.as_str());
        let seal = report::seal(judged, request.facts.as_deref(), status.last_change_time.as_ref());
        status.observed_generation == Some(request.generation)
            && status.inputs.as_deref() == Some(&seal)
            && status.handled_refresh == request.token
            && connected.values().all(Result::is_ok)
            && !self.has_other_login(judged, connected)
            && (!request.was_written() || is_noted(request))
            && !is_suspended_no_more
            && report::stands(status)
    }

    /// Whether the login of a store changed while nobody ran: what it may read can only be seen by looking.
    fn has_other_login(&self, judged: &Judged, connected: &Connected) -> bool {
        connected.iter().any(|(name, session)| {
            let store = judged.request.stores.get(name).and_then(Option::as_ref);
            store.zip(session.as_ref().ok()).is_some_and(|(store, session)| self.context.stores.has_other_login(store, session.id()))
        })
    }

    /// Everything agrees: the poller looks on.
    fn rest(&self, judged: &Judged, connected: &Connected) -> Action {
        let record = self.record(&judged.request);
        let failing = failing_entries(&judged.request);
        self.register(judged, connected, |at, item| {
            let known = record.as_ref().and_then(|record| record.item(&self.context.key, item));
            (known, failing.get(at).cloned().flatten())
        });
        self.remember(|memory| {
            memory.handled.get_or_insert_with(|| handled_now(judged, connected));
        });
        self.context.refresh.settled(self.key, self.began);
        self.wait_for_expiry(&judged.request, &judged.request.status)
    }

    /// What the target says of its searches, so that a list which shrank while nobody looked is not believed at once.
    fn note_names(&self, judged: &Judged, connected: &Connected) {
        let entries = judged.request.entries();
        let granted = entries.iter().zip(&judged.verdicts).filter_map(|(entry, verdict)| Some((entry, verdict.as_ref().ok()?)));
        let mut searches = granted.filter(|(_, granted)| matches!(granted.get().wanted, Wanted::Find(_))).peekable();
        let Some(record) = searches.peek().and_then(|_| self.record(&judged.request)) else { return };
        for (entry, search) in searches {
            let session = connected.get(&judged.request.store_of(entry)).and_then(|session| session.as_ref().ok());
            if let (Some(session), Some(count)) = (session, record.names_of(search.get())) {
                session.note_names(search, count);
            }
        }
    }

    fn record(&self, request: &Request) -> Option<Record> {
        match standing::holding(request.facts.as_deref(), &self.context.key, self.key, &request.target) {
            standing::Holding::Ours(record) => Some(record),
            _ => None,
        }
    }

    /// Fetch, plan, apply, report.
    async fn refresh(self, judged: &Judged, connected: &Connected, standing: Standing) -> Action {
        let Some(inside) = self.enter(judged, connected) else { return self.park() };
        if standing.target == TargetState::Missing {
            match self.may_recreate(&judged.request).await {
                Ok(None) => {}
                Ok(Some(wait)) => return self.again(wait),
                Err(error) => return self.failed(&error),
            }
        }
        let not_before = self.not_before(standing);
        let metrics = &self.context.metrics;
        let fetched = metrics.timed(Stage::Fetch, fetch::fetch(judged, connected, not_before, priority(&judged.request))).await;
        drop(inside);
        let looks: Vec<_> = fetched.iter().flatten().filter_map(|look| look.as_ref().ok()).cloned().collect();
        self.context.refresh.observe(self.key, &looks);
        let snapshot = self.snapshot(judged, &fetched);
        let plan = metrics.timed(Stage::Plan, async { plan::plan(judged, &snapshot, &self.context.key, &self.repairs()) }).await;
        let written = apply::apply(&plan, &self.context.cluster, &self.context.world.targets);
        let done = metrics.timed(Stage::Apply, written).await;
        self.note_writes(&done);
        let macs = plan.macs.clone();
        match report::outcome(&judged.request, plan, done) {
            Ok(outcome) => {
                // First the poller's new picture, then the report that settles: between the two nothing may look caught up.
                self.register(judged, connected, |at, item| seen_of(&macs, &fetched, at, item));
                self.report(judged, connected, outcome).await
            }
            Err(ClusterError::Changed) => self.judge_again(&judged.request).await,
            Err(ClusterError::NamespaceTerminating) => self.gone(),
            Err(error) => self.failed(&error),
        }
    }

    /// From when on looks are good enough. One that woke the object is, unless somebody asked for more than that since; and for an object
    /// that has no target yet one that began when the object was known already, so that many of one key that start together share it.
    fn not_before(&self, standing: Standing) -> Instant {
        let is_first = self.memory.handled.is_none() && self.memory.failures == 0 && standing.target == TargetState::Unwritten;
        let from = match self.memory.wake {
            Some(wake) => Some(wake).filter(|_| standing.is_settled),
            None => self.object.metadata().resource_version.as_deref().filter(|_| is_first).and_then(|it| self.memory.known_since(it)),
        };
        from.map_or(self.began, |from| from.min(self.began))
    }

    /// A place at each of its stores.
    fn enter(&self, judged: &Judged, connected: &Connected) -> Option<Inside> {
        let stores = connected.values().filter_map(|session| Some(session.as_ref().ok()?.id().store.clone())).collect();
        self.context.rooms.enter(&stores, self.context.room, self.key, priority(&judged.request))
    }

    /// There is none: it is called when somebody leaves, and comes back by itself if it was not.
    fn park(&self) -> Action {
        if let Some(wake) = self.memory.wake {
            self.context.memories.wake(self.key, wake);
        }
        self.remember(|memory| memory.is_parked = true);
        Action::requeue(PARKED)
    }

    /// Nothing can be written for it any more.
    fn gone(&self) -> Action {
        self.context.refresh.gone(self.key);
        Action::await_change()
    }

    /// A deleted target comes back at once, but never more often than the timing says, and only while its object really lives: with
    /// foreground deletion the target goes before its object.
    async fn may_recreate(&self, request: &Request) -> Result<Option<Duration>, ClusterError> {
        if let Some(wait) = self.memory.recreated.and_then(|at| left(at, self.context.timings.recreation, self.now)) {
            return Ok(Some(wait));
        }
        match self.context.cluster.is_alive(self.key, &request.uid).await {
            Ok(true) => Ok(None),
            Ok(false) => Ok(Some(Duration::MAX)),
            Err(error) => Err(error),
        }
    }

    fn snapshot(&self, judged: &Judged, fetched: &Fetched) -> Snapshot {
        judged
            .verdicts
            .iter()
            .zip(fetched)
            .map(|(verdict, look)| {
                let item = verdict.as_ref().ok()?.get();
                let sighting = match look.as_ref()? {
                    Ok(look) => look.sighting.clone(),
                    Err(fault) => Sighting::Value(Reading::Unknown(fault.clone())),
                };
                Some(Seen {
                    sighting,
                    is_absence_confirmed: self.context.refresh.absence(item) == Absence::Confirmed,
                    is_braked: self.context.refresh.is_braked(&item.store),
                })
            })
            .collect()
    }

    fn repairs(&self) -> plan::Repairs {
        plan::Repairs { window: self.context.timings.repair_window, ..self.memory.repairs.clone() }
    }

    fn note_writes(&self, done: &Done) {
        let (now, window) = (self.now, self.context.timings.repair_window);
        self.remember(|memory| {
            if done.wrote == Some(WriteKind::Recreate) {
                memory.recreated = Some(now);
            }
            for key in &done.restored {
                memory.repairs.restored.entry(key.clone()).or_default().push(now);
            }
            memory.repairs.restored.retain(|_, times| {
                times.retain(|at| left(*at, window, now).is_some());
                !times.is_empty()
            });
        });
    }

    /// Writes what became of it; the outcome stands from here on.
    async fn report(&self, judged: &Judged, connected: &Connected, outcome: Outcome) -> Action {
        let request = &judged.request;
        let next = report::status(judged, &outcome, &self.context.timings);
        if next != request.status {
            let patched = self.context.cluster.patch_status(self.key, &self.version, &next);
            match self.context.metrics.timed(Stage::Report, patched).await {
                Ok(version) => self.remember(|memory| match version {
                    Some(version) => memory.wrote(Written { version, status: next.clone() }),
                    None => memory.written = None,
                }),
                Err(ClusterError::NotFound | ClusterError::NamespaceTerminating) => return self.gone(),
                Err(error) => return self.failed(&error),
            }
            for event in report::events(request, &outcome, &next) {
                if let Err(error) = self.context.cluster.publish(&self.object, &event).await {
                    tracing::debug!(%error, "an event could not be published");
                }
            }
        }
        self.context.metrics.reconciled(reason_of(&outcome));
        let fault = match &outcome {
            Outcome::Faulty { fault, .. } => Some(fault),
            Outcome::Synced { .. } | Outcome::Suspended | Outcome::Kept => None,
        };
        let blocked = fault.filter(|fault| fault.class == Class::Conflict).map(|fault| self.blocked_now(request, fault));
        let is_failing = fault.is_some_and(|fault| retry(fault) == Retry::ObjectBackoff);
        self.remember(|memory| {
            memory.handled = (!is_failing).then(|| handled_now(judged, connected));
            memory.blocked = blocked.map(Box::new);
            if !is_failing {
                memory.failures = 0;
            }
        });
        self.context.refresh.settled(self.key, self.began);
        if let (true, Some(fault)) = (is_failing, fault) {
            tracing::warn!(object = %self.key, reason = %fault.reason, "tried again later");
            return Action::requeue(self.pause());
        }
        self.next_time(request, &next, fault)
    }

    /// When nothing happens meanwhile: the staleness limit, or the end of a repair pause.
    fn next_time(&self, request: &Request, next: &SyncStatus, fault: Option<&Fault>) -> Action {
        match fault {
            Some(fault) if is_pause(request, fault) => Action::requeue(self.context.timings.repair_window),
            _ => self.wait_for_expiry(request, next),
        }
    }

    fn wait_for_expiry(&self, request: &Request, status: &SyncStatus) -> Action {
        match report::expiry(request, status, &self.context.timings) {
            Some(end) => Action::requeue(until(end, self.now).max(Duration::from_millis(10))),
            None => Action::await_change(),
        }
    }

    fn blocked_now(&self, request: &Request, fault: &Fault) -> Blocked {
        let pause = SignedDuration::try_from(self.context.timings.repair_window).unwrap_or(SignedDuration::ZERO);
        Blocked {
            // What was judged, not what stands there by now: a change since then must be seen as one.
            by: standing_there(request),
            rival: request.rival.clone(),
            until: is_pause(request, fault).then(|| self.now.checked_add(pause).ok()).flatten(),
        }
    }

    /// The target is not what the cache showed: one live look, then the stages anew.
    async fn judge_again(&self, request: &Request) -> Action {
        match self.context.cluster.target(&request.target).await {
            Ok(Some(facts)) => {
                self.context.world.targets.put(request.target.clone(), facts, true);
            }
            Ok(None) => {
                self.context.world.targets.remove(&request.target);
            }
            Err(error) => return self.failed(&error),
        }
        let is_first = self.memory.failures == 0;
        let pause = self.pause();
        self.again(if is_first { Duration::ZERO } else { pause })
    }

    /// The API server failed: nothing is settled, the wake stays.
    fn failed(&self, error: &ClusterError) -> Action {
        let pause = self.pause();
        tracing::warn!(object = %self.key, %error, pause = ?pause, "the API server failed; tried again later");
        self.again(pause)
    }

    fn pause(&self) -> Duration {
        let timings = &self.context.timings;
        self.context.memories.with(self.key, &self.memory.uid, |memory| memory.fail(timings.backoff, timings.backoff_max))
    }

    fn again(&self, wait: Duration) -> Action {
        if let Some(wake) = self.memory.wake {
            self.context.memories.wake(self.key, wake);
        }
        self.remember(|memory| memory.handled = None);
        if wait == Duration::MAX { Action::await_change() } else { Action::requeue(wait) }
    }

    fn remember(&self, work: impl FnOnce(&mut Memory)) {
        self.context.memories.with(self.key, &self.memory.uid, work);
    }

    /// Hands the items to the poller. `seen` says what the object dealt with last and whether the look fails.
    fn register(&self, judged: &Judged, connected: &Connected, seen: impl Fn(usize, &Item) -> (Option<ShortMac>, Option<Fault>)) {
        let request = &judged.request;
        let is_done = request.policy == RefreshPolicy::CreatedOnce && request.was_written();
        if is_done || judged.verdicts.iter().any(Result::is_err) {
            self.context.refresh.forget(self.key);
            return;
        }
        let entries = request.entries();
        let items = entries
            .iter()
            .zip(&judged.verdicts)
            .enumerate()
            .filter_map(|(at, (entry, verdict))| {
                let item = verdict.as_ref().ok()?.clone();
                let session = connected.get(&request.store_of(entry))?.as_ref().ok()?.clone();
                let (known, failing) = seen(at, item.get());
                Some(RegisteredItem { item, session, known, failing })
            })
            .collect();
        self.context.refresh.register(Registration { object: ObjectKey::clone(self.key), interval: request.interval, items });
    }
}

fn priority(request: &Request) -> Priority {
    if request.status.observed_generation == Some(request.generation) { Priority::Changed } else { Priority::Fresh }
}

fn reason_of(outcome: &Outcome) -> Reason {
    match outcome {
        Outcome::Synced { .. } | Outcome::Kept => Reason::Synced,
        Outcome::Faulty { fault, .. } => fault.reason,
        Outcome::Suspended => Reason::Suspended,
    }
}

fn handled_now(judged: &Judged, connected: &Connected) -> Handled {
    let unconnected =
        connected.iter().filter_map(|(store, session)| session.as_ref().err().map(|fault| format!("{store} {}", fault.reason)));
    Handled {
        generation: judged.request.generation,
        inputs: judged.inputs.clone(),
        token: judged.request.token.clone(),
        unconnected: unconnected.collect::<Vec<_>>().join("\n"),
    }
}

/// Whether the status names the target that is there.
fn is_noted(request: &Request) -> bool {
    let noted = request.status.target.as_ref().and_then(|target| target.uid.as_deref());
    request.facts.as_ref().is_none_or(|facts| noted == Some(facts.uid.as_str()))
}

/// UID and resource version of what stands under the target's name.
fn standing_there(request: &Request) -> Option<(String, String)> {
    request.facts.as_ref().map(|facts| (facts.uid.clone(), facts.resource_version.clone()))
}

/// Our own target is contested: its editor wins for a while, then it is tried again.
fn is_pause(request: &Request, fault: &Fault) -> bool {
    fault.reason == Reason::Conflict && request.was_written()
}

/// What a fetch saw of an item, for the poller.
fn seen_of(macs: &[(Item, Option<ShortMac>)], fetched: &Fetched, at: usize, item: &Item) -> (Option<ShortMac>, Option<Fault>) {
    let known = macs.iter().find(|(of, _)| of == item).and_then(|(_, mac)| *mac);
    let failing = match fetched.get(at) {
        Some(Some(Ok(look))) => match &look.sighting {
            Sighting::Value(Reading::Absent(fault) | Reading::Unknown(fault)) | Sighting::Found(Err(fault)) => Some(fault.clone()),
            Sighting::Value(Reading::Found(_)) | Sighting::Found(Ok(_)) => None,
        },
        Some(Some(Err(fault))) => Some(fault.clone()),
        Some(None) | None => None,
    };
    (known, failing)
}

/// After a restart: which entries were failing, as the status records them, by the index of the entry.
fn failing_entries(request: &Request) -> Vec<Option<Fault>> {
    request
        .entries()
        .iter()
        .map(|entry| {
            let name = entry.place.to_string();
            let known = request.status.entries.iter().find(|known| known.name == name)?;
            let (class, reason) = match known.state {
                EntryState::Current => return None,
                EntryState::Invalid => (Class::Invalid, Reason::InvalidData),
                EntryState::Absent => (Class::Absent, Reason::NotFound),
                EntryState::Denied => (Class::Denied, Reason::AccessDenied),
                EntryState::Unavailable => (Class::Unavailable, Reason::ProviderUnavailable),
                EntryState::Throttled => (Class::Throttled { after: None }, Reason::Throttled),
            };
            Some(Fault::new(class, Reason::parse(&known.reason).unwrap_or(reason), "as before the restart"))
        })
        .collect()
}

/// What is left of `limit` since `at`; none when it is over.
fn left(at: Timestamp, limit: Duration, now: Timestamp) -> Option<Duration> {
    let limit = SignedDuration::try_from(limit).ok()?;
    Some(until(at.checked_add(limit).ok()?, now)).filter(|left| !left.is_zero())
}

fn until(end: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(end.duration_since(now)).unwrap_or_default()
}
