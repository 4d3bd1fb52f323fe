//! Every setting of the operator: flags, environment and one YAML file become one immutable [`Config`].
//!
//! A setting has one name in three spellings (`--file-root`, `KEYFERRY_FILE_ROOT`, `fileRoot`) and one parser. A flag wins over the
//! environment, the environment over the file, the file over the default. Nothing else reads the process's environment.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{self, Write as _},
    net::SocketAddr,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser};
use serde::{Deserialize, Serialize};

use crate::{
    backend::{
        self,
        endpoint::{Endpoint, Endpoints},
        transport::{Proxies, Scheme},
    },
    name::ObjectKind,
    schedule::{TIMINGS, Timings, duration},
    secret::SecretValue,
    telemetry::{LogFormat, check_filter},
};

/// What a process of the operator was told, complete and checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Kubeconfig of the cluster; `None` is the pod's own ServiceAccount.
    pub kubeconfig: Option<PathBuf>,
    /// The operator's own namespace: its Lease, its digest key.
    pub namespace: String,
    pub lease_name: String,
    /// Who we are in the Lease. The same identity goes on at once after a restart.
    pub identity: String,
    /// Address of `/healthz`, `/readyz` and `/metrics`.
    pub listen: SocketAddr,
    pub log_format: LogFormat,
    /// Filter directives as `tracing-subscriber` reads them.
    pub log_level: String,
    /// Writes to the API server that may be in flight at once. At least 1.
    pub write_concurrency: usize,
    /// Kinds of objects that are served. Without `ExternalSecret` no Secret is read, listed or written.
    pub kinds: BTreeSet<ObjectKind>,
    /// Namespaces in which nothing is ever written; the operator's own is always among them.
    pub protected_namespaces: Vec<String>,
    pub timings: Timings,
    /// What the admin set for backends, the environment of provider `env` included.
    pub backends: backend::Settings,
    /// Variables that look like settings and are none: told at start, because each may be a typing error.
    pub unknown_variables: Vec<String>,
}

/// The flags of `keyferry run`.
#[derive(Clone, Debug, Default, Args)]
pub struct RunFlags {
    /// YAML file with settings under their camelCase names
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    #[command(flatten)]
    layer: Layer,
}

/// The process's environment as it was at start.
pub type Environment = BTreeMap<String, Vec<u8>>;

/// Reads the process's environment, once. Names that are not UTF-8 are left out.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the only reader of the environment")]
pub fn environment() -> Environment {
    use std::os::unix::ffi::OsStringExt as _;
    std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_vec()))).collect()
}

/// Why the settings cannot be used: always names the place and what to do.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read the settings file {path}: {source}", path = path.display())]
    File { path: PathBuf, source: std::io::Error },
    #[error("settings file {path}: {detail}", path = path.display())]
    Syntax { path: PathBuf, detail: String },
    #[error("{place}: {detail}")]
    Value { place: String, detail: String },
    #[error("the settings contradict each other: {0}")]
    Contradiction(String),
}

/// The forward proxies, under the names that other programs give them; where both spellings are set the first counts.
const HTTPS_PROXY: [&str; 2] = ["HTTPS_PROXY", "https_proxy"];
const HTTP_PROXY: [&str; 2] = ["HTTP_PROXY", "http_proxy"];
const NO_PROXY: [&str; 2] = ["NO_PROXY", "no_proxy"];

/// Start of the variables that are ours. They are never shown to provider `env`.
const PREFIX: &str = "KEYFERRY_";

impl Config {
    /// Puts flags, environment and file together.
    ///
    /// # Errors
    /// [`ConfigError`] for a file that cannot be read or has an unknown key, and for a value that cannot work.
    pub fn load(flags: RunFlags, environment: Environment) -> Result<Self, ConfigError> {
        let settings = variables();
        let file_variable = text(&environment, "KEYFERRY_CONFIG")?.map(PathBuf::from);
        let from_file = match flags.config.or(file_variable) {
            Some(path) => read_file(&path)?,
            None => Layer::default(),
        };
        let from_environment = settings.iter().try_fold(Layer::default(), |layer, (variable, flag)| {
            text(&environment, variable)?
                .map_or(Ok(Layer::default()), |value| parse_variable(variable, flag, value))
                .map(|one| one.over(layer))
        })?;
        flags.layer.check(&Origin::Flags)?;
        from_environment.check(&Origin::Environment)?;
        let merged = flags.layer.over(from_environment).over(from_file).over(Layer::defaults());
        merged.build(environment, &settings)
    }
}

