//! `keyferry store set`, `edit`, `describe` and `list` with what is known about a secret, as a user meets them.

use serde_json::{Value, json};

use super::{Files, assert_done, assert_refused, shown, told};

impl Files {
    fn set_as(&self, key: &str, value: &str, flags: &[&str]) {
        let args = [&["set", key], flags].concat();
        assert_done(&self.run(&args, value.as_bytes()));
    }

    fn described(&self, key: &str) -> Value {
        serde_json::from_str(&shown(&self.run(&["describe", key, "--json"], b""))).unwrap()
    }

    fn listed(&self, flags: &[&str]) -> Vec<String> {
        let args = [&["list"], flags].concat();
        shown(&self.run(&args, b"")).lines().map(str::to_owned).collect()
    }
}

const ABOUT: &[&str] = &[
    "--type",
    "database-password",
    "--description",
    "of the shop",
    "--tag",
    "tier=1",
    "--tag",
    "zone=a",
    "--service",
    "shop",
    "--environment",
    "production",
    "--owner",
    "team-a",
    "--expires",
    "2100-01-31T12:00:00Z",
    "--rotate-every",
    "90d",
    "--status",
    "Deprecated",
];

#[test]
fn what_is_known_about_a_secret_is_described_without_its_value() {
    let files = Files::made();
    files.set_as("db/password", "canary-value", ABOUT);
    let mut described = files.described("db/password");
    let written = described["written"].take();
    assert_eq!(described["versions"][0]["written"].take(), written);
    assert!(described["rotationDue"].take().as_str().is_some_and(|due| due.ends_with('Z')));
    let expected = json!({
        "key": "db/password", "version": 1, "deleted": false, "written": null, "type": "database-password", "status": "deprecated",
        "description": "of the shop", "tags": {"tier": "1", "zone": "a"}, "service": "shop", "environment": "production",
        "owner": "team-a", "expires": "2100-01-31T12:00:00Z", "expired": false, "rotateEvery": "2160h", "rotationDue": null,
        "versions": [{"version": 1, "deleted": false, "written": null}],
    });
    assert_eq!(described, expected);
    let told = shown(&files.run(&["describe", "db/password"], b""));
    for line in
        ["type: database-password", "status: deprecated", "tag: tier=1", "owner: team-a", "expires: 2100-01-31T12:00:00Z", "version: 1 "]
    {
        assert!(told.contains(line), "{line} in {told}");
    }
    assert!(!told.contains("canary"), "{told}");
    assert_eq!(files.get("db/password"), b"canary-value", "deprecated is read");
    assert_refused(&files.run(&["describe", "never"], b""), &["\"never\"", "does not exist"]);
}

#[test]
fn what_a_change_does_not_name_stays() {
    let files = Files::made();
    files.set_as("k", "one", ABOUT);
    files.set_as("k", "two", &["--owner", "team-b"]);
    assert_done(&files.run(&["edit", "k", "--tag", "tier-", "--description", "", "--expires", "never", "--rotate-every", "never"], b""));
    let described = files.described("k");
    assert_eq!(
        (&described["owner"], &described["version"], &described["type"]),
        (&json!("team-b"), &json!(2), &json!("database-password"))
    );
    assert_eq!(described["tags"], json!({"zone": "a"}));
    for gone in ["description", "expires", "rotateEvery", "rotationDue"] {
        assert!(described.get(gone).is_none(), "{gone}: {described}");
    }
    assert_refused(&files.run(&["edit", "k"], b""), &["nothing to change"]);
    assert_refused(&files.run(&["edit", "never", "--owner", "x"], b""), &["\"never\"", "does not exist"]);
}

