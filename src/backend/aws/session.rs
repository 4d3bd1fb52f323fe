//! One session of a role: one login however many ask at once, renewed at two thirds of its life while the old one serves, and once more
//! after a refusal.
//!
//! Must not be here: what is sent to log in (`sts`), and which stores share a session (`login`).

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use aws_credential_types::{
    Credentials as Keys,
    provider::{ProvideCredentials, error::CredentialsError, future},
};
use tokio::time::Instant;

use super::{
    failure::Failure,
    sts::{Refusal, Step},
};
use crate::backend::transport::Broken;

/// A login that was refused is not tried again within this, and after a refused call nobody logs in anew within this.
const PAUSE: Duration = Duration::from_secs(10);

/// The keys of a role, as long as somebody asks for them.
pub(super) struct Session {
    step: Step,
    /// Of one login.
    deadline: Duration,
    /// Held by whoever logs in.
    gate: Arc<tokio::sync::Mutex<()>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    held: Option<Held>,
    /// The last login that failed, and when it had.
    failed: Option<(Instant, Failure)>,
    /// When a refused call last led to a login.
    relogin: Option<Instant>,
}

/// Keys of a login.
#[derive(Clone)]
struct Held {
    keys: Keys,
    renew_at: Instant,
    expires: Instant,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("step", &self.step).finish_non_exhaustive()
    }
}

impl Session {
    pub fn new(step: Step, deadline: Duration) -> Self {
        Self { step, deadline, gate: Arc::default(), state: Mutex::default() }
    }

    /// What CloudTrail calls it.
    pub fn name(&self) -> &str {
        self.step.session_name()
    }

    /// Keys that are valid as far as we know. Whoever finds them due starts a renewal, and nobody waits for it.
    pub async fn keys(self: &Arc<Self>) -> Result<Keys, Failure> {
        let asked = Instant::now();
        if let Some(held) = self.valid() {
            if held.renew_at <= asked {
                self.renew_aside();
            }
            return Ok(held.keys);
        }
        let _gate = self.gate.lock().await;
        match self.valid() {
            Some(held) => Ok(held.keys),
            None => self.log_in(asked).await,
        }
    }

    /// Other keys than those that were refused, if that is worth a try.
    pub async fn replacement(&self, refused_id: &str) -> Result<Option<Keys>, Failure> {
        let asked = Instant::now();
        let _gate = self.gate.lock().await;
        if let Some(held) = self.valid().filter(|held| held.keys.access_key_id() != refused_id) {
            return Ok(Some(held.keys));
        }
        if self.state().relogin.is_some_and(|at| at.elapsed() < PAUSE) {
            return Ok(None);
        }
        self.state().held = None;
        let keys = self.log_in(asked).await?;
        self.state().relogin = Some(Instant::now());
        Ok(Some(keys))
    }

    /// One login for all that wait at the gate: what failed since they asked failed for them, too.
    async fn log_in(&self, asked: Instant) -> Result<Keys, Failure> {
        if let Some((at, failure)) = &self.state().failed
            && (*at >= asked || (failure.is_refused_login() && at.elapsed() < PAUSE))
        {
            return Err(failure.clone());
        }
        let began = Instant::now();
        let late = Err(Failure::Login(Refusal::Broken(Broken::TimedOut)));
        let grant = tokio::time::timeout(self.deadline, self.step.take()).await.unwrap_or(late);
        let mut state = self.state();
        match grant {
            Ok(grant) => {
                state.failed = None;
                let held = Held { keys: grant.keys, renew_at: began + grant.life * 2 / 3, expires: began + grant.life };
                Ok(state.held.insert(held).keys.clone())
            }
            Err(failure) => {
                state.failed = Some((Instant::now(), failure.clone()));
                Err(failure)
            }
        }
    }

    /// Unless somebody is at it already.
    fn renew_aside(self: &Arc<Self>) {
        if let Ok(gate) = self.gate.clone().try_lock_owned() {
            let session = self.clone();
            tokio::spawn(async move {
                session.renew().await;
                drop(gate);
            });
        }
    }

    async fn renew(&self) {
        let now = Instant::now();
        if self.valid().is_some_and(|held| held.renew_at > now) || self.log_in(now).await.is_ok() {
            return;
        }
        if let Some(held) = &mut self.state().held {
            // Not at every call: a third of what is left later.
            let now = Instant::now();
            held.renew_at = now + held.expires.saturating_duration_since(now) / 3;
        }
    }

    fn valid(&self) -> Option<Held> {
        self.state().held.clone().filter(|held| held.expires > Instant::now())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A session as the vendor's library asks for keys.
#[derive(Debug)]
pub(super) struct Provider(pub Arc<Session>);

impl ProvideCredentials for Provider {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async move { self.0.keys().await.map_err(CredentialsError::provider_error) })
    }
}
