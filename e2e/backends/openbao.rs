//! An OpenBao server in memory, over TLS with its own authority, and what tests do to it as its administrator.
//! Started with KV v2 at `secret/`; it never outlives the test process.

use std::fs::File;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use reqwest::{Certificate, Client, Method};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A start that takes longer than this is a failure.
const PATIENCE: Duration = Duration::from_mins(1);

/// Becomes the server and leaves a process behind that kills it as soon as nobody holds the other end of standard
/// input: the kernel closes that when the test process ends, however it ends.
const RUN_WITH_LIFELINE: &str = r#"exec 3<&0; (read -r _ <&3; kill -KILL $$) & exec "$@" 3<&- </dev/null"#;

/// A running server; killed when dropped.
pub struct OpenBao {
    process: Process,
    _folder: TempDir,
    url: String,
    ca_pem: String,
    root_token: String,
    unseal_key: String,
    client: Client,
}

/// What the server answered, whatever it was.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    /// Null where the text is no JSON.
    pub body: Value,
    /// The body as it came, with the digits of its numbers.
    pub text: String,
}

impl Answer {
    fn expect_success(self, what: &str) -> Value {
        assert!((200..300).contains(&self.status), "{what}: {} {}", self.status, self.body["errors"]);
        self.body
    }
}

impl OpenBao {
    /// Installs the server if need be, starts it on a free port and waits until its KV engine answers.
    ///
    /// # Panics
    /// When there is no server to be had, with what it or its installation said.
    pub async fn start() -> Self {
        loop {
            let port = free_port();
            match Start::on(port).until_ready().await {
                Ok(server) => return server,
                Err(log) if log.contains("address already in use") => {}
                Err(log) => panic!("OpenBao did not start:\n{log}"),
            }
        }
    }

    /// `https://127.0.0.1:<port>`
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    #[must_use]
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    #[must_use]
    pub fn root_token(&self) -> &str {
        &self.root_token
    }

    /// The KV v2 engine at `secret/`.
    #[must_use]
    pub fn kv(&self) -> Kv<'_> {
        Kv { server: self, mount: "secret".to_owned() }
    }

    /// Enables another KV v2 engine.
    pub async fn mount_kv(&self, mount: &str) -> Kv<'_> {
        let kv = Kv { server: self, mount: mount.to_owned() };
        self.write(&format!("sys/mounts/{mount}"), &json!({ "type": "kv", "options": { "version": "2" } })).await;
        kv.until_ready().await;
        kv
    }

    /// Any call as root; `path` without `/v1/`.
    pub async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Answer {
        self.call_as(&self.root_token, method, path, body.map(Value::to_string)).await
    }

    /// Any call with any token.
    pub async fn call_as(&self, token: &str, method: Method, path: &str, body: Option<String>) -> Answer {
        self.try_call(token, method, path, body).await.expect("OpenBao answers")
    }

    /// Creates or replaces a policy.
    pub async fn write_policy(&self, name: &str, hcl: &str) {
        self.write(&format!("sys/policies/acl/{name}"), &json!({ "policy": hcl })).await;
    }

    /// A new token that may do what `hcl` says, and nothing else.
    pub async fn create_token(&self, hcl: &str) -> String {
        let policy = format!("test-{}", random_hex());
        self.write_policy(&policy, hcl).await;
        self.create_token_under(&policy).await
    }

    /// A new token that may do what the policy says at any time, and nothing else.
    pub async fn create_token_under(&self, policy: &str) -> String {
        let request = json!({ "policies": [policy], "no_default_policy": true, "no_parent": true });
        let answer = self.write("auth/token/create", &request).await;
        answer["auth"]["client_token"].as_str().expect("a token").to_owned()
    }

    pub async fn revoke_token(&self, token: &str) {
        self.write("auth/token/revoke", &json!({ "token": token })).await;
    }

    /// From now on everything but unsealing is answered 503.
    pub async fn seal(&self) {
        self.write("sys/seal", &json!({})).await;
    }

    /// Returns when the KV engine at `secret/` answers again.
    pub async fn unseal(&self) {
        self.write("sys/unseal", &json!({ "key": self.unseal_key })).await;
        self.kv().until_ready().await;
    }

    async fn write(&self, path: &str, body: &Value) -> Value {
        self.call(Method::PUT, path, Some(body)).await.expect_success(path)
    }

    async fn try_call(&self, token: &str, method: Method, path: &str, body: Option<String>) -> reqwest::Result<Answer> {
        let request = self.client.request(method, format!("{}/v1/{path}", self.url)).header("X-Vault-Token", token);
        let answer = request.body(body.unwrap_or_default()).send().await?;
        let status = answer.status().as_u16();
        let text = answer.text().await?;
        let body = serde_json::from_str(&text).unwrap_or(Value::Null);
        Ok(Answer { status, body, text })
    }
}

