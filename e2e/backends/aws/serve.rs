//! The server's thread: HTTP/1.1 in, one answer out, each after the latency that is set. Every request is checked as AWS checks it before
//! it reaches a service: signature, clock, session.

use std::convert::Infallible;
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, DATE};
use http::request::Parts;
use http::{HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use super::admin::Service;
use super::failure::{Failure, Result};
use super::identity::Holder;
use super::input::Input;
use super::signature::{Claim, Signed, signature};
use super::sts::Form;
use super::world::{Ask, World};
use super::{Shared, Taken, parameters, secrets, sts, token};
use crate::proxy::Recorded;

/// How far the clocks of client and server may be apart.
const SKEW: SignedDuration = SignedDuration::from_mins(5);
const TIME: &str = "%Y%m%dT%H%M%SZ";

/// The whole life of the thread. All connections end with the runtime.
pub fn run(shared: &Arc<Shared>, listener: std::net::TcpListener, stopped: oneshot::Receiver<()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime for AWS");
    runtime.block_on(async {
        tokio::select! {
            () = accept_all(shared, listener) => {}
            _ = stopped => {}
        }
    });
}

async fn accept_all(shared: &Arc<Shared>, listener: std::net::TcpListener) {
    listener.set_nonblocking(true).expect("a listener can be non-blocking");
    let listener = TcpListener::from_std(listener).expect("a listener for AWS");
    loop {
        if let Ok((tcp, _)) = listener.accept().await {
            shared.connections.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(serve(shared.clone(), tcp));
        }
    }
}

async fn serve(shared: Arc<Shared>, tcp: TcpStream) {
    let _ = tcp.set_nodelay(true);
    let service = service_fn(|request| {
        let shared = shared.clone();
        async move { Ok::<_, Infallible>(answer(&shared, request).await) }
    });
    // A client that goes away is no matter of the server's.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(tcp), service).await;
}

async fn answer(shared: &Shared, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let Ok(body) = body.collect().await else { return Response::new(Full::default()) };
    let body = body.to_bytes();
    let mut recorded = Recorded::of(&head, &body);
    let call = Call::of(&head, &body);
    let latency = Duration::from_micros(shared.latency.load(Ordering::SeqCst));
    if !latency.is_zero() {
        tokio::time::sleep(latency).await;
    }
    let (caller, answered) = call.perform(shared, &head, &body).await;
    let now = lock(shared).now();
    let mut answer = call.respond(shared, answered);
    // The clock by which the server judges the client's.
    let date = now.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
    answer.headers_mut().insert(DATE, HeaderValue::from_str(&date).expect("a date is a header's value"));
    recorded.status = Some(answer.status().as_u16());
    recorded.answer = Some(answer.body().clone());
    let taken = Taken { operation: call.operation, caller, region: call.region, recorded };
    shared.taken.lock().unwrap_or_else(PoisonError::into_inner).push(taken, shared.keeps_bodies.load(Ordering::SeqCst));
    answer.map(Full::new)
}

fn lock(shared: &Shared) -> MutexGuard<'_, World> {
    shared.world.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a request is about, before anything of it is believed.
struct Call {
    service: Option<Service>,
    operation: String,
    region: String,
}

impl Call {
    fn of(head: &Parts, body: &Bytes) -> Self {
        let target = head.headers.get("x-amz-target").and_then(|value| value.to_str().ok()).and_then(|target| target.split_once('.'));
        let (service, operation) = match target {
            Some(("secretsmanager", operation)) => (Some(Service::SecretsManager), operation.to_owned()),
            Some(("AmazonSSM", operation)) => (Some(Service::Ssm), operation.to_owned()),
            Some((_, operation)) => (None, operation.to_owned()),
            None => (Some(Service::Sts), Form::parse(body).get("Action").unwrap_or_default().to_owned()),
        };
        let region = Claim::of(&head.headers).map(|claim| claim.scope.region).unwrap_or_default();
        Self { service, operation, region }
    }

    /// Who asked, as far as that is known, and what came of it.
    async fn perform(&self, shared: &Shared, head: &Parts, body: &Bytes) -> (Option<String>, Result<Said>) {
        let Some(service) = self.service else { return (None, Err(Failure::new("UnknownOperationException", ""))) };
        if self.operation == "AssumeRoleWithWebIdentity" {
            return (None, self.assume_with_web_identity(shared, body).await);
        }
        let mut world = lock(shared);
        let holder = match authenticate(&world, service, &self.region, head, body) {
            Ok(holder) => holder,
            Err(failure) => return (None, Err(failure)),
        };
        let arn = holder.caller.arn.clone();
        (Some(arn), self.act(&mut world, service, &holder, body))
    }

    fn act(&self, world: &mut World, service: Service, holder: &Holder, body: &Bytes) -> Result<Said> {
        if !holder.caller.is_admin {
            world.take_planned(&self.operation)?;
        }
        let ask = Ask { caller: &holder.caller, region: &self.region, operation: &self.operation };
        match service {
            Service::SecretsManager => secrets::call(world, &ask, &Input::parse(body)?).map(Said::Json),
            Service::Ssm => parameters::call(world, &ask, &Input::parse(body)?).map(Said::Json),
            Service::Sts => match self.operation.as_str() {
                "AssumeRole" => sts::assume(world, holder, &Form::parse(body)).map(Said::Form),
                "GetCallerIdentity" => Ok(Said::Form(sts::caller_identity(&holder.caller))),
                other => Err(Failure::new("InvalidAction", format!("Could not find operation {other} for version 2011-06-15"))),
            },
        }
    }

    /// Unsigned: the token says who it is.
    async fn assume_with_web_identity(&self, shared: &Shared, body: &Bytes) -> Result<Said> {
        let form = Form::parse(body);
        let (providers, now) = {
            let mut world = lock(shared);
            world.take_planned(&self.operation)?;
            (sts::providers(&world), world.now())
        };
        let token = form.get("WebIdentityToken").unwrap_or_default();
        let identity = token::check(token, &providers, now).await?;
        sts::assume_with_web_identity(&mut lock(shared), &form, &identity).map(Said::Form)
    }

    fn respond(&self, shared: &Shared, answered: Result<Said>) -> Response<Bytes> {
        let request_id = lock(shared).uuid();
        let response = |content_type: &str, body: String| {
            let response = Response::builder().header(CONTENT_TYPE, content_type).header("x-amzn-RequestId", &request_id);
            response.body(Bytes::from(body)).expect("a valid answer")
        };
        match answered {
            // What has no output has no body.
            Ok(Said::Json(Value::Null)) => response("application/x-amz-json-1.1", String::new()),
            Ok(Said::Json(answer)) => response("application/x-amz-json-1.1", answer.to_string()),
            Ok(Said::Form(answer)) => response("text/xml", answer),
            Err(failure) if self.service == Some(Service::Sts) => failure.as_form(&request_id),
            Err(failure) if self.service == Some(Service::SecretsManager) => failure.as_json(&request_id, "Message"),
            Err(failure) => failure.as_json(&request_id, "message"),
        }
    }
}

/// The result of a call, in the protocol of its service.
enum Said {
    Json(Value),
    Form(String),
}

/// Whose request it is, once its signature, its time and its session hold.
fn authenticate(world: &World, service: Service, region: &str, head: &Parts, body: &Bytes) -> Result<Holder> {
    let refused = |json: &str, form: &str, words: String| match service {
        Service::Sts => Failure::new(form, words).with_status(403),
        _ => Failure::new(json, words),
    };
    let text = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let missing =
        || refused("MissingAuthenticationTokenException", "MissingAuthenticationToken", "Missing Authentication Token".to_owned());
    let claim = Claim::of(&head.headers).ok_or_else(missing)?;
    let unknown = || {
        refused("UnrecognizedClientException", "InvalidClientTokenId", "The security token included in the request is invalid.".to_owned())
    };
    let holder = world.identities.holder(&claim.access_key).ok_or_else(unknown)?;
    if holder.key.token.as_deref().unwrap_or_default() != text("x-amz-security-token") {
        return Err(unknown());
    }
    let wrong = |words: String| refused("InvalidSignatureException", "SignatureDoesNotMatch", words);
    if claim.scope.service != service.name() {
        return Err(wrong(format!("Credential should be scoped to correct service: '{}'. ", service.name())));
    }
    if world.only_region.as_deref().is_some_and(|only| only != region) {
        return Err(wrong("Credential should be scoped to a valid region. ".to_owned()));
    }
    if !["host", "x-amz-date"].iter().all(|name| claim.signed_headers.iter().any(|signed| signed == name)) {
        return Err(wrong("Host and X-Amz-Date must be signed.".to_owned()));
    }
    let time = text("x-amz-date");
    check_time(time, &claim.scope.date, world.now()).map_err(wrong)?;
    let (path, query) = (head.uri.path(), head.uri.query().unwrap_or_default());
    let request = Signed { method: head.method.as_str(), path, query, headers: &head.headers, body };
    if signature(&holder.key.secret, &claim.scope, time, &claim.signed_headers, &request) != claim.signature {
        let words = "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method. Consult the service documentation for details.";
        return Err(wrong(words.to_owned()));
    }
    if holder.expires.is_some_and(|end| end <= world.now()) {
        let words = "The security token included in the request is expired";
        return Err(refused("ExpiredTokenException", "ExpiredToken", words.to_owned()));
    }
    Ok(holder.clone())
}

fn check_time(text: &str, date: &str, now: Timestamp) -> std::result::Result<(), String> {
    let time = jiff::civil::DateTime::strptime(TIME, text).ok().and_then(|time| time.to_zoned(jiff::tz::TimeZone::UTC).ok());
    let Some(time) = time.map(|time| time.timestamp()) else { return Err("Date must be in ISO-8601 'basic format'.".to_owned()) };
    if !text.starts_with(date) {
        return Err("Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP.".to_owned());
    }
    let show = |time: Timestamp| time.strftime(TIME).to_string();
    if time < now - SKEW {
        return Err(format!("Signature expired: {text} is now earlier than {} ({} - 5 min.)", show(now - SKEW), show(now)));
    }
    if time > now + SKEW {
        return Err(format!("Signature not yet current: {text} is still later than {} ({} + 5 min.)", show(now + SKEW), show(now)));
    }
    Ok(())
}
