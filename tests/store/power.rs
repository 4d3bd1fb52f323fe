//! Loss of power during `keyferry store set`: what was written since the last sync may be there, in part or not at all, in any order.
//!
//! The traced writes of one run are replayed on the file as it was. At each sync the power is lost in several ways; each time the change
//! must be there whole or not at all, and whole once it was acknowledged.

use std::fs;

use keyferry::backend::file::MasterKey;

use super::{
    Files, assert_done,
    crash::{assert_takes_a_write, content, content_of, filled, open},
};

/// A traced call that changes the file or says something about it.
#[derive(Clone, Debug)]
enum Call {
    Write {
        at: usize,
        bytes: Vec<u8>,
    },
    Length(usize),
    Sync,
    /// The command told its user that it is done.
    Acknowledge,
}

/// What becomes of one unsynced call when the power is lost.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Kept,
    Lost,
    /// A disk writes sectors of 512 bytes.
    Torn,
}

impl Call {
    /// `1234 pwrite64(4, "\x01\x02"..., 2, 4096) = 2`
    fn parse(line: &str) -> Option<Self> {
        let (name, arguments) = line.split_whitespace().nth(1)?.split_once('(').map(|(name, _)| name).zip(line.split_once('('))?;
        let numbers: Vec<&str> = arguments.1.split(')').next()?.split(", ").collect();
        match name {
            "pwrite64" => Some(Self::Write { at: numbers.last()?.parse().ok()?, bytes: unescape(numbers.get(1)?) }),
            "ftruncate" => Some(Self::Length(numbers.last()?.parse().ok()?)),
            "fdatasync" | "fsync" => Some(Self::Sync),
            "write" => Some(Self::Acknowledge),
            _ => None,
        }
    }

    fn apply(&self, file: &mut Vec<u8>, fate: Fate) {
        match (self, fate) {
            (_, Fate::Lost) | (Self::Sync | Self::Acknowledge, _) => {}
            (Self::Length(length), _) => file.resize(*length, 0),
            (Self::Write { at, bytes }, _) => {
                let kept = if fate == Fate::Torn { &bytes[..bytes.len().min(512)] } else { bytes };
                file.resize(file.len().max(at + kept.len()), 0);
                file[*at..at + kept.len()].copy_from_slice(kept);
            }
        }
    }
}

fn unescape(text: &str) -> Vec<u8> {
    let digits = text.trim_matches('"').split("\\x").skip(1);
    digits.map(|digits| u8::from_str_radix(digits, 16).unwrap()).collect()
}

/// Ways to lose power: everything since the sync is lost, all but one call is kept, one alone is kept, one is torn.
fn losses(calls: usize) -> Vec<Vec<Fate>> {
    let alone = |at: usize, one: Fate, others: Fate| (0..calls).map(|index| if index == at { one } else { others }).collect();
    let mut losses = vec![vec![Fate::Lost; calls], vec![Fate::Kept; calls]];
    for at in 0..calls {
        losses.extend([alone(at, Fate::Lost, Fate::Kept), alone(at, Fate::Kept, Fate::Lost), alone(at, Fate::Torn, Fate::Kept)]);
    }
    losses
}

#[test]
fn a_change_survives_a_loss_of_power_at_every_sync() {
    let files = filled();
    let value = files.folder.path().join("value");
    fs::write(&value, vec![b'n'; 20_000]).unwrap();
    let (run, calls) = traced(&files, &["set", "certificate", "--from-file", value.to_str().unwrap()]);
    let (before, after) = (content(&files), content(&run));
    lose_power_at_every_sync(&files, &run, calls, |copy, acknowledged, what| assert_change(copy, acknowledged, (&before, &after), what));
}

#[test]
fn a_rekey_survives_a_loss_of_power_at_every_sync_under_exactly_one_key() {
    let files = filled();
    let new = files.folder.path().join("new.key");
    MasterKey::create(&new).unwrap();
    let (run, calls) = traced(&files, &["rekey", "--new-master-key", new.to_str().unwrap()]);
    let before = content(&files);
    lose_power_at_every_sync(&files, &run, calls, |copy, acknowledged, what| {
        let [old, new] = [copy.key(), new.clone()].map(|key| open(&copy.store(), &key).ok().map(content_of));
        assert!(old.is_some() != new.is_some() && (!acknowledged || new.is_some()), "{what}: old {}, new {}", old.is_some(), new.is_some());
        assert!(old.or(new).is_some_and(|content| content == before), "{what}: the content changed");
    });
}

/// The files after an undisturbed run, and its calls.
fn traced(files: &Files, args: &[&str]) -> (Files, Vec<Call>) {
    let run = files.copy();
    let options = ["-xx", "-s", "1000000"].map(str::to_owned);
    assert_done(&run.traced(args, &options));
    let trace = fs::read_to_string(run.folder.path().join("trace")).unwrap();
    (run, trace.lines().filter_map(Call::parse).collect())
}

fn lose_power_at_every_sync(files: &Files, run: &Files, calls: Vec<Call>, check: impl Fn(&Files, bool, &str)) {
    let mut durable = fs::read(files.store()).unwrap();
    let (mut pending, mut acknowledged, mut images) = (Vec::new(), false, 0);
    for call in calls {
        match call {
            Call::Acknowledge => acknowledged = true,
            Call::Write { .. } | Call::Length(_) => pending.push(call),
            Call::Sync => {
                for loss in losses(pending.len()) {
                    let mut image = durable.clone();
                    pending.iter().zip(&loss).for_each(|(call, fate)| call.apply(&mut image, *fate));
                    let what = format!("power lost, acknowledged {acknowledged}, {loss:?}");
                    let copy = files.copy();
                    fs::write(copy.store(), image).unwrap();
                    check(&copy, acknowledged, &what);
                    images += 1;
                }
                pending.drain(..).for_each(|call| call.apply(&mut durable, Fate::Kept));
            }
        }
    }
    println!("ways in which the power was lost: {images}");
    assert!(acknowledged && images > 100, "{images} images: the trace misses what the command does");
    pending.drain(..).for_each(|call: Call| call.apply(&mut durable, Fate::Kept));
    assert!(durable == fs::read(run.store()).unwrap(), "the replay is not what the command did");
}

fn assert_change(files: &Files, acknowledged: bool, states: (&super::crash::Content, &super::crash::Content), what: &str) {
    let now = content(files);
    assert!(now == *states.1 || (!acknowledged && now == *states.0), "{what}");
    assert_takes_a_write(files, what);
}