/// The proxies that the environment names. An empty variable is one that is not set, as other programs take it.
fn proxies(environment: &Environment) -> Result<Proxies, ConfigError> {
    let refuse = |name: &str, detail: String| ConfigError::Value { place: format!("environment variable {name}"), detail };
    let find = |names: [&'static str; 2]| {
        let set = names.into_iter().find_map(|name| Some((name, environment.get(name).filter(|bytes| !bytes.is_empty())?)));
        let text = set.map(|(name, bytes)| match std::str::from_utf8(bytes) {
            Ok(text) => Ok((name, text)),
            Err(_) => Err(refuse(name, "is not UTF-8".to_owned())),
        });
        text.transpose()
    };
    let bypass = find(NO_PROXY)?.map_or("", |(_, text)| text);
    [(Scheme::Http, HTTP_PROXY), (Scheme::Https, HTTPS_PROXY)].into_iter().try_fold(Proxies::default(), |proxies, (scheme, names)| {
        let Some((name, address)) = find(names)? else { return Ok(proxies) };
        proxies.with(scheme, address, bypass).map_err(|error| refuse(name, error.to_string()))
    })
}

/// Whether a variable is a setting of this process, which provider `env` does not show: a proxy's address may hold a password.
fn is_ours(name: &str) -> bool {
    name.starts_with(PREFIX) || [HTTPS_PROXY, HTTP_PROXY, NO_PROXY].iter().flatten().any(|ours| *ours == name)
}

/// Each setting's variable and flag.
fn variables() -> Vec<(String, String)> {
    RunCommand::command()
        .get_arguments()
        .filter_map(clap::Arg::get_long)
        .filter(|long| *long != "help")
        .map(|long| (variable(long), long.to_owned()))
        .collect()
}

fn variable(long: &str) -> String {
    format!("{PREFIX}{}", long.replace('-', "_").to_uppercase())
}

fn text<'a>(environment: &'a Environment, name: &str) -> Result<Option<&'a str>, ConfigError> {
    let refuse = |detail: &str| ConfigError::Value { place: format!("environment variable {name}"), detail: detail.to_owned() };
    match environment.get(name).map(|bytes| std::str::from_utf8(bytes)) {
        None => Ok(None),
        Some(Ok("")) => Err(refuse("is empty: give it a value or remove it")),
        Some(Ok(text)) => Ok(Some(text)),
        Some(Err(_)) => Err(refuse("is not UTF-8")),
    }
}

/// Reads one variable with the parser of its flag.
fn parse_variable(variable: &str, flag: &str, value: &str) -> Result<Layer, ConfigError> {
    let refuse = |error: clap::Error| ConfigError::Value { place: format!("environment variable {variable}"), detail: first_line(&error) };
    let matches = RunCommand::command().no_binary_name(true).try_get_matches_from([format!("--{flag}={value}")]).map_err(refuse)?;
    Layer::from_arg_matches(&matches).map_err(refuse)
}

fn first_line(error: &clap::Error) -> String {
    let shown = error.render().to_string();
    let line = shown.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    line.trim_start_matches("error: ").to_owned()
}

fn read_file(path: &Path) -> Result<Layer, ConfigError> {
    let content = std::fs::read_to_string(path).map_err(|source| ConfigError::File { path: path.to_owned(), source })?;
    let layer = parse_file(path, &content)?;
    layer.check(&Origin::File(path.to_owned()))?;
    Ok(layer)
}

