//! The control planes that all tests of a process share, each with `config/default` installed; one test uses one at a time, because
//! an operator serves every namespace that it sees.
//!
//! `KEYFERRY_E2E_KUBECONFIG` names a cluster that is used instead; it needs an audit log that is written before a request is answered,
//! at `KEYFERRY_E2E_AUDIT_LOG`. Cases then go one after the other, and the one that kills the API server fails.

use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, LazyLock, Mutex, OnceLock, PoisonError};

use super::suite;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kube::config::{KubeConfigOptions, Kubeconfig};
use rcgen::{CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair};
use serde_json::{Value, json};
use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore};

/// As many as there are cores in the smallest machine: a test mostly waits, a control plane mostly works.
const PLANES: usize = 2;

/// Removes the folder after the program, whatever became of the test process.
const THEN_CLEAN: &str = r#"folder=$1; shift; "$@"; rm -rf -- "$folder""#;

/// One control plane with the operator's installation in it, and no operator.
pub struct Plane {
    pub kubeconfig: PathBuf,
    pub audit_log: PathBuf,
    pub server: String,
    pub ca_pem: String,
    control: Option<Mutex<(ChildStdin, BufReader<ChildStdout>)>>,
}

/// The right to use one control plane alone.
pub struct Lent {
    plane: Arc<Plane>,
    slot: usize,
    _in_suite: suite::Running,
    _permit: OwnedSemaphorePermit,
}

struct Pool {
    permits: Arc<Semaphore>,
    free: Mutex<Vec<usize>>,
    planes: [OnceCell<Arc<Plane>>; PLANES],
}

static POOL: LazyLock<Pool> = LazyLock::new(|| {
    let size = if given().is_some() { 1 } else { PLANES };
    Pool { permits: Arc::new(Semaphore::new(size)), free: Mutex::new((0..size).rev().collect()), planes: Default::default() }
});

impl Lent {
    /// Waits for a control plane that nobody uses; the first user of each starts it.
    pub async fn next() -> Self {
        let in_suite = suite::Running::begin();
        let permit = POOL.permits.clone().acquire_owned().await.expect("never closed");
        let slot = lock(&POOL.free).pop().expect("a permit is a free slot");
        let start = || async { Arc::new(tokio::task::spawn_blocking(move || Plane::start(slot)).await.expect("a control plane")) };
        let plane = POOL.planes[slot].get_or_init(start).await.clone();
        Self { plane, slot, _in_suite: in_suite, _permit: permit }
    }
}

impl std::ops::Deref for Lent {
    type Target = Plane;
    fn deref(&self) -> &Plane {
        &self.plane
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        lock(&POOL.free).push(self.slot);
    }
}

impl Plane {
    fn start(slot: usize) -> Self {
        let plane = given().map_or_else(|| Self::embedded(slot), Self::of_kubeconfig);
        plane.install();
        plane
    }

