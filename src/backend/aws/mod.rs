//! Provider `aws`: Secrets Manager and Parameter Store.
//!
//! The three outcomes are decided here; `failure` says what can go wrong and what to do about it, `login` who asks, `session` and `sts` how a
//! role is assumed, `http` how the vendor's library reaches the network, `secrets` and `parameters` what is asked of each service. The library
//! retries nothing here and keeps no deadline: both are done once for all providers, above.

mod failure;
mod http;
mod login;
mod members;
#[cfg(feature = "aws-ssm")]
mod parameters;
#[cfg(feature = "aws-sm")]
mod secrets;
mod session;
mod sts;

pub use login::Logins;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use aws_sdk_sts::config::IdentityCache;
use aws_smithy_runtime_api::client::{behavior_version::BehaviorVersion, stalled_stream_protection::StalledStreamProtectionConfig};
use aws_smithy_types::{retry::RetryConfig, timeout::TimeoutConfig};
use aws_types::{SdkConfig, app_name::AppName, region::Region, sdk_config};
use tokio::time::Instant;
use url::Url;

use crate::{
    access::Role,
    backend::{Backend, Credentials, Settings, transport::Plan},
    crd::v1alpha1::{AwsProvider, AwsService},
    fault::{Class, Fault, Reason},
    item::{Fetched, Reading},
    name::{RemoteKey, RemoteRef, StoreName},
};
use failure::{Failure, PARTY};
use http::Connector;
use login::Login;

/// How long a call that the identity may not make is not tried again.
const PAUSE: Duration = Duration::from_mins(10);
/// Names of one listing: a server that invents pages for ever must not hold the caller for ever.
const MAX_NAMES: usize = 100_000;
/// Pages of one listing, empty ones included, which AWS sends where a filter took everything out.
const MAX_PAGES: usize = 10_000;

/// Builds the client of a store; nothing is sent.
///
/// # Errors
/// `InvalidSpec` naming the field that cannot work, `StoreNotReady` without a usable credential, `NotAllowed` for an address that a
/// tenant's store may not lead to.
pub fn open(store: &StoreName, spec: &AwsProvider, credentials: &Credentials, settings: &Settings) -> Result<Arc<dyn Backend>, Fault> {
    let config = config(store, spec, credentials, settings)?;
    match spec.service {
        #[cfg(feature = "aws-sm")]
        AwsService::SecretsManager => Ok(Arc::new(secrets::Secrets::new(&config, settings.call_timeout))),
        #[cfg(feature = "aws-ssm")]
        AwsService::ParameterStore => Ok(Arc::new(parameters::Parameters::new(&config, settings.call_timeout))),
        #[cfg(not(all(feature = "aws-sm", feature = "aws-ssm")))]
        _ => Err(Fault::invalid(Reason::InvalidSpec, "this build has no such provider.aws.service: use an image built with the feature")),
    }
}

/// The way of a store to its service, and who goes it.
fn config(store: &StoreName, spec: &AwsProvider, credentials: &Credentials, settings: &Settings) -> Result<SdkConfig, Fault> {
    let service = match spec.service {
        AwsService::SecretsManager => "secretsmanager",
        AwsService::ParameterStore => "ssm",
    };
    let server = match &spec.endpoint {
        Some(endpoint) => endpoint_url(endpoint, "endpoint")?,
        None => public_endpoint(service, &spec.region),
    };
    let plan =
        Plan { party: PARTY, server: &server, ca_bundle: spec.ca_bundle.as_deref(), authority: credentials.secrets.get(&Role::Authority) };
    let client = plan.build(store, None, settings)?;
    let login = Login::of(store, spec, credentials, settings)?;
    let mut config = ground(&spec.region, Connector::new(client, login.session()));
    config.set_credentials_provider(Some(login.provider())).set_endpoint_url(spec.endpoint.clone());
    Ok(config.build())
}

/// What the clients of all services have in common. Sessions are kept by us: the library's own cache would hide refusals.
fn ground(region: &str, connector: Connector) -> sdk_config::Builder {
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .app_name(AppName::new(concat!("keyferry-", env!("CARGO_PKG_VERSION"))).expect("letters, digits, points and hyphens"))
        .region(Region::new(region.to_owned()))
        .identity_cache(IdentityCache::no_cache())
        .http_client(connector)
        .retry_config(RetryConfig::disabled())
        .timeout_config(TimeoutConfig::disabled())
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
}

fn endpoint_url(text: &str, field: &str) -> Result<Url, Fault> {
    let detail = format!("provider.aws.{field} is no address such as https://aws.example.com: correct it");
    let fault = || Fault::invalid(Reason::InvalidSpec, detail.clone());
    let url = Url::parse(text).map_err(|_| fault())?;
    let is_bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
    let is_anonymous = url.username().is_empty() && url.password().is_none();
    if is_bare && is_anonymous && url.has_host() && matches!(url.scheme(), "http" | "https") { Ok(url) } else { Err(fault()) }
}

/// Where the service is, as far as it matters for TLS and for where a store may lead: the library knows the names of all partitions.
fn public_endpoint(service: &str, region: &str) -> Url {
    Url::parse(&format!("https://{service}.{region}.amazonaws.com")).expect("a region is letters, digits and hyphens")
}

/// The region of a key that is an ARN.
fn region_of(key: &RemoteKey) -> Option<&str> {
    key.as_str().strip_prefix("arn:")?.split(':').nth(2)
}

/// Whether a call is worth trying: not for a while after it was refused where another was allowed.
#[derive(Debug, Default)]
struct Patience(Mutex<Option<Instant>>);

impl Patience {
    fn lose(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + PAUSE);
    }

    fn regain(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn is_there(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_none_or(|until| until <= Instant::now())
    }
}

/// Within the deadline of a look as a whole. A call of the library takes some 20 KB, which are the heap's.
fn in_time<T>(deadline: Duration, call: impl Future<Output = Result<T, Failure>>) -> impl Future<Output = Result<T, Failure>> {
    let call = Box::pin(call);
    async move { tokio::time::timeout(deadline, call).await.unwrap_or(Err(Failure::TIMED_OUT)) }
}

fn list_of(path: Option<&str>) -> String {
    path.map_or_else(|| "list of all keys".to_owned(), |path| format!("list of the keys below {path:?}"))
}

/// What became of looks at several values. A call that was refused as a whole says the same of each: which of them it was refused for is
/// found out above.
fn readings(refs: &[RemoteRef], looks: Result<Vec<Result<Fetched, Failure>>, Failure>) -> Vec<Reading> {
    match looks {
        Ok(looks) => refs.iter().zip(looks).map(|(wanted, look)| reading(&subject(wanted), look)).collect(),
        Err(failure) if refs.len() > 1 && failure.is_refusal() => vec![reading("call for several keys", Err(failure)); refs.len()],
        Err(failure) => refs.iter().map(|wanted| reading(&subject(wanted), Err(failure.clone()))).collect(),
    }
}

fn subject(wanted: &RemoteRef) -> String {
    format!("remote key {:?}", wanted.key.as_str())
}

fn reading(subject: &str, look: Result<Fetched, Failure>) -> Reading {
    match look {
        Ok(fetched) => Reading::Found(fetched),
        Err(failure) => {
            let fault = failure.fault(subject);
            if fault.class == Class::Absent { Reading::Absent(fault) } else { Reading::Unknown(fault) }
        }
    }
}
