//! Who leads: one Lease, taken and renewed with its resourceVersion, judged by the monotonic clock of this process only.
//!
//! Wall-clock times are written for people and for other tools; nothing here is decided from them. The leader stops by itself before
//! anybody else may start: it counts from the moment *before* a renewal was sent, everybody else from the moment *after* they saw it.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube::api::PostParams;
use tokio_util::sync::CancellationToken;

use crate::metrics::{Beat, Gate, Health, Metrics, Write};

/// Everything that was due before this time was looked at, and every object that it woke was dealt with.
pub const CAUGHT_UP_ANNOTATION: &str = "keyferry.dev/caught-up";

/// Which Lease, who we are, and how long things last.
#[derive(Clone, Debug)]
pub struct Settings {
    pub namespace: String,
    pub name: String,
    /// The holder's name; a Lease under our own name is taken at once. Two live processes must never share it.
    pub identity: String,
    /// How long others wait after the last renewal that they saw. Written in whole seconds, rounded up.
    pub duration: Duration,
    /// How long the leader goes on after it began its last successful renewal. Shorter than `duration`.
    pub renew: Duration,
    /// Pause between two attempts. Shorter than `renew`.
    pub retry: Duration,
}

/// Leadership ended although nobody asked for it: the process must end too, before somebody else begins.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    #[error("the Lease could not be renewed in time: {0}")]
    Expired(String),
    #[error("the Lease is held by {0:?} now")]
    Taken(String),
    #[error("the Lease was deleted")]
    Deleted,
}

/// What a writer asks before it writes. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Leadership(Arc<Mutex<Option<Instant>>>);

impl Leadership {
    /// Time that is left to write in; no write may last longer. Zero once leadership ended.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        self.deadline().map_or(Duration::ZERO, |deadline| deadline.saturating_duration_since(Instant::now()))
    }

    fn deadline(&self) -> Option<Instant> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, deadline: Option<Instant>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = deadline;
    }
}

/// Takes the Lease.
pub struct Elector {
    leases: Box<dyn Leases>,
    settings: Settings,
    metrics: Metrics,
    beat: Beat,
}

/// The Lease is ours, until [`Held::keep`] ends.
pub struct Held {
    elector: Elector,
    lease: Lease,
    leadership: Leadership,
    caught_up: Option<Timestamp>,
}

impl Elector {
    /// Builds a client of its own: no retries, short time-outs, so that a slow API server cannot hide that time runs out.
    ///
    /// # Errors
    /// When no client can be made of the configuration.
    pub fn connect(mut config: kube::Config, settings: Settings, metrics: Metrics, health: &Health) -> Result<Self, kube::Error> {
        config.default_retry = false;
        let timeout = Some(call_timeout(&settings));
        (config.connect_timeout, config.read_timeout, config.write_timeout) = (timeout, timeout, timeout);
        let client = kube::Client::try_from(config)?;
        let leases = Cluster { api: kube::Api::namespaced(client, &settings.namespace), name: settings.name.clone() };
        Ok(Self::new(Box::new(leases), settings, metrics, health))
    }

    fn new(leases: Box<dyn Leases>, settings: Settings, metrics: Metrics, health: &Health) -> Self {
        let beat = health.task("lease", settings.duration * 4);
        Self { leases, settings, metrics, beat }
    }

    /// Waits until the Lease is ours; `None` when stopped before. Who stands by is ready, so the gate is open while somebody else
    /// leads, and closed when this process begins to: its caches are empty then.
    pub async fn acquire(self, ready: &Gate, stop: &CancellationToken) -> Option<Held> {
        let mut seen = None;
        loop {
            self.beat.now();
            let pause = match self.attempt(&mut seen).await {
                Ok(Attempt::Held(lease, deadline)) => {
                    ready.close();
                    return Some(self.hold(*lease, deadline));
                }
                Ok(Attempt::Wait(left)) => {
                    ready.open();
                    left.min(self.settings.retry)
                }
                Err(error) => {
                    tracing::warn!(%error, "the Lease could not be read or taken");
                    self.settings.retry
                }
            };
            tokio::select! {
                () = stop.cancelled() => return None,
                () = pause_for(pause) => {}
            }
        }
    }