/// One KV v2 engine, used as root. Keys go into the URL as they are, so `?`, `#`, `%` and `..` must come escaped.
pub struct Kv<'a> {
    server: &'a OpenBao,
    mount: String,
}

impl Kv<'_> {
    #[must_use]
    pub fn mount(&self) -> &str {
        &self.mount
    }

    /// Writes a new version and returns its number.
    pub async fn put(&self, key: &str, data: &Value) -> u64 {
        self.put_raw_json(key, &data.to_string()).await
    }

    /// Like `put`; the text goes out as it is. The engine itself keeps numbers as 64-bit floats: `1.10` comes back as
    /// `1.1`, and integers beyond 2^53 come back rounded.
    pub async fn put_raw_json(&self, key: &str, data: &str) -> u64 {
        let (path, body) = (self.path("data", key), format!("{{\"data\":{data}}}"));
        let answer = self.server.call_as(&self.server.root_token, Method::PUT, &path, Some(body)).await;
        answer.expect_success(&path)["data"]["version"].as_u64().expect("a version")
    }

    /// The answer to a read, also where it is 404.
    pub async fn get(&self, key: &str) -> Answer {
        self.server.call(Method::GET, &self.path("data", key), None).await
    }

    pub async fn get_version(&self, key: &str, version: u64) -> Answer {
        let path = format!("{}?version={version}", self.path("data", key));
        self.server.call(Method::GET, &path, None).await
    }

    /// Names below a folder (empty for all); folders end in `/`.
    pub async fn list(&self, folder: &str) -> Vec<String> {
        let path = format!("{}?list=true", self.path("metadata", folder));
        let answer = self.server.call(Method::GET, &path, None).await;
        if answer.status == 404 {
            return Vec::new();
        }
        let body = answer.expect_success(&path);
        let names = body["data"]["keys"].as_array().expect("names");
        names.iter().map(|name| name.as_str().expect("a name").to_owned()).collect()
    }

    /// Deletes the newest version softly, as `bao kv delete` does.
    pub async fn soft_delete(&self, key: &str) {
        let path = self.path("data", key);
        self.server.call(Method::DELETE, &path, None).await.expect_success(&path);
    }

    pub async fn undelete(&self, key: &str, versions: &[u64]) {
        self.server.write(&self.path("undelete", key), &json!({ "versions": versions })).await;
    }

    /// Removes the data of these versions for good; their metadata stays.
    pub async fn destroy(&self, key: &str, versions: &[u64]) {
        self.server.write(&self.path("destroy", key), &json!({ "versions": versions })).await;
    }

    /// Removes all versions and the metadata: the key is proven absent afterwards.
    pub async fn remove(&self, key: &str) {
        let path = self.path("metadata", key);
        self.server.call(Method::DELETE, &path, None).await.expect_success(&path);
    }

    fn path(&self, kind: &str, key: &str) -> String {
        format!("{}/{kind}/{key}", self.mount)
    }

    /// A KV engine that was just mounted or unsealed answers 400 or 503 until it has upgraded itself.
    async fn until_ready(&self) {
        let start = Instant::now();
        while !self.is_ready().await {
            assert!(start.elapsed() < PATIENCE, "the KV engine at {} does not answer", self.mount);
            breathe().await;
        }
    }

    async fn is_ready(&self) -> bool {
        let (token, path) = (&self.server.root_token, self.path("data", "is-ready"));
        self.server.try_call(token, Method::GET, &path, None).await.is_ok_and(|answer| matches!(answer.status, 200 | 404))
    }
}

