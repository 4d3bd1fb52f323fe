//! Who asks: the identity that signs a store's calls, and which stores share a session of it.
//!
//! Must not be here: what is sent to log in (`sts`), and when (`session`).

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use aws_credential_types::Credentials as Keys;
use aws_lc_rs::digest::{Context, SHA256};
use aws_sdk_sts::Client;
use aws_types::sdk_config::SharedCredentialsProvider;

use super::{
    endpoint_url, ground,
    http::Connector,
    public_endpoint,
    session::{Provider, Session},
    sts::{Account, Assumption, Named, STS, Step},
};
use crate::{
    access::Role,
    backend::{Credentials, Settings, transport::Plan},
    crd::v1alpha1::{AwsAuth, AwsProvider, ServiceAccountRef},
    fault::{Class, Fault, Reason},
    name::StoreName,
    secret::SecretValue,
};

/// What CloudTrail calls a session: of all stores that share it.
const SESSION_NAME: &str = "keyferry";

/// The identity of a store.
#[derive(Clone, Debug)]
pub(super) enum Login {
    /// An access key as it stands in a Secret.
    Keys(Keys),
    Session(Arc<Session>),
}

impl Login {
    /// What a store's block names; nothing is sent.
    ///
    /// # Errors
    /// `InvalidSpec` without a way to log in, `StoreNotReady` without a usable access key, `NotAllowed` for an address of STS that a
    /// tenant's store may not lead to.
    pub fn of(store: &StoreName, spec: &AwsProvider, credentials: &Credentials, settings: &Settings) -> Result<Self, Fault> {
        let sts = Sts { store, spec, authority: credentials.secrets.get(&Role::Authority), settings };
        let (mut identity, mut login) = match spec.auth.as_ref().and_then(|auth| auth.jwt.as_ref()) {
            None => {
                let keys = keys(spec, credentials)?;
                let parts = ["keys", keys.access_key_id(), keys.secret_access_key(), keys.session_token().unwrap_or_default()];
                (sts.identity(&parts), Self::Keys(keys))
            }
            Some(jwt) => {
                let account = account(store, &jwt.service_account_ref, credentials)?;
                let audiences = jwt.service_account_ref.audiences.iter().flatten().map(String::as_str);
                let parts: Vec<&str> = ["jwt", account.namespace.as_str(), account.name.as_str()].into_iter().chain(audiences).collect();
                let identity = sts.identity(&parts);
                (identity, Self::Session(settings.logins.shared(identity, || sts.web_identity(account))?))
            }
        };
        let session_name = login.session().map_or_else(|| SESSION_NAME.to_owned(), |session| session.name().to_owned());
        for assumption in assumptions(spec, &session_name) {
            identity = identity.then(&assumption);
            login = Self::Session(settings.logins.shared(identity, || sts.session(&login, assumption))?);
        }
        Ok(login)
    }

    /// As the vendor's library asks for it.
    pub fn provider(&self) -> SharedCredentialsProvider {
        match self {
            Self::Keys(keys) => SharedCredentialsProvider::new(keys.clone()),
            Self::Session(session) => SharedCredentialsProvider::new(Provider(session.clone())),
        }
    }

    /// The session that can be renewed when its keys are refused.
    pub fn session(&self) -> Option<Arc<Session>> {
        match self {
            Self::Keys(_) => None,
            Self::Session(session) => Some(session.clone()),
        }
    }
}

/// The roles in the order in which they are assumed. External id and tags are for the last, as with External Secrets.
fn assumptions(spec: &AwsProvider, session_name: &str) -> Vec<Assumption> {
    let assumption = |named, role: &String| Assumption {
        named,
        role: role.clone(),
        session_name: session_name.to_owned(),
        external_id: None,
        tags: Vec::new(),
        transitive: Vec::new(),
    };
    let additional = spec.additional_roles.iter().flatten().enumerate().map(|(at, role)| assumption(Named::Additional(at), role));
    let last = spec.role.as_ref().map(|role| Assumption {
        external_id: spec.external_id.clone(),
        tags: spec.session_tags.iter().flatten().map(|tag| (tag.key.clone(), tag.value.clone())).collect(),
        transitive: spec.transitive_tag_keys.clone().unwrap_or_default(),
        ..assumption(Named::Role, role)
    });
    additional.chain(last).collect()
}

/// Where sessions are asked for, and by what way.
struct Sts<'a> {
    store: &'a StoreName,
    spec: &'a AwsProvider,
    authority: Option<&'a SecretValue>,
    settings: &'a Settings,
}