fn parse_file(path: &Path, content: &str) -> Result<Layer, ConfigError> {
    if content.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
        return Ok(Layer::default());
    }
    serde_saphyr::from_str::<Layer>(content).map_err(|error| {
        let location = error.location().map(|at| format!("line {}: ", at.line())).unwrap_or_default();
        let cause = error.without_snippet().to_string();
        ConfigError::Syntax { path: path.to_owned(), detail: format!("{location}{cause}; see docs/configuration.md for the settings") }
    })
}

/// Only to get at the parser of the flags.
#[derive(Parser)]
#[command(name = "keyferry run")]
struct RunCommand {
    #[command(flatten)]
    flags: RunFlags,
}

/// Settings as one place gives them: each may be missing.
#[derive(Clone, Debug, Default, PartialEq, Args, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Layer {
    /// Kubeconfig of the cluster; without it the pod's own ServiceAccount. The ambient kubeconfig is never used
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,

    /// The operator's own namespace, where its Lease and its digest key are
    #[arg(long, value_name = "NAME")]
    namespace: Option<String>,

    /// Name of the Lease that decides which replica acts
    #[arg(long, value_name = "NAME")]
    lease_name: Option<String>,

    /// Name of this process in the Lease; the same name goes on at once after a restart, so two processes must never share it.
    /// Random without it; config/default sets the pod's UID
    #[arg(long, value_name = "ID")]
    identity: Option<String>,

    /// Folder that holds the stores of provider `file`; without it the provider is refused. Needs the master key
    #[arg(long, value_name = "DIR")]
    file_root: Option<PathBuf>,

    /// Folder below which provider `file` may read trees of plain files; without it they are refused
    #[arg(long, value_name = "DIR")]
    file_tree_root: Option<PathBuf>,

    /// File with the master key of provider `file`: 32 bytes in base64
    #[arg(long, value_name = "FILE")]
    file_master_key: Option<PathBuf>,

    /// Whether a namespaced SecretStore may use the folder of its namespace below the file root and the root of trees
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    file_namespaced: Option<bool>,

    /// Only variables that begin with this are shown to provider `env`; those that begin with `KEYFERRY_` and the proxies never are
    #[arg(long, value_name = "PREFIX")]
    env_prefix: Option<String>,

    /// Hosts and ports, such as `vault.tools.svc:8200`, that namespaced stores may reach although they lie on the operator's own host, on its
    /// link, at cloud metadata or at the API server
    #[arg(long, value_name = "HOST:PORT,...")]
    tenant_endpoints: Option<Names>,

    /// Address of /healthz, /readyz and /metrics
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,

    /// How log lines look
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<LogFormat>,

    /// What is logged: a level, or directives such as `info,keyferry=debug`. What could show a value stays silent whatever is set
    #[arg(long, value_name = "FILTER")]
    log_level: Option<String>,

    /// Writes to the API server that may be in flight at once: 1 to 1000
    #[arg(long, value_name = "COUNT")]
    write_concurrency: Option<usize>,

    /// Kinds of objects that are served; with `ExternalParameter` alone no Secret is read, listed or written
    #[arg(long, value_name = "KIND,...")]
    kinds: Option<Names>,

    /// Namespaces in which nothing is ever written; the operator's own is always added
    #[arg(long, value_name = "NAME,...")]
    protected_namespaces: Option<Names>,

    /// Deadline of one call to a backend, connecting included: 10ms to 10m
    #[arg(long, value_name = "DURATION")]
    call_timeout: Option<Span>,

    /// Waiting times that differ from their defaults, such as `staleness=2h,denied=5m`; the table of timings is below
    #[arg(long, value_name = "NAME=DURATION,...")]
    timings: Option<Spans>,
}

/// Where a layer came from, for messages.
enum Origin {
    Flags,
    Environment,
    File(PathBuf),
}

impl Origin {
    fn place(&self, flag: &str) -> String {
        match self {
            Self::Flags => format!("flag --{flag}"),
            Self::Environment => format!("environment variable {}", variable(flag)),
            Self::File(path) => format!("settings file {}, key {}", path.display(), key(flag)),
        }
    }
}

