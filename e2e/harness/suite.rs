//! The suite as a whole: which of its cases have ended, so that one test can look at what all of them used.

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::LazyLock;
use std::thread;

use tokio::sync::watch;

/// Names of tests whose world has ended.
static ENDED: LazyLock<watch::Sender<BTreeSet<String>>> = LazyLock::new(|| watch::Sender::new(BTreeSet::new()));

/// A test that runs; ended when dropped.
pub struct Running(String);

impl Running {
    /// Must be called on the test's own thread: it carries the test's name.
    pub fn begin() -> Self {
        Self(thread::current().name().unwrap_or_default().to_owned())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        ENDED.send_modify(|ended| {
            ended.insert(std::mem::take(&mut self.0));
        });
    }
}

/// Waits until every case but `me` has ended.
///
/// # Panics
/// When only some of them are run, or one begins no world.
pub async fn ended(me: &str) {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    assert!(arguments.iter().all(|argument| argument.starts_with('-')), "this is about the whole suite: run it without a filter");
    // One thread means one after the other, in the order of names, on a thread without a name of its own.
    if thread::current().name() == Some("main") {
        return;
    }
    let list = Command::new(std::env::current_exe().expect("this program")).args(["--list", "--format=terse"]).output();
    let list = String::from_utf8(list.expect("this program lists its tests").stdout).expect("names");
    let names = list.lines().filter_map(|line| line.strip_suffix(": test"));
    let expected: BTreeSet<String> = names.filter(|name| name.starts_with("cases::") && *name != me).map(str::to_owned).collect();
    assert!(!expected.is_empty(), "there are no cases");
    let mut changes = ENDED.subscribe();
    while !expected.is_subset(&changes.borrow_and_update()) {
        changes.changed().await.expect("held here");
    }
}
