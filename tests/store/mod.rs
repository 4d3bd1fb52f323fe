//! `keyferry store` as a user runs it: the binary, its output, its exit codes and the files that it leaves.

mod admin;
mod crash;
mod metadata;
mod power;

use std::{
    fs,
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use tempfile::TempDir;

/// A folder for one test, in memory where the machine has one.
fn folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory).unwrap() } else { tempfile::tempdir().unwrap() }
}

/// The files of one store.
struct Files {
    folder: TempDir,
}

impl Files {
    fn new() -> Self {
        Self { folder: folder() }
    }

    /// With a store in them.
    fn made() -> Self {
        let files = Self::new();
        assert_done(&files.run(&["init"], b""));
        files
    }

    fn store(&self) -> PathBuf {
        self.folder.path().join("data/app.kfs")
    }

    fn key(&self) -> PathBuf {
        self.folder.path().join("keys/master.key")
    }

    /// `keyferry store <args>` on these files.
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_keyferry"));
        command.arg("store").args(args).arg("--file").arg(self.store()).arg("--master-key").arg(self.key());
        command.env_clear().stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&self, args: &[&str], input: &[u8]) -> Output {
        let mut child = self.command(args).spawn().unwrap();
        // A command that reads no input may have ended already.
        let _ = child.stdin.take().unwrap().write_all(input);
        child.wait_with_output().unwrap()
    }

    fn set(&self, key: &str, value: &[u8]) {
        assert_done(&self.run(&["set", key], value));
    }

    fn get(&self, key: &str) -> Vec<u8> {
        let output = self.run(&["get", key], b"");
        assert_done(&output);
        output.stdout
    }
}

fn assert_done(output: &Output) {
    assert!(output.status.success(), "{}", told(output));
}

/// The command failed with code 1, wrote nothing to standard output, and told each of the words on one line.
fn assert_refused(output: &Output, words: &[&str]) {
    let told = told(output);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(output.stdout.is_empty(), "{:?}", output.stdout);
    assert_eq!(told.trim_end().lines().count(), 1, "{told}");
    for word in words {
        assert!(told.contains(word), "{word:?} is not in {told:?}");
    }
}

