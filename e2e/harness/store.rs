//! The file store of a test, filled by the program's own commands as people fill it.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The program under test.
pub const KEYFERRY: &str = env!("CARGO_BIN_EXE_keyferry");

/// One encrypted file below the operator's root.
#[derive(Clone, Debug)]
pub struct FileStore {
    /// The ClusterSecretStore that names it.
    pub name: String,
    pub file: PathBuf,
    pub master_key: PathBuf,
}

impl FileStore {
    /// Makes it.
    pub fn create(root: &Path, master_key: &Path, name: &str, path: &str) -> Self {
        let store = Self { name: name.to_owned(), file: root.join(path), master_key: master_key.to_owned() };
        store.run(&["init"], b"");
        store
    }

    /// Writes a new version and returns its number once it is durable.
    pub fn set(&self, key: &str, value: impl AsRef<[u8]>) -> u64 {
        let said = self.run(&["set", key], value.as_ref());
        said.trim().rsplit(' ').next().and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("no version in {said:?}"))
    }

    /// Deletes the latest version softly.
    pub fn delete(&self, key: &str) {
        self.run(&["delete", key], b"");
    }

    pub fn undelete(&self, key: &str) {
        self.run(&["undelete", key], b"");
    }

    /// Changes what is known about a key.
    pub fn edit(&self, key: &str, flags: &[&str]) {
        self.run(&[&["edit", key], flags].concat(), b"");
    }

    /// Gives it the master key in this file, which is made.
    pub fn rekey(&self, new: &Path) {
        self.run(&["rekey", "--new-master-key", new.to_str().expect("a path in UTF-8")], b"");
    }

    fn run(&self, arguments: &[&str], input: &[u8]) -> String {
        let mut command = Command::new(KEYFERRY);
        command.arg("store").args(arguments).arg("--file").arg(&self.file).arg("--master-key").arg(&self.master_key);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("keyferry");
        child.stdin.take().expect("piped").write_all(input).expect("keyferry reads");
        let output = child.wait_with_output().expect("keyferry ends");
        assert!(output.status.success(), "keyferry store {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}
