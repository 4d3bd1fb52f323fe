//! The map of `src/`: which folder is in which layer, which siblings know each other, and every exception with its reason.
//!
//! What is not listed is refused. To add a folder: one line in `UNITS`. To add an edge between siblings: one line in
//! `SIBLINGS` with the reason, and no cycle.

/// The layers, lowest first: a module uses vocabulary and lower layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Layer {
    /// Types only: no async, no I/O.
    Vocabulary,
    /// Pure decisions: clock, limits, randomness are arguments. Siblings do not know each other.
    Decision,
    /// Everything that talks to the world.
    Adapter,
    /// What composes the layers below into something that runs.
    Shell,
    /// The process: flags, logs, composition. Nothing imports it, except as `SIBLINGS` says.
    Top,
}

/// The name `main.rs` goes by: its own crate, with `keyferry` as the library.
pub const BINARY: &str = "main";
/// The name the library's root goes by in messages.
pub const LIBRARY: &str = "lib";

pub const UNITS: &[(&str, Layer)] = &[
    ("name", Layer::Vocabulary),
    ("secret", Layer::Vocabulary),
    ("fault", Layer::Vocabulary),
    ("item", Layer::Vocabulary),
    ("digest", Layer::Vocabulary),
    ("crd", Layer::Vocabulary),
    ("access", Layer::Decision),
    ("select", Layer::Decision),
    ("template", Layer::Decision),
    ("validate", Layer::Decision),
    ("classify", Layer::Decision),
    ("rotation", Layer::Decision),
    ("schedule", Layer::Decision),
    ("backend", Layer::Adapter),
    ("cache", Layer::Adapter),
    ("governor", Layer::Adapter),
    ("cluster", Layer::Adapter),
    ("audit", Layer::Adapter),
    ("metrics", Layer::Adapter),
    ("signal", Layer::Adapter),
    ("engine", Layer::Shell),
    ("refresh", Layer::Shell),
    ("controller", Layer::Shell),
    ("push", Layer::Shell),
    ("rotate", Layer::Shell),
    ("scan", Layer::Shell),
    ("api", Layer::Shell),
    ("dashboard", Layer::Shell),
    ("cli", Layer::Shell),
    ("config", Layer::Top),
    ("telemetry", Layer::Top),
    (LIBRARY, Layer::Top),
    (BINARY, Layer::Top),
];

/// Edges inside the layers of adapters, shells and the top: (from, to, why). One between folders that are there must be used.
pub const SIBLINGS: &[(&str, &str, &str)] = &[
    ("cache", "metrics", "what is held is counted as long as it is held"),
    ("governor", "backend", "it decorates the backend trait with rate, breaker and time-outs"),
    ("governor", "cache", "single-flight stands before the budget: a shared call costs once"),
    ("governor", "metrics", "calls to backends are counted where they are made"),
    ("cluster", "backend", "it tells provider kubernetes where its API server is, and nothing else"),
    ("cluster", "metrics", "calls to the API server are counted where they happen"),
    ("controller", "engine", "the reconcile is the engine's stages in a row"),
    ("controller", "refresh", "a reconcile registers its items, a changed item wakes its objects"),
    ("push", "engine", "it sends what the engine rendered"),
    ("rotate", "engine", "a promoted value goes the way of every value"),
    ("scan", "engine", "it previews with the engine's stages"),
    ("api", "engine", "explain and preview are the engine's stages"),
    ("dashboard", "api", "it shows what the API answers"),
    ("main", "config", "the binary reads the settings"),
    ("main", "telemetry", "the binary starts logging"),
    ("config", "telemetry", "a log filter is checked by who will use it, so that a message can name its place"),
];

/// Shells that reach backends only through `engine`.
pub const OUTSIDERS: &[&str] = &["api", "dashboard", "scan", "cli"];
/// What they may not reach by themselves.
pub const BEHIND_ENGINE: &[&str] = &["backend", "cache", "governor"];