#[test]
fn a_list_is_filtered_by_each_thing_that_is_known() {
    let files = Files::made();
    files.set_as("a", "one", ABOUT);
    files.set_as("b", "two", &["--tag", "tier=2", "--service", "shop", "--expires", "2101-01-01"]);
    files.set_as("c", "three", &[]);
    let cases: [(&[&str], &[&str]); 16] = [
        (&[], &["a", "b", "c"]),
        (&["--type", "database-password"], &["a"]),
        (&["--type", "opaque"], &["b", "c"]),
        (&["--tag", "tier"], &["a", "b"]),
        (&["--tag", "tier=1"], &["a"]),
        (&["--tag", "tier=1", "--tag", "zone=b"], &[]),
        (&["--service", "shop"], &["a", "b"]),
        (&["--service", "shop", "--environment", "production"], &["a"]),
        (&["--owner", "team-a"], &["a"]),
        (&["--owner", "team"], &[]),
        (&["--description", "the shop"], &["a"]),
        (&["--status", "deprecated"], &["a"]),
        (&["--status", "Active"], &["b", "c"]),
        (&["--expires-before", "2100-06-01"], &["a"]),
        (&["--expires-before", "now"], &[]),
        (&["--rotation-due"], &[]),
    ];
    for (flags, expected) in cases {
        assert_eq!(files.listed(flags), expected, "{flags:?}");
    }
    assert_done(&files.run(&["edit", "c", "--expires", "2001-01-01"], b""));
    assert_eq!(files.listed(&["--expires-before", "now"]), ["c"]);
}

#[test]
fn a_status_and_an_expiry_withhold_a_value_and_say_how_to_get_it_back() {
    let files = Files::made();
    files.set_as("k", "v", &[]);
    for (flags, words) in
        [(["--status", "disabled"], ["\"k\"", "disabled", "--status active"]), (["--status", "Revoked"], ["\"k\"", "revoked", "new value"])]
    {
        assert_done(&files.run(&[&["edit", "k"], &flags[..]].concat(), b""));
        assert_refused(&files.run(&["get", "k"], b""), &words);
        assert_refused(&files.run(&["set", "k"], b"lost"), &["--status active", "nothing was written"]);
    }
    files.set_as("k", "two", &["--status", "active"]);
    assert_done(&files.run(&["edit", "k", "--expires", "2001-01-01"], b""));
    assert_refused(&files.run(&["get", "k"], b""), &["\"k\"", "expired at 2001-01-01T00:00:00Z"]);
    assert_refused(&files.run(&["set", "k"], b"lost"), &["--expires", "nothing was written"]);
    assert_eq!(files.described("k")["expired"], json!(true));
    files.set_as("k", "three", &["--expires", "90d"]);
    assert_eq!(files.get("k"), b"three");
}

#[test]
fn what_is_wrong_is_told_with_what_would_be_right_and_never_with_the_value() {
    let files = Files::made();
    let wrong: [(&[&str], &[&str]); 9] = [
        (&["--type", "jwt"], &["no jwt", "three parts", "--type opaque"]),
        (&["--type", "tls-certificate"], &["no tls-certificate", "BEGIN CERTIFICATE"]),
        (&["--type", "ssh-key"], &["no ssh-key", "PRIVATE KEY"]),
        (&["--type", "api-key"], &["no api-key", "without spaces"]),
        (&["--tag", "tier"], &["tier", "KEY=VALUE"]),
        (&["--tag", "owner=me"], &["owner", "flags of their own"]),
        (&["--expires", "tomorrow"], &["tomorrow", "90d"]),
        (&["--rotate-every", "0"], &["at least one second"]),
        (&["--owner", "a\nb"], &["the owner"]),
    ];
    for (flags, words) in wrong {
        let refused = files.run(&[&["set", "k"], flags].concat(), b"canary of a value");
        assert_refused(&refused, words);
        assert!(!told(&refused).contains("canary"), "{flags:?}");
    }
    assert!(files.listed(&["--all"]).is_empty());
    let unknown = files.run(&["set", "k", "--type", "password"], b"v");
    assert_eq!(unknown.status.code(), Some(2));
    assert!(told(&unknown).contains("database-password"), "{}", told(&unknown));
    files.set_as("k", "canary of a value", &["--type", "opaque"]);
}