impl Sts<'_> {
    /// Of whoever has these secrets and goes this way. A tenant's way is guarded and an admin's is not, so they are not the same.
    fn identity(&self, base: &[&str]) -> Identity {
        let AwsProvider { region, sts_endpoint, ca_bundle, .. } = self.spec;
        let way = match self.store {
            StoreName::Namespaced { .. } => "tenant",
            StoreName::Cluster { .. } => "admin",
        };
        let text = |text: &Option<String>| text.clone().unwrap_or_default().into_bytes();
        let authority = self.authority.map(|pem| pem.expose().to_vec()).unwrap_or_default();
        let parts = [way.as_bytes().to_vec(), region.clone().into_bytes(), text(sts_endpoint), text(ca_bundle), authority];
        Identity::of(parts.iter().map(Vec::as_slice).chain(base.iter().map(|part| part.as_bytes())))
    }

    fn session(&self, from: &Login, assumption: Assumption) -> Result<Session, Fault> {
        let client = self.client(from.session(), Some(from.provider()))?;
        Ok(Session::new(Step::Assume { client, assumption }, self.settings.call_timeout))
    }

    fn web_identity(&self, account: Account) -> Result<Session, Fault> {
        let client = self.client(None, None)?;
        Ok(Session::new(Step::WebIdentity { client, account }, self.settings.call_timeout))
    }

    /// A client that signs with these keys, or nothing.
    fn client(&self, session: Option<Arc<Session>>, keys: Option<SharedCredentialsProvider>) -> Result<Client, Fault> {
        let AwsProvider { region, sts_endpoint, ca_bundle, .. } = self.spec;
        let server = match sts_endpoint {
            Some(endpoint) => endpoint_url(endpoint, "stsEndpoint")?,
            None => public_endpoint("sts", region),
        };
        let plan = Plan { party: STS, server: &server, ca_bundle: ca_bundle.as_deref(), authority: self.authority };
        // The address may have no TLS where the service has: then it needs no authority.
        let plan = if server.scheme() == "https" { plan } else { Plan { ca_bundle: None, authority: None, ..plan } };
        let mut config = ground(region, Connector::new(plan.build(self.store, None, self.settings)?, session));
        config.set_credentials_provider(keys).set_endpoint_url(sts_endpoint.clone());
        Ok(Client::new(&config.build()))
    }
}

/// The account as access has judged it: of the store's own namespace unless an admin named another.
fn account(store: &StoreName, named: &ServiceAccountRef, credentials: &Credentials) -> Result<Account, Fault> {
    let namespace = match store {
        StoreName::Namespaced { namespace, .. } => namespace.clone(),
        StoreName::Cluster { .. } => named.namespace.clone().unwrap_or_default(),
    };
    let tokens = credentials.tokens.clone().ok_or_else(|| {
        let detail = "provider.aws.auth.jwt.serviceAccountRef: there is no token of the ServiceAccount: name one that exists";
        Fault::new(Class::Unavailable, Reason::StoreNotReady, detail)
    })?;
    let name = named.name.clone();
    // 2 to 64 of letters, digits and a few signs, of which names of Kubernetes use two.
    let session_name = format!("{SESSION_NAME}-{namespace}-{name}").chars().take(64).collect();
    Ok(Account { namespace, name, session_name, tokens })
}

/// Tells sessions apart: a digest of everything that makes one. It never leaves the process.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Identity([u8; 32]);

impl Identity {
    fn of<'a>(parts: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut context = Context::new(&SHA256);
        for part in parts {
            // With its length, or two parts could pass for two others.
            context.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            context.update(part);
        }
        let mut digest = [0; 32];
        digest.copy_from_slice(context.finish().as_ref());
        Self(digest)
    }

    /// Whoever this one becomes.
    fn then(&self, assumption: &Assumption) -> Self {
        let Assumption { named: _, role, session_name, external_id, tags, transitive } = assumption;
        let count = |count: usize| count.to_string();
        let mut parts = vec![role.clone(), session_name.clone(), count(external_id.iter().len())];
        parts.extend(external_id.clone());
        parts.push(count(tags.len()));
        parts.extend(tags.iter().flat_map(|(key, value)| [key.clone(), value.clone()]));
        parts.extend(transitive.iter().cloned());
        Self::of(std::iter::once(self.0.as_slice()).chain(parts.iter().map(String::as_bytes)))
    }
}

/// The sessions of a process, each as long as a store uses it. Cheap to clone.
#[derive(Clone, Default)]
pub struct Logins(Arc<Mutex<HashMap<Identity, Weak<Session>>>>);

// By hand: who is who is nobody's business.
impl fmt::Debug for Logins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Logins")
    }
}

impl Logins {
    fn shared(&self, identity: Identity, open: impl FnOnce() -> Result<Session, Fault>) -> Result<Arc<Session>, Fault> {
        let mut sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(session) = sessions.get(&identity).and_then(Weak::upgrade) {
            return Ok(session);
        }
        let session = Arc::new(open()?);
        sessions.retain(|_, session| session.strong_count() > 0);
        sessions.insert(identity, Arc::downgrade(&session));
        Ok(session)
    }
}

/// The access key that stands in a store's Secrets.
fn keys(spec: &AwsProvider, credentials: &Credentials) -> Result<Keys, Fault> {
    let Some(AwsAuth { secret_ref: Some(named), jwt: None }) = &spec.auth else {
        return Err(Fault::invalid(Reason::InvalidSpec, "provider.aws.auth names no way to log in: set one of its members"));
    };
    let id = text(credentials, Role::AccessKeyId, "accessKeyIDSecretRef")?;
    let key = text(credentials, Role::SecretAccessKey, "secretAccessKeySecretRef")?;
    let token = named.session_token_secret_ref.as_ref().map(|_| text(credentials, Role::SessionToken, "sessionTokenSecretRef"));
    Ok(Keys::new(id, key, token.transpose()?, None, "Secret"))
}

/// A token of a ServiceAccount, which is ASCII.
pub(super) fn ascii(token: &SecretValue) -> &str {
    str::from_utf8(token.expose()).unwrap_or_default()
}

/// Text as people put it into a Secret: often with a line break at its end.
fn text(credentials: &Credentials, role: Role, field: &str) -> Result<String, Fault> {
    let not_ready =
        |detail: &str| Fault::new(Class::Unavailable, Reason::StoreNotReady, format!("provider.aws.auth.secretRef.{field}: {detail}"));
    let found = credentials.secrets.get(&role).map(SecretValue::expose);
    let found = found.ok_or_else(|| not_ready("the Secret or its key is missing: put the credential there"))?;
    let text = str::from_utf8(found).map(str::trim).unwrap_or_default();
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(not_ready("what stands there is empty or no key of AWS: put the credential there"));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests;