/// Decisions about what a target contains: only `COMPOSER` puts them together.
pub const CONTENT_DECISIONS: &[&str] = &["select", "template", "validate", "classify"];
pub const COMPOSER: &str = "engine::plan";

/// The folders of `backend` that are providers: they do not know each other.
pub const PROVIDERS: &[&str] = &["vault", "aws", "azure", "gcp", "kubernetes", "file", "env", "webhook", "fake"];

/// The stages of a reconcile in their order: none knows a later one.
pub const STAGES: &[&str] = &["resolve", "fetch", "plan", "apply", "report"];

/// Single edges that the rules above would refuse: (from, to, why).
pub const EXCEPTIONS: &[(&str, &str, &str)] =
    &[("cli::store", "backend::file", "`keyferry store` administers the file store itself, no object is involved")];

/// The files in which a value leaves its `SecretValue`: (file, why).
pub const EXPOSING: &[(&str, &str)] = &[
    ("src/digest.rs", "a keyed MAC of the bytes is what may be kept and compared"),
    ("src/backend/file/store.rs", "a value is sealed into its record"),
    ("src/backend/file/tree/mod.rs", "whether somebody encrypted a file is told by its bytes"),
    ("src/backend/file/tree/age.rs", "an age identity is read, and what was encrypted for it opened"),
    ("src/cli/store/mod.rs", "`keyferry store get` prints the value that was asked for"),
    ("src/backend/vault/login.rs", "a credential goes into the body of a login, a token into the header of each call, marked sensitive"),
    ("src/backend/vault/write.rs", "a value goes into the body of a write"),
    ("src/backend/vault/connection.rs", "a client's certificate and its key go into the TLS client"),
    ("src/backend/transport/client.rs", "certificates of an authority go into the TLS client"),
    ("src/backend/aws/login.rs", "an access key signs calls"),
    ("src/backend/aws/secrets/write.rs", "a value goes into the body of a write"),
    ("src/backend/aws/parameters/write.rs", "a value goes into the body of a write"),
    ("src/backend/aws/members.rs", "members of a value are changed before it is written"),
    ("src/cluster/account.rs", "the claims of the operator's own token say which audiences are the API server's"),
    ("src/select/notation/mod.rs", "a value is read as YAML, TOML or .env so that a part of it can be taken"),
    (
        "src/backend/kubernetes/connection.rs",
        "token, client certificate and authority go into the client; the token's header is marked sensitive",
    ),
    ("src/backend/kubernetes/kubeconfig.rs", "a kubeconfig is read"),
    ("src/select/map.rs", "bytes of a map that are no text are decoded"),
    ("src/select/json.rs", "a value is read as JSON so that a part of it can be taken"),
    ("src/cluster/mod.rs", "the body of a target's apply, and the key of the MACs"),
];

/// The only folder that speaks to the API server, and what of `kube` speaks to it.
pub const CLUSTER: &str = "cluster";
pub const CLUSTER_ONLY: &[&str] = &[
    "kube::Api",
    "kube::api::Api",
    "kube::Client",
    "kube::client",
    "kube::Discovery",
    "kube::discovery",
    "kube::runtime::events",
    "kube::runtime::finalizer",
    "kube::runtime::wait",
    "kube_client",
];
/// What speaks by itself: it must not leave the folder in a signature.
pub const HANDLES: &[&str] = &["kube::Api", "kube::api::Api", "kube::Client", "kube::client::Client"];
/// Functions of `kube::Client` that make a request; their names are nobody else's.
pub const CLIENT_REQUESTS: &[&str] = &[
    "request_text",
    "request_stream",
    "request_status",
    "request_events",
    "apiserver_version",
    "list_api_groups",
    "list_api_group_resources",
    "list_core_api_versions",
    "list_core_api_resources",
    "list_api_groups_aggregated",
    "list_core_api_versions_aggregated",
];

