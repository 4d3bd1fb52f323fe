//! moto, an AWS in memory: Secrets Manager, Parameter Store and STS as the field tests against them. It never outlives the test process.
//!
//! It judges what happens, not how it was asked for: it checks no signature, no web identity token and no limit, denies with XML, answers
//! 404 where AWS answers 400, gives the old version after `UpdateSecretVersionStage` unless `VersionStage` is sent, and empties the current
//! version where a rotation has no function. A fault proxy before it (`Options::aws`) throttles, delays and records; what only a stricter
//! server shows is for our own.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::aws::admin::Admin;
use super::aws::signature::Key;
use crate::harness::process::Process;

/// A start that takes longer than this is a failure.
const PATIENCE: Duration = Duration::from_mins(1);
/// What it says with its port once it serves.
const READY: &str = "Running on ";

/// A running server; killed when dropped.
pub struct Moto {
    _process: Process,
    admin: Admin,
    url: String,
}

impl Moto {
    /// Installs the server if need be, starts it on a free port and waits until it answers.
    ///
    /// # Panics
    /// When there is no server to be had, with what it or its installation said.
    pub async fn start() -> Self {
        let said = Arc::new(Mutex::new(String::new()));
        let (ready, mut address) = watch::channel(None);
        let process = Process::spawn(command(), {
            let said = said.clone();
            move |line| hear(&said, &ready, line)
        });
        let started = tokio::time::timeout(PATIENCE, address.wait_for(Option::is_some)).await;
        let Ok(Ok(url)) = started.map(|found| found.map(|url| url.clone().unwrap_or_default())) else {
            panic!("moto did not start:\n{}", said.lock().unwrap_or_else(PoisonError::into_inner));
        };
        // Any identity is as good as another; this one is the account's own.
        let admin = Admin::new(&url, Key::user("AKIAIOSFODNN7EXAMPLE", "an administrator's secret"));
        Self { _process: process, admin, url }
    }

    /// `http://127.0.0.1:<port>`
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Every call, and the writes of tests, past any proxy.
    #[must_use]
    pub fn admin(&self) -> &Admin {
        &self.admin
    }

    /// Forgets everything, in all accounts and regions.
    pub async fn reset(&self) {
        let answer = reqwest::Client::builder().no_proxy().build().expect("a client");
        let answer = answer.post(format!("{}/moto-api/reset", self.url)).send().await.expect("moto answers");
        assert!(answer.status().is_success(), "{}", answer.status());
    }
}

