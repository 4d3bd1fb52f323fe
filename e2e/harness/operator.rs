//! The operator as a process of its own: the real binary, under its ServiceAccount's token, with the settings of `config/default`.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::cluster::PATIENCE;
use super::process::Process;
use super::store::KEYFERRY;
use crate::proxy::Proxy;

/// How one test's operator differs from an installed one.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Shortened waiting times, by name.
    pub timings: Vec<(String, String)>,
    /// Further flags.
    pub arguments: Vec<String>,
    /// Further variables.
    pub environment: Vec<(String, String)>,
}

impl Settings {
    #[must_use]
    pub fn timing(mut self, name: &str, value: &str) -> Self {
        self.timings.retain(|(known, _)| known != name);
        self.timings.push((name.to_owned(), value.to_owned()));
        self
    }

    #[must_use]
    pub fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    #[must_use]
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// One operator, which may be killed and started again; it never outlives the test. Cheap to clone.
#[derive(Clone)]
pub struct Operator {
    inner: Arc<Inner>,
}

struct Inner {
    settings: Settings,
    folder: PathBuf,
    running: Mutex<Option<Process>>,
    log: Arc<Log>,
}

/// All that the operator wrote, in all of its lives.
struct Log {
    path: PathBuf,
    file: Mutex<File>,
    seen: watch::Sender<Seen>,
}

#[derive(Clone, Default)]
struct Seen {
    /// Where health and metrics are served, in the present life.
    address: Option<String>,
    /// Lives in which every cache was filled.
    synced: u64,
    lines: u64,
}

impl Operator {
    /// Prepares one; nothing runs yet. `folder` holds `root`, `master-key`, its kubeconfig and its log.
    pub fn new(folder: &Path, proxy: &Proxy, token: &str, settings: Settings) -> Self {
        write_private(&folder.join("kubeconfig"), &kubeconfig(proxy.url(), proxy.ca_pem(), token).to_string());
        let path = folder.join("operator.log");
        let file = Mutex::new(OpenOptions::new().create(true).append(true).open(&path).expect("a log file"));
        let log = Arc::new(Log { path, file, seen: watch::Sender::new(Seen::default()) });
        let inner = Inner { settings, folder: folder.to_owned(), running: Mutex::new(None), log };
        Self { inner: Arc::new(inner) }
    }

    /// Starts it.
    ///
    /// # Panics
    /// When it runs already.
    pub fn start(&self) {
        let mut running = self.running();
        assert!(running.is_none(), "the operator runs already");
        let log = self.inner.log.clone();
        log.seen.send_modify(|seen| seen.address = None);
        *running = Some(Process::spawn(self.command(), move |line| log.take(line)));
    }

    fn command(&self) -> std::process::Command {
        let Inner { settings, folder, .. } = &*self.inner;
        let mut command = Process::command(KEYFERRY);
        command.arg("run").arg("--kubeconfig").arg(folder.join("kubeconfig"));
        command.arg("--file-root").arg(folder.join("root")).arg("--file-master-key").arg(folder.join("master-key"));
        command.args(["--listen=127.0.0.1:0", "--log-level=trace"]);
        let timings: Vec<String> = settings.timings.iter().map(|(name, value)| format!("{name}={value}")).collect();
        if !timings.is_empty() {
            command.arg(format!("--timings={}", timings.join(",")));
        }
        command.args(&settings.arguments).env_clear();
        // As config/default sets them.
        command.env("KEYFERRY_LOG_FORMAT", "json").env("KEYFERRY_NAMESPACE", "keyferry-system").env("KEYFERRY_IDENTITY", "the-pod");
        command.env("RUST_BACKTRACE", "1").envs(settings.environment.iter().cloned());
        command
    }

    /// SIGKILL; returns when it is dead. Nothing happens when it does not run.
    pub fn kill(&self) {
        if let Some(process) = self.running().take() {
            process.kill();
        }
    }

    /// Kills it and starts it again, under the same identity.
    pub fn restart(&self) {
        self.kill();
        self.start();
    }

    /// Ends it gracefully.
    ///
    /// # Panics
    /// When that takes longer than a test can wait, or ends with another code than 0.
    pub async fn stop(&self) {
        let Some(process) = self.running().take() else { return };
        process.signal(Signal::TERM);
        let pid = process.id();
        let ended = tokio::time::timeout(PATIENCE, tokio::task::spawn_blocking(move || process.wait())).await;
        let status = ended.unwrap_or_else(|_| panic!("the operator {pid} did not end\n{}", self.last_words()));
        let status = status.expect("waited for");
        assert!(status.success(), "the operator ended with {status}\n{}", self.last_words());
    }

    pub fn is_running(&self) -> bool {
        self.running().as_ref().is_some_and(Process::is_running)
    }

    /// Its process id while it runs.
    pub fn pid(&self) -> Option<i32> {
        self.running().as_ref().filter(|process| process.is_running()).map(Process::id)
    }

