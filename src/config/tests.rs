use std::{
    io::Write as _,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Parser as _;

use super::{Config, ConfigError, Environment, Layer, RunCommand, reference};
use crate::telemetry::LogFormat;

fn load(flags: &[&str], environment: &[(&str, &str)], file: &str) -> Result<Config, ConfigError> {
    let mut settings = tempfile::NamedTempFile::new().unwrap();
    settings.write_all(file.as_bytes()).unwrap();
    let path = settings.path().to_str().unwrap();
    let arguments = ["run", "--config", path].into_iter().chain(flags.iter().copied());
    let flags = RunCommand::parse_from(arguments).flags;
    Config::load(flags, environment.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect())
}

fn refusal(flags: &[&str], environment: &[(&str, &str)], file: &str) -> String {
    load(flags, environment, file).expect_err("these settings cannot work").to_string()
}

#[test]
fn nothing_set_gives_the_documented_defaults() {
    let config = load(&[], &[], "").unwrap();
    assert_eq!(config.namespace, "keyferry-system");
    assert_eq!(config.lease_name, "keyferry");
    assert_eq!(config.listen.to_string(), "0.0.0.0:8080");
    assert_eq!(config.write_concurrency, 32);
    assert_eq!(config.protected_namespaces, ["kube-system", "kube-public", "kube-node-lease", "keyferry-system"]);
    assert_eq!(config.backends.call_timeout, Duration::from_secs(10));
    assert_eq!(config.timings, crate::schedule::Timings::default());
    assert!(config.kubeconfig.is_none() && config.backends.file_root.is_none() && !config.backends.file_namespaced);
}

#[test]
fn without_an_identity_no_two_processes_share_one() {
    let name = || load(&[], &[], "").unwrap().identity;
    assert_ne!(name(), name());
    assert_eq!(load(&["--identity", "me"], &[], "").unwrap().identity, "me");
}

#[test]
fn a_flag_wins_over_the_environment_which_wins_over_the_file_which_wins_over_the_default() {
    let file = "namespace: from-file\nwriteConcurrency: 3\nlogFormat: json\ntimings: {denied: 3s, misses: 3s, shrink: 3s}\n";
    let environment =
        [("KEYFERRY_NAMESPACE", "from-environment"), ("KEYFERRY_WRITE_CONCURRENCY", "2"), ("KEYFERRY_TIMINGS", "denied=2s,misses=2s")];
    let config = load(&["--namespace", "from-flag", "--timings", "denied=1s"], &environment, file).unwrap();
    assert_eq!(config.namespace, "from-flag");
    assert_eq!(config.write_concurrency, 2);
    assert_eq!(config.log_format, LogFormat::Json);
    assert_eq!(config.lease_name, "keyferry");
    let seconds = |time: Duration| time.as_secs();
    assert_eq!((seconds(config.timings.denied), seconds(config.timings.misses), seconds(config.timings.shrink)), (1, 2, 3));
    assert_eq!(seconds(config.timings.recreation), 10);
}

#[test]
fn proxies_come_from_the_usual_variables_and_are_shown_to_nobody() {
    let secret = "http://user:hunter2@proxy.example.com:3128";
    let environment = [("HTTPS_PROXY", secret), ("http_proxy", "proxy.example.com:1"), ("NO_PROXY", "a,10.0.0.0/8"), ("A", "1")];
    let config = load(&[], &environment, "").unwrap();
    assert_eq!(format!("{:?}", config.backends.proxies), "Proxies(2)");
    assert_eq!(config.backends.environment.keys().collect::<Vec<_>>(), ["A"], "provider env does not show them");
    assert!(config.unknown_variables.is_empty());
    assert_eq!(format!("{:?}", load(&[], &[("HTTPS_PROXY", ""), ("NO_PROXY", "a")], "").unwrap().backends.proxies), "Proxies(0)");
    let refused = refusal(&[], &[("https_proxy", "socks5://user:hunter2@proxy")], "");
    assert!(
        refused.contains("environment variable https_proxy") && refused.contains("http://proxy") && !refused.contains("hunter2"),
        "{refused}"
    );
}

/// One row per setting: its value as text, and the same in YAML.
const ROWS: &[(&str, &str, &str)] = &[
    ("kubeconfig", "/k/config", "/k/config"),
    ("namespace", "ops", "ops"),
    ("lease-name", "other", "other"),
    ("identity", "pod-1", "pod-1"),
    ("file-root", "/stores", "/stores"),
    ("file-tree-root", "/trees", "/trees"),
    ("file-master-key", "/key", "/key"),
    ("file-namespaced", "true", "true"),
    ("env-prefix", "APP_", "APP_"),
    ("tenant-endpoints", "vault.tools.svc:8200,[::1]:443", "[vault.tools.svc:8200, '[::1]:443']"),
    ("listen", "127.0.0.1:0", "127.0.0.1:0"),
    ("log-format", "json", "json"),
    ("log-level", "debug", "debug"),
    ("write-concurrency", "7", "7"),
    ("kinds", "ExternalParameter", "[ExternalParameter]"),
    ("protected-namespaces", "a,b", "[a, b]"),
    ("call-timeout", "2s", "2s"),
    ("timings", "denied=1m,misses=1h30m", "{denied: 1m, misses: 1h30m}"),
];

#[test]
fn every_setting_means_the_same_as_flag_variable_and_key() {
    let documented: Vec<String> = super::variables().into_iter().map(|(_, flag)| flag).filter(|flag| flag != "config").collect();
    assert_eq!(documented, ROWS.iter().map(|row| row.0).collect::<Vec<_>>(), "a row for each setting");
    for (flag, text, yaml) in ROWS {
        let by_flag = RunCommand::parse_from(["run", &format!("--{flag}={text}")]).flags.layer;
        let by_variable = super::parse_variable("X", flag, text).unwrap();
        let by_key = super::parse_file(Path::new("f"), &format!("{}: {yaml}\n", super::key(flag))).unwrap();
        assert_ne!(by_flag, Layer::default(), "{flag}");
        assert_eq!(by_flag, by_variable, "{flag}");
        assert_eq!(by_flag, by_key, "{flag}");
        assert_eq!(
            by_flag.clone().over(Layer::default().over(Layer::defaults())).over(Layer::default()),
            by_flag.over(Layer::defaults()),
            "{flag}"
        );
    }
}

/// Flags, environment, file, and what the message has to say.
type Refused = (&'static [&'static str], &'static [(&'static str, &'static str)], &'static str, &'static [&'static str]);

