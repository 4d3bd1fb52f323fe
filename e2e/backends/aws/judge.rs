//! The judge: the vendor's own models and signer, in the Python that moto is installed in. It says what is wrong with requests of the
//! operator and with answers of our server, and where our server and moto differ under the vendor's own client.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::signature::Key;
use crate::backends::moto::python;
use crate::proxy::Recorded;

/// # Panics
/// When botocore finds anything wrong with a request, its signature under one of these keys, or its answer.
pub fn judge(recorded: &[Recorded], keys: &[Key]) {
    assert!(!recorded.is_empty(), "nothing was recorded, so nothing is judged");
    let wrong = findings(recorded, keys);
    assert!(wrong.is_empty(), "of {} requests:\n{}", recorded.len(), wrong.join("\n"));
}

/// Everything that is wrong, as `<number>: <operation>: <what>`; no value stands in it.
pub fn findings(recorded: &[Recorded], keys: &[Key]) -> Vec<String> {
    let keys: Vec<Value> =
        keys.iter().map(|key| json!({ "access_key": key.id, "secret_key": key.secret, "session_token": key.token })).collect();
    let requests: Vec<Value> = recorded.iter().map(entry).collect();
    run("requests", &json!({ "keys": keys, "requests": requests }))
}

/// What differs between a server of ours and moto, row by row; `input` says where they are.
pub fn differences(input: &Value) -> Vec<String> {
    run("compare", input)
}

fn entry(recorded: &Recorded) -> Value {
    let headers = recorded.headers.iter().map(|(name, value)| (name.as_str(), String::from_utf8_lossy(value.as_bytes())));
    json!({
        "method": recorded.method, "path": recorded.path_and_query, "headers": headers.collect::<Vec<_>>(), "body": STANDARD.encode(&recorded.body),
        "status": recorded.status, "answer": recorded.answer.as_ref().map(|answer| STANDARD.encode(answer)),
    })
}

fn run(what: &str, input: &Value) -> Vec<String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("e2e/backends/aws/judge.py");
    let mut command = Command::new(python());
    // Nothing of the user's own AWS, and nothing written beside the script.
    command.arg(script).arg(what).env_clear().env("HOME", "/nonexistent").env("PYTHONDONTWRITEBYTECODE", "1");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("Python runs");
    let mut stdin = child.stdin.take().expect("piped");
    let text = input.to_string();
    let writer = std::thread::spawn(move || stdin.write_all(text.as_bytes()));
    let output = child.wait_with_output().expect("the judge ends");
    let written = writer.join().expect("the writer ends");
    assert!(output.status.success() && written.is_ok(), "the judge failed:\n{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}
