//! What a search finds: the names that it takes, and their values. A list that shrinks suddenly is not believed at once.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::future::join_all;
use tokio::time::Instant;

use super::{
    Priority,
    lane::{Answer, Asked, Lane, bug},
};
use crate::{
    access::Search,
    cache::Kept,
    fault::{Fault, Reason},
    item::{FindRef, Found, Reading},
    name::{RemoteKey, RemoteRef},
};

/// What each search of a store found last. A restart forgets it, and begins with what the first list shows.
pub struct Lists {
    shrink: Duration,
    known: Mutex<HashMap<FindRef, Known>>,
}

struct Known {
    names: BTreeSet<RemoteKey>,
    /// Since when lists show less than half of it.
    short_since: Option<Instant>,
}

impl Lists {
    pub fn new(shrink: Duration) -> Self {
        Self { shrink, known: Mutex::default() }
    }

    /// The names that the search takes. A list that lost more than half of them counts as unknown, until a list that began at least
    /// `shrink` later says the same.
    pub fn admitted(&self, find: &FindRef, names: &[RemoteKey], at: Instant) -> Result<BTreeSet<RemoteKey>, Fault> {
        let search = Search::new(find)?;
        let admitted: BTreeSet<RemoteKey> = names.iter().filter(|name| search.takes(name)).cloned().collect();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(before) = known.get_mut(find) else {
            known.insert(find.clone(), Known { names: admitted.clone(), short_since: None });
            return Ok(admitted);
        };
        let lost = before.names.difference(&admitted).count();
        if lost * 2 <= before.names.len() {
            *before = Known { names: admitted.clone(), short_since: None };
            return Ok(admitted);
        }
        let since = *before.short_since.get_or_insert(at);
        if at.saturating_duration_since(since) >= self.shrink {
            *before = Known { names: admitted.clone(), short_since: None };
            return Ok(admitted);
        }
        Err(Fault::unavailable("the list of names lost more than half of them at once: it is looked at again before it is believed"))
    }
}

/// Reads every admitted name. One that vanished since the list is left out, one that the store withholds is told; one that cannot be
/// read fails the search.
pub async fn read(
    lane: &Lane,
    names: BTreeSet<RemoteKey>,
    not_before: Instant,
    priority: Priority,
    kept: &mut Vec<Arc<Kept<Answer>>>,
) -> Result<Found, Fault> {
    let names: Vec<RemoteKey> = names.into_iter().collect();
    let asked = names.iter().map(|key| Asked::Value(RemoteRef { key: key.clone(), version: None }));
    let answers = join_all(lane.ask(asked, not_before, priority)).await;
    let mut found = Found::default();
    for (name, answer) in names.into_iter().zip(&answers) {
        match &answer.answer {
            Answer::Value(Reading::Found(fetched)) => {
                found.values.insert(name, fetched.clone());
            }
            Answer::Value(Reading::Absent(fault)) if fault.reason == Reason::NotFound => {}
            Answer::Value(Reading::Absent(fault)) => {
                found.withheld.insert(name, fault.clone());
            }
            Answer::Value(Reading::Unknown(fault)) => return Err(fault.clone()),
            Answer::Names(_) => return Err(bug("a list answered a value")),
        }
    }
    kept.extend(answers);
    Ok(found)
}
