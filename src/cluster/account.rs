//! Tokens of ServiceAccounts that consented to it, for logins. Never one that this API server would take itself, unless it is meant to.

use std::{collections::BTreeMap, time::Duration};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use k8s_openapi::api::{
    authentication::v1::{TokenRequest, TokenRequestSpec},
    core::v1::ServiceAccount,
};
use kube::{Api, api::PostParams, core::PartialObjectMeta};
use secrecy::ExposeSecret;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::{Cluster, ClusterError};
use crate::{access::TokenAccount, crd::v1alpha1::ALLOW_TOKEN_ANNOTATION, secret::SecretValue};

/// How long a token lives: the least that an API server grants.
pub const TOKEN_LIFE: Duration = Duration::from_mins(10);

/// Why there is no token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("does not exist or does not allow it: annotate it with keyferry.dev/allow-token: \"true\"")]
    NoConsent,
    #[error(
        "lies in a namespace where Keyferry may not request tokens: bind a Role there that lets it get this ServiceAccount and create its token (docs/access.md)"
    )]
    NoRight,
    #[error("would get a token that this cluster's API server takes, too: name the server that it is for in audiences")]
    OwnAudience,
    #[error("got no token: {0}")]
    Cluster(ClusterError),
}

impl From<ClusterError> for TokenError {
    fn from(error: ClusterError) -> Self {
        match error {
            ClusterError::NotFound | ClusterError::NamespaceTerminating => Self::NoConsent,
            ClusterError::Forbidden(_) => Self::NoRight,
            other => Self::Cluster(other),
        }
    }
}

impl Cluster {
    /// Requests a token for [`TOKEN_LIFE`]; the account's consent is looked at each time.
    ///
    /// # Errors
    /// See [`TokenError`].
    pub async fn account_token(&self, account: &TokenAccount) -> Result<SecretValue, TokenError> {
        if !account.is_for_this_cluster && account.audiences.iter().any(|audience| self.audiences.contains(audience)) {
            return Err(TokenError::OwnAudience);
        }
        let api: Api<ServiceAccount> = Api::namespaced(self.client.clone(), &account.namespace);
        self.consenting(&api, account).await?;
        let spec = TokenRequestSpec {
            audiences: account.audiences.clone(),
            expiration_seconds: i64::try_from(TOKEN_LIFE.as_secs()).ok(),
            bound_object_ref: None,
        };
        let request = TokenRequest { spec, ..TokenRequest::default() };
        let answer = self.read(api.create_token_request(&account.name, &PostParams::default(), &request)).await?;
        let token = answer.status.map(|status| SecretValue::from(status.token)).filter(|token| !token.is_empty());
        token.ok_or(TokenError::Cluster(ClusterError::Unavailable("no token in the answer")))
    }

    /// What an account that allows tokens says of itself under that name.
    ///
    /// # Errors
    /// See [`TokenError`].
    pub async fn account_annotation(&self, account: &TokenAccount, name: &str) -> Result<Option<String>, TokenError> {
        let api: Api<ServiceAccount> = Api::namespaced(self.client.clone(), &account.namespace);
        Ok(self.consenting(&api, account).await?.remove(name))
    }

    /// The annotations of an account that allows tokens.
    async fn consenting(&self, api: &Api<ServiceAccount>, account: &TokenAccount) -> Result<BTreeMap<String, String>, TokenError> {
        let found: PartialObjectMeta<ServiceAccount> = self.read(api.get_metadata(&account.name)).await?;
        let annotations = found.metadata.annotations.unwrap_or_default();
        if annotations.get(ALLOW_TOKEN_ANNOTATION).map(String::as_str) != Some("true") {
            return Err(TokenError::NoConsent);
        }
        Ok(annotations)
    }
}

/// Who the API server takes tokens for: the audiences and the issuer of the operator's own token, which is made for the API server.
/// None when the operator has no token (a client certificate): then only the names that API servers commonly go by are refused.
pub(super) fn own_audiences(config: &kube::Config) -> Vec<String> {
    match (&config.auth_info.token, &config.auth_info.token_file) {
        (Some(token), _) => audiences_of(token.expose_secret()),
        (None, Some(file)) => std::fs::read_to_string(file).map(Zeroizing::new).map(|token| audiences_of(&token)).unwrap_or_default(),
        (None, None) => Vec::new(),
    }
}

/// What the claims of a JWT say; nothing for a token that is none.
fn audiences_of(token: &str) -> Vec<String> {
    #[derive(Deserialize)]
    struct Claims {
        #[serde(default)]
        aud: Audience,
        iss: Option<String>,
    }
    #[derive(Default, Deserialize)]
    #[serde(untagged)]
    enum Audience {
        One(String),
        Several(Vec<String>),
        #[default]
        None,
    }
    let claims = token.trim().split('.').nth(1).and_then(|part| BASE64_URL_SAFE_NO_PAD.decode(part).ok());
    let Some(Claims { aud, iss }) = claims.and_then(|claims| serde_json::from_slice(&claims).ok()) else { return Vec::new() };
    let audiences = match aud {
        Audience::One(audience) => vec![audience],
        Audience::Several(audiences) => audiences,
        Audience::None => Vec::new(),
    };
    audiences.into_iter().chain(iss).collect()
}

#[cfg(test)]
mod tests {
    use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};

    use super::audiences_of;

    #[test]
    fn the_claims_of_a_token_say_who_takes_it() {
        let token = |claims: &str| format!("e30.{}.c2ln", BASE64_URL_SAFE_NO_PAD.encode(claims));
        let cases = [
            (token(r#"{"aud":["https://api","k3s"],"iss":"https://issuer","exp":1}"#), vec!["https://api", "k3s", "https://issuer"]),
            (token(r#"{"aud":"#), vec![]),
            (token(r#"{"aud":"api"}"#) + "\n", vec!["api"]),
            (token(r#"{"sub":"x"}"#), vec![]),
            ("opaque".to_owned(), vec![]),
            (String::new(), vec![]),
        ];
        for (token, audiences) in cases {
            assert_eq!(audiences_of(&token), audiences, "{token}");
        }
    }
}
