//! The program: reads its command line, wires the operator together, and ends with a code that says how it went.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use keyferry::{
    cli::{
        crds::{self, CrdsArgs},
        store::{self, StoreArgs},
    },
    config::{self, Config, RunFlags},
    metrics::{self, Health, Metrics},
    signal, telemetry,
};
use tokio::net::TcpListener;

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
            let _ = writeln!(io::stderr(), "keyferry: {error:#}");
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
    let runtime = tokio::runtime::Runtime::new().context("cannot start the asynchronous runtime")?;
    let outcome = runtime.block_on(operate(config, metrics));
    // What still runs must not hold up the end: a lost Lease leaves no time.
    runtime.shutdown_background();
    outcome
}

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
    let listener = TcpListener::bind(config.listen).await.with_context(|| format!("cannot listen on {}", config.listen))?;
    tracing::info!(address = %listener.local_addr()?, "serving /healthz, /readyz and /metrics");
    let pages = tokio::spawn(metrics::serve(listener, metrics.clone(), health.clone(), std::future::pending()));
    tokio::select! {
        ended = pages => ended.context("the HTTP server failed")?.context("the HTTP server failed")?,
        () = stop.cancelled() => {}
    }
    Ok(())
}