    async fn attempt(&self, seen: &mut Option<Seen>) -> Result<Attempt, CallError> {
        let Some(lease) = self.call(self.leases.get()).await? else {
            return self.take(Lease::default(), true).await;
        };
        let wait = Seen::update(seen, &lease, &self.settings, Instant::now());
        if wait.is_zero() { self.take(lease, false).await } else { Ok(Attempt::Wait(wait)) }
    }

    async fn take(&self, mut lease: Lease, is_new: bool) -> Result<Attempt, CallError> {
        let spec = lease.spec.take().unwrap_or_default();
        lease.metadata.name = Some(self.settings.name.clone());
        lease.spec = Some(LeaseSpec {
            acquire_time: Some(MicroTime(Timestamp::now())),
            // Raised by every acquisition, also by one under the same name: it tells two holders of one name apart.
            lease_transitions: Some(spec.lease_transitions.unwrap_or_default().saturating_add(1)),
            ..self.renewed(spec)
        });
        let began = Instant::now();
        let written = if is_new { self.write(self.leases.create(&lease)).await } else { self.write(self.leases.replace(&lease)).await };
        match written {
            Ok(lease) => Ok(Attempt::Held(Box::new(lease), began + self.settings.renew)),
            // Somebody was faster: look again after the usual pause.
            Err(CallError::Conflict) => Ok(Attempt::Wait(self.settings.retry)),
            Err(error) => Err(error),
        }
    }

    fn renewed(&self, spec: LeaseSpec) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(self.settings.identity.clone()),
            lease_duration_seconds: Some(whole_seconds(self.settings.duration)),
            renew_time: Some(MicroTime(Timestamp::now())),
            ..spec
        }
    }

    fn hold(self, lease: Lease, deadline: Instant) -> Held {
        let caught_up = read_mark(&lease);
        self.metrics.set_leader(true);
        tracing::info!(identity = self.settings.identity, caught_up = caught_up.map(|mark| mark.to_string()), "leading");
        Held { elector: self, lease, leadership: Leadership(Arc::new(Mutex::new(Some(deadline)))), caught_up }
    }

    async fn call<T>(&self, call: impl Future<Output = Result<T, CallError>>) -> Result<T, CallError> {
        tokio::time::timeout(call_timeout(&self.settings), call)
            .await
            .unwrap_or_else(|_| Err(CallError::Failed("no answer in time".to_owned())))
    }

    async fn write(&self, call: impl Future<Output = Result<Lease, CallError>>) -> Result<Lease, CallError> {
        let answer = self.call(call).await;
        self.metrics.wrote(Write::Lease, answer.is_ok());
        answer
    }
}

impl Held {
    /// What writers hold on to.
    #[must_use]
    pub fn leadership(&self) -> Leadership {
        self.leadership.clone()
    }

    /// The mark that the last leader left; `None` means that everything is due.
    #[must_use]
    pub fn caught_up(&self) -> Option<Timestamp> {
        self.caught_up
    }

    /// Renews, writing the mark along, until `drained`; then releases the Lease, so that the next leader starts at once. Cancel
    /// `drained` only when no write is under way.
    ///
    /// # Errors
    /// [`Lost`] when leadership ended otherwise; [`Leadership::remaining`] is zero by then.
    pub async fn keep(mut self, caught_up: impl Fn() -> Option<Timestamp>, drained: CancellationToken) -> Result<(), Lost> {
        let ended = loop {
            tokio::select! {
                biased;
                () = drained.cancelled() => break Ok(()),
                () = pause_for(self.elector.settings.retry) => {}
            }
            self.elector.beat.now();
            tokio::select! {
                biased;
                () = drained.cancelled() => break Ok(()),
                renewal = self.renew(&caught_up) => if let Err(lost) = renewal { break Err(lost) },
            }
        };
        self.leadership.set(None);
        self.elector.metrics.set_leader(false);
        if ended.is_ok() {
            self.release(&caught_up).await;
        }
        ended
    }