#[test]
fn bad_settings_are_refused_naming_place_and_remedy() {
    let cases: &[Refused] = &[
        (&[], &[], "fileRot: /x\n", &["settings file", "line 1", "fileRot", "fileRoot", "docs/configuration.md"]),
        (&[], &[], "timings: {misess: 1s}\n", &["key timings", "misess", "misses"]),
        (&[], &[], "namespace: [a]\n", &["settings file", "line 1"]),
        (&[], &[], "- a\n", &["settings file"]),
        (&[], &[], "writeConcurrency: 0\n", &["key writeConcurrency", "1 to 1000"]),
        (&["--write-concurrency", "1001"], &[], "", &["flag --write-concurrency", "1 to 1000"]),
        (&[], &[("KEYFERRY_WRITE_CONCURRENCY", "many")], "", &["environment variable KEYFERRY_WRITE_CONCURRENCY", "many"]),
        (&[], &[("KEYFERRY_NAMESPACE", "")], "", &["environment variable KEYFERRY_NAMESPACE", "empty", "remove"]),
        (&[], &[("KEYFERRY_NAMESPACE", "Ops")], "", &["environment variable KEYFERRY_NAMESPACE", "lower-case"]),
        (&[], &[], "logLevel: keyferry=loud\n", &["key logLevel", "use a level"]),
        (&[], &[], "callTimeout: 10\n", &["line 1", "without a unit"]),
        (&[], &[], "callTimeout: -1s\n", &["line 1", "negative"]),
        (&["--call-timeout", "1ms"], &[], "", &["flag --call-timeout", "10ms to 10m"]),
        (&["--timings", "denied=0s"], &[], "", &["flag --timings", "denied", "longer than zero"]),
        (&["--timings", "leaseRenew=20s"], &[], "", &["contradict", "leaseRenew < leaseDuration"]),
        (&["--file-root", "/stores"], &[], "", &["contradict", "fileMasterKey"]),
        (&["--kinds", "ExternalParameters"], &[], "", &["flag --kinds", "\"ExternalParameters\""]),
        (&["--kinds", ""], &[], "", &["flag --kinds", "at least one"]),
        (&["--protected-namespaces", "a,B"], &[], "", &["flag --protected-namespaces", "\"B\""]),
        (&["--identity", ""], &[], "", &["flag --identity"]),
        (&["--tenant-endpoints", "vault:1,vault"], &[], "", &["flag --tenant-endpoints", "\"vault\"", "HOST:PORT"]),
        (&[], &[], "tenantEndpoints: ['https://vault:8200']\n", &["key tenantEndpoints", "HOST:PORT"]),
    ];
    for (flags, environment, file, parts) in cases {
        let message = refusal(flags, environment, file);
        for part in *parts {
            assert!(message.contains(part), "{part:?} is missing in {message:?} for {flags:?} {environment:?} {file:?}");
        }
    }
}