/// The key of a setting in the file: `file-root` is `fileRoot`.
fn key(flag: &str) -> String {
    let mut words = flag.split('-');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |name, word| {
        let (head, tail) = word.split_at(word.len().min(1));
        name + &head.to_uppercase() + tail
    })
}

impl Layer {
    fn defaults() -> Self {
        Self {
            namespace: Some("keyferry-system".to_owned()),
            lease_name: Some("keyferry".to_owned()),
            file_namespaced: Some(false),
            env_prefix: Some(String::new()),
            listen: Some(SocketAddr::from(([0, 0, 0, 0], 8080))),
            log_format: Some(LogFormat::Text),
            log_level: Some("info".to_owned()),
            write_concurrency: Some(32),
            kinds: Some(Names(ObjectKind::ALL.map(|kind| kind.as_str().to_owned()).to_vec())),
            protected_namespaces: Some(Names(["kube-system", "kube-public", "kube-node-lease"].map(str::to_owned).to_vec())),
            call_timeout: Some(Span(Duration::from_secs(10))),
            timings: Some(Spans::default()),
            ..Self::default()
        }
    }

    /// This layer where it says something, the lower one elsewhere. Timings are merged by name.
    fn over(self, lower: Self) -> Self {
        Self {
            kubeconfig: self.kubeconfig.or(lower.kubeconfig),
            namespace: self.namespace.or(lower.namespace),
            lease_name: self.lease_name.or(lower.lease_name),
            identity: self.identity.or(lower.identity),
            file_root: self.file_root.or(lower.file_root),
            file_tree_root: self.file_tree_root.or(lower.file_tree_root),
            file_master_key: self.file_master_key.or(lower.file_master_key),
            file_namespaced: self.file_namespaced.or(lower.file_namespaced),
            env_prefix: self.env_prefix.or(lower.env_prefix),
            tenant_endpoints: self.tenant_endpoints.or(lower.tenant_endpoints),
            listen: self.listen.or(lower.listen),
            log_format: self.log_format.or(lower.log_format),
            log_level: self.log_level.or(lower.log_level),
            write_concurrency: self.write_concurrency.or(lower.write_concurrency),
            kinds: self.kinds.or(lower.kinds),
            protected_namespaces: self.protected_namespaces.or(lower.protected_namespaces),
            call_timeout: self.call_timeout.or(lower.call_timeout),
            timings: Spans::merge(self.timings, lower.timings),
        }
    }

    /// Checks each value that is here, so that a message can name the place.
    fn check(&self, origin: &Origin) -> Result<(), ConfigError> {
        let refuse = |flag: &str, detail: String| Err(ConfigError::Value { place: origin.place(flag), detail });
        for (flag, name) in [("namespace", &self.namespace), ("lease-name", &self.lease_name)] {
            if let Some(name) = name.as_deref().filter(|name| !is_label(name)) {
                return refuse(flag, format!("{name:?} is no name: use at most 63 lower-case letters, digits and '-'"));
            }
        }
        if self.identity.as_deref().is_some_and(|identity| identity.is_empty() || identity.len() > 253) {
            return refuse("identity", "needs 1 to 253 characters".to_owned());
        }
        if let Some(names) = &self.kinds {
            if let Some(name) = names.0.iter().find(|name| ObjectKind::parse(name).is_none()) {
                return refuse("kinds", format!("{name:?} is no kind: use ExternalSecret, ExternalParameter or both"));
            }
            if names.0.is_empty() {
                return refuse("kinds", "needs at least one of ExternalSecret and ExternalParameter".to_owned());
            }
        }
        if let Some(name) = self.protected_namespaces.iter().flat_map(|names| &names.0).find(|name| !is_label(name)) {
            return refuse("protected-namespaces", format!("{name:?} is no name of a namespace"));
        }
        if let Some(Err(error)) =
            self.tenant_endpoints.iter().flat_map(|endpoints| &endpoints.0).map(|text| text.parse::<Endpoint>()).find(Result::is_err)
        {
            return refuse("tenant-endpoints", error);
        }
        if self.write_concurrency.is_some_and(|count| !(1..=1000).contains(&count)) {
            return refuse("write-concurrency", "must be from 1 to 1000".to_owned());
        }
        let deadline = Duration::from_millis(10)..=Duration::from_mins(10);
        if self.call_timeout.is_some_and(|span| !deadline.contains(&span.0)) {
            return refuse("call-timeout", "must be from 10ms to 10m".to_owned());
        }
        if let Some(Err(error)) = self.log_level.as_deref().map(check_filter) {
            return refuse("log-level", error);
        }
        let mut timings = Timings::default();
        for (name, span) in self.timings.iter().flat_map(|spans| &spans.0) {
            if let Err(error) = timings.set(name, span.0) {
                return refuse("timings", error.to_string());
            }
        }
        Ok(())
    }

