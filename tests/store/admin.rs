//! `rekey`, `backup` and `restore`, and stores of the format before: nothing acknowledged is lost, whatever happens on the way.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
};

use base64::{Engine, prelude::BASE64_STANDARD};

use super::{
    Files, assert_done, assert_refused,
    crash::{Change, Content, assert_takes_a_write, content, content_of, filled, for_each_point, open},
    mode, shown, told,
};

impl Files {
    fn beside(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn rekey(&self) -> Vec<String> {
        ["rekey", "--new-master-key", self.beside("keys/new.key").to_str().unwrap()].map(str::to_owned).to_vec()
    }

    fn do_admin(&self, args: &[String]) -> String {
        shown(&self.run(&texts(args), b""))
    }
}

fn texts(args: &[String]) -> Vec<&str> {
    args.iter().map(String::as_str).collect()
}

/// What the store holds under the old key and under the new one, where they open it.
fn under_both(files: &Files) -> [Option<Content>; 2] {
    [files.key(), files.beside("keys/new.key")].map(|key| open(&files.store(), &key).ok().map(content_of))
}

/// Exactly one of the keys opens the store, to the same content.
fn assert_one_key_opens(files: &Files, before: &Content, rekeyed: Option<bool>, what: &str) {
    let [old, new] = under_both(files);
    assert!(old.is_some() != new.is_some(), "{what}: old {}, new {}", old.is_some(), new.is_some());
    assert!(rekeyed.is_none_or(|rekeyed| rekeyed == new.is_some()), "{what}: new {}", new.is_some());
    assert!(old.or(new).is_some_and(|content| content == *before), "{what}: the content changed");
}

#[test]
fn a_rekey_that_is_killed_or_fails_anywhere_leaves_one_key_that_opens_everything() {
    let files = filled();
    let before = content(&files);
    let undisturbed = files.copy();
    let making = undisturbed.points(&texts(&undisturbed.rekey()));
    assert_one_key_opens(&undisturbed, &before, Some(true), "undisturbed");
    let new_key = undisturbed.beside("keys/new.key");
    // How many pages a rekey writes depends on the new key, as names lie where it hides them: each run on the store gets the same one.
    let given = |new_key: Option<&Path>| {
        let copy = files.copy();
        if let Some(key) = new_key {
            fs::copy(key, copy.beside("keys/new.key")).unwrap();
        }
        copy
    };
    let traced = given(Some(&new_key));
    let points = traced.points(&texts(&traced.rekey()));
    let making: Vec<_> = making.into_iter().take_while(|point| !point.is("pwrite64")).collect();
    assert!(points.len() > 20 && !making.is_empty(), "{making:?} {points:?}: the trace misses what the container or the key does");
    let disturb = |new_key: Option<&Path>, options: &[String], killed: bool, what: &str| {
        let files = given(new_key);
        let output = files.traced(&texts(&files.rekey()), options);
        assert_eq!(output.status.code().is_none(), killed, "{what}: {}", told(&output));
        let acknowledged = String::from_utf8_lossy(&output.stdout).contains("versions are under");
        assert!(!output.status.success() || acknowledged, "{what}: success without a word");
        assert_one_key_opens(&files, &before, acknowledged.then_some(true), what);
        let again = files.do_admin(&files.rekey());
        assert!(again.contains("under"), "{what}: {again}");
        assert_one_key_opens(&files, &before, Some(true), what);
        fs::copy(files.beside("keys/new.key"), files.key()).unwrap();
        assert_takes_a_write(&files, what);
    };
    for (new_key, points) in [(None, &making), (Some(&*new_key), &points)] {
        for_each_point(points, |point| disturb(new_key, &point.kill(), true, &format!("rekey killed at {point:?}")));
        for_each_point(points, |point| {
            if let Some(options) = point.fail(&[("pwrite64", "ENOSPC"), ("fdatasync", "EIO"), ("fsync", "EIO"), ("ftruncate", "ENOSPC")]) {
                disturb(new_key, &options, false, &format!("rekey failing at {point:?}"));
            }
        });
    }
    println!("kill points of a rekey: {} while the key is made, {} on the store", making.len(), points.len());
}

#[test]
fn a_rekey_says_what_opens_the_store_and_needs_one_of_its_keys() {
    let files = filled();
    let said = files.do_admin(&files.rekey());
    assert!(said.contains("made the master key") && said.contains("4 versions are under") && said.contains("opens it no more"), "{said}");
    assert_eq!(mode(&files.beside("keys/new.key")), 0o600);
    assert!(files.do_admin(&files.rekey()).contains("already"));
    assert_refused(&files.run(&["list"], b""), &["app.kfs", "another master key"]);

    let strange = Files::made();
    fs::copy(strange.key(), files.beside("keys/new.key")).unwrap();
    let refused = files.run(&texts(&files.rekey()), b"");
    assert_refused(&refused, &["app.kfs", "another master key"]);
    let missing = Files::new();
    assert_refused(&missing.run(&texts(&missing.rekey()), b""), &["app.kfs", "does not exist"]);
    assert!(!missing.beside("keys/new.key").exists(), "no key is made for a store that is not there");
}

#[test]
fn a_backup_that_is_killed_anywhere_is_whole_or_not_there() {
    let files = filled();
    let before = content(&files);
    let args = |files: &Files| ["backup".to_owned(), files.beside("backup.kfs").display().to_string()];
    let undisturbed = files.copy();
    let points = undisturbed.points(&texts(&args(&undisturbed)));
    for_each_point(&points, |point| {
        let what = format!("backup killed at {point:?}");
        let files = files.copy();
        let output = files.traced(&texts(&args(&files)), &point.kill());
        assert!(output.status.code().is_none(), "{what}: the point was not reached: {}", told(&output));
        let copy = files.beside("backup.kfs");
        assert!(copy.exists() || output.stdout.is_empty(), "{what}: acknowledged and not there");
        if !copy.exists() {
            files.do_admin(&args(&files));
        }
        assert!(content_of(open(&copy, &files.key()).unwrap()) == before, "{what}");
        assert!(content(&files) == before, "{what}");
        assert_takes_a_write(&files, &what);
    });
    println!("kill points of a backup: {}", points.len());
}

#[test]
fn a_restore_that_is_killed_anywhere_leaves_the_one_content_or_the_other() {
    let files = filled();
    let backup = files.beside("backup.kfs");
    assert_done(&files.run(&["backup", backup.to_str().unwrap()], b""));
    let before_the_loss = content(&files);
    files.set("since/then", b"lost by the restore");
    files.set("db/password", b"and this");
    let args = ["restore", backup.to_str().unwrap(), "--replace"];
    let change = Change::of(&files, &args);
    assert!(change.after == before_the_loss && change.before != change.after);
    let killed = change.kill_at_each();
    let failed = change.fail_each("pwrite64", "ENOSPC") + change.fail_each("fdatasync", "EIO");
    println!("kill points of a restore: {killed}; failing calls: {failed}");

    // Where there is no store: it is there as a whole or not at all.
    let points = {
        let files = files.copy();
        fs::remove_file(files.store()).unwrap();
        files.points(&args)
    };
    for_each_point(&points, |point| {
        let what = format!("restore to nothing killed at {point:?}");
        let files = files.copy();
        fs::remove_file(files.store()).unwrap();
        let output = files.traced(&args, &point.kill());
        assert!(output.status.code().is_none(), "{what}: the point was not reached: {}", told(&output));
        if !files.store().exists() {
            assert_done(&files.run(&args, b""));
        }
        assert!(content(&files) == before_the_loss, "{what}");
        assert_takes_a_write(&files, &what);
    });
}

#[test]
fn a_restore_refuses_what_it_would_lose_and_what_it_cannot_open_before_it_touches_anything() {
    let files = filled();
    let backup = files.beside("backup.kfs");
    let backup = backup.to_str().unwrap();
    assert_done(&files.run(&["backup", backup], b""));
    assert_eq!(mode(Path::new(backup)), 0o600);
    assert_refused(&files.run(&["backup", backup], b""), &["backup.kfs", "exists already"]);
    let before = fs::read(files.store()).unwrap();
    assert_refused(&files.run(&["restore", "/nowhere.kfs", "--replace"], b""), &["/nowhere.kfs", "does not exist"]);
    let strange = Files::made();
    let foreign = strange.store();
    assert_refused(&files.run(&["restore", foreign.to_str().unwrap(), "--replace"], b""), &["another master key"]);
    assert!(fs::read(files.store()).unwrap() == before);
    let before = content(&files);
    files.set("since/then", b"kept");
    assert_refused(&files.run(&["restore", backup], b""), &["app.kfs", "holds keys already", "--replace"]);
    assert_eq!(files.get("since/then"), b"kept");

    let empty = Files::new();
    fs::create_dir_all(empty.key().parent().unwrap()).unwrap();
    fs::copy(files.key(), empty.key()).unwrap();
    assert_done(&empty.run(&["init"], b""));
    assert!(shown(&empty.run(&["restore", backup], b"")).contains("4 versions"));
    assert!(content(&empty) == before);
}

#[test]
fn a_backup_is_one_moment_of_a_store_that_is_written_to() {
    let files = Files::made();
    let written = [const { AtomicUsize::new(0) }; 2];
    let rounds = 12;
    std::thread::scope(|scope| {
        for (writer, written) in ["one", "two"].into_iter().zip(&written) {
            let files = &files;
            scope.spawn(move || {
                for number in 0..rounds {
                    files.set(&format!("{writer}/{number:03}"), writer.as_bytes());
                    written.store(number + 1, Ordering::SeqCst);
                }
            });
        }
        let mut backups = 0;
        while written.iter().any(|written| written.load(Ordering::SeqCst) < rounds) {
            let acknowledged = written.each_ref().map(|written| written.load(Ordering::SeqCst));
            let copy = files.beside(&format!("backup-{backups}.kfs"));
            assert_done(&files.run(&["backup", copy.to_str().unwrap()], b""));
            let names: Vec<String> = open(&copy, &files.key()).unwrap().names().unwrap().into_iter().map(|name| name.key).collect();
            for (writer, acknowledged) in ["one/", "two/"].into_iter().zip(acknowledged) {
                let of_writer: Vec<_> = names.iter().filter(|name| name.starts_with(writer)).cloned().collect();
                let expected: Vec<_> = (0..of_writer.len()).map(|number| format!("{writer}{number:03}")).collect();
                assert!(of_writer == expected && of_writer.len() >= acknowledged, "{writer}: {of_writer:?}, acknowledged {acknowledged}");
            }
            backups += 1;
        }
        assert!(backups > 0);
    });
}

/// The store of `fixtures/format-1.kfs.txt`: what is not zero, by its offset.
fn first_format() -> Files {
    let files = Files::new();
    let mut lines = include_str!("fixtures/format-1.kfs.txt").lines().filter(|line| !line.starts_with('#'));
    let mut bytes = vec![0; lines.next().unwrap().parse().unwrap()];
    for line in lines {
        let (at, text) = line.split_once(' ').unwrap();
        let part = match text.split_once('*') {
            Some((count, byte)) => vec![byte.parse().unwrap(); count.parse().unwrap()],
            None => BASE64_STANDARD.decode(text).unwrap(),
        };
        let at: usize = at.parse().unwrap();
        bytes[at..at + part.len()].copy_from_slice(&part);
    }
    for (path, bytes) in [(files.store(), bytes), (files.key(), include_bytes!("fixtures/format-1.key.txt").to_vec())] {
        use std::os::unix::fs::PermissionsExt;
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }
    files
}

#[test]
fn a_store_of_the_format_before_is_read_written_described_and_rekeyed() {
    let files = first_format();
    assert_eq!(files.get("db/password"), b"two");
    assert_eq!(shown(&files.run(&["get", "db/password", "--version", "1"], b"")), "one");
    assert_eq!(shown(&files.run(&["list", "--all"], b"")), "db/password\ngone\tdeleted\n");
    assert!(shown(&files.run(&["describe", "db/password"], b"")).contains("type: opaque"));
    files.set("db/password", b"three");
    assert_done(&files.run(&["edit", "db/password", "--type", "database-password", "--owner", "me"], b""));
    assert_done(&files.run(&["undelete", "gone"], b""));
    files.do_admin(&files.rekey());
    fs::copy(files.beside("keys/new.key"), files.key()).unwrap();
    assert_eq!((files.get("db/password"), files.get("gone")), (b"three".to_vec(), b"three".to_vec()));
    assert_eq!(shown(&files.run(&["get", "db/password", "--version", "1"], b"")), "one");
}