#[test]
fn a_settings_file_that_is_missing_is_named() {
    let flags = RunCommand::parse_from(["run", "--config", "/does/not/exist.yaml"]).flags;
    let message = Config::load(flags, Environment::new()).unwrap_err().to_string();
    assert!(message.contains("/does/not/exist.yaml"), "{message}");
}

#[test]
fn the_settings_file_can_be_named_by_the_environment() {
    let mut settings = tempfile::NamedTempFile::new().unwrap();
    settings.write_all(b"namespace: from-file\n").unwrap();
    let environment = Environment::from([("KEYFERRY_CONFIG".to_owned(), settings.path().to_str().unwrap().as_bytes().to_vec())]);
    let config = Config::load(RunCommand::parse_from(["run"]).flags, environment).unwrap();
    assert_eq!(config.namespace, "from-file");
}

#[test]
fn provider_env_sees_neither_our_settings_nor_what_lies_outside_its_prefix() {
    let variables = [("KEYFERRY_IDENTITY", "me"), ("APP_DB", "hunter2"), ("APPLE", "no"), ("PATH", "/bin")];
    let names = |flags: &[&str]| load(flags, &variables, "").unwrap().backends.environment.into_keys().collect::<Vec<_>>();
    assert_eq!(names(&[]), ["APPLE", "APP_DB", "PATH"]);
    assert_eq!(names(&["--env-prefix", "APP_"]), ["APP_DB"]);
    assert_eq!(names(&["--env-prefix", "KEYFERRY_"]), Vec::<String>::new());
}

#[test]
fn no_value_of_the_environment_can_be_printed() {
    let config = load(&[], &[("APP_DB", "hunter2")], "").unwrap();
    assert!(!format!("{config:?}").contains("hunter2"));
}

#[test]
fn a_variable_that_looks_like_a_setting_is_noticed() {
    let config = load(&[], &[("KEYFERRY_NAMESPCE", "x"), ("KEYFERRY_LISTEN", "127.0.0.1:0"), ("OTHER", "x")], "").unwrap();
    assert_eq!(config.unknown_variables, ["KEYFERRY_NAMESPCE"]);
}

#[test]
fn the_operators_own_namespace_is_always_protected_and_only_once() {
    let config = load(&["--namespace", "mine", "--protected-namespaces", "a,mine"], &[], "").unwrap();
    assert_eq!(config.protected_namespaces, ["a", "mine"]);
    let config = load(&["--namespace", "mine", "--protected-namespaces", ""], &[], "").unwrap();
    assert_eq!(config.protected_namespaces, ["mine"]);
}

#[test]
fn the_documentation_lists_what_the_program_takes() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == reference(), "docs/configuration.md differs from the program: run `make docs`");
}