/// The accessor of `SecretValue`, and those of the crate it stands on.
pub const ACCESSORS: &[&str] = &["expose", "expose_mut", "expose_secret", "expose_secret_mut"];
pub const EXPOSING_TRAITS: &[&str] = &["secrecy::ExposeSecret", "secrecy::ExposeSecretMut"];
/// What `SecretValue` may implement. Anything else could be a way around the accessor, or a comparison that tells by its time.
pub const QUIET_TRAITS: &[&str] = &["Debug", "Clone", "Default", "Drop", "From", "Zeroize", "ZeroizeOnDrop"];
/// What must not be derived for it even so: a derived `Debug` prints the bytes.
pub const NOT_DERIVED: &[&str] = &["Debug"];
pub const SECRET_TYPE: &str = "SecretValue";

/// Crates that talk to one kind of system: (crate, folders that may use it, why). Test code is exempt.
pub const OWNED: &[(&str, &[&str], &str)] = &[
    ("reqwest", &["backend"], "time-outs, redirects, CA and address checks are decided once"),
    ("vaultrs", &["backend"], "a provider's protocol ends at the backend trait"),
    ("rustify", &["backend"], "a provider's protocol ends at the backend trait"),
    ("aws_sdk_secretsmanager", &["backend"], "a provider's protocol ends at the backend trait"),
    ("aws_sdk_ssm", &["backend"], "a provider's protocol ends at the backend trait"),
    ("aws_sdk_sts", &["backend"], "a provider's protocol ends at the backend trait"),
    ("aes_gcm", &["backend"], "everything else is sealed with aws_lc_rs"),
    ("redb", &["backend"], "a provider's protocol ends at the backend trait"),
    ("tracing_subscriber", &["telemetry"], "one place decides where the log goes and what is left out of it"),
    ("std::process", &["cli", "config", "signal", BINARY], "the operator starts no processes and does not end itself"),
];

/// The only reader of the environment.
pub const ENVIRONMENT: &str = "config";

/// Parts of upper layers that decide, and so are held to what decisions are held to.
pub const PURE: &[&str] = &["engine::plan", "engine::report", "backend::vault::answer", "cluster::target"];

/// What vocabulary and decisions may not touch.
pub const IMPURE: &[&str] = &[
    "std::fs",
    "std::net",
    "std::process",
    "std::thread",
    "std::os",
    "std::io::stdin",
    "std::io::stdout",
    "std::io::stderr",
    "std::future",
    "std::task",
    "std::hash::RandomState",
    "tokio",
    "tokio_util",
    "async_trait",
    "futures",
    "reqwest",
    "hyper",
    "axum",
    "tempfile",
    "aws_lc_rs::rand",
    "jiff::tz::TimeZone::system",
    "tracing",
];
/// Functions that read a clock, by their last segment (`SystemTime::now`, `Timestamp::now`), and methods that do.
pub const CLOCK_FUNCTIONS: &[&str] = &["now"];
pub const CLOCK_METHODS: &[&str] = &["elapsed"];

/// Where `anyhow` may be used.
pub const ANYHOW: &[&str] = &[BINARY, "cli"];

/// Names that say nothing about what is inside.
pub const DRAWERS: &[&str] = &["utils", "util", "helpers", "helper", "common", "misc"];

/// Files without which the checker has not seen the crate.
pub const MUST_BE_SEEN: &[&str] = &[
    "src/access/mod.rs",
    "src/backend/vault/mod.rs",
    "src/cluster/mod.rs",
    "src/crd/v1alpha1/external_secret.rs",
    "src/engine/plan/mod.rs",
    "src/lib.rs",
    "src/main.rs",
    "src/secret.rs",
];

/// The layer of a unit, or none if the map does not know it.
pub fn layer_of(unit: &str) -> Option<Layer> {
    UNITS.iter().find(|(name, _)| *name == unit).map(|(_, layer)| *layer)
}
