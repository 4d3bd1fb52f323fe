//! Hints that a store changed: its metadata, looked at a few times a second. Reading never changes it, so a hint costs one look.

use std::time::Duration;

use futures::stream::{BoxStream, StreamExt, unfold};
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::place::{Place, Stamp};
use crate::item::Hint;

/// A change must have arrived within a second: half of that is left for everybody after us.
const LOOK_EVERY: Duration = Duration::from_millis(300);

struct Watched {
    places: [Place; 2],
    seen: [Option<Stamp>; 2],
    clock: Interval,
}

/// One hint at everything per change of the store or its master key, from what stands there when this is called.
pub fn changes(store: Place, master: Place) -> BoxStream<'static, Hint> {
    let mut clock = interval(LOOK_EVERY);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let places = [store, master];
    let seen = stamps(&places);
    unfold(Watched { places, seen, clock }, next).boxed()
}

async fn next(mut watched: Watched) -> Option<(Hint, Watched)> {
    loop {
        watched.clock.tick().await;
        let places = watched.places.clone();
        // On a thread of its own: a file system that hangs must not hold the others up.
        let Ok(now) = tokio::task::spawn_blocking(move || stamps(&places)).await else { continue };
        if now != watched.seen {
            watched.seen = now;
            return Some((Hint::All, watched));
        }
    }
}

fn stamps(places: &[Place; 2]) -> [Option<Stamp>; 2] {
    places.each_ref().map(Place::stamp)
}
