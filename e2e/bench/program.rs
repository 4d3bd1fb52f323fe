//! The operator as `config/default` runs it, and what the kernel says of it: anonymous memory and processor time.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::watch;

use crate::harness::process::Process;
use crate::harness::store::KEYFERRY;

/// Between two looks at the process.
const SAMPLE: Duration = Duration::from_millis(5);
/// Ticks of processor time in a second, as Linux counts for everybody.
const TICKS: f64 = 100.0;
/// A process that used no tick for so long is at rest.
const QUIET: Duration = Duration::from_millis(400);
/// An operator that is not ready, or not at rest, after this will never be.
const PATIENCE: Duration = Duration::from_mins(2);

/// A running operator; killed when dropped.
pub struct Program {
    process: Process,
    /// When it was started, as the audit log counts time.
    pub started: Timestamp,
    began: Instant,
    address: watch::Receiver<Option<String>>,
    samples: Arc<Samples>,
    watching: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Samples {
    peak: AtomicU64,
    last: AtomicU64,
    last_tick: Mutex<Option<(u64, Instant)>>,
    is_over: AtomicBool,
}

impl Program {
    /// Starts it with the kubeconfig that stands in its folder, as `config/default` does: flags and variables only say where it is.
    pub fn start(folder: &Path, file_root: Option<&Path>) -> Self {
        let mut command = Process::command(KEYFERRY);
        command.arg("run").arg("--kubeconfig").arg(folder.join("kubeconfig")).arg("--listen=127.0.0.1:0");
        if let Some(root) = file_root {
            command.arg("--file-root").arg(root).arg("--file-master-key").arg(folder.join("master-key"));
        }
        command.env_clear().env("KEYFERRY_LOG_FORMAT", "json").env("KEYFERRY_NAMESPACE", "keyferry-system");
        command.env("KEYFERRY_IDENTITY", "the-pod");
        let log = Mutex::new(File::options().create(true).append(true).open(log_path(folder)).expect("a log file"));
        let (address, seen) = watch::channel(None);
        let (began, started) = (Instant::now(), Timestamp::now());
        let process = Process::spawn(command, move |line| {
            let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
            writeln!(log, "{line}").expect("a log can be written");
            let event = serde_json::from_str::<Value>(line).unwrap_or_default();
            if let Some(told) = event["address"].as_str() {
                address.send_replace(Some(told.to_owned()));
            }
        });
        let samples = Arc::new(Samples::default());
        let (shared, pid) = (samples.clone(), process.id());
        let watching = Some(thread::spawn(move || sample(&shared, pid)));
        Self { process, started, began, address: seen, samples, watching }
    }

    /// SIGKILL.
    pub fn kill(self) {
        self.process.kill();
    }

    /// Anonymous memory in MiB: now, and the most that was seen.
    pub fn memory(&self) -> Memory {
        let mib = |kib: u64| kib as f64 / 1024.0;
        Memory { settled: mib(self.samples.last.load(Ordering::SeqCst)), peak: mib(self.samples.peak.load(Ordering::SeqCst)) }
    }

    /// Seconds of processor time since its start.
    pub fn processor_seconds(&self) -> f64 {
        ticks(self.process.id()).map_or(0.0, |ticks| ticks as f64 / TICKS)
    }

    /// Returns when it is at rest, with the seconds from its start to its last tick of work.
    pub async fn at_rest(&self) -> f64 {
        let began = Instant::now();
        loop {
            assert!(began.elapsed() < PATIENCE, "the operator does not come to rest");
            let last = *self.samples.last_tick.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((_, at)) = last
                && at.elapsed() > QUIET
                && self.is_ready().await
            {
                return (at - self.began).as_secs_f64();
            }
            tokio::time::sleep(SAMPLE).await;
        }
    }

    /// Whether `/readyz` says so.
    pub async fn is_ready(&self) -> bool {
        self.page("/readyz").await.is_some_and(|(status, _)| status == 200)
    }

    /// Status and text of a page; none while nothing is served.
    pub async fn page(&self, path: &str) -> Option<(u16, String)> {
        let address = self.address.borrow().clone()?;
        let answer = reqwest::get(format!("http://{address}{path}")).await.ok()?;
        Some((answer.status().as_u16(), answer.text().await.ok()?))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.samples.is_over.store(true, Ordering::SeqCst);
        if let Some(watching) = self.watching.take() {
            let _ = watching.join();
        }
    }
}

/// Anonymous memory in MiB.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    pub settled: f64,
    pub peak: f64,
}

/// Where the log goes.
pub fn log_path(folder: &Path) -> PathBuf {
    folder.join("operator.log")
}

fn sample(samples: &Samples, pid: i32) {
    while !samples.is_over.load(Ordering::SeqCst) {
        if let Some(memory) = anonymous(pid) {
            samples.last.store(memory, Ordering::SeqCst);
            samples.peak.fetch_max(memory, Ordering::SeqCst);
        }
        if let Some(now) = ticks(pid) {
            let mut last = samples.last_tick.lock().unwrap_or_else(PoisonError::into_inner);
            if last.is_none_or(|(ticks, _)| ticks != now) {
                *last = Some((now, Instant::now()));
            }
        }
        thread::sleep(SAMPLE);
    }
}

/// Kibibytes of anonymous memory.
fn anonymous(pid: i32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    line.trim().trim_end_matches(" kB").parse().ok()
}

/// Ticks of processor time, of user and kernel.
fn ticks(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    Some(fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?)
}