fn command() -> Command {
    let mut command = Process::command(python());
    command.args(["-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]);
    // Nothing of the user's own AWS.
    command.env_clear().env("PYTHONUNBUFFERED", "1").env("HOME", "/nonexistent").env("MOTO_EC2_LOAD_DEFAULT_AMIS", "false");
    command
}

/// Keeps what is said until the address is among it; each request is a line later on.
fn hear(said: &Mutex<String>, ready: &watch::Sender<Option<String>>, line: &str) {
    if ready.borrow().is_some() {
        return;
    }
    if let Some((_, url)) = line.split_once(READY) {
        ready.send_replace(Some(url.trim().to_owned()));
        return;
    }
    let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
    said.push_str(line);
    said.push('\n');
}

/// A Python with moto, boto3 and botocore, installed once per machine.
pub fn python() -> &'static Path {
    static PYTHON: OnceLock<PathBuf> = OnceLock::new();
    PYTHON.get_or_init(|| {
        let installer = Path::new(env!("CARGO_MANIFEST_DIR")).join("e2e/backends/install-moto");
        let output = Command::new(installer).stderr(Stdio::inherit()).output().expect("bash runs the installation");
        assert!(output.status.success(), "moto could not be installed: see above");
        PathBuf::from(String::from_utf8_lossy(&output.stdout).trim_end())
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::backends::aws::admin::Service;
    use crate::proxy::{Answer, Fault, Matcher, Moment, Nth, Options, Proxy};

    const SECRETS: Service = Service::SecretsManager;

    #[tokio::test]
    async fn secrets_and_parameters_are_kept_in_versions_until_a_reset() {
        let moto = Moto::start().await;
        let admin = moto.admin();
        let first = admin.put_secret("app/db", "one").await;
        let second = admin.put_secret("app/db", "two").await;
        let read = async |input: Value| admin.call(SECRETS, "GetSecretValue", &input).await;
        assert_eq!(read(json!({ "SecretId": "app/db" })).await.body["SecretString"], "two");
        assert_eq!(read(json!({ "SecretId": "app/db", "VersionId": first })).await.body["SecretString"], "one");
        assert_ne!(first, second);
        admin.put_binary("app/bytes", &[0, 255]).await;
        assert_eq!(read(json!({ "SecretId": "app/bytes" })).await.body["SecretBinary"], "AP8=");

        admin.delete_secret("app/db").await;
        assert_eq!(read(json!({ "SecretId": "app/db" })).await.error(), "InvalidRequestException");
        admin.restore_secret("app/db").await;
        assert_eq!(read(json!({ "SecretId": "app/db" })).await.status, 200);
        admin.remove_secret("app/db").await;
        assert_eq!(read(json!({ "SecretId": "app/db" })).await.error(), "ResourceNotFoundException");

        let parameter = async || admin.call(Service::Ssm, "GetParameter", &json!({ "Name": "/app/size" })).await;
        assert_eq!((admin.put_parameter("/app/size", "String", "1").await, admin.put_parameter("/app/size", "String", "2").await), (1, 2));
        assert_eq!(parameter().await.body["Parameter"]["Value"], "2");
        admin.remove_parameter("/app/size").await;
        assert_eq!(parameter().await.error(), "ParameterNotFound");

        admin.put_secret("app/kept", "x").await;
        moto.reset().await;
        assert_eq!(read(json!({ "SecretId": "app/kept" })).await.error(), "ResourceNotFoundException");
        let address = moto.url().trim_start_matches("http://").to_owned();
        drop(moto);
        assert!(std::net::TcpStream::connect(address).is_err(), "a dropped server is gone");
    }

    #[tokio::test]
    async fn a_fault_proxy_before_the_server_names_counts_breaks_and_records_its_calls() {
        let moto = Moto::start().await;
        moto.admin().put_secret("db", "one").await;
        moto.admin().put_parameter("/app/size", "String", "1").await;
        let proxy = Proxy::start(moto.url(), "", Options::aws().needle("the key", "/app/size"));
        let client = moto.admin().through(proxy.url(), proxy.ca_pem());
        let read = async || client.try_call(SECRETS, "GetSecretValue", &json!({ "SecretId": "db" })).await;
        let get = || Matcher::any().verb("GetSecretValue");

        let busy = Answer::aws(400, "ThrottlingException", "Rate exceeded").header("retry-after", "3");
        let rule = proxy.on(get(), Nth::only(2), Fault::answer(busy));
        let dropped = proxy.on(get(), Nth::only(3), Fault::drop(Moment::BeforeCommit));
        let cut = proxy.on(get(), Nth::only(4), Fault::truncate(10));
        assert_eq!(read().await.unwrap().body["SecretString"], "one");
        let throttled = read().await.unwrap();
        assert_eq!((throttled.status, throttled.error()), (400, "ThrottlingException"));
        assert_eq!(throttled.headers["retry-after"], "3");
        assert_eq!(throttled.headers["content-type"], "application/x-amz-json-1.1");
        assert!(read().await.is_err() && read().await.is_err(), "dropped, then cut");
        [rule, dropped, cut].iter().for_each(crate::proxy::Rule::assert_fired);

        client.call(Service::Ssm, "GetParameters", &json!({ "Names": ["/app/size"] })).await.expect_success("parameters");
        client.in_region("us-east-1").call(Service::Ssm, "GetParameter", &json!({ "Name": "/app/none" })).await;
        let wish = json!({ "RoleArn": "arn:aws:iam::123456789012:role/reader", "RoleSessionName": "test" });
        let denial = Answer::aws_form(403, "AccessDenied", "no");
        let second_login = proxy.on(Matcher::any().resource("sts"), Nth::only(2), Fault::answer(denial));
        let assumed = client.call(Service::Sts, "AssumeRole", &wish).await;
        assert!(assumed.element("SessionToken").is_some_and(|token| token.len() > 16), "{}", assumed.text);
        let refused = client.call(Service::Sts, "AssumeRole", &wish).await;
        assert_eq!((refused.status, refused.element("Code")), (403, Some("AccessDenied")));
        second_login.assert_fired();

        let calls: Vec<_> = proxy.calls().iter().map(|call| format!("{} {:?}", call.operation, call.needles)).collect();
        let expected = [
            "GetSecretValue secretsmanager eu-west-1/db []",
            "GetSecretValue secretsmanager eu-west-1/db []",
            "GetSecretValue secretsmanager eu-west-1/db []",
            "GetSecretValue secretsmanager eu-west-1/db []",
            "GetParameters ssm eu-west-1/ [\"the key\"]",
            "GetParameter ssm us-east-1//app/none []",
            "AssumeRole sts eu-west-1/arn:aws:iam::123456789012:role/reader []",
            "AssumeRole sts eu-west-1/arn:aws:iam::123456789012:role/reader []",
        ];
        assert_eq!(calls, expected);
        let recorded = proxy.recorded();
        assert_eq!(recorded.len(), calls.len());
        assert_eq!(recorded[0].header("x-amz-target"), Some("secretsmanager.GetSecretValue"));
        assert_eq!(recorded[0].body, r#"{"SecretId":"db"}"#);
        assert!(String::from_utf8_lossy(&recorded[6].body).contains("Action=AssumeRole"));
    }

    #[tokio::test]
    async fn a_client_without_tls_reaches_the_server_through_a_proxy_in_the_clear() {
        let moto = Moto::start().await;
        moto.admin().put_secret("db", "one").await;
        let proxy = Proxy::start(moto.url(), "", Options::aws().in_the_clear());
        assert!(proxy.url().starts_with("http://"));
        let client = Admin::new(proxy.url(), Key::user("AKIAIOSFODNN7EXAMPLE", "s"));
        assert_eq!(client.call(SECRETS, "GetSecretValue", &json!({ "SecretId": "db" })).await.body["SecretString"], "one");
        assert_eq!(proxy.count(&Matcher::any().verb("GetSecretValue").name("db")), 1);
    }
}
