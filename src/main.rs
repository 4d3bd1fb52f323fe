//! The program: reads its command line, wires the operator together, and ends with a code that says how it went.

use std::{
    io::{self, Write as _},
    process::ExitCode,
    sync::Arc,
};

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use keyferry::{
    backend::Settings,
    cli::{
        crds::{self, CrdsArgs},
        store::{self, StoreArgs},
    },
    cluster::{
        self, Cluster,
        lease::{self, Elector},
    },
    config::{self, Config, RunFlags},
    controller::{self, CaughtUp, Setup},
    metrics::{self, Gate, Health, Metrics},
    refresh::Refresh,
    signal, telemetry,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Threads that work. The operator waits for others most of the time, and each thread keeps memory of its own: as many as a large node has
/// processors would cost more than all objects. Work that would hold up the others has threads apart from these.
const WORKERS: usize = 2;
/// Calls in flight to one store.
const STORE_CONCURRENCY: usize = 16;

/// Ferries secrets from where they live into Kubernetes Secrets, and keeps them fresh.
#[derive(Parser)]
#[command(name = "keyferry", version, propagate_version = false)]
struct Program {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the operator
    ///
    /// Every flag is also an environment variable (`--file-root` is `KEYFERRY_FILE_ROOT`) and a key of the settings file (`fileRoot`).
    Run(Box<RunFlags>),
    /// Print the CRDs of this build
    Crds(CrdsArgs),
    /// Make, fill and read the encrypted file of provider `file`
    Store(StoreArgs),
    /// Print the list of all settings as Markdown
    Reference,
}

fn main() -> ExitCode {
    // Exactly one provider of cryptography, chosen before anybody needs one.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let outcome = match Program::parse().command {
        Command::Run(flags) => run(*flags),
        Command::Crds(args) => crds::run(&args),
        Command::Store(args) => store::run(args),
        Command::Reference => print(&config::reference()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if !error.is::<Logged>() {
                let _ = writeln!(io::stderr(), "keyferry: {error:#}");
            }
            ExitCode::FAILURE
        }
    }
}

fn print(text: &str) -> anyhow::Result<()> {
    io::stdout().write_all(text.as_bytes()).context("cannot write to standard output")
}

fn run(flags: RunFlags) -> anyhow::Result<()> {
    let config = Config::load(flags, config::environment())?;
    telemetry::init(config.log_format, &config.log_level).map_err(anyhow::Error::msg)?;
    let metrics = Metrics::new();
    telemetry::install_panic_hook(metrics.clone());
    tell_settings(&config, &metrics);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build();
    let runtime = runtime.context("cannot start the asynchronous runtime")?;
    let outcome = runtime.block_on(operate(config, metrics));
    // What still runs must not hold up the end: a lost Lease leaves no time.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => tracing::info!("ended"),
        // In the log as well: who reads JSON lines reads nothing else.
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "ended");
            return Err(Logged.into());
        }
    }
    Ok(())
}

/// The cause of the end stands in the log already.
#[derive(Debug, thiserror::Error)]
#[error("ended: the log says why")]
struct Logged;

fn tell_settings(config: &Config, metrics: &Metrics) {
    tracing::info!(version = env!("CARGO_PKG_VERSION"), namespace = config.namespace, identity = config.identity, "starting");
    for name in &config.unknown_variables {
        tracing::warn!(variable = name, "this environment variable looks like a setting and is none: correct or remove it");
    }
    for timing in config.timings.weakened() {
        let (value, default) = (config.timings.get(timing.name).unwrap_or_default(), timing.default);
        tracing::warn!(timing = timing.name, ?value, ?default, "a waiting time that guards data is shorter than its default");
    }
    metrics.set_timings(&config.timings);
}

/// Runs until a signal asks to stop or something that must go on has failed.
async fn operate(config: Config, metrics: Metrics) -> anyhow::Result<()> {
    let stop = signal::stop_token().context("cannot listen for signals")?;
    let health = Health::default();
    let synced = health.gate("caches");
    let listener = TcpListener::bind(config.listen).await.with_context(|| format!("cannot listen on {}", config.listen))?;
    tracing::info!(address = %listener.local_addr()?, "serving /healthz, /readyz and /metrics");
    let pages = tokio::spawn(metrics::serve(listener, metrics.clone(), health.clone(), std::future::pending()));
    tokio::select! {
        ended = pages => ended.context("the HTTP server failed")?.context("the HTTP server failed"),
        ended = lead(config, metrics, &health, synced, stop) => ended,
    }
}

/// Waits for the Lease, works while it is held, and releases it after the last write.
async fn lead(config: Config, metrics: Metrics, health: &Health, synced: Gate, stop: CancellationToken) -> anyhow::Result<()> {
    let api = cluster::configuration(config.kubeconfig.as_deref()).await.context("cannot find the cluster")?;
    let api_server = cluster::api_server(&api);
    let api_host = api.cluster_url.host().map(str::to_owned);
    let elector = Elector::connect(api.clone(), lease_settings(&config), metrics.clone(), health).context("cannot reach the cluster")?;
    let Some(held) = elector.acquire(&synced, &stop).await else { return Ok(()) };
    let leadership = held.leadership();
    let cluster = Cluster::connect(api, config.write_concurrency, Arc::new(move || leadership.remaining()), metrics.clone())
        .context("cannot reach the cluster")?;
    let mut settings = config.backends;
    settings.endpoints.api_servers.extend(api_host);
    let setup = Setup {
        cluster,
        kinds: config.kinds,
        protected: config.protected_namespaces.iter().cloned().collect(),
        namespace: config.namespace,
        settings: Settings { api_server: Some(api_server), ..settings },
        timings: config.timings,
        concurrency: u16::try_from(config.write_concurrency.saturating_mul(2)).unwrap_or(u16::MAX),
        store_concurrency: STORE_CONCURRENCY,
        since: held.caught_up(),
        clock: Arc::new(jiff::Timestamp::now),
        metrics,
        health: health.clone(),
        shutdown: stop,
    };
    let ready = move || {
        synced.open();
        tracing::info!("caches are complete");
    };
    let (caught_up, drained) = (CaughtUp::default(), CancellationToken::new());
    let mark = caught_up.clone();
    let mut keeping = tokio::spawn(held.keep(move || mark.get().map(Refresh::caught_up), drained.clone()));
    let ended = tokio::select! {
        ended = controller::run(setup, caught_up, ready) => ended.context("the controller failed"),
        lost = &mut keeping => return lost.context("renewing the Lease failed")?.context("leadership was lost"),
    };
    drained.cancel();
    keeping.await.context("renewing the Lease failed")?.context("leadership was lost")?;
    ended
}

fn lease_settings(config: &Config) -> lease::Settings {
    lease::Settings {
        namespace: config.namespace.clone(),
        name: config.lease_name.clone(),
        identity: config.identity.clone(),
        duration: config.timings.lease_duration,
        renew: config.timings.lease_renew,
        retry: config.timings.lease_retry,
    }
}