    /// Tries until it worked or time ran out.
    async fn renew(&mut self, caught_up: &impl Fn() -> Option<Timestamp>) -> Result<(), Lost> {
        let mut cause = "no attempt was answered".to_owned();
        loop {
            let left = self.leadership.remaining();
            if left.is_zero() {
                return Err(Lost::Expired(cause));
            }
            let attempt = tokio::time::timeout(left, self.renew_once(caught_up)).await;
            match attempt {
                Ok(Ok(true)) => return Ok(()),
                // Somebody changed the Lease and left it ours: again, with what is there now.
                Ok(Ok(false)) => continue,
                Ok(Err(Renewal::Lost(lost))) => return Err(lost),
                Ok(Err(Renewal::Failed(error))) => cause = error,
                Err(_) => "no answer in time".clone_into(&mut cause),
            }
            tracing::warn!(error = cause, left = ?self.leadership.remaining(), "the Lease was not renewed");
            pause_for(self.elector.settings.retry.min(self.leadership.remaining())).await;
        }
    }

    /// `true` when renewed, `false` when the Lease has changed under us and is read anew.
    async fn renew_once(&mut self, caught_up: &impl Fn() -> Option<Timestamp>) -> Result<bool, Renewal> {
        let mut lease = self.lease.clone();
        lease.spec = Some(self.elector.renewed(lease.spec.unwrap_or_default()));
        write_mark(&mut lease.metadata, caught_up());
        let began = Instant::now();
        match self.elector.write(self.elector.leases.replace(&lease)).await {
            Ok(lease) => {
                self.lease = lease;
                self.leadership.set(Some(began + self.elector.settings.renew));
                Ok(true)
            }
            Err(CallError::Conflict) => self.reread().await.map(|()| false),
            Err(CallError::Failed(error)) => Err(Renewal::Failed(error)),
        }
    }

    /// After a conflict: is it still ours? An earlier renewal whose answer was lost looks like this too.
    async fn reread(&mut self) -> Result<(), Renewal> {
        let found = self.elector.call(self.elector.leases.get()).await.map_err(|error| Renewal::Failed(error.to_string()))?;
        let lease = found.ok_or(Renewal::Lost(Lost::Deleted))?;
        let is_same =
            |part: fn(&LeaseSpec) -> Option<String>| lease.spec.as_ref().and_then(part) == self.lease.spec.as_ref().and_then(part);
        let is_ours = lease.metadata.uid == self.lease.metadata.uid
            && is_same(|spec| spec.holder_identity.clone())
            && is_same(|spec| spec.lease_transitions.map(|count| count.to_string()));
        if !is_ours {
            let holder = lease.spec.and_then(|spec| spec.holder_identity).unwrap_or_default();
            return Err(Renewal::Lost(Lost::Taken(holder)));
        }
        self.lease = lease;
        Ok(())
    }

    /// Best effort: an unreleased Lease runs out by itself.
    async fn release(&mut self, caught_up: &impl Fn() -> Option<Timestamp>) {
        for _ in 0..2 {
            let mut lease = self.lease.clone();
            write_mark(&mut lease.metadata, caught_up());
            let spec = lease.spec.unwrap_or_default();
            lease.spec = Some(LeaseSpec { holder_identity: None, renew_time: Some(MicroTime(Timestamp::now())), ..spec });
            match self.elector.write(self.elector.leases.replace(&lease)).await {
                Ok(_) => return tracing::info!("the Lease is released"),
                Err(CallError::Conflict) if self.reread().await.is_ok() => {}
                Err(error) => return tracing::warn!(%error, "the Lease was not released and runs out by itself"),
            }
        }
    }
}

enum Attempt {
    Held(Box<Lease>, Instant),
    Wait(Duration),
}

enum Renewal {
    Lost(Lost),
    Failed(String),
}