    fn build(self, environment: Environment, settings: &[(String, String)]) -> Result<Config, ConfigError> {
        let contradiction = |error: &dyn fmt::Display| ConfigError::Contradiction(error.to_string());
        if self.file_root.is_some() && self.file_master_key.is_none() {
            return Err(contradiction(&"fileRoot needs fileMasterKey, the file with the key of its stores"));
        }
        let mut timings = Timings::default();
        for (name, span) in self.timings.unwrap_or_default().0 {
            timings.set(&name, span.0).map_err(|error| contradiction(&error))?;
        }
        timings.check().map_err(|error| contradiction(&error))?;

        let namespace = self.namespace.unwrap_or_default();
        let mut protected_namespaces = self.protected_namespaces.unwrap_or_default().0;
        if !protected_namespaces.contains(&namespace) {
            protected_namespaces.push(namespace.clone());
        }
        let proxies = proxies(&environment)?;
        let (ours, others): (Environment, Environment) = environment.into_iter().partition(|(name, _)| is_ours(name));
        let env_prefix = self.env_prefix.unwrap_or_default();
        let known = |name: &String| name == "KEYFERRY_CONFIG" || settings.iter().any(|(variable, _)| variable == name);
        Ok(Config {
            kubeconfig: self.kubeconfig,
            namespace,
            lease_name: self.lease_name.unwrap_or_default(),
            identity: self.identity.unwrap_or_else(random_identity),
            listen: self.listen.unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], 0))),
            log_format: self.log_format.unwrap_or(LogFormat::Text),
            log_level: self.log_level.unwrap_or_default(),
            write_concurrency: self.write_concurrency.unwrap_or(1),
            kinds: self.kinds.unwrap_or_default().0.iter().filter_map(|name| ObjectKind::parse(name)).collect(),
            protected_namespaces,
            timings,
            backends: backend::Settings {
                file_root: self.file_root,
                file_tree_root: self.file_tree_root,
                file_master_key: self.file_master_key,
                file_namespaced: self.file_namespaced.unwrap_or_default(),
                environment: others
                    .into_iter()
                    .filter(|(name, _)| name.starts_with(&env_prefix))
                    .map(|(name, value)| (name, SecretValue::new(value)))
                    .collect(),
                call_timeout: self.call_timeout.unwrap_or_default().0,
                proxies,
                // Known once the cluster is.
                api_server: None,
                endpoints: Endpoints {
                    tenants: self.tenant_endpoints.unwrap_or_default().0.iter().filter_map(|text| text.parse().ok()).collect(),
                    api_servers: Vec::new(),
                },
                #[cfg(feature = "aws-client")]
                logins: backend::aws::Logins::default(),
            },
            unknown_variables: ours.into_keys().filter(|name| name.starts_with(PREFIX) && !known(name)).collect(),
        })
    }
}

/// A name that no other process has.
fn random_identity() -> String {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).expect("the system gives random bytes");
    bytes.iter().fold(String::from("keyferry-"), |mut name, byte| {
        let _ = write!(name, "{byte:02x}");
        name
    })
}

/// A name of a namespace (RFC 1123 label).
fn is_label(name: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&name.len()) && name.bytes().all(inner) && !name.starts_with('-') && !name.ends_with('-')
}

