//! Logs on standard error, as text or JSON, and what a panic may say. What could show a value is silenced here, whatever anybody sets.

use std::{io, panic};

use serde::{Deserialize, Serialize};
use tracing::{Level, Metadata};
use tracing_subscriber::{
    EnvFilter, Layer as _,
    filter::{FilterExt as _, FilterFn, filter_fn},
    layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};

use crate::metrics::Metrics;

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    Text,
    Json,
}

/// Installs the logger of the process.
///
/// # Errors
/// When the filter cannot be read, or a logger is installed already.
pub fn init(format: LogFormat, filter: &str) -> Result<(), String> {
    let wanted = parse_filter(filter)?.and(safe());
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr);
    let lines = match format {
        LogFormat::Text => lines.with_ansi(false).with_filter(wanted).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).with_filter(wanted).boxed(),
    };
    tracing_subscriber::registry().with(lines).try_init().map_err(|error| error.to_string())
}

/// Whether [`init`] can read the filter.
///
/// # Errors
/// What is wrong with it.
pub fn check_filter(text: &str) -> Result<(), String> {
    parse_filter(text).map(drop)
}

fn parse_filter(text: &str) -> Result<EnvFilter, String> {
    let refuse =
        |error: &dyn std::fmt::Display| format!("{text:?} is no filter ({error}): use a level such as info, or info,keyferry=debug");
    EnvFilter::builder().parse(text).map_err(|error| refuse(&error))
}

/// The events that may be shown at all; no setting loosens this.
///
/// `kube_client::client` logs a body that does not decode *whole* at WARN; `vaultrs` and `rustify` log failed calls with what was
/// sent. Below DEBUG other crates may show what goes over their connections.
fn safe() -> FilterFn {
    filter_fn(may_show)
}

fn may_show(metadata: &Metadata<'_>) -> bool {
    most_verbose(metadata.target()).is_some_and(|level| *metadata.level() <= level)
}

fn most_verbose(target: &str) -> Option<Level> {
    let within = |name: &str| target == name || target.strip_prefix(name).is_some_and(|rest| rest.starts_with("::"));
    if within("keyferry") {
        Some(Level::TRACE)
    } else if within("vaultrs") || within("rustify") {
        None
    } else if within("kube_client::client") {
        Some(Level::ERROR)
    } else {
        Some(Level::DEBUG)
    }
}

/// Panics tell where they happened and never what they carried: a message may quote a value.
pub fn install_panic_hook(metrics: Metrics) {
    panic::set_hook(Box::new(move |info| {
        metrics.panicked();
        let place = info.location().map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
        tracing::error!(%place, "a panic was caught; its message is not shown because it may quote a value");
    }));
}

#[cfg(test)]
mod tests {
    use super::most_verbose;
    use tracing::Level;

    #[test]
    fn targets_that_could_show_a_value_are_capped_whatever_is_set() {
        let cases = [
            ("keyferry", Some(Level::TRACE)),
            ("keyferry::engine::fetch", Some(Level::TRACE)),
            ("keyferry_evil", Some(Level::DEBUG)),
            ("kube_client::client", Some(Level::ERROR)),
            ("kube_client::client::builder", Some(Level::ERROR)),
            ("kube_client::config", Some(Level::DEBUG)),
            ("vaultrs", None),
            ("vaultrs::api", None),
            ("rustify::client", None),
            ("hyper::proto::h1", Some(Level::DEBUG)),
        ];
        for (target, level) in cases {
            assert_eq!(most_verbose(target), level, "{target}");
        }
    }
}