/// A server that was started and did not answer yet.
struct Start {
    process: Process,
    folder: TempDir,
    port: u16,
    root_token: String,
}

impl Start {
    fn on(port: u16) -> Self {
        let folder = TempDir::with_prefix("keyferry-openbao-").expect("a temporary folder");
        let root_token = random_hex();
        let log = File::create(folder.path().join("log")).expect("a log file");
        let mut command = Process::command(binary());
        command.args(["server", "-dev", "-dev-tls", "-dev-no-store-token"]);
        command.arg(format!("-dev-tls-cert-dir={}", folder.path().display()));
        command.arg(format!("-dev-listen-address=127.0.0.1:{port}"));
        // Nothing of the user's own OpenBao or Vault, and no token among the arguments, which everybody can read.
        command.env_clear().env("HOME", folder.path());
        command.env("BAO_DEV_ROOT_TOKEN_ID", &root_token).env("VAULT_DEV_ROOT_TOKEN_ID", &root_token);
        command.stdout(log.try_clone().expect("a second handle on the log")).stderr(log);
        Self { process: Process::spawn(command), folder, port, root_token }
    }

    /// The server, or its log when it ended.
    async fn until_ready(mut self) -> Result<OpenBao, String> {
        let start = Instant::now();
        loop {
            if self.process.has_ended() {
                return Err(self.log());
            }
            assert!(start.elapsed() < PATIENCE, "OpenBao does not answer:\n{}", self.log());
            match (self.certificate(), self.unseal_key()) {
                (Some(ca_pem), Some(unseal_key)) => {
                    let server = self.into_server(ca_pem, unseal_key);
                    server.kv().until_ready().await;
                    return Ok(server);
                }
                _ => breathe().await,
            }
        }
    }

    fn into_server(self, ca_pem: String, unseal_key: String) -> OpenBao {
        OpenBao {
            url: format!("https://127.0.0.1:{}", self.port),
            client: client(&ca_pem),
            process: self.process,
            _folder: self.folder,
            ca_pem,
            root_token: self.root_token,
            unseal_key,
        }
    }

    fn certificate(&self) -> Option<String> {
        let pem = std::fs::read_to_string(self.folder.path().join("vault-ca.pem")).ok()?;
        pem.trim_end().ends_with("-----END CERTIFICATE-----").then_some(pem)
    }

    /// Printed last, once the server serves.
    fn unseal_key(&self) -> Option<String> {
        let log = self.log();
        let (_, rest) = log.split_once("Unseal Key: ")?;
        rest.split_once('\n').map(|(key, _)| key.to_owned())
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

/// A child process that dies with this one.
struct Process {
    child: Child,
    lifeline: Option<ChildStdin>,
}

impl Process {
    /// To run `program`: add its arguments, environment and output.
    fn command(program: &Path) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", RUN_WITH_LIFELINE, "sh"]).arg(program);
        command
    }

    fn spawn(mut command: Command) -> Self {
        // A group of its own: an interrupt at the terminal must reach the test process alone, whose end ends the rest.
        let mut child = command.stdin(Stdio::piped()).process_group(0).spawn().expect("a shell");
        let lifeline = child.stdin.take();
        Self { child, lifeline }
    }

    fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("a child can be waited for").is_some()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Before the lifeline: until it is waited for, the process id cannot belong to anybody else.
        let _ = self.child.kill();
        drop(self.lifeline.take());
        let _ = self.child.wait();
    }
}

