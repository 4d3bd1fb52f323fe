//! A ServiceAccount's token for a login, requested when it is asked for and kept for two thirds of its life.

use async_trait::async_trait;
use tokio::{sync::Mutex, time::Instant};

use crate::{
    access::{Granted, TokenAccount},
    backend::TokenSource,
    cluster::{
        Cluster,
        account::{TOKEN_LIFE, TokenError},
    },
    fault::{Class, Fault, Reason},
    secret::SecretValue,
};

/// The tokens of one account for one session.
pub(super) struct AccountTokens {
    cluster: Cluster,
    account: Granted<TokenAccount>,
    kept: Mutex<Option<(SecretValue, Instant)>>,
}

impl AccountTokens {
    pub fn new(cluster: Cluster, account: Granted<TokenAccount>) -> Self {
        Self { cluster, account, kept: Mutex::default() }
    }
}

impl std::fmt::Debug for AccountTokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AccountTokens({:?})", self.account.get())
    }
}

#[async_trait]
impl TokenSource for AccountTokens {
    async fn token(&self) -> Result<SecretValue, Fault> {
        let mut kept = self.kept.lock().await;
        if let Some((token, _)) = kept.as_ref().filter(|(_, until)| Instant::now() < *until) {
            return Ok(token.clone());
        }
        let asked = Instant::now();
        let token = self.cluster.account_token(self.account.get()).await.map_err(|error| fault(self.account.get(), &error))?;
        *kept = Some((token.clone(), asked + TOKEN_LIFE * 2 / 3));
        Ok(token)
    }

    async fn forget(&self) {
        *self.kept.lock().await = None;
    }

    async fn annotation(&self, name: &str) -> Result<Option<String>, Fault> {
        let account = self.account.get();
        self.cluster.account_annotation(account, name).await.map_err(|error| fault(account, &error))
    }
}

/// Looked at again like a store that is not there yet: consent and rights are given outside our sight.
fn fault(account: &TokenAccount, error: &TokenError) -> Fault {
    let TokenAccount { namespace, name, .. } = account;
    let detail = format!("ServiceAccount {namespace}/{name} {error}");
    match error {
        TokenError::OwnAudience => Fault::not_allowed(detail),
        TokenError::NoConsent | TokenError::NoRight | TokenError::Cluster(_) => {
            Fault::new(Class::Unavailable, Reason::StoreNotReady, detail)
        }
    }
}
