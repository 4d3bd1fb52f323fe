//! What a search finds: the names that it takes, and their values. A list that shrinks suddenly is not believed at once.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
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
    item::{Fetched, FindRef, Found, Reading},
    name::{RemoteKey, RemoteRef},
};

/// What each search of a store found last. A new session goes on with it; after a restart it begins with what targets say of themselves.
pub struct Lists {
    shrink: Duration,
    known: Mutex<HashMap<FindRef, Known>>,
}

struct Known {
    names: Names,
    /// Since when lists show less than half of it.
    short_since: Option<Instant>,
}

/// What is remembered of a list.
enum Names {
    Seen(BTreeSet<RemoteKey>),
    /// How many they were, as the last leader wrote it down.
    Noted(usize),
}

impl Names {
    /// Whether a list lacks more than half of it.
    fn is_halved_by(&self, list: &BTreeSet<RemoteKey>) -> bool {
        match self {
            Self::Seen(names) => names.difference(list).count() * 2 > names.len(),
            Self::Noted(count) => list.len() * 2 < *count,
        }
    }
}

impl Lists {
    pub fn new(shrink: Duration) -> Self {
        Self { shrink, known: Mutex::default() }
    }

    /// A target says that the search had so many names. Nothing new, once a list was seen here.
    pub fn note(&self, find: &FindRef, count: usize) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let noted = known.entry(find.clone()).or_insert(Known { names: Names::Noted(count), short_since: None });
        if let Names::Noted(before) = &mut noted.names {
            *before = count.max(*before);
        }
    }

    /// What the search takes of values that came with their names, believed as [`Lists::admitted`] does.
    pub fn taken(&self, find: &FindRef, values: &BTreeMap<RemoteKey, Fetched>, at: Instant) -> Result<Found, Fault> {
        let names: Vec<RemoteKey> = values.keys().cloned().collect();
        let admitted = self.admitted(find, &names, at)?;
        let taken: BTreeMap<RemoteKey, Fetched> =
            admitted.into_iter().filter_map(|name| values.get(&name).cloned().map(|fetched| (name, fetched))).collect();
        Ok(Found::from(taken))
    }

    /// The names that the search takes. A list that lost more than half of them counts as unknown, until a list that began at least
    /// `shrink` later says the same.
    pub fn admitted(&self, find: &FindRef, names: &[RemoteKey], at: Instant) -> Result<BTreeSet<RemoteKey>, Fault> {
        let search = Search::new(find)?;
        let admitted: BTreeSet<RemoteKey> = names.iter().filter(|name| search.takes(name)).cloned().collect();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let before = known.entry(find.clone()).or_insert_with(|| Known { names: Names::Seen(BTreeSet::new()), short_since: None });
        if before.names.is_halved_by(&admitted) {
            let since = *before.short_since.get_or_insert(at);
            if at.saturating_duration_since(since) < self.shrink {
                return Err(Fault::unavailable(
                    "the list of names lost more than half of them at once: it is looked at again before it is believed",
                ));
            }
        }
        *before = Known { names: Names::Seen(admitted.clone()), short_since: None };
        Ok(admitted)
    }
}

/// Reads every admitted name, or what is kept beside its value. One that vanished since the list is left out, one that the store withholds is told; one that cannot be
/// read fails the search.
pub async fn read(
    lane: &Lane,
    find: &FindRef,
    names: BTreeSet<RemoteKey>,
    not_before: Instant,
    priority: Priority,
    kept: &mut Vec<Arc<Kept<Answer>>>,
) -> Result<Found, Fault> {
    let names: Vec<RemoteKey> = names.into_iter().collect();
    let asked = names.iter().map(|key| Asked::Value(RemoteRef { key: key.clone(), version: None, is_metadata: find.is_metadata }));
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
            Answer::Names(_) | Answer::All(_) => return Err(bug("a list answered a value")),
        }
    }
    kept.extend(answers);
    Ok(found)
}
