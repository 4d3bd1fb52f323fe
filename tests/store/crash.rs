//! `keyferry store`, killed at each of its system calls that change a file, and with each of them failing.
//!
//! One run under `strace` lists the calls; then the command runs again for each of them on a copy of the files and is killed as it
//! enters that call. What was acknowledged must be there, a change must be there whole or not at all, and the store must take the
//! next write. The calls are what the command makes: the container writes by `pwrite64`, nothing is mapped.

use std::{
    collections::BTreeMap,
    fs,
    io::Write as _,
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Command, Output},
    sync::atomic::{AtomicUsize, Ordering},
};

use keyferry::{
    backend::file::{Place, Reader, StoreError, Writer},
    secret::SecretValue,
};

use super::{Files, assert_done, told};

const CALLS: &str = "write,writev,pwrite64,pwritev,pwritev2,fsync,fdatasync,sync_file_range,msync,truncate,ftruncate,fallocate,\
                     rename,renameat,renameat2,link,linkat,unlink,unlinkat,mkdir,mkdirat";

/// A call by its name and its number among those of that name, from 1.
#[derive(Clone, Debug)]
pub struct Point {
    call: String,
    number: usize,
}

impl Point {
    pub fn is(&self, call: &str) -> bool {
        self.call == call
    }

    pub fn kill(&self) -> [String; 1] {
        [format!("--inject={}:signal=KILL:when={}", self.call, self.number)]
    }

    /// The error that this call gives, of those that are named by call.
    pub fn fail(&self, errors: &[(&str, &str)]) -> Option<[String; 1]> {
        let (_, error) = errors.iter().find(|(call, _)| *call == self.call)?;
        Some([format!("--inject={}:error={error}:when={}", self.call, self.number)])
    }
}

impl Files {
    pub fn traced(&self, args: &[&str], options: &[String]) -> Output {
        let plain = self.command(args);
        let mut traced = Command::new("strace");
        traced.args(["-f", "-qq", "-e", &format!("trace={CALLS}"), "-o"]).arg(self.folder.path().join("trace")).args(options);
        traced.arg(plain.get_program()).args(plain.get_args()).env_clear();
        match traced.output() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                panic!("strace is missing: install it (Debian: apt-get install strace)")
            }
            output => output.unwrap(),
        }
    }

    /// Every call of an undisturbed run.
    pub fn points(&self, args: &[&str]) -> Vec<Point> {
        assert_done(&self.traced(args, &[]));
        let trace = fs::read_to_string(self.folder.path().join("trace")).unwrap();
        let mut numbers = BTreeMap::<&str, usize>::new();
        let calls = trace.lines().filter_map(|line| line.split_whitespace().nth(1)?.split_once('(').map(|(call, _)| call));
        calls
            .map(|call| {
                let number = numbers.entry(call).or_default();
                *number += 1;
                Point { call: call.to_owned(), number: *number }
            })
            .collect()
    }

    pub fn copy(&self) -> Self {
        let copy = Self::new();
        for (from, to) in [(self.store(), copy.store()), (self.key(), copy.key())] {
            if from.exists() {
                fs::create_dir_all(to.parent().unwrap()).unwrap();
                fs::copy(from, to).unwrap();
            }
        }
        copy
    }

    fn reader(&self) -> Result<Reader, StoreError> {
        open(&self.store(), &self.key())
    }

    fn writer(&self) -> Result<Writer, StoreError> {
        Writer::open(&Place::path(&self.store()), &Place::path(&self.key()))
    }
}

pub fn open(store: &Path, key: &Path) -> Result<Reader, StoreError> {
    Reader::open(&Place::path(store), &Place::path(key))
}

/// What a store holds: per key, with what is known about it, each version, `None` where it is deleted.
pub type Content = BTreeMap<String, Vec<Option<Vec<u8>>>>;

pub fn content(files: &Files) -> Content {
    content_of(files.reader().unwrap())
}

