//! One session: one login however many ask at once, renewed at two thirds of its life, and once more after a refusal.
//!
//! A token of a Secret is the business of whoever put it there: it is neither renewed nor replaced here.

use std::time::Duration;

use http::HeaderValue;
use rustify::endpoint::Endpoint;
use tokio::{sync::Mutex, time::Instant};
use zeroize::Zeroizing;

use super::{
    answer::{self, Answer, Grant},
    connection::Connection,
    failure::Failure,
    leases::TokenLife,
    login::{Login, Post, Way},
};
use crate::{
    backend::{Credentials, Settings},
    crd::v1alpha1::VaultProvider,
    fault::Fault,
    name::StoreName,
};

/// A login that was refused is not tried again within this, and after a refused read nobody logs in anew within this: a thousand keys
/// that a policy does not admit are not a thousand logins.
const PAUSE: Duration = Duration::from_secs(10);

/// A way to a server, and the token to go it with.
pub(super) struct Session {
    connection: Connection,
    way: Way,
    state: Mutex<State>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("connection", &self.connection).field("way", &self.way).finish_non_exhaustive()
    }
}

#[derive(Default)]
struct State {
    held: Option<Held>,
    logins: u64,
    /// The last login that failed, and when it had.
    failed: Option<(Instant, Failure)>,
    /// When a refused read last led to a login.
    relogin: Option<Instant>,
}

/// A token of a login.
#[derive(Clone)]
struct Held {
    token: HeaderValue,
    /// Which login it is of.
    number: u64,
    /// What the login granted; none for ever.
    life: Option<Duration>,
    renew_at: Option<Instant>,
    expires: Option<Instant>,
    is_renewable: bool,
}

impl Held {
    fn is_due(&self) -> bool {
        self.renew_at.is_some_and(|at| at <= Instant::now())
    }

    fn is_expired(&self) -> bool {
        self.expires.is_some_and(|at| at <= Instant::now())
    }

    /// Lives from `since` on for what the server granted.
    fn lives(&mut self, since: Instant, life: Option<Duration>) {
        self.renew_at = life.map(|life| since + life * 2 / 3);
        self.expires = life.map(|life| since + life);
    }
}

impl Session {
    /// Builds the session; nothing is sent.
    pub fn open(store: &StoreName, spec: &VaultProvider, credentials: &Credentials, settings: &Settings) -> Result<Self, Fault> {
        let connection = Connection::open(store, spec, credentials, settings)?;
        Ok(Self { connection, way: Way::of(spec, credentials)?, state: Mutex::default() })
    }

    /// Sends a request with a token that is valid as far as we know; after a refusal once more with another one, if there is one.
    pub async fn call<E: Endpoint>(&self, request: impl Fn() -> E) -> Result<Answer, Failure> {
        let login = match &self.way {
            Way::Fixed(token) => return self.connection.call(Some(token), request()).await,
            Way::Login(login) => login,
        };
        let held = self.token(login).await?;
        let answer = self.connection.call(Some(&held.token), request()).await?;
        if !matches!(answer.status, 401 | 403) {
            return Ok(answer);
        }
        match self.replacement(login, &held, answer.names_the_token()).await? {
            Some(other) => self.connection.call(Some(&other.token), request()).await,
            None => Ok(answer),
        }
    }

    /// Renews the token if it is due: leases die with it, although nobody calls meanwhile.
    pub async fn keep(&self) -> Result<TokenLife, Failure> {
        match &self.way {
            Way::Fixed(_) => Ok(TokenLife::default()),
            Way::Login(login) => {
                let Held { number, renew_at, expires, .. } = self.token(login).await?;
                Ok(TokenLife { number, renew_at, expires })
            }
        }
    }

    async fn token(&self, login: &Login) -> Result<Held, Failure> {
        let asked = Instant::now();
        let mut state = self.state.lock().await;
        match state.held.clone().filter(|held| !held.is_expired()) {
            None => self.log_in(login, &mut state, asked).await,
            Some(held) if held.is_due() => Ok(self.renewed(login, &mut state, held).await),
            Some(held) => Ok(held),
        }
    }

    /// Another token than the one that was refused, if that is worth a try.
    async fn replacement(&self, login: &Login, refused: &Held, names_the_token: bool) -> Result<Option<Held>, Failure> {
        let asked = Instant::now();
        let mut state = self.state.lock().await;
        if let Some(held) = state.held.clone().filter(|held| held.number != refused.number) {
            return Ok(Some(held));
        }
        if !names_the_token && state.relogin.is_some_and(|at| at.elapsed() < PAUSE) {
            return Ok(None);
        }
        state.held = None;
        let held = self.log_in(login, &mut state, asked).await?;
        state.relogin = Some(Instant::now());
        Ok(Some(held))
    }

    /// One login for all that wait for the lock: what failed since they asked failed for them, too.
    async fn log_in(&self, login: &Login, state: &mut State, asked: Instant) -> Result<Held, Failure> {
        if let Some((at, failure)) = &state.failed
            && (*at >= asked || (failure.is_refusal() && at.elapsed() < PAUSE))
        {
            return Err(failure.clone());
        }
        let began = Instant::now();
        match self.granted(login).await {
            Ok(grant) => {
                state.logins += 1;
                state.failed = None;
                let mut held = Held {
                    token: grant.token,
                    number: state.logins,
                    life: grant.life,
                    renew_at: None,
                    expires: None,
                    is_renewable: grant.is_renewable,
                };
                held.lives(began, grant.life);
                state.held = Some(held.clone());
                Ok(held)
            }
            Err(failure) => {
                state.failed = Some((Instant::now(), failure.clone()));
                Err(failure)
            }
        }
    }

    async fn granted(&self, login: &Login) -> Result<Grant, Failure> {
        let request = login.request().await?;
        let answer = self.connection.call(None, request).await?;
        answer::grant(&answer).map_err(|failure| failure.of_login(login.method))
    }

    /// The token for longer, or another one. While it is valid it serves, whatever becomes of that.
    async fn renewed(&self, login: &Login, state: &mut State, mut held: Held) -> Held {
        if held.is_renewable && self.renew(&mut held).await {
            state.held = Some(held.clone());
            return held;
        }
        if let Ok(other) = self.log_in(login, state, Instant::now()).await {
            return other;
        }
        // Not at every call: a third of what is left later.
        let left = held.expires.map(|at| at.saturating_duration_since(Instant::now()));
        held.renew_at = left.map(|left| Instant::now() + left / 3);
        state.held = Some(held.clone());
        held
    }

    /// Whether the server let it live on as long as at first; less means that it nears its longest life.
    async fn renew(&self, held: &mut Held) -> bool {
        let began = Instant::now();
        let request = Post { path: "auth/token/renew-self".to_owned(), body: Zeroizing::new(b"{}".to_vec()) };
        let Ok(answer) = self.connection.call(Some(&held.token), request).await else { return false };
        let Ok(grant) = answer::grant(&answer) else { return false };
        let is_whole = match (grant.life, held.life) {
            (Some(granted), Some(life)) => granted * 2 >= life,
            (None, _) => true,
            (Some(_), None) => false,
        };
        if is_whole {
            held.lives(began, grant.life);
        }
        is_whole
    }
}
