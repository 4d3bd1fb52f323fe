//! Hints at which files of a tree changed: their metadata, looked at a few times a second. Reading never changes it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use futures::stream::{BoxStream, StreamExt, unfold};
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::walk::{Folder, Stamp};
use crate::{
    item::Hint,
    name::{ProviderKind, RemoteKey},
};

/// A change must have arrived within a second: half of that is left for everybody after us.
const LOOK_EVERY: Duration = Duration::from_millis(300);
/// A large tree is looked at less often: at most one part in this many of the time goes into looking.
const SHARE: u32 = 20;
/// More keys than this are told as everything.
const MOST_KEYS: usize = 1000;

/// What stands there; none when it could not be listed.
type Seen = Option<BTreeMap<String, Stamp>>;

struct Watched {
    folder: Folder,
    seen: Seen,
    clock: Interval,
}

/// One hint per change, from what stands there when this is called.
pub fn changes(folder: Folder) -> BoxStream<'static, Hint> {
    let seen = folder.list(None).ok();
    unfold(Watched { folder, seen, clock: clock(LOOK_EVERY) }, next).boxed()
}

fn clock(every: Duration) -> Interval {
    let mut clock = interval(every);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    clock
}

async fn next(mut watched: Watched) -> Option<(Hint, Watched)> {
    loop {
        watched.clock.tick().await;
        let folder = watched.folder.clone();
        let began = Instant::now();
        // On a thread of its own: a file system that hangs must not hold the others up.
        let Ok(now) = tokio::task::spawn_blocking(move || folder.list(None).ok()).await else { continue };
        let every = LOOK_EVERY.max(began.elapsed() * SHARE);
        if every != watched.clock.period() {
            watched.clock = clock(every);
            watched.clock.reset();
        }
        let hint = difference(&watched.seen, &now);
        watched.seen = now;
        if let Some(hint) = hint {
            return Some((hint, watched));
        }
    }
}

fn difference(before: &Seen, now: &Seen) -> Option<Hint> {
    let (before, now) = match (before, now) {
        (None, None) => return None,
        (Some(before), Some(now)) => (before, now),
        _ => return Some(Hint::All),
    };
    let appeared = now.iter().filter(|(file, stamp)| before.get(*file) != Some(stamp));
    let vanished = before.keys().filter(|file| !now.contains_key(*file));
    let changed: BTreeSet<&String> = appeared.map(|(file, _)| file).chain(vanished).collect();
    match changed.len() {
        0 => None,
        1..=MOST_KEYS => Some(Hint::Keys(changed.into_iter().filter_map(|file| RemoteKey::parse(ProviderKind::File, file).ok()).collect())),
        _ => Some(Hint::All),
    }
}