fn told(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn shown(output: &Output) -> String {
    assert_done(output);
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// The same without the moments at which versions were written.
fn without_times(mut listed: serde_json::Value) -> serde_json::Value {
    for name in listed.as_array_mut().unwrap() {
        let written = name.as_object_mut().unwrap().remove("written");
        assert!(written.is_some_and(|written| written.as_str().unwrap().ends_with('Z')));
    }
    listed
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn init_makes_both_files_for_their_owner_only_and_replaces_neither() {
    let files = Files::new();
    let said = shown(&files.run(&["init"], b""));
    assert!(said.contains("app.kfs") && said.contains("master.key"), "{said}");
    assert_eq!((mode(&files.store()), mode(&files.key())), (0o600, 0o600));
    assert_eq!(mode(&files.folder.path().join("data")), 0o700);
    assert_eq!(fs::read(files.key()).unwrap().len(), 45, "one line of base64");

    files.set("k", b"v");
    let before = (fs::read(files.store()).unwrap(), fs::read(files.key()).unwrap());
    assert_refused(&files.run(&["init"], b""), &["app.kfs", "exists already"]);
    assert_eq!((fs::read(files.store()).unwrap(), fs::read(files.key()).unwrap()), before);

    fs::remove_file(files.store()).unwrap();
    assert_done(&files.run(&["init"], b""));
    assert_eq!(fs::read(files.key()).unwrap(), before.1, "a second store under the same key");
}

#[test]
fn a_value_comes_back_byte_for_byte_and_alone() {
    let files = Files::made();
    let every_byte: Vec<u8> = (0..=255).collect();
    for value in [&b"no line end"[..], b"one line end\n", b"", &every_byte, &vec![b'x'; 1 << 20]] {
        files.set("k", value);
        assert_eq!(files.get("k"), value);
        let path = files.folder.path().join("value");
        fs::write(&path, value).unwrap();
        assert_done(&files.run(&["set", "from/file", "--from-file", path.to_str().unwrap()], b"not this"));
        assert_eq!(files.get("from/file"), value);
    }
}

#[test]
fn versions_count_up_and_each_can_be_read() {
    let files = Files::made();
    for (number, value) in (1..).zip(["one", "two", "three"]) {
        assert_eq!(shown(&files.run(&["set", "db/password"], value.as_bytes())), format!("db/password version {number}\n"));
    }
    assert_eq!(files.get("db/password"), b"three");
    assert_eq!(shown(&files.run(&["get", "db/password", "--version", "1"], b"")), "one");
    assert_eq!(shown(&files.run(&["versions", "db/password"], b"")), "1\n2\n3\n");
    assert_refused(&files.run(&["get", "db/password", "--version", "4"], b""), &["db/password", "version 4", "store versions"]);
    assert_refused(&files.run(&["get", "db/password", "--version", "0"], b""), &["db/password", "version 0"]);
    assert_refused(&files.run(&["versions", "db"], b""), &["\"db\"", "does not exist"]);
}

#[test]
fn a_compare_and_set_writes_over_what_was_expected_only() {
    let files = Files::made();
    assert_done(&files.run(&["set", "k", "--cas", "0"], b"one"));
    assert_refused(&files.run(&["set", "k", "--cas", "0"], b"lost"), &["\"k\"", "version 1 and not 0", "nothing was written"]);
    assert_done(&files.run(&["set", "k", "--cas", "1"], b"two"));
    assert_refused(&files.run(&["set", "k", "--cas", "3"], b"lost"), &["version 2 and not 3"]);
    assert_refused(&files.run(&["set", "new", "--cas", "1"], b"lost"), &["version 0 and not 1"]);
    assert_eq!(files.get("k"), b"two");
    assert_eq!(shown(&files.run(&["list"], b"")), "k\n");
}

#[test]
fn a_delete_hides_a_value_and_an_undelete_brings_it_back() {
    let files = Files::made();
    files.set("k", b"one");
    files.set("k", b"two");
    files.set("other", b"x");
    assert_eq!(shown(&files.run(&["delete", "k"], b"")), "k version 2 deleted\n");
    assert_refused(&files.run(&["get", "k"], b""), &["version 2", "\"k\"", "is deleted", "undelete"]);
    assert_eq!(shown(&files.run(&["get", "k", "--version", "1"], b"")), "one");
    assert_eq!(shown(&files.run(&["list"], b"")), "other\n");
    assert_eq!(shown(&files.run(&["list", "--all"], b"")), "k\tdeleted\nother\n");
    assert_eq!(shown(&files.run(&["versions", "k"], b"")), "1\n2\tdeleted\n");
    let listed: serde_json::Value = serde_json::from_str(&shown(&files.run(&["list", "--all", "--json"], b""))).unwrap();
    let expected = serde_json::json!([
        {"key": "k", "version": 2, "deleted": true, "type": "opaque", "status": "active", "expired": false},
        {"key": "other", "version": 1, "deleted": false, "type": "opaque", "status": "active", "expired": false}
    ]);
    assert_eq!(without_times(listed), expected);
    assert_done(&files.run(&["undelete", "k"], b""));
    assert_eq!(files.get("k"), b"two");
    assert_done(&files.run(&["delete", "k", "--version", "1"], b""));
    assert_eq!(files.get("k"), b"two");
    files.run(&["delete", "k"], b"");
    files.set("k", b"three");
    assert_eq!(files.get("k"), b"three");
    for command in ["delete", "undelete"] {
        assert_refused(&files.run(&[command, "never"], b""), &["\"never\"", "does not exist", "app.kfs"]);
        assert_refused(&files.run(&[command, "k", "--version", "9"], b""), &["\"k\"", "version 9"]);
    }
}

#[test]
fn keys_are_canonical_and_bad_ones_are_refused() {
    let files = Files::made();
    files.set("/db//password/", b"v");
    assert_eq!(files.get("db/password"), b"v");
    for key in ["", "/", "a/../b", "a\nb"] {
        assert_refused(&files.run(&["set", key], b"v"), &["the remote key"]);
    }
}

#[test]
fn a_value_is_no_argument() {
    let files = Files::made();
    let refused = files.run(&["set", "k", "hunter2"], b"");
    assert_eq!(refused.status.code(), Some(2));
    assert!(shown(&files.run(&["list"], b"")).is_empty());
}

#[test]
fn a_refusal_names_place_and_remedy_and_no_value() {
    const CANARY: &str = "canary-of-the-store";
    let files = Files::made();
    files.set("k", CANARY.as_bytes());
    let key = fs::read_to_string(files.key()).unwrap();
    let mut refusals = Vec::new();
    let mut refused = |words: &[&str]| {
        for (args, input) in [(&["get", "k"][..], ""), (&["set", "k"], CANARY), (&["list"], ""), (&["delete", "k"], "")] {
            let output = files.run(args, input.as_bytes());
            assert_refused(&output, words);
            refusals.push(told(&output));
        }
    };
    for path in [files.store(), files.key()] {
        for open in [0o644, 0o640, 0o660] {
            fs::set_permissions(&path, fs::Permissions::from_mode(open)).unwrap();
            refused(&[path.to_str().unwrap(), "can be opened by others", "chmod 600"]);
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }
    fs::write(files.key(), "bm8ga2V5\n").unwrap();
    refused(&["master.key", "no master key", "32 bytes"]);
    let other = Files::made();
    fs::copy(other.key(), files.key()).unwrap();
    refused(&["app.kfs", "another master key"]);
    fs::write(files.key(), &key).unwrap();
    let store = fs::read(files.store()).unwrap();
    fs::write(files.store(), "k: v\n").unwrap();
    refused(&["app.kfs", "damaged or no Keyferry store", "backup"]);
    fs::write(files.store(), b"").unwrap();
    refused(&["app.kfs", "damaged or no Keyferry store"]);
    fs::write(files.store(), &store[..store.len() / 2]).unwrap();
    refused(&["app.kfs", "damaged or no Keyferry store"]);
    fs::remove_file(files.store()).unwrap();
    refused(&["app.kfs", "does not exist", "keyferry store init"]);
    fs::create_dir(files.store()).unwrap();
    refused(&["app.kfs", "no regular file"]);
    fs::remove_dir(files.store()).unwrap();
    fs::write(files.store(), &store).unwrap();
    fs::set_permissions(files.store(), fs::Permissions::from_mode(0o600)).unwrap();
    fs::remove_file(files.key()).unwrap();
    refused(&["master.key", "does not exist"]);
    for told in refusals {
        assert!(!told.contains(CANARY) && !told.contains(key.trim_end()), "{told}");
    }
}

#[test]
fn a_command_without_its_files_says_which_flag_is_missing() {
    for (args, word) in [(&["--master-key", "k"][..], "--file"), (&["--file", "s"], "--master-key")] {
        let output = Command::new(env!("CARGO_BIN_EXE_keyferry")).args(["store", "list"]).args(args).env_clear().output().unwrap();
        assert_refused(&output, &[word, "is missing"]);
    }
}

#[test]
fn a_value_that_is_too_long_is_refused_and_nothing_is_written() {
    let files = Files::made();
    let path = files.folder.path().join("long");
    fs::write(&path, vec![b'x'; (8 << 20) + 1]).unwrap();
    assert_refused(&files.run(&["set", "k", "--from-file", path.to_str().unwrap()], b""), &["longer than 8388608 bytes"]);
    assert!(shown(&files.run(&["list"], b"")).is_empty());
    assert_refused(&files.run(&["set", "k", "--from-file", "/nowhere/value"], b""), &["/nowhere/value", "cannot be opened"]);
}

#[test]
fn two_processes_that_write_at_once_lose_nothing() {
    let files = Files::made();
    std::thread::scope(|scope| {
        for writer in ["one", "two"] {
            let files = &files;
            scope.spawn(move || (0..6).for_each(|number| files.set(&format!("{writer}/{number}"), b"own")));
            scope.spawn(move || (0..6).for_each(|_| files.set("shared", writer.as_bytes())));
        }
    });
    assert_eq!(shown(&files.run(&["list"], b"")).lines().count(), 13);
    assert_eq!(shown(&files.run(&["versions", "shared"], b"")).lines().count(), 12);
}