    /// Forgets how much memory it used at most, and says how much it uses now, in KiB.
    ///
    /// # Panics
    /// When it does not run, or on a kernel that cannot.
    pub fn forget_peak(&self) -> u64 {
        let pid = self.pid().expect("it runs");
        fs::write(format!("/proc/{pid}/clear_refs"), "5").expect("the kernel forgets a peak");
        self.status("VmRSS:")
    }

    /// The most memory that it used since, in KiB.
    pub fn peak(&self) -> u64 {
        self.status("VmHWM:")
    }

    /// What it holds, as the kernel counts it: threads, open files, and KiB of memory of its own.
    pub fn holdings(&self) -> BTreeMap<String, u64> {
        let pid = self.pid().expect("it runs");
        let files = fs::read_dir(format!("/proc/{pid}/fd")).expect("its files").count() as u64;
        let of = |what: &str, amount| (what.to_owned(), amount);
        BTreeMap::from([of("threads", self.status("Threads:")), of("open files", files), of("KiB of memory", self.status("RssAnon:"))])
    }

    /// A number of its `/proc/<pid>/status`.
    fn status(&self, field: &str) -> u64 {
        let pid = self.pid().expect("it runs");
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("its status");
        let value = status.lines().find_map(|line| line.strip_prefix(field)).and_then(|rest| rest.split_whitespace().next());
        value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {field} in {status}"))
    }

    /// Blocks until it has ended by itself, and says whether with code 0.
    pub async fn ended(&self) -> bool {
        let process = self.running().take().expect("the operator was started");
        let wait = tokio::task::spawn_blocking(move || process.wait());
        let status = tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("it goes on\n{}", self.last_words()));
        status.expect("waited for").success()
    }

    /// Waits until it leads and has seen every object.
    pub async fn synced(&self) {
        let before = self.inner.log.seen.borrow().synced;
        let address = self.inner.log.seen.borrow().address.clone();
        // A life that told its address and synced already.
        if address.is_some() && self.inner.log.synced_in_this_life() {
            return;
        }
        self.until(|seen| seen.synced > before, "its caches are complete").await;
    }

    /// The page of metrics.
    pub async fn metrics(&self) -> String {
        self.page("/metrics").await.1
    }

    /// Status and body of a page.
    pub async fn page(&self, path: &str) -> (u16, String) {
        let seen = self.until(|seen| seen.address.is_some(), "it serves its pages").await;
        let url = format!("http://{}{path}", seen.address.expect("waited for"));
        let answer = reqwest::get(&url).await.unwrap_or_else(|error| panic!("{url}: {error}\n{}", self.last_words()));
        (answer.status().as_u16(), answer.text().await.expect("text"))
    }

    /// Everything that it wrote.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.inner.log.path).expect("a log")
    }

    /// The end of the log, for a failing test.
    pub fn last_words(&self) -> String {
        let log = self.log();
        let is_telling =
            |line: &&str| !["\"target\":\"hyper", "\"target\":\"tower", "\"target\":\"rustls"].iter().any(|noise| line.contains(noise));
        let lines: Vec<&str> = log.lines().filter(is_telling).collect();
        let kept: Vec<String> = lines.iter().rev().take(30).rev().map(|line| line.chars().take(400).collect()).collect();
        format!("the end of {}:\n{}", self.inner.log.path.display(), kept.join("\n"))
    }

    async fn until(&self, mut condition: impl FnMut(&Seen) -> bool, words: &str) -> Seen {
        let mut changes = self.inner.log.seen.subscribe();
        let wait = tokio::time::timeout(PATIENCE, changes.wait_for(|seen| condition(seen))).await;
        let seen = wait.unwrap_or_else(|_| panic!("waited until {words}\n{}", self.last_words()));
        seen.expect("the log holds the sender").clone()
    }

    fn running(&self) -> std::sync::MutexGuard<'_, Option<Process>> {
        self.inner.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Log {
    fn take(&self, line: &str) {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        writeln!(file, "{line}").expect("a log can be written");
        let event = serde_json::from_str::<Value>(line).unwrap_or_default();
        self.seen.send_modify(|seen| {
            seen.lines += 1;
            if let Some(address) = event["address"].as_str() {
                seen.address = Some(address.to_owned());
                seen.lines = 0;
            }
            if event["message"] == "caches are complete" {
                seen.synced += 1;
            }
        });
    }

    fn synced_in_this_life(&self) -> bool {
        let log = fs::read_to_string(&self.path).unwrap_or_default();
        log.rfind("caches are complete") > log.rfind("serving /healthz")
    }
}

/// A kubeconfig with one user; JSON is YAML.
pub fn kubeconfig(server: &str, ca_pem: &str, token: &str) -> Value {
    let ca = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, ca_pem);
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "it",
        "clusters": [{ "name": "it", "cluster": { "server": server, "certificate-authority-data": ca } }],
        "users": [{ "name": "it", "user": { "token": token } }],
        "contexts": [{ "name": "it", "context": { "cluster": "it", "user": "it" } }],
    })
}

pub fn write_private(path: &Path, text: &str) {
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes())).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}