pub fn content_of(mut reader: Reader) -> Content {
    let names = reader.names().unwrap();
    names
        .into_iter()
        .map(|name| {
            let versions = (1..=name.version).map(|version| match reader.get(&name.key, Some(version)) {
                Ok((value, _)) => Some(value.expose().to_vec()),
                Err(StoreError::Deleted { .. }) => None,
                Err(error) => panic!("{} version {version}: {error}", name.key),
            });
            let versions = versions.collect();
            (format!("{} {:?}", name.key, name.about), versions)
        })
        .collect()
}

pub fn assert_takes_a_write(files: &Files, what: &str) {
    let written = files.writer().and_then(|writer| writer.set("after/the/crash", &SecretValue::new(b"alive".to_vec()), Some(0)));
    assert_eq!(written.unwrap_or_else(|error| panic!("{what}: {error}")), 1);
    assert_eq!(files.reader().unwrap().get("after/the/crash", None).unwrap().0.expose(), b"alive", "{what}");
}

/// Runs work for each point, on both cores.
pub fn for_each_point(points: &[Point], work: impl Fn(&Point) + Sync) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(point) = points.get(next.fetch_add(1, Ordering::Relaxed)) {
                    work(point);
                }
            });
        }
    });
}

/// A store with two keys, several versions and a deleted one, and values of one page and of several.
pub fn filled() -> Files {
    let files = Files::made();
    let writer = files.writer().unwrap();
    let set = |key: &str, value: &[u8]| writer.set(key, &SecretValue::new(value.to_vec()), None).unwrap();
    set("db/password", b"one");
    set("db/password", b"two");
    set("certificate", &vec![b'c'; 20_000]);
    set("gone", b"three");
    writer.mark_deleted("gone", None, true).unwrap();
    drop(writer);
    files
}

/// What the store held before and what it holds after an undisturbed run.
pub struct Change<'a> {
    files: &'a Files,
    args: &'a [&'a str],
    pub before: Content,
    pub after: Content,
    points: Vec<Point>,
}