/// Somebody else's Lease and since when it has looked like this.
struct Seen {
    spec: Option<LeaseSpec>,
    since: Instant,
}

impl Seen {
    /// Takes note of the Lease and says how long it still has to be left alone: zero when it may be taken.
    fn update(seen: &mut Option<Self>, lease: &Lease, settings: &Settings, now: Instant) -> Duration {
        let spec = lease.spec.as_ref();
        let holder = spec.and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default();
        if holder.is_empty() || holder == settings.identity {
            return Duration::ZERO;
        }
        // What the holder promised counts: it may run with other settings than we do.
        let promised = spec.and_then(|spec| u64::try_from(spec.lease_duration_seconds?).ok()).filter(|seconds| *seconds > 0);
        let duration = promised.map_or(settings.duration, Duration::from_secs);
        if !seen.as_ref().is_some_and(|seen| seen.spec.as_ref() == spec) {
            tracing::info!(holder, "another process leads");
            *seen = Some(Self { spec: spec.cloned(), since: now });
        }
        let since = seen.as_ref().map_or(now, |seen| seen.since);
        (since + duration).saturating_duration_since(now)
    }
}

/// The election's own clock: it paces a background loop, never a reconcile.
#[expect(clippy::disallowed_methods, reason = "the election waits between attempts, and here only")]
async fn pause_for(pause: Duration) {
    tokio::time::sleep(pause).await;
}

fn call_timeout(settings: &Settings) -> Duration {
    settings.renew / 3
}

fn whole_seconds(duration: Duration) -> i32 {
    let seconds = duration.as_secs() + u64::from(duration.subsec_nanos() > 0);
    i32::try_from(seconds).unwrap_or(i32::MAX)
}

fn read_mark(lease: &Lease) -> Option<Timestamp> {
    lease.metadata.annotations.as_ref()?.get(CAUGHT_UP_ANNOTATION)?.parse().ok()
}

/// Without a new mark the old one stays: what was done before it is still done.
fn write_mark(metadata: &mut ObjectMeta, mark: Option<Timestamp>) {
    if let Some(mark) = mark {
        metadata.annotations.get_or_insert_with(BTreeMap::new).insert(CAUGHT_UP_ANNOTATION.to_owned(), mark.to_string());
    }
}

/// Why a call gave no Lease.
#[derive(Clone, Debug, PartialEq, Eq)]
enum CallError {
    /// It is not what we thought: changed, there already, or gone.
    Conflict,
    Failed(String),
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Conflict => f.write_str("it was changed meanwhile"),
            Self::Failed(error) => f.write_str(error),
        }
    }
}

/// The three calls.
#[async_trait]
trait Leases: Send + Sync {
    async fn get(&self) -> Result<Option<Lease>, CallError>;
    async fn create(&self, lease: &Lease) -> Result<Lease, CallError>;
    /// Only if its resourceVersion is still the one in `lease`.
    async fn replace(&self, lease: &Lease) -> Result<Lease, CallError>;
}

struct Cluster {
    api: kube::Api<Lease>,
    name: String,
}

#[async_trait]
impl Leases for Cluster {
    async fn get(&self) -> Result<Option<Lease>, CallError> {
        self.api.get_opt(&self.name).await.map_err(CallError::from)
    }

    async fn create(&self, lease: &Lease) -> Result<Lease, CallError> {
        Ok(self.api.create(&PostParams::default(), lease).await?)
    }

    async fn replace(&self, lease: &Lease) -> Result<Lease, CallError> {
        match self.api.replace(&self.name, &PostParams::default(), lease).await {
            Err(kube::Error::Api(status)) if status.is_not_found() => Err(CallError::Conflict),
            answer => Ok(answer?),
        }
    }
}

impl From<kube::Error> for CallError {
    fn from(error: kube::Error) -> Self {
        match &error {
            kube::Error::Api(status) if status.is_conflict() || status.is_already_exists() => Self::Conflict,
            _ => Self::Failed(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests;
