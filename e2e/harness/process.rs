//! Child processes that end with the test process, however it ends, and that any thread can kill and wait for.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use rustix::process::{Pid, Signal, kill_process};

/// Becomes the program and leaves a process behind that kills it as soon as nobody holds the other end of standard input: the kernel
/// closes that when the test process ends, however it ends.
const WITH_LIFELINE: &str = r#"exec 3<&0; (read -r _ <&3; kill -KILL $$) >/dev/null 2>&1 & exec "$@" 3<&- </dev/null"#;

/// A running child; killed when dropped.
pub struct Process {
    state: Arc<State>,
    pid: Pid,
    lifeline: Mutex<Option<ChildStdin>>,
}

#[derive(Default)]
struct State {
    ended: Mutex<Option<ExitStatus>>,
    changed: Condvar,
}

impl State {
    fn lock(&self) -> MutexGuard<'_, Option<ExitStatus>> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Process {
    /// To run `program`: add its arguments and environment.
    pub fn command(program: impl AsRef<Path>) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", WITH_LIFELINE, "sh"]).arg(program.as_ref());
        command
    }

    /// Starts it; every line that it writes, to standard output or standard error, goes to `line`.
    pub fn spawn(mut command: Command, line: impl Fn(&str) + Send + Sync + 'static) -> Self {
        // A group of its own: an interrupt at the terminal must reach the test process alone, whose end ends the rest.
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let mut child = command.spawn().expect("a shell");
        let lifeline = Mutex::new(child.stdin.take());
        let pid = Pid::from_child(&child);
        let line = Arc::new(line);
        let readers = [follow(child.stdout.take().expect("piped"), line.clone()), follow(child.stderr.take().expect("piped"), line)];
        let state = Arc::new(State::default());
        let waiting = state.clone();
        thread::spawn(move || {
            let status = child.wait().expect("a child can be waited for");
            // Ended means that its last line was read, too.
            readers.into_iter().for_each(|reader| drop(reader.join()));
            *waiting.lock() = Some(status);
            waiting.changed.notify_all();
        });
        Self { state, pid, lifeline }
    }

    pub fn id(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    pub fn is_running(&self) -> bool {
        self.state.lock().is_none()
    }

    /// SIGKILL; returns when it is dead.
    pub fn kill(&self) {
        self.signal(Signal::KILL);
        self.wait();
    }

    pub fn signal(&self, signal: Signal) {
        if self.is_running() {
            // It may end at this very moment.
            let _ = kill_process(self.pid, signal);
        }
    }

    /// Blocks until it has ended.
    pub fn wait(&self) -> ExitStatus {
        let ended = self.state.changed.wait_while(self.state.lock(), |ended| ended.is_none());
        let ended = ended.unwrap_or_else(PoisonError::into_inner);
        ended.expect("waited for")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Before the lifeline: until it is waited for, the process id cannot belong to anybody else.
        self.kill();
        drop(self.lifeline.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

fn follow<R: Read + Send + 'static>(output: R, line: Arc<impl Fn(&str) + Send + Sync + 'static>) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let mut output = BufReader::new(output);
        let mut bytes = Vec::new();
        while output.read_until(b'\n', &mut bytes).is_ok_and(|read| read > 0) {
            line(String::from_utf8_lossy(&bytes).trim_end_matches('\n'));
            bytes.clear();
        }
    })
}
