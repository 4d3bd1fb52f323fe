//! `/healthz`, `/readyz` and `/metrics` over plain HTTP.

use std::{future::Future, io, time::Instant};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::net::TcpListener;

use super::{Health, Metrics};

/// Answers until `stop` is done. The caller binds, so that it can say which port it got.
///
/// # Errors
/// When the listener fails.
pub async fn serve(
    listener: TcpListener,
    metrics: Metrics,
    health: Health,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    axum::serve(listener, routes(metrics, health)).with_graceful_shutdown(stop).await
}

fn routes(metrics: Metrics, health: Health) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .with_state(health)
        .route("/metrics", get(scrape).with_state(metrics))
}

async fn healthz(State(health): State<Health>) -> Response {
    verdict("no sign of life from", &health.silent(Instant::now()))
}

async fn readyz(State(health): State<Health>) -> Response {
    verdict("waiting for", &health.closed())
}

fn verdict(what: &str, names: &[&str]) -> Response {
    if names.is_empty() {
        (StatusCode::OK, "ok\n").into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, format!("{what} {}\n", names.join(", "))).into_response()
    }
}

async fn scrape(State(metrics): State<Metrics>) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(CONTENT_TYPE, kind)], metrics.render()).into_response()
}