/// The server's binary, installed once per machine.
fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let installer = Path::new(env!("CARGO_MANIFEST_DIR")).join("e2e/backends/install-openbao");
        let output = Command::new(installer).stderr(Stdio::inherit()).output().expect("bash runs the installation");
        assert!(output.status.success(), "OpenBao could not be installed: see above");
        PathBuf::from(String::from_utf8_lossy(&output.stdout).trim_end())
    })
}

pub(super) fn client(ca_pem: &str) -> Client {
    let ca = Certificate::from_pem(ca_pem.as_bytes()).expect("OpenBao writes PEM");
    // No connection is kept: a server may be shared by tests that each have a runtime of their own.
    let builder = Client::builder().tls_certs_only([ca]).no_proxy().pool_max_idle_per_host(0);
    builder.build().expect("a client")
}

/// Free a moment ago: somebody else may take it first, so whoever uses it tries again.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port on 127.0.0.1");
    listener.local_addr().expect("a bound listener has an address").port()
}

fn random_hex() -> String {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).expect("the system has randomness");
    format!("{:032x}", u128::from_be_bytes(bytes))
}

/// The pause between two looks at something that cannot tell when it is done.
async fn breathe() {
    tokio::time::sleep(Duration::from_millis(20)).await;
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;
    use crate::proxy::{Answer as OwnAnswer, Fault, Matcher, Nth, Options, Proxy};

    #[tokio::test]
    async fn a_value_is_kept_in_versions_and_numbers_as_floats() {
        let bao = OpenBao::start().await;
        let kv = bao.kv();
        assert_eq!(kv.put("app/db", &json!({ "password": "one" })).await, 1);
        assert_eq!(kv.put_raw_json("app/db", r#"{"id":12345678901234567890123,"port":5432,"ratio":1.10}"#).await, 2);
        assert_eq!(kv.get_version("app/db", 1).await.body["data"]["data"]["password"], "one");
        let text = kv.get("app/db").await.text;
        assert!(text.contains(r#"{"id":1.2345678901234568e+22,"port":5432,"ratio":1.1}"#), "{text}");
    }

    #[tokio::test]
    async fn missing_soft_deleted_and_destroyed_are_told_apart() {
        let bao = OpenBao::start().await;
        let kv = bao.kv();
        let missing = kv.get("nothing").await;
        assert_eq!((missing.status, missing.body), (404, json!({ "errors": [] })));

        kv.put("db", &json!({ "password": "one" })).await;
        kv.put("db", &json!({ "password": "two" })).await;
        kv.soft_delete("db").await;
        let deleted = kv.get("db").await;
        assert_eq!(deleted.status, 404);
        assert_ne!(deleted.body["data"]["metadata"]["deletion_time"], "");
        assert_eq!(deleted.body["data"]["metadata"]["destroyed"], false);

        kv.undelete("db", &[2]).await;
        assert_eq!(kv.get("db").await.body["data"]["data"]["password"], "two");

        kv.destroy("db", &[2]).await;
        let destroyed = kv.get("db").await;
        assert_eq!((destroyed.status, &destroyed.body["data"]["metadata"]["destroyed"]), (404, &json!(true)));

        kv.remove("db").await;
        assert_eq!(kv.get("db").await.body, json!({ "errors": [] }));
    }

    #[tokio::test]
    async fn names_are_listed_by_folder_in_each_engine() {
        let bao = OpenBao::start().await;
        let (secret, team) = (bao.kv(), bao.mount_kv("team").await);
        secret.put("app/db", &json!({})).await;
        secret.put("top", &json!({})).await;
        team.put("own", &json!({})).await;
        assert_eq!(secret.list("").await, ["app/", "top"]);
        assert_eq!(secret.list("app").await, ["db"]);
        assert_eq!(team.list("").await, ["own"]);
        assert_eq!(team.list("nothing").await, Vec::<String>::new());
        assert_eq!(team.mount(), "team");
    }

    #[tokio::test]
    async fn a_token_may_do_what_its_policy_says_until_it_is_revoked() {
        let bao = OpenBao::start().await;
        bao.kv().put("app/db", &json!({})).await;
        bao.kv().put("other", &json!({})).await;
        let token = bao.create_token(r#"path "secret/data/app/*" { capabilities = ["read"] }"#).await;
        let read = async |key: &str| bao.call_as(&token, Method::GET, &format!("secret/data/{key}"), None).await.status;
        assert_eq!((read("app/db").await, read("app/none").await, read("other").await), (200, 404, 403));
        assert_eq!(bao.call_as(&token, Method::GET, "auth/token/lookup-self", None).await.status, 403);
        bao.revoke_token(&token).await;
        assert_eq!(read("app/db").await, 403);
    }

    #[tokio::test]
    async fn a_sealed_server_answers_503_and_has_its_values_back_when_unsealed() {
        let bao = OpenBao::start().await;
        bao.kv().put("db", &json!({ "password": "one" })).await;
        bao.seal().await;
        assert_eq!(bao.kv().get("db").await.status, 503);
        bao.unseal().await;
        assert_eq!(bao.kv().get("db").await.body["data"]["data"]["password"], "one");
    }

    #[tokio::test]
    async fn two_servers_share_neither_port_nor_token_nor_authority() {
        let (one, two) = tokio::join!(OpenBao::start(), OpenBao::start());
        assert_ne!(one.url(), two.url());
        assert_ne!(one.root_token(), two.root_token());
        assert_ne!(one.ca_pem(), two.ca_pem());
        let answer = two.call_as(one.root_token(), Method::GET, "auth/token/lookup-self", None).await;
        assert_eq!(answer.status, 403);
    }

    #[tokio::test]
    async fn a_fault_proxy_before_the_server_counts_its_calls_by_path() {
        let bao = OpenBao::start().await;
        bao.kv().put("app/db", &json!({ "password": "one" })).await;
        let proxy = Proxy::start(bao.url(), bao.ca_pem(), Options::vault().needle("value", "two"));
        let throttled = OwnAnswer::json(429, &json!({ "errors": [] })).header("retry-after", "3");
        let rule = proxy.on(Matcher::any().verb("list"), Nth::only(1), Fault::answer(throttled));
        let client = client(proxy.ca_pem());
        let call = async |method: &str, path: &str, body: &'static str| {
            let request = client.request(method.parse().unwrap(), format!("{}/v1/{path}", proxy.url()));
            request.header("X-Vault-Token", bao.root_token()).body(body).send().await.unwrap().status().as_u16()
        };
        assert_eq!(call("GET", "secret/data/app/db", "").await, 200);
        assert_eq!(call("LIST", "secret/metadata/app", "").await, 429);
        assert_eq!(call("LIST", "secret/metadata/app", "").await, 200);
        assert_eq!(call("PUT", "secret/data/app/db", r#"{"data":{"password":"two"}}"#).await, 200);
        rule.assert_fired();
        let calls: Vec<_> = proxy.calls().iter().map(|call| format!("{} {:?}", call.operation, call.needles)).collect();
        let expected = [
            "read secret/data/app/db []",
            "list secret/metadata/app []",
            "list secret/metadata/app []",
            "write secret/data/app/db [\"value\"]",
        ];
        assert_eq!(calls, expected);
    }

    #[tokio::test]
    async fn a_dropped_server_is_gone() {
        let bao = OpenBao::start().await;
        let address = bao.url().trim_start_matches("https://").to_owned();
        drop(bao);
        assert!(std::net::TcpStream::connect(address).is_err());
    }

    #[tokio::test]
    async fn a_server_whose_test_process_dies_is_killed() {
        let mut bao = OpenBao::start().await;
        // What the kernel does when a process ends without a word.
        drop(bao.process.lifeline.take());
        assert_eq!(bao.process.child.wait().unwrap().signal(), Some(9));
    }

    #[tokio::test]
    async fn a_taken_port_is_noticed() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let log = Start::on(port).until_ready().await.err().expect("the port is taken");
        assert!(log.contains("address already in use"), "{log}");
    }
}