    fn embedded(slot: usize) -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("plane-{}-{slot}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder for the control plane");
        let mut command = Command::new("/bin/sh");
        command.args(["-c", THEN_CLEAN, "sh"]).arg(&folder).arg(binary()).args(["up", "--audit", "--dir"]).arg(&folder);
        // A group of its own: it ends with its standard input, not with the terminal's interrupt.
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0).spawn().expect("a shell");
        let (input, mut output) = (child.stdin.take().expect("piped"), BufReader::new(child.stdout.take().expect("piped")));
        let ready = answer(&mut output);
        assert_eq!(ready["ready"], true, "the control plane did not start: {ready}");
        let text = |field: &str| ready[field].as_str().unwrap_or_else(|| panic!("no {field} in {ready}")).to_owned();
        Self {
            kubeconfig: text("kubeconfig").into(),
            audit_log: text("audit").into(),
            server: text("server"),
            ca_pem: fs::read_to_string(text("ca")).expect("the authority of the control plane"),
            control: Some(Mutex::new((input, output))),
        }
    }

    fn of_kubeconfig(kubeconfig: PathBuf) -> Self {
        let audit_log = env::var_os("KEYFERRY_E2E_AUDIT_LOG").expect("KEYFERRY_E2E_KUBECONFIG needs KEYFERRY_E2E_AUDIT_LOG beside it");
        let file = Kubeconfig::read_from(&kubeconfig).expect("KEYFERRY_E2E_KUBECONFIG is a kubeconfig");
        let options = KubeConfigOptions::default();
        let config = kube::Config::from_custom_kubeconfig(file, &options);
        let config = tokio::runtime::Handle::current().block_on(config).expect("KEYFERRY_E2E_KUBECONFIG works");
        let der = config.root_cert.expect("a kubeconfig with its own authority");
        let pem = |der: &Vec<u8>| {
            let text = STANDARD.encode(der);
            format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
        };
        Self {
            kubeconfig,
            audit_log: audit_log.into(),
            server: config.cluster_url.to_string().trim_end_matches('/').to_owned(),
            ca_pem: der.iter().map(pem).collect(),
            control: None,
        }
    }

    /// `config/default` as people install it, except for the Deployment: there are no nodes, and the operator is our child.
    pub fn install(&self) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/default");
        let all = self.kubectl(&["kustomize", &folder.to_string_lossy()], "");
        let is_deployment = |document: &&str| document.lines().any(|line| line == "kind: Deployment");
        let documents: Vec<&str> = all.split("\n---\n").filter(|document| !is_deployment(document)).collect();
        assert!(documents.len() >= 8, "config/default holds less than it should: {all}");
        self.kubectl(&["apply", "--server-side", "--validate=strict", "-f", "-"], &documents.join("\n---\n"));
        self.kubectl(&["wait", "--for=condition=Established", "--timeout=60s", "crd", "--all"], "");
    }

    /// Runs kubectl as the admin and returns what it printed.
    ///
    /// # Panics
    /// When it fails, with what it said.
    pub fn kubectl(&self, arguments: &[&str], input: &str) -> String {
        self.try_kubectl(arguments, input).unwrap_or_else(|error| panic!("kubectl {arguments:?}: {error}"))
    }

    /// Runs kubectl as the admin: standard output, or standard error when it failed.
    pub fn try_kubectl(&self, arguments: &[&str], input: &str) -> Result<String, String> {
        let mut command = Command::new(binary());
        command.arg("kubectl").args(arguments).env("KUBECONFIG", &self.kubeconfig);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("kubectl");
        let mut stdin = child.stdin.take().expect("piped");
        let input = input.to_owned();
        let writing = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
        let output = child.wait_with_output().expect("kubectl ends");
        // A kubectl that read nothing has closed its end.
        let _ = writing.join();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    /// Certificate and key (PEM) of a user, as the cluster itself gives them: asked for, approved by the admin, signed.
    pub fn client_certificate(&self, user: &str) -> (String, String) {
        let key = KeyPair::generate().expect("a key");
        let request = of_user(user).serialize_request(&key).and_then(|request| request.pem()).expect("a request");
        let spec =
            json!({"request": STANDARD.encode(request), "signerName": "kubernetes.io/kube-apiserver-client", "usages": ["client auth"]});
        let asked =
            json!({"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": {"name": user}, "spec": spec});
        self.kubectl(&["create", "-f", "-"], &asked.to_string());
        self.kubectl(&["certificate", "approve", user], "");
        self.kubectl(&["wait", "csr", user, "--for=jsonpath={.status.certificate}", "--timeout=60s"], "");
        let base64 = self.kubectl(&["get", "csr", user, "-o=jsonpath={.status.certificate}"], "");
        self.kubectl(&["delete", "csr", user], "");
        let pem = STANDARD.decode(base64.trim()).expect("base64");
        (String::from_utf8(pem).expect("a PEM text"), key.serialize_pem())
    }

    /// SIGKILL for the API server; etcd and the controllers stay.
    pub fn kill_api_server(&self) {
        self.command("kill-apiserver");
    }

    /// The API server again, on the same port and with the same data; returns when it is ready.
    pub fn start_api_server(&self) {
        self.command("start-apiserver");
    }

    fn command(&self, line: &str) {
        let control = self.control.as_ref().expect("this case kills the API server: run it without KEYFERRY_E2E_KUBECONFIG");
        let (input, output) = &mut *control.lock().unwrap_or_else(PoisonError::into_inner);
        writeln!(input, "{line}").and_then(|()| input.flush()).expect("the control plane listens");
        let reply = answer(output);
        assert_eq!(reply["ok"], true, "{reply}");
    }
}

/// A certificate that says it is that user's and that nobody signed but its own key, and the key.
pub fn self_signed(user: &str) -> (String, String) {
    let key = KeyPair::generate().expect("a key");
    (of_user(user).self_signed(&key).expect("a certificate").pem(), key.serialize_pem())
}

fn of_user(user: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, user);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params
}

fn answer(output: &mut impl BufRead) -> Value {
    let mut line = String::new();
    output.read_line(&mut line).expect("the control plane answers");
    serde_json::from_str(&line).unwrap_or_else(|_| panic!("the control plane said {line:?}; see above"))
}

fn given() -> Option<PathBuf> {
    env::var_os("KEYFERRY_E2E_KUBECONFIG").map(PathBuf::from)
}

/// The multi-call binary, built once per machine.
fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let build = Path::new(env!("CARGO_MANIFEST_DIR")).join("e2e/controlplane/build");
        let output = Command::new(build).stderr(Stdio::inherit()).output().expect("bash runs the build");
        assert!(output.status.success(), "the control plane could not be built: see above");
        PathBuf::from(String::from_utf8_lossy(&output.stdout).trim_end())
    })
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