/// A length of time as people write it: `90s`, `1h30m`, `250ms`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Span(Duration);

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        duration::parse(text).map(Self).map_err(|error| format!("{text:?} {error}"))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&duration::format(self.0))
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl Serialize for Span {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Times by name: `a=1s,b=2s` in a flag, a map in the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
struct Spans(BTreeMap<String, Span>);

impl Spans {
    fn merge(upper: Option<Self>, lower: Option<Self>) -> Option<Self> {
        let (Some(Self(upper)), Some(Self(mut merged))) = (upper.clone(), lower.clone()) else { return upper.or(lower) };
        merged.extend(upper);
        Some(Self(merged))
    }
}

impl FromStr for Spans {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let pair = |part: &str| {
            let (name, span) = part.split_once('=').ok_or_else(|| format!("{part:?} is no timing: write NAME=DURATION"))?;
            Ok((name.trim().to_owned(), span.trim().parse()?))
        };
        text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(pair).collect::<Result<_, String>>().map(Self)
    }
}

/// Names: `a,b` in a flag, a list in the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
struct Names(Vec<String>);

impl FromStr for Names {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect()))
    }
}

/// The list of all settings as Markdown: what `docs/configuration.md` holds.
#[must_use]
pub fn reference() -> String {
    let mut page = String::from(INTRODUCTION);
    let defaults = serde_json::to_value(Layer::defaults()).unwrap_or_default();
    for argument in RunCommand::command().get_arguments() {
        let Some(flag) = argument.get_long().filter(|long| *long != "help") else { continue };
        let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
        let name = if flag == "config" { "–".to_owned() } else { format!("`{}`", key(flag)) };
        let default = shown_default(&defaults[key(flag)]);
        let _ = writeln!(page, "| `--{flag}` | `{}` | {name} | {default} | {} |", variable(flag), cell(&help));
    }
    page.push_str(TIMINGS_INTRODUCTION);
    for timing in TIMINGS {
        let guards = if timing.safety { "yes" } else { "" };
        let _ = writeln!(page, "| `{}` | {} | {guards} | {} |", timing.name, Span(timing.default), cell(timing.meaning.trim()));
    }
    page
}

fn shown_default(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::Null | serde_json::Value::Object(_) => "–".to_owned(),
        serde_json::Value::String(text) if text.is_empty() => "–".to_owned(),
        serde_json::Value::String(text) => format!("`{text}`"),
        serde_json::Value::Array(items) => {
            items.iter().filter_map(|item| item.as_str()).map(|item| format!("`{item}`")).collect::<Vec<_>>().join(", ")
        }
        other => format!("`{other}`"),
    }
}

fn cell(text: &str) -> String {
    let one_line = text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|");
    format!("{}.", one_line.trim_end_matches('.'))
}

const INTRODUCTION: &str = "# Settings of the operator

Generated by `keyferry reference`; a test compares.

Every setting can be given as a flag of `keyferry run`, as an environment variable, or as a key of the YAML file that `--config` names.
A flag wins over the environment, the environment over the file, the file over the default. An unknown key in the file, an empty
variable or a value that cannot work ends the process at start with a message that names the place. A variable that begins with
`KEYFERRY_` and is none of these is named in a warning.

Durations are written as `90s`, `1h30m` or `250ms`.

Forward proxies are set by the usual variables `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY` (or in lower case): every client of a backend
goes through them, with `CONNECT` for https. `NO_PROXY` lists hosts (with their subdomains), addresses, networks such as `10.0.0.0/8`, or
`*`. The API server is always reached directly. None of them is shown to provider `env`.

| Flag | Environment | File | Default | Meaning |
|---|---|---|---|---|
";

const TIMINGS_INTRODUCTION: &str = "
## Timings

Waiting times, for admins: `--timings misses=2m,denied=5m`, `KEYFERRY_TIMINGS=misses=2m,denied=5m`, or in the file

```yaml
timings:
  misses: 2m
  denied: 5m
```

They are merged by name over flag, environment and file. One that guards data and is set below its default is logged at start and
shown as the metric `keyferry_timing_below_default`.

| Timing | Default | Guards data | Meaning |
|---|---|---|---|
";

#[cfg(test)]
mod tests;
