//! Logs on standard error, as text or JSON, and what a panic may say. What could show a value is silenced here, whatever anybody sets.

use std::{io, panic};

use serde::{Deserialize, Serialize};
use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::{
    EnvFilter, Layer,
    filter::{FilterExt as _, FilterFn, filter_fn},
    fmt::MakeWriter,
    layer::SubscriberExt as _,
    registry::LookupSpan,
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
    let lines = lines(format, filter, io::stderr)?;
    tracing_subscriber::registry().with(lines).try_init().map_err(|error| error.to_string())
}

fn lines<S, W>(format: LogFormat, filter: &str, writer: W) -> Result<Box<dyn Layer<S> + Send + Sync>, String>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    let wanted = parse_filter(filter)?.and(safe());
    let lines = tracing_subscriber::fmt::layer().with_writer(writer);
    Ok(match format {
        LogFormat::Text => lines.with_ansi(false).with_filter(wanted).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).with_filter(wanted).boxed(),
    })
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
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    use tracing::Level;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::{LogFormat, Metrics, check_filter, install_panic_hook, lines, most_verbose};

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: LogFormat, filter: &str, events: impl FnOnce()) -> String {
        let sink = Sink::default();
        let writer = sink.clone();
        let subscriber = tracing_subscriber::registry().with(lines(format, filter, move || writer.clone()).unwrap());
        tracing::subscriber::with_default(subscriber, events);
        String::from_utf8(std::mem::take(&mut *sink.0.lock().unwrap())).unwrap()
    }

    #[test]
    fn no_filter_makes_a_crate_show_what_it_carries() {
        let shown = logged(LogFormat::Text, "trace,kube_client=trace,vaultrs=trace,rustify=trace", || {
            tracing::warn!(target: "kube_client::client", "hunter2");
            tracing::error!(target: "vaultrs::client", "hunter2");
            tracing::error!(target: "rustify::http", "hunter2");
            tracing::trace!(target: "hyper::proto", "hunter2");
            tracing::error!(target: "kube_client::client", "a request failed");
            tracing::trace!(target: "keyferry::engine", "looked");
        });
        assert!(!shown.contains("hunter2"), "{shown}");
        assert!(shown.contains("a request failed") && shown.contains("looked"), "{shown}");
    }

    #[test]
    fn the_filter_is_obeyed_below_that() {
        let shown = logged(LogFormat::Text, "warn,keyferry::engine=debug", || {
            tracing::info!(target: "keyferry::cluster", "quiet");
            tracing::debug!(target: "keyferry::engine", "loud");
        });
        assert!(!shown.contains("quiet") && shown.contains("loud"), "{shown}");
    }

    #[test]
    fn a_json_line_has_its_fields_at_the_top() {
        let shown = logged(LogFormat::Json, "info", || tracing::info!(target: "keyferry", object = "a/b", "ready"));
        let line: serde_json::Value = serde_json::from_str(shown.trim()).unwrap();
        assert_eq!((line["level"].as_str(), line["message"].as_str(), line["object"].as_str()), (Some("INFO"), Some("ready"), Some("a/b")));
    }

    #[test]
    fn a_panic_is_counted_and_tells_its_place_and_never_its_message() {
        let (metrics, before) = (Metrics::new(), std::panic::take_hook());
        install_panic_hook(metrics.clone());
        let shown = logged(LogFormat::Text, "info", || {
            assert!(std::panic::catch_unwind(|| panic!("hunter2")).is_err());
        });
        std::panic::set_hook(before);
        assert!(shown.contains("src/telemetry.rs") && !shown.contains("hunter2"), "{shown}");
        // The hook is that of the whole process: another test may have panicked on purpose meanwhile.
        let page = metrics.render();
        let counted = page.lines().find_map(|line| line.strip_prefix("keyferry_panics_total ")).unwrap();
        assert_ne!(counted, "0");
    }

    #[test]
    fn a_filter_that_cannot_be_read_is_refused_with_a_remedy() {
        assert_eq!(check_filter("info,keyferry=debug"), Ok(()));
        let error = check_filter("keyferry=loud").unwrap_err();
        assert!(error.contains("use a level such as info"), "{error}");
    }

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