impl<'a> Change<'a> {
    pub fn of(files: &'a Files, args: &'a [&'a str]) -> Self {
        let undisturbed = files.copy();
        let before = content(files);
        let points = undisturbed.points(args);
        Self { files, args, before, after: content(&undisturbed), points }
    }

    fn assert_whole(&self, files: &Files, acknowledged: bool, what: &str) {
        let now = content(files);
        assert!(now == self.after || (!acknowledged && now == self.before), "{what}: acknowledged {acknowledged}, holds {:?}", keys(&now));
        assert_takes_a_write(files, what);
    }

    pub fn kill_at_each(&self) -> usize {
        for_each_point(&self.points, |point| {
            let what = format!("{:?} killed at {point:?}", self.args);
            let files = self.files.copy();
            let output = files.traced(self.args, &point.kill());
            assert_eq!(output.status.signal(), Some(9), "{what}: the point was not reached: {}", told(&output));
            self.assert_whole(&files, !output.stdout.is_empty(), &what);
        });
        self.points.len()
    }

    pub fn fail_each(&self, call: &str, error: &str) -> usize {
        let points: Vec<_> = self.points.iter().filter(|point| point.call == call).cloned().collect();
        for_each_point(&points, |point| {
            let what = format!("{:?} with {error} from {point:?}", self.args);
            let files = self.files.copy();
            let output = files.traced(self.args, &[format!("--inject={}:error={error}:when={}", point.call, point.number)]);
            assert!(matches!(output.status.code(), Some(0 | 1)), "{what}: {}", told(&output));
            assert!(output.status.success() || told(&output).contains("app.kfs"), "{what}: {}", told(&output));
            assert_eq!(output.status.success(), !output.stdout.is_empty(), "{what}: acknowledged without success, or the reverse");
            self.assert_whole(&files, output.status.success(), &what);
        });
        points.len()
    }
}

fn keys(content: &Content) -> Vec<(&str, usize)> {
    content.iter().map(|(key, versions)| (key.as_str(), versions.len())).collect()
}

#[test]
fn a_change_that_is_killed_anywhere_is_there_whole_or_not_at_all() {
    let files = filled();
    let value = files.folder.path().join("value");
    fs::write(&value, vec![b'n'; 20_000]).unwrap();
    let value = value.to_str().unwrap();
    let changes: [&[&str]; 6] = [
        &["edit", "db/password", "--type", "database-password", "--owner", "me"],
        &["set", "certificate", "--expires", "2100-01-01", "--from-file", value],
        &["set", "certificate", "--from-file", value],
        &["set", "new/key", "--cas", "0", "--from-file", value],
        &["delete", "db/password"],
        &["undelete", "gone"],
    ];
    let mut total = 0;
    for args in changes {
        let change = Change::of(&files, args);
        assert_ne!(change.before, change.after, "{args:?}");
        total += change.kill_at_each();
    }
    let _ = writeln!(std::io::stderr(), "kill points of changes: {total}");
    assert!(total > 100, "{total} kill points: the trace misses what the container does");
}

#[test]
fn a_change_whose_calls_fail_is_refused_and_leaves_the_store_whole() {
    let files = filled();
    let value = files.folder.path().join("value");
    fs::write(&value, vec![b'n'; 20_000]).unwrap();
    let args = ["set", "certificate", "--from-file", value.to_str().unwrap()];
    let change = Change::of(&files, &args);
    let failed = change.fail_each("pwrite64", "ENOSPC") + change.fail_each("fdatasync", "EIO") + change.fail_each("ftruncate", "ENOSPC");
    let _ = writeln!(std::io::stderr(), "failing calls of a change: {failed}");
}

#[test]
fn an_init_that_is_killed_anywhere_leaves_nothing_half_made() {
    let points = Files::new().points(&["init"]);
    for_each_point(&points, |point| {
        let what = format!("init killed at {point:?}");
        let files = Files::new();
        let output = files.traced(&["init"], &point.kill());
        assert_eq!(output.status.signal(), Some(9), "{what}: the point was not reached: {}", told(&output));
        let key = fs::read(files.key()).ok();
        if !files.store().exists() {
            assert_done(&files.run(&["init"], b""));
        }
        assert!(key.is_none_or(|key| fs::read(files.key()).unwrap() == key), "{what}: the master key was replaced");
        assert_eq!(content(&files), Content::new(), "{what}");
        assert_takes_a_write(&files, &what);
    });
    let _ = writeln!(std::io::stderr(), "kill points of init: {}", points.len());
}

#[test]
fn a_mending_that_is_killed_anywhere_is_done_by_the_next() {
    let files = filled();
    let before = content(&files);
    // Copied while a writer lives: what a killed one leaves.
    let writer = files.writer().unwrap();
    let left = files.copy();
    drop(writer);
    let undisturbed = left.copy();
    let points = undisturbed.points(&["list"]);
    assert!(points.iter().any(|point| point.call == "pwrite64"), "there was nothing to mend");
    for_each_point(&points, |point| {
        let what = format!("mending killed at {point:?}");
        let files = left.copy();
        let output = files.traced(&["list"], &point.kill());
        assert_eq!(output.status.signal(), Some(9), "{what}: the point was not reached: {}", told(&output));
        assert_eq!(content(&files), before, "{what}");
        assert_takes_a_write(&files, &what);
    });
    let _ = writeln!(std::io::stderr(), "kill points of a mending: {}", points.len());
}

#[test]
fn the_container_maps_no_file_for_writing() {
    let files = filled();
    let trace = files.folder.path().join("maps");
    let plain = files.command(&["delete", "db/password"]);
    let mut traced = Command::new("strace");
    traced.args(["-f", "-qq", "-e", "trace=mmap", "-o"]).arg(&trace).arg(plain.get_program()).args(plain.get_args()).env_clear();
    assert_done(&traced.output().unwrap());
    assert!(Path::new(&trace).exists());
    let shared: Vec<_> = fs::read_to_string(&trace)
        .unwrap()
        .lines()
        .filter(|line| line.contains("MAP_SHARED") && line.contains("PROT_WRITE"))
        .map(str::to_owned)
        .collect();
    assert!(shared.is_empty(), "writes that no traced call shows: {shared:?}");
}
