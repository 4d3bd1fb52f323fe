//! The check of a web identity token: RS256, against the keys that its issuer publishes (OpenID Connect Discovery, section 4).

use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use reqwest::{Certificate, Client};
use serde_json::Value;
use url::Url;

use super::failure::{Failure, Result};
use super::identity::Provider;

/// Whom a token that holds is about.
pub struct Identity {
    pub issuer: String,
    pub subject: String,
    pub audiences: Vec<String>,
}

/// Checks signature, issuer and times; whether the audience is the right one is for the role to say.
pub async fn check(token: &str, providers: &[Provider], now: Timestamp) -> Result<Identity> {
    let parts: Vec<&str> = token.split('.').collect();
    let [head, claims, signature] = parts.as_slice() else { return Err(unusable("The ID Token provided is not a valid JWT.")) };
    let signed = &token[..head.len() + 1 + claims.len()];
    let (head, claims) = (decoded(head)?, decoded(claims)?);
    let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| unusable("The ID Token provided is not a valid JWT."))?;
    let text = |claims: &Value, name: &str| claims[name].as_str().unwrap_or_default().to_owned();
    let issuer = text(&claims, "iss");
    let provider = providers.iter().find(|provider| provider.issuer == issuer);
    let provider = provider.ok_or_else(|| unusable("No OpenIDConnect provider found in your account for the issuer."))?;
    if head["alg"] != "RS256" {
        return Err(unusable("Unsupported signing algorithm."));
    }
    let keys = published_keys(provider).await.map_err(|why| {
        let words = "Couldn't retrieve verification key from your identity provider, please reference AssumeRoleWithWebIdentity documentation for requirements";
        Failure::new("InvalidIdentityToken", format!("{words}: {why}"))
    })?;
    let is_signed = keys.iter().filter(|key| key["kid"] == head["kid"]).any(|key| verifies(key, signed.as_bytes(), &signature));
    if !is_signed {
        return Err(unusable("The ID Token provided is not signed by a key of its issuer."));
    }
    let seconds = |name: &str| claims[name].as_i64();
    if seconds("exp").is_none_or(|end| end <= now.as_second()) {
        let words = format!("Token expired: current date/time {} must be before the expiration date/time", now.as_second());
        return Err(Failure::new("ExpiredTokenException", words));
    }
    if seconds("nbf").or(seconds("iat")).is_some_and(|start| start > now.as_second() + 300) {
        return Err(unusable("The ID Token provided is not valid yet."));
    }
    let audiences = match &claims["aud"] {
        Value::Array(audiences) => audiences.iter().filter_map(|audience| audience.as_str().map(str::to_owned)).collect(),
        audience => audience.as_str().map(str::to_owned).into_iter().collect(),
    };
    Ok(Identity { issuer, subject: text(&claims, "sub"), audiences })
}

fn decoded(part: &str) -> Result<Value> {
    let bytes = URL_SAFE_NO_PAD.decode(part).ok();
    bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()).ok_or_else(|| unusable("The ID Token provided is not a valid JWT."))
}

/// The key set that the discovery document names, read at the provider's real place whatever host the document says.
async fn published_keys(provider: &Provider) -> std::result::Result<Vec<Value>, String> {
    let mut client = Client::builder().no_proxy().pool_max_idle_per_host(0);
    if !provider.ca_pem.is_empty() {
        client = client.tls_certs_only([Certificate::from_pem(provider.ca_pem.as_bytes()).map_err(|error| error.to_string())?]);
    }
    let client = client.build().map_err(|error| error.to_string())?;
    let document =
        read(&client, &format!("{}/.well-known/openid-configuration", provider.origin)).await.map_err(|error| error.to_string())?;
    if document["issuer"] != provider.issuer.as_str() {
        return Err("the discovery document names another issuer".to_owned());
    }
    let keys = Url::parse(document["jwks_uri"].as_str().unwrap_or_default()).map_err(|error| error.to_string())?;
    let keys = read(&client, &format!("{}{}", provider.origin, keys.path())).await.map_err(|error| error.to_string())?;
    Ok(keys["keys"].as_array().cloned().unwrap_or_default())
}

async fn read(client: &Client, url: &str) -> reqwest::Result<Value> {
    client.get(url).send().await?.error_for_status()?.json().await
}

fn verifies(key: &Value, signed: &[u8], signature: &[u8]) -> bool {
    let part = |name: &str| URL_SAFE_NO_PAD.decode(key[name].as_str().unwrap_or_default()).unwrap_or_default();
    let key = RsaPublicKeyComponents { n: part("n"), e: part("e") };
    key.verify(&RSA_PKCS1_2048_8192_SHA256, signed, signature).is_ok()
}

fn unusable(words: &str) -> Failure {
    Failure::new("InvalidIdentityToken", words)
}
