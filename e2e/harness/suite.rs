//! The suite as a whole: when all of its cases have ended, so that one test can look at what all of them used.

use std::sync::LazyLock;
use std::time::Duration;

use tokio::sync::watch;

/// Tests that hold a control plane or wait for one.
static RUNNING: LazyLock<watch::Sender<usize>> = LazyLock::new(|| watch::Sender::new(0));

/// A test that begins may not have asked for its control plane yet.
const BEGINNING: Duration = Duration::from_secs(5);

/// A test that runs; ended when dropped.
pub struct Running;

impl Running {
    pub fn begin() -> Self {
        RUNNING.send_modify(|running| *running += 1);
        Self
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        RUNNING.send_modify(|running| *running -= 1);
    }
}

/// Waits until every test that began before has ended: tests begin in the order of their names.
///
/// # Panics
/// When only some of them are run.
pub async fn ended() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let is_setting = |argument: &String| argument.starts_with('-') || argument.parse::<u32>().is_ok();
    assert!(arguments.iter().all(is_setting), "this is about the whole suite: run it without a filter");
    let mut changes = RUNNING.subscribe();
    loop {
        changes.wait_for(|running| *running == 0).await.expect("held here");
        if tokio::time::timeout(BEGINNING, changes.wait_for(|running| *running > 0)).await.is_err() {
            return;
        }
    }
}
